//! A copy of a data directory that is whole at one moment, also while the collector runs.
//!
//! # How
//! The checkpoint first: it names how many blocks there are. Then the tiles, which only grow; then
//! the segments up to the last block that the checkpoint names, and the mark; keys and tokens; and
//! the database as SQLite copies it (`VACUUM INTO`, one transaction). Segments that lose events
//! meanwhile are replaced whole, so that each copy is the old one or the new one.
//!
//! The index is derived and not copied; agents' cosignatures may name more than the checkpoint on the
//! disk does, and are not either: agents send them again. The copy holds keys and tokens: keep it as secret as the
//! collector itself.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use custody_evidence::segments::{
    self, Frame, Frames, HEAD_BYTES, HEADER_BYTES, Segment, TAIL_BYTES,
};
use custody_evidence::tlog::{FileTiles, Kind, TILE_WIDTH, Tile, TileRead, bundle_entries};
use custody_evidence::verify::{Report, Trust, verify_dir};
use custody_evidence::{Checkpoint, note::Note};
use rusqlite::Connection;

use super::{RetainError, io};
use crate::access::database_in;

/// The kind of the log's entries that are blocks.
const KIND_BLOCK: u8 = 1;
/// Small files that are copied as they are, where they are there.
const FILES: [&str; 5] =
    ["own.key", "admin.token", "enroll.token", "agents-ca.key", "agents-ca.pem"];

/// Copies the data directory `from` to `to`, which must not be there or be empty, and verifies
/// the copy.
///
/// # Errors
/// A file cannot be read or written, or the copy does not verify.
pub fn backup(from: &Path, to: &Path) -> Result<Report, RetainError> {
    make_empty(to)?;
    let blocks = copy_tlog(&from.join("tlog"), &to.join("tlog"))?;
    copy_segments(&from.join("evidence"), &to.join("evidence"), blocks)?;
    for name in FILES {
        copy_if_there(&from.join(name), &to.join(name))?;
    }
    copy_database(from, to)?;
    sync(to)?;
    verified(to)
}

/// Puts a copy in the place of a data directory, which must not be there or be empty.
///
/// # Errors
/// The copy does not verify, or a file cannot be read or written.
pub fn restore(from: &Path, to: &Path) -> Result<Report, RetainError> {
    verified(from)?;
    make_empty(to)?;
    copy_tree(from, to)?;
    sync(to)?;
    verified(to)
}

fn verified(dir: &Path) -> Result<Report, RetainError> {
    let report = verify_dir(dir, &Trust::default())
        .map_err(|error| RetainError::Conflict(error.to_string()))?;
    if report.problem_count > 0 {
        return Err(RetainError::Conflict(format!("the copy is not whole:\n{}", report.to_text())));
    }
    Ok(report)
}

fn make_empty(dir: &Path) -> Result<(), RetainError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).map_err(io(dir))?;
    if std::fs::read_dir(dir).map_err(io(dir))?.next().is_some() {
        let what = format!("{} is not empty; name a new directory", dir.display());
        return Err(RetainError::Conflict(what));
    }
    Ok(())
}

fn sync(dir: &Path) -> Result<(), RetainError> {
    File::open(dir).and_then(|folder| folder.sync_all()).map_err(io(dir))
}

/// Copies the log; gives how many blocks its checkpoint names.
fn copy_tlog(from: &Path, to: &Path) -> Result<u64, RetainError> {
    std::fs::create_dir_all(to).map_err(io(to))?;
    let path = from.join("checkpoint");
    let note = std::fs::read_to_string(&path).map_err(io(&path))?;
    let size = Note::parse(&note)
        .and_then(|note| Checkpoint::parse(note.text()))
        .map_err(|error| RetainError::Conflict(format!("{}: {error}", path.display())))?
        .head
        .size;
    write(&to.join("checkpoint"), note.as_bytes())?;
    for name in ["key", "vkey"] {
        copy_if_there(&from.join(name), &to.join(name))?;
    }
    // A tile that becomes wider meanwhile has another name: then it is looked for again.
    let mut tries = 0;
    loop {
        match copy_tree(&from.join("tile"), &to.join("tile")) {
            Err(RetainError::Io { source, .. })
                if source.kind() == ErrorKind::NotFound && tries < 20 =>
            {
                tries += 1;
                let half = to.join("tile");
                std::fs::remove_dir_all(&half).map_err(io(&half))?;
            }
            done => break done?,
        }
    }
    blocks_in(to, size)
}

fn blocks_in(tlog: &Path, size: u64) -> Result<u64, RetainError> {
    let tiles = FileTiles::new(tlog);
    let mut blocks = 0;
    for index in 0..size.div_ceil(TILE_WIDTH) {
        let Some(tile) = Tile::in_tree(Kind::Entries, index, size) else { break };
        let bytes = tiles
            .read_tile(&tile)
            .map_err(|error| RetainError::Conflict(format!("the transparency log: {error}")))?;
        let entries = bundle_entries(&bytes).unwrap_or_default();
        let count = entries.iter().filter(|entry| entry.first() == Some(&KIND_BLOCK)).count();
        blocks += u64::try_from(count).unwrap_or(u64::MAX);
    }
    Ok(blocks)
}

