//! A builder for one event: fields in any order in, canonical JSON out.
//!
//! A draft borrows what it can from the record and owns nothing that it need not; the usual event
//! (a line from a log) is written without an allocation beyond the output buffer. [`Draft::finish`]
//! writes the fields in the order of [`crate::field`]'s table.
//!
//! **Limits.** No event is longer than [`crate::MAX_EVENT_BYTES`]. A text other than the raw
//! record is cut to [`MAX_TEXT_BYTES`]; if the event is still too long, `details`, `changes`,
//! `message` and then everything but the envelope goes, and the tag `cut` says so. The raw record
//! always stays, so nothing is lost.

mod base;
mod edit;
mod layout;

use std::borrow::Cow;

pub use base::Base;
use layout::Next;
use smallvec::SmallVec;

use crate::field::{Field, Kind};
use crate::ids::EventId;
use crate::json::{MAX_SAFE_INT, push_base64, push_escaped, push_int, push_string};
use crate::time::Timestamp;
use crate::{MAX_EVENT_BYTES, MAX_RAW_BYTES};

/// A single text field other than the raw record is cut to this length.
pub const MAX_TEXT_BYTES: usize = 4 * 1024;
/// `details` and before/after values are at most this deep.
pub const MAX_DEPTH: usize = 16;
/// Marks an event from which something was left out for its length; the raw record is whole.
pub const CUT_TAG: &str = "cut";

/// A value of `details`, or a before/after value.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail<'a> {
    /// A real empty value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer; beyond ±(2^53 − 1) it is written as a text.
    Int(i64),
    /// A text (fractions and big numbers too, as the record wrote them).
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Detail<'a>>),
    /// A map; of equal keys the last wins, as in most JSON readers.
    Map(Vec<(Cow<'a, str>, Detail<'a>)>),
}

/// One thing that was acted on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target<'a> {
    /// `file`, `user`, `contact` …
    pub kind: Option<Cow<'a, str>>,
    /// The source's own identifier.
    pub id: Option<Cow<'a, str>>,
    /// What people call it.
    pub name: Option<Cow<'a, str>>,
    /// What it belongs to.
    pub parent: Option<Cow<'a, str>>,
}

/// One field's before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<'a> {
    /// The field's name.
    pub field: Cow<'a, str>,
    /// The old value, if the record says it.
    pub before: Option<Detail<'a>>,
    /// The new value, if the record says it.
    pub after: Option<Detail<'a>>,
    /// The values are masked.
    pub masked: bool,
}

/// Room for most events; longer ones make the buffer grow while they are written.
const USUAL_EVENT_BYTES: usize = 2048;

