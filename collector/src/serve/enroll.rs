//! `POST /v1/enroll`: an agent says who it is, shows that it holds its key, and gets its token, and a certificate where it
//! asks for one.
//!
//! The enrolment token lets a host in; it does not let anybody speak for an agent that is known. So an agent's id goes with
//! its key only, and the key is shown by a signature ([`Claim`]): the public key, which stands in the log for all to read,
//! is not enough.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use custody_event::AgentId;
use custody_evidence::PublicKey;
use custody_evidence::claim::{Claim, ClaimError, Proof};
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::problem::{Code, Problem};
use super::{App, Peer, read_body};
use crate::access::{AccessError, Enrolment, Identity, random_secret, token_text};

/// Ids, a key and two names; and statements by which keys named the next, of an agent that was away for long.
pub(super) const MAX_BODY_BYTES: usize = 1024 * 1024;
/// A DNS name's length.
const MAX_HOSTNAME_BYTES: usize = 253;

#[derive(Deserialize)]
struct Request {
    agent: AgentId,
    host: String,
    #[serde(default)]
    hostname: String,
    key: String,
    #[serde(default)]
    version: String,
    /// The public key that a certificate is asked for, hex.
    #[serde(default)]
    tls_key: String,
    /// That the key is the sender's.
    proof: Option<Proof>,
}

#[derive(Serialize)]
pub(super) struct Enrolled {
    agent: AgentId,
    token: String,
    /// PEM; absent where none was asked for, or this collector signs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    /// Who verifies the collector's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
}

