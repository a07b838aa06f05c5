//! Driving `custody-collector`: its start, its API, its search command.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use custody_event::{AgentId, Digest};
use custody_evidence::AgentKey;
use custody_evidence::claim::Claim;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::http::{Client, escape};
use crate::shell;

/// How long a collector may take until it answers, after a crash too.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running collector.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) daemon: Daemon,
    pub(crate) address: SocketAddr,
    data_dir: PathBuf,
}

impl Collector {
    /// Starts one on a free port and waits until it answers. `args` are further arguments of `run`.
    pub(crate) fn start(
        program: &Path,
        data_dir: &Path,
        args: &[&str],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let address = shell::free_address()?;
        let listen = address.to_string();
        let data = data_dir.to_str().context("a path is not UTF-8")?;
        let mut all = vec!["run", "--data-dir", data, "--listen", &listen];
        all.extend_from_slice(args);
        let daemon = Daemon::start("custody-collector", program, &all, log)?;
        let mut collector = Self { daemon, address, data_dir: data_dir.to_owned() };
        collector.wait_until_ready()?;
        Ok(collector)
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let address = self.address;
        let waited = shell::wait_for(
            "the collector answers",
            START_LIMIT,
            Duration::from_millis(10),
            || {
                self.daemon.ensure_running()?;
                let ready = Client::new(address, None).get("/readyz");
                Ok(ready.is_ok_and(|answer| answer.status == 200).then_some(()))
            },
        );
        waited.with_context(|| self.daemon.log_end())
    }

    /// The file that lets agents enrol.
    pub(crate) fn enroll_token_file(&self) -> PathBuf {
        self.data_dir.join("enroll.token")
    }

    /// The file that lets people in.
    pub(crate) fn admin_token_file(&self) -> PathBuf {
        self.data_dir.join("admin.token")
    }

    /// A connection with the administrator's token.
    pub(crate) fn admin(&self) -> anyhow::Result<Client> {
        let path = self.admin_token_file();
        let token = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Client::new(self.address, Some(token.trim().to_owned())))
    }

    /// Enrols an agent of our own making; its token.
    pub(crate) fn enroll(
        &self,
        agent: AgentId,
        host: &str,
        key: &AgentKey,
    ) -> anyhow::Result<String> {
        let path = self.enroll_token_file();
        let token = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let bearer = Digest::of(token.trim().as_bytes());
        let proof = Claim { agent, bearer, host, tls_key: "" }.prove(key, &[]);
        let body = json!({ "agent": agent, "host": host, "hostname": "bench", "key": key.public(), "version": "0", "proof": proof });
        let mut client = Client::new(self.address, Some(token.trim().to_owned()));
        let answer = client.post("/v1/enroll", "application/json", body.to_string().as_bytes())?;
        match answer.value().get("token").and_then(Value::as_str) {
            Some(token) => Ok(token.to_owned()),
            None => bail!(
                "enrolment refused ({}): {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            ),
        }
    }

    /// `custody-collector search`, as a person types it: exit code and output.
    pub(crate) fn search(
        &self,
        program: &Path,
        line: &str,
    ) -> anyhow::Result<(Option<i32>, String)> {
        let output = Command::new(program)
            .arg("search")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--collector", &format!("http://{}", self.address)])
            .arg(line)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.code(), text))
    }
}

/// A page of `GET /v1/events`.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) events: Vec<Value>,
}

/// Asks for the newest events that match.
pub(crate) fn newest(client: &mut Client, query: &str, limit: u32) -> anyhow::Result<Page> {
    let path = format!("/v1/events?q={}&limit={limit}", escape(query));
    page(client, &path)
}

/// Asks for a page by its whole path.
pub(crate) fn page(client: &mut Client, path: &str) -> anyhow::Result<Page> {
    let answer = client.get(path).with_context(|| path.to_owned())?;
    if answer.status != 200 {
        bail!("{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    let said = answer.value();
    let events = said.get("events").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(Page { events })
}

/// `custody-collector verify` over a data directory: what it said, or an error where the answer is no.
pub(crate) fn verify(program: &Path, data_dir: &Path) -> anyhow::Result<String> {
    let program = program.to_str().context("a path is not UTF-8")?;
    let data_dir = data_dir.to_str().context("a path is not UTF-8")?;
    shell::run(program, &["verify", "--data-dir", data_dir])
}
