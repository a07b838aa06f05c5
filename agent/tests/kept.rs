//! What the real agent keeps: no secret, every audit event once, nothing that was forged.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "this is test code throughout")]

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use custody_event::Block;
use serde_json::Value;
use support::{Agent, stored, until};

fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Secrets, each in lines as programs write them. None is a part of another text here.
const SECRETS: &[&str] = &[
    "4929123456781236",
    "4929 1234 5678 1236",
    "hunter2zebra",
    "correct-horse-77",
    "wJalrXUtnFEMIzebra77",
    "ghpzebra0123456789abcdefgh",
    "MIIEvQzebraIBADANBgkqhkiG9w0BAQEFAASC",
    "zebraTOKEN0123456789",
    "eyJzdWIiOiJ6ZWJyYSJ9",
    "zebra.person@example.org",
    "badge-778899",
];

fn lines() -> Vec<u8> {
    let mut text = String::new();
    for line in [
        r#"{"event":"pay","card":"4929123456781236","who":"zebra.person@example.org"}"#,
        r#"{"event":"pay","card":4929123456781236,"note":"again 4929 1234 5678 1236"}"#,
        r#"{"event":"login","user":"zebra.person@example.org","password":"hunter2zebra"}"#,
        r#"{"event":"dsn","dsn":"postgres://app:correct-horse-77@db/x"}"#,
        r#"{"event":"nested","body":"{\"client_secret\":\"wJalrXUtnFEMIzebra77\"}"}"#,
        r#"{"event":"escaped","body":"\u0070assword=\u0068unter2zebra"}"#,
        r#"{"event":"key","pem":"-----BEGIN PRIVATE KEY-----\nMIIEvQzebraIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----"}"#,
        "Jan  5 23:11:47 web1 app[7]: Authorization: Bearer zebraTOKEN0123456789 by zebra.person@example.org",
        "no rule knows this: push with ghp_ghpzebra0123456789abcdefgh",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ6ZWJyYSJ9.c2lnbmF0dXJl badge-778899",
        "type=PROCTITLE msg=audit(1700000000.000:1): proctitle=6D7973716C002D2D70617373776F72643D68756E746572327A65627261",
        "2024-03-01 Failed password for zebra.person@example.org from 192.0.2.9 port 22 ssh2",
    ] {
        text.push_str(line);
        text.push('\n');
    }
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(b"\xff\xfe odd bytes password=hunter2zebra 4929123456781236 \xff\n");
    bytes
}

/// Every form in which a secret could stand in a file.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let hex = |upper: bool| -> Vec<u8> {
        let digits = secret.bytes().map(|byte| format!("{byte:02x}"));
        let text: String = digits.collect();
        if upper { text.to_uppercase().into_bytes() } else { text.into_bytes() }
    };
    let mut base64 = Vec::new();
    custody_event::json::push_base64(secret.as_bytes(), &mut base64);
    base64.truncate(secret.len() / 3 * 4);
    vec![secret.as_bytes().to_vec(), hex(false), hex(true), base64]
}

fn expect_none(what: &str, bytes: &[u8]) {
    for secret in SECRETS {
        for form in forms(secret) {
            let found = memchr::memmem::find(bytes, &form);
            assert!(found.is_none(), "{what} holds {secret} at {found:?}");
        }
    }
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, out) } else { out.push(path) }
    }
}

/// A collector that will never take a body.
fn refusing(stop: Arc<AtomicBool>, seen: Arc<Mutex<Vec<u8>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let Ok(stream) = stream else { continue };
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || refuse(stream, &seen));
        }
    });
    address
}

