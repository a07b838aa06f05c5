//! `bench journal`: what a real journald (in namespaces of its own) has kept in rotated files, read
//! into the agent's durable spool.
//!
//! *Speed*: from the agent's start until its status says that every entry is in the spool; and the
//! reader alone, in this process, with its proof that no number was left out. *Yardstick*: the same
//! files through `journalctl -o export | wc -c`.
//!
//! *Hardships*: the same journal again, one of its files damaged in the middle, the agent killed
//! again and again, while journald goes on writing, rotates, and has the oldest files vacuumed. In
//! the end every entry is an event once, or within a gap that says which file is to blame.

#[path = "../../../../journal/tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the journal crate's own tests")]
mod journald;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use custody_event::EventView;
use custody_journal::{Entry, Follower, FollowerOptions, Pulse, Step, Target, files};
use journald::PrivateJournald;

use super::sheet::{Sheet, Target as Goal};
use super::{Common, machine};
use crate::agent::{Agent, Settings, Status};
use crate::numbers::{float, mib, per_second};
use crate::out::say;
use crate::procfs;
use crate::shell::{self, Programs};

const LIMIT: Duration = Duration::from_secs(600);
/// journald's own settings: files small enough that they rotate many times.
const SETTINGS: &str =
    "SystemMaxFileSize=48M\nSystemMaxUse=16G\nSystemKeepFree=1M\nSystemMaxFiles=1000";
/// Entries that are handed to journald at once.
const PART: u64 = 100_000;
/// How often the agent is killed.
const KILLS: u64 = 5;

/// Arguments of `bench journal`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Entries.
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Entries that are written while the agent is killed.
    #[arg(long, default_value_t = 50_000)]
    live_entries: u64,
    /// Leave out the hardships.
    #[arg(long)]
    no_hardships: bool,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (folder, programs) = args.common.begin()?;
    let state = folder.path().join("journal");
    std::fs::create_dir(&state)?;
    let mut journald = PrivateJournald::start_with(&state, SETTINGS)
        .map_err(|why| anyhow!("no journald of our own here (it needs root): {why}"))?;
    say(&format!("{} entries go to journald …", args.entries));
    write(&mut journald, 0, args.entries);
    let mut sheet = Sheet::new(format!("{} entries of the journal", args.entries));
    sheet.add("files", "", float(heads(&state)?));
    for run in 1..=args.common.runs {
        let place = folder.path().join(format!("journal-{run}"));
        std::fs::create_dir(&place)?;
        yardstick(args, &state, &mut sheet)?;
        reader(args, &state, &mut sheet)?;
        one_run(args, &programs, &state, &place, &mut sheet)?;
        std::fs::remove_dir_all(&place)?;
    }
    if !args.no_hardships {
        hardships(args, &programs, &mut journald, &state, folder.path(), &mut sheet)?;
    }
    sheet.print();
    let figures = serde_json::json!({ "machine": machine(), "journal": sheet.to_json() });
    args.common.write_json(&figures)
}

/// Numbered entries, as sshd says them.
///
/// Nothing is written before journald has taken the connection: while it does, the sender that the
/// kernel names changes, and journald ends a line where that happens (`_LINE_BREAK=pid-change`).
fn write(journald: &mut PrivateJournald, from: u64, to: u64) {
    let message = "Failed password for invalid user u%.0f from 192.0.2.7 port 22 ssh2";
    let mut at = from;
    while at < to {
        let end = (at + PART).min(to);
        journald.run(&format!(
            "systemd-cat -t sshd -p info sh -c \"journalctl --sync; exec seq -f '{message}' {at} {}\"",
            end - 1
        ));
        journald.sync();
        at = end;
    }
}

fn look(state: &Path) -> anyhow::Result<files::Look> {
    Ok(files::look(&Target::Directory(state.to_owned()))?)
}

fn heads(state: &Path) -> anyhow::Result<u64> {
    Ok(crate::numbers::len(look(state)?.good.len()))
}

