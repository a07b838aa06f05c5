//! The Custody collector: ingest, evidence log, index, query, web.

pub mod index;
pub mod query;
pub mod store;
