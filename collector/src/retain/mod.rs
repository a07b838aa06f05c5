//! How long events stay, and how they go: retention, legal holds, erasure, archive, and the space
//! on the disk.
//!
//! # What goes and what stays
//! An event goes by becoming a bare leaf ([`crate::store::evidence`]): its block still verifies, its
//! header, the log and every proof that was made before stay good. The days of the index that had
//! it are made anew ([`crate::index`]). What goes for its age is told as a count; what is erased is
//! told event by event, with what was not personal in it.
//!
//! # One thread
//! Everything that changes segments runs on one thread ([`worker`]), one thing after the other, so
//! that no two writers meet. Before a segment changes it is noted as dirty, after its index has
//! been made anew it is clean: a crash at any instant leaves the old segment or the new one, and
//! the next start goes on with the dirty ones.
//!
//! # Holds win
//! What an active hold matches stays, and an erasure that would touch it is refused. From reading the
//! holds until a segment has lost its events nobody can make a hold or let one go: a hold that was
//! answered holds, at the latest from the next segment on. An erasure that is under way then ends there, and its
//! receipt says how many events had gone before.
//!
//! # Failures
//! What fails with one segment or one erasure is logged and tried again in a minute; the others go on.

mod api;
mod archive;
pub(crate) mod backup;
mod erase;
mod holds;
mod policy;
mod scan;
mod space;
mod sweep;
mod table;
#[cfg(test)]
mod tests;
mod tries;
mod turn;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use custody_config::Period;
use custody_config::collector::{ArchiveConfig, CollectorConfig, SpaceConfig};
use custody_event::{AgentId, Clock};

pub use api::router;
use archive::Shelf;
pub use archive::{Archived, Restored, S3Error};
pub use backup::{backup, restore};
pub use erase::{NewErasure, Preview};
pub use holds::NewHold;
pub use policy::Policy;
pub use sweep::Swept;
pub use table::{ErasureRow, HoldRow, Status};
pub use worker::Worker;

use crate::index::{EmbeddedStore, IndexError};
use crate::own::{Act, Acts, RetainAct};
use crate::store::StoreError;
use crate::store::evidence::{EvidenceLog, Segment, Step};
use table::Table;
use turn::Turn;

/// A reason or a name is one sentence.
const MAX_TEXT_BYTES: usize = 1_000;

/// What the room is given.
pub struct Given<'a> {
    /// The configuration.
    pub config: &'a CollectorConfig,
    /// The data directory.
    pub data_dir: &'a Path,
    /// The evidence log.
    pub log: Arc<EvidenceLog>,
    /// The index, where there is one.
    pub index: Option<Arc<EmbeddedStore>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Takes what is done.
    pub acts: Option<Acts>,
    /// The collector among the agents.
    pub own: AgentId,
}

/// Stops a rewriting at a step, in tests.
type OnStep = Arc<dyn Fn(Step) -> std::io::Result<()> + Send + Sync>;
/// How many bytes are free where a file stands.
type Free = Arc<dyn Fn(&Path) -> std::io::Result<u64> + Send + Sync>;

/// What tests put something else in the place of.
struct Hooks {
    on_step: OnStep,
    free: Free,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { on_step: Arc::new(|_| Ok(())), free: Arc::new(space::free_at) }
    }
}

/// See the module.
pub struct Retain {
    data_dir: PathBuf,
    log: Arc<EvidenceLog>,
    index: Option<Arc<EmbeddedStore>>,
    clock: Arc<dyn Clock>,
    acts: Option<Acts>,
    own: AgentId,
    policy: Policy,
    /// Where segments are copied before they lose anything; nowhere where absent.
    shelf: Option<Box<dyn Shelf>>,
    archive_after: Period,
    space: SpaceConfig,
    table: Table,
    /// One thing after the other.
    working: Mutex<()>,
    /// Had from reading the holds until a segment has lost what they do not keep, and while a hold
    /// is made or let go. Whoever has both locks took `working` first.
    deciding: Turn,
    stopping: Arc<AtomicBool>,
    hooks: Hooks,
}

