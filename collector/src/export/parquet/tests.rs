//! What was written is read back here by the format's own description, with nothing of the writer.

use std::collections::BTreeMap;

use custody_event::{Draft, EventId, Field, Target, Timestamp, ocsf};
use serde_json::{Map, Value, json};

use super::super::room::Room;
use super::super::{Form, Heading, Part, Totals, Words};
use super::Parquet;

/// A value of Thrift's compact protocol.
#[derive(Debug, Clone)]
enum Thrift {
    Truth,
    Number(i64),
    Bytes(Vec<u8>),
    List(Vec<Thrift>),
    Struct(BTreeMap<u8, Thrift>),
}

impl Thrift {
    fn at(&self, id: u8) -> &Self {
        let Self::Struct(fields) = self else { panic!("{self:?}") };
        fields.get(&id).unwrap_or_else(|| panic!("no field {id} in {self:?}"))
    }

    fn has(&self, id: u8) -> bool {
        matches!(self, Self::Struct(fields) if fields.contains_key(&id))
    }

    fn number(&self) -> usize {
        let Self::Number(number) = self else { panic!("{self:?}") };
        usize::try_from(*number).unwrap()
    }

    fn text(&self) -> String {
        let Self::Bytes(bytes) = self else { panic!("{self:?}") };
        String::from_utf8(bytes.clone()).unwrap()
    }

    fn list(&self) -> &[Self] {
        let Self::List(items) = self else { panic!("{self:?}") };
        items
    }
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap();
        self.0 = rest;
        *first
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken.to_vec()
    }

    fn word<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap()
    }

    fn varint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn zigzag(&mut self) -> i64 {
        let value = self.varint();
        (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
    }

    fn value(&mut self, kind: u8) -> Thrift {
        match kind {
            1 | 2 => Thrift::Truth,
            4..=6 => Thrift::Number(self.zigzag()),
            8 => {
                let len = usize::try_from(self.varint()).unwrap();
                Thrift::Bytes(self.take(len))
            }
            9 => {
                let head = self.byte();
                let len = if head >> 4 == 15 { self.varint() } else { u64::from(head >> 4) };
                Thrift::List((0..len).map(|_| self.value(head & 15)).collect())
            }
            12 => {
                let (mut fields, mut id) = (BTreeMap::new(), 0);
                loop {
                    let head = self.byte();
                    if head == 0 {
                        return Thrift::Struct(fields);
                    }
                    assert_ne!(head >> 4, 0, "every step is short");
                    id += head >> 4;
                    fields.insert(id, self.value(head & 15));
                }
            }
            other => panic!("type {other}"),
        }
    }

    /// Levels behind their length.
    fn levels(&mut self, count: usize) -> Vec<u8> {
        let len = usize::try_from(u32::from_le_bytes(self.word())).unwrap();
        let runs = self.take(len);
        let (mut runs, mut out) = (Bytes(&runs), Vec::new());
        while !runs.0.is_empty() {
            let head = runs.varint();
            assert_eq!(head & 1, 0, "runs alone are written");
            let level = runs.byte();
            out.extend(std::iter::repeat_n(level, usize::try_from(head >> 1).unwrap()));
        }
        assert_eq!(out.len(), count);
        out
    }
}

/// A column of the schema: its path, its type, and how much of it may be absent or repeats.
#[derive(Debug)]
struct Leaf {
    path: Vec<String>,
    kind: usize,
    defined: u8,
    repeats: u8,
}

fn leaves(elements: &[Thrift], at: &mut usize, around: &Leaf, out: &mut Vec<Leaf>) {
    let element = &elements[*at];
    *at += 1;
    let repetition = element.at(3).number();
    let mut path = around.path.clone();
    path.push(element.at(4).text());
    let here = Leaf {
        path,
        kind: if element.has(1) { element.at(1).number() } else { 0 },
        defined: around.defined + u8::from(repetition > 0),
        repeats: around.repeats + u8::from(repetition == 2),
    };
    if !element.has(5) {
        return out.push(here);
    }
    for _ in 0..element.at(5).number() {
        leaves(elements, at, &here, out);
    }
}

