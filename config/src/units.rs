//! Sizes and durations as people write them.
//!
//! A size is a whole number of bytes or a number with a unit: `512`, `64KiB`, `16MiB`, `1GiB` (powers of 1024) or `1kB`, `10MB`
//! (powers of 1000). A duration always has a unit: `100ms`, `30s`, `5m`, `12h`, `400d`, `2w`, `3y` (a year is 365 days).
//! Both are shown in the largest unit that is exact, and what is shown reads back as the same value.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// A length of time, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u64);

/// How long something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keep {
    /// For so long.
    For(Period),
    /// For ever.
    Forever,
}

impl Keep {
    /// Reads a duration, or the word `forever`.
    ///
    /// # Errors
    /// As for [`Period::parse`].
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        Period::parse(text).map(Self::For)
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(period) => period.fmt(f),
            Self::Forever => f.write_str("forever"),
        }
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is not a size or a duration, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (hint: {hint})")]
pub struct UnitError {
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub hint: String,
}

const SIZES: [(&str, u64); 10] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

const PERIODS: [(&str, u64); 7] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
    ("y", 31_536_000_000),
];

/// What an operator is told when a size cannot be read.
pub(crate) const SIZE_HINT: &str = "write bytes or a unit, such as 64KiB, 16MiB, 1GiB";
/// What an operator is told when a duration cannot be read.
pub(crate) const PERIOD_HINT: &str =
    "write a number and a unit, such as 100ms, 30s, 5m, 12h, 400d, 3y";

impl ByteSize {
    /// This many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// This many KiB.
    pub const fn kib(n: u32) -> Self {
        Self((n as u64) << 10)
    }

    /// This many MiB.
    pub const fn mib(n: u32) -> Self {
        Self((n as u64) << 20)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as an index; `usize::MAX` where the machine cannot address so many.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Reads a size as people write it.
    ///
    /// # Errors
    /// A text without a number, with an unknown unit, or beyond 2^64 bytes.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text).ok_or_else(|| not_a("size", text, SIZE_HINT))?;
        if unit.is_empty() {
            return Ok(Self(number));
        }
        let factor = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let (_, factor) = factor.ok_or_else(|| unknown_size_unit(text, number, unit))?;
        number
            .checked_mul(*factor)
            .map(Self)
            .ok_or_else(|| not_a("size", text, "it is beyond 2^64 bytes"))
    }
}

fn unknown_size_unit(text: &str, number: u64, unit: &str) -> UnitError {
    let what = format!("`{text}` has the unknown unit `{unit}`");
    let hint = match unit {
        "k" | "K" => format!("{number}KiB is 1024 bytes each, {number}kB is 1000 bytes each"),
        "m" | "M" => format!("{number}MiB is 1024^2 bytes each, {number}MB is 1000^2 bytes each"),
        "g" | "G" => format!("{number}GiB is 1024^3 bytes each, {number}GB is 1000^3 bytes each"),
        _ => SIZE_HINT.to_owned(),
    };
    UnitError { what, hint }
}

impl Period {
    /// This many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// This many seconds.
    pub const fn seconds(n: u32) -> Self {
        Self(n as u64 * 1_000)
    }

    /// This many days of 24 hours.
    pub const fn days(n: u32) -> Self {
        Self(n as u64 * 86_400_000)
    }

    /// The number of milliseconds.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// As the standard library's duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Reads a duration as people write it.
    ///
    /// # Errors
    /// A text without a number or without a unit, with an unknown unit, or beyond 2^64 milliseconds.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text).ok_or_else(|| not_a("duration", text, PERIOD_HINT))?;
        if unit.is_empty() {
            let what = format!("the duration `{text}` has no unit");
            let hint = format!("write {number}s for seconds or {number}ms for milliseconds");
            return Err(UnitError { what, hint });
        }
        let factor = PERIODS.iter().find(|(name, _)| *name == unit);
        let (_, factor) = factor.ok_or_else(|| UnitError {
            what: format!("`{text}` has the unknown unit `{unit}`"),
            hint: PERIOD_HINT.to_owned(),
        })?;
        number
            .checked_mul(*factor)
            .map(Self)
            .ok_or_else(|| not_a("duration", text, "it is too long"))
    }
}

