//! One content being read: a generation of a file, wherever its bytes stand now.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use custody_event::position::Fingerprint;
use custody_event::{FileIdentity, Offset};

use super::content::{Archive, Expected};
use super::cut::FINISHED;
use super::names::{is_rotation_of, path_from_text, path_text};
use super::stat::{Inode, Stat};
use crate::sources::{Encoding, FilePosition, FileRef, SeenSize};

/// Names a reader within one run; older readers have smaller numbers.
pub(crate) type ReaderId = u64;

/// Ends of what was there at the time, reached one after the other, that tell a log which is being
/// written from a rotated file.
const LIVE_ENDS: u32 = 3;
/// Scans in a row that could not look for a content, after which nobody waits for it any more.
const BLIND_SCANS: u32 = 5;

/// Where the bytes stand.
pub(crate) enum Place {
    /// In the inode [`Reader::inode`]; closed files are opened again at [`Reader::at`].
    Inode(Option<File>),
    /// In a compressed copy.
    Archive(Box<Archive>),
    /// Not found yet; the search goes on.
    Missing(Missing),
}

/// A content that is no longer where it was.
#[derive(Debug, Clone)]
pub(crate) struct Missing {
    /// Scans that have looked for it in vain.
    pub(crate) tries: u32,
    /// Scans more that are worth it.
    pub(crate) tries_left: u32,
    /// Bytes that were seen beyond the offset, if somebody was looking.
    pub(crate) unread: Option<u64>,
    /// Was it replaced in place (and not renamed or deleted)?
    pub(crate) truncated: bool,
    /// Its own inode has been looked at and holds something else.
    pub(crate) not_at_home: bool,
    /// Scans in a row that could not look: something stands there that may not be read.
    pub(crate) blind_scans: u32,
}

/// One content being read.
pub(crate) struct Reader {
    /// Where it was first opened.
    pub(crate) path: PathBuf,
    /// Where a pattern finds it now.
    pub(crate) at: Option<PathBuf>,
    /// The inode that is read: the content's own or, for a copy, the copy's.
    pub(crate) inode: Inode,
    pub(crate) dev: u64,
    /// `None` while the first line is not complete: nothing is read before it is.
    pub(crate) known: Option<Arc<FileRef>>,
    pub(crate) place: Place,
    pub(crate) offset: u64,
    pub(crate) segment: u32,
    pub(crate) tail: Fingerprint,
    /// Size and modification time at the last look, whatever the content was.
    pub(crate) size: u64,
    pub(crate) seen_ns: i64,
    pub(crate) links: u32,
    /// Modification time at the last look that found this content.
    pub(crate) modified_ns: i64,
    /// End of this content, as far as it was ever seen.
    pub(crate) largest: u64,
    /// An end of this content that was seen before anything could be read, and its fingerprint.
    pub(crate) mark: Option<(u64, Fingerprint)>,
    /// Size and time of the look after which nothing more could be read.
    pub(crate) idle: Option<(u64, i64)>,
    /// How often what had been added was read to its end.
    pub(crate) ends: u32,
    /// Size, time and count of scans without growth.
    pub(crate) quiet: (u64, i64, u32),
    /// The bytes are read from a copy, which does not grow.
    pub(crate) is_copy: bool,
    /// Readers whose content came before this one.
    pub(crate) after: Vec<ReaderId>,
    /// It looks like a copy of what another reader reads: not read as long as it does.
    pub(crate) held: bool,
    /// Rotated files beside it, which may have come before it, have been looked for.
    pub(crate) hunted: bool,
    /// Since the last scan, nobody has asked again whether it still looks like a copy.
    pub(crate) recheck: bool,
    /// Round of the last growth, for closing the longest quiet files.
    pub(crate) used: u64,
    /// The scan that found it; `None` for what was known at the start.
    pub(crate) adopted: Option<u64>,
    /// How much of it was seen while it had to wait for its name.
    pub(crate) unbegun: u64,
    /// Its file was emptied in place when so much of it had been seen.
    pub(crate) emptied: Option<u64>,
    /// Since when whole lines wait for what comes after them, on the monotonic clock.
    pub(crate) pending: Option<std::time::Duration>,
    /// The byte order that the content's first bytes say, where that is asked for.
    pub(crate) order: Option<Encoding>,
    /// Rounds to leave out after a read error, doubled each time.
    pub(crate) back_off: (u32, u32),
}

impl Reader {
    /// A file that is new to us.
    pub(crate) fn fresh(path: &Path, at: Option<PathBuf>, stat: &Stat, file: Option<File>) -> Self {
        Self {
            path: path.to_path_buf(),
            at,
            inode: stat.inode,
            dev: stat.dev,
            known: None,
            place: Place::Inode(file),
            offset: 0,
            segment: 0,
            tail: Fingerprint::of(b""),
            size: stat.size,
            seen_ns: stat.modified_ns,
            links: stat.links,
            modified_ns: stat.modified_ns,
            largest: 0,
            mark: None,
            idle: None,
            ends: 0,
            quiet: (0, 0, 0),
            is_copy: false,
            after: Vec::new(),
            held: false,
            hunted: false,
            recheck: false,
            used: 0,
            adopted: None,
            unbegun: 0,
            emptied: None,
            pending: None,
            order: None,
            back_off: (0, 0),
        }
    }

