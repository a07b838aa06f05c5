//! The tables of users, roles, tokens and sessions.

use std::collections::BTreeMap;
use std::path::Path;

use custody_event::{Digest, Timestamp};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::{column, optional_time, time};
use crate::access::{AccessError, Permission, Permissions, Role, Scope};

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    pub(in crate::access) hash: Digest,
    /// Its name.
    pub name: String,
    /// The name of its role.
    pub role: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// What it sees.
    pub scope: Scope,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// When it was shown last, to the minute.
    pub last_used: Option<Timestamp>,
    /// The user who made it, and without whom it is worth nothing.
    pub owner: Option<String>,
    /// Is it good for one agent only?
    pub once: bool,
    /// The agent that has used it up.
    pub used_by: Option<String>,
}

impl TokenRow {
    pub(in crate::access) fn new(name: &str, role: &str, hash: Digest, now: Timestamp) -> Self {
        Self {
            hash,
            name: name.to_owned(),
            role: role.to_owned(),
            created: now,
            revoked: None,
            scope: Scope::ALL,
            expires: None,
            last_used: None,
            owner: None,
            once: false,
            used_by: None,
        }
    }

    /// Is it neither revoked nor over?
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|end| end > now)
    }
}

/// A user, without the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// The name, in lower case.
    pub name: String,
    /// The name of the role.
    pub role: String,
    /// What the user sees.
    pub scope: Scope,
    /// When the user was made.
    pub created: Timestamp,
    /// When the password was set.
    pub password_set: Timestamp,
    /// Since when the user is disabled.
    pub disabled: Option<Timestamp>,
    /// The last login.
    pub last_login: Option<Timestamp>,
}

/// A role that is made of permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRow {
    /// Its name.
    pub name: String,
    /// What it allows.
    pub permissions: Permissions,
    /// When it was made.
    pub created: Timestamp,
}

/// Somebody who has logged in: a user, or the bearer of a token on the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::access) struct SessionRow {
    pub(in crate::access) hash: Digest,
    /// The user.
    pub(in crate::access) user: Option<String>,
    /// The token's hash.
    pub(in crate::access) token: Option<Digest>,
    /// When it began.
    pub(in crate::access) created: Timestamp,
    /// When it ends.
    pub(in crate::access) expires: Timestamp,
}

/// Custom roles by name.
#[derive(Debug, Clone, Default)]
pub(in crate::access) struct Roles(pub(in crate::access) BTreeMap<String, RoleRow>);

impl Roles {
    /// What the role of this name allows; `None` for one that is not there.
    pub(in crate::access) fn permissions(&self, name: &str) -> Option<Permissions> {
        let built_in = Role::from_name(name).map(Role::permissions);
        built_in.or_else(|| self.0.get(name).map(|role| role.permissions))
    }
}

/// The tables, within a change or without.
pub(in crate::access) struct Tables<'a> {
    pub(super) path: &'a Path,
    pub(super) connection: &'a Connection,
}

const TOKEN: &str = "SELECT hash, name, role, created, revoked, scope, expires, last_used, owner,
                            once, used_by
                     FROM tokens";
const USER: &str =
    "SELECT name, role, scope, created, password_set, disabled, last_login FROM users";