fn yardstick(args: &Args, state: &Path, sheet: &mut Sheet) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut child = Command::new("journalctl")
        .args(["--quiet", "--output=export", "--identifier=sshd", "--directory"])
        .arg(state)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run journalctl")?;
    let out = child.stdout.take().context("journalctl's output")?;
    let counted = Command::new("wc").arg("-c").stdin(out).output().context("cannot run wc")?;
    child.wait()?;
    let took = begun.elapsed();
    let bytes: u64 = String::from_utf8_lossy(&counted.stdout).trim().parse()?;
    ensure!(bytes > args.entries * 100, "journalctl gave {bytes} bytes");
    sheet.add(
        "yardstick journalctl -o export | wc -c",
        "entries/s",
        per_second(args.entries, took),
    );
    Ok(())
}

/// The reader alone.
fn reader(args: &Args, state: &Path, sheet: &mut Sheet) -> anyhow::Result<()> {
    let options = FollowerOptions {
        target: Target::Directory(state.to_owned()),
        ..FollowerOptions::default()
    };
    let begun = Instant::now();
    let mut follower = Follower::open(options, Vec::new(), false, Arc::new(Pulse::default()))?;
    let (mut entry, mut json, mut next) = (Entry::default(), Vec::new(), 0_u64);
    let mut before = String::new();
    loop {
        match follower.next(&mut entry)? {
            Step::Entry => {}
            Step::Missing(missing) => bail!("{}", missing.text()),
            Step::End => break,
        }
        json.clear();
        entry.write_json(&mut json);
        if entry.text("SYSLOG_IDENTIFIER") == Some("sshd") {
            let number = entry.text("MESSAGE").and_then(number_of);
            ensure!(
                number == Some(next),
                "{} came behind {before}, where {next} should be. {}",
                String::from_utf8_lossy(&json),
                kept(state, next)?
            );
            next += 1;
        }
        before.clear();
        before.push_str(entry.cursor_text());
    }
    let took = begun.elapsed();
    ensure!(next == args.entries, "{next} of {} entries", args.entries);
    let speed = per_second(args.entries, took);
    sheet.add_for("read, reader alone", "entries/s", speed, Goal::AtLeast(150_000.0));
    Ok(())
}

/// What journalctl finds of an entry and of lines that journald has cut, and what journald says of
/// itself: whether it is journald that has not kept it, or not whole.
fn kept(state: &Path, number: u64) -> anyhow::Result<String> {
    let find = |choice: &[&str]| -> anyhow::Result<String> {
        let mut journalctl = Command::new("journalctl");
        journalctl.args(["--quiet", "--output=export", "--directory"]).arg(state).args(choice);
        let found = journalctl.output().context("cannot run journalctl")?;
        Ok(String::from_utf8_lossy(&found.stdout).into_owned())
    };
    let entry = find(&["--grep", &format!("u{number} ")])?;
    let cut = find(&["_LINE_BREAK=pid-change"])?;
    let said = std::fs::read_to_string(state.join("journald.log")).unwrap_or_default();
    Ok(format!(
        "journalctl finds of {number}: {entry:?}, of cut lines: {cut:?}; journald says: {said:?}"
    ))
}

/// The number in an entry of ours.
fn number_of(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("invalid user u")?;
    rest.split(' ').next()?.parse().ok()
}

fn settings(state: &Path, place: &Path) -> anyhow::Result<Settings> {
    let token = place.join("enroll.token");
    std::fs::write(&token, "nobody asks for it")?;
    // Nobody listens there.
    let mut settings = Settings::under(place, Path::new("none"), shell::free_address()?, &token);
    settings.sources = Some(format!(
        "  - {{ id: j, type: journal, directory: '{}', identifiers: [sshd], packs: [sshd] }}\n",
        state.display()
    ));
    settings.extra = "spool: { max_bytes: 8GiB }\n".to_owned();
    Ok(settings)
}

fn start(settings: &Settings, programs: &Programs, place: &Path) -> anyhow::Result<Agent> {
    settings.start(&programs.agent, &place.join("agent.yaml"), &place.join("agent.log"))
}

