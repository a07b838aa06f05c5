//! The pipeline's threads: workers, committer, releaser, and one for each source.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use custody_config::AgentConfig;
use custody_config::agent::{SourceConfig, WhenFull};
use custody_config::shell::StopToken;

use super::{Shared, build};
use crate::pipeline::{
    Books, Committer, CommitterParts, Entry, Gate, Intake, MAX_IN_FLIGHT_BYTES, OwnAct, OwnEvents,
    SourceOutlet, StreamState, Undelivered, Underway, Worker, dropped_untold, mark_prefix,
    position_prefix, positions_of, random_secret,
};
use crate::sources::file::FileSource;
use crate::sources::journal::JournalSource;
use crate::sources::syslog::SyslogSource;
use crate::sources::webhook;
use crate::sources::{Kept, SavedMarks, SharedSourceState, SourceIndex};
use crate::status::SourceCounters;

/// Worked items that wait for the committer; the gate bounds their bytes.
const WORKED_ITEMS: usize = 16;
/// Batches that wait to be durable; the spool bounds their bytes.
const UNDERWAY_BATCHES: usize = 256;
/// How long the pipeline may take to put what was read into the spool when the agent stops.
const COMMIT_WITHIN: Duration = Duration::from_secs(10);
/// How often a pipeline that ends looks whether the agent is to stop meanwhile.
const STOP_CHECK: Duration = Duration::from_millis(250);
/// Own acts that wait for room, at most.
const MAX_OWN_WAITING: usize = 1024;

/// One source of a session, as `status` shows it.
#[derive(Debug, Clone)]
pub(crate) struct SourceView {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) counters: Arc<SourceCounters>,
    pub(crate) state: Arc<SharedSourceState>,
}

/// What becomes of a pipeline that ends while the spool takes nothing.
pub(crate) enum Patience {
    /// The agent stops: after [`COMMIT_WITHIN`] the spool is closed.
    Little,
    /// Another pipeline follows on the same stream: it waits until the spool takes what was read,
    /// or the agent is to stop.
    Until(StopToken),
    /// The stream ends for this reason: after [`COMMIT_WITHIN`] it is ended without what waits.
    EndStream(String),
}

/// The running threads.
pub(crate) struct Pipe {
    pub(crate) gate: Arc<Gate>,
    pub(crate) sources: Vec<SourceView>,
    intake: Arc<Intake>,
    /// Own acts for which there was no room yet.
    own: Mutex<VecDeque<OwnAct>>,
    stop: StopToken,
    source_threads: Vec<JoinHandle<anyhow::Result<()>>>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
    committer: JoinHandle<anyhow::Result<Committer>>,
}

impl Pipe {
    /// Starts all threads. `acts` are the stream's next events. Sources that are held do not read.
    pub(crate) fn start(
        config: &AgentConfig,
        shared: &Shared,
        state: StreamState,
        acts: Vec<OwnAct>,
        hold_sources: bool,
    ) -> anyhow::Result<Self> {
        let contexts = Arc::new(build::contexts(config, shared)?);
        let untold = Undelivered::untold(&shared.spool)?;
        let sources: Vec<SourceView> = config.sources.iter().map(view).collect();
        let gate = Arc::new(Gate::new(MAX_IN_FLIGHT_BYTES));
        let (intake, items) = Intake::new(Arc::clone(&gate));
        let (worked_tx, worked) = bounded(WORKED_ITEMS);
        let (underway_tx, underway) = bounded(UNDERWAY_BATCHES);
        let rooms = rooms(config, shared, &sources)?;
        let committer = Committer::new(parts(config, shared, state, &sources)?, underway_tx)?;
        let mut threads = vec![spawn("releaser", {
            let gate = Arc::clone(&gate);
            move || release(&underway, &gate)
        })?];
        for number in 0..config.parse_workers.max(1) {
            let worker = Worker::new(Arc::clone(&contexts))?;
            let (items, done) = (items.clone(), worked_tx.clone());
            threads.push(spawn(&format!("parse-{number}"), move || worker.run(&items, &done))?);
        }
        let committer = spawn("commit", {
            let intake = Arc::clone(&intake);
            move || {
                let mut committer = committer;
                // Nothing gives room any more: whoever waits for it is told.
                committer.run(&worked).inspect_err(|_| intake.close())?;
                Ok(committer)
            }
        })?;
        let stop = StopToken::new();
        for act in acts {
            intake.put(Entry::Own(act))?;
        }
        let outlet = SourceOutlet {
            intake: Arc::clone(&intake),
            spool: shared.spool.clone(),
            stop: stop.clone(),
        };
        let source_threads = start_sources(rooms, shared, &sources, &outlet, hold_sources)?;
        let own = Mutex::default();
        let pipe = Self { gate, sources, intake, own, stop, source_threads, threads, committer };
        for gap in untold {
            pipe.own(OwnAct::Undelivered(gap));
        }
        Ok(pipe)
    }

