//! The query API: `GET /v1/events`, `GET /v1/events/{id}`, `GET /v1/stats`; beside it stand
//! [`super::suggest`], [`super::timeline`], [`super::history`], [`super::seen`] and [`super::tail`].
//!
//! A page is `{"events":[…],"next_cursor":…,"total":{"value":n,"exact":bool}}`; the events are
//! the canonical bytes as the evidence log has them. An answer that had to end because its time
//! was up has `"cut":{"after_ms":…,"searched_from":…}`. Errors are problem+json.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use custody_event::{Block, Clock, EventId, EventView};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::answer;
use super::auth::{Authenticator, Gate, Permission, Principal};
use super::filter::{Expr, Filter, Pattern};
use super::keys::Key;
use super::params;
use super::problem::Problem;
use crate::index::{
    Counts, Cut, Direction, EventStore, Hit, IndexError, OpenBlock, Page, SearchRequest, Stats,
    StatsRequest, Total, terms,
};
use crate::own::{Act, Acts};

/// What the routes need.
#[derive(Clone)]
pub struct QueryState {
    /// Finds events.
    pub store: Arc<dyn EventStore>,
    /// Knows tokens.
    pub auth: Arc<dyn Authenticator>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Proves events, where the collector keeps a transparency log.
    pub prover: Option<Arc<dyn Prove>>,
    /// Takes who has asked what.
    pub acts: Option<Acts>,
}

/// Proves events. Implemented over the evidence and its transparency log.
pub trait Prove: Send + Sync + 'static {
    /// The proof of the event at `index` of this block; `None` while no checkpoint names the
    /// block, or where no proof can be made.
    fn prove(&self, block: &Block, index: u32) -> Option<Proved>;
}

/// A proof, as it is answered.
#[derive(Debug, Clone)]
pub struct Proved {
    /// The block's place in the log.
    pub log_index: u64,
    /// [`custody_evidence::proof::EventProof`].
    pub json: Box<RawValue>,
}

/// Events before and after one, at most.
pub const NEIGHBOURS: usize = 10;

/// The API's routes.
pub fn router(state: QueryState) -> Router {
    Router::new()
        .route("/v1/events", get(events))
        .route("/v1/events/{id}", get(event))
        .route("/v1/stats", get(stats))
        .route("/v1/suggest", get(super::suggest::suggest))
        .route("/v1/timeline", get(super::timeline::timeline))
        .route("/v1/history", get(super::history::history))
        .route("/v1/access", get(super::seen::access))
        .with_state(state)
}

/// Query parameters in their order, repeated ones too.
pub(super) type Pairs = Vec<(String, String)>;

/// Where an answer had to end.
#[derive(Debug, Clone, Serialize)]
pub(super) struct CutBody {
    after_ms: u64,
    /// All events from this time on have been looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    searched_from: Option<String>,
    /// All events before this time have been looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    searched_to: Option<String>,
}

impl CutBody {
    pub(super) fn of(cut: &Cut) -> Self {
        let searched = Some(cut.searched.to_string());
        let (searched_from, searched_to) = match cut.direction {
            Direction::NewestFirst => (searched, None),
            Direction::OldestFirst => (None, searched),
        };
        Self { after_ms: cut.after_ms, searched_from, searched_to }
    }
}

#[derive(Serialize)]
struct PageBody {
    events: Vec<Box<RawValue>>,
    /// Ids of the events that are shown without parts that the asker may not see.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    redacted: Vec<String>,
    next_cursor: Option<String>,
    total: Total,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<CutBody>,
}

#[derive(Serialize)]
struct EventBody {
    event: Box<RawValue>,
    /// Is the event shown without parts that the asker may not see?
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    redacted: bool,
    block: Place,
    neighbours: Around<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Box<RawValue>>,
}

/// Where an event stands in the evidence.
#[derive(Debug, Clone, Serialize)]
pub struct Place {
    /// The agent.
    pub agent: String,
    /// The stream.
    pub stream: String,
    /// The block's number in it.
    pub seq: u64,
    /// The event's index in the block.
    pub index: u32,
    /// SHA-256 of the block's header.
    pub header_hash: String,
    /// When the collector took it.
    pub received: String,
    /// Is the block signed by its agent?
    pub signed: bool,
    /// The header's place in the transparency log, once a checkpoint names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_index: Option<u64>,
}

/// What happened before and after, in the same session or on the same host; each oldest first.
#[derive(Debug, Clone, Serialize)]
pub struct Around<T> {
    /// `session`, `host` or `all`: what the neighbours have in common.
    pub by: &'static str,
    /// Before.
    pub before: Vec<T>,
    /// After.
    pub after: Vec<T>,
}