fn copy_segments(from: &Path, to: &Path, mut blocks: u64) -> Result<(), RetainError> {
    std::fs::create_dir_all(to).map_err(io(to))?;
    let mut end = (0, HEADER_BYTES);
    for segment in segments::list(from).map_err(io(from))? {
        if blocks == 0 && segment.number > 0 {
            break;
        }
        let day = segment.path.parent().and_then(Path::file_name).unwrap_or_default();
        let name = segment.path.file_name().unwrap_or_default();
        let folder = to.join(day);
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;
        let path = folder.join(name);
        let (taken, len, whole) = copy_segment(&segment.path, &path, blocks)?;
        blocks -= taken;
        // The mark names the log's places, and those of a segment that was written anew are the first.
        let copied = Segment { number: segment.number, path, len };
        end = (segment.number, segments::end_of(&copied).map_err(io(&copied.path))?.0);
        if whole {
            let sidecar = segment.path.with_extension("idx");
            copy_if_there(&sidecar, &folder.join(name).with_extension("idx"))?;
        }
        sync(&folder)?;
    }
    if blocks > 0 {
        let what = format!("the checkpoint names {blocks} blocks that the segments do not hold");
        return Err(RetainError::Conflict(what));
    }
    write(&to.join("durable"), &segments::mark(end.0, end.1))?;
    sync(to)
}

/// Copies at most so many frames; gives how many, the copy's length, and whether that was all.
fn copy_segment(from: &Path, to: &Path, most: u64) -> Result<(u64, u64, bool), RetainError> {
    let mut file = File::open(from).map_err(io(from))?;
    let mut header = vec![0; segments::HEADER_LEN];
    file.read_exact(&mut header).map_err(io(from))?;
    let mut out = std::io::BufWriter::new(File::create(to).map_err(io(to))?);
    out.write_all(&header).map_err(io(to))?;
    let mut frames = Frames::new(std::io::BufReader::with_capacity(1 << 18, file));
    let (mut taken, mut len, mut whole) = (0, HEADER_BYTES, true);
    while let Some(frame) = frames.next_frame().map_err(io(from))? {
        let Frame::Block { receipt, block, .. } = frame else {
            whole = false;
            break;
        };
        if taken == most {
            whole = false;
            break;
        }
        let bytes = frame_bytes(receipt, block);
        out.write_all(&bytes).map_err(io(to))?;
        len += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        taken += 1;
    }
    out.flush().map_err(io(to))?;
    out.get_ref().sync_all().map_err(io(to))?;
    Ok((taken, len, whole))
}

fn frame_bytes(receipt: &[u8], block: &[u8]) -> Vec<u8> {
    let lengths = segments::Lengths { receipt: receipt.len(), block: block.len() };
    let mut out = Vec::with_capacity(HEAD_BYTES + receipt.len() + block.len() + TAIL_BYTES);
    // They were read from a frame: they fit one.
    out.extend_from_slice(&lengths.head().unwrap_or_default());
    out.extend_from_slice(receipt);
    out.extend_from_slice(block);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn copy_database(from: &Path, to: &Path) -> Result<(), RetainError> {
    let (path, copy) = (database_in(from), database_in(to));
    let name = copy.to_str().ok_or_else(|| {
        RetainError::Conflict(format!("{} is not UTF-8; name another directory", copy.display()))
    })?;
    let copied = Connection::open(&path).and_then(|connection| {
        connection.busy_timeout(std::time::Duration::from_secs(30))?;
        connection.execute("VACUUM INTO ?1", [name]).map(|_| ())
    });
    copied.map_err(|source| RetainError::Database { path, source })?;
    File::open(&copy).and_then(|file| file.sync_all()).map_err(io(&copy))
}

fn copy_if_there(from: &Path, to: &Path) -> Result<(), RetainError> {
    match std::fs::copy(from, to) {
        Ok(_) => File::open(to).and_then(|file| file.sync_all()).map_err(io(to)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io(from)(error)),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RetainError> {
    let mut file = File::create(path).map_err(io(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io(path))
}

/// Copies a folder with all that is in it; links and sockets are nothing that a collector writes.
fn copy_tree(from: &Path, to: &Path) -> Result<(), RetainError> {
    std::fs::create_dir_all(to).map_err(io(to))?;
    for entry in std::fs::read_dir(from).map_err(io(from))? {
        let entry = entry.map_err(io(from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(io(&path))?;
        if kind.is_dir() {
            copy_tree(&path, &target)?;
        } else if kind.is_file() {
            std::fs::copy(&path, &target).map_err(io(&path))?;
            File::open(&target).and_then(|file| file.sync_all()).map_err(io(&target))?;
        }
    }
    sync(to)
}
