//! Scanners: patterns that are literals between simple runs, without a regex engine.
//!
//! A pattern's HIR is compiled to a short program of literals, runs of one character class,
//! optional parts and alternatives, which a backtracking walk executes in the regex's own order
//! of preference; so it finds exactly the match that `regex` finds (property tests hold the two
//! against each other). What makes it fast: most runs are *sure*, that is, what follows them cannot
//! begin with a character of the run, so their end is the only one possible and nothing is tried
//! twice; and runs of any character jump from one occurrence of the next literal to the other.
//!
//! **Limits.** Groups: [`MAX_GROUPS`]. Repetitions of more than one character, word borders and
//! multi-line anchors are not compiled; the regex engine takes those patterns. A walk that tries more
//! than [`MAX_TRIES`] times gives up, and the regex engine answers in its guaranteed time.

use memchr::memmem;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Groups of a pattern, the whole match included.
pub(crate) const MAX_GROUPS: usize = 24;
/// Two slots a group.
pub(crate) type Slots = [u32; MAX_GROUPS * 2];
/// A slot of a group that took no part.
pub(crate) const UNSET: u32 = u32::MAX;
/// Choices that one walk may try.
const MAX_TRIES: u32 = 4_000;
/// A longer program is the regex engine's business.
const MAX_OPS: usize = 400;
/// Counted repetitions beyond this are the regex engine's business.
const MAX_COUNT: u32 = 256;

/// What a walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Match,
    Nothing,
    GaveUp,
}

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Scanner {
    ops: Vec<Op>,
    anchored: bool,
}

#[derive(Debug)]
enum Op {
    Literal(Box<memmem::Finder<'static>>),
    Run(Box<Run>),
    Save(u8),
    /// Try the next operation, then go to `other`; first clear these slots of groups in either
    /// way, which an earlier try may have left.
    Split {
        other: usize,
        clear_from: u8,
        clear_to: u8,
    },
    Jump(usize),
    Start,
    End,
    Match,
}

#[derive(Debug)]
struct Run {
    class: CharClass,
    min: u32,
    max: u32,
    greedy: bool,
    /// Only the longest extent can lead on.
    sure: bool,
    /// The literal right after this run.
    next_literal: Option<usize>,
}

/// A set of characters: a table for ASCII, and how to tell for the rest.
#[derive(Debug)]
struct CharClass {
    ascii: [bool; 128],
    rest: Rest,
    /// The only byte that ends such a run, where there is only one.
    stop: Option<u8>,
}

#[derive(Debug)]
enum Rest {
    All,
    None,
    Ranges(Vec<(char, char)>),
}

impl CharClass {
    fn of(class: &Class) -> Option<Self> {
        let Class::Unicode(class) = class else { return None };
        let ranges: Vec<(char, char)> =
            class.ranges().iter().map(|range| (range.start(), range.end())).collect();
        Some(Self::from_ranges(&ranges))
    }

    fn from_ranges(ranges: &[(char, char)]) -> Self {
        let mut ascii = [false; 128];
        for (code, slot) in (0_u8..).zip(ascii.iter_mut()) {
            *slot = within(ranges, char::from(code));
        }
        let high: Vec<(char, char)> = ranges
            .iter()
            .filter(|(_, end)| *end >= '\u{80}')
            .map(|(start, end)| ((*start).max('\u{80}'), *end))
            .collect();
        let rest = match high.as_slice() {
            [] => Rest::None,
            [('\u{80}', char::MAX)] => Rest::All,
            _ => Rest::Ranges(high),
        };
        let mut stops = (0_u8..128).filter(|byte| !ascii[usize::from(*byte)]);
        let stop = match (&rest, stops.next(), stops.next()) {
            (Rest::All, Some(only), None) => Some(only),
            _ => None,
        };
        Self { ascii, rest, stop }
    }

    /// Bytes that the character at `at` takes if it is of the class.
    fn step(&self, text: &str, at: usize) -> Option<usize> {
        let byte = *text.as_bytes().get(at)?;
        if byte < 128 {
            return self.ascii[usize::from(byte)].then_some(1);
        }
        let character = text.get(at..)?.chars().next()?;
        let inside = match &self.rest {
            Rest::All => true,
            Rest::None => false,
            Rest::Ranges(ranges) => within(ranges, character),
        };
        inside.then(|| character.len_utf8())
    }

