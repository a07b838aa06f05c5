//! The usual forms of a time, each read by a function that says how many bytes it took.

use custody_event::Timestamp;

use super::{CivilTime, Moment};

/// A moment and the bytes that it took from the front of the text.
pub(crate) type Read = Option<(Moment, usize)>;

/// What an epoch counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

/// A cursor over the bytes of a time.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    pub(super) fn eat_any(&mut self, bytes: &[u8]) -> Option<u8> {
        let byte = self.peek().filter(|byte| bytes.contains(byte))?;
        self.at += 1;
        Some(byte)
    }

    /// A number of `min` to `max` digits.
    pub(super) fn number(&mut self, min: usize, max: usize) -> Option<u32> {
        let digits =
            self.bytes[self.at..].iter().take(max).take_while(|byte| byte.is_ascii_digit()).count();
        if digits < min {
            return None;
        }
        let value = self.bytes[self.at..self.at + digits]
            .iter()
            .fold(0_u32, |sum, digit| sum.wrapping_mul(10).wrapping_add(u32::from(digit - b'0')));
        self.at += digits;
        Some(value)
    }

    /// Two digits, or a space and one digit, or one digit.
    pub(super) fn padded(&mut self) -> Option<u8> {
        if self.peek() == Some(b' ') {
            self.at += 1;
            return self.small(1, 1);
        }
        self.small(1, 2)
    }

    pub(super) fn small(&mut self, min: usize, max: usize) -> Option<u8> {
        self.number(min, max).and_then(|value| u8::try_from(value).ok())
    }

    /// `hh:mm:ss` and a fraction after `.` or `,`; the hour may have one digit, the seconds may
    /// be missing.
    pub(super) fn time_of_day(&mut self, into: &mut CivilTime) -> Option<()> {
        into.hour = self.padded()?;
        self.eat(b':')?;
        into.minute = self.small(2, 2)?;
        if self.peek() == Some(b':') {
            self.at += 1;
            into.second = self.small(2, 2)?;
            into.micros = self.fraction();
        }
        Some(())
    }

    /// The digits after a point or comma as microseconds; 0 where there are none.
    pub(super) fn fraction(&mut self) -> u32 {
        let mark = matches!(self.peek(), Some(b'.' | b','));
        if !mark || !self.bytes.get(self.at + 1).is_some_and(u8::is_ascii_digit) {
            return 0;
        }
        self.at += 1;
        self.fraction_digits()
    }

    pub(super) fn fraction_digits(&mut self) -> u32 {
        let mut micros = 0;
        let mut weight = 100_000;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            micros += u32::from(digit - b'0') * weight;
            weight /= 10;
            self.at += 1;
        }
        micros
    }

    /// `Z`, `±hh`, `±hhmm`, `±hh:mm`, each perhaps after one space, or a zone's usual letters;
    /// the cursor stays where there is none of them.
    pub(super) fn zone(&mut self) -> Option<i32> {
        let start = self.at;
        if self.peek() == Some(b' ') {
            self.at += 1;
        }
        let offset = self.offset().or_else(|| self.zone_letters());
        if offset.is_none() {
            self.at = start;
        }
        offset
    }

    /// `±hh`, `±hhmm`, `±hh:mm`, `±hh:mm:ss`.
    pub(super) fn offset(&mut self) -> Option<i32> {
        let start = self.at;
        let found = self.signed_offset();
        if found.is_none() {
            self.at = start;
        }
        found
    }

    fn signed_offset(&mut self) -> Option<i32> {
        let sign = self.eat_any(b"+-")?;
        let hours = i32::from(self.small(2, 2)?);
        let colon = self.eat(b':').is_some();
        let minutes = match self.small(2, 2) {
            Some(minutes) => i32::from(minutes),
            None if colon => return None,
            None => 0,
        };
        if hours > 23 || minutes > 59 || self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let seconds = hours * 3600 + minutes * 60;
        Some(if sign == b'-' { -seconds } else { seconds })
    }

    pub(super) fn zone_letters(&mut self) -> Option<i32> {
        let letters =
            self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        let offset = named_zone(&self.bytes[self.at..self.at + letters])?;
        self.at += letters;
        Some(offset)
    }

    /// A month's first three letters in English, any case; the rest of its name too.
    pub(super) fn month(&mut self) -> Option<u8> {
        let month = month(self.bytes.get(self.at..self.at + 3)?)?;
        self.at += 3;
        Some(month)
    }
}

