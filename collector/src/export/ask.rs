//! What may be asked for: the request, held against the quotas of this collector.

use custody_config::Period;
use custody_event::Timestamp;
use serde::Deserialize;

use super::{Format, Options, Row, Spec, Words};
use crate::access::{Principal, Scope};
use crate::index::terms::folded_value;
use crate::query::filter::{Expr, Filter};
use crate::query::params;
use crate::query::problem::Problem;

/// A name is one line of a table.
const MAX_NAME_CHARS: usize = 200;

/// The body of `POST /v1/exports`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) format: String,
    pub(super) q: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) bom: bool,
    pub(super) form: String,
}

/// A body of JSON.
pub(super) fn body<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes)
        .map_err(|error| Problem::bad("body", format!("the body cannot be read: {error}")))
}

pub(super) fn name(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > MAX_NAME_CHARS || text.contains(char::is_control) {
        return Err(Problem::bad("name", "1 to 200 characters without control characters"));
    }
    Ok(text.to_owned())
}

pub(super) fn format(text: &str) -> Result<Format, Problem> {
    Format::from_name(text).ok_or_else(|| {
        let all: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
        Problem::bad("format", format!("{text:?} is none of {}", all.join(", ")))
    })
}

/// In whose words; our own where nothing is said.
fn words(text: &str) -> Result<Words, Problem> {
    let found = Words::ALL.into_iter().find(|words| words.name() == text);
    found.or_else(|| text.is_empty().then(Words::default)).ok_or_else(|| {
        Problem::bad(
            "form",
            format!("{text:?} is none of {}", Words::ALL.map(Words::name).join(", ")),
        )
    })
}

/// Refuses a file that there is none of.
pub(super) fn may_say(words: Words, format: Format) -> Result<(), Problem> {
    if words.fits(format) {
        return Ok(());
    }
    let all = Format::ALL.into_iter().filter(|format| words.fits(*format));
    let formats: Vec<&str> = all.map(Format::name).collect();
    let what = format!("the form {} is for the formats {}", words.name(), formats.join(", "));
    Err(Problem::refused("form", what))
}

impl Asked {
    /// What is to be made, if it may be.
    pub(super) fn spec(
        &self,
        now: Timestamp,
        options: &Options,
        has_log: bool,
        who: &Principal,
    ) -> Result<Spec, Problem> {
        let mut spec = Spec {
            name: name(&self.name)?,
            format: format(&self.format)?,
            q: self.q.trim().to_owned(),
            from: None,
            to: None,
            bom: self.bom,
            words: words(&self.form)?,
            scopes: who.scopes.to_vec(),
            schedule: None,
        };
        may_bundle(spec.format, has_log, who)?;
        may_say(spec.words, spec.format)?;
        let pairs = [("q", &self.q), ("from", &self.from), ("to", &self.to)];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.clone()));
        let filter = params::search(&pairs, now)?.filter;
        (spec.from, spec.to) = (filter.from, filter.to);
        quotas(&mut spec, now, options)?;
        Ok(spec)
    }
}

/// A bundle shows the headers of the whole log: every host's and tenant's.
pub(super) fn may_bundle(format: Format, has_log: bool, who: &Principal) -> Result<(), Problem> {
    if format != Format::Bundle {
        return Ok(());
    }
    if !has_log {
        let what = "this collector keeps no transparency log, of which a bundle is made";
        return Err(Problem::refused("format", what));
    }
    if !who.sees_all() {
        let what = "a bundle shows the headers of the whole log: only those who see all events may have one";
        return Err(Problem::refused("format", what));
    }
    Ok(())
}

/// A bound, and the key that sets it.
type Bound = Option<(Period, &'static str)>;

/// How long and how far back an export of somebody with these scopes may be: as all may, and as the
/// tenants that they name may; the tightest holds. Whoever names no tenant sees those of all.
fn bounds(scopes: &[Scope], options: &Options) -> (Bound, Bound) {
    let named = |tenant: &String| {
        let mut values = scopes.iter().flat_map(|scope| &scope.tenants);
        values.any(|value| match value.strip_suffix('*') {
            Some(start) => folded_value(tenant).starts_with(&folded_value(start)),
            None => folded_value(tenant) == folded_value(value),
        })
    };
    let of_tenants = options.tenants.iter().filter(|quota| quota.tenant.iter().any(named));
    let tightest = |bound: Bound, of_tenant: Option<Period>| match (bound, of_tenant) {
        (Some((most, _)), Some(less)) if less < most => Some((less, "exports.tenants")),
        (None, Some(less)) => Some((less, "exports.tenants")),
        _ => bound,
    };
    let range = options.max_range.map(|most| (most, "exports.max_range"));
    let age = options.max_age.map(|most| (most, "exports.max_age"));
    of_tenants.fold((range, age), |(range, age), quota| {
        (tightest(range, quota.max_range), tightest(age, quota.max_age))
    })
}

/// Refuses what reaches too far; where a range is bounded, an open end is now.
pub(super) fn quotas(spec: &mut Spec, now: Timestamp, options: &Options) -> Result<(), Problem> {
    let micros =
        |period: Period| i64::try_from(period.millis()).unwrap_or(i64::MAX).saturating_mul(1_000);
    let (max_range, max_age) = bounds(&spec.scopes, options);
    if let Some((max, key)) = max_age {
        let earliest = now.plus_micros(-micros(max));
        if spec.from.is_none_or(|from| from < earliest) {
            let what = format!(
                "exports reach back {max} at most (`{key}`): name a `from` of {earliest} or later"
            );
            return Err(Problem::refused("from", what));
        }
    }
    let Some((max, key)) = max_range else { return Ok(()) };
    let to = *spec.to.get_or_insert(now);
    let Some(from) = spec.from else {
        let what = format!("exports are of {max} at most (`{key}`): name a `from`");
        return Err(Problem::refused("from", what));
    };
    if to.micros().saturating_sub(from.micros()) > micros(max) {
        let what = format!(
            "exports are of {max} at most (`{key}`); from {from} that is until {}",
            from.plus_micros(micros(max))
        );
        return Err(Problem::refused("to", what));
    }
    Ok(())
}

impl Row {
    /// Which events are in it. Times like `7d` in the search line count from when it was asked.
    pub(super) fn filter(&self) -> Result<Filter, Problem> {
        let text = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
        let pairs = [
            ("q".to_owned(), self.spec.q.clone()),
            ("from".to_owned(), text(self.spec.from)),
            ("to".to_owned(), text(self.spec.to)),
        ];
        let mut filter = params::search(&pairs, self.created)?.filter;
        let mut all: Vec<Expr> = self.spec.scopes.iter().filter_map(Scope::expr).collect();
        if !all.is_empty() {
            all.push(filter.expr);
            filter.expr = Expr::All(all);
        }
        Ok(filter)
    }

    /// The name of the file as people keep it: no separators, nothing that a shell minds.
    pub(super) fn file_name(&self) -> String {
        let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let name: String = self.spec.name.chars().map(plain).take(80).collect();
        let name = name.trim_matches(['.', '_']);
        let name = if name.is_empty() { "export" } else { name };
        format!("{name}.{}", self.spec.format.extension())
    }
}
