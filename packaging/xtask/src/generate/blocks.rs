//! Signed blocks, made without an agent: what the collector is fed with.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use custody_event::block::{Accounts, Placement};
use custody_event::position::{FileIdentity, Fingerprint, event_id};
use custody_event::{
    AgentId, Coverage, Digest, Draft, Offset, Sealer, Seq, SourceBook, StreamId, Timestamp,
};
use custody_evidence::AgentKey;

use super::draft::Envelope;
use super::{Act, Random};
use crate::numbers::len;

const SOURCE: &str = "bench";

/// One agent's one stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) agent: AgentId,
    pub(crate) stream: StreamId,
    pub(crate) host: String,
    key: AgentKey,
    random: Random,
    sealer: Sealer,
    next_seq: Seq,
    prev: Digest,
    file: FileIdentity,
    offset: Offset,
    book: SourceBook,
    text: Vec<u8>,
}

impl Stream {
    /// Agent, key and stream follow from the seed.
    pub(crate) fn new(seed: u64) -> anyhow::Result<Self> {
        let mut random = Random::new(seed);
        let agent = AgentId(random.bytes());
        let host = custody_event::EventId(random.bytes()).to_string();
        let file = FileIdentity {
            born_ns: 1_700_000_000_000_000_000,
            dev: 1,
            fingerprint: Fingerprint(random.bytes()),
            generation: 0,
            ino: random.below(1 << 40),
        };
        Ok(Self {
            agent,
            stream: StreamId(random.bytes()),
            host,
            key: AgentKey::from_secret(&random.bytes()),
            random,
            sealer: Sealer::new()?,
            next_seq: Seq(0),
            prev: Digest::ZERO,
            file,
            offset: Offset(0),
            book: SourceBook::default(),
            text: Vec::new(),
        })
    }

    /// The public key as enrolment wants it.
    pub(crate) fn key(&self) -> &AgentKey {
        &self.key
    }

    /// Where block `seq` is posted.
    pub(crate) fn path(&self, seq: u64) -> String {
        format!("/v1/streams/{}/{}/blocks/{seq}", self.agent, self.stream)
    }

    /// The number of the next block.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq.get()
    }

    /// The next block, encoded. There must be an act.
    pub(crate) fn block(&mut self, acts: &[Act], sealed: Timestamp) -> anyhow::Result<Vec<u8>> {
        let from = self.offset;
        self.write_events(acts);
        let times = acts.iter().map(|act| act.time);
        let first = times.clone().min().unwrap_or(sealed);
        let last = times.max().unwrap_or(sealed);
        let body = self.sealer.seal(&self.text, (first, last), self.random.bytes())?;
        self.book.read += len(acts.len());
        self.book.stored += len(acts.len());
        let placement = Placement {
            agent: self.agent,
            host: self.host.clone(),
            key: self.key.id(),
            stream: self.stream,
            seq: self.next_seq,
            prev: self.prev,
            sealed,
        };
        let coverage = Coverage {
            file: self.file.clone(),
            from,
            path: "/var/log/bench.log".to_owned(),
            records: len(acts.len()),
            source: SOURCE.to_owned(),
            to: self.offset,
        };
        let books = BTreeMap::from([(SOURCE.to_owned(), self.book)]);
        let mut block = body.place(placement, Accounts { coverage: vec![coverage], books });
        self.key.sign(&mut block);
        self.prev = block.hash();
        self.next_seq = self.next_seq.next();
        Ok(block.encode()?)
    }

    /// How long it takes to hash and pack the events of these acts, and nothing else.
    pub(crate) fn time_to_seal(&mut self, acts: &[Act]) -> anyhow::Result<Duration> {
        self.write_events(acts);
        let time = acts.first().map_or(Timestamp::Y2020, |act| act.time);
        let begun = Instant::now();
        self.sealer.seal(&self.text, (time, time), [7; 32])?;
        Ok(begun.elapsed())
    }

    fn write_events(&mut self, acts: &[Act]) {
        self.text.clear();
        let agent = self.agent.to_hex();
        let file = self.file.key(&self.host);
        let mut line = String::new();
        for act in acts {
            line.clear();
            act.line(&mut line);
            let hash = Digest::of(line.as_bytes());
            let envelope = Envelope {
                id: event_id(file, self.offset, 0, &hash),
                agent: &agent,
                line: &line,
                hash: hash.as_bytes(),
                offset: self.offset.get(),
            };
            let mut draft = Draft::new();
            act.draft(&envelope, &mut draft);
            draft.finish(&mut self.text);
            self.text.push(b'\n');
            self.offset = self.offset.plus(len(line.len()) + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Kind, Maker};
    use custody_event::Block;
    use custody_evidence::Chain;

    #[test]
    fn blocks_are_what_a_collector_takes() {
        let mut stream = Stream::new(5).unwrap();
        let key = stream.key().public();
        let mut chain = Chain::new(stream.stream);
        let mut maker = Maker::new(5, &Kind::ALL, Timestamp::Y2020, 1_000);
        for seq in 0..3 {
            let acts: Vec<Act> = (0..100).map(|_| maker.next()).collect();
            let block = Block::decode(&stream.block(&acts, Timestamp::Y2020).unwrap()).unwrap();
            assert_eq!(block.header.seq.get(), seq);
            key.verify(&block).unwrap();
            chain.check(&block).unwrap();
            chain.advance(&block);
            let opened = block.open().unwrap();
            assert_eq!(opened.len(), 100);
            for (index, event) in opened.events() {
                custody_event::canon::check(event).unwrap_or_else(|error| {
                    panic!("event {index}: {error}: {}", String::from_utf8_lossy(event))
                });
            }
        }
    }

    #[test]
    fn one_seed_makes_the_same_blocks() {
        let make = || {
            let mut maker = Maker::new(1, &[Kind::Json], Timestamp::Y2020, 1_000);
            let acts: Vec<Act> = (0..10).map(|_| maker.next()).collect();
            Stream::new(9).unwrap().block(&acts, Timestamp::Y2020).unwrap()
        };
        assert_eq!(make(), make());
    }
}
