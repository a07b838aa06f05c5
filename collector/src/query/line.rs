//! The search line: `actor:jane action:data.* outcome:failure ip:203.0.113.0/24 "contract 77"`.
//!
//! ```text
//! line   = or
//! or     = and { OR and }
//! and    = not { [AND] not }
//! not    = [ "-" | NOT ] part
//! part   = "(" or ")" | key ":" values | text
//! values = value { "," value } | "(" value { [OR | ","] value } ")"
//! value  = bare | "quoted"          `*` in a bare value stands for anything
//! text   = bare | "quoted"          a word; words in quotes must stand together
//! ```
//!
//! Key words are in capitals. A backslash in quotes keeps a quote or a backslash. `from:`, `to:`,
//! `period:` and `tz:` take times ([`super::when`]); they bound the whole search, so they stand
//! outside of alternatives and negations. Nothing here panics on any input; an error says at
//! which character it stands.

use custody_event::Timestamp;

use super::condition::condition;
use super::filter::{Expr, Filter};
use super::keys::{self, Named, names};
use super::when::{self, Zone};
use crate::index::terms;

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("search line, character {column}: {what}{}", hinted(self.hint.as_deref()))]
pub struct LineError {
    /// Which character, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub hint: Option<String>,
}

/// A hint behind an error.
pub(super) fn hinted(hint: Option<&str>) -> String {
    hint.map_or_else(String::new, |hint| format!(" (hint: {hint})"))
}

/// A line is at most this long.
pub const MAX_LINE_BYTES: usize = 8 * 1024;
/// Parentheses in each other, at most.
const MAX_DEPTH: usize = 32;
/// Conditions in a line, at most.
const MAX_PARTS: usize = 512;
/// A wildcard word has at least so many characters before its star: every shorter beginning has
/// too many words.
const MIN_PREFIX_CHARS: usize = 2;

/// Reads a search line. `now` is what `24h` counts from; dates are in UTC if the line does not
/// say `tz:`.
///
/// # Errors
/// With the position.
pub fn parse(line: &str, now: Timestamp) -> Result<Filter, LineError> {
    parse_in(line, now, &Zone::default())
}

/// Reads a search line. Dates are in `zone` if the line does not say `tz:`.
///
/// # Errors
/// With the position.
pub fn parse_in(line: &str, now: Timestamp, zone: &Zone) -> Result<Filter, LineError> {
    if line.len() > MAX_LINE_BYTES {
        let column = line[..line.floor_char_boundary(MAX_LINE_BYTES)].chars().count();
        let hint = Some("search in several steps".to_owned());
        return Err(LineError { column, what: "longer than 8 KiB".to_owned(), hint });
    }
    let mut parser = Parser { line, at: 0, parts: 0, times: Vec::new() };
    let expr = parser.or(0)?;
    parser.space();
    if parser.at < line.len() {
        return parser.fail("there is no parenthesis to close");
    }
    let mut filter = parser.bounds(now, zone)?;
    filter.expr = expr;
    Ok(filter)
}

/// Reads the values of a parameter: values apart by commas, in quotes where they hold one; or
/// alternatives in parentheses, as in the line. The column of an error is one of the value.
///
/// # Errors
/// With the position.
pub(super) fn values(named: &Named, text: &str) -> Result<Expr, LineError> {
    let mut parser = Parser { line: text, at: 0, parts: 0, times: Vec::new() };
    parser.space();
    let values =
        if parser.peek() == Some('(') { parser.values()? } else { parser.listed_values()? };
    parser.space();
    if parser.at < text.len() {
        return parser.fail("there is more behind the value; put values apart by commas");
    }
    parser.any_of(named, values)
}

struct Parser<'a> {
    line: &'a str,
    at: usize,
    parts: usize,
    /// Bounds of time, to be read when the zone is known.
    times: Vec<(&'static str, Value)>,
}

