use std::collections::BTreeSet;
use std::path::Path;

use super::*;

/// `.route("…", get(…).post(…))` in the sources of the collector: path and methods.
fn routes_of_the_sources() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs")
                // Servers that tests stand up are not the collector.
                && !path.ends_with("tests.rs")
            {
                read_routes(&std::fs::read_to_string(path).unwrap(), &mut found);
            }
        }
    }
    found
}

fn read_routes(source: &str, found: &mut BTreeSet<(String, String)>) {
    // A line that is a comment routes nothing.
    let code: String = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    for part in code.split(".route(").skip(1) {
        let Some(text) = part.trim_start().strip_prefix('"') else { continue };
        let (path, rest) = text.split_once('"').unwrap();
        let call = rest.split(".route(").next().unwrap();
        let mut depth = 1;
        let end = call.find(|c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        let call = &call[..end.unwrap_or(call.len())];
        for method in ["get", "post", "put", "patch", "delete"] {
            let calls = call.match_indices(&format!("{method}(")).any(|(at, _)| {
                let before = call[..at].chars().next_back();
                before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_')
            });
            if calls {
                found.insert((path.to_owned(), method.to_owned()));
            }
        }
    }
}

#[test]
fn every_route_of_the_sources_is_described_and_every_description_is_a_route() {
    let routed = routes_of_the_sources();
    let described: BTreeSet<(String, String)> = ROUTES
        .iter()
        .map(|route| (route.path.to_owned(), route.method.name().to_owned()))
        .collect();
    assert!(routed.len() > 15, "{routed:?}");
    let missing: Vec<_> = routed.difference(&described).collect();
    assert!(missing.is_empty(), "add these to ROUTES (query/openapi/routes.rs): {missing:?}");
    let gone: Vec<_> = described.difference(&routed).collect();
    assert!(gone.is_empty(), "no router has these: {gone:?}");
}

#[test]
fn the_document_is_whole() {
    let document = document();
    let mut ids = BTreeSet::new();
    for route in ROUTES {
        let operation = &document["paths"][route.path.replace("{*", "{")][route.method.name()];
        assert_eq!(operation["summary"], route.summary, "{}", route.path);
        assert!(ids.insert(route.id()), "{} is there twice", route.id());
        assert!(!route.examples.is_empty(), "{} has no example", route.path);
        let names = route.path.matches('{').count();
        let placed = route.params.iter().filter(|param| param.in_path);
        assert_eq!(placed.clone().count(), names, "{}", route.path);
        for param in placed {
            let braced = [format!("{{{}}}", param.name), format!("{{*{}}}", param.name)];
            assert!(braced.iter().any(|braced| route.path.contains(braced)), "{}", param.name);
        }
    }
    every_reference_leads_somewhere(&document, &document);
}

fn every_reference_leads_somewhere(document: &Value, value: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            map.values().for_each(|value| every_reference_leads_somewhere(document, value));
        }
        Value::Array(list) => {
            list.iter().for_each(|value| every_reference_leads_somewhere(document, value));
        }
        _ => {}
    }
}