impl Tables<'_> {
    pub(super) fn wrap<T>(&self, result: rusqlite::Result<T>) -> Result<T, AccessError> {
        result.map_err(|source| AccessError::Database { path: self.path.to_owned(), source })
    }

    pub(super) fn run(&self, sql: &str, params: impl Params) -> Result<usize, AccessError> {
        self.wrap(self.connection.execute(sql, params))
    }

    fn list<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, AccessError> {
        let all = || self.connection.prepare_cached(sql)?.query_map(params, read)?.collect();
        self.wrap(all())
    }

    /// Notes an act, until it is an event.
    pub(in crate::access) fn act(
        &self,
        who: Option<&str>,
        action: &str,
        target: &str,
        reason: &str,
    ) -> Result<(), AccessError> {
        let sql = "INSERT INTO acts (action, target, reason, who) VALUES (?1, ?2, ?3, ?4)";
        self.run(sql, params![action, target, reason, who]).map(drop)
    }

    /// How many can administer everything, and will still be able to tomorrow: users who are not
    /// disabled, and tokens without an end.
    pub(in crate::access) fn administrators(&self) -> Result<usize, AccessError> {
        let roles = self.roles()?;
        let may = |role: &str, scope: &Scope| {
            scope.is_all()
                && roles.permissions(role).is_some_and(|all| all.has(Permission::Administer))
        };
        let users: Vec<UserRow> =
            self.users()?.into_iter().filter(|user| user.disabled.is_none()).collect();
        let able: Vec<&UserRow> =
            users.iter().filter(|user| may(&user.role, &user.scope)).collect();
        let tokens = self.tokens()?;
        let tokens = tokens.iter().filter(|token| {
            let owned = token.owner.as_deref();
            token.revoked.is_none()
                && token.expires.is_none()
                && may(&token.role, &token.scope)
                && owned.is_none_or(|owner| able.iter().any(|user| user.name == owner))
        });
        Ok(able.len() + tokens.count())
    }

    pub(in crate::access) fn roles(&self) -> Result<Roles, AccessError> {
        let sql = "SELECT name, permissions, created FROM roles";
        let all = self.list(sql, [], role_of)?;
        Ok(Roles(all.into_iter().map(|role| (role.name.clone(), role)).collect()))
    }

    pub(in crate::access) fn insert_role(&self, role: &RoleRow) -> Result<(), AccessError> {
        let permissions = role.permissions.names().join(",");
        let sql = "INSERT INTO roles (name, permissions, created) VALUES (?1, ?2, ?3)";
        self.run(sql, params![role.name, permissions, role.created.to_string()]).map(drop)
    }

    pub(in crate::access) fn delete_role(&self, name: &str) -> Result<(), AccessError> {
        self.run("DELETE FROM roles WHERE name = ?1", [name]).map(drop)
    }

    pub(in crate::access) fn tokens(&self) -> Result<Vec<TokenRow>, AccessError> {
        self.list(&format!("{TOKEN} ORDER BY created, name"), [], token_of)
    }

    /// The token of this name that is not revoked.
    pub(in crate::access) fn token(&self, name: &str) -> Result<Option<TokenRow>, AccessError> {
        let sql = format!("{TOKEN} WHERE name = ?1 AND revoked IS NULL");
        Ok(self.list(&sql, [name], token_of)?.pop())
    }

    pub(in crate::access) fn insert_token(&self, token: &TokenRow) -> Result<(), AccessError> {
        let sql = "INSERT INTO tokens (hash, name, role, created, scope, expires, owner, once)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let values = params![
            token.hash.to_hex(),
            token.name,
            token.role,
            token.created.to_string(),
            scope_text(&token.scope),
            token.expires.map(|time| time.to_string()),
            token.owner,
            token.once,
        ];
        self.run(sql, values).map(drop)
    }

    /// The name becomes free again.
    pub(in crate::access) fn revoke_token(
        &self,
        hash: &Digest,
        now: Timestamp,
    ) -> Result<(), AccessError> {
        let sql = "UPDATE tokens SET revoked = ?2, name = name || ' (revoked ' || ?2 || ')'
                   WHERE hash = ?1 AND revoked IS NULL";
        let (hash, now) = (hash.to_hex(), now.to_string());
        self.run(sql, params![hash, now])?;
        self.run("DELETE FROM sessions WHERE token = ?1", [hash]).map(drop)
    }

    /// Of the tokens that are revoked or over, the newest `keep` stay, for those who look back.
    pub(in crate::access) fn forget_tokens(
        &self,
        now: Timestamp,
        keep: usize,
    ) -> Result<(), AccessError> {
        let sql = "DELETE FROM tokens WHERE hash IN (SELECT hash FROM tokens
                   WHERE revoked IS NOT NULL OR expires <= ?1
                   ORDER BY coalesce(revoked, expires) DESC, hash LIMIT -1 OFFSET ?2)";
        self.run(sql, params![now.to_string(), count(keep)]).map(drop)
    }

    pub(in crate::access) fn token_used(
        &self,
        hash: &Digest,
        at: Timestamp,
    ) -> Result<(), AccessError> {
        let sql = "UPDATE tokens SET last_used = ?2 WHERE hash = ?1";
        self.run(sql, params![hash.to_hex(), at.to_string()]).map(drop)
    }

    pub(in crate::access) fn users(&self) -> Result<Vec<UserRow>, AccessError> {
        self.list(&format!("{USER} ORDER BY name"), [], user_of)
    }

    pub(in crate::access) fn user(&self, name: &str) -> Result<Option<UserRow>, AccessError> {
        Ok(self.list(&format!("{USER} WHERE name = ?1"), [name], user_of)?.pop())
    }

    /// The user's password as it is kept.
    pub(in crate::access) fn password(&self, name: &str) -> Result<Option<String>, AccessError> {
        let sql = "SELECT password FROM users WHERE name = ?1";
        self.wrap(self.connection.query_row(sql, [name], |row| row.get(0)).optional())
    }

    pub(in crate::access) fn insert_user(
        &self,
        user: &UserRow,
        password: &str,
    ) -> Result<(), AccessError> {
        let sql = "INSERT INTO users (name, password, role, scope, created, password_set)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?5)";
        let (scope, now) = (scope_text(&user.scope), user.created.to_string());
        self.run(sql, params![user.name, password, user.role, scope, now]).map(drop)
    }

    pub(in crate::access) fn update_user(&self, user: &UserRow) -> Result<(), AccessError> {
        let sql = "UPDATE users SET role = ?2, scope = ?3, disabled = ?4 WHERE name = ?1";
        let disabled = user.disabled.map(|time| time.to_string());
        self.run(sql, params![user.name, user.role, scope_text(&user.scope), disabled]).map(drop)
    }

    /// Sets a password, and ends all sessions of the user.
    pub(in crate::access) fn set_password(
        &self,
        name: &str,
        password: &str,
        now: Timestamp,
    ) -> Result<(), AccessError> {
        let sql = "UPDATE users SET password = ?2, password_set = ?3 WHERE name = ?1";
        self.run(sql, params![name, password, now.to_string()])?;
        self.end_sessions(name)
    }

    pub(in crate::access) fn delete_user(&self, name: &str) -> Result<(), AccessError> {
        self.end_sessions(name)?;
        self.run("DELETE FROM users WHERE name = ?1", [name]).map(drop)
    }

    pub(in crate::access) fn end_sessions(&self, user: &str) -> Result<(), AccessError> {
        self.run("DELETE FROM sessions WHERE user = ?1", [user]).map(drop)
    }

    pub(in crate::access) fn sessions(
        &self,
        now: Timestamp,
    ) -> Result<Vec<SessionRow>, AccessError> {
        let sql = "SELECT hash, user, token, created, expires FROM sessions WHERE expires > ?1";
        self.list(sql, [now.to_string()], session_of)
    }

    /// Begins a session; the oldest of the same account, and of all, go where there are too many.
    pub(in crate::access) fn insert_session(
        &self,
        session: &SessionRow,
        max_own: usize,
        max_all: usize,
    ) -> Result<(), AccessError> {
        let token = session.token.map(|hash| hash.to_hex());
        let now = session.created.to_string();
        self.run("DELETE FROM sessions WHERE expires <= ?1", [&now])?;
        let sql = "DELETE FROM sessions WHERE hash IN (SELECT hash FROM sessions
                   WHERE user IS ?1 AND token IS ?2 ORDER BY created DESC, hash LIMIT -1 OFFSET ?3)";
        self.run(sql, params![session.user, token, count(max_own - 1)])?;
        let sql = "DELETE FROM sessions WHERE hash IN (SELECT hash FROM sessions
                   ORDER BY created DESC, hash LIMIT -1 OFFSET ?1)";
        self.run(sql, [count(max_all - 1)])?;
        let sql = "INSERT INTO sessions (hash, user, token, created, expires)
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        let hash = session.hash.to_hex();
        self.run(sql, params![hash, session.user, token, now, session.expires.to_string()])?;
        if let Some(user) = &session.user {
            self.run("UPDATE users SET last_login = ?2 WHERE name = ?1", params![user, now])?;
        }
        Ok(())
    }

    pub(in crate::access) fn end_session(&self, hash: &Digest) -> Result<bool, AccessError> {
        self.run("DELETE FROM sessions WHERE hash = ?1", [hash.to_hex()]).map(|gone| gone > 0)
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn scope_text(scope: &Scope) -> String {
    serde_json::to_string(scope).unwrap_or_default()
}

fn scope(text: &str) -> Option<Scope> {
    serde_json::from_str(text).ok()
}

fn permissions(text: &str) -> Option<Permissions> {
    Permissions::from_names(text.split(',').filter(|name| !name.is_empty())).ok()
}

fn optional_digest(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Digest>> {
    let text: Option<String> = row.get(at)?;
    text.map(|_| column(row, at, |text| text.parse().ok())).transpose()
}

fn role_of(row: &Row<'_>) -> rusqlite::Result<RoleRow> {
    Ok(RoleRow {
        name: row.get(0)?,
        permissions: column(row, 1, permissions)?,
        created: column(row, 2, time)?,
    })
}

fn token_of(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    Ok(TokenRow {
        hash: column(row, 0, |text| text.parse().ok())?,
        name: row.get(1)?,
        role: row.get(2)?,
        created: column(row, 3, time)?,
        revoked: optional_time(row, 4)?,
        scope: column(row, 5, scope)?,
        expires: optional_time(row, 6)?,
        last_used: optional_time(row, 7)?,
        owner: row.get(8)?,
        once: row.get(9)?,
        used_by: row.get(10)?,
    })
}

fn user_of(row: &Row<'_>) -> rusqlite::Result<UserRow> {
    Ok(UserRow {
        name: row.get(0)?,
        role: row.get(1)?,
        scope: column(row, 2, scope)?,
        created: column(row, 3, time)?,
        password_set: column(row, 4, time)?,
        disabled: optional_time(row, 5)?,
        last_login: optional_time(row, 6)?,
    })
}

fn session_of(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        hash: column(row, 0, |text| text.parse().ok())?,
        user: row.get(1)?,
        token: optional_digest(row, 2)?,
        created: column(row, 3, time)?,
        expires: column(row, 4, time)?,
    })
}
