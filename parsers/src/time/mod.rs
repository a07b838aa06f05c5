//! When did it happen? Times in the forms that programs write them, turned into instants.
//!
//! **Forms.** [`forms`] reads RFC 3164 (no year), RFC 3339 and its relatives, Apache's common log
//! format and epochs; [`pattern`] reads strftime-like patterns that a pack names. All of them give
//! a [`Moment`]; [`resolve`] makes an instant of it and says what had to be assumed.
//!
//! **What is assumed, and how.**
//! - No year: the latest year in which the date exists and is at most one day ahead of the time
//!   when the record was read. A log read in January therefore has its December lines in the year
//!   before, and 29 February falls into the last leap year.
//! - No zone: the source's zone. A civil time that exists twice (clocks set back) is the earlier
//!   of the two; one that does not exist (clocks set forward) is moved on by the gap, as RFC 5545
//!   has it.
//! - Second 60 is the first second of the next minute, since the event's scale has no leap seconds.
//! - More than six digits of a fraction are cut, not rounded: no time moves into the future.

pub(crate) mod forms;
pub(crate) mod pattern;

use custody_event::Timestamp;
use custody_event::time::{Civil, days_in_month};
use jiff::tz::TimeZone;

const MICROS: i64 = 1_000_000;
/// A record may be ahead of the reader's clock by this much and still be of the same year.
const AHEAD_MICROS: i64 = 86_400 * MICROS;
/// 29 February comes back after eight years at the latest (1896 to 1904).
const YEARS_BACK: i32 = 8;

/// Where an event's time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The record says the instant.
    Record,
    /// The record has no year.
    YearInferred,
    /// The record has no zone.
    ZoneAssumed,
    /// The record has no time: it is the time when it was read.
    Received,
}

impl Basis {
    /// As the event's `time_basis` has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::YearInferred => "year_inferred",
            Self::ZoneAssumed => "zone_assumed",
            Self::Received => "received",
        }
    }
}

/// A time as it was read, before anything is assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// An epoch.
    Instant(Timestamp),
    /// A date and a time of day.
    Civil(CivilTime),
}

impl Moment {
    /// Does it say of which year it is?
    pub(crate) fn has_year(&self) -> bool {
        match self {
            Self::Instant(_) => true,
            Self::Civil(civil) => civil.year.is_some(),
        }
    }
}

/// A date and a time of day; the second may be 60.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CivilTime {
    pub(crate) year: Option<i32>,
    pub(crate) month: u8,
    pub(crate) day: u8,
    pub(crate) hour: u8,
    pub(crate) minute: u8,
    pub(crate) second: u8,
    pub(crate) micros: u32,
    /// Seconds east of Greenwich, where the record says it.
    pub(crate) offset_s: Option<i32>,
}

/// Remembers the offset of the hour that was asked for last: the zone's rules are asked once for
/// a run of records of the same hour. Belongs to one zone.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ZoneMemo {
    hour: Option<i64>,
    offset_s: i32,
}

impl CivilTime {
    fn in_year(&self, year: i32) -> Option<Timestamp> {
        let leap = self.second == 60;
        let time = Timestamp::from_civil(Civil {
            year,
            month: self.month,
            day: self.day,
            hour: self.hour,
            minute: self.minute,
            second: if leap { 59 } else { self.second },
            micros: if leap { 0 } else { self.micros },
        })?;
        // The fraction of a leap second has no place on this scale: all of it is the next second.
        Some(if leap { time.plus_micros(MICROS) } else { time })
    }

    /// Could this be a date and time at all (in a leap year)?
    pub(crate) fn is_sane(&self) -> bool {
        let year = self.year.unwrap_or(2000);
        (0..=9999).contains(&year)
            && (1..=12).contains(&self.month)
            && (1..=days_in_month(year, self.month)).contains(&self.day)
            && self.hour < 24
            && self.minute < 60
            && self.second <= 60
            && self.micros < 1_000_000
    }
}

/// Makes an instant of a moment; `None` where the date does not exist.
pub(crate) fn resolve(
    moment: Moment,
    zone: &TimeZone,
    memo: &mut ZoneMemo,
    observed: Timestamp,
) -> Option<(Timestamp, Basis)> {
    let civil = match moment {
        Moment::Instant(time) => return Some((time, Basis::Record)),
        Moment::Civil(civil) => civil,
    };
    let mut place = |utc: Timestamp| match civil.offset_s {
        Some(offset_s) => utc.plus_micros(-i64::from(offset_s) * MICROS),
        None => utc.plus_micros(-i64::from(offset_of(utc, zone, memo)) * MICROS),
    };
    if let Some(year) = civil.year {
        let basis = if civil.offset_s.is_some() { Basis::Record } else { Basis::ZoneAssumed };
        return civil.in_year(year).map(|utc| (place(utc), basis));
    }
    let latest = observed.plus_micros(AHEAD_MICROS);
    // No zone is further than this from UTC: a later civil time is out whatever the zone says, and
    // asking it would only push the memo out.
    let latest_civil = latest.plus_micros(26 * 3600 * MICROS);
    let newest = observed.civil().year + 1;
    (newest - YEARS_BACK - 1..=newest)
        .rev()
        .filter_map(|year| civil.in_year(year).filter(|utc| *utc <= latest_civil).map(&mut place))
        .find(|time| *time <= latest)
        .map(|time| (time, Basis::YearInferred))
}

