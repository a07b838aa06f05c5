//! The transparency log's routes.
//!
//! | route | who | what |
//! |---|---|---|
//! | `GET /tlog/checkpoint` | anybody | the newest signed note; never cached |
//! | `GET /tlog/tile/<L>/<N>[.p/<W>]` | anybody | hashes; a full tile never changes |
//! | `GET /tlog/tile/entries/<N>[.p/<W>]` | readers without a scope, agents | headers |
//! | `GET /v1/log?from=N,M…` | the same | vkey, checkpoint, proofs from N, M… on, accepted forks |
//! | `POST /v1/log/witness` | an agent | a checkpoint that it was shown: cosigned, or not continued |
//! | `GET /tlog/witness/<agent>` | readers without a scope, agents | the newest that it has cosigned |
//! | `POST /v1/agents/{agent}/keys` | the agent | a rotation of its key ([`Entry::Rotated`]) |
//!
//! A log that only its friends can watch proves little, so checkpoint and hash tiles are public as
//! tlog-tiles asks: a hash says nothing. Entries name hosts, agents and numbers of events: they
//! are as readable as events are.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse, Response};
use custody_event::{AgentId, Digest};
use custody_evidence::tlog::{Kind, MAX_ENTRY_BYTES, Tile};
use custody_evidence::{Checkpoint, Entry, base64};
use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};

use super::problem::{Code, Problem};
use super::{App, Peer, read_body};
use crate::access::Identity;
use crate::tlog::{Tlog, TlogError};

const NEVER_CHANGES: &str = "public, max-age=31536000, immutable";
const NO_STORE: &str = "no-store";
/// A note with a few cosignatures.
const MAX_NOTE_BYTES: usize = 16 * 1024;

fn log_of(app: &App) -> Result<&Tlog, Problem> {
    app.log.tlog().ok_or_else(|| Problem::coded(Code::NotFound, "this collector keeps no log"))
}

fn unreadable(error: &dyn std::fmt::Display) -> Problem {
    log::error!(error:% = error; "the transparency log cannot be read or written");
    Problem::unavailable(
        "the transparency log cannot be read or written; the collector's log says why",
        10,
    )
}

fn bytes(content: Vec<u8>, kind: &'static str, cache: &'static str) -> Response {
    let mut response = content.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

pub(super) async fn get_checkpoint(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let note = log_of(&app)?.checkpoint();
    Ok(bytes(note.as_bytes().to_vec(), "text/plain; charset=utf-8", NO_STORE))
}

pub(super) async fn get_tile(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let missing = || Problem::coded(Code::NotFound, "there is no such tile, or not yet");
    let tile = Tile::parse(&format!("tile/{path}")).ok_or_else(missing)?;
    if tile.kind == Kind::Entries {
        app.insider(&headers, peer).await?;
    }
    let shared = Arc::clone(&app);
    let read = tokio::task::spawn_blocking(move || log_of(&shared).map(|log| log.tile(&tile)));
    let read = read.await.map_err(|error| unreadable(&error))?;
    let content = read?.map_err(|error| unreadable(&error))?.ok_or_else(missing)?;
    // A partial tile of this width does not change either: its name says how wide it is.
    Ok(bytes(content, "application/octet-stream", NEVER_CHANGES))
}

#[derive(Deserialize)]
pub(super) struct From {
    #[serde(default)]
    from: String,
}

/// Sizes that one question may name: an agent has at most as many blocks under way.
const MAX_SIZES: usize = 64;

fn sizes(text: &str) -> Result<Vec<u64>, Problem> {
    let bad = || Problem::coded(Code::BadRequest, "from: up to 64 numbers with commas between");
    let words: Vec<&str> = text.split(',').filter(|word| !word.is_empty()).collect();
    if words.len() > MAX_SIZES {
        return Err(bad());
    }
    words.into_iter().map(|word| word.parse().map_err(|_| bad())).collect()
}

/// The answer of `GET /v1/log`.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    vkey: String,
    checkpoint: String,
    /// One for each size that was asked for and that the log has.
    proofs: Vec<Proof>,
    /// Accepted forks, the newest last.
    forks: Vec<Fork>,
}

#[derive(Debug, Serialize)]
struct Proof {
    from: u64,
    path: Vec<Digest>,
}

#[derive(Debug, Serialize)]
struct Fork {
    /// Base 64.
    entry: String,
    index: u64,
    path: Vec<Digest>,
}

pub(super) async fn get_log(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Query(From { from }): Query<From>,
    headers: HeaderMap,
) -> Result<Json<Shown>, Problem> {
    app.insider(&headers, peer).await?;
    let from = sizes(&from)?;
    let shared = Arc::clone(&app);
    let found = tokio::task::spawn_blocking(move || {
        let log = log_of(&shared)?;
        let continued = log.continuation(&from).map_err(|error| unreadable(&error))?;
        Ok::<_, Problem>((log.verifier().to_string(), continued))
    });
    let (vkey, continued) = found.await.map_err(|error| unreadable(&error))??;
    Ok(Json(Shown {
        vkey,
        checkpoint: continued.checkpoint,
        proofs: continued.proofs.into_iter().map(|(from, path)| Proof { from, path }).collect(),
        forks: continued
            .forks
            .into_iter()
            .map(|(fork, path)| Fork {
                entry: base64::encode(&fork.entry),
                index: fork.index,
                path,
            })
            .collect(),
    }))
}

