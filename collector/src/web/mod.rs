//! The search page: rendered here, without a script.
//!
//! | route | what |
//! |---|---|
//! | `GET /` | search: line, period, filters, rows, pages |
//! | `GET /events/{id}` | one event: changes, record, fields, place in the evidence, neighbours |
//! | `GET /login`, `POST /login`, `POST /logout` | a session for name and password, or a token |
//! | `GET /oidc/login`, `GET /oidc/callback` | a session by the identity provider, if there is one |
//! | `GET /style.css` | the style |
//!
//! # What the page trusts
//! Nothing that an event says: a log line may be written by an attacker. Every text goes through
//! maud, which escapes it; characters that would move or hide others (controls, bidirectional
//! overrides) are shown as what they are ([`text::visible`]); and should a text yet become
//! markup, the content security policy lets no script run, no form go elsewhere and nothing be
//! loaded.

mod detail;
mod form;
mod oidc;
mod page;
mod session;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use maud::Markup;

use crate::access::Logins;
use crate::access::http::address;
use crate::access::oidc::Oidc;
use crate::own::Act;
use crate::query::api::QueryState;
use crate::query::auth::{Permission, Principal};
use crate::query::params;
use crate::query::problem::Problem;
use crate::serve::Peer;
use session::set_cookie;

/// What the page needs.
#[derive(Clone)]
pub struct WebState {
    query: QueryState,
    logins: Arc<Logins>,
    /// The collector speaks TLS: the cookie goes over TLS only.
    secure: bool,
}

/// The page's routes.
pub fn router(query: QueryState, logins: Arc<Logins>, secure: bool) -> Router {
    let state = WebState { query, logins, secure };
    Router::new()
        .route("/", get(search))
        .route("/events/{id}", get(event))
        .route("/login", get(login_page).post(login))
        .route("/logout", post(logout))
        .route("/oidc/login", get(oidc::begin))
        .route("/oidc/callback", get(oidc::callback))
        .route("/style.css", get(style))
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .with_state(state)
}

/// A login form holds a token and a path.
const MAX_FORM_BYTES: usize = 16 * 1024;
/// What an unsuccessful login waits, so that guesses are slow even if they are hopeless.
const FAILED_LOGIN_DELAY: Duration = Duration::from_millis(500);

const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";

/// A page with the headers that all pages have.
fn answer(status: StatusCode, markup: Markup) -> Response {
    let mut response = (status, Html(markup.into_string())).into_response();
    harden(response.headers_mut());
    response
}

fn harden(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn redirect(to: &str) -> Response {
    let mut response = Redirect::to(to).into_response();
    harden(response.headers_mut());
    response
}

impl WebState {
    /// Who is logged in, and may search.
    fn who(&self, headers: &HeaderMap) -> Option<Principal> {
        let principal = self.logins.session_of(session::cookie(headers)?)?;
        if principal.may(Permission::Search) {
            return Some(principal);
        }
        self.query.gate().denied(&principal, Permission::Search.name());
        None
    }
}

/// To the login, and after it back to where one wanted to go.
fn to_login(uri: &Uri) -> Response {
    let wanted = uri.path_and_query().map_or("/", |wanted| wanted.as_str());
    redirect(&format!("/login?next={}", text::encode(wanted)))
}

async fn search(
    State(state): State<WebState>,
    headers: HeaderMap,
    uri: Uri,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Response {
    let Some(who) = state.who(&headers) else { return to_login(&uri) };
    let form = form::Form::read(&pairs);
    state.query.record_search(&who.name, "page", &form.pairs());
    let now = state.query.clock.now();
    let found = match params::search(&form.pairs(), now) {
        Ok(request) => state.query.search(&who, request).await,
        Err(problem) => Err(problem),
    };
    let status = status_of(found.as_ref().err());
    answer(status, page::search(&who.name, &form, &found))
}

async fn event(
    State(state): State<WebState>,
    headers: HeaderMap,
    uri: Uri,
    Path(id): Path<String>,
) -> Response {
    let Some(who) = state.who(&headers) else { return to_login(&uri) };
    let found = state.query.find(&who, &id).await;
    if found.is_ok() {
        state.query.record(Act::Viewed { who: who.name.clone(), via: "page", event: id });
    }
    let status = status_of(found.as_ref().err());
    answer(status, detail::event(&who.name, &found))
}

fn status_of(problem: Option<&Problem>) -> StatusCode {
    problem.map_or(StatusCode::OK, |problem| {
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    })
}

async fn login_page(
    State(state): State<WebState>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Response {
    let provider = state.logins.oidc().map(Oidc::name);
    let next = local(field(&pairs, "next"));
    answer(StatusCode::OK, page::login_with(next, None, provider.as_deref()))
}

fn field<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    pairs.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// Only a path of this page: a login must not send anybody elsewhere.
fn local(next: &str) -> &str {
    let plain = next.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'\\');
    if next.starts_with('/') && !next.starts_with("//") && plain { next } else { "/" }
}

/// A form sent from another site's page says so in this header.
fn from_elsewhere(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none")
}

async fn login(
    State(state): State<WebState>,
    from: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(pairs) = form::read_body(&body).filter(|_| !from_elsewhere(&headers)) else {
        let sentence = "the form could not be read; try again from this page";
        return answer(StatusCode::BAD_REQUEST, page::login("/", Some(sentence)));
    };
    let next = local(field(&pairs, "next"));
    let (from, token) = (address(from), field(&pairs, "token").trim());
    let done = if token.is_empty() {
        let (name, password) = (field(&pairs, "name"), field(&pairs, "password"));
        state.logins.password(name, password.to_owned(), from).await
    } else {
        let done = state.logins.token(token, from).await;
        if done.is_err() {
            tokio::time::sleep(FAILED_LOGIN_DELAY).await;
        }
        done
    };
    match done {
        Ok(done) if !done.who.may(Permission::Search) => {
            let sentence = "you are who you say, but may not search: ask an administrator";
            let ended = state.logins.logout(&done.session).await;
            let status = ended.err().map_or(StatusCode::FORBIDDEN, |why| status_of(Some(&why)));
            answer(status, page::login(next, Some(sentence)))
        }
        Ok(done) => with_cookie(redirect(next), &set_cookie(&done.session, state.secure)),
        Err(problem) => {
            let unknown = problem.status == StatusCode::UNAUTHORIZED && !token.is_empty();
            let sentence = "this token is not known, or may not search";
            let sentence = if unknown { sentence } else { &*problem.detail };
            answer(status_of(Some(&problem)), page::login(next, Some(sentence)))
        }
    }
}

async fn logout(State(state): State<WebState>, headers: HeaderMap) -> Response {
    if !from_elsewhere(&headers)
        && let Some(session) = session::cookie(&headers)
        && let Err(problem) = state.logins.logout(session).await
    {
        return answer(status_of(Some(&problem)), page::login("/", Some(&problem.detail)));
    }
    with_cookie(redirect("/login"), &set_cookie("", state.secure))
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

async fn style() -> Response {
    let mut response = include_str!("style.css").into_response();
    let headers = response.headers_mut();
    harden(headers);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    response
}
