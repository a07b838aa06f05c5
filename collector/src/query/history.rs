//! `GET /v1/history`: who changed something and when, each value over time, and what it was at an
//! instant.
//!
//! `target=TYPE:ID` (or an id or a name alone) says of what; `field=` of which of its fields, `*`
//! stands for anything. Other parameters narrow the search; `at=` asks for the state then.
//!
//! The state is what the newest change before that instant left behind; where there is none, what
//! the first change after it found. A change whose `before` is not what the change before it had
//! left is marked (`follows: false`): between them a change is missing from the trail.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::response::Response;
use custody_event::view::ChangeView;
use custody_event::{EventView, Timestamp};
use http::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;

use super::api::{CutBody, Pairs, QueryState, json};
use super::auth::Permission;
use super::basis::{Asker, Basis, any, is};
use super::filter::{Expr, Filter, Pattern};
use super::params;
use super::problem::Problem;
use super::when::Zone;
use crate::index::{Cut, Direction, MAX_LIMIT, SearchRequest, terms};

/// Changes in an answer, at most; a longer history is asked for by period or field.
const MAX_CHANGES: usize = 10_000;

#[derive(Serialize)]
struct History {
    target: String,
    changes: Vec<Change>,
    /// There are more than the answer holds.
    more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Then>,
    rests_on: Basis,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<CutBody>,
}

/// One value that was changed, or the thing itself made or removed.
#[derive(Debug, Clone, Serialize)]
struct Change {
    time: Time,
    event: String,
    action: String,
    op: String,
    outcome: String,
    actor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    masked: bool,
    /// Is `before` what the last change had left? Absent where it cannot be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    follows: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// What it was at an instant.
#[derive(Debug, Serialize)]
struct Then {
    time: Time,
    /// Was it there? Absent where no event says.
    #[serde(skip_serializing_if = "Option::is_none")]
    existed: Option<bool>,
    values: BTreeMap<String, Value>,
}

#[derive(Debug, Serialize)]
struct Value {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    /// `change`: a change before the instant left it; `next_change`: the first after it found it.
    known_by: &'static str,
    time: Time,
    event: String,
}

/// What is asked.
struct Asked {
    target: String,
    field: Option<Pattern>,
    at: Option<Timestamp>,
    filter: Filter,
}

fn read(pairs: &Pairs, now: Timestamp) -> Result<Asked, Problem> {
    let (mut target, mut field, mut at) = (None, None, None);
    let mut rest = Vec::new();
    let zone = params::given(pairs).filter(|(name, _)| *name == "tz").last();
    let zone = match zone {
        Some((_, name)) => Zone::named(name).map_err(|what| Problem::bad("tz", what))?,
        None => Zone::default(),
    };
    for (name, value) in params::given(pairs) {
        match name {
            "target" => target = Some(value.trim().to_owned()),
            "field" => field = Some(Pattern::wild(value.trim())),
            "at" => at = Some(params::time("at", value, now, &zone)?),
            _ => rest.push((name, value)),
        }
    }
    let target = target.filter(|target| !target.is_empty()).ok_or_else(|| {
        Problem::bad("target", "say of what: target=TYPE:ID, or an id or name alone")
    })?;
    params::one("target", &target)?;
    let lived = any("op", &["create", "delete", "restore"])?;
    let changed = Expr::Any(vec![is("field", "*")?, lived]);
    let filter = params::filter(&rest, now)?.and(Expr::All(vec![is("target", &target)?, changed]));
    Ok(Asked { target, field, at, filter })
}

pub(super) async fn history(
    State(state): State<QueryState>,
    headers: HeaderMap,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    let who = state.admit(&headers, Permission::Search)?;
    let asked = read(&pairs, state.clock.now())?;
    let asker = Asker::new(state, who);
    asker.record("history", &pairs);
    let (changes, more, cut) = gather(&asker, &asked).await?;
    let at = asked.at.map(|at| state_at(&changes, at));
    let rests_on = asker.basis(&asked.filter).await?;
    let cut = cut.as_ref().map(CutBody::of);
    json(&History { target: asked.target, changes, more, at, rests_on, cut })
}

async fn gather(asker: &Asker, asked: &Asked) -> Result<(Vec<Change>, bool, Option<Cut>), Problem> {
    let mut request = SearchRequest {
        filter: asked.filter.clone(),
        limit: MAX_LIMIT,
        direction: Direction::OldestFirst,
        ..SearchRequest::default()
    };
    let mut changes = Vec::new();
    loop {
        let page = asker.search(request.clone()).await?;
        for hit in &page.hits {
            if let Ok(view) = EventView::read(&hit.event) {
                changes_of(&view, asked, &mut changes);
            }
        }
        let full = changes.len() >= MAX_CHANGES;
        if full || page.cut.is_some() || page.next.is_none() {
            changes.truncate(MAX_CHANGES);
            mark_breaks(&mut changes);
            return Ok((changes, full && page.next.is_some(), page.cut));
        }
        request.after = page.next;
    }
}

/// Does the event act on this target: its type, and its id or name, in one target?
pub(super) fn acts_on(view: &EventView<'_>, target: &str) -> bool {
    let wanted = terms::folded_value(target);
    let is = |text: &Option<std::borrow::Cow<'_, str>>, value: &str| {
        text.as_deref().is_some_and(|text| terms::folded_value(text) == value)
    };
    view.targets.iter().any(|target| {
        let named = |value: &str| is(&target.id, value) || is(&target.name, value);
        let typed =
            wanted.split_once(':').is_some_and(|(kind, id)| is(&target.kind, kind) && named(id));
        typed || named(&wanted) || is(&target.kind, &wanted) || is(&target.parent, &wanted)
    })
}

