//! What the kernel says of a process: CPU time and memory (proc(5)).

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// Memory of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident now, bytes.
    pub(crate) resident_bytes: u64,
    /// Resident at most so far, bytes.
    pub(crate) peak_bytes: u64,
    /// Of it now what is no page of a file, bytes.
    pub(crate) anonymous_bytes: u64,
}

/// User and system time of all threads so far, to the clock tick (10 ms on most machines).
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let ticks = ticks_of(&text).with_context(|| format!("{path}: no utime and stime"))?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / per_second)))
}

/// Fields 14 and 15; the second field is the name in parentheses and may hold anything.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Time on a CPU of the threads that live now, to the nanosecond: for small differences of an idle
/// process. `None` where the kernel keeps no schedstat.
pub(crate) fn threads_time(pid: u32) -> Option<Duration> {
    let mut total = 0_u64;
    for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = fs::read_to_string(entry.ok()?.path().join("schedstat")).ok()?;
        total += text.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(total))
}

/// Resident memory and its peak.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let field = |name: &str| kib_of(&text, name).with_context(|| format!("{path}: no {name}"));
    Ok(Memory {
        resident_bytes: field("VmRSS:")?,
        peak_bytes: field("VmHWM:")?,
        anonymous_bytes: field("RssAnon:")?,
    })
}

fn kib_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 1 1 0 -1 4194304 2 0 0 0 150 25 0 0 20 0 1 0 5";
        assert_eq!(ticks_of(stat), Some(175));
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.resident_bytes > 0 && memory.peak_bytes >= memory.resident_bytes);
        cpu_time(std::process::id()).unwrap();
    }
}
