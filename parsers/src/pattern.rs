//! A rule's pattern: a scanner where it is simple, the regex engine where it is not.

use std::sync::OnceLock;

use regex_automata::meta;
use regex_syntax::hir::{Hir, HirKind, Look, literal};

use crate::scan::{Found, MAX_GROUPS, Scanner, Slots, UNSET};

/// A pattern's text, at most.
const MAX_PATTERN_BYTES: usize = 4 * 1024;

/// A pattern of a rule, and what a record must hold for it to be worth trying.
#[derive(Debug)]
pub(crate) struct Pattern {
    source: Box<str>,
    scanner: Option<Scanner>,
    regex: OnceLock<Option<meta::Regex>>,
    /// Names of the groups; the first is the whole match.
    pub(crate) names: Vec<Option<Box<str>>>,
    pub(crate) needs: Needs,
}

/// What a text must hold to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Needs {
    /// It begins with one of these.
    Prefix(Vec<Box<[u8]>>),
    /// It holds this somewhere.
    Literal(Box<[u8]>),
    /// Nothing that could be tested cheaply.
    Nothing,
}

/// Why a pattern is refused, and where in it (a character count from its start, if known).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadPattern {
    pub(crate) message: String,
    pub(crate) at: Option<usize>,
}

/// The engine of patterns that are not simple; its caches belong to a worker.
pub(crate) type Cache = Option<Box<meta::Cache>>;

impl Pattern {
    /// Compiles a pattern.
    pub(crate) fn compile(source: &str) -> Result<Self, BadPattern> {
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
            regex: OnceLock::new(),
            names,
            scanner,
        };
        if pattern.scanner.is_none() && pattern.names.len() > MAX_GROUPS {
            let message = format!("more than {} groups", MAX_GROUPS - 1);
            return Err(BadPattern { message, at: None });
        }
        // A scanner may hand a text over to the engine; only repetition by number makes that large.
        if (pattern.scanner.is_none() || source.contains('{')) && pattern.regex().is_none() {
            let message =
                "too large: it compiles to more than 4 MiB (a repetition like `{1,1000}`?)";
            return Err(BadPattern { message: message.to_owned(), at: None });
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
    match longest_literal(hir) {
        Some(literal) if literal.len() >= 2 => Needs::Literal(literal),
        _ => Needs::Nothing,
    }
}

/// The longest literal that every match holds.
fn longest_literal(hir: &Hir) -> Option<Box<[u8]>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(literal.0.clone()),
        HirKind::Capture(capture) => longest_literal(&capture.sub),
        HirKind::Concat(parts) => {
            parts.iter().filter_map(longest_literal).max_by_key(|literal| literal.len())
        }
        HirKind::Repetition(repetition) if repetition.min > 0 => longest_literal(&repetition.sub),
        _ => None,
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
        assert_eq!(needs(r"\d+ wrong tries"), Needs::Literal(b" wrong tries".to_vec().into()));
        assert_eq!(needs(r"^\d+"), Needs::Nothing);
        assert_eq!(needs(r"^(?:x)?\d"), Needs::Nothing);
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
