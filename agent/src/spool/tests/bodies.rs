//! Bodies in files of their own: stores that were written before, leftovers of crashes, space given back.

use std::fs;

use super::super::StoreFactory;
use super::super::sled_store::SledFactory;
use super::*;

const LEN: usize = 100_000;

/// As the spool was written before bodies had files.
fn open_in_parts(dir: &Path) -> SpoolHandle {
    let factory = Box::new(SledFactory { in_parts: true });
    Spool::open_with(dir, options(64 << 20), clock(), factory).unwrap().0
}

/// The files in which there is something.
fn body_files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("store-1/bodies")).unwrap().map(Result::unwrap);
    let mut names: Vec<_> = entries
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.len() > 0))
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_store_written_before_bodies_had_files_goes_on_in_order_and_drains() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open_in_parts(dir.path());
    for seq in 0..12 {
        spool.append(batch(seq, LEN)).unwrap().wait().unwrap();
    }
    spool.dead_letter(3, block(3, 0, LEN), "413").wait().unwrap();
    shut(spool);
    assert!(body_files(dir.path()).is_empty());
    let (spool, opened) = open(dir.path(), &options(64 << 20));
    assert_eq!((opened.first_seq, opened.next_seq, opened.quarantined), (0, 12, None));
    spool.register_outputs(&["a"]).wait().unwrap();
    for seq in 12..20 {
        spool.append(batch(seq, LEN)).unwrap().wait().unwrap();
    }
    // One of the old ones now has a file, and stands before others that have none.
    spool.replace_block(5, block(5, 0, LEN)).wait().unwrap();
    shut(spool);
    assert_eq!(body_files(dir.path()).len(), 1);
    let mut inspector = super::super::inspect(dir.path(), super::super::trailing_crc).unwrap();
    let listed: Vec<_> = inspector.blocks().unwrap().into_iter().map(|it| it.seq).collect();
    assert_eq!(listed, (0..20).collect::<Vec<_>>());
    assert_eq!(inspector.verify().unwrap().problems, Vec::<String>::new());
    drop(inspector);
    let (spool, opened) = open(dir.path(), &options(64 << 20));
    assert_eq!((opened.first_seq, opened.next_seq, opened.quarantined), (0, 20, None));
    spool.register_outputs(&["a"]).wait().unwrap();
    for seq in 0..20 {
        assert_eq!(spool.read(seq).wait().unwrap().unwrap(), block(seq, 0, LEN), "block {seq}");
        spool.ack("a", 0, seq + 1).unwrap();
    }
    until("all to go", || spool.stats().blocks == 0);
    shut(spool);
    let (spool, opened) = open(dir.path(), &options(64 << 20));
    assert_eq!((opened.first_seq, opened.next_seq, opened.quarantined), (20, 20, None));
    assert_eq!(position(&spool), 20);
    assert_eq!(spool.read_dead_letter(0).wait().unwrap().unwrap(), block(3, 0, LEN));
    shut(spool);
}

#[test]
fn an_older_build_stops_at_a_store_with_bodies_instead_of_finding_it_empty() {
    use super::super::keys::{BODIES, parse_part_key};
    // As older builds look for what is large: all keys from `~` on, each a part or damage.
    assert!(BODIES.starts_with(b"~") && parse_part_key(BODIES).is_none());
    let dir = tempfile::tempdir().unwrap();
    let has_mark = || {
        let mut store = SledFactory::default().open(&dir.path().join("store-1")).unwrap();
        store.value(BODIES).unwrap().is_some()
    };
    shut(open_in_parts(dir.path()));
    assert!(!has_mark());
    let (spool, _) = open(dir.path(), &options(64 << 20));
    spool.append(batch(0, 10)).unwrap().wait().unwrap();
    shut(spool);
    assert!(has_mark());
    let (spool, opened) = open(dir.path(), &options(64 << 20));
    assert_eq!((opened.next_seq, opened.quarantined), (1, None));
    assert_eq!(spool.read(0).wait().unwrap().unwrap(), block(0, 0, 10));
    shut(spool);
}

