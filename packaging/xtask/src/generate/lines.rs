//! An act as a line of its kind of log.

use std::fmt::Write;

use super::{Act, Kind};
use crate::demo::syslog_time;

/// Names that break-in attempts try.
pub(super) const GUESSES: [&str; 12] = [
    "admin",
    "oracle",
    "test",
    "guest",
    "ubuntu",
    "postgres",
    "webmaster",
    "ftpuser",
    "deploy",
    "support",
    "git",
    "minecraft",
];
pub(super) const PAGES: [&str; 10] = [
    "/",
    "/login",
    "/api/v2/orders",
    "/api/v2/customers",
    "/static/app.js",
    "/reports/monthly",
    "/search",
    "/admin/users",
    "/cart",
    "/api/v2/exports",
];
pub(super) const METHODS: [&str; 6] = ["GET", "GET", "GET", "POST", "PUT", "DELETE"];
pub(super) const EVENTS: [&str; 10] = [
    "contact.update",
    "contact.create",
    "contact.delete",
    "invoice.export",
    "user.login",
    "role.grant",
    "settings.update",
    "document.download",
    "document.share",
    "order.update",
];
const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/141.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0",
];

/// The item that the low bits of `salt` choose.
pub(super) fn choose<'a>(list: &[&'a str], salt: u64) -> &'a str {
    let index = usize::try_from(salt % crate::numbers::len(list.len())).unwrap_or(0);
    list[index]
}

impl Act {
    /// Appends the line, without its line end.
    pub(crate) fn line(&self, out: &mut String) {
        let written = match self.kind {
            Kind::Sshd => self.sshd(out),
            Kind::Nginx => self.nginx(out),
            Kind::Json => self.json(out),
        };
        debug_assert!(written.is_ok(), "a String takes everything");
    }

    /// The name that an attempt with no valid user tries.
    pub(super) fn guess(&self) -> &'static str {
        choose(&GUESSES, self.salt >> 8)
    }

    fn sshd(&self, out: &mut String) -> std::fmt::Result {
        let Self { user, ip, port, salt, .. } = self;
        write!(
            out,
            "{} web-{:02} sshd[{}]: ",
            syslog_time(self.time),
            salt % 8,
            1_000 + salt % 60_000
        )?;
        match self.form {
            0..30 => write!(
                out,
                "Failed password for invalid user {} from {ip} port {port} ssh2",
                self.guess()
            ),
            30..55 => write!(out, "Failed password for {user} from {ip} port {port} ssh2"),
            55..65 => write!(
                out,
                "Accepted publickey for {user} from {ip} port {port} ssh2: ED25519 SHA256:{:016x}{:016x}abcdefghijk",
                salt,
                salt.rotate_left(17)
            ),
            65..80 => write!(out, "Invalid user {} from {ip} port {port}", self.guess()),
            80..90 => {
                write!(out, "pam_unix(sshd:session): session opened for user {user} by (uid=0)")
            }
            _ => write!(out, "Received disconnect from {ip} port {port}:11: Bye Bye [preauth]"),
        }
    }

    /// The status of a request.
    pub(super) fn http_status(&self) -> u64 {
        match self.form {
            0..80 => 200,
            80..88 => 304,
            88..93 => 404,
            93..97 => 403,
            97..99 => 401,
            _ => 500,
        }
    }

    fn nginx(&self, out: &mut String) -> std::fmt::Result {
        let civil = self.time.civil();
        let stamp = syslog_time(self.time);
        let month = stamp.get(..3).unwrap_or_default();
        write!(
            out,
            "{} - {} [{:02}/{month}/{:04}:{:02}:{:02}:{:02} +0000] \"{} {}?id={} HTTP/1.1\" {} {} \
             \"https://shop.example.com/\" \"{}\"",
            self.ip,
            self.user,
            civil.day,
            civil.year,
            civil.hour,
            civil.minute,
            civil.second,
            choose(&METHODS, self.salt >> 4),
            choose(&PAGES, self.salt >> 12),
            self.salt % 100_000,
            self.http_status(),
            200 + self.salt % 40_000,
            choose(&AGENTS, self.salt >> 20),
        )
    }

    /// `success` in nine of ten.
    pub(super) fn result(&self) -> &'static str {
        if self.form < 90 { "success" } else { "failure" }
    }

    fn json(&self, out: &mut String) -> std::fmt::Result {
        let salt = self.salt;
        write!(
            out,
            "{{\"time\":\"{}\",\"level\":\"info\",\"event\":\"{}\",\"user\":\"{}@example.com\",\"user_id\":{},\
             \"ip\":\"{}\",\"result\":\"{}\",\"resource\":\"contact\",\"resource_id\":\"c-{:06}\",\
             \"session_id\":\"{salt:016x}\",\"old_value\":\"+49 30 {:06}\",\
             \"new_value\":\"+49 30 {:06}\",\"message\":\"record changed by form\"}}",
            self.time,
            choose(&EVENTS, salt >> 4),
            self.user,
            salt % 5_000,
            self.ip,
            self.result(),
            salt % 1_000_000,
            (salt >> 16) % 1_000_000,
            (salt >> 24) % 1_000_000,
        )
    }
}
