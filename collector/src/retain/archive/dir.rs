//! Copies in a directory.
//!
//! `<path>/<day>/0000000007.seg` and `.idx`, as in the evidence log, and for each day a
//! `manifest.json` that names each segment with its length and SHA-256. A copy is synced, read back
//! and compared before the manifest names it. What a crash left without a name in the manifest, or
//! half written, is removed before the next copy and before an erasure, which must reach it too.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use custody_event::{Clock, Digest};
use custody_evidence::whole::{PUBLIC, write_whole};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::{RetainError, io};
use super::{Archived, Copied, Shelf, day_of, different};
use crate::store::evidence::{Segment, check_copy, generation_of, is_rewritten_whole};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    v: u32,
    segments: Vec<Archived>,
}

fn manifest_in(folder: &Path) -> Result<Manifest, RetainError> {
    let path = folder.join("manifest.json");
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| io(&path)(std::io::Error::other(error.to_string()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Manifest { v: 1, segments: Vec::new() })
        }
        Err(error) => Err(io(&path)(error)),
    }
}

fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), RetainError> {
    let path = folder.join("manifest.json");
    let bytes = serde_json::to_vec_pretty(manifest)
        .map_err(|error| io(&path)(std::io::Error::other(error.to_string())))?;
    write_whole(&path, &bytes, PUBLIC).map_err(io(&path))
}

/// SHA-256 and length of a file, as the disk gives it back.
pub(in crate::retain) fn digest_of(path: &Path) -> Result<(Digest, u64), RetainError> {
    let mut file = File::open(path).map_err(io(path))?;
    let (mut hash, mut len, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).map_err(io(path))?;
        if read == 0 {
            return Ok((Digest(hash.finalize().into()), len));
        }
        hash.update(&buffer[..read]);
        len += u64::try_from(read).unwrap_or(u64::MAX);
    }
}

/// Copies a file durably under a temporary name, gives it its name, and compares what was written.
fn copy(from: &Path, to: &Path) -> Result<(Digest, u64), RetainError> {
    let part = to.with_extension("part");
    let (mut source, mut hash, mut buffer) =
        (File::open(from).map_err(io(from))?, Sha256::new(), vec![0; 1 << 20]);
    let mut target = File::create(&part).map_err(io(&part))?;
    loop {
        let read = source.read(&mut buffer).map_err(io(from))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        target.write_all(&buffer[..read]).map_err(io(&part))?;
    }
    target.sync_all().map_err(io(&part))?;
    let expected = Digest(hash.finalize().into());
    let (found, len) = digest_of(&part)?;
    if found != expected {
        return Err(different(&part, found, expected));
    }
    std::fs::rename(&part, to).map_err(io(to))?;
    let folder = to.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))?;
    Ok((found, len))
}

/// What is in a folder, in order; nothing where there is none.
fn folder(path: &Path) -> Result<Vec<PathBuf>, RetainError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(path)(error)),
    };
    let paths: Result<Vec<PathBuf>, RetainError> =
        entries.map(|entry| Ok(entry.map_err(io(path))?.path())).collect();
    let mut paths = paths?;
    paths.sort();
    Ok(paths)
}

/// See the module.
pub(super) struct Folders {
    root: PathBuf,
    clock: Arc<dyn Clock>,
}

impl Folders {
    pub(super) fn new(root: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self { root, clock }
    }

    fn days(&self) -> Result<Vec<PathBuf>, RetainError> {
        Ok(folder(&self.root)?.into_iter().filter(|path| path.is_dir()).collect())
    }

    fn path_of(&self, known: &Archived) -> PathBuf {
        self.root.join(&known.day).join(&known.file)
    }

    fn compared(&self, known: &Archived) -> Result<PathBuf, RetainError> {
        let path = self.path_of(known);
        let (found, _) = digest_of(&path)?;
        if found == known.sha256 { Ok(path) } else { Err(different(&path, found, known.sha256)) }
    }

