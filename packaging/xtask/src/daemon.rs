//! A program of ours that runs in the background: its log in a file, stopped or killed for sure.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A log is shown from here on where a program failed.
const SHOWN_LINES: usize = 40;

/// A running program. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

/// What the daemon's systemd unit sets: it is measured as it is run.
fn unit_environment(name: &str) -> Vec<(String, String)> {
    let unit = match name {
        "custody-agent" => include_str!("../../../systemd/custody-agent.service"),
        "custody-collector" => include_str!("../../../systemd/custody-collector.service"),
        _ => "",
    };
    unit.lines()
        .filter_map(|line| line.strip_prefix("Environment="))
        .flat_map(str::split_whitespace)
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

impl Daemon {
    /// Starts `program`; what it says goes to the end of `log`.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        args: &[&str],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let file = File::options()
            .append(true)
            .create(true)
            .open(log)
            .with_context(|| log.display().to_string())?;
        let child = Command::new(program)
            .args(args)
            .envs(unit_environment(name))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails, with the end of its log, if it has ended.
    pub(crate) fn ensure_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!("{} has ended by itself ({status})\n{}", self.name, self.log_end())
            }
        }
    }

    /// The end of its log.
    pub(crate) fn log_end(&self) -> String {
        log_end(&self.name, &self.log)
    }

    /// SIGTERM, and its exit status; killed where it is not gone after `limit`.
    pub(crate) fn stop(mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        if let Err(error) = kill_process(Pid::from_child(&self.child), Signal::TERM)
            && error != rustix::io::Errno::SRCH
        {
            bail!("cannot stop {}: {error}", self.name);
        }
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if begun.elapsed() > limit {
                self.child.kill()?;
                self.child.wait()?;
                bail!(
                    "{} was not gone {} s after SIGTERM\n{}",
                    self.name,
                    limit.as_secs(),
                    self.log_end()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let gone = matches!(self.child.try_wait(), Ok(Some(_)));
        if !gone && self.child.kill().and_then(|()| self.child.wait().map(drop)).is_err() {
            crate::out::warn(&format!(
                "{} (pid {}) could not be killed",
                self.name,
                self.child.id()
            ));
        }
    }
}

/// The end of a log file, for people.
pub(crate) fn log_end(name: &str, log: &Path) -> String {
    let text = match std::fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("({}: {error})", log.display()),
    };
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    format!("--- log of {name} ---\n{}\n---", shown.join("\n"))
}
