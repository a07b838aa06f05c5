//! A source of type `journal`: the systemd journal.

use std::path::PathBuf;

use serde::Serialize;

use super::read::{need_id, packs, zone};
use super::{Packs, RedactConfig, Start, Zone};
use crate::common;
use crate::place::Located;
use crate::section::Section;
use crate::units::{Period, UnitError};

/// The systemd journal, or a part of it. All kinds of choice that are given must be met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JournalSourceConfig {
    /// The id, unique among the sources.
    pub id: Located<String>,
    /// Units, with `*` and `?`; without a suffix a service is meant. Empty: all entries.
    pub units: Vec<Located<String>>,
    /// `SYSLOG_IDENTIFIER`s, with `*` and `?`.
    pub identifiers: Vec<Located<String>>,
    /// The least urgent priority that is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Located<String>>,
    /// Boots: `current`, or 32 hexadecimal digits.
    pub boots: Vec<Located<String>>,
    /// A journal namespace of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Located<String>>,
    /// A directory of journal files in place of this machine's: journals of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<Located<PathBuf>>,
    /// Where reading begins at the very first start.
    pub start: Start,
    /// The rule packs that are tried.
    pub packs: Packs,
    /// The zone of timestamps in messages that name none.
    pub timezone: Zone,
    /// What is redacted, beside what is by default.
    pub redact: RedactConfig,
    /// By which way it is read.
    pub via: JournalVia,
    /// A call that takes longer is told as a hang.
    pub watchdog: Period,
}

/// By which way the journal is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalVia {
    /// By systemd's library, or `journalctl` where it cannot be loaded.
    Auto,
    /// By the library alone.
    Library,
    /// By `journalctl` alone.
    Journalctl,
}

impl Default for JournalSourceConfig {
    fn default() -> Self {
        Self {
            id: Located::default_of(String::new()),
            units: Vec::new(),
            identifiers: Vec::new(),
            priority: None,
            boots: Vec::new(),
            namespace: None,
            directory: None,
            start: Start::Beginning,
            packs: Packs::Auto,
            timezone: Zone::System,
            redact: RedactConfig::default(),
            via: JournalVia::Auto,
            watchdog: Period::seconds(30),
        }
    }
}

/// syslog's priorities by their numbers (RFC 5424, table 2), as `journalctl -p` names them.
const PRIORITIES: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

impl JournalSourceConfig {
    /// The number of the least urgent priority that is read.
    pub fn priority_max(&self) -> Option<u8> {
        let word = self.priority.as_ref()?.get();
        let number = PRIORITIES.iter().position(|name| name == word)?;
        u8::try_from(number).ok()
    }
}

pub(super) fn read(item: &mut Section<'_>) -> JournalSourceConfig {
    let base = JournalSourceConfig::default();
    let words = [
        ("auto", JournalVia::Auto),
        ("library", JournalVia::Library),
        ("journalctl", JournalVia::Journalctl),
    ];
    let config = JournalSourceConfig {
        id: need_id(item).unwrap_or(base.id),
        units: checked(item, "units", unit),
        identifiers: checked(item, "identifiers", identifier),
        priority: item.parsed("priority", priority),
        boots: checked(item, "boots", boot),
        namespace: item.parsed("namespace", namespace),
        directory: item.parsed("directory", common::absolute),
        start: item
            .choice("start", &[("beginning", Start::Beginning), ("end", Start::End)])
            .unwrap_or(base.start),
        packs: packs(item).unwrap_or(base.packs),
        timezone: item.parsed("timezone", zone).map_or(base.timezone, Located::into_inner),
        redact: super::redact::redact(item),
        via: item.choice("via", &words).unwrap_or(base.via),
        watchdog: item
            .period("watchdog", Period::seconds(1)..=Period::seconds(3600))
            .unwrap_or(base.watchdog),
    };
    if let (Some(namespace), Some(_)) = (&config.namespace, &config.directory) {
        item.reader().problem(namespace.problem(
            "`namespace` and `directory` name two journals",
            "keep one; a second source can read the other",
        ));
    }
    config
}

fn checked(
    item: &mut Section<'_>,
    key: &'static str,
    check: fn(&str) -> Result<String, UnitError>,
) -> Vec<Located<String>> {
    let texts = item.texts(key).unwrap_or_default();
    texts.into_iter().filter_map(|text| item.read_located(key, text, check)).collect()
}

fn refused(text: &str, what: &str, hint: &str) -> UnitError {
    UnitError { what: format!("`{}` cannot be {what}", text.escape_debug()), hint: hint.to_owned() }
}

fn unit(text: &str) -> Result<String, UnitError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@*?".contains(c);
    if !text.is_empty() && text.len() < 256 && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(refused(text, "a unit", "write it as `systemctl` shows it: ssh.service, web@*.service"))
}

fn identifier(text: &str) -> Result<String, UnitError> {
    if !text.is_empty() && text.len() < 256 && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(refused(
        text,
        "an identifier",
        "write it as `journalctl -o short` shows it before the brackets: sshd",
    ))
}

fn priority(text: &str) -> Result<String, UnitError> {
    if PRIORITIES.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(UnitError {
        what: format!("unknown priority `{}`", text.escape_debug()),
        hint: crate::section::one_of(text, &PRIORITIES),
    })
}

fn boot(text: &str) -> Result<String, UnitError> {
    let digits = text.chars().filter(|c| *c != '-');
    if text == "current"
        || (digits.clone().count() == 32 && digits.clone().all(|c| c.is_ascii_hexdigit()))
    {
        return Ok(text.to_owned());
    }
    Err(refused(
        text,
        "a boot",
        "write `current`, or the 32 digits that `journalctl --list-boots` shows",
    ))
}

fn namespace(text: &str) -> Result<String, UnitError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !text.is_empty() && text.len() < 128 && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(refused(
        text,
        "a namespace",
        "write one name as `LogNamespace=` of a unit has it; several need a source each",
    ))
}
