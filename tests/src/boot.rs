//! A booted system: systemd as process 1 over this machine's own file tree, in namespaces, in two or three seconds.
//!
//! What it changes lies on a small file system of its own and goes with the test; booting twice over the same changes is a
//! reboot. The work is `boot.sh`'s; here is the handle.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::disk::SmallDisk;
use crate::process::{Daemon, Said, run};
use crate::wait::eventually;
use crate::world::World;

/// Room for what the booted system writes: packages, journal, evidence.
const CHANGES_MIB: u64 = 1024;
const UP_WITHIN: Duration = Duration::from_secs(90);

/// Why the machine cannot boot a system, if so.
#[must_use]
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if std::fs::metadata("/lib/systemd/systemd").is_err() {
        return Some("systemd is not installed".to_owned());
    }
    for program in ["unshare", "nsenter", "setpriv", "pivot_root", "ip", "pgrep", "dpkg"] {
        let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .any(|folder| std::fs::metadata(Path::new(folder).join(program)).is_ok());
        if !found {
            return Some(format!("{program} is not installed"));
        }
    }
    None
}

/// A machine that can be booted again and again over the same changes.
#[derive(Debug)]
pub struct Machine {
    disk: SmallDisk,
    script: PathBuf,
    log: PathBuf,
}

/// The machine while it is up. Dropped, it is shut down.
#[derive(Debug)]
pub struct Booted {
    daemon: Daemon,
    leader: String,
}

impl Machine {
    /// One that has never been up; `None`, said, where there cannot be any.
    ///
    /// # Panics
    /// The script cannot be written.
    #[must_use]
    pub fn new(world: &World) -> Option<Self> {
        let disk = SmallDisk::mount(world, "machine", CHANGES_MIB)?;
        let script = world.path("boot.sh");
        std::fs::write(&script, include_str!("boot.sh")).unwrap();
        Some(Self { disk, script, log: world.path("boot.stderr") })
    }

    /// Puts a file into the machine before, or while, it is up.
    ///
    /// # Panics
    /// It cannot be copied.
    pub fn put(&self, file: &Path, folder: &str) {
        let folder = self.disk.dir().join("upper").join(folder.trim_start_matches('/'));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(file, folder.join(file.file_name().unwrap())).unwrap();
    }

    /// Boots.
    ///
    /// # Panics
    /// It does not come up.
    #[must_use]
    pub fn boot(&self) -> Booted {
        let mut command = Command::new("bash");
        command.arg(&self.script).arg(self.disk.dir());
        let mut daemon = Daemon::start(command, "the booted system", &self.log);
        let leader = eventually(UP_WITHIN, || {
            let said = std::fs::read_to_string(self.disk.dir().join("leader"));
            let up = said.ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
            assert!(up.is_some() || daemon.ended().is_none(), "it does not boot: {}", self.said());
            up
        });
        let leader = leader.unwrap_or_else(|| panic!("it is not up: {}", self.said()));
        Booted { daemon, leader }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Booted {
    /// Runs a line of shell in it.
    #[must_use]
    pub fn sh(&self, line: &str) -> Said {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.leader, "-m", "-u", "-i", "-n", "-p", "-C", "--"]);
        command.args([
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "TERM=dumb",
        ]);
        command.args(["DEBIAN_FRONTEND=noninteractive", "sh", "-c", line]);
        run(command)
    }

    /// As [`Self::sh`]; what it says on standard output.
    ///
    /// # Panics
    /// It does not end with 0.
    pub fn done(&self, line: &str) -> String {
        let said = self.sh(line);
        assert_eq!(said.code, Some(0), "{line}: {said:#?}");
        said.out
    }

    /// Looks with a line of shell until it ends with 0; what it says then.
    ///
    /// # Panics
    /// It does not within `limit`.
    pub fn until(&self, what: &str, limit: Duration, line: &str) -> String {
        let mut last = None;
        let found = eventually(limit, || {
            let said = self.sh(line);
            let good = (said.code == Some(0)).then(|| said.out.clone());
            last = Some(said);
            good
        });
        found.unwrap_or_else(|| panic!("waited {limit:?} in vain: {what}: {line}: {last:#?}"))
    }

    /// A property of a unit.
    pub fn show(&self, unit: &str, property: &str) -> String {
        let line = format!("systemctl show --value --property {property} {unit}");
        self.done(&line).trim().to_owned()
    }

    /// Shuts it down, as `poweroff` does.
    pub fn shut_down(self) {
        drop(self);
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // Killed at once, the script would leave its control groups behind.
        if self.daemon.ended().is_none() {
            self.daemon.signal(Signal::TERM);
            let _cut = eventually(UP_WITHIN, || self.daemon.ended());
        }
    }
}
