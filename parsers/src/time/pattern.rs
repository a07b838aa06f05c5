//! strftime-like patterns: `%d.%m.%Y %H:%M:%S`.
//!
//! `%Y` year, `%y` two digits (69 to 99 are 19xx), `%m` month, `%b` its English name, `%d` or `%e`
//! day, `%j` day of the year, `%H` hour, `%I` hour of twelve with `%p` AM or PM, `%M` minute, `%S`
//! second (60 allowed), `%f` digits of a fraction, `%z` offset, `%Z` zone letters or offset, `%a`
//! weekday (not checked), `%s` epoch, `%F` = `%Y-%m-%d`, `%T` = `%H:%M:%S`, `%%` a percent sign. A
//! space stands for one or more spaces. Numbers may be padded with a space.

use super::forms::{Cursor, epoch, weekday};
use super::{CivilTime, Moment};

/// A pattern that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Part>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Byte(u8),
    Spaces,
    Year,
    ShortYear,
    Month,
    MonthName,
    Day,
    DayOfYear,
    Hour,
    HourOf12,
    HalfDay,
    Minute,
    Second,
    Fraction,
    Offset,
    Zone,
    Weekday,
    Epoch,
}

impl Pattern {
    /// Checks a pattern; an error says which of its directives is unknown, or what is missing.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'%' => directive(bytes.next(), &mut parts)?,
                b' ' if parts.last() == Some(&Part::Spaces) => {}
                b' ' => parts.push(Part::Spaces),
                other => parts.push(Part::Byte(other)),
            }
        }
        let has = |part| parts.contains(&part);
        let date = (has(Part::Month) || has(Part::MonthName)) && has(Part::Day);
        let time = has(Part::Hour) || has(Part::HourOf12);
        if has(Part::Epoch) || ((date || has(Part::DayOfYear)) && time) {
            Ok(Self(parts))
        } else {
            Err("a time pattern needs a date and an hour (%Y-%m-%d %H:%M:%S), or %s".to_owned())
        }
    }

    /// Reads a time from the front of the text; all of it where `whole`.
    pub(crate) fn read(&self, text: &str, whole: bool) -> Option<Moment> {
        let mut reader = Reader {
            cursor: Cursor::new(text.trim().as_bytes()),
            civil: CivilTime { month: 1, day: 1, ..CivilTime::default() },
            afternoon: None,
            day_of_year: None,
            instant: None,
        };
        for part in &self.0 {
            reader.step(*part)?;
        }
        if whole && reader.cursor.at != reader.cursor.bytes.len() {
            return None;
        }
        reader.finish()
    }
}

fn directive(letter: Option<u8>, parts: &mut Vec<Part>) -> Result<(), String> {
    let part = match letter {
        Some(b'Y') => Part::Year,
        Some(b'y') => Part::ShortYear,
        Some(b'm') => Part::Month,
        Some(b'b' | b'B' | b'h') => Part::MonthName,
        Some(b'd' | b'e') => Part::Day,
        Some(b'j') => Part::DayOfYear,
        Some(b'H' | b'k') => Part::Hour,
        Some(b'I' | b'l') => Part::HourOf12,
        Some(b'p' | b'P') => Part::HalfDay,
        Some(b'M') => Part::Minute,
        Some(b'S') => Part::Second,
        Some(b'f' | b'L' | b'N') => Part::Fraction,
        Some(b'z') => Part::Offset,
        Some(b'Z') => Part::Zone,
        Some(b'a' | b'A') => Part::Weekday,
        Some(b's') => Part::Epoch,
        Some(b'%') => Part::Byte(b'%'),
        Some(b'F') => {
            let date = [Part::Year, Part::Byte(b'-'), Part::Month, Part::Byte(b'-'), Part::Day];
            parts.extend(date);
            return Ok(());
        }
        Some(b'T') => {
            let time = [Part::Hour, Part::Byte(b':'), Part::Minute, Part::Byte(b':'), Part::Second];
            parts.extend(time);
            return Ok(());
        }
        Some(other) => return Err(format!("unknown time directive `%{}`", char::from(other))),
        None => return Err("a single `%` at the end; write `%%` for a percent sign".to_owned()),
    };
    parts.push(part);
    Ok(())
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    civil: CivilTime,
    afternoon: Option<bool>,
    day_of_year: Option<u32>,
    instant: Option<Moment>,
}

