//! Content: fingerprints that say whether bytes are still what they were, and compressed copies.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use custody_event::position::{FINGERPRINT_BYTES, Fingerprint};

use super::names::{is_compressed_head, is_compressed_name, name_of};
use super::stat::stat_file;
use crate::sources::TAIL_BYTES;

/// Fills `buffer` from `offset` on, as far as the file goes.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        let at = offset.saturating_add(len64(filled));
        match file.read_at(&mut buffer[filled..], at) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A length in memory as a length on disk.
pub(crate) fn len64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// How many bytes before `offset` are fingerprinted with it.
pub(crate) fn tail_len(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX).min(TAIL_BYTES)
}

/// The fingerprint of the first record, from a file's first bytes: `None` while neither its end
/// nor [`FINGERPRINT_BYTES`] of it are there.
pub(crate) fn head_fingerprint(head: &[u8]) -> Option<Fingerprint> {
    let window = &head[..head.len().min(FINGERPRINT_BYTES)];
    match memchr::memchr(b'\n', window) {
        Some(end) => Some(Fingerprint::of_first_record(&window[..end])),
        None if window.len() == FINGERPRINT_BYTES => Some(Fingerprint::of_first_record(window)),
        None => None,
    }
}

/// A file's first record, if it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// Its fingerprint.
    Record(Fingerprint),
    /// Not complete yet.
    Incomplete,
    /// Not text, but gzip or zstd.
    Compressed,
}

pub(crate) fn head_of(file: &File) -> io::Result<Head> {
    let mut head = [0; FINGERPRINT_BYTES];
    let got = read_at(file, &mut head, 0)?;
    if is_compressed_head(&head[..got]) {
        return Ok(Head::Compressed);
    }
    Ok(head_fingerprint(&head[..got]).map_or(Head::Incomplete, Head::Record))
}

/// The fingerprint of the bytes before `offset`; `None` if the file is shorter.
pub(crate) fn tail_of(file: &File, offset: u64) -> io::Result<Option<Fingerprint>> {
    let want = tail_len(offset);
    let mut tail = [0; TAIL_BYTES];
    let got = read_at(file, &mut tail[..want], offset - len64(want))?;
    Ok((got == want).then(|| Fingerprint::of(&tail[..want])))
}

/// What a content must look like to be the one that a position speaks of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) first: Fingerprint,
    pub(crate) offset: u64,
    pub(crate) tail: Fingerprint,
}

impl Expected {
    /// Does this file hold that content, at least up to the offset?
    pub(crate) fn holds(&self, file: &File) -> io::Result<bool> {
        Ok(tail_of(file, self.offset)? == Some(self.tail) && self.begins(head_of(file)?))
    }

    /// A record that was delivered without its end stands for a first record that has none.
    fn begins(&self, head: Head) -> bool {
        match head {
            Head::Record(first) => first == self.first,
            Head::Incomplete => true,
            Head::Compressed => false,
        }
    }
}

/// A compressed copy, read as a stream: all members or frames, one after the other.
pub(crate) struct Archive {
    pub(crate) path: PathBuf,
    stream: Box<dyn Read + Send>,
    /// Logical offset of `pending[0]`.
    pub(crate) at: u64,
    pub(crate) pending: Vec<u8>,
    pub(crate) ended: bool,
}

/// How long a content is, and the fingerprint of its last bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) size: u64,
    pub(crate) tail: Fingerprint,
}

/// What a file turns out to be that may hold a certain content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It holds the content that was asked for, and is whole.
    Continues(Extent),
    /// It may hold it, but is not whole (still being written, or damaged).
    Incomplete,
    /// It holds it at the offset, but is damaged somewhere behind.
    Damaged,
    /// Something else.
    Other,
}

