//! `GET /v1/suggest`: what may stand behind a key, or which keys there are.
//!
//! Values come from the dictionaries of terms, in lower case as they are compared, with the number
//! of events that have them; other parameters narrow the events as in a search. Without `field`
//! the answer names keys that begin with `prefix`, those of `details` among them.

use axum::extract::{Query, State};
use axum::response::Response;
use custody_event::Timestamp;
use http::HeaderMap;
use serde::Serialize;

use super::api::{GroupBody, Pairs, QueryState, counted, json};
use super::auth::{Permission, Principal};
use super::filter::is_hidden_path;
use super::keys::{self, DETAILS, Named};
use super::params;
use super::problem::Problem;
use crate::index::{SuggestRequest, terms};

/// Values where no number is asked for, and at most.
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

#[derive(Serialize)]
struct Values<'a> {
    field: &'a str,
    values: Vec<GroupBody<'a>>,
    /// There are more, or there may be.
    more: bool,
}

#[derive(Serialize)]
struct Fields {
    fields: Vec<FieldBody>,
}

#[derive(Serialize)]
struct FieldBody {
    name: String,
    about: &'static str,
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    values: &'static [&'static str],
}

/// What is asked.
struct Asked {
    field: Option<String>,
    request: SuggestRequest,
}

fn read(pairs: &Pairs, now: Timestamp) -> Result<Asked, Problem> {
    let mut request = SuggestRequest { limit: DEFAULT_LIMIT, ..SuggestRequest::default() };
    let mut field = None;
    let mut rest = Vec::new();
    for (name, value) in params::given(pairs) {
        match name {
            "field" => field = Some(value.to_ascii_lowercase()),
            "prefix" => request.prefix = terms::folded_value(value),
            "limit" => request.limit = params::limit(value, MAX_LIMIT)?,
            _ => rest.push((name, value)),
        }
    }
    if let Some(field) = &field {
        request.facets = Named::of(field).and_then(|named| named.facets()).ok_or_else(|| {
            let what = format!("{:?} has no values to suggest", params::short(field));
            Problem::bad("field", what).hinted("try actor, action, target.type or details.…")
        })?;
    }
    request.filter = params::filter(&rest, now)?;
    Ok(Asked { field, request })
}

pub(super) async fn suggest(
    State(state): State<QueryState>,
    headers: HeaderMap,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Search)?;
    let asked = read(&pairs, state.clock.now())?;
    let Some(field) = asked.field else {
        return json(&fields(&state, &who, &asked.request).await?);
    };
    // Asked at each key that is pressed: the field says enough of it.
    let told = [("call", "suggest"), ("field", field.as_str())];
    let told = told.map(|(name, value)| (name.to_owned(), value.to_owned()));
    state.record_search(&who.name, "api", &told);
    let mut request = asked.request;
    request.filter = who.narrow(request.filter);
    let found = state.ask(move |store| store.suggest(&request)).await?;
    json(&Values { field: &field, values: counted(&found.values), more: found.more })
}

async fn fields(
    state: &QueryState,
    who: &Principal,
    request: &SuggestRequest,
) -> Result<Fields, Problem> {
    let (prefix, limit) = (request.prefix.clone(), request.limit);
    let known = keys::all().chain(keys::TIMES.iter().copied());
    let mut fields: Vec<FieldBody> = known
        .filter(|(name, _)| name.starts_with(&prefix))
        .map(|(name, about)| {
            let closed = keys::Key::from_name(name).and_then(keys::Key::closed);
            FieldBody { name: name.to_owned(), about, values: closed.unwrap_or_default() }
        })
        .collect();
    let detailed = DETAILS.starts_with(&prefix) || prefix.starts_with(DETAILS);
    // The names of what others' records say are theirs: only who sees all is told them.
    if detailed && who.sees_all() && fields.len() < limit {
        let start = if prefix.len() > DETAILS.len() { prefix } else { DETAILS.to_owned() };
        let paths = state.ask(move |store| store.paths(&start, limit)).await?;
        let about = "a detail that records have said";
        let open = paths.into_iter().filter(|path| who.sight().is_whole() || !is_hidden_path(path));
        fields.extend(open.map(|name| FieldBody { name, about, values: &[] }));
    }
    fields.truncate(limit);
    Ok(Fields { fields })
}
