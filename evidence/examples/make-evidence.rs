//! Makes a bundle and a collector's data directory with many events, to measure
//! `custody-verify` with: `make-evidence FOLDER EVENTS` writes `FOLDER/bundle.custody` and
//! `FOLDER/data`.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use custody_event::block::{Accounts, Placement, Sealer};
use custody_event::{AgentId, Block, Digest, Seq, StreamId, Timestamp};
use custody_evidence::bundle::{BundleWriter, Manifest, Place, Scope};
use custody_evidence::entry::Enrolled;
use custody_evidence::tlog::{FileTiles, Log, Prover};
use custody_evidence::{AgentKey, Checkpoint, Entry, KeyType, NoteKey, Signed};

const PER_BLOCK: u64 = 1_000;
const ORIGIN: &str = "collector.example.org/custody";
const AGENT: AgentId = AgentId([1; 16]);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, events] = &arguments[..] else {
        return Err("usage: make-evidence FOLDER EVENTS".into());
    };
    make(Path::new(folder), events.parse()?)
}

fn time(number: u64) -> Timestamp {
    let micros = i64::try_from(number * 1_000).unwrap_or(i64::MAX);
    Timestamp::Y2020.plus_micros(micros)
}

/// An event of about 560 bytes.
fn push_event(number: u64, out: &mut String) -> std::fmt::Result {
    let id = &Digest::of(&number.to_le_bytes()).to_hex()[..32];
    let raw = &Digest::of(&(number ^ 1).to_le_bytes()).to_hex();
    let (at, user, port) = (time(number), number % 997, 1_024 + number % 60_000);
    writeln!(
        out,
        r#"{{"action":"authentication.login","actor":{{"name":"user{user}","type":"user"}},"category":"authentication","host":"web-1","id":"{id}","message":"user{user} failed to log in from 203.0.113.{}","observed":"{at}","origin":{{"input":"auth","offset":{number},"pack":"sshd","path":"/var/log/auth.log","raw":"Failed password for user{user} from 203.0.113.{} port {port} ssh2","raw_sha256":"{raw}","rule":"password_rejected"}},"outcome":"failure","service":"sshd","severity":"low","time":"{at}","v":1}}"#,
        number % 251,
        number % 251,
    )
}

fn seal(blocks: u64, key: &AgentKey) -> Result<Vec<Block>, Box<dyn Error>> {
    let mut sealer = Sealer::new()?;
    let (mut prev, mut made) = (Digest::ZERO, Vec::new());
    for seq in 0..blocks {
        let mut text = String::new();
        for number in seq * PER_BLOCK..(seq + 1) * PER_BLOCK {
            push_event(number, &mut text)?;
        }
        let times = (time(seq * PER_BLOCK), time((seq + 1) * PER_BLOCK));
        let secret = Digest::of(&seq.to_le_bytes()).0;
        let mut block = sealer.seal(text.as_bytes(), times, secret)?.place(
            Placement {
                agent: AGENT,
                host: "c0ffee".repeat(5),
                key: key.id(),
                stream: StreamId([2; 16]),
                seq: Seq(seq),
                prev,
                sealed: times.1,
            },
            Accounts::default(),
        );
        key.sign(&mut block);
        prev = block.hash();
        made.push(block);
    }
    Ok(made)
}

fn make(folder: &Path, events: u64) -> Result<(), Box<dyn Error>> {
    let log_key = NoteKey::new(ORIGIN, &[7; 32])?;
    let agent_key = AgentKey::from_secret(&[8; 32]);
    let blocks = seal(events.div_ceil(PER_BLOCK), &agent_key)?;
    let root = folder.join("data/tlog");
    std::fs::create_dir_all(&root)?;
    let mut log = Log::open(FileTiles::new(&root), 0)?;
    let enrolled = Enrolled {
        agent: AGENT,
        at: time(0),
        host: "c0ffee".repeat(5),
        key: agent_key.public(),
        v: 1,
    };
    let enrolled = Entry::Enrolled(Signed::sign(enrolled, &log_key)?).encode();
    log.append(&enrolled)?;
    for block in &blocks {
        log.append(&Entry::of_block(block).ok_or("unsigned")?.encode())?;
    }
    let head = log.commit(true)?;
    let note = Checkpoint::new(ORIGIN, head).sign(&log_key);
    let vkey = log_key.verifier(KeyType::Ed25519);
    // As an agent that has checked it would: for a foreign verifier of cosignatures.
    let witness = NoteKey::new("custody-agent/01", &[9; 32])?;
    let seconds = u64::try_from(Timestamp::Y2020.seconds())?;
    let note = format!("{note}{}", custody_evidence::note::cosign(&note, &witness, seconds)?);
    std::fs::write(root.join("checkpoint"), &note)?;
    let cosigner = witness.verifier(KeyType::Cosignature);
    std::fs::write(root.join("witness.vkey"), format!("{cosigner}\n"))?;
    std::fs::write(root.join("vkey"), format!("{vkey}\n"))?;
    segment(&folder.join("data/evidence"), &blocks)?;
    let manifest = Manifest {
        end: head.size,
        first: 0,
        made: time(0),
        origin: ORIGIN.into(),
        query: String::new(),
        scope: Scope::Log,
        streams: Vec::new(),
        v: 1,
    };
    let file = BufWriter::new(File::create(folder.join("bundle.custody"))?);
    let mut out = BundleWriter::new(file, &manifest)?;
    out.log_key(&vkey)?;
    out.checkpoint(&note)?;
    let mut prover = Prover::new(&log, head.size);
    out.entry(&Place { index: Some(0), path: prover.inclusion(0)? }, &enrolled)?;
    for (index, block) in (1_u64..).zip(&blocks) {
        let place = Place { index: Some(index), path: prover.inclusion(index)? };
        out.block(&place, &block.encode()?)?;
    }
    out.finish_sealed(&log_key)?;
    Ok(())
}

/// One segment that holds all: its frames, and how far it is durable.
fn segment(root: &Path, blocks: &[Block]) -> Result<(), Box<dyn Error>> {
    let day = root.join("2020-01-01");
    std::fs::create_dir_all(&day)?;
    let mut out = BufWriter::new(File::create(day.join("0000000000.seg"))?);
    let mut header = [0; 64];
    header[..5].copy_from_slice(b"CSEG\x01");
    let crc = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    out.write_all(&header)?;
    let receipt = br#"{"held":[],"received":"2020-01-01T00:00:00.000000Z"}"#;
    for block in blocks {
        let bytes = block.encode()?;
        let mut frame = b"CFRM".to_vec();
        frame.extend_from_slice(&u32::try_from(receipt.len())?.to_le_bytes());
        frame.extend_from_slice(&u32::try_from(bytes.len())?.to_le_bytes());
        frame.extend_from_slice(&crc32fast::hash(&frame).to_le_bytes());
        frame.extend_from_slice(receipt);
        frame.extend_from_slice(&bytes);
        frame.extend_from_slice(&crc32fast::hash(&frame).to_le_bytes());
        out.write_all(&frame)?;
    }
    Ok(out.flush()?)
}
