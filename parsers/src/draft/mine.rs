//! Which lines are the same sentence with other words in it: clusters of lines, one word at a time.
//!
//! The method is that of Drain (He, Zhu, Zheng, Lyu 2017): lines of equally many words that begin
//! alike are compared word by word, and a line joins the cluster that it resembles most. Here words
//! with digits, quotes or an `=` are taken for values from the start.
//!
//! **Limits.** At most [`MAX_CLUSTERS`]; lines beyond that, and lines of more than [`MAX_WORDS`]
//! words, join nothing. Each cluster keeps [`MAX_SAMPLES`] lines that differ.

use std::collections::HashMap;

pub(super) const MAX_CLUSTERS: usize = 400;
pub(super) const MAX_WORDS: usize = 120;
pub(super) const MAX_SAMPLES: usize = 40;
/// Of its words, so many must be alike, in hundredths.
const ALIKE: usize = 60;

/// Lines that are one sentence.
#[derive(Debug)]
pub(super) struct Cluster {
    /// What its lines' words look like; `None` where they differ.
    shapes: Vec<Option<String>>,
    /// Some of the lines, as the caller numbered them.
    pub(super) samples: Vec<usize>,
    /// How many lines.
    pub(super) count: usize,
}

/// All clusters, and where to look for a line's.
#[derive(Debug, Default)]
pub(super) struct Miner {
    pub(super) clusters: Vec<Cluster>,
    by_start: HashMap<(usize, String), Vec<usize>>,
}

/// The words of a message: what stands between single spaces, quotes kept together.
pub(super) fn words(message: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut from = 0;
    let mut quoted = false;
    for (at, byte) in message.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b' ' if !quoted => {
                words.push(&message[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    if quoted {
        // A quote that never ends holds nothing together.
        return message.split(' ').collect();
    }
    words.push(&message[from..]);
    words
}

/// What a word looks like: runs with a digit as `#`, what is quoted or follows `=` as `*`.
fn shape(word: &str) -> String {
    if let Some((key, _)) = word.split_once('=')
        && !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    {
        return format!("{key}=*");
    }
    if word.contains('"') {
        return "*".to_owned();
    }
    let mut shape = String::with_capacity(word.len());
    for run in word.split_inclusive(|letter: char| !letter.is_alphanumeric()) {
        let body = run.trim_end_matches(|letter: char| !letter.is_alphanumeric());
        match body.bytes().any(|byte| byte.is_ascii_digit()) {
            true => shape.push('#'),
            false => shape.push_str(body),
        }
        shape.push_str(&run[body.len()..]);
    }
    shape
}

/// Does it hold a value?
fn varies(shape: &str) -> bool {
    shape.contains(['#', '*'])
}

impl Miner {
    /// Adds a line; `number` is the caller's.
    pub(super) fn add(&mut self, message: &str, number: usize) {
        let words = words(message);
        if words.len() > MAX_WORDS {
            return;
        }
        let shapes: Vec<String> = words.iter().map(|word| shape(word)).collect();
        let start = match shapes.first() {
            Some(first) if !varies(first) => first.clone(),
            _ => "*".to_owned(),
        };
        let candidates = self.by_start.entry((shapes.len(), start)).or_default();
        let best = candidates
            .iter()
            .map(|at| (self.clusters[*at].likeness(&shapes), *at))
            .max_by_key(|(likeness, at)| (*likeness, usize::MAX - at));
        match best {
            Some((likeness, at)) if likeness * 100 >= ALIKE * shapes.len() => {
                self.clusters[at].join(&shapes, number);
            }
            _ if self.clusters.len() < MAX_CLUSTERS => {
                candidates.push(self.clusters.len());
                self.clusters.push(Cluster {
                    shapes: shapes.into_iter().map(Some).collect(),
                    samples: vec![number],
                    count: 1,
                });
            }
            _ => {}
        }
    }
}

impl Cluster {
    /// How many words are alike; words that differ already count half.
    fn likeness(&self, shapes: &[String]) -> usize {
        let same = |(mine, other): (&Option<String>, &String)| match mine {
            Some(mine) if mine == other => 2,
            None => 1,
            Some(_) => 0,
        };
        self.shapes.iter().zip(shapes).map(same).sum::<usize>().div_ceil(2)
    }

    fn join(&mut self, shapes: &[String], number: usize) {
        for (mine, other) in self.shapes.iter_mut().zip(shapes) {
            if mine.as_ref().is_some_and(|mine| mine != other) {
                *mine = None;
            }
        }
        self.count += 1;
        // The first ones, and then every now and then one from further down.
        if self.samples.len() < MAX_SAMPLES && (self.count <= 20 || self.count.is_power_of_two()) {
            self.samples.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mined(lines: &[&str]) -> Vec<(usize, Vec<usize>)> {
        let mut miner = Miner::default();
        for (number, line) in lines.iter().enumerate() {
            miner.add(line, number);
        }
        miner.clusters.iter().map(|cluster| (cluster.count, cluster.samples.clone())).collect()
    }

    #[test]
    fn lines_that_are_one_sentence_come_together() {
        let found = mined(&[
            "user eva logged in from 203.0.113.7 port 22",
            "user bob logged in from 2001:db8::1 port 4022",
            "user eva changed setting theme",
            "user joe changed setting language",
            "started",
        ]);
        assert_eq!(found, [(2, vec![0, 1]), (2, vec![2, 3]), (1, vec![4])]);
    }

    #[test]
    fn quotes_hold_words_together_and_keys_name_values() {
        assert_eq!(words(r#"a "b c" d"#), ["a", r#""b c""#, "d"]);
        assert_eq!(words(r#"a "b c d"#), ["a", "\"b", "c", "d"]);
        assert_eq!(words("a  b"), ["a", "", "b"]);
        assert_eq!(shape("user=eva,"), "user=*");
        assert_eq!(shape("[203.0.113.7]:22"), "[#.#.#.#]:#");
        assert_eq!(shape("plain,"), "plain,");
    }
}
