//! A pack after it has been checked: what the matcher and the writer of events work with.

use custody_event::{Field, Kind};

use crate::decode::Step;
use crate::pattern::Pattern;
use crate::redact::{FieldRule, RedactRule};
use crate::time::forms::Unit;
use crate::time::{Moment, forms, pattern};
use crate::value::{Source, Value};
use crate::when::{Network, Tree};
use crate::yaml::{Pairs, Raw};
use serde_yaml::Spanned;

/// A checked pack.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) name: String,
    pub(crate) version: i64,
    pub(crate) about: String,
    pub(crate) file: String,
    pub(crate) select: SelectBy,
    pub(crate) chain: Vec<Step>,
    /// Keys of fields are compared without case and joints.
    pub(crate) folded: bool,
    /// Paths into its decoder's fields that its rules name; [`Source::Json`] holds the place in
    /// this list.
    pub(crate) json_paths: Vec<Vec<Box<str>>>,
    /// The list each of whose elements is an event.
    pub(crate) fan_out: Option<Vec<Box<str>>>,
    /// Patterns that are taken out of all records of a source that uses the pack.
    pub(crate) redact: Vec<RedactRule>,
    /// Fields of its own events.
    pub(crate) redact_fields: Vec<FieldRule>,
    /// Browser and system are read from the user agent.
    pub(crate) user_agent: bool,
    /// Who, from where and how it went are read from the message where the rule does not say.
    pub(crate) sentence: bool,
    pub(crate) rules: Vec<Rule>,
    /// The clock of its tests.
    pub(crate) test_now: Option<String>,
}

impl Pack {
    /// Does it come with the program?
    pub(crate) fn is_builtin(&self) -> bool {
        self.file.starts_with(BUILTIN)
    }
}

/// How the names of built-in packs' sources begin.
pub(crate) const BUILTIN: &str = "built-in ";

/// To which records a pack applies: where any of these fits, or all of them are empty.
#[derive(Debug, Default, Clone)]
pub(crate) struct SelectBy {
    pub(crate) services: Vec<String>,
    pub(crate) paths: Vec<String>,
    pub(crate) units: Vec<String>,
    pub(crate) endpoints: Vec<String>,
}

impl SelectBy {
    /// Nothing but the program's name decides (or nothing at all).
    pub(crate) fn only_service(&self) -> bool {
        self.paths.is_empty() && self.units.is_empty() && self.endpoints.is_empty()
    }

    /// Does the pack name this program?
    pub(crate) fn names(&self, service: &str) -> bool {
        self.services.iter().any(|known| known == service)
    }

    /// Does the pack apply whatever the program is?
    pub(crate) fn fits(
        &self,
        path: Option<&str>,
        unit: Option<&str>,
        endpoint: Option<&str>,
    ) -> bool {
        let any = |globs: &[String], text: Option<&str>| {
            text.is_some_and(|text| globs.iter().any(|glob| glob_fits(glob, text)))
        };
        (self.only_service() && self.services.is_empty())
            || any(&self.paths, path)
            || any(&self.units, unit)
            || any(&self.endpoints, endpoint)
    }
}

/// `*` stands for any run of characters (also `/`), `?` for one.
pub(crate) fn glob_fits(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut g, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if g < glob.len() && glob[g] == b'*' {
            retry = Some((g + 1, t));
            g += 1;
        } else if g < glob.len() && (glob[g] == b'?' || glob[g] == text[t]) {
            g += 1;
            t += 1;
        } else if let Some((after, from)) = retry {
            retry = Some((after, from + 1));
            g = after;
            t = from + 1;
        } else {
            return false;
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}

/// A checked rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) pattern: Option<Pattern>,
    /// What the pattern is matched on.
    pub(crate) on: Source,
    pub(crate) when: Vec<Tree>,
    /// The fixed ones first.
    pub(crate) sets: Vec<Set>,
    /// How many of the sets say the same whatever the record is.
    pub(crate) fixed: usize,
    /// No record changes what the severity follows from.
    pub(crate) settled: bool,
    pub(crate) drop: Option<String>,
    pub(crate) time: Option<TimeRule>,
    pub(crate) tests: Vec<Test>,
    /// Category, operation and severity that follow from its literal action.
    pub(crate) defaults: Option<(&'static str, &'static str)>,
}

/// One line of `event:`.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) to: To,
    pub(crate) value: Value,
    /// Where the value is of fields of the decoder alone: their numbers. Without any of them there is nothing to set.
    pub(crate) paths: Option<Box<[u32]>>,
    pub(crate) map: Option<Map>,
}

impl Rule {
    /// The paths without which the rule knows no record, by their numbers in the pack.
    pub(crate) fn needs(&self) -> Vec<u32> {
        let mut paths = Vec::new();
        if self.pattern.is_some() {
            paths.extend(self.on.path());
        }
        self.when.iter().for_each(|tree| tree.needs(&mut paths));
        paths.sort_unstable();
        paths.dedup();
        paths
    }
}

