//! The parser of one source: its packs compiled together, and the way from record to event.
//!
//! A record is decoded by the first group of packs whose decoders know its form, the group's
//! matcher names the rule, the rule fills the event. Nothing here fails: a record that no rule
//! knows is an event of the category `unknown` with the action [`UNMATCHED`] and a reason, with
//! what its decoder found (time, host, program) and its bytes.

mod choice;
mod fan;
mod reader;
mod run;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use custody_event::position::event_id;
use custody_event::{Digest, Draft, Field, FileKey, MAX_RAW_BYTES, Offset, Timestamp};
use jiff::tz::TimeZone;

use crate::atlas::{self, Atlas};
use crate::decode::json::Tape;
use crate::decode::syslog::{self, Syslog};
use crate::decode::{Decoder, Step};
use crate::fill;
use crate::hostnames::HostNames;
use crate::matcher::{Later, PackAt, RuleAt, Work};
use crate::normalise::Actions;
use crate::pack::Pack;
use crate::prose;
use crate::redact::late::{self, Swap};
use crate::redact::{FieldRule, Names, Redaction};
use crate::time::{Basis, Moment, ZoneMemo, forms, resolve};
use crate::user_agent;
use crate::value::{Facts, Scene};
use choice::Choice;
pub use fan::{MAX_FAN_OUT, MAX_FANNED_BYTES};
use reader::Reader;
pub use run::Run;
use run::{Common, Known};

/// The action of a record that no rule knows.
pub const UNMATCHED: &str = "record.unmatched";

/// What a source says about its records.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Zone of times that name none.
    pub zone: TimeZone,
    /// What is taken out of its records.
    pub redaction: Redaction,
    /// Names and numbers of the host, for decoders that meet numbers alone.
    pub host: Arc<HostNames>,
    /// Where addresses are.
    pub atlas: Option<Arc<dyn Atlas>>,
}

impl Default for Settings {
    /// UTC; nothing is redacted, no numbers are named and no addresses looked up.
    fn default() -> Self {
        Self { zone: TimeZone::UTC, redaction: Redaction::off(), host: Arc::default(), atlas: None }
    }
}

/// What is the same for all records of a chunk.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The machine, where the record does not say another.
    pub host: &'a str,
    /// The organisation; empty for none.
    pub tenant: &'a str,
    /// The agent's id as hex digits.
    pub agent: &'a str,
    /// The source's id in the configuration.
    pub input: &'a str,
    /// The file.
    pub path: Option<&'a str>,
    /// The systemd unit.
    pub unit: Option<&'a str>,
    /// The webhook's path.
    pub endpoint: Option<&'a str>,
    /// The program, where the source knows it (a journal does).
    pub service: Option<&'a str>,
    /// When the record was read.
    pub observed: Timestamp,
    /// What the source found when it checked where the record came from (a webhook's signature).
    pub verdict: Option<&'a str>,
    /// What else the source knows, for `details`: the peer's address.
    pub details: &'a [(String, String)],
    /// Words for `tags`, such as `env:production`.
    pub labels: &'a [String],
    /// Names this generation of this file of this host: ids are derived from it.
    pub file: FileKey,
}

impl<'a> Envelope<'a> {
    /// Nothing known but the time: for tests and previews.
    #[must_use]
    pub fn bare(observed: Timestamp) -> Envelope<'a> {
        Envelope {
            host: "",
            tenant: "",
            agent: "",
            input: "",
            path: None,
            unit: None,
            endpoint: None,
            service: None,
            observed,
            verdict: None,
            details: &[],
            labels: &[],
            file: FileKey([0; 16]),
        }
    }
}

/// What a source that is no file knows of one record beside its bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given<'a> {
    /// What the event's id is derived from, where that is not the envelope's file and the offset:
    /// a delivery's key, and the record's number in the delivery.
    pub name: Option<(FileKey, Offset)>,
    /// Where the source stands at the record.
    pub cursor: Option<&'a str>,
    /// The record's bytes, where it is the text of something else than UTF-8.
    pub original: Option<Original<'a>>,
    /// The envelope that the source took off already. The record is then not searched for one:
    /// packs that decode `syslog` or nothing see this, packs that decode `json` first see the
    /// record.
    pub said: Option<Said<'a>>,
    /// The record has been redacted by [`Run::redact`], which found these.
    pub redacted: Option<&'a Names>,
}

