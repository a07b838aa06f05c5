use super::*;
use crate::store::evidence::recover::recover;

/// Three blocks in one segment; where their frames end.
fn three(root: &Path) -> Vec<u64> {
    let log = open(root, LARGE);
    let blocks = stream(1, 1, 3);
    blocks.iter().for_each(|block| store(&log, block));
    all(&log).iter().map(|stored| stored.next.offset).collect()
}

/// Blocks that are there after opening, or that it is refused.
fn reopened(root: &Path) -> Result<(u64, Option<Cut>), StoreError> {
    let found = recover(root, &SystemClock::new())?;
    let blocks = found.ledger.streams().iter().map(|stream| stream.chain.next_seq.get()).sum();
    Ok((blocks, found.cut))
}

#[test]
fn a_tail_cut_at_any_byte_loses_no_acknowledged_block_silently() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    let ends = three(&root);
    for keep in (ends[0]..=ends[2]).rev() {
        let other = folder.path().join("cut");
        copy(&root, &other);
        let segment = segments(&other).remove(0);
        std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(keep).unwrap();
        if keep < ends[2] {
            // All three were acknowledged, and the mark says so.
            assert!(matches!(reopened(&other), Err(StoreError::Damaged { .. })), "{keep}");
            assert_eq!(std::fs::metadata(&segment).unwrap().len(), keep, "nothing is touched");
        }
        // A crash between write and sync: the mark knows nothing of the last two.
        std::fs::remove_file(other.join("durable")).unwrap();
        let (blocks, cut) = reopened(&other).unwrap();
        let whole = ends.iter().filter(|end| **end <= keep).count() as u64;
        assert_eq!(blocks, whole, "cut at {keep}");
        assert_eq!(cut.is_some(), !ends.contains(&keep), "cut at {keep}");
        let (blocks, cut) = reopened(&other).unwrap();
        assert_eq!((blocks, cut), (whole, None), "a second opening finds nothing to cut");
        std::fs::remove_dir_all(&other).unwrap();
    }
}

#[test]
fn a_flipped_byte_anywhere_in_acknowledged_evidence_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    let ends = three(&root);
    let segment = segments(&root).remove(0);
    let good = std::fs::read(&segment).unwrap();
    let mark = std::fs::read(root.join("durable")).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(&segment, &bad).unwrap();
        let found = reopened(&root);
        assert!(matches!(found, Err(StoreError::Damaged { .. })), "byte {at}");
        // Without the mark only the very last frame could be a torn one.
        std::fs::remove_file(root.join("durable")).unwrap();
        match reopened(&root) {
            Err(StoreError::Damaged { .. }) => assert!((at as u64) < ends[1], "byte {at}"),
            Ok((2, Some(_))) => assert!(at as u64 >= ends[1], "byte {at}"),
            other => panic!("byte {at}: {other:?}"),
        }
        std::fs::write(root.join("durable"), &mark).unwrap();
    }
    std::fs::write(&segment, &good).unwrap();
    assert_eq!(reopened(&root).unwrap(), (3, None));
}

#[test]
fn verify_says_where_every_flipped_byte_is() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    three(&root);
    let segment = segments(&root).remove(0);
    let good = std::fs::read(&segment).unwrap();
    let key = TestStream::new(1, 1, "aa").key.public();
    for at in (0..good.len()).step_by(3) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&segment, &bad).unwrap();
        let report = verify::verify(&root, &|_, _| Some(key.clone())).unwrap();
        assert!(!report.is_good(), "byte {at}");
        assert!(report.problems[0].contains("0000000000.seg: byte "), "{:?}", report.problems);
    }
}

#[test]
fn verify_finds_a_block_signed_by_another_key() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    three(&root);
    let other = TestStream::new(2, 1, "aa").key.public();
    let report = verify::verify(&root, &|_, _| Some(other.clone())).unwrap();
    assert_eq!((report.blocks, report.problem_count), (0, 3));
    let report = verify::verify(&root, &|_, _| None).unwrap();
    assert_eq!(report.problem_count, 3);
}

