//! What a scope or a missing permission hides is not told by counts, facets, neighbours, errors or
//! words either.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::world::{EVENTS, SECRETS, World};
use crate::query::keys::KEYS;

const STRANGER: &str = "viewer of another tenant";

fn ids(page: &Value) -> Vec<String> {
    let events = page["events"].as_array().unwrap_or_else(|| panic!("no page: {page}"));
    events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_s_events_are_in_no_count_facet_or_neighbourhood() {
    let world = World::new().await;
    let own = json!({ "value": EVENTS, "exact": true });
    let none = json!({ "value": 0, "exact": true });
    for (query, total) in [
        ("", &own),
        ("action:contact.update", &own),
        ("-tenant:globex", &none),
        ("tenant:acme", &none),
        ("tenant:*", &own),
        ("NOT tenant:globex OR tenant:acme", &none),
        ("host:acmehost OR actor:zebraactor", &none),
        ("session:shared", &own),
        ("-host:globexhost", &none),
    ] {
        let query = query.replace(' ', "+");
        let (status, page) = world.get(&format!("/v1/events?q={query}"), STRANGER).await;
        assert_eq!((status, &page["total"]), (200, total), "{query}: {page}");
        world.assert_nothing_leaks(&page.to_string(), &query);
        let (_, stats) = world.get(&format!("/v1/stats?q={query}"), STRANGER).await;
        assert_eq!(stats["total"], total["value"], "{query}");
    }
    for key in KEYS {
        let path = format!("/v1/stats?group_by={}&interval=1d", key.name);
        let (status, stats) = world.get(&path, STRANGER).await;
        assert_eq!((status, &stats["total"]), (200, &json!(EVENTS)), "{path}");
        world.assert_nothing_leaks(&stats.to_string(), &path);
        let counted = stats["groups"].as_array().unwrap().iter();
        assert!(counted.filter_map(|group| group["count"].as_u64()).all(|count| count <= 3));
        assert_eq!(stats["spans"], json!([{ "start": "2020-01-01T00:00:00.000000Z", "count": 3 }]));
    }
    let (_, page) = world.get("/v1/events", STRANGER).await;
    let (status, found) = world.get(&format!("/v1/events/{}", ids(&page)[0]), STRANGER).await;
    assert_eq!((status, &found["neighbours"]["by"]), (200, &json!("session")));
    world.assert_nothing_leaks(&found.to_string(), "neighbours");
    let all = world.get("/v1/events?q=session:shared", "admin").await.1;
    assert_eq!(ids(&all).len(), 2 * EVENTS, "there was something to leak");
    world.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_outside_the_scope_answers_exactly_as_one_that_is_not_there() {
    let world = World::new().await;
    let who = world.named(STRANGER);
    let there = format!("/v1/events/{}", world.event);
    let there = world.ask(&Method::GET, &there, "", who, false).await;
    let missing = format!("/v1/events/{}", "0".repeat(32));
    let missing = world.ask(&Method::GET, &missing, "", who, false).await;
    assert_eq!((there.status, &there.body), (404, &missing.body));
    let page = world.ask(&Method::GET, &format!("/events/{}", world.event), "", who, true).await;
    let none = world.ask(&Method::GET, "/events/00000000000000000000000000000000", "", who, true);
    assert_eq!((page.status, page.body), (404, none.await.body));
    world.close();
}

/// Who sees which of the secret words, in the order of [`SECRETS`].
const SIGHTS: [(&str, [bool; 6]); 3] = [
    ("auditor", [true, true, true, true, true, true]),
    // The record is where the masked values came from.
    ("viewer", [true, true, false, false, false, true]),
    ("finder", [true, true, false, false, false, true]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_word_of_a_hidden_part_is_neither_shown_nor_found_nor_missed() {
    let world = World::new().await;
    for (who, seen) in SIGHTS {
        let path = format!("/v1/events/{}", world.event);
        let (_, found) = world.get(&path, who).await;
        let (_, page) = world.get("/v1/events?q=tenant:acme", who).await;
        let page_path = format!("/events/{}", world.event);
        let html = world.ask(&Method::GET, &page_path, "", world.named(who), true).await.body;
        let hidden = seen.contains(&false);
        assert_eq!(found["redacted"] == json!(true), hidden, "{who}");
        assert_eq!(page["redacted"].as_array().map_or(0, Vec::len), if hidden { 3 } else { 0 });
        for (word, seen) in SECRETS.into_iter().zip(seen) {
            assert_eq!(found["event"].to_string().contains(word), seen, "{who} {word}");
            assert_eq!(page.to_string().contains(word), seen, "{who} {word}");
            assert_eq!(html.contains(word), seen, "{who} {word}");
            assert!(seen || !found.to_string().contains(word), "{who} {word}");
            let plain = |line: String| format!("/v1/events?q=tenant:acme+{line}");
            let prefix = format!("{}*", &word[..word.len() - 1]);
            for line in [word.to_owned(), prefix, format!("%22{word}%22"), format!("({word})")] {
                let (_, with) = world.get(&plain(line.clone()), who).await;
                assert_eq!(ids(&with).len(), if seen { EVENTS } else { 0 }, "{who} {line}");
                if !seen {
                    assert_eq!(with["total"], json!({ "value": 0, "exact": true }), "{who} {line}");
                }
                let (_, without) = world.get(&plain(format!("-{line}")), who).await;
                assert_eq!(ids(&without).len(), if seen { 0 } else { EVENTS }, "{who} -{line}");
                let twice = plain(format!("NOT+(NOT+{line})"));
                let (_, twice) = world.get(&twice, who).await;
                assert_eq!(ids(&twice), ids(&with), "{who} {line}");
            }
            for facet in ["details.sensitive.ssn", "details.sensitive", "changes", "origin.raw"] {
                let path = format!("/v1/stats?group_by={facet}");
                let facets = world.ask(&Method::GET, &path, "", world.named(who), false).await;
                assert!(seen || !facets.body.contains(word), "{who} {path}: {}", facets.body);
            }
            let (status, stats) = world.get(&format!("/v1/stats?q={word}"), who).await;
            assert_eq!(status, if hidden { 400 } else { 200 }, "{who} {word}: {stats}");
        }
    }
    world.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_an_event_that_a_search_finds_and_repetition_is_counted() {
    let world = World::new().await;
    let event = format!("/v1/events/{}", world.event);
    for (who, path) in [
        ("viewer", "/v1/users"),
        ("idle", "/v1/events"),
        ("admin, expired", "/v1/events"),
        ("admin, revoked", "/v1/agents"),
        ("viewer-disabled", "/v1/me"),
        ("auditor of another tenant", &*event),
        ("admin of the right tenant", "/v1/agents"),
        ("unknown token", "/v1/stats"),
    ] {
        let answer = world.ask(&Method::GET, path, "", world.named(who), false).await;
        assert!((401..=404).contains(&answer.status), "{who} {path}: {}", answer.status);
    }
    for _ in 0..100 {
        world.ask(&Method::GET, "/v1/roles", "", world.named("analyst"), false).await;
    }
    let expected = [
        ("viewer", "administer"),
        ("idle", "search"),
        ("admin, expired", "expired"),
        ("auditor of another tenant", "outside_scope"),
        ("admin of the right tenant", "outside_scope"),
        ("analyst", "administer"),
    ];
    let path = "/v1/events?limit=1000&q=category:authentication+outcome:denied";
    for _ in 0..600 {
        let (_, page) = world.get(path, "admin").await;
        let events = page["events"].as_array().unwrap();
        let told = |who: &str, what: &str| {
            let is =
                |event: &&Value| event["actor"]["name"] == who && event["reason"]["code"] == what;
            events.iter().filter(is).count()
        };
        let unknown = events.iter().any(|event| event["reason"]["code"] == "unknown_token");
        let revoked = events.iter().any(|event| event["reason"]["code"] == "revoked");
        if unknown && revoked && expected.iter().all(|(who, what)| told(who, what) > 0) {
            assert_eq!(
                told("analyst", "administer"),
                1,
                "a hundred are one until a minute is over"
            );
            return world.close();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not every refusal became an event");
}
