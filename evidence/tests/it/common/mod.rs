//! A small world of agents and one collector's log, made from a seed, in all the forms that
//! evidence takes: bundles, a spool's export, a collector's data directory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use custody_event::block::{Accounts, Placement, Sealer};
use custody_event::{AgentId, Block, Digest, Seq, StreamId, Timestamp};
use custody_evidence::bundle::{
    BundleWriter, Continuation, Filtered, Manifest, Place, Scope, StreamRange, filter,
};
use custody_evidence::entry::{Enrolled, Revoked, Rotated};
use custody_evidence::tlog::{FileTiles, Log, MemoryTiles, Prover, TreeHead};
use custody_evidence::{AgentKey, Checkpoint, Entry, KeyType, NoteKey, Signed, VerifierKey};

pub(crate) const ORIGIN: &str = "log.example.org/custody";
pub(crate) const GAP: &str = "40 records of /var/log/app.log were lost: the file was truncated";

/// xorshift64*: the same numbers everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| u8::try_from(self.next() >> 56).unwrap())
    }
}

pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) stream: StreamId,
    pub(crate) first_key: AgentKey,
    pub(crate) key: AgentKey,
    pub(crate) next: Seq,
    pub(crate) prev: Digest,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) key: NoteKey,
    pub(crate) agents: Vec<Agent>,
    /// What the log holds.
    pub(crate) entries: Vec<Vec<u8>>,
    /// Blocks by their place in the log.
    pub(crate) blocks: BTreeMap<u64, Block>,
    pub(crate) log: Log<MemoryTiles>,
    pub(crate) clock: i64,
    sealer: Sealer,
}

