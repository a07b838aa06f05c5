//! The ECS form of an event: the field sets of the Elastic Common Schema, 8 and 9.
//!
//! [`form`] turns an event into one JSON object: `@timestamp`, `event.*`, `user.*`, `source.*`, `related.*`,
//! and so on, each field of the schema's own type; `docs/maps/ecs.md` has the table, and a test checks the form
//! against the schema's definitions, also that `event.type` is one that `event.category` allows. What the schema has no
//! field for stands under `custody.*`, an own namespace as the schema asks for, so nothing that the event says is
//! lost. The form is a copy for other programs: what is signed is the canonical event.

use serde_json::{Map, Value, json};

use crate::view::{ActorView, BadEvent, EventView, TargetView};

/// The version of the schema that the form says it is of: all its fields are in 8.11 and in 9.
pub const VERSION: &str = "8.11.0";

/// The ECS form of a canonical event.
///
/// # Errors
/// The bytes are not an event of version 1.
pub fn form(event: &[u8]) -> Result<Value, BadEvent> {
    Ok(of(&EventView::read(event)?))
}

/// The ECS form of an event.
#[must_use]
pub fn of(event: &EventView<'_>) -> Value {
    let mut out = Map::new();
    let entries = [
        ("@timestamp", Some(event.time.to_string().into())),
        ("ecs", Some(json!({ "version": VERSION }))),
        ("message", text(event.message.as_deref())),
        ("tags", list(event.tags.iter().map(AsRef::as_ref))),
        ("event", Some(Value::Object(what(event)))),
        ("user", who(event)),
        ("source", source(event)),
        ("user_agent", object([("original", text(event.source.user_agent.as_deref()))])),
        ("host", event.host.as_deref().map(|host| json!({ "name": host, "hostname": host }))),
        ("service", object([("name", text(event.service.as_deref()))])),
        ("group", group(event)),
        ("url", url(event)),
        ("error", object([("code", failed(event, event.reason.code.as_deref()))])),
        ("organization", object([("id", text(event.tenant.as_deref()))])),
        ("trace", object([("id", text(event.trace.trace_id.as_deref()))])),
        ("span", object([("id", text(event.trace.span_id.as_deref()))])),
        ("log", log(event)),
        ("http", request(event)),
        ("related", related(event)),
        ("custody", Some(Value::Object(own(event)))),
    ];
    for (key, value) in entries {
        put(&mut out, key, value);
    }
    Value::Object(out)
}

fn put(out: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        out.insert(key.to_owned(), value);
    }
}

