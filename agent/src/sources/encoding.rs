//! How a file's bytes are text.
//!
//! A file is read as bytes, and positions count bytes; what a rule sees is text. UTF-8 is the text
//! itself and stays as it is, whatever its bytes are. For the others an event keeps the text as
//! `origin.raw` and the encoding's name as `origin.encoding`, if the text turned back into that
//! encoding gives the record's bytes exactly; else it keeps the bytes as `origin.raw_base64`. Either
//! way `origin.raw_sha256` is over the record's bytes as they stand in the file, and nothing is lost.
//!
//! **Limits.** A record's text may be longer than its bytes; [`Encoding::most_bytes`] says how many
//! bytes always fit in what an event keeps.

use custody_event::MAX_RAW_BYTES;

/// Characters of the bytes 0x80 to 0x9F in windows-1252 (the WHATWG's encoding standard: the five
/// bytes that Microsoft left open are the C1 controls of the same number).
const WINDOWS_1252: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}',
    '\u{2c6}', '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}',
    '\u{90}', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}',
    '\u{2dc}', '\u{2122}', '\u{161}', '\u{203a}', '\u{153}', '\u{9d}', '\u{17e}', '\u{178}',
];

/// How bytes are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// As they are.
    #[default]
    Utf8,
    /// Two bytes a code unit, the lower one first.
    Utf16Le,
    /// Two bytes a code unit, the higher one first.
    Utf16Be,
    /// ISO 8859-1: every byte is the character of its number.
    Latin1,
    /// The Western code page of Windows.
    Windows1252,
}

impl Encoding {
    /// Its name as `origin.encoding` has it and the configuration writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Utf16Le => "utf-16le",
            Self::Utf16Be => "utf-16be",
            Self::Latin1 => "latin-1",
            Self::Windows1252 => "windows-1252",
        }
    }

    /// Bytes of a code unit: line ends stand at multiples of it, and nothing is cut between.
    #[must_use]
    pub const fn unit(self) -> usize {
        match self {
            Self::Utf8 | Self::Latin1 | Self::Windows1252 => 1,
            Self::Utf16Le | Self::Utf16Be => 2,
        }
    }

    /// So many bytes of a record, whatever they are, become a text that an event keeps whole.
    #[must_use]
    pub const fn most_bytes(self) -> usize {
        match self {
            Self::Utf8 => MAX_RAW_BYTES,
            // Two bytes become three at most.
            Self::Utf16Le | Self::Utf16Be => MAX_RAW_BYTES / 3 * 2,
            Self::Latin1 => MAX_RAW_BYTES / 2,
            Self::Windows1252 => MAX_RAW_BYTES / 3,
        }
    }

    /// The first line end in `data`, which begins between two code units.
    #[must_use]
    pub fn line_end(self, data: &[u8]) -> Option<usize> {
        match self {
            Self::Utf8 | Self::Latin1 | Self::Windows1252 => memchr::memchr(b'\n', data),
            Self::Utf16Le => memchr::memchr_iter(b'\n', data)
                .find(|at| at % 2 == 0 && data.get(at + 1) == Some(&0)),
            Self::Utf16Be => memchr::memchr_iter(b'\n', data)
                .find(|at| at % 2 == 1 && data[at - 1] == 0)
                .map(|at| at - 1),
        }
    }

    /// A line without the carriage return before its line end.
    #[must_use]
    pub fn strip_return(self, line: &[u8]) -> &[u8] {
        let mark: &[u8] = match self {
            Self::Utf8 | Self::Latin1 | Self::Windows1252 => b"\r",
            Self::Utf16Le => b"\r\0",
            Self::Utf16Be => b"\0\r",
        };
        if line.len().is_multiple_of(self.unit()) {
            line.strip_suffix(mark).unwrap_or(line)
        } else {
            line
        }
    }

    /// The mark that a text in this encoding may begin with (U+FEFF).
    #[must_use]
    pub const fn mark(self) -> &'static [u8] {
        match self {
            Self::Utf8 => b"\xef\xbb\xbf",
            Self::Utf16Le => b"\xff\xfe",
            Self::Utf16Be => b"\xfe\xff",
            Self::Latin1 | Self::Windows1252 => b"",
        }
    }

    /// Appends the text of `bytes`; U+FFFD stands for what is none. True if the text turned back
    /// gives the bytes.
    pub fn decode(self, bytes: &[u8], text: &mut String) -> bool {
        match self {
            Self::Utf8 => decode_utf8(bytes, text),
            Self::Utf16Le => decode_utf16(bytes, u16::from_le_bytes, text),
            Self::Utf16Be => decode_utf16(bytes, u16::from_be_bytes, text),
            Self::Latin1 => {
                text.extend(bytes.iter().map(|byte| char::from(*byte)));
                true
            }
            Self::Windows1252 => {
                text.extend(bytes.iter().map(|byte| match byte {
                    0x80..0xa0 => WINDOWS_1252[usize::from(*byte) - 0x80],
                    _ => char::from(*byte),
                }));
                true
            }
        }
    }

    /// Turns a text back into bytes; `None` where the encoding does not have one of its characters.
    #[must_use]
    pub fn encode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Utf8 => Some(text.as_bytes().to_vec()),
            Self::Utf16Le => Some(text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            Self::Utf16Be => Some(text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
            Self::Latin1 => text.chars().map(|c| u8::try_from(c).ok()).collect(),
            Self::Windows1252 => text.chars().map(to_windows_1252).collect(),
        }
    }
}

