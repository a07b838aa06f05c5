//! SHA-256 of messages whose beginning and rest stand in two places, one alone or two in turns.
//!
//! Only the compression of a chunk comes from elsewhere; here are the padding (FIPS 180-4 §5.1.1) and the order.

use sha2::block_api::compress256;

use super::{Salt, Secret, salt_pair};
use crate::ids::Digest;

/// What SHA-256 begins with (FIPS 180-4 §5.3.3).
const BEGIN: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
const CHUNK: usize = 64;
/// The length of a message stands in its last bytes.
const LENGTH: usize = 8;
/// A byte that says what is hashed, and a salt.
const BEFORE_EVENT: usize = 17;

type Chunk = [u8; CHUNK];

/// What stands before an event in its leaf.
pub(super) fn before_event(salt: &Salt) -> [u8; BEFORE_EVENT] {
    let mut before = [0; BEFORE_EVENT];
    before[1..].copy_from_slice(salt);
    before
}

/// A message as chunks: the one in which beginning and rest meet, those that stand as they are, and the padded end.
struct Message<'a> {
    first: Option<Chunk>,
    middle: &'a [Chunk],
    ends: [Chunk; 2],
    end: usize,
}

impl<'a> Message<'a> {
    /// `before` is shorter than a chunk.
    fn new(before: &[u8], rest: &'a [u8]) -> Self {
        let (mut ends, mut first) = ([[0; CHUNK]; 2], None);
        let bits = u64::try_from(before.len() + rest.len()).unwrap_or(u64::MAX).wrapping_mul(8);
        let (mut head, mut behind) = (before, rest);
        if let Some((begin, rest)) = rest.split_at_checked(CHUNK - before.len())
            && !before.is_empty()
        {
            let chunk = first.insert([0; CHUNK]);
            chunk[..before.len()].copy_from_slice(before);
            chunk[before.len()..].copy_from_slice(begin);
            (head, behind) = (&[], rest);
        }
        let (middle, tail) = if head.is_empty() { behind.as_chunks() } else { (&[][..], behind) };
        let all = ends.as_flattened_mut();
        let len = head.len() + tail.len();
        all[..head.len()].copy_from_slice(head);
        all[head.len()..len].copy_from_slice(tail);
        all[len] = 0x80;
        let end = if len + 1 + LENGTH > CHUNK { 2 } else { 1 };
        all[end * CHUNK - LENGTH..end * CHUNK].copy_from_slice(&bits.to_be_bytes());
        Self { first, middle, ends, end }
    }

    fn parts(&self) -> [&[Chunk]; 3] {
        [self.first.as_slice(), self.middle, &self.ends[..self.end]]
    }

    fn hash(&self) -> [u8; 32] {
        let mut state = BEGIN;
        for part in self.parts() {
            compress256(&mut state, part);
        }
        bytes_of(&state)
    }
}

/// The hash of one message.
pub(super) fn one(before: &[u8], rest: &[u8]) -> [u8; 32] {
    Message::new(before, rest).hash()
}

/// The hashes of two messages.
fn both(left: &Message<'_>, right: &Message<'_>) -> [Digest; 2] {
    let mut states = [BEGIN; 2];
    let [mut lefts, mut rights] =
        [left, right].map(|message| message.parts().into_iter().flatten());
    loop {
        match (lefts.next(), rights.next()) {
            (None, None) => return states.map(|state| Digest(bytes_of(&state))),
            (left, right) => {
                if let Some(chunk) = left {
                    compress256(&mut states[0], std::slice::from_ref(chunk));
                }
                if let Some(chunk) = right {
                    compress256(&mut states[1], std::slice::from_ref(chunk));
                }
            }
        }
    }
}

fn bytes_of(state: &[u32; 8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (bytes, word) in out.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    out
}

/// Appends the leaves of a block's events, in the order of their indices from 0 on.
pub fn leaves<'a>(
    secret: &Secret,
    mut events: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<Digest>,
) {
    for pair in 0_u32.. {
        let Some(left) = events.next() else { return };
        let [left_salt, right_salt] = salt_pair(secret, pair);
        let left = Message::new(&before_event(&left_salt), left);
        match events.next() {
            Some(right) => {
                out.extend(both(&left, &Message::new(&before_event(&right_salt), right)))
            }
            None => out.push(Digest(left.hash())),
        }
    }
}

/// Appends the hashes of these messages, in their order.
pub(crate) fn plain_hashes<'a>(
    mut messages: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<Digest>,
) {
    while let Some(left) = messages.next() {
        let left = Message::new(&[], left);
        match messages.next() {
            Some(right) => out.extend(both(&left, &Message::new(&[], right))),
            None => out.push(Digest(left.hash())),
        }
    }
}

/// What is hashed for the node over these two.
pub(super) fn over(left: &Digest, right: &Digest) -> [u8; 65] {
    let mut input = [0_u8; 65];
    input[0] = 1;
    input[1..33].copy_from_slice(&left.0);
    input[33..].copy_from_slice(&right.0);
    input
}

/// Puts the level above these nodes in their place; an odd last one goes up as it is.
pub(super) fn level(nodes: &mut Vec<Digest>) {
    let count = nodes.len();
    for at in (0..count / 2).step_by(2) {
        let left = over(&nodes[2 * at], &nodes[2 * at + 1]);
        if at + 1 == count / 2 {
            nodes[at] = Digest(one(&[], &left));
        } else {
            let right = over(&nodes[2 * at + 2], &nodes[2 * at + 3]);
            let above = both(&Message::new(&[], &left), &Message::new(&[], &right));
            nodes[at..at + 2].copy_from_slice(&above);
        }
    }
    if count % 2 == 1 {
        nodes[count / 2] = nodes[count - 1];
    }
    nodes.truncate(count.div_ceil(2));
}
