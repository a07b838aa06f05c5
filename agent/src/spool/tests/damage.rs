//! Damaged, restored and interfered-with stores: opening always ends with a usable spool.

use std::fs;

use super::super::{Incident, OpenError};
use super::*;

const BLOCKS: u64 = 24;
const LEN: usize = 100_000;

const DB: &str = "store-1/db";
/// All bodies are in the file of the first opening; those that were acknowledged at its beginning.
const BODIES: &str = "store-1/bodies/0000000000000001";

/// A closed spool with a backlog.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), &options(64 << 20));
    spool.register_outputs(&["a"]).wait().unwrap();
    for seq in 0..BLOCKS {
        spool.append(batch(seq, LEN)).unwrap().wait().unwrap();
    }
    spool.ack("a", 0, 4).unwrap();
    shut(spool);
    // Opened once more, so that there is a snapshot.
    shut(open(dir.path(), &options(64 << 20)).0);
    dir
}

/// Opens a damaged spool and checks that it tells the truth; returns whether it noticed anything.
fn judge(dir: &Path, what: &str) -> bool {
    let (spool, opened) = open(dir, &options(64 << 20));
    let noticed = opened.quarantined.is_some() || opened.rolled_back.is_some();
    assert_eq!(noticed, opened.needs_restream.is_some(), "{what}");
    if let Some(quarantined) = &opened.quarantined {
        assert!(quarantined.path.join("db").try_exists().unwrap(), "{what}: nothing in quarantine");
        let lost: u64 = quarantined.lost_seqs.iter().map(|range| range.end - range.start).sum();
        assert!(lost + quarantined.salvaged_blocks >= BLOCKS - 4, "{what}: {quarantined:?}");
    }
    if !noticed {
        assert_eq!((opened.next_seq, position(&spool)), (BLOCKS, BLOCKS), "{what}");
        for seq in 4..BLOCKS {
            assert!(
                spool.read(seq).wait().unwrap().unwrap() == block(seq, 0, LEN),
                "{what}: block {seq}"
            );
        }
    }
    let next = if noticed {
        let map = |old, new, bytes: &[u8]| {
            if bytes == &*block(old, 0, LEN) {
                Ok(block(new, 0, LEN).to_vec())
            } else {
                Err("not what was written".to_owned())
            }
        };
        spool.restream(map, Vec::new()).wait().unwrap().next_seq
    } else {
        opened.next_seq
    };
    spool.append(batch(next, 10)).unwrap().wait().unwrap();
    shut(spool);
    // Opened twice: the repair is done, nothing is noticed again.
    let (spool, opened) = open(dir, &options(64 << 20));
    assert!(opened.quarantined.is_none() && opened.needs_restream.is_none(), "{what}: {opened:?}");
    assert_eq!(opened.next_seq, next + 1, "{what}");
    shut(spool);
    noticed
}

fn damaged(from: &Path, what: &str, file: &str, bytes: &[u8]) -> bool {
    let case = tempfile::tempdir().unwrap();
    copy_dir(from, case.path());
    fs::write(case.path().join(file), bytes).unwrap();
    judge(case.path(), &format!("{file}: {what}"))
}

/// A small generator with a fixed seed: the same places in every run.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap()
}

#[test]
fn flipped_bytes_anywhere_are_survived_and_never_read_as_sound() {
    let dir = filled();
    let mut state = 1;
    for file in [DB, BODIES] {
        let (whole, mut noticed) = (fs::read(dir.path().join(file)).unwrap(), 0);
        // sled's file is mostly room for later.
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for n in 0..100 {
            let mut bad = whole.clone();
            let at = random(&mut state) % used;
            for byte in &mut bad[at..(at + 1 + n % 64).min(used)] {
                *byte ^= 1 << (n % 8);
            }
            let what = format!("flip {n} at {at}");
            noticed += usize::from(damaged(dir.path(), &what, file, &bad));
        }
        assert!(
            noticed > 20,
            "only {noticed} of 100 flips in the {used} bytes of {file} were noticed"
        );
    }
}

#[test]
fn a_damaged_header_of_a_segment_is_noticed_before_anything_is_written_behind_it() {
    let dir = filled();
    let whole = fs::read(dir.path().join(DB)).unwrap();
    for at in [0, 2, 4, 11, 12, 19] {
        let mut bad = whole.clone();
        bad[at..(at + 10).min(20)].iter_mut().for_each(|byte| *byte ^= 2);
        assert!(damaged(dir.path(), &format!("header flipped at {at}"), DB, &bad), "{at}");
    }
}

#[test]
fn files_cut_short_anywhere_are_survived() {
    let dir = filled();
    let mut state = 2;
    for file in [DB, BODIES] {
        let (whole, mut noticed) = (fs::read(dir.path().join(file)).unwrap(), 0);
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for n in 0..25 {
            let len = random(&mut state) % used;
            let what = format!("cut {n} to {len}");
            noticed += usize::from(damaged(dir.path(), &what, file, &whole[..len]));
        }
        assert!(
            noticed > 10,
            "only {noticed} of 25 cuts of the {used} bytes of {file} were noticed"
        );
    }
}

