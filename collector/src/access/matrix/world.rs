//! A whole collector in this process: two tenants' events, and bearers of every kind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Extension;
use custody_config::shell::StopToken;
use custody_config::{CollectorConfig, CollectorOverrides, Env};
use custody_event::{Clock, Digest, SystemClock, Timestamp};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::access::oidc::Oidc;
use crate::access::{
    Access, Authenticator, By, Enrolment, Logins, NewToken, NewUser, Permission, Permissions, Role,
    Scope, UserChange, password, token_text,
};
use crate::command::derived;
use crate::own::{self, OwnStream};
use crate::retain;
use crate::serve::{App, Limits, Peer};
use crate::store::evidence::{EvidenceLog, Options, TlogOptions, folder_in};
use crate::testing::TestStream;

/// The system's time, and as far ahead as the test wants.
#[derive(Default)]
struct Ahead {
    system: SystemClock,
    micros: AtomicI64,
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.system.now().plus_micros(self.micros.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }
}

/// What kind of bearer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Good, without a scope.
    Unbounded,
    /// Good, of the tenant whose events are asked for.
    Right,
    /// Good, of another tenant.
    Wrong,
    /// Not good any more, or never.
    Bad,
    Agent,
    Enroller,
}

/// Somebody who asks.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) permissions: Permissions,
    pub(super) bearer: Option<String>,
    /// A session of theirs, as the page has it.
    pub(super) session: Option<String>,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }
}

/// What a browser gets.
pub(in crate::access) struct Browsed {
    pub(in crate::access) status: u16,
    pub(in crate::access) body: String,
    headers: http::HeaderMap,
}

impl Browsed {
    /// The first header of this name, or nothing.
    pub(in crate::access) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

pub(in crate::access) struct World {
    _keeping: retain::Worker,
    pub(super) subjects: Vec<Subject>,
    /// An event of the right tenant.
    pub(super) event: String,
    pub(in crate::access) access: Arc<Access>,
    router: axum::Router,
    clock: Arc<Ahead>,
    own: OwnStream,
    log: Arc<EvidenceLog>,
    close: std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>,
    made: AtomicU32,
    folder: tempfile::TempDir,
}

/// What stands in events of the right tenant alone, each word in one place.
pub(super) const SECRETS: [&str; 6] =
    ["acmehost", "zebramessage", "zebraraw", "zebramasked", "zebrasensitive", "zebraactor"];
/// Events of each tenant.
pub(super) const EVENTS: usize = 3;

fn events(tenant: &str, word: &str) -> Vec<String> {
    (0..EVENTS)
        .map(|number| {
            let id = Digest::of(format!("{tenant}{number}").as_bytes()).to_hex()[..32].to_owned();
            let time = Timestamp::Y2020.to_string();
            serde_json::json!({
                "action": "contact.update", "category": "data", "id": id, "tenant": tenant,
                "actor": { "name": format!("{word}actor") },
                "host": format!("{tenant}host"), "observed": time, "time": time, "v": 1,
                "message": format!("{word}message {number}"),
                "changes": [{ "after": format!("{word}masked"), "before": "x", "field": "pin",
                              "masked": true }],
                "details": { "sensitive": { "ssn": format!("{word}sensitive") } },
                "origin": { "input": "app", "raw": format!("{word}raw line {number}") },
                // Both tenants' events stand in one session, so that neighbours could leak.
                "session": { "id": "shared" },
            })
            .to_string()
        })
        .collect()
}

const ROLES: [&str; 6] = ["admin", "auditor", "analyst", "viewer", "finder", "idle"];

fn permissions(role: &str) -> Permissions {
    match role {
        "finder" => Permissions::of(&[Permission::Search]),
        "idle" => Permissions::of(&[]),
        built_in => Role::from_name(built_in).unwrap().permissions(),
    }
}

fn tenant(name: &str) -> Scope {
    Scope { tenants: vec![name.to_owned()], ..Scope::ALL }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(None).await
    }

