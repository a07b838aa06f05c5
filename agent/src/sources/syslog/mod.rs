//! The syslog source: messages over UDP, TCP and TLS.
//!
//! **Life of a message.** A datagram, or a piece of a stream ([`frame`]), becomes a record with its
//! peer's address in `details.peer`; what came together goes on together. Time, host and program
//! are read from the message by the packs, as from a file.
//!
//! **Limits.** [`Options::max_message_bytes`] a message (longer ones come as numbered segments);
//! connections in all and of one address; bytes a second of one address. A connection costs a
//! thread, 64 KiB and at most one message that is not whole yet.
//!
//! **Back-pressure.** While the pipeline is full nothing is read. A TCP sender waits then. A UDP
//! sender cannot be told: the kernel keeps some ([`udp::RECEIVE_BYTES`] are asked for) and drops
//! the rest, and what it has dropped it counts; the count becomes a gap.
//!
//! **Failures.** Syslog has no answers: a sender believes that what the network took is kept. What
//! was read and is not durable when the agent is killed is lost, and nobody knows it; whoever needs
//! more sends by a protocol with answers. An agent that is stopped in order reads what has arrived
//! and makes it durable. A connection that ends within a counted message is a gap with the bytes
//! that are missing; somebody turned away is a security event.

mod frame;
mod limit;
mod tcp;
mod udp;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz {
    //! For [`crate::fuzz`].
    pub(crate) use super::frame::Framer;
}

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use custody_event::Clock;
use rustls::ServerConfig;

use super::refusals::Refusals;
use super::{
    Item, Notice, Outlet, Place, RecordBatch, SharedSourceState, SourceIndex, Stopped, Way,
};

/// How often a source that waits looks whether it should end.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long after a failed bind it is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// How messages come.
#[derive(Debug, Clone)]
pub enum Transport {
    /// One a datagram.
    Udp,
    /// A stream.
    Tcp,
    /// A stream within TLS.
    Tls(Arc<ServerConfig>),
}

/// A syslog source's settings.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How messages come.
    pub transport: Transport,
    /// A longer message comes in pieces of this length.
    pub max_message_bytes: usize,
    /// Connections at once.
    pub max_connections: u32,
    /// Connections at once of one address.
    pub max_connections_per_peer: u32,
    /// Bytes a second of one address; 0: no limit.
    pub max_bytes_per_second: u64,
    /// A connection that is silent for so long is closed.
    pub idle_timeout: Duration,
}

/// The source: [`SyslogSource::run`] is its thread.
#[derive(Clone)]
pub struct SyslogSource {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    index: SourceIndex,
    clock: Arc<dyn Clock>,
    place: Place,
    refusals: Refusals,
    state: Arc<SharedSourceState>,
    /// The address that is listened on, for people.
    endpoint: String,
}

impl SyslogSource {
    /// A source; `name` is random: it names the place of the records that this run receives.
    #[must_use]
    pub fn new(
        options: Options,
        index: SourceIndex,
        clock: Arc<dyn Clock>,
        name: [u8; 16],
        state: Arc<SharedSourceState>,
    ) -> Self {
        let word = match options.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls(_) => "tls",
        };
        let endpoint = format!("{word} {}", options.listen);
        let place = Place::new(name, endpoint.clone());
        let refusals = Refusals::default();
        Self {
            shared: Arc::new(Shared { options, index, clock, place, refusals, state, endpoint }),
        }
    }

    /// Receives until it is told to stop.
    ///
    /// # Errors
    /// The pipeline has stopped.
    pub fn run<O>(self, mut outlet: O) -> Result<(), Stopped>
    where
        O: Outlet + Clone + 'static,
    {
        let ended = match self.shared.options.transport {
            Transport::Udp => match bound(&self.shared, &mut outlet, udp::bind) {
                Some(socket) => udp::run(&self.shared, &socket, &mut outlet),
                None => Ok(()),
            },
            Transport::Tcp | Transport::Tls(_) => {
                match bound(&self.shared, &mut outlet, tcp::bind) {
                    Some(listener) => tcp::run(&self.shared, &listener, &mut outlet),
                    None => Ok(()),
                }
            }
        };
        // The pipeline takes what is left of this as long as it stands.
        let _told = self.shared.tell_refusals(&mut outlet, true);
        ended
    }
}

/// Binds; where that fails it says so, in the log once and in the status, and tries again.
fn bound<T>(
    shared: &Shared,
    outlet: &mut dyn Outlet,
    bind: impl Fn(SocketAddr) -> std::io::Result<T>,
) -> Option<T> {
    let mut said = false;
    loop {
        match bind(shared.options.listen) {
            Ok(socket) => {
                shared.trouble(None);
                log::info!(endpoint = shared.endpoint.as_str(); "listening for syslog");
                return Some(socket);
            }
            Err(error) => {
                let text = format!(
                    "cannot listen on {}: {error}; choose another `listen`, or end who has it",
                    shared.endpoint
                );
                if !said {
                    log::error!("{text}");
                    said = true;
                }
                shared.trouble(Some(text));
            }
        }
        if outlet.is_stopped_after(BIND_AGAIN) {
            return None;
        }
    }
}

impl Shared {
    fn trouble(&self, text: Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.trouble = text;
    }

    fn refuse(&self, code: &'static str, text: &str, peer: SocketAddr) {
        self.refusals.note(self.index, code, text, &self.endpoint, Some(peer));
    }

    fn tell_refusals(&self, outlet: &mut dyn Outlet, all: bool) -> Result<(), Stopped> {
        for refused in self.refusals.due(self.clock.monotonic(), self.clock.now(), all) {
            outlet.put(Item::Refused(refused))?;
        }
        Ok(())
    }

    fn gap(&self, code: &'static str, text: String) -> Notice {
        let path = Some(self.endpoint.clone());
        Notice { path, ..Notice::new(self.index, code, text, self.clock.now()) }
    }

    fn batch(&self) -> RecordBatch {
        RecordBatch::new(self.index, Arc::clone(self.place.file()), self.clock.now())
    }

    /// Hands on what was gathered, and begins anew.
    fn put(&self, batch: &mut RecordBatch, outlet: &mut dyn Outlet) -> Result<(), Stopped> {
        if batch.records.is_empty() {
            return Ok(());
        }
        let mut full = std::mem::replace(batch, self.batch());
        self.place.number(&mut full);
        outlet.put(Item::Batch(full))
    }

    /// Adds a message; a full batch is handed on first.
    fn add(
        &self,
        batch: &mut RecordBatch,
        message: (&[u8], Option<u32>),
        way: &Arc<Way>,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        let (message, segment) = message;
        if !batch.has_room(message.len()) {
            self.put(batch, outlet)?;
        }
        if batch.records.is_empty() {
            batch.observed = self.clock.now();
        }
        batch.add(message, custody_event::Offset(0), way, segment, None);
        Ok(())
    }
}

fn way_of(peer: SocketAddr) -> Arc<Way> {
    Arc::new(Way { details: vec![("peer".into(), peer.to_string())], ..Way::default() })
}

#[cfg(test)]
mod tests;
