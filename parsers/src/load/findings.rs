//! What is wrong with rules that are each well-formed: some can never be reached, or take a group
//! that nothing names.

use super::Loader;
use crate::yaml::{Raw, RawRule};

/// What decides whether a rule knows a record, in one spelling.
struct Knows<'a> {
    /// The pattern and what it is matched on; `None` knows every text.
    pattern: Option<(&'a str, &'a str)>,
    /// Matched on something that may be missing.
    on: bool,
    when: Vec<String>,
}

impl<'a> Knows<'a> {
    fn of(rule: &'a RawRule) -> Self {
        let on = rule.on.as_ref().map(|on| on.value.trim_start_matches('$'));
        let when = rule.when.0.iter().map(|(name, test)| {
            format!("{}={}", name.value.trim_start_matches('$'), spelled(&test.value))
        });
        Self {
            pattern: rule
                .pattern
                .as_ref()
                .map(|pattern| (pattern.value.as_str(), on.unwrap_or("message"))),
            on: on.is_some_and(|on| on != "message" && on != "record"),
            when: when.collect(),
        }
    }

    /// Does it know every record that the other knows?
    fn covers(&self, other: &Self) -> bool {
        let same = match self.pattern {
            None => !self.on,
            Some(_) => self.pattern == other.pattern,
        };
        same && self.when.iter().all(|test| other.when.contains(test))
    }
}

fn spelled(raw: &Raw) -> String {
    match raw {
        Raw::List(items) => {
            let items: Vec<String> = items.iter().map(|item| spelled(&item.value)).collect();
            format!("[{}]", items.join(","))
        }
        Raw::Map(pairs) => {
            let pairs: Vec<String> = pairs
                .0
                .iter()
                .map(|(key, value)| format!("{:?}:{}", key.value, spelled(&value.value)))
                .collect();
            format!("{{{}}}", pairs.join(","))
        }
        Raw::Null => "null".to_owned(),
        Raw::Bool(value) => value.to_string(),
        Raw::Int(value) => value.to_string(),
        Raw::Float(value) => value.to_string(),
        Raw::Text(text) => format!("{text:?}"),
    }
}

impl Loader<'_> {
    /// A rule behind one that knows all that it knows is never asked.
    pub(super) fn unreachable(&mut self, rules: &[RawRule]) {
        let known: Vec<Knows<'_>> = rules.iter().map(Knows::of).collect();
        for (at, later) in rules.iter().enumerate() {
            let Some(by) = known[..at].iter().position(|earlier| earlier.covers(&known[at])) else {
                continue;
            };
            let earlier = &rules[by].id.value;
            let message = format!("rule `{}` is never reached", later.id.value);
            let hint = format!("`{earlier}` before it knows every record that it knows");
            self.error(later.id.referenced, message, Some(hint));
        }
    }

    /// A group that nothing names was meant for something.
    pub(super) fn unused(&mut self, rule: &RawRule) {
        let Some(pattern) = &rule.pattern else { return };
        let names: Vec<String> = self
            .groups
            .iter()
            .zip(&self.used)
            .skip(1)
            .filter(|(name, used)| {
                !**used && name.as_ref().is_some_and(|name| !name.starts_with('_'))
            })
            .filter_map(|(name, _)| name.as_deref().map(ToOwned::to_owned))
            .collect();
        for name in names {
            let hint = Some(format!("use `${name}`, write `(?:…)`, or call it `_{name}`"));
            self.error(pattern.referenced, format!("the group `{name}` is never used"), hint);
        }
    }
}
