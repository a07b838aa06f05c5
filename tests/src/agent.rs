//! An agent.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Daemon, Said, program, run};
use crate::wait::until;
use crate::world::World;

/// The program.
#[must_use]
pub fn binary() -> PathBuf {
    program("agent-under-test", "CUSTODY_AGENT")
}

/// What stands in an agent's configuration.
#[derive(Debug, Clone)]
pub struct AgentSpec {
    /// Sources: id, and patterns of paths.
    pub sources: Vec<(String, Vec<String>)>,
    /// Further sources, as items of a YAML list: `  - { id: j, type: journal }`, each with its line end.
    pub more_sources: String,
    /// `spool.max_bytes`.
    pub spool_max_bytes: u64,
    /// `spool.free_space_floor`.
    pub free_space_floor: u64,
    /// The collector's addresses.
    pub endpoints: Vec<String>,
    /// `enroll_token_file`.
    pub enroll_token: PathBuf,
    /// Further keys of the output, as YAML in flow style: `tls: { ca_file: /x }`.
    pub output_extra: String,
    /// Further keys of `admin`, as YAML in flow style: `metrics: "127.0.0.1:9480"`.
    pub admin_extra: String,
    /// Further top-level keys.
    pub extra: String,
}

impl AgentSpec {
    /// One source `app` that reads `path`, and one collector.
    #[must_use]
    pub fn new(path: &Path, url: &str, enroll_token: &Path) -> Self {
        Self {
            sources: vec![("app".to_owned(), vec![path.display().to_string()])],
            more_sources: String::new(),
            spool_max_bytes: 64 << 20,
            free_space_floor: 1 << 20,
            endpoints: vec![url.to_owned()],
            enroll_token: enroll_token.to_owned(),
            output_extra: String::new(),
            admin_extra: String::new(),
            extra: String::new(),
        }
    }

    /// Only these sources, as items of a YAML list, and one collector.
    #[must_use]
    pub fn of_sources(sources: String, url: &str, enroll_token: &Path) -> Self {
        let mut spec = Self::new(Path::new("/nowhere"), url, enroll_token);
        spec.sources.clear();
        spec.more_sources = sources;
        spec
    }

    /// As YAML.
    #[must_use]
    pub fn yaml(&self, data_dir: &Path, socket: &Path) -> String {
        let list = |texts: &[String]| serde_json::to_string(texts).unwrap();
        let sources: String = self
            .sources
            .iter()
            .map(|(id, paths)| {
                format!("  - {{ id: {id}, type: file, paths: {}, packs: auto }}\n", list(paths))
            })
            .collect();
        let comma_admin = if self.admin_extra.is_empty() { "" } else { ", " };
        let comma = if self.output_extra.is_empty() { "" } else { ", " };
        format!(
            "data_dir: {}\n\
             host: web1\n\
             sources:\n{sources}{}\
             spool: {{ max_bytes: {}, linger: 50ms, free_space_floor: {} }}\n\
             outputs:\n  \
             - {{ id: central, type: custody, endpoints: {}, enroll_token_file: {}, max_backoff: 1s{comma}{} }}\n\
             admin: {{ socket: {}{comma_admin}{} }}\n\
             {}",
            data_dir.display(),
            self.more_sources,
            self.spool_max_bytes,
            self.free_space_floor,
            list(&self.endpoints),
            self.enroll_token.display(),
            self.output_extra,
            socket.display(),
            self.admin_extra,
            self.extra,
        )
    }
}

/// One agent: a configuration and a data directory that stay, and a process that comes and goes.
#[derive(Debug)]
pub struct Agent {
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Its admin socket.
    pub socket: PathBuf,
    /// Its standard error.
    pub stderr: PathBuf,
    patience: Duration,
    daemon: Option<Daemon>,
}

impl Agent {
    /// Not started yet; its configuration is written.
    #[must_use]
    pub fn new(world: &World, name: &str, spec: &AgentSpec) -> Self {
        let agent = Self {
            data_dir: world.path(name),
            config: world.path(&format!("{name}.yaml")),
            socket: world.path(&format!("{name}.sock")),
            stderr: world.path(&format!("{name}.stderr")),
            patience: world.patience(),
            daemon: None,
        };
        agent.configure(spec);
        agent
    }

    /// Started, and its socket answers.
    #[must_use]
    pub fn started(world: &World, name: &str, spec: &AgentSpec) -> Self {
        let mut agent = Self::new(world, name, spec);
        agent.start();
        agent.wait_ready();
        agent
    }

