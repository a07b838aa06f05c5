//! The API's parameters turned into a search: each is ANDed with the search line.
//!
//! Every key of the search line is a parameter; `-actor=jane` excludes. A value is one value, or
//! several apart by commas (any of them will do), in quotes where it holds a comma or a star that
//! is meant, or alternatives in parentheses as in the line. A parameter may stand several times:
//! then all of them must hold. One without a value is one left out, as forms send it.

use custody_event::Timestamp;

use super::filter::{Expr, Filter};
use super::keys::Named;
use super::line::{self, LineError};
use super::problem::Problem;
use super::when::{self, Zone};
use crate::index::{Direction, Facet, HitKey, MAX_LIMIT, SearchRequest, StatsRequest};

/// Events in a page where none are asked for.
pub const DEFAULT_LIMIT: usize = 50;
/// Spans in a histogram, at most.
const MAX_SPANS: i64 = 10_000;
/// Groups in one question, at most: each costs a walk through its values.
const MAX_FACETS: usize = 10;

/// Parameters that are not keys of the search line.
const OTHERS: &str = "q, limit, cursor, order, budget_ms";

/// Reads the parameters of `GET /v1/events`.
///
/// # Errors
/// An unknown parameter, or a value that cannot be read.
pub fn search(pairs: &[(String, String)], now: Timestamp) -> Result<SearchRequest, Problem> {
    let mut request =
        SearchRequest { limit: DEFAULT_LIMIT, total: true, ..SearchRequest::default() };
    let mut rest = Vec::new();
    for (name, value) in given(pairs) {
        match name {
            "limit" => request.limit = limit(value, MAX_LIMIT)?,
            "cursor" => request.after = Some(cursor("cursor", value)?),
            "order" => request.direction = order(value)?,
            "budget_ms" => request.budget_ms = Some(budget(value)?),
            _ => rest.push((name, value)),
        }
    }
    request.filter = filter(&rest, now)?;
    Ok(request)
}

/// What is counted: the request, and under which names its facets are answered.
#[derive(Debug, Clone)]
pub struct Counting {
    /// What the store is asked.
    pub request: StatsRequest,
    /// The names of [`StatsRequest::facets`], as they were written.
    pub names: Vec<String>,
}

/// Reads the parameters of `GET /v1/stats`.
///
/// # Errors
/// As for [`search`].
pub fn stats(pairs: &[(String, String)], now: Timestamp) -> Result<Counting, Problem> {
    let mut request = StatsRequest::default();
    let mut names = Vec::new();
    let mut rest = Vec::new();
    for (name, value) in given(pairs) {
        match name {
            "group_by" => {
                for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                    request.facets.push(group(part)?);
                    names.push(part.to_owned());
                }
            }
            "interval" => request.interval_micros = Some(interval(value)?),
            "budget_ms" => request.budget_ms = Some(budget(value)?),
            _ => rest.push((name, value)),
        }
    }
    if names.len() > MAX_FACETS {
        return Err(Problem::bad("group_by", format!("more than {MAX_FACETS} groups at once")));
    }
    request.filter = filter(&rest, now)?;
    if let (Some(interval), Some(from)) = (request.interval_micros, request.filter.from) {
        let to = request.filter.to.unwrap_or(now);
        if to.micros().saturating_sub(from.micros()) / interval > MAX_SPANS {
            return Err(Problem::bad("interval", "more than 10,000 spans; ask for longer ones"));
        }
    }
    Ok(Counting { request, names })
}

/// One thing is asked about, not many: what is answered of it must be so of each.
///
/// # Errors
/// 400 for a star.
pub(super) fn one(name: &'static str, value: &str) -> Result<(), Problem> {
    if value.contains('*') {
        return Err(Problem::bad(
            name,
            "this asks about one thing: write it without a star, or search",
        ));
    }
    Ok(())
}

/// Parameters that have a value.
pub(super) fn given(pairs: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    pairs.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (&**name, &**value))
}

pub(super) fn limit(value: &str, most: usize) -> Result<usize, Problem> {
    value.parse().ok().filter(|limit| (1..=most).contains(limit)).ok_or_else(|| {
        Problem::bad("limit", format!("{:?} is not a number from 1 to {most}", short(value)))
    })
}

pub(super) fn cursor(name: &'static str, value: &str) -> Result<HitKey, Problem> {
    HitKey::from_cursor(value)
        .ok_or_else(|| Problem::bad(name, "not a cursor that this collector gave out"))
}

