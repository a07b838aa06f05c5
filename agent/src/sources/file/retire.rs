//! Ends: files that were renamed, deleted or copied away are read until they are quiet; what is
//! finished is remembered as long as any form of it exists; long quiet files are closed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use custody_event::Offset;
use custody_event::position::Fingerprint;

use super::content::{Archive, Head, head_of, len64, read_at, tail_len};
use super::cut::FINISHED;
use super::multiline::Ending;
use super::names::{is_compressed_name, stem};
use super::reader::{Done, Missing, Place, Reader, ReaderId};
use super::search::{Sibling, siblings};
use super::stat::{Inode, stat_file};
use super::tailer::Tailer;
use crate::sources::{FilePosition, Item, MAX_CHUNK_BYTES, Notice, Outlet, Stopped};

/// Quiet scans after which a moved file's unfinished last line is taken as it is, if its path
/// has a new file.
const GRACE_SCANS: u32 = 2;
/// The same without a new file at its path; and the time for which a moved file is kept open.
const LINGER_SCANS: u32 = 30;
/// How often finished contents are checked for being gone altogether.
const FORGET_EVERY_SCANS: u64 = 16;
/// Finished contents remembered for one path whose own files do not stand any more, at most.
const MAX_DONE_PER_PATH: usize = 64;
/// Finished contents remembered for one inode that lives on, at most.
const MAX_DONE_PER_INODE: usize = 8;

impl Tailer {
    pub(crate) fn retire(&mut self, outlet: &mut dyn Outlet) -> Result<(), Stopped> {
        // Mostly every file is where it was: there is nothing to ask.
        let mut ids: Vec<ReaderId> = Vec::new();
        for (id, reader) in &mut self.readers {
            if reader.is_moved() || (reader.held && reader.at.is_none()) {
                ids.push(*id);
            } else if matches!(reader.place, Place::Inode(_)) {
                reader.quiet.2 = 0;
            }
        }
        let mut gone = false;
        for id in ids {
            let Some(mut reader) = self.readers.remove(&id) else { continue };
            let end = self.has_ended(&mut reader);
            if reader.held && reader.at.is_none() {
                self.by_inode.retain(|_, owner| *owner != id);
                continue;
            }
            if end.flush {
                self.flush(&mut reader, outlet)?;
            }
            if end.finish {
                gone |= reader.links == 0;
                self.finish(id, reader, outlet)?;
            } else {
                self.readers.insert(id, reader);
            }
        }
        if gone || self.scans.is_multiple_of(FORGET_EVERY_SCANS) {
            self.forget(outlet)?;
        }
        Ok(())
    }

    fn has_ended(&self, reader: &mut Reader) -> End {
        let Place::Inode(file) = &reader.place else { return End::default() };
        if !reader.is_moved() || !reader.is_caught_up() || reader.back_off.0 > 0 {
            reader.quiet.2 = 0;
            return End::default();
        }
        let now = file.as_ref().and_then(|file| stat_file(file).ok());
        let (size, modified_ns) =
            now.map_or((reader.size, reader.seen_ns), |now| (now.size, now.modified_ns));
        if let Some(now) = now {
            reader.links = now.links;
        }
        let grown = (size, modified_ns) != (reader.quiet.0, reader.quiet.1);
        reader.quiet =
            (size, modified_ns, if grown { 0 } else { reader.quiet.2.saturating_add(1) });
        if (size, modified_ns) != (reader.size, reader.seen_ns) {
            return End::default();
        }
        let successor =
            self.found.files.get(&reader.path).is_some_and(|stat| stat.inode != reader.inode);
        let quiet = reader.quiet.2;
        let grace = if successor || reader.is_copy { GRACE_SCANS } else { LINGER_SCANS };
        let linger = if reader.is_copy || reader.links == 0 { grace } else { LINGER_SCANS };
        let rest = size > reader.offset;
        End { flush: quiet >= grace && rest, finish: quiet >= linger && (!rest || quiet > grace) }
    }

