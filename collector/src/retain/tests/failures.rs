//! Archives, disks and the collector's own stream that fail: nothing that must stay goes, what can
//! be done is done, and it is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::access::database_in;
use crate::store::evidence::{Step, read_segment};

use super::super::archive::digest_of;
use super::super::table::EMPTY;
use super::super::{Archived, Hooks, RetainError, Status, Worker};
use super::hazards::failing_at;
use super::world::{Open, World, class, event, subject, until};

/// A disk of which so many bytes are free.
fn disk(free: &Arc<AtomicU64>) -> Hooks {
    let free = Arc::clone(free);
    Hooks { free: Arc::new(move |_| Ok(free.load(Ordering::Relaxed))), ..Hooks::default() }
}

/// A world with an archive, and where that is.
fn with_archive(yaml: &str) -> (World, tempfile::TempDir, PathBuf) {
    let elsewhere = tempfile::tempdir().unwrap();
    let archive = elsewhere.path().join("archive");
    let mut world = World::new(yaml);
    world.add_yaml(&format!("archive: {{ type: dir, path: {}, after: 30d }}\n", archive.display()));
    (world, elsewhere, archive)
}

/// Two segments, both in the archive.
fn archived(world: &World, open: &mut Open) -> Vec<Archived> {
    open.store_two_segments();
    world.clock.pass_days(31);
    assert_eq!(open.retain.archive_due().unwrap(), 2);
    open.retain.archived().unwrap()
}

#[test]
fn an_archive_that_cannot_be_had_does_not_keep_a_full_disk_from_refusing_blocks() {
    let mut world = World::new("");
    let file = tempfile::NamedTempFile::new().unwrap();
    // A file stands where the folder should be.
    world.add_yaml(&format!("archive: {{ type: dir, path: {}/a }}\n", file.path().display()));
    let mut open = world.open_hooked(disk(&Arc::new(AtomicU64::new(1))));
    open.store_two_segments();
    open.retain.look_at_space().unwrap_err();
    assert!(open.log.held_back().unwrap().contains("nearly full"));
    assert_eq!(open.count("action:contact.view"), 2_000);
    open.close();
}

#[test]
fn a_disk_that_fills_up_while_the_worker_is_busy_has_blocks_refused() {
    let world = World::new("");
    let (free, looks) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicUsize::new(0)));
    let (left, counted) = (Arc::clone(&free), Arc::clone(&looks));
    let hooks = Hooks {
        free: Arc::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(left.load(Ordering::Relaxed))
        }),
        ..Hooks::default()
    };
    let open = world.open_hooked(hooks);
    // Its first sweep does not get on.
    let busy = open.retain.work();
    let (worker, _wake) = Worker::start(Arc::clone(&open.retain)).unwrap();
    until("both threads have looked", || looks.load(Ordering::Relaxed) >= 2);
    assert_eq!(open.log.held_back(), None);
    free.store(0, Ordering::Relaxed);
    until("blocks are refused", || open.log.held_back().is_some());
    free.store(u64::MAX, Ordering::Relaxed);
    until("blocks are taken again", || open.log.held_back().is_none());
    drop(busy);
    worker.stop();
    open.close();
}

