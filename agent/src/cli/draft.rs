//! `custody-agent draft`: a first rule pack for a log that no pack knows.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use custody_config::shell::{Exit, Failure, SystemClock};
use custody_event::Clock;
use custody_parsers::{NoDraft, Redaction, draft};

use super::print;

/// Bytes of a log that are looked at.
const MAX_SAMPLE_BYTES: u64 = 64 * 1024 * 1024;

/// Arguments of `draft`.
#[derive(Debug, Args)]
pub(super) struct DraftArgs {
    /// The log file; - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The pack's name (default: from the file's).
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Write the pack here instead of to standard output; a file that exists is not overwritten.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &DraftArgs) -> anyhow::Result<Exit> {
    let text = sample(&args.file)?;
    // A pack is given to others, with the lines that its tests are made of.
    let redaction = Redaction::default();
    let clean: Vec<_> = text.lines().map(|line| redaction.clean_text(line)).collect();
    let lines: Vec<&str> = clean.iter().map(|line| &**line).collect();
    let name = name(args)?;
    let drafted = match draft(&name, &lines, SystemClock::new().now()) {
        Ok(drafted) => drafted,
        Err(none @ NoDraft::Empty) => {
            let problem = format!("{}: {none}", args.file.display());
            return Err(Failure::new(Exit::NoInput, problem).into());
        }
        Err(none) => {
            return Err(Failure::new(Exit::No, format!("{}: {none}", args.file.display())).into());
        }
    };
    let mut errors = std::io::stderr().lock();
    match &args.output {
        None => {
            let mut out = print::stdout();
            out.write_all(drafted.yaml.as_bytes())?;
            out.flush()?;
        }
        Some(path) => {
            let problem = |error| {
                let text = format!("cannot write {}", path.display());
                Failure::because(Exit::Io, text, error)
            };
            let mut file = std::fs::File::create_new(path).map_err(problem)?;
            file.write_all(drafted.yaml.as_bytes()).map_err(problem)?;
            writeln!(errors, "written: {}", path.display())?;
        }
    }
    writeln!(
        errors,
        "{} rules know {} of {} lines ({} %)",
        drafted.rules,
        drafted.known,
        drafted.lines,
        drafted.known * 100 / drafted.lines.max(1)
    )?;
    Ok(Exit::Good)
}

/// The first lines of the file, with U+FFFD for what is not UTF-8.
fn sample(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_SAMPLE_BYTES).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_SAMPLE_BYTES).read_to_end(&mut bytes))
    };
    read.map_err(|error| {
        Failure::because(Exit::NoInput, format!("cannot read {}", path.display()), error)
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A pack's name: lower-case letters, digits and `-`.
fn name(args: &DraftArgs) -> anyhow::Result<String> {
    let well_formed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if let Some(name) = &args.name {
        if name.is_empty() || !name.bytes().all(well_formed) {
            let problem =
                format!("`{name}` is no name for a pack: lower-case letters, digits, `-`");
            return Err(Failure::new(Exit::Usage, problem).into());
        }
        return Ok(name.clone());
    }
    let stem = args.file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("drafted");
    let made: String = stem
        .to_ascii_lowercase()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
        .collect();
    let made = made.trim_matches('-');
    Ok(if made.starts_with(|letter: char| letter.is_ascii_alphabetic()) {
        made.to_owned()
    } else {
        "drafted".to_owned()
    })
}
