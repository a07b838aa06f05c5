//! Exports that recur, while time goes on and those for whom they are made come and go.

use std::sync::{Arc, Mutex};

use super::super::schedule::{Every, Plan, Schedule, Span};
use super::super::work::new_id;
use super::*;
use crate::access::Kind;

#[test]
fn scheduled_runs_are_made_once_each_however_late() {
    let house = House::with(0..10);
    let desk = house.desk(options());
    let day = 86_400_000_000;
    let mut plan = Plan {
        name: "nightly".to_owned(),
        every: Every::Day,
        at: "02:00".to_owned(),
        timezone: "UTC".to_owned(),
        format: Format::Ndjson,
        q: String::new(),
        period: Span::Day,
        bom: false,
        words: Words::Custody,
        scopes: Vec::new(),
        owner: None,
        stopped: None,
    };
    let now = house.source.clock.now();
    let next = plan.check(now, &desk.options, true, &ann()).unwrap();
    let schedule =
        Schedule { id: new_id().unwrap(), created: now, created_by: "ann".to_owned(), next, plan };
    desk.table.add_schedule(&schedule).unwrap();
    assert!(!desk.keep_house().unwrap(), "nothing is due");
    house.clock.0.store(next.micros() + 3 * day, Ordering::Relaxed);
    assert!(desk.keep_house().unwrap());
    assert!(!desk.keep_house().unwrap(), "all of it is made");
    let runs = desk.table.list(None, None, 100).unwrap();
    let mut froms: Vec<_> = runs.iter().map(|run| run.spec.from.unwrap().micros()).collect();
    froms.sort_unstable();
    assert_eq!(froms.len(), 4);
    assert!(froms.windows(2).all(|pair| pair[1] - pair[0] == day), "{froms:?}");
    assert!(runs.iter().all(|run| run.spec.schedule.as_deref() == Some(&schedule.id)));
    // A year later, only the last month is made up.
    house.clock.0.fetch_add(365 * day, Ordering::Relaxed);
    assert!(desk.keep_house().unwrap());
    assert_eq!(desk.table.list(None, None, 100).unwrap().len(), 4 + 31);
}

/// Accounts as they stand just now.
struct Accounts(Mutex<Option<Principal>>);

impl Authenticator for Accounts {
    fn check(&self, _bearer: &str) -> Option<Principal> {
        None
    }

    fn account(&self, kind: Kind, name: &str, _at: Timestamp) -> Option<Principal> {
        let account = self.0.lock().unwrap().clone();
        account.filter(|account| account.kind == kind && account.name == name)
    }
}

#[test]
fn a_schedule_stops_and_says_so_when_its_owner_may_no_longer_have_it() {
    use Permission::{Export, Search, ViewRaw, ViewSensitive};
    let day = 86_400_000_000;
    let tenant = |name: &str| Scope { tenants: vec![name.to_owned()], ..Scope::ALL };
    let owner = Principal { kind: Kind::User, scopes: [Scope::ALL].into(), ..ann() };
    let narrower = Principal { scopes: [tenant("acme")].into(), ..owner.clone() };
    let may_read = Principal {
        permissions: Permissions::of(&[Search, ViewRaw, ViewSensitive]),
        ..owner.clone()
    };
    let other = Principal { kind: Kind::Token, ..owner.clone() };
    let blind = Principal { permissions: Permissions::of(&[Search, Export]), ..owner.clone() };
    for (now, expected) in [
        (Some(owner.clone()), None),
        (Some(narrower), None),
        (None, Some("ann is disabled, over, or not there")),
        (Some(other), Some("ann is disabled, over, or not there")),
        (Some(may_read), Some("no longer the permission export")),
        (Some(blind), Some("no longer the permission view_raw")),
    ] {
        let mut house = House::with(0..10);
        let accounts = Arc::new(Accounts(Mutex::new(Some(owner.clone()))));
        house.source.accounts = Some(Arc::<Accounts>::clone(&accounts));
        let desk = house.desk(options());
        let body = r#"{"name":"n","every":"day","at":"02:00","format":"csv","period":"previous_day","stopped":"x"}"#;
        let mut plan: Plan = serde_json::from_str(body).unwrap();
        let begun = house.source.clock.now();
        let next = plan.check(begun, &desk.options, true, &owner).unwrap();
        assert_eq!(
            (plan.stopped.clone(), plan.owner),
            (None, Some(Kind::User)),
            "not from a request"
        );
        let id = new_id().unwrap();
        let created_by = "ann".to_owned();
        let schedule = Schedule { id, created: begun, created_by, next, plan };
        desk.table.add_schedule(&schedule).unwrap();
        house.clock.0.store(next.micros(), Ordering::Relaxed);
        assert!(desk.keep_house().unwrap());
        *accounts.0.lock().unwrap() = now.clone();
        house.clock.0.fetch_add(day, Ordering::Relaxed);
        assert_eq!(desk.keep_house().unwrap(), expected.is_none());
        let left = &desk.table.schedules().unwrap()[0];
        let why = left.plan.stopped.clone().unwrap_or_default();
        assert!(expected.map_or(why.is_empty(), |words| why.contains(words)), "{why}");
        let runs = desk.table.list(None, None, 10).unwrap();
        assert_eq!(runs.len(), if expected.is_none() { 2 } else { 1 });
        if let Some(now) = &now {
            let newest = &runs[0].spec.scopes;
            assert!(expected.is_some() || now.scopes.iter().all(|scope| newest.contains(scope)));
        }
        // It does not start again by itself.
        *accounts.0.lock().unwrap() = Some(owner.clone());
        house.clock.0.fetch_add(day, Ordering::Relaxed);
        assert_eq!(desk.keep_house().unwrap(), expected.is_none());
    }
}

#[test]
fn a_schedule_ends_at_bounds_that_came_later() {
    let house = House::with(0..10);
    let desk = house.desk(options());
    let body =
        r#"{"name":"n","every":"month","at":"02:00","format":"csv","period":"previous_month"}"#;
    let mut plan: Plan = serde_json::from_str(body).unwrap();
    let begun = house.source.clock.now();
    let next = plan.check(begun, &desk.options, true, &ann()).unwrap();
    let (id, created_by) = (new_id().unwrap(), "ann".to_owned());
    let schedule = Schedule { id, created: begun, created_by, next, plan };
    desk.table.add_schedule(&schedule).unwrap();
    let desk = house.desk(Options { max_range: Some(Period::days(7)), ..options() });
    house.clock.0.store(next.micros(), Ordering::Relaxed);
    assert!(!desk.keep_house().unwrap());
    let why = desk.table.schedules().unwrap()[0].plan.stopped.clone().unwrap();
    assert!(why.contains("exports.max_range"), "{why}");
}
