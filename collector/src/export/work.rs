//! The workers, and the keeper who makes scheduled exports and removes expired ones.

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use custody_config::Period;
use custody_config::collector::{CollectorConfig, TenantQuota};
use custody_event::{Clock, Timestamp};

use super::room::Room;
use super::table::Table;
use super::{
    ExportError, MAX_WAITING, PAUSE_EVERY, Progress, Row, Spec, Status, Told, Words, job, schedule,
};
use crate::access::{Authenticator, random_secret};
use crate::index::EventStore;
use crate::own::{Act, Acts, ExportAct};
use crate::store::BlockSource;
use crate::store::evidence::EvidenceLog;

/// How often it is looked for work, for what is due, and for what has expired.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What exports may take.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long files are kept.
    pub keep: Period,
    /// What they may take of the disk.
    pub room: Room,
    /// The longest time range.
    pub max_range: Option<Period>,
    /// How far back.
    pub max_age: Option<Period>,
    /// Tighter bounds of certain tenants.
    pub tenants: Vec<TenantQuota>,
    /// Workers.
    pub at_once: u32,
    pub(super) pause_every: Duration,
    pub(super) group_rows: u32,
}

impl From<&CollectorConfig> for Options {
    fn from(config: &CollectorConfig) -> Self {
        let room = Room::from(config);
        let config = &config.exports;
        Self {
            keep: config.keep,
            room,
            max_range: config.max_range,
            max_age: config.max_age,
            tenants: config.tenants.clone(),
            at_once: config.at_once,
            pause_every: PAUSE_EVERY,
            group_rows: super::parquet::GROUP_ROWS,
        }
    }
}

/// Where exports come from.
#[derive(Clone)]
pub struct Source {
    /// Finds events.
    pub store: Arc<dyn EventStore>,
    /// Reads blocks.
    pub blocks: Arc<dyn BlockSource>,
    /// The evidence with its transparency log, for bundles and proofs.
    pub log: Option<Arc<EvidenceLog>>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Takes what is done.
    pub acts: Option<Acts>,
    /// Knows whether those for whom exports recur still may have them; where absent, they may.
    pub accounts: Option<Arc<dyn Authenticator>>,
}

/// What workers, keeper and API share.
pub(super) struct Desk {
    pub(super) table: Table,
    folder: PathBuf,
    pub(super) source: Source,
    pub(super) options: Options,
    stopping: AtomicBool,
    /// Running exports that somebody has deleted.
    deleted: Mutex<HashSet<String>>,
}

impl Desk {
    pub(super) fn open(
        data_dir: &Path,
        source: Source,
        options: Options,
    ) -> Result<Self, ExportError> {
        let folder = data_dir.join("exports");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(ExportError::io(&folder))?;
        let table = Table::open(data_dir)?;
        table.reopen()?;
        let desk = Self {
            table,
            folder,
            source,
            options,
            stopping: AtomicBool::new(false),
            deleted: Mutex::default(),
        };
        desk.sweep()?;
        Ok(desk)
    }

