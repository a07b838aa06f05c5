//! Syslog and webhooks against the real program: what was acknowledged is in the spool, whatever
//! happens then.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "this is test code throughout")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use support::{Agent, stored, until};

const SECRET: &str = "hunter2-the-secret";

fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn free_udp() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    until("a connection", || TcpStream::connect(address).ok())
}

fn ask(stream: &mut (impl Read + Write), path: &str, headers: &str, body: &[u8]) -> String {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    let _closed = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn signature(body: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let mut hex = Vec::new();
    custody_event::ids::push_hex(ring::hmac::sign(&key, body).as_ref(), &mut hex);
    String::from_utf8(hex).unwrap()
}

fn github(address: SocketAddr, delivery: &str, body: &[u8]) -> String {
    let headers = format!(
        "x-hub-signature-256: sha256={}\r\nx-github-delivery: {delivery}\r\nx-github-event: push\r\n",
        signature(body)
    );
    ask(&mut connect(address), "/github", &headers, body)
}

fn webhook_agent(listen: SocketAddr, extra: &str) -> Agent {
    let agent = Agent::new(&format!(
        "{extra}webhook: {{ listen: '{listen}' }}\nsources:\n  \
         - {{ id: hook, type: webhook, path: /github, verify: {{ scheme: github, secret_files: [{{dir}}/hook.secret] }} }}\n"
    ));
    agent.write("hook.secret", SECRET);
    agent
}

/// What came in from outside: without the events about the agent itself.
fn received(agent: &Agent) -> Vec<Value> {
    let mut events = agent.all_events();
    events.retain(|event| event["origin"]["input"] != "custody");
    events
}

#[test]
fn what_a_sender_was_told_is_stored_survives_a_kill_and_is_known_when_it_comes_again() {
    let listen = free_tcp();
    let mut agent = webhook_agent(listen, "");
    agent.start();
    let body = br#"{"action":"created","sender":{"login":"eva"}}"#;
    let ids: Vec<String> = (0..20).map(|number| format!("d{number}")).collect();
    for id in &ids {
        let answer = github(listen, id, body);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    agent.kill();
    let stored = received(&agent);
    assert_eq!(stored.len(), ids.len());
    let mut names: Vec<&str> = stored.iter().map(|event| event["id"].as_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ids.len(), "equal bodies of different deliveries are different events");
    let origin = &stored[0]["origin"];
    assert_eq!(origin["verdict"], "verified:github");
    assert_eq!(origin["endpoint"], "/github");
    assert_eq!(origin["raw"].as_str().unwrap().as_bytes(), body);
    assert!(stored[0]["details"]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));

    agent.start();
    for id in &ids {
        assert!(github(listen, id, body).starts_with("HTTP/1.1 200"));
    }
    assert!(github(listen, "new", body).starts_with("HTTP/1.1 200"));
    assert!(github(listen, "new", b"{}").starts_with("HTTP/1.1 409"));
    let forged = "x-hub-signature-256: sha256=00\r\nx-github-delivery: f\r\n";
    assert!(ask(&mut connect(listen), "/github", forged, body).starts_with("HTTP/1.1 401"));
    agent.stop();
    assert_eq!(received(&agent).len(), ids.len() + 1);
    let all = agent.all_events();
    let refused: Vec<_> = all.iter().filter(|event| event["action"] == "source.refuse").collect();
    assert!(refused.iter().any(|event| event["reason"]["code"] == "bad_signature"
        && event["category"] == "security"
        && event["source"]["ip"] == "127.0.0.1"));
    expect_no_secret(agent.dir.path(), &[SECRET, &signature(body)]);
}

/// In no file but its own, and not in the log, even at `trace`.
fn expect_no_secret(dir: &Path, secrets: &[&str]) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            expect_no_secret(&path, secrets);
        } else if !path.ends_with("hook.secret") {
            let bytes = std::fs::read(&path).unwrap_or_default();
            for secret in secrets {
                let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                assert!(!found, "{} holds a secret", path.display());
            }
        }
    }
}

#[test]
fn a_full_spool_turns_webhooks_away_and_keeps_what_it_acknowledged() {
    let listen = free_tcp();
    let mut agent = webhook_agent(listen, "spool: { max_bytes: 4MiB, free_space_floor: 0 }\n");
    agent.start();
    let mut seed = 1_u64;
    let mut body = move || {
        let mut text = String::from("{\"noise\":\"");
        while text.len() < 600_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.push_str(&format!("{seed:x}"));
        }
        text + "\"}"
    };
    let mut acknowledged = 0;
    let turned_away = until("a full spool", || {
        let answer = github(listen, &format!("d{acknowledged}"), body().as_bytes());
        if answer.starts_with("HTTP/1.1 503") {
            return Some(answer);
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        acknowledged += 1;
        None
    });
    assert!(turned_away.contains("retry-after:"), "{turned_away}");
    assert!(acknowledged >= 3, "{acknowledged}");
    agent.kill();
    let firsts = received(&agent).iter().filter(|event| event["origin"]["segment"] == 0).count();
    assert!(firsts >= acknowledged, "{firsts} of {acknowledged}");
    assert!(firsts <= acknowledged + 1, "{firsts} of {acknowledged}");
    // A long body is whole in its segments.
    let events = received(&agent);
    let raw: usize = events
        .iter()
        .take_while(|event| event["details"]["peer"] == events[0]["details"]["peer"])
        .map(|event| event["origin"]["raw"].as_str().unwrap().len())
        .sum();
    assert!((600_000..601_000).contains(&raw), "{raw}");
}

