//! `redact:` of a pack.

use serde_yaml::Location;

use super::Loader;
use crate::error::hint;
use crate::redact::{FieldRule, RedactAction, RedactRule, RedactWhat, check, field_rule};
use crate::yaml::RawRedact;

impl Loader<'_> {
    /// A pack's patterns, and its fields.
    pub(super) fn redact(&mut self, raw: &[RawRedact]) -> (Vec<RedactRule>, Vec<FieldRule>) {
        let (mut rules, mut fields) = (Vec::new(), Vec::new());
        for raw in raw {
            let at = raw.action.referenced;
            let Some(action) = RedactAction::from_name(&raw.action.value)
                .filter(|action| *action != RedactAction::Keep)
            else {
                let hint = hint(&raw.action.value, &["mask", "pseudonym", "remove"]);
                self.error(at, format!("`{}` is no action", raw.action.value), hint);
                continue;
            };
            match (&raw.fields, &raw.regex, &raw.name) {
                (Some(names), None, None) => {
                    for name in self.texts(Some(names)) {
                        match field_rule(&name, action) {
                            Ok(rule) => fields.push(rule),
                            Err(error) => self.error(names.referenced, error.to_string(), None),
                        }
                    }
                }
                (None, Some(regex), Some(name)) => {
                    let what =
                        RedactWhat::Own { name: name.value.clone(), regex: regex.value.clone() };
                    self.own_pattern(regex.referenced, RedactRule { what, action }, &mut rules);
                }
                _ => {
                    let hint = Some("`fields: […]`, or `name:` and `regex:`".to_owned());
                    self.error(at, "a rule of redaction names fields, or a pattern", hint);
                }
            }
        }
        (rules, fields)
    }

    fn own_pattern(&mut self, at: Location, rule: RedactRule, rules: &mut Vec<RedactRule>) {
        match check(&rule) {
            Ok(()) => rules.push(rule),
            Err(error) => self.error(at, error.to_string(), None),
        }
    }
}
