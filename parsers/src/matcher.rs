//! Which rule knows a message? All rules that can apply to one program, compiled into one matcher.
//!
//! A message's first byte names the rules that could match at all, in order; of these a [`Plan`] keeps the ones whose packs
//! are asked for records of this place. One that begins with a literal is then ruled out by a comparison, and one that
//! holds literals anywhere by [`Couples`]: one pass over the message, for the rules of all packs and all matchers, notes
//! which two bytes stand next to each other in it. What is left is tried, and the first that matches and whose conditions
//! hold wins.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::decode::json::{NOWHERE, index};
use crate::pack::{Pack, Rule};
use crate::pattern::{Cache, Needs};
use crate::scan::Slots;
use crate::value::{Facts, Source};

/// A rule's place in its parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleAt {
    /// The pack's number in the parser.
    pub(crate) pack: usize,
    /// The rule's number in the pack.
    pub(crate) rule: usize,
    /// The number of the rule's cache in a worker's memory.
    pub(crate) cache: usize,
    /// Its pack names the program: whatever the path, unit and endpoint are.
    pub(crate) by_service: bool,
}

/// All rules that can apply to one program's messages, in order.
#[derive(Debug)]
pub(crate) struct Matcher {
    entries: Vec<Entry>,
    /// Numbers of entries by the message's first byte; the last is of the empty message.
    buckets: Vec<Box<[u16]>>,
    /// Entries that need no field.
    free: Box<[u64]>,
    keyed: Keyed,
}

/// The entries that need a field, by one of its slots: that whose path the fewest packs name.
#[derive(Debug, Default)]
struct Keyed {
    /// Where the entries of a slot begin; those of the next begin where they end.
    starts: Vec<u32>,
    entries: Vec<u16>,
}

impl Keyed {
    fn of(mut keys: Vec<(u32, u16)>) -> Self {
        keys.sort_unstable();
        let Some((last, _)) = keys.last() else { return Self::default() };
        let mut starts = vec![0; index(*last) + 2];
        for (slot, _) in &keys {
            starts[index(*slot) + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        Self { starts, entries: keys.into_iter().map(|(_, entry)| entry).collect() }
    }

    fn entries(&self, slot: u32) -> &[u16] {
        match self.starts.get(index(slot)..).unwrap_or_default() {
            [from, to, ..] => self.entries.get(index(*from)..index(*to)).unwrap_or_default(),
            _ => &[],
        }
    }
}

/// Sets a bit.
fn mark(bits: &mut [u64], number: u16) {
    if let Some(word) = bits.get_mut(usize::from(number >> 6)) {
        *word |= 1 << (number & 63);
    }
}

/// A matcher that is made when a record first needs it: of the programs that packs name few speak
/// on one host.
#[derive(Debug)]
pub(crate) struct Later {
    /// Its number among all of the parser.
    pub(crate) number: usize,
    rules: Vec<RuleAt>,
    made: OnceLock<Matcher>,
}

impl Later {
    pub(crate) fn new(number: usize, rules: Vec<RuleAt>) -> Self {
        Self { number, rules, made: OnceLock::new() }
    }

    pub(crate) fn get(&self, packs: &[PackAt]) -> &Matcher {
        self.made.get_or_init(|| {
            let rule = |at: &RuleAt| {
                let PackAt { pack, fields } = &packs[at.pack];
                (*at, &**fields, &pack.rules[at.rule])
            };
            let rules: Vec<_> = self.rules.iter().map(rule).collect();
            Matcher::new(&rules, &self.named(packs))
        })
    }

    /// By slot, how many of its packs name the slot's path.
    fn named(&self, packs: &[PackAt]) -> HashMap<u32, usize> {
        let mut own: Vec<usize> = self.rules.iter().map(|at| at.pack).collect();
        own.dedup();
        let mut times = HashMap::new();
        for slot in own.iter().flat_map(|pack| &packs[*pack].fields) {
            *times.entry(*slot).or_default() += 1;
        }
        times
    }
}

#[derive(Debug)]
struct Entry {
    at: RuleAt,
    prefixes: Vec<(Head, Box<[u8]>)>,
    /// Bytes that stand next to each other in whatever it matches.
    couples: Box<[u16]>,
    /// Of each of these lists one is there.
    any: Vec<Box<[Box<[u16]>]>>,
    /// Slots of fields that must be there.
    slots: Box<[u32]>,
    /// Of these the one whose path the fewest packs name.
    rarest: u32,
}

/// What a search needs beside the message; one a worker.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) slots: Slots,
    pub(crate) caches: Vec<Cache>,
    /// Of the record, and of the message in it.
    couples: [Couples; 2],
    /// The entries that may be right for the fields that there are.
    marks: Vec<u64>,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            slots: [crate::scan::UNSET; crate::scan::MAX_GROUPS * 2],
            caches: Vec::new(),
            couples: Default::default(),
            marks: Vec::new(),
        }
    }
}

