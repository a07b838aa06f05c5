//! The key file: 64 hex digits, mode 0600, written once.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use custody_event::ids::{parse_hex, push_hex};
use thiserror::Error;

use super::AgentKey;
use crate::whole::{PRIVATE, write_whole};

/// Why a key file cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a key.
    #[error(
        "{0}: not a signing key (64 hex digits expected); restore it, or remove it to have a new one made and enrol again"
    )]
    NotAKey(PathBuf),
    /// Others can read it.
    #[error("{path}: mode {mode:03o} lets others read the signing key; run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Reads 32 secret bytes from `path`; if there is no such file, writes `random` into it, durably.
///
/// # Errors
/// The file cannot be read or written, is no key, or can be read by others.
pub fn load_or_create_secret(path: &Path, random: &[u8; 32]) -> Result<[u8; 32], KeyError> {
    let io_error = |source| KeyError::Io { path: path.to_owned(), source };
    match File::open(path) {
        Ok(file) => read_secret(path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut text = Vec::with_capacity(65);
            push_hex(random, &mut text);
            text.push(b'\n');
            write_whole(path, &text, PRIVATE).map_err(io_error)?;
            Ok(*random)
        }
        Err(error) => Err(io_error(error)),
    }
}

fn read_secret(path: &Path, file: File) -> Result<[u8; 32], KeyError> {
    let io_error = |source| KeyError::Io { path: path.to_owned(), source };
    let mode = file.metadata().map_err(io_error)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(1024).read_to_string(&mut text).map_err(io_error)?;
    parse_hex(text.trim_end()).ok_or_else(|| KeyError::NotAKey(path.to_owned()))
}

impl AgentKey {
    /// Reads the key from `path`; if there is none, makes one from `random` and writes it durably.
    ///
    /// # Errors
    /// The file cannot be read or written, is no key, or can be read by others.
    pub fn load_or_create(path: &Path, random: &[u8; 32]) -> Result<Self, KeyError> {
        load_or_create_secret(path, random).map(|secret| Self::from_secret(&secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_back_and_refused_when_others_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.key");
        let made = AgentKey::load_or_create(&path, &[3; 32]).unwrap();
        let read = AgentKey::load_or_create(&path, &[4; 32]).unwrap();
        assert_eq!(made.id(), read.id());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(AgentKey::load_or_create(&path, &[4; 32]), Err(KeyError::Exposed { .. })));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, "hello").unwrap();
        assert!(matches!(AgentKey::load_or_create(&path, &[4; 32]), Err(KeyError::NotAKey(_))));
    }
}
