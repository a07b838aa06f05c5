//! The custody output: blocks over HTTPS to a collector, until each is acknowledged.
//!
//! **Life of a block.** Read from the spool (the newest are still in memory), posted to
//! `/v1/streams/{agent}/{stream}/blocks/{seq}`, up to `in_flight` at once; when the collector has
//! said for it and all before it that they are durable there, the cursor moves and the spool frees
//! them.
//!
//! **Failures.** Network, 5xx: back-off with full jitter, the next endpoint. 429 and 503: as long
//! as Retry-After says. 401 and 403: everything is kept, said, and tried again slowly (with a new
//! enrolment, where a token for it is configured). 409: go on where the collector says. 413 and
//! 422: the block is set aside for this output ([`super::refused`]), which sends it without its
//! events and goes on. A forked stream ends the output with [`Ended::NewStream`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::Sender;
use custody_config::shell::StopToken;
use custody_config::shell::x509::Dates;
use custody_event::{Clock, StreamId};
use custody_evidence::NoteKey;
use reqwest::Client;

use super::certificate::{CertificateStore, Standing};
use super::enroll::{Bringing, NotEnrolled, TokenStore};
use super::memory::{Memory, Trouble};
use super::request::{Answer, Post, post_key};
use super::skew::Skew;
use super::window::Window;
use super::{Backoff, Ended};
use crate::identity::AgentIdentity;
use crate::pipeline::OwnAct;
use crate::rotation::Rotations;
use crate::spool::SpoolHandle;
use crate::status::OutputState;

/// How often an agent that is not let in knocks again, at most.
const DENIED_WAIT: Duration = Duration::from_secs(30);

/// Who the agent is, for enrolment.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its id, its key, and the host's durable id.
    pub who: Arc<AgentIdentity>,
    /// The host's name.
    pub hostname: String,
}

/// What a custody output needs.
#[derive(Debug, Clone)]
pub struct CustodySettings {
    /// The output's id.
    pub id: String,
    /// `https://host:port`, in order of preference.
    pub endpoints: Vec<String>,
    /// Tokens.
    pub tokens: TokenStore,
    /// Where the certificate is that the collector signs for this agent; absent where none is asked for.
    pub certificates: Option<CertificateStore>,
    /// Where is kept what the collector's log has shown.
    pub witness: PathBuf,
    /// Cosigns what the collector's log has shown.
    pub cosigner: Arc<NoteKey>,
    /// Statements about the agent's keys.
    pub keys: Arc<Rotations>,
    /// Takes events about the output itself.
    pub acts: Sender<OwnAct>,
    /// Longest wait after failures.
    pub max_backoff: Duration,
    /// Blocks on their way at once.
    pub in_flight: usize,
    /// Any number: spreads the retries of many agents.
    pub seed: u64,
    /// Blocks that were deleted while this output was not configured: the collector does not have
    /// them, and has forgotten nothing.
    pub skipped: Range<u64>,
    /// Blocks of the stream that this output has refused before.
    pub refused: BTreeSet<u64>,
}

/// The output.
pub struct CustodyOutput {
    pub(super) settings: CustodySettings,
    pub(super) identity: Identity,
    pub(super) client: Client,
    /// How the certificate stands that this client shows.
    pub(super) certificate: Standing,
    pub(super) spool: SpoolHandle,
    stream: StreamId,
    generation: u32,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) state: Arc<OutputState>,
    pub(super) endpoint: usize,
    pub(super) backoff: Backoff,
    pub(super) token: Option<Arc<str>>,
    /// What the collector's log has shown.
    pub(super) memory: Memory,
    /// The log was asked for since the connection last broke.
    pub(super) log_checked: bool,
    /// The size of the log that was cosigned last, and when.
    pub(super) cosigned: Option<(u64, Duration)>,
    /// How far the clocks are apart, and what was told of it.
    skew: Arc<Skew>,
    skew_told: bool,
    /// All statements about keys were sent again since the last acknowledgement.
    rewound: bool,
    /// Blocks that the collector gets without their events.
    pub(super) refused: BTreeSet<u64>,
}

/// What to do after a window broke.
pub(super) enum Next {
    Resume(u64),
    End(Ended),
}

