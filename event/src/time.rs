//! Microseconds since 1970-01-01T00:00:00Z, written and read as RFC 3339 in one fixed form.
//!
//! The form is `YYYY-MM-DDThh:mm:ss.ffffffZ`: always UTC, always six digits, so that texts sort as
//! times do. Years 0000 to 9999. Leap seconds do not exist on this scale (as in POSIX).

use std::borrow::Cow;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// 0000-01-01T00:00:00Z and the last microsecond of the year 9999.
const MIN_MICROS: i64 = -62_167_219_200 * MICROS_PER_SECOND;
const MAX_MICROS: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

/// An instant, in microseconds since the Unix epoch, within the years 0000 to 9999.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A civil date and time of day without a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// 0 to 9999.
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59 (60 is read as the following second by the parsers).
    pub second: u8,
    /// 0 to 999,999.
    pub micros: u32,
}

/// A text that is not a time in the canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a time of the form 2026-01-31T23:59:59.000000Z: {0:?}")]
pub struct BadTime(String);

impl Timestamp {
    /// The start of 2020: a host whose clock says less has no clock.
    pub const Y2020: Self = Self(1_577_836_800 * MICROS_PER_SECOND);
    /// The first representable instant.
    pub const MIN: Self = Self(MIN_MICROS);
    /// The last representable instant.
    pub const MAX: Self = Self(MAX_MICROS);

    /// From microseconds since the epoch, cut to the years 0000 to 9999.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        Self(micros.clamp(MIN_MICROS, MAX_MICROS))
    }

    /// From whole seconds and microseconds since the epoch; `None` beyond the years 0000 to 9999.
    #[must_use]
    pub fn from_seconds(seconds: i64, micros: u32) -> Option<Self> {
        let total = seconds.checked_mul(MICROS_PER_SECOND)?.checked_add(i64::from(micros))?;
        (MIN_MICROS..=MAX_MICROS).contains(&total).then_some(Self(total))
    }

    /// From the machine's clock; cut to the representable range.
    #[must_use]
    pub fn from_system_time(time: SystemTime) -> Self {
        let micros = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(MAX_MICROS),
            Err(before) => {
                i64::try_from(before.duration().as_micros()).map_or(MIN_MICROS, |micros| -micros)
            }
        };
        Self::from_micros(micros)
    }

    /// From a civil time that is meant as UTC. Fields out of range give `None`.
    #[must_use]
    pub fn from_civil(civil: Civil) -> Option<Self> {
        let Civil { year, month, day, hour, minute, second, micros } = civil;
        let sane = (0..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60
            && micros < 1_000_000;
        if !sane {
            return None;
        }
        let days = days_from_civil(i64::from(year), i64::from(month), i64::from(day));
        let seconds = days * SECONDS_PER_DAY
            + i64::from(hour) * 3600
            + i64::from(minute) * 60
            + i64::from(second);
        Self::from_seconds(seconds, micros)
    }

    /// The civil time in UTC.
    #[must_use]
    pub fn civil(self) -> Civil {
        let seconds = self.0.div_euclid(MICROS_PER_SECOND);
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        Civil {
            year: small(year),
            month: small(month),
            day: small(day),
            hour: small(of_day / 3600),
            minute: small(of_day / 60 % 60),
            second: small(of_day % 60),
            micros: small(self.0.rem_euclid(MICROS_PER_SECOND)),
        }
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// This many microseconds later (earlier, if negative), cut to the representable range.
    #[must_use]
    pub fn plus_micros(self, micros: i64) -> Self {
        Self::from_micros(self.0.saturating_add(micros))
    }

    /// Appends the canonical 27 bytes.
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes());
    }

    fn to_bytes(self) -> [u8; 27] {
        let civil = self.civil();
        let mut out = *b"0000-00-00T00:00:00.000000Z";
        let year = civil.year.unsigned_abs();
        let pairs = [
            (0, year / 100),
            (2, year),
            (5, u32::from(civil.month)),
            (8, u32::from(civil.day)),
            (11, u32::from(civil.hour)),
            (14, u32::from(civil.minute)),
            (17, u32::from(civil.second)),
            (20, civil.micros / 10_000),
            (22, civil.micros / 100),
            (24, civil.micros),
        ];
        for (at, value) in pairs {
            out[at..at + 2].copy_from_slice(&crate::json::pair(u64::from(value)));
        }
        out
    }

    /// Reads exactly the canonical form; for times in other people's forms see the parsers crate.
    ///
    /// # Errors
    /// Anything but the canonical form, or a date that does not exist.
    pub fn parse(text: &str) -> Result<Self, BadTime> {
        Self::parse_bytes(text.as_bytes()).ok_or_else(|| BadTime(text.chars().take(80).collect()))
    }

    fn parse_bytes(text: &[u8]) -> Option<Self> {
        let shape = text.len() == 27
            && text[4] == b'-'
            && text[7] == b'-'
            && text[10] == b'T'
            && text[13] == b':'
            && text[16] == b':'
            && text[19] == b'.'
            && text[26] == b'Z';
        if !shape {
            return None;
        }
        Self::from_civil(Civil {
            year: i32::try_from(digits(&text[0..4])?).ok()?,
            month: u8::try_from(digits(&text[5..7])?).ok()?,
            day: u8::try_from(digits(&text[8..10])?).ok()?,
            hour: u8::try_from(digits(&text[11..13])?).ok()?,
            minute: u8::try_from(digits(&text[14..16])?).ok()?,
            second: u8::try_from(digits(&text[17..19])?).ok()?,
            micros: digits(&text[20..26])?,
        })
    }
}

/// Narrows a number that a division or remainder has already bounded.
fn small<T: TryFrom<i64> + Default>(value: i64) -> T {
    T::try_from(value).unwrap_or_default()
}

fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0_u32, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0'))
    })
}

/// Days in a month of the proleptic Gregorian calendar.
#[must_use]
pub fn days_in_month(year: i32, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01; the year is shifted to start in March, so that the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_instants_are_written_as_everybody_writes_them() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_577_836_800_000_000, "2020-01-01T00:00:00.000000Z"),
            (MAX_MICROS, "9999-12-31T23:59:59.999999Z"),
            (MIN_MICROS, "0000-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(Timestamp(micros).to_string(), text);
            assert_eq!(Timestamp::parse(text), Ok(Timestamp(micros)));
        }
    }

    #[test]
    fn dates_that_do_not_exist_are_refused() {
        for bad in [
            "2023-02-29T00:00:00.000000Z",
            "2023-13-01T00:00:00.000000Z",
            "2023-01-01T24:00:00.000000Z",
            "2023-01-01T00:00:60.000000Z",
            "2023-01-01T00:00:00.00000Z",
            "2023-01-01t00:00:00.000000Z",
            "",
        ] {
            assert!(Timestamp::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_instant_reads_back(micros in MIN_MICROS..=MAX_MICROS) {
            let time = Timestamp(micros);
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
            prop_assert_eq!(Timestamp::from_civil(time.civil()), Some(time));
        }
    }
}
