//! What is taken out of records before they are kept, and what is added to events on the host:
//! `redact`, `pseudonym_key_file`, `geoip`.
//!
//! Names of fields and patterns are known to the parsers: whether they exist is found when the rule
//! packs are loaded, at the place where they were written.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::place::Located;
use crate::secret::file_or_credential;
use crate::section::Section;
use crate::tree::Value;
use crate::units::Period;

/// What is redacted in a source's records, beside what is by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedactConfig {
    /// Nothing at all: secrets are kept and sent as the records show them.
    Off,
    /// The built-in patterns, and these; of two for one thing the later one holds.
    Rules(Vec<RedactRuleConfig>),
}

impl Default for RedactConfig {
    fn default() -> Self {
        Self::Rules(Vec::new())
    }
}

impl Serialize for RedactConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::Rules(rules) => rules.serialize(serializer),
        }
    }
}

/// One rule: fields, built-in patterns, or a pattern of one's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RedactRuleConfig {
    /// Fields of the event: `actor.name`, `details.password`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Located<String>>,
    /// Built-in patterns: `card_numbers`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<Located<String>>,
    /// A regular expression; its group `secret`, or all that it matches, is redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<Located<String>>,
    /// Its word for tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Located<String>>,
    /// `keep`, `mask`, `pseudonym`, `remove`.
    pub action: Located<String>,
}

/// MaxMind databases of the operator's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GeoipConfig {
    /// Of cities, or of countries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city_file: Option<Located<PathBuf>>,
    /// Of autonomous systems.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn_file: Option<Located<PathBuf>>,
}

/// Which records of a file are joined to one event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// None: every record is an event.
    #[default]
    None,
    /// Records of the Linux audit system of one serial number.
    Auditd,
    /// The same, and every record is an event too.
    AuditdBoth,
}

/// How long a joined event may wait for its last records.
pub(super) const JOIN_TIMEOUT: Period = Period::seconds(2);

pub(super) fn redact(item: &mut Section<'_>) -> RedactConfig {
    let Some(node) = item.take("redact") else { return RedactConfig::default() };
    match node.value {
        Value::Text(word) if word == "off" => RedactConfig::Off,
        Value::List(nodes) => {
            let rules = nodes.into_iter().filter_map(|node| {
                let mut section = item.reader().section(node, "sources[].redact[]");
                let rule = rule(&mut section);
                section.finish();
                rule
            });
            RedactConfig::Rules(rules.collect())
        }
        other => {
            let what =
                format!("`sources[].redact` must be `off` or a list, found {}", other.describe());
            let hint = "write a list of rules: [{ fields: [actor.name], action: pseudonym }]";
            item.reader().at(node.spot, what, hint);
            RedactConfig::default()
        }
    }
}

fn rule(section: &mut Section<'_>) -> Option<RedactRuleConfig> {
    let spot = section.spot();
    let fields = section.texts("fields").unwrap_or_default();
    let patterns = section.texts("patterns").unwrap_or_default();
    let regex = section.text("regex");
    let name = section.text("name");
    let action = section.need_text("action")?;
    if fields.is_empty() && patterns.is_empty() && regex.is_none() {
        section.reader().at(
            spot,
            "a rule of `sources[].redact` that names nothing",
            "add `fields: […]`, `patterns: […]`, or `name:` and `regex:`",
        );
        return None;
    }
    if regex.is_some() != name.is_some() {
        section.reader().at(
            spot,
            "`regex` and `name` of `sources[].redact` go together",
            "name the pattern with one word: it stands in the tags of events",
        );
        return None;
    }
    Some(RedactRuleConfig { fields, patterns, regex, name, action })
}

pub(super) fn geoip(mut section: Section<'_>, credentials: Option<&Path>) -> GeoipConfig {
    let geoip = GeoipConfig {
        city_file: file_or_credential(&mut section, "city_file", credentials),
        asn_file: file_or_credential(&mut section, "asn_file", credentials),
    };
    section.finish();
    geoip
}

pub(super) fn join(item: &mut Section<'_>) -> (Join, Period) {
    let words = [("none", Join::None), ("auditd", Join::Auditd), ("auditd_both", Join::AuditdBoth)];
    (
        item.choice("join", &words).unwrap_or_default(),
        item.period("join_timeout", Period::from_millis(100)..=Period::seconds(60))
            .unwrap_or(JOIN_TIMEOUT),
    )
}
