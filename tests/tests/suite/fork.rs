//! A collector that was put back from an older copy: its agents notice, keep everything, send
//! nothing, say so; after the operator's signed word all goes on, and the fork stays visible.
//! Its data directory is verified by the library behind `custody-verify`, whole and with a flipped
//! byte.

use std::path::Path;
use std::process::Command;

use custody_evidence::verify::{Report, Trust, verify_dir};
use custody_tests::logfile::Form;
use custody_tests::process::run;
use custody_tests::wait::until;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rng, World, query};

fn copy_tree(from: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(from).arg(to);
    run(copy).expect(0, &[]);
}

fn verified(data_dir: &Path) -> Report {
    verify_dir(data_dir, &Trust::default()).unwrap()
}

fn append(log: &mut LogFile, lines: u64) {
    log.append(lines);
    log.flush();
}

/// Flips one bit in the middle of the newest segment.
fn flip(data_dir: &Path) -> String {
    let segments = custody_tests::Evidence::of(data_dir).segments();
    let path = segments.last().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_collector_restored_from_an_older_copy_is_refused_until_the_fork_is_accepted() {
    let world = World::new("fork_restored");
    let mut collector = Collector::started(&world, "collector");
    let mut log =
        LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(world.rng().bits()));
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let mut agent = Agent::started(&world, "agent", &spec);
    append(&mut log, 1000);
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();

    // Yesterday's copy, and a day that it does not know.
    assert_eq!(collector.stop().code(), Some(0));
    let backup = world.path("backup");
    copy_tree(&collector.data_dir, &backup);
    collector.start();
    collector.wait_ready();
    // A key that the copy does not know: the agent starts anew, and its key is replaced.
    assert_eq!(agent.stop().code(), Some(0));
    agent.start();
    agent.wait_ready();
    append(&mut log, 1500);
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    assert_eq!(collector.stop().code(), Some(0));
    std::fs::remove_dir_all(&collector.data_dir).unwrap();
    std::fs::rename(&backup, &collector.data_dir).unwrap();
    collector.start();
    collector.wait_ready();

    append(&mut log, 500);
    let refused = agent.wait_status("the collector is refused", |status| {
        status.output()["state"] == "refused" && status.spool()["blocks"].as_u64() > Some(0)
    });
    let shown = refused.output()["log_size"].as_u64().unwrap();
    assert!(shown > 0, "the agent keeps the newest checkpoint");
    let said = refused.output()["trouble"].as_str().unwrap().to_owned();
    for part in ["rolled back", "everything is kept", "accept-fork"] {
        assert!(said.contains(part), "{part:?}: {said}");
    }
    let held = query::numbers(&collector, "input:app").len();
    assert_eq!(held, 1000, "nothing is sent to a refused collector");

    // A restart does not make the agent forget.
    assert_eq!(agent.stop().code(), Some(0));
    agent.start();
    agent.wait_ready();
    let _refused =
        agent.wait_status("it is refused again", |status| status.output()["state"] == "refused");

    let data_dir = collector.data_dir.clone();
    let accept = || {
        let said = Collector::cli(&[
            "accept-fork".as_ref(),
            "--data-dir".as_ref(),
            data_dir.as_os_str(),
            "--reason".as_ref(),
            "restored from the copy of the day before".as_ref(),
        ]);
        (said.code == Some(0)).then_some(said)
    };
    let accepted = until("the agent has shown its checkpoint", world.patience(), accept);
    accepted.expect(0, &[&format!("the log had shown {shown} entries")]);
    query::wait_for_line(&collector, log.written() - 1, world.patience());
    until("every line is there, also those that the copy did not have", world.patience(), || {
        let numbers = query::numbers(&collector, "input:app");
        (numbers.len() as u64 >= log.written()).then_some(())
    });
    let _idle = agent.wait_idle();
    let expected: Vec<u64> = (0..log.written()).collect();
    assert_eq!(query::numbers(&collector, "input:app"), expected);

    // The fork stays visible: in the log, in the agent's own words, and to whoever verifies.
    let acts = collector.tally();
    let refusals = acts.own("collector.log.refuse");
    assert!(!refusals.is_empty() && !acts.own("collector.log.accept_fork").is_empty());
    let shown = collector.get("/v1/log?from=0");
    assert_eq!(shown["forks"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(collector.stop().code(), Some(0));
    collector.verify().expect(0, &["0 problems"]);
    let report = verified(&collector.data_dir);
    assert!(report.problems.is_empty(), "{}", report.to_text());
    let segment = flip(&collector.data_dir);
    let report = verified(&collector.data_dir);
    let text = report.to_text();
    assert!(!report.problems.is_empty() && text.contains(&segment), "{text}");
}

#[test]
fn an_agent_accepts_a_fork_by_itself_only_where_somebody_on_its_host_says_so() {
    let world = World::new("fork_accepted_here");
    let mut collector = Collector::started(&world, "collector");
    let mut log =
        LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(world.rng().bits()));
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let mut agent = Agent::started(&world, "agent", &spec);
    append(&mut log, 500);
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    // The log begins anew under another key: the collector's disk is lost, its tokens are not.
    assert_eq!(collector.stop().code(), Some(0));
    for name in ["tlog", "evidence", "index"] {
        std::fs::remove_dir_all(collector.data_dir.join(name)).unwrap();
    }
    collector.start();
    collector.wait_ready();
    append(&mut log, 500);
    let refused =
        agent.wait_status("it is refused", |status| status.output()["state"] == "refused");
    let said = refused.output()["trouble"].as_str().unwrap();
    assert!(said.contains("another key"), "{said}");
    let config = agent.config.clone();
    let accept = ["accept-fork", "--config", config.to_str().unwrap(), "--output", "central"];
    let said =
        Agent::cli(&[&accept[..], &["--reason", "the disk of the collector was lost"]].concat());
    said.expect(0, &["accepted"]);
    let patience = world.patience();
    until("every line is there", patience, || {
        let numbers = query::numbers(&collector, "input:app");
        (numbers.len() as u64 >= log.written()).then_some(())
    });
    let _idle = agent.wait_idle();
    let expected: Vec<u64> = (0..log.written()).collect();
    assert_eq!(query::numbers(&collector, "input:app"), expected);
    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(collector.stop().code(), Some(0));
    let report = verified(&collector.data_dir);
    assert!(report.problems.is_empty(), "{}", report.to_text());
}

#[test]
fn an_event_comes_with_a_proof_that_holds_without_the_collector() {
    let world = World::new("fork_proof");
    let collector = Collector::started(&world, "collector");
    let mut log =
        LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(world.rng().bits()));
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let agent = Agent::started(&world, "agent", &spec);
    append(&mut log, 300);
    query::wait_for_line(&collector, 299, world.patience());
    let found = query::all(&collector, "input:app");
    let id = found[17]["id"].as_str().unwrap();
    let answer = collector.get(&format!("/v1/events/{id}"));
    let proof = serde_json::to_vec(&answer["proof"]).unwrap();
    let vkey = std::fs::read_to_string(collector.data_dir.join("tlog/vkey")).unwrap();
    let vkey = vkey.trim_end().parse().unwrap();
    let proof = custody_evidence::proof::EventProof::from_json(&proof).unwrap();
    let proved = proof.verify(&vkey).unwrap();
    assert!(proved.event.contains(id));
    // Checkpoint and tiles are public, entries are not.
    let get = |path: &str| {
        custody_tests::http::request("GET", collector.address, path, None, b"").unwrap()
    };
    let note = get("/tlog/checkpoint");
    let note = String::from_utf8(note.body).unwrap();
    let head = custody_evidence::Checkpoint::open(&note, &vkey).unwrap().head;
    assert_eq!(get(&format!("/tlog/tile/0/000.p/{}", head.size)).status, 200);
    assert_eq!(get("/tlog/tile/0/000").status, 404);
    assert_eq!(get(&format!("/tlog/tile/entries/000.p/{}", head.size)).status, 401);
    let entries = collector.try_get(&format!("/tlog/tile/entries/000.p/{}", head.size)).unwrap();
    assert_eq!(entries.status, 200);
    drop(agent);
}

