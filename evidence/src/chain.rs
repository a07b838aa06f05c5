//! The continuity of one stream: each header names the hash of the one before and the next number.

use custody_event::{Block, Digest, Seq, StreamId};
use thiserror::Error;

/// Where a stream stands: what the next block must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Which stream.
    pub stream: StreamId,
    /// The next number.
    pub next_seq: Seq,
    /// The hash of the last header; zeros before the first.
    pub last_hash: Digest,
}

/// How a block stands to the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is the next one.
    Next,
    /// Its number has been passed.
    Earlier,
    /// There are numbers missing before it.
    Later,
}

/// The block has the right number and does not continue the chain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Broken {
    /// Another stream's block.
    #[error("block {seq} belongs to stream {found}, not {expected}")]
    OtherStream {
        /// Which block.
        seq: Seq,
        /// Its stream.
        found: StreamId,
        /// This stream.
        expected: StreamId,
    },
    /// It names another block as the one before it.
    #[error(
        "block {seq} continues a header with hash {found}, but the stream's last has {expected}"
    )]
    OtherPast {
        /// Which block.
        seq: Seq,
        /// The hash that it names.
        found: Digest,
        /// The hash of the last header.
        expected: Digest,
    },
}

impl Chain {
    /// A stream without a block.
    #[must_use]
    pub fn new(stream: StreamId) -> Self {
        Self { stream, next_seq: Seq(0), last_hash: Digest::ZERO }
    }

    /// Where a block with this number stands.
    #[must_use]
    pub fn place(&self, seq: Seq) -> Place {
        match seq.cmp(&self.next_seq) {
            std::cmp::Ordering::Less => Place::Earlier,
            std::cmp::Ordering::Equal => Place::Next,
            std::cmp::Ordering::Greater => Place::Later,
        }
    }

    /// Does the block continue the chain? It must have the next number.
    ///
    /// # Errors
    /// It is another stream's, or names another past.
    pub fn check(&self, block: &Block) -> Result<(), Broken> {
        let header = &block.header;
        if header.stream != self.stream {
            return Err(Broken::OtherStream {
                seq: header.seq,
                found: header.stream,
                expected: self.stream,
            });
        }
        if header.prev != self.last_hash {
            return Err(Broken::OtherPast {
                seq: header.seq,
                found: header.prev,
                expected: self.last_hash,
            });
        }
        Ok(())
    }

    /// Goes on by one block, which [`Self::check`] has let pass.
    pub fn advance(&mut self, block: &Block) {
        self.next_seq = block.header.seq.next();
        self.last_hash = block.hash();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use custody_event::block::{Accounts, Placement, Sealer};
    use custody_event::{AgentId, KeyId, Timestamp};

    pub(crate) fn block(seq: u64, prev: Digest, key: KeyId) -> Block {
        let times = (Timestamp::Y2020, Timestamp::Y2020);
        Sealer::new().unwrap().seal(b"{}\n", times, [0; 32]).unwrap().place(
            Placement {
                agent: AgentId([1; 16]),
                host: "h".into(),
                key,
                stream: StreamId([2; 16]),
                seq: Seq(seq),
                prev,
                sealed: Timestamp::Y2020,
            },
            Accounts::default(),
        )
    }

    #[test]
    fn only_the_true_continuation_passes() {
        let mut chain = Chain::new(StreamId([2; 16]));
        let first = block(0, Digest::ZERO, KeyId([0; 8]));
        assert_eq!(chain.place(Seq(0)), Place::Next);
        assert_eq!(chain.check(&first), Ok(()));
        chain.advance(&first);
        assert_eq!(chain.place(Seq(0)), Place::Earlier);
        assert_eq!(chain.place(Seq(2)), Place::Later);
        let second = block(1, first.hash(), KeyId([0; 8]));
        assert_eq!(chain.check(&second), Ok(()));
        let forged = block(1, Digest::of(b"other"), KeyId([0; 8]));
        assert!(matches!(chain.check(&forged), Err(Broken::OtherPast { .. })));
        assert!(Chain::new(StreamId([9; 16])).check(&first).is_err());
    }
}
