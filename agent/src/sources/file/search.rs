//! Searching: where has a content gone that is no longer where it was, and what has been rotated
//! that nobody has read?
//!
//! A content is found by its inode, or by its bytes: the first record and the bytes before the
//! offset must be the same. A copy of what has been read is never read again; only what lies
//! beyond our offset is, under the original identity and at its logical offsets.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::content::{Archive, Expected, Form, Verdict, len64, tail_len};
use super::names::{is_compressed_name, is_rotation_of, stem, uncompressed};
use super::reader::{Missing, Place, Reader, ReaderId};
use super::stat::{Inode, Stat, stat_path};
use super::tailer::{Hunt, PARTIAL_COPY_SCANS, Tailer};
use crate::sources::{Outlet, Stopped};

/// Scans after which a copy that is damaged behind the offset is read as far as it goes.
const DAMAGED_SCANS: u32 = 5;

/// Damaged files remembered, at most.
const MAX_DAMAGED: usize = 1_024;

/// A compressed file that nobody has read and that cannot be read to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Damaged {
    look: (u64, i64),
    /// Scans that have found it so.
    looks: u32,
    /// Scans that have found it, growing or not.
    all_looks: u32,
    last_scan: u64,
    is_told: bool,
}

impl Damaged {
    fn is_waited_for(&self, scan: u64) -> bool {
        !self.is_told && self.last_scan == scan
    }
}

/// A file beside another one.
pub(crate) struct Sibling {
    pub(crate) path: PathBuf,
    pub(crate) stat: Stat,
}

pub(crate) enum Search {
    Plain(PathBuf, File, Stat),
    Packed(PathBuf),
    /// A copy that is not whole yet.
    Later,
    /// A copy that is damaged behind the offset.
    Damaged(PathBuf),
    Nothing,
}

impl Search {
    pub(crate) fn found(form: Form, sibling: Sibling) -> Self {
        match form {
            Form::Plain(file) => Self::Plain(sibling.path, file, sibling.stat),
            Form::Packed(path) => Self::Packed(path),
        }
    }
}

fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
}

/// The files of `path`'s directory that share its stem.
pub(crate) fn siblings(path: &Path) -> io::Result<Vec<Sibling>> {
    let Some(dir) = path.parent() else { return Ok(Vec::new()) };
    let stem = stem(path);
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().as_bytes().starts_with(stem) {
            continue;
        }
        let path = entry.path();
        if let Ok(stat) = stat_path(&path)
            && stat.is_file
        {
            out.push(Sibling { path, stat });
        }
    }
    Ok(out)
}

impl Tailer {
    /// One try for each content that is missing.
    pub(crate) fn search_missing(
        &mut self,
        waiting: &HashSet<ReaderId>,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        let missing = |(id, reader): (&ReaderId, &Reader)| {
            (reader.is_missing() && !waiting.contains(id)).then_some(*id)
        };
        let mut ids: Vec<ReaderId> = self.readers.iter().filter_map(missing).collect();
        // Who has read most knows best which file is its own.
        ids.sort_by_key(|id| std::cmp::Reverse(self.readers.get(id).map(|reader| reader.offset)));
        for id in ids {
            let Some(reader) = self.readers.remove(&id) else { continue };
            self.search_one(id, reader, outlet)?;
        }
        Ok(())
    }

    fn search_one(
        &mut self,
        id: ReaderId,
        mut reader: Reader,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        let outcome = self.search(&reader);
        let is_emptied = match &outcome {
            Ok(Search::Plain(_, _, stat)) if stat.inode == home(&reader) => false,
            Ok(Search::Packed(path) | Search::Damaged(path)) if is_home(&reader, path) => false,
            Ok(Search::Plain(..) | Search::Packed(_) | Search::Damaged(_)) => {
                self.lives_on(&reader)
            }
            _ => false,
        };
        let Place::Missing(missing) = &mut reader.place else { return Ok(()) };
        missing.tries += 1;
        missing.blind_scans = if outcome.is_err() { missing.blind_scans + 1 } else { 0 };
        let tries = missing.tries;
        if missing.truncated || missing.not_at_home || is_emptied {
            reader.emptied = Some(reader.largest);
        }
        match outcome {
            Ok(Search::Plain(path, file, stat)) => self.go_on_in(id, reader, &path, file, &stat),
            Ok(Search::Packed(path)) => self.unpack(id, reader, &path),
            Ok(Search::Damaged(path)) if tries >= DAMAGED_SCANS => self.unpack(id, reader, &path),
            Ok(Search::Later | Search::Damaged(_)) if tries < PARTIAL_COPY_SCANS => {
                self.readers.insert(id, reader);
            }
            Ok(Search::Nothing | Search::Later | Search::Damaged(_)) => {
                missing.tries_left = missing.tries_left.saturating_sub(1);
                if missing.tries_left > 0 {
                    self.readers.insert(id, reader);
                } else {
                    let missing = missing.clone();
                    return self.lost(id, reader, &missing, outlet);
                }
            }
            Err(error) => {
                self.troubles.insert(reader.path.clone(), super::trouble(&reader.path, &error));
                self.readers.insert(id, reader);
            }
        }
        Ok(())
    }

