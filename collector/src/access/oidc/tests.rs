//! Whole logins against a provider in this process, honest and not.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use custody_config::{CollectorConfig, CollectorOverrides, Env};
use custody_event::{Clock, SystemClock};
use http::{HeaderMap, Method};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::{Oidc, jws};
use crate::access::matrix::world::World;
use crate::access::{By, NewUser, Scope, UserChange, password};

/// A provider: what it puts into the next token, and what it was asked.
struct Provider {
    issuer: String,
    key: Ed25519KeyPair,
    /// Changes the claims of an honest token.
    change: Mutex<Value>,
    asked: Mutex<Vec<String>>,
    nonce: Mutex<String>,
    challenge: Mutex<String>,
}

impl Provider {
    async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Arc::new(Self {
            issuer: format!("http://{}/realm", listener.local_addr().unwrap()),
            key: Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap(),
            change: Mutex::new(json!({})),
            asked: Mutex::default(),
            nonce: Mutex::default(),
            challenge: Mutex::default(),
        });
        let router = Router::new()
            .route("/realm/.well-known/openid-configuration", get(metadata))
            .route("/realm/keys", get(keys))
            .route("/realm/token", post(token))
            .with_state(Arc::clone(&provider));
        let stop = custody_config::shell::StopToken::new();
        let tasks = tokio_util::task::TaskTracker::new();
        tasks.spawn(crate::serve::server::serve(listener, None, router, Arc::default(), stop));
        provider
    }

    fn oidc(&self, folder: &std::path::Path) -> Oidc {
        let secret = folder.join("secret");
        std::fs::write(&secret, "s3 cret\n").unwrap();
        let text = format!(
            "oidc: {{ issuer: '{}', client_id: custody, client_secret_file: {}, \
             redirect_url: 'http://127.0.0.1:8600/oidc/callback' }}\n",
            self.issuer,
            secret.display()
        );
        let (path, env) = (folder.join("collector.yaml"), Env::from_process());
        let read = CollectorConfig::from_text(&path, &text, &CollectorOverrides::default(), &env);
        let config = read.unwrap().value.oidc.unwrap();
        let secret = config.client_secret_file.read().unwrap().expose().to_owned();
        Oidc::new(config, secret).unwrap()
    }

    fn sign(&self, claims: &Value) -> String {
        let header = jws::encode(br#"{"alg":"EdDSA","kid":"k1"}"#);
        let signed = format!("{header}.{}", jws::encode(claims.to_string().as_bytes()));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", jws::encode(signature.as_ref()))
    }

    /// What the browser carries to the provider.
    fn visited(&self, url: &str) -> String {
        let url = reqwest::Url::parse(url).unwrap();
        let get = |name: &str| {
            url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        assert!(url.as_str().starts_with(&self.issuer), "{url}");
        assert_eq!(get("client_id").as_deref(), Some("custody"));
        assert_eq!(get("code_challenge_method").as_deref(), Some("S256"));
        *self.nonce.lock().unwrap() = get("nonce").unwrap();
        *self.challenge.lock().unwrap() = get("code_challenge").unwrap();
        get("state").unwrap()
    }
}

async fn metadata(State(provider): State<Arc<Provider>>) -> Json<Value> {
    let at = |path: &str| format!("{}/{path}", provider.issuer);
    Json(json!({
        "issuer": provider.issuer, "authorization_endpoint": at("authorize"),
        "token_endpoint": at("token"), "jwks_uri": at("keys"), "response_types_supported": ["code"],
    }))
}

async fn keys(State(provider): State<Arc<Provider>>) -> Json<Value> {
    let x = jws::encode(provider.key.public_key().as_ref());
    Json(json!({ "keys": [
        { "kty": "later", "kid": "k0", "n": 5 },
        { "kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": x },
    ] }))
}

async fn token(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    body: String,
) -> Json<Value> {
    let url = reqwest::Url::parse(&format!("http://x/?{body}")).unwrap();
    let get = |name: &str| url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    let verifier = custody_event::Digest::of(get("code_verifier").as_bytes());
    assert_eq!(jws::encode(&verifier.0), *provider.challenge.lock().unwrap(), "PKCE");
    assert_eq!(headers["authorization"], "Basic Y3VzdG9keTpzMytjcmV0", "custody:s3+cret");
    provider.asked.lock().unwrap().push(get("code"));
    let now = SystemClock::new().now().seconds() + 2 * 86_400;
    let mut claims = json!({
        "iss": provider.issuer, "aud": "custody", "sub": "1", "exp": now + 60, "iat": now,
        "nonce": *provider.nonce.lock().unwrap(), "email": "Ann@Example.org",
        "email_verified": true,
    });
    let change = provider.change.lock().unwrap().clone();
    for (key, value) in change.as_object().unwrap() {
        claims[key] = value.clone();
    }
    let mut token = provider.sign(&claims);
    if change.get("forged").is_some() {
        token.replace_range(token.len() - 4.., "AAAA");
    }
    Json(json!({ "access_token": "x", "token_type": "Bearer", "id_token": token }))
}

struct Browser<'a> {
    world: &'a World,
    provider: &'a Provider,
}

