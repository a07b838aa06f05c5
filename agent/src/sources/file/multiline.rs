//! Records of several lines: a stack trace, a statement, a paragraph. Pure: bytes in, lengths out.
//!
//! **Where a record ends** is decided by the bytes alone, so that whoever reads them again, at
//! whatever pace, cuts the same records: the rule looks at whole lines, and a record that may still
//! go on is not taken. Two things end a record that the rule has not ended: silence (nothing was
//! added to the file for the flush time; whole lines only), and the end of a file that has been
//! rotated away.
//!
//! **Limits.** A record of more than `max` bytes (the line end behind it not counted) comes in
//! numbered pieces, cut behind a line where one ends within the limit. A line of more than `max`
//! bytes is judged by its first `max` bytes.

use std::borrow::Cow;

use custody_parsers::audit;
use regex::bytes::Regex;

use super::cut::{Cut, Piece};
use crate::sources::{Encoding, MAX_CHUNK_BYTES, MAX_CHUNK_RECORDS, Span};

/// Which lines make one record, as the configuration says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultilineRule {
    /// A line in which this is found begins a record; all others go on with theirs.
    Start(String),
    /// A line in which this is found goes on with the record before it.
    Continue(String),
    /// A line in which this is found ends its record.
    End(String),
    /// A line that begins with a blank or a tab goes on with the record before it.
    Indent,
    /// Blank lines stand between records.
    BlankLine,
    /// Records of one event of the Linux audit system belong together.
    Auditd,
}

/// Records of several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multiline {
    /// Which lines belong together.
    pub rule: MultilineRule,
    /// A longer record comes in pieces of at most this many bytes.
    pub max_bytes: usize,
    /// A record that nothing is added to for so long is taken as it is.
    pub flush: std::time::Duration,
}

/// A rule, ready to be used.
#[derive(Debug)]
pub(crate) enum Rule {
    Start(Regex),
    Continue(Regex),
    End(Regex),
    Indent,
    BlankLine,
    Auditd,
}

/// What may come after the bytes that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Anything.
    Open,
    /// The file has been silent: whole lines are a whole record.
    Silent,
    /// Nothing: the last line need not have an end.
    Over,
}

/// One record, looked at from its beginning.
enum One {
    Whole(Span),
    /// Longer than the limit: this much of it is the next piece.
    Long(Piece),
    /// Blank lines and nothing else, more than a record may have.
    Blank(usize),
    Open,
}

struct Line {
    begin: usize,
    /// One beyond its last byte, without its line end.
    text_end: usize,
    /// Where the next one begins.
    end: usize,
    is_whole: bool,
}

/// What is looked at.
#[derive(Clone, Copy)]
struct View<'a> {
    data: &'a [u8],
    enc: Encoding,
    max: usize,
    ending: Ending,
}

