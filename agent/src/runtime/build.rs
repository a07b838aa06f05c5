//! From configuration to parts: packs, parsers, sources, clients.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use crossbeam_channel::Sender;
use custody_config::agent::{
    CustodyOutputConfig, FileSourceConfig, OutputConfig, Packs, SourceConfig, Start,
};
use custody_config::{AgentConfig, Located};
use custody_event::Clock;
use custody_parsers::{PackSet, PackSource, Parser, Select, Settings};

use super::Shared;
use crate::outputs::{CustodySettings, Identity, TokenStore};
use crate::pipeline::{OwnAct, SourceContext, random_secret};
use crate::rotation::Rotations;
use crate::sources::SourceIndex;
use crate::sources::file::{FileOptions, FileSource};

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
pub fn parser_of(packs: &PackSet, source: &FileSourceConfig) -> anyhow::Result<Parser> {
    let select = match &source.packs {
        Packs::Auto => Select::Auto,
        Packs::Named(names) => Select::Names(names.iter().map(|name| name.get().clone()).collect()),
    };
    let zone = source
        .timezone
        .time_zone()
        .with_context(|| format!("source {}: the time zone cannot be found", source.id.get()))?;
    packs
        .select(&select, Settings { zone })
        .map_err(|error| anyhow::anyhow!("source {}: {error}", source.id.get()))
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
            let SourceConfig::File(file) = source;
            Ok(SourceContext {
                id: file.id.get().clone(),
                parser: parser_of(&packs, file)?,
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
        .filter(|source| {
            let SourceConfig::File(file) = source;
            file.start == Start::Beginning
        })
        .map(|source| source.id().to_owned())
        .collect()
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
    keys: Arc<Rotations>,
    acts: Sender<OwnAct>,
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
        witness: data_dir.join(format!("log-{id}")),
        keys,
        acts,
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
        let SourceConfig::File(file) = source;
        parser_of(&packs, file)?;
        file_source(file, SourceIndex(0), Arc::clone(clock))?;
    }
    for output in &config.outputs {
        let OutputConfig::Custody(custody) = output;
        client(custody)?;
    }
    Ok(())
}
