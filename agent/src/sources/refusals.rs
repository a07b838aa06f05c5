//! Who was turned away, told at most once a minute for each reason and place: a scanner makes one
//! event a minute with a number in it, not a thousand events.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use custody_event::Timestamp;

use super::{Refused, SourceIndex};

/// How often the same is told.
const TELL_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Tally {
    text: String,
    peer: Option<SocketAddr>,
    count: u64,
    told: Option<Duration>,
}

/// Counts refusals. Bounded by the reasons that there are times the endpoints that are configured.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    by_reason: Mutex<HashMap<(u16, &'static str, String), Tally>>,
}

impl Refusals {
    /// Counts one.
    pub(crate) fn note(
        &self,
        source: SourceIndex,
        code: &'static str,
        text: &str,
        endpoint: &str,
        peer: Option<SocketAddr>,
    ) {
        let mut all = self.by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = all.entry((source.0, code, endpoint.to_owned())).or_insert(Tally {
            text: String::new(),
            peer: None,
            count: 0,
            told: None,
        });
        if tally.text != text {
            text.clone_into(&mut tally.text);
        }
        tally.peer = peer;
        tally.count += 1;
    }

    /// What is to be told now; all that is left where `all` is set.
    pub(crate) fn due(&self, monotonic: Duration, now: Timestamp, all: bool) -> Vec<Refused> {
        let mut tallies = self.by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        for ((source, code, endpoint), tally) in &mut *tallies {
            let waited = tally.told.is_none_or(|told| monotonic.saturating_sub(told) >= TELL_EVERY);
            if tally.count == 0 || !(all || waited) {
                continue;
            }
            tally.told = Some(monotonic);
            due.push(Refused {
                source: SourceIndex(*source),
                code,
                text: tally.text.clone(),
                endpoint: endpoint.clone(),
                peer: tally.peer,
                count: std::mem::take(&mut tally.count),
                observed: now,
            });
        }
        due
    }

    /// One that could not be told is told with the next.
    pub(crate) fn give_back(&self, refused: &Refused) {
        let mut all = self.by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (refused.source.0, refused.code, refused.endpoint.clone());
        if let Some(tally) = all.get_mut(&key) {
            tally.count += refused.count;
            tally.told = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_next_thousand_in_one_event() {
        let refusals = Refusals::default();
        let note = || refusals.note(SourceIndex(0), "bad_signature", "No.", "/x", None);
        let due = |seconds, all| {
            let told = refusals.due(Duration::from_secs(seconds), Timestamp::Y2020, all);
            told.iter().map(|refused| refused.count).collect::<Vec<_>>()
        };
        note();
        assert_eq!(due(0, false), [1]);
        (0..1000).for_each(|_| note());
        assert_eq!(due(30, false), [0; 0]);
        assert_eq!(due(60, false), [1000]);
        note();
        assert_eq!(due(61, true), [1]);
        assert_eq!(due(200, true), [0; 0]);
    }
}
