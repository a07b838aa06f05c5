//! Errors as RFC 9457 problem details, with a code that programs can branch on.

use axum::Json;
use axum::response::{IntoResponse, Response};
use custody_event::Seq;
use custody_evidence::keyring::KeyringError;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// 400: the request's path, query or body is not what it should be.
    BadRequest,
    /// 400: the block is not the one that the path names.
    PathMismatch,
    /// 401: no token, or none that is known.
    Unauthorized,
    /// 403: the token does not allow this.
    Forbidden,
    /// 403: the token is another agent's.
    WrongAgent,
    /// 403: the block names another host than the agent was enrolled with.
    HostMismatch,
    /// 403: the signature is not the enrolled key's.
    BadSignature,
    /// 403: the key that signed has been replaced by a newer one.
    KeyReplaced,
    /// 403: nothing vouches for the key that signed.
    KeyUnknown,
    /// 403: a client certificate is asked for.
    NoCertificate,
    /// 404: there is nothing there.
    NotFound,
    /// 405: not with this method.
    BadMethod,
    /// 408: the body did not come in time.
    TooSlow,
    /// 409: blocks before this one are missing.
    ExpectedSeq,
    /// 409: the stream has another block at this place, or another past: begin a new stream.
    StreamForked,
    /// 409: the agent's id is enrolled with another key.
    KeyConflict,
    /// 413: more bytes than are taken.
    TooLarge,
    /// 422: the block is not well formed.
    Malformed,
    /// 429: too often.
    TooMany,
    /// 500: a fault of the collector.
    Internal,
    /// 503: not now.
    Unavailable,
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::PathMismatch => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden
            | Self::WrongAgent
            | Self::HostMismatch
            | Self::BadSignature
            | Self::KeyReplaced
            | Self::KeyUnknown
            | Self::NoCertificate => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::BadMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::ExpectedSeq | Self::StreamForked | Self::KeyConflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Malformed => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A problem, on its way to an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: Code,
    detail: String,
    expected_seq: Option<Seq>,
    retry_after_s: Option<u32>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    code: Code,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_seq: Option<Seq>,
}

impl Problem {
    /// With this code and this sentence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), expected_seq: None, retry_after_s: None }
    }

    /// What went wrong.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// In words.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Code::Malformed, detail)
    }

    /// A signature that the keys in the log do not allow.
    pub(crate) fn bad_key(error: &KeyringError) -> Self {
        let code = match error {
            KeyringError::Retired { .. } => Code::KeyReplaced,
            KeyringError::Unknown { .. } => Code::KeyUnknown,
            _ => Code::BadSignature,
        };
        Self::new(code, format!("{error}; enrol again if the key was made anew"))
    }

    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self::new(Code::Internal, detail)
    }

    pub(crate) fn unavailable(detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::new(Code::Unavailable, detail) }
    }

    pub(crate) fn too_many(detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::new(Code::TooMany, detail) }
    }

    pub(crate) fn expected(seq: Seq) -> Self {
        let detail = format!("block {seq} comes next in this stream");
        Self { expected_seq: Some(seq), ..Self::new(Code::ExpectedSeq, detail) }
    }

    pub(crate) fn forked(seq: Seq) -> Self {
        let detail = "the stream has another block here: begin a new stream with what is not yet \
                      acknowledged";
        Self { expected_seq: Some(seq), ..Self::new(Code::StreamForked, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let body = Body {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            code: self.code,
            detail: &self.detail,
            expected_seq: self.expected_seq,
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
