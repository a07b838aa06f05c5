//! From configuration to parts: packs, parsers, sources, clients.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use crossbeam_channel::Sender;
use custody_config::agent::{
    CustodyOutputConfig, FileSourceConfig, JournalSourceConfig, JournalVia, MultilineConfig,
    OutputConfig, Packs, Protocol, RedactConfig, ServerTls, SourceConfig, Start,
    SyslogSourceConfig, TextEncoding,
};
use custody_config::{AgentConfig, Located, Secret, SecretFile};
use custody_event::Clock;
use custody_journal::{Access, ChildOptions, Filter, FollowerOptions, Target};
use custody_parsers::{
    Atlas, HostNames, PackSet, PackSource, Parser, PseudonymKey, RedactAction, RedactError,
    RedactRule, RedactWhat, Redaction, SecretPattern, Select, Settings,
};

use super::Shared;
use crate::geoip::Geoip;
use crate::identity::AgentIdentity;
use crate::outputs::{CustodySettings, Identity, TokenStore};
use crate::pipeline::{Join, OwnAct, SourceContext, random_secret};
use crate::sources::file::{FileEncoding, FileOptions, FileSource, Multiline, MultilineRule, look};
use crate::sources::journal::{JournalOptions, JournalSource};
use crate::sources::tls::server_config;
use crate::sources::{Encoding, MAX_CHUNK_BYTES, SourceIndex};
use crate::sources::{syslog, webhook};

/// The built-in packs, and over them those of the configured folders.
///
/// # Errors
/// A folder or file cannot be read, or a pack is wrong: each with file, line and column.
pub fn load_packs(config: &AgentConfig) -> anyhow::Result<PackSet> {
    Ok(PackSet::with_builtin(&own_packs(config)?)?)
}

/// The packs of the configured folders, by name.
pub(super) fn own_packs(config: &AgentConfig) -> anyhow::Result<Vec<PackSource>> {
    let mut sources = Vec::new();
    for folder in &config.pack_dirs {
        sources.extend(packs_in(folder)?);
    }
    Ok(sources)
}

fn packs_in(folder: &Located<std::path::PathBuf>) -> anyhow::Result<Vec<PackSource>> {
    let listed = match std::fs::read_dir(folder.get()) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| folder.get().display().to_string()),
    };
    let mut packs = Vec::new();
    for entry in listed {
        let path = entry.with_context(|| folder.get().display().to_string())?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(&path).with_context(|| name.clone())?;
            packs.push(PackSource { name, text });
        }
    }
    packs.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(packs)
}

/// What all sources' parsers have in common.
#[derive(Debug, Clone)]
pub struct Surroundings {
    key: Option<PseudonymKey>,
    host: Arc<HostNames>,
    atlas: Option<Arc<dyn Atlas>>,
}

/// The users of this host. Where it cannot be read numbers stay numbers.
const PASSWD: &str = "/etc/passwd";

impl Surroundings {
    /// What a configuration names.
    ///
    /// # Errors
    /// The key of pseudonyms or a database of addresses cannot be read.
    pub fn of(config: &AgentConfig, clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
        let passwd = std::fs::read_to_string(PASSWD).unwrap_or_default();
        let atlas = Geoip::open(&config.geoip, clock)?;
        Ok(Self {
            key: config.pseudonym_key_file.as_ref().map(pseudonym_key).transpose()?,
            host: Arc::new(HostNames::from_passwd(&passwd)),
            atlas: atlas.map(|atlas| atlas as Arc<dyn Atlas>),
        })
    }
}

fn pseudonym_key(file: &SecretFile) -> anyhow::Result<PseudonymKey> {
    let secret = file.read()?;
    PseudonymKey::new(secret.expose().as_bytes()).ok_or_else(|| {
        let what = format!("{} holds fewer than 16 bytes", file.path().display());
        file.located().problem(what, "make one: head -c 32 /dev/urandom | base64").into()
    })
}

