//! `journalctl -o export` as a way in, where the library cannot be loaded.
//!
//! **Life.** A child runs from a cursor to the journal's end and exits; it is run again when a
//! file's header says that there is more. So there is never a question whether a silent child is
//! idle or stuck: while one runs it must give bytes, and one that gives none for
//! [`ChildOptions::silence`] is killed and told as an error.
//!
//! `--cursor` and not `--after-cursor`: with a cursor that is not there any more (vacuumed), the
//! latter passes over one entry that was never read. The entry at the cursor comes again and is
//! left out here.

use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::files::{self, Look};
use crate::{Entry, EntryReader, Export, JournalError, Seek, Target, Wake};

/// Between two looks at the files' headers while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of its error output that are kept.
const STDERR_BYTES: u64 = 4 * 1024;
/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// How `journalctl` is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildOptions {
    /// The program: a path, or a name to be found in `PATH`.
    pub program: PathBuf,
    /// How long it may give nothing.
    pub silence: Duration,
}

impl Default for ChildOptions {
    fn default() -> Self {
        Self { program: "journalctl".into(), silence: Duration::from_secs(30) }
    }
}

/// Reads by `journalctl`.
#[derive(Debug)]
pub struct Child {
    target: Target,
    options: ChildOptions,
    from: Seek,
    running: Option<Running>,
    /// The files when the last child was started; `None`: one must be started.
    seen: Option<Look>,
}

