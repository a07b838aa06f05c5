//! Scanning: which of the files that stand on disk belong to which reader, and which are new.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use custody_event::position::Fingerprint;

use super::content::{Head, head_of, len64, read_at, tail_of};
use super::cut::SKIP_LINE;
use super::names::{family, is_compressed_name, is_rotation_of, numbered_base};
use super::reader::{Done, Missing, Place, Reader, ReaderId};
use super::search::siblings;
use super::stat::{Inode, Stat, stat_file};
use super::tailer::{Hunt, SEARCH_SCANS, Tailer};
use super::walk::{Found, is_absent};
use super::{Start, trouble};
use crate::sources::{Encoding, Item, Outlet, Stopped};

/// So many files that nothing was read of may be open whatever the limit is: a closed file that is
/// renamed before it has a name is harder to find again.
const UNREAD_OPEN_FILES: usize = 64;

impl Tailer {
    pub(crate) fn scan(&mut self, outlet: &mut dyn Outlet) -> Result<(), Stopped> {
        self.begin(outlet)?;
        self.scans += 1;
        let found = self.walk.look();
        self.refresh_troubles(&found);
        let unreadable = self.attach(&found);
        self.pay(outlet)?;
        self.notice_vanished_blind(&found, outlet)?;
        self.search_missing(&unreadable, outlet)?;
        self.adopt(&found, &unreadable, outlet)?;
        self.found = found;
        self.run_hunts();
        self.retire(outlet)?;
        self.close_quiet();
        self.first_start = false;
        Ok(())
    }

    fn refresh_troubles(&mut self, found: &Found) {
        let failing: HashSet<&Path> = self
            .readers
            .values()
            .filter(|reader| reader.back_off.0 > 0)
            .map(|reader| reader.at.as_deref().unwrap_or(&reader.path))
            .collect();
        self.troubles.retain(|path, _| failing.contains(path.as_path()));
        for (path, error) in &found.errors {
            self.troubles.insert(path.clone(), trouble(path, error));
        }
    }

    /// Tells every reader where its file stands now. Returns the readers whose file stands in its
    /// place and cannot be opened: it is neither searched for nor taken for a new one.
    fn attach(&mut self, found: &Found) -> HashSet<ReaderId> {
        let mut places: HashMap<Inode, Vec<(&Path, &Stat)>> = HashMap::new();
        for (path, stat) in &found.files {
            places.entry(stat.inode).or_default().push((path, stat));
        }
        let mut unreadable = HashSet::new();
        // Mostly every file is where it was: that is noted in place.
        let mut moved: Vec<ReaderId> = Vec::new();
        for (id, reader) in self.readers.iter_mut().rev() {
            match (&reader.place, places.get(&reader.inode)) {
                (Place::Inode(_), Some(here)) => stands(reader, here),
                (Place::Archive(_), _) => {}
                _ => moved.push(*id),
            }
        }
        for id in moved {
            let Some(mut reader) = self.readers.remove(&id) else { continue };
            match places.get(&reader.inode) {
                Some(here) if !self.seen_at(id, &mut reader, here) => {
                    unreadable.insert(id);
                }
                None if matches!(reader.place, Place::Inode(_))
                    && !found.is_blind_for(&reader.path) =>
                {
                    self.vanished(&mut reader);
                }
                _ => {}
            }
            self.readers.insert(id, reader);
        }
        unreadable
    }

    /// A reader's inode stands at paths of ours. False if its file cannot be opened now.
    fn seen_at(&mut self, id: ReaderId, reader: &mut Reader, here: &[(&Path, &Stat)]) -> bool {
        match &reader.place {
            Place::Missing(missing) if !missing.not_at_home => self.take_home(id, reader, here),
            _ => true,
        }
    }

    /// The inode of a saved position stands at a path of ours: is its content still there? False
    /// if that cannot be said now.
    fn take_home(&mut self, id: ReaderId, reader: &mut Reader, here: &[(&Path, &Stat)]) -> bool {
        let Some(((path, stat), expected)) = here.first().zip(reader.sought()) else { return true };
        let path =
            here.iter().find(|(path, _)| *path == reader.path).map_or(*path, |(path, _)| *path);
        if is_compressed_name(path) {
            // What it holds is not read as text: the search looks into it.
            return true;
        }
        let checked = File::open(path).and_then(|file| {
            let now = stat_file(&file)?;
            Ok((now.inode == stat.inode && expected.holds(&file)?, now, file))
        });
        match checked {
            Ok((true, now, file)) if !self.by_inode.contains_key(&reader.inode) => {
                reader.place = Place::Inode(Some(file));
                reader.at = Some(path.to_path_buf());
                reader.dev = now.dev;
                reader.see(&now);
                reader.used = self.round;
                self.by_inode.insert(reader.inode, id);
                true
            }
            Ok(_) => {
                if let Place::Missing(missing) = &mut reader.place {
                    missing.not_at_home = true;
                }
                true
            }
            Err(error) if is_absent(&error) => true,
            Err(error) => {
                self.troubles.insert(path.to_path_buf(), trouble(path, &error));
                if let Place::Missing(missing) = &mut reader.place {
                    missing.blind_scans = missing.blind_scans.saturating_add(1);
                }
                false
            }
        }
    }

