//! Certificates by which agents show themselves: made at enrolment, shown on every connection, replaced under load; and
//! worth nothing when they are stolen, another's, by another authority, ended, or of a revoked agent.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use custody_tests::logfile::Form;
use custody_tests::wait::until;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rng, World};
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SignatureScheme, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

/// A collector with TLS and these further keys of `tls`; gives the authority's file too.
fn collector(world: &World, keys: &str) -> (Collector, String) {
    let (ca, cert, key) = super::ship::certificates(world);
    let mut collector = Collector::new(world, "collector");
    let yaml = format!("tls: {{ cert_file: {cert}, key_file: {key}{keys} }}\n");
    collector.configure(world, &yaml, true);
    collector.start();
    collector.wait_ready();
    (collector, ca)
}

fn spec(world: &World, collector: &Collector, ca: &str) -> (LogFile, AgentSpec) {
    let log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(7));
    let mut spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    spec.output_extra = format!("tls: {{ ca_file: {ca} }}");
    (log, spec)
}

fn write(log: &mut LogFile, lines: u64) {
    log.append(lines);
    log.flush();
}

/// A certificate and a key that need not be one pair.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The certificate of one PEM text with the key of another.
fn shows(certificate: &str, key: &str) -> Option<Shows> {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    Some(Shows(Arc::new(CertifiedKey::new(chain, key))))
}

/// Posts an empty block over a connection of its own; the answer's status and code, or why there was none.
fn knock(
    collector: &Collector,
    ca: &str,
    shows: Option<Shows>,
    token: &str,
) -> Result<(u16, String), String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shows {
        Some(shows) => builder.with_client_cert_resolver(Arc::new(shows)),
        None => builder.with_no_client_auth(),
    };
    let name = collector.address.ip().into();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(collector.address).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    let path = format!("/v1/streams/{0}/{0}/blocks/0", "00".repeat(16));
    let asked = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(asked.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let Some(status) = text.split(' ').nth(1).and_then(|word| word.parse().ok()) else {
        return Err(read.err().map_or_else(|| "closed".to_owned(), |error| error.to_string()));
    };
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    let said: Value = serde_json::from_str(body).unwrap_or_default();
    Ok((status, said["code"].as_str().unwrap_or_default().to_owned()))
}

/// What an agent keeps: its token, and its certificate with the key.
fn kept(agent: &Agent) -> (String, String) {
    let read = |name: &str| std::fs::read_to_string(agent.data_dir.join(name)).unwrap();
    (read("token-central").trim().to_owned(), read("tls-central.pem"))
}

fn id_of(agent: &Agent) -> String {
    std::fs::read_to_string(agent.data_dir.join("agent.id")).unwrap().trim().to_owned()
}

fn answered(status: u16, code: &str) -> Result<(u16, String), String> {
    Ok((status, code.to_owned()))
}

fn expect_alert(said: Result<(u16, String), String>, alert: &str) {
    let why = said.expect_err("the handshake fails");
    assert!(why.contains(alert), "{why}");
}

#[test]
fn a_certificate_is_made_at_enrolment_and_is_worth_nothing_to_anybody_else() {
    let world = World::new("certified_theft");
    let (mut collector, ca) = collector(&world, ", client_certificates: required");
    let (mut log, spec) = spec(&world, &collector, &ca);
    let mut agent = Agent::started(&world, "agent", &spec);
    write(&mut log, 100);
    collector.wait_for_lines(log.written());
    let other = Agent::started(&world, "other", &spec);
    let (token, pair) = until("both have enrolled", world.patience(), || {
        other.data_dir.join("token-central").try_exists().unwrap().then(|| kept(&agent))
    });
    let mode = std::fs::metadata(agent.data_dir.join("tls-central.pem")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);

    // Its owner gets as far as the block's path, which is no agent's.
    assert_eq!(knock(&collector, &ca, shows(&pair, &pair), &token), answered(403, "wrong_agent"));
    let path = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(knock(&collector, &ca, None, &token), answered(403, "no_certificate"));
    // The certificate without its key, with a key of the thief's.
    let thief = rcgen::KeyPair::generate().unwrap().serialize_pem();
    expect_alert(knock(&collector, &ca, shows(&pair, &thief), &token), "DecryptError");
    // Another agent's certificate with this agent's token.
    let (_, others) = kept(&other);
    assert_eq!(
        knock(&collector, &ca, shows(&others, &others), &token),
        answered(403, "wrong_agent")
    );
    let said = path(&collector.stderr);
    assert!(said.contains("came with another agent's certificate"), "{said}");
    // By an authority of the thief's, which names the agent.
    let made = rcgen::generate_simple_self_signed(vec!["custody-agent".to_owned()]).unwrap();
    let forged = [made.cert.pem(), made.signing_key.serialize_pem()].concat();
    expect_alert(knock(&collector, &ca, shows(&forged, &forged), &token), "UnknownCA");

    // Revoked: refused on the connection that is open, and no new one comes about.
    let dir = collector.data_dir.to_str().unwrap();
    let id = id_of(&agent);
    let revoke = ["agent", "--data-dir", dir, "revoke", &id, "--reason", "stolen"];
    Collector::cli(&revoke).expect(0, &["is revoked"]);
    until("its certificate is refused", world.patience(), || {
        let said = knock(&collector, &ca, shows(&pair, &pair), &token);
        said.is_err_and(|why| why.contains("CertificateRevoked")).then_some(())
    });
    write(&mut log, 10);
    let _refused = agent.wait_status("it says that it is not let in", |status| {
        !status.output()["trouble"].is_null()
    });
    assert_eq!(agent.stop().code(), Some(0));
    agent.start();
    let _revoked = agent.wait_status("it says that it was revoked", |status| {
        let trouble = status.output()["trouble"].as_str().unwrap_or_default();
        trouble.contains("this agent was revoked at the collector")
    });
    assert_eq!(knock(&collector, &ca, shows(&others, &others), &kept(&other).0).unwrap().0, 403);
    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(collector.stop().code(), Some(0));
}

