//! The keys of a search: what may stand before the colon, and what a parameter may be called.
//!
//! Beside the keys of [`KEYS`] there are addresses ([`IP`]), numbers ([`NUMBERS`]), values at a path
//! ([`FIELDS`], and everything that begins with `details.`) and times ([`TIMES`]). Usual other words
//! for a key or for one of its values are understood ([`Named::of`], [`usual_value`]).

use custody_event::taxonomy;

use crate::index::Facet;
use crate::index::terms::{self, Tag};

/// A key of the search line, also a parameter of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// Under which tags its values stand; any of them will do.
    pub tags: &'static [Tag],
    /// For people.
    pub about: &'static str,
}

/// All keys but `ip`, which takes networks.
pub const KEYS: &[Key] = &[
    Key {
        name: "actor",
        tags: &[Tag::ActorName, Tag::ActorId, Tag::ActorDisplay],
        about: "who acted: name, e-mail, id or display name",
    },
    Key {
        name: "action",
        tags: &[Tag::Action],
        about: "what was done, as in authentication.login",
    },
    Key { name: "op", tags: &[Tag::Op], about: "create, read, update, delete, login, export …" },
    Key { name: "category", tags: &[Tag::Category], about: "authentication, data, export …" },
    Key { name: "outcome", tags: &[Tag::Outcome], about: "success, failure, denied, pending" },
    Key { name: "severity", tags: &[Tag::Severity], about: "info, low, medium, high, critical" },
    Key {
        name: "target",
        tags: &[Tag::TargetName, Tag::TargetId, Tag::TargetType, Tag::TargetParent],
        about: "what was acted on: type, id, name or parent",
    },
    Key { name: "target.type", tags: &[Tag::TargetType], about: "the target's type" },
    Key { name: "target.id", tags: &[Tag::TargetId], about: "the target's id" },
    Key { name: "target.name", tags: &[Tag::TargetName], about: "the target's name" },
    Key { name: "target.parent", tags: &[Tag::TargetParent], about: "what the target belongs to" },
    Key { name: "host", tags: &[Tag::Host], about: "the machine that said it" },
    Key { name: "service", tags: &[Tag::Service], about: "the program that said it" },
    Key { name: "session", tags: &[Tag::Session], about: "the session's id" },
    Key { name: "method", tags: &[Tag::Method], about: "password, totp, sso, publickey …" },
    Key { name: "role", tags: &[Tag::Role], about: "a role of the actor" },
    Key { name: "team", tags: &[Tag::Team], about: "a team of the actor" },
    Key { name: "actor.name", tags: &[Tag::ActorName], about: "the actor's name or e-mail" },
    Key { name: "actor.id", tags: &[Tag::ActorId], about: "the actor's id" },
    Key { name: "actor.display", tags: &[Tag::ActorDisplay], about: "the actor's display name" },
    Key { name: "actor.type", tags: &[Tag::ActorType], about: "user, service, agent, system" },
    Key { name: "behalf_of", tags: &[Tag::BehalfOf], about: "for whom the actor acted" },
    Key { name: "tenant", tags: &[Tag::Tenant], about: "the organisation" },
    Key { name: "tag", tags: &[Tag::Tags], about: "a tag" },
    Key { name: "reason", tags: &[Tag::Reason], about: "why it ended so: code or text" },
    Key { name: "field", tags: &[Tag::ChangedField], about: "a field that was changed" },
    Key { name: "event", tags: &[Tag::EventName], about: "the source's own name of the event" },
    Key { name: "path", tags: &[Tag::Path], about: "the file, unit or endpoint it came from" },
    Key { name: "pack", tags: &[Tag::Pack], about: "the rule pack" },
    Key { name: "rule", tags: &[Tag::Rule], about: "the pack's rule" },
    Key { name: "input", tags: &[Tag::Input], about: "the agent's source" },
    Key { name: "agent", tags: &[Tag::Agent], about: "the agent" },
    Key { name: "from_host", tags: &[Tag::SourceHost], about: "the host name it came from" },
    Key { name: "country", tags: &[Tag::Country], about: "the country it came from" },
    Key { name: "trace", tags: &[Tag::Trace], about: "a trace, span or request id" },
];

