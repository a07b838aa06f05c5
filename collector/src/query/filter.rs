//! What is searched for, as a value; and whether an event is it.
//!
//! [`Expr::matches`] is the meaning of a filter. The index answers faster and finds the same:
//! its candidates are looked at with this where it alone cannot know (phrases).

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;

use custody_event::{EventView, Timestamp};

use super::keys::Key;
use crate::access::Sight;
use crate::index::terms::{self, Sink, Tag};

/// A search: a time range and a condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Events at or after this time.
    pub from: Option<Timestamp>,
    /// Events before this time.
    pub to: Option<Timestamp>,
    /// What must hold.
    pub expr: Expr,
    /// Which parts of an event the one who asks may see: the condition is about these alone.
    pub sight: Sight,
}

impl Filter {
    /// Can only a look at the event say whether it holds? The index knows words of hidden parts
    /// too.
    #[must_use]
    pub fn needs_look(&self) -> bool {
        self.expr.needs_text() || (!self.sight.is_whole() && self.expr.may_look_behind())
    }

    /// Does the condition hold for this event, as it may be seen?
    #[must_use]
    pub fn holds(&self, event: &[u8]) -> bool {
        let shown = self.sight.show(event);
        EventView::read(&shown).is_ok_and(|view| self.expr.matches(&Findable::of(&view)))
    }

    /// A condition that holds wherever the filter does, and that the index may answer: excluding a
    /// word must not exclude events that have it in hidden parts alone.
    #[must_use]
    pub fn candidates(&self) -> Cow<'_, Expr> {
        if self.sight.is_whole() || !self.expr.may_look_behind() {
            return Cow::Borrowed(&self.expr);
        }
        Cow::Owned(self.expr.above(false))
    }
}

/// A condition on an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// All of these; of none, every event.
    All(Vec<Expr>),
    /// At least one of these; of none, no event.
    Any(Vec<Expr>),
    /// Not this.
    Not(Box<Expr>),
    /// A value under a key.
    Value(&'static Key, Pattern),
    /// An address of the source in this range.
    Ip(IpRange),
    /// A word.
    Word(String),
    /// A word that begins so.
    WordPrefix(String),
    /// These words one after the other, as they stand. Made by [`Expr::phrase`].
    Phrase(Phrase),
}

impl Default for Expr {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

/// Words that must stand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phrase {
    /// As texts are compared: see [`terms::fold`].
    pub folded: String,
    /// Words that an event with it must have.
    pub words: Vec<String>,
}

/// What a value must be. All texts are folded as values are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Exactly this.
    Exact(String),
    /// Begins so; the empty prefix asks that there be a value.
    Prefix(String),
    /// These pieces in this order with anything between: the first at the beginning, the last at
    /// the end, either may be empty.
    Pieces(Vec<String>),
}

impl Pattern {
    /// A value in which `*` stands for anything.
    #[must_use]
    pub fn wild(text: &str) -> Self {
        let pieces: Vec<String> = text.split('*').map(terms::folded_value).collect();
        match pieces.as_slice() {
            [whole] => Self::Exact(whole.clone()),
            [start, end] if end.is_empty() => Self::Prefix(start.clone()),
            _ => Self::Pieces(pieces),
        }
    }

    /// Is it this value?
    #[must_use]
    pub fn is(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => text == value,
            Self::Prefix(start) => value.starts_with(start),
            Self::Pieces(pieces) => pieces_match(pieces, value),
        }
    }
}

fn pieces_match(pieces: &[String], value: &str) -> bool {
    let Some((first, rest)) = pieces.split_first() else { return false };
    let Some((last, middle)) = rest.split_last() else { return first == value };
    let Some(mut left) = value.strip_prefix(first.as_str()) else { return false };
    for piece in middle {
        match left.find(piece.as_str()) {
            Some(at) => left = &left[at + piece.len()..],
            None => return false,
        }
    }
    left.ends_with(last.as_str())
}

/// A range of addresses; IPv4 stands in IPv6 as mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange {
    /// The first address.
    pub first: u128,
    /// The last address.
    pub last: u128,
}

impl IpRange {
    /// Reads an address or a network (`203.0.113.0/24`, `2001:db8::/32`).
    ///
    /// # Errors
    /// With what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = address
            .trim_matches(['[', ']'])
            .parse()
            .map_err(|_| format!("{address:?} is not an IP address"))?;
        let width: u32 = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(bits) => bits
                .parse::<u32>()
                .ok()
                .filter(|bits| *bits <= width)
                .ok_or_else(|| format!("a network of this kind has 0 to {width} bits"))?,
        };
        let free = width - bits;
        let mask = if free == 128 { u128::MAX } else { (1_u128 << free) - 1 };
        let address = u128::from(terms::to_v6(ip));
        Ok(Self { first: address & !mask, last: address | mask })
    }

    /// Is the address in it?
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        (self.first..=self.last).contains(&u128::from(terms::to_v6(address)))
    }
}

