//! Users, roles, tokens and sessions: who may make and change which.
//!
//! # Rules
//! - Nobody gives a permission or a scope that they do not have ([`By::may_give`]), and nobody
//!   changes an account that may do or see what they may not: it is to them as if it were not there.
//! - Someone is left who can administer everything: the change that would end that is refused
//!   ([`AccessError::LastAdmin`]).
//! - Every change is an act, written in the same transaction.
//! - The command line on the collector's own machine is bound by the second and third rule alone:
//!   whoever can write the database needs no leave.

use std::time::Duration;

use custody_event::{Digest, Timestamp};

use super::db::{RoleRow, Roles, SessionRow, Tables, TokenRow, UserRow};
use super::principal::{Kind, Principal};
use super::{Access, AccessError, Permissions, Role, Scope, hash_of};

/// How long a login lasts.
pub const SESSION_LIFE: Duration = Duration::from_secs(8 * 3_600);
/// Sessions of one account at once; the oldest goes first.
const MAX_OWN_SESSIONS: usize = 50;
/// Sessions at once.
const MAX_SESSIONS: usize = 10_000;
const MAX_NAME_CHARS: usize = 64;
/// Accounts of one kind, at most.
const MAX_ACCOUNTS: usize = 10_000;

/// On whose behalf something is changed.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// The command line on the collector's machine.
    Machine,
    /// Somebody who asked the API.
    Principal(&'a Principal),
}

impl By<'_> {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Machine => None,
            Self::Principal(principal) => Some(&principal.name),
        }
    }

    fn owner(&self) -> Option<String> {
        match self {
            Self::Machine => None,
            Self::Principal(principal) => principal.owner.clone(),
        }
    }

    /// Is all of this theirs?
    fn covers(&self, permissions: Permissions, scope: &Scope) -> bool {
        match self {
            Self::Machine => true,
            Self::Principal(own) => {
                permissions.within(own.permissions)
                    && own.scopes.iter().all(|bound| scope.within(bound))
            }
        }
    }

    /// May they give this?
    fn may_give(&self, roles: &Roles, role: &str, scope: &Scope) -> Result<(), AccessError> {
        scope.check().map_err(AccessError::BadScope)?;
        let missing = || AccessError::NoSuchRole(role.to_owned());
        let permissions = roles.permissions(role).ok_or_else(missing)?;
        // A token that enrols brings agents of any tenant and host.
        let enrols = role == Role::Enroll.name();
        let bounded = matches!(self, Self::Principal(own) if !own.sees_all());
        if !self.covers(permissions, scope) || enrols && bounded {
            return Err(AccessError::Wider);
        }
        Ok(())
    }

    /// May they see and change an account with this role and scope?
    fn reaches(&self, roles: &Roles, role: &str, scope: &Scope) -> bool {
        self.covers(roles.permissions(role).unwrap_or_default(), scope)
    }
}

/// A user who is to be.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The name: letters, digits and `._@+-`.
    pub name: String,
    /// A role's name.
    pub role: String,
    /// What the user sees.
    pub scope: Scope,
    /// The password as [`super::password::hashed`] gives it.
    pub password: String,
}

/// What of a user changes.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// Another role.
    pub role: Option<String>,
    /// Another scope.
    pub scope: Option<Scope>,
    /// Enabled or disabled.
    pub disabled: Option<bool>,
    /// Another password, as [`super::password::hashed`] gives it.
    pub password: Option<String>,
}

/// A token that is to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Whose it is, or what for.
    pub name: String,
    /// A role's name.
    pub role: String,
    /// What it sees.
    pub scope: Scope,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// Good for one agent only: a token of the role `enroll`.
    pub once: bool,
}

/// A user's name as it is kept.
///
/// # Errors
/// It is none.
pub fn user_name(name: &str) -> Result<String, AccessError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME_CHARS || !name.bytes().all(good) {
        return Err(AccessError::BadName("letters, digits and ._@+-, at most 64"));
    }
    Ok(name.to_ascii_lowercase())
}

