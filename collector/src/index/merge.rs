//! Which segments are merged: only neighbours in the log, like sizes with like, none too big.
//!
//! A search visits every segment that its time range meets, so there must not be many; it looks
//! at every hit of a segment that it visits, so none may be large. With fan-in eight an event is
//! rewritten two or three times in all.

/// No merge makes a segment of more documents: a common word in one takes a few milliseconds.
pub const MAX_DOCS: u32 = 1_000_000;
/// A segment of so many is left as it is.
const FULL_DOCS: u32 = MAX_DOCS / 2;
/// Segments of one size that make a bigger one.
const FAN_IN: usize = 8;
/// Below this all segments are of the smallest size.
const FLOOR_DOCS: u32 = 64;

/// The size class of a segment: 0, then one more for each factor of [`FAN_IN`].
fn level(docs: u32) -> u32 {
    (docs / FLOOR_DOCS).max(1).ilog(8)
}

/// Of segments in the order of the log, with these sizes, the run to be merged next, if any: the
/// smallest size class that has [`FAN_IN`] neighbours of it or smaller.
pub(super) fn next_run(sizes: &[u32]) -> Option<std::ops::Range<usize>> {
    let highest = level(MAX_DOCS);
    (0..=highest).find_map(|up_to| run_up_to(sizes, up_to))
}

fn run_up_to(sizes: &[u32], up_to: u32) -> Option<std::ops::Range<usize>> {
    let mut start = 0;
    while start < sizes.len() {
        let end = start + sizes[start..].iter().take_while(|docs| fits(**docs, up_to)).count();
        while end - start >= FAN_IN {
            let run = &sizes[start..start + bounded(&sizes[start..end])];
            if !is_dominated(run) {
                return Some(start..start + run.len());
            }
            start += 1;
        }
        start = end + 1;
    }
    None
}

/// Is the oldest as large as all others? Then merging them rewrites it for too little.
fn is_dominated(run: &[u32]) -> bool {
    let sum = |run: &[u32]| run.iter().map(|docs| u64::from(*docs)).sum::<u64>();
    run.split_first().is_some_and(|(oldest, rest)| u64::from(*oldest) > sum(rest))
}

fn fits(docs: u32, up_to: u32) -> bool {
    docs < FULL_DOCS && level(docs) <= up_to
}

/// How many of a run, from the oldest, stay within the largest size; at least two, as none of
/// them is full.
fn bounded(run: &[u32]) -> usize {
    let mut sum = 0_u32;
    run.iter()
        .take(FAN_IN * 2)
        .take_while(|docs| {
            sum = sum.saturating_add(**docs);
            sum <= MAX_DOCS
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settle(sizes: &mut Vec<u32>) -> u64 {
        let mut rewritten = 0;
        while let Some(run) = next_run(sizes) {
            let sum: u32 = sizes[run.clone()].iter().sum();
            rewritten += u64::from(sum);
            sizes.splice(run, [sum]);
        }
        rewritten
    }

    #[test]
    fn ten_million_events_settle_in_few_segments_and_few_rewrites() {
        let mut sizes = Vec::new();
        let mut rewritten = 0;
        for _ in 0..400 {
            sizes.push(25_000);
            rewritten += settle(&mut sizes);
        }
        assert!(sizes.len() <= 40, "{sizes:?}");
        assert!(rewritten <= 30_000_000, "{rewritten}");
    }

    #[test]
    fn one_event_at_a_time_settles_too() {
        let mut sizes = Vec::new();
        let mut rewritten = 0;
        for _ in 0..5_000 {
            sizes.push(1);
            rewritten += settle(&mut sizes);
        }
        assert!(sizes.len() <= 32, "{}", sizes.len());
        assert!(rewritten < 5_000 * 10, "{rewritten}");
    }

    proptest! {
        #[test]
        fn a_merge_is_of_neighbours_and_never_too_big(
            sizes in proptest::collection::vec(1_u32..1_200_000, 0..60)
        ) {
            if let Some(run) = next_run(&sizes) {
                prop_assert!(run.len() >= 2);
                prop_assert!(sizes[run].iter().sum::<u32>() <= MAX_DOCS);
            }
            let mut sizes = sizes;
            settle(&mut sizes);
        }
    }
}
