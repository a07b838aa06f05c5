//! An event read back: the same fields as [`crate::field`], borrowed from the event's bytes.

use std::borrow::Cow;

use serde::Deserialize;

use crate::ids::EventId;
use crate::time::Timestamp;

type Text<'a> = Option<Cow<'a, str>>;

/// A canonical event, borrowed from its bytes. Absent fields are `None` or empty.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are those of the table in `field`, named by the design")]
pub struct EventView<'a> {
    #[serde(borrow, default)]
    pub action: Text<'a>,
    #[serde(borrow, default)]
    pub actor: ActorView<'a>,
    #[serde(default)]
    pub attempts: Option<i64>,
    #[serde(borrow, default)]
    pub category: Text<'a>,
    #[serde(borrow, default)]
    pub changes: Vec<ChangeView<'a>>,
    #[serde(borrow, default)]
    pub data: DataView<'a>,
    #[serde(borrow, default)]
    pub details: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow, default)]
    pub host: Text<'a>,
    pub id: EventId,
    #[serde(default)]
    pub irreversible: bool,
    #[serde(borrow, default)]
    pub justification: Text<'a>,
    #[serde(borrow, default)]
    pub message: Text<'a>,
    pub observed: Timestamp,
    #[serde(borrow, default)]
    pub op: Text<'a>,
    #[serde(borrow)]
    pub origin: OriginView<'a>,
    #[serde(borrow, default)]
    pub outcome: Text<'a>,
    #[serde(borrow, default)]
    pub reason: ReasonView<'a>,
    #[serde(borrow, default)]
    pub service: Text<'a>,
    #[serde(borrow, default)]
    pub session: SessionView<'a>,
    #[serde(borrow, default)]
    pub severity: Text<'a>,
    #[serde(borrow, default)]
    pub source: SourceView<'a>,
    #[serde(borrow, default)]
    pub tags: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub targets: Vec<TargetView<'a>>,
    #[serde(borrow, default)]
    pub tenant: Text<'a>,
    pub time: Timestamp,
    #[serde(borrow, default)]
    pub time_basis: Text<'a>,
    #[serde(borrow, default)]
    pub trace: TraceView<'a>,
    pub v: u32,
}

/// `actor`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named by the design")]
pub struct ActorView<'a> {
    #[serde(borrow)]
    pub behalf_of: Option<Box<ActorView<'a>>>,
    #[serde(borrow)]
    pub display: Text<'a>,
    #[serde(borrow)]
    pub id: Text<'a>,
    #[serde(borrow)]
    pub name: Text<'a>,
    #[serde(borrow)]
    pub roles: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    pub teams: Vec<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
}

/// One of `changes`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "named by the design")]
pub struct ChangeView<'a> {
    #[serde(borrow, default)]
    pub after: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow, default)]
    pub before: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    pub field: Cow<'a, str>,
    #[serde(default)]
    pub masked: bool,
}

/// `data`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named by the design")]
pub struct DataView<'a> {
    pub bytes: Option<i64>,
    #[serde(borrow)]
    pub fields: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    pub format: Text<'a>,
    #[serde(borrow)]
    pub from: Text<'a>,
    #[serde(borrow)]
    pub name: Text<'a>,
    pub records: Option<i64>,
    #[serde(borrow)]
    pub to: Text<'a>,
    #[serde(borrow)]
    pub via: Text<'a>,
}

/// `origin`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named by the design")]
pub struct OriginView<'a> {
    #[serde(borrow)]
    pub agent: Text<'a>,
    #[serde(borrow)]
    pub cursor: Text<'a>,
    #[serde(borrow)]
    pub encoding: Text<'a>,
    #[serde(borrow)]
    pub endpoint: Text<'a>,
    #[serde(borrow)]
    pub event_name: Text<'a>,
    #[serde(borrow)]
    pub input: Text<'a>,
    pub offset: Option<u64>,
    #[serde(borrow)]
    pub pack: Text<'a>,
    pub pack_version: Option<i64>,
    #[serde(borrow)]
    pub path: Text<'a>,
    #[serde(borrow)]
    pub raw: Text<'a>,
    #[serde(borrow)]
    pub raw_base64: Text<'a>,
    #[serde(borrow)]
    pub raw_sha256: Text<'a>,
    #[serde(borrow)]
    pub reason: Text<'a>,
    #[serde(borrow)]
    pub rule: Text<'a>,
    pub segment: Option<i64>,
    #[serde(borrow)]
    pub unit: Text<'a>,
    #[serde(borrow)]
    pub verdict: Text<'a>,
}

/// `reason`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named by the design")]
pub struct ReasonView<'a> {
    #[serde(borrow)]
    pub code: Text<'a>,
    #[serde(borrow)]
    pub text: Text<'a>,
}

/// `session`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named by the design")]
pub struct SessionView<'a> {
    pub duration_ms: Option<i64>,
    #[serde(borrow)]
    pub id: Text<'a>,
    #[serde(borrow)]
    pub methods: Vec<Cow<'a, str>>,
    pub mfa: Option<bool>,
    #[serde(borrow)]
    pub provider: Text<'a>,
}

/// `source`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named by the design")]
pub struct SourceView<'a> {
    #[serde(borrow)]
    pub device: DeviceView<'a>,
    #[serde(borrow)]
    pub host: Text<'a>,
    #[serde(borrow)]
    pub ip: Text<'a>,
    #[serde(borrow)]
    pub location: LocationView<'a>,
    pub port: Option<i64>,
    #[serde(borrow)]
    pub user_agent: Text<'a>,
}

/// `source.device`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named by the design")]
pub struct DeviceView<'a> {
    #[serde(borrow)]
    pub browser: Text<'a>,
    #[serde(borrow)]
    pub id: Text<'a>,
    #[serde(borrow)]
    pub name: Text<'a>,
    #[serde(borrow)]
    pub os: Text<'a>,
}

/// `source.location`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named by the design")]
pub struct LocationView<'a> {
    #[serde(borrow)]
    pub city: Text<'a>,
    #[serde(borrow)]
    pub country: Text<'a>,
    #[serde(borrow)]
    pub region: Text<'a>,
}

/// One of `targets`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named by the design")]
pub struct TargetView<'a> {
    #[serde(borrow)]
    pub id: Text<'a>,
    #[serde(borrow)]
    pub name: Text<'a>,
    #[serde(borrow)]
    pub parent: Text<'a>,
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
}

/// `trace`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named by the design")]
pub struct TraceView<'a> {
    #[serde(borrow)]
    pub request_id: Text<'a>,
    #[serde(borrow)]
    pub span_id: Text<'a>,
    #[serde(borrow)]
    pub trace_id: Text<'a>,
}

/// Why an event could not be read.
#[derive(Debug, thiserror::Error)]
#[error("not an event of version 1: {0}")]
pub struct BadEvent(String);

impl<'a> EventView<'a> {
    /// Reads one event. Unknown fields are refused: version 1 has none.
    ///
    /// # Errors
    /// Not JSON, an unknown field, a wrong type, a missing `id`, `time`, `observed` or `origin`,
    /// or another version.
    pub fn read(event: &'a [u8]) -> Result<Self, BadEvent> {
        let view: Self =
            serde_json::from_slice(event).map_err(|error| BadEvent(error.to_string()))?;
        if view.v != 1 {
            return Err(BadEvent(format!("its version is {}", view.v)));
        }
        Ok(view)
    }

    /// SHA-256 of the record, where the event says it.
    #[must_use]
    pub fn record_hash(&self) -> Option<crate::ids::Digest> {
        self.origin.raw_sha256.as_deref().and_then(|text| text.parse().ok())
    }
}