/// An event with all that is known of its place.
#[derive(Debug, Clone)]
pub struct Found {
    /// The event.
    pub hit: Hit,
    /// Where.
    pub place: Place,
    /// Around it.
    pub around: Around<Hit>,
    /// Its proof.
    pub proof: Option<Proved>,
}

impl QueryState {
    /// Who asks, if they may do this.
    ///
    /// # Errors
    /// 401 or 403.
    pub fn admit(&self, headers: &HeaderMap, to: Permission) -> Result<Principal, Problem> {
        self.gate().admit(headers, to)
    }

    /// Lets requests in, and records what is refused.
    #[must_use]
    pub fn gate(&self) -> Gate<'_> {
        Gate { auth: &*self.auth, acts: self.acts.as_ref() }
    }

    /// Writes down who asked or did what.
    pub fn record(&self, act: Act) {
        if let Some(acts) = &self.acts {
            acts.record(act);
        }
    }

    /// Writes down a search; the pages of one search are one.
    pub fn record_search(&self, who: &str, via: &'static str, pairs: &[(String, String)]) {
        let asked = pairs.iter().filter(|(key, value)| key != "cursor" && !value.is_empty());
        let words: Vec<String> = asked.map(|(key, value)| format!("{key}={value}")).collect();
        self.record(Act::Searched { who: who.to_owned(), via, query: words.join("&") });
    }

    /// Asks the store where blocking is allowed.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn EventStore) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, Problem> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || question(store.as_ref())).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Problem::internal("the search was broken off; the log says more")),
        }
    }

    /// A page, of what `who` may see.
    ///
    /// # Errors
    /// The index cannot answer.
    pub async fn search(&self, who: &Principal, request: SearchRequest) -> Result<Page, Problem> {
        let request = SearchRequest { filter: who.narrow(request.filter), ..request };
        let mut page = self.ask(move |store| store.search(&request)).await?;
        page.hits.iter_mut().for_each(|hit| show(who, hit));
        Ok(page)
    }

    /// Counts, of what `who` may see.
    ///
    /// # Errors
    /// The index cannot answer.
    pub async fn stats(&self, who: &Principal, request: StatsRequest) -> Result<Stats, Problem> {
        let request = StatsRequest { filter: who.narrow(request.filter), ..request };
        self.ask(move |store| store.stats(&request)).await
    }

    /// One event, its place and its neighbours, of what `who` may see.
    ///
    /// # Errors
    /// No such id for `who` (404), or the index cannot answer.
    pub async fn find(&self, who: &Principal, id: &str) -> Result<Found, Problem> {
        let id: EventId = id
            .parse()
            .map_err(|_| Problem::not_found("an event's id is 32 lower-case hex digits"))?;
        let (prover, asker, gate) = (self.prover.clone(), who.clone(), self.clone());
        self.ask(move |store| {
            let hidden = std::cell::Cell::new(false);
            let sees = |event: &[u8]| {
                let sees = EventView::read(event).is_ok_and(|event| asker.sees(&event));
                hidden.set(hidden.get() || !sees);
                sees
            };
            let Some((mut hit, block)) = store.find(id, &sees)? else {
                // One that is there for others is answered as one that is not there.
                if hidden.get() {
                    gate.gate().denied(&asker, "outside_scope");
                }
                return Ok(None);
            };
            let around = around(store, &asker, &hit)?;
            show(&asker, &mut hit);
            // A proof holds the whole event.
            let prover = prover.filter(|_| !hit.redacted);
            let proof = prover.and_then(|prover| prover.prove(&block.stored.block, hit.key.index));
            let log_index = proof.as_ref().map(|proof| proof.log_index);
            let place = Place { log_index, ..place(&block, &hit) };
            Ok(Some(Found { hit, place, around, proof }))
        })
        .await?
        .ok_or_else(|| {
            Problem::not_found("there is no event of this id, or it is not searchable yet")
        })
    }
}

fn place(block: &OpenBlock, hit: &Hit) -> Place {
    let header = &block.stored.block.header;
    Place {
        agent: header.agent.to_string(),
        stream: header.stream.to_string(),
        seq: header.seq.get(),
        index: hit.key.index,
        header_hash: block.stored.block.hash().to_string(),
        received: block.stored.receipt.received.to_string(),
        signed: block.stored.block.signature().is_some(),
        log_index: None,
    }
}

/// Leaves out of the hit what `who` may not see.
fn show(who: &Principal, hit: &mut Hit) {
    if let Cow::Owned(event) = who.sight().show(&hit.event) {
        (hit.event, hit.redacted) = (event, true);
    }
}

