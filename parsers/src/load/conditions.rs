//! `when:` and `networks:` of a pack.

use serde_yaml::{Location, Spanned};

use super::{Loader, plain};
use crate::error::hint;
use crate::pack::{Case, Map};
use crate::when::{self, Condition, Network, Tree};
use crate::yaml::{Pairs, Raw, RawPack, Text, listed};

impl Loader<'_> {
    /// The tests of a rule.
    pub(super) fn when(&mut self, raw: &Pairs<Spanned<Raw>>) -> Vec<Tree> {
        let mut left = when::MAX_TESTS;
        raw.0.iter().filter_map(|(name, test)| self.tree(name, test, 0, &mut left)).collect()
    }

    fn tree(
        &mut self,
        name: &Text,
        raw: &Spanned<Raw>,
        depth: usize,
        left: &mut usize,
    ) -> Option<Tree> {
        if *left == 0 || depth >= when::MAX_DEPTH {
            let (tests, deep) = (when::MAX_TESTS, when::MAX_DEPTH);
            let hint = Some(format!("at most {tests} tests in a rule, trees {deep} deep"));
            self.error(name.referenced, "too many tests in one another", hint);
            return None;
        }
        let kind = name.value.as_str();
        if !when::TREES.contains(&kind) {
            *left -= 1;
            return self.condition(name, raw).map(Tree::Test);
        }
        let mut trees = Vec::new();
        for item in listed(raw) {
            let Raw::Map(pairs) = &item.value else {
                let hint = Some(format!("{kind}: [{{ name: value }}, …]"));
                self.error(item.referenced, format!("tests are needed under `{kind}`"), hint);
                return None;
            };
            let all: Vec<Tree> = pairs
                .0
                .iter()
                .filter_map(|(name, test)| self.tree(name, test, depth + 1, left))
                .collect();
            trees.push(Tree::All(all));
        }
        if trees.is_empty() {
            self.error(raw.referenced, format!("no tests under `{kind}`"), None);
            return None;
        }
        Some(match kind {
            "any" => Tree::Any(trees),
            "not" => Tree::Not(trees),
            _ => Tree::All(trees),
        })
    }

    fn condition(&mut self, name: &Text, raw: &Spanned<Raw>) -> Option<Condition> {
        let source = self.source(name.value.trim_start_matches('$'), name.referenced)?;
        let (test, negated) = self.test_of(raw)?;
        Some(Condition { source, test, negated })
    }

    fn test_of(&mut self, raw: &Spanned<Raw>) -> Option<(when::Test, bool)> {
        let at = raw.referenced;
        let (name, value) = match &raw.value {
            Raw::Map(pairs) => match pairs.0.as_slice() {
                [(name, value)] => (name, value),
                _ => {
                    self.error(at, "exactly one test is needed here", None);
                    return None;
                }
            },
            Raw::List(_) => return Some((when::Test::In(self.boxed(raw)), false)),
            value => match plain(value) {
                Some(text) => return Some((when::Test::Equals(text.into()), false)),
                None => {
                    self.error(at, "a text, a list, or a test", None);
                    return None;
                }
            },
        };
        if name.value == "not" {
            return self.test_of(value).map(|(test, negated)| (test, !negated));
        }
        let text = || plain(&value.value).map(String::into_boxed_str);
        let test = match name.value.as_str() {
            "equals" => text().map(when::Test::Equals),
            "prefix" => text().map(when::Test::Prefix),
            "suffix" => text().map(when::Test::Suffix),
            "contains" => text().map(when::Test::Contains),
            "in" => Some(when::Test::In(self.boxed(value))),
            "exists" => match value.value {
                Raw::Bool(wanted) => Some(when::Test::Exists(wanted)),
                _ => None,
            },
            "regex" => return self.regex(value).map(|test| (test, false)),
            "cidr" => return self.networks(value).map(|test| (test, false)),
            other => {
                let hint = hint(other, when::Test::NAMES);
                self.error(name.referenced, format!("unknown test `{other}`"), hint);
                return None;
            }
        };
        if test.is_none() {
            self.error(value.referenced, format!("no value for the test `{}`", name.value), None);
        }
        test.map(|test| (test, false))
    }

    fn boxed(&mut self, raw: &Spanned<Raw>) -> Vec<Box<str>> {
        self.texts(Some(raw)).into_iter().map(String::into_boxed_str).collect()
    }

    fn regex(&mut self, raw: &Spanned<Raw>) -> Option<when::Test> {
        let Raw::Text(text) = &raw.value else {
            self.error(raw.referenced, "a pattern is a text", None);
            return None;
        };
        let spanned =
            Text { value: text.clone(), referenced: raw.referenced, defined: raw.defined };
        self.pattern(&spanned)?;
        match regex_automata::meta::Regex::new(text) {
            Ok(regex) => Some(when::Test::Regex(Box::new(regex))),
            Err(error) => {
                self.error(raw.referenced, format!("bad pattern: {error}"), None);
                None
            }
        }
    }

    /// Networks, or names of the pack's own.
    fn networks(&mut self, raw: &Spanned<Raw>) -> Option<when::Test> {
        let mut networks = Vec::new();
        for text in self.texts(Some(raw)) {
            if let Some((_, known)) = self.networks.iter().find(|(name, _)| *name == text) {
                networks.extend_from_slice(known);
                continue;
            }
            networks.push(self.network(&text, raw.referenced)?);
        }
        Some(when::Test::Cidr(networks))
    }

    fn network(&mut self, text: &str, at: Location) -> Option<Network> {
        let found = Network::parse(text);
        if found.is_none() {
            let hint = Some("write it as 203.0.113.0/24, or name one of `networks:`".to_owned());
            self.error(at, format!("`{text}` is no network"), hint);
        }
        found
    }

    /// Reads `networks:`.
    pub(super) fn network_table(&mut self, raw: &RawPack) {
        if let Some((name, _)) = raw.maps.0.iter().find(|(name, _)| name.value == "networks") {
            let hint = Some("`map: { field: networks }` is the table `networks:`".to_owned());
            self.error(name.referenced, "a map called `networks`", hint);
        }
        for (name, list) in &raw.networks.0 {
            let mut networks = Vec::new();
            for text in self.texts(Some(list)) {
                networks.extend(self.network(&text, list.referenced));
            }
            self.networks.push((name.value.clone(), networks));
        }
    }

    /// The table as a map from an address to the name of its network.
    pub(super) fn network_map(&mut self, at: Location) -> Map {
        if self.networks.is_empty() {
            self.error(at, "no `networks:` in this pack", None);
        }
        let cases = self
            .networks
            .iter()
            .map(|(name, networks)| (Case::In(networks.clone()), Some(name.as_str().into())));
        Map(cases.chain([(Case::Any, None)]).collect())
    }
}
