//! Which records of the Linux audit system belong to one event: those with the same stamp,
//! `audit(time:serial)`, of the same node.
//!
//! Records of one event mostly stand one behind the other, but those of events that happen at the
//! same time on several processors may be mixed, and nothing says for certain which one is an
//! event's last. An event is taken for complete when
//! - its `EOE` or `PROCTITLE` has come (the kernel writes them last), or it is of a type that
//!   programs write, which has one record;
//! - a record has come whose time is [`LATE_SECONDS`] later: auditd itself waits no longer;
//! - [`WINDOW_LINES`] lines of other events have come since its last;
//! - whoever reads has waited, and nothing more came.
//!
//! **Limits.** A run of mixed events has at most [`MAX_RUN_LINES`] lines and [`MAX_RUN_BYTES`];
//! where it would be longer it is cut, and what comes later of its events is an event of its own.

/// Lines of one run, at most: with each record an event too, and the joined events, they are no more
/// events than one record may fan out to.
pub const MAX_RUN_LINES: usize = 400;
/// Bytes of one run, at most.
pub const MAX_RUN_BYTES: usize = 96 * 1024;
const LATE_SECONDS: u64 = 2;
const WINDOW_LINES: usize = 32;
/// Before `type=` there may be a node's name, and the type behind it, at most so long.
const WINDOW_BYTES: usize = 300;

/// What a record's beginning says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head<'t> {
    kind: &'t [u8],
    /// Node, time and serial as they are written.
    node: &'t [u8],
    stamp: &'t [u8],
    seconds: u64,
}

/// Beginnings of the types that programs write: one record each.
const SINGLE: &[&str] = &[
    "ACCT_",
    "ADD_",
    "CHGRP_",
    "CHUSER_",
    "CRED_",
    "CRYPTO_",
    "DAEMON_",
    "DEL_",
    "DEV_",
    "FS_",
    "GRP_",
    "LABEL_",
    "RESP_",
    "ROLE_",
    "SERVICE_",
    "SOFTWARE_",
    "SYSTEM_",
    "TEST",
    "TRUSTED_",
    "USER",
    "USYS_",
    "VIRT_",
];

impl<'t> Head<'t> {
    fn of(line: &'t [u8]) -> Option<Self> {
        let window = &line[..line.len().min(WINDOW_BYTES)];
        let at = memchr::memmem::find(window, b"type=")?;
        let node = line[..at].trim_ascii();
        if !(node.is_empty() || node.starts_with(b"node=") && !node.contains(&b' ')) {
            return None;
        }
        let rest = &line[at + 5..];
        let end = memchr::memchr(b' ', &rest[..rest.len().min(WINDOW_BYTES)])?;
        let (kind, rest) = rest.split_at(end);
        let rest = rest.trim_ascii_start();
        let rest = rest.strip_prefix(b"msg=").unwrap_or(rest).strip_prefix(b"audit(")?;
        let end = memchr::memchr(b')', &rest[..rest.len().min(64)])?;
        let stamp = &rest[..end];
        memchr::memchr(b':', stamp)?;
        let digits = stamp.iter().take_while(|byte| byte.is_ascii_digit()).take(18);
        let seconds = digits.fold(0, |all, digit| all * 10 + u64::from(digit - b'0'));
        Some(Self { kind, node, stamp, seconds })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.stamp == other.stamp && self.node == other.node
    }

    fn is_single(&self) -> bool {
        SINGLE.iter().any(|front| self.kind.starts_with(front.as_bytes()))
    }

    fn is_last(&self) -> bool {
        self.is_end() || self.kind == b"PROCTITLE" || self.kind == b"1327"
    }

    fn is_end(&self) -> bool {
        self.kind == b"EOE" || self.kind == b"1320"
    }
}

/// An event of which records have come.
#[derive(Debug)]
struct Open<'t> {
    /// `None`: a line that is no record of the audit system.
    head: Option<Head<'t>>,
    first: usize,
    last: usize,
    is_complete: bool,
}

/// Where a run of lines ends in which every event is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// Behind so many lines.
    Behind(usize),
    /// It may go on.
    Open,
}

