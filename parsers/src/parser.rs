//! The parser of one source: its packs compiled together, and the way from record to event.
//!
//! A record is decoded by the first group of packs whose decoders know its form, the group's
//! matcher names the rule, the rule fills the event. Nothing here fails: a record that no rule
//! knows is an event of the category `unknown` with the action [`UNMATCHED`] and a reason, with
//! what its decoder found (time, host, program) and its bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use custody_event::position::event_id;
use custody_event::{Base, Digest, Draft, Field, FileKey, Offset, Timestamp};
use jiff::tz::TimeZone;

use crate::decode::json::{Paths, Tape};
use crate::decode::syslog::{self, Syslog};
use crate::decode::{Decoder, Step};
use crate::fill;
use crate::matcher::{Matcher, PackAt, RuleAt, View, Work};
use crate::pack::{Pack, Rule};
use crate::scan::{MAX_GROUPS, Slots, UNSET};
use crate::time::{Basis, ZoneMemo, resolve};
use crate::value::{Facts, Scene};

/// The action of a record that no rule knows.
pub const UNMATCHED: &str = "record.unmatched";

/// What a source says about its records.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Zone of times that name none.
    pub zone: TimeZone,
}

impl Default for Settings {
    /// UTC.
    fn default() -> Self {
        Self { zone: TimeZone::UTC }
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
            labels: &[],
            file: FileKey([0; 16]),
        }
    }
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
    trees: Vec<Paths>,
    json_slots: usize,
    drops: Vec<DropReason>,
    drop_of: HashMap<(usize, usize), usize>,
    caches: usize,
    /// The source names its packs: their tests of path and endpoint are passed.
    by_name: bool,
    zone: TimeZone,
}

/// Packs in a row that decode alike.
#[derive(Debug)]
struct Group {
    chain: Vec<Step>,
    packs: Vec<usize>,
    /// Matchers of programs that packs name.
    services: HashMap<Box<str>, usize>,
    /// The first is of all other programs.
    matchers: Vec<Matcher>,
}

/// A worker's memory: kept from record to record, so that a record costs no allocation. One
/// scratch may serve several parsers in turn.
#[derive(Debug, Default)]
pub struct Scratch {
    rooms: Vec<(u64, Box<Room>)>,
}

/// Parsers that one scratch remembers.
const MAX_ROOMS: usize = 64;

#[derive(Debug, Default)]
struct Room {
    lossy: String,
    tape: Tape,
    work: Work,
    memo: ZoneMemo,
    allowed: Vec<bool>,
    /// The path, unit and endpoint that `allowed` is of.
    allowed_for: Option<[Option<String>; 3]>,
    /// For each group the program of the record before, and its matcher.
    chosen: Vec<(String, usize)>,
    /// What the events of a rule have in common in this run, by the number of the rule's cache.
    bases: Vec<Common>,
}

/// What the events of one rule have in common. Making it costs more than an event, so the first
/// event of a run does without.
#[derive(Debug, Default)]
enum Common {
    #[default]
    Unseen,
    Seen,
    Made(Base),
}

