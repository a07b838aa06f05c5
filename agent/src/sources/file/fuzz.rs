//! For [`crate::fuzz`]: bytes in, what was cut out of them.

use std::io::Read;

use super::content::Members;
use super::cut::{Cut, Cutter, Piece};
use super::multiline::{Ending, MultilineRule, Rule};
use crate::sources::Encoding;

/// What stands in these members of gzip.
pub(crate) fn members(packed: &[u8]) -> impl Read {
    Members::new(packed)
}

fn rule(which: u8) -> Option<Rule> {
    let rule = match which % 7 {
        0 => return None,
        1 => MultilineRule::Start("^[0-9]".into()),
        2 => MultilineRule::Continue("^(\\s|Caused by)".into()),
        3 => MultilineRule::End(";$".into()),
        4 => MultilineRule::Indent,
        5 => MultilineRule::BlankLine,
        _ => MultilineRule::Auditd,
    };
    Rule::of(&rule).ok()
}

pub(crate) fn is_auditd(which: u8) -> bool {
    matches!(rule(which), Some(Rule::Auditd))
}

/// Begin and end of everything that is cut, if `step` bytes more are visible each time and in the
/// end it is known that no more come.
pub(crate) fn cut_all(
    which: u8,
    max: usize,
    encoding: Encoding,
    data: &[u8],
    step: usize,
) -> Vec<(usize, usize)> {
    let cutter = Cutter { max, rule: rule(which) };
    let (mut at, mut segment, mut visible) = (0, 0, 0);
    let mut all = Vec::new();
    loop {
        let ending = if visible >= data.len() { Ending::Over } else { Ending::Open };
        let view = &data[at..visible.min(data.len())];
        match cutter.cut(view, segment, encoding, ending) {
            Cut::Wait if ending == Ending::Over => return all,
            Cut::Wait => visible += step,
            Cut::Lines(len) => {
                assert!(0 < len && len <= view.len());
                // One by one: how many are taken at once is no matter.
                let mut begin = at;
                for end in memchr::memchr_iter(b'\n', &view[..len]) {
                    all.push((begin, at + end));
                    begin = at + end + 1;
                }
                at += len;
            }
            Cut::Spans(spans) => {
                assert!(!spans.is_empty());
                for span in &spans {
                    assert!(span.begin <= span.text_end && span.text_end <= span.end);
                    assert!(span.end <= view.len());
                    all.push((at + span.begin, at + span.text_end));
                }
                at += spans.last().map_or(0, |span| span.end);
            }
            Cut::Piece(Piece { begin, len, used, ends }) => {
                assert!(used > 0 && begin + len <= used && used <= view.len());
                all.push((at + begin, at + begin + len));
                at += used;
                segment = if ends { 0 } else { segment + 1 };
            }
            Cut::Skip(len, _) => {
                assert!(0 < len && len <= view.len());
                at += len;
                segment = 0;
            }
        }
    }
}
