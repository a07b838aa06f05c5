//! What would be read, and which pack knows it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use custody_config::AgentConfig;
use custody_config::agent::{FileSourceConfig, SourceConfig};
use custody_event::{Clock, EventView, Offset};

use super::Findings;
use crate::cli::preview::Reader;
use crate::cli::print;
use crate::runtime::{Surroundings, load_packs, parser_of};

/// Of each file so much is tried, from its end.
const SAMPLE_BYTES: u64 = 64 * 1024;
/// Files that are tried, of one source.
const MAX_FILES: usize = 20;

pub(super) fn sources(config: &AgentConfig, clock: &Arc<dyn Clock>, findings: &mut Findings) {
    for source in &config.sources {
        let what = format!("source {}", source.id());
        match source {
            SourceConfig::File(file) => files(config, clock, source, file, findings),
            SourceConfig::Journal(_) => {}
            SourceConfig::Syslog(syslog) => {
                findings.good(what, format!("listens on {}", syslog.listen.get()));
            }
            SourceConfig::Webhook(webhook) => {
                let at = config.webhook.listen.get();
                findings.good(what, format!("is posted to at {at}{}", webhook.path.get()));
            }
        }
    }
}

fn files(
    config: &AgentConfig,
    clock: &Arc<dyn Clock>,
    source: &SourceConfig,
    file: &FileSourceConfig,
    findings: &mut Findings,
) {
    let what = format!("source {}", file.id.get());
    let texts = |list: &[custody_config::Located<String>]| -> Vec<String> {
        list.iter().map(|value| value.get().clone()).collect()
    };
    let looked = match crate::sources::file::look(&texts(&file.paths), &texts(&file.exclude)) {
        Ok(looked) => looked,
        Err(error) => return findings.bad(what, error.to_string(), "mend the pattern"),
    };
    let found: Vec<_> = looked.files.into_keys().collect();
    for (path, error) in looked.errors {
        let remedy = "let the service's user in: a group (adm), or setfacl -m u:custody-agent:rx";
        findings.bad(&*what, format!("{}: {error}", path.display()), remedy);
    }
    if found.is_empty() {
        return findings.warn(
            what,
            format!("no file is there yet: {}", texts(&file.paths).join(", ")),
            "right if it comes later; else mend the paths (on a system without a syslog daemon the journal has it)",
        );
    }
    for path in found.iter().take(MAX_FILES) {
        one(known(config, clock, source, path), path, &what, findings);
    }
    if let Some(more) = found.len().checked_sub(MAX_FILES).filter(|more| *more > 0) {
        findings.good(what, format!("and {more} more files"));
    }
}

/// What was made of the end of a file.
struct Tried {
    size: u64,
    lines: usize,
    /// Events by pack.
    packs: BTreeMap<String, u64>,
}

fn one(tried: anyhow::Result<Tried>, path: &Path, what: &str, findings: &mut Findings) {
    let shown = path.display();
    let Tried { size, lines, packs } = match tried {
        Ok(tried) => tried,
        Err(error) if error.is::<std::io::Error>() => {
            let remedy = format!(
                "let the service's user read it: a group (adm), setfacl -m u:custody-agent:r {shown}, or CAP_DAC_READ_SEARCH (see the unit)"
            );
            return findings.bad(what, format!("{shown}: {error}"), &remedy);
        }
        Err(error) => {
            return findings.bad(
                what,
                format!("{error:#}"),
                "mend what it names, then custody-agent check",
            );
        }
    };
    let size = print::bytes(size);
    if lines == 0 {
        findings.good(what, format!("{shown} ({size}): empty so far"));
    } else if packs.is_empty() {
        findings.warn(
            what,
            format!("{shown} ({size}): of the last {lines} lines no pack knows any"),
            "they arrive as they are; name a pack (packs:), or write one: custody-agent draft FILE",
        );
    } else {
        let by: Vec<String> = packs.iter().map(|(pack, count)| format!("{pack} {count}")).collect();
        findings
            .good(what, format!("{shown} ({size}): of the last {lines} lines: {}", by.join(", ")));
    }
}

/// Whole lines from the end of a file, and its size.
fn end_of(path: &Path) -> std::io::Result<(Vec<u8>, u64)> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let from = size.saturating_sub(SAMPLE_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(SAMPLE_BYTES).read_to_end(&mut bytes)?;
    if from > 0 {
        let first = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..first);
    }
    Ok((bytes, size))
}

/// Tries the packs on the end of a file.
fn known(
    config: &AgentConfig,
    clock: &Arc<dyn Clock>,
    source: &SourceConfig,
    path: &Path,
) -> anyhow::Result<Tried> {
    let (sample, size) = end_of(path)?;
    let around = Surroundings::of(config, clock)?;
    let parser = parser_of(&load_packs(config)?, source, &around)?;
    let mut reader = Reader::of(parser, path);
    let mut tried = Tried { size, lines: 0, packs: BTreeMap::new() };
    for line in sample.split_inclusive(|byte| *byte == b'\n') {
        tried.lines += 1;
        let (_, events) = reader.events(line, Offset(0));
        for event in events.split(|byte| *byte == b'\n').filter(|event| !event.is_empty()) {
            if let Some(pack) = EventView::read(event)?.origin.pack {
                *tried.packs.entry(pack.into_owned()).or_default() += 1;
            }
        }
    }
    Ok(tried)
}
