//! How long an event is kept.
//!
//! **Age** counts from the receipt: the collector's own clock, written into the frame. A sender can
//! write any time into an event; by that it could make evidence expire at once, or never.
//!
//! **Class.** An event may belong to several classes; the one that keeps it longest decides, and the
//! default only where it belongs to none. So the order of the classes means nothing, and no class
//! that is added can shorten what another one promises. An event that cannot be read is kept as
//! long as the longest.

use custody_config::Keep;
use custody_config::collector::{RetentionClass, RetentionConfig};
use custody_event::{Digest, EventView, Timestamp};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    default: Keep,
    classes: Vec<RetentionClass>,
}

impl Policy {
    /// What the configuration says; its floor was enforced when it was loaded.
    #[must_use]
    pub fn new(config: &RetentionConfig) -> Self {
        Self { default: config.default, classes: config.classes.clone() }
    }

    /// For how long this event is kept.
    #[must_use]
    pub fn keep(&self, event: &EventView<'_>) -> Keep {
        let classes = self.classes.iter().filter(|class| belongs(event, class));
        classes.map(|class| class.keep).max().unwrap_or(self.default)
    }

    /// Until when an event is kept that came at this time; `None`: for ever.
    #[must_use]
    pub fn until(&self, received: Timestamp, event: &[u8]) -> Option<Timestamp> {
        let keep = EventView::read(event).map_or_else(|_| self.longest(), |view| self.keep(&view));
        after(received, keep)
    }

    /// The earliest that anything may expire that came at this time.
    #[must_use]
    pub fn earliest(&self, received: Timestamp) -> Option<Timestamp> {
        let classes = self.classes.iter().map(|class| class.keep);
        after(received, classes.fold(self.default, Ord::min))
    }

    fn longest(&self) -> Keep {
        self.classes.iter().map(|class| class.keep).fold(self.default, Ord::max)
    }

    /// Changes with every change of the policy: what was worked out by another one is void.
    #[must_use]
    pub fn digest(&self) -> String {
        Digest::of(format!("{self:?}").as_bytes()).to_hex()
    }
}

fn belongs(event: &EventView<'_>, class: &RetentionClass) -> bool {
    let named = |list: &[String], value: Option<&str>| {
        list.is_empty() || value.is_some_and(|value| list.iter().any(|word| word == value))
    };
    named(&class.severity, event.severity.as_deref())
        && named(&class.category, event.category.as_deref())
        && named(&class.tenant, event.tenant.as_deref())
}

fn after(received: Timestamp, keep: Keep) -> Option<Timestamp> {
    match keep {
        Keep::Forever => None,
        Keep::For(period) => {
            let micros = i64::try_from(period.millis()).unwrap_or(i64::MAX).saturating_mul(1_000);
            Some(received.plus_micros(micros))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_config::Period;
    use proptest::prelude::*;

    const WORDS: [&str; 3] = ["one", "two", "three"];

    fn class() -> impl Strategy<Value = RetentionClass> {
        let words = || {
            proptest::sample::subsequence(WORDS.to_vec(), 0..=2)
                .prop_map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        (words(), words(), words(), proptest::option::of(90_u32..4_000)).prop_map(
            |(severity, category, tenant, keep)| {
                let keep = keep.map_or(Keep::Forever, |days| Keep::For(Period::days(days)));
                RetentionClass { severity, category, tenant, keep }
            },
        )
    }

    fn event(words: &[Option<&str>; 3]) -> String {
        let mut event = serde_json::json!({
            "action": "a.b", "id": "00000000000000000000000000000001", "origin": {},
            "observed": "2026-01-01T00:00:00.000000Z", "time": "2026-01-01T00:00:00.000000Z", "v": 1,
        });
        for (key, word) in ["severity", "category", "tenant"].iter().zip(words) {
            if let Some(word) = word {
                event[*key] = (*word).into();
            }
        }
        event.to_string()
    }

    proptest! {
        #[test]
        fn no_class_that_is_added_shortens_a_promise_and_order_means_nothing(
            classes in proptest::collection::vec(class(), 0..6),
            more in class(),
            words in proptest::array::uniform3(proptest::option::of(proptest::sample::select(WORDS.to_vec()))),
            default in 90_u32..4_000,
        ) {
            let default = Keep::For(Period::days(default));
            let policy = Policy { default, classes: classes.clone() };
            let text = event(&words);
            let view = EventView::read(text.as_bytes()).unwrap();
            let keep = policy.keep(&view);
            // The model: said in words in the module.
            let fits = |class: &&RetentionClass| {
                let lists = [&class.severity, &class.category, &class.tenant];
                lists.iter().zip(words).all(|(list, word)| {
                    list.is_empty() || word.is_some_and(|word| list.iter().any(|w| w == word))
                })
            };
            let model = classes.iter().filter(fits).map(|class| class.keep).max();
            prop_assert_eq!(keep, model.unwrap_or(default));
            let mut turned = Policy { default, classes: classes.clone() };
            turned.classes.reverse();
            prop_assert_eq!(turned.keep(&view), keep);
            let mut wider = Policy { default, classes };
            wider.classes.push(more);
            if model.is_some() {
                prop_assert!(wider.keep(&view) >= keep);
            }
            // Nothing is looked at too late, and nothing goes before its time.
            let received = Timestamp::Y2020;
            let until = policy.until(received, text.as_bytes());
            let earliest = policy.earliest(received);
            prop_assert!(until.is_none_or(|until| earliest.is_some_and(|first| first <= until)));
            let unreadable = policy.until(received, b"no event");
            prop_assert!(unreadable.is_none_or(|last| until.is_some_and(|until| until <= last)));
        }
    }
}