    /// Writes the configuration anew.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn configure(&self, spec: &AgentSpec) {
        std::fs::write(&self.config, spec.yaml(&self.data_dir, &self.socket)).unwrap();
    }

    /// The command line that runs it.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.arg("run").arg("--config").arg(&self.config);
        command
    }

    /// Starts it; does not wait.
    ///
    /// # Panics
    /// It runs already.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "the agent runs already");
        self.daemon = Some(Daemon::start(self.command(), "agent", &self.stderr));
    }

    /// The same by another command line, or in another environment.
    ///
    /// # Panics
    /// It runs already.
    pub fn start_as(&mut self, command: Command) {
        assert!(self.daemon.is_none(), "the agent runs already");
        self.daemon = Some(Daemon::start(command, "agent", &self.stderr));
    }

    /// Waits until its socket answers.
    ///
    /// # Panics
    /// It ends, or its socket does not answer.
    pub fn wait_ready(&mut self) {
        let socket = self.socket.clone();
        let daemon = self.daemon.as_mut().expect("the agent was started");
        let pid = u64::from(daemon.pid());
        until("the agent's socket answers", self.patience, || {
            if let Some(status) = daemon.ended() {
                panic!("the agent ended instead of becoming ready: {status}");
            }
            (ask(&socket).ok()?["pid"].as_u64() == Some(pid)).then_some(())
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
        self.daemon.as_mut().expect("the agent runs")
    }

    /// kill -9.
    ///
    /// # Panics
    /// It does not run.
    pub fn kill(&mut self) {
        self.daemon.take().expect("the agent runs").kill();
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// It does not run, or does not end.
    pub fn stop(&mut self) -> ExitStatus {
        self.daemon.take().expect("the agent runs").stop(self.patience)
    }

    /// Forgets a process that has ended by itself, so that another can be started.
    ///
    /// # Panics
    /// It still runs.
    pub fn forget_ended(&mut self) {
        assert!(self.daemon().ended().is_some(), "the agent still runs");
        self.daemon = None;
    }

    /// SIGHUP.
    ///
    /// # Panics
    /// It does not run.
    pub fn reload(&mut self) {
        self.daemon().signal(Signal::HUP);
    }

    /// What it says of itself.
    ///
    /// # Panics
    /// It does not answer.
    #[must_use]
    pub fn status(&self) -> Status {
        until("the agent's socket answers", self.patience, || ask(&self.socket).ok().map(Status))
    }

    /// Waits until its status is as asked, and gives it back.
    ///
    /// # Panics
    /// It does not become so; with the last status.
    #[must_use]
    pub fn wait_status(&self, what: &str, mut is: impl FnMut(&Status) -> bool) -> Status {
        let mut last = None;
        let found = crate::wait::eventually(self.patience, || {
            let status = Status(ask(&self.socket).ok()?);
            let found = is(&status).then(|| status.clone());
            last = Some(status);
            found
        });
        found.unwrap_or_else(|| panic!("waited in vain: {what}; the last status: {last:#?}"))
    }

    /// Waits until it has read all there is and all is acknowledged.
    #[must_use]
    pub fn wait_idle(&self) -> Status {
        self.wait_status("the agent has delivered everything", |status| {
            status.source("app")["behind_bytes"] == 0
                && status.0["in_flight_bytes"] == 0
                && status.output()["lag_blocks"] == 0
                && status.spool()["blocks"] == 0
        })
    }

    /// `custody-agent …`, run to its end.
    #[must_use]
    pub fn cli<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Said {
        let mut command = Command::new(binary());
        command.args(args);
        run(command)
    }

    /// What the log says at WARN and ERROR, without what was expected.
    #[must_use]
    pub fn complaints(&self, expected: &[&str]) -> Vec<String> {
        crate::process::complaints(&self.stderr, expected)
    }
}

/// One answer of the admin socket.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

impl Status {
    /// One source's part.
    ///
    /// # Panics
    /// There is no such source.
    #[must_use]
    pub fn source(&self, id: &str) -> &Value {
        let sources = self.0["sources"].as_array().unwrap();
        let found = sources.iter().find(|source| source["id"] == id);
        found.unwrap_or_else(|| panic!("no source {id}: {:#}", self.0))
    }

    /// The spool's part.
    #[must_use]
    pub fn spool(&self) -> &Value {
        &self.0["spool"]
    }

    /// The first output's part.
    #[must_use]
    pub fn output(&self) -> &Value {
        &self.0["outputs"][0]
    }
}

fn ask(socket: &Path) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"{\"command\":\"status\"}\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