    /// No pattern finds the file any more. An open one is read on; a closed one must be found.
    fn vanished(&mut self, reader: &mut Reader) {
        if reader.at.take().is_some() {
            if let Place::Inode(Some(file)) = &reader.place
                && let Ok(stat) = stat_file(file)
            {
                reader.see(&stat);
            }
            self.hunt(reader.path.clone());
        }
        if matches!(reader.place, Place::Inode(None)) && !reopened_beside(reader) {
            self.by_inode.remove(&reader.inode);
            reader.place = Place::Missing(Missing {
                tries: 0,
                tries_left: SEARCH_SCANS,
                unread: Some(reader.largest.max(reader.size).saturating_sub(reader.offset))
                    .filter(|bytes| *bytes > 0),
                truncated: false,
                not_at_home: false,
                blind_scans: 0,
            });
        }
    }

    /// A file that could never be opened and is gone: what it held is lost, and said so.
    fn notice_vanished_blind(
        &mut self,
        found: &Found,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        if self.blind.is_empty() {
            return Ok(());
        }
        let standing: HashSet<Inode> = found.files.values().map(|stat| stat.inode).collect();
        let gone: Vec<(Inode, PathBuf)> = self
            .blind
            .iter()
            .filter(|(inode, (path, _))| !standing.contains(*inode) && !found.is_blind_for(path))
            .map(|(inode, (path, _))| (*inode, path.clone()))
            .collect();
        for (inode, path) in gone {
            let Some((_, size)) = self.blind.remove(&inode) else { continue };
            self.hunt(path.clone());
            let text = format!(
                "{} went away before it could be opened; it held at least {size} bytes",
                path.display()
            );
            let notice = self.notice("unreadable", &path, text);
            self.put(outlet, Item::Gap(notice))?;
        }
        Ok(())
    }

