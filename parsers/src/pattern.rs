//! A rule's pattern: a scanner where it is simple, the regex engine where it is not.

use std::sync::OnceLock;

use regex_automata::meta;
use regex_syntax::hir::{Class, Hir, HirKind, Look, literal};

use crate::scan::{Found, MAX_GROUPS, Scanner, Slots, UNSET};

/// A pattern's text, at most.
pub(crate) const MAX_PATTERN_BYTES: usize = 4 * 1024;

/// A pattern of a rule, and what a record must hold for it to be worth trying.
#[derive(Debug)]
pub(crate) struct Pattern {
    source: Box<str>,
    scanner: Option<Scanner>,
    regex: OnceLock<Option<meta::Regex>>,
    /// Names of the groups; the first is the whole match.
    pub(crate) names: Vec<Option<Box<str>>>,
    pub(crate) needs: Needs,
    pub(crate) words: Words,
    /// What a match can begin with, where that is not everything.
    pub(crate) first: Option<First>,
}

/// The bytes that the first of a text may be.
pub(crate) type First = Box<[bool; 256]>;

/// What a text must hold to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Needs {
    /// It begins with one of these.
    Prefix(Vec<Box<[u8]>>),
    /// It holds some literal, so it is not empty.
    Literal,
    /// Nothing that could be tested cheaply.
    Nothing,
}

/// Texts of more than one byte that matches hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// Every match holds all of these.
    pub(crate) all: Vec<Box<[u8]>>,
    /// Every match holds one of each of these lists: an alternation's, where each branch has a text.
    pub(crate) any: Vec<Vec<Box<[u8]>>>,
}

/// Alternations of more branches are not asked for.
const MAX_BRANCHES: usize = 32;

/// Why a pattern is refused, and where in it (a character count from its start, if known).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadPattern {
    pub(crate) message: String,
    pub(crate) at: Option<usize>,
}

/// The engine of patterns that are not simple; its caches belong to a worker.
pub(crate) type Cache = Option<Box<meta::Cache>>;

impl Pattern {
    /// Compiles a pattern, and sees that the engine takes it.
    pub(crate) fn compile(source: &str) -> Result<Self, BadPattern> {
        let pattern = Self::proven(source)?;
        // A scanner may hand a text over to the engine; only repetition by number makes that large.
        if (pattern.scanner.is_none() || source.contains('{')) && pattern.regex().is_none() {
            let message =
                "too large: it compiles to more than 4 MiB (a repetition like `{1,1000}`?)";
            return Err(BadPattern { message: message.to_owned(), at: None });
        }
        Ok(pattern)
    }

    /// Compiles a pattern that the engine is known to take: it is made when it is first needed.
    pub(crate) fn proven(source: &str) -> Result<Self, BadPattern> {
        if source.len() > MAX_PATTERN_BYTES {
            let message = format!("more than {MAX_PATTERN_BYTES} bytes");
            return Err(BadPattern { message, at: None });
        }
        let hir = regex_syntax::parse(source).map_err(|error| bad(&error))?;
        let names = names(source)?;
        let scanner = Scanner::compile(&hir, names.len());
        let pattern = Self {
            source: source.into(),
            needs: needs(&hir),
            words: words(&hir),
            first: first(&hir),
            regex: OnceLock::new(),
            names,
            scanner,
        };
        if pattern.scanner.is_none() && pattern.names.len() > MAX_GROUPS {
            let message = format!("more than {} groups", MAX_GROUPS - 1);
            return Err(BadPattern { message, at: None });
        }
        Ok(pattern)
    }

    /// Is it a scanner?
    #[cfg(test)]
    pub(crate) fn is_simple(&self) -> bool {
        self.scanner.is_some()
    }

    fn regex(&self) -> Option<&meta::Regex> {
        self.regex
            .get_or_init(|| {
                let config = meta::Config::new().nfa_size_limit(Some(4 << 20));
                meta::Builder::new().configure(config).build(&self.source).ok()
            })
            .as_ref()
    }