#[test]
fn logger_speaks_to_it_over_udp_and_both_framings_of_tcp() {
    let (udp, tcp) = (free_udp(), free_tcp());
    let sources = format!(
        "sources:\n  - {{ id: udp, type: syslog, listen: '{udp}', protocol: udp }}\n  - {{ id: tcp, type: syslog, listen: '{tcp}', protocol: tcp }}\n"
    );
    let mut agent = Agent::new(&sources);
    agent.start();
    drop(connect(tcp));
    // Both listen before the first source of the two has written anything; UDP says so in the log.
    until("UDP", || agent.said().contains("udp 127").then_some(()));
    let log = |arguments: &[&str], port: SocketAddr, text: &str| {
        let ran = Command::new("logger")
            .args(arguments)
            .args(["-n", "127.0.0.1", "-P", &port.port().to_string(), "-t", "sshd", "--"])
            .arg(text)
            .status();
        match ran {
            Ok(status) => assert!(status.success()),
            Err(error) => {
                eprintln!("skipped: logger absent ({error})");
                return false;
            }
        }
        true
    };
    const FAILED: &str = "Failed password for invalid user eva from 192.0.2.7 port 40022 ssh2";
    if !log(&["-d", "--rfc3164"], udp, FAILED) {
        return;
    }
    log(&["-d", "--rfc5424"], udp, FAILED);
    log(&["-T", "--rfc3164"], tcp, FAILED);
    log(&["-T", "--rfc5424", "--octet-count"], tcp, FAILED);
    agent.wait("udp", "two events", |source| stored(source) >= 2);
    agent.wait("tcp", "two events", |source| stored(source) >= 2);
    agent.stop();
    let events = received(&agent);
    assert_eq!(events.len(), 4);
    for event in &events {
        assert_eq!(event["action"], "authentication.login", "{event}");
        assert_eq!(event["outcome"], "failure");
        assert_eq!(event["source"]["ip"], "192.0.2.7");
        assert_eq!(event["service"], "sshd");
        assert!(event["details"]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    }
}

struct Certificates {
    ca: String,
    server: (String, String),
    client: (String, String),
}

fn certificates() -> Certificates {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, key).unwrap();
    let sign = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.into()]).unwrap().signed_by(&key, &ca).unwrap();
        (cert.pem(), key.serialize_pem())
    };
    Certificates { server: sign("localhost"), client: sign("sender"), ca: ca.pem() }
}

fn client(
    certificates: &Certificates,
    shows_one: bool,
    address: SocketAddr,
) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificates.ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = if shows_one {
        let (cert, key) = &certificates.client;
        let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        builder.with_client_auth_cert(vec![cert], key).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    let name = "localhost".try_into().unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    rustls::StreamOwned::new(connection, connect(address))
}

#[test]
fn tls_takes_senders_with_a_certificate_and_tells_of_those_without() {
    let (syslog, hooks) = (free_tcp(), free_tcp());
    let tls =
        "{ cert_file: {dir}/cert.pem, key_file: {dir}/key.pem, client_ca_file: {dir}/ca.pem }";
    let mut agent = Agent::new(&format!(
        "webhook: {{ listen: '{hooks}', tls: {tls} }}\nsources:\n  \
         - {{ id: net, type: syslog, listen: '{syslog}', protocol: tls, tls: {tls} }}\n  \
         - {{ id: hook, type: webhook, path: /x, verify: {{ scheme: none }} }}\n"
    ));
    let certificates = certificates();
    agent.write("cert.pem", &certificates.server.0);
    agent.write("key.pem", &certificates.server.1);
    agent.write("ca.pem", &certificates.ca);
    agent.start();

    let mut stream = client(&certificates, true, syslog);
    stream.write_all(b"15 <13>hello there<14>line\n").unwrap();
    stream.flush().unwrap();
    agent.wait("net", "two events", |source| stored(source) >= 2);
    let mut stream = client(&certificates, true, hooks);
    let answer = ask(&mut stream, "/x", "", b"{\"a\":1}");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for address in [syslog, hooks] {
        let mut stream = client(&certificates, false, address);
        let _refused = stream.write_all(b"<13>anonymous\n");
        let mut rest = Vec::new();
        let _refused = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
    agent.stop();
    let raw: Vec<_> = received(&agent).iter().map(|event| event["origin"]["raw"].clone()).collect();
    assert_eq!(raw.len(), 3, "{raw:?}");
    for wanted in ["<13>hello there", "<14>line", "{\"a\":1}"] {
        assert!(raw.iter().any(|raw| raw == wanted), "{raw:?}");
    }
    let all = agent.all_events();
    let told = all.iter().filter(|event| event["reason"]["code"] == "tls_handshake").count();
    assert_eq!(told, 2);
}
