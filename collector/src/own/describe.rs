//! The collector's acts as canonical events.

use std::net::IpAddr;

use custody_event::position::event_id;
use custody_event::{Detail, Digest, Draft, Field, FileKey, Offset, Seq, Target, Timestamp};

/// What logins and refusals are, so that a search for them finds the collector's own.
const AUTHENTICATION: &str = "authentication";
/// A search line longer than this is cut in the event.
const MAX_QUERY_BYTES: usize = 4_096;

/// A login, or the try of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's or token's name; `None` for one that is not known.
    pub who: Option<String>,
    /// Where it came from.
    pub from: Option<IpAddr>,
    /// `password` or `api_key`.
    pub via: &'static str,
    /// Why it failed, if it did.
    pub failed: Option<&'static str>,
}

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
    Login(Login),
    /// Somebody logged out.
    Logout {
        /// The user's or token's name.
        who: String,
    },
    /// What was done with an export.
    Exported(Box<super::ExportAct>),
    /// A user or an address has failed too often.
    Locked {
        /// The user; `None`: the address.
        who: Option<String>,
        /// Where the last failure came from.
        from: IpAddr,
    },
    /// Somebody was refused.
    Denied {
        /// The user's or token's name; `None` for a token that is not known.
        who: Option<String>,
        /// The permission that is missing, or why the token is not good.
        what: String,
    },
    /// What was done about retention: holds, erasures, the archive, what has expired.
    Retained(Box<super::RetainAct>),
    /// Users, tokens, roles, agents and forks: as it stands in the table of acts.
    Administered {
        /// Who did it; `None` for the command line.
        who: Option<String>,
        /// `token.create` …
        action: String,
        /// Name or id of what it was done with.
        target: String,
        /// Why, or what exactly.
        reason: String,
    },
    /// A checkpoint of the log has gone to those who hold it, or could not.
    Anchored {
        /// Its entries.
        size: u64,
        /// Its root, hex.
        root: String,
        /// Why it could not.
        failed: Option<String>,
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
            Self::Login(Login { who: None, failed: Some(_), .. }) => Some("login".to_owned()),
            Self::Login(Login { who: Some(who), from, failed: Some(why), .. }) => {
                let from = from.map(|from| from.to_string()).unwrap_or_default();
                Some(format!("login\0{who}\0{from}\0{why}"))
            }
            Self::Denied { who, what } => {
                Some(format!("denied\0{}\0{what}", who.as_deref().unwrap_or_default()))
            }
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
        Act::Login(login) => describe_login(login, draft),
        Act::Logout { who } => {
            draft.text(Field::Category, AUTHENTICATION);
            let message = format!("{who} logged out.");
            Say { who: Some(who), ..Say::new("authentication.logout", "logout", message) }
        }
        Act::Exported(export) => super::exports::describe(export, draft),
        Act::Retained(act) => super::retained::describe(act, draft),
        Act::Locked { who, from } => {
            draft.text(Field::Category, AUTHENTICATION);
            draft.text(Field::SourceIp, from.to_string());
            let message = match who {
                Some(who) => format!("{who} has failed to log in too often and is locked."),
                None => format!("Logins from {from} have failed too often; it is locked."),
            };
            let say = Say::new("authentication.lock", "lock", message);
            Say { severity: "high", target: who.as_deref().map(|who| ("user", who)), ..say }
        }
        Act::Denied { who, what } => {
            draft.text(Field::Category, AUTHENTICATION);
            draft.text(Field::ReasonCode, what.as_str());
            let message = match who {
                Some(who) => format!("{who} was refused: {what}."),
                None => "Somebody with a token that is not known was refused.".to_owned(),
            };
            let say = Say::new("authentication.authorize", "other", message);
            Say { severity: "medium", outcome: "denied", who: who.as_deref(), ..say }
        }
        Act::Administered { who, action, target, reason } => {
            draft.text(Field::ReasonText, reason.as_str());
            let kind = ["token", "agent", "user", "role"];
            let kind = kind.into_iter().find(|kind| action.starts_with(kind)).unwrap_or("log");
            let by = who.as_deref().map(|who| format!(" by {who}")).unwrap_or_default();
            let message = format!("{action}: {target}{by}.");
            let usual = matches!(&**action, "agent.enroll" | "agent.certify");
            let severity = if usual { "low" } else { "medium" };
            let say = Say::new(action, op_of(action), message);
            Say { severity, who: who.as_deref(), target: Some((kind, target)), ..say }
        }
        Act::Anchored { failed: Some(why), .. } => {
            draft.text(Field::ReasonText, cut(why));
            let say = Say::new("log.anchor", "export", "The log was not anchored.".to_owned());
            Say { severity: "high", outcome: "failure", ..say }
        }
        Act::Anchored { size, root, failed: None } => {
            draft.detail("root", Detail::Text(root.as_str().into()));
            let message = format!("The log's first {size} entries were anchored.");
            Say { severity: "low", ..Say::new("log.anchor", "export", message) }
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

fn describe_login<'a>(login: &'a Login, draft: &mut Draft<'a>) -> Say<'a> {
    draft.text(Field::Category, AUTHENTICATION);
    draft.text(Field::SessionMethods, login.via);
    if let Some(from) = login.from {
        draft.text(Field::SourceIp, from.to_string());
    }
    let who = login.who.as_deref();
    let name = who.unwrap_or("Somebody who is not known");
    let Some(why) = login.failed else {
        let say = Say::new("authentication.login", "login", format!("{name} logged in."));
        return Say { who, ..say };
    };
    draft.text(Field::ReasonCode, why);
    let say = Say::new("authentication.login", "login", format!("{name} tried to log in: {why}."));
    Say { severity: "medium", outcome: "failure", who, ..say }
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
        "token.create" | "user.create" | "role.create" => "create",
        "user.delete" | "role.delete" => "delete",
        "user.update" | "user.password" => "update",
        "user.disable" => "disable",
        "user.enable" => "enable",
        "token.revoke" | "agent.revoke" => "revoke",
        "agent.enroll" | "agent.certify" => "grant",
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