#[derive(Debug)]
struct Running {
    child: std::process::Child,
    export: Export<BufReader<Patient>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

/// A pipe that is given up when it is silent for too long.
#[derive(Debug)]
struct Patient {
    pipe: ChildStdout,
    silence: Duration,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let timeout = Timespec::try_from(self.silence).map_err(std::io::Error::other)?;
        loop {
            let mut fds = [PollFd::new(&self.pipe, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Err(std::io::ErrorKind::TimedOut.into()),
                Ok(_) => return self.pipe.read(buffer),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Child {
    /// Is the program there? It is run once, to ask for its version.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn open(target: Target, options: ChildOptions) -> Result<Self, JournalError> {
        let version = Command::new(&options.program)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let failed = |error| JournalError::NoJournalctl { program: options.program.clone(), error };
        match version {
            Ok(status) if status.success() => {
                Ok(Self { target, options, from: Seek::Head, running: None, seen: None })
            }
            Ok(status) => {
                Err(failed(std::io::Error::other(format!("--version ended with {status}"))))
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn start(&mut self) -> Result<Running, JournalError> {
        let mut command = Command::new(&self.options.program);
        command.args(["--output=export", "--no-pager", "--quiet"]).env("LC_ALL", "C");
        match &self.target {
            Target::Local => {}
            Target::Namespace(name) => {
                command.arg(format!("--namespace={name}"));
            }
            Target::Directory(dir) => {
                command.arg("--directory").arg(dir);
            }
            Target::Files(paths) => {
                for path in paths {
                    command.arg("--file").arg(path);
                }
            }
        }
        if let Seek::At(cursor) = &self.from {
            command.arg(format!("--cursor={cursor}"));
        }
        let failed =
            |error| JournalError::NoJournalctl { program: self.options.program.clone(), error };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let missing = || failed(std::io::Error::other("it has no output"));
        let pipe = child.stdout.take().ok_or_else(missing)?;
        let errors = child.stderr.take().ok_or_else(missing)?;
        let stderr = std::thread::Builder::new().name("journalctl-err".into());
        let stderr = stderr.spawn(move || first_bytes(errors)).map_err(failed)?;
        let pipe = Patient { pipe, silence: self.options.silence };
        let export = Export::new(BufReader::with_capacity(BUFFER_BYTES, pipe));
        Ok(Running { child, export, stderr: Some(stderr) })
    }

    /// The child has closed its output: it must have ended well.
    fn ended(&mut self, mut running: Running) -> Result<(), JournalError> {
        let status = running
            .child
            .wait()
            .map_err(|error| JournalError::Io { what: "waiting for journalctl".into(), error })?;
        if status.success() {
            return Ok(());
        }
        self.seen = None;
        Err(self.failure(status, running.stderr.take()))
    }

    fn failure(&self, status: ExitStatus, stderr: Option<JoinHandle<Vec<u8>>>) -> JournalError {
        let said = stderr.and_then(|thread| thread.join().ok()).unwrap_or_default();
        JournalError::Journalctl {
            program: self.options.program.clone(),
            status: status.to_string(),
            stderr: String::from_utf8_lossy(&said).trim().to_owned(),
        }
    }

    fn gave_up(&mut self, mut running: Running, error: JournalError) -> JournalError {
        self.seen = None;
        // It may have ended already; either way it is waited for.
        let _already_gone = running.child.kill();
        let status = running.child.wait();
        match (error, status) {
            (JournalError::Io { error, .. }, _) if error.kind() == std::io::ErrorKind::TimedOut => {
                JournalError::Hung {
                    program: self.options.program.clone(),
                    after_s: self.options.silence.as_secs(),
                }
            }
            // Torn output: what it said itself is the better reason.
            (JournalError::Export(crate::ExportError::Torn), Ok(status)) => {
                self.failure(status, running.stderr.take())
            }
            (error, _) => error,
        }
    }
}

fn first_bytes(mut from: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    // What cannot be read of an error message is not worth an error of its own.
    let _kept = from.by_ref().take(STDERR_BYTES).read_to_end(&mut kept);
    let _rest = std::io::copy(&mut from, &mut std::io::sink());
    kept
}

impl EntryReader for Child {
    fn seek(&mut self, to: &Seek) -> Result<(), JournalError> {
        stop(self.running.take());
        self.from = to.clone();
        self.seen = None;
        Ok(())
    }

    fn next(&mut self, entry: &mut Entry) -> Result<bool, JournalError> {
        let mut running = match self.running.take() {
            Some(running) => running,
            None if self.seen.is_some() => return Ok(false),
            None => {
                // Looked at first: what is written meanwhile shows as a change.
                self.seen = Some(files::look(&self.target)?);
                self.start()?
            }
        };
        loop {
            match running.export.next(entry) {
                Ok(true) => {
                    let again =
                        matches!(&self.from, Seek::At(cursor) if cursor == entry.cursor_text());
                    self.from = Seek::At(entry.cursor_text().to_owned());
                    if !again {
                        self.running = Some(running);
                        return Ok(true);
                    }
                }
                Ok(false) => {
                    self.ended(running)?;
                    return Ok(false);
                }
                Err(error) => return Err(self.gave_up(running, error)),
            }
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<Wake, JournalError> {
        let mut waited = Duration::ZERO;
        loop {
            if self.running.is_some() || self.seen.is_none() {
                return Ok(Wake::Appended);
            }
            if self.seen.as_ref() != Some(&files::look(&self.target)?) {
                self.seen = None;
                return Ok(Wake::FilesChanged);
            }
            if waited >= timeout {
                return Ok(Wake::Nothing);
            }
            let pause = LOOK_EVERY.min(timeout.saturating_sub(waited));
            std::thread::sleep(pause);
            waited += pause;
        }
    }

    fn about(&self) -> String {
        format!("{} -o export", self.options.program.display())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        stop(self.running.take());
    }
}

fn stop(running: Option<Running>) {
    if let Some(mut running) = running {
        // It may have ended already; either way it is waited for.
        let _already_gone = running.child.kill();
        let _status = running.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::CURSOR;
    use std::os::unix::fs::PermissionsExt as _;

    /// A program that stands in for journalctl.
    fn program(dir: &tempfile::TempDir, script: &str) -> ChildOptions {
        let path = dir.path().join("journalctl");
        let text = format!("#!/bin/sh\n[ \"$1\" = --version ] && exit 0\n{script}\n");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        ChildOptions { program: path, silence: Duration::from_millis(300) }
    }

    /// A program that was just written cannot be started while another test's child, between its fork and its exec, still
    /// holds the descriptor it was written through. That passes by itself.
    fn child(dir: &tempfile::TempDir, script: &str) -> Child {
        let options = program(dir, script);
        loop {
            match Child::open(Target::Directory(dir.path().into()), options.clone()) {
                Err(JournalError::NoJournalctl { error, .. })
                    if error.kind() == std::io::ErrorKind::ExecutableFileBusy =>
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                opened => return opened.unwrap(),
            }
        }
    }

    #[test]
    fn a_child_that_hangs_is_killed_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut child =
            child(&dir, &format!("printf '__CURSOR={CURSOR}\\nA=1\\n\\n'; exec sleep 1000"));
        let mut entry = Entry::default();
        assert!(child.next(&mut entry).unwrap());
        assert!(matches!(child.next(&mut entry), Err(JournalError::Hung { .. })));
        assert!(child.running.is_none());
    }

    #[test]
    fn a_child_that_fails_says_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = child(&dir, "echo 'Failed to iterate: Bad message' >&2; exit 1");
        let error = child.next(&mut Entry::default()).unwrap_err().to_string();
        assert!(error.contains("Bad message") && error.contains('1'), "{error}");
    }

    #[test]
    fn it_goes_on_from_the_last_cursor_and_leaves_that_entry_out() {
        let dir = tempfile::tempdir().unwrap();
        let args = dir.path().join("args");
        let script =
            format!("echo \"$@\" >>{}; printf '__CURSOR={CURSOR}\\nA=1\\n\\n'", args.display());
        let mut child = child(&dir, &script);
        let mut entry = Entry::default();
        assert!(child.next(&mut entry).unwrap());
        assert!(!child.next(&mut entry).unwrap());
        assert!(!child.next(&mut entry).unwrap(), "nothing has changed: none is started");
        std::fs::write(dir.path().join("new.journal"), b"x").unwrap();
        assert_eq!(child.wait(Duration::ZERO).unwrap(), Wake::FilesChanged);
        assert!(!child.next(&mut entry).unwrap());
        let runs = std::fs::read_to_string(&args).unwrap();
        let runs: Vec<&str> = runs.lines().collect();
        assert_eq!(runs.len(), 2);
        assert!(!runs[0].contains("--cursor") && runs[1].contains(&format!("--cursor={CURSOR}")));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let options =
            ChildOptions { program: "/nowhere/journalctl".into(), ..ChildOptions::default() };
        let error = Child::open(Target::Local, options).unwrap_err().to_string();
        assert!(error.contains("/nowhere/journalctl"), "{error}");
    }
}