impl Archive {
    /// Is this a format that can be read here?
    pub(crate) fn is_readable_name(path: &Path) -> bool {
        let name = name_of(path);
        name.ends_with(b".gz") || name.ends_with(b".zst")
    }

    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let stream: Box<dyn Read + Send> = if name_of(path).ends_with(b".zst") {
            Box::new(zstd::stream::read::Decoder::new(file)?)
        } else {
            Box::new(Members::new(file))
        };
        Ok(Self { path: path.to_path_buf(), stream, at: 0, pending: Vec::new(), ended: false })
    }

    /// Reads until `pending` holds `want` bytes or the content is over.
    pub(crate) fn fill(&mut self, want: usize) -> io::Result<()> {
        if self.pending.len() >= want || self.ended {
            return Ok(());
        }
        let missing = len64(want - self.pending.len());
        let got = (&mut self.stream).take(missing).read_to_end(&mut self.pending)?;
        self.ended = len64(got) < missing;
        Ok(())
    }

    /// Takes `len` bytes off the front.
    pub(crate) fn consume(&mut self, len: usize) {
        self.pending.drain(..len);
        self.at = self.at.saturating_add(len64(len));
    }

    /// Goes to `offset`; false if the content ends before.
    pub(crate) fn skip_to(&mut self, offset: u64) -> io::Result<bool> {
        while self.at < offset {
            let want = usize::try_from(offset - self.at).unwrap_or(usize::MAX).min(64 * 1024);
            self.fill(want)?;
            if self.pending.len() < want {
                return Ok(false);
            }
            self.consume(want);
        }
        Ok(true)
    }

    /// The fingerprint of the first record; `None` if there is none or it cannot be read yet.
    pub(crate) fn first_record(path: &Path) -> Option<Fingerprint> {
        let mut archive = Self::open(path).ok()?;
        match archive.fill(FINGERPRINT_BYTES) {
            Ok(()) if archive.ended && !archive.pending.is_empty() => {
                let end = memchr::memchr(b'\n', &archive.pending).unwrap_or(archive.pending.len());
                Some(Fingerprint::of_first_record(&archive.pending[..end]))
            }
            _ => head_fingerprint(&archive.pending),
        }
    }

    /// Does the compressed file hold this content, and more of it? Decodes it to its end, in
    /// constant memory.
    pub(crate) fn check(path: &Path, expected: Option<&Expected>) -> Verdict {
        let Ok(mut archive) = Self::open(path) else { return Verdict::Incomplete };
        if let Some(expected) = expected {
            match Self::first_record(path) {
                Some(first) if first == expected.first => {}
                Some(_) => return Verdict::Other,
                None => return Verdict::Incomplete,
            }
            match archive.tail_at(expected.offset) {
                Ok(Some(tail)) if tail == expected.tail => {}
                // Whole, but something else, or shorter than what was read.
                Ok(_) => return Verdict::Other,
                Err(_) => return Verdict::Incomplete,
            }
        }
        match archive.run_out() {
            Ok(Extent { size: 0, .. }) => Verdict::Incomplete,
            Ok(extent) => Verdict::Continues(extent),
            Err(_) if expected.is_some() => Verdict::Damaged,
            Err(_) => Verdict::Incomplete,
        }
    }

    fn tail_at(&mut self, offset: u64) -> io::Result<Option<Fingerprint>> {
        let want = tail_len(offset);
        if !self.skip_to(offset - len64(want))? {
            return Ok(None);
        }
        self.fill(want)?;
        Ok((self.pending.len() >= want).then(|| Fingerprint::of(&self.pending[..want])))
    }

    /// How far the content can be read, whole or not; and how it begins.
    pub(crate) fn as_far_as_it_goes(path: &Path) -> io::Result<(Fingerprint, Extent)> {
        let mut archive = Self::open(path)?;
        // What cannot be read is said when it comes to be read.
        let _cut_short = archive.fill(FINGERPRINT_BYTES).is_err();
        let end = memchr::memchr(b'\n', &archive.pending).unwrap_or(archive.pending.len());
        let first = Fingerprint::of_first_record(&archive.pending[..end]);
        while !archive.ended && archive.fill(64 * 1024).is_ok() {
            archive.consume(archive.pending.len().saturating_sub(TAIL_BYTES));
        }
        let size = archive.at.saturating_add(len64(archive.pending.len()));
        let from = archive.pending.len().saturating_sub(tail_len(size));
        Ok((first, Extent { size, tail: Fingerprint::of(&archive.pending[from..]) }))
    }

    fn run_out(&mut self) -> io::Result<Extent> {
        loop {
            self.fill(64 * 1024)?;
            self.consume(self.pending.len().saturating_sub(TAIL_BYTES));
            if self.ended {
                let size = self.at.saturating_add(len64(self.pending.len()));
                return Ok(Extent { size, tail: Fingerprint::of(&self.pending) });
            }
        }
    }
}

/// The members of a gzip file. Zeros behind the last one are padding (of tapes and block devices);
/// anything else there is an error.
pub(crate) struct Members<R: Read = File> {
    member: Option<GzDecoder<BufReader<R>>>,
    rest: Option<BufReader<R>>,
}

impl<R: Read> Members<R> {
    pub(crate) fn new(file: R) -> Self {
        Self { member: None, rest: Some(BufReader::with_capacity(64 * 1024, file)) }
    }

    /// Begins the next member; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        let Some(mut rest) = self.rest.take() else { return Ok(false) };
        let Some(first) = rest.fill_buf()?.first().copied() else { return Ok(false) };
        match first {
            0x1f => {
                self.member = Some(GzDecoder::new(rest));
                Ok(true)
            }
            0 => loop {
                let padding = rest.fill_buf()?;
                if padding.iter().any(|byte| *byte != 0) {
                    return Err(not_gzip());
                }
                match padding.len() {
                    0 => return Ok(false),
                    len => rest.consume(len),
                }
            },
            _ => Err(not_gzip()),
        }
    }
}

fn not_gzip() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what stands there is no gzip member")
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(member) = &mut self.member {
                let got = member.read(buffer)?;
                if got > 0 || buffer.is_empty() {
                    return Ok(got);
                }
                self.rest = self.member.take().map(GzDecoder::into_inner);
            }
            if !self.next()? {
                return Ok(0);
            }
        }
    }
}

/// A file that may hold a content that is known, plain or compressed.
pub(crate) enum Form {
    Plain(File),
    Packed(PathBuf),
}

impl Form {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if is_compressed_name(path) {
            return Ok(Self::Packed(path.to_path_buf()));
        }
        File::open(path).map(Self::Plain)
    }

    /// Does it hold this content, at least up to the offset, and how far does it go?
    pub(crate) fn check(&self, expected: &Expected) -> io::Result<Verdict> {
        match self {
            Self::Plain(file) => {
                let is_it = expected.holds(file)? && head_of(file)? != Head::Incomplete;
                let extent = if is_it { extent_of(file)? } else { None };
                Ok(extent.map_or(Verdict::Other, Verdict::Continues))
            }
            Self::Packed(path) => Ok(Archive::check(path, Some(expected))),
        }
    }

    /// How far it goes now; `None` if that cannot be said.
    pub(crate) fn extent(&self) -> io::Result<Option<Extent>> {
        match self {
            Self::Plain(file) => extent_of(file),
            Self::Packed(path) => match Archive::check(path, None) {
                Verdict::Continues(extent) => Ok(Some(extent)),
                _ => Ok(None),
            },
        }
    }
}

/// How far a plain file goes now.
pub(crate) fn extent_of(file: &File) -> io::Result<Option<Extent>> {
    let size = stat_file(file)?.size;
    Ok(tail_of(file, size)?.map(|tail| Extent { size, tail }))
}
