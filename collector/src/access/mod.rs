//! Who may do what: enrolled agents and tokens, in SQLite (`collector.db` in the data directory).
//!
//! Tokens are 32 random bytes as 64 hex digits. Only their SHA-256 is kept: with 256 random bits
//! a slow hash would add nothing. Look-up goes by the hash's first bytes, then compares the rest in
//! constant time. A token is shown once, when it is made; the two of the first start stand in
//! `admin.token` and `enroll.token` (mode 0600).
//!
//! The answers come from memory; at most once a second it is asked whether another process (the
//! command line) has changed the database.

mod db;
mod permission;
pub(crate) mod throttle;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use custody_event::ids::push_hex;
use custody_event::{AgentId, Clock, Digest, Timestamp};
use custody_evidence::PublicKey;
use custody_evidence::tlog::TreeHead;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

pub use db::{ActRow, AgentRow, ForkRow, TokenRow};
pub use permission::{Permission, Permissions};

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Reading, reports and proofs.
    Auditor,
    /// Reading.
    Viewer,
    /// Enrolling agents, and nothing else.
    Enroll,
}

impl Role {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Auditor => "auditor",
            Self::Viewer => "viewer",
            Self::Enroll => "enroll",
        }
    }

    /// From its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Admin, Self::Auditor, Self::Viewer, Self::Enroll]
            .into_iter()
            .find(|role| role.name() == name)
    }

    /// What it allows a reader.
    #[must_use]
    pub const fn permissions(self) -> Permissions {
        use Permission::{Export, Search, ViewRaw, ViewSensitive};
        match self {
            Self::Admin => Permissions::ALL,
            Self::Auditor => Permissions::of(&[Search, ViewRaw, ViewSensitive, Export]),
            Self::Viewer => Permissions::of(&[Search, ViewRaw]),
            Self::Enroll => Permissions::of(&[]),
        }
    }
}

/// A person or program that reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token's name, for the record of what was done with it.
    pub name: String,
    /// What they may do.
    pub permissions: Permissions,
}

impl Principal {
    /// May they do this?
    #[must_use]
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.has(permission)
    }
}

/// Knows the bearers of admin, auditor and viewer tokens.
pub trait Authenticator: Send + Sync + 'static {
    /// Whose token this is (without `Bearer `); `None` for unknown and revoked ones, and for
    /// tokens of agents and for enrolment.
    fn check(&self, bearer: &str) -> Option<Principal>;
}

/// Whose token was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    Agent(Arc<AgentRow>),
    Enroller,
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
    /// The name of a token is taken.
    #[error("there is a token named {0:?} already; revoke it, or choose another name")]
    NameTaken(String),
    /// No such token.
    #[error("there is no token named {0:?} that is not revoked; `token list` shows all")]
    NoSuchToken(String),
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

/// Tokens by the first bytes of their hash.
#[derive(Default)]
struct Known {
    data_version: i64,
    by_hash: HashMap<[u8; 8], Vec<(Digest, Identity)>>,
}

impl Known {
    fn add(&mut self, hash: Digest, identity: Identity) {
        self.by_hash.entry(head(&hash)).or_default().push((hash, identity));
    }

    fn find(&self, token: &str) -> Option<Identity> {
        let hash = Digest::of(token.as_bytes());
        self.by_hash
            .get(&head(&hash))?
            .iter()
            .find(|(known, _)| bool::from(known.0.ct_eq(&hash.0)))
            .map(|(_, identity)| identity.clone())
    }
}

fn head(hash: &Digest) -> [u8; 8] {
    let mut head = [0; 8];
    head.copy_from_slice(&hash.0[..8]);
    head
}