fn decode_utf8(bytes: &[u8], text: &mut String) -> bool {
    let mut exact = true;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            exact = false;
        }
    }
    exact
}

fn decode_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16, text: &mut String) -> bool {
    let pairs = bytes.chunks_exact(2);
    let mut exact = pairs.remainder().is_empty();
    let units = pairs.map(|pair| unit([pair[0], pair[1]]));
    for found in char::decode_utf16(units) {
        exact &= found.is_ok();
        text.push(found.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    if bytes.len() % 2 == 1 {
        text.push(char::REPLACEMENT_CHARACTER);
    }
    exact
}

fn to_windows_1252(c: char) -> Option<u8> {
    if let Some(at) = WINDOWS_1252.iter().position(|known| *known == c) {
        return u8::try_from(at + 0x80).ok();
    }
    u8::try_from(c).ok().filter(|byte| !(0x80..0xa0).contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Encoding; 5] = [
        Encoding::Utf8,
        Encoding::Utf16Le,
        Encoding::Utf16Be,
        Encoding::Latin1,
        Encoding::Windows1252,
    ];

    fn text_of(encoding: Encoding, bytes: &[u8]) -> (String, bool) {
        let mut text = String::new();
        let exact = encoding.decode(bytes, &mut text);
        (text, exact)
    }

    #[test]
    fn every_byte_of_the_single_byte_encodings_is_what_the_standard_says() {
        let all: Vec<u8> = (0..=255).collect();
        let (text, malformed) = encoding_rs::WINDOWS_1252.decode_without_bom_handling(&all);
        assert!(!malformed);
        assert_eq!(text_of(Encoding::Windows1252, &all), (text.into_owned(), true));
        assert_eq!(
            text_of(Encoding::Latin1, &all).0,
            encoding_rs::mem::decode_latin1(&all).into_owned()
        );
    }

    #[test]
    fn a_line_end_of_another_code_unit_is_none() {
        // U+0A41 and U+410A hold the byte of a line feed.
        let text = "\u{a41}\u{410a}\u{a0a}\n\u{a41}";
        for encoding in [Encoding::Utf16Le, Encoding::Utf16Be] {
            let bytes = encoding.encode(text).unwrap();
            assert_eq!(encoding.line_end(&bytes), Some(6), "{encoding:?}");
            assert_eq!(encoding.line_end(&bytes[8..]), None);
            assert_eq!(encoding.line_end(&bytes[..7]), None, "half a line end is none yet");
        }
    }

    proptest! {
        #[test]
        fn a_text_that_is_said_to_be_exact_gives_the_bytes_back(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            text in ".{0,80}",
        ) {
            for encoding in ALL {
                let (found, exact) = text_of(encoding, &bytes);
                prop_assert_eq!(exact, encoding.encode(&found).as_ref() == Some(&bytes));
                if let Some(encoded) = encoding.encode(&text) {
                    prop_assert_eq!(text_of(encoding, &encoded), (text.clone(), true));
                }
                let most = encoding.most_bytes();
                let full: Vec<u8> = bytes.iter().copied().cycle().take(most).collect();
                if !bytes.is_empty() {
                    let (long, exact) = text_of(encoding, &full);
                    prop_assert!(!exact || long.len() <= MAX_RAW_BYTES, "{}", long.len());
                }
            }
        }

        #[test]
        fn the_decoders_agree_with_those_of_the_browsers(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            for (ours, theirs) in [
                (Encoding::Utf8, encoding_rs::UTF_8),
                (Encoding::Utf16Le, encoding_rs::UTF_16LE),
                (Encoding::Utf16Be, encoding_rs::UTF_16BE),
                (Encoding::Windows1252, encoding_rs::WINDOWS_1252),
            ] {
                // Half a code unit at the end swallows half a pair before it there, and not here.
                let whole = &bytes[..bytes.len() / ours.unit() * ours.unit()];
                let (text, malformed) = theirs.decode_without_bom_handling(whole);
                prop_assert_eq!(text_of(ours, whole), (text.into_owned(), !malformed));
            }
        }
    }
}
