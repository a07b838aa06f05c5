//! Log lines and events, the same from the same seed: users, addresses, ports and times vary as
//! on a busy host. Nothing here is anybody's: names are made of syllables, addresses are random.

pub(crate) mod blocks;
mod draft;
mod lines;

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use custody_event::Timestamp;

/// What kind of log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// auth.log of an SSH server, 106 bytes a line.
    Sshd,
    /// Access log of nginx, combined format, 190 bytes a line.
    Nginx,
    /// Audit log of an application, one JSON object a line, 335 bytes.
    Json,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Sshd, Self::Nginx, Self::Json];

    /// Those that were asked for; all where none was.
    pub(crate) fn or_all(asked: &[Self]) -> Vec<Self> {
        if asked.is_empty() { Self::ALL.to_vec() } else { asked.to_vec() }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sshd => "sshd",
            Self::Nginx => "nginx",
            Self::Json => "json",
        }
    }

    /// The rule packs for it, as the agent's configuration names them.
    pub(crate) fn packs(self) -> &'static str {
        match self {
            Self::Sshd => "[sshd, pam]",
            Self::Nginx => "[nginx-access]",
            Self::Json => "[generic-json]",
        }
    }

    /// A regular expression that takes every line apart: what `rg -c` is measured with.
    pub(crate) fn regex(self) -> &'static str {
        match self {
            Self::Sshd => {
                r"^(\w{3} [ \d]\d \d\d:\d\d:\d\d) (\S+) sshd\[(\d+)\]: (?:(Failed|Accepted) (\S+) for (invalid user )?(\S*) from (\S+) port (\d+)|Invalid user (\S*) from (\S+) port (\d+)|pam_unix\(sshd:session\): session opened for user (\S+) by|Received disconnect from (\S+) port (\d+))"
            }
            Self::Nginx => {
                r#"^(\S+) - (\S+) \[([^\]]+)\] "(\S+) (\S+) ([^"]+)" (\d+) (\d+) "([^"]*)" "([^"]*)"$"#
            }
            Self::Json => {
                r#"^\{"time":"([^"]*)".*"event":"([^"]*)".*"user":"([^"]*)".*"ip":"([^"]*)".*"result":"([^"]*)".*\}$"#
            }
        }
    }
}

/// splitmix64: small, fast, and the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        let index = self.below(crate::numbers::len(list.len()));
        list[usize::try_from(index).unwrap_or(0)]
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        for part in out.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
        out
    }
}

/// How many users there are. Some act much more often than others.
const USERS: u64 = 2_000;
/// How many addresses they come from.
const ADDRESSES: u64 = 8_000;
/// One act in so many is by the rare user.
const RARE_ONE_IN: u64 = 200_000;
/// A name that stands in few events: the needle of the query benchmark.
pub(crate) const RARE_USER: &str = "zephyrine";

/// Something that happened, before it is a line or an event.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    pub(crate) kind: Kind,
    pub(crate) time: Timestamp,
    pub(crate) user: String,
    pub(crate) ip: String,
    pub(crate) port: u64,
    /// 0 to 99: which of the kind's forms.
    pub(crate) form: u64,
    /// For whatever else a form needs.
    pub(crate) salt: u64,
}

/// Makes acts, one after the other in time.
#[derive(Debug, Clone)]
pub(crate) struct Maker {
    random: Random,
    kinds: Vec<Kind>,
    time: Timestamp,
    step_us: i64,
}

impl Maker {
    /// From `start`, about one every `step_us`; kinds are drawn evenly from `kinds`.
    pub(crate) fn new(seed: u64, kinds: &[Kind], start: Timestamp, step_us: i64) -> Self {
        Self { random: Random::new(seed), kinds: kinds.to_vec(), time: start, step_us }
    }

