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
    "BPRM_FCAPS", "CAPSET", "CWD", "EOE", "EXECVE", "FD_PAIR", "IPC", "IPC_SET_PERM", "MMAP",
    "MQ_GETSETATTR", "MQ_NOTIFY", "MQ_OPEN", "MQ_SENDRECV", "OBJ_PID", "OPENAT2", "PATH",
    "PROCTITLE", "SOCKADDR", "SOCKETCALL", "SYSCALL", "URINGOP",
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
