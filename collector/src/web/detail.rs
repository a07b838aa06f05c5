//! The page of one event.

use custody_event::EventView;
use custody_event::view::ChangeView;
use maud::{Markup, html};
use serde_json::Value;

use super::page::{frame, heads, row, tag};
use super::text::visible;
use crate::index::Hit;
use crate::query::api::{Around, Found, Place};
use crate::query::problem::Problem;

/// The page, or why there is none.
pub(super) fn event(who: &str, found: &Result<Found, Problem>) -> Markup {
    let main = match found {
        Ok(found) => match EventView::read(&found.hit.event) {
            Ok(event) => whole(found, &event),
            Err(error) => html! { p.error role="alert" { (visible(&error.to_string(), false)) } },
        },
        Err(problem) => html! {
            div.error role="alert" { strong { (problem.title) ": " } (visible(&problem.detail, false)) }
        },
    };
    frame("Event", Some(who), &main)
}

fn whole(found: &Found, event: &EventView<'_>) -> Markup {
    let title = event.action.as_deref().or(event.origin.event_name.as_deref()).unwrap_or("event");
    html! {
        h1 { bdi { (visible(title, false)) } " " (tag(event.outcome.as_deref())) " " (tag(event.severity.as_deref())) }
        @if let Some(message) = &event.message { p { bdi { (visible(message, false)) } } }
        @if found.hit.redacted { p.hint { "Parts of this event are not shown: they need the permission view_raw or view_sensitive." } }
        @if !event.changes.is_empty() { (changes(&event.changes)) }
        @if let Some(raw) = &event.origin.raw {
            h2 { "Record" }
            div.raw { (visible(raw, true)) }
        } @else if let Some(raw) = &event.origin.raw_base64 {
            h2 { "Record (base64: it is not UTF-8 text)" }
            div.raw { (raw) }
        }
        h2 { "Fields" }
        (fields(&found.hit.event))
        (place(&found.place))
        (around(&found.around, &found.hit))
    }
}

fn changes(changes: &[ChangeView<'_>]) -> Markup {
    html! {
        h2 { "Changes" }
        div.wide { table.change {
            thead { tr { th scope="col" { "Field" } th scope="col" { "Before" } th scope="col" { "After" } } }
            tbody { @for change in changes {
                tr {
                    th scope="row" { bdi { (visible(&change.field, false)) } @if change.masked { " (masked)" } }
                    td { (value(change.before.map(|raw| raw.get()))) }
                    td { (value(change.after.map(|raw| raw.get()))) }
                }
            } }
        } }
    }
}

/// A before or after: a text without its quotes, else the JSON.
fn value(json: Option<&str>) -> Markup {
    let Some(json) = json else { return html! { span.quiet { "not said" } } };
    let text = serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned());
    html! { bdi { (visible(&text, true)) } }
}

fn fields(event: &[u8]) -> Markup {
    let mut list = Vec::new();
    if let Ok(value) = serde_json::from_slice::<Value>(event) {
        flatten("", &value, &mut list);
    }
    html! {
        div.wide { table.fields { tbody { @for (path, text) in &list {
            tr { th scope="row" { (visible(path, false)) } td { bdi { (visible(text, true)) } } }
        } } } }
    }
}

/// Every value with its path; the record has its own place on the page.
fn flatten(path: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        _ if matches!(path, "origin.raw" | "origin.raw_base64") => {}
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, out);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), value, out);
            }
        }
        Value::String(text) => out.push((path.to_owned(), text.clone())),
        other => out.push((path.to_owned(), other.to_string())),
    }
}

fn place(place: &Place) -> Markup {
    let in_log = place.log_index.map(|index| format!("entry {index}"));
    let rows = [
        ("agent", place.agent.clone()),
        ("stream", place.stream.clone()),
        ("block", place.seq.to_string()),
        ("index in the block", place.index.to_string()),
        ("hash of the block's header", place.header_hash.clone()),
        ("received", place.received.clone()),
        ("signed by the agent", if place.signed { "yes" } else { "no" }.to_owned()),
        ("in the transparency log", in_log.unwrap_or_else(|| "not yet".to_owned())),
    ];
    html! {
        h2 { "Place in the evidence" }
        div.wide { table.fields { tbody { @for (name, value) in rows {
            tr { th scope="row" { (name) } td { (value) } }
        } } } }
    }
}

fn around(around: &Around<Hit>, hit: &Hit) -> Markup {
    let by = match around.by {
        "session" => "in the same session",
        "host" => "on the same host",
        _ => "in time",
    };
    html! {
        h2 { "Before and after, " (by) }
        div.wide { table {
            (heads())
            tbody {
                @for hit in around.after.iter().rev() { (row(hit, false)) }
                (row(hit, true))
                @for hit in around.before.iter().rev() { (row(hit, false)) }
            }
        } }
    }
}
