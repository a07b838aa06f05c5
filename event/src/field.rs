//! Every field of the event, once, in canonical order.
//!
//! The order is the order of RFC 8785: keys of one object sorted by their code units, objects
//! nested in place. The table below is the whole schema; [`crate::draft`] walks it to write,
//! [`crate::canon`] to check, and the parsers crate to resolve the names that packs use.

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// An integer within ±(2^53 − 1).
    Int,
    /// `true` or `false`.
    Bool,
    /// A list of texts.
    Texts,
    /// `targets`: a list of objects.
    Targets,
    /// `changes`: a list of objects.
    Changes,
    /// `details`: a free map.
    Details,
}

/// An object that holds fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Keys of the objects around the field, outermost first.
    pub(crate) parents: &'static [&'static str],
    /// The field's own key.
    pub(crate) key: &'static str,
    /// `,"key":`, ready to be written; without the comma where it is an object's first.
    pub(crate) label: &'static str,
}

macro_rules! fields {
    ($( $variant:ident = $path:literal [$($parent:literal),*] $key:literal $kind:ident; )*) => {
        /// A field of the event. The order of the variants is the canonical order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each is named by its path, and the design names their meaning")]
        pub enum Field { $( $variant, )* }

        impl Field {
            /// All fields in canonical order.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The dotted path: `actor.name`.
            #[must_use]
            pub const fn path(self) -> &'static str {
                match self { $( Self::$variant => $path, )* }
            }

            /// What it holds.
            #[must_use]
            pub const fn kind(self) -> Kind {
                const KINDS: [Kind; Field::ALL.len()] = [ $( Kind::$kind, )* ];
                KINDS[self as usize]
            }

            pub(crate) const fn place(self) -> &'static Place {
                static PLACES: [Place; Field::ALL.len()] = [ $( Place {
                    parents: &[$($parent),*],
                    key: $key,
                    label: concat!(",\"", $key, "\":"),
                }, )* ];
                &PLACES[self as usize]
            }

            /// The field with this path, if there is one.
            #[must_use]
            pub fn from_path(path: &str) -> Option<Self> {
                match path { $( $path => Some(Self::$variant), )* _ => None }
            }
        }
    };
}

