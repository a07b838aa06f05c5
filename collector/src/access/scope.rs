//! Which events an account may see at all: by tenant, host and category.
//!
//! Each list names values; one that ends in `*` names all that begin so. An empty list sets no
//! bound. An event must fit every list that is not empty: one without a tenant does not fit a
//! list of tenants. Values are compared as searches compare them, without case.

use custody_event::EventView;
use serde::{Deserialize, Serialize};

use crate::index::terms::folded_value;
use crate::query::filter::{Expr, Pattern};
use crate::query::keys::Key;

/// Values in one list, at most.
const MAX_VALUES: usize = 64;
/// As long as a value is compared.
const MAX_VALUE_BYTES: usize = crate::index::terms::MAX_VALUE_BYTES;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    /// `tenant`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
    /// `host`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// `category`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

impl Scope {
    /// Every event.
    pub const ALL: Self = Self { tenants: Vec::new(), hosts: Vec::new(), categories: Vec::new() };

    /// Does it set no bound?
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::ALL
    }

    fn lists(&self) -> [(&'static str, &Vec<String>); 3] {
        [("tenant", &self.tenants), ("host", &self.hosts), ("category", &self.categories)]
    }

    /// Is it one that can be kept?
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self) -> Result<(), String> {
        for (name, list) in self.lists() {
            if list.len() > MAX_VALUES {
                return Err(format!("{name}: at most {MAX_VALUES} values"));
            }
            for value in list {
                let body = value.strip_suffix('*').unwrap_or(value);
                let long = value.len() > MAX_VALUE_BYTES;
                if value.is_empty() || long || value.contains(char::is_control) {
                    return Err(format!(
                        "{name}: a value is 1 to {MAX_VALUE_BYTES} bytes without control characters"
                    ));
                }
                if body.contains('*') {
                    return Err(format!("{name}: {value:?}: `*` stands at the end alone"));
                }
            }
        }
        Ok(())
    }

    /// As a condition of a search; `None` where there is no bound.
    #[must_use]
    pub fn expr(&self) -> Option<Expr> {
        let bounded = self.lists().into_iter().filter(|(_, list)| !list.is_empty());
        let all: Vec<Expr> = bounded
            .map(|(name, list)| match Key::from_name(name) {
                Some(key) => {
                    let values = list.iter().map(|text| Expr::Value(key, Pattern::wild(text)));
                    Expr::Any(values.collect())
                }
                // A bound that cannot be asked for lets nothing through.
                None => Expr::Any(Vec::new()),
            })
            .collect();
        (!all.is_empty()).then_some(Expr::All(all))
    }

    /// Is this event within it?
    #[must_use]
    pub fn sees(&self, event: &EventView<'_>) -> bool {
        let fits = |list: &[String], value: Option<&str>| {
            let value = value.filter(|value| !value.is_empty()).map(folded_value);
            let is = |text: &String| value.as_deref().is_some_and(|v| Pattern::wild(text).is(v));
            list.is_empty() || list.iter().any(is)
        };
        fits(&self.tenants, event.tenant.as_deref())
            && fits(&self.hosts, event.host.as_deref())
            && fits(&self.categories, event.category.as_deref())
    }

    /// Does it let through nothing that `other` does not?
    #[must_use]
    pub fn within(&self, other: &Self) -> bool {
        self.lists().iter().zip(other.lists()).all(|((_, mine), (_, theirs))| {
            theirs.is_empty()
                || !mine.is_empty()
                    && mine.iter().all(|value| theirs.iter().any(|bound| covers(bound, value)))
        })
    }
}

/// Does every value that `value` names stand under `bound`?
fn covers(bound: &str, value: &str) -> bool {
    let (bound, value) = (folded_value(bound), folded_value(value));
    match bound.strip_suffix('*') {
        Some(start) => value.strip_suffix('*').unwrap_or(&value).starts_with(start),
        None => bound == value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(list: &[&str]) -> Scope {
        Scope { tenants: list.iter().map(|text| (*text).to_owned()).collect(), ..Scope::ALL }
    }

    #[test]
    fn a_scope_within_another_is_never_wider() {
        for (inner, outer, within) in [
            (tenants(&["acme"]), Scope::ALL, true),
            (Scope::ALL, tenants(&["acme"]), false),
            (tenants(&["acme"]), tenants(&["acme", "other"]), true),
            (tenants(&["ACME"]), tenants(&["acme"]), true),
            (tenants(&["acme*"]), tenants(&["acme"]), false),
            (tenants(&["acme-eu"]), tenants(&["acme*"]), true),
            (tenants(&["acme-*"]), tenants(&["acme*"]), true),
            (tenants(&["a*"]), tenants(&["acme*"]), false),
            (tenants(&["*"]), tenants(&["acme*"]), false),
            (tenants(&["acme", "x"]), tenants(&["acme*"]), false),
        ] {
            assert_eq!(inner.within(&outer), within, "{inner:?} within {outer:?}");
        }
        let hosts = Scope { hosts: vec!["web1".into()], ..Scope::ALL };
        assert!(!hosts.within(&tenants(&["acme"])), "another bound is not this bound");
    }

    #[test]
    fn stars_within_and_empty_values_are_refused() {
        for bad in ["", "a*b", "**", "a\n"] {
            assert!(tenants(&[bad]).check().is_err(), "{bad:?}");
        }
        tenants(&["acme", "acme*", "*"]).check().unwrap();
        assert!(tenants(&["x"; 65]).check().is_err());
    }
}