#[test]
fn a_certificate_is_replaced_under_load_before_it_ends_and_nobody_notices() {
    let world = World::new("certified_renewal");
    let keys = ", client_certificates: required, client_certificate_life: 12s";
    let (mut collector, ca) = collector(&world, keys);
    let (mut log, spec) = spec(&world, &collector, &ca);
    let mut agent = Agent::started(&world, "agent", &spec);
    write(&mut log, 100);
    collector.wait_for_lines(log.written());
    let first = kept(&agent).1;
    until("another certificate is there", world.patience(), || {
        write(&mut log, 50);
        (kept(&agent).1 != first).then_some(())
    });
    write(&mut log, 1000);
    let idle = agent.wait_idle();
    assert_eq!(idle.output()["failures"], 0, "{:#}", idle.output());
    collector.wait_for_lines(log.written());
    assert!(agent.complaints(&[]).is_empty(), "{:#?}", agent.complaints(&[]));
    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(collector.stop().code(), Some(0));
    collector.tally().expect_exactly_once(&log);
}

/// A summer's absence, a collector whose own authority was lost, and one that begins to ask for certificates: the agent
/// comes back by itself, by its token and its key.
#[test]
fn an_agent_without_a_good_certificate_gets_one_without_a_new_enrolment() {
    let world = World::new("certified_absence");
    let (mut collector, ca) = collector(&world, ", client_certificates: off");
    let (mut log, mut spec) = spec(&world, &collector, &ca);
    let mut agent = Agent::started(&world, "agent", &spec);
    write(&mut log, 100);
    collector.wait_for_lines(log.written());
    let pem = agent.data_dir.join("tls-central.pem");
    assert!(!pem.try_exists().unwrap(), "none is signed where none is asked for");
    assert_eq!(agent.stop().code(), Some(0));
    // From here on there is no enrolment token.
    spec.enroll_token = world.path("absent.token");
    agent.configure(&spec);

    let again = |collector: &mut Collector, agent: &mut Agent, log: &mut LogFile, what: &str| {
        collector.start();
        collector.wait_ready();
        let before = std::fs::read(&pem).ok();
        write(log, 100);
        agent.start();
        collector.wait_for_lines(log.written());
        assert_ne!(std::fs::read(&pem).ok(), before, "{what}: there is a new certificate");
        agent.wait_ready();
        assert_eq!(agent.stop().code(), Some(0));
        assert_eq!(collector.stop().code(), Some(0));
    };
    assert_eq!(collector.stop().code(), Some(0));
    let yaml = std::fs::read_to_string(collector.config.clone().unwrap()).unwrap();
    let required = yaml.replace("client_certificates: off", "client_certificates: required");
    collector.configure(&world, &required, true);
    again(&mut collector, &mut agent, &mut log, "certificates are required from now on");
    for name in ["agents-ca.pem", "agents-ca.key"] {
        std::fs::remove_file(collector.data_dir.join(name)).unwrap();
    }
    again(&mut collector, &mut agent, &mut log, "the authority was lost");
    collector.days_ahead = 100;
    again(&mut collector, &mut agent, &mut log, "the certificate has ended");

    let ended = kept(&agent).1;
    collector.days_ahead = 300;
    collector.start();
    collector.wait_ready();
    expect_alert(knock(&collector, &ca, shows(&ended, &ended), "x"), "CertificateExpired");
    assert_eq!(collector.stop().code(), Some(0));
    collector.tally().expect_exactly_once(&log);
}
