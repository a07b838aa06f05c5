//! Makes the transparency log say what the table of agents and forks says: revocations and
//! accepted forks, which the command line writes there, also while no collector runs.
//!
//! What was done with tokens and agents becomes an event in the collector's own stream.
//!
//! The table is the will, the log is the deed. Each round appends what is missing; a round that
//! failed is repeated, and nothing is appended twice.

use std::sync::Arc;
use std::time::Duration;

use custody_config::shell::StopToken;
use custody_event::Clock;
use custody_evidence::Entry;

use crate::access::Access;
use crate::own::{Act, Acts};
use crate::store::evidence::EvidenceLog;
use crate::tlog::Tlog;

/// How often the table is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Runs until stopped.
pub(crate) async fn keep(
    log: Arc<EvidenceLog>,
    access: Arc<Access>,
    clock: Arc<dyn Clock>,
    acts: Acts,
    stop: StopToken,
) {
    if log.tlog().is_none() {
        return stop.stopped().await;
    }
    loop {
        if let Err(error) = round(&log, &access, &clock).await {
            log::warn!(error:% = error; "the transparency log does not yet say what the list of agents says");
        }
        if let Err(error) = tell(&access, &acts).await {
            log::warn!(error:% = error; "what was done with tokens and agents is not all told yet");
        }
        tokio::select! {
            () = stop.stopped() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Acts on tokens, agents and forks become events; each stays in the table until it is durable.
async fn tell(access: &Arc<Access>, acts: &Acts) -> anyhow::Result<()> {
    let table = Arc::clone(access);
    tokio::task::spawn_blocking(move || table.note_used()).await??;
    let table = Arc::clone(access);
    let rows = tokio::task::spawn_blocking(move || table.acts()).await??;
    let Some(last) = rows.last().map(|row| row.id) else { return Ok(()) };
    let told: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let (who, action) = (row.who, row.action);
            let (target, reason) = (row.target, row.reason);
            acts.record_durably(Act::Administered { who, action, target, reason })
        })
        .collect();
    for durable in told {
        durable.await?;
    }
    let table = Arc::clone(access);
    Ok(tokio::task::spawn_blocking(move || table.forget_acts(last)).await??)
}

async fn round(
    log: &Arc<EvidenceLog>,
    access: &Arc<Access>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<()> {
    let (shared, access, clock) = (Arc::clone(log), Arc::clone(access), Arc::clone(clock));
    let missing = tokio::task::spawn_blocking(move || match shared.tlog() {
        Some(tlog) => missing(tlog, &access, &*clock),
        None => Ok(Vec::new()),
    });
    for (entry, said) in missing.await?? {
        let done = log.state(entry).map_err(|reason| anyhow::anyhow!(reason))?;
        let index = done.await??;
        log::warn!(index = index; "{said}");
    }
    Ok(())
}

/// Statements that the log lacks, each with what is said when it stands there.
fn missing(
    tlog: &Tlog,
    access: &Access,
    clock: &dyn Clock,
) -> anyhow::Result<Vec<(Entry, String)>> {
    let mut found = Vec::new();
    for agent in access.agents()?.iter().filter(|agent| agent.revoked.is_some()) {
        if let Some(key) = tlog.current(&agent.id) {
            let reason = agent.revoked_reason.as_deref().unwrap_or("revoked");
            let entry = tlog.revoked(agent.id, &key, reason, clock.now())?;
            found.push((entry, format!("key {} of agent {} is revoked", key.id(), agent.id)));
        }
    }
    for fork in access.forks()? {
        let Some((_, reason)) = &fork.accepted else { continue };
        if !tlog.has_accepted(&fork.head) {
            let entry = tlog.fork_accepted(fork.head, reason, clock.now())?;
            let size = fork.head.size;
            found.push((
                entry,
                format!("the fork from the {size} entries shown before is accepted: {reason}"),
            ));
        }
    }
    Ok(found)
}
