//! The checks that do not depend on where the evidence stands: signatures and keys, places in the
//! log and in the stream, roots, canonical events. Everything is fed in its order; nothing that
//! grows with the number of events is kept.
//!
//! # Limits
//! [`MAX_STREAMS`] streams, about 250 bytes each; problems and gaps as in the report.

use std::collections::HashMap;

use custody_event::{AgentId, Block, Digest, EventView, Header, Seq, StreamId, canon};

use super::report::{Gap, Harm, Problem, Report, StreamReport};
use super::track::{Step, Track};
use crate::entry::{Entry, Signed};
use crate::keyring::{Keyring, KeyringError};
use crate::keys::PublicKey;
use crate::tlog::{TreeHead, leaf_hash, verify_inclusion};

/// Streams of one verification, at most.
pub(crate) const MAX_STREAMS: usize = 65_536;
/// How every gap event begins: `action` is the first key of a canonical event.
const GAP: &[u8] = b"{\"action\":\"gap.record\",";

type Name = (AgentId, StreamId);

/// How it is known that the log holds something at its place.
pub(crate) enum Held<'a> {
    /// By this inclusion proof.
    Proof(u64, &'a [Digest]),
    /// The caller has compared it with the log.
    #[cfg(feature = "fs")]
    Compared(u64),
    /// It is in no log, or beyond the checkpoint.
    Nowhere,
}

impl Held<'_> {
    fn index(&self) -> Option<u64> {
        match self {
            Self::Proof(index, _) => Some(*index),
            #[cfg(feature = "fs")]
            Self::Compared(index) => Some(*index),
            Self::Nowhere => None,
        }
    }
}

struct Stream {
    track: Track,
    last: Option<(Seq, Digest)>,
    report: StreamReport,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Checker {
    pub(crate) ring: Keyring,
    pub(crate) log_key: Option<PublicKey>,
    /// Where inclusion proofs must lead.
    pub(crate) head: Option<TreeHead>,
    pub(crate) report: Report,
    /// Must a stream begin with its block 0?
    pub(crate) from_the_start: bool,
    /// How far a stream had come when its agent last replaced its key.
    reached: HashMap<Name, Seq>,
    streams: HashMap<Name, Stream>,
}

fn name_of(header: &Header) -> Name {
    (header.agent, header.stream)
}

impl Checker {
    /// Expects a stream to begin at this block.
    pub(crate) fn expect(&mut self, name: Name, first: Seq) {
        let track = Track::from(first.get());
        self.streams.entry(name).or_insert_with(|| new_stream(name, track));
    }

    /// Checks an entry that is no block: a statement about keys.
    pub(crate) fn statement(&mut self, place: &str, held: &Held<'_>, bytes: &[u8], entry: &Entry) {
        if !self.is_held(place, held, bytes, None) {
            return;
        }
        match self.ring.apply(held.index(), entry, self.log_key.as_ref()) {
            Ok(()) => {
                self.report.statements += 1;
                if let Entry::Rotated(signed) = entry {
                    let body = &signed.body;
                    self.reached.insert((body.agent, body.stream), body.from_seq);
                }
                if let Entry::ForkAccepted(signed) = entry {
                    let body = &signed.body;
                    self.report.note(format!(
                        "a fork of the log was accepted at {} by key {}: {} entries had been \
                         shown (root {}), it went on from {} entries: {}",
                        body.at,
                        body.by.id(),
                        body.old.size,
                        body.old.root,
                        body.new.size,
                        body.reason
                    ));
                }
            }
            Err(error) => self.statement_problem(place, held, error),
        }
    }

    fn statement_problem(&mut self, place: &str, held: &Held<'_>, error: KeyringError) {
        let mut problem = Problem::new(Harm::Forged, place, error.to_string());
        problem.entries = held.index().map(|index| (index, index));
        self.report.problem(problem);
    }

    /// Checks a block of which only the header is here.
    pub(crate) fn header_only(
        &mut self,
        place: &str,
        held: &Held<'_>,
        bytes: &[u8],
        signed: &Signed<Header>,
    ) {
        let good = self.header(place, held, Some(bytes), signed);
        self.count(&signed.body, if good { 1 } else { 0 }, 0, u64::from(signed.body.count));
    }

    /// Checks a block.
    pub(crate) fn block(&mut self, place: &str, held: &Held<'_>, bytes: &[u8]) {
        let block = match Block::decode(bytes) {
            Ok(block) => block,
            Err(error) => return self.undecodable(place, held, bytes, &error.to_string()),
        };
        let header = &block.header;
        let Some(signed) = Signed::of_block(&block) else {
            self.step_if_expected(header, place);
            let problem = Problem::new(Harm::Forged, place, "it is not signed");
            return self.problem_of(header, problem);
        };
        let authentic = self.header(place, held, None, &signed);
        let (events, withheld) = match self.content(place, &block) {
            Some(counts) if authentic => counts,
            _ => return,
        };
        self.count(header, 1, events, withheld);
    }

