//! What people type.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use custody_config::shell::{Exit, finish};

use crate::command::{
    self, AcceptForkArgs, AgentCommand, ConfigArgs, ExportArgs, InitArgs, RoleCommand, SearchArgs,
    TokenCommand, UserCommand,
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
    Check(ConfigArgs),
    /// Search for events
    Search(SearchArgs),
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Good };
            return finish("custody-collector", error.print().map(|()| exit).map_err(Into::into));
        }
    };
    finish("custody-collector", dispatch(&cli.command))
}

fn dispatch(command: &Command) -> anyhow::Result<Exit> {
    match command {
        Command::Run(config) => command::run(config),
        Command::Init(args) => command::init(args),
        Command::Check(config) => command::check(config),
        Command::Search(args) => command::search(args),
        Command::Export(args) => command::export(args),
        Command::RebuildIndex(config) => command::derived::rebuild_index(config),
        Command::Verify(config) => command::verify(&config.load()?.value),
        Command::Agent { config, command } => command::agent(&config.load()?.value, command),
        Command::AcceptFork(args) => command::accept_fork(args),
        Command::Token { config, command } => command::token(&config.load()?.value, command),
        Command::User { config, command } => command::user(&config.load()?.value, command),
        Command::Role { config, command } => command::role(&config.load()?.value, command),
    }
}
