//! What the words of a cluster mean: which are values, of what kind, and what to call them.

use std::net::{IpAddr, SocketAddr};

use crate::normalise;

/// A word of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Always this.
    Same(String),
    /// A value, with what always stands around it.
    Value { before: String, after: String, kind: Kind, name: String },
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    /// An address, with or without a port: `source.ip` takes both apart.
    Ip,
    Quoted,
    Word,
}

impl Kind {
    pub(super) fn pattern(self) -> &'static str {
        match self {
            Self::Number => r"\d+",
            Self::Ip => "[0-9A-Fa-f.:]+",
            Self::Quoted => r#"[^"]*"#,
            Self::Word => r"\S+",
        }
    }

    fn of(values: &[&str]) -> Self {
        let all = |test: fn(&str) -> bool| values.iter().all(|value| test(value));
        if all(|value| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit())) {
            Self::Number
        } else if all(|value| {
            value.parse::<IpAddr>().is_ok() || value.parse::<SocketAddr>().is_ok()
        }) {
            Self::Ip
        } else {
            Self::Word
        }
    }
}

/// The words of some lines of one cluster, made out.
pub(super) fn parts(lines: &[Vec<&str>]) -> Option<Vec<Part>> {
    let first = lines.first()?;
    let mut parts: Vec<Part> = Vec::with_capacity(first.len());
    for at in 0..first.len() {
        let words: Vec<&str> = lines.iter().filter_map(|line| line.get(at).copied()).collect();
        let part = part(&words, parts.last());
        parts.push(part);
    }
    Some(unique(parts))
}

fn part(words: &[&str], before: Option<&Part>) -> Part {
    let first = words[0];
    let same = words.iter().all(|word| *word == first);
    // A number that never changes may well do so tomorrow, unless many lines say otherwise.
    let value = first.contains(['"', '=']) || first.bytes().any(|byte| byte.is_ascii_digit());
    if same && (!value || words.len() >= 8) {
        return Part::Same(first.to_owned());
    }
    let (before_len, after_len) = around(words);
    let cores: Vec<&str> =
        words.iter().map(|word| &word[before_len..word.len() - after_len]).collect();
    let (start, end) = (&first[..before_len], &first[first.len() - after_len..]);
    let quoted = start.ends_with('"') && end.starts_with('"');
    let kind = if quoted { Kind::Quoted } else { Kind::of(&cores) };
    let name = name(start, kind, &cores, before);
    Part::Value { before: start.to_owned(), after: end.to_owned(), kind, name }
}

/// How much of every word before and after its value is the same: a key with its `=`, brackets,
/// quotes and commas.
fn around(words: &[&str]) -> (usize, usize) {
    let first = words[0];
    let opening = |word: &str| {
        let plain = |sign: char| sign.is_ascii_alphanumeric() || "_-.([{<'".contains(sign);
        let key = word.find('=').filter(|at| word[..*at].chars().all(plain)).map_or(0, |at| at + 1);
        let rest = &word[key..];
        key + (rest.len() - rest.trim_start_matches(['"', '\'', '`', '(', '[', '<', '{']).len())
    };
    let before = opening(first);
    let before =
        if words.iter().all(|word| word.get(..before) == first.get(..before)) { before } else { 0 };
    // A quoted value ends at its quote, whatever sign it ends with.
    if first[..before].ends_with('"')
        && let Some(close) = first.rfind('"').filter(|close| *close >= before)
    {
        let tail = &first[close..];
        let ends = |word: &&str| word.len() >= before + tail.len() && word.ends_with(tail);
        if words.iter().all(ends) {
            return (before, tail.len());
        }
    }
    let closing = |word: &str| {
        let trimmed =
            word.trim_end_matches(['"', '\'', '`', ')', ']', '>', '}', ',', ';', ':', '.']);
        word.len() - trimmed.len()
    };
    let after = closing(first);
    let fits = |word: &&str| {
        let end = word.len().checked_sub(after).filter(|end| *end > before);
        end.is_some_and(|end| word.get(end..) == first.get(first.len() - after..))
    };
    (before, if words.iter().all(fits) { after } else { 0 })
}

