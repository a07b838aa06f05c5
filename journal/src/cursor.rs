//! Cursors: where an entry stands.
//!
//! A cursor is `s=<seqnum id>;i=<seqnum>;b=<boot>;m=<monotonic>;t=<realtime>;x=<hash>`, numbers and
//! ids in hexadecimal digits (systemd, "Journal Export Formats" and sd_journal_get_cursor(3)). The
//! manual calls it opaque; its parts are what `journalctl --header` and the export format show, and
//! an unknown form is an error here, never a guess.

use crate::JournalError;

/// A 128-bit id as systemd writes it: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id128(pub [u8; 16]);

/// Names the sequence in which one journald numbers its entries.
pub type SeqnumId = Id128;
/// Names a boot of a machine.
pub type BootId = Id128;

impl Id128 {
    /// From 32 hexadecimal digits, with or without dashes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        id(text.bytes().filter(|byte| *byte != b'-'))
    }
}

impl std::fmt::Display for Id128 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The parts of a cursor that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Whose numbers.
    pub seqnum_id: SeqnumId,
    /// The entry's number, from 1.
    pub seqnum: u64,
    /// In which boot it was written.
    pub boot: BootId,
    /// Since that boot, microseconds.
    pub monotonic_us: u64,
    /// When journald received it, microseconds since 1970.
    pub realtime_us: u64,
}

impl Cursor {
    /// From the text that journald's readers give.
    ///
    /// # Errors
    /// A part is missing or is no number.
    pub fn parse(text: &str) -> Result<Self, JournalError> {
        let mut cursor = Self::default();
        let mut found = [false; 5];
        for part in text.as_bytes().split(|byte| *byte == b';') {
            let [name, b'=', value @ ..] = part else { continue };
            let (index, is_good) = match name {
                b's' => (0, put(&mut cursor.seqnum_id, id(value.iter().copied()))),
                b'i' => (1, put(&mut cursor.seqnum, number(value))),
                b'b' => (2, put(&mut cursor.boot, id(value.iter().copied()))),
                b'm' => (3, put(&mut cursor.monotonic_us, number(value))),
                b't' => (4, put(&mut cursor.realtime_us, number(value))),
                _ => continue,
            };
            found[index] = is_good;
        }
        const NAMES: [&str; 5] =
            ["sequence id", "sequence number", "boot id", "monotonic time", "time"];
        match found.iter().position(|found| !found) {
            None => Ok(cursor),
            Some(missing) => {
                Err(JournalError::Cursor { text: text.to_owned(), part: NAMES[missing] })
            }
        }
    }

    /// Was it written before the other: within a boot by its clock, else by the machine's?
    #[must_use]
    pub fn is_before(&self, other: &Self) -> bool {
        match self.boot == other.boot {
            true => self.monotonic_us < other.monotonic_us,
            false => self.realtime_us < other.realtime_us,
        }
    }

    /// A cursor text that finds a number without knowing the entry; `realtime_us` places readers of
    /// files with other numbers.
    #[must_use]
    pub fn text_for(seqnum_id: SeqnumId, seqnum: u64, realtime_us: Option<u64>) -> String {
        match realtime_us {
            Some(time) => format!("s={seqnum_id};i={seqnum:x};t={time:x}"),
            None => format!("s={seqnum_id};i={seqnum:x}"),
        }
    }
}

fn id(digits: impl IntoIterator<Item = u8>) -> Option<Id128> {
    let mut bytes = [0_u8; 16];
    let mut digits = digits.into_iter();
    for byte in &mut bytes {
        *byte = hex_digit(digits.next()?)? << 4 | hex_digit(digits.next()?)?;
    }
    digits.next().is_none().then_some(Id128(bytes))
}

/// A number in 1 to 16 hexadecimal digits.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = matches!(digits.len(), 1..=16);
    let add = |all: u64, digit: &u8| Some(all << 4 | u64::from(hex_digit(*digit)?));
    is_number.then(|| digits.iter().try_fold(0, add)).flatten()
}

fn put<T>(place: &mut T, value: Option<T>) -> bool {
    value.map(|value| *place = value).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "s=89faf26c707845e7a3d23e6cffabb835;i=1f;b=38669cd101054595abafa3633fe713c1;m=630b71089;t=660cddf6d6d52;x=85dc29317291eb50";

    #[test]
    fn a_cursor_is_taken_apart() {
        let cursor = Cursor::parse(TEXT).unwrap();
        assert_eq!(cursor.seqnum, 31);
        assert_eq!(cursor.seqnum_id.to_string(), "89faf26c707845e7a3d23e6cffabb835");
        assert_eq!(cursor.boot.to_string(), "38669cd101054595abafa3633fe713c1");
        assert_eq!(cursor.realtime_us, 0x0006_60cd_df6d_6d52);
        assert_eq!(cursor.monotonic_us, 0x0006_30b7_1089);
    }

    #[test]
    fn a_cursor_of_an_unknown_form_is_an_error_and_no_guess() {
        for bad in
            ["", "opaque", "s=12;i=1", &TEXT.replace("i=1f", "i=xyz"), &TEXT.replace("t=", "T=")]
        {
            assert!(Cursor::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_with_dashes_is_the_same_id() {
        let id = Id128::parse("89faf26c-7078-45e7-a3d2-3e6cffabb835");
        assert_eq!(id, Id128::parse("89FAF26C707845E7A3D23E6CFFABB835"));
        assert!(id.is_some() && Id128::parse("89faf26c70").is_none());
        assert!(Id128::parse("89faf26c707845e7a3d23e6cffabb8350").is_none());
    }
}