/// The key that takes addresses and networks.
pub const IP: &str = "ip";

/// Keys of numbers: name, path, and what it is.
pub const NUMBERS: &[(&str, &str, &str)] = &[
    ("attempts", "attempts", "attempts that the record reports"),
    ("records", "data.records", "records that were exported, imported or changed"),
    ("bytes", "data.bytes", "bytes that were exported or sent"),
    ("port", "source.port", "the port it came from"),
    ("duration_ms", "session.duration_ms", "how long the session lasted, in milliseconds"),
];

/// Keys of values at a path: name, path, and what it is.
pub const FIELDS: &[(&str, &str, &str)] = &[
    ("provider", "session.provider", "the identity provider"),
    ("mfa", "session.mfa", "true where a second factor was shown, false where not"),
    ("device", "source.device.name", "the device"),
    ("device_id", "source.device.id", "the device's id"),
    ("os", "source.device.os", "the device's operating system"),
    ("browser", "source.device.browser", "the browser"),
    ("city", "source.location.city", "the city it came from"),
    ("region", "source.location.region", "the region it came from"),
    ("before", "changes.before", "a value before a change"),
    ("after", "changes.after", "a value after a change"),
    ("justification", "justification", "the business reason that was given"),
    ("irreversible", "irreversible", "true where it cannot be undone"),
    ("data.format", "data.format", "csv, json, pdf … of an export or report"),
    ("data.name", "data.name", "the name of an export or report"),
    ("data.fields", "data.fields", "a field that an export held"),
    ("data.from", "data.from", "the beginning of the period that an export covers"),
    ("data.to", "data.to", "the end of the period that an export covers"),
    ("data.via", "data.via", "how: manual import, api …"),
    ("verdict", "origin.verdict", "what became of a webhook's signature"),
    ("time_basis", "time_basis", "record, year_inferred, zone_assumed, received"),
];

/// Keys of times. They bound the whole search.
pub const TIMES: &[(&str, &str)] = &[
    ("from", "events at or after this time: 24h, today, 2026-01-31, 2026-01-31T08:00:00Z"),
    ("to", "events before this time"),
    ("period", "24h, 7d, 30d, today, yesterday, this_month, 2026-01, 2026-01-01..2026-01-31"),
    ("tz", "the time zone of local dates: Europe/Berlin; UTC without it"),
];

/// All fields of `details` begin so.
pub const DETAILS: &str = "details.";

/// What a name before the colon stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A key.
    Key(&'static Key),
    /// Addresses and networks.
    Ip,
    /// A number at this path.
    Number(&'static str),
    /// A value at this path; folded.
    Field(String),
    /// `from`, `to`, `period` or `tz`.
    Time(&'static str),
}

impl Named {
    /// What this name, in lower case, stands for.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        if name == IP || name == "source.ip" || name == "ip_address" || name == "cidr" {
            return Some(Self::Ip);
        }
        if let Some(key) = Key::from_name(name) {
            return Some(Self::Key(key));
        }
        if let Some((name, _)) = TIMES.iter().find(|(time, _)| *time == name) {
            return Some(Self::Time(name));
        }
        let named = |(short, path, _): &&(&str, &str, &str)| *short == name || *path == name;
        if let Some((_, path, _)) = NUMBERS.iter().find(named) {
            return Some(Self::Number(path));
        }
        if let Some((_, path, _)) = FIELDS.iter().find(named) {
            return Some(Self::Field((*path).to_owned()));
        }
        let at = name.strip_prefix(DETAILS).filter(|rest| !rest.is_empty())?;
        Some(Self::Field(terms::folded_path(&format!("{DETAILS}{at}"))))
    }

    /// Where its values stand, to be counted or suggested; `None` for addresses, numbers, times.
    #[must_use]
    pub fn facets(&self) -> Option<Vec<Facet>> {
        match self {
            Self::Key(key) => Some(key.tags.iter().map(|tag| Facet::Tag(*tag)).collect()),
            Self::Field(path) => Some(vec![Facet::Field(path.clone())]),
            Self::Ip | Self::Number(_) | Self::Time(_) => None,
        }
    }
}