#[test]
fn an_old_backlog_can_begin_a_new_stream() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open_in_parts(dir.path());
    for seq in 0..6 {
        spool.append(batch(seq, LEN)).unwrap().wait().unwrap();
    }
    shut(spool);
    let (spool, _) = open(dir.path(), &options(64 << 20));
    let done =
        spool.restream(|_, new, _| Ok(block(new, 4, LEN).to_vec()), Vec::new()).wait().unwrap();
    assert_eq!((done.generation, done.next_seq), (1, 6));
    shut(spool);
    let (spool, opened) = open(dir.path(), &options(64 << 20));
    assert_eq!((opened.generation, opened.next_seq, opened.quarantined), (1, 6, None));
    assert_eq!(spool.read(5).wait().unwrap().unwrap(), block(5, 4, LEN));
    shut(spool);
}

#[test]
fn files_go_when_all_in_them_is_acknowledged_and_their_space_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), &options(64 << 20));
    spool.register_outputs(&["a"]).wait().unwrap();
    for seq in 0..120 {
        drop(spool.append(batch(seq, LEN)).unwrap());
    }
    assert!(spool.wait_for(119, Duration::from_secs(60)));
    until("the size", || spool.stats().disk_bytes > 12_000_000);
    assert!(body_files(dir.path()).len() > 2);
    spool.ack("a", 0, 60).unwrap();
    until("the first half to go", || spool.stats().first_seq == 60);
    until("its files", || body_files(dir.path())[0].as_str() > "0000000000000001");
    assert_eq!(spool.read(60).wait().unwrap().unwrap(), block(60, 0, LEN));
    spool.ack("a", 0, 120).unwrap();
    until("all to go", || spool.stats().blocks == 0);
    until("the files", || body_files(dir.path()).len() == 1);
    assert_eq!(spool.stats().recreated, 0);
    shut(spool);
    // What was appended to last holds nothing either.
    let (spool, opened) = open(dir.path(), &options(64 << 20));
    assert_eq!((opened.next_seq, opened.quarantined), (120, None));
    let before = body_files(dir.path());
    spool.append(batch(120, 10)).unwrap().wait().unwrap();
    until("the file before", || body_files(dir.path()).len() == 1);
    assert!(body_files(dir.path()) > before, "a number is not used twice");
    shut(spool);
}

#[test]
fn what_a_crash_left_behind_a_body_is_no_block() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), &options(64 << 20));
    for seq in 0..3 {
        spool.append(batch(seq, LEN)).unwrap().wait().unwrap();
    }
    shut(spool);
    // A body whose place never came into sled, a half one, and a file with nothing but such.
    let first = dir.path().join("store-1/bodies").join(&body_files(dir.path())[0]);
    let mut bytes = fs::read(&first).unwrap();
    let again = bytes[..24 + LEN + 4].to_vec();
    bytes.extend_from_slice(&again);
    bytes.extend_from_slice(&again[..1000]);
    fs::write(&first, &bytes).unwrap();
    fs::write(dir.path().join("store-1/bodies/0000000000000007"), &again).unwrap();
    let (spool, opened) = open(dir.path(), &options(64 << 20));
    assert_eq!((opened.first_seq, opened.next_seq, opened.quarantined), (0, 3, None));
    for seq in 3..6 {
        spool.append(batch(seq, LEN)).unwrap().wait().unwrap();
    }
    for seq in 0..6 {
        assert_eq!(spool.read(seq).wait().unwrap().unwrap(), block(seq, 0, LEN), "block {seq}");
    }
    shut(spool);
    assert_eq!(body_files(dir.path()), ["0000000000000001", "0000000000000008"]);
    assert_eq!(open(dir.path(), &options(64 << 20)).1.next_seq, 6);
}

#[test]
fn blocks_of_all_lengths_are_read_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let unread = Options { ring_max_bytes: 0, ..options(256 << 20) };
    let (spool, _) = open(dir.path(), &unread);
    let lengths = [8, 9, 100, 16_384, 65_536, 1_000_000, super::super::MAX_BLOCK_BYTES - 4];
    let len = |seq: u64| lengths[usize::try_from(seq).unwrap() % lengths.len()];
    for seq in 0..50 {
        drop(spool.append(batch(seq, len(seq))).unwrap());
    }
    assert!(spool.wait_for(49, Duration::from_secs(60)));
    for seq in (0..50).rev() {
        assert_eq!(spool.read(seq).wait().unwrap().unwrap(), block(seq, 0, len(seq)), "{seq}");
    }
    shut(spool);
}
