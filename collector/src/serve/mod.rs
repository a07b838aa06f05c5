//! The collector's HTTP side: who is asking, how much, and where it goes.
//!
//! | route | who | what |
//! |---|---|---|
//! | `POST /v1/streams/{agent}/{stream}/blocks/{seq}` | the agent | a block ([`crate::ingest`]) |
//! | `POST /v1/enroll` | an enrolment token | an agent's id, host and key; gives its token and certificate |
//! | `POST /v1/agents/{agent}/certificate` | the agent | another certificate before the old one ends |
//! | `GET /v1/agents` | readers without a scope | agents with their streams and books |
//! | `/tlog/…`, `/v1/log…`, `/v1/agents/{agent}/keys` | see [`tlog`] | the transparency log |
//! | `GET /metrics` | loopback, or who reads | numbers for Prometheus ([`metrics`]) |
//! | `GET /healthz` | anybody | 200 while the process answers |
//! | `GET /readyz` | anybody | 200 while blocks are taken, else 503 |
//!
//! # Limits
//! A body is refused by its length before it is read; all bodies under way share a budget of
//! bytes; a body must come within 30 s. Connections, requests on one connection, and the time for
//! headers are bounded (`server`).

mod agents;
mod blocks;
mod certificate;
mod enroll;
pub(crate) mod keeper;
pub mod metrics;
pub mod problem;
pub mod server;
mod tlog;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use custody_config::shell::{StopToken, x509};
use custody_event::{AgentId, Clock, Timestamp};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use rustls_pki_types::CertificateDer;
use tokio::sync::Semaphore;

use crate::access::throttle::{Throttle, Verdict};
use crate::access::{Access, AgentRow, Gate, Identity, Permission, Principal, Standing, bearer};
use crate::authority::{Authority, agent_of};
use crate::ingest::Ingest;
use crate::own::{Act, Acts};
use crate::store::evidence::EvidenceLog;
use problem::{Code, Problem};

/// Bytes of bodies under way, over all connections: what a hundred agents send at once.
const BODIES_BYTES: usize = 192 * 1024 * 1024;
/// The longest body of the other rooms' routes: questions and forms.
const MAX_SMALL_BODY_BYTES: usize = 64 * 1024;
/// Of these, so many at once: what strangers send takes nothing from blocks.
const SMALL_BODIES: usize = 256;
/// A body must be here within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a body waits for its share of the bytes.
const BUDGET_WAIT: Duration = Duration::from_secs(2);

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    /// The client certificate that it has shown, which leads to the authority of agents.
    pub shown: Option<Shown>,
}

/// A client certificate that is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// The agent that it names; one that another authority has made may name none.
    pub agent: Option<AgentId>,
    /// It ends then, also while the connection lasts.
    pub until: Timestamp,
}

impl Shown {
    /// What this one says.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let until = x509::dates(certificate).map_or(Timestamp::MIN, |dates| dates.not_after);
        Self { agent: agent_of(certificate), until }
    }
}

/// What the handlers share.
pub struct App {
    ingest: Ingest,
    log: Arc<EvidenceLog>,
    access: Arc<Access>,
    clock: Arc<dyn Clock>,
    throttle: Throttle,
    bodies: Arc<Semaphore>,
    small_bodies: Semaphore,
    max_block_bytes: usize,
    client_certificates: bool,
    authority: Option<Arc<Authority>>,
    acts: Option<Acts>,
    counters: Arc<metrics::Counters>,
    started: Timestamp,
    stop: StopToken,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("max_block_bytes", &self.max_block_bytes)
            .finish_non_exhaustive()
    }
}

/// How the handlers are set.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A longer block is refused unread.
    pub max_block_bytes: usize,
    /// Threads that check blocks.
    pub workers: usize,
    /// Agents must show a client certificate.
    pub client_certificates: bool,
}

