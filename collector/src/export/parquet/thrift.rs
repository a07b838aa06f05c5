//! As much of Thrift's compact protocol as a Parquet footer needs.

const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
/// The type of a struct, also as a list's element.
pub(super) const STRUCT: u8 = 12;
/// The type of a 32-bit integer as a list's element.
pub(super) const ELEMENT_I32: u8 = I32;
/// The type of a text as a list's element.
pub(super) const ELEMENT_TEXT: u8 = BINARY;

/// Writes structs field by field, ascending.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
    last: u8,
    around: Vec<u8>,
}

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
            value >>= 7;
        }
        self.out.push(u8::try_from(value).unwrap_or_default());
    }

    fn signed(&mut self, value: i64) {
        // Zigzag: the sign goes to the lowest bit.
        self.varint((value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned());
    }

    fn field(&mut self, id: u8, kind: u8) {
        // No struct of Parquet has a step of more than 15 between two fields that are written.
        self.out.push(id.saturating_sub(self.last) << 4 | kind);
        self.last = id;
    }

    pub(super) fn i32(&mut self, id: u8, value: i32) {
        self.field(id, I32);
        self.signed(i64::from(value));
    }

    pub(super) fn i64(&mut self, id: u8, value: i64) {
        self.field(id, I64);
        self.signed(value);
    }

    pub(super) fn truth(&mut self, id: u8, value: bool) {
        self.field(id, if value { 1 } else { 2 });
    }

    pub(super) fn bytes(&mut self, id: u8, value: &[u8]) {
        self.field(id, BINARY);
        self.bare_bytes(value);
    }

    /// A text as a list's element.
    pub(super) fn bare_bytes(&mut self, value: &[u8]) {
        self.varint(super::super::wide(value.len()));
        self.out.extend_from_slice(value);
    }

    /// An integer as a list's element.
    pub(super) fn bare_i32(&mut self, value: i32) {
        self.signed(i64::from(value));
    }

    /// A list's head; its elements follow.
    pub(super) fn list(&mut self, id: u8, element: u8, len: usize) {
        self.field(id, LIST);
        match u8::try_from(len) {
            Ok(short) if short < 15 => self.out.push(short << 4 | element),
            _ => {
                self.out.push(0xf0 | element);
                self.varint(super::super::wide(len));
            }
        }
    }

    /// A struct in a field.
    pub(super) fn within(&mut self, id: u8, write: impl FnOnce(&mut Self)) {
        self.field(id, STRUCT);
        self.element(write);
    }

    /// A struct as a list's element, or the outermost one.
    pub(super) fn element(&mut self, write: impl FnOnce(&mut Self)) {
        self.around.push(self.last);
        self.last = 0;
        write(self);
        self.out.push(0);
        self.last = self.around.pop().unwrap_or_default();
    }
}
