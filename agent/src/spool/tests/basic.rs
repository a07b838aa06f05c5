//! The contract, on a real sled store.

use std::time::Duration;

use super::super::{Batch, SpoolError, SpooledBlock, inspect, trailing_crc};
use super::*;

const LEN: usize = 100_000;

#[test]
fn appended_blocks_and_positions_survive_reopening_and_acknowledged_ones_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(64 << 20);
    let (spool, opened) = open(dir.path(), &options);
    assert!(opened.created && opened.next_seq == 0 && opened.needs_restream.is_none());
    spool.register_outputs(&["a", "b"]).wait().unwrap();
    let tickets: Vec<_> = (0..20).map(|seq| spool.append(batch(seq, LEN)).unwrap()).collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!(spool.durable().borrow().next_seq, 20);
    spool.ack("a", 0, 15).unwrap();
    spool.ack("b", 0, 12).unwrap();
    until("deletion", || spool.stats().blocks == 8);
    assert!(spool.read(11).wait().unwrap().is_none());
    shut(spool);

    let (spool, opened) = open(dir.path(), &options);
    assert_eq!((opened.created, opened.first_seq, opened.next_seq), (false, 12, 20));
    assert_eq!(position(&spool), 20);
    for seq in 12..20 {
        assert_eq!(spool.read(seq).wait().unwrap().unwrap(), block(seq, 0, LEN));
    }
    let cursors = spool.register_outputs(&["a", "b", "new"]).wait().unwrap();
    let at: Vec<_> =
        cursors.iter().map(|it| (it.output.as_str(), it.next_seq, it.skipped)).collect();
    assert_eq!(at, [("a", 15, 0), ("b", 12, 0), ("new", 12, 0)]);
    // Without b and new, only a's cursor holds blocks back.
    spool.register_outputs(&["a"]).wait().unwrap();
    until("deletion", || spool.stats().blocks == 5);
    spool.ack("a", 0, 20).unwrap();
    until("deletion", || spool.stats().blocks == 0);
    shut(spool);

    let (spool, opened) = open(dir.path(), &options);
    assert_eq!(opened.next_seq, 20, "the number is kept when all blocks are gone");
    let cursors = spool.register_outputs(&["a", "b"]).wait().unwrap();
    assert_eq!(
        (cursors[1].next_seq, cursors[1].skipped),
        (20, 8),
        "b missed 8 blocks while it was not configured"
    );
    shut(spool);
}

#[test]
fn an_output_that_is_registered_anew_goes_on_after_what_it_has_just_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) =
        open(dir.path(), &Options { ack_delay: Duration::from_secs(3600), ..options(64 << 20) });
    spool.register_outputs(&["a"]).wait().unwrap();
    for seq in 0..4 {
        spool.append(batch(seq, LEN)).unwrap().wait().unwrap();
    }
    spool.ack("a", 0, 3).unwrap();
    assert_eq!(spool.register_outputs(&["a"]).wait().unwrap()[0].next_seq, 3);
    shut(spool);
}

#[test]
fn wrong_batches_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), &options(64 << 20));
    let refused = |batch: Batch| spool.append(batch).map(|_| ()).unwrap_err();
    assert_eq!(refused(batch(1, 10)), SpoolError::OutOfOrder { expected: 0, got: 1 });
    assert!(matches!(refused(batch(0, 2_000_000)), SpoolError::TooLarge { what: "block", .. }));
    let mut torn = block(0, 0, 10).to_vec();
    torn[3] ^= 1;
    let torn =
        Batch { block: Some(SpooledBlock { seq: 0, bytes: torn.into() }), ..Batch::default() };
    assert!(matches!(refused(torn), SpoolError::BadBlock(_)));
    for key in [".next", "~b/", "cursor/a", "dead/1", "|"] {
        let batch = Batch { puts: vec![(key.as_bytes().to_vec(), vec![])], ..Batch::default() };
        assert!(matches!(refused(batch), SpoolError::ReservedKey(_)), "{key}");
    }
    let long =
        Batch { puts: vec![(b"pos/a".to_vec(), vec![0; 24 * 1024 + 1])], ..Batch::default() };
    assert!(matches!(refused(long), SpoolError::TooLarge { what: "value", .. }));
    assert!(matches!(spool.ack("nobody", 0, 0), Err(SpoolError::UnknownOutput(_))));
    spool.register_outputs(&["a"]).wait().unwrap();
    assert!(matches!(spool.ack("a", 0, 1), Err(SpoolError::AckBeyondEnd { .. })));
    assert!(matches!(spool.ack("a", 7, 0), Err(SpoolError::OldStream { .. })));
    spool.append(batch(0, 10)).unwrap().wait().unwrap();
    assert_eq!(position(&spool), 1);
    shut(spool);
}

