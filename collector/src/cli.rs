//! What people type.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser};
use custody_config::shell::{Clock, Exit, SystemClock, finish};

use crate::command::{
    self, AcceptForkArgs, AccessArgs, AgentCommand, ArchiveCommand, BackupArgs, CheckArgs,
    ConfigArgs, EraseArgs, ExportArgs, HistoryArgs, HoldCommand, InitArgs, RetentionCommand,
    RoleCommand, SearchArgs, TailArgs, TimelineArgs, TokenCommand, UserCommand,
};

/// Keeps audit events as evidence and finds them again
#[derive(Debug, Parser)]
#[command(name = "custody-collector", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the collector
    Run(ConfigArgs),
    /// Make an authority and a server certificate for a first installation
    Init(InitArgs),
    /// Check the configuration and the files that it names
    Check(CheckArgs),
    /// Search for events
    Search(SearchArgs),
    /// Show events as they come
    Tail(TailArgs),
    /// What happened in a session, by an actor or to a target, oldest first
    Timeline(TimelineArgs),
    /// Who changed something and when, and what it was at an instant
    History(HistoryArgs),
    /// Did this user see or export that?
    Access(AccessArgs),
    /// Export what a search finds to a file: CSV, JSON, NDJSON, Parquet, PDF, or a bundle
    Export(ExportArgs),
    /// Throw the index away; the next start makes it again from the evidence log
    RebuildIndex(ConfigArgs),
    /// Read the whole evidence log and check all of it
    Verify(ConfigArgs),
    /// List and revoke agents
    Agent {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(subcommand)]
        command: AgentCommand,
    },
    /// Sign into the log that it does not continue what agents have been shown (after this
    /// collector was put back from an older copy)
    AcceptFork(AcceptForkArgs),
    /// Take away what has reached its age
    Retention {
        #[command(subcommand)]
        command: RetentionCommand,
    },
    /// Put events on hold: they neither expire nor are erased
    Hold {
        #[command(subcommand)]
        command: HoldCommand,
    },
    /// Erase a person's events, with a second person's approval
    Erase(EraseArgs),
    /// List the archive and restore from it
    Archive {
        #[command(subcommand)]
        command: ArchiveCommand,
    },
    /// Copy the data directory, also while the collector runs, and verify the copy
    Backup(BackupArgs),
    /// Make a data directory out of a backup
    Restore(BackupArgs),
    /// Make, list and revoke tokens
    Token {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Make, list, disable and remove users, and set their passwords
    User {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Make, list and remove roles of your own
    Role {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(subcommand)]
        command: RoleCommand,
    },
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

/// The same, with a clock of one's own for the collector that runs: how tests let years pass.
#[must_use]
pub fn main_at(clock: Arc<dyn Clock>) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Good };
            return finish("custody-collector", error.print().map(|()| exit).map_err(Into::into));
        }
    };
    finish("custody-collector", dispatch(&cli.command, clock))
}

fn dispatch(command: &Command, clock: Arc<dyn Clock>) -> anyhow::Result<Exit> {
    match command {
        Command::Run(config) => command::run(config, clock),
        Command::Init(args) => command::init(args),
        Command::Check(args) => command::check(args),
        Command::Search(args) => command::search(args),
        Command::Tail(args) => command::tail(args),
        Command::Timeline(args) => command::timeline(args),
        Command::History(args) => command::history(args),
        Command::Access(args) => command::access(args),
        Command::Export(args) => command::export(args),
        Command::RebuildIndex(config) => command::derived::rebuild_index(config),
        Command::Verify(config) => command::verify(&config.load()?.value),
        Command::Agent { config, command } => command::agent(&config.load()?.value, command),
        Command::AcceptFork(args) => command::accept_fork(args),
        Command::Retention { command } => command::retention(command),
        Command::Hold { command } => command::hold(command),
        Command::Erase(args) => command::erase(args),
        Command::Archive { command } => command::archive(command),
        Command::Backup(args) => command::backup(args),
        Command::Restore(args) => command::restore(args),
        Command::Token { config, command } => command::token(&config.load()?.value, command),
        Command::User { config, command } => command::user(&config.load()?.value, command),
        Command::Role { config, command } => command::role(&config.load()?.value, command),
    }
}
