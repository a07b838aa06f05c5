//! A seeded model: a writer with numbered lines, everything that rotates, and an agent that is
//! killed with any prefix of its items committed. Each line must come exactly once and in order,
//! unless it existed nowhere on disk at a time when nobody had it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read as _;

use super::super::stat::{Inode, stat_path};
use super::*;

/// Own generator, so that a seed means the same for ever (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}

/// One content as the writer knows it: an inode, and how often it had been emptied.
type Content = (Inode, usize);

struct World {
    dice: Dice,
    bench: Bench,
    next_line: usize,
    /// The rest of a line that was begun.
    pending: String,
    header: bool,
    /// Lines that existed nowhere on disk while the agent had not (durably) read them.
    excused: BTreeSet<usize>,
    /// Of each line, which content it was written to and where it ends there.
    places: BTreeMap<usize, (Content, u64)>,
    /// How often each inode has been emptied.
    emptied: HashMap<Inode, usize>,
    story: String,
    scanned_since_new_file: bool,
    /// `a.log` was emptied in place and not looked at since.
    emptied_unseen: bool,
    /// Lines before this one may have been lost in a way that only the agent before the last
    /// restart could have noticed.
    restarted_at: usize,
    told: usize,
    /// Which of several rotated files is the older one cannot be known: something was compressed
    /// without keeping its time; or a file was emptied of which the agent had read the header line
    /// alone, so that what was written next looks the same up to the offset, and as if it went on.
    loose_order: bool,
}

