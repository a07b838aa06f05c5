//! Decoders: they take an envelope off a record and leave a message and named fields.
//!
//! A pack names a chain of them; each decodes the message that the one before it left. The enum is
//! closed: adding a decoder is one file, one variant, and what the compiler then asks for.

pub(crate) mod json;
pub(crate) mod syslog;

/// One link of a pack's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Step {
    pub(crate) decoder: Decoder,
    /// Written with `?`: where the record is not of this form, the message stays as it is.
    pub(crate) optional: bool,
}

/// The decoders there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Decoder {
    /// RFC 3164 or RFC 5424.
    Syslog,
    /// One JSON object.
    Json,
}

impl Decoder {
    /// Names as packs write them.
    pub(crate) const NAMES: &'static [&'static str] = &["json", "none", "syslog"];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "syslog" => Some(Self::Syslog),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}
