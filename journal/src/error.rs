//! What can go wrong, each with its remedy.

use std::path::PathBuf;

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The library is not there.
    #[error(
        "{name} cannot be loaded: {reason}; install systemd's library (Debian: libsystemd0), or let journalctl be used"
    )]
    NoLibrary {
        /// Its file name.
        name: String,
        /// What the loader said.
        reason: String,
    },
    /// The library is too old or something else.
    #[error("{name} has no function {symbol}; systemd 245 or newer is needed")]
    NoSymbol {
        /// The library's file name.
        name: String,
        /// The function.
        symbol: &'static str,
    },
    /// Neither way in works.
    #[error("no way into the journal: {library}; and {journalctl}")]
    NoWayIn {
        /// Why not by the library.
        library: String,
        /// Why not by journalctl.
        journalctl: String,
    },
    /// A call of the library failed.
    #[error("{call}{}: {error}{}", about(.what), remedy(.error))]
    Call {
        /// The function.
        call: &'static str,
        /// What it was about; may be empty.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// A text that must not hold a NUL byte does.
    #[error("{what} holds a NUL byte")]
    Nul {
        /// Which text.
        what: &'static str,
    },
    /// A cursor that is not understood.
    #[error("the journal's cursor {text:?} is not understood: it has no {part}")]
    Cursor {
        /// The cursor.
        text: String,
        /// What is missing in it.
        part: &'static str,
    },
    /// `journalctl` cannot be run.
    #[error("{program} cannot be run: {error}; install systemd, or name its path")]
    NoJournalctl {
        /// The program.
        program: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// `journalctl` gave up.
    #[error("{program} ended with {status}: {stderr}", program = program.display())]
    Journalctl {
        /// The program.
        program: PathBuf,
        /// Its exit status in words.
        status: String,
        /// The last lines that it said.
        stderr: String,
    },
    /// `journalctl` says nothing any more.
    #[error("{program} has given nothing for {after_s} s and was ended; it is started again where it stood", program = program.display())]
    Hung {
        /// The program.
        program: PathBuf,
        /// For how long.
        after_s: u64,
    },
    /// What `journalctl` gave is not the export format.
    #[error("journalctl's output is not understood: {0}")]
    Export(#[from] super::ExportError),
    /// A directory or pipe cannot be read.
    #[error("{what}: {error}{}", remedy(.error))]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
}

fn about(what: &str) -> String {
    if what.is_empty() { String::new() } else { format!(" ({what})") }
}

/// The remedy where there is a usual one.
pub(crate) fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "; let the agent's user read the journal (add it to the group systemd-journal)"
        }
        std::io::ErrorKind::NotFound => "; is the path right, and is the journal kept on disk?",
        _ if error.raw_os_error() == Some(libc::EMFILE) => {
            "; raise the limit of open files (LimitNOFILE)"
        }
        _ => "",
    }
}
