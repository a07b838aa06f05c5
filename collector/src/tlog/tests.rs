//! The log over stops, crashes, lost files and contradictions.

use std::path::Path;
use std::sync::Arc;

use custody_event::{Block, SystemClock};
use custody_evidence::note::cosign;
use custody_evidence::segments;
use custody_evidence::tlog::TreeHead;
use custody_evidence::witness::Refused;
use custody_evidence::{AgentKey, Entry, Witness};

use super::Enrolment;
use crate::store::StoreError;
use crate::store::evidence::{Checked, EvidenceLog, Options, Outcome, TlogOptions};
use crate::testing::TestStream;

const ORIGIN: &str = "test/log";

fn stream() -> TestStream {
    TestStream::new(1, 1, "aa")
}

fn try_open(folder: &Path) -> Result<EvidenceLog, StoreError> {
    let stream = stream();
    let agent =
        Enrolment { agent: stream.agent, host: stream.host.clone(), key: stream.key.public() };
    let mut options = Options::new(1 << 20);
    options.tlog = Some(TlogOptions {
        folder: folder.join("tlog"),
        origin: ORIGIN.to_owned(),
        random: [9; 32],
        agents: vec![agent],
    });
    EvidenceLog::open(&folder.join("evidence"), &options, Arc::new(SystemClock::new()))
        .map(|(log, _)| log)
}

fn open(folder: &Path) -> EvidenceLog {
    try_open(folder).unwrap()
}

fn blocks(count: usize) -> Vec<Block> {
    let mut stream = stream();
    (0..count)
        .map(|number| {
            stream.own_event(&format!("event {number}"));
            stream.seal()
        })
        .collect()
}

fn rotated_to(new: &AgentKey, stream: &TestStream) -> Entry {
    let body = custody_evidence::entry::Rotated {
        agent: stream.agent,
        at: custody_event::Timestamp::Y2020,
        from_seq: stream.next_seq(),
        new: new.public(),
        old: stream.key.id(),
        stream: stream.stream,
        v: 1,
    };
    Entry::Rotated(custody_evidence::Signed::sign(body, &stream.key).unwrap())
}

fn checked(block: &Block) -> Arc<Checked> {
    Arc::new(Checked {
        block: block.clone(),
        bytes: block.encode().unwrap(),
        coverage: block.coverage().unwrap(),
        keys_version: 0,
        _permit: None,
    })
}

fn store(log: &EvidenceLog, block: &Block) {
    let outcome = log.submit(&checked(block)).unwrap().blocking_recv().unwrap();
    assert_eq!(outcome, Outcome::Stored { next_seq: block.header.seq.next() });
}

/// Asks for the receipt as an agent does, and judges it.
fn witnessed(log: &EvidenceLog, block: &Block, witness: &mut Witness) -> Result<TreeHead, Refused> {
    let name = (block.header.agent, block.header.stream);
    let receipt = log.receipt(&name, block.header.seq, witness.size()).unwrap().unwrap();
    witness.accept_receipt(&receipt, &Entry::of_block(block).unwrap().encode())
}

fn witness(log: &EvidenceLog) -> Witness {
    Witness::new(log.tlog().unwrap().verifier().clone())
}

