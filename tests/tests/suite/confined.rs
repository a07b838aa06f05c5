//! The agent confines itself to what its configuration names: shown with a file that its user may read, and that it cannot.

use std::path::Path;

use custody_tests::logfile::Form;
use custody_tests::wait::until;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rng, World};
use serde_json::Value;

/// Every event that the collector holds of this source.
fn events(collector: &Collector, source: &str) -> Vec<Value> {
    let path = format!("/v1/events?q=input:{source}&limit=100");
    let answer = collector.try_get(&path).unwrap().json();
    answer["events"].as_array().cloned().unwrap_or_default()
}

/// `None` where this kernel has no Landlock.
fn confined(agent: &Agent) -> Option<()> {
    let said = std::fs::read_to_string(&agent.stderr).unwrap();
    if said.contains("no Landlock") {
        eprintln!("skipped: this kernel has no Landlock");
        return None;
    }
    assert!(said.contains("confined by Landlock"), "{said}");
    Some(())
}

#[test]
fn the_running_agent_cannot_read_what_its_configuration_does_not_name() {
    let world = World::new("confined");
    let collector = Collector::started(&world, "collector");
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(7));
    // Beside the world, and readable for everybody.
    let outside = tempfile::tempdir().unwrap();
    let hidden = outside.path().join("hidden.log");
    std::fs::write(&hidden, "what nobody named\n").unwrap();
    let link = world.path("logs/link.log");
    std::os::unix::fs::symlink(&hidden, &link).unwrap();
    let mut spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let linked = |path: &Path| ("linked".to_owned(), vec![path.display().to_string()]);
    spec.sources.push(linked(&link));
    let mut agent = Agent::started(&world, "agent", &spec);
    if confined(&agent).is_none() {
        return;
    }
    log.append(100);
    log.flush();
    collector.wait_for_lines(log.written());
    let stuck = agent.wait_status("it says that it may not read it", |status| {
        status.source("linked")["trouble"]
            .as_str()
            .is_some_and(|why| why.contains("hidden.log") || why.contains("link.log"))
    });
    assert_eq!(stuck.source("linked")["since_start"]["read"], 0, "{stuck:#?}");
    let said = std::fs::read_to_string(&agent.stderr).unwrap();
    assert!(
        said.contains("which this agent may not read (hint: add `sandbox: { read: ["),
        "{said}"
    );
    assert_eq!(events(&collector, "linked"), Vec::<Value>::new());

    // A reload cannot open what the start has closed; it says so, and the old configuration stays.
    spec.sources[1] = linked(&hidden);
    agent.configure(&spec);
    agent.reload();
    let refused = agent.wait_status("the reload is refused", |status| {
        status.0["config_refusals"].as_u64() == Some(1)
    });
    let why = refused.0["config_trouble"].as_str().unwrap();
    assert!(why.contains("source linked") && why.contains("restart custody-agent"), "{why}");

    // As it says: a restart opens it, for the file is named now.
    assert_eq!(agent.stop().code(), Some(0));
    agent.start();
    agent.wait_ready();
    until("what is named is read", world.patience(), || {
        (events(&collector, "linked").len() == 1).then_some(())
    });
    assert_eq!(agent.stop().code(), Some(0));

    // And without the sandbox the link leads where it leads.
    std::fs::write(&hidden, "what nobody named\nand more\n").unwrap();
    spec.sources[1] = linked(&link);
    spec.extra = "sandbox: { landlock: off }\n".to_owned();
    agent.configure(&spec);
    agent.start();
    agent.wait_ready();
    until("the link is followed", world.patience(), || {
        (events(&collector, "linked").len() == 2).then_some(())
    });
    assert_eq!(agent.stop().code(), Some(0));
}
