use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use custody_event::{Clock, SystemClock, Timestamp};
use http::{Request, StatusCode};
use http_body_util::BodyExt;

use super::hub::{Client, Hub};
use crate::index::tests::{Bench, Spec, text_of};
use crate::query::line;
use crate::query::testbed::App;
use crate::store::{BlockSource, Receipt};

fn specs(numbers: std::ops::Range<u64>) -> Vec<Spec> {
    let spec = |number: u64| Spec {
        number,
        time: 1_760_000_000_000_000 + i64::try_from(number).unwrap(),
        actor: u8::try_from(number % 4).unwrap(),
        action: u8::try_from(number % 3).unwrap(),
        ip: 0,
        text: 0,
    };
    numbers.map(spec).collect()
}

fn append(bench: &Bench, numbers: std::ops::Range<u64>) {
    let received = Timestamp::from_micros(1_760_000_000_000_000);
    bench.log.append(&text_of(&specs(numbers)), Receipt { held: vec![], received }).unwrap();
}

/// The number of a test's event: the second half of its id.
fn number(event: &serde_json::Value) -> u64 {
    u64::from_str_radix(&event["id"].as_str().unwrap()[16..], 16).unwrap()
}

/// Reads a stream, message by message.
struct Reader {
    body: Body,
    text: String,
}

#[derive(Debug, Default, PartialEq)]
struct Message {
    id: Option<String>,
    event: Option<String>,
    data: serde_json::Value,
}

impl Reader {
    async fn open(app: &App, query: &str, last: Option<&str>) -> Self {
        Self::open_as(app, "good", query, last).await
    }

    async fn open_as(app: &App, token: &str, query: &str, last: Option<&str>) -> Self {
        let mut request = Request::get(format!("/v1/tail?{query}"))
            .header("authorization", format!("Bearer {token}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = app.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut reader = Self { body: response.into_body(), text: String::new() };
        // The first words come when the task runs; the first heartbeat, when the client has joined.
        while !reader.text.contains("\n\n: ") {
            assert!(reader.more().await);
        }
        reader
    }

    async fn more(&mut self) -> bool {
        let frame = tokio::time::timeout(Duration::from_secs(30), self.body.frame());
        match frame.await.expect("the stream says nothing") {
            Some(frame) => {
                let data = frame.unwrap().into_data().unwrap();
                self.text.push_str(std::str::from_utf8(&data).unwrap());
                true
            }
            None => false,
        }
    }

    /// The next message with data; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Message> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let message = message(block);
                self.text = rest.to_owned();
                if !message.data.is_null() {
                    return Some(message);
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn numbers(&mut self, count: usize) -> (Vec<u64>, String) {
        let (mut numbers, mut last) = (Vec::new(), String::new());
        while numbers.len() < count {
            let message = self.next().await.expect("more events");
            assert_eq!(message.event, None, "{message:?}");
            numbers.push(number(&message.data));
            last = message.id.unwrap();
        }
        (numbers, last)
    }
}

fn message(block: &str) -> Message {
    let mut message = Message::default();
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("id", id)) => message.id = Some(id.to_owned()),
            Some(("event", event)) => message.event = Some(event.to_owned()),
            Some(("data", data)) => message.data = serde_json::from_str(data).unwrap(),
            _ => {}
        }
    }
    message
}

#[tokio::test]
async fn events_come_as_they_are_taken_and_who_comes_back_misses_none() {
    let bench = Bench::new();
    append(&bench, 0..10);
    let app = App::over(bench);
    let mut reader = Reader::open(&app, "actor=root&duration=1h", None).await;
    for block in 1..6 {
        append(&app.bench, block * 10..block * 10 + 10);
    }
    let (first, last) = reader.numbers(4).await;
    // Numbers with the rest 1 are root's; what was there before is not live.
    assert_eq!(first, [13, 17, 21, 25]);
    drop(reader);
    append(&app.bench, 60..70);
    let mut reader = Reader::open(&app, "actor=root&duration=1h", Some(&last)).await;
    append(&app.bench, 70..80);
    let (rest, _) = reader.numbers(13).await;
    assert_eq!(rest, [29, 33, 37, 41, 45, 49, 53, 57, 61, 65, 69, 73, 77]);
    drop(reader);
    let from = format!("from={last}&duration=1h&actor=root");
    let mut reader = Reader::open(&app, &from, None).await;
    assert_eq!(reader.numbers(13).await.0, rest);
    app.stop.stop();
    let end = reader.next().await.unwrap();
    assert_eq!(end.event.as_deref(), Some("end"));
    assert_eq!(end.data["reason"], "stopping");
    assert_eq!(end.data["sent"], 13);
    assert!(reader.next().await.is_none());
}