    /// The end of the longest run from `at`, and whether it has at least `min` characters.
    fn extent(&self, text: &str, at: usize, min: u32, max: u32) -> Option<usize> {
        if max == u32::MAX && min <= 1 {
            let end = self.unbounded(text, at);
            return (end > at || min == 0).then_some(end);
        }
        let mut end = at;
        let mut count = 0;
        while count < max {
            let Some(step) = self.step(text, end) else { break };
            end += step;
            count += 1;
        }
        (count >= min).then_some(end)
    }

    fn unbounded(&self, text: &str, at: usize) -> usize {
        let bytes = text.as_bytes();
        if let Some(stop) = self.stop {
            return memchr::memchr(stop, &bytes[at..]).map_or(bytes.len(), |run| at + run);
        }
        let mut end = at;
        while let Some(byte) = bytes.get(end) {
            if *byte < 128 {
                if !self.ascii[usize::from(*byte)] {
                    break;
                }
                end += 1;
            } else {
                match self.step(text, end) {
                    Some(step) => end += step,
                    None => break,
                }
            }
        }
        end
    }

    /// Could a character of the class begin with this byte?
    fn may_begin(&self, byte: u8) -> bool {
        match byte {
            0..128 => self.ascii[usize::from(byte)],
            _ => !matches!(self.rest, Rest::None),
        }
    }
}

fn within(ranges: &[(char, char)], character: char) -> bool {
    ranges
        .binary_search_by(|(start, end)| {
            if *end < character {
                std::cmp::Ordering::Less
            } else if *start > character {
                std::cmp::Ordering::Greater
            } else {
                std::cmp::Ordering::Equal
            }
        })
        .is_ok()
}

/// Bytes with which a way on may begin, and whether it may need none.
struct First {
    bytes: [bool; 256],
    /// The way may reach the match without another character.
    matches: bool,
}

impl Scanner {
    /// Compiles a pattern; `None` if it is not of the simple kind.
    pub(crate) fn compile(hir: &Hir, groups: usize) -> Option<Self> {
        if groups > MAX_GROUPS {
            return None;
        }
        let mut ops = Vec::new();
        emit(hir, &mut ops)?;
        ops.push(Op::Match);
        if ops.len() > MAX_OPS {
            return None;
        }
        let anchored = matches!(ops.first(), Some(Op::Start));
        ops.shrink_to_fit();
        let mut scanner = Self { ops, anchored };
        scanner.find_sure_runs();
        Some(scanner)
    }

    fn find_sure_runs(&mut self) {
        for at in 0..self.ops.len() {
            let Op::Run(run) = &self.ops[at] else { continue };
            let mut first = First { bytes: [false; 256], matches: false };
            self.first(at + 1, &mut first, 0);
            let apart = (0_u8..=255)
                .all(|byte| !first.bytes[usize::from(byte)] || !run.class.may_begin(byte));
            let counted = run.min == run.max;
            // Where the match may follow at once, the longest extent succeeds; where what follows
            // cannot begin with a character of the run, no shorter extent does.
            let sure = counted || (run.greedy && first.matches) || (apart && !first.matches);
            let next_literal = match self.ops.get(self.behind_saves(at + 1)) {
                Some(Op::Literal(_)) => Some(self.behind_saves(at + 1)),
                _ => None,
            };
            if let Op::Run(run) = &mut self.ops[at] {
                run.sure = sure;
                run.next_literal = next_literal;
            }
        }
    }

    fn behind_saves(&self, mut at: usize) -> usize {
        while let Some(Op::Save(_)) = self.ops.get(at) {
            at += 1;
        }
        at
    }

