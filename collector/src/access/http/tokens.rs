//! `/v1/tokens`.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use custody_event::Timestamp;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Shared, read};
use crate::access::{NewToken, Permission, Scope, TokenRow, random_secret, token_text};
use crate::query::answer::json;
use crate::query::problem::Problem;

#[derive(Serialize)]
struct Token {
    name: String,
    role: String,
    scope: Scope,
    created: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// For one agent only.
    once: bool,
    /// The agent that has used it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    used_by: Option<String>,
}

impl From<TokenRow> for Token {
    fn from(row: TokenRow) -> Self {
        Self {
            name: row.name,
            role: row.role,
            scope: row.scope,
            created: row.created,
            expires: row.expires,
            revoked: row.revoked,
            last_used: row.last_used,
            owner: row.owner,
            once: row.once,
            used_by: row.used_by,
        }
    }
}

#[derive(Serialize)]
struct Tokens {
    tokens: Vec<Token>,
}

pub(super) async fn list(State(logins): Shared, headers: HeaderMap) -> Result<Response, Problem> {
    let rows = logins.administer(&headers, |access, by| access.tokens(by)).await?;
    json(StatusCode::OK, &Tokens { tokens: rows.into_iter().map(Token::from).collect() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: String,
    role: String,
    #[serde(default)]
    scope: Scope,
    #[serde(default)]
    expires: Option<Timestamp>,
    /// For one agent only.
    #[serde(default)]
    once: bool,
}

#[derive(Serialize)]
struct Made {
    /// Shown this once.
    token: String,
    #[serde(flatten)]
    about: Token,
}

pub(super) async fn create(
    State(logins): Shared,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let who = logins.gate().admit(&headers, Permission::Administer)?;
    let New { name, role, scope, expires, once } = read(&body)?;
    let secret = random_secret().map_err(|error| {
        log::error!(error:% = error; "no randomness for a token");
        Problem::internal("the system gives no random numbers for a token")
    })?;
    let new = NewToken { name, role, scope, expires, once };
    let row = logins.work(who, move |access, by| access.add_token(by, new, &secret)).await?;
    json(StatusCode::CREATED, &Made { token: token_text(&secret), about: row.into() })
}

pub(super) async fn revoke(
    State(logins): Shared,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    logins.administer(&headers, move |access, by| access.drop_token(by, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}
