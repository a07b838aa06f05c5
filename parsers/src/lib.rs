//! Rule packs compiled to matchers: bytes in, canonical events out.
//!
//! This crate does no I/O, starts no threads and never fails on a record: whatever a source reads
//! becomes one canonical event, or is left out by a named rule that is counted.
//!
//! - [`PackSet`]: packs read and checked ([`load`], every error with its place), chosen by a
//!   source ([`Select`]) and compiled to a [`Parser`].
//! - [`Parser::parse`]: one record → one event. Workers share the parser; each has a [`Scratch`].
//! - [`decode`] takes envelopes off, [`matcher`] names the rule, [`scan`] and [`pattern`] find its
//!   groups, [`fill`] writes the fields, [`time`] reads times, [`normalise`] knows other people's
//!   words.
//!
//! The language of packs is described in `docs/pack-language.md`.

mod atlas;
pub mod audit;
mod builtin;
mod changes;
mod decode;
#[cfg(test)]
mod documented;
mod draft;
mod error;
mod fill;
mod hostnames;
mod load;
mod matcher;
mod normalise;
mod pack;
mod packtest;
mod parser;
mod pattern;
mod prose;
mod redact;
mod scan;
mod set;
mod time;
mod user_agent;
mod value;
mod when;
mod yaml;

pub use atlas::{Atlas, Location};
pub use builtin::{BuiltinPack, builtin};
pub use draft::{Drafted, MAX_DRAFT_LINES, NoDraft, Sentence, draft, sentences};
pub use error::{PackError, PackErrors};
pub use hostnames::HostNames;
pub use load::PackSource;
pub use packtest::TestReport;
pub use parser::{
    DropReason, Envelope, Fanned, Given, MAX_FAN_OUT, MAX_FANNED_BYTES, Original, Parser, Run,
    Said, Scratch, Settings, UNMATCHED, Verdict, raw_pieces,
};
pub use redact::{
    Names, PseudonymKey, RedactAction, RedactError, RedactRule, RedactWhat, Redaction,
    SecretPattern,
};
pub use set::{PackInfo, PackSet, Select, UnknownPack};
pub use time::Basis;
