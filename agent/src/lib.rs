//! Custody's agent: sources, spool, outputs.

pub mod spool;