/// The English month that these three letters begin.
fn month(letters: &[u8]) -> Option<u8> {
    let mut lower = [0; 3];
    for (to, from) in lower.iter_mut().zip(letters) {
        *to = from | 0x20;
    }
    Some(match &lower {
        b"jan" => 1,
        b"feb" => 2,
        b"mar" => 3,
        b"apr" => 4,
        b"may" => 5,
        b"jun" => 6,
        b"jul" => 7,
        b"aug" => 8,
        b"sep" => 9,
        b"oct" => 10,
        b"nov" => 11,
        b"dec" => 12,
        _ => return None,
    })
}

/// Zones by the letters that logs write; only such as mean one thing. They are taken literally:
/// `EST` is five hours behind in July too.
fn named_zone(letters: &[u8]) -> Option<i32> {
    let hours = match letters.to_ascii_uppercase().as_slice() {
        b"Z" | b"UTC" | b"GMT" | b"WET" => 0,
        b"CET" | b"WEST" | b"BST" => 1,
        b"CEST" | b"EET" => 2,
        b"EEST" | b"MSK" => 3,
        b"SGT" | b"HKT" => 8,
        b"JST" | b"KST" => 9,
        b"AEST" => 10,
        b"AEDT" => 11,
        b"NZST" => 12,
        b"NZDT" => 13,
        b"EDT" => -4,
        b"EST" | b"CDT" => -5,
        b"CST" | b"MDT" => -6,
        b"MST" | b"PDT" => -7,
        b"PST" => -8,
        _ => return None,
    };
    Some(hours * 3600)
}

fn done(civil: CivilTime, cursor: &Cursor<'_>) -> Read {
    civil.is_sane().then_some((Moment::Civil(civil), cursor.at))
}

/// `Dec 10 06:55:48`, also with a fraction, with a year before or after the time of day's place
/// (`Oct 10 2018 12:34:56`), with a day of one digit, with or without the padding space.
pub(crate) fn rfc3164(text: &[u8]) -> Read {
    let mut cursor = Cursor::new(text);
    let mut civil = CivilTime { month: cursor.month()?, ..CivilTime::default() };
    cursor.eat(b' ')?;
    civil.day = cursor.padded()?;
    cursor.eat(b' ')?;
    if text.get(cursor.at + 4) == Some(&b' ') {
        civil.year = Some(i32::try_from(cursor.number(4, 4)?).ok()?);
        cursor.eat(b' ')?;
    }
    cursor.time_of_day(&mut civil)?;
    done(civil, &cursor)
}

/// RFC 3339 and its relatives: `T`, `t`, a space or `_` between date and time, `-` or `/` in the
/// date, any number of fraction digits after `.` or `,`, any offset or none.
pub(crate) fn iso(text: &[u8]) -> Read {
    let mut cursor = Cursor::new(text);
    let mut civil =
        CivilTime { year: Some(i32::try_from(cursor.number(4, 4)?).ok()?), ..CivilTime::default() };
    let mark = cursor.eat_any(b"-/")?;
    civil.month = cursor.small(2, 2)?;
    cursor.eat(mark)?;
    civil.day = cursor.small(2, 2)?;
    cursor.eat_any(b"Tt _")?;
    cursor.time_of_day(&mut civil)?;
    civil.offset_s = cursor.zone();
    done(civil, &cursor)
}

/// [`iso`], but what follows after a space is never taken for a zone: for the front of a line.
pub(crate) fn iso_tight(text: &[u8]) -> Read {
    let (moment, used) = iso(text)?;
    let (Moment::Civil(civil), Some(space)) = (moment, memchr::memrchr(b' ', &text[..used])) else {
        return Some((moment, used));
    };
    // The only space that belongs to the time is the one between date and time of day.
    if space <= 10 {
        return Some((moment, used));
    }
    Some((Moment::Civil(CivilTime { offset_s: None, ..civil }), space))
}

