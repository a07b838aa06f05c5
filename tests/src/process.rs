//! Programs as guarded processes: what is started here ends here.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::eventually;

/// Has the kernel kill this process when the thread that started it ends.
///
/// # Errors
/// The kernel refuses.
pub fn end_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// A program of the suite: beside the suite's own, or where `env` says (to try the suite on
/// programs that were built or packaged elsewhere).
#[must_use]
pub fn program(name: &str, env: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(env) {
        return path.into();
    }
    let suite = std::env::current_exe().unwrap();
    suite.parent().and_then(Path::parent).unwrap().join(name)
}

type Job = (Command, SyncSender<io::Result<Child>>);

/// Starts a process from a thread that never ends: the end of the thread that started it, and a
/// test's thread ends with its test, would be the end of the process.
///
/// # Panics
/// It cannot be started.
pub fn spawn(command: Command) -> Child {
    static SPAWNER: OnceLock<SyncSender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, todo) = sync_channel::<Job>(1);
        std::thread::spawn(move || {
            for (mut command, answer) in todo {
                // A test that has failed meanwhile does not wait for the answer.
                let _gone = answer.send(command.spawn());
            }
        });
        jobs
    });
    let shown = format!("{command:?}");
    let (answer, child) = sync_channel(1);
    spawner.send((command, answer)).unwrap();
    child.recv().unwrap().unwrap_or_else(|error| panic!("cannot start {shown}: {error}"))
}

/// Runs a command to its end and gives back what it said.
///
/// # Panics
/// It cannot be started or does not end within a minute; ten in the long form.
#[must_use]
pub fn run(mut command: Command) -> Said {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawn(command);
    let pid = pid_of(&child);
    let (done, ended) = sync_channel::<()>(1);
    let watcher = std::thread::spawn(move || {
        let limit = Duration::from_secs(if crate::is_long() { 600 } else { 60 });
        let late = ended.recv_timeout(limit).is_err();
        late && kill_process(pid, Signal::KILL).is_ok()
    });
    let output = child.wait_with_output().unwrap();
    let _sent = done.send(());
    assert!(!watcher.join().unwrap(), "{shown} does not end");
    Said::from(output)
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Asks for this exit code and for all these fragments, in either output.
    ///
    /// # Panics
    /// With everything that was said.
    pub fn expect(&self, code: i32, fragments: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for fragment in fragments {
            let said = self.err.contains(fragment) || self.out.contains(fragment);
            assert!(said, "{fragment:?} is not in {self:#?}");
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

/// A daemon: killed when dropped; its standard error is appended to a file.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    name: String,
}

impl Daemon {
    /// Starts it.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(mut command: Command, name: &str, stderr: &Path) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(stderr).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // The test's own connection to a journal is not the daemon's.
        command.env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
        Self { child: spawn(command), name: name.to_owned() }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// It has been waited for already.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid_of(&self.child), signal).unwrap();
    }

    /// kill -9.
    ///
    /// # Panics
    /// It had ended by itself before: a daemon does not do that.
    pub fn kill(mut self) {
        if let Some(status) = self.ended() {
            panic!("{} had ended by itself: {status}", self.name);
        }
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{}: {status}", self.name);
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Panics
    /// It does not end within `limit`.
    #[must_use]
    pub fn stop(mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(limit)
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// It does not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        eventually(limit, || self.ended())
            .unwrap_or_else(|| panic!("{} does not end within {limit:?}", self.name))
    }

    /// A line of `/proc/PID/status` in KiB, `VmHWM` or `VmRSS`.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn memory_kib(&self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ended = self.child.kill();
            let _status = self.child.wait();
        }
    }
}

/// Lines of a daemon's log at WARN or ERROR that are not `expected` (by fragment).
///
/// # Panics
/// The log cannot be read.
#[must_use]
pub fn complaints(stderr: &Path, expected: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string(stderr).unwrap();
    let bad = |line: &&str| {
        let level = line.split_ascii_whitespace().nth(1);
        matches!(level, Some("WARN" | "ERROR")) || line.contains("panicked at")
    };
    let known = |line: &&str| expected.iter().any(|fragment| line.contains(fragment));
    text.lines().filter(bad).filter(|line| !known(line)).map(ToOwned::to_owned).collect()
}
