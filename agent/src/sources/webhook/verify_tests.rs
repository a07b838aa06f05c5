//! Published vectors where the vendor has some, and for each scheme what must be refused.

use super::*;
use custody_config::Period;

const NOW: i64 = 1_700_000_000;

fn config(scheme: Scheme) -> VerifyConfig {
    VerifyConfig { scheme, tolerance: Period::seconds(300), ..VerifyConfig::default() }
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            let name: http::HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        })
        .collect()
}

fn judge(verifier: &Verifier, pairs: &[(&str, &str)], body: &str) -> Judged {
    ask(verifier, pairs, None, body, NOW)
}

fn ask(
    verifier: &Verifier,
    pairs: &[(&str, &str)],
    query: Option<&str>,
    body: &str,
    now_s: i64,
) -> Judged {
    let headers = headers(pairs);
    let is_get = body.is_empty();
    verifier.judge(&Asked { headers: &headers, query, body: body.as_bytes(), is_get, now_s })
}

fn code(judged: &Judged) -> &'static str {
    match judged {
        Judged::Accepted { .. } => "accepted",
        Judged::Challenge { .. } => "challenge",
        Judged::Refused(refusal) => refusal.code,
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    custody_event::ids::push_hex(bytes, &mut out);
    String::from_utf8(out).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    custody_event::json::push_base64(bytes, &mut out);
    String::from_utf8(out).unwrap()
}

fn sign(secret: &[u8], message: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
}

fn delivery_of(judged: &Judged) -> Option<&str> {
    match judged {
        Judged::Accepted { delivery, .. } => delivery.as_deref(),
        _ => panic!("{judged:?}"),
    }
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    vendor: String,
    secret: Option<String>,
    headers: Option<std::collections::BTreeMap<String, String>>,
    body: Option<String>,
    now_epoch: Option<i64>,
    valid: Option<bool>,
}

fn vectors() -> Option<Vec<Vector>> {
    let root = match std::env::var_os("CUSTODY_CORPUS") {
        Some(root) => std::path::PathBuf::from(root),
        None => std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|above| above.join("shared/corpus"))
            .find(|corpus| corpus.is_dir())?,
    };
    let text = std::fs::read(root.join("webhooks/vectors.json")).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

#[test]
fn the_vendors_published_vectors_are_judged_as_they_say() {
    let Some(vectors) = vectors() else {
        eprintln!("skipped: corpus absent");
        return;
    };
    let mut judged = 0;
    for vector in vectors {
        let (Some(valid), Some(secret)) = (vector.valid, vector.secret) else { continue };
        let scheme = match vector.vendor.as_str() {
            "github" => Scheme::Github,
            "slack" => Scheme::Slack,
            "standard-webhooks" => Scheme::StandardWebhooks,
            "stripe" => Scheme::Stripe,
            other => panic!("{other} is new"),
        };
        let verifier = Verifier::new(&config(scheme), &[&secret]).unwrap();
        let pairs = vector.headers.unwrap_or_default();
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let now_s = vector.now_epoch.unwrap_or(1_531_420_618);
        let found = ask(&verifier, &pairs, None, &vector.body.unwrap_or_default(), now_s);
        assert_eq!(code(&found) == "accepted", valid, "{}: {found:?}", vector.id);
        judged += 1;
    }
    assert!(judged >= 15, "{judged}");
}

#[test]
fn github_wants_its_newest_signature_and_any_of_the_secrets() {
    let verifier = Verifier::new(&config(Scheme::Github), &["old", "new"]).unwrap();
    let body = "{\"action\":\"created\"}";
    for secret in ["old", "new"] {
        let tag = format!("sha256={}", hex(&sign(secret.as_bytes(), body)));
        let pairs = [
            ("X-Hub-Signature-256", tag.as_str()),
            ("X-GitHub-Delivery", "d1"),
            ("X-GitHub-Event", "repo"),
        ];
        let expected = Judged::Accepted { delivery: Some("d1".into()), event: Some("repo".into()) };
        assert_eq!(judge(&verifier, &pairs, body), expected);
        assert_eq!(code(&judge(&verifier, &pairs, "{}")), "bad_signature");
        let twice = [("X-Hub-Signature-256", tag.as_str()), ("X-Hub-Signature-256", "sha256=00")];
        assert_eq!(code(&judge(&verifier, &twice, body)), "no_signature");
    }
    assert_eq!(code(&judge(&verifier, &[("X-Hub-Signature", "sha1=00")], body)), "no_signature");
}

