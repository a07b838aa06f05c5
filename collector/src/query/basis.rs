//! What an answer rests on: since when there are events, of which sources, and with which gaps.
//!
//! "Nobody has changed it" and "she has not seen it" are said by what is *not* there; so each such
//! answer carries what could have been there.

use custody_event::Timestamp;
use serde::Serialize;

use super::api::QueryState;
use super::auth::Principal;
use super::condition::condition;
use super::filter::{Expr, Filter};
use super::keys::Named;
use super::problem::Problem;
use crate::index::{Direction, Facet, Page, SearchRequest, Stats, StatsRequest, terms::Tag};

/// One who asks several questions for one answer.
pub(super) struct Asker {
    state: QueryState,
    /// Who it is, whatever the questions are.
    pub(super) who: Principal,
}

/// What an answer rests on.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Basis {
    /// Events that were there to be found, in the period that was asked about.
    pub(super) events: u64,
    /// The time of the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<String>,
    /// The time of the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<String>,
    /// Places in them where something is known to be lost.
    pub(super) gaps: u64,
    pub(super) sources: Vec<Count>,
    pub(super) hosts: Vec<Count>,
    pub(super) packs: Vec<Count>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Count {
    value: String,
    count: u64,
}

/// Sources, hosts and packs that are named, at most each.
const MAX_NAMED: usize = 50;

/// The condition that `value` asks under `name`; `name` is one of ours.
pub(super) fn is(name: &'static str, value: &str) -> Result<Expr, Problem> {
    let named = Named::of(name).ok_or_else(|| Problem::internal("a key is missing"))?;
    condition(&named, value, false).map_err(|wrong| Problem::bad(name, wrong.what))
}

/// The condition that one of these values stands under `name`.
pub(super) fn any(name: &'static str, values: &[&str]) -> Result<Expr, Problem> {
    let any: Result<Vec<_>, _> = values.iter().map(|value| is(name, value)).collect();
    Ok(Expr::Any(any?))
}

impl Asker {
    pub(super) fn new(state: QueryState, who: Principal) -> Self {
        Self { state, who }
    }

    /// Writes the question down.
    pub(super) fn record(&self, call: &str, pairs: &[(String, String)]) {
        let mut told = vec![("call".to_owned(), call.to_owned())];
        told.extend_from_slice(pairs);
        self.state.record_search(&self.who.name, "api", &told);
    }

    /// A page.
    pub(super) async fn search(&self, request: SearchRequest) -> Result<Page, Problem> {
        self.state.search(&self.who, request).await
    }

    /// Counts.
    pub(super) async fn count(&self, filter: &Filter, facets: &[Facet]) -> Result<Stats, Problem> {
        let (filter, facets) = (filter.clone(), facets.to_vec());
        let request = StatsRequest { filter, facets, ..StatsRequest::default() };
        self.state.stats(&self.who, request).await
    }

    /// The time of the first event that way round.
    pub(super) async fn first_time(
        &self,
        filter: &Filter,
        direction: Direction,
    ) -> Result<Option<Timestamp>, Problem> {
        let filter = filter.clone();
        let request = SearchRequest { filter, limit: 1, direction, ..SearchRequest::default() };
        Ok(self.search(request).await?.hits.first().map(|hit| hit.key.time))
    }

    /// What is there between these times.
    pub(super) async fn basis(&self, filter: &Filter) -> Result<Basis, Problem> {
        let all = Filter { expr: Expr::default(), ..filter.clone() };
        let facets = [Tag::Input, Tag::Host, Tag::Pack].map(Facet::Tag);
        let stats = self.count(&all, &facets).await?;
        let gaps = self.count(&all.clone().and(is("tag", "gap")?), &[]).await?;
        let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let mut named = stats.facets.into_iter().map(|counts| {
            let few = counts.into_iter().take(MAX_NAMED);
            few.map(|(value, count)| Count { value, count }).collect::<Vec<_>>()
        });
        Ok(Basis {
            events: stats.total,
            since: text(self.first_time(&all, Direction::OldestFirst).await?),
            until: text(self.first_time(&all, Direction::NewestFirst).await?),
            gaps: gaps.total,
            sources: named.next().unwrap_or_default(),
            hosts: named.next().unwrap_or_default(),
            packs: named.next().unwrap_or_default(),
        })
    }
}