    /// Writes down what the copy is now.
    fn note(&self, known: &Archived, (sha256, bytes): (Digest, u64)) -> Result<(), RetainError> {
        let folder = self.root.join(&known.day);
        let mut manifest = manifest_in(&folder)?;
        for archived in &mut manifest.segments {
            if archived.segment == known.segment {
                archived.generation = Some(generation_of(&folder.join(&archived.file))?);
                (archived.sha256, archived.bytes) = (sha256, bytes);
            }
        }
        write_manifest(&folder, &manifest)
    }
}

impl Shelf for Folders {
    fn list(&self) -> Result<Vec<Archived>, RetainError> {
        let mut all = Vec::new();
        for folder in self.days()? {
            let day = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            for mut archived in manifest_in(&folder)?.segments {
                // The folder is where it is found, whatever an older manifest leaves out.
                archived.day = day.to_owned();
                all.push(archived);
            }
        }
        Ok(all)
    }

    fn find(&self, segment: &Segment) -> Result<Option<Archived>, RetainError> {
        let day = day_of(&segment.path);
        let known = manifest_in(&self.root.join(day))?.segments.into_iter();
        let mut found = known.filter(|known| known.segment == segment.number);
        Ok(found.next().map(|known| Archived { day: day.to_owned(), ..known }))
    }

    fn put(&self, segment: &Segment) -> Result<Archived, RetainError> {
        let day = day_of(&segment.path);
        let folder = self.root.join(day);
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;
        let mut manifest = manifest_in(&folder)?;
        let file = format!("{:010}.seg", segment.number);
        let target = folder.join(&file);
        copy(&segment.path.with_extension("idx"), &target.with_extension("idx"))?;
        let (sha256, bytes) = copy(&segment.path, &target)?;
        let archived = Archived {
            segment: segment.number,
            file,
            bytes,
            sha256,
            archived: self.clock.now().to_string(),
            generation: Some(generation_of(&target)?),
            day: day.to_owned(),
            restored: false,
        };
        manifest.segments.push(archived.clone());
        write_manifest(&folder, &manifest)?;
        Ok(archived)
    }

    fn check(&self, known: &Archived, segment: &Segment) -> Result<(), RetainError> {
        Ok(check_copy(&segment.path, &self.compared(known)?)?)
    }

    fn fetch(&self, known: &Archived) -> Result<Copied, RetainError> {
        Ok(Copied { path: self.compared(known)?, is_ours: false })
    }

    fn peek(&self, known: &Archived) -> Result<Copied, RetainError> {
        Ok(Copied { path: self.path_of(known), is_ours: false })
    }

    /// The copy must be what the manifest says, or what was written anew of it when a crash came before
    /// the manifest.
    fn open(&self, known: &Archived) -> Result<Copied, RetainError> {
        let path = self.path_of(known);
        let found = digest_of(&path)?;
        if found.0 != known.sha256 {
            if !is_rewritten_whole(&path, known.generation.map(|before| before + 1))? {
                return Err(different(&path, found.0, known.sha256));
            }
            self.note(known, found)?;
        }
        Ok(Copied { path, is_ours: false })
    }

    fn replace(&self, known: &Archived, copy: &Copied) -> Result<(), RetainError> {
        self.note(known, digest_of(copy.path())?)
    }

    fn tidy(&self) -> Result<u64, RetainError> {
        for day in self.days()? {
            let named: Vec<String> =
                manifest_in(&day)?.segments.into_iter().map(|archived| archived.file).collect();
            for path in folder(&day)? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let (stem, ending) = name.split_once('.').unwrap_or_default();
                let is_named = named.iter().any(|file| file.strip_suffix(".seg") == Some(stem));
                let is_ours = stem == "manifest" || stem.bytes().all(|byte| byte.is_ascii_digit());
                let is_whole = matches!(ending, "seg" | "idx") && is_named
                    || (stem, ending) == ("manifest", "json");
                if is_ours && !is_whole {
                    std::fs::remove_file(&path).map_err(io(&path))?;
                    log::warn!(path:% = path.display(); "an unfinished copy in the archive was removed");
                }
            }
        }
        Ok(0)
    }
}
