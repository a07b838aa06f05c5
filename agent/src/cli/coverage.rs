//! `custody-agent coverage`: what rules know of a log, and what they do not.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use clap::Args;
use custody_config::shell::Exit;
use custody_event::EventView;
use custody_parsers::{MAX_DRAFT_LINES, Verdict, sentences};
use serde_json::json;

use super::preview::{PackArgs, Reader, open};
use super::print;

/// Sentences that are shown.
const SHOWN_SENTENCES: usize = 20;
/// Characters of an example that are shown.
const SHOWN_CHARS: usize = 160;

/// Arguments of `coverage`.
#[derive(Debug, Args)]
pub(super) struct CoverageArgs {
    /// The log file; - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    packs: PackArgs,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// What was counted.
#[derive(Debug, Default)]
struct Counts {
    lines: u64,
    filtered: u64,
    /// By pack and rule.
    rules: BTreeMap<(String, String), u64>,
    unknown: u64,
    /// Some of the unknown lines.
    samples: Vec<String>,
}

pub(super) fn run(args: &CoverageArgs) -> anyhow::Result<Exit> {
    let mut reader = Reader::new(&args.packs, &args.file)?;
    let mut input = BufReader::new(open(&args.file)?);
    let mut counts = Counts::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        counts.lines += 1;
        let shown = reader.clean(&line);
        let (verdict, events) = reader.events(&line, custody_event::Offset(0));
        counts.filtered += match verdict {
            Verdict::Filtered { .. } => 1,
            Verdict::Many(many) => u64::from(many.filtered),
            Verdict::Stored { .. } | Verdict::Unmatched { .. } => 0,
        };
        for event in events.split(|byte| *byte == b'\n').filter(|event| !event.is_empty()) {
            counts.note(&EventView::read(event)?, &shown);
        }
    }
    let mut out = print::stdout();
    if args.json {
        counts.as_json(&mut out)?
    } else {
        counts.as_table(&mut out)?
    }
    out.flush()?;
    Ok(Exit::Good)
}

impl Counts {
    fn note(&mut self, event: &EventView<'_>, line: &str) {
        if let (Some(pack), Some(rule)) = (&event.origin.pack, &event.origin.rule) {
            *self.rules.entry((pack.to_string(), rule.to_string())).or_default() += 1;
            return;
        }
        self.unknown += 1;
        if self.samples.len() < MAX_DRAFT_LINES {
            self.samples.push(line.to_owned());
        }
    }

    fn sentences(&self) -> Vec<custody_parsers::Sentence> {
        sentences(&self.samples.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn known(&self) -> u64 {
        self.rules.values().sum()
    }

    fn as_table(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Self { lines, filtered, unknown, .. } = self;
        let known = self.known();
        let percent = (known + filtered) * 100 / (known + filtered + unknown).max(1);
        writeln!(
            out,
            "{lines} lines: {percent} % known, {filtered} filtered, {unknown} not known\n"
        )?;
        let mut rules: Vec<_> = self.rules.iter().collect();
        rules.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((pack, rule), count) in rules {
            writeln!(out, "{count:>9}  {pack}/{rule}")?;
        }
        let sentences = self.sentences();
        if !sentences.is_empty() {
            writeln!(out, "\nnot known, by sentence (custody-agent draft makes rules of them):")?;
        }
        for sentence in sentences.iter().take(SHOWN_SENTENCES) {
            let shown: String = sentence.example.chars().take(SHOWN_CHARS).collect();
            writeln!(out, "{:>9}  {}", sentence.count, shown.escape_debug())?;
        }
        if let Some(more) = sentences.len().checked_sub(SHOWN_SENTENCES).filter(|more| *more > 0) {
            writeln!(out, "           and {more} more")?;
        }
        Ok(())
    }

    fn as_json(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let rules: Vec<_> = self
            .rules
            .iter()
            .map(|((pack, rule), count)| json!({ "pack": pack, "rule": rule, "events": count }))
            .collect();
        let sentences: Vec<_> = self
            .sentences()
            .iter()
            .map(|sentence| json!({ "lines": sentence.count, "example": sentence.example }))
            .collect();
        let all = json!({
            "lines": self.lines, "filtered": self.filtered, "known": self.known(),
            "unknown": self.unknown, "rules": rules, "sentences": sentences,
        });
        serde_json::to_writer(&mut *out, &all)?;
        Ok(writeln!(out)?)
    }
}