    fn undecodable(&mut self, place: &str, held: &Held<'_>, bytes: &[u8], reason: &str) {
        let mut problem = Problem::new(Harm::Altered, place, reason);
        problem.entries = held.index().map(|index| (index, index));
        match Block::header_in(bytes) {
            Some(header) => {
                self.step_if_expected(&header, place);
                self.problem_of(&header, problem);
            }
            None => self.report.problem(problem),
        }
    }

    fn problem_of(&mut self, header: &Header, problem: Problem) {
        self.report.problem(problem.of(name_of(header), header.seq, header.seq));
    }

    /// Checks what the header says: is it in the log, who signed it, does it continue its stream?
    fn header(
        &mut self,
        place: &str,
        held: &Held<'_>,
        entry: Option<&[u8]>,
        signed: &Signed<Header>,
    ) -> bool {
        let header = &signed.body;
        let in_log = match (entry, held) {
            (Some(entry), _) => self.is_held(place, held, entry, Some(header)),
            (None, Held::Proof(..)) => {
                let entry = Entry::Block(Box::new(signed.clone())).encode();
                self.is_held(place, held, &entry, Some(header))
            }
            (None, _) => true,
        };
        let by_key = match self.ring.check(signed, held.index()) {
            Ok(()) => true,
            Err(error) => {
                let harm = match error {
                    KeyringError::Signature(_) => Harm::Altered,
                    _ => Harm::Forged,
                };
                self.problem_of(header, Problem::new(harm, place, error.to_string()));
                false
            }
        };
        let continues = self.continues(place, signed, in_log && by_key);
        in_log && by_key && continues
    }

    fn is_held(
        &mut self,
        place: &str,
        held: &Held<'_>,
        entry: &[u8],
        header: Option<&Header>,
    ) -> bool {
        let Held::Proof(index, path) = held else { return true };
        let proved = match &self.head {
            Some(head) => verify_inclusion(&leaf_hash(entry), *index, head, path)
                .map_err(|why| why.to_string()),
            None => Err("there is no checkpoint".to_owned()),
        };
        let Err(why) = proved else { return true };
        let text = format!("it is not what the log holds at entry {index}: {why}");
        let mut problem = Problem::new(Harm::Altered, place, text).entries(*index, *index);
        if let Some(header) = header {
            problem = problem.of(name_of(header), header.seq, header.seq);
        }
        self.report.problem(problem);
        false
    }

    /// What a header says that nobody has signed is believed only where it was expected.
    fn step_if_expected(&mut self, header: &Header, place: &str) {
        let known = self.streams.get(&name_of(header));
        if known.is_some_and(|stream| stream.track.expects(header.seq.get())) {
            self.step(header, place);
            if let Some(stream) = self.streams.get_mut(&name_of(header)) {
                stream.last = None;
            }
        }
    }

    /// Puts a header at its place in its stream.
    fn step(&mut self, header: &Header, place: &str) -> Option<(Step, &mut Stream)> {
        let name = name_of(header);
        if self.streams.len() >= MAX_STREAMS && !self.streams.contains_key(&name) {
            return None;
        }
        let first = if self.from_the_start { Track::from(0) } else { Track::default() };
        let stream = self.streams.entry(name).or_insert_with(|| new_stream(name, first));
        let step = stream.track.step(header.seq.get());
        let told = match step {
            Step::Next | Step::Skipped => None,
            Step::Late => Some((Harm::Reordered, "it stands behind blocks that came after it")),
            Step::Again => Some((Harm::Inserted, "a block of this number was there before")),
        };
        if let Some((harm, text)) = told {
            let problem = Problem::new(harm, place, text).of(name, header.seq, header.seq);
            self.report.problem(problem);
        }
        Some((step, stream))
    }

    fn continues(&mut self, place: &str, signed: &Signed<Header>, authentic: bool) -> bool {
        let header = &signed.body;
        if !authentic {
            self.step_if_expected(header, place);
            return false;
        }
        let Some((step, stream)) = self.step(header, place) else {
            let text = format!("more than {MAX_STREAMS} streams: this program does not go on");
            self.report.problem(Problem::new(Harm::Inserted, place, text));
            return false;
        };
        let before = stream.last;
        if matches!(step, Step::Next | Step::Skipped) {
            stream.last = Some((header.seq, signed.hash()));
        }
        let broken = match (step, before) {
            (Step::Next, Some((seq, hash))) => seq.next() == header.seq && hash != header.prev,
            _ => false,
        };
        if broken {
            let text = "the second does not continue the first, and both are signed: one of them \
                        was put in by somebody who has the key";
            let problem = Problem::new(Harm::Inserted, place, text);
            let before = before.map_or(header.seq, |(seq, _)| seq);
            self.report.problem(problem.of(name_of(header), before, header.seq));
        }
        !broken && matches!(step, Step::Next | Step::Skipped)
    }

