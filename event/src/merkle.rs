//! RFC 6962 (RFC 9162 §2.1) Merkle hashing over the events of one block.
//!
//! A leaf is SHA-256(0x00 ‖ salt ‖ event). The salt is 16 bytes, derived from the block's random
//! secret and the event's index: a sparse block may show a bare leaf without giving its event away
//! to somebody who guesses, and may show (salt, event) of one event without unsalting another.

use sha2::{Digest as _, Sha256};

use crate::ids::Digest;

/// A block's random secret.
pub type Secret = [u8; 32];
/// What is hashed before an event.
pub type Salt = [u8; 16];

/// Salts in the order of their indices: two from each hash.
#[derive(Debug)]
pub struct Salts<'a> {
    secret: &'a Secret,
    next: u32,
    pair: [u8; 32],
}

impl<'a> Salts<'a> {
    /// All the salts of a block, from index 0.
    #[must_use]
    pub fn new(secret: &'a Secret) -> Self {
        Self { secret, next: 0, pair: [0; 32] }
    }
}

impl Iterator for Salts<'_> {
    type Item = Salt;

    fn next(&mut self) -> Option<Salt> {
        let index = self.next;
        self.next = index.checked_add(1)?;
        let mut salt = [0; 16];
        if index.is_multiple_of(2) {
            self.pair = salt_pair(self.secret, index / 2);
            salt.copy_from_slice(&self.pair[..16]);
        } else {
            salt.copy_from_slice(&self.pair[16..]);
        }
        Some(salt)
    }
}

/// SHA-256(secret ‖ number of the pair, 4 bytes little endian): the salts 2n and 2n+1.
fn salt_pair(secret: &Secret, pair: u32) -> [u8; 32] {
    let mut input = [0_u8; 36];
    input[..32].copy_from_slice(secret);
    input[32..].copy_from_slice(&pair.to_le_bytes());
    Sha256::digest(input).into()
}

/// A leaf's hash.
#[must_use]
pub fn leaf(salt: &Salt, event: &[u8]) -> Digest {
    let mut prefix = [0_u8; 17];
    prefix[1..].copy_from_slice(salt);
    let mut hash = Sha256::new();
    hash.update(prefix);
    hash.update(event);
    Digest(hash.finalize().into())
}

/// An interior node's hash: SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node(left: &Digest, right: &Digest) -> Digest {
    let mut input = [0_u8; 65];
    input[0] = 1;
    input[1..33].copy_from_slice(&left.0);
    input[33..].copy_from_slice(&right.0);
    Digest(Sha256::digest(input).into())
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
        let count = leaves.len();
        for pair in 0..count / 2 {
            leaves[pair] = node(&leaves[2 * pair], &leaves[2 * pair + 1]);
        }
        if count % 2 == 1 {
            leaves[count / 2] = leaves[count - 1];
        }
        leaves.truncate(count.div_ceil(2));
    }
    leaves[0]
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn salts_differ_from_each_other_and_depend_on_the_secret() {
        let salts: std::collections::HashSet<Salt> = Salts::new(&[1; 32]).take(1000).collect();
        assert_eq!(salts.len(), 1000);
        assert!(Salts::new(&[2; 32]).take(1000).all(|salt| !salts.contains(&salt)));
    }
}