    /// Hands on the rest of a content that has no line end.
    fn flush(&mut self, reader: &mut Reader, outlet: &mut dyn Outlet) -> Result<(), Stopped> {
        let before = tail_len(reader.offset);
        if let Err(error) = self.learn_order_of_file(reader) {
            self.troubles.insert(reader.path.clone(), super::trouble(&reader.path, &error));
            return Ok(());
        }
        let encoding = self.encoding_of(reader);
        let mut rest = vec![0; before + self.cutter.max + encoding.unit()];
        let Place::Inode(Some(file)) = &reader.place else { return Ok(()) };
        let from = reader.offset - len64(before);
        let len = match read_at(file, &mut rest, from) {
            Ok(len) if len >= before && Fingerprint::of(&rest[..before]) == reader.tail => len,
            Ok(_) => return Ok(()),
            Err(error) => {
                self.troubles.insert(reader.path.clone(), super::trouble(&reader.path, &error));
                return Ok(());
            }
        };
        if encoding.line_end(&rest[before..len]).is_some() {
            reader.idle = None;
            return Ok(());
        }
        if reader.known.is_none() {
            let first = Fingerprint::of_first_record(&rest[before..len]);
            reader.name(first, self.next_generation(reader.inode, first));
        }
        self.put_last(reader, &rest[..len], before, outlet)
    }

    fn put_last(
        &mut self,
        reader: &mut Reader,
        buffer: &[u8],
        at: usize,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        let mut slicer = self.slicer(reader, Ending::Over);
        let (mut items, mut from) = (Vec::new(), at);
        while let Some((item, used)) = slicer.next(buffer, from) {
            from += used;
            items.push(item);
        }
        self.progress.bytes += len64(from - at);
        items.into_iter().try_for_each(|item| self.put(outlet, item))
    }

    /// The content is read to its end: its position says so, and stays as long as it may be met
    /// again in another form.
    fn finish(
        &mut self,
        id: ReaderId,
        reader: Reader,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        self.by_inode.retain(|_, owner| *owner != id);
        let position = finished(&reader);
        self.done.extend(position.clone().map(Done::of));
        if let Some(seen) = reader.emptied {
            let notice = self.notice_emptied(&reader, seen);
            return self.put(outlet, Item::Gap(Notice { after: position, ..notice }));
        }
        match position {
            Some(position) => self.put(outlet, Item::Moved { source: self.source, position }),
            None => Ok(()),
        }
    }

    /// A file was emptied in place. Between the last look (or the copy) and the emptying lines may
    /// have been written that stand nowhere now.
    fn notice_emptied(&self, reader: &Reader, seen: u64) -> Notice {
        let (path, offset) = (reader.path.display(), reader.offset);
        let lost = seen.checked_sub(offset).filter(|bytes| *bytes > 0);
        let (code, text) = match (lost, reader.is_copy) {
            (Some(bytes), _) => (
                "truncated_unread",
                format!(
                    "{path} was emptied; at least {bytes} bytes from byte {offset} on were seen there and not found again"
                ),
            ),
            (None, true) => (
                "emptied",
                format!(
                    "{path} was copied and emptied; what was written between the two, behind byte {offset}, if anything, is in neither"
                ),
            ),
            (None, false) => (
                "emptied",
                format!(
                    "{path} was emptied; what was written behind byte {offset} just before, if anything, was not seen"
                ),
            ),
        };
        let notice = self.notice(code, &reader.path, text);
        Notice { from: Some(Offset(offset)), bytes: lost, ..notice }
    }