impl App {
    /// Over an open log and its agents.
    #[must_use]
    pub fn new(
        log: Arc<EvidenceLog>,
        access: Arc<Access>,
        clock: Arc<dyn Clock>,
        limits: &Limits,
        stop: StopToken,
    ) -> Self {
        Self {
            ingest: Ingest::new(Arc::clone(&log), limits.workers),
            log,
            access,
            throttle: Throttle::default(),
            bodies: Arc::new(Semaphore::new(BODIES_BYTES)),
            small_bodies: Semaphore::new(SMALL_BODIES),
            max_block_bytes: limits.max_block_bytes.min(custody_event::MAX_BLOCK_BYTES),
            client_certificates: limits.client_certificates,
            authority: None,
            acts: None,
            counters: Arc::default(),
            started: clock.now(),
            clock,
            stop,
        }
    }

    /// Tells of those who are refused.
    #[must_use]
    pub fn telling(self, acts: Acts) -> Self {
        Self { acts: Some(acts), ..self }
    }

    /// Agents get certificates by this authority.
    #[must_use]
    pub fn certifying(self, authority: Option<Arc<Authority>>) -> Self {
        Self { authority, ..self }
    }

    /// What is counted while requests are answered: the server counts, too.
    #[must_use]
    pub fn counters(&self) -> Arc<metrics::Counters> {
        Arc::clone(&self.counters)
    }

    /// The routes of this room, and those of others behind them.
    pub fn router(self: Arc<Self>, others: Router) -> Router {
        let others = others.layer(from_fn_with_state(Arc::clone(&self), whole_body));
        Router::new()
            .route("/v1/streams/{agent}/{stream}/blocks/{seq}", post(blocks::post_block))
            .route("/v1/enroll", post(enroll::post_enroll))
            .route("/v1/agents", get(agents::get_agents))
            .route("/v1/agents/{agent}/keys", post(tlog::post_key))
            .route("/v1/agents/{agent}/certificate", post(certificate::post_certificate))
            .route("/v1/log", get(tlog::get_log))
            .route("/v1/log/witness", post(tlog::post_witness))
            .route("/tlog/checkpoint", get(tlog::get_checkpoint))
            .route("/tlog/tile/{*path}", get(tlog::get_tile))
            .route("/tlog/witness/{agent}", get(tlog::get_witness))
            .route("/metrics", get(metrics::get_metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state(self)
            .merge(others)
            .fallback(|| async { Problem::coded(Code::NotFound, "there is nothing at this path") })
            .method_not_allowed_fallback(|| async {
                Problem::coded(Code::BadMethod, "this path does not take this method")
            })
    }

    /// Whose token the request shows.
    async fn identify(&self, headers: &HeaderMap, peer: Peer) -> Result<Identity, Problem> {
        let identity = bearer(headers).map(|token| self.access.identify(token));
        match identity {
            Some(Ok(identity)) => return Ok(identity),
            Some(Err(Standing::Lapsed(who, why))) => {
                self.tell(Act::Denied { who: Some(who), what: why.name().to_owned() });
            }
            Some(Err(_)) => {
                self.tell(Act::Denied { who: None, what: "unknown_token".to_owned() });
            }
            None => {}
        }
        match self.throttle.failed(peer.addr.ip(), self.clock.monotonic()) {
            Verdict::TooMany => Err(Problem::too_often("too many failed attempts", 60)),
            Verdict::Refuse { delay, log } => {
                if log {
                    log::warn!(peer:% = peer.addr; "a request without a valid token was refused");
                }
                tokio::time::sleep(delay).await;
                Err(Problem::coded(
                    Code::Unauthorized,
                    "no valid token: send `Authorization: Bearer …`",
                ))
            }
        }
    }

    async fn agent(&self, headers: &HeaderMap, peer: Peer) -> Result<Arc<AgentRow>, Problem> {
        self.check_certificate(peer)?;
        self.bearer_agent(headers, peer).await
    }

    /// The agent whose token is shown; a certificate that is shown too is not another's.
    async fn bearer_agent(
        &self,
        headers: &HeaderMap,
        peer: Peer,
    ) -> Result<Arc<AgentRow>, Problem> {
        let Identity::Agent(agent) = self.identify(headers, peer).await? else {
            return Err(Problem::coded(Code::Forbidden, "the token is not an agent's"));
        };
        match peer.shown.and_then(|shown| shown.agent) {
            Some(named) if named != agent.id => {
                log::warn!(peer:% = peer.addr, token = agent.id.to_hex(), certificate = named.to_hex(); "an agent's token came with another agent's certificate: one of them may have been stolen");
                let what = format!("the certificate is agent {named}'s and the token is not");
                Err(Problem::coded(Code::WrongAgent, what))
            }
            _ => Ok(agent),
        }
    }

    fn tell(&self, act: Act) {
        if let Some(acts) = &self.acts {
            acts.record(act);
        }
    }

    /// Somebody who may search and sees every event: what is read here tells of all hosts.
    async fn reader(&self, headers: &HeaderMap, peer: Peer) -> Result<Principal, Problem> {
        match self.identify(headers, peer).await? {
            Identity::Reader(principal) => self.unbounded(principal),
            _ => Err(Problem::coded(Code::Forbidden, "the token does not allow reading")),
        }
    }

    fn unbounded(&self, who: Principal) -> Result<Principal, Problem> {
        let gate = Gate { auth: &*self.access, acts: self.acts.as_ref() };
        if !who.may(Permission::Search) {
            gate.denied(&who, Permission::Search.name());
            return Err(Problem::coded(Code::Forbidden, "the token does not allow reading"));
        }
        if !who.sees_all() {
            gate.denied(&who, "outside_scope");
            let said = "this tells of all hosts, and what you see is bounded to some";
            return Err(Problem::coded(Code::Forbidden, said));
        }
        Ok(who)
    }

    /// Where certificates are required: has one been shown that is still good?
    fn check_certificate(&self, peer: Peer) -> Result<(), Problem> {
        let refused = |what: &str| Err(Problem::coded(Code::NoCertificate, what));
        match peer.shown {
            _ if !self.client_certificates => Ok(()),
            None => refused("this collector takes agents with a client certificate only"),
            Some(shown) if shown.until <= self.clock.now() => {
                refused("the client certificate of this connection has ended: show a new one")
            }
            Some(_) => Ok(()),
        }
    }

    fn check_body_length(headers: &HeaderMap, limit: usize) -> Result<usize, Problem> {
        let Some(length) = headers.get(header::CONTENT_LENGTH) else { return Ok(limit) };
        let length: usize =
            length.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
                Problem::coded(Code::BadRequest, "Content-Length is not a number")
            })?;
        if length > limit { Err(too_large(limit)) } else { Ok(length) }
    }
}

