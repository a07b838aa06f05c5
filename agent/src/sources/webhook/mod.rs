//! The webhook sources: one listener, an endpoint for each path.
//!
//! **Life of a request.** Its path names the endpoint. The body is read (bounded), its sender is
//! recognised ([`verify`]), it is unpacked and cut into records ([`body`]), and its delivery id is
//! looked up ([`memory`]). The records go into the pipeline as one batch, together with the memory
//! of the delivery; requests of a single record that come at the same time share one ([`gather`]).
//! Only when both are durable is the request answered with 200. A delivery that comes again is
//! answered with 200 and not stored again.
//!
//! **Limits.** A body per endpoint (also unpacked), at most 1,000 records; connections; and
//! [`serve::BODIES_BYTES`] of bodies at once, whoever sends them. Who sends slowly is cut off after
//! [`serve::BODY_TIMEOUT`].
//!
//! **Answers.** 200 stored (or stored before, or a handshake); 401 not recognised; 404 no such path;
//! 405; 408; 409 a delivery id that was used for another body; 413 too large; 415 a packing other
//! than gzip; 400 no body, or gzip that is none; 503 with `Retry-After`: the spool is full or did
//! not make it durable in time, or the same delivery is under way. Nothing else is 5xx.
//!
//! **Failures.** 503 after the time is over does not mean that the records are lost: they may become
//! durable later. Where the sender has a delivery id, the repetition is then known; where it has
//! none, it is stored twice. Who is refused becomes a security event, at most one a minute for each
//! reason and path, with the number. Secrets and headers are never shown.

mod body;
mod gather;
mod memory;
mod serve;
mod verify;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz {
    //! For [`crate::fuzz`].
    pub(crate) use super::body::{records, unpacked};
}

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use custody_event::Clock;
use rustls::ServerConfig;

use super::refusals::Refusals;
use super::{Hatch, Place, SavedMarks, SharedSourceState, SourceIndex};
use memory::Memory;
pub use verify::{Asked, Judged, Refusal, Verifier};

/// One endpoint's settings.
#[derive(Debug)]
pub struct EndpointOptions {
    /// The source's number.
    pub index: SourceIndex,
    /// Its id.
    pub id: String,
    /// The path of its URL.
    pub path: String,
    /// Recognises its sender.
    pub verifier: Verifier,
    /// A larger body is refused.
    pub max_body_bytes: usize,
    /// The list in a body whose elements are records: `data.events`; empty for none.
    pub split: String,
    /// Deliveries that are remembered.
    pub remember: usize,
}

/// The listener's settings and its endpoints.
#[derive(Debug)]
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How it shows itself.
    pub tls: Option<Arc<ServerConfig>>,
    /// Connections at once.
    pub max_connections: usize,
    /// Who waits longer is told to come again.
    pub answer_within: Duration,
    /// The endpoints.
    pub endpoints: Vec<EndpointOptions>,
}

/// One endpoint at work.
struct Endpoint {
    options: EndpointOptions,
    place: Place,
    memory: Mutex<Memory>,
    line: Mutex<gather::Line>,
    state: Arc<SharedSourceState>,
}

impl Endpoint {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listener: [`Server::run`] is its thread.
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    listen: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    max_connections: usize,
    answer_within: Duration,
    endpoints: HashMap<String, Arc<Endpoint>>,
    /// The endpoint whose source speaks for the listener as a whole.
    first: SourceIndex,
    clock: Arc<dyn Clock>,
    hatch: Arc<dyn Hatch>,
    refusals: Refusals,
}

impl Server {
    /// A listener with its endpoints; `remembered` and `states` are theirs, in the same order.
    /// `random` names the place of the records that each receives in this run.
    ///
    /// # Errors
    /// `random` fails.
    pub fn new(
        options: Options,
        remembered: Vec<SavedMarks>,
        states: &[Arc<SharedSourceState>],
        clock: Arc<dyn Clock>,
        random: impl Fn() -> anyhow::Result<[u8; 16]>,
        hatch: Arc<dyn Hatch>,
    ) -> anyhow::Result<Self> {
        let mut endpoints = HashMap::new();
        let first = options.endpoints.first().map_or(SourceIndex(0), |endpoint| endpoint.index);
        for ((endpoint, saved), state) in options.endpoints.into_iter().zip(remembered).zip(states)
        {
            let place = Place::new(random()?, endpoint.path.clone());
            let memory = Mutex::new(Memory::new(endpoint.remember, &saved));
            let path = endpoint.path.clone();
            let (line, state) = (Mutex::default(), Arc::clone(state));
            let endpoint = Endpoint { options: endpoint, place, memory, line, state };
            endpoints.insert(path, Arc::new(endpoint));
        }
        Ok(Self {
            shared: Arc::new(Shared {
                listen: options.listen,
                tls: options.tls,
                max_connections: options.max_connections,
                answer_within: options.answer_within,
                endpoints,
                first,
                clock,
                hatch,
                refusals: Refusals::default(),
            }),
        })
    }

    /// Serves until it is told to stop and requests under way are answered.
    ///
    /// # Errors
    /// Threads or the event queue cannot be made.
    pub fn run(self, stop: custody_config::shell::StopToken) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("webhook")
            .enable_all()
            .build()?;
        runtime.block_on(serve::serve(self.shared, stop));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
