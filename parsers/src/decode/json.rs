//! JSON objects, tokenised into a reusable tape of offsets.
//!
//! RFC 8259, read strictly and totally: whatever is not one well-formed object is refused with a
//! reason, never a panic. Numbers keep their text. At most [`MAX_DEPTH`] objects and lists deep.
//! Of equal keys the last wins. A lone surrogate escape becomes U+FFFD.
//!
//! A pack's paths (`$json.user.name`) are found in one walk: all paths of all packs are one tree,
//! and each value that the tree names is noted in its slot. A key that holds dots
//! (`"user.name": …`) is taken for the path that it spells.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use custody_event::Detail;
use custody_event::json::find_special;

/// Objects and lists in one another, at most.
pub(crate) const MAX_DEPTH: usize = 64;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    True,
    False,
    Number,
    Text,
    List,
    Object,
}

/// A run of bytes of the message, or of the tape's own store where escapes had to be resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) stored: bool,
}

/// One value: its key (empty in lists), its text, and where the value after it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) key: Span,
    /// Of an object or list of JSON: all of it, with its braces.
    pub(super) text: Span,
    pub(super) next: u32,
}

/// A place on the tape.
pub(crate) type At = u32;
/// No value in this slot.
pub(crate) const NOWHERE: At = u32::MAX;

/// The values of one message in the order in which they stand; kept from record to record.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    pub(super) nodes: Vec<Node>,
    pub(super) store: String,
    /// Which values an event has taken up; the others go to its details.
    pub(super) used: Vec<Cell<bool>>,
    /// Where the value of each slot stands.
    pub(super) found: Vec<At>,
    /// The slots that have a value. All packs together have thousands and a record fills few: emptying
    /// these costs less than emptying all.
    pub(super) touched: Vec<u32>,
    /// Where the values of one element's slots stand, while it is laid over the rest.
    pub(super) spare: Vec<At>,
    /// The element of the list that is being fanned out.
    pub(super) element: Option<At>,
    /// What the tape holds: number of the record, place and length of the text, and how it went.
    read_from: Option<(u64, usize, usize, Result<(), &'static str>)>,
}

/// The paths that packs ask for, as one tree.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paths {
    pub(super) nodes: Vec<PathNode>,
    /// Keys are compared without case, `_`, `-` and spaces.
    folded: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct PathNode {
    children: HashMap<Box<[u8]>, u32, BuildHasherDefault<KeyHasher>>,
    slot: Option<u32>,
}

/// Eight bytes with one multiplication: short keys, a map that only packs fill, so nobody can choose keys that collide.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyHasher(u64);

impl KeyHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let word = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            self.add(word);
        }
    }

    fn write_usize(&mut self, number: usize) {
        self.add(u64::try_from(number).unwrap_or(u64::MAX));
    }
}

const FOLD_BYTES: usize = 64;

/// A key without case and joints; `None` if it is longer than any that packs name.
fn fold<'b>(key: &[u8], buffer: &'b mut [u8; FOLD_BYTES]) -> Option<&'b [u8]> {
    let mut length = 0;
    for byte in key {
        if matches!(byte, b'_' | b'-' | b' ') {
            continue;
        }
        *buffer.get_mut(length)? = byte.to_ascii_lowercase();
        length += 1;
    }
    Some(&buffer[..length])
}

impl Paths {
    /// An empty tree.
    pub(crate) fn new(folded: bool) -> Self {
        Self { nodes: vec![PathNode::default()], folded }
    }

    /// Adds a path; gives the slot that its value is noted in: `next`, unless it has one.
    pub(crate) fn add(&mut self, path: &[Box<str>], next: u32) -> u32 {
        let mut at = 0_usize;
        for part in path {
            let mut buffer = [0; FOLD_BYTES];
            let key: &[u8] = if self.folded {
                fold(part.as_bytes(), &mut buffer).unwrap_or(part.as_bytes())
            } else {
                part.as_bytes()
            };
            at = match self.nodes[at].children.get(key) {
                Some(child) => index(*child),
                None => {
                    let child = self.nodes.len();
                    self.nodes[at].children.insert(key.into(), short(child));
                    self.nodes.push(PathNode::default());
                    child
                }
            };
        }
        *self.nodes[at].slot.get_or_insert(next)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.len() < 2
    }

