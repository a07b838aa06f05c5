//! The output's side of the collector's log: asking for it, refusing it, going on.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use custody_evidence::LogReceipt;
use custody_evidence::tlog::TreeHead;
use custody_evidence::whole::{PRIVATE, write_whole};
use reqwest::StatusCode;

use super::custody::CustodyOutput;
use super::memory::{AcceptedFork, Shown, Trouble};
use super::request::{Answer, explain};
use crate::pipeline::OwnAct;

/// How often a refused collector is asked for its log, at most.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// 32 forks and 64 proofs.
const MAX_SHOWN_BYTES: usize = 1024 * 1024;
/// How often the newest checkpoint is cosigned, at most.
const COSIGN_EVERY: Duration = Duration::from_secs(60);
/// A reason is a sentence.
const MAX_REASON_BYTES: usize = 1_000;

/// A block that was acknowledged, and what the collector's log says of it.
pub(super) type Answered = (Bytes, Option<Box<LogReceipt>>);

/// The file by which somebody on the host accepts a fork; its content is the reason.
#[must_use]
pub fn acceptance_file(data_dir: &std::path::Path, output: &str) -> PathBuf {
    data_dir.join(format!("accept-fork-{output}"))
}

impl CustodyOutput {
    /// Judges the answers to blocks, in order, before any of them is believed.
    pub(super) async fn judge(
        &mut self,
        answered: Vec<Answered>,
        token: &str,
    ) -> Result<(), Trouble> {
        let mut loose: Vec<TreeHead> = Vec::new();
        for (block, receipt) in answered {
            let Some(receipt) = receipt else {
                if self.memory.is_bound() {
                    return Err(Trouble::Refused(
                        "the collector took a block without a receipt of its log, which it had given before"
                            .to_owned(),
                    ));
                }
                continue;
            };
            if !self.memory.has_key() {
                let shown = self.ask_log(&[], token).await.map_err(of_answer)?;
                self.memory.trust(&shown.vkey).map_err(Trouble::Failed)?;
            }
            loose.extend(self.memory.judge(&block, &receipt)?);
        }
        if !loose.is_empty() {
            let shown = self.ask_log(&loose, token).await.map_err(of_answer)?;
            self.memory.prove(&shown, &loose)?;
        }
        self.state.witnessed(self.memory.size());
        self.keep_memory(false).await;
        Ok(())
    }

    /// Does the collector's log continue what it had shown? Asked before anything is sent.
    pub(super) async fn check_log(&mut self, token: &str) -> Result<(), Answer> {
        if !self.memory.is_bound() || self.log_checked {
            return Ok(());
        }
        let shown = self.ask_log(&[], token).await?;
        match self.memory.prove(&shown, &[]) {
            Ok(()) => {
                self.log_checked = true;
                self.state.witnessed(self.memory.size());
                Ok(())
            }
            Err(Trouble::Refused(why)) => Err(Answer::Untrue(why)),
            Err(Trouble::Failed(why)) => Err(Answer::Failed(why)),
        }
    }

