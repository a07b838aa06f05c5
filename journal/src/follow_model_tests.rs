//! Following journals that a seeded model of journald writes: the system and users, before systemd
//! 254 (an id for each, one counter) and since (one id), with rotation, vacuum, damage, starts of
//! journald, boots, and starts of the follower. Every entry is given once, in order, or is told as
//! missing, and nothing else is told.
//!
//! Before 254 a start of journald may give numbers once more. Whether one of these is lost or another's
//! cannot always be known, so in a world with such starts nothing is lost, and no two entries have the
//! same time.
//!
//! `CUSTODY_JOURNAL_SEEDS=0..10000` tries others.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::files::{Head, Look};
use crate::{
    Entry, EntryReader, Follower, Id128, JournalError, Mark, Missing, Pulse, Seek, SeqnumId, Step,
    Target, Wake, Way,
};

struct Random(u64);

impl Random {
    /// splitmix64
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    number: u64,
    boot: u8,
    time: u64,
    /// The header counts it and no reader gives it.
    is_bad: bool,
}

#[derive(Debug)]
struct FileOf {
    name: u64,
    path: PathBuf,
    id: SeqnumId,
    /// What the file before ended with.
    inherited: u64,
    entries: Vec<Written>,
    is_there: bool,
}

/// journald and its files.
#[derive(Default)]
struct World {
    has_common_id: bool,
    has_damage: bool,
    files: Vec<FileOf>,
    /// The file that a family's entries go to.
    active: BTreeMap<u8, usize>,
    counter: u64,
    boot: u8,
    time: u64,
    names: u64,
}

impl World {
    fn family(family: u8) -> String {
        if family == 0 { "system".into() } else { format!("user-{}", 1_000 + u32::from(family)) }
    }

    fn open(&mut self, family: u8) -> usize {
        if let Some(index) = self.active.get(&family) {
            return *index;
        }
        self.names += 1;
        let id = if self.has_common_id { 1 } else { u8::try_from(self.names % 250).unwrap() + 2 };
        self.add(family, Id128([id; 16]), 0)
    }

    fn add(&mut self, family: u8, id: SeqnumId, inherited: u64) -> usize {
        self.names += 1;
        self.files.push(FileOf {
            name: self.names,
            path: format!("/j/m/{}.journal", Self::family(family)).into(),
            id,
            inherited,
            entries: Vec::new(),
            is_there: true,
        });
        self.active.insert(family, self.files.len() - 1);
        self.files.len() - 1
    }

    fn write(&mut self, family: u8, ticks: u64, is_bad: bool) {
        let index = self.open(family);
        let file = &mut self.files[index];
        let tail = file.entries.last().map_or(file.inherited, |entry| entry.number);
        self.counter = self.counter.max(tail) + 1;
        self.time += ticks;
        let entry = Written { number: self.counter, boot: self.boot, time: self.time, is_bad };
        file.entries.push(entry);
    }

    fn rotate(&mut self) {
        for (family, index) in self.active.clone() {
            let file = &mut self.files[index];
            let Some(last) = file.entries.last() else { continue };
            let (id, number) = (file.id, last.number);
            let name = format!("/j/m/{}@{}.journal", Self::family(family), file.name);
            file.path = name.into();
            self.add(family, id, number);
        }
    }

    fn vacuum(&mut self) {
        let active: Vec<usize> = self.active.values().copied().collect();
        let oldest = self.files.iter().enumerate().filter(|(index, file)| {
            file.is_there && !active.contains(index) && !file.entries.is_empty()
        });
        let oldest = oldest.min_by_key(|(_, file)| file.entries.last().unwrap().time);
        if let Some(index) = oldest.map(|(index, _)| index) {
            self.files[index].is_there = false;
        }
    }
}

#[derive(Clone)]
struct WorldWay(Rc<RefCell<World>>);

struct WorldReader {
    world: Rc<RefCell<World>>,
    only: Option<Vec<PathBuf>>,
    /// How many entries of each file were passed, by its name.
    passed: BTreeMap<u64, usize>,
}

impl WorldReader {
    /// Takes notice of files.
    fn notice(&mut self) {
        let world = self.world.borrow();
        for file in world.files.iter().filter(|file| file.is_there) {
            if self.only.as_ref().is_none_or(|only| only.contains(&file.path)) {
                self.passed.entry(file.name).or_default();
            }
        }
        if self.only.is_some() {
            self.only = Some(Vec::new());
        }
    }
}

fn part<'c>(cursor: &'c str, name: &str) -> Option<&'c str> {
    cursor.split(';').find_map(|part| part.strip_prefix(name))
}

impl EntryReader for WorldReader {
    fn seek(&mut self, to: &Seek) -> Result<(), JournalError> {
        let world = self.world.borrow();
        for (name, passed) in &mut self.passed {
            let file = world.files.iter().find(|file| file.name == *name).unwrap();
            *passed = match to {
                Seek::Head => 0,
                Seek::At(cursor) => {
                    let hex = |text| u64::from_str_radix(text, 16).unwrap();
                    let number = hex(part(cursor, "i=").unwrap());
                    let time = part(cursor, "t=").map(hex);
                    let is_own = part(cursor, "s=").unwrap() == file.id.to_string();
                    file.entries.partition_point(|entry| match time {
                        _ if is_own => entry.number < number,
                        Some(time) => entry.time < time,
                        None => false,
                    })
                }
            };
        }
        Ok(())
    }

