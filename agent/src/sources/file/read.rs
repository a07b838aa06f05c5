//! Reading: one batch from each file in turn, checked before it counts.
//!
//! A batch is one `pread` that begins up to 256 bytes before the offset, so that the bytes before
//! the offset are verified in the same call that reads those after it; the first record is looked
//! at after the call. Only if both are what they were do the new bytes count.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use custody_event::position::Fingerprint;
use custody_event::{Offset, Timestamp};

use super::content::{Head, head_of, len64, read_at, tail_len, tail_of};
use super::cut::{Cut, Cutter, SKIP_LINE};
use super::multiline::Ending;
use super::reader::{Missing, Place, Reader, ReaderId};
use super::stat::{Stat, stat_file};
use super::tailer::Tailer;
use super::{FileEncoding, trouble};
use crate::sources::{Chunk, Encoding, Framing, Item, Notice, Outlet, SourceIndex, Span, Stopped};

/// A failed file is left out for at most this many rounds.
const MAX_BACK_OFF: u32 = 64;

/// How a look at one file ended.
enum Look {
    /// Nothing new.
    Idle,
    /// The content is not the one that we know.
    Replaced,
    /// This many bytes stand in the buffer, the first so many of them before the offset.
    Data(usize, usize, Stat),
}

/// Has a new content got its name?
enum Named {
    Now,
    /// Its first record is not complete.
    NotYet,
    /// It looks like a copy, or something must be looked for before.
    AskAgain,
}

/// What is needed to make chunks of one reader's bytes.
pub(crate) struct Slicer<'a> {
    pub(crate) source: SourceIndex,
    pub(crate) observed: Timestamp,
    pub(crate) cutter: &'a Cutter,
    pub(crate) encoding: Encoding,
    /// What may come after the bytes that are there.
    pub(crate) ending: Ending,
    pub(crate) reader: &'a mut Reader,
}

impl Tailer {
    /// Reads one batch from every file that may have more: from all, or, where it is known which
    /// have been written to, from those and from those that were not at rest.
    pub(crate) fn round(
        &mut self,
        touched: Option<&HashSet<ReaderId>>,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        self.round += 1;
        let is_wanted = |(id, reader): (&ReaderId, &Reader)| {
            let rests = touched.is_some_and(|touched| !touched.contains(id))
                && reader.is_at_rest()
                && !self.is_silent(reader);
            (!rests).then_some(*id)
        };
        let ids: Vec<ReaderId> = self.readers.iter().filter_map(is_wanted).collect();
        let mut blocked = Vec::new();
        // A file that no longer looks like a copy came before what stands in its place now.
        for id in &ids {
            if self.readers.get(id).is_some_and(|reader| reader.held && reader.recheck) {
                self.glance(*id);
            }
        }
        let mut open = self.open_files();
        for id in ids {
            if outlet.is_stopped() {
                return Err(Stopped);
            }
            let Some(reader) = self.readers.get(&id) else { continue };
            let was_open = reader.is_open();
            if self.is_blocked(reader) {
                blocked.push(id);
                self.glance(id);
            } else {
                self.read_batch(id, outlet)?;
            }
            if !was_open && self.readers.get(&id).is_some_and(Reader::is_open) {
                open += 1;
                open -= usize::from(open > self.options.max_open_files && self.close(id));
            }
        }
        self.pay(outlet)?;
        let is_free = |id| self.readers.get(id).is_some_and(|reader| !self.is_blocked(reader));
        self.progress.more |= blocked.iter().any(is_free);
        Ok(())
    }

    /// A file that must wait for its turn is named all the same, and watched for replacement: what
    /// it holds now may be copied and truncated away before its turn comes.
    fn glance(&mut self, id: ReaderId) {
        let Some(mut reader) = self.readers.remove(&id) else { return };
        let look = match reader.place {
            Place::Inode(_) => self.look(&mut reader, 0),
            _ => Ok(Look::Idle),
        };
        match &look {
            Ok(Look::Data(..)) => reader.mark = mark_of(&reader),
            Ok(_) => {}
            Err(error) => self.failed(&mut reader, error),
        }
        self.readers.insert(id, reader);
        if matches!(look, Ok(Look::Replaced)) {
            self.replaced(id);
        }
    }

