//! Syslog lines: RFC 5424, RFC 3164 as it is really written, and the ISO-dated form of rsyslog.
//!
//! ```text
//! <38>1 2022-01-19T14:23:55+00:00 host app 44255 ID47 [meta n="1"] message       RFC 5424
//! <38>Dec 10 06:55:48 host app[24200]: message                                   RFC 3164
//! 2023-11-14T00:20:42.738197+01:00 host app[1112652]: message                    rsyslog, systemd
//! ```
//! The priority may be missing except in RFC 5424, and so may be host, program and process id.
//! A repeated message (`message repeated 3 times: [ … ]`) is unwrapped: rules match what was
//! repeated, and the count becomes the event's `attempts`.

use crate::time::Moment;
use crate::time::forms;

/// What stood around the message. All texts are slices of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Syslog<'t> {
    pub(crate) moment: Option<Moment>,
    pub(crate) host: Option<&'t str>,
    pub(crate) service: Option<&'t str>,
    pub(crate) pid: Option<&'t str>,
    pub(crate) msgid: Option<&'t str>,
    /// Structured data, as it stands.
    pub(crate) data: Option<&'t str>,
    pub(crate) priority: Option<u8>,
    /// The message as it stands.
    pub(crate) message: &'t str,
    /// The message that rules see: of a repeated one what was repeated.
    pub(crate) inner: &'t str,
    /// How often it was said, where the line says that it was repeated.
    pub(crate) repeated: Option<i64>,
}

/// Names of the facilities (RFC 5424 §6.2.1).
pub(crate) const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// Names of the severities (RFC 5424 §6.2.1).
pub(crate) const LEVELS: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

impl<'t> Syslog<'t> {
    fn bare(rest: &'t str) -> Self {
        Self {
            moment: None,
            host: None,
            service: None,
            pid: None,
            msgid: None,
            data: None,
            priority: None,
            message: rest,
            inner: rest,
            repeated: None,
        }
    }

    /// The facility's name.
    pub(crate) fn facility(&self) -> Option<&'static str> {
        self.priority.and_then(|priority| FACILITIES.get(usize::from(priority >> 3)).copied())
    }

    /// The severity's name.
    pub(crate) fn level(&self) -> Option<&'static str> {
        self.priority.map(|priority| LEVELS[usize::from(priority & 7)])
    }
}

/// Takes the envelope off; an error says why the record is no syslog line.
pub(crate) fn decode(record: &str) -> Result<Syslog<'_>, &'static str> {
    let (priority, rest) = priority(record);
    let mut line = match rest.strip_prefix("1 ") {
        Some(rest) if priority.is_some() => {
            rfc5424(rest).ok_or("not RFC 5424 after its version")?
        }
        _ => rfc3164(rest, priority.is_some())?,
    };
    line.priority = priority;
    line.message = line.message.trim_end();
    line.inner = line.message;
    if let Some((times, inner)) = repeated(line.message) {
        line.repeated = Some(times);
        line.inner = inner;
    }
    Ok(line)
}

/// `<13>` at the front.
fn priority(record: &str) -> (Option<u8>, &str) {
    let parts = record.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    match parts {
        Some((digits, rest))
            if (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            match digits.parse::<u8>() {
                Ok(value) if value < 192 => (Some(value), rest),
                _ => (None, record),
            }
        }
        _ => (None, record),
    }
}

/// The next word, and what is after its one space.
fn word(rest: &str) -> Option<(&str, &str)> {
    let end = memchr::memchr(b' ', rest.as_bytes()).unwrap_or(rest.len());
    (end > 0).then(|| (&rest[..end], rest.get(end + 1..).unwrap_or("")))
}

fn nil(text: &str) -> Option<&str> {
    (text != "-").then_some(text)
}

fn rfc5424(rest: &str) -> Option<Syslog<'_>> {
    let (time, rest) = word(rest)?;
    let moment = match nil(time) {
        None => None,
        Some(time) => {
            let (moment, used) = forms::iso_tight(time.as_bytes())?;
            (used == time.len()).then_some(Some(moment))?
        }
    };
    let (host, rest) = word(rest)?;
    let (service, rest) = word(rest)?;
    let (pid, rest) = word(rest)?;
    let (msgid, rest) = word(rest)?;
    let (data, message) = structured(rest)?;
    Some(Syslog {
        moment,
        host: nil(host),
        service: nil(service),
        pid: nil(pid),
        msgid: nil(msgid),
        data,
        ..Syslog::bare(message.strip_prefix('\u{feff}').unwrap_or(message))
    })
}

