//! `custody-collector verify`: reads the whole evidence log; changes nothing, and may run beside
//! the collector (what is being appended just then may look cut off).

use std::sync::Arc;

use custody_config::CollectorConfig;
use custody_config::shell::{Exit, SystemClock};

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
    let mut keys = crate::tlog::keys::named(&data_dir.join("tlog"))?;
    for agent in access.agents()? {
        keys.entry((agent.id, agent.key.id())).or_insert(agent.key);
    }
    let report =
        log::verify(&folder_in(data_dir), &|agent, key| keys.get(&(*agent, *key)).cloned())?;
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
