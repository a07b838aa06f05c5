//! The journal's files, looked at from outside.
//!
//! The library merges files and leaves out, without a word, each that it cannot open or that turns
//! out to be damaged. Their headers (systemd, "Journal File Format": little endian, 208 bytes and
//! more) say which numbers they hold, so that what was left out is seen. Nothing is written, nothing
//! but the header is read.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::{Id128, JournalError, SeqnumId, Target};

const SIGNATURE: &[u8; 8] = b"LPKSHHRH";
/// The part of the header that every version has.
const HEADER_BYTES: usize = 208;
/// The header's length from systemd 254 on.
const HEADER_BYTES_254: u64 = 272;
/// No journald has counted further; greater numbers could not be told in a block either.
const MAX_SEQNUM: u64 = (1 << 53) - 1;
/// Where this machine's journal is kept: for good, and until the next boot.
const ROOTS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

/// What a file's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Where it stands.
    pub path: PathBuf,
    /// Whose numbers.
    pub seqnum_id: SeqnumId,
    /// First number in it; 0 if it is empty.
    pub head_seqnum: u64,
    /// Last number in it; 0 if it is empty.
    pub tail_seqnum: u64,
    /// Entries in it (numbers in between may stand in another file).
    pub entries: u64,
    /// Time of its first entry, microseconds since 1970.
    pub head_realtime_us: u64,
    /// Time of its last entry.
    pub tail_realtime_us: u64,
    /// Written by systemd 254 or later: files of the system and of users have the id in common.
    pub has_common_id: bool,
}

impl Head {
    /// Whose entries they are by the file's name: `system`, `user-1000`.
    fn family(&self) -> &[u8] {
        let name = self.path.file_name().map(std::ffi::OsStr::as_encoded_bytes).unwrap_or_default();
        name.split(|byte| matches!(byte, b'.' | b'@')).next().unwrap_or_default()
    }

    /// A file with as many entries as numbers must hold them all.
    pub(crate) fn is_dense(&self) -> bool {
        self.entries > self.tail_seqnum.saturating_sub(self.head_seqnum)
    }
}

/// A file that is not read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bad {
    /// Where it stands.
    pub path: PathBuf,
    /// Device and inode: a name may change.
    pub inode: (u64, u64),
    /// What is wrong with it, with the remedy.
    pub why: String,
}

/// All files of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Files with a good header.
    pub good: Vec<Head>,
    /// The others.
    pub bad: Vec<Bad>,
}

impl Look {
    /// First and last number that the files hold of a sequence.
    #[must_use]
    pub fn range_of(&self, id: SeqnumId) -> Option<(u64, u64)> {
        let of_it = self.good.iter().filter(|head| head.seqnum_id == id && head.tail_seqnum > 0);
        of_it
            .map(|head| (head.head_seqnum, head.tail_seqnum))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// The oldest file of a sequence that has entries.
    pub(crate) fn first_of(&self, id: SeqnumId) -> Option<&Head> {
        let of_it = self.good.iter().filter(|head| head.seqnum_id == id && head.tail_seqnum > 0);
        of_it.min_by_key(|head| head.head_seqnum)
    }

    /// All sequences.
    #[must_use]
    pub fn ids(&self) -> std::collections::BTreeSet<SeqnumId> {
        self.good.iter().filter(|head| head.tail_seqnum > 0).map(|head| head.seqnum_id).collect()
    }

    /// Are all files of the sequence those of one user, or of the system? Then what is in one of them
    /// says what the sequence has there.
    pub(crate) fn is_one_family(&self, id: SeqnumId) -> bool {
        let mut of_it = self.good.iter().filter(|head| head.seqnum_id == id);
        let Some(first) = of_it.next() else { return false };
        let is_alike = |head: &Head| !head.has_common_id && head.family() == first.family();
        is_alike(first) && of_it.all(is_alike)
    }

    /// The files that should hold numbers of this range.
    #[must_use]
    pub fn holding(&self, id: SeqnumId, from: u64, to: u64) -> Vec<PathBuf> {
        let overlaps = |head: &&Head| {
            head.seqnum_id == id && head.head_seqnum <= to && head.tail_seqnum >= from
        };
        self.good.iter().filter(overlaps).map(|head| head.path.clone()).collect()
    }
}

/// Looks at all files of a journal.
///
/// # Errors
/// A directory cannot be listed. One that is not there holds no files.
pub fn look(target: &Target) -> Result<Look, JournalError> {
    let mut look = Look::default();
    for path in paths(target)? {
        let read = std::fs::metadata(&path).and_then(|meta| Ok((read_head(&path)?, meta)));
        let bad = |why: String| {
            let inode =
                std::fs::metadata(&path).map(|meta| (meta.dev(), meta.ino())).unwrap_or_default();
            Bad { path: path.clone(), inode, why }
        };
        match read {
            Ok((bytes, meta)) => match parse_head(&path, &bytes, meta.len()) {
                Ok(head) => look.good.push(head),
                Err(why) => look.bad.push(bad(why)),
            },
            // Deleted since the directory was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                look.bad.push(bad(format!("{error}{}", crate::error::remedy(&error))));
            }
        }
    }
    Ok(look)
}