/// Names of all keys, each with what it is: first the addresses, then in the order of the tables.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let ip = (IP, "the address it came from: an address or a network, IPv4 or IPv6");
    std::iter::once(ip)
        .chain(KEYS.iter().map(|key| (key.name, key.about)))
        .chain(NUMBERS.iter().chain(FIELDS).map(|(name, _, about)| (*name, *about)))
}

impl Key {
    /// The key of this name, or of another usual word for it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<&'static Self> {
        let name = match name {
            "user" | "username" | "email" | "who" => "actor",
            "result" | "status" => "outcome",
            "resource" | "object" | "entity" => "target",
            "resource.type" | "target_type" | "entity_type" => "target.type",
            "resource.id" | "target_id" => "target.id",
            "resource.name" | "target_name" => "target.name",
            "action_type" | "operation" => "op",
            "tags" => "tag",
            "session.id" | "session_id" => "session",
            "session.methods" | "login_method" => "method",
            "event_name" | "origin.event_name" => "event",
            "actor.role" | "actor.roles" | "roles" => "role",
            "actor.team" | "actor.teams" | "teams" | "group" => "team",
            "organisation" | "organization" | "org" => "tenant",
            "reason.code" | "reason.text" => "reason",
            "changed" | "changes.field" => "field",
            "program" | "app" => "service",
            "source.host" => "from_host",
            "source.location.country" => "country",
            other => other,
        };
        KEYS.iter().find(|key| key.name == name)
    }

    /// All values that there can be, where the event's format closes the list.
    #[must_use]
    pub fn closed(&self) -> Option<&'static [&'static str]> {
        match self.name {
            "category" => Some(taxonomy::CATEGORIES),
            "op" => Some(taxonomy::OPS),
            "outcome" => Some(taxonomy::OUTCOMES),
            "severity" => Some(taxonomy::SEVERITIES),
            "actor.type" => Some(taxonomy::ACTOR_TYPES),
            "method" => Some(taxonomy::METHODS),
            _ => None,
        }
    }
}

/// Severities, the least first.
pub const RISING: &[&str] = &["info", "low", "medium", "high", "critical"];

/// What the event calls a value that people call otherwise. The value is folded.
#[must_use]
pub fn usual_value<'a>(key: &Key, value: &'a str) -> &'a str {
    match (key.name, value) {
        ("outcome", "failed" | "fail" | "error" | "unsuccessful") => "failure",
        ("outcome", "ok" | "succeeded" | "successful") => "success",
        ("outcome", "refused" | "blocked" | "forbidden") => "denied",
        ("category", "auth" | "login" | "logins") => "authentication",
        ("category", "settings" | "setting" | "config") => "configuration",
        ("category", "exports") => "export",
        ("category", "permissions" | "rbac" | "role" | "roles") => "permission",
        ("category", "accounts" | "users" | "user") => "account",
        ("category", "integrations") => "integration",
        ("category", "sessions") => "session",
        ("category", "data changes" | "data_changes") => "data",
        ("op", "created" | "added" | "add") => "create",
        ("op", "viewed" | "view" | "accessed") => "read",
        ("op", "updated" | "edit" | "edited" | "changed" | "modified") => "update",
        ("op", "deleted" | "removed" | "remove") => "delete",
        ("op", "exported") => "export",
        ("op", "imported") => "import",
        ("op", "downloaded") => "download",
        ("severity", "informational") => "info",
        ("severity", "warning" | "moderate") => "medium",
        ("actor.type", "human" | "person") => "user",
        ("method", "2fa" | "otp") => "totp",
        _ => value,
    }
}

/// The keys' names, for an error's hint.
#[must_use]
pub fn names() -> String {
    let mut out = String::new();
    for (name, _) in all() {
        out.push_str(name);
        out.push_str(", ");
    }
    out.push_str("from, to, period, tz, details.…");
    out
}