/// An entry of a column: repetition level, definition level, value.
type Entry = (u8, u8, Option<Value>);

fn entries(file: &[u8], leaf: &Leaf, data: &Thrift) -> Vec<Entry> {
    let at = data.at(9).number();
    let mut page = Bytes(&file[at..at + data.at(7).number()]);
    let head = page.value(12);
    let count = head.at(5).at(1).number();
    assert_eq!(count, data.at(5).number());
    let unpacked = zstd::bulk::decompress(page.0, head.at(2).number()).unwrap();
    assert_eq!((unpacked.len(), page.0.len()), (head.at(2).number(), head.at(3).number()));
    let mut page = Bytes(&unpacked);
    let repeats = if leaf.repeats > 0 { page.levels(count) } else { vec![0; count] };
    let defines = page.levels(count);
    let (mut truths, mut nulls) = (0, 0);
    let entry = |(repeats, defines): (u8, u8)| {
        if defines < leaf.defined {
            nulls += 1;
            return (repeats, defines, None);
        }
        let value = match leaf.kind {
            0 => {
                let bit = page.0[truths / 8] >> (truths % 8) & 1;
                truths += 1;
                Value::Bool(bit == 1)
            }
            2 => i64::from_le_bytes(page.word()).into(),
            6 => {
                let len = usize::try_from(u32::from_le_bytes(page.word())).unwrap();
                String::from_utf8(page.take(len)).unwrap().into()
            }
            other => panic!("type {other}"),
        };
        (repeats, defines, Some(value))
    };
    let entries = repeats.into_iter().zip(defines).map(entry).collect();
    assert_eq!(nulls, data.at(12).at(3).number());
    entries
}

/// Puts an entry where it belongs; `item` is its place in the list, `level` how much of the path is
/// behind.
fn put(node: &mut Value, path: &[String], level: u8, item: usize, entry: &Entry) {
    let Some((name, rest)) = path.split_first() else {
        *node = entry.2.clone().unwrap();
        return;
    };
    if name == "list" {
        if node.is_null() {
            *node = json!([]);
        }
        if level + 2 <= entry.1 {
            let items = node.as_array_mut().unwrap();
            items.resize(items.len().max(item + 1), Value::Null);
            put(&mut items[item], &rest[1..], level + 2, item, entry);
        }
        return;
    }
    if node.is_null() {
        *node = json!({});
    }
    if level < entry.1 {
        let child = node.as_object_mut().unwrap().entry(name).or_insert(Value::Null);
        put(child, rest, level + 1, item, entry);
    }
}

/// The rows of a file.
fn rows(file: &[u8]) -> Vec<Value> {
    assert!(file.starts_with(b"PAR1") && file.ends_with(b"PAR1"));
    let len = u32::from_le_bytes(file[file.len() - 8..file.len() - 4].try_into().unwrap());
    let begin = file.len() - 8 - usize::try_from(len).unwrap();
    let footer = Bytes(&file[begin..file.len() - 8]).value(12);
    let elements = footer.at(2).list();
    let (mut columns, mut at) = (Vec::new(), 1);
    let root = Leaf { path: Vec::new(), kind: 0, defined: 0, repeats: 0 };
    for _ in 0..elements[0].at(5).number() {
        leaves(elements, &mut at, &root, &mut columns);
    }
    assert_eq!(at, elements.len(), "every element of the schema is somebody's");
    let mut all = Vec::new();
    for group in footer.at(4).list() {
        let mut rows = vec![Value::Object(Map::new()); group.at(3).number()];
        assert_eq!(group.at(1).list().len(), columns.len());
        for (leaf, chunk) in columns.iter().zip(group.at(1).list()) {
            let data = chunk.at(3);
            let path: Vec<String> = data.at(3).list().iter().map(Thrift::text).collect();
            assert_eq!(path, leaf.path);
            let (mut row, mut item) = (0, 0);
            for (number, entry) in entries(file, leaf, data).iter().enumerate() {
                item = if entry.0 == 0 { 0 } else { item + 1 };
                row += usize::from(entry.0 == 0 && number > 0);
                put(&mut rows[row], &leaf.path, 0, item, entry);
            }
            assert_eq!(row + 1, rows.len(), "{path:?}");
        }
        all.extend(rows);
    }
    assert_eq!(all.len(), footer.at(3).number());
    all
}

