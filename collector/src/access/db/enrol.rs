//! Enrolling: the row of an agent, and the tokens that are good for one agent only.

use custody_event::{AgentId, Digest, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::Tables;
use crate::access::{AccessError, Enrolment};

/// For so long an agent that has used up its token gets its answer again: it may have died before
/// it could keep what it was given.
const ANSWERED_AGAIN_US: i64 = 10 * 60 * 1_000_000;

impl Tables<'_> {
    /// A token that is good for one agent is this agent's from now on; any other is good for more.
    pub(in crate::access) fn use_up(
        &self,
        token: &Digest,
        agent: AgentId,
        now: Timestamp,
    ) -> Result<(), AccessError> {
        let hash = token.to_hex();
        let sql = "SELECT once, used_by, used FROM tokens WHERE hash = ?1";
        let row = |row: &rusqlite::Row<'_>| {
            let used_by: Option<String> = row.get(1)?;
            Ok((row.get::<_, bool>(0)?, used_by, super::optional_time(row, 2)?))
        };
        let found = self.wrap(self.connection.query_row(sql, [&hash], row).optional())?;
        let by = agent.to_hex();
        match found {
            Some((true, None, _)) => {
                let sql = "UPDATE tokens SET used_by = ?2, used = ?3 WHERE hash = ?1";
                self.run(sql, params![hash, by, now.to_string()]).map(drop)
            }
            Some((true, Some(used_by), used)) => {
                let again = used.is_some_and(|used| now < used.plus_micros(ANSWERED_AGAIN_US));
                if used_by == by && again { Ok(()) } else { Err(AccessError::UsedUp(used_by)) }
            }
            Some((false, ..)) | None => Ok(()),
        }
    }

    /// The agent has a certificate until then.
    pub(in crate::access) fn certified(
        &self,
        agent: AgentId,
        until: Timestamp,
    ) -> Result<(), AccessError> {
        let (id, until) = (agent.to_hex(), until.to_string());
        let sql = "UPDATE agents SET certificate_until = ?2 WHERE id = ?1 AND revoked IS NULL";
        self.run(sql, params![id, until])?;
        if self.connection.changes() == 0 {
            return Err(AccessError::Revoked(agent));
        }
        self.act(None, "agent.certify", &id, &format!("until {until}"))
    }

    /// Writes the agent down, or gives one that is enrolled another token.
    pub(in crate::access) fn enroll(
        &self,
        enrolment: &Enrolment,
        token_hash: Digest,
        now: Timestamp,
        known_key: bool,
    ) -> Result<(), AccessError> {
        let id = enrolment.agent.to_hex();
        let key = enrolment.key.to_hex();
        let sql = "SELECT key, revoked FROM agents WHERE id = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let known: Option<(String, Option<String>)> =
            self.wrap(self.connection.query_row(sql, [&id], row).optional())?;
        match known {
            Some((_, Some(_))) => return Err(AccessError::Revoked(enrolment.agent)),
            Some((other, None)) if other != key && !known_key => {
                return Err(AccessError::KeyConflict(enrolment.agent));
            }
            _ => {}
        }
        let sql = "INSERT INTO agents (id, host, hostname, key, token_hash, version, enrolled)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET host = excluded.host, hostname = excluded.hostname,
                 token_hash = excluded.token_hash, version = excluded.version,
                 key = excluded.key, enrolled = excluded.enrolled";
        let Enrolment { host, hostname, version, .. } = enrolment;
        let (token, now) = (token_hash.to_hex(), now.to_string());
        self.run(sql, params![id, host, hostname, key, token, version, now])?;
        let reason = format!("host {hostname}, key {}", enrolment.key.id());
        self.act(None, "agent.enroll", &id, &reason)
    }
}
