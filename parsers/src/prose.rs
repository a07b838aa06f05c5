//! Who did what from where, and how it went, in a sentence of a program that no pack knows.
//!
//! Programs say alike things alike: `Failed login for user "eva" from 203.0.113.9 port 40024`,
//! `Auth-Failure ip 203.0.113.9 username 'eva'`, `192.0.2.1:52782 - "POST /login HTTP/1.1" 401`. The
//! sentence is cut into words ([`words`]); a word that stands after a name (`user`, `ip=`, `"email":`)
//! is its value; the words around tell the act ([`act`]) and the outcome.
//!
//! **What is taken.**
//! - The address: one that stands after `from`, `ip`, `client` and their like; of several after `from`
//!   the last, for what a client may write (its name) mostly comes before. Where it is a private one
//!   and the sentence has `X-Forwarded-For`, that one's first. Else the first address that is
//!   not said to be the other side's (`to`, `server`, `upstream` …).
//! - The user: the value of `user=`, `username:`, `"email":`; else what follows `user`, `account`; else, where
//!   the sentence is about a login, what follows `for` or `by`, what stands before `logged in`, or an
//!   e-mail address.
//! - The outcome: a word of failure before one of success; else the status of an HTTP request.
//!
//! **Limits.** The first [`WINDOW_BYTES`] and [`words::MAX_WORDS`] words; a user of at most
//! [`MAX_USER_BYTES`]. All of it is a guess: what is not clearly named is left out.

mod act;
mod words;

use std::net::{IpAddr, SocketAddr};

use custody_event::{Detail, Draft, Field};

use crate::decode::build::Builder;
use crate::decode::json::Tape;
use crate::normalise;
use words::Words;

const WINDOW_BYTES: usize = 2048;
const MAX_USER_BYTES: usize = 128;

/// What a sentence says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts<'t> {
    /// `authentication.login`, `authentication.logout`, `password.change`, `http.request`.
    pub(crate) act: Option<&'static str>,
    pub(crate) outcome: Option<&'static str>,
    pub(crate) user: Option<&'t str>,
    pub(crate) ip: Option<&'t str>,
    pub(crate) port: Option<&'t str>,
    pub(crate) method: Option<&'t str>,
    pub(crate) target: Option<&'t str>,
    pub(crate) status: Option<&'t str>,
    pub(crate) pid: Option<&'t str>,
}

const NOTHING: &str = "no sentence of who did what from where";

/// Reads a sentence.
pub(crate) fn facts(text: &str) -> Facts<'_> {
    let words = Words::of(window(text));
    let request = act::request(&words);
    let act = act::named(&words);
    let outcome = act::outcome(&words, act.is_some()).or_else(|| {
        let status = request
            .as_ref()
            .and_then(|request| request.status)
            .or_else(|| act::status_after_http(&words))?;
        act::of_status(status)
    });
    let (ip, port) = address(&words).map_or((None, None), |(ip, port)| (Some(ip), port));
    // Where nobody knows it, some write 0.
    let port = port.filter(|port| *port != "0");
    let request_act = request.as_ref().map(|request| request.act());
    Facts {
        user: user(&words, act.is_some()),
        act: act.or(request_act),
        outcome,
        ip,
        port,
        method: request.as_ref().and_then(|request| request.method),
        target: request.as_ref().and_then(|request| request.target),
        status: request.as_ref().and_then(|request| request.status),
        pid: pid(&words),
    }
}

/// As a decoder of fields: refused where the sentence names no act.
pub(crate) fn read(text: &str, tape: &mut Tape) -> Result<(), &'static str> {
    // An object of JSON is no sentence.
    if text.trim_start().starts_with('{') {
        return Err(NOTHING);
    }
    let facts = facts(text);
    let act = facts.act.ok_or(NOTHING)?;
    if facts.user.is_none() && facts.ip.is_none() {
        return Err(NOTHING);
    }
    let mut out = Builder::new(tape, text)?;
    out.put("act", act)?;
    let parts = [
        ("outcome", facts.outcome),
        ("user", facts.user),
        ("ip", facts.ip),
        ("port", facts.port),
        ("method", facts.method),
        ("target", facts.target),
        ("status", facts.status),
        ("pid", facts.pid),
    ];
    for (name, value) in parts {
        if let Some(value) = value {
            out.put(name, value)?;
        }
    }
    out.finish();
    Ok(())
}

/// Fills who, from where and how it went of a record that no rule knows; the process too, where no
/// envelope says it.
pub(crate) fn fill(text: &str, process: bool, draft: &mut Draft<'_>) {
    if text.trim_start().starts_with('{') {
        return;
    }
    let facts = facts(text);
    put(&facts, draft);
    if let Some(pid) = facts.pid.filter(|_| process) {
        draft.detail("pid", Detail::Text(pid.to_owned().into()));
    }
}