/// Events of many classes, with lists of no, one and several items.
fn events() -> Vec<Vec<u8>> {
    let one = |number: u8, fill: &dyn Fn(&mut Draft<'_>)| {
        let mut draft = Draft::new();
        draft.id(EventId([number; 16]));
        let time = Timestamp::from_micros(1_790_000_000_123_456 + i64::from(number));
        draft.time(Field::Time, time);
        draft.time(Field::Observed, time);
        draft.text(Field::Host, "web1");
        draft.text(Field::OriginInput, "test");
        draft.text(Field::OriginRaw, format!("line {number}\twith \"quotes\" and 管理者"));
        fill(&mut draft);
        let mut out = Vec::new();
        draft.finish(&mut out);
        out
    };
    let target = |kind: &'static str, name: &'static str| Target {
        kind: Some(kind.into()),
        name: Some(name.into()),
        ..Target::default()
    };
    let texts = |draft: &mut Draft<'_>, field: Field, texts: &[&'static str]| {
        texts.iter().for_each(|text| draft.text(field, *text));
    };
    let login = |draft: &mut Draft<'_>| {
        draft.text(Field::Category, "authentication");
        draft.text(Field::Action, "authentication.login");
        draft.text(Field::Op, "login");
        draft.text(Field::Outcome, "failure");
        draft.text(Field::ActorName, "jane@example.org");
        draft.text(Field::SourceIp, "203.0.113.7");
        draft.int(Field::SourcePort, 40_022);
        draft.flag(Field::SessionMfa, true);
        texts(draft, Field::ActorTeams, &["audit", "ops", "on call"]);
        texts(draft, Field::SessionMethods, &["password", "totp"]);
        texts(draft, Field::Tags, &["night"]);
    };
    let grant = |draft: &mut Draft<'_>| {
        draft.text(Field::Category, "permission");
        draft.text(Field::Action, "role.grant");
        draft.text(Field::Op, "grant");
        draft.text(Field::ActorName, "root");
        for (kind, name) in [("user", "bob"), ("role", "auditor"), ("role", "analyst")] {
            draft.target(target(kind, name));
        }
    };
    let read = |draft: &mut Draft<'_>| {
        draft.text(Field::Category, "api");
        draft.text(Field::Action, "contact.read");
        draft.text(Field::Op, "read");
        draft.text(Field::SourceUserAgent, "curl/8");
        draft.int(Field::Attempts, 3);
        draft.text(Field::LocationCountry, "DE");
        texts(draft, Field::Tags, &["a", "b", "c"]);
    };
    let nothing = |_: &mut Draft<'_>| {};
    (0..60_u8)
        .map(|number| match number % 4 {
            0 => one(number, &login),
            1 => one(number, &grant),
            2 => one(number, &read),
            _ => one(number, &nothing),
        })
        .collect()
}

