//! Keys that come, go and are stolen; proofs of single events; what an agent refuses.

use custody_event::{Digest, Seq, Timestamp};
use custody_evidence::entry::{Enrolled, ForkAccepted, Revoked, Rotated};
use custody_evidence::keyring::KeyringError;
use custody_evidence::note::NoteError;
use custody_evidence::proof::EventProof;
use custody_evidence::tlog::{Prover, TreeHead};
use custody_evidence::verify::{Trust, verify_bundle, verify_dir};
use custody_evidence::witness::Refused;
use custody_evidence::{AgentKey, Entry, Keyring, LogReceipt, PublicKey, Signed, Witness};

use crate::common::World;

/// A ring with everything that the log says before `end`.
fn ring(world: &World, end: u64) -> Keyring {
    let mut ring = Keyring::new();
    for (index, bytes) in (0..end).zip(&world.entries) {
        let entry = Entry::decode(bytes).unwrap();
        ring.apply(Some(index), &entry, Some(&world.vkey().public())).unwrap();
    }
    ring
}

#[test]
fn every_block_is_good_at_its_place_and_a_retired_key_signs_nothing_more() {
    let mut world = World::new(21, 2, 40);
    let old = AgentKey::from_secret(&[0x55; 32]);
    world.rotate(1);
    world.block(1, 2);
    let ring = ring(&world, world.log.size());
    for (index, block) in &world.blocks {
        ring.check(&Signed::of_block(block).unwrap(), Some(*index)).unwrap();
    }
    // The same block, signed with the key before the rotation.
    let (index, last) = world.blocks.last_key_value().unwrap();
    let retired = world
        .blocks
        .values()
        .rev()
        .find(|block| {
            block.header.agent == last.header.agent && block.header.key != last.header.key
        })
        .unwrap();
    let at = (Some(*index), Signed::of_block(retired).unwrap());
    let elsewhere = ring.check(&at.1, Some(index + 1));
    let other_stream = retired.header.stream != last.header.stream;
    assert_eq!(elsewhere.is_err(), other_stream, "{elsewhere:?}");
    let mut stranger = last.clone();
    old.sign(&mut stranger);
    let stranger = Signed::of_block(&stranger).unwrap();
    assert!(matches!(ring.check(&stranger, at.0), Err(KeyringError::Signature(_))));
}

#[test]
fn rotations_and_revocations_count_only_from_those_who_may() {
    let world = World::new(22, 1, 1);
    let agent = &world.agents[0];
    let log = world.vkey().public();
    let thief = AgentKey::from_secret(&[9; 32]);
    let mut ring = ring(&world, 1);
    let rotated = |by: &AgentKey, old: &AgentKey, new: &PublicKey| {
        let body = Rotated {
            agent: agent.id,
            at: Timestamp::Y2020,
            from_seq: Seq(1),
            new: new.clone(),
            old: old.id(),
            stream: agent.stream,
            v: 1,
        };
        Entry::Rotated(Signed::sign(body, by).unwrap())
    };
    let forged = rotated(&thief, &agent.first_key, &thief.public());
    assert!(matches!(ring.apply(Some(2), &forged, Some(&log)), Err(KeyringError::Statement(_))));
    let unknown = rotated(&thief, &thief, &agent.first_key.public());
    assert!(matches!(ring.apply(Some(2), &unknown, Some(&log)), Err(KeyringError::Unknown { .. })));
    let next = AgentKey::from_secret(&[10; 32]);
    let good = rotated(&agent.first_key, &agent.first_key, &next.public());
    ring.apply(Some(3), &good, Some(&log)).unwrap();
    ring.apply(Some(3), &good, Some(&log)).unwrap();
    assert_eq!(ring.current(&agent.id).unwrap().id(), next.id());
    // One old key does not name two heirs.
    let second = rotated(&agent.first_key, &agent.first_key, &thief.public());
    assert!(ring.apply(Some(4), &second, Some(&log)).is_err());
    let revoked = |by: &custody_evidence::NoteKey| {
        let body = Revoked {
            agent: agent.id,
            at: Timestamp::Y2020,
            key: next.id(),
            reason: "stolen".into(),
            v: 1,
        };
        Entry::Revoked(Signed::sign(body, by).unwrap())
    };
    let other = World::new(23, 1, 1);
    assert!(ring.apply(Some(5), &revoked(&other.key), Some(&log)).is_err());
    ring.apply(Some(5), &revoked(&world.key), Some(&log)).unwrap();
    assert!(ring.current(&agent.id).is_none());
    let after = rotated(&next, &next, &thief.public());
    assert!(matches!(ring.apply(Some(6), &after, Some(&log)), Err(KeyringError::Revoked { .. })));
}

