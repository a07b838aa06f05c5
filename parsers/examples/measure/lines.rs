//! Records for measuring: made here, in the forms of the programs, all a little different.

/// What kind of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// About 106 bytes: failed and accepted passwords, disconnects.
    Sshd,
    /// About 194 bytes: nginx's combined form.
    Nginx,
    /// About 335 bytes: an application's JSON.
    Json,
}

impl Kind {
    /// All kinds.
    pub(crate) const ALL: &'static [Self] = &[Self::Sshd, Self::Nginx, Self::Json];

    /// `sshd`, `nginx`, `json`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sshd => "sshd",
            Self::Nginx => "nginx",
            Self::Json => "json",
        }
    }

    /// The pack that knows them.
    pub(crate) const fn pack(self) -> &'static str {
        match self {
            Self::Sshd => "sshd",
            Self::Nginx => "nginx-access",
            Self::Json => "generic-json",
        }
    }

    /// Where such a file stands.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Sshd => "/var/log/auth.log",
            Self::Nginx => "/var/log/nginx/access.log",
            Self::Json => "/var/log/shop/audit.log",
        }
    }
}

/// Line number `number` of a kind, without a newline; the same number gives the same line.
fn line(kind: Kind, number: u64) -> String {
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

/// The first `count` lines of a kind, each with its newline.
pub(crate) fn text(kind: Kind, count: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0..count {
        text.extend_from_slice(line(kind, number).as_bytes());
        text.push(b'\n');
    }
    text
}
