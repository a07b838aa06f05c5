//! Which rule knows a message? All rules that can apply to one program, compiled into one matcher.
//!
//! A message's first byte names the rules that could match at all, in order; one that begins with
//! a literal is then ruled out by a comparison, one that holds a literal somewhere by one pass of
//! Aho-Corasick over the message, which is run only when the first such rule comes up. What is
//! left is tried, and the first that matches and whose conditions hold wins.

use std::sync::{Arc, OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};

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
    words: Option<AhoCorasick>,
    /// The entry that each of the automaton's words belongs to.
    word_of: Vec<u16>,
}

/// A matcher that is made when a record first needs it: of the programs that packs name few speak
/// on one host.
#[derive(Debug)]
pub(crate) struct Later {
    rules: Vec<RuleAt>,
    made: OnceLock<Matcher>,
}

impl Later {
    pub(crate) fn new(rules: Vec<RuleAt>) -> Self {
        Self { rules, made: OnceLock::new() }
    }

    pub(crate) fn get(&self, packs: &[PackAt]) -> &Matcher {
        self.made.get_or_init(|| {
            let rule = |at: &RuleAt| {
                let PackAt { pack, json_base } = &packs[at.pack];
                (*at, *json_base, &pack.rules[at.rule])
            };
            Matcher::new(&self.rules.iter().map(rule).collect::<Vec<_>>())
        })
    }
}

#[derive(Debug)]
struct Entry {
    at: RuleAt,
    prefixes: Vec<(Head, Box<[u8]>)>,
    /// The automaton must have found its word.
    needs_word: bool,
    /// Slots of fields that must be there.
    slots: Box<[u32]>,
}

/// What a search needs beside the message; one a worker.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) slots: Slots,
    pub(crate) caches: Vec<Cache>,
    words: Vec<bool>,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            slots: [crate::scan::UNSET; crate::scan::MAX_GROUPS * 2],
            caches: Vec::new(),
            words: Vec::new(),
        }
    }
}

const EMPTY: usize = 256;

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
    pub(crate) fn new(rules: &[(RuleAt, u32, &Rule)]) -> Self {
        let mut matcher =
            Self { entries: Vec::new(), buckets: Vec::new(), words: None, word_of: Vec::new() };
        let mut buckets: Vec<Vec<u16>> = vec![Vec::new(); EMPTY + 1];
        let mut words: Vec<Box<[u8]>> = Vec::new();
        for (at, json_base, rule) in rules {
            let Ok(number) = u16::try_from(matcher.entries.len()) else { break };
            let slots = rule.needs().iter().map(|path| json_base + path).collect();
            let mut entry = Entry { at: *at, prefixes: Vec::new(), needs_word: false, slots };
            let (needs, first) = match (&rule.pattern, rule.on) {
                (Some(pattern), Source::Message) => (&pattern.needs, pattern.first.as_ref()),
                _ => (&Needs::Nothing, None),
            };
            let mut everywhere = |with_empty: bool| {
                for (byte, bucket) in buckets.iter_mut().enumerate() {
                    let fits = first.is_none_or(|first| first.get(byte).is_some_and(|fits| *fits));
                    if fits && (with_empty || byte != EMPTY) {
                        bucket.push(number);
                    }
                }
            };
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
                Needs::Literal(word) => {
                    words.push(word.clone());
                    matcher.word_of.push(number);
                    entry.needs_word = true;
                    everywhere(false);
                }
                Needs::Nothing => everywhere(true),
            }
            matcher.entries.push(entry);
        }
        matcher.buckets = buckets.into_iter().map(Vec::into_boxed_slice).collect();
        matcher.words = automaton(&words);
        if matcher.words.is_none() {
            matcher.entries.iter_mut().for_each(|entry| entry.needs_word = false);
        }
        matcher
    }

    /// The first rule that knows the message; its groups are in the work's slots.
    pub(crate) fn find(&self, view: &View<'_>, work: &mut Work) -> Option<RuleAt> {
        let bytes = view.facts.message.as_bytes();
        let bucket = bytes.first().map_or(EMPTY, |byte| usize::from(*byte));
        let head = Head::of(bytes);
        let mut searched = false;
        for number in &self.buckets[bucket] {
            let entry = &self.entries[usize::from(*number)];
            let begins = || {
                let mut prefixes = entry.prefixes.iter();
                prefixes.any(|(start, prefix)| start.begins(head) && bytes.starts_with(prefix))
            };
            if !(view.by_service && entry.at.by_service || view.allowed[entry.at.pack])
                || !(entry.prefixes.is_empty() || begins())
                || !entry.slots.iter().all(|slot| view.facts.has(*slot))
            {
                continue;
            }
            if entry.needs_word {
                if !searched {
                    self.search(bytes, work);
                    searched = true;
                }
                if !work.words[usize::from(*number)] {
                    continue;
                }
            }
            if view.knows(entry.at, work) {
                return Some(entry.at);
            }
        }
        None
    }

    fn search(&self, message: &[u8], work: &mut Work) {
        work.words.clear();
        work.words.resize(self.entries.len(), false);
        let Some(words) = &self.words else { return };
        for found in words.find_overlapping_iter(message) {
            if let Some(number) = self.word_of.get(found.pattern().as_usize()) {
                work.words[usize::from(*number)] = true;
            }
        }
    }
}

/// A record as the rules of some packs see it.
pub(crate) struct View<'a> {
    pub(crate) packs: &'a [PackAt],
    /// Which packs apply to records of this path, unit and endpoint, whatever the program is.
    pub(crate) allowed: &'a [bool],
    /// Packs that name the program apply too.
    pub(crate) by_service: bool,
    pub(crate) facts: Facts<'a>,
}

/// A pack in a parser.
#[derive(Debug, Clone)]
pub(crate) struct PackAt {
    pub(crate) pack: Arc<Pack>,
    /// The number of its first JSON path among those of all packs.
    pub(crate) json_base: u32,
}

impl<'a> View<'a> {
    /// The text that a rule's pattern is matched on.
    pub(crate) fn subject(&self, at: RuleAt) -> Option<&'a str> {
        let pack = &self.packs[at.pack];
        match pack.pack.rules[at.rule].on {
            Source::Message => Some(self.facts.message),
            other => {
                const NONE: &Slots = &[crate::scan::UNSET; crate::scan::MAX_GROUPS * 2];
                self.facts.scene("", NONE, pack.json_base).text(other)
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
        let scene = self.facts.scene(subject, &work.slots, pack.json_base);
        rule.when.iter().all(|condition| condition.holds(&scene))
    }
}

/// Words of so many bytes in all are worth a table of every byte in every state (1 KiB a state).
const MAX_DFA_BYTES: usize = 1_000;

fn automaton(words: &[Box<[u8]>]) -> Option<AhoCorasick> {
    if words.is_empty() {
        return None;
    }
    let bytes: usize = words.iter().map(|word| word.len()).sum();
    let kind = match bytes {
        0..=MAX_DFA_BYTES => AhoCorasickKind::DFA,
        _ => AhoCorasickKind::ContiguousNFA,
    };
    AhoCorasickBuilder::new().match_kind(MatchKind::Standard).kind(Some(kind)).build(words).ok()
}
