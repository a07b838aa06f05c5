//! `collector.yaml`: where a collector listens, what it keeps and for how long.
//!
//! Every key has a default, so that a collector runs with no file at all: on loopback, with the embedded index.

mod oidc;
mod read;

pub use oidc::OidcConfig;
pub(crate) use read::server_tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::common::{Log, LogLevel};
use crate::load::{Env, Loaded, Source, render};
use crate::place::{LoadError, Located};
use crate::secret::SecretFile;
use crate::units::{ByteSize, Period};

/// The whole of `collector.yaml`, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CollectorConfig {
    /// Where the collector keeps everything.
    pub data_dir: Located<PathBuf>,
    /// Where it listens. Anything but loopback needs `tls`.
    pub listen: Located<SocketAddr>,
    /// How it shows itself; plain HTTP where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// The identity provider that users of the page may log in with; none where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcConfig>,
    /// The origin of its log, as signed checkpoints carry it. Never change it: a log under another name is another log.
    pub name: Located<String>,
    /// The search index, derived from the blocks.
    pub index: IndexConfig,
    /// Where the blocks lie, which are the truth.
    pub blocks: BlocksConfig,
    /// For how long events are kept.
    pub retention: RetentionConfig,
    /// What exports may take, and for how long they are kept.
    pub exports: ExportsConfig,
    /// What is refused because it is too large.
    pub limits: LimitsConfig,
    /// What the collector says about itself.
    pub log: Log,
}

/// What the command line says in place of the file.
#[derive(Clone, Debug, Default)]
pub struct CollectorOverrides {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--listen`, as typed
    pub listen: Option<String>,
    /// `--log-level`
    pub log_level: Option<LogLevel>,
}

/// TLS as the collector speaks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerTls {
    /// The collector's certificate chain (PEM).
    pub cert_file: Located<PathBuf>,
    /// Its key (PEM).
    pub key_file: SecretFile,
    /// Certificates (PEM) that an agent's certificate must lead to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<Located<PathBuf>>,
}

/// The search index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum IndexConfig {
    /// In the data directory.
    Embedded,
    /// None: blocks are kept as evidence and cannot be searched.
    None,
}

/// Where the blocks lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BlocksConfig {
    /// In segment files in the data directory.
    Local {
        /// A segment that has grown to this size is closed.
        segment_bytes: ByteSize,
    },
}

/// For how long events are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RetentionConfig {
    /// Where no class says otherwise.
    pub default: Period,
    /// The first class that an event belongs to decides.
    pub classes: Vec<RetentionClass>,
}

/// Events that are kept for another time than the default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RetentionClass {
    /// Severities of the class; any where empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub severity: Vec<String>,
    /// Categories of the class; any where empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub category: Vec<String>,
    /// For how long.
    pub keep: Period,
}

/// What is refused because it is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LimitsConfig {
    /// A block, as it arrives.
    pub max_block_bytes: ByteSize,
    /// One event's canonical JSON.
    pub max_event_bytes: ByteSize,
}

/// What exports may take, and for how long they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ExportsConfig {
    /// A finished export's file is removed after this time; its entry in the history stays.
    pub keep: Period,
    /// The longest file.
    pub max_bytes: ByteSize,
    /// The longest time range of one export; any where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_range: Option<Period>,
    /// How far back an export may reach; any time where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Period>,
    /// Exports that are made at once; more wait.
    pub at_once: u32,
}

impl Default for ExportsConfig {
    fn default() -> Self {
        Self {
            keep: Period::days(7),
            max_bytes: ByteSize::mib(10 * 1024),
            max_range: None,
            max_age: None,
            at_once: 1,
        }
    }
}

impl Default for BlocksConfig {
    fn default() -> Self {
        Self::Local { segment_bytes: ByteSize::mib(256) }
    }
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { default: Period::days(400), classes: Vec::new() }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_block_bytes: ByteSize::mib(4),
            max_event_bytes: ByteSize::from_bytes(custody_event::MAX_EVENT_BYTES as u64),
        }
    }
}

impl CollectorConfig {
    /// The configuration of a collector with no file, on the host `hostname`.
    pub fn with_defaults(hostname: &str) -> Self {
        Self {
            data_dir: Located::default_of(PathBuf::from("/var/lib/custody-collector")),
            listen: Located::default_of(SocketAddr::from(([127, 0, 0, 1], 8600))),
            tls: None,
            oidc: None,
            name: Located::default_of(format!("custody-collector/{hostname}")),
            index: IndexConfig::Embedded,
            blocks: BlocksConfig::default(),
            retention: RetentionConfig::default(),
            exports: ExportsConfig::default(),
            limits: LimitsConfig::default(),
            log: Log::default(),
        }
    }

    /// Loads and checks the file; the defaults and the command line alone where there is none.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong with it.
    pub fn load(
        path: Option<&Path>,
        overrides: &CollectorOverrides,
        env: &Env,
    ) -> Result<Loaded<Self>, LoadError> {
        let source = path.map_or_else(|| Ok(Source::none()), Source::read)?;
        source.load(|top| read::collector(top, overrides, env))
    }

    /// Checks a text as if it stood in the file `path`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_text(
        path: &Path,
        text: &str,
        overrides: &CollectorOverrides,
        env: &Env,
    ) -> Result<Loaded<Self>, LoadError> {
        Source::of_text(path, text).load(|top| read::collector(top, overrides, env))
    }

    /// The effective configuration as YAML, defaults written out. It loads as the same configuration.
    pub fn render(&self) -> String {
        render(self)
    }

    /// Every key that the file may hold, dotted (`retention.classes[].keep`), sorted.
    pub fn keys() -> Vec<String> {
        let every = "tls: {}\noidc: {}\nretention: { classes: [{}] }\n";
        let source = Source::of_text(Path::new("collector.yaml"), every);
        let (_, collected) = source
            .collect(|top| read::collector(top, &CollectorOverrides::default(), &Env::default()));
        collected.asked.into_iter().collect()
    }
}
