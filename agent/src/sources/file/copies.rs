//! Copies: is a file beside ours another form of what was read, or something new?
//!
//! A copy is told by its bytes: the first record and what stands before an offset. Where so little
//! was read that many files hold it (a header line), age decides: the first copy made after the
//! last look is the one, because what was written later came into being later.

use std::fs::File;
use std::io;
use std::path::Path;

use custody_event::position::Fingerprint;

use super::content::{Archive, Expected, Extent, Form, Head, Verdict, extent_of, head_of};
use super::names::{is_compressed_name, is_rotation_of};
use super::reader::{Place, Reader};
use super::search::{Search, Sibling, home};
use super::stat::{Inode, Stat};
use super::tailer::{SEARCH_SCANS, Tailer};

/// A copy may carry a modification time that was cut to whole seconds.
const TIME_SLACK_NS: i64 = 2_000_000_000;

/// Of so few bytes a packed copy is unpacked once more to tell it from another that began alike.
const LITTLE_BYTES: u64 = 4 * 1024;

/// A file that nobody reads, looked at for the first time.
struct Candidate<'a> {
    path: &'a Path,
    inode: Inode,
    form: Form,
    first: Fingerprint,
    extent: Extent,
}

impl Candidate<'_> {
    /// An error if it cannot be said yet.
    fn holds(&self, expected: &Expected) -> io::Result<bool> {
        match self.form.check(expected)? {
            Verdict::Continues(_) | Verdict::Damaged => Ok(true),
            Verdict::Incomplete => Err(io::ErrorKind::UnexpectedEof.into()),
            Verdict::Other => Ok(false),
        }
    }

    /// Could it be a copy of what was opened at `path` and was born in `inode`? What a plain file
    /// holds itself is no copy. A compressed one is complete, so that its bytes say enough; it may
    /// have been met before, under any name.
    fn may_be_of(&self, path: &Path, inode: Inode) -> bool {
        match self.form {
            Form::Plain(_) => inode != self.inode && is_rotation_of(path, self.path),
            Form::Packed(_) => true,
        }
    }
}

impl Tailer {
    /// The file beside a content's path that goes on with it.
    pub(crate) fn search_copies(
        &self,
        reader: &Reader,
        expected: &Expected,
        mut near: Vec<Sibling>,
    ) -> io::Result<Search> {
        let last_look = reader.modified_ns;
        near.retain(|sibling| {
            let is_compressed = is_compressed_name(&sibling.path);
            // What stands at its own path now is what came after it.
            sibling.stat.inode != home(reader)
                && sibling.path != reader.path
                && sibling.stat.modified_ns.saturating_add(TIME_SLACK_NS) >= last_look
                && (!is_compressed || Archive::is_readable_name(&sibling.path))
                && (is_compressed || sibling.stat.size >= expected.offset)
        });
        near.sort_by_cached_key(|Sibling { path, stat }| {
            let times_rotated = std::cmp::Reverse((path.as_os_str().len(), path.clone()));
            let is_earlier = stat.modified_ns < last_look;
            (is_earlier, stat.modified_ns, times_rotated)
        });
        let mut outcome = Search::Nothing;
        let mut longest: Option<Expected> = None;
        for sibling in near {
            let form = Form::open(&sibling.path)?;
            // Of several copies that were made while it grew, the longest is the whole one.
            let wanted = longest.as_ref().unwrap_or(expected);
            match form.check(wanted)? {
                Verdict::Continues(extent) => {
                    if longest.is_some_and(|longest| extent.size <= longest.offset)
                        || self.is_anothers(expected, &form)?
                    {
                        continue;
                    }
                    let Extent { size: offset, tail } = extent;
                    longest = Some(Expected { offset, tail, ..*expected });
                    outcome = Search::found(form, sibling);
                }
                Verdict::Damaged if longest.is_none() => {
                    outcome = Search::Damaged(sibling.path);
                }
                Verdict::Incomplete if matches!(outcome, Search::Nothing) => {
                    outcome = Search::Later;
                }
                Verdict::Damaged | Verdict::Incomplete | Verdict::Other => {}
            }
        }
        Ok(outcome)
    }

