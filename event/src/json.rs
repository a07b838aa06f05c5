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
    if is_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    let mut from = 0;
    while let Some(found) = find_special(&bytes[from..]) {
        let at = from + found;
        out.extend_from_slice(&bytes[from..at]);
        push_escape(bytes[at], out);
        from = at + 1;
    }
    out.extend_from_slice(&bytes[from..]);
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
    let eights = narrow.by_ref().any(|eight| specials_of(eight) != 0);
    !eights && !special(narrow.remainder())
}

/// The first byte that must be escaped: eight at a time, then one at a time.
pub(crate) fn find_special(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for eight in bytes.chunks_exact(8) {
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
fn specials_of(eight: &[u8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut word = [0; 8];
    word.copy_from_slice(eight);
    let word = u64::from_le_bytes(word);
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

fn push_escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends an integer in decimal.
pub fn push_int(value: i64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            break;
        }
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