/// The end of the run with which these lines begin. `is_over`: no more will come of any event.
pub fn run_end<'t>(lines: impl Iterator<Item = &'t [u8]>, is_over: bool) -> RunEnd {
    let mut open: Vec<Open<'t>> = Vec::new();
    let (mut count, mut bytes) = (0, 0);
    for line in lines {
        if count > 0 && (count >= MAX_RUN_LINES || bytes + line.len() > MAX_RUN_BYTES) {
            return RunEnd::Behind(component(&open));
        }
        let head = Head::of(line);
        // Before it is added: what it tells of those that came before.
        let is_new = |event: &Open<'_>| match (&head, &event.head) {
            (Some(head), Some(known)) => !head.is_same(known),
            _ => true,
        };
        let end = component(&open);
        if count > 0 && end == count && open.iter().all(|event| event.is_complete && is_new(event))
        {
            return RunEnd::Behind(count);
        }
        add(&mut open, head, count);
        (count, bytes) = (count + 1, bytes + line.len() + 1);
        let seconds = head.map_or(0, |head| head.seconds);
        for event in open.iter_mut().filter(|event| event.last + 1 < count) {
            let begun = event.head.map_or(0, |head| head.seconds);
            event.is_complete |=
                seconds >= begun + LATE_SECONDS || count - 1 - event.last >= WINDOW_LINES;
        }
        let end = component(&open);
        let is_done = |event: &Open<'_>| event.first >= end || event.is_complete;
        if end < count && open.iter().all(is_done) {
            return RunEnd::Behind(end);
        }
    }
    match count {
        0 => RunEnd::Open,
        _ if is_over => RunEnd::Behind(component(&open)),
        _ => match component(&open) == count && open.iter().all(|event| event.is_complete) {
            true => RunEnd::Behind(count),
            false => RunEnd::Open,
        },
    }
}

fn add<'t>(open: &mut Vec<Open<'t>>, head: Option<Head<'t>>, at: usize) {
    let Some(found) = &head else {
        return open.push(Open { head: None, first: at, last: at, is_complete: true });
    };
    let is_complete = found.is_single() || found.is_last();
    let known = open
        .iter_mut()
        .rev()
        .find(|event| event.head.as_ref().is_some_and(|known| known.is_same(found)));
    match known {
        Some(event) => {
            event.last = at;
            event.is_complete |= is_complete;
        }
        None => open.push(Open { head, first: at, last: at, is_complete }),
    }
}