#[test]
fn keys_are_replaced_at_every_start_and_a_revoked_agent_is_heard_no_more() {
    let world = World::new("fork_keys");
    let mut collector = Collector::started(&world, "collector");
    let mut log =
        LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(world.rng().bits()));
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let mut agent = Agent::started(&world, "agent", &spec);
    let mut keys = std::collections::BTreeSet::new();
    for round in 0..4 {
        append(&mut log, 200);
        collector.wait_for_lines(log.written());
        let _idle = agent.wait_idle();
        keys.insert(std::fs::read_to_string(agent.data_dir.join("agent.key")).unwrap());
        // In order, and killed; with the collector up, and away.
        if round % 2 == 0 {
            agent.kill();
        } else {
            assert_eq!(agent.stop().code(), Some(0));
        }
        if round == 1 {
            assert_eq!(collector.stop().code(), Some(0));
            agent.start();
            agent.wait_ready();
            append(&mut log, 200);
            agent.kill();
            collector.start();
            collector.wait_ready();
        }
        agent.start();
        agent.wait_ready();
    }
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    assert_eq!(keys.len(), 4, "each start has its own key");
    query::wait_for_line(&collector, log.written() - 1, world.patience());
    let expected: Vec<u64> = (0..log.written()).collect();
    assert_eq!(query::numbers(&collector, "input:app"), expected);
    assert_eq!(collector.tally().streams(), 1, "a new key is not a new stream");

    let status = agent.status();
    let id = status.0["agent"].as_str().unwrap();
    let revoke = ["agent", "--data-dir", collector.data_dir.to_str().unwrap(), "revoke", id];
    Collector::cli(&[&revoke[..], &["--reason", "the host is lost"]].concat()).expect(0, &[]);
    until("the revocation is an event", world.patience(), || {
        (!query::all(&collector, "action:agent.revoke").is_empty()).then_some(())
    });
    append(&mut log, 100);
    let waiting = agent.wait_status("the agent is not let in", |status| {
        status.output()["state"] == "waiting" && status.spool()["blocks"].as_u64() > Some(0)
    });
    assert!(waiting.output()["lag_blocks"].as_u64() > Some(0));
    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(collector.stop().code(), Some(0));
    assert_eq!(query_count(&collector), expected.len());
    let report = verified(&collector.data_dir);
    assert!(report.problems.is_empty(), "{}", report.to_text());
}

