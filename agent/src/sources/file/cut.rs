//! Cuts bytes into chunks of whole records. Pure: bytes in, lengths out.
//!
//! A line of up to `max` bytes (its line end not counted) is a record. A longer one comes in
//! pieces of exactly `max` bytes, the last one shorter. A piece is cut only when the byte after it
//! is known, so that no last piece is ever empty. Records of several lines are cut by
//! [`super::multiline`] with the same words.

use super::multiline::{Ending, Rule};
use crate::sources::{Encoding, MAX_CHUNK_BYTES, MAX_CHUNK_RECORDS, Span};

/// `FilePosition::segment` of a content that is read to its end and will not be read again.
pub(crate) const FINISHED: u32 = u32::MAX;
/// `FilePosition::segment` where the rest of the line is to be left out (a start at the end of a
/// file that stood in the middle of a line).
pub(crate) const SKIP_LINE: u32 = u32::MAX - 1;

/// What the next bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cut {
    /// This many bytes are whole lines.
    Lines(usize),
    /// Whole records: at least one.
    Spans(Vec<Span>),
    /// One piece of an over-long record.
    Piece(Piece),
    /// This many bytes belong to a line that is left out; true: its end is among them.
    Skip(usize, bool),
    /// Nothing yet: the record's end has not come.
    Wait,
}

/// A piece of an over-long record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its first byte.
    pub(crate) begin: usize,
    /// Its bytes.
    pub(crate) len: usize,
    /// Where the next bytes begin: a line end may lie between.
    pub(crate) used: usize,
    /// It is the record's last.
    pub(crate) ends: bool,
}

/// How records are cut.
#[derive(Debug)]
pub(crate) struct Cutter {
    /// A record's bytes, at most; longer ones come in pieces.
    pub(crate) max: usize,
    /// Records of several lines.
    pub(crate) rule: Option<Rule>,
}

impl Cutter {
    /// The longest record of a file in this encoding.
    pub(crate) fn max_of(&self, encoding: Encoding) -> usize {
        let max = self.max.min(encoding.most_bytes());
        max - max % encoding.unit()
    }

    /// What can be taken from the front of `data`, which begins at a record or within an over-long
    /// one.
    pub(crate) fn cut(&self, data: &[u8], segment: u32, enc: Encoding, ending: Ending) -> Cut {
        if data.is_empty() {
            return Cut::Wait;
        }
        let max = self.max_of(enc);
        match (segment, &self.rule) {
            (SKIP_LINE, _) => skip(data, enc),
            (_, Some(rule)) => rule.cut(data, segment, enc, max, ending),
            (0, None) => match enc.unit() {
                1 => lines(data, max),
                _ => spans(data, enc, max),
            },
            (_, None) => piece(data, enc, max),
        }
    }
}

fn skip(data: &[u8], enc: Encoding) -> Cut {
    match enc.line_end(data) {
        Some(end) => Cut::Skip(end + enc.unit(), true),
        None => match data.len() - data.len() % enc.unit() {
            0 => Cut::Wait,
            len => Cut::Skip(len, false),
        },
    }
}

fn piece(data: &[u8], enc: Encoding, max: usize) -> Cut {
    let window = &data[..data.len().min(max + enc.unit())];
    let piece = |len, used, ends| Cut::Piece(Piece { begin: 0, len, used, ends });
    match enc.line_end(window) {
        Some(end) => piece(end, end + enc.unit(), true),
        // Half a line end may be there already.
        None if window.len() == max + enc.unit() => piece(max, max, false),
        None => Cut::Wait,
    }
}

fn lines(data: &[u8], max: usize) -> Cut {
    let window = &data[..data.len().min(MAX_CHUNK_BYTES)];
    let mut end = 0;
    let mut records = 0;
    for newline in memchr::memchr_iter(b'\n', window) {
        if newline - end > max {
            break;
        }
        end = newline + 1;
        records += 1;
        if records == MAX_CHUNK_RECORDS {
            break;
        }
    }
    if end > 0 { Cut::Lines(end) } else { piece(data, Encoding::Utf8, max) }
}