#[test]
fn exports_go_before_evidence_leaves_the_log_or_is_refused() {
    for yaml in
        ["space: { archive_below: 1GiB, stop_below: 2MiB }\n", "space: { stop_below: 1TiB }\n"]
    {
        let (mut world, _elsewhere, _) = with_archive("");
        if yaml.contains("1TiB") {
            world = World::new("");
        }
        world.add_yaml(yaml);
        let folder = world.path().join("exports");
        std::fs::create_dir_all(&folder).unwrap();
        // Room comes back with the two oldest files.
        let watched = folder.clone();
        let free = move |_: &std::path::Path| {
            let gone = ["a.csv", "b.custody"].iter().all(|name| !watched.join(name).is_file());
            Ok(if gone { u64::MAX } else { 0 })
        };
        let mut open = world.open_hooked(Hooks { free: Arc::new(free), ..Hooks::default() });
        open.store_two_segments();
        let db = rusqlite::Connection::open(database_in(world.path())).unwrap();
        for (age, (name, status)) in [
            ("c.csv", "completed"),
            ("b.custody", "completed"),
            ("a.csv", "completed"),
            ("r.csv.part", "running"),
        ]
        .into_iter()
        .enumerate()
        {
            let file = std::fs::File::create(folder.join(name)).unwrap();
            let age = Duration::from_secs(3_600 * u64::try_from(age).unwrap());
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000) - age)
                .unwrap();
            let id = name.split('.').next().unwrap();
            db.execute(
                "INSERT INTO exports (id, created, created_by, status, spec, told)
                 VALUES (?1, 0, 'ann', ?2, '{}', '{}')",
                [id, status],
            )
            .unwrap();
        }
        open.retain.look_at_space().unwrap();
        assert_eq!(open.log.held_back(), None, "{yaml}");
        assert_eq!(open.count("action:contact.view"), 2_000, "{yaml}: all of it is still here");
        let mut left: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["c.csv", "r.csv.part"], "{yaml}");
        let status = |id: &str| -> String {
            let text = "SELECT status FROM exports WHERE id = ?1";
            db.query_row(text, [id], |row| row.get(0)).unwrap()
        };
        let found = ["a", "b", "c", "r"].map(status);
        assert_eq!(found, ["expired", "expired", "completed", "running"], "{yaml}");
        until("the word of it", || open.count("action:export.expire") == 1);
        open.close();
    }
}

#[test]
fn what_is_kept_for_ever_leaves_for_the_archive_where_the_disk_is_full() {
    let (world, _elsewhere, _) = with_archive("retention: { default: forever }\n");
    let mut open = world.open_hooked(disk(&Arc::new(AtomicU64::new(1))));
    open.store_two_segments();
    assert_eq!(open.retain.sweep(false).unwrap().expired, 0);
    assert_eq!(open.count("action:contact.view"), 2_000);
    open.retain.look_at_space().unwrap();
    assert_eq!(open.count("action:contact.view"), 0);
    // Nothing is left in it: it is not read again at each look.
    let policy = open.retain.policy.digest();
    assert_eq!(open.retain.table.due(0, &policy).unwrap(), Some(EMPTY));
    open.close();
}

#[test]
fn nothing_leaves_the_log_on_the_word_of_a_manifest_and_the_other_segments_go_on() {
    let (world, _elsewhere, archive) = with_archive(&class("api", 90));
    let mut open = world.open();
    let known = archived(&world, &mut open);
    let folder = archive.join(&known[0].day);
    let copies: Vec<_> = known.iter().map(|one| folder.join(&one.file)).collect();
    let whole = std::fs::read(&copies[0]).unwrap();
    world.clock.pass_days(60);

    std::fs::write(&copies[0], &whole[..whole.len() / 2]).unwrap();
    let error = open.retain.sweep(false).unwrap_err();
    assert!(matches!(error, RetainError::Checksum { .. }), "{error}");
    assert_eq!(open.count("category:api"), 500, "of the other segment");

    // Another segment's bytes, with a manifest that fits them.
    std::fs::copy(&copies[1], &copies[0]).unwrap();
    let manifest = folder.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let wrong = text.replacen(&known[0].sha256.to_hex(), &known[1].sha256.to_hex(), 1);
    assert_ne!(text, wrong);
    std::fs::write(&manifest, wrong).unwrap();
    let error = open.retain.sweep(false).unwrap_err().to_string();
    assert!(error.contains("no copy of this segment"), "{error}");
    assert_eq!(open.count("category:api"), 500);

    std::fs::write(&copies[0], whole).unwrap();
    std::fs::write(&manifest, text).unwrap();
    assert_eq!(open.retain.sweep(false).unwrap().expired, 500);
    open.close();
}

#[test]
fn an_erasure_that_fails_keeps_no_other_from_being_done() {
    let world = World::new("");
    let mut open = world.open();
    open.store((0..1_000).map(event));
    let first = open.agree_to_erase();
    let (second, _) = open.retain.ask(&subject("actor.name", "user1"), "anna").unwrap();
    open.retain.approve(second.id, &super::person("bert")).unwrap();
    let db = rusqlite::Connection::open(database_in(world.path())).unwrap();
    db.execute("UPDATE erasures SET what = 'x' WHERE id = ?1", [first]).unwrap();
    open.retain.erase_approved().unwrap_err();
    let row = open.retain.erasure(first).unwrap();
    assert_eq!(row.status, Status::Approved);
    assert!(row.trouble.unwrap().contains("is lost"));
    let row = open.retain.erasure(second.id).unwrap();
    assert_eq!((row.status, row.erased), (Status::Done, 1));
    open.close();
}

