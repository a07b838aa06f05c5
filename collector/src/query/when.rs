//! Times as people write them: an instant, a day, or so long ago.

use custody_event::Timestamp;
use custody_event::time::Civil;

/// A text that is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a time; write 2026-01-31, 2026-01-31T08:00:00Z, 24h, 7d, 30d, now or now-15m"
)]
pub struct NotATime(String);

const MICROS: i64 = 1_000_000;

/// Reads a time: RFC 3339 (a zone may be left out: UTC), a date (its first instant, UTC), a span
/// back from now (`15m`, `24h`, `7d`, `2w`), `now`, `now-15m`, or epoch seconds after an `@`.
///
/// # Errors
/// It is none of these.
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp, NotATime> {
    let text = text.trim();
    relative(text, now)
        .or_else(|| epoch(text))
        .or_else(|| absolute(text))
        .ok_or_else(|| NotATime(text.chars().take(60).collect()))
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

fn absolute(text: &str) -> Option<Timestamp> {
    let (date, clock) = match text.split_once(['T', 't', ' ']) {
        Some((date, clock)) => (date, Some(clock)),
        None => (text, None),
    };
    let mut civil = Civil { year: 0, month: 0, day: 0, hour: 0, minute: 0, second: 0, micros: 0 };
    let mut parts = date.split('-');
    civil.year = i32::try_from(number(parts.next()?, 4)?).ok()?;
    civil.month = small(parts.next()?)?;
    civil.day = small(parts.next()?)?;
    if parts.next().is_some() {
        return None;
    }
    let Some(clock) = clock else { return Timestamp::from_civil(civil) };
    let (clock, zone_seconds) = zone(clock)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':');
    civil.hour = small(parts.next()?)?;
    civil.minute = small(parts.next()?)?;
    civil.second = parts.next().map_or(Some(0), small)?;
    if parts.next().is_some() {
        return None;
    }
    civil.micros = micros(fraction)?;
    let local = Timestamp::from_civil(civil)?;
    Some(Timestamp::from_micros(local.micros() - zone_seconds * MICROS))
}

/// Cuts the zone off; none is UTC. A `+` that a query string has turned into a space counts.
fn zone(clock: &str) -> Option<(&str, i64)> {
    if let Some(bare) = clock.strip_suffix(['Z', 'z']) {
        return Some((bare, 0));
    }
    let Some(at) = clock.rfind(['+', '-', ' ']) else { return Some((clock, 0)) };
    let sign = if clock[at..].starts_with('-') { -1 } else { 1 };
    let offset = &clock[at + 1..];
    let (hours, minutes) = match offset.split_once(':') {
        Some((hours, minutes)) => (hours, minutes),
        None if offset.len() == 4 && offset.is_ascii() => offset.split_at(2),
        None => (offset, "00"),
    };
    let seconds = i64::from(number(hours, 2)?) * 3_600 + i64::from(number(minutes, 2)?) * 60;
    Some((&clock[..at], sign * seconds))
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
        ] {
            let time = parse(text, now).map(|time| time.to_string());
            assert_eq!(time.as_deref(), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "h",
            "-5h",
            "yesterday",
            "2026-02-30",
            "2026-1-1",
            "2026-01-31T25:00",
            "9999999999999999999d",
        ] {
            assert!(parse(bad, now).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = parse(&text, Timestamp::MAX);
            let _ = parse(&text, Timestamp::MIN);
        }

        #[test]
        fn rfc3339_shaped_nonsense_does_not_panic(text in "[0-9TZ:. +-]{0,36}") {
            let _ = parse(&text, Timestamp::Y2020);
        }
    }
}