impl std::fmt::Debug for Retain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retain").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// Why something cannot be kept, held, or taken away.
#[derive(Debug, thiserror::Error)]
pub enum RetainError {
    /// SQLite.
    #[error("{path}: {source}")]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The evidence log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Something asked for cannot be understood.
    #[error("{what}")]
    Bad {
        /// What of it.
        parameter: &'static str,
        /// Why.
        what: String,
    },
    /// It is not there.
    #[error("{0}")]
    NotFound(&'static str),
    /// It cannot be done as things stand.
    #[error("{0}")]
    Conflict(String),
    /// A hold keeps some of the events.
    #[error("on hold by {0}; let the hold go first")]
    Held(String),
    /// A copy is not what was written.
    #[error("{path}: its SHA-256 is {found}, the manifest says {expected}; it is not used")]
    Checksum {
        /// The copy.
        path: PathBuf,
        /// As it is.
        found: String,
        /// As it was.
        expected: String,
    },
    /// The bucket of the archive.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// What was done did not become an event.
    #[error(
        "the collector's own stream did not take the record of what was done (its queue is full, or it \
         cannot be written)"
    )]
    NotTold,
    /// The collector is stopping; it goes on at the next start.
    #[error("the collector is stopping; this goes on at its next start")]
    Stopping,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> RetainError + use<> {
    let path = path.to_owned();
    move |source| RetainError::Io { path, source }
}

fn check_text(parameter: &'static str, text: &str) -> Result<(), RetainError> {
    if text.is_empty() || text.len() > MAX_TEXT_BYTES || text.contains(char::is_control) {
        let what = format!("{parameter} must be 1 to 1,000 bytes without control characters");
        return Err(RetainError::Bad { parameter, what });
    }
    Ok(())
}

impl Retain {
    /// Opens the room.
    ///
    /// # Errors
    /// The database cannot be opened.
    pub fn open(given: Given<'_>) -> Result<Arc<Self>, RetainError> {
        Self::open_with(given, Hooks::default()).map(Arc::new)
    }

    fn open_with(given: Given<'_>, hooks: Hooks) -> Result<Self, RetainError> {
        let stopping = Arc::new(AtomicBool::new(false));
        let config = given.config.archive.as_ref();
        let around = archive::Around {
            data_dir: given.data_dir,
            clock: Arc::clone(&given.clock),
            stopping: Arc::clone(&stopping),
        };
        Ok(Self {
            data_dir: given.data_dir.to_owned(),
            log: given.log,
            index: given.index,
            clock: given.clock,
            acts: given.acts,
            own: given.own,
            policy: Policy::new(&given.config.retention),
            shelf: config.map(|config| archive::shelf(config, around)).transpose()?,
            archive_after: config.map_or(Period::days(0), ArchiveConfig::after),
            space: given.config.space,
            table: Table::open(given.data_dir)?,
            working: Mutex::new(()),
            deciding: Turn::default(),
            stopping,
            hooks,
        })
    }

    fn work(&self) -> MutexGuard<'_, ()> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends between two segments what is under way.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn go_on(&self) -> Result<(), RetainError> {
        if self.stopping.load(Ordering::Relaxed) { Err(RetainError::Stopping) } else { Ok(()) }
    }

    /// Makes an act an event, and waits until it is durable.
    fn tell(&self, act: RetainAct) -> Result<(), RetainError> {
        self.tell_all(vec![act])
    }

    fn tell_all(&self, acts: Vec<RetainAct>) -> Result<(), RetainError> {
        let Some(own) = &self.acts else { return Ok(()) };
        // Few enough at once that none is dropped.
        let mut acts = acts.into_iter().peekable();
        while acts.peek().is_some() {
            let told: Vec<_> = acts
                .by_ref()
                .take(400)
                .map(|act| own.record_durably(Act::Retained(Box::new(act))))
                .collect();
            for durable in told {
                // A sender that is gone has dropped the act.
                let dropped = |_| self.go_on().err().unwrap_or(RetainError::NotTold);
                durable.blocking_recv().map_err(dropped)?;
            }
        }
        Ok(())
    }

    /// Takes these events out of a segment of the log. What is derived from it is made anew by
    /// [`Self::clean`].
    fn take_out(
        &self,
        segment: &Segment,
        gone: &crate::store::evidence::Gone,
    ) -> Result<(), RetainError> {
        self.table.set_dirty(segment.number)?;
        Ok(self.log.make_sparse(segment, gone, &*self.hooks.on_step)?)
    }

    /// Makes anew what is derived from segments that have lost events.
    fn clean(&self) -> Result<(), RetainError> {
        let dirty = self.table.dirty()?;
        if dirty.is_empty() {
            return Ok(());
        }
        if let Some(index) = &self.index {
            let remade = index.remake(&dirty.iter().copied().collect());
            // An index that has ended because the collector ends goes on at its next start, as we do.
            remade.or_else(|error| self.go_on().and(Err(error.into())))?;
        }
        self.table.set_clean(&dirty)
    }
}
