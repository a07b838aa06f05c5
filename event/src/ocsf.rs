//! The OCSF form of an event: a class of the Open Cybersecurity Schema Framework, 1.x.
//!
//! [`form`] turns an event into one JSON object of the class that says most: who came in is
//! Authentication (3002), what became of an account Account Change (3001), and so on ([`class::choose`]);
//! what fits nowhere is a Base Event (0). Every class and attribute is one of the schema's own; `docs/maps/ocsf.md`
//! has the table, and a test checks events of every class against the schema's definitions.
//!
//! **What has no place** in the class goes to `unmapped` under the event's own names, so nothing that the event
//! says is lost. The form is a copy for other programs: what is signed is the canonical event.

mod class;
mod shape;

use serde_json::{Map, Value, json};

use crate::time::Timestamp;
use crate::view::{ActorView, BadEvent, EventView, TargetView};
use class::Class;
pub use shape::{Attribute, SHAPE, Shape, stray};

/// The version of the schema that the form is of.
pub const VERSION: &str = "1.9.0";

/// The OCSF form of a canonical event.
///
/// # Errors
/// The bytes are not an event of version 1.
pub fn form(event: &[u8]) -> Result<Value, BadEvent> {
    Ok(of(&EventView::read(event)?))
}

/// The OCSF form of an event.
#[must_use]
pub fn of(event: &EventView<'_>) -> Value {
    let class = class::choose(event);
    let mut out = Map::new();
    head(event, &class, &mut out);
    out.insert("metadata".to_owned(), metadata(event));
    who(event, &class, &mut out);
    what(event, &class, &mut out);
    let unmapped = unmapped(event, &class);
    if !unmapped.is_empty() {
        out.insert("unmapped".to_owned(), Value::Object(unmapped));
    }
    Value::Object(out)
}

