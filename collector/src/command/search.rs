//! `custody-collector search`: asks a running collector.

use std::io::Write;

use clap::Args;
use custody_config::shell::Exit;
use custody_event::EventView;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, ClientArgs};

/// Arguments of `search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// The search line, as on the page: action:authentication.* outcome:failure "two words"
    #[arg(value_name = "WORDS")]
    query: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
    /// From when: 24h, 7d, 2026-01-31, RFC 3339
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until when
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Events at most
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// One canonical event a line instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
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

async fn ask(args: &SearchArgs) -> anyhow::Result<String> {
    let (line, limit) = (args.query.join(" "), args.limit.to_string());
    let mut pairs = vec![("q", line.as_str()), ("limit", limit.as_str())];
    let times = [("from", &args.from), ("to", &args.to)];
    pairs.extend(times.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))));
    let answer = Client::of(&args.client)?.ask(Method::GET, "/v1/events", &pairs, None).await?;
    Ok(answer.text().await?)
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
    fn a_log_cannot_give_orders_to_the_terminal() {
        assert_eq!(shown(Some("a\u{1b}[2Jb\u{9b}c\nd é")), "a\\u{1b}[2Jb\\u{9b}c\\nd é");
        assert_eq!(shown(None), "-");
    }
}