    /// Removes files that belong to no export.
    fn sweep(&self) -> Result<(), ExportError> {
        let failed = || ExportError::io(&self.folder);
        for entry in std::fs::read_dir(&self.folder).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let id = name.split('.').next().unwrap_or_default();
            if !self.table.knows(id)? {
                remove(&path)?;
            }
        }
        Ok(())
    }

    pub(super) fn log(&self) -> Option<&EvidenceLog> {
        self.source.log.as_deref()
    }

    pub(super) fn file_path(&self, row: &Row) -> PathBuf {
        self.folder.join(format!("{}.{}", row.id, row.spec.format.extension()))
    }

    pub(super) fn part_path(&self, row: &Row) -> PathBuf {
        self.folder.join(format!("{}.{}.part", row.id, row.spec.format.extension()))
    }

    /// Fails where exports may take no more of the disk.
    pub(super) fn room(&self) -> Result<(), ExportError> {
        self.options.room.check(&self.folder)
    }

    fn deleted(&self) -> MutexGuard<'_, HashSet<String>> {
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// An export that waits from now on.
    pub(super) fn queue(&self, spec: Spec, who: &str) -> Result<Row, ExportError> {
        let row = Row {
            id: new_id()?,
            created: self.source.clock.now(),
            created_by: who.to_owned(),
            status: Status::Queued,
            spec,
            told: Told::default(),
        };
        self.table.add(&row)?;
        self.tell(&row, "export.request", "pending", who, "");
        Ok(row)
    }

    pub(super) fn has_place(&self) -> Result<bool, ExportError> {
        Ok(self.table.waiting()? < MAX_WAITING)
    }

    /// Deletes the entry and the files, also of one that is being made.
    pub(super) fn delete(&self, row: &Row, who: &str) -> Result<bool, ExportError> {
        self.deleted().insert(row.id.clone());
        let removed = self.table.remove(&row.id)?;
        remove(&self.file_path(row))?;
        remove(&self.part_path(row))?;
        if row.status != Status::Running {
            self.deleted().remove(&row.id);
        }
        if removed {
            self.tell(row, "export.delete", "success", who, "");
        }
        Ok(removed)
    }

    /// Makes it an event.
    pub(super) fn tell(
        &self,
        row: &Row,
        action: &'static str,
        outcome: &'static str,
        who: &str,
        reason: &str,
    ) {
        let known = row.told.finished.is_some() && row.told.sha256.is_some();
        self.record(ExportAct {
            records: known.then_some(row.told.rows),
            bytes: known.then_some(row.told.bytes),
            sha256: row.told.sha256.clone().unwrap_or_default(),
            id: row.id.clone(),
            ..act_of(&row.spec, action, outcome, who, reason)
        });
    }

    pub(super) fn record(&self, act: ExportAct) {
        if let Some(acts) = &self.source.acts {
            acts.record(Act::Exported(Box::new(act)));
        }
    }

    fn watch(&self, id: &str) -> Result<(), ExportError> {
        if self.stopping() {
            return Err(ExportError::Stopped);
        }
        if self.deleted().contains(id) {
            return Err(ExportError::Deleted);
        }
        Ok(())
    }

    /// Makes the export that has waited longest; `false` where none waits.
    pub(super) fn work(&self) -> Result<bool, ExportError> {
        let Some((mut row, progress)) = self.table.claim()? else { return Ok(false) };
        let made = self.make(&mut row, progress);
        match made {
            Ok(()) if self.table.finish(&row)? => {
                self.tell(&row, "export.complete", "success", "", "");
                log::info!(
                    export:% = row.id, rows = row.told.rows, bytes = row.told.bytes;
                    "an export is complete"
                );
            }
            Ok(()) | Err(ExportError::Deleted) => {
                remove(&self.file_path(&row))?;
                remove(&self.part_path(&row))?;
            }
            Err(ExportError::Stopped) => self.table.put_back(&row.id)?,
            Err(error) => self.failed(&mut row, &error)?,
        }
        self.deleted().remove(&row.id);
        Ok(true)
    }

    fn make(&self, row: &mut Row, progress: Option<Progress>) -> Result<(), ExportError> {
        let id = row.id.clone();
        let watch = |_rows: u64| self.watch(&id);
        let make = AssertUnwindSafe(|| job::run(self, row, progress, &watch));
        std::panic::catch_unwind(make)
            .unwrap_or(Err(ExportError::Unavailable("the export broke off; the log says more")))
    }

    fn failed(&self, row: &mut Row, error: &ExportError) -> Result<(), ExportError> {
        log::error!(export:% = row.id, error:% = error; "an export has failed");
        row.status = Status::Failed;
        row.told.error = Some(error.to_string());
        row.told.finished = Some(self.source.clock.now());
        (row.told.bytes, row.told.sha256) = (0, None);
        remove(&self.part_path(row))?;
        if self.table.finish(row)? {
            self.tell(row, "export.complete", "failure", "", &error.to_string());
        }
        Ok(())
    }

    /// Makes what is due, removes what has expired.
    pub(super) fn keep_house(&self) -> Result<bool, ExportError> {
        let now = self.source.clock.now();
        let due = schedule::run_due(self, now)?;
        for mut row in self.table.completed()? {
            if row.told.expires.is_some_and(|expires| expires <= now) {
                remove(&self.file_path(&row))?;
                row.status = Status::Expired;
                self.table.finish(&row)?;
                self.tell(&row, "export.expire", "success", "", "");
            }
        }
        self.table.prune()?;
        Ok(due)
    }
}