#[test]
fn slack_refuses_what_is_old_and_answers_its_handshake_only_when_it_is_signed() {
    let verifier = Verifier::new(&config(Scheme::Slack), &["s"]).unwrap();
    let signed =
        |at: i64, body: &str| format!("v0={}", hex(&sign(b"s", &format!("v0:{at}:{body}"))));
    let try_at = |at: i64, body: &str| {
        let (tag, at) = (signed(at, body), at.to_string());
        judge(&verifier, &[("x-slack-signature", &tag), ("x-slack-request-timestamp", &at)], body)
    };
    let body = "{\"type\":\"event_callback\",\"event_id\":\"Ev1\"}";
    assert_eq!(delivery_of(&try_at(NOW - 300, body)), Some("Ev1"));
    assert_eq!(code(&try_at(NOW - 301, body)), "outside_window");
    assert_eq!(code(&try_at(NOW + 301, body)), "outside_window");
    assert!(delivery_of(&try_at(NOW, "command=%2Fx")).unwrap().starts_with("signature v0="));
    let hello = "{\"type\":\"url_verification\",\"challenge\":\"c123\"}";
    let answer = Judged::Challenge { content_type: "text/plain", body: "c123".into() };
    assert_eq!(try_at(NOW, hello), answer);
    assert_eq!(code(&judge(&verifier, &[], hello)), "no_signature");
}

#[test]
fn stripe_takes_any_of_its_signatures_and_only_of_the_scheme_v1() {
    let verifier = Verifier::new(&config(Scheme::Stripe), &["whsec_x"]).unwrap();
    let body = "{\"id\":\"evt_1\",\"object\":\"event\"}";
    let tag = hex(&sign(b"whsec_x", &format!("{NOW}.{body}")));
    let header = |text: String| judge(&verifier, &[("Stripe-Signature", &text)], body);
    let wrong = "0".repeat(64);
    assert_eq!(delivery_of(&header(format!("t={NOW},v1={wrong},v1={tag}"))), Some("evt_1"));
    assert_eq!(code(&header(format!("t={NOW},v0={tag}"))), "bad_signature");
    assert_eq!(code(&header(format!("t={},v1={tag}", NOW - 1))), "bad_signature");
    assert_eq!(code(&header(format!("v1={tag}"))), "bad_signature");
    let old = hex(&sign(b"whsec_x", &format!("{}.{body}", NOW - 1000)));
    assert_eq!(code(&header(format!("t={},v1={old}", NOW - 1000))), "outside_window");
}

