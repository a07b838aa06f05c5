//! Users, tokens and roles through the API: what may be given, and what never comes back.

use http::Method;
use serde_json::{Value, json};

use super::world::{Answer, Subject, World};
use crate::access::{Access, Authenticator};

const PASSWORD: &str = "correct horse battery";

impl World {
    async fn send_json(&self, method: Method, path: &str, who: &str, body: &Value) -> Answer {
        self.ask(&method, path, &body.to_string(), self.named(who), false).await
    }

    fn bearing(&self, token: &str) -> Subject {
        Subject { bearer: Some(token.to_owned()), ..self.nobody() }
    }

    async fn login(&self, name: &str, password: &str) -> Answer {
        let body = json!({ "name": name, "password": password }).to_string();
        self.ask(&Method::POST, "/v1/login", &body, &self.nobody(), false).await
    }
}

fn user(name: &str, role: &str, scope: &Value) -> Value {
    json!({ "name": name, "password": PASSWORD, "role": role, "scope": scope })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_logs_in_asks_and_logs_out_and_a_restart_ends_no_session() {
    let world = World::new().await;
    let acme = json!({ "tenants": ["acme"] });
    let ann = user("Ann", "viewer", &acme);
    let made = world.send_json(Method::POST, "/v1/users", "admin", &ann);
    let made = made.await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(!made.body.contains(PASSWORD) && !made.body.contains("argon2"), "{}", made.body);
    let answer = world.login("ann", PASSWORD).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let said = answer.json();
    assert_eq!((&said["name"], &said["role"]), (&json!("ann"), &json!("viewer")));
    assert_eq!(said["scopes"], json!([acme]));
    let session = said["token"].as_str().unwrap();
    let who = world.bearing(session);
    let page = world.ask(&Method::GET, "/v1/events", "", &who, false).await.json();
    assert_eq!(page["total"]["value"], 3);
    let again =
        Access::open(world.folder(), std::sync::Arc::new(custody_event::SystemClock::new()));
    assert_eq!(again.unwrap().check(session).unwrap().name, "ann", "known after a restart");
    let me = world.ask(&Method::GET, "/v1/me", "", &who, false).await.json();
    assert_eq!(me["permissions"], json!(["search", "view_raw"]));
    assert_eq!(world.ask(&Method::POST, "/v1/logout", "", &who, false).await.status, 204);
    assert_eq!(world.ask(&Method::GET, "/v1/me", "", &who, false).await.status, 401);
    let list = world.get("/v1/users", "admin").await.1;
    let ann = list["users"].as_array().unwrap().iter().find(|user| user["name"] == "ann").unwrap();
    assert!(ann["last_login"].is_string() && ann.get("password").is_none(), "{ann}");
    world.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_or_being_disabled_ends_every_session() {
    let world = World::new().await;
    let all = json!({});
    world.send_json(Method::POST, "/v1/users", "admin", &user("ann", "viewer", &all)).await;
    let session = |answer: Answer| answer.json()["token"].as_str().unwrap().to_owned();
    let first = world.bearing(&session(world.login("ann", PASSWORD).await));
    let other = "another long one";
    for (old, new, status) in
        [("wrong wrong wrong", other, 401), (PASSWORD, "short", 400), (PASSWORD, other, 204)]
    {
        let body = json!({ "old": old, "new": new }).to_string();
        let answer = world.ask(&Method::POST, "/v1/me/password", &body, &first, false).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(!answer.body.contains(new));
    }
    assert_eq!(world.ask(&Method::GET, "/v1/me", "", &first, false).await.status, 401);
    assert_eq!(world.login("ann", PASSWORD).await.status, 401);
    let second = world.bearing(&session(world.login("ann", other).await));
    let disable = json!({ "disabled": true });
    let done = world.send_json(Method::PATCH, "/v1/users/ann", "admin", &disable).await;
    assert_eq!((done.status, &done.json()["disabled"]), (200, &json!(true)));
    assert_eq!(world.ask(&Method::GET, "/v1/me", "", &second, false).await.status, 401);
    let (disabled, wrong) = (world.login("ann", other).await, world.login("ann", "wrong").await);
    assert_eq!((disabled.status, disabled.body), (401, wrong.body));
    world.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_nobody_has_are_answered_and_locked_as_others() {
    let world = World::new().await;
    let ann = user("ann", "viewer", &json!({}));
    world.send_json(Method::POST, "/v1/users", "admin", &ann).await;
    let mut answers = Vec::new();
    for name in ["ann", "nobody"] {
        let mut said = Vec::new();
        for _ in 0..6 {
            let answer = world.login(name, "wrong wrong wrong").await;
            let body = answer.body.replace(|c: char| c.is_ascii_digit(), "0");
            said.push((answer.status, body));
        }
        assert_eq!(said.last().unwrap().0, 429, "{name}: {said:?}");
        answers.push(said);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(world.login("ann", PASSWORD).await.status, 429, "not even with the right one");
    for _ in 0..600 {
        let path =
            "/v1/events?q=category:authentication+(action:authentication.lock+OR+outcome:failure)";
        let (_, page) = world.get(path, "admin").await;
        let events = page["events"].as_array().unwrap().clone();
        let locked = events.iter().any(|event| {
            event["action"] == "authentication.lock" && event["targets"][0]["id"] == "ann"
        });
        let failed = events.iter().any(|event| {
            event["actor"]["name"] == "ann" && event["reason"]["code"] == "invalid_credentials"
        });
        assert!(!page.to_string().contains("wrong wrong") && !page.to_string().contains("nobody"));
        if locked && failed {
            return world.close();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the lock-out did not become an event");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_or_takes_what_they_do_not_have() {
    let world = World::new().await;
    let scoped = "admin of the right tenant";
    let (all, acme) = (json!({}), json!({ "tenants": ["acme"] }));
    let post = |path: &'static str, who: &'static str, body: Value| {
        let world = &world;
        async move { world.send_json(Method::POST, path, who, &body).await.status }
    };
    let token = |name: &str, role: &str, scope: &Value| json!({ "name": name, "role": role, "scope": scope });
    assert_eq!(post("/v1/users", scoped, user("u1", "viewer", &all)).await, 403);
    assert_eq!(post("/v1/users", scoped, user("u1", "admin", &acme)).await, 201);
    assert_eq!(post("/v1/tokens", scoped, token("t1", "viewer", &all)).await, 403);
    assert_eq!(
        post("/v1/tokens", scoped, token("t1", "viewer", &json!({"hosts": ["x"]}))).await,
        403
    );
    assert_eq!(post("/v1/tokens", scoped, token("t1", "enroll", &acme)).await, 403);
    assert_eq!(post("/v1/tokens", scoped, token("t1", "viewer", &acme)).await, 201);
    // One who administers and no more makes no one who may do more.
    let keeper = json!({ "name": "keeper", "permissions": ["administer"] });
    assert_eq!(post("/v1/roles", "admin", keeper).await, 201);
    assert_eq!(post("/v1/tokens", "admin", token("k1", "keeper", &all)).await, 201);
    let second = token("k2", "keeper", &all);
    let made = world.send_json(Method::POST, "/v1/tokens", "admin", &second);
    let keeper = world.bearing(made.await.json()["token"].as_str().unwrap());
    let wider = json!({ "name": "wide", "permissions": ["erase"] });
    for (method, path, body, status) in [
        (Method::POST, "/v1/users", user("u2", "viewer", &all), 403),
        (Method::POST, "/v1/users", user("u2", "keeper", &all), 201),
        (Method::POST, "/v1/roles", wider, 403),
        (Method::PATCH, "/v1/users/u2", json!({ "role": "admin" }), 403),
        // A new password for an administrator would be a way to become one.
        (Method::PATCH, "/v1/users/u1", json!({ "password": "mine mine mine" }), 404),
        (Method::DELETE, "/v1/users/u1", json!({}), 404),
        (Method::DELETE, "/v1/tokens/admin", json!({}), 404),
        (Method::GET, "/v1/users/u1", json!({}), 404),
    ] {
        let answer = world.ask(&method, path, &body.to_string(), &keeper, false).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
    }
    let tokens = world.ask(&Method::GET, "/v1/tokens", "", &keeper, false).await.json();
    let reach =
        |token: &Value| ["keeper", "idle", "enroll"].contains(&token["role"].as_str().unwrap());
    assert!(tokens["tokens"].as_array().unwrap().iter().all(reach), "{tokens}");
    world.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_administrator_stays_and_a_token_ends_with_its_owner() {
    let world = World::new().await;
    let all = json!({});
    world.send_json(Method::POST, "/v1/users", "admin", &user("boss", "admin", &all)).await;
    let session = world.login("boss", PASSWORD).await.json()["token"].as_str().unwrap().to_owned();
    let boss = world.bearing(&session);
    let body = json!({ "name": "boss's script", "role": "auditor" }).to_string();
    let made = world.ask(&Method::POST, "/v1/tokens", &body, &boss, false).await.json();
    assert_eq!(made["owner"], "boss");
    let script = world.bearing(made["token"].as_str().unwrap());
    assert_eq!(world.ask(&Method::GET, "/v1/me", "", &script, false).await.status, 200);
    let viewer = json!({ "role": "viewer" });
    world.send_json(Method::PATCH, "/v1/users/boss", "admin", &viewer).await;
    let me = world.ask(&Method::GET, "/v1/me", "", &script, false).await.json();
    assert_eq!(me["permissions"], json!(["search", "view_raw"]), "no more than its owner");
    let admin = json!({ "role": "admin" });
    world.send_json(Method::PATCH, "/v1/users/boss", "admin", &admin).await;
    // Every other administrator without a bound goes; then boss must stay.
    for name in ["admin", "first%20admin"] {
        let path = format!("/v1/tokens/{name}");
        let answer = world.ask(&Method::DELETE, &path, "", &boss, false);
        let answer = answer.await;
        assert_eq!(answer.status, 204, "{name}: {}", answer.body);
    }
    for (method, path, body) in [
        (Method::DELETE, "/v1/users/boss", json!({})),
        (Method::PATCH, "/v1/users/boss", json!({ "disabled": true })),
        (Method::PATCH, "/v1/users/boss", json!({ "role": "viewer" })),
        (Method::PATCH, "/v1/users/boss", json!({ "scope": { "tenants": ["acme"] } })),
    ] {
        let answer = world.ask(&method, path, &body.to_string(), &boss, false).await;
        assert_eq!(answer.status, 409, "{method} {path}: {}", answer.body);
        assert!(answer.body.contains("administrator"), "{}", answer.body);
    }
    world.access.create_token("next admin", crate::access::Role::Admin, &[77; 32]).unwrap();
    assert_eq!(world.ask(&Method::DELETE, "/v1/users/boss", "", &boss, false).await.status, 204);
    assert_eq!(world.ask(&Method::GET, "/v1/me", "", &script, false).await.status, 401);
    assert_eq!(world.ask(&Method::GET, "/v1/me", "", &boss, false).await.status, 401);
    world.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_accounts_that_cannot_be_are_refused_without_an_echo() {
    let world = World::new().await;
    let all = json!({});
    let mut long = user("u", "viewer", &all);
    long["password"] = json!("s3cret");
    let mut own = user("long.enough.name", "viewer", &all);
    own["password"] = json!("Long.Enough.Name");
    let mut extra = user("u", "viewer", &all);
    extra["passwort"] = json!("s3cret");
    for (path, body) in [
        ("/v1/users", long),
        ("/v1/users", own),
        ("/v1/users", extra),
        ("/v1/users", user("a b", "viewer", &all)),
        ("/v1/users", user("u", "nosuchrole", &all)),
        ("/v1/users", user("u", "enroll", &all)),
        ("/v1/users", user("u", "viewer", &json!({ "tenants": ["a*b"] }))),
        ("/v1/users", user("u", "viewer", &json!({ "tenant": ["a"] }))),
        ("/v1/tokens", json!({ "name": "", "role": "viewer" })),
        (
            "/v1/tokens",
            json!({ "name": "x", "role": "viewer", "expires": "2020-01-01T00:00:00.000000Z" }),
        ),
        ("/v1/roles", json!({ "name": "r", "permissions": ["fly"] })),
    ] {
        let answer = world.send_json(Method::POST, path, "admin", &body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        assert!(!answer.body.contains("s3cret") && !answer.body.contains("Long.Enough"));
    }
    for (path, body) in [
        ("/v1/tokens", json!({ "name": "admin", "role": "viewer" })),
        ("/v1/users", user("idle", "viewer", &all)),
        ("/v1/roles", json!({ "name": "viewer", "permissions": [] })),
        ("/v1/roles", json!({ "name": "finder", "permissions": [] })),
    ] {
        let answer = world.send_json(Method::POST, path, "admin", &body).await;
        assert_eq!(answer.status, 409, "{body}: {}", answer.body);
    }
    for (path, status) in
        [("/v1/roles/viewer", 409), ("/v1/roles/finder", 409), ("/v1/roles/x", 404)]
    {
        let answer = world.send_json(Method::DELETE, path, "admin", &all).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    world.close();
}
