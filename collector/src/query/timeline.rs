//! `GET /v1/timeline`: what happened in a session, by an actor or to a target, oldest first, with
//! the places where something is known to be missing.
//!
//! Whose it is, is said as in a search (`session=`, `actor=`, `target=`, or any other key). Gap
//! events of the hosts that the found events come from stand between them, marked: what they tell
//! of may have belonged here.

use axum::extract::{Query, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;

use super::api::{CutBody, Pairs, QueryState, json, verbatim};
use super::auth::Permission;
use super::basis::{Asker, is};
use super::filter::{Expr, Filter, Pattern};
use super::keys::Key;
use super::params;
use super::problem::Problem;
use crate::index::{Direction, Facet, Hit, SearchRequest, terms::Tag};

/// Hosts whose gaps are looked for, at most.
const MAX_HOSTS: usize = 100;

#[derive(Serialize)]
struct Timeline {
    entries: Vec<Entry>,
    next_cursor: Option<String>,
    /// Events of the subject in all; the gaps are not among them.
    events: u64,
    /// Gap events in all.
    gaps: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<CutBody>,
}

#[derive(Serialize)]
struct Entry {
    event: Box<RawValue>,
    /// Here something was lost; the event says what.
    gap: bool,
    /// Milliseconds since the entry before it on this page.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_previous_ms: Option<i64>,
}

pub(super) async fn timeline(
    State(state): State<QueryState>,
    headers: HeaderMap,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Search)?;
    let request = params::search(&pairs, state.clock.now())?;
    if request.filter.expr == Expr::default() || request.filter.expr.needs_text() {
        let what = "say whose timeline: session=, actor=, target=, or another key";
        return Err(Problem::bad("session", what));
    }
    let asker = Asker::new(state, who);
    asker.record("timeline", &pairs);
    json(&tell(&asker, request).await?)
}

async fn tell(asker: &Asker, request: SearchRequest) -> Result<Timeline, Problem> {
    let subject = request.filter.clone();
    let first = asker.first_time(&subject, Direction::OldestFirst).await?;
    let last = asker.first_time(&subject, Direction::NewestFirst).await?;
    let stats = asker.count(&subject, &[Facet::Tag(Tag::Host)]).await?;
    let hosts = stats.facets.first().into_iter().flatten().take(MAX_HOSTS);
    let hosts: Vec<String> = hosts.map(|(host, _)| host.clone()).collect();
    let mut around = subject.clone();
    let after_last = last.map(|last| last.plus_micros(1));
    around.within((first, after_last));
    let gap = gaps_of(&hosts)?;
    let gaps = asker.count(&Filter { expr: gap.clone(), ..around.clone() }, &[]).await?;
    let both = Filter { expr: Expr::Any(vec![subject.expr, gap]), ..around };
    let direction = Direction::OldestFirst;
    let page = asker.search(SearchRequest { filter: both, direction, ..request }).await?;
    let text = |time: custody_event::Timestamp| time.to_string();
    Ok(Timeline {
        entries: entries(&page.hits)?,
        next_cursor: page.next.map(|key| key.to_cursor()),
        events: stats.total,
        gaps: gaps.total,
        first: first.map(text),
        last: last.map(text),
        cut: page.cut.as_ref().or(stats.cut.as_ref()).map(CutBody::of),
    })
}

fn gaps_of(hosts: &[String]) -> Result<Expr, Problem> {
    let host = Key::from_name("host").ok_or_else(|| Problem::internal("a key is missing"))?;
    let exact = |name: &String| Expr::Value(host, Pattern::Exact(name.clone()));
    let hosts = Expr::Any(hosts.iter().map(exact).collect());
    Ok(Expr::All(vec![is("tag", "gap")?, hosts]))
}

fn entries(hits: &[Hit]) -> Result<Vec<Entry>, Problem> {
    let mut before: Option<i64> = None;
    let mut out = Vec::with_capacity(hits.len());
    for hit in hits {
        let time = hit.key.time.micros();
        let view = custody_event::EventView::read(&hit.event);
        let gap = view.is_ok_and(|view| view.tags.iter().any(|tag| tag == "gap"));
        let since_previous_ms = before.map(|before| (time - before) / 1_000);
        out.push(Entry { event: verbatim(hit)?, gap, since_previous_ms });
        before = Some(time);
    }
    Ok(out)
}
