//! How far this host's clock and the collector's are apart, as the `Date` of each answer shows it.
//!
//! Events carry this host's time, so a clock that is wrong makes wrong evidence. Nothing waits for it to be mended: delivery
//! does not depend on clocks, and the collector notes when a block came.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use custody_event::Clock;
use reqwest::header::{DATE, HeaderMap};

/// Clocks that differ by more are told. A `Date` is whole seconds, and an answer may be under way for some.
pub const TOLD_SECONDS: u64 = 60;

/// See the module.
pub(super) struct Skew {
    clock: Arc<dyn Clock>,
    /// This host's clock less the collector's, seconds.
    ahead: AtomicI64,
}

impl std::fmt::Debug for Skew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Skew({} s)", self.ahead.load(Ordering::Relaxed))
    }
}

impl Skew {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, ahead: AtomicI64::new(0) })
    }

    /// An answer has come; one without a date says nothing.
    pub(super) fn note(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        if let Some(theirs) = date.and_then(http_date) {
            let ahead = self.clock.now().seconds().saturating_sub(theirs);
            self.ahead.store(ahead, Ordering::Relaxed);
        }
    }

    /// What is wrong, with what mends it.
    pub(super) fn trouble(&self) -> Option<String> {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let apart = ahead.unsigned_abs();
        let word = if ahead > 0 { "ahead of" } else { "behind" };
        (apart > TOLD_SECONDS).then(|| {
            format!(
                "this host's clock is {apart} s {word} the collector's: events carry this host's time (hint: set both: timedatectl set-ntp true)"
            )
        })
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7) → seconds since 1970.
pub(super) fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split(' ').skip(1);
    let day = words.next()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? + 1;
    let (year, time) = (words.next()?, words.next()?);
    let zulu = format!("{year}-{month:02}-{day}T{time}.000000Z");
    custody_event::Timestamp::parse(&zulu).ok().map(custody_event::Timestamp::seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_event::Timestamp;
    use std::time::Duration;

    struct At(AtomicI64);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(self.0.load(Ordering::Relaxed) * 1_000_000)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    #[test]
    fn a_date_of_http_is_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("yesterday"), None);
    }

    #[test]
    fn a_clock_that_is_an_hour_off_is_told_in_both_directions_and_no_more_when_it_is_set() {
        let clock = Arc::new(At(AtomicI64::new(784_111_777 + 3_600)));
        let skew = Skew::new(Arc::clone(&clock) as Arc<dyn Clock>);
        assert_eq!(skew.trouble(), None, "before anything was answered");
        let mut headers = HeaderMap::new();
        skew.note(&headers);
        assert_eq!(skew.trouble(), None);
        headers.insert(DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        skew.note(&headers);
        let said = skew.trouble().unwrap();
        assert!(said.contains("3600 s ahead of") && said.contains("timedatectl"), "{said}");
        clock.0.store(784_111_777 - 3_600, Ordering::Relaxed);
        skew.note(&headers);
        assert!(skew.trouble().unwrap().contains("3600 s behind"));
        clock.0.store(784_111_777 + 30, Ordering::Relaxed);
        skew.note(&headers);
        assert_eq!(skew.trouble(), None);
    }
}
