//! logfmt: `level=info msg="user logged in" user=eva debug`.
//!
//! Pairs stand apart by blanks. A value in quotes has the escapes of JSON; a bare value ends at the
//! next blank; a key without `=` is `true`. The form has no types: every value is a text.
//!
//! What is not clearly logfmt is refused, so that prose is not taken for it: the first word must be
//! a pair, every key a plain name, and at least half of the words must be pairs.

use std::borrow::Cow;

use super::build::{Builder, blank, is_name};
use super::json::Tape;

const NO: &str = "not logfmt: no `key=value` at the start";
const BAD_KEY: &str = "not logfmt: a word that is no key";
const OPEN: &str = "not logfmt: a quote that does not end";
const PROSE: &str = "not logfmt: more words than pairs";

/// Reads a whole text.
pub(crate) fn read(text: &str, tape: &mut Tape) -> Result<(), &'static str> {
    let mut rest = text.trim();
    if !rest.starts_with(|sign: char| sign.is_ascii_alphabetic() || matches!(sign, '_' | '@')) {
        return Err(NO);
    }
    let mut out = Builder::new(tape, text)?;
    let (mut pairs, mut words) = (0_usize, 0_usize);
    while !rest.is_empty() {
        let end = rest.bytes().position(|byte| blank(byte) || byte == b'=').unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        if !is_name(key) {
            return Err(if pairs == 0 { NO } else { BAD_KEY });
        }
        if let Some(after) = after.strip_prefix('=') {
            let (value, after) = value(after)?;
            out.put(key, &value)?;
            pairs += 1;
            rest = after.trim_start();
        } else {
            if pairs == 0 {
                return Err(NO);
            }
            out.put(key, "true")?;
            words += 1;
            rest = after.trim_start();
        }
    }
    match pairs {
        0 => Err(NO),
        _ if words > pairs => Err(PROSE),
        _ => {
            out.finish();
            Ok(())
        }
    }
}

/// The value at the start, and what is after it.
fn value(text: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    if !text.starts_with('"') {
        let end = text.bytes().position(blank).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Ok((Cow::Borrowed(value), rest));
    }
    let inner = &text[1..];
    let end = closing(inner, b'"').ok_or(OPEN)?;
    Ok((unescape(&inner[..end]), &inner[end + 1..]))
}

/// Where a quoted text ends: the first such quote that no backslash stands before.
pub(super) fn closing(text: &str, quote: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(run) = memchr::memchr2(quote, b'\\', bytes.get(at..)?) {
        at += run;
        if bytes[at] == quote {
            return Some(at);
        }
        at += 2;
    }
    None
}

/// Resolves the escapes of JSON for line ends, tabs and characters by number; any other sign after a
/// backslash is itself.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    super::unescape(text, |after| {
        let mut signs = after.chars();
        let sign = match signs.next() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('u') => return Some(unicode(signs.as_str()).unwrap_or(('u', signs.as_str()))),
            other => other?,
        };
        Some((sign, signs.as_str()))
    })
}

fn unicode(text: &str) -> Option<(char, &str)> {
    let digits = text.get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let code = u32::from_str_radix(digits, 16).ok()?;
    Some((char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), &text[4..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::fields;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn pairs_quotes_escapes_and_bare_keys_are_read() {
        assert_eq!(
            fields(
                r#"ts=2024-01-05T22:11:47Z msg="a \"b\"\n\u00e9 \q" user= debug url=/x?a=b q="""#,
                read
            ),
            Ok(json!({
                "ts": "2024-01-05T22:11:47Z", "msg": "a \"b\"\né q", "user": "", "debug": "true",
                "url": "/x?a=b", "q": "",
            }))
        );
    }

    #[test]
    fn prose_is_not_taken_for_pairs() {
        for (text, why) in [
            ("", NO),
            ("authentication failure; logname= uid=0", NO),
            ("a=1 b=2 and then, words", BAD_KEY),
            ("a=1 some more words", PROSE),
            ("{\"a\":1}", NO),
            ("a=\"x", OPEN),
            ("=x", NO),
            ("1=x", NO),
        ] {
            assert_eq!(fields(text, read), Err(why), "{text}");
        }
        let long = format!("{}=1", "k".repeat(300));
        assert_eq!(fields(&long, read), Err("a key of more than 256 bytes"));
        let many = "a=1 ".repeat(1_001);
        assert_eq!(fields(&many, read), Err("more than 1,000 fields"));
        assert!(fields(&"a=1 ".repeat(1_000), read).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = fields(&text, read);
        }

        #[test]
        fn what_is_nearly_right_is_read_or_refused(text in "([a-c]=?\"?\\\\?[u0 é]{0,4}\"? ?){0,12}") {
            let _ = fields(&text, read);
        }

        #[test]
        fn what_was_written_is_read(pairs in proptest::collection::btree_map("[a-z][a-z0-9_.]{0,8}", any::<String>(), 1..8)) {
            let text: Vec<String> = pairs
                .iter()
                .map(|(key, value)| format!("{key}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
                .collect();
            let wanted: serde_json::Map<String, serde_json::Value> =
                pairs.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
            prop_assert_eq!(fields(&text.join(" "), read), Ok(wanted.into()));
        }
    }
}
