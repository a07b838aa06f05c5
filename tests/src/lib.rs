//! Support for the end-to-end suite: the two programs as guarded processes, logs that grow and
//! rotate, and oracles that look at what the collector holds from two sides.
//!
//! - [`World`]: one test's folder and seed; says both when the test fails.
//! - [`Collector`], [`Agent`]: the programs: start, ready, kill -9, SIGTERM, again on the same data.
//! - [`LogFile`]: numbered lines, appended and rotated as logrotate does it.
//! - [`Evidence`] and [`Tally`]: the first oracle, which decodes the collector's segment files
//!   with nothing of the collector's own code.
//! - [`query`]: the second oracle, which asks the collector's API.
//! - [`wait`]: polling with deadlines. Nothing here sleeps in order to wait for something.
//!
//! A failed expectation panics, with what was seen; that is how a test says it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "this is test code that happens to be a library"
)]

pub mod agent;
pub mod boot;
pub mod clock;
pub mod collector;
pub mod disk;
pub mod evidence;
pub mod http;
pub mod logfile;
pub mod ports;
pub mod process;
pub mod query;
pub mod rng;
pub mod tally;
pub mod wait;
pub mod world;

pub use agent::{Agent, AgentSpec};
pub use collector::Collector;
pub use evidence::Evidence;
pub use logfile::{LogFile, Rotation};
pub use rng::Rng;
pub use tally::Tally;
pub use wait::{eventually, until};
pub use world::{World, is_long, seed};