#[test]
fn unfinished_frames_behind_the_mark_are_cut_and_the_stream_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    let blocks = stream(1, 1, 4);
    let log = open(&root, LARGE);
    blocks[..3].iter().for_each(|block| store(&log, block));
    drop(log);
    let segment = segments(&root).remove(0);
    let whole = std::fs::read(&segment).unwrap();
    let mut frame = Vec::new();
    let receipt =
        crate::store::Receipt { held: Vec::new(), received: custody_event::Timestamp::Y2020 };
    frame::push(&receipt, &blocks[3].encode().unwrap(), &mut frame).unwrap();
    for len in 0..frame.len() {
        // Also what a crash may leave on file systems that order nothing: zeros.
        for filler in [false, true] {
            let mut bytes = whole.clone();
            bytes.extend_from_slice(&frame[..len]);
            if filler {
                bytes.resize(whole.len() + frame.len() + 100, 0);
            }
            std::fs::write(&segment, &bytes).unwrap();
            let (blocks, cut) = reopened(&root).unwrap();
            assert_eq!(blocks, 3);
            assert_eq!(cut.is_some(), bytes.len() > whole.len(), "{len}");
        }
    }
    // A whole frame that was not acknowledged is as good as acknowledged.
    std::fs::write(&segment, [&whole[..], &frame[..]].concat()).unwrap();
    assert_eq!(reopened(&root).unwrap(), (4, None));
}

#[test]
fn damage_in_a_closed_segment_is_refused_when_its_sidecar_does_not_vouch_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    let log = open(&root, TINY);
    stream(1, 1, 3).iter().for_each(|block| store(&log, block));
    drop(log);
    let first = segments(&root).remove(0);
    let good = std::fs::read(&first).unwrap();
    let mut bad = good.clone();
    bad[200] ^= 1;
    std::fs::write(&first, &bad).unwrap();
    // The sidecar fits the length: the start does not read old bodies, a reader finds it.
    let log = open(&root, TINY);
    let found = log.next_from(LogCursor::default());
    assert!(matches!(found, Err(StoreError::Damaged { .. })));
    drop(log);
    std::fs::remove_file(first.with_extension("idx")).unwrap();
    assert!(matches!(reopened(&root), Err(StoreError::Damaged { .. })));
    // Shorter than the next segment says.
    std::fs::write(&first, &good[..good.len() - 1]).unwrap();
    assert!(matches!(reopened(&root), Err(StoreError::Damaged { .. })));
    std::fs::remove_file(&first).unwrap();
    assert!(reopened(&root).is_err(), "a missing first segment is told by the chain");
    std::fs::write(&first, &good).unwrap();
    assert_eq!(reopened(&root).unwrap().0, 3);
}

#[test]
fn a_missing_last_segment_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    let log = open(&root, TINY);
    stream(1, 1, 3).iter().for_each(|block| store(&log, block));
    drop(log);
    for path in segments(&root).into_iter().rev() {
        std::fs::remove_file(path).unwrap();
        assert!(matches!(reopened(&root), Err(StoreError::Damaged { .. })));
    }
}

#[test]
fn sidecars_missing_or_wrong_are_made_again_with_the_same_content() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    let log = open(&root, TINY);
    stream(1, 1, 4).iter().for_each(|block| store(&log, block));
    drop(log);
    let paths = segments(&root);
    let sidecar = paths[1].with_extension("idx");
    let good = std::fs::read(&sidecar).unwrap();
    assert_eq!(open_with(&root, &Options::new(TINY)).1.sidecars_made, 0);
    std::fs::write(&sidecar, b"CIDX").unwrap();
    std::fs::remove_file(paths[0].with_extension("idx")).unwrap();
    let (log, opening) = open_with(&root, &Options::new(TINY));
    assert_eq!((opening.sidecars_made, opening.streams), (2, 1));
    assert_eq!(std::fs::read(&sidecar).unwrap(), good);
    assert_eq!(all(&log).len(), 4);
}

#[test]
fn a_segment_caught_at_its_birth_gets_its_header() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    let blocks = stream(1, 1, 3);
    let log = open(&root, LARGE);
    blocks[..2].iter().for_each(|block| store(&log, block));
    drop(log);
    let first = segments(&root).remove(0);
    let next = first.with_file_name("0000000001.seg");
    for len in [0, 1, 63] {
        std::fs::write(&next, vec![b'C'; len]).unwrap();
        assert_eq!(reopened(&root).unwrap(), (2, None), "{len}");
    }
    let log = open(&root, LARGE);
    store(&log, &blocks[2]);
    drop(log);
    assert_eq!(reopened(&root).unwrap().0, 3);
}
