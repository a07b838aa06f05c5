//! The HTTP side: connections, and what a request is answered.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use custody_config::shell::StopToken;
use custody_event::Offset;
use custody_parsers::Said;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::body::{Untaken, records, unpacked};
use super::gather::Waiting;
use super::memory::{self, Met, Name, body_digest, name_of};
use super::verify::is_form;
use super::{Asked, Endpoint, EndpointOptions, Judged, Shared};
use crate::sources::{
    Item, Kept, Known, Mark, NotTaken, Promise, RecordBatch, SaidBy, SourceIndex, Way,
};

/// Bodies that are held at once, in bytes.
pub(super) const BODIES_BYTES: u32 = 16 * 1024 * 1024;
/// How long a body may take to come.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// How long requests under way may take once the stop has come.
const DRAIN: Duration = Duration::from_secs(5);
const BIND_AGAIN: Duration = Duration::from_secs(1);
/// Pause after a failed accept (out of descriptors): trying at once would burn a processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often refusals are told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long before a batch for which there was no room is offered again.
pub(super) const OFFER_AGAIN: Duration = Duration::from_millis(5);

pub(super) type Answer = Response<Full<Bytes>>;

pub(super) struct Serving {
    pub(super) shared: Arc<Shared>,
    http: Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    bodies: Arc<Semaphore>,
    /// Batches whose senders do not wait any more.
    pub(super) late: TaskTracker,
    stop: StopToken,
}

/// Serves until the stop comes, then until requests under way are answered.
pub(super) async fn serve(shared: Arc<Shared>, stop: StopToken) {
    let Some(listener) = bound(&shared, &stop).await else { return };
    let serving = Arc::new(Serving {
        http: http_builder(),
        tls: shared.tls.clone().map(TlsAcceptor::from),
        bodies: Arc::new(Semaphore::new(usize::try_from(BODIES_BYTES).unwrap_or(usize::MAX))),
        late: TaskTracker::new(),
        stop: stop.clone(),
        shared,
    });
    let places = Arc::new(Semaphore::new(serving.shared.max_connections));
    let connections = TaskTracker::new();
    let mut tell = tokio::time::interval(TELL_EVERY);
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = tokio::select! {
            () = stop.stopped() => break,
            _ = tell.tick() => { serving.shared.tell_refusals(false); continue }
            Ok(place) = place => tokio::select! {
                () = stop.stopped() => break,
                _ = tell.tick() => { serving.shared.tell_refusals(false); continue }
                accepted = listener.accept() => accepted.map(|accepted| (accepted, place)),
            },
        };
        match accepted {
            Ok(((stream, peer), place)) => {
                connections.spawn(connection(Arc::clone(&serving), stream, peer, place));
            }
            Err(error) => {
                serving
                    .shared
                    .trouble(Some(format!("a connection could not be accepted: {error}")));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    serving.late.close();
    let all = async {
        connections.wait().await;
        serving.late.wait().await;
    };
    if tokio::time::timeout(DRAIN, all).await.is_err() {
        log::warn!("webhook requests were cut off: nobody was told that they are stored");
    }
    serving.shared.tell_refusals(true);
}

/// Binds; where that fails it says so and tries again.
async fn bound(shared: &Shared, stop: &StopToken) -> Option<TcpListener> {
    let mut said = false;
    loop {
        match TcpListener::bind(shared.listen).await {
            Ok(listener) => {
                shared.trouble(None);
                log::info!(listen:% = shared.listen; "listening for webhooks");
                return Some(listener);
            }
            Err(error) => {
                let text = format!(
                    "cannot listen on {}: {error}; choose another `webhook.listen`, or end who has it",
                    shared.listen
                );
                if !said {
                    log::error!("{text}");
                    said = true;
                }
                shared.trouble(Some(text));
            }
        }
        tokio::select! {
            () = stop.stopped() => return None,
            () = tokio::time::sleep(BIND_AGAIN) => {}
        }
    }
}

fn http_builder() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    http
}

async fn connection(
    serving: Arc<Serving>,
    stream: TcpStream,
    peer: SocketAddr,
    _place: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        log::debug!(error:% = error, peer:% = peer; "TCP_NODELAY could not be set");
    }
    let Some(tls) = &serving.tls else { return requests(&serving, stream, peer).await };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => requests(&serving, stream, peer).await,
        Ok(Err(_)) | Err(_) => {
            serving.shared.refuse_all("tls_handshake", "A sender's TLS handshake failed.", peer);
        }
    }
}

