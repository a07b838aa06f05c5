//! From a rule and a record to the fields of an event.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use custody_event::{Detail, Draft, Field, Kind, Target, Timestamp};
use jiff::tz::TimeZone;

use crate::changes;
use crate::decode::json::{Kind as JsonKind, Tape};
use crate::load::list_of;
use crate::normalise::{self, Actions};
use crate::pack::{Rule, Set, TimeRule, To};
use crate::time::{Basis, ZoneMemo, resolve};
use crate::value::{Scene, Value};

/// Before/after values that a rule names apart.
#[derive(Default)]
struct Change<'a> {
    field: Option<Cow<'a, str>>,
    before: Option<Detail<'a>>,
    after: Option<Detail<'a>>,
}

/// Fills what the rule says whatever the record is.
pub(crate) fn fixed<'a>(rule: &'a Rule, scene: &Scene<'a>, draft: &mut Draft<'a>) {
    for set in &rule.sets[..rule.fixed] {
        if let To::Field(field) = &set.to {
            fill(*field, set, scene, draft);
        }
    }
    if let Some((category, op)) = rule.defaults {
        default(draft, Field::Category, category);
        default(draft, Field::Op, op);
    }
    if rule.settled {
        severity(draft);
    }
}

/// Fills what the rule takes from the record; what follows from it is filled by [`finish`].
pub(crate) fn apply<'a>(
    rule: &'a Rule,
    scene: &Scene<'a>,
    actions: &mut Actions,
    draft: &mut Draft<'a>,
) {
    let mut target = Target::default();
    let mut change = Change::default();
    let mut action = None;
    for set in &rule.sets[rule.fixed..] {
        if set.paths.as_ref().is_some_and(|paths| scene.lacks(paths)) {
            continue;
        }
        match &set.to {
            To::Field(Field::Action) => action = text(set, scene),
            To::Field(field) => fill(*field, set, scene, draft),
            To::TargetKind => target.kind = text(set, scene),
            To::TargetId => target.id = text(set, scene),
            To::TargetName => target.name = text(set, scene),
            To::TargetParent => target.parent = text(set, scene),
            To::ChangeField => change.field = text(set, scene),
            To::ChangeBefore => change.before = set.value.detail(scene),
            To::ChangeAfter => change.after = set.value.detail(scene),
            To::Detail(key) => {
                if let Some(detail) = detail(set, scene) {
                    draft.detail(&**key, detail);
                }
            }
        }
    }
    if rule.defaults.is_none() {
        if action.is_none() {
            action = draft.text_of(Field::Action).map(|name| Cow::Owned(name.to_owned()));
        }
        named_action(action.as_deref(), target.kind.as_deref(), actions, draft);
    }
    draft.target(target);
    if change.before.is_some() || change.after.is_some() {
        changes::between(change.field, change.before, change.after, draft);
    }
}

/// An action that the record names: turned into the event's form, its own word kept.
fn named_action(
    name: Option<&str>,
    object: Option<&str>,
    actions: &mut Actions,
    draft: &mut Draft<'_>,
) {
    let action = actions.of(name.unwrap_or_default(), object);
    if let Some(name) = name
        && name != action.name
        && !draft.has(Field::OriginEventName)
    {
        draft.text(Field::OriginEventName, name.to_owned());
    }
    if let Some(outcome) = action.outcome {
        default(draft, Field::Outcome, outcome);
    }
    default(draft, Field::Category, action.category);
    default(draft, Field::Op, action.op);
    draft.text(Field::Action, action.name.clone());
}

fn default(draft: &mut Draft<'_>, field: Field, text: &'static str) {
    if !draft.has(field) {
        draft.text(field, text);
    }
}

/// A value's text, translated.
fn text<'a>(set: &'a Set, scene: &Scene<'a>) -> Option<Cow<'a, str>> {
    let text = set.value.text(scene)?;
    match &set.map {
        Some(map) => map.apply(text),
        None => Some(text),
    }
}

fn detail<'a>(set: &'a Set, scene: &Scene<'a>) -> Option<Detail<'a>> {
    match &set.map {
        Some(_) => text(set, scene).map(Detail::Text),
        None => set.value.detail(scene),
    }
}

