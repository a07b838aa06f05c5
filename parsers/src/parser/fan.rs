//! One record that tells of several things: an event for each element of a list in it.
//!
//! The elements are laid over the record one after the other ([`crate::decode`]'s `fan`), and each
//! goes through the rules by itself. A pack takes the record if its rules know at least one element;
//! the others are then events of unknown records, so that every element is an event or left out by
//! a named rule. All events have the record's offset and hash; the id is made with the element's
//! number. The first event keeps the whole record in `origin.raw`, the others their own element.
//!
//! **Limits.** At most [`MAX_FAN_OUT`] elements and [`MAX_FANNED_BYTES`] of events; a record that
//! has more stays one event, whole, with that for a reason. The limits look at nothing but the
//! record: the same record gives the same events whenever it is read.

use custody_event::{Digest, Timestamp};

use crate::decode::json::{At, Tape};
use crate::matcher::{Asked, Matcher, Plan, View, Work};
use crate::parser::{Decoded, Envelope, Fanned, Group, Memo, Parser, Place};
use crate::redact::late::{self, Swap};
use crate::scan::{MAX_GROUPS, Slots, UNSET};

use super::reader::Reader;
use super::run::Common;

/// Events of one record, at most: fewer than a block holds, so that the few events of a chunk's first
/// bytes, behind which a pipeline cannot cut the chunk in two, stand in one block with them.
pub const MAX_FAN_OUT: usize = 800;
/// Bytes of events of one record, at most: half of what a block holds.
pub const MAX_FANNED_BYTES: usize = custody_event::MAX_BLOCK_RAW_BYTES / 2;

const TOO_MANY: &str = "a list of more than 800 things to fan out";
const TOO_LONG: &str = "a list that would fan out to more than 4 MiB";

/// A record that is to be fanned out.
pub(super) struct Fan<'a> {
    pub(super) group: &'a Group,
    pub(super) message: &'a str,
    pub(super) place: &'a Place<'a>,
    pub(super) envelope: &'a Envelope<'a>,
    /// The list, and how many elements it has.
    pub(super) list: (At, usize),
}

/// A worker's memory that is needed on the way.
pub(super) struct Hands<'a> {
    pub(super) work: &'a mut Work,
    pub(super) memo: &'a mut Memo,
    /// What has been redacted in the elements so far.
    pub(super) swaps: &'a mut Vec<Swap>,
    pub(super) asked: Asked<'a>,
    pub(super) plan: &'a Plan,
    pub(super) matcher: &'a Matcher,
    pub(super) bases: &'a mut [Common],
}

/// One thing of the list.
struct Element {
    at: At,
    /// Its number in the list.
    index: u32,
    /// No event has been made of those before.
    first: bool,
}

/// What became of one element.
enum Became {
    Stored(Timestamp),
    Unmatched(Timestamp),
    Filtered,
}

impl Group {
    /// The list that this record has for fanning out, if it has one that is not empty.
    pub(super) fn list(&self, tapes: &mut [Tape], number: u64) -> Option<(At, usize)> {
        let (_, slot) = self.fan_out.as_ref()?;
        let tape = &tapes[self.reader?];
        if tape.is_of(number) { tape.elements(*slot) } else { None }
    }
}

impl Parser {
    /// Appends the events of all elements, or nothing: `None` if no rule knows any of them, an error
    /// if they are too many.
    ///
    /// The first event keeps the whole record: what was redacted in a later element must go from it
    /// too, so it is then all done once more.
    pub(super) fn fan(
        &self,
        fan: &Fan<'_>,
        decoded: &Decoded<'_>,
        tapes: &mut [Tape],
        mut hands: Hands<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Fanned>, &'static str> {
        let start = out.len();
        let done = self.fan_once(fan, decoded, tapes, &mut hands, out)?;
        if hands.swaps.is_empty() || done.is_none() {
            return Ok(done);
        }
        out.truncate(start);
        // All events of a record have one hash: that of what is kept of it.
        let left = Digest::of(&late::of_piece(fan.place.record, hands.swaps));
        let place = Place { whole_hash: Some(&left), ..*fan.place };
        let fan = Fan { place: &place, ..*fan };
        self.fan_once(&fan, decoded, tapes, &mut hands, out)
    }