impl Work {
    /// Forgets the record before.
    pub(crate) fn begin(&mut self) {
        self.couples.iter_mut().for_each(|couples| couples.of = None);
    }
}

/// Which two bytes stand next to each other in a text, each couple by a number of twelve bits: several share one, so what
/// is said to be there may be missing, but never the other way round.
#[derive(Debug)]
struct Couples {
    /// In which turn each was last seen: a byte each, for setting bits would make every couple wait for the one before.
    seen: Box<[u8; COUPLES]>,
    turn: u8,
    /// Place and length of the text.
    of: Option<(usize, usize)>,
}

/// How many numbers couples have.
const COUPLES: usize = 0x1000;

impl Default for Couples {
    fn default() -> Self {
        Self { seen: Box::new([0; COUPLES]), turn: 0, of: None }
    }
}

/// How often a byte is met in logs, roughly: nothing but speed depends on it.
fn commonness(byte: u8) -> usize {
    const FREQUENT: &[u8] = b"\"e:ta,ionsr_dlc1u0.p2-m h3f/g54yb6789v{}w=k[]x";
    FREQUENT.iter().rev().position(|frequent| *frequent == byte).map_or(0, |place| place + 1)
}

/// A rule is asked for so many couples at most: each that is missing rules it out, and one in ten is there by chance.
const MAX_COUPLES: usize = 12;

impl Couples {
    fn number(first: u8, second: u8) -> u16 {
        (u16::from(first) << 6 ^ u16::from(second)) & 0xfff
    }

    /// Those of a rule, from the words that it must find.
    fn needed(words: &[Box<[u8]>]) -> Box<[u16]> {
        let couple =
            |two: &[u8]| (commonness(two[0]) * commonness(two[1]), Self::number(two[0], two[1]));
        let mut all: Vec<_> = words.iter().flat_map(|word| word.windows(2).map(couple)).collect();
        all.sort_unstable();
        all.dedup();
        // The seldom ones first: the first that is missing ends the search.
        all.truncate(MAX_COUPLES);
        all.into_iter().map(|(_, number)| number).collect()
    }

    fn note(&mut self, text: &[u8]) {
        let of = (text.as_ptr().addr(), text.len());
        if self.of == Some(of) {
            return;
        }
        self.of = Some(of);
        self.turn = self.turn.wrapping_add(1);
        if self.turn == 0 {
            self.seen.fill(0);
            self.turn = 1;
        }
        for two in text.windows(2) {
            self.seen[usize::from(Self::number(two[0], two[1]))] = self.turn;
        }
    }

    fn have(&self, number: u16) -> bool {
        self.seen.get(usize::from(number)).is_some_and(|seen| *seen == self.turn)
    }
}

/// Numbers of entries as bits and in order, each with what rules it out soonest.
#[derive(Debug, PartialEq, Eq)]
struct List {
    bits: Box<[u64]>,
    entries: Vec<Listed>,
}