    /// Collects the bytes with which the program may go on from `at`.
    fn first(&self, at: usize, into: &mut First, depth: usize) {
        if depth > MAX_OPS {
            into.bytes = [true; 256];
            into.matches = true;
            return;
        }
        match &self.ops[at] {
            Op::Literal(finder) => {
                if let Some(byte) = finder.needle().first() {
                    into.bytes[usize::from(*byte)] = true;
                }
            }
            Op::Run(run) => {
                for byte in 0_u8..=255 {
                    into.bytes[usize::from(byte)] |= run.class.may_begin(byte);
                }
                if run.min == 0 {
                    self.first(at + 1, into, depth + 1);
                }
            }
            Op::Save(_) => self.first(at + 1, into, depth + 1),
            Op::Split { other, .. } => {
                self.first(at + 1, into, depth + 1);
                self.first(*other, into, depth + 1);
            }
            Op::Jump(to) => self.first(*to, into, depth + 1),
            // At the end no character is left, so no run could have given one back.
            Op::End => {}
            // An anchor at the start after a run: never mind, assume everything.
            Op::Start => into.bytes = [true; 256],
            Op::Match => into.matches = true,
        }
    }

    /// Finds the leftmost match and fills the slots.
    pub(crate) fn find(&self, text: &str, slots: &mut Slots) -> Found {
        let mut walk = Walk { ops: &self.ops, text, slots, tries: 0 };
        if self.anchored {
            return walk.from(0);
        }
        let literal = match self.ops.get(self.behind_saves(0)) {
            Some(Op::Literal(finder)) => Some(finder),
            _ => None,
        };
        let mut start = 0;
        loop {
            if let Some(finder) = literal {
                match finder.find(&text.as_bytes()[start..]) {
                    Some(found) => start += found,
                    None => return Found::Nothing,
                }
            }
            match walk.from(start) {
                Found::Nothing => {}
                other => return other,
            }
            if start >= text.len() {
                return Found::Nothing;
            }
            start = text.ceil_char_boundary(start + 1);
        }
    }
}

/// The literal bytes of a one-character repetition (` +`) as a class.
fn single_class(hir: &Hir) -> Option<CharClass> {
    match hir.kind() {
        HirKind::Class(class) => CharClass::of(class),
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).ok()?;
            let mut characters = text.chars();
            let only = characters.next().filter(|_| characters.next().is_none())?;
            Some(CharClass::from_ranges(&[(only, only)]))
        }
        _ => None,
    }
}

fn run(class: CharClass, min: u32, max: u32, greedy: bool) -> Op {
    Op::Run(Box::new(Run { class, min, max, greedy, sure: false, next_literal: None }))
}

fn emit(hir: &Hir, ops: &mut Vec<Op>) -> Option<()> {
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Literal(literal) => {
            let finder = memmem::Finder::new(&literal.0).into_owned();
            ops.push(Op::Literal(Box::new(finder)));
        }
        HirKind::Class(class) => ops.push(run(CharClass::of(class)?, 1, 1, true)),
        HirKind::Look(Look::Start) => ops.push(Op::Start),
        HirKind::Look(Look::End) => ops.push(Op::End),
        HirKind::Look(_) => return None,
        HirKind::Repetition(repetition) => {
            let max = repetition.max.unwrap_or(u32::MAX);
            let counted = if max == u32::MAX { repetition.min } else { max };
            if counted > MAX_COUNT {
                return None;
            }
            if let Some(class) = single_class(&repetition.sub) {
                ops.push(run(class, repetition.min, max, repetition.greedy));
            } else if (repetition.min, max) == (0, 1) {
                optional(&repetition.sub, repetition.greedy, ops)?;
            } else {
                return None;
            }
        }
        HirKind::Capture(capture) => {
            let slot = u8::try_from(capture.index * 2).ok()?;
            ops.push(Op::Save(slot));
            emit(&capture.sub, ops)?;
            ops.push(Op::Save(slot + 1));
        }
        HirKind::Concat(parts) => {
            for part in parts {
                emit(part, ops)?;
            }
        }
        HirKind::Alternation(branches) => alternatives(branches, ops)?,
    }
    (ops.len() <= MAX_OPS).then_some(())
}

/// Slots of the groups in a branch: cleared when the branch is left for another.
fn groups_of(ops: &[Op]) -> (u8, u8) {
    let saves =
        || ops.iter().filter_map(|op| if let Op::Save(slot) = op { Some(*slot) } else { None });
    match (saves().min(), saves().max()) {
        (Some(from), Some(to)) => (from, to + 1),
        _ => (0, 0),
    }
}