fn refuse(mut stream: TcpStream, seen: &Mutex<Vec<u8>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let lower = line.to_ascii_lowercase();
            if let Some(text) = lower.strip_prefix("content-length:") {
                length = text.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        seen.lock().unwrap().extend_from_slice(&body);
        let answer =
            "HTTP/1.1 422 No\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The events of every block and dead letter in the spool.
fn spooled(agent: &Agent) -> Vec<Vec<u8>> {
    let mut spool = custody_agent::spool::inspect(
        &agent.path("data/spool"),
        custody_agent::spool::trailing_crc,
    )
    .unwrap();
    let mut blocks = Vec::new();
    for entry in spool.blocks().unwrap() {
        blocks.extend(spool.read(entry.seq).unwrap());
    }
    for letter in spool.dead_letters().unwrap() {
        blocks.extend(spool.read_dead_letter(letter.id).unwrap());
    }
    let mut events = Vec::new();
    for bytes in blocks {
        let block = Block::decode(&bytes).unwrap();
        let opened = block.open().unwrap();
        events.extend(opened.events().map(|(_, event)| event.to_vec()));
    }
    events
}

#[test]
fn no_secret_reaches_spool_dead_letters_log_metrics_or_socket() {
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let collector = refusing(Arc::clone(&stop), Arc::clone(&sent));
    let (hooks, syslog, metrics) = (free_tcp(), free_tcp(), free_tcp());
    let redact = "redact: [{ fields: [actor.name, details.who], action: pseudonym }, { name: badge, regex: 'badge-(?<secret>[0-9]+)', action: remove }, { name: mail, regex: '[a-z.]+@example\\.org', action: pseudonym }]";
    let mut agent = Agent::new(&format!(
        "webhook: {{ listen: '{hooks}' }}\npseudonym_key_file: {{dir}}/pseudonym.key\nsources:\n  \
         - {{ id: app, type: file, paths: ['{{dir}}/app.log'], {redact} }}\n  \
         - {{ id: audit, type: file, paths: ['{{dir}}/audit.log'], packs: [auditd], join: auditd, {redact} }}\n  \
         - {{ id: net, type: syslog, listen: '{syslog}', {redact} }}\n  \
         - {{ id: hook, type: webhook, path: /x, verify: {{ scheme: none }}, {redact} }}\n"
    ));
    let config = std::fs::read_to_string(agent.path("agent.yaml")).unwrap();
    let config = config
        .replace("http://127.0.0.1:9", &format!("http://{collector}"))
        .replace("admin.sock }", &format!("admin.sock, metrics: '{metrics}' }}"));
    agent.write("agent.yaml", &config);
    agent.write("pseudonym.key", "a key of more than sixteen bytes");
    std::fs::write(agent.path("app.log"), lines()).unwrap();
    std::fs::write(agent.path("audit.log"), lines()).unwrap();
    agent.start();
    agent.wait("app", "all lines", |source| stored(source) >= 13);
    agent.wait("audit", "all lines", |source| stored(source) >= 13);
    let mut stream = until("syslog", || TcpStream::connect(syslog).ok());
    stream.write_all(&lines()).unwrap();
    drop(stream);
    agent.wait("net", "all messages", |source| stored(source) >= 13);
    for line in lines().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut stream = until("webhooks", || TcpStream::connect(hooks).ok());
        let head = format!(
            "POST /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            line.len()
        );
        stream.write_all(&[head.as_bytes(), line].concat()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    let status = agent.command(&["status", "--json"]).output().unwrap().stdout;
    let dead = until("a dead letter", || {
        let said = agent.command(&["status", "--json"]).output().ok()?;
        let status: Value = serde_json::from_slice(&said.stdout).ok()?;
        (status["spool"]["dead_letters"].as_u64()? > 0).then_some(said.stdout)
    });
    let mut shown = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(metrics) {
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let _closed = stream.read_to_end(&mut shown);
    }
    agent.kill();
    stop.store(true, Ordering::Relaxed);

    for (what, bytes) in [("the status", &status), ("the status", &dead), ("metrics", &shown)] {
        expect_none(what, bytes);
    }
    expect_none("what was sent", &sent.lock().unwrap());
    let events = spooled(&agent);
    let of = |input: &str| {
        let wanted = format!("\"input\":\"{input}\"");
        events
            .iter()
            .filter(|event| memchr::memmem::find(event, wanted.as_bytes()).is_some())
            .count()
    };
    for input in ["app", "audit", "net", "hook"] {
        assert!(of(input) >= 13, "{input}: {}", of(input));
    }
    for event in &events {
        expect_none(&String::from_utf8_lossy(event), event);
    }
    let mut found = Vec::new();
    files(&agent.path("data"), &mut found);
    found.push(agent.path("stderr"));
    assert!(found.len() > 3);
    for path in found {
        expect_none(&path.display().to_string(), &std::fs::read(&path).unwrap());
    }
    let app = agent.path("app.log").display().to_string();
    for words in [&["preview"][..], &["preview", "--json"], &["coverage"], &["draft"]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_custody-agent"));
        let said = command.args(words).arg(&app).output().unwrap();
        // Pseudonyms and patterns of one's own are of a configuration, which these do not read.
        let shown = [said.stdout, said.stderr].concat();
        for secret in
            SECRETS.iter().filter(|secret| !secret.contains('@') && !secret.contains("badge"))
        {
            let found = memchr::memmem::find(&shown, secret.as_bytes());
            assert!(
                found.is_none(),
                "{words:?} shows {secret}: {}",
                String::from_utf8_lossy(&shown)
            );
        }
    }
}

/// Lines of audit.log: events of several records, mixed in pairs, some without an end.
fn audit_lines(events: u64) -> Vec<String> {
    let mut lines = Vec::new();
    let records = |serial: u64| -> Vec<String> {
        let stamp = format!("msg=audit({}.000:{serial})", 1_700_000_000 + serial / 50);
        let mut records = vec![
            format!(
                "type=SYSCALL {stamp}: arch=c000003e syscall=59 success=yes exit=0 items=1 pid={serial} auid=1000 uid=0 ses=3 comm=\"id\" exe=\"/usr/bin/id\" key=(null)"
            ),
            format!("type=EXECVE {stamp}: argc=1 a0=\"id\""),
            format!(
                "type=PATH {stamp}: item=0 name=\"/usr/bin/id\" inode={serial} nametype=NORMAL"
            ),
        ];
        if !serial.is_multiple_of(7) {
            records.push(format!("type=PROCTITLE {stamp}: proctitle=\"id\""));
        }
        records
    };
    let mut serial = 0;
    while serial < events {
        let one = records(serial);
        if serial.is_multiple_of(3) && serial + 1 < events {
            let other = records(serial + 1);
            for at in 0..one.len().max(other.len()) {
                lines.extend(one.get(at).cloned());
                lines.extend(other.get(at).cloned());
            }
            serial += 2;
        } else {
            lines.extend(one);
            serial += 1;
        }
        if serial.is_multiple_of(5) {
            lines.push(format!("type=USER_ACCT msg=audit({}.000:{}): pid=1 uid=0 auid=1000 ses=3 msg='op=PAM:accounting acct=\"eva\" exe=\"/usr/sbin/cron\" hostname=? addr=? terminal=cron res=success'", 1_700_000_000 + serial / 50, 1_000_000 + serial));
        }
    }
    lines
}

#[test]
fn every_audit_event_is_joined_once_however_often_the_agent_is_killed() {
    let mut agent = Agent::new(
        "sources:\n  - { id: audit, type: file, paths: ['{dir}/audit.log'], packs: [auditd], join: auditd, join_timeout: 500ms }\n",
    );
    let lines = audit_lines(3_000);
    let path = agent.path("audit.log");
    let mut file = File::create(&path).unwrap();
    // Pieces that end within lines and within events; a kill -9 behind each.
    let text = lines.join("\n") + "\n";
    let mut at = 0;
    let mut piece = 7_000;
    while at < text.len() {
        let end = (at + piece).min(text.len());
        agent.start();
        let before = agent.source("audit").map_or(0, |source| stored(&source));
        file.write_all(&text.as_bytes()[at..end]).unwrap();
        (at, piece) = (end, piece + 13_331);
        agent.wait("audit", "something", |source| stored(source) > before);
        agent.kill();
    }
    agent.start();
    let singles = lines.iter().filter(|line| line.contains("USER_ACCT")).count();
    let count = u64::try_from(singles).unwrap() + 3_000;
    agent.wait("audit", "all events", |source| stored(source) >= count);
    agent.wait("audit", "the end", |source| source["behind_bytes"] == 0);
    agent.stop();
    let mut events = agent.all_events();
    events.retain(|event| event["origin"]["input"] == "audit");
    let mut ids = BTreeSet::new();
    let mut serials = BTreeSet::new();
    let mut raw_lines = Vec::new();
    for event in &events {
        assert!(ids.insert(event["id"].as_str().unwrap().to_owned()), "twice: {event}");
        raw_lines.extend(event["origin"]["raw"].as_str().unwrap().lines().map(str::to_owned));
        if event["action"] == "process.execute" {
            let serial = event["details"]["serial"].as_str().unwrap();
            let ends = serial.parse::<u64>().unwrap().is_multiple_of(7);
            let records =
                if ends { "SYSCALL EXECVE PATH" } else { "SYSCALL EXECVE PATH PROCTITLE" };
            // A kill may have met an event that has no end while it was waited for.
            if !ends {
                assert_eq!(event["details"]["records"], records, "{event}");
                assert!(serials.insert(serial.to_owned()));
            }
        }
    }
    let mut wanted = lines.clone();
    wanted.sort_unstable();
    raw_lines.sort_unstable();
    assert_eq!(raw_lines, wanted, "every record is in one event");
    assert_eq!(serials.len(), 3_000 - 3_000_usize.div_ceil(7));
}

/// Small random numbers; the seed is in the name of what fails.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.next(of.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.next(most)).map(|_| u8::try_from(self.next(256)).unwrap()).collect()
    }
}

/// Requests that anybody may send: none of them carries a good signature.
const REQUESTS: usize = 10_000;

#[test]
fn ten_thousand_odd_and_forged_requests_are_refused_and_leave_no_event() {
    let listen = free_tcp();
    let paths = ["github", "stripe", "slack", "standard", "basic", "bearer", "hmac"];
    let schemes = ["github", "stripe", "slack", "standard_webhooks", "basic", "bearer", "hmac"];
    let mut sources = String::new();
    for (path, scheme) in paths.iter().zip(schemes) {
        let header = if scheme == "hmac" { ", header: x-signature" } else { "" };
        sources.push_str(&format!(
            "  - {{ id: {path}, type: webhook, path: /{path}, verify: {{ scheme: {scheme}, secret_files: ['{{dir}}/hook.secret']{header} }} }}\n"
        ));
    }
    let mut agent = Agent::new(&format!("webhook: {{ listen: '{listen}' }}\nsources:\n{sources}"));
    agent.write("hook.secret", "whsec_bm9ib2R5LWtub3dzLXRoaXM6YXQtYWxs");
    agent.start();
    let mut stream = until("webhooks", || TcpStream::connect(listen).ok());
    let seed = std::env::var("CUSTODY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    let mut dice = Dice(seed);
    let mut kinds = BTreeSet::new();
    for number in 0..REQUESTS {
        let (request, is_head) = odd_request(&mut dice, &paths);
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let sent = stream.write_all(&request);
        let answer = sent.ok().and_then(|()| answer(&mut stream, is_head));
        let Some((status, closes)) = answer else {
            // It was cut off: what was sent was no HTTP.
            stream = until("webhooks", || TcpStream::connect(listen).ok());
            continue;
        };
        kinds.insert(status);
        let shown = String::from_utf8_lossy(&request);
        assert!(status < 500 || status == 503, "seed {seed}, {number}: {status} to {shown}");
        assert!(!(200..300).contains(&status), "seed {seed}, {number}: {status} to {shown}");
        if closes {
            stream = until("webhooks", || TcpStream::connect(listen).ok());
        }
    }
    assert!(kinds.contains(&401) && kinds.contains(&404), "{kinds:?}");
    agent.stop();
    assert!(!agent.said().contains("panicked"), "{}", agent.said());
    let events = agent.all_events();
    let forged = events.iter().filter(|event| event["origin"]["input"] != "custody").count();
    assert_eq!(forged, 0, "seed {seed}");
    assert!(events.iter().any(|event| event["action"] == "source.refuse"));
}

/// The request, and whether its answer has no body.
fn odd_request(dice: &mut Dice, paths: &[&str]) -> (Vec<u8>, bool) {
    let method =
        dice.one(&["POST", "POST", "POST", "POST", "GET", "PUT", "HEAD", "BREW", "OPTIONS"]);
    let path = match dice.next(8) {
        0 => format!(
            "/{}",
            dice.one(&["", "nobody", "github/", "%67ithub", "github?x=%00", "../github"])
        ),
        _ => format!("/{}", dice.one(paths)),
    };
    let body = match dice.next(6) {
        0 => dice.bytes(600),
        1 => b"{\"action\":\"created\",\"id\":\"evt_1\"}".to_vec(),
        2 => b"[[[[[[[[[[[[[[[[[[".to_vec(),
        3 => b"payload=%7B%22a%22%3A1%7D&x=%zz".to_vec(),
        4 => Vec::new(),
        _ => format!("{{\"type\":\"url_verification\",\"challenge\":\"c{}\"}}", dice.next(9))
            .into_bytes(),
    };
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n");
    for _ in 0..dice.next(6) {
        let name = dice.one(&[
            "x-hub-signature-256",
            "x-github-delivery",
            "stripe-signature",
            "x-slack-signature",
            "x-slack-request-timestamp",
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
            "authorization",
            "x-signature",
            "content-encoding",
            "content-type",
            "expect",
            "cookie",
        ]);
        let value = match dice.next(7) {
            0 => format!("sha256={:064x}", dice.next(1 << 30)),
            1 => format!("t={},v1={:064x}", 1_700_000_000 + dice.next(1 << 28), dice.next(1 << 30)),
            2 => format!("v1,{}", "A".repeat(44)),
            3 => "Basic Og==".to_owned(),
            4 => dice
                .one(&["gzip", "application/json", "100-continue", "", "Bearer", "v0=", "identity"])
                .to_owned(),
            5 => format!("{}", dice.next(usize::MAX >> 1)),
            _ => "x".repeat(dice.next(300)),
        };
        // A body that is waited for would only test patience.
        if name != "expect" {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    let mut end: &[u8] = b"";
    match dice.next(30) {
        0 => head.push_str("content-length: zwei\r\n"),
        1 => {
            head.push_str("transfer-encoding: chunked\r\n");
            end = b"\r\n0\r\n\r\n";
        }
        _ => head.push_str(&format!("content-length: {}\r\n", body.len())),
    }
    ([head.as_bytes(), b"\r\n", &body, end].concat(), method == "HEAD")
}

/// The answer's status, and whether the connection ends with it.
fn answer(stream: &mut TcpStream, is_head: bool) -> Option<(u16, bool)> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let status: u16 = line.split(' ').nth(1)?.parse().ok()?;
    let (mut length, mut closes) = (0, false);
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return Some((status, true));
        }
        let lower = line.to_ascii_lowercase();
        if let Some(text) = lower.strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
        closes |= lower.starts_with("connection: close");
        if line == "\r\n" {
            break;
        }
    }
    if length > 0 && !is_head {
        let mut body = vec![0; length];
        closes |= reader.read_exact(&mut body).is_err();
    }
    Some((status, closes))
}

#[test]
fn a_reload_while_the_spool_is_full_waits_for_room_and_does_not_end_the_agent() {
    let mut agent = Agent::new(
        "spool: { max_bytes: 4MiB, free_space_floor: 0 }\n\
         sources:\n  - { id: app, type: file, paths: ['{dir}/app.log'], start: beginning, packs: auto }\n",
    );
    let mut noise = vec![0; 6 << 20];
    getrandom::fill(&mut noise).unwrap();
    let mut log = File::create(agent.path("app.log")).unwrap();
    for line in noise.chunks(4_096) {
        let text: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(log, "{text}").unwrap();
    }
    agent.start();
    let waiting = |agent: &Agent| agent.status().filter(|it| it["spool"]["waiting"].is_string());
    until("a full spool", || waiting(&agent));
    agent.signal(rustix::process::Signal::HUP);
    until("the reload that waits", || {
        waiting(&agent).filter(|status| {
            let trouble = status["config_trouble"].as_str().unwrap_or_default();
            trouble.contains("the spool takes nothing now")
        })
    });
    agent.kill();
}

#[test]
fn a_check_names_a_file_that_two_sources_read() {
    let agent = Agent::new(
        "sources:\n  - { id: one, type: file, paths: ['{dir}/auth.log'], packs: auto }\n  \
         - { id: all, type: file, paths: ['{dir}/*.log'], packs: auto }\n",
    );
    agent.write("auth.log", "a line\n");
    agent.write("other.log", "a line\n");
    let said = agent.command(&["check"]).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.success(), "{text}");
    assert!(text.contains("auth.log is read by the sources one and all"), "{text}");
    assert!(!text.contains("other.log"), "{text}");
}
