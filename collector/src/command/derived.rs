//! Where the rooms that are derived from the evidence log are attached: index, query, web.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use custody_config::CollectorConfig;
use custody_config::collector::IndexConfig;
use custody_config::shell::{DataDir, Exit, StopToken};
use custody_event::Clock;

use super::ConfigArgs;
use crate::access;
use crate::export::{self, Exports};
use crate::index::{EventStore, IndexOptions, Indexer};
use crate::own::Acts;
use crate::query::api::{self, Prove, QueryState};
use crate::store::BlockSource;
use crate::store::evidence::EvidenceLog;
use crate::web;

/// What the derived rooms are given.
pub struct Given<'a> {
    /// Their configuration.
    pub config: &'a CollectorConfig,
    /// The data directory, locked by this process.
    pub data_dir: &'a Path,
    /// The evidence log.
    pub source: Arc<dyn BlockSource>,
    /// Who may read.
    pub readers: Arc<dyn access::Authenticator>,
    /// Makes sessions.
    pub logins: Arc<access::Logins>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The evidence log itself, where there is one: bundles and proofs are made of it.
    pub log: Option<Arc<EvidenceLog>>,
    /// Proves events.
    pub prover: Option<Arc<dyn Prove>>,
    /// Takes who has asked what.
    pub acts: Option<Acts>,
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
pub fn start(given: Given<'_>) -> anyhow::Result<Derived> {
    if matches!(given.config.index, IndexConfig::None) {
        return Ok(Derived::default());
    }
    let options = IndexOptions::new(given.data_dir.join("index"));
    let (store, indexer) =
        Indexer::open(options, Arc::clone(&given.source), Arc::clone(&given.clock))?;
    let exports = start_exports(&given, Arc::clone(&store) as Arc<dyn EventStore>)?;
    let runner = indexer.start()?;
    let auth = given.readers;
    let state =
        QueryState { store, auth, clock: given.clock, prover: given.prover, acts: given.acts };
    let secure = given.config.tls.is_some();
    let routes = api::router(state.clone())
        .merge(export::router(state.clone(), Arc::clone(&exports)))
        .merge(web::router(state, given.logins, secure));
    let close = move || {
        exports.stop();
        runner.stop();
    };
    Ok(Derived { routes, close: Some(Box::new(close)) })
}

fn start_exports(given: &Given<'_>, store: Arc<dyn EventStore>) -> anyhow::Result<Arc<Exports>> {
    let source = export::Source {
        store,
        blocks: Arc::clone(&given.source),
        log: given.log.clone(),
        clock: Arc::clone(&given.clock),
        acts: given.acts.clone(),
    };
    Ok(Exports::start(given.data_dir, source, export::Options::from(&given.config.exports))?)
}

/// `custody-collector rebuild-index`: throws the index away; the next start makes it again from
/// the evidence log, and searches find more and more meanwhile.
///
/// # Errors
/// A collector is running on this data directory, or the folder cannot be removed.
pub fn rebuild_index(args: &ConfigArgs) -> anyhow::Result<Exit> {
    let loaded = args.load()?;
    let dir = DataDir::open(&loaded.value.data_dir)?;
    Indexer::remove(&IndexOptions::new(dir.join("index")))?;
    super::say("the index is removed; it is made again at the next start\n")?;
    Ok(Exit::Good)
}
