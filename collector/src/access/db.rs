//! The tables of `collector.db`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use custody_event::{AgentId, Digest, Timestamp};
use custody_evidence::PublicKey;
use custody_evidence::tlog::TreeHead;
use rusqlite::{Connection, Row, TransactionBehavior, params};

use super::{AccessError, Enrolment, Role};

mod accounts;
mod enrol;

pub(super) use accounts::SessionRow;
pub use accounts::{RoleRow, TokenRow, UserRow};
pub(super) use accounts::{Roles, Tables};

/// What each version of the tables adds to the one before; a new file goes through all of them.
pub(super) const STEPS: &[&str] = &[
    "
CREATE TABLE agents (
    id TEXT PRIMARY KEY NOT NULL,
    host TEXT NOT NULL,
    hostname TEXT NOT NULL,
    key TEXT NOT NULL,
    token_hash TEXT NOT NULL,
    version TEXT NOT NULL,
    enrolled TEXT NOT NULL,
    revoked TEXT
) STRICT;
CREATE TABLE tokens (
    hash TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    created TEXT NOT NULL,
    revoked TEXT
) STRICT;
PRAGMA user_version = 1;
",
    // The transparency log's.
    "
ALTER TABLE agents ADD COLUMN revoked_reason TEXT;
CREATE TABLE forks (
    size INTEGER NOT NULL,
    root TEXT NOT NULL,
    agent TEXT NOT NULL,
    note TEXT NOT NULL,
    seen TEXT NOT NULL,
    accepted TEXT,
    reason TEXT,
    PRIMARY KEY (size, root)
) STRICT;
CREATE TABLE acts (
    id INTEGER PRIMARY KEY NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT;
PRAGMA user_version = 2;
",
    // Users, roles and sessions; what tokens are bounded by; who did what.
    "
CREATE TABLE users (
    name TEXT PRIMARY KEY NOT NULL,
    password TEXT NOT NULL,
    role TEXT NOT NULL,
    scope TEXT NOT NULL,
    created TEXT NOT NULL,
    password_set TEXT NOT NULL,
    disabled TEXT,
    last_login TEXT
) STRICT;
CREATE TABLE roles (
    name TEXT PRIMARY KEY NOT NULL,
    permissions TEXT NOT NULL,
    created TEXT NOT NULL
) STRICT;
CREATE TABLE sessions (
    hash TEXT PRIMARY KEY NOT NULL,
    user TEXT,
    token TEXT,
    created TEXT NOT NULL,
    expires TEXT NOT NULL
) STRICT;
ALTER TABLE tokens ADD COLUMN scope TEXT NOT NULL DEFAULT '{}';
ALTER TABLE tokens ADD COLUMN expires TEXT;
ALTER TABLE tokens ADD COLUMN last_used TEXT;
ALTER TABLE tokens ADD COLUMN owner TEXT;
ALTER TABLE acts ADD COLUMN who TEXT;
PRAGMA user_version = 3;
",
    // Exports and their schedules; what they mean is written in the room `export`.
    "
CREATE TABLE exports (
    id TEXT PRIMARY KEY NOT NULL,
    created INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    status TEXT NOT NULL,
    spec TEXT NOT NULL,
    told TEXT NOT NULL,
    progress TEXT
) STRICT;
CREATE INDEX exports_by_time ON exports (created, id);
CREATE TABLE schedules (
    id TEXT PRIMARY KEY NOT NULL,
    created INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    next INTEGER NOT NULL,
    spec TEXT NOT NULL
) STRICT;
PRAGMA user_version = 4;
",
    // Holds, erasures and what is known of segments; what they mean is written in the room `retain`.
    "
CREATE TABLE holds (
    id INTEGER PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    q TEXT NOT NULL,
    from_time TEXT,
    to_time TEXT,
    reason TEXT NOT NULL,
    by_whom TEXT NOT NULL,
    created TEXT NOT NULL,
    released TEXT,
    released_by TEXT
) STRICT;
CREATE TABLE erasures (
    id INTEGER PRIMARY KEY NOT NULL,
    status TEXT NOT NULL,
    what TEXT,
    what_sha256 TEXT NOT NULL,
    salt TEXT NOT NULL,
    reason TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    asked TEXT NOT NULL,
    approved_by TEXT,
    approved TEXT,
    done TEXT,
    erased INTEGER NOT NULL DEFAULT 0,
    trouble TEXT
) STRICT;
CREATE TABLE segments_due (
    segment INTEGER PRIMARY KEY NOT NULL,
    policy TEXT NOT NULL,
    due INTEGER NOT NULL
) STRICT;
CREATE TABLE segments_dirty (segment INTEGER PRIMARY KEY NOT NULL) STRICT;
CREATE TABLE segments_restored (
    segment INTEGER PRIMARY KEY NOT NULL,
    restored TEXT NOT NULL
) STRICT;
PRAGMA user_version = 5;
",
    // Tokens that enrol one agent, and which.
    "
ALTER TABLE tokens ADD COLUMN once INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tokens ADD COLUMN used_by TEXT;
ALTER TABLE tokens ADD COLUMN used TEXT;
PRAGMA user_version = 6;
",
    // What the second person of an erasure judges; what of an erasure was told and is gone, by
    // segments. When a segment is due is worked out again: it tells kept from empty now.
    "
ALTER TABLE erasures ADD COLUMN matched INTEGER NOT NULL DEFAULT 0;
ALTER TABLE erasures ADD COLUMN archived INTEGER NOT NULL DEFAULT 0;
CREATE TABLE erasures_told (
    erasure INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    count INTEGER NOT NULL,
    told INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    PRIMARY KEY (erasure, segment)
) STRICT;
DELETE FROM segments_due;
PRAGMA user_version = 7;
",
    // How many events of each copy in the archive an erasure took, over all of its tries.
    "
CREATE TABLE erasures_archived (
    erasure INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    count INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    PRIMARY KEY (erasure, segment)
) STRICT;
PRAGMA user_version = 8;
",
];
/// Forks that are remembered, at most: one for each agent and incident.
const MAX_FORKS: i64 = 10_000;

/// An enrolled agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    /// Its id.
    pub id: AgentId,
    /// Its host's id.
    pub host: String,
    /// Its host's name.
    pub hostname: String,
    /// Its public key.
    pub key: PublicKey,
    /// SHA-256 of its token.
    pub(super) token_hash: Digest,
    /// Its program's version when it enrolled.
    pub version: String,
    /// When it enrolled, last.
    pub enrolled: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// Why it was revoked.
    pub revoked_reason: Option<String>,
}

