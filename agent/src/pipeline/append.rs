//! A record that may be longer than an event keeps: its event, and numbered segments with the rest.

use custody_event::{Digest, MAX_RAW_BYTES, Offset};
use custody_parsers::{Given, Run, Verdict, raw_pieces};

use super::worker::Tally;

/// Appends the events of a record, each with its line end; counts it once. Gives the record's hash
/// where it is that of the only event.
pub(super) fn append(
    run: &mut Run<'_>,
    record: &[u8],
    offset: Offset,
    segment: Option<u32>,
    given: Given<'_>,
    text: &mut Vec<u8>,
    tally: &mut Tally,
) -> Option<Digest> {
    // A secret may stand where a long record is cut: it goes before.
    let redacted = (record.len() > MAX_RAW_BYTES).then(|| run.redact(record)).flatten();
    let (record, given) = match &redacted {
        Some((clean, names)) => (clean.as_slice(), Given { redacted: Some(names), ..given }),
        None => (record, given),
    };
    let mut pieces = raw_pieces(record).skip(1).peekable();
    let segment = segment.or_else(|| pieces.peek().map(|_| 0));
    let before = text.len();
    let verdict = run.parse_given(record, offset, segment, given, text);
    end_line(text, before);
    tally.note(&verdict);
    if matches!(verdict, Verdict::Filtered { .. }) {
        return None;
    }
    for (number, piece) in (1_u32..).zip(pieces) {
        let before = text.len();
        let verdict = run.rest(piece, offset, number, given, text);
        end_line(text, before);
        tally.note_segment(&verdict);
    }
    let is_one = redacted.is_none() && !matches!(verdict, Verdict::Many(_));
    run.hash().filter(|_| is_one)
}

fn end_line(text: &mut Vec<u8>, before: usize) {
    if text.len() > before {
        text.push(b'\n');
    }
}