fn wait(agent: &mut Agent, is: impl Fn(&Status) -> bool) -> anyhow::Result<Status> {
    let mut last = None;
    let waited = shell::wait_for("all entries", LIMIT, Duration::from_millis(10), || {
        last = agent.status()?;
        Ok(last.clone().filter(&is))
    });
    waited.with_context(|| format!("{last:?}\n{}", agent.daemon.log_end()))
}

fn one_run(
    args: &Args,
    programs: &Programs,
    state: &Path,
    place: &Path,
    sheet: &mut Sheet,
) -> anyhow::Result<()> {
    let settings = settings(state, place)?;
    let begun = Instant::now();
    let mut agent = start(&settings, programs, place)?;
    wait(&mut agent, |status| status.stored >= args.entries && status.in_flight_bytes == 0)?;
    let took = begun.elapsed();
    let pid = agent.daemon.pid();
    let cpu = procfs::cpu_time(pid)?;
    let speed = per_second(args.entries, took);
    sheet.add_for("durable in the spool", "entries/s", speed, Goal::AtLeast(150_000.0));
    sheet.add("agent CPU", "µs an entry", cpu.as_secs_f64() * 1e6 / float(args.entries));
    sheet.add("agent memory, peak", "MiB", mib(procfs::memory(pid)?.peak_bytes));
    if let Some(yardstick) = sheet.median("yardstick journalctl -o export | wc -c") {
        sheet.add("ratio to the yardstick", "×", speed / yardstick);
    }
    agent.daemon.kill()?;
    let found = Spooled::of(programs, place)?;
    ensure!(found.gaps.is_empty(), "gaps: {:?}", found.gaps);
    found.expect_once(args.entries)?;
    Ok(())
}

/// Overwrites the beginning and the middle of the file that holds the middle of the entries.
fn damage(state: &Path) -> anyhow::Result<PathBuf> {
    let mut heads = look(state)?.good;
    heads.retain(|head| head.entries > 1_000);
    heads.sort_by_key(|head| head.head_seqnum);
    let head = heads.get(heads.len() / 2).context("no file to damage")?;
    let file = std::fs::File::options().write(true).open(&head.path)?;
    let middle = file.metadata()?.len() / 2;
    for at in [0, middle] {
        file.write_all_at(&vec![0xA5; 64 * 1024], at)?;
    }
    Ok(head.path.clone())
}

fn hardships(
    args: &Args,
    programs: &Programs,
    journald: &mut PrivateJournald,
    state: &Path,
    folder: &Path,
    sheet: &mut Sheet,
) -> anyhow::Result<()> {
    say("a damaged file, kills, rotations and a vacuum …");
    let place = folder.join("hardships");
    std::fs::create_dir(&place)?;
    let settings = settings(state, &place)?;
    journald.run("journalctl --rotate");
    let damaged = damage(state)?;
    let mut agent = start(&settings, programs, &place)?;
    let mut written = args.entries;
    for round in 1..=KILLS {
        let far = args.entries * round / (KILLS + 2);
        wait(&mut agent, |status| status.read >= far)?;
        agent.daemon.kill()?;
        write(journald, written, written + args.live_entries / KILLS);
        written += args.live_entries / KILLS;
        journald.run("journalctl --rotate");
        if round == KILLS {
            // The oldest files, which were read to their end.
            let unread = look(state)?.good.iter().filter(|head| head.tail_seqnum > far).count();
            let keep = unread + 1;
            journald.run(&format!("journalctl --vacuum-files={keep} 2>/dev/null"));
        }
        agent = start(&settings, programs, &place)?;
    }
    // How many of a damaged file's entries would have been chosen is not known, and not counted.
    let newest = format!("u{}", written - 1);
    let status = settle(&mut agent)?;
    agent.daemon.stop(Duration::from_secs(60))?;
    let found = Spooled::of(programs, &place)?;
    ensure!(found.numbers.contains_key(&(written - 1)), "{newest} is not there: {status:?}");
    let missing = (0..written).filter(|number| !found.numbers.contains_key(number)).count();
    let missing = crate::numbers::len(missing);
    ensure!(found.twice == 0, "{} entries are there twice", found.twice);
    let name = damaged.display().to_string();
    let named = found.gaps.iter().filter(|gap| gap.contains(&name)).count();
    let said: u64 = found.gaps.iter().map(|gap| count_of(gap)).sum();
    ensure!(missing == 0 || named > 0, "{missing} are missing; gaps: {:?}", found.gaps);
    ensure!(missing <= said, "{missing} are missing, the gaps say {said}: {:?}", found.gaps);
    sheet.add("hardships, entries", "", float(written));
    sheet.add("hardships, each once", "", float(written - missing));
    sheet.add("hardships, in gaps that name the damaged file", "", float(missing));
    Ok(())
}

