//! The canonical audit event, its canonical JSON, and the block that crosses disks and wires.
//!
//! This crate does no I/O and knows no runtime. It is the only place that says what stands on a
//! disk or a wire:
//!
//! - [`draft`]: a builder that takes an event's fields in any order, checks them and writes the
//!   canonical JSON (RFC 8785) straight into a buffer.
//! - [`view`]: the same event read back, borrowed from its bytes.
//! - [`canon`]: is this line canonical? The question that a collector asks of every event.
//! - [`block`]: up to about a thousand events of one stream under one header: the unit of
//!   storage, signing, sending and acknowledging.
//! - [`ocsf`], [`ecs`]: the event in the words of two schemas of others.
//! - [`merkle`]: RFC 6962 hashing over a block's events.
//! - [`ids`], [`time`], [`position`]: the newtypes that everything else is written in.

pub mod block;
pub mod canon;
pub mod clock;
pub mod draft;
pub mod ecs;
pub mod field;
pub mod ids;
pub mod json;
pub mod merkle;
pub mod ocsf;
pub mod position;
pub mod taxonomy;
pub mod time;
pub mod view;

pub use block::{Block, Hashed, Header, Malformed, Sealed, Sealer, SourceBook};
pub use clock::{Clock, SystemClock};
pub use draft::{Base, Change, Detail, Draft, Target, Written};
pub use field::{Field, Kind};
pub use ids::{AgentId, Digest, EventId, FileKey, KeyId, Offset, Seq, StreamId};
pub use position::{Coverage, FileIdentity};
pub use time::Timestamp;
pub use view::EventView;

/// An event's canonical JSON is at most this long, in bytes (a limit of the format).
pub const MAX_EVENT_BYTES: usize = 60 * 1024;
/// A record's raw bytes are at most this long; longer ones arrive as numbered segments. Even as
/// base64 this leaves 26 KiB of the event for everything else.
pub const MAX_RAW_BYTES: usize = 24 * 1024;
/// Events in one block, at most.
pub const MAX_BLOCK_EVENTS: usize = 1_024;
/// A block's events, uncompressed, at most: what a reader must be ready to hold.
pub const MAX_BLOCK_RAW_BYTES: usize = 8 * 1024 * 1024;
/// An encoded block, at most (the spool keeps it below a quarter of a sled segment).
pub const MAX_BLOCK_BYTES: usize = 1_572_864;
/// A sparse block is at most so long, encoded. What an agent sent can always be made sparse, though
/// salts and leaves are added and it may have been packed better than it is packed again.
pub const MAX_SPARSE_BLOCK_BYTES: usize = MAX_BLOCK_BYTES + MAX_BLOCK_RAW_BYTES + 128 * 1024;
