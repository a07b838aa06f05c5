//! The keys of a search: what may stand before the colon.

use crate::index::terms::Tag;

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
    Key { name: "host", tags: &[Tag::Host], about: "the machine that said it" },
    Key { name: "service", tags: &[Tag::Service], about: "the program that said it" },
    Key { name: "session", tags: &[Tag::Session], about: "the session's id" },
    Key { name: "method", tags: &[Tag::Method], about: "password, totp, sso, publickey …" },
    Key { name: "role", tags: &[Tag::Role], about: "a role of the actor" },
    Key { name: "team", tags: &[Tag::Team], about: "a team of the actor" },
    Key { name: "actor.type", tags: &[Tag::ActorType], about: "user, service, agent, system" },
    Key { name: "behalf_of", tags: &[Tag::BehalfOf], about: "for whom the actor acted" },
    Key { name: "tenant", tags: &[Tag::Tenant], about: "the organisation" },
    Key { name: "tag", tags: &[Tag::Tags], about: "a tag" },
    Key { name: "reason", tags: &[Tag::Reason], about: "the code of the outcome's reason" },
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

impl Key {
    /// The key of this name, or of another usual word for it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<&'static Self> {
        let name = match name {
            "user" | "username" | "email" | "actor.name" | "actor.id" => "actor",
            "result" | "status" => "outcome",
            "resource" => "target",
            "action_type" => "op",
            "tags" => "tag",
            "session.id" => "session",
            "event_name" => "event",
            other => other,
        };
        KEYS.iter().find(|key| key.name == name)
    }
}

/// The keys' names, for an error's hint.
#[must_use]
pub fn names() -> String {
    let mut out = String::from(IP);
    for key in KEYS {
        out.push_str(", ");
        out.push_str(key.name);
    }
    out
}
