//! Blocks on their way, changed by somebody: none is taken, and the true one still is.
//!
//! `CUSTODY_TAMPER_ROUNDS` (default 1, with `CUSTODY_LONG` 8) multiplies the changes. The lines
//! `tried` make the table of `cargo xtask tamper`.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use custody_event::{Digest, SystemClock};
use custody_evidence::AgentKey;
use custody_evidence::verify::{Trust, verify_dir};

use super::*;
use crate::store::evidence::{Options, TlogOptions};
use crate::store::{BlockSource, LogCursor};
use crate::testing::TestStream;
use crate::tlog::Enrolment;

/// xorshift64*: the same numbers everywhere.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let next = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        usize::try_from(next % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn open(folder: &FilePath, stream: &TestStream) -> Arc<EvidenceLog> {
    let agent =
        Enrolment { agent: stream.agent, host: stream.host.clone(), key: stream.key.public() };
    let mut options = Options::new(1 << 20);
    options.tlog = Some(TlogOptions {
        folder: folder.join("tlog"),
        origin: "test/log".to_owned(),
        random: [9; 32],
        agents: vec![agent],
    });
    let opened =
        EvidenceLog::open(&folder.join("evidence"), &options, Arc::new(SystemClock::new()));
    Arc::new(opened.unwrap().0)
}

/// What is sent, to which number.
struct Sent {
    kind: &'static str,
    bytes: Vec<u8>,
    seq: Seq,
}

/// Puts the checksum right, as whoever knows the format does.
fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len().saturating_sub(4);
    let crc = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Another block of the same number, signed by this key.
fn another(before: &[Block], key: AgentKey, seq: Seq) -> Vec<u8> {
    let mut stream = TestStream::new(1, 1, "aa");
    let prev = usize::try_from(seq.get()).unwrap().checked_sub(1).map(|at| before[at].hash());
    stream.go_on(seq, prev.unwrap_or(Digest::ZERO));
    stream.key = key;
    stream.own_event("what never was");
    stream.seal().encode().unwrap()
}

/// The block that is to come next, or another, changed.
fn change(rng: &mut Rng, blocks: &[Block], next: usize) -> Sent {
    let (stored, true_one) = (&blocks[..next], &blocks[next]);
    let seq = true_one.header.seq;
    let mut bytes = true_one.encode().unwrap();
    let at = rng.below(bytes.len() - 4);
    let len = (1 + rng.below(60)).min(bytes.len() - 4 - at);
    let kind = match rng.below(9) {
        0 => {
            bytes[at] ^= 1 << rng.below(8);
            if rng.below(3) > 0 {
                bytes = with_crc(bytes);
            }
            "flip"
        }
        1 => {
            bytes.truncate(at);
            if rng.below(2) == 0 && bytes.len() > 4 {
                bytes = with_crc(bytes);
            }
            "cut"
        }
        2 if rng.below(2) == 0 => {
            // The block after it, under its name.
            bytes = blocks[next + 1].encode().unwrap();
            "swap"
        }
        2 => {
            let to = rng.below(bytes.len() - 4 - len);
            for place in 0..len {
                bytes.swap(at + place, to + place);
            }
            bytes = with_crc(bytes);
            "swap"
        }
        3 => {
            bytes.drain(at..at + len);
            bytes = with_crc(bytes);
            "drop"
        }
        4 if next > 0 && rng.below(2) == 0 => {
            // One that is there comes again: acknowledged, and not stored again.
            let again = &stored[rng.below(next)];
            let (bytes, seq) = (again.encode().unwrap(), again.header.seq);
            return Sent { kind: "duplicate", bytes, seq };
        }
        4 => {
            let copy = bytes[at..at + len].to_vec();
            bytes.splice(at..at, copy);
            bytes = with_crc(bytes);
            "duplicate"
        }
        5 => {
            let mut other = TestStream::new(if rng.below(2) == 0 { 2 } else { 1 }, 7, "aa");
            other.go_on(seq, true_one.header.prev);
            other.own_event("of another stream");
            bytes = other.seal().encode().unwrap();
            "splice"
        }
        6 => {
            bytes = another(stored, AgentKey::from_secret(&[77; 32]), seq);
            "re-sign"
        }
        7 if next > 0 => {
            // An agent that was put back writes a number anew, with its own key.
            let seq = Seq(u64::try_from(rng.below(next)).unwrap());
            let bytes = another(stored, AgentKey::from_secret(&[1; 32]), seq);
            return Sent { kind: "roll back", bytes, seq };
        }
        _ => {
            // The whole stream anew, from its first block on.
            let bytes = another(&[], AgentKey::from_secret(&[78; 32]), Seq(0));
            return Sent { kind: "rewrite", bytes, seq: Seq(0) };
        }
    };
    Sent { kind, bytes, seq }
}