impl Reader<'_> {
    fn step(&mut self, part: Part) -> Option<()> {
        let cursor = &mut self.cursor;
        match part {
            Part::Byte(byte) => cursor.eat(byte)?,
            Part::Spaces => {
                cursor.eat(b' ')?;
                while cursor.eat(b' ').is_some() {}
            }
            Part::Year => self.civil.year = Some(i32::try_from(cursor.number(4, 4)?).ok()?),
            Part::ShortYear => {
                let year = i32::try_from(cursor.number(2, 2)?).ok()?;
                self.civil.year = Some(year + if year < 69 { 2000 } else { 1900 });
            }
            Part::Month => self.civil.month = cursor.padded()?,
            Part::MonthName => self.month_name()?,
            Part::Day => self.civil.day = cursor.padded()?,
            Part::DayOfYear => self.day_of_year = Some(cursor.number(1, 3)?),
            Part::Hour => self.civil.hour = cursor.padded()?,
            Part::HourOf12 => {
                self.civil.hour = cursor.padded().filter(|hour| (1..=12).contains(hour))?;
                self.afternoon.get_or_insert(false);
            }
            Part::HalfDay => self.half_day()?,
            Part::Minute => self.civil.minute = cursor.small(2, 2)?,
            Part::Second => self.civil.second = cursor.small(2, 2)?,
            Part::Fraction => {
                cursor.peek().filter(u8::is_ascii_digit)?;
                self.civil.micros = cursor.fraction_digits();
            }
            Part::Offset => {
                let utc = cursor.eat_any(b"Zz").map(|_| 0);
                self.civil.offset_s = Some(match utc {
                    Some(zero) => zero,
                    None => cursor.offset()?,
                });
            }
            Part::Zone => self.civil.offset_s = Some(cursor.zone()?),
            Part::Weekday => {
                weekday(cursor)?;
                self.letters();
            }
            Part::Epoch => {
                let (moment, used) = epoch(&cursor.bytes[cursor.at..], None)?;
                cursor.at += used;
                self.instant = Some(moment);
            }
        }
        Some(())
    }

    /// The rest of a name (`ember` of September) and its point.
    fn letters(&mut self) {
        while self.cursor.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
            self.cursor.at += 1;
        }
    }

    fn month_name(&mut self) -> Option<()> {
        self.civil.month = self.cursor.month()?;
        self.letters();
        // Some languages write a point after a month that is cut short (`sept.`).
        let _ = self.cursor.eat(b'.');
        Some(())
    }

    fn half_day(&mut self) -> Option<()> {
        let half = self.cursor.eat_any(b"AaPp")?;
        self.cursor.eat_any(b"Mm")?;
        self.afternoon = Some(half.eq_ignore_ascii_case(&b'P'));
        Some(())
    }

    fn finish(mut self) -> Option<Moment> {
        if let Some(moment) = self.instant {
            return Some(moment);
        }
        if let Some(afternoon) = self.afternoon {
            self.civil.hour = self.civil.hour % 12 + if afternoon { 12 } else { 0 };
        }
        if let Some(day) = self.day_of_year {
            (self.civil.month, self.civil.day) = month_and_day(self.civil.year?, day)?;
        }
        self.civil.is_sane().then_some(Moment::Civil(self.civil))
    }
}

fn month_and_day(year: i32, mut day: u32) -> Option<(u8, u8)> {
    for month in 1..=12 {
        let length = u32::from(custody_event::time::days_in_month(year, month));
        if day <= length {
            return u8::try_from(day).ok().filter(|day| *day > 0).map(|day| (month, day));
        }
        day -= length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{ZoneMemo, resolve};
    use custody_event::Timestamp;
    use jiff::tz::TimeZone;

    fn read(pattern: &str, text: &str) -> Option<String> {
        let observed = Timestamp::parse("2024-06-01T00:00:00.000000Z").unwrap();
        let moment = Pattern::parse(pattern).unwrap().read(text, true)?;
        let (time, _) = resolve(moment, &TimeZone::UTC, &mut ZoneMemo::default(), observed)?;
        Some(time.to_string())
    }

    #[test]
    fn every_directive_is_read() {
        for (pattern, text, time) in [
            ("%d.%m.%Y %H:%M:%S", "13.07.2018 07:06:00", "2018-07-13T07:06:00.000000Z"),
            ("%m/%d/%Y, %I:%M:%S %p", "08/02/2023, 7:32:47 PM", "2023-08-02T19:32:47.000000Z"),
            ("%m/%d/%Y, %I:%M:%S %p", "08/02/2023, 12:32:47 AM", "2023-08-02T00:32:47.000000Z"),
            ("%y%m%d %H:%M:%S", "130324  0:04:00", "2013-03-24T00:04:00.000000Z"),
            ("%d-%b-%Y %H:%M:%S %z", "22-Jan-2013 22:28:21 +0200", "2013-01-22T20:28:21.000000Z"),
            ("%Y-%j %H:%M", "2024-060 01:02", "2024-02-29T01:02:00.000000Z"),
            ("%s", "1387288694", "2013-12-17T13:58:14.000000Z"),
            ("%F %T.%f %Z", "2017-07-31 13:36:42.585 CEST", "2017-07-31T11:36:42.585000Z"),
            ("%e %b %H:%M:%S.%f", "30 May 12:50:13.457", "2024-05-30T12:50:13.457000Z"),
            ("%d/%b/%Y:%T %z", "02/sept./2015:00:11:31 +0200", "2015-09-01T22:11:31.000000Z"),
        ] {
            assert_eq!(read(pattern, text).as_deref(), Some(time), "{pattern} {text}");
        }
        assert_eq!(read("%Y-%j %H", "2023-366 01"), None);
        assert_eq!(read("%F %T", "2024-01-01 00:00:00 and more"), None);
    }

    #[test]
    fn a_pattern_without_a_date_or_with_an_unknown_directive_is_refused() {
        for bad in ["%H:%M", "%Y-%m-%d", "%Q %s", "%", "text"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