    fn fan_once(
        &self,
        fan: &Fan<'_>,
        decoded: &Decoded<'_>,
        tapes: &mut [Tape],
        hands: &mut Hands<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Fanned>, &'static str> {
        let (list, count) = fan.list;
        let Some(reader) = fan.group.reader else { return Ok(None) };
        if count > MAX_FAN_OUT {
            return Err(TOO_MANY);
        }
        let start = out.len();
        let mut all = Fanned {
            stored: 0,
            unmatched: 0,
            filtered: 0,
            times: (fan.envelope.observed, fan.envelope.observed),
        };
        let elements: Vec<At> = tapes[reader].children(list).collect();
        let mut done = Ok(());
        for (index, element) in (0_u32..).zip(elements) {
            let Reader { trees, slots, .. } = &self.readers[reader];
            tapes[reader].lay(list, element, trees, *slots);
            let before = out.len();
            if all.stored > 0 {
                out.push(b'\n');
            }
            let element = Element { at: element, index, first: all.stored == 0 };
            match self.element(fan, decoded, tapes, &element, hands, out) {
                Became::Filtered => {
                    out.truncate(before);
                    all.filtered += 1;
                }
                Became::Stored(time) => all.note(time),
                Became::Unmatched(time) => {
                    all.unmatched += 1;
                    all.note(time);
                }
            }
            if out.len() - start > MAX_FANNED_BYTES {
                done = Err(TOO_LONG);
                break;
            }
        }
        let Reader { trees, slots, .. } = &self.readers[reader];
        tapes[reader].lift(trees, *slots);
        let unknown = all.unmatched == all.stored && all.filtered == 0;
        if unknown || done.is_err() {
            out.truncate(start);
        }
        done.map(|()| (!unknown).then_some(all))
    }

    fn element(
        &self,
        fan: &Fan<'_>,
        decoded: &Decoded<'_>,
        tapes: &[Tape],
        element: &Element,
        hands: &mut Hands<'_>,
        out: &mut Vec<u8>,
    ) -> Became {
        let tape = fan.group.tape(tapes, &self.readers);
        let own = tape.map(|(tape, decoder)| tape.written(element.at, decoder.part(fan.message)));
        let (record, text) = match own {
            Some(own) if !element.first => (own.as_bytes(), own),
            _ => (fan.place.record, fan.place.text),
        };
        let place = Place { record, text, index: element.index, ..*fan.place };
        let facts = decoded.facts(fan.envelope, fan.message, tape);
        let view = View { packs: &self.packs, asked: hands.asked, facts };
        let found = hands.matcher.find(&view, hands.plan, hands.work);
        match found.and_then(|at| Some((at, self.known(at, hands.bases)?))) {
            Some((at, _)) if self.drop_reason(at).is_some() => Became::Filtered,
            Some((at, known)) => {
                let subject = view.subject(at).unwrap_or_default();
                let fields = &self.packs[at.pack].fields;
                let scene = view.facts.scene(subject, &hands.work.slots, fields);
                let both = (&mut *hands.memo, &mut *hands.swaps);
                Became::Stored(self.store(known, &scene, &place, both, out))
            }
            None => {
                const NONE: &Slots = &[UNSET; MAX_GROUPS * 2];
                let scene = facts.scene("", NONE, &[]);
                let reason = "no rule matched";
                let both = (&mut *hands.memo, &mut *hands.swaps);
                Became::Unmatched(self.unmatched(reason, &scene, &place, both, out))
            }
        }
    }
}

impl Fanned {
    fn note(&mut self, time: Timestamp) {
        self.times = match self.stored {
            0 => (time, time),
            _ => (self.times.0.min(time), self.times.1.max(time)),
        };
        self.stored += 1;
    }
}
