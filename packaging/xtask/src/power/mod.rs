//! `cargo xtask power-cut`: cuts the power under the spool and the evidence log.
//!
//! The data directory lies on a file system in an image file (ext4 and xfs in turn), itself on an
//! xfs that can clone files. Two ways to cut:
//! - *snapshot*: the image is cloned in one step while the program writes. The clone holds what
//!   had reached the disk, as a disk does when the power goes; the program never notices and the
//!   next cut comes a moment later.
//! - *shutdown*: the file system is shut down under the running program (`FS_IOC_SHUTDOWN`, no
//!   flush): what was not synced is gone. The program sees I/O errors and must not claim that
//!   anything became durable after that.
//!
//! After a cut the image is mounted (its journal is replayed) and the program is started on it.
//! What "durable" was said to be before the cut is kept outside the image.
//!
//! The whole runs in a mount namespace of its own: whatever happens, nothing stays mounted.

mod disk;
mod evidence;
mod spool;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::generate::Random;
use crate::out::{self, say};
use crate::shell::{self, Profile, Programs};
use disk::FileSystem;

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "CUSTODY_POWER_CUT_INSIDE";
/// Cuts until a program begins anew on a fresh image: keeps logs and images small.
const CUTS_A_SESSION: u32 = 10;

/// What lies on the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum What {
    /// The agent's spool.
    Spool,
    /// The collector's evidence log.
    Evidence,
    /// One after the other.
    Both,
}

/// Arguments of `power-cut`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Cuts, of each.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    points: u32,
    /// Under what.
    #[arg(long, value_enum, default_value_t = What::Both)]
    what: What,
    /// Seed of the instants and of what is written; a random one is taken and shown if left out.
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the images of cuts that showed something wrong in this folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Where the images are written.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Build with the release profile.
    #[arg(long)]
    release: bool,
}

/// One stretch of cuts on one image.
#[derive(Debug)]
struct Session<'a> {
    programs: &'a Programs,
    folder: &'a Path,
    keep: Option<&'a Path>,
    file_system: FileSystem,
    /// Snapshots, before the shutdown at the end.
    snapshots: u32,
    random: Random,
}

/// What the cuts showed.
#[derive(Debug, Default)]
struct Report {
    cuts: u32,
    /// Blocks that had been said to be durable before the cuts, at most and in all.
    durable_blocks: u64,
    slowest_recovery: Duration,
    wrong: Vec<String>,
}

impl Report {
    fn recovered(&mut self, time: Duration, durable_blocks: u64) {
        self.cuts += 1;
        self.durable_blocks += durable_blocks;
        self.slowest_recovery = self.slowest_recovery.max(time);
    }

    fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.durable_blocks += other.durable_blocks;
        self.slowest_recovery = self.slowest_recovery.max(other.slowest_recovery);
        self.wrong.extend(other.wrong);
    }
}

impl Session<'_> {
    /// A pause of up to so long.
    fn pause(&mut self, min_ms: u64, max_ms: u64) {
        std::thread::sleep(Duration::from_millis(min_ms + self.random.below(max_ms - min_ms + 1)));
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if std::env::var_os(INSIDE).is_none() {
        return enter_namespace();
    }
    let folder = shell::scratch(args.dir.as_deref())?;
    let profile = if args.release { Profile::Release } else { Profile::Dev };
    let programs = shell::build(profile, folder.path())?;
    let seed = args.seed.unwrap_or_else(|| u64::try_from(shell::now().micros()).unwrap_or(1));
    say(&format!("seed {seed}"));
    let mut random = Random::new(seed);
    let kinds: &[What] = match args.what {
        What::Spool => &[What::Spool],
        What::Evidence => &[What::Evidence],
        What::Both => &[What::Spool, What::Evidence],
    };
    let mut wrong = 0;
    for what in kinds {
        let report = cut_all(args, *what, &programs, folder.path(), &mut random)?;
        wrong += report.wrong.len();
        show(*what, &report);
    }
    if wrong > 0 {
        bail!("{wrong} things were not as they should be (seed {seed})");
    }
    Ok(())
}

/// Runs the same command again with mounts that nobody else sees and that end with it.
fn enter_namespace() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("power-cut mounts file systems: run it as root");
    }
    for tool in ["mkfs.xfs", "xfs_io", "mkfs.ext4"] {
        // -V is the version, and the only thing that all three agree on.
        let found = Command::new(tool).arg("-V").output().is_ok();
        if !found {
            bail!("{tool} is missing (on Debian: apt install xfsprogs e2fsprogs)");
        }
    }
    let myself = std::env::current_exe().context("this program's own path")?;
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(myself)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .context("cannot run unshare (util-linux)")?;
    if status.success() { Ok(()) } else { bail!("power-cut failed") }
}

fn cut_all(
    args: &Args,
    what: What,
    programs: &Programs,
    folder: &Path,
    random: &mut Random,
) -> anyhow::Result<Report> {
    let mut report = Report::default();
    // Both file systems even where there are few cuts.
    let a_session = CUTS_A_SESSION.min(args.points.div_ceil(2));
    let mut left = args.points;
    let mut number = 0_u32;
    while left > 0 {
        let cuts = left.min(a_session);
        left -= cuts;
        let place = folder.join(format!("{what:?}-{number}").to_lowercase());
        std::fs::create_dir(&place)?;
        let session = Session {
            programs,
            folder: &place,
            keep: args.keep.as_deref(),
            file_system: if number.is_multiple_of(2) { FileSystem::Ext4 } else { FileSystem::Xfs },
            snapshots: cuts - 1,
            random: Random::new(random.next()),
        };
        let begun = Instant::now();
        let name = session.file_system.name();
        let done = match what {
            What::Evidence => evidence::run(session),
            What::Spool | What::Both => spool::run(session),
        };
        let done = done.with_context(|| format!("session {number} on {name}"))?;
        say(&format!(
            "{}: session {number} on {name}: {} cuts, {} wrong, {:.1} s",
            label(what),
            done.cuts,
            done.wrong.len(),
            begun.elapsed().as_secs_f64()
        ));
        for sentence in &done.wrong {
            out::warn(&format!("  {sentence}"));
        }
        report.add(done);
        std::fs::remove_dir_all(&place)?;
        number += 1;
    }
    Ok(report)
}

fn label(what: What) -> &'static str {
    match what {
        What::Evidence => "evidence log",
        What::Spool | What::Both => "spool",
    }
}

fn show(what: What, report: &Report) {
    say(&format!(
        "{}: {} power cuts, {} blocks had been durable before them, {} things wrong; slowest recovery {:.1} s",
        label(what),
        report.cuts,
        report.durable_blocks,
        report.wrong.len(),
        report.slowest_recovery.as_secs_f64()
    ));
}
