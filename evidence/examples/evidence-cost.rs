//! What evidence costs an agent and a collector: `evidence-cost DATA` goes through the blocks of a
//! collector's data directory and does again what each side did for them as evidence: hashing,
//! signing, proofs. Prints JSON: blocks, events, and seconds on a CPU of each step.
//!
//! Packing, unpacking, parsing and disks are no part of it. Linux (`/proc/self/schedstat`).

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;

use custody_event::merkle::{Salts, leaf, root};
use custody_event::{Block, Digest};
use custody_evidence::segments::{Frame, Frames, HEADER_BYTES, list};
use custody_evidence::tlog::{Log, MemoryTiles, Prover};
use custody_evidence::{
    AgentKey, Checkpoint, Entry, KeyType, Keyring, LogReceipt, NoteKey, Signed, Witness,
};

/// Blocks are held in memory: so much of them, at most.
const MAX_BYTES: usize = 512 * 1024 * 1024;

type Done<T> = Result<T, Box<dyn Error>>;

fn main() -> Done<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, data] = &arguments[..] else { return Err("usage: evidence-cost DATA".into()) };
    let blocks = read(&Path::new(data).join("evidence"))?;
    let events: usize = blocks.iter().map(|(_, text)| text.len()).sum();
    let mut cost = Cost::default();
    let mut signed = agent(&blocks, &mut cost)?;
    collector(&blocks, &mut signed, &mut cost)?;
    let json = serde_json::json!({ "blocks": blocks.len(), "events": events, "seconds": cost.0 });
    writeln!(std::io::stdout().lock(), "{json}")?;
    Ok(())
}

/// Seconds by step.
#[derive(Default)]
struct Cost(BTreeMap<&'static str, f64>);

impl Cost {
    fn of<T>(&mut self, step: &'static str, work: impl FnOnce() -> T) -> Done<T> {
        let before = cpu_seconds()?;
        let done = work();
        *self.0.entry(step).or_default() += cpu_seconds()? - before;
        Ok(done)
    }
}

/// This thread's time on a CPU.
fn cpu_seconds() -> Done<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanos: f64 = text.split_ascii_whitespace().next().ok_or("schedstat is empty")?.parse()?;
    Ok(nanos / 1e9)
}

type Opened = (Block, Vec<Vec<u8>>);

fn read(evidence: &Path) -> Done<Vec<Opened>> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for segment in list(evidence)? {
        let mut input = BufReader::new(File::open(&segment.path)?);
        std::io::copy(&mut std::io::Read::take(&mut input, HEADER_BYTES), &mut std::io::sink())?;
        let mut frames = Frames::new(input);
        while let Some(frame) = frames.next_frame()? {
            let Frame::Block { block, .. } = frame else { return Err("damaged".into()) };
            let block = Block::decode(block)?;
            let events: Vec<Vec<u8>> =
                block.open()?.events().map(|(_, event)| event.to_vec()).collect();
            bytes += events.iter().map(Vec::len).sum::<usize>();
            if bytes > MAX_BYTES {
                return Ok(found);
            }
            found.push((block, events));
        }
    }
    Ok(found)
}

fn hash(events: &[Vec<u8>], secret: &[u8; 32], leaves: &mut Vec<Digest>) -> Digest {
    leaves.clear();
    leaves.extend(events.iter().zip(Salts::new(secret)).map(|(event, salt)| leaf(&salt, event)));
    root(leaves)
}

fn key() -> AgentKey {
    AgentKey::from_secret(&[8; 32])
}

/// Leaves, root, header, signature.
fn agent(blocks: &[Opened], cost: &mut Cost) -> Done<Vec<Block>> {
    let (key, mut leaves, mut signed) = (key(), Vec::new(), Vec::new());
    let mut all = Digest::ZERO;
    for (at, (block, events)) in blocks.iter().enumerate() {
        let secret = Digest::of(&at.to_le_bytes()).0;
        let made = cost.of("agent: leaves and root", || hash(events, &secret, &mut leaves))?;
        all.0[0] ^= made.0[0];
        // Named as this key's, so that the collector's part is as it was.
        let mut header = block.header.clone();
        header.key = key.id();
        let mut again = block.moved_to(custody_event::block::Placement {
            agent: header.agent,
            host: header.host,
            key: header.key,
            stream: header.stream,
            seq: header.seq,
            prev: header.prev,
            sealed: header.sealed,
        });
        let hash = cost.of("agent: header and signature", || {
            let hash = Digest::of(&again.header.to_bytes());
            key.sign(&mut again);
            hash
        })?;
        all.0[1] ^= hash.0[0];
        signed.push(again);
    }
    // So that no step can be left out as useless.
    std::hint::black_box(all);
    Ok(signed)
}

/// Signature, positions, leaves and root; log, checkpoint, proofs. And the agent's look at these.
fn collector(blocks: &[Opened], signed: &mut [Block], cost: &mut Cost) -> Done<()> {
    let log_key = NoteKey::new("collector.example.org", &[7; 32])?;
    let mut witness = Witness::new(log_key.verifier(KeyType::Ed25519));
    let mut ring = Keyring::new();
    let mut log = Log::open(MemoryTiles::default(), 0)?;
    let mut leaves = Vec::new();
    for (at, ((_, events), block)) in blocks.iter().zip(signed).enumerate() {
        ring.trust(block.header.agent, key().public())?;
        let secret = Digest::of(&at.to_le_bytes()).0;
        let checked = cost.of("collector: signature", || {
            Signed::of_block(block).is_some_and(|signed| ring.check(&signed, Some(0)).is_ok())
        })?;
        if !checked {
            return Err("the signature does not hold".into());
        }
        std::hint::black_box(
            cost.of("collector: leaves and root", || hash(events, &secret, &mut leaves))?,
        );
        let entry = Entry::of_block(block).ok_or("unsigned")?.encode();
        let from = log.head().size;
        let receipt: Done<LogReceipt> = cost.of("collector: log, checkpoint, proofs", || {
            let index = log.append(&entry)?;
            // One commit a block is the worst case: under load several share one.
            let head = log.commit(false)?;
            let checkpoint = Checkpoint::new(log_key.name(), head).sign(&log_key);
            let mut prover = Prover::new(&log, head.size);
            let (inclusion, consistency) = (prover.inclusion(index)?, prover.consistency(from)?);
            Ok(LogReceipt { checkpoint, consistency, from, inclusion, index })
        })?;
        let receipt = receipt?;
        cost.of("agent: receipts", || witness.accept_receipt(&receipt, &entry))??;
    }
    Ok(())
}
