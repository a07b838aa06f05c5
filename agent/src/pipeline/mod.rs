//! The pipeline: chunks in, durable blocks out.
//!
//! ```text
//! sources ─► intake ─► workers (parse, hash, compress) ─► committer ─► spool ─► releaser
//!            ticket     in parallel                        in ticket     one atomic batch:
//!            + bytes                                       order         block, positions, books
//! ```
//!
//! **Life of a chunk.** The intake gives it a ticket and takes its bytes from the [`Gate`]. A
//! worker turns its records into events; a chunk with many events is sealed (hashed and
//! compressed) there and becomes a block of its own, small ones go on as text. The committer puts
//! everything back into ticket order, gathers small chunks for at most the linger time, gives the
//! block its place in the stream, signs it, and hands block, positions and books to the spool as
//! one batch. When the batch is durable, the releaser gives the bytes back to the gate.
//!
//! **Limits.** [`MAX_IN_FLIGHT_BYTES`] of records between a source and the disk; every channel is
//! bounded. A full spool blocks the committer, then the workers, the gate, and so the sources.
//!
//! **Failures.** Parsing cannot fail. The spool mends itself; if it gives up, the pipeline stops
//! and says why: nothing that was not durable has moved a position.

mod append;
mod batch;
mod books;
mod commit;
mod gate;
mod intake;
mod join;
mod own;
mod place;
mod undelivered;
mod worker;

#[cfg(test)]
mod commit_tests;

pub use books::Books;
pub use commit::{Committer, CommitterParts, Underway, dropped_untold};
pub use gate::Gate;
pub use intake::{Entry, Intake, SourceOutlet};
pub use join::Join;
pub use own::{Difference, OWN_INPUT, OwnAct, OwnEvents};
pub use place::{StreamState, mark_prefix, position_key, position_prefix, positions_of};
pub use undelivered::Undelivered;
pub use worker::{SourceContext, Worker, random_secret};

/// Raw bytes on their way from a source to the disk, at most. Text swells about sixfold when it
/// becomes events, but only a worker's own chunk and what lingers is held as text.
pub const MAX_IN_FLIGHT_BYTES: usize = 3 * 1024 * 1024;
