//! `custody-agent doctor`: looks at everything that the agent depends on, and says of each what is wrong and what mends it.
//!
//! It reads and asks; it changes nothing. What it may read depends on who asks: called by root, it goes on as the service's user,
//! with the service's groups ([`super::service_user`]).

mod host;
mod reach;
mod read;

use std::io::Write;
use std::sync::Arc;

use clap::Args;
use custody_config::AgentConfig;
use custody_config::shell::Exit;
use custody_event::Clock;
use serde::Serialize;

use super::{ConfigArgs, print, service_user, status};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sudo custody-agent doctor --config /etc/custody/agent.yaml\n\nExit codes: 0 nothing is bad, 1 something is."
)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Called by root, look as this user: what it may not read, the service may not.
    #[arg(long, value_name = "USER", default_value = service_user::AGENT)]
    user: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Good,
    /// It works, and may not for long, or not as meant.
    Warning,
    /// Events are not read, not kept or not delivered.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// `clock`, `disk`, `source auth` …
    what: String,
    level: Level,
    /// What was found.
    found: String,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// What was found so far.
#[derive(Debug, Default, Serialize)]
struct Findings {
    findings: Vec<Finding>,
}

impl Findings {
    fn good(&mut self, what: impl Into<String>, found: impl Into<String>) {
        self.add(what, Level::Good, found, None);
    }

    fn warn(&mut self, what: impl Into<String>, found: impl Into<String>, remedy: &str) {
        self.add(what, Level::Warning, found, Some(remedy.to_owned()));
    }

    fn bad(&mut self, what: impl Into<String>, found: impl Into<String>, remedy: &str) {
        self.add(what, Level::Bad, found, Some(remedy.to_owned()));
    }

    fn add(
        &mut self,
        what: impl Into<String>,
        level: Level,
        found: impl Into<String>,
        remedy: Option<String>,
    ) {
        self.findings.push(Finding { what: what.into(), level, found: found.into(), remedy });
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

pub(super) fn run(args: &DoctorArgs, clock: Arc<dyn Clock>) -> anyhow::Result<Exit> {
    if let Some(exit) = service_user::go_on_as(&args.user)? {
        return Ok(exit);
    }
    let mut findings = Findings::default();
    look(args, &clock, &mut findings);
    let mut out = print::stdout();
    if args.json {
        serde_json::to_writer(&mut out, &findings)?;
        writeln!(out)?;
    } else {
        show(&findings, &mut out)?;
    }
    out.flush()?;
    Ok(if findings.count(Level::Bad) == 0 { Exit::Good } else { Exit::No })
}

fn look(args: &DoctorArgs, clock: &Arc<dyn Clock>, findings: &mut Findings) {
    host::clock(&**clock, findings);
    let loader = args.config.loader();
    let loaded = match loader.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            let remedy = "mend what the lines name; custody-agent check says it again";
            return findings.bad("configuration", error.to_string(), remedy);
        }
    };
    for warning in &loaded.warnings {
        findings.warn("configuration", warning.to_string(), "see the hint");
    }
    let config = &loaded.value;
    super::run::install_crypto();
    match crate::runtime::check(config, clock) {
        Ok(_passed_over) => {
            findings.good("configuration", format!("{} is good", loader.path.display()))
        }
        Err(error) => {
            findings.bad("configuration", format!("{error:#}"), "mend it, then custody-agent check")
        }
    }
    host::data_dir(config, findings);
    host::disk(config, findings);
    host::journal(config, findings);
    read::sources(config, clock, findings);
    reach::certificates(config, &**clock, findings);
    reach::outputs(config, &**clock, findings);
    running(config, findings);
}

/// What the running agent says of itself.
fn running(config: &AgentConfig, findings: &mut Findings) {
    let socket = config.admin.socket.get();
    let said = match status::ask(socket) {
        Ok(said) => said,
        Err(error) => {
            return findings.warn(
                "agent",
                format!("no agent answers at {}: {error}", socket.display()),
                "systemctl start custody-agent; if it does not stay, journalctl -u custody-agent says why",
            );
        }
    };
    let status: crate::status::Status = match serde_json::from_str(&said) {
        Ok(status) => status,
        Err(error) => {
            let found = format!("its answer cannot be read: {error}");
            return findings.warn("agent", found, "is it of another version? restart it");
        }
    };
    findings
        .good("agent", format!("{} since {}, pid {}", status.state, status.started, status.pid));
    if let Some(why) = &status.config_trouble {
        let remedy = "the configuration before is in force; mend the file, then systemctl reload custody-agent";
        findings.bad("reload", why, remedy);
    }
    if let Some(why) = &status.spool.waiting {
        findings.bad(
            "spool",
            why,
            "sources wait and nothing is lost; make room, or let the collector take blocks",
        );
    }
    if status.spool.dead_letters > 0 {
        let found = format!("{} blocks were refused by a collector", status.spool.dead_letters);
        findings.warn("spool", found, "custody-agent spool ls --dead shows them");
    }
    for source in &status.sources {
        if let Some(why) = &source.trouble {
            findings.warn(format!("source {}", source.id), why, "as it says");
        }
    }
    for output in &status.outputs {
        let what = format!("output {}", output.id);
        match &output.trouble {
            Some(why) => findings.bad(
                what,
                why,
                "nothing is lost: delivery goes on by itself when this is mended",
            ),
            None => findings
                .good(what, format!("{}, {} blocks behind", output.state, output.lag_blocks)),
        }
    }
}

fn show(findings: &Findings, out: &mut impl Write) -> std::io::Result<()> {
    for finding in &findings.findings {
        let mark = match finding.level {
            Level::Good => "ok     ",
            Level::Warning => "warning",
            Level::Bad => "BAD    ",
        };
        writeln!(out, "{mark}  {:<16}  {}", finding.what, finding.found)?;
        if let Some(remedy) = &finding.remedy {
            writeln!(out, "{:<27}→ {remedy}", "")?;
        }
    }
    let (bad, warnings) = (findings.count(Level::Bad), findings.count(Level::Warning));
    writeln!(out, "\n{bad} bad, {warnings} warnings, {} good", findings.count(Level::Good))
}
