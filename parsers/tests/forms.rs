//! The OCSF and ECS forms of every event that the built-in packs make of their own tests' records, checked against
//! the schemas' own definitions (`event/tests/schemas/`, written by `cargo xtask schema-tables`).

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use custody_event::{Offset, Timestamp, ecs, ocsf};
use custody_parsers::{Envelope, PackSet, Scratch, Select, Settings, builtin};
use serde_json::Value;

const OCSF: &str = include_str!("../../event/tests/schemas/ocsf.json");
const ECS: &str = include_str!("../../event/tests/schemas/ecs.json");

/// The events of every record that stands in a test of a built-in pack.
fn events() -> Vec<Vec<u8>> {
    let set = PackSet::with_builtin(&[]).unwrap();
    let observed = Timestamp::parse("2024-03-01T12:00:00.000000Z").unwrap();
    let mut scratch = Scratch::new();
    let mut all = Vec::new();
    for builtin in builtin() {
        let pack: Value = serde_yaml::from_str(&builtin.text()).unwrap();
        let names = Select::Names(vec![builtin.name().to_owned()]);
        let parser = set.select(&names, Settings::default()).unwrap();
        let tests = pack["rules"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|rule| rule["tests"].as_array().into_iter().flatten());
        for test in tests {
            let Some(record) = test["record"].as_str() else { continue };
            let envelope = Envelope {
                host: "test-host",
                path: test["path"].as_str(),
                endpoint: test["endpoint"].as_str(),
                unit: test["unit"].as_str(),
                service: test["service"].as_str(),
                ..Envelope::bare(observed)
            };
            let mut out = Vec::new();
            parser.parse(&mut scratch, &envelope, record.as_bytes(), Offset(0), None, &mut out);
            let events = out.split(|byte| *byte == b'\n').filter(|event| !event.is_empty());
            all.extend(events.map(<[u8]>::to_vec));
        }
    }
    all
}

/// The schema of OCSF.
struct Ocsf(Value);

impl Ocsf {
    fn check(&self, form: &Value) -> Result<(), String> {
        let uid = form["class_uid"].as_u64().ok_or("no class_uid")?;
        let class = &self.0["classes"][uid.to_string()];
        if class.is_null() {
            return Err(format!("no class {uid}"));
        }
        if class["name"] != form["class_name"] {
            return Err(format!(
                "class {uid} is called {}, not {}",
                class["name"], form["class_name"]
            ));
        }
        if form["type_uid"].as_u64() != Some(uid * 100 + form["activity_id"].as_u64().unwrap_or(0))
        {
            return Err("type_uid is not class_uid × 100 + activity_id".to_owned());
        }
        if form["category_uid"].as_u64() != Some(uid / 1000) {
            return Err("category_uid is not the class's".to_owned());
        }
        self.object(form, class, "")
    }

    fn object(&self, value: &Value, definition: &Value, path: &str) -> Result<(), String> {
        let entries = value.as_object().ok_or_else(|| format!("{path}: no object"))?;
        let texts = |key: &str| {
            let list = definition[key].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).collect::<Vec<_>>()
        };
        if let Some(missing) = texts("required").iter().find(|name| !entries.contains_key(**name)) {
            return Err(format!("{path}: `{missing}` is required"));
        }
        let any_of = texts("at_least_one");
        if !any_of.is_empty() && !any_of.iter().any(|name| entries.contains_key(*name)) {
            return Err(format!("{path}: one of {any_of:?} is required"));
        }
        for (name, value) in entries {
            let path = format!("{path}.{name}");
            let kind = definition["types"][name].as_str();
            let kind = kind.ok_or_else(|| format!("{path} is no attribute"))?;
            let allowed = definition["enums"][name].as_array();
            if allowed.is_some_and(|allowed| !allowed.contains(value)) {
                return Err(format!("{path}: {value} is not one of its numbers"));
            }
            match kind.strip_suffix("[]") {
                Some(kind) => {
                    let list = value.as_array().ok_or_else(|| format!("{path}: no list"))?;
                    for value in list {
                        self.value(value, kind, &path)?;
                    }
                }
                None => self.value(value, kind, &path)?,
            }
        }
        Ok(())
    }

    fn value(&self, value: &Value, kind: &str, path: &str) -> Result<(), String> {
        let good = match kind {
            "integer_t" | "long_t" | "timestamp_t" | "port_t" => value.is_i64() || value.is_u64(),
            "boolean_t" => value.is_boolean(),
            "float_t" => value.is_number(),
            "json_t" => true,
            "ip_t" => value.as_str().is_some_and(|text| text.parse::<IpAddr>().is_ok()),
            "email_t" => value.as_str().is_some_and(|text| text.contains('@')),
            "object" => value.is_object(),
            text if text.ends_with("_t") => value.is_string(),
            object => {
                let definition = &self.0["objects"][object];
                if definition.is_null() {
                    return Err(format!("{path}: the tables have no object `{object}`"));
                }
                return self.object(value, definition, path);
            }
        };
        if good { Ok(()) } else { Err(format!("{path}: {value} is no {kind}")) }
    }
}