/// Takes the whole body before a room of the others sees the request: bounded, in time, and in number.
async fn whole_body(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let bytes = async {
        let expected = App::check_body_length(&parts.headers, MAX_SMALL_BODY_BYTES)?;
        let place = tokio::time::timeout(BUDGET_WAIT, app.small_bodies.acquire());
        let Ok(Ok(_place)) = place.await else {
            return Err(Problem::unavailable("too many requests are under way", 1));
        };
        read_body(body, expected, MAX_SMALL_BODY_BYTES).await
    };
    match bytes.await {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(problem) => problem.into_response(),
    }
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    if let Some(reason) = app.log.failed().borrow().clone() {
        return Problem::unavailable(reason, 30).into_response();
    }
    if app.stop.is_stopped() {
        return Problem::unavailable("shutting down", 5).into_response();
    }
    "ready\n".into_response()
}

fn too_large(limit: usize) -> Problem {
    Problem::coded(Code::TooLarge, format!("the body is longer than {limit} bytes"))
}

/// Reads a body of at most `limit` bytes; `expected` is what its header says.
async fn read_body(mut body: Body, expected: usize, limit: usize) -> Result<Vec<u8>, Problem> {
    let read = async {
        let mut bytes = Vec::with_capacity(expected.min(limit));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Problem::coded(Code::BadRequest, format!("the body broke off: {error}"))
            })?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > limit {
                    return Err(too_large(limit));
                }
                bytes.extend_from_slice(data);
            }
        }
        Ok(bytes)
    };
    tokio::time::timeout(BODY_TIMEOUT, read)
        .await
        .unwrap_or_else(|_| Err(Problem::coded(Code::TooSlow, "the body did not come in 30 s")))
}
