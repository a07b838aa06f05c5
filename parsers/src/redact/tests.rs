use custody_event::{Digest, Offset, Timestamp};
use serde_json::Value;

use super::*;
use crate::{
    Envelope, Given, Original, PackSet, PackSource, Parser, Said, Scratch, Select, Settings,
    Verdict,
};

const PACK: &str = "
pack: own
version: 1
decode: json
redact:
  - { fields: [details.badge], action: mask }
  - { name: room, regex: 'room-(?<secret>[0-9]+)', action: mask }
rules:
  - id: it
    event: { action: a.b, actor.name: $json.who, source.ip: $json.ip, targets.name: $json.what, changes: $json.changes }
";

fn key() -> PseudonymKey {
    PseudonymKey::new(b"a key of twenty byte").unwrap()
}

fn rule(what: RedactWhat, action: RedactAction) -> RedactRule {
    RedactRule { what, action }
}

fn field(name: &str, action: RedactAction) -> RedactRule {
    rule(RedactWhat::Field(name.into()), action)
}

fn parser(pack: &str, rules: &[RedactRule]) -> Parser {
    let redaction = Redaction::new(rules, Some(key())).unwrap();
    let set = PackSet::load(&[PackSource { name: "own.yaml".into(), text: pack.into() }]).unwrap();
    set.select(&Select::Auto, Settings { redaction, ..Settings::default() }).unwrap()
}

fn run(parser: &Parser, record: &[u8], given: Given<'_>) -> (Vec<Value>, String) {
    let mut scratch = Scratch::new();
    let envelope = Envelope::bare(Timestamp::from_micros(0));
    let mut out = Vec::new();
    let verdict =
        parser.run(&mut scratch, &envelope).parse_given(record, Offset(7), None, given, &mut out);
    assert!(!matches!(verdict, Verdict::Filtered { .. }));
    let text = String::from_utf8(out).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), text)
}

fn one(rules: &[RedactRule], record: &str) -> (Value, String) {
    let (mut events, text) = run(&parser(PACK, rules), record.as_bytes(), Given::default());
    (events.remove(0), text)
}

