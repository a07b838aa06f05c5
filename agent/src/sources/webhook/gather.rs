//! Requests that wait together: those of one endpoint that come while earlier ones are on their way to
//! the disk share the next batch, its place in line, its block and its sync. A request that comes alone
//! waits for nobody.
//!
//! **Limits.** [`CARRIERS`] batches of an endpoint under way; [`MAX_TOGETHER`] requests of a batch, and
//! what any batch may hold. A request keeps its room among all bodies until its batch is made.
//!
//! **Failures.** Who has gone away or was told to come again before its batch was made is left out, and
//! not remembered as stored. What is in a batch that has been handed on is remembered as the batch ends,
//! whoever still waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use custody_event::Offset;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::memory::{self, Name};
use super::serve::{Answer, OFFER_AGAIN, Serving, later, stored};
use super::{Endpoint, Shared};
use crate::sources::batch::MarkParts;
use crate::sources::{Item, Kept, Known, NotTaken, Promise, RecordBatch, Way};

/// Batches of one endpoint under way: while one is synced the next is parsed.
const CARRIERS: usize = 2;
/// Requests of one batch: what they are remembered by is one value of the spool.
const MAX_TOGETHER: usize = 512;
/// How long before the end of the time a batch for which there is no room is given up.
const GIVE_UP_BEFORE: Duration = Duration::from_millis(100);

/// How it ended for one request.
#[derive(Debug, Clone, Copy)]
enum End {
    Stored,
    NotStored,
    Full,
    Stopping,
}

/// A request of one record, found good.
pub(super) struct Waiting {
    pub(super) record: Vec<u8>,
    pub(super) way: Arc<Way>,
    pub(super) known: Known,
    /// As which it is remembered.
    pub(super) name: Option<Name>,
    /// Whoever sent it is told to come again then.
    pub(super) until: Instant,
    /// Its room among the bodies, given back with it.
    pub(super) _room: OwnedSemaphorePermit,
}

struct InLine {
    waiting: Box<Waiting>,
    tell: oneshot::Sender<End>,
}

/// The requests of an endpoint that wait for their batch.
#[derive(Default)]
pub(super) struct Line {
    all: VecDeque<InLine>,
    carriers: usize,
}

impl Line {
    /// Takes the first that a batch has room for.
    fn take(&mut self) -> VecDeque<InLine> {
        let mut bytes = 0_usize;
        let fits = |inline: &&InLine| {
            bytes = bytes.saturating_add(inline.waiting.record.len());
            bytes <= crate::sources::MAX_CHUNK_BYTES
        };
        let count = self.all.iter().take(MAX_TOGETHER).take_while(fits).count().max(1);
        let rest = self.all.split_off(count.min(self.all.len()));
        std::mem::replace(&mut self.all, rest)
    }
}

impl Endpoint {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request in line; true where one more carrier is wanted, which counts from then on.
    fn enter(&self, inline: InLine) -> bool {
        let mut line = self.line();
        line.all.push_back(inline);
        let needs_carrier = line.carriers < CARRIERS;
        line.carriers += usize::from(needs_carrier);
        needs_carrier
    }

    /// The next requests for a batch; `None`, and a carrier less, where nobody waits.
    fn take_together(&self) -> Option<VecDeque<InLine>> {
        loop {
            let mut line = self.line();
            let mut taken = line.take();
            if taken.is_empty() {
                line.carriers -= 1;
                return None;
            }
            drop(line);
            let mut memory = self.memory();
            taken.retain(|inline| {
                let is_there = !inline.tell.is_closed();
                if let Some(name) = inline.waiting.name.as_ref().filter(|_| !is_there) {
                    memory.settle(name, false);
                }
                is_there
            });
            if !taken.is_empty() {
                return Some(taken);
            }
        }
    }

