//! The spool: the agent's durable buffer between the sources and the outputs.
//!
//! # Limits
//! - One block is at most [`MAX_BLOCK_BYTES`]; one value (position, book, meta) at most
//!   [`MAX_VALUE_BYTES`] under a key of at most [`MAX_KEY_BYTES`].
//! - Blocks held: [`Options::max_bytes`] (logical bytes). Batches waiting in memory:
//!   [`Options::queue_max_bytes`]. Newest blocks kept readable in memory: [`Options::ring_max_bytes`].
//! - Free space of the file system: below [`Options::min_free_bytes`] nothing is appended.
//!
//! # Format
//! ```text
//! <dir>/lock                 flock, with the pid of the holder as text
//! <dir>/ledger               two slots: the last durable seq, kept outside the store
//! <dir>/current              the name of the live store folder, replaced by rename
//! <dir>/opening              how often opening was begun and did not end
//! <dir>/store-<n>/           one sled database, one tree
//! <dir>/store-<n>/bodies/    what blocks say, in files that are appended to and removed whole
//! <dir>/quarantine/<utc>-<n> damaged stores, newest few
//! ```
//! Inside the tree: `.b/…` where the bodies of blocks lie (`~b/…` the parts of blocks that were written
//! before bodies had files), `~d/…` the parts of dead letters, `.…` the spool's own counters, `cursor/<output>`, `dead/<id>`, `refused/<output><generation><seq>` (what that output
//! gets without its events), and whatever else the caller names.
//!
//! # Life of a block
//! `append` queues a batch (block and the positions it advances to). The owner thread takes what is
//! queued, makes the bodies durable, then applies places and positions in one atomic batch of sled,
//! makes that durable, writes the ledger, and only then
//! resolves the tickets and shows the block to outputs. `ack` moves an output's cursor; blocks below
//! the lowest cursor of the registered outputs are deleted in the batch that writes the cursor. A
//! cursor is made durable with the next append or within a second: losing one re-sends, no more.
//!
//! # Failures
//! - A failed or panicked store call: the handle is dropped, the store reopened, what was not yet
//!   durable applied again. Nothing that was acknowledged depends on the broken handle.
//! - Disk full, or below the floor: batches stay in memory, `stats` says why, it goes on by itself.
//! - A store that cannot be read or whose blocks do not check: moved to quarantine, what can be read
//!   is copied into a fresh store, and the caller must [`SpoolHandle::restream`] before it appends.
//!   So is one whose blocks are whole and do not hang together, or are not what was put in
//!   ([`Judge`]): checksums are made anew by whoever knows the format.
//! - A store older than the ledger says (restored, or silently rolled back): the same demand.
//! - A store call that never returns: `stats().stuck_since_unix_ms`; only a restart of the process helps.

mod ahead;
mod bodies;
mod handle;
mod inspect;
mod keys;
mod ledger;
mod links;
mod owner;
mod ownerops;
mod quarantine;
mod recover;
mod recreate;
mod ring;
mod sled_store;
mod stats;
#[cfg(test)]
mod tests;
mod types;

pub use handle::{Reply, SpoolHandle, Ticket};
pub use inspect::{BlockEntry, Inspector, VerifyReport, inspect};
pub use stats::SpoolStats;
pub use types::{
    Batch, Change, Check, DeadLetter, Durable, Incident, Judge, Large, Link, Moved, OpenError,
    Opened, Options, OutputCursor, Quarantined, Restreamed, RolledBack, Slot, SpoolClock,
    SpoolError, SpoolKey, SpooledBlock, Store, StoreError, StoreFactory, trailing_crc,
};

use std::path::Path;
use std::sync::Arc;

/// The largest block that the spool takes, in bytes.
pub const MAX_BLOCK_BYTES: usize = 1_572_864;
/// The largest value that the caller may put, in bytes: a leaf of 17 stays below a quarter of a segment.
pub const MAX_VALUE_BYTES: usize = 24 * 1024;
/// The longest key that the caller may use, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// The spool's entrance.
#[derive(Debug)]
pub struct Spool;

impl Spool {
    /// Opens (or makes) the spool in `dir` and starts its owner thread.
    ///
    /// Ends with a usable spool or a plain reason: [`OpenError`] is permission, a full disk, or
    /// another process; damage is never an error, it is told in [`Opened`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        dir: &Path,
        options: Options,
        clock: Arc<dyn SpoolClock>,
    ) -> Result<(SpoolHandle, Opened), OpenError> {
        Self::open_with(dir, options, clock, Box::<sled_store::SledFactory>::default())
    }

    /// As [`Spool::open`], with another kind of store (a test's, or one that replaces sled).
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_with(
        dir: &Path,
        options: Options,
        clock: Arc<dyn SpoolClock>,
        factory: Box<dyn StoreFactory>,
    ) -> Result<(SpoolHandle, Opened), OpenError> {
        owner::start(dir, options, clock, factory)
    }
}
