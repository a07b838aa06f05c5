//! Values in packs: literals, references (`$user`, `$json.user.name`), lists and templates.

use std::borrow::Cow;

use custody_event::Detail;

use crate::decode::json::{At, Kind, Tape, index};
use crate::decode::syslog::Syslog;
use crate::parser::Envelope;
use crate::scan::{Slots, UNSET};

/// Where a referenced value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A group of the rule's pattern.
    Group(u8),
    /// A path into the fields of the record's decoder (JSON, logfmt …): its number in the pack's
    /// list.
    Json(u32),
    /// The decoded message.
    Message,
    /// The whole record.
    Record,
    /// The program.
    Service,
    /// The machine that the envelope names.
    Host,
    /// The process id that the envelope names.
    Pid,
    /// The message id that the envelope names.
    MsgId,
    /// The syslog facility by its name: `auth`.
    Facility,
    /// The syslog severity by its name: `warning`.
    Level,
    /// The syslog structured data, as it stands.
    Data,
    /// The file's path.
    Path,
    /// The systemd unit.
    Unit,
    /// The webhook's path.
    Endpoint,
}

impl Source {
    /// Names that every rule may use, beside its groups and the fields of its decoder.
    pub(crate) const NAMES: &'static [&'static str] = &[
        "data", "endpoint", "facility", "host", "level", "message", "msgid", "path", "pid",
        "record", "service", "unit",
    ];

    /// The number of a path among the pack's.
    pub(crate) fn path(self) -> Option<u32> {
        match self {
            Self::Json(path) => Some(path),
            _ => None,
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "data" => Self::Data,
            "endpoint" => Self::Endpoint,
            "facility" => Self::Facility,
            "host" => Self::Host,
            "level" => Self::Level,
            "message" => Self::Message,
            "msgid" => Self::MsgId,
            "path" => Self::Path,
            "pid" => Self::Pid,
            "record" => Self::Record,
            "service" => Self::Service,
            "unit" => Self::Unit,
            _ => return None,
        })
    }
}

/// A value of `event:`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(Box<str>),
    Int(i64),
    Bool(bool),
    From(Source),
    Template(Vec<Part>),
    List(Vec<Value>),
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Text(Box<str>),
    From(Source),
}

/// All that a record gives to the rules, whatever their patterns.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The whole record as text.
    pub(crate) record: &'a str,
    /// The decoded message (of a repeated one what was repeated).
    pub(crate) message: &'a str,
    pub(crate) syslog: Option<&'a Syslog<'a>>,
    /// The tape of the decoder's fields, and the text that it was read from.
    pub(crate) json: Option<(&'a Tape, &'a str)>,
    pub(crate) service: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    pub(crate) envelope: &'a Envelope<'a>,
}

/// What a record gives to one rule.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) facts: Facts<'a>,
    /// The text that the rule's groups are of.
    pub(crate) subject: &'a str,
    pub(crate) slots: &'a Slots,
    /// The slot of each of the pack's paths.
    pub(crate) fields: &'a [u32],
}

impl<'a> Facts<'a> {
    /// Is there a field in this slot?
    pub(crate) fn has(&self, slot: u32) -> bool {
        self.json.is_some_and(|(tape, ..)| tape.slot(slot).is_some())
    }

    /// With the groups of a rule's pattern.
    pub(crate) fn scene<'b>(
        &self,
        subject: &'b str,
        slots: &'b Slots,
        fields: &'b [u32],
    ) -> Scene<'b>
    where
        'a: 'b,
    {
        Scene { facts: *self, subject, slots, fields }
    }
}

