//! How long a line takes from its append to the collector's disk, and until search finds it.
//!
//! *Durable*: a relay between agent and collector notes when the collector's 200 for a block comes
//! by, and which lines the block holds. The relay adds its own little time to every figure; none
//! is subtracted. *Searchable*: the newest matching events are asked for again and again, and each
//! line counts from the first answer that holds it.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use custody_event::{Block, EventView};

use super::sheet::{Sheet, Target};
use crate::agent::Settings;
use crate::collector::{Collector, newest};
use crate::demo::syslog_time;
use crate::http::{Client, Handler, Response, Server};
use crate::numbers::{millis, percentile};
use crate::shell::{self, Programs};

const EVERY: Duration = Duration::from_millis(20);
/// After the last line.
const LIMIT: Duration = Duration::from_secs(60);
/// Newest events asked for at once: more lines than one commit of the index holds at this pace.
const PAGE: u32 = 500;

/// Milliseconds of each line.
#[derive(Debug)]
pub(super) struct Latencies(Vec<f64>);

impl Latencies {
    /// p50 and p99 into the sheet; the target is for p99.
    pub(super) fn note(&self, sheet: &mut Sheet, name: &str, p99_target_ms: f64) {
        let at = |percent| percentile(&self.0, percent).unwrap_or(f64::NAN);
        sheet.add(&format!("{name}, p50"), "ms", at(50));
        sheet.add_for(&format!("{name}, p99"), "ms", at(99), Target::AtMost(p99_target_ms));
        sheet.add(&format!("{name}, worst"), "ms", at(100));
    }

    pub(super) fn between(
        appended: &[Instant],
        arrived: &BTreeMap<usize, Instant>,
    ) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        for (number, begun) in appended.iter().enumerate() {
            let arrived =
                arrived.get(&number).with_context(|| format!("line {number} never arrived"))?;
            all.push(millis(arrived.saturating_duration_since(*begun)));
        }
        Ok(Self(all))
    }
}

pub(super) fn user(number: usize) -> String {
    format!("lat{number:06}")
}

fn number_of(user: &str) -> Option<usize> {
    user.strip_prefix("lat")?.parse().ok()
}

/// Appends a line every 20 ms; when each was appended.
fn append(log: &Path, lines: u32) -> anyhow::Result<Vec<Instant>> {
    let mut file = std::fs::File::options().append(true).open(log)?;
    let begun = Instant::now();
    let mut appended = Vec::new();
    for number in 0..lines {
        if let Some(wait) = (begun + EVERY * number).checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let line = line(&user(usize::try_from(number)?));
        appended.push(Instant::now());
        file.write_all(line.as_bytes())?;
    }
    Ok(appended)
}

pub(super) fn line(user: &str) -> String {
    let stamp = syslog_time(shell::now());
    format!("{stamp} web1 sshd[77]: Failed password for {user} from 192.0.2.1 port 4022 ssh2\n")
}

/// A folder with an empty log, and a collector.
fn prepare(programs: &Programs, place: &Path, args: &[&str]) -> anyhow::Result<Collector> {
    std::fs::create_dir(place)?;
    std::fs::write(place.join("auth.log"), line("warmup"))?;
    Collector::start(
        &programs.collector,
        &place.join("collector-data"),
        args,
        &place.join("collector.log"),
    )
}

/// Starts the agent towards `address` and waits until its first line is acknowledged.
fn start_agent(
    programs: &Programs,
    place: &Path,
    address: SocketAddr,
    collector: &Collector,
) -> anyhow::Result<crate::agent::Agent> {
    let mut settings =
        Settings::under(place, &place.join("auth.log"), address, &collector.enroll_token_file());
    settings.packs = "[sshd]".to_owned();
    let mut agent =
        settings.start(&programs.agent, &place.join("agent.yaml"), &place.join("agent.log"))?;
    let waited =
        shell::wait_for("the first line is acknowledged", LIMIT, Duration::from_millis(20), || {
            Ok(agent.status()?.filter(|status| status.all_acknowledged(1)))
        });
    waited.with_context(|| agent.daemon.log_end())?;
    Ok(agent)
}

/// Blocks that came by, with the time of the collector's 200.
pub(super) type Passed = Arc<Mutex<Vec<(Instant, Vec<u8>)>>>;

