//! `custody-collector token`: may be used while the collector runs.

use std::sync::Arc;

use custody_config::shell::{Exit, SystemClock};
use custody_config::{CollectorConfig, Period};
use custody_event::{Clock, Timestamp};

use super::accounts::{ScopeArgs, answered, scoped};
use super::{existing, say};
use crate::access::{Access, By, NewToken, random_secret, shown, token_text};

/// What to do with tokens.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it: it is shown this once
    Create {
        /// Whose it is, or what for
        #[arg(long)]
        name: String,
        /// viewer, analyst, auditor, admin, enroll, or a role of your own
        #[arg(long)]
        role: String,
        /// How long it is good, as in 90d; without it, until it is revoked
        #[arg(long, value_name = "PERIOD", value_parser = period)]
        expires: Option<Period>,
        /// Good for enrolling one agent, with the role enroll
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        scope: ScopeArgs,
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
    let clock = SystemClock::new();
    let access = Access::open(existing(config)?, Arc::new(clock.clone()))?;
    answered(match command {
        TokenCommand::Create { name, role, expires, once, scope } => {
            let expires = expires.map(|period| after(clock.now(), period));
            let (name, role) = (name.clone(), role.clone());
            let (scope, once) = (scope.scope(), *once);
            create(&access, NewToken { name, role, scope, expires, once })
        }
        TokenCommand::List => list(&access, clock.now()),
        TokenCommand::Revoke { name } => access.drop_token(By::Machine, name).map_err(Into::into),
    })
}

fn period(text: &str) -> Result<Period, String> {
    Period::parse(text).map_err(|error| format!("{} ({})", error.what, error.hint))
}

fn after(now: Timestamp, period: Period) -> Timestamp {
    let micros = i64::try_from(period.millis()).unwrap_or(i64::MAX).saturating_mul(1_000);
    now.plus_micros(micros)
}

fn create(access: &Access, new: NewToken) -> anyhow::Result<()> {
    let secret = random_secret()?;
    access.add_token(By::Machine, new, &secret)?;
    say(&format!("{}\n", token_text(&secret)))
}

fn list(access: &Access, now: Timestamp) -> anyhow::Result<()> {
    let mut text = String::from(
        "ROLE       CREATED                      ENDS                         LAST USED                    NAME\n",
    );
    for token in access.tokens(By::Machine)? {
        let ends = token.revoked.or(token.expires);
        let over = match &token.used_by {
            Some(agent) => format!("  (used by agent {agent})"),
            None if !token.is_live(now) => "  (over)".to_owned(),
            None if token.once => "  (for one agent)".to_owned(),
            None => String::new(),
        };
        text.push_str(&format!(
            "{:<10} {:<28} {:<28} {:<28} {}{}{over}\n",
            token.role,
            shown(Some(token.created)),
            shown(ends),
            shown(token.last_used),
            token.name,
            scoped(&token.scope),
        ));
    }
    say(&text)
}
