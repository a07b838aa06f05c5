//! `packs: auto` on what nobody sorted: a file of many products, sentences that no pack knows.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use custody_event::{Offset, Timestamp};
use custody_parsers::{Envelope, PackSet, PackSource, Parser, Scratch, Select, Settings};
use serde_json::Value;

fn parser() -> Parser {
    PackSet::with_builtin(&[]).unwrap().select(&Select::Auto, Settings::default()).unwrap()
}

fn event(parser: &Parser, scratch: &mut Scratch, path: &str, record: &str) -> Value {
    let observed = Timestamp::parse("2024-03-01T12:00:00.000000Z").unwrap();
    let envelope = Envelope { path: Some(path), ..Envelope::bare(observed) };
    let mut out = Vec::new();
    parser.parse(scratch, &envelope, record.as_bytes(), Offset(0), None, &mut out);
    serde_json::from_slice(&out).unwrap()
}

/// Pack and a line of its product.
const MIXED: &[(&str, &str)] = &[
    (
        "sshd",
        "Feb 29 10:11:12 web1 sshd[811]: Failed password for root from 203.0.113.9 port 40024 ssh2",
    ),
    (
        "nginx-access",
        r#"203.0.113.9 - eva [29/Feb/2024:10:11:12 +0000] "GET /a HTTP/1.1" 200 12 "-" "curl/8.5.0""#,
    ),
    (
        "sudo",
        "Feb 29 10:11:12 web1 sudo:      eva : TTY=pts/0 ; PWD=/home/eva ; USER=root ; COMMAND=/usr/bin/id",
    ),
    (
        "auditd",
        r#"type=USER_LOGIN msg=audit(1709201472.123:45): pid=9 uid=0 auid=1000 ses=3 msg='op=login id=1000 exe="/usr/sbin/sshd" hostname=? addr=203.0.113.9 terminal=ssh res=success'"#,
    ),
    (
        "postgresql",
        r#"2024-02-29 10:11:12.123 UTC [4121] eva@shop FATAL:  password authentication failed for user "eva""#,
    ),
    (
        "mysql",
        "2024-02-29T10:11:12.123456Z 12 [Note] [MY-010926] [Server] Access denied for user 'eva'@'203.0.113.9' (using password: YES)",
    ),
    (
        "aws-cloudtrail",
        r#"{"eventVersion":"1.08","userIdentity":{"type":"IAMUser","principalId":"A1","arn":"arn:aws:iam::1:user/eva","accountId":"1","userName":"eva"},"eventTime":"2024-02-29T10:11:12Z","eventSource":"iam.amazonaws.com","eventName":"CreateUser","awsRegion":"eu-west-1","sourceIPAddress":"203.0.113.9","userAgent":"aws-cli/2","requestID":"r","eventID":"e","eventType":"AwsApiCall","recipientAccountId":"1"}"#,
    ),
    (
        "kubernetes-audit",
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/x/pods","verb":"create","user":{"username":"eva"},"sourceIPs":["203.0.113.9"],"objectRef":{"resource":"pods","namespace":"x","name":"p"},"responseStatus":{"code":201},"requestReceivedTimestamp":"2024-02-29T10:11:12.000000Z"}"#,
    ),
    (
        "gitea",
        "2024/02/29 10:11:12 ...ers/web/auth/auth.go:200:SignInPost() [I] Failed authentication attempt for eva from 203.0.113.9:39522: user does not exist [uid: 0, name: eva, keyid: 0]",
    ),
    (
        "generic-json",
        r#"{"time":"2024-02-29T10:11:12Z","action":"contact.update","username":"eva","client_ip":"203.0.113.9"}"#,
    ),
    (
        "generic-logfmt",
        "ts=2024-02-29T10:11:12Z event=user.login user=eva ip=203.0.113.9 result=failure",
    ),
    ("generic-text", "2024-02-29 10:11:12 [WARN] login failed for user eva from 203.0.113.9"),
    (
        "generic-cef",
        "CEF:0|Maker|Thing|1.0|100|login|5|suser=eva src=203.0.113.9 outcome=failure rt=1709201472000",
    ),
];

#[test]
fn each_line_of_a_mixed_file_is_read_by_its_own_products_pack() {
    let parser = parser();
    // In turn, and backwards: what a line becomes does not depend on the one before.
    for path in ["/var/log/all.log", "/tmp/mixed.txt"] {
        let mut scratch = Scratch::new();
        for (pack, line) in MIXED.iter().chain(MIXED.iter().rev()) {
            let event = event(&parser, &mut scratch, path, line);
            assert_eq!(event["origin"]["pack"], *pack, "{line}\n{event}");
            assert!(event["time"].as_str().unwrap().starts_with("2024-02-29T10:11:12"), "{event}");
        }
    }
}

#[test]
fn what_no_rule_knows_still_says_who_from_where_as_far_as_the_line_names_them() {
    let (parser, mut scratch) = (parser(), Scratch::new());
    for (line, user, ip) in [
        (
            "2024-02-29 10:11:12 ACCEPT host=::ffff:203.0.113.9 port=39590 fd=4",
            Value::Null,
            "203.0.113.9",
        ),
        (
            "2024-02-29 10:11:12 [203.0.113.9:28696] [channel 3] user \"eva\" ran: ls",
            "eva".into(),
            "203.0.113.9",
        ),
        (
            "2024-02-29 10:11:12 order 12 moved by user=eva client: 2001:DB8::0009",
            "eva".into(),
            "2001:db8::9",
        ),
    ] {
        let event = event(&parser, &mut scratch, "/var/log/x.log", line);
        assert_eq!(event["action"], "record.unmatched", "{event}");
        assert_eq!(
            (&event["actor"]["name"], &event["source"]["ip"]),
            (&user, &ip.into()),
            "{event}"
        );
    }
}

#[test]
fn a_message_in_json_is_read_as_the_sentence_that_it_is() {
    let (parser, mut scratch) = (parser(), Scratch::new());
    let line = r#"{"timestamp":"2024-02-29 10:11:12.784","source":"auth.js:8","message":"[Auth] Failed login attempt for username \"eva\" from ip 203.0.113.9 (no such user)","levelName":"ERROR"}"#;
    let event = event(&parser, &mut scratch, "/var/log/x.log", line);
    assert_eq!(event["action"], "authentication.login", "{event}");
    assert_eq!((&event["outcome"], &event["actor"]["name"]), (&"failure".into(), &"eva".into()));
    assert_eq!(event["source"]["ip"], "203.0.113.9");
}

#[test]
fn json_is_no_text_of_another_program_but_an_operators_own_pack_may_read_it_as_text() {
    const OWN: &str = r#"
pack: own
version: 1
about: reads lines as texts, whatever they are
decode: none
rules:
  - id: door
    match: '"door":"(?<door>\w+)"'
    event: { action: door.open, targets.id: $door }
"#;
    let line = r#"{"door":"north","action":"shift.begin","user":"eva"}"#;
    let own = PackSource { name: "own.yaml".to_owned(), text: OWN.to_owned() };
    let auto = |sources: &[PackSource]| {
        let set = PackSet::with_builtin(sources).unwrap();
        set.select(&Select::Auto, Settings::default()).unwrap()
    };
    let read = |parser: &Parser| event(parser, &mut Scratch::new(), "/var/log/x.log", line);
    assert_eq!(read(&auto(&[]))["origin"]["pack"], "generic-json");
    assert_eq!(read(&auto(&[own]))["origin"]["pack"], "own");
}
