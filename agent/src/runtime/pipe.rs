//! The pipeline's threads: workers, committer, releaser, and one for each source.

use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use custody_config::AgentConfig;
use custody_config::agent::WhenFull;
use custody_config::shell::StopToken;

use super::build::AnySource;
use super::{Shared, build};
use crate::pipeline::{
    Books, Committer, CommitterParts, Entry, Gate, Intake, MAX_IN_FLIGHT_BYTES, OwnAct, OwnEvents,
    SourceContext, SourceOutlet, StreamState, Underway, Worker, mark_prefix, position_prefix,
    positions_of,
};
use crate::sources::{Kept, SavedMarks, SharedSourceState, SourceIndex};
use crate::status::SourceCounters;

/// Worked items that wait for the committer; the gate bounds their bytes.
const WORKED_ITEMS: usize = 16;
/// Batches that wait to be durable; the spool bounds their bytes.
const UNDERWAY_BATCHES: usize = 256;
/// How long the pipeline may take to put what was read into the spool when the agent stops.
const COMMIT_WITHIN: Duration = Duration::from_secs(10);

/// One source of a session, as `status` shows it.
#[derive(Debug, Clone)]
pub(crate) struct SourceView {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) counters: Arc<SourceCounters>,
    pub(crate) state: Arc<SharedSourceState>,
}

/// The running threads.
pub(crate) struct Pipe {
    pub(crate) gate: Arc<Gate>,
    pub(crate) sources: Vec<SourceView>,
    intake: Arc<Intake>,
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
        let ready = ready_sources(config, shared)?;
        let kinds = config.sources.iter().map(|source| source.kind());
        let sources: Vec<SourceView> = contexts.iter().zip(kinds).map(view).collect();
        let gate = Arc::new(Gate::new(MAX_IN_FLIGHT_BYTES));
        let (intake, items) = Intake::new(Arc::clone(&gate));
        let (worked_tx, worked) = bounded(WORKED_ITEMS);
        let (underway_tx, underway) = bounded(UNDERWAY_BATCHES);
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
        let committer = spawn("commit", move || {
            let mut committer = committer;
            committer.run(&worked).map(|()| committer)
        })?;
        let stop = StopToken::new();
        for act in acts {
            intake.put(Entry::Own(act))?;
        }
        let source_threads = if hold_sources {
            sources.iter().for_each(say_held);
            Vec::new()
        } else {
            start_sources(ready, shared, &sources, &intake, &stop)?
        };
        Ok(Self { gate, sources, intake, stop, source_threads, threads, committer })
    }

    /// Puts one of the agent's own acts into the stream.
    pub(crate) fn own(&self, act: OwnAct) {
        if self.intake.put(Entry::Own(act)).is_err() {
            log::warn!("the pipeline has stopped: an event about the agent itself is not written");
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
    ) -> anyhow::Result<StreamState> {
        self.stop.stop();
        let closer = spawn_closer(&self, shared)?;
        let mut failed = None;
        for thread in self.source_threads {
            failed = failed.or(join(thread, "a source").err());
        }
        if let Some(act) = last {
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

/// If the spool takes nothing (full, or no space on the disk), it is closed after a while, so that
/// stopping does not wait for ever; what is not durable is read again at the next start.
fn spawn_closer(pipe: &Pipe, shared: &Shared) -> anyhow::Result<StopToken> {
    let done = StopToken::new();
    let (watched, spool, intake) = (done.clone(), shared.spool.clone(), Arc::clone(&pipe.intake));
    spawn("closer", move || {
        if !watched.wait_timeout(COMMIT_WITHIN) {
            log::warn!(
                "the spool takes nothing more; what is not in it is read again at the next start"
            );
            intake.close();
            let _closed = spool.close(Duration::from_secs(5));
        }
        Ok(())
    })?;
    Ok(done)
}

fn view((context, kind): (&SourceContext, &'static str)) -> SourceView {
    SourceView { id: context.id.clone(), kind, counters: Arc::default(), state: Arc::default() }
}

fn say_held(source: &SourceView) {
    let mut state = source.state.lock().unwrap_or_else(PoisonError::into_inner);
    state.trouble = Some(
        "the spool was damaged: what was saved of it is delivered first, then files are read again"
            .into(),
    );
}

fn ready_sources(config: &AgentConfig, shared: &Shared) -> anyhow::Result<Vec<AnySource>> {
    (0_u16..)
        .zip(&config.sources)
        .map(|(number, source)| {
            AnySource::of(source, SourceIndex(number), Arc::clone(&shared.clock))
        })
        .collect()
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
        sources: sources
            .iter()
            .map(|source| (source.id.clone(), Arc::clone(&source.counters)))
            .collect(),
    })
}

fn start_sources(
    ready: Vec<AnySource>,
    shared: &Shared,
    sources: &[SourceView],
    intake: &Arc<Intake>,
    stop: &StopToken,
) -> anyhow::Result<Vec<JoinHandle<anyhow::Result<()>>>> {
    ready
        .into_iter()
        .zip(sources)
        .map(|(source, view)| {
            let state = Arc::clone(&view.state);
            let mut outlet = SourceOutlet { intake: Arc::clone(intake), stop: stop.clone() };
            let name = format!("source-{}", view.id);
            match source {
                AnySource::File(file) => {
                    let saved = shared.spool.scan_prefix(&position_prefix(&view.id)).wait()?;
                    let saved = positions_of(&saved)?;
                    spawn(&name, move || Ok(file.run(saved, &mut outlet, &state)?))
                }
                AnySource::Journal(journal) => {
                    let saved = saved_marks(shared, &view.id)?;
                    spawn(&name, move || journal.run(&saved, &mut outlet, &state))
                }
            }
        })
        .collect()
}

/// What the spool kept for a source, by the source's own keys.
fn saved_marks(shared: &Shared, source: &str) -> anyhow::Result<SavedMarks> {
    let prefix = mark_prefix(source);
    let saved = shared.spool.scan_prefix(&prefix).wait()?;
    Ok(saved
        .into_iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(prefix.as_slice())?.to_vec(), value)))
        .collect())
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
