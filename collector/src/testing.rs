//! Signed streams of blocks for tests, here and end to end. Nothing of it is used by the program.

use std::collections::BTreeMap;

use custody_event::block::{Accounts, Placement, Sealer};
use custody_event::position::{Fingerprint, event_id};
use custody_event::{
    AgentId, Block, Coverage, Digest, FileIdentity, Offset, Seq, SourceBook, StreamId, Timestamp,
};
use custody_evidence::AgentKey;

/// A file as an agent sees it.
#[derive(Debug, Clone)]
pub struct TestFile {
    /// Its identity.
    pub identity: FileIdentity,
    /// Its path.
    pub path: String,
    /// The source that reads it.
    pub source: String,
}

impl TestFile {
    /// The file with this inode, whose first record is `first`.
    #[must_use]
    pub fn new(ino: u64, first: &str) -> Self {
        Self {
            identity: FileIdentity {
                born_ns: 7,
                dev: 1,
                fingerprint: Fingerprint::of_first_record(first.as_bytes()),
                generation: 0,
                ino,
            },
            path: format!("/var/log/{ino}.log"),
            source: "log".to_owned(),
        }
    }

    /// The same inode with another content that begins alike.
    #[must_use]
    pub fn generation(&self, generation: u32) -> Self {
        let mut file = self.clone();
        file.identity.generation = generation;
        file
    }
}

/// One life of an agent's spool.
pub struct TestStream {
    /// Who.
    pub agent: AgentId,
    /// Where.
    pub host: String,
    /// Which stream.
    pub stream: StreamId,
    /// Its key.
    pub key: AgentKey,
    next: Seq,
    prev: Digest,
    sealer: Sealer,
    text: Vec<u8>,
    coverage: Vec<Coverage>,
    books: BTreeMap<String, SourceBook>,
    own: u64,
}

impl TestStream {
    /// The stream number `stream` of agent number `agent`, on the host of this name.
    ///
    /// # Panics
    /// Without memory.
    #[must_use]
    pub fn new(agent: u8, stream: u8, host: &str) -> Self {
        Self {
            agent: AgentId([agent; 16]),
            host: host.to_owned(),
            stream: StreamId([stream; 16]),
            key: AgentKey::from_secret(&[agent; 32]),
            next: Seq(0),
            prev: Digest::ZERO,
            sealer: Sealer::new().expect("zstd needs a little memory"),
            text: Vec::new(),
            coverage: Vec::new(),
            books: BTreeMap::new(),
            own: 0,
        }
    }

    /// Goes on behind blocks that were sealed before.
    pub fn go_on(&mut self, next: Seq, prev: Digest) {
        (self.next, self.prev) = (next, prev);
    }

    /// The number that the next block gets.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// Adds records of `file`, the first at `offset`; gives the offset after the last.
    pub fn records(&mut self, file: &TestFile, offset: u64, lines: &[&str]) -> u64 {
        let mut at = offset;
        for line in lines {
            let hash = Digest::of(line.as_bytes());
            let id = event_id(file.identity.key(&self.host), Offset(at), 0, &hash);
            self.push(file, &id.to_hex(), line, Some((at, hash)));
            at += line.len() as u64 + 1;
        }
        let count = lines.len() as u64;
        self.coverage.push(Coverage {
            file: file.identity.clone(),
            from: Offset(offset),
            path: file.path.clone(),
            records: count,
            source: file.source.clone(),
            to: Offset(at),
        });
        let book = self.books.entry(file.source.clone()).or_default();
        book.read += count;
        book.stored += count;
        at
    }

    /// Adds an event that stands in no file.
    pub fn own_event(&mut self, message: &str) {
        self.own += 1;
        let id = Digest::of(format!("{}{}", self.stream, self.own).as_bytes()).to_hex();
        let file = TestFile { source: "agent".to_owned(), ..TestFile::new(0, "") };
        self.push(&file, &id[..32], message, None);
    }

    fn push(&mut self, file: &TestFile, id: &str, line: &str, at: Option<(u64, Digest)>) {
        let time = Timestamp::Y2020.to_string();
        let mut origin = serde_json::json!({ "input": file.source });
        if let Some((offset, hash)) = at {
            origin["offset"] = offset.into();
            origin["path"] = file.path.clone().into();
            origin["raw"] = line.into();
            origin["raw_sha256"] = hash.to_hex().into();
        }
        let event = serde_json::json!({
            "action": "test.record", "category": "system", "id": id, "message": line,
            "observed": time, "origin": origin, "time": time, "v": 1,
        });
        self.text.extend_from_slice(event.to_string().as_bytes());
        self.text.push(b'\n');
    }

    /// Adds a line of text as an event, right or wrong.
    pub fn raw_event(&mut self, event: &str) {
        self.text.extend_from_slice(event.as_bytes());
        self.text.push(b'\n');
    }

    /// Seals what was added as the next block, signs it and goes on.
    ///
    /// # Panics
    /// If it is more than a block holds.
    pub fn seal(&mut self) -> Block {
        let block = self.peek();
        self.text.clear();
        self.coverage.clear();
        self.next = self.next.next();
        self.prev = block.hash();
        block
    }

    /// The block that [`Self::seal`] would give, without going on.
    ///
    /// # Panics
    /// If it is more than a block holds.
    pub fn peek(&mut self) -> Block {
        let times = (Timestamp::Y2020, Timestamp::Y2020);
        let secret = Digest::of(format!("{}{}", self.stream, self.next).as_bytes()).0;
        let mut block =
            self.sealer.seal(&self.text, times, secret).expect("a test's block is small").place(
                Placement {
                    agent: self.agent,
                    host: self.host.clone(),
                    key: self.key.id(),
                    stream: self.stream,
                    seq: self.next,
                    prev: self.prev,
                    sealed: Timestamp::Y2020,
                },
                Accounts { coverage: self.coverage.clone(), books: self.books.clone() },
            );
        self.key.sign(&mut block);
        block
    }
}

/// Does any term of the index of this data directory hold this word? Nobody may have it open.
///
/// # Errors
/// The index cannot be read.
pub fn index_has(data_dir: &std::path::Path, word: &str) -> Result<bool, crate::index::IndexError> {
    let folder = data_dir.join("index");
    let failed = |source| crate::index::IndexError::Io { path: folder.clone(), source };
    for day in std::fs::read_dir(&folder).map_err(failed)? {
        let day = day.map_err(failed)?.path();
        if day.join("meta.json").is_file() && crate::index::has_term(&day, word.as_bytes())? {
            return Ok(true);
        }
    }
    Ok(false)
}
