//! What people type.

mod check;
mod coverage;
mod difference;
mod doctor;
mod draft;
mod enroll;
mod follow;
mod fork;
mod preview;
mod print;
mod run;
mod service_user;
mod spool;
mod status;
mod test;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory, Parser, Subcommand};
use custody_config::shell::{Clock, Exit, SystemClock, finish};
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
    #[command(after_help = "Example:\n  custody-agent run --config /etc/custody/agent.yaml")]
    Run(ConfigArgs),
    /// Check the configuration, the packs and the set-up without starting.
    #[command(after_help = "Example:\n  custody-agent check --config agent.yaml --print")]
    Check(check::CheckArgs),
    /// Run the tests of all rule packs.
    #[command(after_help = "Example:\n  custody-agent test /etc/custody/packs/*.yaml")]
    Test(test::TestArgs),
    /// Show what rule packs make of a log file.
    #[command(after_help = "Example:\n  custody-agent preview --packs sshd,sudo /var/log/auth.log")]
    Preview(preview::PreviewArgs),
    /// Count what rules know of a log, and show what they do not.
    #[command(after_help = "Example:\n  custody-agent coverage /var/log/app.log")]
    Coverage(coverage::CoverageArgs),
    /// Draft a rule pack, with its tests, from a log that no pack knows.
    #[command(after_help = "Example:\n  custody-agent draft /var/log/app.log > app.yaml")]
    Draft(draft::DraftArgs),
    /// Ask the running agent how it is.
    #[command(after_help = "Example:\n  sudo custody-agent status")]
    Status(status::StatusArgs),
    /// Watch the running agent.
    Top(top::TopArgs),
    /// Look at all that the agent depends on, and say what is wrong and what mends it.
    Doctor(doctor::DoctorArgs),
    /// Enrol at the collectors now, with a token that need not stay here.
    Enroll(enroll::EnrollArgs),
    /// Accept that a collector's history does not continue what it had shown.
    #[command(
        after_help = "Example:\n  sudo custody-agent accept-fork --output central --reason 'the collector was put back'"
    )]
    AcceptFork(fork::AcceptForkArgs),
    /// Look into the spool of an agent that is not running.
    #[command(after_help = "Example:\n  sudo custody-agent spool ls")]
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

/// The definition of the command line: manual pages and completions are made from it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line, does what it says, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    main_at(Arc::new(SystemClock::new()))
}

/// The same, with a clock of one's own for the agent that runs and for `doctor`: how tests set it wrong.
#[must_use]
pub fn main_at(clock: Arc<dyn Clock>) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    finish("custody-agent", dispatch(cli.command, clock))
}

/// clap's own exit code for a wrong command line is 2; ours is 64 (EX_USAGE).
fn usage(error: &clap::Error) -> ExitCode {
    let code = if error.use_stderr() { Exit::Usage } else { Exit::Good };
    match error.print() {
        Ok(()) => code.into(),
        Err(_) => Exit::Io.into(),
    }
}

fn dispatch(command: Command, clock: Arc<dyn Clock>) -> anyhow::Result<Exit> {
    match command {
        Command::Run(args) => run::run(&args, clock),
        Command::Check(args) => check::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Coverage(args) => coverage::run(&args),
        Command::Draft(args) => draft::run(&args),
        Command::Preview(args) => preview::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Doctor(args) => doctor::run(&args, clock),
        Command::Enroll(args) => enroll::run(&args),
        Command::AcceptFork(args) => fork::run(&args),
        Command::Spool(args) => spool::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(command: &clap::Command, look: &mut impl FnMut(&clap::Command)) {
        look(command);
        for below in command.get_subcommands() {
            each(below, look);
        }
    }

    #[test]
    fn the_help_of_every_command_fits_one_screen_and_those_of_the_program_give_an_example() {
        let mut command = command();
        command.build();
        let mut all = 0;
        each(&command, &mut |command| {
            let help = command.clone().render_help().to_string();
            let lines = help.lines().count();
            assert!(lines <= 48, "{}: {lines} lines\n{help}", command.get_name());
            all += 1;
        });
        assert!(all > 12);
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            let help = below.clone().render_help().to_string();
            assert!(help.contains("Example"), "{} gives no example\n{help}", below.get_name());
        }
    }
}