/// Apache's common log format: `25/Oct/2016:14:49:33 +0200`.
pub(crate) fn clf(text: &[u8]) -> Read {
    let mut cursor = Cursor::new(text);
    let mut civil = CivilTime { day: cursor.small(1, 2)?, ..CivilTime::default() };
    cursor.eat(b'/')?;
    civil.month = cursor.month()?;
    cursor.eat(b'/')?;
    civil.year = Some(i32::try_from(cursor.number(4, 4)?).ok()?);
    cursor.eat_any(b": ")?;
    cursor.time_of_day(&mut civil)?;
    civil.offset_s = cursor.zone();
    done(civil, &cursor)
}

/// `Mon Dec 26 16:15:55.103522 2016`, with a zone or without; the weekday is not checked.
pub(crate) fn ctime(text: &[u8]) -> Read {
    let mut cursor = Cursor::new(text);
    weekday(&mut cursor)?;
    cursor.eat(b' ')?;
    let mut civil = CivilTime { month: cursor.month()?, ..CivilTime::default() };
    cursor.eat(b' ')?;
    civil.day = cursor.padded()?;
    cursor.eat(b' ')?;
    cursor.time_of_day(&mut civil)?;
    civil.offset_s = cursor.zone();
    cursor.eat(b' ')?;
    civil.year = Some(i32::try_from(cursor.number(4, 4)?).ok()?);
    if civil.offset_s.is_none() {
        civil.offset_s = cursor.zone();
    }
    done(civil, &cursor)
}

/// RFC 5322 (`Wed, 07 Oct 2020 13:17:44 -0400`) and `28-Mar-2022 07:01:48.459`.
pub(crate) fn day_first(text: &[u8]) -> Read {
    let mut cursor = Cursor::new(text);
    if weekday(&mut cursor).is_some() {
        cursor.eat(b',')?;
        cursor.eat(b' ')?;
    }
    let mut civil = CivilTime { day: cursor.small(1, 2)?, ..CivilTime::default() };
    let mark = cursor.eat_any(b" -")?;
    civil.month = cursor.month()?;
    cursor.eat(mark)?;
    if text.get(cursor.at + 4) == Some(&b' ') {
        civil.year = Some(i32::try_from(cursor.number(4, 4)?).ok()?);
        cursor.eat(b' ')?;
    }
    cursor.time_of_day(&mut civil)?;
    civil.offset_s = cursor.zone();
    done(civil, &cursor)
}

pub(super) fn weekday(cursor: &mut Cursor<'_>) -> Option<()> {
    let letters = cursor.bytes.get(cursor.at..cursor.at + 3)?;
    let known = [b"mon", b"tue", b"wed", b"thu", b"fri", b"sat", b"sun"];
    known.iter().any(|day| letters.eq_ignore_ascii_case(*day)).then(|| cursor.at += 3)
}