#[test]
fn an_erasure_does_not_make_a_damaged_copy_good() {
    let (world, _elsewhere, archive) = with_archive("");
    let mut open = world.open();
    let known = archived(&world, &mut open);
    let copy = archive.join(&known[0].day).join(&known[0].file);
    let id = open.agree_to_erase();
    // Cut off between two frames: every frame that is left is good.
    let mut last = 0;
    read_segment(&copy, &mut |stored| {
        last = stored.at.offset;
        Ok(true)
    })
    .unwrap();
    let whole = std::fs::read(&copy).unwrap();
    std::fs::write(&copy, &whole[..usize::try_from(last).unwrap()]).unwrap();
    let error = open.retain.erase_approved().unwrap_err();
    assert!(matches!(error, RetainError::Checksum { .. }), "{error}");
    assert_eq!(open.retain.archived().unwrap()[0], known[0]);
    assert_ne!(open.retain.archived().unwrap()[1].sha256, known[1].sha256, "the other is done");
    let row = open.retain.erasure(id).unwrap();
    assert_eq!((row.status, open.victims()), (Status::Approved, 0));

    std::fs::write(&copy, whole).unwrap();
    open.retain.erase_approved().unwrap();
    let now = &open.retain.archived().unwrap()[0];
    assert_ne!(now.sha256, known[0].sha256);
    assert_eq!((digest_of(&copy).unwrap().0, now.generation), (now.sha256, Some(1)));
    let row = open.retain.erasure(id).unwrap();
    assert_eq!((row.status, row.erased), (Status::Done, 20));
    open.close();
}

#[test]
fn a_crash_between_a_copy_and_its_manifest_is_taken_up() {
    let (world, _elsewhere, archive) = with_archive("");
    // Twice in the log, then in the archive.
    let mut open = world.open_with(failing_at(Step::Done, 3));
    let known = archived(&world, &mut open);
    let copy = archive.join(&known[0].day).join(&known[0].file);
    let id = open.agree_to_erase();
    open.retain.erase_approved().unwrap_err();
    assert_ne!(digest_of(&copy).unwrap().0, known[0].sha256);
    assert_eq!(open.retain.archived().unwrap()[0], known[0]);
    open.retain.erase_approved().unwrap();
    assert_eq!(open.retain.erasure(id).unwrap().status, Status::Done);
    assert_eq!(open.retain.archived().unwrap()[0].sha256, digest_of(&copy).unwrap().0);
    open.close();
}

#[test]
fn a_copy_that_a_crash_left_without_its_sidecar_is_mended_at_the_next_start() {
    let (world, _elsewhere, archive) = with_archive("");
    let from = custody_event::Clock::now(&*world.clock);
    // Twice in the log, then in the archive: renamed, and nothing more.
    let mut open = world.open_with(failing_at(Step::Renamed, 3));
    let known = archived(&world, &mut open);
    let copy = archive.join(&known[0].day).join(&known[0].file);
    let manifest = copy.with_file_name("manifest.json");
    open.agree_to_erase();
    open.retain.erase_approved().unwrap_err();
    open.close();
    assert!(!is_whole(&copy));
    let crashed = (std::fs::read(&manifest).unwrap(), copy.with_extension("idx"));

    // What the worker does first, before anything else is looked at.
    let open = world.open();
    open.retain.archive_due().unwrap();
    let now = &open.retain.archived().unwrap()[0];
    assert_eq!((digest_of(&copy).unwrap().0, now.generation), (now.sha256, Some(1)));
    assert!(is_whole(&copy), "it has its sidecar");

    // The same where nothing but a restoration looks: it comes back, and can be erased again.
    std::fs::write(&manifest, crashed.0).unwrap();
    std::fs::remove_file(crashed.1).unwrap();
    let restored = open.retain.restore_archived(from, from, "anna").unwrap();
    assert!(restored.segments.contains(&known[0].segment));
    assert!(is_whole(&copy));
    let (row, _) = open.retain.ask(&subject("actor.name", "user1"), "anna").unwrap();
    open.retain.approve(row.id, &super::person("bert")).unwrap();
    open.retain.erase_approved().unwrap();
    assert_eq!(open.retain.erasure(row.id).unwrap().status, Status::Done);
    assert_eq!((open.victims(), open.count("action:contact.view actor:user1")), (0, 0));
    assert!(is_whole(&copy));
    open.close();
}

