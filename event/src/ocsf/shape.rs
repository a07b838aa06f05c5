//! Which attributes the form has, and what each holds: for whoever writes it into typed columns.

use serde_json::Value;

/// What an attribute holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A text.
    Text,
    /// An integer; times are milliseconds since 1970.
    Int,
    /// `true` or `false`.
    Bool,
    /// Anything: it has no shape of its own.
    Any,
    /// Attributes of its own.
    Object(&'static [Attribute]),
    /// A list of the same; none holds lists.
    List(&'static Shape),
}

/// An attribute: its name and what it holds.
pub type Attribute = (&'static str, Shape);

use Shape::{Any, Bool, Int, List, Object, Text};

const TEXTS: Shape = List(&Text);
const NAMED: Shape = Object(&[("name", Text)]);
const SESSION: Shape = Object(&[("is_mfa", Bool), ("issuer", Text), ("uid", Text)]);
const USER: Shape = Object(&[
    ("email_addr", Text),
    ("full_name", Text),
    ("groups", List(&NAMED)),
    ("name", Text),
    ("type", Text),
    ("type_id", Int),
    ("uid", Text),
]);
const METADATA: Shape = Object(&[
    ("correlation_uid", Text),
    ("event_code", Text),
    ("labels", TEXTS),
    ("log_format", Text),
    ("log_name", Text),
    ("log_provider", Text),
    ("logged_time", Int),
    ("original_event_uid", Text),
    ("product", Object(&[("name", Text), ("vendor_name", Text)])),
    ("profiles", TEXTS),
    ("tenant_uid", Text),
    ("uid", Text),
    ("version", Text),
]);
const ENDPOINT: Shape = Object(&[
    ("hostname", Text),
    ("ip", Text),
    ("location", Object(&[("city", Text), ("country", Text), ("region", Text)])),
    ("name", Text),
    ("port", Int),
    ("uid", Text),
]);
const REQUEST: Shape = Object(&[
    ("http_method", Text),
    ("url", Object(&[("path", Text), ("query_string", Text)])),
    ("user_agent", Text),
]);
const FACTOR: Shape = Object(&[("factor_type", Text), ("factor_type_id", Int)]);

/// Every attribute that [`super::form`] may write, over all classes. What people look at first
/// stands first.
pub const SHAPE: &[Attribute] = &[
    ("time", Int),
    ("class_uid", Int),
    ("class_name", Text),
    ("category_uid", Int),
    ("category_name", Text),
    ("activity_id", Int),
    ("activity_name", Text),
    ("type_uid", Int),
    ("severity_id", Int),
    ("severity", Text),
    ("status_id", Int),
    ("status", Text),
    ("status_code", Text),
    ("status_detail", Text),
    ("message", Text),
    ("actor", Object(&[("invoked_by", Text), ("session", SESSION), ("user", USER)])),
    ("user", USER),
    ("src_endpoint", ENDPOINT),
    ("device", Object(&[("hostname", Text), ("type_id", Int)])),
    ("api", Object(&[("operation", Text), ("service", NAMED)])),
    ("app", NAMED),
    ("auth_factors", List(&FACTOR)),
    ("comment", Text),
    ("count", Int),
    ("database", Object(&[("name", Text), ("type_id", Int)])),
    ("duration", Int),
    ("entity", Object(&[("name", Text), ("type", Text), ("type_id", Int), ("uid", Text)])),
    ("finding_info", Object(&[("title", Text), ("uid", Text)])),
    ("group", Object(&[("name", Text), ("type", Text), ("uid", Text)])),
    ("http_request", REQUEST),
    ("is_mfa", Bool),
    ("metadata", METADATA),
    ("privileges", TEXTS),
    ("raw_data", Text),
    ("service", NAMED),
    ("session", SESSION),
    ("unmapped", Any),
];

/// The path of the first attribute of a form that [`SHAPE`] has no place for, or another kind of place.
#[must_use]
pub fn stray(form: &Value) -> Option<String> {
    stray_in(SHAPE, form)
}

fn stray_in(attributes: &[Attribute], object: &Value) -> Option<String> {
    let Value::Object(entries) = object else { return Some(String::new()) };
    entries.iter().find_map(|(key, value)| {
        let known = attributes.iter().find(|(name, _)| name == key);
        let inner = match known {
            None => Some(String::new()),
            Some((_, shape)) => misfit(shape, value),
        };
        inner.map(|inner| if inner.is_empty() { key.clone() } else { format!("{key}.{inner}") })
    })
}

/// Where below it a value does not fit; an empty path for the value itself.
fn misfit(shape: &Shape, value: &Value) -> Option<String> {
    let fits = match (shape, value) {
        (Object(attributes), _) => return stray_in(attributes, value),
        (List(item), Value::Array(items)) => {
            return items.iter().find_map(|value| misfit(item, value));
        }
        (Text, value) => value.is_string(),
        (Int, value) => value.is_i64(),
        (Bool, value) => value.is_boolean(),
        (Any, _) => true,
        (List(_), _) => false,
    };
    (!fits).then(String::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_has_no_place_is_named() {
        let good = json!({ "time": 1, "is_mfa": true, "unmapped": [1, { "a": null }],
            "metadata": { "labels": ["a"] }, "user": { "groups": [{ "name": "x" }] } });
        assert_eq!(stray(&good), None);
        for (bad, path) in [
            (json!({ "colour": 1 }), "colour"),
            (json!({ "time": "1" }), "time"),
            (json!({ "time": 1.5 }), "time"),
            (json!({ "actor": { "user": { "nose": 1 } } }), "actor.user.nose"),
            (json!({ "actor": "root" }), "actor"),
            (json!({ "privileges": "all" }), "privileges"),
            (json!({ "privileges": ["all", 1] }), "privileges"),
            (json!({ "auth_factors": [{ "x": 1 }] }), "auth_factors.x"),
        ] {
            assert_eq!(stray(&bad).as_deref(), Some(path), "{bad}");
        }
    }

    #[test]
    fn every_attribute_is_the_schemas_own_with_its_type() {
        let schema: Value =
            serde_json::from_str(include_str!("../../tests/schemas/ocsf.json")).unwrap();
        let mut types = std::collections::BTreeMap::new();
        for class in schema["classes"].as_object().unwrap().values() {
            for (name, kind) in class["types"].as_object().unwrap() {
                types.insert(name.as_str(), kind.as_str().unwrap());
            }
        }
        for (name, shape) in SHAPE {
            agrees(&schema, name, shape, types[name]);
        }
    }

    fn agrees(schema: &Value, name: &str, shape: &Shape, kind: &str) {
        match shape {
            List(item) => agrees(schema, name, item, kind.strip_suffix("[]").expect(name)),
            Object(attributes) => {
                let types = &schema["objects"][kind]["types"];
                for (key, inner) in *attributes {
                    let kind = types[key].as_str().unwrap_or_else(|| panic!("{name}.{key}"));
                    agrees(schema, &format!("{name}.{key}"), inner, kind);
                }
            }
            Any => assert_eq!(kind, "object", "{name}"),
            Bool => assert_eq!(kind, "boolean_t", "{name}"),
            Int => {
                let whole = ["integer_t", "long_t", "timestamp_t", "port_t"];
                assert!(whole.contains(&kind), "{name}: {kind}");
            }
            Text => {
                let texts = ["string_t", "email_t", "hostname_t", "ip_t", "username_t"];
                assert!(texts.contains(&kind), "{name}: {kind}");
            }
        }
    }
}