pub(super) async fn post_enroll(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Enrolled>, Problem> {
    // Whom this collector certifies comes here without a certificate.
    if app.authority.is_none() {
        app.check_certificate(peer)?;
    }
    let Identity::Enroller(with) = app.identify(&headers, peer).await? else {
        return Err(Problem::coded(Code::Forbidden, "the token is not one for enrolment"));
    };
    let expected = App::check_body_length(&headers, MAX_BODY_BYTES)?;
    let bytes = read_body(body, expected, MAX_BODY_BYTES).await?;
    let (enrolment, tls_key, proof) = read(&bytes)?;
    let who = crate::tlog::Enrolment {
        agent: enrolment.agent,
        host: enrolment.host.clone(),
        key: enrolment.key.clone(),
    };
    let known = app.log.tlog().is_some_and(|log| log.knows(&who.agent, &who.key));
    if !known && app.log.tlog().is_some_and(|log| log.has(&who.agent)) {
        // Whoever is in the log already (the collector itself is) brings a new key by rotating the old.
        return Err(refusal(AccessError::KeyConflict(who.agent)));
    }
    let claim = Claim { agent: who.agent, bearer: with, host: &enrolment.host, tls_key: &tls_key };
    let key = app.prove(&claim, proof.as_ref(), &enrolment.key).await?;
    let enrolment = Enrolment { key, ..enrolment };
    let secret = random_secret().map_err(|error| {
        log::error!(error:% = error; "no randomness for a token");
        Problem::fault("no randomness for a token")
    })?;
    let (agent, host, hostname) =
        (enrolment.agent, enrolment.host.clone(), enrolment.hostname.clone());
    let access = Arc::clone(&app.access);
    let done =
        tokio::task::spawn_blocking(move || access.enroll(&enrolment, Some(with), &secret, known))
            .await;
    match done {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(refusal(error)),
        Err(error) => {
            log::error!(error:% = error; "an enrolment panicked");
            return Err(Problem::fault("the enrolment failed; the collector's log says why"));
        }
    }
    let log = app.vouch(&who).await?;
    let certificate = if tls_key.is_empty() { None } else { app.certify(agent, &tls_key).await? };
    log::info!(agent:% = agent, host:% = host, hostname:% = hostname, peer:% = peer.addr; "agent enrolled");
    Ok(Json(Enrolled { agent, token: token_text(&secret), certificate, log }))
}

impl App {
    /// The key by which the agent is known (the log's word before the table's), or that it brings if it is not: the claim
    /// must be by whoever holds it.
    pub(super) async fn prove(
        &self,
        claim: &Claim<'_>,
        proof: Option<&Proof>,
        brought: &PublicKey,
    ) -> Result<PublicKey, Problem> {
        let known = match self.log.tlog().and_then(|log| log.current(&claim.agent)) {
            Some(known) => known,
            None => {
                let (access, agent) = (Arc::clone(&self.access), claim.agent);
                let row = tokio::task::spawn_blocking(move || access.agent(agent)).await;
                match row {
                    Ok(Ok(row)) => row.map_or_else(|| brought.clone(), |row| row.key),
                    Ok(Err(error)) => return Err(refusal(error)),
                    Err(_) => return Err(Problem::fault("the agents cannot be read")),
                }
            }
        };
        let Some(proof) = proof else {
            let what = "`proof` is missing: an agent shows by a signature that it holds its key \
                        (hint: use an agent of this version or newer)";
            return Err(Problem::coded(Code::BadSignature, what));
        };
        match proof.check(claim, &known) {
            Ok(()) => Ok(known),
            Err(error @ ClaimError::Unlinked { .. }) => {
                let what = format!(
                    "{error} (hint: if the key was lost, revoke the agent and remove its data directory: it takes a new id)"
                );
                Err(Problem::coded(Code::KeyUnknown, what))
            }
            Err(error) => {
                log::warn!(agent:% = claim.agent, error:% = error; "a claim in an agent's name was refused");
                Err(Problem::coded(Code::BadSignature, error.to_string()))
            }
        }
    }

    /// The log vouches for the agent's key before the agent has a token; gives the log's verifier
    /// key.
    async fn vouch(&self, who: &crate::tlog::Enrolment) -> Result<Option<String>, Problem> {
        let Some(log) = self.log.tlog() else { return Ok(None) };
        if !log.knows(&who.agent, &who.key) {
            let entry = log
                .enrolled(who, self.clock.now())
                .map_err(|error| Problem::malformed(error.to_string()))?;
            self.state(entry).await?;
        }
        Ok(Some(log.verifier().to_string()))
    }
}

pub(super) fn refusal(error: AccessError) -> Problem {
    match error {
        AccessError::KeyConflict(_) => Problem::coded(Code::KeyConflict, error.to_string()),
        AccessError::Revoked(_) => Problem::coded(Code::Forbidden, error.to_string()),
        AccessError::UsedUp(_) => {
            log::warn!(error:% = error; "somebody tried to enrol with a used token: it may have been stolen");
            Problem::coded(Code::Forbidden, error.to_string())
        }
        error => {
            log::error!(error:% = error; "an agent could not be enrolled");
            Problem::unavailable("the agent could not be written down; try again", 10)
        }
    }
}

fn read(bytes: &[u8]) -> Result<(Enrolment, String, Option<Proof>), Problem> {
    let bad = |what: String| Problem::coded(Code::BadRequest, what);
    let request: Request =
        serde_json::from_slice(bytes).map_err(|error| bad(format!("the body: {error}")))?;
    let host_is_hex = (2..=128).contains(&request.host.len())
        && request.host.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !host_is_hex {
        return Err(bad("host: 2 to 128 lower-case hex digits expected".to_owned()));
    }
    for (name, text) in [("hostname", &request.hostname), ("version", &request.version)] {
        if text.len() > MAX_HOSTNAME_BYTES || text.chars().any(char::is_control) {
            return Err(bad(format!("{name}: at most 253 bytes without control characters")));
        }
    }
    let key = PublicKey::from_hex(&request.key)
        .map_err(|error| bad(format!("key: {error}; 64 hex digits expected")))?;
    let enrolment = Enrolment {
        agent: request.agent,
        host: request.host,
        hostname: request.hostname,
        key,
        version: request.version,
    };
    Ok((enrolment, request.tls_key, request.proof))
}