#[test]
fn shopify_pagerduty_and_the_general_scheme_sign_the_body() {
    let body = "{\"event\":{\"id\":\"E1\"}}";
    let tag = sign(b"k", body);
    let verifier = Verifier::new(&config(Scheme::Shopify), &["k"]).unwrap();
    let pairs = [
        ("x-shopify-hmac-sha256", &*base64(&tag)),
        ("x-shopify-webhook-id", "w"),
        ("x-shopify-topic", "orders/create"),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(
        judge(&verifier, &pairs, body),
        Judged::Accepted { delivery: Some("w".into()), event: Some("orders/create".into()) }
    );
    let verifier = Verifier::new(&config(Scheme::Pagerduty), &["k"]).unwrap();
    let both = format!("v1={},v1={}", "0".repeat(64), hex(&tag));
    assert_eq!(
        delivery_of(&judge(&verifier, &[("x-pagerduty-signature", &both)], body)),
        Some("E1")
    );
    let general = VerifyConfig {
        header: "x-sig".into(),
        prefix: "s=".into(),
        id_header: "x-id".into(),
        encoding: Encoding::Base64,
        ..config(Scheme::Hmac)
    };
    let verifier = Verifier::new(&general, &["k"]).unwrap();
    let good = format!("s={}", base64(&tag));
    assert_eq!(delivery_of(&judge(&verifier, &[("x-sig", &good), ("x-id", "7")], body)), Some("7"));
    assert_eq!(delivery_of(&judge(&verifier, &[("x-sig", &good)], body)), None);
    assert_eq!(code(&judge(&verifier, &[("x-sig", &base64(&tag))], body)), "bad_signature");
    assert_eq!(code(&judge(&verifier, &[("x-sig", &good)], "{}")), "bad_signature");
}

#[test]
fn tokens_are_compared_whole() {
    let verifier = Verifier::new(&config(Scheme::Bearer), &["t1", "t2"]).unwrap();
    for (written, expected) in [
        ("Bearer t2", "accepted"),
        ("bearer t1", "accepted"),
        ("Bearer t", "bad_signature"),
        ("Bearer t22", "bad_signature"),
        ("t1", "bad_signature"),
        ("Basic t1", "bad_signature"),
    ] {
        assert_eq!(code(&judge(&verifier, &[("Authorization", written)], "{}")), expected);
    }
    assert_eq!(code(&judge(&verifier, &[], "{}")), "no_signature");
    let own = VerifyConfig { header: "x-api-key".into(), ..config(Scheme::Bearer) };
    let verifier = Verifier::new(&own, &["t1"]).unwrap();
    assert_eq!(code(&judge(&verifier, &[("x-api-key", "t1")], "{}")), "accepted");
    let verifier = Verifier::new(&config(Scheme::Basic), &["eva:pass word"]).unwrap();
    let good = format!("Basic {}", base64(b"eva:pass word"));
    assert_eq!(code(&judge(&verifier, &[("authorization", &good)], "{}")), "accepted");
    let wrong = format!("Basic {}", base64(b"eva:pass"));
    assert_eq!(code(&judge(&verifier, &[("authorization", &wrong)], "{}")), "bad_signature");
}

#[test]
fn gitlab_shows_its_token_or_signs() {
    let verifier = Verifier::new(&config(Scheme::Gitlab), &["plain", "whsec_c2VjcmV0"]).unwrap();
    let pairs =
        [("X-Gitlab-Token", "plain"), ("X-Gitlab-Event", "Push Hook"), ("Idempotency-Key", "i")];
    assert_eq!(
        judge(&verifier, &pairs, "{}"),
        Judged::Accepted { delivery: Some("i".into()), event: Some("Push Hook".into()) }
    );
    assert_eq!(code(&judge(&verifier, &[("X-Gitlab-Token", "plai")], "{}")), "bad_signature");
    let tag = format!("v1,{}", base64(&sign(b"secret", &format!("m1.{NOW}.{{}}"))));
    let at = NOW.to_string();
    let mut pairs = vec![
        ("webhook-id", "m1"),
        ("webhook-timestamp", at.as_str()),
        ("webhook-signature", tag.as_str()),
    ];
    assert_eq!(delivery_of(&judge(&verifier, &pairs, "{}")), Some("m1"));
    pairs[0].1 = "m2";
    assert_eq!(code(&judge(&verifier, &pairs, "{}")), "bad_signature");
}

#[test]
fn standard_webhooks_take_public_keys_too() {
    use ring::signature::KeyPair;
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
    let public = format!("whpk_{}", base64(pair.public_key().as_ref()));
    let verifier = Verifier::new(&config(Scheme::StandardWebhooks), &[&public]).unwrap();
    let signature = pair.sign(format!("m.{NOW}.{{}}").as_bytes());
    let written = format!("v1,AAAA v1a,{}", base64(signature.as_ref()));
    let at = NOW.to_string();
    let pairs = [
        ("webhook-id", "m"),
        ("webhook-timestamp", at.as_str()),
        ("webhook-signature", written.as_str()),
    ];
    assert_eq!(delivery_of(&judge(&verifier, &pairs, "{}")), Some("m"));
    assert_eq!(code(&judge(&verifier, &pairs, "[]")), "bad_signature");
}

#[test]
fn okta_and_microsoft_graph_shake_hands() {
    let verifier = Verifier::new(&config(Scheme::Okta), &["secret"]).unwrap();
    let answer = Judged::Challenge {
        content_type: "application/json",
        body: "{\"verification\":\"abc\"}".into(),
    };
    assert_eq!(judge(&verifier, &[("X-Okta-Verification-Challenge", "abc")], ""), answer);
    let body = "{\"eventId\":\"e1\",\"data\":{\"events\":[]}}";
    assert_eq!(delivery_of(&judge(&verifier, &[("Authorization", "secret")], body)), Some("e1"));
    assert_eq!(code(&judge(&verifier, &[("Authorization", "x")], body)), "bad_signature");

    let verifier = Verifier::new(&config(Scheme::MicrosoftGraph), &["state"]).unwrap();
    let answer = Judged::Challenge { content_type: "text/plain", body: "a b<".into() };
    assert_eq!(ask(&verifier, &[], Some("x=1&validationToken=a%20b%3C"), "", NOW), answer);
    let both = "{\"value\":[{\"clientState\":\"state\"},{\"clientState\":\"state\"}]}";
    assert_eq!(code(&judge(&verifier, &[], both)), "accepted");
    let one = "{\"value\":[{\"clientState\":\"state\"},{\"clientState\":\"other\"}]}";
    assert_eq!(code(&judge(&verifier, &[], one)), "bad_signature");
    assert_eq!(code(&judge(&verifier, &[], "{\"value\":[]}")), "bad_signature");
}

/// The example of Twilio's page on webhook security.
#[test]
fn twilio_signs_the_url_and_the_sorted_form() {
    let settings =
        VerifyConfig { url: "https://mycompany.com/myapp.php".into(), ..config(Scheme::Twilio) };
    let verifier = Verifier::new(&settings, &["12345"]).unwrap();
    let body = "CallSid=CA1234567890ABCDE&Caller=%2B12349013030&Digits=1234&From=%2B12349013030&To=%2B18005551212";
    let form = ("content-type", "application/x-www-form-urlencoded");
    let query = Some("foo=1&bar=2");
    let good = [("x-twilio-signature", "0/KCTR6DLpKmkAf8muzZqo1nDgQ="), form];
    assert_eq!(code(&ask(&verifier, &good, query, body, NOW)), "accepted");
    assert_eq!(code(&ask(&verifier, &good, Some("foo=1"), body, NOW)), "bad_signature");
    let changed = body.replace("1234&", "1235&");
    assert_eq!(code(&ask(&verifier, &good, query, &changed, NOW)), "bad_signature");
}

#[test]
fn sendgrid_signs_with_a_key_of_its_own() {
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let head = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
    let mut der = from_base64(head).unwrap();
    der.pop();
    der.extend_from_slice(pair.public_key().as_ref());
    let verifier = Verifier::new(&config(Scheme::Sendgrid), &[&base64(&der)]).unwrap();
    let signature = pair.sign(&random, format!("{NOW}[]").as_bytes()).unwrap();
    let (tag, at) = (base64(signature.as_ref()), NOW.to_string());
    let pairs = [
        (SENDGRID_SIGNATURE, tag.as_str()),
        ("x-twilio-email-event-webhook-timestamp", at.as_str()),
    ];
    assert_eq!(code(&judge(&verifier, &pairs, "[]")), "accepted");
    assert_eq!(code(&judge(&verifier, &pairs, "[1]")), "bad_signature");
    assert!(Verifier::new(&config(Scheme::Sendgrid), &["AAAA"]).is_err());
}

#[test]
fn a_verifier_never_shows_its_secrets() {
    let verifier = Verifier::new(&config(Scheme::Github), &["hunter2"]).unwrap();
    assert!(!format!("{verifier:?}").contains("hunter2"));
}
