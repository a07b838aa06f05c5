//! Records of one source that came together: what they have in common is looked at, and written,
//! once.

use std::borrow::Cow;

use custody_event::{Base, Digest, Draft, Field, MAX_RAW_BYTES, Offset};

use super::fan::{Fan, Hands};
use super::{
    Decoded, Envelope, Given, Group, Memo, Parser, Place, Room, Said, Scratch, Verdict, as_text,
};
use crate::decode::Decoder;
use crate::fill;
use crate::matcher::{Later, PackAt, RuleAt, View};
use crate::pack::{Pack, Rule};
use crate::redact::late::{self, Swap};
use crate::redact::{self, Names, Redaction};
use crate::scan::{MAX_GROUPS, Slots, UNSET};
use crate::value::Scene;

/// What the events of one rule have in common. Making it costs more than an event, so the first
/// event of a run does without.
#[derive(Debug, Default)]
pub(super) enum Common {
    #[default]
    Unseen,
    Seen,
    Made(Box<Base>),
}

/// A rule that knows a record.
pub(super) struct Known<'a> {
    pub(super) pack: &'a Pack,
    pub(super) rule: &'a Rule,
    pub(super) common: &'a mut Common,
}

/// Records of one source that came together.
#[derive(Debug)]
pub struct Run<'p> {
    parser: &'p Parser,
    envelope: &'p Envelope<'p>,
    room: &'p mut Room,
    /// A private key has begun in a record before and goes on.
    in_key: bool,
}

impl Parser {
    /// Begins with records that came together.
    pub fn run<'p>(&'p self, scratch: &'p mut Scratch, envelope: &'p Envelope<'p>) -> Run<'p> {
        let room = scratch.room(self);
        room.choice.settle(self, envelope);
        room.chosen.resize_with(self.groups.len(), Default::default);
        room.bases.clear();
        room.bases.resize_with(self.caches, Common::default);
        Run { parser: self, envelope, room, in_key: false }
    }

    /// One record by itself: see [`Run::parse`].
    pub fn parse(
        &self,
        scratch: &mut Scratch,
        envelope: &Envelope<'_>,
        record: &[u8],
        offset: Offset,
        segment: Option<u32>,
        out: &mut Vec<u8>,
    ) -> Verdict {
        self.run(scratch, envelope).parse(record, offset, segment, out)
    }
}

