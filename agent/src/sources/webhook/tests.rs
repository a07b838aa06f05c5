//! The listener with real sockets; the pipeline is played.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use custody_config::agent::{Scheme, VerifyConfig};
use custody_config::shell::StopToken;
use custody_event::SystemClock;

use super::*;
use crate::sources::{Item, Kept, NotTaken, Promise, RecordBatch};

/// Plays the pipeline: keeps what is offered; promises wait until the test says how they end.
#[derive(Default)]
struct Played {
    batches: Mutex<Vec<RecordBatch>>,
    refused: Mutex<Vec<(&'static str, u64)>>,
    promises: Mutex<Vec<Promise>>,
    keeps_at_once: AtomicBool,
    full: AtomicBool,
    no_room: AtomicBool,
}

impl Hatch for Played {
    fn offer(&self, item: Item) -> Result<(), NotTaken> {
        if self.no_room.load(Ordering::Relaxed) {
            return Err(NotTaken::Full(Box::new(item)));
        }
        match item {
            Item::Batch(mut batch) => {
                let promise = batch.promise.take().unwrap();
                self.batches.lock().unwrap().push(batch);
                if self.keeps_at_once.load(Ordering::Relaxed) {
                    promise.keep(Kept::Durable);
                } else {
                    self.promises.lock().unwrap().push(promise);
                }
            }
            Item::Refused(refused) => {
                self.refused.lock().unwrap().push((refused.code, refused.count));
            }
            _ => panic!("webhooks have none of these"),
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }
}

struct Running {
    played: Arc<Played>,
    address: SocketAddr,
    stop: StopToken,
    thread: std::thread::JoinHandle<anyhow::Result<()>>,
}

fn endpoint(number: u16, path: &str, verify: &VerifyConfig, secrets: &[&str]) -> EndpointOptions {
    EndpointOptions {
        index: SourceIndex(number),
        id: path.trim_start_matches('/').to_owned(),
        path: path.to_owned(),
        verifier: Verifier::new(verify, secrets).unwrap(),
        max_body_bytes: 2_000,
        split: "events".to_owned(),
        remember: 100,
    }
}

fn endpoints() -> Vec<EndpointOptions> {
    let bearer = VerifyConfig {
        scheme: Scheme::Bearer,
        id_header: "x-id".into(),
        ..VerifyConfig::default()
    };
    let open = VerifyConfig { scheme: Scheme::None, ..VerifyConfig::default() };
    vec![endpoint(0, "/token", &bearer, &["hunter2"]), endpoint(1, "/open", &open, &[])]
}

fn start(remembered: Vec<SavedMarks>) -> Running {
    start_with(endpoints(), remembered)
}

fn start_with(endpoints: Vec<EndpointOptions>, remembered: Vec<SavedMarks>) -> Running {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = Options {
        listen: address,
        tls: None,
        max_connections: 16,
        answer_within: Duration::from_millis(1500),
        endpoints,
    };
    let played = Arc::new(Played::default());
    played.keeps_at_once.store(true, Ordering::Relaxed);
    let hatch: Arc<dyn Hatch> = played.clone();
    let states = [Arc::default(), Arc::default()];
    let clock = Arc::new(SystemClock::new());
    let server = Server::new(options, remembered, &states, clock, || Ok([3; 16]), hatch).unwrap();
    let stop = StopToken::new();
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || server.run(stopped));
    Running { played, address, stop, thread }
}

impl Running {
    fn send(&self, request: &[u8]) -> String {
        let begun = Instant::now();
        let mut stream = loop {
            match TcpStream::connect(self.address) {
                Ok(stream) => break stream,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn post(&self, path: &str, headers: &str, body: &[u8]) -> String {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    fn records(&self) -> Vec<String> {
        let mut found = Vec::new();
        for batch in self.played.batches.lock().unwrap().iter() {
            let mut from = 0;
            for record in &batch.records {
                found.push(String::from_utf8_lossy(&batch.bytes[from..record.end]).into_owned());
                from = record.end;
            }
        }
        found
    }

    fn end(self) -> Arc<Played> {
        self.stop.stop();
        self.thread.join().unwrap().unwrap();
        self.played
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

const TOKEN: &str = "authorization: Bearer hunter2\r\n";

#[test]
fn a_request_is_a_record_with_its_way_and_a_forged_one_is_none() {
    let running = start(vec![Vec::new(), Vec::new()]);
    assert_eq!(status(&running.post("/token", TOKEN, b"{\"a\":1}")), "200");
    assert_eq!(status(&running.post("/token", "authorization: Bearer wrong\r\n", b"{}")), "401");
    assert_eq!(status(&running.post("/token", "", b"{}")), "401");
    assert_eq!(status(&running.post("/nowhere", TOKEN, b"{}")), "404");
    assert_eq!(
        status(&running.send(b"GET /token HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")),
        "405"
    );
    assert_eq!(running.records(), ["{\"a\":1}"]);
    let played = running.end();
    let batches = played.batches.lock().unwrap();
    let way = &batches[0].ways[0];
    assert_eq!(way.endpoint.as_deref(), Some("/token"));
    assert_eq!(way.verdict.as_deref(), Some("verified:bearer"));
    assert!(way.details[0].1.starts_with("127.0.0.1:"));
    let mut refused = played.refused.lock().unwrap().clone();
    refused.sort_unstable();
    assert_eq!(
        refused,
        [("bad_signature", 1), ("method", 1), ("no_signature", 1), ("unknown_path", 1)]
    );
}

#[test]
fn bodies_are_bounded_also_when_they_are_packed_or_chunked() {
    let running = start(vec![Vec::new(), Vec::new()]);
    assert_eq!(status(&running.post("/open", "", &[b' '; 2_001])), "413");
    let chunked = format!(
        "POST /open HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        3_000,
        "x".repeat(3_000)
    );
    assert_eq!(status(&running.send(chunked.as_bytes())), "413");
    let pack = |bytes: &[u8]| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    };
    let gzip = "content-encoding: gzip\r\n";
    assert_eq!(status(&running.post("/open", gzip, &pack(&[b'x'; 100_000]))), "413");
    assert_eq!(status(&running.post("/open", gzip, b"{}")), "400");
    assert_eq!(status(&running.post("/open", "content-encoding: br\r\n", b"{}")), "415");
    assert_eq!(status(&running.post("/open", "", b"")), "400");
    assert_eq!(running.records(), [""; 0]);
    assert_eq!(status(&running.post("/open", gzip, &pack(b"{\"packed\":1}"))), "200");
    assert_eq!(status(&running.post("/open", "", b"{\"events\":[{\"n\":1},{\"n\":2}]}")), "200");
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    assert_eq!(status(&running.post("/open", form, b"payload=%7B%7D")), "200");
    assert_eq!(running.records(), ["{\"packed\":1}", "{\"n\":1}", "{\"n\":2}", "{}"]);
    running.end();
}

#[test]
fn a_sender_is_answered_only_when_its_records_are_durable() {
    let running = start(vec![Vec::new(), Vec::new()]);
    running.played.keeps_at_once.store(false, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| running.post("/open", "", b"{}"));
        let begun = Instant::now();
        let promise = loop {
            if let Some(promise) = running.played.promises.lock().unwrap().pop() {
                break promise;
            }
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        };
        assert!(!asking.is_finished());
        promise.keep(Kept::Durable);
        assert_eq!(status(&asking.join().unwrap()), "200");
    });
    running.end();
}

#[test]
fn a_full_spool_is_503_with_a_time_to_come_again() {
    let running = start(vec![Vec::new(), Vec::new()]);
    running.played.full.store(true, Ordering::Relaxed);
    let answer = running.post("/open", "", b"{}");
    assert_eq!(status(&answer), "503");
    assert!(answer.contains("retry-after: 30"), "{answer}");
    running.played.full.store(false, Ordering::Relaxed);
    running.played.no_room.store(true, Ordering::Relaxed);
    let id = format!("{TOKEN}x-id: 1\r\n");
    assert_eq!(status(&running.post("/token", &id, b"{}")), "503");
    running.played.no_room.store(false, Ordering::Relaxed);
    running.played.keeps_at_once.store(false, Ordering::Relaxed);
    // Neither kept nor broken: the time is over.
    assert_eq!(status(&running.post("/token", &id, b"{}")), "503");
    // The same is under way.
    assert!(running.post("/token", &id, b"{}").contains("retry-after: 1\r\n"));
    running.played.promises.lock().unwrap().pop().unwrap().keep(Kept::Dropped);
    running.played.keeps_at_once.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    while status(&running.post("/token", &id, b"{}")) != "200" {
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(running.records().len(), 2, "the one that was dropped, and its repetition");
    running.end();
}

#[test]
fn a_delivery_that_is_not_remembered_names_no_event_for_it_may_come_twice_into_a_block() {
    let mut forgetful = endpoints();
    forgetful.iter_mut().for_each(|endpoint| endpoint.remember = 0);
    let running = start_with(forgetful, vec![Vec::new(), Vec::new()]);
    let headers = format!("{TOKEN}x-id: 7\r\n");
    for _ in 0..2 {
        assert_eq!(status(&running.post("/token", &headers, b"{\"a\":1}")), "200");
    }
    let played = running.end();
    let batches = played.batches.lock().unwrap();
    let records: Vec<_> = batches.iter().flat_map(|batch| &batch.records).collect();
    assert_eq!(records.len(), 2);
    assert_ne!(records[0].offset, records[1].offset);
    let is_named = |known: &crate::sources::Known| known.delivery.is_some();
    assert!(!records.iter().any(|record| record.known.as_deref().is_some_and(is_named)));
}

#[test]
fn a_delivery_that_comes_again_is_not_stored_again_also_after_a_restart() {
    let running = start(vec![Vec::new(), Vec::new()]);
    let one = format!("{TOKEN}x-id: one\r\n");
    for _ in 0..3 {
        assert_eq!(status(&running.post("/token", &one, b"[1,2,3]")), "200");
    }
    assert_eq!(status(&running.post("/token", &one, b"[1,2]")), "409");
    assert_eq!(running.records(), ["1", "2", "3"]);
    let played = running.end();
    let batch = played.batches.lock().unwrap().remove(0);
    let mark = batch.marks.last().unwrap();
    assert!(!mark.also_when_dropped);
    let saved = vec![(mark.key.clone(), mark.value.clone().unwrap())];

    let running = start(vec![saved, Vec::new()]);
    assert_eq!(status(&running.post("/token", &one, b"[1,2,3]")), "200");
    assert_eq!(running.records(), [""; 0]);
    running.end();

    // The crash came after the block with the first two.
    let part = batch.records[1].known.as_ref().unwrap().mark.clone().unwrap();
    let running = start(vec![vec![(batch.mark_key, part)], Vec::new()]);
    assert_eq!(status(&running.post("/token", &one, b"[1,2,3]")), "200");
    assert_eq!(running.records(), ["3"]);
    running.end();
}

#[test]
fn two_thousand_broken_requests_make_no_event_and_no_answer_but_4xx() {
    let running = start(vec![Vec::new(), Vec::new()]);
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let words: [&[u8]; 16] = [
        b"POST ",
        b"GET ",
        b"/token ",
        b"/open?x=%zz ",
        b"HTTP/1.1\r\n",
        b"host: x\r\n",
        b"\r\n",
        b"content-length: 5\r\n",
        b"content-length: 99999999999999999999\r\n",
        b"authorization: Bearer hunter3\r\n",
        b"transfer-encoding: chunked\r\n",
        b"content-encoding: gzip\r\n",
        b"x-id: \xff\r\n",
        b"{\"a\":[1,",
        b"5\r\n",
        b"\x00",
    ];
    // A connection at a time: a fifth of them suffices to take seconds, not minutes.
    for round in 0..2_000 {
        let mut request = if round % 2 == 0 {
            b"POST /token HTTP/1.1\r\nconnection: close\r\n".to_vec()
        } else {
            Vec::new()
        };
        for _ in 0..next() % 12 {
            request.extend_from_slice(words[usize::try_from(next() % 16).unwrap()]);
        }
        request.extend_from_slice(b"\r\n\r\n");
        let mut stream = TcpStream::connect(running.address)
            .or_else(|_| {
                std::thread::sleep(Duration::from_millis(200));
                TcpStream::connect(running.address)
            })
            .unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The listener may have hung up already.
        let _ = stream.write_all(&request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.starts_with("HTTP/1.1 5"), "{answer} to {}", request.escape_ascii());
    }
    let of_token =
        running.played.batches.lock().unwrap().iter().filter(|b| b.source.0 == 0).count();
    assert_eq!(of_token, 0, "a forged request made a record");
    running.end();
}