#[tokio::test]
async fn the_duration_ends_the_stream_and_says_where_to_go_on() {
    let app = App::over(Bench::new());
    let mut reader = Reader::open(&app, "duration=1s", None).await;
    append(&app.bench, 0..3);
    let (_, last) = reader.numbers(3).await;
    let end = reader.next().await.unwrap();
    assert_eq!(end.data["reason"], "duration");
    assert_eq!(end.data["cursor"], last);
    assert_eq!((&end.data["sent"], &end.data["skipped"]), (&3.into(), &0.into()));
    for bad in ["duration=25h", "duration=0s", "duration=x", "from=then", "nonsense=1"] {
        let (status, problem) = app.get(&format!("/v1/tail?{bad}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
    }
}

#[tokio::test]
async fn a_tail_shows_what_the_asker_may_see_and_no_more() {
    let bench = Bench::new();
    append(&bench, 0..1);
    let app = App::over(bench);
    let mut blind = Reader::open_as(&app, "blind", "duration=1h", None).await;
    let mut bounded = Reader::open_as(&app, "ops", "duration=1s", None).await;
    let mut word = Reader::open_as(&app, "blind", "q=line&duration=1s", None).await;
    append(&app.bench, 1..3);
    let shown = blind.next().await.unwrap().data;
    assert!(shown["origin"]["raw"].is_null() && shown["message"].is_string(), "{shown}");
    // None of the events is of that tenant; the word stands in the records alone.
    for reader in [&mut bounded, &mut word] {
        assert_eq!(reader.next().await.unwrap().data["sent"], 0);
    }
}

#[test]
fn who_is_slow_is_told_exactly_how_many_were_left_out() {
    let bench = Bench::new();
    let source = Arc::clone(&bench.log) as Arc<dyn BlockSource>;
    let hub = Arc::new(Hub::new(source));
    let all = line::parse("", Timestamp::Y2020).unwrap();
    let slow = Arc::new(Client::new(all.clone(), 4_000));
    let quick = Arc::new(Client::new(all, 10_000_000));
    hub.join(Arc::clone(&slow));
    hub.join(Arc::clone(&quick));
    let stop = custody_config::shell::StopToken::new();
    let (reader, told) = (Arc::clone(&hub), stop.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let thread = std::thread::spawn(move || reader.run(&runtime, &told));
    let mut seen = 0;
    let mut wait_for = |count: u64| {
        let clock = SystemClock::new();
        while seen < count {
            assert!(clock.monotonic() < Duration::from_secs(30), "{seen} of {count}");
            seen += u64::try_from(quick.take().items.len()).unwrap();
            std::thread::yield_now();
        }
    };
    for block in 0..20 {
        append(&bench, block * 10..block * 10 + 10);
    }
    wait_for(200);
    let batch = slow.take();
    let kept = u64::try_from(batch.items.len()).unwrap();
    assert!(kept > 0 && batch.items.iter().map(|item| item.event.len()).sum::<usize>() <= 4_000);
    assert_eq!(kept + batch.skipped, 200, "nothing goes without being counted");
    let first: Vec<u64> = batch
        .items
        .iter()
        .map(|item| number(&serde_json::from_slice(&item.event).unwrap()))
        .collect();
    assert_eq!(first, (0..kept).collect::<Vec<_>>(), "the hole is where the count says");
    append(&bench, 200..203);
    wait_for(203);
    let batch = slow.take();
    assert_eq!((batch.items.len(), batch.skipped), (3, 0));
    stop.stop();
    thread.join().unwrap();
}
