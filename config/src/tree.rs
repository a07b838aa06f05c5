//! YAML to a tree that knows where each of its values was written.
//!
//! The reader of a section asks this tree for its keys, so that unknown keys, wrong types and values that are checked much
//! later all have a line and a column, and so that one run reports every problem of a file and not only the first.
//!
//! Limits: a file of at most 1 MiB, 100,000 nodes, 32 levels; a key must not be there twice; one document.

use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_yaml::{DefaultMessageFormatter, Location, MessageFormatter, Spanned};

/// The largest configuration file, in bytes. Far more than anyone writes by hand; it bounds the tree.
pub(crate) const MAX_FILE_BYTES: usize = 1 << 20;

/// Line and column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl Spot {
    /// Where a file begins: the place of what is missing from it.
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    fn of(location: Location) -> Self {
        if location == Location::UNKNOWN {
            return Self::START;
        }
        Self { line: location.line(), column: location.column() }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) spot: Spot,
}

/// A key and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) spot: Spot,
}

/// What YAML can say.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

impl Value {
    /// How an error calls it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Int(value) => format!("the number {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Text(value) if value.chars().count() <= 60 => {
                format!("the text `{}`", value.escape_debug())
            }
            Self::Text(_) => "a long text".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a section with keys".to_owned(),
        }
    }
}

/// A text that is not YAML, or not YAML that a configuration may be.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) spot: Spot,
    pub(crate) what: String,
    pub(crate) hint: String,
}

/// Parses one document. An empty file is `Null`.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let options = serde_yaml::options! {
        strict_booleans: true,
        with_snippet: false,
        budget: serde_yaml::budget! { max_depth: 32, max_nodes: 100_000, max_documents: 1 },
    };
    if text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Node { value: Value::Null, spot: Spot::START });
    }
    serde_yaml::from_str_with_options(text, options).map_err(|error| syntax_error(&error))
}

fn syntax_error(error: &serde_yaml::Error) -> SyntaxError {
    let error = error.without_snippet();
    let spot = error.location().map_or(Spot::START, Spot::of);
    let (what, hint) = match error {
        serde_yaml::Error::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("the key `{key}` is there twice"), "keep one of the two".to_owned())
        }
        serde_yaml::Error::MultipleDocuments { .. } => (
            "the file holds more than one YAML document".to_owned(),
            "remove the `---` line and what follows it".to_owned(),
        ),
        serde_yaml::Error::Budget { .. } => (
            "the file is too deeply nested or too large".to_owned(),
            "at most 32 levels and 100,000 values are read".to_owned(),
        ),
        other => (
            format!("not valid YAML: {}", one_line(&DefaultMessageFormatter.format_message(other))),
            "look at the indentation (spaces, never tabs), at quotes and at brackets on this line and the one above".to_owned(),
        ),
    };
    SyntaxError { spot, what, hint }
}

/// Without control characters: the text quotes the file.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { value: spanned.value, spot: Spot::of(spanned.referenced) })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { name: spanned.value, spot: Spot::of(spanned.referenced) })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(i128::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(i128::from(value)))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Int(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Key>()? {
            entries.push((key, map.next_value::<Node>()?));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line_and_column() {
        let tree = parse("a: 1\nb:\n  - x\n  - { c: [true, 400d] }\n").expect("valid");
        let Value::Map(entries) = &tree.value else { panic!("a map") };
        assert_eq!(entries[1].0.spot, Spot { line: 2, column: 1 });
        let Value::List(items) = &entries[1].1.value else { panic!("a list") };
        assert_eq!(items[0].spot, Spot { line: 3, column: 5 });
        let Value::Map(inner) = &items[1].value else { panic!("a map") };
        let Value::List(deep) = &inner[0].1.value else { panic!("a list") };
        assert_eq!(deep[1].spot, Spot { line: 4, column: 17 });
        assert!(matches!(&deep[1].value, Value::Text(text) if text == "400d"));
        assert!(matches!(deep[0].value, Value::Bool(true)));
    }

    #[test]
    fn words_that_yaml_1_1_took_for_booleans_stay_words() {
        let tree = parse("[on, off, yes, no]").expect("valid");
        let Value::List(items) = tree.value else { panic!("a list") };
        assert!(items.iter().all(|item| matches!(item.value, Value::Text(_))));
    }

    #[test]
    fn an_alias_bomb_is_refused_and_not_expanded() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let before = n - 1;
            let aliases = vec![format!("*a{before}"); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
        }
        assert!(parse(&text).is_err());
    }

    #[test]
    fn an_empty_file_and_one_of_comments_are_nothing() {
        for text in ["", "\n\n", "# only a comment\n   # another\n"] {
            assert!(matches!(parse(text).expect("valid").value, Value::Null), "{text:?}");
        }
    }
}
