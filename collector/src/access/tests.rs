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
    assert_eq!(again.identify(enroll.trim()), Some(Identity::Enroller));
    let database = std::fs::read(folder.path().join("collector.db")).unwrap();
    assert!(memchr::memmem::find(&database, text.trim().as_bytes()).is_none());
}

#[test]
fn an_agent_enrols_again_with_its_key_only() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(folder.path());
    access.enroll(&enrolment(1, 1), &[7; 32], false).unwrap();
    assert!(matches!(access.identify(&token_text(&[7; 32])), Some(Identity::Agent(_))));
    assert_eq!(access.check(&token_text(&[7; 32])), None, "an agent's token reads nothing");
    access.enroll(&enrolment(1, 1), &[8; 32], false).unwrap();
    assert_eq!(access.identify(&token_text(&[7; 32])), None, "the old token is gone");
    assert!(access.identify(&token_text(&[8; 32])).is_some());
    let other = access.enroll(&enrolment(1, 2), &[9; 32], false);
    assert!(matches!(other, Err(AccessError::KeyConflict(_))));
    assert!(access.identify(&token_text(&[8; 32])).is_some());
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
    command.create_token("ann", Role::Viewer, &[5; 32]).unwrap();
    let token = token_text(&[5; 32]);
    assert_eq!(daemon.check(&token).unwrap().name, "ann");
    let twice = command.create_token("ann", Role::Viewer, &[6; 32]);
    assert!(matches!(twice, Err(AccessError::NameTaken(_))));
    command.revoke_token("ann").unwrap();
    assert_eq!(daemon.check(&token), None);
    assert!(matches!(command.revoke_token("ann"), Err(AccessError::NoSuchToken(_))));
    command.create_token("ann", Role::Admin, &[6; 32]).unwrap();
    assert_eq!(command.tokens().unwrap().len(), 2);
}
