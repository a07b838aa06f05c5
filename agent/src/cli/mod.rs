//! What people type.

mod check;
mod coverage;
mod difference;
mod draft;
mod follow;
mod fork;
mod preview;
mod print;
mod run;
mod spool;
mod status;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use custody_config::shell::{Exit, finish};
use custody_config::{AgentOverrides, LogLevel};

/// Where the configuration is looked for.
const DEFAULT_CONFIG: &str = "/etc/custody/agent.yaml";

/// Turns what a host's programs say into audit events and delivers each exactly once.
#[derive(Debug, Parser)]
#[command(name = "custody-agent", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  custody-agent check --config agent.yaml
  custody-agent preview --packs sshd,sudo /var/log/auth.log
  custody-agent status

Exit codes: 0 good, 1 the answer is no, 64 usage, 66 input missing, 74 I/O, 78 configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent (what the service does).
    Run(ConfigArgs),
    /// Check the configuration, the packs and the set-up without starting.
    Check(check::CheckArgs),
    /// Run the tests of all rule packs.
    Test(test::TestArgs),
    /// Show what rule packs make of a log file.
    Preview(preview::PreviewArgs),
    /// Count what rules know of a log, and show what they do not.
    Coverage(coverage::CoverageArgs),
    /// Draft a rule pack, with its tests, from a log that no pack knows.
    Draft(draft::DraftArgs),
    /// Ask the running agent how it is.
    Status(status::StatusArgs),
    /// Accept that a collector's history does not continue what it had shown.
    AcceptFork(fork::AcceptForkArgs),
    /// Look into the spool of an agent that is not running.
    Spool(spool::SpoolArgs),
}

/// Which configuration, and what is said in its place.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Keep spool, keys and positions here instead.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    log_level: Option<LogLevel>,
}

impl ConfigArgs {
    fn overrides(&self) -> AgentOverrides {
        AgentOverrides { data_dir: self.data_dir.clone(), log_level: self.log_level }
    }

    fn loader(&self) -> crate::runtime::Loader {
        crate::runtime::Loader { path: self.config.clone(), overrides: self.overrides() }
    }
}

fn level(word: &str) -> Result<LogLevel, String> {
    LogLevel::WORDS
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, level)| *level)
        .ok_or_else(|| "one of: error, warn, info, debug, trace".to_owned())
}

/// Parses the command line, does what it says, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    finish("custody-agent", dispatch(cli.command))
}

/// clap's own exit code for a wrong command line is 2; ours is 64 (EX_USAGE).
fn usage(error: &clap::Error) -> ExitCode {
    let code = if error.use_stderr() { Exit::Usage } else { Exit::Good };
    match error.print() {
        Ok(()) => code.into(),
        Err(_) => Exit::Io.into(),
    }
}

fn dispatch(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Coverage(args) => coverage::run(&args),
        Command::Draft(args) => draft::run(&args),
        Command::Preview(args) => preview::run(&args),
        Command::Status(args) => status::run(&args),
        Command::AcceptFork(args) => fork::run(&args),
        Command::Spool(args) => spool::run(&args),
    }
}
