//! Who may do what: enrolled agents, users, tokens and roles, in SQLite (`collector.db` in the data
//! directory).
//!
//! # Secrets
//! Tokens and sessions are 32 random bytes as 64 hex digits. Only their SHA-256 is kept: with 256
//! random bits a slow hash would add nothing. Look-up goes by the hash's first bytes, then compares
//! the rest in constant time. A token is shown once, when it is made; the two of the first start
//! stand in `admin.token` and `enroll.token` (mode 0600). Passwords are another thing: [`password`].
//!
//! # Who asks
//! A bearer is worth a [`Principal`]: permissions ([`Permission`]), a [`Scope`] of tenants, hosts
//! and categories, and by them what of an event is shown ([`Sight`]). [`Gate::admit`] lets a request
//! in, [`Principal::narrow`] bounds every question to the index, and what is refused is recorded.
//!
//! # Freshness
//! The answers come from memory; at most once a second it is asked whether another process (the
//! command line) has changed the database, and at every login. Requests do not wait for a database that
//! is at work, unless what they show is not known; a login waits, and fails with 503 after a while
//! rather than call somebody unknown who is not.

mod accounts;
mod db;
mod gate;
pub mod http;
mod known;
mod lockout;
mod login;
#[cfg(test)]
mod matrix;
pub mod oidc;
mod pace;
pub mod password;
mod permission;
mod principal;
mod role;
mod scope;
mod sight;
pub(crate) mod throttle;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{
    Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
};
use std::time::Duration;

use custody_event::{AgentId, Clock, Digest, Timestamp};
use custody_evidence::PublicKey;
use custody_evidence::tlog::TreeHead;
use custody_evidence::whole::{PRIVATE, write_whole};

pub use accounts::{By, NewToken, NewUser, SESSION_LIFE, UserChange, user_name};
pub(crate) use db::connect;
pub use db::{ActRow, AgentRow, ForkRow, RoleRow, TokenRow, UserRow};
pub use gate::{Gate, bearer};
use known::{Known, Worth};
pub use login::Logins;
pub use pace::TooMany;
pub use permission::{Permission, Permissions};
pub use principal::{Authenticator, Kind, Lapse, Principal, Standing};
pub use role::Role;
pub use scope::Scope;
pub use sight::Sight;

/// Whose token was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    Agent(Arc<AgentRow>),
    /// Whoever has the token of this hash.
    Enroller(Digest),
    Reader(Principal),
}

/// Why access cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// SQLite.
    #[error("{path}: {source}")]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A token file.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database is of a newer program.
    #[error("{path}: schema {found} is newer than this program's ({known}); use the newer program")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The name is taken.
    #[error("there is a user, token or role named {0:?} already; choose another name")]
    NameTaken(String),
    /// No such token.
    #[error("there is no token named {0:?} that is not revoked; `token list` shows all")]
    NoSuchToken(String),
    /// No such user.
    #[error("there is no user named {0:?}; `user list` shows all")]
    NoSuchUser(String),
    /// No such role, or not for this.
    #[error("there is no role named {0:?} for this; `role list` shows all")]
    NoSuchRole(String),
    /// No role of this name was made.
    #[error("there is no role named {0:?} that was made here; `role list` shows all")]
    UnknownRole(String),
    /// Somebody has the role.
    #[error("{0:?} has this role; give them another first")]
    RoleInUse(String),
    /// A role that is always there.
    #[error("this role is always there; only roles that were made can be removed")]
    BuiltIn,
    /// The change would give, or take, what the one who asks does not have.
    #[error(
        "nobody gives or takes a permission, or a tenant, host or category, that they do not have themselves"
    )]
    Wider,
    /// Nobody could administer any more.
    #[error("nobody would be left who can administer everything; make another administrator first")]
    LastAdmin,
    /// A name that cannot be.
    #[error("the name is not good: {0}")]
    BadName(&'static str),
    /// A scope that cannot be.
    #[error("scope: {0}")]
    BadScope(String),
    /// An end in the past.
    #[error("it would have ended already; name a time to come")]
    Over,
    /// A token for one agent that enrols none.
    #[error("only a token of the role enroll can be for one agent; leave `once` out")]
    NotOnce,
    /// A token for one agent that another has used.
    #[error(
        "this enrolment token was for one agent and has been used by agent {0}; if you did not \
         enrol that one, revoke it, and ask for a new token"
    )]
    UsedUp(String),
    /// Too many accounts.
    #[error("there are {0} already; remove some that nobody needs")]
    Full(usize),
    /// The password.
    #[error(transparent)]
    Password(#[from] password::PasswordError),
    /// The agent's id belongs to another key.
    #[error(
        "agent {0} is enrolled with another key; if its key was made anew, remove the agent's data \
         directory so that it takes a new id"
    )]
    KeyConflict(AgentId),
    /// No such agent.
    #[error("there is no agent {0} that is not revoked")]
    NoSuchAgent(AgentId),
    /// The agent has been revoked.
    #[error("agent {0} has been revoked")]
    Revoked(AgentId),
}

