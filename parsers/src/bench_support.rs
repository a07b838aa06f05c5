//! Records for measuring: made here, in the forms of the programs, all a little different.
//!
//! A bench asks for [`lines`], makes a parser and times [`parse_all`]; nothing here reads a clock.

use custody_event::{FileKey, Offset, Timestamp};

use crate::parser::{Envelope, Parser, Scratch};

/// What kind of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// About 106 bytes: failed and accepted passwords, disconnects.
    Sshd,
    /// About 194 bytes: nginx's combined form.
    Nginx,
    /// About 335 bytes: an application's JSON.
    Json,
}

impl Kind {
    /// All kinds.
    pub const ALL: &'static [Self] = &[Self::Sshd, Self::Nginx, Self::Json];

    /// `sshd`, `nginx`, `json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sshd => "sshd",
            Self::Nginx => "nginx",
            Self::Json => "json",
        }
    }

    /// Where such a file stands.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Sshd => "/var/log/auth.log",
            Self::Nginx => "/var/log/nginx/access.log",
            Self::Json => "/var/log/shop/audit.log",
        }
    }
}

/// Line number `number` of a kind, without a newline; the same number gives the same line.
#[must_use]
pub fn line(kind: Kind, number: u64) -> String {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (a, b, c) = (spread >> 56, spread >> 48 & 0xff, spread >> 32 & 0xffff);
    let (hour, minute, second) = (number / 3600 % 24, number / 60 % 60, number % 60);
    match kind {
        Kind::Sshd => {
            let pid = 20_000 + number % 10_000;
            let user = ["root", "webmaster", "oracle", "deploy", "test"]
                [usize::try_from(a % 5).unwrap_or(0)];
            let front = format!("Dec 10 {hour:02}:{minute:02}:{second:02} LabSZ sshd[{pid}]:");
            let from = format!("173.234.{a}.{b} port {}", 30_000 + c % 30_000);
            match b % 8 {
                0 => format!("{front} Accepted password for {user} from {from} ssh2"),
                1 => format!("{front} Invalid user {user} from {from}"),
                2 => format!("{front} Received disconnect from {from}:11: Bye Bye [preauth]"),
                3..=5 => format!("{front} Failed password for {user} from {from} ssh2"),
                _ => format!("{front} Failed password for invalid user {user} from {from} ssh2"),
            }
        }
        Kind::Nginx => format!(
            "203.0.{a}.{b} - - [10/Dec/2023:{hour:02}:{minute:02}:{second:02} +0000] \
             \"GET /shop/item/{c}?ref=mail HTTP/1.1\" {} {} \"https://shop.example/list\" \
             \"Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0\"",
            [200, 200, 304, 404, 500][usize::try_from(b % 5).unwrap_or(0)],
            512 + c
        ),
        Kind::Json => format!(
            "{{\"timestamp\":\"2023-12-10T{hour:02}:{minute:02}:{second:02}.123Z\",\"level\":\"info\",\
             \"action\":\"contact.updated\",\"user\":{{\"id\":{c},\"email\":\"user{b}@example.com\",\
             \"role\":\"agent\"}},\"ip\":\"198.51.{a}.{b}\",\"resource\":{{\"type\":\"contact\",\
             \"id\":\"{number}\",\"name\":\"Contact {c}\"}},\"result\":\"success\",\"session_id\":\
             \"s-{c}-{a}\",\"changes\":{{\"phone\":{{\"old\":\"+1 555 {c}\",\"new\":\"+1 555 {b}\"}}}}}}"
        ),
    }
}

/// The first `count` lines of a kind.
#[must_use]
pub fn lines(kind: Kind, count: u64) -> Vec<String> {
    (0..count).map(|number| line(kind, number)).collect()
}

/// Parses all lines into one buffer, which is emptied whenever it holds a MiB; gives the bytes
/// that were written in all.
pub fn parse_all(parser: &Parser, scratch: &mut Scratch, kind: Kind, lines: &[String]) -> usize {
    // 2023-12-10T23:59:59Z
    let observed = Timestamp::from_micros(1_702_252_799_000_000);
    let envelope = Envelope {
        host: "bench",
        agent: "00112233445566778899aabbccddeeff",
        input: "bench",
        path: Some(kind.path()),
        file: FileKey([3; 16]),
        ..Envelope::bare(observed)
    };
    let mut out = Vec::with_capacity(1 << 21);
    let mut offset = Offset(0);
    let mut written = 0;
    let mut run = parser.run(scratch, &envelope);
    for line in lines {
        run.parse(line.as_bytes(), offset, None, &mut out);
        offset = offset.plus(u64::try_from(line.len()).unwrap_or_default() + 1);
        if out.len() > 1 << 20 {
            written += out.len();
            out.clear();
        }
    }
    written + out.len()
}
