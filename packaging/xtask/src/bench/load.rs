//! Blocks in files, made before the clock runs, and posted by one connection a stream.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use custody_event::Timestamp;

use crate::collector::Collector;
use crate::generate::blocks::Stream;
use crate::generate::{Act, Kind, Maker};
use crate::http::Client;
use crate::numbers::len;

const BLOCK_EVENTS: u64 = 1_000;
/// Answers of 429 and 503 in a row before a poster gives up.
const MAX_REFUSALS: u32 = 2_000;

/// What is made.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) events: u64,
    pub(super) streams: u64,
    pub(super) seed: u64,
    /// The events are spread evenly over so many days before now.
    pub(super) days: u64,
    /// Of these kinds, mixed evenly.
    pub(super) kinds: Vec<Kind>,
}

/// The blocks of one stream, in a file: each after its length (4 bytes, little endian).
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) file: PathBuf,
    pub(super) blocks: u64,
    pub(super) events: u64,
    seed: u64,
}

/// The user of a stream's very last event: once it is found, everything before it can be.
pub(super) fn last_user(stream: u64) -> String {
    format!("lastofstream{stream}")
}

/// Makes all streams' files, one thread a core.
pub(super) fn make(plan: &Plan, now: Timestamp, folder: &Path) -> anyhow::Result<Vec<Load>> {
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

/// Posts every load's blocks, up to `max_blocks` of each; events posted, and from when to when.
pub(super) fn post(
    collector: &Collector,
    loads: &[Load],
    max_blocks: u64,
) -> anyhow::Result<(u64, Duration)> {
    let mut posters = Vec::new();
    for load in loads {
        let stream = Stream::new(load.seed)?;
        let token =
            collector.enroll(&stream.agent.to_string(), &stream.host, &stream.public_key())?;
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