/// A record's bytes as the source has them, where the parser is given their text.
#[derive(Debug, Clone, Copy)]
pub struct Original<'a> {
    /// As they are: what `raw_sha256` and the id are derived from.
    pub bytes: &'a [u8],
    /// What turns the text back into them, for `origin.encoding`.
    pub encoding: &'a str,
    /// Does it, byte for byte?
    pub exact: bool,
}

/// What an envelope says, taken off by the source (a journal's entry has it in fields).
#[derive(Debug, Clone, Copy, Default)]
pub struct Said<'a> {
    /// The message; empty where it is the record itself.
    pub message: &'a str,
    /// What kind of message it is (`$msgid`): the name of a webhook's event.
    pub kind: Option<&'a str>,
    /// When it was said.
    pub time: Option<Timestamp>,
    /// On which machine.
    pub host: Option<&'a str>,
    /// By which program.
    pub service: Option<&'a str>,
    /// By which process.
    pub pid: Option<&'a str>,
    /// Facility × 8 + severity.
    pub priority: Option<u8>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// An event was appended.
    Stored {
        /// The event's time.
        time: Timestamp,
    },
    /// A rule left it out; nothing was appended.
    Filtered {
        /// A number in [`Parser::drop_reasons`].
        reason: usize,
    },
    /// An event of an unknown record was appended.
    Unmatched {
        /// The event's time.
        time: Timestamp,
    },
    /// The record was fanned out: several events were appended, with a newline between any two.
    Many(Fanned),
}

/// What became of the elements of a record that was fanned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fanned {
    /// Events that were appended, those of unknown elements among them.
    pub stored: u32,
    /// Events of elements that no rule knew.
    pub unmatched: u32,
    /// Elements that a rule left out.
    pub filtered: u32,
    /// The earliest and the latest time of the events; the reader's clock where there is none.
    pub times: (Timestamp, Timestamp),
}

/// A rule that leaves records out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropReason {
    /// The pack's name.
    pub pack: String,
    /// The rule's id.
    pub rule: String,
    /// The reason that the rule gives.
    pub reason: String,
}

/// All packs of one source, compiled together. Shared by workers; each brings its [`Scratch`].
#[derive(Debug)]
pub struct Parser {
    number: u64,
    packs: Vec<PackAt>,
    groups: Vec<Group>,
    readers: Vec<Reader>,
    drops: Vec<DropReason>,
    drop_of: HashMap<(usize, usize), usize>,
    caches: usize,
    /// How many matchers all groups have.
    matchers: usize,
    /// The source names its packs: their tests of path and endpoint are passed.
    by_name: bool,
    zone: TimeZone,
    redaction: Redaction,
    host: Arc<HostNames>,
    atlas: Option<Arc<dyn Atlas>>,
}

/// Packs in a row that decode alike.
#[derive(Debug)]
struct Group {
    chain: Vec<Step>,
    /// The number of its decoder of fields, and whether it may refuse.
    reader: Option<usize>,
    is_optional: bool,
    /// The list that is fanned out: its path, and the path's slot.
    fan_out: Option<(Vec<Box<str>>, u32)>,
    packs: Vec<usize>,
    /// Some of its packs apply by the program's name alone.
    by_service: bool,
    /// Matchers of programs that packs name.
    services: HashMap<Box<str>, usize>,
    /// The first is of all other programs.
    matchers: Vec<Later>,
}

/// A worker's memory: kept from record to record, so that a record costs no allocation. One
/// scratch may serve several parsers in turn.
#[derive(Debug, Default)]
pub struct Scratch {
    rooms: Vec<(u64, Box<Room>)>,
}

/// What the records before have shown, and those that come may show again.
#[derive(Debug, Default)]
struct Memo {
    zone: ZoneMemo,
    actions: Actions,
}

/// Parsers that one scratch remembers.
const MAX_ROOMS: usize = 64;