impl CustodyOutput {
    /// For one stream; `client` shows the certificate with these dates, or none; `generation` is the spool's, so that no cursor of an older stream moves.
    ///
    /// # Errors
    /// What the collector's log had shown cannot be read.
    pub fn new(
        mut settings: CustodySettings,
        identity: Identity,
        client: (Client, Option<Dates>),
        spool: SpoolHandle,
        place: (StreamId, u32),
        clock: Arc<dyn Clock>,
        state: Arc<OutputState>,
    ) -> Result<Self, String> {
        let memory = Memory::load(&settings.witness)?;
        state.witnessed(memory.size());
        let skew = Skew::new(Arc::clone(&clock));
        let backoff = Backoff::new(settings.max_backoff, settings.seed);
        let refused = std::mem::take(&mut settings.refused);
        Ok(Self {
            settings,
            identity,
            client: client.0,
            certificate: Standing::of(client.1),
            spool,
            stream: place.0,
            generation: place.1,
            clock,
            state,
            endpoint: 0,
            backoff,
            token: None,
            memory,
            log_checked: false,
            cosigned: None,
            skew,
            rewound: false,
            skew_told: false,
            refused,
        })
    }

    /// Sends from block `from` on until stopped or until the stream cannot go on.
    pub async fn run(mut self, from: u64, stop: StopToken) -> Ended {
        let ended = self.deliver(from, stop).await;
        self.keep_memory(true).await;
        ended
    }

    async fn deliver(&mut self, from: u64, stop: StopToken) -> Ended {
        let mut from = from;
        loop {
            let ended = tokio::select! {
                () = stop.stopped() => return Ended::Stopped,
                token = self.obtain_token() => token,
            };
            let Some(token) = ended else { continue };
            let broken = tokio::select! {
                () = stop.stopped() => return Ended::Stopped,
                broken = self.send_window(from, token) => broken,
            };
            let (seq, answer) = match broken {
                Ok(broken) => broken,
                Err(reason) => (from, Answer::Failed(reason)),
            };
            let next = tokio::select! {
                () = stop.stopped() => return Ended::Stopped,
                next = self.after(from, seq, answer) => next,
            };
            match next {
                Next::Resume(seq) => from = seq,
                Next::End(ended) => return ended,
            }
        }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.settings.endpoints[self.endpoint % self.settings.endpoints.len()]
    }

    /// The token, enrolling if need be; `None` after a wait when it could not be had.
    pub(super) async fn obtain_token(&mut self) -> Option<Arc<str>> {
        if let Some(token) = &self.token {
            return Some(Arc::clone(token));
        }
        let token = match self.settings.tokens.current() {
            Ok(Some(token)) => Ok(token),
            Ok(None) => self.enrol().await,
            Err(reason) => Err(reason),
        };
        match token {
            Ok(token) => {
                self.token = Some(Arc::clone(&token));
                Some(token)
            }
            Err(reason) => {
                self.trouble("no token", &reason);
                self.heed_refusal(&reason);
                self.endpoint = self.endpoint.wrapping_add(1);
                self.wait_after_failure().await;
                None
            }
        }
    }

    /// Sends until something is answered that is not an acknowledgement.
    async fn send_window(&mut self, from: u64, token: Arc<str>) -> Result<(u64, Answer), String> {
        let mut durable = self.spool.durable();
        let mut window = Window::new(from, self.settings.in_flight);
        let mut acked = from;
        let mut sent: BTreeMap<u64, Bytes> = BTreeMap::new();
        self.ensure_certificate(&token).await;
        if let Err(answer) = self.check_log(&token).await {
            return Ok((from, answer));
        }
        if let Err(answer) = self.send_keys(&token).await {
            return Ok((from, answer));
        }
        loop {
            let end = durable.borrow_and_update().next_seq;
            while let Some(seq) = window.wants(end) {
                let post = self.post(seq, &token).await?;
                let client = self.client.clone();
                sent.insert(seq, post.bytes.clone());
                window.send(async move { post.send(&client).await });
            }
            if window.is_broken() {
                return Ok(window.failure());
            }
            tokio::select! {
                () = window.answer(), if !window.is_idle() => {}
                changed = durable.changed() => {
                    changed.map_err(|_| "the spool has closed".to_owned())?;
                }
                // What is on its way goes on over its own connection.
                () = self.certificate_due() => self.ensure_certificate(&token).await,
            }
            let now_acked = window.advance();
            if now_acked > acked {
                let receipts = window.take_receipts().into_iter();
                let answered =
                    receipts.filter_map(|(seq, receipt)| Some((sent.remove(&seq)?, receipt)));
                match self.judge(answered.collect(), &token).await {
                    Ok(()) => {}
                    Err(Trouble::Refused(why)) => return Ok((acked, Answer::Untrue(why))),
                    Err(Trouble::Failed(why)) => return Ok((acked, Answer::Failed(why))),
                }
                self.acknowledged(now_acked)?;
                acked = now_acked;
                self.cosign(&token).await;
            }
        }
    }

