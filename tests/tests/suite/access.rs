//! Users, roles and tokens, made on the command line while the collector runs.

use std::process::Stdio;

use custody_event::Digest;
use custody_evidence::AgentKey;
use custody_evidence::claim::Claim;
use custody_tests::{Collector, World, http, query, until};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery staple";

/// `custody-collector <args> --data-dir … `: the data directory goes behind the first word.
fn cli(collector: &Collector, args: &[&str]) -> custody_tests::process::Said {
    let dir = collector.data_dir.to_str().unwrap();
    Collector::cli(&[&[args[0], "--data-dir", dir], &args[1..]].concat())
}

fn send(
    collector: &Collector,
    method: &str,
    path: &str,
    token: &str,
    body: &Value,
) -> (u16, Value) {
    let body = body.to_string();
    let answer = http::request(method, collector.address, path, Some(token), body.as_bytes());
    let answer = answer.unwrap();
    let json = if answer.body.is_empty() { Value::Null } else { answer.json() };
    (answer.status, json)
}

fn login(collector: &Collector, password: &str) -> (u16, Value) {
    let body = json!({ "name": "ann", "password": password });
    send(collector, "POST", "/v1/login", "", &body)
}

#[test]
fn a_user_made_while_the_collector_runs_keeps_the_session_over_kill_9_until_disabled() {
    let world = World::new("access_user");
    let mut collector = Collector::started(&world, "collector");
    let file = world.path("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let file = file.to_str().unwrap();
    let create = ["user", "create", "ann", "--role", "viewer", "--password-file", file];
    cli(&collector, &create).expect(0, &["user ann may log in as viewer"]);
    cli(&collector, &create).expect(1, &["already"]);
    cli(&collector, &["user", "create", "bob", "--role", "viewer", "--password", PASSWORD])
        .expect(64, &["--password"]);
    std::fs::write(world.path("short"), "short\n").unwrap();
    let short = world.path("short");
    cli(&collector, &["user", "password", "ann", "--password-file", short.to_str().unwrap()])
        .expect(64, &["12 characters"]);
    cli(&collector, &["user", "list"]).expect(0, &["viewer", "ann"]);
    assert_eq!(login(&collector, "wrong wrong wrong").0, 401);
    let (status, said) = login(&collector, PASSWORD);
    assert_eq!((status, &said["role"]), (200, &json!("viewer")), "{said}");
    let session = said["token"].as_str().unwrap().to_owned();
    assert_eq!(send(&collector, "GET", "/v1/users", &session, &Value::Null).0, 403);
    // What happened in the last quarter of a second before a kill may be told by nobody.
    until("logins are events", world.patience(), || {
        let found = |outcome: &str| {
            let line =
                format!("action:authentication.login actor:ann outcome:{outcome} ip:127.0.0.1");
            query::all(&collector, &line).len()
        };
        let refused = query::all(&collector, "action:authentication.authorize actor:ann").len();
        (found("success") == 1 && found("failure") == 1 && refused == 1).then_some(())
    });
    collector.kill();
    collector.start();
    collector.wait_ready();
    let (status, me) = send(&collector, "GET", "/v1/me", &session, &Value::Null);
    assert_eq!((status, &me["name"]), (200, &json!("ann")), "the session outlives a kill");
    cli(&collector, &["user", "disable", "ann"]).expect(0, &[]);
    until("the disabled user's session is refused", world.patience(), || {
        (send(&collector, "GET", "/v1/me", &session, &Value::Null).0 == 401).then_some(())
    });
    assert_eq!(login(&collector, PASSWORD).0, 401);
    until("what was done is an event", world.patience(), || {
        let found = |line: &str| !query::all(&collector, line).is_empty();
        let all = [
            "action:user.create target:ann",
            "action:user.disable target:ann",
            "action:authentication.login actor:ann reason:disabled",
            "action:authentication.authorize actor:ann outcome:denied reason:administer",
            "action:authentication.authorize outcome:denied reason:unknown_token",
        ];
        all.into_iter().all(found).then_some(())
    });
    assert_eq!(collector.stop().code(), Some(0));
    assert_stands_nowhere(&collector, PASSWORD);
    assert_stands_nowhere(&collector, &session);
}

/// No file of the collector, and not its log, holds this.
fn assert_stands_nowhere(collector: &Collector, secret: &str) {
    let mut folders = vec![collector.data_dir.clone()];
    let mut files = vec![collector.stderr.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{} holds a secret", file.display());
    }
}

#[test]
fn tokens_of_own_roles_are_bounded_and_end_and_one_administrator_stays() {
    let world = World::new("access_token");
    let mut collector = Collector::started(&world, "collector");
    cli(&collector, &["role", "create", "finder", "--permissions", "search,fly"])
        .expect(64, &["fly", "view_raw"]);
    cli(&collector, &["role", "create", "finder", "--permissions", "search"]).expect(0, &[]);
    cli(&collector, &["role", "list"]).expect(0, &["finder", "auditor"]);
    let create = |name: &str, more: &[&str]| {
        let args = [&["token", "create", "--name", name, "--role", "finder"], more].concat();
        let said = cli(&collector, &args);
        said.expect(0, &[]);
        said.out.trim().to_owned()
    };
    let all = create("all", &["--expires", "90d"]);
    let none = create("none", &["--tenant", "acme*", "--host", "web1"]);
    let args = ["token", "create", "--name", "x", "--role", "finder", "--category", "a*b"];
    cli(&collector, &args).expect(64, &["at the end alone"]);
    cli(&collector, &["token", "list"]).expect(0, &["tenant:acme*", "host:web1", "finder"]);
    until("the collector's own events are found", world.patience(), || {
        let (status, page) = send(&collector, "GET", "/v1/events", &all, &Value::Null);
        (status == 200 && page["total"]["value"].as_u64() > Some(0)).then_some(())
    });
    let (status, page) = send(&collector, "GET", "/v1/events", &none, &Value::Null);
    assert_eq!((status, &page["total"]["value"]), (200, &json!(0)), "{page}");
    assert_eq!(send(&collector, "GET", "/v1/agents", &none, &Value::Null).0, 403);
    cli(&collector, &["role", "delete", "finder"]).expect(1, &["has this role"]);
    cli(&collector, &["token", "revoke", "admin"]).expect(1, &["another administrator"]);
    cli(&collector, &["token", "revoke", "all"]).expect(0, &[]);
    until("the revoked token is refused", world.patience(), || {
        (send(&collector, "GET", "/v1/me", &all, &Value::Null).0 == 401).then_some(())
    });
    assert_eq!(collector.stop().code(), Some(0));
    collector.verify().expect(0, &[]);
}

#[test]
fn a_password_comes_from_standard_input_too() {
    use std::io::Write;
    let world = World::new("access_stdin");
    let mut collector = Collector::started(&world, "collector");
    let mut command = std::process::Command::new(custody_tests::collector::binary());
    command.args(["user", "--data-dir", collector.data_dir.to_str().unwrap(), "create", "ann"]);
    command.args(["--role", "auditor"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(login(&collector, PASSWORD).0, 200);
    assert_eq!(collector.stop().code(), Some(0));
}

fn enroll(collector: &Collector, token: &str, agent: &str, secret: u8) -> (u16, Value) {
    let key = AgentKey::from_secret(&[secret; 32]);
    enroll_as(collector, token, agent, (&key, &key))
}

/// Brings the public half of the first key, and signs with the second.
fn enroll_as(
    collector: &Collector,
    token: &str,
    agent: &str,
    (brought, signs): (&AgentKey, &AgentKey),
) -> (u16, Value) {
    let bearer = Digest::of(token.as_bytes());
    let claim = Claim { agent: agent.parse().unwrap(), bearer, host: "77", tls_key: "" };
    let proof = claim.prove(signs, &[]);
    let key = brought.public();
    let body = json!({ "agent": agent, "host": "77", "hostname": "web9", "key": key,
        "version": "1", "proof": proof });
    send(collector, "POST", "/v1/enroll", token, &body)
}

/// The token for enrolling lets a host in, and lets nobody take another agent's place: neither with a key of their own, nor
/// with that agent's public key, which everybody may read, nor with a statement that was overheard.
#[test]
fn whoever_has_the_enrolment_token_cannot_take_an_agents_place_without_its_key() {
    let world = World::new("access_reenroll");
    let mut collector = Collector::started(&world, "collector");
    let token = std::fs::read_to_string(collector.enroll_token()).unwrap();
    let (token, agent) = (token.trim(), "33".repeat(16));
    assert_eq!(enroll(&collector, token, &agent, 3).0, 200);
    let (own, thief) = (AgentKey::from_secret(&[3; 32]), AgentKey::from_secret(&[4; 32]));
    let (status, said) = enroll_as(&collector, token, &agent, (&thief, &thief));
    assert_eq!((status, &said["code"]), (409, &"key_conflict".into()), "{said}");
    let (status, said) = enroll_as(&collector, token, &agent, (&own, &thief));
    assert_eq!((status, &said["code"]), (403, &"key_unknown".into()), "{said}");
    let bare = json!({ "agent": agent, "host": "77", "key": own.public() });
    let (status, said) = send(&collector, "POST", "/v1/enroll", token, &bare);
    assert_eq!((status, &said["code"]), (403, &"bad_signature".into()), "{said}");
    assert!(said["detail"].as_str().unwrap().contains("`proof` is missing"), "{said}");
    // Made for another token.
    let other = cli(&collector, &["token", "create", "--name", "other", "--role", "enroll"]);
    let claim = Claim {
        agent: agent.parse().unwrap(),
        bearer: Digest::of(other.out.trim().as_bytes()),
        host: "77",
        tls_key: "",
    };
    let body = json!({ "agent": agent, "host": "77", "key": own.public(),
        "proof": claim.prove(&own, &[]) });
    let (status, said) = send(&collector, "POST", "/v1/enroll", token, &body);
    assert_eq!((status, &said["code"]), (403, &"bad_signature".into()), "{said}");
    assert_eq!(enroll(&collector, token, &agent, 3).0, 200, "its owner may");
    // No certificate is asked of whoever speaks plain HTTP, and none is signed.
    let path = format!("/v1/agents/{agent}/certificate");
    let admin = std::fs::read_to_string(collector.data_dir.join("admin.token")).unwrap();
    assert_eq!(send(&collector, "POST", &path, admin.trim(), &json!({})).0, 403);
    assert_eq!(collector.stop().code(), Some(0));
}

/// The collector writes into its own stream as an agent of its own: nobody else may.
#[test]
fn nobody_enrols_in_the_collectors_name_and_a_token_for_one_agent_enrols_one() {
    let world = World::new("access_enroll");
    let collector = Collector::started(&world, "collector");
    let token = std::fs::read_to_string(collector.enroll_token()).unwrap();
    let own = until("the collector has told something", world.patience(), || {
        let events = query::all(&collector, "action:*");
        events.iter().find_map(|event| Some(event["origin"]["agent"].as_str()?.to_owned()))
    });
    let (status, said) = enroll(&collector, token.trim(), &own, 9);
    assert_eq!(status, 409, "{said}");
    let made =
        cli(&collector, &["token", "create", "--name", "web1", "--role", "enroll", "--once"]);
    made.expect(0, &[]);
    let once = made.out.trim();
    let agents = ["11".repeat(16), "22".repeat(16)];
    until("the collector knows the token", world.patience(), || {
        (enroll(&collector, once, &agents[0], 1).0 == 200).then_some(())
    });
    let (status, said) = enroll(&collector, once, &agents[1], 2);
    assert_eq!(status, 403, "{said}");
    assert!(said["detail"].as_str().unwrap().contains(&agents[0]), "{said}");
    assert_eq!(enroll(&collector, once, &agents[0], 1).0, 200, "its answer may have been lost");
    assert_eq!(enroll(&collector, token.trim(), &agents[1], 2).0, 200, "others enrol many");
}

/// Before it is known who asks: not one byte more than questions need.
#[test]
fn a_long_body_is_refused_from_anybody() {
    let world = World::new("access_bodies");
    let collector = Collector::started(&world, "collector");
    let long = json!({ "name": "x".repeat(70_000) });
    for path in ["/v1/holds", "/v1/erasures", "/v1/exports", "/v1/login", "/v1/archive/restore"] {
        assert_eq!(send(&collector, "POST", path, "", &long).0, 413, "{path}");
    }
}
