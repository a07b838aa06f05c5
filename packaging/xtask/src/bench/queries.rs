//! Latencies of the newest 50 events for what people ask: cold (the collector just started, its
//! files not in the page cache where this may drop them) and warm.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use custody_event::Timestamp;

use super::load::Pour;
use crate::collector::{Collector, page};
use crate::generate::{RARE_USER, user_name};
use crate::http::{Client, escape};
use crate::numbers::{millis, percentile};
use crate::out;

const PAGE: u32 = 50;
pub(super) const TARGET_MS: f64 = 100.0;
/// Counts look at every hit, a page does not.
const COUNTS_TARGET_MS: f64 = 500.0;
/// Of the agent whose events come in meanwhile.
const POUR_SEED: u64 = 424_242;
/// How the names of questions begin that count.
const COUNTS: &str = "counts, ";

/// One kind of question; the run's number varies what is asked for.
struct Question {
    name: &'static str,
    ask: fn(u64, Timestamp) -> String,
}

fn search(line: &str) -> String {
    format!("/v1/events?limit={PAGE}&q={}", escape(line))
}

const QUESTIONS: &[Question] = &[
    Question { name: "no filter", ask: |_, _| format!("/v1/events?limit={PAGE}") },
    Question { name: "user, frequent", ask: |run, _| search(&format!("actor:{}", user_name(run))) },
    Question {
        name: "user, seldom",
        ask: |run, _| search(&format!("actor:{}", user_name(1_990 - run))),
    },
    Question { name: "action wildcard", ask: |_, _| search("action:authentication.*") },
    Question { name: "outcome", ask: |_, _| search("outcome:failure") },
    Question { name: "network", ask: |run, _| search(&format!("ip:10.{}.0.0/16", run % 40)) },
    Question { name: "rare word", ask: |_, _| search(RARE_USER) },
    Question { name: "common word", ask: |_, _| search("password") },
    Question { name: "absent word", ask: |run, _| search(&format!("nosuchword{run}")) },
    Question {
        name: "user and outcome",
        ask: |run, _| search(&format!("actor:{} outcome:denied", user_name(200 + run))),
    },
    Question { name: "IPv6 network", ask: |_, _| search("ip:2001:db8::/32") },
    Question { name: "severity", ask: |_, _| search("severity:>=high") },
    Question {
        name: "category and not",
        ask: |_, _| search("category:authentication -outcome:failure"),
    },
    Question { name: "target", ask: |run, _| search(&format!("target:{}*", run % 10)) },
    Question { name: "host and service", ask: |_, _| search("host:web* service:sshd") },
    Question { name: "prefix", ask: |_, _| search("pass*") },
    Question { name: "absent detail", ask: |run, _| search(&format!("details.nothing:{run}")) },
    Question { name: "counts, facets", ask: |_, _| stats("group_by=action,outcome,category,host") },
    Question { name: "counts, histogram", ask: |_, _| stats("interval=1d&q=outcome:failure") },
    Question { name: "counts, by user", ask: |_, _| stats("group_by=actor&interval=1h") },
    Question {
        name: "counts, suggestion",
        ask: |_, _| "/v1/suggest?field=actor&prefix=a".to_owned(),
    },
    Question { name: "outcome, none such", ask: |_, _| search("outcome:pending") },
    Question { name: "role, none such", ask: |_, _| search("role:admin") },
    Question { name: "tag, none such", ask: |_, _| search("tag:weekly") },
    Question { name: "tenant", ask: |_, _| search("tenant:default") },
    Question {
        name: "session, by its beginning",
        ask: |run, _| search(&format!("session:{run:02x}*")),
    },
    Question { name: "detail", ask: |_, _| search("details.status:404") },
    Question {
        name: "facets of one user",
        ask: |run, _| stats(&format!("group_by=action,outcome,host&q=actor:{}", user_name(run))),
    },
    Question {
        name: "counts, facets of a part",
        ask: |_, _| stats("group_by=actor,action,service&q=outcome:failure"),
    },
    Question { name: "phrase", ask: |_, _| search("\"invalid user webmaster\"") },
    Question {
        name: "time range",
        ask: |run, now| {
            let hours = |ago: i64| now.plus_micros(-ago * 3_600_000_000);
            let run = i64::try_from(run).unwrap_or(0);
            let (from, to) = (hours(30 + 6 * run), hours(24 + 6 * run));
            format!(
                "/v1/events?limit={PAGE}&from={}&to={}",
                escape(&from.to_string()),
                escape(&to.to_string())
            )
        },
    },
];