async fn requests<S>(serving: &Arc<Serving>, stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ours = Arc::clone(serving);
    let sender = Arc::new(Sender { peer, way: Mutex::default() });
    let service = service_fn(move |request| {
        let (serving, sender) = (Arc::clone(&ours), Arc::clone(&sender));
        async move { Ok::<_, std::convert::Infallible>(serving.answer(request, sender).await) }
    });
    let connection = serving.http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = serving.stop.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        log::debug!(error:% = error, peer:% = peer; "a connection ended early");
    }
}

/// Who is at the other end of a connection.
struct Sender {
    peer: SocketAddr,
    /// How its last request came, and to which source.
    way: Mutex<Option<(SourceIndex, Arc<Way>)>>,
}

impl Sender {
    fn way(&self, options: &EndpointOptions) -> Arc<Way> {
        let mut last = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((index, way)) if *index == options.index => Arc::clone(way),
            Some(_) | None => {
                let way = Arc::new(Way {
                    endpoint: Some(options.path.clone()),
                    verdict: Some(options.verifier.verdict()),
                    details: vec![("peer".into(), self.peer.to_string())],
                    ..Way::default()
                });
                *last = Some((options.index, Arc::clone(&way)));
                way
            }
        }
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

/// Come again.
pub(super) fn later(seconds: u32, text: &'static str) -> Answer {
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    answer
}

pub(super) fn stored() -> Answer {
    plain(StatusCode::OK, "stored\n")
}

impl Shared {
    fn trouble(&self, text: Option<String>) {
        for endpoint in self.endpoints.values() {
            let mut state = endpoint.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.trouble.clone_from(&text);
        }
    }

    /// Of a request that reached no endpoint.
    fn refuse_all(&self, code: &'static str, text: &str, peer: SocketAddr) {
        self.refusals.note(self.first, code, text, &self.listen.to_string(), Some(peer));
    }

    fn tell_refusals(&self, all: bool) {
        for refused in self.refusals.due(self.clock.monotonic(), self.clock.now(), all) {
            if let Err(NotTaken::Full(item)) = self.hatch.offer(Item::Refused(refused))
                && let Item::Refused(refused) = *item
            {
                self.refusals.give_back(&refused);
            }
        }
    }
}

impl Endpoint {
    /// Turns a request away and counts it.
    fn refuse(
        &self,
        shared: &Shared,
        status: StatusCode,
        code: &'static str,
        text: &'static str,
        peer: SocketAddr,
    ) -> Answer {
        let options = &self.options;
        shared.refusals.note(options.index, code, text, &options.path, Some(peer));
        plain(status, "refused\n")
    }

    fn untaken(&self, shared: &Shared, untaken: Untaken, peer: SocketAddr) -> Answer {
        let (status, code, text) = match untaken {
            Untaken::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "A request's body was too large.")
            }
            Untaken::NotGzip => {
                (StatusCode::BAD_REQUEST, "not_gzip", "A request's body was not gzip, as it said.")
            }
            Untaken::TooMany => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_many_records",
                "A request held more than 1,000 records.",
            ),
            Untaken::Empty => (StatusCode::BAD_REQUEST, "empty", "A request had no body."),
        };
        self.refuse(shared, status, code, text, peer)
    }
}

