//! Hazards, one test each, and a seeded model of writers, rotations and restarts.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use custody_event::{Clock, FileIdentity, SystemClock, Timestamp};

use super::{FileOptions, Start, Tailer};
use crate::sources::{
    Chunk, FilePosition, Framing, Item, MAX_CHUNK_BYTES, MAX_CHUNK_RECORDS, Notice, Outlet, Saved,
    SourceIndex, Stopped, TAIL_BYTES,
};

mod hazards;
mod model;
mod packed;
mod places;
mod records;
mod running;

/// Keeps everything that is handed on.
#[derive(Default)]
struct Sink {
    items: Vec<Item>,
}

impl Outlet for Sink {
    fn put(&mut self, item: Item) -> Result<(), Stopped> {
        self.items.push(item);
        Ok(())
    }
    fn is_stopped(&self) -> bool {
        false
    }
    fn is_stopped_after(&self, _wait: Duration) -> bool {
        false
    }
}

/// What the pipeline would have committed after these items.
fn commit(saved: &mut HashMap<FileIdentity, FilePosition>, items: &[Item]) {
    for item in items {
        match item {
            Item::Records(chunk) => {
                saved.insert(chunk.after.identity.clone(), chunk.after.clone());
            }
            Item::Moved { position, .. } => {
                saved.insert(position.identity.clone(), position.clone());
            }
            Item::Forget { identity, .. } => {
                saved.remove(identity);
            }
            Item::Gap(notice) => {
                if let Some(after) = &notice.after {
                    saved.insert(after.identity.clone(), after.clone());
                }
            }
            Item::Batch(_) | Item::Marks { .. } | Item::Refused(_) => panic!("files have none"),
        }
    }
}

/// The records of a chunk, as the pipeline cuts them.
fn records(chunk: &Chunk) -> Vec<Vec<u8>> {
    match chunk.framing {
        Framing::Lines => {
            assert_eq!(chunk.bytes.last(), Some(&b'\n'), "a chunk of lines ends with a line end");
            chunk.bytes[..chunk.bytes.len() - 1]
                .split(|byte| *byte == b'\n')
                .map(<[u8]>::to_vec)
                .collect()
        }
        Framing::Spans => {
            let texts = chunk.spans.iter().map(|span| span.begin..span.text_end);
            texts.map(|text| chunk.bytes[text].to_vec()).collect()
        }
        Framing::Segment { .. } | Framing::Unterminated => vec![chunk.bytes.clone()],
    }
}

/// The machine's time, and so much more of it as has been added.
struct Ahead {
    clock: SystemClock,
    by: std::sync::Mutex<Duration>,
}

impl Ahead {
    fn go(&self, by: Duration) {
        *self.by.lock().unwrap() += by;
    }
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
    fn monotonic(&self) -> Duration {
        self.clock.monotonic() + *self.by.lock().unwrap()
    }
}

/// A directory, a tailer on it, and what has come out.
struct Bench {
    clock: Arc<Ahead>,
    dir: tempfile::TempDir,
    options: FileOptions,
    /// What one read from a file takes, at most.
    batch_bytes: usize,
    tailer: Tailer,
    sink: Sink,
    /// Items taken in earlier lives.
    past: Vec<Item>,
    saved: HashMap<FileIdentity, FilePosition>,
}

fn options(dir: &Path, pattern: &str) -> FileOptions {
    let pattern = format!("{}/{pattern}", dir.display());
    FileOptions { paths: vec![pattern], ..FileOptions::default() }
}

fn start(options: &FileOptions, clock: &Arc<Ahead>, saved: Saved) -> Tailer {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
    Tailer::new(options.clone(), SourceIndex(3), clock, saved).unwrap()
}

impl Bench {
    fn new(pattern: &str) -> Self {
        Self::with(pattern, |_| {})
    }

    fn with(pattern: &str, change: impl FnOnce(&mut FileOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path(), pattern);
        change(&mut options);
        let clock = Arc::new(Ahead { clock: SystemClock::new(), by: Default::default() });
        let tailer = start(&options, &clock, Vec::new());
        Self {
            clock,
            dir,
            options,
            batch_bytes: MAX_CHUNK_BYTES,
            tailer,
            sink: Sink::default(),
            past: Vec::new(),
            saved: HashMap::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        append(&self.path(name), bytes.as_ref());
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn gzip(&self, from: &str, to: &str) {
        gzip(&self.path(from), &self.path(to));
    }

    /// Steps until nothing more comes at once.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let progress = self.tailer.step(&mut self.sink).unwrap();
            if !progress.more && !progress.rescan && progress.items == 0 {
                return;
            }
        }
        panic!("does not settle");
    }

    fn scans(&mut self, count: usize) {
        for _ in 0..count {
            self.tailer.step(&mut self.sink).unwrap();
        }
    }

    /// Kills the tailer; `keep` of the items since the last start were committed.
    fn restart_with(&mut self, keep: usize) {
        let items = std::mem::take(&mut self.sink.items);
        let kept: Vec<Item> = items.into_iter().take(keep).collect();
        commit(&mut self.saved, &kept);
        self.past.extend(kept);
        self.tailer = start(&self.options, &self.clock, self.saved.values().cloned().collect());
        self.read_at_most(self.batch_bytes);
    }

    /// Reads take so little, now and after restarts: a small file is read in several.
    fn read_at_most(&mut self, batch_bytes: usize) {
        self.batch_bytes = batch_bytes;
        self.tailer.buffer.truncate(TAIL_BYTES + batch_bytes);
    }

    fn restart(&mut self) {
        self.restart_with(usize::MAX);
    }

    fn items(&self) -> impl Iterator<Item = &Item> {
        self.past.iter().chain(&self.sink.items)
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.items().filter_map(|item| match item {
            Item::Records(chunk) => Some(chunk),
            _ => None,
        })
    }

    fn gaps(&self) -> Vec<&Notice> {
        self.items()
            .filter_map(|item| match item {
                Item::Gap(notice) => Some(notice),
                _ => None,
            })
            .collect()
    }

    fn lines(&self) -> Vec<String> {
        self.chunks().flat_map(records).map(|line| String::from_utf8(line).unwrap()).collect()
    }

    #[track_caller]
    fn expect(&self, lines: &[&str]) {
        assert_eq!(self.lines(), lines);
    }

    #[track_caller]
    fn expect_no_gaps(&self) {
        let certain: Vec<_> =
            self.gaps().into_iter().filter(|notice| notice.code != "emptied").collect();
        assert!(certain.is_empty(), "{certain:?}");
    }

    fn identities(&self) -> Vec<FileIdentity> {
        let mut seen: Vec<FileIdentity> = Vec::new();
        for chunk in self.chunks() {
            if !seen.contains(&chunk.file.identity) {
                seen.push(chunk.file.identity.clone());
            }
        }
        seen
    }
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn gzip(from: &Path, to: &Path) {
    let mut encoder =
        flate2::write::GzEncoder::new(File::create(to).unwrap(), flate2::Compression::fast());
    encoder.write_all(&fs::read(from).unwrap()).unwrap();
    encoder.finish().unwrap();
    fs::remove_file(from).unwrap();
}

fn numbered(range: std::ops::Range<usize>) -> String {
    range.map(|n| format!("line {n}\n")).collect()
}

fn expected(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("line {n}")).collect()
}
