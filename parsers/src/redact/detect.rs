//! The built-in patterns but card numbers: a few letters name the candidates ([`ANCHORS`]), a look
//! around them decides.
//!
//! Each looks at a bounded stretch before its letters; after them it reads to the end of what it
//! takes for the secret, and no candidate within a secret is looked at again.

use std::sync::Arc;

use aho_corasick::packed::{self, MatchKind, Searcher};
use aho_corasick::{AhoCorasick, AhoCorasickBuilder};

use super::{By, Hit, Hits, RedactAction, SecretPattern};

/// What letters may be the sign of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Bearer,
    Authorization,
    Jwt,
    Pem,
    /// A token that begins with these letters and has at least so many characters behind them.
    Token(usize),
    Url,
    /// A part of a name that secrets have.
    Name,
}

impl Sign {
    const fn pattern(self) -> SecretPattern {
        match self {
            Self::Bearer | Self::Authorization => SecretPattern::BearerTokens,
            Self::Jwt => SecretPattern::Jwt,
            Self::Pem => SecretPattern::PrivateKeys,
            Self::Token(_) => SecretPattern::ApiTokens,
            Self::Url => SecretPattern::UrlPasswords,
            Self::Name => SecretPattern::SecretValues,
        }
    }
}

/// The letters: first letters are left out where they may be capitals.
const ANCHORS: &[(&str, Sign)] = &[
    ("earer ", Sign::Bearer),
    ("EARER ", Sign::Bearer),
    ("uthorization", Sign::Authorization),
    ("UTHORIZATION", Sign::Authorization),
    ("eyJ", Sign::Jwt),
    ("PRIVATE KEY", Sign::Pem),
    ("ghp_", Sign::Token(20)),
    ("gho_", Sign::Token(20)),
    ("ghu_", Sign::Token(20)),
    ("ghs_", Sign::Token(20)),
    ("ghr_", Sign::Token(20)),
    ("github_pat_", Sign::Token(20)),
    ("glpat-", Sign::Token(16)),
    ("xoxa-", Sign::Token(10)),
    ("xoxb-", Sign::Token(10)),
    ("xoxe-", Sign::Token(10)),
    ("xoxp-", Sign::Token(10)),
    ("xoxs-", Sign::Token(10)),
    ("xapp-", Sign::Token(10)),
    ("sk_live_", Sign::Token(10)),
    ("rk_live_", Sign::Token(10)),
    ("whsec_", Sign::Token(16)),
    ("AIza", Sign::Token(35)),
    ("npm_", Sign::Token(30)),
    ("pypi-", Sign::Token(40)),
    ("hvs.", Sign::Token(20)),
    ("dop_v1_", Sign::Token(40)),
    ("://", Sign::Url),
    ("assw", Sign::Name),
    ("ASSW", Sign::Name),
    ("assphr", Sign::Name),
    ("ASSPHR", Sign::Name),
    ("pwd", Sign::Name),
    ("PWD", Sign::Name),
    ("Pwd", Sign::Name),
    ("ecret", Sign::Name),
    ("ECRET", Sign::Name),
    ("oken", Sign::Name),
    ("OKEN", Sign::Name),
    ("pi_key", Sign::Name),
    ("pi-key", Sign::Name),
    ("pi-Key", Sign::Name),
    ("pikey", Sign::Name),
    ("piKey", Sign::Name),
    ("PI_KEY", Sign::Name),
    ("PI-KEY", Sign::Name),
    ("APIKEY", Sign::Name),
    ("rivate_key", Sign::Name),
    ("rivateKey", Sign::Name),
    ("RIVATE_KEY", Sign::Name),
];

/// Ends of names whose values are secrets: lower case, without joints.
const NAMES: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "apikey",
    "accesstoken",
    "refreshtoken",
    "authtoken",
    "idtoken",
    "bearertoken",
    "sessiontoken",
    "securitytoken",
    "secrettoken",
    "secretaccesskey",
    "secretkey",
    "clientsecret",
    "privatekey",
];
/// Names that are secrets only by themselves: `next_token` is none.
const WHOLE_NAMES: &[&str] = &["token", "apitoken", "xapitoken", "xvaulttoken", "xauthtoken"];