/// An act that is not an event yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActRow {
    /// Its number.
    pub id: i64,
    /// `token.create` …
    pub action: String,
    /// With what it was done.
    pub target: String,
    /// Why, or what exactly.
    pub reason: String,
    /// Who did it; nobody is named for what was done on the collector's own command line.
    pub who: Option<String>,
}

/// A checkpoint that an agent holds and that the log does not continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkRow {
    /// What had been shown.
    pub head: TreeHead,
    /// Who said so first.
    pub agent: AgentId,
    /// When.
    pub seen: Timestamp,
    /// When somebody accepted it, and why.
    pub accepted: Option<(Timestamp, String)>,
}

/// A connection as every room of the collector uses the database.
pub(crate) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Tokens, what an erasure seeks, and the page on which a PDF stands are overwritten, not just let go.
    connection.pragma_update(None, "secure_delete", "ON")?;
    Ok(connection)
}

pub(super) struct Db {
    path: PathBuf,
    connection: Connection,
}

impl Db {
    pub(super) fn open(path: &Path) -> Result<Self, AccessError> {
        let failed = |source| AccessError::Database { path: path.to_owned(), source };
        let connection = connect(path).map_err(failed)?;
        let db = Self { path: path.to_owned(), connection };
        let version = |row: &Row<'_>| row.get(0);
        let found: i64 =
            db.connection.pragma_query_value(None, "user_version", version).map_err(failed)?;
        let missing = usize::try_from(found).ok().and_then(|found| STEPS.get(found..));
        let Some(missing) = missing else {
            let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
            return Err(AccessError::Newer { path: path.to_owned(), found, known });
        };
        if !missing.is_empty() {
            let change = format!("BEGIN IMMEDIATE;{}COMMIT;", missing.concat());
            db.connection.execute_batch(&change).map_err(failed)?;
        }
        Ok(db)
    }

