//! Fields as rules of redaction name them.

use std::borrow::Cow;

use custody_event::{Detail, Draft, Field, Kind};

/// A field, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    /// A field of one text, a list of texts, or a number.
    Field(Field),
    /// A part of every target.
    Target(TargetPart),
    /// Before and after of a change of this field.
    Change(Box<str>),
    /// A path in `details`.
    Detail(Box<str>),
    /// The record as it was read.
    Raw,
}

/// A part of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetPart {
    Id,
    Name,
    Parent,
}

/// Edits a text in place; false: it goes.
pub(crate) type Edit<'e, 'a> = &'e mut dyn FnMut(&mut Cow<'a, str>) -> bool;

impl Selector {
    /// The selector of a name: a field's path, `targets.name`, `changes.<field>`,
    /// `details.<path>`, `origin.raw`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        if let Some(path) = name.strip_prefix("details.") {
            return (!path.is_empty()).then(|| Self::Detail(path.into()));
        }
        if let Some(field) = name.strip_prefix("changes.") {
            return (!field.is_empty()).then(|| Self::Change(field.into()));
        }
        Some(match name {
            "targets.id" => Self::Target(TargetPart::Id),
            "targets.name" => Self::Target(TargetPart::Name),
            "targets.parent" => Self::Target(TargetPart::Parent),
            "origin.raw" => Self::Raw,
            _ => Self::Field(Field::from_path(name).filter(|field| may_be_redacted(*field))?),
        })
    }

    /// As configuration and tags write it.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Field(field) => Cow::Borrowed(field.path()),
            Self::Target(TargetPart::Id) => Cow::Borrowed("targets.id"),
            Self::Target(TargetPart::Name) => Cow::Borrowed("targets.name"),
            Self::Target(TargetPart::Parent) => Cow::Borrowed("targets.parent"),
            Self::Change(field) => Cow::Owned(format!("changes.{field}")),
            Self::Detail(path) => Cow::Owned(format!("details.{path}")),
            Self::Raw => Cow::Borrowed("origin.raw"),
        }
    }

    /// Has it room for a mask?
    pub(crate) fn is_text(&self) -> bool {
        match self {
            Self::Field(field) => matches!(field.kind(), Kind::Text | Kind::Texts),
            Self::Raw => false,
            Self::Target(_) | Self::Change(_) | Self::Detail(_) => true,
        }
    }

    /// Edits every text that the selector names.
    pub(crate) fn edit<'a>(&self, draft: &mut Draft<'a>, edit: Edit<'_, 'a>) {
        match self {
            Self::Field(field) => draft.edit(*field, edit),
            Self::Target(part) => draft.edit_targets(&mut |target| {
                let place = match part {
                    TargetPart::Id => &mut target.id,
                    TargetPart::Name => &mut target.name,
                    TargetPart::Parent => &mut target.parent,
                };
                if place.as_mut().is_some_and(|text| !edit(text)) {
                    *place = None;
                }
            }),
            Self::Change(field) => draft.edit_changes(&mut |change| {
                if change.field != **field {
                    return;
                }
                for value in [&mut change.before, &mut change.after] {
                    if let Some(detail) = value
                        && !leaves(detail, edit)
                    {
                        *value = None;
                    }
                }
                change.masked = true;
            }),
            Self::Detail(path) => {
                draft.edit_details(&mut |key, value| under(key, value, path, edit))
            }
            Self::Raw => {}
        }
    }
}

/// What identifies an event, and what the agent says of itself, stays.
fn may_be_redacted(field: Field) -> bool {
    !matches!(
        field,
        Field::Version
            | Field::Id
            | Field::Observed
            | Field::Time
            | Field::TimeBasis
            | Field::Tenant
            | Field::Action
            | Field::Category
            | Field::Op
            | Field::Outcome
            | Field::Severity
            | Field::Tags
            | Field::Targets
            | Field::Changes
            | Field::Details
    ) && !field.path().starts_with("origin.")
}

/// Edits what stands under a path: under a key of that whole name, or in a map under its first part.
/// False: it goes.
fn under<'a>(key: &str, value: &mut Detail<'a>, path: &str, edit: Edit<'_, 'a>) -> bool {
    if key == path {
        return leaves(value, edit);
    }
    if let Some(rest) = path.strip_prefix(key).and_then(|rest| rest.strip_prefix('.')) {
        within(value, rest, edit);
    }
    true
}

fn within<'a>(value: &mut Detail<'a>, path: &str, edit: Edit<'_, 'a>) {
    match value {
        Detail::Map(map) => map.retain_mut(|(key, value)| under(key, value, path, edit)),
        Detail::List(items) => items.iter_mut().for_each(|item| within(item, path, edit)),
        _ => {}
    }
}

/// Edits all that is in a value; false: it goes.
fn leaves<'a>(value: &mut Detail<'a>, edit: Edit<'_, 'a>) -> bool {
    match value {
        Detail::Null => true,
        Detail::Text(text) => edit(text),
        Detail::Int(_) | Detail::Bool(_) => {
            let mut text = Cow::Owned(match value {
                Detail::Int(number) => number.to_string(),
                Detail::Bool(truth) => truth.to_string(),
                _ => String::new(),
            });
            let stays = edit(&mut text);
            *value = Detail::Text(text);
            stays
        }
        Detail::List(items) => {
            items.retain_mut(|item| leaves(item, edit));
            true
        }
        Detail::Map(map) => {
            map.retain_mut(|(_, value)| leaves(value, edit));
            true
        }
    }
}
