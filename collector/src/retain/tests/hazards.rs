//! Stops at every step, archives, backups, a disk that fills up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use custody_evidence::verify::{Trust, verify_dir};

use super::super::archive::digest_of;
use super::super::{RetainError, Status, backup, restore};
use super::world::{GONE, VICTIM, World, class, event, open_in, subject};
use crate::store::evidence::Step;

/// Fails at the `nth` time that a rewriting comes to this step.
pub(super) fn failing_at(step: Step, nth: usize) -> super::OnStep {
    let times = AtomicUsize::new(0);
    Arc::new(move |at| {
        if at == step && times.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            return Err(std::io::Error::other("the test stops it here"));
        }
        Ok(())
    })
}

#[test]
fn a_stop_at_any_step_loses_nothing_that_must_stay_and_the_next_start_ends_it() {
    for step in Step::ALL {
        for nth in [1, 2] {
            let world = World::new(&class("api", 90));
            let mut open = world.open_with(failing_at(step, nth));
            for first in (0..2_000).step_by(500) {
                open.store((first..first + 500).map(event));
                if first == 500 {
                    open.log.close_segment().unwrap();
                }
            }
            open.log.close_segment().unwrap();
            open.wait_indexed();
            let stay = open.events("category:access");
            let new = subject("actor.name", &format!("{VICTIM}@example.org"));
            let (row, _) = open.retain.ask(&new, "anna").unwrap();
            open.retain.approve(row.id, &super::person("bert")).unwrap();
            world.clock.pass_days(91);
            open.retain.sweep(false).unwrap_err();
            // As it stands now it is whole, and nothing that stays is missing.
            assert_eq!(open.events("category:access"), stay, "{step:?} {nth}");
            open.close();
            let report = verify_dir(world.path(), &Trust::default()).unwrap();
            assert!(report.verified, "{step:?} {nth}: {}", report.to_text());

            let open = world.open();
            assert_eq!(open.events("category:access"), stay, "{step:?} {nth}");
            open.retain.sweep(false).unwrap();
            open.retain.erase_approved().unwrap();
            assert_eq!(open.retain.erasure(row.id).unwrap().status, Status::Done);
            assert_eq!((open.count("category:api"), open.count("category:access")), (0, 980));
            open.close();
            let found = world.bytes_of(&[GONE, VICTIM]);
            assert!(found.values().all(|f| *f == super::world::Found::NOWHERE), "{found:?}");
            assert!(verify_dir(world.path(), &Trust::default()).unwrap().verified);
        }
    }
}

#[test]
fn sidecars_that_are_lost_after_blocks_became_sparse_are_made_again() {
    let world = World::new(&class("api", 90));
    let mut open = world.open();
    open.store((0..1_000).map(event));
    world.clock.pass_days(91);
    open.log.close_segment().unwrap();
    open.retain.sweep(false).unwrap();
    open.close();
    let day = std::fs::read_dir(world.path().join("evidence")).unwrap();
    for path in day.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "idx") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    let mut open = world.open();
    assert_eq!(open.count("category:access"), 500);
    open.store((1_000..1_010).map(event));
    world.clock.pass_days(400);
    open.log.close_segment().unwrap();
    open.retain.sweep(false).unwrap();
    assert_eq!(open.count("category:access"), 0);
    open.close();
    assert!(verify_dir(world.path(), &Trust::default()).unwrap().verified);
}

#[test]
fn a_segment_is_archived_before_it_loses_events_and_comes_back_when_asked() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut world = World::new(&class("api", 90));
    let archive = elsewhere.path().join("archive");
    world.add_yaml(&format!("archive: {{ type: dir, path: {}, after: 30d }}\n", archive.display()));
    let mut open = world.open();
    open.store((0..1_000).map(event));
    open.log.close_segment().unwrap();
    assert_eq!(open.retain.archive_due().unwrap(), 0);
    let begun = world.clock.as_ref();
    let from = custody_event::Clock::now(begun);
    begun.pass_days(500);
    assert_eq!(open.retain.sweep(false).unwrap().expired, 1_000);
    assert_eq!(open.count("action:contact.view"), 0);
    let archived = open.retain.archived().unwrap();
    assert_eq!((archived.len(), archived[0].restored), (1, false));
    let new = subject("any", &format!("{VICTIM}@example.org"));
    let preview = open.retain.preview(&new).unwrap();
    assert_eq!((preview.matched, preview.archived), (0, 10));

    let restored = open.retain.restore_archived(from, from, "anna").unwrap();
    assert_eq!(restored.segments, [archived[0].segment]);
    assert_eq!(open.count("action:contact.view"), 1_000);
    assert!(open.retain.archived().unwrap()[0].restored);
    assert_eq!(open.retain.sweep(false).unwrap().expired, 0, "what was restored stays");

    // Erasure reaches the archive as well as the log.
    let (row, preview) = open.retain.ask(&new, "anna").unwrap();
    assert_eq!((preview.matched, preview.archived), (10, 0), "what is in both counts once");
    open.retain.approve(row.id, &super::person("bert")).unwrap();
    open.retain.erase_approved().unwrap();
    let archived = open.retain.archived().unwrap();
    let copy = archive.join(&archived[0].day).join(&archived[0].file);
    assert_eq!(digest_of(&copy).unwrap().0, archived[0].sha256);
    assert_eq!(open.retain.release_restored("anna").unwrap(), 1);
    assert_eq!(open.retain.sweep(false).unwrap().expired, 990);
    open.retain.restore_archived(from, from, "anna").unwrap();
    assert_eq!(open.count("action:contact.view"), 990);

    // A copy that was changed is not used.
    open.retain.release_restored("anna").unwrap();
    let mut bytes = std::fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    let refused = open.retain.restore_archived(from, from, "anna").unwrap_err();
    assert!(matches!(refused, RetainError::Checksum { .. }), "{refused}");
    open.close();
    let report = verify_dir(world.path(), &Trust::default()).unwrap();
    assert!(report.verified, "{}", report.to_text());
}

