//! ArcSight's Common Event Format (Implementing ArcSight CEF, revision 26).
//!
//! ```text
//! CEF:0|Vendor|Product|1.0|100|Login failed|5|src=203.0.113.9 suser=eva msg=wrong\=password
//! ```
//! The seven fields of the header are `version`, `deviceVendor`, `deviceProduct`, `deviceVersion`,
//! `deviceEventClassId`, `name` and `severity`; in them `\|` and `\\` are escapes. Those of the
//! extension have their own keys; a value goes on to the next `key=`, with the escapes `\=`, `\\`,
//! `\n` and `\r`. A key of the extension that is called as a field of the header is (or that comes
//! a second time) gets `ext_` before it: what a device adds never takes the place of what its
//! product says. What stands before `CEF:` is not looked at; it must be in the first 512 bytes.

use std::borrow::Cow;

use super::build::Builder;
use super::json::Tape;
use super::kv::next_key;

const NO: &str = "not CEF: no `CEF:` and version";
const HEADER: &str = "not CEF: fewer than seven fields in the header";
/// An envelope before the header is at most this long.
const WINDOW_BYTES: usize = 512;

const NAMES: [&str; 6] =
    ["deviceVendor", "deviceProduct", "deviceVersion", "deviceEventClassId", "name", "severity"];

/// Reads a whole text.
pub(crate) fn read(text: &str, tape: &mut Tape) -> Result<(), &'static str> {
    let (version, mut rest) = start(text, b"CEF:").ok_or(NO)?;
    let mut out = Builder::new(tape, text)?;
    out.put("version", version)?;
    for name in NAMES {
        let (value, after) = match field(rest) {
            Some(found) => found,
            // A header without an extension may end without its last `|`.
            None if name == "severity" => (Cow::Borrowed(rest), ""),
            None => return Err(HEADER),
        };
        out.put(name, value.trim())?;
        rest = after;
    }
    extension(rest, &mut out)?;
    out.finish();
    Ok(())
}

/// The version after the format's name, and what is after its `|`.
pub(super) fn start<'t>(text: &'t str, name: &[u8]) -> Option<(&'t str, &'t str)> {
    // A line of JSON may hold anything, but it is not of this form.
    if text.starts_with('{') {
        return None;
    }
    let window = &text.as_bytes()[..text.len().min(WINDOW_BYTES)];
    let at = memchr::memmem::find(window, name)?;
    let (version, rest) = text.get(at + name.len()..)?.split_once('|')?;
    let version = version.trim();
    let digits = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    (!version.is_empty() && version.len() <= 8 && version.bytes().all(digits))
        .then_some((version, rest))
}

/// A field of the header, and what is after its `|`.
pub(super) fn field(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'|', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'|' {
            return Some((unescape(&text[..at]), &text[at + 1..]));
        }
        at += 2;
    }
}

fn extension(text: &str, out: &mut Builder<'_>) -> Result<(), &'static str> {
    let mut rest = text.trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim();
        let stop = next_key(after, "=");
        let value = after[..stop].trim_end_matches([' ', '\r', '\n']);
        if key.is_empty() || key.contains([' ', '\t']) {
            break;
        }
        out.put_apart("ext_", key, &unescape(value))?;
        rest = after[stop..].trim_start();
    }
    match rest.trim() {
        "" => Ok(()),
        left => out.put_apart("ext_", "text", left),
    }
}

/// Resolves `\|`, `\=`, `\\`, `\n` and `\r`; any other backslash stays.
fn unescape(text: &str) -> Cow<'_, str> {
    super::unescape(text, |after| {
        let mut signs = after.chars();
        let sign = match signs.next()? {
            'n' => '\n',
            'r' => '\r',
            sign @ ('|' | '=' | '\\') => sign,
            _ => return None,
        };
        Some((sign, signs.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::fields;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn header_and_extension_with_their_escapes() {
        let text = r"<13>x CEF:0|Acme \| Co|Guard|1.2|42|Login failed|7|src=203.0.113.9 msg=a b\=c d\\e\nf cs1Label=Rule Name cs1=x | y name=z suser=";
        assert_eq!(
            fields(text, read),
            Ok(json!({
                "version":"0","deviceVendor":"Acme | Co","deviceProduct":"Guard","deviceVersion":"1.2",
                "deviceEventClassId":"42","name":"Login failed","severity":"7","src":"203.0.113.9",
                "msg":"a b=c d\\e\nf","cs1Label":"Rule Name","cs1":"x | y","ext_name":"z","suser":"",
            }))
        );
        let bare = fields("CEF:1|a|b|c|d|e|3", read).unwrap();
        assert_eq!(bare["severity"], "3");
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        for (text, why) in [
            ("", NO),
            ("CEF:", NO),
            ("CEF:x|a|b|c|d|e|3|", NO),
            ("CEF:0|a|b|c|d", HEADER),
            (r"CEF:0|a|b|c|d|e\|3", HEADER),
        ] {
            assert_eq!(fields(text, read), Err(why), "{text}");
        }
        let late = format!("{}CEF:0|a|b|c|d|e|3|", " ".repeat(600));
        assert_eq!(fields(&late, read), Err(NO));
    }

    #[test]
    fn an_extension_that_is_no_extension_is_kept() {
        let found = fields("CEF:0|a|b|c|d|e|3|two words=1 and more", read).unwrap();
        assert_eq!(found["text"], "two words=1 and more");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = fields(&text, read);
            let _ = fields(&format!("CEF:0|{text}"), read);
            let _ = fields(&format!("CEF:0|a|b|c|d|e|3|{text}"), read);
        }

        #[test]
        fn what_is_nearly_right(text in "([a-c]{0,2}[= |\\\\né]{0,3}){0,16}") {
            let _ = fields(&format!("CEF:0|a|b|c|d|e|3|{text}"), read);
        }
    }
}
