//! Copies in a bucket of Amazon S3, or of a server that speaks as it does.
//!
//! # Names
//! `<prefix>/<day>/0000000007.0.<SHA-256>.seg` and `.idx`: segment 7 as it was before it was ever
//! written anew (generation 0), and its sidecar. The name says what is in it, so there is no
//! manifest that could be late, lost or rewritten: an object of S3 is there whole or not at all, and
//! the list of names is the list of copies. The sidecar goes first.
//!
//! # Erasure
//! A copy that loses events is put under a new name with the next generation; then every version of
//! the old one is deleted. After a crash in between both are there: the higher generation is the
//! copy, the other goes when the bucket is tidied.
//!
//! # Locks
//! With `archive.lock` each copy is put under S3 Object Lock, and it is looked that the server did
//! so. What is locked cannot be deleted, also not by an erasure: what it leaves behind is counted,
//! told, and deleted when the lock has ended.
//!
//! # Trust
//! A body is signed with its SHA-256 and carries it as a checksum too, so what arrives is what was
//! sent. Before the log loses anything the whole copy is read again and compared. What is fetched
//! goes to `<data_dir>/archive`, is compared with the name, and removed at the latest at the next start.

mod client;
mod sign;
#[cfg(test)]
mod tests;
mod upload;
mod xml;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use custody_config::collector::{LockConfig, LockMode, S3Config};
use custody_event::{Clock, Digest};
use custody_evidence::segments::{HEADER_LEN, SegmentHeader};
use http::Method;
use sha2::{Digest as _, Sha256};

use super::super::{RetainError, io, space};
use super::dir::digest_of;
use super::{Archived, Around, Copied, Shelf, day_of, different};
use crate::store::evidence::{Segment, generation_of};
use client::{Ask, Client, Times};

/// Free space that a fetched copy leaves to the evidence.
const SPARE_BYTES: u64 = 64 * 1024 * 1024;
/// Pages of a list, at most: beyond, a server does not come to an end.
const MAX_PAGES: usize = 100_000;

/// Why the bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// The configuration makes no client.
    #[error("the archive's bucket: {0}")]
    Setup(String),
    /// A key cannot be read.
    #[error("{0}")]
    Keys(String),
    /// The server cannot be reached, or fails again and again.
    #[error("{at}: {why}, {tries} times (hint: is `archive.endpoint` right, and the server well?)")]
    Unreachable {
        /// The object.
        at: String,
        /// How often it was tried.
        tries: u32,
        /// The last failure.
        why: String,
    },
    /// The server refuses.
    #[error("{what}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What was asked, what the server said, and what to do.
        what: String,
    },
    /// It is not there.
    #[error("{at} is not there ({code}); put it back, or find out who took it away")]
    Missing {
        /// The object.
        at: String,
        /// The server's word for it.
        code: String,
    },
    /// An answer makes no sense, or is not what was asked for.
    #[error("{at}: {what}")]
    Answer {
        /// The object.
        at: String,
        /// What is wrong with it.
        what: String,
    },
}

/// What a name says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    day: String,
    segment: u64,
    generation: u32,
    sha256: Digest,
}

impl Named {
    /// Reads a name behind the prefix, without its ending.
    fn read(stem: &str) -> Option<Self> {
        let (day, rest) = stem.split_once('/')?;
        let mut parts = rest.split('.');
        let (segment, generation, sha256) = (parts.next()?, parts.next()?, parts.next()?);
        let is_day =
            day.len() == 10 && day.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let named = Self {
            day: day.to_owned(),
            segment: segment.parse().ok()?,
            generation: generation.parse().ok()?,
            sha256: custody_event::ids::parse_hex(sha256).map(Digest)?,
        };
        (is_day && parts.next().is_none() && named.stem() == stem).then_some(named)
    }

    fn stem(&self) -> String {
        let Self { day, segment, generation, sha256 } = self;
        format!("{day}/{segment:010}.{generation}.{}", sha256.to_hex())
    }
}

