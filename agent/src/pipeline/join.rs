//! Records that are joined to one event: those of one serial number of the Linux audit system.
//!
//! The file source hands them on as one record of several lines, a run in which every event is
//! complete ([`custody_parsers::audit`]); here the run comes apart into events. So the position, which
//! stands only before and behind whole runs, is never ahead of an event, and never within one.
//!
//! An event's id is made from the offset of its first line and from its lines: it does not depend on
//! what else was in the run.

use custody_event::Offset;
use custody_parsers::{Given, Run, audit};

use super::append::append;
use super::worker::{Tally, len_u64, strip_return};

/// What becomes of records that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Join {
    /// Every record is an event.
    #[default]
    None,
    /// One event of all.
    Joined,
    /// One event of all, and one of each.
    Both,
}

/// The number of a joined event at its first record's offset; the record itself is 0 there.
const JOINED_INDEX: u32 = 1;

/// Appends the events of a run whose first byte stands at `from`.
pub(super) fn run_of(
    run: &mut Run<'_>,
    join: Join,
    bytes: &[u8],
    from: Offset,
    text: &mut Vec<u8>,
    tally: &mut Tally,
) {
    let mut lines = Vec::new();
    let mut at = 0;
    for line in bytes.split(|byte| *byte == b'\n') {
        lines.push((from.plus(len_u64(at)), strip_return(line)));
        at += line.len() + 1;
    }
    let records: Vec<&[u8]> = lines.iter().map(|(_, line)| *line).collect();
    let mut joined = Vec::new();
    for event in audit::events(&records) {
        if event.len() == 1 || join == Join::Both {
            for (offset, line) in event.iter().map(|number| lines[*number]) {
                append(run, line, offset, None, Given::default(), text, tally);
            }
        }
        let Some((offset, _)) = event.first().filter(|_| event.len() > 1).map(|at| lines[*at])
        else {
            continue;
        };
        joined.clear();
        for (number, (_, line)) in event.iter().map(|number| lines[*number]).enumerate() {
            if number > 0 {
                joined.push(b'\n');
            }
            joined.extend_from_slice(line);
        }
        let given = Given { index: JOINED_INDEX, ..Given::default() };
        append(run, &joined, offset, None, given, text, tally);
    }
}
