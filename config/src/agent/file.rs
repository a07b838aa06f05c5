//! A source of type `file`: log files, named by patterns.

use regex::bytes::Regex;
use serde::Serialize;

use super::read::{need_id, packs, zone};
use super::{Join, Packs, RedactConfig, Start, Zone, redact};
use crate::common;
use crate::place::Located;
use crate::section::Section;
use crate::units::{ByteSize, Period, UnitError};

/// Log files, named by patterns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSourceConfig {
    /// The id, unique among the sources.
    pub id: Located<String>,
    /// Absolute glob patterns; at least one.
    pub paths: Vec<Located<String>>,
    /// Glob patterns of what is not read: with a slash against the whole path, without one against the file's name.
    pub exclude: Vec<Located<String>>,
    /// Where reading of a file begins that was never seen before.
    pub start: Start,
    /// The rule packs that are tried.
    pub packs: Packs,
    /// The zone of timestamps that name none.
    pub timezone: Zone,
    /// How the files' bytes are text.
    pub encoding: TextEncoding,
    /// A longer line arrives as numbered segments of this many bytes.
    pub max_line_bytes: ByteSize,
    /// Records of several lines; absent: every line is a record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiline: Option<MultilineConfig>,
    /// How often all files are looked at, whatever the file system's hints say.
    pub scan_interval: Period,
    /// The file system gives no hints (NFS): the looks alone find what is new.
    pub poll: bool,
    /// Files that are held open while nothing happens in them.
    pub max_open_files: u32,
    /// Which records are joined to one event.
    pub join: Join,
    /// How long a joined event may wait for its last records.
    pub join_timeout: Period,
    /// What is redacted, beside what is by default.
    pub redact: RedactConfig,
}

impl Default for FileSourceConfig {
    fn default() -> Self {
        Self {
            id: Located::default_of(String::new()),
            paths: Vec::new(),
            exclude: Vec::new(),
            start: Start::Beginning,
            packs: Packs::Auto,
            timezone: Zone::System,
            encoding: TextEncoding::Utf8,
            max_line_bytes: ByteSize::kib(16),
            multiline: None,
            scan_interval: Period::seconds(1),
            poll: false,
            max_open_files: 512,
            join: Join::None,
            join_timeout: redact::JOIN_TIMEOUT,
            redact: RedactConfig::default(),
        }
    }
}

/// How a file's bytes are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum TextEncoding {
    /// UTF-8; bytes that are none are kept as they are.
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-16, the lower byte first.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, the higher byte first.
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// UTF-16 in the order that the mark at the file's beginning says; without one, the lower byte first.
    #[serde(rename = "utf-16")]
    Utf16,
    /// ISO 8859-1.
    #[serde(rename = "latin-1")]
    Latin1,
    /// The Western code page of Windows.
    #[serde(rename = "windows-1252")]
    Windows1252,
}

const ENCODINGS: [(&str, TextEncoding); 6] = [
    ("utf-8", TextEncoding::Utf8),
    ("utf-16le", TextEncoding::Utf16Le),
    ("utf-16be", TextEncoding::Utf16Be),
    ("utf-16", TextEncoding::Utf16),
    ("latin-1", TextEncoding::Latin1),
    ("windows-1252", TextEncoding::Windows1252),
];

/// Which lines make one record: one of the first five is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MultilineConfig {
    /// A line in which this is found begins a record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Located<String>>,
    /// A line in which this is found goes on with the record before it.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub goes_on: Option<Located<String>>,
    /// A line in which this is found ends its record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Located<String>>,
    /// A line that begins with a blank or a tab goes on with the record before it.
    #[serde(skip_serializing_if = "is_false")]
    pub indent: bool,
    /// Blank lines stand between records.
    #[serde(skip_serializing_if = "is_false")]
    pub blank_line: bool,
    /// A longer record arrives as numbered segments of at most this many bytes.
    pub max_bytes: ByteSize,
    /// A record that nothing is added to for so long is taken as it is.
    pub flush: Period,
}

impl Default for MultilineConfig {
    fn default() -> Self {
        Self {
            start: None,
            goes_on: None,
            end: None,
            indent: false,
            blank_line: false,
            max_bytes: ByteSize::kib(16),
            flush: Period::seconds(1),
        }
    }
}

