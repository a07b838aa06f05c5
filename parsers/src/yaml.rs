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
    pub(crate) pack: Text,
    pub(crate) version: Spanned<i64>,
    pub(crate) about: Option<String>,
    #[serde(default)]
    pub(crate) select: Option<RawSelect>,
    pub(crate) decode: Option<Spanned<Raw>>,
    #[serde(default)]
    pub(crate) json_keys: Option<Text>,
    pub(crate) keys: Option<Text>,
    pub(crate) kv: Option<Spanned<RawKv>>,
    pub(crate) csv: Option<Spanned<RawCsv>>,
    pub(crate) fan_out: Option<Text>,
    pub(crate) user_agent: Option<Text>,
    pub(crate) sentence: Option<Text>,
    #[serde(default)]
    pub(crate) redact: Vec<RawRedact>,
    #[serde(default)]
    pub(crate) networks: Pairs<Spanned<Raw>>,
    pub(crate) time: Option<RawTime>,
    #[serde(default)]
    pub(crate) maps: Pairs<Pairs<Spanned<Raw>>>,
    pub(crate) test_now: Option<Text>,
    pub(crate) rules: Spanned<Vec<RawRule>>,
}

/// One of `redact:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRedact {
    pub(crate) fields: Option<Spanned<Raw>>,
    pub(crate) regex: Option<Text>,
    pub(crate) name: Option<Text>,
    pub(crate) action: Text,
}

/// `kv:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawKv {
    pub(crate) pairs: Option<Text>,
    pub(crate) equals: Option<Text>,
    pub(crate) quotes: Option<Spanned<Raw>>,
    #[serde(default)]
    pub(crate) spaces: bool,
}

/// `csv:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCsv {
    pub(crate) columns: Spanned<Raw>,
    pub(crate) delimiter: Option<Text>,
}

/// `select:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawSelect {
    pub(crate) service: Option<Spanned<Raw>>,
    pub(crate) path: Option<Spanned<Raw>>,
    pub(crate) unit: Option<Spanned<Raw>>,
    pub(crate) endpoint: Option<Spanned<Raw>>,
}

/// `time:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTime {
    pub(crate) field: Spanned<Raw>,
    pub(crate) formats: Option<Spanned<Raw>>,
}

/// One of `rules:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRule {
    pub(crate) id: Text,
    #[serde(rename = "match")]
    pub(crate) pattern: Option<Text>,
    pub(crate) on: Option<Text>,
    #[serde(default)]
    pub(crate) when: Pairs<Spanned<Raw>>,
    #[serde(default)]
    pub(crate) event: Pairs<Spanned<Raw>>,
    #[serde(default)]
    pub(crate) map: Pairs<Spanned<Raw>>,
    pub(crate) drop: Option<Text>,
    pub(crate) time: Option<RawTime>,
    #[serde(default)]
    pub(crate) tests: Vec<Spanned<RawTest>>,
}

/// One of a rule's `tests:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTest {
    pub(crate) record: String,
    pub(crate) path: Option<String>,
    pub(crate) unit: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) now: Option<Text>,
    pub(crate) zone: Option<Text>,
    #[serde(default)]
    pub(crate) event: Pairs<Spanned<Raw>>,
    #[serde(default)]
    pub(crate) unmatched: bool,
    pub(crate) dropped: Option<String>,
}