/// An entry's number, and what it cannot match without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listed {
    entry: u16,
    /// A couple of bytes; [`FREE`] where it needs none, or its prefix is looked at first.
    couple: u16,
    /// The slot of the field that the fewest packs name; [`NOWHERE`] where it needs none.
    slot: u32,
}

/// No couple's number.
const FREE: u16 = u16::MAX;

/// The entries of a matcher whose packs are asked, by the message's first byte, each list made when it is first needed.
#[derive(Debug)]
pub(crate) struct Plan {
    /// One more than the number of the list; zero where there is none yet.
    of: [Cell<u16>; BUCKETS],
    lists: RefCell<Vec<List>>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { of: [const { Cell::new(0) }; BUCKETS], lists: RefCell::default() }
    }
}

impl Plan {
    /// The number of the list for messages that begin so.
    fn list(&self, matcher: &Matcher, bucket: usize, asked: &Asked<'_>) -> usize {
        let known = self.of[bucket].get();
        if known > 0 {
            return usize::from(known) - 1;
        }
        let mut list = List { bits: vec![0; matcher.free.len()].into(), entries: Vec::new() };
        for number in &matcher.buckets[bucket] {
            let entry = &matcher.entries[usize::from(*number)];
            if asked.by_service && entry.at.by_service || asked.packs[entry.at.pack] {
                mark(&mut list.bits, *number);
                let couple = entry.couples.first().filter(|_| entry.prefixes.is_empty());
                let couple = couple.copied().unwrap_or(FREE);
                list.entries.push(Listed { entry: *number, couple, slot: entry.rarest });
            }
        }
        let mut lists = self.lists.borrow_mut();
        let same = lists.iter().position(|known| *known == list);
        let number = same.unwrap_or_else(|| {
            lists.push(list);
            lists.len() - 1
        });
        self.of[bucket].set(u16::try_from(number + 1).unwrap_or(0));
        number
    }

    /// Could any rule know a message that begins so?
    pub(crate) fn hopes(&self, matcher: &Matcher, message: &str, asked: &Asked<'_>) -> bool {
        let list = self.list(matcher, bucket(message.as_bytes()), asked);
        self.lists.borrow().get(list).is_some_and(|list| !list.entries.is_empty())
    }
}

/// Which packs are asked.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Those that apply to records of this path, unit and endpoint, whatever the program is.
    pub(crate) packs: &'a [bool],
    /// Packs that name the program apply too.
    pub(crate) by_service: bool,
}

/// The number of a message's first byte.
pub(crate) fn bucket(message: &[u8]) -> usize {
    message.first().map_or(EMPTY, |byte| usize::from(*byte))
}

const EMPTY: usize = 256;
/// How many numbers first bytes have, that of the empty message among them.
pub(crate) const BUCKETS: usize = EMPTY + 1;

/// The first eight bytes of a text, and which of them count.
#[derive(Debug, Clone, Copy)]
struct Head {
    bytes: u64,
    mask: u64,
}

impl Head {
    fn of(text: &[u8]) -> Self {
        let (mut bytes, mut mask) = ([0; 8], [0; 8]);
        for ((byte, mask), from) in bytes.iter_mut().zip(&mut mask).zip(text) {
            (*byte, *mask) = (*from, u8::MAX);
        }
        Self { bytes: u64::from_le_bytes(bytes), mask: u64::from_le_bytes(mask) }
    }

    /// Does a text with the head `other` begin with this?
    fn begins(self, other: Self) -> bool {
        (self.bytes ^ other.bytes) & self.mask == 0
    }
}