/// An epoch, perhaps with a decimal fraction. Without a unit its size tells: below 10^11 seconds
/// (until the year 5138), below 10^14 milliseconds, below 10^17 microseconds, else nanoseconds.
pub(crate) fn epoch(text: &[u8], unit: Option<Unit>) -> Read {
    let negative = text.first() == Some(&b'-');
    let start = usize::from(negative);
    let digits = text[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > 19 {
        return None;
    }
    let whole = std::str::from_utf8(&text[start..start + digits]).ok()?.parse::<i64>().ok()?;
    let mut cursor = Cursor { bytes: text, at: start + digits };
    let mut fraction = i64::from(cursor.fraction());
    // Seconds, the process and a count (`1690466804.2161960.0`): no fraction at all.
    if cursor.peek() == Some(b'.') && text.get(cursor.at + 1).is_some_and(u8::is_ascii_digit) {
        cursor.at += 1;
        cursor.number(1, 19)?;
        fraction = 0;
    }
    let unit = unit.unwrap_or(match whole {
        0..100_000_000_000 => Unit::Seconds,
        100_000_000_000..100_000_000_000_000 => Unit::Millis,
        100_000_000_000_000..100_000_000_000_000_000 => Unit::Micros,
        _ => Unit::Nanos,
    });
    let micros = match unit {
        Unit::Seconds => whole.checked_mul(1_000_000)?.checked_add(fraction)?,
        Unit::Millis => whole.checked_mul(1_000)?.checked_add(fraction / 1_000)?,
        Unit::Micros => whole,
        Unit::Nanos => whole / 1_000,
    };
    let micros = if negative { -micros } else { micros };
    let time = Timestamp::from_micros(micros);
    (time.micros() == micros).then_some((Moment::Instant(time), cursor.at))
}

/// `161209 13:08:33`, `191015  9:46:45`: MySQL's until 5.6, of this century.
pub(crate) fn short_date(text: &[u8]) -> Read {
    let mut cursor = Cursor::new(text);
    let year = cursor.number(2, 2)?;
    let (month, day) = (cursor.small(2, 2)?, cursor.small(2, 2)?);
    let mut civil = CivilTime { month, day, ..CivilTime::default() };
    civil.year = Some(2000 + i32::try_from(year).ok()?);
    cursor.eat(b' ')?;
    cursor.time_of_day(&mut civil)?;
    // `13:08` alone is none of it.
    (text.get(cursor.at.checked_sub(3)?) == Some(&b':')).then_some(())?;
    done(civil, &cursor)
}

/// `date=2020-04-23 time=12:32:48`, each with quotes or without, and `tz="-0500"` anywhere behind it.
pub(crate) fn keyed(text: &[u8]) -> Read {
    let mut cursor = Cursor::new(text.strip_prefix(b"date=")?);
    let quoted = cursor.eat(b'"').is_some();
    let mut civil =
        CivilTime { year: Some(i32::try_from(cursor.number(4, 4)?).ok()?), ..CivilTime::default() };
    cursor.eat(b'-')?;
    civil.month = cursor.small(2, 2)?;
    cursor.eat(b'-')?;
    civil.day = cursor.small(2, 2)?;
    if quoted {
        cursor.eat(b'"')?;
    }
    for sign in b" time=" {
        cursor.eat(*sign)?;
    }
    let quoted = cursor.eat(b'"').is_some();
    cursor.time_of_day(&mut civil)?;
    if quoted {
        cursor.eat(b'"')?;
    }
    let used = cursor.at;
    if let Some(zone) = memchr::memmem::find(&cursor.bytes[used..], b" tz=") {
        cursor.at = used + zone + b" tz=".len();
        let quoted = cursor.eat(b'"').is_some();
        civil.offset_s = cursor.offset();
        // Where it ends the text, it is of the time.
        let closed = !quoted || cursor.eat(b'"').is_some();
        if closed && civil.offset_s.is_some() && zone == 0 {
            return done(civil, &cursor).map(|(moment, used)| (moment, used + b"date=".len()));
        }
    }
    civil.is_sane().then_some((Moment::Civil(civil), used + b"date=".len()))
}

/// Any of the forms that cannot be taken for one another; the text must be used up.
pub(crate) fn auto(text: &str) -> Option<Moment> {
    let text = text.trim();
    let text = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let bytes = text.as_bytes();
    let whole =
        |read: Read| read.filter(|(_, used)| *used == bytes.len()).map(|(moment, _)| moment);
    whole(iso(bytes))
        .or_else(|| whole(epoch(bytes, None)).filter(|_| plausible_epoch(bytes)))
        .or_else(|| whole(clf(bytes)))
        .or_else(|| whole(rfc3164(bytes)))
        .or_else(|| whole(ctime(bytes)))
        .or_else(|| whole(day_first(bytes)))
        .or_else(|| whole(keyed(bytes)))
}

/// The time that a line begins with, in brackets or not: of the forms that nothing else looks like,
/// and with a gap behind it.
pub(crate) fn at_front(line: &str) -> Option<Moment> {
    let line = line.trim_start();
    let (text, bracketed) = match line.strip_prefix('[') {
        Some(inner) => (inner.as_bytes(), true),
        None => (line.as_bytes(), false),
    };
    let (moment, used) = match text.first()? {
        b'0'..=b'9' => iso_tight(text)
            .or_else(|| clf(text))
            .or_else(|| day_first(text))
            .or_else(|| short_date(text))
            .or_else(|| slashed(text))?,
        b'd' => keyed(text)?,
        b'A'..=b'Z' => ctime(text).or_else(|| day_first(text)).or_else(|| rfc3164(text))?,
        _ => return None,
    };
    let ends = match text.get(used) {
        None => true,
        Some(b']') => bracketed,
        Some(next) => matches!(next, b' ' | b'\t' | b',' | b';' | b':' | b'|'),
    };
    ends.then_some(moment)
}

/// `2022/02/07 - 10:49:33`, as Gin writes it.
fn slashed(text: &[u8]) -> Read {
    let mut cursor = Cursor::new(text);
    let mut civil =
        CivilTime { year: Some(i32::try_from(cursor.number(4, 4)?).ok()?), ..CivilTime::default() };
    cursor.eat(b'/')?;
    civil.month = cursor.small(2, 2)?;
    cursor.eat(b'/')?;
    civil.day = cursor.small(2, 2)?;
    for sign in b" - " {
        cursor.eat(*sign)?;
    }
    cursor.time_of_day(&mut civil)?;
    done(civil, &cursor)
}

/// How much may stand before a time that a line nearly begins with.
const BEFORE_BYTES: usize = 56;
const BEFORE_WORDS: usize = 3;

/// The time that stands behind a level, a program or a number in brackets: `ERROR    2025-07-16T19:42:45 - x`,
/// `[GIN] 2022/02/07 - 10:49:33`, `WARN: [Jul  2 05:05:24.643] x`. A time without a date is none.
pub(crate) fn near_front(line: &str) -> Option<Moment> {
    if let Some(moment) = at_front(line) {
        return Some(moment);
    }
    let bytes = line.as_bytes();
    let mut words = 0;
    for (at, byte) in bytes.iter().enumerate().take(BEFORE_BYTES) {
        let starts = at > 0 && matches!(bytes[at - 1], b' ' | b'[' | b'(' | b'|' | b'\t');
        if starts && matches!(bytes[at - 1], b' ' | b'\t') && !matches!(byte, b' ' | b'\t') {
            words += 1;
        }
        if words > BEFORE_WORDS {
            return None;
        }
        let likely = starts && (byte.is_ascii_digit() || byte.is_ascii_uppercase());
        if likely && line.is_char_boundary(at) {
            // The bracket before the time closes behind it.
            let from = if bytes[at - 1] == b'[' { at - 1 } else { at };
            let found =
                at_front(&line[from..]).or_else(|| in_brackets(&bytes[at..], bytes[at - 1]));
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

/// `(2025-07-16 19:42:45)`
fn in_brackets(text: &[u8], open: u8) -> Option<Moment> {
    let (moment, used) = iso_tight(text)?;
    (open == b'(' && text.get(used) == Some(&b')')).then_some(moment)
}

/// A number of fewer than nine digits (before 1973) is hardly a time.
fn plausible_epoch(text: &[u8]) -> bool {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count() >= 9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{ZoneMemo, resolve};

    #[test]
    fn a_line_that_begins_with_a_time_gives_it() {
        for line in [
            "[2018-10-31 15:03:32,474] TRACE [Controller id=10] x",
            "[2018-05-17T08:19:35,939][INFO ][o.e.n.Node] x",
            "2017-04-03 22:32:14.322 CEST [31225] LOG:  x",
            "2024/01/05 22:11:47 [error] 5#5: x",
            "  25/Oct/2016:14:49:33 +0200 x",
            "161209 13:08:33 mysqld_safe Starting",
            "191015  9:46:45\t 13 Query",
            "date=2020-04-23 time=12:32:48 devname=a tz=\"-0500\"",
            "[Mon Dec 26 16:15:55.103522 2016] [core:notice] x",
            "2024-02-03T10:11:12Z",
        ] {
            assert!(at_front(line).is_some(), "{line}");
        }
        for line in
            ["", "[", "2024-02-03", "10.0.0.1 x", "2024-02-03 10:11:12abc", "{\"a\":1}", "[x] 2024"]
        {
            assert!(at_front(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_line_that_nearly_begins_with_a_time_gives_it() {
        for line in [
            "ERROR    2025-07-16T19:42:45 - x",
            "[GIN] 2022/02/07 - 10:49:33 | 401",
            " [BACKEND][2024-11-29 15:58:55] 192.0.2.1:0 - x",
            "WARN: [Jul  2 05:05:24.643] x",
            "(W) 2024-11-26T13:37:03 - x",
            "11:47:34 1|app  | 2025-12-09 11:47:34: App: x",
        ] {
            assert!(near_front(line).is_some(), "{line}");
        }
        for line in [
            "192.0.2.1 said that on 2024-01-01 10:00:00 all was well",
            "é 1 2 3 4 2024-01-01 10:00:00",
            "x 10:00:00 y",
            "101112 131415",
            "991399 10:00:00 x",
        ] {
            assert!(near_front(line).is_none(), "{line}");
        }
    }
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<String> {
        let observed = Timestamp::parse("2024-06-01T00:00:00.000000Z").unwrap();
        let moment = auto(text)?;
        let (time, basis) = resolve(moment, &TimeZone::UTC, &mut ZoneMemo::default(), observed)?;
        Some(format!("{time} {}", basis.as_str()))
    }

    #[test]
    fn each_form_is_read_to_the_microsecond() {
        for (text, time) in [
            ("2024-02-18T02:29:57+08:00", "2024-02-17T18:29:57.000000Z record"),
            ("1986-04-26t01:23:45.101+0400", "1986-04-25T21:23:45.101000Z record"),
            ("2024-02-18 02:29:57,123456789 z", "2024-02-18T02:29:57.123456Z record"),
            ("2016/10/25 14:49:34", "2016-10-25T14:49:34.000000Z zone_assumed"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000000Z record"),
            ("2024-02-29T00:00:00-03", "2024-02-29T03:00:00.000000Z record"),
            ("1700000000", "2023-11-14T22:13:20.000000Z record"),
            ("1700000000.25", "2023-11-14T22:13:20.250000Z record"),
            ("1700000000123", "2023-11-14T22:13:20.123000Z record"),
            ("1700000000123456", "2023-11-14T22:13:20.123456Z record"),
            ("1700000000123456789", "2023-11-14T22:13:20.123456Z record"),
            ("10/Oct/2000:13:55:36 -0700", "2000-10-10T20:55:36.000000Z record"),
            ("May  1 00:00:00", "2024-05-01T00:00:00.000000Z year_inferred"),
            ("May 1 00:00:00.5", "2024-05-01T00:00:00.500000Z year_inferred"),
            ("Oct 10 2018 12:34:56", "2018-10-10T12:34:56.000000Z zone_assumed"),
            ("Mon Dec 26 16:15:55.103522 2016", "2016-12-26T16:15:55.103522Z zone_assumed"),
            ("Wed, 07 Oct 2020 13:17:44 -0400", "2020-10-07T17:17:44.000000Z record"),
            ("28-Mar-2022 07:01:48.459", "2022-03-28T07:01:48.459000Z zone_assumed"),
            ("1700000000.2161960.0", "2023-11-14T22:13:20.000000Z record"),
            ("date=2020-04-23 time=12:32:48", "2020-04-23T12:32:48.000000Z zone_assumed"),
            (
                "date=\"2020-04-23\" time=\"12:32:48\" tz=\"-0500\"",
                "2020-04-23T17:32:48.000000Z record",
            ),
        ] {
            assert_eq!(read(text).as_deref(), Some(time), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "x",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01",
            "12345",
            "Feb 30 00:00:00",
            "99999999999999999999",
            "2024-01-01T00:00:00+25:00",
            "Foo 1 00:00:00",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:61Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_form_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            for form in [rfc3164, iso, clf, ctime, day_first, short_date, slashed, keyed] {
                if let Some((_, used)) = form(&bytes) {
                    prop_assert!(used <= bytes.len());
                }
            }
            let _ = epoch(&bytes, None);
            let _ = near_front(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn every_canonical_time_reads_back(micros in 0_i64..4_000_000_000_000_000) {
            let time = Timestamp::from_micros(micros);
            let (moment, _) = iso(time.to_string().as_bytes()).unwrap();
            let observed = Timestamp::from_micros(0);
            let (back, _) = resolve(moment, &TimeZone::UTC, &mut ZoneMemo::default(), observed).unwrap();
            prop_assert_eq!(back, time);
        }
    }
}
