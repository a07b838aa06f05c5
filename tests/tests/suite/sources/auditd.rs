//! The records of a real auditd (the corpus has some), written piece by piece to a log that rotates
//! as auditd rotates it, with kills in between.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use custody_tests::{World, query};
use serde_json::Value;

use super::{end, pair};

fn corpus() -> Option<PathBuf> {
    let given = std::env::var_os("CUSTODY_CORPUS").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|above| above.join("../shared/corpus"))
        .find(|path| path.is_dir());
    given.or(beside).map(|corpus| corpus.join("auditd/log/input/audit-rhel7.log"))
}

/// `audit(TIME:SERIAL)`, which all records of one event share.
fn stamp(line: &str) -> &str {
    let from = line.find("msg=audit(").unwrap() + "msg=audit(".len();
    &line[from..from + line[from..].find(')').unwrap()]
}

fn lines_of(event: &Value) -> Vec<&str> {
    event["origin"]["raw"].as_str().unwrap().lines().collect()
}

#[test]
fn every_record_of_auditd_is_in_one_joined_event_over_rotation_and_kills() {
    let Some(log) = corpus().filter(|log| log.is_file()) else {
        eprintln!("skipped: corpus absent");
        return;
    };
    let text = std::fs::read_to_string(log).unwrap();
    // Whole lines, each with its number: some of the real ones are alike.
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("msg=audit(")).collect();
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in lines.iter().filter(|line| !line.contains("type=EOE ")) {
        groups.entry(stamp(line)).or_default().push(line);
    }
    assert!(
        lines.len() > 2_000 && groups.values().any(|group| group.len() >= 4),
        "{}",
        lines.len()
    );

    let world = World::new("sources_auditd");
    let path = world.path("audit.log");
    std::fs::write(&path, "").unwrap();
    let source = format!(
        "  - {{ id: audit, type: file, paths: ['{}'], packs: [auditd], join: auditd, join_timeout: 2s }}\n",
        path.display()
    );
    let (collector, mut agent) = pair(&world, source, "");
    agent.start();
    let append = |lines: &[&str]| {
        let mut file = std::fs::File::options().append(true).create(true).open(&path).unwrap();
        for line in lines {
            writeln!(file, "{line}").unwrap();
        }
    };
    // Cut between two events, so that no event waits for its rest longer than auditd would take.
    let borders: Vec<usize> =
        (1..lines.len()).filter(|at| stamp(lines[*at]) != stamp(lines[at - 1])).collect();
    let cut = |part: usize| borders[borders.len() * part / 4];
    append(&lines[..cut(1)]);
    let _some = query::wait_for(&collector, "input:audit", 20, world.patience());
    agent.kill();
    append(&lines[cut(1)..cut(2)]);
    std::fs::rename(&path, world.path("audit.log.1")).unwrap();
    append(&lines[cut(2)..cut(3)]);
    agent.start();
    agent.wait_ready();
    append(&lines[cut(3)..]);

    let found = query::wait_for(&collector, "input:audit", groups.len(), world.patience());
    let mut seen: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in &found {
        let lines = lines_of(event);
        let stamps: BTreeSet<&str> = lines.iter().map(|line| stamp(line)).collect();
        assert_eq!(stamps.len(), 1, "one event's records only: {event:#}");
        let of = seen.entry(stamps.into_iter().next().unwrap()).or_default();
        assert!(of.is_empty(), "an event came in two pieces: {event:#}");
        of.extend(lines.into_iter().filter(|line| !line.contains("type=EOE ")));
    }
    for (stamp, group) in &groups {
        assert_eq!(seen.get(stamp), Some(group), "{stamp}");
    }
    assert_eq!(found.len(), groups.len());
    // The pack knows them: what was done, and who did it.
    let known = found.iter().filter(|event| event["category"] != "unknown").count();
    assert!(known * 10 > found.len() * 9, "{known} of {}", found.len());
    end(collector, agent);
}
