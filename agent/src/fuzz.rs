//! What fuzzers call: every decoder of bytes that come from outside, each with what must hold
//! whatever the bytes are. No program has this in it: it is for tests and for the targets in `fuzz/`
//! (feature `fuzz`).
//!
//! A target panics where something does not hold. The first bytes of its input choose limits and
//! forms, the rest is what is decoded.

#![allow(clippy::missing_panics_doc, reason = "panicking is what a target is for")]

use std::io::Read;
use std::sync::OnceLock;

use custody_config::agent::{Scheme, VerifyConfig};
use custody_event::{Offset, Timestamp};
use custody_parsers::{
    Envelope, Given, HostNames, PackSet, PackSource, Parser, Redaction, Scratch, Select, Settings,
};
use http::HeaderMap;

use crate::sources::Encoding;
use crate::sources::file::fuzz as file;
use crate::sources::syslog::fuzz::Framer;
use crate::sources::webhook::{Asked, Judged, Verifier, fuzz as webhook_body};

/// A decoder on trial.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 6] = [
    ("auditd", auditd),
    ("gzip", gzip),
    ("journal", journal),
    ("multiline", multiline),
    ("syslog", syslog),
    ("webhook", webhook),
];

/// Bytes of a body, at most.
const MAX_BODY_BYTES: usize = 4096;

/// Takes `N` bytes off the front; zeros where there are none.
fn take<'d, const N: usize>(data: &mut &'d [u8]) -> [u8; N] {
    let mut taken = [0; N];
    let count = data.len().min(N);
    let (front, rest): (&'d [u8], &'d [u8]) = data.split_at(count);
    taken[..count].copy_from_slice(front);
    *data = rest;
    taken
}

