//! Keys and values with the separators that a pack names.
//!
//! ```yaml
//! decode: [syslog?, kv]
//! kv: { pairs: '; ', equals: ': ', quotes: [''''] }
//! ```
//! `pairs` stands between pairs (default: any run of blanks), `equals` between a key and its value
//! (default `=`), and a value that begins with one of `quotes` (default `"`) goes to the same quote,
//! over separators; a backslash before a quote takes its meaning. With `spaces: true` (only where
//! blanks stand between pairs) a bare value goes on to the next `key=`, as in
//! `msg=a long text user=eva`.
//!
//! What is no pair is kept: the pieces, joined by spaces, are the field `text`. A text without a
//! pair is refused.

use std::borrow::Cow;

use super::build::{Builder, MAX_KEY_BYTES, blank, is_name};
use super::json::Tape;
use super::logfmt::{closing, unescape};

const NO: &str = "no key and value in it";

/// `kv:` of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Between pairs; `None` for any run of blanks.
    pub(crate) pairs: Option<Box<str>>,
    /// Between a key and its value.
    pub(crate) equals: Box<str>,
    /// Signs (ASCII) that a value may stand between.
    pub(crate) quotes: Box<[u8]>,
    /// A bare value goes on to the next key.
    pub(crate) spaces: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { pairs: None, equals: "=".into(), quotes: Box::new([b'"']), spaces: false }
    }
}

/// Reads a whole text.
pub(crate) fn read(text: &str, settings: &Settings, tape: &mut Tape) -> Result<(), &'static str> {
    let mut out = Builder::new(tape, text)?;
    let mut loose: Vec<&str> = Vec::new();
    let mut rest = settings.skip(text);
    let mut found = false;
    while !rest.is_empty() {
        let (piece, value, after) = settings.pair(rest);
        match value {
            Some(value) => {
                out.put(piece, &value)?;
                found = true;
            }
            None if piece.is_empty() => {}
            None => loose.push(piece),
        }
        rest = settings.skip(after);
    }
    if !found {
        return Err(NO);
    }
    match loose.as_slice() {
        [] => {}
        [one] => out.put_apart("_", "text", one)?,
        _ => out.put_apart("_", "text", &loose.join(" "))?,
    }
    out.finish();
    Ok(())
}

impl Settings {
    fn skip<'t>(&self, text: &'t str) -> &'t str {
        match &self.pairs {
            None => text.trim_start(),
            Some(pairs) => {
                let mut rest = text;
                while let Some(after) = rest.strip_prefix(&**pairs) {
                    rest = after;
                }
                rest.trim_start()
            }
        }
    }

    /// Where the pair that begins here ends.
    fn end(&self, text: &str) -> usize {
        let found = match &self.pairs {
            None => text.bytes().position(blank),
            Some(pairs) => text.find(&**pairs),
        };
        found.unwrap_or(text.len())
    }

    /// The key at the start with its value, or a piece that is no pair; and what is after it.
    fn pair<'t>(&self, text: &'t str) -> (&'t str, Option<Cow<'t, str>>, &'t str) {
        let end = self.end(text);
        let (piece, after) = text.split_at(end);
        let at = match piece.find(&*self.equals) {
            Some(at) => at,
            // A separator with a blank in it may reach over the piece's end.
            None => match text.find(&*self.equals).filter(|at| *at <= end) {
                Some(at) => at,
                None => return (piece, None, after),
            },
        };
        let key = text[..at].trim();
        if key.is_empty() {
            return (piece, None, after);
        }
        let from = at + self.equals.len();
        let value = &text[from..];
        if let Some(quote) = value.bytes().next().filter(|byte| self.quotes.contains(byte))
            && let Some(close) = closing(&value[1..], quote)
        {
            return (key, Some(unescape(&value[1..=close])), &value[close + 2..]);
        }
        let stop = match self.spaces && self.pairs.is_none() {
            true => next_key(value, &self.equals),
            false => self.end(value),
        };
        (key, Some(Cow::Borrowed(value[..stop].trim())), &value[stop..])
    }
}

/// Where a value ends that goes on to the next `key=`: at the blank before the key.
pub(super) fn next_key(text: &str, equals: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut from, mut space) = (0, None);
    while let Some(found) = text.get(from..).and_then(|rest| rest.find(equals)) {
        let at = from + found;
        // The last blank so far: each byte is looked at once, however many `=` there are.
        space = text[from..at].rfind([' ', '\t']).map(|blank| from + blank).or(space);
        let escaped = at > 0 && bytes[at - 1] == b'\\';
        if let Some(space) = space
            && !escaped
            && at - space <= MAX_KEY_BYTES
            && is_name(&text[space + 1..at])
        {
            return space;
        }
        from = at + equals.len();
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::fields;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn blanks_and_quotes_by_default() {
        let read = |text: &str, tape: &mut Tape| read(text, &Settings::default(), tape);
        assert_eq!(
            fields(r#"%ASA-6: IN=eth0 OUT= SRC=203.0.113.9 name="a b=c" SYN x"#, read),
            Ok(
                json!({"IN":"eth0","OUT":"","SRC":"203.0.113.9","name":"a b=c","text":"%ASA-6: SYN x"})
            )
        );
        assert_eq!(fields("no pair at all", read), Err(NO));
        assert_eq!(fields(r#"a="open b=1"#, read), Ok(json!({"a":"\"open","b":"1"})));
    }

    #[test]
    fn separators_of_the_packs_own() {
        let settings = Settings {
            pairs: Some(", ".into()),
            equals: ": ".into(),
            quotes: Box::new([b'\'']),
            spaces: false,
        };
        let read = |text: &str, tape: &mut Tape| read(text, &settings, tape);
        assert_eq!(
            fields("User: eva m, Action: 'log, in', note", read),
            Ok(json!({"User":"eva m","Action":"log, in","text":"note"}))
        );
    }

    #[test]
    fn a_bare_value_goes_on_to_the_next_key() {
        let settings = Settings { spaces: true, ..Settings::default() };
        let read = |text: &str, tape: &mut Tape| read(text, &settings, tape);
        assert_eq!(
            fields("msg=a long text (x, y) user=eva rest of it", read),
            Ok(json!({"msg":"a long text (x, y)","user":"eva rest of it"}))
        );
    }

    proptest! {
        #[test]
        fn any_text_and_any_settings(
            text in any::<String>(),
            pairs in proptest::option::of("[; ,|é]{1,2}"),
            equals in "[=: é]{1,2}",
            spaces in any::<bool>(),
        ) {
            let settings = Settings {
                pairs: pairs.map(String::into_boxed_str),
                equals: equals.into_boxed_str(),
                quotes: Box::new([b'"', b'\'']),
                spaces,
            };
            let _ = fields(&text, |text, tape| read(text, &settings, tape));
        }

        #[test]
        fn what_is_nearly_right(text in "([a-c]{0,2}[=: ]{0,2}[\"']?[a-d é\\\\]{0,3}[\"']?[;, ]{0,2}){0,10}", spaces in any::<bool>()) {
            let settings = Settings { spaces, ..Settings::default() };
            let _ = fields(&text, |text, tape| read(text, &settings, tape));
        }
    }
}
