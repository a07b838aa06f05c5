//! `GET /oidc/login` and `GET /oidc/callback`: the browser's side of a login by an identity
//! provider.

use axum::extract::{Extension, Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use maud::{DOCTYPE, html};

use super::session::{cookie_of, set_cookie};
use super::{WebState, address, answer, field, local, page, redirect, status_of, with_cookie};
use crate::access::Logins;
use crate::query::auth::Permission;
use crate::query::problem::Problem;
use crate::serve::Peer;

/// Holds the login while the browser is away, sealed. It comes back from another site, so the cookie is
/// not a strict one; it is worth nothing but the end of the login that it began.
const COOKIE: &str = "custody_oidc";

type Pairs = Query<Vec<(String, String)>>;

fn state_cookie(login: &str, secure: bool) -> String {
    let age = if login.is_empty() { 0 } else { 600 };
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={login}; Path=/oidc/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}")
}

fn refused(problem: &Problem) -> Response {
    answer(status_of(Some(problem)), page::login("/", Some(&problem.detail)))
}

pub(super) async fn begin(State(state): State<WebState>, Query(pairs): Pairs) -> Response {
    let Some(oidc) = state.logins.oidc() else {
        return refused(&Problem::not_found("no identity provider is configured"));
    };
    match oidc.begin(local(field(&pairs, "next")), state.query.clock.monotonic()).await {
        Ok(begun) => with_cookie(redirect(&begun.url), &state_cookie(&begun.cookie, state.secure)),
        Err(error) => {
            log::warn!(error:% = error; "the identity provider cannot be asked");
            refused(&Problem::from(&error))
        }
    }
}

pub(super) async fn callback(
    State(state): State<WebState>,
    from: Option<Extension<Peer>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Response {
    let code = Some(field(&pairs, "code")).filter(|code| !code.is_empty());
    let states = (field(&pairs, "state"), cookie_of(&headers, COOKIE));
    let logins: &Logins = &state.logins;
    match logins.came_back(code, states, address(from)).await {
        Ok((done, _)) if !done.who.may(Permission::Search) => {
            let ended = logins.logout(&done.session).await;
            let status = ended.err().map_or(StatusCode::FORBIDDEN, |why| status_of(Some(&why)));
            let sentence = "you are who you say, but may not search: ask an administrator";
            answer(status, page::login("/", Some(sentence)))
        }
        Ok((done, next)) => {
            let went = with_cookie(onwards(local(&next)), &set_cookie(&done.session, state.secure));
            with_cookie(went, &state_cookie("", state.secure))
        }
        Err(problem) => with_cookie(refused(&problem), &state_cookie("", state.secure)),
    }
}

/// A page of ours that leads on. A redirect would still be the other site's step, on which the
/// browser keeps the session's strict cookie back.
fn onwards(next: &str) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="refresh" content={ "0;url=" (next) };
                title { "Logged in · Custody" }
                link rel="stylesheet" href="/style.css";
            }
            body { main { p { "You are logged in. " a href=(next) { "Go on" } } } }
        }
    };
    answer(StatusCode::OK, page)
}