fields! {
    Action = "action" [] "action" Text;
    BehalfDisplay = "actor.behalf_of.display" ["actor", "behalf_of"] "display" Text;
    BehalfId = "actor.behalf_of.id" ["actor", "behalf_of"] "id" Text;
    BehalfName = "actor.behalf_of.name" ["actor", "behalf_of"] "name" Text;
    BehalfRoles = "actor.behalf_of.roles" ["actor", "behalf_of"] "roles" Texts;
    BehalfTeams = "actor.behalf_of.teams" ["actor", "behalf_of"] "teams" Texts;
    BehalfType = "actor.behalf_of.type" ["actor", "behalf_of"] "type" Text;
    ActorDisplay = "actor.display" ["actor"] "display" Text;
    ActorId = "actor.id" ["actor"] "id" Text;
    ActorName = "actor.name" ["actor"] "name" Text;
    ActorRoles = "actor.roles" ["actor"] "roles" Texts;
    ActorTeams = "actor.teams" ["actor"] "teams" Texts;
    ActorType = "actor.type" ["actor"] "type" Text;
    Attempts = "attempts" [] "attempts" Int;
    Category = "category" [] "category" Text;
    Changes = "changes" [] "changes" Changes;
    DataBytes = "data.bytes" ["data"] "bytes" Int;
    DataFields = "data.fields" ["data"] "fields" Texts;
    DataFormat = "data.format" ["data"] "format" Text;
    DataFrom = "data.from" ["data"] "from" Text;
    DataName = "data.name" ["data"] "name" Text;
    DataRecords = "data.records" ["data"] "records" Int;
    DataTo = "data.to" ["data"] "to" Text;
    DataVia = "data.via" ["data"] "via" Text;
    Details = "details" [] "details" Details;
    Host = "host" [] "host" Text;
    Id = "id" [] "id" Text;
    Irreversible = "irreversible" [] "irreversible" Bool;
    Justification = "justification" [] "justification" Text;
    Message = "message" [] "message" Text;
    Observed = "observed" [] "observed" Text;
    Op = "op" [] "op" Text;
    OriginAgent = "origin.agent" ["origin"] "agent" Text;
    OriginCursor = "origin.cursor" ["origin"] "cursor" Text;
    OriginEncoding = "origin.encoding" ["origin"] "encoding" Text;
    OriginEndpoint = "origin.endpoint" ["origin"] "endpoint" Text;
    OriginEventName = "origin.event_name" ["origin"] "event_name" Text;
    OriginInput = "origin.input" ["origin"] "input" Text;
    OriginOffset = "origin.offset" ["origin"] "offset" Int;
    OriginPack = "origin.pack" ["origin"] "pack" Text;
    OriginPackVersion = "origin.pack_version" ["origin"] "pack_version" Int;
    OriginPath = "origin.path" ["origin"] "path" Text;
    OriginRaw = "origin.raw" ["origin"] "raw" Text;
    OriginRawBase64 = "origin.raw_base64" ["origin"] "raw_base64" Text;
    OriginRawSha256 = "origin.raw_sha256" ["origin"] "raw_sha256" Text;
    OriginReason = "origin.reason" ["origin"] "reason" Text;
    OriginRule = "origin.rule" ["origin"] "rule" Text;
    OriginSegment = "origin.segment" ["origin"] "segment" Int;
    OriginUnit = "origin.unit" ["origin"] "unit" Text;
    OriginVerdict = "origin.verdict" ["origin"] "verdict" Text;
    Outcome = "outcome" [] "outcome" Text;
    ReasonCode = "reason.code" ["reason"] "code" Text;
    ReasonText = "reason.text" ["reason"] "text" Text;
    Service = "service" [] "service" Text;
    SessionDurationMs = "session.duration_ms" ["session"] "duration_ms" Int;
    SessionId = "session.id" ["session"] "id" Text;
    SessionMethods = "session.methods" ["session"] "methods" Texts;
    SessionMfa = "session.mfa" ["session"] "mfa" Bool;
    SessionProvider = "session.provider" ["session"] "provider" Text;
    Severity = "severity" [] "severity" Text;
    DeviceBrowser = "source.device.browser" ["source", "device"] "browser" Text;
    DeviceId = "source.device.id" ["source", "device"] "id" Text;
    DeviceName = "source.device.name" ["source", "device"] "name" Text;
    DeviceOs = "source.device.os" ["source", "device"] "os" Text;
    SourceHost = "source.host" ["source"] "host" Text;
    SourceIp = "source.ip" ["source"] "ip" Text;
    LocationCity = "source.location.city" ["source", "location"] "city" Text;
    LocationCountry = "source.location.country" ["source", "location"] "country" Text;
    LocationRegion = "source.location.region" ["source", "location"] "region" Text;
    SourcePort = "source.port" ["source"] "port" Int;
    SourceUserAgent = "source.user_agent" ["source"] "user_agent" Text;
    Tags = "tags" [] "tags" Texts;
    Targets = "targets" [] "targets" Targets;
    Tenant = "tenant" [] "tenant" Text;
    Time = "time" [] "time" Text;
    TimeBasis = "time_basis" [] "time_basis" Text;
    TraceRequestId = "trace.request_id" ["trace"] "request_id" Text;
    TraceSpanId = "trace.span_id" ["trace"] "span_id" Text;
    TraceTraceId = "trace.trace_id" ["trace"] "trace_id" Text;
    Version = "v" [] "v" Int;
}

impl Field {
    /// The field's place in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_canonical_order_and_its_paths_are_its_places() {
        let paths: Vec<Vec<&str>> =
            Field::ALL.iter().map(|field| field.path().split('.').collect()).collect();
        assert!(paths.is_sorted(), "{paths:#?}");
        for field in Field::ALL {
            let place = field.place();
            let mut path = place.parents.to_vec();
            path.push(place.key);
            assert_eq!(path.join("."), field.path());
            assert_eq!(Field::from_path(field.path()), Some(*field));
            assert_eq!(Field::ALL[field.index()], *field);
        }
        assert!(Field::ALL.len() <= 128, "presence is kept in a u128");
    }
}
