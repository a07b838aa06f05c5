//! The frame of all pages, the search page and the login.

use custody_event::EventView;
use custody_event::taxonomy::{CATEGORIES, OUTCOMES, SEVERITIES};
use maud::{DOCTYPE, Markup, html};

use super::form::{FILTERS, Form, PERIODS};
use super::text::{grouped, visible};
use crate::index::{Hit, Page, Total};
use crate::query::problem::Problem;

/// A page with head, header and footer.
pub(super) fn frame(title: &str, who: Option<&str>, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Custody" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                a.skip href="#main" { "To the content" }
                header {
                    a.name href="/" { "Custody" }
                    span.quiet { "audit trail" }
                    @if let Some(who) = who {
                        span.who { (visible(who, false)) }
                        form.plain method="post" action="/logout" {
                            button type="submit" { "Log out" }
                        }
                    }
                }
                main id="main" { (main) }
            }
        }
    }
}

/// The login, after something went wrong.
pub(super) fn login(next: &str, error: Option<&str>) -> Markup {
    login_with(next, error, None)
}

/// The login, perhaps with an identity provider.
pub(super) fn login_with(next: &str, error: Option<&str>, provider: Option<&str>) -> Markup {
    let main = html! {
        form.login method="post" action="/login" {
            h1 { "Log in" }
            @if let Some(error) = error { p.error role="alert" { (error) } }
            @if let Some(provider) = provider {
                p { a href={ "/oidc/login?next=" (super::text::encode(next)) } { "Log in with " (visible(provider, false)) } }
            }
            label for="name" { "Name" }
            input id="name" name="name" autocomplete="username" autofocus;
            label for="password" { "Password" }
            input id="password" name="password" type="password" autocomplete="current-password";
            label for="token" { "or a token" }
            input id="token" name="token" type="password" autocomplete="off";
            p.hint { "An administrator makes users with " code { "custody-collector user" } " and tokens with " code { "custody-collector token" } "; the first token stands in the data directory's " code { "admin.token" } "." }
            input type="hidden" name="next" value=(next);
            button.main type="submit" { "Log in" }
        }
    };
    frame("Log in", None, &main)
}

/// The search page with what was found.
pub(super) fn search(who: &str, form: &Form, found: &Result<Page, Problem>) -> Markup {
    let main = html! {
        h1 { "Search" }
        (search_form(form))
        @match found {
            Ok(page) => (results(form, page)),
            Err(problem) => (failed(form, problem)),
        }
    };
    frame("Search", Some(who), &main)
}

fn search_form(form: &Form) -> Markup {
    html! {
        form.search method="get" action="/" role="search" {
            div.line {
                div {
                    label for="q" { "Search line" }
                    input id="q" name="q" type="search" value=(form.line) autocomplete="off" spellcheck="false"
                        aria-describedby="q-hint" placeholder="actor:jane action:data.* outcome:failure \"contract 77\"";
                }
                button.main type="submit" { "Search" }
            }
            p.hint id="q-hint" {
                "Words, " code { "\"words together\"" } ", " code { "key:value" } ", " code { "key:(one OR other)" } ", "
                code { "-key:value" } " to exclude, " code { "*" } " for anything."
            }
            fieldset {
                legend { "Period" }
                @for (name, label) in PERIODS {
                    label.choice {
                        input type="radio" name="period" value=(name) checked[form.period == *name];
                        (label)
                    }
                }
                div {
                    label for="from" { "From (UTC)" }
                    input id="from" name="from" value=(form.from) placeholder="2026-01-31 08:00";
                }
                div {
                    label for="to" { "To (UTC)" }
                    input id="to" name="to" value=(form.to) placeholder="2026-02-28";
                }
            }
            div.filters {
                @for ((name, label), value) in FILTERS.iter().zip(&form.filters) {
                    div {
                        label for={ "f-" (name) } { (label) }
                        @if let Some(choices) = choices(name) {
                            (select(name, value, choices))
                        } @else {
                            input id={ "f-" (name) } name=(name) value=(value) autocomplete="off" spellcheck="false";
                        }
                    }
                }
            }
        }
    }
}

