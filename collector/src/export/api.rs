//! The routes of exports.
//!
//! | route | what |
//! |---|---|
//! | `POST /v1/exports` | asks for one: 202 and its entry |
//! | `GET /v1/exports?limit=&cursor=` | the history, newest first |
//! | `GET /v1/exports/{id}` | one entry |
//! | `GET /v1/exports/{id}/download` | the file; `Range`, `If-Range`, `If-None-Match` |
//! | `GET /v1/exports/{id}/proof` | the signed proof |
//! | `DELETE /v1/exports/{id}` | the entry and the file go |
//! | `POST /v1/schedules`, `GET /v1/schedules`, `DELETE /v1/schedules/{id}` | exports that recur |
//!
//! An export holds raw records and values that a pack has marked as sensitive, byte for byte as
//! they are proved: whoever asks needs the permissions `export`, `view_raw` and `view_sensitive`.
//! Everybody sees their own, bounded by their scope; whoever may `administer`, without a scope, sees all.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use custody_event::Timestamp;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::schedule::{self, MAX_SCHEDULES, Plan, Schedule};
use super::work::{Desk, new_id};
use super::{ExportError, Exports, Row, Status, ask, download};
use crate::access::Scope;
use crate::query::answer::json;
use crate::query::api::QueryState;
use crate::query::auth::{Permission, Principal};
use crate::query::problem::Problem;

/// Entries of a page, if nothing is said, and at most.
const LIMIT: (usize, usize) = (50, 500);
/// A request is a search line and a few words.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// What the routes need.
#[derive(Clone)]
struct ApiState {
    query: QueryState,
    exports: Arc<Exports>,
}

/// The routes.
pub fn router(query: QueryState, exports: Arc<Exports>) -> Router {
    Router::new()
        .route("/v1/exports", get(list).post(create))
        .route("/v1/exports/{id}", get(one).delete(remove))
        .route("/v1/exports/{id}/download", get(fetch))
        .route("/v1/exports/{id}/proof", get(proof))
        .route("/v1/schedules", get(schedules).post(create_schedule))
        .route("/v1/schedules/{id}", axum::routing::delete(remove_schedule))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(ApiState { query, exports })
}

