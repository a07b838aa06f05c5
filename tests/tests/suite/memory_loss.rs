//! The agent's data directory deleted in the middle, or put back from an older copy: the
//! collector still holds each line exactly once.

use std::path::Path;
use std::process::Command;

use custody_tests::logfile::Form;
use custody_tests::process::run;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rng, Rotation, World, is_long, query};

struct Scene {
    collector: Collector,
    agent: Agent,
    log: LogFile,
    rng: Rng,
}

impl Scene {
    fn begin(world: &World) -> Self {
        let mut rng = world.rng();
        let collector = Collector::started(world, "collector");
        let log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(rng.bits()));
        let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
        let agent = Agent::started(world, "agent", &spec);
        Self { collector, agent, log, rng }
    }

    /// Writes, and waits until a part of it is held and the rest is somewhere on the way.
    fn write_and_meet_on_the_way(&mut self) {
        self.write_and_deliver();
        let lines = self.rng.between(500, 4000);
        self.log.append(lines);
        let some = self.rng.between(1, lines);
        self.collector.wait_for_lines(self.log.on_disk().saturating_sub(some));
    }

    fn write_and_deliver(&mut self) {
        let lines = self.rng.between(500, 4000);
        self.log.append(lines);
        self.log.flush();
        self.collector.wait_for_lines(self.log.written());
    }

    fn forget(&mut self) {
        std::fs::remove_dir_all(&self.agent.data_dir).unwrap();
    }

    fn restart(&mut self) {
        self.agent.start();
        self.agent.wait_ready();
    }

    /// Everything is delivered; counts it. `others`: records without a number.
    fn prove(mut self, world: &World, others: &[(&[u8], usize)]) {
        self.log.flush();
        self.collector.wait_for_lines(self.log.written());
        let _idle = self.agent.wait_idle();
        query::wait_for_line(&self.collector, self.log.written() - 1, world.patience());
        let tally = self.collector.tally();
        eprintln!("{}: {}", world.dir().display(), tally.summary());
        tally.expect_exactly_once(&self.log);
        tally.expect_others(others);
        tally.expect_balanced_books();
        tally.expect_no_gaps();
        assert!(
            tally.streams() > 1 && tally.held > 0,
            "nothing was forgotten: {}",
            tally.summary()
        );
        let found = query::all(&self.collector, "input:app").len() as u64;
        let expected =
            self.log.written() + others.iter().map(|(_, count)| *count as u64).sum::<u64>();
        assert_eq!(found, expected, "a search counts each line once");
        assert_eq!(self.agent.stop().code(), Some(0));
        assert_eq!(self.collector.stop().code(), Some(0));
        self.collector.verify().expect(0, &[]);
    }
}

#[test]
fn an_agent_whose_data_directory_was_deleted_again_and_again_counts_no_line_twice() {
    let world = World::new("memory_loss_deleted");
    let mut scene = Scene::begin(&world);
    for _ in 0..if is_long() { 20 } else { 4 } {
        scene.write_and_meet_on_the_way();
        scene.agent.kill();
        scene.forget();
        let lines = scene.rng.between(0, 500);
        scene.log.append(lines);
        scene.restart();
    }
    scene.prove(&world, &[]);
}

#[test]
fn an_agent_restored_from_an_older_copy_counts_no_line_twice() {
    let world = World::new("memory_loss_restored");
    let mut scene = Scene::begin(&world);
    let backup = world.path("backup");
    for round in 0..if is_long() { 10 } else { 3 } {
        scene.write_and_deliver();
        assert_eq!(scene.agent.stop().code(), Some(0));
        copy_tree(&scene.agent.data_dir, &backup);
        scene.restart();
        scene.write_and_meet_on_the_way();
        // A restore comes after a crash, or after an orderly stop.
        if round % 2 == 0 {
            scene.agent.kill();
        } else {
            assert_eq!(scene.agent.stop().code(), Some(0));
        }
        scene.forget();
        std::fs::rename(&backup, &scene.agent.data_dir).unwrap();
        scene.restart();
    }
    scene.prove(&world, &[]);
}

/// The trap: the new content begins with the same bytes as the old one did. They are new records.
#[test]
fn a_truncated_log_that_begins_again_with_the_same_line_is_new_even_to_an_agent_without_memory() {
    const HEADER: &[u8] = b"# application log, format 3";
    let header = [HEADER, b"\n"].concat();
    let world = World::new("memory_loss_truncated");
    let mut scene = Scene::begin(&world);
    scene.log.append_raw(&header);
    let mut headers = 1;
    for agent_sees_it in [true, false, true] {
        scene.write_and_deliver();
        let _idle = scene.agent.wait_idle();
        if !agent_sees_it {
            scene.agent.kill();
            scene.forget();
        }
        scene.log.rotate(Rotation::CopyTruncate);
        scene.log.append_raw(&header);
        headers += 1;
        if agent_sees_it {
            scene.write_and_deliver();
            scene.agent.kill();
            scene.forget();
        }
        let lines = scene.rng.between(500, 2000);
        scene.log.append(lines);
        scene.restart();
    }
    scene.prove(&world, &[(HEADER, headers)]);
}

fn copy_tree(from: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(from).arg(to);
    run(copy).expect(0, &[]);
}
