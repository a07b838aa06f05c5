//! `custody-collector token`: may be used while the collector runs.

use std::sync::Arc;

use custody_config::CollectorConfig;
use custody_config::shell::{Exit, SystemClock};

use super::{existing, say};
use crate::access::{Access, AccessError, Role, random_secret, shown, token_text};

/// What to do with tokens.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it: it is shown this once
    Create {
        /// Whose it is, or what for
        #[arg(long)]
        name: String,
        /// What it allows
        #[arg(long, value_parser = ["admin", "auditor", "viewer", "enroll"])]
        role: String,
    },
    /// List all tokens, without their secrets
    List,
    /// Revoke a token for ever
    Revoke {
        /// Its name
        name: String,
    },
}

/// Does it.
///
/// # Errors
/// There is no data directory, the database cannot be used, or standard output is gone.
pub fn token(config: &CollectorConfig, command: &TokenCommand) -> anyhow::Result<Exit> {
    let access = Access::open(existing(config)?, Arc::new(SystemClock::new()))?;
    let done = match command {
        TokenCommand::Create { name, role } => create(&access, name, role),
        TokenCommand::List => list(&access),
        TokenCommand::Revoke { name } => access.revoke_token(name).map_err(Into::into),
    };
    match done {
        Ok(()) => Ok(Exit::Good),
        Err(error) => match error.downcast_ref::<AccessError>() {
            Some(AccessError::NameTaken(_) | AccessError::NoSuchToken(_)) => {
                Err(custody_config::shell::Failure::new(Exit::No, error.to_string()).into())
            }
            _ => Err(error),
        },
    }
}

fn create(access: &Access, name: &str, role: &str) -> anyhow::Result<()> {
    let role = Role::from_name(role).ok_or_else(|| anyhow::anyhow!("unknown role {role:?}"))?;
    let secret = random_secret()?;
    access.create_token(name, role, &secret)?;
    say(&format!("{}\n", token_text(&secret)))
}

fn list(access: &Access) -> anyhow::Result<()> {
    let mut text =
        String::from("ROLE     CREATED                      REVOKED                      NAME\n");
    for token in access.tokens()? {
        text.push_str(&format!(
            "{:<8} {:<28} {:<28} {}\n",
            token.role.name(),
            shown(Some(token.created)),
            shown(token.revoked),
            token.name
        ));
    }
    say(&text)
}
