//! RFC 8785 text, written into a buffer: strings with exactly the escapes that it names, integers
//! as they are. Key order is the caller's business ([`crate::draft`] has it in a table).

/// Appends `text` as a JSON string with its quotes.
pub fn push_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    push_escaped(text, out);
    out.push(b'"');
}

/// Appends `text` escaped as RFC 8785 §3.2.2.2 says: `"` and `\` with a backslash, the five short
/// control escapes, `\u00xx` in lower case for the rest below 0x20, everything else as it is.
pub fn push_escaped(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    if bytes.len() <= SHORT && is_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    out.reserve(bytes.len() + bytes.len() / 8);
    let mut buffer = [0_u8; ROOM];
    let (mut from, mut at) = (0, 0);
    while let Some(eight) = bytes[from..].first_chunk::<8>() {
        if at > ROOM - MOST {
            out.extend_from_slice(&buffer[..at]);
            at = 0;
        }
        buffer[at..at + 8].copy_from_slice(eight);
        let hits = specials_of(eight);
        if hits == 0 {
            (from, at) = (from + 8, at + 8);
            continue;
        }
        let before = usize::try_from(hits.trailing_zeros() / 8).unwrap_or_default();
        at += before;
        at += escape(eight[before % 8], &mut buffer[at..]);
        from += before + 1;
    }
    out.extend_from_slice(&buffer[..at]);
    at = 0;
    for byte in &bytes[from..] {
        at += escape(*byte, &mut buffer[at..]);
    }
    out.extend_from_slice(&buffer[..at]);
}

/// A text of so many bytes is looked through before it is copied: most have nothing to escape.
const SHORT: usize = 64;
/// Bytes that are put together before they are appended.
const ROOM: usize = 256;
/// What eight bytes become, at most: each `\u00xx`.
const MOST: usize = 8 * 6;

/// What a byte becomes: how many backslashes before it, and the letter behind them. Of those without a letter of their
/// own (`\u00xx`) the count is [`LONG`].
const ESCAPES: [(u8, u8); 256] = {
    let mut table = [(0, 0); 256];
    let mut byte = 0_u8;
    loop {
        table[byte as usize] = match byte {
            b'"' | b'\\' => (1, byte),
            0x08 => (1, b'b'),
            0x09 => (1, b't'),
            0x0a => (1, b'n'),
            0x0c => (1, b'f'),
            0x0d => (1, b'r'),
            0..0x20 => (LONG, byte),
            _ => (0, byte),
        };
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    table
};
const LONG: u8 = 2;

/// Writes a byte as it stands in a JSON string; gives the length.
#[inline]
fn escape(byte: u8, into: &mut [u8]) -> usize {
    let (slashes, letter) = ESCAPES[usize::from(byte)];
    let length = match slashes {
        0 => 1,
        1 => 2,
        _ => 6,
    };
    match (length, into) {
        (1, [first, ..]) => *first = letter,
        (2, [first, second, ..]) => (*first, *second) = (b'\\', letter),
        (_, into) => {
            if let Some(six) = into.first_chunk_mut() {
                *six = control(byte);
            }
        }
    }
    length
}

/// Is there nothing to escape? Most texts are so: a pass without a branch a byte pays.
fn is_plain(bytes: &[u8]) -> bool {
    let special = |some: &[u8]| some.iter().fold(false, |found, byte| found | is_special(*byte));
    let mut wide = bytes.chunks_exact(32);
    if wide.by_ref().any(special) {
        return false;
    }
    let rest = wide.remainder();
    let mut narrow = rest.chunks_exact(8);
    let some = |eight: &[u8]| eight.first_chunk().is_none_or(|eight| specials_of(eight) != 0);
    !narrow.by_ref().any(some) && !special(narrow.remainder())
}

/// The first byte that must be escaped, which is also the first that ends a run of plain bytes in a JSON string: eight at
/// a time, then one at a time.
#[must_use]
pub fn find_special(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk() {
        let hits = specials_of(eight);
        if hits != 0 {
            let byte = usize::try_from(hits.trailing_zeros() / 8).unwrap_or_default();
            return Some(at + byte);
        }
        at += 8;
    }
    bytes[at..].iter().position(|byte| is_special(*byte)).map(|found| at + found)
}

/// The top bit of each of eight bytes that must be escaped; above the first it may be a false
/// alarm.
#[inline]
fn specials_of(eight: &[u8; 8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let word = u64::from_le_bytes(*eight);
    let quote = word ^ (ONES * 0x22);
    let slash = word ^ (ONES * 0x5c);
    // A byte below 0x20 borrows; so does a zero byte of the two differences. False alarms only
    // come above a true one, so the lowest set bit is right; bytes over 0x7f are masked.
    (word.wrapping_sub(ONES * 0x20) | quote.wrapping_sub(ONES) | slash.wrapping_sub(ONES))
        & !word
        & HIGHS
}

fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

fn control(byte: u8) -> [u8; 6] {
    let [high, low] = crate::ids::hex(byte);
    [b'\\', b'u', b'0', b'0', high, low]
}

/// `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let (mut number, mut tens, mut ones) = (0, b'0', b'0');
    while number < pairs.len() {
        pairs[number] = [tens, ones];
        (tens, ones) = if ones == b'9' { (tens + 1, b'0') } else { (tens, ones + 1) };
        number += 1;
    }
    pairs
};

/// The last two digits of a number.
#[inline]
pub(crate) fn pair(number: u64) -> [u8; 2] {
    PAIRS[usize::try_from(number % 100).unwrap_or_default()]
}

/// Appends an integer in decimal.
pub fn push_int(value: i64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    while rest >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&pair(rest % 100));
        rest /= 100;
    }
    if rest > 0 || at == digits.len() {
        at -= 1;
        digits[at] = pair(rest)[1];
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// The largest integer that JSON readers agree on: 2^53 − 1 (RFC 8785 §3.2.2.3, RFC 7493 §2.2).
pub const MAX_SAFE_INT: i64 = (1 << 53) - 1;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends `bytes` in base64 with padding (RFC 4648 §4).
pub fn push_base64(bytes: &[u8], out: &mut Vec<u8>) {
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte))
            << (8 * (3 - group.len()));
        for digit in 0..4 {
            let shift = 18 - 6 * digit;
            out.push(if digit > group.len() { b'=' } else { BASE64[word >> shift & 63] });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_are_written_as_a_known_writer_does(text in any::<String>()) {
            let mut out = Vec::new();
            push_string(&text, &mut out);
            prop_assert_eq!(out, serde_json::to_vec(&text).unwrap());
        }

        #[test]
        fn every_control_byte_at_every_place_is_found(at in 0_usize..40, byte in 0_u8..0x80) {
            let mut text = "é".repeat(20).into_bytes();
            text.insert(at / 2 * 2, byte);
            let text = String::from_utf8(text).unwrap();
            let mut out = Vec::new();
            push_string(&text, &mut out);
            prop_assert_eq!(out, serde_json::to_vec(&text).unwrap());
        }

        #[test]
        fn integers_are_written_as_decimal(value in any::<i64>()) {
            let mut out = Vec::new();
            push_int(value, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }

    #[test]
    fn base64_is_the_one_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut out = Vec::new();
            push_base64(bytes.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
