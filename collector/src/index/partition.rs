//! One day's index on the disk: opened, created, set aside.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tantivy::directory::MmapDirectory;
use tantivy::{Index, IndexReader, IndexSettings, ReloadPolicy, TantivyError};

use super::schema::{FORMAT, Fields, register_tokenizer};
use super::{IndexError, LogCursor};

/// What a commit says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    /// The format of the documents.
    pub(super) format: u32,
    /// The stretch of the log that the partition holds begins here …
    pub(super) from: LogCursor,
    /// … and goes to here.
    pub(super) next: LogCursor,
    /// Events that could not be read and were left out.
    pub(super) skipped: u64,
}

impl Payload {
    pub(super) fn starting(from: LogCursor) -> Self {
        Self { format: FORMAT, from, next: from, skipped: 0 }
    }

    pub(super) fn to_text(self) -> Result<String, IndexError> {
        serde_json::to_string(&self)
            .map_err(|error| IndexError::Engine(TantivyError::InternalError(error.to_string())))
    }
}

/// A partition that can be searched.
#[derive(Clone)]
pub(super) struct Partition {
    pub(super) day: String,
    pub(super) index: Index,
    pub(super) reader: IndexReader,
    pub(super) payload: Payload,
}

/// What was found where a partition should be.
pub(super) enum Opened {
    /// It is there.
    Whole(Box<Partition>),
    /// There is an index without a single commit.
    Empty,
    /// It is no index of this format, or damaged; why.
    Damaged(String),
}

impl Partition {
    /// Makes a new one.
    pub(super) fn create(dir: &Path, day: &str, from: LogCursor) -> Result<Self, IndexError> {
        let path = dir.join(day);
        std::fs::create_dir_all(&path).map_err(io(&path))?;
        let directory = MmapDirectory::open(&path).map_err(TantivyError::from)?;
        let (schema, _) = Fields::schema();
        let index = Index::create(directory, schema, IndexSettings::default())?;
        Self::with(index, day, Payload::starting(from))
    }

    fn with(index: Index, day: &str, payload: Payload) -> Result<Self, IndexError> {
        register_tokenizer(&index);
        // The runner says when; nothing watches files behind its back.
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { day: day.to_owned(), index, reader, payload })
    }

    /// Opens what is there. An error is one of the disk, which may pass.
    pub(super) fn open(dir: &Path, day: &str, verify: bool) -> Result<Opened, IndexError> {
        match Self::try_open(&dir.join(day), day, verify) {
            Ok(opened) => Ok(opened),
            Err(IndexError::Engine(error)) if is_of_the_disk(&error) => Err(error.into()),
            Err(IndexError::Engine(error)) => Ok(Opened::Damaged(error.to_string())),
            Err(other) => Err(other),
        }
    }

    fn try_open(path: &Path, day: &str, verify: bool) -> Result<Opened, IndexError> {
        let directory = MmapDirectory::open(path).map_err(TantivyError::from)?;
        if !Index::exists(&directory).map_err(TantivyError::from)? {
            return Ok(Opened::Empty);
        }
        let index = Index::open(directory)?;
        if index.schema() != Fields::schema().0 {
            return Ok(Opened::Damaged("its fields are of another version".to_owned()));
        }
        let Some(text) = index.load_metas()?.payload else { return Ok(Opened::Empty) };
        let payload: Payload = match serde_json::from_str(&text) {
            Ok(payload) => payload,
            Err(error) => return Ok(Opened::Damaged(format!("its payload: {error}"))),
        };
        if payload.format != FORMAT {
            let format = payload.format;
            return Ok(Opened::Damaged(format!("its format is {format}, not {FORMAT}")));
        }
        if verify && let Some(file) = index.validate_checksum()?.into_iter().next() {
            return Ok(Opened::Damaged(format!("{}: checksum", file.display())));
        }
        Ok(Opened::Whole(Box::new(Self::with(index, day, payload)?)))
    }
}

/// Errors that say nothing about what is on the disk: full, no permission, no descriptors.
fn is_of_the_disk(error: &TantivyError) -> bool {
    use tantivy::directory::error::{OpenDirectoryError, OpenReadError};
    match error {
        TantivyError::IoError(error) => !is_damage(error),
        TantivyError::OpenReadError(OpenReadError::IoError { io_error, .. }) => {
            !is_damage(io_error)
        }
        TantivyError::LockFailure(..)
        | TantivyError::OpenWriteError(_)
        | TantivyError::SystemError(_) => true,
        TantivyError::OpenDirectoryError(error) => {
            !matches!(error, OpenDirectoryError::NotADirectory(_))
        }
        _ => false,
    }
}

