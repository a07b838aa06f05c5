//! The log under everything that can happen to its files.

mod damage;
mod memory_loss;
mod order;
mod trouble;

use std::path::Path;
use std::sync::Arc;

use custody_event::{Block, SystemClock};

use super::*;
use crate::testing::TestStream;

/// Small enough that every block begins a segment.
const TINY: u64 = 1;
const LARGE: u64 = 256 * 1024 * 1024;

fn open_with(root: &Path, options: &Options) -> (EvidenceLog, Opening) {
    EvidenceLog::open(root, options, Arc::new(SystemClock::new())).unwrap()
}

fn open(root: &Path, segment_bytes: u64) -> EvidenceLog {
    open_with(root, &Options::new(segment_bytes)).0
}

fn checked(block: &Block) -> Arc<Checked> {
    Arc::new(Checked {
        block: block.clone(),
        bytes: block.encode().unwrap(),
        coverage: block.coverage().unwrap(),
        keys_version: 0,
        _permit: None,
    })
}

/// Submits until there is an answer.
fn offer(log: &EvidenceLog, block: &Block) -> Outcome {
    let checked = checked(block);
    for _ in 0..100 {
        let outcome = log.submit(&checked).unwrap().blocking_recv().unwrap();
        if outcome != Outcome::Recheck {
            return outcome;
        }
    }
    Outcome::Recheck
}

fn store(log: &EvidenceLog, block: &Block) {
    assert_eq!(offer(log, block), Outcome::Stored { next_seq: block.header.seq.next() });
}

fn all(log: &EvidenceLog) -> Vec<StoredBlock> {
    let mut found = Vec::new();
    let mut from = LogCursor::default();
    while let Some(stored) = log.next_from(from).unwrap() {
        from = stored.next;
        found.push(stored);
    }
    found
}

/// A stream of this many blocks with one small event each.
fn stream(agent: u8, stream: u8, blocks: usize) -> Vec<Block> {
    let mut stream = TestStream::new(agent, stream, "aa");
    (0..blocks)
        .map(|number| {
            stream.own_event(&format!("event {number}"));
            stream.seal()
        })
        .collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn segments(root: &Path) -> Vec<std::path::PathBuf> {
    segment::list(root).unwrap().into_iter().map(|segment| segment.path).collect()
}

#[test]
fn what_is_stored_is_read_back_in_order_over_segments_and_openings() {
    for segment_bytes in [TINY, LARGE] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("evidence");
        let blocks = stream(1, 1, 6);
        {
            let log = open(&root, segment_bytes);
            blocks[..3].iter().for_each(|block| store(&log, block));
        }
        let log = open(&root, segment_bytes);
        blocks[3..].iter().for_each(|block| store(&log, block));
        let found = all(&log);
        let read: Vec<&Block> = found.iter().map(|stored| &stored.block).collect();
        assert_eq!(read, blocks.iter().collect::<Vec<_>>());
        for stored in &found {
            assert_eq!(log.read_at(stored.at).unwrap().block, stored.block);
        }
        assert_eq!(log.next_from(*log.durable_end().borrow()).unwrap().map(|s| s.at), None);
        let expected = if segment_bytes == TINY { 6 } else { 1 };
        assert_eq!(segments(&root).len(), expected);
        drop(log);
        let key = crate::testing::TestStream::new(1, 1, "aa").key.public();
        let report = verify::verify(&root, &|_, _| Some(key.clone())).unwrap();
        assert!(report.is_good(), "{:?}", report.problems);
        assert_eq!((report.blocks, report.events), (6, 6));
    }
}
