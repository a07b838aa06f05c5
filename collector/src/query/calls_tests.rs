//! The calls beside the search: counts, suggestions, timelines, histories, access; and what a cut
//! answer says. Over the events of `tests/questions`.

use custody_event::Timestamp;
use http::StatusCode;
use serde_json::{Value, json};

use super::testbed::{App, number};
use crate::index::tests::{Bench, Spec, text_of};
use crate::index::{Direction, EventStore, SearchRequest, StatsRequest};
use crate::store::Receipt;

fn numbers(list: &Value) -> Vec<u32> {
    let events = list.as_array().unwrap().iter();
    events.map(|event| number(event.to_string().as_bytes())).collect()
}

fn counts(list: &Value) -> Vec<(String, u64)> {
    let pair = |group: &Value| {
        (group["value"].as_str().unwrap().to_owned(), group["count"].as_u64().unwrap())
    };
    list.as_array().unwrap().iter().map(pair).collect()
}

#[tokio::test]
async fn several_groups_and_a_histogram_in_one_question() {
    let app = App::new();
    let stats = app
        .ask("/v1/stats?category=export&group_by=outcome,data.format&group_by=actor&interval=1d")
        .await;
    assert_eq!(stats["total"], 5);
    let two = |list: &[(&str, u64)]| {
        list.iter().map(|(value, count)| ((*value).to_owned(), *count)).collect::<Vec<_>>()
    };
    assert_eq!(counts(&stats["facets"]["outcome"]), two(&[("success", 4), ("pending", 1)]));
    assert_eq!(
        counts(&stats["facets"]["data.format"]),
        two(&[("csv", 3), ("json", 1), ("pdf", 1)])
    );
    assert_eq!(stats["facets"]["actor"].as_array().unwrap().len(), 5);
    assert_eq!(stats["groups"], stats["facets"]["outcome"], "the first is as it was");
    assert_eq!(stats["spans"][0], json!({"start": "2025-01-15T00:00:00.000000Z", "count": 1}));
    // A phrase is counted by looking, and alike.
    let looked = app
        .ask("/v1/stats?q=%22invalid%20password%22&group_by=actor,details.note&interval=1d")
        .await;
    assert_eq!(looked["total"], 2);
    assert_eq!(
        counts(&looked["facets"]["actor"]),
        two(&[("hacker@evil.com", 1), ("maria@company.com", 1)])
    );
    assert_eq!(looked["spans"].as_array().unwrap().len(), 2);
    for (bad, parameter) in [
        ("group_by=ip", "group_by"),
        ("group_by=nonsense", "group_by"),
        ("group_by=actor,actor,actor,actor,actor,actor,actor,actor,actor,actor,actor", "group_by"),
        ("interval=now", "interval"),
        ("interval=1s&from=2020-01-01", "interval"),
    ] {
        let (status, problem) = app.get(&format!("/v1/stats?{bad}")).await;
        assert_eq!((status, &problem["parameter"]), (StatusCode::BAD_REQUEST, &parameter.into()));
    }
}

#[tokio::test]
async fn suggestions_are_the_values_that_there_are_with_their_counts() {
    let app = App::new();
    let said = app.ask("/v1/suggest?field=actor&prefix=J").await;
    let values = counts(&said["values"]);
    assert_eq!(values[0], ("john smith".to_owned(), 3));
    assert_eq!(values[1], ("john.smith".to_owned(), 3));
    assert_eq!(values.len(), 5);
    assert_eq!(said["more"], false);
    let said = app.ask("/v1/suggest?field=user&prefix=j&limit=2&period=yesterday").await;
    assert_eq!(counts(&said["values"]), [("jane.doe@company.com".to_owned(), 1)]);
    let said = app.ask("/v1/suggest?field=target.type&limit=1").await;
    assert_eq!(said["more"], true);
    let said = app.ask("/v1/suggest?field=details.provider&prefix=o").await;
    assert_eq!(counts(&said["values"]), [("okta".to_owned(), 1)]);
    let said = app.ask("/v1/suggest?field=actor&prefix=a&tenant=ops").await;
    assert_eq!(counts(&said["values"]), [], "nothing of other tenants, not even a count");
    let said = app.ask("/v1/suggest?prefix=out").await;
    assert_eq!(said["fields"][0]["name"], "outcome");
    assert_eq!(said["fields"][0]["values"].as_array().unwrap().len(), 5);
    let said = app.ask("/v1/suggest?prefix=details.ro").await;
    let names: Vec<&str> =
        said["fields"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["details.rollout.percent", "details.rollout.region"]);
    let (status, problem) = app.get("/v1/suggest?field=nonsense").await;
    assert_eq!((status, &problem["parameter"]), (StatusCode::BAD_REQUEST, &"field".into()));
}

