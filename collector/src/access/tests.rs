use super::*;
use custody_event::SystemClock;
use custody_evidence::AgentKey;

fn open(folder: &Path) -> Access {
    Access::open(folder, Arc::new(SystemClock::new())).unwrap()
}

fn enrolment(agent: u8, key: u8) -> Enrolment {
    Enrolment {
        agent: AgentId([agent; 16]),
        host: "00".into(),
        hostname: "web1".into(),
        key: AgentKey::from_secret(&[key; 32]).public(),
        version: "0.1.0".into(),
    }
}

#[test]
fn first_tokens_are_made_once_and_readable_by_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let access = open(folder.path());
    assert!(access.first_start(folder.path(), &[1; 32], &[2; 32]).unwrap());
    assert!(!access.first_start(folder.path(), &[3; 32], &[4; 32]).unwrap());
    let path = folder.path().join("admin.token");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, format!("{}\n", "01".repeat(32)));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = open(folder.path());
    assert_eq!(again.check(text.trim()).unwrap().permissions, Permissions::ALL);
    let enroll = std::fs::read_to_string(folder.path().join("enroll.token")).unwrap();
    assert_eq!(again.check(enroll.trim()), None);
    assert_eq!(again.identify(enroll.trim()), Ok(Identity::Enroller(hash_of(&[2; 32]))));
    let database = std::fs::read(folder.path().join("collector.db")).unwrap();
    assert!(memchr::memmem::find(&database, text.trim().as_bytes()).is_none());
}

#[test]
fn an_agent_enrols_again_with_its_key_only() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(folder.path());
    access.enroll(&enrolment(1, 1), None, &[7; 32], false).unwrap();
    assert!(matches!(access.identify(&token_text(&[7; 32])), Ok(Identity::Agent(_))));
    assert_eq!(access.check(&token_text(&[7; 32])), None, "an agent's token reads nothing");
    access.enroll(&enrolment(1, 1), None, &[8; 32], false).unwrap();
    assert!(access.identify(&token_text(&[7; 32])).is_err(), "the old token is gone");
    assert!(access.identify(&token_text(&[8; 32])).is_ok());
    let other = access.enroll(&enrolment(1, 2), None, &[9; 32], false);
    assert!(matches!(other, Err(AccessError::KeyConflict(_))));
    assert!(access.identify(&token_text(&[8; 32])).is_ok());
}

