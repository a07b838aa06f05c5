//! What each stream has been shown of the transparency log, so that the next answer can begin where
//! the one before it ended.
//!
//! A sender has several blocks under way: the size of the log that it names with each is older than
//! the answers that are still on their way to it. It takes answers in the order of its blocks, so
//! the proof for a block begins at the size that the block before it was answered with. Where that
//! answer was lost, the sender asks for a proof of its own. Memory only: bounded, and gone with a
//! restart.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use custody_event::Seq;

use super::ledger::StreamName;

/// Streams that are remembered, at most; beyond them all are forgotten, which costs questions.
const MAX_STREAMS: usize = 10_000;
/// Answers of a stream that are remembered, at most.
const MAX_ANSWERS: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shown(Mutex<HashMap<StreamName, BTreeMap<Seq, u64>>>);

impl Shown {
    /// The size that the sender will know when it takes the answer to block `seq`; `known` is what
    /// it said.
    pub(super) fn before(&self, name: &StreamName, seq: Seq, known: u64) -> u64 {
        let streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = streams.get(name);
        let last = answers.and_then(|answers| answers.range(..seq).next_back());
        last.map_or(known, |(_, size)| known.max(*size))
    }

    /// Block `seq` is answered with the log at this size.
    pub(super) fn note(&self, name: &StreamName, seq: Seq, size: u64) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.len() >= MAX_STREAMS && !streams.contains_key(name) {
            streams.clear();
        }
        let answers = streams.entry(*name).or_default();
        answers.insert(seq, size);
        if answers.len() > MAX_ANSWERS {
            answers.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_event::{AgentId, StreamId};

    #[test]
    fn a_proof_begins_where_the_answer_before_it_ended() {
        let shown = Shown::default();
        let agent: AgentId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let stream: StreamId = "00000000000000000000000000000001".parse().unwrap();
        let name = (agent, stream);
        assert_eq!(shown.before(&name, Seq(5), 7), 7);
        shown.note(&name, Seq(5), 20);
        // Answered before block 6: that one does not change what 6 begins with.
        shown.note(&name, Seq(7), 30);
        assert_eq!(shown.before(&name, Seq(6), 7), 20);
        assert_eq!(shown.before(&name, Seq(8), 7), 30);
        // The sender has asked for itself meanwhile.
        assert_eq!(shown.before(&name, Seq(8), 33), 33);
        for seq in 8..1_000 {
            shown.note(&name, Seq(seq), 40 + seq);
        }
        assert_eq!(shown.before(&name, Seq(6), 7), 7);
    }
}
