//! The journal export format (systemd, "Journal Export Formats"): what `journalctl -o export` writes.
//!
//! An entry is a run of fields and ends with an empty line. A field is `NAME=value\n`, or, if its
//! value is not plain text, `NAME\n`, the value's length as 64 bits little endian, the value, `\n`.
//!
//! **Limits.** A name or a text field without its line end: [`MAX_LINE_BYTES`]; of a binary field
//! what is beyond [`MAX_BINARY_BYTES`] is an error, because it must be held whole once.

use std::io::BufRead;

use crate::{Entry, JournalError};

/// Bytes of one line.
const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of one binary value: journald's own limit is 768 MiB, systemd-journal-remote's the same.
const MAX_BINARY_BYTES: u64 = 64 * 1024 * 1024;
/// Memory is asked for in pieces of this size while a value arrives: a length is not believed.
const PIECE_BYTES: u64 = 64 * 1024;

/// What is wrong with an export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// A value is longer than is read.
    #[error("field {name} of {bytes} bytes is longer than {MAX_BINARY_BYTES} bytes")]
    TooLong {
        /// The field.
        name: String,
        /// Its length, or what was read of it.
        bytes: u64,
    },
    /// A binary value is not followed by a line end.
    #[error("the value of field {name} is not followed by a line end")]
    NoEnd {
        /// The field.
        name: String,
    },
    /// The output ends within an entry.
    #[error("the output ends within an entry")]
    Torn,
    /// An entry has no cursor.
    #[error("an entry has no __CURSOR")]
    NoCursor,
}

/// Reads entries from an export.
#[derive(Debug)]
pub struct Export<R> {
    input: R,
    line: Vec<u8>,
    value: Vec<u8>,
    /// `name, value` pairs until the cursor is known: it comes first, but that is not promised.
    early: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: BufRead> Export<R> {
    /// Reads from here.
    pub fn new(input: R) -> Self {
        Self { input, line: Vec::new(), value: Vec::new(), early: Vec::new() }
    }

    /// Reads the next entry; false at the end of the output.
    ///
    /// # Errors
    /// The output cannot be read or is not in the format.
    pub fn next(&mut self, entry: &mut Entry) -> Result<bool, JournalError> {
        self.early.clear();
        let (mut begun, mut some) = (false, false);
        loop {
            if !self.read_line()? {
                return if some { Err(ExportError::Torn.into()) } else { Ok(false) };
            }
            if self.line.is_empty() {
                match (begun, some) {
                    (true, _) => {
                        entry.finish();
                        return Ok(true);
                    }
                    (false, true) => return Err(ExportError::NoCursor.into()),
                    (false, false) => continue,
                }
            }
            some = true;
            begun |= self.field(entry, begun)?;
        }
    }

    /// Takes the field that the line begins; true if it was the cursor.
    fn field(&mut self, entry: &mut Entry, begun: bool) -> Result<bool, JournalError> {
        let name_len = match self.line.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                self.value.clear();
                self.value.extend_from_slice(&self.line[at + 1..]);
                at
            }
            None => {
                self.read_binary()?;
                self.line.len()
            }
        };
        let name = &self.line[..name_len];
        if name == b"__CURSOR" {
            entry.begin(&String::from_utf8_lossy(&self.value))?;
            for (name, value) in self.early.drain(..) {
                entry.add_parts(&name, &value);
            }
            return Ok(true);
        }
        if begun {
            entry.add_parts(name, &self.value);
        } else {
            self.early.push((name.to_vec(), self.value.clone()));
        }
        Ok(false)
    }

    /// Reads a line into `line`, without its end; false at the end of the input.
    fn read_line(&mut self) -> Result<bool, JournalError> {
        self.line.clear();
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        let mut input = std::io::Read::take(&mut self.input, limit);
        input.read_until(b'\n', &mut self.line).map_err(unreadable)?;
        match self.line.pop() {
            None => Ok(false),
            Some(b'\n') => Ok(true),
            Some(_) if self.line.len() + 1 >= MAX_LINE_BYTES => Err(self.too_long(limit)),
            Some(_) => Err(ExportError::Torn.into()),
        }
    }

    fn read_binary(&mut self) -> Result<(), JournalError> {
        let mut length = [0; 8];
        self.exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_BINARY_BYTES {
            return Err(self.too_long(length));
        }
        self.value.clear();
        let mut left = length;
        while left > 0 {
            let piece = left.min(PIECE_BYTES);
            let at = self.value.len();
            self.value.resize(at + usize::try_from(piece).unwrap_or(0), 0);
            let Self { input, value, .. } = self;
            std::io::Read::read_exact(input, &mut value[at..]).map_err(torn)?;
            left -= piece;
        }
        let mut end = [0];
        self.exact(&mut end)?;
        if end == *b"\n" {
            return Ok(());
        }
        Err(ExportError::NoEnd { name: self.name() }.into())
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), JournalError> {
        std::io::Read::read_exact(&mut self.input, buffer).map_err(torn)
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.line[..self.line.len().min(64)]).into_owned()
    }

    fn too_long(&self, bytes: u64) -> JournalError {
        ExportError::TooLong { name: self.name(), bytes }.into()
    }
}

