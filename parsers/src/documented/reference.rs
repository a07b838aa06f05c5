//! `docs/reference/packs.md`, made from the types: what a pack's file may hold as `yaml.rs` reads it, with the doc
//! comments that stand there; decoders, names, tests and forms as their enums list them; the event's fields.
//!
//! A test compares. Where the two differ, it says so, and `UPDATE_DOCS=1` writes the page.

use std::fmt::Write as _;
use std::path::Path;

use custody_event::{Field, Kind};

use crate::decode::{Decoder, build, json, xml};
use crate::load::{self, list_of, may_set};
use crate::pack::Format;
use crate::value::Source;
use crate::{pattern, scan, when};

const KEYS: &str = include_str!("../yaml.rs");
const DECODERS: &str = include_str!("../decode/mod.rs");
const NAMES: &str = include_str!("../value.rs");
const TESTS: &str = include_str!("../when.rs");
const FORMS: &str = include_str!("../pack.rs");

/// What stands in a type's definition: the doc comment, the name, and of a field its type.
struct Item {
    doc: String,
    name: String,
    kind: String,
}

/// The fields of a struct or the variants of an enum; first the type itself.
fn items(source: &str, head: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let (mut doc, mut renamed, mut inside) = (String::new(), None, false);
    for line in source.lines() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("/// ") {
            let gap = if doc.is_empty() { "" } else { " " };
            let _ = write!(doc, "{gap}{text}");
            continue;
        }
        if let Some(name) = line.strip_prefix("#[serde(rename = \"") {
            renamed = name.split('"').next().map(str::to_owned);
        }
        if line.starts_with("#[") {
            continue;
        }
        let doc = std::mem::take(&mut doc);
        let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
        if line.strip_suffix(" {") == Some(head) {
            inside = true;
            items.push(Item { doc, name: head.to_owned(), kind: String::new() });
        } else if inside && line == "}" {
            return items;
        } else if inside {
            let line = line.trim_end_matches(',');
            let (name, kind) = match line.split_once(": ") {
                Some((name, kind)) => (name, kind),
                None => (line.split(['(', ' ']).next().unwrap_or(line), ""),
            };
            let name = renamed.take().unwrap_or_else(|| name.to_owned());
            items.push(Item { doc, name, kind: kind.to_owned() });
        }
    }
    panic!("no `{head}`");
}

/// How a file writes what the type reads, and whether it must be there.
fn written(kind: &str) -> (&'static str, bool) {
    let needed = !kind.starts_with("Option<");
    let bare = kind.strip_prefix("Option<").and_then(|kind| kind.strip_suffix('>')).unwrap_or(kind);
    let bare =
        bare.strip_prefix("Spanned<").and_then(|kind| kind.strip_suffix('>')).unwrap_or(bare);
    match bare {
        "Text" | "String" => ("text", needed),
        "i64" => ("integer", needed),
        "bool" => ("`true` or `false`", false),
        "Raw" => ("text, or a list of texts", needed),
        "Vec<RawRule>" => ("list of [rules](#a-rule)", needed),
        "Vec<RawRedact>" => ("list, see [`redact`](#redact)", false),
        "Vec<Spanned<RawTest>>" => ("list of [tests](#a-test)", false),
        "RawSelect" => ("map, see [`select`](#select)", needed),
        "RawKv" => ("map, see [`kv`](#kv)", needed),
        "RawCsv" => ("map, see [`csv`](#csv)", needed),
        "RawTime" => ("map, see [`time`](#time)", needed),
        "Pairs<Spanned<Raw>>" => ("map", false),
        "Pairs<Pairs<Spanned<Raw>>>" => ("map of maps", false),
        other => panic!("no word for {other}"),
    }
}

fn keys(page: &mut String) {
    for (title, head) in [
        ("A pack", "struct RawPack"),
        ("`select`", "struct RawSelect"),
        ("`time`", "struct RawTime"),
        ("`kv`", "struct RawKv"),
        ("`csv`", "struct RawCsv"),
        ("`redact`", "struct RawRedact"),
        ("A rule", "struct RawRule"),
        ("A test", "struct RawTest"),
    ] {
        let items = items(KEYS, head);
        let _ =
            write!(page, "\n## {title}\n\n| key | holds | needed | meaning |\n|---|---|---|---|\n");
        for item in &items[1..] {
            let (kind, needed) = written(&item.kind);
            assert!(!item.doc.is_empty(), "{head}: `{}` says nothing of itself", item.name);
            let needed = if needed { "yes" } else { "" };
            let _ = writeln!(page, "| `{}` | {kind} | {needed} | {} |", item.name, item.doc);
        }
    }
}