/// What is done with an export or a schedule of this.
pub(super) fn act_of(
    spec: &Spec,
    action: &'static str,
    outcome: &'static str,
    who: &str,
    reason: &str,
) -> ExportAct {
    let text = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    ExportAct {
        action,
        outcome,
        who: who.to_owned(),
        name: spec.name.clone(),
        format: spec.format.name(),
        form: if spec.words == Words::Custody { "" } else { spec.words.name() },
        query: spec.q.clone(),
        from: text(spec.from),
        to: text(spec.to),
        reason: reason.to_owned(),
        ..ExportAct::default()
    }
}

/// 32 random hex digits: whoever guesses must guess 128 bits.
pub(super) fn new_id() -> Result<String, ExportError> {
    let secret = random_secret().map_err(ExportError::io("randomness"))?;
    Ok(crate::access::token_text(&secret)[..32].to_owned())
}

fn remove(path: &Path) -> Result<(), ExportError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ExportError::io(path)(error))
        }
        _ => Ok(()),
    }
}

/// Exports, being made.
pub struct Exports {
    pub(super) desk: Arc<Desk>,
    wake: Sender<()>,
    /// Held open until the end.
    ending: Mutex<Option<Sender<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Exports {
    /// Starts workers and keeper; what was being made goes on.
    ///
    /// # Errors
    /// The folder or the database cannot be used, or a thread cannot be started.
    pub fn start(
        data_dir: &Path,
        source: Source,
        options: Options,
    ) -> Result<Arc<Self>, ExportError> {
        let workers = options.at_once.max(1);
        let desk = Arc::new(Desk::open(data_dir, source, options)?);
        let (wake, work) = bounded(1);
        let (ending, ended) = bounded(0);
        let mut threads = Vec::new();
        for number in 0..workers {
            let (desk, work) = (Arc::clone(&desk), work.clone());
            let name = format!("export-{number}");
            threads.push(spawn(name, move || labour(&desk, &work))?);
        }
        let (kept, waker) = (Arc::clone(&desk), wake.clone());
        threads.push(spawn("exports".to_owned(), move || keep(&kept, &ended, &waker))?);
        let (ending, threads) = (Mutex::new(Some(ending)), Mutex::new(threads));
        Ok(Arc::new(Self { desk, wake, ending, threads }))
    }

    /// There is work.
    pub(super) fn wake(&self) {
        // One that is there already will do.
        let _full = self.wake.try_send(());
    }

    /// Ends; what is being made goes on at the next start.
    pub fn stop(&self) {
        self.desk.stopping.store(true, Ordering::Release);
        self.wake();
        drop(self.ending.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a thread of the exports ended with a panic");
            }
        }
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ExportError> {
    std::thread::Builder::new().name(name).spawn(run).map_err(ExportError::io("a thread"))
}

fn labour(desk: &Desk, work: &Receiver<()>) {
    while !desk.stopping() {
        match desk.work() {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                log::error!(error:% = error; "an export cannot be begun or ended; trying again");
            }
        }
        // Woken, or the time is over: there may be work either way.
        let _woken = work.recv_timeout(LOOK_EVERY);
    }
}

fn keep(desk: &Desk, ended: &Receiver<()>, wake: &Sender<()>) {
    while !desk.stopping() {
        match desk.keep_house() {
            Ok(true) => {
                let _full = wake.try_send(());
            }
            Ok(false) => {}
            Err(error) => {
                log::error!(error:% = error; "scheduled or expired exports could not be looked after; trying again");
            }
        }
        // Disconnected at the end.
        let _ended = ended.recv_timeout(LOOK_EVERY);
    }
}