    fn child(&self, at: u32, key: &[u8]) -> Option<u32> {
        let node = &self.nodes[index(at)];
        if node.children.is_empty() {
            return None;
        }
        if !self.folded {
            return node.children.get(key).copied();
        }
        let mut buffer = [0; FOLD_BYTES];
        node.children.get(fold(key, &mut buffer)?).copied()
    }

    /// The node that a key leads to: as it is, or as the path that its dots spell.
    fn follow(&self, at: u32, key: &[u8]) -> Option<u32> {
        self.child(at, key).or_else(|| {
            memchr::memchr(b'.', key)?;
            key.split(|byte| *byte == b'.').try_fold(at, |at, part| self.child(at, part))
        })
    }
}

pub(crate) fn index(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

/// Records are at most a few MiB: places on the tape fit in 32 bits (see [`Tape::read`]).
pub(super) fn short(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

impl Tape {
    /// Tokenises a message; an error says why it is no JSON object.
    pub(crate) fn read(&mut self, text: &str) -> Result<(), &'static str> {
        self.clear();
        if text.len() >= usize::try_from(u32::MAX / 8).unwrap_or(usize::MAX) {
            return Err("JSON of more than half a GiB");
        }
        let mut reader = Reader { text, bytes: text.as_bytes(), at: 0, tape: self };
        reader.blank();
        if reader.peek() != Some(b'{') {
            return Err("not a JSON object");
        }
        reader.value(Span::default(), 0)?;
        reader.blank();
        if reader.at != text.len() {
            return Err("more text after the JSON object");
        }
        self.ready();
        Ok(())
    }

    /// Empties the tape.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.store.clear();
        self.forget();
        self.element = None;
    }

    /// All values stand on the tape, and none has been taken up.
    pub(super) fn ready(&mut self) {
        self.used.clear();
        self.used.resize(self.nodes.len(), Cell::new(false));
    }

    /// What came of reading this text of the record of this number, if that is what the tape holds.
    pub(crate) fn holds(&self, record: u64, text: &str) -> Option<Result<(), &'static str>> {
        self.read_from.and_then(|(of, at, length, done)| {
            let same = of == record && at == text.as_ptr().addr() && length == text.len();
            same.then_some(done)
        })
    }

    /// Notes what the tape holds.
    pub(crate) fn note(&mut self, record: u64, text: &str, done: Result<(), &'static str>) {
        self.read_from = Some((record, text.as_ptr().addr(), text.len(), done));
    }

    /// Does it hold the fields of something in the record of this number?
    pub(crate) fn is_of(&self, record: u64) -> bool {
        matches!(self.read_from, Some((of, _, _, Ok(()))) if of == record)
    }

    /// Notes where the values of these paths stand.
    pub(crate) fn locate(&mut self, trees: &[Paths], slots: usize) {
        self.forget();
        let mut found = std::mem::take(&mut self.found);
        let mut touched = std::mem::take(&mut self.touched);
        found.resize(slots, NOWHERE);
        for paths in trees.iter().filter(|paths| !paths.is_empty()) {
            self.walk(0, paths, 0, &mut found, &mut touched);
        }
        self.found = found;
        self.touched = touched;
    }

    /// Empties the slots.
    fn forget(&mut self) {
        for slot in self.touched.drain(..) {
            if let Some(place) = self.found.get_mut(index(slot)) {
                *place = NOWHERE;
            }
        }
    }

    pub(super) fn walk(
        &self,
        parent: At,
        paths: &Paths,
        node: u32,
        found: &mut [At],
        touched: &mut Vec<u32>,
    ) {
        let of_list = self.nodes[index(parent)].kind == Kind::List;
        let mut position = 0_usize;
        let mut at = parent + 1;
        while at < self.nodes[index(parent)].next {
            let child = if of_list {
                paths.follow(node, position.to_string().as_bytes())
            } else {
                paths.follow(node, self.key_bytes(at))
            };
            if let Some(child) = child {
                let node = &paths.nodes[index(child)];
                if let Some(slot) = node.slot
                    && let Some(place) = found.get_mut(index(slot))
                {
                    if *place != NOWHERE {
                        self.used[index(*place)].set(true);
                    }
                    *place = at;
                    touched.push(slot);
                }
                if !node.children.is_empty() {
                    self.walk(at, paths, child, found, touched);
                }
            }
            position += 1;
            at = self.nodes[index(at)].next;
        }
    }

    // The message is not at hand here, so keys are kept in the store: see `Reader::key`.
    fn key_bytes(&self, at: At) -> &[u8] {
        let key = self.nodes[index(at)].key;
        self.store.as_bytes().get(index(key.start)..index(key.end)).unwrap_or_default()
    }

    /// The value of a slot.
    pub(crate) fn slot(&self, slot: u32) -> Option<At> {
        self.found.get(index(slot)).copied().filter(|at| *at != NOWHERE)
    }

    /// Slots that have a value, and perhaps some that had one in another element.
    pub(crate) fn filled(&self) -> &[u32] {
        &self.touched
    }

    /// What a value is.
    pub(crate) fn kind(&self, at: At) -> Kind {
        self.nodes.get(index(at)).map_or(Kind::Null, |node| node.kind)
    }

    /// A scalar's text; `None` for null, lists and objects.
    pub(crate) fn scalar<'t>(&'t self, at: At, message: &'t str) -> Option<&'t str> {
        let node = self.nodes.get(index(at))?;
        match node.kind {
            Kind::Text | Kind::Number => Some(self.span(node.text, message)),
            Kind::True => Some("true"),
            Kind::False => Some("false"),
            Kind::Null | Kind::List | Kind::Object => None,
        }
    }

    /// The key that a value stands under.
    pub(crate) fn key(&self, at: At) -> &str {
        self.nodes.get(index(at)).map_or("", |node| {
            self.store.get(index(node.key.start)..index(node.key.end)).unwrap_or_default()
        })
    }

    pub(super) fn span<'t>(&'t self, span: Span, message: &'t str) -> &'t str {
        let from = if span.stored { self.store.as_str() } else { message };
        from.get(index(span.start)..index(span.end)).unwrap_or_default()
    }

    /// The children of a list or object.
    pub(crate) fn children(&self, at: At) -> Children<'_> {
        let end = self.nodes.get(index(at)).map_or(0, |node| match node.kind {
            Kind::List | Kind::Object => node.next,
            _ => 0,
        });
        Children { tape: self, at: at + 1, end }
    }

    /// Notes that an event has taken this value up, with all that is in it.
    pub(crate) fn take(&self, at: At) {
        if let Some(used) = self.used.get(index(at)) {
            used.set(true);
        }
    }

    fn is_used(&self, at: At) -> bool {
        self.used.get(index(at)).is_some_and(Cell::get)
    }

    /// A value as a detail, without what was taken up; `None` if nothing of it is left.
    pub(crate) fn rest<'t>(&'t self, at: At, message: &'t str) -> Option<Detail<'t>> {
        if self.is_used(at) {
            return None;
        }
        let detail = self.detail(at, message, true);
        let emptied = match &detail {
            Detail::Map(entries) => entries.is_empty(),
            Detail::List(items) => items.is_empty(),
            _ => false,
        };
        let was_empty = self.children(at).next().is_none();
        (!emptied || was_empty).then_some(detail)
    }

    /// A value as a detail, whole or without what was taken up.
    pub(crate) fn detail<'t>(&'t self, at: At, message: &'t str, only_rest: bool) -> Detail<'t> {
        let Some(node) = self.nodes.get(index(at)) else { return Detail::Null };
        match node.kind {
            Kind::Null => Detail::Null,
            Kind::True => Detail::Bool(true),
            Kind::False => Detail::Bool(false),
            Kind::Text => Detail::Text(Cow::Borrowed(self.span(node.text, message))),
            Kind::Number => number(self.span(node.text, message)),
            Kind::List => Detail::List(
                self.children(at)
                    .filter_map(|child| match only_rest {
                        true => self.rest(child, message),
                        false => Some(self.detail(child, message, false)),
                    })
                    .collect(),
            ),
            Kind::Object => Detail::Map(
                self.children(at)
                    .filter_map(|child| {
                        let value = match only_rest {
                            true => self.rest(child, message)?,
                            false => self.detail(child, message, false),
                        };
                        Some((Cow::Borrowed(self.key(child)), value))
                    })
                    .collect(),
            ),
        }
    }
}

