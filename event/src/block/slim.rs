//! A record's hash follows from the record: where both stand in an event, a body leaves the hash
//! out, and whoever unpacks the body puts it back.
//!
//! Of the 120 bytes that a line of sshd takes as evidence forty are `origin.raw_sha256`: 64 digits
//! that no compressor shortens. `"raw":"…","raw_sha256":"<64 digits>"` becomes
//! `"raw":"…","raw_sha256":""` if the digits are the SHA-256 of the text before them, as its bytes
//! are without the escapes of RFC 8785. Everything else stays: the hash of a record that was not
//! UTF-8, or was redacted after it was hashed. Both ways read the text from its beginning and meet
//! the same places in it; a text that has an empty hash in one of these is left whole.

use std::ops::Range;

use memchr::memmem::Finder;

use super::body::KEPT_BYTES;
use super::{Hashed, Malformed};
use crate::ids::{Digest, push_hex};
use crate::merkle;

const RAW: &[u8] = b"\"raw\":\"";
const HASH: &[u8] = b",\"raw_sha256\":\"";
const DIGITS: usize = 64;
/// Working space is kept for so many places: blocks have no more, unless there are several in an event.
const KEPT_PLACES: usize = 2 * crate::MAX_BLOCK_EVENTS;

/// A record with its hash behind it.
#[derive(Debug)]
struct Place {
    /// The record as it stands in the text, or without escapes in [`Slimmer::bare`].
    record: Range<usize>,
    is_bare: bool,
    /// The first byte behind the quote that opens the hash.
    hash: usize,
    /// The record's hash, once it is known.
    known: Option<Digest>,
}

/// Takes hashes out and puts them back; keeps its working space.
#[derive(Debug, Default)]
pub(super) struct Slimmer {
    places: Vec<Place>,
    /// Records that have escapes, without them.
    bare: Vec<u8>,
    hashes: Vec<Digest>,
}

impl Slimmer {
    /// Puts `text` without the hashes that follow from their records in the place of what is in
    /// `out`. Says no, and leaves `out` empty, where there are none, or some that could not be
    /// told from those that were left out. A record that is among `hashed`, in its turn, is not
    /// hashed once more.
    pub(super) fn leave_out<'h>(
        &mut self,
        text: &[u8],
        hashed: impl Iterator<Item = Hashed<'h>>,
        out: &mut Vec<u8>,
    ) -> bool {
        out.clear();
        let met = self.find(text);
        let is_empty = |place: &Place| text.get(place.hash) == Some(&b'"');
        if met.unreadable || self.places.iter().any(is_empty) {
            return false;
        }
        self.places.retain(|place| text.get(place.hash + DIGITS) == Some(&b'"'));
        self.take_known(text, hashed);
        self.hash(text);
        let mut done = 0;
        for place in &self.places {
            let digits = &text[place.hash..place.hash + DIGITS];
            if place.known.is_some_and(|hash| has_digits(&hash, digits)) {
                out.extend_from_slice(&text[done..place.hash]);
                done = place.hash + DIGITS;
            }
        }
        if done > 0 {
            out.extend_from_slice(&text[done..]);
        }
        done > 0
    }

    /// Appends `slim` with the hashes that were left out of it to `out`: at most `len` bytes.
    pub(super) fn put_back(
        &mut self,
        slim: &[u8],
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let met = self.find(slim);
        self.places.retain(|place| slim.get(place.hash) == Some(&b'"'));
        if met.unreadable {
            return Err(Malformed::new("a record whose hash was left out cannot be read"));
        }
        let whole = slim.len() + self.places.len() * DIGITS;
        if whole > len {
            return Err(Malformed::new(format!("its text has {whole} bytes, more than {len}")));
        }
        self.hash(slim);
        out.reserve(whole);
        let mut done = 0;
        for place in &self.places {
            let Some(hash) = place.known else { continue };
            out.extend_from_slice(&slim[done..place.hash]);
            push_hex(&hash.0, out);
            done = place.hash;
        }
        out.extend_from_slice(&slim[done..]);
        Ok(())
    }

    /// Finds the records that have a hash behind them.
    fn find(&mut self, text: &[u8]) -> Met {
        self.places.clear();
        self.bare.clear();
        self.hashes.clear();
        self.places.shrink_to(KEPT_PLACES);
        self.bare.shrink_to(KEPT_BYTES);
        self.hashes.shrink_to(KEPT_PLACES);
        let mut met = Met { unreadable: false };
        let raw = Finder::new(RAW);
        let mut at = 0;
        while let Some(found) = raw.find(&text[at..]) {
            let begin = at + found + RAW.len();
            let Some((end, has_escapes)) = end_of_string(text, begin) else { break };
            at = end + 1;
            if !text[at..].starts_with(HASH) {
                continue;
            }
            let hash = at + HASH.len();
            let mut record = begin..end;
            if has_escapes {
                let from = self.bare.len();
                if !push_bare(&text[record], &mut self.bare) {
                    met.unreadable |= text.get(hash) == Some(&b'"');
                    self.bare.truncate(from);
                    continue;
                }
                record = from..self.bare.len();
            }
            self.places.push(Place { record, is_bare: has_escapes, hash, known: None });
        }
        met
    }

    /// Takes the hashes of those records that were hashed before.
    fn take_known<'h>(&mut self, text: &[u8], hashed: impl Iterator<Item = Hashed<'h>>) {
        let mut hashed = hashed.peekable();
        for place in &mut self.places {
            while hashed.next_if(|next| next.event_end <= place.hash).is_some() {}
            let record = place.record(text, &self.bare);
            place.known = hashed.next_if(|next| next.record == record).map(|next| next.hash);
        }
    }

    /// Hashes the records whose hash is not known.
    fn hash(&mut self, text: &[u8]) {
        let Self { places, bare, hashes } = self;
        let unknown = places.iter().filter(|place| place.known.is_none());
        merkle::plain_hashes(unknown.map(|place| place.record(text, bare)), hashes);
        let unknown = places.iter_mut().filter(|place| place.known.is_none());
        unknown.zip(hashes).for_each(|(place, hash)| place.known = Some(*hash));
    }
}

