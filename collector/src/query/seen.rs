//! `GET /v1/access`: did this user see or export that?
//!
//! `user=` and `target=` say who and what; other parameters narrow the search. "Yes" rests on
//! events, which are in the answer. "No" rests on what is not there: so the answer says since when
//! there are events, of which sources, with which gaps, and whether the trail has ever recorded
//! anybody's reading of such a thing. Exports by the user of things of the same kind that do not
//! name the target are told as possible: a list may have held it.

use axum::extract::{Query, State};
use axum::response::Response;
use custody_event::EventView;
use http::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;

use super::api::{CutBody, Pairs, QueryState, json, verbatim};
use super::auth::Permission;
use super::basis::{Asker, Basis, any, is};
use super::filter::{Expr, Filter, Pattern};
use super::history::acts_on;
use super::keys::{Key, Named};
use super::params;
use super::problem::Problem;
use crate::index::{Direction, Facet, Hit, MAX_LIMIT, SearchRequest, terms};

/// Events in an answer, at most; the counts go on to [`MAX_LIMIT`].
const MAX_SHOWN: usize = 200;

#[derive(Serialize)]
struct Answer {
    user: String,
    target: String,
    /// `yes`, `no`, or `possible`.
    answer: &'static str,
    saw: Deed,
    exported: Deed,
    /// Attempts that failed or were refused.
    refused: Deed,
    events: Vec<Box<RawValue>>,
    /// Exports of the same kind of thing that do not name it.
    possible: Vec<Box<RawValue>>,
    /// There are more events than the counts hold.
    more: bool,
    rests_on: Rests,
    /// All of it in one sentence.
    sentence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<CutBody>,
}

/// How often, and between when and when.
#[derive(Debug, Default, Serialize)]
struct Deed {
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
}

#[derive(Serialize)]
struct Rests {
    #[serde(flatten)]
    basis: Basis,
    /// Events about the target, whoever acted.
    about_target: u64,
    /// Events by the user, whatever they acted on.
    by_user: u64,
    /// Views and exports of things of this kind, by anybody: where there is none, a "no" says
    /// little, for such views may not be recorded at all.
    views_of_this_kind: u64,
}

struct Asked {
    user: String,
    target: String,
    filter: Filter,
}

fn read(pairs: &Pairs, now: custody_event::Timestamp) -> Result<Asked, Problem> {
    let (mut user, mut target) = (None, None);
    let mut rest = Vec::new();
    for (name, value) in params::given(pairs) {
        match name {
            "user" | "actor" => user = Some(value.trim().to_owned()),
            "target" => target = Some(value.trim().to_owned()),
            _ => rest.push((name, value)),
        }
    }
    let missing = |name, what: &str| Problem::bad(name, what.to_owned());
    let user = user.ok_or_else(|| missing("user", "say who: user=jane@example.org"))?;
    let target = target.ok_or_else(|| missing("target", "say what: target=TYPE:ID"))?;
    params::one("target", &target)?;
    Ok(Asked { user, target, filter: params::filter(&rest, now)? })
}

pub(super) async fn access(
    State(state): State<QueryState>,
    headers: HeaderMap,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Search)?;
    let asked = read(&pairs, state.clock.now())?;
    let asker = Asker::new(state, who);
    asker.record("access", &pairs);
    json(&answer(&asker, &asked).await?)
}

/// Seeing and exporting.
fn touches() -> Result<Expr, Problem> {
    let ops = any("op", &["read", "export", "download"])?;
    Ok(Expr::Any(vec![ops, any("category", &["access", "export"])?]))
}

fn exports() -> Result<Expr, Problem> {
    Ok(Expr::Any(vec![any("op", &["export", "download"])?, is("category", "export")?]))
}

