//! `GET /v1/tail`: events as they come, as server-sent events (`text/event-stream`).
//!
//! ```text
//! retry: 2000
//!
//! id: 1.1790000000000000.0.4096.7        where the event stands; to go on behind it, send it
//! data: {"action":"data.export",…}       back as Last-Event-ID, or as from=
//!
//! event: skipped                         so many came faster than they were taken;
//! data: {"skipped":12,"after":"1.…"}     from=after gives them
//!
//! : 2026-11-21T21:00:00Z                 a heartbeat
//!
//! event: end                             the duration is over, or the collector stops
//! data: {"reason":"duration","sent":3,"skipped":12,"cursor":"1.…"}
//! ```
//!
//! # Order and resumption
//! Events come in the order in which the collector took them, as soon as they are durable, each
//! once. Who comes back with the last id gets everything behind it: first from the log, as fast as
//! it is taken and without skipping, then live.
//!
//! # Bounds
//! A filter like that of a search; `duration` up to a day; a bounded number of clients, each with a
//! bounded queue ([`hub`]). The token is checked again at each heartbeat, and what it may see.

mod hub;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use custody_config::shell::StopToken;
use custody_event::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::task::TaskTracker;

use super::api::{Pairs, QueryState};
use super::auth::{Permission, Principal};
use super::filter::Filter;
use super::problem::Problem;
use super::{params, when};
use crate::index::HitKey;
use crate::store::{BlockSource, LogCursor};
use hub::{Client, Hub, Item, QUEUE_BYTES, found_in};

const DEFAULT_DURATION: Duration = Duration::from_secs(3_600);
const MAX_DURATION: Duration = Duration::from_secs(24 * 3_600);
/// Proxies end what says nothing for a minute, often for half of one.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Bytes that are handed to the connection at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks between the task and the connection.
const CHUNKS: usize = 2;

/// Those who tail, and who serves them.
#[derive(Clone)]
pub struct Tail {
    hub: Arc<Hub>,
    tasks: TaskTracker,
    stop: StopToken,
}

impl Tail {
    /// Over the evidence log; the thread ends when the stop comes.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(source: Arc<dyn BlockSource>, stop: StopToken) -> std::io::Result<Self> {
        let hub = Arc::new(Hub::new(source));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (reader, told) = (Arc::clone(&hub), stop.clone());
        std::thread::Builder::new()
            .name("tail".to_owned())
            .spawn(move || reader.run(&runtime, &told))?;
        Ok(Self { hub, tasks: TaskTracker::new(), stop })
    }
}

/// What the route needs.
#[derive(Clone)]
struct TailState {
    query: QueryState,
    tail: Tail,
}

/// The route.
pub fn router(query: QueryState, tail: Tail) -> Router {
    Router::new().route("/v1/tail", get(tail_events)).with_state(TailState { query, tail })
}

/// What is asked.
#[derive(Debug)]
struct Asked {
    filter: Filter,
    duration: Duration,
    after: Option<HitKey>,
}

fn read(pairs: &Pairs, headers: &HeaderMap, now: Timestamp) -> Result<Asked, Problem> {
    let mut duration = DEFAULT_DURATION;
    let mut after = None;
    let mut rest = Vec::new();
    for (name, value) in params::given(pairs) {
        match name {
            "duration" => duration = duration_of(value)?,
            "from" if value == "now" => after = None,
            "from" => after = Some(params::cursor("from", value)?),
            _ => rest.push((name, value)),
        }
    }
    // A browser that comes back repeats the address as it was; the header is newer.
    if let Some(last) = headers.get("last-event-id").filter(|last| !last.is_empty()) {
        let last = last.to_str().unwrap_or_default();
        after = Some(params::cursor("Last-Event-ID", last)?);
    }
    Ok(Asked { filter: params::filter(&rest, now)?, duration, after })
}