#[test]
fn the_largest_blocks_are_kept_whole_and_never_become_blob_files() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), &options(256 << 20));
    let len = super::super::MAX_BLOCK_BYTES - 4;
    for seq in 0..60 {
        drop(spool.append(batch(seq, if seq % 2 == 0 { len } else { 65_536 })).unwrap());
    }
    assert!(spool.wait_for(59, Duration::from_secs(60)));
    for seq in 0..60 {
        let expected = block(seq, 0, if seq % 2 == 0 { len } else { 65_536 });
        assert_eq!(spool.read(seq).wait().unwrap().unwrap(), expected, "block {seq}");
    }
    shut(spool);
    assert_eq!(std::fs::read_dir(dir.path().join("store-1/blobs")).unwrap().count(), 0);
}

#[test]
fn a_full_spool_makes_appends_wait_until_acknowledgements_free_room() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), &options(1_000_000));
    spool.register_outputs(&["a"]).wait().unwrap();
    for seq in 0..9 {
        spool.append(batch(seq, LEN)).unwrap().wait().unwrap();
    }
    assert!(spool.would_block(LEN + 4) && spool.is_full(LEN + 4));
    // The owner may just be showing what it has taken, and nobody waits yet: then it is noted again.
    until("the flag", || spool.would_block(LEN + 4) && spool.stats().full_since_unix_ms.is_some());
    let appender = std::thread::spawn({
        let spool = spool.clone();
        move || (9..30).for_each(|seq| spool.append(batch(seq, LEN)).unwrap().wait().unwrap())
    });
    // Positions alone are small and still taken.
    let only = Batch { puts: vec![(b"book/a".to_vec(), b"1".to_vec())], ..Batch::default() };
    spool.append(only).unwrap().wait().unwrap();
    assert_eq!(spool.durable().borrow().next_seq, 9);
    let mut acked = 0;
    while acked < 30 {
        assert!(spool.wait_for(acked, Duration::from_secs(20)), "stuck at {acked}");
        assert_eq!(spool.read(acked).wait().unwrap().unwrap(), block(acked, 0, LEN));
        assert!(spool.stats().bytes <= 1_000_000);
        acked += 1;
        spool.ack("a", 0, acked).unwrap();
    }
    appender.join().unwrap();
    until("the flag to go", || {
        !spool.would_block(LEN) && spool.stats().full_since_unix_ms.is_none()
    });
    shut(spool);
}

#[test]
fn closing_drains_and_a_waiting_append_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(200_000);
    let (spool, _) = open(dir.path(), &options);
    spool.append(batch(0, LEN)).unwrap().wait().unwrap();
    let waiting = std::thread::spawn({
        let spool = spool.clone();
        move || spool.append(batch(1, LEN)).map(|_| ())
    });
    until("the append to wait", || spool.stats().full_since_unix_ms.is_some());
    shut(spool.clone());
    assert_eq!(waiting.join().unwrap(), Err(SpoolError::Closed));
    assert_eq!(spool.read(7).wait(), Ok(None));
    assert_eq!(spool.value(b"pos/a").wait(), Err(SpoolError::Closed));
    drop(spool);
    assert_eq!(open(dir.path(), &options).1.next_seq, 1);
}

