//! Thousands of random changes: each is detected, and told with the place of the harm.
//!
//! `CUSTODY_TAMPER_ROUNDS` (default 1, with `CUSTODY_LONG` 4) multiplies them;
//! `CUSTODY_TAMPER_SEED` begins elsewhere. The lines `tried` make the table of `cargo xtask tamper`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use custody_event::{Block, Digest, Seq, StreamId};
use custody_evidence::bundle::End;
use custody_evidence::tlog::{Prover, TreeHead};
use custody_evidence::verify::{Problem, Report, Trust, verify_bundle, verify_dir};
use custody_evidence::{AgentKey, Checkpoint, Entry, KeyType, NoteKey};

use crate::common::{ORIGIN, Rng, World, crc32};

/// How many times the changes of one short run.
pub(crate) fn rounds() -> u64 {
    let long = std::env::var_os("CUSTODY_LONG").is_some();
    number("CUSTODY_TAMPER_ROUNDS", if long { 4 } else { 1 })
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A frame of a bundle.
#[derive(Clone)]
struct Record {
    kind: u8,
    content: Vec<u8>,
}

fn cut(bundle: &[u8]) -> (Vec<Record>, Vec<Range<usize>>) {
    let (mut at, mut records, mut ranges) = (8, Vec::new(), Vec::new());
    while at < bundle.len() {
        let len = u32::from_le_bytes(bundle[at + 8..at + 12].try_into().unwrap());
        let len = usize::try_from(len).unwrap();
        let content = bundle[at + 16..at + 16 + len].to_vec();
        records.push(Record { kind: bundle[at + 4], content });
        ranges.push(at..at + 20 + len);
        at += 20 + len;
    }
    (records, ranges)
}

/// The records as a bundle, all checksums right.
fn join(records: &[Record]) -> Vec<u8> {
    let mut out = b"CUSTBND1".to_vec();
    for record in records {
        let start = out.len();
        out.extend_from_slice(b"CREC");
        out.extend_from_slice(&[record.kind, 0, 0, 0]);
        out.extend_from_slice(&u32::try_from(record.content.len()).unwrap().to_le_bytes());
        let crc = crc32(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&record.content);
        let crc = crc32(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }
    out
}

/// Makes the last record fit what stands before it, as far as somebody without the log's key can:
/// without the seal.
fn end_anew(records: &mut [Record]) {
    let count =
        |kind: u8| u64::try_from(records.iter().filter(|r| r.kind == kind).count()).unwrap();
    let before = &records[..records.len() - 1];
    let end = End {
        blocks: count(8),
        entries: count(7),
        records: u64::try_from(before.len()).unwrap(),
        sha256: Digest::of(&join(before)[8..]),
        signature: None,
        vouchers: count(6),
    };
    let last = records.last_mut().unwrap();
    assert_eq!(last.kind, 9);
    last.content = serde_json::to_vec(&end).unwrap();
}

/// Where the block begins in a record of kind 8 (or the entry in one of kind 6 or 7).
fn body_at(content: &[u8]) -> usize {
    9 + usize::from(content[8]) * 32
}

fn index_of(content: &[u8]) -> u64 {
    u64::from_le_bytes(content[..8].try_into().unwrap())
}

fn with_crc(mut block: Vec<u8>) -> Vec<u8> {
    let end = block.len() - 4;
    let crc = crc32(&block[..end]);
    block[end..].copy_from_slice(&crc.to_le_bytes());
    block
}

/// How often each kind of change was tried on a target; printed for `cargo xtask tamper`.
#[derive(Default)]
pub(crate) struct Tried(BTreeMap<&'static str, u64>);

impl Tried {
    pub(crate) fn one(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// Says what was tried on this target: all of these kinds, and so many in all at least.
    pub(crate) fn expect(&self, target: &str, kinds: &[&str], at_least: u64) {
        for (kind, count) in &self.0 {
            println!("tried\t{target}\t{kind}\t{count}");
        }
        assert_eq!(self.0.keys().copied().collect::<Vec<_>>(), kinds, "{target}");
        let all: u64 = self.0.values().sum();
        assert!(all >= at_least, "{target}: {all}");
    }
}

/// What a change was, and where.
struct Change {
    bytes: Vec<u8>,
    kind: &'static str,
    what: String,
    /// Is one of these named by a problem?
    stream: Option<(StreamId, Seq)>,
    index: Option<u64>,
    /// Bytes of the changed bundle in which a place may lie.
    range: Option<Range<usize>>,
    /// May it have changed nothing but how a block's text is packed?
    packed_anew: bool,
}

impl Change {
    fn new(bytes: Vec<u8>, kind: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { bytes, kind, what, stream: None, index: None, range: None, packed_anew: false }
    }
}

fn offset(problem: &Problem) -> Option<usize> {
    problem.place.rsplit_once("byte ")?.1.parse().ok()
}

fn is_located(change: &Change, problem: &Problem) -> bool {
    let block = change.stream.is_some_and(|(stream, seq)| {
        problem.stream == Some(stream)
            && problem.blocks.is_some_and(|(first, last)| first <= seq && seq <= last)
    });
    let entry = change.index.is_some_and(|index| {
        problem.entries.is_some_and(|(first, last)| first <= index && index <= last)
    });
    let byte = change
        .range
        .as_ref()
        .is_some_and(|range| offset(problem).is_some_and(|at| range.start <= at && at < range.end));
    block || entry || byte
}

/// What a bundle's blocks say, however they are packed: zstd has more than one frame for a text.
fn said(bundle: &[u8]) -> Vec<(Vec<u8>, Option<[u8; 64]>, custody_event::block::Opened)> {
    let (records, _) = cut(bundle);
    let blocks = records.iter().filter(|record| record.kind == 8).map(|record| {
        let block = Block::decode(&record.content[body_at(&record.content)..]).unwrap();
        let signature = block.signature().copied();
        (block.header_bytes().to_vec(), signature, block.open().unwrap())
    });
    blocks.collect()
}

fn assert_told(seed: u64, change: &Change, report: &Report) {
    assert!(!report.verified, "seed {seed}: not detected: {}\n{}", change.what, report.to_text());
    let nowhere = change.stream.is_none() && change.index.is_none() && change.range.is_none();
    assert!(
        nowhere || report.problems.iter().any(|problem| is_located(change, problem)),
        "seed {seed}: not located: {}\n{}",
        change.what,
        report.to_text()
    );
}

/// Changes bytes and nothing else: damage, or somebody clumsy.
fn clumsy(rng: &mut Rng, bundle: &[u8]) -> Change {
    let (_, ranges) = cut(bundle);
    let hit = rng.below(ranges.len());
    let at = ranges[hit].start + rng.below(ranges[hit].len());
    let mut bytes = bundle.to_vec();
    let mut change = match rng.below(5) {
        0 => {
            bytes[at] ^= 1 << rng.below(8);
            Change::new(bytes, "flip", format!("flip at {at}"))
        }
        1 => {
            bytes.truncate(at);
            let start = ranges[hit].start;
            let mut change = Change::new(bytes, "cut", format!("cut at {at}"));
            // A cut between two records leaves nothing behind that has a place.
            change.range = (start < at).then_some(start..at + 1);
            return change;
        }
        2 => {
            let len = 1 + rng.below(40);
            let junk: Vec<u8> = (0..len).map(|_| rng.bytes::<1>()[0]).collect();
            bytes.splice(at..at, junk);
            Change::new(bytes, "splice", format!("{len} bytes inserted at {at}"))
        }
        3 => {
            let len = (1 + rng.below(40)).min(bytes.len() - at);
            bytes.drain(at..at + len);
            Change::new(bytes, "drop", format!("{len} bytes removed at {at}"))
        }
        _ => {
            bytes[at] = bytes[at].wrapping_add(1 + rng.bytes::<1>()[0] % 255);
            Change::new(bytes, "flip", format!("byte {at} replaced"))
        }
    };
    change.range = Some(ranges[hit].start..ranges[hit].end + 64);
    change
}

/// Changes what is said, with all checksums right: somebody who knows the format.
fn skilled(rng: &mut Rng, world: &World, other: &World, bundle: &[u8]) -> Option<Change> {
    let (mut records, _) = cut(bundle);
    let blocks: Vec<usize> = (0..records.len()).filter(|at| records[*at].kind == 8).collect();
    let ordered: Vec<usize> =
        (0..records.len()).filter(|at| matches!(records[*at].kind, 7 | 8)).collect();
    let at = *blocks.get(rng.below(blocks.len()))?;
    let body = body_at(&records[at].content);
    let block = Block::decode(&records[at].content[body..]).unwrap();
    let name = (block.header.stream, block.header.seq);
    let index = Some(index_of(&records[at].content)).filter(|index| *index != u64::MAX);
    let mut stream = Some(name);
    let mut located = index;
    // Whoever makes the end anew as well has only the proofs against them.
    let anew = rng.below(2) == 0;
    let (kind, what) = match rng.below(if anew { 8 } else { 9 }) {
        0 => {
            records.remove(at);
            ("drop", "a block dropped")
        }
        1 => {
            let copy = records[at].clone();
            let to = ordered[rng.below(ordered.len())];
            records.insert(to.max(at + 1), copy);
            ("duplicate", "a block twice")
        }
        2 => {
            let to = ordered[rng.below(ordered.len())];
            if to == at {
                return None;
            }
            records.swap(at, to);
            (stream, located) = (None, None);
            ("swap", "two records swapped")
        }
        3 => {
            let from = other.blocks.values().nth(rng.below(other.blocks.len()))?;
            records[at].content.truncate(body);
            records[at].content.extend(from.encode().unwrap());
            ("splice", "a block of another collector's stream")
        }
        4 => {
            let mut block = block.clone();
            let thief = AgentKey::from_secret(&rng.bytes());
            thief.sign(&mut block);
            records[at].content.truncate(body);
            records[at].content.extend(block.encode().unwrap());
            ("re-sign", "signed again with another key")
        }
        5 => {
            // The last block of a spool, by somebody who has the agent's key: no proof tells.
            let last = index.is_none() && at == *blocks.last()?;
            let bytes = forged_event(rng, world, &block, !last)?;
            records[at].content.truncate(body);
            records[at].content.extend(bytes);
            ("re-sign", "an event altered, everything made again that can be")
        }
        6 => {
            let mut bytes = records[at].content[body..].to_vec();
            let hit = rng.below(bytes.len() - 4);
            bytes[hit] ^= 1 << rng.below(8);
            records[at].content.truncate(body);
            records[at].content.extend(with_crc(bytes));
            (stream, located) = (None, None);
            ("flip", "a flipped bit in a block, checksums made again")
        }
        7 => {
            let content = &mut records[at].content;
            let hit = rng.below(body);
            content[hit] ^= 1 << rng.below(8);
            (stream, located) = (None, None);
            ("flip", "a flipped bit in a block's place in the log")
        }
        _ => {
            let any = rng.below(records.len());
            let record = &mut records[any];
            let hit = rng.below(record.content.len());
            record.content[hit] ^= 1 << rng.below(8);
            (stream, located) = (None, None);
            ("flip", "a flipped bit in any record, checksums made again")
        }
    };
    if anew {
        end_anew(&mut records);
    }
    let mut change = Change::new(join(&records), kind, format!("{what}, end made anew: {anew}"));
    (change.stream, change.index) = (stream, located);
    change.packed_anew = what.starts_with("a flipped bit in a block, ");
    Some(change)
}

/// The block with one event changed, under a header that fits, signed by whom the forger has.
fn forged_event(rng: &mut Rng, world: &World, block: &Block, thief: bool) -> Option<Vec<u8>> {
    use custody_event::block::{Accounts, Placement, Sealer};
    let opened = block.open().ok()?;
    let mut text = Vec::new();
    for (_, event) in opened.events() {
        text.extend_from_slice(event);
        text.push(b'\n');
    }
    let at = text.windows(7).position(|window| window == b"contact")?;
    text[at] = b'k';
    let header = &block.header;
    let times = (header.first_time, header.last_time);
    let sealed = Sealer::new().unwrap().seal(&text, times, rng.bytes()).unwrap();
    let agent = world.agents.iter().find(|agent| agent.id == header.agent)?;
    // Every second forger has stolen the agent's key.
    let key =
        if thief && rng.below(2) == 0 { &agent.key } else { &AgentKey::from_secret(&rng.bytes()) };
    let mut forged = sealed.place(
        Placement {
            agent: header.agent,
            host: header.host.clone(),
            key: key.id(),
            stream: header.stream,
            seq: header.seq,
            prev: header.prev,
            sealed: header.sealed,
        },
        Accounts::default(),
    );
    key.sign(&mut forged);
    Some(forged.encode().unwrap())
}

fn judge(bytes: &[u8], trust: &Trust) -> Option<Report> {
    verify_bundle(bytes, "bundle", trust).ok()
}

fn tamper_bundles(
    tried: &mut Tried,
    first: u64,
    rounds: u64,
    make: impl Fn(&World) -> (Vec<u8>, Trust),
) {
    for seed in first..first + rounds {
        let world = World::new(seed, 2, 24);
        let other = World::new(seed + 1_000_000, 2, 12);
        let (bundle, trust) = make(&world);
        assert!(judge(&bundle, &trust).unwrap().verified);
        let mut rng = Rng::new(seed ^ 0xbad);
        for round in 0..60 {
            let change = if round % 2 == 0 {
                Some(clumsy(&mut rng, &bundle))
            } else {
                skilled(&mut rng, &world, &other, &bundle)
            };
            let Some(change) = change.filter(|change| change.bytes != bundle) else { continue };
            tried.one(change.kind);
            // Nothing but the first bytes can make it no bundle at all.
            if let Some(report) = judge(&change.bytes, &trust) {
                if report.verified && change.packed_anew && said(&change.bytes) == said(&bundle) {
                    continue;
                }
                assert_told(seed, &change, &report);
            } else {
                assert!(change.bytes.len() < 8, "seed {seed}: {}", change.what);
            }
        }
    }
}

/// What a bundle of this kind goes through.
const KINDS: [&str; 7] = ["cut", "drop", "duplicate", "flip", "re-sign", "splice", "swap"];
/// And what is done to a log as a whole.
pub(crate) const ALL_KINDS: [&str; 9] =
    ["cut", "drop", "duplicate", "flip", "re-sign", "rewrite", "roll back", "splice", "swap"];

#[test]
fn every_change_of_a_bundle_is_detected_and_located() {
    let rounds = rounds();
    let first = number("CUSTODY_TAMPER_SEED", 1);
    let log = |world: &World| Trust { log: Some(world.vkey()), ..Trust::default() };
    let mut tried = Tried::default();
    tamper_bundles(&mut tried, first, 10 * rounds, |world| {
        (world.log_bundle(0, world.log.size(), |_| true), log(world))
    });
    tamper_bundles(&mut tried, first, 8 * rounds, |world| {
        let (from, size) = (world.log.size() / 3, world.log.size());
        (world.log_bundle(from, size, |event| event[event.len() / 2] % 2 == 0), log(world))
    });
    tamper_bundles(&mut tried, first, 8 * rounds, |world| (world.streams_bundle(), log(world)));
    for seed in first..first + 20 * rounds {
        put_back(seed);
        tried.one("roll back");
        rewritten(seed);
        tried.one("rewrite");
    }
    tried.expect("bundle", &ALL_KINDS, 1_300 * rounds);
    let mut tried = Tried::default();
    tamper_bundles(&mut tried, first, 8 * rounds, |world| {
        let agent = Some(world.agents[1].first_key.public());
        (world.spool_bundle(1), Trust { agent, ..Trust::default() })
    });
    tried.expect("spool's export", &KINDS, 400 * rounds);
}

/// A bundle from before is an honest bundle of a shorter log: it is no harm, and it is said.
fn put_back(seed: u64) {
    let world = World::new(seed, 2, 20);
    let size = world.log.size();
    let trust =
        Trust { log: Some(world.vkey()), checkpoint: Some(world.checkpoint()), ..Trust::default() };
    let (mut records, _) = cut(&world.log_bundle(0, size / 2, |_| true));
    let note = world.checkpoint_at(size / 2);
    records.retain(|record| record.kind != 5);
    for record in &mut records {
        match record.kind {
            3 => record.content = note.clone().into_bytes(),
            6..=8 => {
                let body = record.content.split_off(body_at(&record.content));
                let index = index_of(&record.content);
                let mut prover = Prover::new(&world.log, size / 2);
                let path = prover.inclusion(index).unwrap();
                record.content = index.to_le_bytes().to_vec();
                record.content.push(u8::try_from(path.len()).unwrap());
                path.iter().for_each(|hash| record.content.extend_from_slice(&hash.0));
                record.content.extend(body);
            }
            _ => {}
        }
    }
    end_anew(&mut records);
    let report = judge(&join(&records), &trust).unwrap();
    assert!(report.verified, "{}", report.to_text());
    let said = "the end is missing, or the bundle is older than the checkpoint";
    assert!(report.to_text().contains(said), "{}", report.to_text());
}

/// A log that is rewritten whole is told by its key, or by an older checkpoint.
fn rewritten(seed: u64) {
    let world = World::new(seed, 2, 20);
    let forger = World::new(seed + 500, 2, 20);
    let bundle = forger.log_bundle(0, forger.log.size(), |_| true);
    let trust = Trust { log: Some(world.vkey()), ..Trust::default() };
    assert!(!judge(&bundle, &trust).unwrap().verified);
    // Whoever has stolen the log's key still does not continue what was shown before.
    let stolen = NoteKey::new(ORIGIN, &[1; 32]).unwrap();
    let note = Checkpoint::new(ORIGIN, world.head_at(9)).sign(&stolen);
    let later = Checkpoint::new(ORIGIN, forger.log.head()).sign(&stolen);
    let vkey = stolen.verifier(KeyType::Ed25519);
    let trust = Trust { log: Some(vkey), checkpoint: Some(note), ..Trust::default() };
    let mut records = cut(&bundle).0;
    for record in &mut records {
        match record.kind {
            2 => record.content = trust.log.as_ref().unwrap().to_string().into_bytes(),
            3 => record.content = later.clone().into_bytes(),
            _ => {}
        }
    }
    let report = judge(&join(&records), &trust).unwrap();
    assert!(!report.verified);
    assert!(report.to_text().contains("rewritten"), "{}", report.to_text());
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

fn copy_dir(from: &Path, to: &Path) {
    for path in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(path, target).unwrap();
    }
}

/// Replaces a file, read-only or not.
fn put(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Where the frames of a segment stand.
fn frames(segment: &[u8]) -> Vec<Range<usize>> {
    let (mut at, mut found) = (64, Vec::new());
    while at + 16 < segment.len() {
        let len = |from: usize| {
            usize::try_from(u32::from_le_bytes(segment[from..from + 4].try_into().unwrap()))
                .unwrap()
        };
        let frame = 20 + len(at + 4) + len(at + 8);
        found.push(at..at + frame);
        at += frame;
    }
    found
}

fn change_dir(
    rng: &mut Rng,
    root: &Path,
    world: &World,
    other: &World,
) -> Option<(&'static str, String)> {
    let all: Vec<PathBuf> =
        files(root).into_iter().filter(|path| !path.ends_with("evidence/durable")).collect();
    let path = all[rng.below(all.len())].clone();
    let bytes = std::fs::read(&path).unwrap();
    let at = rng.below(bytes.len());
    let name = path.strip_prefix(root).unwrap().display().to_string();
    let mut changed = bytes.clone();
    let (kind, what) = match rng.below(9) {
        0 | 1 => {
            changed[at] ^= 1 << rng.below(8);
            ("flip", format!("flip at {at}"))
        }
        2 => {
            changed.truncate(at);
            ("cut", format!("cut at {at}"))
        }
        3 => {
            std::fs::remove_file(&path).unwrap();
            return Some(("drop", format!("{name}: removed")));
        }
        4 => {
            let end = (at + 1 + rng.below(300)).min(changed.len());
            changed.drain(at..end);
            ("drop", format!("{at}..{end} taken out"))
        }
        _ if !name.ends_with(".seg") => return None,
        5 => {
            let found = frames(&bytes);
            let frame = found[rng.below(found.len())].clone();
            changed.drain(frame.clone());
            ("drop", format!("the frame {frame:?} taken out"))
        }
        6 => {
            let found = frames(&bytes);
            let (a, b) = (rng.below(found.len()), rng.below(found.len()));
            let (a, b) = (found[a.min(b)].clone(), found[a.max(b)].clone());
            if a == b {
                return None;
            }
            changed = [
                &bytes[..a.start],
                &bytes[b.clone()],
                &bytes[a.end..b.start],
                &bytes[a.clone()],
                &bytes[b.end..],
            ]
            .concat();
            ("swap", format!("the frames {a:?} and {b:?} swapped"))
        }
        7 => {
            let found = frames(&bytes);
            let frame = found[rng.below(found.len())].clone();
            let copy = bytes[frame.clone()].to_vec();
            changed.splice(frame.end..frame.end, copy);
            ("duplicate", format!("the frame {frame:?} twice"))
        }
        _ => {
            let found = frames(&bytes);
            let frame = found[rng.below(found.len())].clone();
            let receipt = usize::try_from(u32::from_le_bytes(
                bytes[frame.start + 4..frame.start + 8].try_into().unwrap(),
            ))
            .unwrap();
            let block = &bytes[frame.start + 16 + receipt..frame.end - 4];
            let block = Block::decode(block).unwrap();
            let (kind, forged) = if rng.below(2) == 0 {
                ("re-sign", forged_event(rng, world, &block, true)?)
            } else {
                let from = other.blocks.values().nth(rng.below(other.blocks.len()))?;
                ("splice", from.encode().unwrap())
            };
            let mut framed = Vec::new();
            crate::common::push_frame(&forged, &mut framed);
            changed.splice(frame.clone(), framed);
            (kind, format!("the frame {frame:?} forged"))
        }
    };
    if changed == bytes {
        return None;
    }
    put(&path, &changed);
    Some((kind, format!("{name}: {what}")))
}

#[test]
fn every_change_of_a_collectors_directory_is_detected_and_located() {
    let rounds = rounds();
    let first = number("CUSTODY_TAMPER_SEED", 1);
    let mut tried = Tried::default();
    for seed in first..first + 12 * rounds {
        let world = World::new(seed, 2, if seed % 4 == 0 { 270 } else { 30 });
        let other = World::new(seed + 1_000_000, 2, 12);
        let trust = Trust { log: Some(world.vkey()), ..Trust::default() };
        let mut rng = Rng::new(seed ^ 0xd1e);
        let (folder, untouched) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        world.write_dir(untouched.path(), 7);
        assert!(verify_dir(untouched.path(), &trust).unwrap().verified);
        for _ in 0..60 {
            std::fs::remove_dir_all(folder.path()).unwrap();
            copy_dir(untouched.path(), folder.path());
            let changed = change_dir(&mut rng, folder.path(), &world, &other);
            let Some((kind, what)) = changed else { continue };
            tried.one(kind);
            let report = verify_dir(folder.path(), &trust).unwrap();
            let behind =
                report.notes.iter().any(|note| note.contains("behind what was acknowledged"));
            assert!(!report.verified || behind, "seed {seed}: {what}\n{}", report.to_text());
            let file = what.split(": ").next().unwrap();
            let located = report.problems.iter().any(|problem| {
                problem.place.contains(file)
                    || problem.blocks.is_some()
                    || problem.entries.is_some()
                    || (file.starts_with("tlog") && problem.text.contains(&file[5..]))
            });
            assert!(behind || located, "seed {seed}: {what} is not located\n{}", report.to_text());
        }
    }
    for seed in first..first + 8 * rounds {
        directory_put_back(seed);
        tried.one("roll back");
        directory_rewritten(seed);
        tried.one("rewrite");
    }
    tried.expect("directory", &ALL_KINDS, 400 * rounds);
}

/// Another history under the same name, all of it whole: told by the log's key, and where that was
/// stolen by what an agent holds.
fn directory_rewritten(seed: u64) {
    let (world, forger) = (World::new(seed, 2, 20), World::new(seed + 500, 2, 21));
    let folder = tempfile::tempdir().unwrap();
    forger.write_dir(folder.path(), 7);
    let trust = Trust { log: Some(world.vkey()), ..Trust::default() };
    assert!(!verify_dir(folder.path(), &trust).unwrap().verified);
    let shown = Checkpoint::new(ORIGIN, world.head_at(9)).sign(&forger.key);
    let trust = Trust { log: Some(forger.vkey()), checkpoint: Some(shown), ..Trust::default() };
    let report = verify_dir(folder.path(), &trust).unwrap();
    assert!(!report.verified && report.to_text().contains("rewritten"), "{}", report.to_text());
}

/// An older state, whole in itself: told by an agent's newest checkpoint.
fn directory_put_back(seed: u64) {
    let older = World::new(seed, 2, 20);
    let newer = World::new(seed, 2, 21);
    let folder = tempfile::tempdir().unwrap();
    older.write_dir(folder.path(), 7);
    let trust =
        Trust { log: Some(newer.vkey()), checkpoint: Some(newer.checkpoint()), ..Trust::default() };
    let report = verify_dir(folder.path(), &trust).unwrap();
    assert!(!report.verified, "{}", report.to_text());
    let entry = Entry::decode(newer.entries.last().unwrap()).unwrap();
    assert!(matches!(entry, Entry::Block(_)));
}

/// Puts a checkpoint into the directory as an agent has cosigned it.
fn put_cosigned(root: &Path, world: &World, who: usize, signer: usize, note: &str) {
    let agent = &world.agents[who];
    let key = world.agents[signer].key.witness(&agent.id);
    let line = custody_evidence::note::cosign(note, &key, 1_790_000_000).unwrap();
    let folder = root.join("tlog/witness");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(agent.id.to_hex()), format!("{note}{line}")).unwrap();
}

#[test]
fn what_an_agent_cosigned_tells_a_rewritten_log_even_of_a_thief_of_the_logs_key() {
    for seed in 0..5 {
        let world = World::new(seed, 2, 20);
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        world.write_dir(root, 7);
        put_cosigned(root, &world, 0, 0, &world.checkpoint_at(9));
        put_cosigned(root, &world, 1, 1, &world.checkpoint());
        let judged = || verify_dir(root, &Trust::default()).unwrap();
        let report = judged();
        assert!(report.verified, "{}", report.to_text());
        let said = format!(
            "2 agents have cosigned the log; the newest of it the first {}",
            world.log.size()
        );
        assert!(report.to_text().contains(&said), "{}", report.to_text());

        let other = TreeHead { root: Digest::of(b"another history"), size: 9 };
        let beyond = TreeHead { size: world.log.size() + 1, ..other };
        let sign = |head| Checkpoint::new(ORIGIN, head).sign(&world.key);
        for (signer, note, what) in [
            (0, sign(other), "was shown other 9 entries"),
            (0, sign(beyond), "and the log has"),
            // Not this agent's hand.
            (1, world.checkpoint_at(9), "cosignature of agent"),
        ] {
            put_cosigned(root, &world, 0, signer, &note);
            let report = judged();
            assert!(!report.verified, "{what}");
            assert!(report.to_text().contains(what), "{what}: {}", report.to_text());
        }
    }
}
