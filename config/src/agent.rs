//! `agent.yaml`: what an agent reads, keeps and sends.
//!
//! The types hold the defaults; the functions below them read the sections. Source, output and parser kinds are closed enums:
//! a new kind is a variant here and the compiler lists what is left to do.

mod file;
mod journal;
mod push;
mod read;
mod redact;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

pub use crate::collector::ServerTls;
pub use file::{FileSourceConfig, MultilineConfig, TextEncoding};
pub use journal::{JournalSourceConfig, JournalVia};
pub use push::{
    Encoding, Protocol, Scheme, SyslogSourceConfig, VerifyConfig, WebhookConfig,
    WebhookSourceConfig,
};
pub use redact::{GeoipConfig, Join, RedactConfig, RedactRuleConfig};

use crate::common::{Log, LogLevel};
use crate::endpoint::Endpoint;
use crate::load::{Env, Loaded, Source, render};
use crate::place::{LoadError, Located};
use crate::secret::SecretFile;
use crate::units::{ByteSize, Period};

/// The whole of `agent.yaml`, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentConfig {
    /// Where the agent keeps its spool, keys and positions.
    pub data_dir: Located<PathBuf>,
    /// The name under which events speak of this host.
    pub host: String,
    /// The organisation that the events belong to.
    pub tenant: String,
    /// Words that every event of this agent carries.
    pub labels: BTreeMap<String, String>,
    /// What is read; at least one.
    pub sources: Vec<SourceConfig>,
    /// Where webhooks are received; used only if there is a source of that type.
    pub webhook: WebhookConfig,
    /// Where further rule packs lie; a pack there replaces the built-in one of the same name. A directory that is absent is no error.
    pub pack_dirs: Vec<Located<PathBuf>>,
    /// Threads that parse.
    pub parse_workers: u32,
    /// The key of pseudonyms, where a rule of redaction asks for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pseudonym_key_file: Option<SecretFile>,
    /// Databases that say where addresses are.
    pub geoip: GeoipConfig,
    /// The durable buffer.
    pub spool: SpoolConfig,
    /// Where events go; at least one.
    pub outputs: Vec<OutputConfig>,
    /// How the agent is asked about itself.
    pub admin: AdminConfig,
    /// To which files the agent confines itself.
    pub sandbox: SandboxConfig,
    /// What the agent says about itself.
    pub log: Log,
}

/// To which files the agent confines itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SandboxConfig {
    /// By the kernel's Landlock, or not at all.
    pub landlock: LandlockMode,
    /// Folders that may be read beside those that the rest of the configuration names.
    pub read: Vec<Located<PathBuf>>,
}

/// Does the agent confine itself?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LandlockMode {
    /// Where the kernel can.
    #[default]
    Auto,
    /// No.
    Off,
}