impl View<'_> {
    fn line(&self, begin: usize) -> Line {
        let rest = &self.data[begin..];
        let found = self.enc.line_end(rest);
        let is_whole = found.is_some() || self.ending == Ending::Over;
        // Of a line that may go on, half a code unit says nothing yet.
        let half = if is_whole { 0 } else { rest.len() % self.enc.unit() };
        let len = found.unwrap_or(rest.len() - half);
        Line {
            begin,
            // A carriage return at the end of what is there may be one of a line end.
            text_end: begin + self.enc.strip_return(&rest[..len]).len(),
            end: found.map_or(self.data.len(), |len| begin + len + self.enc.unit()),
            is_whole,
        }
    }

    /// The part of a line that is judged, as text.
    fn head(&self, from: usize, to: usize) -> Cow<'_, [u8]> {
        let bytes = &self.data[from..to.min(from + self.max)];
        if self.enc == Encoding::Utf8 {
            return Cow::Borrowed(bytes);
        }
        let mut text = String::new();
        let _is_exact = self.enc.decode(bytes, &mut text);
        Cow::Owned(text.into_bytes())
    }

    /// A line that is longer than a record may be is none, whatever it holds.
    fn is_blank(&self, from: usize, to: usize) -> bool {
        to - from <= self.max && self.head(from, to).iter().all(u8::is_ascii_whitespace)
    }

    fn after_blanks(&self, from: usize) -> usize {
        let mut at = from;
        while at < self.data.len() {
            let line = self.line(at);
            if !line.is_whole || !self.is_blank(at, line.text_end) {
                break;
            }
            at = line.end;
        }
        at
    }

    /// The run of audit records that begins here, in which every event is complete. A line that is
    /// too long is by itself.
    fn audit_run(&self, begin: usize, goes_on: bool) -> One {
        let mut ends: Vec<(usize, usize)> = Vec::new();
        let mut is_over = self.ending != Ending::Open;
        let mut at = begin;
        let lines = std::iter::from_fn(|| {
            let line = self.line(at);
            let is_long = line.text_end - line.begin > self.max;
            is_over |= is_long || (goes_on && !ends.is_empty());
            if at >= self.data.len() || !line.is_whole || is_long || (goes_on && !ends.is_empty()) {
                return None;
            }
            ends.push((line.text_end, line.end));
            at = line.end;
            Some(&self.data[line.begin..line.text_end])
        });
        let lines: Vec<&[u8]> = lines.take(audit::MAX_RUN_LINES + 1).collect();
        match audit::run_end(lines.into_iter(), is_over) {
            audit::RunEnd::Behind(count) => {
                let (text_end, end) = ends[count.min(ends.len()) - 1];
                One::Whole(Span { begin, text_end, end })
            }
            audit::RunEnd::Open if ends.is_empty() && is_over && begin < self.data.len() => {
                let line = self.line(begin);
                match line.text_end - begin > self.max {
                    true => One::Long(self.piece(begin, None)),
                    false => One::Open,
                }
            }
            audit::RunEnd::Open => One::Open,
        }
    }

    /// The next piece of a record that is too long: its whole lines, or as much as may be.
    fn piece(&self, begin: usize, lines: Option<(usize, usize)>) -> Piece {
        let lines = lines.filter(|(text_end, _)| *text_end > begin);
        let (text_end, used) = lines.unwrap_or((begin + self.max, begin + self.max));
        Piece { begin, len: text_end - begin, used, ends: false }
    }
}

impl Rule {
    pub(crate) fn of(rule: &MultilineRule) -> Result<Self, regex::Error> {
        Ok(match rule {
            MultilineRule::Start(pattern) => Self::Start(Regex::new(pattern)?),
            MultilineRule::Continue(pattern) => Self::Continue(Regex::new(pattern)?),
            MultilineRule::End(pattern) => Self::End(Regex::new(pattern)?),
            MultilineRule::Indent => Self::Indent,
            MultilineRule::BlankLine => Self::BlankLine,
            MultilineRule::Auditd => Self::Auditd,
        })
    }

    /// What can be taken from the front of `data`.
    pub(crate) fn cut(
        &self,
        data: &[u8],
        segment: u32,
        enc: Encoding,
        max: usize,
        ending: Ending,
    ) -> Cut {
        let view = View { data, enc, max, ending };
        let mut spans: Vec<Span> = Vec::new();
        let mut at = 0;
        while at < data.len() && spans.len() < MAX_CHUNK_RECORDS {
            match self.one(&view, at, segment > 0) {
                // An over-long record may end with empty lines.
                One::Whole(span) if segment > 0 && span.text_end == span.begin => {
                    return Cut::Skip(span.end, true);
                }
                One::Whole(Span { begin, text_end, end }) if segment > 0 => {
                    let len = text_end - begin;
                    return Cut::Piece(Piece { begin, len, used: end, ends: true });
                }
                One::Whole(span) if span.end <= MAX_CHUNK_BYTES || spans.is_empty() => {
                    at = span.end;
                    spans.push(span);
                }
                One::Long(piece) if spans.is_empty() => return Cut::Piece(piece),
                One::Blank(len) if spans.is_empty() => return Cut::Skip(len, true),
                _ => break,
            }
        }
        if spans.is_empty() { Cut::Wait } else { Cut::Spans(spans) }
    }