    fn batch_of(&self, shared: &Shared, together: &mut VecDeque<InLine>) -> RecordBatch {
        let file = Arc::clone(self.place.file());
        let mut batch = RecordBatch::new(self.options.index, file, shared.clock.now());
        let bytes = together.iter().map(|inline| inline.waiting.record.len()).sum();
        batch.reserve(together.len(), bytes);
        for InLine { waiting, .. } in together.iter_mut() {
            let known = std::mem::take(&mut waiting.known);
            batch.add(&waiting.record, Offset(0), &waiting.way, None, Some(known));
        }
        let names: Vec<Option<Name>> = together.iter().map(|inline| inline.waiting.name).collect();
        if names.iter().any(Option::is_some) {
            let mut memory = self.memory();
            let (key, value) = memory.group(&names);
            batch.mark_key = key;
            batch.mark_parts = Some(MarkParts { value, stride: memory::GROUPED_BYTES });
            batch.marks = memory.too_many();
        }
        self.place.number(&mut batch);
        batch
    }
}

/// Everybody is told that there is no room before each sees that the time is over.
fn is_soon(until: Instant) -> bool {
    Instant::now() + GIVE_UP_BEFORE >= until
}

impl Serving {
    /// Waits in line until the request's record is durable or its time is over.
    pub(super) async fn gather(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        waiting: Waiting,
    ) -> Answer {
        let until = waiting.until;
        let (tell, told) = oneshot::channel();
        let needs_carrier = endpoint.enter(InLine { waiting: Box::new(waiting), tell });
        if needs_carrier {
            let (serving, endpoint) = (Arc::clone(self), Arc::clone(endpoint));
            self.late.spawn(async move {
                while let Some(together) = endpoint.take_together() {
                    serving.carry(&endpoint, together).await;
                }
            });
        }
        match tokio::time::timeout_at(until, told).await {
            Ok(Ok(End::Stored)) => stored(),
            Ok(Ok(End::Full)) => later(30, "full\n"),
            Ok(Ok(End::Stopping)) => later(5, "stopping\n"),
            Ok(Ok(End::NotStored) | Err(_)) => later(30, "not stored\n"),
            Err(_) => later(30, "not stored yet\n"),
        }
    }

    /// Hands a batch on, waits until it is durable, and tells everybody.
    async fn carry(&self, endpoint: &Endpoint, mut together: VecDeque<InLine>) {
        let mut batch = endpoint.batch_of(&self.shared, &mut together);
        let until = together.iter().map(|inline| inline.waiting.until).max();
        let (promise, kept) = Promise::new();
        batch.promise = Some(promise);
        // Whoever waits for an answer holds no body any more.
        let told: Vec<(Option<Name>, oneshot::Sender<End>)> =
            together.into_iter().map(|inline| (inline.waiting.name, inline.tell)).collect();
        let end = match self.offered(batch, until).await {
            Err(end) => end,
            Ok(()) if matches!(kept.await, Ok(Kept::Durable)) => End::Stored,
            Ok(()) => End::NotStored,
        };
        let mut memory = endpoint.memory();
        for name in told.iter().filter_map(|(name, _)| name.as_ref()) {
            memory.settle(name, matches!(end, End::Stored));
        }
        drop(memory);
        for (_, tell) in told {
            let _gone = tell.send(end);
        }
    }