    /// The next.
    pub(crate) fn next(&mut self) -> Act {
        let random = &mut self.random;
        let jitter =
            random.below(u64::try_from(self.step_us).unwrap_or(0).saturating_mul(2).max(1));
        self.time = self.time.plus_micros(i64::try_from(jitter).unwrap_or(0));
        let kind = random.below(crate::numbers::len(self.kinds.len()));
        let kind =
            self.kinds.get(usize::try_from(kind).unwrap_or(0)).copied().unwrap_or(Kind::Sshd);
        // The smaller of two draws: low numbers come up more often.
        let user = random.below(USERS).min(random.below(USERS));
        let rare = random.below(RARE_ONE_IN) == 0;
        let ip = address(random.below(ADDRESSES).min(random.below(ADDRESSES)));
        Act {
            kind,
            time: self.time,
            user: if rare { RARE_USER.to_owned() } else { user_name(user) },
            ip,
            port: 1024 + random.below(64_000),
            form: random.below(100),
            salt: random.next(),
        }
    }
}

/// The name of user `number`: 5 to 9 letters.
pub(crate) fn user_name(number: u64) -> String {
    const HEADS: [&str; 12] =
        ["ba", "ce", "di", "fo", "gu", "ha", "jo", "ka", "le", "mi", "no", "ru"];
    const TAILS: [&str; 10] =
        ["ran", "lis", "ton", "ver", "dela", "mir", "sen", "rick", "bert", "na"];
    let mut random = Random::new(number ^ 0x75_73_65_72);
    let mut name = format!("{}{}", random.pick(&HEADS), random.pick(&TAILS));
    if number >= 40 {
        name.push_str(&number.to_string());
    }
    name
}

/// The address number `number`: half of them inside 10.0.0.0/8.
fn address(number: u64) -> String {
    let [a, b, c, d] = Random::new(number ^ 0x6970).bytes::<4>();
    if number.is_multiple_of(2) {
        format!("10.{}.{}.{}", b % 40, c, d.max(1))
    } else {
        format!("{}.{}.{}.{}", 11 + a % 110, b, c, d.max(1))
    }
}

/// Writes a log of `lines` lines of one kind; its length in bytes.
pub(crate) fn write_log(path: &Path, kind: Kind, lines: u64, seed: u64) -> anyhow::Result<u64> {
    let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    // Long past, so that no clock makes a line come from the future.
    let start = Timestamp::parse("2026-01-05T00:00:00.000000Z").context("a fixed time")?;
    let mut maker = Maker::new(seed, &[kind], start, 100_000);
    let mut line = String::new();
    let mut bytes = 0;
    for _ in 0..lines {
        line.clear();
        maker.next().line(&mut line);
        line.push('\n');
        bytes += crate::numbers::len(line.len());
        out.write_all(line.as_bytes())?;
    }
    let file = out.into_inner().map_err(|error| error.into_error())?;
    file.sync_all()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(kind: Kind, seed: u64) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let bytes = write_log(&path, kind, 5_000, seed).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(crate::numbers::len(text.len()), bytes);
        assert_eq!(text.lines().count(), 5_000);
        text
    }

    #[test]
    fn lines_are_as_long_as_the_peers_were_measured_with() {
        for (kind, shortest, longest) in
            [(Kind::Sshd, 102, 110), (Kind::Nginx, 184, 198), (Kind::Json, 328, 342)]
        {
            let mean = log_of(kind, 1).len() / 5_000;
            assert!((shortest..=longest).contains(&mean), "{}: {mean} bytes a line", kind.name());
        }
    }

    #[test]
    fn one_seed_makes_one_log() {
        for kind in Kind::ALL {
            assert_eq!(log_of(kind, 7), log_of(kind, 7));
            assert_ne!(log_of(kind, 7), log_of(kind, 8));
        }
    }

    #[test]
    fn users_and_addresses_vary() {
        let start = Timestamp::Y2020;
        let mut maker = Maker::new(3, &Kind::ALL, start, 1_000);
        let acts: Vec<Act> = (0..20_000).map(|_| maker.next()).collect();
        let distinct = |field: fn(&Act) -> &str| {
            acts.iter().map(field).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert!(distinct(|act| &act.user) > 1_500);
        assert!(distinct(|act| &act.ip) > 6_000);
        assert!(acts.windows(2).all(|pair| pair[0].time <= pair[1].time));
    }
}
