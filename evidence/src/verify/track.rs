//! Numbers that should come one after the other: what is missing, late, or there again.

/// Ranges of missing numbers that are remembered; further ones are told at once.
const MAX_RANGES: usize = 1_000;

/// How a number stands to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is the next.
    Next,
    /// Those before it were skipped.
    Skipped,
    /// It had been skipped.
    Late,
    /// It was there.
    Again,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Track {
    first: Option<u64>,
    next: u64,
    missing: Vec<(u64, u64)>,
}

impl Track {
    /// Numbers that must begin with this one.
    pub(crate) fn from(first: u64) -> Self {
        Self { first: Some(first), next: first, missing: Vec::new() }
    }

    /// One beyond the highest number so far.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The first number.
    pub(crate) fn first(&self) -> u64 {
        self.first.unwrap_or_default()
    }

    /// Is it the next number, or one that was skipped?
    pub(crate) fn expects(&self, number: u64) -> bool {
        let skipped = |(from, to): &(u64, u64)| (*from..=*to).contains(&number);
        self.first.is_none() || number == self.next || self.missing.iter().any(skipped)
    }

    pub(crate) fn step(&mut self, number: u64) -> Step {
        if self.first.is_none() {
            *self = Self::from(number);
        }
        if number == self.next {
            self.next = number.saturating_add(1);
            return Step::Next;
        }
        if number > self.next {
            if self.missing.len() < MAX_RANGES {
                self.missing.push((self.next, number - 1));
            }
            self.next = number.saturating_add(1);
            return Step::Skipped;
        }
        let Some(at) = self.missing.iter().position(|(a, b)| (*a..=*b).contains(&number)) else {
            return Step::Again;
        };
        let (from, to) = self.missing.remove(at);
        if number < to {
            self.missing.insert(at, (number + 1, to));
        }
        if number > from {
            self.missing.insert(at, (from, number - 1));
        }
        Step::Late
    }

    /// What is missing between the first and the last.
    pub(crate) fn missing(&self) -> &[(u64, u64)] {
        &self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_late_and_repeated_numbers_are_told_apart() {
        let mut track = Track::from(0);
        let steps: Vec<Step> = [0, 1, 5, 3, 3, 6, 2, 0].map(|n| track.step(n)).into();
        use Step::{Again, Late, Next, Skipped};
        assert_eq!(steps, [Next, Next, Skipped, Late, Again, Next, Late, Again]);
        assert_eq!(track.missing(), [(4, 4)]);
        assert_eq!((track.first(), track.next()), (0, 7));
    }
}
