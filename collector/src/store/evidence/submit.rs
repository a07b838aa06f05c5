//! A checked block on its way to the writer, and the writer's answer.

use std::sync::Arc;

use custody_event::{Block, Coverage, Seq};
use custody_evidence::Entry;
use custody_evidence::keyring::KeyringError;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::held::Decision;
use super::ledger::{Basis, StreamName};
use crate::store::StoreError;
use crate::tlog::TlogError;

/// A block whose content has been checked. What it may not be is decided by its place in the log.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) block: Block,
    /// The encoded block, as it came.
    pub(crate) bytes: Vec<u8>,
    pub(crate) coverage: Vec<Coverage>,
    /// Which statements about keys its signature was checked against ([`crate::tlog::Tlog`]).
    pub(crate) keys_version: u64,
    /// The bytes' share of what may be under way; given back when nobody holds them.
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Submission {
    checked: Arc<Checked>,
    /// What the decision rests on: the writer compares it with what is true at the block's place.
    pub(super) basis: Basis,
    pub(super) decision: Decision,
    answer: oneshot::Sender<Outcome>,
}

/// What the writer does, in the order in which it comes.
#[derive(Debug)]
pub(super) enum Work {
    /// A block.
    Block(Box<Submission>),
    /// A statement for the transparency log; answered with its place there.
    Statement(Box<Entry>, oneshot::Sender<Result<u64, TlogError>>),
    /// The segment shall end here.
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is durable.
    Stored { next_seq: Seq },
    /// It was durable already, and is not stored again.
    Again { next_seq: Seq },
    /// Blocks before it are missing.
    Later { expected_seq: Seq },
    /// The stream has another block at this place, or another past.
    Forked { expected_seq: Seq },
    /// The log went on meanwhile: look again and submit again.
    Recheck,
    /// The key that signed it has been replaced or revoked meanwhile.
    BadKey { error: KeyringError },
    /// Not now.
    Unavailable { reason: String, retry_after_s: u32 },
}

impl Outcome {
    pub(super) fn unavailable(reason: String, retry_after_s: u32) -> Self {
        Self::Unavailable { reason, retry_after_s }
    }
}

impl Submission {
    pub(super) fn new(
        checked: Arc<Checked>,
        basis: Basis,
        decision: Decision,
    ) -> (Self, oneshot::Receiver<Outcome>) {
        let (answer, outcome) = oneshot::channel();
        (Self { checked, basis, decision, answer }, outcome)
    }

    pub(super) fn block(&self) -> &Block {
        &self.checked.block
    }

    pub(super) fn keys_version(&self) -> u64 {
        self.checked.keys_version
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.checked.bytes
    }

    pub(super) fn coverage(&self) -> &[Coverage] {
        &self.checked.coverage
    }

    pub(super) fn name(&self) -> StreamName {
        (self.block().header.agent, self.block().header.stream)
    }

    /// A sender that has gone away asks again some time; the answer is the same.
    pub(super) fn answer(self, outcome: Outcome) {
        if self.answer.send(outcome).is_err() {
            log::debug!("the sender of a block went away before its answer");
        }
    }
}
