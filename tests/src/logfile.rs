//! A log as a program writes it and logrotate rotates it; each line has a number of its own.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use custody_event::Clock;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::rng::Rng;

/// The writer's silence before a copytruncate: what a person who uses it hopes to be enough.
const QUIET: Duration = Duration::from_secs(1);
/// Old files that are numbered; more than any test makes.
const MAX_OLD: usize = 99;

/// How a log is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Renamed; the program writes a little more before it opens a new one.
    Rename,
    /// Copied after a quiet second, then emptied.
    CopyTruncate,
    /// Renamed, a new one opened, the old one compressed at once and removed.
    Gzip,
}

impl Rotation {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Rename, Self::CopyTruncate, Self::Gzip];
}

/// What lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Mostly lines that no rule knows, some of sshd.
    Mixed,
    /// As mixed, with 150 bytes more that no compressor makes shorter.
    Noisy,
    /// JSON of five classes that are kept for different times ([`class_of`]), as long as noisy ones.
    Classed,
}

/// A growing log.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    form: Form,
    rng: Rng,
    next: u64,
    /// The beginning of a line whose end has not been written yet.
    rest: Vec<u8>,
    contents: Vec<u64>,
    bytes: u64,
}

impl LogFile {
    /// Makes an empty log.
    #[must_use]
    pub fn create(path: &Path, form: Form, rng: Rng) -> Self {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = open(path);
        let path = path.to_owned();
        Self { path, file, form, rng, next: 0, rest: Vec::new(), contents: vec![0], bytes: 0 }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Numbered lines written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.next
    }

    /// Numbered lines that are whole on disk: `append` may have kept some back.
    #[must_use]
    pub fn on_disk(&self) -> u64 {
        let kept_back = self.rest.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.next.saturating_sub(kept_back)
    }

    /// Bytes written so far, over all rotations.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number with which each content of the log began.
    #[must_use]
    pub fn contents(&self) -> &[u64] {
        &self.contents
    }

    /// Appends lines, in one or two writes that need not end where a line ends.
    pub fn append(&mut self, lines: u64) {
        let mut text = std::mem::take(&mut self.rest);
        for _ in 0..lines {
            push_line(self.form, self.next, &mut self.rng, &mut text);
            self.next += 1;
        }
        let cut = self.rng.between(0, text.len() as u64);
        let (now, later) = text.split_at(usize::try_from(cut).unwrap());
        self.write(now);
        if self.rng.one_in(4) {
            self.rest = later.to_vec();
        } else {
            self.write(later);
        }
    }

    /// Writes what is left of the last line.
    pub fn flush(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        self.write(&rest);
    }

    /// Appends bytes that have no number.
    pub fn append_raw(&mut self, bytes: &[u8]) {
        self.flush();
        self.write(bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).unwrap();
        self.bytes += bytes.len() as u64;
    }

    /// Rotates.
    pub fn rotate(&mut self, how: Rotation) {
        self.flush();
        self.shift();
        let old = self.old(1, "");
        match how {
            Rotation::Rename => {
                std::fs::rename(&self.path, &old).unwrap();
                let late = self.rng.between(0, 50);
                self.append(late);
                self.flush();
                self.file = open(&self.path);
            }
            Rotation::CopyTruncate => {
                std::thread::sleep(QUIET);
                std::fs::copy(&self.path, &old).unwrap();
                self.file.set_len(0).unwrap();
            }
            Rotation::Gzip => {
                std::fs::rename(&self.path, &old).unwrap();
                self.file = open(&self.path);
                compress(&old, &self.old(1, ".gz"));
            }
        }
        self.contents.push(self.next);
    }

    /// Rotates by another program, which renames the file; then a new one is opened.
    pub fn rotated_by(&mut self, rotate: impl FnOnce(&Path)) {
        self.flush();
        rotate(&self.path);
        self.file = open(&self.path);
        self.contents.push(self.next);
    }

