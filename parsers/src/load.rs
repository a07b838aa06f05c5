//! From a pack's text to a checked pack, with file, line, column and a hint in every error.
//!
//! **Limits.** A pack is at most [`MAX_PACK_BYTES`] long and has at most [`MAX_RULES`] rules.

mod conditions;
mod decoders;
mod findings;
mod maps;
mod redact;
mod times;

use custody_event::{Field, Kind, Timestamp, taxonomy};
use serde_yaml::{Location, Spanned};

use crate::decode::Decoder;
use crate::error::{PackError, hint};
use crate::normalise;
use crate::pack::{Pack, Rule, SelectBy, Set, Test, To};
use crate::pattern::Pattern;
use crate::value::{Part, Source, Value};
use crate::when::Network;
use crate::yaml::{Pairs, Raw, RawPack, RawRule, RawSelect, RawTest, RawTime, Text, listed};

/// A pack's text, at most.
pub(crate) const MAX_PACK_BYTES: usize = 1024 * 1024;
/// Rules of one pack, at most.
pub(crate) const MAX_RULES: usize = 500;

/// A pack's text and what to call it in errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackSource {
    /// File name, for errors.
    pub name: String,
    /// YAML.
    pub text: String,
}

/// Reads and checks one pack; all that is wrong goes to `errors`, what is doubtful to `warnings`.
pub(crate) fn load(
    source: &PackSource,
    errors: &mut Vec<PackError>,
    warnings: &mut Vec<PackError>,
) -> Option<Pack> {
    read(source, false, errors, warnings)
}

/// Reads a built-in pack, which a test has checked: without its tests, and without making engines
/// of patterns that may never be needed.
pub(crate) fn load_proven(source: &PackSource) -> Result<Pack, Vec<PackError>> {
    let mut errors = Vec::new();
    let source = PackSource { name: source.name.clone(), text: without_tests(&source.text) };
    read(&source, true, &mut errors, &mut Vec::new()).ok_or(errors)
}

/// Leaves out the `tests:` of rules, most of a pack's text, whose reading would take longer than all
/// the rest: each with the lines that stand further in.
fn without_tests(text: &str) -> String {
    let mut kept = String::with_capacity(text.len() / 2);
    let mut inside: Option<usize> = None;
    for line in text.split_inclusive('\n') {
        let indent = line.len() - line.trim_start_matches(' ').len();
        if inside.is_some_and(|tests| indent > tests || line.trim().is_empty()) {
            continue;
        }
        inside = (line.trim() == "tests:").then_some(indent);
        if inside.is_none() {
            kept.push_str(line);
        }
    }
    kept
}

fn read(
    source: &PackSource,
    proven: bool,
    errors: &mut Vec<PackError>,
    warnings: &mut Vec<PackError>,
) -> Option<Pack> {
    if source.text.len() > MAX_PACK_BYTES {
        errors.push(PackError {
            file: source.name.clone(),
            line: 1,
            column: 1,
            message: format!("a pack of {} bytes", source.text.len()),
            hint: Some("at most 1 MiB: make several packs of it".to_owned()),
        });
        return None;
    }
    let mut options = serde_yaml::Options::default();
    options.with_snippet = false;
    let raw = match serde_yaml::from_str_with_options::<RawPack>(&source.text, options) {
        Ok(raw) => raw,
        Err(error) => {
            errors.push(yaml_error(&source.name, &error));
            return None;
        }
    };
    let before = errors.len();
    let mut loader = Loader {
        source,
        proven,
        errors,
        warnings,
        groups: Vec::new(),
        used: Vec::new(),
        blind: false,
        decoder: None,
        columns: Vec::new(),
        networks: Vec::new(),
        json_paths: Vec::new(),
    };
    let pack = loader.pack(&raw);
    (loader.errors.len() == before).then_some(pack)
}