/// An entry as it is answered.
#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    name: &'a str,
    format: super::Format,
    form: super::Words,
    status: Status,
    q: &'a str,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    order: &'static str,
    created_by: &'a str,
    created: Timestamp,
    started: Option<Timestamp>,
    finished: Option<Timestamp>,
    expires: Option<Timestamp>,
    rows: u64,
    rows_total: Option<u64>,
    bytes: u64,
    sha256: Option<&'a str>,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn of(row: &'a Row) -> Self {
        let (spec, told) = (&row.spec, &row.told);
        Self {
            id: &row.id,
            name: &spec.name,
            format: spec.format,
            form: spec.words,
            status: row.status,
            q: &spec.q,
            from: spec.from,
            to: spec.to,
            order: if spec.format == super::Format::Bundle { "log" } else { "oldest_first" },
            created_by: &row.created_by,
            created: row.created,
            started: told.started,
            finished: told.finished,
            expires: told.expires,
            rows: told.rows,
            rows_total: told.rows_total,
            bytes: told.bytes,
            sha256: told.sha256.as_deref(),
            file: row.file_name(),
            error: told.error.as_deref(),
            schedule: spec.schedule.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct Page<'a> {
    exports: Vec<Entry<'a>>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct ScheduleEntry<'a> {
    id: &'a str,
    created_by: &'a str,
    created: Timestamp,
    next: Timestamp,
    name: &'a str,
    every: schedule::Every,
    at: &'a str,
    timezone: &'a str,
    format: super::Format,
    form: super::Words,
    q: &'a str,
    period: schedule::Span,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<&'a str>,
}

impl<'a> ScheduleEntry<'a> {
    fn of(schedule: &'a Schedule) -> Self {
        let plan = &schedule.plan;
        Self {
            id: &schedule.id,
            created_by: &schedule.created_by,
            created: schedule.created,
            next: schedule.next,
            name: &plan.name,
            every: plan.every,
            at: &plan.at,
            timezone: &plan.timezone,
            format: plan.format,
            form: plan.words,
            q: &plan.q,
            period: plan.period,
            stopped: plan.stopped.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct ScheduleList<'a> {
    schedules: Vec<ScheduleEntry<'a>>,
}

impl From<ExportError> for Problem {
    fn from(error: ExportError) -> Self {
        log::error!(error:% = error; "a request about exports failed");
        Self::internal("exports cannot be read or written; the log says more")
    }
}

impl ApiState {
    fn admit(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        use Permission::{Export, ViewRaw, ViewSensitive};
        self.query.gate().admit_all(headers, &[Export, ViewRaw, ViewSensitive])
    }

    /// Asks the table where blocking is allowed.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Desk) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let desk = Arc::clone(&self.exports.desk);
        match tokio::task::spawn_blocking(move || question(&desk)).await {
            Ok(answer) => answer,
            Err(_) => Err(Problem::internal("the request was broken off; the log says more")),
        }
    }

    /// Who asks, and the export of this id, if they may see it. What they may not see is not there.
    async fn named(&self, headers: &HeaderMap, id: String) -> Result<(Principal, Row), Problem> {
        let who = self.admit(headers)?;
        let missing = || Problem::not_found("there is no export of this id");
        let row = self.ask(move |desk| Ok(desk.table.get(&id)?)).await?.ok_or_else(missing)?;
        let sees = sees(&who, &row.created_by, &row.spec.scopes);
        if sees { Ok((who, row)) } else { Err(missing()) }
    }
}

/// What they made, as long as they may still see all that went into it: a scope may have been narrowed
/// since, and a name may be somebody else's by now.
fn sees(who: &Principal, whose: &str, made: &[Scope]) -> bool {
    let within = |bound: &Scope| bound.is_all() || made.iter().any(|scope| scope.within(bound));
    sees_everything(who) || (who.name == whose && who.scopes.iter().all(within))
}

/// Whoever administers, and is bounded by nothing.
fn sees_everything(who: &Principal) -> bool {
    who.may(Permission::Administer) && who.sees_all()
}

async fn create(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let who = state.admit(&headers)?;
    let asked: ask::Asked = ask::body(&body)?;
    let row = state
        .ask(move |desk| {
            let spec =
                asked.spec(desk.source.clock.now(), &desk.options, desk.log().is_some(), &who)?;
            if !desk.has_place()? {
                return Err(Problem::too_many("too many exports wait; ask again later"));
            }
            match desk.room() {
                Err(full @ (ExportError::Full { .. } | ExportError::NoRoom { .. })) => {
                    return Err(Problem::too_many(full.to_string()));
                }
                other => other?,
            }
            Ok(desk.queue(spec, &who.name)?)
        })
        .await?;
    state.exports.wake();
    let mut response = json(StatusCode::ACCEPTED, &Entry::of(&row))?;
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/exports/{}", row.id)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

type Pairs = Vec<(String, String)>;

async fn list(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers)?;
    let (mut limit, mut before) = (LIMIT.0, None);
    for (key, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        match key.as_str() {
            "limit" => limit = read_limit(value)?,
            "cursor" => before = Some(read_cursor(value)?),
            _ => return Err(Problem::bad("query", "there are the parameters limit and cursor")),
        }
    }
    let asker = who.clone();
    let rows = state
        .ask(move |desk| {
            let whose = (!sees_everything(&asker)).then_some(asker.name.as_str());
            let before = before.as_ref().map(|(time, id)| (*time, id.as_str()));
            Ok(desk.table.list(whose, before, limit + 1)?)
        })
        .await?;
    let more = rows.len() > limit;
    let seen = |row: &&Row| sees(&who, &row.created_by, &row.spec.scopes);
    let shown: Vec<Entry<'_>> = rows.iter().take(limit).filter(seen).map(Entry::of).collect();
    let next_cursor = rows
        .get(limit.saturating_sub(1))
        .filter(|_| more)
        .map(|row| format!("{}.{}", row.created.micros(), row.id));
    json(StatusCode::OK, &Page { exports: shown, next_cursor })
}

fn read_limit(value: &str) -> Result<usize, Problem> {
    let limit = value.parse().ok().filter(|limit| (1..=LIMIT.1).contains(limit));
    limit.ok_or_else(|| Problem::bad("limit", "write a number from 1 to 500"))
}

fn read_cursor(value: &str) -> Result<(Timestamp, String), Problem> {
    value
        .split_once('.')
        .and_then(|(at, id)| Some((Timestamp::from_micros(at.parse().ok()?), id.to_owned())))
        .ok_or_else(|| Problem::bad("cursor", "not a cursor that this collector gave out"))
}

async fn one(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (_who, row) = state.named(&headers, id).await?;
    json(StatusCode::OK, &Entry::of(&row))
}

async fn remove(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (who, row) = state.named(&headers, id).await?;
    state.ask(move |desk| Ok(desk.delete(&row, &who.name)?)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn is_there(row: &Row) -> Result<(), Problem> {
    match row.status {
        Status::Completed => Ok(()),
        Status::Queued | Status::Running => {
            Err(Problem::conflict("the export is not complete yet; ask for its status"))
        }
        Status::Expired => Err(Problem::gone("the file has expired; make the export again")),
        Status::Failed => {
            let why = row.told.error.as_deref().unwrap_or("unknown");
            Err(Problem::conflict(format!("the export has failed: {why}")))
        }
    }
}

async fn fetch(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (who, row) = state.named(&headers, id).await?;
    is_there(&row)?;
    let desk = &state.exports.desk;
    let answer = download::answer(&headers, &row, &desk.file_path(&row)).await?;
    if let Some(sent) = answer.sent {
        let mut told = row.clone();
        told.told.bytes = sent;
        let part = if sent < row.told.bytes { "a part of the file" } else { "" };
        desk.tell(&told, "export.download", "success", &who.name, part);
    }
    Ok(answer.response)
}

async fn proof(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (who, row) = state.named(&headers, id).await?;
    if row.status != Status::Expired {
        is_there(&row)?;
    }
    let Some(proof) = row.told.proof.clone() else {
        return Err(Problem::not_found(
            "a bundle carries its own proofs: give it to custody-verify",
        ));
    };
    state.exports.desk.tell(&row, "export.proof", "success", &who.name, "");
    let mut response = Response::new(Body::from(proof + "\n"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let name = format!("{}.proof.json", row.file_name());
    headers.insert(header::CONTENT_DISPOSITION, download::disposition(&name));
    Ok(response)
}

async fn create_schedule(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let who = state.admit(&headers)?;
    let mut plan: Plan = ask::body(&body)?;
    let schedule = state
        .ask(move |desk| {
            let now = desk.source.clock.now();
            let next = plan.check(now, &desk.options, desk.log().is_some(), &who)?;
            if desk.table.schedules()?.len() >= MAX_SCHEDULES {
                return Err(Problem::too_many("there are 200 schedules; delete one"));
            }
            let schedule =
                Schedule { id: new_id()?, created: now, created_by: who.name, next, plan };
            desk.table.add_schedule(&schedule)?;
            schedule::tell(desk, &schedule, "schedule.create", &schedule.created_by);
            Ok(schedule)
        })
        .await?;
    json(StatusCode::CREATED, &ScheduleEntry::of(&schedule))
}

async fn schedules(State(state): State<ApiState>, headers: HeaderMap) -> Result<Response, Problem> {
    let who = state.admit(&headers)?;
    let all = state.ask(|desk| Ok(desk.table.schedules()?)).await?;
    let seen = all.iter().filter(|one| sees(&who, &one.created_by, &one.plan.scopes));
    json(StatusCode::OK, &ScheduleList { schedules: seen.map(ScheduleEntry::of).collect() })
}

async fn remove_schedule(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers)?;
    state
        .ask(move |desk| {
            let all = desk.table.schedules()?;
            let found = all.iter().find(|schedule| schedule.id == id);
            let found = found.filter(|one| sees(&who, &one.created_by, &one.plan.scopes));
            let Some(found) = found else {
                return Err(Problem::not_found("there is no schedule of this id"));
            };
            if desk.table.remove_schedule(&id)? {
                schedule::tell(desk, found, "schedule.delete", &who.name);
            }
            Ok(())
        })
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Permissions;

    #[test]
    fn a_narrowed_scope_or_anothers_name_shows_no_export_that_holds_more() {
        let tenant = |name: &str| Scope { tenants: vec![name.to_owned()], ..Scope::ALL };
        let named = |scope: Scope| Principal {
            scopes: vec![scope].into(),
            ..Principal::new("jane", Permissions::of(&[Permission::Export]))
        };
        let wide = [Scope::ALL];
        let acme = [tenant("acme")];
        assert!(sees(&named(Scope::ALL), "jane", &wide));
        assert!(sees(&named(Scope::ALL), "jane", &acme));
        assert!(sees(&named(tenant("acme")), "jane", &acme));
        assert!(!sees(&named(tenant("acme")), "jane", &wide), "her scope was narrowed");
        assert!(!sees(&named(tenant("acme")), "jane", &[]), "made by somebody unbounded");
        assert!(!sees(&named(tenant("beta")), "jane", &acme), "her name was another's");
        assert!(!sees(&named(Scope::ALL), "ann", &acme));
    }
}
