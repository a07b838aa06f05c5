//! An entry: its cursor and its fields, in one buffer that is used again for the next.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use crate::{Cursor, JournalError};

/// Bytes of one field's value that are kept. journald's own limit is 768 MiB (a core dump in a
/// field).
pub const MAX_FIELD_BYTES: usize = 256 * 1024;
/// Fields of an entry that are kept; journald accepts 1,024 of a client and adds some forty.
pub const MAX_FIELDS: usize = 2_048;
/// Bytes that names and values of one entry may take as JSON: with the rest it stays below 1 MiB,
/// what is taken for one record.
const MAX_ENTRY_BYTES: usize = 768 * 1024;
/// Bytes of JSON that one byte of a value makes at most: `\u0001`.
const WIDEST: usize = 6;

/// Where a field stands in the buffer.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    name_end: usize,
    end: usize,
    form: Form,
    /// As which field it came, from 0.
    came: usize,
}

/// How a value is written as JSON, found once where its bytes are looked through anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it is, between quotes.
    Plain,
    /// A text with bytes that JSON escapes.
    Escaped,
    /// Not UTF-8, or cut within a character.
    Bytes,
}

impl Form {
    /// The form of a value, and how many bytes of JSON it makes at most.
    fn of(value: &[u8]) -> (Self, usize) {
        if std::str::from_utf8(value).is_err() {
            return (Self::Bytes, value.len() * 4);
        }
        match escapes(value) {
            0 => (Self::Plain, value.len()),
            escapes => (Self::Escaped, value.len() + escapes * (WIDEST - 1)),
        }
    }
}

/// Bytes that JSON escapes. All are counted, without an early end: so it is done many at a time.
fn escapes(value: &[u8]) -> usize {
    value.iter().filter(|byte| **byte < 0x20 || matches!(**byte, b'"' | b'\\')).count()
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field<'a> {
    /// Upper-case letters, digits, underscores.
    pub name: &'a [u8],
    /// Any bytes.
    pub value: &'a [u8],
}

/// A field that was too long to be kept whole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cut {
    name: String,
    bytes: u64,
    kept: u64,
    sha256: String,
}

/// One entry of the journal.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    cursor_text: String,
    cursor: Cursor,
    data: Vec<u8>,
    spans: Vec<Span>,
    cut: Vec<Cut>,
    /// Fields beyond the limits, left out.
    dropped: u64,
    /// Bytes of JSON that the values make, about.
    weight: usize,
    /// How the fields of the last entry were sorted: mostly the next one's are sorted so too.
    order: Vec<usize>,
    /// Room to sort in.
    unsorted: Vec<Span>,
}

impl Entry {
    /// Empties it for the entry with this cursor.
    ///
    /// # Errors
    /// The cursor is not understood.
    pub fn begin(&mut self, cursor: &str) -> Result<(), JournalError> {
        self.data.clear();
        self.spans.clear();
        self.cut.clear();
        self.dropped = 0;
        self.weight = 0;
        self.cursor = Cursor::parse(cursor)?;
        self.cursor_text.clear();
        self.cursor_text.push_str(cursor);
        Ok(())
    }

    /// Adds a field, `NAME=value`. A text without `=` is not a field and is left out.
    pub fn add(&mut self, field: &[u8]) {
        if let Some(at) = field.iter().position(|byte| *byte == b'=') {
            self.add_parts(&field[..at], &field[at + 1..]);
        }
    }

    /// Adds a field. Names that begin with two underscores are the reader's, not the entry's: they
    /// are made from the cursor.
    pub fn add_parts(&mut self, name: &[u8], value: &[u8]) {
        if name.starts_with(b"__") {
            return;
        }
        let room = MAX_ENTRY_BYTES.saturating_sub(self.weight + name.len());
        if self.spans.len() >= MAX_FIELDS || room < value.len().min(64) * WIDEST {
            self.dropped += 1;
            return;
        }
        let mut kept = value.len().min(MAX_FIELD_BYTES);
        let (mut form, mut weight) = Form::of(&value[..kept]);
        if weight > room {
            kept = kept.min(room / WIDEST);
            (form, weight) = Form::of(&value[..kept]);
        }
        self.weight += name.len() + weight;
        if kept < value.len() {
            self.cut.push(Cut {
                name: String::from_utf8_lossy(name).into_owned(),
                bytes: len_u64(value.len()),
                kept: len_u64(kept),
                sha256: Sha256::digest(value).iter().map(|byte| format!("{byte:02x}")).collect(),
            });
        }
        let start = self.data.len();
        self.data.extend_from_slice(name);
        let name_end = self.data.len();
        self.data.extend_from_slice(&value[..kept]);
        let came = self.spans.len();
        self.spans.push(Span { start, name_end, end: self.data.len(), form, came });
    }

