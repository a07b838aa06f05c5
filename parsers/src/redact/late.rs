//! What can be redacted only when the event is filled: fields, and secrets that a decoder has
//! brought to light.
//!
//! Every value that goes is looked for in the raw record and in all other texts of the event. Where
//! the raw record does not show it in any form that is known ([`super::find`]), the record is left
//! out: it holds the value in a form of its own.

use std::borrow::Cow;

use custody_event::{Detail, Draft};

use super::{FieldRule, Names, RedactAction, Redaction, SecretPattern, Selector, find, note};

/// A shorter text is not searched: no pattern fits it.
const LEAST_BYTES: usize = 6;

/// What became of the raw record.
#[derive(Debug, Default)]
pub(crate) enum Raw {
    /// It is as it was.
    #[default]
    Kept,
    /// It is this.
    Changed(Vec<u8>),
    /// It is left out.
    Gone,
}

/// A value that goes, and what comes in its place.
pub(crate) type Swap = (String, String);

/// What is known of a record when its event is redacted.
pub(crate) struct Known<'t> {
    /// The record and what the source took off it, which were searched before.
    pub(crate) texts: [&'t str; 2],
    pub(crate) record: &'t [u8],
    /// Rules of the pack.
    pub(crate) of_pack: &'t [FieldRule],
}

/// Redacts what the event's fields hold. Adds to `swaps`, which may be of other events of the same
/// record already: their values are taken out of the raw record too.
pub(crate) fn redact(
    redaction: &Redaction,
    known: &Known<'_>,
    draft: &mut Draft<'_>,
    swaps: &mut Vec<Swap>,
    names: &mut Names,
) -> Raw {
    let before = swaps.len();
    let mut raw = Raw::Kept;
    let own = redaction.fields();
    let is_new = |rule: &&FieldRule| own.iter().all(|own| own.selector != rule.selector);
    for rule in own.iter().chain(known.of_pack.iter().filter(is_new)) {
        match (&rule.selector, rule.action) {
            (_, RedactAction::Keep) => {}
            (Selector::Raw, _) => {
                raw = Raw::Gone;
                note(names, "origin.raw");
            }
            _ => field(redaction, rule, draft, swaps, names),
        }
    }
    if redaction.hides(SecretPattern::SecretValues) {
        named(redaction, draft, swaps, names);
    }
    draft.each_text(&mut |text| decoded(redaction, text, &known.texts, swaps, names));
    let of_others = swaps.len().min(before);
    if swaps.is_empty() {
        return raw;
    }
    // What is of this event must be found in its raw record; what is of others may be.
    let must: Vec<String> = swaps[of_others..].iter().map(|(value, _)| value.clone()).collect();
    // The longer first: one may be within another.
    swaps.sort_by(|one, other| other.0.len().cmp(&one.0.len()).then_with(|| one.cmp(other)));
    swaps.dedup();
    draft.each_text(&mut |text| everywhere(text, swaps));
    match raw {
        Raw::Gone => Raw::Gone,
        _ => in_record(known.record, swaps, &must, names),
    }
}

/// Values of details and changes whose names are those of secrets, whatever the record's form is.
fn named(redaction: &Redaction, draft: &mut Draft<'_>, swaps: &mut Vec<Swap>, names: &mut Names) {
    let pattern = SecretPattern::SecretValues;
    let mut hide = |key: &str, value: &mut Detail<'_>| {
        let Detail::Text(text) = value else { return false };
        let is_secret = super::detect::is_secret_name(key.as_bytes())
            && super::detect::is_secret(text.as_bytes(), true);
        if is_secret {
            let instead = redaction.act(redaction.action_of(pattern), text.as_bytes());
            swaps.push((text.to_string(), instead.to_string()));
            *text = instead;
            note(names, pattern.name());
        }
        is_secret
    };
    draft.edit_details(&mut |key, value| {
        in_map(key, value, &mut hide);
        true
    });
    draft.edit_changes(&mut |change| {
        for value in [&mut change.before, &mut change.after].into_iter().flatten() {
            change.masked |= hide(&change.field, value);
        }
    });
}

