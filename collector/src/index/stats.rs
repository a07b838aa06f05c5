//! Counts by value and by span of time, from postings and the time column alone.

use std::collections::{BTreeMap, HashMap};

use custody_event::Timestamp;
use tantivy::postings::BlockSegmentPostings;
use tantivy::query::Weight;
use tantivy::schema::IndexRecordOption;
use tantivy::{COLLECT_BLOCK_BUFFER_LEN, DocId, TantivyError};

use super::schema::Fields;
use super::segments::{Scan, Segment, Times};
use super::terms::Tag;
use super::{IndexError, Stats, StatsRequest};

/// Values in an answer, at most.
pub(super) const MAX_GROUPS: usize = 1_000;
/// Values that are kept while counting; beyond, new ones are not begun.
const MAX_KEPT: usize = 200_000;

/// Documents of one segment.
struct Docs {
    bits: Vec<u64>,
    count: u64,
}

impl Docs {
    fn has(&self, doc: DocId) -> bool {
        let (word, bit) = split(doc);
        self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }
}

fn split(doc: DocId) -> (usize, u64) {
    (usize::try_from(doc / 64).unwrap_or(usize::MAX), 1 << (doc % 64))
}

pub(super) fn count(
    scan: &Scan<'_>,
    request: &StatsRequest,
    fields: &Fields,
) -> Result<Stats, IndexError> {
    let times = Times::new(request.filter.from, request.filter.to);
    let mut stats = Stats::default();
    let mut groups: HashMap<String, u64> = HashMap::new();
    let mut spans: BTreeMap<i64, u64> = BTreeMap::new();
    scan.each(|segment, weight| {
        let docs = matching(segment, weight, &times, request.interval_micros, &mut spans)?;
        stats.total += docs.count;
        match request.group_by {
            Some(tag) => group(segment, &docs, tag, fields, &mut groups),
            None => Ok(()),
        }
    })?;
    stats.groups = groups.into_iter().collect();
    stats.groups.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    stats.groups.truncate(MAX_GROUPS);
    stats.spans =
        spans.into_iter().map(|(start, count)| (Timestamp::from_micros(start), count)).collect();
    Ok(stats)
}

fn matching(
    segment: &Segment,
    weight: &dyn Weight,
    times: &Times,
    interval: Option<i64>,
    spans: &mut BTreeMap<i64, u64>,
) -> Result<Docs, IndexError> {
    let words = usize::try_from(segment.docs().div_ceil(64)).unwrap_or_default();
    let mut docs = Docs { bits: vec![0; words], count: 0 };
    let mut buffer = [0_i64; COLLECT_BLOCK_BUFFER_LEN];
    // Neighbours in the log mostly fall in one span: one look at the map for each run of them.
    let mut run: Option<(i64, u64)> = None;
    weight.for_each_no_score(&segment.reader, &mut |found: &[DocId]| {
        let buffer = &mut buffer[..found.len()];
        segment.times.get_vals(found, buffer);
        for (doc, time) in found.iter().zip(buffer.iter()) {
            if !times.contains(*time) {
                continue;
            }
            docs.count += 1;
            let (word, bit) = split(*doc);
            docs.bits[word] |= bit;
            if let Some(interval) = interval {
                let start = time.div_euclid(interval) * interval;
                match &mut run {
                    Some((of, count)) if *of == start => *count += 1,
                    other => {
                        if let Some((of, count)) = other.replace((start, 1)) {
                            *spans.entry(of).or_default() += count;
                        }
                    }
                }
            }
        }
    })?;
    if let Some((of, count)) = run {
        *spans.entry(of).or_default() += count;
    }
    Ok(docs)
}

fn group(
    segment: &Segment,
    docs: &Docs,
    tag: Tag,
    fields: &Fields,
    groups: &mut HashMap<String, u64>,
) -> Result<(), IndexError> {
    if docs.count == 0 {
        return Ok(());
    }
    let all = docs.count == u64::from(segment.docs());
    let inverted = segment.reader.inverted_index(fields.terms)?;
    let prefix = tag.letter().to_string();
    let mut terms = inverted
        .terms()
        .range()
        .ge(prefix.as_bytes())
        .lt([prefix.as_bytes(), &[0xff]].concat())
        .into_stream()
        .map_err(TantivyError::from)?;
    while terms.advance() {
        let info = terms.value();
        let count = match all {
            true => u64::from(info.doc_freq),
            false => {
                let postings = inverted
                    .read_block_postings_from_terminfo(info, IndexRecordOption::Basic)
                    .map_err(TantivyError::from)?;
                among(postings, docs)
            }
        };
        let value = std::str::from_utf8(&terms.key()[1..]).unwrap_or_default();
        if count == 0 {
            continue;
        }
        let room = groups.len() < MAX_KEPT;
        if let Some(sum) = groups.get_mut(value) {
            *sum += count;
        } else if room {
            groups.insert(value.to_owned(), count);
        }
    }
    Ok(())
}

fn among(mut postings: BlockSegmentPostings, docs: &Docs) -> u64 {
    let mut count = 0;
    while !postings.docs().is_empty() {
        count += postings.docs().iter().filter(|doc| docs.has(**doc)).map(|_| 1).sum::<u64>();
        postings.advance();
    }
    count
}
