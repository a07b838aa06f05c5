//! Where the rooms that are derived from the evidence log are attached: index, query, web.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use custody_config::CollectorConfig;
use custody_config::collector::IndexConfig;
use custody_config::shell::{DataDir, Exit, Failure, StopToken};
use custody_event::Clock;

use super::ConfigArgs;
use crate::access;
use crate::export::{self, Exports};
use crate::index::{EmbeddedStore, EventStore, IndexOptions, Indexer};
use crate::own::Acts;
use crate::query::api::{self, Prove, QueryState};
use crate::query::openapi;
use crate::query::tail::{self, Tail};
use crate::retain;
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
    /// The index, with what its routes need.
    pub index: Option<(Arc<EmbeddedStore>, QueryState)>,
    /// Called after the server has drained: ends what was started.
    pub close: Option<Box<dyn FnOnce() + Send>>,
}

/// Starts the index and gives its routes. Runs inside the runtime.
///
/// # Errors
/// The index cannot be opened.
pub fn start(given: Given<'_>) -> anyhow::Result<Derived> {
    if matches!(given.config.index, IndexConfig::None) {
        return Ok(Derived { routes: openapi::router(), close: None, index: None });
    }
    let options = options(given.config, given.data_dir);
    let tail = Tail::start(Arc::clone(&given.source), given.stop.clone())?;
    let (store, indexer) =
        Indexer::open(options, Arc::clone(&given.source), Arc::clone(&given.clock))?;
    let exports = start_exports(&given, Arc::clone(&store) as Arc<dyn EventStore>)?;
    let runner = indexer.start()?;
    let auth = given.readers;
    let index = Arc::clone(&store);
    let state =
        QueryState { store, auth, clock: given.clock, prover: given.prover, acts: given.acts };
    let index = Some((index, state.clone()));
    let secure = given.config.tls.is_some();
    let routes = api::router(state.clone())
        .merge(openapi::router())
        .merge(tail::router(state.clone(), tail))
        .merge(export::router(state.clone(), Arc::clone(&exports)))
        .merge(web::router(state, given.logins, secure));
    let close = move || {
        exports.stop();
        runner.stop();
    };
    Ok(Derived { routes, index, close: Some(Box::new(close)) })
}

fn start_exports(given: &Given<'_>, store: Arc<dyn EventStore>) -> anyhow::Result<Arc<Exports>> {
    let source = export::Source {
        store,
        blocks: Arc::clone(&given.source),
        log: given.log.clone(),
        clock: Arc::clone(&given.clock),
        acts: given.acts.clone(),
        accounts: Some(Arc::clone(&given.readers)),
    };
    Ok(Exports::start(given.data_dir, source, export::Options::from(given.config))?)
}

/// Starts what keeps events for as long as is said, and gives its routes.
///
/// # Errors
/// Its tables cannot be opened, or a thread cannot be started.
pub fn retention(
    given: retain::Given<'_>,
    derived: &Derived,
) -> anyhow::Result<(retain::Worker, Router)> {
    let retain = retain::Retain::open(given).map_err(|error| match error {
        // Its keys or certificates cannot be read: that is for the operator to mend.
        retain::RetainError::S3(error) => {
            anyhow::Error::from(Failure::new(Exit::Config, error.to_string()))
        }
        other => other.into(),
    })?;
    let (worker, wake) = retain::Worker::start(Arc::clone(&retain))?;
    let routes = match &derived.index {
        Some((_, state)) => retain::router(state.clone(), retain, wake),
        None => Router::new(),
    };
    Ok((worker, routes))
}

/// The index's bounds, as they are configured.
fn options(config: &CollectorConfig, data_dir: &Path) -> IndexOptions {
    IndexOptions {
        search_limit_ms: config.search.max_time.millis(),
        page_bytes: config.search.max_answer_bytes.as_usize(),
        ..IndexOptions::new(data_dir.join("index"))
    }
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
