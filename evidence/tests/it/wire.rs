//! What comes over the wire to an agent: answers to blocks, changed by somebody on the way or by a
//! collector that lies. The agent, as the witness that it is, believes none of them.
//!
//! `CUSTODY_TAMPER_ROUNDS` multiplies the changes, see `tamper`.

use custody_event::Digest;
use custody_evidence::tlog::{Prover, TreeHead};
use custody_evidence::{Checkpoint, KeyType, LogReceipt, NoteKey, Witness};

use crate::common::{ORIGIN, Rng, World};

/// The answer for the entry at `index` out of a log of `size`, to somebody who knows `from`.
fn receipt(world: &World, index: u64, from: u64, size: u64) -> LogReceipt {
    let mut prover = Prover::new(&world.log, size);
    LogReceipt {
        checkpoint: world.checkpoint_at(size),
        consistency: prover.consistency(from).unwrap(),
        from,
        inclusion: prover.inclusion(index).unwrap(),
        index,
    }
}

fn flip_in(digests: &mut [Digest], rng: &mut Rng) {
    if !digests.is_empty() {
        let at = rng.below(digests.len());
        digests[at].0[rng.below(32)] ^= 1 << rng.below(8);
    }
}

fn shuffle(digests: &mut Vec<Digest>, rng: &mut Rng) -> &'static str {
    if digests.is_empty() {
        digests.push(Digest::of(b"one too many"));
        return "splice";
    }
    let (one, other) = (rng.below(digests.len()), rng.below(digests.len()));
    match rng.below(4) {
        0 => {
            digests.swap(one, other);
            "swap"
        }
        1 => {
            digests.remove(one);
            "drop"
        }
        2 => {
            digests.truncate(one);
            "cut"
        }
        _ => {
            digests.insert(one, digests[other]);
            "duplicate"
        }
    }
}

/// The kind of the change, and its name.
fn change(
    rng: &mut Rng,
    world: &World,
    other: &World,
    good: &mut LogReceipt,
) -> (&'static str, &'static str) {
    let size = world.log.size();
    match rng.below(10) {
        0 => {
            let mut bytes = std::mem::take(&mut good.checkpoint).into_bytes();
            let at = rng.below(bytes.len());
            bytes[at] = b' ' + u8::try_from(rng.below(95)).unwrap();
            good.checkpoint = String::from_utf8_lossy(&bytes).into_owned();
            ("flip", "a byte of the checkpoint")
        }
        1 => {
            flip_in(&mut good.inclusion, rng);
            ("flip", "a bit of the inclusion proof")
        }
        2 => {
            flip_in(&mut good.consistency, rng);
            ("flip", "a bit of the consistency proof")
        }
        3 => (shuffle(&mut good.inclusion, rng), "the inclusion proof's order or length"),
        4 => (shuffle(&mut good.consistency, rng), "the consistency proof's order or length"),
        5 => {
            good.index = rng.next() % (size + 3);
            ("swap", "the index")
        }
        6 => {
            let (index, from) = (good.index.min(other.log.size() - 1), good.from);
            *good = receipt(other, index, from.min(other.log.size()), other.log.size());
            ("splice", "another log's answer")
        }
        7 => {
            let thief = NoteKey::new(ORIGIN, &rng.bytes()).unwrap();
            let head = TreeHead { root: Digest(rng.bytes()), size: size + 1 };
            good.checkpoint = Checkpoint::new(ORIGIN, head).sign(&thief);
            ("re-sign", "a checkpoint signed by another key")
        }
        8 => {
            // An answer from before, signed by the log: it is shorter than what was known.
            let before = (good.from - 1).max(1);
            *good = receipt(world, good.index.min(before - 1), before, before);
            ("roll back", "an answer from before")
        }
        _ => {
            // The log's own key: a collector that shows another history.
            let head = TreeHead { root: Digest(rng.bytes()), size };
            good.checkpoint = Checkpoint::new(ORIGIN, head).sign(&world.key);
            ("rewrite", "another history, signed by the log's key")
        }
    }
}

#[test]
fn no_changed_answer_is_believed_and_the_true_one_still_is() {
    let rounds = crate::tamper::rounds();
    let (world, other) = (World::new(21, 2, 150), World::new(22, 2, 150));
    let mut rng = Rng::new(23);
    let size = world.log.size();
    let mut tried = crate::tamper::Tried::default();
    for _ in 0..2_000 * rounds {
        let known = 2 + rng.next() % (size - 2);
        let index = rng.next() % size;
        let entry = &world.entries[usize::try_from(index).unwrap()];
        let mut witness = Witness::new(world.key.verifier(KeyType::Ed25519));
        witness.accept(&world.checkpoint_at(known), 0, &[]).unwrap();
        let before = witness.note().map(str::to_owned);
        let good = receipt(&world, index, known, size);
        let mut bad = good.clone();
        let (kind, what) = change(&mut rng, &world, &other, &mut bad);
        if bad == good {
            continue;
        }
        assert!(witness.accept_receipt(&bad, entry).is_err(), "{what}: {bad:?} for {good:?}");
        assert_eq!(witness.note().map(str::to_owned), before, "{what}");
        tried.one(kind);
        witness.accept_receipt(&good, entry).unwrap();
    }
    tried.expect("answer on the wire", &crate::tamper::ALL_KINDS, 1_500 * rounds);
}

#[test]
fn an_answer_to_one_block_is_none_to_another() {
    let world = World::new(31, 2, 60);
    let size = world.log.size();
    let mut witness = Witness::new(world.key.verifier(KeyType::Ed25519));
    for index in 0..size {
        let entry = &world.entries[usize::try_from((index + 1) % size).unwrap()];
        assert!(witness.accept_receipt(&receipt(&world, index, 0, size), entry).is_err());
    }
    assert_eq!(witness.size(), 0);
}