/// What is redacted in a source's records.
///
/// # Errors
/// A rule names what there is not, at its place.
fn redaction_of(source: &SourceConfig, key: Option<&PseudonymKey>) -> anyhow::Result<Redaction> {
    let RedactConfig::Rules(rules) = source.redact() else { return Ok(Redaction::off()) };
    let mut known = Vec::new();
    for rule in rules {
        let action = rule.action.get();
        let action = RedactAction::from_name(action).ok_or_else(|| {
            let hint = format!("one of: {}", RedactAction::NAMES.join(", "));
            rule.action.problem(format!("`{}` is no action", action.escape_debug()), hint)
        })?;
        let mut add = |at: &Located<String>, what: RedactWhat| -> anyhow::Result<()> {
            known.push(RedactRule { what, action });
            Redaction::new(&known, key.cloned()).map(drop).map_err(|error| {
                let hint = match error {
                    RedactError::NoKey => "add `pseudonym_key_file: /etc/custody/pseudonym.key`",
                    RedactError::Field(_) => "such as actor.name, source.ip, targets.name, details.KEY, changes.FIELD, origin.raw",
                    RedactError::NoText(_) => "write `action: remove`",
                    _ => "see the guide on redaction",
                };
                at.problem(error.to_string(), hint).into()
            })
        };
        for field in &rule.fields {
            add(field, RedactWhat::Field(field.get().clone()))?;
        }
        for pattern in &rule.patterns {
            let found = SecretPattern::from_name(pattern.get()).ok_or_else(|| {
                let names: Vec<_> = SecretPattern::ALL.iter().map(|one| one.name()).collect();
                let what = format!("`{}` is no pattern", pattern.get().escape_debug());
                pattern.problem(what, format!("one of: {}", names.join(", ")))
            })?;
            add(pattern, RedactWhat::Pattern(found))?;
        }
        if let (Some(name), Some(regex)) = (&rule.name, &rule.regex) {
            let what = RedactWhat::Own { name: name.get().clone(), regex: regex.get().clone() };
            add(regex, what)?;
        }
    }
    Ok(Redaction::new(&known, key.cloned())?)
}

/// The parser of one source.
///
/// # Errors
/// A pack that it names does not exist, its zone cannot be found, or a rule of redaction is wrong.
pub fn parser_of(
    packs: &PackSet,
    source: &SourceConfig,
    around: &Surroundings,
) -> anyhow::Result<Parser> {
    let select = match source.packs() {
        Packs::Auto => Select::Auto,
        Packs::Named(names) => Select::Names(names.iter().map(|name| name.get().clone()).collect()),
    };
    let zone = source
        .timezone()
        .time_zone()
        .with_context(|| format!("source {}: the time zone cannot be found", source.id()))?;
    let settings = Settings {
        zone,
        redaction: redaction_of(source, around.key.as_ref())?,
        host: Arc::clone(&around.host),
        atlas: around.atlas.clone(),
    };
    packs
        .select(&select, settings)
        .map_err(|error| anyhow::anyhow!("source {}: {error}", source.id()))
}

/// Every source's parser and envelope, by its number.
pub(super) fn contexts(
    config: &AgentConfig,
    shared: &Shared,
) -> anyhow::Result<Vec<SourceContext>> {
    let packs = load_packs(config)?;
    let around = Surroundings::of(config, &shared.clock)?;
    config
        .sources
        .iter()
        .map(|source| {
            Ok(SourceContext {
                id: source.id().to_owned(),
                parser: parser_of(&packs, source, &around)?,
                tenant: config.tenant.clone(),
                host: config.host.clone(),
                host_id: shared.identity.host_id.clone(),
                agent: shared.identity.agent.to_hex(),
                labels: config.labels.iter().map(|(key, value)| format!("{key}:{value}")).collect(),
                join: join_of(source),
            })
        })
        .collect()
}

fn join_of(source: &SourceConfig) -> Join {
    match source {
        SourceConfig::File(file) => match file.join {
            custody_config::agent::Join::None => Join::None,
            custody_config::agent::Join::Auditd => Join::Joined,
            custody_config::agent::Join::AuditdBoth => Join::Both,
        },
        SourceConfig::Journal(_) | SourceConfig::Syslog(_) | SourceConfig::Webhook(_) => Join::None,
    }
}

/// Sources that can be read again from their beginning.
pub(super) fn rereadable(config: &AgentConfig) -> Vec<String> {
    config
        .sources
        .iter()
        .filter(|source| match source {
            SourceConfig::File(file) => file.start == Start::Beginning,
            SourceConfig::Journal(journal) => journal.start == Start::Beginning,
            SourceConfig::Syslog(_) | SourceConfig::Webhook(_) => false,
        })
        .map(|source| source.id().to_owned())
        .collect()
}