    /// Does this file hold another content that began alike and was read further?
    fn is_anothers(&self, expected: &Expected, form: &Form) -> io::Result<bool> {
        let done = self.done.iter().map(super::reader::Done::expected);
        for other in done.chain(self.readers.values().filter_map(Reader::sought)) {
            let went_on = other.first == expected.first && other.offset > expected.offset;
            if went_on && matches!(form.check(&other)?, Verdict::Continues(_)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Is this new file a copy of what another reader reads or has read?
    pub(crate) fn is_copy_of_known(
        &mut self,
        reader: &Reader,
        file: &File,
        first: Fingerprint,
    ) -> io::Result<bool> {
        let Some(extent) = extent_of(file)? else { return Ok(false) };
        let form = Form::Plain(file.try_clone()?);
        let (path, inode) = (reader.path.as_path(), reader.inode);
        self.is_known(&Candidate { path, inode, form, first, extent })
    }

    fn is_known(&mut self, candidate: &Candidate<'_>) -> io::Result<bool> {
        for other in self.readers.values() {
            let related = candidate.may_be_of(&other.path, home(other));
            if related && !other.held && is_copy_of(other, candidate)? {
                return Ok(true);
            }
        }
        let mut grown = None;
        for (at, done) in self.done.iter().enumerate() {
            let expected = done.expected();
            let stands = || self.found.files.values().any(|stat| stat.inode == done.inode());
            let related =
                expected.first == candidate.first && candidate.may_be_of(&done.path, done.inode());
            let more = candidate.extent.size > expected.offset;
            if !related || !candidate.holds(&expected)? || (more && stands()) {
                continue;
            }
            if !more {
                return Ok(true);
            }
            grown = Some(at);
        }
        if let Some(at) = grown {
            self.resume(at);
        }
        Ok(grown.is_some())
    }

    /// Does the inode still hold a content of its own that we know? What has been added to a
    /// finished one is taken up again by the search.
    fn holds_its_own(&mut self, stat: &Stat, file: &File) -> io::Result<bool> {
        for reader in
            self.readers.values().filter(|reader| reader.is_missing() && home(reader) == stat.inode)
        {
            if reader.sought().is_some_and(|sought| sought.holds(file).unwrap_or(false)) {
                return Ok(true);
            }
        }
        for at in (0..self.done.len()).rev() {
            let done = &self.done[at];
            if done.inode() != stat.inode || !done.expected().holds(file)? {
                continue;
            }
            if stat.size > done.position.offset.get() {
                self.resume(at);
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// A finished content has gone on: the search finds where.
    fn resume(&mut self, at: usize) {
        let done = self.done.remove(at);
        self.insert(Reader::saved(&done.position, SEARCH_SCANS));
        self.progress.rescan = true;
    }

    /// A reader for a rotated file that nobody has read; `None` if it is a copy of something that
    /// was read; an error if that cannot be said yet.
    pub(crate) fn take_up(&mut self, sibling: &Sibling) -> io::Result<Option<Reader>> {
        if is_compressed_name(&sibling.path) {
            return self.take_up_packed(sibling);
        }
        let file = File::open(&sibling.path)?;
        if self.holds_its_own(&sibling.stat, &file)? {
            return Ok(None);
        }
        let reader = Reader::fresh(&sibling.path, None, &sibling.stat, None);
        if let (Head::Record(first), Some(extent)) = (head_of(&file)?, extent_of(&file)?) {
            let (path, inode) = (sibling.path.as_path(), sibling.stat.inode);
            let form = Form::Plain(file.try_clone()?);
            if self.is_known(&Candidate { path, inode, form, first, extent })? {
                return Ok(None);
            }
        }
        Ok(Some(Reader { place: Place::Inode(Some(file)), ..reader }))
    }

    fn take_up_packed(&mut self, sibling: &Sibling) -> io::Result<Option<Reader>> {
        if !Archive::is_readable_name(&sibling.path) {
            return Ok(None);
        }
        let whole =
            match (Archive::first_record(&sibling.path), Archive::check(&sibling.path, None)) {
                (Some(first), Verdict::Continues(extent)) => Some((first, extent)),
                _ => None,
            };
        let (first, extent) = match whole {
            Some(whole) => whole,
            None if self.is_damaged_for_good(&sibling.stat) => {
                Archive::as_far_as_it_goes(&sibling.path)?
            }
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let (path, inode) = (sibling.path.as_path(), sibling.stat.inode);
        let form = Form::Packed(sibling.path.clone());
        if self.is_known(&Candidate { path, inode, form, first, extent })? {
            return Ok(None);
        }
        let mut reader = Reader::fresh(path, None, &sibling.stat, None);
        reader.name(first, self.next_generation(inode, first));
        self.learn_order_of_packed(&mut reader, path);
        reader.place = Place::Archive(Box::new(Archive::open(path)?));
        reader.is_copy = true;
        reader.size = extent.size;
        reader.mark = Some((extent.size, extent.tail));
        Ok(Some(reader))
    }
}

/// Does this file hold what `other` reads?
fn is_copy_of(other: &Reader, candidate: &Candidate<'_>) -> io::Result<bool> {
    // How it began alone, as many files may, tells nothing.
    let expected =
        other.sought().filter(|expected| expected.first == candidate.first && expected.offset > 0);
    let Extent { size: offset, tail } = candidate.extent;
    let whole = Expected { first: candidate.first, offset, tail };
    let original = match (&other.place, &other.at) {
        (Place::Inode(Some(copy)), _) if other.is_copy => {
            let copy = Form::Plain(copy.try_clone()?);
            return is_copy_of_copy(&copy, expected.as_ref(), &whole, candidate);
        }
        (Place::Archive(archive), _) if other.offset <= LITTLE_BYTES => {
            let copy = Form::Packed(archive.path.clone());
            return is_copy_of_copy(&copy, expected.as_ref(), &whole, candidate);
        }
        (Place::Inode(Some(original)), _) => Some(original.try_clone()?),
        (Place::Inode(None), Some(at)) => match File::open(at) {
            Ok(original) => Some(original),
            Err(error) if super::walk::is_absent(&error) => return Ok(false),
            Err(error) => return Err(error),
        },
        _ => None,
    };
    let Some(original) = original else {
        return expected.map_or(Ok(false), |expected| candidate.holds(&expected));
    };
    // A plain file that begins like one that has moved may still grow into something else.
    let is_whole =
        matches!(candidate.form, Form::Packed(_)) || other.at.as_deref() == Some(&other.path);
    if is_whole && whole.holds(&original)? && head_of(&original)? == Head::Record(candidate.first) {
        return Ok(true);
    }
    // The original may have been emptied a moment ago, which nobody has noticed yet.
    match expected {
        Some(expected) => Ok(!expected.holds(&original)? && candidate.holds(&expected)?),
        None => Ok(false),
    }
}

/// Does the candidate hold what is read from `copy`? Of two copies of one content one is the
/// beginning of the other; others may have no more than a header line in common.
fn is_copy_of_copy(
    copy: &Form,
    expected: Option<&Expected>,
    whole: &Expected,
    candidate: &Candidate<'_>,
) -> io::Result<bool> {
    let Some(expected) = expected else { return Ok(false) };
    if !candidate.holds(expected)? {
        return Ok(false);
    }
    let holds = |form: &Form, what: &Expected| {
        form.check(what).map(|verdict| matches!(verdict, Verdict::Continues(_)))
    };
    // What is read may have been overwritten a moment ago, which nobody has noticed yet.
    if !holds(copy, expected)? || holds(copy, whole)? {
        return Ok(true);
    }
    match copy.extent()? {
        Some(Extent { size: offset, tail }) => {
            candidate.holds(&Expected { offset, tail, ..*whole })
        }
        None => Ok(true),
    }
}
