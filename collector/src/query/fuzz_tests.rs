//! Random questions to the whole API: grammar, slips of the hand, and bytes. None may end in a 500
//! or a panic, or take long; every refusal says what is wrong and where.
//!
//! `CUSTODY_FUZZ=10000` asks for more, `CUSTODY_SEED=7` for others; a failure prints the question.

use std::time::{Duration, Instant};

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;

use super::keys;
use super::testbed::{App, encoded};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn one<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

const VALUES: &[&str] = &[
    "jane.doe@company.com",
    "admin*",
    "*",
    "**",
    "a*b*c",
    "\"two words\"",
    "\"",
    "\\",
    "203.0.113.0/24",
    "::/0",
    "1.2.3.4/99",
    ">=high",
    ">1000",
    "1..5",
    "..",
    "99999999999999999999",
    "-1",
    "24h",
    "now",
    "2025-01-31",
    "2025-13-45",
    "@9999999999999999",
    "Europe/Berlin",
    "管理",
    "contact:12345",
    "",
    "failure",
    "failed",
    "(a OR b)",
    "(a,b",
    "a,b,,c",
    "9999999d",
    "\u{0}",
    "é\u{301}",
    ".*",
    "[a-",
    "1s",
    "0s",
    "💥",
    "true",
    "a:b:c",
    "  ",
    "5eed0000000000000000000000000001",
    "1.1.1.1.1",
    "1.9223372036854775807.18446744073709551615.1.4294967295",
];
const PIECES: &[&str] = &[
    " ",
    " ",
    " ",
    " OR ",
    " AND ",
    " NOT ",
    "-",
    "(",
    ")",
    "((",
    "\"",
    ",",
    "*",
    ":",
    "word",
    "pre*",
    "\"a phrase\"",
];
const PATHS: &[&str] = &[
    "/v1/events",
    "/v1/events",
    "/v1/events",
    "/v1/stats",
    "/v1/suggest",
    "/v1/timeline",
    "/v1/history",
    "/v1/access",
];
const PARAMS: &[&str] = &[
    "q",
    "limit",
    "cursor",
    "order",
    "budget_ms",
    "group_by",
    "interval",
    "field",
    "prefix",
    "target",
    "user",
    "at",
    "from",
    "to",
    "period",
    "tz",
    "-actor",
    "-ip",
    "details.x",
    "details.",
    "nonsense",
    "",
];

fn key(random: &mut Random) -> &'static str {
    let names: Vec<&str> =
        keys::all().chain(keys::TIMES.iter().copied()).map(|(name, _)| name).collect();
    random.one(&names)
}

fn noise(random: &mut Random) -> Vec<u8> {
    let len = random.below(40);
    (0..len).map(|_| u8::try_from(random.next() & 0xff).unwrap()).collect()
}

fn line(random: &mut Random) -> Vec<u8> {
    let mut line = Vec::new();
    for _ in 0..=random.below(8) {
        match random.below(10) {
            0..=4 => {
                line.extend_from_slice(key(random).as_bytes());
                line.push(b':');
                line.extend_from_slice(random.one(VALUES).as_bytes());
                line.push(b' ');
            }
            5..=8 => line.extend_from_slice(random.one(PIECES).as_bytes()),
            _ => line.extend(noise(random)),
        }
    }
    line
}

fn question(random: &mut Random) -> String {
    let mut path = random.one(PATHS).to_owned();
    let mut sign = '?';
    for _ in 0..=random.below(4) {
        let name = match random.below(3) {
            0 => key(random),
            _ => random.one(PARAMS),
        };
        let value = match random.below(6) {
            0 => line(random),
            1 => noise(random),
            2 => key(random).as_bytes().to_vec(),
            _ => random.one(VALUES).as_bytes().to_vec(),
        };
        let value = if name == "q" { line(random) } else { value };
        path.push_str(&format!("{sign}{}={}", encoded(name.as_bytes()), encoded(&value)));
        sign = '&';
    }
    path
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[tokio::test]
async fn no_question_breaks_the_api() {
    let app = App::new();
    let mut random = Random(number("CUSTODY_SEED", 20_251_012) | 1);
    let (mut good, mut refused) = (0_u64, 0_u64);
    for _ in 0..number("CUSTODY_FUZZ", 2_000) {
        let path = question(&mut random);
        let request = Request::get(&path).header("authorization", "Bearer good");
        let begun = Instant::now();
        let response = app.send(request.body(Body::empty()).unwrap()).await;
        let status = response.status();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(begun.elapsed() < Duration::from_secs(5), "{path}: took {:?}", begun.elapsed());
        let text = String::from_utf8_lossy(&bytes);
        assert!(status.is_success() || status.as_u16() == 400, "{path}: {status} {text}");
        assert!(bytes.len() < 4 << 20, "{path}: an answer of {} bytes", bytes.len());
        if status.is_success() {
            good += 1;
        } else if kind == "application/problem+json" {
            refused += 1;
            let problem: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert!(problem["parameter"].is_string(), "{path}: {text}");
            assert!(
                problem["detail"].as_str().is_some_and(|said| !said.is_empty()),
                "{path}: {text}"
            );
        }
    }
    assert!(good > 100 && refused > 100, "a fuzz that reaches both sides: {good} {refused}");
}
