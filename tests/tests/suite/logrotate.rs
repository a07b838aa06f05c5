//! The real logrotate: create, copytruncate, compress at once and later, with the agent up, down
//! and killed.

use std::path::{Path, PathBuf};
use std::process::Command;

use custody_tests::logfile::Form;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, World};

/// How often each configuration rotates.
const ROUNDS: usize = 6;

/// One way in which people configure it.
struct Way {
    name: &'static str,
    /// Directives.
    says: &'static str,
    /// The file is emptied in place.
    empties: bool,
}

const WAYS: [Way; 5] = [
    Way { name: "create", says: "create", empties: false },
    Way { name: "compress", says: "create\ncompress", empties: false },
    Way { name: "delaycompress", says: "create\ncompress\ndelaycompress", empties: false },
    Way {
        name: "dateext",
        says: "create\ncompress\ndateext\ndateformat -%Y%m%d-%s",
        empties: false,
    },
    Way { name: "copytruncate", says: "copytruncate\ncompress\ndelaycompress", empties: true },
];

/// Where it is installed; it is rarely on a user's PATH.
fn logrotate() -> Option<PathBuf> {
    ["/usr/sbin/logrotate", "/sbin/logrotate", "/usr/bin/logrotate"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
}

fn rotate(program: &Path, world: &World, way: &Way, log: &Path) {
    let config = world.path(&format!("{}.conf", way.name));
    let text = format!(
        "{} {{\n rotate 20\n missingok\n su {} {}\n {}\n}}\n",
        log.display(),
        id("-un"),
        id("-gn"),
        way.says
    );
    std::fs::write(&config, text).unwrap();
    let state = world.path(&format!("{}.state", way.name));
    let output = Command::new(program)
        .arg("--force")
        .arg("--state")
        .args([&state, &config])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", way.name);
}

fn id(what: &str) -> String {
    let output = Command::new("id").arg(what).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn logrotate_loses_and_repeats_nothing_however_it_is_configured() {
    let Some(program) = logrotate() else {
        println!("skipped: logrotate absent");
        return;
    };
    for way in &WAYS {
        let world = World::new("logrotate");
        let collector = Collector::started(&world, "collector");
        let folder = format!("logs-{}", way.name);
        let mut log =
            LogFile::create(&world.path(&format!("{folder}/app.log")), Form::Mixed, world.rng());
        let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
        let mut agent = Agent::started(&world, "agent", &spec);
        for round in 0..ROUNDS {
            log.append(300);
            match round % 3 {
                0 => {}
                1 => assert_eq!(agent.stop().code(), Some(0)),
                _ => agent.kill(),
            }
            log.append(300);
            log.flush();
            // Nothing is written while it runs: what stands between a copy and its emptying is lost
            // by design.
            log.rotated_by(|path| rotate(&program, &world, way, path));
            log.append(100);
            if round % 3 != 0 {
                agent.start();
            }
            log.append(100);
            log.flush();
            collector.wait_for_lines(log.written());
            // Two rotations within a second have the same date, and logrotate then skips one.
            if way.says.contains("dateext") {
                wait_for_the_next_second();
            }
        }
        agent.wait_ready();
        let _idle = agent.wait_idle();
        assert_eq!(agent.stop().code(), Some(0));
        let tally = collector.tally();
        tally.expect_exactly_once(&log);
        tally.expect_others(&[]);
        tally.expect_no_gaps();
        tally.expect_balanced_books();
        let emptied = tally.own("gap.record").len();
        assert_eq!(emptied > 0, way.empties, "{}: {}", way.name, tally.summary());
    }
}

fn wait_for_the_next_second() {
    use custody_event::Clock;
    let clock = custody_event::SystemClock::new();
    let now = clock.now().micros() / 1_000_000;
    custody_tests::until("the next second", std::time::Duration::from_secs(5), || {
        (clock.now().micros() / 1_000_000 > now).then_some(())
    });
}
