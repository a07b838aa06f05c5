//! The routes: `/v1/retention`, `/v1/holds`, `/v1/erasures`, `/v1/archive`.
//!
//! Everything blocks, some of it for long (a look at all events), so it runs where that is allowed.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::worker::Wake;
use super::{NewErasure, NewHold, Retain, RetainError};
use crate::access::{Permission, Principal};
use crate::query::answer::json;
use crate::query::api::QueryState;
use crate::query::problem::Problem;
use crate::query::when;

/// What the routes need.
#[derive(Clone)]
struct RetainState {
    query: QueryState,
    retain: Arc<Retain>,
    wake: Wake,
}

/// The room's routes.
pub fn router(query: QueryState, retain: Arc<Retain>, wake: Wake) -> Router {
    Router::new()
        .route("/v1/retention/run", post(run))
        .route("/v1/holds", get(holds).post(hold))
        .route("/v1/holds/{id}", delete(release))
        .route("/v1/erasures", get(erasures).post(ask))
        .route("/v1/erasures/{id}", get(erasure).delete(withdraw))
        .route("/v1/erasures/{id}/approve", post(approve))
        .route("/v1/archive", get(archived))
        .route("/v1/archive/restore", post(restore))
        .route("/v1/archive/release", post(release_restored))
        .with_state(RetainState { query, retain, wake })
}

impl From<RetainError> for Problem {
    fn from(error: RetainError) -> Self {
        match error {
            RetainError::Bad { parameter, what } => Self::bad(parameter, what),
            RetainError::NotFound(what) => Self::not_found(what),
            RetainError::Conflict(what) => Self::conflict(what),
            error @ RetainError::Held(_) => Self::conflict(error.to_string()),
            RetainError::S3(error) => {
                log::error!(error:% = error; "the archive failed");
                Self::unavailable(error.to_string(), 60)
            }
            error => {
                log::error!(error:% = error; "retention failed");
                Self::internal(error.to_string())
            }
        }
    }
}

impl RetainState {
    /// Does it where blocking is allowed.
    /// Who asks, if they may do this and see the events of all: what is kept and what goes is never
    /// a matter of one tenant's view.
    fn admit(&self, headers: &HeaderMap, to: Permission) -> Result<Principal, Problem> {
        let who = self.query.admit(headers, to)?;
        if who.sees_all() {
            return Ok(who);
        }
        self.query.gate().denied(&who, "outside_scope");
        Err(Problem::too_wide("this is about everybody's events, and what you see is bounded"))
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Retain) -> Result<T, RetainError> + Send + 'static,
    ) -> Result<T, Problem> {
        let retain = Arc::clone(&self.retain);
        match tokio::task::spawn_blocking(move || work(&retain)).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Problem::internal("it was broken off; the log says more")),
        }
    }
}

type Body<T> = Result<Json<T>, axum::extract::rejection::JsonRejection>;

fn body<T>(body: Body<T>) -> Result<T, Problem> {
    body.map(|Json(value)| value).map_err(|error| Problem::bad("body", error.body_text()))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Run {
    dry_run: bool,
}

async fn run(
    State(state): State<RetainState>,
    headers: HeaderMap,
    asked: Body<Run>,
) -> Result<Response, Problem> {
    state.admit(&headers, Permission::Configure)?;
    let dry_run = body(asked)?.dry_run;
    let swept = state.work(move |retain| retain.sweep(dry_run)).await?;
    json(StatusCode::OK, &swept)
}

#[derive(Serialize)]
struct HoldsBody {
    holds: Vec<super::HoldRow>,
}

async fn holds(State(state): State<RetainState>, headers: HeaderMap) -> Result<Response, Problem> {
    state.admit(&headers, Permission::Hold)?;
    let holds = state.work(Retain::holds).await?;
    json(StatusCode::OK, &HoldsBody { holds })
}

async fn hold(
    State(state): State<RetainState>,
    headers: HeaderMap,
    asked: Body<NewHold>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Hold)?;
    let new = body(asked)?;
    let row = state.work(move |retain| retain.hold(&new, who.accountable())).await?;
    json(StatusCode::CREATED, &row)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Why {
    reason: String,
}

async fn release(
    State(state): State<RetainState>,
    headers: HeaderMap,
    Path(id): Path<i64>,
    Query(why): Query<Why>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Hold)?;
    state.work(move |retain| retain.release(id, who.accountable(), &why.reason)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Serialize)]
struct ErasuresBody {
    erasures: Vec<super::ErasureRow>,
}

async fn erasures(
    State(state): State<RetainState>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    state.admit(&headers, Permission::Erase)?;
    let erasures = state.work(Retain::erasures).await?;
    json(StatusCode::OK, &ErasuresBody { erasures })
}

#[derive(Serialize)]
struct AskedBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    erasure: Option<super::ErasureRow>,
    #[serde(flatten)]
    preview: super::Preview,
}

async fn ask(
    State(state): State<RetainState>,
    headers: HeaderMap,
    asked: Body<NewErasure>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Erase)?;
    let new = body(asked)?;
    if new.dry_run {
        let preview = state.work(move |retain| retain.preview(&new)).await?;
        return json(StatusCode::OK, &AskedBody { erasure: None, preview });
    }
    let (row, preview) = state.work(move |retain| retain.ask(&new, who.accountable())).await?;
    json(StatusCode::CREATED, &AskedBody { erasure: Some(row), preview })
}

async fn erasure(
    State(state): State<RetainState>,
    headers: HeaderMap,
    Path(id): Path<i64>,
) -> Result<Response, Problem> {
    state.admit(&headers, Permission::Erase)?;
    let row = state.work(move |retain| retain.erasure(id)).await?;
    json(StatusCode::OK, &row)
}

async fn approve(
    State(state): State<RetainState>,
    headers: HeaderMap,
    Path(id): Path<i64>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Erase)?;
    let row = state.work(move |retain| retain.approve(id, &who)).await?;
    state.wake.up();
    json(StatusCode::ACCEPTED, &row)
}

async fn withdraw(
    State(state): State<RetainState>,
    headers: HeaderMap,
    Path(id): Path<i64>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Erase)?;
    state.work(move |retain| retain.withdraw(id, who.accountable())).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Serialize)]
struct ArchiveBody {
    segments: Vec<super::Archived>,
}

async fn archived(
    State(state): State<RetainState>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    state.admit(&headers, Permission::Configure)?;
    let segments = state.work(Retain::archived).await?;
    json(StatusCode::OK, &ArchiveBody { segments })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    from: String,
    to: String,
}

async fn restore(
    State(state): State<RetainState>,
    headers: HeaderMap,
    asked: Body<Range>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Configure)?;
    let range = body(asked)?;
    let now = state.query.clock.now();
    let time = |parameter, text: &str| {
        when::parse(text, now).map_err(|error| Problem::bad(parameter, error.to_string()))
    };
    let (from, to) = (time("from", &range.from)?, time("to", &range.to)?);
    let done =
        state.work(move |retain| retain.restore_archived(from, to, who.accountable())).await?;
    json(StatusCode::OK, &done)
}

#[derive(Serialize)]
struct ReleasedBody {
    released: usize,
}

async fn release_restored(
    State(state): State<RetainState>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Configure)?;
    let released = state.work(move |retain| retain.release_restored(who.accountable())).await?;
    json(StatusCode::OK, &ReleasedBody { released })
}