/// Seeds in which a rotated file that a pattern finds is begun before an older, packed one that only a
/// search beside it finds, after a restart that had forgotten both: each line comes once, the files
/// do not come in order.
const OUT_OF_ORDER: [u64; 1] = [288];
const KEEP: usize = 5;
const HEADER: &str = "# time,user,action\n";

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let pattern = ["a.log", "a.log*"][dice.below(2)];
        let header = dice.below(2) == 0;
        let max_open_files = [0, 512, 512, 1][dice.below(4)];
        let mut bench = Bench::with(pattern, |options| options.max_open_files = max_open_files);
        // Half of all lives may end with a rotated file half read.
        let batch_bytes = [MAX_CHUNK_BYTES, 256][Dice(!seed).below(2)];
        bench.read_at_most(batch_bytes);
        let mut story = String::new();
        writeln!(
            story,
            "seed {seed} pattern {pattern} header {header} open {max_open_files} batch {batch_bytes}"
        )
        .unwrap();
        Self {
            dice,
            bench,
            next_line: 0,
            pending: String::new(),
            header,
            excused: BTreeSet::new(),
            places: BTreeMap::new(),
            emptied: HashMap::new(),
            story,
            scanned_since_new_file: false,
            emptied_unseen: false,
            restarted_at: 0,
            told: 0,
            loose_order: OUT_OF_ORDER.contains(&seed),
        }
    }

    fn line(&mut self) -> String {
        let n = self.next_line;
        self.next_line += 1;
        let padding = if self.dice.below(30) == 0 { 1_200 } else { self.dice.below(60) };
        // A read takes a whole line, or none would ever be done.
        let padding = padding.min(self.bench.batch_bytes / 2);
        format!("{n} {}\n", "x".repeat(padding))
    }

    fn write(&mut self, name: &str, text: &str) {
        let fresh = !self.bench.path(name).try_exists().unwrap()
            || fs::metadata(self.bench.path(name)).unwrap().len() == 0;
        if !self.has_current() {
            self.scanned_since_new_file = false;
        }
        if fresh && self.header && !text.is_empty() {
            self.bench.append(name, HEADER);
        }
        self.bench.append(name, text);
        self.note_places(name);
    }

    fn content(&self, name: &str) -> Content {
        let inode = stat_path(&self.bench.path(name)).unwrap().inode;
        (inode, self.emptied.get(&inode).copied().unwrap_or_default())
    }

    /// Remembers where the whole lines of a file stand.
    fn note_places(&mut self, name: &str) {
        let content = self.content(name);
        let bytes = fs::read(self.bench.path(name)).unwrap();
        let mut end = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            end += line.len() as u64;
            let whole = line.strip_suffix(b"\n").and_then(number);
            if let Some(n) = whole {
                self.places.entry(n).or_insert((content, end));
            }
        }
    }

    fn empty(&mut self) {
        let (inode, times) = self.content("a.log");
        self.emptied.insert(inode, times + 1);
        self.emptied_unseen = true;
        File::options().write(true).open(self.bench.path("a.log")).unwrap().set_len(0).unwrap();
    }

    fn append(&mut self) {
        let mut text = std::mem::take(&mut self.pending);
        for _ in 0..self.dice.below(12) {
            text.push_str(&self.line());
        }
        if self.dice.below(3) == 0 {
            let line = self.line();
            let cut = 1 + self.dice.below(line.len() - 1);
            text.push_str(&line[..cut]);
            self.pending = line[cut..].to_owned();
        }
        self.write("a.log", &text);
    }

    fn end_line(&mut self, name: &str) {
        let rest = std::mem::take(&mut self.pending);
        if !rest.is_empty() {
            self.write(name, &rest);
        }
    }

    fn shift(&mut self) {
        for ending in ["", ".gz"] {
            fs::remove_file(self.bench.path(&format!("a.log.{KEEP}{ending}"))).ok();
        }
        for n in (1..KEEP).rev() {
            for ending in ["", ".gz"] {
                let (from, to) = (format!("a.log.{n}{ending}"), format!("a.log.{}{ending}", n + 1));
                fs::rename(self.bench.path(&from), self.bench.path(&to)).ok();
            }
        }
    }

    fn has_current(&self) -> bool {
        self.bench.path("a.log").try_exists().unwrap()
    }

    fn rename(&mut self) {
        self.shift();
        self.bench.rename("a.log", "a.log.1");
        if self.dice.below(2) == 0 {
            self.end_line("a.log.1");
        } else {
            // The writer ends its line only after we have looked.
            self.step(1);
            self.end_line("a.log.1");
        }
        self.scanned_since_new_file = false;
        if self.dice.below(3) > 0 {
            self.write("a.log", "");
        }
    }

    /// Has the agent read the header line and nothing else of some content?
    fn knows_a_header_only(&self) -> bool {
        let live = self.bench.tailer.readers.values().map(|reader| reader.offset);
        let saved = self.bench.saved.values().map(|position| position.offset.get());
        live.chain(saved).any(|offset| offset == HEADER.len() as u64)
    }

    fn copytruncate(&mut self) {
        self.loose_order |= self.knows_a_header_only();
        self.end_line("a.log");
        self.shift();
        fs::copy(self.bench.path("a.log"), self.bench.path("a.log.1")).unwrap();
        if self.dice.below(3) == 0 {
            self.step(1);
        }
        if self.dice.below(3) == 0 {
            // The window: in neither the copy nor what comes after.
            let lost = self.line();
            self.write("a.log", &lost);
        }
        self.empty();
    }

    fn pack(&mut self) {
        let n = 1 + self.dice.below(KEEP);
        let (from, to) = (format!("a.log.{n}"), format!("a.log.{n}.gz"));
        if !self.bench.path(&from).try_exists().unwrap() {
            return;
        }
        let modified = fs::metadata(self.bench.path(&from)).unwrap().modified().unwrap();
        self.bench.gzip(&from, &to);
        if self.dice.below(2) == 0 {
            File::options()
                .append(true)
                .open(self.bench.path(&to))
                .unwrap()
                .set_modified(modified)
                .unwrap();
        } else {
            self.loose_order = true;
        }
    }

    fn truncate(&mut self) {
        self.loose_order |= self.knows_a_header_only();
        self.end_line("a.log");
        self.empty();
    }

    fn delete(&mut self) {
        self.end_line("a.log");
        // Whether the agent holds it open.
        let is_held = self.bench.options.max_open_files > 1;
        if !self.scanned_since_new_file || (self.emptied_unseen && !is_held) {
            // With the inode goes what could have said that it had been emptied.
            self.restarted_at = self.next_line;
        }
        fs::remove_file(self.bench.path("a.log")).unwrap();
        self.scanned_since_new_file = false;
    }

    fn step(&mut self, count: usize) {
        for _ in 0..count {
            self.bench.tailer.step(&mut self.bench.sink).unwrap();
            self.scanned_since_new_file = true;
            self.emptied_unseen = false;
        }
    }

    fn restart(&mut self) {
        let items = self.bench.sink.items.len();
        // Stopped (all is committed) or killed.
        let keep = if self.dice.below(3) == 0 { items } else { self.dice.below(items + 1) };
        writeln!(self.story, "  kept {keep} of {items} items").unwrap();
        self.bench.restart_with(keep);
        self.restarted_at = self.next_line;
        self.told = 0;
        self.scanned_since_new_file = false;
        if self.bench.saved.is_empty() {
            // An agent without any memory reads what its pattern means and nothing else.
            let lost = self.vanished(|path| {
                self.bench.tailer.walk.matches(path) && path.extension() != Some("gz".as_ref())
            });
            self.excused.extend(lost);
            self.step(1);
        }
    }

    /// Lines that stand in none of these files now and have not been handed on.
    fn vanished(&self, looks_at: impl Fn(&Path) -> bool) -> BTreeSet<usize> {
        let mut there = self.delivered();
        for entry in fs::read_dir(self.bench.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if !looks_at(&path) {
                continue;
            }
            let mut bytes = fs::read(&path).unwrap();
            if path.extension().is_some_and(|ending| ending == "gz") {
                let mut plain = Vec::new();
                flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
                bytes = plain;
            }
            there.extend(bytes.split(|byte| *byte == b'\n').filter_map(number));
        }
        (0..self.next_line).filter(|line| !there.contains(line)).collect()
    }

    fn delivered(&self) -> BTreeSet<usize> {
        self.bench.chunks().flat_map(records).filter_map(|line| number(&line)).collect()
    }

    fn act(&mut self) {
        let dice = self.dice.below(100);
        let exists = self.has_current();
        // What an open file still holds is delivered even when it is deleted; only a restart or a
        // look that never happened takes it away.
        let held = self.scanned_since_new_file && self.bench.options.max_open_files > 1;
        let what = match dice {
            0..40 => "append",
            40..60 => "step",
            60..65 => "scans",
            65..73 if exists => "rename",
            73..80 if exists => "copytruncate",
            80..86 => "pack",
            86..88 if exists => "truncate",
            88..91 if exists => "delete",
            91..97 => "restart",
            _ => "read",
        };
        writeln!(self.story, "{what} (next line {})", self.next_line).unwrap();
        match what {
            "append" => self.append(),
            "step" => self.step(1),
            "scans" => {
                let count = self.dice.below(40);
                self.step(count);
            }
            "rename" => self.rename(),
            "copytruncate" => self.copytruncate(),
            "pack" => self.pack(),
            "truncate" => self.truncate(),
            "delete" => self.delete(),
            "restart" => self.restart(),
            _ => {
                self.bench.tailer.read(&mut self.bench.sink).unwrap();
            }
        }
        let excusing = matches!(what, "truncate" | "restart")
            || (what == "delete" && !held)
            || self.shifted_out(what);
        self.tell();
        if excusing {
            let vanished = self.vanished(|_| true);
            self.excused.extend(vanished);
        }
    }

    /// A rotation may have removed the oldest file before the agent found it.
    fn shifted_out(&self, what: &str) -> bool {
        matches!(what, "rename" | "copytruncate" | "pack")
    }

    fn tell(&mut self) {
        for item in &self.bench.sink.items[self.told.min(self.bench.sink.items.len())..] {
            match item {
                Item::Records(chunk) => {
                    let lines: Vec<Option<usize>> =
                        records(chunk).iter().map(|line| number(line)).collect();
                    writeln!(
                        self.story,
                        "    {} ino {} gen {} {}..{} {:?} {:?}",
                        chunk.file.path.rsplit('/').next().unwrap(),
                        chunk.file.identity.ino % 1000,
                        chunk.file.identity.generation,
                        chunk.from,
                        chunk.after.offset,
                        lines.first(),
                        lines.last()
                    )
                    .unwrap();
                }
                Item::Moved { position, .. } => {
                    let (ino, at, end) =
                        (position.identity.ino % 1000, position.offset, position.segment);
                    writeln!(
                        self.story,
                        "    moved {} ino {ino} {at} {end}",
                        position.path.rsplit('/').next().unwrap()
                    )
                    .unwrap();
                }
                Item::Forget { identity, .. } => {
                    writeln!(self.story, "    forget ino {}", identity.ino % 1000).unwrap()
                }
                Item::Gap(notice) => {
                    writeln!(self.story, "    gap {} {:?}", notice.code, notice.from).unwrap()
                }
                Item::Batch(_) | Item::Marks { .. } | Item::Refused(_) => panic!("files have none"),
            }
        }
        self.told = self.bench.sink.items.len();
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(self.bench.dir.path()).unwrap() {
            let entry = entry.unwrap();
            let stat = stat_path(&entry.path()).unwrap();
            names.push(format!(
                "{}={}:{}@{}",
                entry.file_name().to_str().unwrap(),
                stat.inode.ino % 1000,
                stat.size,
                brief(stat.modified_ns)
            ));
        }
        for (id, reader) in &self.bench.tailer.readers {
            writeln!(
                self.story,
                "    reader {id} ino {} at {:?} known {} offset {} size {} held {} missing {} copy {} after {:?} caught {} blocked {}",
                reader.inode.ino % 1000,
                reader.at.as_ref().map(|at| at.file_name().unwrap()),
                reader.known.is_some(), reader.offset, reader.size, reader.held, reader.is_missing(), reader.is_copy,
                reader.after, reader.is_caught_up(), self.bench.tailer.is_blocked(reader)
            )
            .unwrap();
        }
        names.sort();
        for hunt in &self.bench.tailer.hunts {
            let name = hunt.path.file_name().unwrap();
            writeln!(self.story, "    hunt {name:?} since {}", brief(hunt.since_ns)).unwrap();
        }
        writeln!(self.story, "    disk {names:?}").unwrap();
    }

    /// Does a gap name the place where this lost line stood? Of a content that the agent has begun, one
    /// must. What came and went between two looks nobody can know of.
    fn is_in_a_gap(&self, line: usize) -> bool {
        let Some((content, end)) = self.places.get(&line) else { return true };
        let mut begun = self.bench.chunks().filter(|chunk| {
            let lines = records(chunk);
            let mut numbers = lines.iter().filter_map(|line| number(line));
            numbers.any(|n| self.places.get(&n).is_some_and(|(of, _)| of == content))
        });
        let Some(identity) = begun.next().map(|chunk| chunk.file.identity.clone()) else {
            return true;
        };
        if Inode::of(&identity) != content.0 {
            // Read in a copy only. That there was another is told by an agent that lives on, and
            // forgotten by one that is killed before that is durable: it had begun nothing.
            return true;
        }
        self.bench.gaps().iter().any(|gap| {
            gap.after.as_ref().is_some_and(|after| after.identity == identity)
                && gap.from.is_some_and(|from| from.get() < *end)
        })
    }

    fn check(&mut self) {
        self.end_line("a.log");
        let last = self.line();
        self.write("a.log", &last);
        for count in [1, 1, 1, 97] {
            self.step(count);
            self.tell();
        }
        let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
        let mut order = Vec::new();
        let mut garbage = Vec::new();
        for line in self.bench.chunks().flat_map(records) {
            match number(&line) {
                Some(n) => {
                    *seen.entry(n).or_default() += 1;
                    order.push(n);
                }
                None if line.starts_with(b"#") => {}
                None => garbage.push(String::from_utf8_lossy(&line).into_owned()),
            }
        }
        let twice: Vec<&usize> =
            seen.iter().filter(|(_, count)| **count > 1).map(|(n, _)| n).collect();
        let missing: Vec<usize> = (0..self.next_line)
            .filter(|n| !seen.contains_key(n) && !self.excused.contains(n))
            .collect();
        let unsaid: Vec<usize> = (0..self.next_line)
            .filter(|n| *n >= self.restarted_at && !seen.contains_key(n) && !self.is_in_a_gap(*n))
            .collect();
        order.retain(|n| !self.excused.contains(n));
        let mut disorder: Vec<_> = order.windows(2).filter(|pair| pair[0] > pair[1]).collect();
        if self.loose_order {
            disorder.clear();
        }
        for identity in self.bench.identities() {
            let chunks = self.bench.chunks().filter(|chunk| chunk.file.identity == identity);
            let mine: Vec<usize> =
                chunks.flat_map(records).filter_map(|line| number(&line)).collect();
            assert!(mine.is_sorted(), "{identity:?}: {mine:?}\n{}", self.story);
        }
        let good = twice.is_empty()
            && missing.is_empty()
            && unsaid.is_empty()
            && disorder.is_empty()
            && garbage.is_empty();
        assert!(
            good,
            "twice {twice:?} unsaid {unsaid:?} missing {missing:?} disorder {disorder:?} garbage {garbage:?}\n{}",
            self.story
        );
    }
}

