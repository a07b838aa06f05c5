//! What people decide, who may, and that a hold wins also while events go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::JoinHandle;

use crate::access::Principal;
use crate::store::evidence::Step;

use super::super::{NewErasure, NewHold, OnStep, Retain, RetainError, Status};
use super::person;
use super::world::{GONE, VICTIM, World, class, event, subject, until};

fn hold(q: &str) -> NewHold {
    NewHold {
        name: "case 9".to_owned(),
        q: q.to_owned(),
        reason: "r".to_owned(),
        ..NewHold::default()
    }
}

/// Somebody who does something while the first segment loses its events.
#[derive(Default)]
struct Meanwhile {
    retain: OnceLock<Weak<Retain>>,
    begun: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Meanwhile {
    fn does(work: fn(&Retain)) -> (Arc<Self>, OnStep) {
        let meanwhile = Arc::new(Self::default());
        let own = Arc::clone(&meanwhile);
        let on_step: OnStep = Arc::new(move |step| {
            if step == Step::Done && !own.begun.swap(true, Ordering::Relaxed) {
                own.begin(work);
            }
            Ok(())
        });
        (meanwhile, on_step)
    }

    fn begin(&self, work: fn(&Retain)) {
        let retain = self.retain.get().and_then(Weak::upgrade).unwrap();
        let own = Arc::clone(&retain);
        *self.thread.lock().unwrap() = Some(std::thread::spawn(move || work(&own)));
        // It does not get its turn before the segment is done.
        until("somebody wants to decide", || retain.deciding.is_waited_for());
    }

    fn end(&self) {
        self.thread.lock().unwrap().take().unwrap().join().unwrap();
    }
}

#[test]
fn a_hold_that_is_made_while_events_are_erased_keeps_those_that_are_left() {
    let world = World::new("");
    let (meanwhile, on_step) = Meanwhile::does(|retain| {
        retain.hold(&hold(""), "carl").unwrap();
    });
    let mut open = world.open_with(on_step);
    meanwhile.retain.set(Arc::downgrade(&open.retain)).unwrap();
    open.store_two_segments();
    let id = open.agree_to_erase();
    open.retain.erase_approved().unwrap();
    meanwhile.end();
    let row = open.retain.erasure(id).unwrap();
    assert_eq!((row.status, row.erased, row.what), (Status::Refused, 10, None));
    let trouble = row.trouble.unwrap();
    assert!(
        trouble.contains("10 events had been erased") && trouble.contains("case 9"),
        "{trouble}"
    );
    assert_eq!(open.victims(), 10);
    assert_eq!(open.count("action:event.erase"), 10);
    assert_eq!(open.count("action:erasure.refuse"), 1);
    open.close();
}

#[test]
fn a_hold_that_is_made_while_events_expire_keeps_those_that_are_left() {
    let world = World::new(&class("api", 90));
    let (meanwhile, on_step) = Meanwhile::does(|retain| {
        retain.hold(&hold(""), "carl").unwrap();
    });
    let mut open = world.open_with(on_step);
    meanwhile.retain.set(Arc::downgrade(&open.retain)).unwrap();
    open.store_two_segments();
    world.clock.pass_days(91);
    let swept = open.retain.sweep(false).unwrap();
    meanwhile.end();
    assert_eq!((swept.expired, swept.held), (500, 500));
    assert_eq!(open.count("category:api"), 500);
    open.close();
}

#[test]
fn what_is_let_go_while_events_expire_goes_with_the_next_run() {
    let world = World::new(&class("api", 90));
    let (meanwhile, on_step) = Meanwhile::does(|retain| {
        retain.release(1, "carl", "settled").unwrap();
    });
    let mut open = world.open_with(on_step);
    meanwhile.retain.set(Arc::downgrade(&open.retain)).unwrap();
    open.store_two_segments();
    assert_eq!(open.retain.hold(&hold(&format!("actor:{GONE}10")), "anna").unwrap().id, 1);
    world.clock.pass_days(91);
    let swept = open.retain.sweep(false).unwrap();
    meanwhile.end();
    assert_eq!((swept.expired, swept.held), (999, 1));
    assert_eq!(open.retain.sweep(false).unwrap().expired, 1);
    open.close();
}

#[test]
fn a_subject_without_letters_or_digits_does_not_erase_everything() {
    let world = World::new("");
    let mut open = world.open();
    open.store((0..100).map(event));
    for value in ["-", "???", "\u{1f642}"] {
        for key in ["any", "email"] {
            let refused = open.retain.preview(&subject(key, value)).unwrap_err();
            let is_bad = matches!(refused, RetainError::Bad { parameter: "subject", .. });
            assert!(is_bad, "{value}: {refused}");
        }
    }
    let q = Some(format!("\"???\" OR actor:{VICTIM}@example.org"));
    let new = NewErasure { q, reason: "r".to_owned(), ..NewErasure::default() };
    let refused = open.retain.preview(&new).unwrap_err();
    assert!(matches!(refused, RetainError::Bad { parameter: "q", .. }), "{refused}");
    // An id is compared whole.
    assert_eq!(open.retain.preview(&subject("actor.id", "-")).unwrap().matched, 0);
    open.close();
}

#[test]
fn of_approving_and_taking_back_only_the_first_counts() {
    let world = World::new("");
    let mut open = world.open();
    open.store((0..100).map(event));
    let id = open.agree_to_erase();
    // Also for somebody who had looked before it was approved.
    let now = open.retain.clock.now();
    assert!(!open.retain.table.withdraw(id, "taken back", now).unwrap());
    let late = open.retain.withdraw(id, "anna").unwrap_err();
    assert!(matches!(late, RetainError::Conflict(_)), "{late}");
    let row = open.retain.erasure(id).unwrap();
    assert_eq!((row.status, row.trouble), (Status::Approved, None));
    assert!(row.what.is_some());

    let (row, _) = open.retain.ask(&subject("actor.name", "user1"), "anna").unwrap();
    open.retain.withdraw(row.id, "anna").unwrap();
    let late = open.retain.approve(row.id, &person("bert")).unwrap_err();
    assert!(matches!(late, RetainError::Conflict(_)), "{late}");
    let row = open.retain.erasure(row.id).unwrap();
    assert_eq!((row.status, row.what), (Status::Refused, None));
    open.close();
}

#[test]
fn the_second_person_sees_what_would_go_as_long_as_it_can_be_stopped() {
    let world = World::new("");
    let mut open = world.open();
    open.store((0..1_000).map(event));
    let victim = format!("{VICTIM}@example.org");
    let (row, _) = open.retain.ask(&subject("actor.name", &victim), "anna").unwrap();
    let shown = |id| serde_json::to_value(open.retain.erasure(id).unwrap()).unwrap();
    assert_eq!(serde_json::to_value(&row).unwrap(), shown(row.id));
    assert_eq!(shown(row.id)["what"]["subject"]["actor.name"], victim);
    assert_eq!((&shown(row.id)["matched"], &shown(row.id)["archived"]), (&10.into(), &0.into()));
    open.retain.approve(row.id, &person("bert")).unwrap();
    assert_eq!(shown(row.id).get("what"), None);
    open.close();
}

#[test]
fn nobody_is_made_to_approve_what_was_asked_for_before() {
    let world = World::new("");
    let mut open = world.open();
    open.store((0..100).map(event));
    let before = Principal { since: open.retain.clock.now(), ..person("bert") };
    let (row, _) = open.retain.ask(&subject("actor.name", "user1"), "anna").unwrap();
    let after = Principal { since: open.retain.clock.now(), ..person("carl") };
    let refused = open.retain.approve(row.id, &after).unwrap_err().to_string();
    assert!(refused.contains("somebody who was there before"), "{refused}");
    assert_eq!(open.retain.approve(row.id, &before).unwrap().status, Status::Approved);
    open.close();
}
