//! A spool that somebody has changed while the agent was down: every change of what counts is told,
//! with its place, by the agent's next start or by `custody-verify` on the spool's export; and
//! whatever was done, nothing that was put in gets the agent's signature.
//!
//! Clumsy changes know files and bytes. Skilled ones know the spool's format and write it anew, with
//! all checksums and counters right: they lack only the agent's keys. What nobody can tell without
//! the collector is a *tail* that had not been acknowledged, cut off together with every counter
//! that knows of it (`docs/threat-model.md`); the newest key's statement bounds it to this run, and
//! `tests/suite/memory_loss.rs` has the collector's side.
//!
//! `CUSTODY_TAMPER_ROUNDS` (default 1, with `CUSTODY_LONG` 10) multiplies the changes,
//! `CUSTODY_TAMPER_SEED` begins elsewhere. Each line `tried` goes into the table of
//! `cargo xtask tamper`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "this is test code throughout")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use custody_agent::identity::AgentIdentity;
use custody_agent::ours::{self, Ours};
use custody_agent::pipeline::StreamState;
use custody_agent::rotation::{self, Rotations, Standing};
use custody_agent::spool::{
    Batch, Opened, Options, Spool, SpoolClock, SpoolHandle, SpooledBlock, inspect, trailing_crc,
};
use custody_agent::stream;
use custody_event::block::{Accounts, Placement, Sealer};
use custody_event::{Block, Clock, Digest, Seq, StreamId, SystemClock, Timestamp};
use custody_evidence::verify::{Report, Trust, verify_bundle};
use custody_evidence::{AgentKey, PublicKey};

const BLOCKS: u64 = 14;
/// Acknowledged, and no longer held.
const ACKED: u64 = 3;
/// The first block of the second key.
const ROTATED: u64 = 8;
/// An older copy holds this many.
const OLDER: u64 = 6;
const OUTPUT: &str = "central";

struct TestClock(SystemClock);