#[derive(Debug, Default)]
struct Room {
    lossy: String,
    /// The record without its secrets, where it has any, and the names of what was found.
    clean: Vec<u8>,
    names: Names,
    /// What went from the record when its events were filled.
    swaps: Vec<Swap>,
    /// One for each of the parser's readers.
    tapes: Vec<Tape>,
    /// Of the record before: see [`Run::hash`].
    hash: Option<Digest>,
    /// Counts the records, so that a tape is known to be of this one.
    record: u64,
    work: Work,
    memo: Memo,
    choice: Choice,
    /// For each group the program of the record before, and its matcher.
    chosen: Vec<(String, usize)>,
    /// What the events of a rule have in common in this run, by the number of the rule's cache.
    bases: Vec<Common>,
}

impl Scratch {
    /// An empty memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn room(&mut self, parser: &Parser) -> &mut Room {
        let at = match self.rooms.iter().position(|(number, _)| *number == parser.number) {
            Some(at) => at,
            None => {
                if self.rooms.len() >= MAX_ROOMS {
                    self.rooms.remove(0);
                }
                let mut room = Box::<Room>::default();
                room.work.caches.resize_with(parser.caches, || None);
                room.tapes.resize_with(parser.readers.len(), Tape::default);
                self.rooms.push((parser.number, room));
                self.rooms.len() - 1
            }
        };
        &mut self.rooms[at].1
    }
}

/// Each parser's number, so that a scratch knows whose memory is whose.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

