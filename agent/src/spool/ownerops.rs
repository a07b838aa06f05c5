//! What the owner does when asked: reads, cursors, dead letters, and the change to a new stream.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::SpoolKey;
use super::handle::locked;
use super::keys::{DEAD, RESTREAM, dead_key, refused_key};
use super::owner::{Core, Held, count};
use super::recover::counters;
use super::types::{
    Change, DeadLetter, Durable, Moved, OutputCursor, Restreamed, Slot, SpoolError, Store,
    StoreError,
};

/// A dead letter's description: `generation u32, seq u64, unix ms u64, length u32`, big endian, reason.
const DEAD_HEAD_BYTES: usize = 24;
/// A reason is cut here; it is for people.
const REASON_MAX_BYTES: usize = 4096;

type Answer<T> = Result<Result<T, SpoolError>, StoreError>;
type Map<'a> = &'a mut dyn FnMut(u64, u64, &[u8]) -> Result<Moved, String>;

impl Core {
    fn has_more_to_drop(&self) -> bool {
        let needed = self.goals.as_ref().and_then(|goals| goals.values().min().copied());
        needed.is_some_and(|needed| self.index.first_seq() < needed)
    }

    fn slot(&self, seq: u64) -> Slot {
        Slot::Block { generation: self.index.generation, seq }
    }

