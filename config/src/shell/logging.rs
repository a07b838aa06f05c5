//! What a daemon says about itself, through the `log` crate.
//!
//! Under systemd (standard error is the journal: `$JOURNAL_STREAM`) records go to the journal with their key-values as fields;
//! otherwise each is one line of text on standard error: time, level, message, key=value. Control characters of messages and
//! values are escaped, so that what was read from a log cannot forge a line of ours.
//!
//! The same warning or error is said at most [`BURST`] times in [`WINDOW`]; the rest is counted and said in one line after it.
//! Messages are constants and data stands in fields, so "the same" means level, target and message.
//!
//! This is diagnostics, never evidence: a record that cannot be written is counted ([`lost`]) and gone.

mod repeats;
mod text;

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use custody_event::Clock;
use log::{Level, LevelFilter, Log as LogSink, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use self::repeats::{Repeats, Summary, Verdict};
use super::exit::{Exit, Failure};
use crate::common::{Log, LogFormat, LogLevel};

/// The same warning is said this often within [`WINDOW`].
pub const BURST: u32 = 5;
/// After this long it may be said again, and how often it was held back is said too.
pub const WINDOW: Duration = Duration::from_secs(60);

static LOST: AtomicU64 = AtomicU64::new(0);
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Records that could be written nowhere since the start.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Sets the least important level that is said, from now on (SIGHUP).
pub fn set_level(level: LogLevel) {
    log::set_max_level(level.filter());
}

/// Installs the logger for the process; `program` names it in the journal.
///
/// # Errors
/// Exit 78 where the journal was asked for and is not there; exit 74 where a logger is installed already.
pub fn init(program: &str, config: &Log, clock: Arc<dyn Clock>) -> Result<(), Failure> {
    let sink = match config.format {
        LogFormat::Journal => Sink::Journal(journal(program)?),
        LogFormat::Auto if connected_to_journal() => {
            journal(program).map_or_else(|_| Sink::stderr(), Sink::Journal)
        }
        LogFormat::Auto | LogFormat::Text => Sink::stderr(),
    };
    let logger = Logger { sink, clock, repeats: Mutex::default() };
    let first = LOGGER.set(logger).is_ok();
    let installed = LOGGER.get().filter(|_| first).map(|logger| log::set_logger(logger));
    if !matches!(installed, Some(Ok(()))) {
        return Err(Failure::new(Exit::Io, "a logger is installed already"));
    }
    set_level(config.level);
    Ok(())
}

/// Says what was held back, for windows that are over. Call it now and then, and [`flush`] at the end.
pub fn tick() {
    if let Some(logger) = LOGGER.get() {
        let now = logger.clock.monotonic();
        logger.say_held_back(|repeats| repeats.over(now));
    }
}

/// Says all that was held back.
pub fn flush() {
    if let Some(logger) = LOGGER.get() {
        logger.say_held_back(Repeats::all);
    }
}

fn journal(program: &str) -> Result<JournalLog, Failure> {
    JournalLog::empty().map(|journal| journal.with_syslog_identifier(program.to_owned())).map_err(|e| {
        Failure::because(
            Exit::Config,
            "log.format is `journal`, and the systemd journal cannot be reached (hint: write `format: auto`)",
            e,
        )
    })
}

enum Sink {
    Journal(JournalLog),
    Stderr { colour: bool },
}

impl Sink {
    fn stderr() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::Stderr { colour: !plain && std::io::stderr().is_terminal() }
    }
}

struct Logger {
    sink: Sink,
    clock: Arc<dyn Clock>,
    repeats: Mutex<Repeats>,
}

impl Logger {
    fn write(&self, record: &Record<'_>) {
        let done = match &self.sink {
            Sink::Journal(journal) => journal.journal_send(record),
            Sink::Stderr { colour } => {
                let line = text::line(self.clock.now(), record, *colour);
                std::io::stderr().lock().write_all(line.as_bytes())
            }
        };
        if done.is_err() {
            // There is nowhere left to say it; `status` shows the count.
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn say_held_back(&self, take: impl FnOnce(&mut Repeats) -> Vec<Summary>) {
        let summaries = take(&mut self.repeats.lock().unwrap_or_else(PoisonError::into_inner));
        for held in summaries {
            self.write(
                &Record::builder()
                    .level(held.level)
                    .target(&held.target)
                    .args(format_args!(
                        "{} (said {} more times in {} s)",
                        held.message,
                        held.count,
                        WINDOW.as_secs()
                    ))
                    .build(),
            );
        }
    }
}

impl LogSink for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries are heard from `warn` on; our own crates as the configuration says.
        let ours = metadata.target().starts_with("custody");
        let limit = if ours { log::max_level() } else { log::max_level().min(LevelFilter::Warn) };
        metadata.level() <= limit
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if record.level() <= Level::Warn {
            let now = self.clock.monotonic();
            let verdict =
                self.repeats.lock().unwrap_or_else(PoisonError::into_inner).note(record, now);
            self.say_held_back(|repeats| repeats.over(now));
            if verdict == Verdict::HoldBack {
                return;
            }
        }
        self.write(record);
    }

    fn flush(&self) {
        self.say_held_back(Repeats::all);
    }
}
