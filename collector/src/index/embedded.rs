//! The embedded index's answers.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use custody_event::{Clock, EventId, EventView};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::blocks::{Blocks, OpenBlock};
use super::handle::Doing;
use super::lower::{is_everything, lower};
use super::partition::{Partition, Payload};
use super::schema::Fields;
use super::segments::{Deadline, Scan, Times, View, border, searched, short};
use super::{
    Cut, EventStore, Facet, Hit, HitKey, IndexError, IndexOptions, MAX_LIMIT, Page, SearchRequest,
    Stats, StatsRequest, SuggestRequest, Suggested, Total,
};
use crate::query::filter::Filter;
use crate::store::{BlockSource, LogCursor};

/// Counting beyond the page goes on for so long; then the total is "at least".
const TOTAL_BUDGET: Duration = Duration::from_millis(20);

/// What the runner shows and the store reads.
pub(super) struct Shared {
    partitions: RwLock<Arc<Vec<Shown>>>,
    pub(super) searchable: watch::Sender<LogCursor>,
    /// A search met an error of the engine: the runner should look at the files.
    pub(super) suspect: AtomicBool,
    /// What the runner is asked to do between blocks.
    /// `None` once it has ended.
    pub(super) requests: Mutex<Option<Vec<Request>>>,
    /// Whoever writes the index shall end.
    pub(super) stop: CancellationToken,
    /// What the runner is at.
    doing: Mutex<Doing>,
}

/// What the runner does when asked; the answer comes when it is done.
pub(super) enum Request {
    /// Commit what it has read.
    Commit(oneshot::Sender<()>),
    /// Put a day that was made anew in its place.
    Swap(String, oneshot::Sender<()>),
}