/// Everything below the prefix.
#[derive(Debug, Default)]
struct Listed {
    /// The copies: of each segment the highest generation.
    copies: BTreeMap<u64, Archived>,
    /// Names that are in nobody's list: lower generations, sidecars without a segment.
    left: Vec<String>,
}

/// See the module.
pub(super) struct Bucket {
    client: Client,
    prefix: String,
    lock: Option<LockConfig>,
    /// Where fetched copies stand, and how far an upload is.
    folder: PathBuf,
    /// The copies, as they were listed last and changed since.
    copies: Mutex<Option<BTreeMap<u64, Archived>>>,
    clock: Arc<dyn Clock>,
    /// Copies that were fetched.
    fetched: AtomicU64,
}

impl Bucket {
    pub(super) fn open(config: &S3Config, around: Around<'_>) -> Result<Self, RetainError> {
        Self::open_with(config, around, Times::default())
    }

    fn open_with(config: &S3Config, around: Around<'_>, times: Times) -> Result<Self, RetainError> {
        let folder = around.data_dir.join("archive");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io(&folder))?;
        for entry in std::fs::read_dir(&folder).map_err(io(&folder))? {
            let path = entry.map_err(io(&folder))?.path();
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            // A crash left them. How far an upload is stays.
            if matches!(ending, "seg" | "idx" | "new") {
                std::fs::remove_file(&path).map_err(io(&path))?;
            }
        }
        let client = Client::new(config, Arc::clone(&around.clock), around.stopping, times)?;
        let prefix = config.prefix.as_ref().map(|prefix| format!("{}/", prefix.get()));
        Ok(Self {
            client,
            prefix: prefix.unwrap_or_default(),
            lock: config.lock,
            folder,
            copies: Mutex::default(),
            clock: around.clock,
            fetched: AtomicU64::new(0),
        })
    }

    fn copies(&self) -> MutexGuard<'_, Option<BTreeMap<u64, Archived>>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the bucket; what it says is known from then on.
    fn look(&self) -> Result<Listed, RetainError> {
        let mut listed = Listed::default();
        let mut sidecars = Vec::new();
        let mut page: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut query = vec![("list-type", "2"), ("prefix", self.prefix.as_str())];
            if let Some(token) = page.as_deref() {
                query.push(("continuation-token", token));
            }
            let ask = Ask { query, ..Ask::default() };
            let answer = self.client.ask(&ask)?;
            let xml = answer.text();
            if !xml.contains("<ListBucketResult") {
                return Err(self.nonsense("its list of objects is none"));
            }
            for object in xml::all(xml, "Contents") {
                self.sort_in(object, &mut listed, &mut sidecars);
            }
            page = xml::text(xml, "NextContinuationToken");
            if page.is_none() {
                break;
            }
        }
        let known = |name: &String| {
            let mut files = listed.copies.values().map(|copy| &copy.file);
            name.strip_suffix("idx")
                .is_some_and(|stem| files.any(|file| file.strip_suffix("seg") == Some(stem)))
        };
        let orphans: Vec<String> = sidecars.into_iter().filter(|name| !known(name)).collect();
        listed.left.extend(orphans);
        *self.copies() = Some(listed.copies.clone());
        Ok(listed)
    }

    fn sort_in(&self, object: &str, listed: &mut Listed, sidecars: &mut Vec<String>) {
        let Some(key) = xml::text(object, "Key") else { return };
        let Some(name) = key.strip_prefix(self.prefix.as_str()) else { return };
        if let Some(stem) = name.strip_suffix(".idx")
            && Named::read(stem).is_some()
        {
            return sidecars.push(key);
        }
        // What is not ours is nobody's business here.
        let Some(named) = name.strip_suffix(".seg").and_then(Named::read) else { return };
        let copy = Archived {
            segment: named.segment,
            bytes: xml::text(object, "Size").and_then(|size| size.parse().ok()).unwrap_or_default(),
            sha256: named.sha256,
            archived: xml::text(object, "LastModified").unwrap_or_default(),
            generation: Some(named.generation),
            day: named.day,
            restored: false,
            file: key,
        };
        match listed.copies.get_mut(&copy.segment) {
            Some(known) if known.generation < copy.generation => {
                listed.left.push(std::mem::replace(known, copy).file);
            }
            Some(_) => listed.left.push(copy.file),
            None => {
                listed.copies.insert(copy.segment, copy);
            }
        }
    }

    /// Would this collector give an object this name?
    fn is_ours(&self, key: &str) -> bool {
        let stem = key.strip_prefix(self.prefix.as_str()).and_then(|name| name.rsplit_once('.'));
        stem.is_some_and(|(stem, _)| Named::read(stem).is_some())
    }

    fn nonsense(&self, what: &str) -> RetainError {
        S3Error::Answer { at: self.client.place(&self.prefix), what: what.to_owned() }.into()
    }

    /// Puts a segment's file with its sidecar under the name that fits it.
    fn store(&self, path: &Path, segment: u64, day: &str) -> Result<Archived, RetainError> {
        let (sha256, bytes) = digest_of(path)?;
        let generation = generation_of(path)?;
        let named = Named { day: day.to_owned(), segment, generation, sha256 };
        let stem = format!("{}{}", self.prefix, named.stem());
        let archived = self.clock.now().to_string();
        self.upload(&path.with_extension("idx"), &format!("{stem}.idx"))?;
        let file = format!("{stem}.seg");
        self.upload(path, &file)?;
        Ok(Archived {
            segment,
            file,
            bytes,
            sha256,
            archived,
            generation: Some(generation),
            day: day.to_owned(),
            restored: false,
        })
    }

    /// Sees to it that the object is there, so long, and locked where it has to be.
    fn confirm(&self, key: &str, len: u64, until: Option<&str>) -> Result<(), RetainError> {
        let answer = self.client.ask(&Ask { method: Method::HEAD, key, ..Ask::default() })?;
        let wrong = |what: String| S3Error::Answer { at: self.client.place(key), what };
        let found = answer.header("content-length").and_then(|len| len.parse::<u64>().ok());
        if found.is_some_and(|found| found != len) {
            let what = format!("{} bytes were sent, {} are there", len, found.unwrap_or_default());
            return Err(wrong(what).into());
        }
        let Some(until) = until else { return Ok(()) };
        let mode = answer.header("x-amz-object-lock-mode").unwrap_or_default();
        let end = answer.header("x-amz-object-lock-retain-until-date").unwrap_or_default();
        // Both are UTC; what stands behind the seconds does not matter.
        let holds = end.get(..19).zip(until.get(..19)).is_some_and(|(end, until)| end >= until);
        if !holds || !mode.eq_ignore_ascii_case(self.mode()) {
            let what = format!(
                "it is not locked until {until} (hint: was the bucket made with Object Lock? may the key \
                 get and put the retention of objects?)"
            );
            return Err(wrong(what).into());
        }
        Ok(())
    }

    fn mode(&self) -> &'static str {
        match self.lock.map(|lock| lock.mode) {
            Some(LockMode::Governance) => "GOVERNANCE",
            _ => "COMPLIANCE",
        }
    }

    /// Until when a copy of now is locked.
    fn locked_until(&self) -> Option<String> {
        let keep = i64::try_from(self.lock?.keep.millis()).unwrap_or(i64::MAX);
        let until = self.clock.now().plus_micros(keep.saturating_mul(1_000)).to_string();
        Some(format!("{}Z", &until[..19]))
    }

    /// Deletes every version of the object; `false` where a lock keeps one.
    fn delete(&self, key: &str) -> Result<bool, RetainError> {
        let query = vec![("versions", ""), ("prefix", key)];
        let versions = match self.client.ask(&Ask { query, ..Ask::default() }) {
            Ok(answer) => versions(answer.text(), key),
            // A server without versions.
            Err(RetainError::S3(S3Error::Refused { status: 405 | 501, .. })) => vec![String::new()],
            Err(error) => return Err(error),
        };
        let mut all = true;
        for version in versions {
            let mut query = vec![("versionId", version.as_str())];
            query.retain(|(_, version)| !version.is_empty());
            let ask = Ask { method: Method::DELETE, key, query, ..Ask::default() };
            match self.client.ask(&ask) {
                Ok(_) | Err(RetainError::S3(S3Error::Missing { .. })) => {}
                Err(RetainError::S3(S3Error::Refused { status: 400 | 403, .. }))
                    if self.is_locked(key, &version)? =>
                {
                    all = false;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    fn is_locked(&self, key: &str, version: &str) -> Result<bool, RetainError> {
        let mut query = vec![("versionId", version)];
        query.retain(|(_, version)| !version.is_empty());
        let answer =
            self.client.ask(&Ask { method: Method::HEAD, key, query, ..Ask::default() })?;
        let held = answer.header("x-amz-object-lock-legal-hold") == Some("ON");
        let now = self.clock.now().to_string();
        let until = answer.header("x-amz-object-lock-retain-until-date").unwrap_or_default();
        Ok(held || until.get(..19).is_some_and(|until| until >= &now[..19]))
    }

    /// Fetches an object into a file, if it has this hash.
    fn fetch_to(
        &self,
        key: &str,
        path: &Path,
        expected: Option<Digest>,
    ) -> Result<(), RetainError> {
        let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let (mut file, mut hash) = (open.map_err(io(path))?, Sha256::new());
        self.client.download(key, &mut |bytes| {
            hash.update(bytes);
            file.write_all(bytes).map_err(io(path))
        })?;
        file.sync_all().map_err(io(path))?;
        let found = Digest(hash.finalize().into());
        match expected {
            Some(expected) if found != expected => {
                Err(different(Path::new(&self.client.place(key)), found, expected))
            }
            _ => Ok(()),
        }
    }

    fn see_room(&self, bytes: u64) -> Result<(), RetainError> {
        let free = space::free_at(&self.folder).map_err(io(&self.folder))?;
        if free >= bytes.saturating_add(SPARE_BYTES) {
            return Ok(());
        }
        let what =
            format!("{bytes} bytes of the archive are to be fetched, {free} are free; make room");
        Err(io(&self.folder)(std::io::Error::new(std::io::ErrorKind::StorageFull, what)))
    }
}

/// The versions and marks of deletion of exactly this object.
fn versions(xml: &str, key: &str) -> Vec<String> {
    let both = ["Version", "DeleteMarker"].into_iter().flat_map(|name| xml::all(xml, name));
    both.filter(|version| xml::text(version, "Key").as_deref() == Some(key))
        .filter_map(|version| xml::text(version, "VersionId"))
        .collect()
}

/// What a copy says of itself while it streams by: its hash, its header, its end.
struct Streamed {
    hash: Sha256,
    head: Vec<u8>,
    tail: Vec<u8>,
    len: u64,
}

impl Streamed {
    fn new() -> Self {
        Self { hash: Sha256::new(), head: Vec::new(), tail: Vec::new(), len: 0 }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let missing = HEADER_LEN.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..missing]);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(4)..]);
        let more = self.tail.len().saturating_sub(4);
        self.tail.drain(..more);
    }

    /// The segment's number and its first end.
    fn end(&self) -> Option<(u64, (u64, u32))> {
        let head = <[u8; HEADER_LEN]>::try_from(self.head.as_slice()).ok()?;
        let header = SegmentHeader::from_bytes(&head).ok()?;
        let tail = <[u8; 4]>::try_from(self.tail.as_slice()).ok()?;
        let end = match header.rewritten {
            Some(rewritten) => (rewritten.was_len, rewritten.was_crc),
            None => (self.len, u32::from_le_bytes(tail)),
        };
        Some((header.number, end))
    }
}