fn time(clock: i64) -> Timestamp {
    Timestamp::from_micros(1_790_000_000_000_000 + clock)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

impl World {
    /// `agents` agents that write `blocks` blocks, with rotations, new streams and a revocation.
    pub(crate) fn new(seed: u64, agents: usize, blocks: usize) -> Self {
        let mut rng = Rng::new(seed);
        let mut world = Self {
            key: NoteKey::new(ORIGIN, &rng.bytes()).unwrap(),
            rng,
            agents: Vec::new(),
            entries: Vec::new(),
            blocks: BTreeMap::new(),
            log: Log::open(MemoryTiles::default(), 0).unwrap(),
            clock: 0,
            sealer: Sealer::new().unwrap(),
        };
        for _ in 0..agents {
            world.enrol();
        }
        for number in 0..blocks {
            let who = world.rng.below(agents);
            match world.rng.below(12) {
                0 if number > 2 => world.rotate(who),
                1 if number > 4 => world.restart(who),
                _ => {}
            }
            let events = 1 + world.rng.below(9);
            world.block(who, events);
        }
        if agents > 1 {
            world.revoke(0);
        }
        world.block(agents - 1, 3);
        world.log.commit(true).unwrap();
        world
    }

    pub(crate) fn push(&mut self, entry: &Entry) {
        self.append(entry);
    }

    fn append(&mut self, entry: &Entry) -> u64 {
        let bytes = entry.encode();
        let index = self.log.append(&bytes).unwrap();
        self.entries.push(bytes);
        index
    }

    fn enrol(&mut self) {
        let secret = self.rng.bytes();
        let id = AgentId(self.rng.bytes());
        let body = Enrolled {
            agent: id,
            at: time(self.clock),
            host: "c0ffee".repeat(5),
            key: AgentKey::from_secret(&secret).public(),
            v: 1,
        };
        let entry = Entry::Enrolled(Signed::sign(body, &self.key).unwrap());
        self.append(&entry);
        let stream = StreamId(self.rng.bytes());
        self.agents.push(Agent {
            id,
            stream,
            first_key: AgentKey::from_secret(&secret),
            key: AgentKey::from_secret(&secret),
            next: Seq(0),
            prev: Digest::ZERO,
        });
    }

    pub(crate) fn rotate(&mut self, who: usize) {
        let new = AgentKey::from_secret(&self.rng.bytes());
        let agent = &self.agents[who];
        let body = Rotated {
            agent: agent.id,
            at: time(self.clock),
            from_seq: agent.next,
            new: new.public(),
            old: agent.key.id(),
            stream: agent.stream,
            v: 1,
        };
        let entry = Entry::Rotated(Signed::sign(body, &agent.key).unwrap());
        self.append(&entry);
        self.agents[who].key = new;
    }

    fn restart(&mut self, who: usize) {
        let stream = StreamId(self.rng.bytes());
        let agent = &mut self.agents[who];
        (agent.stream, agent.next, agent.prev) = (stream, Seq(0), Digest::ZERO);
    }

    fn revoke(&mut self, who: usize) {
        let agent = &self.agents[who];
        let body = Revoked {
            agent: agent.id,
            at: time(self.clock),
            key: agent.key.id(),
            reason: "the host was stolen".into(),
            v: 1,
        };
        let entry = Entry::Revoked(Signed::sign(body, &self.key).unwrap());
        self.append(&entry);
    }

    fn text(&mut self, events: usize, gap: bool) -> String {
        let mut text = String::new();
        for number in 0..events {
            self.clock += 1_000;
            let id = hex(&self.rng.bytes::<16>());
            let (action, message) = if gap && number == 0 {
                ("gap.record", GAP.to_owned())
            } else {
                ("contact.update", format!("Jane changed contact {}", self.rng.below(1_000)))
            };
            let at = time(self.clock);
            writeln!(
                text,
                r#"{{"action":"{action}","id":"{id}","message":"{message}","observed":"{at}","origin":{{"input":"app"}},"time":"{at}","v":1}}"#
            )
            .unwrap();
        }
        text
    }

    pub(crate) fn block(&mut self, who: usize, events: usize) {
        let from = time(self.clock);
        let gap = self.agents[who].next == Seq(0);
        let text = self.text(events, gap);
        let times = (from, time(self.clock));
        let sealed = self.sealer.seal(text.as_bytes(), times, self.rng.bytes()).unwrap();
        let agent = &mut self.agents[who];
        let mut block = sealed.place(
            Placement {
                agent: agent.id,
                host: "c0ffee".repeat(5),
                key: agent.key.id(),
                stream: agent.stream,
                seq: agent.next,
                prev: agent.prev,
                sealed: time(self.clock),
            },
            Accounts::default(),
        );
        agent.key.sign(&mut block);
        agent.next = agent.next.next();
        agent.prev = block.hash();
        let entry = Entry::of_block(&block).unwrap();
        let index = self.append(&entry);
        self.blocks.insert(index, block);
    }

    pub(crate) fn vkey(&self) -> VerifierKey {
        self.key.verifier(KeyType::Ed25519)
    }

    pub(crate) fn checkpoint(&self) -> String {
        Checkpoint::new(ORIGIN, self.log.head()).sign(&self.key)
    }

    pub(crate) fn head_at(&self, size: u64) -> TreeHead {
        TreeHead { root: Prover::new(&self.log, size).root(size).unwrap(), size }
    }

    pub(crate) fn checkpoint_at(&self, size: u64) -> String {
        Checkpoint::new(ORIGIN, self.head_at(size)).sign(&self.key)
    }

    pub(crate) fn place(&self, index: u64) -> Place {
        let path = Prover::new(&self.log, self.log.size()).inclusion(index).unwrap();
        Place { index: Some(index), path }
    }

    pub(crate) fn events(&self) -> u64 {
        self.blocks.values().map(|block| u64::from(block.header.count)).sum()
    }

    /// The log's entries from `first` to `end` as a sealed bundle; `keep` filters events.
    pub(crate) fn log_bundle(&self, first: u64, end: u64, keep: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let manifest = Manifest {
            end,
            first,
            made: time(self.clock),
            origin: ORIGIN.into(),
            query: "actor:jane".into(),
            scope: Scope::Log,
            streams: Vec::new(),
            v: 1,
        };
        let mut out = self.begin(&manifest);
        let old = self.head_at(self.log.size() / 2);
        let path = Prover::new(&self.log, self.log.size()).consistency(old.size).unwrap();
        out.continuation(&Continuation { old, path }).unwrap();
        self.vouchers(&mut out, first);
        for index in first..end {
            self.put(&mut out, index, &keep);
        }
        out.finish_sealed(&self.key).unwrap()
    }

    fn begin(&self, manifest: &Manifest) -> BundleWriter<Vec<u8>> {
        let mut out = BundleWriter::new(Vec::new(), manifest).unwrap();
        out.log_key(&self.vkey()).unwrap();
        out.checkpoint(&self.checkpoint()).unwrap();
        out
    }

    fn vouchers(&self, out: &mut BundleWriter<Vec<u8>>, end: u64) {
        for index in (0..end).filter(|index| !self.blocks.contains_key(index)) {
            let entry = &self.entries[usize::try_from(index).unwrap()];
            out.voucher(&self.place(index), entry).unwrap();
        }
    }

    fn put(&self, out: &mut BundleWriter<Vec<u8>>, index: u64, keep: impl Fn(&[u8]) -> bool) {
        match self.blocks.get(&index) {
            Some(block) => {
                let filtered = filter(block, |_, event| keep(event)).unwrap();
                out.filtered(&self.place(index), &filtered).unwrap();
            }
            None => {
                let entry = &self.entries[usize::try_from(index).unwrap()];
                out.entry(&self.place(index), entry).unwrap();
            }
        }
    }

    /// Every stream whole, as a bundle of streams.
    pub(crate) fn streams_bundle(&self) -> Vec<u8> {
        let mut streams: BTreeMap<(AgentId, StreamId), Seq> = BTreeMap::new();
        for block in self.blocks.values() {
            streams.insert((block.header.agent, block.header.stream), block.header.seq.next());
        }
        let streams = streams
            .into_iter()
            .map(|((agent, stream), end)| StreamRange { agent, end, first: Seq(0), stream })
            .collect();
        let manifest = Manifest {
            end: 0,
            first: 0,
            made: time(self.clock),
            origin: ORIGIN.into(),
            query: String::new(),
            scope: Scope::Streams,
            streams,
            v: 1,
        };
        let mut out = self.begin(&manifest);
        self.vouchers(&mut out, self.log.size());
        for index in self.blocks.keys() {
            self.put(&mut out, *index, |_| true);
        }
        out.finish_sealed(&self.key).unwrap()
    }

    /// What `custody-agent spool export` writes for one agent: its last stream's blocks.
    pub(crate) fn spool_bundle(&self, who: usize) -> Vec<u8> {
        let agent = &self.agents[who];
        let blocks: Vec<&Block> =
            self.blocks.values().filter(|block| block.header.stream == agent.stream).collect();
        let manifest = Manifest {
            end: 0,
            first: 0,
            made: time(self.clock),
            origin: String::new(),
            query: String::new(),
            scope: Scope::Spool,
            streams: vec![StreamRange {
                agent: agent.id,
                end: agent.next,
                first: Seq(0),
                stream: agent.stream,
            }],
            v: 1,
        };
        let mut out = BundleWriter::new(Vec::new(), &manifest).unwrap();
        out.agent_key(agent.id, agent.first_key.public()).unwrap();
        for entry in &self.entries {
            if let Entry::Rotated(signed) = Entry::decode(entry).unwrap()
                && signed.body.agent == agent.id
            {
                out.voucher(&Place::none(), entry).unwrap();
            }
        }
        for block in blocks {
            out.filtered(&Place::none(), &Filtered::Whole(block.clone())).unwrap();
        }
        out.finish_sealed(&agent.key).unwrap()
    }

    /// A collector's data directory, of `per_segment` blocks a segment.
    pub(crate) fn write_dir(&self, root: &Path, per_segment: usize) {
        let mut tiles = Log::open(FileTiles::new(&root.join("tlog")), 0).unwrap();
        for entry in &self.entries {
            tiles.append(entry).unwrap();
        }
        tiles.commit(true).unwrap();
        std::fs::write(root.join("tlog/vkey"), format!("{}\n", self.vkey())).unwrap();
        std::fs::write(root.join("tlog/checkpoint"), self.checkpoint()).unwrap();
        let blocks: Vec<&Block> = self.blocks.values().collect();
        let (mut len, mut crc, mut number) = (0_u64, 0_u32, 0_u64);
        for run in blocks.chunks(per_segment) {
            let mut bytes = segment_header(number, len, crc).to_vec();
            for block in run {
                push_frame(&block.encode().unwrap(), &mut bytes);
            }
            let folder = root.join(format!("evidence/2026-11-{:02}", 20 + number / 2));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("{number:010}.seg")), &bytes).unwrap();
            len = u64::try_from(bytes.len()).unwrap();
            crc = u32::from_le_bytes(*bytes.last_chunk().unwrap());
            number += 1;
        }
        std::fs::write(root.join("evidence/durable"), durable(number - 1, len)).unwrap();
    }
}