impl Run<'_> {
    /// Turns one record into one canonical event, appended to `out` without a newline, or leaves
    /// it out by a named rule, or fans it out to several. Never fails and never panics, whatever
    /// the bytes are.
    ///
    /// `record` is at most [`custody_event::MAX_RAW_BYTES`] long; the source cuts longer ones into
    /// numbered segments.
    pub fn parse(
        &mut self,
        record: &[u8],
        offset: Offset,
        segment: Option<u32>,
        out: &mut Vec<u8>,
    ) -> Verdict {
        self.parse_given(record, offset, segment, Given::default(), out)
    }

    /// Like [`Self::parse`], with what the source knows of the record beside its bytes. A record
    /// may be longer than an event keeps: its first event keeps the first of [`super::raw_pieces`].
    pub fn parse_given(
        &mut self,
        record: &[u8],
        offset: Offset,
        segment: Option<u32>,
        given: Given<'_>,
        out: &mut Vec<u8>,
    ) -> Verdict {
        let Self { parser, envelope, room, in_key } = self;
        let room = &mut **room;
        let key_line = match given.redacted {
            Some(_) => None,
            None => parser.redaction.key_line(record, in_key),
        };
        let Room { lossy, clean, names, swaps, tapes, record: number, .. } = room;
        let Room { work, memo, choice, chosen, bases, hash: room_hash, .. } = room;
        *number += 1;
        let room_number = *number;
        swaps.clear();
        *room_hash = None;
        let given_record = record;
        let (record, message) = redacted(&parser.redaction, record, &given, clean, names);
        let record = match &key_line {
            Some(left) => {
                redact::note(names, redact::SecretPattern::PrivateKeys.name());
                left.as_bytes()
            }
            None => record,
        };
        let said = given.said.map(|said| Said { message: &message, ..said });
        // What was redacted is kept as its text: the original has the secret.
        let original = given.original.filter(|_| names.is_empty());
        let given = Given { said, original, ..given };
        let hash = Digest::of(original.map_or(record, |original| original.bytes));
        let is_as_given = given.original.is_none() && std::ptr::eq(record, given_record);
        *room_hash = (is_as_given && record.len() <= MAX_RAW_BYTES).then_some(hash);
        let text = as_text(record, lossy);
        let place = Place {
            record,
            text,
            whole: text,
            names,
            offset,
            segment,
            hash: &hash,
            whole_hash: None,
            index: 0,
            given,
        };
        let mut decoded = Decoded::new(text, room_number, given.said);
        work.begin();
        let turns = parser.turns();
        if let [turn, ..] = turns
            && let [first, ..] = choice.groups(*turn)
        {
            // Asked first anyway: with it is known whether there is an envelope.
            decoded.peel(&parser.groups[*first]);
        }
        let is_json = decoded.is_bare(envelope) && parser.is_json(text, room_number, tapes);
        for (place_of_turn, turn) in turns.iter().enumerate() {
            let is_bare = decoded.is_bare(envelope);
            let groups = match is_bare {
                true => choice.hopeful(parser, *turn, text, is_json),
                false => choice.groups(*turn),
            };
            for (place_of_group, number) in groups.iter().enumerate() {
                let (group, before) = (&parser.groups[*number], &mut chosen[*number]);
                let Some(message) = decoded.peel(group) else { continue };
                let service = decoded.service(envelope);
                let later = group.matcher(service, before);
                let (asked, plan) = choice.plan(*turn, service.is_some(), later.number);
                let matcher = later.get(&parser.packs);
                // What the last group finds wrong is what an unknown record is told, so it is always read.
                let is_last =
                    place_of_turn + 1 == turns.len() && place_of_group + 1 == groups.len();
                if !is_last && !is_bare && !plan.hopes(matcher, message, &asked) {
                    continue;
                }
                if !decoded.read(group, message, tapes, &parser.readers, &parser.host) {
                    continue;
                }
                if let Some(list) = group.list(tapes, room_number) {
                    let at = Fan { group, message, place: &place, envelope, list };
                    let hands = Hands { work, memo, swaps, asked, plan, matcher, bases };
                    match parser.fan(&at, &decoded, tapes, hands, out) {
                        Ok(Some(fanned)) => return Verdict::Many(fanned),
                        Ok(None) => {}
                        Err(reason) => decoded.reason = Some(reason),
                    }
                    continue;
                }
                let facts = decoded.facts(envelope, message, group.tape(tapes, &parser.readers));
                let view = View { packs: &parser.packs, asked, facts };
                let Some(at) = matcher.find(&view, plan, work) else { continue };
                if let Some(reason) = parser.drop_reason(at) {
                    return Verdict::Filtered { reason };
                }
                let Some(known) = parser.known(at, bases) else { continue };
                let subject = view.subject(at).unwrap_or_default();
                let scene = facts.scene(subject, &work.slots, &parser.packs[at.pack].fields);
                let time = parser.store(known, &scene, &place, (memo, swaps), out);
                return Verdict::Stored { time };
            }
        }
        let reason = decoded.reason.unwrap_or("no rule matched");
        let time = parser.keep(reason, &decoded, envelope, &place, (memo, swaps), out);
        Verdict::Unmatched { time }
    }

    /// The SHA-256 of the record that was parsed last, where its event has it as it was given.
    #[must_use]
    pub fn hash(&self) -> Option<Digest> {
        self.room.hash.filter(|_| self.room.swaps.is_empty())
    }

    /// A record without its secrets, and the names of what was found: for a record that must be cut
    /// into pieces, which are then given with [`Given::redacted`].
    #[must_use]
    pub fn redact(&self, record: &[u8]) -> Option<(Vec<u8>, Names)> {
        let (mut buffer, mut names) = (Vec::new(), Names::new());
        self.parser.redaction.clean(record, &mut buffer, &mut names);
        (!names.is_empty()).then_some((buffer, names))
    }

    /// Keeps a further piece of a record that is longer than one event keeps. `number` counts the
    /// pieces; the record's own event has the first, 0.
    pub fn rest(
        &mut self,
        piece: &[u8],
        offset: Offset,
        number: u32,
        given: Given<'_>,
        out: &mut Vec<u8>,
    ) -> Verdict {
        let Self { parser, envelope, room, .. } = self;
        let Room { lossy, record, memo, clean, names, swaps, .. } = &mut **room;
        let (piece, message) = redacted(&parser.redaction, piece, &given, clean, names);
        let piece = late::of_piece(piece, swaps);
        let said = given.said.map(|said| Said { message: &message, ..said });
        let given = Given { said, ..given };
        let hash = Digest::of(&piece);
        let text = as_text(&piece, lossy);
        let place = Place {
            record: &piece,
            text,
            whole: text,
            names,
            offset,
            segment: Some(number),
            hash: &hash,
            whole_hash: None,
            index: number,
            given,
        };
        let decoded = Decoded::new(text, *record, said);
        const WHY: &str = "the record goes on from the segment before";
        // What went from the first piece may be written in no other form here.
        let mut own = Vec::new();
        let time = parser.keep(WHY, &decoded, envelope, &place, (memo, &mut own), out);
        Verdict::Unmatched { time }
    }
}

