//! One test's folder, seed and patience.

use std::path::{Path, PathBuf};
use std::time::Duration;

use custody_event::Clock;

use crate::rng::Rng;

/// Lines of each log shown when a test fails.
const SHOWN_LINES: usize = 25;

/// Is the whole campaign asked for (`CUSTODY_LONG=1`), not its short form?
#[must_use]
pub fn is_long() -> bool {
    std::env::var_os("CUSTODY_LONG").is_some_and(|value| value == "1")
}

/// The seed: `CUSTODY_SEED`, or one that no other run has had.
///
/// # Panics
/// `CUSTODY_SEED` is not a number.
#[must_use]
pub fn seed() -> u64 {
    match std::env::var("CUSTODY_SEED") {
        Ok(text) => text.parse().expect("CUSTODY_SEED is a number"),
        Err(_) => {
            let now = custody_event::SystemClock::new().now().micros();
            Rng::new(now.unsigned_abs() ^ u64::from(std::process::id())).bits() % 1_000_000
        }
    }
}

/// One test's folder. Declare it first: it goes last, and when the test has failed it stays, and
/// the ends of all logs in it are shown.
#[derive(Debug)]
pub struct World {
    name: &'static str,
    dir: PathBuf,
    seed: u64,
}

impl World {
    /// For the test of this name.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        let dir = tempfile::Builder::new().prefix("custody-").tempdir().unwrap().keep();
        Self { name, dir, seed: seed() }
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The test's random choices.
    #[must_use]
    pub fn rng(&self) -> Rng {
        Rng::new(self.seed)
    }

    /// How long a single step may take before the test fails: far more than it takes on a busy
    /// machine with two cores, and more in the long form.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(if is_long() { 600 } else { 90 })
    }

    fn show(&self) {
        eprintln!("{} failed: CUSTODY_SEED={} replays its choices", self.name, self.seed);
        eprintln!("everything is kept in {}", self.dir.display());
        let mut logs: Vec<PathBuf> = std::fs::read_dir(&self.dir)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "stderr"));
        logs.sort();
        for log in logs {
            let bytes = std::fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {} ({} lines)", log.display(), lines.len());
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        } else if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}