    /// With an identity provider.
    pub(in crate::access) async fn with(oidc: Option<Oidc>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let clock = Arc::new(Ahead::default());
        let shared: Arc<dyn Clock> = Arc::<Ahead>::clone(&clock);
        let access = Arc::new(Access::open(dir, Arc::clone(&shared)).unwrap());
        access.create_token("first admin", Role::Admin, &[255; 32]).unwrap();
        let own = own::Identity::load(dir).unwrap();
        let agent = TestStream::new(1, 1, "aa");
        let vouched = crate::tlog::Enrolment {
            agent: agent.agent,
            host: agent.host.clone(),
            key: agent.key.public(),
        };
        let mut options = Options::new(1 << 28);
        options.tlog = Some(TlogOptions {
            folder: dir.join("tlog"),
            origin: "collector.example".to_owned(),
            random: [5; 32],
            agents: vec![vouched, own.enrolment()],
        });
        let opened = EvidenceLog::open(&folder_in(dir), &options, Arc::clone(&shared));
        let log = Arc::new(opened.unwrap().0);
        let own_agent = own.agent();
        let started = OwnStream::start(Arc::clone(&log), own, "collector", Arc::clone(&shared));
        let (own, acts) = started.unwrap();
        let overrides =
            CollectorOverrides { data_dir: Some(dir.to_owned()), ..CollectorOverrides::default() };
        let config = CollectorConfig::load(None, &overrides, &Env::from_process()).unwrap().value;
        let stop = StopToken::new();
        let logins = Logins::new(Arc::clone(&access), Some(acts.clone()), Arc::clone(&shared));
        let logins = Arc::new(logins.with_oidc(oidc));
        let started = derived::start(derived::Given {
            config: &config,
            data_dir: dir,
            source: Arc::<EvidenceLog>::clone(&log),
            readers: Arc::<Access>::clone(&access),
            logins: Arc::clone(&logins),
            clock: Arc::clone(&shared),
            log: Some(Arc::clone(&log)),
            prover: Some(Arc::<EvidenceLog>::clone(&log)),
            acts: Some(acts.clone()),
            stop: stop.clone(),
        });
        let started = started.unwrap();
        let given = retain::Given {
            config: &config,
            data_dir: dir,
            log: Arc::clone(&log),
            index: started.index.as_ref().map(|(index, _)| Arc::clone(index)),
            clock: Arc::clone(&shared),
            acts: Some(acts.clone()),
            own: own_agent,
        };
        let (keeping, retention) = derived::retention(given, &started).unwrap();
        let limits = Limits { max_block_bytes: 1 << 20, workers: 2, client_certificates: false };
        let app = App::new(Arc::clone(&log), Arc::clone(&access), shared, &limits, stop);
        let others = started.routes.merge(retention).merge(crate::access::http::router(logins));
        let world = Self {
            _keeping: keeping,
            subjects: Vec::new(),
            event: String::new(),
            access,
            router: Arc::new(app.telling(acts)).router(others),
            clock,
            own,
            log,
            close: std::sync::Mutex::new(started.close),
            made: 1.into(),
            folder,
        };
        world.filled(agent).await
    }

