//! `time:` of a pack and of a rule.

use serde_yaml::Spanned;

use super::{Loader, field_name, plain};
use crate::error::hint;
use crate::pack::{Format, TimeRule};
use crate::time::pattern;
use crate::value::{Source, Value};
use crate::yaml::{Raw, RawTime, listed};

impl Loader<'_> {
    /// A pack's time rule need not fit every rule: a name that this rule lacks leaves it out.
    pub(super) fn time(&mut self, raw: &RawTime, must: bool) -> Option<TimeRule> {
        let mut values = Vec::new();
        for item in listed(&raw.field) {
            let Raw::Text(text) = &item.value else {
                self.error(item.referenced, "`time.field` is a name or a list of names", None);
                return None;
            };
            let name = text.trim_start_matches('$');
            let known = field_name(name).is_some()
                || Source::from_name(name).is_some()
                || self.groups.iter().any(|group| group.as_deref() == Some(name));
            if known || must {
                values.push(Value::From(self.source(name, item.referenced)?));
            }
        }
        let formats = self.formats(raw.formats.as_ref());
        (!values.is_empty()).then_some(TimeRule { field: Value::List(values), formats })
    }

    fn formats(&mut self, raw: Option<&Spanned<Raw>>) -> Vec<Format> {
        let mut formats = Vec::new();
        for item in raw.map(listed).unwrap_or_default() {
            let text = plain(&item.value).unwrap_or_default();
            let format = if text.contains('%') {
                pattern::Pattern::parse(&text).map(Format::Pattern)
            } else {
                Format::from_name(&text).ok_or_else(|| format!("unknown time format `{text}`"))
            };
            match format {
                Ok(format) => formats.push(format),
                Err(message) => {
                    let hint = hint(&text, Format::NAMES);
                    self.error(item.referenced, message, hint);
                }
            }
        }
        if formats.is_empty() {
            formats.push(Format::Auto);
        }
        formats
    }
}
