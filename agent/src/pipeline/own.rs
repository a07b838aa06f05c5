//! The agent's own acts as events in the same chain: start, stop, configuration, and gaps.

use custody_event::position::{event_id, own_key};
use custody_event::{
    Change, Detail, Digest, Draft, Field, FileKey, Offset, StreamId, Target, Timestamp,
};

use super::undelivered::Undelivered;
use crate::sources::{Notice, Refused};

/// The input that own events name, and whose book counts them.
pub const OWN_INPUT: &str = "custody";

/// A key of the configuration, or an own rule pack, that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key, such as `sources[auth].paths`, or `pack <file>`.
    pub field: String,
    /// The value before; none where there was none. Of a pack, its SHA-256.
    pub before: Option<String>,
    /// The value now.
    pub after: Option<String>,
}

/// Something the agent did, or that befell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnAct {
    /// The agent began to work.
    Started {
        /// SHA-256 of the configuration file.
        config_sha256: String,
        /// Its path.
        config_path: String,
        /// The last run ended without a stop event: it was killed, or power failed.
        after_crash: bool,
    },
    /// The agent ends, everything that it read is in the spool.
    Stopped {
        /// Why.
        reason: String,
    },
    /// A new configuration is in force.
    ConfigLoaded {
        /// SHA-256 of the file.
        sha256: String,
        /// SHA-256 of the one before.
        previous_sha256: String,
        /// SHA-256 over the own rule packs.
        packs_sha256: String,
        /// SHA-256 over those before.
        previous_packs_sha256: String,
        /// Key by key, what is different.
        changes: Vec<Difference>,
        /// Its path.
        path: String,
    },
    /// A new configuration was refused; the old one stays in force.
    ConfigRefused {
        /// Its path.
        path: String,
        /// Why.
        error: String,
    },
    /// Something was lost or could not be read.
    Gap {
        /// Stable code.
        code: String,
        /// One sentence.
        text: String,
        /// Of which source; none for the agent as a whole.
        source: Option<String>,
        /// Of which file.
        path: Option<String>,
        /// First byte lost.
        from: Option<u64>,
        /// Bytes lost.
        bytes: Option<u64>,
        /// Records lost.
        records: Option<u64>,
    },
    /// An output does not take a block's events.
    Undelivered(Undelivered),
    /// Senders were turned away.
    Refused {
        /// Stable code.
        code: String,
        /// One sentence.
        text: String,
        /// By which source.
        source: String,
        /// At which path or address.
        endpoint: String,
        /// The newest of them.
        peer: Option<std::net::SocketAddr>,
        /// How many since the last event of this kind.
        count: u64,
    },
    /// A collector's history does not continue what it had shown.
    LogRefused {
        /// Which output.
        output: String,
        /// What does not continue.
        reason: String,
    },
    /// Somebody accepted that a collector's history does not continue.
    LogForkAccepted {
        /// Which output.
        output: String,
        /// Entries that had been shown.
        before: u64,
        /// Entries that are shown now.
        now: u64,
        /// Why.
        reason: String,
    },
    /// The agent had to begin a new stream.
    StreamBegun {
        /// The one before.
        previous: String,
        /// Why.
        reason: String,
    },
}

impl OwnAct {
    /// A gap from what a source noticed.
    #[must_use]
    pub fn from_notice(notice: &Notice, source: &str) -> Self {
        Self::Gap {
            code: notice.code.to_owned(),
            text: notice.text.clone(),
            source: Some(source.to_owned()),
            path: notice.path.clone(),
            from: notice.from.map(Offset::get),
            bytes: notice.bytes,
            records: notice.records,
        }
    }
}

impl OwnAct {
    /// A refusal from what a source noticed.
    #[must_use]
    pub fn from_refused(refused: &Refused, source: &str) -> Self {
        Self::Refused {
            code: refused.code.to_owned(),
            text: refused.text.clone(),
            source: source.to_owned(),
            endpoint: refused.endpoint.clone(),
            peer: refused.peer,
            count: refused.count,
        }
    }
}

/// Writes own events; names them by stream and counter.
#[derive(Debug, Clone)]
pub struct OwnEvents {
    key: FileKey,
    agent: String,
    host: String,
    tenant: String,
    version: &'static str,
}