/// Lines whose ends are not single bytes.
fn spans(data: &[u8], enc: Encoding, max: usize) -> Cut {
    let window = &data[..data.len().min(MAX_CHUNK_BYTES)];
    let mut spans = Vec::new();
    let mut at = 0;
    while spans.len() < MAX_CHUNK_RECORDS
        && let Some(len) = enc.line_end(&window[at..])
        && len <= max
    {
        let line = enc.strip_return(&window[at..at + len]);
        let end = at + len + enc.unit();
        spans.push(Span { begin: at, text_end: at + line.len(), end });
        at = end;
    }
    if spans.is_empty() { piece(data, enc, max) } else { Cut::Spans(spans) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(data: &[u8], segment: u32, max: usize) -> Cut {
        Cutter { max, rule: None }.cut(data, segment, Encoding::Utf8, Ending::Open)
    }

    fn piece(len: usize, ends: bool) -> Cut {
        Cut::Piece(Piece { begin: 0, len, used: len + usize::from(ends), ends })
    }

    #[test]
    fn whole_lines_are_taken_and_the_started_one_is_left() {
        assert_eq!(cut(b"a\nbb\nccc", 0, 1024), Cut::Lines(5));
        assert_eq!(cut(b"ccc", 0, 1024), Cut::Wait);
        assert_eq!(cut(b"", 0, 1024), Cut::Wait);
        assert_eq!(cut(b"\n", 0, 1024), Cut::Lines(1));
    }

    #[test]
    fn a_chunk_holds_no_more_records_and_bytes_than_the_contract_says() {
        assert_eq!(cut(&b"x\n".repeat(5_000), 0, 1024), Cut::Lines(2 * MAX_CHUNK_RECORDS));
        let long = [vec![b'x'; 10_000], vec![b'\n']].concat().repeat(100);
        let Cut::Lines(len) = cut(&long, 0, 16_384) else { panic!("lines") };
        assert!(len <= MAX_CHUNK_BYTES && len % 10_001 == 0 && len + 10_001 > MAX_CHUNK_BYTES);
    }

    #[test]
    fn a_line_one_byte_too_long_is_cut_and_one_just_long_enough_is_not() {
        let max = 16;
        assert_eq!(cut(b"0123456789abcdef\n", 0, max), Cut::Lines(17));
        assert_eq!(cut(b"0123456789abcdef", 0, max), Cut::Wait);
        assert_eq!(cut(b"0123456789abcdefg", 0, max), piece(16, false));
        assert_eq!(cut(b"g\nnext\n", 1, max), piece(1, true));
        assert_eq!(cut(b"ok\n0123456789abcdefg\n", 0, max), Cut::Lines(3));
    }

    #[test]
    fn the_last_piece_of_a_line_of_whole_pieces_is_not_empty() {
        let max = 4;
        assert_eq!(cut(b"bbbb", 1, max), Cut::Wait);
        assert_eq!(cut(b"bbbb\n", 1, max), piece(4, true));
    }

    #[test]
    fn the_rest_of_a_skipped_line_is_left_out_up_to_its_end() {
        assert_eq!(cut(b"rest\nnext\n", SKIP_LINE, 16), Cut::Skip(5, true));
        assert_eq!(cut(b"rest", SKIP_LINE, 16), Cut::Skip(4, false));
    }

    #[test]
    fn lines_of_two_byte_units_end_at_their_own_line_ends_and_are_cut_between_units() {
        for enc in [Encoding::Utf16Le, Encoding::Utf16Be] {
            let cutter = Cutter { max: 9, rule: None };
            assert_eq!(cutter.max_of(enc), 8);
            let text = |text: &str| enc.encode(text).unwrap();
            let cut = |data: &[u8], segment| cutter.cut(data, segment, enc, Ending::Open);
            let two =
                [Span { begin: 0, text_end: 4, end: 8 }, Span { begin: 8, text_end: 14, end: 16 }];
            assert_eq!(cut(&text("a\u{a0a}\r\n\u{a41}bc\nrest"), 0), Cut::Spans(two.to_vec()));
            assert_eq!(cut(&text("abcd"), 0), Cut::Wait);
            assert_eq!(
                cut(&text("abcde"), 0),
                Cut::Piece(Piece { begin: 0, len: 8, used: 8, ends: false })
            );
            assert_eq!(
                cut(&text("e\n"), 1),
                Cut::Piece(Piece { begin: 0, len: 2, used: 4, ends: true })
            );
            let half = text("ab\n");
            assert_eq!(cut(&half[..5], 0), Cut::Wait);
            assert_eq!(cut(&half[..5], SKIP_LINE), Cut::Skip(4, false));
        }
    }
}