impl Parser {
    /// Compiles these packs, in this order.
    pub(crate) fn new(packs: &[Arc<Pack>], by_name: bool, settings: Settings) -> Self {
        let mut parser = Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            packs: Vec::new(),
            groups: Vec::new(),
            readers: Vec::new(),
            drops: Vec::new(),
            drop_of: HashMap::new(),
            caches: 0,
            matchers: 0,
            by_name,
            zone: settings.zone,
            redaction: settings.redaction,
            host: settings.host,
            atlas: settings.atlas,
        };
        for pack in packs {
            pack.redact.iter().for_each(|rule| parser.redaction.add_of_pack(rule));
            parser.add(pack);
        }
        parser.compile();
        parser
    }

    fn add(&mut self, pack: &Arc<Pack>) {
        let number = self.packs.len();
        let reader = self.reader_of(pack);
        let fields = reader.map_or_else(Box::default, |reader| self.readers[reader].add(pack));
        for (rule_number, rule) in pack.rules.iter().enumerate() {
            if let Some(reason) = &rule.drop {
                self.drop_of.insert((number, rule_number), self.drops.len());
                self.drops.push(DropReason {
                    pack: pack.name.clone(),
                    rule: rule.id.clone(),
                    reason: reason.clone(),
                });
            }
        }
        let fan_out = self.fan_out_of(pack, reader);
        match self.groups.last_mut() {
            Some(group) if group.is_of(pack) => group.packs.push(number),
            _ => self.groups.push(Group {
                chain: pack.chain.clone(),
                reader,
                is_optional: pack
                    .chain
                    .iter()
                    .any(|step| step.optional && step.decoder.gives_fields()),
                fan_out,
                packs: vec![number],
                by_service: false,
                services: HashMap::new(),
                matchers: Vec::new(),
            }),
        }
        self.packs.push(PackAt { pack: Arc::clone(pack), fields });
    }

    /// Makes each group's matchers: one for every program that its packs name, one for the rest.
    fn compile(&mut self) {
        let mut first_cache = Vec::new();
        for pack in &self.packs {
            first_cache.push(self.caches);
            self.caches += pack.pack.rules.len();
        }
        for group in &mut self.groups {
            let mut names: Vec<&str> = Vec::new();
            for number in &group.packs {
                names.extend(self.packs[*number].pack.select.services.iter().map(String::as_str));
            }
            names.sort_unstable();
            names.dedup();
            group.by_service = !names.is_empty();
            for service in std::iter::once(None).chain(names.into_iter().map(Some)) {
                let mut rules = Vec::new();
                for number in &group.packs {
                    let pack = &self.packs[*number].pack;
                    if !could_apply(pack, service) {
                        continue;
                    }
                    rules.extend((0..pack.rules.len()).map(|rule| RuleAt {
                        pack: *number,
                        rule,
                        cache: first_cache[*number] + rule,
                        by_service: service.is_some_and(|service| pack.select.names(service)),
                    }));
                }
                if let Some(service) = service {
                    group.services.insert(service.into(), group.matchers.len());
                }
                group.matchers.push(Later::new(self.matchers, rules));
                self.matchers += 1;
            }
        }
    }

    /// Names of its packs, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.packs.iter().map(|pack| pack.pack.name.as_str()).collect()
    }

    /// What is taken out of its records.
    #[must_use]
    pub fn redaction(&self) -> &Redaction {
        &self.redaction
    }

    /// The rules that leave records out; [`Verdict::Filtered`] counts in this list.
    #[must_use]
    pub fn drop_reasons(&self) -> &[DropReason] {
        &self.drops
    }

    /// Writes the event of a rule.
    fn store(
        &self,
        known: Known<'_>,
        scene: &Scene<'_>,
        place: &Place<'_>,
        (memo, swaps): (&mut Memo, &mut Vec<Swap>),
        out: &mut Vec<u8>,
    ) -> Timestamp {
        let Known { pack, rule, common } = known;
        let mut last = Last::default();
        let mut draft = common.draft(|| run::common(pack, rule, scene));
        let own = rule.time.as_ref().and_then(|time| {
            fill::own_time(time, scene, &self.zone, &mut memo.zone, scene.facts.envelope.observed)
        });
        let (time, basis) = own.unwrap_or_else(|| self.time_of(scene, memo));
        fill::apply(rule, scene, &mut memo.actions, &mut draft);
        if pack.sentence {
            prose::complete(&mut draft);
        }
        if pack.user_agent {
            user_agent::fill(&mut draft);
        }
        fill::envelope_details(scene, &mut draft);
        fill::finish(scene, &mut draft);
        if let Some(atlas) = &self.atlas {
            atlas::locate(&**atlas, &mut draft);
        }
        self.redact(&pack.redact_fields, place, &mut draft, swaps, &mut last);
        place.finish(time, basis, scene, &last, &mut draft, out);
        time
    }

    /// Redacts what can be redacted only now.
    fn redact(
        &self,
        of_pack: &[FieldRule],
        place: &Place<'_>,
        draft: &mut Draft<'_>,
        swaps: &mut Vec<Swap>,
        last: &mut Last,
    ) {
        if self.redaction.is_off() {
            return;
        }
        let said = place.given.said.map_or("", |said| said.message);
        let known = late::Known { texts: [place.whole, said], record: place.record, of_pack };
        let raw = late::redact(&self.redaction, &known, draft, swaps, &mut last.names);
        last.hash = match &raw {
            late::Raw::Kept => None,
            late::Raw::Changed(record) => Some(Digest::of(record)),
            // What is left of it tells it from others.
            late::Raw::Gone => {
                let mut texts = Vec::new();
                draft.each_text(&mut |text| {
                    texts.extend_from_slice(text.as_bytes());
                    texts.push(0);
                });
                Some(Digest::of(&texts))
            }
        };
        last.raw = raw;
    }

    fn drop_reason(&self, at: RuleAt) -> Option<usize> {
        if self.drops.is_empty() {
            return None;
        }
        self.drop_of.get(&(at.pack, at.rule)).copied()
    }

    fn unmatched(
        &self,
        reason: &'static str,
        scene: &Scene<'_>,
        place: &Place<'_>,
        (memo, swaps): (&mut Memo, &mut Vec<Swap>),
        out: &mut Vec<u8>,
    ) -> Timestamp {
        let mut last = Last::default();
        let mut draft = Draft::new();
        let (time, basis) = self.time_of(scene, memo);
        draft.text(Field::Action, UNMATCHED);
        draft.text(Field::Category, "unknown");
        draft.text(Field::Op, "other");
        draft.text(Field::Severity, "info");
        draft.text(Field::OriginReason, reason);
        let envelope_pid = scene.facts.syslog.is_some_and(|line| line.pid.is_some());
        prose::fill(scene.facts.message, !envelope_pid, &mut draft);
        run::surroundings(scene.facts.envelope, &mut draft);
        fill::envelope_details(scene, &mut draft);
        fill::finish(scene, &mut draft);
        self.redact(&[], place, &mut draft, swaps, &mut last);
        place.finish(time, basis, scene, &last, &mut draft, out);
        time
    }

    /// The envelope's time, else the one that the record (nearly) begins with, else that of its reading.
    fn time_of(&self, scene: &Scene<'_>, memo: &mut Memo) -> (Timestamp, Basis) {
        let observed = scene.facts.envelope.observed;
        let syslog = scene.facts.syslog;
        // What syslog's old form leaves open, the year and the zone, the program often says.
        let own = || syslog.and_then(|line| forms::at_front(line.message)).filter(Moment::has_year);
        syslog
            .and_then(|line| line.moment)
            .map(|moment| if moment.has_year() { moment } else { own().unwrap_or(moment) })
            .or_else(|| forms::near_front(scene.facts.record))
            .and_then(|moment| resolve(moment, &self.zone, &mut memo.zone, observed))
            .unwrap_or((observed, Basis::Received))
    }
}

