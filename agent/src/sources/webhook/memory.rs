//! Which deliveries are stored already: asked before anything is stored, kept in the spool in the
//! same atomic batch as the events.
//!
//! **In the spool.** Deliveries that became durable together are one value: name and body's digest of
//! each, one behind the other ([`GROUPED_BYTES`]), so that a block that ends early keeps as much of it
//! as it holds. A delivery of several records is a value of its own.
//!
//! **Limits.** The newest so many of an endpoint are remembered; the oldest are forgotten, in the
//! spool too, a value when all of it is. A delivery costs about 150 bytes in memory.
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

/// Bytes of each delivery in a value of several: its name and its body's digest. Zeros stand for one
/// that has no name.
pub(crate) const GROUPED_BYTES: usize = 24;

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
    /// The first number of those that are kept in one value with it.
    group: Option<u64>,
}

/// As it is kept by itself.
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
    /// How many of each value's deliveries are remembered still, by the value's first number.
    groups: BTreeMap<u64, usize>,
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

/// The key of several deliveries, by their first number.
fn group_key(first: u64) -> Vec<u8> {
    format!("deliveries/{first:016x}").into_bytes()
}

impl Memory {
    /// From what the spool kept.
    pub(crate) fn new(limit: usize, saved: &SavedMarks) -> Self {
        let mut memory = Self {
            limit,
            next: 0,
            by_name: HashMap::new(),
            order: BTreeMap::new(),
            groups: BTreeMap::new(),
        };
        for (key, value) in saved {
            let Some(all) = read(key, value) else {
                log::warn!("what the spool remembers of a delivery cannot be read");
                continue;
            };
            all.into_iter().for_each(|(name, held)| memory.hold(name, held));
        }
        memory
    }

    fn hold(&mut self, name: Name, held: Held) {
        self.next = self.next.max(held.number + 1);
        self.order.insert(held.number, name);
        if let Some(first) = held.group {
            *self.groups.entry(first).or_default() += 1;
        }
        self.by_name.insert(name, held);
    }

    /// Forgets one: the value that holds nothing any more.
    fn let_go(&mut self, name: &Name) -> Option<Vec<u8>> {
        let held = self.by_name.remove(name)?;
        self.order.remove(&held.number);
        let Some(first) = held.group else { return Some(key(name)) };
        let left = self.groups.get_mut(&first)?;
        *left -= 1;
        if *left > 0 {
            return None;
        }
        self.groups.remove(&first);
        Some(group_key(first))
    }

    /// Deliveries that become durable together, in the order of their records: key and value. The
    /// first `n` times [`GROUPED_BYTES`] of the value say that the first `n` are stored.
    pub(crate) fn group(&mut self, names: &[Option<Name>]) -> (Vec<u8>, Vec<u8>) {
        let first = self.next;
        let mut value = Vec::with_capacity(names.len() * GROUPED_BYTES);
        for name in names {
            let number = self.next;
            self.next += 1;
            let held = name.as_ref().and_then(|name| Some((name, self.by_name.get_mut(name)?)));
            let Some((name, held)) = held else {
                value.extend_from_slice(&[0; GROUPED_BYTES]);
                continue;
            };
            self.order.remove(&held.number);
            (held.number, held.group) = (number, Some(first));
            value.extend_from_slice(name);
            value.extend_from_slice(&held.body);
            self.order.insert(number, *name);
            *self.groups.entry(first).or_default() += 1;
        }
        (group_key(first), value)
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
        let held = Held { number, body, part: Some(0), under_way: true, group: None };
        self.by_name.insert(name, held);
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
            let Some(name) = oldest.map(|(_, name)| *name) else { break };
            if let Some(key) = self.let_go(&name) {
                forgotten.push(Mark { key, value: None, also_when_dropped: true });
            }
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
            // Its value was not written either.
            self.let_go(name);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }
}

fn read(key: &[u8], value: &[u8]) -> Option<Vec<(Name, Held)>> {
    let key = std::str::from_utf8(key).ok()?;
    if let Some(first) = key.strip_prefix("deliveries/") {
        return read_group(u64::from_str_radix(first, 16).ok()?, value);
    }
    let name = key.strip_prefix("delivery/")?;
    let kept: Kept = serde_json::from_slice(value).ok()?;
    let body = parse_hex(&kept.b)?;
    let held = Held { number: kept.n, body, part: kept.p, under_way: false, group: None };
    Some(vec![(parse_hex(name)?, held)])
}

fn read_group(first: u64, value: &[u8]) -> Option<Vec<(Name, Held)>> {
    let entries = value.chunks_exact(GROUPED_BYTES);
    if !entries.remainder().is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for (number, entry) in (first..).zip(entries) {
        let (name, body) = entry.split_at(size_of::<Name>());
        let (name, body) = (name.try_into().ok()?, body.try_into().ok()?);
        if name != [0; 16] {
            let held = Held { number, body, part: None, under_way: false, group: Some(first) };
            all.push((name, held));
        }
    }
    Some(all)
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

    #[test]
    fn deliveries_that_are_kept_together_are_known_again_as_far_as_they_were_stored() {
        let mut memory = Memory::new(3, &Vec::new());
        let body = body_digest(b"{}");
        let names: Vec<Name> = ["a", "b", "c"].map(name_of).to_vec();
        names.iter().for_each(|name| assert_eq!(memory.meet(*name, body), Met::Take { stored: 0 }));
        let grouped = [Some(names[0]), None, Some(names[1]), Some(names[2])];
        let (key, value) = memory.group(&grouped);
        assert_eq!(value.len(), 4 * GROUPED_BYTES);
        names.iter().for_each(|name| memory.settle(name, true));
        assert_eq!(memory.meet(names[1], body), Met::Stored);

        // The crash came when the first three of the four records were durable.
        let saved = vec![(key.clone(), value[..3 * GROUPED_BYTES].to_vec())];
        let mut memory = Memory::new(3, &saved);
        assert_eq!(memory.meet(names[0], body), Met::Stored);
        assert_eq!(memory.meet(names[1], body_digest(b"[]")), Met::Other);
        assert_eq!(memory.meet(names[2], body), Met::Take { stored: 0 });
        memory.settle(&names[2], false);

        // A value goes when all of it is forgotten.
        let more: Vec<Name> = ["d", "e", "f"].map(name_of).to_vec();
        for name in &more {
            assert_eq!(memory.meet(*name, body), Met::Take { stored: 0 });
        }
        let forgotten = memory.too_many();
        assert_eq!(forgotten.iter().map(|mark| mark.key.clone()).collect::<Vec<_>>(), [key]);
        let (next, _) = memory.group(&more.iter().copied().map(Some).collect::<Vec<_>>());
        assert!(next > group_key(3), "numbers go on behind what was kept");
        more.iter().for_each(|name| memory.settle(name, false));
        assert_eq!((memory.len(), memory.groups.len()), (0, 0));
    }
}