    fn old(&self, number: usize, extension: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}{extension}"));
        name.into()
    }

    /// `app.log.1` becomes `app.log.2`, and so on from the oldest.
    fn shift(&self) {
        for number in (1..MAX_OLD).rev() {
            for extension in ["", ".gz"] {
                let old = self.old(number, extension);
                if old.try_exists().unwrap() {
                    std::fs::rename(old, self.old(number + 1, extension)).unwrap();
                }
            }
        }
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn compress(old: &Path, compressed: &Path) {
    let file = File::create(compressed).unwrap();
    let mut encoder = GzEncoder::new(file, Compression::fast());
    std::io::copy(&mut File::open(old).unwrap(), &mut encoder).unwrap();
    encoder.finish().unwrap();
    std::fs::remove_file(old).unwrap();
}

/// The word that stands in line `number` and in no other.
#[must_use]
pub fn word(number: u64) -> String {
    format!("n{number:09}")
}

/// The number that stands in a line: `n` and nine digits.
#[must_use]
pub fn number_in(line: &[u8]) -> Option<u64> {
    let digits = line
        .windows(10)
        .find(|window| window[0] == b'n' && window[1..].iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(&digits[1..]).ok()?.parse().ok()
}

/// What a line of [`Form::Classed`] is: who did it, its category and its severity.
#[must_use]
pub fn class_of(number: u64) -> (&'static str, &'static str, &'static str) {
    const CLASSES: [(&str, &str, &str); 5] = [
        ("ann", "access", "low"),
        ("ben", "data", "low"),
        ("cleo", "security", "critical"),
        ("dora", "access", "low"),
        ("erin", "data", "low"),
    ];
    CLASSES[usize::try_from(number % 5).unwrap()]
}

fn push_line(form: Form, number: u64, rng: &mut Rng, out: &mut Vec<u8>) {
    let now = custody_event::SystemClock::new().now();
    let word = word(number);
    if form == Form::Classed {
        let (user, category, severity) = class_of(number);
        out.extend_from_slice(
            format!(
                r#"{{"time":"{now}","user":"{user}","action":"item.view","category":"{category}","severity":"{severity}","work":"{word}","noise":""#
            )
            .as_bytes(),
        );
        rng.noise(150, out);
        out.extend_from_slice(b"\"}\n");
        return;
    }
    if rng.one_in(3) {
        let (ip, port) = (rng.between(1, 254), rng.between(1024, 65_535));
        let civil = now.civil();
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let line = format!(
            "{} {:>2} {:02}:{:02}:{:02} web1 sshd[{}]: Failed password for invalid user {word} from 203.0.113.{ip} port {port} ssh2",
            MONTHS[usize::from(civil.month) - 1],
            civil.day,
            civil.hour,
            civil.minute,
            civil.second,
            rng.between(300, 99_999),
        );
        out.extend_from_slice(line.as_bytes());
    } else {
        out.extend_from_slice(format!("{now} INFO app: work item {word} done ").as_bytes());
        let len = usize::try_from(rng.between(0, 60)).unwrap();
        out.extend(std::iter::repeat_n(b'-', len));
    }
    if form == Form::Noisy {
        out.push(b' ');
        rng.noise(150, out);
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_says_its_number_and_no_rotation_loses_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogFile::create(&folder.path().join("app.log"), Form::Noisy, Rng::new(1));
        for how in Rotation::ALL {
            log.append(40);
            log.rotate(how);
        }
        log.append(5);
        log.flush();
        let mut numbers = Vec::new();
        for name in ["app.log.3", "app.log.2", "app.log.1.gz", "app.log"] {
            let bytes = std::fs::read(folder.path().join(name)).unwrap();
            let text = if name.ends_with("gz") {
                let mut text = Vec::new();
                std::io::copy(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut text).unwrap();
                text
            } else {
                bytes
            };
            let lines = text.split_inclusive(|byte| *byte == b'\n');
            numbers.extend(lines.map(|line| number_in(line).unwrap()));
        }
        assert_eq!(numbers, (0..log.written()).collect::<Vec<u64>>());
    }
}
