//! The embedded index's answers.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use custody_event::{Clock, EventId, EventView};
use tokio::sync::watch;

use super::blocks::{Blocks, OpenBlock};
use super::lower::{is_everything, lower};
use super::partition::Partition;
use super::schema::Fields;
use super::segments::{Deadline, Scan, Times, View, short};
use super::{
    EventStore, Hit, HitKey, IndexError, IndexOptions, MAX_LIMIT, Page, SearchRequest, Stats,
    StatsRequest, Total,
};
use crate::query::filter::Filter;
use crate::store::{BlockSource, LogCursor};

/// Counting beyond the page goes on for so long; then the total is "at least".
const TOTAL_BUDGET: Duration = Duration::from_millis(20);
/// A page that has to look at events' texts ends, perhaps short, after so long or so many.
const LOOK_BUDGET: Duration = Duration::from_millis(1_000);
const MAX_LOOKS: usize = 20_000;

/// What the runner shows and the store reads.
pub(super) struct Shared {
    partitions: RwLock<Arc<Vec<Shown>>>,
    pub(super) searchable: watch::Sender<LogCursor>,
    /// A search met an error of the engine: the runner should look at the files.
    pub(super) suspect: AtomicBool,
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
        }
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

    fn views(&self) -> Vec<Arc<View>> {
        self.all().iter().map(|shown| Arc::clone(&shown.view)).collect()
    }
}

/// Finds events with the embedded index.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    blocks: Blocks,
    clock: Arc<dyn Clock>,
    fields: Fields,
    search_limit_ms: u64,
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
            blocks: Blocks::new(source, options.cache_bytes),
            clock,
            fields: Fields::schema().1,
            search_limit_ms: options.search_limit_ms,
        }
    }

    /// An error of the engine makes the runner look at the files.
    fn watched<T>(&self, result: Result<T, IndexError>) -> Result<T, IndexError> {
        if let Err(IndexError::Engine(error)) = &result {
            log::error!(error = error.to_string(); "a search failed; the index will be checked");
            self.shared.suspect.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        result
    }

    fn scan<'a>(
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

    fn page(&self, request: &SearchRequest) -> Result<Page, IndexError> {
        let views = self.shared.views();
        let deadline = Deadline::new(self.clock.as_ref(), self.search_limit_ms);
        let mut scan = self.scan(&views, request, &deadline)?;
        let limit = request.limit.clamp(1, MAX_LIMIT);
        let looks = request.filter.needs_look();
        let mut page = Page { next: request.after, ..Page::default() };
        let mut looked = 0;
        loop {
            let want = batch(limit, looked, looks);
            let keys = scan.first(want, page.next.as_ref())?;
            let last_batch = keys.len() < want;
            let (taken, full) =
                self.take(&keys, looks.then_some(&request.filter), limit, &mut page)?;
            looked += taken;
            if last_batch && taken == keys.len() {
                page.next = None;
                break;
            }
            if full || (looks && (looked >= MAX_LOOKS || deadline.elapsed() > LOOK_BUDGET)) {
                break;
            }
        }
        if request.total {
            page.total = if looks {
                let found = u64::try_from(page.hits.len()).unwrap_or(u64::MAX);
                let all = page.next.is_none() && request.after.is_none();
                Total { value: found, exact: all }
            } else {
                let (value, exact) = scan.total(TOTAL_BUDGET)?;
                Total { value, exact }
            };
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
        // A few at a time where most may not fit, so that no block is opened in vain.
        let step = if look.is_some() { 64 } else { limit.max(1) };
        let mut taken = 0;
        for keys in keys.chunks(step) {
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
    fn events(&self, keys: &[HitKey]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|at| (keys[*at].at, keys[*at].index));
        let mut events = vec![None; keys.len()];
        let mut open: Option<(LogCursor, Arc<OpenBlock>)> = None;
        for at in order {
            let key = &keys[at];
            let block = match &open {
                Some((place, block)) if *place == key.at => Arc::clone(block),
                _ => self.blocks.get(key.at)?,
            };
            events[at] = block.events.event(key.index).map(<[u8]>::to_vec);
            open = Some((key.at, block));
        }
        Ok(events)
    }

    fn find_id(&self, id: EventId) -> Result<Option<(Hit, Arc<OpenBlock>)>, IndexError> {
        for view in self.shared.views().iter().rev() {
            for segment in view.segments.iter().rev() {
                for key in segment.candidates(short(&id)) {
                    let block = self.blocks.get(key.at)?;
                    let Some(event) = block.events.event(key.index) else { continue };
                    if EventView::read(event).is_ok_and(|view| view.id == id) {
                        let event = event.to_vec();
                        let hit = Hit { key, event, redacted: false };
                        return Ok(Some((hit, block)));
                    }
                }
            }
        }
        Ok(None)
    }

    fn counts(&self, request: &StatsRequest) -> Result<Stats, IndexError> {
        let filter = &request.filter;
        if filter.needs_look() {
            return Err(IndexError::Unsupported(
                "phrases and joined words are not counted: each event would have to be read; nor are \
                 words, without the permissions view_raw and view_sensitive",
            ));
        }
        let views = self.shared.views();
        let deadline = Deadline::new(self.clock.as_ref(), self.search_limit_ms);
        let search = SearchRequest { filter: filter.clone(), ..SearchRequest::default() };
        let scan = self.scan(&views, &search, &deadline)?;
        super::stats::count(&scan, request, &self.fields)
    }
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

    fn find(&self, id: EventId) -> Result<Option<(Hit, Arc<OpenBlock>)>, IndexError> {
        self.watched(self.find_id(id))
    }

    fn stats(&self, request: &StatsRequest) -> Result<Stats, IndexError> {
        self.watched(self.counts(request))
    }

    fn searchable(&self) -> watch::Receiver<LogCursor> {
        self.shared.searchable.subscribe()
    }
}
