use std::sync::Arc;

use axum::body::Body;
use custody_event::{Clock, SystemClock};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::access::{
    Access, By, Logins, NewToken, NewUser, Permission, Permissions, Scope, password, token_text,
};
use crate::index::tests::{Bench, Spec, text_of};
use crate::query::api::{self, QueryState};
use crate::store::Receipt;

/// The secrets of a viewer and of one who may do nothing.
const GOOD: [u8; 32] = [1; 32];
const IDLE: [u8; 32] = [2; 32];

fn access(folder: &std::path::Path, clock: &SystemClock) -> Arc<Access> {
    let access = Access::open(folder, Arc::new(clock.clone())).unwrap();
    access.create_role(By::Machine, "idle", Permissions::of(&[])).unwrap();
    access.create_role(By::Machine, "reader", reads()).unwrap();
    for (role, secret) in [("reader", &GOOD), ("idle", &IDLE)] {
        let (name, scope) = (format!("the {role}"), Scope::ALL);
        let new = NewToken { name, role: role.to_owned(), scope, expires: None, once: false };
        access.add_token(By::Machine, new, secret).unwrap();
    }
    let kept = password::hashed("ann", "correct horse battery", &[3; 16]).unwrap();
    let (name, role) = ("ann".to_owned(), "viewer".to_owned());
    let new = NewUser { name, role, scope: Scope::ALL, password: kept };
    access.create_user(By::Machine, new).unwrap();
    Arc::new(access)
}

fn reads() -> Permissions {
    Permissions::of(&[Permission::Search, Permission::ViewRaw, Permission::ViewSensitive])
}

struct App {
    router: axum::Router,
    clock: SystemClock,
    _indexer: crate::index::Indexer,
    _bench: Bench,
    _folder: tempfile::TempDir,
}