fn held(log: &EvidenceLog) -> Vec<Block> {
    let (mut found, mut from) = (Vec::new(), LogCursor::default());
    while let Some(stored) = log.next_from(from).unwrap() {
        from = stored.next;
        found.push(stored.block);
    }
    found
}

#[tokio::test]
async fn no_changed_block_is_taken_and_the_true_one_still_is() {
    let long = std::env::var_os("CUSTODY_LONG").is_some();
    let rounds = number("CUSTODY_TAMPER_ROUNDS").unwrap_or(if long { 8 } else { 1 });
    let mut rng = Rng(number("CUSTODY_TAMPER_SEED").unwrap_or(1) * 2 + 1);
    let folder = tempfile::tempdir().unwrap();
    let mut stream = TestStream::new(1, 1, "aa");
    let sender = Sender { host: stream.host.clone(), key: stream.key.public() };
    let log = open(folder.path(), &stream);
    let blocks: Vec<Block> = (0..30 * rounds + 2)
        .map(|number| {
            (0..1 + number % 5).for_each(|event| stream.own_event(&format!("{number} {event}")));
            stream.seal()
        })
        .collect();
    let ingest = Ingest::new(Arc::clone(&log), 2);
    let bodies = Arc::new(Semaphore::new(1));
    let mut tried: BTreeMap<&str, u64> = BTreeMap::new();
    for next in 0..blocks.len() - 1 {
        for _ in 0..9 {
            let Sent { kind, bytes, seq } = change(&mut rng, &blocks, next);
            let path = Path { agent: stream.agent, stream: stream.stream, seq };
            let permit = Arc::clone(&bodies).acquire_owned().await.unwrap();
            if bytes == blocks[next].encode().unwrap() {
                continue;
            }
            *tried.entry(kind).or_default() += 1;
            let packed_anew = Block::decode(&bytes).is_ok_and(|block| {
                let same = block.header_bytes() == blocks[next].header_bytes()
                    && block.signature() == blocks[next].signature();
                same && block.open().ok() == blocks[next].open().ok()
            });
            let taken = ingest.take(sender.clone(), path, bytes, permit, 0).await;
            let known = taken.is_ok() && kind == "duplicate" && seq < blocks[next].header.seq;
            assert!(taken.is_err() || known || packed_anew, "{kind} of block {next} was taken");
        }
        let path =
            Path { agent: stream.agent, stream: stream.stream, seq: blocks[next].header.seq };
        let permit = Arc::clone(&bodies).acquire_owned().await.unwrap();
        let bytes = blocks[next].encode().unwrap();
        let (next_seq, _) =
            ingest.take(sender.clone(), path, bytes, permit, 0).await.expect("the true block");
        assert_eq!(next_seq, blocks[next].header.seq.next());
    }
    let held = held(&log);
    assert_eq!(held.len(), blocks.len() - 1);
    for (held, sent) in held.iter().zip(&blocks) {
        assert_eq!(
            (held.header_bytes(), held.signature()),
            (sent.header_bytes(), sent.signature())
        );
        assert_eq!(held.open().unwrap(), sent.open().unwrap());
    }
    let report = verify_dir(folder.path(), &Trust::default()).unwrap();
    assert!(report.verified, "{}", report.to_text());
    for (kind, count) in &tried {
        eprintln!("tried\tblock on the wire\t{kind}\t{count}");
    }
    assert_eq!(tried.len(), 9, "{tried:?}");
}