/// Records of one source that came together: what they share is looked at once.
#[derive(Debug)]
pub struct Run<'p> {
    parser: &'p Parser,
    envelope: &'p Envelope<'p>,
    room: &'p mut Room,
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
            trees: vec![Paths::new(false), Paths::new(true)],
            json_slots: 0,
            drops: Vec::new(),
            drop_of: HashMap::new(),
            caches: 0,
            by_name,
            zone: settings.zone,
        };
        for pack in packs {
            parser.add(pack);
        }
        parser.compile();
        parser
    }

    fn add(&mut self, pack: &Arc<Pack>) {
        let number = self.packs.len();
        let json_base = u32::try_from(self.json_slots).unwrap_or(u32::MAX);
        for path in &pack.json_paths {
            let slot = u32::try_from(self.json_slots).unwrap_or(u32::MAX);
            self.trees[usize::from(pack.folded)].add(path, slot);
            self.json_slots += 1;
        }
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
        match self.groups.last_mut() {
            Some(group) if group.chain == pack.chain => group.packs.push(number),
            _ => self.groups.push(Group {
                chain: pack.chain.clone(),
                packs: vec![number],
                services: HashMap::new(),
                matchers: Vec::new(),
            }),
        }
        self.packs.push(PackAt { pack: Arc::clone(pack), json_base });
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
            for service in std::iter::once(None).chain(names.into_iter().map(Some)) {
                let mut rules: Vec<(RuleAt, &Rule)> = Vec::new();
                for number in &group.packs {
                    let pack = &self.packs[*number].pack;
                    if !could_apply(pack, service) {
                        continue;
                    }
                    for (rule, found) in pack.rules.iter().enumerate() {
                        let cache = first_cache[*number] + rule;
                        rules.push((RuleAt { pack: *number, rule, cache }, found));
                    }
                }
                if let Some(service) = service {
                    group.services.insert(service.into(), group.matchers.len());
                }
                group.matchers.push(Matcher::new(&rules));
            }
        }
    }

    /// Names of its packs, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.packs.iter().map(|pack| pack.pack.name.as_str()).collect()
    }

    /// The rules that leave records out; [`Verdict::Filtered`] counts in this list.
    #[must_use]
    pub fn drop_reasons(&self) -> &[DropReason] {
        &self.drops
    }

    /// Begins with records that came together.
    pub fn run<'p>(&'p self, scratch: &'p mut Scratch, envelope: &'p Envelope<'p>) -> Run<'p> {
        let room = scratch.room(self);
        self.allow(envelope, &mut room.allowed, &mut room.allowed_for);
        room.chosen.resize_with(self.groups.len(), Default::default);
        room.bases.clear();
        room.bases.resize_with(self.caches, Common::default);
        Run { parser: self, envelope, room }
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

    /// Which packs may apply to this path, unit and endpoint; asked once for a run of records.
    fn allow(
        &self,
        envelope: &Envelope<'_>,
        allowed: &mut Vec<bool>,
        allowed_for: &mut Option<[Option<String>; 3]>,
    ) {
        let now = [envelope.path, envelope.unit, envelope.endpoint];
        let same = allowed_for.as_ref().is_some_and(|before| {
            before.iter().zip(now).all(|(before, now)| before.as_deref() == now)
        });
        if same {
            return;
        }
        allowed.clear();
        allowed.extend(self.packs.iter().map(|pack| {
            let select = &pack.pack.select;
            let by_place = select.fits(envelope.path, envelope.unit, envelope.endpoint);
            // What the program's name decides is decided by the choice of the matcher.
            by_place || !select.services.is_empty() || self.by_name
        }));
        *allowed_for = Some(now.map(|text| text.map(str::to_owned)));
    }

    /// Fills what all events of a rule have in common in a run.
    fn common<'a>(&self, pack: &'a Pack, rule: &'a Rule, scene: &Scene<'a>) -> Draft<'a> {
        let mut draft = Draft::new();
        fill::fixed(rule, scene, &mut draft);
        draft.text(Field::OriginPack, pack.name.as_str());
        draft.int(Field::OriginPackVersion, pack.version);
        draft.text(Field::OriginRule, rule.id.as_str());
        surroundings(scene.facts.envelope, &mut draft);
        draft
    }

    /// Writes the event of a rule. `draft` has what [`Self::common`] fills.
    fn store<'a>(
        &self,
        rule: &'a Rule,
        scene: &Scene<'a>,
        place: &'a Place<'a>,
        memo: &mut ZoneMemo,
        mut draft: Draft<'a>,
        out: &mut Vec<u8>,
    ) -> Timestamp {
        let own = rule.time.as_ref().and_then(|time| {
            fill::own_time(time, scene, &self.zone, memo, scene.facts.envelope.observed)
        });
        let (time, basis) = own.unwrap_or_else(|| self.time_of(scene, memo));
        fill::apply(rule, scene, &mut draft);
        fill::envelope_details(scene, &mut draft);
        fill::finish(scene, &mut draft);
        place.finish(time, basis, scene, &mut draft, out);
        time
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
        memo: &mut ZoneMemo,
        out: &mut Vec<u8>,
    ) -> Timestamp {
        let mut draft = Draft::new();
        let (time, basis) = self.time_of(scene, memo);
        draft.text(Field::Action, UNMATCHED);
        draft.text(Field::Category, "unknown");
        draft.text(Field::Op, "other");
        draft.text(Field::Severity, "info");
        draft.text(Field::OriginReason, reason);
        surroundings(scene.facts.envelope, &mut draft);
        fill::envelope_details(scene, &mut draft);
        fill::finish(scene, &mut draft);
        place.finish(time, basis, scene, &mut draft, out);
        time
    }

    /// The envelope's time, or the time when the record was read.
    fn time_of(&self, scene: &Scene<'_>, memo: &mut ZoneMemo) -> (Timestamp, Basis) {
        let observed = scene.facts.envelope.observed;
        scene
            .facts
            .syslog
            .and_then(|line| line.moment)
            .and_then(|moment| resolve(moment, &self.zone, memo, observed))
            .unwrap_or((observed, Basis::Received))
    }
}