    /// Sorts the fields, so that both ways in and every later reading give the same bytes.
    pub fn finish(&mut self) {
        if self.order.len() == self.spans.len() {
            std::mem::swap(&mut self.spans, &mut self.unsorted);
            self.spans.clear();
            self.spans.extend(self.order.iter().map(|came| self.unsorted[*came]));
        }
        let data = &self.data;
        self.spans.sort_unstable_by(|a, b| {
            let key =
                |span: &Span| (&data[span.start..span.name_end], &data[span.name_end..span.end]);
            key(a).cmp(&key(b))
        });
        self.order.clear();
        self.order.extend(self.spans.iter().map(|span| span.came));
        self.cut.sort_unstable_by(|a, b| (&a.name, &a.sha256).cmp(&(&b.name, &b.sha256)));
    }

    /// Where it stands.
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Where it stands, as journald's tools take it.
    #[must_use]
    pub fn cursor_text(&self) -> &str {
        &self.cursor_text
    }

    /// Its fields, sorted by name.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.spans.iter().map(|span| self.field(span))
    }

    fn field(&self, span: &Span) -> Field<'_> {
        Field {
            name: &self.data[span.start..span.name_end],
            value: &self.data[span.name_end..span.end],
        }
    }

    /// The first value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|field| field.name == name.as_bytes()).map(|field| field.value)
    }

    /// The first value of a field, if it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// All values of a field.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields().filter(move |field| field.name == name.as_bytes()).map(|field| field.value)
    }

    /// Bytes of names and values.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.data.len()
    }

    /// Writes it as one JSON object, without a line end, as `journalctl -o json` does: values as
    /// strings, values that are not UTF-8 as arrays of bytes, several values of one field as an
    /// array; the field names sorted, so that equal entries are equal bytes. What was too long to be
    /// kept is told in `__CUT` (field, bytes, bytes kept, SHA-256 of the whole) and `__DROPPED`
    /// (fields left out).
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let Cursor { monotonic_us, realtime_us, .. } = self.cursor;
        out.extend_from_slice(b"{\"__CURSOR\":");
        write_text(out, &self.cursor_text);
        if !self.cut.is_empty() {
            self.write_cut(out);
        }
        if self.dropped > 0 {
            out.extend_from_slice(format!(",\"__DROPPED\":\"{}\"", self.dropped).as_bytes());
        }
        let times = format!(
            ",\"__MONOTONIC_TIMESTAMP\":\"{monotonic_us}\",\"__REALTIME_TIMESTAMP\":\"{realtime_us}\""
        );
        out.extend_from_slice(times.as_bytes());
        for same in self.spans.chunk_by(|a, b| self.field(a).name == self.field(b).name) {
            out.push(b',');
            write_name(out, self.field(&same[0]).name);
            out.push(b':');
            match same {
                [one] => self.write_value(out, one),
                many => write_list(out, many.iter(), |out, span| self.write_value(out, span)),
            }
        }
        out.push(b'}');
    }

    fn write_value(&self, out: &mut Vec<u8>, span: &Span) {
        let value = self.field(span).value;
        match span.form {
            Form::Plain => write_plain(out, value),
            Form::Escaped => write_escaped(out, value),
            Form::Bytes => write_bytes(out, value),
        }
    }

    fn write_cut(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"__CUT\":");
        write_list(out, self.cut.iter(), |out, cut| {
            out.extend_from_slice(b"{\"field\":");
            write_text(out, &cut.name);
            let rest = format!(
                ",\"bytes\":\"{}\",\"kept\":\"{}\",\"sha256\":\"{}\"}}",
                cut.bytes, cut.kept, cut.sha256
            );
            out.extend_from_slice(rest.as_bytes());
        });
    }

    /// Fields that were cut or left out.
    #[must_use]
    pub fn shortened(&self) -> u64 {
        len_u64(self.cut.len()) + self.dropped
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cursor_text == other.cursor_text
            && self.cut == other.cut
            && self.dropped == other.dropped
            && self.fields().eq(other.fields())
    }
}

fn write_list<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (number, item) in items.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// What is not text.
fn write_bytes(out: &mut Vec<u8>, value: &[u8]) {
    match cut_character(value) {
        // A text that was cut within a character is text all the same.
        Some(text) => write_text(out, &text),
        None => write_list(out, value.iter(), |out, byte| {
            out.extend_from_slice(byte.to_string().as_bytes());
        }),
    }
}

/// A value as long as the limit that is UTF-8 but for its last, incomplete character.
fn cut_character(value: &[u8]) -> Option<Cow<'_, str>> {
    let error = std::str::from_utf8(value).err()?;
    let is_cut = value.len() == MAX_FIELD_BYTES && error.error_len().is_none();
    is_cut.then(|| String::from_utf8_lossy(&value[..error.valid_up_to()]))
}

