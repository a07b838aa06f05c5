//! What would convince a sceptic that the spool keeps what it acknowledged.

mod basic;
mod bodies;
mod crash;
mod damage;
mod fake;
mod faults;
mod model;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Batch, Opened, Options, Spool, SpoolClock, SpoolHandle, SpooledBlock};

/// The machine's monotonic clock, and a wall clock that begins at a fixed time.
struct TestClock(Instant);

impl SpoolClock for TestClock {
    fn unix_ms(&self) -> u64 {
        1_795_262_340_000 + u64::try_from(self.0.elapsed().as_millis()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

fn clock() -> Arc<dyn SpoolClock> {
    Arc::new(TestClock(Instant::now()))
}

fn options(max_bytes: u64) -> Options {
    Options {
        min_free_bytes: 1024 * 1024,
        retry_every: Duration::from_millis(20),
        ack_delay: Duration::from_millis(10),
        ledger_every: Duration::from_millis(10),
        ..Options::for_max_bytes(max_bytes)
    }
}

/// Bytes that depend on `seq` and `salt`, with the trailing checksum.
fn block(seq: u64, salt: u64, len: usize) -> Bytes {
    let mut state = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt | 1;
    let mut bytes = seq.to_be_bytes().to_vec();
    while bytes.len() < len.max(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len.max(8));
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.into()
}

/// A block and the position it advances to: always the seq after it.
fn batch(seq: u64, len: usize) -> Batch {
    Batch {
        block: Some(SpooledBlock { seq, bytes: block(seq, 0, len) }),
        puts: vec![(b"pos/a".to_vec(), (seq + 1).to_be_bytes().to_vec())],
        deletes: Vec::new(),
    }
}

fn open(dir: &Path, options: &Options) -> (SpoolHandle, Opened) {
    Spool::open(dir, options.clone(), clock()).unwrap()
}

fn position(spool: &SpoolHandle) -> u64 {
    spool
        .value(b"pos/a")
        .wait()
        .unwrap()
        .map_or(0, |value| u64::from_be_bytes(value.try_into().unwrap()))
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited 30 s for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn shut(spool: SpoolHandle) {
    assert!(spool.close(Duration::from_secs(20)), "the spool did not drain");
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Starts this test binary again, running only the named test.
fn child(test: &str, envs: &[(&str, &str)]) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command
        .envs(envs.iter().copied())
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    command
}