    /// A content that a position speaks of, and that has still to be found.
    pub(crate) fn saved(position: &FilePosition, tries_left: u32) -> Self {
        let identity = &position.identity;
        let stat = Stat {
            inode: Inode::of(identity),
            dev: identity.dev,
            size: position.offset.get(),
            modified_ns: position.modified_ns,
            links: 1,
            is_file: true,
            is_dir: false,
        };
        let mut reader = Self::fresh(&path_from_text(&position.path), None, &stat, None);
        reader.known =
            Some(Arc::new(FileRef { identity: identity.clone(), path: position.path.clone() }));
        reader.offset = position.offset.get();
        reader.segment = if position.segment == FINISHED { 0 } else { position.segment };
        reader.tail = position.tail;
        reader.place = Place::Missing(Missing {
            tries: 0,
            tries_left,
            unread: None,
            truncated: false,
            not_at_home: false,
            blind_scans: 0,
        });
        reader
    }

    /// Names the content, once its first record is known.
    pub(crate) fn name(&mut self, first: Fingerprint, generation: u32) {
        let identity = FileIdentity {
            born_ns: self.inode.born_ns,
            dev: self.dev,
            fingerprint: first,
            generation,
            ino: self.inode.ino,
        };
        self.known = Some(Arc::new(FileRef { identity, path: path_text(&self.path) }));
    }

    pub(crate) fn see(&mut self, stat: &Stat) {
        self.size = stat.size;
        self.seen_ns = stat.modified_ns;
        self.links = stat.links;
    }

    pub(crate) fn expected(&self) -> Option<Expected> {
        let known = self.known.as_ref()?;
        Some(Expected { first: known.identity.fingerprint, offset: self.offset, tail: self.tail })
    }

    /// What a copy of this content must look like: further on than the offset, if more was seen.
    pub(crate) fn sought(&self) -> Option<Expected> {
        let expected = self.expected()?;
        match self.mark {
            Some((end, tail)) if end >= self.offset => {
                Some(Expected { offset: end, tail, ..expected })
            }
            _ => Some(expected),
        }
    }

    pub(crate) fn position(&self) -> Option<FilePosition> {
        let known = self.known.as_ref()?;
        Some(FilePosition {
            identity: known.identity.clone(),
            offset: Offset(self.offset),
            segment: self.segment,
            path: path_text(&self.path),
            tail: self.tail,
            modified_ns: self.modified_ns,
        })
    }

    /// Not where it was first opened: renamed, deleted, or read from a copy.
    pub(crate) fn is_moved(&self) -> bool {
        self.is_copy || self.at.as_deref() != Some(&self.path)
    }

    /// It was opened at `path` and is not there any more.
    pub(crate) fn stood_at(&self, path: &Path) -> bool {
        self.path == path && self.at.as_deref() != Some(path)
    }

    /// It stood at `path` or was found under a name that a rotation made out of it.
    pub(crate) fn was_rotated_from(&self, path: &Path) -> bool {
        self.stood_at(path) || is_rotation_of(path, &self.path)
    }

    /// Nothing of it has been read.
    pub(crate) fn is_unbegun(&self) -> bool {
        self.offset == 0
    }

    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.place, Place::Missing(_))
    }

    /// Has everything been read that there was at the last look?
    pub(crate) fn is_caught_up(&self) -> bool {
        let is_idle = self.idle == Some((self.size, self.seen_ns));
        matches!(self.place, Place::Inode(_))
            && (self.held || self.back_off.0 > 0 || (is_idle && self.pending.is_none()))
    }

    /// Must those that came after it wait? Not for what cannot be read, nor for a log that goes on and
    /// on in its own place: it only has a name like a rotated one.
    pub(crate) fn is_waited_for(&self) -> bool {
        match &self.place {
            Place::Missing(missing) => missing.blind_scans < BLIND_SCANS,
            Place::Archive(_) => true,
            Place::Inode(_) => {
                let is_live = self.ends >= LIVE_ENDS && !self.is_moved();
                !is_live && !self.is_caught_up()
            }
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.place, Place::Inode(Some(_)))
    }

    /// In its place, and read as far as it was at the last look.
    pub(crate) fn is_at_rest(&self) -> bool {
        matches!(self.place, Place::Inode(_))
            && !self.is_moved()
            && !self.held
            && self.back_off.0 == 0
            && self.idle == Some((self.size, self.seen_ns))
    }

    pub(crate) fn seen_size(&self) -> Option<SeenSize> {
        matches!(self.place, Place::Inode(_)).then(|| SeenSize {
            path: self.path.clone(),
            ino: self.inode.ino,
            size: self.size,
        })
    }

    pub(crate) fn behind(&self) -> u64 {
        match &self.place {
            Place::Missing(missing) => missing.unread.unwrap_or(0),
            Place::Inode(_) if self.held => 0,
            _ => self.size.saturating_sub(self.offset),
        }
    }
}

/// A content that was read to its end. It is remembered as long as any form of it exists, so that
/// it is never read again.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) position: FilePosition,
    pub(crate) path: PathBuf,
}

impl Done {
    pub(crate) fn of(position: FilePosition) -> Self {
        let path = path_from_text(&position.path);
        Self { position, path }
    }

    pub(crate) fn inode(&self) -> Inode {
        Inode::of(&self.position.identity)
    }

    pub(crate) fn expected(&self) -> Expected {
        Expected {
            first: self.position.identity.fingerprint,
            offset: self.position.offset.get(),
            tail: self.position.tail,
        }
    }
}