fn torn(error: std::io::Error) -> JournalError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return ExportError::Torn.into();
    }
    unreadable(error)
}

fn unreadable(error: std::io::Error) -> JournalError {
    JournalError::Io { what: "reading journalctl's output".into(), error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::CURSOR;
    use proptest::prelude::*;

    fn written(fields: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut out = format!("__CURSOR={CURSOR}\n__REALTIME_TIMESTAMP=7\n").into_bytes();
        for (name, value) in fields {
            let plain = value.iter().all(|byte| (0x20..0x7f).contains(byte));
            out.extend_from_slice(name.as_bytes());
            if plain {
                out.push(b'=');
            } else {
                out.push(b'\n');
                out.extend_from_slice(&u64::try_from(value.len()).unwrap().to_le_bytes());
            }
            out.extend_from_slice(value);
            out.push(b'\n');
        }
        out.push(b'\n');
        out
    }

    fn read_all(bytes: &[u8]) -> (Vec<Entry>, Option<JournalError>) {
        let mut export = Export::new(bytes);
        let (mut entries, mut entry) = (Vec::new(), Entry::default());
        loop {
            match export.next(&mut entry) {
                Ok(true) => entries.push(entry.clone()),
                Ok(false) => return (entries, None),
                Err(error) => return (entries, Some(error)),
            }
        }
    }

    #[test]
    fn an_output_that_ends_within_an_entry_gives_no_half_entry() {
        let whole = written(&[("A".into(), b"1".to_vec()), ("B".into(), vec![0, 10, 255])]);
        for cut in 1..whole.len() {
            let (entries, error) = read_all(&whole[..cut]);
            assert!(entries.is_empty() && error.is_some(), "cut at {cut}");
        }
        assert_eq!(read_all(&whole).0.len(), 1);
        assert_eq!(read_all(b"").0.len(), 0);
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_memory_is_taken() {
        let mut bytes = format!("__CURSOR={CURSOR}\nX\n").into_bytes();
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(
            read_all(&bytes).1,
            Some(JournalError::Export(ExportError::TooLong { .. }))
        ));
    }

    #[test]
    fn an_entry_without_a_cursor_is_an_error() {
        assert!(matches!(
            read_all(b"A=1\n\n").1,
            Some(JournalError::Export(ExportError::NoCursor))
        ));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            fields in proptest::collection::vec(("[A-Z][A-Z0-9_]{0,9}", proptest::collection::vec(any::<u8>(), 0..40)), 0..6),
            count in 1_usize..4,
        ) {
            let bytes = written(&fields).repeat(count);
            let (entries, error) = read_all(&bytes);
            prop_assert!(error.is_none());
            prop_assert_eq!(entries.len(), count);
            let mut expected = fields.clone();
            expected.sort();
            for entry in &entries {
                let read: Vec<(String, Vec<u8>)> = entry
                    .fields()
                    .map(|field| (String::from_utf8(field.name.to_vec()).unwrap(), field.value.to_vec()))
                    .collect();
                prop_assert_eq!(&read, &expected);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _any = read_all(&bytes);
        }
    }
}
