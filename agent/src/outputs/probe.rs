//! Is a collector there? Asked by `doctor`, outside of any delivery.

use std::time::Duration;

use reqwest::Client;

use super::request::explain;
use super::skew::http_date;

/// An answer's text is shown up to this many bytes.
const MAX_SAID_BYTES: usize = 300;
const WITHIN: Duration = Duration::from_secs(10);

/// What a collector said to `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// It takes blocks.
    pub ready: bool,
    /// Its words.
    pub said: String,
    /// The time of its clock, seconds since 1970, if it says one.
    pub date_seconds: Option<i64>,
}

/// Asks. Blocks for ten seconds at most; not to be called from a task.
///
/// # Errors
/// It cannot be reached: why, and what may mend it.
pub fn ready(client: &Client, endpoint: &str) -> Result<Ready, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let sent = client.get(format!("{endpoint}/readyz")).timeout(WITHIN).send().await;
        let answer = sent.map_err(|error| explain(&error))?;
        let ready = answer.status().is_success();
        let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
        let date_seconds = date.and_then(http_date);
        let mut said = answer.text().await.map_err(|error| explain(&error))?;
        said.truncate(said.floor_char_boundary(MAX_SAID_BYTES));
        Ok(Ready { ready, said: said.trim().to_owned(), date_seconds })
    })
}