/// Exactly one of these is written.
const RULES: [&str; 5] = ["start", "continue", "end", "indent", "blank_line"];

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// What an event keeps of a record.
fn most_bytes() -> ByteSize {
    ByteSize::from_bytes(custody_event::MAX_RAW_BYTES as u64)
}

pub(super) fn read(item: &mut Section<'_>) -> FileSourceConfig {
    let base = FileSourceConfig::default();
    let (join, join_timeout) = redact::join(item);
    let config = FileSourceConfig {
        id: need_id(item).unwrap_or(base.id),
        paths: paths(item),
        exclude: item.texts("exclude").unwrap_or(base.exclude),
        start: item
            .choice("start", &[("beginning", Start::Beginning), ("end", Start::End)])
            .unwrap_or(base.start),
        packs: packs(item).unwrap_or(base.packs),
        timezone: item.parsed("timezone", zone).map_or(base.timezone, Located::into_inner),
        encoding: item.choice("encoding", &ENCODINGS).unwrap_or(base.encoding),
        max_line_bytes: item
            .size("max_line_bytes", ByteSize::from_bytes(256)..=most_bytes())
            .unwrap_or(base.max_line_bytes),
        multiline: item.optional_section("multiline").map(multiline),
        scan_interval: item
            .period("scan_interval", Period::from_millis(50)..=Period::seconds(3600))
            .unwrap_or(base.scan_interval),
        poll: item.boolean("poll").unwrap_or(base.poll),
        max_open_files: item.number("max_open_files", 1..=1_000_000).unwrap_or(base.max_open_files),
        join,
        join_timeout,
        redact: redact::redact(item),
    };
    let is_plain = config.multiline.is_none() && config.encoding == TextEncoding::Utf8;
    if config.join != Join::None && !is_plain {
        item.reader().problem(config.id.problem(
            "`join` goes with neither `multiline` nor `encoding`",
            "keep one; auditd writes a record a line",
        ));
    }
    config
}

fn multiline(mut section: Section<'_>) -> MultilineConfig {
    let base = MultilineConfig::default();
    let named = RULES.into_iter().filter(|rule| section.has(rule)).count();
    let is_switch = section.has("indent") || section.has("blank_line");
    let config = MultilineConfig {
        start: section.parsed("start", pattern),
        goes_on: section.parsed("continue", pattern),
        end: section.parsed("end", pattern),
        indent: section.boolean("indent").unwrap_or(base.indent),
        blank_line: section.boolean("blank_line").unwrap_or(base.blank_line),
        max_bytes: section
            .size("max_bytes", ByteSize::kib(1)..=most_bytes())
            .unwrap_or(base.max_bytes),
        flush: section
            .period("flush", Period::from_millis(10)..=Period::seconds(3600))
            .unwrap_or(base.flush),
    };
    let hint =
        "write one of: start, continue, end (a pattern each), indent: true, blank_line: true";
    if named != 1 {
        let what = match named {
            0 => "`sources[].multiline` does not say which lines belong together",
            _ => "`sources[].multiline` says in several ways which lines belong together",
        };
        section.reader().at(section.spot(), what, hint);
    } else if is_switch && !config.indent && !config.blank_line {
        let what = "`sources[].multiline` does not say which lines belong together";
        section.reader().at(section.spot(), what, hint);
    }
    section.finish();
    config
}

fn pattern(text: &str) -> Result<String, UnitError> {
    Regex::new(text).map(|_| text.to_owned()).map_err(|error| {
        // The error shows the pattern with a mark below it; its last line says what is wrong.
        let said = error.to_string();
        let last = said.lines().last().unwrap_or_default().trim_start_matches("error: ");
        UnitError {
            what: format!("`{}` is not a pattern: {last}", text.escape_debug()),
            hint: "write a regular expression in single quotes, such as '^[0-9]{4}-'".to_owned(),
        }
    })
}

fn paths(item: &mut Section<'_>) -> Vec<Located<String>> {
    let Some((spot, nodes)) = item.list_or_missing("paths") else { return Vec::new() };
    if nodes.is_empty() {
        item.reader().at(spot, "`sources[].paths` is empty", "name at least one file or pattern");
    }
    let texts: Vec<_> =
        nodes.into_iter().filter_map(|node| item.item_text("paths", node)).collect();
    texts
        .into_iter()
        .filter_map(|text| {
            item.read_located("paths", text, |text| common::absolute(text).map(|_| text.to_owned()))
        })
        .collect()
}