/// A table of names and of what the variants of the enum say of them.
fn names(
    page: &mut String,
    (title, about): (&str, &str),
    names: &[&str],
    variants: &[Item],
    variant_of: impl Fn(&str) -> String,
) {
    let _ = write!(page, "\n## {title}\n\n{about}\n\n| name | meaning |\n|---|---|\n");
    for name in names {
        let variant = variant_of(name);
        let known = variants.iter().find(|item| item.name == variant);
        let doc = known.map_or_else(|| panic!("no variant {variant}"), |item| &item.doc);
        assert!(!doc.is_empty(), "{variant} says nothing of itself");
        let _ = writeln!(page, "| `{name}` | {doc} |");
    }
}

/// The first word of a value's debug form: its variant.
fn variant(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|sign: char| !sign.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

fn capital(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    first.to_uppercase() + rest
}

fn lists(page: &mut String) {
    let chain = (
        "Decoders",
        "Of `decode`. `none` takes nothing off. All but `syslog` give fields: `$<decoder>.<path>`.",
    );
    let decoders: Vec<&str> =
        Decoder::NAMES.iter().copied().filter(|name| *name != "none").collect();
    names(page, chain, &decoders, &items(DECODERS, "enum Decoder"), |name| {
        Decoder::from_name(name).map(|decoder| variant(&decoder)).unwrap_or_default()
    });
    let every = (
        "Names",
        "Beside a rule's groups and the fields of its decoder: `$name`, in a template `${name}`.",
    );
    names(page, every, Source::NAMES, &items(NAMES, "enum Source"), |name| {
        Source::from_name(name).map(|source| variant(&source)).unwrap_or_default()
    });
    let tests: Vec<&str> =
        when::Test::NAMES.iter().copied().filter(|name| *name != "not").collect();
    let about = (
        "Tests",
        "Of `when`: `name: { test: value }`. What is missing fails every test but `exists`.",
    );
    names(page, about, &tests, &items(TESTS, "enum Test"), capital);
    let trees = ("Trees", "Of `when`: each holds one map of tests, or a list of them.");
    names(page, trees, when::TREES, &items(TESTS, "enum Tree"), capital);
    let forms = ("Forms of a time", "Of `formats`, beside patterns of `%…`.");
    names(page, forms, Format::NAMES, &items(FORMS, "enum Format"), |name| {
        Format::from_name(name).map(|format| variant(&format)).unwrap_or_default()
    });
}

fn fields(page: &mut String) {
    page.push_str("\n## Fields of the event\n\nKeys of a rule's `event`; `details.<word>` beside them. The agent fills all others itself.\n\n");
    page.push_str("| field | holds | words |\n|---|---|---|\n");
    for field in Field::ALL.iter().filter(|field| may_set(**field)) {
        let kind = match field.kind() {
            Kind::Text => "text",
            Kind::Int => "integer",
            Kind::Bool => "`true` or `false`",
            Kind::Texts => "list of texts",
            Kind::Changes => "list of changes",
            Kind::Targets | Kind::Details => panic!("{field:?} is set by its parts"),
        };
        let words = list_of(*field).iter().map(|word| format!("`{word}`")).collect::<Vec<_>>();
        let _ = writeln!(page, "| `{}` | {kind} | {} |", field.path(), words.join(", "));
    }
    for part in load::PARTS {
        let kind = match *part {
            "changes.before" | "changes.after" => "a value, or an object",
            _ => "text",
        };
        let _ = writeln!(page, "| `{part}` | {kind} | |");
    }
}

fn limits(page: &mut String) {
    page.push_str("\n## Limits\n\n| of | at most |\n|---|---|\n");
    for (what, most) in [
        ("a pack, bytes", load::MAX_PACK_BYTES),
        ("rules of a pack", load::MAX_RULES),
        ("a pattern, bytes", pattern::MAX_PATTERN_BYTES),
        ("groups of a pattern", scan::MAX_GROUPS - 1),
        ("tests in a rule's `when`", when::MAX_TESTS),
        ("trees of `when` in one another", when::MAX_DEPTH),
        ("JSON objects and lists in one another", json::MAX_DEPTH),
        ("XML elements in one another", xml::MAX_DEPTH),
        ("fields of a decoder other than `json`", build::MAX_FIELDS),
        ("a key of theirs, bytes", build::MAX_KEY_BYTES),
        ("elements that are fanned out", crate::MAX_FAN_OUT),
        ("events of one record, bytes", crate::MAX_FANNED_BYTES),
    ] {
        let _ = writeln!(page, "| {what} | {most} |");
    }
}

fn page() -> String {
    let mut page = String::from(
        "# Rule packs: reference\n\nMade from the types in `parsers/src`; a test compares. How they play together is told in [the language of rule \
         packs](../pack-language.md); an unknown key is an error, with its place.\n",
    );
    keys(&mut page);
    lists(&mut page);
    fields(&mut page);
    limits(&mut page);
    page
}

#[test]
fn the_reference_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/packs.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(page.lines()).find(|(kept, made)| kept != made);
    assert!(
        kept == page,
        "docs/reference/packs.md is not what the types say; `UPDATE_DOCS=1 cargo test -p custody-parsers reference` writes it. \
         First difference: {differs:?}"
    );
}
