//! A pack as it stands in its file: every text with its place, nothing checked yet.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::Spanned;

/// A text and where it stands.
pub(crate) type Text = Spanned<String>;

/// A map in the order of the file, each key with its place.
#[derive(Debug, Clone)]
pub(crate) struct Pairs<V>(pub(crate) Vec<(Text, V)>);

impl<V> Default for Pairs<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for PairsVisitor<V> {
            type Value = Pairs<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor(std::marker::PhantomData))
    }
}

/// Any value.
#[derive(Debug, Clone)]
pub(crate) enum Raw {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Pairs<Spanned<Raw>>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;
        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
                Raw::deserialize(deserializer)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Int(value))
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Raw, E> {
                i64::try_from(value).map(Raw::Int).map_err(|_| E::custom("a number beyond 2^63"))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Float(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Raw, E> {
                Ok(Raw::Text(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Raw::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Raw::Map(Pairs(pairs)))
            }
        }
        deserializer.deserialize_any(RawVisitor)
    }
}

/// One value, or a list of them.
pub(crate) fn listed(raw: &Spanned<Raw>) -> Vec<&Spanned<Raw>> {
    match &raw.value {
        Raw::Null => Vec::new(),
        Raw::List(items) => items.iter().collect(),
        _ => vec![raw],
    }
}

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPack {
    /// Its name: lower-case letters, digits, `-`; as its file is called.
    pub(crate) pack: Text,
    /// From 1; stands in every event that it makes.
    pub(crate) version: Spanned<i64>,
    /// One line about it, for people.
    pub(crate) about: Option<String>,
    /// To which records it applies; to all where it is missing.
    #[serde(default)]
    pub(crate) select: Option<RawSelect>,
    /// The chain of decoders; a `?` behind one that may be missing.
    pub(crate) decode: Option<Spanned<Raw>>,
    /// The same as `keys`, for JSON.
    #[serde(default)]
    pub(crate) json_keys: Option<Text>,
    /// How keys are compared: `exact` (where it is missing), or `folded`, without regard to case, `_`, `-` and blanks.
    pub(crate) keys: Option<Text>,
    /// Settings of the decoder `kv`.
    pub(crate) kv: Option<Spanned<RawKv>>,
    /// Settings of the decoder `csv`.
    pub(crate) csv: Option<Spanned<RawCsv>>,
    /// The list each of whose elements is an event.
    pub(crate) fan_out: Option<Text>,
    /// `parse`: browser and system are read from the user agent. `keep` where it is missing.
    pub(crate) user_agent: Option<Text>,
    /// `parse`: who, from where and how it went are read from the message where the rule does not say. `keep` where it is missing.
    pub(crate) sentence: Option<Text>,
    /// What is taken out of its records.
    #[serde(default)]
    pub(crate) redact: Vec<RawRedact>,
    /// Names of networks: a list of addresses and CIDR blocks each.
    #[serde(default)]
    pub(crate) networks: Pairs<Spanned<Raw>>,
    /// Where the record's own time stands.
    pub(crate) time: Option<RawTime>,
    /// Tables that rules share: by name, text to text or to `null`.
    #[serde(default)]
    pub(crate) maps: Pairs<Pairs<Spanned<Raw>>>,
    /// The reader's clock in its tests.
    pub(crate) test_now: Option<Text>,
    /// Its rules in their order: the first that knows a record wins.
    pub(crate) rules: Spanned<Vec<RawRule>>,
}

/// One of `redact:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRedact {
    /// Fields of the pack's events.
    pub(crate) fields: Option<Spanned<Raw>>,
    /// What is looked for in every record; its group `secret`, or all that it matches.
    pub(crate) regex: Option<Text>,
    /// The word for the tag `redacted:<name>`; beside `regex`.
    pub(crate) name: Option<Text>,
    /// `mask`, `pseudonym` or `remove`.
    pub(crate) action: Text,
}

/// `kv:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawKv {
    /// What stands between pairs, 1 to 16 bytes; a blank (where it is missing) is any run of blanks.
    pub(crate) pairs: Option<Text>,
    /// What stands between key and value, 1 to 16 bytes; `=` where it is missing.
    pub(crate) equals: Option<Text>,
    /// ASCII signs that a value may stand between; `"` where it is missing.
    pub(crate) quotes: Option<Spanned<Raw>>,
    /// A bare value goes on to the next key.
    #[serde(default)]
    pub(crate) spaces: bool,
}

/// `csv:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCsv {
    /// Names of the columns, 2 to 200; `_` for one that is not wanted.
    pub(crate) columns: Spanned<Raw>,
    /// One ASCII sign, or `tab`; a comma where it is missing.
    pub(crate) delimiter: Option<Text>,
}

/// `select:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawSelect {
    /// Names of programs, exactly.
    pub(crate) service: Option<Spanned<Raw>>,
    /// Globs of the file's path: `*` any run of signs, also of `/`; `?` one.
    pub(crate) path: Option<Spanned<Raw>>,
    /// Globs of the systemd unit.
    pub(crate) unit: Option<Spanned<Raw>>,
    /// Globs of the webhook's path.
    pub(crate) endpoint: Option<Spanned<Raw>>,
}

/// `time:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTime {
    /// A name, or several: the first whose text is a time.
    pub(crate) field: Spanned<Raw>,
    /// Forms that are tried in this order; `auto` where it is missing.
    pub(crate) formats: Option<Spanned<Raw>>,
}

/// One of `rules:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRule {
    /// Its name, one of its own in the pack: lower-case letters, digits, `_`.
    pub(crate) id: Text,
    /// A regular expression; each group has a name and is used.
    #[serde(rename = "match")]
    pub(crate) pattern: Option<Text>,
    /// What the pattern is matched on; the message where it is missing.
    pub(crate) on: Option<Text>,
    /// Tests that must hold: by name, or a tree under `all`, `any`, `not`.
    #[serde(default)]
    pub(crate) when: Pairs<Spanned<Raw>>,
    /// The fields of the event: each with its value.
    #[serde(default)]
    pub(crate) event: Pairs<Spanned<Raw>>,
    /// For a field of `event` its table: the cases, or the name of one of `maps`.
    #[serde(default)]
    pub(crate) map: Pairs<Spanned<Raw>>,
    /// Instead of `event`: the record is left out, and counted under this reason.
    pub(crate) drop: Option<Text>,
    /// The record's own time, instead of the pack's.
    pub(crate) time: Option<RawTime>,
    /// Records, and what becomes of them.
    #[serde(default)]
    pub(crate) tests: Vec<Spanned<RawTest>>,
}

/// One of a rule's `tests:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTest {
    /// The record.
    pub(crate) record: String,
    /// The file that it stands in.
    pub(crate) path: Option<String>,
    /// The systemd unit that wrote it.
    pub(crate) unit: Option<String>,
    /// The program that wrote it, where the source knows it.
    pub(crate) service: Option<String>,
    /// The webhook that took it.
    pub(crate) endpoint: Option<String>,
    /// The reader's clock.
    pub(crate) now: Option<Text>,
    /// The source's zone; UTC where it is missing.
    pub(crate) zone: Option<Text>,
    /// What the event has: dotted paths, `null` for what it must not have.
    #[serde(default)]
    pub(crate) event: Pairs<Spanned<Raw>>,
    /// No rule knows it.
    #[serde(default)]
    pub(crate) unmatched: bool,
    /// The reason under which it is left out.
    pub(crate) dropped: Option<String>,
}
