//! `custody-collector export`: asks a running collector for an export, waits, fetches it, checks it.
//!
//! A download that breaks off is taken up again where it stood, also by a later call with the same
//! `-o`: what is there stands in `FILE.part` until its SHA-256 is that of the export.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use custody_config::shell::{Exit, Failure};
use custody_event::Digest;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::client::{Client, ClientArgs};
use super::say;

/// How often the status is asked for.
const ASK_EVERY: Duration = Duration::from_millis(300);
/// A download that breaks off is taken up again so often without a byte in between.
const TRIES: u32 = 8;
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ExportArgs {
    #[command(subcommand)]
    command: Option<ExportCommand>,
    #[command(flatten)]
    new: NewArgs,
}

/// A new export.
#[derive(Debug, Args)]
struct NewArgs {
    /// The search line: action:authentication.* outcome:failure "two words"; without, everything
    #[arg(value_name = "WORDS")]
    query: Vec<String>,
    /// What the file is
    #[arg(long, default_value = "csv", value_parser = ["csv", "json", "ndjson", "parquet", "pdf", "bundle"])]
    format: String,
    /// In whose words the events stand: ocsf for json, ndjson and parquet, ecs for json and ndjson
    #[arg(long, default_value = "custody", value_parser = ["custody", "ocsf", "ecs"])]
    form: String,
    /// What it is called in the history
    #[arg(long, default_value = "export")]
    name: String,
    /// Where the file goes; its proof beside it, as FILE.proof.json
    #[arg(short, long, value_name = "FILE", required = true)]
    output: Option<PathBuf>,
    /// From when: 24h, 7d, 2026-01-31, RFC 3339
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until when
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// CSV: begin with a byte order mark, as some spreadsheets want it
    #[arg(long)]
    bom: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// What to do with exports that there are.
#[derive(Debug, Subcommand)]
enum ExportCommand {
    /// List exports, the newest first
    List {
        /// One JSON object a line instead of a table
        #[arg(long)]
        json: bool,
        /// Exports at most
        #[arg(long, default_value_t = 50)]
        limit: u32,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Fetch the file of an export, waiting for it if it is not complete
    Get {
        /// The export's id
        id: String,
        /// Where the file goes
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete an export and its file
    Delete {
        /// The export's id
        id: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// An entry of the history, as far as it is needed here.
#[derive(Debug, Clone, Deserialize)]
struct Entry {
    id: String,
    name: String,
    format: String,
    status: String,
    created: String,
    rows: u64,
    rows_total: Option<u64>,
    bytes: u64,
    sha256: Option<String>,
    error: Option<String>,
}

/// Does what is asked.
///
/// # Errors
/// The collector cannot be reached or refuses, the export failed, or the file cannot be written.
pub fn export(args: &ExportArgs) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &args.command {
            None => make(&args.new).await,
            Some(ExportCommand::List { json, limit, client }) => {
                list(&Client::of(client)?, *limit, *json).await
            }
            Some(ExportCommand::Get { id, output, client }) => {
                fetch(&Client::of(client)?, id, output).await
            }
            Some(ExportCommand::Delete { id, client }) => {
                let client = Client::of(client)?;
                client.ask(Method::DELETE, &path(id, ""), &[], None).await?;
                say(&format!("export {id} is deleted\n"))?;
                Ok(Exit::Good)
            }
        }
    })
}

/// An id is hex digits; anything else must not become another path.
fn path(id: &str, rest: &str) -> String {
    let id: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("/v1/exports/{id}{rest}")
}

async fn make(args: &NewArgs) -> anyhow::Result<Exit> {
    let Some(output) = &args.output else {
        return Err(Failure::new(Exit::Usage, "name a file with -o").into());
    };
    let client = Client::of(&args.client)?;
    let body = json!({
        "name": args.name,
        "format": args.format,
        "form": args.form,
        "q": args.query.join(" "),
        "from": args.from.as_deref().unwrap_or_default(),
        "to": args.to.as_deref().unwrap_or_default(),
        "bom": args.bom,
    });
    let answer = client.ask(Method::POST, "/v1/exports", &[], Some(&body)).await?;
    let entry: Entry = serde_json::from_str(&answer.text().await?)?;
    fetch(&client, &entry.id, output).await
}

async fn list(client: &Client, limit: u32, json: bool) -> anyhow::Result<Exit> {
    let limit = limit.clamp(1, 500).to_string();
    let answer = client.ask(Method::GET, "/v1/exports", &[("limit", &limit)], None).await?;
    let page: serde_json::Value = serde_json::from_str(&answer.text().await?)?;
    let entries = page["exports"].as_array().cloned().unwrap_or_default();
    let mut text = String::new();
    if !json {
        text.push_str(
            "ID                                STATUS     FORMAT   CREATED                            ROWS          BYTES  NAME\n",
        );
    }
    for entry in entries {
        if json {
            text.push_str(&format!("{entry}\n"));
            continue;
        }
        let entry: Entry = serde_json::from_value(entry)?;
        text.push_str(&format!(
            "{:<33} {:<10} {:<8} {:<28} {:>10} {:>14}  {}\n",
            entry.id,
            entry.status,
            entry.format,
            entry.created,
            entry.rows,
            entry.bytes,
            entry.name
        ));
    }
    say(&text)?;
    Ok(Exit::Good)
}

/// Waits for the export, fetches it, checks it, and fetches its proof.
async fn fetch(client: &Client, id: &str, output: &Path) -> anyhow::Result<Exit> {
    let entry = wait(client, id).await?;
    let Some(sha256) = entry.sha256.clone().filter(|_| entry.status == "completed") else {
        let why = entry.error.as_deref().unwrap_or("its file is gone");
        let what = format!("export {id} is {}: {why}", entry.status);
        return Err(Failure::new(Exit::No, what).into());
    };
    let part = with(output, ".part");
    download(client, &entry, &sha256, &part).await?;
    let found = hash(&part)?;
    if found.to_hex() != sha256 {
        let what = format!(
            "{} has SHA-256 {found}, the export {sha256}: it is not what the collector made (hint: \
             remove it and fetch it again)",
            part.display()
        );
        return Err(Failure::new(Exit::No, what).into());
    }
    std::fs::rename(&part, output).with_context(|| output.display().to_string())?;
    if entry.format != "bundle" {
        let answer = client.ask(Method::GET, &path(id, "/proof"), &[], None).await?;
        let proof = with(output, ".proof.json");
        std::fs::write(&proof, answer.bytes().await?)
            .with_context(|| proof.display().to_string())?;
    }
    say(&format!(
        "{}: {} events, {} bytes, SHA-256 {sha256}\n",
        output.display(),
        entry.rows,
        entry.bytes
    ))?;
    Ok(Exit::Good)
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

async fn wait(client: &Client, id: &str) -> anyhow::Result<Entry> {
    let mut shown = Progress::default();
    loop {
        let answer = client.ask(Method::GET, &path(id, ""), &[], None).await?;
        let entry: Entry = serde_json::from_str(&answer.text().await?)?;
        if !matches!(entry.status.as_str(), "queued" | "running") {
            shown.end()?;
            return Ok(entry);
        }
        let total = entry.rows_total.map(|total| format!(" of {total}")).unwrap_or_default();
        shown.show(&format!(
            "{}: {}{total} events, {} bytes",
            entry.status, entry.rows, entry.bytes
        ))?;
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// One line of a terminal that changes.
#[derive(Default)]
struct Progress {
    width: usize,
}

impl Progress {
    fn show(&mut self, text: &str) -> std::io::Result<()> {
        let mut out = std::io::stderr().lock();
        if !out.is_terminal() {
            return Ok(());
        }
        let width = text.chars().count();
        write!(out, "\r{text}{}", " ".repeat(self.width.saturating_sub(width)))?;
        self.width = width;
        out.flush()
    }

    fn end(&mut self) -> std::io::Result<()> {
        if self.width > 0 {
            writeln!(std::io::stderr().lock())?;
        }
        self.width = 0;
        Ok(())
    }
}

/// Fetches what is missing of the part, as often as it breaks off.
async fn download(client: &Client, entry: &Entry, sha256: &str, part: &Path) -> anyhow::Result<()> {
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(part);
    let mut file = open.with_context(|| part.display().to_string())?;
    let mut have = file.metadata()?.len();
    if have > entry.bytes {
        file.set_len(0)?;
        have = 0;
    }
    let mut shown = Progress::default();
    let mut tries = 0;
    while have < entry.bytes {
        let before = have;
        let ended = some(client, entry, sha256, (&mut file, &mut have), &mut shown).await;
        if let Err(error) = ended {
            tries = if have > before { 1 } else { tries + 1 };
            let reached = error.downcast_ref::<Failure>().is_none();
            if tries >= TRIES || !reached && have == before {
                shown.end()?;
                return Err(error);
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }
    shown.end()?;
    file.sync_all()?;
    Ok(())
}

async fn some(
    client: &Client,
    entry: &Entry,
    sha256: &str,
    (file, have): (&mut File, &mut u64),
    shown: &mut Progress,
) -> anyhow::Result<()> {
    let (range, tag) = (format!("bytes={have}-"), format!("\"{sha256}\""));
    let headers = [(http::header::RANGE, range.as_str()), (http::header::IF_RANGE, tag.as_str())];
    let mut answer = client.fetch(&path(&entry.id, "/download"), &headers).await?;
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        *have = 0;
        file.set_len(0)?;
    }
    file.seek(SeekFrom::Start(*have))?;
    while let Some(chunk) = answer.chunk().await? {
        file.write_all(&chunk)?;
        *have += u64::try_from(chunk.len())?;
        shown.show(&format!("fetched {have} of {} bytes", entry.bytes))?;
    }
    Ok(())
}

fn hash(path: &Path) -> anyhow::Result<Digest> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        hash.update(read);
    }
    Ok(Digest(hash.finalize().into()))
}
