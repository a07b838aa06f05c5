//! Judges a bundle, frame by frame.

use std::io::Read;

use custody_event::{AgentId, Digest, Seq, StreamId};

use super::check::{Checker, Held};
use super::report::{Harm, LogReport, Problem, Report};
use super::track::{Step, Track};
use super::{Trust, VerifyError, trusted_head, witnessed};
use crate::bundle::{BundleReader, Continuation, End, Item, Manifest, Place, Record, Scope};
use crate::entry::Entry;
use crate::note::{Checkpoint, VerifierKey};
use crate::tlog::{Frontier, TreeHead, leaf_hash, verify_consistency};

/// Kinds of records stand in this order.
fn rank(record: &Record<'_>) -> u8 {
    match record {
        Record::Manifest(_) => 1,
        Record::LogKey(_) => 2,
        Record::Checkpoint(_) => 3,
        Record::AgentKey(_) => 4,
        Record::Continuation(_) => 5,
        Record::Voucher(..) => 6,
        Record::Entry(..) | Record::Block(..) => 7,
        Record::End(_) => 8,
    }
}

/// Verifies a bundle; `name` is what its places are called by.
///
/// # Errors
/// It cannot be read, is no bundle, or what is trusted cannot be read.
pub fn verify_bundle(input: impl Read, name: &str, trust: &Trust) -> Result<Report, VerifyError> {
    let old = trusted_head(trust)?;
    let io = |source| VerifyError::Io { path: name.to_owned(), source };
    let mut reader = BundleReader::new(input).map_err(io)?;
    let mut walk = Walk {
        name,
        trust,
        old,
        checker: Checker::default(),
        manifest: None,
        log_key: None,
        checkpoint: None,
        order: Track::default(),
        whole: Some(Frontier::default()),
        older: None,
        counted: [0; 4],
        ended: None,
        rank: 0,
        highest: None,
        last: None,
        records: 0,
    };
    let begins = reader.begins_well();
    while let Some(item) = reader.next_item().map_err(io)? {
        walk.item(item);
    }
    if walk.records == 0 && !begins {
        return Err(VerifyError::Nothing(name.to_owned()));
    }
    let digest = reader.digest();
    Ok(walk.finish(digest))
}

struct Walk<'a> {
    name: &'a str,
    trust: &'a Trust,
    old: Option<Checkpoint>,
    checker: Checker,
    manifest: Option<Manifest>,
    log_key: Option<VerifierKey>,
    checkpoint: Option<Checkpoint>,
    /// The log's indices, for a bundle of a range of the log.
    order: Track,
    /// The log's root again, for a bundle of the log from its first entry on.
    whole: Option<Frontier>,
    /// Was the trusted older checkpoint found to be continued?
    older: Option<bool>,
    /// Blocks, entries, vouchers, records before the end.
    counted: [u64; 4],
    ended: Option<End>,
    /// The highest kind of record so far: kinds stand in their order.
    rank: u8,
    /// The highest index in the log of this kind of record so far.
    highest: Option<(u8, u64)>,
    /// The last block: to say behind which one something is damaged.
    last: Option<(AgentId, StreamId, Seq)>,
    records: u64,
}

