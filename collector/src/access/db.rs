//! The tables of `collector.db`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use custody_event::{AgentId, Digest, Timestamp};
use custody_evidence::PublicKey;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{AccessError, Enrolment, Role};

const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
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
";

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
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    pub(super) hash: Digest,
    /// Its name.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// When it was made.
    pub created: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

pub(super) struct Db {
    path: PathBuf,
    connection: Connection,
}

impl Db {
    pub(super) fn open(path: &Path) -> Result<Self, AccessError> {
        let failed = |source| AccessError::Database { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(failed)?;
        let db = Self { path: path.to_owned(), connection };
        let set_up = || -> rusqlite::Result<i64> {
            db.connection.busy_timeout(Duration::from_secs(5))?;
            db.connection.pragma_update(None, "journal_mode", "WAL")?;
            db.connection.pragma_update(None, "synchronous", "FULL")?;
            db.connection.pragma_query_value(None, "user_version", |row| row.get(0))
        };
        match set_up().map_err(failed)? {
            0 => {
                let schema = format!("BEGIN IMMEDIATE;{SCHEMA}COMMIT;");
                db.connection.execute_batch(&schema).map_err(failed)?;
            }
            SCHEMA_VERSION => {}
            found => {
                return Err(AccessError::Newer {
                    path: path.to_owned(),
                    found,
                    known: SCHEMA_VERSION,
                });
            }
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
                "SELECT id, host, hostname, key, token_hash, version, enrolled, revoked
                 FROM agents ORDER BY id",
            )?;
            select.query_map([], agent_of)?.collect()
        };
        self.wrap(read())
    }

    pub(super) fn enroll(
        &self,
        enrolment: &Enrolment,
        token_hash: Digest,
        now: Timestamp,
    ) -> Result<(), AccessError> {
        let id = enrolment.agent.to_hex();
        let key = enrolment.key.to_hex();
        let known: Option<(String, Option<String>)> = self.wrap(
            self.connection
                .query_row("SELECT key, revoked FROM agents WHERE id = ?1", [&id], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional(),
        )?;
        match known {
            Some((_, Some(_))) => return Err(AccessError::Revoked(enrolment.agent)),
            Some((other, None)) if other != key => {
                return Err(AccessError::KeyConflict(enrolment.agent));
            }
            _ => {}
        }
        let written = self.connection.execute(
            "INSERT INTO agents (id, host, hostname, key, token_hash, version, enrolled)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET host = excluded.host, hostname = excluded.hostname,
                 token_hash = excluded.token_hash, version = excluded.version,
                 enrolled = excluded.enrolled",
            params![
                id,
                enrolment.host,
                enrolment.hostname,
                key,
                token_hash.to_hex(),
                enrolment.version,
                now.to_string()
            ],
        );
        self.wrap(written).map(|_| ())
    }

    pub(super) fn tokens(&self) -> Result<Vec<TokenRow>, AccessError> {
        let read = || {
            let mut select = self.connection.prepare_cached(
                "SELECT hash, name, role, created, revoked FROM tokens ORDER BY created, name",
            )?;
            select.query_map([], token_of)?.collect()
        };
        self.wrap(read())
    }

    pub(super) fn add_first(
        &mut self,
        tokens: [(&str, Role, Digest); 2],
        now: Timestamp,
    ) -> Result<(), AccessError> {
        let add = |connection: &mut Connection| {
            let all = connection.transaction()?;
            for (name, role, hash) in tokens {
                insert_token(&all, name, role, hash, now)?;
            }
            all.commit()
        };
        let added = add(&mut self.connection);
        self.wrap(added)
    }

    pub(super) fn add_token(
        &self,
        name: &str,
        role: Role,
        hash: Digest,
        now: Timestamp,
    ) -> Result<(), AccessError> {
        match insert_token(&self.connection, name, role, hash, now) {
            Err(rusqlite::Error::SqliteFailure(error, _))
                if error.code == rusqlite::ErrorCode::ConstraintViolation =>
            {
                Err(AccessError::NameTaken(name.to_owned()))
            }
            other => self.wrap(other),
        }
    }

    /// The name becomes free again.
    pub(super) fn revoke_token(&self, name: &str, now: Timestamp) -> Result<(), AccessError> {
        let now = now.to_string();
        let changed = self.wrap(self.connection.execute(
            "UPDATE tokens SET revoked = ?2, name = name || ' (revoked ' || ?2 || ')'
             WHERE name = ?1 AND revoked IS NULL",
            params![name, now],
        ))?;
        if changed == 0 { Err(AccessError::NoSuchToken(name.to_owned())) } else { Ok(()) }
    }
}

fn insert_token(
    connection: &Connection,
    name: &str,
    role: Role,
    hash: Digest,
    now: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT INTO tokens (hash, name, role, created) VALUES (?1, ?2, ?3, ?4)",
            params![hash.to_hex(), name, role.name(), now.to_string()],
        )
        .map(|_| ())
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
    })
}

fn token_of(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    Ok(TokenRow {
        hash: column(row, 0, |text| text.parse().ok())?,
        name: row.get(1)?,
        role: column(row, 2, Role::from_name)?,
        created: column(row, 3, time)?,
        revoked: optional_time(row, 4)?,
    })
}
