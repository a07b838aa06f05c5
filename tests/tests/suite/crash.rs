//! Agent and collector killed with -9 at random instants while the log grows and is rotated in
//! three ways: each line is held exactly once, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use custody_tests::logfile::Form;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rng, Rotation, World, is_long, query};

/// The campaign's size.
struct Size {
    lines: u64,
    agent_kills: usize,
    collector_kills: usize,
    rotations: usize,
    /// Lines of one burst, at most.
    burst: u64,
}

const LONG: Size =
    Size { lines: 1_000_000, agent_kills: 50, collector_kills: 20, rotations: 30, burst: 1_500 };
const SHORT: Size =
    Size { lines: 60_000, agent_kills: 8, collector_kills: 4, rotations: 6, burst: 200 };

/// A pause between bursts, at most: spreads the campaign over time, so that kills meet every
/// stage of the way.
const PAUSE_MS: u64 = 70;

#[derive(Debug, Clone, Copy)]
enum Act {
    KillAgent,
    StartAgent,
    KillCollector,
    StartCollector,
    Rotate(Rotation),
}

#[test]
fn every_line_is_held_exactly_once_while_both_are_killed_and_the_log_rotates() {
    let world = World::new("crash");
    let size = if is_long() { LONG } else { SHORT };
    let mut rng = world.rng();
    let mut collector = Collector::started(&world, "collector");
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(rng.bits()));
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let mut agent = Agent::started(&world, "agent", &spec);

    let plan = plan(&size, &mut rng);
    let mut due = plan.into_iter().peekable();
    while log.written() < size.lines {
        let burst = rng.between(1, size.burst).min(size.lines - log.written());
        log.append(burst);
        while let Some((_, act)) = due.next_if(|(line, _)| *line <= log.written()) {
            perform(act, &mut agent, &mut collector, &mut log);
        }
        std::thread::sleep(Duration::from_millis(rng.between(0, PAUSE_MS)));
    }
    log.flush();
    for (_, act) in due {
        perform(act, &mut agent, &mut collector, &mut log);
    }

    settle(&world, &mut agent, &mut collector, &log);
    prove(&world, &mut agent, &mut collector, &log);
}

/// What happens at which line. Each kill is followed by a start after some more lines, so that
/// the log also grows and rotates while a program is down.
fn plan(size: &Size, rng: &mut Rng) -> Vec<(u64, Act)> {
    let mut plan: BTreeMap<u64, Vec<Act>> = BTreeMap::new();
    let mut put = |line: u64, act| plan.entry(line).or_default().push(act);
    for (kills, kill, start) in [
        (size.agent_kills, Act::KillAgent, Act::StartAgent),
        (size.collector_kills, Act::KillCollector, Act::StartCollector),
    ] {
        let lines = rng.spread(kills, 1, size.lines);
        for (at, next) in lines.iter().zip(lines.iter().skip(1).chain([&size.lines])) {
            put(*at, kill);
            put(*at + rng.between(0, (next - at) / 3), start);
        }
    }
    for (at, number) in rng.spread(size.rotations, 1, size.lines).into_iter().zip(0..) {
        put(at, Act::Rotate(Rotation::ALL[number % Rotation::ALL.len()]));
    }
    plan.into_iter().flat_map(|(line, acts)| acts.into_iter().map(move |act| (line, act))).collect()
}

fn perform(act: Act, agent: &mut Agent, collector: &mut Collector, log: &mut LogFile) {
    match act {
        Act::KillAgent => agent.kill(),
        Act::StartAgent => agent.start(),
        Act::KillCollector => collector.kill(),
        Act::StartCollector => collector.start(),
        Act::Rotate(how) => log.rotate(how),
    }
}

fn settle(world: &World, agent: &mut Agent, collector: &mut Collector, log: &LogFile) {
    collector.wait_ready();
    agent.wait_ready();
    collector.wait_for_lines(log.written());
    let status = agent.wait_idle();
    assert_eq!(status.output()["trouble"], serde_json::Value::Null, "{status:#?}");
    query::expect_exactly_once(collector, log, world.patience());
}

fn prove(world: &World, agent: &mut Agent, collector: &mut Collector, log: &LogFile) {
    assert_eq!(agent.stop().code(), Some(0));
    let tally = collector.tally();
    eprintln!("{}: {}", world.dir().display(), tally.summary());
    tally.expect_exactly_once(log);
    tally.expect_others(&[]);
    tally.expect_no_gaps();
    tally.expect_balanced_books();
    assert_eq!(tally.streams(), 1, "no kill makes an agent forget its stream");
    assert_eq!(tally.held, 0, "nothing was sent twice under another name");
    assert_eq!(collector.stop().code(), Some(0));
    collector.verify().expect(0, &[]);
}
