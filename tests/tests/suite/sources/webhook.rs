//! Webhooks as their vendors send them: signed by openssl, not by code of ours.

use std::net::SocketAddr;
use std::process::Command;

use custody_event::Clock;
use custody_tests::http::send;
use custody_tests::{World, ports, query, until};

use super::{each, end, fed, is_there, pair, write_secret};

/// Secrets by endpoint.
const SECRETS: &[(&str, &str, &str)] = &[
    ("github", "github", "it is a secret to everybody"),
    ("gitlab", "gitlab", "glpat-token-of-the-hook"),
    ("slack", "slack", "8f742231b10e8888abcd99yyyzzz85a5"),
    ("stripe", "stripe", "whsec_test_secret_of_stripe"),
    ("shopify", "shopify", "hush"),
    ("pagerduty", "pagerduty", "pd-signing-secret"),
    ("standard", "standard_webhooks", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("okta", "okta", "okta-hook-value"),
    ("shop", "hmac", "own-key"),
    ("cron", "bearer", "cron-token"),
];

/// HMAC-SHA256 by openssl; the key in hex.
fn hmac(key_hex: &str, message: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args([
        "dgst",
        "-sha256",
        "-mac",
        "HMAC",
        "-macopt",
        &format!("hexkey:{key_hex}"),
        "-binary",
    ]);
    let said = fed(&mut command, message);
    assert_eq!(said.stdout.len(), 32, "{}", String::from_utf8_lossy(&said.stderr));
    said.stdout
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let said = fed(Command::new("openssl").args(arguments), input);
    assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    said.stdout
}

fn base64(bytes: &[u8]) -> String {
    String::from_utf8(openssl(&["base64", "-A"], bytes)).unwrap()
}

fn from_base64(text: &str) -> Vec<u8> {
    openssl(&["base64", "-d", "-A"], text.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

type Headers = Vec<(String, String)>;

fn headers(pairs: &[(&str, String)]) -> Headers {
    let own = |(name, value): &(&str, String)| ((*name).to_owned(), value.clone());
    let mut all: Headers = pairs.iter().map(own).collect();
    all.push(("content-type".to_owned(), "application/json".to_owned()));
    all
}

/// What each vendor sends with this body, signed with its secret.
fn signed(endpoint: &str, secret: &str, body: &str, id: &str) -> Headers {
    let key = hex(secret.as_bytes());
    let now = (custody_event::SystemClock::new().now().micros() / 1_000_000).to_string();
    let of_body = || hmac(&key, body.as_bytes());
    match endpoint {
        "github" => headers(&[
            ("X-GitHub-Event", "member".to_owned()),
            ("X-GitHub-Delivery", id.to_owned()),
            ("X-Hub-Signature-256", format!("sha256={}", hex(&of_body()))),
        ]),
        "gitlab" => headers(&[
            ("X-Gitlab-Token", secret.to_owned()),
            ("X-Gitlab-Event", "Push Hook".to_owned()),
            ("Idempotency-Key", id.to_owned()),
        ]),
        "slack" => headers(&[
            ("X-Slack-Request-Timestamp", now.clone()),
            (
                "X-Slack-Signature",
                format!("v0={}", hex(&hmac(&key, format!("v0:{now}:{body}").as_bytes()))),
            ),
        ]),
        "stripe" => {
            let tag = hex(&hmac(&key, format!("{now}.{body}").as_bytes()));
            headers(&[("Stripe-Signature", format!("t={now},v1={tag},v0=00"))])
        }
        "shopify" => headers(&[
            ("X-Shopify-Hmac-Sha256", base64(&of_body())),
            ("X-Shopify-Webhook-Id", id.to_owned()),
            ("X-Shopify-Topic", "orders/create".to_owned()),
        ]),
        "pagerduty" => {
            headers(&[("X-PagerDuty-Signature", format!("v1={},v1=00", hex(&of_body())))])
        }
        "standard" => {
            let key = hex(&from_base64(secret.trim_start_matches("whsec_")));
            let tag = base64(&hmac(&key, format!("{id}.{now}.{body}").as_bytes()));
            headers(&[
                ("webhook-id", id.to_owned()),
                ("webhook-timestamp", now),
                ("webhook-signature", format!("v1,{tag}")),
            ])
        }
        "okta" => headers(&[("Authorization", secret.to_owned())]),
        "shop" => headers(&[
            ("X-Shop-Signature", format!("sha256={}", hex(&of_body()))),
            ("X-Shop-Delivery", id.to_owned()),
        ]),
        _ => {
            headers(&[("Authorization", format!("Bearer {secret}")), ("X-Delivery", id.to_owned())])
        }
    }
}

/// A body whose vendor reads its delivery id from where it says.
fn body(endpoint: &str, number: usize) -> String {
    match endpoint {
        "github" => format!(
            "{{\"action\":\"added\",\"member\":{{\"login\":\"mallory{number}\"}},\"repository\":{{\"full_name\":\"octo/hello\"}},\"sender\":{{\"login\":\"octocat\"}}}}"
        ),
        "slack" => format!(
            "{{\"type\":\"event_callback\",\"event_id\":\"Ev{number}\",\"event\":{{\"type\":\"team_join\"}}}}"
        ),
        "stripe" => {
            format!("{{\"id\":\"evt_{number}\",\"object\":\"event\",\"type\":\"payout.created\"}}")
        }
        "pagerduty" => format!(
            "{{\"event\":{{\"id\":\"01PD{number}\",\"event_type\":\"incident.triggered\"}}}}"
        ),
        "okta" => format!(
            "{{\"eventId\":\"okta-{number}\",\"data\":{{\"events\":[{{\"eventType\":\"user.session.start\",\"uuid\":\"a{number}\"}},{{\"eventType\":\"user.session.end\",\"uuid\":\"b{number}\"}}]}}}}"
        ),
        _ => format!("{{\"kind\":\"{endpoint}\",\"number\":{number}}}"),
    }
}

/// Another body under the same signature; where a token alone is sent, another token.
fn forged(endpoint: &str, headers: &Headers, body: &str) -> (Headers, String) {
    let token = match endpoint {
        "gitlab" => "X-Gitlab-Token",
        "okta" | "cron" => "Authorization",
        _ => return (headers.clone(), format!("{body} ")),
    };
    let changed = |(name, value): &(String, String)| {
        let end = if name == token { "x" } else { "" };
        (name.clone(), format!("{value}{end}"))
    };
    (headers.iter().map(changed).collect(), body.to_owned())
}

/// Posts until somebody listens; the answer's status.
fn post(to: SocketAddr, path: &str, headers: &Headers, body: &str, world: &World) -> u16 {
    let answer = until("an answer", world.patience(), || {
        send("POST", to, path, headers, body.as_bytes()).ok()
    });
    answer.status
}

fn sources(world: &World) -> String {
    let mut text = String::new();
    for (id, scheme, secret) in SECRETS {
        let file = world.path(&format!("{id}.secret"));
        write_secret(&file, secret);
        let more = match *id {
            "shop" => ", header: X-Shop-Signature, prefix: 'sha256=', id_header: X-Shop-Delivery",
            "cron" => ", id_header: X-Delivery",
            _ => "",
        };
        let split = if *id == "okta" { "split: data.events, " } else { "" };
        text.push_str(&format!(
            "  - {{ id: {id}, type: webhook, path: /{id}, {split}verify: {{ scheme: {scheme}, secret_files: [{}]{more} }} }}\n",
            file.display()
        ));
    }
    text
}

#[test]
fn what_vendors_sign_is_found_once_and_what_is_forged_is_an_event_of_its_own() {
    if !is_there("openssl") {
        return;
    }
    let world = World::new("sources_webhook");
    let to = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let (collector, mut agent) =
        pair(&world, sources(&world), &format!("webhook: {{ listen: '{to}' }}\n"));
    agent.start();
    let mut sent = Vec::new();
    for (number, (id, _, secret)) in SECRETS.iter().enumerate() {
        let body = body(id, number);
        let headers = signed(id, secret, &body, &format!("delivery-{number}"));
        assert_eq!(post(to, &format!("/{id}"), &headers, &body, &world), 200, "{id}");
        sent.push((*id, headers, body));
    }
    // What was answered with 200 outlives a kill, and is known when it comes again.
    agent.kill();
    agent.start();
    for (id, headers, body) in &sent {
        assert_eq!(post(to, &format!("/{id}"), headers, body, &world), 200, "{id} again");
        let (headers, body) = forged(id, headers, body);
        assert_eq!(post(to, &format!("/{id}"), &headers, &body, &world), 401, "{id} forged");
    }
    for (id, _, _) in &sent {
        // Okta's request is a list of two.
        let count = 1 + usize::from(*id == "okta");
        let found = query::wait_for(&collector, &format!("input:{id}"), count, world.patience());
        assert_eq!(found.len(), count, "{id}: {found:#?}");
        let verdict = found[0]["origin"]["verdict"].as_str().unwrap();
        assert!(verdict.starts_with("verified:"), "{id}: {verdict}");
        assert_eq!(found[0]["origin"]["endpoint"], format!("/{id}"));
    }
    let github = query::all(&collector, "input:github mallory0");
    assert_eq!(github.len(), 1, "found by a word of the body");
    assert_ne!(github[0]["category"], "unknown", "the pack knows it: {:#}", github[0]);
    let refused =
        query::wait_for(&collector, "action:source.refuse", SECRETS.len(), world.patience());
    assert_eq!(refused.len(), SECRETS.len());
    let mut codes = each(&refused, "/reason/code");
    codes.dedup();
    assert_eq!(codes, ["bad_signature"]);
    end(collector, agent);
}