impl Matcher {
    /// Compiles these rules, in this order.
    fn new(rules: &[(RuleAt, &[u32], &Rule)], named: &HashMap<u32, usize>) -> Self {
        let mut matcher = Self {
            entries: Vec::new(),
            buckets: Vec::new(),
            free: vec![0; rules.len().div_ceil(64)].into(),
            keyed: Keyed::default(),
        };
        let mut keys = Vec::new();
        let mut buckets: Vec<Vec<u16>> = vec![Vec::new(); BUCKETS];
        for (at, fields, rule) in rules {
            let Ok(number) = u16::try_from(matcher.entries.len()) else { break };
            let slots: Box<[u32]> =
                rule.needs().iter().filter_map(|path| fields.get(index(*path)).copied()).collect();
            let rarest = slots.iter().min_by_key(|slot| named.get(*slot)).copied();
            match rarest {
                Some(slot) => keys.push((slot, number)),
                None => mark(&mut matcher.free, number),
            }
            let rarest = rarest.unwrap_or(NOWHERE);
            let (needs, first, words) = match (&rule.pattern, rule.on) {
                (Some(pattern), Source::Message) => {
                    (&pattern.needs, pattern.first.as_ref(), Some(&pattern.words))
                }
                _ => (&Needs::Nothing, None, None),
            };
            let needed = |words: &[Box<[u8]>]| Couples::needed(words);
            let couples = words.map(|words| needed(&words.all)).unwrap_or_default();
            let one_of = |branches: &Vec<Box<[u8]>>| {
                branches.iter().map(|branch| needed(std::slice::from_ref(branch))).collect()
            };
            let any = words.map(|words| words.any.iter().map(one_of).collect()).unwrap_or_default();
            let mut entry = Entry { at: *at, prefixes: Vec::new(), couples, any, slots, rarest };
            match needs {
                Needs::Prefix(prefixes) => {
                    for prefix in prefixes {
                        let bucket = &mut buckets[usize::from(prefix[0])];
                        if bucket.last() != Some(&number) {
                            bucket.push(number);
                        }
                    }
                    let with_head = |prefix: Box<[u8]>| (Head::of(&prefix), prefix);
                    entry.prefixes = prefixes.iter().cloned().map(with_head).collect();
                }
                Needs::Literal | Needs::Nothing => {
                    for (byte, bucket) in buckets.iter_mut().enumerate() {
                        let fits = |first: &crate::pattern::First| {
                            first.get(byte).is_some_and(|fits| *fits)
                        };
                        let is_there = byte != EMPTY || *needs == Needs::Nothing;
                        if is_there && first.is_none_or(fits) {
                            bucket.push(number);
                        }
                    }
                }
            }
            matcher.entries.push(entry);
        }
        matcher.buckets = buckets.into_iter().map(Vec::into_boxed_slice).collect();
        matcher.keyed = Keyed::of(keys);
        matcher
    }

    /// The first rule that knows the message; its groups are in the work's slots.
    pub(crate) fn find(&self, view: &View<'_>, plan: &Plan, work: &mut Work) -> Option<RuleAt> {
        let bytes = view.facts.message.as_bytes();
        let list = plan.list(self, bucket(bytes), &view.asked);
        let lists = plan.lists.borrow();
        let list = lists.get(list).filter(|list| !list.entries.is_empty())?;
        let asked = Search {
            bytes,
            head: Head::of(bytes),
            // The record as a whole, or what a decoder left of it.
            which: usize::from(bytes.len() != view.facts.record.len()),
            many: view.packs.len() > FEW,
        };
        let filled = view.facts.json.map_or(0, |(tape, _)| tape.filled().len());
        if self.keyed.entries.is_empty() || list.entries.len() <= filled {
            return self.find_listed(&list.entries, &asked, view, work);
        }
        self.mark(&view.facts, work);
        for (at, word) in list.bits.iter().enumerate() {
            let mut left = word & work.marks[at];
            while left != 0 {
                let number = at * 64 + usize::try_from(left.trailing_zeros()).unwrap_or(0);
                left &= left - 1;
                let entry = &self.entries[number];
                if entry.may_know(&asked, view, work) && view.knows(entry.at, work) {
                    return Some(entry.at);
                }
            }
        }
        None
    }