impl OwnEvents {
    /// For one stream of one agent on one host.
    #[must_use]
    pub fn new(
        host_id: &str,
        stream: &StreamId,
        agent: String,
        host: String,
        tenant: String,
    ) -> Self {
        Self {
            key: own_key(host_id, stream),
            agent,
            host,
            tenant,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Appends the event and a line end to `out`.
    pub fn write(&self, number: u64, at: Timestamp, act: &OwnAct, out: &mut Vec<u8>) {
        let mut draft = Draft::new();
        draft.id(event_id(self.key, Offset(number), 0, &Digest::ZERO));
        draft.time(Field::Time, at);
        draft.time(Field::Observed, at);
        draft.text(Field::TimeBasis, "record");
        draft.text(Field::Tenant, &*self.tenant);
        let category = if matches!(act, OwnAct::Refused { .. }) { "security" } else { "custody" };
        draft.text(Field::Category, category);
        draft.text(Field::Host, &*self.host);
        draft.text(Field::Service, "custody-agent");
        draft.text(Field::ActorType, "agent");
        draft.text(Field::ActorId, &*self.agent);
        draft.text(Field::OriginAgent, &*self.agent);
        draft.text(Field::OriginInput, OWN_INPUT);
        draft.detail("version", text(self.version));
        describe(act, &mut draft);
        draft.finish(out);
        out.push(b'\n');
    }
}

fn text(value: &str) -> Detail<'_> {
    Detail::Text(value.into())
}

fn say<'a>(
    draft: &mut Draft<'a>,
    action: &'a str,
    severity: &'a str,
    outcome: &'a str,
    message: String,
) {
    draft.text(Field::Action, action);
    draft.text(Field::Severity, severity);
    draft.text(Field::Outcome, outcome);
    draft.text(Field::Op, "other");
    draft.text(Field::Message, message);
}

fn describe<'a>(act: &'a OwnAct, draft: &mut Draft<'a>) {
    match act {
        OwnAct::Started { config_sha256, config_path, after_crash } => {
            let (severity, how) = if *after_crash {
                ("medium", ", after a run that did not end in order")
            } else {
                ("info", "")
            };
            say(draft, "agent.start", severity, "success", format!("The agent started{how}."));
            draft.detail("after_crash", Detail::Bool(*after_crash));
            draft.detail("config_sha256", text(config_sha256));
            draft.detail("config_path", text(config_path));
        }
        OwnAct::Stopped { reason } => {
            say(draft, "agent.stop", "info", "success", format!("The agent stopped: {reason}."));
            draft.text(Field::ReasonText, &**reason);
        }
        OwnAct::ConfigLoaded { .. } | OwnAct::ConfigRefused { .. } => describe_config(act, draft),
        OwnAct::StreamBegun { previous, reason } => {
            say(
                draft,
                "agent.stream.begin",
                "high",
                "success",
                format!("A new stream begins: {reason}."),
            );
            draft.detail("previous_stream", text(previous));
            draft.text(Field::ReasonText, &**reason);
        }
        OwnAct::LogRefused { .. } | OwnAct::LogForkAccepted { .. } => describe_log(act, draft),
        OwnAct::Gap { .. } => describe_gap(act, draft),
        OwnAct::Undelivered(gap) => {
            say(draft, "gap.record", "high", "failure", gap.text());
            gap.describe(draft);
        }
        OwnAct::Refused { .. } => describe_refused(act, draft),
    }
}

fn describe_config<'a>(act: &'a OwnAct, draft: &mut Draft<'a>) {
    let path = match act {
        OwnAct::ConfigLoaded {
            sha256,
            previous_sha256,
            packs_sha256,
            previous_packs_sha256,
            path,
            changes,
        } => {
            let said = format!("Configuration {path} is in force; {} keys changed.", changes.len());
            say(draft, "configuration.update", "low", "success", said);
            draft.text(Field::Op, "update");
            draft.detail("config_sha256", text(sha256));
            draft.detail("previous_sha256", text(previous_sha256));
            draft.detail("packs_sha256", text(packs_sha256));
            draft.detail("previous_packs_sha256", text(previous_packs_sha256));
            for change in changes {
                draft.change(Change {
                    field: (&*change.field).into(),
                    before: change.before.as_deref().map(text),
                    after: change.after.as_deref().map(text),
                    masked: false,
                });
            }
            path
        }
        OwnAct::ConfigRefused { path, error } => {
            let said = format!("Configuration {path} was refused; the one before stays in force.");
            say(draft, "configuration.update", "medium", "failure", said);
            draft.text(Field::Op, "update");
            draft.text(Field::ReasonText, &**error);
            path
        }
        _ => return,
    };
    draft.detail("config_path", text(path));
    draft.target(Target {
        kind: Some("configuration".into()),
        id: Some(path.into()),
        name: None,
        parent: None,
    });
}

