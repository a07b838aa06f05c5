//! What makes events evidence: signatures over block headers, and the chain that links them.
//!
//! - [`keys`]: an agent's Ed25519 key, made on the host and kept there; verifying keys by id.
//! - [`chain`]: the continuity of one stream, block by block.
//!
//! No network, no database, no runtime: whoever has the bytes can check them.

pub mod chain;
pub mod keys;

pub use chain::{Broken, Chain, Place};
pub use keys::{AgentKey, PublicKey, SignatureError};