#[tokio::test]
async fn errors_point_at_the_column_of_the_parameter_that_is_wrong() {
    let app = App::new();
    for (query, parameter, column, hint) in [
        ("q=ok%20aktor:jane", "q", json!(4), "did you mean actor"),
        ("q=outcome:falure", "q", json!(9), "did you mean failure"),
        ("severity=high,hgih", "severity", json!(6), "did you mean high"),
        ("ip=10.0.0.1,%201.2.3", "ip", json!(11), "203.0.113.0/24"),
        ("-actor=%22open", "-actor", json!(1), ""),
        ("aktor=jane", "query", Value::Null, "did you mean actor"),
        ("period=soon", "period", Value::Null, ""),
        ("tz=Mars", "tz", Value::Null, ""),
        ("limit=0", "limit", Value::Null, ""),
        ("order=up", "order", Value::Null, ""),
        ("cursor=x", "cursor", Value::Null, ""),
    ] {
        let (status, problem) = app.get(&format!("/v1/events?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(problem["parameter"], parameter, "{query}: {problem}");
        assert_eq!(problem["column"], column, "{query}: {problem}");
        let said = problem["hint"].as_str().unwrap_or_default();
        assert!(said.contains(hint), "{query}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(hint), "{query}: {problem}");
    }
}

#[tokio::test]
async fn a_timeline_goes_forward_and_marks_where_something_is_missing() {
    let app = App::new();
    let line = app.ask("/v1/timeline?actor=ana@talk.example").await;
    let entries = line["entries"].as_array().unwrap();
    let events: Vec<Value> = entries.iter().map(|entry| entry["event"].clone()).collect();
    // Of the same host: a file was lost before the anomaly; it lies before her first event.
    assert_eq!(numbers(&Value::Array(events)), [44, 36, 37, 34, 35]);
    assert_eq!((&line["events"], &line["gaps"]), (&5.into(), &0.into()));
    assert_eq!(entries[4]["since_previous_ms"], 300_000);
    assert_eq!(line["first"], "2025-09-17T02:13:00.000000Z");

    let line = app.ask("/v1/timeline?tenant=talk&-tag=gap&limit=3").await;
    assert_eq!((&line["events"], &line["gaps"]), (&13.into(), &1.into()));
    let marks: Vec<bool> =
        line["entries"].as_array().unwrap().iter().map(|e| e["gap"].as_bool().unwrap()).collect();
    assert_eq!(marks, [false, false, true]);
    let cursor = line["next_cursor"].as_str().unwrap();
    let next = app.ask(&format!("/v1/timeline?tenant=talk&-tag=gap&cursor={cursor}")).await;
    assert_eq!(next["entries"].as_array().unwrap().len(), 11);
    assert!(next["next_cursor"].is_null());
    let session = app.ask("/v1/timeline?session=sess_xyz789").await;
    let of = |at: usize| number(session["entries"][at]["event"].to_string().as_bytes());
    assert_eq!((of(0), of(1)), (2, 3));
    let (status, _) = app.get("/v1/timeline").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn who_changed_it_and_what_it_was_at_an_instant() {
    let app = App::new();
    let plan = |at: &str| format!("/v1/history?target=contact:12345&field=plan&at={at}");
    let told = app.ask(&plan("2025-01-15T10:29:59Z")).await;
    assert_eq!(told["changes"].as_array().unwrap().len(), 1);
    let change = &told["changes"][0];
    assert_eq!((&change["before"], &change["after"]), (&json!("Free"), &json!("Premium")));
    assert_eq!(change["actor"], "agent@company.com");
    assert_eq!(told["at"]["values"]["plan"]["value"], "Free");
    assert_eq!(told["at"]["values"]["plan"]["known_by"], "next_change");
    let told = app.ask(&plan("2025-01-15T10:30:00Z")).await;
    assert_eq!(told["at"]["values"]["plan"]["value"], "Premium");
    assert_eq!(told["at"]["values"]["plan"]["known_by"], "change");
    assert_eq!(told["rests_on"]["gaps"], 1);
    // All fields, and that it was made.
    let told = app.ask("/v1/history?target=contact:12345&at=2025-01-15T09:00:00Z").await;
    assert_eq!(told["changes"].as_array().unwrap().len(), 4);
    assert_eq!(told["at"]["existed"], false);
    let told = app.ask("/v1/history?target=contact:12340&at=2025-02-01").await;
    assert_eq!(told["at"]["existed"], false);
    let told =
        app.ask("/v1/history?target=setting:voice_recordings&at=today&tz=Europe/Berlin").await;
    assert_eq!(told["at"]["values"]["retention_policy"]["value"], "180 days");
    assert_eq!(told["changes"][0]["actor"], "admin@company.com");
    // A masked value is never told.
    let told = app.ask("/v1/history?target=openai&field=api_key&at=now").await;
    assert_eq!(told["changes"][0]["masked"], true);
    assert!(told["at"]["values"]["api_key"]["value"].is_null());
    // Of another type, or of nothing.
    assert_eq!(app.ask("/v1/history?target=label:12345").await["changes"], json!([]));
    assert_eq!(app.get("/v1/history").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(app.get("/v1/history?target=x&at=soon").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_change_that_does_not_follow_from_the_last_is_marked() {
    let bench = Bench::new();
    let event = |number: u64, minute: u64, before: &str, after: &str, outcome: &str| {
        let time = format!("2025-05-01T10:{minute:02}:00.000000Z");
        json!({ "action": "plan.update", "changes": [{ "after": after, "before": before,
            "field": "plan" }], "id": format!("{number:032}"), "observed": time, "op": "update",
            "origin": { "input": "x" }, "outcome": outcome, "targets": [{ "id": "7",
            "type": "account" }], "time": time, "v": 1 })
        .to_string()
    };
    let text = [
        event(1, 1, "a", "b", "success"),
        event(2, 2, "b", "x", "failure"),
        event(3, 3, "b", "c", "success"),
        event(4, 4, "d", "e", "success"),
    ];
    let received = Timestamp::parse("2025-05-02T00:00:00.000000Z").unwrap();
    let text = text.join("\n") + "\n";
    bench.log.append(text.as_bytes(), Receipt { held: vec![], received }).unwrap();
    let app = App::over(bench);
    let told = app.ask("/v1/history?target=account:7&at=2025-05-01T10:02:30Z").await;
    let follows: Vec<&Value> =
        told["changes"].as_array().unwrap().iter().map(|change| &change["follows"]).collect();
    assert_eq!(follows, [&Value::Null, &Value::Null, &json!(true), &json!(false)]);
    assert_eq!(told["at"]["values"]["plan"]["value"], "b", "what failed has changed nothing");
}

#[tokio::test]
async fn did_they_see_it_says_what_the_answer_rests_on() {
    let app = App::new();
    let ask = |user: &str, target: &str| format!("/v1/access?user={user}&target={target}");
    let yes = app.ask(&ask("admin@company.com", "voice_call_records")).await;
    assert_eq!(yes["answer"], "yes");
    assert_eq!((&yes["saw"]["count"], &yes["exported"]["count"]), (&0.into(), &1.into()));
    assert_eq!(numbers(&yes["events"]), [2]);
    let yes = app.ask(&ask("agent@company.com", "contact:12345")).await;
    assert_eq!((&yes["answer"], &yes["saw"]["count"]), (&json!("yes"), &1.into()));
    assert_eq!(yes["saw"]["first"], "2025-08-01T10:00:00.000000Z");
    // The manager exported contacts: the list may have held this one.
    let maybe = app.ask(&ask("manager@company.com", "contact:12345")).await;
    assert_eq!(maybe["answer"], "possible");
    assert_eq!(numbers(&maybe["possible"]), [14]);
    let no = app.ask(&ask("jane.doe@company.com", "conversation:c77")).await;
    assert_eq!((&no["answer"], &no["rests_on"]["events"]), (&json!("no"), &49.into()));
    assert_eq!(no["rests_on"]["since"], "2025-01-15T03:45:12.000000Z");
    assert_eq!(no["rests_on"]["gaps"], 1);
    // Two conversations were read, and a report named after them was downloaded.
    assert_eq!(no["rests_on"]["views_of_this_kind"], 3);
    assert_eq!(no["rests_on"]["by_user"], 1);
    let no = app.ask(&ask("jane.doe@company.com", "carrier:trunk-provider-1")).await;
    assert!(no["sentence"].as_str().unwrap().contains("may not be"), "{no}");
    // A queued export is no export yet.
    let no = app.ask(&ask("lee@ops.example", "all")).await;
    assert_eq!((&no["answer"], &no["refused"]["count"]), (&json!("no"), &1.into()));
    assert_eq!(app.get("/v1/access?user=x").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(app.get("/v1/access?target=x").await.0, StatusCode::BAD_REQUEST);
}

/// Many segments: days that overlap in the times of their events.
fn spread() -> App {
    let bench = Bench::new();
    for day in 0..12_u64 {
        let spec = |number: u64| Spec {
            number: day * 10 + number,
            time: i64::try_from(day * 10_000_000 + number * 1_500_000).unwrap(),
            actor: u8::try_from(number % 4).unwrap(),
            action: u8::try_from(number % 3).unwrap(),
            ip: 0,
            text: 0,
        };
        let specs: Vec<Spec> = (0..10).map(spec).collect();
        let received = Timestamp::from_micros(i64::try_from(day).unwrap() * 86_400_000_000);
        bench.log.append(&text_of(&specs), Receipt { held: vec![], received }).unwrap();
    }
    App::over(bench)
}

#[test]
fn a_search_without_time_says_how_far_it_came_and_going_on_finds_everything_once() {
    let app = spread();
    for line in ["", "actor:root", "-actor:root", "\"contract 77\" actor:root"] {
        for direction in [Direction::NewestFirst, Direction::OldestFirst] {
            let filter = super::line::parse(line, Timestamp::Y2020).unwrap();
            let whole =
                SearchRequest { filter, limit: 1_000, direction, ..SearchRequest::default() };
            let expected = app.store.search(&whole).unwrap();
            assert!(expected.cut.is_none() && expected.hits.len() >= 24, "{line}");
            let mut request = SearchRequest { budget_ms: Some(0), limit: 50, ..whole };
            let (mut found, mut cuts, mut turns) = (Vec::new(), 0, 0);
            loop {
                turns += 1;
                assert!(turns < 200, "{line}: it does not come to its end");
                let page = app.store.search(&request).unwrap();
                found.extend(page.hits);
                if let Some(cut) = page.cut {
                    cuts += 1;
                    assert_eq!(cut.direction, direction);
                    // The promise: nothing is missing on this side of it.
                    let near = |time: Timestamp| match direction {
                        Direction::NewestFirst => time >= cut.searched,
                        Direction::OldestFirst => time < cut.searched,
                    };
                    let promised = expected.hits.iter().filter(|hit| near(hit.key.time)).count();
                    assert!(found.len() >= promised, "{line}: {} of {promised}", found.len());
                }
                match page.next {
                    Some(next) => request.after = Some(next),
                    None => break,
                }
            }
            assert_eq!(found, expected.hits, "{line} {direction:?}");
            assert!(cuts > 3, "{line}: {cuts} cuts");
        }
    }
}

#[tokio::test]
async fn a_count_without_time_says_how_far_it_came() {
    let app = spread();
    for line in ["", "%22contract%2077%22"] {
        let whole = app.ask(&format!("/v1/stats?q={line}&group_by=action")).await;
        let part = app.ask(&format!("/v1/stats?q={line}&group_by=action&budget_ms=0")).await;
        assert!(whole["cut"].is_null());
        assert!(part["total"].as_u64() < whole["total"].as_u64(), "{line}: {part}");
        let from = part["cut"]["searched_from"].as_str().unwrap();
        let newer = app.ask(&format!("/v1/stats?q={line}&from={from}")).await;
        assert!(part["total"].as_u64() >= newer["total"].as_u64(), "{part} {newer}");
    }
    let page = app.ask("/v1/events?budget_ms=0").await;
    assert_eq!(page["cut"]["after_ms"], 0);
    assert_eq!(page["total"]["exact"], false);
    let stats = StatsRequest { interval_micros: Some(1), ..StatsRequest::default() };
    assert_eq!(app.store.stats(&stats).unwrap().spans.len(), 120);
}

#[tokio::test]
async fn a_page_of_large_events_is_shorter_and_goes_on() {
    let bench = Bench::new();
    let received = Timestamp::Y2020;
    for block in 0..40_u32 {
        let mut text = String::new();
        for number in 0..10 {
            let id = format!("{:032}", block * 10 + number);
            let time = format!("2025-05-01T10:{block:02}:0{number}.000000Z");
            let raw = "x ".repeat(25_000);
            text.push_str(
                &json!({ "id": id, "message": "big", "observed": time,
                "origin": { "raw": raw }, "time": time, "v": 1 })
                .to_string(),
            );
            text.push('\n');
        }
        bench.log.append(text.as_bytes(), Receipt { held: vec![], received }).unwrap();
    }
    let app = App::over(bench);
    let request = SearchRequest { limit: 1_000, ..SearchRequest::default() };
    let page = app.store.search(&request).unwrap();
    let bytes: usize = page.hits.iter().map(|hit| hit.event.len()).sum();
    assert!(page.hits.len() < 400 && page.next.is_some() && page.cut.is_none());
    assert!(bytes < 24 << 20, "{bytes} bytes");
    let filter = super::line::parse("big", Timestamp::Y2020).unwrap();
    assert_eq!(app.found(&filter, 1_000).len(), 400);
}

/// Two tenants; one has a masked change, a sensitive detail and a record.
fn with_secrets() -> App {
    let bench = Bench::new();
    let time = "2025-05-01T10:00:00.000000Z";
    let event = |number: u64, tenant: &str, secret: &str| {
        json!({ "action": "pin.update", "actor": { "name": "eve" }, "changes": [{
            "after": format!("{secret}1"), "before": format!("{secret}2"), "field": "pin",
            "masked": true }], "details": { "open": "yes", "sensitive": {
            "ssn": format!("{secret}3") }, format!("of_{tenant}"): 1 }, "host": tenant,
            "id": format!("{number:032}"), "observed": time, "op": "update",
            "origin": { "input": "x", "raw": format!("record {secret}4") },
            "targets": [{ "id": "7", "type": "card" }], "tenant": tenant, "time": time, "v": 1 })
        .to_string()
    };
    let text = [event(1, "bank", "hidden"), event(2, "ops", "zulu")].join("\n") + "\n";
    let received = Timestamp::Y2020;
    bench.log.append(text.as_bytes(), Receipt { held: vec![], received }).unwrap();
    App::over(bench)
}

#[tokio::test]
async fn no_call_tells_what_the_asker_may_not_see() {
    let app = with_secrets();
    let paths = [
        "/v1/events",
        "/v1/stats?group_by=after,before,details.sensitive.ssn,details.open,tenant,host",
        "/v1/suggest?field=after&prefix=h",
        "/v1/suggest?field=details.sensitive.ssn",
        "/v1/suggest?field=tenant",
        "/v1/suggest?prefix=details.",
        "/v1/timeline?actor=eve",
        "/v1/history?target=card:7&at=now",
        "/v1/access?user=eve&target=card:7",
    ];
    for path in paths {
        let (_, whole) = app.get(path).await;
        let (_, bounded) = app.get_as("ops", path).await;
        let (_, blind) = app.get_as("blind", path).await;
        assert!(!bounded.to_string().contains("bank"), "{path}: {bounded}");
        assert!(!bounded.to_string().contains("hidden"), "{path}: {bounded}");
        for secret in ["hidden", "zulu"] {
            assert!(!blind.to_string().contains(secret), "{path}: {blind}");
        }
        let told = whole.to_string();
        let masked = path.contains("history") || path.contains("access");
        assert!(masked || told.contains("hidden") || told.contains("bank"), "{path}: {told}");
    }
    // Nor does it answer by finding or not finding.
    for line in ["after:hidden1", "details.sensitive.ssn:*", "hidden4", "-zulu4", "before:h*"] {
        let ask = format!("/v1/stats?q={line}");
        let (status, blind) = app.get_as("blind", &ask).await;
        let expected = if line.starts_with('-') { 2 } else { 0 };
        assert_eq!((status, &blind["total"]), (StatusCode::OK, &expected.into()), "{line}");
    }
    let (status, _) = app.get_as("nothing", "/v1/suggest?field=actor").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}