/// A value as it was written.
struct Value {
    text: String,
    quoted: bool,
    at: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, at: usize, what: impl Into<String>, hint: Option<String>) -> LineError {
        let column = self.line[..at].chars().count() + 1;
        LineError { column, what: what.into(), hint }
    }

    fn fail_at<T>(&self, at: usize, what: impl Into<String>) -> Result<T, LineError> {
        Err(self.error(at, what, None))
    }

    /// Times within alternatives or negations would bound what stands beside them.
    fn no_times_since(&self, count: usize) -> Result<(), LineError> {
        let Some((name, value)) = self.times.get(count) else { return Ok(()) };
        let what = format!("{name}: bounds the whole search, not one side of OR or NOT");
        let hint = format!("write {name}: outside of OR, NOT and their parentheses");
        Err(self.error(value.at, what, Some(hint)))
    }

    fn fail<T>(&self, what: impl Into<String>) -> Result<T, LineError> {
        self.fail_at(self.at, what)
    }

    fn rest(&self) -> &'a str {
        &self.line[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn space(&mut self) {
        self.at = self.line.len() - self.rest().trim_start().len();
    }

    /// Takes a key word, if it stands here as a word of its own.
    fn word(&mut self, word: &str) -> bool {
        let Some(rest) = self.rest().strip_prefix(word) else { return false };
        let ends = rest.chars().next().is_none_or(|next| next.is_whitespace() || next == '(');
        if ends {
            self.at += word.len();
        }
        ends
    }

    fn or(&mut self, depth: usize) -> Result<Expr, LineError> {
        let times = self.times.len();
        let mut any = vec![self.and(depth)?];
        loop {
            self.space();
            let at = self.at;
            if !self.word("OR") {
                break;
            }
            let next = self.and(depth)?;
            if next == Expr::default() || any.contains(&Expr::default()) {
                return self.fail_at(at, "OR needs a condition on both sides");
            }
            any.push(next);
        }
        if any.len() > 1 {
            self.no_times_since(times)?;
        }
        Ok(one_or(any, Expr::Any))
    }

    fn and(&mut self, depth: usize) -> Result<Expr, LineError> {
        let mut all = Vec::new();
        loop {
            self.space();
            let before = self.at;
            if self.rest().is_empty() || self.peek() == Some(')') || self.word("OR") {
                self.at = before;
                break;
            }
            if self.word("AND") {
                continue;
            }
            let part = self.not(depth)?;
            // A text without letters or digits asks nothing.
            if part != Expr::default() {
                all.push(part);
            }
        }
        Ok(one_or(all, Expr::All))
    }

    fn not(&mut self, depth: usize) -> Result<Expr, LineError> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return self.fail(format!("more than {MAX_PARTS} conditions"));
        }
        let at = self.at;
        let negated = self.word("NOT") || self.eat('-');
        self.space();
        if negated && (self.rest().is_empty() || self.peek() == Some(')')) {
            return self.fail_at(at, "there is nothing here to exclude");
        }
        let (start, times) = (self.at, self.times.len());
        let part = self.part(depth)?;
        if !negated {
            return Ok(part);
        }
        self.no_times_since(times)?;
        if part == Expr::default() {
            return self.fail_at(start, "this asks nothing, so it cannot be excluded");
        }
        Ok(Expr::Not(Box::new(part)))
    }

    fn part(&mut self, depth: usize) -> Result<Expr, LineError> {
        if depth >= MAX_DEPTH {
            return self.fail(format!("more than {MAX_DEPTH} parentheses in each other"));
        }
        let open = self.at;
        if self.eat('(') {
            let inner = self.or(depth + 1)?;
            self.space();
            if !self.eat(')') {
                return self.fail_at(open, "this parenthesis is not closed");
            }
            return Ok(inner);
        }
        if let Some(len) = key_len(self.rest()) {
            let start = self.at;
            let name = &self.line[start..start + len];
            self.at += len + 1;
            return self.keyed(name, start);
        }
        let value = self.value(false)?;
        self.text(&value)
    }

    fn keyed(&mut self, name: &str, start: usize) -> Result<Expr, LineError> {
        let lower = name.to_ascii_lowercase();
        let Some(named) = Named::of(&lower) else {
            let near = custody_config::nearest(&lower, keys::all().map(|(name, _)| name));
            let near = near.map_or_else(String::new, |near| format!("did you mean {near}:? "));
            let hint = format!("{near}to find the text itself put it in quotes");
            let what = format!("there is no key {name:?}; the keys are {}", names());
            return Err(self.error(start, what, Some(hint)));
        };
        if let Named::Time(name) = named {
            let value = self.value(true)?;
            self.times.push((name, value));
            return Ok(Expr::default());
        }
        let values = self.values()?;
        self.any_of(&named, values)
    }

    fn any_of(&mut self, named: &Named, values: Vec<Value>) -> Result<Expr, LineError> {
        let mut any = Vec::with_capacity(values.len());
        for value in values {
            self.parts += 1;
            if self.parts > MAX_PARTS {
                return self.fail_at(value.at, format!("more than {MAX_PARTS} conditions"));
            }
            let expr = condition(named, &value.text, value.quoted)
                .map_err(|wrong| self.error(value.at, wrong.what, wrong.hint))?;
            any.push(expr);
        }
        Ok(one_or(any, Expr::Any))
    }

    /// The bounds of time, all of which must hold.
    fn bounds(&self, now: Timestamp, zone: &Zone) -> Result<Filter, LineError> {
        let mut zone = zone.clone();
        for (_, value) in self.times.iter().filter(|(name, _)| *name == "tz") {
            zone = Zone::named(&value.text).map_err(|what| self.error(value.at, what, None))?;
        }
        let mut filter = Filter::default();
        for (name, value) in &self.times {
            let bounds = match *name {
                "tz" => continue,
                "from" => when::parse_in(&value.text, now, &zone).map(|time| (Some(time), None)),
                "to" => when::parse_in(&value.text, now, &zone).map(|time| (None, Some(time))),
                _ => when::period(&value.text, now, &zone),
            };
            let bounds = bounds.map_err(|error| self.error(value.at, error.to_string(), None))?;
            filter.within(bounds);
        }
        Ok(filter)
    }

    /// Values apart by commas, as a parameter has them: white space does not end one.
    fn listed_values(&mut self) -> Result<Vec<Value>, LineError> {
        let mut values = Vec::new();
        loop {
            self.space();
            let at = self.at;
            if self.eat('"') {
                values.push(self.quoted(at)?);
            } else {
                let len = self.rest().find(',').unwrap_or(self.rest().len());
                let text = self.rest()[..len].trim_end().to_owned();
                self.at += len;
                if !text.is_empty() {
                    values.push(Value { text, quoted: false, at });
                }
            }
            self.space();
            if !self.eat(',') {
                break;
            }
        }
        if values.is_empty() {
            return self.fail("a value is missing here");
        }
        Ok(values)
    }

    fn values(&mut self) -> Result<Vec<Value>, LineError> {
        let open = self.at;
        if !self.eat('(') {
            let mut values = vec![self.value(true)?];
            while self.eat(',') {
                values.push(self.value(true)?);
            }
            return Ok(values);
        }
        let mut values = Vec::new();
        loop {
            self.space();
            if self.eat(')') {
                break;
            }
            if self.rest().is_empty() {
                return self.fail_at(open, "this parenthesis is not closed");
            }
            if !values.is_empty() && (self.eat(',') || self.word("OR")) {
                self.space();
            }
            if values.len() >= MAX_PARTS {
                return self.fail(format!("more than {MAX_PARTS} values"));
            }
            values.push(self.value(true)?);
        }
        if values.is_empty() {
            return self.fail_at(open, "there is no value in the parentheses");
        }
        Ok(values)
    }

    /// A value in quotes, or up to the next white space or parenthesis (or comma, after a key).
    fn value(&mut self, keyed: bool) -> Result<Value, LineError> {
        let at = self.at;
        if self.eat('"') {
            return self.quoted(at);
        }
        let len = self
            .rest()
            .find(|c: char| {
                c.is_whitespace() || matches!(c, '(' | ')' | '"') || (keyed && c == ',')
            })
            .unwrap_or(self.rest().len());
        if len == 0 {
            return match self.peek() {
                Some(found) if !found.is_whitespace() => {
                    self.fail(format!("expected a value, found {found:?}"))
                }
                _ => self.fail("a value is missing here"),
            };
        }
        let text = self.rest()[..len].to_owned();
        self.at += len;
        Ok(Value { text, quoted: false, at })
    }

    fn quoted(&mut self, at: usize) -> Result<Value, LineError> {
        let mut text = String::new();
        loop {
            let Some(next) = self.peek() else {
                return self.fail_at(at, "this quote is not closed");
            };
            self.at += next.len_utf8();
            match next {
                '"' => break,
                '\\' if matches!(self.peek(), Some('"' | '\\')) => {
                    text.extend(self.peek());
                    self.at += 1;
                }
                other => text.push(other),
            }
        }
        Ok(Value { text, quoted: true, at })
    }

    fn text(&mut self, value: &Value) -> Result<Expr, LineError> {
        let Some(start) = value.text.strip_suffix('*').filter(|_| !value.quoted) else {
            if !value.quoted && value.text.contains('*') {
                return self.fail_at(
                    value.at,
                    "in a word * may only stand at the end; under a key it may stand anywhere",
                );
            }
            return Ok(Expr::phrase(&value.text));
        };
        let folded = terms::fold(start);
        let whole = terms::words_of(&folded).contains(&folded);
        if !whole || folded.chars().count() < MIN_PREFIX_CHARS {
            return self.fail_at(
                value.at,
                format!("before a * there must be the beginning of one word, at least {MIN_PREFIX_CHARS} characters"),
            );
        }
        Ok(Expr::WordPrefix(folded))
    }
}

fn one_or(mut list: Vec<Expr>, many: impl FnOnce(Vec<Expr>) -> Expr) -> Expr {
    match list.len() {
        0 => Expr::default(),
        1 => list.remove(0),
        _ => many(list),
    }
}

/// How long the key is that stands here, if a key and a colon stand here.
fn key_len(rest: &str) -> Option<usize> {
    // Keys of programs in `details` have hyphens; ours have none.
    let hyphens = rest.get(..keys::DETAILS.len()) == Some(keys::DETAILS);
    let len = rest.find(|c: char| {
        !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.') || (hyphens && c == '-'))
    })?;
    let key = &rest[..len];
    let starts = key.starts_with(|c: char| c.is_ascii_alphabetic());
    // `12:30` and `::1` are texts; so is `http://…`.
    let colon = rest[len..].starts_with(':') && !rest[len..].starts_with("://");
    // Hex digits and a colon may be the beginning of an address.
    let address = rest
        .split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"'))
        .next()
        .is_some_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
    (starts && colon && !address).then_some(len)
}
