//! The running agent: what is made once (identity, spool), and sessions that come and go over it.
//!
//! A *session* is one configuration at work on one stream: sources, pipeline, outputs, admin
//! socket. It ends because the agent is to stop, because a new configuration has been loaded, or
//! because the stream cannot go on; the spool and what is in it outlive it.

mod build;
mod connect;
mod delivery;
mod difference;
mod pipe;
mod session;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use custody_config::shell::{Clock, DataDir, Exit, Service, Signals, Watchdog};
use custody_config::{AgentConfig, AgentOverrides, Env, Loaded};
use custody_event::Timestamp;

pub use build::{Surroundings, check, enroll, load_packs, parser_of, shared_files};
pub use connect::client;
use difference::Facts;
use session::{End, NotStarted, Session};

use crate::identity::{self, AgentIdentity};
use crate::ours::Ours;
use crate::pipeline::{OwnAct, StreamState};
use crate::rotation::{self, Rotations, Standing};
use crate::sandbox::Sandbox;
use crate::spool::{Opened, Options, Spool, SpoolClock, SpoolHandle};
use crate::stream;

/// How long a stopping agent goes on delivering what is durable already.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the spool may take to write what it was given.
const SPOOL_CLOSE: Duration = Duration::from_secs(20);

/// What every session needs.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) identity: Arc<AgentIdentity>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) spool: SpoolHandle,
    pub(crate) generation: u32,
    pub(crate) rotations: Arc<Rotations>,
    pub(crate) ours: Arc<Ours>,
    pub(crate) data_dir: PathBuf,
    pub(crate) started: Timestamp,
    pub(crate) reloads: Arc<Reloads>,
    /// What this process may read.
    pub(crate) sandbox: Arc<Sandbox>,
}

impl Shared {
    fn writer(&self) -> stream::Writer<'_> {
        let Self { identity, ours, rotations, .. } = self;
        stream::Writer { identity, ours, rotations }
    }
}

/// What became of the reloads so far.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    loads: AtomicU64,
    refusals: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Reloads {
    pub(crate) fn loaded(&self) {
        self.loads.fetch_add(1, Ordering::Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A reload is asked for and has to wait.
    pub(crate) fn waits(&self, why: &str) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    pub(crate) fn refused(&self, why: &str) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    /// Loaded, refused, and why the newest was refused.
    pub(crate) fn counts(&self) -> (u64, u64, Option<String>) {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.loads.load(Ordering::Relaxed), self.refusals.load(Ordering::Relaxed), trouble)
    }
}

/// How the configuration is loaded, at start and again at SIGHUP.
#[derive(Debug, Clone)]
pub struct Loader {
    /// The file.
    pub path: PathBuf,
    /// The command line's words.
    pub overrides: AgentOverrides,
}

impl Loader {
    /// Loads the file as it is now.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Loaded<AgentConfig>, custody_config::LoadError> {
        AgentConfig::load(&self.path, &self.overrides, &Env::from_process())
    }
}

/// Gives the spool the agent's clock.
pub(crate) struct ClockForSpool(pub(crate) Arc<dyn Clock>);

