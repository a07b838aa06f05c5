//! The engine: one step looks at the file system and reads, without ever waiting for anything
//! but the outlet. [`super::FileSource::run`] is a loop around it; tests drive it by hand.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use custody_event::position::Fingerprint;
use custody_event::{Clock, FileIdentity, Offset, Timestamp};

use super::cut::{Cutter, FINISHED};
use super::names::{numbered_base, path_from_text, path_text};
use super::reader::{Done, Place, Reader, ReaderId};
use super::search::Damaged;
use super::stat::Inode;
use super::walk::{Found, Walk};
use super::{FileEncoding, FileOptions, SourceError, Start};
use crate::sources::{
    Encoding, FilePosition, Item, MAX_CHUNK_BYTES, Notice, Outlet, Saved, SourceIndex, SourceState,
    Stopped, TAIL_BYTES,
};

/// So few files that their state is shown after every round.
const FEW_FILES: usize = 64;
/// Scans that look for a vanished content before it is given up.
pub(crate) const SEARCH_SCANS: u32 = 3;
/// Scans that wait for a compressed copy that is not whole yet.
pub(crate) const PARTIAL_COPY_SCANS: u32 = 60;

/// File times come from a clock that ticks more coarsely than ours.
const CLOCK_SLACK_NS: i64 = 10_000_000;

/// What one step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Items handed on.
    pub items: u64,
    /// Bytes read and handed on.
    pub bytes: u64,
    /// There is more to read at once.
    pub more: bool,
    /// Something happened that a scan should look at at once.
    pub rescan: bool,
}

/// A base path beside which rotated files may stand that nobody has read.
pub(crate) struct Hunt {
    pub(crate) path: PathBuf,
    /// Files changed before this time were read or were old when we first came; `i64::MAX` if
    /// nothing was ever read here: then only what was born since our start is new.
    pub(crate) since_ns: i64,
    pub(crate) tries_left: u32,
}

/// Reads files; see the module's text.
pub struct Tailer {
    pub(crate) options: FileOptions,
    pub(crate) source: SourceIndex,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) walk: Walk,
    pub(crate) cutter: Cutter,
    pub(crate) readers: BTreeMap<ReaderId, Reader>,
    pub(crate) next_id: ReaderId,
    pub(crate) by_inode: HashMap<Inode, ReaderId>,
    pub(crate) done: Vec<Done>,
    pub(crate) hunts: Vec<Hunt>,
    /// Files that were looked at and left alone, until they change.
    pub(crate) left_alone: HashMap<Inode, (u64, i64)>,
    /// First records of compressed files, by inode, size and time.
    pub(crate) probed: HashMap<(Inode, u64, i64), Option<Fingerprint>>,
    /// Rotated compressed files that cannot be read to their end.
    pub(crate) damaged: HashMap<Inode, Damaged>,
    /// Files that hold something and could not be opened yet: path and size.
    pub(crate) blind: HashMap<Inode, (PathBuf, u64)>,
    pub(crate) troubles: BTreeMap<PathBuf, String>,
    /// Gaps that have been noticed and not yet handed on.
    pub(crate) owed: Vec<Notice>,
    pub(crate) buffer: Vec<u8>,
    pub(crate) round: u64,
    pub(crate) scans: u64,
    pub(crate) progress: Progress,
    pub(crate) found: Found,
    saved: Option<Saved>,
    pub(crate) started_ns: i64,
    /// What was there before is left out by wish (`start: end`): files changed before are not hunted.
    pub(crate) left_out_ns: i64,
    /// Nothing was ever saved: files that are there now may be begun at their end.
    pub(crate) first_start: bool,
}

impl Tailer {
    /// An engine that goes on from `saved`.
    ///
    /// # Errors
    /// A pattern that is none.
    pub fn new(
        options: FileOptions,
        source: SourceIndex,
        clock: Arc<dyn Clock>,
        saved: Saved,
    ) -> Result<Self, SourceError> {
        let options = options.checked()?;
        let walk = Walk::new(&options.paths, &options.exclude)
            .map_err(|error| SourceError::Pattern { text: error.to_string() })?;
        Ok(Self {
            walk,
            cutter: options.cutter()?,
            first_start: saved.is_empty(),
            started_ns: clock.now().micros().saturating_mul(1_000).saturating_sub(CLOCK_SLACK_NS),
            left_out_ns: i64::MIN,
            saved: Some(saved),
            options,
            source,
            clock,
            readers: BTreeMap::new(),
            next_id: 0,
            by_inode: HashMap::new(),
            done: Vec::new(),
            hunts: Vec::new(),
            left_alone: HashMap::new(),
            probed: HashMap::new(),
            damaged: HashMap::new(),
            owed: Vec::new(),
            blind: HashMap::new(),
            troubles: BTreeMap::new(),
            buffer: vec![0; TAIL_BYTES + MAX_CHUNK_BYTES],
            round: 0,
            scans: 0,
            progress: Progress::default(),
            found: Found::default(),
        })
    }

