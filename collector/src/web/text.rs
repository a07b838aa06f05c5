//! Texts of events on the way to a page or a terminal.

use std::borrow::Cow;

/// Shows characters that would move or hide others as `\u{…}`: controls (a line end and a tab
/// stay where `lines` says that lines are shown as such), bidirectional marks and overrides,
/// invisible joiners and tags.
pub(crate) fn visible(text: &str, lines: bool) -> Cow<'_, str> {
    if !text.chars().any(|character| hides(character, lines)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if hides(character, lines) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

fn hides(character: char, lines: bool) -> bool {
    if character.is_control() {
        return !(lines && matches!(character, '\n' | '\t'));
    }
    matches!(u32::from(character),
        0x061c | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x2069 | 0xfeff | 0xe0000..=0xe007f)
}

/// Percent-encodes a text for a query string.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

/// A number with a thin gap every three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
