//! RFC 6962 (RFC 9162 §2.1) Merkle hashing over the events of one block.
//!
//! A leaf is SHA-256(0x00 ‖ salt ‖ event). The salt is 16 bytes, derived from the block's random
//! secret and the event's index: a sparse block may show a bare leaf without giving its event away
//! to somebody who guesses, and may show (salt, event) of one event without unsalting another.
//!
//! Each step of a hash waits for the one before, also where the processor has instructions for it.
//! So the hashes of a block, which do not wait for one another, are taken two at a time, a chunk of
//! each in turn: then the processor works on both.

mod two;

use crate::ids::Digest;

pub use two::leaves;
pub(crate) use two::plain_hashes;

/// A block's random secret.
pub type Secret = [u8; 32];
/// What is hashed before an event.
pub type Salt = [u8; 16];

/// Salts in the order of their indices: two from each hash.
#[derive(Debug)]
pub struct Salts<'a> {
    secret: &'a Secret,
    next: u32,
    pair: [Salt; 2],
}

impl<'a> Salts<'a> {
    /// All the salts of a block, from index 0.
    #[must_use]
    pub fn new(secret: &'a Secret) -> Self {
        Self { secret, next: 0, pair: [[0; 16]; 2] }
    }
}

impl Iterator for Salts<'_> {
    type Item = Salt;

    fn next(&mut self) -> Option<Salt> {
        let index = self.next;
        self.next = index.checked_add(1)?;
        if index.is_multiple_of(2) {
            self.pair = salt_pair(self.secret, index / 2);
        }
        Some(self.pair[usize::from(!index.is_multiple_of(2))])
    }
}

/// SHA-256(secret ‖ number of the pair, 4 bytes little endian): the salts 2n and 2n+1.
fn salt_pair(secret: &Secret, pair: u32) -> [Salt; 2] {
    let hash = two::one(secret, &pair.to_le_bytes());
    let mut salts = [[0; 16]; 2];
    salts.as_flattened_mut().copy_from_slice(&hash);
    salts
}

/// A leaf's hash.
#[must_use]
pub fn leaf(salt: &Salt, event: &[u8]) -> Digest {
    Digest(two::one(&two::before_event(salt), event))
}

/// An interior node's hash: SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node(left: &Digest, right: &Digest) -> Digest {
    Digest(two::one(&[], &two::over(left, right)))
}

/// The root over these leaves; the leaves are consumed as working space. The root of nothing is
/// the hash of nothing.
///
/// Pairing level by level and lifting an odd last node unchanged is the same tree as the RFC's
/// split at the largest power of two.
#[must_use]
pub fn root(leaves: &mut Vec<Digest>) -> Digest {
    if leaves.is_empty() {
        return Digest::of(b"");
    }
    while leaves.len() > 1 {
        two::level(leaves);
    }
    leaves[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    /// The definition of RFC 9162 §2.1.1, word for word.
    fn by_definition(leaves: &[Digest]) -> Digest {
        match leaves.len() {
            0 => Digest::of(b""),
            1 => leaves[0],
            n => {
                let split = n.next_power_of_two() / 2;
                node(&by_definition(&leaves[..split]), &by_definition(&leaves[split..]))
            }
        }
    }

    #[test]
    fn every_small_tree_has_the_root_that_the_rfc_defines() {
        let secret = [7; 32];
        let all: Vec<Digest> =
            Salts::new(&secret).take(70).map(|salt| leaf(&salt, b"event")).collect();
        for count in 0..=all.len() {
            assert_eq!(root(&mut all[..count].to_vec()), by_definition(&all[..count]), "{count}");
        }
    }

    proptest! {
        #[test]
        fn two_at_a_time_is_each_by_itself(
            lens in proptest::collection::vec(0_usize..400, 0..12), secret in any::<[u8; 32]>(),
        ) {
            let events: Vec<Vec<u8>> = lens.iter().map(|len| vec![b'x'; *len]).collect();
            let mut together = Vec::new();
            leaves(&secret, events.iter().map(Vec::as_slice), &mut together);
            let alone: Vec<Digest> = Salts::new(&secret).zip(&events).map(|(salt, event)| {
                let whole = [&[0][..], &salt, event].concat();
                Digest(Sha256::digest(whole).into())
            }).collect();
            prop_assert_eq!(&together, &alone);
            for pair in alone.windows(2) {
                let whole = [&[1][..], &pair[0].0, &pair[1].0].concat();
                prop_assert_eq!(node(&pair[0], &pair[1]).0.to_vec(), Sha256::digest(whole).to_vec());
            }
        }
    }

    #[test]
    fn salts_differ_from_each_other_and_depend_on_the_secret() {
        let salts: std::collections::HashSet<Salt> = Salts::new(&[1; 32]).take(1000).collect();
        assert_eq!(salts.len(), 1000);
        assert!(Salts::new(&[2; 32]).take(1000).all(|salt| !salts.contains(&salt)));
    }
}
