//! What of an event can be found: exact values under keys, and words.
//!
//! This is the one place that says so. The index writes what [`extract`] gives; the matcher in
//! [`crate::query`] compares what it gives; so that a search and a live filter mean the same.
//!
//! A **value** is compared whole: lower case, control characters as spaces, and only its first
//! [`MAX_VALUE_BYTES`]. It is kept as one letter ([`Tag`]) and the value.
//!
//! **Words** are the runs of letters and digits of every text of the event, in lower case. A run
//! may be joined by `.`, `_`, `-` and `@`; then the parts are words and the whole is one as well
//! (`jane.doe@company.com` is found by `jane`, by `jane.doe`, by `company.com` and whole).
//! Addresses in IPv6 form are words in their canonical form. Scripts that are written without
//! spaces (Han, kana, Hangul) give one word a character; [`fold`] and a look at the text do the
//! rest. A word is cut to [`MAX_WORD_BYTES`].
//!
//! **Fields** are values at a dotted path that has no tag of its own: everything in `details`
//! (`details.provider`; the elements of a list stand at the list's path), `data.format`,
//! `source.device.os`. **Numbers** stand at a path too, and are compared as numbers.
//!
//! The id of a session or a request that is one run is found as a word under its tag
//! ([`is_lone_id`]): there are as many of them as events, and each would be in the index twice.
//!
//! Not words: ids, times, hashes and offsets of the envelope, which have fields of their own.

use std::net::{IpAddr, Ipv6Addr};

use custody_event::EventView;
use custody_event::view::{ActorView, OriginView, SourceView};

/// A value is compared by its first so many bytes: longer ones are texts, for words.
pub const MAX_VALUE_BYTES: usize = 250;
/// A word is cut to this length.
pub const MAX_WORD_BYTES: usize = 64;
/// A joined run is a word as a whole up to this length, or [`MAX_WORD_BYTES`] if it has a dot or
/// an at sign (host names, addresses, files); longer ones (UUIDs, tokens) are found by their parts.
const MAX_PLAIN_WHOLE_BYTES: usize = 32;

