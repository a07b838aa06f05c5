//! What both configurations have in common: checks of words and paths, and the `log` section.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::place::{Located, Place};
use crate::section::Section;
use crate::units::UnitError;

/// What the daemon says about itself, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Log {
    /// The least important message that is still said.
    pub level: LogLevel,
    /// Where and in which shape.
    pub format: LogFormat,
}

/// How important a message must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// And what will fail if nobody acts.
    Warn,
    /// And what an operator wants to have read once: start, stop, connection, rotation.
    #[default]
    Info,
    /// And what a developer asks for.
    Debug,
    /// And everything.
    Trace,
}

impl LogLevel {
    /// The words, as the configuration and `--log-level` take them.
    pub const WORDS: [(&'static str, Self); 5] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    /// As the `log` crate's filter.
    pub const fn filter(self) -> log::LevelFilter {
        match self {
            Self::Error => log::LevelFilter::Error,
            Self::Warn => log::LevelFilter::Warn,
            Self::Info => log::LevelFilter::Info,
            Self::Debug => log::LevelFilter::Debug,
            Self::Trace => log::LevelFilter::Trace,
        }
    }
}

impl std::str::FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        found
            .map(|(_, level)| *level)
            .ok_or_else(|| "one of: error, warn, info, debug, trace".to_owned())
    }
}

/// Where messages go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// The journal where standard error is connected to it, readable text otherwise.
    #[default]
    Auto,
    /// The systemd journal, with fields.
    Journal,
    /// Readable text on standard error.
    Text,
}

pub(crate) fn log(mut section: Section<'_>, level: Option<LogLevel>) -> Log {
    let mut log = Log::default();
    if let Some(level) = section.choice("level", &LogLevel::WORDS) {
        log.level = level;
    }
    let formats =
        [("auto", LogFormat::Auto), ("journal", LogFormat::Journal), ("text", LogFormat::Text)];
    if let Some(format) = section.choice("format", &formats) {
        log.format = format;
    }
    section.finish();
    log.level = level.unwrap_or(log.level);
    log
}

/// A directory or file that must be named in full: a daemon's working directory is nobody's choice.
pub(crate) fn absolute(text: &str) -> Result<PathBuf, UnitError> {
    let path = Path::new(text);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err(UnitError {
        what: format!("`{}` is not an absolute path", text.escape_debug()),
        hint: "begin it with /".to_owned(),
    })
}

/// The data directory: from the command line, from the file, or the default.
pub(crate) fn data_dir(
    top: &mut Section<'_>,
    from_option: Option<&PathBuf>,
    default: Located<PathBuf>,
) -> Located<PathBuf> {
    let written = top.parsed("data_dir", absolute).unwrap_or(default);
    match from_option {
        // A person typed it and means where they stand.
        Some(path) => {
            let full = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            Located::new(full, Place::Option("--data-dir"))
        }
        None => written,
    }
}

/// An id: what appears in file names, metrics and events.
pub(crate) fn id(text: &str) -> Result<String, UnitError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    if (1..=64).contains(&text.len()) && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(UnitError {
        what: format!("`{}` cannot be an id", text.escape_debug()),
        hint: "use 1 to 64 of: a-z 0-9 _ -".to_owned(),
    })
}

/// An address to listen on.
pub(crate) fn address(text: &str) -> Result<SocketAddr, UnitError> {
    text.parse().map_err(|_| UnitError {
        what: format!("`{}` is not an address and a port", text.escape_debug()),
        hint: "write 127.0.0.1:8600, or [::]:8600 for every address".to_owned(),
    })
}

/// What is known and comes with a later version.
pub(crate) fn not_built_yet(
    section: &Section<'_>,
    written: &Located<String>,
    key: &str,
    known: &str,
) {
    section.reader().problem(written.problem(
        format!("{key} `{}` is not built into this version yet", written.get()),
        format!("this version knows: {known}"),
    ));
}