/// The proof of an event of the block at `at`, and what it takes.
fn proof(world: &World, at: u64, index: u32) -> EventProof {
    let block = &world.blocks[&at];
    let keys: Vec<(u64, Vec<u8>)> = (0..at)
        .zip(&world.entries)
        .filter(|(_, bytes)| match Entry::decode(bytes).unwrap() {
            Entry::Enrolled(signed) => signed.body.agent == block.header.agent,
            Entry::Rotated(signed) => signed.body.agent == block.header.agent,
            _ => false,
        })
        .map(|(index, bytes)| (index, bytes.clone()))
        .collect();
    let mut prover = Prover::new(&world.log, world.log.size());
    EventProof::make(block, index, at, &keys, &world.checkpoint(), &mut prover).unwrap()
}

#[test]
fn a_proof_shows_its_event_and_nothing_else() {
    let world = World::new(31, 2, 60);
    for (at, block) in &world.blocks {
        for index in 0..block.header.count {
            let json = proof(&world, *at, index).to_json().unwrap();
            let proved = EventProof::from_json(json.as_bytes()).unwrap().verify(&world.vkey());
            let proved = proved.unwrap();
            let event = block.open().unwrap().event(index).unwrap().to_vec();
            assert_eq!(proved.event.as_bytes(), event);
            assert_eq!(proved.header.seq, block.header.seq);
        }
    }
    let (at, _) = world.blocks.iter().rfind(|(_, block)| block.header.count > 2).unwrap();
    let good = proof(&world, *at, 1);
    let sparse = world.blocks[at].to_sparse(|index, _| index == 1).unwrap();
    assert_eq!(sparse.show(0).unwrap(), None);
    assert_eq!(sparse.show(1).unwrap(), world.blocks[at].show(1).unwrap());
    let wrong = |change: &dyn Fn(&mut EventProof)| {
        let mut bad = good.clone();
        change(&mut bad);
        assert_ne!(bad, good);
        assert!(bad.verify(&world.vkey()).is_err(), "{bad:?}");
    };
    wrong(&|bad| bad.event = bad.event.replace("Jane", "June"));
    wrong(&|bad| bad.index = 0);
    wrong(&|bad| bad.log_index -= 1);
    wrong(&|bad| bad.header = bad.header.replace("\"count\":", "\"count\":1"));
    wrong(&|bad| bad.keys.clear());
    wrong(&|bad| bad.path[0] = Digest([1; 32]));
    wrong(&|bad| bad.log_path[0] = Digest([1; 32]));
    wrong(&|bad| bad.salt = "00".repeat(16));
    wrong(&|bad| bad.signature = "00".repeat(64));
    wrong(&|bad| bad.checkpoint = World::new(32, 2, 60).checkpoint());
    assert!(good.verify(&World::new(32, 1, 1).vkey()).is_err());
    let json = good.to_json().unwrap();
    for bad in ["", "{}", &json[1..], &json.replace("\"v\":1}", "\"v\":2}")] {
        assert!(EventProof::from_json(bad.as_bytes()).is_err());
    }
}

fn receipt(world: &World, index: u64, from: u64) -> LogReceipt {
    let mut prover = Prover::new(&world.log, world.log.size());
    LogReceipt {
        checkpoint: world.checkpoint(),
        consistency: prover.consistency(from).unwrap(),
        from,
        inclusion: prover.inclusion(index).unwrap(),
        index,
    }
}

