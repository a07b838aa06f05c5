//! The bill of materials: CycloneDX 1.6 in JSON, from `cargo metadata`.
//!
//! Every crate that is linked into a product or runs while it is built is a component with its package URL, licence and,
//! from `Cargo.lock`, the checksum of its archive. Crates that only tests use, or only other systems, are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::PRODUCTS;
use crate::shell;

/// Writes `custody-<version>.cdx.json`.
pub(super) fn write(out: &Path, epoch: &str) -> anyhow::Result<()> {
    // What is linked on other systems only is in none of these packages.
    let metadata = super::metadata(&["--filter-platform", &super::platform()?])?;
    let lock = std::fs::read_to_string(shell::root()?.join("Cargo.lock"))?;
    let seconds: i64 = epoch.parse().context("SOURCE_DATE_EPOCH is no number")?;
    let time = custody_event::Timestamp::from_micros(seconds * 1_000_000);
    let bill = bill(&metadata, &checksums(&lock), &time.to_string())?;
    let path = out.join(format!("custody-{}.cdx.json", env!("CARGO_PKG_VERSION")));
    Ok(std::fs::write(path, format!("{bill:#}\n"))?)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// (name, version) → checksum, as Cargo.lock has it.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = package.lines().find(|line| line.starts_with(&format!("{key} = ")))?;
            line.split('"').nth(1).map(ToOwned::to_owned)
        };
        if let (Some(name), Some(version), Some(sum)) =
            (value("name"), value("version"), value("checksum"))
        {
            found.insert((name, version), sum);
        }
    }
    found
}

/// Package id → ids that it needs, other than for its tests.
fn needs(metadata: &Value) -> BTreeMap<&str, Vec<&str>> {
    let nodes = metadata.pointer("/resolve/nodes").and_then(Value::as_array);
    let needed = |node: &'_ Value| -> bool {
        list(node, "dep_kinds").iter().any(|kind| text(kind, "kind") != "dev")
    };
    nodes
        .into_iter()
        .flatten()
        .map(|node| {
            let deps = list(node, "deps").iter().filter(|dep| needed(dep));
            (text(node, "id"), deps.map(|dep| text(dep, "pkg")).collect())
        })
        .collect()
}

fn bill(
    metadata: &Value,
    sums: &BTreeMap<(String, String), String>,
    time: &str,
) -> anyhow::Result<Value> {
    let packages: BTreeMap<&str, &Value> =
        list(metadata, "packages").iter().map(|package| (text(package, "id"), package)).collect();
    let needs = needs(metadata);
    let is_product = |package: &Value| PRODUCTS.iter().any(|p| p.krate == text(package, "name"));
    let mut open: Vec<&str> =
        packages.iter().filter(|(_, package)| is_product(package)).map(|(id, _)| *id).collect();
    let mut reached = BTreeSet::new();
    while let Some(id) = open.pop() {
        if reached.insert(id) {
            open.extend(needs.get(id).into_iter().flatten());
        }
    }
    let purl = |id: &str| {
        packages.get(id).map(|p| format!("pkg:cargo/{}@{}", text(p, "name"), text(p, "version")))
    };
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for id in &reached {
        let package = packages.get(id).with_context(|| format!("{id} is not described"))?;
        let reference = purl(id).unwrap_or_default();
        components.push(component(package, &reference, sums));
        let on: BTreeSet<String> =
            needs.get(id).into_iter().flatten().filter_map(|dep| purl(dep)).collect();
        dependencies.push(json!({ "ref": reference, "dependsOn": on }));
    }
    let products: Vec<Option<String>> = reached
        .iter()
        .filter(|id| packages.get(*id).is_some_and(|p| is_product(p)))
        .map(|id| purl(id))
        .collect();
    dependencies.insert(0, json!({ "ref": "custody", "dependsOn": products }));
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "component": {
                "type": "application", "bom-ref": "custody", "name": "custody",
                "version": env!("CARGO_PKG_VERSION"),
            },
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

fn component(package: &Value, reference: &str, sums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (text(package, "name"), text(package, "version"));
    let kind = if PRODUCTS.iter().any(|p| p.krate == name) { "application" } else { "library" };
    let mut component = json!({
        "type": kind, "bom-ref": reference, "purl": reference, "name": name, "version": version,
    });
    // `MIT/Apache-2.0` is an older way to write `MIT OR Apache-2.0`.
    let license = text(package, "license").replace('/', " OR ");
    let license = license.split_whitespace().collect::<Vec<_>>().join(" ");
    if !license.is_empty() {
        component["licenses"] = json!([{ "expression": license }]);
    }
    if let Some(sum) = sums.get(&(name.to_owned(), version.to_owned())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_only_tests_use_is_not() {
        let package = |id: &str| json!({"id": id, "name": id, "version": "1.0.0", "license": "MIT / Apache-2.0"});
        let dep = |id: &str, kind: Value| json!({"pkg": id, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("custody-agent"), package("used"), package("built"), package("tested")],
            "resolve": {"nodes": [
                {"id": "custody-agent", "deps": [
                    dep("used", Value::Null), dep("tested", json!("dev"))]},
                {"id": "used", "deps": [dep("built", json!("build"))]},
            ]},
        });
        let lock = "\n[[package]]\nname = \"used\"\nversion = \"1.0.0\"\nchecksum = \"ab\"\n";
        let bill = bill(&metadata, &checksums(lock), "2026-01-01T00:00:00Z").unwrap();
        let names: Vec<&str> = list(&bill, "components").iter().map(|c| text(c, "name")).collect();
        assert_eq!(names, ["built", "custody-agent", "used"]);
        let used = &bill["components"][2];
        assert_eq!(used["hashes"][0]["content"], "ab");
        assert_eq!(used["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(used["purl"], "pkg:cargo/used@1.0.0");
        assert_eq!(bill["dependencies"][0]["dependsOn"], json!(["pkg:cargo/custody-agent@1.0.0"]));
        assert_eq!(bill["dependencies"][2]["dependsOn"], json!(["pkg:cargo/used@1.0.0"]));
    }
}
