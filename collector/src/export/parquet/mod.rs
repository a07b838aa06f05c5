//! Parquet: one flat table, a column for each field of the event (see [`super::cells`]), or the events
//! in OCSF's words with its objects and lists nested ([`tree`]).
//!
//! Written here because a file must be taken up again after a crash, which no writer at hand can
//! do, and because so little of the format is needed: optional columns, plain values, one page a
//! column and row group, zstd. Texts are UTF-8, integers 64 bits. Of the flat table `time` and `observed`
//! are microseconds UTC; lists and everything nested are JSON texts. OCSF's times are its own:
//! integers, milliseconds since 1970.
//!
//! A row group ends with [`GROUP_ROWS`] rows or [`GROUP_BYTES`], by the events alone; only between
//! two groups can the file be left. What is kept of each group (where its columns stand) is a few
//! kilobytes.

mod column;
#[cfg(test)]
mod tests;
mod thrift;
mod tree;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cells::{self, Column, Holds};
use super::{ExportError, Form, Heading, Part, Totals, Words, wide};
use column::{Chunk, Gathered, Leaf, Physical};
use thrift::{ELEMENT_I32, ELEMENT_TEXT, STRUCT, Writer};

const MAGIC: &[u8] = b"PAR1";
/// Rows of a group, at most.
pub(super) const GROUP_ROWS: u32 = 20_000;
const GROUP_BYTES: usize = 16 * 1024 * 1024;
const ZSTD: i32 = 6;
const OPTIONAL: i32 = 1;
const UTF8: i32 = 0;
const TIMESTAMP_MICROS: i32 = 10;

/// A row group that is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    rows: u32,
    chunks: Vec<Chunk>,
}

/// What the columns are.
enum Table {
    /// One for each field.
    Flat(Vec<Column>),
    /// OCSF's attributes.
    Ocsf,
}

/// See the module.
pub(super) struct Parquet {
    table: Table,
    leaves: Vec<Gathered>,
    group_rows: u32,
    rows: u32,
    bytes: usize,
    groups: Vec<Group>,
    about: Vec<(&'static str, String)>,
}

impl Parquet {
    pub(super) fn new(heading: &Heading, words: Words, group_rows: u32) -> Self {
        let mut about = vec![
            ("custody.name", heading.name.clone()),
            ("custody.query", heading.query.clone()),
            ("custody.from", heading.from.clone()),
            ("custody.to", heading.to.clone()),
            ("custody.log", heading.origin.clone()),
            ("custody.checkpoint", heading.checkpoint.clone()),
        ];
        let (table, leaves) = if words == Words::Ocsf {
            about.push(("ocsf.version", custody_event::ocsf::VERSION.to_owned()));
            (Table::Ocsf, tree::leaves())
        } else {
            let columns = Column::all();
            let leaves = columns.iter().map(|column| Leaf {
                path: vec![column.name()],
                holds: column.holds(),
                defined: 1,
                repeats: 0,
            });
            let leaves = leaves.collect();
            (Table::Flat(columns), leaves)
        };
        let leaves = leaves.into_iter().map(Gathered::new).collect();
        Self { table, leaves, group_rows, rows: 0, bytes: 0, groups: Vec::new(), about }
    }

    /// Puts an event into the columns; says how many bytes that took.
    fn take(&mut self, event: &[u8]) -> Result<usize, ExportError> {
        match &self.table {
            Table::Flat(columns) => {
                let event = cells::read(event)?;
                let each = columns.iter().zip(&mut self.leaves);
                Ok(each
                    .map(|(column, leaf)| match column.of(&event) {
                        Some(value) => leaf.value(0, value),
                        None => leaf.nothing(0, 0),
                    })
                    .sum())
            }
            Table::Ocsf => tree::take(event, &mut self.leaves),
        }
    }

