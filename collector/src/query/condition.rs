//! One value under one name, as a condition: the same in the search line and in a parameter.

use super::filter::{Expr, IpRange, Pattern};
use super::keys::{Key, Named, RISING, usual_value};
use crate::index::terms;

/// Why a value is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl Wrong {
    fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: Some(hint.into()) }
    }
}

/// The condition that a value, bare or in quotes, asks under this name.
///
/// # Errors
/// It is not a value of that name.
pub fn condition(named: &Named, text: &str, quoted: bool) -> Result<Expr, Wrong> {
    match named {
        Named::Ip if text == "*" => Ok(Expr::Ip(IpRange { first: 0, last: u128::MAX })),
        Named::Ip => IpRange::parse(text)
            .map(Expr::Ip)
            .map_err(|what| Wrong::new(what, "write 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32")),
        Named::Number(path) => number(path, text),
        Named::Field(path) => Ok(Expr::Field(path.clone(), pattern(text, quoted))),
        Named::Key(key) => value(key, text, quoted),
        Named::Time(name) => Err(Wrong::new(
            format!("{name} bounds the whole search"),
            format!("write {name}: once, outside of parentheses"),
        )),
    }
}

/// A value in quotes is meant as it stands; in a bare one `*` stands for anything.
fn pattern(text: &str, quoted: bool) -> Pattern {
    if quoted { Pattern::Exact(terms::folded_value(text)) } else { Pattern::wild(text) }
}

fn value(key: &'static Key, text: &str, quoted: bool) -> Result<Expr, Wrong> {
    let exact = match pattern(text, quoted) {
        Pattern::Exact(exact) => exact,
        wild => return Ok(Expr::Value(key, wild)),
    };
    if key.name == "severity"
        && let Some(range) = severities(key, &exact)
    {
        return range;
    }
    if key.name == "target"
        && !quoted
        && let Some(both) = typed_target(&exact)
    {
        return Ok(Expr::Any(vec![Expr::Value(key, Pattern::Exact(exact)), both]));
    }
    let exact = usual_value(key, &exact).to_owned();
    if let Some(closed) = key.closed().filter(|_| !quoted)
        && !closed.contains(&exact.as_str())
        && !(key.name == "category" && exact.starts_with("x_"))
    {
        return Err(unknown_value(key, &exact, closed));
    }
    Ok(Expr::Value(key, Pattern::Exact(exact)))
}

fn unknown_value(key: &Key, value: &str, closed: &[&str]) -> Wrong {
    let value: String = value.chars().take(60).collect();
    let all = closed.join(", ");
    let hint = match custody_config::nearest(&value, closed.iter().copied()) {
        Some(near) => format!("did you mean {near}? the values are {all}"),
        None => format!("the values are {all}"),
    };
    Wrong::new(format!("there is no {} {value:?}", key.name), hint)
}

/// `>=medium` and the like.
fn severities(key: &'static Key, text: &str) -> Option<Result<Expr, Wrong>> {
    let (sign, word) = comparison(text)?;
    let Some(at) = RISING.iter().position(|known| *known == usual_value(key, word)) else {
        return Some(Err(unknown_value(key, word, RISING)));
    };
    let range = match sign {
        ">=" => &RISING[at..],
        ">" => &RISING[at + 1..],
        "<=" => &RISING[..=at],
        _ => &RISING[..at],
    };
    let exact = |word: &&str| Expr::Value(key, Pattern::Exact((*word).to_owned()));
    Some(Ok(Expr::Any(range.iter().map(exact).collect())))
}

fn comparison(text: &str) -> Option<(&'static str, &str)> {
    [">=", "<=", ">", "<"]
        .into_iter()
        .find_map(|sign| text.strip_prefix(sign).map(|rest| (sign, rest.trim())))
}

/// `contact:12345`: a type, and an id or a name.
fn typed_target(text: &str) -> Option<Expr> {
    let (kind, id) =
        text.split_once(':').filter(|(kind, id)| !kind.is_empty() && !id.is_empty())?;
    let is = |name: &str, value: &str| {
        let exact = Pattern::Exact(value.to_owned());
        Key::from_name(name).map(|key| Expr::Value(key, exact))
    };
    let named = Expr::Any(vec![is("target.id", id)?, is("target.name", id)?]);
    Some(Expr::All(vec![is("target.type", kind)?, named]))
}

/// `5`, `>5`, `>=5`, `<5`, `<=5`, `5..9`, `*`.
fn number(path: &'static str, text: &str) -> Result<Expr, Wrong> {
    let wrong = || {
        let text: String = text.chars().take(60).collect();
        Wrong::new(format!("{text:?} is not a number"), "write 5, >5, >=5, <5, <=5, 5..9 or *")
    };
    let read = |text: &str| text.trim().replace('_', "").parse::<i64>().map_err(|_| wrong());
    if text == "*" {
        return Ok(Expr::Number(path, i64::MIN, i64::MAX));
    }
    if let Some((sign, rest)) = comparison(text) {
        let bound = read(rest)?;
        let none = Expr::Any(Vec::new());
        return Ok(match sign {
            ">=" => Expr::Number(path, bound, i64::MAX),
            "<=" => Expr::Number(path, i64::MIN, bound),
            ">" => bound.checked_add(1).map_or(none, |from| Expr::Number(path, from, i64::MAX)),
            _ => bound.checked_sub(1).map_or(none, |to| Expr::Number(path, i64::MIN, to)),
        });
    }
    if let Some((first, last)) = text.split_once("..") {
        return Ok(Expr::Number(path, read(first)?, read(last)?));
    }
    let exact = read(text)?;
    Ok(Expr::Number(path, exact, exact))
}
