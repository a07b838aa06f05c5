//! `custody-collector agent` and `accept-fork`: written into the data base, also while the
//! collector runs; the collector puts them into its transparency log within a second, or at its
//! next start.

use std::sync::Arc;

use custody_config::CollectorConfig;
use custody_config::shell::{Exit, Failure, SystemClock};
use custody_event::AgentId;

use super::{existing, say};
use crate::access::{Access, AccessError, shown};

/// A reason is one sentence, and stands in the log for ever.
const MAX_REASON_BYTES: usize = 1_000;

/// What to do with agents.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum AgentCommand {
    /// List all agents
    List,
    /// Take an agent's token and key away for ever: nothing that it signs is taken any more
    Revoke {
        /// Its id: 32 hex digits
        id: AgentId,
        /// Why; stands in the transparency log for ever
        #[arg(long, value_parser = reason)]
        reason: String,
    },
}

/// Arguments of `accept-fork`.
#[derive(Debug, Clone, clap::Args)]
pub struct AcceptForkArgs {
    /// Where the collector keeps everything
    #[command(flatten)]
    pub config: super::ConfigArgs,
    /// Why the log does not continue what it had shown; stands in the log for ever
    #[arg(long, value_parser = reason)]
    pub reason: String,
}

fn reason(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_REASON_BYTES || text.contains(char::is_control) {
        return Err("1 to 1,000 bytes without control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// Does what is asked with agents.
///
/// # Errors
/// There is no data directory, the database cannot be used, or standard output is gone.
pub fn agent(config: &CollectorConfig, command: &AgentCommand) -> anyhow::Result<Exit> {
    let access = Access::open(existing(config)?, Arc::new(SystemClock::new()))?;
    match command {
        AgentCommand::List => list(&access)?,
        AgentCommand::Revoke { id, reason } => match access.revoke_agent(*id, reason) {
            Ok(()) => say(&format!("agent {id} is revoked\n"))?,
            Err(error @ AccessError::NoSuchAgent(_)) => {
                return Err(Failure::new(Exit::No, error.to_string()).into());
            }
            Err(error) => return Err(error.into()),
        },
    }
    Ok(Exit::Good)
}

fn list(access: &Access) -> anyhow::Result<()> {
    let mut text = String::from(
        "AGENT                             KEY               ENROLLED                     REVOKED                      CERTIFICATE UNTIL            HOST\n",
    );
    for agent in access.agents()? {
        text.push_str(&format!(
            "{:<33} {:<17} {:<28} {:<28} {:<28} {}\n",
            agent.id.to_hex(),
            agent.key.id().to_string(),
            shown(Some(agent.enrolled)),
            shown(agent.revoked),
            shown(agent.certificate_until),
            agent.hostname
        ));
    }
    say(&text)
}

/// Accepts every fork that agents have shown. Exit 1 where there is none.
///
/// # Errors
/// There is no data directory, the database cannot be used, or standard output is gone.
pub fn accept_fork(args: &AcceptForkArgs) -> anyhow::Result<Exit> {
    let loaded = args.config.load()?;
    let access = Access::open(existing(&loaded.value)?, Arc::new(SystemClock::new()))?;
    let open: Vec<_> = access.forks()?.into_iter().filter(|fork| fork.accepted.is_none()).collect();
    if open.is_empty() {
        say(
            "no agent holds a checkpoint that this log does not continue: there is nothing to accept\n",
        )?;
        return Ok(Exit::No);
    }
    access.accept_forks(&args.reason)?;
    for fork in open {
        let head = fork.head;
        say(&format!(
            "accepted: the log had shown {} entries with root {} (agent {}, seen {})\n",
            head.size, head.root, fork.agent, fork.seen
        ))?;
    }
    say(
        "the collector signs this into its log within a second, or at its next start; agents then go on\n",
    )?;
    Ok(Exit::Good)
}