/// An object without what is absent.
fn object<const N: usize>(entries: [(&str, Option<Value>); N]) -> Option<Value> {
    let mut out = Map::new();
    for (key, value) in entries {
        put(&mut out, key, value);
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn text(text: Option<&str>) -> Option<Value> {
    text.filter(|text| !text.is_empty()).map(Value::from)
}

fn list<'a>(texts: impl Iterator<Item = &'a str>) -> Option<Value> {
    let texts: Vec<Value> = texts.map(Value::from).collect();
    (!texts.is_empty()).then_some(Value::Array(texts))
}

fn failed(event: &EventView<'_>, code: Option<&str>) -> Option<Value> {
    let bad = matches!(event.outcome.as_deref(), Some("failure" | "denied"));
    text(code).filter(|_| bad)
}

/// `event.*`
fn what(event: &EventView<'_>) -> Map<String, Value> {
    let (categories, types) = classes(event);
    let outcome = match event.outcome.as_deref() {
        Some("success") => "success",
        Some("failure" | "denied") => "failure",
        _ => "unknown",
    };
    let severity = match event.severity.as_deref() {
        Some("critical") => 99,
        Some("high") => 73,
        Some("medium") => 47,
        Some("low") => 21,
        _ => 0,
    };
    let duration = event.session.duration_ms.and_then(|millis| millis.checked_mul(1_000_000));
    let entries = [
        (
            "kind",
            Some(
                if event.category.as_deref() == Some("security") { "alert" } else { "event" }
                    .into(),
            ),
        ),
        ("id", Some(event.id.to_string().into())),
        ("action", text(event.action.as_deref())),
        ("category", list(categories.iter().copied())),
        ("type", list(types.iter().copied())),
        ("outcome", Some(outcome.into())),
        ("severity", Some(severity.into())),
        ("created", Some(event.observed.to_string().into())),
        ("code", text(event.origin.event_name.as_deref())),
        ("reason", text(event.reason.text.as_deref())),
        ("provider", text(event.service.as_deref())),
        ("module", Some("custody".into())),
        ("dataset", event.origin.pack.as_deref().map(|pack| format!("custody.{pack}").into())),
        ("original", text(event.origin.raw.as_deref())),
        ("duration", duration.map(Value::from)),
    ];
    let mut out = Map::new();
    for (key, value) in entries {
        put(&mut out, key, value);
    }
    out
}

/// `event.category` and `event.type`, of which each category allows some only.
fn classes(event: &EventView<'_>) -> (&'static [&'static str], Vec<&'static str>) {
    let op = event.op.as_deref().unwrap_or_default();
    let object = event.action.as_deref().and_then(|action| action.split('.').next());
    let target = event.targets.first().and_then(|target| target.kind.as_deref());
    let change = match op {
        "create" | "import" => "creation",
        "delete" => "deletion",
        "update" | "move" | "restore" | "enable" | "disable" | "grant" | "revoke" | "assign"
        | "lock" | "unlock" => "change",
        _ => "info",
    };
    match event.category.as_deref().unwrap_or_default() {
        "authentication" if matches!(op, "login" | "logout") => {
            (&["authentication"], vec![if op == "logout" { "end" } else { "start" }])
        }
        "authentication" => (&["authentication"], vec!["info"]),
        "session" => (
            &["session"],
            vec![match op {
                "logout" => "end",
                "login" => "start",
                _ => "info",
            }],
        ),
        "account" if matches!(object, Some("group" | "team")) => (&["iam"], vec!["group", change]),
        "account" => (&["iam"], vec!["user", change]),
        "permission" => (&["iam"], vec!["admin", change]),
        "configuration" => (
            &["configuration"],
            vec![match change {
                "info" if op == "read" => "access",
                other => other,
            }],
        ),
        "data" | "export" | "bulk" if object == Some("database") || target == Some("database") => (
            &["database"],
            vec![match change {
                "info" => "access",
                "creation" | "deletion" => "change",
                other => other,
            }],
        ),
        "data" | "export" | "bulk" if matches!(target, Some("file" | "document" | "folder")) => {
            (&["file"], vec![if change == "info" { "access" } else { change }])
        }
        "access" if object == Some("http") => (&["web"], vec!["access"]),
        "api" => (
            &["api"],
            vec![match (change, event.outcome.as_deref()) {
                (_, Some("denied")) => "denied",
                ("creation" | "deletion" | "change", _) => change,
                _ => "access",
            }],
        ),
        "security" => (&["intrusion_detection"], vec!["info"]),
        // No category of the schema means these; it asks to leave the field out then.
        _ => (&[], vec![change]),
    }
}

fn account(actor: &ActorView<'_>) -> Option<Value> {
    let mail = actor.name.as_deref().filter(|name| is_mail(name));
    object([
        ("name", text(actor.name.as_deref())),
        ("id", text(actor.id.as_deref())),
        ("email", text(mail)),
        ("full_name", text(actor.display.as_deref())),
        ("roles", list(actor.roles.iter().map(AsRef::as_ref))),
    ])
}

fn is_mail(name: &str) -> bool {
    name.split_once('@').is_some_and(|(user, domain)| !user.is_empty() && domain.contains('.'))
}

/// `user.*`, with the account that something was done to as `user.target`.
fn who(event: &EventView<'_>) -> Option<Value> {
    let target = event
        .targets
        .iter()
        .find(|target| matches!(target.kind.as_deref(), Some("user" | "account")));
    let target = target.and_then(named);
    let effective = event.actor.behalf_of.as_deref().and_then(account);
    let mut user = match account(&event.actor) {
        Some(Value::Object(user)) => user,
        _ => Map::new(),
    };
    put(&mut user, "target", target);
    put(&mut user, "effective", effective);
    (!user.is_empty()).then_some(Value::Object(user))
}

fn named(target: &TargetView<'_>) -> Option<Value> {
    object([("name", text(target.name.as_deref())), ("id", text(target.id.as_deref()))])
}

fn group(event: &EventView<'_>) -> Option<Value> {
    let target = event
        .targets
        .iter()
        .find(|target| matches!(target.kind.as_deref(), Some("group" | "team")));
    target.and_then(named)
}

fn url(event: &EventView<'_>) -> Option<Value> {
    let target = event.targets.iter().find(|target| target.kind.as_deref() == Some("url"))?;
    let original = target.name.as_deref()?;
    let (path, query) = match original.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (original, None),
    };
    let path = path.starts_with('/').then_some(path);
    object([
        ("original", text(Some(original))),
        ("path", text(path)),
        ("query", text(query)),
        ("domain", text(target.parent.as_deref())),
    ])
}

fn source(event: &EventView<'_>) -> Option<Value> {
    let source = &event.source;
    let geo = object([
        ("country_name", text(source.location.country.as_deref()).filter(|_| !is_code(event))),
        ("country_iso_code", text(source.location.country.as_deref()).filter(|_| is_code(event))),
        ("region_name", text(source.location.region.as_deref())),
        ("city_name", text(source.location.city.as_deref())),
    ]);
    object([
        ("ip", text(source.ip.as_deref())),
        ("port", source.port.map(Value::from)),
        ("domain", text(source.host.as_deref())),
        ("address", text(source.ip.as_deref().or(source.host.as_deref()))),
        ("geo", geo),
    ])
}

/// Is the country two capital letters?
fn is_code(event: &EventView<'_>) -> bool {
    let country = event.source.location.country.as_deref().unwrap_or_default();
    country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase())
}

