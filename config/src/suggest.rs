//! "Did you mean": the nearest of the known words.

/// The known word nearest to `word`, if it is near enough to be a slip of the hand.
///
/// Near enough means: at most a third of the longer word's letters differ (two neighbours swapped count once),
/// or one of the two begins with the other.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = normal(word);
    known
        .into_iter()
        .map(|candidate| (distance(&wanted, &normal(candidate)), candidate))
        .filter(|(steps, candidate)| near(&wanted, &normal(candidate), *steps))
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, candidate)| candidate)
}

/// Letters that people mix up: case, and the signs between words.
fn normal(word: &str) -> Vec<char> {
    word.chars()
        .take(64)
        .map(|c| if c == '-' || c == ' ' { '_' } else { c.to_ascii_lowercase() })
        .collect()
}

fn near(a: &[char], b: &[char], steps: usize) -> bool {
    let longer = a.len().max(b.len());
    let shorter = a.len().min(b.len());
    steps * 3 <= longer || (shorter >= 3 && (a.starts_with(b) || b.starts_with(a)))
}

/// Edit distance with neighbour swaps (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(x != y);
            let mut best = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_hand_is_recognised_and_a_different_word_is_not() {
        let known = ["sources", "outputs", "spool", "data_dir", "labels"];
        assert_eq!(nearest("sourcs", known), Some("sources"));
        assert_eq!(nearest("souces", known), Some("sources"));
        assert_eq!(nearest("uotputs", known), Some("outputs"));
        assert_eq!(nearest("data-dir", known), Some("data_dir"));
        assert_eq!(nearest("DataDir", known), Some("data_dir"));
        assert_eq!(nearest("label", known), Some("labels"));
        assert_eq!(nearest("webserver", known), None);
        assert_eq!(nearest("", known), None);
    }
}
