//! Every route × every role × every kind of bearer, against the collector's whole router.
//!
//! The list of routes is the router's own: a route without a row in [`ROWS`] fails
//! [`every_route_of_the_router_has_a_row`], whoever adds it. A row says what a bearer needs; what
//! each bearer then gets follows from the roles, and is compared with what is answered.

mod flows;
mod leaks;
pub(super) mod world;

use http::{Method, StatusCode};
use world::{Kind, Subject, World};

use super::Permission;

/// What a route needs.
#[derive(Debug, Clone, Copy)]
enum Need {
    /// Nothing.
    Anybody,
    /// A good user, token or session, whatever it may do.
    Known,
    /// The permission; a scope narrows what is seen.
    Reads(Permission),
    /// All that an export shows.
    Exports,
    /// The permission, and no scope: what is told is of all hosts. Agents too, where said.
    Unbounded { agents: bool },
    /// The permission, and no scope.
    Whole(Permission),
    /// An agent's token.
    Agent,
    /// A token for enrolment.
    Enroller,
    /// A session of somebody who may search; others are sent to the login.
    Page,
}

/// One route: how it is asked here, and what whoever is let in gets.
struct Row {
    method: Method,
    /// As in the router.
    path: &'static str,
    /// As it is asked; `EVENT` stands for the id of an event of the right tenant.
    asked: &'static str,
    body: &'static str,
    need: Need,
    /// What is answered when let in.
    good: u16,
    /// What is answered to somebody of another tenant who is let in.
    wrong: u16,
}

const fn row(
    method: Method,
    path: &'static str,
    asked: &'static str,
    need: Need,
    good: u16,
) -> Row {
    Row { method, path, asked, body: "{}", need, good, wrong: good }
}

