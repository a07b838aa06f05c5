//! Each kind of rotation by itself, with the agent up, down, and killed in the middle.

use custody_tests::logfile::Form;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rng, Rotation, World};

/// What happens to the agent around the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Around {
    /// Nothing.
    Up,
    /// It is stopped before and started after.
    Down,
    /// It is killed before, with lines that it has not read, and started after.
    Killed,
}

#[test]
fn no_rotation_loses_or_repeats_a_line_whether_the_agent_sees_it_or_not() {
    let world = World::new("rotate");
    let collector = Collector::started(&world, "collector");
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, world.rng());
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let mut agent = Agent::started(&world, "agent", &spec);
    for around in [Around::Up, Around::Down, Around::Killed] {
        for how in Rotation::ALL {
            log.append(500);
            match around {
                Around::Up => {}
                Around::Down => assert_eq!(agent.stop().code(), Some(0)),
                Around::Killed => agent.kill(),
            }
            log.append(500);
            log.rotate(how);
            log.append(300);
            if around != Around::Up {
                agent.start();
            }
            log.append(200);
            log.flush();
            collector.wait_for_lines(log.written());
        }
    }
    let _idle = agent.wait_idle();
    assert_eq!(agent.stop().code(), Some(0));
    let tally = collector.tally();
    tally.expect_exactly_once(&log);
    tally.expect_others(&[]);
    tally.expect_no_gaps();
    tally.expect_balanced_books();
}

/// logrotate may run several times before an agent is started again.
#[test]
fn several_rotations_while_the_agent_is_down_are_all_read() {
    let world = World::new("rotate_several");
    let collector = Collector::started(&world, "collector");
    let mut rng = world.rng();
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(rng.bits()));
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let mut agent = Agent::started(&world, "agent", &spec);
    for _ in 0..2 {
        log.append(400);
        log.flush();
        collector.wait_for_lines(log.written());
        agent.kill();
        for how in Rotation::ALL {
            log.append(rng.between(1, 300));
            log.rotate(how);
        }
        log.append(100);
        log.flush();
        agent.start();
        agent.wait_ready();
        collector.wait_for_lines(log.written());
    }
    let _idle = agent.wait_idle();
    let tally = collector.tally();
    tally.expect_exactly_once(&log);
    tally.expect_no_gaps();
}