    async fn post(&self, seq: u64, token: &Arc<str>) -> Result<Post, String> {
        let bytes = self
            .spool
            .read(seq)
            .await
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("block {seq} is not in the spool"))?;
        let bytes = self.form_of(seq, bytes)?;
        Ok(Post {
            endpoint: self.endpoint().to_owned(),
            token: Arc::clone(token),
            agent: self.identity.who.agent,
            stream: self.stream,
            seq,
            bytes,
            tree_size: self.memory.size(),
            skew: Arc::clone(&self.skew),
        })
    }

    fn acknowledged(&mut self, next_seq: u64) -> Result<(), String> {
        if self.backoff.failures() > 0 {
            log::info!(output = self.settings.id.as_str(), next_seq = next_seq; "delivery goes on");
        }
        self.backoff.reset();
        self.rewound = false;
        self.tell_skew();
        self.refused = self.refused.split_off(&next_seq);
        self.state.acknowledged(next_seq, self.endpoint(), self.clock.now());
        self.spool
            .ack(&self.settings.id, self.generation, next_seq)
            .map_err(|error| error.to_string())
    }

    /// Once when the clocks are found apart, once when they are not any more.
    fn tell_skew(&mut self) {
        let trouble = self.skew.trouble();
        if trouble.is_some() != self.skew_told {
            match &trouble {
                Some(said) => log::warn!(output = self.settings.id.as_str(); "{said}"),
                None => {
                    log::info!(output = self.settings.id.as_str(); "this host's clock and the collector's agree again")
                }
            }
        }
        self.skew_told = trouble.is_some();
        self.state.clock(trouble);
    }

    /// `from` was acknowledged before any block of the window was sent.
    async fn after(&mut self, from: u64, seq: u64, answer: Answer) -> Next {
        match answer {
            Answer::Durable(_) => Next::Resume(seq + 1),
            Answer::Untrue(why) => {
                self.refuse(&why).await;
                Next::Resume(seq)
            }
            Answer::Expects(expected) => self.after_expects(from, seq, expected).await,
            Answer::Forked(said) => {
                self.end_stream(seq, format!("the collector has another past: {said}"), false).await
            }
            Answer::NoCertificate(said) => {
                self.trouble("not let in; everything is kept and tried again", &said);
                self.renew_at_once(&said);
                self.wait_after_failure().await;
                Next::Resume(seq)
            }
            Answer::Denied(said) => {
                self.trouble("not let in; everything is kept and tried again", &said);
                self.token = None;
                self.forget_enrolled_token().await;
                Next::Resume(seq)
            }
            Answer::KeyUnknown(said) if !self.rewound => match self.rewind_keys() {
                Ok(()) => Next::Resume(seq),
                Err(why) => {
                    self.trouble(&said, &why);
                    self.wait_after_failure().await;
                    Next::Resume(seq)
                }
            },
            Answer::KeyUnknown(said) | Answer::KeyReplaced(said) => {
                self.lose_identity(seq, said).await
            }
            Answer::Refused(said) => self.set_aside(seq, &said).await,
            Answer::Busy(retry_after, said) => {
                self.trouble("the collector is busy", &said);
                match retry_after {
                    Some(wait) => {
                        let wait = wait + self.backoff.below(wait / 4);
                        self.wait(wait).await;
                    }
                    None => self.wait_after_failure().await,
                }
                Next::Resume(seq)
            }
            Answer::Failed(said) => {
                self.log_checked = false;
                self.trouble("cannot deliver", &said);
                self.heed_refusal(&said);
                self.endpoint = self.endpoint.wrapping_add(1);
                self.wait_after_failure().await;
                Next::Resume(seq)
            }
        }
    }

    async fn after_expects(&mut self, from: u64, seq: u64, expected: u64) -> Next {
        let durable_end = self.spool.durable().borrow().next_seq;
        if (from..=seq).contains(&expected) {
            // A block overtook its predecessors, which have been taken since: send again from here.
            let wait = self.backoff.below(Duration::from_millis(20));
            self.wait(wait).await;
            return Next::Resume(seq);
        }
        if expected > durable_end {
            let reason = format!(
                "the collector has {expected} blocks, this agent only {durable_end}: its state is older"
            );
            return self.end_stream(seq, reason, false).await;
        }
        if self.settings.skipped.contains(&expected) {
            let reason = format!(
                "blocks {expected} to {} were deleted while output {} was not configured",
                self.settings.skipped.end - 1,
                self.settings.id
            );
            return self.end_stream(seq, reason, false).await;
        }
        if expected < from {
            let reason = format!(
                "the collector has forgotten blocks {expected} to {} that it acknowledged",
                seq - 1
            );
            return self.end_stream(seq, reason, true).await;
        }
        // Whether the collector's blocks up to there are ours is not known yet: an agent of this
        // name whose state was put back since may have sent it others. So nothing is freed. The
        // next block names the hash of the one before it; if that is taken, all before it are ours.
        Next::Resume(expected)
    }

    /// Enrols; where the collector does not see how the key of now follows from the one that it knows, once more with every
    /// statement that there is.
    async fn enrol(&mut self) -> Result<Arc<str>, String> {
        let mut done = self.show_token().await;
        if done.as_ref().is_err_and(|refused| refused.key_unknown) && !self.rewound {
            self.rewind_keys()?;
            done = self.show_token().await;
        }
        let token = done.map_err(|refused| refused.why)?;
        if let Some(store) = self.settings.certificates.clone() {
            self.show_kept(&store);
        }
        Ok(token)
    }

    async fn show_token(&self) -> Result<Arc<str>, NotEnrolled> {
        let Self { settings, identity, .. } = self;
        let bringing = Bringing {
            identity,
            keys: &settings.keys,
            output: &settings.id,
            certificates: settings.certificates.as_ref(),
        };
        settings.tokens.enroll(&self.client, self.endpoint(), bringing, None).await
    }

    /// Every statement that the collector has not taken, in order.
    async fn send_keys(&mut self, token: &str) -> Result<(), Answer> {
        let (keys, id) = (Arc::clone(&self.settings.keys), self.settings.id.clone());
        while let Some((number, entry)) = keys.pending(&id) {
            let endpoint = self.endpoint().to_owned();
            let agent = self.identity.who.agent;
            let answer = post_key(&self.client, &endpoint, token, &agent, entry).await;
            match answer {
                Answer::Durable(_) => {}
                // A collector that was put back knows an older key: from the beginning, once.
                Answer::KeyUnknown(_) if !self.rewound => {
                    self.rewind_keys().map_err(Answer::Failed)?;
                    continue;
                }
                // It came to know this agent by a later key.
                Answer::KeyUnknown(_) => {}
                answer => return Err(answer),
            }
            keys.taken(&id, number).map_err(|error| Answer::Failed(error.to_string()))?;
        }
        Ok(())
    }

    fn rewind_keys(&mut self) -> Result<(), String> {
        self.rewound = true;
        self.settings.keys.rewind(&self.settings.id).map_err(|error| error.to_string())
    }

    /// The key has gone: with a token for enrolment the agent goes on under a new identity.
    async fn lose_identity(&mut self, seq: u64, said: String) -> Next {
        let tokens = &self.settings.tokens;
        if tokens.configured.is_none() && tokens.enroll.is_some() {
            let reason = format!("this agent's key is not the collector's newest: {said}");
            return Next::End(Ended::NewIdentity { reason });
        }
        self.trouble(
            "the collector does not take this agent's key; everything is kept. Remedy: configure \
             enroll_token_file, so that it can enrol anew",
            &said,
        );
        let wait = self.backoff.below(DENIED_WAIT);
        self.wait(wait).await;
        Next::Resume(seq)
    }

    /// The stream cannot go on there; but first the collector must show that its log continues
    /// what it had shown. A collector that was put back from an older copy has forgotten more than
    /// blocks.
    pub(super) async fn end_stream(&mut self, seq: u64, reason: String, forgotten: bool) -> Next {
        self.log_checked = false;
        let Some(token) = self.obtain_token().await else { return Next::Resume(seq) };
        match self.check_log(&token).await {
            Ok(()) => Next::End(Ended::NewStream { reason, forgotten }),
            Err(Answer::Untrue(why)) => {
                self.refuse(&why).await;
                Next::Resume(seq)
            }
            Err(_) => {
                self.wait_after_failure().await;
                Next::Resume(seq)
            }
        }
    }

    /// 401 or 403: if the token came from enrolment, enrol again (the collector may have been made
    /// anew); otherwise knock slowly.
    pub(super) async fn forget_enrolled_token(&mut self) {
        let tokens = &self.settings.tokens;
        if tokens.configured.is_none() && tokens.enroll.is_some() {
            match self.enrol().await {
                Ok(token) => {
                    log::info!(output = self.settings.id.as_str(); "enrolled again");
                    self.token = Some(token);
                    self.wait_after_failure().await;
                    return;
                }
                Err(reason) => self.trouble("cannot enrol again", &reason),
            }
        }
        let wait = self.backoff.below(DENIED_WAIT);
        self.wait(wait).await;
    }

    pub(super) fn trouble(&self, what: &str, why: &str) {
        let said = format!("{what}: {why}");
        log::warn!(output = self.settings.id.as_str(), endpoint = self.endpoint(); "{said}");
        self.state.failed(&said, self.endpoint(), self.clock.now());
    }

    pub(super) async fn wait_after_failure(&mut self) {
        let wait = self.backoff.next_wait();
        self.wait(wait).await;
    }

    async fn wait(&self, wait: Duration) {
        self.state.waits_until(self.clock.now(), wait);
        tokio::time::sleep(wait).await;
    }
}