fn optional(sub: &Hir, greedy: bool, ops: &mut Vec<Op>) -> Option<()> {
    if !greedy {
        return None;
    }
    let split = ops.len();
    ops.push(Op::Jump(0));
    emit(sub, ops)?;
    let (clear_from, clear_to) = groups_of(&ops[split..]);
    ops[split] = Op::Split { other: ops.len(), clear_from, clear_to };
    Some(())
}

fn alternatives(branches: &[Hir], ops: &mut Vec<Op>) -> Option<()> {
    let start = ops.len();
    let mut splits = Vec::new();
    let mut jumps = Vec::new();
    for (number, branch) in branches.iter().enumerate() {
        if number + 1 < branches.len() {
            let split = ops.len();
            ops.push(Op::Jump(0));
            emit(branch, ops)?;
            jumps.push(ops.len());
            ops.push(Op::Jump(0));
            splits.push((split, ops.len()));
        } else {
            emit(branch, ops)?;
        }
    }
    let (clear_from, clear_to) = groups_of(&ops[start..]);
    for (split, other) in splits {
        ops[split] = Op::Split { other, clear_from, clear_to };
    }
    let end = ops.len();
    for jump in jumps {
        ops[jump] = Op::Jump(end);
    }
    Some(())
}

struct Walk<'a> {
    ops: &'a [Op],
    text: &'a str,
    slots: &'a mut Slots,
    tries: u32,
}

fn short(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(UNSET)
}

