//! What the machine can do at best with the same file, measured in the same run.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use custody_event::Timestamp;

use super::sheet::Sheet;
use crate::generate::blocks::Stream;
use crate::generate::{Act, Kind, Maker};
use crate::numbers::{float, per_second};
use crate::{out, shell};

/// The program that counts matches: ripgrep, or grep where it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counter {
    Ripgrep,
    Grep,
}

impl Counter {
    /// The better one that is here.
    pub(super) fn find() -> Self {
        if shell::installed("rg") {
            return Self::Ripgrep;
        }
        out::warn(
            "ripgrep is not installed; grep -c stands in (to compare: apt install ripgrep, or cargo install ripgrep)",
        );
        Self::Grep
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ripgrep => "rg -c",
            Self::Grep => "grep -cP",
        }
    }

    fn command(self, regex: &str) -> Command {
        let mut command = match self {
            Self::Ripgrep => Command::new("rg"),
            Self::Grep => Command::new("grep"),
        };
        match self {
            Self::Ripgrep => command.args(["--no-config", "-c", "-j1", regex]),
            Self::Grep => command.args(["-cP", regex]),
        };
        command
    }
}

/// Measures all yardsticks on `file` into `sheet`, each once.
pub(super) fn measure(
    sheet: &mut Sheet,
    counter: Counter,
    kind: Kind,
    file: &Path,
    size: (u64, u64),
) -> anyhow::Result<()> {
    let (lines, bytes) = size;
    let mut wc = Command::new("wc");
    wc.arg("-l");
    let (time, _) = count_with(wc, file)?;
    sheet.add("yardstick wc -l", "lines/s", per_second(lines, time));
    let (time, matched) = count_with(counter.command(kind.regex()), file)?;
    if matched != lines {
        bail!("{} matched {matched} of {lines} {} lines", counter.name(), kind.name());
    }
    sheet.add(&format!("yardstick {}", counter.name()), "lines/s", per_second(lines, time));
    let time = copy(file)?;
    sheet.add("yardstick fsync'd copy", "MB/s", float(bytes) / 1e6 / time.as_secs_f64());
    sheet.add("yardstick fsync'd copy, lines", "lines/s", per_second(lines, time));
    sheet.add(SEALING, "s", sealing(kind)?);
    Ok(())
}

/// Hashing and packing the events of a million lines on one core: what evidence costs on this
/// machine before a line is read, and the agent's processor time can never be below.
pub(super) const SEALING: &str = "yardstick hash and pack alone, per million";
const SEALED_BLOCKS: u32 = 100;
const BLOCK_EVENTS: u32 = 1_000;

fn sealing(kind: Kind) -> anyhow::Result<f64> {
    let mut maker = Maker::new(1, &[kind], Timestamp::Y2020, 1_000);
    let mut stream = Stream::new(1)?;
    let mut time = Duration::ZERO;
    for _ in 0..SEALED_BLOCKS {
        let acts: Vec<Act> = (0..BLOCK_EVENTS).map(|_| maker.next()).collect();
        time += stream.time_to_seal(&acts)?;
    }
    Ok(time.as_secs_f64() * 1e6 / f64::from(SEALED_BLOCKS * BLOCK_EVENTS))
}

fn count_with(mut command: Command, file: &Path) -> anyhow::Result<(Duration, u64)> {
    command.arg(file).stdin(Stdio::null());
    let begun = Instant::now();
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let time = begun.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.split_ascii_whitespace().next().unwrap_or_default();
    let count = first.parse().with_context(|| format!("{command:?} said {text:?}"))?;
    Ok((time, count))
}

fn copy(file: &Path) -> anyhow::Result<Duration> {
    let to = file.with_extension("copy");
    let begun = Instant::now();
    let mut source = File::open(file)?;
    let mut target = File::create(&to).with_context(|| to.display().to_string())?;
    std::io::copy(&mut source, &mut target)?;
    target.sync_all()?;
    let time = begun.elapsed();
    std::fs::remove_file(&to)?;
    Ok(time)
}