/// The schema of ECS.
struct Ecs(Value);

impl Ecs {
    fn check(&self, form: &Value) -> Result<(), String> {
        self.walk(form, "")?;
        for name in ["@timestamp", "ecs"] {
            form.get(name).ok_or_else(|| format!("no {name}"))?;
        }
        let types = form["event"]["type"].as_array().cloned().unwrap_or_default();
        for category in form["event"]["category"].as_array().into_iter().flatten() {
            let allowed =
                &self.0["allowed"]["event.category"][category.as_str().unwrap_or_default()];
            let allowed = allowed.as_array().ok_or_else(|| format!("no category {category}"))?;
            if let Some(odd) = types.iter().find(|kind| !allowed.contains(kind)) {
                return Err(format!("type {odd} is not one of {category}'s: {allowed:?}"));
            }
        }
        Ok(())
    }

    fn walk(&self, value: &Value, path: &str) -> Result<(), String> {
        for (key, value) in value.as_object().into_iter().flatten() {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            if path == "custody" {
                continue;
            }
            match value {
                Value::Object(_) => self.walk(value, &path)?,
                value => self.leaf(value, &path)?,
            }
        }
        Ok(())
    }

    fn leaf(&self, value: &Value, path: &str) -> Result<(), String> {
        let kind = self.0["fields"][path].as_str().ok_or_else(|| format!("no field {path}"))?;
        let one = kind.strip_suffix("[]");
        if one.is_some() != value.is_array() {
            return Err(format!("{path}: a list, or none, against the schema: {value}"));
        }
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        for value in values {
            let good = match one.unwrap_or(kind) {
                "long" => value.is_i64() || value.is_u64(),
                "ip" => value.as_str().is_some_and(|text| text.parse::<IpAddr>().is_ok()),
                "date" => value.as_str().is_some_and(|text| Timestamp::parse(text).is_ok()),
                _ => value.is_string(),
            };
            if !good {
                return Err(format!("{path}: {value} is no {kind}"));
            }
            let allowed = self.0["allowed"][path].as_object();
            if allowed
                .is_some_and(|allowed| !allowed.contains_key(value.as_str().unwrap_or_default()))
            {
                return Err(format!("{path}: {value} is not one of its words"));
            }
        }
        Ok(())
    }
}

#[test]
fn every_event_of_every_pack_has_an_ocsf_form_of_the_schema() {
    let schema = Ocsf(serde_json::from_str(OCSF).unwrap());
    let (mut classes, mut problems) = (BTreeMap::<u64, usize>::new(), Vec::new());
    for event in events() {
        let form = ocsf::form(&event).unwrap();
        *classes.entry(form["class_uid"].as_u64().unwrap()).or_default() += 1;
        if let Err(problem) = schema.check(&form) {
            problems.push(format!("{problem}: {form}"));
        }
        if let Some(path) = ocsf::stray(&form) {
            problems.push(format!("{path} has no place in the shape of the form: {form}"));
        }
    }
    println!("events by class: {classes:?}");
    problems.truncate(20);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let used: Vec<u64> = classes.keys().copied().collect();
    let all = [0, 2004, 3001, 3002, 3004, 3005, 3006, 4002, 6002, 6003, 6005];
    assert_eq!(used, all, "every class is made by some pack");
}

#[test]
fn every_event_of_every_pack_has_an_ecs_form_of_the_schema() {
    let schema = Ecs(serde_json::from_str(ECS).unwrap());
    let mut problems = Vec::new();
    for event in events() {
        let form = ecs::form(&event).unwrap();
        if let Err(problem) = schema.check(&form) {
            problems.push(format!("{problem}: {form}"));
        }
    }
    problems.truncate(20);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn nothing_that_an_event_names_is_lost_in_its_forms() {
    for event in events() {
        let value: Value = serde_json::from_slice(&event).unwrap();
        let forms =
            [ocsf::form(&event).unwrap().to_string(), ecs::form(&event).unwrap().to_string()];
        for path in [
            "actor.name",
            "actor.id",
            "source.ip",
            "session.id",
            "reason.text",
            "data.name",
            "host",
            "justification",
        ] {
            let found = path.split('.').try_fold(&value, |value, key| value.get(key));
            let Some(text) = found.filter(|found| found.is_string()) else { continue };
            for form in &forms {
                assert!(form.contains(&text.to_string()), "{path} {text}: {form}");
            }
        }
        for target in value["targets"].as_array().into_iter().flatten() {
            let Some(name) = target.get("name") else { continue };
            assert!(forms.iter().all(|form| form.contains(&name.to_string())), "{name}: {forms:?}");
        }
    }
}
