//! A store that fails at every possible call.

use std::time::Duration;

use super::super::{Incident, Slot, SpoolError, StoreError};
use super::fake::{FakeFactory, Fault, SharedDisk};
use super::*;

fn open_fake(dir: &Path, disk: &SharedDisk) -> (SpoolHandle, Opened) {
    let factory = Box::new(FakeFactory(disk.clone()));
    Spool::open_with(dir, options(1 << 20), clock(), factory).unwrap()
}

/// A small life: appends, acknowledgements, a refused block, a restream, more appends.
/// Returns how many store calls it made.
fn life(dir: &Path, disk: &SharedDisk) -> u64 {
    let (spool, opened) = open_fake(dir, disk);
    assert_eq!(opened.next_seq, 0);
    spool.register_outputs(&["a"]).wait().unwrap();
    let tickets: Vec<_> = (0..6).map(|seq| spool.append(batch(seq, 1000)).unwrap()).collect();
    for (seq, ticket) in (0..).zip(tickets) {
        ticket.wait().unwrap();
        assert!(spool.read(seq).wait().unwrap().unwrap() == block(seq, 0, 1000));
    }
    spool.ack("a", 0, 3).unwrap();
    until("deletion", || spool.stats().blocks == 3);
    spool.set_aside("a", 4, "413", vec![(b"meta/x".to_vec(), b"1".to_vec())]).wait().unwrap();
    assert!(spool.read(4).wait().unwrap().unwrap() == block(4, 0, 1000));
    assert!(spool.read(5).wait().unwrap().unwrap() == block(5, 0, 1000));
    let done =
        spool.restream(|_, new, _| Ok(block(new, 2, 700).to_vec()), Vec::new()).wait().unwrap();
    assert_eq!(done.next_seq, 3);
    for seq in 3..6 {
        let bytes = block(seq, 2, 700);
        let batch = Batch {
            block: Some(SpooledBlock { seq, bytes }),
            puts: batch(seq, 1).puts,
            deletes: Vec::new(),
        };
        spool.append(batch).unwrap().wait().unwrap();
    }
    shut(spool);
    disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner).calls()
}

#[test]
fn an_error_or_panic_at_any_single_call_loses_and_repeats_nothing() {
    let calls = life(tempfile::tempdir().unwrap().path(), &SharedDisk::default());
    assert!(calls > 20, "only {calls} calls");
    for fault in [Fault::Error, Fault::ErrorAfter, Fault::Panic, Fault::PowerCut, Fault::Full] {
        // The calls of the first opening are the business of `open`, which returns the error.
        for call in 3..calls {
            let (dir, disk) = (tempfile::tempdir().unwrap(), SharedDisk::default());
            disk.lock().unwrap().faults.insert(call, fault);
            life(dir.path(), &disk);
            disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner).faults.clear();
            let (spool, opened) = open_fake(dir.path(), &disk);
            assert_eq!(
                (opened.first_seq, opened.next_seq, &opened.quarantined),
                (0, 6, &None),
                "{fault:?} at {call}"
            );
            assert!(
                opened.rolled_back.is_none() && opened.needs_restream.is_none(),
                "{fault:?} at {call}"
            );
            assert_eq!(position(&spool), 6);
            for seq in 0..6 {
                assert_eq!(
                    spool.read(seq).wait().unwrap().unwrap(),
                    block(seq, 2, 700),
                    "{fault:?} at {call}"
                );
            }
            assert_eq!(spool.dead_letters().wait().unwrap().len(), 1, "{fault:?} at {call}");
            assert_eq!(spool.value(b"meta/x").wait().unwrap().unwrap(), b"1");
            let cursors = spool.register_outputs(&["a"]).wait().unwrap();
            assert!(cursors[0].refused.is_empty(), "{fault:?} at {call}: of the stream before");
            shut(spool);
        }
    }
}

#[test]
fn a_store_that_fails_again_and_again_is_retried_with_pauses_and_told_in_stats() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SharedDisk::default());
    let (spool, _) = open_fake(dir.path(), &disk);
    let opens = disk.lock().unwrap().opens;
    disk.lock().unwrap().closed = Some(StoreError::Full("no space to open".to_owned()));
    let next = disk.lock().unwrap().calls();
    disk.lock().unwrap().faults.insert(next, Fault::Error);
    let ticket = spool.append(batch(0, 100)).unwrap();
    until("the reason", || {
        spool.stats().waiting.is_some_and(|why| why.contains("no space to open"))
    });
    // Whoever would rather drop than wait has no reason to: nothing is full.
    assert!(spool.would_block(100) && !spool.is_full(100));
    disk.lock().unwrap().closed = None;
    ticket.wait().unwrap();
    assert_eq!(disk.lock().unwrap().opens, opens + 1);
    assert_eq!(spool.stats().reopened, 1);
    until("the reason to go", || spool.stats().waiting.is_none());
    shut(spool);
}