fn stats(rest: &str) -> String {
    format!("/v1/stats?period=30d&{rest}")
}

/// Figures of one question.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) name: &'static str,
    pub(super) cold_ms: Vec<f64>,
    pub(super) warm_ms: Vec<f64>,
    /// Events of the last page.
    pub(super) found: usize,
}

impl Answered {
    pub(super) fn cells(&self) -> Vec<String> {
        let at = |values: &[f64], percent| {
            percentile(values, percent).map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1}"))
        };
        vec![
            self.name.to_owned(),
            at(&self.warm_ms, 50),
            at(&self.warm_ms, 99),
            at(&self.cold_ms, 50),
            at(&self.cold_ms, 99),
            self.found.to_string(),
            if self.is_fast() { "met" } else { "MISSED" }.to_owned(),
        ]
    }

    /// Under the target (pages 100 ms, counts over 30 days 500 ms), warm, in 99 of 100.
    pub(super) fn is_fast(&self) -> bool {
        let target = if self.name.starts_with(COUNTS) { COUNTS_TARGET_MS } else { TARGET_MS };
        percentile(&self.warm_ms, 99).is_some_and(|ms| ms <= target)
    }
}

/// How often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) cold: u64,
    pub(super) warm: u64,
    /// Events a second that come in meanwhile.
    pub(super) pour: u64,
}

/// Asks everything; the warm questions while `counts.pour` events a second come in, if it is not 0: gives the rate
/// that it was in fact. The collector is started anew for every round of cold questions.
pub(super) fn measure(
    program: &Path,
    data: &Path,
    log: &Path,
    counts: Counts,
    now: Timestamp,
) -> anyhow::Result<(Vec<Answered>, f64)> {
    let mut all: Vec<Answered> = QUESTIONS
        .iter()
        .map(|question| Answered {
            name: question.name,
            cold_ms: Vec::new(),
            warm_ms: Vec::new(),
            found: 0,
        })
        .collect();
    for run in 0..counts.cold {
        for (question, answered) in QUESTIONS.iter().zip(&mut all) {
            drop_page_cache();
            let collector = Collector::start(program, data, &[], log)?;
            let (ms, _) = ask(&mut collector.admin()?, &(question.ask)(run, now))?;
            answered.cold_ms.push(ms);
            collector.daemon.stop(Duration::from_secs(60))?;
        }
    }
    let collector = Collector::start(program, data, &[], log)?;
    let mut client = collector.admin()?;
    let pour = match counts.pour {
        0 => None,
        rate => Some(Pour::start(&collector, POUR_SEED, rate)?),
    };
    for (question, answered) in QUESTIONS.iter().zip(&mut all) {
        ask(&mut client, &(question.ask)(0, now))?;
        for run in 0..counts.warm {
            let (ms, found) = ask(&mut client, &(question.ask)(run, now))?;
            answered.warm_ms.push(ms);
            answered.found = found;
        }
    }
    let rate = pour.map_or(Ok(0.0), Pour::stop)?;
    collector.daemon.stop(Duration::from_secs(60))?;
    Ok((all, rate))
}

fn ask(client: &mut Client, path: &str) -> anyhow::Result<(f64, usize)> {
    let begun = Instant::now();
    let page = page(client, path).with_context(|| path.to_owned())?;
    Ok((millis(begun.elapsed()), page.events.len()))
}

/// Needs root; without it "cold" means a fresh process only.
fn drop_page_cache() {
    rustix::fs::sync();
    if std::fs::write("/proc/sys/vm/drop_caches", "3").is_err() {
        out::warn("the page cache cannot be dropped (not root): cold means a fresh process only");
    }
}
