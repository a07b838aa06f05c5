//! What makes events evidence: signatures over block headers, the chain that links them, and a
//! Merkle log over all of them whose growth anybody can check.
//!
//! - [`keys`]: an agent's Ed25519 key, made on the host and kept there; verifying keys by id.
//! - [`chain`]: the continuity of one stream, block by block.
//! - [`claim`]: how an agent shows that it holds its key.
//! - [`entry`], [`keyring`]: what stands in the log, and which key may sign what.
//! - [`tlog`]: the log itself, in C2SP tlog-tiles form; proofs and their verification.
//! - [`note`]: signed notes, checkpoints, cosignatures.
//! - [`witness`]: what an agent remembers of a log.
//! - [`proof`]: the proof of one event, in one piece of JSON.
//! - [`bundle`]: many blocks with everything that proves them, in one file.
//! - `whole`: files that stand on disk whole, or not at all.
//! - [`verify`]: judges a bundle or a collector's data directory; `custody-verify` is its program.
//!
//! No network, no database, no runtime: whoever has the bytes can check them. Files are opened
//! only with the feature `fs` (default); randomness and time come in as arguments.

pub mod base64;
pub mod bundle;
pub mod chain;
pub mod claim;
pub mod entry;
pub mod keyring;
pub mod keys;
pub mod note;
pub mod proof;
mod scan;
#[cfg(feature = "fs")]
pub mod segments;
pub mod tlog;
pub mod verify;
#[cfg(feature = "fs")]
pub mod whole;
pub mod witness;

pub use chain::{Broken, Chain, Place};
pub use entry::{Entry, Signed};
pub use keyring::{Keyring, KeyringError};
pub use keys::{AgentKey, PublicKey, SignatureError};
pub use note::{Checkpoint, KeyType, NoteKey, VerifierKey};
pub use witness::{LogReceipt, Witness};
