//! What the language of packs promises, each shown on a pack of its own.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashSet;

use custody_event::{FileKey, MAX_RAW_BYTES, Offset, Timestamp, canon};
use custody_parsers::{
    Envelope, Fanned, MAX_FAN_OUT, PackSet, PackSource, Parser, Scratch, Select, Settings, Verdict,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn parser(text: &str) -> Parser {
    let source = PackSource { name: "own.yaml".to_owned(), text: text.to_owned() };
    let set = PackSet::load(&[source]).unwrap_or_else(|errors| panic!("{errors}"));
    set.select(&Select::Auto, Settings::default()).unwrap()
}

fn parse(parser: &Parser, record: &[u8]) -> (Verdict, Vec<Value>) {
    let envelope = Envelope {
        file: FileKey([5; 16]),
        ..Envelope::bare(Timestamp::parse("2024-03-01T12:00:00.000000Z").unwrap())
    };
    let mut out = b"before".to_vec();
    let verdict = parser.parse(&mut Scratch::new(), &envelope, record, Offset(7), None, &mut out);
    let text = out.strip_prefix(b"before").unwrap();
    let events = text.split(|byte| *byte == b'\n').filter(|event| !event.is_empty());
    let read = |event: &[u8]| {
        canon::check(event).unwrap_or_else(|error| panic!("{error}"));
        serde_json::from_slice(event).unwrap()
    };
    (verdict, events.map(read).collect())
}

fn one(parser: &Parser, record: &str) -> Value {
    let (_, mut events) = parse(parser, record.as_bytes());
    assert_eq!(events.len(), 1, "{record}");
    events.remove(0)
}

const EVENT: &str = "event: { action: a.b }";

#[test]
fn fields_of_every_decoder_are_named_by_it_and_the_rest_stays_in_the_details() {
    for (decode, decoder, path, record, rest) in [
        ("logfmt", "logfmt", "user", "user=eva more=\"x y\"", json!({"more":"x y"})),
        ("[syslog?, kv]", "kv", "user", "note user=eva more=x", json!({"more":"x","text":"note"})),
        (
            "kv\nkv: { pairs: ';', equals: ':' }",
            "kv",
            "user",
            "user:eva;more:x",
            json!({"more":"x"}),
        ),
        ("csv\ncsv: { columns: [user, more] }", "csv", "user", "eva,x", json!({"more":"x"})),
        (
            "cef",
            "cef",
            "suser",
            "CEF:0|a|b|c|d|e|3|suser=eva",
            json!({"version":"0","deviceVendor":"a","deviceProduct":"b","deviceVersion":"c",
                "deviceEventClassId":"d","name":"e","severity":"3"}),
        ),
        (
            "leef",
            "leef",
            "usrName",
            "LEEF:1.0|a|b|c|d|usrName=eva",
            json!({"version":"1.0","deviceVendor":"a","deviceProduct":"b","deviceVersion":"c","eventId":"d"}),
        ),
        (
            "auditd",
            "auditd",
            "acct",
            "type=X msg=audit(1.2:3): acct=\"eva\"",
            json!({"type":"X","time":"1.2","serial":"3"}),
        ),
        (
            "xml",
            "xml",
            "e.user",
            "<e><user>eva</user><more a='1'/></e>",
            json!({"e":{"more@a":"1"}}),
        ),
    ] {
        let pack = format!(
            "pack: own\nversion: 1\ndecode: {decode}\nrules:\n  - id: it\n    event: {{ action: a.b, actor.name: ${decoder}.{path} }}\n"
        );
        let event = one(&parser(&pack), record);
        assert_eq!(event["actor"]["name"], "eva", "{decode}");
        assert_eq!(event["details"], rest, "{decode}");
        assert_eq!(event["message"], "eva a.b");
        let refused = one(&parser(&pack), "\u{1}");
        assert_eq!(refused["category"], "unknown", "{decode}");
    }
}

#[test]
fn trees_of_tests_hold_as_they_are_written() {
    let pack = format!(
        "pack: own\nversion: 1\ndecode: logfmt\nnetworks: {{ office: [203.0.113.0/24, '2001:db8::/32'], vpn: 10.0.0.0/8 }}\nrules:\n\
         \x20 - id: it\n    when:\n      logfmt.a: x\n      any:\n        - {{ logfmt.b: '1', logfmt.c: '2' }}\n        - not: {{ logfmt.d: '3' }}\n\
         \x20     not:\n        - logfmt.ip: {{ cidr: [office, 198.51.100.7] }}\n    {EVENT}\n"
    );
    let parser = parser(&pack);
    for (record, known) in [
        ("a=x b=1 c=2 d=3", true),
        ("a=x b=1 d=3", false),
        ("a=x", true),
        ("a=y", false),
        ("a=x ip=203.0.113.4", false),
        ("a=x ip=::ffff:203.0.113.4", false),
        ("a=x ip=198.51.100.7", false),
        ("a=x ip=198.51.100.8", true),
        ("a=x ip=2001:db8:1::1", false),
    ] {
        assert_eq!(one(&parser, record)["origin"]["rule"] == "it", known, "{record}");
    }
}

#[test]
fn networks_have_names() {
    let pack = "pack: own\nversion: 1\ndecode: logfmt\nnetworks: { lab: 10.9.0.0/16, inside: [10.0.0.0/8, 'fd00::/8'] }\nrules:\n\
        \x20 - id: it\n    event: { action: a.b, source.ip: $logfmt.ip, source.location.region: $logfmt.ip }\n    map: { source.location.region: networks }\n";
    let parser = parser(pack);
    for (ip, name) in [
        ("10.9.1.1", "lab"),
        ("10.8.1.1", "inside"),
        ("fd00::1", "inside"),
        ("::ffff:10.9.0.1", "lab"),
    ] {
        assert_eq!(one(&parser, &format!("ip={ip}"))["source"]["location"]["region"], name);
    }
    assert_eq!(one(&parser, "ip=203.0.113.9")["source"]["location"], Value::Null);
    assert_eq!(one(&parser, "ip=nonsense")["source"]["location"], Value::Null);
}

#[test]
fn user_agents_are_read_where_the_pack_asks_and_never_over_what_it_says() {
    let rules = "rules:\n  - id: it\n    event: { action: a.b, source.user_agent: $logfmt.ua, source.device.os: $logfmt.os }\n";
    let head = "pack: own\nversion: 1\ndecode: logfmt\n";
    let record = "ua=\"Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0\"";
    let asked = parser(&format!("{head}user_agent: parse\n{rules}"));
    assert_eq!(
        one(&asked, record)["source"]["device"],
        json!({"browser":"Firefox 120.0","os":"Linux"})
    );
    assert_eq!(one(&asked, &format!("{record} os=Haiku"))["source"]["device"]["os"], "Haiku");
    let silent = parser(&format!("{head}{rules}"));
    assert_eq!(one(&silent, record)["source"]["device"], Value::Null);
}

#[test]
fn before_and_after_are_told_apart_down_to_the_nested_field() {
    let pack = "pack: own\nversion: 1\ndecode: json\nrules:\n  - id: it\n    event: { action: a.b, changes: $json.changes, changes.before: $json.before, changes.after: $json.after }\n";
    let parser = parser(pack);
    for (record, changes) in [
        (
            r#"{"before":{"a":{"x":1,"y":{"z":[1]}},"b":2,"gone":0},"after":{"a":{"y":{"z":[1,2]},"x":1},"b":2,"new":null}}"#,
            json!([{"field":"a.y.z","before":[1],"after":[1,2]},{"field":"gone","before":0},{"field":"new","after":null}]),
        ),
        (r#"{"before":{"a":{"x":1,"y":2}},"after":{"a":{"y":2,"x":1}}}"#, Value::Null),
        (
            r#"{"before":{"a":{"x":1}},"after":{"a":"none"}}"#,
            json!([{"field":"a","before":{"x":1},"after":"none"}]),
        ),
        (
            r#"{"changes":{"address":{"old":{"city":"A","zip":1},"new":{"city":"B","zip":1}}}}"#,
            json!([{"field":"address.city","before":"A","after":"B"}]),
        ),
        (
            r#"{"changes":{"address":{"city":{"old":"A","new":"B"},"zip":{"old":1,"new":2}}}}"#,
            json!([{"field":"address.city","before":"A","after":"B"},{"field":"address.zip","before":1,"after":2}]),
        ),
    ] {
        assert_eq!(one(&parser, record)["changes"], changes, "{record}");
    }
}

const FAN: &str = "pack: own\nversion: 1\ndecode: [syslog?, json]\nfan_out: $json.Records\ntime: { field: $json.at }\nrules:\n\
    \x20 - id: noise\n    when: { json.kind: noise }\n    drop: noise\n\
    \x20 - id: it\n    when: { json.action: { exists: true } }\n    event: { action: $json.action, actor.name: $json.user, targets.name: $json.thing.name, session.id: $json.session }\n";

#[test]
fn each_element_of_a_list_is_an_event_with_an_id_of_its_own() {
    let record = br#"{"user":"eva","account":7,"Records":[
        {"action":"login","at":"2024-01-05T10:00:00Z","thing":{"name":"x","size":3},"odd":1},
        {"kind":"noise"},
        {"action":"logout","user":"mallory","at":"2024-01-05T09:00:00Z"},
        {"what":"is this"}, "a text"]}"#;
    let record: Vec<u8> = record.iter().copied().filter(|byte| *byte != b'\n').collect();
    let (verdict, events) = parse(&parser(FAN), &record);
    let time = |text: &str| Timestamp::parse(text).unwrap();
    let times = (time("2024-01-05T09:00:00.000000Z"), time("2024-03-01T12:00:00.000000Z"));
    assert_eq!(verdict, Verdict::Many(Fanned { stored: 4, unmatched: 2, filtered: 1, times }));
    assert_eq!(events.len(), 4);
    let who: Vec<_> = events.iter().map(|event| &event["actor"]["name"]).collect();
    assert_eq!(who, [&json!("eva"), &json!("mallory"), &Value::Null, &Value::Null]);
    assert_eq!(events[0]["targets"], json!([{"name":"x"}]));
    assert_eq!(events[0]["details"], json!({"account":7,"thing":{"size":3},"odd":1}));
    assert_eq!(events[1]["details"], json!({"account":7,"user":"eva"}), "what is laid over stays");
    assert_eq!(events[2]["details"], json!({"account":7,"user":"eva","what":"is this"}));
    assert_eq!(events[3]["details"], json!({"account":7,"user":"eva","element":"a text"}));
    assert_eq!(
        events[0]["origin"]["raw"].as_str().unwrap().as_bytes(),
        record,
        "whole in the first"
    );
    assert_eq!(events[2]["origin"]["raw"], r#"{"what":"is this"}"#);
    let hashes: HashSet<String> =
        events.iter().map(|event| event["origin"]["raw_sha256"].to_string()).collect();
    assert_eq!(hashes.len(), 1, "all name the one record");
    let ids: HashSet<String> = events.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(parse(&parser(FAN), &record).1, events, "the same record gives the same events");
}

#[test]
fn a_record_without_its_list_is_one_event_and_one_with_too_long_a_list_too() {
    for record in [
        r#"{"action":"login","user":"eva"}"#,
        r#"{"action":"login","user":"eva","Records":[]}"#,
        r#"{"action":"login","user":"eva","Records":{"a":1}}"#,
    ] {
        let (verdict, events) = parse(&parser(FAN), record.as_bytes());
        assert!(matches!(verdict, Verdict::Stored { .. }), "{record}");
        assert_eq!(events[0]["actor"]["name"], "eva");
    }
    let list =
        |count: usize| format!("{{\"Records\":[{}]}}", vec!["{\"action\":\"a\"}"; count].join(","));
    assert_eq!(parse(&parser(FAN), list(MAX_FAN_OUT).as_bytes()).1.len(), MAX_FAN_OUT);
    let (verdict, events) = parse(&parser(FAN), list(MAX_FAN_OUT + 1).as_bytes());
    assert!(matches!(verdict, Verdict::Unmatched { .. }));
    assert_eq!(events[0]["origin"]["reason"], "a list of more than 800 things to fan out");
    let long = format!(
        "{{\"x\":\"{}\",\"Records\":[{}]}}",
        "y".repeat(16_000),
        vec!["{\"action\":\"a\"}"; 400].join(",")
    );
    assert!(long.len() < MAX_RAW_BYTES);
    let (verdict, events) = parse(&parser(FAN), long.as_bytes());
    assert!(matches!(verdict, Verdict::Many(_) | Verdict::Unmatched { .. }));
    assert!(!events.is_empty());
}

#[test]
fn a_list_that_no_rule_knows_is_one_unknown_record() {
    let record = br#"{"Records":[{"x":1},{"x":2}]}"#;
    let (verdict, events) = parse(&parser(FAN), record);
    assert!(matches!(verdict, Verdict::Unmatched { .. }));
    assert_eq!(events.len(), 1);
    let (verdict, events) =
        parse(&parser(FAN), br#"{"Records":[{"kind":"noise"},{"kind":"noise"}]}"#);
    assert!(matches!(verdict, Verdict::Many(Fanned { stored: 0, filtered: 2, .. })));
    assert_eq!(events, [] as [Value; 0]);
}

#[test]
fn two_packs_with_different_decoders_share_a_worker() {
    let packs: Vec<PackSource> = [("one", "logfmt"), ("two", "cef"), ("three", "json"), ("four", "logfmt")]
        .iter()
        .map(|(name, decoder)| PackSource {
            name: format!("{name}.yaml"),
            text: format!(
                "pack: {name}\nversion: 1\ndecode: {decoder}\nrules:\n  - id: it\n    when: {{ {decoder}.of: {name} }}\n    event: {{ action: a.b, actor.name: ${decoder}.user }}\n"
            ),
        })
        .collect();
    let parser = PackSet::load(&packs).unwrap().select(&Select::Auto, Settings::default()).unwrap();
    for (record, pack) in [
        ("of=one user=eva", "one"),
        ("CEF:0|a|b|c|d|e|3|of=two user=eva", "two"),
        ("{\"of\":\"three\",\"user\":\"eva\"}", "three"),
        ("of=four user=eva", "four"),
    ] {
        let event = one(&parser, record);
        assert_eq!(
            (&event["origin"]["pack"], &event["actor"]["name"]),
            (&json!(pack), &json!("eva"))
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_is_fanned_out_is_canonical_and_all_there(
        elements in proptest::collection::vec(prop_oneof![
            Just(json!({"action":"login","user":"eva"})),
            Just(json!({"kind":"noise"})),
            Just(json!({"x":{"y":[1,"é"]}})),
            Just(json!([1,[2]])),
            Just(json!(null)),
            Just(json!("text")),
        ], 1..12),
        outer in any::<String>(),
    ) {
        let record = json!({"o": outer, "Records": elements}).to_string();
        let (verdict, events) = parse(&parser(FAN), record.as_bytes());
        match verdict {
            Verdict::Many(fanned) => {
                prop_assert_eq!(usize::try_from(fanned.stored).unwrap(), events.len());
                prop_assert_eq!(usize::try_from(fanned.stored + fanned.filtered).unwrap(), elements.len());
            }
            _ => prop_assert_eq!(events.len(), 1),
        }
    }
}
