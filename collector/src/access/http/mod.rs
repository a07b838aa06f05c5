//! The routes of accounts.
//!
//! | route | who | what |
//! |---|---|---|
//! | `POST /v1/login` | anybody | `{"name","password"}` → `{"token","expires",…}`, a session |
//! | `POST /v1/logout` | a session | ends it |
//! | `GET /v1/me` | any reader | name, role, permissions, scope, end |
//! | `POST /v1/me/password` | a user | `{"old","new"}`; all sessions end |
//! | `GET`, `POST /v1/users`, `GET`, `PATCH`, `DELETE /v1/users/{name}` | administer | users |
//! | `GET`, `POST /v1/tokens`, `DELETE /v1/tokens/{name}` | administer | tokens; the secret once |
//! | `GET`, `POST /v1/roles`, `DELETE /v1/roles/{name}` | administer | roles made of permissions |
//!
//! Accounts that may do or see what the asker may not are not listed, and answer as if they were
//! not there. A body is JSON of at most 16 KiB; unknown keys are refused.

mod login;
mod roles;
mod tokens;
mod users;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension};
use axum::routing::{delete, get, post};
use http::HeaderMap;
use serde::de::DeserializeOwned;

use super::login::blocking;
use super::{Access, AccessError, By, Gate, Logins, Permission, Principal};
use crate::query::problem::Problem;
use crate::serve::Peer;

const MAX_BODY_BYTES: usize = 16 * 1_024;

type Shared = axum::extract::State<Arc<Logins>>;
/// Where the request comes from; only tests have none.
type From = Option<Extension<Peer>>;

/// The routes.
pub fn router(logins: Arc<Logins>) -> Router {
    Router::new()
        .route("/v1/login", post(login::login))
        .route("/v1/logout", post(login::logout))
        .route("/v1/me", get(login::me))
        .route("/v1/me/password", post(login::password))
        .route("/v1/users", get(users::list).post(users::create))
        .route("/v1/users/{name}", get(users::one).patch(users::change).delete(users::remove))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{name}", delete(tokens::revoke))
        .route("/v1/roles", get(roles::list).post(roles::create))
        .route("/v1/roles/{name}", delete(roles::remove))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(logins)
}

/// The address that a request comes from.
pub(crate) fn address(from: From) -> IpAddr {
    from.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Extension(peer)| peer.addr.ip())
}

impl Logins {
    fn gate(&self) -> Gate<'_> {
        Gate { auth: &*self.access, acts: self.acts.as_ref() }
    }

    /// Work on accounts by somebody who may administer.
    async fn administer<T: Send + 'static>(
        &self,
        headers: &HeaderMap,
        work: impl FnOnce(&Access, By<'_>) -> Result<T, AccessError> + Send + 'static,
    ) -> Result<T, Problem> {
        let who = self.gate().admit(headers, Permission::Administer)?;
        self.work(who, work).await
    }

    async fn work<T: Send + 'static>(
        &self,
        who: Principal,
        work: impl FnOnce(&Access, By<'_>) -> Result<T, AccessError> + Send + 'static,
    ) -> Result<T, Problem> {
        let access = Arc::clone(&self.access);
        let asker = who.clone();
        let done = blocking(move || work(&access, By::Principal(&asker))).await?;
        done.map_err(|error| {
            if matches!(error, AccessError::Wider) {
                self.gate().denied(&who, "too_wide");
            }
            refused(&error)
        })
    }
}

/// Why something was not done, as an answer.
pub(crate) fn refused(error: &AccessError) -> Problem {
    let said = error.to_string();
    match error {
        AccessError::NameTaken(_)
        | AccessError::RoleInUse(_)
        | AccessError::BuiltIn
        | AccessError::LastAdmin
        | AccessError::Full(_) => Problem::conflict(said),
        AccessError::NoSuchToken(_) | AccessError::NoSuchUser(_) | AccessError::UnknownRole(_) => {
            Problem::not_found(said)
        }
        AccessError::NoSuchRole(_) => Problem::bad("role", said),
        AccessError::Wider => Problem::too_wide(said),
        AccessError::BadName(_) => Problem::bad("name", said),
        AccessError::BadScope(_) => Problem::bad("scope", said),
        AccessError::Over => Problem::bad("expires", said),
        AccessError::NotOnce => Problem::bad("once", said),
        AccessError::Password(_) => Problem::bad("password", said),
        AccessError::Database { .. }
        | AccessError::File { .. }
        | AccessError::Newer { .. }
        | AccessError::KeyConflict(_)
        | AccessError::NoSuchAgent(_)
        | AccessError::UsedUp(_)
        | AccessError::Revoked(_) => {
            log::error!(error = said; "accounts cannot be read or written");
            Problem::unavailable(
                "accounts cannot be read or written; the collector's log says why",
                10,
            )
        }
    }
}

/// A body that is read after its sender has been let in.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        // Its text may show what was sent, a password perhaps: only the place is told.
        let place = format!("line {}, column {}", error.line(), error.column());
        Problem::bad("body", format!("not the JSON that is expected here: {place}; see the guide"))
    })
}