fn yaml_error(file: &str, error: &serde_yaml::Error) -> PackError {
    let error = error.without_snippet();
    let location = error.location();
    let text = error.to_string();
    // The message may repeat the place; the place stands in front already.
    let message = match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    };
    PackError {
        file: file.to_owned(),
        line: location.map_or(0, |location| location.line()),
        column: location.map_or(0, |location| location.column()),
        message,
        hint: None,
    }
}

struct Loader<'a> {
    source: &'a PackSource,
    /// The pack has been checked before.
    proven: bool,
    errors: &'a mut Vec<PackError>,
    warnings: &'a mut Vec<PackError>,
    /// Groups of the rule that is being checked.
    groups: Vec<Option<Box<str>>>,
    /// Which of them something names.
    used: Vec<bool>,
    /// The rule's pattern is bad, so its groups are not known.
    blind: bool,
    /// The pack's decoder of fields.
    decoder: Option<&'static str>,
    /// The names of its columns, where they are known.
    columns: Vec<Box<str>>,
    /// `networks:`, by name.
    networks: Vec<(String, Vec<Network>)>,
    json_paths: Vec<Vec<Box<str>>>,
}

impl Loader<'_> {
    fn problem(&self, at: Location, message: impl Into<String>, hint: Option<String>) -> PackError {
        PackError {
            file: self.source.name.clone(),
            line: at.line(),
            column: at.column(),
            message: message.into(),
            hint,
        }
    }

    fn error(&mut self, at: Location, message: impl Into<String>, hint: Option<String>) {
        let problem = self.problem(at, message, hint);
        self.errors.push(problem);
    }

    fn pack(&mut self, raw: &RawPack) -> Pack {
        let name = &raw.pack;
        let well_formed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.value.is_empty() || !name.value.bytes().all(well_formed) {
            let hint = Some("lower-case letters, digits and `-`".to_owned());
            self.error(name.referenced, format!("`{}` is no name for a pack", name.value), hint);
        }
        if raw.version.value < 1 {
            self.error(raw.version.referenced, "a version is a number from 1", None);
        }
        let chain = self.decoders(raw);
        let folded = self.folded(raw);
        let fan_out = raw.fan_out.as_ref().and_then(|path| self.fan_out(path));
        let user_agent = self.parses("user_agent", raw.user_agent.as_ref());
        let sentence = self.parses("sentence", raw.sentence.as_ref());
        let (redact, redact_fields) = self.redact(&raw.redact);
        self.network_table(raw);
        let select = raw.select.as_ref().map(|select| self.select(select)).unwrap_or_default();
        self.now(raw.test_now.as_ref());
        let maps = &raw.maps;
        let mut rules: Vec<Rule> = Vec::new();
        for rule in raw.rules.value.iter().take(MAX_RULES) {
            if rules.iter().any(|earlier| earlier.id == rule.id.value) {
                let message = format!("a second rule `{}`", rule.id.value);
                self.error(
                    rule.id.referenced,
                    message,
                    Some("ids are unique in a pack".to_owned()),
                );
            }
            let rule = self.rule(rule, raw.time.as_ref(), maps);
            rules.push(rule);
        }
        if !self.proven {
            self.about_the_whole(raw, &rules);
        }
        Pack {
            name: name.value.clone(),
            version: raw.version.value,
            about: raw.about.clone().unwrap_or_default(),
            file: self.source.name.clone(),
            select,
            chain,
            folded,
            json_paths: std::mem::take(&mut self.json_paths),
            fan_out,
            redact,
            redact_fields,
            user_agent,
            sentence,
            rules,
            test_now: raw.test_now.as_ref().map(|now| now.value.clone()),
        }
    }

    fn about_the_whole(&mut self, raw: &RawPack, rules: &[Rule]) {
        if rules.is_empty() {
            self.error(raw.rules.referenced, "a pack without rules", None);
        }
        if raw.rules.value.len() > MAX_RULES {
            let hint = Some(format!("at most {MAX_RULES}: make several packs of it"));
            self.error(raw.rules.referenced, "too many rules", hint);
        }
        self.unreachable(&raw.rules.value);
        if rules.iter().all(|rule| rule.tests.is_empty()) {
            let hint = Some("give its rules `tests:`".to_owned());
            let warning = self.problem(raw.pack.referenced, "a pack without tests", hint);
            self.warnings.push(warning);
        }
        if let Some(time) = &raw.time
            && !rules.is_empty()
            && rules.iter().all(|rule| rule.time.is_none())
        {
            let hint = Some("no rule has a group or a JSON path of this name".to_owned());
            self.error(time.field.referenced, "`time.field` names nothing", hint);
        }
    }

    fn select(&mut self, raw: &RawSelect) -> SelectBy {
        SelectBy {
            services: self.texts(raw.service.as_ref()),
            paths: self.texts(raw.path.as_ref()),
            units: self.texts(raw.unit.as_ref()),
            endpoints: self.texts(raw.endpoint.as_ref()),
        }
    }

    fn texts(&mut self, raw: Option<&Spanned<Raw>>) -> Vec<String> {
        let mut texts = Vec::new();
        for item in raw.map(listed).unwrap_or_default() {
            match plain(&item.value) {
                Some(text) => texts.push(text),
                None => self.error(item.referenced, "a text is needed here", None),
            }
        }
        texts
    }

    fn now(&mut self, raw: Option<&Text>) {
        if let Some(raw) = raw
            && crate::packtest::read_now(&raw.value).is_none()
        {
            let hint = Some("write it as 2024-03-01T12:00:00Z".to_owned());
            self.error(raw.referenced, format!("`{}` is no instant", raw.value), hint);
        }
    }

    fn rule(
        &mut self,
        raw: &RawRule,
        time: Option<&RawTime>,
        maps: &Pairs<Pairs<Spanned<Raw>>>,
    ) -> Rule {
        let id = &raw.id;
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if id.value.is_empty() || !id.value.bytes().all(word) {
            let hint = Some("lower-case letters, digits and `_`".to_owned());
            self.error(id.referenced, format!("`{}` is no id for a rule", id.value), hint);
        }
        let pattern = raw.pattern.as_ref().and_then(|pattern| self.pattern(pattern));
        self.blind = raw.pattern.is_some() && pattern.is_none();
        self.groups = pattern.as_ref().map(|pattern| pattern.names.clone()).unwrap_or_default();
        self.used = vec![false; self.groups.len()];
        let on = match &raw.on {
            Some(on) => self.source(on.value.trim_start_matches('$'), on.referenced),
            None => None,
        };
        let when = self.when(&raw.when);
        let mut sets: Vec<Set> =
            raw.event.0.iter().filter_map(|(path, value)| self.set(path, value)).collect();
        for (path, map) in &raw.map.0 {
            self.map(path, map, maps, &raw.event, &mut sets);
        }
        if raw.drop.is_none() && !raw.event.0.iter().any(|(path, _)| path.value == "action") {
            let hint = Some("or `drop: <reason>`".to_owned());
            self.error(id.referenced, format!("rule `{}` sets no `action`", id.value), hint);
        }
        if raw.drop.is_some() && !raw.event.0.is_empty() {
            self.error(id.referenced, "a rule either drops or makes an event", None);
        }
        let time = match &raw.time {
            Some(time) => self.time(time, true),
            None => time.and_then(|time| self.time(time, false)),
        };
        let defaults = literal_action(&sets).map(normalise::defaults);
        // What no record changes comes first: it is written once for many events.
        sets.sort_by_key(|set| !set.is_fixed());
        let fixed = sets.iter().filter(|set| set.is_fixed()).count();
        let weighs = |set: &Set| {
            let fields =
                [Field::Action, Field::Category, Field::Op, Field::Outcome, Field::Severity];
            matches!(set.to, To::Field(field) if fields.contains(&field))
        };
        self.unused(raw);
        let tests = match self.proven {
            true => Vec::new(),
            false => raw.tests.iter().map(|test| self.test(test)).collect(),
        };
        Rule {
            id: id.value.clone(),
            settled: defaults.is_some() && !sets[fixed..].iter().any(weighs),
            defaults,
            pattern,
            on: on.unwrap_or(Source::Message),
            when,
            sets,
            fixed,
            drop: raw.drop.as_ref().map(|reason| reason.value.clone()),
            time,
            tests,
        }
    }

    fn pattern(&mut self, raw: &Text) -> Option<Pattern> {
        let compile = if self.proven { Pattern::proven } else { Pattern::compile };
        match compile(&raw.value) {
            Ok(pattern) => {
                let unnamed = pattern.names.iter().skip(1).any(Option::is_none);
                if unnamed {
                    let hint = Some("name it `(?<name>…)` or write `(?:…)`".to_owned());
                    self.error(raw.referenced, "a group without a name", hint);
                }
                Some(pattern)
            }
            Err(bad) => {
                let (line, column) = self.inside(raw, bad.at.unwrap_or(0));
                let mut problem = self.problem(raw.referenced, String::new(), None);
                problem.message = format!("bad pattern: {}", bad.message);
                (problem.line, problem.column) = (line, column);
                self.errors.push(problem);
                None
            }
        }
    }

    /// The place of a byte of a text: exact where the text stands plainly on one line.
    fn inside(&self, raw: &Text, at: usize) -> (u64, u64) {
        let (line, column) = (raw.referenced.line(), raw.referenced.column());
        let row = usize::try_from(line).unwrap_or(1).saturating_sub(1);
        let text = self.source.text.lines().nth(row).unwrap_or_default();
        let skip = usize::try_from(column).unwrap_or(1).saturating_sub(1);
        let rest: String = text.chars().skip(skip).collect();
        let quote = usize::from(rest.starts_with(['\'', '"']));
        let stands: String = rest.chars().skip(quote).collect();
        let Some(before) = raw.value.get(..at).filter(|_| stands.starts_with(raw.value.as_str()))
        else {
            return (line, column);
        };
        let moved = quote + before.chars().count();
        (line, column.saturating_add(u64::try_from(moved).unwrap_or_default()))
    }

    /// What a name stands for.
    fn source(&mut self, name: &str, at: Location) -> Option<Source> {
        let group = self.groups.iter().position(|group| group.as_deref() == Some(name));
        if let Some(group) = group.and_then(|group| u8::try_from(group).ok()) {
            self.used[usize::from(group)] = true;
            return Some(Source::Group(group));
        }
        if let Some((decoder, path)) = field_name(name) {
            return self.field(decoder, path, at);
        }
        let known = Source::from_name(name);
        if known.is_none() && !self.blind {
            let mut names: Vec<&str> = Source::NAMES.to_vec();
            let groups: Vec<String> =
                self.groups.iter().flatten().map(ToString::to_string).collect();
            names.extend(groups.iter().map(String::as_str));
            let hint = hint(name, &names);
            self.error(at, format!("unknown name `${name}`"), hint);
        }
        known
    }

    fn json_path(&mut self, path: &str) -> u32 {
        let parts: Vec<Box<str>> = path.split('.').map(Into::into).collect();
        let at = self.json_paths.iter().position(|known| *known == parts).unwrap_or_else(|| {
            self.json_paths.push(parts);
            self.json_paths.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    fn value(&mut self, raw: &Spanned<Raw>) -> Option<Value> {
        match &raw.value {
            Raw::Bool(value) => Some(Value::Bool(*value)),
            Raw::Int(value) => Some(Value::Int(*value)),
            Raw::Text(text) => self.text_value(text, raw.referenced),
            Raw::List(items) => {
                let values: Vec<Value> = items.iter().filter_map(|item| self.value(item)).collect();
                (values.len() == items.len()).then_some(Value::List(values))
            }
            Raw::Float(_) => {
                let hint = Some("events have no fractions; write it in quotes".to_owned());
                self.error(raw.referenced, "a fraction", hint);
                None
            }
            Raw::Null | Raw::Map(_) => {
                let hint = Some("a text, a number, `$name`, or a list of them".to_owned());
                self.error(raw.referenced, "no value for an event", hint);
                None
            }
        }
    }

    fn text_value(&mut self, text: &str, at: Location) -> Option<Value> {
        if text.contains("${") {
            return self.template(text, at).map(Value::Template);
        }
        match text.strip_prefix('$') {
            Some(rest) if rest.starts_with('$') => Some(Value::Text(rest.into())),
            Some(name) => self.source(name, at).map(Value::From),
            None => Some(Value::Text(text.into())),
        }
    }

    fn template(&mut self, text: &str, at: Location) -> Option<Vec<Part>> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            let Some((name, after)) = after.split_once('}') else {
                self.error(at, "`${` without its `}`", None);
                return None;
            };
            parts.push(Part::From(self.source(name, at)?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Some(parts)
    }

    fn set(&mut self, path: &Text, raw: &Spanned<Raw>) -> Option<Set> {
        let to = self.target(path)?;
        let value = self.value(raw)?;
        if let To::Field(field) = &to
            && value.is_literal()
        {
            self.literal(*field, &value, raw.referenced);
        }
        if let (To::Field(field), Value::List(items)) = (&to, &value)
            && field.kind() == Kind::Texts
        {
            items.iter().filter(|item| item.is_literal()).for_each(|item| {
                self.literal(*field, item, raw.referenced);
            });
        }
        let paths = value.paths();
        Some(Set { to, value, paths, map: None })
    }

    fn target(&mut self, path: &Text) -> Option<To> {
        let to = match path.value.as_str() {
            "targets.type" => To::TargetKind,
            "targets.id" => To::TargetId,
            "targets.name" => To::TargetName,
            "targets.parent" => To::TargetParent,
            "changes.field" => To::ChangeField,
            "changes.before" => To::ChangeBefore,
            "changes.after" => To::ChangeAfter,
            other => {
                if let Some(key) = other.strip_prefix("details.") {
                    return self.detail_key(path, key);
                }
                match Field::from_path(other).filter(|field| may_set(*field)) {
                    Some(field) => To::Field(field),
                    None => {
                        let names: Vec<&str> = settable().collect();
                        let known = Field::from_path(other).is_some();
                        let hint = match known {
                            true => Some("the agent itself fills it".to_owned()),
                            false => hint(other, &names),
                        };
                        self.error(
                            path.referenced,
                            format!("`{other}` is no field that a rule sets"),
                            hint,
                        );
                        return None;
                    }
                }
            }
        };
        Some(to)
    }

    fn detail_key(&mut self, path: &Text, key: &str) -> Option<To> {
        if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Some(To::Detail(key.into()));
        }
        let hint = Some("letters, digits and `_`; details are one level deep".to_owned());
        self.error(path.referenced, format!("`{key}` is no name for a detail"), hint);
        None
    }

    /// A literal must be a word of the field's list.
    fn literal(&mut self, field: Field, value: &Value, at: Location) {
        let text = match value {
            Value::Text(text) => text.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Bool(value) => value.to_string(),
            _ => return,
        };
        let list = list_of(field);
        let good = match field {
            Field::Action => taxonomy::is_action(&text),
            Field::Category => taxonomy::is_category(&text),
            _ => list.is_empty() || list.contains(&text.as_str()),
        };
        let good = good
            && match field.kind() {
                Kind::Int => text.parse::<i64>().is_ok(),
                Kind::Bool => matches!(text.as_str(), "true" | "false"),
                _ => true,
            };
        if good {
            return;
        }
        let hint = match field {
            Field::Action => Some("dotted, lower case: `authentication.login`".to_owned()),
            _ => hint(&text, list),
        };
        self.error(at, format!("`{text}` is not of the list of `{}`", field.path()), hint);
    }

    fn test(&mut self, raw: &Spanned<RawTest>) -> Test {
        let test = &raw.value;
        self.now(test.now.as_ref());
        if let Some(zone) = &test.zone
            && jiff::tz::TimeZone::get(&zone.value).is_err()
        {
            let hint = Some("a name like Europe/Berlin".to_owned());
            self.error(zone.referenced, format!("unknown zone `{}`", zone.value), hint);
        }
        Test {
            line: raw.referenced.line(),
            column: raw.referenced.column(),
            record: test.record.clone(),
            path: test.path.clone(),
            unit: test.unit.clone(),
            service: test.service.clone(),
            endpoint: test.endpoint.clone(),
            now: test.now.as_ref().map(|now| now.value.clone()),
            zone: test.zone.as_ref().map(|zone| zone.value.clone()),
            event: test.event.clone(),
            unmatched: test.unmatched,
            dropped: test.dropped.clone(),
        }
    }
}

/// `json.user.name` → `json`, `user.name`.
fn field_name(name: &str) -> Option<(Decoder, &str)> {
    let (decoder, path) = name.split_once('.')?;
    let decoder = Decoder::from_name(decoder).filter(Decoder::gives_fields)?;
    (!path.is_empty()).then_some((decoder, path))
}

/// A scalar as a text.
fn plain(raw: &Raw) -> Option<String> {
    match raw {
        Raw::Text(text) => Some(text.clone()),
        Raw::Int(value) => Some(value.to_string()),
        Raw::Bool(value) => Some(value.to_string()),
        Raw::Null | Raw::Float(_) | Raw::List(_) | Raw::Map(_) => None,
    }
}

fn literal_action(sets: &[Set]) -> Option<&str> {
    sets.iter().find_map(|set| match (&set.to, &set.value, &set.map) {
        (To::Field(Field::Action), Value::Text(text), None) => Some(&**text),
        _ => None,
    })
}

/// The closed list of a field's words; empty where every text is good.
pub(crate) fn list_of(field: Field) -> &'static [&'static str] {
    match field {
        Field::Category => taxonomy::CATEGORIES,
        Field::Op => taxonomy::OPS,
        Field::Outcome => taxonomy::OUTCOMES,
        Field::Severity => taxonomy::SEVERITIES,
        Field::ActorType | Field::BehalfType => taxonomy::ACTOR_TYPES,
        Field::SessionMethods => taxonomy::METHODS,
        _ => &[],
    }
}

/// What the agent itself knows is not a rule's to set.
pub(crate) fn may_set(field: Field) -> bool {
    !matches!(
        field,
        Field::Version
            | Field::Id
            | Field::Observed
            | Field::Time
            | Field::TimeBasis
            | Field::Tenant
            | Field::Targets
            | Field::Details
    ) && (!field.path().starts_with("origin.") || field == Field::OriginEventName)
}

/// Parts of one target and of one change.
pub(crate) const PARTS: &[&str] = &[
    "targets.type",
    "targets.id",
    "targets.name",
    "targets.parent",
    "changes.field",
    "changes.before",
    "changes.after",
];

fn settable() -> impl Iterator<Item = &'static str> {
    let whole = Field::ALL.iter().filter(|field| may_set(**field)).map(|field| field.path());
    whole.chain(PARTS.iter().copied())
}

/// A timestamp for tests.
pub(crate) fn default_now() -> Timestamp {
    // 2024-03-01T12:00:00Z: every test without a clock of its own runs at this instant.
    Timestamp::from_micros(1_709_294_400_000_000)
}