/// `-` or `[…][…]`; in a value `"`, `\` and `]` are escaped.
fn structured(rest: &str) -> Option<(Option<&str>, &str)> {
    if let Some(after) = rest.strip_prefix('-') {
        return match after.strip_prefix(' ') {
            Some(message) => Some((None, message)),
            None => after.is_empty().then_some((None, "")),
        };
    }
    let bytes = rest.as_bytes();
    let mut at = 0;
    while bytes.get(at) == Some(&b'[') {
        at = element_end(bytes, at)?;
    }
    let data = (at > 0).then(|| &rest[..at])?;
    let message = &rest[at..];
    Some((Some(data), message.strip_prefix(' ').unwrap_or(message)))
}

fn element_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut quoted = false;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b']' if !quoted => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The rest of a line after its priority: time, host, tag. Without a time it is only a syslog
/// line if it had a priority.
fn rfc3164(rest: &str, had_priority: bool) -> Result<Syslog<'_>, &'static str> {
    let bytes = rest.as_bytes();
    let read = match bytes.first() {
        Some(b'0'..=b'9') => forms::iso_tight(bytes),
        Some(b'A'..=b'Z' | b'a'..=b'z') => forms::rfc3164(bytes),
        _ => None,
    };
    let Some((moment, used)) = read else {
        if had_priority {
            let (service, pid, message) = tag(rest);
            return Ok(Syslog { service, pid, ..Syslog::bare(message) });
        }
        return Err("no syslog time at the start");
    };
    let after = &rest[used..];
    let after = after.strip_prefix(':').unwrap_or(after);
    let Some(after) = after.strip_prefix(' ').or_else(|| after.is_empty().then_some("")) else {
        return Err("no space after the time");
    };
    let (host, rest) = host(after);
    let (service, pid, message) = tag(rest);
    // Many programs begin their own lines with a date, a space and a time; syslog writes a `T`.
    let of_syslog = !bytes[0].is_ascii_digit() || bytes.get(10) == Some(&b'T') || had_priority;
    if !(of_syslog || service.is_some() && host.is_some_and(is_host)) {
        return Err("a date and a time, but no host and program behind them");
    }
    Ok(Syslog { moment: Some(moment), host, service, pid, ..Syslog::bare(message) })
}

/// Not a number, a level (`WARN`), a zone (`CEST`) or something in brackets.
fn is_host(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte))
        && word.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// The host, where there is one: a line may go on with the tag at once, or with a second space.
fn host(rest: &str) -> (Option<&str>, &str) {
    if let Some(rest) = rest.strip_prefix(' ') {
        return (None, rest);
    }
    if rest.starts_with("--- last message") || rest.starts_with("last message repeated ") {
        return (None, rest);
    }
    let Some((first, after)) = word(rest) else { return (None, rest) };
    let is_tag = match first.strip_suffix(':') {
        Some(name) => !name.contains(':') || name.ends_with(']'),
        None => after.is_empty(),
    };
    if is_tag { (None, rest) } else { (Some(first), after) }
}

/// A program's name is at most this long; longer ones are part of the message.
const MAX_TAG: usize = 96;

/// `name[pid]: message`, `name: message`, `name[pid] (more): message`; the name may hold spaces
/// where a process id follows it (`Google Chrome[812]:`).
fn tag(rest: &str) -> (Option<&str>, Option<&str>, &str) {
    let none = (None, None, rest);
    let bytes = rest.as_bytes();
    let window = &bytes[..bytes.len().min(MAX_TAG)];
    let mut spaces = false;
    for (at, byte) in window.iter().enumerate() {
        match byte {
            b' ' if at == 0 => return none,
            b' ' => spaces = true,
            b':' if spaces => return none,
            b':' if at > 0 && matches!(bytes.get(at + 1), None | Some(b' ')) => {
                return (Some(&rest[..at]), None, rest.get(at + 2..).unwrap_or(""));
            }
            b'[' if at > 0 => return with_pid(rest, at).unwrap_or(none),
            b'"' | b'=' | b'{' | b'(' | b',' => return none,
            _ => {}
        }
    }
    none
}

fn with_pid(rest: &str, open: usize) -> Option<(Option<&str>, Option<&str>, &str)> {
    let name = &rest[..open];
    let (pid, after) = rest[open + 1..].split_once(']')?;
    let digits = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    if (!digits && name.contains(' ')) || pid.contains(' ') {
        return None;
    }
    let after = match after.strip_prefix(" (") {
        Some(more) => more.split_once("): ").map(|(_, message)| message),
        None => None,
    }
    .or_else(|| after.strip_prefix(": "))
    .or_else(|| after.strip_prefix(':'))?;
    Some((Some(name), Some(pid).filter(|pid| !pid.is_empty()), after))
}

