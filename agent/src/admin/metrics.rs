//! The agent's metrics: one table, filled from what `status` shows.

use custody_config::shell::metrics::{Kind, Metric, Process, Samples, page, row};

use crate::status::{OutputStatus, SourceStatus, Status};

/// What the table is filled from.
#[derive(Debug)]
pub struct Numbers {
    /// As `custody-agent status --json` has it.
    pub status: Status,
    /// What the kernel says.
    pub process: Process,
}

/// The page of `/metrics`.
#[must_use]
pub fn text(status: Status) -> String {
    page(TABLE, &Numbers { status, process: Process::now() })
}

type Row = Metric<Numbers>;

const SOURCE: &[&str] = &["source", "type"];
const OUTPUT: &[&str] = &["output"];

fn sources(numbers: &Numbers, samples: &mut Samples<'_>, of: impl Fn(&SourceStatus) -> u64) {
    for source in &numbers.status.sources {
        samples.whole(&[&source.id, &source.kind], of(source));
    }
}

fn outputs(numbers: &Numbers, samples: &mut Samples<'_>, of: impl Fn(&OutputStatus) -> u64) {
    for output in &numbers.status.outputs {
        samples.whole(&[&output.id], of(output));
    }
}

/// Milliseconds since the epoch → how long ago, in microseconds.
fn age_micros(numbers: &Numbers, since_unix_ms: Option<u64>) -> i64 {
    let Some(since) = since_unix_ms.and_then(|ms| i64::try_from(ms).ok()) else { return 0 };
    numbers.status.now.micros().saturating_sub(since.saturating_mul(1000)).max(0)
}

