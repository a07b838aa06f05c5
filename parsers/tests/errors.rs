//! What is wrong with a pack is said with its place and what to do.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use custody_parsers::{PackSet, PackSource, Select, Settings};

const GOOD: &str = "\
pack: shop
version: 1
decode: [syslog?, json]
rules:
  - id: sold
    match: '^sold (?<what>\\S+) to (?<who>\\S+)$'
    when: { what: { not: nothing } }
    event:
      action: sale.create
      actor.name: $who
      outcome: success
      details.text: 'bought ${what}'
    map: { actor.name: { '-': null } }
    tests:
      - record: 'sold shoes to eva'
        unmatched: true
";

fn errors(text: &str) -> String {
    let source = PackSource { name: "shop.yaml".to_owned(), text: text.to_owned() };
    PackSet::load(&[source]).map(|_| String::new()).unwrap_or_else(|errors| errors.to_string())
}

#[test]
fn each_slip_names_its_line_its_column_and_the_remedy() {
    assert_eq!(errors(GOOD), "");
    for (from, to, expected) in [
        (
            "actor.name: $who\n",
            "actor.nam: $who\n",
            "shop.yaml:10:7: `actor.nam` is no field that a rule sets (did you mean `actor.name`?)",
        ),
        ("$who\n", "$woh\n", "shop.yaml:10:19: unknown name `$woh`"),
        (
            "'bought ${what}'",
            "'bought ${wat}'",
            "shop.yaml:12:21: unknown name `$wat` (did you mean `what`?)",
        ),
        ("(?<who>\\S+)$", "(?<who>\\S+$", "shop.yaml:6:35: bad pattern: unclosed group"),
        ("(?<who>", "(", "shop.yaml:6:12: a group without a name"),
        (
            "sale.create",
            "Sale.Create",
            "shop.yaml:9:15: `Sale.Create` is not of the list of `action` (dotted, lower case",
        ),
        (
            "outcome: success",
            "outcome: succes",
            "shop.yaml:11:16: `succes` is not of the list of `outcome` (did you mean `success`?)",
        ),
        ("    when:", "    wenn:", "shop.yaml:7:5: "),
        (
            "not: nothing",
            "nott: nothing",
            "shop.yaml:7:21: unknown test `nott` (did you mean `not`?)",
        ),
        (
            "[syslog?, json]",
            "[sislog, json]",
            "shop.yaml:3:10: unknown decoder `sislog` (did you mean `syslog`?)",
        ),
        ("version: 1", "version: one", "shop.yaml:2:10: "),
        (
            "action: sale.create\n",
            "op: create\n",
            "shop.yaml:5:9: rule `sold` sets no `action` (or `drop: <reason>`)",
        ),
        (
            "      action: sale.create\n",
            "      action: sale.create\n      id: x\n",
            "shop.yaml:10:7: `id` is no field that a rule sets (the agent itself fills it)",
        ),
        (
            "    map: { actor.name:",
            "    map: { host:",
            "shop.yaml:13:12: a map of a field that the rule does not set",
        ),
        (
            "rules:\n",
            "rules:\n  - { id: sold, drop: x }\n",
            "shop.yaml:6:9: a second rule `sold` (ids are unique in a pack)",
        ),
        ("rules:\n", "rulez:\n", "shop.yaml:4:1: "),
        (
            "decode: [syslog?, json]\n",
            "decode: [syslog?, json]\ntime: { field: $when, formats: '%Q' }\n",
            "shop.yaml:4:32: unknown time directive `%Q`",
        ),
        (
            "      actor.name: $who\n",
            "      actor.name: $json.who\n",
            "shop.yaml:6:12: the group `who` is never used (use `$who`, write `(?:…)`, or call it `_who`)",
        ),
        (
            "    map: { actor.name: { '-': null } }\n",
            "    map: { actor.name: { '-': null } }\n  - id: again\n    match: '^sold (?<what>\\S+) to (?<who>\\S+)$'\n    when: { what: { not: nothing }, who: eva }\n    drop: x\n",
            "shop.yaml:14:9: rule `again` is never reached (`sold` before it knows every record that it knows)",
        ),
        (
            "rules:\n",
            "rules:\n  - { id: all, drop: x }\n",
            "shop.yaml:6:9: rule `sold` is never reached (`all`",
        ),
        (
            "[syslog?, json]",
            "[syslog?, json, kv]",
            "shop.yaml:3:25: `kv` after another (a chain has one",
        ),
        ("[syslog?, json]", "csv", "shop.yaml:3:9: `csv` needs the names of its columns"),
        (
            "decode: [syslog?, json]\n",
            "decode: kv\nkv: { pairs: '' }\n",
            "shop.yaml:4:14: a separator is 1 to 16 bytes long",
        ),
        (
            "decode: [syslog?, json]\n",
            "decode: kv\ncsv: { columns: [a, b] }\n",
            "shop.yaml:4:6: settings of `csv`, which the pack does not use (add `csv` to `decode:`)",
        ),
        (
            "decode: [syslog?, json]\n",
            "decode: csv\ncsv: { columns: [a, a] }\n",
            "shop.yaml:4:17: a second column `a`",
        ),
        (
            "decode: [syslog?, json]\n",
            "decode: json\nfan_out: $logfmt.x\n",
            "shop.yaml:4:10: `$logfmt.x` is nothing to fan out (the path of a list: `$json.Records`)",
        ),
        (
            "decode: [syslog?, json]\n",
            "decode: json\nuser_agent: pasre\n",
            "shop.yaml:4:13: `user_agent: pasre` is not known (known: keep, parse)",
        ),
        (
            "decode: [syslog?, json]\n",
            "decode: json\nnetworks: { office: 203.0.113.0/40 }\n",
            "shop.yaml:4:21: `203.0.113.0/40` is no network (write it as",
        ),
        ("{ '-': null }", "networks", "shop.yaml:13:24: no `networks:` in this pack"),
        (
            "when: { what: { not: nothing } }",
            "when: { any: nothing }",
            "shop.yaml:7:18: tests are needed under `any` (any: [{ name: value }, …])",
        ),
        (
            "(?<who>\\S+)$'",
            "(?<who>(?:\\w{1,999}){1,999})$'",
            "shop.yaml:6:13: bad pattern: too large: it compiles to more than 4 MiB",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let found = errors(&GOOD.replacen(from, to, 1));
        let first = found.lines().next().unwrap_or_default();
        assert!(first.starts_with(expected), "{to:?}:\n{found}\nexpected {expected}");
        assert_eq!(found.is_empty(), expected.is_empty(), "{found}");
    }
}

#[test]
fn packs_that_are_too_large_are_refused_before_they_cost_anything() {
    let rule = |number: usize| {
        format!("  - {{ id: r{number}, match: '^line {number}$', event: {{ action: a.b }} }}\n")
    };
    let pack = |count: usize| {
        let rules: String = (0..count).map(rule).collect();
        format!("pack: shop\nversion: 1\nrules:\n{rules}")
    };
    assert_eq!(errors(&pack(500)), "");
    assert_eq!(
        errors(&pack(501)),
        "shop.yaml:4:3: too many rules (at most 500: make several packs of it)"
    );
    let long = format!("{GOOD}# {}", "x".repeat(1 << 20));
    assert!(errors(&long).contains("at most 1 MiB"), "{}", errors(&long));
    let tests = "{ what: { not: x } }, ".repeat(201);
    let many =
        GOOD.replace("when: { what: { not: nothing } }", &format!("when: {{ any: [{tests}] }}"));
    assert!(
        errors(&many).contains("at most 200 tests in a rule, trees 8 deep"),
        "{}",
        errors(&many)
    );
    let deep = format!("when: {}what: x{}", "{ not: ".repeat(9) + "{ ", " }".repeat(10));
    let deep = GOOD.replace("when: { what: { not: nothing } }", &deep);
    assert!(errors(&deep).contains("trees 8 deep"), "{}", errors(&deep));
}

#[test]
fn a_pack_without_tests_is_a_warning_and_an_unknown_pack_has_a_hint() {
    let text = GOOD.split("    tests:").next().unwrap().to_owned();
    let source = PackSource { name: "shop.yaml".to_owned(), text };
    let set = PackSet::with_builtin(&[source]).unwrap();
    assert_eq!(set.warnings().len(), 1);
    assert_eq!(
        set.warnings()[0].to_string(),
        "shop.yaml:1:7: a pack without tests (give its rules `tests:`)"
    );
    let before = set.names().iter().position(|name| *name == "shop").unwrap();
    assert_eq!(
        set.names()[before + 1],
        "generic-cef",
        "an own pack is tried before the general ones"
    );
    let error =
        set.select(&Select::Names(vec!["sshdd".to_owned()]), Settings::default()).unwrap_err();
    assert_eq!(error.to_string(), "no rule pack `sshdd` (did you mean `sshd`?)");
}

#[test]
fn a_failing_test_says_where_it_stands_and_what_it_found() {
    let text = GOOD.replace("unmatched: true", "event: { actor.name: eve }");
    let source =
        PackSource { name: "shop.yaml".to_owned(), text: text.replace("[syslog?, json]", "none") };
    let report = PackSet::load(&[source]).unwrap().run_tests();
    let failures: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
    assert_eq!(failures, ["shop.yaml:16:18: `actor.name` is \"eva\", expected \"eve\""]);
}

#[test]
fn an_operators_pack_takes_the_place_of_the_built_in_one() {
    let text = GOOD.replace("pack: shop", "pack: sshd").replace("version: 1", "version: 99");
    let set = PackSet::with_builtin(&[PackSource { name: "mine.yaml".to_owned(), text }]).unwrap();
    let info = set.infos().into_iter().find(|info| info.name == "sshd").unwrap();
    assert_eq!((info.version, info.file), (99, "mine.yaml"));
}
