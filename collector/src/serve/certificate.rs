//! `POST /v1/agents/{agent}/certificate`: an agent gets another certificate before the one that it has ends.
//!
//! It shows its token and, by a claim ([`custody_evidence::claim`]), its key; not its certificate, for that may have ended while
//! the agent was off. 404 where this collector signs none: then the agent needs none, or has one by another authority.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use custody_event::ids::parse_hex;
use custody_event::{AgentId, Digest};
use custody_evidence::claim::{Claim, Proof};
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::enroll::{MAX_BODY_BYTES, refusal};
use super::problem::{Code, Problem};
use super::{App, Peer, read_body};
use crate::access::bearer;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// The public key, hex: an uncompressed point of P-256.
    tls_key: String,
    proof: Option<Proof>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Granted {
    /// PEM.
    certificate: String,
}

pub(super) async fn post_certificate(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Granted>, Problem> {
    let agent = app.bearer_agent(&headers, peer).await?;
    if path != agent.id.to_hex() {
        return Err(Problem::coded(Code::WrongAgent, "the token is not this agent's"));
    }
    let none = || Problem::coded(Code::NotFound, "this collector signs no certificates of agents");
    if app.authority.is_none() {
        return Err(none());
    }
    let expected = App::check_body_length(&headers, MAX_BODY_BYTES)?;
    let bytes = read_body(body, expected, MAX_BODY_BYTES).await?;
    let request: Request = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::coded(Code::BadRequest, format!("the body: {error}")))?;
    let token = bearer(&headers).unwrap_or_default();
    let claim = Claim {
        agent: agent.id,
        bearer: Digest::of(token.as_bytes()),
        host: &agent.host,
        tls_key: &request.tls_key,
    };
    app.prove(&claim, request.proof.as_ref(), &agent.key).await?;
    let certificate = app.certify(agent.id, &request.tls_key).await?.ok_or_else(none)?;
    log::info!(agent:% = agent.id, peer:% = peer.addr; "the agent has a new certificate");
    Ok(Json(Granted { certificate }))
}

impl App {
    /// A certificate for the agent's key (hex), written down; `None` where none is signed here.
    pub(super) async fn certify(
        &self,
        agent: AgentId,
        tls_key: &str,
    ) -> Result<Option<String>, Problem> {
        let Some(authority) = &self.authority else { return Ok(None) };
        let point: Option<[u8; 65]> = parse_hex(tls_key);
        let signed = authority
            .sign(agent, &point.map(Vec::from).unwrap_or_default(), self.clock.now())
            .map_err(|error| Problem::coded(Code::BadRequest, error.to_string()))?;
        let (access, until) = (Arc::clone(&self.access), signed.until);
        match tokio::task::spawn_blocking(move || access.certified(agent, until)).await {
            Ok(Ok(())) => Ok(Some(signed.pem)),
            Ok(Err(error)) => Err(refusal(error)),
            Err(_) => Err(Problem::fault("the agents cannot be written")),
        }
    }
}
