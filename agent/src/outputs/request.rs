//! One request to a collector, and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use custody_event::{AgentId, StreamId};
use custody_evidence::LogReceipt;
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;

use super::skew::Skew;

/// Retry-After is obeyed up to this long; a collector that asks for more is asked again then.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// An answer's body is read up to this many bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What a collector's answer to a block means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The block is durable there (now or before), and this is what the collector's log says of it.
    Durable(Option<Box<LogReceipt>>),
    /// The collector's history does not continue what it had shown.
    Untrue(String),
    /// The collector expects another number.
    Expects(u64),
    /// The collector has another block under this number, or another past.
    Forked(String),
    /// We may not (401, 403).
    Denied(String),
    /// Not without a client certificate, or not with the one that was shown.
    NoCertificate(String),
    /// The collector knows a newer key of this agent than the one that signed.
    KeyReplaced(String),
    /// The collector does not know the key that signed.
    KeyUnknown(String),
    /// It will never take this body (413, 422).
    Refused(String),
    /// Not now (429, 503), with the wait that it asks for.
    Busy(Option<Duration>, String),
    /// No answer, or none that we understand.
    Failed(String),
}

/// A block on its way.
#[derive(Debug, Clone)]
pub(super) struct Post {
    /// `https://collector:8600`.
    pub endpoint: String,
    /// Bearer token.
    pub token: Arc<str>,
    /// The agent.
    pub agent: AgentId,
    /// The stream.
    pub stream: StreamId,
    /// The number.
    pub seq: u64,
    /// The encoded block.
    pub bytes: Bytes,
    /// How much of the collector's log is known.
    pub tree_size: u64,
    /// Takes the date of the answer.
    pub skew: Arc<Skew>,
}

#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    next_seq: Option<u64>,
    #[serde(default)]
    receipt: Option<Box<LogReceipt>>,
    #[serde(default)]
    expected_seq: Option<u64>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    detail: Option<String>,
}

impl Post {
    /// Sends the block and reads the answer.
    pub(super) async fn send(self, client: &Client) -> Answer {
        let Self { endpoint, token, agent, stream, seq, bytes, tree_size, skew } = self;
        let url = format!("{endpoint}/v1/streams/{agent}/{stream}/blocks/{seq}");
        let sent = client
            .post(url)
            .bearer_auth(&*token)
            .header("content-type", "application/vnd.custody.block")
            .header("custody-tree-size", tree_size)
            .body(bytes)
            .send()
            .await;
        match sent {
            Ok(response) => {
                skew.note(response.headers());
                read_answer(response, seq).await
            }
            Err(error) => Answer::Failed(explain(&error)),
        }
    }
}

/// Sends a statement by which one key of the agent named the next.
pub(super) async fn post_key(
    client: &Client,
    endpoint: &str,
    token: &str,
    agent: &AgentId,
    entry: Vec<u8>,
) -> Answer {
    let sent = client
        .post(format!("{endpoint}/v1/agents/{agent}/keys"))
        .bearer_auth(token)
        .header("content-type", "application/octet-stream")
        .body(entry)
        .send()
        .await;
    match sent {
        Ok(response) if response.status() == StatusCode::OK => Answer::Durable(None),
        Ok(response) => read_answer(response, 0).await,
        Err(error) => Answer::Failed(explain(&error)),
    }
}

async fn read_answer(response: Response, seq: u64) -> Answer {
    let status = response.status();
    let retry_after = retry_after(&response);
    let body = match read_body(response).await {
        Ok(body) => body,
        Err(reason) if status.is_success() => return Answer::Failed(reason),
        Err(_) => Body::default(),
    };
    let said =
        body.detail.clone().or(body.title.clone()).unwrap_or_else(|| "no reason given".into());
    match status {
        StatusCode::OK if body.next_seq.is_some_and(|next| next > seq) => {
            Answer::Durable(body.receipt)
        }
        StatusCode::OK => {
            Answer::Failed("the answer does not say that the block is durable".into())
        }
        StatusCode::CONFLICT if body.code.as_deref() == Some("stream_forked") => {
            Answer::Forked(said)
        }
        StatusCode::CONFLICT => match body.expected_seq {
            Some(expected) => Answer::Expects(expected),
            None => Answer::Failed(format!("409 without expected_seq: {said}")),
        },
        StatusCode::FORBIDDEN if body.code.as_deref() == Some("key_replaced") => {
            Answer::KeyReplaced(said)
        }
        StatusCode::FORBIDDEN if body.code.as_deref() == Some("key_unknown") => {
            Answer::KeyUnknown(said)
        }
        StatusCode::FORBIDDEN if body.code.as_deref() == Some("no_certificate") => {
            Answer::NoCertificate(format!("{status}: {said}"))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Answer::Denied(format!("{status}: {said}"))
        }
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Answer::Refused(format!("{status}: {said}"))
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Answer::Busy(retry_after, format!("{status}: {said}"))
        }
        _ => Answer::Failed(format!("{status}: {said}")),
    }
}