impl Set {
    /// Does it give one field the same value whatever the record is?
    pub(crate) fn is_fixed(&self) -> bool {
        let of_literals = match &self.value {
            Value::List(values) => values.iter().all(Value::is_literal),
            value => value.is_literal(),
        };
        let kind = |field: &Field| {
            matches!(field.kind(), Kind::Text | Kind::Int | Kind::Bool | Kind::Texts)
        };
        of_literals && matches!(&self.to, To::Field(field) if kind(field))
    }
}

/// What a line of `event:` sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum To {
    Field(Field),
    TargetKind,
    TargetId,
    TargetName,
    TargetParent,
    ChangeField,
    ChangeBefore,
    ChangeAfter,
    Detail(Box<str>),
}

/// Translates texts: the first case that fits wins; one that fits none stays.
#[derive(Debug, Clone)]
pub(crate) struct Map(pub(crate) Vec<(Case, Option<Box<str>>)>);

/// A case of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Case {
    Exact(Box<str>),
    Prefix(Box<str>),
    /// An address in one of these.
    In(Vec<Network>),
    Any,
}

impl Map {
    /// The translation; `None` leaves the field out.
    pub(crate) fn apply<'a>(
        &'a self,
        text: std::borrow::Cow<'a, str>,
    ) -> Option<std::borrow::Cow<'a, str>> {
        for (case, to) in &self.0 {
            let fits = match case {
                Case::Exact(exact) => **exact == *text,
                Case::Prefix(prefix) => text.starts_with(&**prefix),
                Case::In(networks) => text.parse::<std::net::IpAddr>().is_ok_and(|address| {
                    networks.iter().any(|net| net.holds(address.to_canonical()))
                }),
                Case::Any => true,
            };
            if fits {
                return to.as_deref().map(std::borrow::Cow::Borrowed);
            }
        }
        Some(text)
    }
}

/// Where a record's own time stands, and in which form.
#[derive(Debug, Clone)]
pub(crate) struct TimeRule {
    pub(crate) field: Value,
    pub(crate) formats: Vec<Format>,
}

/// A form of a time.
#[derive(Debug, Clone)]
pub(crate) enum Format {
    /// Any of the forms that cannot be taken for one another.
    Auto,
    /// RFC 3339 and its relatives.
    Iso,
    /// `Dec 10 06:55:48`, with a year or without.
    Rfc3164,
    /// Apache's: `25/Oct/2016:14:49:33 +0200`.
    Clf,
    /// A number since 1970, with decimals or without: its size tells what it counts, or its name does.
    Epoch(Option<Unit>),
    /// `%d.%m.%Y %H:%M:%S` and the like.
    Pattern(pattern::Pattern),
}

impl Format {
    /// Names as packs write them.
    pub(crate) const NAMES: &'static [&'static str] = &[
        "auto", "clf", "epoch", "epoch_ms", "epoch_ns", "epoch_s", "epoch_us", "iso", "rfc3164",
        "rfc3339",
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "auto" => Self::Auto,
            "iso" | "rfc3339" => Self::Iso,
            "rfc3164" => Self::Rfc3164,
            "clf" => Self::Clf,
            "epoch" => Self::Epoch(None),
            "epoch_s" => Self::Epoch(Some(Unit::Seconds)),
            "epoch_ms" => Self::Epoch(Some(Unit::Millis)),
            "epoch_us" => Self::Epoch(Some(Unit::Micros)),
            "epoch_ns" => Self::Epoch(Some(Unit::Nanos)),
            _ => return None,
        })
    }

    /// Reads a whole text.
    pub(crate) fn read(&self, text: &str) -> Option<Moment> {
        let text = text.trim();
        let read = match self {
            Self::Auto => return forms::auto(text),
            Self::Pattern(pattern) => return pattern.read(text, true),
            Self::Iso => forms::iso(text.as_bytes()),
            Self::Rfc3164 => forms::rfc3164(text.as_bytes()),
            Self::Clf => forms::clf(text.as_bytes()),
            Self::Epoch(unit) => forms::epoch(text.as_bytes(), *unit),
        };
        read.filter(|(_, used)| *used == text.len()).map(|(moment, _)| moment)
    }
}

/// A test in a pack.
#[derive(Debug)]
pub(crate) struct Test {
    pub(crate) line: u64,
    pub(crate) column: u64,
    pub(crate) record: String,
    pub(crate) path: Option<String>,
    pub(crate) unit: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) now: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) event: Pairs<Spanned<Raw>>,
    pub(crate) unmatched: bool,
    pub(crate) dropped: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_fit_what_shells_fit_but_across_slashes_too() {
        for (glob, text) in [
            ("*", ""),
            ("*access*.log*", "/var/log/nginx/access.log.1"),
            ("/var/*/x", "/var/a/b/x"),
            ("a?c", "abc"),
            ("**a*", "bca"),
        ] {
            assert!(glob_fits(glob, text), "{glob} {text}");
        }
        for (glob, text) in [("a", "ab"), ("a?", "a"), ("*.log", "a.log.1"), ("", "a")] {
            assert!(!glob_fits(glob, text), "{glob} {text}");
        }
    }
}