impl Serving {
    async fn answer(self: Arc<Self>, request: Request<Incoming>, sender: Arc<Sender>) -> Answer {
        let (shared, peer) = (&self.shared, sender.peer);
        let Some(endpoint) = shared.endpoints.get(request.uri().path()).cloned() else {
            shared.refuse_all(
                "unknown_path",
                "A request was for a path that is no endpoint.",
                peer,
            );
            return plain(StatusCode::NOT_FOUND, "no such endpoint\n");
        };
        let is_get = request.method() == Method::GET;
        if request.method() != Method::POST && !(is_get && endpoint.options.verifier.takes_get()) {
            let text = "A request was no POST.";
            return endpoint.refuse(shared, StatusCode::METHOD_NOT_ALLOWED, "method", text, peer);
        }
        let (parts, body) = request.into_parts();
        let room = match self.room(&endpoint, parts.headers.get(CONTENT_LENGTH)).await {
            Ok(room) => room,
            Err(Some(untaken)) => return endpoint.untaken(shared, untaken, peer),
            Err(None) => return later(5, "busy\n"),
        };
        let limited = Limited::new(body, endpoint.options.max_body_bytes).collect();
        let wire = match tokio::time::timeout(BODY_TIMEOUT, limited).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return endpoint.untaken(shared, Untaken::TooLarge, peer);
            }
            Ok(Err(_)) => return plain(StatusCode::BAD_REQUEST, "the body ended early\n"),
            Err(_) => {
                let text = "A request's body did not come in time.";
                return endpoint.refuse(shared, StatusCode::REQUEST_TIMEOUT, "slow", text, peer);
            }
        };
        let came = Came { sender, is_get, room };
        self.judged(&endpoint, &parts, &wire, came).await
    }

    /// Room for the body.
    async fn room(
        &self,
        endpoint: &Endpoint,
        length: Option<&HeaderValue>,
    ) -> Result<OwnedSemaphorePermit, Option<Untaken>> {
        let max = endpoint.options.max_body_bytes;
        let length: Option<usize> = length.and_then(|text| text.to_str().ok()?.parse().ok());
        if length.is_some_and(|length| length > max) {
            return Err(Some(Untaken::TooLarge));
        }
        // A packed body may need all that an endpoint allows beside what came.
        let wanted = u32::try_from(length.unwrap_or(max)).unwrap_or(u32::MAX).saturating_add(1024);
        let room = Arc::clone(&self.bodies).acquire_many_owned(wanted.min(BODIES_BYTES));
        match tokio::time::timeout(self.shared.answer_within, room).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) | Err(_) => Err(None),
        }
    }

    async fn judged(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        parts: &http::request::Parts,
        wire: &Bytes,
        came: Came,
    ) -> Answer {
        let shared = &self.shared;
        let (peer, is_get) = (came.sender.peer, came.is_get);
        let asked = Asked {
            headers: &parts.headers,
            query: parts.uri.query(),
            body: wire,
            is_get,
            now_s: shared.clock.now().micros().div_euclid(1_000_000),
        };
        let body = match packing(parts) {
            Packing::Plain => None,
            Packing::Gzip => match unpacked(wire, endpoint.options.max_body_bytes) {
                Ok(body) => Some(body),
                Err(untaken) => return endpoint.untaken(shared, untaken, peer),
            },
            Packing::Other => {
                let text = "A request's body was packed otherwise than by gzip.";
                let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                return endpoint.refuse(shared, status, "packing", text, peer);
            }
        };
        let verifier = &endpoint.options.verifier;
        let mut found = verifier.judge(&asked);
        if let (Judged::Refused(_), Some(body)) = (&found, &body) {
            // Some sign what they pack, some what they have packed.
            found = verifier.judge(&Asked { body, ..asked });
        }
        let asked = Asked { body: body.as_deref().unwrap_or(wire), ..asked };
        match found {
            Judged::Refused(refusal) => {
                let status = StatusCode::UNAUTHORIZED;
                endpoint.refuse(shared, status, refusal.code, refusal.text, peer)
            }
            Judged::Challenge { content_type, body } => {
                let mut answer = plain(StatusCode::OK, body);
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
                answer
            }
            Judged::Accepted { .. } if is_get => {
                let text = "A request was no POST.";
                endpoint.refuse(shared, StatusCode::METHOD_NOT_ALLOWED, "method", text, peer)
            }
            Judged::Accepted { delivery, event } => {
                self.accepted(endpoint, &asked, (delivery, event), came).await
            }
        }
    }

    async fn accepted(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        asked: &Asked<'_>,
        (delivery, event): (Option<String>, Option<String>),
        came: Came,
    ) -> Answer {
        let shared = &self.shared;
        let peer = came.sender.peer;
        let mut found = match records(asked.body, is_form(asked), &endpoint.options.split) {
            Ok(found) => found,
            Err(untaken) => return endpoint.untaken(shared, untaken, peer),
        };
        if shared.hatch.is_full() {
            return later(30, "full\n");
        }
        let mut name = None;
        let mut skip = 0;
        if let Some(delivery) = &delivery
            && endpoint.options.remember > 0
        {
            let named = name_of(delivery);
            let met = endpoint.memory().meet(named, body_digest(asked.body));
            match met {
                Met::Take { stored } => skip = stored,
                Met::Stored => return stored(),
                Met::UnderWay => return later(1, "under way\n"),
                Met::Other => {
                    let text = "A delivery id came again with another body.";
                    let status = StatusCode::CONFLICT;
                    return endpoint.refuse(shared, status, "id_reused", text, peer);
                }
            }
            name = Some(named);
        }
        let way = came.sender.way(&endpoint.options);
        // What is not remembered may come twice into one block, and no block has an id twice.
        let delivery = delivery.filter(|_| endpoint.options.remember > 0);
        let alone = if found.len() == 1 { found.pop() } else { None };
        if let Some(record) = alone {
            let known = Known {
                delivery: delivery.map(|delivery| (delivery.into(), 0)),
                said: event.map(|kind| named(&kind)),
                ..Known::default()
            };
            let until = tokio::time::Instant::now() + shared.answer_within;
            let record = record.into_owned();
            let waiting = Waiting { record, way, known, name, until, _room: came.room };
            return self.gather(endpoint, waiting).await;
        }
        let batch = endpoint.batch(shared, Accepted { found, way, delivery, event, name, skip });
        self.store(endpoint, batch, name).await
    }

    /// Hands the batch on and waits until it is durable, both within the time.
    async fn store(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        mut batch: RecordBatch,
        name: Option<Name>,
    ) -> Answer {
        let (promise, kept) = Promise::new();
        batch.promise = Some(promise);
        let settle = Settle { endpoint: Arc::clone(endpoint), name };
        let until = tokio::time::Instant::now() + self.shared.answer_within;
        let mut item = Item::Batch(batch);
        loop {
            match self.shared.hatch.offer(item) {
                Ok(()) => break,
                Err(NotTaken::Stopped) => return later(5, "stopping\n"),
                Err(NotTaken::Full(_)) if tokio::time::Instant::now() >= until => {
                    return later(30, "full\n");
                }
                Err(NotTaken::Full(back)) => item = *back,
            }
            tokio::time::sleep(OFFER_AGAIN).await;
        }
        // In a task of its own: a sender that goes away does not take the memory with it.
        let (tell, told) = oneshot::channel();
        self.late.spawn(async move {
            let durable = matches!(kept.await, Ok(Kept::Durable));
            settle.end(durable);
            let _gone = tell.send(durable);
        });
        match tokio::time::timeout_at(until, told).await {
            Ok(Ok(true)) => stored(),
            Ok(_) => later(30, "not stored\n"),
            Err(_) => later(30, "not stored yet\n"),
        }
    }
}