#[derive(Deserialize)]
struct Witnessed {
    checkpoint: String,
}

/// What became of a checkpoint that somebody holds.
#[derive(Debug, Serialize)]
pub(super) struct Judged {
    /// Does this log continue it?
    continued: bool,
}

pub(super) async fn post_witness(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Judged>, Problem> {
    let agent = app.agent(&headers, peer).await?;
    let expected = App::check_body_length(&headers, MAX_NOTE_BYTES)?;
    let body = read_body(body, expected, MAX_NOTE_BYTES).await?;
    let said: Witnessed = serde_json::from_slice(&body)
        .map_err(|error| Problem::coded(Code::BadRequest, format!("the body: {error}")))?;
    let id = agent.id;
    let shared = Arc::clone(&app);
    let judged = tokio::task::spawn_blocking(move || judge(&shared, id, &said.checkpoint));
    judged.await.map_err(|error| unreadable(&error))?.map(|continued| Json(Judged { continued }))
}

/// A note that the log continues is kept if the agent has cosigned it. One that our key has signed
/// and that the log does not continue is written down, for
/// `custody-collector accept-fork`.
fn judge(app: &App, agent: AgentId, note: &str) -> Result<bool, Problem> {
    let log = log_of(app)?;
    let head = Checkpoint::open(note, log.verifier())
        .map_err(|error| Problem::malformed(format!("the checkpoint: {error}")))?
        .head;
    if log.continues(&head).map_err(|error| unreadable(&error))? {
        return match log.keep_cosigned(&agent, note) {
            Ok(()) => Ok(true),
            Err(TlogError::Note(error)) => Err(Problem::malformed(format!("the note: {error}"))),
            Err(error) => Err(unreadable(&error)),
        };
    }
    let now = log.head().size;
    log::error!(
        agent:% = agent, shown = head.size, now = now;
        "an agent holds a checkpoint that this log has signed and does not continue: this collector \
         was put back from an older copy, or runs twice. The agent keeps its events and sends \
         nothing until the fork is accepted: custody-collector accept-fork --reason …"
    );
    app.access.fork_seen(agent, &head, note).map_err(|error| unreadable(&error))?;
    Ok(false)
}

pub(super) async fn get_witness(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Path(agent): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.insider(&headers, peer).await?;
    let missing = || Problem::coded(Code::NotFound, "this agent has cosigned nothing yet");
    let agent: AgentId = agent.parse().map_err(|_| missing())?;
    let shared = Arc::clone(&app);
    let read = tokio::task::spawn_blocking(move || log_of(&shared).map(|log| log.cosigned(&agent)));
    let read = read.await.map_err(|error| unreadable(&error))?;
    let note = read?.map_err(|error| unreadable(&error))?.ok_or_else(missing)?;
    Ok(bytes(note.into_bytes(), "text/plain; charset=utf-8", NO_STORE))
}

/// Where a rotation stands.
#[derive(Debug, Serialize)]
pub(super) struct Taken {
    index: u64,
}

pub(super) async fn post_key(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Taken>, Problem> {
    let agent = app.agent(&headers, peer).await?;
    if path != agent.id.to_hex() {
        return Err(Problem::coded(Code::WrongAgent, "the token is not this agent's"));
    }
    let expected = App::check_body_length(&headers, MAX_ENTRY_BYTES)?;
    let body = read_body(body, expected, MAX_ENTRY_BYTES).await?;
    let entry = Entry::decode(&body).map_err(|error| Problem::malformed(error.to_string()))?;
    let Entry::Rotated(rotated) = &entry else {
        return Err(Problem::malformed("only a rotation of the agent's own key is taken here"));
    };
    if rotated.body.agent != agent.id {
        return Err(Problem::coded(Code::WrongAgent, "the rotation is another agent's"));
    }
    let new = rotated.body.new.clone();
    let index = app.state(entry).await?;
    let access = Arc::clone(&app.access);
    // The log is the truth; the table only shows the newest key.
    let shown = tokio::task::spawn_blocking(move || access.key_rotated(agent.id, &new));
    if let Err(error) = shown.await.map_err(|error| unreadable(&error))? {
        log::warn!(error:% = error; "the agent's new key is in the log, but not yet in the list of agents");
    }
    Ok(Json(Taken { index }))
}

impl App {
    /// Anybody with a token that reads, and agents.
    async fn insider(&self, headers: &HeaderMap, peer: Peer) -> Result<(), Problem> {
        match self.identify(headers, peer).await? {
            Identity::Agent(_) => self.check_certificate(peer),
            Identity::Reader(who) => self.unbounded(who).map(drop),
            Identity::Enroller(_) => {
                Err(Problem::coded(Code::Forbidden, "the token does not allow reading"))
            }
        }
    }

    /// Puts a statement into the log; gives its place once it is durable there.
    pub(super) async fn state(&self, entry: Entry) -> Result<u64, Problem> {
        let outcome = self.log.state(entry).map_err(|reason| Problem::unavailable(reason, 1))?;
        match outcome.await {
            Ok(Ok(index)) => Ok(index),
            Ok(Err(TlogError::Ring(error))) => Err(Problem::bad_key(&error)),
            Ok(Err(error)) => Err(unreadable(&error)),
            Err(_) => Err(Problem::unavailable("the evidence log ended", 5)),
        }
    }
}
