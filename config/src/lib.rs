//! YAML to checked configuration, and the shell that every Custody daemon runs in.
//!
//! A file is read in two steps: YAML becomes a tree whose values know where they were written (`tree`), and the sections of that
//! tree are read key by key into the resolved types ([`agent`], [`collector`]), which hold every default, once, in their
//! `Default`. Unknown keys are errors with a suggestion; all problems of a file are reported together, each as
//! `file:line:column: what (hint: remedy)`. Values that can turn out wrong only later (paths, names of packs) stay
//! [`Located`], so that the later error names the place too.
//!
//! Limits: a file of at most 1 MiB. Environment variables are never put into the text. Secrets are files or systemd credentials.
//!
//! [`shell`] holds what a daemon needs around its work: exit codes, logging, signals, the service manager, the data directory.

pub mod agent;
pub mod collector;
mod common;
mod endpoint;
mod load;
mod place;
mod secret;
mod section;
pub mod shell;
mod suggest;
mod tree;
mod units;

pub use agent::{AgentConfig, AgentOverrides};
pub use collector::{CollectorConfig, CollectorOverrides};
pub use common::{Log, LogFormat, LogLevel};
pub use endpoint::Endpoint;
pub use load::{Env, Loaded};
pub use place::{LoadError, Located, Place, Problem, Problems};
pub use secret::{Secret, SecretFile};
pub use suggest::nearest;
pub use units::{ByteSize, Keep, Period, UnitError};