/// The last two letters of all these.
const ENDS: [[u8; 2]; 6] = [*b"rd", *b"wd", *b"se", *b"et", *b"ey", *b"en"];

/// The longest name that is looked at.
const MAX_NAME_BYTES: usize = 64;
/// Of a URL the longest part that may hold user and password.
const MAX_USERINFO_BYTES: usize = 512;
/// `-----BEGIN ENCRYPTED ` is 21 bytes.
const MAX_PEM_LABEL_BYTES: usize = 48;
/// The shortest token behind `Bearer`.
const MIN_BEARER_BYTES: usize = 8;

/// Finds the letters: by SIMD where the machine has it.
#[derive(Debug, Clone)]
enum Engine {
    None,
    Packed(Arc<Searcher>),
    Plain(AhoCorasick),
}

/// The search for the letters of those patterns that are on.
#[derive(Debug, Clone)]
pub(super) struct Anchors {
    engine: Engine,
    signs: Vec<(usize, Sign)>,
}

impl Anchors {
    pub(super) fn of(actions: &[RedactAction; SecretPattern::ALL.len()]) -> Self {
        let on = |sign: Sign| actions[sign.pattern().place()] != RedactAction::Keep;
        let chosen: Vec<_> = ANCHORS.iter().filter(|(_, sign)| on(*sign)).collect();
        let words = || chosen.iter().map(|(word, _)| *word);
        let signs = chosen.iter().map(|(word, sign)| (word.len(), *sign)).collect();
        if chosen.is_empty() {
            return Self { engine: Engine::None, signs };
        }
        let packed = packed::Config::new()
            .match_kind(MatchKind::LeftmostFirst)
            .builder()
            .extend(words())
            .build();
        let engine = match packed {
            Some(searcher) => Engine::Packed(Arc::new(searcher)),
            None => AhoCorasickBuilder::new()
                .match_kind(aho_corasick::MatchKind::LeftmostFirst)
                .build(words())
                .map_or(Engine::None, Engine::Plain),
        };
        Self { engine, signs }
    }

    /// Adds all secrets but card numbers.
    pub(super) fn find(&self, text: &[u8], hits: &mut Hits) {
        let mut passed = 0;
        let mut look = |sign: usize, at: usize| {
            if at < passed {
                return;
            }
            let (length, sign) = self.signs[sign];
            if let Some((from, to)) = judge(sign, text, at, at + length)
                && from >= passed
                && from < to
            {
                hits.push(Hit { from, to, by: By::Pattern(sign.pattern()) });
                passed = to;
            }
        };
        match &self.engine {
            Engine::None => {}
            Engine::Packed(searcher) => {
                for found in searcher.find_iter(text) {
                    look(found.pattern().as_usize(), found.start());
                }
            }
            Engine::Plain(searcher) => {
                for found in searcher.find_iter(text) {
                    look(found.pattern().as_usize(), found.start());
                }
            }
        }
    }
}