async fn answer(asker: &Asker, asked: &Asked) -> Result<Answer, Problem> {
    let user = Expr::Any(vec![is("actor", &asked.user)?, is("behalf_of", &asked.user)?]);
    let target = is("target", &asked.target)?;
    let both = asked.filter.clone().and(Expr::All(vec![user.clone(), target.clone(), touches()?]));
    let page = asker.search(oldest(both)).await?;
    let of_target =
        |hit: &&Hit| EventView::read(&hit.event).is_ok_and(|view| acts_on(&view, &asked.target));
    let hits: Vec<&Hit> = page.hits.iter().filter(of_target).collect();
    let (mut saw, mut exported, mut refused) = (Deed::default(), Deed::default(), Deed::default());
    for hit in &hits {
        sort(hit, &mut saw, &mut exported, &mut refused);
    }
    let kind = kind_of(asker, asked, &target).await?;
    let unnamed = Expr::Not(Box::new(target.clone()));
    let maybe = Expr::All(vec![user.clone(), exports()?, kind.clone(), unnamed, not_refused()?]);
    let possible = asker.search(oldest(asked.filter.clone().and(maybe))).await?;
    let filter = &asked.filter;
    let kind_seen = Expr::All(vec![Expr::Any(vec![kind, target.clone()]), touches()?]);
    let rests_on = Rests {
        basis: asker.basis(filter).await?,
        about_target: asker.count(&filter.clone().and(target), &[]).await?.total,
        by_user: asker.count(&filter.clone().and(user), &[]).await?.total,
        views_of_this_kind: asker.count(&filter.clone().and(kind_seen), &[]).await?.total,
    };
    let answer = match (saw.count + exported.count, possible.hits.is_empty()) {
        (0, true) => "no",
        (0, false) => "possible",
        _ => "yes",
    };
    let list = |hits: &mut dyn Iterator<Item = &Hit>| {
        hits.take(MAX_SHOWN).map(verbatim).collect::<Result<Vec<_>, _>>()
    };
    let sentence = sentence(asked, answer, &saw, &exported, &rests_on);
    Ok(Answer {
        user: asked.user.clone(),
        target: asked.target.clone(),
        answer,
        saw,
        exported,
        refused,
        events: list(&mut hits.iter().copied())?,
        possible: list(&mut possible.hits.iter())?,
        more: page.next.is_some(),
        rests_on,
        sentence,
        cut: page.cut.as_ref().map(CutBody::of),
    })
}

fn oldest(filter: Filter) -> SearchRequest {
    let direction = Direction::OldestFirst;
    SearchRequest { filter, limit: MAX_LIMIT, direction, ..SearchRequest::default() }
}

fn not_refused() -> Result<Expr, Problem> {
    Ok(Expr::Not(Box::new(any("outcome", &["failure", "denied", "pending"])?)))
}

fn sort(hit: &Hit, saw: &mut Deed, exported: &mut Deed, refused: &mut Deed) {
    let Ok(view) = EventView::read(&hit.event) else { return };
    let deed = if matches!(view.outcome.as_deref(), Some("failure" | "denied" | "pending")) {
        refused
    } else if matches!(view.op.as_deref(), Some("export" | "download"))
        || view.category.as_deref() == Some("export")
    {
        exported
    } else {
        saw
    };
    let time = hit.key.time.to_string();
    deed.count += 1;
    deed.first.get_or_insert_with(|| time.clone());
    deed.last = Some(time);
}

/// Things of the target's kind: its type as it is written before the colon, else the types that
/// events about it give it; also what is named after that type ("contacts", "Contacts CSV").
async fn kind_of(asker: &Asker, asked: &Asked, target: &Expr) -> Result<Expr, Problem> {
    let kinds: Vec<String> = match asked.target.split_once(':') {
        Some((kind, _)) => vec![terms::folded_value(kind)],
        None => {
            let types = [Facet::Tag(terms::Tag::TargetType)];
            let stats = asker.count(&asked.filter.clone().and(target.clone()), &types).await?;
            let counts = stats.facets.into_iter().flatten().take(10);
            counts.map(|(kind, _)| kind).collect()
        }
    };
    let mut any = Vec::new();
    for kind in kinds.iter().filter(|kind| !kind.is_empty()) {
        let begins = Pattern::Prefix(kind.clone());
        for key in
            ["target.type", "target.name", "target.id"].into_iter().filter_map(Key::from_name)
        {
            any.push(Expr::Value(key, begins.clone()));
        }
        if let Some(Named::Field(path)) = Named::of("data.name") {
            any.push(Expr::Field(path, begins.clone()));
        }
    }
    Ok(Expr::Any(any))
}

fn sentence(asked: &Asked, answer: &str, saw: &Deed, exported: &Deed, rests: &Rests) -> String {
    let (user, target) = (&asked.user, &asked.target);
    let since = rests.basis.since.as_deref().unwrap_or("nothing was recorded");
    let mut text = match answer {
        "yes" => format!(
            "{user} saw {target} {} times and exported it {} times.",
            saw.count, exported.count
        ),
        "possible" => format!(
            "No event says that {user} saw or exported {target}, but they exported things of its kind."
        ),
        _ => format!("No event says that {user} saw or exported {target}."),
    };
    text.push_str(&format!(
        " This rests on {} events of {} sources since {since}, with {} known gaps",
        rests.basis.events,
        rests.basis.sources.len(),
        rests.basis.gaps
    ));
    if answer == "no" && rests.views_of_this_kind == 0 {
        text.push_str("; nobody's view of such a thing has been recorded, so views may not be");
    }
    text.push('.');
    text
}
