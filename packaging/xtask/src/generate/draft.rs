//! An act as the event that the agent makes of its line: as many fields, as long.

use custody_event::{Draft, EventId, Field, Target};

use super::lines::{EVENTS, METHODS, PAGES, choose};
use super::{Act, Kind};

/// What the act itself does not know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope<'a> {
    pub(super) id: EventId,
    pub(super) agent: &'a str,
    pub(super) line: &'a str,
    pub(super) hash: &'a [u8; 32],
    pub(super) offset: u64,
}

impl Act {
    /// Fills `draft`.
    pub(super) fn draft<'a>(&'a self, envelope: &Envelope<'a>, draft: &mut Draft<'a>) {
        draft.id(envelope.id);
        draft.time(Field::Time, self.time);
        draft.text(Field::TimeBasis, "record");
        draft.time(Field::Observed, self.time.plus_micros(1_500));
        draft.text(Field::Tenant, "default");
        draft.text(Field::Host, format!("web-{:02}", self.salt % 8));
        draft.text(Field::OriginAgent, envelope.agent);
        draft.text(Field::OriginInput, "bench");
        draft.text(Field::OriginPath, "/var/log/bench.log");
        draft.int(Field::OriginOffset, i64::try_from(envelope.offset).unwrap_or(0));
        draft.int(Field::OriginPackVersion, 1);
        draft.raw(envelope.line.as_bytes());
        draft.raw_sha256(envelope.hash);
        draft.text(Field::SourceIp, self.ip.as_str());
        draft.text(Field::ActorType, "user");
        match self.kind {
            Kind::Sshd => self.draft_sshd(draft),
            Kind::Nginx => self.draft_nginx(draft),
            Kind::Json => self.draft_json(draft),
        }
    }

    fn draft_sshd<'a>(&'a self, draft: &mut Draft<'a>) {
        let (action, op, outcome, rule) = match self.form {
            0..55 => ("authentication.login", "login", "failure", "password_rejected"),
            55..65 => ("authentication.login", "login", "success", "key_accepted"),
            65..80 => ("authentication.login", "login", "failure", "invalid_user"),
            80..90 => ("session.open", "login", "success", "session_opened"),
            _ => ("session.close", "logout", "success", "disconnected"),
        };
        let user =
            if matches!(self.form, 0..30 | 65..80) { self.guess() } else { self.user.as_str() };
        draft.text(Field::Category, action.split('.').next().unwrap_or("unknown"));
        draft.text(Field::Action, action);
        draft.text(Field::Op, op);
        draft.text(Field::Outcome, outcome);
        draft.text(Field::Severity, if outcome == "failure" { "medium" } else { "low" });
        draft.text(Field::ActorName, user);
        draft.int(Field::SourcePort, i64::try_from(self.port).unwrap_or(0));
        draft.text(Field::SessionMethods, "password");
        draft.text(Field::Service, "sshd");
        draft.text(Field::OriginPack, "sshd");
        draft.text(Field::OriginRule, rule);
        draft.text(Field::Message, format!("{user} {action} {outcome}"));
        draft.detail("pid", custody_event::Detail::Text((self.salt % 60_000).to_string().into()));
    }

    fn draft_nginx<'a>(&'a self, draft: &mut Draft<'a>) {
        let status = self.http_status();
        let outcome = match status {
            401 | 403 => "denied",
            400.. => "failure",
            _ => "success",
        };
        let (op, action) = match choose(&METHODS, self.salt >> 4) {
            "GET" => ("read", "http.get"),
            "POST" => ("create", "http.post"),
            "PUT" => ("update", "http.put"),
            _ => ("delete", "http.delete"),
        };
        draft.text(Field::Category, "access");
        draft.text(Field::Action, action);
        draft.text(Field::Op, op);
        draft.text(Field::Outcome, outcome);
        draft.text(Field::Severity, "info");
        draft.text(Field::ActorName, self.user.as_str());
        draft.text(Field::Service, "nginx");
        draft.text(Field::OriginPack, "nginx-access");
        draft.text(Field::OriginRule, "request");
        draft.target(Target {
            kind: Some("url".into()),
            name: Some(choose(&PAGES, self.salt >> 12).into()),
            ..Target::default()
        });
        draft.int(Field::DataBytes, i64::try_from(200 + self.salt % 40_000).unwrap_or(0));
        draft.text(Field::Message, format!("{} {action} {outcome}", self.user));
        draft.detail("status", custody_event::Detail::Text(status.to_string().into()));
    }

    fn draft_json<'a>(&'a self, draft: &mut Draft<'a>) {
        let action = choose(&EVENTS, self.salt >> 4);
        draft.text(Field::Category, "data");
        draft.text(Field::Action, action);
        draft.text(Field::Op, "update");
        draft.text(Field::Outcome, self.result());
        draft.text(Field::Severity, "low");
        draft.text(Field::ActorName, format!("{}@example.com", self.user));
        draft.text(Field::ActorId, (self.salt % 5_000).to_string());
        draft.text(Field::Service, "shop");
        draft.text(Field::OriginPack, "generic-json");
        draft.text(Field::OriginRule, "event");
        draft.text(Field::OriginEventName, action);
        draft.text(Field::SessionId, format!("{:016x}", self.salt));
        draft.text(Field::TraceRequestId, format!("{:016x}", self.salt.rotate_left(23)));
        draft.target(Target {
            kind: Some("contact".into()),
            id: Some(format!("c-{:06}", self.salt % 1_000_000).into()),
            ..Target::default()
        });
        draft.text(Field::Message, "record changed by form");
    }
}