    async fn ask_log(&self, loose: &[TreeHead], token: &str) -> Result<Shown, Answer> {
        let url = format!("{}/v1/log?from={}", self.endpoint(), self.memory.question(loose));
        let response = self.client.get(url).bearer_auth(token).send().await;
        let mut response = response.map_err(|error| Answer::Failed(explain(&error)))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(Answer::Untrue(
                    "the collector shows no log any more, which it had shown before".to_owned(),
                ));
            }
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(Answer::Denied(format!("{status}: the collector's log")));
            }
            status => return Err(Answer::Failed(format!("{status}: the collector's log"))),
        }
        let mut text = Vec::new();
        while let Some(part) =
            response.chunk().await.map_err(|error| Answer::Failed(explain(&error)))?
        {
            text.extend_from_slice(&part);
            if text.len() > MAX_SHOWN_BYTES {
                return Err(Answer::Failed("the collector's log: longer than 1 MiB".to_owned()));
            }
        }
        serde_json::from_slice(&text)
            .map_err(|error| Answer::Failed(format!("the collector's log: {error}")))
    }

    /// Says so, keeps everything, sends nothing, until the history continues or somebody accepts
    /// that it does not.
    pub(super) async fn refuse(&mut self, why: &str) {
        let id = self.settings.id.clone();
        let said = format!(
            "the collector is refused and nothing more is sent to it; everything is kept: {why}. It was \
             put back from an older copy, or it shows different histories. Remedy: give the \
             collector its newest data back; or let its operator sign `custody-collector \
             accept-fork --reason …`; or accept it on this host: `custody-agent accept-fork --output {id} --reason …`"
        );
        log::error!(output = id.as_str(), endpoint = self.endpoint(); "{said}");
        self.state.refused(&said, self.endpoint());
        self.tell(OwnAct::LogRefused { output: id.clone(), reason: why.to_owned() });
        let accepted = loop {
            self.report().await;
            let wait = self.settings.max_backoff.min(REFUSED_WAIT);
            tokio::time::sleep(self.backoff.below(wait) + wait / 2).await;
            match self.look_again().await {
                Some(accepted) => break accepted,
                None => self.endpoint = self.endpoint.wrapping_add(1),
            }
        };
        self.log_checked = true;
        self.keep_memory(true).await;
        self.state.goes_on();
        match accepted {
            Some(fork) => {
                log::warn!(output = id.as_str(); "the fork is accepted, delivery goes on: {}", fork.reason);
                let AcceptedFork { before, now, reason } = fork;
                self.tell(OwnAct::LogForkAccepted { output: id, before, now, reason });
            }
            None => {
                log::info!(output = id.as_str(); "the collector's log continues again, delivery goes on");
            }
        }
    }

    /// May it go on? `Some(None)` where the history continues.
    async fn look_again(&mut self) -> Option<Option<AcceptedFork>> {
        let token = self.obtain_token().await?;
        let shown = match self.ask_log(&[], &token).await {
            Ok(shown) => shown,
            Err(Answer::Denied(_)) => {
                // It was made anew: it must know this agent before it can show anything.
                self.token = None;
                self.forget_enrolled_token().await;
                return None;
            }
            Err(_) => return None,
        };
        if self.memory.prove(&shown, &[]).is_ok() {
            return Some(None);
        }
        if let Some(fork) = self.memory.accept_signed(&shown) {
            return Some(Some(fork));
        }
        self.accepted_here(&shown).await.map(Some)
    }

    async fn accepted_here(&mut self, shown: &Shown) -> Option<AcceptedFork> {
        let path =
            self.settings.witness.parent().map(|dir| acceptance_file(dir, &self.settings.id))?;
        let reason = tokio::fs::read_to_string(&path).await.ok()?;
        let reason: String = reason.trim().chars().take(MAX_REASON_BYTES).collect();
        let done = self.memory.accept_here(shown, &reason);
        // Once: a later fork must be accepted anew.
        if let Err(error) = tokio::fs::remove_file(&path).await {
            self.trouble(
                "the acceptance cannot be removed, and so is not used",
                &error.to_string(),
            );
            return None;
        }
        done.map_err(|why| self.trouble("the fork cannot be accepted", &why)).ok()
    }

    /// Shows the collector the checkpoint that it does not continue, so that its operator can
    /// accept exactly that.
    async fn report(&mut self) {
        let (Some(note), Some(token)) = (self.memory.note().map(str::to_owned), self.token.clone())
        else {
            return;
        };
        self.show(&note, &token).await;
    }

    /// Cosigns the newest checkpoint that was accepted, once it is on disk, at the first block and then once in a
    /// while: others can see by it that this agent was shown the same log as they.
    pub(super) async fn cosign(&mut self, token: &str) {
        let (now, size) = (self.clock.monotonic(), self.memory.size());
        let due = self
            .cosigned
            .is_none_or(|(before, at)| before != size && now.saturating_sub(at) >= COSIGN_EVERY);
        let note = self.memory.note().filter(|_| due).map(str::to_owned);
        let Some(note) = note else { return };
        let seconds = self.clock.now().micros().div_euclid(1_000_000);
        let line = u64::try_from(seconds)
            .ok()
            .map(|seconds| custody_evidence::note::cosign(&note, &self.settings.cosigner, seconds));
        self.cosigned = Some((size, now));
        // Nobody may hold this agent's word for more of the log than it remembers itself: after a
        // kill it would believe another history than the one that it has cosigned.
        if !self.keep_memory(true).await {
            return;
        }
        match line {
            Some(Ok(line)) => {
                let note = format!("{note}{line}");
                self.show(&note, token).await;
            }
            Some(Err(error)) => log::warn!("the checkpoint cannot be cosigned: {error}"),
            None => log::warn!("the checkpoint is not cosigned: the clock is before 1970"),
        }
    }

    async fn show(&self, note: &str, token: &str) {
        let body = serde_json::json!({ "checkpoint": note }).to_string();
        let sent = self
            .client
            .post(format!("{}/v1/log/witness", self.endpoint()))
            .bearer_auth(token)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await;
        match sent {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => {
                log::debug!("the collector does not take the checkpoint: {}", answer.status())
            }
            Err(error) => log::debug!("the checkpoint cannot be shown: {}", explain(&error)),
        }
    }

    fn tell(&self, act: OwnAct) {
        if let Err(error) = self.settings.acts.try_send(act) {
            log::warn!("an event about the collector's log is not written: {error}");
        }
    }

    /// Writes what is remembered, durably and off the thread that delivers, where it is due; with
    /// `at_once` what is on disk is not older then, unless it says `false`.
    pub(super) async fn keep_memory(&mut self, at_once: bool) -> bool {
        let Some((path, text)) = self.memory.keep_now(self.clock.monotonic(), at_once) else {
            return true;
        };
        let shown = path.display().to_string();
        let written =
            tokio::task::spawn_blocking(move || write_whole(&path, text.as_bytes(), PRIVATE)).await;
        let error = match written {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.memory.not_kept();
        log::warn!("{shown}: {error}; the newest checkpoint is not on disk yet");
        false
    }
}

fn of_answer(answer: Answer) -> Trouble {
    match answer {
        Answer::Untrue(why) => Trouble::Refused(why),
        Answer::Failed(why) | Answer::Denied(why) => Trouble::Failed(why),
        _ => Trouble::Failed("the collector's log cannot be read".to_owned()),
    }
}
