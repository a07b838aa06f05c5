//! Takes blocks from agents, exactly once.
//!
//! # Life of a block
//! Decoded; its header must say what the path says, and the agent's host; its signature must be
//! the agent's. If its number is known, the header's hash decides: the same is acknowledged again
//! and not stored again, another means that the agent's stream has forked (it was restored from a
//! backup and must begin a new stream). Otherwise its content is checked (`content`), in parallel
//! with that of others, and the evidence log puts it at its place.
//!
//! # Limits
//! Checks run on at most as many threads as there are processors; bodies are bounded by the
//! server. A block that comes early waits 250 ms for its predecessor in the log's writer.
//!
//! # Failures
//! Each is a [`Problem`]. Nothing is acknowledged before it is durable.

mod alike;
pub(crate) mod content;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use custody_event::{AgentId, Block, Seq, StreamId};
use custody_evidence::keyring::KeyringError;
use custody_evidence::{LogReceipt, PublicKey};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use content::Scratch;

use crate::serve::problem::{Code, Problem};
use crate::store::StoreError;
use crate::store::evidence::{Checked, DecideError, EvidenceLog, Known, Outcome};
use crate::tlog::Tlog;

/// A block is looked at again at most this often when the log has gone on below it.
const MAX_LOOKS: usize = 16;

/// The sending agent's host and key, as it was enrolled.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) host: String,
    pub(crate) key: PublicKey,
}

/// What the path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) agent: AgentId,
    pub(crate) stream: StreamId,
    pub(crate) seq: Seq,
}

/// See the module.
pub(crate) struct Ingest {
    log: Arc<EvidenceLog>,
    workers: Arc<Semaphore>,
    memory: Arc<Memory>,
}

/// What blocks are checked in: as many as there are checks at the same time, each used again and again.
#[derive(Default)]
struct Memory(Mutex<Vec<Scratch>>);

impl Memory {
    fn used<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        // Lost where the work panics; the next begins with a new one.
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = lock().pop().unwrap_or_default();
        let done = work(&mut scratch);
        lock().push(scratch);
        done
    }
}

/// How far a block has come without waiting.
enum Taken {
    Acknowledged,
    Waiting(Arc<Checked>, oneshot::Receiver<Outcome>),
}

impl Ingest {
    pub(crate) fn new(log: Arc<EvidenceLog>, workers: usize) -> Self {
        Self { log, workers: Arc::new(Semaphore::new(workers)), memory: Arc::default() }
    }

    /// Takes a block; gives the number that its stream goes on with, once it is durable, and the
    /// receipt. `known_size` is how much of the transparency log the sender knows.
    pub(crate) async fn take(
        &self,
        sender: Sender,
        path: Path,
        bytes: Vec<u8>,
        permit: OwnedSemaphorePermit,
        known_size: u64,
    ) -> Result<(Seq, Option<LogReceipt>), Problem> {
        let next_seq = self.store(sender, path, bytes, permit).await?;
        if self.log.tlog().is_none() {
            return Ok((next_seq, None));
        }
        // Nearly always it can be made from what is in memory, and another thread need not be woken.
        let name = (path.agent, path.stream);
        if let Some(receipt) = self.log.receipt_at_once(&name, path.seq, known_size) {
            return Ok((next_seq, Some(receipt)));
        }
        let log = Arc::clone(&self.log);
        let receipt = self.work(move || {
            log.receipt(&name, path.seq, known_size).map_err(|error| {
                log::error!(error:% = error; "a receipt cannot be made");
                Problem::unavailable(format!("the receipt cannot be made: {error}"), 5)
            })
        });
        Ok((next_seq, receipt.await?))
    }

    async fn store(
        &self,
        sender: Sender,
        path: Path,
        bytes: Vec<u8>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Seq, Problem> {
        let (log, memory) = (Arc::clone(&self.log), Arc::clone(&self.memory));
        let first = move || first_look(&log, &memory, &sender, path, bytes, permit);
        let mut taken = self.work(first).await?;
        for _ in 0..MAX_LOOKS {
            let (checked, outcome) = match taken {
                Taken::Acknowledged => {
                    let name = (path.agent, path.stream);
                    return Ok(self.log.with_ledger(|ledger| ledger.next_seq(&name)));
                }
                Taken::Waiting(checked, outcome) => (checked, outcome),
            };
            let outcome = outcome.await.map_err(|_| {
                Problem::unavailable("the evidence log ended before the block was durable", 5)
            })?;
            if let Some(answer) = settled(outcome) {
                return answer;
            }
            let log = Arc::clone(&self.log);
            taken = self.work(move || look(&log, checked)).await?;
        }
        Err(Problem::unavailable("the log goes on faster than this block can be placed", 1))
    }

    /// Runs on a thread that may block, of which there are as many as processors.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = Arc::clone(&self.workers).acquire_owned().await;
        let permit = permit.map_err(|_| Problem::unavailable("shutting down", 5))?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        done.await.unwrap_or_else(|error| {
            log::error!(error:% = error; "checking a block panicked");
            Err(Problem::fault("checking the block failed; the collector's log says why"))
        })
    }
}