#[test]
fn a_full_disk_empties_what_is_archived_and_then_refuses_blocks() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut world = World::new("");
    let archive = elsewhere.path().join("archive");
    // More than any disk has: it is always nearly full.
    world.add_yaml(&format!(
        "archive: {{ type: dir, path: {} }}\nspace: {{ archive_below: 1TiB, stop_below: 0 }}\n",
        archive.display()
    ));
    let mut open = world.open();
    open.store((0..1_000).map(event));
    open.log.close_segment().unwrap();
    let hold = super::NewHold {
        name: "h".to_owned(),
        q: format!("actor:{VICTIM}@example.org"),
        reason: "r".to_owned(),
        ..super::NewHold::default()
    };
    open.retain.hold(&hold, "anna").unwrap();
    open.retain.look_at_space().unwrap();
    assert_eq!(open.count("action:contact.view"), 10, "only what is on hold");
    assert_eq!(open.log.held_back(), None);
    assert!(!open.retain.archived().unwrap().is_empty());
    open.close();
    let stop = "space: { archive_below: 0, stop_below: 1TiB }\n";
    let open = open_in(world.path(), stop, &world.clock, Arc::new(|_| Ok(())));
    open.retain.look_at_space().unwrap();
    let reason = open.log.held_back().unwrap();
    assert!(reason.contains("nearly full") && reason.contains("space.stop_below"), "{reason}");
    open.close();
}

#[test]
fn a_backup_whose_newest_segment_is_closed_and_written_anew_goes_on() {
    let world = World::new(&class("api", 90));
    let elsewhere = tempfile::tempdir().unwrap();
    let mut open = world.open();
    open.store((0..1_000).map(event));
    world.clock.pass_days(91);
    open.log.close_segment().unwrap();
    open.retain.sweep(false).unwrap();
    let (copy, target) = (elsewhere.path().join("copy"), elsewhere.path().join("restored"));
    backup(world.path(), &copy).unwrap();
    open.close();
    restore(&copy, &target).unwrap();
    for (stored, first) in [(500, 5_000), (510, 6_000)] {
        let mut open = open_in(&target, &class("api", 90), &world.clock, Arc::new(|_| Ok(())));
        assert_eq!(open.count("category:access"), stored);
        open.store((first..first + 20).map(event));
        open.close();
        assert!(verify_dir(&target, &Trust::default()).unwrap().verified);
    }
}

#[test]
fn a_backup_that_is_made_while_blocks_come_in_is_whole_and_goes_on() {
    let world = World::new(&class("api", 90));
    let elsewhere = tempfile::tempdir().unwrap();
    let mut open = world.open();
    open.store((0..1_000).map(event));
    world.clock.pass_days(91);
    open.log.close_segment().unwrap();
    open.retain.sweep(false).unwrap();
    let copies: Vec<_> = (0..3).map(|n| elsewhere.path().join(format!("copy{n}"))).collect();
    std::thread::scope(|scope| {
        let (from, copies) = (world.path(), &copies);
        let made = scope.spawn(move || {
            for copy in copies {
                backup(from, copy).unwrap();
            }
        });
        for first in (1_000..).step_by(100) {
            open.store((first..first + 100).map(event));
            if made.is_finished() || first > 2_000_000 {
                break;
            }
        }
        made.join().unwrap();
    });
    open.close();
    assert!(backup(world.path(), &copies[0]).is_err(), "a directory that is not empty is refused");
    for (n, copy) in copies.iter().enumerate() {
        let target = elsewhere.path().join(format!("restored{n}"));
        restore(copy, &target).unwrap();
        let mut open = open_in(&target, &class("api", 90), &world.clock, Arc::new(|_| Ok(())));
        let before = open.count("action:contact.view");
        assert!(before >= 500, "{before}");
        open.store((9_000_000..9_000_010).map(event));
        assert_eq!(open.count("action:contact.view"), before + 10);
        open.close();
        assert!(verify_dir(&target, &Trust::default()).unwrap().verified);
    }
}