fn put(facts: &Facts<'_>, draft: &mut Draft<'_>) {
    let address = facts.ip.and_then(|ip| ip.parse::<IpAddr>().ok());
    if let Some(address) = address.filter(|_| !draft.has(Field::SourceIp)) {
        draft.text(Field::SourceIp, address.to_canonical().to_string());
        let port = facts.port.and_then(|port| port.parse().ok()).filter(|port| *port > 0);
        if let Some(port) = port.filter(|_| !draft.has(Field::SourcePort)) {
            draft.int(Field::SourcePort, port);
        }
    }
    let named = draft.has(Field::ActorName) || draft.has(Field::ActorId);
    if let Some(user) = facts.user.filter(|_| !named) {
        draft.text(Field::ActorName, user.to_owned());
    }
    if let Some(outcome) = facts.outcome.filter(|_| !draft.has(Field::Outcome)) {
        draft.text(Field::Outcome, outcome);
    }
}

/// Completes an event of a rule by its own message (`sentence: parse`); the act too, where the rule found
/// none.
pub(crate) fn complete(draft: &mut Draft<'_>) {
    let Some(text) = draft.text_of(Field::Message).map(str::to_owned) else { return };
    let facts = facts(&text);
    let unnamed = draft.text_of(Field::Action).is_none_or(|action| action == normalise::NO_ACTION);
    if let Some(act) = facts.act.filter(|_| unnamed) {
        for field in [Field::Action, Field::Category, Field::Op] {
            draft.remove(field);
        }
        let (category, op) = normalise::defaults(act);
        draft.text(Field::Action, act);
        draft.text(Field::Category, category);
        draft.text(Field::Op, op);
    }
    put(&facts, draft);
}

fn window(text: &str) -> &str {
    let mut end = text.len().min(WINDOW_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Names before an address that say that it is the client's.
const CLIENT: &[&str] = &[
    "ip",
    "ipaddr",
    "ip_address",
    "ipaddress",
    "client",
    "client_ip",
    "clientip",
    "src",
    "src_ip",
    "srcip",
    "source",
    "source_ip",
    "sourceip",
    "remote",
    "remote_ip",
    "remoteip",
    "remote_addr",
    "remoteaddr",
    "remote_address",
    "remoteaddress",
    "rhost",
    "rip",
    "peer",
    "addr",
    "address",
    "host",
    "origin",
    "caller",
    "requester",
    "visitor",
    "user_ip",
    "userip",
    "connection",
];
/// Names before an address that say that it is another's.
const OTHER_SIDE: &[&str] = &[
    "to",
    "dst",
    "dst_ip",
    "dest",
    "destination",
    "server",
    "upstream",
    "listening",
    "on",
    "daddr",
    "laddr",
    "local",
    "bind",
    "listen",
    "version",
    "v",
    "proxy",
    "via",
    "gateway",
    "nameserver",
    "lip",
    "backend",
    "dstip",
];

/// The client's address and port.
fn address<'t>(words: &Words<'t>) -> Option<(&'t str, Option<&'t str>)> {
    let mut named = None;
    let mut from = None;
    let mut plain = None;
    let mut forwarded = None;
    for at in 0..words.len() {
        let Some((ip, port)) = as_address(words, at) else { continue };
        let found = (ip, port.or_else(|| port_after(words, at)));
        let label = words.label(at);
        match label.as_deref() {
            Some("x-forwarded-for" | "forwarded" | "forwarded-for" | "x-real-ip") => {
                forwarded = forwarded.or(Some(found));
            }
            Some("from" | "von" | "de" | "by") => from = Some(found),
            Some(label) if CLIENT.contains(&label) => named = named.or(Some(found)),
            Some(label) if OTHER_SIDE.contains(&label) => {}
            _ => plain = plain.or(Some(found)),
        }
    }
    let found = from.or(named).or(plain)?;
    Some(forwarded.filter(|_| is_private(found.0)).unwrap_or(found))
}

/// Addresses of one's own net, where a proxy stands.
fn is_private(ip: &str) -> bool {
    match ip.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        Err(_) => false,
    }
}

