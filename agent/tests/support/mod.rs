//! The real agent in a folder of its own, whose collector is never there: everything stays in its
//! spool.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// See the module. Ended when it is dropped.
pub(crate) struct Agent {
    pub(crate) dir: tempfile::TempDir,
    child: Option<Child>,
}

/// Asks again until there is an answer.
pub(crate) fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Agent {
    /// `config` is what the configuration has beside what every agent here has, `sources` among it;
    /// `{dir}` stands for the agent's folder.
    pub(crate) fn new(config: &str) -> Self {
        let agent = Self { dir: tempfile::tempdir().unwrap(), child: None };
        let common = "data_dir: {dir}/data\nhost: web1\n\
             outputs:\n  - { id: c, type: custody, endpoints: ['http://127.0.0.1:9'], token_file: {dir}/token }\n\
             admin: { socket: {dir}/admin.sock }\npack_dirs: []\n";
        let text = format!("{common}{config}");
        agent.write("token", "t");
        agent.write("agent.yaml", &text.replace("{dir}", &agent.dir.path().display().to_string()));
        agent
    }

    /// Writes a file that only this user can read.
    pub(crate) fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(name), text).unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), mode).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_custody-agent"));
        command.args(words).arg("--config").arg(self.path("agent.yaml")).stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&mut self) {
        let log =
            std::fs::File::options().create(true).append(true).open(self.path("stderr")).unwrap();
        let mut command = self.command(&["run", "--log-level", "trace"]);
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// What `status` says; `None` while the agent does not answer.
    pub(crate) fn status(&self) -> Option<Value> {
        let said = self.command(&["status", "--json"]).output().ok()?;
        serde_json::from_slice(&said.stdout).ok()
    }

    pub(crate) fn stop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        let mut child = self.child.take().unwrap();
        assert!(child.wait().unwrap().success(), "{}", self.said());
    }

    /// Its log.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// A source as `status` shows it; `None` while the agent does not answer.
    pub(crate) fn source(&self, id: &str) -> Option<Value> {
        self.status()?["sources"].as_array()?.iter().find(|source| source["id"] == id).cloned()
    }

    /// Waits for a state of a source.
    pub(crate) fn wait(&self, id: &str, what: &str, is: impl Fn(&Value) -> bool) {
        until(&format!("{what} of {id}"), || self.source(id).filter(|source| is(source)));
    }

    /// All events in the spool, those about the agent too. It is not running.
    pub(crate) fn all_events(&self) -> Vec<Value> {
        let said = self.command(&["spool", "cat"]).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let lines = said.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _already_gone = child.kill();
            let _status = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}

/// How many events of a source are in the spool.
pub(crate) fn stored(source: &Value) -> u64 {
    source["book"]["stored"].as_u64().unwrap_or_default()
}
