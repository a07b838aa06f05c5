//! The API's parameters turned into a search: each is ANDed with the search line.

use custody_event::Timestamp;

use super::filter::{Expr, Filter, IpRange, Pattern};
use super::keys::{IP, Key};
use super::problem::Problem;
use super::{line, when};
use crate::index::terms::Tag;
use crate::index::{HitKey, MAX_LIMIT, SearchRequest, StatsRequest};

/// Events in a page where none are asked for.
pub const DEFAULT_LIMIT: usize = 50;
/// Spans in a histogram, at most.
const MAX_SPANS: i64 = 10_000;

/// Parameters that are not keys of the search line.
const OTHERS: &str = "q, from, to, limit, cursor";

/// Reads the parameters of `GET /v1/events`. A parameter without a value is one left out, as
/// forms send it.
///
/// # Errors
/// An unknown parameter, or a value that cannot be read.
pub fn search(pairs: &[(String, String)], now: Timestamp) -> Result<SearchRequest, Problem> {
    let mut request =
        SearchRequest { limit: DEFAULT_LIMIT, total: true, ..SearchRequest::default() };
    let mut rest = Vec::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        match name.as_str() {
            "limit" => request.limit = limit(value)?,
            "cursor" => {
                request.after = Some(HitKey::from_cursor(value).ok_or_else(|| {
                    Problem::bad("cursor", "not a cursor that this collector gave out")
                })?);
            }
            _ => rest.push((name.as_str(), value.as_str())),
        }
    }
    request.filter = filter(&rest, now)?;
    Ok(request)
}

/// Reads the parameters of `GET /v1/stats`.
///
/// # Errors
/// As for [`search`].
pub fn stats(pairs: &[(String, String)], now: Timestamp) -> Result<StatsRequest, Problem> {
    let mut group_by = None;
    let mut interval_micros = None;
    let mut rest = Vec::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        match name.as_str() {
            "group_by" => group_by = Some(group(value)?),
            "interval" => interval_micros = Some(interval(value)?),
            _ => rest.push((name.as_str(), value.as_str())),
        }
    }
    let filter = filter(&rest, now)?;
    if let (Some(interval), Some(from)) = (interval_micros, filter.from) {
        let to = filter.to.unwrap_or(now);
        if (to.micros() - from.micros()) / interval > MAX_SPANS {
            return Err(Problem::bad("interval", "more than 10,000 spans; ask for longer ones"));
        }
    }
    Ok(StatsRequest { filter, group_by, interval_micros })
}

fn limit(value: &str) -> Result<usize, Problem> {
    value
        .parse()
        .ok()
        .filter(|limit| (1..=MAX_LIMIT).contains(limit))
        .ok_or_else(|| Problem::bad("limit", format!("{value:?} is not a number from 1 to 1000")))
}

fn group(value: &str) -> Result<Tag, Problem> {
    Key::from_name(value).and_then(|key| key.tags.first().copied()).ok_or_else(|| {
        Problem::bad("group_by", format!("{value:?} is not a key; try action, actor or outcome"))
    })
}

fn interval(value: &str) -> Result<i64, Problem> {
    // A span back from the epoch is the span, negative.
    let zero = Timestamp::from_micros(0);
    when::parse(value, zero)
        .ok()
        .map(|time| -time.micros())
        .filter(|micros| *micros > 0 && !value.starts_with("now"))
        .ok_or_else(|| Problem::bad("interval", format!("{value:?} is not a span like 1h or 1d")))
}

fn filter(pairs: &[(&str, &str)], now: Timestamp) -> Result<Filter, Problem> {
    let mut filter = Filter::default();
    let mut all = Vec::new();
    for (name, value) in pairs {
        match *name {
            "q" => {
                let line = line::parse(value, now).map_err(|error| Problem::line(&error))?;
                filter.from = filter.from.max(line.from);
                filter.to = earliest(filter.to, line.to);
                all.push(line.expr);
            }
            "from" => filter.from = filter.from.max(Some(time("from", value, now)?)),
            "to" => filter.to = earliest(filter.to, Some(time("to", value, now)?)),
            name => all.push(keyed(name, value)?),
        }
    }
    filter.expr = match all.len() {
        1 => all.remove(0),
        _ => Expr::All(all),
    };
    Ok(filter)
}

fn earliest(left: Option<Timestamp>, right: Option<Timestamp>) -> Option<Timestamp> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

fn time(parameter: &'static str, value: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    when::parse(value, now).map_err(|error| Problem::bad(parameter, error.to_string()))
}

/// A key as a parameter: values apart by commas, any of them will do.
fn keyed(name: &str, value: &str) -> Result<Expr, Problem> {
    let mut any = Vec::new();
    for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        any.push(if name == IP {
            Expr::Ip(IpRange::parse(part).map_err(|what| Problem::bad(IP, what))?)
        } else {
            let key = Key::from_name(name).ok_or_else(|| {
                let keys = super::keys::names();
                let name: String = name.chars().take(60).collect();
                Problem::bad(
                    "query",
                    format!("there is no parameter {name:?}; there are {OTHERS} and {keys}"),
                )
            })?;
            Expr::Value(key, Pattern::wild(part))
        });
    }
    Ok(match any.len() {
        1 => any.remove(0),
        _ => Expr::Any(any),
    })
}
