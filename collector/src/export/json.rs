//! JSON (one array) and NDJSON (a line each): the canonical bytes as the evidence has them, or the
//! events in the words of another schema, keys sorted.

use serde_json::Value;

use super::{ExportError, Form, Part, Totals, Words};

/// A line each.
pub(super) struct Ndjson(pub(super) Words);

impl Form for Ndjson {
    fn begin(&mut self, _out: &mut Part) -> Result<(), ExportError> {
        Ok(())
    }

    fn row(&mut self, event: &[u8], out: &mut Part) -> Result<(), ExportError> {
        out.put(&self.0.of(event)?)?;
        out.put(b"\n")
    }
}

/// One array, an event a line.
pub(super) struct Json {
    words: Words,
    some: bool,
}

impl Json {
    pub(super) fn new(words: Words) -> Self {
        Self { words, some: false }
    }
}

impl Form for Json {
    fn begin(&mut self, out: &mut Part) -> Result<(), ExportError> {
        out.put(b"[")
    }

    fn row(&mut self, event: &[u8], out: &mut Part) -> Result<(), ExportError> {
        out.put(if self.some { b",\n" } else { b"\n" })?;
        self.some = true;
        out.put(&self.words.of(event)?)
    }

    fn pause(&self) -> Option<Value> {
        Some(Value::Bool(self.some))
    }

    fn resume(&mut self, state: Value) -> Result<(), ExportError> {
        self.some = state == Value::Bool(true);
        Ok(())
    }

    fn end(&mut self, _totals: &Totals, out: &mut Part) -> Result<(), ExportError> {
        out.put(b"\n]\n")
    }
}