    fn wrap<T>(&self, result: rusqlite::Result<T>) -> Result<T, AccessError> {
        result.map_err(|source| AccessError::Database { path: self.path.clone(), source })
    }

    pub(super) fn data_version(&self) -> Result<i64, AccessError> {
        self.wrap(self.connection.pragma_query_value(None, "data_version", |row| row.get(0)))
    }

    pub(super) fn agents(&self) -> Result<Vec<AgentRow>, AccessError> {
        let read = || {
            let mut select = self.connection.prepare_cached(
                "SELECT id, host, hostname, key, token_hash, version, enrolled, revoked, revoked_reason
                 FROM agents ORDER BY id",
            )?;
            select.query_map([], agent_of)?.collect()
        };
        self.wrap(read())
    }

    /// All of it or nothing: a token that enrols one agent is used up with the agent's row.
    pub(super) fn enroll(
        &mut self,
        enrolment: &Enrolment,
        with: Option<Digest>,
        token_hash: Digest,
        now: Timestamp,
        known_key: bool,
    ) -> Result<(), AccessError> {
        self.change(|tables| {
            if let Some(with) = with {
                tables.use_up(&with, enrolment.agent, now)?;
            }
            tables.enroll(enrolment, token_hash, now, known_key)
        })
    }

    pub(super) fn set_key(&self, agent: AgentId, key: &PublicKey) -> Result<(), AccessError> {
        let changed = self.connection.execute(
            "UPDATE agents SET key = ?2 WHERE id = ?1",
            params![agent.to_hex(), key.to_hex()],
        );
        self.wrap(changed).map(|_| ())
    }

    pub(super) fn revoke_agent(
        &self,
        agent: AgentId,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), AccessError> {
        let changed = self.wrap(self.connection.execute(
            "UPDATE agents SET revoked = ?2, revoked_reason = ?3
             WHERE id = ?1 AND revoked IS NULL",
            params![agent.to_hex(), now.to_string(), reason],
        ))?;
        if changed == 0 {
            return Err(AccessError::NoSuchAgent(agent));
        }
        self.act("agent.revoke", &agent.to_hex(), reason)
    }

    pub(super) fn fork_seen(
        &self,
        agent: AgentId,
        head: &TreeHead,
        note: &str,
        now: Timestamp,
    ) -> Result<(), AccessError> {
        let written = self.connection.execute(
            "INSERT OR IGNORE INTO forks (size, root, agent, note, seen)
             SELECT ?1, ?2, ?3, ?4, ?5 WHERE (SELECT count(*) FROM forks) < ?6",
            params![
                i64::try_from(head.size).unwrap_or(i64::MAX),
                head.root.to_hex(),
                agent.to_hex(),
                note,
                now.to_string(),
                MAX_FORKS
            ],
        );
        self.wrap(written).map(|_| ())
    }

    pub(super) fn forks(&self) -> Result<Vec<ForkRow>, AccessError> {
        let read = || {
            let mut select = self.connection.prepare_cached(
                "SELECT size, root, agent, seen, accepted, reason FROM forks ORDER BY seen, size",
            )?;
            select.query_map([], fork_of)?.collect()
        };
        self.wrap(read())
    }

    pub(super) fn accept_forks(&self, reason: &str, now: Timestamp) -> Result<usize, AccessError> {
        let changed = self.wrap(self.connection.execute(
            "UPDATE forks SET accepted = ?1, reason = ?2 WHERE accepted IS NULL",
            params![now.to_string(), reason],
        ))?;
        self.act("log.accept_fork", &format!("{changed} forks"), reason)?;
        Ok(changed)
    }

    /// Notes an act, until it is an event.
    fn act(&self, action: &str, target: &str, reason: &str) -> Result<(), AccessError> {
        self.tables().act(None, action, target, reason)
    }