/// Asking SQLite whether it has changed costs microseconds; once a second is often enough for a
/// token that has just been revoked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub struct Access {
    db: Mutex<db::Db>,
    known: RwLock<Known>,
    looked: Mutex<Duration>,
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
            clock,
        };
        access.reload()?;
        Ok(access)
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
        if !self.db().tokens()?.is_empty() {
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
        let db = self.db();
        let mut known = Known { data_version: db.data_version()?, ..Known::default() };
        for agent in db.agents()? {
            if agent.revoked.is_none() {
                known.add(agent.token_hash, Identity::Agent(Arc::new(agent)));
            }
        }
        for token in db.tokens()?.into_iter().filter(|token| token.revoked.is_none()) {
            let identity = match token.role {
                Role::Enroll => Identity::Enroller,
                role => Identity::Reader(Principal {
                    name: token.name,
                    permissions: role.permissions(),
                }),
            };
            known.add(token.hash, identity);
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    /// Has another process changed the database? A failure leaves what is known as it is.
    fn refresh(&self) {
        let now = self.clock.monotonic();
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if now.saturating_sub(*looked) < LOOK_EVERY {
                return;
            }
            *looked = now;
        }
        let before = self.known.read().unwrap_or_else(PoisonError::into_inner).data_version;
        let found = self.db().data_version();
        let done = found.and_then(|found| if found == before { Ok(()) } else { self.reload() });
        if let Err(error) = done {
            log::warn!(error:% = error; "tokens could not be read again; those known stay valid");
        }
    }

    pub(crate) fn identify(&self, bearer: &str) -> Option<Identity> {
        self.refresh();
        self.known.read().unwrap_or_else(PoisonError::into_inner).find(bearer)
    }

    /// Enrols an agent, or gives one that is enrolled with this key a new token, which is `secret`.
    ///
    /// # Errors
    /// Its id belongs to another key (unless `known`: the log vouches for this one), it has been
    /// revoked, or the database cannot be written.
    pub fn enroll(
        &self,
        enrolment: &Enrolment,
        secret: &[u8; 32],
        known: bool,
    ) -> Result<(), AccessError> {
        self.db().enroll(enrolment, hash_of(secret), self.clock.now(), known)?;
        self.reload()
    }

    /// The agent signs with another key from now on; the transparency log says so.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn key_rotated(&self, agent: AgentId, key: &PublicKey) -> Result<(), AccessError> {
        self.db().set_key(agent, key)
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

    /// Makes a token of `secret`.
    ///
    /// # Errors
    /// The name is taken, or the database cannot be written.
    pub fn create_token(
        &self,
        name: &str,
        role: Role,
        secret: &[u8; 32],
    ) -> Result<(), AccessError> {
        self.db().add_token(name, role, hash_of(secret), self.clock.now())?;
        self.reload()
    }

    /// All tokens, revoked ones too.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn tokens(&self) -> Result<Vec<TokenRow>, AccessError> {
        self.db().tokens()
    }

    /// Revokes a token for ever.
    ///
    /// # Errors
    /// There is none of this name, or the database cannot be written.
    pub fn revoke_token(&self, name: &str) -> Result<(), AccessError> {
        self.db().revoke_token(name, self.clock.now())?;
        self.reload()
    }
}

impl Authenticator for Access {
    fn check(&self, bearer: &str) -> Option<Principal> {
        match self.identify(bearer)? {
            Identity::Reader(principal) => Some(principal),
            Identity::Agent(_) | Identity::Enroller => None,
        }
    }
}

fn hash_of(secret: &[u8; 32]) -> Digest {
    Digest::of(token_text(secret).as_bytes())
}

/// Whole and durable, or not at all; readable by this user alone.
fn write_token(path: &Path, secret: &[u8; 32]) -> Result<(), AccessError> {
    let mut text = Vec::with_capacity(65);
    push_hex(secret, &mut text);
    text.push(b'\n');
    let temporary = path.with_extension("token.new");
    let write = || -> std::io::Result<()> {
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| AccessError::File { path: path.to_owned(), source })
}

/// A time as it is shown.
pub(crate) fn shown(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