fn read_head(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = vec![0; HEADER_BYTES];
    let mut len = 0;
    while len < HEADER_BYTES {
        match file.read_at(&mut bytes[len..], u64::try_from(len).unwrap_or(u64::MAX))? {
            0 => break,
            more => len += more,
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

fn parse_head(path: &Path, bytes: &[u8], size: u64) -> Result<Head, String> {
    if bytes.len() < HEADER_BYTES {
        return Err(format!("{} bytes are shorter than a journal file's header", bytes.len()));
    }
    if !bytes.starts_with(SIGNATURE) {
        return Err("it does not begin like a journal file: overwritten or damaged".into());
    }
    let number = |at: usize| {
        bytes[at..at + 8].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let mut seqnum_id = Id128::default();
    seqnum_id.0.copy_from_slice(&bytes[72..88]);
    let (header, arena) = (number(88), number(96));
    if header < 208 || header.saturating_add(arena) > size {
        return Err(format!(
            "its header speaks of {} bytes and the file has {size}: cut off or damaged",
            header.saturating_add(arena)
        ));
    }
    let (entries, tail, head) = (number(152), number(160), number(168));
    // A file without entries may name the number before its first one as its tail.
    let (tail, head) = if entries == 0 { (0, 0) } else { (tail, head) };
    if tail > MAX_SEQNUM || tail < head || (entries > 0 && head == 0) {
        return Err(format!(
            "its header speaks of {entries} entries with the numbers {head} to {tail}: damaged"
        ));
    }
    Ok(Head {
        path: path.to_path_buf(),
        seqnum_id,
        entries,
        tail_seqnum: tail,
        head_seqnum: head,
        head_realtime_us: number(184),
        tail_realtime_us: number(192),
        has_common_id: header >= HEADER_BYTES_254,
    })
}

fn paths(target: &Target) -> Result<Vec<PathBuf>, JournalError> {
    let dirs = match target {
        Target::Files(paths) => return Ok(paths.clone()),
        Target::Directory(dir) => with_machines(dir)?,
        Target::Local => local("")?,
        Target::Namespace(name) => local(&format!(".{name}"))?,
    };
    let mut found = Vec::new();
    for dir in dirs {
        for path in list(&dir)? {
            let name = path.file_name().map(std::ffi::OsStr::as_encoded_bytes).unwrap_or_default();
            if name.ends_with(b".journal") || name.ends_with(b".journal~") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn local(suffix: &str) -> Result<Vec<PathBuf>, JournalError> {
    let path = "/etc/machine-id";
    let text = std::fs::read_to_string(path)
        .map_err(|error| JournalError::Io { what: format!("reading {path}"), error })?;
    let machine = Id128::parse(text.trim()).unwrap_or_default();
    Ok(ROOTS.iter().map(|root| Path::new(root).join(format!("{machine}{suffix}"))).collect())
}

/// The directory and its subdirectories that are named after a machine (and a namespace).
fn with_machines(dir: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let mut dirs = vec![dir.to_path_buf()];
    for path in list(dir)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let machine = name.split('.').next().unwrap_or_default();
        if machine.len() == 32 && Id128::parse(machine).is_some() && path.is_dir() {
            dirs.push(path);
        }
    }
    Ok(dirs)
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let failed = |error| JournalError::Io { what: format!("listing {}", dir.display()), error };
    match std::fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..8].copy_from_slice(SIGNATURE);
        bytes[72..88].copy_from_slice(&[7; 16]);
        for (at, value) in [(88, 208_u64), (96, 92), (152, 3), (160, 12), (168, 10), (192, 99)] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_damaged_cut_or_foreign_file_is_named_and_the_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        let whole = [header(), vec![0; 92]].concat();
        put("system.journal", &whole);
        put("cut.journal", &header());
        put("short.journal~", b"LPK");
        put("overwritten.journal", &[0; 400]);
        put("other.txt", b"no journal");
        let look = look(&Target::Directory(dir.path().into())).unwrap();
        assert_eq!(look.good.len(), 1);
        assert_eq!(look.range_of(Id128([7; 16])), Some((10, 12)));
        assert_eq!(look.holding(Id128([7; 16]), 12, 20).len(), 1);
        assert_eq!(look.holding(Id128([7; 16]), 13, 20).len(), 0);
        let names: Vec<_> =
            look.bad.iter().map(|bad| bad.path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["cut.journal", "overwritten.journal", "short.journal~"]);
    }

    #[test]
    fn a_header_with_numbers_that_cannot_be_is_bad_and_a_new_file_is_empty() {
        let parsed = |entries: u64, tail: u64, head: u64| {
            let mut bytes = header();
            for (at, value) in [(152, entries), (160, tail), (168, head)] {
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            parse_head(Path::new("x"), &bytes, 400).map(|head| (head.head_seqnum, head.tail_seqnum))
        };
        assert_eq!(parsed(3, 12, 10), Ok((10, 12)));
        // journald writes the last number of the file before into a new one.
        assert_eq!(parsed(0, 12, 0), Ok((0, 0)));
        assert_eq!(parsed(0, u64::MAX, 0), Ok((0, 0)));
        for (tail, head) in [(1 << 53, 10), (u64::MAX, 10), (9, 10), (12, 0), (0, 0)] {
            assert!(parsed(3, tail, head).unwrap_err().contains("damaged"), "{tail} {head}");
        }
    }

    #[test]
    fn a_sequence_is_of_one_family_unless_the_id_is_common() {
        let head = |path: &str, has_common_id| Head {
            path: path.into(),
            seqnum_id: Id128([7; 16]),
            head_seqnum: 1,
            tail_seqnum: 9,
            entries: 9,
            head_realtime_us: 0,
            tail_realtime_us: 0,
            has_common_id,
        };
        let is_one = |good: Vec<Head>| Look { good, bad: Vec::new() }.is_one_family(Id128([7; 16]));
        assert!(is_one(vec![
            head("/j/user-7@1-2.journal", false),
            head("/j/user-7.journal", false)
        ]));
        assert!(!is_one(vec![head("/j/user-7.journal", false), head("/j/system.journal", false)]));
        assert!(!is_one(vec![head("/j/system.journal", true)]));
        assert!(!is_one(Vec::new()));
    }

    #[test]
    fn a_directory_that_is_not_there_holds_no_files() {
        assert_eq!(look(&Target::Directory("/nowhere".into())).unwrap(), Look::default());
    }
}
