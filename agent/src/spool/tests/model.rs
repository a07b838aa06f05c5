//! The spool against a model: whatever happens, what was acknowledged as durable is there, in order,
//! without a hole, with positions that never run ahead of the blocks.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::fake::{FakeFactory, Fault, SharedDisk};
use super::*;

#[derive(Debug, Clone)]
enum Op {
    /// Appends so many blocks, waits for the last.
    Append {
        blocks: u8,
        len: u16,
    },
    /// One output acknowledges this share of what it has not.
    Ack {
        output: bool,
        share: u8,
    },
    Reopen,
    /// The process dies: what was not synced may be there or not (`power`: it is gone).
    Crash {
        power: bool,
    },
    Restream,
    /// The output that is furthest behind refuses a block.
    SetAside {
        which: u8,
    },
    DeadLetter,
    /// So many calls from now the store fails.
    Fault {
        after: u8,
        fault: Fault,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let fault = prop_oneof![
        Just(Fault::Error),
        Just(Fault::ErrorAfter),
        Just(Fault::Panic),
        Just(Fault::PowerCut),
        Just(Fault::Full)
    ];
    prop_oneof![
        6 => (1..12_u8, 8..40_000_u16).prop_map(|(blocks, len)| Op::Append { blocks, len }),
        3 => (any::<bool>(), any::<u8>()).prop_map(|(output, share)| Op::Ack { output, share }),
        1 => Just(Op::Reopen),
        2 => any::<bool>().prop_map(|power| Op::Crash { power }),
        1 => Just(Op::Restream),
        1 => any::<u8>().prop_map(|which| Op::SetAside { which }),
        1 => Just(Op::DeadLetter),
        2 => (0..8_u8, fault).prop_map(|(after, fault)| Op::Fault { after, fault }),
    ]
}

/// What must be so.
#[derive(Default)]
struct Model {
    generation: u32,
    next: u64,
    /// Blocks by seq that at least one output has not acknowledged.
    blocks: BTreeMap<u64, Bytes>,
    /// Acknowledgements are made durable lazily: a crash may bring these back.
    cursors: [u64; 2],
    position: u64,
    dead: usize,
    /// What outputs have refused, also what they are past.
    refused: BTreeSet<(usize, u64)>,
    salt: u64,
}

const OUTPUTS: [&str; 2] = ["a", "b"];

/// One store under test: sled in a folder, or the fake.
struct World {
    dir: tempfile::TempDir,
    disk: Option<SharedDisk>,
    spool: Option<SpoolHandle>,
    model: Model,
}

impl World {
    fn new(disk: Option<SharedDisk>) -> Self {
        let mut world =
            Self { dir: tempfile::tempdir().unwrap(), disk, spool: None, model: Model::default() };
        world.open();
        world
    }

    fn spool(&self) -> &SpoolHandle {
        self.spool.as_ref().unwrap()
    }

    fn open(&mut self) {
        let opened = match &self.disk {
            Some(disk) => {
                let factory = Box::new(FakeFactory(disk.clone()));
                Spool::open_with(self.dir.path(), options(1 << 30), clock(), factory)
            }
            None => Spool::open(self.dir.path(), options(1 << 30), clock()),
        };
        let (spool, opened) = opened.unwrap();
        assert!(opened.quarantined.is_none() && opened.rolled_back.is_none(), "{opened:?}");
        assert_eq!((opened.generation, opened.next_seq), (self.model.generation, self.model.next));
        for (output, cursor) in OUTPUTS.iter().zip(spool.register_outputs(&OUTPUTS).wait().unwrap())
        {
            let model = &mut self.model.cursors[usize::from(*output == "b")];
            assert!(cursor.next_seq <= *model || cursor.skipped == 0);
            // A lost advance is allowed; the output sends again.
            *model = cursor.next_seq.min(*model);
            let refused = &self.model.refused;
            let of_it = |seq: &u64| refused.contains(&(usize::from(*output == "b"), *seq));
            let expected: Vec<u64> = (cursor.next_seq..self.model.next).filter(of_it).collect();
            assert_eq!(cursor.refused, expected);
        }
        self.spool = Some(spool);
        self.check();
    }

    fn check(&self) {
        let (spool, model) = (self.spool(), &self.model);
        assert_eq!(spool.durable().borrow().next_seq, model.next);
        assert_eq!(position(spool), model.position);
        let needed = model.cursors.iter().min().copied().unwrap();
        for (seq, bytes) in model.blocks.range(needed..) {
            assert!(spool.read(*seq).wait().unwrap().as_ref() == Some(bytes), "block {seq}");
        }
        assert_eq!(spool.dead_letters().wait().unwrap().len(), model.dead);
        until("acknowledged blocks to go", || spool.stats().first_seq >= needed.min(model.next));
        assert!(spool.stats().first_seq <= needed.max(spool.stats().first_seq.min(model.next)));
    }

