//! What others, and code that is made for one kind of line alone, need to take the same values out of the same lines.
//! None of them makes an event of what it finds, but `hash` does a part of what an event needs.

use std::hint::black_box;

use custody_event::position::event_id;
use custody_event::{Digest, FileKey, Offset};
use custody_parsers::builtin;
use regex::bytes::{CaptureLocations, Regex};
use serde_json::Value;

use crate::Done;
use crate::lines::Kind;

/// One yardstick.
#[derive(Debug)]
pub(crate) enum Yardstick {
    /// The lines are told apart.
    Split,
    /// The hash of each line and the id that is derived from it: every event has both.
    Hash,
    /// Code that knows this kind of line and nothing else.
    Hand(Kind),
    /// The patterns of the pack, one after the other, by the `regex` crate; the envelope is taken off by hand.
    Regex(Kind, Vec<(Regex, CaptureLocations)>),
    /// `serde_json` into its general value.
    Serde,
}

impl Yardstick {
    pub(crate) fn of(kind: Kind) -> Done<Vec<Self>> {
        let third = match kind {
            Kind::Json => Self::Serde,
            Kind::Sshd | Kind::Nginx => Self::Regex(kind, patterns(kind.pack())?),
        };
        Ok(vec![Self::Split, Self::Hash, Self::Hand(kind), third])
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Split => "lines split",
            Self::Hash => "lines hashed",
            Self::Hand(_) => "tokenizer by hand",
            Self::Regex(..) => "regex captures",
            Self::Serde => "serde_json",
        }
    }

    /// Reads all lines; gives how many it knew.
    pub(crate) fn read(&self, text: &[u8]) -> usize {
        match self {
            Self::Split => each(text, |line| !black_box(line).is_empty()),
            Self::Hash => each(text, hashed),
            Self::Hand(Kind::Sshd) => each(text, |line| black_box(sshd(line)).is_some()),
            Self::Hand(Kind::Nginx) => each(text, |line| black_box(nginx(line)).is_some()),
            Self::Hand(Kind::Json) => each(text, |line| black_box(members(line)) > 0),
            Self::Regex(kind, patterns) => {
                let mut patterns: Vec<_> = patterns.clone();
                each(text, |line| {
                    let message = match kind {
                        Kind::Sshd => behind(line, b"]: ").map_or(line, |(_, message)| message),
                        Kind::Nginx | Kind::Json => line,
                    };
                    let known = |(regex, places): &mut (Regex, CaptureLocations)| {
                        regex.captures_read(places, message).is_some()
                    };
                    black_box(patterns.iter_mut().any(known))
                })
            }
            Self::Serde => {
                each(text, |line| black_box(serde_json::from_slice::<Value>(line)).is_ok())
            }
        }
    }
}

/// The patterns of a built-in pack, in order.
fn patterns(pack: &str) -> Done<Vec<(Regex, CaptureLocations)>> {
    let text = builtin().iter().find(|known| known.name() == pack).ok_or("no such pack")?.text();
    let pack: Value = serde_yaml::from_str(&text)?;
    let rules = pack["rules"].as_array().into_iter().flatten();
    let mut patterns = Vec::new();
    for pattern in rules.filter_map(|rule| rule["match"].as_str()) {
        let regex = Regex::new(pattern)?;
        let places = regex.capture_locations();
        patterns.push((regex, places));
    }
    Ok(patterns)
}

fn each(text: &[u8], mut read: impl FnMut(&[u8]) -> bool) -> usize {
    let (mut start, mut known) = (0, 0);
    for end in memchr::memchr_iter(b'\n', text) {
        known += usize::from(read(&text[start..end]));
        start = end + 1;
    }
    known
}

fn hashed(line: &[u8]) -> bool {
    let hash = Digest::of(line);
    black_box(event_id(FileKey([3; 16]), Offset(7), 0, &hash)).0[0] == 0
}

/// What stands before and behind the first of these bytes.
fn behind<'t>(text: &'t [u8], mark: &[u8]) -> Option<(&'t [u8], &'t [u8])> {
    let at = memchr::memmem::find(text, mark)?;
    Some((&text[..at], &text[at + mark.len()..]))
}

fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', text)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Time, host, program, process, method, user, address, port.
type Parts<'t> = [&'t [u8]; 8];

fn sshd(line: &[u8]) -> Option<Parts<'_>> {
    let (time, rest) = line.split_at_checked(16)?;
    let (host, rest) = word(rest)?;
    let open = memchr::memchr(b'[', rest)?;
    let (program, rest) = rest.split_at_checked(open)?;
    let (pid, message) = behind(&rest[1..], b"]: ")?;
    let (act, rest) = match message.first()? {
        b'A' => (&b"Accepted"[..], message.strip_prefix(b"Accepted ")?),
        b'F' => (&b"Failed"[..], message.strip_prefix(b"Failed ")?),
        b'I' => (&b"Invalid"[..], message.strip_prefix(b"Invalid user ")?),
        _ => (&b"Received"[..], message.strip_prefix(b"Received disconnect from ")?),
    };
    let rest = match act {
        b"Accepted" | b"Failed" => behind(rest, b" for ")?.1,
        _ => rest,
    };
    let rest = rest.strip_prefix(b"invalid user ").unwrap_or(rest);
    let from = memchr::memmem::rfind(rest, b" from ");
    let (user, rest) = match from {
        Some(at) => (&rest[..at], &rest[at + b" from ".len()..]),
        None => (&b""[..], rest),
    };
    let (ip, rest) = word(rest)?;
    let rest = rest.strip_prefix(b"port ")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    Some([time, host, program, pid, act, user, ip, &rest[..digits]])
}

/// Address, user, time, method, URL, status, bytes, user agent.
fn nginx(line: &[u8]) -> Option<Parts<'_>> {
    let (ip, rest) = word(line)?;
    let (user, rest) = behind(rest.strip_prefix(b"- ")?, b" [")?;
    let (time, rest) = behind(rest, b"] \"")?;
    let (method, rest) = word(rest)?;
    let (url, rest) = word(rest)?;
    let (_, rest) = behind(rest, b"\" ")?;
    let (status, rest) = word(rest)?;
    let (bytes, rest) = word(rest)?;
    let (_, rest) = behind(rest.strip_prefix(b"\"")?, b"\" \"")?;
    let (agent, _) = rest.split_at_checked(memchr::memchr(b'"', rest)?)?;
    Some([ip, user, time, method, url, status, bytes, agent])
}

/// How many keys a JSON object has, those of objects within it among them: every text is found, none is read.
fn members(line: &[u8]) -> usize {
    let (mut at, mut keys) = (0, 0);
    while let Some(open) = memchr::memchr(b'"', &line[at..]) {
        at += open + 1;
        while let Some(close) = memchr::memchr2(b'"', b'\\', &line[at..]) {
            at += close + 1;
            if line[at - 1] == b'"' {
                break;
            }
            at += 1;
        }
        keys += usize::from(line.get(at) == Some(&b':'));
    }
    keys
}