/// Words before a value that say what it is.
const SAID_BEFORE: &[(&str, &str)] = &[
    ("user", "user"),
    ("username", "user"),
    ("account", "user"),
    ("login", "user"),
    ("by", "user"),
    ("for", "user"),
    ("uid", "uid"),
    ("from", "from"),
    ("host", "host"),
    ("client", "client"),
    ("port", "port"),
    ("pid", "pid"),
    ("session", "session"),
    ("file", "file"),
    ("path", "path"),
    ("id", "id"),
    ("code", "code"),
    ("status", "status"),
    ("to", "to"),
    ("on", "on"),
    ("in", "in"),
];

fn name(start: &str, kind: Kind, cores: &[&str], before: Option<&Part>) -> String {
    if let Some((key, _)) = start.split_once('=') {
        return word_name(key);
    }
    if kind == Kind::Ip {
        return "ip".to_owned();
    }
    if kind == Kind::Word && cores.iter().all(|core| core.starts_with('/')) {
        return "path".to_owned();
    }
    let said = match before {
        Some(Part::Same(word)) if !is_level(word) => word_name(word),
        _ => String::new(),
    };
    let known = SAID_BEFORE.iter().find(|(word, _)| *word == said).map(|(_, name)| *name);
    match known {
        Some(name) => name.to_owned(),
        None if kind == Kind::Word && cores.iter().all(|core| core.contains('@')) => {
            "user".to_owned()
        }
        None if !said.is_empty() => said,
        None => "value".to_owned(),
    }
}

/// A name for a group: letters, digits and `_`, beginning with a letter.
fn word_name(text: &str) -> String {
    let mut name: String = text
        .chars()
        .filter_map(|letter| match letter {
            'a'..='z' | '0'..='9' => Some(letter),
            'A'..='Z' => Some(letter.to_ascii_lowercase()),
            '_' | '-' | '.' => Some('_'),
            _ => None,
        })
        .take(30)
        .collect();
    if !name.starts_with(|letter: char| letter.is_ascii_lowercase()) {
        name = name.trim_start_matches(|letter: char| !letter.is_ascii_lowercase()).to_owned();
    }
    name.trim_end_matches('_').to_owned()
}

/// Gives a second value of one name a number.
fn unique(mut parts: Vec<Part>) -> Vec<Part> {
    let mut names: Vec<String> = Vec::new();
    for part in &mut parts {
        let Part::Value { name, .. } = part else { continue };
        if name.is_empty() {
            "value".clone_into(name);
        }
        let plain = name.clone();
        let mut number = 2;
        while names.contains(name) {
            *name = format!("{plain}{number}");
            number += 1;
        }
        names.push(name.clone());
    }
    parts
}

/// The field of the event that a value goes to.
pub(super) fn field(name: &str, kind: Kind) -> String {
    match name {
        "to" | "dst" | "dst_ip" | "dest" | "destination" | "server" | "upstream" | "on"
            if kind == Kind::Ip =>
        {
            format!("details.{name}")
        }
        // A second address of a line gives way to the first.
        _ if kind == Kind::Ip => "source.ip".to_owned(),
        "user" | "username" | "user_name" | "login" | "account" | "acct" | "email" | "mail"
        | "who" | "usr" | "actor" | "principal" | "login_name" | "user_email" => {
            "actor.name".to_owned()
        }
        "uid" | "user_id" | "actor_id" => "actor.id".to_owned(),
        "port" if kind == Kind::Number => "source.port".to_owned(),
        "session" | "session_id" | "sid" => "session.id".to_owned(),
        "file" | "path" | "url" => "targets.name".to_owned(),
        other => format!("details.{other}"),
    }
}

/// Words that say how it went.
const WENT: &[(&str, &str)] = &[
    ("denied", "denied"),
    ("forbidden", "denied"),
    ("unauthorized", "denied"),
    ("refused", "denied"),
    ("rejected", "denied"),
    ("fail", "failure"),
    ("failed", "failure"),
    ("failure", "failure"),
    ("invalid", "failure"),
    ("error", "failure"),
    ("wrong", "failure"),
    ("bad", "failure"),
    ("timeout", "failure"),
    ("success", "success"),
    ("succeeded", "success"),
    ("successful", "success"),
    ("successfully", "success"),
    ("accepted", "success"),
    ("granted", "success"),
    ("ok", "success"),
];

