use custody_event::Timestamp;
use proptest::prelude::*;

use super::filter::{Expr, IpRange, Pattern};
use super::keys::Key;
use super::line::{LineError, parse};

fn expr(line: &str) -> Expr {
    parse(line, Timestamp::Y2020).unwrap().expr
}

fn error(line: &str) -> LineError {
    parse(line, Timestamp::Y2020).unwrap_err()
}

fn is(key: &str, value: &str) -> Expr {
    Expr::Value(Key::from_name(key).unwrap(), Pattern::wild(value))
}

#[test]
fn the_design_s_own_line() {
    let line = r#"actor:jane action:data.* outcome:failure ip:203.0.113.0/24 -host:web1 "contract 77" severity:(high OR critical)"#;
    assert_eq!(
        expr(line),
        Expr::All(vec![
            is("actor", "jane"),
            is("action", "data.*"),
            is("outcome", "failure"),
            Expr::Ip(IpRange::parse("203.0.113.0/24").unwrap()),
            Expr::Not(Box::new(is("host", "web1"))),
            Expr::phrase("contract 77"),
            Expr::Any(vec![is("severity", "high"), is("severity", "critical")]),
        ])
    );
}

#[test]
fn alternatives_in_lists_and_parentheses() {
    let both = Expr::Any(vec![is("op", "create"), is("op", "delete")]);
    for line in [
        "op:create,delete",
        "op:(create delete)",
        "op:(create,delete)",
        "op:create OR op:delete",
        "(op:create OR op:delete)",
    ] {
        assert_eq!(expr(line), both, "{line}");
    }
    assert_eq!(
        expr("a1 (b1 OR NOT c1)"),
        Expr::All(vec![
            Expr::Word("a1".to_owned()),
            Expr::Any(vec![
                Expr::Word("b1".to_owned()),
                Expr::Not(Box::new(Expr::Word("c1".to_owned())))
            ]),
        ])
    );
}

#[test]
fn quotes_keep_stars_and_escapes() {
    assert_eq!(
        expr(r#"actor:"a*\"b\\""#),
        Expr::Value(Key::from_name("actor").unwrap(), Pattern::Exact(r#"a*"b\"#.to_owned()))
    );
    assert_eq!(expr("Jane.Doe@Company.com"), Expr::Word("jane.doe@company.com".to_owned()));
    assert_eq!(expr("2001:db8::1"), Expr::phrase("2001:db8::1"));
    assert_eq!(expr("http://example.org/x"), Expr::phrase("http://example.org/x"));
    assert_eq!(expr("12:30"), Expr::phrase("12:30"));
    assert_eq!(expr("user:jane"), is("actor", "jane"));
    assert_eq!(expr("pass*"), Expr::WordPrefix("pass".to_owned()));
}

#[test]
fn times_in_the_line_bound_the_search() {
    let filter = parse("from:2019-01-01 to:2019-02-01 x1", Timestamp::Y2020).unwrap();
    assert_eq!(filter.from.unwrap().to_string(), "2019-01-01T00:00:00.000000Z");
    assert_eq!(filter.to.unwrap().to_string(), "2019-02-01T00:00:00.000000Z");
    assert_eq!(filter.expr, Expr::Word("x1".to_owned()));
}

#[test]
fn errors_say_where_and_what() {
    for (line, column, what) in [
        ("ok aktor:jane", 4, "there is no key \"aktor\"; the keys are ip, actor"),
        ("ünï (a", 5, "not closed"),
        ("a)", 2, "no parenthesis to close"),
        ("actor:", 7, "a value is missing"),
        ("x actor:\"jane", 9, "this quote is not closed"),
        ("ip:1.2.3", 4, "\"1.2.3\" is not an IP address"),
        ("ip:10.0.0.0/33", 4, "0 to 32 bits"),
        ("a1 OR", 4, "both sides"),
        ("-", 1, "nothing here to exclude"),
        ("actor:()", 7, "no value in the parentheses"),
        ("a*b", 1, "only stand at the end"),
        ("*", 1, "at least 2 characters"),
        ("from:gestern", 6, "is not a time"),
        ("tz:Mars from:today", 4, "no time zone"),
        ("x tz:Europe/Berlin period:soon", 27, "is not a time"),
        ("actor:jane OR (b1 from:7d)", 24, "bounds the whole search"),
        ("-(from:7d x)", 8, "bounds the whole search"),
        ("outcome:falure", 9, "no outcome \"falure\""),
        ("severity:>=hgih", 10, "no severity \"hgih\""),
        ("records:many", 9, "is not a number"),
        ("details.:x", 1, "there is no key"),
    ] {
        let error = error(line);
        assert_eq!(error.column, column, "{line}: {error}");
        assert!(error.what.contains(what), "{line}: {error}");
    }
    assert!(error(&"(".repeat(100)).what.contains("more than 32 parentheses"));
    assert!(error(&"x ".repeat(600)).what.contains("more than 512"));
    assert!(error(&"é".repeat(10_000)).what.contains("longer"));
}

#[test]
fn an_empty_line_asks_nothing() {
    for line in ["", "   ", "AND", "…", "\"\""] {
        assert_eq!(expr(line), Expr::default(), "{line:?}");
    }
}

#[test]
fn errors_say_what_was_meant() {
    for (line, hint) in [
        ("aktor:jane", "did you mean actor:?"),
        ("outcome:falure", "did you mean failure?"),
        ("op:delet", "did you mean delete?"),
        ("ip:1.2.3", "203.0.113.0/24"),
        ("(a1 from:7d) OR b1", "outside of OR"),
    ] {
        let error = error(line);
        assert!(error.hint.as_ref().is_some_and(|said| said.contains(hint)), "{line}: {error}");
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[test]
fn people_s_words_are_understood() {
    for (line, same) in [
        ("status:failed", "outcome:failure"),
        ("user:jane", "actor:jane"),
        ("category:settings", "category:configuration"),
        ("action_type:deleted", "op:delete"),
        ("severity:>=high", "severity:high,critical"),
        ("severity:<low", "severity:(info)"),
        ("records:>1000", "data.records:>=1001"),
        ("resource:x", "target:x"),
        ("session.provider:okta", "provider:okta"),
        ("Details.Provider:okta", "details.provider:OKTA"),
    ] {
        let both = (expr(line), expr(same));
        match both {
            (Expr::Any(left), right) if left.len() == 1 => assert_eq!(left[0], right, "{line}"),
            (left, right) => assert_eq!(left, right, "{line}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_line_panics_and_every_error_stands_in_the_line(line in ".{0,60}") {
        check(&line)?;
    }

    #[test]
    fn no_line_of_its_own_words_panics(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("actor:"), Just("ip:"), Just("("), Just(")"), Just("\""), Just("-"), Just("OR"),
                Just(" "), Just("NOT "), Just("AND"), Just(","), Just("*"), Just("\\"), Just("a"),
                Just("é"), Just("1.2.3.4/8"), Just(":"), Just("from:"), Just("7d"), Just("管"),
            ],
            0..30
        )
    ) {
        check(&parts.concat())?;
    }
}

fn check(line: &str) -> Result<(), TestCaseError> {
    if let Err(error) = parse(line, Timestamp::Y2020) {
        prop_assert!(error.column >= 1 && error.column <= line.chars().count() + 1);
        prop_assert!(!error.what.is_empty());
    }
    Ok(())
}