fn refusal(folder: &Path) -> String {
    try_open(folder).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn every_block_gets_a_receipt_that_a_witness_accepts_over_restarts_and_tile_borders() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = blocks(600);
    let log = open(folder.path());
    let mut witness = witness(&log);
    for block in &blocks[..300] {
        store(&log, block);
        witnessed(&log, block, &mut witness).unwrap();
    }
    drop(log);
    let log = open(folder.path());
    for block in &blocks[300..] {
        store(&log, block);
        witnessed(&log, block, &mut witness).unwrap();
    }
    // One enrolment stands before all blocks.
    assert_eq!(witness.size(), 601);
    // An old block that comes again is proved again.
    witnessed(&log, &blocks[3], &mut witness).unwrap();
    drop(log);
    let trust = custody_evidence::verify::Trust::default();
    let report = custody_evidence::verify::verify_dir(folder.path(), &trust).unwrap();
    assert!(report.problems.is_empty(), "{}", report.to_text());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

#[test]
fn a_killed_collector_makes_the_same_log_again_whatever_its_last_second_left_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let saved = tempfile::tempdir().unwrap();
    let blocks = blocks(40);
    let log = open(folder.path());
    let mut witness = witness(&log);
    store(&log, &blocks[0]);
    witnessed(&log, &blocks[0], &mut witness).unwrap();
    // The tlog as it was on disk then; the segments go on.
    copy(&folder.path().join("tlog"), &saved.path().join("tlog"));
    for block in &blocks[1..] {
        store(&log, block);
        witnessed(&log, block, &mut witness).unwrap();
    }
    let before = *witness.head().unwrap();
    drop(log);
    std::fs::remove_dir_all(folder.path().join("tlog")).unwrap();
    copy(&saved.path().join("tlog"), &folder.path().join("tlog"));
    let log = open(folder.path());
    assert_eq!(log.tlog().unwrap().head(), before);
    witnessed(&log, &blocks[39], &mut witness).unwrap();
}

#[test]
fn a_log_that_contradicts_the_evidence_does_not_open_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    blocks(5).iter().for_each(|block| store(&log, block));
    drop(log);
    let tlog = folder.path().join("tlog");
    // A checkpoint, a key or the segments are gone.
    for (name, said) in [("checkpoint", "checkpoint is gone"), ("key", "the file key is gone")] {
        std::fs::rename(tlog.join(name), tlog.join("away")).unwrap();
        let error = refusal(folder.path());
        assert!(error.contains(said) && error.contains("backup"), "{error}");
        std::fs::rename(tlog.join("away"), tlog.join(name)).unwrap();
    }
    std::fs::rename(folder.path().join("evidence"), folder.path().join("away")).unwrap();
    let error = refusal(folder.path());
    assert!(error.contains("segments do not hold"), "{error}");
    std::fs::remove_dir_all(folder.path().join("evidence")).unwrap();
    std::fs::rename(folder.path().join("away"), folder.path().join("evidence")).unwrap();
    // Bytes of an entry are changed: header, signature, enrolment.
    let bundle = tlog.join("tile/entries/000.p/6");
    let whole = std::fs::read(&bundle).unwrap();
    for at in [10, 40, whole.len() - 30, whole.len() / 2] {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        std::fs::write(&bundle, &bad).unwrap();
        let error = refusal(folder.path());
        assert!(error.contains("Nothing has been changed"), "byte {at}: {error}");
    }
    std::fs::write(&bundle, &whole).unwrap();
    drop(open(folder.path()));
}

#[test]
fn a_block_of_a_replaced_key_is_refused_and_a_rotation_that_comes_twice_stands_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut stream = stream();
    stream.own_event("one");
    let first = stream.seal();
    store(&log, &first);
    let new = custody_evidence::AgentKey::from_secret(&[77; 32]);
    let rotated = rotated_to(&new, &stream);
    let index = log.state(rotated.clone()).unwrap().blocking_recv().unwrap().unwrap();
    assert_eq!(log.state(rotated).unwrap().blocking_recv().unwrap().unwrap(), index);
    stream.own_event("two");
    let stale = stream.peek();
    assert!(log.tlog().unwrap().check(&stale).unwrap_err().to_string().contains("replaced"));
    stream.key = new;
    let fresh = stream.seal();
    log.tlog().unwrap().check(&fresh).unwrap();
    store(&log, &fresh);
    let mut witness = witness(&log);
    witnessed(&log, &fresh, &mut witness).unwrap();
    witnessed(&log, &first, &mut witness).unwrap();
    drop(log);
    let log = open(folder.path());
    assert_eq!(log.tlog().unwrap().head().size, 4);
    log.tlog().unwrap().check(&fresh).unwrap();
}