    fn read_batch(&mut self, id: ReaderId, outlet: &mut dyn Outlet) -> Result<(), Stopped> {
        let Some(mut reader) = self.readers.remove(&id) else { return Ok(()) };
        if matches!(reader.place, Place::Archive(_)) {
            return self.read_archive(id, reader, outlet);
        }
        match self.look(&mut reader, usize::MAX) {
            Ok(Look::Idle) => {
                self.readers.insert(id, reader);
                Ok(())
            }
            Ok(Look::Replaced) => {
                self.readers.insert(id, reader);
                self.replaced(id);
                Ok(())
            }
            Ok(Look::Data(before, len, stat)) => {
                let result = self.take_data(&mut reader, before, len, &stat, outlet);
                self.readers.insert(id, reader);
                result
            }
            Err(error) => {
                self.failed(&mut reader, &error);
                self.readers.insert(id, reader);
                Ok(())
            }
        }
    }

    fn look(&mut self, reader: &mut Reader, most: usize) -> io::Result<Look> {
        if reader.back_off.0 > 0 {
            reader.back_off.0 -= 1;
            return Ok(Look::Idle);
        }
        if reader.is_missing() || (reader.held && !reader.recheck) {
            return Ok(Look::Idle);
        }
        if reader.held {
            (reader.held, reader.recheck, reader.idle) = (false, false, None);
        }
        if !self.open(reader)? {
            return Ok(Look::Idle);
        }
        let Place::Inode(Some(file)) = &reader.place else { return Ok(Look::Idle) };
        let stat = stat_file(file)?;
        if reader.known.is_none() && stat.size < reader.largest.max(reader.unbegun) {
            self.emptied_unbegun(reader);
        }
        reader.see(&stat);
        let seen = Some((stat.size, stat.modified_ns));
        let is_unchanged = reader.idle == seen;
        if is_unchanged && !self.is_silent(reader) {
            return Ok(Look::Idle);
        }
        if stat.size < reader.offset {
            return Ok(Look::Replaced);
        }
        if reader.known.is_none() {
            match self.identify(reader)? {
                Named::Now => {}
                Named::NotYet => {
                    // What is named next may have been preceded by what nobody has seen here.
                    reader.hunted = false;
                    reader.idle = seen;
                    reader.largest = stat.size;
                    return Ok(Look::Idle);
                }
                Named::AskAgain => {
                    reader.unbegun = if reader.held { 0 } else { stat.size };
                    return Ok(Look::Idle);
                }
            }
        }
        self.learn_order_of_file(reader)?;
        let Place::Inode(Some(file)) = &reader.place else { return Ok(Look::Idle) };
        let room = self.buffer.len().min(most.saturating_add(tail_len(reader.offset)));
        let look = look_at(file, reader, &mut self.buffer[..room], stat)?;
        if let Look::Data(before, len, stat) = &look {
            reader.modified_ns = stat.modified_ns;
            reader.largest = stat.size.max(reader.offset + len64(len - before));
        }
        Ok(look)
    }

    /// A file that had no name yet was emptied: by whoever copied it, perhaps, and then the copy is
    /// read as a file of its own.
    fn emptied_unbegun(&mut self, reader: &mut Reader) {
        let path = reader.path.display();
        let (code, text, bytes) = match reader.largest {
            0 => {
                let text = format!(
                    "{path} was emptied before it was begun; what no copy holds of it, if anything, was not seen"
                );
                ("emptied", text, None)
            }
            seen => {
                let text = format!(
                    "{path} was emptied before its first line was complete; at least {seen} bytes were seen there and not found again"
                );
                ("truncated_unread", text, Some(seen))
            }
        };
        let notice = self.notice(code, &reader.path, text);
        self.owed.push(Notice { from: Some(Offset(0)), bytes, ..notice });
        (reader.largest, reader.unbegun) = (0, 0);
    }

