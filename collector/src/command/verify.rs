//! `custody-collector verify`: reads the whole evidence log; changes nothing, and may run beside
//! the collector (what is being appended just then may look cut off).

use std::collections::HashMap;
use std::sync::Arc;

use custody_config::CollectorConfig;
use custody_config::shell::{Exit, SystemClock};
use custody_event::AgentId;
use custody_evidence::PublicKey;

use super::{existing, say};
use crate::access::Access;
use crate::store::evidence::{folder_in, verify as log};

/// Verifies; 0 if all is well, 1 if evidence is damaged or was tampered with.
///
/// # Errors
/// Files cannot be read.
pub fn verify(config: &CollectorConfig) -> anyhow::Result<Exit> {
    let data_dir = existing(config)?;
    let access = Access::open(data_dir, Arc::new(SystemClock::new()))?;
    let keys: HashMap<AgentId, PublicKey> =
        access.agents()?.into_iter().map(|agent| (agent.id, agent.key)).collect();
    let report = log::verify(&folder_in(data_dir), &|agent, _| keys.get(agent).cloned())?;
    let mut text = String::new();
    for problem in &report.problems {
        text.push_str(&format!("{problem}\n"));
    }
    text.push_str(&format!(
        "{} blocks, {} events verified in {} segments; {} problems\n",
        report.blocks, report.events, report.segments, report.problem_count
    ));
    say(&text)?;
    Ok(if report.is_good() { Exit::Good } else { Exit::No })
}
