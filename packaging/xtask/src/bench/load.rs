//! Blocks in files, made before the clock runs, and posted by one connection a stream.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use custody_event::Timestamp;

use crate::collector::{Collector, newest};
use crate::generate::blocks::Stream;
use crate::generate::{Act, Kind, Maker};
use crate::http::Client;
use crate::numbers::len;
use crate::shell;

const BLOCK_EVENTS: u64 = 1_000;
/// The index may be so far behind at the end.
const INDEX_LIMIT: Duration = Duration::from_secs(3_600);
/// Answers of 429 and 503 in a row before a poster gives up.
const MAX_REFUSALS: u32 = 2_000;

/// What is made.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) events: u64,
    pub(crate) streams: u64,
    pub(crate) seed: u64,
    /// The events are spread evenly over so many days before now.
    pub(crate) days: u64,
    /// Of these kinds, mixed evenly.
    pub(crate) kinds: Vec<Kind>,
}

/// The blocks of one stream, in a file: each after its length (4 bytes, little endian).
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) file: PathBuf,
    pub(crate) blocks: u64,
    pub(crate) events: u64,
    seed: u64,
}

/// The user of a stream's very last event: once it is found, everything before it can be.
pub(crate) fn last_user(stream: u64) -> String {
    format!("lastofstream{stream}")
}