fn around(store: &dyn EventStore, who: &Principal, hit: &Hit) -> Result<Around<Hit>, IndexError> {
    let (by, expr) = common(hit);
    let near = |direction| {
        let request = SearchRequest {
            filter: who.narrow(Filter { expr: expr.clone(), ..Filter::default() }),
            limit: NEIGHBOURS,
            after: Some(hit.key),
            direction,
            ..SearchRequest::default()
        };
        let mut hits = store.search(&request)?.hits;
        hits.iter_mut().for_each(|hit| show(who, hit));
        Ok::<_, IndexError>(hits)
    };
    let mut before = near(Direction::NewestFirst)?;
    before.reverse();
    Ok(Around { by, before, after: near(Direction::OldestFirst)? })
}

/// What neighbours must share with the event: its session, else its host.
fn common(hit: &Hit) -> (&'static str, Expr) {
    let Ok(event) = EventView::read(&hit.event) else { return ("all", Expr::default()) };
    for (by, value) in [("session", &event.session.id), ("host", &event.host)] {
        if let (Some(value), Some(key)) = (value, Key::from_name(by)) {
            return (by, Expr::Value(key, Pattern::Exact(terms::folded_value(value))));
        }
    }
    ("all", Expr::default())
}

async fn events(
    State(state): State<QueryState>,
    headers: HeaderMap,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Search)?;
    state.record_search(&who.name, "api", &pairs);
    let request = params::search(&pairs, state.clock.now())?;
    let page = state.search(&who, request).await?;
    let body = PageBody {
        events: page.hits.iter().map(verbatim).collect::<Result<_, _>>()?,
        redacted: page.hits.iter().filter(|hit| hit.redacted).filter_map(id_of).collect(),
        next_cursor: page.next.map(|key| key.to_cursor()),
        total: page.total,
        cut: page.cut.as_ref().map(CutBody::of),
    };
    json(&body)
}

async fn event(
    State(state): State<QueryState>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Search)?;
    let found = state.find(&who, &id).await?;
    state.record(Act::Viewed { who: who.name, via: "api", event: id });
    let list = |hits: &[Hit]| hits.iter().map(verbatim).collect::<Result<Vec<_>, _>>();
    let body = EventBody {
        event: verbatim(&found.hit)?,
        redacted: found.hit.redacted,
        block: found.place,
        neighbours: Around {
            by: found.around.by,
            before: list(&found.around.before)?,
            after: list(&found.around.after)?,
        },
        proof: found.proof.map(|proof| proof.json),
    };
    json(&body)
}

#[derive(Serialize)]
struct StatsBody<'a> {
    total: u64,
    /// By the first name of `group_by`.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupBody<'a>>>,
    /// By each of its names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    facets: BTreeMap<&'a str, Vec<GroupBody<'a>>>,
    /// There are more values than the thousand most frequent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more_values: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    spans: Option<Vec<SpanBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<CutBody>,
}

#[derive(Serialize)]
pub(super) struct GroupBody<'a> {
    value: &'a str,
    count: u64,
}

pub(super) fn counted(counts: &Counts) -> Vec<GroupBody<'_>> {
    counts.iter().map(|(value, count)| GroupBody { value, count: *count }).collect()
}

#[derive(Serialize)]
struct SpanBody {
    start: String,
    count: u64,
}

async fn stats(
    State(state): State<QueryState>,
    headers: HeaderMap,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Search)?;
    state.record_search(&who.name, "api", &pairs);
    let counting = params::stats(&pairs, state.clock.now())?;
    let spanned = counting.request.interval_micros.is_some();
    let stats = state.stats(&who, counting.request).await?;
    let spans = stats
        .spans
        .iter()
        .map(|(start, count)| SpanBody { start: start.to_string(), count: *count });
    let named = counting.names.iter().map(String::as_str).zip(&stats.facets);
    json(&StatsBody {
        total: stats.total,
        groups: stats.facets.first().map(counted),
        facets: named.map(|(name, counts)| (name, counted(counts))).collect(),
        more_values: stats.more_values,
        spans: spanned.then(|| spans.collect()),
        cut: stats.cut.as_ref().map(CutBody::of),
    })
}

fn id_of(hit: &Hit) -> Option<String> {
    EventView::read(&hit.event).ok().map(|event| event.id.to_hex())
}

/// The event's own bytes as a part of the answer.
pub(super) fn verbatim(hit: &Hit) -> Result<Box<RawValue>, Problem> {
    let text = String::from_utf8(hit.event.clone())
        .map_err(|_| Problem::internal("an event in the evidence log is not UTF-8"))?;
    RawValue::from_string(text)
        .map_err(|_| Problem::internal("an event in the evidence log is not JSON"))
}

pub(super) fn json(body: &impl Serialize) -> Result<Response, Problem> {
    answer::json(StatusCode::OK, body)
}
