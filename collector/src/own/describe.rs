//! The collector's acts as canonical events.

use custody_event::position::event_id;
use custody_event::{Detail, Digest, Draft, Field, FileKey, Offset, Seq, Target, Timestamp};

/// A search line longer than this is cut in the event.
const MAX_QUERY_BYTES: usize = 4_096;

/// Something that the collector did, or that was done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// It began to work.
    Started {
        /// SHA-256 of the configuration file; empty without one.
        config_sha256: String,
    },
    /// It ends.
    Stopped,
    /// Ends the stream's thread; not an event.
    End,
    /// Somebody searched or counted.
    Searched {
        /// The token's name.
        who: String,
        /// `api` or `page`.
        via: &'static str,
        /// What was asked, as a query string.
        query: String,
    },
    /// Somebody looked at one event.
    Viewed {
        /// The token's name.
        who: String,
        /// `api` or `page`.
        via: &'static str,
        /// The event's id.
        event: String,
    },
    /// Somebody logged in, or tried to.
    Login {
        /// The token's name; `None` for one that is not known.
        who: Option<String>,
    },
    /// Somebody logged out.
    Logout {
        /// The token's name.
        who: String,
    },
    /// What was done about retention: holds, erasures, the archive, what has expired.
    Retained(Box<super::RetainAct>),
    /// Tokens, agents and forks: as it stands in the table of acts.
    Administered {
        /// `token.create` …
        action: String,
        /// Name or id of what it was done with.
        target: String,
        /// Why, or what exactly.
        reason: String,
    },
    /// So many acts did not fit into the queue.
    Lost(u64),
}

impl Act {
    /// What acts have in common that are counted instead of told one by one.
    pub(super) fn group(&self) -> Option<String> {
        match self {
            Self::Searched { who, via, query } => Some(format!("{via}\0{who}\0{query}")),
            Self::Viewed { who, via, event } => Some(format!("{via}\0{who}\0id {event}")),
            // Guessing must not fill the disk.
            Self::Login { who: None } => Some("login".to_owned()),
            _ => None,
        }
    }
}

/// Where the event stands.
pub(super) struct Place<'a> {
    pub(super) key: FileKey,
    pub(super) seq: Seq,
    pub(super) agent: String,
    /// The collector's name.
    pub(super) name: &'a str,
}

/// Appends the event and a line end to `out`.
pub(super) fn write(
    act: &Act,
    at: Timestamp,
    times: u64,
    place: &Place<'_>,
    index: u32,
    out: &mut Vec<u8>,
) {
    let mut draft = Draft::new();
    draft.id(event_id(place.key, Offset(place.seq.get()), index, &Digest::ZERO));
    draft.time(Field::Time, at);
    draft.time(Field::Observed, at);
    draft.text(Field::TimeBasis, "record");
    draft.text(Field::Category, "custody");
    draft.text(Field::Host, place.name);
    draft.text(Field::Service, "custody-collector");
    draft.text(Field::OriginAgent, &*place.agent);
    draft.text(Field::OriginInput, "collector");
    draft.detail("version", Detail::Text(env!("CARGO_PKG_VERSION").into()));
    if times > 1 {
        draft.int(Field::Attempts, i64::try_from(times).unwrap_or(i64::MAX));
    }
    describe(act, &mut draft);
    draft.finish(out);
    out.push(b'\n');
}

pub(super) struct Say<'a> {
    pub(super) action: &'a str,
    pub(super) op: &'static str,
    pub(super) severity: &'static str,
    pub(super) outcome: &'static str,
    pub(super) who: Option<&'a str>,
    pub(super) target: Option<(&'static str, &'a str)>,
    pub(super) message: String,
}

impl<'a> Say<'a> {
    pub(super) fn new(action: &'a str, op: &'static str, message: String) -> Self {
        Self { action, op, severity: "info", outcome: "success", who: None, target: None, message }
    }
}

fn describe<'a>(act: &'a Act, draft: &mut Draft<'a>) {
    let say = match act {
        Act::Started { config_sha256 } => {
            draft.detail("config_sha256", Detail::Text(config_sha256.as_str().into()));
            Say::new("collector.start", "other", "The collector started.".to_owned())
        }
        Act::Stopped | Act::End => {
            Say::new("collector.stop", "other", "The collector stopped.".to_owned())
        }
        Act::Searched { who, via, query } => {
            draft.detail("query", Detail::Text(cut(query).into()));
            draft.text(Field::DataVia, *via);
            let message = format!("{who} searched for events.");
            Say { who: Some(who), ..Say::new("event.search", "read", message) }
        }
        Act::Viewed { who, via, event } => {
            draft.text(Field::DataVia, *via);
            let target = Some(("event", event.as_str()));
            let message = format!("{who} looked at an event.");
            Say { who: Some(who), target, ..Say::new("event.view", "read", message) }
        }
        Act::Login { who: Some(who) } => {
            let message = format!("{who} logged in.");
            Say { who: Some(who), ..Say::new("authentication.login", "login", message) }
        }
        Act::Login { who: None } => {
            let message = "Somebody without a valid token tried to log in.".to_owned();
            let say = Say::new("authentication.login", "login", message);
            Say { severity: "medium", outcome: "failure", ..say }
        }
        Act::Logout { who } => {
            let message = format!("{who} logged out.");
            Say { who: Some(who), ..Say::new("authentication.logout", "logout", message) }
        }
        Act::Retained(act) => super::retained::describe(act, draft),
        Act::Administered { action, target, reason } => {
            draft.text(Field::ReasonText, reason.as_str());
            let kind = if action.starts_with("token") {
                "token"
            } else if action.starts_with("agent") {
                "agent"
            } else {
                "log"
            };
            let message = format!("{action}: {target}.");
            let severity = if action == "agent.enroll" { "low" } else { "medium" };
            let say = Say::new(action, op_of(action), message);
            Say { severity, target: Some((kind, target)), ..say }
        }
        Act::Lost(count) => {
            draft.tag("gap");
            draft.detail("lost_records", Detail::Int(i64::try_from(*count).unwrap_or(i64::MAX)));
            let message =
                format!("{count} acts of the collector came faster than they could be written.");
            let say = Say::new("gap.record", "other", message);
            Say { severity: "high", outcome: "failure", ..say }
        }
    };
    fill(say, draft);
}

fn fill<'a>(say: Say<'a>, draft: &mut Draft<'a>) {
    draft.text(Field::Action, say.action);
    draft.text(Field::Op, say.op);
    draft.text(Field::Severity, say.severity);
    draft.text(Field::Outcome, say.outcome);
    draft.text(Field::Message, say.message);
    match say.who {
        Some(who) => {
            draft.text(Field::ActorType, "user");
            draft.text(Field::ActorName, who);
        }
        None => draft.text(Field::ActorType, "system"),
    }
    if let Some((kind, id)) = say.target {
        draft.target(Target {
            kind: Some(kind.into()),
            id: Some(id.into()),
            name: None,
            parent: None,
        });
    }
}

fn op_of(action: &str) -> &'static str {
    match action {
        "token.create" => "create",
        "token.revoke" | "agent.revoke" => "revoke",
        "agent.enroll" => "grant",
        _ => "other",
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_QUERY_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
