//! `POST /v1/streams/{agent}/{stream}/blocks/{seq}`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path as UrlPath, State};
use custody_event::Seq;
use custody_evidence::LogReceipt;
use http::HeaderMap;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::problem::{Code, Problem};
use super::{App, BUDGET_WAIT, Peer, read_body};
use crate::ingest::{Path, Sender};

/// How much of the transparency log the sender knows; the receipt's proof begins there.
const TREE_SIZE: &str = "custody-tree-size";

/// The answer: the number after the block that is acknowledged, and the transparency log's word.
#[derive(Debug, Serialize)]
pub(super) struct Acknowledged {
    next_seq: Seq,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<LogReceipt>,
}

pub(super) async fn post_block(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    UrlPath(path): UrlPath<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Acknowledged>, Problem> {
    let agent = app.agent(&headers, peer).await?;
    let path = read_path(&path)?;
    if path.agent != agent.id {
        return Err(Problem::coded(Code::WrongAgent, "the token is not this agent's"));
    }
    let expected = App::check_body_length(&headers, app.max_block_bytes)?;
    let permit = app.share(expected).await?;
    let bytes = read_body(body, expected, app.max_block_bytes).await?;
    let sender = Sender { host: agent.host.clone(), key: agent.key.clone() };
    let known_size = tree_size(&headers)?;
    let len = bytes.len();
    let taken = app.ingest.take(sender, path, bytes, permit, known_size).await;
    app.counters.block(taken.is_ok(), len);
    let (next_seq, receipt) = taken?;
    Ok(Json(Acknowledged { next_seq, receipt }))
}

fn tree_size(headers: &HeaderMap) -> Result<u64, Problem> {
    let Some(value) = headers.get(TREE_SIZE) else { return Ok(0) };
    let size = value.to_str().ok().and_then(|text| text.parse().ok());
    size.ok_or_else(|| Problem::coded(Code::BadRequest, "Custody-Tree-Size is not a number"))
}

fn read_path((agent, stream, seq): &(String, String, String)) -> Result<Path, Problem> {
    let bad = |what: &str| Problem::coded(Code::BadRequest, format!("{what} in the path"));
    Ok(Path {
        agent: agent.parse().map_err(|_| bad("the agent is not 32 hex digits"))?,
        stream: stream.parse().map_err(|_| bad("the stream is not 32 hex digits"))?,
        seq: Seq(seq.parse().map_err(|_| bad("the block's number is no number"))?),
    })
}

impl App {
    /// A share of the bytes that may be under way.
    async fn share(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.bodies).acquire_many_owned(wanted);
        match tokio::time::timeout(BUDGET_WAIT, share).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Problem::unavailable("too many blocks are under way", 1)),
        }
    }
}