    /// Does the inode stand there that a content was born in, which was found elsewhere?
    fn lives_on(&self, reader: &Reader) -> bool {
        let home = home(reader);
        let beside = |near: Vec<Sibling>| near.iter().any(|sibling| sibling.stat.inode == home);
        self.by_inode.contains_key(&home) || siblings(&reader.path).is_ok_and(beside)
    }

    fn go_on_in(&mut self, id: ReaderId, mut reader: Reader, path: &Path, file: File, stat: &Stat) {
        let other = self.by_inode.get(&stat.inode).copied();
        if let Some(other) = other {
            self.remove(other);
        }
        self.left_alone.remove(&stat.inode);
        reader.is_copy = stat.inode != home(&reader);
        reader.inode = stat.inode;
        reader.dev = stat.dev;
        reader.place = Place::Inode(Some(file));
        reader.at = self.walk.matches(path).then(|| path.to_path_buf());
        reader.see(stat);
        reader.idle = None;
        reader.quiet = (0, 0, 0);
        self.by_inode.insert(stat.inode, id);
        self.readers.insert(id, reader);
        if let Some(other) = other {
            self.let_go_first(id, |reader| reader.after.contains(&other));
        }
    }

    fn unpack(&mut self, id: ReaderId, mut reader: Reader, path: &Path) {
        self.learn_order_of_packed(&mut reader, path);
        let before = len64(tail_len(reader.offset));
        let opened = Archive::open(path).and_then(|mut archive| {
            let there = archive.skip_to(reader.offset - before)?;
            Ok(there.then_some((archive, stat_path(path)?)))
        });
        if let Ok(Some((archive, stat))) = opened {
            // Its own inode may hold something else by now, which is somebody else's.
            reader.inode = stat.inode;
            reader.place = Place::Archive(Box::new(archive));
            reader.is_copy = true;
            reader.at = None;
        }
        self.readers.insert(id, reader);
    }

    /// What fails here fails again where the copy is read, and is said there.
    pub(crate) fn learn_order_of_packed(&self, reader: &mut Reader, path: &Path) {
        let learnt = self.learn_order(reader, |head| {
            let mut archive = Archive::open(path)?;
            archive.fill(head.len())?;
            let got = archive.pending.len().min(head.len());
            head[..got].copy_from_slice(&archive.pending[..got]);
            Ok(got)
        });
        if let Err(error) = learnt {
            log::debug!(path:% = path.display(), error:% = error; "a compressed file's first bytes cannot be read");
        }
    }