    /// Checks the events; gives how many are here and how many are not.
    fn content(&mut self, place: &str, block: &Block) -> Option<(u64, u64)> {
        let header = &block.header;
        if let Err(error) = block.coverage() {
            self.problem_of(header, Problem::new(Harm::Altered, place, error.to_string()));
            return None;
        }
        let opened = match block.open() {
            Ok(opened) => opened,
            Err(error) => {
                let text = format!(
                    "{error}: an event among those from {} to {} was altered, removed or inserted",
                    header.first_time, header.last_time
                );
                self.problem_of(header, Problem::new(Harm::Altered, place, text));
                return None;
            }
        };
        let mut events = 0;
        for (index, event) in opened.events() {
            events += 1;
            if let Err(error) = canon::check(event) {
                let mut problem = Problem::new(Harm::Altered, place, error.to_string());
                problem.event = Some(index);
                self.problem_of(header, problem);
                return None;
            }
            if event.starts_with(GAP) {
                self.gap(header, index, event);
            }
        }
        Some((events, u64::from(header.count).saturating_sub(events)))
    }

    fn gap(&mut self, header: &Header, index: u32, event: &[u8]) {
        let view: Option<EventView<'_>> = serde_json::from_slice(event).ok();
        let message = view.as_ref().and_then(|view| view.message.as_deref()).unwrap_or_default();
        self.report.gap(Gap {
            agent: header.agent,
            stream: header.stream,
            seq: header.seq,
            index,
            time: view.as_ref().map_or(header.first_time, |view| view.time),
            message: message.chars().filter(|c| !c.is_control()).take(500).collect(),
        });
    }

    fn count(&mut self, header: &Header, blocks: u64, events: u64, withheld: u64) {
        if blocks == 0 {
            return;
        }
        let report = &mut self.report;
        report.blocks += blocks;
        report.events += events;
        report.withheld += withheld;
        if header.count > 0 {
            let earlier = report.from.is_none_or(|from| header.first_time < from);
            report.from = if earlier { Some(header.first_time) } else { report.from };
            report.to = report.to.max(Some(header.last_time));
        }
        if let Some(stream) = self.streams.get_mut(&name_of(header)) {
            let report = &mut stream.report;
            if report.blocks == 0 {
                (report.from, report.to) = (header.first_time, header.last_time);
            }
            report.blocks += blocks;
            report.events += events;
            report.withheld += withheld;
            report.from = report.from.min(header.first_time);
            report.to = report.to.max(header.last_time);
        }
    }

    /// How far a stream has come: one beyond its highest block.
    pub(crate) fn next_of(&self, name: &Name) -> Option<Seq> {
        self.streams.get(name).map(|stream| Seq(stream.track.next()))
    }

    /// The block from which on the newest key signs: all before it had been there.
    pub(crate) fn reached(&self, name: &Name) -> Option<Seq> {
        self.reached.get(name).copied()
    }

    /// Tells what is missing between the first and last block of each stream.
    pub(crate) fn finish(mut self) -> Report {
        let mut streams: Vec<(Name, Stream)> = self.streams.drain().collect();
        streams.sort_by_key(|(name, _)| *name);
        for (name, stream) in streams {
            let missing = stream.track.missing();
            for (from, to) in missing {
                let text = "later blocks of the stream are here, these are not";
                let problem = Problem::new(Harm::Removed, "", text);
                self.report.problem(problem.of(name, Seq(*from), Seq(*to)));
            }
            self.report.stream(StreamReport {
                first: Seq(stream.track.first()),
                last: Seq(stream.track.next().saturating_sub(1)),
                complete: missing.is_empty(),
                ..stream.report
            });
        }
        self.report.verified = self.report.problem_count == 0;
        self.report.unknown(
            "whether the sources told the truth, and events that nobody wrote; see the threat model",
        );
        self.report
    }
}

fn new_stream(name: Name, track: Track) -> Stream {
    let time = custody_event::Timestamp::MIN;
    Stream {
        track,
        last: None,
        report: StreamReport {
            agent: name.0,
            stream: name.1,
            first: Seq(0),
            last: Seq(0),
            blocks: 0,
            events: 0,
            withheld: 0,
            from: time,
            to: time,
            complete: true,
        },
    }
}