    /// Finds the leftmost match and fills the slots of its groups.
    pub(crate) fn find(&self, text: &str, slots: &mut Slots, cache: &mut Cache) -> bool {
        let begins =
            |first: &First| text.bytes().next().is_some_and(|byte| first[usize::from(byte)]);
        if !self.first.as_ref().is_none_or(begins) {
            return false;
        }
        if let Some(scanner) = &self.scanner {
            match scanner.find(text, slots) {
                Found::Match => return true,
                Found::Nothing => return false,
                Found::GaveUp => {}
            }
        }
        let Some(regex) = self.regex() else { return false };
        let cache = cache.get_or_insert_with(|| Box::new(regex.create_cache()));
        let mut found = [None; MAX_GROUPS * 2];
        let input = regex_automata::Input::new(text);
        if regex.search_slots_with(cache, &input, &mut found).is_none() {
            return false;
        }
        for (slot, found) in slots.iter_mut().zip(found) {
            *slot = found.and_then(|at| u32::try_from(at.get()).ok()).unwrap_or(UNSET);
        }
        true
    }
}

fn bad(error: &regex_syntax::Error) -> BadPattern {
    let (message, at) = match error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span().start.offset),
        regex_syntax::Error::Translate(error) => {
            (error.kind().to_string(), error.span().start.offset)
        }
        other => return BadPattern { message: other.to_string(), at: None },
    };
    BadPattern { message, at: Some(at) }
}

fn names(source: &str) -> Result<Vec<Option<Box<str>>>, BadPattern> {
    let mut names = vec![None];
    let hir = regex_syntax::parse(source).map_err(|error| bad(&error))?;
    collect_names(&hir, &mut names);
    Ok(names)
}

fn collect_names(hir: &Hir, names: &mut Vec<Option<Box<str>>>) {
    match hir.kind() {
        HirKind::Capture(capture) => {
            let index = usize::try_from(capture.index).unwrap_or(usize::MAX);
            if names.len() <= index && index < 1_000 {
                names.resize(index + 1, None);
            }
            if let Some(slot) = names.get_mut(index) {
                slot.clone_from(&capture.name);
            }
            collect_names(&capture.sub, names);
        }
        HirKind::Repetition(repetition) => collect_names(&repetition.sub, names),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().for_each(|part| collect_names(part, names));
        }
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => {}
    }
}

fn needs(hir: &Hir) -> Needs {
    if hir.properties().look_set_prefix().contains(Look::Start) {
        let prefixes = literal::Extractor::new().kind(literal::ExtractKind::Prefix).extract(hir);
        if let Some(literals) = prefixes.literals() {
            let texts: Vec<Box<[u8]>> =
                literals.iter().map(|literal| literal.as_bytes().into()).collect();
            let useful = !texts.is_empty() && texts.iter().all(|text| !text.is_empty());
            if useful && texts.len() <= 16 {
                return Needs::Prefix(texts);
            }
        }
    }
    match words(hir).all.is_empty() {
        true => Needs::Nothing,
        false => Needs::Literal,
    }
}

/// The bytes that an anchored pattern's matches begin with; `None` where an empty text matches, or
/// one may begin anywhere.
fn first(hir: &Hir) -> Option<First> {
    let anchored = hir.properties().look_set_prefix().contains(Look::Start);
    let mut bytes = Box::new([false; 256]);
    (anchored && !add_first(hir, &mut bytes)).then_some(bytes)
}

/// Adds the bytes that a part's matches begin with; true where the part may match nothing.
fn add_first(hir: &Hir, bytes: &mut [bool; 256]) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => {
            literal.0.first().inspect(|byte| bytes[usize::from(**byte)] = true).is_none()
        }
        HirKind::Class(class) => {
            add_class(class, bytes);
            false
        }
        HirKind::Repetition(repetition) => add_first(&repetition.sub, bytes) || repetition.min == 0,
        HirKind::Capture(capture) => add_first(&capture.sub, bytes),
        HirKind::Concat(parts) => parts.iter().all(|part| add_first(part, bytes)),
        // Every branch adds its own: no short cut.
        HirKind::Alternation(parts) => {
            parts.iter().fold(false, |empty, part| add_first(part, bytes) | empty)
        }
    }
}

fn add_class(class: &Class, bytes: &mut [bool; 256]) {
    let mut add = |from: u8, to: u8| bytes[usize::from(from)..=usize::from(to)].fill(true);
    match class {
        Class::Bytes(class) => class.iter().for_each(|range| add(range.start(), range.end())),
        Class::Unicode(class) => {
            for range in class.iter() {
                if let Ok(from) = u8::try_from(range.start())
                    && from.is_ascii()
                {
                    add(from, u8::try_from(range.end()).unwrap_or(0x7f).min(0x7f));
                }
                if !range.end().is_ascii() {
                    add(0x80, 0xff);
                }
            }
        }
    }
}

