//! Times as people write them: an instant, a day, a month, or so long ago; and periods of them.
//!
//! A date, and a time without an offset, is one of the [`Zone`] that the search names (UTC without
//! one). A day begins at its first instant there, and has 23 or 25 hours where clocks are changed;
//! `7d` is 7 × 24 hours wherever.

use custody_event::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// A text that is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a time; write 2026-01-31, 2026-01-31T08:00:00Z, 2026-01, 24h, 7d, now, now-15m, \
     today, yesterday, this_week, last_month or this_year"
)]
pub struct NotATime(String);

impl NotATime {
    fn of(text: &str) -> Self {
        Self(text.chars().take(60).collect())
    }
}

const MICROS: i64 = 1_000_000;

/// The time zone in which local dates are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl Zone {
    /// The zone of this name in the IANA database (`Europe/Berlin`), `UTC`, or an offset (`+02:00`).
    ///
    /// # Errors
    /// With what is wrong.
    pub fn named(name: &str) -> Result<Self, String> {
        let trimmed = name.trim();
        if trimmed.is_empty() || trimmed.len() > 64 {
            return Err("a time zone has a name such as Europe/Berlin".to_owned());
        }
        // A `+` that a query string has turned into a space counts.
        let offset = name.strip_prefix(' ').map(|rest| format!("+{rest}"));
        if let Some(seconds) = offset_seconds(offset.as_deref().unwrap_or(trimmed)) {
            let offset = jiff::tz::Offset::from_seconds(seconds);
            return offset.map(|offset| Self(offset.to_time_zone())).map_err(|_| unknown(name));
        }
        TimeZone::get(trimmed).map(Self).map_err(|_| unknown(name))
    }

    /// The first instant of a day.
    fn start(&self, date: Date) -> Option<Timestamp> {
        let zoned = date.to_zoned(self.0.clone()).ok()?;
        Some(Timestamp::from_micros(zoned.timestamp().as_microsecond()))
    }

    fn instant(&self, local: DateTime) -> Option<Timestamp> {
        let zoned = local.to_zoned(self.0.clone()).ok()?;
        Some(Timestamp::from_micros(zoned.timestamp().as_microsecond()))
    }

    fn date_of(&self, time: Timestamp) -> Option<Date> {
        let instant = jiff::Timestamp::from_microsecond(time.micros()).ok()?;
        Some(instant.to_zoned(self.0.clone()).date())
    }
}

fn unknown(name: &str) -> String {
    let name: String = name.chars().take(60).collect();
    format!("there is no time zone {name:?}; write Europe/Berlin, America/Sao_Paulo, UTC or +02:00")
}

/// Reads a time in UTC: see [`parse_in`].
///
/// # Errors
/// As for [`parse_in`].
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp, NotATime> {
    parse_in(text, now, &Zone::default())
}

/// Reads a time: RFC 3339 (without an offset: of the zone), a date, a month or a year (its first
/// instant), a span back from now (`15m`, `24h`, `7d`, `2w`), `now`, `now-15m`, epoch seconds after
/// an `@`, or a [`period`]'s name (its first instant).
///
/// # Errors
/// It is none of these.
pub fn parse_in(text: &str, now: Timestamp, zone: &Zone) -> Result<Timestamp, NotATime> {
    let text = text.trim();
    relative(text, now)
        .or_else(|| epoch(text))
        .or_else(|| absolute(text, zone))
        .or_else(|| days(text, now, zone).and_then(|(first, _)| zone.start(first)))
        .ok_or_else(|| NotATime::of(text))
}

/// A period: its first instant, and the first one after it; either may be open.
pub type Bounds = (Option<Timestamp>, Option<Timestamp>);

/// Reads a period: a span back from now (`24h`), a date, a month (`2026-01`), a year, `today`,
/// `yesterday`, `this_week` (from Monday), `last_week`, `this_month`, `last_month`, `this_year`,
/// `last_year`, `all`; or two times with `..` between, of which a date, month or year is
/// included whole and either may be left out.
///
/// # Errors
/// It is none of these.
pub fn period(text: &str, now: Timestamp, zone: &Zone) -> Result<Bounds, NotATime> {
    let text = text.trim();
    if text == "all" {
        return Ok((None, None));
    }
    if let Some((from, to)) = text.split_once("..") {
        let from = if from.is_empty() { None } else { Some(parse_in(from, now, zone)?) };
        let to = if to.is_empty() { None } else { Some(end(to, now, zone)?) };
        return Ok((from, to));
    }
    if text != "now"
        && let Some(from) = relative(text, now)
    {
        return Ok((Some(from), None));
    }
    let (first, next) = days(text, now, zone).ok_or_else(|| NotATime::of(text))?;
    let bounds = (zone.start(first), zone.start(next));
    if bounds.0.is_none() || bounds.1.is_none() { Err(NotATime::of(text)) } else { Ok(bounds) }
}

