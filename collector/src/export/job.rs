//! One export, from its bound to its file.

use std::path::PathBuf;
use std::time::Duration;

use custody_event::Clock;

use super::part::Hash;
use super::room::Room;
use super::work::Desk;
use super::{
    ExportError, Format, Heading, Part, Progress, Row, Status, Totals, bundle, form, proof,
};
use crate::index::{Direction, Hit, HitKey, IndexError, SearchRequest, StatsRequest};
use crate::query::filter::Filter;
use crate::store::LogCursor;

/// Events of a page: as many as make about [`PAGE_BYTES`].
const PAGE_ROWS: (usize, usize) = (50, crate::index::MAX_LIMIT);
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// A page that fails is asked for again so often, after a pause each.
const TRIES: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked whether the index has come to the bound.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Asked before every row with the rows so far: ends the job.
pub(super) type Watch<'a> = &'a dyn Fn(u64) -> Result<(), ExportError>;

/// See the module.
pub(super) struct Job<'a> {
    pub(super) desk: &'a Desk,
    pub(super) row: &'a mut Row,
    pub(super) filter: Filter,
    progress: Option<Progress>,
    watch: Watch<'a>,
}

/// Says when progress is to be written down.
pub(super) struct Pace<'a> {
    clock: &'a dyn Clock,
    every: Duration,
    last: Duration,
}

impl Pace<'_> {
    pub(super) fn is_due(&mut self) -> bool {
        let now = self.clock.monotonic();
        let due = now.saturating_sub(self.last) >= self.every;
        if due {
            self.last = now;
        }
        due
    }
}

/// Makes the export, or goes on with it; then the row says what came of it.
pub(super) fn run(
    desk: &Desk,
    row: &mut Row,
    progress: Option<Progress>,
    watch: Watch<'_>,
) -> Result<(), ExportError> {
    let filter = row.filter().map_err(|problem| ExportError::Event(problem.detail))?;
    let mut job = Job { desk, row, filter, progress, watch };
    desk.room()?;
    job.prepare()?;
    match job.row.spec.format {
        Format::Bundle => bundle::run(&mut job)?,
        _ => rows(&mut job)?,
    };
    Ok(())
}

impl<'a> Job<'a> {
    pub(super) fn check(&self, rows: u64) -> Result<(), ExportError> {
        (self.watch)(rows)
    }