    /// The record that begins at `from`. `goes_on`: it is the rest of an over-long one. A piece is
    /// cut only where more of its record is known to follow, so that the first line belongs to it.
    fn one(&self, view: &View<'_>, from: usize, goes_on: bool) -> One {
        if matches!(self, Self::Auditd) {
            return view.audit_run(from, goes_on);
        }
        let is_by_blanks = matches!(self, Self::BlankLine);
        let begin = if is_by_blanks && !goes_on { view.after_blanks(from) } else { from };
        if begin > from
            && (begin == view.data.len() && view.ending != Ending::Open || begin - from > view.max)
        {
            return One::Blank(begin - from);
        }
        let mut at = begin;
        // Where the whole lines so far end, without the last line end and with it.
        let mut lines: Option<(usize, usize)> = None;
        while at < view.data.len() {
            let line = view.line(at);
            if let Some((text_end, end)) = lines {
                let closes = is_by_blanks && line.is_whole && view.is_blank(at, line.text_end);
                match self.belongs(view, at, &line) {
                    Some(true) if closes => {
                        return One::Whole(Span { begin, text_end, end: line.end });
                    }
                    Some(true) => {}
                    Some(false) => return One::Whole(Span { begin, text_end, end }),
                    None => break,
                }
            }
            if line.text_end - begin > view.max {
                return One::Long(view.piece(begin, lines));
            }
            if !line.is_whole {
                break;
            }
            lines = Some((line.text_end, line.end));
            at = line.end;
            if let Self::End(pattern) = self
                && pattern.is_match(&view.head(line.begin, line.text_end))
            {
                return One::Whole(Span { begin, text_end: line.text_end, end: line.end });
            }
        }
        match (view.ending, lines) {
            (Ending::Open, _) | (_, None) => One::Open,
            (_, Some((text_end, end))) => One::Whole(Span { begin, text_end, end }),
        }
    }

    /// Does a line go on with the record before it? `None`: that cannot be said before it is whole.
    fn belongs(&self, view: &View<'_>, at: usize, line: &Line) -> Option<bool> {
        let is_known = line.is_whole || line.text_end - at > view.max;
        let found = |pattern: &Regex| pattern.is_match(&view.head(at, line.text_end));
        match self {
            Self::End(_) | Self::Auditd => Some(true),
            Self::BlankLine => (is_known || !view.is_blank(at, line.text_end)).then_some(true),
            Self::Start(pattern) => is_known.then(|| !found(pattern)),
            Self::Continue(pattern) => is_known.then(|| found(pattern)),
            Self::Indent => {
                let first = view.head(at, line.text_end.min(at + view.enc.unit()));
                let has_first = line.text_end - at >= view.enc.unit();
                (is_known || has_first).then(|| first.starts_with(b" ") || first.starts_with(b"\t"))
            }
        }
    }