/// Every metric of the agent, in the order of the data's way.
pub const TABLE: &[Row] = &[
    row(
        "custody_agent_info",
        Kind::Gauge,
        &["version", "agent", "host", "stream"],
        "Who this is; always 1",
        |n, s| {
            let status = &n.status;
            s.whole(&[&status.version, &status.agent, &status.host, &status.stream], 1);
        },
    ),
    row(
        "custody_agent_start_time_seconds",
        Kind::Gauge,
        &[],
        "When the agent started, seconds since 1970",
        |n, s| {
            s.seconds(&[], n.status.started.micros());
        },
    ),
    row(
        "custody_agent_config_info",
        Kind::Gauge,
        &["path", "sha256"],
        "The configuration in force; always 1",
        |n, s| {
            s.whole(&[&n.status.config_path, &n.status.config_sha256], 1);
        },
    ),
    row(
        "custody_agent_config_loads_total",
        Kind::Counter,
        &["outcome"],
        "Reloads since the start: taken (success) or refused (failure)",
        |n, s| {
            s.whole(&["success"], n.status.config_loads);
            s.whole(&["failure"], n.status.config_refusals);
        },
    ),
    row(
        "custody_agent_source_records_read_total",
        Kind::Counter,
        SOURCE,
        "Records read since the start",
        |n, s| {
            sources(n, s, |source| source.since_start.read);
        },
    ),
    row(
        "custody_agent_source_events_stored_total",
        Kind::Counter,
        SOURCE,
        "Events made of them since the start",
        |n, s| {
            sources(n, s, |source| source.since_start.stored);
        },
    ),
    row(
        "custody_agent_source_records_filtered_total",
        Kind::Counter,
        SOURCE,
        "Records that a named rule left out since the start",
        |n, s| {
            sources(n, s, |source| source.since_start.filtered);
        },
    ),
    row(
        "custody_agent_source_events_unmatched_total",
        Kind::Counter,
        SOURCE,
        "Events that no rule knew since the start: they hold the record as it was",
        |n, s| {
            sources(n, s, |source| source.since_start.unmatched);
        },
    ),
    row(
        "custody_agent_source_gaps_total",
        Kind::Counter,
        SOURCE,
        "Gap events since the start: something was lost or could not be read",
        |n, s| {
            sources(n, s, |source| source.since_start.gaps);
        },
    ),
    row(
        "custody_agent_source_book_records",
        Kind::Gauge,
        &["source", "fate"],
        "The source's book over all starts: read = stored + filtered + gap",
        |n, s| {
            for source in &n.status.sources {
                let book = &source.book;
                let fates = [
                    ("read", book.read),
                    ("stored", book.stored),
                    ("filtered", book.filtered),
                    ("gap", book.gap),
                ];
                for (fate, count) in fates {
                    s.whole(&[&source.id, fate], count);
                }
            }
        },
    ),
    row("custody_agent_source_files", Kind::Gauge, SOURCE, "Files held open", |n, s| {
        sources(n, s, |source| source.files);
    }),
    row(
        "custody_agent_source_behind_bytes",
        Kind::Gauge,
        SOURCE,
        "Bytes on disk that have not been read yet",
        |n, s| {
            sources(n, s, |source| source.behind_bytes);
        },
    ),
    row(
        "custody_agent_source_trouble",
        Kind::Gauge,
        SOURCE,
        "1 while the source says that something is wrong (custody-agent status says what)",
        |n, s| {
            sources(n, s, |source| u64::from(source.trouble.is_some()));
        },
    ),
    row(
        "custody_agent_pipeline_in_flight_bytes",
        Kind::Gauge,
        &[],
        "Bytes of records between their source and the disk",
        |n, s| {
            s.whole(&[], n.status.in_flight_bytes);
        },
    ),
    row("custody_agent_spool_blocks", Kind::Gauge, &[], "Blocks in the spool", |n, s| {
        s.whole(&[], n.status.spool.blocks)
    }),
    row("custody_agent_spool_bytes", Kind::Gauge, &[], "Their bytes", |n, s| {
        s.whole(&[], n.status.spool.bytes)
    }),
    row("custody_agent_spool_max_bytes", Kind::Gauge, &[], "The bound of the spool", |n, s| {
        s.whole(&[], n.status.spool.max_bytes)
    }),
    row(
        "custody_agent_spool_disk_bytes",
        Kind::Gauge,
        &[],
        "What the spool takes on disk",
        |n, s| s.whole(&[], n.status.spool.disk_bytes),
    ),
    row(
        "custody_agent_spool_filesystem_free_bytes",
        Kind::Gauge,
        &[],
        "Free space of the spool's file system",
        |n, s| s.whole(&[], n.status.spool.free_bytes),
    ),
    row(
        "custody_agent_spool_next_seq",
        Kind::Gauge,
        &[],
        "Blocks of the stream that are durable: the number of the next",
        |n, s| s.whole(&[], n.status.spool.durable_next_seq),
    ),
    row(
        "custody_agent_spool_oldest_unsent_age_seconds",
        Kind::Gauge,
        &[],
        "How long the oldest block has waited for its acknowledgement",
        |n, s| {
            s.seconds(&[], age_micros(n, n.status.spool.oldest_unsent_since_unix_ms));
        },
    ),
    row(
        "custody_agent_spool_full_seconds",
        Kind::Gauge,
        &[],
        "How long the spool has been full; sources wait meanwhile",
        |n, s| {
            s.seconds(&[], age_micros(n, n.status.spool.full_since_unix_ms));
        },
    ),
    row(
        "custody_agent_spool_waiting",
        Kind::Gauge,
        &[],
        "1 while the spool takes nothing",
        |n, s| s.yes(&[], n.status.spool.waiting.is_some()),
    ),
    row(
        "custody_agent_spool_reopened_total",
        Kind::Counter,
        &[],
        "Times that the store was reopened after an error since the start",
        |n, s| s.whole(&[], n.status.spool.reopened),
    ),
    row(
        "custody_agent_spool_quarantined",
        Kind::Gauge,
        &[],
        "Damaged stores that were put aside",
        |n, s| s.whole(&[], n.status.spool.quarantined),
    ),
    row(
        "custody_agent_spool_dead_letters",
        Kind::Gauge,
        &[],
        "Blocks whose body a collector refused",
        |n, s| s.whole(&[], n.status.spool.dead_letters),
    ),
    row(
        "custody_agent_output_state",
        Kind::Gauge,
        &["output", "state"],
        "1 for the state that the output is in",
        |n, s| {
            for output in &n.status.outputs {
                for state in ["connecting", "delivering", "waiting", "refused"] {
                    s.yes(&[&output.id, state], output.state == state);
                }
            }
        },
    ),
    row(
        "custody_agent_output_lag_blocks",
        Kind::Gauge,
        OUTPUT,
        "Durable blocks that are not acknowledged",
        |n, s| outputs(n, s, |output| output.lag_blocks),
    ),
    row(
        "custody_agent_output_next_seq",
        Kind::Gauge,
        OUTPUT,
        "Blocks of the stream that are acknowledged: the number of the next",
        |n, s| outputs(n, s, |output| output.next_seq),
    ),
    row(
        "custody_agent_output_failures_total",
        Kind::Counter,
        OUTPUT,
        "Attempts that failed since the start",
        |n, s| outputs(n, s, |output| output.failures),
    ),
    row(
        "custody_agent_output_last_ack_timestamp_seconds",
        Kind::Gauge,
        OUTPUT,
        "When a block was acknowledged last, seconds since 1970; absent before the first",
        |n, s| {
            for output in &n.status.outputs {
                if let Some(at) = output.last_ack {
                    s.seconds(&[&output.id], at.micros());
                }
            }
        },
    ),
    row(
        "custody_agent_output_log_entries",
        Kind::Gauge,
        OUTPUT,
        "Entries of the collector's log that were shown and checked",
        |n, s| outputs(n, s, |output| output.log_size),
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
