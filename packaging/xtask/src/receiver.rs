//! A receiver that stands for the collector and remembers: it takes blocks as a collector does,
//! checks each against the chain, and checks each event against the log that the agent reads.
//!
//! The log's lines are all [`LINE_BYTES`] long and numbered, so that what was delivered is one
//! number: the next line. A line too early was skipped (the position ran ahead of its events), a
//! line once more was read twice. Whatever should not be is kept as a sentence in `wrong`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use custody_event::{Block, Digest, EventView, StreamId};
use custody_evidence::{Chain, Place, PublicKey};
use serde_json::{Value, json};

use crate::http::{Handler, Request, Response, Server};

/// The source's id in the agent's configuration.
const SOURCE: &str = "log";
/// Each line of the log, with its line end.
pub(crate) const LINE_BYTES: u64 = 96;
/// More sentences than this say nothing new.
const MAX_WRONG: usize = 20;

/// Line `number` of the log, [`LINE_BYTES`] long.
pub(crate) fn line(number: u64) -> String {
    let text = format!(
        "Nov  9 08:07:06 web1 sshd[77]: Failed password for u{number:09} from 192.0.2.1 port 4022 ssh2"
    );
    let width = usize::try_from(LINE_BYTES - 1).unwrap_or(0);
    format!("{text:.<width$}\n")
}

fn number_of(raw: &str) -> Option<u64> {
    let (_, rest) = raw.split_once(" for u")?;
    rest.get(..9)?.parse().ok()
}

/// Everything that was received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    streams: BTreeMap<StreamId, StreamHeld>,
    keys: Vec<PublicKey>,
    /// The next line of the log.
    pub(crate) next_line: u64,
    /// What should not be.
    pub(crate) wrong: Vec<String>,
}

#[derive(Debug, Clone)]
struct StreamHeld {
    chain: Chain,
    hashes: Vec<Digest>,
}

impl Held {
    /// Streams, each with the number of its next block.
    pub(crate) fn streams(&self) -> Vec<(StreamId, u64)> {
        self.streams.iter().map(|(id, held)| (*id, held.chain.next_seq.get())).collect()
    }

    /// The next block of the stream with this id, as text.
    pub(crate) fn next_seq(&self, stream: &str) -> u64 {
        self.streams().iter().find(|(id, _)| id.to_string() == stream).map_or(0, |(_, next)| *next)
    }

    fn blame(&mut self, sentence: String) {
        if self.wrong.len() < MAX_WRONG {
            self.wrong.push(sentence);
        }
    }