fn order(value: &str) -> Result<Direction, Problem> {
    match value {
        "newest" => Ok(Direction::NewestFirst),
        "oldest" => Ok(Direction::OldestFirst),
        other => Err(Problem::bad(
            "order",
            format!("{:?} is no order; write newest or oldest", short(other)),
        )),
    }
}

pub(super) fn budget(value: &str) -> Result<u64, Problem> {
    value.parse().map_err(|_| {
        Problem::bad("budget_ms", format!("{:?} is not a number of milliseconds", short(value)))
    })
}

/// So much of a value that is wrong as an error shows.
pub(super) fn short(value: &str) -> String {
    value.chars().take(60).collect()
}

fn group(value: &str) -> Result<Facet, Problem> {
    let facets = Named::of(&value.to_ascii_lowercase()).and_then(|named| named.facets());
    facets.and_then(|facets| facets.into_iter().next()).ok_or_else(|| {
        let what = format!("{:?} cannot be counted by; try action, actor or outcome", short(value));
        Problem::bad("group_by", what)
    })
}

fn interval(value: &str) -> Result<i64, Problem> {
    // A span back from the epoch is the span, negative.
    let zero = Timestamp::from_micros(0);
    let spans = value.ends_with(['s', 'm', 'h', 'd', 'w']) && !value.starts_with("now");
    when::parse(value, zero)
        .ok()
        .map(|time| time.micros().saturating_neg())
        .filter(|micros| *micros > 0 && spans)
        .ok_or_else(|| {
            Problem::bad("interval", format!("{:?} is not a span like 1h or 1d", short(value)))
        })
}

/// Reads what is left: the search line, times, keys.
///
/// # Errors
/// As for [`search`].
pub fn filter(pairs: &[(&str, &str)], now: Timestamp) -> Result<Filter, Problem> {
    let mut zone = Zone::default();
    for (_, name) in pairs.iter().filter(|(name, _)| *name == "tz") {
        zone = Zone::named(name).map_err(|what| Problem::bad("tz", what))?;
    }
    let mut filter = Filter::default();
    let mut all = Vec::new();
    for (name, value) in pairs {
        match *name {
            "tz" => {}
            "q" => {
                let line = line::parse_in(value, now, &zone).map_err(|e| Problem::line(&e))?;
                filter.within((line.from, line.to));
                all.push(line.expr);
            }
            "from" => filter.within((Some(time("from", value, now, &zone)?), None)),
            "to" => filter.within((None, Some(time("to", value, now, &zone)?))),
            "period" => {
                let period = when::period(value, now, &zone);
                filter.within(period.map_err(|e| Problem::bad("period", e.to_string()))?);
            }
            name => all.push(keyed(name, value)?),
        }
    }
    filter.expr = match all.len() {
        1 => all.remove(0),
        _ => Expr::All(all),
    };
    Ok(filter)
}

pub(super) fn time(
    parameter: &'static str,
    value: &str,
    now: Timestamp,
    zone: &Zone,
) -> Result<Timestamp, Problem> {
    when::parse_in(value, now, zone).map_err(|error| Problem::bad(parameter, error.to_string()))
}

/// A key as a parameter.
fn keyed(name: &str, value: &str) -> Result<Expr, Problem> {
    let (bare, negated) = match name.strip_prefix('-') {
        Some(bare) => (bare, true),
        None => (name, false),
    };
    let named = Named::of(&bare.to_ascii_lowercase())
        .filter(|named| !matches!(named, Named::Time(_)))
        .ok_or_else(|| unknown(bare))?;
    let expr = line::values(&named, value).map_err(|error| wrong(name, &error))?;
    Ok(if negated { Expr::Not(Box::new(expr)) } else { expr })
}

fn unknown(name: &str) -> Problem {
    let name = short(name);
    let near = custody_config::nearest(&name, super::keys::all().map(|(name, _)| name));
    let keys = super::keys::names();
    let what = format!("there is no parameter {name:?}; there are {OTHERS}, {keys}");
    let problem = Problem::bad("query", what);
    match near {
        Some(near) => problem.hinted(format!("did you mean {near}?")),
        None => problem,
    }
}

fn wrong(name: &str, error: &LineError) -> Problem {
    let what = format!("{}, character {}: {}", short(name), error.column, error.what);
    let problem = Problem::bad(short(name), what).at(error.column, None);
    match &error.hint {
        Some(hint) => problem.hinted(hint),
        None => problem,
    }
}
