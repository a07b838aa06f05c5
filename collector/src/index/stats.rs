//! Counts by value and by span of time, from postings and the time column alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use custody_event::Timestamp;
use tantivy::postings::BlockSegmentPostings;
use tantivy::query::Weight;
use tantivy::schema::IndexRecordOption;
use tantivy::{COLLECT_BLOCK_BUFFER_LEN, DocId, TantivyError};

use super::schema::Fields;
use super::segments::{Scan, Segment, Times};
use super::terms;
use super::terms::Tag;
use super::{Counts, Facet, IndexError, Stats, StatsRequest, SuggestRequest, Suggested};

use crate::query::filter::is_hidden_path;

/// Values in an answer, at most.
pub(super) const MAX_GROUPS: usize = 1_000;
/// Values that are kept while counting; beyond, new ones are not begun.
pub(super) const MAX_KEPT: usize = 200_000;
/// Spans in an answer, at most.
pub(super) const MAX_SPANS: usize = 10_000;
pub(super) const TOO_MANY_SPANS: &str =
    "more than 10,000 spans; ask for longer ones, or for a shorter period";
/// Values that are looked at for a suggestion, in each segment.
const MAX_SUGGESTED: usize = 50_000;

impl Facet {
    /// May there be values that not everybody sees?
    pub(super) fn is_hidden(&self) -> bool {
        matches!(self, Self::Field(path) if is_hidden_path(path))
    }

    /// How its terms begin.
    fn start(&self) -> String {
        match self {
            Self::Tag(tag) => tag.letter().to_string(),
            Self::Field(path) => format!("{}{path}{}", Tag::Field.letter(), terms::AT),
        }
    }
}

/// The most frequent first; says in `more` if some are left out.
pub(super) fn sorted(counts: HashMap<String, u64>, more: &mut bool) -> Counts {
    let mut list: Counts = counts.into_iter().collect();
    *more |= list.len() > MAX_GROUPS;
    list.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    list.truncate(MAX_GROUPS);
    list
}

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
    let asked = request.group_by.map(Facet::Tag).into_iter().chain(request.facets.clone());
    let mut groups: Vec<(String, HashMap<String, u64>)> =
        asked.map(|facet| (facet.start(), HashMap::new())).collect();
    let mut spans: BTreeMap<i64, u64> = BTreeMap::new();
    stats.cut = scan.each(|segment, weight| {
        let docs = matching(segment, weight, &times, request.interval_micros, &mut spans)?;
        stats.total += docs.count;
        for (start, counts) in &mut groups {
            let mut room = usize::MAX;
            values(segment, &docs, start, "", &mut room, fields, counts)?;
        }
        if spans.len() > MAX_SPANS {
            return Err(IndexError::Unsupported(TOO_MANY_SPANS));
        }
        Ok(())
    })?;
    let more = &mut stats.more_values;
    let mut facets: Vec<Counts> =
        groups.into_iter().map(|(_, counts)| sorted(counts, more)).collect();
    if request.group_by.is_some() {
        stats.groups = facets.remove(0);
    }
    stats.facets = facets;
    stats.spans =
        spans.into_iter().map(|(start, count)| (Timestamp::from_micros(start), count)).collect();
    Ok(stats)
}

/// Values that begin so. What stands under several tags counts as often as under one of them.
pub(super) fn suggest(
    scan: &Scan<'_>,
    request: &SuggestRequest,
    fields: &Fields,
) -> Result<Suggested, IndexError> {
    let times = Times::new(request.filter.from, request.filter.to);
    let mut found: Vec<(String, HashMap<String, u64>)> =
        request.facets.iter().map(|facet| (facet.start(), HashMap::new())).collect();
    let mut all = true;
    let cut = scan.each(|segment, weight| {
        let docs = matching(segment, weight, &times, None, &mut BTreeMap::new())?;
        for (start, counts) in &mut found {
            let mut room = MAX_SUGGESTED;
            values(segment, &docs, start, &request.prefix, &mut room, fields, counts)?;
            all &= room > 0;
        }
        Ok(())
    })?;
    let mut counts: HashMap<String, u64> = HashMap::new();
    for (value, count) in found.into_iter().flat_map(|(_, counts)| counts) {
        let most = counts.entry(value).or_default();
        *most = count.max(*most);
    }
    let mut cut_off = false;
    let mut values = sorted(counts, &mut cut_off);
    let more = cut_off || cut.is_some() || !all || values.len() > request.limit;
    values.truncate(request.limit);
    Ok(Suggested { values, more })
}

/// Paths of fields that begin so, in order: from each path it is one step to the next.
pub(super) fn paths<'a>(
    segments: impl Iterator<Item = &'a Segment>,
    prefix: &str,
    limit: usize,
    fields: &Fields,
) -> Result<Vec<String>, IndexError> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    for segment in segments {
        let inverted = segment.reader.inverted_index(fields.terms)?;
        let mut from = format!("{}{prefix}", Tag::Field.letter()).into_bytes();
        let end = [from.as_slice(), &[0xff]].concat();
        // The same few names stand in every segment; the newest come first.
        for _ in 0..limit {
            let range = inverted.terms().range().ge(&from).lt(&end);
            let mut terms = range.into_stream().map_err(TantivyError::from)?;
            if !terms.advance() {
                break;
            }
            let Some(path) = std::str::from_utf8(&terms.key()[1..])
                .ok()
                .and_then(|term| term.split_once(terms::AT))
                .map(|(path, _)| path.to_owned())
            else {
                break;
            };
            from = format!("{}{path}\u{b}", Tag::Field.letter()).into_bytes();
            found.insert(path);
        }
        if found.len() >= limit {
            break;
        }
    }
    Ok(found.into_iter().take(limit).collect())
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

/// Counts the values whose terms begin with `start` and `prefix` into `counts`; looks at no more
/// than `room` of them.
fn values(
    segment: &Segment,
    docs: &Docs,
    start: &str,
    prefix: &str,
    room: &mut usize,
    fields: &Fields,
    counts: &mut HashMap<String, u64>,
) -> Result<(), IndexError> {
    if docs.count == 0 {
        return Ok(());
    }
    let all = docs.count == u64::from(segment.docs());
    let inverted = segment.reader.inverted_index(fields.terms)?;
    let first = [start.as_bytes(), prefix.as_bytes()].concat();
    let end = [first.as_slice(), &[0xff]].concat();
    let range = inverted.terms().range().ge(&first).lt(&end);
    let mut terms = range.into_stream().map_err(TantivyError::from)?;
    while *room > 0 && terms.advance() {
        *room -= 1;
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
        if count == 0 {
            continue;
        }
        let value = std::str::from_utf8(&terms.key()[start.len()..]).unwrap_or_default();
        if let Some(sum) = counts.get_mut(value) {
            *sum += count;
        } else if counts.len() < MAX_KEPT {
            counts.insert(value.to_owned(), count);
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