/// A fresh secret.
///
/// # Errors
/// The system gives no randomness.
pub fn random_secret() -> std::io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(std::io::Error::other)?;
    Ok(secret)
}

/// How a token is written.
#[must_use]
pub fn token_text(secret: &[u8; 32]) -> String {
    Digest(*secret).to_hex()
}

/// The database in a data directory.
#[must_use]
pub fn database_in(data_dir: &Path) -> PathBuf {
    data_dir.join("collector.db")
}

/// Asking SQLite whether it has changed costs microseconds; once a second is often enough for a
/// token that has just been revoked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is shown and not known waits so often, so long, for a database that is at work.
const STRANGER_WAITS: u32 = if cfg!(test) { 4_000 } else { 20 };
const STRANGER_WAIT: Duration = Duration::from_millis(5);

/// How often it is written down that a token is in use.
const NOTE_EVERY_US: i64 = 60 * 1_000_000;

/// When a token was shown last.
#[derive(Debug, Clone, Copy)]
struct Used {
    last: Timestamp,
    noted: Option<Timestamp>,
}

/// See the module.
pub struct Access {
    db: Mutex<db::Db>,
    known: RwLock<Known>,
    looked: Mutex<Duration>,
    /// Held by the one request that waits for the database.
    waiting: Mutex<()>,
    /// When tokens were shown last, and when that was last written down.
    used: Mutex<HashMap<Digest, Used>>,
    /// Set once, where requests are bounded.
    pace: OnceLock<pace::Pace>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

/// What an agent says of itself when it enrols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Its id.
    pub agent: AgentId,
    /// Its host's id.
    pub host: String,
    /// Its host's name, for people.
    pub hostname: String,
    /// Its public key.
    pub key: PublicKey,
    /// Its program's version.
    pub version: String,
}