    /// Begins the files that nobody reads, the oldest first.
    fn adopt(
        &mut self,
        found: &Found,
        unreadable: &HashSet<ReaderId>,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        let mut fresh: Vec<(&Path, &Stat)> = Vec::new();
        let mut inodes = HashSet::new();
        for (path, stat) in &found.files {
            let known = self.by_inode.contains_key(&stat.inode)
                || self.left_alone.get(&stat.inode) == Some(&(stat.size, stat.modified_ns));
            if !known && inodes.insert(stat.inode) {
                fresh.push((path, stat));
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let waited: HashSet<Inode> = unreadable
            .iter()
            .filter_map(|id| self.readers.get(id))
            .map(|reader| reader.inode)
            .collect();
        fresh.retain(|(_, stat)| !waited.contains(&stat.inode));
        let kin = Kin::new(self, found);
        // Rotated files before what stands at their base, then the oldest first, then the one
        // that has been rotated more often.
        fresh.sort_by_cached_key(|(path, stat)| {
            let times_rotated = std::cmp::Reverse((path.as_os_str().len(), path.to_path_buf()));
            (kin.base(path).is_none(), stat.modified_ns, times_rotated)
        });
        let mut begun: Vec<(PathBuf, ReaderId)> = Vec::new();
        let mut open = self.open_files();
        for (path, stat) in fresh {
            if is_compressed_name(path) {
                log::debug!(path:% = path.display(); "a compressed file is not read as text");
                self.left_alone.insert(stat.inode, (stat.size, stat.modified_ns));
                continue;
            }
            let Some(id) = self.adopt_one(path, stat, outlet)? else { continue };
            open += 1;
            if open > self.options.max_open_files.max(UNREAD_OPEN_FILES) {
                // It is opened again when its turn comes.
                open -= usize::from(self.close_unread(id));
            }
            let after = kin.before(self, path, &begun);
            if let Some(reader) = self.readers.get_mut(&id) {
                // Nobody waits for it yet.
                reader.after.extend(after);
            }
            if let Some(base) = kin.line(path) {
                let base = base.as_path();
                self.order_unbegun(id, stat.modified_ns, base);
                // What stands at the base has not been begun: the rotated file came before it.
                self.let_go_first(id, |reader| {
                    reader.offset == 0 && reader.at.as_deref() == Some(base)
                });
            }
            let first = self.first_start;
            if let Some(reader) = self.readers.get_mut(&id) {
                reader.hunted |= stat.size > 0;
                reader.adopted = Some(self.scans);
            }
            if stat.size > 0 && !first {
                // Packed ones beside a numbered one are rotations of a base that may be gone.
                let base = kin.line(path).filter(|base| self.walk.matches(base));
                self.hunt(base.unwrap_or_else(|| path.to_path_buf()));
            }
            begun.push((path.to_path_buf(), id));
        }
        Ok(())
    }

    fn adopt_one(
        &mut self,
        path: &Path,
        stat: &Stat,
        outlet: &mut dyn Outlet,
    ) -> Result<Option<ReaderId>, Stopped> {
        let opened = File::open(path).and_then(|file| Ok((stat_file(&file)?, file)));
        let (now, file) = match opened {
            Ok((now, file)) if now.inode == stat.inode => (now, file),
            Ok(_) => {
                self.progress.rescan = true;
                return Ok(None);
            }
            Err(error) if is_absent(&error) => {
                self.progress.rescan = true;
                return Ok(None);
            }
            Err(error) => {
                self.troubles.insert(path.to_path_buf(), trouble(path, &error));
                if stat.size > 0 {
                    self.blind.insert(stat.inode, (path.to_path_buf(), stat.size));
                }
                return Ok(None);
            }
        };
        self.blind.remove(&stat.inode);
        self.left_alone.remove(&stat.inode);
        let reader = match self.revive(&now, &file) {
            Revived::Nothing => {
                self.left_alone.insert(now.inode, (now.size, now.modified_ns));
                return Ok(None);
            }
            Revived::Reader(mut reader) => {
                reader.place = Place::Inode(Some(file));
                reader.at = Some(path.to_path_buf());
                reader.see(&now);
                *reader
            }
            Revived::New => {
                let mut reader = Reader::fresh(path, Some(path.to_path_buf()), &now, Some(file));
                if self.first_start && self.options.start == Start::End {
                    self.start_at_end(&mut reader, outlet)?;
                }
                reader
            }
        };
        Ok(Some(self.insert(reader)))
    }

    fn close_unread(&mut self, id: ReaderId) -> bool {
        let Some(reader) = self.readers.get_mut(&id) else { return false };
        reader.place = Place::Inode(None);
        true
    }

    /// Was this inode read to its end before, and has it grown since?
    fn revive(&mut self, stat: &Stat, file: &File) -> Revived {
        let mine = |done: &Done| {
            done.inode() == stat.inode && done.expected().holds(file).unwrap_or(false)
        };
        let Some(at) = self.done.iter().rposition(mine) else { return Revived::New };
        if self.done[at].position.offset.get() >= stat.size {
            return Revived::Nothing;
        }
        let done = self.done.remove(at);
        Revived::Reader(Box::new(Reader::saved(&done.position, SEARCH_SCANS)))
    }

    /// At the very first start, by wish: what is there is not read, and that is made durable.
    fn start_at_end(
        &mut self,
        reader: &mut Reader,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        let Place::Inode(Some(file)) = &reader.place else { return Ok(()) };
        let Ok(file) = file.try_clone() else { return Ok(()) };
        if self.learn_order(reader, |head| read_at(&file, head, 0)).is_err() {
            return Ok(());
        }
        let encoding = self.encoding_of(reader);
        let size = reader.size - reader.size % len64(encoding.unit());
        let Ok(end) = end_of(&file, size, encoding) else { return Ok(()) };
        let Some((first, tail, in_line)) = end else { return Ok(()) };
        reader.name(first, 0);
        reader.offset = size;
        reader.tail = tail;
        reader.segment = if in_line { SKIP_LINE } else { 0 };
        let Some(position) = reader.position() else { return Ok(()) };
        self.put(outlet, Item::Moved { source: self.source, position })
    }

    /// Looks beside `path` for rotated files that nobody has read.
    pub(crate) fn hunt(&mut self, path: PathBuf) {
        if self.hunts.iter().any(|hunt| hunt.path == path) {
            return;
        }
        let ours = |other: &Path| other == path || is_rotation_of(&path, other);
        // What patterns have just found says nothing of what stands beside it: packed files that are
        // older may be unread all the same.
        let is_old = |reader: &Reader| {
            let scans = u64::from(SEARCH_SCANS);
            reader.adopted.is_none_or(|scan| self.scans > scan.saturating_add(scans))
        };
        let readers = self
            .readers
            .values()
            .filter(|reader| {
                reader.known.is_some()
                    && is_old(reader)
                    && ours(&reader.path)
                    && reader.at.as_deref() != Some(&path)
            })
            .map(|reader| reader.modified_ns);
        let done =
            self.done.iter().filter(|done| ours(&done.path)).map(|done| done.position.modified_ns);
        let since_ns = readers.chain(done).max().unwrap_or(i64::MAX).max(self.left_out_ns);
        self.hunts.push(Hunt { path, since_ns, tries_left: SEARCH_SCANS });
    }
}

/// Opens a file again that has no name of its own yet and was renamed while it was closed.
fn reopened_beside(reader: &mut Reader) -> bool {
    if reader.known.is_some() {
        return false;
    }
    let near = siblings(&reader.path).unwrap_or_default();
    let opened =
        near.iter().filter(|sibling| sibling.stat.inode == reader.inode).find_map(|sibling| {
            let file = File::open(&sibling.path).ok()?;
            let stat = stat_file(&file).ok()?;
            (stat.inode == reader.inode).then_some((file, stat))
        });
    let Some((file, stat)) = opened else { return false };
    reader.place = Place::Inode(Some(file));
    reader.see(&stat);
    true
}

enum Revived {
    /// Never seen.
    New,
    /// Read to its end, and it has not grown.
    Nothing,
    /// It goes on.
    Reader(Box<Reader>),
}

fn stands(reader: &mut Reader, here: &[(&Path, &Stat)]) {
    let Some((first, stat)) = here.first() else { return };
    let known = |wanted: &Path| here.iter().any(|(path, _)| *path == wanted);
    if known(&reader.path) {
        reader.at = Some(reader.path.clone());
    } else if !reader.at.as_deref().is_some_and(known) {
        reader.at = Some(first.to_path_buf());
    }
    reader.see(stat);
    reader.recheck = reader.held;
}

/// First record, tail, and whether the end stands within a line.
fn end_of(
    file: &File,
    size: u64,
    encoding: Encoding,
) -> std::io::Result<Option<(Fingerprint, Fingerprint, bool)>> {
    let Head::Record(first) = head_of(file)? else { return Ok(None) };
    let mut last = [0; 2];
    let last = &mut last[..encoding.unit()];
    let got = read_at(file, last, size.saturating_sub(len64(last.len())))?;
    let in_line = got == last.len() && encoding.line_end(last) != Some(0);
    Ok(tail_of(file, size)?.map(|tail| (first, tail, in_line)))
}

/// Who is related to whom by name, indexed once a pass.
struct Kin {
    readers: HashMap<(PathBuf, Vec<u8>), Vec<ReaderId>>,
    files: HashMap<(PathBuf, Vec<u8>), Vec<PathBuf>>,
}

impl Kin {
    fn new(tailer: &Tailer, found: &Found) -> Self {
        let mut kin = Self { readers: HashMap::new(), files: HashMap::new() };
        for (id, reader) in &tailer.readers {
            kin.readers.entry(family(&reader.path)).or_default().push(*id);
        }
        let read = tailer.readers.values().map(|reader| &reader.path);
        for path in found.files.keys().chain(read) {
            kin.files.entry(family(path)).or_default().push(path.clone());
        }
        kin
    }

    /// The path that what stands at `path` was rotated away from, if it is known.
    fn base(&self, path: &Path) -> Option<&PathBuf> {
        let bases = self.files.get(&family(path))?.iter();
        bases.filter(|base| is_rotation_of(base, path)).min_by_key(|base| base.as_os_str().len())
    }

    /// The same, by the name alone where nothing stands there and nobody has read it.
    fn line(&self, path: &Path) -> Option<PathBuf> {
        self.base(path).cloned().or_else(|| numbered_base(path))
    }

    /// The readers whose content came before what stands at `path` now.
    fn before(&self, tailer: &Tailer, path: &Path, begun: &[(PathBuf, ReaderId)]) -> Vec<ReaderId> {
        let key = family(path);
        let base = self.line(path);
        let came_before = |reader: &Reader| came_before(path, base.as_deref(), reader);
        let ids = self.readers.get(&key).map_or(&[][..], Vec::as_slice);
        let mut after: Vec<ReaderId> = ids
            .iter()
            .filter(|id| tailer.readers.get(id).is_some_and(came_before))
            .copied()
            .collect();
        let same_line = |other: &Path| {
            is_rotation_of(path, other)
                || base.as_ref().is_some_and(|base| is_rotation_of(base, other))
        };
        after.extend(begun.iter().filter(|(other, _)| same_line(other)).map(|(_, id)| *id));
        after
    }
}

/// Did a reader's content come before what stands at `path`, which was rotated away from `base`?
fn came_before(path: &Path, base: Option<&Path>, reader: &Reader) -> bool {
    let left_its_place = reader.at.as_deref() != Some(&reader.path);
    let has_begun = !reader.is_unbegun() || reader.is_missing();
    // Of the rotated files the oldest are begun first.
    let was_found_rotated = base.is_some_and(|base| is_rotation_of(base, &reader.path));
    (left_its_place && (reader.path == path || (has_begun && is_rotation_of(&reader.path, path))))
        || (has_begun && was_found_rotated)
        || is_rotation_of(path, &reader.path)
}
