//! `custody-agent preview`: what rule packs make of a log, before anything is sent anywhere.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use custody_config::shell::{Exit, Failure, SystemClock};
use custody_event::position::Fingerprint;
use custody_event::{Clock, EventView, FileIdentity, FileKey, MAX_RAW_BYTES, Offset};
use custody_parsers::{Envelope, PackSet, Parser, Scratch, Select, Settings, Verdict};

use super::{follow, print};

/// Arguments of `preview`.
#[derive(Debug, Args)]
pub(super) struct PreviewArgs {
    /// The log file; - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    packs: PackArgs,
    /// Print the canonical events instead of a table.
    #[arg(long)]
    json: bool,
    /// Go on with what is appended (for looking on: a line may be missed at a rotation).
    #[arg(long)]
    follow: bool,
}

/// Which packs a command reads a log with, and how.
#[derive(Debug, Args)]
pub(super) struct PackArgs {
    /// Packs to use, separated by commas, or auto.
    #[arg(long, default_value = "auto", value_name = "NAMES")]
    packs: String,
    /// Use these pack files instead of the built-in packs.
    #[arg(long = "pack-file", value_name = "FILE")]
    pack_files: Vec<PathBuf>,
    /// The zone of times without one, as an IANA name (default: this machine's).
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
}

/// Turns lines into events.
pub(super) struct Reader {
    parser: Parser,
    scratch: Scratch,
    file: FileKey,
    path: String,
    host: String,
    clock: SystemClock,
    events: Vec<u8>,
}

/// Turns lines into events and shows them.
pub(super) struct Previewer {
    reader: Reader,
    json: bool,
    counts: Counts,
}

/// The file, or standard input for `-`.
pub(super) fn open(file: &Path) -> anyhow::Result<Box<dyn Read>> {
    if file == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    let opened = std::fs::File::open(file).map_err(|error| {
        Failure::because(Exit::NoInput, format!("cannot read {}", file.display()), error)
    })?;
    Ok(Box::new(opened))
}

#[derive(Debug, Default)]
struct Counts {
    lines: u64,
    unmatched: u64,
    filtered: u64,
}

pub(super) fn run(args: &PreviewArgs) -> anyhow::Result<Exit> {
    let mut previewer = Previewer::new(args)?;
    let mut out = print::stdout();
    let read_to = previewer.read(open(&args.file)?, &mut out)?;
    if args.follow {
        out.flush()?;
        follow::follow(&args.file, read_to, &mut previewer, &mut out)?;
    }
    previewer.summary(&mut out)?;
    out.flush()?;
    Ok(Exit::Good)
}

impl Reader {
    pub(super) fn new(args: &PackArgs, file: &Path) -> anyhow::Result<Self> {
        let packs = match args.pack_files.as_slice() {
            [] => PackSet::with_builtin(&[])
                .map_err(|error| Failure::new(Exit::Config, error.to_string()))?,
            files => super::test::load(files)?,
        };
        let select = match args.packs.as_str() {
            "auto" => Select::Auto,
            names => Select::Names(names.split(',').map(|name| name.trim().to_owned()).collect()),
        };
        let zone = match &args.timezone {
            None => custody_config::agent::Zone::System,
            Some(name) => custody_config::agent::Zone::Named(name.clone()),
        };
        let zone = zone
            .time_zone()
            .map_err(|error| Failure::because(Exit::Usage, "unknown time zone", error))?;
        let parser = packs
            .select(&select, Settings { zone })
            .map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
        Ok(Self::of(parser, file))
    }

    /// With a parser that is made already.
    pub(super) fn of(parser: Parser, file: &Path) -> Self {
        let identity = FileIdentity {
            born_ns: 0,
            dev: 0,
            fingerprint: Fingerprint::of(b"preview"),
            generation: 0,
            ino: 0,
        };
        // Packs choose by the whole path, as the agent sees it.
        let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        Self {
            parser,
            scratch: Scratch::default(),
            file: identity.key("preview"),
            path: path.display().to_string(),
            host: custody_config::Env::from_process().hostname,
            clock: SystemClock::new(),
            events: Vec::new(),
        }
    }

    /// What becomes of a line, and its events with a newline between any two.
    pub(super) fn events(&mut self, line: &[u8], offset: Offset) -> (Verdict, &[u8]) {
        let record = line.strip_suffix(b"\n").unwrap_or(line);
        let record = record.strip_suffix(b"\r").unwrap_or(record);
        let record = &record[..record.len().min(MAX_RAW_BYTES)];
        self.events.clear();
        let envelope = Envelope {
            host: &self.host,
            tenant: "default",
            agent: "preview",
            input: "preview",
            path: Some(&self.path),
            file: self.file,
            ..Envelope::bare(self.clock.now())
        };
        let (scratch, out) = (&mut self.scratch, &mut self.events);
        let verdict = self.parser.parse(scratch, &envelope, record, offset, None, out);
        (verdict, &self.events)
    }
}

impl Previewer {
    fn new(args: &PreviewArgs) -> anyhow::Result<Self> {
        let reader = Reader::new(&args.packs, &args.file)?;
        Ok(Self { reader, json: args.json, counts: Counts::default() })
    }

    /// Shows every line of `input`; returns the bytes read.
    fn read(&mut self, input: impl Read, out: &mut impl Write) -> anyhow::Result<u64> {
        let mut input = BufReader::new(input);
        let mut line = Vec::new();
        let mut offset = 0;
        loop {
            line.clear();
            let count = input.read_until(b'\n', &mut line)?;
            if count == 0 {
                return Ok(offset);
            }
            self.show(&line, Offset(offset), out)?;
            offset += u64::try_from(count)?;
        }
    }

    /// Shows one line.
    pub(super) fn show(
        &mut self,
        line: &[u8],
        offset: Offset,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let (verdict, events) = self.reader.events(line, offset);
        self.counts.lines += 1;
        match verdict {
            Verdict::Filtered { .. } => {
                self.counts.filtered += 1;
                return Ok(());
            }
            Verdict::Unmatched { .. } => self.counts.unmatched += 1,
            Verdict::Stored { .. } => {}
            Verdict::Many(many) => {
                self.counts.unmatched += u64::from(many.unmatched);
                self.counts.filtered += u64::from(many.filtered);
            }
        }
        for event in events.split(|byte| *byte == b'\n').filter(|event| !event.is_empty()) {
            if self.json {
                out.write_all(event)?;
                writeln!(out)?;
            } else {
                show_row(&EventView::read(event)?, out)?;
            }
        }
        Ok(())
    }

    fn summary(&self, out: &mut impl Write) -> std::io::Result<()> {
        if self.json {
            return Ok(());
        }
        let Counts { lines, unmatched, filtered } = self.counts;
        writeln!(out, "{lines} lines, {unmatched} that no rule knew, {filtered} filtered")
    }
}

fn show_row(event: &EventView<'_>, out: &mut impl Write) -> std::io::Result<()> {
    let or_dash =
        |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().unwrap_or("-").to_owned();
    let rule = match (&event.origin.pack, &event.origin.rule) {
        (Some(pack), Some(rule)) => format!("{pack}/{rule}"),
        _ => "-".to_owned(),
    };
    writeln!(
        out,
        "{}  {:<28}  {:<8}  {:<16}  {:<15}  {rule}  {}",
        event.time,
        or_dash(&event.action),
        or_dash(&event.outcome),
        or_dash(&event.actor.name),
        or_dash(&event.source.ip),
        or_dash(&event.message),
    )
}