/// What an event can be found by, collected.
#[derive(Debug, Default)]
pub struct Findable {
    values: Vec<(Tag, String)>,
    words: HashSet<String>,
    texts: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Sink for Findable {
    fn value(&mut self, tag: Tag, value: &str) {
        if !value.is_empty() {
            self.values.push((tag, terms::folded_value(value)));
        }
    }

    fn text(&mut self, text: &str) {
        let words = &mut self.words;
        terms::words(text, &mut String::new(), &mut |word| {
            words.insert(word.to_owned());
        });
        self.texts.push(terms::fold(text));
    }
}

impl Findable {
    /// Of this event.
    #[must_use]
    pub fn of(event: &EventView<'_>) -> Self {
        let mut findable = Self::default();
        terms::extract(event, &mut findable);
        let ip = event.source.ip.as_deref().unwrap_or_default();
        findable.addresses.extend(terms::addresses(ip));
        findable
    }
}

impl Expr {
    /// A text that must stand in the event as it is written: a word, or words together.
    /// A text without letters or digits asks nothing.
    #[must_use]
    pub fn phrase(text: &str) -> Self {
        let words = terms::words_of(text);
        let folded = terms::fold(text.trim());
        match words.as_slice() {
            [] => Self::default(),
            [word] if *word == folded => Self::Word(folded),
            // The whole of a joined run is a word too: no look at the text is needed.
            many if many.contains(&folded) => Self::Word(folded),
            _ => Self::Phrase(Phrase { folded, words }),
        }
    }

    /// Does it hold for this event?
    #[must_use]
    pub fn matches(&self, event: &Findable) -> bool {
        match self {
            Self::All(all) => all.iter().all(|expr| expr.matches(event)),
            Self::Any(any) => any.iter().any(|expr| expr.matches(event)),
            Self::Not(not) => !not.matches(event),
            Self::Value(key, pattern) => {
                event.values.iter().any(|(tag, value)| key.tags.contains(tag) && pattern.is(value))
            }
            Self::Ip(range) => event.addresses.iter().any(|address| range.contains(*address)),
            Self::Word(word) => event.words.contains(word),
            Self::WordPrefix(start) => event.words.iter().any(|word| word.starts_with(start)),
            Self::Phrase(phrase) => {
                phrase.words.iter().all(|word| event.words.contains(word))
                    && event.texts.iter().any(|text| stands_in(&phrase.folded, text))
            }
        }
    }

    /// Can a part of the event that is not shown to everybody make it hold? Whatever is not known
    /// to look at open values alone may.
    #[must_use]
    pub fn may_look_behind(&self) -> bool {
        match self {
            Self::All(list) | Self::Any(list) => list.iter().any(Self::may_look_behind),
            Self::Not(not) => not.may_look_behind(),
            Self::Value(..) | Self::Ip(_) => false,
            _ => true,
        }
    }

    /// The condition with everything that [may look behind](Self::may_look_behind) and excludes
    /// (`negated`) left out.
    fn above(&self, negated: bool) -> Self {
        let each = |list: &[Self]| list.iter().map(|expr| expr.above(negated)).collect();
        match self {
            Self::All(all) => Self::All(each(all)),
            Self::Any(any) => Self::Any(each(any)),
            Self::Not(not) => Self::Not(Box::new(not.above(!negated))),
            leaf if negated && leaf.may_look_behind() => Self::Any(Vec::new()),
            leaf => leaf.clone(),
        }
    }

    /// Can only a look at the event say whether it holds?
    #[must_use]
    pub fn needs_text(&self) -> bool {
        match self {
            Self::All(list) | Self::Any(list) => list.iter().any(Self::needs_text),
            Self::Not(not) => not.needs_text(),
            Self::Phrase(_) => true,
            Self::Value(..) | Self::Ip(_) | Self::Word(_) | Self::WordPrefix(_) => false,
        }
    }
}

/// Does the phrase stand in the text, not within longer words?
fn stands_in(phrase: &str, text: &str) -> bool {
    let opens = phrase.chars().next().is_some_and(binds);
    let closes = phrase.chars().next_back().is_some_and(binds);
    text.match_indices(phrase).any(|(at, found)| {
        let before = text[..at].chars().next_back().is_some_and(binds);
        let after = text[at + found.len()..].chars().next().is_some_and(binds);
        let within = opens && before || closes && after;
        !within
    })
}

/// Does the character go on a word that stands beside it?
fn binds(character: char) -> bool {
    terms::is_word_char(character) && !terms::stands_alone(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_with_stars() {
        for (pattern, value, is) in [
            ("data.*", "data.export", true),
            ("data.*", "database", false),
            ("DATA.Export", "data.export", true),
            ("*.login", "authentication.login", true),
            ("a*b*c", "a__b__c", true),
            ("a*b*c", "a__c__b", false),
            ("ab*ba", "aba", false),
            ("*", "x", true),
            ("**", "", true),
        ] {
            assert_eq!(Pattern::wild(pattern).is(value), is, "{pattern} {value}");
        }
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (network, address, holds) in [
            ("203.0.113.0/24", "203.0.113.255", true),
            ("203.0.113.0/24", "203.0.114.0", false),
            ("203.0.113.7", "203.0.113.7", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "10.0.0.1", true),
        ] {
            let range = IpRange::parse(network).unwrap();
            assert_eq!(range.contains(address.parse().unwrap()), holds, "{network} {address}");
        }
        for bad in ["", "1.2.3", "1.2.3.4/33", "::/129", "1.2.3.4/x", "host"] {
            assert!(IpRange::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn phrases_stand_between_word_borders() {
        assert!(stands_in("contract 77", "the contract 77, signed"));
        assert!(!stands_in("contract 7", "the contract 77, signed"));
        assert!(!stands_in("ontract 77", "the contract 77, signed"));
        assert!(stands_in("管理", "管理者"));
        assert!(stands_in("/etc", "cat /etc/passwd"));
    }
}