impl Shelf for Bucket {
    fn list(&self) -> Result<Vec<Archived>, RetainError> {
        Ok(self.look()?.copies.into_values().collect())
    }

    fn find(&self, segment: &Segment) -> Result<Option<Archived>, RetainError> {
        if let Some(copies) = &*self.copies() {
            return Ok(copies.get(&segment.number).cloned());
        }
        Ok(self.look()?.copies.remove(&segment.number))
    }

    fn put(&self, segment: &Segment) -> Result<Archived, RetainError> {
        let copy = self.store(&segment.path, segment.number, day_of(&segment.path))?;
        if let Some(copies) = &mut *self.copies() {
            copies.insert(copy.segment, copy.clone());
        }
        Ok(copy)
    }

    fn check(&self, known: &Archived, segment: &Segment) -> Result<(), RetainError> {
        let mut streamed = Streamed::new();
        let read = self.client.download(&known.file, &mut |bytes| {
            streamed.take(bytes);
            Ok(())
        });
        if read.is_err() {
            // Whoever asks again looks again.
            *self.copies() = None;
        }
        read?;
        let place = self.client.place(&known.file);
        let found = Digest(streamed.hash.clone().finalize().into());
        if found != known.sha256 {
            return Err(different(Path::new(&place), found, known.sha256));
        }
        let live = custody_evidence::segments::end_of(segment).map_err(io(&segment.path))?;
        if streamed.end() != Some((segment.number, live)) {
            let what = "it is no copy of this segment; nothing has been changed".to_owned();
            return Err(S3Error::Answer { at: place, what }.into());
        }
        Ok(())
    }