/// An object without what is absent.
fn object<const N: usize>(entries: [(&str, Option<Value>); N]) -> Option<Value> {
    let mut out = Map::new();
    for (key, value) in entries {
        put(&mut out, key, value);
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn put(out: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        out.insert(key.to_owned(), value);
    }
}

fn text(text: Option<&str>) -> Option<Value> {
    text.filter(|text| !text.is_empty()).map(Value::from)
}

fn millis(time: Timestamp) -> Value {
    Value::from(time.micros().div_euclid(1000))
}

/// What every class has.
fn head(event: &EventView<'_>, class: &Class, out: &mut Map<String, Value>) {
    let (status_id, status) = match event.outcome.as_deref() {
        Some("success") => (1, "Success"),
        Some("failure") => (2, "Failure"),
        Some("denied") => (2, "Denied"),
        Some("pending") => (99, "Pending"),
        _ => (0, "Unknown"),
    };
    let (severity_id, severity) = match event.severity.as_deref() {
        Some("low") => (2, "Low"),
        Some("medium") => (3, "Medium"),
        Some("high") => (4, "High"),
        Some("critical") => (5, "Critical"),
        _ => (1, "Informational"),
    };
    let fixed = json!({
        "activity_id": class.activity_id, "activity_name": class.activity,
        "category_uid": class.kind.category(), "category_name": class.kind.category_name(),
        "class_uid": class.kind.uid(), "class_name": class.kind.name(),
        "type_uid": class.kind.uid() * 100 + class.activity_id,
        "severity_id": severity_id, "severity": severity,
        "status_id": status_id, "status": status, "time": millis(event.time),
    });
    if let Value::Object(fixed) = fixed {
        out.extend(fixed);
    }
    put(out, "message", text(event.message.as_deref()));
    put(out, "status_code", text(event.reason.code.as_deref()));
    put(out, "status_detail", text(event.reason.text.as_deref()));
    put(out, "raw_data", text(event.origin.raw.as_deref()));
    put(out, "duration", event.session.duration_ms.map(Value::from));
    put(out, "count", event.attempts.filter(|count| *count > 0).map(Value::from));
}

fn metadata(event: &EventView<'_>) -> Value {
    let labels = (!event.tags.is_empty()).then(|| json!(event.tags));
    let entries = [
        ("version", Some(VERSION.into())),
        ("product", Some(json!({ "name": "Custody", "vendor_name": "Custody" }))),
        ("profiles", Some(json!(["host"]))),
        ("uid", Some(event.id.to_string().into())),
        ("event_code", text(event.action.as_deref())),
        ("original_event_uid", text(event.origin.event_name.as_deref())),
        ("log_name", text(event.origin.path.as_deref().or(event.origin.unit.as_deref()))),
        ("log_provider", text(event.service.as_deref())),
        ("log_format", text(event.origin.pack.as_deref())),
        ("logged_time", Some(millis(event.observed))),
        ("correlation_uid", text(event.trace.request_id.as_deref())),
        ("tenant_uid", text(event.tenant.as_deref())),
        ("labels", labels),
    ];
    object(entries).unwrap_or_default()
}

/// A user; where nobody is named, the schema's own `Unknown`.
fn user(actor: &ActorView<'_>) -> Value {
    let (type_id, kind) = match actor.kind.as_deref() {
        Some("user") => (1, "User"),
        Some("system" | "agent") => (3, "System"),
        Some("service") => (4, "Service"),
        _ => (0, "Unknown"),
    };
    let groups: Vec<Value> = actor.teams.iter().map(|team| json!({ "name": team })).collect();
    let nameless = actor.name.is_none() && actor.id.is_none();
    let name = actor.name.as_deref().or(nameless.then_some("Unknown"));
    let mail = actor.name.as_deref().filter(|name| is_mail(name));
    object([
        ("name", text(name)),
        ("uid", text(actor.id.as_deref())),
        ("full_name", text(actor.display.as_deref())),
        ("email_addr", text(mail)),
        ("type_id", Some(type_id.into())),
        ("type", Some(kind.into())),
        ("groups", (!groups.is_empty()).then_some(Value::Array(groups))),
    ])
    .unwrap_or_default()
}

fn is_mail(name: &str) -> bool {
    name.split_once('@').is_some_and(|(user, domain)| !user.is_empty() && domain.contains('.'))
}

fn is_named(actor: &ActorView<'_>) -> bool {
    actor.name.is_some() || actor.id.is_some()
}

/// A target as a user.
fn target_user(target: &TargetView<'_>) -> Value {
    let nameless = target.name.is_none() && target.id.is_none();
    let name = target.name.as_deref().or(nameless.then_some("Unknown"));
    let mail = target.name.as_deref().filter(|name| is_mail(name));
    object([("name", text(name)), ("uid", text(target.id.as_deref())), ("email_addr", text(mail))])
        .unwrap_or_default()
}

fn session(event: &EventView<'_>) -> Option<Value> {
    object([
        ("uid", text(event.session.id.as_deref())),
        ("is_mfa", event.session.mfa.map(Value::from)),
        ("issuer", text(event.session.provider.as_deref())),
    ])
}

/// Actor, client and host.
fn who(event: &EventView<'_>, class: &Class, out: &mut Map<String, Value>) {
    let invoked = event.actor.behalf_of.as_deref();
    let invoked = invoked.and_then(|actor| actor.name.as_deref().or(actor.id.as_deref()));
    let named = is_named(&event.actor) || class.kind.needs_actor();
    let actor = object([
        ("user", named.then(|| user(&event.actor))),
        ("session", session(event)),
        ("invoked_by", text(invoked)),
    ]);
    put(out, "actor", actor);
    if class.kind.has_client() {
        let endpoint = client(event);
        // A client that must be named and is not is of an unknown name.
        let unknown = class.kind.needs_actor().then(|| json!({ "name": "Unknown" }));
        put(out, "src_endpoint", endpoint.or(unknown));
    }
    if class.kind.has_request() {
        let agent = text(event.source.user_agent.as_deref());
        let own = class.kind == class::Kind::Http;
        let target = event.targets.first().and_then(|target| target.name.as_deref());
        let url = target.filter(|_| own).map(|path| match path.split_once('?') {
            Some((path, query)) => json!({ "path": path, "query_string": query }),
            None => json!({ "path": path }),
        });
        let method = own.then(|| class.method()).flatten().map(Value::from);
        let request = object([("user_agent", agent), ("url", url), ("http_method", method)]);
        put(out, "http_request", request.or_else(|| own.then(|| json!({}))));
    }
    if let Some(host) = text(event.host.as_deref()) {
        out.insert("device".to_owned(), json!({ "hostname": host, "type_id": 0 }));
    }
}

fn client(event: &EventView<'_>) -> Option<Value> {
    let source = &event.source;
    let place = object([
        ("country", text(source.location.country.as_deref())),
        ("region", text(source.location.region.as_deref())),
        ("city", text(source.location.city.as_deref())),
    ]);
    object([
        ("ip", text(source.ip.as_deref())),
        ("hostname", text(source.host.as_deref())),
        ("name", text(source.device.name.as_deref())),
        ("uid", text(source.device.id.as_deref())),
    ])
    .map(|mut endpoint| {
        if let Value::Object(entries) = &mut endpoint {
            put(entries, "port", source.port.map(Value::from));
            put(entries, "location", place);
        }
        endpoint
    })
}

/// What the class is about.
fn what(event: &EventView<'_>, class: &Class, out: &mut Map<String, Value>) {
    use class::Kind;
    let target = event.targets.first().cloned().unwrap_or_default();
    let service = text(event.service.as_deref()).unwrap_or_else(|| "Unknown".into());
    let mut set = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    match class.kind {
        Kind::Authentication => {
            set("user", user(&event.actor));
            set("service", json!({ "name": service }));
            if let Some(mfa) = event.session.mfa {
                set("is_mfa", mfa.into());
            }
            if let Some(session) = session(event) {
                set("session", session);
            }
            if !event.session.methods.is_empty() {
                let factors = event.session.methods.iter().map(|method| class::factor(method));
                set("auth_factors", factors.collect());
            }
        }
        Kind::AccountChange => set("user", account(event, &target)),
        Kind::UserAccess => {
            set("user", account(event, &target));
            let privileges: Vec<&str> =
                event.targets.iter().skip(1).filter_map(|target| target.name.as_deref()).collect();
            let own = event.action.as_deref().unwrap_or("unknown");
            set("privileges", if privileges.is_empty() { json!([own]) } else { json!(privileges) });
        }
        Kind::GroupManagement => set("group", entity(&target, event, false)),
        Kind::EntityManagement => {
            set("entity", entity(&target, event, true));
            if let Some(why) = event.justification.as_deref() {
                set("comment", why.into());
            }
        }
        Kind::ApiActivity => {
            let operation = event.origin.event_name.as_deref().or(event.action.as_deref());
            let operation = operation.unwrap_or("unknown");
            set("api", json!({ "operation": operation, "service": { "name": service } }));
        }
        Kind::Datastore => {
            let name = target.name.as_deref().unwrap_or("Unknown");
            set("database", json!({ "name": name, "type_id": 0 }));
        }
        Kind::Application => {
            let name = target.name.as_deref().map_or(service, Value::from);
            set("app", json!({ "name": name }));
        }
        Kind::Finding => {
            let title = event.message.as_deref().or(event.action.as_deref()).unwrap_or_default();
            set("finding_info", json!({ "uid": event.id.to_string(), "title": title }));
        }
        Kind::Http | Kind::Base => {}
    }
}

/// The account that something was done to: the target, or who did it.
fn account(event: &EventView<'_>, target: &TargetView<'_>) -> Value {
    let is_user = target.name.is_some() || target.id.is_some();
    if is_user { target_user(target) } else { user(&event.actor) }
}

fn entity(target: &TargetView<'_>, event: &EventView<'_>, versions: bool) -> Value {
    let data = event.data.name.as_deref();
    let object_of = event.action.as_deref().and_then(|action| action.split('.').next());
    let nameless = target.name.is_none() && target.id.is_none();
    let name = target.name.as_deref().or(data.filter(|_| nameless));
    let name = name.or(object_of.filter(|_| nameless)).or(nameless.then_some("Unknown"));
    let kind = target.kind.as_deref().or(object_of);
    object([
        ("name", text(name)),
        ("uid", text(target.id.as_deref())),
        ("type", text(kind)),
        ("type_id", versions.then(|| 99.into())),
    ])
    .unwrap_or_default()
}

/// What the class has no attribute for, under the event's own names.
fn unmapped(event: &EventView<'_>, class: &Class) -> Map<String, Value> {
    let mut out = Map::new();
    let raw = |value: &serde_json::value::RawValue| serde_json::from_str(value.get()).ok();
    put(&mut out, "details", event.details.and_then(raw));
    if !event.changes.is_empty() {
        let changes = event.changes.iter().map(|change| {
            object([
                ("field", Some(change.field.as_ref().into())),
                ("before", change.before.and_then(raw)),
                ("after", change.after.and_then(raw)),
                ("masked", change.masked.then(|| true.into())),
            ])
        });
        out.insert("changes".to_owned(), changes.collect());
    }
    if !event.targets.is_empty() {
        let target = |target: &TargetView<'_>| {
            object([
                ("type", text(target.kind.as_deref())),
                ("id", text(target.id.as_deref())),
                ("name", text(target.name.as_deref())),
                ("parent", text(target.parent.as_deref())),
            ])
        };
        out.insert("targets".to_owned(), event.targets.iter().map(target).collect());
    }
    put(&mut out, "data", data(event));
    if !class.kind.has_client() {
        put(&mut out, "source", client(event));
    }
    put(&mut out, "op", text(event.op.as_deref()));
    put(&mut out, "category", text(event.category.as_deref()));
    put(&mut out, "time_basis", text(event.time_basis.as_deref()));
    if class.kind != class::Kind::EntityManagement {
        put(&mut out, "justification", text(event.justification.as_deref()));
    }
    put(&mut out, "irreversible", event.irreversible.then(|| true.into()));
    if !event.actor.roles.is_empty() {
        out.insert("roles".to_owned(), json!(event.actor.roles));
    }
    let device = object([
        ("os", text(event.source.device.os.as_deref())),
        ("browser", text(event.source.device.browser.as_deref())),
    ]);
    put(&mut out, "device", device);
    let trace = object([
        ("trace_id", text(event.trace.trace_id.as_deref())),
        ("span_id", text(event.trace.span_id.as_deref())),
    ]);
    put(&mut out, "trace", trace);
    put(&mut out, "raw_base64", text(event.origin.raw_base64.as_deref()));
    put(&mut out, "raw_sha256", text(event.origin.raw_sha256.as_deref()));
    out
}

fn data(event: &EventView<'_>) -> Option<Value> {
    let data = &event.data;
    object([
        ("records", data.records.map(Value::from)),
        ("bytes", data.bytes.map(Value::from)),
        ("format", text(data.format.as_deref())),
        ("fields", (!data.fields.is_empty()).then(|| json!(data.fields))),
        ("from", text(data.from.as_deref())),
        ("to", text(data.to.as_deref())),
        ("name", text(data.name.as_deref())),
        ("via", text(data.via.as_deref())),
    ])
}
