//! One column of a row group, while it is gathered.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::cells::{self, Holds};
use super::super::{ExportError, Part, wide};
use super::thrift::Writer;

/// How much zstd tries: beyond, it costs more than it saves.
const LEVEL: i32 = 3;
const DATA_PAGE: i32 = 0;
const PLAIN: i32 = 0;
const RLE: i32 = 3;

/// What Parquet stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Physical {
    Boolean = 0,
    Int64 = 2,
    ByteArray = 6,
}

impl Physical {
    pub(super) fn of(holds: Holds) -> Self {
        match holds {
            Holds::Bool => Self::Boolean,
            Holds::Int | Holds::Time => Self::Int64,
            Holds::Text | Holds::Texts | Holds::Json => Self::ByteArray,
        }
    }

    pub(super) fn number(self) -> i32 {
        match self {
            Self::Boolean => 0,
            Self::Int64 => 2,
            Self::ByteArray => 6,
        }
    }
}

/// Where a column's page stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chunk {
    pub(super) at: u64,
    pub(super) packed: u64,
    pub(super) unpacked: u64,
    /// Values, and places without one.
    pub(super) entries: u32,
    pub(super) nulls: u64,
    /// The least and the greatest number.
    pub(super) span: Option<(i64, i64)>,
}

/// A column as the schema has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    /// Its path, from the root on.
    pub(super) path: Vec<&'static str>,
    pub(super) holds: Holds,
    /// How much of its path may be absent or repeats: the definition level of a value.
    pub(super) defined: u8,
    /// How much of its path repeats.
    pub(super) repeats: u8,
}

/// Levels, as runs of the same.
#[derive(Debug, Default)]
struct Levels(Vec<(u8, u32)>);

impl Levels {
    fn push(&mut self, level: u8) {
        match self.0.last_mut() {
            Some((last, run)) if *last == level => *run += 1,
            _ => self.0.push((level, 1)),
        }
    }

    /// Behind their length, each run as its length and its level in one byte: no level is above 255.
    fn write(&self, out: &mut Vec<u8>) {
        let mut runs = Vec::new();
        for (level, run) in &self.0 {
            let mut head = u64::from(*run) << 1;
            while head >= 0x80 {
                runs.push(u8::try_from(head & 0x7f).unwrap_or_default() | 0x80);
                head >>= 7;
            }
            runs.push(u8::try_from(head).unwrap_or_default());
            runs.push(*level);
        }
        let len = u32::try_from(runs.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&len.to_le_bytes());
        out.append(&mut runs);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) leaf: Leaf,
    repeats: Levels,
    defines: Levels,
    /// Values, and places without one.
    entries: u32,
    values: Vec<u8>,
    truths: Vec<bool>,
    nulls: u64,
    span: Option<(i64, i64)>,
}

impl Gathered {
    pub(super) fn new(leaf: Leaf) -> Self {
        Self {
            leaf,
            repeats: Levels::default(),
            defines: Levels::default(),
            entries: 0,
            values: Vec::new(),
            truths: Vec::new(),
            nulls: 0,
            span: None,
        }
    }

    /// Takes a value; says how many bytes that took.
    pub(super) fn value(&mut self, repeats: u8, value: &Value) -> usize {
        let before = self.values.len();
        if !self.push(value) {
            return self.nothing(repeats, self.leaf.defined - 1);
        }
        self.entry(repeats, self.leaf.defined);
        self.values.len() - before + 1
    }

    /// Takes that there is none; so much of its path is there.
    pub(super) fn nothing(&mut self, repeats: u8, defined: u8) -> usize {
        self.entry(repeats, defined);
        self.nulls += 1;
        1
    }

    fn entry(&mut self, repeats: u8, defined: u8) {
        self.repeats.push(repeats);
        self.defines.push(defined);
        self.entries += 1;
    }

    fn push(&mut self, value: &Value) -> bool {
        let number = match self.leaf.holds {
            Holds::Bool => {
                self.truths.extend(value.as_bool());
                return value.is_boolean();
            }
            Holds::Int => value.as_i64(),
            Holds::Time => cells::micros(value),
            Holds::Text | Holds::Json => {
                return self.push_text(&cells::text(self.leaf.holds, value));
            }
            // A list stays one: as JSON it can be taken apart in a query.
            Holds::Texts => return self.push_text(&value.to_string()),
        };
        let Some(number) = number else { return false };
        self.values.extend_from_slice(&number.to_le_bytes());
        let (least, greatest) = self.span.unwrap_or((number, number));
        self.span = Some((least.min(number), greatest.max(number)));
        true
    }

    fn push_text(&mut self, text: &str) -> bool {
        let Ok(len) = u32::try_from(text.len()) else { return false };
        self.values.extend_from_slice(&len.to_le_bytes());
        self.values.extend_from_slice(text.as_bytes());
        true
    }

    /// Writes the column as one page and begins anew.
    pub(super) fn write(&mut self, out: &mut Part) -> Result<Chunk, ExportError> {
        let page = self.page();
        let entries = i32::try_from(self.entries).unwrap_or(i32::MAX);
        let packed = zstd::bulk::compress(&page, LEVEL)
            .map_err(|error| ExportError::Event(format!("zstd: {error}")))?;
        let size = |bytes: &[u8]| i32::try_from(bytes.len()).unwrap_or(i32::MAX);
        let mut head = Writer::default();
        head.element(|head| {
            head.i32(1, DATA_PAGE);
            head.i32(2, size(&page));
            head.i32(3, size(&packed));
            head.within(5, |data| {
                data.i32(1, entries);
                data.i32(2, PLAIN);
                data.i32(3, RLE);
                data.i32(4, RLE);
            });
        });
        let at = out.len();
        out.put(&head.out)?;
        out.put(&packed)?;
        let chunk = Chunk {
            at,
            packed: out.len() - at,
            unpacked: wide(head.out.len() + page.len()),
            entries: self.entries,
            nulls: self.nulls,
            span: self.span,
        };
        *self = Self::new(self.leaf.clone());
        Ok(chunk)
    }

    /// Where something repeats, which entry begins anew; how much is there of each; then the values.
    fn page(&mut self) -> Vec<u8> {
        let mut page = Vec::new();
        if self.leaf.repeats > 0 {
            self.repeats.write(&mut page);
        }
        self.defines.write(&mut page);
        page.append(&mut self.values);
        for eight in self.truths.chunks(8) {
            let bits = eight.iter().enumerate().map(|(at, truth)| u8::from(*truth) << at);
            page.push(bits.fold(0, |all, bit| all | bit));
        }
        page
    }
}