    async fn filled(mut self, mut agent: TestStream) -> Self {
        let enrolment = Enrolment {
            agent: agent.agent,
            host: agent.host.clone(),
            hostname: "acmehost".to_owned(),
            key: agent.key.public(),
            version: "0".to_owned(),
        };
        self.access.enroll(&enrolment, None, &[254; 32], false).unwrap();
        let (right, wrong) = (events("acme", "zebra"), events("globex", "lynx"));
        right.iter().chain(&wrong).for_each(|event| agent.raw_event(event));
        let block = agent.seal().encode().unwrap();
        let path = format!("/v1/streams/{}/{}/blocks/0", agent.agent, agent.stream);
        let sender = self.subject("agent", Kind::Agent, &[254; 32]);
        let taken = self.send(&Method::POST, &path, block, &sender, false).await;
        assert_eq!(taken.status, 200, "{}", taken.body);
        self.event = Digest::of(b"acme0").to_hex()[..32].to_owned();
        self.subjects = self.all_subjects(sender);
        let path = format!("/v1/events/{}", self.event);
        let admin = self.named("admin").clone();
        for _ in 0..600 {
            if self.ask(&Method::GET, &path, "", &admin, false).await.status == 200 {
                return self;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the events cannot be found");
    }

    pub(super) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    fn subject(&self, name: &str, kind: Kind, secret: &[u8; 32]) -> Subject {
        let bearer = token_text(secret);
        let permissions = self.access.check(&bearer).map(|who| who.permissions);
        Subject {
            name: name.to_owned(),
            kind,
            permissions: permissions.unwrap_or_default(),
            session: self.session(&bearer),
            bearer: Some(bearer),
        }
    }

    fn session(&self, bearer: &str) -> Option<String> {
        let who = self.access.check(bearer)?;
        let secret = self.secret();
        self.access.begin_session(&who, Some(bearer), &secret).unwrap();
        Some(token_text(&secret))
    }

    fn secret(&self) -> [u8; 32] {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Digest::of(&number.to_be_bytes()).0
    }

    /// A token of this role.
    fn token(&self, name: &str, role: &str, scope: Scope, days: Option<i64>) -> Subject {
        let expires = days.map(|days| self.clock.now().plus_micros(days * 86_400_000_000));
        let secret = self.secret();
        let (text, role) = (name.to_owned(), role.to_owned());
        let new = NewToken { name: text, role, scope, expires, once: false };
        self.access.add_token(By::Machine, new, &secret).unwrap();
        self.subject(name, Kind::Bad, &secret)
    }

    fn all_subjects(&self, agent: Subject) -> Vec<Subject> {
        for role in ["finder", "idle"] {
            self.access.create_role(By::Machine, role, permissions(role)).unwrap();
        }
        let kept = password::hashed("", "correct horse battery", &[1; 16]).unwrap();
        let mut all = vec![agent, self.nobody()];
        for role in ROLES {
            all.push(self.token(&format!("{role}, expired"), role, Scope::ALL, Some(1)));
        }
        // What ends in a day has ended.
        self.clock.micros.store(2 * 86_400_000_000, Ordering::Relaxed);
        for role in ROLES {
            for (kind, scope, name) in [
                (Kind::Unbounded, Scope::ALL, role.to_owned()),
                (Kind::Right, tenant("acme"), format!("{role} of the right tenant")),
                (Kind::Wrong, tenant("globex"), format!("{role} of another tenant")),
            ] {
                all.push(Subject { kind, ..self.token(&name, role, scope, None) });
            }
            let revoked = self.token(&format!("{role}, revoked"), role, Scope::ALL, None);
            self.access.drop_token(By::Machine, &revoked.name).unwrap();
            all.push(revoked);
            all.push(self.disabled(role, &kept));
        }
        let enroller = self.token("enroller", "enroll", Scope::ALL, None);
        all.push(Subject { kind: Kind::Enroller, ..enroller });
        let unknown = Subject { bearer: Some("0".repeat(64)), ..self.nobody() };
        all.push(Subject { name: "unknown token".to_owned(), ..unknown });
        all
    }

    /// A user who had a session and then was disabled.
    fn disabled(&self, role: &str, kept: &str) -> Subject {
        let name = format!("{role}-disabled");
        let (password, role) = (kept.to_owned(), role.to_owned());
        let new = NewUser { name: name.clone(), role, scope: Scope::ALL, password };
        self.access.create_user(By::Machine, new).unwrap();
        let (who, secret) = (self.access.principal(&name).unwrap(), self.secret());
        self.access.begin_session(&who, None, &secret).unwrap();
        let subject = self.subject(&name, Kind::Bad, &secret);
        assert!(subject.permissions == who.permissions, "it was good");
        let change = UserChange { disabled: Some(true), ..UserChange::default() };
        self.access.change_user(By::Machine, &name, change).unwrap();
        Subject { session: subject.bearer.clone(), ..subject }
    }

    pub(super) fn nobody(&self) -> Subject {
        Subject {
            name: "nobody".to_owned(),
            kind: Kind::Bad,
            permissions: Permissions::default(),
            bearer: None,
            session: None,
        }
    }

    pub(super) fn named(&self, name: &str) -> &Subject {
        self.subjects.iter().find(|subject| subject.name == name).unwrap()
    }

    pub(super) async fn ask(
        &self,
        method: &Method,
        path: &str,
        body: &str,
        who: &Subject,
        page: bool,
    ) -> Answer {
        self.send(method, path, body.as_bytes().to_vec(), who, page).await
    }

    /// `GET` as this one, with the answer's JSON.
    pub(super) async fn get(&self, path: &str, who: &str) -> (u16, serde_json::Value) {
        let answer = self.ask(&Method::GET, path, "", self.named(who), false).await;
        (answer.status, answer.json())
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Vec<u8>,
        who: &Subject,
        page: bool,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(session) = who.session.as_ref().filter(|_| page) {
            request = request.header(header::COOKIE, format!("custody_session={session}"));
        }
        if let Some(bearer) = who.bearer.as_ref().filter(|_| !page) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
        }
        let request = request.body(Body::from(body)).unwrap();
        // Each from an address of its own, so that what is slowed down is not what is tested.
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let address = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let peer = Peer { addr: SocketAddr::from((address, 1)), shown: None };
        let response = self.router.clone().layer(Extension(peer)).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, body: String::from_utf8_lossy(&bytes).into_owned() }
    }

    /// As a browser with this cookie.
    pub(in crate::access) async fn browse(
        &self,
        method: &Method,
        path: &str,
        cookie: &str,
    ) -> Browsed {
        let request = Request::builder().method(method).uri(path).header(header::COOKIE, cookie);
        let request = request.body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Browsed {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// The router's own list of paths.
    pub(super) fn paths(&self) -> Vec<String> {
        let said = format!("{:?}", self.router);
        let mut paths: Vec<String> = said
            .split("RouteId(")
            .filter_map(|part| part.split_once("): \"")?.1.split('"').next())
            .filter(|path| !path.contains("__private__"))
            .map(str::to_owned)
            .collect();
        paths.sort();
        paths.dedup();
        paths
    }

    pub(super) fn assert_nothing_leaks(&self, body: &str, what: &str) {
        for secret in SECRETS {
            assert!(!body.contains(secret), "{what} shows {secret}: {body}");
        }
        assert!(!body.contains(&self.event), "{what} shows the event's id: {body}");
    }

    pub(in crate::access) fn close(self) {
        if let Some(close) = self.close.lock().unwrap().take() {
            close();
        }
        self.own.close();
        self.log.close();
    }
}