impl Access {
    /// Opens the database, making it where there is none.
    ///
    /// # Errors
    /// It cannot be opened, or is of a newer program.
    pub fn open(data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, AccessError> {
        let db = db::Db::open(&database_in(data_dir))?;
        let access = Self {
            db: Mutex::new(db),
            known: RwLock::default(),
            looked: Mutex::new(clock.monotonic()),
            waiting: Mutex::default(),
            used: Mutex::default(),
            pace: OnceLock::new(),
            clock,
        };
        access.reload()?;
        Ok(access)
    }

    /// Bounds the requests of each account; once.
    pub fn bound_requests(&self, per_minute: u32) {
        let _set = self.pace.set(pace::Pace::new(per_minute));
    }

    /// Makes the first tokens where there is none; says whether it did.
    ///
    /// # Errors
    /// A file or the database cannot be written.
    pub fn first_start(
        &self,
        data_dir: &Path,
        admin: &[u8; 32],
        enroll: &[u8; 32],
    ) -> Result<bool, AccessError> {
        if !self.db().tables().tokens()?.is_empty() {
            return Ok(false);
        }
        // Files first: after a crash in between there is still no token, and both are made again.
        write_token(&data_dir.join("admin.token"), admin)?;
        write_token(&data_dir.join("enroll.token"), enroll)?;
        let now = self.clock.now();
        self.db().add_first(
            [("admin", Role::Admin, hash_of(admin)), ("enroll", Role::Enroll, hash_of(enroll))],
            now,
        )?;
        self.reload()?;
        Ok(true)
    }

    fn db(&self) -> std::sync::MutexGuard<'_, db::Db> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reload(&self) -> Result<(), AccessError> {
        // The database is held until what it says is known: nobody's older reading comes after.
        let db = self.db();
        let known = Known::read(&db, self.clock.now())?;
        *self.known_mut() = known;
        drop(db);
        Ok(())
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change to accounts, all or nothing, known at once.
    fn change<T>(
        &self,
        work: impl FnOnce(&db::Tables<'_>) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let done = self.db().change(work)?;
        self.reload()?;
        Ok(done)
    }

    /// The user of this name, unless disabled; as the database says it now. Waits while the database
    /// is at work for somebody else: call it where blocking is allowed.
    fn principal(&self, name: &str) -> Option<Principal> {
        let found = self.db().data_version();
        self.learn(found);
        self.known().principal(name)
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the database from time to time; says whether what is known is as new as it should be.
    fn refresh(&self) -> bool {
        let now = self.clock.monotonic();
        let looked = || self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(*looked()) < LOOK_EVERY {
            return true;
        }
        let has_looked = self.look();
        if has_looked {
            *looked() = now;
        }
        has_looked
    }

    /// Has another process changed the database? Requests come through here: while the database is
    /// at work for somebody else, none waits for it, and it is not looked at.
    fn look(&self) -> bool {
        let found = match self.db.try_lock() {
            Ok(db) => db.data_version(),
            Err(TryLockError::Poisoned(db)) => db.into_inner().data_version(),
            Err(TryLockError::WouldBlock) => return false,
        };
        self.learn(found);
        true
    }

    /// Reads everything again where the database has changed. A failure leaves what is known as it
    /// is.
    fn learn(&self, found: Result<i64, AccessError>) {
        let before = self.known().data_version;
        let done = found.and_then(|found| if found == before { Ok(()) } else { self.reload() });
        if let Err(error) = done {
            log::warn!(error:% = error; "tokens could not be read again; those known stay valid");
        }
    }

    /// Somebody shows what nobody knows, and the database, which could not be looked at, may: waits
    /// for it, a little. One request at a time does, so that strangers cannot hold up all others.
    fn look_for_a_stranger(&self) {
        let Ok(_one) = self.waiting.try_lock() else { return };
        for _ in 0..STRANGER_WAITS {
            if self.look() {
                return;
            }
            std::thread::sleep(STRANGER_WAIT);
        }
    }

    /// What a token or session is worth.
    fn worth(&self, bearer: &str) -> Worth {
        let is_fresh = self.refresh();
        let (hash, now) = (Digest::of(bearer.as_bytes()), self.clock.now());
        let mut worth = self.known().worth(&hash, now);
        if !is_fresh && worth == Worth::Unknown {
            self.look_for_a_stranger();
            worth = self.known().worth(&hash, now);
        }
        if matches!(&worth, Worth::Enroller(_) | Worth::Reader(Principal { kind: Kind::Token, .. }))
        {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.entry(hash).or_insert(Used { last: now, noted: None }).last = now;
        }
        worth
    }

    /// Whose session this is.
    fn session(&self, bearer: &str) -> Option<Principal> {
        let principal = self.check(bearer)?;
        let hash = Digest::of(bearer.as_bytes());
        self.known().is_session(&hash).then_some(principal)
    }

    pub(crate) fn identify(&self, bearer: &str) -> Result<Identity, Standing> {
        match self.worth(bearer) {
            Worth::Agent(agent) => Ok(Identity::Agent(agent)),
            Worth::Enroller(token) => Ok(Identity::Enroller(token)),
            Worth::Reader(principal) => Ok(Identity::Reader(principal)),
            Worth::Lapsed(name, why) => Err(Standing::Lapsed(name, why)),
            Worth::Unknown => Err(Standing::Unknown),
        }
    }

    /// Writes down when tokens were used, of each at most once a minute.
    ///
    /// # Errors
    /// The database cannot be written; it is tried again in a minute.
    pub fn note_used(&self) -> Result<(), AccessError> {
        let mut due = Vec::new();
        for (hash, used) in self.used.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if used.noted.is_none_or(|noted| used.last >= noted.plus_micros(NOTE_EVERY_US)) {
                used.noted = Some(used.last);
                due.push((*hash, used.last));
            }
        }
        if due.is_empty() { Ok(()) } else { self.db().note_used(&due) }
    }

    /// Enrols an agent that has shown the token `with`, or gives one that is enrolled with this key a
    /// new token, which is `secret`.
    ///
    /// # Errors
    /// Its id belongs to another key (unless `known`: the log vouches for this one), it has been
    /// revoked, the token was for one agent and has been used, or the database cannot be written.
    pub fn enroll(
        &self,
        enrolment: &Enrolment,
        with: Option<Digest>,
        secret: &[u8; 32],
        known: bool,
    ) -> Result<(), AccessError> {
        self.db().enroll(enrolment, with, hash_of(secret), self.clock.now(), known)?;
        self.reload()
    }

    /// The agent signs with another key from now on; the transparency log says so.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn key_rotated(&self, agent: AgentId, key: &PublicKey) -> Result<(), AccessError> {
        self.db().set_key(agent, key)
    }

    /// The agent has a certificate until then.
    ///
    /// # Errors
    /// It is revoked, or the database cannot be written.
    pub fn certified(&self, agent: AgentId, until: Timestamp) -> Result<(), AccessError> {
        self.db().change(|tables| tables.certified(agent, until))?;
        self.reload()
    }

    /// Has this agent been revoked?
    #[must_use]
    pub fn is_revoked(&self, agent: &AgentId) -> bool {
        self.refresh();
        self.known().is_revoked(agent)
    }

    /// The agent of this id, revoked or not.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn agent(&self, id: AgentId) -> Result<Option<AgentRow>, AccessError> {
        Ok(self.db().agents()?.into_iter().find(|agent| agent.id == id))
    }

