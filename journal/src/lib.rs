//! The systemd journal, entry by entry, with a proof that none was left out.
//!
//! **Two ways in, one trait.** [`EntryReader`] is implemented by `libsystemd.so.0`, loaded when the
//! program runs (so that building needs no system package and a host without systemd needs no
//! library), and by `journalctl -o export`, read as a child process with a watchdog, for hosts
//! where the library cannot be loaded (a static binary, a container). [`open`] takes the first that
//! works. Both give the same [`Entry`], byte for byte.
//!
//! **Nothing skipped in silence.** journald numbers the entries that it writes. [`Follower`] checks
//! that the numbers follow. Where one is missing it looks for it with a second reader over just the
//! files that should hold it (readers of a merged journal may pass an entry that appears behind
//! them), and what is not there is a [`Missing`] with its range and, where a file is to blame, the
//! file. [`files::look`] reads the headers of the journal's files itself, because the library
//! leaves out a file that it cannot open without a word.
//!
//! **Limits.** A field longer than [`MAX_FIELD_BYTES`] is kept with its first bytes, its length and
//! the SHA-256 of the whole; an entry keeps at most [`MAX_FIELDS`] fields.
//!
//! **Failures.** Every error names the call, the system's reason and the remedy. A call of the
//! library cannot be interrupted from outside: whoever runs a reader watches how long it takes.

#![deny(unsafe_op_in_unsafe_fn)]

mod child;
mod counters;
mod cursor;
mod entry;
mod error;
mod export;
pub mod files;
mod filter;
mod follow;
#[cfg(test)]
mod follow_model_tests;
#[cfg(test)]
mod follow_tests;
mod library;
mod repair;
mod seen;

use std::path::PathBuf;
use std::time::Duration;

pub use child::{Child, ChildOptions};
pub use cursor::{BootId, Cursor, Id128, SeqnumId};
pub use entry::{Entry, Field, MAX_FIELD_BYTES, MAX_FIELDS};
pub use error::JournalError;
pub use export::{Export, ExportError};
pub use filter::Filter;
pub use follow::{Follower, FollowerOptions, Pulse, Step, Way};
pub use library::{Library, LibraryReader};
pub use repair::{Missing, Why};
pub use seen::{Mark, Seen};

/// Which journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Target {
    /// This machine's journal: the system's and the users' files.
    #[default]
    Local,
    /// This machine's journal of one namespace.
    Namespace(String),
    /// The files in a directory and in its subdirectories that are named after a machine, whatever
    /// machine they are from (journals of others that `systemd-journal-remote` received).
    Directory(PathBuf),
    /// These files.
    Files(Vec<PathBuf>),
}

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seek {
    /// With the oldest entry.
    Head,
    /// With the entry that has this cursor, or with the next one if it is not there any more.
    At(String),
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The time is over.
    Nothing,
    /// There may be new entries.
    Appended,
    /// Files came or went.
    FilesChanged,
}

/// A way into the journal.
pub trait EntryReader {
    /// Places the reader before the entry that [`Seek`] names.
    ///
    /// # Errors
    /// The journal cannot be read, or the cursor is none.
    fn seek(&mut self, to: &Seek) -> Result<(), JournalError>;
    /// Reads the next entry; false at the end (there may be more later).
    ///
    /// # Errors
    /// The journal cannot be read. The reader should be opened again.
    fn next(&mut self, entry: &mut Entry) -> Result<bool, JournalError>;
    /// Waits for something to happen, at most so long; with zero it only takes notice of new files.
    ///
    /// # Errors
    /// The system cannot watch the journal's directories.
    fn wait(&mut self, timeout: Duration) -> Result<Wake, JournalError>;
    /// In words for people: which way in it is.
    fn about(&self) -> String;
}

/// How to get in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Access {
    /// The library, or `journalctl` where it cannot be loaded.
    #[default]
    Auto,
    /// The library alone.
    Library,
    /// `journalctl` alone.
    Journalctl,
}

/// Opens a journal.
///
/// # Errors
/// Neither way in works; the error says why for the last that was tried.
pub fn open(
    target: &Target,
    access: &Access,
    child: &ChildOptions,
) -> Result<Box<dyn EntryReader>, JournalError> {
    let by_child = || Child::open(target.clone(), child.clone());
    match access {
        Access::Library => Ok(Box::new(LibraryReader::open(Library::get()?, target)?)),
        Access::Journalctl => Ok(Box::new(by_child()?)),
        Access::Auto => match Library::get() {
            Ok(library) => Ok(Box::new(LibraryReader::open(library, target)?)),
            Err(no_library) => match by_child() {
                Ok(child) => Ok(Box::new(child)),
                Err(no_child) => Err(JournalError::NoWayIn {
                    library: no_library.to_string(),
                    journalctl: no_child.to_string(),
                }),
            },
        },
    }
}
