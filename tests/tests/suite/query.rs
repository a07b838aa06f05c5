//! The questions of `tests/questions` to a running collector, by its command line; every example of
//! `/openapi.json`; and events that arrive while somebody tails.

use std::collections::BTreeSet;

use custody_event::block::{Accounts, Placement, Sealer};
use custody_event::{AgentId, Digest, EventView, Seq, StreamId, Timestamp};
use custody_evidence::AgentKey;
use custody_evidence::claim::Claim;
use custody_tests::http::{self, encoded};
use custody_tests::wait::until;
use custody_tests::{Collector, World};

const EVENTS: &str = include_str!("../../questions/events.ndjson");
const QUESTIONS: &str = include_str!("../../questions/questions.tsv");

/// An agent with a key of its own that sends what it is given.
struct Sender {
    agent: AgentId,
    stream: StreamId,
    host: String,
    key: AgentKey,
    token: String,
    sealer: Sealer,
    seq: Seq,
    prev: Digest,
}

impl Sender {
    fn enrolled(collector: &Collector) -> Self {
        let (agent, key) = (AgentId([7; 16]), AgentKey::from_secret(&[7; 32]));
        let host = "7".repeat(64);
        let token = std::fs::read_to_string(collector.enroll_token()).unwrap();
        let bearer = Digest::of(token.trim().as_bytes());
        let proof = Claim { agent, bearer, host: &host, tls_key: "" }.prove(&key, &[]);
        let body = serde_json::json!({ "agent": agent.to_string(), "host": host,
            "hostname": "web2", "key": key.public().to_hex(), "version": "1", "proof": proof });
        let body = body.to_string();
        let (address, token) = (collector.address, token.trim());
        let answer =
            http::request("POST", address, "/v1/enroll", Some(token), body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        Self {
            agent,
            stream: StreamId([8; 16]),
            host,
            key,
            token: answer.json()["token"].as_str().unwrap().to_owned(),
            sealer: Sealer::new().unwrap(),
            seq: Seq(0),
            prev: Digest::ZERO,
        }
    }

    fn send(&mut self, collector: &Collector, events: &str) {
        let times = events.lines().map(|event| EventView::read(event.as_bytes()).unwrap().time);
        let times = (times.clone().min().unwrap(), times.max().unwrap());
        let sealed = self.sealer.seal(events.as_bytes(), times, [9; 32]).unwrap();
        let placement = Placement {
            agent: self.agent,
            host: self.host.clone(),
            key: self.key.id(),
            stream: self.stream,
            seq: self.seq,
            prev: self.prev,
            sealed: Timestamp::Y2020,
        };
        let mut block = sealed.place(placement, Accounts::default());
        self.key.sign(&mut block);
        let path = format!("/v1/streams/{}/{}/blocks/{}", self.agent, self.stream, self.seq);
        let bytes = block.encode().unwrap();
        let answer =
            http::request("POST", collector.address, &path, Some(&self.token), &bytes).unwrap();
        assert!(
            answer.status < 300,
            "{}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        (self.prev, self.seq) = (block.hash(), self.seq.next());
    }
}

fn with_events(world: &World) -> (Collector, Sender) {
    let collector = Collector::started(world, "collector");
    let mut sender = Sender::enrolled(&collector);
    sender.send(&collector, EVENTS);
    let count = u64::try_from(EVENTS.lines().count()).unwrap();
    until("the events can be found", world.patience(), || {
        let stats = collector.get("/v1/stats?pack=questions");
        (stats["total"].as_u64() == Some(count)).then_some(())
    });
    (collector, sender)
}

/// Counts from a time that is not the test's own.
fn is_relative(line: &str) -> bool {
    ["24h", "7d", "30d", "today", "yesterday", ":this_", ":last_", ":now"]
        .iter()
        .any(|word| line.contains(word))
}

fn number(event: &str) -> u32 {
    EventView::read(event.as_bytes()).unwrap().id.to_hex()[4..].parse().unwrap()
}

#[test]
fn the_command_line_answers_the_questions_as_the_table_does() {
    let world = World::new("questions");
    let (collector, _sender) = with_events(&world);
    let dir = collector.data_dir.display().to_string();
    let url = collector.url();
    let mut asked = 0;
    for row in QUESTIONS.lines().filter(|row| !row.starts_with('#')) {
        let columns: Vec<&str> = row.split('\t').collect();
        let (line, ids) = (columns[0], columns[2]);
        if is_relative(line) || line.is_empty() {
            continue;
        }
        // The collector's own acts are events too: they are of another pack.
        let line = format!("({line}) pack:questions");
        let args = ["search", "--json", "--limit", "1000", "--collector", &url, "--data-dir", &dir];
        let said = Collector::cli(&[&args[..], &["--", &line]].concat());
        let found: BTreeSet<u32> = said.out.lines().map(number).collect();
        let expected: BTreeSet<u32> =
            ids.split(' ').filter(|id| *id != "-").map(|id| id.parse().unwrap()).collect();
        assert_eq!(found, expected, "{line}: {said:?}");
        assert_eq!(said.code, Some(i32::from(expected.is_empty())), "{line}");
        asked += 1;
    }
    assert!(asked >= 200, "{asked} questions");
    let args = ["--collector", &url, "--data-dir", &dir];
    let cli = |own: &[&str]| Collector::cli(&[own, &args[..]].concat());
    cli(&["search", "aktor:jane"]).expect(64, &["character 1", "did you mean actor"]);
    cli(&["timeline", "session:sess_xyz789"]).expect(0, &["data.export", "2 events, 0 gaps"]);
    cli(&["history", "contact:12345", "--field", "plan", "--at", "2025-01-15T10:00:00Z"])
        .expect(0, &["plan: Free -> Premium", "plan: Free", "this rests on"]);
    cli(&["access", "admin@company.com", "voice_call_records"])
        .expect(0, &["exported it 1 times", "data.export"]);
    cli(&["access", "jane.doe@company.com", "carrier:trunk-provider-1"])
        .expect(1, &["No event says", "may not be"]);
}

#[test]
fn every_example_of_the_description_is_answered() {
    let world = World::new("openapi");
    let (collector, _sender) = with_events(&world);
    let document = collector.get("/openapi.json");
    let token = std::fs::read_to_string(collector.data_dir.join("admin.token")).unwrap();
    let mut examples = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let body = operation["requestBody"]["content"].as_object().and_then(|content| {
                content.values().next().map(|media| media["example"].to_string())
            });
            for example in operation["x-examples"].as_array().unwrap() {
                let example = example.as_str().unwrap();
                let token = operation["security"].is_null().then_some(token.trim());
                let body = body.clone().unwrap_or_default();
                let method = method.to_uppercase();
                let answer =
                    http::request(&method, collector.address, example, token, body.as_bytes())
                        .unwrap_or_else(|error| panic!("{method} {example}: {error}"));
                let said = String::from_utf8_lossy(&answer.body);
                assert!(answer.status < 500, "{method} {example}: {} {said}", answer.status);
                assert_ne!(answer.status, 405, "{method} {example}");
                assert!(!said.contains("there is nothing at this path"), "{method} {example}");
                if method == "GET" && path.starts_with("/v1/") && !path.contains('{') {
                    assert_eq!(answer.status, 200, "{method} {example}: {said}");
                }
                examples += 1;
            }
        }
    }
    assert!(examples >= 25, "{examples}");
}