impl Walk<'_> {
    fn place(&self, at: u64) -> String {
        format!("{}: byte {at}", self.name)
    }

    fn problem(&mut self, problem: Problem) {
        self.checker.report.problem(problem);
    }

    fn item(&mut self, item: Item<'_>) {
        match item {
            Item::Record(at, record) => {
                self.records += 1;
                self.record(at, record);
            }
            Item::Malformed(at, why) => {
                self.records += 1;
                self.problem(Problem::new(Harm::Altered, self.place(at), why));
            }
            Item::Damage(from, to, to_end) => self.damage(from, to, to_end),
        }
    }

    fn damage(&mut self, from: u64, to: u64, to_end: bool) {
        let behind = match self.last {
            Some((_, stream, seq)) => format!(", behind block {seq} of stream {stream}"),
            None => String::new(),
        };
        let harm = if to_end && self.ended.is_none() { Harm::Truncated } else { Harm::Altered };
        let text = format!("{} bytes are no whole record{behind}", to - from);
        self.problem(Problem::new(harm, self.place(from), text));
    }

    fn record(&mut self, at: u64, record: Record<'_>) {
        if self.ended.is_some() {
            let text = "a record stands behind the end";
            return self.problem(Problem::new(Harm::Inserted, self.place(at), text));
        }
        if !matches!(record, Record::End(_)) {
            self.counted[3] += 1;
        }
        let rank = rank(&record);
        if rank < self.rank {
            let text = "a record stands behind others that it should stand before";
            self.problem(Problem::new(Harm::Reordered, self.place(at), text));
        }
        self.rank = self.rank.max(rank);
        self.ascends(at, rank, &record);
        match record {
            Record::Manifest(manifest) => self.manifest(at, manifest),
            Record::LogKey(text) => self.log_key(at, text),
            Record::Checkpoint(note) => self.checkpoint(at, note),
            Record::AgentKey(record) => {
                let trusted = self.trust.agent.as_ref().is_none_or(|key| *key == record.key);
                let spool = self.scope() == Some(Scope::Spool);
                if trusted && spool && self.checker.ring.trust(record.agent, record.key).is_ok() {
                    return;
                }
                let text = "an agent's key that is not the trusted one, or not of a spool";
                self.problem(Problem::new(Harm::Forged, self.place(at), text));
            }
            Record::Continuation(continuation) => self.continuation(&continuation),
            Record::Voucher(place, entry) => self.voucher(at, &place, entry),
            Record::Entry(place, entry) => self.entry(at, &place, entry),
            Record::Block(place, block) => self.block(at, &place, block),
            Record::End(totals) => self.ended = Some(totals),
        }
    }

    /// Vouchers, and the blocks of streams, stand in the log's order.
    fn ascends(&mut self, at: u64, rank: u8, record: &Record<'_>) {
        let index = match record {
            Record::Voucher(place, _) | Record::Block(place, _) | Record::Entry(place, _) => {
                place.index
            }
            _ => None,
        };
        let Some(index) = index else { return };
        let before = self.highest.filter(|(kind, _)| *kind == rank).map(|(_, index)| index);
        let voucher = matches!(record, Record::Voucher(..));
        if (voucher || self.scope() == Some(Scope::Streams)) && before.is_some_and(|b| b >= index) {
            let text = "it stands behind entries that came after it";
            let problem = Problem::new(Harm::Reordered, self.place(at), text);
            self.problem(problem.entries(index, index));
        }
        self.highest = Some((rank, index.max(before.unwrap_or(0))));
    }

    fn scope(&self) -> Option<Scope> {
        self.manifest.as_ref().map(|manifest| manifest.scope)
    }

    fn manifest(&mut self, at: u64, manifest: Manifest) {
        if self.manifest.is_some() || self.records > 1 {
            let text = "a manifest that is not the first record";
            return self.problem(Problem::new(Harm::Inserted, self.place(at), text));
        }
        self.order = Track::from(manifest.first);
        if manifest.scope != Scope::Log || manifest.first != 0 {
            self.whole = None;
        }
        self.checker.from_the_start = manifest.scope == Scope::Log && manifest.first == 0;
        for range in &manifest.streams {
            self.checker.expect((range.agent, range.stream), range.first);
        }
        self.manifest = Some(manifest);
    }

    fn log_key(&mut self, at: u64, text: &str) {
        let key: Result<VerifierKey, _> = text.parse();
        match (key, &self.trust.log) {
            (Ok(key), None) if self.log_key.is_none() => self.log_key = Some(key),
            (Ok(key), Some(trusted)) if key == *trusted && self.log_key.is_none() => {
                self.log_key = Some(key);
            }
            (Ok(_), _) => {
                let text = "another log key than the one that is trusted, or a second one";
                self.problem(Problem::new(Harm::Forged, self.place(at), text));
            }
            (Err(error), _) => {
                self.problem(Problem::new(Harm::Altered, self.place(at), error.to_string()));
            }
        }
    }

    fn key(&self) -> Option<&VerifierKey> {
        self.trust.log.as_ref().or(self.log_key.as_ref())
    }

    fn checkpoint(&mut self, at: u64, note: &str) {
        let opened = match self.key() {
            Some(key) => Checkpoint::open(note, key).map_err(|error| error.to_string()),
            None => Err("there is no key to check the checkpoint with".to_owned()),
        };
        match opened {
            Ok(checkpoint) if self.checkpoint.is_none() => {
                let origin = self.manifest.as_ref().map(|m| m.origin.as_str());
                if origin.is_some_and(|origin| origin != checkpoint.origin) {
                    let text = "the manifest names another log than the checkpoint";
                    self.problem(Problem::new(Harm::Altered, self.place(at), text));
                }
                let place = self.place(at);
                witnessed(&mut self.checker.report, &place, note, self.trust);
                self.checker.head = Some(checkpoint.head);
                self.checker.log_key = self.key().map(VerifierKey::public);
                self.checkpoint = Some(checkpoint);
            }
            Ok(_) => {
                let text = "a second checkpoint";
                self.problem(Problem::new(Harm::Inserted, self.place(at), text));
            }
            Err(error) => self.problem(Problem::new(Harm::Forged, self.place(at), error)),
        }
    }

    /// A proof that does not hold proves nothing, and harms nothing.
    fn continuation(&mut self, continuation: &Continuation) {
        let (Some(old), Some(now)) = (&self.old, &self.checkpoint) else { return };
        if old.head.size == continuation.old.size && old.head.size <= now.head.size {
            let holds = verify_consistency(&old.head, &now.head, &continuation.path).is_ok();
            if holds {
                self.older = Some(true);
            }
        }
    }

    fn held<'p>(&mut self, at: u64, place: &'p Place) -> Option<Held<'p>> {
        match (place.index, self.scope()) {
            (Some(index), Some(Scope::Log | Scope::Streams)) => {
                Some(Held::Proof(index, &place.path))
            }
            (None, Some(Scope::Spool)) => Some(Held::Nowhere),
            (_, None) => {
                let text = "a record before the manifest, or without one";
                self.problem(Problem::new(Harm::Altered, self.place(at), text));
                None
            }
            _ => {
                let text = "a record without a place in the log, or a spool's with one";
                self.problem(Problem::new(Harm::Altered, self.place(at), text));
                None
            }
        }
    }

    fn voucher(&mut self, at: u64, place: &Place, bytes: &[u8]) {
        self.counted[2] += 1;
        let Some(held) = self.held(at, place) else { return };
        let name = self.place(at);
        match Entry::decode(bytes) {
            Ok(Entry::Block(_)) => {
                let text = "a block does not vouch for a key";
                self.problem(Problem::new(Harm::Inserted, name, text));
            }
            Ok(entry) => self.checker.statement(&name, &held, bytes, &entry),
            Err(error) => self.problem(Problem::new(Harm::Altered, name, error.to_string())),
        }
    }

    fn entry(&mut self, at: u64, place: &Place, bytes: &[u8]) {
        self.counted[1] += 1;
        let Some(held) = self.held(at, place) else { return };
        let name = self.place(at);
        match Entry::decode(bytes) {
            Ok(Entry::Block(signed)) => {
                self.last = Some((signed.body.agent, signed.body.stream, signed.body.seq));
                self.checker.header_only(&name, &held, bytes, &signed);
            }
            Ok(entry) => self.checker.statement(&name, &held, bytes, &entry),
            Err(error) => {
                let problem = Problem::new(Harm::Altered, name, error.to_string());
                self.problem(match place.index {
                    Some(index) => problem.entries(index, index),
                    None => problem,
                });
            }
        }
        self.in_order(at, place, leaf_hash(bytes));
    }

    fn block(&mut self, at: u64, place: &Place, bytes: &[u8]) {
        self.counted[0] += 1;
        let Some(held) = self.held(at, place) else { return };
        let name = self.place(at);
        self.checker.block(&name, &held, bytes);
        let decoded = custody_event::Block::decode(bytes).ok();
        if let Some(block) = &decoded {
            self.last = Some((block.header.agent, block.header.stream, block.header.seq));
        }
        let entry = decoded.as_ref().and_then(Entry::of_block);
        self.in_order(at, place, entry.map_or(Digest::ZERO, |entry| entry.leaf()));
    }

    /// In a bundle of a range of the log, each entry follows the one before.
    fn in_order(&mut self, at: u64, place: &Place, leaf: Digest) {
        let (Some(Scope::Log), Some(index)) = (self.scope(), place.index) else { return };
        let end = self.manifest.as_ref().map_or(0, |manifest| manifest.end);
        let told = if index >= end {
            Some((Harm::Inserted, "it is beyond the range that the manifest names"))
        } else {
            match self.order.step(index) {
                Step::Next => None,
                Step::Skipped => {
                    self.whole = None;
                    None
                }
                Step::Late => {
                    Some((Harm::Reordered, "it stands behind entries that came after it"))
                }
                Step::Again => Some((Harm::Inserted, "this entry of the log was there before")),
            }
        };
        if let Some((harm, text)) = told {
            self.whole = None;
            self.problem(Problem::new(harm, self.place(at), text).entries(index, index));
        }
        if let Some(whole) = &mut self.whole {
            whole.push(leaf);
            if let Some(old) = self.old.as_ref().filter(|old| old.head.size == whole.size()) {
                self.older = Some(whole.root() == old.head.root);
            }
        }
    }

    fn finish(mut self, digest: Digest) -> Report {
        self.finish_totals(digest);
        let manifest = self.manifest.take();
        let Some(manifest) = manifest else {
            self.problem(Problem::new(Harm::Removed, self.name, "the manifest is missing"));
            return self.checker.finish();
        };
        for range in &manifest.streams {
            let name = (range.agent, range.stream);
            let next = self.checker.next_of(&name).unwrap_or(range.first);
            if next < range.end {
                let text = "the end of the range that the manifest names is missing";
                let problem = Problem::new(Harm::Truncated, "", text);
                self.problem(problem.of(name, next, Seq(range.end.get() - 1)));
            }
        }
        if manifest.scope == Scope::Log {
            self.finish_range(&manifest);
        }
        if manifest.scope == Scope::Spool {
            self.finish_spool(&manifest);
        } else {
            self.finish_log(&manifest);
        }
        if !manifest.query.is_empty() {
            self.checker.report.note(format!("filtered by: {:?}", manifest.query));
        }
        self.checker.finish()
    }

    fn finish_totals(&mut self, digest: Digest) {
        let Some(end) = self.ended.take() else {
            let text = "the bundle's end is missing";
            return self.problem(Problem::new(Harm::Truncated, self.name, text));
        };
        let counts = [end.blocks, end.entries, end.vouchers, end.records];
        if counts != self.counted {
            let text = format!(
                "the bundle's end counts {counts:?} blocks, entries, vouchers and records; here \
                 are {:?}",
                self.counted
            );
            self.problem(Problem::new(Harm::Altered, self.name, text));
        } else if end.sha256 != digest {
            let text = "the records are not those that the bundle's end was made for";
            self.problem(Problem::new(Harm::Altered, self.name, text));
        }
        self.seal(&end);
    }

    fn seal(&mut self, end: &End) {
        let spool = self.manifest.as_ref().filter(|manifest| manifest.scope == Scope::Spool);
        let agent = spool.and_then(|manifest| manifest.streams.first()).map(|range| range.agent);
        let key = match (spool, agent) {
            (Some(_), Some(agent)) => self.checker.ring.current(&agent).cloned(),
            (Some(_), None) => None,
            (None, _) => self.key().map(VerifierKey::public),
        };
        let Some(text) = &end.signature else {
            return self.checker.report.unknown(
                "who made the bundle, when, and by which filter: it is not sealed; what it holds is \
                 proved without that",
            );
        };
        let signature = custody_event::ids::parse_hex::<64>(text);
        let signed = end.sealed_bytes().ok().zip(signature).zip(key);
        if !signed.is_some_and(|((bytes, signature), key)| key.holds(&bytes, &signature)) {
            let text = "the seal does not hold: the bundle is not as its maker ended it";
            self.problem(Problem::new(Harm::Forged, self.name, text));
        }
    }

    fn finish_range(&mut self, manifest: &Manifest) {
        for (from, to) in self.order.missing().to_vec() {
            let text = "later entries are here, these are not";
            self.problem(Problem::new(Harm::Removed, "", text).entries(from, to));
        }
        if self.order.next() < manifest.end {
            let text = "the end of the range that the manifest names is missing";
            let missing = (self.order.next(), manifest.end - 1);
            self.problem(Problem::new(Harm::Truncated, "", text).entries(missing.0, missing.1));
        }
    }

    fn finish_spool(&mut self, manifest: &Manifest) {
        for range in &manifest.streams {
            let name = (range.agent, range.stream);
            let Some(reached) = self.checker.reached(&name).filter(|seq| *seq > range.end) else {
                continue;
            };
            let text = "the agent had signed these before it replaced its key: the spool was put \
                        back to an older state";
            let problem = Problem::new(Harm::Truncated, "", text);
            self.problem(problem.of(name, range.end, Seq(reached.get() - 1)));
        }
        let report = &mut self.checker.report;
        if self.trust.agent.is_none() {
            report.unknown(
                "whether the key is the agent's: the export brought it along; give it with --key",
            );
        }
        report.unknown("what the agent wrote after the last block here");
    }

    fn finish_log(&mut self, manifest: &Manifest) {
        let Some(checkpoint) = self.checkpoint.take() else {
            let text = "the checkpoint is missing: nothing shows that a log held this";
            return self.problem(Problem::new(Harm::Removed, self.name, text));
        };
        let (first, end) = match manifest.scope {
            Scope::Log => (manifest.first, manifest.end),
            _ => (0, checkpoint.head.size),
        };
        self.finish_older(&checkpoint.head);
        let trusted = self.trust.log.is_some();
        let key = self.key().map(ToString::to_string).unwrap_or_default();
        let report = &mut self.checker.report;
        if !trusted {
            report.unknown(format!(
                "whether {key} is the collector's key: the bundle brought it along; compare it, or \
                 give it with --key"
            ));
        }
        if end < checkpoint.head.size && manifest.scope == Scope::Log {
            report.unknown(format!(
                "entries {end} to {} of the log, which are not in the bundle",
                checkpoint.head.size - 1
            ));
        }
        report.unknown(format!(
            "what the log took after its {} entries of the checkpoint",
            checkpoint.head.size
        ));
        let (origin, head) = (checkpoint.origin, checkpoint.head);
        report.log = Some(LogReport { origin, key, trusted, head, first, end });
    }

    fn finish_older(&mut self, head: &TreeHead) {
        let Some(old) = self.old.take() else { return };
        if old.head.size == head.size {
            self.older = Some(old.head.root == head.root);
        }
        let size = old.head.size;
        match self.older {
            Some(true) | None if size == 0 => {}
            Some(true) => {
                self.checker.report.note(format!(
                    "the log continues the trusted checkpoint of {size} entries"
                ));
            }
            Some(false) => {
                let text = format!(
                    "the log does not continue the trusted checkpoint of {size} entries: it was \
                     rewritten"
                );
                self.problem(Problem::new(Harm::Altered, "", text).entries(0, size - 1));
            }
            None if size > head.size => {
                let text = format!(
                    "the trusted checkpoint has {size} entries, this one {}: the end is missing, or \
                     the bundle is older than the checkpoint",
                    head.size
                );
                self.checker.report.unknown(text);
            }
            None => self.checker.report.unknown(format!(
                "whether the log continues the trusted checkpoint of {size} entries: the bundle has \
                 no proof of it"
            )),
        }
    }
}
