//! Where the rooms that are derived from the evidence log are attached: index, query, web.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use custody_config::shell::{Exit, StopToken};
use custody_config::{CollectorConfig, Loaded};
use custody_event::Clock;

use super::ConfigArgs;
use crate::access::Authenticator;
use crate::store::BlockSource;

/// What the derived rooms are given.
pub struct Given<'a> {
    /// Their configuration.
    pub config: &'a CollectorConfig,
    /// The data directory, locked by this process.
    pub data_dir: &'a Path,
    /// The evidence log.
    pub source: Arc<dyn BlockSource>,
    /// Who may read.
    pub readers: Arc<dyn Authenticator>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Set when the process shall stop.
    pub stop: StopToken,
}

/// What has been started.
#[derive(Default)]
pub struct Derived {
    /// Its routes.
    pub routes: Router,
    /// Called after the server has drained: ends what was started.
    pub close: Option<Box<dyn FnOnce() + Send>>,
}

/// Starts the index and gives its routes. Runs inside the runtime.
///
/// # Errors
/// The index cannot be opened.
pub fn start(_given: Given<'_>) -> anyhow::Result<Derived> {
    Ok(Derived::default())
}

/// `custody-collector search`.
///
/// # Errors
/// Always, until the index is attached.
pub fn search(_config: &Loaded<CollectorConfig>, _query: &str) -> anyhow::Result<Exit> {
    anyhow::bail!("search needs an index, which this build does not have")
}

/// `custody-collector rebuild-index`.
///
/// # Errors
/// Always, until the index is attached.
pub fn rebuild_index(_args: &ConfigArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("rebuild-index needs an index, which this build does not have")
}
