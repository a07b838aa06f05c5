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
    /// The time zone of dates: Europe/Berlin; UTC without it
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// Events at most
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// The oldest first
    #[arg(long)]
    oldest: bool,
    /// One canonical event a line instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
    cut: Option<Cut>,
}

#[derive(Deserialize)]
struct Cut {
    after_ms: u64,
    searched_from: Option<String>,
    searched_to: Option<String>,
}

/// Events in one answer, at most.
const PAGE: usize = 1_000;

/// Asks, and shows what was found.
///
/// # Errors
/// The collector cannot be reached or refuses, with what to do.
pub fn search(args: &SearchArgs) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = Client::of(&args.client)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut left = args.limit;
    let mut cursor: Option<String> = None;
    while left > 0 {
        let answer = runtime.block_on(ask(&client, args, left.min(PAGE), cursor.as_deref()))?;
        let page: Page = serde_json::from_str(&answer)?;
        for event in &page.events {
            print(event, args.json, &mut out)?;
        }
        left = left.saturating_sub(page.events.len());
        if let Some(cut) = page.cut {
            out.flush()?;
            warn(&cut)?;
            break;
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    out.flush()?;
    Ok(if left == args.limit { Exit::No } else { Exit::Good })
}

/// An answer that had to end is never shown as if it were whole.
fn warn(cut: &Cut) -> std::io::Result<()> {
    let searched = match (&cut.searched_from, &cut.searched_to) {
        (Some(from), _) => format!("everything from {from} on"),
        (None, Some(to)) => format!("everything before {to}"),
        (None, None) => "a part".to_owned(),
    };
    writeln!(
        std::io::stderr().lock(),
        "custody-collector: the search ended after {} ms; {searched} has been looked at \
         (hint: narrow it with --from and --to)",
        cut.after_ms
    )
}

/// One event: its JSON, or a line for people.
pub(super) fn print(event: &RawValue, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", event.get())?;
        return Ok(());
    }
    Ok(show(&EventView::read(event.get().as_bytes())?, out)?)
}

async fn ask(
    client: &Client,
    args: &SearchArgs,
    limit: usize,
    cursor: Option<&str>,
) -> anyhow::Result<String> {
    let (line, limit) = (args.query.join(" "), limit.to_string());
    let mut pairs = vec![("q", line.as_str()), ("limit", limit.as_str())];
    let given = [
        ("from", args.from.as_deref()),
        ("to", args.to.as_deref()),
        ("tz", args.tz.as_deref()),
        ("order", args.oldest.then_some("oldest")),
        ("cursor", cursor),
    ];
    pairs.extend(given.iter().filter_map(|(key, value)| Some((*key, (*value)?))));
    Ok(client.ask(Method::GET, "/v1/events", &pairs, None).await?.text().await?)
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
pub(super) fn shown(text: Option<&str>) -> String {
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