    /// Puts one of the agent's own acts into the stream, now or as soon as there is room.
    pub(crate) fn own(&self, act: OwnAct) {
        let mut waiting = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_OWN_WAITING {
            waiting.push_back(act);
        } else {
            log::error!("too many events about the agent itself wait for room: one is not written");
        }
        drop(waiting);
        self.own_waiting();
    }

    /// Puts the own acts that wait into the stream as far as there is room. Never blocks: whoever
    /// calls it hears the signals.
    pub(crate) fn own_waiting(&self) {
        let mut waiting = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(act) = waiting.pop_front() {
            match self.intake.try_put(Entry::Own(act)) {
                Ok(()) => {}
                Err(Some(back)) => {
                    if let Entry::Own(act) = *back {
                        waiting.push_front(act);
                    }
                    return;
                }
                Err(None) => log::warn!(
                    "the pipeline has stopped: an event about the agent itself is not written"
                ),
            }
        }
    }

    /// Has a thread ended that should not have?
    pub(crate) fn is_broken(&self) -> bool {
        self.committer.is_finished()
            || self.threads.iter().any(JoinHandle::is_finished)
            || self.source_threads.iter().any(JoinHandle::is_finished)
    }

    /// Stops the sources, lets everything that they have read become durable, and says where the
    /// stream stands.
    pub(crate) fn finish(
        self,
        last: Option<OwnAct>,
        shared: &Shared,
        patience: Patience,
    ) -> anyhow::Result<StreamState> {
        self.stop.stop();
        let closer = spawn_closer(&self, shared, patience)?;
        let mut failed = None;
        for thread in self.source_threads {
            failed = failed.or(join(thread, "a source").err());
        }
        let own = self.own.into_inner().unwrap_or_else(PoisonError::into_inner);
        for act in own.into_iter().chain(last) {
            // The spool may be full: then the stop is not written, and the next start says so.
            let _unwritten = self.intake.put(Entry::Own(act));
        }
        self.intake.close();
        let committer = join(self.committer, "the committer");
        let state = committer.map(|committer| committer.into_parts().state);
        for thread in self.threads {
            failed = failed.or(join(thread, "the pipeline").err());
        }
        closer.stop();
        match (state, failed) {
            (Ok(state), None) => Ok(state),
            (Err(error), _) | (Ok(_), Some(error)) => Err(error),
        }
    }
}

