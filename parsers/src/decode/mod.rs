//! Decoders: they take an envelope off a record and leave a message and named fields.
//!
//! A pack names a chain of them; each decodes the message that the one before it left. The enum is
//! closed: adding a decoder is one file, one variant, and what the compiler then asks for.
//!
//! All decoders but `syslog` leave the message as it is and write what they find onto a tape
//! ([`json::Tape`], through [`build::Builder`]): an object of texts, which rules name by
//! `$<decoder>.<path>`.
//!
//! **Limits.** At most [`build::MAX_FIELDS`] fields with keys of at most [`build::MAX_KEY_BYTES`];
//! what is more is refused, and the record stays whole as one that no rule knows. A decoder never
//! fails otherwise and never panics, whatever the text is.

use std::borrow::Cow;
use std::sync::Arc;

pub(crate) mod auditd;
pub(crate) mod build;
pub(crate) mod cef;
pub(crate) mod csv;
mod fan;
pub(crate) mod json;
pub(crate) mod kv;
pub(crate) mod leef;
pub(crate) mod logfmt;
mod syscalls;
pub(crate) mod syslog;
pub(crate) mod xml;

use crate::hostnames::HostNames;
use crate::prose;
use json::Tape;

/// One link of a pack's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) decoder: Decoder,
    /// Written with `?`: where the record is not of this form, the message stays as it is.
    pub(crate) optional: bool,
}

/// The decoders there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decoder {
    /// One record of the Linux audit system.
    Auditd,
    /// ArcSight's Common Event Format.
    Cef,
    /// One row of separated values, its columns named by the pack.
    Csv(Arc<csv::Settings>),
    /// One JSON object.
    Json,
    /// Keys and values with separators that the pack names.
    Kv(Arc<kv::Settings>),
    /// QRadar's Log Event Extended Format.
    Leef,
    /// `key=value key="a value"`.
    Logfmt,
    /// A sentence of who did what from where.
    Prose,
    /// RFC 3164 or RFC 5424.
    Syslog,
    /// One XML element.
    Xml,
}

impl Decoder {
    /// Names as packs write them.
    pub(crate) const NAMES: &'static [&'static str] =
        &["auditd", "cef", "csv", "json", "kv", "leef", "logfmt", "none", "prose", "syslog", "xml"];

    /// The decoder of this name; those with settings have their defaults.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "auditd" => Self::Auditd,
            "cef" => Self::Cef,
            "csv" => Self::Csv(Arc::default()),
            "json" => Self::Json,
            "kv" => Self::Kv(Arc::default()),
            "leef" => Self::Leef,
            "logfmt" => Self::Logfmt,
            "prose" => Self::Prose,
            "syslog" => Self::Syslog,
            "xml" => Self::Xml,
            _ => return None,
        })
    }

    /// Its name; rules name its fields by it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Auditd => "auditd",
            Self::Cef => "cef",
            Self::Csv(_) => "csv",
            Self::Json => "json",
            Self::Kv(_) => "kv",
            Self::Leef => "leef",
            Self::Logfmt => "logfmt",
            Self::Prose => "prose",
            Self::Syslog => "syslog",
            Self::Xml => "xml",
        }
    }

    /// Does it write fields to a tape?
    pub(crate) fn gives_fields(&self) -> bool {
        *self != Self::Syslog
    }

    /// The part of a message that its tape is of.
    pub(crate) fn part<'t>(&self, message: &'t str) -> &'t str {
        match self {
            Self::Json => message.trim_start().strip_prefix("@cee:").unwrap_or(message),
            _ => message,
        }
    }

    /// Writes the fields of a text (see [`Decoder::part`]) to the tape; an error says why the text
    /// is not of its form.
    pub(crate) fn read(
        &self,
        text: &str,
        host: &HostNames,
        tape: &mut Tape,
    ) -> Result<(), &'static str> {
        match self {
            Self::Auditd => auditd::read(text, host, tape),
            Self::Cef => cef::read(text, tape),
            Self::Csv(settings) => csv::read(text, settings, tape),
            Self::Json => tape.read(text),
            Self::Kv(settings) => kv::read(text, settings, tape),
            Self::Leef => leef::read(text, tape),
            Self::Logfmt => logfmt::read(text, tape),
            Self::Prose => prose::read(text, tape),
            Self::Syslog => Ok(()),
            Self::Xml => xml::read(text, tape),
        }
    }
}

/// Resolves escapes: `resolve` is given what follows a backslash, and gives the character that is meant
/// and the rest; where it gives none, the backslash stays.
fn unescape(
    text: &str,
    resolve: impl for<'a> Fn(&'a str) -> Option<(char, &'a str)>,
) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let (sign, left) = resolve(after).unwrap_or(('\\', after));
        out.push(sign);
        rest = left;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// What tests of decoders share.
#[cfg(test)]
pub(crate) mod testing {
    use super::json::Tape;
    use custody_event::Detail;
    use serde_json::Value;

    pub(crate) fn to_json(detail: &Detail<'_>) -> Value {
        match detail {
            Detail::Null => Value::Null,
            Detail::Bool(value) => Value::Bool(*value),
            Detail::Int(value) => Value::from(*value),
            Detail::Text(text) => Value::from(text.as_ref()),
            Detail::List(items) => Value::Array(items.iter().map(to_json).collect()),
            Detail::Map(entries) => Value::Object(
                entries.iter().map(|(key, value)| (key.to_string(), to_json(value))).collect(),
            ),
        }
    }

    /// All that a decoder found, or why it refused.
    pub(crate) fn fields(
        text: &str,
        read: impl FnOnce(&str, &mut Tape) -> Result<(), &'static str>,
    ) -> Result<Value, &'static str> {
        let mut tape = Tape::default();
        read(text, &mut tape)?;
        Ok(to_json(&tape.detail(0, text, false)))
    }
}