/// Behind the first lines of whose events no line comes later. Events stand in the order of their
/// first lines.
fn component(open: &[Open<'_>]) -> usize {
    let mut end = 0;
    for event in open {
        if end > 0 && event.first >= end {
            break;
        }
        end = end.max(event.last + 1);
    }
    end
}

/// The events of a run: the numbers of the lines of each, in the order of their first lines. The end
/// of an event (`EOE`) says nothing and stands by itself.
#[must_use]
pub fn events<'t>(lines: &[&'t [u8]]) -> Vec<Vec<usize>> {
    let mut events: Vec<(Option<Head<'t>>, Vec<usize>)> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let head = Head::of(line).filter(|head| !head.is_end());
        let known = head.and_then(|head| {
            let same = |known: &Option<Head<'_>>| known.is_some_and(|known| known.is_same(&head));
            events.iter_mut().rev().find(|(known, _)| same(known))
        });
        match known {
            Some((_, lines)) => lines.push(at),
            None => events.push((head, vec![at])),
        }
    }
    events.into_iter().map(|(_, lines)| lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(kind: &str, seconds: u64, serial: u64) -> String {
        format!("type={kind} msg=audit({seconds}.123:{serial}): a=b")
    }

    fn end(lines: &[String], is_over: bool) -> RunEnd {
        run_end(lines.iter().map(String::as_bytes), is_over)
    }

    #[test]
    fn an_event_is_taken_when_it_is_complete_and_not_before() {
        let mut lines = vec![line("SYSCALL", 1, 7)];
        assert_eq!(end(&lines, false), RunEnd::Open);
        assert_eq!(end(&lines, true), RunEnd::Behind(1));
        lines.push(line("CWD", 1, 7));
        lines.push(line("PATH", 1, 7));
        assert_eq!(end(&lines, false), RunEnd::Open);
        lines.push(line("PROCTITLE", 1, 7));
        assert_eq!(end(&lines, false), RunEnd::Behind(4));
        lines.push(line("EOE", 1, 7));
        assert_eq!(end(&lines, false), RunEnd::Behind(5), "its end goes with it where it is there");
        lines.push(line("USER_LOGIN", 1, 8));
        assert_eq!(end(&lines, false), RunEnd::Behind(5));
        assert_eq!(end(&lines[5..], false), RunEnd::Behind(1), "one record is all");
        assert_eq!(end(&["no record".into(), line("SYSCALL", 1, 1)], false), RunEnd::Behind(1));
        assert_eq!(end(&[], true), RunEnd::Open);
    }

    #[test]
    fn a_lost_end_is_waited_for_as_long_as_auditd_waits_or_a_window_of_lines() {
        let begun = [line("SYSCALL", 10, 7), line("CWD", 10, 7)];
        let with = |more: Vec<String>| end(&[&begun[..], &more].concat(), false);
        assert_eq!(with(vec![line("SYSCALL", 11, 8)]), RunEnd::Open);
        assert_eq!(with(vec![line("SYSCALL", 12, 8)]), RunEnd::Behind(2));
        let others = |count| (0..count).map(|n| line("USER_ACCT", 10, 100 + n)).collect();
        assert_eq!(with(others(31)), RunEnd::Open);
        assert_eq!(with(others(32)), RunEnd::Behind(2));
    }

    #[test]
    fn mixed_events_are_one_run_and_come_apart_by_their_stamps() {
        let lines = [
            line("SYSCALL", 1, 7),
            line("SYSCALL", 1, 8),
            line("PATH", 1, 7),
            line("PATH", 1, 8),
            line("PROCTITLE", 1, 8),
            line("PROCTITLE", 1, 7),
            line("EOE", 1, 8),
            line("EOE", 1, 7),
        ];
        assert_eq!(end(&lines[..5], false), RunEnd::Open);
        assert_eq!(end(&lines, false), RunEnd::Behind(8));
        let bytes: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
        assert_eq!(super::events(&bytes), [vec![0, 2, 5], vec![1, 3, 4], vec![6], vec![7]]);
        let nodes = [format!("node=a {}", line("PATH", 1, 7)), line("PATH", 1, 7)];
        let bytes: Vec<&[u8]> = nodes.iter().map(String::as_bytes).collect();
        assert_eq!(super::events(&bytes).len(), 2, "another node's event of the same number");
    }

    #[test]
    fn a_run_that_does_not_end_is_cut() {
        // Each event begins before the one before it has ended.
        let lines: Vec<String> =
            (0..1_000).flat_map(|n| [line("SYSCALL", 1, n + 1), line("PATH", 1, n)]).collect();
        let RunEnd::Behind(count) = end(&lines, false) else { panic!("open") };
        assert!(count <= MAX_RUN_LINES, "{count}");
        let long = vec!["type=PATH msg=audit(1.1:1): ".to_owned() + &"x".repeat(20_000); 30];
        let RunEnd::Behind(count) = end(&long, false) else { panic!("open") };
        assert!(count * 20_000 <= MAX_RUN_BYTES, "{count}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

        #[test]
        fn every_line_is_in_one_run_and_one_event_whatever_the_lines_are(
            kinds in prop::collection::vec((0..6_usize, 0..4_u64, 0..5_u64), 1..60)
        ) {
            let names = ["SYSCALL", "PATH", "PROCTITLE", "EOE", "USER_AUTH", "x y z"];
            let lines: Vec<String> =
                kinds.iter().map(|(kind, second, serial)| line(names[*kind], *second, *serial)).collect();
            let mut at = 0;
            while at < lines.len() {
                let RunEnd::Behind(count) = end(&lines[at..], true) else { panic!("open") };
                prop_assert!(count > 0 && at + count <= lines.len());
                let bytes: Vec<&[u8]> =
                    lines[at..at + count].iter().map(String::as_bytes).collect();
                let mut seen: Vec<usize> = super::events(&bytes).concat();
                seen.sort_unstable();
                prop_assert_eq!(seen, (0..count).collect::<Vec<_>>());
                at += count;
            }
        }
    }
}