/// The answer, unless the block must be looked at again.
fn settled(outcome: Outcome) -> Option<Result<Seq, Problem>> {
    match outcome {
        Outcome::Stored { next_seq } | Outcome::Again { next_seq } => Some(Ok(next_seq)),
        Outcome::Later { expected_seq } => Some(Err(Problem::expected(expected_seq))),
        Outcome::Forked { expected_seq } => Some(Err(Problem::forked(expected_seq))),
        Outcome::Unavailable { reason, retry_after_s } => {
            Some(Err(Problem::unavailable(reason, retry_after_s)))
        }
        Outcome::BadKey { error } => Some(Err(Problem::bad_key(&error))),
        Outcome::Recheck => None,
    }
}

fn first_look(
    log: &EvidenceLog,
    memory: &Memory,
    sender: &Sender,
    path: Path,
    bytes: Vec<u8>,
    permit: OwnedSemaphorePermit,
) -> Result<Taken, Problem> {
    let block = Block::decode(&bytes).map_err(|error| Problem::malformed(error.to_string()))?;
    // Before the signature: a statement that comes in between is seen.
    let keys_version = log.tlog().map_or(0, Tlog::version);
    check_sender(&block, sender, path)?;
    let before = known(log, &block);
    // What is stored already is acknowledged, also where its key has gone since.
    if let Ok(Some(known)) = before {
        return Ok(known);
    }
    check_key(log, &block, sender)?;
    if let Some(known) = before? {
        return Ok(known);
    }
    if let Some(reason) = log.held_back() {
        return Err(Problem::unavailable(reason, 10));
    }
    let checked = memory.used(|scratch| content::check(&block, scratch));
    let coverage = checked.map_err(Problem::malformed)?;
    let checked = Arc::new(Checked { block, bytes, coverage, keys_version, _permit: Some(permit) });
    submit(log, checked)
}

fn look(log: &EvidenceLog, checked: Arc<Checked>) -> Result<Taken, Problem> {
    match known(log, &checked.block)? {
        Some(known) => Ok(known),
        None => submit(log, checked),
    }
}

fn submit(log: &EvidenceLog, checked: Arc<Checked>) -> Result<Taken, Problem> {
    match log.submit(&checked) {
        Ok(outcome) => Ok(Taken::Waiting(checked, outcome)),
        Err(DecideError::Malformed(error)) => Err(Problem::malformed(error.to_string())),
        Err(DecideError::Store(error)) => Err(unreadable(&error)),
    }
}

fn unreadable(error: &StoreError) -> Problem {
    log::error!(error:% = error; "the evidence log cannot be read");
    Problem::unavailable("the evidence log cannot be read; the collector's log says why", 30)
}

/// Header against path, agent, host and key.
fn check_sender(block: &Block, sender: &Sender, path: Path) -> Result<(), Problem> {
    let header = &block.header;
    let said = Path { agent: header.agent, stream: header.stream, seq: header.seq };
    if said != path {
        return Err(Problem::coded(
            Code::PathMismatch,
            format!(
                "the block is number {} of stream {} of agent {}; the path says another",
                said.seq, said.stream, said.agent
            ),
        ));
    }
    if header.host != sender.host {
        return Err(Problem::coded(
            Code::HostMismatch,
            "the block's host is not the one that this agent was enrolled with; enrol again",
        ));
    }
    Ok(())
}

/// By the keys that the transparency log vouches for; without one, by the enrolled key.
fn check_key(log: &EvidenceLog, block: &Block, sender: &Sender) -> Result<(), Problem> {
    let checked = match log.tlog() {
        Some(tlog) => tlog.check(block),
        None => sender.key.verify(block).map_err(KeyringError::Signature),
    };
    checked.map_err(|error| Problem::bad_key(&error))
}

/// Is the block's number behind the stream's end? Then its hash decides.
fn known(log: &EvidenceLog, block: &Block) -> Result<Option<Taken>, Problem> {
    match log.known(block).map_err(|error| unreadable(&error))? {
        Known::No => Ok(None),
        Known::Same => Ok(Some(Taken::Acknowledged)),
        Known::Another => {
            let name = (block.header.agent, block.header.stream);
            Err(Problem::forked(log.with_ledger(|ledger| ledger.next_seq(&name))))
        }
    }
}
