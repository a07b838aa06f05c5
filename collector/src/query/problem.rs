//! Errors as RFC 9457 problem details.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::access::Permission;
use crate::index::IndexError;

/// An answer that says what is wrong.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Problem {
    /// A name for programs, relative to the API: `/problems/bad-query`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The name for people.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// This case, and what to do.
    pub detail: String,
    /// Which parameter is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<Cow<'static, str>>,
    /// At which character of it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What would be right; it stands in `detail` too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Box<str>>,
}

impl Problem {
    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            parameter: None,
            column: None,
            hint: None,
        }
    }

    /// 400: a parameter cannot be understood.
    pub fn bad(parameter: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        let problem =
            Self::new(StatusCode::BAD_REQUEST, "/problems/bad-query", "Bad query", detail);
        Self { parameter: Some(parameter.into()), ..problem }
    }

    /// The same, with what would be right.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        self.detail.push_str(&super::line::hinted(Some(&hint)));
        self.hint = Some(hint.into());
        self
    }

    /// 503: there are too many of these at once.
    pub fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "/problems/too-many", "Too many at once", detail)
    }

    /// 400: the search line, at this character.
    #[must_use]
    pub fn line(error: &super::line::LineError) -> Self {
        let problem = Self::bad("q", error.to_string());
        Self { column: Some(error.column), hint: error.hint.as_deref().map(Into::into), ..problem }
    }

    /// 401.
    #[must_use]
    pub fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "/problems/no-token",
            "No valid token",
            "send 'Authorization: Bearer <token>' with a token of this collector",
        )
    }

    /// 403.
    #[must_use]
    pub fn forbidden(name: &str, to: Permission) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "/problems/forbidden",
            "Not allowed",
            format!(
                "the token {name:?} lacks the permission {:?}; ask for one that has it",
                to.name()
            ),
        )
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "/problems/not-found", "Not found", detail)
    }

    /// 500.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "/problems/internal",
            "The collector failed",
            detail,
        )
    }
}

impl From<IndexError> for Problem {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::TooLong { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "/problems/search-too-long",
                "Search too long",
                error.to_string(),
            ),
            IndexError::Unsupported(what) => Self::bad("q", what),
            other => {
                log::error!(error = other.to_string(); "a question to the index failed");
                Self::internal("the index or the evidence log cannot be read; the log says more")
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