/// A file's time, to the microsecond, short enough for a story.
fn brief(time_ns: i64) -> i64 {
    time_ns / 1_000 % 100_000_000
}

/// The number of a whole line of ours.
fn number(line: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(line).ok()?;
    let (digits, padding) = text.split_once(' ')?;
    if !padding.bytes().all(|byte| byte == b'x') {
        return None;
    }
    digits.parse().ok()
}

fn live(seed: u64) {
    let mut world = World::new(seed);
    world.step(1);
    for _ in 0..acts() {
        world.act();
    }
    world.check();
}

/// `CUSTODY_TAIL_SEEDS=from..to` runs other seeds than the usual ones.
fn seeds() -> std::ops::Range<u64> {
    let wanted = std::env::var("CUSTODY_TAIL_SEEDS").ok();
    let range = wanted.as_deref().and_then(|text| text.split_once(".."));
    range.map_or(0..500, |(from, to)| from.parse().unwrap()..to.parse().unwrap())
}

/// `CUSTODY_TAIL_ACTS=n` makes shorter or longer lives.
fn acts() -> usize {
    std::env::var("CUSTODY_TAIL_ACTS").map_or(60, |text| text.parse().unwrap())
}

#[test]
fn every_line_comes_exactly_once_and_in_order_whatever_rotates_and_dies() {
    let mut failed = Vec::new();
    for seed in seeds() {
        let result = std::panic::catch_unwind(|| live(seed));
        if let Err(panic) = result {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            failed.push((seed, text));
        }
    }
    let stories: Vec<&String> = failed.iter().map(|(_, text)| text).take(2).collect();
    let seeds: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
    assert!(
        failed.is_empty(),
        "{} seeds failed: {seeds:?}\n{}",
        seeds.len(),
        stories.iter().map(|s| s.as_str()).collect::<Vec<_>>().join("\n----\n")
    );
}
