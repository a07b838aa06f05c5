//! The second oracle: what a search finds.

use std::time::Duration;

use serde_json::Value;

use crate::collector::Collector;
use crate::http::encoded;
use crate::logfile::{LogFile, number_in, word};
use crate::wait::until;

const PAGE: usize = 1000;

/// All events that a search line finds, by paging.
///
/// # Panics
/// An answer is not a page.
#[must_use]
pub fn all(collector: &Collector, line: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut path = format!("/v1/events?q={}&limit={PAGE}", encoded(line));
        if let Some(cursor) = &cursor {
            path.push_str(&format!("&cursor={}", encoded(cursor)));
        }
        let mut page = collector.get(&path);
        let Value::Array(found) = page["events"].take() else { panic!("{path}: {page}") };
        assert!(found.len() <= PAGE, "{path}: a page of {}", found.len());
        events.extend(found);
        match page["next_cursor"].take() {
            Value::String(next) => {
                assert_ne!(Some(&next), cursor.as_ref(), "{path}: the cursor stands still");
                cursor = Some(next);
            }
            _ => return events,
        }
    }
}

/// What a search line finds as soon as it finds `count` events or more.
///
/// # Panics
/// It does not within `patience`.
#[must_use]
pub fn wait_for(collector: &Collector, line: &str, count: usize, patience: Duration) -> Vec<Value> {
    let mut last = 0;
    let found = crate::wait::eventually(patience, || {
        let found = all(collector, line);
        last = found.len();
        (found.len() >= count).then_some(found)
    });
    found.unwrap_or_else(|| panic!("{line:?} finds {last} of {count} events"))
}

/// The numbers of the lines that a search finds, ascending.
#[must_use]
pub fn numbers(collector: &Collector, line: &str) -> Vec<u64> {
    let mut numbers: Vec<u64> = all(collector, line)
        .iter()
        .map(|event| number_in(event["origin"]["raw"].as_str().unwrap().as_bytes()).unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Waits until the index has caught up with the evidence: the newest line is found.
///
/// # Panics
/// It does not within `patience`.
pub fn wait_for_line(collector: &Collector, number: u64, patience: Duration) {
    // The search itself is an event that names the word; it is not of this input.
    let line = format!("input:app {}", word(number));
    let path = format!("/v1/events?q={}&limit=2", encoded(&line));
    until(&format!("line {number} can be found"), patience, || {
        let answer = collector.try_get(&path).ok().filter(|answer| answer.status == 200)?;
        (!answer.json()["events"].as_array()?.is_empty()).then_some(())
    });
}

/// A search finds every line of the log exactly once, and the first, a middle and the last one by
/// their words.
///
/// # Panics
/// With what it does not find, or finds twice.
pub fn expect_exactly_once(collector: &Collector, log: &LogFile, patience: Duration) {
    let last = log.written() - 1;
    for number in [0, last / 2, last] {
        wait_for_line(collector, number, patience);
        let found = numbers(collector, &format!("input:app {}", word(number)));
        assert_eq!(found, [number], "a search for {}", word(number));
    }
    let found = numbers(collector, "input:app");
    let wrong = found.iter().zip(0..).find(|(number, expected)| **number != *expected);
    assert!(
        wrong.is_none() && found.len() as u64 == log.written(),
        "{} of {} lines found; the first wrong place (found, expected): {wrong:?}",
        found.len(),
        log.written()
    );
}