    /// A compressed copy cannot be read on.
    fn damaged(
        &mut self,
        id: ReaderId,
        reader: Reader,
        copy: &Path,
        error: &std::io::Error,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        let (shown, offset) = (copy.display(), reader.offset);
        let how = match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "ends too early",
            _ => "is damaged, or something else stands behind its end",
        };
        let text = format!(
            "{shown} {how} ({error}); what it held from byte {offset} of its text on, if anything, cannot be read"
        );
        let notice = self.notice("compressed_damaged", copy, text);
        self.by_inode.retain(|_, owner| *owner != id);
        let after = finished(&reader);
        self.done.extend(after.clone().map(Done::of));
        self.put(outlet, Item::Gap(Notice { from: Some(Offset(offset)), after, ..notice }))
    }

    /// Nothing continues the content.
    pub(crate) fn lost(
        &mut self,
        id: ReaderId,
        reader: Reader,
        missing: &Missing,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        // Who waited for it waits for those that it waited for.
        for follower in self.ids_of(|other| other.after.contains(&id)) {
            for earlier in &reader.after {
                self.put_after(follower, *earlier);
            }
        }
        let nothing_seen = missing.unread.is_none() && (missing.truncated || reader.offset == 0);
        if nothing_seen {
            return self.finish(id, reader, outlet);
        }
        let path = reader.path.display();
        let offset = reader.offset;
        let (code, text) = match (missing.truncated || missing.not_at_home, missing.unread) {
            (true, Some(bytes)) => (
                "truncated_unread",
                format!(
                    "{path} was emptied when at least {bytes} bytes from byte {offset} on had not been read, and no copy of them was found"
                ),
            ),
            (true, None) => (
                "truncated_unread",
                format!(
                    "{path} was replaced while nobody was reading it; what was written from byte {offset} on, if anything, was not found"
                ),
            ),
            (false, _) => (
                "file_lost",
                format!(
                    "{path} is gone; what was written from byte {offset} on, if anything, was not found"
                ),
            ),
        };
        let notice = Notice {
            from: Some(Offset(offset)),
            after: finished(&reader),
            ..self.notice(code, &reader.path, text)
        };
        self.by_inode.retain(|_, owner| *owner != id);
        self.done.extend(finished(&reader).map(Done::of));
        self.put(outlet, Item::Gap(notice))
    }

    /// One batch out of a compressed copy.
    pub(crate) fn read_archive(
        &mut self,
        id: ReaderId,
        mut reader: Reader,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        let Place::Archive(mut archive) = std::mem::replace(&mut reader.place, Place::Inode(None))
        else {
            return Ok(());
        };
        let failed = archive.fill(tail_len(reader.offset) + MAX_CHUNK_BYTES).err();
        let mut at = tail_len(reader.offset);
        let mut slicer = self.slicer(&mut reader, Ending::Open);
        let (mut items, from) = (0, at);
        while let Some((item, used)) = slicer.next(&archive.pending, at) {
            at += used;
            items += 1;
            outlet.put(item)?;
        }
        self.progress.items += items;
        self.progress.bytes += len64(at - from);
        self.progress.more = true;
        if let Some(error) = failed {
            // What could be unpacked is there, if only a part of a line.
            let pending = std::mem::take(&mut archive.pending);
            self.put_last(&mut reader, &pending, at, outlet)?;
            return self.damaged(id, reader, &archive.path, &error, outlet);
        }
        if archive.ended {
            let pending = std::mem::take(&mut archive.pending);
            self.put_last(&mut reader, &pending, at, outlet)?;
            return self.finish(id, reader, outlet);
        }
        archive.consume(at - tail_len(reader.offset));
        reader.size = reader.size.max(reader.offset);
        reader.place = Place::Archive(archive);
        self.readers.insert(id, reader);
        Ok(())
    }

    /// Forgets the finished contents that exist in no form any more.
    fn forget(&mut self, outlet: &mut dyn Outlet) -> Result<(), Stopped> {
        let mut near: HashMap<(PathBuf, Vec<u8>), Option<Vec<Sibling>>> = HashMap::new();
        let mut per_path: HashMap<PathBuf, usize> = HashMap::new();
        let mut per_inode: HashMap<Inode, usize> = HashMap::new();
        let mut kept = Vec::new();
        for done in std::mem::take(&mut self.done).into_iter().rev() {
            let inode = done.inode();
            let of_inode = per_inode.entry(inode).or_default();
            *of_inode += 1;
            let alive = self.by_inode.contains_key(&inode) && *of_inode <= MAX_DONE_PER_INODE;
            let key = (
                done.path.parent().map(PathBuf::from).unwrap_or_default(),
                stem(&done.path).to_vec(),
            );
            let near = near.entry(key).or_insert_with(|| siblings(&done.path).ok());
            // What stands on disk would be read again: no bound makes it forgotten.
            if *of_inode <= MAX_DONE_PER_INODE
                && near.as_ref().is_some_and(|near| self.stands(inode, near))
            {
                kept.push(done);
                continue;
            }
            let of_path = per_path.entry(done.path.clone()).or_default();
            *of_path += 1;
            let exists = alive || near.as_ref().is_none_or(|near| self.exists(&done, near));
            if exists && *of_path <= MAX_DONE_PER_PATH {
                kept.push(done);
            } else {
                let identity = done.position.identity.clone();
                self.put(outlet, Item::Forget { source: self.source, identity })?;
            }
        }
        kept.reverse();
        self.done = kept;
        self.tidy();
        Ok(())
    }

    /// Does the file itself stand somewhere, and nothing else is read from it?
    fn stands(&self, inode: Inode, near: &[Sibling]) -> bool {
        !self.by_inode.contains_key(&inode)
            && (near.iter().any(|sibling| sibling.stat.inode == inode)
                || self.found.files.values().any(|stat| stat.inode == inode))
    }

    /// Is there any form of it?
    fn exists(&mut self, done: &Done, near: &[Sibling]) -> bool {
        if self.stands(done.inode(), near) {
            return true;
        }
        let first = done.position.identity.fingerprint;
        near.iter().any(|sibling| {
            let owner = self.by_inode.get(&sibling.stat.inode).and_then(|id| self.readers.get(id));
            owner.is_none_or(|owner| owner.known.is_none()) && self.probe(sibling) == Some(first)
        })
    }

    /// The first record of a file beside ours, remembered while it does not change.
    fn probe(&mut self, sibling: &Sibling) -> Option<Fingerprint> {
        let key = (sibling.stat.inode, sibling.stat.size, sibling.stat.modified_ns);
        *self.probed.entry(key).or_insert_with(|| {
            if is_compressed_name(&sibling.path) {
                return Archive::first_record(&sibling.path);
            }
            let file = std::fs::File::open(&sibling.path).ok()?;
            match head_of(&file).ok()? {
                Head::Record(first) => Some(first),
                Head::Incomplete | Head::Compressed => None,
            }
        })
    }

    /// Bounds the memories that are only caches.
    fn tidy(&mut self) {
        let standing: std::collections::HashSet<Inode> =
            self.found.files.values().map(|stat| stat.inode).collect();
        self.left_alone.retain(|inode, _| standing.contains(inode));
        if self.probed.len() > 4_096 {
            self.probed.clear();
        }
        let live = &self.readers;
        let ended: Vec<(ReaderId, Vec<ReaderId>)> = live
            .iter()
            .filter(|(_, reader)| !reader.after.is_empty())
            .map(|(id, reader)| {
                (
                    *id,
                    reader.after.iter().copied().filter(|other| live.contains_key(other)).collect(),
                )
            })
            .collect();
        for (id, after) in ended {
            if let Some(reader) = self.readers.get_mut(&id) {
                reader.after = after;
            }
        }
    }

    /// Closes the files that have been quiet for longest, beyond the limit.
    pub(crate) fn close_quiet(&mut self) {
        let Some(surplus) = self
            .open_files()
            .checked_sub(self.options.max_open_files)
            .filter(|surplus| *surplus > 0)
        else {
            return;
        };
        let mut quiet: Vec<(u64, ReaderId)> = self
            .readers
            .iter()
            .filter(|(_, reader)| reader.is_open() && may_close(reader))
            .map(|(id, reader)| (reader.used, *id))
            .collect();
        quiet.sort_unstable();
        for (_, id) in quiet.into_iter().take(surplus) {
            self.close(id);
        }
    }

    pub(crate) fn open_files(&self) -> usize {
        self.readers.values().filter(|reader| reader.is_open()).count()
    }

    /// Closes a file if it can be found again; true if it did.
    pub(crate) fn close(&mut self, id: ReaderId) -> bool {
        match self.readers.get_mut(&id) {
            Some(reader) if reader.is_open() && may_close(reader) => {
                reader.place = Place::Inode(None);
                true
            }
            _ => false,
        }
    }
}

#[derive(Default)]
struct End {
    flush: bool,
    finish: bool,
}

fn may_close(reader: &Reader) -> bool {
    let all_read = reader.known.is_some() && reader.size == reader.offset;
    !reader.is_moved() && reader.is_caught_up() && (reader.held || all_read || reader.size == 0)
}

/// What was never begun is not remembered: nothing of it was handed on, and how it began says too
/// little (a header line, say) to tell it from another. It is new wherever it is found.
fn finished(reader: &Reader) -> Option<FilePosition> {
    let begun = reader.position().filter(|position| position.offset.get() > 0);
    begun.map(|position| FilePosition { segment: FINISHED, ..position })
}
