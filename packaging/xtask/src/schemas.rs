//! `cargo xtask schema-tables`: what the tests of the forms need of OCSF and ECS, from the schemas' own files.
//!
//! `--ocsf` is a checkout of the repository `ocsf/ocsf-schema`, `--ecs` one of `elastic/ecs`, both under the
//! Apache License 2.0. Written are `event/tests/schemas/ocsf.json` and `ecs.json`: of the classes and objects that are
//! used the attributes, their types, which of them must be there, and the numbers that enumerations allow; no
//! descriptions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::out::say;

const CLASSES: &[&str] = &[
    "base_event",
    "detection_finding",
    "account_change",
    "authentication",
    "entity_management",
    "user_access",
    "group_management",
    "http_activity",
    "application_lifecycle",
    "api_activity",
    "datastore_activity",
];
const OBJECTS: &[&str] = &[
    "actor",
    "api",
    "application",
    "auth_factor",
    "database",
    "device",
    "finding_info",
    "group",
    "http_request",
    "location",
    "managed_entity",
    "metadata",
    "network_endpoint",
    "product",
    "service",
    "session",
    "url",
    "user",
];
const FIELD_SETS: &[&str] = &[
    "@timestamp",
    "ecs",
    "error",
    "event",
    "group",
    "host",
    "http",
    "log",
    "message",
    "organization",
    "related",
    "service",
    "source",
    "span",
    "tags",
    "trace",
    "url",
    "user",
    "user_agent",
];
const LICENCE: &str = "Apache-2.0";

/// Arguments of `schema-tables`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A checkout of ocsf/ocsf-schema.
    #[arg(long, value_name = "DIR")]
    ocsf: Option<PathBuf>,
    /// A checkout of elastic/ecs.
    #[arg(long, value_name = "DIR")]
    ecs: Option<PathBuf>,
    /// Where to write.
    #[arg(long, default_value = "event/tests/schemas", value_name = "DIR")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.output)?;
    let tables =
        [("ocsf.json", args.ocsf.as_deref().map(ocsf)), ("ecs.json", args.ecs.as_deref().map(ecs))];
    for (name, table) in tables {
        let Some(table) = table else { continue };
        let path = args.output.join(name);
        let text = serde_json::to_string(&table?)? + "\n";
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        say(&format!("written: {}", path.display()));
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// The files of a folder and those in it, by the name that they give themselves.
fn named(folder: &Path, found: &mut BTreeMap<String, Value>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            named(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "json") {
            let value = read(&path)?;
            if let Some(name) = value["name"].as_str().map(str::to_owned) {
                found.insert(name, value);
            }
        }
    }
    Ok(())
}

/// The attributes of a definition, with those of what it extends and includes.
fn attributes(
    root: &Path,
    all: &BTreeMap<String, Value>,
    name: &str,
) -> anyhow::Result<Map<String, Value>> {
    let definition = all.get(name).with_context(|| format!("the schema has no `{name}`"))?;
    let mut out = match definition["extends"].as_str() {
        Some(base) => attributes(root, all, base)?,
        None => Map::new(),
    };
    merge(root, &definition["attributes"], &mut out)?;
    Ok(out)
}