    /// Reads and checks one block. One that should be there and is not whole is a fault of the store.
    pub(crate) fn read_block(&mut self, seq: u64) -> Result<Option<Bytes>, StoreError> {
        if !self.index.blocks.contains_key(&seq) || seq >= self.shared.durable.borrow().next_seq {
            return Ok(None);
        }
        let slot = self.slot(seq);
        let Some(bytes) = self.call(|store| store.read(slot))? else {
            return Err(StoreError::Corrupt(format!("block {seq} is gone")));
        };
        match (self.shared.options.check)(&bytes) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) => Err(StoreError::Corrupt(format!("block {seq}: {error}"))),
        }
    }

    pub(crate) fn register(&mut self, outputs: &[String]) -> Vec<OutputCursor> {
        // What an output has acknowledged goes before where it goes on: else it is sent to a block
        // that is about to be deleted.
        self.take_acks();
        let first = self.index.first_seq();
        let mut goals = BTreeMap::new();
        let mut cursors = Vec::new();
        for output in outputs {
            let known = self
                .goals
                .as_ref()
                .and_then(|goals| goals.get(output))
                .or(self.index.cursors.get(output));
            let stood = known.copied();
            let next_seq =
                stood.unwrap_or(first).clamp(first.min(self.index.next_seq), self.index.next_seq);
            let skipped = stood.map_or(0, |stood| next_seq.saturating_sub(stood));
            goals.insert(output.clone(), next_seq);
            let of_it = |(whose, seq): &&(String, u64)| whose == output && *seq >= next_seq;
            let refused = self.index.refused.iter().filter(of_it).map(|(_, seq)| *seq).collect();
            cursors.push(OutputCursor { output: output.clone(), next_seq, skipped, refused });
        }
        self.goals = (!goals.is_empty()).then_some(goals);
        let now = self.now();
        let mut state = self.shared.state();
        state.outputs = outputs.iter().cloned().collect();
        state.acks_since.get_or_insert(now);
        cursors
    }

    fn next_dead_id(&self) -> u64 {
        self.index.dead_ids.last().map_or(0, |last| last + 1)
    }

    fn dead_change(&self, seq: u64, bytes: Bytes, reason: &str) -> (u64, Change) {
        let id = self.next_dead_id();
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut cut = reason.len().min(REASON_MAX_BYTES);
        while !reason.is_char_boundary(cut) {
            cut -= 1;
        }
        let mut about = Vec::with_capacity(DEAD_HEAD_BYTES + cut);
        about.extend_from_slice(&self.index.generation.to_be_bytes());
        about.extend_from_slice(&seq.to_be_bytes());
        about.extend_from_slice(&self.shared.clock.unix_ms().to_be_bytes());
        about.extend_from_slice(&len.to_be_bytes());
        about.extend_from_slice(&reason.as_bytes()[..cut]);
        let puts = vec![(dead_key(id), about)];
        (id, Change { puts, stores: vec![(Slot::Dead(id), bytes)], ..Change::default() })
    }

    fn commit_now(&mut self, change: Change) -> Result<(), StoreError> {
        let size = change.size_bytes();
        self.call(|store| store.reserve(size))?;
        self.commit(&[change])?;
        self.sync()
    }

    /// `given` remembers the id over a failure of the store, which may have written it all the same.
    pub(crate) fn dead_letter(
        &mut self,
        seq: u64,
        bytes: Bytes,
        reason: &str,
        given: &mut Option<u64>,
    ) -> Answer<u64> {
        if let Some(id) = given.filter(|id| self.index.dead_ids.contains(id)) {
            self.sync()?;
            return Ok(Ok(id));
        }
        let (id, change) = self.dead_change(seq, bytes, reason);
        let size = change.size_bytes();
        self.call(|store| store.reserve(size))?;
        *given = Some(id);
        self.commit_now(change)?;
        self.index.dead_ids.insert(id);
        Ok(Ok(id))
    }

    /// See [`super::SpoolHandle::set_aside`]. The block itself stays as it is.
    pub(crate) fn set_aside(
        &mut self,
        output: &str,
        seq: u64,
        reason: &str,
        puts: &[(SpoolKey, Vec<u8>)],
    ) -> Answer<()> {
        let refused = (output.to_owned(), seq);
        // Asked again after a reopen: it is done already.
        if self.index.refused.contains(&refused) {
            self.sync()?;
            return Ok(Ok(()));
        }
        let Some(bytes) = self.read_block(seq)? else {
            return Ok(Err(SpoolError::NoSuchBlock(seq)));
        };
        let (id, mut change) = self.dead_change(seq, bytes, &format!("{output}: {reason}"));
        change.puts.push((refused_key(output, self.index.generation, seq), Vec::new()));
        change.puts.extend_from_slice(puts);
        self.commit_now(change)?;
        self.index.dead_ids.insert(id);
        self.index.refused.insert(refused);
        Ok(Ok(()))
    }

    pub(crate) fn replace_block(&mut self, seq: u64, bytes: Bytes) -> Answer<()> {
        let Some(old) = self.read_block(seq)? else {
            return Ok(Err(SpoolError::NoSuchBlock(seq)));
        };
        let old_len = u32::try_from(old.len()).unwrap_or(u32::MAX);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.commit_now(Change {
            drops: vec![(self.slot(seq), old_len)],
            stores: vec![(self.slot(seq), bytes)],
            ..Change::default()
        })?;
        self.index.bytes = self.index.bytes + u64::from(len) - u64::from(old_len);
        if let Some(held) = self.index.blocks.get_mut(&seq) {
            held.len = len;
        }
        locked(&self.shared.ring).clear();
        Ok(Ok(()))
    }

    pub(crate) fn dead_letters(&mut self) -> Result<Vec<DeadLetter>, StoreError> {
        let found = self.call(|store| store.scan_prefix(DEAD))?;
        found.iter().map(|(key, value)| parse_dead(key, value)).collect()
    }

    pub(crate) fn remove_dead_letter(&mut self, id: u64) -> Result<bool, StoreError> {
        let found = self.call(|store| store.value(&dead_key(id)))?;
        let Some(about) = found else { return Ok(false) };
        let len = parse_dead(&dead_key(id), &about)?.len;
        self.commit_now(Change {
            drops: vec![(Slot::Dead(id), len)],
            deletes: vec![dead_key(id)],
            ..Change::default()
        })?;
        self.index.dead_ids.remove(&id);
        Ok(true)
    }

    /// See [`super::SpoolHandle::restream`]. The new blocks are written beside the old ones under the
    /// next generation, in steps; the batch that writes the generation makes them the live ones.
    pub(crate) fn restream(
        &mut self,
        map: Map<'_>,
        puts: &[(SpoolKey, Vec<u8>)],
        target: &mut Option<u32>,
    ) -> Answer<Restreamed> {
        if *target == Some(self.index.generation) {
            // The switch was applied although its call failed, and the reopened store has it.
            self.sync()?;
            self.shared.state().restreaming = false;
            self.write_ledger(true);
            return Ok(Ok(Restreamed {
                generation: self.index.generation,
                next_seq: self.index.next_seq,
            }));
        }
        self.shared.state().restreaming = true;
        // What is queued has the old numbers: it goes first.
        while self.shared.state().queued_bytes > 0 {
            self.commit_group()?;
        }
        while {
            self.commit_acks()?;
            self.has_more_to_drop()
        } {}
        let known = self.ledger.last().map_or(0, |entry| entry.generation);
        let generation = self.index.generation.max(known) + 1;
        *target = Some(generation);
        let written = match self.rewrite(map, generation)? {
            Ok(written) => written,
            Err(error) => {
                self.shared.state().restreaming = false;
                self.shared.room.notify_all();
                return Ok(Err(error));
            }
        };
        let next_seq = count(written.len());
        let mut change =
            Change { deletes: vec![RESTREAM.to_vec()], puts: puts.to_vec(), ..Change::default() };
        change.puts.extend(counters(generation, next_seq));
        // What an output refused has other numbers now: it is asked anew.
        let refused = self.index.refused.iter();
        change
            .deletes
            .extend(refused.map(|(output, seq)| refused_key(output, self.index.generation, *seq)));
        self.commit_now(change)?;
        self.switch(generation, written)?;
        Ok(Ok(Restreamed { generation, next_seq }))
    }

    /// Writes all blocks under new numbers; returns their lengths and ages.
    fn rewrite(&mut self, map: Map<'_>, generation: u32) -> Answer<Vec<Held>> {
        let old: Vec<(u64, Held)> =
            self.index.blocks.iter().map(|(seq, held)| (*seq, *held)).collect();
        let (mut written, mut change): (Vec<Held>, Change) = Default::default();
        for (old_seq, held) in old {
            let new_seq = count(written.len());
            let slot = self.slot(old_seq);
            let bytes = self.call(|store| store.read(slot))?;
            let bytes =
                bytes.ok_or_else(|| StoreError::Corrupt(format!("block {old_seq} is gone")))?;
            let mapped =
                map(old_seq, new_seq, &bytes).map_err(|error| format!("block {old_seq}: {error}"));
            let mapped = mapped.and_then(|moved| match moved {
                Moved::To(new) => (self.shared.options.check)(&new).map(|()| Moved::To(new)),
                aside => Ok(aside),
            });
            let new = match mapped {
                Ok(Moved::Aside(reason)) => {
                    self.keep_aside(old_seq, bytes, &reason)?;
                    continue;
                }
                Ok(Moved::To(new)) if new.len() <= super::MAX_BLOCK_BYTES => new,
                Ok(Moved::To(new)) => {
                    self.forget(generation, &written)?;
                    return Ok(Err(SpoolError::TooLarge {
                        what: "block",
                        len: new.len(),
                        limit: super::MAX_BLOCK_BYTES,
                    }));
                }
                Err(error) => {
                    self.forget(generation, &written)?;
                    return Ok(Err(SpoolError::Restream(error)));
                }
            };
            written.push(Held { len: u32::try_from(new.len()).unwrap_or(u32::MAX), ..held });
            change.stores.push((Slot::Block { generation, seq: new_seq }, new.into()));
            if change.size_bytes() >= self.shared.options.group_max_bytes {
                self.commit_now(std::mem::take(&mut change))?;
                self.refresh_if_due()?;
            }
        }
        self.commit_now(change)?;
        Ok(Ok(written))
    }

    /// A block that does not go on is a dead letter; once, however often the restream is begun.
    fn keep_aside(&mut self, seq: u64, bytes: Bytes, reason: &str) -> Result<(), StoreError> {
        let generation = self.index.generation;
        let there = self.dead_letters()?.iter().any(|letter| {
            (letter.generation, letter.seq, letter.reason.as_str()) == (generation, seq, reason)
        });
        if there {
            return Ok(());
        }
        let (id, change) = self.dead_change(seq, bytes, reason);
        self.commit_now(change)?;
        self.index.dead_ids.insert(id);
        Ok(())
    }

    fn forget(&mut self, generation: u32, blocks: &[Held]) -> Result<(), StoreError> {
        let slots: Vec<_> = (0_u64..)
            .zip(blocks)
            .map(|(seq, held)| (Slot::Block { generation, seq }, held.len))
            .collect();
        self.drop_all(&slots)
    }

    fn drop_all(&mut self, slots: &[(Slot, u32)]) -> Result<(), StoreError> {
        for some in slots.chunks(32) {
            self.commit_unsynced(&[Change { drops: some.to_vec(), ..Change::default() }])?;
        }
        Ok(())
    }

    /// The new stream is the live one on disk: make it so in memory, and clean up.
    fn switch(&mut self, generation: u32, written: Vec<Held>) -> Result<(), StoreError> {
        let old_generation = std::mem::replace(&mut self.index.generation, generation);
        self.index.next_seq = count(written.len());
        self.index.bytes = written.iter().map(|held| u64::from(held.len)).sum();
        let old = std::mem::replace(&mut self.index.blocks, (0_u64..).zip(written).collect());
        self.index.cursors.clear();
        self.index.refused.clear();
        for goal in self.goals.iter_mut().flat_map(BTreeMap::values_mut) {
            *goal = 0;
        }
        locked(&self.shared.ring).clear();
        {
            let mut state = self.shared.state();
            state.acks.clear();
            state.generation = generation;
            state.next_append_seq = self.index.next_seq;
            state.needs_restream = None;
            state.restreaming = false;
            self.shared.durable.send_replace(Durable { generation, next_seq: self.index.next_seq });
        }
        self.write_ledger(true);
        self.publish();
        let slots: Vec<_> = old
            .into_iter()
            .map(|(seq, held)| (Slot::Block { generation: old_generation, seq }, held.len))
            .collect();
        // A failure here is the next turn's: the stream is switched, and what is left is removed at the next open.
        if let Err(error) = self.drop_all(&slots) {
            locked(&self.shared.stats).last_error = Some(error.to_string());
        }
        Ok(())
    }
}

fn parse_dead(key: &[u8], about: &[u8]) -> Result<DeadLetter, StoreError> {
    let wrong = || StoreError::Corrupt("a dead letter's description is cut off".to_owned());
    let id = key
        .get(DEAD.len()..)
        .and_then(|id| id.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or_else(wrong)?;
    let (generation, rest) = about.split_first_chunk::<4>().ok_or_else(wrong)?;
    let (seq, rest) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
    let (unix_ms, rest) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
    let (len, reason) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
    Ok(DeadLetter {
        id,
        seq: u64::from_be_bytes(*seq),
        generation: u32::from_be_bytes(*generation),
        unix_ms: u64::from_be_bytes(*unix_ms),
        len: u32::from_be_bytes(*len),
        reason: String::from_utf8_lossy(reason).into_owned(),
    })
}

/// As [`Core::dead_letters`], for a store without an owner.
pub(crate) fn dead_letters_of(store: &mut dyn Store) -> Result<Vec<DeadLetter>, StoreError> {
    store.scan_prefix(DEAD)?.iter().map(|(key, value)| parse_dead(key, value)).collect()
}
