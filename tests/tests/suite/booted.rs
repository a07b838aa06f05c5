//! The packages on a booted system: installed with dpkg, started by systemd, used, broken in every way that a service is
//! broken, upgraded with a full spool, rebooted, removed, purged. Every line that the journal got is found once.
//!
//! It needs packages (`CUSTODY_PACKAGES` names the folder that `cargo xtask dist` made) and root; without either it says
//! `skipped: …`. `cargo xtask booted` makes the packages and runs it in its long form.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use custody_tests::boot::{Booted, Machine, obstacle};
use custody_tests::{World, is_long};
use serde_json::Value;

const AGENT: &str = "custody-agent.service";
const COLLECTOR: &str = "custody-collector.service";
const PATIENCE: Duration = Duration::from_secs(60);
/// In the machine.
const PACKAGES: &str = "/opt/packages";

/// The packages, by name.
fn packages() -> Result<Vec<PathBuf>, String> {
    if let Some(reason) = obstacle() {
        return Err(reason);
    }
    let folder = std::env::var_os("CUSTODY_PACKAGES")
        .ok_or("no packages: CUSTODY_PACKAGES names the folder that `cargo xtask dist` made")?;
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    found.sort();
    if found.len() == 3 {
        return Ok(found);
    }
    Err(format!("{} has {} Debian packages, not 3", folder.display(), found.len()))
}

/// Numbered lines that the journal has got as said by sudo, in lots.
#[derive(Debug, Default)]
struct Load {
    lots: u32,
    lines_a_lot: u32,
}

impl Load {
    /// Begins to write the next lot in the background; gives its number.
    fn begin(&mut self, machine: &Booted) -> u32 {
        self.lots += 1;
        let (lot, lines) = (self.lots, self.lines_a_lot);
        // A line each few milliseconds: what befalls the service befalls it under load.
        machine.done(&format!(
            "rm -f /run/lot{lot}.done; (for n in $(seq {lines}); do echo \"booted lot{lot}x $n end\"; \
             [ $((n % 10)) = 0 ] && sleep 0.02; done | systemd-cat -t sudo; touch /run/lot{lot}.done) \
             >/dev/null 2>&1 </dev/null &"
        ));
        lot
    }

    fn wait(machine: &Booted, lot: u32) {
        let _seen =
            machine.until("the lot is written", PATIENCE, &format!("test -e /run/lot{lot}.done"));
    }

    fn write(&mut self, machine: &Booted) {
        let lot = self.begin(machine);
        Self::wait(machine, lot);
    }

    /// Every line of every lot is found, once.
    fn expect_exactly_once(&self, machine: &Booted) {
        for lot in 1..=self.lots {
            let line =
                format!("custody-collector search 'input:rights lot{lot}x' --json --limit 1000");
            let full = format!("test $({line} | wc -l) -ge {}", self.lines_a_lot);
            let _seen = machine.until(&format!("lot {lot} is found"), PATIENCE, &full);
            let mut times: BTreeMap<u32, u32> = BTreeMap::new();
            for event in machine.done(&line).lines() {
                let event: Value = serde_json::from_str(event).unwrap();
                let said = event["message"].as_str().unwrap();
                *times.entry(number_in(said, lot)).or_default() += 1;
            }
            let wrong: Vec<_> = (1..=self.lines_a_lot)
                .map(|number| (number, times.remove(&number).unwrap_or(0)))
                .filter(|(_, count)| *count != 1)
                .collect();
            assert!(wrong.is_empty() && times.is_empty(), "lot {lot}: {wrong:?}, and {times:?}");
        }
    }
}

