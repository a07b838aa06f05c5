//! A real journald in namespaces of its own; logger and systemd-cat write to it.

#[path = "../../../../journal/tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the journal crate's own tests")]
mod journald;

use custody_tests::{World, query};
use journald::PrivateJournald;

use super::{each, end, pair};

const ENTRIES: usize = 600;

#[test]
fn what_journald_keeps_is_found_once_over_rotation_a_kill_and_a_vacuum_of_what_was_read() {
    let world = World::new("sources_journal");
    let state = world.path("journal");
    std::fs::create_dir(&state).unwrap();
    let mut journald = match PrivateJournald::start(&state) {
        Ok(journald) => journald,
        Err(why) => {
            eprintln!("skipped: no journald of our own here: {why}");
            return;
        }
    };
    let source = format!(
        "  - {{ id: j, type: journal, directory: {}, identifiers: [sshd, app], packs: auto }}\n",
        state.display()
    );
    let (collector, mut agent) = pair(&world, source, "");
    let mut from = 0;
    let mut write = |journald: &mut PrivateJournald| {
        journald.run(&format!(
            "seq -f 'Failed password for invalid user u%.0f from 192.0.2.7 port 22 ssh2' {from} {} | systemd-cat -t sshd -p info",
            from + 199
        ));
        journald.sync();
        from += 200;
    };
    write(&mut journald);
    agent.start();
    let _some = query::wait_for(&collector, "input:j", 100, world.patience());
    agent.kill();
    journald.run("journalctl --rotate");
    write(&mut journald);
    agent.start();
    write(&mut journald);
    journald.send(&[
        ("MESSAGE", b"paid"),
        ("SYSLOG_IDENTIFIER", b"app"),
        ("PICTURE", b"\xff\x00\xfe"),
        ("ORDER", b"4711"),
    ]);
    journald.run("logger -t other 'not of those that are asked for'");
    journald.sync();
    let logins = "input:j action:authentication.login outcome:failure ip:192.0.2.7";
    let found = query::wait_for(&collector, logins, ENTRIES, world.patience());
    let mut users = each(&found, "/actor/name");
    users.dedup();
    assert_eq!((found.len(), users.len()), (ENTRIES, ENTRIES), "each once");
    let paid = query::wait_for(&collector, "input:j service:app", 1, world.patience());
    let raw = paid[0]["origin"]["raw"].as_str().unwrap();
    assert!(raw.contains("4711") && paid[0]["origin"]["cursor"].is_string(), "{:#}", paid[0]);
    // What was read may go: that is no loss.
    journald.run("journalctl --rotate");
    journald.run("journalctl --vacuum-files=1 2>/dev/null");
    write(&mut journald);
    let found = query::wait_for(&collector, logins, ENTRIES + 200, world.patience());
    assert_eq!(found.len(), ENTRIES + 200);
    let all = query::all(&collector, "input:j");
    assert_eq!(all.len(), ENTRIES + 201, "nothing of what was not asked for");
    assert_eq!(query::all(&collector, "action:gap*").len(), 0);
    end(collector, agent);
}