/// The first instant after a date, month or year; an instant itself.
fn end(text: &str, now: Timestamp, zone: &Zone) -> Result<Timestamp, NotATime> {
    match days(text.trim(), now, zone).and_then(|(_, next)| zone.start(next)) {
        Some(end) => Ok(end),
        None => parse_in(text, now, zone),
    }
}

/// The first day of what this names, and the first one after it.
fn days(text: &str, now: Timestamp, zone: &Zone) -> Option<(Date, Date)> {
    use jiff::ToSpan;
    if let Some(date) = date(text) {
        return Some((date, date.checked_add(1.day()).ok()?));
    }
    if let Some(first) = month(text) {
        return Some((first, first.checked_add(1.month()).ok()?));
    }
    if let Some(first) = number(text, 4).and_then(|year| day(year, 1, 1)) {
        return Some((first, first.checked_add(1.year()).ok()?));
    }
    let today = zone.date_of(now)?;
    let monday =
        today.checked_sub(i64::from(today.weekday().to_monday_zero_offset()).days()).ok()?;
    let (first, span) = match text {
        "today" => (today, 1.day()),
        "yesterday" => (today.checked_sub(1.day()).ok()?, 1.day()),
        "this_week" => (monday, 7.days()),
        "last_week" => (monday.checked_sub(7.days()).ok()?, 7.days()),
        "this_month" => (today.first_of_month(), 1.month()),
        "last_month" => (today.first_of_month().checked_sub(1.month()).ok()?, 1.month()),
        "this_year" => (today.first_of_year(), 1.year()),
        "last_year" => (today.first_of_year().checked_sub(1.year()).ok()?, 1.year()),
        _ => return None,
    };
    Some((first, first.checked_add(span).ok()?))
}

fn day(year: u32, month: u8, day: u8) -> Option<Date> {
    let (year, month) = (i16::try_from(year).ok()?, i8::try_from(month).ok()?);
    Date::new(year, month, i8::try_from(day).ok()?).ok()
}

fn date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let date = day(number(parts.next()?, 4)?, small(parts.next()?)?, small(parts.next()?)?)?;
    parts.next().is_none().then_some(date)
}

fn month(text: &str) -> Option<Date> {
    let (year, month) = text.split_once('-')?;
    day(number(year, 4)?, small(month)?, 1)
}

fn relative(text: &str, now: Timestamp) -> Option<Timestamp> {
    if text == "now" {
        return Some(now);
    }
    let span = text.strip_prefix("now-").unwrap_or(text);
    let unit = span.chars().next_back()?;
    let seconds: i64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let count = span.strip_suffix(unit)?;
    if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let micros = count.parse::<i64>().ok()?.checked_mul(seconds)?.checked_mul(MICROS)?;
    Some(Timestamp::from_micros(now.micros().saturating_sub(micros)))
}

fn epoch(text: &str) -> Option<Timestamp> {
    let seconds = text.strip_prefix('@')?.parse::<i64>().ok()?;
    Timestamp::from_seconds(seconds, 0)
}

fn absolute(text: &str, zone: &Zone) -> Option<Timestamp> {
    let Some((date_text, clock)) = text.split_once(['T', 't', ' ']) else {
        return zone.start(date(text)?);
    };
    let date = date(date_text)?;
    let (clock, offset) = offset(clock)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':');
    let (hour, minute) = (small(parts.next()?)?, small(parts.next()?)?);
    let second = parts.next().map_or(Some(0), small)?;
    if parts.next().is_some() {
        return None;
    }
    let nanos = i32::try_from(micros(fraction)?).ok()?.checked_mul(1_000)?;
    let [hour, minute] = [i8::try_from(hour).ok()?, i8::try_from(minute).ok()?];
    let clock = jiff::civil::Time::new(hour, minute, i8::try_from(second).ok()?, nanos).ok()?;
    let local = date.to_datetime(clock);
    match offset {
        None => zone.instant(local),
        Some(seconds) => {
            let utc = Zone::default().instant(local)?.micros();
            Some(Timestamp::from_micros(utc - i64::from(seconds) * MICROS))
        }
    }
}

/// Cuts the offset off, in seconds. A `+` that a query string has turned into a space counts.
fn offset(clock: &str) -> Option<(&str, Option<i32>)> {
    if let Some(bare) = clock.strip_suffix(['Z', 'z']) {
        return Some((bare, Some(0)));
    }
    let Some(at) = clock.rfind(['+', '-', ' ']) else { return Some((clock, None)) };
    let sign = if clock[at..].starts_with('-') { "-" } else { "+" };
    let seconds = offset_seconds(&format!("{sign}{}", &clock[at + 1..]))?;
    Some((&clock[..at], Some(seconds)))
}

/// `+02:00`, `-0130`, `+02`.
fn offset_seconds(text: &str) -> Option<i32> {
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let offset = &text[1..];
    let (hours, minutes) = match offset.split_once(':') {
        Some((hours, minutes)) => (hours, minutes),
        None if offset.len() == 4 && offset.is_ascii() => offset.split_at(2),
        None => (offset, "00"),
    };
    let minutes = i32::from(small(hours)?) * 60 + i32::from(small(minutes)?);
    Some(sign * minutes * 60)
}