    fn enroll(&mut self, body: &[u8]) -> Response {
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        let key = said.get("key").and_then(Value::as_str).unwrap_or_default();
        match PublicKey::from_hex(key) {
            Ok(key) => {
                self.keys.push(key);
                Response::json(200, &json!({ "token": "power-cut" }))
            }
            Err(error) => Response::json(422, &json!({ "detail": error.to_string() })),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Response {
        let block = match Block::decode(bytes) {
            Ok(block) => block,
            Err(error) => {
                self.blame(format!("a torn block was sent: {error}"));
                return Response::json(422, &json!({ "detail": error.to_string() }));
            }
        };
        let seq = block.header.seq.get();
        let stream = block.header.stream;
        let held = self
            .streams
            .entry(stream)
            .or_insert_with(|| StreamHeld { chain: Chain::new(stream), hashes: Vec::new() });
        match held.chain.place(block.header.seq) {
            Place::Later => {
                return Response::json(409, &json!({ "expected_seq": held.chain.next_seq.get() }));
            }
            Place::Earlier => {
                let known =
                    usize::try_from(seq).ok().and_then(|index| held.hashes.get(index).copied());
                if known != Some(block.hash()) {
                    self.blame(format!(
                        "block {seq} came again with other content: the first one was lost"
                    ));
                }
            }
            Place::Next => self.take_next(&block),
        }
        let next = self.streams.get(&stream).map_or(0, |held| held.chain.next_seq.get());
        Response::json(200, &json!({ "next_seq": next }))
    }

    fn take_next(&mut self, block: &Block) {
        let seq = block.header.seq;
        if !self.keys.iter().any(|key| key.verify(block).is_ok()) {
            self.blame(format!("block {seq} has no good signature"));
        }
        let Some(held) = self.streams.get_mut(&block.header.stream) else { return };
        let broken = held.chain.check(block).err();
        held.chain.advance(block);
        held.hashes.push(block.hash());
        if let Some(error) = broken {
            self.blame(error.to_string());
        }
        match block.open() {
            Ok(opened) => {
                for (_, event) in opened.events() {
                    self.take_event(event);
                }
            }
            Err(error) => self.blame(format!("block {seq} cannot be opened: {error}")),
        }
        self.check_coverage(block);
    }

    fn take_event(&mut self, event: &[u8]) {
        let event: EventView<'_> = match serde_json::from_slice(event) {
            Ok(event) => event,
            Err(error) => return self.blame(format!("an event cannot be read: {error}")),
        };
        if event.origin.input.as_deref() != Some(SOURCE) {
            if event.tags.iter().any(|tag| tag == "gap") {
                self.blame(format!("a gap: {}", event.message.as_deref().unwrap_or_default()));
            }
            return;
        }
        let raw = event.origin.raw.as_deref().unwrap_or_default();
        let offset = event.origin.offset.unwrap_or(u64::MAX);
        match number_of(raw) {
            Some(number) if number.checked_mul(LINE_BYTES) == Some(offset) => {
                self.take_line(number)
            }
            _ => self.blame(format!("an event that is no line of the log, offset {offset}: {raw}")),
        }
    }

    fn take_line(&mut self, number: u64) {
        let next = self.next_line;
        if number < next {
            self.blame(format!(
                "line {number} came again (expected {next}): the position fell behind its events"
            ));
            return;
        }
        if number > next {
            self.blame(format!(
                "lines {next} to {} are missing: the position ran ahead of its events",
                number - 1
            ));
        }
        self.next_line = number + 1;
    }

    /// What the block says that it covers must end where its last line ends.
    fn check_coverage(&mut self, block: &Block) {
        match block.coverage() {
            Ok(all) => {
                if let Some(last) = all.iter().rfind(|coverage| coverage.source == SOURCE)
                    && last.to.get() != self.next_line * LINE_BYTES
                {
                    let (to, next) = (last.to.get(), self.next_line * LINE_BYTES);
                    self.blame(format!(
                        "block {} covers up to byte {to}, its events up to {next}",
                        block.header.seq
                    ));
                }
            }
            Err(error) => self.blame(format!("block {}: {error}", block.header.seq)),
        }
    }

    fn answer(&mut self, request: &Request) -> Response {
        match request.path.as_str() {
            "/v1/enroll" => self.enroll(&request.body),
            path if path.starts_with("/v1/streams/") => self.take(&request.body),
            _ => Response::json(404, &json!({ "detail": "not here" })),
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    held: Held,
    away: bool,
}

/// The running receiver.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) server: Server,
    inner: Arc<Mutex<Inner>>,
}

/// Nothing is received and nothing answered while this lives.
#[derive(Debug)]
pub(crate) struct Frozen<'a>(MutexGuard<'a, Inner>);

impl Frozen<'_> {
    pub(crate) fn held(&self) -> Held {
        self.0.held.clone()
    }
}

impl Receiver {
    /// One that holds already what `held` says.
    pub(crate) fn start(held: Held) -> anyhow::Result<Self> {
        let inner = Arc::new(Mutex::new(Inner { held, away: false }));
        let shared = Arc::clone(&inner);
        let handler: Handler = Arc::new(move |request| {
            let mut inner = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if inner.away {
                return Response::json(503, &json!({ "detail": "away" }));
            }
            inner.held.answer(&request)
        });
        let server = Server::start(Arc::new(move || Arc::clone(&handler)))?;
        Ok(Self { server, inner })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers 503 from now on, or no longer.
    pub(crate) fn set_away(&self, away: bool) {
        self.inner().away = away;
    }

    /// Stops everything until the guard goes.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        Frozen(self.inner())
    }

    /// Looks at what is held.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&Held) -> T) -> T {
        at(&self.inner().held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_one_length_and_give_their_number_back() {
        for number in [0, 1, 123_456_789] {
            let line = line(number);
            assert_eq!(crate::numbers::len(line.len()), LINE_BYTES);
            assert_eq!(number_of(&line), Some(number));
        }
    }

    #[test]
    fn a_line_twice_and_a_line_skipped_are_told() {
        let mut held = Held::default();
        held.take_line(0);
        held.take_line(1);
        assert!(held.wrong.is_empty());
        held.take_line(1);
        held.take_line(4);
        assert_eq!(held.wrong.len(), 2);
        assert!(held.wrong[1].contains("lines 2 to 3"), "{:?}", held.wrong);
        assert_eq!(held.next_line, 5);
    }
}