    /// One scan and one round of reading.
    ///
    /// # Errors
    /// The pipeline has stopped.
    pub fn step(&mut self, outlet: &mut dyn Outlet) -> Result<Progress, Stopped> {
        self.progress = Progress::default();
        self.scan(outlet)?;
        // The scan has just looked at all of them: who is at rest is left alone.
        self.round(Some(&HashSet::new()), outlet)?;
        Ok(self.progress)
    }

    /// One round of reading from the files that are known: what a wake-up calls for.
    ///
    /// # Errors
    /// The pipeline has stopped.
    pub fn read(&mut self, outlet: &mut dyn Outlet) -> Result<Progress, Stopped> {
        self.progress = Progress::default();
        self.round(None, outlet)?;
        Ok(self.progress)
    }

    /// The same where notifications say which files were written to. False where one of the paths
    /// is none of ours: then it may be another name of a file of ours.
    ///
    /// # Errors
    /// The pipeline has stopped.
    pub(crate) fn read_touched(
        &mut self,
        paths: &HashSet<PathBuf>,
        outlet: &mut dyn Outlet,
    ) -> Result<(Progress, bool), Stopped> {
        self.progress = Progress::default();
        let mut touched = HashSet::new();
        let mut all_known = true;
        for path in paths {
            let named = self.found.targets.get(path).unwrap_or(path);
            let stat = self.found.files.get(named);
            match stat.and_then(|stat| self.by_inode.get(&stat.inode)) {
                Some(id) => {
                    touched.insert(*id);
                }
                None => all_known = false,
            }
        }
        for id in &touched {
            // A closed file is opened for it.
            if let Some(reader) = self.readers.get_mut(id)
                && !reader.is_open()
            {
                reader.idle = None;
            }
        }
        self.round(Some(&touched), outlet)?;
        Ok((self.progress, all_known))
    }

    /// Nothing is on its way: what happens next begins with a notification, where there are any.
    pub(crate) fn is_settled(&self) -> bool {
        let is_settled = |reader: &Reader| {
            matches!(reader.place, Place::Inode(_))
                && !reader.is_moved()
                && !reader.held
                && reader.back_off.0 == 0
        };
        self.hunts.is_empty()
            && self.troubles.is_empty()
            && self.blind.is_empty()
            && self.readers.values().all(is_settled)
    }

    /// When a record that waits for its end is taken as it is, on the monotonic clock.
    pub(crate) fn next_flush(&self) -> Option<std::time::Duration> {
        let flush = self.options.multiline.as_ref()?.flush;
        let pending = self.readers.values().filter_map(|reader| reader.pending);
        pending.min().map(|since| since.saturating_add(flush))
    }

    /// Has this reader's last record waited long enough?
    pub(crate) fn is_silent(&self, reader: &Reader) -> bool {
        let Some(multiline) = &self.options.multiline else { return false };
        let now = self.clock.monotonic();
        reader.pending.is_some_and(|since| now.saturating_sub(since) >= multiline.flush)
    }

    /// How a reader's bytes are text, as far as it is known.
    pub(crate) fn encoding_of(&self, reader: &Reader) -> Encoding {
        match self.options.encoding {
            FileEncoding::Fixed(encoding) => encoding,
            FileEncoding::Utf16 => reader.order.unwrap_or(Encoding::Utf16Le),
        }
    }

    /// Learns a content's byte order from its first bytes.
    pub(crate) fn learn_order(
        &self,
        reader: &mut Reader,
        head: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        if self.options.encoding != FileEncoding::Utf16 || reader.order.is_some() {
            return Ok(());
        }
        let mut mark = [0; 2];
        if head(&mut mark)? == mark.len() {
            let is_be = mark[..] == *Encoding::Utf16Be.mark();
            reader.order = Some(if is_be { Encoding::Utf16Be } else { Encoding::Utf16Le });
        }
        Ok(())
    }

    /// What it shows of itself.
    #[must_use]
    pub fn state(&self) -> SourceState {
        let open = self.readers.values().filter(|reader| !reader.is_missing()).count();
        SourceState {
            files: u64::try_from(open).unwrap_or(u64::MAX),
            behind_bytes: self.readers.values().map(Reader::behind).fold(0, u64::saturating_add),
            trouble: self.troubles.values().next().cloned(),
            sizes: self.readers.values().filter_map(Reader::seen_size).collect(),
        }
    }

    /// Are the files so few that their state can be shown after every round?
    pub(crate) fn is_small(&self) -> bool {
        self.readers.len() <= FEW_FILES
    }