/// Waits until nothing more comes for a while.
fn settle(agent: &mut Agent) -> anyhow::Result<Status> {
    let mut last = (Status::default(), Instant::now());
    let what = "the agent has read everything";
    shell::wait_for(what, LIMIT, Duration::from_millis(50), || {
        let Some(now) = agent.status()? else { return Ok(None) };
        if now != last.0 {
            last = (now, Instant::now());
        }
        let is_quiet = last.1.elapsed() > Duration::from_secs(15) && last.0.in_flight_bytes == 0;
        Ok(is_quiet.then(|| last.0.clone()))
    })
}

/// `… entries number 7 to 9 …`: 3.
fn count_of(gap: &str) -> u64 {
    let Some((_, rest)) = gap.split_once(" number ") else { return 0 };
    let mut numbers = rest
        .split(|byte: char| !byte.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .map(|part| part.parse::<u64>().unwrap_or(0));
    let from = numbers.next().unwrap_or(0);
    let to = rest.split_once(" to ").and_then(|_| numbers.next()).unwrap_or(from);
    to.saturating_sub(from) + 1
}

/// What stands in the spool of an agent that is not running.
#[derive(Debug, Default)]
struct Spooled {
    numbers: BTreeMap<u64, u32>,
    twice: u64,
    gaps: Vec<String>,
}

impl Spooled {
    fn of(programs: &Programs, place: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(&programs.agent)
            .args(["spool", "cat", "--config"])
            .arg(place.join("agent.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("the program's output")?;
        let mut found = Self::default();
        let (mut reader, mut line) = (BufReader::with_capacity(1 << 20, out), Vec::new());
        while reader.read_until(b'\n', &mut line)? > 0 {
            found.note(&line)?;
            line.clear();
        }
        ensure!(child.wait()?.success(), "custody-agent spool cat failed");
        Ok(found)
    }

    fn note(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let event: EventView<'_> = serde_json::from_slice(line)?;
        if event.tags.iter().any(|tag| tag == "gap") {
            let reason = event.reason.text.as_deref().unwrap_or_default();
            let message = event.message.as_deref().unwrap_or_default();
            let path = event.origin.path.as_deref().unwrap_or_default();
            self.gaps.push(format!("{message} {reason} {path}"));
        } else if event.origin.input.as_deref() == Some("j") {
            let user = event.actor.name.as_deref().unwrap_or_default();
            let number = user.strip_prefix('u').and_then(|text| text.parse().ok());
            let number =
                number.with_context(|| format!("an event that is none of ours: {user}"))?;
            let times = self.numbers.entry(number).or_default();
            *times += 1;
            self.twice += u64::from(*times > 1);
        }
        Ok(())
    }

    fn expect_once(&self, entries: u64) -> anyhow::Result<()> {
        let missing = (0..entries).find(|number| !self.numbers.contains_key(number));
        ensure!(missing.is_none(), "entry {missing:?} is missing");
        ensure!(self.twice == 0, "{} entries are there twice", self.twice);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gaps_numbers_are_counted() {
        assert_eq!(count_of("the journal's entries number 7 to 9 of 12ab are lost"), 3);
        assert_eq!(count_of("the journal's entry number 5 of ab"), 1);
        assert_eq!(count_of("nothing"), 0);
    }
}