    /// Takes the agent's token and keys away, for ever.
    ///
    /// # Errors
    /// There is no such agent that is not revoked, or the database cannot be written.
    pub fn revoke_agent(&self, agent: AgentId, reason: &str) -> Result<(), AccessError> {
        self.db().revoke_agent(agent, reason, self.clock.now())?;
        self.reload()
    }

    /// Writes down that an agent holds a checkpoint which the log does not continue.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn fork_seen(
        &self,
        agent: AgentId,
        head: &TreeHead,
        note: &str,
    ) -> Result<(), AccessError> {
        self.db().fork_seen(agent, head, note, self.clock.now())
    }

    /// What was done with tokens, agents and forks and is not an event yet, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn acts(&self) -> Result<Vec<ActRow>, AccessError> {
        self.db().acts()
    }

    /// Acts up to this one are durable events.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn forget_acts(&self, id: i64) -> Result<(), AccessError> {
        self.db().forget_acts(id)
    }

    /// Forks that were seen, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn forks(&self) -> Result<Vec<ForkRow>, AccessError> {
        self.db().forks()
    }

    /// Accepts every fork that was seen and is not accepted; says how many.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn accept_forks(&self, reason: &str) -> Result<usize, AccessError> {
        self.db().accept_forks(reason, self.clock.now())
    }

    /// Agents, by id.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn agents(&self) -> Result<Vec<AgentRow>, AccessError> {
        self.db().agents()
    }

    /// Makes a token of `secret` without an end or a bound, as the command line does.
    ///
    /// # Errors
    /// The name is taken, or the database cannot be written.
    pub fn create_token(
        &self,
        name: &str,
        role: Role,
        secret: &[u8; 32],
    ) -> Result<(), AccessError> {
        let (name, role) = (name.to_owned(), role.name().to_owned());
        let new = NewToken { name, role, scope: Scope::ALL, expires: None, once: false };
        self.add_token(By::Machine, new, secret).map(drop)
    }
}

impl Authenticator for Access {
    fn check(&self, bearer: &str) -> Option<Principal> {
        match self.worth(bearer) {
            Worth::Reader(principal) => Some(principal),
            _ => None,
        }
    }

    fn judge(&self, bearer: &str) -> Standing {
        match self.worth(bearer) {
            Worth::Reader(principal) => Standing::Good(principal),
            Worth::Lapsed(name, why) => Standing::Lapsed(name, why),
            Worth::Agent(_) | Worth::Enroller(_) | Worth::Unknown => Standing::Unknown,
        }
    }

    fn account(&self, kind: Kind, name: &str, at: Timestamp) -> Option<Principal> {
        self.refresh();
        self.known().account(kind, name, at, self.clock.now())
    }

    fn spend(&self, who: &Principal) -> Result<(), TooMany> {
        match self.pace.get() {
            Some(pace) => pace.spend(&who.name, self.clock.monotonic()),
            None => Ok(()),
        }
    }
}

fn hash_of(secret: &[u8; 32]) -> Digest {
    Digest::of(token_text(secret).as_bytes())
}

fn write_token(path: &Path, secret: &[u8; 32]) -> Result<(), AccessError> {
    let line = format!("{}\n", token_text(secret));
    write_whole(path, line.as_bytes(), PRIVATE)
        .map_err(|source| AccessError::File { path: path.to_owned(), source })
}

/// A time as it is shown.
pub(crate) fn shown(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