#[test]
fn a_second_process_is_refused_with_the_pid_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), &options(1 << 20));
    let error = Spool::open(dir.path(), options(1 << 20), clock()).unwrap_err().to_string();
    let pid = format!("pid {}", std::process::id());
    assert!(
        error.contains("another custody-agent uses this spool") && error.contains(&pid),
        "{error}"
    );
    assert!(matches!(
        inspect(dir.path(), trailing_crc),
        Err(super::super::OpenError::InUse { .. })
    ));
    shut(spool);
}

#[test]
fn what_one_output_refuses_stays_whole_and_is_remembered_until_that_output_is_past_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(64 << 20);
    let (spool, _) = open(dir.path(), &options);
    spool.register_outputs(&["a", "b"]).wait().unwrap();
    for seq in 0..4 {
        spool.append(batch(seq, 400_000)).unwrap().wait().unwrap();
    }
    let told = vec![(b"gap/a".to_vec(), b"2".to_vec())];
    spool.set_aside("a", 2, "413 it is too long", told.clone()).wait().unwrap();
    spool.set_aside("a", 2, "413 again", Vec::new()).wait().unwrap();
    let other = spool.dead_letter(3, block(3, 0, 10), "422").wait().unwrap();
    assert_eq!(spool.set_aside("a", 9, "413", Vec::new()).wait(), Err(SpoolError::NoSuchBlock(9)));
    let ours = vec![(b"refused/a".to_vec(), Vec::new())];
    assert!(matches!(spool.set_aside("a", 3, "413", ours).wait(), Err(SpoolError::ReservedKey(_))));
    shut(spool);
    let (spool, opened) = open(dir.path(), &options);
    assert_eq!((opened.first_seq, opened.next_seq), (0, 4));
    assert_eq!(spool.read(2).wait().unwrap().unwrap(), block(2, 0, 400_000));
    assert_eq!(spool.value(b"gap/a").wait().unwrap().unwrap(), b"2");
    let refused = |spool: &SpoolHandle| {
        let cursors = spool.register_outputs(&["a", "b"]).wait().unwrap();
        cursors.into_iter().map(|cursor| cursor.refused).collect::<Vec<_>>()
    };
    assert_eq!(refused(&spool), [vec![2], vec![]]);
    let letters = spool.dead_letters().wait().unwrap();
    assert_eq!(letters.len(), 2);
    let (id, reason) = (letters[0].id, letters[0].reason.as_str());
    assert_eq!((letters[0].seq, reason, letters[0].len), (2, "a: 413 it is too long", 400_004));
    assert_eq!(letters[1].id, other);
    assert_eq!(spool.read_dead_letter(id).wait().unwrap().unwrap(), block(2, 0, 400_000));
    // The other output's word is not this one's.
    spool.ack("b", 0, 4).unwrap();
    shut(spool);
    let (spool, _) = open(dir.path(), &options);
    assert_eq!(refused(&spool), [vec![2], vec![]]);
    assert_eq!(spool.read(2).wait().unwrap().unwrap(), block(2, 0, 400_000));
    spool.ack("a", 0, 3).unwrap();
    until("the block to go", || spool.stats().first_seq == 3);
    shut(spool);
    let (spool, _) = open(dir.path(), &options);
    assert!(refused(&spool).iter().all(Vec::is_empty));
    assert!(
        spool.remove_dead_letter(id).wait().unwrap()
            && !spool.remove_dead_letter(id).wait().unwrap()
    );
    assert_eq!(spool.read_dead_letter(id).wait().unwrap(), None);
    until("the count", || spool.stats().dead_letters == 1);
    shut(spool);
}