#[test]
fn a_statement_whose_commit_failed_is_not_taken_for_durable_with_the_next_block() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut stream = stream();
    stream.own_event("one");
    let first = stream.seal();
    store(&log, &first);
    let new = custody_evidence::AgentKey::from_secret(&[77; 32]);
    let rotated = rotated_to(&new, &stream);
    // The checkpoint cannot be written.
    let checkpoint = folder.path().join("tlog/checkpoint");
    let away = folder.path().join("away");
    std::fs::rename(&checkpoint, &away).unwrap();
    std::fs::create_dir_all(checkpoint.join("in the way")).unwrap();
    log.state(rotated.clone()).unwrap().blocking_recv().unwrap().unwrap_err();
    stream.key = new;
    stream.own_event("two");
    let second = stream.seal();
    let outcome = log.submit(&checked(&second)).unwrap().blocking_recv().unwrap();
    assert!(matches!(outcome, Outcome::Unavailable { .. }), "{outcome:?}");
    std::fs::remove_dir_all(&checkpoint).unwrap();
    std::fs::rename(&away, &checkpoint).unwrap();
    assert_eq!(log.state(rotated).unwrap().blocking_recv().unwrap().unwrap(), 2);
    let saved = std::fs::read_to_string(&checkpoint).unwrap();
    assert_eq!(saved, *log.tlog().unwrap().checkpoint(), "what was answered is on disk");
}

#[test]
fn the_newest_cosignature_of_an_agent_is_kept_and_no_other_hands() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = blocks(3);
    let log = open(folder.path());
    let tlog = log.tlog().unwrap();
    let agent = blocks[0].header.agent;
    let cosigned = |note: &str, key: &AgentKey| {
        let line = cosign(note, &key.witness(&agent), 1_790_000_000).unwrap();
        format!("{note}{line}")
    };
    store(&log, &blocks[0]);
    let first = tlog.checkpoint();
    store(&log, &blocks[1]);
    let second = cosigned(&tlog.checkpoint(), &stream().key);
    assert_eq!(tlog.cosigned(&agent).unwrap(), None);
    // Without a cosignature there is nothing to keep.
    tlog.keep_cosigned(&agent, &first).unwrap();
    assert_eq!(tlog.cosigned(&agent).unwrap(), None);
    tlog.keep_cosigned(&agent, &second).unwrap();
    tlog.keep_cosigned(&agent, &cosigned(&first, &stream().key)).unwrap();
    assert_eq!(tlog.cosigned(&agent).unwrap().as_deref(), Some(second.as_str()));
    store(&log, &blocks[2]);
    let forged = cosigned(&tlog.checkpoint(), &AgentKey::from_secret(&[77; 32]));
    // Another key's line is nobody's that is known; a known key's that does not hold is refused.
    tlog.keep_cosigned(&agent, &forged).unwrap();
    let line = second.rsplit_once("\n\u{2014} ").unwrap().1;
    let stolen = format!("{}\u{2014} {line}", tlog.checkpoint());
    assert!(tlog.keep_cosigned(&agent, &stolen).is_err());
    assert_eq!(tlog.cosigned(&agent).unwrap().as_deref(), Some(second.as_str()));
    let trust = custody_evidence::verify::Trust::default();
    drop(log);
    let report = custody_evidence::verify::verify_dir(folder.path(), &trust).unwrap();
    assert!(report.to_text().contains("1 agents have cosigned"), "{}", report.to_text());
}

