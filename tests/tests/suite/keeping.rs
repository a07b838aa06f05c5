//! What is kept over the years: a collector with classes of retention, an archive, a hold and an
//! erasure, killed with -9 at random while lines come in, events expire, segments are archived and
//! put back, and backups are taken. Its clock is set ahead between the chapters. At each chapter's
//! end a search finds exactly what must stay; at the end the bytes of what must be gone are in no
//! file, block or term, and everything verifies.

use std::path::{Path, PathBuf};
use std::time::Duration;

use custody_evidence::verify::{Trust, verify_dir};
use custody_tests::evidence::is_on_disk;
use custody_tests::logfile::{Form, class_of, word};
use custody_tests::wait::until;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rng, World, is_long, query};
use serde_json::Value;

struct Scene {
    world: World,
    rng: Rng,
    collector: Collector,
    agent: Agent,
    log: LogFile,
    first: PathBuf,
    second: PathBuf,
    /// Lines of a burst.
    burst: u64,
    kills: u32,
    backups: Vec<PathBuf>,
}

/// Lines by the chapter in which they came: from, to.
type Chapter = (u64, u64);

fn scene() -> Scene {
    let world = World::new("keeping");
    let mut rng = world.rng();
    let mut collector = Collector::new(&world, "collector");
    let yaml = format!(
        "blocks: {{ type: local, segment_bytes: 1MiB }}\n\
         retention:\n  minimum: 90d\n  default: 400d\n  classes:\n  \
         - {{ severity: [critical], keep: 3y }}\n  \
         - {{ category: [access], keep: 90d }}\n  \
         - {{ category: [custody], keep: forever }}\n\
         archive: {{ type: dir, path: {}, after: 30d }}\n\
         space: {{ archive_below: 1MiB }}\n",
        archive(&world).join("evidence").display()
    );
    collector.configure(&world, &yaml, false);
    collector.start();
    collector.wait_ready();
    let log = LogFile::create(&world.path("logs/app.log"), Form::Classed, Rng::new(rng.bits()));
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let agent = Agent::started(&world, "agent", &spec);
    let first = collector.data_dir.join("admin.token");
    let second = collector.second_admin(&world);
    let (burst, kills) = if is_long() { (600, 12) } else { (250, 2) };
    let backups = Vec::new();
    Scene { world, rng, collector, agent, log, first, second, burst, kills, backups }
}

fn archive(world: &World) -> PathBuf {
    world.path("archive")
}

fn expect_whole(dir: &Path) {
    let report = verify_dir(dir, &Trust::default()).unwrap();
    assert!(report.problems.is_empty(), "{}", report.to_text());
}

/// As a kill has left it. An agent may have been shown, and have cosigned, more entries than the checkpoint
/// on the disk names: the next start makes them again from the blocks behind it.
fn expect_whole_but_for_the_start(dir: &Path) {
    let report = verify_dir(dir, &Trust::default()).unwrap();
    let ahead =
        |text: &str| text.contains("the cosignature of agent") && text.contains("it was shown");
    let wrong = report.problems.iter().any(|problem| !ahead(&problem.text));
    assert!(!wrong, "{}", report.to_text());
}

impl Scene {
    /// Lines come in, `work` runs beside them, and the collector is killed; again and again.
    fn shake(&mut self, work: impl Fn(&Self) -> Vec<String>) {
        for _ in 0..self.kills {
            let args = work(self);
            let beside =
                std::thread::spawn(move || (!args.is_empty()).then(|| Collector::cli(&args)));
            for _ in 0..4 {
                self.log.append(self.burst);
                std::thread::sleep(Duration::from_millis(self.rng.between(0, 120)));
            }
            self.collector.kill();
            // What runs beside may fail with the collector; it is asked for again.
            let _said = beside.join().unwrap();
            expect_whole_but_for_the_start(&self.collector.data_dir);
            self.collector.start();
            self.collector.wait_ready();
        }
    }

    fn asked(&self, args: &[&str]) -> Vec<String> {
        self.collector.asking(args, &self.first)
    }

    fn nothing(_: &Self) -> Vec<String> {
        Vec::new()
    }

    fn backing_up(&self, number: usize) -> Vec<String> {
        let to = self.world.path(&format!("backup-{number}"));
        let data_dir = self.collector.data_dir.display().to_string();
        ["backup", "--data-dir", &data_dir, &to.display().to_string()].map(ToOwned::to_owned).into()
    }

    /// Everything that was written is in evidence and can be found.
    fn settle(&mut self, from: u64) -> Chapter {
        self.log.flush();
        let _idle = self.agent.wait_idle();
        query::wait_for_line(&self.collector, self.log.written() - 1, self.world.patience());
        (from, self.log.written())
    }

    /// A search finds these lines, each once, and no other.
    fn expect(&self, what: &str, stays: impl Fn(u64) -> bool) {
        let wanted: Vec<u64> = (0..self.log.written()).filter(|number| stays(*number)).collect();
        let mut found = Vec::new();
        let come = custody_tests::eventually(self.world.patience(), || {
            found = query::numbers(&self.collector, "input:app");
            (found == wanted).then_some(())
        });
        let wrong = found.iter().zip(&wanted).find(|(found, wanted)| found != wanted);
        assert!(
            come.is_some(),
            "{what}: {} lines found, {} must stay; the first that differs: {wrong:?}",
            found.len(),
            wanted.len()
        );
    }

    fn days_ahead(&mut self, days: u32) {
        assert_eq!(self.collector.stop().code(), Some(0));
        expect_whole(&self.collector.data_dir);
        self.collector.days_ahead = days;
        self.collector.start();
        self.collector.wait_ready();
    }