fn parser(decoder: &str, cell: &'static OnceLock<Parser>) -> &'static Parser {
    cell.get_or_init(|| {
        let text = format!(
            "pack: own\nversion: 1\ndecode: [{decoder}]\nrules:\n  - id: it\n    match: '(?<all>.)'\n    event: {{ action: a.b, targets.name: $all }}\n"
        );
        let source = PackSource { name: "own.yaml".into(), text };
        let set = PackSet::load(&[source]).unwrap_or_else(|error| panic!("{error}"));
        let settings = Settings {
            redaction: Redaction::default(),
            host: HostNames::from_passwd("root:x:0:0::/:/bin/sh\n").into(),
            ..Settings::default()
        };
        set.select(&Select::Auto, settings).unwrap_or_else(|error| panic!("{error}"))
    })
}

/// Every record becomes events that are canonical, whatever it is.
fn parse(parser: &Parser, record: &[u8]) {
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    let envelope = Envelope::bare(Timestamp::from_micros(0));
    let mut run = parser.run(&mut scratch, &envelope);
    let _verdict = run.parse_given(record, Offset(0), None, Given::default(), &mut out);
    for event in out.split(|byte| *byte == b'\n').filter(|event| !event.is_empty()) {
        custody_event::canon::check(event).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Records of the Linux audit system: joined, decoded, and none left out of a run.
pub fn auditd(data: &[u8]) {
    static PARSER: OnceLock<Parser> = OnceLock::new();
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    for is_over in [false, true] {
        let mut rest = &lines[..];
        while !rest.is_empty() {
            match custody_parsers::audit::run_end(rest.iter().copied(), is_over) {
                custody_parsers::audit::RunEnd::Behind(count) => {
                    assert!((1..=rest.len()).contains(&count), "{count} of {}", rest.len());
                    rest = &rest[count..];
                }
                custody_parsers::audit::RunEnd::Open => break,
            }
        }
        assert!(!is_over || rest.is_empty(), "what is over is open");
    }
    parse(parser("auditd", &PARSER), data);
}

/// Members of gzip, one behind the other: what comes does not depend on how much is asked for at once.
pub fn gzip(data: &[u8]) {
    const LIMIT: u64 = 1 << 20;
    let whole = |step: usize| {
        let (mut out, mut part) = (Vec::new(), vec![0; step]);
        let mut members = file::members(data).take(LIMIT);
        loop {
            match members.read(&mut part) {
                Ok(0) => return (out, true),
                Ok(got) => out.extend_from_slice(&part[..got]),
                Err(_) => return (out, false),
            }
        }
    };
    let (large, small) = (whole(64 * 1024), whole(61));
    assert_eq!(large.1, small.1);
    if large.1 {
        assert_eq!(large.0, small.0);
    }
}

/// The journal's export format, and a field as the library gives it.
pub fn journal(data: &[u8]) {
    let mut entry = custody_journal::Entry::default();
    let mut export = custody_journal::Export::new(data);
    while let Ok(true) = export.next(&mut entry) {
        check_entry(&entry);
    }
    const CURSOR: &str =
        "s=89faf26c707845e7a3d23e6cffabb835;i=1f;b=11669cd101054595abafa3633fe713c1;m=5;t=7;x=85";
    if entry.begin(CURSOR).is_ok() {
        data.split(|byte| *byte == 0).for_each(|field| entry.add(field));
        entry.finish();
        check_entry(&entry);
    }
}

fn check_entry(entry: &custody_journal::Entry) {
    let mut json = Vec::new();
    entry.write_json(&mut json);
    let _object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{error}"));
}

/// Lines and records of several lines, in every encoding: what is cut does not depend on how the
/// bytes become visible.
pub fn multiline(data: &[u8]) {
    let mut data = data;
    let [rule, encoding, max, step] = take(&mut data);
    let encodings = [
        Encoding::Utf8,
        Encoding::Utf16Le,
        Encoding::Utf16Be,
        Encoding::Latin1,
        Encoding::Windows1252,
    ];
    let encoding = encodings[usize::from(encoding) % encodings.len()];
    let max = 2 + usize::from(max % 64);
    let at_once = file::cut_all(rule, max, encoding, data, data.len().max(1));
    let in_steps = file::cut_all(rule, max, encoding, data, 1 + usize::from(step % 32));
    // An event of auditd is over with its last record; one more that says it belongs to it counts where
    // it is there already.
    assert!(file::is_auditd(rule) || at_once == in_steps, "{at_once:?}, {in_steps:?}");
    let mut end = 0;
    for (begin, text_end) in at_once {
        assert!(end <= begin && begin <= text_end && text_end <= data.len());
        end = text_end;
    }
}

/// Messages over a stream, in both framings, and their text.
pub fn syslog(data: &[u8]) {
    static PARSER: OnceLock<Parser> = OnceLock::new();
    let mut data = data;
    let [max, step] = take(&mut data);
    // Longer than a length of which it is not known yet that it is none.
    let max = 16 + usize::from(max);
    let cut = |step: usize| {
        let mut framer = Framer::new(max);
        let mut messages: Vec<(Vec<u8>, Option<u32>)> = Vec::new();
        let mut give = |message: &[u8], piece| messages.push((message.to_vec(), piece));
        data.chunks(step).for_each(|part| framer.feed(part, &mut give));
        let missing = framer.end(&mut give);
        (messages, missing)
    };
    let (at_once, in_steps) = (cut(data.len().max(1)), cut(1 + usize::from(step % 32)));
    assert_eq!(at_once, in_steps);
    let bytes: usize = at_once.0.iter().map(|(message, _)| message.len()).sum();
    assert!(bytes <= data.len(), "messages hold more than came");
    assert!(at_once.0.iter().all(|(message, _)| message.len() <= max));
    parse(parser("syslog", &PARSER), data);
}

/// A request: its sender, its packing, its body. Whatever the headers say, nobody who does not know
/// the secret is taken.
pub fn webhook(data: &[u8]) {
    let mut data = data;
    let [which, flags] = take(&mut data);
    let (value, body) = match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &b""[..]),
    };
    let (verifier, scheme) = verifier(which);
    let mut headers = HeaderMap::new();
    if let Ok(value) = http::HeaderValue::from_bytes(value) {
        for name in HEADERS {
            headers.insert(*name, value.clone());
        }
    }
    let query = std::str::from_utf8(value).ok();
    let is_get = flags & 1 == 1;
    let asked = Asked { headers: &headers, query, body, is_get, now_s: 1_700_000_000 };
    if let Judged::Accepted { .. } = verifier.judge(&asked) {
        assert_eq!(scheme, Scheme::None, "a forged request was taken");
    }
    if let Ok(unpacked) = webhook_body::unpacked(body, MAX_BODY_BYTES) {
        assert!(unpacked.len() <= MAX_BODY_BYTES);
    }
    let is_form = flags & 2 == 2;
    if let Ok(records) = webhook_body::records(body, is_form, "data.events") {
        assert!((1..=crate::sources::MAX_CHUNK_RECORDS).contains(&records.len()));
        let bytes: usize = records.iter().map(|record| record.len()).sum();
        assert!(is_form || bytes <= body.len());
    } else {
        assert!(body.is_empty() || body.len() > crate::sources::MAX_CHUNK_RECORDS);
    }
}

/// Headers in which a scheme looks.
const HEADERS: &[&str] = &[
    "authorization",
    "content-type",
    "i-twilio-idempotency-token",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
    "x-gitlab-token",
    "x-hub-signature-256",
    "x-own",
    "x-pagerduty-signature",
    "x-shopify-hmac-sha256",
    "x-slack-request-timestamp",
    "x-slack-signature",
    "stripe-signature",
    "x-twilio-email-event-webhook-signature",
    "x-twilio-email-event-webhook-timestamp",
    "x-twilio-signature",
];

fn verifier(which: u8) -> (&'static Verifier, Scheme) {
    static VERIFIERS: OnceLock<Vec<(Verifier, Scheme)>> = OnceLock::new();
    let all = VERIFIERS.get_or_init(|| {
        let schemes = [
            Scheme::Basic,
            Scheme::Bearer,
            Scheme::Github,
            Scheme::Gitlab,
            Scheme::Hmac,
            Scheme::MicrosoftGraph,
            Scheme::None,
            Scheme::Okta,
            Scheme::Pagerduty,
            Scheme::Shopify,
            Scheme::Slack,
            Scheme::StandardWebhooks,
            Scheme::Stripe,
            Scheme::Twilio,
        ];
        let made = schemes.into_iter().map(|scheme| {
            let config = VerifyConfig {
                scheme,
                header: "x-own".into(),
                id_header: "webhook-id".into(),
                ..VerifyConfig::default()
            };
            let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
            let made = Verifier::new(&config, &[secret]);
            (made.unwrap_or_else(|what| panic!("{scheme:?} {what}")), scheme)
        });
        made.collect()
    });
    let (verifier, scheme) = &all[usize::from(which) % all.len()];
    (verifier, *scheme)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::{Duration, Instant};

    fn number(name: &str, or: u64) -> u64 {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or)
    }

    struct Dice(u64);

    impl Dice {
        fn below(&mut self, most: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 16).unwrap() % most.max(1)
        }

        fn byte(&mut self) -> u8 {
            u8::try_from(self.below(256)).unwrap()
        }

        /// One of the inputs, changed in some places, or spliced with another.
        fn changed(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
            let mut data = corpus[self.below(corpus.len())].clone();
            for _ in 0..=self.below(6) {
                let at = self.below(data.len() + 1);
                match self.below(6) {
                    0 => data.insert(at, self.byte()),
                    1 if at < data.len() => drop(data.remove(at)),
                    2 if at < data.len() => data[at] = self.byte(),
                    3 if at < data.len() => data[at] ^= 1 << self.below(8),
                    4 => {
                        let other = &corpus[self.below(corpus.len())];
                        let from = self.below(other.len());
                        data.truncate(at);
                        data.extend_from_slice(&other[from..]);
                    }
                    _ => {
                        let end = (at + self.below(40)).min(data.len());
                        let again = data[at.min(end)..end].to_vec();
                        data.splice(at..at, again);
                    }
                }
            }
            data.truncate(16 * 1024);
            data
        }
    }

    /// The kept inputs, and changed ones: seeded (`CUSTODY_SEED` replays), for as long as
    /// `CUSTODY_FUZZ_S` says, `CUSTODY_FUZZ` one target alone. `fuzz/README.md` says how to search further.
    #[test]
    fn no_bytes_break_a_decoder_of_what_comes_from_outside() {
        let seed = number("CUSTODY_SEED", 11);
        let lasts = Duration::from_secs(number("CUSTODY_FUZZ_S", 1));
        let only = std::env::var("CUSTODY_FUZZ").ok();
        let is_wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
        for (name, target) in TARGETS.into_iter().filter(|(name, _)| is_wanted(name)) {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
            let mut files: Vec<_> = std::fs::read_dir(&folder)
                .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
                .map(|entry| entry.unwrap().path())
                .collect();
            files.sort();
            let corpus: Vec<Vec<u8>> =
                files.iter().map(|path| std::fs::read(path).unwrap()).collect();
            assert!(corpus.len() >= 5, "{name} has {} inputs", corpus.len());
            corpus.iter().for_each(|data| target(data));
            let (mut dice, begun, mut tried) = (Dice(seed | 1), Instant::now(), 0_u64);
            while begun.elapsed() < lasts {
                let data = dice.changed(&corpus);
                let result = std::panic::catch_unwind(|| target(&data));
                assert!(result.is_ok(), "{name}, seed {seed}: {}", data.escape_ascii());
                tried += 1;
            }
            eprintln!("{name}: {tried} inputs");
        }
    }
}
