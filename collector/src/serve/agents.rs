//! `GET /v1/agents`: agents, their streams and their books.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use custody_event::{AgentId, Seq, SourceBook, StreamId, Timestamp};
use http::HeaderMap;
use serde::Serialize;

use super::problem::Problem;
use super::{App, Peer};
use crate::access::AgentRow;
use crate::store::evidence::Ledger;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Agents {
    agents: Vec<Agent>,
}

#[derive(Debug, Serialize)]
struct Agent {
    agent: AgentId,
    host: String,
    hostname: String,
    version: String,
    key: String,
    enrolled: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<Timestamp>,
    /// Until when the newest certificate is good that this collector signed for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_until: Option<Timestamp>,
    /// When its newest block came.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
    /// By first arrival.
    streams: Vec<Stream>,
}

#[derive(Debug, Serialize)]
struct Stream {
    stream: StreamId,
    host: String,
    next_seq: Seq,
    first_seen: Timestamp,
    last_seen: Timestamp,
    /// From the sealing of the newest block (agent's clock) to its arrival (ours).
    lag_ms: i64,
    events: u64,
    books: BTreeMap<String, SourceBook>,
    /// Events that an older stream of the host had delivered, by source: left out of search.
    already_held: BTreeMap<String, u64>,
}

pub(super) async fn get_agents(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Json<Agents>, Problem> {
    app.reader(&headers, peer).await?;
    let access = Arc::clone(&app.access);
    let rows = match tokio::task::spawn_blocking(move || access.agents()).await {
        Ok(Ok(rows)) => rows,
        Ok(Err(error)) => {
            log::error!(error:% = error; "the agents cannot be read");
            return Err(Problem::unavailable("the agents cannot be read", 10));
        }
        Err(error) => {
            log::error!(error:% = error; "reading the agents panicked");
            return Err(Problem::fault("the agents cannot be read"));
        }
    };
    let agents =
        app.log.with_ledger(|ledger| rows.into_iter().map(|row| shown(row, ledger)).collect());
    Ok(Json(Agents { agents }))
}

fn shown(row: AgentRow, ledger: &Ledger) -> Agent {
    let own = ledger.streams().iter().filter(|stream| stream.name.0 == row.id);
    let streams: Vec<Stream> = own
        .map(|stream| Stream {
            stream: stream.name.1,
            host: stream.host.clone(),
            next_seq: stream.chain.next_seq,
            first_seen: stream.first_seen,
            last_seen: stream.last_seen,
            lag_ms: stream.lag_us / 1000,
            events: stream.events,
            books: stream.books.clone(),
            already_held: stream.held.clone(),
        })
        .collect();
    Agent {
        agent: row.id,
        host: row.host,
        hostname: row.hostname,
        version: row.version,
        key: row.key.to_hex(),
        enrolled: row.enrolled,
        revoked: row.revoked,
        certificate_until: row.certificate_until,
        last_seen: streams.iter().map(|stream| stream.last_seen).max(),
        streams,
    }
}
