//! Outputs: where durable blocks go. Each keeps its own cursor over the same spool.
//!
//! An output sees only what is durable, sends blocks in order until they are acknowledged, and
//! never gives up: an unreachable or refusing destination costs time, not events. Only when the
//! destination proves that our stream can no longer be continued (it remembers another past, or
//! has forgotten what it acknowledged) does an output end, and the agent begins a new stream with
//! everything that has not been delivered.

mod backoff;
mod custody;
mod enroll;
mod history;
mod memory;
pub mod probe;
mod refused;
mod request;
mod window;

pub use backoff::Backoff;
pub use custody::{CustodyOutput, CustodySettings, Identity};
pub use enroll::TokenStore;
pub use history::acceptance_file;

/// Why an output ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// The agent's key was replaced by a newer one: its state is older than what the collector
    /// knows. It goes on under a new identity.
    NewIdentity {
        /// For the log and for the event.
        reason: String,
    },
    /// The stream cannot go on at this destination: begin a new one.
    NewStream {
        /// For the log and for the event.
        reason: String,
        /// The destination has lost what it had acknowledged: what can be read again is.
        forgotten: bool,
    },
}
