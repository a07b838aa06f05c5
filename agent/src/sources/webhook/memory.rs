//! Which deliveries are stored already: asked before anything is stored, kept in the spool in the
//! same atomic batch as the events.
//!
//! **Limits.** The newest so many of an endpoint are remembered; the oldest are forgotten, in the
//! spool too. A delivery costs about 150 bytes in memory and as much on disk.
//!
//! **A delivery that needs several blocks** leaves with each how many of its records are stored, so
//! that after a crash between two the rest is stored when it comes again, and nothing twice.

use std::collections::{BTreeMap, HashMap};

use custody_event::ids::{parse_hex, push_hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::sources::{Mark, SavedMarks};

/// A delivery's name: a digest of the sender's id.
pub(crate) type Name = [u8; 16];

/// What is known of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Met {
    /// It is new, or only so many of its records are stored; it is taken as under way from now on.
    Take {
        /// Records that are stored.
        stored: u64,
    },
    /// The same is under way.
    UnderWay,
    /// It is stored.
    Stored,
    /// Another body came under the same id.
    Other,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    number: u64,
    body: [u8; 8],
    /// Records that are stored; `None`: all.
    part: Option<u64>,
    under_way: bool,
}

/// As it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// In which order they came.
    n: u64,
    /// Digest of the body, hex.
    b: String,
    /// Records that are stored, where not all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<u64>,
}

/// The deliveries of one endpoint.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    next: u64,
    by_name: HashMap<Name, Held>,
    order: BTreeMap<u64, Name>,
}

pub(crate) fn name_of(delivery: &str) -> Name {
    cut(delivery.as_bytes())
}

pub(crate) fn body_digest(body: &[u8]) -> [u8; 8] {
    cut(body)
}

fn cut<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&Sha256::digest(bytes)[..N]);
    out
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    push_hex(bytes, &mut out);
    out
}

/// A delivery's key in the spool.
pub(crate) fn key(name: &Name) -> Vec<u8> {
    [&b"delivery/"[..], &hex(name)].concat()
}

impl Memory {
    /// From what the spool kept.
    pub(crate) fn new(limit: usize, saved: &SavedMarks) -> Self {
        let mut memory = Self { limit, next: 0, by_name: HashMap::new(), order: BTreeMap::new() };
        for (key, value) in saved {
            let Some((name, held)) = read(key, value) else {
                log::warn!("what the spool remembers of a delivery cannot be read");
                continue;
            };
            memory.next = memory.next.max(held.number + 1);
            memory.order.insert(held.number, name);
            memory.by_name.insert(name, held);
        }
        memory
    }

    /// A delivery has come.
    pub(crate) fn meet(&mut self, name: Name, body: [u8; 8]) -> Met {
        if let Some(held) = self.by_name.get_mut(&name) {
            return match held {
                held if held.body != body => Met::Other,
                Held { under_way: true, .. } => Met::UnderWay,
                Held { part: None, .. } => Met::Stored,
                Held { part: Some(stored), under_way, .. } => {
                    *under_way = true;
                    Met::Take { stored: *stored }
                }
            };
        }
        let number = self.next;
        self.next += 1;
        self.order.insert(number, name);
        self.by_name.insert(name, Held { number, body, part: Some(0), under_way: true });
        Met::Take { stored: 0 }
    }

    /// The value that says that so many of its records are stored; `None`: all.
    pub(crate) fn value(&self, name: &Name, part: Option<u64>) -> Vec<u8> {
        let Some(held) = self.by_name.get(name) else { return Vec::new() };
        let body = String::from_utf8(hex(&held.body)).unwrap_or_default();
        serde_json::to_vec(&Kept { n: held.number, b: body, p: part }).unwrap_or_default()
    }

    /// Forgets the oldest that are too many: what the spool must forget with it.
    pub(crate) fn too_many(&mut self) -> Vec<Mark> {
        let mut forgotten = Vec::new();
        while self.by_name.len() > self.limit {
            let is_idle = |name: &Name| self.by_name.get(name).is_none_or(|held| !held.under_way);
            let oldest = self.order.iter().find(|(_, name)| is_idle(name));
            let Some((number, name)) = oldest.map(|(number, name)| (*number, *name)) else { break };
            self.order.remove(&number);
            self.by_name.remove(&name);
            forgotten.push(Mark { key: key(&name), value: None, also_when_dropped: true });
        }
        forgotten
    }

    /// It is stored, or it is not.
    pub(crate) fn settle(&mut self, name: &Name, stored: bool) {
        let Some(held) = self.by_name.get_mut(name) else { return };
        held.under_way = false;
        if stored {
            held.part = None;
        } else if held.part == Some(0) {
            self.order.remove(&held.number);
            self.by_name.remove(name);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }
}

fn read(key: &[u8], value: &[u8]) -> Option<(Name, Held)> {
    let name = std::str::from_utf8(key.strip_prefix(b"delivery/")?).ok()?;
    let kept: Kept = serde_json::from_slice(value).ok()?;
    let held = Held { number: kept.n, body: parse_hex(&kept.b)?, part: kept.p, under_way: false };
    Some((parse_hex(name)?, held))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_taken_once_and_again_after_it_failed() {
        let mut memory = Memory::new(10, &Vec::new());
        let (name, body) = (name_of("one"), body_digest(b"{}"));
        assert_eq!(memory.meet(name, body), Met::Take { stored: 0 });
        assert_eq!(memory.meet(name, body), Met::UnderWay);
        memory.settle(&name, false);
        assert_eq!(memory.meet(name, body), Met::Take { stored: 0 });
        memory.settle(&name, true);
        assert_eq!(memory.meet(name, body), Met::Stored);
        assert_eq!(memory.meet(name, body_digest(b"[]")), Met::Other);
    }

    #[test]
    fn what_the_spool_kept_is_known_again_and_a_part_is_gone_on_with() {
        let mut memory = Memory::new(10, &Vec::new());
        let body = body_digest(b"{}");
        let mut saved = Vec::new();
        for (id, part) in [("whole", None), ("part", Some(3))] {
            let name = name_of(id);
            memory.meet(name, body);
            saved.push((key(&name), memory.value(&name, part)));
        }
        let mut memory = Memory::new(10, &saved);
        assert_eq!(memory.meet(name_of("whole"), body), Met::Stored);
        assert_eq!(memory.meet(name_of("part"), body), Met::Take { stored: 3 });
        assert_eq!(memory.meet(name_of("new"), body), Met::Take { stored: 0 });
    }

    #[test]
    fn the_oldest_are_forgotten_but_none_that_is_under_way() {
        let mut memory = Memory::new(2, &Vec::new());
        let body = body_digest(b"{}");
        for id in ["a", "b", "c", "d"] {
            memory.meet(name_of(id), body);
        }
        memory.settle(&name_of("b"), true);
        memory.settle(&name_of("c"), true);
        let forgotten: Vec<_> = memory.too_many().into_iter().map(|mark| mark.key).collect();
        assert_eq!(forgotten, [key(&name_of("b")), key(&name_of("c"))]);
        assert_eq!(memory.meet(name_of("a"), body), Met::UnderWay);
        assert_eq!(memory.len(), 2);
    }
}