    fn end_group(&mut self, out: &mut Part) -> Result<(), ExportError> {
        if self.rows == 0 {
            return Ok(());
        }
        let chunks: Result<Vec<_>, _> =
            self.leaves.iter_mut().map(|column| column.write(out)).collect();
        self.groups.push(Group { rows: self.rows, chunks: chunks? });
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    fn footer(&self, totals: &Totals) -> Vec<u8> {
        let mut footer = Writer::default();
        footer.element(|file| {
            file.i32(1, 2);
            self.schema(file);
            file.i64(3, signed(totals.rows));
            file.list(4, STRUCT, self.groups.len());
            for group in &self.groups {
                file.element(|element| self.group(group, element));
            }
            let content = ("custody.events_sha256", totals.content_sha256.clone());
            let about: Vec<_> = self.about.iter().chain([&content]).collect();
            file.list(5, STRUCT, about.len());
            for (key, value) in about {
                file.element(|pair| {
                    pair.bytes(1, key.as_bytes());
                    pair.bytes(2, value.as_bytes());
                });
            }
            file.bytes(6, concat!("custody ", env!("CARGO_PKG_VERSION")).as_bytes());
            // How numbers and texts compare: as their types say.
            file.list(7, STRUCT, self.leaves.len());
            for _ in &self.leaves {
                file.element(|order| order.within(1, |_| {}));
            }
        });
        footer.out
    }

    fn schema(&self, file: &mut Writer) {
        let (elements, children) = match self.table {
            Table::Flat(_) => (self.leaves.len(), self.leaves.len()),
            Table::Ocsf => tree::size(),
        };
        file.list(2, STRUCT, elements + 1);
        file.element(|root| {
            root.bytes(4, b"events");
            root.i32(5, count(children));
        });
        match self.table {
            Table::Flat(_) => {
                for column in &self.leaves {
                    file.element(|out| leaf(column.leaf.path[0], column.leaf.holds, out));
                }
            }
            Table::Ocsf => tree::schema(file),
        }
    }

    fn group(&self, group: &Group, out: &mut Writer) {
        let sum = |of: fn(&Chunk) -> u64| signed(group.chunks.iter().map(of).sum());
        out.list(1, STRUCT, group.chunks.len());
        for (column, chunk) in self.leaves.iter().zip(&group.chunks) {
            out.element(|element| {
                element.i64(2, 0);
                element.within(3, |data| column_data(&column.leaf, chunk, data));
            });
        }
        out.i64(2, sum(|chunk| chunk.unpacked));
        out.i64(3, i64::from(group.rows));
        out.i64(6, sum(|chunk| chunk.packed));
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The schema's element of a column.
fn leaf(name: &str, holds: Holds, out: &mut Writer) {
    let physical = Physical::of(holds);
    out.i32(1, physical.number());
    out.i32(3, OPTIONAL);
    out.bytes(4, name.as_bytes());
    match (holds, physical) {
        (Holds::Time, _) => {
            out.i32(6, TIMESTAMP_MICROS);
            out.within(10, |logical| {
                logical.within(8, |timestamp| {
                    timestamp.truth(1, true);
                    timestamp.within(2, |unit| unit.within(2, |_| {}));
                });
            });
        }
        (_, Physical::ByteArray) => {
            out.i32(6, UTF8);
            out.within(10, |logical| logical.within(1, |_| {}));
        }
        _ => {}
    }
}

fn column_data(column: &Leaf, chunk: &Chunk, out: &mut Writer) {
    out.i32(1, Physical::of(column.holds).number());
    out.list(2, ELEMENT_I32, 2);
    out.bare_i32(0);
    out.bare_i32(3);
    out.list(3, ELEMENT_TEXT, column.path.len());
    for name in &column.path {
        out.bare_bytes(name.as_bytes());
    }
    out.i32(4, ZSTD);
    out.i64(5, i64::from(chunk.entries));
    out.i64(6, signed(chunk.unpacked));
    out.i64(7, signed(chunk.packed));
    out.i64(9, signed(chunk.at));
    out.within(12, |statistics| {
        statistics.i64(3, signed(chunk.nulls));
        if let Some((least, greatest)) = chunk.span {
            statistics.bytes(5, &greatest.to_le_bytes());
            statistics.bytes(6, &least.to_le_bytes());
        }
    });
}

impl Form for Parquet {
    fn begin(&mut self, out: &mut Part) -> Result<(), ExportError> {
        out.put(MAGIC)
    }

    fn row(&mut self, event: &[u8], out: &mut Part) -> Result<(), ExportError> {
        self.bytes += self.take(event)?;
        self.rows += 1;
        if self.rows >= self.group_rows || self.bytes >= GROUP_BYTES {
            self.end_group(out)?;
        }
        Ok(())
    }

    fn pause(&self) -> Option<Value> {
        (self.rows == 0).then(|| serde_json::to_value(&self.groups).ok()).flatten()
    }

    fn resume(&mut self, state: Value) -> Result<(), ExportError> {
        self.groups =
            serde_json::from_value(state).map_err(|error| ExportError::Table(error.to_string()))?;
        Ok(())
    }

    fn end(&mut self, totals: &Totals, out: &mut Part) -> Result<(), ExportError> {
        self.end_group(out)?;
        let footer = self.footer(totals);
        out.put(&footer)?;
        let len = u32::try_from(wide(footer.len())).unwrap_or(u32::MAX);
        out.put(&len.to_le_bytes())?;
        out.put(MAGIC)
    }
}