/// The table. Bodies are such that being let in changes nothing.
fn rows() -> Vec<Row> {
    use Need::{Agent, Anybody, Enroller, Exports, Known, Page, Reads, Unbounded, Whole};
    use Permission::{Administer, Configure, Erase, Hold, Search};
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const DELETE: Method = Method::DELETE;
    let insider = Unbounded { agents: true };
    let event = |path, asked, need| Row { wrong: 404, ..row(GET, path, asked, need, 200) };
    let block = "/v1/streams/{agent}/{stream}/blocks/{seq}";
    vec![
        row(GET, "/healthz", "/healthz", Anybody, 200),
        row(GET, "/readyz", "/readyz", Anybody, 200),
        // To loopback without a token; here nobody comes from there.
        row(GET, "/metrics", "/metrics", Unbounded { agents: false }, 200),
        row(GET, "/tlog/checkpoint", "/tlog/checkpoint", Anybody, 200),
        row(GET, "/tlog/tile/{*path}", "/tlog/tile/entries/999", insider, 404),
        row(GET, "/v1/log", "/v1/log", insider, 200),
        row(GET, "/tlog/witness/{agent}", "/tlog/witness/00", insider, 404),
        row(POST, "/v1/log/witness", "/v1/log/witness", Agent, 400),
        row(GET, "/v1/agents", "/v1/agents", Unbounded { agents: false }, 200),
        // The token is another agent's.
        row(POST, "/v1/agents/{agent}/keys", "/v1/agents/00/keys", Agent, 403),
        row(POST, "/v1/agents/{agent}/certificate", "/v1/agents/00/certificate", Agent, 403),
        row(POST, block, "/v1/streams/x/y/blocks/z", Agent, 400),
        row(POST, "/v1/enroll", "/v1/enroll", Enroller, 400),
        row(GET, "/v1/events", "/v1/events", Reads(Search), 200),
        event("/v1/events/{id}", "/v1/events/EVENT", Reads(Search)),
        row(GET, "/v1/stats", "/v1/stats?group_by=host", Reads(Search), 200),
        row(GET, "/v1/suggest", "/v1/suggest?field=host", Reads(Search), 200),
        row(GET, "/v1/timeline", "/v1/timeline?host=*", Reads(Search), 200),
        row(GET, "/v1/history", "/v1/history?target=x", Reads(Search), 200),
        row(GET, "/v1/access", "/v1/access?user=*&target=x", Reads(Search), 200),
        row(GET, "/v1/tail", "/v1/tail?duration=x", Reads(Search), 400),
        row(GET, "/openapi.json", "/openapi.json", Anybody, 200),
        row(GET, "/v1/exports", "/v1/exports", Exports, 200),
        row(POST, "/v1/exports", "/v1/exports", Exports, 400),
        row(GET, "/v1/exports/{id}", "/v1/exports/00", Exports, 404),
        row(DELETE, "/v1/exports/{id}", "/v1/exports/00", Exports, 404),
        row(GET, "/v1/exports/{id}/download", "/v1/exports/00/download", Exports, 404),
        row(GET, "/v1/exports/{id}/proof", "/v1/exports/00/proof", Exports, 404),
        row(GET, "/v1/schedules", "/v1/schedules", Exports, 200),
        row(POST, "/v1/schedules", "/v1/schedules", Exports, 400),
        row(DELETE, "/v1/schedules/{id}", "/v1/schedules/00", Exports, 404),
        row(POST, "/v1/retention/run", "/v1/retention/run", Whole(Configure), 400),
        row(GET, "/v1/holds", "/v1/holds", Whole(Hold), 200),
        row(POST, "/v1/holds", "/v1/holds", Whole(Hold), 400),
        row(DELETE, "/v1/holds/{id}", "/v1/holds/0", Whole(Hold), 404),
        row(GET, "/v1/erasures", "/v1/erasures", Whole(Erase), 200),
        row(POST, "/v1/erasures", "/v1/erasures", Whole(Erase), 400),
        row(GET, "/v1/erasures/{id}", "/v1/erasures/0", Whole(Erase), 404),
        row(DELETE, "/v1/erasures/{id}", "/v1/erasures/0", Whole(Erase), 404),
        row(POST, "/v1/erasures/{id}/approve", "/v1/erasures/0/approve", Whole(Erase), 404),
        row(GET, "/v1/archive", "/v1/archive", Whole(Configure), 200),
        row(POST, "/v1/archive/restore", "/v1/archive/restore", Whole(Configure), 400),
        row(POST, "/v1/archive/release", "/v1/archive/release", Whole(Configure), 200),
        row(POST, "/v1/login", "/v1/login", Anybody, 400),
        row(POST, "/v1/logout", "/v1/logout", Known, 409),
        row(GET, "/v1/me", "/v1/me", Known, 200),
        row(POST, "/v1/me/password", "/v1/me/password", Known, 409),
        row(GET, "/v1/users", "/v1/users", Reads(Administer), 200),
        row(POST, "/v1/users", "/v1/users", Reads(Administer), 400),
        row(GET, "/v1/users/{name}", "/v1/users/ghost", Reads(Administer), 404),
        row(Method::PATCH, "/v1/users/{name}", "/v1/users/ghost", Reads(Administer), 404),
        row(DELETE, "/v1/users/{name}", "/v1/users/ghost", Reads(Administer), 404),
        row(GET, "/v1/tokens", "/v1/tokens", Reads(Administer), 200),
        row(POST, "/v1/tokens", "/v1/tokens", Reads(Administer), 400),
        row(DELETE, "/v1/tokens/{name}", "/v1/tokens/ghost", Reads(Administer), 404),
        row(GET, "/v1/roles", "/v1/roles", Reads(Administer), 200),
        row(POST, "/v1/roles", "/v1/roles", Reads(Administer), 400),
        row(DELETE, "/v1/roles/{name}", "/v1/roles/ghost", Reads(Administer), 404),
        row(GET, "/", "/", Page, 200),
        event("/events/{id}", "/events/EVENT", Page),
        row(GET, "/login", "/login", Anybody, 200),
        // Not a form: a real one would be locked out by all these tries.
        Row { body: "\u{0}", ..row(POST, "/login", "/login", Anybody, 400) },
        row(POST, "/logout", "/logout", Anybody, 303),
        // None is configured here; `oidc::tests` logs in with one.
        row(GET, "/oidc/login", "/oidc/login", Anybody, 404),
        row(GET, "/oidc/callback", "/oidc/callback", Anybody, 404),
        row(GET, "/style.css", "/style.css", Anybody, 200),
    ]
}