fn changes_of(view: &EventView<'_>, asked: &Asked, out: &mut Vec<Change>) {
    if !acts_on(view, &asked.target) {
        return;
    }
    let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().unwrap_or("").to_owned();
    let actor = [&view.actor.name, &view.actor.id, &view.actor.display];
    let change = Change {
        time: Time(view.time),
        event: view.id.to_hex(),
        action: text(&view.action),
        op: text(&view.op),
        outcome: text(&view.outcome),
        actor: actor.into_iter().find_map(Option::as_deref).unwrap_or("").to_owned(),
        field: None,
        before: None,
        after: None,
        masked: false,
        follows: None,
    };
    if matches!(change.op.as_str(), "create" | "delete" | "restore") && asked.field.is_none() {
        out.push(change.clone());
    }
    for one in &view.changes {
        let wanted = asked.field.as_ref();
        if wanted.is_none_or(|pattern| pattern.is(&terms::folded_value(&one.field))) {
            out.push(with(&change, one));
        }
    }
}

fn with(change: &Change, one: &ChangeView<'_>) -> Change {
    Change {
        field: Some(one.field.clone().into_owned()),
        before: one.before.map(ToOwned::to_owned),
        after: one.after.map(ToOwned::to_owned),
        masked: one.masked,
        ..change.clone()
    }
}

/// Did it happen? What failed or was refused has changed nothing.
fn happened(change: &Change) -> bool {
    !matches!(change.outcome.as_str(), "failure" | "denied" | "pending")
}

/// Compares each `before` with what the last change of that field had left.
fn mark_breaks(changes: &mut [Change]) {
    let mut left: BTreeMap<String, Option<String>> = BTreeMap::new();
    for change in changes.iter_mut().filter(|change| happened(change)) {
        let Some(field) = &change.field else { continue };
        let text = |raw: &Option<Box<RawValue>>| raw.as_ref().map(|raw| raw.get().to_owned());
        if let (Some(Some(last)), Some(before), false) =
            (left.get(field), text(&change.before), change.masked)
        {
            change.follows = Some(*last == before);
        }
        let after = if change.masked { None } else { text(&change.after) };
        left.insert(field.clone(), after);
    }
}

fn state_at(changes: &[Change], at: Timestamp) -> Then {
    let mut state = Then { time: Time(at), existed: None, values: BTreeMap::new() };
    let (past, future): (Vec<&Change>, Vec<&Change>) =
        changes.iter().filter(|change| happened(change)).partition(|c| c.time.0 <= at);
    for change in past {
        match (&change.field, change.op.as_str()) {
            (None, "delete") => state.existed = Some(false),
            (None, _) => state.existed = Some(true),
            (Some(field), _) => {
                state.existed = Some(true);
                state.values.insert(field.clone(), value(change, &change.after, "change"));
            }
        }
    }
    for change in future {
        match (&change.field, change.op.as_str()) {
            (None, "create") if state.existed.is_none() => state.existed = Some(false),
            (None, _) => state.existed = state.existed.or(Some(true)),
            (Some(field), _) => {
                state.existed = state.existed.or(Some(true));
                let found = || value(change, &change.before, "next_change");
                state.values.entry(field.clone()).or_insert_with(found);
            }
        }
    }
    state
}

fn value(change: &Change, value: &Option<Box<RawValue>>, known_by: &'static str) -> Value {
    let value = value.clone().filter(|_| !change.masked);
    Value { value, known_by, time: change.time, event: change.event.clone() }
}
