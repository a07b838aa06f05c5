//! What must go is gone from the disk, what must stay stays, and everything verifies: over classes,
//! holds, erasures, archives, backups, and a stop at every step.

mod failures;
mod hazards;
mod people;
pub(super) mod world;

use std::collections::BTreeMap;

use custody_evidence::verify::{Trust, verify_bundle, verify_dir};

use crate::access::{Permissions, Principal};

use super::*;
use world::{GONE, VICTIM, World, class, event, subject};

/// Somebody who may do everything.
fn person(name: &str) -> Principal {
    Principal::new(name, Permissions::ALL)
}

/// Days after which each kind of event is looked at in these tests.
const API_DAYS: u32 = 90;

#[test]
fn of_100_000_events_one_in_a_hundred_is_erased_and_half_expire_and_no_byte_of_them_is_left() {
    let world = World::new(&class("api", API_DAYS));
    let mut open = world.open();
    for first in (0..100_000_u32).step_by(1_000) {
        open.store((first..first + 1_000).map(event));
    }
    open.wait_indexed();
    // The measure itself: before, everything is found in the log and in the index.
    let before = world.bytes_of(&[GONE, VICTIM]);
    assert!(before[GONE].log && before[GONE].index && before[VICTIM].log && before[VICTIM].index);
    let (bundle, checkpoint) = open.bundle();
    assert!(verify_bundle(&bundle[..], "b", &Trust::default()).unwrap().verified);
    let damaged = world.index_aside();

    let new = subject("actor.name", &format!("{VICTIM}@example.org"));
    let preview = open.retain.preview(&new).unwrap();
    assert_eq!((preview.matched, preview.held_by.len()), (1_000, 0));
    let (row, _) = open.retain.ask(&new, "anna").unwrap();
    assert!(matches!(open.retain.approve(row.id, &person("anna")), Err(RetainError::Conflict(_))));
    open.retain.approve(row.id, &person("bert")).unwrap();
    open.retain.erase_approved().unwrap();
    world.clock.pass_days(i64::from(API_DAYS) + 1);
    let dry = open.retain.sweep(true).unwrap();
    let swept = open.retain.sweep(false).unwrap();
    assert_eq!((dry.expired, swept.expired), (50_000, 50_000));
    assert_eq!(open.retain.sweep(false).unwrap().expired, 0);

    let row = open.retain.erasure(row.id).unwrap();
    assert_eq!((row.status, row.erased), (Status::Done, 1_000));
    open.wait_indexed();
    assert_eq!(open.count("category:api"), 0);
    assert_eq!(open.count("category:access"), 49_000);
    assert_eq!(open.count("action:event.erase"), 1_000);
    assert_eq!(open.count("action:erasure.complete"), 1);
    assert_eq!(open.count("action:retention.expire"), 1);
    open.close();
    let after = world.bytes_of(&[GONE, VICTIM]);
    assert_eq!(
        after,
        BTreeMap::from([(GONE, world::Found::NOWHERE), (VICTIM, world::Found::NOWHERE)])
    );
    assert!(!damaged.try_exists().unwrap());

    // The directory verifies, continues what was shown before, and the bundle is as good as it was.
    let trust = Trust { checkpoint: Some(checkpoint), ..Trust::default() };
    let report = verify_dir(world.path(), &trust).unwrap();
    assert!(report.verified, "{}", report.to_text());
    assert_eq!(report.withheld, 51_000);
    assert!(report.to_text().contains("of 51000 events only the leaf is here"));
    assert!(report.notes.iter().any(|note| note.contains("continues the trusted checkpoint")));
    assert!(verify_bundle(&bundle[..], "b", &trust).unwrap().verified);

    // A new start finds all of it as it was left.
    let open = world.open();
    open.wait_indexed();
    assert_eq!((open.count("category:access"), open.count("category:api")), (49_000, 0));
}

#[test]
fn a_hold_keeps_what_it_matches_until_it_is_released() {
    let world = World::new(&class("api", API_DAYS));
    let mut open = world.open();
    open.store((0..2_000).map(event));
    open.wait_indexed();
    let hold = NewHold {
        name: "case 7".to_owned(),
        q: format!("actor:{VICTIM}@example.org"),
        reason: "litigation".to_owned(),
        ..NewHold::default()
    };
    let hold = open.retain.hold(&hold, "anna").unwrap();
    let new = subject("any", &format!("{VICTIM}@example.org"));
    let refused = open.retain.ask(&new, "anna").unwrap_err().to_string();
    assert!(refused.contains("case 7"), "{refused}");
    // Everything is past its age, and what is held stays.
    world.clock.pass_days(500);
    let swept = open.retain.sweep(false).unwrap();
    // One more is the collector's own: that the hold was made.
    assert_eq!((swept.expired, swept.held), (1_981, 20));
    assert_eq!(open.count("category:access"), 20);
    open.retain.release(hold.id, "anna", "settled").unwrap();
    assert!(open.retain.release(hold.id, "anna", "again").is_err());
    let (row, preview) = open.retain.ask(&new, "anna").unwrap();
    assert_eq!(preview.matched, 20);
    // A hold that comes between asking and doing wins too.
    let again = NewHold { name: "case 8".to_owned(), reason: "r".to_owned(), ..NewHold::default() };
    let again = open.retain.hold(&again, "anna").unwrap();
    open.retain.approve(row.id, &person("bert")).unwrap();
    open.retain.erase_approved().unwrap();
    let row = open.retain.erasure(row.id).unwrap();
    assert_eq!((row.status, row.erased), (Status::Refused, 0));
    assert!(row.trouble.unwrap().contains("case 8"));
    assert_eq!(open.count("category:access"), 20);
    open.retain.release(again.id, "anna", "settled").unwrap();
    assert_eq!(open.retain.sweep(false).unwrap().expired, 20);
    assert_eq!(open.count("category:access"), 0);
    open.close();
    assert!(verify_dir(world.path(), &Trust::default()).unwrap().verified);
}

#[test]
fn cursors_and_ids_name_the_same_events_before_and_after() {
    let world = World::new(&class("api", API_DAYS));
    let mut open = world.open();
    open.store((0..3_000).map(event));
    open.wait_indexed();
    let before = open.events("category:access");
    let cursors: Vec<String> = before.iter().map(|hit| hit.key.to_cursor()).collect();
    world.clock.pass_days(i64::from(API_DAYS) + 1);
    assert_eq!(open.retain.sweep(false).unwrap().expired, 1_500);
    let after = open.events("category:access");
    assert_eq!(before, after);
    assert_eq!(cursors, after.iter().map(|hit| hit.key.to_cursor()).collect::<Vec<_>>());
    // A second time, where frames have moved already.
    world.clock.pass_days(400);
    open.retain.sweep(false).unwrap();
    assert_eq!(open.count("category:access"), 0);
    // What comes now stands behind it all.
    open.store((3_000..3_010).map(event));
    open.wait_indexed();
    assert_eq!(open.count("category:access"), 5);
    open.close();
    let report = verify_dir(world.path(), &Trust::default()).unwrap();
    assert!(report.verified, "{}", report.to_text());
}