fn choices(name: &str) -> Option<&'static [&'static str]> {
    match name {
        "category" => Some(CATEGORIES),
        "outcome" => Some(OUTCOMES),
        "severity" => Some(SEVERITIES),
        _ => None,
    }
}

fn select(name: &str, value: &str, choices: &[&str]) -> Markup {
    html! {
        select id={ "f-" (name) } name=(name) {
            option value="" { "any" }
            @for choice in choices {
                option value=(choice) selected[*choice == value] { (choice) }
            }
            // A value that came by the address line stays, so that the form shows what is searched.
            @if !value.is_empty() && !choices.contains(&value) {
                option value=(value) selected { (visible(value, false)) }
            }
        }
    }
}

fn failed(form: &Form, problem: &Problem) -> Markup {
    html! {
        div.error role="alert" {
            strong { (problem.title) ": " }
            (visible(&problem.detail, false))
            @if let Some(column) = problem.column {
                pre { (visible(&form.line, false)) "\n" (" ".repeat(column.saturating_sub(1))) "^" }
            }
        }
    }
}

fn results(form: &Form, page: &Page) -> Markup {
    html! {
        div.wide {
            table {
                caption role="status" { (count(page.total, page.hits.len())) ", newest first, times in UTC" }
                @if !page.hits.is_empty() {
                    (heads())
                    tbody { @for hit in &page.hits { (row(hit, false)) } }
                }
            }
        }
        nav.pages aria-label="Pages" {
            @if form.is_paged() { a href=(form.address(None)) { "Newest" } }
            @if let Some(next) = page.next {
                a rel="next" href=(form.address(Some(&next.to_cursor()))) { "Older →" }
            }
        }
    }
}

fn count(total: Total, shown: usize) -> String {
    match (total.value, total.exact) {
        (0, true) => "No events found".to_owned(),
        (1, true) => "1 event".to_owned(),
        (value, true) => format!("{} events", grouped(value)),
        (0, false) if shown == 0 => "No events on this page; there may be older ones".to_owned(),
        (value, false) => format!("At least {} events", grouped(value)),
    }
}

/// The head of a table of [`row`]s.
pub(super) fn heads() -> Markup {
    html! {
        thead { tr {
            @for head in ["Time", "Actor", "Action", "Outcome", "IP", "Target", "Host", "Severity"] {
                th scope="col" { (head) }
            }
        } }
    }
}

/// One event as a row that leads to its page.
pub(super) fn row(hit: &Hit, here: bool) -> Markup {
    let Ok(event) = EventView::read(&hit.event) else {
        return html! { tr { td colspan="8" { "an event that this version cannot read" } } };
    };
    let show = |value: Option<&str>| visible(value.unwrap_or("–"), false).into_owned();
    let target = event.targets.first();
    let target = target.and_then(|t| t.name.as_deref().or(t.id.as_deref()).or(t.kind.as_deref()));
    let action = event.action.as_deref().or(event.origin.event_name.as_deref());
    html! {
        tr.here[here] aria-current=[here.then_some("true")] {
            td.time { a href={ "/events/" (event.id) } { (time(&event)) } }
            td { bdi { (show(event.actor.name.as_deref().or(event.actor.id.as_deref()))) } }
            td { bdi { (show(action.or(event.message.as_deref()))) } }
            td { (tag(event.outcome.as_deref())) }
            td.ip { (show(event.source.ip.as_deref())) }
            td { bdi { (show(target)) } }
            td { bdi { (show(event.host.as_deref())) } }
            td { (tag(event.severity.as_deref())) }
        }
    }
}

fn time(event: &EventView<'_>) -> Markup {
    let text = event.time.to_string();
    // `2026-01-31T23:59:59.000000Z`: to the millisecond is enough for a row.
    html! { time datetime=(text) { (text[..10]) " " (text[11..23]) } }
}

/// A word of a closed list; its class colours it, and only known words are classes.
pub(super) fn tag(word: Option<&str>) -> Markup {
    let Some(word) = word else { return html! { "–" } };
    let known = OUTCOMES.iter().chain(SEVERITIES).find(|known| **known == word);
    html! { span.tag class=(known.unwrap_or(&"quiet")) { (visible(word, false)) } }
}
