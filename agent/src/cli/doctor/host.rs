//! The host: its clock, the data directory, the disk, the journal.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use custody_config::AgentConfig;
use custody_config::agent::SourceConfig;
use custody_config::shell::check_clock;
use custody_event::Clock;
use rustix::fs::Access;

use super::Findings;
use crate::cli::print;

pub(super) fn clock(clock: &dyn Clock, findings: &mut Findings) {
    match check_clock(clock) {
        Ok(()) => findings.good("clock", format!("{}", clock.now())),
        Err(failure) => findings.bad("clock", failure.to_string(), "timedatectl set-ntp true"),
    }
}

pub(super) fn data_dir(config: &AgentConfig, findings: &mut Findings) {
    let path = config.data_dir.get();
    let remedy = format!(
        "install -d -m 0700 -o {user} -g {user} {}",
        path.display(),
        user = crate::cli::service_user::AGENT
    );
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) => {
            return findings.bad("data directory", format!("{}: {error}", path.display()), &remedy);
        }
    };
    if !found.is_dir() {
        return findings.bad("data directory", format!("{} is none", path.display()), &remedy);
    }
    if let Err(error) =
        rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
    {
        let what = format!("{} cannot be written by this user: {error}", path.display());
        return findings.bad("data directory", what, &remedy);
    }
    if found.mode() & 0o077 == 0 {
        findings.good("data directory", format!("{}, ours alone", path.display()));
    } else {
        let what = format!("{} can be read by others: it holds keys", path.display());
        findings.warn("data directory", what, &format!("chmod 0700 {}", path.display()));
    }
}

pub(super) fn disk(config: &AgentConfig, findings: &mut Findings) {
    let path = config.data_dir.get();
    let Ok(stat) = rustix::fs::statvfs(path) else { return };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let (floor, most) = (config.spool.free_space_floor.bytes(), config.spool.max_bytes.bytes());
    let shown = format!("{} free under {}", print::bytes(free), path.display());
    if free <= floor {
        let what = format!("{shown}: less than spool.free_space_floor, so the spool takes nothing");
        findings.bad("disk", what, "make room, or lower spool.free_space_floor");
    } else if free < floor.saturating_add(most) {
        let what = format!("{shown}: less than a full spool of {} would take", print::bytes(most));
        findings.warn("disk", what, "make room, or lower spool.max_bytes");
    } else {
        findings.good("disk", shown);
    }
    if stat.f_files > 0 && stat.f_favail < 1000 {
        findings.bad("disk", format!("{} inodes are left", stat.f_favail), "remove small files");
    }
}

/// The journal that a source of this host reads: kept over a restart of the host, and readable.
pub(super) fn journal(config: &AgentConfig, findings: &mut Findings) {
    let local = config.sources.iter().any(|source| match source {
        SourceConfig::Journal(journal) => journal.directory.is_none(),
        SourceConfig::File(_) | SourceConfig::Syslog(_) | SourceConfig::Webhook(_) => false,
    });
    if !local {
        return;
    }
    let kept = files_below(Path::new("/var/log/journal"));
    if kept.is_empty() {
        findings.warn(
            "journal",
            "it is kept in memory: what was not read before the host restarts is lost",
            "mkdir -p /var/log/journal && systemctl restart systemd-journald",
        );
    }
    let all: Vec<PathBuf> =
        kept.into_iter().chain(files_below(Path::new("/run/log/journal"))).collect();
    let is_refused = |path: &&PathBuf| {
        File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    let refused = all.iter().filter(is_refused);
    let system =
        all.iter().find(|path| path.file_name().is_some_and(|name| name == "system.journal"));
    match (system, refused.collect::<Vec<_>>().as_slice()) {
        (Some(system), []) => findings.good("journal", format!("{} can be read", system.display())),
        (None, []) => findings.bad(
            "journal",
            "there is none: no system.journal below /var/log/journal and /run/log/journal",
            "is systemd-journald running? systemctl status systemd-journald",
        ),
        (_, [first, ..]) => findings.bad(
            "journal",
            format!("{} cannot be read by this user", first.display()),
            "let the service be in the group: SupplementaryGroups=systemd-journal (the shipped unit has it)",
        ),
    }
}

/// `*.journal` one folder below.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let listed = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.flatten().map(|entry| entry.path()).collect()
    };
    let mut found: Vec<PathBuf> = listed(folder).iter().flat_map(|below| listed(below)).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "journal"));
    found.sort();
    found
}
