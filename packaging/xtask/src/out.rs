//! Words for the person at the terminal. A closed pipe is no reason to stop measuring.

use std::io::Write;

/// One line on standard output.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        // Nobody reads: `cargo xtask … | head`.
    }
}

/// One line on standard error.
pub(crate) fn warn(line: &str) {
    let mut out = std::io::stderr().lock();
    if writeln!(out, "{line}").is_err() {
        // Nobody reads.
    }
}

/// A table: the first row is the head; columns are as wide as their widest cell, all but the
/// first are right-aligned.
pub(crate) fn table(rows: &[Vec<String>]) {
    for line in layout(rows) {
        say(&line);
    }
}

fn layout(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    rows.iter().map(|row| lay_row(row, &widths)).collect()
}

fn lay_row(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
        if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows =
            vec![vec!["what".to_owned(), "n".to_owned()], vec!["a".to_owned(), "100".to_owned()]];
        assert_eq!(super::layout(&rows), ["what    n", "a     100"]);
    }
}