/// The words that are always there, in lower case, bare.
fn plain_words(parts: &[Part]) -> Vec<String> {
    let word = |part: &Part| match part {
        Part::Same(word) => Some(word.to_ascii_lowercase()),
        Part::Value { .. } => None,
    };
    let bare =
        |word: String| word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric()).to_owned();
    let words = parts.iter().filter_map(word).map(bare);
    words
        .filter(|word| word.bytes().all(|b| b.is_ascii_lowercase()) && !word.is_empty())
        .filter(|word| !is_level(word))
        .collect()
}

/// Says how loud the line is, not what it says.
fn is_level(word: &str) -> bool {
    let word = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
    ["trace", "debug", "info", "notice", "warn", "warning", "err", "error", "fatal", "critical"]
        .iter()
        .any(|level| word.eq_ignore_ascii_case(level))
}

/// How it went, where the words say so.
pub(super) fn outcome(parts: &[Part]) -> Option<&'static str> {
    let words = plain_words(parts);
    WENT.iter().find(|(word, _)| words.iter().any(|said| said == word)).map(|(_, went)| *went)
}

/// A name for the rule: its first words.
pub(super) fn slug(parts: &[Part]) -> String {
    let mut slug = plain_words(parts).into_iter().take(4).collect::<Vec<_>>().join("_");
    slug.truncate(40);
    if slug.is_empty() { "line".to_owned() } else { slug }
}

/// The action: object and verb where a word is a known verb, else the pack's name and the words.
pub(super) fn action(pack: &str, parts: &[Part]) -> String {
    let words = plain_words(parts);
    let verb_of = |text: &str| {
        let found = normalise::action(text, Some(pack)).name;
        let verb = found.rsplit_once('.')?.1.to_owned();
        Some((found, verb))
    };
    // `logged in` before `logged`.
    let pairs = words.windows(2).enumerate().map(|(at, pair)| (at, pair.concat()));
    let singles = words.iter().cloned().enumerate();
    let known = pairs.chain(singles).find_map(|(at, text)| {
        let (found, verb) = verb_of(&text)?;
        Some((at, found, verb))
    });
    let object = pack.replace('-', "_");
    match known {
        Some((_, found, _)) if found.starts_with("authentication.") => found,
        Some((at, _, verb)) => {
            let thing = words.get(at + 1).or_else(|| words.get(at.checked_sub(1)?));
            match thing.filter(|thing| thing.len() > 2) {
                Some(thing) => format!("{object}.{thing}.{verb}"),
                None => format!("{object}.{verb}"),
            }
        }
        None => format!("{object}.{}", slug(parts)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::mine::words;

    fn made_out(lines: &[&str]) -> Vec<Part> {
        parts(&lines.iter().map(|line| words(line)).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn values_are_told_from_words_and_named_by_what_stands_before_them() {
        let parts = made_out(&[
            "user eva, failed login from [203.0.113.7] port=22",
            "user bob, failed login from [2001:db8::1] port=4022",
        ]);
        let names: Vec<(&str, Kind)> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Value { name, kind, .. } => Some((name.as_str(), *kind)),
                Part::Same(_) => None,
            })
            .collect();
        assert_eq!(names, [("user", Kind::Word), ("ip", Kind::Ip), ("port", Kind::Number)]);
        assert_eq!(outcome(&parts), Some("failure"));
        assert_eq!(action("shop", &parts), "authentication.login");
        assert_eq!(slug(&parts), "user_failed_login_from");
        let parts = made_out(&[
            "WARN eva signed in at 203.0.113.7:22",
            "WARN bob signed in at 203.0.113.9:1",
        ]);
        assert_eq!(action("shop", &parts), "authentication.login");
        assert_eq!(slug(&parts), "signed_in_at");
        assert!(parts.iter().any(|part| matches!(part, Part::Value { kind: Kind::Ip, .. })));
    }
}