/// Could the pack apply to this program (`None`: to one that no pack names)?
fn could_apply(pack: &Pack, service: Option<&str>) -> bool {
    let select = &pack.select;
    if select.services.is_empty() || !select.only_service() {
        return true;
    }
    service.is_some_and(|service| select.services.iter().any(|known| known == service))
}

impl Group {
    /// The matcher of a program, which mostly is that of the record before.
    fn matcher(&self, service: Option<&str>, before: &mut (String, usize)) -> &Matcher {
        let Some(service) = service else { return &self.matchers[0] };
        if before.0 != service {
            before.0.clear();
            before.0.push_str(service);
            before.1 = self.services.get(service).copied().unwrap_or(0);
        }
        &self.matchers[before.1]
    }
}

impl Run<'_> {
    /// Turns one record into one canonical event, appended to `out` without a newline, or leaves
    /// it out by a named rule. Never fails and never panics, whatever the bytes are.
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
        let Self { parser, envelope, room } = self;
        let Room { lossy, tape, work, memo, allowed, chosen, bases, .. } = &mut **room;
        let hash = Digest::of(record);
        let text = as_text(record, lossy);
        let place = Place { record, text, offset, segment, hash: &hash };
        let mut decoded = Decoded { text, syslog: None, json_from: None, reason: None };
        for (group, before) in parser.groups.iter().zip(chosen) {
            if !group.packs.iter().any(|pack| allowed[*pack]) {
                continue;
            }
            let Some(message) = decoded.run(&group.chain, tape, &parser.trees, parser.json_slots)
            else {
                continue;
            };
            let is_json = group.chain.iter().any(|step| step.decoder == Decoder::Json);
            let facts = decoded.facts(envelope, message, is_json.then_some(&*tape));
            let view = View { packs: &parser.packs, allowed, facts };
            let matcher = group.matcher(facts.service, before);
            let Some(at) = matcher.find(&view, work) else { continue };
            if let Some(reason) = parser.drop_reason(at) {
                return Verdict::Filtered { reason };
            }
            let PackAt { pack, json_base } = &parser.packs[at.pack];
            let rule = &pack.rules[at.rule];
            let subject = view.subject(at).unwrap_or_default();
            let scene = facts.scene(subject, &work.slots, *json_base);
            let common = || parser.common(pack, rule, &scene);
            let draft = bases.get_mut(at.cache).map_or_else(common, |base| base.draft(common));
            let time = parser.store(rule, &scene, &place, memo, draft, out);
            return Verdict::Stored { time };
        }
        let facts = decoded.facts(envelope, decoded.message(), None);
        const NONE: &Slots = &[UNSET; MAX_GROUPS * 2];
        let scene = facts.scene("", NONE, 0);
        let reason = decoded.reason.unwrap_or("no rule matched");
        Verdict::Unmatched { time: parser.unmatched(reason, &scene, &place, memo, out) }
    }
}

impl Common {
    /// A draft to go on with, on what the events of the rule have in common.
    fn draft<'a>(&'a mut self, fill: impl FnOnce() -> Draft<'a>) -> Draft<'a> {
        match self {
            Self::Unseen => {
                *self = Self::Seen;
                fill()
            }
            Self::Made(base) => Draft::on(base),
            Self::Seen => {
                let draft = fill();
                let Some(base) = Base::of(&draft) else { return draft };
                *self = Self::Made(base);
                match self {
                    Self::Made(base) => Draft::on(base),
                    Self::Unseen | Self::Seen => draft,
                }
            }
        }
    }
}