/// What the command line says in place of the file.
#[derive(Clone, Debug, Default)]
pub struct AgentOverrides {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--log-level`
    pub log_level: Option<LogLevel>,
}

/// One thing that is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// Log files.
    File(Box<FileSourceConfig>),
    /// The systemd journal.
    Journal(Box<JournalSourceConfig>),
    /// Messages that come over the network.
    Syslog(SyslogSourceConfig),
    /// Requests of senders that push.
    Webhook(WebhookSourceConfig),
}

impl SourceConfig {
    /// The id, unique among the sources.
    pub fn id(&self) -> &str {
        match self {
            Self::File(file) => file.id.get(),
            Self::Journal(journal) => journal.id.get(),
            Self::Syslog(syslog) => syslog.id.get(),
            Self::Webhook(webhook) => webhook.id.get(),
        }
    }

    /// Its `type`, as the file writes it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Journal(_) => "journal",
            Self::Syslog(_) => "syslog",
            Self::Webhook(_) => "webhook",
        }
    }

    /// The rule packs that are tried.
    pub fn packs(&self) -> &Packs {
        match self {
            Self::File(file) => &file.packs,
            Self::Journal(journal) => &journal.packs,
            Self::Syslog(syslog) => &syslog.packs,
            Self::Webhook(webhook) => &webhook.packs,
        }
    }

    /// What is redacted, beside what is by default.
    pub fn redact(&self) -> &RedactConfig {
        match self {
            Self::File(file) => &file.redact,
            Self::Journal(journal) => &journal.redact,
            Self::Syslog(syslog) => &syslog.redact,
            Self::Webhook(webhook) => &webhook.redact,
        }
    }

    /// The zone of timestamps that name none.
    pub fn timezone(&self) -> &Zone {
        match self {
            Self::File(file) => &file.timezone,
            Self::Journal(journal) => &journal.timezone,
            Self::Syslog(syslog) => &syslog.timezone,
            Self::Webhook(webhook) => &webhook.timezone,
        }
    }
}

/// Where reading of a new file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At its first byte.
    Beginning,
    /// At its end: what it already holds is not read.
    End,
}

/// Which rule packs are tried on a source's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packs {
    /// All whose selection fits.
    Auto,
    /// These, in this order. Whether they exist is known only when the packs are loaded.
    Named(Vec<Located<String>>),
}

impl Serialize for Packs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Named(names) => names.serialize(serializer),
        }
    }
}

/// The time zone of timestamps that name none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Zone {
    /// The machine's own.
    System,
    /// An IANA name, which was found when the configuration was loaded.
    Named(String),
}

impl Zone {
    /// The zone's rules.
    ///
    /// # Errors
    /// The zone cannot be found (any more).
    pub fn time_zone(&self) -> Result<jiff::tz::TimeZone, jiff::Error> {
        match self {
            Self::System => jiff::tz::TimeZone::try_system(),
            Self::Named(name) => jiff::tz::TimeZone::get(name),
        }
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::System => "system",
            Self::Named(name) => name,
        })
    }
}

/// The durable buffer between sources and outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpoolConfig {
    /// The most that it takes on disk.
    pub max_bytes: ByteSize,
    /// What happens then.
    pub when_full: WhenFull,
    /// How long events may wait for others to share a block with.
    pub linger: Period,
    /// The spool counts as full when the file system has less left than this.
    pub free_space_floor: ByteSize,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            max_bytes: ByteSize::mib(1024),
            when_full: WhenFull::Wait,
            linger: Period::from_millis(100),
            free_space_floor: ByteSize::mib(64),
        }
    }
}

/// What a full spool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Sources stop reading and go on where they stood. Nothing is lost.
    Wait,
    /// New events are dropped; each loss becomes a gap event.
    DropNewest,
}

/// One destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputConfig {
    /// A Custody collector.
    Custody(CustodyOutputConfig),
}

impl OutputConfig {
    /// The id, unique among the outputs.
    pub fn id(&self) -> &str {
        match self {
            Self::Custody(custody) => custody.id.get(),
        }
    }
}

/// A Custody collector, at one or several addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CustodyOutputConfig {
    /// The id, unique among the outputs.
    pub id: Located<String>,
    /// The collector's addresses, tried in order; at least one.
    pub endpoints: Vec<Located<Endpoint>>,
    /// The one-time token with which the agent enrols itself at its first start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enroll_token_file: Option<SecretFile>,
    /// A bearer token, where the agent was enrolled by other means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<SecretFile>,
    /// How the collector is recognised, and how the agent shows itself.
    pub tls: ClientTls,
    /// The HTTP proxy on the way; none where absent, whatever the environment says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Located<Endpoint>>,
    /// Who the agent is to the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_user: Option<Located<String>>,
    /// The password that goes with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_password_file: Option<SecretFile>,
    /// How a block is packed for the way.
    pub compression: Compression,
    /// How long one attempt may take.
    pub timeout: Period,
    /// The longest pause between two attempts.
    pub max_backoff: Period,
    /// Blocks that are under way at once.
    pub in_flight: u32,
    /// Plain HTTP to another machine is allowed: events and token can be read and changed on the way.
    pub insecure: bool,
}

impl Default for CustodyOutputConfig {
    fn default() -> Self {
        Self {
            id: Located::default_of(String::new()),
            endpoints: Vec::new(),
            enroll_token_file: None,
            token_file: None,
            tls: ClientTls::default(),
            proxy: None,
            proxy_user: None,
            proxy_password_file: None,
            compression: Compression::None,
            timeout: Period::seconds(30),
            max_backoff: Period::seconds(10),
            in_flight: 4,
            insecure: false,
        }
    }
}

/// TLS as the agent speaks it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientTls {
    /// Certificates (PEM) that are trusted in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<Located<PathBuf>>,
    /// The agent's own certificate chain (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<Located<PathBuf>>,
    /// Its key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<SecretFile>,
}

/// How a block is packed for the way. Its body is zstd already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// As it is.
    None,
}

/// How the agent is asked about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdminConfig {
    /// The Unix socket of `custody-agent status`.
    pub socket: Located<PathBuf>,
    /// Where Prometheus metrics are served, if at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Located<SocketAddr>>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        let socket = PathBuf::from("/run/custody-agent/admin.sock");
        Self { socket: Located::default_of(socket), metrics: None }
    }
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            data_dir: Located::default_of(PathBuf::from("/var/lib/custody-agent")),
            host: String::new(),
            tenant: "default".to_owned(),
            labels: BTreeMap::new(),
            sources: Vec::new(),
            webhook: WebhookConfig::default(),
            pack_dirs: vec![Located::default_of(PathBuf::from("/etc/custody/packs"))],
            parse_workers: default_parse_workers(),
            pseudonym_key_file: None,
            geoip: GeoipConfig::default(),
            spool: SpoolConfig::default(),
            outputs: Vec::new(),
            admin: AdminConfig::default(),
            sandbox: SandboxConfig::default(),
            log: Log::default(),
        }
    }
}

/// One a core, and at most four: parsing is rarely what an agent waits for, and its host has other work.
fn default_parse_workers() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores.min(4)).unwrap_or(4)
}

impl AgentConfig {
    /// Loads and checks the file.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong with it.
    pub fn load(
        path: &Path,
        overrides: &AgentOverrides,
        env: &Env,
    ) -> Result<Loaded<Self>, LoadError> {
        Source::read(path)?.load(|top| read::agent(top, overrides, env))
    }

    /// Checks a text as if it stood in the file `path`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_text(
        path: &Path,
        text: &str,
        overrides: &AgentOverrides,
        env: &Env,
    ) -> Result<Loaded<Self>, LoadError> {
        Source::of_text(path, text).load(|top| read::agent(top, overrides, env))
    }

    /// The effective configuration as YAML, defaults written out. It loads as the same configuration.
    pub fn render(&self) -> String {
        render(self)
    }

    /// Every key that the file may hold, dotted (`spool.max_bytes`, `sources[].id`), sorted.
    pub fn keys() -> Vec<String> {
        // Reading a file with one of each section asks for every key.
        let every = "sources: [{ type: file, multiline: {}, redact: [{ action: mask }] }, { type: journal }, { type: syslog, tls: {} }, { type: webhook }]\nwebhook: { tls: {} }\noutputs: [{ type: custody }]\n";
        let source = Source::of_text(Path::new("agent.yaml"), every);
        let (_, collected) =
            source.collect(|top| read::agent(top, &AgentOverrides::default(), &Env::default()));
        collected.asked.into_iter().collect()
    }
}