    pub(super) fn pace(&self) -> Pace<'a> {
        let clock = self.desk.source.clock.as_ref();
        Pace { clock, every: self.desk.options.pause_every, last: clock.monotonic() }
    }

    pub(super) fn take_progress(&mut self) -> Option<Progress> {
        self.progress.take()
    }

    pub(super) fn part_path(&self) -> PathBuf {
        self.desk.part_path(self.row)
    }

    /// Bounds the export; once, also where it is taken up again.
    fn prepare(&mut self) -> Result<(), ExportError> {
        if self.row.told.bound.is_some() {
            return Ok(());
        }
        let source = &self.desk.source;
        let bound = *source.blocks.durable_end().borrow();
        if self.row.spec.format != Format::Bundle {
            self.wait_for_index(bound)?;
        }
        // What the index shows stands under a checkpoint by now, or will at once.
        let note = self.desk.log().and_then(|log| log.tlog()).map(crate::tlog::Tlog::checkpoint);
        let stats = StatsRequest { filter: self.filter.clone(), ..StatsRequest::default() };
        let told = &mut self.row.told;
        // A count that had to end for its time is no total.
        let counted = source.store.stats(&stats).ok().filter(|stats| stats.cut.is_none());
        told.rows_total = counted.map(|stats| stats.total);
        told.started = Some(source.clock.now());
        told.checkpoint = note.map(|note| note.to_string());
        told.bound = Some(bound);
        self.saved(None)
    }

    fn saved(&self, progress: Option<&Progress>) -> Result<(), ExportError> {
        match self.desk.table.progress(&self.row.id, &self.row.told, progress)? {
            true => Ok(()),
            false => Err(ExportError::Deleted),
        }
    }

    fn wait_for_index(&self, bound: LogCursor) -> Result<(), ExportError> {
        let source = &self.desk.source;
        let searchable = source.store.searchable();
        loop {
            let at = *searchable.borrow();
            if at >= bound {
                return Ok(());
            }
            // The end of one segment and the beginning of the next are one place.
            let ahead = source.blocks.next_from(at)?;
            if ahead.is_none_or(|block| block.at >= bound) {
                return Ok(());
            }
            self.check(0)?;
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What is in it, in the words of the search line.
    pub(super) fn words(&self) -> String {
        let spec = &self.row.spec;
        let time = |key: &str, time: Option<custody_event::Timestamp>| {
            time.map(|time| format!("{key}:{time}")).unwrap_or_default()
        };
        let words = [spec.q.clone(), time("from", spec.from), time("to", spec.to)];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }

    fn heading(&self) -> Heading {
        let (row, spec) = (&self.row, &self.row.spec);
        let text = |time: Option<custody_event::Timestamp>| {
            time.map(|time| time.to_string()).unwrap_or_default()
        };
        let checkpoint = row.told.checkpoint.clone().unwrap_or_default();
        Heading {
            name: spec.name.clone(),
            query: spec.q.clone(),
            from: text(spec.from),
            to: text(spec.to),
            created_by: row.created_by.clone(),
            created: row.created,
            origin: checkpoint.lines().next().unwrap_or_default().to_owned(),
            checkpoint,
        }
    }

    /// Writes progress down.
    pub(super) fn save(&self, progress: Progress) -> Result<(), ExportError> {
        self.desk.room()?;
        let mut told = self.row.told.clone();
        (told.rows, told.bytes) = (progress.rows, progress.part.len());
        match self.desk.table.progress(&self.row.id, &told, Some(&progress))? {
            true => Ok(()),
            false => Err(ExportError::Deleted),
        }
    }

    /// Gives the file its name, and the row what is known of it.
    pub(super) fn complete(&mut self, part: Part, totals: &Totals) -> Result<(), ExportError> {
        let clock = &self.desk.source.clock;
        let (bytes, sha256) = part.complete(&self.desk.file_path(self.row))?;
        let now = clock.now();
        let keep_ms = i64::try_from(self.desk.options.keep.millis()).unwrap_or(i64::MAX);
        let row = &mut *self.row;
        row.status = Status::Completed;
        let told = &mut row.told;
        (told.rows, told.rows_total) = (totals.rows, Some(totals.rows));
        (told.bytes, told.sha256) = (bytes, Some(sha256.to_hex()));
        told.finished = Some(now);
        told.expires = Some(now.plus_micros(keep_ms.saturating_mul(1_000)));
        if row.spec.format != Format::Bundle {
            let tlog = self.desk.log().and_then(|log| log.tlog());
            row.told.proof = Some(proof::make(row, totals, tlog));
        }
        Ok(())
    }
}

/// Where the making of a file stands.
struct Stand {
    part: Part,
    content: Hash,
    rows: u64,
    after: Option<HitKey>,
}

fn rows(job: &mut Job<'_>) -> Result<Totals, ExportError> {
    let (path, room) = (job.part_path(), job.desk.options.room);
    let mut resumed = None;
    let group_rows = job.desk.options.group_rows;
    let mut form = form(&job.row.spec, job.heading(), group_rows)?;
    if let Some(progress) = job.take_progress() {
        resumed = stand_of(&progress, &path, room)?;
        if resumed.is_some() && form.resume(progress.state).is_err() {
            (form, resumed) = (super::form(&job.row.spec, job.heading(), group_rows)?, None);
        }
    }
    let mut stand = match resumed {
        Some(stand) => stand,
        None => {
            let mut part = Part::create(&path, room)?;
            form.begin(&mut part)?;
            Stand { part, content: Hash::default(), rows: 0, after: None }
        }
    };
    each_row(job, form.as_mut(), &mut stand)?;
    let totals = Totals { rows: stand.rows, content_sha256: stand.content.sum().to_hex() };
    form.end(&totals, &mut stand.part)?;
    job.complete(stand.part, &totals)?;
    Ok(totals)
}

fn stand_of(
    progress: &Progress,
    path: &std::path::Path,
    room: Room,
) -> Result<Option<Stand>, ExportError> {
    let known = Hash::from_state(&progress.content).zip(HitKey::from_cursor(&progress.after));
    let Some((content, after)) = known else { return Ok(None) };
    let part = Part::resume(path, &progress.part, room)?;
    Ok(part.map(|part| Stand { part, content, rows: progress.rows, after: Some(after) }))
}

fn each_row(
    job: &Job<'_>,
    form: &mut dyn super::Form,
    stand: &mut Stand,
) -> Result<(), ExportError> {
    let mut pages = Pages::new(job, stand.after);
    let mut pace = job.pace();
    while let Some(hits) = pages.next_page(stand.rows)? {
        for hit in hits {
            job.check(stand.rows)?;
            form.row(&hit.event, &mut stand.part)?;
            stand.content.update(&hit.event);
            stand.content.update(b"\n");
            stand.rows += 1;
            stand.after = Some(hit.key);
            if pace.is_due() {
                pause(job, form, stand)?;
            }
        }
    }
    Ok(())
}

fn pause(job: &Job<'_>, form: &dyn super::Form, stand: &mut Stand) -> Result<(), ExportError> {
    let (Some(state), Some(after)) = (form.pause(), stand.after) else { return Ok(()) };
    job.save(Progress {
        after: after.to_cursor(),
        rows: stand.rows,
        part: stand.part.mark()?,
        content: stand.content.state(),
        state,
    })
}

/// The search, page by page, below the bound.
struct Pages<'a> {
    job: &'a Job<'a>,
    bound: LogCursor,
    /// `None` at the end.
    request: Option<SearchRequest>,
}

