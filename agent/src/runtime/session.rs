//! One configuration at work on one stream.

use std::cell::Cell;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use custody_config::agent::WhenFull;
use custody_config::shell::{Service, Signal, Signals};
use custody_config::{AgentConfig, Loaded};
use custody_event::StreamId;

use super::delivery::Delivery;
use super::difference::Facts;
use super::pipe::{Patience, Pipe, SourceView};
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
    /// Which stream.
    stream: StreamId,
    /// Sources wait until the blocks before this one are delivered: those in the spool at the start.
    hold_until: Option<u64>,
    /// A reload was asked for that waits for room in the spool.
    reload_waits: Cell<bool>,
    /// A full spool makes everything wait that reads.
    waits_when_full: bool,
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
        for shared_file in super::shared_files(&config.value) {
            log::warn!("{shared_file}");
        }
        let stream = state.stream;
        let hold_until = hold_sources.then(|| state.next_seq.get());
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
                    stream,
                    hold_until,
                    reload_waits: Cell::new(false),
                    waits_when_full: config.value.spool.when_full == WhenFull::Wait,
                    begun: shared.clock.monotonic(),
                })
            }
            Err(error) => match pipe.finish(None, shared, Patience::Little) {
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
        let patience = match &end {
            End::Stop => Patience::Little,
            End::Reload(..) | End::Reread | End::Rotate => Patience::Until(signals.stop_token()),
            End::NewIdentity { reason } | End::NewStream { reason, .. } => {
                Patience::EndStream(reason.clone())
            }
        };
        let finished = self.pipe.finish(last, &self.shared, patience);
        let (end, state) = ended_at(end, finished, self.stream)?;
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
                Some(Signal::Reload) if self.waits_for_room() => self.put_off_reload(),
                None if self.reload_waits.get() && !self.waits_for_room() => {
                    self.reload_waits.set(false);
                    if let Some(end) = self.reload_now(loader, service) {
                        return end;
                    }
                }
                Some(Signal::Reload) => {
                    if let Some(end) = self.reload_now(loader, service) {
                        return end;
                    }
                }
                None => {}
            }
            if let Some(end) = self.look() {
                return end;
            }
        }
    }

    /// Would the sources have to wait for the spool before they could end?
    fn waits_for_room(&self) -> bool {
        self.waits_when_full && self.shared.spool.stats().waiting.is_some()
    }

    /// Ending the sources now would have them wait without listening; so they go on as they are.
    fn put_off_reload(&self) {
        const WHY: &str = "the spool takes nothing now; the new configuration is loaded when it \
             takes events again, or at once by a restart";
        log::warn!("{WHY}");
        self.shared.reloads.waits(WHY);
        self.reload_waits.set(true);
    }

    fn reload_now(&self, loader: &Loader, service: &Service) -> Option<End> {
        service.reloading();
        let end = self.reload(loader);
        if end.is_none() {
            service.ready("the configuration before stays in force");
        }
        end
    }

    /// Has something happened that ends the session?
    fn look(&self) -> Option<End> {
        // In this order: a part that ended because the spool was damaged finds the spool saying so,
        // and a spool that says so has told what befell it.
        let broken = self.pipe.is_broken();
        let stats = self.shared.spool.stats();
        let incidents = self.shared.spool.take_incidents();
        if incidents.iter().any(may_have_lost_blocks) {
            self.lost_blocks.set(true);
        }
        let gaps: Vec<OwnAct> = incidents.iter().map(gap_of).collect();
        let lost = self.lost_blocks.get();
        self.say_whether_spool_waits(stats.waiting.as_deref());
        if let Some(reason) = stats.needs_restream {
            return Some(End::NewStream { reason, gaps, lost });
        }
        if broken {
            log::error!("a part of the agent has ended by itself; it stops");
            return Some(End::Stop);
        }
        self.pipe.own_waiting();
        for gap in gaps {
            self.pipe.own(gap);
        }
        while let Some(act) = self.delivery.act() {
            self.pipe.own(act);
        }
        if self.hold_until.is_some_and(|until| stats.first_seq >= until) {
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
        (key_age >= ROTATE_EVERY && !self.waits_for_room()).then_some(End::Rotate)
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
            self.shared.sandbox.permits(&loaded.value, &loader.path)?;
            for warning in super::build::check(&loaded.value, &self.shared.clock)? {
                log::warn!("{warning}");
            }
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

/// Where the stream stands after a session. A stream that ends need not have ended in order: the
/// next one begins all the same, and tells what was on its way.
fn ended_at(
    end: End,
    finished: anyhow::Result<StreamState>,
    stream: StreamId,
) -> anyhow::Result<(End, StreamState)> {
    match (end, finished) {
        (end, Ok(state)) => Ok((end, state)),
        (End::NewStream { reason, mut gaps, lost }, Err(error)) => {
            log::error!("the stream did not end in order: {error:#}");
            gaps.push(cut_off_gap(&error));
            Ok((End::NewStream { reason, gaps, lost }, StreamState::begin(stream)))
        }
        (end @ End::NewIdentity { .. }, Err(error)) => {
            log::error!("the stream did not end in order: {error:#}");
            Ok((end, StreamState::begin(stream)))
        }
        (_, Err(error)) => Err(error),
    }
}

/// The gap for what was between the sources and the spool when the stream ended.
fn cut_off_gap(error: &anyhow::Error) -> OwnAct {
    OwnAct::Gap {
        code: "stream_cut_off".into(),
        text: format!(
            "The stream ended before everything that was read was in the spool ({error:#}). Files and the journal are read again from where they stood, webhook senders were told to come again; syslog messages on their way are lost."
        ),
        source: None,
        path: None,
        from: None,
        bytes: None,
        records: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_cannot_end_in_order_is_followed_by_the_next_one_all_the_same() {
        let failed = || Err(anyhow::anyhow!("the spool needs a new stream"));
        let end = End::NewStream { reason: "damaged".into(), gaps: Vec::new(), lost: true };
        let (end, state) = ended_at(end, failed(), StreamId([5; 16])).unwrap();
        assert_eq!(state.stream, StreamId([5; 16]));
        let End::NewStream { gaps, lost: true, .. } = end else { panic!("another end") };
        let [OwnAct::Gap { code, text, .. }] = &gaps[..] else { panic!("one gap") };
        assert_eq!(code, "stream_cut_off");
        assert!(text.contains("the spool needs a new stream"), "{text}");
        assert!(ended_at(End::Stop, failed(), StreamId([5; 16])).is_err());
    }
}