impl SpoolClock for ClockForSpool {
    fn unix_ms(&self) -> u64 {
        u64::try_from(self.0.now().micros() / 1000).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

/// Runs the agent until it is told to stop. `sandbox` is what this process has confined itself to.
///
/// # Errors
/// What keeps it from starting, or what ended it.
pub fn run(
    loader: &Loader,
    config: Loaded<AgentConfig>,
    clock: Arc<dyn Clock>,
    mut signals: Signals,
    sandbox: Sandbox,
) -> anyhow::Result<Exit> {
    let service = Service::from_env();
    let data_dir = DataDir::open(&config.value.data_dir)?;
    if identity::is_renewing(data_dir.path())? {
        identity::renew(data_dir.path())?;
    }
    let rotations = Rotations::load(data_dir.path())?;
    rotation::settle(data_dir.path(), &rotations)?;
    let forgot = identity::is_renewing(data_dir.path())? || !identity::is_whole(data_dir.path())?;
    let identity = AgentIdentity::load_or_create(data_dir.path(), &config.value.host)?;
    let ours = Arc::new(Ours::new(&identity, &rotations, forgot));
    let (spool, opened) = open_spool(&config.value, data_dir.path(), &clock, &ours)?;
    let mut shared = Shared {
        identity: Arc::new(identity),
        rotations: Arc::new(rotations),
        ours,
        started: clock.now(),
        generation: opened.generation,
        data_dir: data_dir.path().to_owned(),
        clock,
        spool,
        reloads: Arc::default(),
        sandbox: Arc::new(sandbox),
    };
    let watchdog = start_watchdog(&service, &shared.spool)?;
    let ended = sessions(loader, config, &mut shared, &opened, &mut signals, &service);
    service.stopping("writing what was read");
    let closed = shared.spool.close(SPOOL_CLOSE);
    drop(watchdog);
    ended?;
    if !closed {
        log::warn!("the spool could not write all that was read; it will be read again");
    }
    log::info!("stopped");
    Ok(Exit::Good)
}

fn open_spool(
    config: &AgentConfig,
    data_dir: &Path,
    clock: &Arc<dyn Clock>,
    ours: &Arc<Ours>,
) -> anyhow::Result<(SpoolHandle, Opened)> {
    let mut options = Options::for_max_bytes(config.spool.max_bytes.bytes());
    options.judge = Some(Arc::<Ours>::clone(ours));
    options.min_free_bytes = config.spool.free_space_floor.bytes();
    let path = data_dir.join("spool");
    Spool::open(&path, options, Arc::new(ClockForSpool(Arc::clone(clock))))
        .with_context(|| format!("cannot open the spool {}", path.display()))
}

/// A store call that never returns is the one thing that only a restart mends.
fn start_watchdog(service: &Service, spool: &SpoolHandle) -> anyhow::Result<Watchdog> {
    let spool = spool.clone();
    Ok(Watchdog::start(service, move || spool.stats().stuck_since_unix_ms.is_none())?)
}

/// Marks a run that has not ended in order.
struct RunMark {
    path: PathBuf,
}

impl RunMark {
    /// Sets the mark; says whether the last run left one behind.
    fn set(data_dir: &Path) -> anyhow::Result<(Self, bool)> {
        let path = data_dir.join("running");
        let left = path.try_exists().with_context(|| path.display().to_string())?;
        std::fs::write(&path, b"").with_context(|| path.display().to_string())?;
        Ok((Self { path }, left))
    }

    fn clear(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// A new stream; the spool's cursors are of it from then on.
fn begin_anew(
    shared: &mut Shared,
    previous: Option<&StreamState>,
    reason: &str,
    reread: &[String],
) -> anyhow::Result<(StreamState, Vec<OwnAct>)> {
    let begun = stream::begin_anew(
        &shared.spool,
        previous,
        shared.writer(),
        &shared.clock,
        reason,
        reread,
    )?;
    shared.generation = shared.spool.stats().generation;
    Ok(begun)
}

/// Everything that is not delivered goes on in a stream of the new identity.
fn take_on(
    shared: &mut Shared,
    previous: &StreamState,
    reason: &str,
) -> anyhow::Result<(StreamState, Vec<OwnAct>)> {
    let begun = begin_anew(shared, Some(previous), reason, &[])?;
    shared.ours.all_known();
    identity::renewed(&shared.data_dir)?;
    Ok(begun)
}

/// The key names the next one and goes, where every collector can be told.
fn replace_key(
    shared: &mut Shared,
    config: &AgentConfig,
    state: &StreamState,
) -> anyhow::Result<()> {
    let outputs: Vec<&str> =
        config.outputs.iter().map(custody_config::agent::OutputConfig::id).collect();
    let standing = Standing {
        agent: shared.identity.agent,
        stream: state.stream,
        from_seq: state.next_seq,
        at: shared.clock.now(),
    };
    let (dir, old) = (&shared.data_dir, &shared.identity.key);
    if let Some(key) = rotation::rotate(dir, &shared.rotations, old, standing, &outputs)? {
        shared.identity = Arc::new(shared.identity.with_key(key));
        shared.ours.add(&shared.identity);
    }
    Ok(())
}

/// A configuration with what an event about its successor must say.
struct InForce {
    config: Loaded<AgentConfig>,
    facts: Facts,
}

impl InForce {
    /// What is told when this takes the place of `before`.
    fn told_after(&self, before: &Self, loader: &Loader) -> OwnAct {
        OwnAct::ConfigLoaded {
            sha256: self.config.sha256.clone(),
            previous_sha256: before.config.sha256.clone(),
            packs_sha256: self.facts.packs_sha256.clone(),
            previous_packs_sha256: before.facts.packs_sha256.clone(),
            path: loader.path.display().to_string(),
            changes: before.facts.against(&self.facts),
        }
    }
}

/// Where the stream stands at the start, and what must be told first.
fn found_at_start(
    loader: &Loader,
    config: &Loaded<AgentConfig>,
    shared: &mut Shared,
    opened: &Opened,
    after_crash: bool,
) -> anyhow::Result<(StreamState, Vec<OwnAct>)> {
    let reread = build::rereadable(&config.value);
    let found = stream::find(&shared.spool, opened, shared.writer(), &shared.clock, &reread)?;
    shared.generation = shared.spool.stats().generation;
    let (mut state, mut acts) = (found.state, found.acts);
    if identity::is_renewing(&shared.data_dir)? {
        let begun;
        (state, begun) = take_on(shared, &state, "a new identity is taken on")?;
        acts.extend(begun);
    } else if shared.ours.forgot() && shared.spool.stats().blocks > 0 {
        const WHY: &str = "the agent's id or key was lost and made anew";
        let begun;
        (state, begun) = begin_anew(shared, Some(&state), WHY, &[])?;
        acts.extend(begun);
    }
    shared.ours.all_known();
    acts.push(OwnAct::Started {
        config_sha256: config.sha256.clone(),
        config_path: loader.path.display().to_string(),
        after_crash,
    });
    Ok((state, acts))
}

/// The stream in which things go on, where a session's end asks for another one.
fn next_stream(
    end: End,
    config: &AgentConfig,
    shared: &mut Shared,
    state: StreamState,
    acts: &mut Vec<OwnAct>,
) -> anyhow::Result<StreamState> {
    let (state, begun) = match end {
        End::NewIdentity { reason } => {
            log::error!("a new identity is taken on: {reason}");
            identity::renew(&shared.data_dir)?;
            let identity = AgentIdentity::load_or_create(&shared.data_dir, &config.host)?;
            shared.identity = Arc::new(identity);
            shared.rotations = Arc::new(Rotations::load(&shared.data_dir)?);
            shared.ours.add(&shared.identity);
            take_on(shared, &state, &reason)?
        }
        End::NewStream { reason, gaps, lost } => {
            acts.extend(gaps);
            let reread = if lost { build::rereadable(config) } else { Vec::new() };
            begin_anew(shared, Some(&state), &reason, &reread)?
        }
        End::Stop | End::Reload(..) | End::Reread | End::Rotate => return Ok(state),
    };
    acts.extend(begun);
    Ok(state)
}

fn sessions(
    loader: &Loader,
    config: Loaded<AgentConfig>,
    shared: &mut Shared,
    opened: &Opened,
    signals: &mut Signals,
    service: &Service,
) -> anyhow::Result<()> {
    let (mark, after_crash) = RunMark::set(&shared.data_dir)?;
    let (mut state, mut acts) = found_at_start(loader, &config, shared, opened, after_crash)?;
    let mut now = InForce { facts: Facts::of(&config.value)?, config };
    // What to go back to where a session cannot begin with what has been loaded.
    let mut before: Option<InForce> = None;
    let mut rotate = true;
    // The blocks that were saved when others were lost are delivered.
    let mut delivered = false;
    loop {
        let reread = stream::to_reread(&shared.spool)?;
        delivered |= shared.spool.stats().blocks == 0;
        if std::mem::take(&mut delivered) && !reread.is_empty() {
            const WHY: &str = "files are read again, for the spool lost blocks";
            let begun;
            (state, begun) = begin_anew(shared, Some(&state), WHY, &[])?;
            acts.extend(begun);
            stream::forget_positions(&shared.spool, &reread)?;
            continue;
        }
        let (hold, config) = (!reread.is_empty(), &now.config.value);
        if std::mem::take(&mut rotate) {
            replace_key(shared, config, &state)?;
        }
        let told = std::mem::take(&mut acts);
        let session = match (Session::start(&now.config, shared, state, told, hold), before.take())
        {
            (Ok(session), reloaded) => {
                if reloaded.is_some() {
                    shared.reloads.loaded();
                }
                session
            }
            // What could be checked beforehand was; an address may be taken all the same.
            (Err(NotStarted { error, state: Some(at) }), Some(old)) => {
                acts.push(session::refused(loader, shared, &error));
                (state, now) = (at, old);
                continue;
            }
            (Err(NotStarted { error, .. }), _) => return Err(error),
        };
        let (sources, outputs) = (config.sources.len(), config.outputs.len());
        service.ready(&format!("{sources} sources, {outputs} outputs"));
        let (end, ended_at) = session.run(loader, signals, service)?;
        state = ended_at;
        match end {
            End::Stop => {
                mark.clear();
                return Ok(());
            }
            End::Reload(config, facts) => {
                let next = InForce { config: *config, facts };
                acts.push(next.told_after(&now, loader));
                before = Some(std::mem::replace(&mut now, next));
            }
            End::Rotate => rotate = true,
            End::Reread => delivered = true,
            other => state = next_stream(other, &now.config.value, shared, state, &mut acts)?,
        }
    }
}
