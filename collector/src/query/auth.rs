//! Who asks: a bearer token, checked by the access room.

pub use crate::access::{Authenticator, Permission, Principal};

/// The token of an `Authorization` header.
#[must_use]
pub fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
