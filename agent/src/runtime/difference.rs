//! What a reload changes, key by key: the event about it says what was and what is.
//!
//! Compared is the configuration with every default written out, and the own rule packs by the SHA-256 of their text. Secrets
//! are named by file in a configuration, so none can appear here. At most [`MAX_DIFFERENCES`] are told, each value cut to
//! [`MAX_VALUE_BYTES`]; the hashes cover the rest.

use std::collections::{BTreeMap, BTreeSet};

use custody_config::AgentConfig;
use custody_event::Digest;
use serde_json::Value;

use crate::pipeline::Difference;

const MAX_DIFFERENCES: usize = 100;
const MAX_VALUE_BYTES: usize = 400;

/// A configuration as flat keys and values, with the packs that it was loaded with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    keys: BTreeMap<String, String>,
    /// SHA-256 over the own packs, by name and text.
    pub(crate) packs_sha256: String,
}

impl Facts {
    /// Of a configuration and the packs in its folders as they are now.
    ///
    /// # Errors
    /// A pack cannot be read.
    pub(crate) fn of(config: &AgentConfig) -> anyhow::Result<Self> {
        let mut keys = BTreeMap::new();
        flatten(&serde_json::to_value(config)?, String::new(), &mut keys);
        let mut all = Vec::new();
        for pack in super::build::own_packs(config)? {
            let hash = Digest::of(pack.text.as_bytes()).to_hex();
            for part in [pack.name.as_str(), "\n", &hash, "\n"] {
                all.extend_from_slice(part.as_bytes());
            }
            keys.insert(format!("pack {}", pack.name), hash);
        }
        Ok(Self { keys, packs_sha256: Digest::of(&all).to_hex() })
    }

    /// What is different in `next`, by key.
    pub(crate) fn against(&self, next: &Self) -> Vec<Difference> {
        let names: BTreeSet<&String> = self.keys.keys().chain(next.keys.keys()).collect();
        let changed = names.into_iter().filter(|name| self.keys.get(*name) != next.keys.get(*name));
        changed
            .take(MAX_DIFFERENCES)
            .map(|name| Difference {
                field: name.clone(),
                before: self.keys.get(name).map(|value| cut(value)),
                after: next.keys.get(name).map(|value| cut(value)),
            })
            .collect()
    }
}

fn cut(value: &str) -> String {
    let mut end = value.len().min(MAX_VALUE_BYTES);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    value[..end].to_owned()
}

/// Lists of things with an `id` are keyed by it: a source that moves within the list has not changed.
fn flatten(value: &Value, path: String, out: &mut BTreeMap<String, String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                flatten(value, below(key), out);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.get("id").is_some()) => {
            for item in items {
                let id = item.get("id").and_then(Value::as_str).unwrap_or("?");
                flatten(item, format!("{path}[{id}]"), out);
            }
        }
        Value::Null => {}
        Value::String(text) => drop(out.insert(path, text.clone())),
        other => drop(out.insert(path, other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts(value: &Value) -> Facts {
        let mut keys = BTreeMap::new();
        flatten(value, String::new(), &mut keys);
        Facts { keys, packs_sha256: String::new() }
    }

    #[test]
    fn a_difference_names_the_key_and_both_values_and_an_order_is_none() {
        let before = facts(&json!({"sources": [
            {"id": "a", "paths": ["/x"], "start": "end"}, {"id": "b", "type": "journal"}], "host": "h"}));
        let after = facts(&json!({"sources": [
            {"id": "b", "type": "journal"}, {"id": "a", "paths": ["/x", "/y"]}], "host": "h"}));
        let shown: Vec<_> =
            before.against(&after).into_iter().map(|d| (d.field, d.before, d.after)).collect();
        let text = |value: &str| Some(value.to_owned());
        assert_eq!(
            shown,
            [
                ("sources[a].paths".into(), text(r#"["/x"]"#), text(r#"["/x","/y"]"#)),
                ("sources[a].start".into(), text("end"), None),
            ]
        );
        assert_eq!(before.against(&before), []);
    }
}
