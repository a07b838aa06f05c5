//! The end-to-end suite: the two real programs, real files, kill -9, full disks, and a count of
//! every line at the end. One module a hazard.
//!
//! # Running
//! ```text
//! cargo test -p custody-tests                      short forms, a few minutes in all
//! CUSTODY_LONG=1 cargo test -p custody-tests --release --test suite -- --nocapture
//!                                                  the whole campaigns, one after the other
//!                                                  with --test-threads 1
//! CUSTODY_SEED=123 cargo test -p custody-tests --test suite exactly_once
//!                                                  the choices of an earlier run
//! CUSTODY_AGENT=/usr/bin/custody-agent CUSTODY_COLLECTOR=/usr/bin/custody-collector cargo test …
//!                                                  programs that were built elsewhere
//! ```
//! A failed test prints its seed and the ends of the programs' logs, and keeps its folder. A seed
//! replays the test's choices (what is written, killed, rotated at which line), not the machine's
//! timing.
//!
//! # Oracles
//! What the collector holds is counted twice: from its segment files, decoded without its code
//! (`custody_tests::Tally`), and through its query API. "Exactly once" means: each numbered line
//! is there once, in the order in which it was written, the chain of every stream is whole, and
//! the books say the same.
//!
//! # Hazards
//! | module | what befalls |
//! |---|---|
//! | `ship` | nothing out of the ordinary: stop, reload, odd bytes, endpoints, tokens, TLS |
//! | `rotate` | each kind of rotation, with the agent up and down |
//! | `logrotate` | the real logrotate: create, compress, delaycompress, dateext, copytruncate |
//! | `sources` | every source with the real thing at its other end, to a search result: journald, logger, rsyslog, openssl, signed webhooks, auditd's records |
//! | `crash` | both programs killed at random while the log grows and rotates |
//! | `memory_loss` | the agent's data directory deleted, or put back from a backup |
//! | `spool_full` | the collector away until the spool is full |
//! | `disk_full` | no space under the spool; no space under the evidence |
//! | `fork` | the collector put back from an older copy |
//! | `tampered_spool` | a block changed in the spool of an agent that is down |
//! | `query` | none: what is asked of a collector is answered alike by line, parameters and command |
//! | `access` | wrong passwords, a killed collector, disabled users, bounded and revoked tokens |
//! | `export` | exports made by the command line, killed in the middle, checked by others |
//! | `keeping` | retention, archive, holds, erasure and backup over years, under load, the collector killed at random |
//! | `retention` | events erased by two people while the collector is killed; a backup restored |
//! | `faults` | a collector that hangs, ended certificates, lost names, a network that loses, resets and parts |
//! | `booted` | the packages on a booted system: install, kill, hang, reload, reboot, upgrade, remove, purge |
//! | `service` | what ops see: metrics, doctor, reloads, certificates, enrolment by hand; and their papers |
//! | `guide` | a command or a key in the README or the guide that no program knows |
//! | `bad_input` | ten kinds of mistakes, each with its message and exit code |
//!
//! Tests that need root (to mount a small file system) say `skipped: needs root` and pass without.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "all of this is test code; the lint's own exception covers test functions only"
)]

mod access;
mod bad_input;
mod booted;
mod crash;
mod disk_full;
mod export;
mod faults;
mod fork;
mod guide;
mod keeping;
mod logrotate;
mod memory_loss;
mod query;
mod retention;
mod rotate;
mod service;
mod ship;
mod sources;
mod spool_full;
mod tampered_spool;