impl App {
    fn new() -> Self {
        let bench = Bench::new();
        let clock = SystemClock::new();
        let now = clock.now();
        let specs: Vec<Spec> = (0..120)
            .map(|number| Spec {
                number,
                time: now.micros() - 3_600_000_000 + i64::try_from(number).unwrap(),
                actor: 0,
                action: u8::try_from(number % 3).unwrap(),
                ip: 0,
                text: u8::try_from(number % 5).unwrap(),
            })
            .collect();
        bench.log.append(&text_of(&specs), Receipt { held: vec![], received: now }).unwrap();
        let (store, indexer) = bench.indexed();
        let folder = tempfile::tempdir().unwrap();
        let access = access(folder.path(), &clock);
        let query = QueryState {
            store,
            auth: Arc::<Access>::clone(&access),
            clock: Arc::new(clock.clone()),
            prover: None,
            acts: None,
        };
        let logins = Arc::new(Logins::new(access, None, Arc::new(clock.clone())));
        let router = api::router(query.clone()).merge(super::router(query, logins, false));
        Self { router, clock, _indexer: indexer, _bench: bench, _folder: folder }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, http::HeaderMap, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn get(&self, path: &str, header: (&str, &str)) -> (StatusCode, http::HeaderMap, String) {
        let request = Request::get(path).header(header.0, header.1);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn login(&self, body: &str) -> (StatusCode, http::HeaderMap, String) {
        self.send(Request::post("/login").body(Body::from(body.to_owned())).unwrap()).await
    }

    async fn cookie(&self) -> String {
        let (status, headers, _) =
            self.login(&format!("token={}&next=%2F", token_text(&GOOD))).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        let cookie = headers[header::SET_COOKIE].to_str().unwrap();
        assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
        assert!(!cookie.contains(&token_text(&GOOD)), "the token stays here");
        cookie.split(';').next().unwrap().to_owned()
    }

    async fn api(&self, path: &str) -> (StatusCode, serde_json::Value) {
        let (status, headers, body) =
            self.get(path, ("authorization", &format!("Bearer {}", token_text(&GOOD)))).await;
        let kind = headers[header::CONTENT_TYPE].to_str().unwrap();
        let expected =
            if status.is_success() { "application/json" } else { "application/problem+json" };
        assert_eq!(kind, expected, "{path}");
        (status, serde_json::from_str(&body).unwrap())
    }
}

#[tokio::test]
async fn the_api_pages_through_everything_once_and_verbatim() {
    let app = App::new();
    let mut path = "/v1/events?limit=50&q=-actor:nobody".to_owned();
    let mut ids = Vec::new();
    loop {
        let (status, page) = app.api(&path).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(page["total"], serde_json::json!({ "value": 120, "exact": true }));
        ids.extend(page["events"].as_array().unwrap().iter().map(|event| event["id"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/events?limit=50&q=-actor:nobody&cursor={cursor}");
    }
    assert_eq!(ids.len(), 120);
    let (_, found) = app.api(&format!("/v1/events/{}", ids[60].as_str().unwrap())).await;
    assert_eq!(found["event"]["id"], ids[60]);
    assert_eq!(found["block"]["seq"], 0);
    assert_eq!(found["block"]["header_hash"].as_str().unwrap().len(), 64);
    let before = found["neighbours"]["before"].as_array().unwrap();
    assert!(!before.is_empty() && before.len() <= 10);
    let (_, stats) = app.api("/v1/stats?group_by=action&interval=1h").await;
    assert_eq!(stats["total"], 120);
    assert_eq!(stats["groups"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_api_says_what_is_wrong_and_where() {
    let app = App::new();
    for (path, status, parameter) in [
        ("/v1/events?q=aktor%3Ajane", 400, "q"),
        ("/v1/events?limit=0", 400, "limit"),
        ("/v1/events?limit=1001", 400, "limit"),
        ("/v1/events?cursor=x", 400, "cursor"),
        ("/v1/events?ip=300.1.1.1", 400, "ip"),
        ("/v1/events?from=gestern", 400, "from"),
        ("/v1/events?colour=red", 400, "query"),
        ("/v1/stats?group_by=colour", 400, "group_by"),
        ("/v1/stats?interval=soon", 400, "interval"),
    ] {
        let (found, problem) = app.api(path).await;
        assert_eq!(found.as_u16(), status, "{path}");
        assert_eq!(problem["parameter"], parameter, "{path}: {problem}");
        assert_eq!(problem["status"], status);
    }
    let (_, problem) = app.api("/v1/events?q=x1+aktor%3Ajane").await;
    assert_eq!(problem["column"], 4);
    for id in ["00112233445566778899aabbccddeeff", "nonsense", "%3Cscript%3E"] {
        assert_eq!(app.api(&format!("/v1/events/{id}")).await.0, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn nobody_sees_an_event_without_a_token_that_may() {
    let app = App::new();
    for path in ["/v1/events", "/v1/stats", "/v1/events/00112233445566778899aabbccddeeff"] {
        for (scheme, token, status) in [
            ("Bearer", "bad".to_owned(), 401),
            ("Basic", token_text(&GOOD), 401),
            ("Bearer", token_text(&IDLE), 403),
        ] {
            let bearer = format!("{scheme} {token}");
            let (found, _, body) = app.get(path, ("authorization", &bearer)).await;
            assert_eq!(found.as_u16(), status, "{path} {bearer}");
            assert!(!body.contains("contract"));
        }
    }
    for path in ["/", "/events/00112233445566778899aabbccddeeff"] {
        for cookie in ["x=y", "custody_session=", "custody_session=good", "custody_session"] {
            let (status, headers, _) = app.get(path, ("cookie", cookie)).await;
            assert_eq!(status, StatusCode::SEE_OTHER);
            assert!(headers[header::LOCATION].to_str().unwrap().starts_with("/login?next=%2F"));
        }
    }
    let idle = format!("token={}", token_text(&IDLE));
    for body in ["token=bad", &idle, "", "name=ann&password=wrong", "name=nobody&password=wrong"] {
        assert_eq!(app.login(body).await.0, StatusCode::UNAUTHORIZED, "{body}");
    }
}

#[tokio::test]
async fn a_login_leads_back_but_never_elsewhere() {
    let app = App::new();
    for (next, location) in [
        ("%2F%3Fq%3Dx", "/?q=x"),
        ("https%3A%2F%2Fevil.example", "/"),
        ("%2F%2Fevil.example", "/"),
        ("%2F%5Cevil.example", "/"),
        ("", "/"),
    ] {
        let (_, headers, _) = app.login(&format!("token={}&next={next}", token_text(&GOOD))).await;
        assert_eq!(headers[header::LOCATION], location);
    }
}

#[tokio::test]
async fn a_logout_and_another_site_s_form() {
    let app = App::new();
    let cookie = app.cookie().await;
    assert_eq!(app.get("/", ("cookie", &cookie)).await.0, StatusCode::OK);
    let post = |site: &str| {
        Request::post("/logout").header("cookie", &cookie).header("sec-fetch-site", site)
    };
    app.send(post("cross-site").body(Body::empty()).unwrap()).await;
    assert_eq!(app.get("/", ("cookie", &cookie)).await.0, StatusCode::OK, "not by a stranger");
    app.send(post("same-origin").body(Body::empty()).unwrap()).await;
    assert_eq!(app.get("/", ("cookie", &cookie)).await.0, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_user_logs_in_with_name_and_password_and_is_locked_after_five_wrong_ones() {
    let app = App::new();
    let right = "name=Ann&password=correct+horse+battery&next=%2F";
    let (status, headers, _) = app.login(right).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let cookie =
        headers[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let (status, _, body) = app.get("/", ("cookie", &cookie)).await;
    assert!(status == StatusCode::OK && body.contains(">ann<"), "{body}");
    for name in ["ann", "nobody"] {
        for _ in 0..5 {
            let (status, _, body) = app.login(&format!("name={name}&password=wrong")).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            assert!(body.contains("name or password is wrong"), "{body}");
        }
        let (status, ..) = app.login(&format!("name={name}&password=wrong")).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{name}");
    }
    assert_eq!(app.login(right).await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(app.get("/", ("cookie", &cookie)).await.0, StatusCode::OK, "the session goes on");
}

#[tokio::test]
async fn hostile_texts_stay_texts() {
    let app = App::new();
    let cookie = app.cookie().await;
    for path in [
        "/?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "/?q=%22%3E%3Cscript%3E&actor=%22%3E%3Cscript%3E&period=%3Cscript%3E&from=%22%3E%3Cscript%3E",
        "/?outcome=%22%3E%3Cscript%3E&cursor=%22%3E%3Cscript%3E",
        "/?q=%3Cscript%3E%3A1",
        "/login?next=%22%3E%3Cscript%3E",
        "/events/%3Cscript%3E",
    ] {
        let (_, headers, body) = app.get(path, ("cookie", &cookie)).await;
        assert!(!body.contains("<script"), "{path}");
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
    }
    let (_, page) = app.api("/v1/events?q=field:plan&limit=1").await;
    let id = page["events"][0]["id"].as_str().unwrap();
    let (status, _, body) = app.get(&format!("/events/{id}"), ("cookie", &cookie)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !body.contains("<script"));
    for shown in ["Before", "Free", "Place in the evidence", "line ", "origin.agent"] {
        assert!(body.contains(shown), "{shown}");
    }
}

#[tokio::test]
async fn the_page_shows_rows_pages_and_errors() {
    let app = App::new();
    let cookie = app.cookie().await;
    let (status, _, body) = app.get("/", ("cookie", &cookie)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("120 events") && body.contains("Older →"), "{body}");
    let next = body.split("rel=\"next\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    let (_, _, second) = app.get(&next.replace("&amp;", "&"), ("cookie", &cookie)).await;
    assert!(second.contains("Newest") && second.contains("120 events"));
    let (status, _, wrong) = app.get("/?q=x1+aktor%3Aa", ("cookie", &cookie)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(wrong.contains("x1 aktor:a\n   ^"), "{wrong}");
    let (_, _, none) = app.get("/?q=nosuchword&period=all", ("cookie", &cookie)).await;
    assert!(none.contains("No events found"));
    assert!(app.clock.monotonic().as_secs() < 600);
}

#[test]
fn characters_that_hide_others_are_shown() {
    use super::text::visible;
    assert_eq!(visible("a\u{202e}b\u{1b}[31m\n", false), "a\\u{202e}b\\u{1b}[31m\\u{a}");
    assert_eq!(visible("a\n\tb", true), "a\n\tb");
    assert_eq!(visible("Ärger 管理", false), "Ärger 管理");
}