#[test]
fn a_block_whose_body_is_gone_or_another_ones_is_lost_alone() {
    let dir = filled();
    let whole = fs::read(dir.path().join(BODIES)).unwrap();
    let record = 24 + LEN + 4;
    // Two whole bodies changed places: each sound, and not where it belongs.
    let mut swapped = whole.clone();
    swapped[9 * record..10 * record].copy_from_slice(&whole[12 * record..13 * record]);
    swapped[12 * record..13 * record].copy_from_slice(&whole[9 * record..10 * record]);
    for (what, bytes, lost) in [
        ("swapped", &swapped[..], vec![9, 12]),
        ("the last one cut", &whole[..24 * record - 1], vec![BLOCKS - 1]),
    ] {
        let case = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), case.path());
        fs::write(case.path().join(BODIES), bytes).unwrap();
        let (spool, opened) = open(case.path(), &options(64 << 20));
        let quarantined = opened.quarantined.unwrap();
        let gone: Vec<u64> = quarantined.lost_seqs.iter().cloned().flatten().collect();
        assert_eq!(gone, lost, "{what}: {quarantined:?}");
        let aside = quarantined.path.join("bodies/0000000000000001");
        assert!(fs::read(aside).unwrap() == bytes, "{what}: the file is kept as it was");
        shut(spool);
    }
    fs::remove_file(dir.path().join(BODIES)).unwrap();
    assert!(judge(dir.path(), "without bodies"));
}

#[test]
fn damaged_side_files_are_survived() {
    let dir = filled();
    let name = |prefix: &str| {
        let entries = fs::read_dir(dir.path().join("store-1"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.into_iter().find(|name| name.starts_with(prefix)).unwrap()
    };
    for file in [name("snap."), name("conf")] {
        for content in [&b""[..], b"x", &[0xff; 400]] {
            let case = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), case.path());
            fs::write(case.path().join("store-1").join(&file), content).unwrap();
            judge(case.path(), &format!("{file} with {} bytes", content.len()));
        }
    }
    for file in ["ledger", "current", "opening", "lock", "store-1/snap.00FF.generating"] {
        for content in [&b""[..], b"x", &[0xff; 5000]] {
            let case = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), case.path());
            fs::write(case.path().join(file), content).unwrap();
            assert!(!judge(case.path(), file), "{file} is no reason to put data aside");
        }
    }
}

#[test]
fn an_older_copy_of_the_store_is_found_out_by_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), &options(64 << 20));
    for seq in 0..5 {
        spool.append(batch(seq, LEN)).unwrap().wait().unwrap();
    }
    shut(spool);
    let old = tempfile::tempdir().unwrap();
    copy_dir(&dir.path().join("store-1"), old.path());
    let (spool, _) = open(dir.path(), &options(64 << 20));
    for seq in 5..9 {
        spool.append(batch(seq, LEN)).unwrap().wait().unwrap();
    }
    shut(spool);
    fs::remove_dir_all(dir.path().join("store-1")).unwrap();
    copy_dir(old.path(), &dir.path().join("store-1"));
    let (spool, opened) = open(dir.path(), &options(64 << 20));
    let rolled_back = opened.rolled_back.unwrap();
    assert_eq!((rolled_back.ledger_next_seq, rolled_back.store_next_seq), (9, 5));
    let done =
        spool.restream(|_, new, _| Ok(block(new, 3, 10).to_vec()), Vec::new()).wait().unwrap();
    assert_eq!((done.generation, done.next_seq), (1, 5));
    shut(spool);
    // The older copy again, now of a stream that is over.
    fs::remove_dir_all(dir.path().join("store-1")).unwrap();
    copy_dir(old.path(), &dir.path().join("store-1"));
    assert!(open(dir.path(), &options(64 << 20)).1.rolled_back.is_some());
}

#[test]
fn a_store_deleted_under_the_ledger_is_found_out() {
    let dir = filled();
    fs::remove_dir_all(dir.path().join("store-1")).unwrap();
    let (spool, opened) = open(dir.path(), &options(64 << 20));
    assert_eq!(opened.rolled_back.unwrap().ledger_next_seq, BLOCKS);
    assert!(!opened.created && opened.needs_restream.is_some());
    shut(spool);
}

#[test]
fn a_store_that_kills_the_process_at_every_opening_is_put_aside_unread() {
    let dir = filled();
    fs::write(dir.path().join("opening"), "5").unwrap();
    let (spool, opened) = open(dir.path(), &options(64 << 20));
    let quarantined = opened.quarantined.unwrap();
    assert!(quarantined.reason.contains("5 times"), "{}", quarantined.reason);
    assert_eq!((quarantined.salvaged_blocks, quarantined.lost_seqs.len()), (0, 1));
    shut(spool);
    assert!(open(dir.path(), &options(64 << 20)).1.quarantined.is_none());
}

#[test]
fn a_database_damaged_while_it_runs_is_noticed_when_it_is_read_and_told_as_an_incident() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { ring_max_bytes: 0, ..options(512 << 20) };
    let (spool, _) = open(dir.path(), &options);
    for seq in 0..20 {
        spool.append(batch(seq, LEN)).unwrap().wait().unwrap();
    }
    let path = dir.path().join(BODIES);
    let mut bodies = fs::read(&path).unwrap();
    bodies[7 * (24 + LEN + 4) + 1000] ^= 1;
    fs::write(&path, &bodies).unwrap();
    assert_eq!(spool.read(7).wait(), Ok(None));
    let incidents = spool.take_incidents();
    assert!(matches!(incidents.as_slice(), [Incident::Quarantined(_)]), "{incidents:?}");
    assert_eq!(spool.stats().quarantined, 1);
    spool.restream(|_, new, _| Ok(block(new, 1, 10).to_vec()), Vec::new()).wait().unwrap();
    shut(spool);
}

#[test]
fn a_folder_that_cannot_be_written_is_a_plain_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let error = Spool::open(&dir.path().join("file/spool"), options(1 << 20), clock()).unwrap_err();
    assert!(matches!(error, OpenError::Io { what: "making the folder", .. }), "{error}");
}