fn is_damage(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::NotFound | ErrorKind::Other
    )
}

/// Moves a partition out of the way; the one set aside before it goes.
pub(super) fn set_aside(dir: &Path, day: &str) -> Result<(), IndexError> {
    let path = dir.join(day);
    let aside = dir.join(format!("{day}{ASIDE}"));
    remove(&aside)?;
    std::fs::rename(&path, &aside).map_err(io(&path))
}

/// Removes a file or folder, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), IndexError> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(path)(error)),
        _ => Ok(()),
    }
}

const ASIDE: &str = ".damaged";
/// How the engine's names of files begin that are not whole yet.
const UNFINISHED: &str = ".tmp";
const ANEW: &str = ".new";
const OLD: &str = ".old";

/// The name under which a day is made anew, beside the one that is searched.
pub(super) fn anew(day: &str) -> String {
    format!("{day}{ANEW}")
}

/// Puts the day that was made anew in the old one's place. Nobody may have either of them open.
pub(super) fn swap(dir: &Path, day: &str) -> Result<(), IndexError> {
    let (path, old) = (dir.join(day), dir.join(format!("{day}{OLD}")));
    remove(&old)?;
    std::fs::rename(&path, &old).map_err(io(&path))?;
    end_swap(dir, day)
}

fn end_swap(dir: &Path, day: &str) -> Result<(), IndexError> {
    let new = dir.join(anew(day));
    std::fs::rename(&new, dir.join(day)).map_err(io(&new))?;
    std::fs::File::open(dir).and_then(|folder| folder.sync_all()).map_err(io(dir))?;
    remove(&dir.join(format!("{day}{OLD}")))
}

/// Ends swaps that were broken off; with `all` also removes what was being made anew.
pub(super) fn end_swaps(dir: &Path, all: bool) -> Result<(), IndexError> {
    for name in names(dir)? {
        if let Some(day) = name.strip_suffix(OLD).filter(|day| is_day(day)) {
            let has = |name: &str| {
                let path = dir.join(name);
                path.try_exists().map_err(io(&path))
            };
            match (has(day)?, has(&anew(day))?) {
                (false, true) => end_swap(dir, day)?,
                (false, false) => {
                    let old = dir.join(&name);
                    std::fs::rename(&old, dir.join(day)).map_err(io(&old))?;
                }
                (true, _) => remove(&dir.join(&name))?,
            }
        }
    }
    for name in names(dir)? {
        if all && name.strip_suffix(ANEW).is_some_and(is_day) {
            remove(&dir.join(&name))?;
        }
    }
    Ok(())
}

/// Removes what was set aside: it may hold what is to be gone.
pub(super) fn remove_asides(dir: &Path) -> Result<(), IndexError> {
    for name in names(dir)?.iter().filter(|name| name.ends_with(ASIDE)) {
        remove(&dir.join(name))?;
    }
    Ok(())
}

/// Removes what the engine was writing under another name when it was killed, and would leave there
/// for ever. Nobody may be writing to the day.
pub(super) fn remove_unfinished(day: &Path) -> Result<(), IndexError> {
    if !day.is_dir() {
        return Ok(());
    }
    for name in names(day)?.iter().filter(|name| name.starts_with(UNFINISHED)) {
        remove(&day.join(name))?;
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>, IndexError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io(dir))? {
        if let Ok(name) = entry.map_err(io(dir))?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// The days that have a partition, in order.
pub(super) fn days(dir: &Path) -> Result<Vec<String>, IndexError> {
    let mut days: Vec<String> = names(dir)?.into_iter().filter(|name| is_day(name)).collect();
    days.sort_unstable();
    Ok(days)
}

fn is_day(name: &str) -> bool {
    name.len() == 10
        && name.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> IndexError + use<> {
    let path: PathBuf = path.to_owned();
    move |source| IndexError::Io { path, source }
}

/// Does any term of any field of any segment of this day's folder hold these bytes? For tests that
/// look for what must be gone.
pub(crate) fn has_term(day: &Path, bytes: &[u8]) -> Result<bool, IndexError> {
    let index = Index::open_in_dir(day)?;
    let searcher = index.reader()?.searcher();
    let schema = index.schema();
    for segment in searcher.segment_readers() {
        for (field, _) in schema.fields().filter(|(_, entry)| entry.is_indexed()) {
            let inverted = segment.inverted_index(field)?;
            let mut terms = inverted.terms().stream().map_err(TantivyError::from)?;
            while terms.advance() {
                if memchr::memmem::find(terms.key(), bytes).is_some() {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}
