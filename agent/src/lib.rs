//! The Custody agent: turns what a host's programs say into audit events and delivers each to a
//! collector exactly once.
//!
//! One room a stage: [`sources`] hand on records, the [`pipeline`] turns them into blocks, the
//! [`spool`] makes them durable, [`outputs`] deliver them. [`runtime`] puts the rooms together and
//! keeps them running; [`identity`] and [`rotation`] are its name and keys, [`ours`] what it knows by them of its blocks; [`cli`] is what people type; [`admin`] and [`status`] are what they see.

pub mod admin;
pub mod cli;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod geoip;
pub mod identity;
pub mod ours;
pub mod outputs;
pub mod pipeline;
pub mod rotation;
pub mod runtime;
pub mod sandbox;
pub mod sources;
pub mod spool;
pub mod status;
pub mod stream;
