//! Who is logged in at the page.
//!
//! The cookie holds a random number, never the token. The session holds the token and shows it
//! to the access room at each request, so a revoked token ends its sessions at once. Sessions live
//! in memory: a restart logs everybody out.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use custody_event::ids::push_hex;
use http::{HeaderMap, header};

/// How long a login lasts.
pub(super) const LIFE: Duration = Duration::from_secs(8 * 3_600);
/// Sessions at once; the oldest goes first.
const MAX_SESSIONS: usize = 1_000;
const COOKIE: &str = "custody_session";

struct Session {
    token: String,
    ends: Duration,
}

/// The sessions, by the cookie's text. Finding one is a look-up of 256 random bits, so its time
/// tells nothing that helps.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Session>>);

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session; gives the cookie's text.
    pub(super) fn begin(&self, token: &str, now: Duration, secret: &[u8; 32]) -> String {
        let mut id = Vec::with_capacity(64);
        push_hex(secret, &mut id);
        let id = String::from_utf8(id).unwrap_or_default();
        let mut all = self.all();
        all.retain(|_, session| session.ends > now);
        if all.len() >= MAX_SESSIONS
            && let Some(oldest) =
                all.iter().min_by_key(|(_, session)| session.ends).map(|(id, _)| id.clone())
        {
            all.remove(&oldest);
        }
        all.insert(id.clone(), Session { token: token.to_owned(), ends: now + LIFE });
        id
    }

    /// The token of the session that the request belongs to.
    pub(super) fn token(&self, headers: &HeaderMap, now: Duration) -> Option<String> {
        let all = self.all();
        let session = all.get(cookie(headers)?)?;
        (session.ends > now).then(|| session.token.clone())
    }

    /// Ends the request's session.
    pub(super) fn end(&self, headers: &HeaderMap) {
        if let Some(id) = cookie(headers) {
            self.all().remove(id);
        }
    }
}

/// The session's cookie in a request.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

/// The header that sets the cookie, or with an empty text takes it away.
pub(super) fn set_cookie(id: &str, secure: bool) -> String {
    let age = if id.is_empty() { 0 } else { LIFE.as_secs() };
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}")
}
