//! `map:` of a rule: cases of its own, those of one of the pack's `maps:`, or its networks.

use serde_yaml::Spanned;

use super::{Loader, plain};
use crate::error::hint;
use crate::pack::{Case, Map, Set, To};
use crate::value::Value;
use crate::yaml::{Pairs, Raw, Text};

impl Loader<'_> {
    /// Gives a map to the field that the rule sets.
    pub(super) fn map(
        &mut self,
        path: &Text,
        raw: &Spanned<Raw>,
        maps: &Pairs<Pairs<Spanned<Raw>>>,
        event: &Pairs<Spanned<Raw>>,
        sets: &mut [Set],
    ) {
        let Some(to) = self.target(path) else { return };
        let map = match &raw.value {
            Raw::Map(cases) => self.cases(&to, cases),
            Raw::Text(name) if name == "networks" => self.network_map(raw.referenced),
            Raw::Text(name) => match maps.0.iter().find(|(known, _)| known.value == *name) {
                Some((_, cases)) => self.cases(&to, cases),
                None => {
                    let names: Vec<&str> =
                        maps.0.iter().map(|(name, _)| name.value.as_str()).collect();
                    let hint = hint(name, &names);
                    return self.error(raw.referenced, format!("no map `{name}` in `maps:`"), hint);
                }
            },
            _ => return self.error(raw.referenced, "a map of cases, or the name of one", None),
        };
        match sets.iter_mut().find(|set| set.to == to) {
            Some(set) => set.map = Some(map),
            None if event.0.iter().any(|(set, _)| set.value == path.value) => {}
            None => {
                let hint = Some(format!("set `{}` in `event:`", path.value));
                self.error(path.referenced, "a map of a field that the rule does not set", hint);
            }
        }
    }

    fn cases(&mut self, to: &To, cases: &Pairs<Spanned<Raw>>) -> Map {
        let mut list = Vec::new();
        for (case, result) in &cases.0 {
            let case = match case.value.strip_suffix('*') {
                Some("") => Case::Any,
                Some(prefix) => Case::Prefix(prefix.into()),
                None => Case::Exact(case.value.as_str().into()),
            };
            let result = match &result.value {
                Raw::Null => None,
                value => match plain(value) {
                    Some(text) => {
                        if let To::Field(field) = to {
                            let value = Value::Text(text.as_str().into());
                            self.literal(*field, &value, result.referenced);
                        }
                        Some(text.into_boxed_str())
                    }
                    None => {
                        self.error(result.referenced, "a text is needed here", None);
                        None
                    }
                },
            };
            list.push((case, result));
        }
        Map(list)
    }
}
