//! A condition turned into a tantivy query.
//!
//! Where the index alone cannot know (phrases), the query finds too much, never too little:
//! candidates are then looked at. Under a negation "too much" turns into "too little", so the
//! bound is carried down.

use std::net::Ipv6Addr;
use std::ops::Bound as Edge;

use tantivy::Term;
use tantivy::query::{
    AllQuery, BooleanQuery, EmptyQuery, Occur, Query, RangeQuery, RegexQuery, TermQuery,
};
use tantivy::schema::IndexRecordOption;

use super::IndexError;
use super::schema::Fields;
use super::terms::{self, Tag};
use crate::query::filter::{Expr, IpRange, Pattern};

/// What a query may do where it cannot be exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// Find more.
    Above,
    /// Find less.
    Below,
}

impl Bound {
    fn flip(self) -> Self {
        match self {
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }
}

/// The query that finds every event for which `expr` holds, and perhaps more where
/// [`Expr::needs_text`].
pub(super) fn lower(expr: &Expr, fields: &Fields) -> Result<Box<dyn Query>, IndexError> {
    lower_to(expr, fields, Bound::Above)
}

/// Is it every event?
pub(super) fn is_everything(expr: &Expr) -> bool {
    matches!(expr, Expr::All(all) if all.iter().all(is_everything))
}

fn lower_to(expr: &Expr, fields: &Fields, bound: Bound) -> Result<Box<dyn Query>, IndexError> {
    Ok(match expr {
        Expr::All(all) => conjunction(all, fields, bound)?,
        Expr::Any(any) => {
            let any: Result<Vec<_>, IndexError> = any
                .iter()
                .map(|expr| Ok((Occur::Should, lower_to(expr, fields, bound)?)))
                .collect();
            clauses(any?)
        }
        Expr::Not(_) => conjunction(std::slice::from_ref(expr), fields, bound)?,
        Expr::Value(key, pattern) => {
            let any: Result<Vec<_>, IndexError> = key
                .tags
                .iter()
                .map(|tag| Ok((Occur::Should, value(*tag, pattern, fields)?)))
                .collect();
            clauses(any?)
        }
        Expr::Field(path, pattern) => at_path(path, pattern, fields)?,
        Expr::Number(path, first, last) => {
            let term =
                |number: &i64| fields.term_at(Tag::Number, path, &terms::number_digits(*number));
            if first > last { Box::new(EmptyQuery) } else { range(term(first), term(last)) }
        }
        Expr::Ip(range) => address_range(range, fields),
        Expr::Word(word) => one_word(word, fields),
        Expr::WordPrefix(start) => word_prefix(start, fields),
        Expr::Phrase(_) if bound == Bound::Below => Box::new(EmptyQuery),
        Expr::Phrase(phrase) => {
            clauses(phrase.words.iter().map(|word| (Occur::Must, one_word(word, fields))).collect())
        }
    })
}

fn conjunction(all: &[Expr], fields: &Fields, bound: Bound) -> Result<Box<dyn Query>, IndexError> {
    let mut out = Vec::with_capacity(all.len() + 1);
    for expr in all {
        match expr {
            Expr::Not(not) => out.push((Occur::MustNot, lower_to(not, fields, bound.flip())?)),
            _ if is_everything(expr) => {}
            _ => out.push((Occur::Must, lower_to(expr, fields, bound)?)),
        }
    }
    if out.iter().all(|(occur, _)| *occur == Occur::MustNot) {
        out.push((Occur::Must, Box::new(AllQuery)));
    }
    Ok(clauses(out))
}

/// One clause alone needs no tree around it; none at all finds nothing.
fn clauses(mut list: Vec<(Occur, Box<dyn Query>)>) -> Box<dyn Query> {
    if list.len() == 1
        && let Some((_, only)) = list.pop_if(|(occur, _)| *occur != Occur::MustNot)
    {
        return only;
    }
    Box::new(BooleanQuery::new(list))
}

/// A word, also where it is kept as an id alone.
fn one_word(word: &str, fields: &Fields) -> Box<dyn Query> {
    if !terms::is_lone_id(word) {
        return term(Tag::Word, word, fields);
    }
    under_word_and_ids(|tag| term(tag, word, fields))
}

/// Words that begin so. An id that begins with one run's letters and digits is a word that does.
fn word_prefix(start: &str, fields: &Fields) -> Box<dyn Query> {
    if !start.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return prefix(Tag::Word, start, fields);
    }
    under_word_and_ids(|tag| prefix(tag, start, fields))
}