#[test]
fn a_full_disk_is_waited_out_with_reads_and_acknowledgements_going_on() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SharedDisk::default());
    let (spool, _) = open_fake(dir.path(), &disk);
    spool.register_outputs(&["a"]).wait().unwrap();
    for seq in 0..4 {
        spool.append(batch(seq, 100)).unwrap().wait().unwrap();
    }
    disk.lock().unwrap().full = true;
    let ticket = spool.append(batch(4, 100)).unwrap();
    until("the reason", || {
        spool.stats().waiting.is_some_and(|why| why.starts_with("no disk space"))
    });
    assert!(spool.would_block(100) && spool.is_full(100));
    assert!(spool.stats().full_since_unix_ms.is_some());
    assert_eq!(spool.read(1).wait().unwrap().unwrap(), block(1, 0, 100));
    assert!(spool.value(b"pos/a").wait().unwrap().is_some());
    spool.ack("a", 0, 2).unwrap();
    until("deletion", || spool.stats().blocks == 2);
    disk.lock().unwrap().full = false;
    ticket.wait().unwrap();
    until("the reason to go", || spool.stats().waiting.is_none());
    assert_eq!(spool.stats().reopened, 0);
    shut(spool);
}

#[test]
fn closing_on_a_full_disk_ends_in_time_and_admits_what_is_missing() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SharedDisk::default());
    let (spool, _) = open_fake(dir.path(), &disk);
    disk.lock().unwrap().full = true;
    let ticket = spool.append(batch(0, 100)).unwrap();
    assert!(!spool.close(Duration::from_millis(100)));
    assert_eq!(ticket.wait(), Err(SpoolError::Closed));
    until("the lock", || super::super::inspect::take_lock(dir.path()).is_ok());
}

#[test]
fn a_block_that_rots_while_running_is_put_aside_and_the_rest_lives_on_in_a_new_stream() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SharedDisk::default());
    let (spool, _) = open_fake(dir.path(), &disk);
    for seq in 0..8 {
        spool.append(batch(seq, 900_000 / 8)).unwrap().wait().unwrap();
    }
    shut(spool);
    let (spool, _) = open_fake(dir.path(), &disk);
    disk.lock().unwrap().corrupt(Slot::Block { generation: 0, seq: 3 });
    assert_eq!(spool.read(3).wait().unwrap(), None);
    let incidents = spool.take_incidents();
    let [Incident::Quarantined(quarantined)] = incidents.as_slice() else {
        panic!("{incidents:?}")
    };
    assert_eq!(quarantined.salvaged_blocks, 7);
    assert_eq!(quarantined.lost_seqs, std::slice::from_ref(&(3..4)));
    assert!(quarantined.reason.contains("block 3: checksum"), "{}", quarantined.reason);
    assert!(quarantined.path.join(".").try_exists().unwrap());
    assert!(matches!(spool.append(batch(8, 10)).map(|_| ()), Err(SpoolError::NeedsRestream(_))));
    let done =
        spool.restream(|old, new, _| Ok(block(new, old, 10).to_vec()), Vec::new()).wait().unwrap();
    assert_eq!(done.next_seq, 7);
    assert_eq!(spool.read(3).wait().unwrap().unwrap(), block(3, 4, 10));
    assert_eq!(position(&spool), 8);
    spool.append(batch(7, 10)).unwrap().wait().unwrap();
    shut(spool);
}

#[test]
fn a_store_that_forgets_what_it_synced_is_found_out_while_running_and_at_start() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SharedDisk::default());
    let (spool, _) = open_fake(dir.path(), &disk);
    spool.append(batch(0, 100)).unwrap().wait().unwrap();
    spool.append(batch(1, 100)).unwrap().wait().unwrap();
    until("the ledger", || {
        std::fs::metadata(dir.path().join("ledger")).is_ok_and(|meta| meta.len() > 0)
    });
    shut(spool);
    *disk.lock().unwrap() = super::fake::Disk::default();
    let (spool, opened) = open_fake(dir.path(), &disk);
    let rolled_back = opened.rolled_back.unwrap();
    assert_eq!((rolled_back.ledger_next_seq, rolled_back.store_next_seq), (2, 0));
    assert!(matches!(spool.append(batch(0, 10)).map(|_| ()), Err(SpoolError::NeedsRestream(_))));
    shut(spool);
    let (spool, opened) = open_fake(dir.path(), &disk);
    assert!(opened.needs_restream.is_some(), "asking again does not make it whole");
    spool.restream(|_, _, bytes| Ok(bytes.to_vec()), Vec::new()).wait().unwrap();
    spool.append(batch(0, 10)).unwrap().wait().unwrap();
    shut(spool);
    assert!(open_fake(dir.path(), &disk).1.needs_restream.is_none());
}

#[test]
fn a_call_that_hangs_is_seen_from_outside() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SharedDisk::default());
    let slow = Options { stuck_after: Duration::from_millis(30), ..options(1 << 20) };
    let (spool, _) =
        Spool::open_with(dir.path(), slow, clock(), Box::new(FakeFactory(disk.clone()))).unwrap();
    let held = disk.lock().unwrap();
    let ticket = spool.append(batch(0, 100)).unwrap();
    until("stuck", || spool.stats().stuck_since_unix_ms.is_some());
    drop(held);
    ticket.wait().unwrap();
    until("not stuck", || spool.stats().stuck_since_unix_ms.is_none());
    shut(spool);
}