    /// The oldest acts that are not events yet.
    pub(super) fn acts(&self) -> Result<Vec<ActRow>, AccessError> {
        let read = || {
            let mut select = self.connection.prepare_cached(
                "SELECT id, action, target, reason, who FROM acts ORDER BY id LIMIT 200",
            )?;
            let row = |row: &Row<'_>| {
                Ok(ActRow {
                    id: row.get(0)?,
                    action: row.get(1)?,
                    target: row.get(2)?,
                    reason: row.get(3)?,
                    who: row.get(4)?,
                })
            };
            select.query_map([], row)?.collect()
        };
        self.wrap(read())
    }

    /// Acts up to this one are events.
    pub(super) fn forget_acts(&self, id: i64) -> Result<(), AccessError> {
        self.wrap(self.connection.execute("DELETE FROM acts WHERE id <= ?1", [id])).map(|_| ())
    }

    pub(super) fn add_first(
        &mut self,
        tokens: [(&str, Role, Digest); 2],
        now: Timestamp,
    ) -> Result<(), AccessError> {
        self.change(|tables| {
            for (name, role, hash) in tokens {
                tables.insert_token(&TokenRow::new(name, role.name(), hash, now))?;
            }
            Ok(())
        })
    }

    /// The tables of accounts, outside a change.
    pub(super) fn tables(&self) -> Tables<'_> {
        Tables { path: &self.path, connection: &self.connection }
    }

    /// When tokens were used last.
    pub(super) fn note_used(&mut self, used: &[(Digest, Timestamp)]) -> Result<(), AccessError> {
        let path = &self.path;
        let failed = |source| AccessError::Database { path: path.clone(), source };
        let all = self.connection.transaction().map_err(failed)?;
        let tables = Tables { path, connection: &all };
        used.iter().try_for_each(|(hash, at)| tables.token_used(hash, *at))?;
        all.commit().map_err(failed)
    }

    /// All of `work`, or nothing of it; and never so that nobody is left who can administer.
    pub(super) fn change<T>(
        &mut self,
        work: impl FnOnce(&Tables<'_>) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let path = &self.path;
        let failed = |source| AccessError::Database { path: path.clone(), source };
        let all = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let tables = Tables { path, connection: &all };
        let before = tables.administrators()?;
        let done = work(&tables)?;
        if before > 0 && tables.administrators()? == 0 {
            return Err(AccessError::LastAdmin);
        }
        all.commit().map_err(failed)?;
        Ok(done)
    }
}

/// A column's text, read by `parse`.
fn column<T>(
    row: &Row<'_>,
    at: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let text: String = row.get(at)?;
    parse(&text).ok_or_else(|| {
        let what = format!("column {at} holds {text:?}");
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, what.into())
    })
}

fn time(text: &str) -> Option<Timestamp> {
    Timestamp::parse(text).ok()
}

fn optional_time(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Timestamp>> {
    let text: Option<String> = row.get(at)?;
    text.map(|_| column(row, at, time)).transpose()
}

fn agent_of(row: &Row<'_>) -> rusqlite::Result<AgentRow> {
    Ok(AgentRow {
        id: column(row, 0, |text| text.parse().ok())?,
        host: row.get(1)?,
        hostname: row.get(2)?,
        key: column(row, 3, |text| PublicKey::from_hex(text).ok())?,
        token_hash: column(row, 4, |text| text.parse().ok())?,
        version: row.get(5)?,
        enrolled: column(row, 6, time)?,
        revoked: optional_time(row, 7)?,
        revoked_reason: row.get(8)?,
    })
}

fn fork_of(row: &Row<'_>) -> rusqlite::Result<ForkRow> {
    let size: i64 = row.get(0)?;
    let reason: Option<String> = row.get(5)?;
    Ok(ForkRow {
        head: TreeHead {
            root: column(row, 1, |text| text.parse().ok())?,
            size: u64::try_from(size).unwrap_or_default(),
        },
        agent: column(row, 2, |text| text.parse().ok())?,
        seen: column(row, 3, time)?,
        accepted: optional_time(row, 4)?.map(|at| (at, reason.unwrap_or_default())),
    })
}
