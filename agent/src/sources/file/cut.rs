//! Cuts bytes into chunks of whole records. Pure: bytes in, lengths out.
//!
//! A line of up to `max_line` bytes (its `\n` not counted) is a record. A longer one comes in
//! pieces of exactly `max_line` bytes, the last one shorter. A piece is cut only when the byte
//! after it is known, so that no last piece is ever empty.

use crate::sources::{MAX_CHUNK_BYTES, MAX_CHUNK_RECORDS};

/// `FilePosition::segment` of a content that is read to its end and will not be read again.
pub(crate) const FINISHED: u32 = u32::MAX;
/// `FilePosition::segment` where the rest of the line is to be left out (a start at the end of a
/// file that stood in the middle of a line).
pub(crate) const SKIP_LINE: u32 = u32::MAX - 1;

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// This many bytes are whole lines.
    Lines(usize),
    /// This many bytes are one piece of an over-long line; true: the line's `\n` follows them.
    Piece(usize, bool),
    /// This many bytes belong to a line that is left out; true: its end is among them.
    Skip(usize, bool),
    /// Nothing yet: the line's end has not come.
    Wait,
}

/// What can be taken from the front of `data`.
pub(crate) fn cut(data: &[u8], segment: u32, max_line: usize) -> Cut {
    if data.is_empty() {
        return Cut::Wait;
    }
    match segment {
        0 => lines(data, max_line),
        SKIP_LINE => skip(data),
        _ => piece(data, max_line),
    }
}

fn skip(data: &[u8]) -> Cut {
    match memchr::memchr(b'\n', data) {
        Some(end) => Cut::Skip(end + 1, true),
        None => Cut::Skip(data.len(), false),
    }
}

fn piece(data: &[u8], max_line: usize) -> Cut {
    let window = &data[..data.len().min(max_line + 1)];
    match memchr::memchr(b'\n', window) {
        Some(end) => Cut::Piece(end, true),
        None if window.len() > max_line => Cut::Piece(max_line, false),
        None => Cut::Wait,
    }
}

fn lines(data: &[u8], max_line: usize) -> Cut {
    let window = &data[..data.len().min(MAX_CHUNK_BYTES)];
    let mut end = 0;
    let mut records = 0;
    for newline in memchr::memchr_iter(b'\n', window) {
        if newline - end > max_line {
            break;
        }
        end = newline + 1;
        records += 1;
        if records == MAX_CHUNK_RECORDS {
            break;
        }
    }
    if end > 0 { Cut::Lines(end) } else { piece(data, max_line) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(cut(b"0123456789abcdefg", 0, max), Cut::Piece(16, false));
        assert_eq!(cut(b"g\nnext\n", 1, max), Cut::Piece(1, true));
        assert_eq!(cut(b"ok\n0123456789abcdefg\n", 0, max), Cut::Lines(3));
    }

    #[test]
    fn the_last_piece_of_a_line_of_whole_pieces_is_not_empty() {
        let max = 4;
        assert_eq!(cut(b"bbbb", 1, max), Cut::Wait);
        assert_eq!(cut(b"bbbb\n", 1, max), Cut::Piece(4, true));
    }

    #[test]
    fn the_rest_of_a_skipped_line_is_left_out_up_to_its_end() {
        assert_eq!(cut(b"rest\nnext\n", SKIP_LINE, 16), Cut::Skip(5, true));
        assert_eq!(cut(b"rest", SKIP_LINE, 16), Cut::Skip(4, false));
    }
}
