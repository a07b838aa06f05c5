//! Reading a section key by key.
//!
//! A section is asked for its keys one after the other; what nobody asked for is unknown. So there is no list of keys
//! beside the code that reads them, and a problem never ends the reading: it is noted, the default stands in, and the file as
//! a whole is refused at the end with all that was found.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use crate::place::{Located, Place, Problem};
use crate::suggest::nearest;
use crate::tree::{Key, Node, Spot, Value};
use crate::units::{ByteSize, PERIOD_HINT, Period, SIZE_HINT, UnitError};

/// What is collected while one file is read.
pub(crate) struct Reader {
    file: Arc<Path>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    asked: RefCell<BTreeSet<String>>,
}

/// What was collected.
pub(crate) struct Collected {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
    /// Every key that was asked for, dotted (`spool.max_bytes`, `sources[].id`).
    pub(crate) asked: BTreeSet<String>,
}

impl Reader {
    pub(crate) fn new(file: &Path) -> Self {
        Self {
            file: Arc::from(file),
            problems: RefCell::default(),
            warnings: RefCell::default(),
            asked: RefCell::default(),
        }
    }

    pub(crate) fn place(&self, spot: Spot) -> Place {
        Place::File { file: Arc::clone(&self.file), line: spot.line, column: spot.column }
    }

    pub(crate) fn problem(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub(crate) fn warn(&self, problem: Problem) {
        self.warnings.borrow_mut().push(problem);
    }

    pub(crate) fn at(&self, spot: Spot, what: impl Into<String>, hint: impl Into<String>) {
        self.problem(Problem::new(self.place(spot), what, hint));
    }

    pub(crate) fn collected(self) -> Collected {
        Collected {
            problems: self.problems.into_inner(),
            warnings: self.warnings.into_inner(),
            asked: self.asked.into_inner(),
        }
    }

    /// The section that a node is; a problem and an empty section if it is none.
    pub(crate) fn section(&self, node: Node, name: &str) -> Section<'_> {
        let spot = node.spot;
        let entries = match node.value {
            Value::Map(entries) => entries,
            Value::Null if name.is_empty() => Vec::new(),
            other => {
                let whole =
                    if name.is_empty() { "the file".to_owned() } else { format!("`{name}`") };
                self.at(
                    spot,
                    format!("{whole} must be a section with keys, found {}", other.describe()),
                    "write `key: value`, one a line",
                );
                Vec::new()
            }
        };
        Section {
            reader: self,
            name: name.to_owned(),
            spot,
            entries,
            asked: Vec::new(),
            missing: Vec::new(),
        }
    }
}

/// One section of the file, while it is read.
pub(crate) struct Section<'r> {
    reader: &'r Reader,
    name: String,
    spot: Spot,
    entries: Vec<(Key, Node)>,
    asked: Vec<&'static str>,
    missing: Vec<&'static str>,
}