    /// Directories to be watched, as the last scan found them.
    pub(crate) fn watched_dirs(&self) -> impl Iterator<Item = &Path> {
        let targets = self.found.link_dirs.iter().map(PathBuf::as_path);
        self.found.dirs.iter().map(PathBuf::as_path).chain(targets)
    }

    /// Takes up what was saved; only once, before the first scan.
    pub(crate) fn begin(&mut self, outlet: &mut dyn Outlet) -> Result<(), Stopped> {
        let Some(mut saved) = self.saved.take() else { return Ok(()) };
        let began = saved.iter().find(|position| is_marker(position));
        self.left_out_ns = began.map_or(self.left_out_ns, |marker| marker.modified_ns);
        saved.retain(|position| !is_marker(position));
        saved.sort_by_key(|position| position.modified_ns);
        for position in saved {
            let path = path_from_text(&position.path);
            // What stood at the base may be gone, and the oldest beside it unread.
            if let Some(base) = numbered_base(&path).filter(|base| self.walk.matches(base)) {
                self.hunt(base);
            }
            self.hunt(path);
            if position.segment == FINISHED {
                self.done.push(Done::of(position));
            } else {
                self.insert(Reader::saved(&position, SEARCH_SCANS));
            }
        }
        // Siblings of what was read last may be newer than it.
        let paths: Vec<PathBuf> = self.hunts.drain(..).map(|hunt| hunt.path).collect();
        for path in paths {
            self.hunt(path);
        }
        if self.first_start && self.options.start == Start::End {
            let position = marker(self.clock.now());
            self.left_out_ns = position.modified_ns;
            self.put(outlet, Item::Moved { source: self.source, position })?;
        }
        Ok(())
    }

    pub(crate) fn insert(&mut self, reader: Reader) -> ReaderId {
        let id = self.next_id;
        self.next_id += 1;
        if !reader.is_missing() && !matches!(reader.place, Place::Archive(_)) {
            self.by_inode.insert(reader.inode, id);
        }
        self.readers.insert(id, reader);
        id
    }

    /// Takes a reader out, and its claim on its inode with it.
    pub(crate) fn remove(&mut self, id: ReaderId) -> Option<Reader> {
        let reader = self.readers.remove(&id)?;
        if self.by_inode.get(&reader.inode) == Some(&id) {
            self.by_inode.remove(&reader.inode);
        }
        Some(reader)
    }

    /// Says what is lost, before anything else is handed on.
    pub(crate) fn pay(&mut self, outlet: &mut dyn Outlet) -> Result<(), Stopped> {
        for notice in std::mem::take(&mut self.owed) {
            self.put(outlet, Item::Gap(notice))?;
        }
        Ok(())
    }

    /// A gap of this source.
    pub(crate) fn notice(&self, code: &'static str, path: &Path, text: String) -> Notice {
        let path = Some(path_text(path));
        Notice { path, ..Notice::new(self.source, code, text, self.clock.now()) }
    }

    pub(crate) fn put(&mut self, outlet: &mut dyn Outlet, item: Item) -> Result<(), Stopped> {
        self.progress.items += 1;
        outlet.put(item)
    }

    /// The number of a new content of `inode` that begins with this record.
    pub(crate) fn next_generation(&self, inode: Inode, first: Fingerprint) -> u32 {
        let live = self
            .readers
            .values()
            .filter_map(|reader| reader.known.as_ref())
            .map(|known| &known.identity);
        let done = self.done.iter().map(|done| &done.position.identity);
        live.chain(done)
            .filter(|identity| identity.fingerprint == first && Inode::of(identity) == inode)
            .map(|identity| identity.generation.saturating_add(1))
            .max()
            .unwrap_or(0)
    }

    /// Must this reader let others go first?
    pub(crate) fn is_blocked(&self, reader: &Reader) -> bool {
        let here = if reader.is_unbegun() { Some(&reader.path) } else { reader.at.as_ref() };
        let hunted = here.is_some_and(|here| self.hunts.iter().any(|hunt| hunt.path == *here));
        hunted
            || reader.after.iter().any(|id| self.readers.get(id).is_some_and(Reader::is_waited_for))
    }
}

/// A position that names no file: it says that this source has been started before, so that
/// `start: end` is not applied again to files that have appeared since.
fn marker(now: Timestamp) -> FilePosition {
    FilePosition {
        identity: FileIdentity {
            born_ns: 0,
            dev: 0,
            fingerprint: Fingerprint([0; 16]),
            generation: 0,
            ino: 0,
        },
        offset: Offset(0),
        segment: FINISHED,
        path: String::new(),
        tail: Fingerprint::of(b""),
        modified_ns: now.micros().saturating_mul(1_000),
    }
}

fn is_marker(position: &FilePosition) -> bool {
    position.identity.ino == 0 && position.path.is_empty()
}
