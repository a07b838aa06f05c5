//! `retention`, `hold`, `erase`, `archive`: ask a running collector. `backup`, `restore`: work on
//! data directories themselves, `backup` also on one that is in use.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use custody_config::shell::{Exit, Failure, OrExit};
use custody_evidence::whole::give_all_to_owner;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, ClientArgs};
use super::{ConfigArgs, existing, say};
use crate::retain;

/// `retention`.
#[derive(Debug, Subcommand)]
pub(crate) enum RetentionCommand {
    /// Take away now what has reached its age
    Run {
        /// Only count it
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// `hold`.
#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Keep events, whatever their age, until the hold is released
    Add {
        /// For people
        #[arg(long)]
        name: String,
        /// Which events: a search line; without one all in the range
        #[arg(long, default_value = "")]
        q: String,
        /// Events at or after this time
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Events before this time
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
        /// Why
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List all holds
    List(ClientArgs),
    /// Let a hold go
    Release {
        /// Its number
        id: i64,
        /// Why
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// `erase`: asks for an erasure, or what is done with one.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct EraseArgs {
    #[command(subcommand)]
    command: Option<EraseCommand>,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Args)]
struct AskArgs {
    /// Whose events: a value, or actor.id=…, actor.name=…, email=…
    #[arg(long, value_name = "WHO")]
    subject: Vec<String>,
    /// Which events: a search line
    #[arg(long, conflicts_with = "subject")]
    q: Option<String>,
    /// Why; stands in the log, so name nobody
    #[arg(long)]
    reason: Option<String>,
    /// Only show what would go
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum EraseCommand {
    /// Approve what another person has asked for
    Approve {
        /// Its number
        id: i64,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Take back what waits for approval
    Withdraw {
        /// Its number
        id: i64,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List all erasures
    List(ClientArgs),
}

/// `archive`.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// List what is in the archive
    List(ClientArgs),
    /// Put archived days into search again
    Restore {
        /// From this day
        #[arg(long, value_name = "TIME")]
        from: String,
        /// Up to this day
        #[arg(long, value_name = "TIME")]
        to: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Let everything that was restored expire again
    Release(ClientArgs),
}

/// `backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// A directory that is not there yet, or empty
    dir: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

fn ask(
    client: &ClientArgs,
    method: Method,
    path: &str,
    pairs: &[(&str, &str)],
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let text = runtime.block_on(async {
        let answer = Client::of(client)?.ask(method, path, pairs, body).await?;
        anyhow::Ok(answer.text().await?)
    })?;
    if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
}

/// Shows an answer as it came, one field a line.
fn show(answer: &Value) -> anyhow::Result<Exit> {
    say(&format!("{answer:#}\n"))?;
    Ok(Exit::Good)
}

/// Runs retention.
///
/// # Errors
/// The collector cannot be reached or refuses.
pub(crate) fn retention(command: &RetentionCommand) -> anyhow::Result<Exit> {
    let RetentionCommand::Run { dry_run, client } = command;
    let body = json!({ "dry_run": dry_run });
    show(&ask(client, Method::POST, "/v1/retention/run", &[], Some(&body))?)
}

/// Makes, lists and releases holds.
///
/// # Errors
/// The collector cannot be reached or refuses.
pub(crate) fn hold(command: &HoldCommand) -> anyhow::Result<Exit> {
    match command {
        HoldCommand::Add { name, q, from, to, reason, client } => {
            let body = json!({ "name": name, "q": q, "from": from, "to": to, "reason": reason });
            show(&ask(client, Method::POST, "/v1/holds", &[], Some(&body))?)
        }
        HoldCommand::List(client) => show(&ask(client, Method::GET, "/v1/holds", &[], None)?),
        HoldCommand::Release { id, reason, client } => {
            let path = format!("/v1/holds/{id}");
            ask(client, Method::DELETE, &path, &[("reason", reason)], None)?;
            say(&format!("hold {id} is released\n"))?;
            Ok(Exit::Good)
        }
    }
}

/// Asks for, approves and lists erasures.
///
/// # Errors
/// The collector cannot be reached or refuses, or nobody is named.
pub(crate) fn erase(args: &EraseArgs) -> anyhow::Result<Exit> {
    match &args.command {
        None => ask_erasure(&args.ask),
        Some(EraseCommand::Approve { id, client }) => {
            let path = format!("/v1/erasures/{id}/approve");
            show(&ask(client, Method::POST, &path, &[], None)?)
        }
        Some(EraseCommand::Withdraw { id, client }) => {
            ask(client, Method::DELETE, &format!("/v1/erasures/{id}"), &[], None)?;
            say(&format!("erasure {id} is taken back\n"))?;
            Ok(Exit::Good)
        }
        Some(EraseCommand::List(client)) => {
            show(&ask(client, Method::GET, "/v1/erasures", &[], None)?)
        }
    }
}

fn ask_erasure(args: &AskArgs) -> anyhow::Result<Exit> {
    let usage = |what: &str| anyhow::Error::from(Failure::new(Exit::Usage, what.to_owned()));
    let reason = args.reason.as_deref().ok_or_else(|| usage("say why with --reason"))?;
    if args.subject.is_empty() && args.q.is_none() {
        return Err(usage("say whose events with --subject, or which with --q"));
    }
    let subject: BTreeMap<&str, &str> = args.subject.iter().map(|text| named(text)).collect();
    if subject.len() < args.subject.len() {
        return Err(usage("one --subject of each kind; ask for the others separately"));
    }
    let mut body = json!({ "reason": reason, "dry_run": args.dry_run });
    match &args.q {
        Some(q) => body["q"] = q.as_str().into(),
        None => body["subject"] = json!(subject),
    }
    show(&ask(&args.client, Method::POST, "/v1/erasures", &[], Some(&body))?)
}

/// `actor.id=4711`, or a value that may be anything.
fn named(text: &str) -> (&str, &str) {
    match text.split_once('=') {
        Some((key @ ("actor.id" | "actor.name" | "email" | "any"), value)) => (key, value),
        _ => ("any", text),
    }
}

/// Lists the archive and restores from it.
///
/// # Errors
/// The collector cannot be reached or refuses.
pub(crate) fn archive(command: &ArchiveCommand) -> anyhow::Result<Exit> {
    match command {
        ArchiveCommand::List(client) => show(&ask(client, Method::GET, "/v1/archive", &[], None)?),
        ArchiveCommand::Restore { from, to, client } => {
            let body = json!({ "from": from, "to": to });
            show(&ask(client, Method::POST, "/v1/archive/restore", &[], Some(&body))?)
        }
        ArchiveCommand::Release(client) => {
            show(&ask(client, Method::POST, "/v1/archive/release", &[], None)?)
        }
    }
}

/// Copies the data directory, also while a collector runs on it.
///
/// # Errors
/// There is none, or the copy cannot be made or does not verify.
pub(crate) fn backup(args: &BackupArgs) -> anyhow::Result<Exit> {
    let loaded = args.config.load()?;
    let from = existing(&loaded.value)?;
    let report = retain::backup(from, &args.dir).or_exit(Exit::Io, "the backup failed")?;
    say(&format!("{} is a whole copy\n{}", args.dir.display(), report.to_text()))?;
    Ok(Exit::Good)
}

/// Makes a data directory out of a backup.
///
/// # Errors
/// The backup does not verify, or the directory is not empty.
pub(crate) fn restore(args: &BackupArgs) -> anyhow::Result<Exit> {
    let loaded = args.config.load()?;
    let to = loaded.value.data_dir.get();
    let report = retain::restore(&args.dir, to).or_exit(Exit::Io, "nothing was restored")?;
    give_all_to_owner(to)
        .or_exit(Exit::Io, "what was restored cannot be given to the directory's owner")?;
    say(&format!(
        "{} is restored\n{}agents that were shown more than this copy holds refuse it until \
         `custody-collector accept-fork` says why; they keep and send again what it lacks\n",
        to.display(),
        report.to_text()
    ))?;
    Ok(Exit::Good)
}
