//! A collector on loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;

use crate::clock::DAYS_AHEAD;
use crate::http::{self, Answer};
use crate::ports;
use crate::process::{Daemon, Said, program, run};
use crate::tally::Tally;
use crate::wait::until;
use crate::world::World;

/// The program.
#[must_use]
pub fn binary() -> PathBuf {
    program("collector-under-test", "CUSTODY_COLLECTOR")
}

/// One collector: a data directory and a port that stay, and a process that comes and goes.
#[derive(Debug)]
pub struct Collector {
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its configuration file, where it has one.
    pub config: Option<PathBuf>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its standard error.
    pub stderr: PathBuf,
    /// Its clock is so many days ahead from the next start on.
    pub days_ahead: u32,
    patience: Duration,
    tls: bool,
    daemon: Option<Daemon>,
}

impl Collector {
    /// Not started yet.
    #[must_use]
    pub fn new(world: &World, name: &str) -> Self {
        Self {
            data_dir: world.path(name),
            config: None,
            address: SocketAddr::from(([127, 0, 0, 1], ports::free())),
            stderr: world.path(&format!("{name}.stderr")),
            days_ahead: 0,
            patience: world.patience(),
            tls: false,
            daemon: None,
        }
    }

    /// Started and ready.
    #[must_use]
    pub fn started(world: &World, name: &str) -> Self {
        let mut collector = Self::new(world, name);
        collector.start();
        collector.wait_ready();
        collector
    }

    /// Gives it a configuration file; `tls` says that it will not answer plain HTTP.
    pub fn configure(&mut self, world: &World, yaml: &str, tls: bool) {
        let path = world.path("collector.yaml");
        std::fs::write(&path, yaml).unwrap();
        (self.config, self.tls) = (Some(path), tls);
    }

    /// The command line that runs it.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.arg("run");
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.arg("--data-dir").arg(&self.data_dir);
        command.arg("--listen").arg(self.address.to_string());
        command.env(DAYS_AHEAD, self.days_ahead.to_string());
        command
    }

    /// Starts it; does not wait.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "the collector runs already");
        self.daemon = Some(Daemon::start(self.command(), "collector", &self.stderr));
    }

    /// The same by another command line, or in another environment.
    ///
    /// # Panics
    /// It runs already.
    pub fn start_as(&mut self, command: Command) {
        assert!(self.daemon.is_none(), "the collector runs already");
        self.daemon = Some(Daemon::start(command, "collector", &self.stderr));
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// It ends, or does not become ready.
    pub fn wait_ready(&mut self) {
        let (address, tls) = (self.address, self.tls);
        let daemon = self.daemon.as_mut().expect("the collector was started");
        until("the collector is ready", self.patience, || {
            if let Some(status) = daemon.ended() {
                panic!("the collector ended instead of becoming ready: {status}");
            }
            if tls {
                return std::net::TcpStream::connect(address).ok().map(drop);
            }
            let ready = http::request("GET", address, "/readyz", None, b"").ok()?;
            (ready.status == 200).then_some(())
        });
    }

    /// Does it run?
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.daemon.is_some()
    }

    /// The running process.
    ///
    /// # Panics
    /// There is none.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the collector runs")
    }

    /// kill -9.
    ///
    /// # Panics
    /// It does not run.
    pub fn kill(&mut self) {
        self.daemon.take().expect("the collector runs").kill();
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// It does not run, or does not end.
    pub fn stop(&mut self) -> ExitStatus {
        self.daemon.take().expect("the collector runs").stop(self.patience)
    }

    /// `http://127.0.0.1:PORT`, or https.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// The file with the token that enrols agents.
    #[must_use]
    pub fn enroll_token(&self) -> PathBuf {
        self.data_dir.join("enroll.token")
    }

    /// Asks the API as the administrator.
    ///
    /// # Panics
    /// It does not answer, or not with 200.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        let answer = self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        let said = || String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 200, "GET {path}: {}", said());
        answer.json()
    }

    /// Asks the API as the administrator.
    ///
    /// # Errors
    /// It does not answer.
    pub fn try_get(&self, path: &str) -> std::io::Result<Answer> {
        let token = std::fs::read_to_string(self.data_dir.join("admin.token"))?;
        http::request("GET", self.address, path, Some(token.trim()), b"")
    }

    /// The token file of a second administrator.
    ///
    /// # Panics
    /// None can be made.
    #[must_use]
    pub fn second_admin(&self, world: &World) -> PathBuf {
        let data_dir = self.data_dir.to_str().unwrap();
        let made = Self::cli(&[
            "token",
            "--data-dir",
            data_dir,
            "create",
            "--name",
            "second",
            "--role",
            "admin",
        ]);
        made.expect(0, &[]);
        let second = world.path("second.token");
        std::fs::write(&second, made.out.trim()).unwrap();
        second
    }

    /// `custody-collector …` asking this collector as the owner of the token, run to its end.
    #[must_use]
    pub fn ask(&self, args: &[&str], token: &Path) -> Said {
        Self::cli(&self.asking(args, token))
    }

    /// The arguments of [`Self::ask`].
    #[must_use]
    pub fn asking(&self, args: &[&str], token: &Path) -> Vec<String> {
        let token = token.to_str().unwrap();
        let (url, ask) = (self.url(), ["--token-file", token, "--collector"]);
        args.iter().chain(&ask).map(|arg| (*arg).to_owned()).chain([url]).collect()
    }

    /// `custody-collector …`, run to its end.
    #[must_use]
    pub fn cli<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Said {
        let mut command = Command::new(binary());
        command.args(args);
        run(command)
    }

    /// `custody-collector verify` on the stopped collector's data.
    #[must_use]
    pub fn verify(&self) -> Said {
        Self::cli(&["verify".as_ref(), "--data-dir".as_ref(), self.data_dir.as_os_str()])
    }

    /// Everything in its evidence.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally::of(&self.data_dir)
    }

    /// Waits until the evidence holds so many numbered lines.
    ///
    /// # Panics
    /// It does not get that far while it goes on growing; more is left to the caller to find.
    pub fn wait_for_lines(&self, lines: u64) {
        let mut tally = Tally::following(&self.data_dir);
        until(&format!("{lines} lines are in evidence"), self.patience, || {
            (tally.look() >= lines).then_some(())
        });
    }
}

/// Where a collector keeps its evidence.
#[must_use]
pub fn evidence_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("evidence")
}
