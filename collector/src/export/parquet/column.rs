//! One column of a row group, while it is gathered.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::cells::{self, Column, Holds};
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
    pub(super) nulls: u64,
    /// The least and the greatest number.
    pub(super) span: Option<(i64, i64)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) column: Column,
    holds: Holds,
    /// Runs of rows with (`true`) and without a value.
    runs: Vec<(bool, u32)>,
    values: Vec<u8>,
    truths: Vec<bool>,
    nulls: u64,
    span: Option<(i64, i64)>,
}

impl Gathered {
    pub(super) fn new(column: Column) -> Self {
        Self {
            column,
            holds: column.holds(),
            runs: Vec::new(),
            values: Vec::new(),
            truths: Vec::new(),
            nulls: 0,
            span: None,
        }
    }

    pub(super) fn holds(&self) -> Holds {
        self.holds
    }

    /// Takes a row's value; says how many bytes that took.
    pub(super) fn take(&mut self, event: &Value) -> usize {
        let before = self.values.len();
        let value = self.column.of(event).filter(|value| self.push(value)).is_some();
        if !value {
            self.nulls += 1;
        }
        match self.runs.last_mut() {
            Some((kind, run)) if *kind == value => *run += 1,
            _ => self.runs.push((value, 1)),
        }
        self.values.len() - before + 1
    }

    fn push(&mut self, value: &Value) -> bool {
        let number = match self.holds {
            Holds::Bool => {
                self.truths.extend(value.as_bool());
                return value.is_boolean();
            }
            Holds::Int => value.as_i64(),
            Holds::Time => cells::micros(value),
            Holds::Text | Holds::Json => return self.push_text(&cells::text(self.holds, value)),
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
    pub(super) fn write(&mut self, rows: u32, out: &mut Part) -> Result<Chunk, ExportError> {
        let page = self.page();
        let packed = zstd::bulk::compress(&page, LEVEL)
            .map_err(|error| ExportError::Event(format!("zstd: {error}")))?;
        let size = |bytes: &[u8]| i32::try_from(bytes.len()).unwrap_or(i32::MAX);
        let mut head = Writer::default();
        head.element(|head| {
            head.i32(1, DATA_PAGE);
            head.i32(2, size(&page));
            head.i32(3, size(&packed));
            head.within(5, |data| {
                data.i32(1, i32::try_from(rows).unwrap_or(i32::MAX));
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
            nulls: self.nulls,
            span: self.span,
        };
        *self = Self::new(self.column);
        Ok(chunk)
    }

    /// Definition levels (is there a value?), then the values.
    fn page(&mut self) -> Vec<u8> {
        let mut levels = Vec::new();
        for (kind, run) in &self.runs {
            let mut head = u64::from(*run) << 1;
            while head >= 0x80 {
                levels.push(u8::try_from(head & 0x7f).unwrap_or_default() | 0x80);
                head >>= 7;
            }
            levels.push(u8::try_from(head).unwrap_or_default());
            levels.push(u8::from(*kind));
        }
        let len = u32::try_from(levels.len()).unwrap_or(u32::MAX);
        let mut page = len.to_le_bytes().to_vec();
        page.append(&mut levels);
        page.append(&mut self.values);
        for eight in self.truths.chunks(8) {
            let bits = eight.iter().enumerate().map(|(at, truth)| u8::from(*truth) << at);
            page.push(bits.fold(0, |all, bit| all | bit));
        }
        page
    }
}
