//! Accepts connections and serves them until told to stop; then drains.
//!
//! Limits: [`MAX_CONNECTIONS`] at once (more wait in the kernel's queue), 10 s for a TLS
//! handshake, 60 s for headers (and for the next request on a kept connection), 128 requests at
//! once on one HTTP/2 connection. When the stop comes, no connection is accepted any more,
//! requests under way are finished, and after [`DRAIN`] the rest is cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use custody_config::shell::StopToken;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::metrics::Counters;
use super::tls::Certificates;
use super::{Peer, Shown};

/// Connections at once: an agent holds four.
const MAX_CONNECTIONS: usize = 4096;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_STREAMS: u32 = 128;
/// A block fits into one window, so that it crosses the wire without waiting.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// How long requests under way may take once the stop has come.
const DRAIN: Duration = Duration::from_secs(20);
/// After a failed handshake so long, and so many reads of four KiB, are given to the other side.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_READS: usize = 16;
/// Pause after a failed accept (out of descriptors): trying at once would burn a processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

struct Server {
    http: Builder<TokioExecutor>,
    tls: Option<Arc<Certificates>>,
    router: Router,
    counters: Arc<Counters>,
    stop: StopToken,
}

/// Serves `router` on `listener` until `stop` is set and requests under way are finished.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Certificates>>,
    router: Router,
    counters: Arc<Counters>,
    stop: StopToken,
) {
    let server = Arc::new(Server { http: http(), tls, router, counters, stop: stop.clone() });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = stop.stopped() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, addr)) => {
                connections.spawn(connection(Arc::clone(&server), stream, addr, place));
            }
            Err(error) => {
                log::warn!(error:% = error; "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        log::warn!(connections = connections.len(); "connections were cut after the drain's time");
    }
}

fn http() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    http
}

async fn connection(
    server: Arc<Server>,
    stream: TcpStream,
    addr: SocketAddr,
    _place: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        log::debug!(error:% = error, peer:% = addr; "TCP_NODELAY could not be set");
    }
    server.counters.connected();
    let Some(tls) = &server.tls else {
        return requests(&server, stream, Peer { addr, shown: None }).await;
    };
    let handshake = tls.acceptor().accept(stream).into_fallible();
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates();
            let shown = certificates.and_then(<[_]>::first).map(Shown::of);
            requests(&server, stream, Peer { addr, shown }).await;
        }
        Ok(Err((error, stream))) => {
            server.counters.handshake_failed();
            log::warn!(error:% = error, peer:% = addr; "a TLS handshake failed");
            let_read(stream).await;
        }
        Err(_) => {
            server.counters.handshake_failed();
            log::warn!(peer:% = addr; "a TLS handshake took too long");
        }
    }
}

/// Lets the other side read why its handshake failed: where bytes of its own are still unread, closing would reset the
/// connection, and it would learn nothing.
async fn let_read(mut stream: TcpStream) {
    let read = async {
        let mut rest = [0; 4096];
        if stream.shutdown().await.is_err() {
            return;
        }
        for _ in 0..FAREWELL_READS {
            match stream.read(&mut rest).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    if tokio::time::timeout(FAREWELL, read).await.is_err() {
        log::debug!("a connection whose handshake failed was not ended by the other side");
    }
}

async fn requests<S>(server: &Server, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (router, counters) = (server.router.clone(), Arc::clone(&server.counters));
    let asked = Arc::new(AtomicBool::new(false));
    let first = Arc::clone(&asked);
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        first.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer);
        let answer = router.clone().oneshot(request.map(Body::new));
        let counters = Arc::clone(&counters);
        async move { answer.await.inspect(|answer| counters.answered(answer.status())) }
    });
    let connection = server.http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // Until it is known which HTTP is spoken, nobody else counts the time.
    let silent = async {
        tokio::time::sleep(HEADER_TIMEOUT).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = silent => {
            log::debug!(peer:% = peer.addr; "a connection that asked for nothing was closed");
            return;
        }
        () = server.stop.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        log::debug!(error:% = error, peer:% = peer.addr; "a connection ended early");
    }
}