#[test]
fn a_kill_right_after_a_cosignature_does_not_look_like_a_log_that_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let blocks = blocks(12);
    let log = open(folder.path());
    let tlog = log.tlog().unwrap();
    let agent = blocks[0].header.agent;
    for (number, block) in blocks.iter().enumerate() {
        store(&log, block);
        let note = tlog.checkpoint();
        let line = cosign(&note, &stream().key.witness(&agent), 1_790_000_000).unwrap();
        tlog.keep_cosigned(&agent, &format!("{note}{line}")).unwrap();
        // The files as a kill at this instant leaves them.
        let killed = elsewhere.path().join(number.to_string());
        copy(folder.path(), &killed);
        let trust = custody_evidence::verify::Trust::default();
        let report = custody_evidence::verify::verify_dir(&killed, &trust).unwrap();
        assert!(report.problems.is_empty(), "block {number}: {}", report.to_text());
        assert!(report.to_text().contains("1 agents have cosigned"), "{}", report.to_text());
    }
}

/// Memory, where there is such a place: thousands of openings each wait for the disk several times.
fn quick_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn a_batch_that_was_torn_at_any_byte_leaves_whole_blocks_each_in_the_log_and_nothing_else() {
    let (whole, torn) = (quick_folder(), quick_folder());
    let blocks = blocks(5);
    let log = open(whole.path());
    let mut before = witness(&log);
    for block in &blocks[..2] {
        store(&log, block);
        witnessed(&log, block, &mut before).unwrap();
    }
    // The log and the mark as they are before the batch is durable; the batch is of three blocks.
    let (root, tlog) = (whole.path().join("evidence"), whole.path().join("tlog"));
    log.tlog().unwrap().save_up_to(before.size()).unwrap();
    let kept = quick_folder();
    copy(&tlog, &kept.path().join("tlog"));
    let mark = std::fs::read(root.join("durable")).unwrap();
    let path = segments::list(&root).unwrap().remove(0).path;
    let begins = std::fs::metadata(&path).unwrap().len();
    let mut ends = Vec::new();
    for block in &blocks[2..] {
        store(&log, block);
        ends.push(std::fs::metadata(&path).unwrap().len());
    }
    drop(log);
    let bytes = std::fs::read(&path).unwrap();
    let name = path.strip_prefix(whole.path()).unwrap();
    // Every byte in the long form (`CUSTODY_LONG=1`); without the log every byte is cut in any case,
    // by the tests of the evidence log.
    let is_long = std::env::var_os("CUSTODY_LONG").is_some();
    let is_edge = |cut: &u64| ends.iter().chain([&begins]).any(|end| end.abs_diff(*cut) <= 20);
    let is_cut = |cut: &u64| is_long || is_edge(cut) || cut.is_multiple_of(23);
    for cut in (begins..=ends[2]).filter(is_cut) {
        let here = torn.path().join("x");
        std::fs::create_dir_all(here.join(name).parent().unwrap()).unwrap();
        std::fs::write(here.join(name), &bytes[..usize::try_from(cut).unwrap()]).unwrap();
        std::fs::write(here.join("evidence/durable"), &mark).unwrap();
        copy(&kept.path().join("tlog"), &here.join("tlog"));

        let log = open(&here);
        let left = ends.iter().filter(|end| **end <= cut).count();
        let end = if left == 0 { begins } else { ends[left - 1] };
        assert_eq!(std::fs::metadata(here.join(name)).unwrap().len(), end, "cut at {cut}");
        // One enrolment stands before all blocks.
        assert_eq!(log.tlog().unwrap().head().size, 1 + 2 + u64::try_from(left).unwrap());
        let mut witness = before.clone();
        for block in &blocks[..2 + left] {
            witnessed(&log, block, &mut witness).unwrap();
        }
        // The sender, who has no answer, sends the rest again.
        blocks[2 + left..].iter().for_each(|block| store(&log, block));
        drop(log);
        assert_eq!(std::fs::read(here.join(name)).unwrap().len(), bytes.len(), "cut at {cut}");
        if cut.is_multiple_of(64) || ends.contains(&cut) {
            let trust = custody_evidence::verify::Trust::default();
            let report = custody_evidence::verify::verify_dir(&here, &trust).unwrap();
            assert!(report.problems.is_empty(), "cut at {cut}: {}", report.to_text());
        }
        std::fs::remove_dir_all(&here).unwrap();
    }
}