/// The literals that every match holds.
fn words(hir: &Hir) -> Words {
    let mut words = Words::default();
    add_words(hir, &mut words);
    words
}

fn add_words(hir: &Hir, words: &mut Words) {
    match hir.kind() {
        HirKind::Literal(literal) if literal.0.len() > 1 => words.all.push(literal.0.clone()),
        HirKind::Capture(capture) => add_words(&capture.sub, words),
        HirKind::Concat(parts) => parts.iter().for_each(|part| add_words(part, words)),
        HirKind::Repetition(repetition) if repetition.min > 0 => add_words(&repetition.sub, words),
        HirKind::Alternation(branches) if branches.len() <= MAX_BRANCHES => {
            let longest =
                |branch: &Hir| self::words(branch).all.into_iter().max_by_key(|word| word.len());
            words.any.extend(branches.iter().map(longest).collect::<Option<Vec<_>>>());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pattern_needs_is_found() {
        let needs = |pattern: &str| Pattern::compile(pattern).unwrap().needs;
        assert_eq!(needs("^Failed (?<x>.*)"), Needs::Prefix(vec![b"Failed ".to_vec().into()]));
        assert_eq!(
            needs("^(?:Ab|Cd) x"),
            Needs::Prefix(vec![b"Ab x".to_vec().into(), b"Cd x".to_vec().into()])
        );
        assert_eq!(needs(r"\d+ wrong tries"), Needs::Literal);
        assert_eq!(needs(r"^\d+"), Needs::Nothing);
        assert_eq!(needs(r"^(?:x)?\d"), Needs::Nothing);
    }

    #[test]
    fn only_words_that_every_match_holds_are_asked_for() {
        let words = |pattern: &str| Pattern::compile(pattern).unwrap().words;
        let boxed = |words: &[&str]| -> Vec<Box<[u8]>> {
            words.iter().map(|word| word.as_bytes().into()).collect()
        };
        let found =
            words(r"^\S+ab(?:cd)?(?<x>ef)(?:\d+gh|ij.*klm)[kl]m(?:no)*(?:pq|\d)(?:rs+|tu)+");
        assert_eq!(found.all, boxed(&["ab", "ef"]));
        assert_eq!(found.any, [boxed(&["gh", "klm"])]);
        assert_eq!(words(r"(?i)ab\d"), Words::default());
    }

    #[test]
    fn what_a_pattern_begins_with_is_known() {
        let first = |pattern: &str| {
            let first = Pattern::compile(pattern).unwrap().first?;
            let bytes = (0..=255_u8).filter(|byte| first[usize::from(*byte)]).collect::<Vec<_>>();
            Some(bytes)
        };
        assert_eq!(first(r"^(?:\[x\] )?(?<n>[a-c])"), Some(b"[abc".to_vec()));
        assert_eq!(first("^(?i)ab").map(|bytes| bytes.len()), Some(2));
        assert_eq!(first("^é").unwrap(), "é".as_bytes()[..1]);
        assert_eq!(first("^[é-ö]").map(|bytes| bytes.len()), Some(128));
        assert!(!first(r"^\S+ x").unwrap().contains(&b' '));
        assert!(first(r"^\S+ x").unwrap().contains(&b'{'));
        for anywhere in ["abc", "^a*", "^(?:a|)", "^a|b", "^"] {
            assert_eq!(first(anywhere), None, "{anywhere}");
        }
    }

    #[test]
    fn an_error_knows_its_place_in_the_pattern() {
        let error = Pattern::compile("abc(def").unwrap_err();
        assert_eq!(error.at, Some(3));
        assert!(error.message.contains("unclosed group"), "{}", error.message);
    }

    #[test]
    fn the_engine_and_the_scanner_fill_the_same_slots() {
        let simple = Pattern::compile(r"^a(?<x>\d+) (?<y>z)?").unwrap();
        let complex = Pattern::compile(r"^a(?<x>(?:\d)+) (?<y>z)?\b{start}?")
            .unwrap_or_else(|_| Pattern::compile(r"^a(?<x>\d(?:\d\d)*) (?<y>z)?").unwrap());
        assert!(simple.is_simple());
        let (mut left, mut right) = ([0; MAX_GROUPS * 2], [0; MAX_GROUPS * 2]);
        assert!(simple.find("a123 q", &mut left, &mut None));
        assert!(complex.find("a123 q", &mut right, &mut None));
        assert_eq!(left[..6], right[..6]);
        assert_eq!(left[4], UNSET);
    }
}