#[derive(Debug, Clone)]
enum Value<'a> {
    Text(Cow<'a, str>),
    Int(i64),
    Bool(bool),
    Time(Timestamp),
    Id(EventId),
    Hex(&'a [u8]),
    Base64(&'a [u8]),
}

/// What [`Draft::finish`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Length of the event in bytes.
    pub len: usize,
    /// Something had to be left out (never the raw record).
    pub cut: bool,
}

/// One event being put together.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    base: Option<&'a Base>,
    /// Fields of the draft's own, beside the base's.
    present: u128,
    slot_of: [u8; Field::ALL.len()],
    values: SmallVec<[Value<'a>; 24]>,
    texts: SmallVec<[(Field, Cow<'a, str>); 4]>,
    targets: SmallVec<[Target<'a>; 1]>,
    changes: Vec<Change<'a>>,
    details: SmallVec<[(Cow<'a, str>, Detail<'a>); 4]>,
    /// Where the message stands in what is being written, where it is whole.
    written_message: Option<(usize, usize)>,
}

impl Default for Draft<'_> {
    fn default() -> Self {
        Self::new()
    }
}

const fn bit(field: Field) -> u128 {
    1 << field.index()
}

/// The fields of one value.
const SINGLES: u128 = {
    let mut singles = 0;
    let mut index = 0;
    while index < Field::ALL.len() {
        if matches!(Field::ALL[index].kind(), Kind::Text | Kind::Int | Kind::Bool) {
            singles |= 1 << index;
        }
        index += 1;
    }
    singles
};

/// The first and the last field of a set.
fn ends(set: u128) -> Option<(Field, Field)> {
    let first = usize::try_from(set.trailing_zeros()).ok()?;
    let last = usize::try_from(u128::BITS.checked_sub(1 + set.leading_zeros())?).ok()?;
    Some((*Field::ALL.get(first)?, *Field::ALL.get(last)?))
}

impl<'a> Draft<'a> {
    /// An empty event of version 1.
    #[must_use]
    pub fn new() -> Self {
        let mut draft = Self::empty(None);
        draft.put(Field::Version, Value::Int(1));
        draft
    }

    /// An event with the fields of `base`.
    #[must_use]
    pub fn on(base: &'a Base) -> Self {
        Self::empty(Some(base))
    }

    fn empty(base: Option<&'a Base>) -> Self {
        Self {
            base,
            present: 0,
            slot_of: [0; Field::ALL.len()],
            values: SmallVec::new(),
            texts: SmallVec::new(),
            targets: SmallVec::new(),
            changes: Vec::new(),
            details: SmallVec::new(),
            written_message: None,
        }
    }

    fn put(&mut self, field: Field, value: Value<'a>) {
        if self.present & bit(field) == 0 {
            self.present |= bit(field);
            // At most one value a field, and there are fewer than 256 fields.
            self.slot_of[field.index()] = u8::try_from(self.values.len()).unwrap_or(u8::MAX);
            self.values.push(value);
        } else if let Some(slot) = self.values.get_mut(usize::from(self.slot_of[field.index()])) {
            *slot = value;
        }
    }

    /// A field's single value; lists are kept elsewhere.
    fn value(&self, field: Field) -> Option<&Value<'a>> {
        if bit(field) & SINGLES == 0 {
            return None;
        }
        if self.present & bit(field) == 0 {
            return self.base.and_then(|base| base.fields.value(field));
        }
        self.values.get(usize::from(self.slot_of[field.index()]))
    }

    /// Is the field set?
    #[must_use]
    pub fn has(&self, field: Field) -> bool {
        (self.present | self.base_present()) & bit(field) != 0
    }

    fn base_present(&self) -> u128 {
        self.base.map_or(0, Base::present)
    }

    /// Takes over what the base says, so that it can be changed.
    fn leave_base(&mut self) {
        let Some(base) = self.base.take() else { return };
        let own = std::mem::replace(self, base.draft());
        for field in Field::ALL.iter().filter(|field| own.has(**field)) {
            if let Some(value) = own.value(*field) {
                self.put(*field, value.clone());
            }
        }
        let lists = own.texts.iter().map(|(field, _)| bit(*field)).fold(0, |all, one| all | one);
        self.texts.retain(|(field, _)| lists & bit(*field) == 0);
        self.texts.extend(own.texts);
        self.targets = own.targets;
        self.changes = own.changes;
        self.details = own.details;
        self.present |= own.present;
    }

    /// The field's text, where it is a text.
    #[must_use]
    pub fn text_of(&self, field: Field) -> Option<&str> {
        match self.value(field) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Sets a text field. An empty text is an absent field. A text given to a list is one more of
    /// the list; one given to a number or a truth value is read as such, and becomes a detail of
    /// the field's name where it cannot be.
    pub fn text(&mut self, field: Field, text: impl Into<Cow<'a, str>>) {
        let text = text.into();
        if text.is_empty() {
            return;
        }
        match field.kind() {
            Kind::Text => self.put(field, Value::Text(text)),
            Kind::Texts => {
                if self.present & bit(field) == 0 {
                    self.inherit(field);
                }
                self.present |= bit(field);
                self.texts.push((field, text));
            }
            Kind::Int => match text.parse::<i64>() {
                Ok(value) if value.unsigned_abs() <= MAX_SAFE_INT.unsigned_abs() => {
                    self.put(field, Value::Int(value));
                }
                _ => self.detail(field.path(), Detail::Text(text)),
            },
            Kind::Bool => match &*text {
                "true" | "yes" | "1" | "True" | "TRUE" => self.put(field, Value::Bool(true)),
                "false" | "no" | "0" | "False" | "FALSE" => self.put(field, Value::Bool(false)),
                _ => self.detail(field.path(), Detail::Text(text)),
            },
            Kind::Targets => self.target(Target { name: Some(text), ..Target::default() }),
            Kind::Changes => {
                self.change(Change { field: text, before: None, after: None, masked: false });
            }
            Kind::Details => self.detail("text", Detail::Text(text)),
        }
    }

    /// Begins a list with what the base has of it.
    fn inherit(&mut self, field: Field) {
        let Some(base) = self.base else { return };
        let texts = base.fields.texts.iter().filter(|(of, _)| *of == field);
        self.texts.extend(texts.map(|(field, text)| (*field, Cow::Borrowed(&**text))));
    }

    /// Sets an integer field; an integer given to a text field is written as a text.
    pub fn int(&mut self, field: Field, value: i64) {
        if field.kind() == Kind::Int && value.unsigned_abs() <= MAX_SAFE_INT.unsigned_abs() {
            self.put(field, Value::Int(value));
        } else {
            self.text(field, value.to_string());
        }
    }

    /// Sets a truth value; given to a text field it is written as a text.
    pub fn flag(&mut self, field: Field, value: bool) {
        if field.kind() == Kind::Bool {
            self.put(field, Value::Bool(value));
        } else {
            self.text(field, if value { "true" } else { "false" });
        }
    }

    /// Sets `time` or `observed`.
    pub fn time(&mut self, field: Field, time: Timestamp) {
        debug_assert!(matches!(field, Field::Time | Field::Observed));
        self.put(field, Value::Time(time));
    }

    /// Sets `id`.
    pub fn id(&mut self, id: EventId) {
        self.put(Field::Id, Value::Id(id));
    }

    /// Sets `origin.raw_sha256` from the hash's bytes.
    pub fn raw_sha256(&mut self, hash: &'a [u8; 32]) {
        self.put(Field::OriginRawSha256, Value::Hex(hash));
    }

    /// Keeps the raw record: as text where it is UTF-8 (and not swollen by escapes beyond what
    /// base64 would take), else as base64. Longer records than [`MAX_RAW_BYTES`] are the caller's
    /// mistake and are cut.
    pub fn raw(&mut self, record: &'a [u8]) {
        let record = &record[..record.len().min(MAX_RAW_BYTES)];
        match simdutf8::basic::from_utf8(record) {
            Ok(text) => self.raw_text(text),
            Err(_) => self.put(Field::OriginRawBase64, Value::Base64(record)),
        }
    }

    /// Like [`Self::raw`], of a record that is known to be UTF-8.
    pub fn raw_text(&mut self, text: &'a str) {
        if text.len() > MAX_RAW_BYTES {
            self.raw(text.as_bytes());
        } else if text.len() <= MAX_RAW_BYTES / 6 || !swells(text.as_bytes()) {
            self.put(Field::OriginRaw, Value::Text(Cow::Borrowed(text)));
        } else {
            self.put(Field::OriginRawBase64, Value::Base64(text.as_bytes()));
        }
    }

    /// Keeps the raw record of a source whose records are text in another encoding: the text where
    /// it is `exact` (it can be turned back into the record), else the record as base64.
    pub fn raw_decoded(&mut self, text: &'a str, record: &'a [u8], exact: bool) {
        let fits = text.len() <= MAX_RAW_BYTES / 6
            || (text.len() <= MAX_RAW_BYTES && !swells(text.as_bytes()));
        if exact && fits {
            self.put(Field::OriginRaw, Value::Text(Cow::Borrowed(text)));
        } else {
            let record = &record[..record.len().min(MAX_RAW_BYTES)];
            self.put(Field::OriginRawBase64, Value::Base64(record));
        }
    }

    /// Adds a target.
    pub fn target(&mut self, target: Target<'a>) {
        if target != Target::default() {
            self.present |= bit(Field::Targets);
            self.targets.push(target);
        }
    }

    /// The first target, made if there is none: for packs that fill it part by part.
    pub fn first_target(&mut self) -> &mut Target<'a> {
        self.present |= bit(Field::Targets);
        if self.targets.is_empty() {
            self.targets.push(Target::default());
        }
        &mut self.targets[0]
    }

    /// Adds a change.
    pub fn change(&mut self, change: Change<'a>) {
        self.present |= bit(Field::Changes);
        self.changes.push(change);
    }

    /// Adds to `details`; of equal keys the last wins.
    pub fn detail(&mut self, key: impl Into<Cow<'a, str>>, value: Detail<'a>) {
        self.present |= bit(Field::Details);
        self.details.push((key.into(), value));
    }

    /// Adds a tag.
    pub fn tag(&mut self, tag: impl Into<Cow<'a, str>>) {
        self.text(Field::Tags, tag);
    }

    /// Takes a field back out.
    pub fn remove(&mut self, field: Field) {
        self.leave_base();
        match field.kind() {
            Kind::Texts => self.texts.retain(|(of, _)| *of != field),
            Kind::Targets => self.targets.clear(),
            Kind::Changes => self.changes.clear(),
            Kind::Details => self.details.clear(),
            Kind::Text | Kind::Int | Kind::Bool => {}
        }
        self.present &= !bit(field);
    }

    /// Appends the event's canonical JSON to `out` (no newline).
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Written {
        let start = out.len();
        let cut_text = self.write(out);
        if !cut_text && out.len() - start <= MAX_EVENT_BYTES {
            return Written { len: out.len() - start, cut: false };
        }
        out.truncate(start);
        self.leave_base();
        self.tag(CUT_TAG);
        self.write(out);
        for step in CUTS {
            if out.len() - start <= MAX_EVENT_BYTES {
                break;
            }
            out.truncate(start);
            for field in *step {
                self.remove(*field);
            }
            self.write(out);
        }
        Written { len: out.len() - start, cut: true }
    }

    /// Writes all the fields; says whether a text had to be cut.
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        let mut cut = false;
        self.written_message = None;
        out.reserve(USUAL_EVENT_BYTES);
        if let Some(layout) = self.base.and_then(|base| base.layout(self.present)) {
            layout.write(out, |field, out| cut |= self.write_field(field, out));
            return cut;
        }
        let mut objects = Objects::new();
        out.push(b'{');
        let base = self.base;
        layout::walk(self.base_present(), self.present, |next| match next {
            Next::Common(first, last) => {
                if let Some(base) = base {
                    base.write(first, last, &mut objects, out);
                }
            }
            Next::Own(field) => {
                let place = field.place();
                objects.key(place.parents, place.label, out);
                cut |= self.write_field(field, out);
            }
        });
        objects.close(out);
        out.push(b'}');
        cut
    }

    fn write_field(&mut self, field: Field, out: &mut Vec<u8>) -> bool {
        match field.kind() {
            Kind::Text | Kind::Int | Kind::Bool => {
                match self.values.get(usize::from(self.slot_of[field.index()])) {
                    Some(Value::Text(text)) if field == Field::Message => {
                        let from = out.len();
                        let cut = write_cut(text, out);
                        self.written_message = (!cut).then_some((from, out.len()));
                        cut
                    }
                    Some(Value::Text(text)) if field == Field::OriginRaw => {
                        self.write_raw(text, out);
                        false
                    }
                    Some(value) => write_value(value, out),
                    None => false,
                }
            }
            Kind::Texts => {
                let texts = self.texts.iter().filter(|(of, _)| *of == field);
                write_list(texts, out, |(_, text), out| write_cut(text, out))
            }
            Kind::Targets => write_list(self.targets.iter(), out, write_target),
            Kind::Changes => write_list(self.changes.iter_mut(), out, write_change),
            Kind::Details => write_map(&mut self.details, MAX_DEPTH, out),
        }
    }
}

impl Draft<'_> {
    /// Writes the raw record. The message is mostly a part of it: that part is escaped already.
    fn write_raw(&self, raw: &str, out: &mut Vec<u8>) {
        let within = || {
            let (from, to) = self.written_message?;
            let Some(Value::Text(message)) = self.value(Field::Message) else { return None };
            let at = message.as_ptr().addr().checked_sub(raw.as_ptr().addr())?;
            let (before, rest) = raw.split_at_checked(at)?;
            let (_, after) = rest.split_at_checked(message.len())?;
            Some((before, from + 1..to - 1, after))
        };
        let Some((before, message, after)) = within() else { return push_string(raw, out) };
        out.push(b'"');
        push_escaped(before, out);
        out.extend_from_within(message);
        push_escaped(after, out);
        out.push(b'"');
    }
}