/// journald takes no other names than these; the export format could bring some.
fn write_name(out: &mut Vec<u8>, name: &[u8]) {
    let is_usual = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    match name.iter().all(is_usual) {
        true => write_plain(out, name),
        false => write_text(out, &String::from_utf8_lossy(name)),
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    match escapes(text.as_bytes()) {
        0 => write_plain(out, text.as_bytes()),
        _ => write_escaped(out, text.as_bytes()),
    }
}

fn write_plain(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

fn write_escaped(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for byte in text {
        match *byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control @ 0..0x20 => {
                out.extend_from_slice(format!("\\u{control:04x}").as_bytes());
            }
            other => out.push(other),
        }
    }
    out.push(b'"');
}

fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const CURSOR: &str = "s=89faf26c707845e7a3d23e6cffabb835;i=1f;b=11669cd101054595abafa3633fe713c1;m=5;t=7;x=85dc29317291eb50";

    fn json(fields: &[(&str, &[u8])]) -> serde_json::Value {
        let mut entry = Entry::default();
        entry.begin(CURSOR).unwrap();
        for (name, value) in fields {
            entry.add_parts(name.as_bytes(), value);
        }
        entry.finish();
        let mut out = Vec::new();
        entry.write_json(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn binary_repeated_and_awkward_fields_are_written_as_journalctl_writes_them() {
        let json = json(&[
            ("MESSAGE", b"a \"quoted\"\nline\t\x01 \xc3\xa4"),
            ("BLOB", &[0xff, 0, 7]),
            ("TWICE", b"two"),
            ("TWICE", b"one"),
            ("__CURSOR", b"forged"),
        ]);
        assert_eq!(json["MESSAGE"], "a \"quoted\"\nline\t\u{1} \u{e4}");
        assert_eq!(json["BLOB"], serde_json::json!([255, 0, 7]));
        assert_eq!(json["TWICE"], serde_json::json!(["one", "two"]));
        assert_eq!(json["__CURSOR"], CURSOR);
        assert_eq!(json["__REALTIME_TIMESTAMP"], "7");
        assert_eq!(json["__MONOTONIC_TIMESTAMP"], "5");
    }

    #[test]
    fn the_order_in_which_a_reader_gives_fields_does_not_show() {
        let one = json(&[("B", b"1"), ("A", b"2"), ("A", b"1")]);
        let two = json(&[("A", b"1"), ("B", b"1"), ("A", b"2")]);
        assert_eq!(one.to_string(), two.to_string());
    }

    #[test]
    fn a_field_that_is_too_long_says_so_with_its_hash() {
        let long = vec![b'x'; 1_000_000];
        let json = json(&[("COREDUMP", &long), ("MESSAGE", b"m")]);
        assert_eq!(json["COREDUMP"].as_str().unwrap().len(), MAX_FIELD_BYTES);
        assert_eq!(json["__CUT"][0]["field"], "COREDUMP");
        assert_eq!(json["__CUT"][0]["bytes"], "1000000");
        let hash: String = Sha256::digest(&long).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(json["__CUT"][0]["sha256"], hash);
        assert_eq!(json["MESSAGE"], "m");
    }

    #[test]
    fn an_entry_of_many_long_fields_is_bounded() {
        let long = vec![b'\xff'; 300_000];
        let names: Vec<String> = (0..40).map(|n| format!("F{n}")).collect();
        let mut entry = Entry::default();
        entry.begin(CURSOR).unwrap();
        for name in &names {
            entry.add_parts(name.as_bytes(), &long);
        }
        let mut out = Vec::new();
        entry.finish();
        entry.write_json(&mut out);
        assert!(out.len() <= MAX_ENTRY_BYTES + 64 * 1024, "{}", out.len());
        assert_eq!(entry.shortened(), 40);
    }

    fn write(entry: &mut Entry, fields: &[(String, Vec<u8>)]) -> Vec<u8> {
        entry.begin(CURSOR).unwrap();
        fields.iter().for_each(|(name, value)| entry.add_parts(name.as_bytes(), value));
        entry.finish();
        let mut out = Vec::new();
        entry.write_json(&mut out);
        out
    }

    proptest! {
        #[test]
        fn an_entry_that_is_used_again_is_as_a_new_one(
            entries in proptest::collection::vec(
                proptest::collection::vec(
                    ("[A-C]{1,2}|[a\"]", prop_oneof![
                        "[a-b\"\n]{0,3}".prop_map(String::into_bytes),
                        proptest::collection::vec(any::<u8>(), 0..4),
                    ]),
                    0..6,
                ),
                1..6,
            )
        ) {
            let mut entry = Entry::default();
            for fields in entries {
                let again = write(&mut entry, &fields);
                prop_assert_eq!(again, write(&mut Entry::default(), &fields));
            }
        }

        #[test]
        fn every_value_reads_back(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let json = json(&[("F", &value)]);
            let back = match &json["F"] {
                serde_json::Value::String(text) => text.clone().into_bytes(),
                other => serde_json::from_value(other.clone()).unwrap(),
            };
            prop_assert_eq!(back, value);
        }
    }
}