#[test]
fn an_agent_follows_a_log_that_grows_and_refuses_every_other() {
    let mut world = World::new(41, 2, 10);
    let mut witness = Witness::new(world.vkey());
    for round in 0..30 {
        world.block(round % 2, 2);
        world.log.commit(true).unwrap();
        let index = world.log.size() - 1;
        let receipt = receipt(&world, index, witness.size());
        let entry = world.entries.last().unwrap().clone();
        let json = serde_json::to_string(&receipt).unwrap();
        let receipt: LogReceipt = serde_json::from_str(&json).unwrap();
        assert_eq!(witness.accept_receipt(&receipt, &entry), Ok(world.log.head()));
        assert_eq!(witness.accept_receipt(&receipt, &entry), Ok(world.log.head()));
        let other = world.entries[0].clone();
        let refused = witness.clone().accept_receipt(&receipt, &other);
        assert!(matches!(refused, Err(Refused::NotIncluded { .. })));
    }
    let mut kept = Witness::restore(world.vkey(), witness.note().unwrap()).unwrap();
    assert_eq!(kept.head(), witness.head());
    let size = world.log.size();
    // Yesterday's copy, with or without going on.
    let before = world.checkpoint_at(size - 3);
    assert_eq!(
        kept.accept(&before, size, &[]),
        Err(Refused::Shorter { before: size, now: size - 3 })
    );
    let mut fork = World::new(41, 2, 10);
    for _ in 0..40 {
        fork.block(1, 3);
    }
    fork.log.commit(true).unwrap();
    let proof = Prover::new(&fork.log, fork.log.size()).consistency(size).unwrap();
    let refused = kept.accept(&fork.checkpoint(), size, &proof);
    assert!(matches!(refused, Err(Refused::Forked { .. })), "{refused:?}");
    assert_eq!(kept.size(), size);
    // Another key, a proof from elsewhere, no proof at all.
    let stranger = World::new(42, 2, 60);
    assert!(matches!(
        kept.accept(&stranger.checkpoint(), size, &[]),
        Err(Refused::Note(NoteError::Unsigned(_) | NoteError::Wrong(_)))
    ));
    world.block(0, 1);
    world.log.commit(true).unwrap();
    assert_eq!(kept.accept(&world.checkpoint(), 1, &[]), Err(Refused::NeedsProof { needed: size }));
    assert!(matches!(kept.accept(&world.checkpoint(), size, &[]), Err(Refused::Forked { .. })));
    // An operator answers for the fork; from there on it is followed.
    kept.accept_fork(&fork.checkpoint()).unwrap();
    assert_eq!(kept.head(), Some(&fork.log.head()));
}

#[test]
fn an_accepted_fork_stays_visible_for_ever() {
    let mut world = World::new(43, 1, 5);
    let operator = AgentKey::from_secret(&[77; 32]);
    let body = ForkAccepted {
        at: Timestamp::Y2020,
        by: operator.public(),
        new: world.log.head(),
        old: TreeHead { root: Digest([5; 32]), size: 99 },
        origin: crate::common::ORIGIN.into(),
        reason: "restored from yesterday's copy after the disk was lost".into(),
        v: 1,
    };
    world.push(&Entry::ForkAccepted(Signed::sign(body, &operator).unwrap()));
    world.block(0, 2);
    world.log.commit(true).unwrap();
    let folder = tempfile::tempdir().unwrap();
    world.write_dir(folder.path(), 3);
    let report = verify_dir(folder.path(), &Trust::default()).unwrap();
    assert!(report.verified, "{}", report.to_text());
    assert!(report.notes.iter().any(|note| note.contains("yesterday's copy")));
}

/// Golden bytes: what is in logs and bundles out there must stay readable.
#[test]
fn entries_and_bundles_have_the_bytes_that_they_always_had() {
    let world = World::new(51, 2, 14);
    let mut lines = String::new();
    let mut kinds = std::collections::BTreeSet::new();
    for bytes in &world.entries {
        if kinds.insert(bytes[0]) {
            lines.push_str(&format!("entry {} {}\n", bytes[0], crate::common::hex(bytes)));
        }
    }
    let body = Enrolled {
        agent: world.agents[0].id,
        at: Timestamp::Y2020,
        host: "h".into(),
        key: world.agents[0].key.public(),
        v: 1,
    };
    assert_eq!(Signed::sign(body, &world.key).unwrap().bytes()[..9], *b"{\"agent\":");
    lines.push_str(&world.checkpoint());
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bundles = [
        ("log-v1.custody", world.log_bundle(0, world.log.size(), |event| event[60] % 2 == 0)),
        ("streams-v1.custody", world.streams_bundle()),
        ("spool-v1.custody", world.spool_bundle(1)),
    ];
    if std::env::var_os("CUSTODY_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("entries-v1.txt"), &lines).unwrap();
        for (name, bundle) in &bundles {
            std::fs::write(folder.join(name), bundle).unwrap();
        }
    }
    assert_eq!(std::fs::read_to_string(folder.join("entries-v1.txt")).unwrap(), lines);
    // A newer compressor may make other bytes of the same events: what was written must be read.
    let trust = Trust { log: Some(world.vkey()), ..Trust::default() };
    for (name, today) in &bundles {
        let kept = std::fs::read(folder.join(name)).unwrap();
        let report = verify_bundle(&kept[..], "bundle", &trust).unwrap();
        assert!(report.verified, "{name}: {}", report.to_text());
        assert_eq!(report, verify_bundle(&today[..], "bundle", &trust).unwrap());
    }
    assert_eq!(kinds.len(), 4, "a block, an enrolment, a rotation, a revocation");
    for bytes in &world.entries {
        assert_eq!(Entry::decode(bytes).unwrap().encode(), *bytes);
        for end in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..end]).is_err());
        }
    }
}