macro_rules! tags {
    ($($(#[$doc:meta])* $name:ident = $letter:literal;)*) => {
        /// Under what a value stands: one letter in front of it in the index.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Tag { $($(#[$doc])* $name,)* }

        impl Tag {
            /// All tags.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The letter. Changing one changes the index's format
            /// ([`super::schema::FORMAT`]).
            #[must_use]
            pub const fn letter(self) -> char {
                match self { $(Self::$name => $letter,)* }
            }
        }
    };
}

tags! {
    /// `actor.name`.
    ActorName = 'a';
    /// `actor.id`.
    ActorId = 'b';
    /// `actor.display`.
    ActorDisplay = 'c';
    /// Name, id or display of whom the actor acted for.
    BehalfOf = 'd';
    /// `actor.type`.
    ActorType = 'e';
    /// One of `actor.roles`.
    Role = 'f';
    /// One of `actor.teams`.
    Team = 'g';
    /// `host`.
    Host = 'h';
    /// An address of `source.ip`, as 32 hex digits (IPv4 mapped to IPv6).
    Ip = 'i';
    /// The address's network: see [`coarse`].
    IpCoarse = 'j';
    /// `action`.
    Action = 'k';
    /// `op`.
    Op = 'l';
    /// `category`.
    Category = 'm';
    /// `outcome`.
    Outcome = 'n';
    /// `severity`.
    Severity = 'o';
    /// `service`.
    Service = 'p';
    /// `targets[].type`.
    TargetType = 'q';
    /// `targets[].id`.
    TargetId = 'r';
    /// `targets[].name`.
    TargetName = 's';
    /// `targets[].parent`.
    TargetParent = 't';
    /// `session.id`.
    Session = 'u';
    /// One of `session.methods`.
    Method = 'v';
    /// A word.
    Word = 'w';
    /// `tenant`.
    Tenant = 'x';
    /// `origin.pack`.
    Pack = 'y';
    /// `origin.input`.
    Input = 'z';
    /// `origin.agent`.
    Agent = 'A';
    /// One of `tags`.
    Tags = 'B';
    /// `reason.code`.
    Reason = 'C';
    /// `origin.event_name`.
    EventName = 'D';
    /// `origin.path`, `origin.unit` or `origin.endpoint`.
    Path = 'E';
    /// `changes[].field`.
    ChangedField = 'F';
    /// `source.location.country`.
    Country = 'G';
    /// `trace.trace_id`, `trace.span_id` or `trace.request_id`.
    Trace = 'H';
    /// `origin.rule`.
    Rule = 'I';
    /// `source.host`.
    SourceHost = 'J';
    /// A value at a path: see [`Sink::field`].
    Field = 'K';
    /// A number at a path: see [`Sink::number`].
    Number = 'L';
}

/// Under these stand ids of which there may be one for each event.
pub const ID_TAGS: [Tag; 2] = [Tag::Session, Tag::Trace];
/// Shorter ones are mostly counted up, and few.
const MIN_LONE_ID_BYTES: usize = 12;

/// Is it one word, whole, and long? The word and the value under one of [`ID_TAGS`] are then the same.
#[must_use]
pub fn is_lone_id(text: &str) -> bool {
    (MIN_LONE_ID_BYTES..=MAX_WORD_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Between a path and what stands there. No value and no path has this character: control
/// characters are folded to spaces.
pub const AT: char = '\t';
/// Values of `details` of one event that can be found by their path, at most.
const MAX_DETAILS: usize = 200;
/// A path is compared by its first so many bytes.
const MAX_PATH_BYTES: usize = 120;

/// A path as it is compared.
#[must_use]
pub fn folded_path(path: &str) -> String {
    folded_value(&path[..path.floor_char_boundary(MAX_PATH_BYTES)])
}

/// 16 hex digits that sort as numbers do.
#[must_use]
pub fn number_digits(number: i64) -> String {
    format!("{:016x}", u64::from_ne_bytes(number.to_ne_bytes()) ^ (1 << 63))
}

/// Takes what an event can be found by.
pub trait Sink {
    /// A value, as the event has it.
    fn value(&mut self, tag: Tag, value: &str);
    /// A text whose words count.
    fn text(&mut self, text: &str);
    /// A value at a path that has no tag.
    fn field(&mut self, path: &str, value: &str);
    /// A number at a path.
    fn number(&mut self, path: &'static str, value: i64);
}

/// Gives everything that `event` can be found by to `sink`.
pub fn extract(event: &EventView<'_>, sink: &mut impl Sink) {
    actor(&event.actor, sink);
    both(sink, Tag::Action, &event.action);
    exact(sink, Tag::Op, &event.op);
    exact(sink, Tag::Category, &event.category);
    exact(sink, Tag::Outcome, &event.outcome);
    exact(sink, Tag::Severity, &event.severity);
    both(sink, Tag::Host, &event.host);
    both(sink, Tag::Service, &event.service);
    exact(sink, Tag::Tenant, &event.tenant);
    for target in &event.targets {
        both(sink, Tag::TargetType, &target.kind);
        both(sink, Tag::TargetId, &target.id);
        both(sink, Tag::TargetName, &target.name);
        both(sink, Tag::TargetParent, &target.parent);
    }
    source(&event.source, sink);
    both(sink, Tag::Session, &event.session.id);
    session(event, sink);
    both(sink, Tag::Reason, &event.reason.code);
    both(sink, Tag::Reason, &event.reason.text);
    listed(sink, Tag::Tags, &event.tags);
    for change in &event.changes {
        sink.value(Tag::ChangedField, &change.field);
        sink.text(&change.field);
        for (path, raw) in [("changes.before", change.before), ("changes.after", change.after)] {
            if let Some(raw) = raw {
                json_texts(path, raw.get(), sink);
            }
        }
    }
    data(event, sink);
    text(sink, &event.message);
    at_path(sink, "justification", &event.justification);
    at_path(sink, "time_basis", &event.time_basis);
    if event.irreversible {
        sink.field("irreversible", "true");
    }
    if let Some(details) = event.details {
        json_texts("details", details.get(), sink);
    }
    for id in [&event.trace.trace_id, &event.trace.span_id, &event.trace.request_id] {
        both(sink, Tag::Trace, id);
    }
    origin(&event.origin, sink);
}

type Text<'a> = Option<std::borrow::Cow<'a, str>>;

fn exact(sink: &mut impl Sink, tag: Tag, value: &Text<'_>) {
    if let Some(value) = value {
        sink.value(tag, value);
    }
}

fn text(sink: &mut impl Sink, value: &Text<'_>) {
    if let Some(value) = value {
        sink.text(value);
    }
}

/// A value at a path, and its words.
fn at_path(sink: &mut impl Sink, path: &'static str, value: &Text<'_>) {
    if let Some(value) = value {
        sink.field(path, value);
        sink.text(value);
    }
}

fn both(sink: &mut impl Sink, tag: Tag, value: &Text<'_>) {
    exact(sink, tag, value);
    text(sink, value);
}

fn listed(sink: &mut impl Sink, tag: Tag, values: &[std::borrow::Cow<'_, str>]) {
    for value in values {
        sink.value(tag, value);
        sink.text(value);
    }
}

fn actor(actor: &ActorView<'_>, sink: &mut impl Sink) {
    both(sink, Tag::ActorName, &actor.name);
    both(sink, Tag::ActorId, &actor.id);
    both(sink, Tag::ActorDisplay, &actor.display);
    exact(sink, Tag::ActorType, &actor.kind);
    listed(sink, Tag::Role, &actor.roles);
    listed(sink, Tag::Team, &actor.teams);
    let mut behalf = actor.behalf_of.as_deref();
    while let Some(other) = behalf {
        for name in [&other.name, &other.id, &other.display] {
            both(sink, Tag::BehalfOf, name);
        }
        behalf = other.behalf_of.as_deref();
    }
}

fn source(source: &SourceView<'_>, sink: &mut impl Sink) {
    if let Some(ip) = source.ip.as_deref() {
        sink.text(ip);
        for address in addresses(ip) {
            let digits = ip_digits(address);
            sink.value(Tag::Ip, &digits);
            sink.value(Tag::IpCoarse, coarse(&digits));
        }
    }
    both(sink, Tag::SourceHost, &source.host);
    text(sink, &source.user_agent);
    at_path(sink, "source.device.name", &source.device.name);
    at_path(sink, "source.device.os", &source.device.os);
    at_path(sink, "source.device.browser", &source.device.browser);
    at_path(sink, "source.device.id", &source.device.id);
    both(sink, Tag::Country, &source.location.country);
    at_path(sink, "source.location.region", &source.location.region);
    at_path(sink, "source.location.city", &source.location.city);
    if let Some(port) = source.port {
        sink.number("source.port", port);
    }
}

fn session(event: &EventView<'_>, sink: &mut impl Sink) {
    let session = &event.session;
    listed(sink, Tag::Method, &session.methods);
    at_path(sink, "session.provider", &session.provider);
    if let Some(mfa) = session.mfa {
        sink.field("session.mfa", if mfa { "true" } else { "false" });
    }
    if let Some(duration) = session.duration_ms {
        sink.number("session.duration_ms", duration);
    }
}

fn data(event: &EventView<'_>, sink: &mut impl Sink) {
    let data = &event.data;
    at_path(sink, "data.format", &data.format);
    at_path(sink, "data.from", &data.from);
    at_path(sink, "data.to", &data.to);
    at_path(sink, "data.name", &data.name);
    at_path(sink, "data.via", &data.via);
    for field in &data.fields {
        sink.field("data.fields", field);
        sink.text(field);
    }
    let numbers =
        [("data.records", data.records), ("data.bytes", data.bytes), ("attempts", event.attempts)];
    for (path, number) in numbers {
        if let Some(number) = number {
            sink.number(path, number);
            sink.text(&number.to_string());
        }
    }
}

fn origin(origin: &OriginView<'_>, sink: &mut impl Sink) {
    exact(sink, Tag::Agent, &origin.agent);
    exact(sink, Tag::Input, &origin.input);
    exact(sink, Tag::Pack, &origin.pack);
    exact(sink, Tag::Rule, &origin.rule);
    both(sink, Tag::EventName, &origin.event_name);
    for place in [&origin.path, &origin.unit, &origin.endpoint] {
        both(sink, Tag::Path, place);
    }
    text(sink, &origin.reason);
    at_path(sink, "origin.verdict", &origin.verdict);
    text(sink, &origin.raw);
    if let Some(bytes) = origin.raw_base64.as_deref().and_then(from_base64) {
        for chunk in bytes.utf8_chunks() {
            sink.text(chunk.valid());
        }
    }
}

/// The texts and integers in a JSON value, with their paths; keys are not texts.
fn json_texts(path: &str, json: &str, sink: &mut impl Sink) {
    match serde_json::from_str(json) {
        Ok(value) => value_texts(&mut path.to_owned(), &value, &mut { MAX_DETAILS }, sink),
        // The event was read, so this cannot be; its raw form can still be found.
        Err(_) => sink.text(json),
    }
}

fn value_texts(
    path: &mut String,
    value: &serde_json::Value,
    left: &mut usize,
    sink: &mut impl Sink,
) {
    let mut leaf = |text: &str, is_text: bool| {
        if is_text {
            sink.text(text);
        }
        if *left > 0 {
            *left -= 1;
            sink.field(path, text);
        }
    };
    match value {
        serde_json::Value::String(text) => leaf(text, true),
        serde_json::Value::Number(number) => leaf(&number.to_string(), true),
        serde_json::Value::Bool(truth) => leaf(if *truth { "true" } else { "false" }, false),
        serde_json::Value::Array(items) => {
            for item in items {
                value_texts(path, item, left, sink);
            }
        }
        serde_json::Value::Object(map) => {
            let len = path.len();
            for (key, item) in map {
                path.push('.');
                path.push_str(key);
                value_texts(path, item, left, sink);
                path.truncate(len);
            }
        }
        serde_json::Value::Null => {}
    }
}

/// How addresses mapped from IPv4 begin.
const MAPPED: &str = "00000000000000000000ffff";

/// The part of an address's digits that [`Tag::IpCoarse`] keeps: of IPv4 the first 16 bits, of
/// IPv6 the first 48. Wide ranges are looked up here: there are few of these, and many addresses.
#[must_use]
pub fn coarse(digits: &str) -> &str {
    if digits.starts_with(MAPPED) { &digits[..28] } else { &digits[..12] }
}

/// An address as IPv6, IPv4 mapped.
#[must_use]
pub fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// 32 hex digits that sort as addresses do.
#[must_use]
pub fn ip_digits(address: IpAddr) -> String {
    format!("{:032x}", u128::from(to_v6(address)))
}

/// The addresses of a `source.ip`: one, or several as proxies list them; ports and brackets off.
pub fn addresses(text: &str) -> impl Iterator<Item = IpAddr> + '_ {
    text.split([',', ' ', ';']).filter(|part| !part.is_empty()).filter_map(address)
}

fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_matches(['"', '[', ']']);
    let bare = bare.split('%').next().unwrap_or(bare);
    bare.parse().ok().or_else(|| {
        text.trim_matches('"').parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip())
    })
}

/// Appends `value` as it is compared: lower case, control characters as spaces, cut.
pub fn push_value(value: &str, out: &mut String) {
    let value = &value[..value.floor_char_boundary(MAX_VALUE_BYTES)];
    for character in value.chars() {
        push_lower(if character.is_control() { ' ' } else { character }, out);
    }
}

/// A value as it is compared.
#[must_use]
pub fn folded_value(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    push_value(value, &mut out);
    out
}

/// A text as phrases are compared: lower case, runs of white space as one space.
#[must_use]
pub fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_whitespace() || character.is_control() {
            if !out.ends_with(' ') {
                out.push(' ');
            }
        } else {
            push_lower(character, &mut out);
        }
    }
    out
}

fn push_lower(character: char, out: &mut String) {
    if character.is_ascii() {
        out.push(character.to_ascii_lowercase());
    } else {
        out.extend(character.to_lowercase());
    }
}

/// Is the character part of a word?
#[must_use]
pub fn is_word_char(character: char) -> bool {
    if character.is_ascii() {
        character.is_ascii_alphanumeric()
    } else {
        character.is_alphanumeric()
    }
}

/// Han, kana, Hangul: written without spaces between words.
#[must_use]
pub fn stands_alone(character: char) -> bool {
    matches!(u32::from(character),
        0x2e80..=0x9fff | 0xac00..=0xd7af | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff)
}

fn is_joiner(byte: u8) -> bool {
    matches!(byte, b'.' | b'_' | b'-' | b'@')
}

/// Gives the words of `text` to `emit`, repeated ones repeatedly. `run` is working space.
pub fn words(text: &str, run: &mut String, emit: &mut impl FnMut(&str)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    run.clear();
    while at < bytes.len() {
        let byte = bytes[at];
        if byte.is_ascii_alphanumeric() {
            if run.is_empty() {
                ipv6_word(text, at, emit);
            }
            run.push(char::from(byte.to_ascii_lowercase()));
            at += 1;
        } else if byte.is_ascii() {
            if byte == b':' && run.is_empty() && bytes.get(at + 1) == Some(&b':') {
                ipv6_word(text, at, emit);
            }
            if is_joiner(byte) && !run.is_empty() {
                run.push(char::from(byte));
            } else if !run.is_empty() {
                end_run(run, emit);
            }
            at += 1;
        } else {
            at += wide(&text[at..], run, emit);
        }
    }
    end_run(run, emit);
}

/// One character beyond ASCII; says how many bytes it has.
fn wide(rest: &str, run: &mut String, emit: &mut impl FnMut(&str)) -> usize {
    let Some(character) = rest.chars().next() else { return rest.len().max(1) };
    let len = character.len_utf8();
    if stands_alone(character) {
        end_run(run, emit);
        emit(&rest[..len]);
    } else if is_word_char(character) {
        push_lower(character, run);
    } else {
        end_run(run, emit);
    }
    len
}

/// Gives the parts of a run, and the wholes that count as words.
fn end_run(run: &mut String, emit: &mut impl FnMut(&str)) {
    run.truncate(run.trim_end_matches(['.', '_', '-', '@']).len());
    if run.is_empty() {
        return;
    }
    let mut parts = 0;
    for part in run.split(['.', '_', '-', '@']).filter(|part| !part.is_empty()) {
        parts += 1;
        emit(&part[..part.floor_char_boundary(MAX_WORD_BYTES)]);
    }
    if parts > 1 {
        wholes(run, emit);
    }
    run.clear();
}

fn wholes(run: &str, emit: &mut impl FnMut(&str)) {
    if is_whole(run) {
        emit(run);
    }
    if let Some((user, domain)) = run.split_once('@') {
        for side in [user, domain] {
            if side.bytes().any(is_joiner) && is_whole(side) {
                emit(side);
            }
        }
    }
}

fn is_whole(run: &str) -> bool {
    run.len() <= MAX_PLAIN_WHOLE_BYTES
        || (run.len() <= MAX_WORD_BYTES && run.bytes().any(|byte| matches!(byte, b'.' | b'@')))
}

/// Gives the IPv6 address that begins at `at`, if one does, in its canonical form.
fn ipv6_word(text: &str, at: usize, emit: &mut impl FnMut(&str)) {
    let bytes = &text.as_bytes()[at..];
    let hex = bytes.iter().take(5).take_while(|byte| byte.is_ascii_hexdigit()).count();
    if bytes.get(hex) != Some(&b':') {
        return;
    }
    // The longest text of an address has 45 bytes.
    let run =
        bytes.iter().take(46).take_while(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
    let candidate = text[at..at + run.count()].trim_end_matches('.');
    if let Ok(address) = candidate.parse::<Ipv6Addr>() {
        emit(&address.to_string());
    }
}

/// The words of a text, each once, in the order in which they came.
#[must_use]
pub fn words_of(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    words(text, &mut String::new(), &mut |word| {
        if !out.iter().any(|have| have == word) {
            out.push(word.to_owned());
        }
    });
    out
}

/// Plain base64 with padding, as the event has it.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        let mut digits = 0;
        for byte in four {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => break,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
            digits += 1;
        }
        let bytes = (bits << (6 * (4 - digits))).to_be_bytes();
        out.extend_from_slice(&bytes[1..1 + (digits * 6 / 8)]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_in(text: &str) -> Vec<String> {
        words_of(text)
    }

    #[test]
    fn words_are_found_whole_and_by_parts() {
        assert_eq!(
            words_in("User Jane.Doe@Company.com, from 203.0.113.42:22."),
            [
                "user",
                "jane",
                "doe",
                "company",
                "com",
                "jane.doe@company.com",
                "jane.doe",
                "company.com",
                "from",
                "203",
                "0",
                "113",
                "42",
                "203.0.113.42",
                "22"
            ]
        );
        assert_eq!(words_in("-host:sess_abc123--"), ["host", "sess", "abc123", "sess_abc123"]);
        assert_eq!(words_in("..."), Vec::<String>::new());
    }

    #[test]
    fn ipv6_addresses_are_words_in_canonical_form() {
        assert!(words_in("from 2001:DB8:0:0::1 port 22").contains(&"2001:db8::1".to_owned()));
        assert!(words_in("x ::1 y").contains(&"::1".to_owned()));
        assert!(words_in("::ffff:1.2.3.4.").contains(&"::ffff:1.2.3.4".to_owned()));
        assert!(!words_in("06:55:48").iter().any(|word| word.contains(':')));
    }

    #[test]
    fn long_runs_are_found_by_their_parts() {
        let words = words_in("550e8400-e29b-41d4-a716-446655440000");
        assert_eq!(words, ["550e8400", "e29b", "41d4", "a716", "446655440000"]);
        assert_eq!(words_in(&"x".repeat(100)), ["x".repeat(64)]);
    }

    #[test]
    fn scripts_without_spaces_give_a_word_a_character() {
        assert_eq!(words_in("管理者login Ärger"), ["管", "理", "者", "login", "ärger"]);
    }

    #[test]
    fn base64_reads_back() {
        assert_eq!(from_base64("aGVsbG8="), Some(b"hello".to_vec()));
        assert_eq!(from_base64("aGVsbA=="), Some(b"hell".to_vec()));
        assert_eq!(from_base64("aGVs"), Some(b"hel".to_vec()));
        assert_eq!(from_base64("a?Vs"), None);
    }

    #[test]
    fn a_list_of_addresses_gives_each() {
        let all: Vec<String> = addresses("203.0.113.1, [2001:db8::1]:443 \"10.0.0.1:80\" x")
            .map(|address| address.to_string())
            .collect();
        assert_eq!(all, ["203.0.113.1", "2001:db8::1", "10.0.0.1"]);
    }

    #[test]
    fn every_tag_has_a_letter_of_its_own() {
        let mut letters: Vec<char> = Tag::ALL.iter().map(|tag| tag.letter()).collect();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), Tag::ALL.len());
        assert!(letters.iter().all(char::is_ascii_alphabetic));
    }
}
