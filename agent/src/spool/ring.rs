//! The newest durable blocks in memory, so that a live output never reads them from disk again.

use std::collections::VecDeque;

use bytes::Bytes;

/// A run of consecutive blocks, bounded in bytes.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    max_bytes: u64,
    bytes: u64,
    blocks: VecDeque<(u64, Bytes)>,
}

fn len(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl Ring {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, ..Self::default() }
    }

    pub(crate) fn push(&mut self, seq: u64, block: Bytes) {
        if self.blocks.back().is_some_and(|(last, _)| last + 1 != seq) {
            self.clear();
        }
        self.bytes += len(&block);
        self.blocks.push_back((seq, block));
        while self.bytes > self.max_bytes {
            let Some((_, old)) = self.blocks.pop_front() else { break };
            self.bytes -= len(&old);
        }
    }

    pub(crate) fn get(&self, seq: u64) -> Option<Bytes> {
        let (first, _) = self.blocks.front()?;
        let at = usize::try_from(seq.checked_sub(*first)?).ok()?;
        self.blocks.get(at).map(|(_, block)| block.clone())
    }

    pub(crate) fn drop_below(&mut self, seq: u64) {
        while self.blocks.front().is_some_and(|(first, _)| *first < seq) {
            if let Some((_, old)) = self.blocks.pop_front() {
                self.bytes -= len(&old);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.blocks.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_a_consecutive_run_within_its_bytes() {
        let mut ring = Ring::new(10);
        for seq in 5..9 {
            ring.push(seq, vec![0_u8; 4].into());
        }
        assert_eq!((5..10).filter(|seq| ring.get(*seq).is_some()).collect::<Vec<_>>(), [7, 8]);
        ring.push(20, vec![0_u8; 4].into());
        assert!(ring.get(8).is_none() && ring.get(20).is_some());
        ring.drop_below(21);
        assert!(ring.get(20).is_none() && ring.bytes == 0);
    }
}
