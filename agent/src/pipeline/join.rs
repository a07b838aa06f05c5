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
        append(run, &joined, offset, None, Given::default(), text, tally);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_event::{FileKey, MAX_RAW_BYTES, Timestamp};
    use custody_parsers::{Envelope, PackSet, Scratch, Select, Settings};
    use serde_json::Value;

    fn line(kind: &str, serial: u32, more: &str) -> String {
        format!("type={kind} msg=audit(1700000000.000:{serial}): {more}\n")
    }

    fn events(join: Join, from: u64, text: &str) -> (Vec<Value>, Tally) {
        let select = Select::Names(vec!["auditd".into()]);
        let parser =
            PackSet::with_builtin(&[]).unwrap().select(&select, Settings::default()).unwrap();
        let envelope =
            Envelope { file: FileKey([7; 16]), ..Envelope::bare(Timestamp::from_micros(0)) };
        let (mut out, mut tally, mut scratch) = (Vec::new(), Tally::new(), Scratch::default());
        let mut run = parser.run(&mut scratch, &envelope);
        let bytes = text.trim_end().as_bytes();
        run_of(&mut run, join, bytes, Offset(from), &mut out, &mut tally);
        let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        (lines.map(|line| serde_json::from_slice(line).unwrap()).collect(), tally)
    }

    fn mixed() -> String {
        [
            line("SYSCALL", 1, "arch=c000003e syscall=59 success=yes auid=1 uid=0 exe=\"/bin/a\""),
            line("SYSCALL", 2, "arch=c000003e syscall=59 success=no auid=2 uid=0 exe=\"/bin/b\""),
            line("EXECVE", 2, "argc=1 a0=\"b\""),
            line("EXECVE", 1, "argc=1 a0=\"a\""),
            line("EOE", 2, ""),
        ]
        .concat()
    }

    #[test]
    fn mixed_records_come_apart_and_every_one_is_counted() {
        let (found, tally) = events(Join::Joined, 100, &mixed());
        assert_eq!(found.len(), 2);
        for (event, exe) in found.iter().zip(["a", "b"]) {
            assert_eq!(event["action"], "process.execute");
            assert_eq!(event["targets"][0]["name"], format!("/bin/{exe}"));
            assert_eq!(event["details"]["command"], exe);
            assert_eq!(event["origin"]["raw"].as_str().unwrap().lines().count(), 2);
        }
        assert_eq!(found[1]["outcome"], "failure");
        assert_eq!((tally.book.read, tally.book.stored, tally.book.filtered), (3, 2, 1));
        let (both, tally) = events(Join::Both, 100, &mixed());
        assert_eq!(both.len(), 6);
        assert_eq!((tally.book.read, tally.book.stored, tally.book.filtered), (7, 6, 1));
        let mut ids: Vec<&str> = both.iter().map(|event| event["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 6, "a record and the event that it is the first of differ");
    }

    #[test]
    fn an_events_id_does_not_depend_on_what_else_is_in_its_run() {
        let mixed = mixed();
        let (all, _) = events(Join::Joined, 100, &mixed);
        let first = line("SYSCALL", 9, "arch=c000003e syscall=59");
        let (later, _) =
            events(Join::Joined, 100 - u64::try_from(first.len()).unwrap(), &(first + &mixed));
        assert_eq!(all[0]["id"], later[1]["id"]);
        assert_eq!(all[1]["id"], later[2]["id"]);
        assert_eq!(all[0]["origin"]["offset"], 100);
    }

    #[test]
    fn an_event_that_is_longer_than_one_keeps_is_whole_in_its_segments() {
        let mut text = line("SYSCALL", 1, "arch=c000003e syscall=59 success=yes");
        for item in 0..300 {
            text += &line(
                "PATH",
                1,
                &format!("item={item} name=\"/{}\" nametype=NORMAL", "x".repeat(200)),
            );
        }
        assert!(text.len() > 2 * MAX_RAW_BYTES);
        let (found, tally) = events(Join::Joined, 0, &text);
        let raw: String =
            found.iter().map(|event| event["origin"]["raw"].as_str().unwrap()).collect();
        assert_eq!(raw, text.trim_end());
        assert!(found.len() > 2);
        assert_eq!(tally.book.stored, len_u64(found.len()));
    }
}