impl Walk<'_> {
    fn from(&mut self, start: usize) -> Found {
        self.slots.fill(UNSET);
        let found = self.go(0, start);
        if found == Found::Match {
            self.slots[0] = short(start);
        }
        found
    }

    /// Runs the program from `op` at byte `at`.
    fn go(&mut self, mut op: usize, mut at: usize) -> Found {
        let ops = self.ops;
        loop {
            match &ops[op] {
                Op::Literal(finder) => {
                    let needle = finder.needle();
                    if !self.text.as_bytes()[at..].starts_with(needle) {
                        return Found::Nothing;
                    }
                    at += needle.len();
                }
                Op::Run(run) if run.sure => {
                    match run.class.extent(self.text, at, run.min, run.max) {
                        Some(end) => at = end,
                        None => return Found::Nothing,
                    }
                }
                Op::Run(run) => {
                    return if run.greedy {
                        self.longest_first(run, op + 1, at)
                    } else {
                        self.shortest_first(run, op + 1, at)
                    };
                }
                Op::Save(slot) => self.slots[usize::from(*slot)] = short(at),
                Op::Split { other, clear_from, clear_to } => {
                    let groups = usize::from(*clear_from)..usize::from(*clear_to);
                    self.slots[groups.clone()].fill(UNSET);
                    match self.attempt(op + 1, at) {
                        Found::Nothing => {}
                        found => return found,
                    }
                    self.slots[groups].fill(UNSET);
                    op = *other;
                    continue;
                }
                Op::Jump(to) => {
                    op = *to;
                    continue;
                }
                Op::Start if at != 0 => return Found::Nothing,
                Op::End if at != self.text.len() => return Found::Nothing,
                Op::Start | Op::End => {}
                Op::Match => {
                    self.slots[1] = short(at);
                    return Found::Match;
                }
            }
            op += 1;
        }
    }

    fn attempt(&mut self, op: usize, at: usize) -> Found {
        self.tries += 1;
        if self.tries > MAX_TRIES {
            return Found::GaveUp;
        }
        self.go(op, at)
    }

    fn next_needle(&self, run: &Run) -> Option<&memmem::Finder<'static>> {
        match self.ops.get(run.next_literal?) {
            Some(Op::Literal(finder)) => Some(finder),
            _ => None,
        }
    }

    fn longest_first(&mut self, run: &Run, op: usize, at: usize) -> Found {
        let Some(longest) = run.class.extent(self.text, at, run.min, run.max) else {
            return Found::Nothing;
        };
        let Some(shortest) = run.class.extent(self.text, at, run.min, run.min) else {
            return Found::Nothing;
        };
        let ops = self.ops;
        let needle = run.next_literal.and_then(|next| match &ops[next] {
            Op::Literal(finder) => Some(finder.needle()),
            _ => None,
        });
        let mut end = longest;
        loop {
            // Back to where the literal could begin.
            if let Some(first) = needle.and_then(<[u8]>::first) {
                let behind = self.text.len().min(end + 1);
                match memchr::memrchr(*first, &self.text.as_bytes()[shortest..behind]) {
                    Some(back) => end = shortest + back,
                    None => return Found::Nothing,
                }
            }
            if needle.is_none_or(|needle| self.text.as_bytes()[end..].starts_with(needle)) {
                match self.attempt(op, end) {
                    Found::Nothing => {}
                    found => return found,
                }
            }
            if end <= shortest {
                return Found::Nothing;
            }
            end = self.text.floor_char_boundary(end - 1);
        }
    }

    fn shortest_first(&mut self, run: &Run, op: usize, at: usize) -> Found {
        let Some(longest) = run.class.extent(self.text, at, run.min, run.max) else {
            return Found::Nothing;
        };
        let Some(mut end) = run.class.extent(self.text, at, run.min, run.min) else {
            return Found::Nothing;
        };
        loop {
            if let Some(finder) = self.next_needle(run) {
                match finder.find(&self.text.as_bytes()[end..]) {
                    Some(found) if end + found <= longest => end += found,
                    _ => return Found::Nothing,
                }
            }
            match self.attempt(op, end) {
                Found::Nothing => {}
                found => return found,
            }
            if end >= longest {
                return Found::Nothing;
            }
            end = self.text.ceil_char_boundary(end + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scanner(pattern: &str) -> Option<Scanner> {
        let hir = regex_syntax::parse(pattern).unwrap();
        let groups = regex::Regex::new(pattern).unwrap().captures_len();
        Scanner::compile(&hir, groups)
    }

    /// The scanner's groups and the regex crate's, where the scanner does not give up.
    fn agree(pattern: &str, text: &str) -> Result<(), String> {
        let regex = regex::Regex::new(pattern).unwrap();
        let Some(scanner) = scanner(pattern) else { return Ok(()) };
        let mut slots = [UNSET; MAX_GROUPS * 2];
        let found = scanner.find(text, &mut slots);
        let expected = regex.captures(text);
        if found == Found::GaveUp {
            return Ok(());
        }
        if (found == Found::Match) != expected.is_some() {
            return Err(format!("{pattern:?} on {text:?}: {found:?}, regex {expected:?}"));
        }
        let Some(expected) = expected else { return Ok(()) };
        for group in 0..regex.captures_len() {
            let ours = (slots[group * 2] != UNSET && slots[group * 2 + 1] != UNSET)
                .then(|| (slots[group * 2] as usize, slots[group * 2 + 1] as usize));
            let theirs = expected.get(group).map(|found| (found.start(), found.end()));
            if ours != theirs {
                return Err(format!(
                    "{pattern:?} on {text:?}: group {group} {ours:?}, regex {theirs:?}"
                ));
            }
        }
        Ok(())
    }

    const PATTERNS: &[&str] = &[
        r"^Failed (?<m>\S+) for (?:invalid user )?(?<u>.*) from (?<ip>\S+) port (?<p>\d+)(?: ssh2)?$",
        r"^Failed (?<m>\S+) for (?:invalid user )?(?<u>.*?) from (?<ip>\S+) port (?<p>\d+)",
        r"^(?:Accepted|Postponed) (?<m>password|publickey|none) for (?<u>.*) from (?<ip>\S+)(?: port (?<p>\d+))?",
        r"(?<a>\w+)=(?<b>[^ ]*)",
        r#"^(?<h>\S+) "(?<q>[^"]*)" (?<s>\d{3}) (?<n>\d+|-)(?: "(?<r>.*?)")?$"#,
        r"a(?:b|(?<x>c+))?(?<y>.*)d",
        r"^(?:(?<a>\d+)|(?<b>\w+)) x",
        r"user (?<u>.+?) (?:gone|left)\b",
        r"^ *(?<u>\S+) : (?:(?<n>\d+) wrong ; )?TTY=(?<t>\S+)",
        r"(?i)^failed (?<m>\S+)",
        r"é+(?<x>[^é]*)é",
        r"^$",
        r"(?<x>a?)(?<y>a*)b",
        r"^\[(?<a>.*)\] \[(?<b>.*)\]",
    ];

    #[test]
    fn the_patterns_of_logs_are_of_the_simple_kind() {
        for pattern in PATTERNS.iter().filter(|pattern| !pattern.contains(r"\b")) {
            assert!(scanner(pattern).is_some(), "{pattern}");
        }
        for pattern in [r"(?:ab)+", r"\bx", r"(?m)^x", r"a??(?:bc)??"] {
            assert!(scanner(pattern).is_none(), "{pattern}");
        }
    }

    #[test]
    fn a_user_who_is_called_like_the_rest_of_the_line_does_not_move_the_address() {
        let text = "Failed password for invalid user root from 1.2.3.4 port 22 ssh2 from 9.9.9.9 port 50 ssh2";
        let mut slots = [UNSET; MAX_GROUPS * 2];
        assert_eq!(scanner(PATTERNS[0]).unwrap().find(text, &mut slots), Found::Match);
        assert_eq!(&text[slots[6] as usize..slots[7] as usize], "9.9.9.9");
    }

    #[test]
    fn a_walk_that_would_not_end_gives_up() {
        let pattern = "^(?:.*?)a(?:.*?)a(?:.*?)a(?:.*?)a(?:.*?)a(?:.*?)b$";
        let text = "a".repeat(200);
        let mut slots = [UNSET; MAX_GROUPS * 2];
        assert_eq!(scanner(pattern).unwrap().find(&text, &mut slots), Found::GaveUp);
    }

    fn words() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            Just("Failed ".to_owned()),
            Just("Accepted ".to_owned()),
            Just("password".to_owned()),
            Just(" for ".to_owned()),
            Just("invalid user ".to_owned()),
            Just(" from ".to_owned()),
            Just(" port ".to_owned()),
            Just(" ssh2".to_owned()),
            Just("1.2.3.4".to_owned()),
            Just("22".to_owned()),
            Just("\"".to_owned()),
            Just("é".to_owned()),
            Just("\n".to_owned()),
            Just(" ".to_owned()),
            Just("a".to_owned()),
            Just("b".to_owned()),
            Just("cc".to_owned()),
            Just("d".to_owned()),
            Just("user ".to_owned()),
            Just(" gone".to_owned()),
            Just("=".to_owned()),
            Just("[".to_owned()),
            Just("] [".to_owned()),
            Just("]".to_owned()),
            Just(" : ".to_owned()),
            Just("TTY=".to_owned()),
            Just("-".to_owned()),
            Just("\u{a0}".to_owned()),
            Just("٣".to_owned()),
        ];
        proptest::collection::vec(word, 0..14).prop_map(|words| words.concat())
    }

    /// Patterns put together from the pieces that scanners know.
    fn patterns() -> impl Strategy<Value = String> {
        let piece = proptest::sample::select(vec![
            r"(\S+)",
            r"(\d+)",
            r"(\w*)",
            r#"([^"]*)"#,
            "(.*)",
            "(.*?)",
            "(.+?)",
            "a",
            " ",
            "from ",
            "(?:user )?",
            "(?:a|b|cc)",
            "(a|d)?",
            r"\d{1,3}",
            "é",
            "(?:b(c*)|(d))",
            "[ab]+?",
            "x?",
            " +",
            r"\s*",
            "(?:(a)|b)?",
        ]);
        (any::<bool>(), proptest::collection::vec(piece, 1..7), any::<bool>()).prop_map(
            |(start, pieces, end)| {
                format!(
                    "{}{}{}",
                    if start { "^" } else { "" },
                    pieces.concat(),
                    if end { "$" } else { "" }
                )
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_500))]

        #[test]
        fn known_patterns_find_what_the_regex_finds(text in words(), pattern in proptest::sample::select(PATTERNS.to_vec())) {
            agree(pattern, &text).map_err(TestCaseError::fail)?;
        }

        #[test]
        fn made_up_patterns_find_what_the_regex_finds(text in words(), pattern in patterns()) {
            agree(&pattern, &text).map_err(TestCaseError::fail)?;
        }
    }
}