    fn search(&self, reader: &Reader) -> io::Result<Search> {
        let Some(expected) = reader.sought() else { return Ok(Search::Nothing) };
        let mut near = match siblings(&reader.path) {
            Ok(near) => near,
            Err(error) if super::walk::is_absent(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        near.retain(|sibling| self.is_free(&sibling.stat.inode));
        if let Some(search) = search_inode(reader, &expected, &near)? {
            return Ok(search);
        }
        if expected.offset == 0 {
            // Nothing was read and no more is known than how it began, as many files may: whatever
            // holds it is found as a new file.
            return Ok(Search::Nothing);
        }
        self.search_copies(reader, &expected, near)
    }

    /// Nobody reads this inode under a name of its own.
    fn is_free(&self, inode: &Inode) -> bool {
        let owner = self.by_inode.get(inode).and_then(|id| self.readers.get(id));
        owner.is_none_or(|owner| owner.known.is_none())
    }

    /// Takes up rotated files beside the hunted paths, the oldest first.
    pub(crate) fn run_hunts(&mut self) {
        let mut listed: HashMap<PathBuf, Option<Vec<PathBuf>>> = HashMap::new();
        for mut hunt in std::mem::take(&mut self.hunts) {
            let dir = hunt.path.parent().map(Path::to_path_buf).unwrap_or_default();
            let names = listed.entry(dir).or_insert_with_key(|dir| list(dir).ok());
            let unfinished = names.as_ref().is_none_or(|names| self.run_hunt(&hunt, names));
            hunt.tries_left = hunt.tries_left.saturating_sub(1);
            if self.damaged.values().any(|damaged| damaged.is_waited_for(self.scans)) {
                hunt.tries_left = hunt.tries_left.max(1);
            }
            if unfinished && hunt.tries_left > 0 {
                self.hunts.push(hunt);
            }
        }
    }

    /// True if a try later may find more.
    fn run_hunt(&mut self, hunt: &Hunt, names: &[PathBuf]) -> bool {
        let mut near: Vec<Sibling> = names
            .iter()
            .filter(|path| {
                is_rotation_of(&hunt.path, path)
                    && (is_compressed_name(path) || !self.walk.matches(path))
                    && uncompressed(path)
                        .is_none_or(|plain| plain == hunt.path || !names.contains(&plain))
            })
            .filter_map(|path| Some(Sibling { path: path.clone(), stat: stat_path(path).ok()? }))
            .collect();
        near.retain(|Sibling { stat, .. }| {
            stat.is_file
                && stat.size > 0
                && self.is_newer(stat, hunt)
                && self.is_unknown(&stat.inode)
                && !self.is_told(stat)
        });
        near.sort_by_key(|sibling| {
            let name = uncompressed(&sibling.path).unwrap_or_else(|| sibling.path.clone());
            (sibling.stat.modified_ns, std::cmp::Reverse((name.as_os_str().len(), name)))
        });
        let line = self.line_of(&hunt.path);
        let mut before =
            self.ids_of(|reader| reader.was_rotated_from(&line) && !reader.is_unbegun());
        // What stands at the line's place knows of those that were found rotated themselves.
        let mut first = self.ids_of(|reader| reader.stood_at(&line) && !reader.is_unbegun());
        let mut unfinished = false;
        for sibling in near {
            match self.take_up(&sibling) {
                Ok(Some(mut reader)) => {
                    if matches!(reader.place, Place::Archive(_)) {
                        // Its time may be that of the packing, later than that of others beside.
                        let before_ns = Some(hunt.since_ns).filter(|since| *since < i64::MAX);
                        let most = before_ns.unwrap_or(self.started_ns);
                        reader.modified_ns = reader.modified_ns.min(most);
                    }
                    reader.after.clone_from(&before);
                    reader.hunted = true;
                    let id = self.insert(reader);
                    self.order_unbegun(id, sibling.stat.modified_ns, &line);
                    before.push(id);
                    first.push(id);
                }
                Ok(None) => {}
                Err(_) => unfinished = true,
            }
        }
        for id in first {
            self.let_go_first(id, |reader| {
                reader.at.as_deref() == Some(&line) && reader.path == line
            });
        }
        unfinished
    }

    /// The path that what stood at `path` was rotated away from, if it is known; or `path`.
    fn line_of(&self, path: &Path) -> PathBuf {
        let known = self.found.files.keys().chain(self.readers.values().map(|reader| &reader.path));
        let bases = known.filter(|base| is_rotation_of(base, path));
        bases.min_by_key(|base| base.as_os_str().len()).map_or(path.to_path_buf(), PathBuf::clone)
    }

    /// Of the rotated files that have not been begun, who was written first comes first.
    pub(crate) fn order_unbegun(&mut self, id: ReaderId, written_ns: i64, line: &Path) {
        let unbegun = self.ids_of(|reader| {
            reader.was_rotated_from(line) && reader.is_unbegun() && !reader.is_missing()
        });
        for other in unbegun.into_iter().filter(|other| *other != id) {
            let seen_ns = self.readers.get(&other).map_or(0, |other| other.seen_ns);
            if seen_ns > written_ns {
                self.put_after(other, id);
            } else {
                self.put_after(id, other);
            }
        }
    }

    /// Reader `id` comes before these.
    pub(crate) fn let_go_first(&mut self, id: ReaderId, who: impl Fn(&Reader) -> bool) {
        for other in self.ids_of(who) {
            self.put_after(other, id);
        }
    }

    /// One reader waits for another; but nobody ever waits, over others, for himself: what was
    /// known first stands.
    pub(crate) fn put_after(&mut self, id: ReaderId, earlier: ReaderId) {
        let knows = |reader: &Reader| reader.after.contains(&earlier);
        if self.readers.get(&id).is_none_or(knows) || self.all_before(earlier).contains(&id) {
            return;
        }
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.after.push(earlier);
        }
    }

    /// Whom reader `id` waits for, directly or over others, and itself.
    fn all_before(&self, id: ReaderId) -> HashSet<ReaderId> {
        let mut all = HashSet::new();
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            if all.insert(id) {
                open.extend(self.readers.get(&id).into_iter().flat_map(|reader| &reader.after));
            }
        }
        all
    }