/// The zone's offset at a civil time (given as if it were UTC), in seconds east.
fn offset_of(civil: Timestamp, zone: &TimeZone, memo: &mut ZoneMemo) -> i32 {
    if let Ok(fixed) = zone.to_fixed_offset() {
        return fixed.seconds();
    }
    let hour = civil.seconds().div_euclid(3600);
    if memo.hour == Some(hour) {
        return memo.offset_s;
    }
    let start = Timestamp::from_micros(hour * 3600 * MICROS);
    let first = ask(start, zone);
    let last = ask(start.plus_micros(3600 * MICROS - 1), zone);
    match (first, last) {
        (Some((offset_s, true)), Some((same, true))) if offset_s == same => {
            *memo = ZoneMemo { hour: Some(hour), offset_s };
            offset_s
        }
        // The clocks are set within this hour: no memory.
        _ => ask(civil, zone).map_or(0, |(offset_s, _)| offset_s),
    }
}

/// The offset, and whether the civil time exists exactly once.
fn ask(civil: Timestamp, zone: &TimeZone) -> Option<(i32, bool)> {
    let Civil { year, month, day, hour, minute, second, micros } = civil.civil();
    let civil_time = jiff::civil::DateTime::new(
        i16::try_from(year).ok()?,
        i8::try_from(month).ok()?,
        i8::try_from(day).ok()?,
        i8::try_from(hour).ok()?,
        i8::try_from(minute).ok()?,
        i8::try_from(second).ok()?,
        i32::try_from(micros).ok()? * 1000,
    )
    .ok()?;
    let ambiguous = zone.to_ambiguous_timestamp(civil_time);
    let once = !ambiguous.is_ambiguous();
    let instant = ambiguous.compatible().ok()?;
    let difference = civil.seconds() - instant.as_microsecond().div_euclid(MICROS);
    Some((i32::try_from(difference).ok()?, once))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn civil(year: Option<i32>, month: u8, day: u8, hour: u8, minute: u8) -> Moment {
        Moment::Civil(CivilTime { year, month, day, hour, minute, ..CivilTime::default() })
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn solve(moment: Moment, zone: &str, observed: &str) -> String {
        let zone = TimeZone::get(zone).unwrap();
        let mut memo = ZoneMemo::default();
        let (time, basis) = resolve(moment, &zone, &mut memo, at(observed)).unwrap();
        let again = resolve(moment, &zone, &mut memo, at(observed)).unwrap();
        assert_eq!((time, basis), again, "the memo changes nothing");
        format!("{time} {}", basis.as_str())
    }

    #[test]
    fn december_read_in_january_is_of_the_year_before() {
        let december = civil(None, 12, 31, 23, 59);
        assert_eq!(
            solve(december, "UTC", "2024-01-01T00:00:05.000000Z"),
            "2023-12-31T23:59:00.000000Z year_inferred"
        );
        assert_eq!(
            solve(december, "UTC", "2023-12-31T23:59:05.000000Z"),
            "2023-12-31T23:59:00.000000Z year_inferred"
        );
    }

    #[test]
    fn january_written_by_a_clock_that_is_ahead_is_of_the_year_to_come() {
        assert_eq!(
            solve(civil(None, 1, 1, 0, 10), "UTC", "2023-12-31T23:50:00.000000Z"),
            "2024-01-01T00:10:00.000000Z year_inferred"
        );
    }

    #[test]
    fn the_last_of_february_falls_into_a_leap_year() {
        assert_eq!(
            solve(civil(None, 2, 29, 12, 0), "UTC", "2027-03-01T00:00:00.000000Z"),
            "2024-02-29T12:00:00.000000Z year_inferred"
        );
        assert_eq!(
            solve(civil(None, 2, 29, 12, 0), "UTC", "1903-03-01T00:00:00.000000Z"),
            "1896-02-29T12:00:00.000000Z year_inferred"
        );
    }

    #[test]
    fn a_civil_time_that_exists_twice_is_the_earlier_and_one_that_does_not_is_moved_on() {
        let observed = "2024-12-01T00:00:00.000000Z";
        assert_eq!(
            solve(civil(Some(2024), 10, 27, 2, 30), "Europe/Berlin", observed),
            "2024-10-27T00:30:00.000000Z zone_assumed"
        );
        assert_eq!(
            solve(civil(Some(2024), 3, 31, 2, 30), "Europe/Berlin", observed),
            "2024-03-31T01:30:00.000000Z zone_assumed"
        );
        assert_eq!(
            solve(civil(Some(2024), 7, 1, 12, 0), "Europe/Berlin", observed),
            "2024-07-01T10:00:00.000000Z zone_assumed"
        );
    }

    #[test]
    fn a_leap_second_is_the_next_second() {
        let leap = Moment::Civil(CivilTime {
            year: Some(2016),
            month: 12,
            day: 31,
            hour: 23,
            minute: 59,
            second: 60,
            micros: 700_000,
            offset_s: Some(0),
        });
        assert_eq!(
            solve(leap, "UTC", "2024-12-01T00:00:00.000000Z"),
            "2017-01-01T00:00:00.000000Z record"
        );
    }
}
