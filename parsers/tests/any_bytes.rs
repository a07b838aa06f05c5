//! Every decoder, with all that stands behind it, on bytes that nobody would write: no panic, no
//! event that is longer than an event may be, none that is no JSON, and nothing lost without a word.
//!
//! Seeded: `CUSTODY_SEED` replays, `CUSTODY_FUZZ_S` says how long each decoder is tried (1 s).

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "this is test code throughout")]

use std::time::{Duration, Instant};

use custody_event::{MAX_EVENT_BYTES, MAX_RAW_BYTES, Offset, Timestamp};
use custody_parsers::{
    Envelope, Given, HostNames, MAX_FANNED_BYTES, PackSet, PackSource, Redaction, Said, Scratch,
    Select, Settings, Verdict,
};

const DECODERS: &[(&str, &str, &[&str])] = &[
    (
        "syslog",
        "",
        &[
            "<34>1 2024-01-05T22:11:47.1Z h app 7 ID [a@1 b=\"c\\\"d\"] msg",
            "Jan  5 23:11:47 web1 sshd[7]: message repeated 3 times: [ x ]",
            "<13>",
            "[",
            "]",
            "\"",
            "\\",
            "\u{feff}",
        ],
    ),
    (
        "auditd",
        "",
        &[
            "type=SYSCALL msg=audit(1.2:3): a0=1 saddr=02000050",
            "type=EXECVE msg=audit(1.2:3): argc=1 a0=6162",
            "\n",
            "msg='op=x acct=\"a\" res=1'",
            "\u{1d}UID=\"root\"",
            "{ ",
            "avc:  denied  { read } for",
            "=",
            "'",
        ],
    ),
    (
        "xml",
        "",
        &[
            "<Event a='1'>",
            "</Event>",
            "<a>",
            "</a>",
            "<![CDATA[",
            "]]>",
            "&#x41;",
            "&lt;",
            "<!--",
            "-->",
            "<?xml?>",
            "/>",
            "=",
        ],
    ),
    (
        "csv",
        "csv: { columns: [a, b, c, d] }\n",
        &["a,b,c,d", "\"x\"\"y\"", ",", "\"", "\n", "1,2,3,4"],
    ),
    (
        "cef",
        "",
        &[
            "CEF:0|v|p|1|100|name|5|src=192.0.2.1 msg=a\\=b",
            "|",
            "\\|",
            "=",
            " ",
            "cs1Label=x cs1=y",
        ],
    ),
    (
        "leef",
        "",
        &[
            "LEEF:2.0|v|p|1|ID|^|src=1^b=2",
            "LEEF:1.0|v|p|1|ID|a=b\tc=d",
            "|",
            "^",
            "\t",
            "0x09",
            "=",
        ],
    ),
    ("kv", "", &["a=b c=\"d e\"", "=", "\"", "\\", " ", "a="]),
    ("logfmt", "", &["level=info msg=\"a \\\"b\\\" \\u0041\"", "=", "\"", "\\", "key", " "]),
    (
        "json",
        "fan_out: $json.list\n",
        &[
            "{\"a\":1,\"list\":[{\"b\":2},3]}",
            "{",
            "}",
            "[",
            "]",
            "\"",
            ":",
            ",",
            "\\ud83d",
            "\\u00e9",
            "1e999",
            "null",
            "@cee:",
        ],
    ),
    ("none", "", &["plain", "words"]),
];

struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % most
    }

    /// Pieces of good records, bytes of any kind, secrets, and sometimes very much of one thing.
    fn record(&mut self, pieces: &[&str]) -> Vec<u8> {
        const MORE: &[&str] = &[
            "password=hunter2",
            "4111111111111111",
            "://a:b@c",
            "-----BEGIN PRIVATE KEY-----",
            "é",
            "\0",
            "\r",
        ];
        let mut record = Vec::new();
        for _ in 0..=self.below(12) {
            match self.below(8) {
                0 => (0..self.below(20))
                    .for_each(|_| record.push(u8::try_from(self.below(256)).unwrap())),
                1 => record.extend_from_slice(MORE[self.below(MORE.len())].as_bytes()),
                2 if self.below(20) == 0 => {
                    let piece = pieces[self.below(pieces.len())];
                    record.extend_from_slice(piece.repeat(self.below(3_000)).as_bytes());
                }
                _ => record.extend_from_slice(pieces[self.below(pieces.len())].as_bytes()),
            }
        }
        record.truncate(MAX_RAW_BYTES);
        record
    }
}

#[test]
fn no_bytes_break_a_decoder_or_what_stands_behind_it() {
    let number = |name: &str, or: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or)
    };
    let seed = number("CUSTODY_SEED", 0x9e37_79b9_7f4a_7c15);
    let lasts = Duration::from_secs(number("CUSTODY_FUZZ_S", 1));
    for (decoder, more, pieces) in DECODERS {
        let pack = format!(
            "pack: own\nversion: 1\ndecode: [syslog?, {decoder}]\n{more}redact: [{{ fields: [details.a], action: pseudonym }}]\nrules:\n  - id: it\n    match: '(?<all>.)'\n    event: {{ action: a.b, targets.name: $all }}\n"
        );
        let pack = pack.replace("[syslog?, syslog]", "syslog").replace("[syslog?, none]", "none");
        let source = PackSource { name: "own.yaml".into(), text: pack };
        let set = PackSet::load(&[source]).unwrap_or_else(|error| panic!("{decoder}: {error}"));
        let settings = Settings {
            redaction: Redaction::default(),
            host: HostNames::from_passwd("root:x:0:0::/:/bin/sh\n").into(),
            ..Settings::default()
        };
        let parser = set.select(&Select::Auto, settings).unwrap();
        let (mut dice, begun, mut scratch) = (Dice(seed | 1), Instant::now(), Scratch::new());
        let envelope = Envelope::bare(Timestamp::from_micros(0));
        let mut count = 0_u64;
        while begun.elapsed() < lasts || count < 200 {
            let record = dice.record(pieces);
            let said = Said { message: "said password=hunter2", ..Said::default() };
            let given = Given { said: (dice.below(9) == 0).then_some(said), ..Given::default() };
            let mut out = Vec::new();
            let verdict = parser.run(&mut scratch, &envelope).parse_given(
                &record,
                Offset(count),
                None,
                given,
                &mut out,
            );
            let shown = || format!("{decoder}, seed {seed}, {count}: {}", record.escape_ascii());
            assert!(out.len() <= MAX_FANNED_BYTES + MAX_EVENT_BYTES, "{}", shown());
            let mut events = 0;
            for event in out.split(|byte| *byte == b'\n').filter(|event| !event.is_empty()) {
                assert!(event.len() <= MAX_EVENT_BYTES, "{}", shown());
                custody_event::canon::check(event)
                    .unwrap_or_else(|error| panic!("{error}: {}", shown()));
                events += 1;
            }
            let wanted = match verdict {
                Verdict::Filtered { .. } => 0,
                Verdict::Stored { .. } | Verdict::Unmatched { .. } => 1,
                Verdict::Many(many) => many.stored,
            };
            assert_eq!(events, wanted, "{}", shown());
            count += 1;
        }
        eprintln!("{decoder}: {count} records");
    }
}