fn in_map<'a>(
    key: &str,
    value: &mut Detail<'a>,
    hide: &mut impl FnMut(&str, &mut Detail<'a>) -> bool,
) {
    match value {
        Detail::Map(map) => map.iter_mut().for_each(|(key, value)| in_map(key, value, hide)),
        Detail::List(items) => items.iter_mut().for_each(|item| in_map(key, item, hide)),
        _ => {
            hide(key, value);
        }
    }
}

fn field<'a>(
    redaction: &Redaction,
    rule: &FieldRule,
    draft: &mut Draft<'a>,
    swaps: &mut Vec<Swap>,
    names: &mut Names,
) {
    let mut found = false;
    rule.selector.edit(draft, &mut |text| {
        found = true;
        if text.is_empty() {
            return true;
        }
        let instead = redaction.act(rule.action, text.as_bytes());
        swaps.push((text.to_string(), instead.to_string()));
        *text = instead;
        rule.action != RedactAction::Remove
    });
    if found {
        note(names, &rule.selector.name());
    }
}

/// A text that does not stand in the record was decoded: it is searched like the record.
fn decoded(
    redaction: &Redaction,
    text: &mut Cow<'_, str>,
    texts: &[&str],
    swaps: &mut Vec<Swap>,
    names: &mut Names,
) {
    if text.len() < LEAST_BYTES {
        return;
    }
    let at = text.as_ptr().addr();
    let stands = |whole: &&str| {
        let from = whole.as_ptr().addr();
        at >= from && at + text.len() <= from + whole.len()
    };
    if texts.iter().any(stands) {
        return;
    }
    let hits = redaction.find(text.as_bytes());
    if hits.is_empty() {
        return;
    }
    for hit in &hits {
        let mut instead = Vec::new();
        redaction.instead(text.as_bytes(), hit, &mut instead);
        let secret = String::from_utf8_lossy(&text.as_bytes()[hit.from..hit.to]).into_owned();
        swaps.push((secret, String::from_utf8_lossy(&instead).into_owned()));
    }
    redaction.name(&hits, names);
    let mut out = Vec::with_capacity(text.len());
    redaction.replace(text.as_bytes(), &hits, &mut out);
    *text = Cow::Owned(String::from_utf8_lossy(&out).into_owned());
}

fn everywhere(text: &mut Cow<'_, str>, swaps: &[Swap]) {
    for (value, instead) in swaps {
        if let Some(out) = find::replaced(text.as_bytes(), value, instead) {
            *text = Cow::Owned(String::from_utf8_lossy(&out).into_owned());
        }
    }
}

fn in_record(record: &[u8], swaps: &[Swap], must: &[String], names: &mut Names) -> Raw {
    let mut now = Cow::Borrowed(record);
    for (value, instead) in swaps {
        match find::replaced(&now, value, instead) {
            Some(out) => now = Cow::Owned(out),
            None if !must.contains(value) => {}
            // It may have been within one that was longer.
            None if swaps.iter().any(|(longer, _)| longer != value && longer.contains(value)) => {}
            None => {
                note(names, "origin.raw");
                return Raw::Gone;
            }
        }
    }
    match now {
        Cow::Borrowed(_) => Raw::Kept,
        Cow::Owned(now) => Raw::Changed(now),
    }
}

/// A further piece of a record without the values that went from its event.
pub(crate) fn of_piece<'t>(piece: &'t [u8], swaps: &[Swap]) -> Cow<'t, [u8]> {
    let mut now = Cow::Borrowed(piece);
    for (value, instead) in swaps {
        if let Some(out) = find::replaced(&now, value, instead) {
            now = Cow::Owned(out);
        }
    }
    now
}