fn log(event: &EventView<'_>) -> Option<Value> {
    let file = object([("path", text(event.origin.path.as_deref()))]);
    object([("file", file)])
}

fn request(event: &EventView<'_>) -> Option<Value> {
    let id = object([("id", text(event.trace.request_id.as_deref()))]);
    object([("request", id)])
}

/// `related.*`: everything that one looks for.
fn related(event: &EventView<'_>) -> Option<Value> {
    let mut users: Vec<&str> = Vec::new();
    let behalf = event.actor.behalf_of.as_deref();
    for actor in [Some(&event.actor), behalf].into_iter().flatten() {
        users.extend(
            [actor.name.as_deref(), actor.id.as_deref(), actor.display.as_deref()]
                .into_iter()
                .flatten(),
        );
    }
    for target in &event.targets {
        if matches!(target.kind.as_deref(), Some("user" | "account")) {
            users.extend([target.name.as_deref(), target.id.as_deref()].into_iter().flatten());
        }
    }
    users.sort_unstable();
    users.dedup();
    let mut hosts: Vec<&str> =
        [event.host.as_deref(), event.source.host.as_deref()].into_iter().flatten().collect();
    hosts.dedup();
    object([
        ("user", list(users.into_iter())),
        ("ip", list(event.source.ip.as_deref().into_iter())),
        ("hosts", list(hosts.into_iter())),
    ])
}

/// What the schema has no field for.
fn own(event: &EventView<'_>) -> Map<String, Value> {
    let raw = |value: &serde_json::value::RawValue| serde_json::from_str::<Value>(value.get()).ok();
    // Elasticsearch cannot hold values of several types under one name: the two are kept as JSON.
    let as_text = |value: &serde_json::value::RawValue| Some(Value::from(value.get()));
    let changes = event.changes.iter().map(|change| {
        object([
            ("field", Some(change.field.as_ref().into())),
            ("before", change.before.and_then(as_text)),
            ("after", change.after.and_then(as_text)),
            ("masked", change.masked.then(|| true.into())),
        ])
        .unwrap_or_default()
    });
    let targets = event.targets.iter().map(|target| {
        object([
            ("type", text(target.kind.as_deref())),
            ("id", text(target.id.as_deref())),
            ("name", text(target.name.as_deref())),
            ("parent", text(target.parent.as_deref())),
        ])
        .unwrap_or_default()
    });
    let many = |values: Vec<Value>| (!values.is_empty()).then_some(Value::Array(values));
    let session = object([
        ("id", text(event.session.id.as_deref())),
        ("methods", list(event.session.methods.iter().map(AsRef::as_ref))),
        ("provider", text(event.session.provider.as_deref())),
        ("mfa", event.session.mfa.map(Value::from)),
    ]);
    let data = object([
        ("records", event.data.records.map(Value::from)),
        ("bytes", event.data.bytes.map(Value::from)),
        ("format", text(event.data.format.as_deref())),
        ("fields", list(event.data.fields.iter().map(AsRef::as_ref))),
        ("from", text(event.data.from.as_deref())),
        ("to", text(event.data.to.as_deref())),
        ("name", text(event.data.name.as_deref())),
        ("via", text(event.data.via.as_deref())),
    ]);
    let device = object([
        ("name", text(event.source.device.name.as_deref())),
        ("id", text(event.source.device.id.as_deref())),
        ("os", text(event.source.device.os.as_deref())),
        ("browser", text(event.source.device.browser.as_deref())),
    ]);
    let entries = [
        ("category", text(event.category.as_deref())),
        ("op", text(event.op.as_deref())),
        ("outcome", text(event.outcome.as_deref())),
        ("severity", text(event.severity.as_deref())),
        ("time_basis", text(event.time_basis.as_deref())),
        ("actor_type", text(event.actor.kind.as_deref())),
        ("teams", list(event.actor.teams.iter().map(AsRef::as_ref))),
        ("attempts", event.attempts.map(Value::from)),
        ("justification", text(event.justification.as_deref())),
        ("irreversible", event.irreversible.then(|| true.into())),
        ("session", session),
        ("data", data),
        ("device", device),
        ("targets", many(targets.collect())),
        ("changes", many(changes.collect())),
        ("details", event.details.and_then(raw)),
        ("rule", text(event.origin.rule.as_deref())),
        ("raw_base64", text(event.origin.raw_base64.as_deref())),
        ("raw_sha256", text(event.origin.raw_sha256.as_deref())),
    ];
    let mut out = Map::new();
    for (key, value) in entries {
        put(&mut out, key, value);
    }
    out
}
