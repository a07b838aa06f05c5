//! Whatever the bytes are: one canonical event, whole, and never a panic.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "helpers of tests; digits are below 64"
)]

use std::collections::HashSet;

use custody_event::{FileKey, MAX_RAW_BYTES, Offset, Timestamp, canon};
use custody_parsers::{
    Envelope, PackSet, Parser, Scratch, Select, Settings, UNMATCHED, Verdict, builtin,
};
use proptest::prelude::*;
use serde_json::Value;

fn observed() -> Timestamp {
    Timestamp::parse("2024-03-01T12:00:00.000000Z").unwrap()
}

fn envelope() -> Envelope<'static> {
    Envelope {
        host: "h",
        tenant: "t",
        agent: "00112233445566778899aabbccddeeff",
        input: "auth",
        path: Some("/var/log/nginx/access.log"),
        file: FileKey([9; 16]),
        ..Envelope::bare(observed())
    }
}

/// One parser for all packs, and one for each alone.
fn parsers() -> Vec<Parser> {
    let set = PackSet::builtin();
    let mut parsers = vec![set.select(&Select::Auto, Settings::default()).unwrap()];
    for pack in builtin() {
        let names = Select::Names(vec![pack.name().to_owned()]);
        parsers.push(set.select(&names, Settings::default()).unwrap());
    }
    parsers
}

thread_local! {
    static PARSERS: Vec<Parser> = parsers();
}

/// Pieces that bring a record deep into the decoders and rules.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "Dec 10 06:55:48 ",
            "<38>1 2022-01-19T14:23:55Z ",
            "web1 ",
            "sshd[1]: ",
            "sudo: ",
            "CRON[2]: ",
            "Failed password for ",
            "invalid user ",
            "root",
            " from ",
            "1.2.3.4",
            "::1",
            " port ",
            "22",
            " ssh2",
            "pam_unix(sshd:auth): ",
            "authentication failure; logname= uid=0 ",
            "rhost=",
            " user=",
            "[preauth]",
            "message repeated 3 times: [ ",
            "]",
            "{\"",
            "\":",
            "\"",
            "{",
            "}",
            ",",
            "action",
            "user",
            "time",
            "null",
            "1700000000",
            "1e999",
            "\\u0000",
            "\\ud800",
            " - - [05/Jan/2024:23:11:47 +0100] ",
            "\"GET / HTTP/1.1\" ",
            "200 5",
            " ; TTY=",
            "COMMAND=",
            "\u{0}",
            "\u{feff}",
            "é",
            "\r",
            "\t",
            "99999999999999999999",
            "CEF:0|a|b|c|d|e|3|",
            "LEEF:2.0|a|b|c|d|^|",
            "LEEF:1.0|a|b|c|d|",
            "src=",
            "suser=",
            "^usrName=",
            "type=USER_LOGIN msg=audit(1704492707.193:421): ",
            "type=SYSCALL msg=audit(1.2:3): ",
            " msg='op=",
            " acct=",
            "6C73202F",
            "saddr=02000050A9FEA9FE",
            "\u{1d}AUID=",
            "avc:  denied  { ",
            "action=login ",
            " ts=1700000000",
            "\\\"",
            "|",
            "'",
            "[",
            "changes",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn check(record: &[u8]) {
    PARSERS.with(|parsers| {
        let mut scratch = Scratch::new();
        for parser in parsers {
            let mut out = b"before".to_vec();
            let verdict =
                parser.parse(&mut scratch, &envelope(), record, Offset(5), Some(2), &mut out);
            let event = out.strip_prefix(b"before").unwrap();
            canon::check(event)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(event)));
            let event: Value = serde_json::from_slice(event).unwrap();
            let raw = match event["origin"]["raw"].as_str() {
                Some(raw) => raw.as_bytes().to_vec(),
                None => base64(event["origin"]["raw_base64"].as_str().unwrap_or_default()),
            };
            assert_eq!(raw, record, "the record is kept whole");
            assert_eq!(event["origin"]["segment"], 2);
            for field in [
                "id",
                "time",
                "time_basis",
                "observed",
                "category",
                "action",
                "op",
                "severity",
                "host",
            ] {
                assert!(event[field].is_string(), "{field} of {event}");
            }
            let unmatched = matches!(verdict, Verdict::Unmatched { .. });
            assert_eq!(unmatched, event["action"] == UNMATCHED);
            assert_eq!(unmatched, event["origin"]["reason"].is_string());
            serde_json::from_slice::<custody_event::EventView<'_>>(
                out.strip_prefix(b"before").unwrap(),
            )
            .unwrap();
        }
    });
}

fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<u32> = text
        .bytes()
        .filter_map(|byte| LETTERS.iter().position(|letter| *letter == byte))
        .map(|digit| digit as u32)
        .collect();
    let mut out = Vec::new();
    for group in digits.chunks(4) {
        let word = group.iter().fold(0, |sum, digit| sum << 6 | digit) << (6 * (4 - group.len()));
        out.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn any_bytes_become_one_canonical_event(record in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&record);
    }

    #[test]
    fn records_that_are_nearly_right_become_one_canonical_event(record in pieces()) {
        check(&record);
    }

    #[test]
    fn ids_differ_by_offset_and_repeat_for_the_same_place(offsets in proptest::collection::hash_set(any::<u32>(), 1..20)) {
        PARSERS.with(|parsers| {
            let mut scratch = Scratch::new();
            let mut ids = HashSet::new();
            for offset in &offsets {
                let mut twice = [Vec::new(), Vec::new()];
                for out in &mut twice {
                    parsers[0].parse(&mut scratch, &envelope(), b"x", Offset(u64::from(*offset)), None, out);
                }
                prop_assert_eq!(&twice[0], &twice[1]);
                let event: Value = serde_json::from_slice(&twice[0]).unwrap();
                ids.insert(event["id"].to_string());
            }
            prop_assert_eq!(ids.len(), offsets.len());
            Ok(())
        })?;
    }
}

#[test]
fn the_longest_records_are_kept_whole() {
    let mut line = b"Dec 10 06:55:48 web1 sshd[1]: Failed password for ".to_vec();
    for fill in [b'a', b'"', 0, 0xff] {
        line.resize(MAX_RAW_BYTES, fill);
        check(&line);
        line.truncate(60);
    }
    let mut json = b"{\"action\":\"login\",\"x\":[".to_vec();
    while json.len() < MAX_RAW_BYTES - 10 {
        json.extend_from_slice(b"\"\\u0001\",");
    }
    json.extend_from_slice(b"0]}");
    check(&json);
}

#[test]
fn one_scratch_serves_many_parsers_in_turn() {
    PARSERS.with(|parsers| {
        let mut shared = Scratch::new();
        let line =
            b"Dec 10 06:55:48 web1 sshd[1]: Accepted password for eva from 192.0.2.1 port 5 ssh2";
        for _ in 0..3 {
            for parser in parsers {
                let (mut left, mut right) = (Vec::new(), Vec::new());
                parser.parse(&mut shared, &envelope(), line, Offset(0), None, &mut left);
                parser.parse(&mut Scratch::new(), &envelope(), line, Offset(0), None, &mut right);
                assert_eq!(left, right);
            }
        }
    });
}