/// Could the pack apply to this program (`None`: to one that no pack names)?
fn could_apply(pack: &Pack, service: Option<&str>) -> bool {
    let select = &pack.select;
    if select.services.is_empty() || !select.only_service() {
        return true;
    }
    service.is_some_and(|service| select.names(service))
}

/// The record as text: as it is where it is UTF-8, else with U+FFFD for what is not.
fn as_text<'a>(record: &'a [u8], lossy: &'a mut String) -> &'a str {
    if let Ok(text) = std::str::from_utf8(record) {
        return text;
    }
    lossy.clear();
    for chunk in record.utf8_chunks() {
        lossy.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            lossy.push(char::REPLACEMENT_CHARACTER);
        }
    }
    lossy
}

/// How much of a record an event keeps: whole characters, where it is text.
fn kept_len(record: &[u8]) -> usize {
    let mut len = MAX_RAW_BYTES;
    if record.len() <= len {
        return record.len();
    }
    // A character of UTF-8 has at most three bytes that go on with it.
    while len > MAX_RAW_BYTES - 3 && record[len] & 0xC0 == 0x80 {
        len -= 1;
    }
    len
}

/// A record that is longer than an event keeps, cut: its event keeps the first piece, the others
/// are for [`Run::rest`].
pub fn raw_pieces(record: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut left = record;
    std::iter::from_fn(move || {
        let (piece, rest) = left.split_at(kept_len(left));
        left = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// What the decoders have found in a record so far; each runs at most once for a message.
struct Decoded<'t> {
    text: &'t str,
    /// The record's number in its worker: whose the tapes are.
    number: u64,
    syslog: Option<Result<Syslog<'t>, &'static str>>,
    /// The message, where the source has taken the envelope off.
    said: Option<&'t str>,
    /// Why the last group could not decode the record.
    reason: Option<&'static str>,
}

impl<'t> Decoded<'t> {
    fn new(text: &'t str, number: u64, said: Option<Said<'t>>) -> Self {
        let message = said.map(|said| said.message).filter(|message| !message.is_empty());
        let syslog = said.map(|said| Ok(Syslog::said(&said, message.unwrap_or(text))));
        Self { text, number, syslog, said: message, reason: None }
    }

    /// Is it known that there is no envelope, and does nobody name the program?
    fn is_bare(&self, envelope: &Envelope<'_>) -> bool {
        matches!(self.syslog, Some(Err(_))) && envelope.service.is_none()
    }

    /// The message that a chain leaves, before its fields are read; `None` if it wants an envelope that there is not.
    fn peel(&mut self, group: &Group) -> Option<&'t str> {
        let mut message = self.said.unwrap_or(self.text);
        for (place, step) in group.chain.iter().enumerate() {
            // A source's record is its envelope too, unless the message itself is the program's JSON.
            let is_json = |message: &str| message.trim_ascii_start().starts_with('{');
            if place == 0 && step.decoder == Decoder::Json && !is_json(message) {
                message = self.text;
            }
            if step.decoder != Decoder::Syslog {
                continue;
            }
            match *self.syslog.get_or_insert_with(|| syslog::decode(self.text)) {
                Ok(line) => message = line.inner,
                Err(_) if step.optional => {}
                Err(reason) => {
                    self.reason = Some(reason);
                    return None;
                }
            }
        }
        Some(message)
    }

    /// Reads the fields of a peeled message; false if it is not of the chain's form.
    fn read(
        &mut self,
        group: &Group,
        message: &str,
        tapes: &mut [Tape],
        readers: &[Reader],
        host: &HostNames,
    ) -> bool {
        self.reason = None;
        let Some(at) = group.reader else { return true };
        let done = readers[at].read(message, self.number, host, &mut tapes[at]);
        match done {
            Err(reason) if !group.is_optional => {
                self.reason = Some(reason);
                false
            }
            _ => true,
        }
    }

    /// The program, as far as it is known by now.
    fn service<'a>(&'a self, envelope: &'a Envelope<'a>) -> Option<&'a str> {
        self.line().and_then(|line| line.service).or(envelope.service)
    }

    fn line(&self) -> Option<&Syslog<'t>> {
        self.syslog.as_ref().and_then(|line| line.as_ref().ok())
    }

    /// The message of a record that no rule knows.
    fn message(&self) -> &'t str {
        self.line().map_or(self.text, |line| line.message)
    }

    fn facts<'a>(
        &'a self,
        envelope: &'a Envelope<'a>,
        message: &'a str,
        tape: Option<(&'a Tape, &Decoder)>,
    ) -> Facts<'a> {
        let line = self.line();
        let tape = tape.filter(|(tape, _)| tape.is_of(self.number));
        Facts {
            record: self.text,
            message,
            syslog: line,
            json: tape.map(|(tape, decoder)| (tape, decoder.part(message))),
            service: self.service(envelope),
            host: line.and_then(|line| line.host),
            envelope,
        }
    }
}

