//! `/v1/users`.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use custody_event::Timestamp;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Shared, read};
use crate::access::{AccessError, NewUser, Permission, Scope, UserChange, UserRow, user_name};
use crate::query::answer::json;
use crate::query::problem::Problem;

#[derive(Serialize)]
struct User {
    name: String,
    role: String,
    scope: Scope,
    disabled: bool,
    created: Timestamp,
    password_set: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_login: Option<Timestamp>,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            name: row.name,
            role: row.role,
            scope: row.scope,
            disabled: row.disabled.is_some(),
            created: row.created,
            password_set: row.password_set,
            last_login: row.last_login,
        }
    }
}

#[derive(Serialize)]
struct Users {
    users: Vec<User>,
}

pub(super) async fn list(State(logins): Shared, headers: HeaderMap) -> Result<Response, Problem> {
    let rows = logins.administer(&headers, |access, by| access.users(by)).await?;
    json(StatusCode::OK, &Users { users: rows.into_iter().map(User::from).collect() })
}

pub(super) async fn one(
    State(logins): Shared,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let row = logins.administer(&headers, move |access, by| {
        let mut users = access.users(by)?;
        users.retain(|user| user.name == name.to_ascii_lowercase());
        users.pop().ok_or(AccessError::NoSuchUser(name))
    });
    json(StatusCode::OK, &User::from(row.await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: String,
    password: String,
    role: String,
    #[serde(default)]
    scope: Scope,
}

pub(super) async fn create(
    State(logins): Shared,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let who = logins.gate().admit(&headers, Permission::Administer)?;
    let new: New = read(&body)?;
    let name = user_name(&new.name).map_err(|error| super::refused(&error))?;
    let password = logins.hashed(&name, new.password).await?;
    let new = NewUser { name, role: new.role, scope: new.scope, password };
    let row = logins.work(who, move |access, by| access.create_user(by, new)).await?;
    json(StatusCode::CREATED, &User::from(row))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    role: Option<String>,
    scope: Option<Scope>,
    disabled: Option<bool>,
    password: Option<String>,
}

pub(super) async fn change(
    State(logins): Shared,
    headers: HeaderMap,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let who = logins.gate().admit(&headers, Permission::Administer)?;
    let asked: Change = read(&body)?;
    let name = name.to_ascii_lowercase();
    let password = match asked.password {
        Some(password) => Some(logins.hashed(&name, password).await?),
        None => None,
    };
    let change =
        UserChange { role: asked.role, scope: asked.scope, disabled: asked.disabled, password };
    let row = logins.work(who, move |access, by| access.change_user(by, &name, change)).await?;
    json(StatusCode::OK, &User::from(row))
}

pub(super) async fn remove(
    State(logins): Shared,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    logins.administer(&headers, move |access, by| access.delete_user(by, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}
