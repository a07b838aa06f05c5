//! The Custody collector: ingest, evidence log, index, query, web.
//!
//! - [`store`]: the evidence log, which is the truth.
//! - [`ingest`]: blocks from agents, exactly once.
//! - [`tlog`]: the transparency log over all block headers.
//! - `anchor`: what others hold of that log: witnesses, time-stamps, write-once copies.
//! - [`own`]: the collector's own acts, as events.
//! - [`retain`]: how long events stay, and how they go.
//! - [`access`]: enrolled agents and tokens.
//! - [`authority`]: agents' certificates. [`serve`]: HTTP and TLS.
//! - [`index`]: finds events; derived from the evidence log. [`query`]: the API over it;
//!   [`web`]: the search page.
//! - [`export`]: what a search finds as files, made in the background.
//! - [`command`]: what the program does when it is called; [`cli`]: how it is called.

pub mod access;
mod anchor;
pub mod authority;
pub mod cli;
pub mod command;
pub mod export;
pub mod index;
pub mod ingest;
pub mod own;
pub mod query;
pub mod retain;
pub mod serve;
pub mod store;
#[doc(hidden)]
pub mod testing;
pub mod tlog;
pub mod web;