fn merge(root: &Path, from: &Value, out: &mut Map<String, Value>) -> anyhow::Result<()> {
    let included: Vec<&str> = match &from["$include"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    for path in included {
        let mut profile = Map::new();
        merge(root, &read(&root.join(path))?["attributes"], &mut profile)?;
        // A profile's attributes must be there where the event says that it has the profile: not always.
        for (key, mut attribute) in profile {
            if let Some(attribute) = attribute.as_object_mut() {
                attribute.remove("requirement");
            }
            out.entry(key).or_insert(attribute);
        }
    }
    for (key, value) in from.as_object().into_iter().flatten().filter(|(key, _)| *key != "$include")
    {
        let known = out.entry(key.clone()).or_insert_with(|| json!({}));
        let requirement = value["requirement"].as_str();
        if let Some(requirement) = requirement {
            known["requirement"] = requirement.into();
        }
        for number in value["enum"].as_object().into_iter().flatten().map(|(number, _)| number) {
            known["enum"][number] = true.into();
        }
    }
    Ok(())
}

fn ocsf(root: &Path) -> anyhow::Result<Value> {
    let dictionary = read(&root.join("dictionary.json"))?;
    let categories = read(&root.join("categories.json"))?;
    let (mut events, mut objects) = (BTreeMap::new(), BTreeMap::new());
    named(&root.join("events"), &mut events)?;
    named(&root.join("objects"), &mut objects)?;
    let mut classes = Map::new();
    for name in CLASSES {
        let category = category(&events, name);
        let base = categories["attributes"][category.as_str()]["uid"].as_u64().unwrap_or(0);
        let uid = base * 1000 + events[*name]["uid"].as_u64().unwrap_or(0);
        let table = table(&dictionary, &events[*name], &attributes(root, &events, name)?);
        classes.insert(uid.to_string(), table);
    }
    let mut used = Map::new();
    for name in OBJECTS {
        let table = table(&dictionary, &objects[*name], &attributes(root, &objects, name)?);
        used.insert((*name).to_owned(), table);
    }
    let version = read(&root.join("version.json"))?["version"].clone();
    Ok(json!({
        "schema": "OCSF", "version": version, "licence": LICENCE, "classes": classes, "objects": used,
    }))
}

fn category(events: &BTreeMap<String, Value>, name: &str) -> String {
    let definition = &events[name];
    match (definition["category"].as_str(), definition["extends"].as_str()) {
        (Some(category), _) => category.to_owned(),
        (None, Some(base)) => category(events, base),
        (None, None) => String::new(),
    }
}

fn table(dictionary: &Value, definition: &Value, attributes: &Map<String, Value>) -> Value {
    let mut types = Map::new();
    let mut enums = Map::new();
    let mut required = Vec::new();
    for (name, attribute) in attributes {
        let known = &dictionary["attributes"][name];
        let list = if known["is_array"] == true { "[]" } else { "" };
        let kind = known["type"].as_str().unwrap_or("object");
        types.insert(name.clone(), format!("{kind}{list}").into());
        if attribute["requirement"] == "required" {
            required.push(name.clone());
        }
        let own = attribute["enum"].as_object().into_iter().flatten();
        let general = known["enum"].as_object().into_iter().flatten();
        let mut numbers: Vec<i64> =
            own.chain(general).filter_map(|(number, _)| number.parse().ok()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if !numbers.is_empty() && name.ends_with("_id") {
            enums.insert(name.clone(), json!(numbers));
        }
    }
    json!({
        "name": definition["caption"], "required": required, "types": types, "enums": enums,
        "at_least_one": definition["constraints"]["at_least_one"],
    })
}

fn ecs(root: &Path) -> anyhow::Result<Value> {
    let csv = std::fs::read_to_string(root.join("generated/csv/fields.csv"))
        .context("ECS's fields.csv")?;
    let mut fields = Map::new();
    let mut version = String::new();
    for line in csv.lines().skip(1) {
        // The first seven columns hold no commas; the last two may go over several lines.
        let columns: Vec<&str> = line.split(',').collect();
        let [said, "true" | "false", _, field, kind, _, normal, ..] = columns.as_slice() else {
            continue;
        };
        let set = field.split('.').next().unwrap_or_default();
        let deep = field.matches('.').count() <= 3;
        if FIELD_SETS.contains(&set) && deep {
            (*said).clone_into(&mut version);
            let list = if *normal == "array" { "[]" } else { "" };
            fields.insert((*field).to_owned(), format!("{kind}{list}").into());
        }
    }
    let text =
        std::fs::read_to_string(root.join("schemas/event.yml")).context("ECS's event.yml")?;
    let event: Value = serde_yaml::from_str(&text).context("ECS's event.yml")?;
    let mut allowed = Map::new();
    for field in event[0]["fields"].as_array().into_iter().flatten() {
        let Some(name) = field["name"].as_str() else { continue };
        let values = field["allowed_values"].as_array().into_iter().flatten();
        let values: Map<String, Value> = values
            .filter_map(|value| {
                Some((value["name"].as_str()?.to_owned(), value["expected_event_types"].clone()))
            })
            .collect();
        if !values.is_empty() {
            allowed.insert(format!("event.{name}"), Value::Object(values));
        }
    }
    Ok(json!({
        "schema": "ECS", "version": version, "licence": LICENCE, "fields": fields, "allowed": allowed,
    }))
}