    pub(crate) fn learn_order_of_file(&self, reader: &mut Reader) -> io::Result<()> {
        if self.options.encoding != FileEncoding::Utf16 || reader.order.is_some() {
            return Ok(());
        }
        let Place::Inode(Some(file)) = &reader.place else { return Ok(()) };
        let file = file.try_clone()?;
        self.learn_order(reader, |head| read_at(&file, head, 0))
    }

    /// Makes sure that the file is open; false if it is not there to be opened.
    fn open(&mut self, reader: &mut Reader) -> io::Result<bool> {
        if matches!(reader.place, Place::Inode(Some(_))) {
            return Ok(true);
        }
        let is_unchanged = reader.idle == Some((reader.size, reader.seen_ns));
        if is_unchanged && !self.is_silent(reader) {
            return Ok(false);
        }
        let Some(at) = &reader.at else { return Ok(false) };
        let file = File::open(at)?;
        if stat_file(&file)?.inode != reader.inode {
            self.progress.rescan = true;
            return Ok(false);
        }
        self.troubles.remove(at);
        reader.place = Place::Inode(Some(file));
        reader.used = self.round;
        Ok(true)
    }

    /// Names a new content by its first record, if that is complete and nobody else's.
    fn identify(&mut self, reader: &mut Reader) -> io::Result<Named> {
        let Place::Inode(Some(file)) = &reader.place else { return Ok(Named::AskAgain) };
        let first = match head_of(file)? {
            Head::Record(first) => first,
            Head::Incomplete => return Ok(Named::NotYet),
            Head::Compressed => {
                reader.held = true;
                return Ok(Named::AskAgain);
            }
        };
        if self.is_copy_of_known(reader, file, first)? {
            reader.held = true;
            return Ok(Named::AskAgain);
        }
        if !reader.hunted {
            // What stood here before may have been copied away and emptied between two looks.
            reader.hunted = true;
            self.hunt(reader.at.as_ref().unwrap_or(&reader.path).clone());
            self.progress.rescan = true;
            return Ok(Named::AskAgain);
        }
        reader.name(first, self.next_generation(reader.inode, first));
        Ok(Named::Now)
    }

    /// The inode holds something new: what was there is searched for, what is there is begun.
    pub(crate) fn replaced(&mut self, id: ReaderId) {
        let Some(mut old) = self.readers.remove(&id) else { return };
        let Place::Inode(file) = std::mem::replace(&mut old.place, Place::Inode(None)) else {
            self.readers.insert(id, old);
            return;
        };
        let stat = Stat {
            inode: old.inode,
            dev: old.dev,
            size: old.size,
            modified_ns: old.seen_ns,
            links: old.links,
            is_file: true,
            is_dir: false,
        };
        let mut fresh =
            Reader::fresh(old.at.as_ref().unwrap_or(&old.path), old.at.clone(), &stat, file);
        if old.known.is_none() {
            fresh.after = old.after;
            self.by_inode.insert(fresh.inode, id);
            self.readers.insert(id, fresh);
            return;
        }
        // A rotated file beside it that was written after our last look at it came later.
        let is_later = |other: &Reader| {
            other.is_unbegun()
                && other.modified_ns > old.modified_ns
                && other.was_rotated_from(&old.path)
        };
        let later = self.ids_of(is_later);
        old.after.retain(|other| !later.contains(other));
        fresh.after = vec![id];
        let (is_current, fresh_ns) = (fresh.at.as_deref() == Some(&old.path), fresh.seen_ns);
        fresh.hunted = stat.size > 0;
        old.place = Place::Missing(Missing {
            tries: 0,
            tries_left: 1,
            unread: Some(old.largest.saturating_sub(old.offset)).filter(|bytes| *bytes > 0),
            truncated: true,
            not_at_home: true,
            blind_scans: 0,
        });
        old.at = None;
        let path = fresh.path.clone();
        self.by_inode.remove(&old.inode);
        self.readers.insert(id, old);
        let new = self.insert(fresh);
        // Who came after the old content, in another file, comes after the new one as well, if it
        // was not rotated away before.
        let followers = self.ids_of(|reader| reader.after.contains(&id));
        for other in followers.into_iter().filter(|other| !later.contains(other)) {
            self.put_after(other, new);
        }
        for other in later {
            self.put_after(other, id);
            let other_ns = self.readers.get(&other).map_or(0, |other| other.modified_ns);
            if is_current || other_ns <= fresh_ns {
                self.put_after(new, other);
            } else {
                self.put_after(other, new);
            }
        }
        self.hunt(path);
        self.progress.rescan = true;
    }

