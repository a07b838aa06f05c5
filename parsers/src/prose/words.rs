//! The words of a sentence, and what stands between them.
//!
//! A word is a run of signs other than blanks, quotes, brackets and `,;|=`; a colon or a point at its end
//! is not of it. A word that names a value itself (`login:eva`) is two.

use std::borrow::Cow;

/// Words of a sentence that are looked at.
pub(super) const MAX_WORDS: usize = 200;

/// Where a word begins and ends.
#[derive(Debug, Clone, Copy)]
struct Span(usize, usize);

/// The words of a sentence.
#[derive(Debug)]
pub(super) struct Words<'t> {
    text: &'t str,
    spans: Vec<Span>,
}

fn is_end(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b"\"'`()[]{}<>,;|=".contains(&byte)
}

/// A word before a colon that names what follows at once.
const NAMES: &[&str] = &[
    "user", "username", "login", "email", "account", "ip", "client", "src", "from", "host", "db",
    "addr",
];

impl<'t> Words<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let mut words = Self { text, spans: Vec::with_capacity(32) };
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() && words.spans.len() < MAX_WORDS {
            if is_end(bytes[at]) {
                at += 1;
                continue;
            }
            let length = bytes[at..].iter().position(|byte| is_end(*byte));
            let end = length.map_or(bytes.len(), |length| at + length);
            // A colon alone stands between a name and its value.
            if !bytes[at..end].iter().all(|byte| *byte == b':') {
                words.add(at, end);
            }
            at = end;
        }
        words
    }

    fn add(&mut self, start: usize, end: usize) {
        let word = &self.text[start..end];
        let trimmed = word.trim_end_matches([':', '.', '!', '?']);
        // `fe80::` loses nothing: such an address ends with its colons.
        let word = if trimmed.is_empty() || word.ends_with("::") { word } else { trimmed };
        if let Some((name, value)) = word.split_once(':')
            && !value.is_empty()
            && NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
        {
            let value_start = start + name.len() + 1;
            self.spans.push(Span(start, start + name.len()));
            self.spans.push(Span(value_start, start + word.len()));
            return;
        }
        self.spans.push(Span(start, start + word.len()));
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// A word; empty past the last.
    pub(super) fn text(&self, at: usize) -> &'t str {
        self.spans.get(at).map_or("", |Span(start, end)| &self.text[*start..*end])
    }

    /// Everything from the word's start to the next blank, quote or bracket: a path with its query.
    pub(super) fn run(&self, at: usize) -> &'t str {
        let Some(Span(start, _)) = self.spans.get(at) else { return "" };
        let rest = &self.text[*start..];
        let ends = |sign: char| sign.is_ascii_whitespace() || "\"'`<>|".contains(sign);
        rest.split(ends).next().unwrap_or_default().trim_end_matches([':', ',', ')', ']'])
    }

    pub(super) fn is(&self, at: usize, word: &str) -> bool {
        self.text(at).eq_ignore_ascii_case(word)
    }

    /// What stands between the word before and this.
    pub(super) fn gap_before(&self, at: usize) -> &'t str {
        let start = match at.checked_sub(1).and_then(|before| self.spans.get(before)) {
            Some(Span(_, end)) => *end,
            None => 0,
        };
        self.spans.get(at).map_or("", |Span(end, _)| &self.text[start..*end])
    }

    pub(super) fn gap_after(&self, at: usize) -> &'t str {
        let Some(Span(_, start)) = self.spans.get(at) else { return "" };
        let end = self.spans.get(at + 1).map_or(self.text.len(), |Span(next, _)| *next);
        &self.text[*start..end]
    }

    /// The name that this is the value of: `name=`, `name: `, `"name":"`.
    pub(super) fn key(&self, at: usize) -> Option<Cow<'t, str>> {
        let gap = self.gap_before(at);
        let bare =
            gap.trim_matches(|sign: char| sign.is_ascii_whitespace() || "\"'`[(".contains(sign));
        (at > 0 && matches!(bare, "=" | ":")).then(|| lower(self.text(at - 1)))
    }

    /// The name that this is the value of, or the word before it. Between a list's elements the name is
    /// the list's.
    pub(super) fn label(&self, at: usize) -> Option<Cow<'t, str>> {
        let before = at.checked_sub(1)?;
        let gap = self.gap_before(at);
        if gap.contains([',', ';', '|', ')', ']', '}']) {
            return None;
        }
        // `client ip 203.0.113.9`, `from ip 203.0.113.9`: the first of both says whose.
        let word = lower(self.text(before));
        let first = before.checked_sub(1).map(|first| lower(self.text(first)));
        match (word.as_ref(), first) {
            ("ip" | "host" | "address" | "addr", Some(first))
                if matches!(
                    &*first,
                    "from"
                        | "to"
                        | "client"
                        | "remote"
                        | "source"
                        | "server"
                        | "private"
                        | "public"
                ) && self.gap_before(before).trim().is_empty() =>
            {
                Some(match &*first {
                    "private" | "public" => word,
                    _ => first,
                })
            }
            _ => Some(word),
        }
    }

    /// Is there nothing but blanks and an opening quote before the word?
    pub(super) fn near(&self, at: usize) -> bool {
        let gap = self.gap_before(at);
        gap.bytes().all(|byte| byte.is_ascii_whitespace() || b"\"'`".contains(&byte))
    }

    fn quote(&self, at: usize) -> Option<char> {
        self.gap_before(at).chars().next_back().filter(|sign| "\"'`".contains(*sign))
    }

    pub(super) fn is_quoted(&self, at: usize) -> bool {
        self.quote(at).is_some()
    }

    /// The word, or, where a quote opens before it, everything up to the quote that closes.
    pub(super) fn value(&self, at: usize) -> Option<&'t str> {
        let Span(start, end) = *self.spans.get(at)?;
        let Some(quote) = self.quote(at) else { return Some(&self.text[start..end]) };
        let rest = &self.text[start..];
        Some(rest.find(quote).map_or(&self.text[start..end], |close| &rest[..close]))
    }
}

fn lower(word: &str) -> Cow<'_, str> {
    if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(word.to_ascii_lowercase());
    }
    Cow::Borrowed(word)
}
