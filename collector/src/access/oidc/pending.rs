//! Logins under way, each in the cookie of its own browser: sealed by a key of this process, so that
//! nobody can read, change or make one, and nobody's login can be pushed out by others who begin
//! theirs.
//!
//! What is remembered here is only which logins have come back: each is good once. A login comes
//! back by way of the provider, at most [`MAX_USED`] are remembered, and one that is forgotten too
//! early still has a code that the provider takes once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use super::jws;
use crate::access::random_secret;

/// How long somebody may take at the provider.
pub(super) const PENDING: Duration = Duration::from_secs(600);
/// Logins that have come back and are remembered; the one that ends first goes first.
const MAX_USED: usize = 10_000;
/// A longer way back would not fit into a cookie; such a login leads to the first page.
const MAX_NEXT_BYTES: usize = 2_000;
/// What the seal is for.
const WHAT: &[u8] = b"custody_oidc v1";

/// A login that waits for the provider's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) verifier: String,
    /// Where it leads.
    pub(super) next: String,
    /// When it ends, by this process's monotonic clock.
    ends_ms: u64,
}

impl Pending {
    /// One that begins now.
    pub(super) fn begin(secrets: [String; 3], next: &str, now: Duration) -> Self {
        let [state, nonce, verifier] = secrets;
        let next = if next.len() > MAX_NEXT_BYTES { "/" } else { next };
        Self { state, nonce, verifier, next: next.to_owned(), ends_ms: millis(now + PENDING) }
    }
}

/// See the module.
pub(super) struct Pendings {
    key: LessSafeKey,
    /// States that have come back, and when their logins end.
    used: Mutex<HashMap<String, u64>>,
}

impl Pendings {
    /// With a key of its own.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(super) fn new() -> anyhow::Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, &random_secret()?)
            .map_err(|_| anyhow::anyhow!("32 bytes are no key of AES-256"))?;
        Ok(Self { key: LessSafeKey::new(key), used: Mutex::default() })
    }

    /// The cookie's text. `None` where the system gives no random numbers.
    pub(super) fn seal(&self, login: &Pending) -> Option<String> {
        let secret = random_secret().ok()?;
        let nonce = *secret.first_chunk::<NONCE_LEN>()?;
        let mut sealed = serde_json::to_vec(login).ok()?;
        let what = Aad::from(WHAT);
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(unique, what, &mut sealed).ok()?;
        Some(jws::encode(&[&nonce[..], &sealed].concat()))
    }

    /// The login that the browser shows in its cookie, if it is the one of this state; once.
    pub(super) fn take(&self, cookie: &str, state: &str, now: Duration) -> Option<Pending> {
        let bytes = jws::decode(cookie)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(nonce, Aad::from(WHAT), &mut sealed).ok()?;
        let login: Pending = serde_json::from_slice(opened).ok()?;
        let is_this = login.state == state && login.ends_ms > millis(now);
        (is_this && self.is_first(&login, millis(now))).then_some(login)
    }

    fn is_first(&self, login: &Pending, now_ms: u64) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MAX_USED {
            used.retain(|_, ends_ms| *ends_ms > now_ms);
        }
        if used.len() >= MAX_USED
            && let Some(first) = used.iter().min_by_key(|(_, ends_ms)| **ends_ms)
        {
            let first = first.0.clone();
            used.remove(&first);
        }
        used.insert(login.state.clone(), login.ends_ms).is_none()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(state: &str, next: &str) -> Pending {
        let secrets = [state, "n0nce", "verifier"].map(str::to_owned);
        Pending::begin(secrets, next, Duration::from_secs(5))
    }

    #[test]
    fn a_login_opens_once_by_its_own_state_in_its_own_time_and_by_no_other_key() {
        let pendings = Pendings::new().unwrap();
        let (begun, now) = (login("s", "/?q=x"), Duration::from_secs(6));
        let cookie = pendings.seal(&begun).unwrap();
        assert_ne!(cookie, pendings.seal(&begun).unwrap(), "two seals are never the same");
        assert!(!cookie.contains("verifier"));
        assert_eq!(pendings.take(&cookie, "t", now), None);
        assert_eq!(pendings.take(&cookie, "s", Duration::from_secs(5) + PENDING), None);
        assert_eq!(Pendings::new().unwrap().take(&cookie, "s", now), None, "after a restart");
        for at in 0..cookie.len() {
            let mut altered = cookie.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            // The last digit may have bits that stand for nothing.
            if jws::decode(&altered) != jws::decode(&cookie) {
                assert_eq!(pendings.take(&altered, "s", now), None, "{at}");
            }
        }
        assert_eq!(pendings.take(&cookie, "s", now), Some(begun));
        assert_eq!(pendings.take(&cookie, "s", now), None, "it is good once");
    }

    #[test]
    fn a_way_back_that_fits_into_no_cookie_leads_to_the_first_page() {
        let pendings = Pendings::new().unwrap();
        let long = format!("/?q={}", "x".repeat(MAX_NEXT_BYTES));
        let cookie = pendings.seal(&login("s", &long)).unwrap();
        assert!(cookie.len() < 1_000);
        assert_eq!(pendings.take(&cookie, "s", Duration::from_secs(6)).unwrap().next, "/");
        let fits = &long[..MAX_NEXT_BYTES];
        assert!(pendings.seal(&login("s", fits)).unwrap().len() < 3_500);
    }

    #[test]
    fn what_is_remembered_of_logins_that_came_back_is_bounded() {
        let pendings = Pendings::new().unwrap();
        for number in 0..=MAX_USED {
            let cookie = pendings.seal(&login(&number.to_string(), "/")).unwrap();
            assert!(pendings.take(&cookie, &number.to_string(), Duration::from_secs(6)).is_some());
        }
        assert_eq!(pendings.used.lock().unwrap().len(), MAX_USED);
    }
}