/// Where the secret stands whose letters are `text[at..end]`, if there is one.
fn judge(sign: Sign, text: &[u8], at: usize, end: usize) -> Option<(usize, usize)> {
    match sign {
        Sign::Bearer => bearer(text, at, end),
        Sign::Authorization => authorization(text, end),
        Sign::Jwt => jwt(text, at),
        Sign::Pem => pem(text, at, end),
        Sign::Token(least) => token(text, at, end, least),
        Sign::Url => url(text, end),
        Sign::Name => named(text, at, end),
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn run(text: &[u8], from: usize, fits: impl Fn(u8) -> bool) -> usize {
    text[from..].iter().position(|byte| !fits(*byte)).map_or(text.len(), |length| from + length)
}

/// What tokens are written in (RFC 6750 §2.1).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

fn before(text: &[u8], at: usize) -> Option<u8> {
    at.checked_sub(1).and_then(|at| text.get(at)).copied()
}

fn bearer(text: &[u8], at: usize, end: usize) -> Option<(usize, usize)> {
    matches!(before(text, at)?, b'b' | b'B').then_some(())?;
    (!before(text, at - 1).is_some_and(is_word)).then_some(())?;
    let from = run(text, end, |byte| byte == b' ');
    let to = run(text, from, is_token);
    // A word of a sentence has none of these: `bearer authentication failed`.
    let is_sentence = text[from..to].iter().all(u8::is_ascii_lowercase);
    (to - from >= MIN_BEARER_BYTES && !is_sentence).then_some((from, to))
}

/// `Authorization: Basic dXNlcjpwYXNz`, `"authorization":"token abc"`.
fn authorization(text: &[u8], end: usize) -> Option<(usize, usize)> {
    let at = run(text, end, |byte| matches!(byte, b'"' | b'\'' | b'\\'));
    let at = run(text, at, |byte| byte == b' ');
    matches!(text.get(at), Some(b':' | b'=')).then_some(())?;
    let at = run(text, at + 1, |byte| matches!(byte, b' ' | b'"' | b'\'' | b'\\' | b'['));
    let scheme = run(text, at, |byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if text.get(scheme) == Some(&b' ') {
        let from = run(text, scheme, |byte| byte == b' ');
        let to = run(text, from, is_token);
        let known = ["basic", "bearer", "token", "apikey", "bot", "key", "negotiate", "ntlm"];
        let name = text[at..scheme].to_ascii_lowercase();
        let is_known = known.iter().any(|known| known.as_bytes() == name);
        return (is_known && to > from).then_some((from, to));
    }
    // The token itself, without a scheme.
    let to = run(text, at, is_token);
    (to - at >= 16).then_some((at, to))
}

fn jwt(text: &[u8], at: usize) -> Option<(usize, usize)> {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!before(text, at).is_some_and(part)).then_some(())?;
    let head = run(text, at, part);
    (head - at >= 10 && text[head..].starts_with(b".eyJ")).then_some(())?;
    let body = run(text, head + 1, part);
    (text.get(body) == Some(&b'.')).then_some(())?;
    Some((at, run(text, body + 1, part)))
}

/// All between the lines that begin and end a key; of a key that has no end, all that could be of
/// one; of an end without beginning, what could be of one before it.
fn pem(text: &[u8], at: usize, end: usize) -> Option<(usize, usize)> {
    let front = &text[at.saturating_sub(MAX_PEM_LABEL_BYTES)..at];
    let label = front.iter().rposition(|byte| *byte == b'-').map_or(front, |at| &front[at + 1..]);
    let label = label.trim_ascii();
    let after = run(text, end, |byte| matches!(byte, b' ' | b'B' | b'L' | b'O' | b'C' | b'K'));
    text.get(after..)?.starts_with(b"-----").then_some(())?;
    if label.starts_with(b"END") {
        return ending(text, at);
    }
    label.starts_with(b"BEGIN").then_some(())?;
    let from = after + 5;
    let length = memchr::memmem::find(&text[from..], b"-----END");
    let could_be = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=\\ \t\r\n:,.-".contains(&byte);
    let reach = run(text, from, could_be);
    let to = length.map(|length| from + length).filter(|to| *to <= reach).unwrap_or(reach);
    (!text[from..to].iter().all(|byte| b"\\nr \r\n".contains(byte))).then_some((from, to))
}

/// Does a key begin with the line in which these words stand at `at`?
pub(super) fn begins_key(text: &[u8], at: usize) -> bool {
    let front = &text[at.saturating_sub(MAX_PEM_LABEL_BYTES)..at];
    front.windows(11).any(|part| part == b"-----BEGIN ")
}

/// A line of a key's body (RFC 7468, RFC 1421), and no word.
pub(super) fn is_key_line(line: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    line.iter().all(plain) || line.starts_with(b"Proc-Type:") || line.starts_with(b"DEK-Info:")
}

/// The rest of a key whose beginning stood in a record before.
fn ending(text: &[u8], at: usize) -> Option<(usize, usize)> {
    let dashes = text[..at].windows(5).rposition(|five| five == b"-----")?;
    let could_be = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=\\\r\n".contains(&byte);
    let from = text[..dashes].iter().rposition(|byte| !could_be(*byte)).map_or(0, |at| at + 1);
    (dashes - from >= 8).then_some((from, dashes))
}

fn token(text: &[u8], at: usize, end: usize, least: usize) -> Option<(usize, usize)> {
    (!before(text, at).is_some_and(is_word)).then_some(())?;
    let to = run(text, end, |byte| is_word(byte) || matches!(byte, b'-' | b'.'));
    let to = text[..to].iter().rposition(|byte| *byte != b'.').map_or(to, |last| last + 1);
    // What it is may be seen.
    (to.checked_sub(end)? >= least).then_some((end, to))
}

fn url(text: &[u8], end: usize) -> Option<(usize, usize)> {
    before(text, end - 3).is_some_and(|byte| byte.is_ascii_alphanumeric()).then_some(())?;
    let window = &text[end..text.len().min(end + MAX_USERINFO_BYTES)];
    let stop = |byte: u8| byte <= b' ' || b"/?#\"'<>`\\".contains(&byte);
    let reach = window.iter().position(|byte| stop(*byte)).unwrap_or(window.len());
    let to = memchr::memrchr(b'@', &window[..reach])?;
    let colon = memchr::memchr(b':', &window[..to])?;
    Some((end + colon + 1, end + to))
}

/// The value of a name that ends as names of secrets do.
fn named(text: &[u8], at: usize, end: usize) -> Option<(usize, usize)> {
    let of_name = |byte: u8| is_word(byte) || matches!(byte, b'-' | b'.');
    let window = at.saturating_sub(MAX_NAME_BYTES);
    let from = text[window..at].iter().rposition(|byte| !of_name(*byte));
    let from = from.map_or(window, |place| window + place + 1);
    let to = run(&text[..text.len().min(end + MAX_NAME_BYTES)], end, of_name);
    let name = &text[from..to];
    let is_option = name.starts_with(b"--");
    // Most lines speak of a password and give none: what comes next tells it first.
    let next = text.get(run(text, to, |byte| byte == b' '))?;
    (is_option || matches!(next, b'=' | b':' | b'"' | b'\'' | b'\\')).then_some(())?;
    is_secret_name(name).then_some(())?;
    value(text, from, to, is_option)
}

/// Is this a name whose values are secrets? Of a dotted name the last part tells.
pub(super) fn is_secret_name(name: &[u8]) -> bool {
    let last = name.rsplit(|byte| *byte == b'.').next().unwrap_or(name);
    // A shell's working directories are no passwords.
    if last.eq_ignore_ascii_case(b"pwd") || last.eq_ignore_ascii_case(b"oldpwd") {
        return false;
    }
    let letters = || {
        let plain = last.iter().rev().filter(|byte| byte.is_ascii_alphanumeric());
        plain.map(u8::to_ascii_lowercase)
    };
    // Nearly every name ends otherwise.
    let mut ends = letters();
    let (Some(end), Some(before)) = (ends.next(), ends.next()) else { return false };
    if !ENDS.contains(&[before, end]) {
        return false;
    }
    let ends_as = |known: &str| {
        let mut letters = letters();
        known.bytes().rev().all(|byte| letters.next() == Some(byte))
    };
    NAMES.iter().any(|known| ends_as(known))
        || WHOLE_NAMES.iter().any(|known| letters().eq(known.bytes().rev()))
}

/// The value behind a name: `="…"`, `: "…"` of JSON, `=…`, `--password …`.
fn value(text: &[u8], from: usize, to: usize, is_option: bool) -> Option<(usize, usize)> {
    let quoted = matches!(before(text, from), Some(b'"' | b'\''));
    let at = run(text, to, |byte| byte == b'\\');
    let at = at + usize::from(quoted && matches!(text.get(at), Some(b'"' | b'\'')));
    let spaces = run(text, at, |byte| byte == b' ');
    let (mut at, plain) = match text.get(spaces)? {
        b'=' => (spaces + 1 + usize::from(text.get(spaces + 1) == Some(&b'>')), true),
        b':' if quoted => (spaces + 1, true),
        b':' if spaces == to => (spaces + 1, false),
        _ if is_option && spaces > at => (spaces, true),
        _ => return None,
    };
    at = run(text, at, |byte| byte == b' ');
    // What is in an object or a list has names of its own.
    (!(quoted && matches!(text.get(at), Some(b'{' | b'[')))).then_some(())?;
    let escapes = run(text, at, |byte| byte == b'\\') - at;
    let (begin, end) = match text.get(at + escapes) {
        Some(quote @ (b'"' | b'\'')) => inside(text, at + escapes + 1, *quote, escapes),
        _ => {
            let ends = |byte: u8| byte <= b' ' || b",;&)}]\"'<>\\".contains(&byte);
            (at, run(text, at, |byte| !ends(byte)))
        }
    };
    is_secret(&text[begin..end], plain || begin > at).then_some((begin, end))
}

/// To the quote that closes: the one with as many backslashes before it as the one that opened.
fn inside(text: &[u8], from: usize, quote: u8, escapes: usize) -> (usize, usize) {
    let mut at = from;
    let mut slashes = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => slashes += 1,
            byte if *byte == quote && slashes <= escapes => return (from, at - slashes),
            _ => slashes = 0,
        }
        at += 1;
    }
    (from, text.len())
}

