//! How a process ends: a code that scripts can rely on (after sysexits.h) and one paragraph on standard error.

use std::io::Write;
use std::process::ExitCode;

use crate::place::{LoadError, Problem};

/// Exit codes, the same for every program of Custody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was done.
    Good = 0,
    /// It was done, and the answer is no: a test failed, nothing was found, something was tampered with.
    No = 1,
    /// The command line is wrong.
    Usage = 64,
    /// A file that was named is missing or cannot be read.
    NoInput = 66,
    /// Reading, writing, the network or a lock failed.
    Io = 74,
    /// The configuration, or the machine's set-up, is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Good => 0,
            Exit::No => 1,
            Exit::Usage => 64,
            Exit::NoInput => 66,
            Exit::Io => 74,
            Exit::Config => 78,
        })
    }
}

/// Why a process ends, with the code that it ends with.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    exit: Exit,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    /// Ends with `exit` and says `message`: what, where, and what to do about it.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), source: None }
    }

    /// The same, because of `source`, which is shown behind the message.
    pub fn because(
        exit: Exit,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { exit, message: message.into(), source: Some(source.into()) }
    }

    /// The code.
    pub const fn exit(&self) -> Exit {
        self.exit
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::new(Exit::Config, problem.to_string())
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::new(exit_of_load(&error), error.to_string())
    }
}

const fn exit_of_load(error: &LoadError) -> Exit {
    match error {
        LoadError::Read { .. } => Exit::NoInput,
        LoadError::Invalid(_) => Exit::Config,
    }
}

/// Gives any error the code that the process will end with.
pub trait OrExit<T> {
    /// `message` says what was being done; the error itself is shown behind it.
    ///
    /// # Errors
    /// The failure, where there was an error.
    fn or_exit(self, exit: Exit, message: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit, message: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::because(exit, message, error))
    }
}

/// The end of `main`: the code of a result, and its message on standard error as `program: message`.
///
/// A reader that went away (`… | head`) is no failure.
pub fn finish(program: &str, result: Result<Exit, anyhow::Error>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) if is_broken_pipe(&error) => Exit::Good.into(),
        Err(error) => {
            let message = format!("{program}: {}\n", paragraph(&error));
            // Where even standard error is gone, the code is all that can be said.
            match std::io::stderr().lock().write_all(message.as_bytes()) {
                Ok(()) | Err(_) => exit_of(&error).into(),
            }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// The first error of the chain that knows its code; I/O where none does.
pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
    // `downcast_ref` on the whole also finds what was attached as context.
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.exit;
    }
    let known = |cause: &(dyn std::error::Error + 'static)| {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(failure.exit);
        }
        if let Some(error) = cause.downcast_ref::<LoadError>() {
            return Some(exit_of_load(error));
        }
        cause.downcast_ref::<Problem>().map(|_| Exit::Config)
    };
    error.chain().find_map(known).unwrap_or(Exit::Io)
}

/// The messages of the chain, joined; a cause that its parent already quotes is not said twice.
pub(crate) fn paragraph(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let message = cause.to_string();
        if text.contains(&message) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&message);
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn io(kind: std::io::ErrorKind) -> std::io::Error {
        std::io::Error::new(kind, "device on fire")
    }

    #[test]
    fn the_code_is_found_wherever_it_stands_in_the_chain() {
        let plain: anyhow::Error = io(std::io::ErrorKind::Other).into();
        assert_eq!(exit_of(&plain), Exit::Io);
        let inner: anyhow::Error = Failure::new(Exit::Config, "no clock").into();
        assert_eq!(exit_of(&inner.context("starting")), Exit::Config);
        let outer =
            Err::<(), _>(io(std::io::ErrorKind::Other)).or_exit(Exit::NoInput, "reading a.log");
        let outer = anyhow::Error::from(outer.expect_err("failed"));
        assert_eq!(exit_of(&outer), Exit::NoInput);
        assert_eq!(paragraph(&outer), "reading a.log: device on fire");
        let missing =
            LoadError::Read { path: "/a.yaml".into(), source: io(std::io::ErrorKind::NotFound) };
        let missing = Err::<(), _>(missing).context("loading").expect_err("failed");
        assert_eq!(exit_of(&missing), Exit::NoInput);
    }

    #[test]
    fn a_cause_that_is_quoted_already_is_not_said_twice() {
        let error =
            LoadError::Read { path: "/a.yaml".into(), source: io(std::io::ErrorKind::NotFound) };
        let text = paragraph(&error.into());
        assert_eq!(text.matches("device on fire").count(), 1, "{text}");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let error = anyhow::Error::from(io(std::io::ErrorKind::BrokenPipe)).context("printing");
        assert!(is_broken_pipe(&error));
    }
}