/// Retry-After in seconds (RFC 9110 §10.2.3). The date form is left to the back-off: it would
/// depend on two clocks.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    Some(Duration::from_secs(value.trim().parse().ok()?).min(MAX_RETRY_AFTER))
}

async fn read_body(mut response: Response) -> Result<Body, String> {
    let mut text = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| explain(&error))? {
        text.extend_from_slice(&part);
        if text.len() > MAX_ANSWER_BYTES {
            return Err("the answer is longer than 64 KiB".into());
        }
    }
    serde_json::from_slice(&text).map_err(|error| format!("the answer is not JSON: {error}"))
}

/// The code and the sentence of a refusal.
pub(super) fn said_in(text: &[u8]) -> (Option<String>, String) {
    let body: Body = serde_json::from_slice(text).unwrap_or_default();
    (body.code, body.detail.or(body.title).unwrap_or_else(|| "no reason given".into()))
}

/// The whole chain of causes: the outermost says only "error sending request".
pub(super) fn explain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    if let Some(hint) = remedy(&text) {
        text.push_str(&format!(" (hint: {hint})"));
    }
    text
}

/// What mends it, by the words of the libraries below; what they do not say in these words keeps its own.
fn remedy(text: &str) -> Option<&'static str> {
    const REMEDIES: [(&str, &str); 18] = [
        (
            "proxy authorization required",
            "the proxy wants to know who asks: outputs[].proxy_user and proxy_password_file",
        ),
        (
            "tunnel error: unsuccessful",
            "the proxy does not let the agent through: allow CONNECT to the collector's address there",
        ),
        (
            "failed to create underlying connection",
            "the proxy cannot be reached: check outputs[].proxy",
        ),
        (
            "UnknownIssuer",
            "name the CA that signed the collector's certificate: outputs[].tls.ca_file",
        ),
        (
            "BadSignature",
            "another authority of the same name signed the collector's certificate: outputs[].tls.ca_file must name that one",
        ),
        (
            "NotValidForName",
            "the certificate is for other names: use one of them in `endpoints`, or renew it with this one",
        ),
        (
            "not valid for name",
            "the certificate is for other names: use one of them in `endpoints`, or renew it with this one",
        ),
        (
            "certificate expired",
            "the certificate has ended: renew it at the collector; if it has not, this host's clock is wrong (timedatectl)",
        ),
        (
            "certificate not valid yet",
            "the certificate begins later: this host's clock is wrong (timedatectl)",
        ),
        (
            "CertificateRequired",
            "the collector wants a client certificate: outputs[].tls.cert_file and key_file",
        ),
        (
            "CertificateRevoked",
            "this agent was revoked at the collector: if that was right, remove its data directory and enrol it anew",
        ),
        (
            "fatal alert: CertificateExpired",
            "this agent's certificate has ended at the collector's clock: one that the collector signs is renewed now; otherwise put a new one at outputs[].tls.cert_file",
        ),
        (
            "fatal alert: UnknownCA",
            "the collector does not know who signed this agent's certificate: one that the collector signs is renewed now; otherwise see tls.client_ca_file at the collector",
        ),
        (
            "dns error",
            "the name cannot be resolved: check `endpoints` and /etc/resolv.conf (getent hosts NAME)",
        ),
        (
            "Connection refused",
            "nothing listens there: is the collector running, and `endpoints` right?",
        ),
        ("InvalidContentType", "the other side does not speak TLS: http:// or another port?"),
        (
            "timed out",
            "no answer: is the collector overloaded, does it hang, does a firewall drop packets? `outputs[].timeout` is how long is waited",
        ),
        ("unreachable", "no way to that network: check routes and firewalls"),
    ];
    REMEDIES.iter().find(|(word, _)| text.contains(word)).map(|(_, hint)| *hint)
}
