//! Opening: choose the live store, read all of it, and when it is damaged build a fresh one.
//!
//! The fresh store is complete before `current` names it, and the damaged one is moved away after
//! that: a crash at any instant leaves either the damaged store (tried again) or the fresh one.
//! `opening` counts attempts that did not end, so that a store whose opening kills the process
//! (abort, endless loop, memory) is put aside unread after [`MAX_ATTEMPTS`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::keys::{CURSOR, DEAD, GENERATION, NEXT_SEQ, REFUSED, RESTREAM, parse_refused_key};
use super::ledger::Entry;
use super::links::Links;
use super::quarantine::{put_aside, sync_dir};
use super::types::{
    Change, OpenError, Options, Quarantined, Slot, SpoolClock, Store, StoreError, StoreFactory,
};

/// Attempts to open a store that may end without an end before it is put aside unread.
const MAX_ATTEMPTS: u32 = 5;
/// The length to assume of a large value that cannot be read: [`super::MAX_BLOCK_BYTES`].
const LONGEST: u32 = 1_572_864;
/// A handle dropped a moment ago may still hold the lock while its threads end.
const LOCK_TRIES: u32 = 60;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What opening and reopening need.
pub(crate) struct Context {
    pub(crate) dir: PathBuf,
    pub(crate) factory: Box<dyn StoreFactory>,
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn SpoolClock>,
}

/// What a store says about itself.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) generation: u32,
    pub(crate) next_seq: u64,
    /// Blocks of the live generation and their lengths.
    pub(crate) blocks: BTreeMap<u64, u32>,
    /// Blocks of other generations: left by a restream that did not end, or did not clean up.
    pub(crate) stale: Vec<(Slot, u32)>,
    pub(crate) cursors: BTreeMap<String, u64>,
    pub(crate) dead_ids: Vec<u64>,
    /// Output and block, of the live generation.
    pub(crate) refused: BTreeSet<(String, u64)>,
    pub(crate) needs_restream: Option<String>,
    has_generation: bool,
}

/// A usable store.
pub(crate) struct Recovered {
    pub(crate) store: Box<dyn Store>,
    pub(crate) number: u64,
    pub(crate) loaded: Loaded,
    pub(crate) created: bool,
    pub(crate) quarantined: Option<Quarantined>,
}

/// The store, opened afresh, and what was read of it.
type LoadedStore = (Box<dyn Store>, Result<Loaded, StoreError>);

/// Runs a store call; a panic is an error like any other.
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| Err(StoreError::Panicked(panic_text(&*panic))))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Drops a store; what goes wrong there changes nothing any more, because all that counts was synced.
pub(crate) fn discard(store: Box<dyn Store>) -> Option<StoreError> {
    guarded(move || {
        drop(store);
        Ok(())
    })
    .err()
}

