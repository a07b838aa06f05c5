use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Options whose sync number `fail` fails.
fn failing(
    segment_bytes: u64,
    fail: impl Fn(usize) -> bool + Send + std::marker::Sync + 'static,
) -> Options {
    let calls = AtomicUsize::new(0);
    let sync = move |file: &std::fs::File| {
        if fail(calls.fetch_add(1, Ordering::Relaxed)) {
            return Err(std::io::Error::other("the disk said no"));
        }
        file.sync_data()
    };
    Options { segment_bytes, tlog: None, sync: Arc::new(sync) }
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_the_segment_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    let blocks = stream(1, 1, 4);
    let (log, _) = open_with(&root, &failing(LARGE, |call| call == 2));
    store(&log, &blocks[0]);
    store(&log, &blocks[1]);
    assert!(matches!(offer(&log, &blocks[2]), Outcome::Unavailable { .. }));
    assert_eq!(all(&log).len(), 2, "what is not durable is not shown");
    store(&log, &blocks[2]);
    store(&log, &blocks[3]);
    assert_eq!(segments(&root).len(), 2);
    drop(log);
    let log = open(&root, LARGE);
    let found: Vec<Block> = all(&log).into_iter().map(|stored| stored.block).collect();
    assert_eq!(found, blocks);
}

#[test]
fn a_segment_that_was_begun_and_never_used_does_not_stand_in_the_way_of_the_next_attempt() {
    for day in ["2020-01-01", ""] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("evidence");
        let blocks = stream(1, 1, 3);
        let log = open(&root, TINY);
        store(&log, &blocks[0]);
        // As an attempt left it whose last step failed; on that day, or on this one.
        let today = segment::day_in(&segments(&root)[0]).to_owned();
        let day = if day.is_empty() { today.as_str() } else { day };
        let left = segment::path_of(&root, day, 1);
        std::fs::create_dir_all(left.parent().unwrap()).unwrap();
        std::fs::write(&left, b"half a header").unwrap();
        store(&log, &blocks[1]);
        store(&log, &blocks[2]);
        drop(log);
        let log = open(&root, TINY);
        let found: Vec<Block> = all(&log).into_iter().map(|stored| stored.block).collect();
        assert_eq!(found, blocks);
    }
}

#[test]
fn when_a_failed_sync_cannot_be_made_good_the_log_fails_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    let blocks = stream(1, 1, 3);
    let (log, _) = open_with(&root, &failing(LARGE, |call| call >= 1));
    store(&log, &blocks[0]);
    assert!(matches!(offer(&log, &blocks[1]), Outcome::Unavailable { .. }));
    assert!(log.failed().borrow().is_some());
    assert!(matches!(offer(&log, &blocks[1]), Outcome::Unavailable { .. }));
    drop(log);
    let log = open(&root, LARGE);
    store(&log, &blocks[1]);
    store(&log, &blocks[2]);
    assert_eq!(all(&log).len(), 3);
}

#[test]
fn successors_of_a_block_that_was_not_stored_are_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    let blocks = stream(1, 1, 200);
    let (log, _) = open_with(&root, &failing(LARGE, |call| call % 4 == 3));
    let mut next = 0;
    while next < blocks.len() {
        let until = (next + 6).min(blocks.len());
        let waiting: Vec<_> =
            blocks[next..until].iter().map(|block| log.submit(&checked(block)).unwrap()).collect();
        let stored = waiting
            .into_iter()
            .map(|outcome| outcome.blocking_recv().unwrap())
            .filter(|outcome| matches!(outcome, Outcome::Stored { .. }))
            .count();
        next += stored;
    }
    drop(log);
    let log = open(&root, LARGE);
    let found: Vec<Block> = all(&log).into_iter().map(|stored| stored.block).collect();
    assert_eq!(found, blocks);
}

/// A file system of its own, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().ok()?;
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "custody-test"])
            .arg(folder.path())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then(|| Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(done.is_ok_and(|status| status.success()));
    }
}

#[test]
fn a_full_disk_refuses_blocks_and_takes_them_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(256 * 1024) else {
        println!("skipped: mounting a small file system needs root");
        return;
    };
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 64 * 1024]).unwrap();
    let root = disk.0.path().join("evidence");
    let log = open(&root, LARGE);
    let mut stream = TestStream::new(1, 1, "aa");
    let mut stored = Vec::new();
    let refused = loop {
        // Text that does not compress: 32 digits of a hash each.
        for _ in 0..40 {
            stream.own_event("x");
        }
        let block = stream.seal();
        match offer(&log, &block) {
            Outcome::Stored { .. } => stored.push(block),
            Outcome::Unavailable { .. } => break block,
            other => panic!("{other:?}"),
        }
    };
    assert!(!stored.is_empty());
    for _ in 0..3 {
        assert!(matches!(offer(&log, &refused), Outcome::Unavailable { .. }));
    }
    assert!(log.failed().borrow().is_none(), "a full disk is no end");
    std::fs::remove_file(&ballast).unwrap();
    store(&log, &refused);
    stored.push(refused);
    drop(log);
    let log = open(&root, LARGE);
    let found: Vec<Block> = all(&log).into_iter().map(|block| block.block).collect();
    assert_eq!(found, stored);
}

#[test]
fn a_clock_that_goes_back_a_day_does_not_take_the_log_back() {
    struct Days(AtomicUsize);
    impl Clock for Days {
        fn now(&self) -> custody_event::Timestamp {
            let days = i64::try_from(self.0.load(Ordering::Relaxed)).unwrap();
            custody_event::Timestamp::Y2020.plus_micros(days * 86_400_000_000)
        }
        fn monotonic(&self) -> std::time::Duration {
            std::time::Duration::ZERO
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    let clock = Arc::new(Days(AtomicUsize::new(5)));
    let log = EvidenceLog::open(&root, &Options::new(LARGE), Arc::<Days>::clone(&clock)).unwrap().0;
    for (block, day) in stream(1, 1, 4).iter().zip([5, 6, 3, 7]) {
        clock.0.store(day, Ordering::Relaxed);
        store(&log, block);
    }
    let days: Vec<String> =
        segments(&root).iter().map(|path| segment::day_in(path).to_owned()).collect();
    assert_eq!(days, ["2020-01-06", "2020-01-07", "2020-01-08"]);
    assert_eq!(all(&log).len(), 4);
}