impl<'r> Section<'r> {
    pub(crate) const fn reader(&self) -> &'r Reader {
        self.reader
    }

    pub(crate) const fn spot(&self) -> Spot {
        self.spot
    }

    /// The full name of a key of this section.
    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Notes `key` as missing if it is not there.
    pub(crate) fn must_have(&mut self, key: &'static str) {
        if !self.has(key) {
            self.missing.push(key);
        }
    }

    /// Is `key` there?
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name.name == key)
    }

    /// The value of `key`, if it is there.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.asked.push(key);
        self.reader.asked.borrow_mut().insert(self.full(key));
        let index = self.entries.iter().position(|(name, _)| name.name == key)?;
        Some(self.entries.remove(index).1)
    }

    fn wrong(&self, key: &str, node: &Node, wanted: &str, hint: &str) {
        let what =
            format!("`{}` must be {wanted}, found {}", self.full(key), node.value.describe());
        let hint = if matches!(node.value, Value::Null) {
            "give it a value, or remove the key to use its default"
        } else {
            hint
        };
        self.reader.at(node.spot, what, hint);
    }

    /// A text.
    pub(crate) fn text(&mut self, key: &'static str) -> Option<Located<String>> {
        let node = self.take(key)?;
        self.as_text(key, node)
    }

    /// A text that must be there; empty where it is not.
    pub(crate) fn need_text(&mut self, key: &'static str) -> Option<Located<String>> {
        self.must_have(key);
        self.text(key)
    }

    fn as_text(&self, key: &str, node: Node) -> Option<Located<String>> {
        let place = self.reader.place(node.spot);
        match node.value {
            Value::Text(text) if text.trim().is_empty() => {
                self.reader.at(
                    node.spot,
                    format!("`{}` is empty", self.full(key)),
                    "give it a value, or remove the key to use its default",
                );
                None
            }
            Value::Text(text) if text.contains('\0') => {
                self.reader.at(
                    node.spot,
                    format!("`{}` holds a NUL character", self.full(key)),
                    "remove it",
                );
                None
            }
            Value::Text(text) => Some(Located::new(text, place)),
            _ => {
                let hint = if matches!(node.value, Value::List(_) | Value::Map(_)) {
                    "write one value"
                } else {
                    "put it in quotes"
                };
                self.wrong(key, &node, "a text", hint);
                None
            }
        }
    }

    /// A text that `read` understands.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, UnitError>,
    ) -> Option<Located<T>> {
        let text = self.text(key)?;
        self.read_located(key, text, read)
    }

    pub(crate) fn read_located<T>(
        &self,
        key: &str,
        text: Located<String>,
        read: impl FnOnce(&str) -> Result<T, UnitError>,
    ) -> Option<Located<T>> {
        match read(text.get()) {
            Ok(value) => Some(text.map(|_| value)),
            Err(error) => {
                self.reader.problem(
                    text.problem(format!("`{}`: {}", self.full(key), error.what), error.hint),
                );
                None
            }
        }
    }

    /// A size within `range`.
    pub(crate) fn size(
        &mut self,
        key: &'static str,
        range: RangeInclusive<ByteSize>,
    ) -> Option<ByteSize> {
        let node = self.take(key)?;
        let read = match &node.value {
            Value::Int(bytes) => u64::try_from(*bytes).map(ByteSize::from_bytes).map_err(|_| {
                UnitError { what: format!("`{bytes}` is not a size"), hint: SIZE_HINT.to_owned() }
            }),
            Value::Text(text) => ByteSize::parse(text),
            _ => {
                self.wrong(key, &node, "a size", SIZE_HINT);
                return None;
            }
        };
        self.within(key, node.spot, read, range)
    }

    /// A duration within `range`.
    pub(crate) fn period(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Period>,
    ) -> Option<Period> {
        let node = self.take(key)?;
        let read = match &node.value {
            Value::Text(text) => Period::parse(text),
            Value::Int(number) => Period::parse(&number.to_string()),
            _ => {
                self.wrong(key, &node, "a duration", PERIOD_HINT);
                return None;
            }
        };
        self.within(key, node.spot, read, range)
    }

    /// A whole number within `range`.
    pub(crate) fn number(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let node = self.take(key)?;
        let Value::Int(number) = node.value else {
            let hint =
                format!("write a number from {} to {}, without quotes", range.start(), range.end());
            self.wrong(key, &node, "a whole number", &hint);
            return None;
        };
        match u32::try_from(number) {
            Ok(value) if range.contains(&value) => Some(value),
            _ => {
                self.out_of_range(key, node.spot, &number, &range);
                None
            }
        }
    }

    fn within<T: PartialOrd + std::fmt::Display>(
        &self,
        key: &str,
        spot: Spot,
        read: Result<T, UnitError>,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        match read {
            Ok(value) if range.contains(&value) => Some(value),
            Ok(value) => {
                self.out_of_range(key, spot, &value, &range);
                None
            }
            Err(error) => {
                self.reader.at(spot, format!("`{}`: {}", self.full(key), error.what), error.hint);
                None
            }
        }
    }

    fn out_of_range<T: std::fmt::Display>(
        &self,
        key: &str,
        spot: Spot,
        value: &dyn std::fmt::Display,
        range: &RangeInclusive<T>,
    ) {
        let what = format!("`{}` is {value}, outside its limits", self.full(key));
        self.reader.at(
            spot,
            what,
            format!("write a value from {} to {}", range.start(), range.end()),
        );
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let node = self.take(key)?;
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        self.wrong(key, &node, "true or false", "write true or false, without quotes");
        None
    }

    /// One word of a closed list.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text.get()).map(|(_, value)| *value);
        if found.is_none() {
            let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.reader.problem(text.problem(
                format!(
                    "`{}` has the unknown value `{}`",
                    self.full(key),
                    text.get().escape_debug()
                ),
                one_of(text.get(), &all),
            ));
        }
        found
    }

    /// A list of anything.
    pub(crate) fn list(&mut self, key: &'static str) -> Option<(Spot, Vec<Node>)> {
        let node = self.take(key)?;
        let spot = node.spot;
        match node.value {
            Value::List(items) => Some((spot, items)),
            _ => {
                self.wrong(key, &node, "a list", "put it in brackets: [a, b]");
                None
            }
        }
    }

    /// A list that must be there.
    pub(crate) fn list_or_missing(&mut self, key: &'static str) -> Option<(Spot, Vec<Node>)> {
        self.must_have(key);
        self.list(key)
    }

    /// One text out of a list.
    pub(crate) fn item_text(&self, key: &str, node: Node) -> Option<Located<String>> {
        self.as_text(key, node)
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, key: &'static str) -> Option<Vec<Located<String>>> {
        let (_, items) = self.list(key)?;
        Some(items.into_iter().filter_map(|item| self.as_text(key, item)).collect())
    }

    /// A section within this one; an empty one where the key is not there.
    pub(crate) fn section(&mut self, key: &'static str) -> Section<'r> {
        let name = self.full(key);
        let node =
            self.take(key).unwrap_or(Node { value: Value::Map(Vec::new()), spot: self.spot });
        self.reader.section(node, &name)
    }

    /// A section that may be absent.
    pub(crate) fn optional_section(&mut self, key: &'static str) -> Option<Section<'r>> {
        let name = self.full(key);
        self.take(key).map(|node| self.reader.section(node, &name))
    }

    /// All keys with their values, for sections whose keys the operator chooses.
    pub(crate) fn entries(&mut self) -> Vec<(Key, Node)> {
        std::mem::take(&mut self.entries)
    }

    /// Ends the reading of a section of which only a part is understood.
    pub(crate) fn give_up(mut self) {
        self.entries.clear();
        self.missing.clear();
    }

    /// Ends the reading: what nobody asked for is unknown, and what must be there is missed.
    pub(crate) fn finish(mut self) {
        for (key, _) in std::mem::take(&mut self.entries) {
            let hint = match nearest(&key.name, self.asked.iter().copied()) {
                Some(known) => {
                    self.missing.retain(|missing| *missing != known);
                    format!("did you mean `{known}`?")
                }
                None => format!("known here: {}", self.asked.join(", ")),
            };
            let what = format!("unknown key `{}`", self.full(&key.name).escape_debug());
            self.reader.at(key.spot, what, hint);
        }
        for key in &self.missing {
            self.reader.at(
                self.spot,
                format!("`{}` is missing", self.full(key)),
                format!("add `{key}:`"),
            );
        }
    }
}

/// "did you mean" where a word is near, and the whole list where none is.
pub(crate) fn one_of(word: &str, words: &[&str]) -> String {
    match nearest(word, words.iter().copied()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("one of: {}", words.join(", ")),
    }
}
