//! Logins: a name and a password, or at the page a token, become a session.
//!
//! What comes back for a wrong name, a wrong password and a disabled user is the same and takes as
//! long; what is recorded is not the same. A name that nobody has is not recorded: people type
//! passwords into the field above.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use custody_event::{Clock, Timestamp};
use tokio::sync::Semaphore;

use super::lockout::{Attempt, Lockout};
use super::oidc::Oidc;
use super::{Access, Authenticator, Permission, Principal, password, random_secret, token_text};
use crate::own::{Act, Acts, Login};
use crate::query::problem::Problem;

/// How long a login waits for its turn at the hash.
const TURN: Duration = Duration::from_secs(5);
/// How long a login waits for a database that is at work for somebody else.
const DATABASE: Duration = Duration::from_secs(10);

/// Somebody who is now logged in.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    /// Who.
    pub who: Principal,
    /// The session's bearer; told once.
    pub session: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// See the module.
pub struct Logins {
    /// The accounts.
    pub(super) access: Arc<Access>,
    pub(super) acts: Option<Acts>,
    pub(super) oidc: Option<Oidc>,
    pub(super) clock: Arc<dyn Clock>,
    lockout: Lockout,
    turns: Arc<Semaphore>,
}

impl Logins {
    /// Over these accounts.
    #[must_use]
    pub fn new(access: Arc<Access>, acts: Option<Acts>, clock: Arc<dyn Clock>) -> Self {
        let turns = Arc::new(Semaphore::new(password::AT_ONCE));
        Self { access, acts, oidc: None, clock, lockout: Lockout::default(), turns }
    }

    /// With an identity provider.
    #[must_use]
    pub fn with_oidc(self, oidc: Option<Oidc>) -> Self {
        Self { oidc, ..self }
    }

    /// The identity provider.
    #[must_use]
    pub fn oidc(&self) -> Option<&Oidc> {
        self.oidc.as_ref()
    }

    pub(super) fn record(&self, act: Act) {
        if let Some(acts) = &self.acts {
            acts.record(act);
        }
    }

    pub(super) fn failed(
        &self,
        who: Option<&str>,
        from: IpAddr,
        via: &'static str,
        why: &'static str,
    ) {
        let (who, from) = (who.map(str::to_owned), Some(from));
        self.record(Act::Login(Login { who, from, via, failed: Some(why) }));
    }

    fn begin(
        &self,
        name: &str,
        from: IpAddr,
        via: &'static str,
        known: Option<&str>,
    ) -> Result<Attempt, Problem> {
        self.lockout.attempt(name, from, self.clock.monotonic()).map_err(|left| {
            self.failed(known, from, via, "locked");
            Problem::locked(u32::try_from(left.as_secs()).unwrap_or(u32::MAX).max(1))
        })
    }

    /// The attempt has failed for good.
    fn lost(&self, attempt: &Attempt, known: Option<&str>, from: IpAddr) {
        if attempt.locks_name
            && let Some(who) = known
        {
            self.record(Act::Locked { who: Some(who.to_owned()), from });
        }
        if attempt.locks_peer {
            self.record(Act::Locked { who: None, from });
        }
    }

    /// A session for a user's name and password.
    ///
    /// # Errors
    /// 401, 429 while the name or the address is locked, 503.
    pub async fn password(
        &self,
        name: &str,
        typed: String,
        from: IpAddr,
    ) -> Result<LoggedIn, Problem> {
        const VIA: &str = "password";
        let name = name.trim().to_ascii_lowercase();
        let kept = self.kept(&name).await?;
        let known = kept.is_some().then_some(name.as_str());
        let attempt = self.begin(&name, from, VIA, known)?;
        if !self.is(kept, typed).await? {
            self.failed(known, from, VIA, "invalid_credentials");
            self.lost(&attempt, known, from);
            return Err(Problem::wrong_password());
        }
        let Some(who) = self.principal(&name).await? else {
            self.failed(known, from, VIA, "disabled");
            self.lost(&attempt, known, from);
            return Err(Problem::wrong_password());
        };
        self.lockout.cleared(&attempt);
        self.session(who, None, from, VIA).await
    }

    /// A session for somebody who shows a token and may search: the page's.
    ///
    /// # Errors
    /// 401, 429 while the address is locked, 503.
    pub async fn token(&self, token: &str, from: IpAddr) -> Result<LoggedIn, Problem> {
        const VIA: &str = "api_key";
        // Each token is a name of its own, so that only the address can be locked.
        let attempt = self.begin(token, from, VIA, None)?;
        let known = self.access.check(token);
        let Some(who) = known.filter(|who| who.may(Permission::Search)) else {
            self.failed(None, from, VIA, "invalid_credentials");
            self.lost(&attempt, None, from);
            return Err(Problem::unauthenticated());
        };
        self.lockout.cleared(&attempt);
        self.session(who, Some(token.to_owned()), from, VIA).await
    }

