//! One record of the Linux audit system, as auditd, audisp-syslog and the kernel write it; or all
//! records of one event, a line each ([`event`]).
//!
//! ```text
//! type=USER_LOGIN msg=audit(1704492707.193:421): pid=1298 uid=0 auid=1000 ses=1 msg='op=login
//!   acct="eva" exe="/usr/sbin/sshd" addr=203.0.113.9 res=success'␝UID="root" AUID="eva"
//! ```
//! The fields: `type` (a number is named where it is known), `time` (seconds and milliseconds since
//! the epoch), `serial`, `node`, then every `key=value` of the record, of its `msg='…'`, and of what
//! auditd adds in clear after U+001D (`UID`, `AUID`, `SYSCALL` … in capitals, as it writes them).
//!
//! - A key of `msg='…'` that the record itself has gets `msg_` before it: what a program says never
//!   takes the place of what the kernel says. One of the enrichment gets `enriched_`.
//! - A value that the kernel wrote in hex (`exe`, `comm`, `name`, `cwd`, `proctitle`, `cmd`, `acct`
//!   …) is read; arguments of `proctitle` and `cmd` are joined by spaces. It is taken for hex only
//!   where it holds what needs hex: a blank, a quote, a control character or a byte beyond ASCII.
//! - The words of an `EXECVE` (`a0`, `a1`, … also in pieces) are joined to `command`.
//! - `saddr` gives `saddr_fam`, and `addr` and `port`, or `path`.
//! - Of `avc:  denied  { read write } for` the words become `seresult` and `seperms`; `old auid=`
//!   and `new auid=` become `old-auid` and `new-auid`.
//! - What is not set (`?`, `(null)`, `(none)`, an `auid` or `ses` of 4294967295) is left out.
//! - Words that are no pair are the field `text`.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::build::{Builder, blank, is_name};
use super::json::Tape;
use super::kv::next_key;
use super::syscalls;
use crate::hostnames::HostNames;

mod event;

const NO: &str = "no audit record: no `type=` at the start";
const NO_STAMP: &str = "no audit record: no `audit(time:serial):`";
/// Before `type=` there may be a node's name or the kernel's stamp, at most so long.
const WINDOW_BYTES: usize = 300;

/// Words in braces are at most so long.
const GROUP_BYTES: usize = 1024;

/// Names of types that the kernel's own log and old readers give as numbers.
const TYPES: &[(&str, &str)] = &[
    ("1005", "USER"),
    ("1006", "LOGIN"),
    ("1100", "USER_AUTH"),
    ("1101", "USER_ACCT"),
    ("1102", "USER_MGMT"),
    ("1103", "CRED_ACQ"),
    ("1104", "CRED_DISP"),
    ("1105", "USER_START"),
    ("1106", "USER_END"),
    ("1107", "USER_AVC"),
    ("1108", "USER_CHAUTHTOK"),
    ("1109", "USER_ERR"),
    ("1110", "CRED_REFR"),
    ("1111", "USYS_CONFIG"),
    ("1112", "USER_LOGIN"),
    ("1113", "USER_LOGOUT"),
    ("1114", "ADD_USER"),
    ("1115", "DEL_USER"),
    ("1116", "ADD_GROUP"),
    ("1117", "DEL_GROUP"),
    ("1123", "USER_CMD"),
    ("1124", "USER_TTY"),
    ("1130", "SERVICE_START"),
    ("1131", "SERVICE_STOP"),
    ("1300", "SYSCALL"),
    ("1302", "PATH"),
    ("1305", "CONFIG_CHANGE"),
    ("1306", "SOCKADDR"),
    ("1307", "CWD"),
    ("1309", "EXECVE"),
    ("1319", "TTY"),
    ("1320", "EOE"),
    ("1325", "NETFILTER_CFG"),
    ("1326", "SECCOMP"),
    ("1327", "PROCTITLE"),
    ("1330", "KERN_MODULE"),
    ("1334", "BPF"),
    ("1400", "AVC"),
    ("1403", "MAC_POLICY_LOAD"),
    ("1700", "ANOM_PROMISCUOUS"),
    ("1701", "ANOM_ABEND"),
];