pub(crate) fn segment_header(number: u64, prev_len: u64, prev_crc: u32) -> [u8; 64] {
    let mut out = [0; 64];
    out[..5].copy_from_slice(b"CSEG\x01");
    out[8..16].copy_from_slice(&number.to_le_bytes());
    out[16..24].copy_from_slice(&time(0).micros().to_le_bytes());
    out[24..32].copy_from_slice(&prev_len.to_le_bytes());
    out[32..36].copy_from_slice(&prev_crc.to_le_bytes());
    let crc = crc32(&out[..60]);
    out[60..].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(crate) fn push_frame(block: &[u8], out: &mut Vec<u8>) {
    let receipt = br#"{"held":[],"received":"2026-11-21T00:00:00.000000Z"}"#;
    let start = out.len();
    out.extend_from_slice(b"CFRM");
    for len in [receipt.len(), block.len()] {
        out.extend_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
    }
    let crc = crc32(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(receipt);
    out.extend_from_slice(block);
    let crc = crc32(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

fn durable(segment: u64, byte: u64) -> [u8; 32] {
    let mut out = [0; 32];
    out[..5].copy_from_slice(b"CDUR\x01");
    out[8..16].copy_from_slice(&segment.to_le_bytes());
    out[16..24].copy_from_slice(&byte.to_le_bytes());
    let crc = crc32(&out[..24]);
    out[24..28].copy_from_slice(&crc.to_le_bytes());
    out
}

/// CRC-32 (IEEE), bit by bit: what the files say, not what the library says.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}