/// `booted lot3x 17 end` → 17.
fn number_in(said: &str, lot: u32) -> u32 {
    let after =
        said.strip_prefix(&format!("booted lot{lot}x ")).and_then(|rest| rest.split(' ').next());
    after.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

/// How often systemd has started it again.
fn restarts(machine: &Booted, unit: &str) -> u32 {
    machine.show(unit, "NRestarts").parse().unwrap()
}

fn pid(machine: &Booted, unit: &str) -> String {
    machine.show(unit, "MainPID")
}

fn wait_active(machine: &Booted, unit: &str) {
    let _active = machine.until("it is active", PATIENCE, &format!("systemctl is-active {unit}"));
}

#[test]
fn packages_serve_from_installation_to_purge_and_no_line_is_lost_or_doubled() {
    let packages = match packages() {
        Ok(packages) => packages,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let world = World::new("booted");
    let Some(host) = Machine::new(&world) else { return };
    for package in &packages {
        host.put(package, PACKAGES);
    }
    let unlimited = world.path("unlimited.conf");
    std::fs::write(
        &unlimited,
        "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\nAudit=\nReadKMsg=no\n",
    )
    .unwrap();
    host.put(&unlimited, "/etc/systemd/journald.conf.d");
    let mut load = Load { lots: 0, lines_a_lot: if is_long() { 900 } else { 300 } };

    let machine = host.boot();
    install(&machine);
    first_event(&machine);
    rights(&machine);
    killed(&machine, &mut load);
    hung(&machine, &mut load);
    reloaded(&machine, &mut load);
    load.expect_exactly_once(&machine);
    // What is written while the agent is down, and in the shutdown, is read after it.
    machine.done(&format!("systemctl stop {AGENT}"));
    load.write(&machine);
    machine.shut_down();

    let machine = host.boot();
    wait_active(&machine, AGENT);
    load.write(&machine);
    load.expect_exactly_once(&machine);
    upgraded(&machine, &mut load);
    load.expect_exactly_once(&machine);
    quiet(&machine);
    removed_and_purged(&machine);
    machine.shut_down();
}

/// dpkg installs; the collector listens at once, the agent waits to be told where it is.
fn install(machine: &Booted) {
    // An image for containers forbids packages to start their services; this is a machine.
    machine.done("rm -f /usr/sbin/policy-rc.d");
    machine.done(&format!("dpkg -i {PACKAGES}/*.deb"));
    wait_active(machine, COLLECTOR);
    assert_eq!(machine.show(AGENT, "ActiveState"), "inactive");
    for user in ["custody-agent", "custody-collector"] {
        machine.done(&format!("getent passwd {user}"));
    }
    for page in ["custody-agent", "custody-agent-run", "custody-collector-search", "custody-verify"]
    {
        machine.done(&format!("gzip -dc /usr/share/man/man1/{page}.1.gz | grep -q '^\\.TH'"));
    }
    machine.done("bash -n /usr/share/bash-completion/completions/custody-agent");
    machine.done("custody-verify --version");
}

/// The README's way to the first event; a failed login over ssh and a sudo are found.
fn first_event(machine: &Booted) {
    let began = Instant::now();
    machine.done(
        "install -o custody-agent -m 600 /var/lib/custody-collector/enroll.token /etc/custody/",
    );
    machine.done(&format!("systemctl enable --now {AGENT}"));
    let sshd = machine.sh("test -x /usr/sbin/sshd && test -x /usr/bin/ssh").code == Some(0);
    if sshd {
        machine.done("systemctl start ssh.service");
        let said = machine.sh(
            "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null mallory@127.0.0.1 true",
        );
        assert_eq!(said.code, Some(255), "nobody may come in: {said:#?}");
        let found = machine.until(
            "the failed login is found",
            PATIENCE,
            "custody-collector search 'action:authentication.login outcome:failure actor:mallory' | grep mallory",
        );
        eprintln!(
            "from the enrolment to the failed login found: {:.1} s\n{found}",
            began.elapsed().as_secs_f32()
        );
    } else {
        eprintln!("skipped: no ssh server, so no failed login");
    }
    if machine.sh("test -x /usr/bin/sudo").code == Some(0) {
        machine.done("sudo /usr/bin/true");
        let refused = machine.sh("runuser -u nobody -- sudo -n /usr/bin/true");
        assert_ne!(refused.code, Some(0), "{refused:#?}");
        let line =
            "custody-collector search 'input:rights service:sudo actor:root' | grep /usr/bin/true";
        eprintln!("{}", machine.until("the sudo is found", PATIENCE, line));
    } else {
        eprintln!("skipped: no sudo");
    }
}

/// Not root, no capability, nothing that it could gain; and what systemd thinks of the units.
fn rights(machine: &Booted) {
    for unit in [AGENT, COLLECTOR] {
        let status = machine.done(&format!("cat /proc/{}/status", pid(machine, unit)));
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("{key} in {status}")).trim().to_owned()
        };
        assert!(!value("Uid:").starts_with("0\t"), "{unit}: {status}");
        assert_eq!(value("CapBnd:"), "0000000000000000", "{unit}");
        assert_eq!((value("NoNewPrivs:"), value("Seccomp:")), ("1".into(), "2".into()), "{unit}");
        let judged = machine.done(&format!(
            "systemd-analyze security --offline=yes --threshold=20 /lib/systemd/system/{unit} | tail -1"
        ));
        eprintln!("{}", judged.trim());
    }
}

/// kill -9 of each, under load.
fn killed(machine: &Booted, load: &mut Load) {
    for unit in [AGENT, COLLECTOR] {
        let before = restarts(machine, unit);
        let lot = load.begin(machine);
        machine.done(&format!("systemctl kill --kill-whom=main -s KILL {unit}"));
        let line = format!(
            "test $(systemctl show --value -p NRestarts {unit}) -gt {before} && systemctl is-active {unit}"
        );
        let _again = machine.until("it is started again after kill -9", PATIENCE, &line);
        Load::wait(machine, lot);
    }
}