    fn append(&mut self, blocks: u8, len: u16) {
        let mut last = None;
        for _ in 0..blocks {
            let seq = self.model.next;
            let bytes = block(seq, self.model.salt, usize::from(len));
            self.model.position += 1;
            let puts = vec![(b"pos/a".to_vec(), self.model.position.to_be_bytes().to_vec())];
            let batch = Batch {
                block: Some(SpooledBlock { seq, bytes: bytes.clone() }),
                puts,
                deletes: Vec::new(),
            };
            last = Some(self.spool().append(batch).unwrap());
            self.model.blocks.insert(seq, bytes);
            self.model.next += 1;
        }
        last.unwrap().wait().unwrap();
    }

    fn close(&mut self) {
        shut(self.spool.take().unwrap());
    }

    /// The files as they are at this instant, without the process; the process that was is thrown away.
    fn crash(&mut self, power: bool) {
        match &self.disk {
            Some(disk) => {
                let mut disk = disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                disk.faults.clear();
                if power {
                    disk.cut_power();
                }
                // The old owner must not write any more, and what it synced last stays.
                let image = disk.image();
                drop(disk);
                drop(self.spool.take());
                self.disk = Some(image);
            }
            None => {
                let copy = tempfile::tempdir().unwrap();
                copy_dir(self.dir.path(), copy.path());
                shut(self.spool.take().unwrap());
                self.dir = copy;
                return;
            }
        }
        until("the lock", || super::super::inspect::take_lock(self.dir.path()).is_ok());
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Append { blocks, len } => self.append(*blocks, *len),
            Op::Ack { output, share } => {
                let at = usize::from(*output);
                let cursor = &mut self.model.cursors[at];
                *cursor += (self.model.next - *cursor) * u64::from(*share) / 255;
                let (cursor, generation) = (*cursor, self.model.generation);
                self.spool().ack(OUTPUTS[at], generation, cursor).unwrap();
            }
            Op::Reopen => {
                self.close();
                self.open();
            }
            Op::Crash { power } => {
                self.crash(*power);
                self.open();
            }
            Op::Restream => self.restream(),
            Op::SetAside { which } => self.set_aside(*which),
            Op::DeadLetter => {
                self.spool().dead_letter(0, block(1, 1, 100), "why").wait().unwrap();
                self.model.dead += 1;
            }
            Op::Fault { after, fault } => {
                if let Some(disk) = &self.disk {
                    let mut disk = disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    let at = disk.calls() + u64::from(*after);
                    disk.faults.insert(at, *fault);
                }
            }
        }
        self.check();
    }

    fn restream(&mut self) {
        self.model.salt += 1;
        let salt = self.model.salt;
        let done = self
            .spool()
            .restream(move |_, new, old| Ok(block(new, salt, old.len()).to_vec()), Vec::new());
        let done = done.wait().unwrap();
        let needed = self.model.cursors.iter().min().copied().unwrap();
        let kept: Vec<_> = self.model.blocks.split_off(&needed).into_values().collect();
        assert_eq!(done.next_seq, u64::try_from(kept.len()).unwrap());
        let renumbered = (0_u64..).zip(kept).map(|(new, old)| (new, block(new, salt, old.len())));
        self.model.blocks = renumbered.collect();
        self.model.generation = done.generation;
        self.model.next = done.next_seq;
        self.model.cursors = [0, 0];
        self.model.refused.clear();
    }

    fn set_aside(&mut self, which: u8) {
        let output = usize::from(self.model.cursors[1] < self.model.cursors[0]);
        let needed = self.model.cursors[output];
        let held = self.model.next - needed;
        if held == 0 {
            return;
        }
        let seq = needed + u64::from(which) % held;
        self.model.dead += usize::from(self.model.refused.insert((output, seq)));
        self.spool().set_aside(OUTPUTS[output], seq, "413", Vec::new()).wait().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn nothing_durable_is_lost_whatever_the_store_does(ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::new(Some(SharedDisk::default()));
        for op in &ops {
            world.step(op);
        }
        world.disk.as_ref().unwrap().lock().unwrap_or_else(std::sync::PoisonError::into_inner).faults.clear();
        world.close();
        world.open();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn nothing_durable_is_lost_on_sled(ops in prop::collection::vec(op(), 1..25)) {
        let mut world = World::new(None);
        for op in &ops {
            world.step(op);
        }
        world.close();
        world.open();
    }
}
