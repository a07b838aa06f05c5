//! OCSF's attributes as nested columns: an object is an optional group, a list is Parquet's list of
//! three levels, and what has no shape of its own is a JSON text.
//!
//! The columns are those of [`SHAPE`], the attributes of all classes that the form knows, so one
//! file holds events of all classes. An event with an attribute that has no column is an error, never a
//! file without it.

use custody_event::ocsf::{self, Attribute, SHAPE, Shape};
use serde_json::Value;

use super::super::ExportError;
use super::super::cells::Holds;
use super::column::{Gathered, Leaf};
use super::thrift::Writer;
use super::{OPTIONAL, count};

const REPEATED: i32 = 2;
const LIST: i32 = 3;
/// Levels of a list on the way to its items: the list may be absent, it repeats, an item may be
/// absent.
const LIST_LEVELS: u8 = 3;

fn holds(shape: &Shape) -> Holds {
    match shape {
        Shape::Int => Holds::Int,
        Shape::Bool => Holds::Bool,
        Shape::Text => Holds::Text,
        Shape::Any | Shape::Object(_) | Shape::List(_) => Holds::Json,
    }
}

/// The columns, in their order.
pub(super) fn leaves() -> Vec<Leaf> {
    let root = Leaf { path: Vec::new(), holds: Holds::Json, defined: 0, repeats: 0 };
    let mut out = Vec::new();
    children(SHAPE, &root, &mut out);
    out
}

fn children(attributes: &[Attribute], around: &Leaf, out: &mut Vec<Leaf>) {
    for (name, shape) in attributes {
        let mut here = around.clone();
        here.path.push(name);
        here.defined += 1;
        column(shape, here, out);
    }
}

/// `here` is the place itself; its own being there is counted already.
fn column(shape: &Shape, mut here: Leaf, out: &mut Vec<Leaf>) {
    match shape {
        Shape::Object(attributes) => children(attributes, &here, out),
        Shape::List(item) => {
            here.path.extend(["list", "element"]);
            here.defined += LIST_LEVELS - 1;
            here.repeats += 1;
            column(item, here, out);
        }
        leaf => out.push(Leaf { holds: holds(leaf), ..here }),
    }
}

/// How many elements the schema has below its root, and how many of them just below it.
pub(super) fn size() -> (usize, usize) {
    (SHAPE.iter().map(|(_, shape)| elements(shape)).sum(), SHAPE.len())
}

fn elements(shape: &Shape) -> usize {
    match shape {
        Shape::Object(attributes) => {
            1 + attributes.iter().map(|(_, shape)| elements(shape)).sum::<usize>()
        }
        Shape::List(item) => 2 + elements(item),
        _ => 1,
    }
}

/// The schema's elements, depth first.
pub(super) fn schema(out: &mut Writer) {
    SHAPE.iter().for_each(|(name, shape)| element(name, shape, out));
}

fn element(name: &str, shape: &Shape, out: &mut Writer) {
    match shape {
        Shape::Object(attributes) => {
            out.element(|group| {
                group.i32(3, OPTIONAL);
                group.bytes(4, name.as_bytes());
                group.i32(5, count(attributes.len()));
            });
            attributes.iter().for_each(|(name, shape)| element(name, shape, out));
        }
        Shape::List(item) => {
            out.element(|list| {
                list.i32(3, OPTIONAL);
                list.bytes(4, name.as_bytes());
                list.i32(5, 1);
                list.i32(6, LIST);
                list.within(10, |logical| logical.within(3, |_| {}));
            });
            out.element(|items| {
                items.i32(3, REPEATED);
                items.bytes(4, b"list");
                items.i32(5, 1);
            });
            element("element", item, out);
        }
        leaf => out.element(|element| super::leaf(name, holds(leaf), element)),
    }
}

/// Puts an event into the columns; says how many bytes that took.
pub(super) fn take(event: &[u8], leaves: &mut [Gathered]) -> Result<usize, ExportError> {
    let form = ocsf::form(event).map_err(|error| ExportError::Event(error.to_string()))?;
    if let Some(path) = ocsf::stray(&form) {
        return Err(ExportError::Event(format!("there is no column for OCSF's {path}")));
    }
    let mut shred = Shred { leaves, at: 0, bytes: 0 };
    shred.object(SHAPE, Some(&form), 0, 0);
    Ok(shred.bytes)
}

/// Walks columns and event together: every column gets an entry, or one for each item of a list.
struct Shred<'a> {
    leaves: &'a mut [Gathered],
    /// The next column.
    at: usize,
    bytes: usize,
}

impl Shred<'_> {
    /// `defined`: how much of the path there is, the object's own place included.
    fn object(
        &mut self,
        attributes: &[Attribute],
        value: Option<&Value>,
        repeats: u8,
        defined: u8,
    ) {
        for (name, shape) in attributes {
            self.place(shape, value.and_then(|value| value.get(name)), repeats, defined);
        }
    }

    /// `defined`: how much of the path there is before this place.
    fn place(&mut self, shape: &Shape, value: Option<&Value>, repeats: u8, defined: u8) {
        let here = defined + u8::from(value.is_some());
        match (shape, value) {
            (Shape::Object(attributes), value) => self.object(attributes, value, repeats, here),
            (Shape::List(item), value) => {
                let items = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                if items.is_empty() {
                    return self.place(item, None, repeats, here);
                }
                let first = self.at;
                for (number, value) in items.iter().enumerate() {
                    self.at = first;
                    // No list holds lists: within one, what repeats is always the first level.
                    let repeats = if number == 0 { repeats } else { 1 };
                    self.place(item, Some(value), repeats, here + 1);
                }
            }
            (_, value) => {
                let leaf = &mut self.leaves[self.at];
                self.bytes += match value {
                    Some(value) => leaf.value(repeats, value),
                    None => leaf.nothing(repeats, here),
                };
                self.at += 1;
            }
        }
    }
}
