//! What the spool costs: blocks of 120 KB through group commit, with a reader that acknowledges at
//! once, then with a long backlog that is drained afterwards.
//!
//! `cargo bench -p custody-agent --bench spool [-- BLOCKS [BYTES]]`; figures to standard output.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use custody_agent::spool::{Batch, Options, Spool, SpoolClock, SpoolHandle, SpooledBlock};

struct BenchClock(Instant);

impl SpoolClock for BenchClock {
    fn unix_ms(&self) -> u64 {
        0
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

fn block(seq: u64, len: usize) -> Bytes {
    let mut state = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 16);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.into()
}

/// CPU milliseconds of the threads whose name begins so, and the process's figures.
fn thread_cpu_ms(prefix: &str) -> u64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let mut ticks = 0;
    for task in tasks.flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((head, rest)) = stat.rsplit_once(')') else { continue };
        if head.split_once('(').is_some_and(|(_, name)| name.starts_with(prefix)) {
            let fields: Vec<u64> =
                rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
            ticks += fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0);
        }
    }
    ticks * 10
}

fn proc_number(file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split_whitespace().nth(1))
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn mib(bytes: u64) -> u64 {
    bytes / (1 << 20)
}

struct Phase {
    name: &'static str,
    start: Instant,
    spool_ms: u64,
    io_ms: u64,
    written: u64,
}

impl Phase {
    fn begin(name: &'static str) -> Self {
        Self {
            name,
            start: Instant::now(),
            spool_ms: thread_cpu_ms("spool"),
            io_ms: thread_cpu_ms("sled-io"),
            written: proc_number("/proc/self/io", "write_bytes:"),
        }
    }

    fn end(
        self,
        out: &mut dyn Write,
        spool: &SpoolHandle,
        blocks: u64,
        len: u64,
    ) -> std::io::Result<()> {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let written = proc_number("/proc/self/io", "write_bytes:") - self.written;
        let (spool_us, io_us) = (
            (thread_cpu_ms("spool") - self.spool_ms) * 1000,
            (thread_cpu_ms("sled-io") - self.io_ms) * 1000,
        );
        let stats = spool.stats();
        writeln!(
            out,
            "{:8} {blocks} blocks x {len} B in {ms} ms = {} blocks/s, {} MB/s; CPU owner {} us + sled-io {} us per block; \
             written {} MiB ({} %); disk {} MiB; resident {} MiB, peak {} MiB; {} syncs, {} rebuilds, {} refreshes",
            self.name,
            blocks * 1000 / ms,
            blocks * len / ms / 1000,
            spool_us / blocks,
            io_us / blocks,
            mib(written),
            written * 100 / (blocks * len),
            mib(stats.disk_bytes),
            proc_number("/proc/self/status", "VmRSS:") / 1024,
            proc_number("/proc/self/status", "VmHWM:") / 1024,
            stats.syncs,
            stats.recreated,
            stats.refreshed,
        )
    }
}

fn batch(seq: u64, bytes: Bytes) -> Batch {
    let put = |name: &[u8]| (name.to_vec(), [seq.to_be_bytes(); 8].concat());
    Batch {
        block: Some(SpooledBlock { seq, bytes }),
        puts: vec![put(b"pos/a"), put(b"book/a")],
        deletes: Vec::new(),
    }
}

/// Appends `blocks` as fast as they are taken; acknowledges each as soon as it is read, if wanted.
fn append(spool: &SpoolHandle, from: u64, blocks: u64, len: usize, acknowledge: bool) {
    let reader = acknowledge.then(|| {
        let spool = spool.clone();
        std::thread::spawn(move || drain(&spool, from, from + blocks))
    });
    let ready: Vec<_> = (0..16).map(|n| block(n, len)).collect();
    let mut tickets = std::collections::VecDeque::new();
    for seq in from..from + blocks {
        let bytes = ready[usize::try_from(seq % 16).unwrap_or(0)].clone();
        tickets.extend(spool.append(batch(seq, bytes)).ok());
        if tickets.len() > 32 {
            tickets
                .pop_front()
                .map(custody_agent::spool::Ticket::wait)
                .transpose()
                .expect("an append failed");
        }
    }
    for ticket in tickets {
        ticket.wait().expect("an append failed");
    }
    reader.map(|reader| reader.join()).transpose().expect("the reader failed");
}

fn drain(spool: &SpoolHandle, from: u64, to: u64) {
    for seq in from..to {
        while !spool.wait_for(seq, Duration::from_secs(1)) {}
        let block = spool.read(seq).wait().expect("a read failed");
        assert!(block.is_some(), "block {seq} is missing");
        spool.ack("a", 0, seq + 1).expect("an acknowledgement failed");
    }
}

fn main() -> std::io::Result<()> {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<u64>().ok());
    let blocks = numbers.next().unwrap_or(3000);
    let len = numbers.next().unwrap_or(120_000);
    let place = std::env::var_os("CUSTODY_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir =
        tempfile::Builder::new().prefix("custody-bench-spool.").tempdir_in(Path::new(&place))?;
    let options = Options { recreate_min_bytes: 1 << 30, ..Options::for_max_bytes(1 << 30) };
    let clock = Arc::new(BenchClock(Instant::now()));
    let (spool, _) =
        Spool::open(dir.path(), options.clone(), clock.clone()).map_err(std::io::Error::other)?;
    spool.register_outputs(&["a"]).wait().map_err(std::io::Error::other)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "empty: resident {} MiB", proc_number("/proc/self/status", "VmRSS:") / 1024)?;
    let bytes = usize::try_from(len).unwrap_or(120_000);
    let phase = Phase::begin("live");
    append(&spool, 0, blocks, bytes, true);
    phase.end(&mut out, &spool, blocks, len)?;
    let phase = Phase::begin("backlog");
    append(&spool, blocks, blocks, bytes, false);
    phase.end(&mut out, &spool, blocks, len)?;
    let start = Instant::now();
    assert!(spool.close(Duration::from_secs(60)), "the spool did not drain");
    let resident = proc_number("/proc/self/status", "VmRSS:") / 1024;
    writeln!(out, "close {} ms; resident {resident} MiB", start.elapsed().as_millis())?;
    let start = Instant::now();
    let (spool, opened) = Spool::open(dir.path(), options, clock).map_err(std::io::Error::other)?;
    let resident = proc_number("/proc/self/status", "VmRSS:") / 1024;
    let held = opened.next_seq - opened.first_seq;
    writeln!(
        out,
        "open with {held} blocks, all checked: {} ms; resident {resident} MiB",
        start.elapsed().as_millis()
    )?;
    spool.register_outputs(&["a"]).wait().map_err(std::io::Error::other)?;
    let phase = Phase::begin("drain");
    drain(&spool, blocks, blocks * 2);
    phase.end(&mut out, &spool, blocks, len)?;
    assert!(spool.close(Duration::from_secs(60)), "the spool did not close");
    Ok(())
}