/// The record, and the message that the source took off it, without their secrets.
fn redacted<'t>(
    redaction: &Redaction,
    record: &'t [u8],
    given: &Given<'t>,
    clean: &'t mut Vec<u8>,
    names: &mut Names,
) -> (&'t [u8], Cow<'t, str>) {
    names.clear();
    let record = match given.redacted {
        Some(found) => {
            names.extend(found.iter().cloned());
            record
        }
        None => redaction.clean(record, clean, names),
    };
    let message = given.said.map_or("", |said| said.message);
    (record, redaction.clean_said(message, names))
}

impl Parser {
    /// Writes the event of a record that no rule knows.
    fn keep(
        &self,
        reason: &'static str,
        decoded: &Decoded<'_>,
        envelope: &Envelope<'_>,
        place: &Place<'_>,
        hands: (&mut Memo, &mut Vec<Swap>),
        out: &mut Vec<u8>,
    ) -> custody_event::Timestamp {
        let facts = decoded.facts(envelope, decoded.message(), None);
        const NONE: &Slots = &[UNSET; MAX_GROUPS * 2];
        let scene = facts.scene("", NONE, &[]);
        self.unmatched(reason, &scene, place, hands, out)
    }

    pub(super) fn known<'a>(&'a self, at: RuleAt, bases: &'a mut [Common]) -> Option<Known<'a>> {
        let PackAt { pack, .. } = self.packs.get(at.pack)?;
        Some(Known { pack, rule: pack.rules.get(at.rule)?, common: bases.get_mut(at.cache)? })
    }
}

impl Group {
    /// Does its chain refuse a record without an envelope?
    pub(super) fn needs_envelope(&self) -> bool {
        self.chain.iter().any(|step| step.decoder == Decoder::Syslog && !step.optional)
    }

    /// The matcher of a program, which mostly is that of the record before.
    pub(super) fn matcher(&self, service: Option<&str>, before: &mut (String, usize)) -> &Later {
        let Some(service) = service else { return &self.matchers[0] };
        if before.0 != service {
            before.0.clear();
            before.0.push_str(service);
            before.1 = self.services.get(service).copied().unwrap_or(0);
        }
        &self.matchers[before.1]
    }
}

impl Common {
    /// A draft to go on with, on what the events of the rule have in common.
    pub(super) fn draft<'a>(&'a mut self, fill: impl FnOnce() -> Draft<'a>) -> Draft<'a> {
        match self {
            Self::Unseen => {
                *self = Self::Seen;
                fill()
            }
            Self::Made(base) => Draft::on(base),
            Self::Seen => {
                let draft = fill();
                let Some(base) = Base::of(&draft) else { return draft };
                *self = Self::Made(Box::new(base));
                match self {
                    Self::Made(base) => Draft::on(base),
                    Self::Unseen | Self::Seen => draft,
                }
            }
        }
    }
}

/// Fills what all events of a rule have in common in a run.
pub(super) fn common<'a>(pack: &'a Pack, rule: &'a Rule, scene: &Scene<'a>) -> Draft<'a> {
    let mut draft = Draft::new();
    fill::fixed(rule, scene, &mut draft);
    draft.text(Field::OriginPack, pack.name.as_str());
    draft.int(Field::OriginPackVersion, pack.version);
    draft.text(Field::OriginRule, rule.id.as_str());
    surroundings(scene.facts.envelope, &mut draft);
    draft
}

/// Fills what the source gives to all its events of a run.
pub(super) fn surroundings<'a>(envelope: &'a Envelope<'a>, draft: &mut Draft<'a>) {
    let texts = [
        (Field::Tenant, Some(envelope.tenant)),
        (Field::OriginAgent, Some(envelope.agent)),
        (Field::OriginInput, Some(envelope.input)),
        (Field::OriginPath, envelope.path),
        (Field::OriginUnit, envelope.unit),
        (Field::OriginEndpoint, envelope.endpoint),
        (Field::OriginVerdict, envelope.verdict),
    ];
    for (field, text) in texts {
        draft.text(field, text.unwrap_or_default());
    }
    draft.time(Field::Observed, envelope.observed);
    for label in envelope.labels {
        draft.tag(label.as_str());
    }
}
