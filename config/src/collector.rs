//! `collector.yaml`: where a collector listens, what it keeps and for how long.
//!
//! Every key has a default, so that a collector runs with no file at all: on loopback, with the embedded index.

mod anchors;
mod archive;
mod oidc;
mod read;

pub use anchors::{AnchorsConfig, WitnessConfig};
pub use archive::{ArchiveConfig, LockConfig, LockMode, S3Config};
pub use oidc::OidcConfig;
pub(crate) use read::server_tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::common::{Log, LogLevel};
use crate::load::{Env, Loaded, Source, render};
use crate::place::{LoadError, Located};
use crate::secret::SecretFile;
use crate::units::{ByteSize, Keep, Period};

/// The whole of `collector.yaml`, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CollectorConfig {
    /// Where the collector keeps everything.
    pub data_dir: Located<PathBuf>,
    /// Where it listens. Anything but loopback needs `tls`.
    pub listen: Located<SocketAddr>,
    /// How it shows itself; plain HTTP where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<CollectorTls>,
    /// The identity provider that users of the page may log in with; none where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcConfig>,
    /// The origin of its log, as signed checkpoints carry it. Never change it: a log under another name is another log.
    pub name: Located<String>,
    /// The search index, derived from the blocks.
    pub index: IndexConfig,
    /// What one question to the index may cost.
    pub search: SearchConfig,
    /// Where the blocks lie, which are the truth.
    pub blocks: BlocksConfig,
    /// For how long events are kept.
    pub retention: RetentionConfig,
    /// What exports may take, and for how long they are kept.
    pub exports: ExportsConfig,
    /// Where old segments are copied before their events expire; nowhere where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveConfig>,
    /// Who holds checkpoints of the log; nobody where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchors: Option<AnchorsConfig>,
    /// What is done when the disk fills up.
    pub space: SpaceConfig,
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

/// TLS of whatever listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerTls {
    /// The listener's certificate chain (PEM).
    pub cert_file: Located<PathBuf>,
    /// Its key (PEM).
    pub key_file: SecretFile,
    /// Certificates (PEM) that a sender's certificate must lead to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<Located<PathBuf>>,
}

/// TLS as the collector speaks it, and how agents show themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CollectorTls {
    /// Certificate, key, and the authority of agents where it is not the collector's own.
    #[serde(flatten)]
    pub server: ServerTls,
    /// The key (PEM) of the first certificate of `client_ca_file`: with it the collector signs agents' certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca_key_file: Option<SecretFile>,
    /// Are agents asked for a certificate?
    pub client_certificates: ClientCertificates,
    /// How long a certificate is good that the collector signs.
    pub client_certificate_life: Period,
}

impl CollectorTls {
    /// Are agents' certificates signed here? Not where their authority is somebody else's, whose key is not here.
    pub fn signs(&self) -> bool {
        self.client_certificates != ClientCertificates::Off
            && (self.server.client_ca_file.is_none() || self.client_ca_key_file.is_some())
    }
}

/// Are agents asked for a certificate, beside their token?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// No.
    Off,
    /// One that is shown must be good, and that agent's.
    Optional,
    /// Without one no block is taken.
    Required,
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

/// What one question to the index may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SearchConfig {
    /// When this is over, a search ends and says how far it came.
    pub max_time: Period,
    /// Events in one page of an answer.
    pub max_answer_bytes: ByteSize,
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

/// For how long events are kept, counted from their receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RetentionConfig {
    /// Where no class says otherwise.
    pub default: Keep,
    /// Nothing may be kept for less.
    pub minimum: Period,
    /// Of the classes that an event belongs to, the one that keeps it longest decides.
    pub classes: Vec<RetentionClass>,
}

/// Events that are kept for another time than the default. What is named must all hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RetentionClass {
    /// Severities of the class; any where empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub severity: Vec<String>,
    /// Categories of the class; any where empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub category: Vec<String>,
    /// Tenants of the class; any where empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tenant: Vec<String>,
    /// For how long.
    pub keep: Keep,
}

/// What is done when the disk of the data directory fills up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SpaceConfig {
    /// With less free space, segments are archived without waiting for their age.
    pub archive_below: ByteSize,
    /// With less free space, blocks of agents are refused (503), and kept by them.
    pub stop_below: ByteSize,
}

/// What is refused because it is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LimitsConfig {
    /// A block, as it arrives.
    pub max_block_bytes: ByteSize,
    /// One event's canonical JSON.
    pub max_event_bytes: ByteSize,
    /// Requests of one account in a minute; any number where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self { max_time: Period::seconds(5), max_answer_bytes: ByteSize::mib(16) }
    }
}

/// What exports may take, and for how long they are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportsConfig {
    /// A finished export's file is removed after this time; its entry in the history stays.
    pub keep: Period,
    /// The longest file.
    pub max_bytes: ByteSize,
    /// All files together, also those that are being made.
    pub max_total_bytes: ByteSize,
    /// The longest time range of one export; any where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_range: Option<Period>,
    /// How far back an export may reach; any time where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Period>,
    /// Exports that are made at once; more wait.
    pub at_once: u32,
    /// Tighter bounds for those who see certain tenants only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<TenantQuota>,
}

/// What those may export who see no other tenants than some: beside the bounds for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantQuota {
    /// Which tenants.
    pub tenant: Vec<String>,
    /// The longest time range of one export.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_range: Option<Period>,
    /// How far back an export may reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Period>,
}

impl Default for ExportsConfig {
    fn default() -> Self {
        Self {
            keep: Period::days(7),
            max_bytes: ByteSize::mib(10 * 1024),
            max_total_bytes: ByteSize::mib(20 * 1024),
            max_range: None,
            max_age: None,
            at_once: 1,
            tenants: Vec::new(),
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
        Self {
            default: Keep::For(Period::days(400)),
            minimum: Period::days(90),
            classes: Vec::new(),
        }
    }
}

impl Default for SpaceConfig {
    fn default() -> Self {
        // A segment that is written anew needs its own size again, and so does the database's log:
        // the last bytes of a disk are for these. Small, so that small disks work too.
        Self { archive_below: ByteSize::mib(1024), stop_below: ByteSize::mib(2) }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_block_bytes: ByteSize::mib(4),
            max_event_bytes: ByteSize::from_bytes(custody_event::MAX_EVENT_BYTES as u64),
            requests_per_minute: None,
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
            search: SearchConfig::default(),
            blocks: BlocksConfig::default(),
            retention: RetentionConfig::default(),
            exports: ExportsConfig::default(),
            archive: None,
            anchors: None,
            space: SpaceConfig::default(),
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
        let every = "tls: {}
oidc: {}
retention: { classes: [{}] }
archive: {}
anchors: { witnesses: [{}] }
exports: { tenants: [{}] }
";
        let other = "archive: { type: s3, lock: {} }";
        let asked = |text: &str| {
            let source = Source::of_text(Path::new("collector.yaml"), text);
            let (_, collected) = source.collect(|top| {
                read::collector(top, &CollectorOverrides::default(), &Env::default())
            });
            collected.asked
        };
        let mut keys = asked(every);
        keys.append(&mut asked(other));
        keys.into_iter().collect()
    }
}