    fn next(&mut self, entry: &mut Entry) -> Result<bool, JournalError> {
        let world = self.world.borrow();
        loop {
            let next = |(name, passed): (&u64, &usize)| {
                let file = world.files.iter().find(|file| file.name == *name && file.is_there)?;
                Some((file.entries.get(*passed)?.time, file.id, *name, *file.entries.get(*passed)?))
            };
            let Some((_, id, name, found)) = self
                .passed
                .iter()
                .filter_map(next)
                .min_by_key(|(time, id, name, entry)| (*time, *id, entry.number, *name))
            else {
                return Ok(false);
            };
            *self.passed.get_mut(&name).unwrap() += 1;
            if found.is_bad {
                continue;
            }
            let boot = Id128([found.boot + 1; 16]);
            let Written { number, time, .. } = found;
            entry.begin(&format!("s={id};i={number:x};b={boot};m={time:x};t={time:x};x=1"))?;
            return Ok(true);
        }
    }

    fn wait(&mut self, _: Duration) -> Result<Wake, JournalError> {
        self.notice();
        Ok(Wake::Nothing)
    }

    fn about(&self) -> String {
        "model".into()
    }
}

impl Way for WorldWay {
    fn open(&self, target: &Target) -> Result<Box<dyn EntryReader>, JournalError> {
        let only = match target {
            Target::Files(paths) => Some(paths.clone()),
            _ => None,
        };
        let world = Rc::clone(&self.0);
        let mut reader = WorldReader { world, only, passed: BTreeMap::new() };
        reader.notice();
        Ok(Box::new(reader))
    }

    fn look(&self) -> Result<Look, JournalError> {
        let world = self.0.borrow();
        let head = |file: &FileOf| Head {
            path: file.path.clone(),
            seqnum_id: file.id,
            head_seqnum: file.entries.first().map_or(0, |entry| entry.number),
            tail_seqnum: file.entries.last().map_or(0, |entry| entry.number),
            // The number of the last entry may be there before the count is.
            entries: u64::try_from(file.entries.len()).unwrap()
                - u64::from(file.entries.len() > 1 && !world.has_damage && world.time % 7 == 3),
            head_realtime_us: file.entries.first().map_or(0, |entry| entry.time),
            tail_realtime_us: file.entries.last().map_or(0, |entry| entry.time),
            has_common_id: world.has_common_id,
        };
        let good = world.files.iter().filter(|file| file.is_there).map(head).collect();
        Ok(Look { good, bad: Vec::new() })
    }

    fn target(&self) -> Target {
        Target::Local
    }
}

#[derive(Default)]
struct Story {
    given: Vec<(SeqnumId, u64)>,
    told: Vec<Missing>,
}

impl Story {
    /// Reads to the end; false if there is none.
    fn read(&mut self, follower: &mut Follower<WorldWay>, audits: bool) -> bool {
        follower.wait(Duration::ZERO).unwrap();
        if audits {
            follower.audit().unwrap();
        }
        for _ in 0..100_000 {
            let mut entry = Entry::default();
            match follower.next(&mut entry).unwrap() {
                Step::Entry => {
                    let at = entry.cursor();
                    self.given.push((at.seqnum_id, at.seqnum));
                }
                Step::Missing(missing) => self.told.push(missing),
                Step::End => return true,
            }
        }
        false
    }

    fn check(&self, world: &World) -> Result<(), String> {
        for file in &world.files {
            for entry in &file.entries {
                let times = self.given.iter().filter(|at| **at == (file.id, entry.number)).count();
                // Whose numbers they were is not always known.
                let covers = |missing: &&Missing| {
                    (missing.from..=missing.to.unwrap_or(u64::MAX)).contains(&entry.number)
                };
                let told = self.told.iter().filter(covers).count();
                match times {
                    0 if told == 0 => return Err(format!("lost: {entry:?} of {:?}", file.path)),
                    2.. => return Err(format!("twice: {entry:?} of {:?}", file.path)),
                    _ => {}
                }
            }
        }
        // That a sequence is gone says only that something may be lost.
        for missing in self.told.iter().filter(|missing| missing.why != crate::Why::Gone) {
            let is_lost = world.files.iter().any(|file| {
                file.entries.iter().any(|entry| {
                    (missing.from..=missing.to.unwrap_or(u64::MAX)).contains(&entry.number)
                        && !self.given.contains(&(file.id, entry.number))
                })
            });
            if !is_lost {
                return Err(format!("a false gap: {missing:?}"));
            }
        }
        for pair in self.given.windows(2) {
            if pair[0].0 == pair[1].0 && pair[0].1 >= pair[1].1 {
                return Err(format!("order: {pair:?}"));
            }
        }
        Ok(())
    }
}