fn query_count(collector: &Collector) -> usize {
    collector.tally().numbers.len()
}

#[test]
fn what_is_done_with_the_collector_is_an_event_and_a_page_that_asks_again_is_counted() {
    let world = World::new("fork_own_acts");
    let mut collector = Collector::started(&world, "collector");
    for _ in 0..50 {
        let _page = collector.get("/v1/events?q=actor:nobody");
    }
    let create = ["token", "--data-dir", collector.data_dir.to_str().unwrap(), "create"];
    Collector::cli(&[&create[..], &["--name", "jane", "--role", "viewer"]].concat()).expect(0, &[]);
    let action = |action: &str| query::all(&collector, &format!("action:{action}"));
    until("the new token is an event", world.patience(), || {
        let found = action("token.create");
        (found.len() == 1 && found[0]["targets"][0]["id"] == "jane").then_some(())
    });
    until("the start is an event", world.patience(), || {
        (action("collector.start").len() == 1).then_some(())
    });
    let searches = action("event.search");
    let asked =
        |query: &str| searches.iter().filter(|event| event["details"]["query"] == query).count();
    assert_eq!(asked("q=actor:nobody"), 1, "{searches:#?}");
    let searched = searches.iter().find(|event| event["details"]["query"] == "q=actor:nobody");
    assert_eq!(searched.unwrap()["actor"]["name"], "admin");
    assert_eq!(collector.stop().code(), Some(0));
    collector.start();
    collector.wait_ready();
    until("the stop is an event", world.patience(), || {
        (query::all(&collector, "action:collector.stop").len() == 1).then_some(())
    });
    assert_eq!(collector.stop().code(), Some(0));
    let report = verified(&collector.data_dir);
    assert!(report.problems.is_empty(), "{}", report.to_text());
}