#[test]
fn a_replaced_block_is_replaced_for_good_and_no_other_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(64 << 20);
    let (spool, _) = open(dir.path(), &options);
    for seq in 0..4 {
        spool.append(batch(seq, 400_000)).unwrap().wait().unwrap();
    }
    let other = block(2, 9, 70_000);
    spool.replace_block(2, other.clone()).wait().unwrap();
    assert_eq!(spool.read(2).wait().unwrap().unwrap(), other);
    assert_eq!(spool.replace_block(9, other.clone()).wait(), Err(SpoolError::NoSuchBlock(9)));
    shut(spool);
    let (spool, _) = open(dir.path(), &options);
    assert_eq!(spool.read(2).wait().unwrap().unwrap(), other);
    shut(spool);
}

#[test]
fn a_restream_renumbers_from_zero_and_old_acknowledgements_free_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(64 << 20);
    let (spool, _) = open(dir.path(), &options);
    spool.register_outputs(&["a"]).wait().unwrap();
    let queued: Vec<_> = (0..30).map(|seq| spool.append(batch(seq, LEN)).unwrap()).collect();
    assert!(spool.wait_for(9, Duration::from_secs(20)));
    spool.ack("a", 0, 10).unwrap();
    let refused =
        spool.restream(|_, _, _| Err::<Vec<u8>, _>("no key".to_owned()), Vec::new()).wait();
    assert_eq!(refused, Err(SpoolError::Restream("block 10: no key".to_owned())));
    for ticket in queued {
        ticket.wait().unwrap();
    }
    let meta = vec![(b"meta/stream".to_vec(), b"two".to_vec())];
    let done =
        spool.restream(|_, new, _| Ok(block(new, 5, LEN + 1000).to_vec()), meta).wait().unwrap();
    assert_eq!((done.generation, done.next_seq), (1, 20));
    assert!(matches!(spool.ack("a", 0, 15), Err(SpoolError::OldStream { .. })));
    assert_eq!(spool.stats().blocks, 20);
    spool
        .append(Batch {
            block: Some(SpooledBlock { seq: 20, bytes: block(20, 5, 10) }),
            ..Batch::default()
        })
        .unwrap()
        .wait()
        .unwrap();
    shut(spool);
    let (spool, opened) = open(dir.path(), &options);
    assert_eq!((opened.generation, opened.first_seq, opened.next_seq), (1, 0, 21));
    assert_eq!(spool.value(b"meta/stream").wait().unwrap().unwrap(), b"two");
    assert_eq!(spool.register_outputs(&["a"]).wait().unwrap()[0].next_seq, 0);
    for seq in 0..20 {
        assert_eq!(spool.read(seq).wait().unwrap().unwrap(), block(seq, 5, LEN + 1000));
    }
    shut(spool);
}

#[test]
fn a_store_that_has_grown_is_recreated_small() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { recreate_min_bytes: 20 << 20, ..options(64 << 20) };
    let (spool, _) = open(dir.path(), &options);
    spool.register_outputs(&["a"]).wait().unwrap();
    let kept = spool.dead_letter(0, block(77, 0, 200_000), "kept").wait().unwrap();
    for seq in 0..8 {
        spool.append(batch(seq, LEN)).unwrap().wait().unwrap();
    }
    // sled's file grows with what is in it: with what outputs have refused.
    for _ in 0..40 {
        spool.dead_letter(0, block(78, 0, 1_000_000), "refused").wait().unwrap();
    }
    assert!(spool.stats().disk_bytes > 20 << 20);
    for letter in spool.dead_letters().wait().unwrap() {
        assert!(letter.id == kept || spool.remove_dead_letter(letter.id).wait().unwrap());
    }
    spool.ack("a", 0, 7).unwrap();
    until("the block to go", || spool.stats().first_seq == 7);
    assert_eq!(spool.stats().recreated, 0, "while something is held");
    spool.ack("a", 0, 8).unwrap();
    until("the rebuild", || spool.stats().recreated > 0 && spool.stats().disk_bytes < 20 << 20);
    spool.append(batch(8, LEN)).unwrap().wait().unwrap();
    assert_eq!(position(&spool), 9);
    shut(spool);
    let (spool, opened) = open(dir.path(), &options);
    assert_eq!((opened.first_seq, opened.next_seq, opened.quarantined), (8, 9, None));
    assert_eq!(spool.dead_letters().wait().unwrap().len(), 1);
    assert_eq!(spool.read_dead_letter(kept).wait().unwrap().unwrap(), block(77, 0, 200_000));
    assert_eq!(spool.register_outputs(&["a"]).wait().unwrap()[0].next_seq, 8);
    shut(spool);
}