/// Append → acknowledged, with a collector that does not index.
pub(super) fn durable(programs: &Programs, place: &Path, lines: u32) -> anyhow::Result<Latencies> {
    let collector = prepare(programs, place, &["--index", "none"])?;
    let passed: Passed = Arc::default();
    let relay = relay(collector.address, &passed)?;
    let mut agent = start_agent(programs, place, relay.address, &collector)?;
    let appended = append(&place.join("auth.log"), lines)?;
    shell::wait_for("all lines are acknowledged", LIMIT, Duration::from_millis(20), || {
        Ok(agent.status()?.filter(|status| status.all_acknowledged(u64::from(lines) + 1)))
    })?;
    agent.daemon.stop(Duration::from_secs(30))?;
    collector.daemon.stop(Duration::from_secs(30))?;
    Latencies::between(&appended, &arrivals(&passed)?)
}

/// When each of our lines was acknowledged first.
pub(super) fn arrivals(passed: &Passed) -> anyhow::Result<BTreeMap<usize, Instant>> {
    let passed = std::mem::take(&mut *passed.lock().unwrap_or_else(PoisonError::into_inner));
    let mut arrived = BTreeMap::new();
    for (at, bytes) in passed {
        for number in numbers_in(&bytes)? {
            arrived.entry(number).or_insert(at);
        }
    }
    Ok(arrived)
}

pub(super) fn relay(collector: SocketAddr, passed: &Passed) -> anyhow::Result<Server> {
    let passed = Arc::clone(passed);
    let server = Server::start(Arc::new(move || -> Handler {
        let client = Mutex::new(Client::new(collector, None));
        let passed = Arc::clone(&passed);
        Arc::new(move |request| {
            let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
            client.set_token(request.token);
            match client.send(&request.method, &request.path, &request.content_type, &request.body)
            {
                Ok(answer) => {
                    if answer.status == 200 && request.path.contains("/blocks/") {
                        let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
                        passed.push((Instant::now(), request.body));
                    }
                    answer
                }
                Err(error) => {
                    Response::json(502, &serde_json::json!({ "detail": error.to_string() }))
                }
            }
        })
    }))?;
    Ok(server)
}

/// The numbers of our lines in a block.
fn numbers_in(bytes: &[u8]) -> anyhow::Result<Vec<usize>> {
    let opened = Block::decode(bytes)?.open()?;
    let mut numbers = Vec::new();
    for (_, event) in opened.events() {
        let event: EventView<'_> = serde_json::from_slice(event)?;
        numbers.extend(event.actor.name.as_deref().and_then(number_of));
    }
    Ok(numbers)
}

/// Append → found by search.
pub(super) fn searchable(
    programs: &Programs,
    place: &Path,
    lines: u32,
) -> anyhow::Result<Latencies> {
    let collector = prepare(programs, place, &[])?;
    let agent = start_agent(programs, place, collector.address, &collector)?;
    let log = place.join("auth.log");
    let appender = std::thread::spawn(move || append(&log, lines));
    let mut client = collector.admin()?;
    let found = poll(&mut client, usize::try_from(lines)?)?;
    let appended = match appender.join() {
        Ok(appended) => appended?,
        Err(_) => bail!("the appending thread panicked"),
    };
    // Each is found by its own word too, not only among the newest.
    for number in (0..usize::try_from(lines)?).step_by(50) {
        if newest(&mut client, &user(number), 10)?.events.len() != 1 {
            bail!("the word {} does not find its one event", user(number));
        }
    }
    agent.daemon.stop(Duration::from_secs(30))?;
    collector.daemon.stop(Duration::from_secs(30))?;
    Latencies::between(&appended, &found)
}

/// When each line was first in an answer.
fn poll(client: &mut Client, lines: usize) -> anyhow::Result<BTreeMap<usize, Instant>> {
    let limit = LIMIT + EVERY * u32::try_from(lines)?;
    let mut found = BTreeMap::new();
    shell::wait_for("all lines are found", limit, Duration::from_millis(5), || {
        let page = newest(client, "action:authentication.login outcome:failure", PAGE)?;
        let at = Instant::now();
        for event in &page.events {
            let user = event.pointer("/actor/name").and_then(serde_json::Value::as_str);
            if let Some(number) = user.and_then(number_of) {
                found.entry(number).or_insert(at);
            }
        }
        Ok((found.len() >= lines).then_some(()))
    })?;
    Ok(found)
}