fn under_word_and_ids(query: impl Fn(Tag) -> Box<dyn Query>) -> Box<dyn Query> {
    let tags = std::iter::once(Tag::Word).chain(terms::ID_TAGS);
    clauses(tags.map(|tag| (Occur::Should, query(tag))).collect())
}

fn term(tag: Tag, folded: &str, fields: &Fields) -> Box<dyn Query> {
    Box::new(TermQuery::new(fields.term(tag, folded), IndexRecordOption::Basic))
}

fn value(tag: Tag, pattern: &Pattern, fields: &Fields) -> Result<Box<dyn Query>, IndexError> {
    Ok(match pattern {
        Pattern::Exact(text) => term(tag, text, fields),
        Pattern::Prefix(start) => prefix(tag, start, fields),
        Pattern::Pieces(list) => pieces(String::from(tag.letter()), list, fields)?,
    })
}

fn at_path(path: &str, pattern: &Pattern, fields: &Fields) -> Result<Box<dyn Query>, IndexError> {
    Ok(match pattern {
        Pattern::Exact(text) => {
            let term = fields.term_at(Tag::Field, path, text);
            Box::new(TermQuery::new(term, IndexRecordOption::Basic))
        }
        Pattern::Prefix(start) => {
            let end = format!("{start}{BEYOND}");
            range(fields.term_at(Tag::Field, path, start), fields.term_at(Tag::Field, path, &end))
        }
        Pattern::Pieces(list) => {
            let mut regex = String::from(Tag::Field.letter());
            push_literal(path, &mut regex);
            regex.push(terms::AT);
            pieces(regex, list, fields)?
        }
    })
}

/// Terms that begin as `regex` says and go on with these pieces, anything between.
fn pieces(
    mut regex: String,
    pieces: &[String],
    fields: &Fields,
) -> Result<Box<dyn Query>, IndexError> {
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 {
            regex.push_str(".*");
        }
        push_literal(piece, &mut regex);
    }
    Ok(Box::new(RegexQuery::from_pattern(&regex, fields.terms)?))
}

fn push_literal(text: &str, regex: &mut String) {
    for character in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(character) {
            regex.push('\\');
        }
        regex.push(character);
    }
}

/// No value begins with this character: it is no character at all.
const BEYOND: char = '\u{10ffff}';

fn prefix(tag: Tag, start: &str, fields: &Fields) -> Box<dyn Query> {
    let mut end = start.to_owned();
    end.push(BEYOND);
    range(fields.term(tag, start), fields.term(tag, &end))
}

fn range(first: Term, last: Term) -> Box<dyn Query> {
    Box::new(RangeQuery::new(Edge::Included(first), Edge::Included(last)))
}

/// Wide ranges go through the networks, narrow ones through the addresses: either way the terms
/// to be looked at are few. Ranges come from networks, so their ends are aligned.
fn address_range(addresses: &IpRange, fields: &Fields) -> Box<dyn Query> {
    let digits = |address: u128| terms::ip_digits(Ipv6Addr::from(address).into());
    let (first, last) = (digits(addresses.first), digits(addresses.last));
    if first == last {
        return term(Tag::Ip, &first, fields);
    }
    let (low, high) = (terms::coarse(&first), terms::coarse(&last));
    let whole_networks = low.len() == high.len()
        && first[low.len()..].bytes().all(|b| b == b'0')
        && last[high.len()..].bytes().all(|b| b == b'f');
    if !whole_networks {
        return range(fields.term(Tag::Ip, &first), fields.term(Tag::Ip, &last));
    }
    let mut end = high.to_owned();
    end.push(BEYOND);
    range(fields.term(Tag::IpCoarse, low), fields.term(Tag::IpCoarse, &end))
}
