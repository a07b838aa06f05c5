//! The Custody collector: ingest, evidence log, index, query, web.

pub mod store;
