//! CSV (RFC 4180): UTF-8, CRLF, a header, quotes where they are needed.
//!
//! A cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return is taken by spreadsheets
//! for a formula, and what stands in a log is written by anybody: such a cell gets an apostrophe
//! before it. A NUL, which many readers stop at, is written `\u0000`.

use super::cells::{self, Column};
use super::{ExportError, Form, Part};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// See the module.
pub(super) struct Csv {
    bom: bool,
    columns: Vec<Column>,
    line: Vec<u8>,
}

impl Csv {
    pub(super) fn new(bom: bool) -> Self {
        Self { bom, columns: Column::all(), line: Vec::new() }
    }
}

impl Form for Csv {
    fn begin(&mut self, out: &mut Part) -> Result<(), ExportError> {
        if self.bom {
            out.put(BOM)?;
        }
        let names: Vec<&str> = self.columns.iter().map(|column| column.name()).collect();
        out.put(names.join(",").as_bytes())?;
        out.put(b"\r\n")
    }

    fn row(&mut self, event: &[u8], out: &mut Part) -> Result<(), ExportError> {
        let event = cells::read(event)?;
        self.line.clear();
        for (at, column) in self.columns.iter().enumerate() {
            if at > 0 {
                self.line.push(b',');
            }
            if let Some(value) = column.of(&event) {
                push_cell(&cells::text(column.holds(), value), &mut self.line);
            }
        }
        self.line.extend_from_slice(b"\r\n");
        out.put(&self.line)
    }
}

fn push_cell(text: &str, out: &mut Vec<u8>) {
    let defused = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let bare = !text.contains(['"', ',', '\r', '\n', '\0'])
        && !text.starts_with(' ')
        && !text.ends_with(' ');
    if bare {
        if defused {
            out.push(b'\'');
        }
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    if defused {
        out.push(b'\'');
    }
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\"\""),
            0 => out.extend_from_slice(b"\\u0000"),
            other => out.push(other),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str) -> String {
        let mut out = Vec::new();
        push_cell(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_cell_of_a_log_is_no_formula_and_no_second_cell() {
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\r\nlines", "\"two\r\nlines\""),
            ("two\nlines", "\"two\nlines\""),
            (" kept ", "\" kept \""),
            ("=HYPERLINK(\"http://x\",\"y\")", "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("1=1", "1=1"),
            ("管理者, José", "\"管理者, José\""),
            ("a\0b", "\"a\\u0000b\""),
        ] {
            assert_eq!(cell(text), expected, "{text:?}");
        }
    }
}
