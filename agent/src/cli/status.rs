//! `custody-agent status`: asks the running agent through its admin socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use custody_config::AgentConfig;
use custody_config::shell::{Exit, Failure};

use super::{ConfigArgs, print};
use crate::status::{OutputStatus, SourceStatus, SpoolStatus, Status};

/// An answer is at most so long: thousands of sources.
const MAX_ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The agent's socket (default: as the configuration says).
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<Exit> {
    let socket = socket(args.socket.as_ref(), &args.config)?;
    let answer = ask(&socket).map_err(|error| {
        Failure::because(
            Exit::Io,
            format!(
                "no agent answers at {} (is it running? systemctl status custody-agent)",
                socket.display()
            ),
            error,
        )
    })?;
    let mut out = print::stdout();
    if args.json {
        out.write_all(answer.trim_end().as_bytes())?;
        writeln!(out)?;
    } else {
        show(&serde_json::from_str(&answer)?, &mut out)?;
    }
    out.flush()?;
    Ok(Exit::Good)
}

/// The socket that was named, or else the configured one.
pub(super) fn socket(named: Option<&PathBuf>, config: &ConfigArgs) -> anyhow::Result<PathBuf> {
    if let Some(socket) = named {
        return Ok(socket.clone());
    }
    let loaded: custody_config::Loaded<AgentConfig> =
        config.loader().load().map_err(Failure::from)?;
    Ok(loaded.value.admin.socket.get().clone())
}

/// The agent's answer.
pub(super) fn ask(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"{\"command\":\"status\"}\n")?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_ANSWER_BYTES)).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(std::io::Error::other("it closed the connection without an answer"));
    }
    Ok(answer)
}

pub(super) fn show(status: &Status, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "agent    {}  {}  version {}  pid {}",
        status.agent, status.state, status.version, status.pid
    )?;
    writeln!(out, "host     {}  ({})", status.host, status.host_id)?;
    writeln!(out, "stream   {}", status.stream)?;
    writeln!(
        out,
        "started  {}  config {} ({:.12})",
        status.started, status.config_path, status.config_sha256
    )?;
    if let Some(why) = &status.config_trouble {
        writeln!(out, "  ! the newest configuration was refused, this one stays: {why}")?;
    }
    writeln!(
        out,
        "\nSOURCE            TYPE  FILES        READ      STORED    FILTERED  UNMATCHED  GAPS      BEHIND"
    )?;
    for source in &status.sources {
        show_source(source, out)?;
    }
    show_spool(&status.spool, out)?;
    writeln!(out, "\nOUTPUT            STATE       NEXT BLOCK    LAG  LAST ACKNOWLEDGED")?;
    for output in &status.outputs {
        show_output(output, out)?;
    }
    Ok(())
}

fn show_source(source: &SourceStatus, out: &mut impl Write) -> std::io::Result<()> {
    let counts = source.since_start;
    writeln!(
        out,
        "{:<16}  {:<4}  {:>5}  {:>10}  {:>10}  {:>10}  {:>9}  {:>4}  {:>10}",
        source.id,
        source.kind,
        source.files,
        counts.read,
        counts.stored,
        counts.filtered,
        counts.unmatched,
        counts.gaps,
        print::bytes(source.behind_bytes)
    )?;
    let book = source.book;
    writeln!(
        out,
        "  book: read {} = stored {} + filtered {} + gap {}",
        book.read, book.stored, book.filtered, book.gap
    )?;
    match &source.trouble {
        Some(trouble) => writeln!(out, "  ! {trouble}"),
        None => Ok(()),
    }
}

fn show_spool(spool: &SpoolStatus, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "\nspool    {} blocks, {} of {}; {} on disk, {} free; next block {}",
        spool.blocks,
        print::bytes(spool.bytes),
        print::bytes(spool.max_bytes),
        print::bytes(spool.disk_bytes),
        print::bytes(spool.free_bytes),
        spool.durable_next_seq
    )?;
    if spool.full_since_unix_ms.is_some() {
        writeln!(
            out,
            "  ! full: sources wait until the collector acknowledges blocks, or raise spool.max_bytes"
        )?;
    }
    for trouble in [&spool.waiting, &spool.last_error].into_iter().flatten() {
        writeln!(out, "  ! {trouble}")?;
    }
    if spool.dead_letters > 0 {
        writeln!(out, "  ! {} dead letters: custody-agent spool ls --dead", spool.dead_letters)?;
    }
    Ok(())
}

fn show_output(output: &OutputStatus, out: &mut impl Write) -> std::io::Result<()> {
    let last = output.last_ack.map_or_else(|| "never".to_owned(), |at| at.to_string());
    writeln!(
        out,
        "{:<16}  {:<10}  {:>10}  {:>5}  {last}  {}",
        output.id, output.state, output.next_seq, output.lag_blocks, output.endpoint
    )?;
    if let Some(trouble) = &output.trouble {
        writeln!(out, "  ! {trouble}")?;
    }
    if let Some(clock) = &output.clock {
        writeln!(out, "  ! {clock}")?;
    }
    match output.retry_at {
        Some(at) => writeln!(out, "  next attempt {at}"),
        None => Ok(()),
    }
}
