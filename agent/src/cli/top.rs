//! `custody-agent top`: the running agent, live. Asks the admin socket once a second and draws what `status` shows, with speeds,
//! until Ctrl-C. It draws with four escape sequences of its own (ECMA-48 and the alternate screen that every terminal has):
//! a library for terminals would be twenty more crates in a program that runs on every host.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use custody_config::shell::{Exit, Failure, Signal, Signals};

use super::{ConfigArgs, print, status};
use crate::status::{SourceStatus, Status};

const EVERY: Duration = Duration::from_secs(1);
/// The alternate screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the upper left corner, and away with the rest below what is drawn.
const HOME: &str = "\x1b[H";
const CLEAR_BELOW: &str = "\x1b[J";
/// A line is drawn over what stood there before.
const CLEAR_RIGHT: &str = "\x1b[K";

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sudo custody-agent top\n\nCtrl-C ends it. Into a pipe it says one picture."
)]
pub(super) struct TopArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The agent's socket (default: as the configuration says).
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// What is drawn.
#[derive(Debug, Default)]
struct Screen {
    now: Option<Status>,
    /// The answer before, for speeds.
    before: Option<Status>,
    /// Why there is no newer answer.
    trouble: Option<String>,
}

pub(super) fn run(args: &TopArgs) -> anyhow::Result<Exit> {
    let socket = status::socket(args.socket.as_ref(), &args.config)?;
    let mut screen = Screen::default();
    screen.take(status::ask(&socket));
    if let (None, Some(why)) = (&screen.now, &screen.trouble) {
        let what = format!(
            "no agent answers at {} (is it running? systemctl status custody-agent)",
            socket.display()
        );
        return Err(Failure::because(Exit::Io, what, why.clone()).into());
    }
    let mut out = print::stdout();
    if !std::io::stdout().is_terminal() {
        out.write_all(&screen.picture()?)?;
        out.flush()?;
        return Ok(Exit::Good);
    }
    let mut signals = Signals::install()?;
    out.write_all(ENTER.as_bytes())?;
    let drawn = (|| -> anyhow::Result<()> {
        loop {
            draw(&screen.picture()?, &mut out)?;
            if signals.wait_timeout(EVERY) == Some(Signal::Stop) {
                return Ok(());
            }
            screen.take(status::ask(&socket));
        }
    })();
    out.write_all(LEAVE.as_bytes())?;
    out.flush()?;
    drawn.map(|()| Exit::Good)
}

/// Over what stood there, without flicker.
fn draw(picture: &[u8], out: &mut impl Write) -> std::io::Result<()> {
    out.write_all(HOME.as_bytes())?;
    for line in picture.split(|byte| *byte == b'\n') {
        out.write_all(line)?;
        out.write_all(CLEAR_RIGHT.as_bytes())?;
        out.write_all(b"\r\n")?;
    }
    out.write_all(CLEAR_BELOW.as_bytes())?;
    out.flush()
}

impl Screen {
    fn take(&mut self, answer: std::io::Result<String>) {
        let read = answer.map_err(|error| error.to_string()).and_then(|text| {
            serde_json::from_str::<Status>(&text).map_err(|error| error.to_string())
        });
        match read {
            Ok(status) => {
                self.before = self.now.replace(status);
                self.trouble = None;
            }
            Err(why) => self.trouble = Some(why),
        }
    }

    /// What `status` shows, and below it how fast it goes.
    fn picture(&self) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let Some(status) = &self.now else { return Ok(out) };
        status::show(status, &mut out)?;
        let speeds = self.speeds(status);
        if !speeds.is_empty() {
            writeln!(out, "\nRECORDS A SECOND")?;
            for source in &status.sources {
                let speed = speeds.get(source.id.as_str()).copied().unwrap_or_default();
                writeln!(out, "{:<16}  {:<32} {speed}", source.id, bar(speed))?;
            }
        }
        let spool = &status.spool;
        let percent = spool.bytes.saturating_mul(100).checked_div(spool.max_bytes).unwrap_or(0);
        writeln!(
            out,
            "\nspool {percent} % full, {} in flight",
            print::bytes(status.in_flight_bytes)
        )?;
        match &self.trouble {
            Some(why) => writeln!(out, "! no answer since {}: {why}", status.now)?,
            None => writeln!(out, "{}", status.now)?,
        }
        Ok(out)
    }

    /// Records a second, by source; none before there are two answers of one run.
    fn speeds(&self, status: &Status) -> HashMap<String, u64> {
        let same_run = |before: &&Status| before.started == status.started;
        let Some(before) = self.before.as_ref().filter(same_run) else { return HashMap::new() };
        let micros = u64::try_from(status.now.micros() - before.now.micros()).unwrap_or(0).max(1);
        let speed = |source: &SourceStatus| {
            let earlier = before.sources.iter().find(|earlier| earlier.id == source.id)?;
            let read = source.since_start.read.saturating_sub(earlier.since_start.read);
            Some((source.id.clone(), read.saturating_mul(1_000_000) / micros))
        };
        status.sources.iter().filter_map(speed).collect()
    }
}

/// A mark for each doubling.
fn bar(speed: u64) -> String {
    let doublings = u64::BITS - speed.leading_zeros();
    "#".repeat(usize::try_from(doublings).unwrap_or_default().min(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(second: u32, read: u64) -> String {
        serde_json::json!({
            "version": "1", "agent": "a", "host": "web1", "host_id": "h", "stream": "s", "pid": 1,
            "started": "2026-01-01T00:00:00.000000Z", "now": format!("2026-01-01T00:00:{second:02}.000000Z"),
            "state": "running", "config_path": "/etc/x", "config_sha256": "00", "in_flight_bytes": 0,
            "sources": [{"id": "auth", "type": "file", "files": 1, "behind_bytes": 2048,
                "since_start": {"read": read, "stored": read, "filtered": 0, "unmatched": 0, "gaps": 0},
                "book": custody_event::SourceBook::default(), "trouble": "cannot read /var/log/x"}],
            "spool": crate::status::SpoolStatus { bytes: 1 << 20, max_bytes: 1 << 22, blocks: 3, ..Default::default() },
            "outputs": [{"id": "central", "state": "waiting", "endpoint": "https://c", "next_seq": 1, "lag_blocks": 2,
                "last_ack": null, "trouble": "connection refused", "retry_at": null, "failures": 7}],
        })
        .to_string()
    }

    #[test]
    fn the_picture_shows_speeds_troubles_and_how_full_the_spool_is() {
        let mut screen = Screen::default();
        screen.take(Ok(status(1, 100)));
        screen.take(Ok(status(3, 700)));
        screen.take(Err(std::io::Error::other("gone")));
        let shown = String::from_utf8(screen.picture().unwrap()).unwrap();
        for part in [
            "######### ",
            " 300\n",
            "700",
            "2.0 KiB",
            "spool 25 % full",
            "waiting",
            "! no answer since",
            "connection refused",
            "cannot read /var/log/x",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
        let mut drawn = Vec::new();
        draw(b"a\nb", &mut drawn).unwrap();
        assert_eq!(drawn, b"\x1b[Ha\x1b[K\r\nb\x1b[K\r\n\x1b[J");
    }
}