    /// Are there whole lines that wait for what comes after them?
    pub(crate) fn holds_back(&self, rest: &[u8], segment: u32, enc: Encoding, max: usize) -> bool {
        self.cut(rest, segment, enc, max, Ending::Silent) != Cut::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules() -> Vec<Rule> {
        let pattern = |text: &str| text.to_owned();
        [
            MultilineRule::Start(pattern("^[0-9]")),
            MultilineRule::Continue(pattern("^(\\s|Caused by)")),
            MultilineRule::End(pattern(";$")),
            MultilineRule::Indent,
            MultilineRule::BlankLine,
        ]
        .iter()
        .map(|rule| Rule::of(rule).unwrap())
        .collect()
    }

    /// What comes of `data` if it becomes visible in steps: records as (first byte, text, piece).
    fn read(
        rule: &Rule,
        enc: Encoding,
        max: usize,
        data: &[u8],
        steps: &[usize],
    ) -> Vec<(usize, Vec<u8>, u32)> {
        let (mut from, mut segment, mut out) = (0, 0, Vec::new());
        let ends = steps.iter().map(|end| ((*end).min(data.len()), Ending::Open));
        for (end, ending) in ends.chain([(data.len(), Ending::Over)]) {
            loop {
                let rest = &data[from..end.max(from)];
                let before = (from, segment);
                match rule.cut(rest, segment, enc, max, ending) {
                    Cut::Spans(spans) => {
                        for span in &spans {
                            assert!(span.begin < span.text_end.max(span.end));
                            let text = rest[span.begin..span.text_end].to_vec();
                            out.push((from + span.begin, text, 0));
                        }
                        from += spans.last().unwrap().end;
                    }
                    Cut::Piece(piece) => {
                        let text = rest[piece.begin..piece.begin + piece.len].to_vec();
                        assert!(!text.is_empty() && text.len() <= max);
                        out.push((from + piece.begin, text, segment));
                        (from, segment) =
                            (from + piece.used, if piece.ends { 0 } else { segment + 1 });
                    }
                    Cut::Skip(len, _) => from += len,
                    Cut::Wait => break,
                    Cut::Lines(_) => panic!("not of this room"),
                }
                assert_ne!(before, (from, segment), "no step forward");
            }
        }
        assert_eq!(from, data.len(), "everything is taken at the end");
        out
    }

    fn texts(rule: &Rule, data: &str) -> Vec<String> {
        let records = read(rule, Encoding::Utf8, 1024, data.as_bytes(), &[]);
        records.into_iter().map(|(_, text, _)| String::from_utf8(text).unwrap()).collect()
    }

    #[test]
    fn each_rule_makes_the_records_that_people_see() {
        let [start, goes_on, end, indent, blank] = &rules()[..] else { panic!("five") };
        let trace = "stray\n1 error\r\n\tat a\nCaused by: b\n2 fine\n";
        assert_eq!(texts(start, trace), ["stray", "1 error\r\n\tat a\nCaused by: b", "2 fine"]);
        assert_eq!(texts(goes_on, "x\n y\nCaused by z\nw\nv"), ["x\n y\nCaused by z", "w", "v"]);
        assert_eq!(
            texts(end, "select 1\nfrom a;\ndrop b;\nrest"),
            ["select 1\nfrom a;", "drop b;", "rest"]
        );
        assert_eq!(texts(indent, "a\n\tb\n c\n\nd\n"), ["a\n\tb\n c", "", "d"]);
        assert_eq!(texts(blank, "\n\na\nb\n\n \r\nc\n\n\n"), ["a\nb", "c"]);
    }

    #[test]
    fn a_record_waits_for_what_ends_it_and_only_then_is_taken() {
        let [start, _, end, indent, blank] = &rules()[..] else { panic!("five") };
        let cut = |rule: &Rule, data: &str, ending| {
            rule.cut(data.as_bytes(), 0, Encoding::Utf8, 64, ending)
        };
        let whole = |text_end, end| Cut::Spans(vec![Span { begin: 0, text_end, end }]);
        assert_eq!(cut(start, "1 a\n b\n", Ending::Open), Cut::Wait);
        assert_eq!(cut(start, "1 a\n b\n2", Ending::Open), Cut::Wait, "the line may go on");
        assert_eq!(cut(start, "1 a\n b\n2\n", Ending::Open), whole(6, 7));
        assert_eq!(cut(start, "1 a\n b\n2", Ending::Silent), whole(6, 7));
        assert_eq!(cut(start, "1 a", Ending::Silent), Cut::Wait, "a line without its end waits");
        assert_eq!(cut(end, "a\nb;", Ending::Open), Cut::Wait);
        assert_eq!(cut(end, "a\nb;\n", Ending::Open), whole(4, 5));
        assert_eq!(cut(indent, "a\n b\nc", Ending::Open), whole(4, 5), "its first byte says it");
        assert_eq!(cut(blank, "a\nb\n", Ending::Open), Cut::Wait);
        assert_eq!(cut(blank, "a\nb\n\n", Ending::Open), whole(3, 5));
        assert_eq!(cut(blank, "\n\n", Ending::Silent), Cut::Skip(2, true));
    }

    #[test]
    fn audit_records_are_cut_where_every_event_is_complete() {
        let cut =
            |data: &str, ending| Rule::Auditd.cut(data.as_bytes(), 0, Encoding::Utf8, 4096, ending);
        let line = |kind: &str, serial: u32| format!("type={kind} msg=audit(1.2:{serial}): a=b\n");
        let spans = |ends: &[usize]| {
            let mut begin = 0;
            let spans = ends.iter().map(|end| {
                let span = Span { begin, text_end: end - 1, end: *end };
                begin = *end;
                span
            });
            Cut::Spans(spans.collect())
        };
        let one = [line("SYSCALL", 7), line("CWD", 7)].concat();
        assert_eq!(cut(&one, Ending::Open), Cut::Wait);
        assert_eq!(cut(&one, Ending::Silent), spans(&[one.len()]));
        let whole = one.clone() + &line("PROCTITLE", 7);
        assert_eq!(cut(&whole, Ending::Open), spans(&[whole.len()]));
        let login = whole.clone() + &line("USER_LOGIN", 8);
        assert_eq!(cut(&login, Ending::Open), spans(&[whole.len(), login.len()]));
        let begun = login.clone() + &line("SYSCALL", 9) + "type=CW";
        assert_eq!(cut(&begun, Ending::Open), spans(&[whole.len(), login.len()]));
        let mixed =
            [line("SYSCALL", 1), line("SYSCALL", 2), line("PROCTITLE", 2), line("PROCTITLE", 1)]
                .concat();
        assert_eq!(cut(&mixed, Ending::Open), spans(&[mixed.len()]));
        assert_eq!(cut("no record at all\n", Ending::Open), spans(&[17]));
        let long = "x".repeat(5_000);
        let Cut::Piece(piece) = cut(&long, Ending::Open) else { panic!("a piece") };
        assert_eq!((piece.begin, piece.len, piece.ends), (0, 4096, false));
        let before = whole.clone() + &long;
        assert_eq!(cut(&before, Ending::Open), spans(&[whole.len()]));
    }

    #[test]
    fn an_over_long_record_is_cut_behind_a_line_and_its_pieces_are_numbered() {
        let start = &rules()[0];
        let data = b"1 34567\n abcdef\n abcdef\n 0123456789abcdefghij\n x\n2\n";
        let records = read(start, Encoding::Utf8, 16, data, &[]);
        let shown: Vec<(usize, &str, u32)> = records
            .iter()
            .map(|(at, text, piece)| (*at, std::str::from_utf8(text).unwrap(), *piece))
            .collect();
        assert_eq!(
            shown,
            [
                (0, "1 34567\n abcdef", 0),
                (16, " abcdef", 1),
                (24, " 0123456789abcde", 2),
                (40, "fghij\n x", 3),
                (49, "2", 0)
            ]
        );
    }

    fn texts_of_lines() -> impl Strategy<Value = String> {
        let words = [
            "1 ",
            "2",
            " ",
            "\t",
            "a",
            "Caused by",
            ";",
            "\n",
            "\n",
            "\r\n",
            "\n\n",
            "\u{a0a}",
            "x".repeat(9).leak(),
        ];
        proptest::collection::vec(proptest::sample::select(words.to_vec()), 0..60)
            .prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn records_do_not_depend_on_how_much_was_there_when(
            text in texts_of_lines(),
            mut steps in proptest::collection::vec(0_usize..200, 0..12),
            max in 6_usize..40,
        ) {
            steps.sort_unstable();
            for enc in [Encoding::Utf8, Encoding::Utf16Le, Encoding::Utf16Be] {
                let max = max - max % 2;
                let data = enc.encode(&text).unwrap();
                for rule in &rules() {
                    let whole = read(rule, enc, max, &data, &[]);
                    prop_assert_eq!(&whole, &read(rule, enc, max, &data, &steps), "{:?}", rule);
                    for pair in whole.windows(2) {
                        prop_assert!(pair[0].0 + pair[0].1.len() <= pair[1].0);
                    }
                    // Nothing but line ends and blank lines stands between the records.
                    let kept: usize = whole.iter().map(|(_, text, _)| text.len()).sum();
                    let mut dropped = data.clone();
                    for (at, text, _) in whole.iter().rev() {
                        dropped.drain(*at..at + text.len());
                    }
                    prop_assert_eq!(kept + dropped.len(), data.len());
                    let mut rest = String::new();
                    enc.decode(&dropped, &mut rest);
                    prop_assert!(rest.chars().all(char::is_whitespace), "{:?} {:?}", rule, rest);
                }
            }
        }
    }
}