    async fn offered(&self, batch: RecordBatch, until: Option<Instant>) -> Result<(), End> {
        let mut item = Item::Batch(batch);
        loop {
            match self.shared.hatch.offer(item) {
                Ok(()) => return Ok(()),
                Err(NotTaken::Stopped) => return Err(End::Stopping),
                Err(NotTaken::Full(_)) if until.is_none_or(is_soon) => return Err(End::Full),
                Err(NotTaken::Full(back)) => item = *back,
            }
            tokio::time::sleep(OFFER_AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use custody_config::agent::{Scheme, VerifyConfig};
    use custody_event::SystemClock;
    use tokio::sync::Semaphore;

    use super::super::memory::{Memory, Met, body_digest, name_of};
    use super::super::{EndpointOptions, Place, Refusals, Verifier};
    use super::*;
    use crate::sources::{Hatch, SourceIndex};

    struct Nowhere;

    impl Hatch for Nowhere {
        fn offer(&self, item: Item) -> Result<(), NotTaken> {
            Err(NotTaken::Full(Box::new(item)))
        }
        fn is_full(&self) -> bool {
            true
        }
    }

    fn endpoint() -> Endpoint {
        let config = VerifyConfig { scheme: Scheme::None, ..VerifyConfig::default() };
        Endpoint {
            options: EndpointOptions {
                index: SourceIndex(0),
                id: "x".into(),
                path: "/x".into(),
                verifier: Verifier::new(&config, &[]).unwrap(),
                max_body_bytes: 1000,
                split: String::new(),
                remember: 10_000,
            },
            place: Place::new([1; 16], "/x".into()),
            memory: Mutex::new(Memory::new(10_000, &Vec::new())),
            line: Mutex::default(),
            state: Arc::default(),
        }
    }

    fn shared() -> Shared {
        Shared {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            max_connections: 1,
            answer_within: Duration::from_secs(1),
            endpoints: Default::default(),
            first: SourceIndex(0),
            clock: Arc::new(SystemClock::new()),
            hatch: Arc::new(Nowhere),
            refusals: Refusals::default(),
        }
    }

    /// A request in line; whoever drops the receiver has gone away.
    fn comes(endpoint: &Endpoint, id: &str, bodies: &Arc<Semaphore>) -> oneshot::Receiver<End> {
        let name = name_of(id);
        assert_eq!(endpoint.memory().meet(name, body_digest(b"{}")), Met::Take { stored: 0 });
        let (tell, told) = oneshot::channel();
        let waiting = Waiting {
            record: b"{}".to_vec(),
            way: Arc::default(),
            known: Known::default(),
            name: Some(name),
            until: Instant::now() + Duration::from_secs(5),
            _room: Arc::clone(bodies).try_acquire_owned().unwrap(),
        };
        endpoint.line().all.push_back(InLine { waiting: Box::new(waiting), tell });
        told
    }

    #[tokio::test]
    async fn who_waits_goes_together_who_has_gone_is_left_out_and_all_are_known_again() {
        let (endpoint, bodies) = (endpoint(), Arc::new(Semaphore::new(1000)));
        endpoint.line().carriers = 1;
        let told: Vec<_> =
            (0..600).map(|number| comes(&endpoint, &format!("d{number}"), &bodies)).collect();
        drop(comes(&endpoint, "gone", &bodies));
        let mut together = endpoint.take_together().unwrap();
        assert_eq!(together.len(), MAX_TOGETHER);
        let batch = endpoint.batch_of(&shared(), &mut together);
        assert_eq!(batch.records.len(), MAX_TOGETHER);
        assert_eq!(batch.records[511].offset, Offset(511));
        drop(together);
        assert_eq!(endpoint.take_together().unwrap().len(), 600 - MAX_TOGETHER);
        assert!(endpoint.take_together().is_none());
        assert_eq!(endpoint.line().carriers, 0);
        assert_eq!(bodies.available_permits(), 1000, "no body is held any more");
        let again = endpoint.memory().meet(name_of("gone"), body_digest(b"{}"));
        assert_eq!(again, Met::Take { stored: 0 }, "it was not stored");
        drop(told);

        // The block ended with the third record.
        let mark = batch.mark_parts.unwrap().mark(&batch.mark_key, 2);
        let mut memory = Memory::new(10_000, &vec![(mark.key, mark.value.unwrap())]);
        assert_eq!(memory.meet(name_of("d2"), body_digest(b"{}")), Met::Stored);
        assert_eq!(memory.meet(name_of("d3"), body_digest(b"{}")), Met::Take { stored: 0 });
    }
}