/// The spool may take nothing (full, or no space on the disk): after a while this does what
/// `patience` says, so that stopping does not wait for ever. What is not durable then is read again.
fn spawn_closer(pipe: &Pipe, shared: &Shared, patience: Patience) -> anyhow::Result<StopToken> {
    let done = StopToken::new();
    let (watched, spool, intake) = (done.clone(), shared.spool.clone(), Arc::clone(&pipe.intake));
    spawn("closer", move || {
        if watched.wait_timeout(COMMIT_WITHIN) {
            return Ok(());
        }
        match patience {
            Patience::Little => {}
            Patience::Until(stop) => {
                log::warn!(
                    "the spool takes nothing: what was read waits for room, and the change with it"
                );
                if is_done_before(&watched, &stop) || watched.wait_timeout(COMMIT_WITHIN) {
                    return Ok(());
                }
            }
            Patience::EndStream(reason) => {
                log::warn!("the spool takes nothing; the stream ends without what is not in it");
                intake.close();
                spool.end_stream(&reason);
                return Ok(());
            }
        }
        log::warn!(
            "the spool takes nothing more; what is not in it is read again at the next start"
        );
        intake.close();
        let _closed = spool.close(Duration::from_secs(5));
        Ok(())
    })?;
    Ok(done)
}

/// Waits for both; true if it is done, false if the agent is to stop.
fn is_done_before(done: &StopToken, stop: &StopToken) -> bool {
    loop {
        if done.wait_timeout(STOP_CHECK) {
            return true;
        }
        if stop.is_stopped() {
            return false;
        }
    }
}

fn view(source: &SourceConfig) -> SourceView {
    SourceView {
        id: source.id().to_owned(),
        kind: source.kind(),
        counters: Arc::default(),
        state: Arc::default(),
    }
}

fn say_held(source: &SourceView) {
    let mut state = source.state.lock().unwrap_or_else(PoisonError::into_inner);
    state.trouble = Some(
        "the spool was damaged: what was saved of it is delivered first, then files are read again"
            .into(),
    );
}

/// What runs on a thread of its own.
enum Room {
    File(usize, FileSource),
    Journal(usize, JournalSource),
    Syslog(SyslogSource),
    /// All webhook sources share a listener.
    Webhooks(Box<webhook::Options>),
}

fn rooms(
    config: &AgentConfig,
    shared: &Shared,
    sources: &[SourceView],
) -> anyhow::Result<Vec<Room>> {
    let mut rooms = Vec::new();
    for (number, (source, view)) in config.sources.iter().zip(sources).enumerate() {
        let index = SourceIndex(u16::try_from(number)?);
        let clock = Arc::clone(&shared.clock);
        match source {
            SourceConfig::File(file) => {
                rooms.push(Room::File(number, build::file_source(file, index, clock)?));
            }
            SourceConfig::Journal(journal) => {
                rooms.push(Room::Journal(number, build::journal_source(journal, index, clock)?));
            }
            SourceConfig::Syslog(syslog) => {
                let options = build::syslog_options(syslog)?;
                let state = Arc::clone(&view.state);
                let source = SyslogSource::new(options, index, clock, random_name()?, state);
                rooms.push(Room::Syslog(source));
            }
            SourceConfig::Webhook(_) => {}
        }
    }
    rooms.extend(build::webhooks(config)?.map(|options| Room::Webhooks(Box::new(options))));
    Ok(rooms)
}

/// Names the place of what a source receives in one run.
fn random_name() -> anyhow::Result<[u8; 16]> {
    let mut name = [0; 16];
    name.copy_from_slice(&random_secret()?[..16]);
    Ok(name)
}

fn parts(
    config: &AgentConfig,
    shared: &Shared,
    state: StreamState,
    sources: &[SourceView],
) -> anyhow::Result<CommitterParts> {
    let identity = &shared.identity;
    Ok(CommitterParts {
        books: Books::from_saved(&shared.spool.scan_prefix(Books::prefix()).wait()?)?,
        own: OwnEvents::new(
            &identity.host_id,
            &state.stream,
            identity.agent.to_hex(),
            config.host.clone(),
            config.tenant.clone(),
        ),
        state,
        identity: Arc::clone(identity),
        clock: Arc::clone(&shared.clock),
        linger: config.spool.linger.duration(),
        spool: shared.spool.clone(),
        drop_when_full: config.spool.when_full == WhenFull::DropNewest,
        dropped: dropped_untold(&shared.spool)?,
        sources: sources
            .iter()
            .map(|source| (source.id.clone(), Arc::clone(&source.counters)))
            .collect(),
    })
}