impl<'a> Pages<'a> {
    fn new(job: &'a Job<'a>, after: Option<HitKey>) -> Self {
        let request = SearchRequest {
            filter: job.filter.clone(),
            limit: PAGE_ROWS.0,
            after,
            direction: Direction::OldestFirst,
            ..SearchRequest::default()
        };
        let bound = job.row.told.bound.unwrap_or_default();
        Self { job, bound, request: Some(request) }
    }

    fn next_page(&mut self, rows: u64) -> Result<Option<Vec<Hit>>, ExportError> {
        let Some(mut request) = self.request.take() else { return Ok(None) };
        self.job.check(rows)?;
        let mut page = self.ask(&request, rows)?;
        if let Some(next) = page.next {
            request.after = Some(next);
            let bytes: usize = page.hits.iter().map(|hit| hit.event.len()).sum();
            let mean = bytes.checked_div(page.hits.len()).unwrap_or_default().max(1);
            request.limit = (PAGE_BYTES / mean).clamp(PAGE_ROWS.0, PAGE_ROWS.1);
            self.request = Some(request);
        }
        page.hits.retain(|hit| hit.key.at < self.bound);
        Ok(Some(page.hits))
    }

    fn ask(&self, request: &SearchRequest, rows: u64) -> Result<crate::index::Page, ExportError> {
        let mut tries = 1;
        loop {
            match self.job.desk.source.store.search(request) {
                Ok(page) => return Ok(page),
                Err(error @ IndexError::Unsupported(_)) => return Err(error.into()),
                Err(error) if tries == TRIES => return Err(error.into()),
                Err(error) => {
                    log::warn!(error:% = error, tries = tries; "a page of an export failed; asking again");
                }
            }
            tries += 1;
            self.job.check(rows)?;
            std::thread::sleep(TRY_AGAIN);
        }
    }
}