fn fill<'a>(field: Field, set: &'a Set, scene: &Scene<'a>, draft: &mut Draft<'a>) {
    match field.kind() {
        // `name, email, plan` is three.
        Kind::Texts if field == Field::DataFields => set.value.each(scene, &mut |text| {
            for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                draft.text(field, name.to_owned());
            }
        }),
        Kind::Texts => set.value.each(scene, &mut |text| {
            let text = match &set.map {
                Some(map) => map.apply(text),
                None => Some(text),
            };
            if let Some(text) = text {
                draft.text(field, text);
            }
        }),
        Kind::Changes => changes::listed(&set.value, scene, draft),
        _ => {
            if let Some(text) = text(set, scene) {
                put(field, text, &set.value, draft);
            }
        }
    }
}

fn put<'a>(field: Field, text: Cow<'a, str>, value: &Value, draft: &mut Draft<'a>) {
    match field {
        Field::SourceIp => address(text, draft),
        Field::DataBytes => match normalise::bytes(&text) {
            Some(bytes) => draft.int(field, bytes),
            None => draft.text(field, text),
        },
        _ if value.is_literal() => draft.text(field, text),
        Field::Outcome => word(field, normalise::outcome(&text), text, draft),
        Field::Severity => word(field, normalise::severity(&text), text, draft),
        Field::Category => match normalise::category(&text) {
            Some(known) => draft.text(field, known),
            None => draft.detail("category", Detail::Text(text)),
        },
        Field::Op | Field::ActorType | Field::BehalfType => {
            let lower = text.to_ascii_lowercase();
            let known = list_of(field).iter().find(|known| **known == lower).copied();
            word(field, known, text, draft);
        }
        _ => draft.text(field, text),
    }
}

/// A word of a closed list; another goes to the details under the field's name.
fn word<'a>(field: Field, known: Option<&'static str>, text: Cow<'a, str>, draft: &mut Draft<'a>) {
    match known {
        Some(known) => draft.text(field, known),
        None if text.is_empty() => {}
        None => draft.detail(field.path(), Detail::Text(text)),
    }
}

/// `source.ip` holds addresses only: IPv4 in IPv6 is unwrapped, a port beside it goes to its own
/// field, a zone index is left out, and a name goes to `source.host`.
fn address<'a>(text: Cow<'a, str>, draft: &mut Draft<'a>) {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(mapped) => draft.text(Field::SourceIp, mapped.to_string()),
            // One address is written in one way, or it is not found again.
            None => draft.text(Field::SourceIp, address.to_string()),
        },
        Ok(IpAddr::V4(_)) => draft.text(Field::SourceIp, text),
        Err(_) => odd_address(text, draft),
    }
}

fn odd_address<'a>(text: Cow<'a, str>, draft: &mut Draft<'a>) {
    if text.contains([',', ' ']) {
        return several_addresses(&text, draft);
    }
    if let Ok(both) = text.parse::<SocketAddr>() {
        draft.text(Field::SourceIp, both.ip().to_canonical().to_string());
        if !draft.has(Field::SourcePort) {
            draft.int(Field::SourcePort, i64::from(both.port()));
        }
        return;
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let bare = bare.split('%').next().unwrap_or_default();
    match bare.parse::<IpAddr>() {
        Ok(address) => draft.text(Field::SourceIp, address.to_canonical().to_string()),
        Err(_) if matches!(&*text, "-" | "UNKNOWN" | "unknown" | "?") => {}
        Err(_) if !draft.has(Field::SourceHost) => draft.text(Field::SourceHost, text),
        Err(_) => {}
    }
}

/// Of a list of addresses (X-Forwarded-For) the first public one, else the first.
fn several_addresses(text: &str, draft: &mut Draft<'_>) {
    let mut items = text.split([',', ' ']).filter(|item| !item.is_empty());
    let first = items.clone().next().unwrap_or_default();
    let public = items.find(|item| item.parse::<IpAddr>().is_ok_and(is_public));
    address(Cow::Owned(public.unwrap_or(first).to_owned()), draft);
}

fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified())
        }
        IpAddr::V6(address) => {
            !(address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local())
        }
    }
}