    fn take_data(
        &mut self,
        reader: &mut Reader,
        before: usize,
        len: usize,
        stat: &Stat,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        let buffer = std::mem::take(&mut self.buffer);
        let from = reader.offset;
        let now = Some((stat.size, stat.modified_ns));
        let is_silent = reader.idle == now && self.is_silent(reader);
        let ending = if is_silent { Ending::Silent } else { Ending::Open };
        let mut slicer = self.slicer(reader, ending);
        let (mut items, mut at) = (0, before);
        let mut result = Ok(());
        while let Some((item, used)) = slicer.next(&buffer[..len], at) {
            at += used;
            items += 1;
            result = outlet.put(item);
            if result.is_err() {
                break;
            }
        }
        let holds_back = slicer.holds_back(&buffer[at..len]);
        self.progress.items += items;
        self.buffer = buffer;
        reader.pending = holds_back.then(|| self.clock.monotonic());
        if reader.offset != from {
            reader.mark = None;
            reader.used = self.round;
            reader.back_off = (0, 0);
            self.progress.bytes += reader.offset - from;
        }
        if len == self.buffer.len() {
            self.progress.more = true;
        } else {
            reader.idle = now;
            reader.ends = reader.ends.saturating_add(u32::from(reader.offset != from));
        }
        result
    }

    pub(crate) fn slicer<'a>(&'a self, reader: &'a mut Reader, ending: Ending) -> Slicer<'a> {
        Slicer {
            source: self.source,
            observed: self.clock.now(),
            cutter: &self.cutter,
            encoding: self.encoding_of(reader),
            ending,
            reader,
        }
    }

    fn failed(&mut self, reader: &mut Reader, error: &io::Error) {
        let path = reader.at.as_ref().unwrap_or(&reader.path).clone();
        let next = (reader.back_off.1 * 2).clamp(1, MAX_BACK_OFF);
        reader.back_off = (next, next);
        self.troubles.insert(path.clone(), trouble(&path, error));
    }
}

/// How the end of what is there looks, for a content of which nothing may be read yet.
fn mark_of(reader: &Reader) -> Option<(u64, Fingerprint)> {
    let Place::Inode(Some(file)) = &reader.place else { return None };
    let tail = tail_of(file, reader.size).ok()??;
    Some((reader.size, tail))
}

fn look_at(file: &File, reader: &Reader, buffer: &mut [u8], stat: Stat) -> io::Result<Look> {
    let before = tail_len(reader.offset);
    let len = read_at(file, buffer, reader.offset - len64(before))?;
    if len < before || Fingerprint::of(&buffer[..before]) != reader.tail {
        return Ok(Look::Replaced);
    }
    if let Some((end, tail)) = reader.mark
        && stat.size >= end
        && tail_of(file, end)? != Some(tail)
    {
        return Ok(Look::Replaced);
    }
    // Less than was there before, and so little read that an equal beginning says nothing (a
    // header line, say): it was emptied and begun again. Otherwise the writer took back the line
    // that it had begun.
    let is_one_record = len64(before) == reader.offset
        && memchr::memchr_iter(b'\n', &buffer[..before]).count() <= 1;
    if stat.size < reader.largest && is_one_record {
        return Ok(Look::Replaced);
    }
    let first = reader.known.as_ref().map(|known| known.identity.fingerprint);
    match head_of(file)? {
        Head::Record(head) if Some(head) == first => {}
        Head::Incomplete if reader.offset > 0 => {}
        _ => return Ok(Look::Replaced),
    }
    Ok(Look::Data(before, len, stat))
}