impl SpoolClock for TestClock {
    fn unix_ms(&self) -> u64 {
        1_790_000_000_000
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

/// xorshift64*: the same numbers everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| u8::try_from(self.next() >> 56).unwrap())
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn time(n: u64) -> Timestamp {
    Timestamp::from_micros(1_790_000_000_000_000 + i64::try_from(n).unwrap())
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

fn files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn options() -> Options {
    Options {
        min_free_bytes: 1024 * 1024,
        ledger_every: Duration::ZERO,
        ack_delay: Duration::from_millis(1),
        ..Options::for_max_bytes(64 << 20)
    }
}

fn open(dir: &Path, options: Options) -> (SpoolHandle, Opened) {
    Spool::open(dir, options, Arc::new(TestClock(SystemClock::new()))).unwrap()
}

fn shut(spool: &SpoolHandle) {
    assert!(spool.close(Duration::from_secs(30)), "the spool did not drain");
}

fn block(
    rng: &mut Rng,
    key: &AgentKey,
    identity: &AgentIdentity,
    at: (StreamId, u64, Digest),
) -> Block {
    let (stream, seq, prev) = at;
    let mut text = Vec::new();
    for index in 0..=rng.below(6) {
        let id = Digest(rng.bytes()).to_hex();
        let line = format!(
            "{{\"action\":\"contact.update\",\"id\":\"{}\",\"message\":\"Jane changed contact {index} of {seq}\",\"v\":1}}\n",
            &id[..32]
        );
        text.extend_from_slice(line.as_bytes());
    }
    let sealed =
        Sealer::new().unwrap().seal(&text, (time(seq), time(seq + 1)), rng.bytes()).unwrap();
    let placement = Placement {
        agent: identity.agent,
        host: identity.host_id.clone(),
        key: key.id(),
        stream,
        seq: Seq(seq),
        prev,
        sealed: time(seq),
    };
    let mut block = sealed.place(placement, Accounts::default());
    key.sign(&mut block);
    block
}

/// Blocks of a stream, one after the other, signed by whom `key` says.
fn stream_of<'a>(
    rng: &mut Rng,
    identity: &AgentIdentity,
    key: impl Fn(u64) -> &'a AgentKey,
) -> Vec<Block> {
    let stream = StreamId(rng.bytes());
    let (mut prev, mut blocks) = (Digest::ZERO, Vec::new());
    for seq in 0..BLOCKS {
        let block = block(rng, key(seq), identity, (stream, seq, prev));
        prev = block.hash();
        blocks.push(block);
    }
    blocks
}

/// A spool whose store says that these are its blocks; `claimed` is what its state says beside.
fn fill(dir: &Path, blocks: &[Vec<u8>], state: &StreamState, keep_ledger: Option<&Path>) {
    if dir.try_exists().unwrap() {
        std::fs::remove_dir_all(dir).unwrap();
    }
    let (spool, _) = open(dir, options());
    spool.register_outputs(&[OUTPUT]).wait().unwrap();
    let last = blocks.len() - 1;
    for (seq, bytes) in blocks.iter().enumerate() {
        let state = serde_json::to_vec(state).unwrap();
        let puts = if seq == last { vec![(StreamState::KEY.to_vec(), state)] } else { Vec::new() };
        let block = SpooledBlock { seq: u64::try_from(seq).unwrap(), bytes: bytes.clone().into() };
        spool
            .append(Batch { block: Some(block), puts, deletes: Vec::new() })
            .unwrap()
            .wait()
            .unwrap();
    }
    spool.ack(OUTPUT, spool.stats().generation, ACKED.min(spool.stats().durable_next_seq)).unwrap();
    shut(&spool);
    if let Some(ledger) = keep_ledger {
        std::fs::copy(ledger, dir.join("ledger")).unwrap();
    }
}

fn state_after(blocks: &[Block]) -> StreamState {
    let last = blocks.last().unwrap();
    StreamState {
        stream: last.header.stream,
        next_seq: last.header.seq.next(),
        last_hash: last.hash(),
        next_own: 0,
    }
}

fn encoded(blocks: &[Block]) -> Vec<Vec<u8>> {
    blocks.iter().map(|block| block.encode().unwrap()).collect()
}

/// An agent's data directory, with everything that an attacker may have beside it.
struct World {
    rng: Rng,
    folder: tempfile::TempDir,
    identity: AgentIdentity,
    blocks: Vec<Block>,
    /// Another stream of the same agent, signed by its own keys.
    other_stream: Vec<Block>,
    /// Another agent's stream.
    stranger: Vec<Block>,
    first_key: PublicKey,
    events: BTreeSet<Vec<u8>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join(format!("log-{OUTPUT}")), "").unwrap();
        let old = AgentIdentity::load_or_create(&data, "web1").unwrap();
        let first_key = old.key.public();
        let rotations = Rotations::load(&data).unwrap();
        let stranger_folder = folder.path().join("stranger");
        std::fs::create_dir(&stranger_folder).unwrap();
        let stranger = AgentIdentity::load_or_create(&stranger_folder, "web2").unwrap();
        // The statement names the stream, which begins with the generator's next bytes.
        let named = StreamId(Rng(rng.0).bytes());
        let standing =
            Standing { agent: old.agent, stream: named, from_seq: Seq(ROTATED), at: time(0) };
        let key = rotation::rotate(&data, &rotations, &old.key, standing, &[OUTPUT]).unwrap();
        let identity = old.with_key(key.unwrap());
        let key = |seq| if seq < ROTATED { &old.key } else { &identity.key };
        let blocks = stream_of(&mut rng, &identity, key);
        assert_eq!(blocks[0].header.stream, named);
        let other_stream = stream_of(&mut rng, &identity, |_| &identity.key);
        let stranger = stream_of(&mut rng, &stranger, |_| &stranger.key);
        let events = blocks.iter().flat_map(events_of).collect();
        let state = state_after(&blocks);
        fill(&data.join("spool"), &encoded(&blocks), &state, None);
        let older = &blocks[..usize::try_from(OLDER).unwrap()];
        fill(&folder.path().join("older"), &encoded(older), &state_after(older), None);
        fill(&folder.path().join("theirs"), &encoded(&stranger), &state_after(&stranger), None);
        Self { rng, folder, identity, blocks, other_stream, stranger, first_key, events }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn events_of(block: &Block) -> Vec<Vec<u8>> {
    block.open().unwrap().events().map(|(_, event)| event.to_vec()).collect()
}

/// What was done to a spool.
struct Change {
    kind: &'static str,
    what: String,
    /// The block that was changed, where one was.
    block: Option<u64>,
}

fn flip_block(rng: &mut Rng, bytes: &mut [u8]) {
    let end = bytes.len() - 4;
    bytes[rng.below(end)] ^= 1 << rng.below(8);
    let crc = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
}

/// The block with its events altered, in everything that needs no key; the signature by `key`.
fn resigned(rng: &mut Rng, world: &World, seq: usize, thief: &AgentKey) -> Vec<u8> {
    let old = &world.blocks[seq];
    let header = &old.header;
    let at = (header.stream, header.seq.get(), header.prev);
    let mut forged = block(rng, thief, &world.identity, at);
    if rng.below(2) == 0 {
        // Under the name of the right key.
        let placement = Placement {
            agent: header.agent,
            host: header.host.clone(),
            key: header.key,
            stream: header.stream,
            seq: header.seq,
            prev: header.prev,
            sealed: header.sealed,
        };
        forged = forged.moved_to(placement);
        thief.sign(&mut forged);
    }
    forged.encode().unwrap()
}

/// Knows the format: writes the spool anew, all checksums and counters right.
fn skilled(rng: &mut Rng, world: &World, data: &Path) -> Change {
    let mut list = encoded(&world.blocks);
    let mut state = state_after(&world.blocks);
    let first = usize::try_from(ACKED).unwrap();
    let seq = first + rng.below(list.len() - first);
    let mut keep = None;
    let spool = data.join("spool");
    let ledger = world.path("ledger-before");
    std::fs::copy(spool.join("ledger"), &ledger).unwrap();
    let thief = AgentKey::from_secret(&rng.bytes());
    let mut named = Some(u64::try_from(seq).unwrap());
    let kind = match rng.below(9) {
        0 => {
            flip_block(rng, &mut list[seq]);
            "flip"
        }
        1 => {
            // Either the ledger is left, or the cut goes behind the last change of keys.
            let rotated = usize::try_from(ROTATED).unwrap();
            let left = if rng.below(2) == 0 {
                keep = Some(ledger.as_path());
                4 + rng.below(list.len() - 4)
            } else {
                4 + rng.below(rotated - 4)
            };
            list.truncate(left);
            state = state_after(&world.blocks[..left]);
            named = None;
            "cut"
        }
        2 => {
            let other = first + rng.below(list.len() - first);
            let other =
                if other == seq { if seq == first { seq + 1 } else { seq - 1 } } else { other };
            list.swap(seq, other);
            "swap"
        }
        3 => {
            list.remove(seq);
            state.next_seq = Seq(state.next_seq.get() - 1);
            "drop"
        }
        4 => {
            list.insert(seq, list[seq].clone());
            state.next_seq = state.next_seq.next();
            "duplicate"
        }
        5 => {
            let from = if rng.below(2) == 0 { &world.other_stream } else { &world.stranger };
            list[seq] = from[seq].encode().unwrap();
            "splice"
        }
        6 => {
            list[seq] = resigned(rng, world, seq, &thief);
            "re-sign"
        }
        7 => {
            list.truncate(usize::try_from(OLDER).unwrap());
            state = state_after(&world.blocks[..usize::try_from(OLDER).unwrap()]);
            if rng.below(2) == 0 {
                keep = Some(ledger.as_path());
            }
            named = None;
            "roll back"
        }
        _ => {
            let (all, fits) = match rng.below(3) {
                0 => (world.stranger.clone(), rng.below(2) == 0),
                1 => (stream_of(rng, &world.identity, |_| &thief), rng.below(2) == 0),
                // With a state that fits this is a spool that the agent itself has written.
                _ => (world.other_stream.clone(), false),
            };
            if fits {
                state = state_after(&all);
            }
            list = encoded(&all);
            named = None;
            "rewrite"
        }
    };
    fill(&spool, &list, &state, keep);
    Change {
        kind,
        what: format!("{kind} by somebody who knows the format, block {named:?}"),
        block: named,
    }
}

/// Knows files and bytes.
fn clumsy(rng: &mut Rng, world: &World, data: &Path) -> Change {
    let spool = data.join("spool");
    let all: Vec<PathBuf> = files(&spool)
        .into_iter()
        .filter(|path| !path.ends_with("lock") && path.metadata().unwrap().len() > 0)
        .collect();
    let path = all[rng.below(all.len())].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    let whole = bytes.len();
    // sled's file is mostly room for later: half of the changes where something is written.
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    let among = if rng.below(2) == 0 { written } else { whole };
    let at = rng.below(among);
    let len = (1 + rng.below(4_000)).min(whole - at);
    let kind = match rng.below(8) {
        0 => {
            bytes[at] ^= 1 << rng.below(8);
            "flip"
        }
        1 => {
            bytes.truncate(at);
            "cut"
        }
        2 => {
            let to = rng.below(whole - len + 1);
            let (a, b) = (bytes[at..at + len].to_vec(), bytes[to..to + len].to_vec());
            bytes[at..at + len].copy_from_slice(&b);
            bytes[to..to + len].copy_from_slice(&a);
            "swap"
        }
        3 => {
            std::fs::remove_file(&path).unwrap();
            return Change {
                kind: "drop",
                what: format!("{} removed", path.display()),
                block: None,
            };
        }
        4 => {
            let copy = bytes[at..at + len].to_vec();
            bytes.splice(at..at, copy);
            "duplicate"
        }
        5 => {
            let theirs = std::fs::read(world.path("theirs/store-1/db")).unwrap();
            let from = at.min(theirs.len().saturating_sub(len));
            let piece = &theirs[from..(from + len).min(theirs.len())];
            bytes.splice(at..(at + piece.len()).min(whole), piece.iter().copied());
            "splice"
        }
        6 => {
            std::fs::remove_dir_all(spool.join("store-1")).unwrap();
            copy_dir(&world.path("older/store-1"), &spool.join("store-1"));
            return Change { kind: "roll back", what: "an older store".into(), block: None };
        }
        _ => {
            let keep = rng.below(2) == 0;
            let ledger = std::fs::read(spool.join("ledger")).unwrap();
            std::fs::remove_dir_all(&spool).unwrap();
            copy_dir(&world.path("theirs"), &spool);
            if keep {
                std::fs::write(spool.join("ledger"), ledger).unwrap();
            }
            return Change { kind: "rewrite", what: "another agent's spool".into(), block: None };
        }
    };
    std::fs::write(&path, &bytes).unwrap();
    Change { kind, what: format!("{kind} of {len} at {at} of {}", path.display()), block: None }
}

/// What `custody-verify` says to the export; `None` where the store cannot even be opened.
fn verified(data: &Path, first_key: &PublicKey) -> Option<Report> {
    let (identity, rotations) = ours::identity_in(data).unwrap();
    let mut spool = inspect(&data.join("spool"), trailing_crc).ok()?;
    let (bundle, _) = ours::export(&mut spool, &identity, &rotations, time(0), Vec::new()).ok()?;
    let trust = Trust { agent: Some(first_key.clone()), ..Trust::default() };
    Some(verify_bundle(&bundle[..], "spool", &trust).unwrap())
}

/// What the agent's next start tells, and what it would deliver.
struct Started {
    told: Vec<String>,
    /// Every event that would be delivered.
    events: BTreeSet<Vec<u8>>,
    state: StreamState,
}

fn started(data: &Path) -> Started {
    let identity = Arc::new(AgentIdentity::load_or_create(data, "web1").unwrap());
    let rotations = Rotations::load(data).unwrap();
    let ours = Arc::new(Ours::new(&identity, &rotations, false));
    let options = Options { judge: Some(Arc::<Ours>::clone(&ours)), ..options() };
    let (spool, opened) = open(&data.join("spool"), options);
    spool.register_outputs(&[OUTPUT]).wait().unwrap();
    let writer = stream::Writer { identity: &identity, ours: &ours, rotations: &rotations };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let found = stream::find(&spool, &opened, writer, &clock, &[]).unwrap();
    let mut events = BTreeSet::new();
    let stats = spool.stats();
    for seq in stats.first_seq..stats.durable_next_seq {
        let bytes = spool.read(seq).wait().unwrap().unwrap();
        let block = Block::decode(&bytes).unwrap();
        // Altered content under an untouched header goes to the collector, which opens it.
        if let Ok(opened) = block.open() {
            assert_eq!(block.header.stream, found.state.stream);
            events.extend(opened.events().map(|(_, event)| event.to_vec()));
        }
    }
    shut(&spool);
    let mut told: Vec<String> = found.acts.iter().map(|act| format!("{act:?}")).collect();
    told.extend(opened.quarantined.iter().map(|it| format!("lost blocks {:?}", it.lost_seqs)));
    Started { told, events, state: found.state }
}

/// Judges a changed spool; is what counts untouched?
fn judge(seed: u64, world: &World, data: &Path, change: &Change) -> bool {
    let what = &change.what;
    let copy = world.path("copy");
    if copy.try_exists().unwrap() {
        std::fs::remove_dir_all(&copy).unwrap();
    }
    copy_dir(data, &copy);
    let report = verified(&copy, &world.first_key);
    let start = started(data);
    assert!(
        start.events.is_subset(&world.events),
        "seed {seed}: {what}: something that was put in is delivered"
    );
    let accused = report.as_ref().is_some_and(|report| !report.verified);
    let problems = report.as_ref().map(Report::to_text).unwrap_or_default();
    if !accused && start.told.is_empty() {
        let expected: BTreeSet<Vec<u8>> =
            world.blocks[usize::try_from(ACKED).unwrap()..].iter().flat_map(events_of).collect();
        // An older cursor, by which acknowledged blocks are sent again, harms nothing.
        let whole = start.events.is_superset(&expected);
        assert!(whole, "seed {seed}: not detected: {what}\n{problems}");
        assert_eq!(start.state, state_after(&world.blocks), "seed {seed}: not detected: {what}");
        return true;
    }
    let Some(seq) = change.block else { return false };
    // The block itself, or the one beside it where the chain breaks.
    let near =
        |text: &str| (seq.saturating_sub(1)..=seq + 1).any(|n| text.contains(&format!("lock {n}")));
    let by_verify = report.iter().flat_map(|report| &report.problems).any(|problem| {
        problem.blocks.is_some_and(|(first, last)| first.get() <= seq + 1 && seq <= last.get() + 1)
    });
    assert!(
        by_verify || start.told.iter().any(|text| near(text)),
        "seed {seed}: not located: {what}\n{:?}\n{problems}",
        start.told
    );
    false
}

#[test]
fn every_change_of_a_spool_is_told_and_nothing_that_was_put_in_is_ever_signed() {
    let long = std::env::var_os("CUSTODY_LONG").is_some();
    let rounds = number("CUSTODY_TAMPER_ROUNDS", if long { 10 } else { 1 });
    let first = number("CUSTODY_TAMPER_SEED", 1);
    let mut tried: BTreeMap<&str, u64> = BTreeMap::new();
    let mut harmless = 0_u64;
    for seed in first..first + 2 * rounds {
        let mut world = World::new(seed);
        let data = world.path("data");
        let template = world.path("template");
        copy_dir(&data, &template);
        let untouched = started(&data);
        assert!(untouched.told.is_empty(), "seed {seed}: untouched: {:?}", untouched.told);
        for round in 0..48 {
            std::fs::remove_dir_all(&data).unwrap();
            copy_dir(&template, &data);
            if round == 0 {
                let report = verified(&data, &world.first_key).unwrap();
                assert!(report.verified, "seed {seed}: untouched: {}", report.to_text());
                assert_eq!(report.blocks, BLOCKS - ACKED);
            }
            let mut rng = Rng(world.rng.next() | 1);
            let change = if round % 2 == 0 {
                clumsy(&mut rng, &world, &data)
            } else {
                skilled(&mut rng, &world, &data)
            };
            harmless += u64::from(judge(seed, &world, &data, &change));
            *tried.entry(change.kind).or_default() += 1;
        }
    }
    for (kind, count) in &tried {
        println!("tried\tspool\t{kind}\t{count}");
    }
    println!("{harmless} changed nothing that counts (room for later, what can be made again)");
    let kinds: Vec<&str> = tried.keys().copied().collect();
    let all =
        ["cut", "drop", "duplicate", "flip", "re-sign", "rewrite", "roll back", "splice", "swap"];
    assert_eq!(kinds, all);
    let count: u64 = tried.values().sum();
    assert!(harmless * 2 < count, "{harmless} of {count}");
}

#[test]
fn a_spool_whose_keys_statement_knows_of_more_blocks_was_put_back() {
    let world = World::new(77);
    let data = world.path("data");
    std::fs::remove_dir_all(data.join("spool")).unwrap();
    copy_dir(&world.path("older"), &data.join("spool"));
    let report = verified(&data, &world.first_key).unwrap();
    assert!(report.to_text().contains("truncated: blocks 6 to 7"), "{}", report.to_text());
    let start = started(&data);
    assert!(start.told.iter().any(|text| text.contains("spool_rolled_back")), "{:?}", start.told);
}