/// The record's own time by a pack's `time:`.
pub(crate) fn own_time(
    rule: &TimeRule,
    scene: &Scene<'_>,
    zone: &TimeZone,
    memo: &mut ZoneMemo,
    observed: Timestamp,
) -> Option<(Timestamp, Basis)> {
    let Value::List(fields) = &rule.field else { return None };
    for field in fields {
        let Value::From(source) = field else { continue };
        if !field.may_be(scene) {
            continue;
        }
        let Some(text) = scene.text(*source) else { continue };
        let moment = rule.formats.iter().find_map(|format| format.read(text));
        if let Some(found) = moment.and_then(|moment| resolve(moment, zone, memo, observed)) {
            scene.take(*source);
            return Some(found);
        }
    }
    None
}

/// Fills what follows from the rest: severity, the envelope's details, and JSON's leftovers.
pub(crate) fn finish<'a>(scene: &Scene<'a>, draft: &mut Draft<'a>) {
    severity(draft);
    leftovers(scene, draft);
    message(scene, draft);
}

/// Where nobody says how bad it is, it follows from what was done and how it ended.
fn severity(draft: &mut Draft<'_>) {
    if !draft.has(Field::Severity) {
        let category = draft.text_of(Field::Category).unwrap_or_default();
        let op = draft.text_of(Field::Op).unwrap_or_default();
        let severity = normalise::default_severity(category, op, draft.text_of(Field::Outcome));
        draft.text(Field::Severity, severity);
    }
}

fn leftovers<'a>(scene: &Scene<'a>, draft: &mut Draft<'a>) {
    let Some((tape, text)) = scene.facts.json else { return };
    for child in tape.children(0) {
        if tape.kind(child) == JsonKind::Null {
            continue;
        }
        if let Some(rest) = tape.rest(child, text) {
            draft.detail(tape.key(child), rest);
        }
    }
    if let Some(element) = tape.element() {
        element_leftovers(tape, element, text, draft);
    }
}

/// What is left of the element that is being fanned out: its members stand beside the others.
fn element_leftovers<'a>(tape: &'a Tape, element: u32, text: &'a str, draft: &mut Draft<'a>) {
    if tape.kind(element) != JsonKind::Object {
        if let Some(rest) = tape.rest(element, text) {
            draft.detail("element", rest);
        }
        return;
    }
    for child in tape.children(element) {
        if tape.kind(child) != JsonKind::Null
            && let Some(rest) = tape.rest(child, text)
        {
            draft.detail(tape.key(child), rest);
        }
    }
}

/// Every event has a sentence: the record's own message, or who did what to what.
fn message<'a>(scene: &Scene<'a>, draft: &mut Draft<'a>) {
    if draft.has(Field::Message) {
        return;
    }
    let is_json = scene.facts.json.is_some();
    if !is_json {
        let whole = scene.facts.syslog.map_or(scene.facts.message, |line| line.message);
        draft.text(Field::Message, whole.trim());
        return;
    }
    let mut sentence = String::new();
    for field in [Field::ActorName, Field::Action, Field::Outcome] {
        if let Some(text) = draft.text_of(field) {
            if !sentence.is_empty() {
                sentence.push(' ');
            }
            sentence.push_str(text);
        }
    }
    draft.text(Field::Message, sentence);
}

/// The envelope's own details: process id, message id, facility, level, structured data.
pub(crate) fn envelope_details<'a>(scene: &Scene<'a>, draft: &mut Draft<'a>) {
    for (key, text) in scene.facts.envelope.details {
        draft.detail(key.as_str(), Detail::Text(Cow::Borrowed(text)));
    }
    let Some(line) = scene.facts.syslog else { return };
    if let Some(pid) = line.pid {
        match pid.parse::<i64>() {
            Ok(pid) => draft.detail("pid", Detail::Int(pid)),
            Err(_) => draft.detail("pid", Detail::Text(Cow::Borrowed(pid))),
        }
    }
    let texts = [
        ("msgid", line.msgid),
        ("structured_data", line.data),
        ("facility", line.facility()),
        ("level", line.level()),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            draft.detail(key, Detail::Text(Cow::Borrowed(text)));
        }
    }
    if let Some(times) = line.repeated
        && !draft.has(Field::Attempts)
    {
        draft.int(Field::Attempts, times);
    }
}

/// A JSON object's member by one of these names.
pub(crate) fn member(tape: &Tape, at: u32, names: &[&str]) -> Option<u32> {
    tape.children(at)
        .find(|child| names.iter().any(|name| tape.key(*child).eq_ignore_ascii_case(name)))
}
