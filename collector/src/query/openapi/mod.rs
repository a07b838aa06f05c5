//! `GET /openapi.json`: the API described, made from the table of [`routes`] and the keys of the
//! search. Served to anybody: it says what the program is, nothing of what it holds.
//!
//! A test reads the sources for routes and finds each of them here; another sends every example.

mod routes;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header;
use serde_json::{Map, Value, json};

use super::keys::{self, Key, Named};
pub use routes::{Method, Needs, Param, ROUTES, Route};

/// The route.
pub fn router() -> Router {
    Router::new().route("/openapi.json", get(openapi))
}

async fn openapi() -> impl IntoResponse {
    let headers =
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "max-age=60")];
    (headers, document().to_string())
}

/// The document, OpenAPI 3.1.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        if let Value::Object(path) = path {
            path.insert(route.method.name().to_owned(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Custody collector",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": ABOUT,
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "parameters": components(),
            "responses": { "problem": {
                "description": "What is wrong, where, and what to do (RFC 9457).",
                "content": { "application/problem+json": {
                    "schema": { "$ref": "#/components/schemas/Problem" } } },
            } },
            "schemas": { "Problem": problem(), "Event": event() },
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

const ABOUT: &str = "Audit events: searched, followed, proved. Every key of the search line is also a \
    parameter; `-key` in front of it excludes; several values stand apart by commas and any of \
    them will do; parameters that are repeated must all hold. Everything that is asked is itself \
    an event in the trail.";

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = route.params.iter().map(parameter).collect();
    if route.filters {
        let refs = filter_names().map(|name| json!({ "$ref": reference(&name) }));
        let own = |wanted: &Value| {
            let named = |param: &Param| reference(param.name) == wanted["$ref"];
            route.params.iter().any(named)
        };
        parameters.extend(refs.filter(|wanted| !own(wanted)));
    }
    let mut answer = json!({ "description": route.answers });
    if !route.media.is_empty() {
        answer["content"] = json!({ route.media: { "schema": {} } });
    }
    let mut operation = json!({
        "summary": route.summary,
        "operationId": route.id(),
        "tags": [route.tag],
        "parameters": parameters,
        "responses": { "200": answer, "default": { "$ref": "#/components/responses/problem" } },
        "x-permission": route.needs.name(),
        "x-examples": route.examples,
    });
    if route.needs == Needs::Nobody {
        operation["security"] = json!([]);
    }
    if let Some((media, example)) = route.body {
        let read = serde_json::from_str(example);
        let schema = read.as_ref().map_or_else(|_| bytes(), schema_of);
        let example = read.unwrap_or_else(|_| Value::from(example));
        operation["requestBody"] = json!({ "required": true,
            "content": { media: { "schema": schema, "example": example } } });
    }
    operation
}

/// What is no JSON.
fn bytes() -> Value {
    json!({ "type": "string", "format": "binary" })
}

/// The shape of a body, as its example shows it: the names of its members and their types.
fn schema_of(example: &Value) -> Value {
    match example {
        Value::Null => json!({}),
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Number(_) => json!({ "type": "integer" }),
        Value::String(_) => json!({ "type": "string" }),
        Value::Array(list) => {
            json!({ "type": "array", "items": list.first().map_or_else(|| json!({}), schema_of) })
        }
        Value::Object(map) => {
            let members: Map<String, Value> =
                map.iter().map(|(name, value)| (name.clone(), schema_of(value))).collect();
            json!({ "type": "object", "properties": members })
        }
    }
}

fn parameter(param: &Param) -> Value {
    let place = if param.in_path { "path" } else { "query" };
    json!({ "name": param.name, "in": place, "required": param.required || param.in_path,
        "description": param.about, "schema": schema(param.kind), "example": param.example })
}

fn schema(kind: &str) -> Value {
    match kind {
        "integer" => json!({ "type": "integer", "minimum": 0 }),
        "text" => json!({ "type": "string" }),
        choice => json!({ "type": "string", "enum": choice.split('|').collect::<Vec<_>>() }),
    }
}

/// Parameters that every search takes.
fn filter_names() -> impl Iterator<Item = String> {
    let line = std::iter::once("q".to_owned());
    let times = keys::TIMES.iter().map(|(name, _)| (*name).to_owned());
    line.chain(times).chain(keys::all().map(|(name, _)| name.to_owned()))
}

fn reference(name: &str) -> String {
    format!("#/components/parameters/{name}")
}

fn components() -> Map<String, Value> {
    let mut out = Map::new();
    let line = "a search line: actor:jane action:data.* -outcome:failure \"two words\" pref*";
    let all = std::iter::once(("q", line)).chain(keys::TIMES.iter().copied()).chain(keys::all());
    for (name, about) in all {
        let closed = Key::from_name(name).and_then(Key::closed);
        let about = match (closed, Named::of(name)) {
            (Some(values), _) => format!("{about}: {}", values.join(", ")),
            (None, Some(Named::Number(_))) => format!("{about}: 5, >5, >=5, <5, 5..9"),
            _ => about.to_owned(),
        };
        out.insert(
            name.to_owned(),
            json!({ "name": name, "in": "query", "description": about,
                "schema": { "type": "string" } }),
        );
    }
    out
}

fn problem() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    json!({ "type": "object", "required": ["title", "status"], "properties": {
        "type": text("a name for programs"),
        "title": text("the name for people"),
        "status": { "type": "integer" },
        "detail": text("this case, and what to do"),
        "parameter": text("which parameter is wrong"),
        "column": { "type": "integer", "description": "at which character of it, from 1" },
        "hint": text("what would be right"),
    } })
}

fn event() -> Value {
    json!({ "type": "object", "required": ["v", "id", "time", "observed", "origin"],
        "description": "A canonical event, byte for byte as it is kept.",
        "properties": {
            "v": { "const": 1 },
            "id": { "type": "string", "pattern": "^[0-9a-f]{32}$" },
            "time": { "type": "string", "format": "date-time" },
            "observed": { "type": "string", "format": "date-time" },
            "action": { "type": "string" },
            "origin": { "type": "object" },
        } })
}