impl Context {
    pub(crate) fn store_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("store-{number}"))
    }

    fn io(&self, what: &'static str) -> impl FnOnce(io::Error) -> OpenError + use<> {
        let path = self.dir.clone();
        move |error| OpenError::Io { path, what, error }
    }

    /// Opens a store; waits a moment for a lock of our own past.
    pub(crate) fn open_plain(&mut self, path: &Path) -> Result<Box<dyn Store>, StoreError> {
        let mut tries = 0;
        loop {
            match guarded(|| self.factory.open(path)) {
                Err(StoreError::Locked(_)) if tries < LOCK_TRIES => std::thread::sleep(LOCK_PAUSE),
                Err(StoreError::Io(_)) if tries < 3 => std::thread::sleep(LOCK_PAUSE),
                other => return other,
            }
            tries += 1;
        }
    }

    /// Opens the live store, whatever it takes.
    pub(crate) fn recover(&mut self, ledger: Option<Entry>) -> Result<Recovered, OpenError> {
        let (number, created) = self.choose(ledger).map_err(self.io("choosing the live store"))?;
        let path = self.store_path(number);
        let attempts = self.attempts();
        if attempts >= MAX_ATTEMPTS {
            let reason = format!("opening it was begun {attempts} times and never ended");
            return self.replace_damaged(number, None, reason, ledger, false);
        }
        self.note_attempts(attempts + 1).map_err(self.io("writing the count of attempts"))?;
        let tried = self.open_plain(&path).and_then(|store| self.load_in_steps(&path, store));
        let result = match tried {
            Ok((store, Ok(loaded))) => self.finish(number, store, loaded, created, ledger),
            Ok((store, Err(error))) if error.is_environment() => {
                discard(store);
                Err(OpenError::Store { path, error })
            }
            Err(error) if error.is_environment() => Err(OpenError::Store { path, error }),
            Ok((store, Err(error))) => {
                self.replace_damaged(number, Some(store), error.to_string(), ledger, true)
            }
            Err(error) => self.replace_damaged(number, None, error.to_string(), ledger, true),
        };
        self.note_attempts(0).map_err(self.io("removing the count of attempts"))?;
        result
    }

    /// Reads everything; reopens the store now and then, because sled would keep all of it in memory.
    fn load_in_steps(
        &mut self,
        path: &Path,
        mut store: Box<dyn Store>,
    ) -> Result<LoadedStore, StoreError> {
        let mut loading = match guarded(|| Loading::begin(&mut *store, &self.options)) {
            Ok(loading) => loading,
            Err(error) => return Ok((store, Err(error))),
        };
        loop {
            match guarded(|| loading.step(&mut *store, &self.options)) {
                Ok(true) => return Ok((store, loading.finish())),
                Ok(false) => {}
                Err(error) => return Ok((store, Err(error))),
            }
            discard(store);
            store = self.open_plain(path)?;
        }
    }

    fn finish(
        &mut self,
        number: u64,
        mut store: Box<dyn Store>,
        mut loaded: Loaded,
        created: bool,
        ledger: Option<Entry>,
    ) -> Result<Recovered, OpenError> {
        let path = self.store_path(number);
        let begun = guarded(|| {
            if !loaded.has_generation {
                loaded.generation = ledger.map_or(0, |entry| entry.generation);
                store.commit(&[Change {
                    puts: counters(loaded.generation, loaded.next_seq),
                    ..Change::default()
                }])?;
                store.sync()?;
            }
            Ok(())
        });
        begun.map_err(|error| OpenError::Store { path, error })?;
        self.point_to(number).map_err(self.io("naming the live store"))?;
        self.tidy(number, loaded.needs_restream.is_some())
            .map_err(self.io("removing old stores"))?;
        Ok(Recovered { store, number, loaded, created, quarantined: None })
    }

    /// Builds a fresh store from what can be read of the damaged one, then puts that one aside.
    fn replace_damaged(
        &mut self,
        number: u64,
        damaged: Option<Box<dyn Store>>,
        reason: String,
        ledger: Option<Entry>,
        may_read: bool,
    ) -> Result<Recovered, OpenError> {
        let old_path = self.store_path(number);
        let fresh_number = number + 1;
        let path = self.store_path(fresh_number);
        remove_if_there(&path).map_err(self.io("removing a half-built store"))?;
        let damaged = match damaged {
            None if may_read => self.open_without_derived(&old_path),
            other => other,
        };
        let fail = |error| OpenError::Store { path: path.clone(), error };
        let mut fresh = self.open_plain(&path).map_err(fail)?;
        let built = guarded(|| salvage(damaged, &mut *fresh, ledger, &reason, &self.options));
        let (loaded, mut report) = match built {
            Ok(built) => built,
            Err(error) => {
                discard(fresh);
                return Err(fail(error));
            }
        };
        self.point_to(fresh_number).map_err(self.io("naming the fresh store"))?;
        let keep = self.options.keep_quarantined;
        if old_path.try_exists().map_err(self.io("looking for the damaged store"))? {
            report.path = put_aside(&self.dir, &old_path, self.clock.unix_ms(), keep)
                .map_err(self.io("moving the damaged store to quarantine"))?;
        }
        self.note_attempts(0).map_err(self.io("removing the count of attempts"))?;
        Ok(Recovered {
            store: fresh,
            number: fresh_number,
            loaded,
            created: false,
            quarantined: Some(report),
        })
    }

    fn open_without_derived(&mut self, path: &Path) -> Option<Box<dyn Store>> {
        self.factory.forget_derived(path).ok()?;
        self.open_plain(path).ok()
    }

    /// The number of the live store, and whether there was none.
    fn choose(&self, ledger: Option<Entry>) -> io::Result<(u64, bool)> {
        let there = self.numbers()?;
        let named = match fs::read_to_string(self.dir.join("current")) {
            Ok(text) => {
                text.trim().strip_prefix("store-").and_then(|number| number.parse::<u64>().ok())
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) =>
            {
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(number) = named {
            return Ok((number, false));
        }
        // Without the name: the one that the ledger knows, else the oldest (a newer one may be half built).
        let known = ledger.map(|entry| entry.store).filter(|number| there.contains(number));
        Ok((
            known.or(there.iter().min().copied()).unwrap_or(1),
            there.is_empty() && ledger.is_none(),
        ))
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let number: Option<u64> = name
                .to_str()
                .and_then(|name| name.strip_prefix("store-"))
                .and_then(|number| number.parse().ok());
            numbers.extend(number);
        }
        Ok(numbers)
    }

    /// Makes `store-<number>` the live one, atomically and durably.
    pub(crate) fn point_to(&self, number: u64) -> io::Result<()> {
        let (current, text) = (self.dir.join("current"), format!("store-{number}\n"));
        if fs::read_to_string(&current).is_ok_and(|now| now == text) {
            return Ok(());
        }
        let new = self.dir.join("current.new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &current)?;
        sync_dir(&self.dir)
    }

    /// Removes every store but the live one. Beside a fresh store that still waits for its restream, an
    /// older one is the damaged one of a crash in between: that goes to quarantine.
    fn tidy(&self, live: u64, after_damage: bool) -> io::Result<()> {
        for number in self.numbers()?.into_iter().filter(|number| *number != live) {
            let path = self.store_path(number);
            if after_damage && number < live {
                put_aside(&self.dir, &path, self.clock.unix_ms(), self.options.keep_quarantined)?;
            } else {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    fn attempts(&self) -> u32 {
        fs::read_to_string(self.dir.join("opening"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    fn note_attempts(&self, count: u32) -> io::Result<()> {
        let path = self.dir.join("opening");
        if count > 0 {
            return fs::write(&path, count.to_string());
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The puts that say where a store stands.
pub(crate) fn counters(generation: u32, next_seq: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    vec![
        (GENERATION.to_vec(), generation.to_be_bytes().to_vec()),
        (NEXT_SEQ.to_vec(), next_seq.to_be_bytes().to_vec()),
    ]
}

/// A cursor's value.
pub(crate) fn cursor_value(generation: u32, next_seq: u64) -> Vec<u8> {
    [&generation.to_be_bytes()[..], &next_seq.to_be_bytes()[..]].concat()
}

fn parse_cursor(value: &[u8], generation: u32) -> Option<u64> {
    let (of, next) = value.split_first_chunk::<4>()?;
    let next = u64::from_be_bytes(next.try_into().ok()?);
    // A cursor over an older stream says nothing about this one.
    Some(if u32::from_be_bytes(*of) == generation { next } else { 0 })
}

fn number<const N: usize>(
    store: &mut dyn Store,
    key: &[u8],
) -> Result<Option<[u8; N]>, StoreError> {
    let Some(value) = store.value(key)? else { return Ok(None) };
    let bytes = value.as_slice().try_into();
    bytes.map(Some).map_err(|_| {
        StoreError::Corrupt(format!("{} has {} bytes", String::from_utf8_lossy(key), value.len()))
    })
}

fn load_small(store: &mut dyn Store) -> Result<Loaded, StoreError> {
    let generation = number::<4>(store, GENERATION)?.map(u32::from_be_bytes);
    let mut loaded = Loaded {
        generation: generation.unwrap_or(0),
        has_generation: generation.is_some(),
        next_seq: number::<8>(store, NEXT_SEQ)?.map_or(0, u64::from_be_bytes),
        needs_restream: store
            .value(RESTREAM)?
            .map(|text| String::from_utf8_lossy(&text).into_owned()),
        ..Loaded::default()
    };
    for (key, value) in store.scan_prefix(CURSOR)? {
        let output = String::from_utf8_lossy(&key[CURSOR.len()..]).into_owned();
        let next = parse_cursor(&value, loaded.generation);
        loaded.cursors.insert(
            output,
            next.ok_or_else(|| StoreError::Corrupt("a cursor that is none".to_owned()))?,
        );
    }
    for (key, _) in store.scan_prefix(DEAD)? {
        loaded.dead_ids.extend(key[DEAD.len()..].try_into().ok().map(u64::from_be_bytes));
    }
    for (key, _) in store.scan_prefix(REFUSED)? {
        let refused =
            parse_refused_key(&key).filter(|(_, generation, _)| *generation == loaded.generation);
        loaded.refused.extend(refused.map(|(output, _, seq)| (output, seq)));
    }
    Ok(loaded)
}

/// Reads everything, checks every block, and that no number is missing.
pub(crate) fn load(store: &mut dyn Store, options: &Options) -> Result<Loaded, StoreError> {
    let mut loading = Loading::begin(store, options)?;
    while !loading.step(store, options)? {}
    loading.finish()
}

/// A store being read.
struct Loading {
    loaded: Loaded,
    wrong: Option<String>,
    from: Option<Slot>,
    links: Links,
}

impl Loading {
    fn begin(store: &mut dyn Store, options: &Options) -> Result<Self, StoreError> {
        store.check()?;
        let loaded = load_small(store)?;
        let links = Links::begin(options, loaded.needs_restream.is_some());
        Ok(Self { loaded, wrong: None, from: None, links })
    }

    /// Reads `refresh_bytes` on; true at the end.
    fn step(&mut self, store: &mut dyn Store, options: &Options) -> Result<bool, StoreError> {
        let Self { loaded, wrong, from, links } = self;
        let live = loaded.generation;
        *from = store.visit_large(*from, options.refresh_bytes, &mut |(slot, bytes)| {
            let sound = bytes.and_then(|bytes| (options.check)(&bytes).map(|()| bytes));
            let length = |bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(LONGEST);
            match (slot, sound) {
                (Slot::Block { generation, seq }, Ok(bytes)) if generation == live => {
                    loaded.blocks.insert(seq, length(&bytes));
                    if let Err(why) = links.next(seq, &bytes) {
                        wrong.get_or_insert(why);
                    }
                }
                (Slot::Block { generation, seq }, Err(error)) if generation == live => {
                    wrong.get_or_insert(format!("block {seq}: {error}"));
                }
                // A half-written block of a stream that never came to be, or is over: its length does not matter.
                (Slot::Block { .. }, bytes) => {
                    loaded.stale.push((slot, bytes.as_ref().map_or(LONGEST, length)));
                }
                (Slot::Dead(_), _) => {}
            }
        })?;
        Ok(from.is_none())
    }

    fn finish(self) -> Result<Loaded, StoreError> {
        let Self { loaded, wrong, links, .. } = self;
        if let Some(wrong) = wrong.or(links.end().err()) {
            return Err(StoreError::Corrupt(wrong));
        }
        if !loaded.has_generation && (!loaded.blocks.is_empty() || loaded.next_seq > 0) {
            return Err(StoreError::Corrupt("its generation is missing".to_owned()));
        }
        match hole(&loaded) {
            Some(hole) if loaded.needs_restream.is_none() => Err(StoreError::Corrupt(hole)),
            _ => Ok(loaded),
        }
    }
}

fn hole(loaded: &Loaded) -> Option<String> {
    let mut expected = *loaded.blocks.first_key_value()?.0;
    for seq in loaded.blocks.keys() {
        if *seq != expected {
            return Some(format!("block {expected} is missing before block {seq}"));
        }
        expected += 1;
    }
    (expected != loaded.next_seq).then(|| {
        format!("the last block is {}, the next should be {}", expected - 1, loaded.next_seq)
    })
}

/// Collects changes and commits them in steps.
struct Copier<'a> {
    to: &'a mut dyn Store,
    change: Change,
    step_bytes: u64,
}

impl Copier<'_> {
    fn step(&mut self, at_least: u64) -> Result<(), StoreError> {
        let size = self.change.size_bytes();
        if size < at_least {
            return Ok(());
        }
        self.to.reserve(size)?;
        self.to.commit(&[std::mem::take(&mut self.change)])?;
        self.to.sync()
    }

    fn store(&mut self, slot: Slot, bytes: Bytes) -> Result<(), StoreError> {
        self.change.stores.push((slot, bytes));
        self.step(self.step_bytes)
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.change.puts.push((key, value));
        self.step(self.step_bytes)
    }
}

/// Copies small values and large ones into `to`; used where the source is sound (see `recreate`).
pub(crate) fn copy_all(
    from: &mut dyn Store,
    to: &mut dyn Store,
    live: u32,
    step_bytes: u64,
) -> Result<(), StoreError> {
    let mut copier = Copier { to, change: Change::default(), step_bytes };
    for (key, value) in from.scan_prefix(b"")? {
        copier.put(key, value)?;
    }
    let mut failed = Ok(());
    from.visit_large(None, u64::MAX, &mut |(slot, bytes)| {
        let wanted = !matches!(slot, Slot::Block { generation, .. } if generation != live);
        if failed.is_ok() && wanted {
            failed = bytes.map_err(StoreError::Corrupt).and_then(|bytes| copier.store(slot, bytes));
        }
    })?;
    failed?;
    copier.step(0)
}

/// Copies what can be read of a damaged store into a fresh one, which then waits for its restream.
fn salvage(
    damaged: Option<Box<dyn Store>>,
    fresh: &mut dyn Store,
    ledger: Option<Entry>,
    reason: &str,
    options: &Options,
) -> Result<(Loaded, Quarantined), StoreError> {
    let known = ledger.unwrap_or_default();
    let mut copier =
        Copier { to: fresh, change: Change::default(), step_bytes: options.group_max_bytes };
    let (mut old, mut blocks, mut values) = (Loaded::default(), BTreeMap::new(), 0);
    old.generation = known.generation;
    if let Some(mut damaged) = damaged {
        if let Ok(small) = guarded(|| load_small(&mut *damaged)) {
            old = small;
            old.generation = old.generation.max(known.generation);
        }
        values = salvage_values(&mut *damaged, &mut copier)?;
        salvage_large(&mut *damaged, &mut copier, &old, known, options, &mut blocks)?;
        discard(damaged);
    }
    let next_seq =
        blocks.last_key_value().map_or(0, |(seq, _)| seq + 1).max(old.next_seq).max(known.next_seq);
    copier.change.puts.extend(counters(old.generation, next_seq));
    copier
        .change
        .puts
        .push((RESTREAM.to_vec(), format!("the store was damaged: {reason}").into_bytes()));
    copier.step(0)?;
    let acknowledged = old.cursors.values().min().copied().unwrap_or(0);
    let report = Quarantined {
        path: PathBuf::new(),
        reason: reason.to_owned(),
        ledger_seqs: known.first_seq..known.next_seq,
        salvaged_blocks: u64::try_from(blocks.len()).unwrap_or(u64::MAX),
        salvaged_values: values,
        lost_seqs: missing(&blocks, known.first_seq.max(acknowledged)..next_seq),
    };
    let loaded = guarded(|| load(copier.to, options))?;
    Ok((loaded, report))
}

fn salvage_values(damaged: &mut dyn Store, copier: &mut Copier<'_>) -> Result<u64, StoreError> {
    let mut values = 0;
    for (key, value) in guarded(|| damaged.scan_prefix(b"")).unwrap_or_default() {
        if key.starts_with(b".") {
            continue;
        }
        values += 1;
        copier.put(key, value)?;
    }
    Ok(values)
}

fn salvage_large(
    damaged: &mut dyn Store,
    copier: &mut Copier<'_>,
    old: &Loaded,
    known: Entry,
    options: &Options,
    blocks: &mut BTreeMap<u64, u32>,
) -> Result<(), StoreError> {
    let mut failed = Ok(());
    let mut keep = |slot: Slot, bytes: Bytes| {
        let wanted = match slot {
            Slot::Block { generation, seq } => {
                generation == old.generation
                    && (options.check)(&bytes).is_ok()
                    && options.judge.as_ref().is_none_or(|judge| judge.sealed(&bytes).is_ok())
                    && !blocks.contains_key(&seq)
            }
            Slot::Dead(id) => old.dead_ids.contains(&id),
        };
        if failed.is_err() || !wanted {
            return;
        }
        if let Slot::Block { seq, .. } = slot {
            blocks.insert(seq, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
        failed = copier.store(slot, bytes);
    };
    let walked = guarded(|| {
        damaged.visit_large(None, u64::MAX, &mut |(slot, bytes)| {
            if let Ok(bytes) = bytes {
                keep(slot, bytes);
            }
        })
    });
    if walked.is_err() {
        // The walk ended early; ask for each block that the ledger knows.
        for seq in known.first_seq..known.next_seq.max(old.next_seq) {
            let slot = Slot::Block { generation: old.generation, seq };
            if let Ok(Some(bytes)) = guarded(|| damaged.read(slot)) {
                keep(slot, bytes);
            }
        }
    }
    failed
}

fn missing(blocks: &BTreeMap<u64, u32>, range: Range<u64>) -> Vec<Range<u64>> {
    let mut lost = Vec::new();
    let mut expected = range.start;
    for seq in blocks.range(range.clone()).map(|(seq, _)| *seq) {
        if seq > expected {
            lost.push(expected..seq);
        }
        expected = seq + 1;
    }
    if expected < range.end {
        lost.push(expected..range.end);
    }
    lost
}
