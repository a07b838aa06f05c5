//! Damaged, restored and interfered-with stores: opening always ends with a usable spool.

use std::fs;

use super::super::{Incident, OpenError};
use super::*;

const BLOCKS: u64 = 24;
const LEN: usize = 100_000;

/// A closed spool with a backlog and its database file's bytes.
fn filled() -> (tempfile::TempDir, Vec<u8>) {
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
    let db = fs::read(dir.path().join("store-1/db")).unwrap();
    (dir, db)
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

fn damaged(from: &Path, what: &str, db: &[u8]) -> bool {
    let case = tempfile::tempdir().unwrap();
    copy_dir(from, case.path());
    fs::write(case.path().join("store-1/db"), db).unwrap();
    judge(case.path(), what)
}

/// A small generator with a fixed seed: the same places in every run.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap()
}

#[test]
fn flipped_bytes_anywhere_are_survived_and_never_read_as_sound() {
    let (dir, db) = filled();
    let (mut state, mut noticed) = (1, 0);
    for n in 0..200 {
        let mut bad = db.clone();
        // Half of the flips in the first 64 KiB and around the segments' headers, where structure is dense.
        let at = if n % 2 == 0 {
            random(&mut state) % db.len()
        } else {
            (random(&mut state) % 3 * (8 << 20) + random(&mut state) % 65_536) % db.len()
        };
        for byte in &mut bad[at..(at + 1 + n % 64).min(db.len())] {
            *byte ^= 1 << (n % 8);
        }
        noticed += usize::from(damaged(dir.path(), &format!("flip {n} at {at}"), &bad));
    }
    assert!(noticed > 20, "only {noticed} of 200 flips were noticed");
}

#[test]
fn files_cut_short_anywhere_are_survived() {
    let (dir, db) = filled();
    let (mut state, mut noticed) = (2, 0);
    for n in 0..50 {
        let len = random(&mut state) % db.len();
        noticed += usize::from(damaged(dir.path(), &format!("cut {n} to {len}"), &db[..len]));
    }
    assert!(noticed > 20, "only {noticed} of 50 cuts were noticed");
}

#[test]
fn damaged_side_files_are_survived() {
    let (dir, _) = filled();
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
    let (dir, _) = filled();
    fs::remove_dir_all(dir.path().join("store-1")).unwrap();
    let (spool, opened) = open(dir.path(), &options(64 << 20));
    assert_eq!(opened.rolled_back.unwrap().ledger_next_seq, BLOCKS);
    assert!(!opened.created && opened.needs_restream.is_some());
    shut(spool);
}

#[test]
fn a_store_that_kills_the_process_at_every_opening_is_put_aside_unread() {
    let (dir, _) = filled();
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
    // More than sled caches, so that it must read the file.
    for seq in 0..400 {
        drop(spool.append(batch(seq, LEN)).unwrap());
    }
    assert!(spool.wait_for(399, Duration::from_secs(60)));
    let path = dir.path().join("store-1/db");
    let mut db = fs::read(&path).unwrap();
    let needle = &block(7, 0, LEN)[1000..1040];
    let mut places: Vec<usize> = db
        .windows(40)
        .enumerate()
        .filter(|(_, window)| *window == needle)
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty());
    places.drain(..).for_each(|at| db[at] ^= 1);
    fs::write(&path, &db).unwrap();
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
