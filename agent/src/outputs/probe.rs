//! Is a collector there? Asked by `doctor`, outside of any delivery.

use std::time::Duration;

use reqwest::Client;

use super::request::explain;

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

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7) → seconds since 1970.
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split(' ').skip(1);
    let day = words.next()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? + 1;
    let (year, time) = (words.next()?, words.next()?);
    let zulu = format!("{year}-{month:02}-{day}T{time}.000000Z");
    custody_event::Timestamp::parse(&zulu).ok().map(custody_event::Timestamp::seconds)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_date_of_http_is_read() {
        assert_eq!(super::http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(super::http_date("yesterday"), None);
    }
}
