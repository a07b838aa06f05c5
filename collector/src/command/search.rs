//! `custody-collector search`: asks a running collector.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use custody_config::Endpoint;
use custody_config::shell::{Exit, Failure};
use custody_event::EventView;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::ConfigArgs;

/// Arguments of `search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// The search line, as on the page: action:authentication.* outcome:failure "two words"
    #[arg(value_name = "WORDS")]
    query: Vec<String>,
    /// The collector's address; without it, where the configuration says that it listens.
    #[arg(long, value_name = "URL")]
    collector: Option<String>,
    /// The collector's configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file that holds a token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The collector's data directory, where its admin.token is.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Trust only the certificates in this PEM file.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// From when: 24h, 7d, 2026-01-31, RFC 3339.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until when.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Events at most.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// One canonical event a line instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

/// Asks, and shows what was found.
///
/// # Errors
/// The collector cannot be reached or refuses, with what to do.
pub fn search(args: &SearchArgs) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(ask(args))?;
    let page: Page = serde_json::from_str(&answer)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for event in &page.events {
        if args.json {
            writeln!(out, "{}", event.get())?;
        } else {
            show(&EventView::read(event.get().as_bytes())?, &mut out)?;
        }
    }
    out.flush()?;
    Ok(if page.events.is_empty() { Exit::No } else { Exit::Good })
}

/// Where to ask, and with which token.
struct Whom {
    url: String,
    token_file: PathBuf,
}

impl Whom {
    fn of(args: &SearchArgs) -> Result<Self, Failure> {
        let here = ConfigArgs {
            config: args.config.clone(),
            data_dir: args.data_dir.clone(),
            ..ConfigArgs::default()
        };
        let config = here.load()?.value;
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let url =
            args.collector.clone().unwrap_or_else(|| format!("{scheme}://{}", config.listen.get()));
        keeps_the_token(&url)?;
        let token_file =
            args.token_file.clone().unwrap_or_else(|| config.data_dir.get().join("admin.token"));
        Ok(Self { url, token_file })
    }
}

/// The token goes out in the clear over plain HTTP: only to this machine.
fn keeps_the_token(url: &str) -> Result<(), Failure> {
    let endpoint = Endpoint::parse(url).map_err(|error| {
        Failure::new(Exit::Usage, format!("--collector {} (hint: {})", error.what, error.hint))
    })?;
    if endpoint.is_secure() || endpoint.is_loopback() {
        return Ok(());
    }
    let what =
        format!("--collector {url} would show the token to the network (hint: write https://)");
    Err(Failure::new(Exit::Usage, what))
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let what = format!(
            "cannot read the token {} (name one with --token-file or --data-dir)",
            path.display()
        );
        Failure::because(Exit::NoInput, what, error)
    })?;
    Ok(text.trim().to_owned())
}

fn client(args: &SearchArgs) -> anyhow::Result<reqwest::Client> {
    // Another part of the process may have been there first; then it is the same provider.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &args.ca_file {
        let pem = std::fs::read(path).map_err(|error| {
            Failure::because(Exit::NoInput, format!("cannot read {}", path.display()), error)
        })?;
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?);
    }
    Ok(builder.build()?)
}

async fn ask(args: &SearchArgs) -> anyhow::Result<String> {
    let whom = Whom::of(args)?;
    let mut url = reqwest::Url::parse(&whom.url)
        .and_then(|base| base.join("/v1/events"))
        .map_err(|error| Failure::because(Exit::Usage, "--collector is not a URL", error))?;
    {
        let mut pairs = url.query_pairs_mut();
        pairs.append_pair("q", &args.query.join(" "));
        pairs.append_pair("limit", &args.limit.to_string());
        for (key, value) in [("from", &args.from), ("to", &args.to)] {
            if let Some(value) = value {
                pairs.append_pair(key, value);
            }
        }
    }
    let unreachable = |error| {
        let what =
            format!("no collector answers at {} (is it running? is the URL right?)", whom.url);
        Failure::because(Exit::Io, what, error)
    };
    let answer = client(args)?
        .get(url)
        .bearer_auth(read_token(&whom.token_file)?)
        .send()
        .await
        .map_err(unreachable)?;
    let status = answer.status();
    let text = answer.text().await.map_err(unreachable)?;
    if status.is_success() {
        return Ok(text);
    }
    let exit = if status.as_u16() == 400 { Exit::Usage } else { Exit::Io };
    let said = serde_json::from_str::<Problem>(&text)
        .ok()
        .and_then(|problem| problem.detail.or(problem.title))
        .unwrap_or(text);
    Err(Failure::new(exit, format!("{status}: {said}")).into())
}

/// One line: when, who, what, how it went, from where, on what, host; then what it said.
fn show(event: &EventView<'_>, out: &mut impl Write) -> std::io::Result<()> {
    let target =
        event.targets.first().and_then(|target| target.name.as_deref().or(target.id.as_deref()));
    let said = event.message.as_deref().or(event.origin.raw.as_deref());
    writeln!(
        out,
        "{}  {:<16}  {:<28}  {:<8}  {:<15}  {:<20}  {:<12}  {}",
        event.time,
        shown(event.actor.name.as_deref()),
        shown(event.action.as_deref()),
        shown(event.outcome.as_deref()),
        shown(event.source.ip.as_deref()),
        shown(target),
        shown(event.host.as_deref()),
        shown(said),
    )
}

/// Text of a log on somebody's terminal: control characters are shown, not obeyed.
fn shown(text: Option<&str>) -> String {
    let mut out = String::new();
    for character in text.unwrap_or("-").chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_nowhere_in_the_clear() {
        for good in ["http://127.0.0.1:8600", "http://localhost:1", "https://collector.example"] {
            keeps_the_token(good).unwrap();
        }
        for bad in ["http://collector.example:8600", "http://10.0.0.1", "ftp://localhost", "x"] {
            assert!(keeps_the_token(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_cannot_give_orders_to_the_terminal() {
        assert_eq!(shown(Some("a\u{1b}[2Jb\u{9b}c\nd é")), "a\\u{1b}[2Jb\\u{9b}c\\nd é");
        assert_eq!(shown(None), "-");
    }
}
