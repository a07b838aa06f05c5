//! An evidence log in memory, or in one file without promises: for tests and measurements of
//! what is derived from a log. The real one is the store's.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use custody_event::block::{Accounts, Placement, Sealer};
use custody_event::{AgentId, Block, Digest, KeyId, Seq, StreamId, Timestamp};
use tokio::sync::watch;

use crate::store::{BlockSource, LogCursor, Receipt, StoreError, StoredBlock};

/// Blocks in a segment: few, so that readers cross borders often.
const BLOCKS_PER_SEGMENT: u64 = 64;

/// The log.
pub struct MemoryLog {
    frames: Mutex<Frames>,
    end: watch::Sender<LogCursor>,
}

struct Frames {
    /// Number, and where the bytes are.
    blocks: Vec<(Receipt, Bytes)>,
    file: Option<std::fs::File>,
    file_len: u64,
    sealer: Sealer,
    prev: Digest,
}

enum Bytes {
    Here(Vec<u8>),
    InFile(u64, usize),
}

fn failed(source: std::io::Error) -> StoreError {
    StoreError::Io { path: PathBuf::from("memory"), source }
}

fn damaged(offset: u64, reason: &str) -> StoreError {
    StoreError::Damaged { path: PathBuf::from("memory"), offset, reason: reason.to_owned() }
}

/// Block `number` stands at byte 1,000 × its place in its segment.
fn place(number: u64) -> LogCursor {
    LogCursor { segment: number / BLOCKS_PER_SEGMENT, offset: number % BLOCKS_PER_SEGMENT * 1_000 }
}

fn number(at: LogCursor) -> u64 {
    at.segment * BLOCKS_PER_SEGMENT + at.offset.div_ceil(1_000).min(BLOCKS_PER_SEGMENT)
}

impl MemoryLog {
    /// An empty log; with a file, the blocks are kept there.
    ///
    /// # Errors
    /// zstd cannot be set up.
    pub fn new(file: Option<std::fs::File>) -> std::io::Result<Self> {
        Ok(Self {
            frames: Mutex::new(Frames {
                blocks: Vec::new(),
                file,
                file_len: 0,
                sealer: Sealer::new()?,
                prev: Digest::ZERO,
            }),
            end: watch::Sender::new(LogCursor::default()),
        })
    }

    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a block of these events (NDJSON) and shows it.
    ///
    /// # Errors
    /// The events do not fit a block, or the file cannot be written.
    pub fn append(&self, text: &[u8], receipt: Receipt) -> std::io::Result<LogCursor> {
        self.append_block(text, receipt, |block| block)
    }

    /// The same, with the block changed before it is kept.
    ///
    /// # Errors
    /// As for [`Self::append`].
    pub fn append_block(
        &self,
        text: &[u8],
        receipt: Receipt,
        change: impl FnOnce(Block) -> Block,
    ) -> std::io::Result<LogCursor> {
        let mut frames = self.frames();
        let number = u64::try_from(frames.blocks.len()).map_err(std::io::Error::other)?;
        let times = (Timestamp::Y2020, Timestamp::MAX);
        let sealed = frames.sealer.seal(text, times, [7; 32])?;
        let placement = Placement {
            agent: AgentId([1; 16]),
            host: "0".repeat(64),
            key: KeyId([2; 8]),
            stream: StreamId([3; 16]),
            seq: Seq(number),
            prev: frames.prev,
            sealed: receipt.received,
        };
        let block = change(sealed.place(placement, Accounts::default()));
        frames.prev = block.hash();
        let bytes = block.encode().map_err(std::io::Error::other)?;
        let bytes = frames.put(bytes)?;
        frames.blocks.push((receipt, bytes));
        drop(frames);
        self.end.send_replace(place(number + 1));
        Ok(place(number))
    }

    fn block(&self, number: u64) -> Result<Option<StoredBlock>, StoreError> {
        let mut frames = self.frames();
        let Some((receipt, bytes)) =
            usize::try_from(number).ok().and_then(|number| frames.blocks.get(number))
        else {
            return Ok(None);
        };
        let receipt = receipt.clone();
        let bytes = match bytes {
            Bytes::Here(bytes) => bytes.clone(),
            Bytes::InFile(at, len) => {
                let (at, len) = (*at, *len);
                frames.get(at, len).map_err(failed)?
            }
        };
        drop(frames);
        let at = place(number);
        let block =
            Block::decode(&bytes).map_err(|error| damaged(at.offset, &error.to_string()))?;
        Ok(Some(StoredBlock { at, next: place(number + 1), block, receipt }))
    }
}

impl Frames {
    fn put(&mut self, bytes: Vec<u8>) -> std::io::Result<Bytes> {
        let Some(file) = &mut self.file else { return Ok(Bytes::Here(bytes)) };
        let at = self.file_len;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&bytes)?;
        self.file_len += u64::try_from(bytes.len()).map_err(std::io::Error::other)?;
        Ok(Bytes::InFile(at, bytes.len()))
    }

    fn get(&mut self, at: u64, len: usize) -> std::io::Result<Vec<u8>> {
        let Some(file) = &mut self.file else { return Err(std::io::ErrorKind::NotFound.into()) };
        let mut bytes = vec![0; len];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl BlockSource for MemoryLog {
    fn read_at(&self, at: LogCursor) -> Result<StoredBlock, StoreError> {
        self.block(number(at))?.ok_or_else(|| damaged(at.offset, "there is no block here"))
    }

    fn next_from(&self, from: LogCursor) -> Result<Option<StoredBlock>, StoreError> {
        self.block(number(from))
    }

    fn durable_end(&self) -> watch::Receiver<LogCursor> {
        self.end.subscribe()
    }
}
