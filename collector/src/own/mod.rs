//! The collector's own acts, as events in its own signed stream: searches, looks at single events,
//! logins, tokens, enrolments, revocations, accepted forks, start and stop.
//!
//! # Life of an act
//! [`Acts::record`] puts it into a bounded queue and never waits; a thread gathers for
//! [`LINGER`], writes a block, signs it with the collector's own key (`own.key`, enrolled in the
//! transparency log as every agent's is) and hands it to the evidence log like any other.
//!
//! # Limits
//! The queue holds [`QUEUE`] acts; what does not fit is counted and told as a gap. The same search
//! by the same person (a page that asks again and again) is told at once and then once a minute
//! with the number of times ([`GROUP_FOR`]); [`MAX_GROUPS`] such are watched at once.
//!
//! # Failures
//! While the evidence log takes nothing, the block waits and is offered again; one that became
//! durable although its answer said otherwise (the transparency log had no room for it) is told by its
//! place in the log. Once the collector ends, it is offered [`LAST_TRIES`] times more, and no longer. A
//! crash loses the acts of the last quarter of a second, but not those that stand in the table of acts
//! (everything about tokens, agents and forks): these are taken out only when they are durable.

mod describe;
mod exports;
mod retained;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{
    Receiver, RecvTimeoutError, SendTimeoutError, Sender, TrySendError, bounded,
};
use custody_event::block::{Accounts, Placement, Sealer};
use custody_event::position::own_key;
use custody_event::{AgentId, Clock, Digest, StreamId, Timestamp};
use custody_evidence::{AgentKey, Chain};
use tokio::sync::oneshot;

use crate::access::random_secret;
use crate::store::evidence::{Checked, EvidenceLog, Known, Outcome};
use crate::tlog::Enrolment;

pub use describe::{Act, Login};
pub use exports::ExportAct;
pub use retained::RetainAct;

/// Acts that wait, at most.
const QUEUE: usize = 4_096;
/// How long an act waits for company.
const LINGER: Duration = Duration::from_millis(250);
/// Events in a block, at most.
const MAX_EVENTS: usize = 500;
/// How long equal searches are counted before they are told again.
const GROUP_FOR: Duration = Duration::from_secs(60);
/// Searches that are watched for repetition, at most.
const MAX_GROUPS: usize = 1_000;
/// A block that the log does not take now is offered again after this time.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 500 });
/// So often still, once the collector ends.
const LAST_TRIES: u32 = 10;
/// How long the end of the queue waits for room: twice as long as the last tries take.
const END_WAIT: Duration = Duration::from_secs(10);

/// Who the collector is among the agents.
pub struct Identity {
    agent: AgentId,
    host: String,
    key: AgentKey,
}

impl Identity {
    /// As it stands in the data directory, made where there is none.
    ///
    /// # Errors
    /// The key cannot be read or written, or there is no randomness.
    pub fn load(data_dir: &Path) -> anyhow::Result<Self> {
        let key = AgentKey::load_or_create(&data_dir.join("own.key"), &random_secret()?)?;
        let digest = |what: &str| {
            Digest::of(&[what.as_bytes(), &key.public().to_bytes()].concat()).to_hex()[..32]
                .to_owned()
        };
        let agent = digest("custody collector v1\0")
            .parse()
            .map_err(|_| anyhow::anyhow!("32 hex digits are an id"))?;
        Ok(Self { agent, host: digest("custody collector host v1\0"), key })
    }

    /// Its id.
    #[must_use]
    pub fn agent(&self) -> AgentId {
        self.agent
    }

    /// As the log vouches for it.
    #[must_use]
    pub fn enrolment(&self) -> Enrolment {
        Enrolment { agent: self.agent, host: self.host.clone(), key: self.key.public() }
    }
}

/// An act on its way; the answer comes when it is durable.
struct Recorded {
    act: Act,
    at: Timestamp,
    done: Option<oneshot::Sender<()>>,
}

/// Takes acts; cheap to clone.
#[derive(Clone)]
pub struct Acts {
    queue: Sender<Recorded>,
    dropped: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
}