fn follow(world: &Rc<RefCell<World>>, kept: Vec<Mark>) -> Follower<WorldWay> {
    let way = WorldWay(Rc::clone(world));
    Follower::open(way, kept, false, Arc::new(Pulse::default())).unwrap()
}

fn one(seed: u64, tells: bool) -> Result<(), String> {
    let mut random = Random(seed);
    let say = |what: &str, of: &dyn std::fmt::Debug| {
        if tells {
            println!("{what}: {of:?}");
        }
    };
    let has_common_id = random.below(3) == 0;
    let starts = random.below(2) == 0;
    let has_damage = !starts && random.below(2) == 0;
    let users = 1 + u8::try_from(random.below(3)).unwrap();
    let world = Rc::new(RefCell::new(World { has_common_id, has_damage, ..World::default() }));
    world.borrow_mut().write(0, 1, false);
    let mut story = Story::default();
    let mut follower = follow(&world, Vec::new());
    story.read(&mut follower, false);
    for _ in 0..4 + seed % 40 {
        let mut journald = world.borrow_mut();
        match random.below(20) {
            0..=9 => {
                let family = u8::try_from(random.below(u64::from(users) + 1)).unwrap();
                for _ in 0..=random.below(4) {
                    let is_bad = has_damage && random.below(12) == 0;
                    let ticks = random.below(3) + u64::from(starts);
                    journald.write(family, ticks, is_bad);
                    let file = &journald.files[journald.active[&family]];
                    let Some(last) = file.entries.last() else { continue };
                    say("write", &(&file.path, file.id.0[0], last.number, last.time, is_bad));
                }
            }
            10..=11 => {
                say("rotate", &"");
                journald.rotate();
            }
            12 => {
                if starts && !has_common_id {
                    drop(journald);
                    if !story.read(&mut follower, true) {
                        return Err("no end".into());
                    }
                    journald = world.borrow_mut();
                }
                journald.vacuum();
                let there = journald.files.iter().filter(|file| file.is_there);
                say("vacuum, left", &there.map(|file| &file.path).collect::<Vec<_>>());
            }
            // Since 254 journald keeps its counter.
            13..=14 if has_common_id || !starts => {}
            13 => {
                say("start", &"");
                journald.counter = 0;
                journald.time += 1;
            }
            14 => {
                say("boot", &"");
                journald.counter = 0;
                journald.boot += 1;
                journald.time += 1;
            }
            15..=16 => {
                drop(journald);
                let kept = follower.seen().marks().cloned().collect();
                say("follow again", &"");
                follower = follow(&world, kept);
            }
            _ => {
                drop(journald);
                say("read behind", &(story.given.len(), story.told.len()));
                if !story.read(&mut follower, random.below(2) == 0) {
                    return Err("no end".into());
                }
            }
        }
    }
    // A loss of a user shows when there is something of him behind it.
    for family in 0..=users {
        world.borrow_mut().write(family, 1, false);
    }
    for _ in 0..2 {
        if !story.read(&mut follower, true) {
            return Err("no end".into());
        }
    }
    say(
        "given",
        &story
            .given
            .iter()
            .map(|(id, number)| format!("{}:{number}", id.0[0]))
            .collect::<Vec<_>>()
            .join(" "),
    );
    say("told", &story.told);
    story.check(&world.borrow())
}

#[test]
fn what_was_vacuumed_between_many_entries_of_a_user_is_told_number_by_number() {
    let world = Rc::new(RefCell::new(World::default()));
    world.borrow_mut().write(0, 1, false);
    let mut story = Story::default();
    let mut follower = follow(&world, Vec::new());
    assert!(story.read(&mut follower, true));
    for _ in 0..200 {
        world.borrow_mut().write(0, 1, false);
        world.borrow_mut().write(1, 1, false);
    }
    world.borrow_mut().rotate();
    // The system's was there first.
    world.borrow_mut().files[0].is_there = false;
    world.borrow_mut().write(0, 1, false);
    world.borrow_mut().write(1, 1, false);
    assert!(story.read(&mut follower, true));
    assert_eq!(story.check(&world.borrow()), Ok(()));
    let told = story.told.iter().filter_map(Missing::count).sum::<u64>();
    assert_eq!((story.given.len(), told), (203, 200));
}

#[test]
fn every_entry_is_given_once_or_told() {
    let seeds = std::env::var("CUSTODY_JOURNAL_SEEDS").ok().and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    let seeds = seeds.unwrap_or(0..2_000_u64);
    let tells = seeds.end - seeds.start == 1;
    let failed: Vec<(u64, String)> =
        seeds.filter_map(|seed| one(seed, tells).err().map(|why| (seed, why))).collect();
    assert!(
        failed.is_empty(),
        "{} fail: {:#?}",
        failed.len(),
        failed
            .iter()
            .map(|(seed, why)| (seed % 40, seed, why))
            .collect::<std::collections::BTreeSet<_>>()
            .iter()
            .take(10)
    );
}
