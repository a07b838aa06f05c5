//! Power cuts under the agent's spool.
//!
//! The real agent reads a growing log outside the image and delivers to a receiver in this
//! process, which is away every now and then, so that blocks wait in the spool. At a cut the
//! receiver stands still, the agent's status says how far the spool is durable, and the image is
//! cut. On the cut image: `spool verify` finds every block good, `spool ls` finds every block that
//! was durable and not acknowledged, and an agent that goes on from there delivers each line to
//! the end exactly once, in the same stream, without a gap.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::disk::Disk;
use super::{Report, Session};
use crate::agent::{Agent, Settings, Status, ask};
use crate::generate::Random;
use crate::receiver::{Held, Receiver, line};
use crate::shell;

/// A recovered agent delivers everything within this time.
const RECOVERY: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_millis(5);

/// The log that grows.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    lines: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Log {
    /// About 20,000 lines a second, in bursts.
    fn start(path: &Path, mut random: Random) -> anyhow::Result<Self> {
        let (lines, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut file = File::create(path)?;
        let (counted, stopped) = (Arc::clone(&lines), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            let mut text = String::new();
            while !stopped.load(Ordering::Relaxed) {
                text.clear();
                for _ in 0..random.below(200) {
                    text.push_str(&line(number));
                    number += 1;
                }
                file.write_all(text.as_bytes())?;
                counted.store(number, Ordering::Relaxed);
                std::thread::sleep(SOON);
            }
            Ok(())
        });
        Ok(Self { path: path.to_owned(), lines, stop, thread: Some(thread) })
    }

    /// Lines that are surely in the file.
    fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => Ok(ended?),
            _ => bail!("the appending thread panicked"),
        }
    }
}

/// What was true when the power went.
#[derive(Debug)]
struct Cut {
    number: u32,
    how: &'static str,
    status: Status,
    held: Held,
    /// Lines of the log at the cut.
    lines: u64,
}

pub(super) fn run(mut session: Session<'_>) -> anyhow::Result<Report> {
    let mut disk = Disk::make(session.folder, session.file_system)?;
    let log = Log::start(&session.folder.join("auth.log"), Random::new(session.random.next()))?;
    let receiver = Receiver::start(Held::default())?;
    let mut agent = start(&session, &disk.path(), "live", &log, &receiver)?;
    wait_for_blocks(&mut agent)?;
    let mut report = Report::default();
    for number in 0..session.snapshots {
        receiver.set_away(session.random.below(3) == 0);
        session.pause(10, 500);
        let cut = snapshot(number, &disk, &mut agent, &receiver, &log)?;
        let mounted = disk.mount_snapshot()?;
        check(&session, &disk, &mounted.path, &cut, &log, &mut report)?;
        mounted.unmount()?;
    }
    receiver.set_away(session.random.below(2) == 0);
    session.pause(10, 500);
    let cut = shut_down(session.snapshots, &disk, agent, &receiver, &log, session.folder)?;
    disk.power_on()?;
    check(&session, &disk, &disk.path(), &cut, &log, &mut report)?;
    log.stop()?;
    Ok(report)
}

fn start(
    session: &Session<'_>,
    mount: &Path,
    name: &str,
    log: &Log,
    receiver: &Receiver,
) -> anyhow::Result<Agent> {
    let folder = session.folder;
    let token = folder.join("enroll.token");
    write_secret(&token)?;
    let mut settings = Settings::under(mount, &log.path, receiver.server.address, &token);
    settings.socket = folder.join(format!("{name}.sock"));
    settings.packs = "[sshd]".to_owned();
    settings.extra = "spool: { max_bytes: 256MiB, free_space_floor: 16MiB }\n".to_owned();
    settings.output_extra = ", max_backoff: 200ms".to_owned();
    let config = folder.join(format!("{name}.yaml"));
    settings.start(&session.programs.agent, &config, &folder.join(format!("{name}.log")))
}

fn write_secret(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(b"power-cut\n")?)
}

fn wait_for_blocks(agent: &mut Agent) -> anyhow::Result<()> {
    let waited = shell::wait_for("the first blocks are durable", RECOVERY, SOON, || {
        Ok(agent.status()?.filter(|status| status.durable_next_seq > 1))
    });
    waited.map(drop).with_context(|| agent.daemon.log_end())
}

fn snapshot(
    number: u32,
    disk: &Disk,
    agent: &mut Agent,
    receiver: &Receiver,
    log: &Log,
) -> anyhow::Result<Cut> {
    let frozen = receiver.freeze();
    let status = agent.status()?.context("the agent does not answer")?;
    disk.snapshot()?;
    Ok(Cut { number, how: "snapshot", status, held: frozen.held(), lines: log.lines() })
}

