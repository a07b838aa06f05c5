//! The decoders of fields of one parser: each with the paths that its packs ask for.

use crate::decode::Decoder;
use crate::decode::json::{Paths, Tape};
use crate::hostnames::HostNames;
use crate::pack::Pack;
use crate::parser::{Group, Parser};

/// One decoder and the paths of all its packs.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) decoder: Decoder,
    /// Keys as they are, and keys without case and joints.
    pub(super) trees: [Paths; 2],
    pub(super) slots: usize,
}

impl Reader {
    fn new(decoder: Decoder) -> Self {
        Self { decoder, trees: [Paths::new(false), Paths::new(true)], slots: 0 }
    }

    /// Adds a pack's paths; gives their slots. Packs that name the same path share its slot.
    pub(super) fn add(&mut self, pack: &Pack) -> Box<[u32]> {
        pack.json_paths.iter().map(|path| self.path(pack, path)).collect()
    }

    fn path(&mut self, pack: &Pack, path: &[Box<str>]) -> u32 {
        let next = u32::try_from(self.slots).unwrap_or(u32::MAX);
        let slot = self.trees[usize::from(pack.folded)].add(path, next);
        self.slots += usize::from(slot == next);
        slot
    }

    /// Decodes a message onto a tape, unless the tape holds it already.
    pub(super) fn read(
        &self,
        message: &str,
        number: u64,
        host: &HostNames,
        tape: &mut Tape,
    ) -> Result<(), &'static str> {
        let text = self.decoder.part(message);
        if let Some(done) = tape.holds(number, text) {
            return done;
        }
        let done = self.decoder.read(text, host, tape);
        if done.is_ok() {
            tape.locate(&self.trees, self.slots);
        }
        tape.note(number, text, done);
        done
    }
}

impl Parser {
    /// The number of the reader for a pack's decoder of fields, made if there is none yet.
    pub(super) fn reader_of(&mut self, pack: &Pack) -> Option<usize> {
        let wanted = pack.chain.iter().find(|step| step.decoder.gives_fields())?;
        let known = self.readers.iter().position(|reader| reader.decoder == wanted.decoder);
        Some(known.unwrap_or_else(|| {
            self.readers.push(Reader::new(wanted.decoder.clone()));
            self.readers.len() - 1
        }))
    }

    /// Is this record one JSON object? Asked only where packs choose themselves.
    pub(super) fn is_json(&self, record: &str, number: u64, tapes: &mut [Tape]) -> bool {
        if self.by_name || !record.starts_with('{') {
            return false;
        }
        let mut both = self.readers.iter().zip(tapes);
        let json = both.find(|(reader, _)| reader.decoder == Decoder::Json);
        json.is_some_and(|(reader, tape)| reader.read(record, number, &self.host, tape).is_ok())
    }

    /// The path that a pack fans out, and a slot for it.
    pub(super) fn fan_out_of(
        &mut self,
        pack: &Pack,
        reader: Option<usize>,
    ) -> Option<(Vec<Box<str>>, u32)> {
        let path = pack.fan_out.clone()?;
        let slot = self.readers.get_mut(reader?)?.path(pack, &path);
        Some((path, slot))
    }
}

impl Group {
    /// Does a pack decode, and fan out, as this group does?
    pub(super) fn is_of(&self, pack: &Pack) -> bool {
        self.chain == pack.chain
            && self.fan_out.as_ref().map(|(path, _)| path) == pack.fan_out.as_ref()
    }

    /// The tape of its decoder.
    pub(super) fn tape<'a>(
        &self,
        tapes: &'a [Tape],
        readers: &'a [Reader],
    ) -> Option<(&'a Tape, &'a Decoder)> {
        self.reader.map(|at| (&tapes[at], &readers[at].decoder))
    }
}