#[test]
fn who_tails_sees_what_arrives_until_the_time_is_over() {
    let world = World::new("tail");
    let (collector, mut sender) = with_events(&world);
    let dir = collector.data_dir.display().to_string();
    let url = collector.url();
    let args = ["tail", "--for", "8s", "--json", "--collector", &url, "--data-dir", &dir];
    let tail = {
        let args: Vec<String> =
            args.iter().chain(&["action:late.arrival"]).map(|arg| (*arg).to_owned()).collect();
        std::thread::spawn(move || Collector::cli(&args))
    };
    // That somebody tails is an event as well: it says when.
    let told = format!("/v1/stats?q={}", encoded("action:event.search late.arrival"));
    until("the tail has begun", world.patience(), || {
        (collector.get(&told)["total"].as_u64() > Some(0)).then_some(())
    });
    let late = |number: u32| {
        format!(
            "{{\"action\":\"late.arrival\",\"id\":\"{number:032}\",\"observed\":\"2026-01-01T00:00:00.000000Z\",\"origin\":{{\"input\":\"x\"}},\"time\":\"2026-01-01T00:00:00.000000Z\",\"v\":1}}\n"
        )
    };
    sender.send(&collector, &(late(1) + &late(2)));
    sender.send(&collector, &late(3));
    let said = tail.join().unwrap();
    said.expect(0, &["the end (duration): 3 events shown; go on with --from 1."]);
    assert_eq!(said.out.lines().count(), 3, "{said:?}");
    let from = said.err.split("--from ").nth(1).unwrap().trim();
    sender.send(&collector, &late(4));
    let again = ["tail", "--for", "1s", "--json", "--from", from, "--collector", &url];
    let said = Collector::cli(&[&again[..], &["--data-dir", &dir, "action:late.arrival"]].concat());
    said.expect(0, &["1 events shown"]);
    assert!(said.out.contains(&format!("{:032}", 4)), "{said:?}");
}