    pub(super) async fn session(
        &self,
        who: Principal,
        token: Option<String>,
        from: IpAddr,
        via: &'static str,
    ) -> Result<LoggedIn, Problem> {
        let secret = random_secret().map_err(|error| {
            log::error!(error:% = error; "no randomness for a session");
            Problem::internal("the system gives no random numbers; a login is not safe now")
        })?;
        let (access, principal) = (Arc::clone(&self.access), who.clone());
        let begun =
            blocking(move || access.begin_session(&principal, token.as_deref(), &secret)).await?;
        let expires = begun.map_err(|error| super::http::refused(&error))?;
        let name = Some(who.name.clone());
        self.record(Act::Login(Login { who: name, from: Some(from), via, failed: None }));
        Ok(LoggedIn { who, session: token_text(&secret), expires })
    }

    /// Whose session this is; a token is none.
    #[must_use]
    pub fn session_of(&self, bearer: &str) -> Option<Principal> {
        self.access.session(bearer)
    }

    /// Ends the session of this bearer; says whether there was one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn logout(&self, session: &str) -> Result<bool, Problem> {
        let (access, bearer) = (Arc::clone(&self.access), session.to_owned());
        let who = self.access.check(session);
        let ended = blocking(move || access.end_session(&bearer)).await?;
        let ended = ended.map_err(|error| super::http::refused(&error))?;
        if let Some(who) = who.filter(|_| ended) {
            self.record(Act::Logout { who: who.name });
        }
        Ok(ended)
    }

    /// Sets the user's own password, who must know the old one; all sessions end.
    ///
    /// # Errors
    /// As for a login; 400 for a new one that is not good.
    pub(super) async fn change_password(
        &self,
        who: &Principal,
        old: String,
        new: String,
        from: IpAddr,
    ) -> Result<(), Problem> {
        const VIA: &str = "password";
        let attempt = self.begin(&who.name, from, VIA, Some(&who.name))?;
        if !self.is(self.kept(&who.name).await?, old).await? {
            self.failed(Some(&who.name), from, VIA, "invalid_credentials");
            self.lost(&attempt, Some(&who.name), from);
            return Err(Problem::wrong_password());
        }
        self.lockout.cleared(&attempt);
        let kept = self.hashed(&who.name, new).await?;
        let (access, name) = (Arc::clone(&self.access), who.name.clone());
        let done = blocking(move || access.set_own_password(&name, &kept)).await?;
        done.map_err(|error| super::http::refused(&error))
    }

    async fn kept(&self, name: &str) -> Result<Option<String>, Problem> {
        let name = name.to_owned();
        let kept = self.looked_up(move |access| access.kept_password(&name)).await?;
        kept.map_err(|error| super::http::refused(&error))
    }

    /// The user of this name, unless disabled, as the database says it now.
    ///
    /// # Errors
    /// 503: the database is at work for too long.
    pub(super) async fn principal(&self, name: &str) -> Result<Option<Principal>, Problem> {
        let name = name.to_owned();
        self.looked_up(move |access| access.principal(&name)).await
    }

    /// Asks the database, which may be at work for somebody else; not for ever.
    async fn looked_up<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Access) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let access = Arc::clone(&self.access);
        match tokio::time::timeout(DATABASE, blocking(move || look(&access))).await {
            Ok(found) => found,
            Err(_) => Err(Problem::unavailable("the accounts are being written; try again", 5)),
        }
    }

    async fn is(&self, kept: Option<String>, typed: String) -> Result<bool, Problem> {
        let turn = self.turn().await?;
        let fits = typed.len() <= password::MAX_BYTES;
        let is = blocking(move || {
            // Held as long as the memory is, whether anybody still waits for the answer or not.
            let _turn = turn;
            password::is(kept.as_deref(), &typed)
        });
        let is = is.await?;
        Ok(is && fits)
    }

    /// A password as it is kept.
    ///
    /// # Errors
    /// 400: it may not be this user's; 503.
    pub(super) async fn hashed(&self, name: &str, typed: String) -> Result<String, Problem> {
        let turn = self.turn().await?;
        let name = name.to_owned();
        let hashed = blocking(move || {
            let _turn = turn;
            let secret = random_secret().map_err(|_| password::PasswordError::Hash)?;
            let mut salt = [0; 16];
            salt.copy_from_slice(&secret[..16]);
            password::hashed(&name, &typed, &salt)
        });
        hashed.await?.map_err(|error| Problem::bad("password", error.to_string()))
    }

    /// A place among those that hash: each takes 64 MiB.
    async fn turn(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Problem> {
        match tokio::time::timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Problem::unavailable("too many logins at once", 5)),
        }
    }
}

/// Work that waits for the disk or a hash.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        log::error!(error:% = error; "work on accounts was broken off");
        Problem::internal("the collector could not do this; its log says why")
    })
}