fn micros(fraction: &str) -> Option<u32> {
    if fraction.is_empty() {
        return Some(0);
    }
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<6}")[..6].parse().ok()
}

fn number(text: &str, digits: usize) -> Option<u32> {
    let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

fn small(text: &str) -> Option<u8> {
    u8::try_from(number(text, 2)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_as_people_write_them() {
        let now = Timestamp::parse("2026-11-05T12:00:00.000000Z").unwrap();
        for (text, expected) in [
            ("24h", "2026-11-04T12:00:00.000000Z"),
            ("7d", "2026-10-29T12:00:00.000000Z"),
            ("now-15m", "2026-11-05T11:45:00.000000Z"),
            ("now", "2026-11-05T12:00:00.000000Z"),
            ("2026-01-31", "2026-01-31T00:00:00.000000Z"),
            ("2026-01-31T08:09", "2026-01-31T08:09:00.000000Z"),
            ("2026-01-31T08:09:10Z", "2026-01-31T08:09:10.000000Z"),
            ("2026-01-31 08:09:10.5+02:00", "2026-01-31T06:09:10.500000Z"),
            ("2026-01-31T08:09:10 02:00", "2026-01-31T06:09:10.000000Z"),
            ("2026-01-31T08:09:10.123456789-0130", "2026-01-31T09:39:10.123456Z"),
            ("@0", "1970-01-01T00:00:00.000000Z"),
            ("2026-10", "2026-10-01T00:00:00.000000Z"),
            ("2025", "2025-01-01T00:00:00.000000Z"),
            ("yesterday", "2026-11-04T00:00:00.000000Z"),
        ] {
            let time = parse(text, now).map(|time| time.to_string());
            assert_eq!(time.as_deref(), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "h",
            "-5h",
            "gestern",
            "2026-02-30",
            "2026-13",
            "2026-1-1",
            "2026-01-31T25:00",
            "9999999999999999999d",
        ] {
            assert!(parse(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn local_dates_are_those_of_the_zone_also_where_clocks_are_changed() {
        let now = Timestamp::parse("2026-03-29T22:30:00.000000Z").unwrap();
        let berlin = Zone::named("Europe/Berlin").unwrap();
        let said = |text: &str| {
            let (from, to) = period(text, now, &berlin).unwrap();
            [from, to]
                .map(|time| time.map_or("…".to_owned(), |time| time.to_string()[..16].to_owned()))
        };
        for (text, from, to) in [
            // 00:30 on the 30th in Berlin; the 29th had 23 hours.
            ("today", "2026-03-29T22:00", "2026-03-30T22:00"),
            ("yesterday", "2026-03-28T23:00", "2026-03-29T22:00"),
            ("2026-03-29", "2026-03-28T23:00", "2026-03-29T22:00"),
            ("this_week", "2026-03-29T22:00", "2026-04-05T22:00"),
            ("last_week", "2026-03-22T23:00", "2026-03-29T22:00"),
            ("this_month", "2026-02-28T23:00", "2026-03-31T22:00"),
            ("last_month", "2026-01-31T23:00", "2026-02-28T23:00"),
            ("this_year", "2025-12-31T23:00", "2026-12-31T23:00"),
            ("last_year", "2024-12-31T23:00", "2025-12-31T23:00"),
            ("2026-03", "2026-02-28T23:00", "2026-03-31T22:00"),
            ("2026-03-01..2026-03-02", "2026-02-28T23:00", "2026-03-02T23:00"),
            ("2026-03-01T08:00..", "2026-03-01T07:00", "…"),
            ("..2025", "…", "2025-12-31T23:00"),
            ("24h", "2026-03-28T22:30", "…"),
            ("all", "…", "…"),
        ] {
            assert_eq!(said(text), [from, to], "{text}");
        }
        let at = parse_in("2026-07-01T08:00", now, &berlin).unwrap();
        assert_eq!(at.to_string(), "2026-07-01T06:00:00.000000Z");
        for bad in ["now", "", "..x", "x..", "2026-02-30", "soon"] {
            assert!(period(bad, now, &berlin).is_err(), "{bad}");
        }
        for good in ["UTC", "utc", "+02:00", "-0330", "America/Sao_Paulo", "Asia/Kolkata"] {
            assert!(Zone::named(good).is_ok(), "{good}");
        }
        for bad in ["", "Mars", "+99:99", "+", "../etc/passwd", "Europe/../UTC"] {
            assert!(Zone::named(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = parse(&text, Timestamp::MAX);
            let _ = parse(&text, Timestamp::MIN);
            let _ = period(&text, Timestamp::MAX, &Zone::default());
            let _ = Zone::named(&text);
        }

        #[test]
        fn rfc3339_shaped_nonsense_does_not_panic(text in "[0-9TZ:. +-]{0,36}") {
            let _ = parse(&text, Timestamp::Y2020);
        }
    }
}
