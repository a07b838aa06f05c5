//! What a block's content must be before it becomes evidence.
//!
//! Decoded sections, a good checksum, a canonical header and balanced books are the format's own
//! checks. Here: the root over the events, that each event is canonical, that its top-level keys
//! are those of version 1, that `id`, `observed`, `origin`, `time` and `v` are there, that times
//! lie in the header's range, and that no id is there twice. What stands deeper in an event is its
//! reader's to judge: an event that says something unknown there is still evidence.

use custody_event::block::{Opened, Opener};
use custody_event::ids::parse_hex;
use custody_event::{Block, Coverage, Timestamp, canon};

use super::alike::Alike;

/// The memory in which blocks are checked, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    opener: Opener,
    ids: Vec<u128>,
}

/// Checks it all; gives the covered ranges.
///
/// # Errors
/// What is wrong, in words that name the event's index.
pub(crate) fn check(block: &Block, scratch: &mut Scratch) -> Result<Vec<Coverage>, String> {
    let coverage = block.coverage().map_err(|error| error.to_string())?;
    let opened = scratch.opener.open(block).map_err(|error| error.to_string())?;
    let ids = &mut scratch.ids;
    ids.clear();
    check_events(block, opened, ids)?;
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("two events of the block have the same id".to_owned());
    }
    Ok(coverage)
}

fn check_events(block: &Block, opened: &Opened, ids: &mut Vec<u128>) -> Result<(), String> {
    let times = block.header.first_time..=block.header.last_time;
    let mut alike = Alike::default();
    // Where anything is not UTF-8, each event is checked whole, which says where.
    let comparable = canon::is_utf8(opened.text());
    for (index, event) in opened.events() {
        let known = if comparable { alike.read(event) } else { None };
        let envelope = match known {
            Some(envelope) => Ok(envelope),
            None => alike.check(event),
        };
        let in_time = envelope.and_then(|envelope| match times.contains(&envelope.time) {
            true => Ok(envelope),
            false => Err(format!("its time {} is not in the header's range", envelope.time)),
        });
        let envelope = in_time.map_err(|what| format!("event {index} of the block: {what}"))?;
        ids.push(u128::from_be_bytes(envelope.id));
    }
    Ok(())
}

/// The fields that every event has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) id: [u8; 16],
    pub(super) time: Timestamp,
}

/// Where the values of these fields begin.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) id: usize,
    pub(super) time: usize,
    pub(super) observed: usize,
    pub(super) v: usize,
}

/// Is it a top-level key of version 1?
fn is_known(key: &[u8]) -> bool {
    matches!(
        key,
        b"action"
            | b"actor"
            | b"attempts"
            | b"category"
            | b"changes"
            | b"data"
            | b"details"
            | b"host"
            | b"id"
            | b"irreversible"
            | b"justification"
            | b"message"
            | b"observed"
            | b"op"
            | b"origin"
            | b"outcome"
            | b"reason"
            | b"service"
            | b"session"
            | b"severity"
            | b"source"
            | b"tags"
            | b"targets"
            | b"tenant"
            | b"time"
            | b"time_basis"
            | b"trace"
            | b"v"
    )
}

impl Envelope {
    /// Walks over the top level of a canonical event.
    pub(super) fn read(event: &[u8], places: &mut Places) -> Result<Self, String> {
        let (mut id, mut time, mut observed, mut origin, mut version) =
            (None, None, None, None, None);
        let mut at = 1;
        while event.get(at) == Some(&b'"') {
            let key_end = string_end(event, at);
            let key = event.get(at + 1..key_end.saturating_sub(1)).unwrap_or_default();
            let begin = key_end + 1;
            let value_end = value_end(event, begin);
            let value = event.get(begin..value_end).unwrap_or_default();
            match key {
                b"id" => (id, places.id) = (Self::id(value), begin),
                b"time" => (time, places.time) = (Self::time(value), begin),
                b"observed" => (observed, places.observed) = (Self::time(value), begin),
                b"origin" => origin = value.starts_with(b"{").then_some(()),
                b"v" => (version, places.v) = ((value == b"1").then_some(()), begin),
                key if is_known(key) => {}
                key => return Err(format!("unknown key {:?}", key.escape_ascii().to_string())),
            }
            at = value_end + 1;
        }
        let missing = |name: &str| format!("{name:?} is missing or not what it should be");
        observed.ok_or_else(|| missing("observed"))?;
        origin.ok_or_else(|| missing("origin"))?;
        version.ok_or_else(|| missing("v"))?;
        Ok(Self {
            id: id.ok_or_else(|| missing("id"))?,
            time: time.ok_or_else(|| missing("time"))?,
        })
    }

    /// What an id's value says.
    pub(super) fn id(value: &[u8]) -> Option<[u8; 16]> {
        quoted(value).and_then(parse_hex)
    }

    /// What a time's value says.
    pub(super) fn time(value: &[u8]) -> Option<Timestamp> {
        quoted(value).and_then(|text| Timestamp::parse(text).ok())
    }
}

fn quoted(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_prefix(b"\"")?.strip_suffix(b"\"")?).ok()
}

/// One beyond the closing quote of the string that opens at `at`.
fn string_end(event: &[u8], at: usize) -> usize {
    let mut from = at + 1;
    while let Some(found) = event.get(from..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        if event[from + found] == b'"' {
            return from + found + 1;
        }
        from += found + 2;
    }
    event.len()
}

/// One beyond the value that begins at `at`.
fn value_end(event: &[u8], at: usize) -> usize {
    let (mut at, mut depth) = (at, 0_u32);
    while let Some(byte) = event.get(at) {
        match byte {
            b'"' => {
                at = string_end(event, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return at + usize::from(depth == 1),
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    event.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"action":"a.b","details":{"k":["}",{"time":"no"},"\"]"]},"id":"00112233445566778899aabbccddeeff","message":"a \"b\\","observed":"2026-11-21T00:00:00.000000Z","origin":{"input":"x"},"tags":[],"time":"2026-11-21T00:00:01.000000Z","v":1}"#;

    fn read(event: &[u8]) -> Result<Envelope, String> {
        Envelope::read(event, &mut Places::default())
    }

    #[test]
    fn the_fields_of_the_envelope_are_found_at_the_top_level_only() {
        canon::check(GOOD.as_bytes()).unwrap();
        let envelope = read(GOOD.as_bytes()).unwrap();
        assert_eq!(envelope.time.to_string(), "2026-11-21T00:00:01.000000Z");
        assert_eq!(envelope.id[0..2], [0, 0x11]);
        for missing in ["id", "observed", "origin", "time", "v"] {
            let mut object: serde_json::Map<_, _> = serde_json::from_str(GOOD).unwrap();
            object.remove(missing);
            let text = serde_json::to_string(&object).unwrap();
            assert!(read(text.as_bytes()).unwrap_err().contains(missing));
        }
        for (from, to) in [
            (r#""v":1"#, r#""v":2"#),
            (r#""v":1"#, r#""v":11"#),
            (r#""v":1"#, r#""v":1,"x_new":{}"#),
            (r#"{"input":"x"}"#, r#""x""#),
            ("00112233", "0011223G"),
            ("00:00:01.000000Z", "00:00:01Z"),
        ] {
            assert!(read(GOOD.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_canonical_or_other_bytes_make_it_panic(bytes in proptest::collection::vec(
            proptest::sample::select(&b"{}[]\",:\\atv1 "[..]), 0..64)) {
            let _ = read(&bytes);
        }
    }
}