/// The journal source of a configuration.
pub(super) fn journal_source(
    journal: &JournalSourceConfig,
    index: SourceIndex,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<JournalSource> {
    let texts =
        |values: &[Located<String>]| values.iter().map(|value| value.get().clone()).collect();
    let mut filter = Filter {
        units: texts(&journal.units),
        identifiers: texts(&journal.identifiers),
        priority_max: journal.priority_max(),
        boots: Vec::new(),
    };
    for boot in &journal.boots {
        filter
            .add_boot(boot.get())
            .map_err(|error| anyhow::anyhow!("source {}: {error}", journal.id.get()))?;
    }
    let target = match (&journal.namespace, &journal.directory) {
        (Some(name), _) => Target::Namespace(name.get().clone()),
        (None, Some(directory)) => Target::Directory(directory.get().clone()),
        (None, None) => Target::Local,
    };
    let access = match journal.via {
        JournalVia::Auto => Access::Auto,
        JournalVia::Library => Access::Library,
        JournalVia::Journalctl => Access::Journalctl,
    };
    let watchdog = journal.watchdog.duration();
    let child = ChildOptions { silence: watchdog, ..ChildOptions::default() };
    let options = JournalOptions {
        follow: FollowerOptions { target, access, child },
        filter,
        at_end: journal.start == Start::End,
        watchdog,
    };
    Ok(JournalSource::new(options, index, clock))
}

/// The file source of a configuration.
pub(super) fn file_source(
    file: &FileSourceConfig,
    index: SourceIndex,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<FileSource> {
    let texts =
        |values: &[Located<String>]| values.iter().map(|value| value.get().clone()).collect();
    let options = FileOptions {
        paths: texts(&file.paths),
        exclude: texts(&file.exclude),
        start: match file.start {
            Start::Beginning => crate::sources::file::Start::Beginning,
            Start::End => crate::sources::file::Start::End,
        },
        max_line_bytes: file.max_line_bytes.as_usize(),
        scan_interval: file.scan_interval.duration(),
        max_open_files: usize::try_from(file.max_open_files)?,
        notifications: !file.poll,
        encoding: match file.encoding {
            TextEncoding::Utf8 => FileEncoding::Fixed(Encoding::Utf8),
            TextEncoding::Utf16Le => FileEncoding::Fixed(Encoding::Utf16Le),
            TextEncoding::Utf16Be => FileEncoding::Fixed(Encoding::Utf16Be),
            TextEncoding::Utf16 => FileEncoding::Utf16,
            TextEncoding::Latin1 => FileEncoding::Fixed(Encoding::Latin1),
            TextEncoding::Windows1252 => FileEncoding::Fixed(Encoding::Windows1252),
        },
        multiline: joined(file).or_else(|| file.multiline.as_ref().map(multiline)),
    };
    FileSource::new(options, index, clock)
        .map_err(|error| anyhow::anyhow!("source {}: {error}", file.id.get()))
}

/// Records that are joined are cut as records of several lines are.
fn joined(file: &FileSourceConfig) -> Option<Multiline> {
    (file.join != custody_config::agent::Join::None).then(|| Multiline {
        rule: MultilineRule::Auditd,
        max_bytes: MAX_CHUNK_BYTES / 2,
        flush: file.join_timeout.duration(),
    })
}

fn multiline(config: &MultilineConfig) -> Multiline {
    let rule = match (&config.start, &config.goes_on, &config.end) {
        (Some(pattern), _, _) => MultilineRule::Start(pattern.get().clone()),
        (None, Some(pattern), _) => MultilineRule::Continue(pattern.get().clone()),
        (None, None, Some(pattern)) => MultilineRule::End(pattern.get().clone()),
        (None, None, None) if config.indent => MultilineRule::Indent,
        (None, None, None) => MultilineRule::BlankLine,
    };
    Multiline { rule, max_bytes: config.max_bytes.as_usize(), flush: config.flush.duration() }
}

/// The settings of a syslog source.
pub(super) fn syslog_options(source: &SyslogSourceConfig) -> anyhow::Result<syslog::Options> {
    let transport = match (source.protocol, &source.tls) {
        (Protocol::Udp, _) => syslog::Transport::Udp,
        (Protocol::Tls, Some(tls)) => syslog::Transport::Tls(server_config(tls, &[])?),
        (Protocol::Tcp | Protocol::Tls, _) => syslog::Transport::Tcp,
    };
    Ok(syslog::Options {
        listen: *source.listen.get(),
        transport,
        max_message_bytes: source.max_message_bytes.as_usize(),
        max_connections: source.max_connections,
        max_connections_per_peer: source.max_connections_per_peer,
        max_bytes_per_second: source.max_bytes_per_second.bytes(),
        idle_timeout: source.idle_timeout.duration(),
    })
}

/// The webhook sources of a configuration with their numbers, if there are any.
pub(super) fn webhooks(config: &AgentConfig) -> anyhow::Result<Option<webhook::Options>> {
    let mut endpoints = Vec::new();
    for (number, source) in (0_u16..).zip(&config.sources) {
        let SourceConfig::Webhook(source) = source else { continue };
        endpoints.push(webhook::EndpointOptions {
            index: SourceIndex(number),
            id: source.id.get().clone(),
            path: source.path.get().clone(),
            verifier: webhook::Verifier::from_config(&source.verify)?,
            max_body_bytes: source.max_body_bytes.as_usize(),
            split: source.split.clone(),
            remember: usize::try_from(source.remember)?,
        });
    }
    if endpoints.is_empty() {
        return Ok(None);
    }
    let tls = config.webhook.tls.as_ref();
    Ok(Some(webhook::Options {
        listen: *config.webhook.listen.get(),
        tls: tls.map(|tls| server_config(tls, &["h2", "http/1.1"])).transpose()?,
        max_connections: usize::try_from(config.webhook.max_connections)?,
        answer_within: config.webhook.answer_within.duration(),
        endpoints,
    }))
}

/// Certificates and secrets are looked at where they are there: a file may be checked on another
/// machine than the one that it is for. The agent itself does not start without them.
fn check_pushed(config: &AgentConfig) -> anyhow::Result<()> {
    let mut paths: Vec<&Path> = Vec::new();
    let mut tls: Vec<&ServerTls> = config.webhook.tls.iter().collect();
    for source in &config.sources {
        match source {
            SourceConfig::File(_) | SourceConfig::Journal(_) => {}
            SourceConfig::Syslog(source) => tls.extend(&source.tls),
            SourceConfig::Webhook(source) => {
                paths.extend(source.verify.secret_files.iter().map(SecretFile::path));
            }
        }
    }
    for tls in tls {
        paths.extend([tls.cert_file.get(), tls.key_file.path()]);
        paths.extend(tls.client_ca_file.as_ref().map(|file| file.get().as_path()));
    }
    paths.retain(|path| !is_here(path));
    if !paths.is_empty() {
        return Ok(());
    }
    for source in &config.sources {
        if let SourceConfig::Syslog(source) = source {
            syslog_options(source)?;
        }
    }
    webhooks(config).map(drop)
}

/// The HTTP client of a custody output.
///
/// # Errors
/// A file that it names cannot be read, or is not what it should be.
pub fn client(output: &CustodyOutputConfig) -> anyhow::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("custody-agent/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .connect_timeout(output.timeout.duration().min(std::time::Duration::from_secs(10)))
        .timeout(output.timeout.duration());
    if let Some(file) = &output.tls.ca_file {
        let pem = std::fs::read(file.get()).map_err(|error| {
            file.problem(
                format!("{}: {error}", file.get().display()),
                "check the path and its mode",
            )
        })?;
        let certs = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| {
            file.problem(
                format!("{}: {error}", file.get().display()),
                "PEM certificates are expected",
            )
        })?;
        builder = builder.tls_certs_only(certs);
    }
    if let (Some(cert), Some(key)) = (&output.tls.cert_file, &output.tls.key_file) {
        let mut pem = std::fs::read(cert.get()).map_err(|error| {
            cert.problem(
                format!("{}: {error}", cert.get().display()),
                "check the path and its mode",
            )
        })?;
        pem.push(b'\n');
        pem.extend_from_slice(key.read()?.expose().as_bytes());
        builder = builder.identity(reqwest::Identity::from_pem(&pem)?);
    }
    Ok(builder.build()?)
}

/// Shows an enrolment token (the configured one without another) to the collectors of the outputs that are `named`; gives for
/// each the agent's id, or why not.
///
/// # Errors
/// The agent's identity cannot be read or made.
pub fn enroll(
    config: &AgentConfig,
    data_dir: &Path,
    token: Option<&Secret>,
    named: impl Fn(&str) -> bool,
) -> anyhow::Result<Vec<(String, Result<String, String>)>> {
    let identity = AgentIdentity::load_or_create(data_dir, &config.host)?;
    let who = Identity {
        agent: identity.agent,
        host_id: identity.host_id.clone(),
        hostname: config.host.clone(),
        public_key: identity.key.public().to_hex(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut done = Vec::new();
    for output in config.outputs.iter().filter(|output| named(output.id())) {
        let OutputConfig::Custody(custody) = output;
        let client = client(custody)?;
        let store = tokens(custody, data_dir);
        let mut result = Err("it has no endpoint".to_owned());
        for endpoint in &custody.endpoints {
            let endpoint = endpoint.get().to_string();
            result = runtime.block_on(store.enroll(&client, &endpoint, &who, token));
            if result.is_ok() {
                break;
            }
        }
        done.push((output.id().to_owned(), result.map(|_| who.agent.to_hex())));
    }
    Ok(done)
}

fn tokens(output: &CustodyOutputConfig, data_dir: &Path) -> TokenStore {
    TokenStore {
        configured: output.token_file.clone(),
        enroll: output.enroll_token_file.clone(),
        kept: data_dir.join(format!("token-{}", output.id.get())),
    }
}

/// The settings of a custody output.
pub(super) fn output_settings(
    output: &CustodyOutputConfig,
    shared: &Shared,
    acts: Sender<OwnAct>,
) -> anyhow::Result<CustodySettings> {
    let id = output.id.get().clone();
    let [a, b, c, d, e, f, g, h, ..] = random_secret()?;
    Ok(CustodySettings {
        endpoints: output.endpoints.iter().map(|endpoint| endpoint.get().to_string()).collect(),
        tokens: tokens(output, &shared.data_dir),
        witness: shared.data_dir.join(format!("log-{id}")),
        cosigner: Arc::new(shared.identity.key.witness(&shared.identity.agent)),
        keys: Arc::clone(&shared.rotations),
        acts,
        id,
        max_backoff: output.max_backoff.duration(),
        in_flight: usize::try_from(output.in_flight)?,
        seed: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        skipped: 0..0,
        refused: BTreeSet::new(),
    })
}

/// Who the agent says that it is.
pub(super) fn identity(config: &AgentConfig, shared: &Shared) -> Identity {
    Identity {
        agent: shared.identity.agent,
        host_id: shared.identity.host_id.clone(),
        hostname: config.host.clone(),
        public_key: shared.identity.key.public().to_hex(),
    }
}

/// Is the file there? Says so if not.
fn is_here(path: &Path) -> bool {
    let is_here = matches!(path.try_exists(), Ok(true));
    if !is_here {
        log::warn!("{} is not here: it was not checked", path.display());
    }
    is_here
}

/// The surroundings as far as they are here: a file may be checked on another machine than the one
/// that it is for.
fn here(config: &AgentConfig, clock: &Arc<dyn Clock>) -> anyhow::Result<Surroundings> {
    let mut config = config.clone();
    let key = config.pseudonym_key_file.take_if(|file| !is_here(file.path()));
    config.geoip.city_file.take_if(|file| !is_here(file.get()));
    config.geoip.asn_file.take_if(|file| !is_here(file.get()));
    let mut around = Surroundings::of(&config, clock)?;
    if key.is_some() {
        around.key = PseudonymKey::new(&[0; 32]);
    }
    Ok(around)
}

/// Builds everything that can be built without being at work: packs, parsers, sources, clients.
///
/// # Errors
/// The first thing that would keep an agent with this configuration from starting.
pub fn check(config: &AgentConfig, clock: &Arc<dyn Clock>) -> anyhow::Result<()> {
    let packs = load_packs(config)?;
    let around = here(config, clock)?;
    for source in &config.sources {
        parser_of(&packs, source, &around)?;
        match source {
            SourceConfig::File(file) => {
                file_source(file, SourceIndex(0), Arc::clone(clock))?;
            }
            SourceConfig::Journal(journal) => {
                journal_source(journal, SourceIndex(0), Arc::clone(clock))?;
            }
            // All at once, below.
            SourceConfig::Syslog(_) | SourceConfig::Webhook(_) => {}
        }
    }
    check_pushed(config)?;
    for output in &config.outputs {
        let OutputConfig::Custody(custody) = output;
        let tls = &custody.tls;
        let named = tls.ca_file.iter().chain(&tls.cert_file).map(|file| file.get().as_path());
        let named = named.chain(tls.key_file.as_ref().map(SecretFile::path));
        // All are looked for, so that each that is missing is said.
        if named.filter(|path| !is_here(path)).count() == 0 {
            client(custody)?;
        }
    }
    Ok(())
}

/// Says which files two sources read: what is written there is told twice, under the same ids.
#[must_use]
pub fn shared_files(config: &AgentConfig) -> Vec<String> {
    let mut owners: HashMap<_, &str> = HashMap::new();
    let mut said = Vec::new();
    for source in &config.sources {
        let SourceConfig::File(file) = source else { continue };
        let patterns = [&file.paths, &file.exclude]
            .map(|list| -> Vec<String> { list.iter().map(|value| value.get().clone()).collect() });
        // A pattern that is none is an error elsewhere.
        let Ok(found) = look(&patterns[0], &patterns[1]) else { continue };
        for (path, stat) in found.files {
            let owner = *owners.entry(stat.inode).or_insert(source.id());
            if owner != source.id() {
                said.push(format!(
                    "{} is read by the sources {owner} and {}: what is written there is stored twice; narrow the paths of one of them",
                    path.display(),
                    source.id()
                ));
            }
        }
    }
    said
}