/// Fields that are written in hex where their text needs it.
const ENCODED: &[&str] = &[
    "acct",
    "cmd",
    "comm",
    "cwd",
    "data",
    "device",
    "dir",
    "exe",
    "file",
    "grp",
    "key",
    "name",
    "new_group",
    "ocomm",
    "old",
    "path",
    "proctitle",
    "root_dir",
    "sw",
    "vm",
    "watch",
];

/// Reads a whole text: a record, or the records of one event.
pub(crate) fn read(text: &str, host: &HostNames, tape: &mut Tape) -> Result<(), &'static str> {
    let mut out = Builder::new(tape, text)?;
    match text.contains('\n') {
        true => event::read(text, &mut out)?,
        false => {
            let (kind, rest) = header(text, &mut out)?;
            record(kind, rest, &mut out)?;
        }
    }
    enrich(host, &mut out)?;
    out.finish();
    Ok(())
}

/// Reads what is behind a record's stamp.
fn record(kind: &str, rest: &str, out: &mut Builder<'_>) -> Result<(), &'static str> {
    let (body, enriched) = rest.split_once('\u{1d}').unwrap_or((rest, ""));
    let mut pairs = Pairs::new(out, Place::Apart("record_"), kind == "EXECVE");
    match body.split_once("msg='") {
        Some((outer, inner)) => {
            let inner = inner.rsplit_once('\'').map_or(inner, |(inner, _)| inner);
            pairs.read(outer)?;
            pairs.place = Place::Apart("msg_");
            pairs.read(inner)?;
        }
        None => pairs.read(body)?,
    }
    pairs.place = Place::Apart("enriched_");
    pairs.read(enriched)?;
    pairs.said()
}

/// Numbers that auditd has not named: users by the host's own list, system calls by the kernel's. What
/// another machine's numbers mean is not known here.
fn enrich(host: &HostNames, out: &mut Builder<'_>) -> Result<(), &'static str> {
    if let (Some(arch), Some(number)) = (out.value("arch"), out.value("syscall")) {
        if let Some(name) = syscalls::arch(&arch).filter(|_| !out.has("ARCH")) {
            out.put("ARCH", name)?;
        }
        if let Some(name) = syscalls::call(&arch, &number).filter(|_| !out.has("SYSCALL")) {
            out.put("SYSCALL", name)?;
        }
    }
    if out.has("node") {
        return Ok(());
    }
    for (key, name) in [("auid", "AUID"), ("uid", "UID"), ("euid", "EUID"), ("ouid", "OUID")] {
        let Some(id) = out.value(key).filter(|_| !out.has(name)) else { continue };
        if let Some(user) = host.user(&id) {
            out.put(name, user)?;
        }
    }
    Ok(())
}

/// A record's beginning.
struct Front<'t> {
    node: &'t str,
    kind: &'t str,
    time: &'t str,
    serial: &'t str,
    rest: &'t str,
}

/// A record's type, and what is behind its stamp.
fn parts(text: &str) -> Result<(&str, &str), &'static str> {
    front(text).map(|front| (front.kind, front.rest))
}

/// `node=web1 type=USER_LOGIN msg=audit(1704492707.193:421):`
fn header<'t>(text: &'t str, out: &mut Builder<'_>) -> Result<(&'t str, &'t str), &'static str> {
    let front = front(text)?;
    out.put("type", front.kind)?;
    out.put("time", front.time)?;
    out.put("serial", front.serial)?;
    if let Some(node) = front.node.strip_prefix("node=") {
        out.put("node", node)?;
    }
    Ok((front.kind, front.rest))
}

