//! What others hold of the log: its checkpoints in a folder of write-once media, posted somewhere,
//! stamped by a time-stamping authority (RFC 3161), cosigned by witnesses (C2SP tlog-witness).
//!
//! Whoever rewrites the log cannot rewrite these: the harm of all keys stolen reaches back to the
//! newest of them. Nothing is sent that the configuration does not name.
//!
//! # Files
//! `tlog/anchor/<unix seconds>-<entries>.note`: a checkpoint with the witnesses' cosignatures, once
//! it has gone everywhere it had to; beside it `.tsr`, the authority's answer, over the bytes of
//! the note. `tlog/anchor/witnessed`: the newest checkpoint that a witness has cosigned.
//! `custody-verify` holds all of them against the log.
//!
//! # Failures
//! Each is said in the log, and in an event of the collector's own when it is another than the
//! last; everything is tried again a minute later. A witness that knows of more entries than the
//! log has is the alarm that the log was put back.
//!
//! # Limits
//! Answers of 64 KiB, ten seconds each; one anchor at a time.

mod stamp;
#[cfg(test)]
mod tests;
mod witness;

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use custody_config::collector::AnchorsConfig;
use custody_config::shell::StopToken;
use custody_event::{Clock, Digest};
use custody_evidence::Checkpoint;
use custody_evidence::whole::{PUBLIC, sync_folder_of, write_whole};
use reqwest::Client;

use crate::access::random_secret;
use crate::own::{Act, Acts};
use crate::store::evidence::EvidenceLog;
use crate::tlog::Tlog;
use witness::Witness;

/// How often witnesses are asked, and what failed is tried again.
const ROUND: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// See the module.
pub(crate) struct Anchors {
    config: AnchorsConfig,
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    acts: Option<Acts>,
    http: Client,
    witnesses: Vec<Witness>,
    /// When the newest anchor was made, in seconds since 1970.
    last: Option<i64>,
    /// What failed in the last round.
    failed: Option<String>,
}

impl Anchors {
    /// Of the log in `data_dir`.
    ///
    /// # Errors
    /// A witness's key is none, or earlier anchors cannot be listed.
    pub(crate) fn new(
        config: AnchorsConfig,
        data_dir: &Path,
        clock: Arc<dyn Clock>,
        acts: Option<Acts>,
    ) -> anyhow::Result<Self> {
        // Another part of the process may have been there first; then it is the same provider.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()?;
        let witnesses = config.witnesses.iter().map(Witness::new).collect::<Result<_, _>>()?;
        let folder = data_dir.join("tlog/anchor");
        let last = newest(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { config, folder, clock, acts, http, witnesses, last, failed: None })
    }

    /// Runs until stopped.
    pub(crate) async fn run(mut self, log: Arc<EvidenceLog>, stop: StopToken) {
        let Some(tlog) = log.tlog() else { return };
        loop {
            let done = self.round(tlog).await;
            self.tell(done);
            tokio::select! {
                () = stop.stopped() => return,
                () = tokio::time::sleep(ROUND) => {}
            }
        }
    }

    /// Asks the witnesses, and makes an anchor if one is due; says which.
    pub(crate) async fn round(&mut self, tlog: &Tlog) -> anyhow::Result<Option<Checkpoint>> {
        let note = tlog.checkpoint().to_string();
        let checkpoint = Checkpoint::open(&note, tlog.verifier())?;
        tlog.save_up_to(checkpoint.head.size)?;
        let (note, unwitnessed) = self.witnessed(tlog, note).await;
        let now = self.clock.now().micros().div_euclid(1_000_000);
        let every = i64::try_from(self.config.every.duration().as_secs()).unwrap_or(i64::MAX);
        let due = self.last.is_none_or(|last| now.saturating_sub(last) >= every || last > now);
        if due && checkpoint.head.size > 0 {
            self.anchor(&checkpoint, &note, now).await?;
            self.last = Some(now);
            unwitnessed?;
            return Ok(Some(checkpoint));
        }
        unwitnessed.map(|()| None)
    }

    /// The note with the cosignatures of those witnesses that give theirs.
    async fn witnessed(&mut self, tlog: &Tlog, note: String) -> (String, anyhow::Result<()>) {
        let (mut signed, mut failed) = (note.clone(), Ok(()));
        for witness in &mut self.witnesses {
            match witness.ask(&self.http, tlog, &note).await {
                Ok(line) => signed.push_str(&line),
                Err(error) => failed = Err(error),
            }
        }
        if signed != note
            && let Err(error) = self.write("witnessed", signed.as_bytes()).await
        {
            failed = Err(error);
        }
        (signed, failed)
    }