impl Browser<'_> {
    /// Begins; gives the state and the cookie.
    async fn begin(&self) -> (String, String) {
        let answer = self.world.browse(&Method::GET, "/oidc/login?next=/%3Fq%3Dx", "").await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        let state = self.provider.visited(answer.header("location"));
        let cookie = answer.header("set-cookie");
        assert!(cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
        assert!(!cookie.contains(&state), "{cookie}");
        let (_, cookie) = cookie.split(';').next().unwrap().split_once("custody_oidc=").unwrap();
        (state, cookie.to_owned())
    }

    async fn back(&self, state: &str, cookie: &str) -> crate::access::matrix::world::Browsed {
        let path = format!("/oidc/callback?code=c0de&state={state}");
        self.world.browse(&Method::GET, &path, &format!("custody_oidc={cookie}")).await
    }

    async fn login(&self) -> crate::access::matrix::world::Browsed {
        let (state, cookie) = self.begin().await;
        self.back(&state, &cookie).await
    }
}

async fn world() -> (World, Arc<Provider>) {
    let provider = Provider::start().await;
    let folder = tempfile::tempdir().unwrap();
    let world = World::with(Some(provider.oidc(folder.path()))).await;
    let (name, role) = ("ann@example.org".to_owned(), "viewer".to_owned());
    let new = NewUser { name, role, scope: Scope::ALL, password: password::NONE.to_owned() };
    world.access.create_user(By::Machine, new).unwrap();
    (world, provider)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_comes_back_from_the_provider_with_a_session_and_only_once() {
    let (world, provider) = world().await;
    let browser = Browser { world: &world, provider: &provider };
    let (state, cookie) = browser.begin().await;
    let answer = browser.back(&state, &cookie).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains("0;url=/?q=x"), "{}", answer.body);
    let session = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    assert!(session.starts_with("custody_session=") && session.len() == 16 + 64, "{session}");
    let page = world.browse(&Method::GET, "/", &session).await;
    assert!(page.status == 200 && page.body.contains(">ann@example.org<"), "{}", page.body);
    assert_eq!(browser.back(&state, &cookie).await.status, 401, "a state is good once");
    assert_eq!(provider.asked.lock().unwrap().len(), 1, "and its code is not asked about again");
    world.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_begins_thousands_of_logins_pushes_nobody_out() {
    let (world, provider) = world().await;
    let browser = Browser { world: &world, provider: &provider };
    let (state, cookie) = browser.begin().await;
    for _ in 0..3_000 {
        let flood = world.browse(&Method::GET, "/oidc/login", "").await;
        assert_eq!(flood.status, 303, "{}", flood.body);
    }
    assert_eq!(browser.back(&state, &cookie).await.status, 200);
    world.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_site_or_provider_makes_up_logs_nobody_in() {
    let (world, provider) = world().await;
    let browser = Browser { world: &world, provider: &provider };
    let (state, cookie) = browser.begin().await;
    let (_, another) = browser.begin().await;
    for (state, cookie) in [
        (&*state, ""),
        (&state, "0"),
        (&state, &state),
        (&state, &another),
        ("", &cookie),
        ("0", "0"),
    ] {
        let answer = browser.back(state, cookie).await;
        assert_eq!(answer.status, 401, "{state} {cookie}");
        assert!(!answer.header("set-cookie").contains("custody_session"));
    }
    let now = SystemClock::new().now().seconds() + 2 * 86_400;
    for change in [
        json!({ "iss": "https://evil.example" }),
        json!({ "aud": "another" }),
        json!({ "aud": ["custody", "another"] }),
        json!({ "aud": ["custody", "another"], "azp": "another" }),
        json!({ "exp": now - 120 }),
        json!({ "iat": now + 3_600 }),
        json!({ "nonce": "another" }),
        json!({ "nonce": null }),
        json!({ "email_verified": false }),
        json!({ "email_verified": null }),
        json!({ "email": "nobody@example.org" }),
        json!({ "email": "ann@example.org'; --" }),
        json!({ "email": ["ann@example.org"] }),
        json!({ "forged": true }),
    ] {
        *provider.change.lock().unwrap() = change.clone();
        let answer = browser.login().await;
        assert_eq!(answer.status, 401, "{change}: {}", answer.body);
        assert!(!answer.header("set-cookie").contains("custody_session"), "{change}");
    }
    *provider.change.lock().unwrap() = json!({ "aud": ["custody", "b"], "azp": "custody" });
    assert_eq!(browser.login().await.status, 200);
    *provider.change.lock().unwrap() = json!({});
    let disable = UserChange { disabled: Some(true), ..UserChange::default() };
    world.access.change_user(By::Machine, "ann@example.org", disable).unwrap();
    assert_eq!(browser.login().await.status, 401, "the provider does not enable anybody");
    world.close();
}
