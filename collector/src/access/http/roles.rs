//! `/v1/roles`.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Shared, read};
use crate::access::{Permission, Permissions, Role};
use crate::query::answer::json;
use crate::query::problem::Problem;

#[derive(Serialize)]
struct Shown {
    name: String,
    permissions: Permissions,
    /// Is it always there?
    built_in: bool,
}

#[derive(Serialize)]
struct Roles {
    roles: Vec<Shown>,
}

pub(super) async fn list(State(logins): Shared, headers: HeaderMap) -> Result<Response, Problem> {
    let rows = logins.administer(&headers, |access, _| access.roles()).await?;
    let built_in = Role::ALL.into_iter().map(|role| Shown {
        name: role.name().to_owned(),
        permissions: role.permissions(),
        built_in: true,
    });
    let made = rows.into_iter().map(|role| Shown {
        name: role.name,
        permissions: role.permissions,
        built_in: false,
    });
    json(StatusCode::OK, &Roles { roles: built_in.chain(made).collect() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: String,
    permissions: Vec<String>,
}

pub(super) async fn create(
    State(logins): Shared,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let who = logins.gate().admit(&headers, Permission::Administer)?;
    let New { name, permissions } = read(&body)?;
    let names = permissions.iter().map(String::as_str);
    let permissions = Permissions::from_names(names).map_err(|bad| {
        let all = Permissions::ALL.names().join(", ");
        Problem::bad("permissions", format!("there is no permission {bad:?}; there are {all}"))
    })?;
    let row = logins.work(who, move |access, by| access.create_role(by, &name, permissions));
    let row = row.await?;
    let shown = Shown { name: row.name, permissions: row.permissions, built_in: false };
    json(StatusCode::CREATED, &shown)
}

pub(super) async fn remove(
    State(logins): Shared,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    logins.administer(&headers, move |access, by| access.delete_role(by, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}