/// What goes, step by step, when an event is too long.
const CUTS: &[&[Field]] = &[
    &[Field::Details],
    &[Field::Changes, Field::DataFields],
    &[Field::Message, Field::SourceUserAgent, Field::ReasonText, Field::Justification],
    &[
        Field::Targets,
        Field::ActorRoles,
        Field::ActorTeams,
        Field::BehalfRoles,
        Field::BehalfTeams,
        Field::BehalfName,
        Field::BehalfDisplay,
        Field::BehalfId,
        Field::ActorDisplay,
        Field::ActorId,
        Field::SessionMethods,
        Field::SessionId,
        Field::SourceHost,
        Field::DataName,
        Field::DataVia,
        Field::TraceRequestId,
    ],
];

/// Would escapes make this longer than base64 does?
fn swells(record: &[u8]) -> bool {
    let escaped: usize = record
        .iter()
        .map(|byte| match byte {
            b'"' | b'\\' | 0x08..=0x0a | 0x0c | 0x0d => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum();
    escaped > record.len() / 3 * 4 + 4
}

fn write_value(value: &Value<'_>, out: &mut Vec<u8>) -> bool {
    match value {
        Value::Text(text) => return write_cut(text, out),
        Value::Int(value) => push_int(*value, out),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Time(time) => quoted(out, |out| time.write_to(out)),
        Value::Id(id) => quoted(out, |out| crate::ids::push_hex(&id.0, out)),
        Value::Hex(bytes) => quoted(out, |out| crate::ids::push_hex(bytes, out)),
        Value::Base64(bytes) => quoted(out, |out| push_base64(bytes, out)),
    }
    false
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

/// Writes a text, cut at a character border to [`MAX_TEXT_BYTES`]; says whether it was cut.
fn write_cut(text: &str, out: &mut Vec<u8>) -> bool {
    if text.len() <= MAX_TEXT_BYTES {
        push_string(text, out);
        return false;
    }
    push_string(&text[..text.floor_char_boundary(MAX_TEXT_BYTES)], out);
    true
}

fn write_list<T>(
    items: impl Iterator<Item = T>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(T, &mut Vec<u8>) -> bool,
) -> bool {
    let mut cut = false;
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        cut |= write(item, out);
    }
    out.push(b']');
    cut
}

fn write_target(target: &Target<'_>, out: &mut Vec<u8>) -> bool {
    let parts = [
        ("id", &target.id),
        ("name", &target.name),
        ("parent", &target.parent),
        ("type", &target.kind),
    ];
    let mut cut = false;
    let mut comma = b'{';
    for (key, value) in parts {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            out.push(comma);
            comma = b',';
            push_string(key, out);
            out.push(b':');
            cut |= write_cut(value, out);
        }
    }
    if comma == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
    cut
}

fn write_change(change: &mut Change<'_>, out: &mut Vec<u8>) -> bool {
    let mut cut = false;
    out.push(b'{');
    if let Some(after) = &mut change.after {
        out.extend_from_slice(b"\"after\":");
        cut |= write_detail(after, MAX_DEPTH, out);
        out.push(b',');
    }
    if let Some(before) = &mut change.before {
        out.extend_from_slice(b"\"before\":");
        cut |= write_detail(before, MAX_DEPTH, out);
        out.push(b',');
    }
    out.extend_from_slice(b"\"field\":");
    cut |= write_cut(&change.field, out);
    if change.masked {
        out.extend_from_slice(b",\"masked\":true");
    }
    out.push(b'}');
    cut
}

fn write_detail(detail: &mut Detail<'_>, depth: usize, out: &mut Vec<u8>) -> bool {
    match detail {
        Detail::Null => out.extend_from_slice(b"null"),
        Detail::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Detail::Int(value) if value.unsigned_abs() <= MAX_SAFE_INT.unsigned_abs() => {
            push_int(*value, out);
        }
        Detail::Int(value) => quoted(out, |out| push_int(*value, out)),
        Detail::Text(text) => return write_cut(text, out),
        Detail::List(_) | Detail::Map(_) if depth == 0 => {
            out.extend_from_slice(b"\"\"");
            return true;
        }
        Detail::List(items) => {
            return write_list(items.iter_mut(), out, |item, out| {
                write_detail(item, depth - 1, out)
            });
        }
        Detail::Map(entries) => return write_map(entries, depth, out),
    }
    false
}

/// Writes a map with its keys made ASCII, sorted, and each once (the last wins).
fn write_map(entries: &mut [(Cow<'_, str>, Detail<'_>)], depth: usize, out: &mut Vec<u8>) -> bool {
    for (key, _) in entries.iter_mut() {
        if !key.is_ascii() {
            *key = Cow::Owned(ascii_key(key));
        }
    }
    entries.sort_by(|(left, _), (right, _)| left.as_bytes().cmp(right.as_bytes()));
    let mut cut = false;
    out.push(b'{');
    let mut first = true;
    for index in 0..entries.len() {
        // The sort is stable: of equal keys the last of the run is the last that was set.
        if index + 1 < entries.len() && entries[index].0 == entries[index + 1].0 {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        let (key, value) = &mut entries[index];
        cut |= write_cut(key, out);
        out.push(b':');
        cut |= write_detail(value, depth.saturating_sub(1), out);
    }
    out.push(b'}');
    cut
}

/// Keys are ASCII in the canonical form: other characters are percent-encoded (RFC 3986 §2.1).
fn ascii_key(key: &str) -> String {
    let mut out = String::with_capacity(key.len() * 2);
    for byte in key.bytes() {
        if byte.is_ascii() {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Opens and closes nested objects as the walk along the table crosses them.
struct Objects {
    open: &'static [&'static str],
    first: bool,
}

impl Objects {
    fn new() -> Self {
        Self { open: &[], first: true }
    }

    fn key(&mut self, parents: &'static [&'static str], label: &'static str, out: &mut Vec<u8>) {
        // Neighbours mostly share the very list; only then need it not be compared.
        if !std::ptr::eq(self.open, parents) && self.open != parents {
            let common =
                self.open.iter().zip(parents).take_while(|(left, right)| left == right).count();
            for _ in common..self.open.len() {
                out.push(b'}');
                self.first = false;
            }
            for parent in &parents[common..] {
                self.comma(out);
                out.push(b'"');
                out.extend_from_slice(parent.as_bytes());
                out.extend_from_slice(b"\":{");
                self.first = true;
            }
            self.open = parents;
        }
        let label = label.as_bytes();
        out.extend_from_slice(if self.first { &label[1..] } else { label });
        self.first = false;
    }

    fn comma(&mut self, out: &mut Vec<u8>) {
        if !self.first {
            out.push(b',');
        }
        self.first = false;
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        for _ in self.open {
            out.push(b'}');
        }
    }
}