impl Place {
    fn record<'t>(&self, text: &'t [u8], bare: &'t [u8]) -> &'t [u8] {
        let of = if self.is_bare { bare } else { text };
        &of[self.record.clone()]
    }
}

/// What was met beside the places.
struct Met {
    /// A hash was left out behind a record whose escapes are none of RFC 8785.
    unreadable: bool,
}

fn has_digits(hash: &Digest, digits: &[u8]) -> bool {
    hash.0.iter().zip(digits.chunks_exact(2)).all(|(byte, two)| crate::ids::hex(*byte) == *two)
}

/// Where the string that began at `from` ends, and whether it has escapes.
fn end_of_string(text: &[u8], from: usize) -> Option<(usize, bool)> {
    let (mut at, mut has_escapes) = (from, false);
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some((at, has_escapes));
        }
        has_escapes = true;
        at += 2;
    }
}

/// Appends a string's bytes without its escapes (RFC 8785 §3.2.2.2); says no at any other.
fn push_bare(escaped: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = escaped;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let (byte, len) = match &rest[at + 1..] {
            [byte @ (b'"' | b'\\'), ..] => (*byte, 1),
            [b'b', ..] => (8, 1),
            [b't', ..] => (b'\t', 1),
            [b'n', ..] => (b'\n', 1),
            [b'f', ..] => (12, 1),
            [b'r', ..] => (b'\r', 1),
            [b'u', b'0', b'0', tens @ (b'0' | b'1'), ones, ..] => {
                let ones = match ones {
                    b'0'..=b'9' => ones - b'0',
                    b'a'..=b'f' => ones - b'a' + 10,
                    _ => return false,
                };
                ((tens - b'0') * 16 + ones, 5)
            }
            _ => return false,
        };
        out.push(byte);
        rest = &rest[at + 1 + len..];
    }
    out.extend_from_slice(rest);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::push_string;
    use proptest::prelude::*;

    fn event(raw: &str, hash: &str) -> Vec<u8> {
        let mut out = b"{\"origin\":{\"raw\":".to_vec();
        push_string(raw, &mut out);
        out.extend_from_slice(
            format!(",\"raw_sha256\":\"{hash}\",\"rule\":\"r\"}}}}\n").as_bytes(),
        );
        out
    }

    fn hash_of(raw: &str) -> String {
        Digest::of(raw.as_bytes()).to_string()
    }

    fn slim(text: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        Slimmer::default().leave_out(text, std::iter::empty(), &mut out).then_some(out)
    }

    fn back(slim: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        Slimmer::default().put_back(slim, 100_000, &mut out).ok()?;
        Some(out)
    }

    #[test]
    fn a_hash_of_the_record_beside_it_goes_and_comes_back() {
        let records =
            ["", "plain", "a \"quoted\" \\ one", "tab\tand \u{1}\u{1f}", "Käse \u{8}\u{c}\r\n"];
        let text: Vec<u8> = records.iter().flat_map(|raw| event(raw, &hash_of(raw))).collect();
        let thin = slim(&text).unwrap();
        assert_eq!(thin.len(), text.len() - records.len() * DIGITS);
        assert_eq!(back(&thin).unwrap(), text);
    }

    /// What `text` is without the hashes, where these are told: number of an event, its record, and what was hashed.
    fn slim_with(events: &[Vec<u8>], told: &[(usize, &str, &str)]) -> Vec<u8> {
        let hashed = told.iter().map(|(number, record, of)| Hashed {
            event_end: events[..=*number].iter().map(Vec::len).sum(),
            record: record.as_bytes(),
            hash: Digest::of(of.as_bytes()),
        });
        let (text, mut out) = (events.concat(), Vec::new());
        assert!(Slimmer::default().leave_out(&text, hashed, &mut out));
        assert_eq!(back(&out), Some(text));
        out
    }

    #[test]
    fn what_was_hashed_before_is_left_out_as_if_it_were_hashed_here() {
        let records = ["a", "b \"quoted\"", "c", "c", "d"];
        let events = records.map(|raw| event(raw, &hash_of(raw)));
        let whole = slim(&events.concat()).unwrap();
        let all: [_; 5] = std::array::from_fn(|at| (at, records[at], records[at]));
        // All, some, and such as made another event or none.
        for told in
            [&all[..], &all[1..3], &[(0, "x", "x"), all[3]], &[(0, "a", "a"), (2, "x", "y")]]
        {
            assert_eq!(slim_with(&events, told), whole);
        }
    }

    #[test]
    fn a_hash_that_is_told_is_taken_whatever_was_told_before_it() {
        let events = ["a", "b", "c"].map(|raw| event(raw, &hash_of(raw)));
        let whole = slim(&events.concat()).unwrap();
        // What is believed shows where it is wrong: the right one then stands in the text.
        for told in [
            &[(1, "b", "wrong")][..],
            &[(0, "other", "other"), (1, "b", "wrong")],
            &[(0, "other", "other"), (0, "more", "more"), (1, "b", "wrong"), (2, "c", "c")],
        ] {
            assert_eq!(slim_with(&events, told).len(), whole.len() + DIGITS);
        }
    }

    #[test]
    fn any_other_hash_stays() {
        let other =
            [event("a", &hash_of("b")), event("c", "short"), event("d", &"G".repeat(64))].concat();
        assert_eq!(slim(&other), None);
        let mixed = [other, event("e", &hash_of("e"))].concat();
        let thin = slim(&mixed).unwrap();
        assert_eq!(thin.len(), mixed.len() - DIGITS);
        assert_eq!(back(&thin).unwrap(), mixed);
    }

    #[test]
    fn a_text_with_an_empty_hash_stays_whole() {
        let text = [event("a", &hash_of("a")), event("b", "")].concat();
        assert_eq!(slim(&text), None);
    }

    #[test]
    fn what_looks_like_a_place_within_a_string_is_none() {
        let inner = String::from_utf8(event("x", &hash_of("x"))).unwrap();
        let text = [event(&inner, &hash_of(&inner)), event("y", &hash_of("y"))].concat();
        let thin = slim(&text).unwrap();
        assert_eq!(thin.len(), text.len() - 2 * DIGITS);
        assert_eq!(back(&thin).unwrap(), text);
    }

    #[test]
    fn an_escape_that_is_not_canonical_is_left_alone_and_refused_without_its_hash() {
        let text = format!("\"raw\":\"\\/\",\"raw_sha256\":\"{}\"\n", hash_of("/"));
        assert_eq!(slim(text.as_bytes()), None);
        assert_eq!(back(b"\"raw\":\"\\/\",\"raw_sha256\":\"\"\n"), None);
        assert_eq!(back(b"\"raw\":\"\\u00"), Some(b"\"raw\":\"\\u00".to_vec()));
    }

    proptest! {
        #[test]
        fn whatever_is_slim_comes_back(
            parts in proptest::collection::vec(
                prop_oneof![
                    "[a-c\"\\\\\n\t\u{1}ä]{0,12}".prop_map(|raw| event(&raw, &hash_of(&raw))),
                    "[a-c\"\\\\]{0,6}".prop_map(|raw| event(&raw, "")),
                    Just(b"\"raw\":\"".to_vec()),
                    Just(b"\",\"raw_sha256\":\"".to_vec()),
                    Just(hash_of("").into_bytes()),
                    proptest::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), any::<u8>()], 0..9),
                ],
                0..12,
            )
        ) {
            let text = parts.concat();
            if let Some(thin) = slim(&text) {
                prop_assert!(thin.len() < text.len());
                prop_assert_eq!(back(&thin), Some(text));
            }
        }

        #[test]
        fn a_string_without_escapes_is_what_was_written(raw in "\\PC{0,20}|[\u{0}-\u{7f}]{0,20}") {
            let (mut written, mut bare) = (Vec::new(), Vec::new());
            push_string(&raw, &mut written);
            prop_assert!(push_bare(&written[1..written.len() - 1], &mut bare));
            prop_assert_eq!(bare, raw.into_bytes());
        }
    }
}
