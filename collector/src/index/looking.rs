//! Counting by looking: for conditions that the index alone cannot answer (phrases) each
//! candidate is read and asked. Slow, so it ends when its time is up, and says where.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use custody_event::{EventView, Timestamp};

use super::embedded::EmbeddedStore;
use super::segments::{Deadline, Scan, searched};
use super::stats::{MAX_KEPT, MAX_SPANS, sorted};
use super::{Direction, Facet, IndexError, Stats, StatsRequest};
use crate::query::filter::Findable;

/// Candidates that are read at once: some megabytes.
const BATCH: usize = 1_024;

/// What is counted.
struct Tally {
    total: u64,
    facets: Vec<(Facet, HashMap<String, u64>)>,
    spans: BTreeMap<i64, u64>,
}

impl EmbeddedStore {
    pub(super) fn count_by_looking(
        &self,
        scan: &mut Scan<'_>,
        request: &StatsRequest,
        deadline: &Deadline<'_>,
    ) -> Result<Stats, IndexError> {
        let asked = request.group_by.map(Facet::Tag).into_iter().chain(request.facets.clone());
        let mut tally = Tally {
            total: 0,
            facets: asked.map(|facet| (facet, HashMap::new())).collect(),
            spans: BTreeMap::new(),
        };
        let mut after = None;
        let mut cut = None;
        loop {
            let firsts = scan.first(BATCH, after.as_ref())?;
            for (key, event) in firsts.keys.iter().zip(self.events(&firsts.keys)?) {
                if let Some(event) = event {
                    tally.look(request, &event, key.time)?;
                }
            }
            after = firsts.keys.last().copied();
            let ended = firsts.ended.or_else(|| {
                let more = firsts.keys.len() == BATCH;
                after.filter(|_| more && deadline.is_over()).map(|key| key.time.micros())
            });
            if let Some(time) = ended {
                let time = searched(time, Direction::NewestFirst);
                cut = Some(deadline.cut(Direction::NewestFirst, time));
            }
            if cut.is_some() || firsts.keys.len() < BATCH {
                break;
            }
        }
        Ok(tally.into_stats(request, cut))
    }
}

impl Tally {
    fn look(
        &mut self,
        request: &StatsRequest,
        event: &[u8],
        time: Timestamp,
    ) -> Result<(), IndexError> {
        // The event as it may be seen: nothing else is compared or counted.
        let shown = request.filter.sight.show(event);
        let Ok(view) = EventView::read(&shown) else { return Ok(()) };
        let found = Findable::of(&view);
        if !request.filter.expr.matches(&found) {
            return Ok(());
        }
        self.total += 1;
        for (facet, counts) in &mut self.facets {
            let values: BTreeSet<&str> = found.values_of(facet).collect();
            for value in values {
                if let Some(count) = counts.get_mut(value) {
                    *count += 1;
                } else if counts.len() < MAX_KEPT {
                    counts.insert(value.to_owned(), 1);
                }
            }
        }
        if let Some(interval) = request.interval_micros {
            let start = time.micros().div_euclid(interval) * interval;
            *self.spans.entry(start).or_default() += 1;
            if self.spans.len() > MAX_SPANS {
                return Err(IndexError::Unsupported(super::stats::TOO_MANY_SPANS));
            }
        }
        Ok(())
    }

    fn into_stats(self, request: &StatsRequest, cut: Option<super::Cut>) -> Stats {
        let mut more_values = false;
        let more = &mut more_values;
        let mut facets: Vec<_> =
            self.facets.into_iter().map(|(_, counts)| sorted(counts, more)).collect();
        let groups = if request.group_by.is_some() { facets.remove(0) } else { Vec::new() };
        let spans = self.spans.into_iter().map(|(at, count)| (Timestamp::from_micros(at), count));
        Stats { total: self.total, groups, spans: spans.collect(), facets, more_values, cut }
    }
}
