//! The questions of `tests/questions`: each is answered alike by the meaning of the filter
//! ([`super::filter::Expr::matches`]), by the index, by the API's parameters and by the search
//! line. The table says nothing of the index: another can be held against it.

use std::collections::BTreeSet;

use custody_event::EventView;
use http::StatusCode;

use super::filter::Findable;
use super::line;
use super::testbed::{App, EVENTS, encoded, filter_of, now, number};

const QUESTIONS: &str = include_str!("../../../tests/questions/questions.tsv");

struct Question {
    line: &'static str,
    params: &'static str,
    ids: BTreeSet<u32>,
}

fn questions() -> Vec<Question> {
    let rows = QUESTIONS.lines().filter(|row| !row.starts_with('#'));
    rows.map(|row| {
        let columns: Vec<&str> = row.split('\t').collect();
        let [line, params, ids] = columns[..] else { panic!("three columns: {row:?}") };
        let ids = ids.split(' ').filter(|id| *id != "-").map(|id| id.parse().unwrap()).collect();
        Question { line, params, ids }
    })
    .collect()
}

#[test]
fn the_events_are_canonical() {
    assert!(questions().len() >= 200);
    for (at, event) in (1..).zip(EVENTS.lines()) {
        assert_eq!(custody_event::canon::check(event.as_bytes()), Ok(()), "{event}");
        assert_eq!(number(event.as_bytes()), at);
    }
}

#[test]
fn the_meaning_of_a_filter_answers_every_question() {
    let events: Vec<EventView<'_>> =
        EVENTS.lines().map(|event| EventView::read(event.as_bytes()).unwrap()).collect();
    for question in questions() {
        let by_line = line::parse(question.line, now()).unwrap_or_else(|error| panic!("{error}"));
        for filter in [by_line, filter_of(question.params)] {
            let found: BTreeSet<u32> = (1..)
                .zip(&events)
                .filter(|(_, event)| {
                    filter.spans(event.time) && filter.expr.matches(&Findable::of(event))
                })
                .map(|(number, _)| number)
                .collect();
            assert_eq!(found, question.ids, "{} {}", question.line, question.params);
        }
    }
}

#[test]
fn the_index_answers_every_question_in_order_and_page_by_page() {
    let app = App::new();
    let times: Vec<_> =
        EVENTS.lines().map(|event| EventView::read(event.as_bytes()).unwrap().time).collect();
    let time = |number: &u32| times[usize::try_from(*number).unwrap() - 1];
    for question in questions() {
        let filter = line::parse(question.line, now()).unwrap();
        let found = app.found(&filter, 7);
        assert_eq!(
            found.iter().copied().collect::<BTreeSet<_>>(),
            question.ids,
            "{}",
            question.line
        );
        assert_eq!(found.len(), question.ids.len(), "{}: one twice", question.line);
        assert!(found.iter().map(time).is_sorted_by(|a, b| a >= b), "{}", question.line);
    }
}

#[tokio::test]
async fn the_api_answers_every_question_by_parameters_and_by_the_search_line() {
    let app = App::new();
    for question in questions() {
        let by_line = format!("q={}", encoded(question.line.as_bytes()));
        for query in [question.params, &by_line] {
            let (status, page) = app.get(&format!("/v1/events?limit=1000&{query}")).await;
            assert_eq!(status, StatusCode::OK, "{}: {page}", question.line);
            let found: BTreeSet<u32> = page["events"]
                .as_array()
                .unwrap()
                .iter()
                .map(|event| number(event.to_string().as_bytes()))
                .collect();
            assert_eq!(found, question.ids, "{} by {query}", question.line);
            assert!(page["cut"].is_null() && page["next_cursor"].is_null());
            let query = query.replace("limit=1000", "");
            let stats = app.ask(&format!("/v1/stats?group_by=action,actor&{query}")).await;
            assert_eq!(stats["total"], question.ids.len(), "{} counted", question.line);
            let by_action = stats["facets"]["action"].as_array().unwrap();
            let sum: u64 = by_action.iter().map(|group| group["count"].as_u64().unwrap()).sum();
            assert_eq!(sum, stats["total"], "every event has an action: {}", question.line);
        }
    }
}

#[test]
fn every_key_is_asked_about() {
    let asked: String = questions().iter().map(|question| format!(" {} ", question.line)).collect();
    let names = super::keys::all().chain(super::keys::TIMES.iter().copied());
    // What no event of the documents has.
    let unseen = ["from_host", "trace", "device_id", "data.to", "verdict", "time_basis"];
    for (name, _) in names.filter(|(name, _)| !unseen.contains(name)) {
        assert!(asked.contains(&format!("{name}:")), "no question has {name}:");
    }
}

const GUIDE: &str = include_str!("../../../docs/guide/search.md");

/// Lines of the guide's boxes of this kind.
fn boxes(kind: &str) -> Vec<&'static str> {
    let mut lines = Vec::new();
    let mut open = false;
    for line in GUIDE.lines() {
        match line.strip_prefix("```") {
            Some(opened) => open = !open && opened == kind,
            None if open => lines.push(line),
            None => {}
        }
    }
    lines
}

#[tokio::test]
async fn every_example_of_the_guide_does_what_it_says() {
    let app = App::new();
    let lines = boxes("search");
    assert!(lines.len() > 40);
    for example in lines {
        let (line, count) = example.rsplit_once('#').unwrap();
        let filter = line::parse(line.trim(), now()).unwrap_or_else(|error| panic!("{error}"));
        let count: usize = count.trim().parse().unwrap();
        assert_eq!(app.found(&filter, 100).len(), count, "{line}");
    }
    let calls = boxes("http");
    assert!(calls.len() >= 10);
    for call in calls.iter().filter(|call| !call.contains("/v1/tail")) {
        let path = call.strip_prefix("GET ").unwrap().replace(' ', "%20").replace('>', "%3E");
        app.ask(&path).await;
    }
}
