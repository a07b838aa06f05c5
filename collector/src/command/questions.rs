//! `custody-collector timeline`, `history` and `access`: questions to a running collector.

use std::io::Write;

use clap::Args;
use custody_config::shell::Exit;
use reqwest::Method;
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{Client, ClientArgs};
use super::search::{print, shown};

/// Whom to ask, and how to show what is answered.
#[derive(Debug, Args)]
struct Asking {
    #[command(flatten)]
    client: ClientArgs,
    /// The answer as it is
    #[arg(long)]
    json: bool,
}

impl Asking {
    /// Asks, and shows the answer: as it is, or as `show` writes it.
    fn ask(
        &self,
        path: &str,
        pairs: &[(&str, &str)],
        show: impl FnOnce(&Value, &mut dyn Write) -> anyhow::Result<()>,
    ) -> anyhow::Result<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::of(&self.client)?;
        let answer = runtime.block_on(async {
            anyhow::Ok(client.ask(Method::GET, path, pairs, None).await?.text().await?)
        })?;
        let told: Value = serde_json::from_str(&answer)?;
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        if self.json {
            writeln!(out, "{answer}")?;
        } else {
            show(&told, &mut out)?;
        }
        out.flush()?;
        Ok(told)
    }
}

/// Arguments of `timeline`.
#[derive(Debug, Args)]
pub struct TimelineArgs {
    /// Whose: session:…, actor:…, target:…, or any search line without quotes
    #[arg(value_name = "WORDS", required = true)]
    query: Vec<String>,
    /// The period: 24h, 7d, yesterday, 2026-01, 2026-01-01..2026-01-31
    #[arg(long)]
    period: Option<String>,
    /// The time zone of dates
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

/// Arguments of `history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Of what: TYPE:ID, or an id or a name alone
    target: String,
    /// One of its fields; * stands for anything
    #[arg(long)]
    field: Option<String>,
    /// What it was at this instant
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// The time zone of dates
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

/// Arguments of `access`.
#[derive(Debug, Args)]
pub struct AccessArgs {
    /// Who: a name, an e-mail address or an id
    user: String,
    /// What: TYPE:ID, or an id or a name alone
    target: String,
    /// The period: 24h, 7d, yesterday, 2026-01, 2026-01-01..2026-01-31
    #[arg(long)]
    period: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

type Pairs<'a> = Vec<(&'a str, &'a str)>;

fn with<'a>(mut pairs: Pairs<'a>, more: &[(&'a str, &'a Option<String>)]) -> Pairs<'a> {
    pairs.extend(more.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
    pairs
}

/// What happened, oldest first.
///
/// # Errors
/// The collector cannot be reached or refuses, with what to do.
pub fn timeline(args: &TimelineArgs) -> anyhow::Result<Exit> {
    let line = args.query.join(" ");
    let pairs = with(
        vec![("q", line.as_str()), ("limit", "1000")],
        &[("period", &args.period), ("tz", &args.tz)],
    );
    let told = args.asking.ask("/v1/timeline", &pairs, |told, mut out| {
        for entry in list(&told["entries"]) {
            if entry["gap"] == true {
                write!(out, "GAP  ")?;
            }
            print(&raw(&entry["event"])?, false, &mut out)?;
        }
        writeln!(out, "{} events, {} gaps{}", told["events"], told["gaps"], more(told))?;
        Ok(())
    })?;
    Ok(if list(&told["entries"]).is_empty() { Exit::No } else { Exit::Good })
}

fn more(told: &Value) -> &'static str {
    match (told["cut"].is_null(), told["next_cursor"].is_null()) {
        (false, _) => "; the search was cut for its time, narrow the period",
        (true, false) => "; more of them than shown, narrow the period",
        (true, true) => "",
    }
}

/// Who changed it, and what it was.
///
/// # Errors
/// The collector cannot be reached or refuses, with what to do.
pub fn history(args: &HistoryArgs) -> anyhow::Result<Exit> {
    let own = vec![("target", args.target.as_str())];
    let pairs = with(own, &[("field", &args.field), ("at", &args.at), ("tz", &args.tz)]);
    let told = args.asking.ask("/v1/history", &pairs, changes)?;
    Ok(if list(&told["changes"]).is_empty() { Exit::No } else { Exit::Good })
}

fn changes(told: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    for change in list(&told["changes"]) {
        let what = match change["field"].as_str() {
            Some(field) if change["masked"] == true => format!("{field}: masked"),
            Some(field) => {
                format!("{field}: {} -> {}", value(&change["before"]), value(&change["after"]))
            }
            None => text(&change["op"]),
        };
        let broken =
            if change["follows"] == false { "  (a change before it is missing)" } else { "" };
        writeln!(
            out,
            "{}  {:<24}  {:<8}  {}{broken}",
            text(&change["time"]),
            shown(change["actor"].as_str()),
            shown(change["outcome"].as_str()),
            shown(Some(&what)),
        )?;
    }
    if let Value::Object(values) = &told["at"]["values"] {
        writeln!(out, "at {}:", text(&told["at"]["time"]))?;
        for (field, known) in values {
            let line = format!("{field}: {}", value(&known["value"]));
            writeln!(out, "  {}", shown(Some(&line)))?;
        }
    }
    let rests = &told["rests_on"];
    let since = rests["since"].as_str().unwrap_or("nothing was recorded");
    writeln!(
        out,
        "this rests on {} events since {since}, with {} gaps{}",
        rests["events"],
        rests["gaps"],
        more(told)
    )?;
    Ok(())
}

/// Did they see it?
///
/// # Errors
/// The collector cannot be reached or refuses, with what to do.
pub fn access(args: &AccessArgs) -> anyhow::Result<Exit> {
    let own = vec![("user", args.user.as_str()), ("target", args.target.as_str())];
    let pairs = with(own, &[("period", &args.period)]);
    let told = args.asking.ask("/v1/access", &pairs, |told, mut out| {
        for (name, about) in [("events", ""), ("possible", "possible: ")] {
            for event in list(&told[name]) {
                write!(out, "{about}")?;
                print(&raw(event)?, false, &mut out)?;
            }
        }
        writeln!(out, "{}", shown(told["sentence"].as_str()))?;
        Ok(())
    })?;
    Ok(if told["answer"] == "yes" { Exit::Good } else { Exit::No })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    shown(value.as_str())
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn raw(event: &Value) -> anyhow::Result<Box<RawValue>> {
    Ok(RawValue::from_string(event.to_string())?)
}