/// An agent that does nothing any more is ended by the watchdog and started again.
fn hung(machine: &Booted, load: &mut Load) {
    machine.done(&format!(
        "mkdir -p /run/systemd/system/{AGENT}.d && printf '[Service]\\nWatchdogSec=3s\\n' \
         >/run/systemd/system/{AGENT}.d/quick.conf && systemctl daemon-reload && systemctl restart {AGENT}"
    ));
    let lot = load.begin(machine);
    let stopped = pid(machine, AGENT);
    machine.done(&format!("kill -STOP {stopped}"));
    let line = format!(
        "p=$(systemctl show --value -p MainPID {AGENT}); test $p != 0 && test $p != {stopped} && systemctl is-active {AGENT}"
    );
    let _again = machine.until("the watchdog has it started again", PATIENCE, &line);
    machine.done(&format!("journalctl -u {AGENT} --no-pager | grep -q 'Watchdog timeout'"));
    machine.done(&format!(
        "rm -r /run/systemd/system/{AGENT}.d; systemctl daemon-reload; systemctl restart {AGENT}"
    ));
    Load::wait(machine, lot);
}

/// A reload takes the new configuration, and refuses a wrong one, without a new process.
fn reloaded(machine: &Booted, load: &mut Load) {
    let same = pid(machine, AGENT);
    let lot = load.begin(machine);
    for place in ["north", "south", "west"] {
        machine.done("cp /etc/custody/agent.yaml /etc/custody/agent.yaml.old");
        machine.done(&format!(
            "sed -i -e '/^labels:/d' -e '1a labels: {{ place: {place} }}' /etc/custody/agent.yaml"
        ));
        machine.done(&format!("systemctl reload {AGENT}"));
        let line = "test \"$(custody-agent status --json | grep -o '\"config_sha256\":\"[0-9a-f]*\"' | cut -d'\"' -f4)\" \
             = \"$(sha256sum /etc/custody/agent.yaml | cut -d' ' -f1)\"";
        let _loaded = machine.until("the new configuration is in force", PATIENCE, line);
    }
    machine.done(
        "cp /etc/custody/agent.yaml /root/good.yaml; echo 'sourcs: []' >>/etc/custody/agent.yaml",
    );
    machine.done(&format!("systemctl reload {AGENT}"));
    let _said = machine.until(
        "the refusal is said",
        PATIENCE,
        &format!("journalctl -u {AGENT} --no-pager | grep 'unknown key .sourcs.'"),
    );
    machine.done("cp /root/good.yaml /etc/custody/agent.yaml");
    Load::wait(machine, lot);
    assert_eq!(pid(machine, AGENT), same, "a reload is no restart");
}

/// A newer package, while the spool holds what the collector has not taken.
fn upgraded(machine: &Booted, load: &mut Load) {
    machine.done(&format!("systemctl stop {COLLECTOR}"));
    load.write(machine);
    let _held = machine.until(
        "the spool holds blocks",
        PATIENCE,
        "custody-agent status --json | grep -o '\"blocks\":[0-9]*' | grep -v ':0$'",
    );
    machine.done(&format!(
        "cd /root && rm -rf newer && dpkg-deb -R {PACKAGES}/custody-agent_*.deb newer && \
         sed -i 's/^Version: .*/Version: 99.0-1/' newer/DEBIAN/control && dpkg-deb -Zgzip -z1 -b newer newer.deb"
    ));
    let before = pid(machine, AGENT);
    machine.done("dpkg -i /root/newer.deb");
    machine.done("grep -q '^labels: { place: west }' /etc/custody/agent.yaml");
    wait_active(machine, AGENT);
    assert_ne!(pid(machine, AGENT), before, "an upgrade runs the new program");
    machine.done(&format!("systemctl start {COLLECTOR}"));
    wait_active(machine, COLLECTOR);
}

/// Nothing that the services do is refused by their own units.
fn quiet(machine: &Booted) {
    let said = machine.done(&format!("journalctl -b -u {AGENT} -u {COLLECTOR} --no-pager -o cat"));
    for word in ["Operation not permitted", "EPERM", "panicked", "bad system call"] {
        assert!(!said.contains(word), "{word} in:\n{said}");
    }
}

/// Removing keeps state and configuration, purging neither.
fn removed_and_purged(machine: &Booted) {
    let state = "/var/lib/custody-agent /var/lib/custody-collector /etc/custody/agent.yaml /etc/custody/collector.yaml";
    machine.done("dpkg -r custody-agent custody-collector");
    for unit in [AGENT, COLLECTOR] {
        assert_ne!(machine.sh(&format!("systemctl is-active {unit}")).code, Some(0), "{unit}");
    }
    machine.done(&format!("ls -d {state}"));
    machine.done("rm -f /etc/custody/enroll.token /etc/custody/agent.yaml.old");
    machine.done("dpkg -P custody-agent custody-collector custody-verify");
    for path in state.split(' ').chain(["/etc/custody", "/usr/bin/custody-agent"]) {
        assert_ne!(machine.sh(&format!("test -e {path}")).code, Some(0), "{path} is left");
    }
}