fn check_text_name(name: &str) -> Result<(), AccessError> {
    let edge = name.trim() != name;
    let long = name.chars().count() > MAX_NAME_CHARS;
    if name.is_empty() || edge || long || name.contains(char::is_control) {
        return Err(AccessError::BadName("1 to 64 characters, no control characters"));
    }
    Ok(())
}

/// A name says who did something, so no two live accounts share one.
fn check_free(tables: &Tables<'_>, name: &str) -> Result<(), AccessError> {
    let name = name.to_lowercase();
    let token = tables
        .tokens()?
        .iter()
        .any(|token| token.revoked.is_none() && token.name.to_lowercase() == name);
    if token || tables.user(&name)?.is_some() {
        return Err(AccessError::NameTaken(name));
    }
    Ok(())
}

/// A role and a scope in one line, for the record.
fn said(role: &str, scope: &Scope) -> String {
    if scope.is_all() {
        return role.to_owned();
    }
    let scope = serde_json::to_string(scope).unwrap_or_default();
    format!("{role}, {scope}")
}

impl Access {
    /// Users whom the asker may see, by name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn users(&self, by: By<'_>) -> Result<Vec<UserRow>, AccessError> {
        let db = self.db();
        let (tables, roles) = (db.tables(), db.tables().roles()?);
        let mut users = tables.users()?;
        users.retain(|user| by.reaches(&roles, &user.role, &user.scope));
        Ok(users)
    }

    /// Makes a user.
    ///
    /// # Errors
    /// The name, role or scope is bad, taken or not the asker's to give.
    pub fn create_user(&self, by: By<'_>, new: NewUser) -> Result<UserRow, AccessError> {
        let name = user_name(&new.name)?;
        let user = UserRow {
            name,
            role: new.role,
            scope: new.scope,
            created: self.clock.now(),
            password_set: self.clock.now(),
            disabled: None,
            last_login: None,
        };
        self.change(|tables| {
            if user.role == Role::Enroll.name() {
                return Err(AccessError::NoSuchRole(user.role.clone()));
            }
            by.may_give(&tables.roles()?, &user.role, &user.scope)?;
            check_free(tables, &user.name)?;
            if tables.users()?.len() >= MAX_ACCOUNTS {
                return Err(AccessError::Full(MAX_ACCOUNTS));
            }
            tables.insert_user(&user, &new.password)?;
            tables.act(by.name(), "user.create", &user.name, &said(&user.role, &user.scope))
        })?;
        Ok(user)
    }

    /// Changes a user; a new password ends all sessions, and so does disabling.
    ///
    /// # Errors
    /// There is no such user (or not for the asker), or the asker may not give this.
    pub fn change_user(
        &self,
        by: By<'_>,
        name: &str,
        change: UserChange,
    ) -> Result<UserRow, AccessError> {
        let now = self.clock.now();
        self.change(|tables| {
            let roles = tables.roles()?;
            let mut user = reach_user(tables, &roles, by, name)?;
            let (role, scope) = (user.role.clone(), user.scope.clone());
            user.role = change.role.clone().unwrap_or(user.role);
            user.scope = change.scope.clone().unwrap_or(user.scope);
            if (&user.role, &user.scope) != (&role, &scope) {
                if user.role == Role::Enroll.name() {
                    return Err(AccessError::NoSuchRole(user.role));
                }
                by.may_give(&roles, &user.role, &user.scope)?;
                let reason =
                    format!("{}; was {}", said(&user.role, &user.scope), said(&role, &scope));
                tables.act(by.name(), "user.update", &user.name, &reason)?;
            }
            if let Some(disabled) = change.disabled
                && disabled != user.disabled.is_some()
            {
                user.disabled = disabled.then_some(now);
                let action = if disabled { "user.disable" } else { "user.enable" };
                tables.end_sessions(&user.name)?;
                tables.act(by.name(), action, &user.name, "")?;
            }
            tables.update_user(&user)?;
            if let Some(password) = &change.password {
                tables.set_password(&user.name, password, now)?;
                user.password_set = now;
                tables.act(by.name(), "user.password", &user.name, "")?;
            }
            Ok(user)
        })
    }

    /// Removes a user, the user's sessions, and revokes the user's tokens.
    ///
    /// # Errors
    /// There is no such user (or not for the asker).
    pub fn delete_user(&self, by: By<'_>, name: &str) -> Result<(), AccessError> {
        let now = self.clock.now();
        self.change(|tables| {
            let user = reach_user(tables, &tables.roles()?, by, name)?;
            for token in tables.tokens()? {
                if token.owner.as_deref() == Some(&user.name) && token.revoked.is_none() {
                    tables.revoke_token(&token.hash, now)?;
                    tables.act(by.name(), "token.revoke", &token.name, "its user is deleted")?;
                }
            }
            tables.delete_user(&user.name)?;
            tables.act(by.name(), "user.delete", &user.name, "")
        })
    }

    /// The password of a user as it is kept, for [`super::password::is`]; of disabled users too.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) fn kept_password(&self, name: &str) -> Result<Option<String>, AccessError> {
        self.db().tables().password(&name.to_ascii_lowercase())
    }

    /// Sets the asker's own password.
    ///
    /// # Errors
    /// There is no such user, or the database cannot be written.
    pub(super) fn set_own_password(&self, name: &str, kept: &str) -> Result<(), AccessError> {
        let now = self.clock.now();
        self.change(|tables| {
            tables.set_password(name, kept, now)?;
            tables.act(Some(name), "user.password", name, "by the user")
        })
    }

    /// Custom roles, by name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn roles(&self) -> Result<Vec<RoleRow>, AccessError> {
        Ok(self.db().tables().roles()?.0.into_values().collect())
    }

    /// Makes a role of permissions.
    ///
    /// # Errors
    /// The name is bad or taken, or a permission is not the asker's to give.
    pub fn create_role(
        &self,
        by: By<'_>,
        name: &str,
        permissions: Permissions,
    ) -> Result<RoleRow, AccessError> {
        let name = user_name(name)?;
        let role = RoleRow { name, permissions, created: self.clock.now() };
        self.change(|tables| {
            let roles = tables.roles()?;
            if roles.permissions(&role.name).is_some() {
                return Err(AccessError::NameTaken(role.name.clone()));
            }
            if roles.0.len() >= MAX_ACCOUNTS {
                return Err(AccessError::Full(MAX_ACCOUNTS));
            }
            if !by.covers_permissions(permissions) {
                return Err(AccessError::Wider);
            }
            tables.insert_role(&role)?;
            tables.act(by.name(), "role.create", &role.name, &permissions.names().join(","))
        })?;
        Ok(role)
    }

    /// Removes a custom role that nobody has.
    ///
    /// # Errors
    /// There is none of this name, it is in use, or it has a permission that the asker has not.
    pub fn delete_role(&self, by: By<'_>, name: &str) -> Result<(), AccessError> {
        if Role::from_name(name).is_some() {
            return Err(AccessError::BuiltIn);
        }
        self.change(|tables| {
            let missing = || AccessError::UnknownRole(name.to_owned());
            let role = tables.roles()?.0.remove(name).ok_or_else(missing)?;
            if !by.covers_permissions(role.permissions) {
                return Err(AccessError::Wider);
            }
            let token = tables.tokens()?;
            let token = token.iter().find(|token| token.role == name && token.revoked.is_none());
            let users = tables.users()?;
            let user = users.iter().find(|user| user.role == name);
            if let Some(holder) = token.map(|t| &t.name).or(user.map(|u| &u.name)) {
                return Err(AccessError::RoleInUse(holder.clone()));
            }
            tables.delete_role(name)?;
            tables.act(by.name(), "role.delete", name, "")
        })
    }

    /// Tokens that the asker may see, revoked ones too.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn tokens(&self, by: By<'_>) -> Result<Vec<TokenRow>, AccessError> {
        let db = self.db();
        let (tables, roles) = (db.tables(), db.tables().roles()?);
        let mut tokens = tables.tokens()?;
        tokens.retain(|token| by.reaches(&roles, &token.role, &token.scope));
        Ok(tokens)
    }

    /// Makes a token of `secret`.
    ///
    /// # Errors
    /// The name, role, scope or end is bad, taken or not the asker's to give.
    pub fn add_token(
        &self,
        by: By<'_>,
        new: NewToken,
        secret: &[u8; 32],
    ) -> Result<TokenRow, AccessError> {
        check_text_name(&new.name)?;
        let now = self.clock.now();
        if new.expires.is_some_and(|end| end <= now) {
            return Err(AccessError::Over);
        }
        if new.once && new.role != Role::Enroll.name() {
            return Err(AccessError::NotOnce);
        }
        let token = TokenRow {
            once: new.once,
            scope: new.scope,
            expires: new.expires,
            owner: by.owner(),
            ..TokenRow::new(&new.name, &new.role, hash_of(secret), now)
        };
        self.change(|tables| {
            by.may_give(&tables.roles()?, &token.role, &token.scope)?;
            check_free(tables, &token.name)?;
            if tables.tokens()?.iter().filter(|token| token.is_live(now)).count() >= MAX_ACCOUNTS {
                return Err(AccessError::Full(MAX_ACCOUNTS));
            }
            tables.forget_tokens(now, MAX_ACCOUNTS)?;
            tables.insert_token(&token)?;
            let end = token.expires.map(|end| format!(", until {end}")).unwrap_or_default();
            let once = if token.once { ", for one agent" } else { "" };
            let reason = said(&token.role, &token.scope) + &end + once;
            tables.act(by.name(), "token.create", &token.name, &reason)
        })?;
        Ok(token)
    }

    /// Revokes a token for ever, with its sessions.
    ///
    /// # Errors
    /// There is none of this name (or not for the asker).
    pub fn drop_token(&self, by: By<'_>, name: &str) -> Result<(), AccessError> {
        let now = self.clock.now();
        self.change(|tables| {
            let missing = || AccessError::NoSuchToken(name.to_owned());
            let token = tables.token(name)?.ok_or_else(missing)?;
            if !by.reaches(&tables.roles()?, &token.role, &token.scope) {
                return Err(missing());
            }
            tables.revoke_token(&token.hash, now)?;
            tables.act(by.name(), "token.revoke", name, "")
        })
    }

    /// Begins a session of this principal, whose bearer is `secret`; gives when it ends. `shown` is
    /// the token of a principal that is one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub(super) fn begin_session(
        &self,
        principal: &Principal,
        shown: Option<&str>,
        secret: &[u8; 32],
    ) -> Result<Timestamp, AccessError> {
        let created = self.clock.now();
        let life = i64::try_from(SESSION_LIFE.as_micros()).unwrap_or(i64::MAX);
        let end = created.plus_micros(life);
        let session = SessionRow {
            hash: hash_of(secret),
            user: (principal.kind == Kind::User).then(|| principal.name.clone()),
            token: shown.map(|token| Digest::of(token.as_bytes())),
            created,
            expires: principal.expires.map_or(end, |own| own.min(end)),
        };
        let expires = session.expires;
        let mut db = self.db();
        db.change(|tables| tables.insert_session(&session, MAX_OWN_SESSIONS, MAX_SESSIONS))?;
        drop(db);
        self.reload()?;
        Ok(expires)
    }

    /// Ends the session of this bearer; says whether there was one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub(super) fn end_session(&self, bearer: &str) -> Result<bool, AccessError> {
        let hash = Digest::of(bearer.as_bytes());
        let ended = self.db().tables().end_session(&hash)?;
        if ended {
            self.known_mut().remove(&hash);
        }
        Ok(ended)
    }
}

impl By<'_> {
    fn covers_permissions(&self, permissions: Permissions) -> bool {
        match self {
            Self::Machine => true,
            Self::Principal(own) => permissions.within(own.permissions),
        }
    }
}

/// The user of this name, if the asker may see and change them.
fn reach_user(
    tables: &Tables<'_>,
    roles: &Roles,
    by: By<'_>,
    name: &str,
) -> Result<UserRow, AccessError> {
    let missing = || AccessError::NoSuchUser(name.to_owned());
    let user = tables.user(&name.to_ascii_lowercase())?.ok_or_else(missing)?;
    if by.reaches(roles, &user.role, &user.scope) { Ok(user) } else { Err(missing()) }
}
