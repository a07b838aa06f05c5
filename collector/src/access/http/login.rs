//! `POST /v1/login`, `POST /v1/logout`, `GET /v1/me`, `POST /v1/me/password`.

use axum::body::Bytes;
use axum::response::Response;
use custody_event::Timestamp;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::{From, Shared, address, read};
use crate::access::{Kind, Permissions, Principal, Scope, bearer};
use crate::query::answer::json;
use crate::query::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    name: String,
    password: String,
}

/// Who asks, as they are told.
#[derive(Serialize)]
struct Me<'a> {
    name: &'a str,
    kind: Kind,
    role: &'a str,
    permissions: Permissions,
    /// What is seen is within all of these; without any, it is everything.
    scopes: Vec<&'a Scope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
}

impl<'a> Me<'a> {
    fn of(who: &'a Principal) -> Self {
        Self {
            name: &who.name,
            kind: who.kind,
            role: &who.role,
            permissions: who.permissions,
            scopes: who.scopes.iter().filter(|scope| !scope.is_all()).collect(),
            expires: who.expires,
        }
    }
}

#[derive(Serialize)]
struct LoggedIn<'a> {
    token: &'a str,
    #[serde(flatten)]
    me: Me<'a>,
}

pub(super) async fn login(
    axum::extract::State(logins): Shared,
    from: From,
    body: Bytes,
) -> Result<Response, Problem> {
    let Asked { name, password } = read(&body)?;
    let done = logins.password(&name, password, address(from)).await?;
    let me = Me { expires: Some(done.expires), ..Me::of(&done.who) };
    json(StatusCode::OK, &LoggedIn { token: &done.session, me })
}

pub(super) async fn logout(
    axum::extract::State(logins): Shared,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    logins.gate().known(&headers)?;
    let session = bearer(&headers).ok_or_else(Problem::unauthenticated)?;
    if logins.logout(session).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::conflict("this is a token and no session; revoke it where tokens are kept"))
}

pub(super) async fn me(
    axum::extract::State(logins): Shared,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    json(StatusCode::OK, &Me::of(&logins.gate().known(&headers)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Passwords {
    old: String,
    new: String,
}

pub(super) async fn password(
    axum::extract::State(logins): Shared,
    headers: HeaderMap,
    from: From,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let who = logins.gate().known(&headers)?;
    if who.kind != Kind::User {
        return Err(Problem::conflict("a token has no password; log in as a user"));
    }
    let Passwords { old, new } = read(&body)?;
    logins.change_password(&who, old, new, address(from)).await?;
    Ok(StatusCode::NO_CONTENT)
}