#[derive(Clone)]
struct Shown {
    partition: Partition,
    view: Arc<View>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            partitions: RwLock::default(),
            searchable: watch::Sender::new(LogCursor::default()),
            suspect: AtomicBool::new(false),
            requests: Mutex::new(Some(Vec::new())),
            stop: CancellationToken::new(),
            doing: Mutex::default(),
        }
    }

    /// The runner is at this now.
    pub(super) fn now(&self, doing: Doing) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing;
    }

    /// What the runner is at.
    pub(super) fn doing(&self) -> Doing {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails once the index shall end.
    pub(super) fn go_on(&self) -> Result<(), IndexError> {
        if self.stop.is_cancelled() { Err(IndexError::Stopped) } else { Ok(()) }
    }

    fn all(&self) -> Arc<Vec<Shown>> {
        // The vector is replaced whole: a panic elsewhere leaves it as it was.
        Arc::clone(&self.partitions.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, all: Vec<Shown>) {
        *self.partitions.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
    }

    /// Shows a partition as its last commit left it. Only the runner calls this.
    pub(super) fn publish(&self, partition: &Partition) -> Result<(), IndexError> {
        partition.reader.reload()?;
        let view = Arc::new(View::of(partition.reader.searcher())?);
        let mut all = (*self.all()).clone();
        all.retain(|shown| shown.partition.day != partition.day);
        all.push(Shown { partition: partition.clone(), view });
        all.sort_by(|left, right| left.partition.day.cmp(&right.partition.day));
        self.put(all);
        Ok(())
    }

    pub(super) fn replace(&self, partitions: &[Partition]) -> Result<(), IndexError> {
        let all: Result<Vec<_>, IndexError> = partitions
            .iter()
            .map(|partition| {
                let view = Arc::new(View::of(partition.reader.searcher())?);
                Ok(Shown { partition: partition.clone(), view })
            })
            .collect();
        self.put(all?);
        Ok(())
    }

    pub(super) fn partition(&self, day: &str) -> Option<Partition> {
        self.all().iter().find(|shown| shown.partition.day == day).map(|s| s.partition.clone())
    }

    pub(super) fn newest_day(&self) -> Option<String> {
        self.all().last().map(|shown| shown.partition.day.clone())
    }

    pub(super) fn view(&self, day: &str) -> Option<Arc<View>> {
        self.all().iter().find(|shown| shown.partition.day == day).map(|s| Arc::clone(&s.view))
    }

    /// The days whose stretch of the log touches one of these segments.
    pub(super) fn days_of(&self, segments: &BTreeSet<u64>) -> Vec<String> {
        let touches = |payload: &Payload| {
            segments
                .range(payload.from.segment..=payload.next.segment)
                .any(|segment| *segment < payload.next.segment || payload.next.offset > 0)
        };
        let all = self.all();
        let days = all.iter().filter(|shown| touches(&shown.partition.payload));
        days.map(|shown| shown.partition.day.clone()).collect()
    }

    fn views(&self) -> Vec<Arc<View>> {
        self.all().iter().map(|shown| Arc::clone(&shown.view)).collect()
    }
}

/// Finds events with the embedded index.
pub struct EmbeddedStore {
    pub(super) shared: Arc<Shared>,
    pub(super) blocks: Blocks,
    pub(super) source: Arc<dyn BlockSource>,
    pub(super) options: IndexOptions,
    clock: Arc<dyn Clock>,
    fields: Fields,
    search_limit_ms: u64,
    page_bytes: usize,
}

impl EmbeddedStore {
    pub(super) fn new(
        options: &IndexOptions,
        source: Arc<dyn BlockSource>,
        clock: Arc<dyn Clock>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            shared,
            blocks: Blocks::new(Arc::clone(&source), options.cache_bytes),
            source,
            options: options.clone(),
            clock,
            fields: Fields::schema().1,
            search_limit_ms: options.search_limit_ms,
            page_bytes: options.page_bytes,
        }
    }

    /// Tells the runner, and whoever makes days anew, to end; what they are asked for fails.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }

    /// An error of the engine makes the runner look at the files.
    fn watched<T>(&self, result: Result<T, IndexError>) -> Result<T, IndexError> {
        if let Err(IndexError::Engine(error)) = &result {
            log::error!(error = error.to_string(); "a search failed; the index will be checked");
            self.shared.suspect.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        result
    }

    pub(super) fn scan<'a>(
        &self,
        views: &'a [Arc<View>],
        request: &SearchRequest,
        deadline: &'a Deadline<'a>,
    ) -> Result<Scan<'a>, IndexError> {
        let filter = &request.filter;
        let expr = filter.candidates();
        Scan::new(
            views,
            lower(&expr, &self.fields)?.as_ref(),
            is_everything(&expr),
            Times::new(filter.from, filter.to),
            request.direction,
            deadline,
        )
    }

    /// The usual time, or less if the question says so.
    fn deadline(&self, budget_ms: Option<u64>) -> Deadline<'_> {
        let limit = budget_ms.map_or(self.search_limit_ms, |own| own.min(self.search_limit_ms));
        Deadline::new(self.clock.as_ref(), limit)
    }

    fn page(&self, request: &SearchRequest) -> Result<Page, IndexError> {
        let views = self.shared.views();
        let deadline = self.deadline(request.budget_ms);
        let mut scan = self.scan(&views, request, &deadline)?;
        let limit = request.limit.clamp(1, MAX_LIMIT);
        let looks = request.filter.needs_look();
        let mut page = Page { next: request.after, ..Page::default() };
        let mut looked = 0;
        loop {
            let want = batch(limit, looked, looks);
            let firsts = scan.first(want, page.next.as_ref())?;
            let (taken, full) =
                self.take(&firsts.keys, looks.then_some(&request.filter), limit, &mut page)?;
            looked += taken;
            let all_taken = taken == firsts.keys.len();
            if all_taken && firsts.keys.len() < want && firsts.ended.is_none() {
                page.next = None;
                break;
            }
            if full {
                break;
            }
            if let Some(time) = firsts.ended {
                page.next = Some(border(time, request.direction));
                page.cut = Some(cut(&deadline, request, time));
                break;
            }
            if looks && deadline.is_over() {
                let time = page.next.map_or(0, |key| key.time.micros());
                page.cut = Some(cut(&deadline, request, time));
                break;
            }
        }
        if request.total {
            page.total = total(&mut scan, &page, request, looks)?;
        }
        Ok(page)
    }

    /// Reads the events of `keys` into the page until it is full; says how many keys it took.
    /// `page.next` stands at the last of them.
    fn take(
        &self,
        keys: &[HitKey],
        look: Option<&Filter>,
        limit: usize,
        page: &mut Page,
    ) -> Result<(usize, bool), IndexError> {
        // A few at a time, so that no block is opened in vain and no page is larger than it may be.
        let step = if look.is_some() { 64 } else { 128 };
        let mut taken = 0;
        for keys in keys.chunks(step) {
            if page.hits.iter().map(|hit| hit.event.len()).sum::<usize>() > self.page_bytes {
                return Ok((taken, true));
            }
            for (key, event) in keys.iter().zip(self.events(keys)?) {
                if page.hits.len() == limit {
                    return Ok((taken, true));
                }
                taken += 1;
                page.next = Some(*key);
                if let Some(event) = event
                    && look.is_none_or(|filter| filter.holds(&event))
                {
                    page.hits.push(Hit { key: *key, event, redacted: false });
                }
            }
        }
        Ok((taken, page.hits.len() == limit))
    }

    /// The events of these keys, in their order; one whose block keeps only its leaf is `None`.
    /// Blocks are visited in the order of the log, each once.
    pub(super) fn events(&self, keys: &[HitKey]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|at| (keys[*at].at, keys[*at].index));
        let mut events = vec![None; keys.len()];
        for of_one in order.chunk_by(|one, next| keys[*one].at == keys[*next].at) {
            let indices: Vec<u32> = of_one.iter().map(|at| keys[*at].index).collect();
            let found = self.blocks.events(keys[of_one[0]].at, &indices)?;
            for (at, event) in of_one.iter().zip(found) {
                events[*at] = event;
            }
        }
        Ok(events)
    }

    fn find_id(
        &self,
        id: EventId,
        sees: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Option<(Hit, OpenBlock)>, IndexError> {
        for view in self.shared.views().iter().rev() {
            for segment in view.segments.iter().rev() {
                for key in segment.candidates(short(&id)) {
                    let events = self.blocks.events(key.at, &[key.index])?;
                    let Some(event) = events.into_iter().next().flatten() else { continue };
                    // Two tenants may have the same id: one that is hidden does not hide the other.
                    if EventView::read(&event).is_ok_and(|view| view.id == id) && sees(&event) {
                        let block = self.blocks.get(key.at)?;
                        let hit = Hit { key, event, redacted: false };
                        return Ok(Some((hit, block)));
                    }
                }
            }
        }
        Ok(None)
    }

    fn counts(&self, request: &StatsRequest) -> Result<Stats, IndexError> {
        let views = self.shared.views();
        let deadline = self.deadline(request.budget_ms);
        let filter = request.filter.clone();
        let search = SearchRequest { filter, ..SearchRequest::default() };
        let mut scan = self.scan(&views, &search, &deadline)?;
        // What the index says under a hidden path is not for everybody.
        let hidden =
            request.facets.iter().any(Facet::is_hidden) && !request.filter.sight.is_whole();
        if request.filter.needs_look() || hidden {
            return self.count_by_looking(&mut scan, request, &deadline);
        }
        super::stats::count(&scan, request, &self.fields)
    }

    fn suggestions(&self, request: &SuggestRequest) -> Result<Suggested, IndexError> {
        let hidden =
            request.facets.iter().any(Facet::is_hidden) && !request.filter.sight.is_whole();
        if request.filter.needs_look() || hidden {
            return Err(IndexError::Unsupported(
                "suggestions cannot be narrowed by phrases, nor, without the permissions view_raw \
                 and view_sensitive, by words or to values that may be sensitive",
            ));
        }
        let views = self.shared.views();
        let deadline = self.deadline(None);
        let filter = request.filter.clone();
        let search = SearchRequest { filter, ..SearchRequest::default() };
        super::stats::suggest(&self.scan(&views, &search, &deadline)?, request, &self.fields)
    }
}