/// The number at the front, and the unit after it (one space between them is allowed).
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let plain = unit.chars().all(|c| c.is_ascii_alphabetic());
    plain.then(|| digits.parse().ok()).flatten().map(|number| (number, unit))
}

fn not_a(kind: &str, text: &str, hint: &str) -> UnitError {
    UnitError { what: format!("`{text}` is not a {kind}"), hint: hint.to_owned() }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZES[1..6]
            .iter()
            .rev()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match exact {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        // Weeks are read but not shown: 14d says more at a glance than 2w beside 400d.
        let mut exact = PERIODS.iter().rev().filter(|(unit, _)| *unit != "w");
        let found = exact.find(|(_, factor)| self.0.is_multiple_of(*factor));
        let (unit, factor) = found.unwrap_or(&PERIODS[0]);
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("16KiB", 16_384),
            ("1 GiB", 1 << 30),
            ("64mib", 64 << 20),
            ("10MB", 10_000_000),
            ("3 kB", 3_000),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize::from_bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn an_ambiguous_or_impossible_size_is_refused_with_what_to_write() {
        for (text, message) in [
            (
                "1G",
                "`1G` has the unknown unit `G` (hint: 1GiB is 1024^3 bytes each, 1GB is 1000^3 bytes each)",
            ),
            ("-1", "`-1` is not a size (hint: write bytes or a unit, such as 64KiB, 16MiB, 1GiB)"),
            (
                "1.5GiB",
                "`1.5GiB` is not a size (hint: write bytes or a unit, such as 64KiB, 16MiB, 1GiB)",
            ),
            ("", "`` is not a size (hint: write bytes or a unit, such as 64KiB, 16MiB, 1GiB)"),
            ("99999999PiB", "`99999999PiB` is not a size (hint: it is beyond 2^64 bytes)"),
            (
                "1 parsec",
                "`1 parsec` has the unknown unit `parsec` (hint: write bytes or a unit, such as 64KiB, 16MiB, 1GiB)",
            ),
        ] {
            let error = ByteSize::parse(text).expect_err(text);
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(Period::parse("100ms"), Ok(Period::from_millis(100)));
        assert_eq!(Period::parse("5m"), Ok(Period::seconds(300)));
        assert_eq!(Period::parse("400d"), Ok(Period::days(400)));
        assert_eq!(Period::parse("3y"), Ok(Period::days(1095)));
        assert_eq!(Period::parse("2w"), Ok(Period::days(14)));
        let error = Period::parse("30").expect_err("no unit");
        assert_eq!(
            error.to_string(),
            "the duration `30` has no unit (hint: write 30s for seconds or 30ms for milliseconds)"
        );
        let error = Period::parse("5min").expect_err("min is not a unit");
        assert!(error.to_string().contains("unknown unit `min`"), "{error}");
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same_value() {
        for bytes in [0, 1, 1023, 1024, 1025, 24 << 10, 1 << 30, 5 << 40, 10_000_000, u64::MAX] {
            let size = ByteSize::from_bytes(bytes);
            assert_eq!(ByteSize::parse(&size.to_string()), Ok(size));
        }
        for millis in
            [0, 1, 100, 1_000, 1_500, 60_000, 3_600_000, 86_400_000, 34_560_000_000, 94_608_000_000]
        {
            let period = Period::from_millis(millis);
            assert_eq!(Period::parse(&period.to_string()), Ok(period));
        }
        assert_eq!(ByteSize::from_bytes(1 << 30).to_string(), "1GiB");
        assert_eq!(Period::days(400).to_string(), "400d");
        assert_eq!(Period::days(1095).to_string(), "3y");
    }
}