/// `message repeated 3 times: [ Failed password … ]`
fn repeated(message: &str) -> Option<(i64, &str)> {
    let rest = message.strip_prefix("message repeated ")?;
    let (times, rest) = rest.split_once(" times: [")?;
    let inner = rest.strip_suffix(']')?;
    Some((times.parse().ok().filter(|times| *times > 0)?, inner.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(line: &str) -> (Option<&str>, Option<&str>, Option<&str>, &str) {
        let line = decode(line).unwrap();
        (line.host, line.service, line.pid, line.message)
    }

    #[test]
    fn each_form_gives_host_program_process_and_message() {
        for (line, expected) in [
            (
                "Dec 10 06:55:48 web1 sshd[24200]: hello: x",
                (Some("web1"), Some("sshd"), Some("24200"), "hello: x"),
            ),
            (
                "<38>Dec 10 06:55:48 web1 sudo:    joe : x",
                (Some("web1"), Some("sudo"), None, "   joe : x"),
            ),
            (
                "2023-11-14T00:20:42.738197+01:00 web1 cron[1]: x",
                (Some("web1"), Some("cron"), Some("1"), "x"),
            ),
            (
                "<38>1 2022-01-19T14:23:55+00:00 fw sshd 44 - [m a=\"1]\\\"\"][n] x y",
                (Some("fw"), Some("sshd"), Some("44"), "x y"),
            ),
            ("<38>1 - - - - - -", (None, None, None, "")),
            ("<38>1 2022-01-19T14:23:55Z h a - - - \u{feff}x", (Some("h"), Some("a"), None, "x")),
            (
                "Feb  9 21:20:08  sshd[8317]: last message repeated 2 times",
                (None, Some("sshd"), Some("8317"), "last message repeated 2 times"),
            ),
            (
                "Feb  9 21:20:08 --- last message repeated 1 time ---",
                (None, None, None, "--- last message repeated 1 time ---"),
            ),
            (
                "Feb  9 21:20:08 mac com.x.launchd[1] (com.y[3]): z",
                (Some("mac"), Some("com.x.launchd"), Some("1"), "z"),
            ),
            (
                "Feb  9 21:20:08 mac Google Chrome[12]: z",
                (Some("mac"), Some("Google Chrome"), Some("12"), "z"),
            ),
            (
                "Feb  9 21:20:08 host just words: here",
                (Some("host"), None, None, "just words: here"),
            ),
            ("Feb  9 21:20:08 sshd[7]: no host", (None, Some("sshd"), Some("7"), "no host")),
            (
                "Feb  9 21:20:08 fe80::1 sshd[7]: v6",
                (Some("fe80::1"), Some("sshd"), Some("7"), "v6"),
            ),
            ("<13>app: no time", (None, Some("app"), None, "no time")),
            ("2024-01-05 22:11:47 web1 cron[7]: x", (Some("web1"), Some("cron"), Some("7"), "x")),
        ] {
            assert_eq!(parts(line), expected, "{line}");
        }
    }

    #[test]
    fn a_repeated_message_is_unwrapped_and_counted() {
        let line =
            decode("Dec 10 06:55:48 h sshd[1]: message repeated 5 times: [ Failed x]").unwrap();
        assert_eq!((line.inner, line.repeated), ("Failed x", Some(5)));
        assert_eq!(line.message, "message repeated 5 times: [ Failed x]");
    }

    #[test]
    fn other_lines_are_no_syslog() {
        for line in [
            "",
            "{\"a\":1}",
            "192.168.1.1 - - [x]",
            "Decem 1 00:00:00 h",
            "2024 is a year",
            "<999>x",
            "2024-01-05 22:11:47 CEST [4121] LOG:  connection authorized",
            "2024-02-03 10:11:12,123 WARN  [org.example] (main) x",
            "2024/01/05 22:11:47 [error] 5#5: *1 x",
            "2024-01-05 22:11:47 12 [Note] x: y",
        ] {
            assert!(decode(line).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_text_decodes_or_says_why(text in any::<String>(), tail in "[ -~]{0,60}") {
            let _ = decode(&text);
            let _ = decode(&format!("Dec 10 06:55:48 {tail}"));
            let _ = decode(&format!("<13>1 2022-01-19T14:23:55Z {tail}"));
        }
    }
}
