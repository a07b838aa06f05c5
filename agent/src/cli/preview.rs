//! `custody-agent preview`: what rule packs make of a log, before anything is sent anywhere.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use custody_config::shell::{Exit, Failure, SystemClock};
use custody_event::position::Fingerprint;
use custody_event::{Clock, EventView, FileIdentity, FileKey, MAX_RAW_BYTES, Offset};
use custody_parsers::{
    Envelope, MAX_DRAFT_LINES, PackSet, Parser, Redaction, Scratch, Select, Settings, Verdict,
    sentences,
};

use super::{difference, follow, print};

/// Sentences of unknown lines that are shown.
const SHOWN_SENTENCES: usize = 10;
/// Characters of an example that are shown.
const SHOWN_CHARS: usize = 160;

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
    /// Print the events in the words of another schema, one JSON object a line.
    #[arg(long, value_enum, value_name = "FORM")]
    form: Option<Form>,
    /// Show what would come out otherwise than with this pack (an older version of one).
    #[arg(long, value_name = "OLD_PACK", conflicts_with_all = ["follow", "form"])]
    diff: Option<PathBuf>,
    /// Colours: auto (on a terminal, and where NO_COLOR is not set), always or never.
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    color: Color,
    /// Go on with what is appended (for looking on: a line may be missed at a rotation).
    #[arg(long)]
    follow: bool,
}

/// Whose words an event is printed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Canonical events.
    Custody,
    /// Open Cybersecurity Schema Framework.
    Ocsf,
    /// Elastic Common Schema.
    Ecs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    fn is_wanted(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => std::env::var_os("NO_COLOR").is_none() && std::io::stdout().is_terminal(),
        }
    }
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
    /// Show secrets and card numbers that an agent would mask.
    #[arg(long)]
    show_secrets: bool,
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
    /// A table, where none is wanted.
    form: Option<Form>,
    color: bool,
    counts: Counts,
    /// Some of the lines that no rule knew.
    samples: Vec<String>,
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
    let mut out = print::stdout();
    if let Some(old) = &args.diff {
        let mut old = Reader::with(&args.packs, &args.file, Some(old))?;
        let mut new = Reader::new(&args.packs, &args.file)?;
        difference::run((&mut old, &mut new), open(&args.file)?, args.json, &mut out)?;
        out.flush()?;
        return Ok(Exit::Good);
    }
    let mut previewer = Previewer::new(args)?;
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
        Self::with(args, file, None)
    }

    /// With this pack in the place of the one of its name.
    fn with(args: &PackArgs, file: &Path, pack: Option<&PathBuf>) -> anyhow::Result<Self> {
        let own = pack.map(super::test::source).transpose()?;
        let own = own.as_slice();
        let packs = match args.pack_files.as_slice() {
            [] => PackSet::with_builtin(own)
                .map_err(|error| Failure::new(Exit::Config, error.to_string()))?,
            files => match pack {
                Some(pack) => super::test::load(std::slice::from_ref(pack))?,
                None => super::test::load(files)?,
            },
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
        let redaction = match args.show_secrets {
            true => Redaction::off(),
            false => Redaction::default(),
        };
        let parser = packs
            .select(&select, Settings { zone, redaction, ..Settings::default() })
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

    /// A line as people may see it.
    pub(super) fn clean(&self, line: &[u8]) -> String {
        let line = String::from_utf8_lossy(line);
        self.parser.redaction().clean_text(line.trim_end()).into_owned()
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
        let form = args.form.or(args.json.then_some(Form::Custody));
        let color = args.color.is_wanted();
        Ok(Self { reader, form, color, counts: Counts::default(), samples: Vec::new() })
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
        let wanted = self.form.is_none() && self.samples.len() < MAX_DRAFT_LINES;
        let sample = wanted.then(|| self.reader.clean(line));
        let (verdict, events) = self.reader.events(line, offset);
        self.counts.lines += 1;
        match verdict {
            Verdict::Filtered { .. } => {
                self.counts.filtered += 1;
                return Ok(());
            }
            Verdict::Unmatched { .. } => {
                self.counts.unmatched += 1;
                self.samples.extend(sample);
            }
            Verdict::Stored { .. } => {}
            Verdict::Many(many) => {
                self.counts.unmatched += u64::from(many.unmatched);
                self.counts.filtered += u64::from(many.filtered);
            }
        }
        for event in events.split(|byte| *byte == b'\n').filter(|event| !event.is_empty()) {
            match self.form {
                None => show_row(&EventView::read(event)?, self.color, out)?,
                Some(Form::Custody) => {
                    out.write_all(event)?;
                    writeln!(out)?;
                }
                Some(Form::Ocsf) => writeln!(out, "{}", custody_event::ocsf::form(event)?)?,
                Some(Form::Ecs) => writeln!(out, "{}", custody_event::ecs::form(event)?)?,
            }
        }
        Ok(())
    }

    fn summary(&self, out: &mut impl Write) -> std::io::Result<()> {
        if self.form.is_some() {
            return Ok(());
        }
        let Counts { lines, unmatched, filtered } = self.counts;
        writeln!(out, "{lines} lines, {unmatched} that no rule knew, {filtered} filtered")?;
        let all = sentences(&self.samples.iter().map(String::as_str).collect::<Vec<_>>());
        if !all.is_empty() {
            writeln!(out, "not known, by sentence (custody-agent draft makes rules of them):")?;
        }
        for sentence in all.iter().take(SHOWN_SENTENCES) {
            let shown: String = sentence.example.chars().take(SHOWN_CHARS).collect();
            writeln!(out, "{:>9}  {}", sentence.count, shown.escape_debug())?;
        }
        if let Some(more) = all.len().checked_sub(SHOWN_SENTENCES).filter(|more| *more > 0) {
            writeln!(out, "           and {more} more")?;
        }
        Ok(())
    }
}

/// Green for what went well, red for what did not, yellow for what no rule knew.
fn paint(event: &EventView<'_>) -> &'static str {
    match event.outcome.as_deref() {
        _ if event.origin.rule.is_none() => "\u{1b}[33m",
        Some("success") => "\u{1b}[32m",
        Some("failure" | "denied") => "\u{1b}[31m",
        _ => "\u{1b}[0m",
    }
}

fn show_row(event: &EventView<'_>, color: bool, out: &mut impl Write) -> std::io::Result<()> {
    let or_dash =
        |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().unwrap_or("-").to_owned();
    let rule = match (&event.origin.pack, &event.origin.rule) {
        (Some(pack), Some(rule)) => format!("{pack}/{rule}"),
        _ => "-".to_owned(),
    };
    let (start, end) = if color { (paint(event), "\u{1b}[0m") } else { ("", "") };
    writeln!(
        out,
        "{start}{}  {:<28}  {:<8}{end}  {:<16}  {:<15}  {rule}  {}",
        event.time,
        or_dash(&event.action),
        or_dash(&event.outcome),
        or_dash(&event.actor.name),
        or_dash(&event.source.ip),
        or_dash(&event.message),
    )
}
