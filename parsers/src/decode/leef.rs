//! QRadar's Log Event Extended Format, 1.0 and 2.0.
//!
//! ```text
//! LEEF:1.0|Vendor|Product|1.0|LoginFailed|src=203.0.113.9⇥usrName=eva
//! LEEF:2.0|Vendor|Product|1.0|LoginFailed|^|src=203.0.113.9^usrName=eva
//! ```
//! The header is `version`, `deviceVendor`, `deviceProduct`, `deviceVersion` and `eventId`. The
//! attributes stand apart by tabs; in 2.0 by the header's sixth field where it is not empty, a sign
//! or its code in hex (`x5E`, `0x5E`). An attribute that is called as a field of the header is
//! gets `ext_` before it. Where tabs were lost on the way (a relay that writes spaces), a value
//! goes on to the next `key=`.

use super::build::{Builder, is_name};
use super::cef::{field, start};
use super::json::Tape;
use super::kv::next_key;

const NO: &str = "not LEEF: no `LEEF:` and version";
const HEADER: &str = "not LEEF: fewer than five fields in the header";

const NAMES: [&str; 4] = ["deviceVendor", "deviceProduct", "deviceVersion", "eventId"];

/// Reads a whole text.
pub(crate) fn read(text: &str, tape: &mut Tape) -> Result<(), &'static str> {
    let (version, mut rest) = start(text, b"LEEF:").ok_or(NO)?;
    let mut out = Builder::new(tape, text)?;
    out.put("version", version)?;
    for name in NAMES {
        let (value, after) = match field(rest) {
            Some(found) => found,
            None if name == "eventId" && !rest.is_empty() => (rest.into(), ""),
            None => return Err(HEADER),
        };
        out.put(name, value.trim())?;
        rest = after;
    }
    let mut between = '\t';
    if version.starts_with('2')
        && let Some((sign, after)) = delimiter(rest)
    {
        between = sign;
        rest = after;
    }
    attributes(rest, between, &mut out)?;
    out.finish();
    Ok(())
}

/// The sixth field of a 2.0 header: empty for a tab, a sign, or a code in hex.
fn delimiter(rest: &str) -> Option<(char, &str)> {
    let (field, after) = match rest.strip_prefix('|') {
        // The delimiter may be `|` itself: `||`.
        Some(after) if after.starts_with('|') => return Some(('|', &after[1..])),
        Some(after) => return Some(('\t', after)),
        None => rest.split_once('|')?,
    };
    let mut signs = field.chars();
    match (signs.next(), signs.next()) {
        (Some(sign), None) => return Some((sign, after)),
        (None, _) => return Some(('\t', after)),
        _ => {}
    }
    let hex = field.strip_prefix("0x").or_else(|| field.strip_prefix(['x', 'X']))?;
    let code = u32::from_str_radix(hex, 16).ok()?;
    Some((char::from_u32(code)?, after))
}

fn attributes(text: &str, between: char, out: &mut Builder<'_>) -> Result<(), &'static str> {
    let lost = between == '\t' && !text.contains('\t');
    let mut loose: Vec<&str> = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let stop = match (lost, rest.split_once('=')) {
            (true, Some((key, value))) => key.len() + 1 + next_key(value, "="),
            _ => rest.find(between).unwrap_or(rest.len()),
        };
        let (pair, after) = rest.split_at(stop);
        match pair.split_once('=') {
            Some((key, value)) if is_name(key.trim()) => {
                out.put_apart("ext_", key.trim(), value.trim())?;
            }
            _ if pair.trim().is_empty() => {}
            _ => loose.push(pair.trim()),
        }
        rest = after.trim_start_matches([between, ' ']);
    }
    match loose.as_slice() {
        [] => Ok(()),
        pieces => out.put_apart("ext_", "text", &pieces.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::fields;
    use proptest::prelude::*;
    use serde_json::json;

    fn wanted(version: &str) -> serde_json::Value {
        json!({
            "version": version, "deviceVendor":"Acme","deviceProduct":"Guard","deviceVersion":"3.1",
            "eventId":"LoginFailed","src":"203.0.113.9","msg":"a = b","usrName":"eva",
        })
    }

    #[test]
    fn every_delimiter_of_both_versions() {
        for (header, between) in [
            ("LEEF:1.0|Acme|Guard|3.1|LoginFailed|", "\t"),
            ("LEEF:2.0|Acme|Guard|3.1|LoginFailed|^|", "^"),
            ("LEEF:2.0|Acme|Guard|3.1|LoginFailed|x7C|", "|"),
            ("LEEF:2.0|Acme|Guard|3.1|LoginFailed|0x5e|", "^"),
            ("LEEF:2.0|Acme|Guard|3.1|LoginFailed||", "\t"),
            ("LEEF:1.0|Acme|Guard|3.1|LoginFailed|", " "),
        ] {
            let text = format!("{header}src=203.0.113.9{between}msg=a = b{between}usrName=eva");
            assert_eq!(fields(&text, read), Ok(wanted(&header[5..8])), "{text}");
        }
    }

    #[test]
    fn what_is_not_whole_is_refused_and_what_is_no_pair_is_kept() {
        assert_eq!(fields("LEEF:|a", read), Err(NO));
        assert_eq!(fields("LEEF:1.0|a|b", read), Err(HEADER));
        assert_eq!(fields("LEEF:1.0|a|b|c|", read), Err(HEADER));
        let found = fields("LEEF:1.0|a|b|c|d|x\ty=1\teventId=2", read).unwrap();
        assert_eq!((&found["text"], &found["ext_eventId"]), (&json!("x"), &json!("2")));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = fields(&text, read);
            let _ = fields(&format!("LEEF:2.0|a|b|c|d|{text}"), read);
            let _ = fields(&format!("LEEF:1.0|a|b|c|d|{text}"), read);
        }

        #[test]
        fn what_is_nearly_right(text in "[|^x0-9]{0,4}([a-c]{0,2}[= |\té^]{0,3}){0,16}") {
            let _ = fields(&format!("LEEF:2.0|a|b|c|d|{text}"), read);
        }
    }
}