    /// Erases what `q` finds, by two people, the collector killed meanwhile.
    fn erase(&mut self, q: &str) {
        let asked = self.collector.ask(&["erase", "--q", q, "--reason", "request 1"], &self.first);
        asked.expect(0, &["\"matched\""]);
        let answer: Value = serde_json::from_str(&asked.out).unwrap();
        let id = answer["erasure"]["id"].as_i64().unwrap().to_string();
        self.collector.ask(&["erase", "approve", &id], &self.second).expect(0, &["approved"]);
        self.shake(Self::nothing);
        until("the erasure is done", self.world.patience(), || {
            let row = self.collector.try_get(&format!("/v1/erasures/{id}")).ok()?;
            (row.status == 200 && row.json()["status"] == "done").then_some(())
        });
    }
}

fn is(number: u64, user: &str) -> bool {
    class_of(number).0 == user
}

#[test]
fn what_must_stay_stays_and_what_must_go_is_gone_though_the_collector_is_killed_over_the_years() {
    let mut scene = scene();
    let hold = ["hold", "add", "--name", "case 7", "--q", "actor:dora", "--reason", "case 7"];
    scene.collector.ask(&hold, &scene.first).expect(0, &[]);
    scene.log.append(scene.burst * 16);
    scene.shake(Scene::nothing);
    let (_, early) = scene.settle(0);
    scene.expect("nothing has expired yet", |_| true);

    // After 91 days: what is kept for 90 goes, but for what is on hold; all is archived before.
    scene.days_ahead(91);
    for number in 0..2 {
        let kills = std::mem::replace(&mut scene.kills, 1);
        scene.shake(|scene| scene.backing_up(number));
        scene.kills = kills;
        scene.backups.push(scene.world.path(&format!("backup-{number}")));
    }
    let (_, later) = scene.settle(early);
    scene.expect("91 days later", |n| n >= early || !is(n, "ann"));
    // A person's events, in search and in the archive; of later days there are none of hers yet.
    scene.erase(&format!("actor:erin to:{}", now()));
    let erased = |n: u64| n < later && is(n, "erin");
    let (_, late) = scene.settle(later);
    scene.expect("erin is erased", |n| !erased(n) && (n >= early || !is(n, "ann")));

    // After 401 days: the default goes, the critical stays, and so does the hold.
    scene.days_ahead(401);
    scene.shake(Scene::nothing);
    scene.settle(late);
    let old = |n: u64| {
        let first = n < early && (is(n, "ann") || is(n, "ben") || is(n, "erin"));
        first || n < late && is(n, "ann")
    };
    scene.expect("401 days later", |n| !erased(n) && !old(n));
    scene
        .collector
        .ask(&["hold", "release", "1", "--reason", "settled"], &scene.first)
        .expect(0, &[]);
    scene.shake(|scene| scene.asked(&["retention", "run"]));
    scene.settle(late);
    scene.collector.ask(&["retention", "run"], &scene.first).expect(0, &[]);
    let gone = |n: u64| erased(n) || old(n) || n < late && is(n, "dora");
    scene.expect("the hold is released", |n| !gone(n));

    // Everything that was archived comes back when asked, but for what was erased; and goes again.
    let all = ["archive", "restore", "--from", "2020-01-01", "--to", "2099-01-01"];
    scene.shake(|scene| scene.asked(&all));
    scene.settle(late);
    scene.collector.ask(&all, &scene.first).expect(0, &[]);
    scene.expect("the archive is restored", |n| !erased(n));
    scene.collector.ask(&["archive", "release"], &scene.first).expect(0, &[]);
    scene.shake(|scene| scene.asked(&["retention", "run"]));
    scene.settle(late);
    scene.collector.ask(&["retention", "run"], &scene.first).expect(0, &[]);
    scene.expect("the archive is released", |n| !gone(n));
    prove(scene, &gone, &erased);
}

fn now() -> String {
    use custody_event::Clock;
    custody_event::SystemClock::new().now().to_string()
}

fn prove(mut scene: Scene, gone: &dyn Fn(u64) -> bool, erased: &dyn Fn(u64) -> bool) {
    assert_eq!(scene.agent.stop().code(), Some(0));
    assert_eq!(scene.collector.stop().code(), Some(0));
    let data_dir = &scene.collector.data_dir;
    let shown = |is: &dyn Fn(u64) -> bool| {
        // From the beginning, the middle and the end; the very last lines were asked for by their words,
        // and what was asked is kept.
        let all: Vec<u64> = (0..scene.log.written()).filter(|number| is(*number)).collect();
        [0, 1, 2, 3, all.len() / 2, all.len() - 2].map(|at| all[at])
    };
    for number in shown(gone) {
        let word = word(number);
        assert!(!is_on_disk(data_dir, &word), "line {number} must be gone");
        assert!(!custody_collector::testing::index_has(data_dir, &word).unwrap(), "line {number}");
    }
    for number in shown(erased) {
        assert!(!is_on_disk(&archive(&scene.world), &word(number)), "line {number} in the archive");
    }
    let kept = |number: u64| !gone(number);
    for number in shown(&kept) {
        let word = word(number);
        assert!(is_on_disk(data_dir, &word), "the measure itself: line {number}");
        assert!(custody_collector::testing::index_has(data_dir, &word).unwrap(), "line {number}");
    }
    expect_whole(data_dir);
    scene.collector.verify().expect(0, &["0 problems"]);
    for backup in &scene.backups {
        expect_whole(backup);
    }
    let backup = scene.backups.last().unwrap().to_str().unwrap().to_owned();
    let restored = scene.world.path("restored");
    let said =
        Collector::cli(&["restore", "--data-dir", restored.to_str().unwrap(), backup.as_str()]);
    said.expect(0, &["is restored"]);
    expect_whole(&restored);
}
