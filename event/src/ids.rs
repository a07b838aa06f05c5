//! Newtypes for everything that is counted or named: no bare integers cross a room's door.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A text that should have been so many lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected {digits} lower-case hex digits, found {found:?}")]
pub struct BadHex {
    digits: usize,
    found: String,
}

/// Each byte as two digits.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

/// A byte as two lower-case hex digits.
pub(crate) fn hex(byte: u8) -> [u8; 2] {
    HEX[usize::from(byte)]
}

/// Appends `bytes` as lower-case hex digits.
pub fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    let mut digits = [0; 64];
    for some in bytes.chunks(digits.len() / 2) {
        let digits = &mut digits[..some.len() * 2];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(some) {
            pair.copy_from_slice(&hex(*byte));
        }
        out.extend_from_slice(digits);
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Reads exactly `out.len()` bytes of lower-case hex; `None` for anything else.
#[must_use]
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut out = [0_u8; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// As lower-case hex digits.
            #[must_use]
            pub fn to_hex(&self) -> String {
                self.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for byte in self.0 {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = BadHex;
            fn from_str(text: &str) -> Result<Self, BadHex> {
                parse_hex(text)
                    .map(Self)
                    .ok_or_else(|| BadHex { digits: $bytes * 2, found: text.chars().take(80).collect() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// SHA-256 of something.
    Digest,
    32
);
hex_id!(
    /// An agent, named once when its data directory is made.
    AgentId,
    16
);
hex_id!(
    /// One life of a spool: the sequence of blocks written since it was created.
    StreamId,
    16
);
hex_id!(
    /// An event's derived name: see [`crate::position::event_id`].
    EventId,
    16
);
hex_id!(
    /// Names one generation of one file of one host: see [`crate::position::FileIdentity::key`].
    FileKey,
    16
);
hex_id!(
    /// First eight bytes of the SHA-256 of an Ed25519 public key.
    KeyId,
    8
);

impl Digest {
    /// All zeros: the "previous hash" of a stream's first block.
    pub const ZERO: Self = Self([0; 32]);

    /// SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number.
            #[must_use]
            pub fn get(self) -> u64 {
                self.0
            }

            /// This many further on; saturates (2^64 is out of reach for a byte or a block count).
            #[must_use]
            pub fn plus(self, by: u64) -> Self {
                Self(self.0.saturating_add(by))
            }

            /// How far `self` is beyond `earlier`; zero where it is not.
            #[must_use]
            pub fn since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// A block's number in its stream, from 0, without holes.
    Seq
);
counter!(
    /// A byte's place in the logical content of one generation of a file (decompressed).
    Offset
);

impl Seq {
    /// The one after.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_reads_back_and_refuses_everything_else() {
        let id = AgentId([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "ab", &"AB".repeat(16), &"zz".repeat(16), &"ab".repeat(17)] {
            assert!(bad.parse::<AgentId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn digest_is_sha256() {
        assert_eq!(
            Digest::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