#[test]
fn a_token_for_one_agent_enrols_one_and_answers_only_it_and_only_for_a_while_again() {
    struct Hand(Mutex<Timestamp>);
    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            *self.0.lock().unwrap()
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hand(Mutex::new(Timestamp::Y2020)));
    let access = Access::open(folder.path(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let new = |name: &str, role: &str| NewToken {
        name: name.to_owned(),
        role: role.to_owned(),
        scope: Scope::ALL,
        expires: None,
        once: true,
    };
    access.add_token(By::Machine, new("web1", "enroll"), &[3; 32]).unwrap();
    let refused = access.add_token(By::Machine, new("reader", "viewer"), &[4; 32]);
    assert!(matches!(refused, Err(AccessError::NotOnce)));
    let Ok(Identity::Enroller(with)) = access.identify(&token_text(&[3; 32])) else {
        panic!("the token enrols")
    };
    let enroll = |agent, key, secret: u8| {
        access.enroll(&enrolment(agent, key), Some(with), &[secret; 32], false)
    };
    // What fails does not use it up.
    access.enroll(&enrolment(9, 9), None, &[90; 32], false).unwrap();
    assert!(matches!(enroll(9, 8, 10), Err(AccessError::KeyConflict(_))));
    enroll(1, 1, 11).unwrap();
    let thief = enroll(2, 2, 12);
    assert!(matches!(&thief, Err(AccessError::UsedUp(by)) if *by == AgentId([1; 16]).to_hex()));
    assert!(access.identify(&token_text(&[12; 32])).is_err(), "the thief has no token");
    assert_eq!(access.agents().unwrap().len(), 2, "and is no agent");
    // The answer was lost: the agent asks again.
    enroll(1, 1, 13).unwrap();
    assert!(matches!(access.identify(&token_text(&[13; 32])), Ok(Identity::Agent(_))));
    *clock.0.lock().unwrap() = Timestamp::Y2020.plus_micros(10 * 60 * 1_000_000);
    assert!(matches!(enroll(1, 1, 14), Err(AccessError::UsedUp(_))));
    assert!(matches!(access.identify(&token_text(&[13; 32])), Ok(Identity::Agent(_))));
    let row = &access.tokens(By::Machine).unwrap()[0];
    assert_eq!((row.once, row.used_by.clone()), (true, Some(AgentId([1; 16]).to_hex())));
}

#[test]
fn a_token_revoked_by_another_process_is_refused() {
    struct Late;
    impl Clock for Late {
        fn now(&self) -> Timestamp {
            Timestamp::Y2020
        }
        fn monotonic(&self) -> Duration {
            // Each look is a long time after the one before.
            static SECONDS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
            Duration::from_secs(SECONDS.fetch_add(60, std::sync::atomic::Ordering::Relaxed))
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let daemon = Access::open(folder.path(), Arc::new(Late)).unwrap();
    let command = open(folder.path());
    command.create_token("root", Role::Admin, &[4; 32]).unwrap();
    command.create_token("ann", Role::Viewer, &[5; 32]).unwrap();
    let token = token_text(&[5; 32]);
    assert_eq!(daemon.check(&token).unwrap().name, "ann");
    let twice = command.create_token("ann", Role::Viewer, &[6; 32]);
    assert!(matches!(twice, Err(AccessError::NameTaken(_))));
    command.drop_token(By::Machine, "ann").unwrap();
    assert_eq!(daemon.check(&token), None);
    assert!(matches!(command.drop_token(By::Machine, "ann"), Err(AccessError::NoSuchToken(_))));
    command.create_token("ann", Role::Admin, &[6; 32]).unwrap();
    assert_eq!(command.tokens(By::Machine).unwrap().len(), 3);
}

/// What stood in `collector.db` before there were steps: kept for ever as it was.
const VERSION_1: &str = "
CREATE TABLE agents (
    id TEXT PRIMARY KEY NOT NULL, host TEXT NOT NULL, hostname TEXT NOT NULL, key TEXT NOT NULL,
    token_hash TEXT NOT NULL, version TEXT NOT NULL, enrolled TEXT NOT NULL, revoked TEXT
) STRICT;
CREATE TABLE tokens (
    hash TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL,
    created TEXT NOT NULL, revoked TEXT
) STRICT;
PRAGMA user_version = 1;
";

#[test]
fn a_database_of_version_1_keeps_its_rows_through_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let old = rusqlite::Connection::open(database_in(folder.path())).unwrap();
    old.execute_batch(VERSION_1).unwrap();
    let made = "2026-01-31T08:00:00.000000Z";
    for (number, name, role, revoked) in [
        (1, "admin", "admin", None),
        (2, "enroll", "enroll", None),
        (3, "old", "viewer", Some(made)),
    ] {
        let hash = hash_of(&[number; 32]).to_hex();
        old.execute(
            "INSERT INTO tokens VALUES (?1, ?2, ?3, ?4, ?5)",
            rusqlite::params![hash, name, role, made, revoked],
        )
        .unwrap();
    }
    let agent = enrolment(1, 1);
    let hash = hash_of(&[9; 32]).to_hex();
    let row = [&agent.agent.to_hex(), "00", "web1", &agent.key.to_hex(), &hash, "0.1.0", made];
    old.execute("INSERT INTO agents VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL)", row).unwrap();
    drop(old);
    for _ in 0..2 {
        let access = open(folder.path());
        assert!(!access.first_start(folder.path(), &[7; 32], &[8; 32]).unwrap());
        let admin = access.check(&token_text(&[1; 32])).unwrap();
        assert_eq!((admin.permissions, admin.sees_all()), (Permissions::ALL, true));
        assert_eq!(
            access.identify(&token_text(&[2; 32])),
            Ok(Identity::Enroller(hash_of(&[2; 32])))
        );
        let lapsed = Standing::Lapsed("old".into(), Lapse::Revoked);
        assert_eq!(access.judge(&token_text(&[3; 32])), lapsed);
        assert!(matches!(access.identify(&token_text(&[9; 32])), Ok(Identity::Agent(_))));
        assert_eq!(access.tokens(By::Machine).unwrap().len(), 3);
        assert_eq!(access.agents().unwrap()[0].hostname, "web1");
    }
    let db = rusqlite::Connection::open(database_in(folder.path())).unwrap();
    let version: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(usize::try_from(version), Ok(db::STEPS.len()));
    // The same tables as a new data base has.
    let fresh = tempfile::tempdir().unwrap();
    drop(open(fresh.path()));
    let new = rusqlite::Connection::open(database_in(fresh.path())).unwrap();
    let columns = |db: &rusqlite::Connection| -> Vec<(String, String)> {
        let sql = "SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c
                   WHERE m.type = 'table' ORDER BY 1, 2";
        let mut select = db.prepare(sql).unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(columns(&db), columns(&new));
}

#[test]
fn tokens_that_are_over_do_not_stand_in_the_way_of_new_ones_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(folder.path());
    access.create_token("root", Role::Admin, &[1; 32]).unwrap();
    let now = Timestamp::Y2020;
    let mut rows = 0_u8;
    access
        .change(|tables| {
            for number in 2..12 {
                let hash = hash_of(&[number; 32]);
                tables.insert_token(&TokenRow::new(&format!("t{number}"), "viewer", hash, now))?;
                tables.revoke_token(&hash, now.plus_micros(i64::from(number)))?;
            }
            tables.forget_tokens(now, 3)?;
            rows = u8::try_from(tables.tokens()?.len()).unwrap();
            Ok(())
        })
        .unwrap();
    assert_eq!(rows, 4, "root and the last three");
    assert_eq!(access.judge(&token_text(&[2; 32])), Standing::Unknown);
    assert!(matches!(access.judge(&token_text(&[11; 32])), Standing::Lapsed(_, Lapse::Revoked)));
    assert!(access.check(&token_text(&[1; 32])).is_some());
}

#[test]
fn a_new_secret_makes_a_principal_young() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(folder.path());
    access.create_token("root", Role::Admin, &[1; 32]).unwrap();
    let root = access.check(&token_text(&[1; 32])).unwrap();
    assert_eq!(root.since, access.tokens(By::Machine).unwrap()[0].created);
    let (name, role) = ("ann".to_owned(), Role::Admin.name().to_owned());
    let new = NewUser { name, role: role.clone(), scope: Scope::ALL, password: String::new() };
    let user = access.create_user(By::Machine, new).unwrap();
    let ann = access.principal("ann").unwrap();
    assert_eq!(ann.since, user.created);
    // Her token speaks for her: it is as old as she is.
    let token =
        NewToken { name: "script".to_owned(), role, scope: Scope::ALL, expires: None, once: false };
    access.add_token(By::Principal(&ann), token, &[2; 32]).unwrap();
    assert_eq!(access.check(&token_text(&[2; 32])).unwrap().since, ann.since);
    let password = Some(String::from("another"));
    let change = UserChange { password, ..UserChange::default() };
    let changed = access.change_user(By::Principal(&root), "ann", change).unwrap();
    assert!(changed.password_set > ann.since);
    assert_eq!(access.principal("ann").unwrap().since, changed.password_set);
    assert_eq!(access.check(&token_text(&[2; 32])).unwrap().since, changed.password_set);
}

#[test]
fn an_account_that_asks_too_much_is_told_when_to_come_back_and_an_answer_that_goes_on_costs_nothing()
 {
    struct Standing;
    impl Clock for Standing {
        fn now(&self) -> Timestamp {
            Timestamp::Y2020
        }
        fn monotonic(&self) -> Duration {
            Duration::from_secs(5)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let access = Access::open(folder.path(), Arc::new(Standing)).unwrap();
    access.first_start(folder.path(), &[1; 32], &[2; 32]).unwrap();
    access.bound_requests(3);
    let gate = Gate { auth: &access, acts: None };
    let bearer = |secret: u8| {
        let value = format!("Bearer {}", token_text(&[secret; 32]));
        ::http::HeaderMap::from_iter([(::http::header::AUTHORIZATION, value.parse().unwrap())])
    };
    let admin = bearer(1);
    let all = [Permission::Export, Permission::ViewRaw, Permission::ViewSensitive];
    for _ in 0..3 {
        gate.admit_all(&admin, &all).unwrap();
        gate.still(&admin, Permission::Search).unwrap();
    }
    let refused = gate.admit(&admin, Permission::Search).unwrap_err();
    assert_eq!((refused.status, refused.retry_after_s), (429, Some(61)));
    assert!(refused.detail.contains("limits.requests_per_minute"), "{}", refused.detail);
    gate.still(&admin, Permission::Search).unwrap();
    // Who is not known is no account.
    for _ in 0..5 {
        assert_eq!(gate.known(&bearer(9)).unwrap_err().status, 401);
    }
}

#[test]
fn what_is_done_in_a_name_ends_with_the_account_and_not_with_a_later_one_of_the_name() {
    struct Hand(Mutex<Timestamp>);
    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            *self.0.lock().unwrap()
        }
        fn monotonic(&self) -> Duration {
            Duration::from_micros(u64::try_from(self.now().micros()).unwrap())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hand(Mutex::new(Timestamp::Y2020)));
    let access = Access::open(folder.path(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let later = || {
        let mut now = clock.0.lock().unwrap();
        *now = now.plus_micros(60_000_000);
        *now
    };
    let user = || NewUser {
        name: "ann".to_owned(),
        role: "analyst".to_owned(),
        scope: Scope::ALL,
        password: String::new(),
    };
    access.create_user(By::Machine, user()).unwrap();
    let made = later();
    let is_there = |kind| access.account(kind, "ann", made).is_some();
    assert!(is_there(Kind::User) && !is_there(Kind::Token));
    for (disabled, there) in [(true, false), (false, true)] {
        let change = UserChange { disabled: Some(disabled), ..UserChange::default() };
        access.change_user(By::Machine, "ann", change).unwrap();
        assert_eq!(is_there(Kind::User), there);
    }
    access.delete_user(By::Machine, "ann").unwrap();
    assert!(!is_there(Kind::User));
    later();
    access.create_user(By::Machine, user()).unwrap();
    assert!(!is_there(Kind::User), "another of the same name");
    access.create_token("robot", Role::Analyst, &[5; 32]).unwrap();
    let made = later();
    assert!(access.account(Kind::Token, "robot", made).is_some());
    assert!(access.account(Kind::Token, "robot", Timestamp::Y2020).is_none());
    access.drop_token(By::Machine, "robot").unwrap();
    assert!(access.account(Kind::Token, "robot", made).is_none());
}

/// Seconds since the start, set by hand.
#[derive(Default)]
struct Seconds(std::sync::atomic::AtomicU64);

impl Clock for Seconds {
    fn now(&self) -> Timestamp {
        Timestamp::Y2020
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }
}

fn ann() -> NewUser {
    let (name, role) = ("ann".to_owned(), Role::Viewer.name().to_owned());
    NewUser { name, role, scope: Scope::ALL, password: String::new() }
}

#[test]
fn a_login_waits_for_a_database_at_work_rather_than_not_know_a_user_just_made() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = open(folder.path());
    open(folder.path()).create_user(By::Machine, ann()).unwrap();
    let at_work = daemon.db();
    std::thread::scope(|scope| {
        let login = scope.spawn(|| daemon.principal("ann"));
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(5));
            assert!(!login.is_finished(), "it answered without having looked");
        }
        drop(at_work);
        assert_eq!(login.join().unwrap().unwrap().name, "ann");
    });
}

#[test]
fn a_look_that_a_database_at_work_prevented_is_made_up_for_by_the_next_request() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(Seconds::default());
    let daemon = Access::open(folder.path(), Arc::<Seconds>::clone(&clock)).unwrap();
    open(folder.path()).create_token("root", Role::Admin, &[4; 32]).unwrap();
    clock.0.store(10, std::sync::atomic::Ordering::Relaxed);
    let at_work = daemon.db();
    assert!(!daemon.refresh());
    drop(at_work);
    assert!(daemon.check(&token_text(&[4; 32])).is_some(), "in the same second");
}

#[test]
fn a_token_that_nobody_knows_waits_for_a_database_at_work() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(Seconds::default());
    let daemon = Access::open(folder.path(), Arc::<Seconds>::clone(&clock)).unwrap();
    open(folder.path()).create_token("root", Role::Admin, &[4; 32]).unwrap();
    clock.0.store(10, std::sync::atomic::Ordering::Relaxed);
    let held = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let at_work = daemon.db();
            held.wait();
            while daemon.waiting.try_lock().is_ok() {
                std::thread::yield_now();
            }
            drop(at_work);
        });
        held.wait();
        assert!(daemon.check(&token_text(&[4; 32])).is_some());
    });
}
