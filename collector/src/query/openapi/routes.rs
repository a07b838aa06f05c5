//! The table of routes: what each takes and needs, with examples that work.
//!
//! Whoever adds a route to a router adds it here; a test says which is missing.

use crate::access::Permission;

/// How a route is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
    /// PATCH
    Patch,
    /// DELETE
    Delete,
}

impl Method {
    /// As OpenAPI writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// What a caller must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nobody,
    /// A token that may search.
    Search,
    /// A token of a reader, whatever it may.
    Reader,
    /// A token of an enrolled agent.
    Agent,
    /// An enrolment token.
    Enroll,
    /// A session of the page.
    Session,
    /// A token with this permission.
    May(Permission),
}

impl Needs {
    /// As the document says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "none",
            Self::Search => "search",
            Self::Reader => "any reader",
            Self::Agent => "agent token",
            Self::Enroll => "enrolment token",
            Self::Session => "session of the page",
            Self::May(permission) => permission.name(),
        }
    }
}

/// A parameter of its own: those of the filter come from the keys.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Is it a part of the path?
    pub in_path: bool,
    /// Must it be there?
    pub required: bool,
    /// `text`, `integer`, or the choices with `|` between.
    pub kind: &'static str,
    /// For people.
    pub about: &'static str,
    /// One that works.
    pub example: &'static str,
}

/// A route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// How.
    pub method: Method,
    /// Where, as the router has it.
    pub path: &'static str,
    /// The group it belongs to.
    pub tag: &'static str,
    /// In a few words.
    pub summary: &'static str,
    /// What the caller must show.
    pub needs: Needs,
    /// Does it take the parameters of a search?
    pub filters: bool,
    /// Its own parameters.
    pub params: &'static [Param],
    /// Media type and example of the body.
    pub body: Option<(&'static str, &'static str)>,
    /// What it answers.
    pub answers: &'static str,
    /// The media type of the answer; empty for none.
    pub media: &'static str,
    /// Paths with queries that work as they stand.
    pub examples: &'static [&'static str],
}