impl<'a> Scene<'a> {
    /// The value as one text; an empty one is none.
    pub(crate) fn text(&self, source: Source) -> Option<&'a str> {
        let text = match source {
            Source::Group(group) => self.group(group),
            Source::Json(path) => {
                let (tape, text) = self.facts.json?;
                tape.scalar(tape.slot(self.slot_of(path)?)?, text)
            }
            Source::Message => Some(self.facts.message),
            Source::Record => Some(self.facts.record),
            Source::Service => self.facts.service,
            Source::Host => self.facts.host,
            Source::Pid => self.facts.syslog?.pid,
            Source::MsgId => self.facts.syslog?.msgid,
            Source::Facility => self.facts.syslog?.facility(),
            Source::Level => self.facts.syslog?.level(),
            Source::Data => self.facts.syslog?.data,
            Source::Path => self.facts.envelope.path,
            Source::Unit => self.facts.envelope.unit,
            Source::Endpoint => self.facts.envelope.endpoint,
        };
        text.filter(|text| !text.is_empty())
    }

    fn group(&self, group: u8) -> Option<&'a str> {
        let start = self.slots[usize::from(group) * 2];
        let end = self.slots[usize::from(group) * 2 + 1];
        if start == UNSET || end == UNSET {
            return None;
        }
        self.subject.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }

    /// The slot of one of the pack's paths.
    #[inline]
    fn slot_of(&self, path: u32) -> Option<u32> {
        self.fields.get(index(path)).copied()
    }

    #[inline]
    fn has(&self, path: u32) -> bool {
        self.slot_of(path).is_some_and(|slot| self.facts.has(slot))
    }

    /// Where a JSON value stands.
    pub(crate) fn json_at(&self, source: Source) -> Option<(&'a Tape, &'a str, At)> {
        let (Source::Json(path), Some((tape, text))) = (source, self.facts.json) else {
            return None;
        };
        tape.slot(self.slot_of(path)?).map(|at| (tape, text, at))
    }

    /// Is there anything, even an empty text, a list or an object?
    pub(crate) fn exists(&self, source: Source) -> bool {
        match self.json_at(source) {
            Some((tape, _, at)) => tape.kind(at) != Kind::Null,
            None => self.text(source).is_some(),
        }
    }

    /// Is there a field, where the source is one?
    #[inline]
    fn may_have(&self, source: Source) -> bool {
        match source {
            Source::Json(path) => self.has(path),
            _ => true,
        }
    }

    /// Is there none of these fields?
    pub(crate) fn lacks(&self, paths: &[u32]) -> bool {
        !paths.iter().any(|path| self.has(*path))
    }

    /// Notes that a JSON value has been taken up.
    pub(crate) fn take(&self, source: Source) {
        if let Some((tape, _, at)) = self.json_at(source) {
            tape.take(at);
        }
    }
}

impl Value {
    /// As one text; of a list the first that is there.
    pub(crate) fn text<'a>(&'a self, scene: &Scene<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Int(value) => Some(Cow::Owned(value.to_string())),
            Self::Bool(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
            Self::From(source) => {
                let text = scene.text(*source)?;
                scene.take(*source);
                Some(Cow::Borrowed(text))
            }
            Self::Template(parts) => template(parts, scene).map(Cow::Owned),
            Self::List(values) => values
                .iter()
                .filter(|value| value.may_be(scene))
                .find_map(|value| value.text(scene)),
        }
    }

    /// Every text of a list: of the value's own, and of JSON lists in it.
    pub(crate) fn each<'a>(&'a self, scene: &Scene<'a>, give: &mut dyn FnMut(Cow<'a, str>)) {
        match self {
            Self::List(values) => values.iter().for_each(|value| value.each(scene, give)),
            Self::From(source) => match scene.json_at(*source) {
                Some((tape, text, at)) if tape.kind(at) == Kind::List => {
                    let plain = |child: &At| tape.scalar(*child, text).is_some();
                    if tape.children(at).all(|child| plain(&child)) {
                        scene.take(*source);
                        for item in tape.children(at).filter_map(|child| tape.scalar(child, text)) {
                            give(Cow::Borrowed(item));
                        }
                    }
                }
                _ => self.text(scene).into_iter().for_each(give),
            },
            _ => self.text(scene).into_iter().for_each(give),
        }
    }

    /// As a detail: JSON keeps its form.
    pub(crate) fn detail<'a>(&'a self, scene: &Scene<'a>) -> Option<Detail<'a>> {
        match self {
            Self::Int(value) => Some(Detail::Int(*value)),
            Self::Bool(value) => Some(Detail::Bool(*value)),
            Self::From(source) => match scene.json_at(*source) {
                Some((tape, text, at)) => {
                    scene.take(*source);
                    Some(tape.detail(at, text, false))
                }
                None => self.text(scene).map(Detail::Text),
            },
            Self::List(values) => values
                .iter()
                .filter(|value| value.may_be(scene))
                .find_map(|value| value.detail(scene)),
            Self::Text(_) | Self::Template(_) => self.text(scene).map(Detail::Text),
        }
    }

    /// Is it not a field that is missing?
    #[inline]
    pub(crate) fn may_be(&self, scene: &Scene<'_>) -> bool {
        match self {
            Self::From(source) => scene.may_have(*source),
            _ => true,
        }
    }

    /// The numbers of the fields that it is of, where it is of nothing else.
    pub(crate) fn paths(&self) -> Option<Box<[u32]>> {
        match self {
            Self::From(source) => Some([source.path()?].into()),
            Self::List(values) => {
                let path = |value: &Self| match value {
                    Self::From(source) => source.path(),
                    _ => None,
                };
                values.iter().map(path).collect()
            }
            _ => None,
        }
    }

    /// Does it depend on the record?
    pub(crate) fn is_literal(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Int(_) | Self::Bool(_))
    }
}

/// A template's text; `None` if a part that it needs is missing.
fn template(parts: &[Part], scene: &Scene<'_>) -> Option<String> {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::From(source) => {
                out.push_str(scene.text(*source)?);
                scene.take(*source);
            }
        }
    }
    Some(out)
}
