//! Before and after, in the shapes that programs give them.
//!
//! - two values, or two objects: each key that differs is a change; in objects that hold objects
//!   (and differ) each path that differs (`address.city`), at most [`MAX_DEPTH`] deep;
//! - `{"phone": {"old": 1, "new": 2}}`, `{"phone": [1, 2]}`, `{"phone": 2}` (only the new value);
//! - `[{"field": "phone", "before": 1, "after": 2}]`; also a list of field names alone.

use std::borrow::Cow;

use custody_event::{Change, Detail, Draft};

use crate::decode::json::{At, Kind, Tape};
use crate::fill::member;
use crate::value::{Scene, Value};

const FIELD: &[&str] = &["field", "name", "key", "attribute", "property", "path"];
const BEFORE: &[&str] = &["before", "old", "old_value", "oldValue", "from", "previous", "was"];
const AFTER: &[&str] = &["after", "new", "new_value", "newValue", "to", "current", "value", "is"];
/// Objects in one another that are told apart; what is deeper is compared whole.
const MAX_DEPTH: usize = 8;
/// A mask is all of these, and at least three.
const MASKS: &[u8] = b"*x#";

/// Changes between two values that a rule names apart.
pub(crate) fn between<'a>(
    field: Option<Cow<'a, str>>,
    before: Option<Detail<'a>>,
    after: Option<Detail<'a>>,
    draft: &mut Draft<'a>,
) {
    match (field, before, after) {
        (None, Some(Detail::Map(before)), Some(Detail::Map(after))) => maps(before, after, draft),
        (None, Some(Detail::Map(before)), None) => maps(before, Vec::new(), draft),
        (None, None, Some(Detail::Map(after))) => maps(Vec::new(), after, draft),
        (field, before, after) => {
            push(field.unwrap_or(Cow::Borrowed("value")), before, after, draft);
        }
    }
}

type Entries<'a> = Vec<(Cow<'a, str>, Detail<'a>)>;

fn maps<'a>(before: Entries<'a>, after: Entries<'a>, draft: &mut Draft<'a>) {
    differ("", before, after, 0, draft);
}

/// Changes between two objects under a path.
fn differ<'a>(
    path: &str,
    before: Entries<'a>,
    mut after: Entries<'a>,
    depth: usize,
    draft: &mut Draft<'a>,
) {
    let under = |key: Cow<'a, str>| match path {
        "" => key,
        path => Cow::Owned(format!("{path}.{key}")),
    };
    for (key, old) in before {
        let new = after.iter().position(|(other, _)| *other == key).map(|at| after.remove(at).1);
        match (old, new) {
            (Detail::Map(old), Some(Detail::Map(new))) if depth < MAX_DEPTH => {
                differ(&under(key), old, new, depth + 1, draft);
            }
            (old, new) if new.as_ref() != Some(&old) => push(under(key), Some(old), new, draft),
            _ => {}
        }
    }
    for (key, new) in after {
        push(under(key), None, Some(new), draft);
    }
}

fn push<'a>(
    field: Cow<'a, str>,
    before: Option<Detail<'a>>,
    after: Option<Detail<'a>>,
    draft: &mut Draft<'a>,
) {
    let masked = [&before, &after].into_iter().flatten().any(is_mask);
    draft.change(Change { field, before, after, masked });
}

fn is_mask(value: &Detail<'_>) -> bool {
    match value {
        Detail::Text(text) => {
            let text = text.as_bytes();
            text.len() >= 3
                && text.first().is_some_and(|first| MASKS.contains(first))
                && text.iter().all(|byte| Some(byte) == text.first())
        }
        _ => false,
    }
}

/// Changes from one value that lists them.
pub(crate) fn listed<'a>(value: &'a Value, scene: &Scene<'a>, draft: &mut Draft<'a>) {
    let places: Vec<&Value> = match value {
        Value::List(values) => values.iter().collect(),
        other => vec![other],
    };
    for value in places {
        let Value::From(source) = value else {
            value.each(scene, &mut |field| push(field, None, None, draft));
            continue;
        };
        match scene.json_at(*source) {
            Some((tape, text, at)) => {
                let taken = match tape.kind(at) {
                    Kind::Object => object(tape, text, at, draft),
                    Kind::List => list(tape, text, at, draft),
                    _ => false,
                };
                if taken {
                    scene.take(*source);
                    return;
                }
            }
            None => {
                if let Some(field) = scene.text(*source) {
                    return push(Cow::Borrowed(field), None, None, draft);
                }
            }
        }
    }
}

fn object<'a>(tape: &'a Tape, text: &'a str, at: At, draft: &mut Draft<'a>) -> bool {
    let before = member(tape, at, &["before", "old"]);
    let after = member(tape, at, &["after", "new"]);
    if before.is_some() || after.is_some() {
        let detail = |at: Option<At>| at.map(|at| tape.detail(at, text, false));
        between(None, detail(before), detail(after), draft);
        return true;
    }
    for child in tape.children(at) {
        member_change(tape, text, child, Cow::Borrowed(tape.key(child)), 0, draft);
    }
    true
}

/// A change that stands under its field's name.
fn member_change<'a>(
    tape: &'a Tape,
    text: &'a str,
    child: At,
    field: Cow<'a, str>,
    depth: usize,
    draft: &mut Draft<'a>,
) {
    let whole = |at: At| tape.detail(at, text, false);
    match tape.kind(child) {
        Kind::List if tape.children(child).count() == 2 => {
            let mut pair = tape.children(child).map(whole);
            push(field, pair.next(), pair.next(), draft);
        }
        Kind::Object => match (member(tape, child, BEFORE), member(tape, child, AFTER)) {
            (None, None) if depth < MAX_DEPTH && tells_changes(tape, child) => {
                for inner in tape.children(child) {
                    let path = format!("{field}.{}", tape.key(inner));
                    member_change(tape, text, inner, Cow::Owned(path), depth + 1, draft);
                }
            }
            (None, None) => push(field, None, Some(whole(child)), draft),
            (before, after) => match (before.map(whole), after.map(whole)) {
                (Some(Detail::Map(before)), Some(Detail::Map(after))) => {
                    differ(&field, before, after, 0, draft);
                }
                (before, after) => push(field, before, after, draft),
            },
        },
        _ => push(field, None, Some(whole(child)), draft),
    }
}

/// Are all members of an object changes themselves: objects with a before or an after?
fn tells_changes(tape: &Tape, at: At) -> bool {
    let mut children = tape.children(at).peekable();
    children.peek().is_some()
        && children.all(|child| {
            tape.kind(child) == Kind::Object
                && (member(tape, child, BEFORE).is_some() || member(tape, child, AFTER).is_some())
        })
}

fn list<'a>(tape: &'a Tape, text: &'a str, at: At, draft: &mut Draft<'a>) -> bool {
    let known = tape.children(at).all(|child| match tape.kind(child) {
        Kind::Object => member(tape, child, FIELD).is_some(),
        Kind::Text => true,
        _ => false,
    });
    if !known {
        return false;
    }
    for child in tape.children(at) {
        if let Some(field) = tape.scalar(child, text) {
            push(Cow::Borrowed(field), None, None, draft);
            continue;
        }
        let detail = |names| member(tape, child, names).map(|at| tape.detail(at, text, false));
        let field = member(tape, child, FIELD).and_then(|at| tape.scalar(at, text));
        push(Cow::Borrowed(field.unwrap_or("value")), detail(BEFORE), detail(AFTER), draft);
    }
    true
}
