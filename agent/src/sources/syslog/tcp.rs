//! Streams (RFC 6587), plain or within TLS (RFC 5425): a thread for each connection.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::frame::Framer;
use super::limit::{Connections, Rate};
use super::{LOOK_EVERY, Shared, Transport, way_of};
use crate::sources::{Item, Notice, Outlet, Stopped};

/// Read at once.
const READ_BYTES: usize = 64 * 1024;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection whose sender goes on sending is read after the source was told to stop.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(super) fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

type Places = Arc<Mutex<Connections>>;

/// Accepts until it is told to stop; then waits for the connections' last words.
pub(super) fn run<O>(
    shared: &Arc<Shared>,
    listener: &TcpListener,
    outlet: &mut O,
) -> Result<(), Stopped>
where
    O: Outlet + Clone + 'static,
{
    let options = &shared.options;
    let places: Places = Arc::new(Mutex::new(Connections::new(
        options.max_connections,
        options.max_connections_per_peer,
    )));
    let mut threads: Vec<JoinHandle<Result<(), Stopped>>> = Vec::new();
    let mut ended = Ok(());
    while ended.is_ok() && !outlet.is_stopped() {
        if is_readable(listener) {
            while let Some((stream, peer)) = accepted(shared, listener) {
                threads.extend(begin(shared, stream, peer, &places, outlet));
            }
        }
        threads.retain(|thread| !thread.is_finished());
        ended = shared.tell_refusals(outlet, false);
    }
    for thread in threads {
        match thread.join() {
            Ok(result) => ended = ended.and(result),
            Err(_) => log::error!("a connection's thread has panicked; the message is above"),
        }
    }
    ended
}

fn is_readable(listener: &TcpListener) -> bool {
    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK_EVERY.subsec_nanos()) };
    let mut polled = [PollFd::new(listener, PollFlags::IN)];
    // An interrupted wait is one that was over early.
    rustix::event::poll(&mut polled, Some(&wait)).is_ok_and(|count| count > 0)
}

fn accepted(shared: &Shared, listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept() {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
                shared.trouble(Some(format!("a connection could not be accepted: {error}")));
                // Out of descriptors: trying at once would burn a processor.
                std::thread::sleep(LOOK_EVERY);
            }
            None
        }
    }
}

fn lock(places: &Places) -> MutexGuard<'_, Connections> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread for the connection, if there is a place for it.
fn begin<O>(
    shared: &Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    places: &Places,
    outlet: &O,
) -> Option<JoinHandle<Result<(), Stopped>>>
where
    O: Outlet + Clone + 'static,
{
    if !lock(places).enter(peer.ip()) {
        shared.refuse("too_many_connections", "A sender has too many connections.", peer);
        return None;
    }
    show(shared, places);
    let (shared, ours, mut outlet) = (Arc::clone(shared), Arc::clone(places), outlet.clone());
    let thread = std::thread::Builder::new().name("syslog-peer".into()).spawn(move || {
        let ended = serve(&shared, stream, peer, &mut outlet);
        lock(&ours).leave(peer.ip());
        show(&shared, &ours);
        ended
    });
    thread
        .inspect_err(|error| {
            lock(places).leave(peer.ip());
            log::error!("no thread for a connection: {error}");
        })
        .ok()
}

fn show(shared: &Shared, places: &Places) {
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    state.files = u64::from(lock(places).all());
}

fn serve(
    shared: &Shared,
    stream: TcpStream,
    peer: SocketAddr,
    outlet: &mut dyn Outlet,
) -> Result<(), Stopped> {
    // Accepted sockets do not take over that the listener does not block.
    let set =
        stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(LOOK_EVERY)));
    if let Err(error) = set {
        log::warn!(peer:% = peer; "a connection could not be set up: {error}");
        return Ok(());
    }
    match &shared.options.transport {
        Transport::Tls(config) => match handshake(shared, stream, config, outlet) {
            Ok(stream) => read(shared, stream, peer, outlet),
            Err(error) => {
                let text = format!("A sender's TLS handshake failed: {error}.");
                shared.refuse("tls_handshake", &text, peer);
                Ok(())
            }
        },
        Transport::Udp | Transport::Tcp => read(shared, stream, peer, outlet),
    }
}

fn handshake(
    shared: &Shared,
    mut stream: TcpStream,
    config: &Arc<ServerConfig>,
    outlet: &dyn Outlet,
) -> std::io::Result<StreamOwned<ServerConnection, TcpStream>> {
    let mut connection =
        ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let until = shared.clock.monotonic() + HANDSHAKE;
    while connection.is_handshaking() {
        match connection.complete_io(&mut stream) {
            Ok(_) => {}
            Err(error) if is_pause(&error) => {
                if shared.clock.monotonic() >= until || outlet.is_stopped() {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(StreamOwned::new(connection, stream))
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Reads a connection to its end.
fn read(
    shared: &Shared,
    mut stream: impl Read,
    peer: SocketAddr,
    outlet: &mut dyn Outlet,
) -> Result<(), Stopped> {
    let way = way_of(peer);
    let mut framer = Framer::new(shared.options.max_message_bytes);
    let mut buffer = vec![0; READ_BYTES];
    let mut batch = shared.batch();
    let now = || shared.clock.monotonic();
    let mut rate = Rate::new(shared.options.max_bytes_per_second, now());
    let (mut heard, mut stopping) = (now(), None);
    loop {
        if outlet.is_stopped() {
            let since = *stopping.get_or_insert_with(now);
            if now().saturating_sub(since) > LAST_WORDS {
                break;
            }
        }
        let bytes = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => &buffer[..len],
            Err(error) if is_pause(&error) => {
                let idle = now().saturating_sub(heard) > shared.options.idle_timeout;
                if stopping.is_some() || idle { break } else { continue }
            }
            Err(error) => {
                log::debug!(peer:% = peer; "a connection ended: {error}");
                break;
            }
        };
        heard = now();
        let mut given = Ok(());
        framer.feed(bytes, |message, piece| {
            if given.is_ok() && !message.is_empty() {
                given = shared.add(&mut batch, (message, piece), &way, outlet);
            }
        });
        given?;
        shared.put(&mut batch, outlet)?;
        let pause = rate.pause(bytes.len(), now());
        if !pause.is_zero() {
            shared.refuse(
                "too_much",
                "A sender is beyond its limit of bytes and is read slowly.",
                peer,
            );
            outlet.is_stopped_after(pause);
        }
    }
    let mut given = Ok(());
    let missing = framer.end(|message, piece| {
        given = shared.add(&mut batch, (message, piece), &way, outlet);
    });
    given?;
    shared.put(&mut batch, outlet)?;
    tell_missing(shared, peer, missing, outlet)
}

fn tell_missing(
    shared: &Shared,
    peer: SocketAddr,
    missing: usize,
    outlet: &mut dyn Outlet,
) -> Result<(), Stopped> {
    if missing == 0 {
        return Ok(());
    }
    let text =
        format!("{peer} ended its connection within a message: {missing} bytes of it never came.");
    let gap = shared.gap("message_cut_short", text);
    outlet.put(Item::Gap(Notice { bytes: u64::try_from(missing).ok(), ..gap }))
}