/// Is this a value that somebody would want to hide? After a colon in prose (`password: changed`)
/// only what has letters and others.
pub(super) fn is_secret(value: &[u8], plain: bool) -> bool {
    let words: &[&[u8]] =
        &[b"true", b"false", b"null", b"none", b"nil", b"yes", b"no", b"undefined", b"-", b"?"];
    let is_word = words.iter().any(|word| value.eq_ignore_ascii_case(word));
    let is_masked = value.iter().all(|byte| matches!(byte, b'*' | b'x' | b'X' | b'.'));
    let is_redacted = value.starts_with(b"p_") && value.len() == 34;
    let is_hashed = value.starts_with(b"hmac-sha256:");
    let mixed = value.iter().any(u8::is_ascii_alphabetic)
        && value.iter().any(|byte| !byte.is_ascii_alphabetic() && !b".-_".contains(byte));
    // `[FILTERED]`, `<hidden>`, `$password`.
    let stands_for = matches!(value.first(), Some(b'[' | b'<' | b'$' | b'{' | b'('));
    let stands_for = stands_for
        && value.iter().filter(|byte| !byte.is_ascii_alphabetic()).count() <= 4
        && value.iter().any(|byte| byte.is_ascii_alphabetic());
    if value.is_empty() || is_word || is_masked || is_redacted || is_hashed {
        return false;
    }
    (plain || mixed) && (!stands_for || value.len() >= 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let anchors = Anchors::of(&[RedactAction::Mask; SecretPattern::ALL.len()]);
        let mut hits = Hits::new();
        anchors.find(text.as_bytes(), &mut hits);
        hits.iter().map(|hit| &text[hit.from..hit.to]).collect()
    }

    #[test]
    fn every_name_of_the_lists_is_a_secrets_name() {
        for name in NAMES.iter().filter(|name| **name != "pwd").chain(WHOLE_NAMES) {
            assert!(is_secret_name(name.as_bytes()), "{name}");
        }
        assert!(is_secret_name(b"db_pwd") && is_secret_name(b"Proxy-Pass_Word-"));
        assert!(!is_secret_name(b"") && !is_secret_name(b"d") && !is_secret_name(b"next_token"));
    }

    #[test]
    fn secrets_are_found_in_the_forms_in_which_programs_write_them() {
        let key = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC";
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP";
        for (text, secret) in [
            ("Authorization: Bearer abcDEF123456", "abcDEF123456"),
            (r#"{"authorization":"Basic ZXZhOnNlY3JldA=="}"#, "ZXZhOnNlY3JldA=="),
            (r#"{"headers":{"Authorization":["Bearer 0123456789ab"]}}"#, "0123456789ab"),
            ("authorization=token 0123456789ab", "0123456789ab"),
            ("with bearer a1b2c3d4e5", "a1b2c3d4e5"),
            ("postgres://eva:hunter2@db/x", "hunter2"),
            ("https://eva:p@ss:w0rd@host:80/a@b", "p@ss:w0rd"),
            ("GET /x?access_token=abc123&y=1", "abc123"),
            ("GET /x?token=abc123 HTTP/1.1", "abc123"),
            (r#"{"password":"hunter2"}"#, "hunter2"),
            (r#"{"password" : "hun\"ter2", "x":1}"#, r#"hun\"ter2"#),
            (r#"{"body":"{\"password\":\"hunter2\"}"}"#, "hunter2"),
            (r#"{"pin_password":1234}"#, "1234"),
            ("db_password=hunter2 user=eva", "hunter2"),
            ("PGPASSWORD=hunter2 psql", "hunter2"),
            ("mysql --password hunter2 -u eva", "hunter2"),
            ("mysql --password=hunter2", "hunter2"),
            ("login with password: hunter2", "hunter2"),
            ("client_secret='a b c'", "a b c"),
            ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI/K7MDENG"),
            ("'api_key' => 'abc'", "abc"),
            ("X-Api-Key: abc-123", "abc-123"),
            ("push with ghp_0123456789abcdefghijklmn.", "0123456789abcdefghijklmn"),
            ("xoxb-123456789012-abcdef", "123456789012-abcdef"),
        ] {
            assert_eq!(found(text), [secret], "{text}");
        }
        assert_eq!(found(&format!("got {jwt}, thanks")), [jwt]);
        for newline in ["\n", "\\n", "\r\n", "\\\\n"] {
            let body = format!("{newline}{key}{newline}{key}{newline}");
            let text =
                format!("x: -----BEGIN RSA PRIVATE KEY-----{body}-----END RSA PRIVATE KEY----- y");
            assert_eq!(found(&text), [body.as_str()], "{text}");
        }
        let cut = format!("{{\"key\":\"-----BEGIN PRIVATE KEY-----\\n{key}\"}}");
        assert_eq!(found(&cut), [format!("\\n{key}").as_str()]);
        assert_eq!(found(&format!("{key}\n-----END EC PRIVATE KEY-----")), [format!("{key}\n")]);
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "Failed password for invalid user eva from 192.0.2.1 port 22 ssh2",
            "Access denied for user 'eva'@'h' (using password: YES)",
            "pam_unix(passwd:chauthtok): password changed for eva",
            "PWD=/home/eva ; USER=root ; COMMAND=/usr/bin/id",
            "sudo: a password is required",
            "bearer authentication failed",
            r#"{"total_tokens":120,"next_token":"abc","password_changed":true,"password":null}"#,
            r#"{"password":"********","secret":"","token":"hmac-sha256:0af3"}"#,
            "https://example.org:8080/a@b http://example.org/?q=a@b ftp://eva@host/x",
            "-----BEGIN PUBLIC KEY-----\nMIIBIjAN\n-----END PUBLIC KEY-----",
            "-----BEGIN PRIVATE KEY-----",
            "tokenizer=fast broken=7 secretary=eva keyboard",
            "Authorization: failed for eva",
            r#"{"password":"[FILTERED]","pwd":"/home/eva","secret":"<hidden>"}"#,
            r#"{"change":{"password":{"user":{"name":"ana"}},"token":[1,2]}}"#,
            "reason.code: { NT_STATUS_WRONG_PASSWORD: invalid_credentials }",
            "the key eyJhbGci is short",
        ] {
            assert!(found(text).is_empty(), "{text}: {:?}", found(text));
        }
    }
}
