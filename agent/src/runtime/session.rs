//! One configuration at work on one stream.

use std::cell::Cell;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use custody_config::shell::{Service, Signal, Signals};
use custody_config::{AgentConfig, Loaded};

use super::delivery::Delivery;
use super::difference::Facts;
use super::pipe::{Pipe, SourceView};
use super::{DRAIN, Loader, Shared};
use crate::admin::Answer;
use crate::outputs::Ended;
use crate::pipeline::{Gate, OwnAct, StreamState};
use crate::spool::Incident;
use crate::status::{OutputState, SourceStatus, SpoolStatus, Status};
use crate::stream::{quarantine_gap, rollback_gap};

/// How long one key signs, at most.
const ROTATE_EVERY: Duration = Duration::from_secs(24 * 3600);
/// How often the session looks after its parts. Nothing waits for it: signals wake it at once.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why a session ended.
pub(crate) enum End {
    /// The agent is to stop.
    Stop,
    /// A new configuration has been loaded and can be built.
    Reload(Box<Loaded<AgentConfig>>, Facts),
    /// All saved blocks are delivered: what was lost can be read again.
    Reread,
    /// The key is a day old.
    Rotate,
    /// The agent's identity has been overtaken: it takes on a new one.
    NewIdentity {
        /// Why.
        reason: String,
    },
    /// The stream cannot go on.
    NewStream {
        /// Why.
        reason: String,
        /// To be told in the new one.
        gaps: Vec<OwnAct>,
        /// Blocks were lost: what can be read again is.
        lost: bool,
    },
}

/// A session that could not begin.
pub(crate) struct NotStarted {
    /// Why.
    pub(crate) error: anyhow::Error,
    /// Where the stream stands, if another session can go on from there.
    pub(crate) state: Option<StreamState>,
}

/// A running session.
pub(crate) struct Session {
    shared: Shared,
    pipe: Pipe,
    delivery: Delivery,
    /// The log has said that the spool takes nothing.
    spool_waits: Cell<bool>,
    /// The spool lost blocks since this session began.
    lost_blocks: Cell<bool>,
    /// Sources wait until the blocks in the spool are delivered.
    hold_sources: bool,
    /// When it began (monotonic): the key is not older by much.
    begun: Duration,
}

impl Session {
    pub(crate) fn start(
        config: &Loaded<AgentConfig>,
        shared: &Shared,
        state: StreamState,
        acts: Vec<OwnAct>,
        hold_sources: bool,
    ) -> Result<Self, NotStarted> {
        for warning in &config.warnings {
            log::warn!("{warning}");
        }
        let stream = state.stream;
        let pipe = Pipe::start(&config.value, shared, state, acts, hold_sources)
            .map_err(|error| NotStarted { error, state: None })?;
        let views = pipe.sources.clone();
        let gate = Arc::clone(&pipe.gate);
        let reporter = Reporter::new(config, shared, stream.to_hex(), views, gate);
        let delivery = Delivery::start(&config.value, shared, stream, |outputs| {
            let outputs = outputs.to_vec();
            let answer: Answer = Arc::new(move || reporter.status(&outputs));
            answer
        });
        match delivery {
            Ok(delivery) => {
                log::info!(
                    sources = config.value.sources.len(), outputs = config.value.outputs.len(),
                    stream = stream.to_hex().as_str(); "at work"
                );
                Ok(Self {
                    shared: shared.clone(),
                    pipe,
                    delivery,
                    spool_waits: Cell::new(false),
                    lost_blocks: Cell::new(false),
                    hold_sources,
                    begun: shared.clock.monotonic(),
                })
            }
            Err(error) => match pipe.finish(None, shared) {
                Ok(state) => Err(NotStarted { error, state: Some(state) }),
                Err(error) => Err(NotStarted { error, state: None }),
            },
        }
    }

    /// Runs until it must end, then ends in order. Gives back where the stream stands.
    pub(crate) fn run(
        self,
        loader: &Loader,
        signals: &mut Signals,
        service: &Service,
    ) -> anyhow::Result<(End, StreamState)> {
        let end = self.watch(loader, signals, service);
        let last = match &end {
            End::Stop => Some(OwnAct::Stopped { reason: "asked to stop".into() }),
            End::Reload(..)
            | End::Reread
            | End::Rotate
            | End::NewIdentity { .. }
            | End::NewStream { .. } => None,
        };
        if matches!(end, End::Stop) {
            service.stopping("writing what was read");
        }
        let state = self.pipe.finish(last, &self.shared)?;
        if matches!(end, End::Stop) {
            self.delivery.drain(&self.shared.spool, DRAIN, &*self.shared.clock);
        }
        self.delivery.finish()?;
        Ok((end, state))
    }

    fn watch(&self, loader: &Loader, signals: &mut Signals, service: &Service) -> End {
        loop {
            match signals.wait_timeout(LOOK_EVERY) {
                Some(Signal::Stop) => return End::Stop,
                Some(Signal::Reload) => {
                    service.reloading();
                    if let Some(end) = self.reload(loader) {
                        return end;
                    }
                    service.ready("the configuration before stays in force");
                }
                None => {}
            }
            if let Some(end) = self.look() {
                return end;
            }
        }
    }

