//! Who asks: a bearer token, checked by the access room.

/// Somebody whose token was good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token's or user's name, for the record of searches.
    pub name: String,
    /// May they search and read events?
    pub may_search: bool,
}

/// Knows tokens. Implemented by the access room.
pub trait Authenticator: Send + Sync + 'static {
    /// Whose token is this? Compares in constant time.
    fn check(&self, bearer: &str) -> Option<Principal>;
}

/// The token of an `Authorization` header.
#[must_use]
pub fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