fn front(text: &str) -> Result<Front<'_>, &'static str> {
    // Most lines are none: the first byte tells.
    if !matches!(text.as_bytes().first(), Some(b't' | b'n' | b'[' | b'a')) {
        return Err(NO);
    }
    let window = &text[..text.floor_char_boundary(WINDOW_BYTES)];
    let at = match window.find("type=") {
        Some(0) => 0,
        Some(at) if window[..at].ends_with(' ') && is_front(&window[..at]) => at,
        _ => return Err(NO),
    };
    let kind = text[at + 5..].split([' ', '\t']).next().unwrap_or_default();
    let rest = text[at + 5 + kind.len()..].trim_start();
    let stamp = rest.strip_prefix("msg=").unwrap_or(rest).strip_prefix("audit(").ok_or(NO_STAMP)?;
    let (stamp, rest) = stamp.split_once("):").ok_or(NO_STAMP)?;
    let (time, serial) = stamp.split_once(':').ok_or(NO_STAMP)?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_time = time.split('.').all(digits) && time.split('.').count() <= 2;
    if !is_time || !digits(serial) || kind.is_empty() {
        return Err(NO_STAMP);
    }
    let kind = TYPES.iter().find(|(number, _)| *number == kind).map_or(kind, |(_, name)| name);
    Ok(Front { node: window[..at].trim(), kind, time, serial, rest })
}

/// What may stand before a record: its node, or the kernel's stamp and the word `audit:`.
fn is_front(front: &str) -> bool {
    let front = front.trim();
    (front.starts_with("node=") && !front.contains(' ')) || front.ends_with("audit:")
}

/// Where pairs are put.
#[derive(Clone, Copy)]
enum Place {
    /// Beside those that are there; a key that is there already gets this before it.
    Apart(&'static str),
    /// The same; a pair that is there already is left out.
    Beside(&'static str),
    /// In an object of their own.
    Inside,
}

struct Pairs<'a, 'b, 't> {
    out: &'a mut Builder<'b>,
    place: Place,
    words: Vec<&'t str>,
    /// `a0`, `a1` … are a command's words (of a system call they are numbers).
    arguments: bool,
    /// Those words, joined.
    command: String,
}

impl<'a, 'b, 't> Pairs<'a, 'b, 't> {
    fn new(out: &'a mut Builder<'b>, place: Place, arguments: bool) -> Self {
        Self { out, place, words: Vec::new(), arguments, command: String::new() }
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match self.place {
            Place::Apart(prefix) => self.out.put_apart(prefix, key, value),
            Place::Beside(_) if self.out.value(key).as_deref() == Some(value) => Ok(()),
            Place::Beside(prefix) => self.out.put_apart(prefix, key, value),
            Place::Inside => self.out.put(key, value),
        }
    }

