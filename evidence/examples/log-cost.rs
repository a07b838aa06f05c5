//! What the log costs a collector: `log-cost FOLDER BLOCKS BATCH durable|cached` appends that many
//! headers, commits after each batch, signs a checkpoint and makes both proofs for each block.
//! Measure it from outside (`time`).

use std::error::Error;
use std::path::Path;

use custody_event::block::{Accounts, Placement, Sealer};
use custody_event::{AgentId, Digest, Seq, StreamId, Timestamp};
use custody_evidence::tlog::{FileTiles, Log, Prover};
use custody_evidence::{AgentKey, Checkpoint, Entry, NoteKey};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, blocks, batch, durable] = &arguments[..] else {
        return Err("usage: log-cost FOLDER BLOCKS BATCH durable|cached".into());
    };
    let (blocks, batch): (u64, u64) = (blocks.parse()?, batch.parse()?);
    let key = NoteKey::new("collector.example.org", &[7; 32])?;
    let entry = entry()?;
    let mut log = Log::open(FileTiles::new(Path::new(folder)), 0)?;
    let (mut hashes, mut before) = (0, 0);
    for _ in 0..blocks / batch {
        for _ in 0..batch {
            log.append(&entry)?;
        }
        let head = log.commit(durable == "durable")?;
        let note = Checkpoint::new("collector.example.org", head).sign(&key);
        hashes += note.len() / 1_000;
        let mut prover = Prover::new(&log, head.size);
        for index in before..head.size {
            hashes += prover.inclusion(index)?.len();
            hashes += prover.consistency(before)?.len();
        }
        before = head.size;
    }
    let head = log.head();
    std::fs::write(Path::new(folder).join("done"), format!("{hashes} {}", head.root))?;
    Ok(())
}

/// An entry as a block makes it.
fn entry() -> Result<Vec<u8>, Box<dyn Error>> {
    let agent = AgentKey::from_secret(&[8; 32]);
    let times = (Timestamp::Y2020, Timestamp::Y2020);
    let mut block = Sealer::new()?.seal(b"{}\n", times, [0; 32])?.place(
        Placement {
            agent: AgentId([1; 16]),
            host: "c0ffee".repeat(5),
            key: agent.id(),
            stream: StreamId([2; 16]),
            seq: Seq(0),
            prev: Digest::ZERO,
            sealed: Timestamp::Y2020,
        },
        Accounts::default(),
    );
    agent.sign(&mut block);
    Ok(Entry::of_block(&block).ok_or("unsigned")?.encode())
}
