//! `custody-collector tail`: events as they come, from a running collector.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use custody_config::shell::Exit;
use reqwest::Method;
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{Client, ClientArgs};
use super::search::print;

/// Arguments of `tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The search line: action:authentication.* outcome:failure "two words"
    #[arg(value_name = "WORDS")]
    query: Vec<String>,
    /// For how long, up to 24h
    #[arg(long = "for", value_name = "DURATION", default_value = "1h")]
    duration: String,
    /// Go on behind this event: an id that an earlier tail has ended with
    #[arg(long, value_name = "CURSOR")]
    from: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
    /// One canonical event a line instead of a table
    #[arg(long)]
    json: bool,
}

/// A broken connection is tried again so often before the command gives up.
const TRIES: u32 = 5;

/// Shows events until the duration is over.
///
/// # Errors
/// The collector cannot be reached or refuses, with what to do.
pub fn tail(args: &TailArgs) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(follow(args))
}

async fn follow(args: &TailArgs) -> anyhow::Result<Exit> {
    let client = Client::of(&args.client)?;
    let line = args.query.join(" ");
    let mut last = args.from.clone();
    let mut failed = 0;
    loop {
        let from = last.clone().unwrap_or_else(|| "now".to_owned());
        let pairs = [("q", line.as_str()), ("duration", &args.duration), ("from", &from)];
        let answer = match client.ask(Method::GET, "/v1/tail", &pairs, None).await {
            Ok(answer) => answer,
            Err(error) if failed == 0 || failed >= TRIES => return Err(error),
            Err(_) => {
                failed += 1;
                tokio::time::sleep(Duration::from_secs(2)).await;
                continue;
            }
        };
        if read(answer, args, &mut last).await? {
            return Ok(Exit::Good);
        }
        failed += 1;
        note("the connection broke; going on where it stood")?;
    }
}

fn note(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stderr().lock(), "custody-collector: {text}")
}

/// Shows what comes; true when the collector has said that it is the end.
async fn read(
    mut answer: reqwest::Response,
    args: &TailArgs,
    last: &mut Option<String>,
) -> anyhow::Result<bool> {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        bytes.extend_from_slice(&chunk);
        while let Some(end) = memchr::memmem::find(&bytes, b"\n\n") {
            let message: Vec<u8> = bytes.drain(..end + 2).collect();
            if show(&Message::read(std::str::from_utf8(&message)?), args, last)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// One message of the stream.
#[derive(Debug, Default)]
struct Message<'a> {
    id: Option<&'a str>,
    event: &'a str,
    data: &'a str,
}

impl<'a> Message<'a> {
    fn read(text: &'a str) -> Self {
        let mut message = Self::default();
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => message.id = Some(id),
                Some(("event", event)) => message.event = event,
                Some(("data", data)) => message.data = data,
                _ => {}
            }
        }
        message
    }
}

fn show(message: &Message<'_>, args: &TailArgs, last: &mut Option<String>) -> anyhow::Result<bool> {
    if message.data.is_empty() {
        return Ok(false);
    }
    if message.event.is_empty() {
        let mut out = std::io::stdout().lock();
        print(&RawValue::from_string(message.data.to_owned())?, args.json, &mut out)?;
        out.flush()?;
        *last = message.id.map(str::to_owned).or_else(|| last.take());
        return Ok(false);
    }
    let said: Value = serde_json::from_str(message.data)?;
    match message.event {
        "skipped" => {
            note(&format!("{} events came too fast and are not shown", said["skipped"]))?;
            Ok(false)
        }
        "end" => {
            let cursor = said["cursor"].as_str();
            let on = cursor.map_or_else(String::new, |at| format!("; go on with --from {at}"));
            let reason = said["reason"].as_str().unwrap_or("unknown");
            note(&format!("the end ({reason}): {} events shown{on}", said["sent"]))?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_are_written() {
        let message = Message::read("id: 1.2.3.4.5\ndata: {\"a\":\"b: c\"}\n\n");
        assert_eq!((message.id, message.data), (Some("1.2.3.4.5"), "{\"a\":\"b: c\"}"));
        let message = Message::read("event: end\ndata: {}\n\n");
        assert_eq!((message.event, message.data), ("end", "{}"));
        assert_eq!(Message::read(": heartbeat\n\n").data, "");
    }
}
