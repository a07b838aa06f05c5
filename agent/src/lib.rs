//! The Custody agent: sources, pipeline, spool, outputs.

pub mod sources;
pub mod spool;