/// Fills what the source gives to all its events of a run.
fn surroundings<'a>(envelope: &'a Envelope<'a>, draft: &mut Draft<'a>) {
    let texts = [
        (Field::Tenant, Some(envelope.tenant)),
        (Field::OriginAgent, Some(envelope.agent)),
        (Field::OriginInput, Some(envelope.input)),
        (Field::OriginPath, envelope.path),
        (Field::OriginUnit, envelope.unit),
        (Field::OriginEndpoint, envelope.endpoint),
    ];
    for (field, text) in texts {
        draft.text(field, text.unwrap_or_default());
    }
    draft.time(Field::Observed, envelope.observed);
    for label in envelope.labels {
        draft.tag(label.as_str());
    }
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

/// What the decoders have found in a record so far; each runs at most once for a message.
struct Decoded<'t> {
    text: &'t str,
    syslog: Option<Result<Syslog<'t>, &'static str>>,
    /// The message that the tape holds, or that was refused, by its place.
    json_from: Option<(*const u8, Result<(), &'static str>)>,
    /// Why the last group could not decode the record.
    reason: Option<&'static str>,
}

impl<'t> Decoded<'t> {
    /// Runs a chain; `None` if the record is not of its form.
    fn run(
        &mut self,
        chain: &[Step],
        tape: &mut Tape,
        trees: &[Paths],
        slots: usize,
    ) -> Option<&'t str> {
        let mut message = self.text;
        for step in chain {
            let done = match step.decoder {
                Decoder::Syslog => {
                    let line = *self.syslog.get_or_insert_with(|| syslog::decode(self.text));
                    line.map(|line| message = line.inner)
                }
                Decoder::Json => self.json(message, tape, trees, slots),
            };
            if let Err(reason) = done
                && !step.optional
            {
                self.reason = Some(reason);
                return None;
            }
        }
        self.reason = None;
        Some(message)
    }

    fn json(
        &mut self,
        message: &'t str,
        tape: &mut Tape,
        trees: &[Paths],
        slots: usize,
    ) -> Result<(), &'static str> {
        match self.json_from {
            Some((from, done)) if std::ptr::eq(from, message.as_ptr()) => done,
            _ => {
                let done = tape.read(json_part(message));
                if done.is_ok() {
                    tape.locate(trees, slots);
                }
                self.json_from = Some((message.as_ptr(), done));
                done
            }
        }
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
        tape: Option<&'a Tape>,
    ) -> Facts<'a> {
        let line = self.line();
        let json = tape.filter(|_| matches!(self.json_from, Some((_, Ok(())))));
        Facts {
            record: self.text,
            message,
            syslog: line,
            json: json.map(|tape| (tape, json_part(message))),
            service: line.and_then(|line| line.service).or(envelope.service),
            host: line.and_then(|line| line.host),
            envelope,
        }
    }
}

/// A message without the cookie that says that JSON follows (`@cee:`).
fn json_part(message: &str) -> &str {
    message.trim_start().strip_prefix("@cee:").unwrap_or(message)
}

/// Where a record stood.
struct Place<'a> {
    record: &'a [u8],
    /// The record as text: itself where it is UTF-8.
    text: &'a str,
    offset: Offset,
    segment: Option<u32>,
    hash: &'a Digest,
}

impl Place<'_> {
    /// Fills what every event has and writes it.
    fn finish<'a>(
        &'a self,
        time: Timestamp,
        basis: Basis,
        scene: &Scene<'a>,
        draft: &mut Draft<'a>,
        out: &mut Vec<u8>,
    ) {
        let envelope = scene.facts.envelope;
        draft.id(event_id(envelope.file, self.offset, 0, self.hash));
        draft.time(Field::Time, time);
        draft.text(Field::TimeBasis, basis.as_str());
        if !draft.has(Field::Host) {
            draft.text(Field::Host, scene.facts.host.unwrap_or(envelope.host));
        }
        if !draft.has(Field::Service) {
            draft.text(Field::Service, scene.facts.service.unwrap_or_default());
        }
        draft.int(Field::OriginOffset, i64::try_from(self.offset.get()).unwrap_or(i64::MAX));
        if let Some(segment) = self.segment {
            draft.int(Field::OriginSegment, i64::from(segment));
        }
        draft.raw_sha256(&self.hash.0);
        if self.text.as_bytes().as_ptr_range() == self.record.as_ptr_range() {
            draft.raw_text(self.text);
        } else {
            draft.raw(self.record);
        }
        draft.finish(out);
    }
}