/// The word as an address, with the port that is written to it.
fn as_address<'t>(words: &Words<'t>, at: usize) -> Option<(&'t str, Option<&'t str>)> {
    let word = words.text(at);
    // `a::b` may be a name of a program's part; an address has a digit, or many colons.
    let likely = word.len() >= 3
        && word.contains(['.', ':'])
        && (word.bytes().any(|byte| byte.is_ascii_digit()) || word.matches(':').count() >= 3);
    if !likely {
        return None;
    }
    if word.parse::<IpAddr>().is_ok_and(|ip| !ip.is_unspecified()) {
        // `[2001:db8::1]:443`
        let after = words.gap_after(at) == "]";
        let port = after.then(|| words.text(at + 1).strip_prefix(':')).flatten();
        let port = port.filter(|port| is_port(port));
        return Some((word, port));
    }
    let (ip, port) = word.rsplit_once(':')?;
    let socket = ip.parse::<std::net::Ipv4Addr>().is_ok() && is_port(port);
    let socket = socket || word.parse::<SocketAddr>().is_ok();
    socket.then_some((ip, Some(port)))
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

/// `port 40024` within the next words.
fn port_after<'t>(words: &Words<'t>, at: usize) -> Option<&'t str> {
    (at + 1..words.len().min(at + 4))
        .find(|at| {
            words.label(*at).is_some_and(|label| matches!(&*label, "port" | "src_port" | "sport"))
        })
        .map(|at| words.text(at))
        .filter(|port| is_port(port))
}

/// The process: `pid=812`, `[pid 812]`, nginx's `812#812`.
fn pid<'t>(words: &Words<'t>) -> Option<&'t str> {
    let number = |text: &str| {
        !text.is_empty() && text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    (0..words.len()).find_map(|at| {
        let word = words.text(at);
        if number(word) {
            return words.label(at).is_some_and(|label| label == "pid").then_some(word);
        }
        let (pid, thread) = word.split_once('#')?;
        (number(pid) && number(thread)).then_some(pid)
    })
}

/// Names of a user before `=` or `:`.
const USER_KEYS: &[&str] = &[
    "user",
    "username",
    "user_name",
    "usr",
    "login",
    "account",
    "acct",
    "principal",
    "email",
    "e-mail",
    "mail",
    "uname",
    "loginname",
    "login_name",
    "account_name",
    "accountname",
    "user_email",
    "useremail",
    "ruser",
    "identity",
];
/// Words before a user in a sentence.
const USER_WORDS: &[&str] = &["user", "username", "account", "utilisateur", "benutzer"];
/// What follows `user` and is none.
const NO_USER: &[&str] = &[
    "is",
    "was",
    "not",
    "does",
    "do",
    "name",
    "agent",
    "id",
    "account",
    "with",
    "from",
    "has",
    "logged",
    "login",
    "in",
    "on",
    "at",
    "by",
    "for",
    "to",
    "and",
    "or",
    "of",
    "the",
    "a",
    "an",
    "failed",
    "failure",
    "authentication",
    "auth",
    "authenticated",
    "password",
    "credentials",
    "invalid",
    "unknown",
    "session",
    "sessions",
    "who",
    "using",
    "via",
    "tried",
    "trying",
    "attempt",
    "attempts",
    "attempted",
    "signed",
    "successfully",
    "denied",
    "accepted",
    "exists",
    "ip",
    "address",
    "input",
    "data",
    "info",
    "error",
    "group",
    "groups",
    "role",
    "management",
    "service",
    "request",
    "already",
    "could",
    "cannot",
    "can",
    "must",
    "no",
    "db",
    "database",
    "this",
    "that",
    "type",
    "profile",
    "creation",
    "created",
    "deleted",
    "removed",
    "added",
    "updated",
    "requested",
    "supplied",
    "provided",
    "none",
    "null",
    "found",
    "private",
    "public",
    "host",
    "client",
    "rejected",
    "locked",
    "disabled",
    "enabled",
    "limit",
    "count",
    "space",
    "mode",
    "defined",
    "interface",
    "because",
    "reason",
];

fn user<'t>(words: &Words<'t>, login: bool) -> Option<&'t str> {
    let good = |at: usize| words.value(at).filter(|user| is_user(user));
    let strict = |at: usize| {
        let quoted = words.is_quoted(at);
        good(at).filter(|user| quoted || !NO_USER.contains(&user.to_ascii_lowercase().as_str()))
    };
    let keyed = (0..words.len())
        .filter(|at| words.key(*at).is_some_and(|key| USER_KEYS.contains(&&*key)))
        .find_map(strict);
    let after = || {
        (1..words.len())
            .filter(|at| words.key(*at).is_none() && words.near(*at))
            .filter(|at| USER_WORDS.iter().any(|word| words.is(*at - 1, word)))
            .find_map(strict)
    };
    let found = keyed.or_else(after);
    if found.is_some() || !login {
        return found;
    }
    let for_whom = || {
        (1..words.len())
            .filter(|at| words.key(*at).is_none() && words.near(*at))
            .filter(|at| words.is(*at - 1, "for") || words.is(*at - 1, "by"))
            .filter(|at| as_address(words, *at).is_none())
            .find_map(strict)
    };
    let before = || {
        (1..words.len())
            .filter(|at| {
                let two =
                    at + 1 < words.len() && (words.is(at + 1, "in") || words.is(at + 1, "out"));
                (two && (words.is(*at, "logged") || words.is(*at, "signed")))
                    || words.is(*at, "authenticated")
            })
            .filter_map(|at| strict(at - 1))
            .find(|user| user.bytes().all(|byte| !byte.is_ascii_uppercase()) || user.contains('@'))
    };
    let mail = || (0..words.len()).filter(|at| is_mail(words.text(*at))).find_map(good);
    for_whom().or_else(before).or_else(mail)
}

