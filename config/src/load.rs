//! From a file to a checked value: what both configurations share.

use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::place::{LoadError, Problem};
use crate::section::{Collected, Reader, Section};
use crate::tree::{MAX_FILE_BYTES, Spot, parse};

/// What the configuration takes from the machine. An argument, so that tests can set it.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// The host's name.
    pub hostname: String,
    /// Where systemd put the unit's credentials (`$CREDENTIALS_DIRECTORY`).
    pub credentials_dir: Option<PathBuf>,
}

impl Env {
    /// What this process finds around it.
    pub fn from_process() -> Self {
        let uname = rustix::system::uname();
        Self {
            hostname: uname.nodename().to_str().unwrap_or_default().to_owned(),
            credentials_dir: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        }
    }
}

/// A configuration, with what an event about it must say.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The checked configuration.
    pub value: T,
    /// SHA-256 over the file's bytes, 64 hex digits; of nothing where there is no file.
    pub sha256: String,
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    /// What is allowed and still unwise. Log each once.
    pub warnings: Vec<Problem>,
}

/// The bytes of a configuration and the name under which its errors speak of it.
pub(crate) struct Source {
    pub(crate) path: Option<PathBuf>,
    bytes: Vec<u8>,
}

impl Source {
    pub(crate) const fn none() -> Self {
        Self { path: None, bytes: Vec::new() }
    }

    pub(crate) fn of_text(path: &Path, text: &str) -> Self {
        Self { path: Some(path.to_owned()), bytes: text.as_bytes().to_vec() }
    }

    pub(crate) fn read(path: &Path) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        let limit = MAX_FILE_BYTES as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Self { path: Some(path.to_owned()), bytes })
    }

    /// Reads the sections with `read`; refuses the file with everything that was found wrong.
    pub(crate) fn load<T>(
        self,
        read: impl FnOnce(&mut Section<'_>) -> Option<T>,
    ) -> Result<Loaded<T>, LoadError> {
        let (value, collected) = self.collect(read);
        match value {
            Some(value) if collected.problems.is_empty() => Ok(Loaded {
                value,
                sha256: hex_sha256(&self.bytes),
                path: self.path,
                warnings: collected.warnings,
            }),
            _ => Err(LoadError::from(collected.problems)),
        }
    }

    /// The value, if one could be made, and all that was noted on the way.
    pub(crate) fn collect<T>(
        &self,
        read: impl FnOnce(&mut Section<'_>) -> Option<T>,
    ) -> (Option<T>, Collected) {
        let name = self.path.clone().unwrap_or_else(|| PathBuf::from("(no file)"));
        let reader = Reader::new(&name);
        let Some(text) = self.text(&reader) else {
            return (None, reader.collected());
        };
        let value = match parse(text) {
            Ok(node) => {
                let mut top = reader.section(node, "");
                let value = read(&mut top);
                top.finish();
                value
            }
            Err(error) => {
                reader.at(error.spot, error.what, error.hint);
                None
            }
        };
        (value, reader.collected())
    }

    fn text(&self, reader: &Reader) -> Option<&str> {
        if self.bytes.len() > MAX_FILE_BYTES {
            reader.at(
                Spot::START,
                "the file is longer than 1 MiB",
                "is this the configuration file?",
            );
            return None;
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => Some(text),
            Err(error) => {
                let before = &self.bytes[..error.valid_up_to()];
                reader.at(spot_after(before), "the file is not UTF-8 here", "save it as UTF-8");
                None
            }
        }
    }
}

/// The place right behind `text`, which is valid UTF-8.
fn spot_after(text: &[u8]) -> Spot {
    let line_start = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let lines = text.iter().filter(|b| **b == b'\n').count();
    // Bytes that continue a character are not counted: columns are characters.
    let column = text[line_start..].iter().filter(|b| **b & 0xC0 != 0x80).count();
    Spot { line: lines as u64 + 1, column: column as u64 + 1 }
}

fn hex_sha256(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let written = write!(hex, "{byte:02x}");
        debug_assert!(written.is_ok(), "a string takes every byte");
    }
    hex
}

/// The effective configuration as YAML, defaults written out. It reads back as the same configuration.
pub(crate) fn render<T: Serialize>(value: &T) -> String {
    // Only types of this crate are rendered, and those have no map keys or values that YAML cannot say.
    serde_yaml::to_string(value).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
}
