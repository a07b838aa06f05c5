//! Counts what is said again and again.

use std::collections::HashMap;
use std::time::Duration;

use log::{Level, Record};

use super::{BURST, WINDOW};

/// Different messages that are watched at once. One more is said without a limit: messages are constants, so there are few.
const MAX_WATCHED: usize = 256;
/// A longer message is watched by its beginning, in bytes.
const MAX_MESSAGE_BYTES: usize = 512;

#[derive(Default)]
pub(super) struct Repeats {
    seen: HashMap<Key, Window>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    level: Level,
    target: String,
    message: String,
}

struct Window {
    began: Duration,
    said: u32,
    held_back: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Say,
    HoldBack,
}

/// What was held back of one message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) level: Level,
    pub(super) target: String,
    pub(super) message: String,
    pub(super) count: u64,
}

impl Repeats {
    /// Whether this record, at the monotonic time `now`, is said. [`Repeats::over`] must be asked after it.
    pub(super) fn note(&mut self, record: &Record<'_>, now: Duration) -> Verdict {
        let mut message = record.args().to_string();
        if message.len() > MAX_MESSAGE_BYTES {
            let cut =
                (0..=MAX_MESSAGE_BYTES).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(cut);
        }
        let key = Key { level: record.level(), target: record.target().to_owned(), message };
        let Some(window) = self.seen.get_mut(&key) else {
            if self.seen.len() < MAX_WATCHED {
                self.seen.insert(key, Window { began: now, said: 1, held_back: 0 });
            }
            return Verdict::Say;
        };
        if window.said < BURST || now.saturating_sub(window.began) >= WINDOW {
            window.said = window.said.saturating_add(1);
            return Verdict::Say;
        }
        window.held_back += 1;
        Verdict::HoldBack
    }

    /// What was held back in windows that are over; they begin anew with the next record.
    pub(super) fn over(&mut self, now: Duration) -> Vec<Summary> {
        self.take(|window| now.saturating_sub(window.began) >= WINDOW)
    }

    /// All that was held back.
    pub(super) fn all(&mut self) -> Vec<Summary> {
        self.take(|_| true)
    }

    fn take(&mut self, end: impl Fn(&Window) -> bool) -> Vec<Summary> {
        let mut summaries = Vec::new();
        self.seen.retain(|key, window| {
            if !end(window) {
                return true;
            }
            if window.held_back > 0 {
                summaries.push(Summary {
                    level: key.level,
                    target: key.target.clone(),
                    message: key.message.clone(),
                    count: window.held_back,
                });
            }
            false
        });
        summaries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(repeats: &mut Repeats, message: &str, seconds: u64) -> Verdict {
        let now = Duration::from_secs(seconds);
        repeats.note(
            &Record::builder()
                .level(Level::Warn)
                .target("custody")
                .args(format_args!("{message}"))
                .build(),
            now,
        )
    }

    #[test]
    fn a_flood_is_said_a_few_times_and_then_counted() {
        let mut repeats = Repeats::default();
        let said = (0..1000)
            .filter(|n| note(&mut repeats, "spool is full", n / 100) == Verdict::Say)
            .count();
        assert_eq!(said, 5);
        assert_eq!(note(&mut repeats, "another", 9), Verdict::Say);
        assert!(repeats.over(Duration::from_secs(59)).is_empty());
        let summaries = repeats.over(Duration::from_secs(60));
        assert_eq!(summaries.len(), 1);
        assert_eq!((summaries[0].count, summaries[0].message.as_str()), (995, "spool is full"));
        assert_eq!(note(&mut repeats, "spool is full", 61), Verdict::Say);
    }

    #[test]
    fn what_is_held_back_at_the_end_is_not_forgotten() {
        let mut repeats = Repeats::default();
        for _ in 0..7 {
            note(&mut repeats, "x", 0);
        }
        assert_eq!(repeats.all()[0].count, 2);
        assert!(repeats.all().is_empty());
    }

    #[test]
    fn a_flood_of_different_messages_does_not_grow_the_memory() {
        let mut repeats = Repeats::default();
        for n in 0..10_000 {
            assert_eq!(note(&mut repeats, &format!("{n} {}", "é".repeat(1000)), 0), Verdict::Say);
        }
        assert!(repeats.seen.len() <= MAX_WATCHED);
    }
}
