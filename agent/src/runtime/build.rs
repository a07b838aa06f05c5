//! From configuration to parts: packs, parsers, sources, clients.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use custody_config::agent::{
    CustodyOutputConfig, FileSourceConfig, JournalSourceConfig, JournalVia, OutputConfig, Packs,
    SourceConfig, Start,
};
use custody_config::{AgentConfig, Located};
use custody_event::Clock;
use custody_journal::{Access, ChildOptions, Filter, FollowerOptions, Target};
use custody_parsers::{PackSet, PackSource, Parser, Select, Settings};

use super::Shared;
use crate::outputs::{CustodySettings, Identity, TokenStore};
use crate::pipeline::{SourceContext, random_secret};
use crate::sources::SourceIndex;
use crate::sources::file::{FileOptions, FileSource};
use crate::sources::journal::{JournalOptions, JournalSource};

/// The built-in packs, and over them those of the configured folders.
///
/// # Errors
/// A folder or file cannot be read, or a pack is wrong: each with file, line and column.
pub fn load_packs(config: &AgentConfig) -> anyhow::Result<PackSet> {
    let mut sources = Vec::new();
    for folder in &config.pack_dirs {
        sources.extend(packs_in(folder)?);
    }
    Ok(PackSet::with_builtin(&sources)?)
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

/// The parser of one source.
///
/// # Errors
/// A pack that it names does not exist, or its zone cannot be found.
pub fn parser_of(packs: &PackSet, source: &SourceConfig) -> anyhow::Result<Parser> {
    let select = match source.packs() {
        Packs::Auto => Select::Auto,
        Packs::Named(names) => Select::Names(names.iter().map(|name| name.get().clone()).collect()),
    };
    let zone = source
        .timezone()
        .time_zone()
        .with_context(|| format!("source {}: the time zone cannot be found", source.id()))?;
    packs
        .select(&select, Settings { zone })
        .map_err(|error| anyhow::anyhow!("source {}: {error}", source.id()))
}

/// Every source's parser and envelope, by its number.
pub(super) fn contexts(
    config: &AgentConfig,
    shared: &Shared,
) -> anyhow::Result<Vec<SourceContext>> {
    let packs = load_packs(config)?;
    config
        .sources
        .iter()
        .map(|source| {
            Ok(SourceContext {
                id: source.id().to_owned(),
                parser: parser_of(&packs, source)?,
                tenant: config.tenant.clone(),
                host: config.host.clone(),
                host_id: shared.identity.host_id.clone(),
                agent: shared.identity.agent.to_hex(),
                labels: config.labels.iter().map(|(key, value)| format!("{key}:{value}")).collect(),
            })
        })
        .collect()
}

/// Sources that can be read again from their beginning.
pub(super) fn rereadable(config: &AgentConfig) -> Vec<String> {
    config
        .sources
        .iter()
        .filter(|source| source.is_rereadable())
        .map(|source| source.id().to_owned())
        .collect()
}

/// A source of any kind, ready to run.
pub(super) enum AnySource {
    File(FileSource),
    Journal(JournalSource),
}

impl AnySource {
    /// The source of a configuration.
    pub(super) fn of(
        source: &SourceConfig,
        index: SourceIndex,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        Ok(match source {
            SourceConfig::File(file) => Self::File(file_source(file, index, clock)?),
            SourceConfig::Journal(journal) => Self::Journal(journal_source(journal, index, clock)?),
        })
    }
}

/// The journal source of a configuration.
fn journal_source(
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
fn file_source(
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
        ..FileOptions::default()
    };
    FileSource::new(options, index, clock)
        .map_err(|error| anyhow::anyhow!("source {}: {error}", file.id.get()))
}

/// The HTTP client of a custody output.
pub(super) fn client(output: &CustodyOutputConfig) -> anyhow::Result<reqwest::Client> {
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

/// The settings of a custody output.
pub(super) fn output_settings(
    output: &CustodyOutputConfig,
    data_dir: &Path,
) -> anyhow::Result<CustodySettings> {
    let id = output.id.get().clone();
    let [a, b, c, d, e, f, g, h, ..] = random_secret()?;
    Ok(CustodySettings {
        endpoints: output.endpoints.iter().map(|endpoint| endpoint.get().to_string()).collect(),
        tokens: TokenStore {
            configured: output.token_file.clone(),
            enroll: output.enroll_token_file.clone(),
            kept: data_dir.join(format!("token-{id}")),
        },
        id,
        max_backoff: output.max_backoff.duration(),
        in_flight: usize::try_from(output.in_flight)?,
        seed: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
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

/// Builds everything that can be built without being at work: packs, parsers, sources, clients.
///
/// # Errors
/// The first thing that would keep an agent with this configuration from starting.
pub fn check(config: &AgentConfig, clock: &Arc<dyn Clock>) -> anyhow::Result<()> {
    let packs = load_packs(config)?;
    for source in &config.sources {
        parser_of(&packs, source)?;
        AnySource::of(source, SourceIndex(0), Arc::clone(clock))?;
    }
    for output in &config.outputs {
        let OutputConfig::Custody(custody) = output;
        client(custody)?;
    }
    Ok(())
}