    /// The first of these that knows the message: of many, each is mostly ruled out by one look.
    fn find_listed(
        &self,
        entries: &[Listed],
        search: &Search<'_>,
        view: &View<'_>,
        work: &mut Work,
    ) -> Option<RuleAt> {
        for Listed { entry, couple, slot } in entries {
            if *slot != NOWHERE && !view.facts.has(*slot) {
                continue;
            }
            if search.many && *couple != FREE {
                let couples = &mut work.couples[search.which];
                couples.note(search.bytes);
                if !couples.have(*couple) {
                    continue;
                }
            }
            let entry = &self.entries[usize::from(*entry)];
            if entry.may_know(search, view, work) && view.knows(entry.at, work) {
                return Some(entry.at);
            }
        }
        None
    }

    /// Marks the entries that need no field, and those whose rarest field is there.
    fn mark(&self, facts: &Facts<'_>, work: &mut Work) {
        work.marks.clear();
        work.marks.extend_from_slice(&self.free);
        let Some((tape, _)) = facts.json else { return };
        for slot in tape.filled() {
            for number in self.keyed.entries(*slot) {
                mark(&mut work.marks, *number);
            }
        }
    }
}

/// A message that a rule is looked for.
struct Search<'a> {
    bytes: &'a [u8],
    head: Head,
    /// Which of the worker's couples are of this message.
    which: usize,
    /// Rules of many packs may have to be asked.
    many: bool,
}

/// The rules of so few packs are asked at once: the pass over the message would not pay.
const FEW: usize = 6;

impl Entry {
    /// Is there nothing yet that rules it out?
    fn may_know(&self, search: &Search<'_>, view: &View<'_>, work: &mut Work) -> bool {
        let mut prefixes = self.prefixes.iter();
        let begins = |(start, prefix): &(Head, Box<[u8]>)| {
            start.begins(search.head) && search.bytes.starts_with(prefix)
        };
        if !(self.prefixes.is_empty() || prefixes.any(begins))
            || !self.slots.iter().all(|slot| view.facts.has(*slot))
        {
            return false;
        }
        // After its first word a rule is mostly right.
        let asks = !self.couples.is_empty() || !self.any.is_empty();
        if !search.many || !self.prefixes.is_empty() || !asks {
            return true;
        }
        let couples = &mut work.couples[search.which];
        couples.note(search.bytes);
        let have = |all: &[u16]| all.iter().all(|couple| couples.have(*couple));
        have(&self.couples)
            && self.any.iter().all(|branches| branches.iter().any(|branch| have(branch)))
    }
}

/// A record as the rules of some packs see it.
pub(crate) struct View<'a> {
    pub(crate) packs: &'a [PackAt],
    pub(crate) asked: Asked<'a>,
    pub(crate) facts: Facts<'a>,
}

/// A pack in a parser.
#[derive(Debug, Clone)]
pub(crate) struct PackAt {
    pub(crate) pack: Arc<Pack>,
    /// The slot of each of its paths.
    pub(crate) fields: Box<[u32]>,
}

impl<'a> View<'a> {
    /// The text that a rule's pattern is matched on.
    pub(crate) fn subject(&self, at: RuleAt) -> Option<&'a str> {
        let pack = &self.packs[at.pack];
        match pack.pack.rules[at.rule].on {
            Source::Message => Some(self.facts.message),
            other => {
                const NONE: &Slots = &[crate::scan::UNSET; crate::scan::MAX_GROUPS * 2];
                self.facts.scene("", NONE, &pack.fields).text(other)
            }
        }
    }

    fn knows(&self, at: RuleAt, work: &mut Work) -> bool {
        let pack = &self.packs[at.pack];
        let rule = &pack.pack.rules[at.rule];
        let Some(subject) = self.subject(at) else { return false };
        if let Some(pattern) = &rule.pattern
            && !pattern.find(subject, &mut work.slots, &mut work.caches[at.cache])
        {
            return false;
        }
        let scene = self.facts.scene(subject, &work.slots, &pack.fields);
        rule.when.iter().all(|condition| condition.holds(&scene))
    }
}