#[test]
fn the_hash_of_a_record_is_handed_out_only_where_its_event_has_it_as_it_was_given() {
    let parser = parser(PACK, &[]);
    let envelope = Envelope::bare(Timestamp::from_micros(0));
    let hash = |record: &[u8], given: Given<'_>| {
        let (mut scratch, mut out) = (Scratch::new(), Vec::new());
        let mut run = parser.run(&mut scratch, &envelope);
        run.parse_given(record, Offset(7), None, given, &mut out);
        run.hash()
    };
    let plain = br#"{"who":"eva"}"#;
    assert_eq!(hash(plain, Given::default()), Some(Digest::of(plain)));
    // A pattern, a rule for a field, a key, other bytes than the text's.
    assert_eq!(hash(br#"{"who":"https://eva:hunter2@h/"}"#, Given::default()), None);
    assert_eq!(hash(br#"{"in":"room-77"}"#, Given::default()), None);
    let key = b"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC";
    assert_eq!(hash(key, Given::default()), None);
    let original = Original { bytes: b"other", encoding: "latin1", exact: true };
    assert_eq!(hash(plain, Given { original: Some(original), ..Given::default() }), None);
    let long = vec![b'x'; custody_event::MAX_RAW_BYTES + 1];
    assert_eq!(hash(&long, Given::default()), None);
}

#[test]
fn no_text_of_the_event_shows_what_a_pattern_found_and_hash_and_id_are_of_what_is_kept() {
    let record = r#"{"who":"eva","note":"card 4111 1111 1111 1111, see https://eva:hunter2@h/","n":4111111111111111,"in":"room-77"}"#;
    let (event, text) = one(&[], record);
    for secret in ["4111 1111 1111", "41111111", "hunter2", "room-77"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let raw = event["origin"]["raw"].as_str().unwrap();
    assert_eq!(
        raw,
        r#"{"who":"eva","note":"card **** **** **** 1111, see https://eva:***@h/","n":"************1111","in":"room-***"}"#
    );
    assert_eq!(event["origin"]["raw_sha256"], Digest::of(raw.as_bytes()).to_string());
    assert_eq!(event["details"]["n"], "************1111");
    let tags: Vec<_> = event["tags"].as_array().unwrap().iter().collect();
    assert_eq!(tags, ["redacted:card_numbers", "redacted:url_passwords", "redacted:room"]);
    let again = one(&[], raw).0;
    assert_eq!(event["id"], again["id"], "nothing but the redacted record is in the id");
}

#[test]
fn a_field_is_redacted_wherever_the_event_shows_it() {
    let rules = [
        field("actor.name", RedactAction::Pseudonym),
        field("source.ip", RedactAction::Remove),
        field("details.mail.to", RedactAction::Mask),
    ];
    let record = r#"{"who":"M\u00fcller","ip":"192.0.2.77","mail":{"to":"Müller@x.org","cc":1},"note":"Müller came from 192.0.2.77","badge":123456}"#;
    let (event, text) = one(&rules, record);
    let name = key().name("Müller".as_bytes());
    assert_eq!(event["actor"]["name"], name);
    assert_eq!(event["source"]["ip"], Value::Null);
    assert_eq!(event["details"]["mail"]["to"], "***");
    assert_eq!(event["details"]["note"], format!("{name} came from "));
    assert_eq!(event["details"]["badge"], "***", "the pack says so");
    for secret in ["ller", "192.0.2", "123456", "x.org"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let raw: Value = serde_json::from_str(event["origin"]["raw"].as_str().unwrap()).unwrap();
    assert_eq!((&raw["who"], &raw["badge"]), (&Value::from(name), &Value::from("***")));
    assert_eq!(
        event["origin"]["raw_sha256"],
        Digest::of(event["origin"]["raw"].as_str().unwrap().as_bytes()).to_string()
    );
}

#[test]
fn a_raw_record_that_hides_the_value_in_a_form_of_its_own_is_left_out() {
    let pack = "pack: own\nversion: 1\ndecode: json\nmaps: { who: { ZXZhLW1hcmlh: eva-maria } }\nrules:\n  - id: it\n    event: { action: a.b, actor.name: $json.who }\n    map: { actor.name: who }\n";
    let parser = parser(pack, &[field("actor.name", RedactAction::Mask)]);
    let (events, text) = run(&parser, br#"{"who":"ZXZhLW1hcmlh"}"#, Given::default());
    assert_eq!(events[0]["actor"]["name"], "***");
    assert!(!text.contains("ZXZhLW1hcmlh") && !text.contains("\"raw\""), "{text}");
    let hash = events[0]["origin"]["raw_sha256"].as_str().unwrap();
    assert_ne!(hash, Digest::of(br#"{"who":"ZXZhLW1hcmlh"}"#).to_string(), "it could be tried out");
    assert_eq!(
        events[0]["tags"],
        serde_json::json!(["redacted:actor.name", "redacted:origin.raw"])
    );
}

#[test]
fn what_a_decoder_brings_to_light_is_searched_too() {
    let pack = "pack: own\nversion: 1\ndecode: auditd\nrules:\n  - id: it\n    event: { action: a.b, details.cmd: $auditd.proctitle }\n";
    let secret = "mysql\0--password=hunter2x";
    let hex: String = secret.bytes().map(|byte| format!("{byte:02X}")).collect();
    let record = format!("type=PROCTITLE msg=audit(1700000000.000:1): proctitle={hex}");
    let (events, text) = run(&parser(pack, &[]), record.as_bytes(), Given::default());
    assert_eq!(events[0]["details"]["cmd"], "mysql --password=***");
    let hidden: String = "hunter2x".bytes().map(|byte| format!("{byte:02X}")).collect();
    assert!(!text.contains(&hidden), "{text}");
    // In JSON within JSON, with every letter escaped.
    let (_, text) = one(&[], r#"{"note":"\u0070assword=\u0068unter2"}"#);
    assert!(!text.contains("unter2"), "{text}");
}

#[test]
fn values_under_the_names_of_secrets_go_whatever_the_records_form_is() {
    let pack = "pack: own\nversion: 1\ndecode: xml\nrules:\n  - id: it\n    event: { action: a.b, actor.name: $xml.user }\n";
    let record = "<e><user>eva</user><password>hunter2</password></e>";
    let (events, text) = run(&parser(pack, &[]), record.as_bytes(), Given::default());
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(events[0]["tags"], serde_json::json!(["redacted:secret_values"]));
    let (event, text) =
        one(&[], r#"{"changes":[{"field":"api_key","before":"abc1","after":"def2"}]}"#);
    assert!(!text.contains("abc1") && !text.contains("def2"), "{text}");
    assert_eq!(event["changes"][0]["masked"], true);
}

#[test]
fn what_the_source_took_off_the_record_is_redacted_as_the_record_is() {
    let pack = "pack: own\nversion: 1\ndecode: none\nrules:\n  - id: it\n    match: '^login (?<user>\\S+)'\n    event: { action: a.b, actor.name: $user }\n";
    let parser = parser(pack, &[field("actor.name", RedactAction::Pseudonym)]);
    let said = Said { message: "login eva-m password=hunter2", ..Said::default() };
    let record = b"MESSAGE=login eva-m password=hunter2\n_PID=1\n";
    let (events, text) = run(&parser, record, Given { said: Some(said), ..Given::default() });
    assert!(!text.contains("hunter2") && !text.contains("eva-m"), "{text}");
    assert_eq!(events[0]["actor"]["name"], key().name(b"eva-m"));
}

#[test]
fn records_that_are_no_text_or_that_no_rule_knows_are_redacted_too() {
    let parser = parser(PACK, &[]);
    let record = b"\xff\xfe password=hunter2 4111111111111111 \xff";
    let (events, _) = run(&parser, record, Given::default());
    let raw = events[0]["origin"]["raw_base64"].as_str().unwrap();
    let mut expected = Vec::new();
    custody_event::json::push_base64(b"\xff\xfe password=*** ************1111 \xff", &mut expected);
    assert_eq!(raw.as_bytes(), expected);
    assert!(!events[0]["message"].as_str().unwrap().contains("hunter2"));
}

#[test]
fn an_element_is_redacted_in_the_whole_record_that_the_first_event_keeps() {
    let pack = "pack: own\nversion: 1\ndecode: json\nfan_out: $json.list\nrules:\n  - id: it\n    event: { action: a.b, actor.name: $json.who }\n";
    let parser = parser(pack, &[field("actor.name", RedactAction::Pseudonym)]);
    let record = r#"{"list":[{"who":"eva-maria"},{"who":"otto-hugo"},{"who":"eva-maria"}]}"#;
    let (events, text) = run(&parser, record.as_bytes(), Given::default());
    assert_eq!(events.len(), 3);
    assert!(!text.contains("eva-maria") && !text.contains("otto-hugo"), "{text}");
    assert_eq!(events[0]["actor"]["name"], events[2]["actor"]["name"]);
    let whole = Digest::of(events[0]["origin"]["raw"].as_str().unwrap().as_bytes()).to_string();
    for event in &events {
        assert_eq!(
            event["origin"]["raw_sha256"], whole,
            "one hash for all, as the collector expects"
        );
    }
    assert!(events[0]["origin"]["raw"].as_str().unwrap().starts_with(r#"{"list":[{"who":"p_"#));
}

#[test]
fn a_key_whose_lines_are_records_of_their_own_is_redacted_line_by_line() {
    let parser = parser(PACK, &[]);
    let mut scratch = Scratch::new();
    let envelope = Envelope::bare(Timestamp::from_micros(0));
    let mut run = parser.run(&mut scratch, &envelope);
    let text = "started\nMIIEword\n-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEvQIBADANBgkq\nhkiG9w0BAQ==\n-----END RSA PRIVATE KEY-----\nMIIEafter\n-----BEGIN CERTIFICATE-----\nMIICcert\n";
    let mut raw = Vec::new();
    for (at, line) in (0..).zip(text.lines()) {
        let mut out = Vec::new();
        run.parse(line.as_bytes(), Offset(at), None, &mut out);
        let event: Value = serde_json::from_slice(&out).unwrap();
        raw.push(event["origin"]["raw"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(
        raw,
        [
            "started",
            "MIIEword",
            "-----BEGIN RSA PRIVATE KEY-----",
            "***",
            "",
            "***",
            "***",
            "-----END RSA PRIVATE KEY-----",
            "MIIEafter",
            "-----BEGIN CERTIFICATE-----",
            "MIICcert"
        ]
    );
}

#[test]
fn two_states_of_a_thing_become_the_changes_between_them() {
    let pack = "pack: own\nversion: 1\ndecode: json\nrules:\n  - id: it\n    event: { action: a.b, changes.before: $json.old, changes.after: $json.new }\n";
    let record = r#"{"old":{"name":"a","address":{"city":"Ulm","zip":1},"pin":"1","api_key":"k1"},"new":{"name":"a","address":{"city":"Bonn","zip":1},"tel":"2","api_key":"k2"}}"#;
    let (events, text) = run(&parser(pack, &[]), record.as_bytes(), Given::default());
    let changes = serde_json::json!([
        { "field": "address.city", "before": "Ulm", "after": "Bonn" },
        { "field": "pin", "before": "1" },
        { "field": "api_key", "before": "***", "after": "***", "masked": true },
        { "field": "tel", "after": "2" },
    ]);
    let mut found = events[0]["changes"].as_array().unwrap().clone();
    // A mask on both sides is no change of text any more; the record itself says that there was one.
    found.retain(|change| change["field"] != "api_key");
    let mut wanted = changes.as_array().unwrap().clone();
    wanted.retain(|change| change["field"] != "api_key");
    assert_eq!(found, wanted, "{text}");
    assert!(!text.contains("k1") && !text.contains("k2"), "{text}");
}

#[test]
fn what_is_switched_off_stays_and_what_is_wrong_is_refused() {
    let keep = rule(RedactWhat::Pattern(SecretPattern::CardNumbers), RedactAction::Keep);
    let (_, text) = one(&[keep], r#"{"n":"4111111111111111","u":"a://b:cd@e"}"#);
    assert!(text.contains("4111111111111111") && !text.contains("b:cd"));
    assert_eq!(Redaction::off().clean_text("password=hunter2"), "password=hunter2");
    assert_eq!(Redaction::default().clean_text("password=hunter2"), "password=***");
    let own = |name: &str, regex: &str| {
        let what = RedactWhat::Own { name: name.into(), regex: regex.into() };
        Redaction::new(&[rule(what, RedactAction::Mask)], None)
    };
    assert!(matches!(own("x", "("), Err(RedactError::Regex { .. })));
    assert!(matches!(own("x", "a*"), Err(RedactError::Empty(_))));
    assert!(matches!(own("X y", "a"), Err(RedactError::Name(_))));
    let bad = |name: &str, action| Redaction::new(&[field(name, action)], Some(key()));
    assert!(matches!(bad("action", RedactAction::Mask), Err(RedactError::Field(_))));
    assert!(matches!(bad("source.port", RedactAction::Mask), Err(RedactError::NoText(_))));
    assert!(bad("source.port", RedactAction::Remove).is_ok());
    let none = Redaction::new(&[field("actor.name", RedactAction::Pseudonym)], None);
    assert!(matches!(none, Err(RedactError::NoKey)));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    const PIECES: &[&[u8]] = &[
        b"password=\"",
        b"://a:b@",
        b"-----BEGIN PRIVATE KEY-----",
        b"-----END PRIVATE KEY-----",
        b"eyJ",
        b"Bearer ",
        b"\\\"",
        b"4111-1111-1111-1111",
        b"authorization: ",
        b" ",
        b"\xff",
        b"abcdefghijklmnop1234",
        b".",
        b"\"",
        b":",
        b"\n",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_redacted_without_panic_once_for_all(
            pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)
        ) {
            let text = pieces.concat();
            let redaction = Redaction::default();
            let (mut buffer, mut names) = (Vec::new(), Names::new());
            let clean = redaction.clean(&text, &mut buffer, &mut names).to_vec();
            prop_assert_eq!(names.is_empty(), clean == text || names.is_empty());
            for hit in redaction.find(&text) {
                prop_assert!(hit.from < hit.to && hit.to <= text.len());
            }
        }
    }

    #[test]
    fn a_record_that_is_made_to_be_slow_is_not() {
        // A megabyte of each beginning: a reading to the end for each would take minutes.
        for piece in [
            "password=\"",
            "password=",
            "://",
            "://a:",
            "-----BEGIN PRIVATE KEY-----",
            "-----END PRIVATE KEY-----",
            "PRIVATE KEY-----",
            "eyJ",
            "eyJaaaaaaaaaaaa.",
            "Bearer ",
            "Bearer a",
            "authorization:",
            "4111 ",
            "4111-1111-",
            "ghp_",
            "\\\"password\\\":\\\"",
            "token",
            "--password ",
        ] {
            let text = piece.repeat((1 << 20) / piece.len());
            let redaction = Redaction::default();
            let begun = std::time::Instant::now();
            let _hits = redaction.find(text.as_bytes());
            assert!(begun.elapsed().as_secs() < 20, "{piece}: {:?}", begun.elapsed());
        }
    }
}
