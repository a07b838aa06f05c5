//! `cargo xtask demo`: from a log line to an event found by search, with the real programs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use custody_event::Timestamp;

use crate::agent::{Agent, Settings};
use crate::collector::Collector;
use crate::daemon::log_end;
use crate::out::say;
use crate::shell::{self, Profile};

/// From the built programs to the found event.
const LIMIT: Duration = Duration::from_secs(60);
const QUERY: &str = "action:authentication.login outcome:failure";

/// Arguments of `demo`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Keep the folder with configuration, spool and evidence, and say where it is.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = shell::scratch(None)?;
    say("Building custody-agent and custody-collector (the first time takes a few minutes) …");
    let programs = shell::build(Profile::Dev, folder.path())?;
    let (agent_log, collector_log) =
        (folder.path().join("agent.log"), folder.path().join("collector.log"));
    let shown = show(folder.path(), &programs, &agent_log, &collector_log);
    if args.keep {
        say(&format!("Kept: {}", folder.keep().display()));
    }
    shown.with_context(|| {
        format!(
            "{}\n{}",
            log_end("custody-agent", &agent_log),
            log_end("custody-collector", &collector_log)
        )
    })
}

fn show(
    folder: &Path,
    programs: &shell::Programs,
    agent_log: &Path,
    collector_log: &Path,
) -> anyhow::Result<()> {
    let log_file = folder.join("auth.log");
    let lines = sample(shell::now());
    std::fs::write(&log_file, &lines)?;
    say("\n1. A log file, as sshd and sudo write it:");
    for line in lines.lines() {
        say(&format!("     {line}"));
    }
    let collector =
        Collector::start(&programs.collector, &folder.join("collector-data"), &[], collector_log)?;
    say(&format!("2. A collector listens on {} and has written its tokens.", collector.address));
    let settings =
        Settings::under(folder, &log_file, collector.address, &collector.enroll_token_file());
    let mut agent = settings.start(&programs.agent, &folder.join("agent.yaml"), agent_log)?;
    say("3. An agent reads the file, enrols itself, and delivers signed blocks.");
    let found = wait_until_found(&collector, &mut agent, &programs.collector)?;
    if let Some(status) = agent.status()? {
        say(&format!(
            "4. {} lines read, {} of {} blocks acknowledged as evidence.",
            status.read, status.acked_next_seq, status.durable_next_seq
        ));
    }
    say(&format!("5. custody-collector search '{QUERY}'\n"));
    say(found.trim_end());
    agent.daemon.stop(Duration::from_secs(20))?;
    collector.daemon.stop(Duration::from_secs(20))?;
    say("\nFound. The README says how to install both for good.");
    Ok(())
}

fn wait_until_found(
    collector: &Collector,
    agent: &mut Agent,
    program: &Path,
) -> anyhow::Result<String> {
    let mut last = String::new();
    let found = shell::wait_for("the event is found", LIMIT, Duration::from_millis(100), || {
        agent.daemon.ensure_running()?;
        match collector.search(program, QUERY)? {
            (Some(0), text) if text.contains("mallory") => Ok(Some(text)),
            (Some(0 | 1), text) => {
                last = text;
                Ok(None)
            }
            (code, text) => bail!("the search failed (exit code {code:?}): {text}"),
        }
    });
    found.with_context(|| format!("the last search said: {last}"))
}

/// Three lines of an auth.log that ends now.
fn sample(now: Timestamp) -> String {
    let stamp = |seconds_ago: i64| syslog_time(now.plus_micros(-seconds_ago * 1_000_000));
    format!(
        "{} web1 sshd[4242]: Failed password for invalid user mallory from 203.0.113.77 port 50022 ssh2\n\
         {} web1 sshd[4243]: Accepted publickey for jane from 198.51.100.7 port 50023 ssh2: ED25519 SHA256:6Jm1WJ8rXo3bW0nqVJ1m0mJvK9yT0cVwq3q9C2m8a5k\n\
         {} web1 sudo:     jane : TTY=pts/0 ; PWD=/home/jane ; USER=root ; COMMAND=/usr/bin/systemctl restart nginx\n",
        stamp(9),
        stamp(6),
        stamp(3)
    )
}

/// RFC 3164 writes `Nov  9 08:07:06`, without a year.
pub(crate) fn syslog_time(time: Timestamp) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let civil = time.civil();
    let month = MONTHS[usize::from(civil.month.saturating_sub(1)) % 12];
    format!("{month} {:>2} {:02}:{:02}:{:02}", civil.day, civil.hour, civil.minute, civil.second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syslog_times_are_padded_with_a_space() {
        let time = Timestamp::parse("2026-11-09T08:07:06.000000Z").unwrap();
        assert_eq!(syslog_time(time), "Nov  9 08:07:06");
        assert_eq!(sample(time).lines().count(), 3);
    }
}