    /// Has something happened that ends the session?
    fn look(&self) -> Option<End> {
        let incidents = self.shared.spool.take_incidents();
        if incidents.iter().any(may_have_lost_blocks) {
            self.lost_blocks.set(true);
        }
        let gaps: Vec<OwnAct> = incidents.iter().map(gap_of).collect();
        let lost = self.lost_blocks.get();
        let stats = self.shared.spool.stats();
        self.say_whether_spool_waits(stats.waiting.as_deref());
        if let Some(reason) = stats.needs_restream {
            return Some(End::NewStream { reason, gaps, lost });
        }
        for gap in gaps {
            self.pipe.own(gap);
        }
        while let Some(act) = self.delivery.act() {
            self.pipe.own(act);
        }
        if self.hold_sources && stats.blocks == 0 {
            return Some(End::Reread);
        }
        match self.delivery.ended() {
            Some(Ended::NewStream { reason, forgotten }) => {
                let lost = lost || forgotten;
                return Some(End::NewStream { reason, gaps: Vec::new(), lost });
            }
            Some(Ended::NewIdentity { reason }) => return Some(End::NewIdentity { reason }),
            Some(Ended::Stopped) | None => {}
        }
        let key_age = self.shared.clock.monotonic().saturating_sub(self.begun);
        if key_age >= ROTATE_EVERY {
            return Some(End::Rotate);
        }
        if self.pipe.is_broken() {
            log::error!("a part of the agent has ended by itself; it stops");
            return Some(End::Stop);
        }
        None
    }

    /// Once when it begins to wait, once when it goes on.
    fn say_whether_spool_waits(&self, why: Option<&str>) {
        if why.is_some() == self.spool_waits.get() {
            return;
        }
        self.spool_waits.set(why.is_some());
        match why {
            Some(why) => {
                log::warn!("the spool takes nothing now, sources wait and nothing is lost: {why}")
            }
            None => log::info!("the spool takes events again"),
        }
    }

    /// Loads the configuration and builds all that can be built without being at work; keeps the
    /// old one on any error.
    fn reload(&self, loader: &Loader) -> Option<End> {
        let checked = loader.load().map_err(anyhow::Error::from).and_then(|loaded| {
            super::build::check(&loaded.value, &self.shared.clock)?;
            let facts = Facts::of(&loaded.value)?;
            Ok((loaded, facts))
        });
        match checked {
            Ok((loaded, facts)) => Some(End::Reload(Box::new(loaded), facts)),
            Err(error) => {
                self.pipe.own(refused(loader, &self.shared, &error));
                None
            }
        }
    }
}

/// Says that a configuration is refused, and why.
pub(super) fn refused(loader: &Loader, shared: &Shared, error: &anyhow::Error) -> OwnAct {
    let error = format!("{error:#}");
    log::error!("the configuration was not loaded, the one before stays in force: {error}");
    shared.reloads.refused(&error);
    OwnAct::ConfigRefused { path: loader.path.display().to_string(), error }
}

fn may_have_lost_blocks(incident: &Incident) -> bool {
    match incident {
        // A damaged store cannot say which blocks it held last.
        Incident::Quarantined(_) => true,
        Incident::RolledBack(_) => false,
    }
}

fn gap_of(incident: &Incident) -> OwnAct {
    match incident {
        Incident::Quarantined(quarantined) => quarantine_gap(quarantined),
        Incident::RolledBack(rolled_back) => rollback_gap(rolled_back),
    }
}

/// Puts the answer of `status` together.
struct Reporter {
    base: Status,
    shared: Shared,
    views: Vec<SourceView>,
    gate: Arc<Gate>,
}

impl Reporter {
    fn new(
        config: &Loaded<AgentConfig>,
        shared: &Shared,
        stream: String,
        views: Vec<SourceView>,
        gate: Arc<Gate>,
    ) -> Self {
        let base = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            agent: shared.identity.agent.to_hex(),
            host: config.value.host.clone(),
            host_id: shared.identity.host_id.clone(),
            stream,
            pid: std::process::id(),
            started: shared.started,
            now: shared.started,
            state: "running".into(),
            config_path: config
                .path
                .as_ref()
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            config_sha256: config.sha256.clone(),
            config_loads: 0,
            config_refusals: 0,
            config_trouble: None,
            in_flight_bytes: 0,
            sources: Vec::new(),
            spool: SpoolStatus::default(),
            outputs: Vec::new(),
        };
        Self { base, shared: shared.clone(), views, gate }
    }

    fn status(&self, outputs: &[Arc<OutputState>]) -> Status {
        let stats = self.shared.spool.stats();
        let durable = stats.durable_next_seq;
        let (config_loads, config_refusals, config_trouble) = self.shared.reloads.counts();
        Status {
            config_loads,
            config_refusals,
            config_trouble,
            now: self.shared.clock.now(),
            in_flight_bytes: u64::try_from(self.gate.held_bytes()).unwrap_or(u64::MAX),
            sources: self.views.iter().map(source_status).collect(),
            spool: SpoolStatus::from_stats(stats),
            outputs: outputs.iter().map(|output| output.snapshot(durable)).collect(),
            ..self.base.clone()
        }
    }
}

fn source_status(view: &SourceView) -> SourceStatus {
    let state = view.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let state = state.looked_at_now();
    SourceStatus {
        id: view.id.clone(),
        kind: view.kind.into(),
        since_start: view.counters.snapshot(),
        book: view.counters.book(),
        files: state.files,
        behind_bytes: state.behind_bytes,
        trouble: state.trouble,
    }
}
