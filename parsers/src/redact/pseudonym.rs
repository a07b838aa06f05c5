//! Names in the place of values: HMAC-SHA-256 (RFC 2104) under a key that never leaves the host.

use std::fmt;

use custody_event::Digest;

/// SHA-256 works on blocks of so many bytes.
const BLOCK_BYTES: usize = 64;
/// A shorter key could be tried out.
const MIN_KEY_BYTES: usize = 16;
/// Bytes of the digest that a name shows: two values share a name by chance once in 2^64 values.
const SHOWN_BYTES: usize = 16;
/// Before every pseudonym.
const PREFIX: &str = "p_";

/// The key of pseudonyms. Never shown.
#[derive(Clone)]
pub struct PseudonymKey {
    inner: [u8; BLOCK_BYTES],
    outer: [u8; BLOCK_BYTES],
}

impl PseudonymKey {
    /// A key of at least 16 bytes; `None` for a shorter one.
    #[must_use]
    pub fn new(key: &[u8]) -> Option<Self> {
        if key.len() < MIN_KEY_BYTES {
            return None;
        }
        let mut block = [0; BLOCK_BYTES];
        match key.len() > BLOCK_BYTES {
            true => block[..32].copy_from_slice(&Digest::of(key).0),
            false => block[..key.len()].copy_from_slice(key),
        }
        Some(Self { inner: block.map(|byte| byte ^ 0x36), outer: block.map(|byte| byte ^ 0x5c) })
    }

    fn mac(&self, value: &[u8]) -> [u8; 32] {
        let inner = Digest::of(&[&self.inner, value].concat());
        Digest::of(&[self.outer.as_slice(), &inner.0].concat()).0
    }

    /// The name of a value: the same for the same value and key.
    pub(crate) fn name(&self, value: &[u8]) -> String {
        let mut name = String::with_capacity(PREFIX.len() + 2 * SHOWN_BYTES);
        name.push_str(PREFIX);
        for byte in &self.mac(value)[..SHOWN_BYTES] {
            for half in [byte >> 4, byte & 15] {
                name.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
            }
        }
        name
    }
}

impl fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PseudonymKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_vectors_of_rfc_4231_come_out() {
        let key = PseudonymKey::new(&[0x0b; 20]).unwrap();
        assert_eq!(
            hex(&key.mac(b"Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        let key = PseudonymKey::new(&[0xaa; 131]).unwrap();
        assert_eq!(
            hex(&key.mac(b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
        assert_eq!(key.name(b"eva").len(), 34);
        assert!(key.name(b"eva").starts_with("p_"));
    }

    #[test]
    fn a_short_key_is_refused_and_none_is_shown() {
        assert!(PseudonymKey::new(b"too short").is_none());
        let key = PseudonymKey::new(b"sixteen bytes ok").unwrap();
        assert!(!format!("{key:?}").contains("sixteen"));
        let other = PseudonymKey::new(b"sixteen bytes no").unwrap();
        assert_eq!(key.name(b"eva"), key.name(b"eva"));
        assert_ne!(key.name(b"eva"), other.name(b"eva"));
    }
}