fn is_user(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_USER_BYTES
        && text != "-"
        && !text.starts_with(['/', '<'])
        && !text.contains("://")
        && text.parse::<IpAddr>().is_err()
}

fn is_mail(text: &str) -> bool {
    let Some((name, domain)) = text.split_once('@') else { return false };
    !name.is_empty()
        && domain.contains('.')
        && !domain.contains(['/', ':', '@'])
        && !name.contains(['/', ':'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(text: &str) -> String {
        let facts = facts(text);
        let parts = [facts.act, facts.outcome, facts.user, facts.ip, facts.port];
        parts.map(|part| part.unwrap_or("-")).join(" ")
    }

    #[test]
    fn sentences_about_logins_are_understood_however_they_are_put() {
        for (text, wanted) in [
            (
                "Failed login for user \"eva\" from 203.0.113.9 port 40024",
                "authentication.login failure eva 203.0.113.9 40024",
            ),
            (
                "Auth-Failure ip 203.0.113.9 username 'eva b'",
                "authentication.login failure eva b 203.0.113.9 -",
            ),
            (
                "user eva logged in from [2001:db8::9]:5021",
                "authentication.login success eva 2001:db8::9 5021",
            ),
            ("eva signed in at 203.0.113.9:22", "authentication.login success eva 203.0.113.9 22"),
            (
                "login failed: bad credentials {\"ip\":\"::ffff:203.0.113.9\",\"email\":\"eva@example.com\"}",
                "authentication.login failure eva@example.com ::ffff:203.0.113.9 -",
            ),
            (
                "WARN rejected token ip=203.0.113.9:2022 subsystem=ftp username=eva auth",
                "authentication.login denied eva 203.0.113.9 2022",
            ),
            (
                "authentication for user `eva` with password `x` accepted [203.0.113.9:99]",
                "authentication.login success eva 203.0.113.9 99",
            ),
            (
                "Incorrect password for user eva. IP=203.0.113.9",
                "authentication.login failure eva 203.0.113.9 -",
            ),
            (
                "Login failed for db:shop login:eva@example.com from 203.0.113.9",
                "authentication.login failure eva@example.com 203.0.113.9 -",
            ),
            (
                "Unsuccessful login attempt from 10.0.0.1 (X-Forwarded-For: 203.0.113.9, 10.0.0.7)",
                "authentication.login failure - 203.0.113.9 -",
            ),
            (
                "Unsuccessful login attempt from 198.51.100.1 (X-Forwarded-For: 203.0.113.9)",
                "authentication.login failure - 198.51.100.1 -",
            ),
            ("user eva logged out", "authentication.logout - eva - -"),
            (
                "Password of user eva was changed by root from 203.0.113.9",
                "password.change - eva 203.0.113.9 -",
            ),
            (
                "INFO: 203.0.113.9:52782 - \"POST /login HTTP/1.1\" 401 Unauthorized",
                "authentication.login denied - 203.0.113.9 52782",
            ),
            ("203.0.113.9 GET /reports HTTP/1.1 200 12", "http.request success - 203.0.113.9 -"),
        ] {
            assert_eq!(said(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_a_sentence_does_not_say_is_not_guessed() {
        for (text, wanted) in [
            ("user agent is new, user is not set", "- - - - -"),
            ("forwarding 203.0.113.9 to 198.51.100.1", "- - - 203.0.113.9 -"),
            ("listening on 198.51.100.1:80", "- - - - -"),
            ("std::io::Error at 12:34:56 in a::b", "- - - - -"),
            ("password file reloaded", "- - - - -"),
            ("", "- - - - -"),
        ] {
            assert_eq!(said(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_name_that_holds_an_address_does_not_take_the_clients_place() {
        assert_eq!(
            said("Failed login for eva from 10.9.9.9 from 203.0.113.9"),
            "authentication.login failure eva 203.0.113.9 -"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in any::<String>()) {
            let _ = facts(&text);
        }

        #[test]
        fn nearly_right_text_is_read(text in "((user|login|failed|from|for|ip|GET|POST|401)[ =:\"'\\[]{0,3}|[0-9a-f.:]{1,12}[\\] ,]|é){0,14}") {
            let facts = facts(&text);
            if let Some(ip) = facts.ip {
                prop_assert!(ip.parse::<IpAddr>().is_ok(), "{ip}");
            }
        }
    }
}
