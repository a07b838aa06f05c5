//! One row of separated values (RFC 4180), its columns named by the pack.
//!
//! ```yaml
//! decode: csv
//! csv: { columns: [time, user, _, action], delimiter: ';' }
//! ```
//! A cell in quotes may hold the delimiter and `""` for a quote. A column called `_` is left out. A
//! row may be shorter than the list of columns (what is missing is absent), but not longer, and it
//! must have at least two cells. The header row is a row like any other: a rule drops it
//! (`when: { csv.user: user }`, `drop: header`).

use std::borrow::Cow;

use super::build::Builder;
use super::json::Tape;

const SHORT: &str = "not a row of separated values: only one cell";
const LONG: &str = "a row with more cells than the pack has columns";
const QUOTE: &str = "a row with a quote that does not end its cell";

/// `csv:` of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Names of the columns, in order; `_` for one that is not wanted.
    pub(crate) columns: Box<[Box<str>]>,
    /// Between cells (ASCII).
    pub(crate) delimiter: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self { columns: Box::new([]), delimiter: b',' }
    }
}

/// Reads a whole row.
pub(crate) fn read(text: &str, settings: &Settings, tape: &mut Tape) -> Result<(), &'static str> {
    let mut out = Builder::new(tape, text)?;
    let mut rest = Some(text.trim_end_matches(['\r', '\n']));
    let mut count = 0_usize;
    while let Some(row) = rest {
        let (cell, after) = cell(row, settings.delimiter)?;
        let column = settings.columns.get(count).ok_or(LONG)?;
        if &**column != "_" {
            out.put(column, &cell)?;
        }
        count += 1;
        rest = after;
    }
    if count < 2 {
        return Err(SHORT);
    }
    out.finish();
    Ok(())
}

/// The first cell, and what is after its delimiter; `None` where the row ends.
fn cell(row: &str, delimiter: u8) -> Result<(Cow<'_, str>, Option<&str>), &'static str> {
    let Some(inner) = row.strip_prefix('"') else {
        return Ok(match memchr::memchr(delimiter, row.as_bytes()) {
            Some(at) => (Cow::Borrowed(&row[..at]), Some(&row[at + 1..])),
            None => (Cow::Borrowed(row), None),
        });
    };
    let bytes = inner.as_bytes();
    let mut at = 0;
    let mut doubled = false;
    loop {
        at += memchr::memchr(b'"', bytes.get(at..).unwrap_or_default()).ok_or(QUOTE)?;
        if bytes.get(at + 1) != Some(&b'"') {
            break;
        }
        doubled = true;
        at += 2;
    }
    let text = &inner[..at];
    let cell = if doubled { Cow::Owned(text.replace("\"\"", "\"")) } else { Cow::Borrowed(text) };
    match bytes.get(at + 1) {
        None => Ok((cell, None)),
        Some(byte) if *byte == delimiter => Ok((cell, Some(&inner[at + 2..]))),
        Some(_) => Err(QUOTE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::fields;
    use proptest::prelude::*;
    use serde_json::json;

    fn settings(columns: &[&str], delimiter: u8) -> Settings {
        Settings { columns: columns.iter().map(|name| (*name).into()).collect(), delimiter }
    }

    #[test]
    fn quotes_doubled_quotes_and_short_rows() {
        let settings = settings(&["a", "_", "b", "c"], b';');
        let fields = |text: &str| fields(text, |text, tape| read(text, &settings, tape));
        assert_eq!(fields("x;y;\"1;\"\"2\"\"\"\r"), Ok(json!({"a":"x","b":"1;\"2\""})));
        assert_eq!(fields(";;;"), Ok(json!({"a":"","b":"","c":""})));
        assert_eq!(fields("x"), Err(SHORT));
        assert_eq!(fields("1;2;3;4;5"), Err(LONG));
        assert_eq!(fields("\"1;2;3"), Err(QUOTE));
        assert_eq!(fields("\"1\"2;3"), Err(QUOTE));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let settings = settings(&["a", "b", "c", "_", "d"], b',');
            let _ = fields(&text, |text, tape| read(text, &settings, tape));
        }

        #[test]
        fn what_was_written_is_read(cells in proptest::collection::vec(any::<String>(), 2..6)) {
            let settings = settings(&["0", "1", "2", "3", "4"], b',');
            let row: Vec<String> =
                cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
            let wanted: serde_json::Map<String, serde_json::Value> = cells
                .iter()
                .enumerate()
                .map(|(at, cell)| (at.to_string(), cell.as_str().into()))
                .collect();
            prop_assert_eq!(fields(&row.join(","), |text, tape| read(text, &settings, tape)), Ok(wanted.into()));
        }
    }
}