    async fn anchor(&self, checkpoint: &Checkpoint, note: &str, now: i64) -> anyhow::Result<()> {
        let name = format!("{now}-{}", checkpoint.head.size);
        let stamped = match &self.config.time_stamp {
            Some(url) => {
                let nonce: [u8; 8] = *random_secret()?.first_chunk().context("32 bytes")?;
                let request = stamp::request(&Digest::of(note.as_bytes()), nonce);
                let kind = "application/timestamp-query";
                let answer = post(&self.http, url.get(), kind, request).await?;
                stamp::check(&answer, &Digest::of(note.as_bytes()), nonce)
                    .map_err(|why| anyhow::anyhow!("{}: {why}", url.get()))?;
                Some(answer)
            }
            None => None,
        };
        if let Some(url) = &self.config.post {
            let kind = "text/plain; charset=utf-8";
            post(&self.http, url.get(), kind, note.as_bytes().to_vec()).await?;
        }
        if let Some(dir) = &self.config.dir {
            let origin: String = checkpoint.origin.chars().map(file_char).collect();
            let place = dir.get().join(format!("{origin}-{name}"));
            let (note, stamped) = (note.as_bytes().to_vec(), stamped.clone());
            let kept = tokio::task::spawn_blocking(move || {
                keep_for_ever(&place.with_added_extension("note"), &note)?;
                stamped.map_or(Ok(()), |stamped| {
                    keep_for_ever(&place.with_added_extension("tsr"), &stamped)
                })
            });
            kept.await?.with_context(|| dir.get().display().to_string())?;
        }
        if let Some(stamped) = stamped {
            self.write(&format!("{name}.tsr"), &stamped).await?;
        }
        self.write(&format!("{name}.note"), note.as_bytes()).await
    }

    async fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let (path, bytes) = (self.folder.join(name), bytes.to_vec());
        let shown = path.display().to_string();
        let folder = self.folder.clone();
        let written = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(folder)?;
            write_whole(&path, &bytes, PUBLIC)
        });
        written.await?.context(shown)
    }

    fn record(&self, act: Act) {
        if let Some(acts) = &self.acts {
            acts.record(act);
        }
    }

    /// What was done becomes an event; a failure only where it is another than the last.
    fn tell(&mut self, done: anyhow::Result<Option<Checkpoint>>) {
        match done {
            Ok(None) => self.failed = None,
            Ok(Some(checkpoint)) => {
                self.failed = None;
                let (size, root) = (checkpoint.head.size, checkpoint.head.root);
                log::info!(size = size, root:% = root; "the log is anchored");
                self.record(Act::Anchored { size, root: root.to_string(), failed: None });
            }
            Err(error) => {
                let text = format!("{error:#}");
                log::warn!(error = text.as_str(); "the log is not anchored, or not everywhere; tried again in a minute");
                if self.failed.as_ref() != Some(&text) {
                    let failed = Some(text.clone());
                    self.record(Act::Anchored { size: 0, root: String::new(), failed });
                }
                self.failed = Some(text);
            }
        }
    }
}

fn file_char(c: char) -> char {
    if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' }
}

/// Writes a file that is not there yet, and nobody writes again.
fn keep_for_ever(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_folder_of(path)
}

/// When the newest anchor was made.
fn newest(folder: &Path) -> io::Result<Option<i64>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut newest = None;
    for entry in entries {
        let name = entry?.file_name();
        let seconds = name
            .to_str()
            .and_then(|name| name.strip_suffix(".note"))
            .and_then(|name| name.split_once('-'))
            .and_then(|(seconds, _)| seconds.parse::<i64>().ok());
        newest = newest.max(seconds);
    }
    Ok(newest)
}

/// Posts, and gives the answer of a success.
async fn post(http: &Client, url: &str, kind: &str, body: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let sent = http.post(url).header(http::header::CONTENT_TYPE, kind).body(body).send().await;
    let answer = sent.with_context(|| url.to_owned())?;
    let status = answer.status();
    let body = read(answer).await.with_context(|| url.to_owned())?;
    if status.is_success() { Ok(body) } else { bail!("{url}: {status}") }
}

/// The body, if it is not too long.
async fn read(mut answer: reqwest::Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await? {
        body.extend_from_slice(&part);
        if body.len() > MAX_ANSWER_BYTES {
            bail!("the answer is longer than {MAX_ANSWER_BYTES} bytes");
        }
    }
    Ok(body)
}