/// Makes all streams' files, one thread a core.
pub(crate) fn make(plan: &Plan, now: Timestamp, folder: &Path) -> anyhow::Result<Vec<Load>> {
    let cores = len(std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let mut loads = Vec::new();
    for first in (0..plan.streams).step_by(usize::try_from(cores.max(1))?) {
        let numbers = first..(first + cores).min(plan.streams);
        let made: Vec<anyhow::Result<Load>> = std::thread::scope(|scope| {
            let threads: Vec<_> = numbers
                .map(|number| scope.spawn(move || make_one(plan, number, now, folder)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
                .collect()
        });
        for load in made {
            loads.push(load?);
        }
    }
    Ok(loads)
}

fn make_one(plan: &Plan, number: u64, now: Timestamp, folder: &Path) -> anyhow::Result<Load> {
    let seed = plan.seed.wrapping_mul(1_000).wrapping_add(number);
    let events = plan.events / plan.streams + u64::from(number < plan.events % plan.streams);
    let span_us = i64::try_from(plan.days * 86_400_000_000)?;
    let step_us = (span_us / i64::try_from(events.max(1))?).max(1);
    let mut maker = Maker::new(seed, &plan.kinds, now.plus_micros(-span_us), step_us);
    let mut stream = Stream::new(seed)?;
    let file = folder.join(format!("blocks-{number}"));
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&file)?);
    let mut left = events;
    while left > 0 {
        let count = left.min(BLOCK_EVENTS);
        left -= count;
        let mut acts: Vec<Act> = (0..count).map(|_| maker.next()).collect();
        if let (0, Some(last)) = (left, acts.last_mut()) {
            last.user = last_user(number);
            last.kind = Kind::Nginx;
        }
        let block = stream.block(&acts, now)?;
        out.write_all(&u32::try_from(block.len())?.to_le_bytes())?;
        out.write_all(&block)?;
    }
    out.flush()?;
    Ok(Load { file, blocks: stream.next_seq(), events, seed })
}

/// The index reads the log in order: when the last event of every stream is found, all are.
pub(crate) fn wait_until_found(collector: &mut Collector, loads: &[Load]) -> anyhow::Result<()> {
    let mut client = collector.admin()?;
    for number in 0..len(loads.len()) {
        let word = format!("actor:{}", last_user(number));
        shell::wait_for("the index catches up", INDEX_LIMIT, Duration::from_millis(50), || {
            collector.daemon.ensure_running()?;
            Ok((newest(&mut client, &word, 1)?.events.len() == 1).then_some(()))
        })?;
    }
    Ok(())
}

/// Posts every load's blocks, up to `max_blocks` of each; events posted, and from when to when.
pub(crate) fn post(
    collector: &Collector,
    loads: &[Load],
    max_blocks: u64,
) -> anyhow::Result<(u64, Duration)> {
    let mut posters = Vec::new();
    for load in loads {
        let stream = Stream::new(load.seed)?;
        let token = collector.enroll(stream.agent, &stream.host, stream.key())?;
        posters.push((load, stream, Client::new(collector.address, Some(token))));
    }
    let begun = Instant::now();
    let done: Vec<anyhow::Result<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = posters
            .into_iter()
            .map(|(load, stream, client)| {
                scope.spawn(move || post_one(load, &stream, client, max_blocks))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
            .collect()
    });
    let time = begun.elapsed();
    let mut events = 0;
    for posted in done {
        events += posted?;
    }
    Ok((events, time))
}

fn post_one(
    load: &Load,
    stream: &Stream,
    mut client: Client,
    max_blocks: u64,
) -> anyhow::Result<u64> {
    let mut input = BufReader::with_capacity(1 << 20, File::open(&load.file)?);
    let mut block = Vec::new();
    let blocks = load.blocks.min(max_blocks);
    for seq in 0..blocks {
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        block.resize(usize::try_from(u32::from_le_bytes(length))?, 0);
        input.read_exact(&mut block)?;
        post_block(&mut client, &stream.path(seq), &block, seq)?;
    }
    Ok(if blocks == load.blocks { load.events } else { blocks * BLOCK_EVENTS })
}

/// Until it is durable; 429 and 503 are obeyed with a short pause.
fn post_block(client: &mut Client, path: &str, block: &[u8], seq: u64) -> anyhow::Result<()> {
    for _ in 0..MAX_REFUSALS {
        let answer = client
            .post(path, "application/vnd.custody.block", block)
            .with_context(|| format!("block {seq}"))?;
        match answer.status {
            200 if answer.value()["next_seq"].as_u64().is_some_and(|next| next > seq) => {
                return Ok(());
            }
            429 | 503 => std::thread::sleep(Duration::from_millis(20)),
            status => bail!("block {seq}: {status} {}", String::from_utf8_lossy(&answer.body)),
        }
    }
    bail!("block {seq}: refused too often")
}

/// Events that go on coming at a steady rate while something else is measured; made as they are sent.
pub(crate) struct Pour {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<(u64, Duration)>>>,
}

impl Pour {
    /// `rate` events a second from one more agent.
    pub(crate) fn start(collector: &Collector, seed: u64, rate: u64) -> anyhow::Result<Self> {
        let mut stream = Stream::new(seed)?;
        let token = collector.enroll(stream.agent, &stream.host, stream.key())?;
        let mut client = Client::new(collector.address, Some(token));
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let step_us = i64::try_from(1_000_000 / rate.max(1))?;
            let mut maker = Maker::new(seed, &Kind::ALL, shell::now(), step_us);
            let (begun, mut sent) = (Instant::now(), 0_u64);
            while !told.load(Ordering::Relaxed) {
                let due = Duration::from_micros(sent.saturating_mul(1_000_000) / rate.max(1));
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
                let acts: Vec<Act> = (0..BLOCK_EVENTS).map(|_| maker.next()).collect();
                let seq = stream.next_seq();
                let block = stream.block(&acts, shell::now())?;
                post_block(&mut client, &stream.path(seq), &block, seq)?;
                sent += BLOCK_EVENTS;
            }
            Ok((sent, begun.elapsed()))
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it; how many events a second it was in fact.
    pub(crate) fn stop(mut self) -> anyhow::Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.thread.take().map(JoinHandle::join);
        match done {
            Some(Ok(sent)) => sent.map(|(sent, time)| crate::numbers::per_second(sent, time)),
            _ => bail!("the thread that sends has panicked"),
        }
    }
}

impl Drop for Pour {
    fn drop(&mut self) {
        // Where the measuring has failed: the thread ends by itself.
        self.stop.store(true, Ordering::Relaxed);
    }
}