/// How a request came.
struct Came {
    sender: Arc<Sender>,
    is_get: bool,
    /// Its body's room.
    room: OwnedSemaphorePermit,
}

/// Says in the memory how a delivery ended; that it is not stored, if nothing else is said.
struct Settle {
    endpoint: Arc<Endpoint>,
    name: Option<Name>,
}

impl Settle {
    fn end(mut self, stored: bool) {
        if let Some(name) = self.name.take() {
            self.endpoint.memory().settle(&name, stored);
        }
    }
}

impl Drop for Settle {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.endpoint.memory().settle(&name, false);
        }
    }
}

/// A request that was found good.
struct Accepted<'a> {
    /// Its records.
    found: Vec<Cow<'a, [u8]>>,
    way: Arc<Way>,
    /// The sender's id for it, and what it calls the event.
    delivery: Option<String>,
    event: Option<String>,
    /// As which it is remembered.
    name: Option<Name>,
    /// Records that were stored when it came before.
    skip: u64,
}

impl Endpoint {
    fn batch(&self, shared: &Shared, accepted: Accepted<'_>) -> RecordBatch {
        let Accepted { found, way, delivery, event, name, skip } = accepted;
        let file = Arc::clone(self.place.file());
        let mut batch = RecordBatch::new(self.options.index, file, shared.clock.now());
        let delivery: Option<Arc<str>> = delivery.map(Into::into);
        let said = event.map(|kind| named(&kind));
        let mut memory = self.memory();
        for (number, record) in (0_u64..).zip(&found) {
            if number < skip {
                continue;
            }
            let part = name.filter(|_| found.len() > 1);
            let known = Known {
                delivery: delivery.clone().map(|delivery| (delivery, number)),
                cursor: None,
                said: said.clone(),
                mark: part.map(|name| memory.value(&name, Some(number + 1))),
            };
            batch.add(record, Offset(0), &way, None, Some(known));
        }
        if let Some(name) = name {
            batch.mark_key = memory::key(&name);
            batch.marks = memory.too_many();
            batch.marks.push(Mark {
                key: memory::key(&name),
                value: Some(memory.value(&name, None)),
                also_when_dropped: false,
            });
        }
        drop(memory);
        self.place.number(&mut batch);
        batch
    }
}

/// The envelope of a delivery whose event has a name.
fn named(event: &str) -> SaidBy {
    SaidBy::of(&Said { kind: Some(event), ..Said::default() })
}

enum Packing {
    Plain,
    Gzip,
    Other,
}

fn packing(parts: &http::request::Parts) -> Packing {
    match parts.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity" | b"") => Packing::Plain,
        Some(b"gzip" | b"x-gzip") => Packing::Gzip,
        Some(_) => Packing::Other,
    }
}