    fn fetch(&self, known: &Archived, _segment: &Segment) -> Result<Copied, RetainError> {
        self.peek(known)
    }

    fn peek(&self, known: &Archived) -> Result<Copied, RetainError> {
        self.see_room(known.bytes)?;
        let number = self.fetched.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{number}.seg"));
        let copy = Copied { path: path.clone(), is_ours: true };
        self.fetch_to(&known.file, &path, Some(known.sha256))?;
        Ok(copy)
    }

    fn open(&self, known: &Archived) -> Result<Copied, RetainError> {
        // Written anew it needs its room twice.
        self.see_room(known.bytes.saturating_mul(2))?;
        let copy = self.peek(known)?;
        let sidecar = known.file.strip_suffix("seg").unwrap_or(&known.file);
        self.fetch_to(&format!("{sidecar}idx"), &copy.path().with_extension("idx"), None)?;
        Ok(copy)
    }

    fn replace(&self, known: &Archived, copy: &Copied) -> Result<(), RetainError> {
        let new = self.store(copy.path(), known.segment, &known.day)?;
        let stem = known.file.strip_suffix("seg").unwrap_or(&known.file);
        for key in [known.file.clone(), format!("{stem}idx")] {
            if !self.delete(&key)? {
                log::warn!(at:% = self.client.place(&key);
                    "a copy with erased events is locked; it goes when the lock ends");
            }
        }
        if let Some(copies) = &mut *self.copies() {
            copies.insert(new.segment, new);
        }
        Ok(())
    }

    fn tidy(&self, _live: &[Segment]) -> Result<u64, RetainError> {
        let listed = self.look()?;
        self.end_uploads(&listed.copies)?;
        let mut locked = 0;
        for key in listed.left {
            if self.delete(&key)? {
                log::warn!(at:% = self.client.place(&key); "a copy that is not needed any more was removed");
            } else {
                locked += u64::from(key.ends_with(".seg"));
            }
        }
        Ok(locked)
    }
}

/// The file at `path`, and how long it is.
fn opened(path: &Path) -> Result<(File, u64), RetainError> {
    let file = File::open(path).map_err(io(path))?;
    let len = file.metadata().map_err(io(path))?.len();
    Ok((file, len))
}
