//! Errors as RFC 9457 problem details: the one type of the whole collector. What agents branch on
//! (`code`, `expected_seq`) is made in [`crate::serve::problem`].

use axum::response::{IntoResponse, Response};
use custody_event::Seq;
use http::{HeaderValue, StatusCode, header};

use crate::access::{Permission, TooMany};
use crate::index::IndexError;
use crate::serve::problem::Code;

/// An answer that says what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// A name for programs, relative to the API: `/problems/bad-query`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The name for people.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, for agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<Code>,
    /// This case, and what to do.
    pub detail: String,
    /// Which parameter is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<Box<str>>,
    /// At which character of it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u16>,
    /// What would be right; it stands in `detail` too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Box<str>>,
    /// Which block comes next, for agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expected_seq: Option<Seq>,
    /// When to ask again; goes into a header.
    #[serde(skip)]
    pub(crate) retry_after_s: Option<u32>,
}

impl Problem {
    pub(crate) fn new(
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
            code: None,
            parameter: None,
            column: None,
            hint: None,
            expected_seq: None,
            retry_after_s: None,
        }
    }

    /// 400: a parameter cannot be understood.
    pub fn bad(parameter: impl Into<Box<str>>, detail: impl Into<String>) -> Self {
        let problem =
            Self::new(StatusCode::BAD_REQUEST, "/problems/bad-query", "Bad query", detail);
        Self { parameter: Some(parameter.into()), ..problem }
    }

    /// The same, at this character of the parameter; `hint` stands in the detail already.
    #[must_use]
    pub fn at(self, column: usize, hint: Option<&str>) -> Self {
        // A line is at most 8 KiB.
        let column = Some(u16::try_from(column).unwrap_or(u16::MAX));
        Self { column, hint: hint.map(Into::into), ..self }
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
    pub fn busy(detail: impl Into<String>) -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "/problems/busy",
            "Too many at once",
            detail,
        );
        Self { retry_after_s: Some(30), ..problem }
    }

    /// 400: the search line, at this character.
    #[must_use]
    pub fn line(error: &super::line::LineError) -> Self {
        let problem = Self::bad("q", error.to_string());
        problem.at(error.column, error.hint.as_deref())
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

    /// 403: it would give, or change, more than the one who asks has.
    pub fn too_wide(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "/problems/too-wide", "Not yours to give", detail)
    }

    /// 409: it is not so that this could be done.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "/problems/conflict", "Conflict", detail)
    }

    /// 401: a name and a password that do not go together; also for names that nobody has.
    #[must_use]
    pub fn wrong_password() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "/problems/login-failed",
            "Login failed",
            "name or password is wrong, or the user is disabled",
        )
    }

    /// 429: too many failures; the same whether or not there is such a user.
    #[must_use]
    pub fn locked(retry_after_s: u32) -> Self {
        let problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "/problems/locked",
            "Too many failures",
            format!("this name or address has failed too often; try again in {retry_after_s} s"),
        );
        Self { retry_after_s: Some(retry_after_s), ..problem }
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "/problems/not-found", "Not found", detail)
    }

    /// 422: understood, and against a rule of this collector.
    pub fn refused(parameter: &'static str, detail: impl Into<String>) -> Self {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let problem = Self::new(status, "/problems/refused", "Refused", detail);
        Self { parameter: Some(parameter.into()), ..problem }
    }

    /// 410: it was here.
    pub fn gone(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "/problems/gone", "Gone", detail)
    }

    /// 416: nothing of it lies in this range.
    pub fn range(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "/problems/range", "No such range", detail)
    }

    /// 429.
    pub fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "/problems/too-many", "Too many", detail)
    }

    /// 429: this account has made too many requests.
    #[must_use]
    pub fn too_fast(told: &TooMany) -> Self {
        let (most, seconds) = (told.per_minute, told.retry_after_s);
        let detail = format!(
            "more than {most} requests in a minute (`limits.requests_per_minute`); go on in {seconds} s"
        );
        Self { retry_after_s: Some(seconds), ..Self::too_many(detail) }
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
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