/// Does the sidecar name the segment's number and length as they are?
fn is_whole(copy: &std::path::Path) -> bool {
    let sidecar = std::fs::read(copy.with_extension("idx")).unwrap();
    let len = std::fs::metadata(copy).unwrap().len();
    sidecar[16..24] == len.to_le_bytes()
}

#[test]
fn the_receipt_counts_what_went_from_the_archive_in_all_tries() {
    // Twice in the log, then in the archive: before its second copy, and behind a crash.
    for (step, nth) in [(Step::Writing, 4), (Step::Renamed, 4)] {
        let (world, _elsewhere, _) = with_archive("");
        let mut open = world.open_with(failing_at(step, nth));
        archived(&world, &mut open);
        let id = open.agree_to_erase();
        open.retain.erase_approved().unwrap_err();
        open.close();
        let open = world.open();
        open.retain.erase_approved().unwrap();
        let row = open.retain.erasure(id).unwrap();
        assert_eq!((row.status, row.erased), (Status::Done, 20));
        let receipts = open.events("action:erasure.complete");
        let receipt = String::from_utf8(receipts[0].event.to_vec()).unwrap();
        assert!(receipt.contains("\"erased_in_archive\":20"), "{step:?} {nth}: {receipt}");
        open.close();
    }
}

#[test]
fn what_is_not_told_is_an_error_unless_the_collector_stops() {
    let world = World::new(&class("api", 90));
    let mut open = world.open();
    open.store_two_segments();
    open.end_own();
    world.clock.pass_days(91);
    let error = open.retain.sweep(false).unwrap_err();
    assert!(matches!(error, RetainError::NotTold), "{error}");
    open.retain.stop();
    let act = crate::own::RetainAct::new("retention.expire", "delete", String::new());
    assert!(matches!(open.retain.tell(act), Err(RetainError::Stopping)));
    open.close();
}

#[test]
fn an_erasure_that_is_tried_again_tells_no_event_twice() {
    let world = World::new("");
    let free = Arc::new(AtomicU64::new(1));
    let times = AtomicUsize::new(0);
    let on_step: super::OnStep = Arc::new(move |step| {
        if step == Step::Writing && times.fetch_add(1, Ordering::Relaxed) < 2 {
            return Err(std::io::Error::other("the test stops it here"));
        }
        Ok(())
    });
    let mut open = world.open_hooked(Hooks { on_step, ..disk(&free) });
    open.store((0..1_000).map(event));
    let id = open.agree_to_erase();
    // No room to write the segment: nothing is told that does not happen.
    let error = open.retain.erase_approved().unwrap_err().to_string();
    assert!(error.contains("make room"), "{error}");
    assert_eq!(open.count("action:event.erase"), 0);
    free.store(u64::MAX, Ordering::Relaxed);
    for _ in 0..2 {
        open.retain.erase_approved().unwrap_err();
        let row = open.retain.erasure(id).unwrap();
        assert_eq!((row.status, row.erased), (Status::Approved, 0));
    }
    open.retain.erase_approved().unwrap();
    let row = open.retain.erasure(id).unwrap();
    assert_eq!((row.status, row.erased, row.trouble), (Status::Done, 10, None));
    assert_eq!(open.count("action:event.erase"), 10);
    assert_eq!(open.count("action:erasure.complete"), 1);
    open.close();
}

#[test]
fn the_receipt_counts_a_segment_that_was_done_just_before_a_crash() {
    let world = World::new("");
    // The segment stands, but nobody has noted that.
    let mut open = world.open_with(failing_at(Step::Done, 1));
    open.store_two_segments();
    let id = open.agree_to_erase();
    open.retain.erase_approved().unwrap_err();
    open.close();
    let open = world.open();
    open.retain.erase_approved().unwrap();
    let row = open.retain.erasure(id).unwrap();
    assert_eq!((row.status, row.erased), (Status::Done, 20));
    assert_eq!(open.count("action:event.erase"), 20);
    open.close();
}
