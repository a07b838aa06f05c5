//! Driving `custody-agent`: its configuration, its start, its status.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::daemon::Daemon;

/// An answer of the admin socket is at most so long, bytes.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// What the configuration says; everything else is the default, as users run it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) log_file: PathBuf,
    /// Sources in place of the log, as items of a YAML list.
    pub(crate) sources: Option<String>,
    /// Rule packs, as YAML: `auto` or `[sshd]`.
    pub(crate) packs: String,
    pub(crate) collector: SocketAddr,
    pub(crate) enroll_token_file: PathBuf,
    pub(crate) socket: PathBuf,
    /// Further top-level YAML.
    pub(crate) extra: String,
    /// Further keys of the output, as YAML flow: `, max_backoff: 1s`.
    pub(crate) output_extra: String,
}

impl Settings {
    /// Everything under `folder`, which must be absolute.
    pub(crate) fn under(
        folder: &Path,
        log_file: &Path,
        collector: SocketAddr,
        enroll_token: &Path,
    ) -> Self {
        Self {
            data_dir: folder.join("agent-data"),
            log_file: log_file.to_owned(),
            sources: None,
            packs: "auto".to_owned(),
            collector,
            enroll_token_file: enroll_token.to_owned(),
            socket: folder.join("agent.sock"),
            extra: String::new(),
            output_extra: String::new(),
        }
    }

    /// As `agent.yaml`. JSON strings are YAML strings.
    pub(crate) fn yaml(&self) -> anyhow::Result<String> {
        let quoted = |path: &Path| -> anyhow::Result<String> {
            Ok(Value::from(path.to_str().context("a path is not UTF-8")?).to_string())
        };
        let log = format!(
            "  - {{ id: log, type: file, paths: [{}], packs: {}, timezone: UTC }}\n",
            quoted(&self.log_file)?,
            self.packs
        );
        Ok(format!(
            "data_dir: {data}\n\
             sources:\n{sources}\
             outputs:\n  - {{ id: central, type: custody, endpoints: [\"http://{collector}\"], \
             enroll_token_file: {token}{output} }}\n\
             admin: {{ socket: {socket} }}\n{extra}",
            data = quoted(&self.data_dir)?,
            sources = self.sources.as_ref().unwrap_or(&log),
            collector = self.collector,
            token = quoted(&self.enroll_token_file)?,
            output = self.output_extra,
            socket = quoted(&self.socket)?,
            extra = self.extra,
        ))
    }

    /// Writes the configuration to `config` and starts the agent.
    pub(crate) fn start(&self, program: &Path, config: &Path, log: &Path) -> anyhow::Result<Agent> {
        std::fs::write(config, self.yaml()?).with_context(|| config.display().to_string())?;
        let config = config.to_str().context("a path is not UTF-8")?;
        let daemon = Daemon::start("custody-agent", program, &["run", "--config", config], log)?;
        Ok(Agent { daemon, socket: self.socket.clone() })
    }
}

/// A running agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) daemon: Daemon,
    socket: PathBuf,
}

impl Agent {
    /// What it says of itself; `None` while it does not answer (it starts, or it ends).
    pub(crate) fn status(&mut self) -> anyhow::Result<Option<Status>> {
        self.daemon.ensure_running()?;
        ask(&self.socket)
    }
}

/// Asks the admin socket; `None` where nobody answers.
pub(crate) fn ask(socket: &Path) -> anyhow::Result<Option<Status>> {
    let Ok(mut stream) = UnixStream::connect(socket) else { return Ok(None) };
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    if stream.write_all(b"{\"command\":\"status\"}\n").is_err() {
        return Ok(None);
    }
    let mut answer = String::new();
    if BufReader::new(stream.take(MAX_ANSWER_BYTES)).read_line(&mut answer).is_err()
        || answer.is_empty()
    {
        return Ok(None);
    }
    let said = serde_json::from_str(&answer).context("the agent's status is not JSON")?;
    Status::of(&said).map(Some)
}

/// What is used of the status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// The stream's id.
    pub(crate) stream: String,
    /// Records of the books, all sources.
    pub(crate) read: u64,
    /// Records of the books that became events, all sources.
    pub(crate) stored: u64,
    /// Records of the books that are lost, and said to be, all sources.
    pub(crate) lost: u64,
    /// Gap events since the start, all sources.
    pub(crate) gaps: u64,
    /// Records that no rule knew, since the start.
    pub(crate) unmatched: u64,
    /// Bytes of records between file and disk.
    pub(crate) in_flight_bytes: u64,
    /// Blocks before this one are durable.
    pub(crate) durable_next_seq: u64,
    /// Blocks before this one are acknowledged.
    pub(crate) acked_next_seq: u64,
    /// Damaged stores put aside.
    pub(crate) quarantined: u64,
}

impl Status {
    fn of(said: &Value) -> anyhow::Result<Self> {
        let number = |place: &str| {
            said.pointer(place)
                .and_then(Value::as_u64)
                .with_context(|| format!("the agent's status has no number {place}"))
        };
        let sum = |place: &str| -> u64 {
            let sources = said.get("sources").and_then(Value::as_array);
            sources.into_iter().flatten().filter_map(|source| source.pointer(place)?.as_u64()).sum()
        };
        Ok(Self {
            stream: said.get("stream").and_then(Value::as_str).unwrap_or_default().to_owned(),
            read: sum("/book/read"),
            stored: sum("/book/stored"),
            lost: sum("/book/gap"),
            gaps: sum("/since_start/gaps"),
            unmatched: sum("/since_start/unmatched"),
            in_flight_bytes: number("/in_flight_bytes")?,
            durable_next_seq: number("/spool/durable_next_seq")?,
            acked_next_seq: number("/outputs/0/next_seq")?,
            quarantined: number("/spool/quarantined")?,
        })
    }

    /// Have `records` been read, and is everything that was read acknowledged?
    pub(crate) fn all_acknowledged(&self, records: u64) -> bool {
        self.read >= records
            && self.in_flight_bytes == 0
            && self.durable_next_seq > 0
            && self.acked_next_seq == self.durable_next_seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_and_a_missing_number_is_told() {
        let said = serde_json::json!({
            "stream": "ab", "in_flight_bytes": 0,
            "sources": [{"book": {"read": 7}, "since_start": {"gaps": 0, "unmatched": 1}}, {"book": {"read": 3}}],
            "spool": {"durable_next_seq": 4, "quarantined": 0}, "outputs": [{"next_seq": 4}]
        });
        let status = Status::of(&said).unwrap();
        assert_eq!((status.read, status.unmatched), (10, 1));
        assert!(status.all_acknowledged(10) && !status.all_acknowledged(11));
        let error = Status::of(&serde_json::json!({})).unwrap_err();
        assert!(error.to_string().contains("in_flight_bytes"), "{error}");
    }
}
