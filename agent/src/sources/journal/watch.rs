//! The watcher: no call of the journal's library hangs unseen.
//!
//! A call cannot be ended from outside, but it can be told: as trouble in `status` and, once, as an
//! error in the log. Nothing is lost by it: the marks are durable, and a restart goes on there.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use custody_config::shell::StopToken;
use custody_event::Clock;
use custody_journal::Pulse;

use crate::sources::SharedSourceState;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the watcher and the reader share.
pub(super) struct Watched {
    pulse: Arc<Pulse>,
    done: StopToken,
    patience: Duration,
    clock: Arc<dyn Clock>,
}

impl Watched {
    pub(super) fn new(patience: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { pulse: Arc::default(), done: StopToken::new(), patience, clock }
    }

    pub(super) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Watching ends when this value does.
    pub(super) fn until_dropped(&self) -> impl Drop + '_ {
        struct Guard<'a>(&'a StopToken);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.stop();
            }
        }
        Guard(&self.done)
    }

    /// Watches until the reader has ended.
    pub(super) fn run(&self, state: &SharedSourceState) {
        let mut look =
            Look { beats: self.pulse.beats(), since: self.clock.monotonic(), told: false };
        while !self.done.wait_timeout(LOOK_EVERY) {
            match look.at(self.pulse.beats(), self.clock.monotonic(), self.patience) {
                Seen::Hangs(for_s) => {
                    let text = hang(for_s);
                    log::error!("{text}");
                    say(state, Some(text));
                }
                Seen::GoesOn => {
                    log::info!("the journal answers again");
                    say(state, None);
                }
                Seen::Nothing => {}
            }
        }
    }
}

fn hang(for_s: u64) -> String {
    format!(
        "the journal's reader has not come back for {for_s} s; nothing is lost by it; look for a damaged file with `journalctl --verify` or a disk that does not answer, and restart the agent, or set `via: journalctl`, which can be ended"
    )
}

fn say(state: &SharedSourceState, trouble: Option<String>) {
    state.lock().unwrap_or_else(PoisonError::into_inner).trouble = trouble;
}

/// What a look shows.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// A call has been under way for so many seconds: told once.
    Hangs(u64),
    GoesOn,
}

/// The last looks.
struct Look {
    beats: u64,
    since: Duration,
    told: bool,
}

impl Look {
    fn at(&mut self, beats: u64, now: Duration, patience: Duration) -> Seen {
        let is_in_a_call = beats % 2 == 1;
        if beats != self.beats || !is_in_a_call {
            (self.beats, self.since) = (beats, now);
            return if std::mem::take(&mut self.told) { Seen::GoesOn } else { Seen::Nothing };
        }
        let waited = now.saturating_sub(self.since);
        if waited < patience || self.told {
            return Seen::Nothing;
        }
        self.told = true;
        Seen::Hangs(waited.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_does_not_come_back_is_told_once_and_its_return_too() {
        let mut look = Look { beats: 0, since: Duration::ZERO, told: false };
        let mut at = |beats, s| look.at(beats, Duration::from_secs(s), Duration::from_secs(30));
        assert_eq!(at(1, 1), Seen::Nothing);
        assert_eq!(at(1, 30), Seen::Nothing);
        assert_eq!(at(1, 31), Seen::Hangs(30));
        assert_eq!(at(1, 90), Seen::Nothing);
        assert_eq!(at(2, 91), Seen::GoesOn);
        // Nothing to do, for however long, is no hang; nor are many calls.
        assert_eq!(at(2, 500), Seen::Nothing);
        for call in 3..100 {
            assert_eq!(at(call, 500 + call * 20), Seen::Nothing);
        }
    }
}