/// Where a record stood.
struct Place<'a> {
    record: &'a [u8],
    /// The record as text: itself where it is UTF-8.
    text: &'a str,
    /// The text of the whole record, where this is an element of it.
    whole: &'a str,
    /// What was redacted in it before it was decoded.
    names: &'a Names,
    offset: Offset,
    segment: Option<u32>,
    hash: &'a Digest,
    /// Of the whole record as its first event keeps it, where something was redacted in an element.
    whole_hash: Option<&'a Digest>,
    /// The event's number in the record.
    index: u32,
    given: Given<'a>,
}

/// What the last step before writing has found.
#[derive(Default)]
struct Last {
    raw: late::Raw,
    /// Of the raw record, where it is another now.
    hash: Option<Digest>,
    names: Names,
}

impl Place<'_> {
    /// Fills what every event has and writes it.
    fn finish<'a>(
        &'a self,
        time: Timestamp,
        basis: Basis,
        scene: &Scene<'a>,
        last: &'a Last,
        draft: &mut Draft<'a>,
        out: &mut Vec<u8>,
    ) {
        let envelope = scene.facts.envelope;
        let hash = match (&last.raw, self.whole_hash, &last.hash) {
            (late::Raw::Kept | late::Raw::Changed(_), Some(hash), _) | (_, _, Some(hash)) => hash,
            _ => self.hash,
        };
        let (key, number) = self.given.name.unwrap_or((envelope.file, self.offset));
        draft.id(event_id(key, number, self.index, hash));
        draft.time(Field::Time, time);
        draft.text(Field::TimeBasis, basis.as_str());
        if !draft.has(Field::Host) {
            draft.text(Field::Host, scene.facts.host.unwrap_or(envelope.host));
        }
        if !draft.has(Field::Service) {
            draft.text(Field::Service, scene.facts.service.unwrap_or_default());
        }
        draft.int(Field::OriginOffset, i64::try_from(self.offset.get()).unwrap_or(i64::MAX));
        draft.text(Field::OriginCursor, self.given.cursor.unwrap_or_default());
        if let Some(segment) = self.segment {
            draft.int(Field::OriginSegment, i64::from(segment));
        }
        let known = self.names.iter().filter(|name| !last.names.contains(name));
        for name in known.chain(&last.names) {
            draft.tag(format!("redacted:{name}"));
        }
        draft.raw_sha256(&hash.0);
        match &last.raw {
            late::Raw::Gone => {}
            late::Raw::Changed(record) => {
                draft.raw(&record[..kept_len(record)]);
            }
            late::Raw::Kept => {
                if let Some(original) = self.given.original {
                    draft.text(Field::OriginEncoding, original.encoding);
                    draft.raw_decoded(self.text, original.bytes, original.exact);
                } else if self.text.as_bytes().as_ptr_range() == self.record.as_ptr_range() {
                    draft.raw_text(&self.text[..kept_len(self.record)]);
                } else {
                    draft.raw(&self.record[..kept_len(self.record)]);
                }
            }
        }
        draft.finish(out);
    }
}