fn describe_refused<'a>(act: &'a OwnAct, draft: &mut Draft<'a>) {
    let OwnAct::Refused { code, text: sentence, source, endpoint, peer, count } = act else {
        return;
    };
    say(draft, "source.refuse", "medium", "denied", sentence.clone());
    draft.text(Field::ReasonCode, &**code);
    draft.text(Field::ReasonText, &**sentence);
    draft.text(Field::OriginEndpoint, &**endpoint);
    draft.int(Field::Attempts, i64::try_from(*count).unwrap_or(i64::MAX));
    if let Some(peer) = peer {
        draft.text(Field::SourceIp, peer.ip().to_string());
        draft.int(Field::SourcePort, i64::from(peer.port()));
    }
    draft.target(Target {
        kind: Some("source".into()),
        id: Some(source.into()),
        name: Some(endpoint.into()),
        parent: None,
    });
}

fn describe_log<'a>(act: &'a OwnAct, draft: &mut Draft<'a>) {
    let (output, reason) = match act {
        OwnAct::LogRefused { output, reason } => {
            let said = format!(
                "The collector of output {output} is refused, its log does not continue what it had shown; nothing more is sent to it."
            );
            say(draft, "collector.log.refuse", "critical", "failure", said);
            draft.tag("alarm");
            (output, reason)
        }
        OwnAct::LogForkAccepted { output, before, now, reason } => {
            let said = format!(
                "It was accepted that the log of the collector of output {output} does not continue what it had shown; delivery goes on."
            );
            say(draft, "collector.log.accept_fork", "high", "success", said);
            for (key, value) in [("entries_shown", before), ("entries_now", now)] {
                draft.detail(key, Detail::Int(i64::try_from(*value).unwrap_or(i64::MAX)));
            }
            (output, reason)
        }
        _ => return,
    };
    draft.text(Field::ReasonText, &**reason);
    draft.target(Target {
        kind: Some("output".into()),
        id: Some(output.into()),
        name: None,
        parent: None,
    });
}

fn describe_gap<'a>(act: &'a OwnAct, draft: &mut Draft<'a>) {
    let OwnAct::Gap { code, text: sentence, source, path, from, bytes, records } = act else {
        return;
    };
    // A file that was emptied may have lost something, and mostly has not.
    let severity = if code == "emptied" { "low" } else { "high" };
    say(draft, "gap.record", severity, "failure", sentence.clone());
    draft.text(Field::ReasonCode, &**code);
    draft.text(Field::ReasonText, &**sentence);
    draft.tag("gap");
    if let Some(source) = source {
        draft.target(Target {
            kind: Some("source".into()),
            id: Some(source.into()),
            name: path.as_deref().map(Into::into),
            parent: None,
        });
    }
    if let Some(path) = path {
        draft.text(Field::OriginPath, &**path);
    }
    for (key, value) in [("from_offset", from), ("lost_bytes", bytes), ("lost_records", records)] {
        if let Some(value) = value {
            draft.detail(key, Detail::Int(i64::try_from(*value).unwrap_or(i64::MAX)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_event::EventView;

    #[test]
    fn own_events_are_canonical_and_have_names_of_their_own() {
        let own =
            OwnEvents::new("h", &StreamId([1; 16]), "a".into(), "web1".into(), "default".into());
        let acts = [
            OwnAct::Started {
                config_sha256: "00".into(),
                config_path: "/etc/x".into(),
                after_crash: true,
            },
            OwnAct::Stopped { reason: "SIGTERM".into() },
            OwnAct::Gap {
                code: "file_lost".into(),
                text: "Lost.".into(),
                source: Some("auth".into()),
                path: Some("/var/log/a".into()),
                from: Some(7),
                bytes: None,
                records: Some(2),
            },
            OwnAct::Undelivered(Undelivered {
                output: "east".into(),
                stream: "07".into(),
                block: 3,
                records: 17,
                first_time: Timestamp::Y2020,
                last_time: Timestamp::Y2020,
                reason: "413: \"too long\"".into(),
            }),
        ];
        let mut ids = std::collections::HashSet::new();
        for (number, act) in (0..).zip(&acts) {
            let mut out = Vec::new();
            own.write(number, Timestamp::Y2020, act, &mut out);
            let line = out.strip_suffix(b"\n").unwrap();
            assert_eq!(custody_event::canon::check(line), Ok(()));
            let event = EventView::read(line).unwrap();
            assert_eq!(event.category.as_deref(), Some("custody"));
            assert!(ids.insert(event.id));
        }
    }
}