impl Acts {
    /// The collector is about to end: what the evidence log does not take is offered a few times more
    /// and then given up, and whoever waits for it to be durable waits no longer.
    pub fn hurry(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Takes an act; never waits.
    pub fn record(&self, act: Act) {
        self.put(act, None);
    }

    /// Takes an act; the answer comes when it is durable.
    pub(crate) fn record_durably(&self, act: Act) -> oneshot::Receiver<()> {
        let (done, durable) = oneshot::channel();
        self.put(act, Some(done));
        durable
    }

    fn put(&self, act: Act, done: Option<oneshot::Sender<()>>) {
        match self.queue.try_send(Recorded { act, at: self.clock.now(), done }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Err(TrySendError::Disconnected(_)) => {
                log::debug!("an act of the collector came after its stream had ended");
            }
        }
    }
}

/// The thread that writes the stream.
pub struct OwnStream {
    acts: Mutex<Option<Acts>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl OwnStream {
    /// Goes on with the collector's stream, or begins it.
    ///
    /// # Errors
    /// A thread cannot be started, or there is no randomness or memory.
    pub fn start(
        log: Arc<EvidenceLog>,
        identity: Identity,
        name: &str,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<(Self, Acts)> {
        let known = log.with_ledger(|ledger| {
            let own = ledger.streams().iter().rfind(|stream| stream.name.0 == identity.agent);
            own.map(|stream| stream.name.1)
        });
        let mut random = [0; 16];
        random.copy_from_slice(&random_secret()?[..16]);
        let (queue, todo) = bounded(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let acts = Acts {
            queue,
            dropped: Arc::clone(&dropped),
            stopping: Arc::clone(&stopping),
            clock: Arc::clone(&clock),
        };
        let writer = Writer {
            log,
            stream: known.unwrap_or(StreamId(random)),
            name: name.to_owned(),
            identity,
            clock,
            sealer: Sealer::new()?,
            dropped,
            waiting: Vec::new(),
            groups: HashMap::new(),
            stopping,
        };
        let thread = std::thread::Builder::new()
            .name("own-acts".to_owned())
            .spawn(move || writer.run(&todo))?;
        let own = Self { acts: Mutex::new(Some(acts.clone())), thread: Mutex::new(Some(thread)) };
        Ok((own, acts))
    }

    /// Writes what was taken, and ends. All other [`Acts`] must be gone, or end with the process.
    pub fn close(&self) {
        let acts = self.acts.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(acts), Some(thread)) = (acts, thread) else { return };
        acts.hurry();
        acts.record(Act::Stopped);
        let end = Recorded { act: Act::End, at: acts.clock.now(), done: None };
        // There is room as soon as the thread has given up what it is at.
        if let Err(SendTimeoutError::Timeout(_)) = acts.queue.send_timeout(end, END_WAIT) {
            log::error!("the collector's own acts do not end; those of the last seconds are lost");
        } else if thread.join().is_err() {
            log::error!("the thread of the collector's own acts ended with a panic");
        }
    }
}

/// A search that has been told, and may come again.
struct Group {
    act: Act,
    since: Duration,
    /// Times since it was told.
    again: u64,
    last: Timestamp,
}

struct Writer {
    log: Arc<EvidenceLog>,
    stream: StreamId,
    name: String,
    identity: Identity,
    clock: Arc<dyn Clock>,
    sealer: Sealer,
    dropped: Arc<AtomicU64>,
    waiting: Vec<(Act, Timestamp, u64, Option<oneshot::Sender<()>>)>,
    groups: HashMap<String, Group>,
    stopping: Arc<AtomicBool>,
}

/// What became of a block that was offered.
enum Offered {
    Durable,
    /// Never to be taken; why.
    Refused(String),
    /// To be offered again; why.
    Waits(String),
}

impl Writer {
    fn run(mut self, todo: &Receiver<Recorded>) {
        let mut since: Option<Duration> = None;
        loop {
            match todo.recv_timeout(LINGER) {
                Ok(Recorded { act: Act::End, .. }) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(recorded) => self.take(recorded),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = self.clock.monotonic();
            self.tell_groups(Some(now));
            if self.waiting.is_empty() {
                since = None;
                continue;
            }
            let begun = *since.get_or_insert(now);
            if now.saturating_sub(begun) >= LINGER || self.waiting.len() >= MAX_EVENTS {
                self.write();
                since = None;
            }
        }
        self.tell_groups(None);
        self.write();
    }

    fn take(&mut self, recorded: Recorded) {
        let Recorded { act, at, done } = recorded;
        if let Some(name) = act.group() {
            if let Some(group) = self.groups.get_mut(&name) {
                group.again += 1;
                group.last = at;
                return;
            }
            if self.groups.len() >= MAX_GROUPS {
                self.tell_groups(None);
            }
            let group =
                Group { act: act.clone(), since: self.clock.monotonic(), again: 0, last: at };
            self.groups.insert(name, group);
        }
        self.waiting.push((act, at, 1, done));
    }

    /// Tells what came again: of groups that are over, or (`None`) of all.
    fn tell_groups(&mut self, now: Option<Duration>) {
        let over: Vec<String> = self
            .groups
            .iter()
            .filter(|(_, group)| now.is_none_or(|now| now.saturating_sub(group.since) >= GROUP_FOR))
            .map(|(name, _)| name.clone())
            .collect();
        for name in over {
            if let Some(group) = self.groups.remove(&name)
                && group.again > 0
            {
                self.waiting.push((group.act, group.last, group.again, None));
            }
        }
    }

    /// Writes what waits as one block.
    fn write(&mut self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            self.waiting.push((Act::Lost(dropped), self.clock.now(), 1, None));
        }
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return;
        }
        for part in split(waiting) {
            let checked = match self.block(&part) {
                Ok(checked) => checked,
                Err(error) => {
                    log::error!(error:% = error; "the collector's own acts cannot be written");
                    continue;
                }
            };
            if self.offer(&checked) {
                part.into_iter().filter_map(|(.., done)| done).for_each(|done| {
                    // Whoever asked may have gone.
                    let _gone = done.send(());
                });
            } else if self.stopping.load(Ordering::Acquire) {
                // The others would not fare better, and the end waits.
                return;
            }
        }
    }

    fn block(&mut self, part: &[Waiting]) -> anyhow::Result<Arc<Checked>> {
        let name = (self.identity.agent, self.stream);
        let chain = self
            .log
            .with_ledger(|ledger| ledger.stream(&name).map(|stream| stream.chain.clone()))
            .unwrap_or_else(|| Chain::new(self.stream));
        let place = describe::Place {
            key: own_key(&self.identity.host, &self.stream),
            seq: chain.next_seq,
            agent: self.identity.agent.to_hex(),
            name: &self.name,
        };
        let mut text = Vec::new();
        for (index, (act, at, times, _)) in (0_u32..).zip(part) {
            describe::write(act, *at, *times, &place, index, &mut text);
        }
        let times = part.iter().map(|(_, at, ..)| *at);
        let first = times.clone().min().unwrap_or_else(|| self.clock.now());
        let last = times.max().unwrap_or(first);
        let placement = Placement {
            agent: self.identity.agent,
            host: self.identity.host.clone(),
            key: self.identity.key.id(),
            stream: self.stream,
            seq: chain.next_seq,
            prev: chain.last_hash,
            sealed: self.clock.now(),
        };
        let sealed = self.sealer.seal(&text, (first, last), random_secret()?)?;
        let mut block = sealed.place(placement, Accounts::default());
        self.identity.key.sign(&mut block);
        let bytes = block.encode()?;
        let keys_version = self.log.tlog().map_or(0, crate::tlog::Tlog::version);
        Ok(Arc::new(Checked { block, bytes, coverage: Vec::new(), keys_version, _permit: None }))
    }

    /// Offers the block until it is durable.
    fn offer(&self, checked: &Arc<Checked>) -> bool {
        let mut last = LAST_TRIES;
        loop {
            let why = match self.offer_once(checked) {
                Offered::Durable => return true,
                Offered::Refused(why) => {
                    log::error!(reason:% = why; "the collector's own acts are refused");
                    return false;
                }
                Offered::Waits(why) => why,
            };
            if self.stopping.load(Ordering::Acquire) {
                last -= 1;
            }
            if last == 0 {
                log::error!(reason:% = why; "the collector's last acts could not be written");
                return false;
            }
            log::debug!("the collector's own acts wait: {why}");
            std::thread::sleep(AGAIN);
        }
    }

    fn offer_once(&self, checked: &Arc<Checked>) -> Offered {
        match self.log.known(&checked.block) {
            Ok(Known::No) => {}
            // It is in the segment, but its answer was another: the transparency log, which had no
            // room for it then, is asked again.
            Ok(Known::Same) => {
                return match self.log.flush_tlog() {
                    Ok(()) => Offered::Durable,
                    Err(error) => Offered::Waits(error.to_string()),
                };
            }
            Ok(Known::Another) => {
                return Offered::Refused("another block stands in its place".to_owned());
            }
            Err(error) => return Offered::Waits(error.to_string()),
        }
        match self.log.submit(checked).map(oneshot::Receiver::blocking_recv) {
            Ok(Ok(Outcome::Stored { .. } | Outcome::Again { .. })) => Offered::Durable,
            Ok(Ok(Outcome::Recheck)) => Offered::Waits("the log went on meanwhile".to_owned()),
            Ok(Ok(Outcome::Unavailable { reason, .. })) => Offered::Waits(reason),
            Ok(Ok(other)) => Offered::Refused(format!("{other:?}")),
            Ok(Err(_)) => Offered::Waits("the evidence log ended".to_owned()),
            Err(error) => Offered::Waits(error.to_string()),
        }
    }
}

type Waiting = (Act, Timestamp, u64, Option<oneshot::Sender<()>>);

/// Parts that fit a block each.
fn split(mut waiting: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let mut parts = Vec::new();
    while waiting.len() > MAX_EVENTS {
        let rest = waiting.split_off(MAX_EVENTS);
        parts.push(std::mem::replace(&mut waiting, rest));
    }
    parts.push(waiting);
    parts
}