impl Route {
    /// A name for programs: `get_v1_events_id`.
    #[must_use]
    pub fn id(&self) -> String {
        let words = self.path.split(|c: char| !c.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        format!("{}_{}", self.method.name(), words.join("_"))
    }
}

const fn query(
    name: &'static str,
    kind: &'static str,
    about: &'static str,
    example: &'static str,
) -> Param {
    Param { name, in_path: false, required: false, kind, about, example }
}

const fn must(name: &'static str, about: &'static str, example: &'static str) -> Param {
    Param { name, in_path: false, required: true, kind: "text", about, example }
}

const fn place(name: &'static str, about: &'static str, example: &'static str) -> Param {
    Param { name, in_path: true, required: true, kind: "text", about, example }
}

const JSON: &str = "application/json";
const HTML: &str = "text/html";

/// What most routes are.
const BASE: Route = Route {
    method: Method::Get,
    path: "",
    tag: "search",
    summary: "",
    needs: Needs::Search,
    filters: false,
    params: &[],
    body: None,
    answers: "",
    media: JSON,
    examples: &[],
};

const LIMIT: Param = query("limit", "integer", "events at most, 1 to 1000", "50");
const CURSOR: Param =
    query("cursor", "text", "`next_cursor` of the page before", "1.1760192595000000.0.64.0");
const BUDGET: Param =
    query("budget_ms", "integer", "milliseconds that it may take, if less than the usual", "500");
const ORDER: Param = query("order", "newest|oldest", "which way", "oldest");

/// All routes.
pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/events",
        summary: "Search for events, the newest first",
        filters: true,
        params: &[LIMIT, CURSOR, ORDER, BUDGET],
        answers: "A page: `events`, `next_cursor`, `total`; `cut` where its time was up.",
        examples: &[
            "/v1/events",
            "/v1/events?q=actor:jane*%20-outcome:failure%20%22two%20words%22&period=30d&limit=10",
            "/v1/events?ip=203.0.113.0/24,2001:db8::/32&severity=%3E%3Dmedium&tz=Europe/Berlin&period=this_month",
            "/v1/events?-actor=jane&details.format=csv&records=%3E1000&order=oldest",
        ],
        ..BASE
    },
    Route {
        path: "/v1/events/{id}",
        summary: "One event: itself, its place in the evidence, its neighbours, its proof",
        params: &[place("id", "the event's id, 32 hex digits", "00000000000000000000000000000001")],
        answers: "The event with `block`, `neighbours` and `proof`.",
        examples: &["/v1/events/00000000000000000000000000000001"],
        ..BASE
    },
    Route {
        path: "/v1/stats",
        summary: "Count events, by values and by spans of time",
        filters: true,
        params: &[
            query("group_by", "text", "keys apart by commas, at most 10", "action,outcome"),
            query("interval", "text", "the spans' length", "1h"),
            BUDGET,
        ],
        answers: "`total`, `groups` (of the first key), `facets` (of each), `spans`; `cut` where its time was up.",
        examples: &[
            "/v1/stats?group_by=action,actor&interval=1d&period=30d",
            "/v1/stats?q=contact&group_by=details.format",
        ],
        ..BASE
    },
    Route {
        path: "/v1/suggest",
        summary: "Values that a field has, or fields, by how they begin",
        filters: true,
        params: &[
            query("field", "text", "a key; without it, keys are suggested", "actor"),
            query("prefix", "text", "how it begins", "ja"),
            query("limit", "integer", "at most, 1 to 100", "20"),
        ],
        answers: "`values` with counts and `more`; or `fields`.",
        examples: &["/v1/suggest?field=actor&prefix=ja", "/v1/suggest?prefix=tar"],
        ..BASE
    },
    Route {
        path: "/v1/timeline",
        summary: "What happened in a session, by an actor or to a target, oldest first, with gaps marked",
        filters: true,
        params: &[LIMIT, CURSOR, BUDGET],
        answers: "`entries`, `next_cursor`, and how many events and gaps there are.",
        examples: &[
            "/v1/timeline?session=sess_xyz789",
            "/v1/timeline?actor=admin@company.com&period=2025",
        ],
        ..BASE
    },
    Route {
        path: "/v1/history",
        summary: "Who changed something and when, each value over time, and its state at an instant",
        filters: true,
        params: &[
            must("target", "TYPE:ID, or an id or a name alone", "contact:12345"),
            query("field", "text", "one of its fields; * stands for anything", "plan"),
            query("at", "text", "the instant whose state is wanted", "2025-06-30T12:00:00Z"),
        ],
        answers: "`changes`, `at` and what it rests on.",
        examples: &[
            "/v1/history?target=contact:12345&field=plan&at=2025-01-15",
            "/v1/history?target=voice_recordings",
        ],
        ..BASE
    },
    Route {
        path: "/v1/access",
        summary: "Did this user see or export that?",
        filters: true,
        params: &[
            must("user", "who: name, e-mail or id", "admin@company.com"),
            must("target", "what: TYPE:ID, or an id or a name alone", "voice_call_records"),
        ],
        answers: "`answer` (yes, no, possible), the events, and what the answer rests on.",
        examples: &["/v1/access?user=admin@company.com&target=voice_call_records"],
        ..BASE
    },
    Route {
        path: "/v1/tail",
        tag: "live",
        summary: "Events as they come, as server-sent events",
        filters: true,
        params: &[
            query("duration", "text", "for how long, up to 24h", "10m"),
            query("from", "text", "now, or the id of an event to go on behind", "now"),
        ],
        answers: "`data:` events with ids; `event: skipped` and `event: end`.",
        media: "text/event-stream",
        examples: &["/v1/tail?outcome=failure&duration=1s"],
        ..BASE
    },
    Route {
        path: "/openapi.json",
        tag: "program",
        summary: "This description",
        needs: Needs::Nobody,
        answers: "OpenAPI 3.1.",
        examples: &["/openapi.json"],
        ..BASE
    },
    Route {
        method: Method::Post,
        path: "/v1/streams/{agent}/{stream}/blocks/{seq}",
        tag: "agents",
        summary: "Take a block of events",
        needs: Needs::Agent,
        params: &[
            AGENT,
            place("stream", "the stream's id", ID),
            place("seq", "the block's number", "0"),
        ],
        body: Some(("application/vnd.custody.block", "the block's bytes")),
        answers: "The receipt: it is durable.",
        examples: &[
            "/v1/streams/00000000000000000000000000000001/00000000000000000000000000000001/blocks/0",
        ],
        ..BASE
    },
    Route {
        method: Method::Post,
        path: "/v1/enroll",
        tag: "agents",
        summary: "Enrol an agent",
        needs: Needs::Enroll,
        body: Some((
            JSON,
            "{\"agent\":\"00000000000000000000000000000001\",\"host\":\"web1\",\"key\":\"\",\"tls_key\":\"\",\"proof\":{\"by\":\"\",\"signature\":\"\"}}",
        )),
        answers: "The agent's own token, and its certificate.",
        examples: &["/v1/enroll"],
        ..BASE
    },
    Route {
        path: "/v1/agents",
        tag: "agents",
        summary: "Agents with their streams and books",
        needs: Needs::Reader,
        answers: "`agents`.",
        examples: &["/v1/agents"],
        ..BASE
    },
    Route {
        method: Method::Post,
        path: "/v1/agents/{agent}/certificate",
        tag: "agents",
        summary: "Give an agent another certificate",
        needs: Needs::Agent,
        params: &[AGENT],
        body: Some((JSON, "{\"tls_key\":\"\",\"proof\":{\"by\":\"\",\"signature\":\"\"}}")),
        answers: "The certificate, PEM.",
        examples: &["/v1/agents/00000000000000000000000000000001/certificate"],
        ..BASE
    },
    Route {
        method: Method::Post,
        path: "/v1/agents/{agent}/keys",
        tag: "agents",
        summary: "Replace an agent's key",
        needs: Needs::Agent,
        params: &[AGENT],
        body: Some((JSON, "{\"key\":\"\"}")),
        answers: "The key is replaced.",
        examples: &["/v1/agents/00000000000000000000000000000001/keys"],
        ..BASE
    },
    Route {
        path: "/v1/log",
        tag: "evidence",
        summary: "The transparency log: its key, checkpoint, proofs and accepted forks",
        needs: Needs::Reader,
        params: &[query("from", "text", "sizes from which proofs are wanted", "0")],
        answers: "What a verifier needs.",
        examples: &["/v1/log"],
        ..BASE
    },
    Route {
        method: Method::Post,
        path: "/v1/log/witness",
        tag: "evidence",
        summary: "Take a checkpoint that this log does not continue, from an agent that was shown it",
        needs: Needs::Agent,
        body: Some(("text/plain", "a signed note")),
        answers: "It is known now.",
        examples: &["/v1/log/witness"],
        ..BASE
    },
    Route {
        path: "/tlog/checkpoint",
        tag: "evidence",
        summary: "The newest checkpoint, a signed note",
        needs: Needs::Nobody,
        answers: "C2SP signed note.",
        media: "text/plain",
        examples: &["/tlog/checkpoint"],
        ..BASE
    },
    Route {
        path: "/tlog/tile/{*path}",
        tag: "evidence",
        summary: "A tile of the log",
        needs: Needs::Nobody,
        params: &[place("path", "level and number, C2SP tlog-tiles", "0/000")],
        answers: "Hashes, or entries.",
        media: "application/octet-stream",
        examples: &["/tlog/tile/0/000.p/1"],
        ..BASE
    },
    Route {
        path: "/tlog/witness/{agent}",
        tag: "evidence",
        summary: "The checkpoint that an agent has cosigned last",
        needs: Needs::Reader,
        params: &[AGENT],
        answers: "C2SP signed note.",
        media: "text/plain",
        examples: &["/tlog/witness/00000000000000000000000000000001"],
        ..BASE
    },
    Route {
        path: "/metrics",
        tag: "program",
        summary: "Figures of the process, as Prometheus reads them",
        needs: Needs::Reader,
        answers: "OpenMetrics text.",
        media: "text/plain",
        examples: &["/metrics"],
        ..BASE
    },
    Route {
        path: "/healthz",
        tag: "program",
        summary: "Does the process answer?",
        needs: Needs::Nobody,
        answers: "Yes.",
        media: "text/plain",
        examples: &["/healthz"],
        ..BASE
    },
    Route {
        path: "/readyz",
        tag: "program",
        summary: "Are blocks taken?",
        needs: Needs::Nobody,
        answers: "Yes; 503 where not, with the reason.",
        media: "text/plain",
        examples: &["/readyz"],
        ..BASE
    },
    Route {
        params: &[query("limit", "integer", "entries at most, 1 to 500", "50"), CURSOR],
        answers: "`exports`, the newest first, and `next_cursor`.",
        ..export(Method::Get, "/v1/exports", "The history of exports", &["/v1/exports?limit=10"])
    },
    Route {
        body: Some((
            JSON,
            "{\"name\":\"Failed logins\",\"format\":\"parquet\",\"form\":\"ocsf\",\"q\":\"outcome:failure\"}",
        )),
        answers: "202 and its entry; it is made in the background.",
        ..export(Method::Post, "/v1/exports", "Ask for an export", &["/v1/exports"])
    },
    Route {
        params: &[ENTRY],
        ..export(Method::Get, "/v1/exports/{id}", "One export", &["/v1/exports/00"])
    },
    Route {
        params: &[ENTRY],
        ..export(
            Method::Delete,
            "/v1/exports/{id}",
            "Remove an export and its file",
            &["/v1/exports/00"],
        )
    },
    Route {
        params: &[ENTRY],
        answers: "The file; ranges are understood.",
        media: "application/octet-stream",
        ..export(
            Method::Get,
            "/v1/exports/{id}/download",
            "An export's file",
            &["/v1/exports/00/download"],
        )
    },
    Route {
        params: &[ENTRY],
        ..export(
            Method::Get,
            "/v1/exports/{id}/proof",
            "An export's signed proof",
            &["/v1/exports/00/proof"],
        )
    },
    export(Method::Get, "/v1/schedules", "Exports that recur", &["/v1/schedules"]),
    Route {
        body: Some((
            JSON,
            "{\"name\":\"Daily\",\"every\":\"day\",\"at\":\"02:00\",\"format\":\"ndjson\",\"q\":\"\",\"period\":\"previous_day\"}",
        )),
        ..export(Method::Post, "/v1/schedules", "Let an export recur", &["/v1/schedules"])
    },
    Route {
        params: &[ENTRY],
        ..export(
            Method::Delete,
            "/v1/schedules/{id}",
            "Let it recur no more",
            &["/v1/schedules/00"],
        )
    },
    Route {
        needs: Needs::Nobody,
        body: Some((JSON, "{\"name\":\"jane\",\"password\":\"wrong\"}")),
        answers: "A token for a session.",
        ..account(Method::Post, "/v1/login", "Log in with a name and a password", &["/v1/login"])
    },
    Route {
        needs: Needs::Reader,
        ..account(Method::Post, "/v1/logout", "End the session", &["/v1/logout"])
    },
    Route {
        needs: Needs::Reader,
        ..account(Method::Get, "/v1/me", "Who asks, and what they may do", &["/v1/me"])
    },
    Route {
        needs: Needs::Reader,
        body: Some((JSON, r#"{"old":"wrong horse","new":"correct horse battery"}"#)),
        ..account(
            Method::Post,
            "/v1/me/password",
            "Change one's own password",
            &["/v1/me/password"],
        )
    },
    account(Method::Get, "/v1/users", "Users", &["/v1/users"]),
    Route {
        body: Some((
            JSON,
            r#"{"name":"jane","password":"correct horse battery","role":"viewer","scope":{"tenants":["acme"]}}"#,
        )),
        ..account(Method::Post, "/v1/users", "Add a user", &["/v1/users"])
    },
    Route {
        params: &[NAME],
        ..account(Method::Get, "/v1/users/{name}", "One user", &["/v1/users/ghost"])
    },
    Route {
        params: &[NAME],
        body: Some((
            JSON,
            r#"{"role":"auditor","scope":{"hosts":["web*"]},"disabled":false,"password":"correct horse battery"}"#,
        )),
        ..account(Method::Patch, "/v1/users/{name}", "Change a user", &["/v1/users/ghost"])
    },
    Route {
        params: &[NAME],
        ..account(Method::Delete, "/v1/users/{name}", "Remove a user", &["/v1/users/ghost"])
    },
    account(Method::Get, "/v1/tokens", "Tokens, without their secrets", &["/v1/tokens"]),
    Route {
        body: Some((
            JSON,
            r#"{"name":"dashboard","role":"viewer","scope":{"categories":["access"]},"expires":"2027-01-01T00:00:00Z"}"#,
        )),
        answers: "The token; it is shown this once.",
        ..account(Method::Post, "/v1/tokens", "Make a token", &["/v1/tokens"])
    },
    Route {
        params: &[NAME],
        ..account(Method::Delete, "/v1/tokens/{name}", "Revoke a token", &["/v1/tokens/ghost"])
    },
    account(Method::Get, "/v1/roles", "Roles and their permissions", &["/v1/roles"]),
    Route {
        body: Some((JSON, r#"{"name":"helpdesk","permissions":["search"]}"#)),
        ..account(Method::Post, "/v1/roles", "Make a role", &["/v1/roles"])
    },
    Route {
        params: &[NAME],
        ..account(Method::Delete, "/v1/roles/{name}", "Remove a role", &["/v1/roles/ghost"])
    },
    Route {
        body: Some((JSON, r#"{"dry_run":true}"#)),
        ..keeping(
            CONFIGURE,
            Method::Post,
            "/v1/retention/run",
            "Let what has expired go now",
            &["/v1/retention/run"],
        )
    },
    keeping(HOLD, Method::Get, "/v1/holds", "Legal holds", &["/v1/holds"]),
    Route {
        body: Some((
            JSON,
            r#"{"name":"case 7","q":"actor:jane","from":"2026-01-01","to":"2026-02-01","reason":"case 7/2026"}"#,
        )),
        ..keeping(HOLD, Method::Post, "/v1/holds", "Hold what a search finds", &["/v1/holds"])
    },
    Route {
        params: &[ENTRY],
        ..keeping(HOLD, Method::Delete, "/v1/holds/{id}", "Release a hold", &["/v1/holds/0"])
    },
    keeping(ERASE, Method::Get, "/v1/erasures", "Erasures that were asked for", &["/v1/erasures"]),
    Route {
        body: Some((JSON, r#"{"q":"actor:jane","reason":"request 12","dry_run":true}"#)),
        ..keeping(ERASE, Method::Post, "/v1/erasures", "Ask for an erasure", &["/v1/erasures"])
    },
    Route {
        params: &[ENTRY],
        ..keeping(ERASE, Method::Get, "/v1/erasures/{id}", "One erasure", &["/v1/erasures/0"])
    },
    Route {
        params: &[ENTRY],
        ..keeping(
            ERASE,
            Method::Delete,
            "/v1/erasures/{id}",
            "Withdraw a request for an erasure",
            &["/v1/erasures/0"],
        )
    },
    Route {
        params: &[ENTRY],
        ..keeping(
            ERASE,
            Method::Post,
            "/v1/erasures/{id}/approve",
            "Approve another's erasure",
            &["/v1/erasures/0/approve"],
        )
    },
    keeping(
        CONFIGURE,
        Method::Get,
        "/v1/archive",
        "What is archived, and what of it is restored",
        &["/v1/archive"],
    ),
    Route {
        body: Some((JSON, r#"{"from":"2026-01-01","to":"2026-01-02"}"#)),
        ..keeping(
            CONFIGURE,
            Method::Post,
            "/v1/archive/restore",
            "Restore archived days into search",
            &["/v1/archive/restore"],
        )
    },
    Route {
        ..keeping(
            CONFIGURE,
            Method::Post,
            "/v1/archive/release",
            "Let restored days go again",
            &["/v1/archive/release"],
        )
    },
    page("/", "The search page", &["/", "/?q=outcome:failure&period=7d"]),
    Route {
        params: &[place("id", "the event's id", ID)],
        ..page(
            "/events/{id}",
            "The page of one event",
            &["/events/00000000000000000000000000000001"],
        )
    },
    Route { needs: Needs::Nobody, ..page("/login", "The login page", &["/login"]) },
    Route {
        method: Method::Post,
        needs: Needs::Nobody,
        body: Some(("application/x-www-form-urlencoded", "token=wrong&next=%2F")),
        ..page("/login", "Log in with a token", &["/login"])
    },
    Route {
        needs: Needs::Nobody,
        ..page("/oidc/login", "To the identity provider", &["/oidc/login"])
    },
    Route {
        needs: Needs::Nobody,
        ..page("/oidc/callback", "Back from the identity provider", &["/oidc/callback"])
    },
    Route { method: Method::Post, ..page("/logout", "Log out", &["/logout"]) },
    Route {
        needs: Needs::Nobody,
        media: "text/css",
        ..page("/style.css", "The pages' style", &["/style.css"])
    },
];

const ENTRY: Param = place("id", "its id", "00");
const NAME: Param = place("name", "its name", "ghost");

const fn export(
    method: Method,
    path: &'static str,
    summary: &'static str,
    examples: &'static [&'static str],
) -> Route {
    let needs = Needs::May(Permission::Export);
    Route { method, path, tag: "exports", summary, needs, answers: "Done.", examples, ..BASE }
}

const CONFIGURE: Permission = Permission::Configure;
const HOLD: Permission = Permission::Hold;
const ERASE: Permission = Permission::Erase;

const fn keeping(
    permission: Permission,
    method: Method,
    path: &'static str,
    summary: &'static str,
    examples: &'static [&'static str],
) -> Route {
    let needs = Needs::May(permission);
    Route { method, path, tag: "keeping", summary, needs, answers: "Done.", examples, ..BASE }
}

const fn account(
    method: Method,
    path: &'static str,
    summary: &'static str,
    examples: &'static [&'static str],
) -> Route {
    let needs = Needs::May(Permission::Administer);
    Route { method, path, tag: "accounts", summary, needs, answers: "Done.", examples, ..BASE }
}

const ID: &str = "00000000000000000000000000000001";
const AGENT: Param = place("agent", "the agent's id", ID);

const fn page(
    path: &'static str,
    summary: &'static str,
    examples: &'static [&'static str],
) -> Route {
    Route {
        path,
        tag: "pages",
        summary,
        needs: Needs::Session,
        answers: "A page.",
        media: HTML,
        examples,
        ..BASE
    }
}