fn cut(deadline: &Deadline<'_>, request: &SearchRequest, time: i64) -> Cut {
    deadline.cut(request.direction, searched(time, request.direction))
}

fn total(
    scan: &mut Scan<'_>,
    page: &Page,
    request: &SearchRequest,
    looks: bool,
) -> Result<Total, IndexError> {
    if looks {
        let found = u64::try_from(page.hits.len()).unwrap_or(u64::MAX);
        return Ok(Total { value: found, exact: page.next.is_none() && request.after.is_none() });
    }
    let (value, exact) = scan.total(TOTAL_BUDGET)?;
    Ok(Total { value, exact })
}

/// How many keys to ask for at once: one more than the page shows that there is a next one; where
/// events must be looked at, more and more.
fn batch(limit: usize, looked: usize, looks: bool) -> usize {
    if looks { (limit + looked).clamp(256, 4_096) } else { limit + 1 }
}

impl EventStore for EmbeddedStore {
    fn search(&self, request: &SearchRequest) -> Result<Page, IndexError> {
        self.watched(self.page(request))
    }

    fn find(
        &self,
        id: EventId,
        sees: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Option<(Hit, OpenBlock)>, IndexError> {
        self.watched(self.find_id(id, sees))
    }

    fn stats(&self, request: &StatsRequest) -> Result<Stats, IndexError> {
        self.watched(self.counts(request))
    }

    fn suggest(&self, request: &SuggestRequest) -> Result<Suggested, IndexError> {
        self.watched(self.suggestions(request))
    }

    fn paths(&self, prefix: &str, limit: usize) -> Result<Vec<String>, IndexError> {
        let views = self.shared.views();
        let segments = views.iter().rev().flat_map(|view| view.segments.iter().rev());
        self.watched(super::stats::paths(segments, prefix, limit, &self.fields))
    }

    fn searchable(&self) -> watch::Receiver<LogCursor> {
        self.shared.searchable.subscribe()
    }
}