/// An integer where it is one; every other number stays as it was written.
fn number(text: &str) -> Detail<'_> {
    match text.parse::<i64>() {
        Ok(value) if text != "-0" => Detail::Int(value),
        _ => Detail::Text(Cow::Borrowed(text)),
    }
}

/// See [`Tape::children`].
pub(crate) struct Children<'a> {
    tape: &'a Tape,
    at: At,
    end: At,
}

impl Iterator for Children<'_> {
    type Item = At;

    fn next(&mut self) -> Option<At> {
        if self.at >= self.end {
            return None;
        }
        let at = self.at;
        self.at = self.tape.nodes[index(at)].next;
        Some(at)
    }
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    tape: &'a mut Tape,
}

type Step<T> = Result<T, &'static str>;

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, key: Span, depth: usize) -> Step<()> {
        let start = self.at;
        let node = self.tape.nodes.len();
        let (kind, text) = match self.peek() {
            Some(b'"') => (Kind::Text, self.string()?),
            Some(b'{' | b'[') => return self.nested(key, depth),
            Some(b't') => (Kind::True, self.literal("true")?),
            Some(b'f') => (Kind::False, self.literal("false")?),
            Some(b'n') => (Kind::Null, self.literal("null")?),
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                (Kind::Number, Span { start: short(start), end: short(self.at), stored: false })
            }
            Some(_) => return Err("not JSON: no value where one is needed"),
            None => return Err("JSON that ends in the middle"),
        };
        self.tape.nodes.push(Node { kind, key, text, next: short(node + 1) });
        Ok(())
    }

    fn nested(&mut self, key: Span, depth: usize) -> Step<()> {
        if depth >= MAX_DEPTH {
            return Err("JSON nested too deeply");
        }
        let node = self.tape.nodes.len();
        let start = short(self.at);
        let object = self.peek() == Some(b'{');
        let (kind, close) = if object { (Kind::Object, b'}') } else { (Kind::List, b']') };
        self.tape.nodes.push(Node { kind, key, text: Span::default(), next: 0 });
        self.at += 1;
        self.blank();
        if self.peek() == Some(close) {
            self.at += 1;
        } else {
            self.members(object, close, depth)?;
        }
        self.tape.nodes[node].text = Span { start, end: short(self.at), stored: false };
        self.tape.nodes[node].next = short(self.tape.nodes.len());
        Ok(())
    }

    fn members(&mut self, object: bool, close: u8, depth: usize) -> Step<()> {
        loop {
            self.blank();
            let key = if object { self.key()? } else { Span::default() };
            self.value(key, depth + 1)?;
            self.blank();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => break,
                Some(_) => return Err("not JSON: no comma between values"),
                None => return Err("JSON that ends in the middle"),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// A key and its colon. Keys are short: a copy in the store lets the walk along the paths do
    /// without the message.
    fn key(&mut self) -> Step<Span> {
        if self.peek() != Some(b'"') {
            return Err("not JSON: no key where one is needed");
        }
        let span = self.string()?;
        self.blank();
        if self.peek() != Some(b':') {
            return Err("not JSON: no colon after a key");
        }
        self.at += 1;
        self.blank();
        if span.stored {
            return Ok(span);
        }
        let start = self.tape.store.len();
        self.tape.store.push_str(&self.text[index(span.start)..index(span.end)]);
        Ok(Span { start: short(start), end: short(self.tape.store.len()), stored: true })
    }

    fn literal(&mut self, word: &'static str) -> Step<Span> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err("not JSON: a word that is not true, false or null");
        }
        self.at += word.len();
        Ok(Span::default())
    }

    fn number(&mut self) -> Step<()> {
        let bad = "not JSON: a number that is not one";
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let zero = self.peek() == Some(b'0');
        let whole = self.digits();
        if whole == 0 || (zero && whole > 1) {
            return Err(bad);
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(bad);
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(bad);
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    /// A string after its opening quote; copied to the store only if it has escapes.
    fn string(&mut self) -> Step<Span> {
        self.at += 1;
        let start = self.at;
        match self.plain()? {
            b'"' => {
                self.at += 1;
                Ok(Span { start: short(start), end: short(self.at - 1), stored: false })
            }
            _ => self.escaped(start),
        }
    }

    /// Goes on to the next quote or backslash.
    fn plain(&mut self) -> Step<u8> {
        let run = find_special(&self.bytes[self.at..]).ok_or("JSON that ends in the middle")?;
        self.at += run;
        match self.bytes[self.at] {
            byte @ (b'"' | b'\\') => Ok(byte),
            _ => Err("not JSON: a control character in a string"),
        }
    }

    fn escaped(&mut self, start: usize) -> Step<Span> {
        let stored_at = self.tape.store.len();
        let mut from = start;
        loop {
            let stop = self.plain()?;
            self.tape.store.push_str(&self.text[from..self.at]);
            self.at += 1;
            if stop == b'"' {
                break;
            }
            let character = self.escape()?;
            self.tape.store.push(character);
            from = self.at;
        }
        Ok(Span { start: short(stored_at), end: short(self.tape.store.len()), stored: true })
    }

    fn escape(&mut self) -> Step<char> {
        let byte = self.peek().ok_or("JSON that ends in the middle")?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return Err("not JSON: an unknown escape"),
        })
    }

    fn unicode(&mut self) -> Step<char> {
        let first = self.hex4()?;
        if !(0xd800..0xdc00).contains(&first) {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if !self.bytes[self.at..].starts_with(b"\\u") {
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        let back = self.at;
        self.at += 2;
        let second = self.hex4()?;
        if (0xdc00..0xe000).contains(&second) {
            let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        self.at = back;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Step<u32> {
        let bad = "not JSON: an escape without four hex digits";
        let digits = self.bytes.get(self.at..self.at + 4).ok_or(bad)?;
        let mut value = 0;
        for digit in digits {
            value = value * 16 + char::from(*digit).to_digit(16).ok_or(bad)?;
        }
        self.at += 4;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::to_json;
    use proptest::prelude::*;

    /// Floats become their text, as the event keeps them.
    fn without_floats(value: serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::Number(number) if number.as_i64().is_none() => Value::from(number.to_string()),
            Value::Array(items) => items.into_iter().map(without_floats).collect(),
            Value::Object(map) => {
                map.into_iter().map(|(key, value)| (key, without_floats(value))).collect()
            }
            other => other,
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn reads_what_a_known_reader_reads(value in any_json(), pretty in any::<bool>()) {
            let object = serde_json::json!({ "v": value });
            let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) }.unwrap();
            let mut tape = Tape::default();
            tape.read(&text).unwrap();
            prop_assert_eq!(to_json(&tape.detail(0, &text, false)), without_floats(object));
        }

        #[test]
        fn accepts_no_more_and_no_less_than_a_known_reader(text in "\\{[\\[\\]{}\",:0-9eE.+tfnrua\\\\-]{0,24}\\}?") {
            let known = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
            let mut tape = Tape::default();
            let ours = tape.read(&text);
            // The known reader refuses numbers that overflow a float, and lone surrogates.
            let special = text.contains('e') || text.contains('E') || text.contains("\\u");
            prop_assert!(ours.is_ok() == known.is_ok() || special, "{ours:?} {known:?}");
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = Tape::default().read(&text);
        }
    }

    #[test]
    fn paths_find_nested_dotted_and_folded_keys_and_the_last_of_equal_ones() {
        let mut paths = Paths::new(true);
        paths.add(&["user".into(), "name".into()], 0);
        paths.add(&["userid".into()], 1);
        paths.add(&["list".into(), "1".into()], 2);
        let text = r#"{"User":{"NAME":"a"},"user_id":1,"userId":2,"list":[5,6],"x":{"y":1}}"#;
        let mut tape = Tape::default();
        tape.read(text).unwrap();
        tape.locate(&[paths.clone()], 3);
        let at = |slot| tape.slot(slot).and_then(|at| tape.scalar(at, text));
        assert_eq!((at(0), at(1), at(2)), (Some("a"), Some("2"), Some("6")));
        for slot in 0..3 {
            tape.take(tape.slot(slot).unwrap());
        }
        let rest = tape.rest(0, text).unwrap();
        assert_eq!(to_json(&rest), serde_json::json!({"list":[5],"x":{"y":1}}));
        let dotted = r#"{"user.name":"b"}"#;
        tape.read(dotted).unwrap();
        tape.locate(&[paths], 3);
        assert_eq!(tape.slot(0).and_then(|at| tape.scalar(at, dotted)), Some("b"));
    }

    #[test]
    fn what_is_deeper_than_the_limit_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Tape::default().read(&deep), Err("JSON nested too deeply"));
        let fine = format!("{{\"a\":{}{}}}", "[".repeat(60), "]".repeat(60));
        assert_eq!(Tape::default().read(&fine), Ok(()));
    }
}
