//! All records of one audit event, a line each, in the order in which they were written.
//!
//! The fields are those of the record that says what happened: of what is no system call (a denial
//! of SELinux, a change of the rules, a module) if there is one, else of the system call. `type` is
//! its type, `records` names the types of all. The others give
//! - `SYSCALL`: its fields; one that is there with another value gets `syscall_` before it;
//! - `EXECVE`: `argc`, `command`, and the words one by one in `argv`;
//! - `CWD`: `cwd`; `PROCTITLE`: `proctitle`; `SOCKADDR`: `saddr_fam` and `addr`, `port` or `path`;
//! - `PATH`: an object each, `path0`, `path1` …, and `name` and `nametype` of the one that was
//!   acted on: created, deleted or opened, before the folder that it lies in;
//! - all others an object with their type for a name.

use super::super::build::Builder;
use super::{Pairs, Place, header, record};

/// Types that only say more of a system call.
const BESIDE: &[&str] = &[
    "BPRM_FCAPS",
    "CAPSET",
    "CWD",
    "EOE",
    "EXECVE",
    "FD_PAIR",
    "IPC",
    "IPC_SET_PERM",
    "MMAP",
    "MQ_GETSETATTR",
    "MQ_NOTIFY",
    "MQ_OPEN",
    "MQ_SENDRECV",
    "OBJ_PID",
    "OPENAT2",
    "PATH",
    "PROCTITLE",
    "SOCKADDR",
    "SOCKETCALL",
    "SYSCALL",
    "URINGOP",
];
/// Of the files of an event the one that was acted on, the first of these.
const ACTED_ON: &[&str] = &["CREATE", "DELETE", "NORMAL", "UNKNOWN", "PARENT"];
/// Records of one event, at most: more are not told apart.
const MAX_RECORDS: usize = 512;

/// A record of the event.
struct Line<'t> {
    kind: &'t str,
    rest: &'t str,
}

/// Reads all lines.
pub(super) fn read(text: &str, out: &mut Builder<'_>) -> Result<(), &'static str> {
    let mut lines = Vec::new();
    let main = main_of(text);
    for (at, line) in text.lines().enumerate().take(MAX_RECORDS) {
        // The first stamp is the event's; the others are the same.
        let Ok((kind, rest)) = super::parts(line) else { continue };
        if at == main {
            let (kind, rest) = header(line, out)?;
            record(kind, rest, out)?;
        }
        lines.push((at, Line { kind, rest }));
    }
    if !out.has("type") {
        return Err(super::NO);
    }
    let kinds: Vec<&str> = lines.iter().map(|(_, line)| line.kind).collect();
    out.put("records", &kinds.join(" "))?;
    let mut paths = Vec::new();
    for (at, line) in &lines {
        match line.kind {
            _ if *at == main => {}
            "PATH" => paths.push(line),
            _ => beside(line, out)?,
        }
    }
    files(&paths, out)
}

/// The number of the line that says what happened.
fn main_of(text: &str) -> usize {
    let kinds = || {
        let lines = text.lines().enumerate().take(MAX_RECORDS);
        lines.filter_map(|(at, line)| Some((at, super::parts(line).ok()?.0)))
    };
    let own = kinds().find(|(_, kind)| !BESIDE.contains(kind));
    let call = || kinds().find(|(_, kind)| *kind == "SYSCALL");
    own.or_else(call).or_else(|| kinds().next()).map_or(0, |(at, _)| at)
}

fn beside(line: &Line<'_>, out: &mut Builder<'_>) -> Result<(), &'static str> {
    match line.kind {
        "EOE" => Ok(()),
        "SYSCALL" => more(line, "syscall_", out),
        "CWD" | "PROCTITLE" | "SOCKADDR" => more(line, "record_", out),
        "EXECVE" => {
            let mut command = String::new();
            let object = out.open("argv")?;
            inside(line, out, &mut command)?;
            out.close(&object);
            out.put_apart("execve_", "command", &command)
        }
        kind => {
            let name = kind.to_ascii_lowercase();
            if out.has(&name) {
                return more(line, "record_", out);
            }
            let object = out.open(&name)?;
            inside(line, out, &mut String::new())?;
            out.close(&object);
            Ok(())
        }
    }
}

/// Fields beside those that are there: one that says the same again is left out.
fn more(line: &Line<'_>, prefix: &'static str, out: &mut Builder<'_>) -> Result<(), &'static str> {
    let (body, enriched) = line.rest.split_once('\u{1d}').unwrap_or((line.rest, ""));
    let mut pairs = Pairs::new(out, Place::Beside(prefix), false);
    pairs.read(body)?;
    pairs.read(enriched)
}

fn inside(
    line: &Line<'_>,
    out: &mut Builder<'_>,
    command: &mut String,
) -> Result<(), &'static str> {
    let (body, enriched) = line.rest.split_once('\u{1d}').unwrap_or((line.rest, ""));
    let mut pairs = Pairs::new(out, Place::Inside, line.kind == "EXECVE");
    pairs.read(body)?;
    pairs.read(enriched)?;
    *command = std::mem::take(&mut pairs.command);
    Ok(())
}

