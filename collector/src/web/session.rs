//! The cookie of who is logged in at the page.
//!
//! It holds a session's bearer, never a token or a password. The access room keeps the session (its
//! hash alone) and judges the user or the token behind it at each request, so a disabled user's or a
//! revoked token's sessions end at once, and a restart logs nobody out. The API takes no cookie:
//! another site's page can ask it nothing.

use std::time::Duration;

use http::{HeaderMap, header};

use crate::access::SESSION_LIFE;

const COOKIE: &str = "custody_session";

/// The session's bearer in a request.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    cookie_of(headers, COOKIE)
}

/// The cookie of this name in a request.
pub(super) fn cookie_of<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == wanted).then_some(value))
}

/// The header that sets the cookie, or with an empty text takes it away.
pub(super) fn set_cookie(id: &str, secure: bool) -> String {
    let life = if id.is_empty() { Duration::ZERO } else { SESSION_LIFE };
    let (age, secure) = (life.as_secs(), if secure { "; Secure" } else { "" });
    format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}")
}