fn written(words: Words, events: &[Vec<u8>]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let room = Room { max_bytes: u64::MAX, max_total_bytes: u64::MAX, min_free_bytes: 0 };
    let heading = Heading {
        name: "x".to_owned(),
        query: String::new(),
        from: String::new(),
        to: String::new(),
        created_by: "ann".to_owned(),
        created: Timestamp::Y2020,
        origin: "test/log".to_owned(),
        checkpoint: String::new(),
    };
    let mut part = Part::create(&dir.path().join("x.part"), room).unwrap();
    let mut form = Parquet::new(&heading, words, 25);
    form.begin(&mut part).unwrap();
    events.iter().for_each(|event| form.row(event, &mut part).unwrap());
    let rows = u64::try_from(events.len()).unwrap();
    form.end(&Totals { rows, content_sha256: "00".to_owned() }, &mut part).unwrap();
    part.complete(&dir.path().join("x")).unwrap();
    std::fs::read(dir.path().join("x")).unwrap()
}

#[test]
fn every_attribute_of_every_event_reads_back_from_its_own_nested_column() {
    let events = events();
    let read = rows(&written(Words::Ocsf, &events));
    assert_eq!(read.len(), events.len());
    for (mut row, event) in read.into_iter().zip(&events) {
        let unmapped = row["unmapped"].as_str().map(|text| serde_json::from_str(text).unwrap());
        if let Some(unmapped) = unmapped {
            row["unmapped"] = unmapped;
        }
        assert_eq!(row, ocsf::form(event).unwrap());
    }
}

#[test]
fn the_flat_table_reads_back_as_it_did() {
    let events = events();
    let read = rows(&written(Words::Custody, &events));
    for (row, event) in read.iter().zip(&events) {
        let event: Value = serde_json::from_slice(event).unwrap();
        assert_eq!(row["host"], event["host"]);
        assert_eq!(row["origin.raw"], event["origin"]["raw"]);
        assert_eq!(row.get("actor.name"), event.get("actor").and_then(|actor| actor.get("name")));
        let tags = row["tags"].as_str().map(|text| serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(tags.as_ref(), event.get("tags"));
    }
    assert!(rows(&written(Words::Custody, &[])).is_empty());
    assert!(rows(&written(Words::Ocsf, &[])).is_empty());
}

/// Without what is null, and without what is then empty.
fn bare(value: Value) -> Value {
    let is_something = |value: &Value| {
        !value.is_null() && value.as_object().is_none_or(|object| !object.is_empty())
    };
    match value {
        Value::Object(entries) => {
            let bare = entries.into_iter().map(|(key, value)| (key, bare(value)));
            bare.filter(|(_, value)| is_something(value)).collect()
        }
        Value::Array(items) => items.into_iter().map(bare).collect(),
        other => other,
    }
}

#[test]
fn duckdb_reads_the_nested_columns_as_structs_and_lists() {
    let Some(python) = std::env::var_os("CUSTODY_DUCKDB_PYTHON") else {
        println!("skipped: no DuckDB (CUSTODY_DUCKDB_PYTHON names a Python that has it)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (path, events) = (dir.path().join("events.parquet"), events());
    std::fs::write(&path, written(Words::Ocsf, &events)).unwrap();
    let ask = "import sys, duckdb
for row in duckdb.sql('select to_json(event)::varchar from read_parquet(?) event', params=[sys.argv[1]]).fetchall():
    print(row[0])
found = duckdb.sql('select count(*) from read_parquet(?) where list_contains(metadata.labels, ?) and actor.user.groups[3].name = ?',
    params=[sys.argv[1], 'night', 'on call']).fetchone()[0]
assert found == 15, found
";
    let said = std::process::Command::new(python).args(["-c", ask]).arg(&path).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let text = String::from_utf8(said.stdout).unwrap();
    assert_eq!(text.lines().count(), events.len());
    for (line, event) in text.lines().zip(&events) {
        let mut row: Value = bare(serde_json::from_str(line).unwrap());
        if let Some(unmapped) = row.get("unmapped").and_then(Value::as_str) {
            row["unmapped"] = serde_json::from_str(unmapped).unwrap();
        }
        assert_eq!(row, bare(ocsf::form(event).unwrap()));
    }
}
