//! `GET /metrics`: the collector's numbers for Prometheus, one table.
//!
//! The page names hosts and agents, so it needs a token that reads, as `/v1/agents` does; a scraper on this host (a loopback
//! address) needs none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use custody_config::shell::metrics::{CONTENT_TYPE, Kind, Metric, Process, page, row};
use custody_event::{AgentId, Timestamp};
use http::{HeaderMap, header};

use super::problem::Problem;
use super::{App, Peer};
use crate::access::AgentRow;
use crate::store::{BlockSource, LogCursor};

/// What is counted while requests are answered.
#[derive(Debug, Default)]
pub struct Counters {
    /// By the first digit of the status, from 1.
    answers: [AtomicU64; 5],
    blocks_taken: AtomicU64,
    blocks_refused: AtomicU64,
    block_bytes: AtomicU64,
    connections: AtomicU64,
    handshakes_failed: AtomicU64,
}

impl Counters {
    /// A request was answered.
    pub(super) fn answered(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.answers[class].fetch_add(1, Ordering::Relaxed);
    }

    /// A block was acknowledged, or not.
    pub(super) fn block(&self, taken: bool, bytes: usize) {
        let counter = if taken { &self.blocks_taken } else { &self.blocks_refused };
        counter.fetch_add(1, Ordering::Relaxed);
        if taken {
            self.block_bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// A connection came.
    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A TLS handshake failed.
    pub(super) fn handshake_failed(&self) {
        self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the table is filled from.
pub struct Numbers {
    counters: Arc<Counters>,
    now: Timestamp,
    started: Timestamp,
    agents: Vec<AgentNumbers>,
    revoked: u64,
    streams: u64,
    events: u64,
    already_held: u64,
    end: LogCursor,
    failed: bool,
    log_entries: Option<u64>,
    process: Process,
}

struct AgentNumbers {
    agent: String,
    host: String,
    last_seen: Option<Timestamp>,
    lag_micros: i64,
    events: u64,
    gaps: u64,
}

impl App {
    fn numbers(&self, agents: Vec<AgentRow>) -> Numbers {
        let revoked = agents.iter().filter(|agent| agent.revoked.is_some()).count();
        let live = agents.into_iter().filter(|agent| agent.revoked.is_none());
        let (agents, streams, events, already_held) = self.log.with_ledger(|ledger| {
            let all = ledger.streams();
            let of = |id: AgentId| all.iter().filter(move |stream| stream.name.0 == id);
            let agents = live
                .map(|agent| {
                    let newest = of(agent.id).max_by_key(|stream| stream.last_seen);
                    let books = of(agent.id).flat_map(|stream| stream.books.values());
                    AgentNumbers {
                        agent: agent.id.to_hex(),
                        host: agent.hostname,
                        last_seen: newest.map(|stream| stream.last_seen),
                        lag_micros: newest.map_or(0, |stream| stream.lag_us),
                        events: of(agent.id).map(|stream| stream.events).sum(),
                        gaps: books.map(|book| book.gap).sum(),
                    }
                })
                .collect();
            let held = all.iter().flat_map(|stream| stream.held.values()).sum();
            (agents, all.len(), all.iter().map(|stream| stream.events).sum(), held)
        });
        Numbers {
            counters: Arc::clone(&self.counters),
            now: self.clock.now(),
            started: self.started,
            agents,
            revoked: u64::try_from(revoked).unwrap_or(u64::MAX),
            streams: u64::try_from(streams).unwrap_or(u64::MAX),
            events,
            already_held,
            end: *self.log.durable_end().borrow(),
            failed: self.log.failed().borrow().is_some(),
            log_entries: self.log.tlog().map(|log| log.head().size),
            process: Process::now(),
        }
    }
}

/// The route.
pub(super) async fn get_metrics(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !peer.addr.ip().to_canonical().is_loopback() {
        app.reader(&headers, peer).await?;
    }
    let access = Arc::clone(&app.access);
    let agents = match tokio::task::spawn_blocking(move || access.agents()).await {
        Ok(Ok(agents)) => agents,
        Ok(Err(error)) => {
            log::error!(error:% = error; "the agents cannot be read");
            return Err(Problem::unavailable("the agents cannot be read", 10));
        }
        Err(_) => return Err(Problem::internal("the agents cannot be read")),
    };
    let text = page(TABLE, &app.numbers(agents));
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

type Row = Metric<Numbers>;

const AGENT: &[&str] = &["agent", "host"];

fn each(numbers: &Numbers, mut fill: impl FnMut(&AgentNumbers, &[&str])) {
    for agent in &numbers.agents {
        fill(agent, &[&agent.agent, &agent.host]);
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Every metric of the collector.
pub const TABLE: &[Row] = &[
    row(
        "custody_collector_info",
        Kind::Gauge,
        &["version"],
        "Which program this is; always 1",
        |_, s| {
            s.whole(&[env!("CARGO_PKG_VERSION")], 1);
        },
    ),
    row(
        "custody_collector_start_time_seconds",
        Kind::Gauge,
        &[],
        "When the collector started, seconds since 1970",
        |n, s| {
            s.seconds(&[], n.started.micros());
        },
    ),
    row(
        "custody_collector_connections_total",
        Kind::Counter,
        &[],
        "Connections accepted since the start",
        |n, s| {
            s.whole(&[], load(&n.counters.connections));
        },
    ),
    row(
        "custody_collector_tls_handshakes_failed_total",
        Kind::Counter,
        &[],
        "TLS handshakes that failed since the start",
        |n, s| {
            s.whole(&[], load(&n.counters.handshakes_failed));
        },
    ),
    row(
        "custody_collector_http_responses_total",
        Kind::Counter,
        &["code"],
        "Answers since the start, by the class of their status",
        |n, s| {
            for (class, counter) in
                ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(&n.counters.answers)
            {
                s.whole(&[class], load(counter));
            }
        },
    ),
    row(
        "custody_collector_ingest_blocks_total",
        Kind::Counter,
        &["outcome"],
        "Blocks since the start: acknowledged (again, too) or refused",
        |n, s| {
            s.whole(&["acknowledged"], load(&n.counters.blocks_taken));
            s.whole(&["refused"], load(&n.counters.blocks_refused));
        },
    ),
    row(
        "custody_collector_ingest_block_bytes_total",
        Kind::Counter,
        &[],
        "Bytes of acknowledged blocks since the start",
        |n, s| {
            s.whole(&[], load(&n.counters.block_bytes));
        },
    ),
    row(
        "custody_collector_evidence_events",
        Kind::Gauge,
        &[],
        "Events in the evidence log",
        |n, s| s.whole(&[], n.events),
    ),
    row(
        "custody_collector_evidence_events_already_held",
        Kind::Gauge,
        &[],
        "Of them, those that an older stream of the same host had delivered: left out of search",
        |n, s| {
            s.whole(&[], n.already_held);
        },
    ),
    row(
        "custody_collector_evidence_streams",
        Kind::Gauge,
        &[],
        "Streams in the evidence log",
        |n, s| s.whole(&[], n.streams),
    ),
    row(
        "custody_collector_evidence_segment",
        Kind::Gauge,
        &[],
        "The segment that is written to",
        |n, s| s.whole(&[], n.end.segment),
    ),
    row(
        "custody_collector_evidence_segment_bytes",
        Kind::Gauge,
        &[],
        "How far it is written",
        |n, s| s.whole(&[], n.end.offset),
    ),
    row(
        "custody_collector_evidence_failed",
        Kind::Gauge,
        &[],
        "1 when the evidence log has failed for good",
        |n, s| s.yes(&[], n.failed),
    ),
    row(
        "custody_collector_log_entries",
        Kind::Gauge,
        &[],
        "Entries of the transparency log",
        |n, s| {
            if let Some(size) = n.log_entries {
                s.whole(&[], size);
            }
        },
    ),
    row(
        "custody_collector_agents",
        Kind::Gauge,
        &["state"],
        "Agents: enrolled and not revoked, or revoked",
        |n, s| {
            s.whole(&["enrolled"], u64::try_from(n.agents.len()).unwrap_or(u64::MAX));
            s.whole(&["revoked"], n.revoked);
        },
    ),
    row(
        "custody_collector_agent_silent_seconds",
        Kind::Gauge,
        AGENT,
        "Since an agent's newest block came; absent before the first",
        |n, s| {
            each(n, |agent, labels| {
                if let Some(seen) = agent.last_seen {
                    s.seconds(labels, n.now.micros().saturating_sub(seen.micros()));
                }
            });
        },
    ),
    row(
        "custody_collector_agent_lag_seconds",
        Kind::Gauge,
        AGENT,
        "From the sealing of an agent's newest block, by its clock, to its arrival, by ours",
        |n, s| {
            each(n, |agent, labels| s.seconds(labels, agent.lag_micros));
        },
    ),
    row(
        "custody_collector_agent_events",
        Kind::Gauge,
        AGENT,
        "An agent's events in the evidence log",
        |n, s| {
            each(n, |agent, labels| s.whole(labels, agent.events));
        },
    ),
    row(
        "custody_collector_agent_gap_records",
        Kind::Gauge,
        AGENT,
        "Records that an agent's books count as lost, by its newest blocks",
        |n, s| {
            each(n, |agent, labels| s.whole(labels, agent.gaps));
        },
    ),
    row("process_resident_memory_bytes", Kind::Gauge, &[], "Resident memory", |n, s| {
        s.whole(&[], n.process.resident_bytes)
    }),
    row(
        "process_cpu_seconds_total",
        Kind::Counter,
        &[],
        "Processor time, user and system",
        |n, s| s.seconds(&[], n.process.cpu_micros),
    ),
    row("process_open_fds", Kind::Gauge, &[], "Open file descriptors", |n, s| {
        s.whole(&[], n.process.open_fds)
    }),
];
