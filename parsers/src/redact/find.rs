//! Finds a value again in the record that it was decoded from.
//!
//! A value may stand there as it is, with escapes of JSON (`\"`, `\u00e9`, and those in JSON within
//! JSON), percent-encoded, or in hex as the kernel writes it.

/// A value of at most so many bytes is replaced only where it is a word of its own.
const SHORT_BYTES: usize = 3;

/// Puts `with` in the place of all that reads as `value`; `None` where it is not found.
pub(super) fn replaced(text: &[u8], value: &str, with: &str) -> Option<Vec<u8>> {
    let plain = value.as_bytes();
    let first = *plain.first()?;
    let mut out = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    while at < text.len() {
        let begins = text[at] == first || matches!(text[at], b'\\' | b'%');
        let end = if begins { reads_as(text, at, plain) } else { None };
        let Some(end) = end.filter(|end| is_apart(text, at, *end, plain)) else {
            at += 1;
            continue;
        };
        out.extend_from_slice(&text[copied..at]);
        put(text, at, end, with, &mut out);
        (copied, at) = (end, end);
    }
    for digits in [hex(plain, false), hex(plain, true)] {
        // Two bytes in hex may be anything.
        if plain.len() > 2 && copied == 0 {
            let mut from = 0;
            while let Some(found) = memchr::memmem::find(&text[from..], digits.as_bytes()) {
                out.extend_from_slice(&text[copied..from + found]);
                out.extend_from_slice(with.as_bytes());
                from += found + digits.len();
                copied = from;
            }
        }
    }
    (copied > 0).then(|| {
        out.extend_from_slice(&text[copied..]);
        out
    })
}

fn put(text: &[u8], from: usize, to: usize, with: &str, out: &mut Vec<u8>) {
    let quoted = is_bare_in_json(text, from, to);
    if quoted {
        out.push(b'"');
    }
    out.extend_from_slice(with.as_bytes());
    if quoted {
        out.push(b'"');
    }
}

fn hex(bytes: &[u8], upper: bool) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            let digit = char::from_digit(u32::from(half), 16).unwrap_or('0');
            out.push(if upper { digit.to_ascii_uppercase() } else { digit });
        }
    }
    out
}

/// The end of what reads as the value here.
fn reads_as(text: &[u8], from: usize, value: &[u8]) -> Option<usize> {
    let mut at = from;
    let mut left = value;
    while !left.is_empty() {
        let (length, used) = step(&text[at..], left)?;
        left = &left[length..];
        at += used;
    }
    Some(at)
}

/// How much of the value the text begins with, and how much of the text that is.
fn step(text: &[u8], value: &[u8]) -> Option<(usize, usize)> {
    let byte = *text.first()?;
    if byte == value[0] && byte != b'\\' {
        return Some((1, 1));
    }
    match byte {
        b'%' => {
            let code = number(text.get(1..3)?)?;
            (code == u32::from(value[0])).then_some((1, 3))
        }
        b'\\' => escaped(text, value),
        _ => None,
    }
}

/// An escape of JSON, in JSON that may be in JSON.
fn escaped(text: &[u8], value: &[u8]) -> Option<(usize, usize)> {
    let slashes = text.iter().take_while(|byte| **byte == b'\\').count();
    if value[0] == b'\\' {
        // A backslash is written as two, or as it is.
        let used = if slashes >= 2 { 2 } else { 1 };
        return Some((1, used));
    }
    let sign = *text.get(slashes)?;
    let meant = match sign {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 8,
        b'f' => 12,
        b'u' => return unicode(text, slashes, value),
        other => other,
    };
    (meant == value[0]).then_some((1, slashes + 1))
}

/// `\u00e9`, or two for a character beyond U+FFFF.
fn unicode(text: &[u8], slashes: usize, value: &[u8]) -> Option<(usize, usize)> {
    let unit = |at: usize| number(text.get(at..at + 4)?);
    let first = unit(slashes + 1)?;
    let mut used = slashes + 5;
    let code = match first {
        0xD800..=0xDBFF => {
            let low = unit(used + slashes + 1).filter(|low| (0xDC00..=0xDFFF).contains(low))?;
            used += slashes + 5;
            0x1_0000 + ((first - 0xD800) << 10) + (low - 0xDC00)
        }
        code => code,
    };
    let mut buffer = [0; 4];
    let character = char::from_u32(code)?.encode_utf8(&mut buffer);
    value.starts_with(character.as_bytes()).then_some((character.len(), used))
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |all, digit| Some(all * 16 + char::from(*digit).to_digit(16)?))
}

/// A short value must be a word of its own: `eva` is not in `evaluation`.
fn is_apart(text: &[u8], from: usize, to: usize, value: &[u8]) -> bool {
    if value.len() > SHORT_BYTES {
        return true;
    }
    let word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    !word(from.checked_sub(1).and_then(|at| text.get(at))) && !word(text.get(to))
}

/// Does a number stand here without quotes, between the signs of JSON?
pub(super) fn is_bare_in_json(text: &[u8], from: usize, to: usize) -> bool {
    if !text[from..to].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let blank = |byte: &&u8| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let before = text[..from].iter().rev().find(blank);
    let after = text[to..].iter().find(blank);
    matches!(before, Some(b':' | b',' | b'[')) && matches!(after, Some(b',' | b'}' | b']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, value: &str) -> Option<String> {
        replaced(text.as_bytes(), value, "***").map(|out| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_value_is_found_however_it_is_written() {
        for (text, value, expected) in [
            ("user eva@x.org in", "eva@x.org", "user *** in"),
            (r#"{"a":"one \"two\" é"}"#, "one \"two\" é", r#"{"a":"***"}"#),
            (r#"{"a":"caf\u00e9 \ud83d\ude00"}"#, "café 😀", r#"{"a":"***"}"#),
            (r#"{"b":"{\"a\":\"x\\\"y z\"}"}"#, "x\"y z", r#"{"b":"{\"a\":\"***\"}"}"#),
            (r#"{"a":"C:\\dir\\x"}"#, r"C:\dir\x", r#"{"a":"***"}"#),
            ("/find?q=eva%20m%C3%BCller&x", "eva müller", "/find?q=***&x"),
            ("acct=657661206D", "eva m", "acct=***"),
            (r#"{"pin":123456}"#, "123456", r#"{"pin":"***"}"#),
            ("eva and evaluation", "eva", "*** and evaluation"),
            ("eva-maria is eva-maria", "eva-maria", "*** is ***"),
        ] {
            assert_eq!(with(text, value).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(with("evaluation", "eva"), None);
        assert_eq!(with("ZXZhLW1hcmlh", "eva-maria"), None);
    }
}
