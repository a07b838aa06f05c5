//! What is wrong with a pack, where, and what to do about it.

use std::fmt;

use thiserror::Error;

/// One thing that is wrong (or, as a warning, doubtful) in a pack.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct PackError {
    /// File, as its source was named.
    pub file: String,
    /// Line, from 1; 0 where the place is not known.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// All that is wrong with a set of packs, at least one thing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct PackErrors(pub Vec<PackError>);

impl fmt::Display for PackErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

/// The name among `known` that is most like `name`, if one is at all like it.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= candidate.len().max(name.len()) / 3)
        .map(|(_, candidate)| candidate)
}

/// A hint that names the nearest, or lists all.
pub(crate) fn hint(name: &str, known: &[&str]) -> Option<String> {
    match nearest(name, known.iter().copied()) {
        Some(nearest) => Some(format!("did you mean `{nearest}`?")),
        None if known.len() <= 24 && !known.is_empty() => {
            Some(format!("known: {}", known.join(", ")))
        }
        None => None,
    }
}

/// Edit distance (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (to, b) in right.iter().enumerate() {
            let cost = diagonal + usize::from(a != *b);
            diagonal = row[to + 1];
            row[to + 1] = cost.min(row[to] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_its_word() {
        assert_eq!(nearest("actor.nam", ["actor.name", "action"]), Some("actor.name"));
        assert_eq!(nearest("zzz", ["actor.name", "action"]), None);
    }
}