    fn read(&mut self, text: &'t str) -> Result<(), &'static str> {
        let mut rest = text.trim_start();
        let mut before = "";
        while !rest.is_empty() {
            let end =
                rest.bytes().position(|byte| blank(byte) || byte == b'=').unwrap_or(rest.len());
            let (key, after) = rest.split_at(end);
            let name = key.trim_start_matches('(');
            match after.strip_prefix('=') {
                Some(after) if is_name(name) => {
                    let (value, after) = if name == "op" { phrase(after) } else { value(after) };
                    self.pair(before, name, value)?;
                    (rest, before) = (after.trim_start(), "");
                }
                _ => (rest, before) = self.word(rest)?,
            }
        }
        Ok(())
    }

    fn pair(&mut self, before: &str, key: &str, value: Value<'_>) -> Result<(), &'static str> {
        let text: Cow<'_, str> = match value {
            Value::Quoted(text) => text.into(),
            Value::Group(text) => return self.group(text),
            Value::Bare(text) if key == "saddr" => return self.address(text),
            Value::Bare(text) => match decoded(key, text, self.arguments) {
                Some(text) => text.into(),
                None => text.into(),
            },
        };
        if is_unset(key, &text) {
            return Ok(());
        }
        if self.arguments && is_argument(key) {
            // A long argument comes in pieces: `a1[0]=… a1[1]=…`.
            if !self.command.is_empty() && (!key.contains('[') || key.ends_with("[0]")) {
                self.command.push(' ');
            }
            self.command.push_str(&text);
        }
        match before {
            "" => self.put(key, &text),
            before => self.put(&format!("{before}-{key}"), &text),
        }
    }

    /// A word that is no pair, what is after it, and what it says of the next key.
    fn word(&mut self, rest: &'t str) -> Result<(&'t str, &'t str), &'static str> {
        let end = rest.bytes().position(blank).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start();
        match word {
            "avc:" | "for" | ":" | ")" => {}
            "denied" | "granted" => self.put("seresult", word)?,
            "old" | "new" => return Ok((after, word)),
            "{" => {
                if let Some((permissions, after)) = closed(after) {
                    self.put("seperms", permissions.trim())?;
                    return Ok((after.trim_start(), ""));
                }
            }
            _ => self.words.push(word),
        }
        Ok((after, ""))
    }

    /// `{ saddr_fam=inet laddr=203.0.113.9 lport=53 }`
    fn group(&mut self, text: &str) -> Result<(), &'static str> {
        for (key, value) in text.split(' ').filter_map(|pair| pair.split_once('=')) {
            if is_name(key) && !is_unset(key, value) {
                self.put(key, value)?;
            }
        }
        Ok(())
    }

    /// A socket's address: `struct sockaddr` in hex.
    fn address(&mut self, text: &str) -> Result<(), &'static str> {
        let Some(bytes) = hex(text).filter(|bytes| bytes.len() >= 2) else {
            return self.put("saddr", text);
        };
        let port = || bytes.get(2..4).map(|port| u16::from_be_bytes([port[0], port[1]]));
        match (u16::from_le_bytes([bytes[0], bytes[1]]), bytes.len()) {
            (1, _) => {
                let path = &bytes[2..];
                // A name that begins with NUL is of the abstract room.
                let end =
                    path.iter().skip(1).position(|byte| *byte == 0).map_or(path.len(), |n| n + 1);
                self.put("saddr_fam", "local")?;
                let path = clear(&path[..end], '@');
                self.put("path", path.trim_end_matches('@'))
            }
            (2, 8..) => {
                let address = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
                self.socket("inet", &address.to_string(), port())
            }
            (10, 24..) => {
                let mut octets = [0; 16];
                octets.copy_from_slice(&bytes[8..24]);
                self.socket("inet6", &Ipv6Addr::from(octets).to_string(), port())
            }
            _ => self.put("saddr", text),
        }
    }

    fn socket(
        &mut self,
        family: &str,
        address: &str,
        port: Option<u16>,
    ) -> Result<(), &'static str> {
        self.put("saddr_fam", family)?;
        self.put("addr", address)?;
        match port {
            Some(port) => self.put("port", &port.to_string()),
            None => Ok(()),
        }
    }

    /// Writes the words that were no pairs.
    fn said(self) -> Result<(), &'static str> {
        if !self.command.is_empty() {
            self.out.put_apart("record_", "command", &self.command)?;
        }
        match self.words.as_slice() {
            [] => Ok(()),
            [one] => self.out.put_apart("record_", "text", one),
            words => self.out.put_apart("record_", "text", &words.join(" ")),
        }
    }
}

/// What stands before a brace, and what is after it; a group is at most [`GROUP_BYTES`] long, so
/// that many braces that do not close cost no more than one.
fn closed(text: &str) -> Option<(&str, &str)> {
    let window = &text.as_bytes()[..text.len().min(GROUP_BYTES)];
    let at = memchr::memchr(b'}', window)?;
    Some((&text[..at], &text[at + 1..]))
}

