//! The events of `tests/questions`, indexed, behind the API's own router: for tests.

use std::sync::Arc;

use axum::body::Body;
use custody_config::shell::StopToken;
use custody_event::{Clock, EventView, SystemClock, Timestamp};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::api::{self, QueryState};
use super::tail::{self, Tail};
use super::{filter::Filter, openapi, params};
use crate::access::{Authenticator, Permission, Permissions, Principal, Scope};
use crate::index::tests::Bench;
use crate::index::{EmbeddedStore, EventStore, Indexer, SearchRequest};
use crate::store::{BlockSource, Receipt};

pub(crate) const EVENTS: &str = include_str!("../../../tests/questions/events.ndjson");
/// What relative times in the questions count from.
pub(crate) const NOW: &str = "2025-10-12T12:00:00.000000Z";

/// Always the same time of day, and real time that passes.
struct Fixed(SystemClock);

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        now()
    }

    fn monotonic(&self) -> std::time::Duration {
        self.0.monotonic()
    }
}

pub(crate) fn now() -> Timestamp {
    Timestamp::parse(NOW).unwrap()
}

struct Tokens;

impl Authenticator for Tokens {
    fn check(&self, bearer: &str) -> Option<Principal> {
        use Permission::{Search, ViewRaw, ViewSensitive};
        let permissions = match bearer {
            "good" | "ops" => Permissions::of(&[Search, ViewRaw, ViewSensitive]),
            "blind" => Permissions::of(&[Search]),
            "nothing" => Permissions::of(&[]),
            _ => return None,
        };
        let mut principal = Principal::new(bearer, permissions);
        if bearer == "ops" {
            let tenants = vec!["ops".to_owned()];
            principal.scopes = Arc::new([Scope { tenants, ..Scope::ALL }]);
        }
        Some(principal)
    }
}

pub(crate) struct App {
    pub(crate) router: axum::Router,
    pub(crate) store: Arc<EmbeddedStore>,
    pub(crate) bench: Bench,
    _indexer: Indexer,
    pub(crate) stop: StopToken,
}

impl Drop for App {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

/// The number of an event of the questions: the end of its id.
pub(crate) fn number(event: &[u8]) -> u32 {
    EventView::read(event).unwrap().id.to_hex()[4..].parse().unwrap()
}

impl App {
    /// With the events of the questions, in blocks of several days.
    pub(crate) fn new() -> Self {
        let bench = Bench::new();
        let lines: Vec<&str> = EVENTS.lines().collect();
        for (day, lines) in (0..).zip(lines.chunks(11)) {
            let received = now().plus_micros(i64::from(day) * 86_400_000_000);
            let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            bench.log.append(text.as_bytes(), Receipt { held: vec![], received }).unwrap();
        }
        Self::over(bench)
    }

    pub(crate) fn over(bench: Bench) -> Self {
        let (store, indexer) = bench.indexed();
        let query = QueryState {
            store: Arc::<EmbeddedStore>::clone(&store),
            auth: Arc::new(Tokens),
            clock: Arc::new(Fixed(SystemClock::new())),
            prover: None,
            acts: None,
        };
        let stop = StopToken::new();
        let source = Arc::clone(&bench.log) as Arc<dyn BlockSource>;
        let tail = Tail::start(source, stop.clone()).unwrap();
        let router =
            api::router(query.clone()).merge(openapi::router()).merge(tail::router(query, tail));
        Self { router, store, bench, _indexer: indexer, stop }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> http::Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Asks with a good token; what is answered is JSON.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, serde_json::Value) {
        self.get_as("good", path).await
    }

    /// Asks with this token.
    pub(crate) async fn get_as(&self, token: &str, path: &str) -> (StatusCode, serde_json::Value) {
        let request = Request::get(path).header("authorization", format!("Bearer {token}"));
        let response = self.send(request.body(Body::empty()).unwrap()).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
            panic!("{path}: {} {}", parts.status, String::from_utf8_lossy(&bytes))
        });
        (parts.status, body)
    }

    /// The same, and it is a good answer.
    pub(crate) async fn ask(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// Numbers of the events that the index finds, page by page.
    pub(crate) fn found(&self, filter: &Filter, limit: usize) -> Vec<u32> {
        let mut request =
            SearchRequest { filter: filter.clone(), limit, ..SearchRequest::default() };
        let mut numbers = Vec::new();
        loop {
            let page = self.store.search(&request).unwrap();
            assert_eq!(page.cut, None);
            numbers.extend(page.hits.iter().map(|hit| number(&hit.event)));
            match page.next {
                Some(next) => request.after = Some(next),
                None => return numbers,
            }
        }
    }
}

/// The filter of a query string, as the API reads it.
pub(crate) fn filter_of(query: &str) -> Filter {
    let uri: http::Uri = format!("/?{query}").parse().unwrap();
    let axum::extract::Query::<Vec<(String, String)>>(pairs) =
        axum::extract::Query::try_from_uri(&uri).unwrap();
    params::search(&pairs, now())
        .unwrap_or_else(|problem| panic!("{query}: {}", problem.detail))
        .filter
}

/// A text as a part of a query string.
pub(crate) fn encoded(text: &[u8]) -> String {
    text.iter().map(|byte| format!("%{byte:02X}")).collect()
}
