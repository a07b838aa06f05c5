//! Problems with a code that agents can branch on.

use custody_event::Seq;
use custody_evidence::keyring::KeyringError;
use http::StatusCode;
use serde::Serialize;

pub use crate::query::problem::Problem;

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

impl Problem {
    /// With this code and this sentence.
    pub fn coded(code: Code, detail: impl Into<String>) -> Self {
        let status = code.status();
        let title = status.canonical_reason().unwrap_or_default();
        Self { code: Some(code), ..Self::new(status, "about:blank", title, detail) }
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::coded(Code::Malformed, detail)
    }

    /// A signature that the keys in the log do not allow.
    pub(crate) fn bad_key(error: &KeyringError) -> Self {
        let code = match error {
            KeyringError::Retired { .. } => Code::KeyReplaced,
            KeyringError::Unknown { .. } => Code::KeyUnknown,
            _ => Code::BadSignature,
        };
        Self::coded(code, format!("{error}; enrol again if the key was made anew"))
    }

    pub(crate) fn fault(detail: impl Into<String>) -> Self {
        Self::coded(Code::Internal, detail)
    }

    pub(crate) fn unavailable(detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::coded(Code::Unavailable, detail) }
    }

    pub(crate) fn too_often(detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::coded(Code::TooMany, detail) }
    }

    pub(crate) fn expected(seq: Seq) -> Self {
        let detail = format!("block {seq} comes next in this stream");
        Self { expected_seq: Some(seq), ..Self::coded(Code::ExpectedSeq, detail) }
    }

    pub(crate) fn forked(seq: Seq) -> Self {
        let detail = "the stream has another block here: begin a new stream with what is not yet \
                      acknowledged";
        Self { expected_seq: Some(seq), ..Self::coded(Code::StreamForked, detail) }
    }
}