fn duration_of(text: &str) -> Result<Duration, Problem> {
    let zero = Timestamp::from_micros(0);
    let spans = text.ends_with(['s', 'm', 'h', 'd']) && !text.starts_with("now");
    when::parse(text, zero)
        .ok()
        .and_then(|time| u64::try_from(time.micros().saturating_neg()).ok())
        .map(Duration::from_micros)
        .filter(|span| spans && !span.is_zero() && *span <= MAX_DURATION)
        .ok_or_else(|| {
            let what = format!("{:?} is not a duration up to 24h", params::short(text));
            Problem::bad("duration", what).hinted("write 10m or 2h")
        })
}

async fn tail_events(
    State(state): State<TailState>,
    headers: HeaderMap,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    let who = state.query.admit(&headers, Permission::Search)?;
    let mut asked = read(&pairs, &headers, state.query.clock.now())?;
    asked.filter = who.narrow(asked.filter);
    let place = Arc::clone(&state.tail.hub.places).try_acquire_owned().map_err(|_| {
        Problem::busy("as many clients tail as there may; end one, or try again later")
    })?;
    state.query.record_search(&who.name, "tail", &pairs);
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let admitted = state.query.clock.monotonic();
    let feed = Feed {
        hub: Arc::clone(&state.tail.hub),
        query: state.query,
        headers,
        who,
        stop: state.tail.stop.clone(),
        sender,
        text: Vec::new(),
        sent: 0,
        skipped: 0,
        last: asked.after,
        admitted,
        _place: place,
    };
    state.tail.tasks.spawn(feed.run(asked));
    let mut response = Body::new(Stream { receiver }).into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// The body: what the task hands over.
struct Stream {
    receiver: mpsc::Receiver<Bytes>,
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.receiver.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Serves one client.
struct Feed {
    hub: Arc<Hub>,
    query: QueryState,
    headers: HeaderMap,
    /// Who asks, as they were let in: what they may see is in the filter.
    who: Principal,
    stop: StopToken,
    sender: mpsc::Sender<Bytes>,
    text: Vec<u8>,
    sent: u64,
    skipped: u64,
    /// The last event that was sent.
    last: Option<HitKey>,
    /// When the token was looked at last, on the monotonic clock.
    admitted: Duration,
    _place: OwnedSemaphorePermit,
}

/// Why nothing more is sent.
enum Cut {
    /// Nobody listens any more.
    Gone,
    /// The token is no longer good, or good for something else.
    Token,
}

impl Feed {
    async fn run(mut self, asked: Asked) {
        let client = Arc::new(Client::new(asked.filter.clone(), QUEUE_BYTES));
        let stop = self.stop.clone();
        let ended = tokio::select! {
            () = tokio::time::sleep(asked.duration) => Ok("duration"),
            () = stop.stopped() => Ok("stopping"),
            ended = self.feed(&asked, &client) => ended,
        };
        self.hub.leave(&client);
        match ended {
            Ok(reason) => self.end(reason).await,
            Err(Cut::Token) => self.end("token").await,
            Err(Cut::Gone) => {}
        }
    }

    /// Until the token is no longer good, or nobody listens.
    async fn feed(&mut self, asked: &Asked, client: &Arc<Client>) -> Result<&'static str, Cut> {
        self.text.extend_from_slice(b"retry: 2000\n\n");
        self.flush().await?;
        if let Some(after) = asked.after {
            let mut at = after.at;
            // First up to the end, then what has come meanwhile: little waits in the queue then.
            at = self.catch_up(asked, at, self.hub.end()).await?;
            client.has_until(at);
            let live = self.hub.join(Arc::clone(client));
            self.catch_up(asked, at, live).await?;
        } else {
            self.hub.join(Arc::clone(client));
        }
        let mut beat = tokio::time::interval(HEARTBEAT);
        loop {
            let batch = client.take();
            for item in batch.items {
                self.event(item).await?;
            }
            if batch.skipped > 0 {
                self.skip(batch.skipped);
            }
            self.flush().await?;
            tokio::select! {
                () = client.ready.notified() => {}
                _ = beat.tick() => {
                    let now = self.query.clock.now();
                    self.text.extend_from_slice(format!(": {now}\n\n").as_bytes());
                    self.flush().await?;
                }
            }
        }
    }

    /// Sends what stands in the log from `at` up to `end`; says where it came to.
    async fn catch_up(
        &mut self,
        asked: &Asked,
        mut at: LogCursor,
        end: LogCursor,
    ) -> Result<LogCursor, Cut> {
        while at < end {
            let (hub, filter, after) = (Arc::clone(&self.hub), asked.filter.clone(), asked.after);
            let read = tokio::task::spawn_blocking(move || match hub.block(at) {
                Ok(Some(block)) if block.at < end => {
                    Ok(Some((block.next, found_in(&block, &filter, after.as_ref()))))
                }
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            });
            match read.await {
                Ok(Ok(Some((next, items)))) => {
                    at = next;
                    for item in items {
                        self.event(item).await?;
                    }
                }
                Ok(Ok(None)) => return Ok(end),
                failed => {
                    if let Ok(Err(error)) = failed {
                        log::warn!(error = error.to_string(); "evidence cannot be read for a tail");
                    }
                    self.damaged(at);
                    at = LogCursor { segment: at.segment + 1, offset: 0 };
                }
            }
        }
        self.flush().await?;
        Ok(at)
    }

    async fn event(&mut self, item: Item) -> Result<(), Cut> {
        self.text.extend_from_slice(format!("id: {}\ndata: ", item.key.to_cursor()).as_bytes());
        // Canonical JSON has no line end.
        self.text.extend_from_slice(&item.event);
        self.text.extend_from_slice(b"\n\n");
        self.sent += 1;
        self.last = Some(item.key);
        if self.text.len() >= CHUNK_BYTES { self.flush().await } else { Ok(()) }
    }

    fn skip(&mut self, count: u64) {
        self.skipped += count;
        let said = serde_json::json!({ "skipped": count, "after": self.cursor() });
        self.text.extend_from_slice(format!("event: skipped\ndata: {said}\n\n").as_bytes());
    }

    fn damaged(&mut self, at: LogCursor) {
        let said = serde_json::json!({ "skipped": null, "reason": "evidence cannot be read",
            "segment": at.segment, "offset": at.offset });
        self.text.extend_from_slice(format!("event: skipped\ndata: {said}\n\n").as_bytes());
    }

    fn cursor(&self) -> Option<String> {
        self.last.map(|last| last.to_cursor())
    }

    async fn flush(&mut self) -> Result<(), Cut> {
        if self.text.is_empty() {
            return Ok(());
        }
        // First the place, then the text: whoever ends this task here loses nothing.
        let place = self.sender.reserve().await.map_err(|_| Cut::Gone)?;
        let now = self.query.clock.monotonic();
        if now.saturating_sub(self.admitted) >= HEARTBEAT / 2 {
            // Somebody who may see more or less by now asks again.
            let who = self.query.gate().still(&self.headers, Permission::Search);
            if who.ok().as_ref() != Some(&self.who) {
                self.text.clear();
                return Err(Cut::Token);
            }
            self.admitted = now;
        }
        place.send(Bytes::from(std::mem::take(&mut self.text)));
        Ok(())
    }

    /// Says that it is over, to who still listens; does not wait for who does not.
    async fn end(mut self, reason: &str) {
        let said = serde_json::json!({ "reason": reason, "sent": self.sent,
            "skipped": self.skipped, "cursor": self.cursor() });
        self.text.extend_from_slice(format!("event: end\ndata: {said}\n\n").as_bytes());
        let chunk = Bytes::from(std::mem::take(&mut self.text));
        // Nobody there, or nobody who reads: then nobody misses it.
        let _told = self.sender.send_timeout(chunk, Duration::from_secs(1)).await;
    }
}