fn start_sources(
    rooms: Vec<Room>,
    shared: &Shared,
    sources: &[SourceView],
    outlet: &SourceOutlet,
    hold: bool,
) -> anyhow::Result<Vec<JoinHandle<anyhow::Result<()>>>> {
    let mut threads = Vec::new();
    for room in rooms {
        match room {
            // What was lost can be read again; what is pushed meanwhile could not.
            Room::File(number, _) | Room::Journal(number, _) if hold => say_held(&sources[number]),
            Room::File(number, file) => {
                let view = &sources[number];
                let saved = shared.spool.scan_prefix(&position_prefix(&view.id)).wait()?;
                let saved = positions_of(&saved)?;
                let (state, mut outlet) = (Arc::clone(&view.state), outlet.clone());
                threads.push(spawn(&format!("source-{}", view.id), move || {
                    Ok(file.run(saved, &mut outlet, &state)?)
                })?);
            }
            Room::Journal(number, journal) => {
                let view = &sources[number];
                let saved = saved_marks(shared, &view.id)?;
                let (state, mut outlet) = (Arc::clone(&view.state), outlet.clone());
                threads.push(spawn(&format!("source-{}", view.id), move || {
                    journal.run(&saved, &mut outlet, &state)
                })?);
            }
            Room::Syslog(source) => {
                let outlet = outlet.clone();
                threads.push(spawn("syslog", move || Ok(source.run(outlet)?))?);
            }
            Room::Webhooks(options) => {
                let server = webhooks(*options, shared, sources, outlet)?;
                let stop = outlet.stop.clone();
                threads.push(spawn("webhooks", move || server.run(stop))?);
            }
        }
    }
    Ok(threads)
}

/// What the spool kept for a source, by the source's own keys.
fn saved_marks(shared: &Shared, source: &str) -> anyhow::Result<SavedMarks> {
    let prefix = mark_prefix(source);
    let marks = shared.spool.scan_prefix(&prefix).wait()?;
    let own = |(key, value): (Vec<u8>, Vec<u8>)| {
        (key.strip_prefix(prefix.as_slice()).map(<[u8]>::to_vec).unwrap_or(key), value)
    };
    Ok(marks.into_iter().map(own).collect())
}

/// The webhook sources with what each remembers.
fn webhooks(
    options: webhook::Options,
    shared: &Shared,
    sources: &[SourceView],
    outlet: &SourceOutlet,
) -> anyhow::Result<webhook::Server> {
    let mut remembered = Vec::new();
    let mut states = Vec::new();
    for endpoint in &options.endpoints {
        remembered.push(saved_marks(shared, &endpoint.id)?);
        states.push(Arc::clone(&sources[usize::from(endpoint.index.0)].state));
    }
    webhook::Server::new(
        options,
        remembered,
        &states,
        Arc::clone(&shared.clock),
        random_name,
        Arc::new(outlet.clone()),
    )
}

fn release(underway: &Receiver<Underway>, gate: &Gate) -> anyhow::Result<()> {
    for Underway { ticket, promises, bytes } in underway {
        let durable = ticket.wait();
        gate.leave(bytes);
        durable?;
        for promise in promises {
            promise.keep(Kept::Durable);
        }
    }
    Ok(())
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<JoinHandle<anyhow::Result<T>>> {
    // Linux shows 15 bytes of a thread's name.
    let short: String = name.chars().take(15).collect();
    Ok(std::thread::Builder::new().name(short).spawn(work)?)
}

fn join<T>(thread: JoinHandle<anyhow::Result<T>>, what: &str) -> anyhow::Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(_) => anyhow::bail!("{what} has panicked; the message is above"),
    }
}
