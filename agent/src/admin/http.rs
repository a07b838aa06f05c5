//! `admin.metrics`: three pages over plain HTTP/1, for a Prometheus on this host or its network.
//!
//! | path | what |
//! |---|---|
//! | `/metrics` | the numbers ([`super::metrics`]) |
//! | `/healthz` | 200 while the agent answers |
//! | `/readyz` | 200 while events are taken and delivered, else 503 with a line for each reason |
//!
//! It shows numbers, names of sources and hosts, no event and no secret, and nothing can be changed through it. At most
//! [`MAX_CONNECTIONS`] at once; a request must come within [`HEADER_TIMEOUT`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use custody_config::shell::{StopToken, metrics::CONTENT_TYPE as METRICS_TYPE};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::Answer;
use crate::status::Status;

/// Connections at once: a scraper or two.
const MAX_CONNECTIONS: usize = 16;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

type Page = Response<Full<Bytes>>;

/// The listening socket.
#[derive(Debug)]
pub struct Pages {
    listener: TcpListener,
}

impl Pages {
    /// Binds.
    ///
    /// # Errors
    /// The address is taken, or not this host's.
    pub async fn bind(at: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(at).await? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until stopped.
    pub async fn serve(self, answer: Answer, stop: StopToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            let accepted = tokio::select! {
                () = stop.stopped() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (answer, stop) = (Arc::clone(&answer), stop.clone());
                    connections.spawn(async move {
                        requests(stream, answer, stop).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    log::warn!("the metrics listener cannot accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        connections.close();
        connections.wait().await;
    }
}

async fn requests(stream: TcpStream, answer: Answer, stop: StopToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let page = page(&request, &answer);
        async move { Ok::<_, Infallible>(page) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        log::debug!("a metrics client went away: {error}");
    }
}

fn page<B>(request: &Request<B>, answer: &Answer) -> Page {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return shown(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET alone\n");
    }
    match request.uri().path() {
        "/metrics" => shown(StatusCode::OK, METRICS_TYPE, super::metrics::text(answer())),
        "/healthz" => shown(StatusCode::OK, "text/plain", "ok\n"),
        "/readyz" => match obstacles(&answer()) {
            none if none.is_empty() => shown(StatusCode::OK, "text/plain", "ready\n"),
            reasons => shown(StatusCode::SERVICE_UNAVAILABLE, "text/plain", reasons),
        },
        _ => shown(StatusCode::NOT_FOUND, "text/plain", "/metrics, /healthz, /readyz\n"),
    }
}

/// What keeps events from being taken or delivered, a line each.
fn obstacles(status: &Status) -> String {
    let mut lines = String::new();
    let mut say = |what: &str, why: &str| {
        for part in [what, ": ", why, "\n"] {
            lines.push_str(part);
        }
    };
    if let Some(why) = &status.spool.waiting {
        say("spool", why);
    }
    for output in &status.outputs {
        if let Some(why) = output.trouble.as_deref().filter(|_| output.state != "delivering") {
            say(&format!("output {}", output.id), why);
        }
    }
    lines
}

fn shown(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(text.into()));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    page
}