enum Value<'t> {
    Quoted(&'t str),
    Bare(&'t str),
    /// Between braces.
    Group(&'t str),
}

fn value(text: &str) -> (Value<'_>, &str) {
    if let Some(inner) = text.strip_prefix('"')
        && let Some((value, after)) = inner.split_once('"')
    {
        return (Value::Quoted(value), after.trim_start_matches([',', ')']));
    }
    if let Some(inner) = text.strip_prefix("{ ")
        && let Some((group, after)) = closed(inner)
    {
        return (Value::Group(group.trim()), after);
    }
    let end = text.bytes().position(blank).unwrap_or(text.len());
    let (value, after) = text.split_at(end);
    let value = value.trim_end_matches(',');
    // The old form puts brackets around the last fields: `(hostname=?, addr=?, res=success)`.
    let value = if value.contains('(') { value } else { value.trim_end_matches(')') };
    (Value::Bare(value), after)
}

/// What was done may be several words: `op=adding user id=1004`.
fn phrase(text: &str) -> (Value<'_>, &str) {
    let end = next_key(text, "=");
    match value(text) {
        (Value::Bare(first), after) if end > first.len() && end < text.len() => {
            let words = &text[..end];
            let plain = |word: &str| {
                word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_/.,".contains(&byte))
            };
            match words.split(' ').skip(1).all(plain) {
                true => (Value::Bare(words.trim_end()), &text[end..]),
                false => (Value::Bare(first), after),
            }
        }
        found => found,
    }
}

/// Is this what stands for nothing?
fn is_unset(key: &str, value: &str) -> bool {
    match value {
        "" | "?" | "(null)" | "(none)" => true,
        "4294967295" | "-1" | "unset" => {
            let key = key.to_ascii_lowercase();
            key.ends_with("auid") || key.ends_with("ses")
        }
        _ => false,
    }
}

/// `a0`, `a12`, `a1[0]`; not `a1_len`.
fn is_argument(key: &str) -> bool {
    let number = key.strip_prefix('a').map(|rest| rest.split('[').next().unwrap_or_default());
    number.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The text of a value that was written in hex.
fn decoded(key: &str, value: &str, arguments: bool) -> Option<String> {
    if !(ENCODED.contains(&key) || (arguments && is_argument(key))) {
        return None;
    }
    let upper = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    if value.len() < 2 || !value.bytes().all(upper) {
        return None;
    }
    let bytes = hex(value)?;
    if !bytes.iter().any(|byte| *byte < 0x21 || *byte > 0x7e || *byte == b'"') {
        return None;
    }
    let blanks = matches!(key, "proctitle" | "cmd");
    let trimmed = bytes.trim_ascii_end();
    let end = trimmed.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    Some(clear(&trimmed[..end], if blanks { ' ' } else { '\u{0}' }))
}

/// Bytes as text, NUL as `nul`; what is not UTF-8 as U+FFFD (the raw record keeps the bytes).
fn clear(bytes: &[u8], nul: char) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.extend(chunk.valid().chars().map(|sign| if sign == '\0' { nul } else { sign }));
        if !chunk.invalid().is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
    out
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::fields;
    use proptest::prelude::*;
    use serde_json::json;

    fn bare(text: &str, tape: &mut Tape) -> Result<(), &'static str> {
        read(text, &HostNames::default(), tape)
    }

    fn of(body: &str) -> serde_json::Value {
        let text = format!("type=X msg=audit(1704492707.193:421): {body}");
        let mut found = fields(&text, bare).unwrap();
        let map = found.as_object_mut().unwrap();
        assert_eq!(map.remove("type"), Some(json!("X")));
        assert_eq!(map.remove("time"), Some(json!("1704492707.193")));
        assert_eq!(map.remove("serial"), Some(json!("421")));
        found
    }

    #[test]
    fn a_programs_message_and_the_enrichment_never_take_the_kernels_place() {
        assert_eq!(
            of(
                "pid=9 uid=0 auid=1000 ses=1 msg='op=login uid=5 acct=\"eva\" hostname=? addr=203.0.113.9 res=success'\u{1d}UID=\"root\" AUID=\"eva\" pid=1"
            ),
            json!({
                "pid":"9","uid":"0","auid":"1000","ses":"1","op":"login","msg_uid":"5","acct":"eva",
                "addr":"203.0.113.9","res":"success","UID":"root","AUID":"eva","enriched_pid":"1",
            })
        );
    }

    #[test]
    fn hex_is_read_where_it_is_hex_only() {
        assert_eq!(
            of(
                "exe=2F6F70742F6120622F78 comm=DEADBEEF name=4142 acct=\"2F20\" proctitle=6C73002D6C cwd=(null) a0=7f56 a1=1000 key=(null)"
            ),
            json!({
                "exe":"/opt/a b/x","comm":"ޭ\u{fffd}\u{fffd}","name":"4142","acct":"2F20","proctitle":"ls -l","a0":"7f56","a1":"1000",
            })
        );
        let command = r#"type=EXECVE msg=audit(1.2:3): argc=3 a0="ls" a1=612062 a2_len=4 a2[0]="x" a2[1]="y""#;
        let found = fields(command, bare).unwrap();
        assert_eq!((&found["a1"], &found["a2[0]"]), (&json!("a b"), &json!("x")));
        assert_eq!(found["command"], "ls a b xy");
    }

    #[test]
    fn sockets_are_addresses() {
        assert_eq!(
            of("saddr=02000050A9FEA9FE0000000000000000"),
            json!({"saddr_fam":"inet","addr":"169.254.169.254","port":"80"})
        );
        assert_eq!(
            of("saddr=0A0001BB0000000020010DB800000000000000000000000100000000"),
            json!({"saddr_fam":"inet6","addr":"2001:db8::1","port":"443"})
        );
        assert_eq!(
            of("saddr=01002F72756E2F7800000000"),
            json!({"saddr_fam":"local","path":"/run/x"})
        );
        assert_eq!(of("saddr=0100002F78"), json!({"saddr_fam":"local","path":"@/x"}));
        assert_eq!(of("saddr=10"), json!({"saddr":"10"}));
        assert_eq!(
            of("x=1\u{1d}SADDR={ saddr_fam=inet laddr=203.0.113.9 lport=53 }"),
            json!({"x":"1","saddr_fam":"inet","laddr":"203.0.113.9","lport":"53"})
        );
    }

    #[test]
    fn words_that_are_no_pairs() {
        assert_eq!(
            of("avc:  denied  { read write } for  pid=2 comm=\"httpd\" tclass=file"),
            json!({"seresult":"denied","seperms":"read write","pid":"2","comm":"httpd","tclass":"file"})
        );
        assert_eq!(
            of("login pid=1 uid=0 old auid=4294967295 new auid=1000 old ses=4294967295 new ses=7"),
            json!({"text":"login","pid":"1","uid":"0","new-auid":"1000","new-ses":"7"})
        );
        assert_eq!(
            of(
                "user pid=1 msg='PAM: setcred acct=\"root\" : exe=\"/usr/sbin/sshd\" (hostname=?, addr=203.0.113.9, terminal=cron res=success)'"
            ),
            json!({"text":"user PAM: setcred","pid":"1","acct":"root","exe":"/usr/sbin/sshd","addr":"203.0.113.9","terminal":"cron","res":"success"})
        );
    }

    #[test]
    fn what_was_done_may_be_several_words() {
        assert_eq!(
            of("pid=1 msg='op=adding group to /etc/group id=1004 exe=\"/x\"'"),
            json!({"pid":"1","op":"adding group to /etc/group","id":"1004","exe":"/x"})
        );
        assert_eq!(of("op=start"), json!({"op":"start"}));
        assert_eq!(of("op=\"add_rule\" key=1"), json!({"op":"add_rule","key":"1"}));
    }

    #[test]
    fn every_front_and_no_other() {
        for (front, node) in
            [("", None), ("node=web1 ", Some("web1")), ("[ 12.345678] audit: ", None)]
        {
            let text = format!("{front}type=1400 audit(1704492707.193:4): apparmor=\"DENIED\"");
            let found = fields(&text, bare).unwrap();
            assert_eq!(found["type"], "AVC");
            assert_eq!(found["node"].as_str(), node);
            assert_eq!(found["apparmor"], "DENIED");
        }
        assert_eq!(fields("a type=X msg=audit(1:2): ", bare), Err(NO));
        assert_eq!(fields("type=X msg=audit(1:2) ", bare), Err(NO_STAMP));
        assert_eq!(fields("type=X msg=audit(x:2): ", bare), Err(NO_STAMP));
        assert_eq!(fields("type= msg=audit(1:2): ", bare), Err(NO_STAMP));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = fields(&text, bare);
            let _ = fields(&format!("type=X msg=audit(1.2:3): {text}"), bare);
        }

        #[test]
        fn what_is_nearly_right(text in "((old|avc:|\\{|\\}|saddr|exe|a1|msg|é)?[= '\"(),\u{1d}]{0,3}[0-9A-F]{0,6}){0,12}") {
            let _ = fields(&format!("type=X msg=audit(1.2:3): {text}"), bare);
        }
    }
}