    fn is_newer(&self, stat: &Stat, hunt: &Hunt) -> bool {
        stat.modified_ns >= hunt.since_ns
            || stat.modified_ns.min(stat.inode.born_ns) >= self.started_ns
    }

    pub(crate) fn ids_of(&self, who: impl Fn(&Reader) -> bool) -> Vec<ReaderId> {
        self.readers.iter().filter(|(_, reader)| who(reader)).map(|(id, _)| *id).collect()
    }

    /// It was read as far as it can be, and that was said.
    fn is_told(&self, stat: &Stat) -> bool {
        let seen = self.damaged.get(&stat.inode);
        seen.is_some_and(|seen| seen.is_told && seen.look == (stat.size, stat.modified_ns))
    }

    /// Has a compressed file that cannot be read to its end stayed as it is for long enough to be
    /// read as far as that goes?
    pub(crate) fn is_damaged_for_good(&mut self, stat: &Stat) -> bool {
        let look = (stat.size, stat.modified_ns);
        if self.damaged.len() > MAX_DAMAGED {
            self.damaged.clear();
        }
        let new = Damaged { look, looks: 0, all_looks: 0, last_scan: 0, is_told: false };
        let seen = self.damaged.entry(stat.inode).or_insert(new);
        seen.looks = if seen.look == look { seen.looks + 1 } else { 0 };
        (seen.look, seen.all_looks, seen.last_scan) = (look, seen.all_looks + 1, self.scans);
        seen.is_told = seen.looks >= DAMAGED_SCANS || seen.all_looks >= PARTIAL_COPY_SCANS;
        seen.is_told
    }

    /// Nobody reads this inode now (it may hold something that was read before: see below).
    fn is_unknown(&self, inode: &Inode) -> bool {
        let unpacked =
            |reader: &Reader| matches!(reader.place, Place::Archive(_)) && reader.inode == *inode;
        !self.by_inode.contains_key(inode) && !self.readers.values().any(unpacked)
    }
}

/// The inode that the content was born in.
pub(crate) fn home(reader: &Reader) -> Inode {
    reader.known.as_ref().map_or(reader.inode, |known| Inode::of(&known.identity))
}

fn search_inode(
    reader: &Reader,
    expected: &Expected,
    near: &[Sibling],
) -> io::Result<Option<Search>> {
    let Place::Missing(Missing { not_at_home: false, .. }) = &reader.place else { return Ok(None) };
    for sibling in near.iter().filter(|sibling| sibling.stat.inode == home(reader)) {
        let file = File::open(&sibling.path)?;
        if expected.holds(&file)? {
            return Ok(Some(Search::Plain(sibling.path.clone(), file, sibling.stat)));
        }
        if let Some(search) = search_packed(expected, &sibling.path) {
            return Ok(Some(search));
        }
    }
    Ok(None)
}

/// A content that was first met packed was born in the packed file, and goes on there.
fn search_packed(expected: &Expected, path: &Path) -> Option<Search> {
    if !Archive::is_readable_name(path) {
        return None;
    }
    match Archive::check(path, Some(expected)) {
        Verdict::Continues(_) => Some(Search::Packed(path.to_path_buf())),
        Verdict::Damaged => Some(Search::Damaged(path.to_path_buf())),
        Verdict::Incomplete => Some(Search::Later),
        Verdict::Other => None,
    }
}

/// Is the content's own inode what stands at `path`?
fn is_home(reader: &Reader, path: &Path) -> bool {
    stat_path(path).is_ok_and(|stat| stat.inode == home(reader))
}