/// What this bearer must be answered.
fn expected(row: &Row, who: &Subject) -> u16 {
    let reader = matches!(who.kind, Kind::Unbounded | Kind::Right | Kind::Wrong);
    let served = if who.kind == Kind::Wrong { row.wrong } else { row.good };
    let may = |permission| reader && who.permissions.has(permission);
    let known = reader || matches!(who.kind, Kind::Agent | Kind::Enroller);
    let or = |is: bool, refused: u16| if is { served } else { refused };
    match row.need {
        Need::Anybody => served,
        // Tokens of agents and for enrolment are strangers to those who read.
        Need::Known => or(reader, 401),
        Need::Reads(permission) => or(may(permission), if reader { 403 } else { 401 }),
        Need::Exports => {
            use Permission::{Export, ViewRaw, ViewSensitive};
            let all = [Export, ViewRaw, ViewSensitive].into_iter().all(may);
            or(all, if reader { 403 } else { 401 })
        }
        Need::Unbounded { agents } => {
            let all = who.kind == Kind::Unbounded && may(Permission::Search);
            or(all || agents && who.kind == Kind::Agent, if known { 403 } else { 401 })
        }
        Need::Whole(permission) => {
            or(who.kind == Kind::Unbounded && may(permission), if reader { 403 } else { 401 })
        }
        Need::Agent => or(who.kind == Kind::Agent, if known { 403 } else { 401 }),
        Need::Enroller => or(who.kind == Kind::Enroller, if known { 403 } else { 401 }),
        Need::Page => or(may(Permission::Search), 303),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_every_role_and_kind_of_bearer_as_the_table_says() {
    let world = World::new().await;
    let mut wrong = Vec::new();
    let mut asked = 0;
    for row in rows() {
        let path = row.asked.replace("EVENT", &world.event);
        for who in &world.subjects {
            let page = matches!(row.need, Need::Page);
            let answer = world.ask(&row.method, &path, row.body, who, page).await;
            let expected = expected(&row, who);
            asked += 1;
            if answer.status != expected {
                wrong.push(format!(
                    "{} {} as {}: {} instead of {expected}: {}",
                    row.method, row.asked, who.name, answer.status, answer.body
                ));
            }
            if who.kind != Kind::Unbounded && who.kind != Kind::Right {
                world.assert_nothing_leaks(&answer.body, &format!("{path} as {}", who.name));
            }
            if answer.status == StatusCode::UNAUTHORIZED && path.starts_with("/v1") {
                assert!(answer.body.contains("oken"), "{path}: {}", answer.body);
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(asked > 1_000, "{asked}");
    world.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_router_has_a_row() {
    let world = World::new().await;
    let rows = rows();
    let paths = world.paths();
    assert!(paths.len() > 20, "the router tells its paths: {paths:?}");
    let mut found = Vec::new();
    for path in &paths {
        let asked = rows.iter().find(|row| row.path == path).map_or(path.as_str(), |r| r.asked);
        for method in
            [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS]
        {
            let answer = world.ask(&method, asked, "\u{0}", &world.nobody(), false).await;
            if answer.status != StatusCode::METHOD_NOT_ALLOWED {
                found.push(format!("{method} {path}"));
            }
        }
    }
    found.sort();
    let (without, gone) = compared(&found, &rows);
    assert!(without.is_empty(), "routes without a row in the table of permissions: {without:?}");
    assert!(gone.is_empty(), "rows without a route: {gone:?}");
    // And the comparison does find what is missing.
    for number in 0..rows.len() {
        let mut fewer = self::rows();
        let taken = fewer.remove(number);
        let route = format!("{} {}", taken.method, taken.path);
        assert_eq!(compared(&found, &fewer).0, [route]);
    }
    world.close();
}

/// Routes without a row, and rows without a route.
fn compared(found: &[String], rows: &[Row]) -> (Vec<String>, Vec<String>) {
    let known: Vec<String> =
        rows.iter().map(|row| format!("{} {}", row.method, row.path)).collect();
    let less = |left: &[String], right: &[String]| -> Vec<String> {
        left.iter().filter(|one| !right.contains(one)).cloned().collect()
    };
    (less(found, &known), less(&known, found))
}