/// The agent still answers for a moment; what it says then must be true as well.
fn shut_down(
    number: u32,
    disk: &Disk,
    mut agent: Agent,
    receiver: &Receiver,
    log: &Log,
    folder: &Path,
) -> anyhow::Result<Cut> {
    let mut status = agent.status()?.context("the agent does not answer")?;
    disk.shut_down()?;
    let lines = log.lines();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        if let Ok(Some(later)) = ask(&folder.join("live.sock")) {
            status = later;
        }
        std::thread::sleep(SOON);
    }
    agent.daemon.kill()?;
    let held = receiver.freeze().held();
    Ok(Cut { number, how: "shutdown", status, held, lines })
}

fn check(
    session: &Session<'_>,
    disk: &Disk,
    mount: &Path,
    cut: &Cut,
    log: &Log,
    report: &mut Report,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut wrong = Vec::new();
    check_spool(session, mount, cut, &mut wrong)?;
    if wrong.is_empty() {
        check_recovery(session, mount, cut, log, &mut wrong)?;
    }
    report.recovered(begun.elapsed(), cut.status.durable_next_seq);
    if wrong.is_empty() {
        return Ok(());
    }
    let name = session.file_system.name();
    if let Some(keep) = session.keep {
        disk.keep(&keep.join(format!("spool-{name}-{}-{}.img", cut.how, cut.number)))?;
    }
    let place = format!("{name}, {} {}", cut.how, cut.number);
    report.wrong.extend(wrong.into_iter().map(|sentence| format!("{place}: {sentence}")));
    Ok(())
}

/// The spool as the cut left it, before anybody writes to it again.
fn check_spool(
    session: &Session<'_>,
    mount: &Path,
    cut: &Cut,
    wrong: &mut Vec<String>,
) -> anyhow::Result<()> {
    let data = mount.join("agent-data");
    let data = data.to_str().context("a path is not UTF-8")?;
    let program = session.programs.agent.to_str().context("a path is not UTF-8")?;
    if let Err(error) = shell::run(program, &["spool", "verify", "--data-dir", data]) {
        wrong.push(format!("{error:#}"));
    }
    match shell::run(program, &["spool", "ls", "--data-dir", data]) {
        Ok(table) => {
            let acknowledged = cut.held.next_seq(&cut.status.stream);
            wrong.extend(missing(&table, acknowledged, cut.status.durable_next_seq));
        }
        Err(error) => wrong.push(format!("{error:#}")),
    }
    Ok(())
}

/// Every block from the first unacknowledged to the last durable must be listed.
fn missing(table: &str, acknowledged: u64, durable: u64) -> Option<String> {
    let listed: Vec<u64> = table
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next()?.parse().ok())
        .collect();
    let lost: Vec<u64> = (acknowledged..durable).filter(|seq| !listed.contains(seq)).collect();
    let (first, last) = (lost.first()?, lost.last()?);
    Some(format!(
        "{} blocks between {first} and {last} were durable and are gone (acknowledged up to {acknowledged}, durable up to {durable})",
        lost.len()
    ))
}

/// An agent on the cut image delivers the rest of the log.
fn check_recovery(
    session: &Session<'_>,
    mount: &Path,
    cut: &Cut,
    log: &Log,
    wrong: &mut Vec<String>,
) -> anyhow::Result<()> {
    let receiver = Receiver::start(cut.held.clone())?;
    let mut agent = start(session, mount, "cut", log, &receiver)?;
    let waited = shell::wait_for("the recovered agent delivers all lines", RECOVERY, SOON, || {
        let status = agent.status()?;
        let (done, bad) =
            receiver.look(|held| (held.next_line >= cut.lines, !held.wrong.is_empty()));
        Ok((bad || done).then_some(status))
    });
    match waited {
        Ok(status) => {
            let status = status.or(agent.status()?).unwrap_or_default();
            wrong.extend(unlike(cut, &status));
        }
        Err(error) => {
            let next = receiver.look(|held| held.next_line);
            wrong.push(format!(
                "{error:#}; line {next} of {} is next\n{}",
                cut.lines,
                agent.daemon.log_end()
            ));
        }
    }
    wrong.extend(receiver.freeze().held().wrong);
    agent.daemon.kill()
}

/// The same stream, further on; nothing put aside, no gaps.
fn unlike(cut: &Cut, now: &Status) -> Option<String> {
    if now.stream.is_empty() {
        return None;
    }
    if now.stream != cut.status.stream {
        return Some(format!("stream {} became {}", cut.status.stream, now.stream));
    }
    if now.durable_next_seq < cut.status.durable_next_seq {
        return Some(format!(
            "durable up to {} became {}",
            cut.status.durable_next_seq, now.durable_next_seq
        ));
    }
    (now.quarantined > 0 || now.gaps > 0)
        .then(|| format!("{} stores put aside, {} gaps", now.quarantined, now.gaps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_block_is_missed_and_an_acknowledged_one_is_not() {
        let table = "BLOCK BYTES\n3   100  2\n5   100  2\n";
        assert_eq!(missing(table, 5, 6), None);
        assert_eq!(missing(table, 6, 6), None);
        let told = missing(table, 3, 7).unwrap();
        assert!(told.starts_with("2 blocks between 4 and 6"), "{told}");
    }
}