fn files(paths: &[&Line<'_>], out: &mut Builder<'_>) -> Result<(), &'static str> {
    for (number, line) in paths.iter().enumerate() {
        let object = out.open(&format!("path{number}"))?;
        inside(line, out, &mut String::new())?;
        out.close(&object);
    }
    let said = |line: &Line<'_>| {
        let word = line.rest.split(' ').find_map(|word| word.strip_prefix("nametype="))?;
        let word = word.split('\u{1d}').next().unwrap_or(word);
        ACTED_ON.iter().position(|known| *known == word)
    };
    // Of two of a kind the first; one that says no type of name comes last.
    let rank = |line: &Line<'_>| said(line).unwrap_or(ACTED_ON.len());
    let Some((number, line)) = paths.iter().enumerate().min_by_key(|(_, line)| rank(line)) else {
        return Ok(());
    };
    if let Some(kind) = said(line).and_then(|place| ACTED_ON.get(place)) {
        out.put_apart("path_", "nametype", kind)?;
    }
    match out.inner(&format!("path{number}"), "name") {
        Some(name) => out.put_apart("path_", "name", &name),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use crate::decode::json::Tape;
    use crate::decode::testing::fields;
    use crate::hostnames::HostNames;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn of(records: &[&str]) -> Value {
        let lines: Vec<String> = records
            .iter()
            .map(|record| {
                let (kind, rest) = record.split_once(' ').unwrap();
                format!("type={kind} msg=audit(1704492707.193:421): {rest}")
            })
            .collect();
        let host = HostNames::from_passwd("root:x:0:0::/:/bin/sh\neva:x:1000:1000::/:/bin/sh\n");
        let read = |text: &str, tape: &mut Tape| read(text, &host, tape);
        fields(&lines.join("\n"), read).unwrap()
    }

    #[test]
    fn all_records_of_an_event_become_one_whatever_their_order_is() {
        let records = [
            "SYSCALL arch=c000003e syscall=257 success=yes exit=3 a0=1 auid=1000 uid=0 comm=\"vi\"",
            "CWD cwd=\"/root\"",
            "PATH item=0 name=\"/etc/\" inode=5 nametype=PARENT",
            "PATH item=1 name=\"/etc/x\" inode=7 ouid=1000 nametype=CREATE",
            "PROCTITLE proctitle=7669002F6574632F78",
        ];
        let found = of(&records);
        assert_eq!(found["type"], "SYSCALL");
        assert_eq!((&found["serial"], &found["time"]), (&json!("421"), &json!("1704492707.193")));
        assert_eq!((&found["AUID"], &found["UID"]), (&json!("eva"), &json!("root")));
        assert_eq!((&found["SYSCALL"], &found["ARCH"]), (&json!("openat"), &json!("x86_64")));
        assert_eq!((&found["name"], &found["nametype"]), (&json!("/etc/x"), &json!("CREATE")));
        assert_eq!(found["path0"]["inode"], "5");
        assert_eq!(found["cwd"], "/root");
        assert_eq!(found["proctitle"], "vi /etc/x");
        assert_eq!(found["records"], "SYSCALL CWD PATH PATH PROCTITLE");
        let mut other = records;
        other.reverse();
        let other = of(&other);
        for key in ["type", "name", "SYSCALL", "proctitle", "cwd"] {
            assert_eq!(other[key], found[key], "{key}");
        }
    }

    #[test]
    fn what_is_no_system_call_says_what_happened() {
        let found = of(&[
            "AVC avc:  denied  { read } for  pid=7 comm=\"httpd\" name=\"shadow\"",
            "SYSCALL arch=c000003e syscall=2 success=no exit=-13 pid=7 auid=1000 comm=\"httpd\" exe=\"/usr/sbin/httpd\"",
            "SOCKADDR saddr=020001BBCB0071090000000000000000",
            "BPF prog-id=5 op=LOAD",
        ]);
        assert_eq!(found["type"], "AVC");
        assert_eq!((&found["seresult"], &found["seperms"]), (&json!("denied"), &json!("read")));
        assert_eq!(found["exe"], "/usr/sbin/httpd");
        assert_eq!(found["syscall_pid"], Value::Null, "said twice, kept once");
        assert_eq!((&found["addr"], &found["port"]), (&json!("203.0.113.9"), &json!("443")));
        assert_eq!(found["bpf"]["op"], "LOAD");
    }

    #[test]
    fn words_of_a_command_do_not_hide_the_calls_own_numbers() {
        let found = of(&[
            "SYSCALL arch=c00000b7 syscall=221 a0=aa a1=bb auid=4294967295 uid=7",
            "EXECVE argc=2 a0=\"echo\" a1=612062",
        ]);
        assert_eq!((&found["a0"], &found["a1"]), (&json!("aa"), &json!("bb")));
        assert_eq!(found["command"], "echo a b");
        assert_eq!((&found["argv"]["a0"], &found["argv"]["a1"]), (&json!("echo"), &json!("a b")));
        assert_eq!(
            (&found["SYSCALL"], &found["AUID"], &found["UID"]),
            (&json!("execve"), &Value::Null, &Value::Null)
        );
    }

    proptest! {
        #[test]
        fn any_lines_are_read_without_panic(
            lines in prop::collection::vec(("[A-Z_]{1,9}|PATH|EXECVE|SYSCALL|EOE", "\\PC{0,60}"), 1..12)
        ) {
            let lines: Vec<String> = lines
                .iter()
                .map(|(kind, rest)| format!("type={kind} msg=audit(1.2:3): {rest}"))
                .collect();
            let read = |text: &str, tape: &mut Tape| read(text, &HostNames::default(), tape);
            let _found = fields(&lines.join("\n"), read);
        }
    }
}