#[test]
fn a_crash_at_any_step_of_recreating_leaves_one_live_store() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(64 << 20);
    let (spool, _) = open(dir.path(), &options);
    spool.append(batch(0, LEN)).unwrap().wait().unwrap();
    shut(spool);
    // Before the switch: a half-built folder beside the live one. After: the old one beside it.
    for (live, left) in [(1, 2), (2, 1)] {
        let case = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), case.path());
        if live == 2 {
            std::fs::rename(case.path().join("store-1"), case.path().join("store-2")).unwrap();
            std::fs::write(case.path().join("current"), "store-2\n").unwrap();
        }
        std::fs::create_dir_all(case.path().join(format!("store-{left}/blobs"))).unwrap();
        std::fs::write(case.path().join(format!("store-{left}/db")), b"half").unwrap();
        let (spool, opened) = open(case.path(), &options);
        assert_eq!((opened.next_seq, opened.quarantined, opened.rolled_back), (1, None, None));
        assert!(!case.path().join(format!("store-{left}")).try_exists().unwrap());
        shut(spool);
        // And without the name at all, the ledger knows which.
        std::fs::remove_file(case.path().join("current")).unwrap();
        let (spool, opened) = open(case.path(), &options);
        assert_eq!(opened.next_seq, 1);
        shut(spool);
    }
}

#[test]
fn inspection_lists_reads_and_verifies_without_changing_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(64 << 20);
    let (spool, _) = open(dir.path(), &options);
    for seq in 0..5 {
        spool.append(batch(seq, LEN)).unwrap().wait().unwrap();
    }
    spool.dead_letter(1, block(1, 0, 100), "422").wait().unwrap();
    shut(spool);
    let mut inspector = inspect(dir.path(), trailing_crc).unwrap();
    let list: Vec<_> =
        inspector.blocks().unwrap().into_iter().map(|it| (it.seq, it.len, it.error)).collect();
    assert_eq!(list, (0..5).map(|seq| (seq, 100_004, None)).collect::<Vec<_>>());
    assert_eq!(inspector.read(3).unwrap().unwrap(), block(3, 0, LEN));
    assert_eq!(inspector.read(5).unwrap(), None);
    assert_eq!(inspector.dead_letters().unwrap()[0].reason, "422");
    let report = inspector.verify().unwrap();
    assert_eq!((report.sound, report.problems.len()), (5, 0), "{:?}", report.problems);
    drop(inspector);
    assert_eq!(open(dir.path(), &options).1.next_seq, 5);
    assert!(inspect(&dir.path().join("nowhere"), trailing_crc).is_err());
}

#[test]
fn async_outputs_see_durable_blocks_only_and_can_await_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), &options(64 << 20));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut durable = spool.durable();
        assert_eq!(spool.read(0).await.unwrap(), None);
        let ticket = spool.append(batch(0, LEN)).unwrap();
        durable.wait_for(|durable| durable.next_seq > 0).await.unwrap();
        assert_eq!(spool.read(0).await.unwrap().unwrap(), block(0, 0, LEN));
        ticket.await.unwrap();
        assert_eq!(spool.value(b"pos/a").await.unwrap().unwrap(), 1_u64.to_be_bytes());
    });
    shut(spool);
}