impl Slicer<'_> {
    /// The next item from `buffer[at..]` and how many bytes it takes.
    pub(crate) fn next(&mut self, buffer: &[u8], at: usize) -> Option<(Item, usize)> {
        let data = &buffer[at..];
        let number = self.reader.segment;
        match self.cutter.cut(data, number, self.encoding, self.ending) {
            Cut::Wait if self.ending == Ending::Over => self.rest(buffer, at),
            Cut::Wait => None,
            Cut::Lines(len) => self.chunk(buffer, at..at + len, len, Framing::Lines, Vec::new(), 0),
            Cut::Spans(spans) => {
                let len = spans.last().map_or(0, |span| span.end);
                self.chunk(buffer, at..at + len, len, Framing::Spans, spans, 0)
            }
            Cut::Piece(piece) => {
                let next = if piece.ends { 0 } else { number.saturating_add(1).min(SKIP_LINE - 1) };
                let (begin, framing) = (at + piece.begin, Framing::Segment { number });
                // What is left out before a piece is no part of a record.
                self.advance(buffer, begin, piece.begin, number);
                let used = piece.used - piece.begin;
                let (item, _) =
                    self.chunk(buffer, begin..begin + piece.len, used, framing, Vec::new(), next)?;
                Some((item, piece.used))
            }
            Cut::Skip(len, ends) => {
                self.advance(buffer, at + len, len, if ends { 0 } else { SKIP_LINE });
                let position = self.reader.position()?;
                Some((Item::Moved { source: self.source, position }, len))
            }
        }
    }

    /// Do whole lines wait at the front of `rest` for what comes after them?
    fn holds_back(&self, rest: &[u8]) -> bool {
        let Some(rule) = &self.cutter.rule else { return false };
        let (segment, max) = (self.reader.segment, self.cutter.max_of(self.encoding));
        segment != SKIP_LINE && rule.holds_back(rest, segment, self.encoding, max)
    }

    /// The last line of a content that will not grow any more, without its line end.
    fn rest(&mut self, buffer: &[u8], at: usize) -> Option<(Item, usize)> {
        let len = buffer.len() - at;
        let framing = match self.reader.segment {
            SKIP_LINE => return None,
            0 => Framing::Unterminated,
            number => Framing::Segment { number },
        };
        if len == 0 {
            return None;
        }
        self.chunk(buffer, at..at + len, len, framing, Vec::new(), 0)
    }

    fn chunk(
        &mut self,
        buffer: &[u8],
        bytes: Range<usize>,
        used: usize,
        framing: Framing,
        spans: Vec<Span>,
        next: u32,
    ) -> Option<(Item, usize)> {
        let file = Arc::clone(self.reader.known.as_ref()?);
        let from = Offset(self.reader.offset);
        self.advance(buffer, bytes.start + used, used, next);
        let chunk = Chunk {
            source: self.source,
            file,
            from,
            bytes: buffer[bytes].to_vec(),
            framing,
            spans,
            encoding: self.encoding,
            observed: self.observed,
            after: self.reader.position()?,
        };
        Some((Item::Records(chunk), used))
    }

    /// The buffer must reach back to the tail of the old offset.
    fn advance(&mut self, buffer: &[u8], end: usize, used: usize, segment: u32) {
        if used == 0 && segment == self.reader.segment {
            return;
        }
        self.reader.offset = self.reader.offset.saturating_add(len64(used));
        self.reader.segment = segment;
        let tail = tail_len(self.reader.offset).min(end);
        self.reader.tail = Fingerprint::of(&buffer[end - tail..end]);
    }
}
