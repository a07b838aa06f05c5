//! Every source with the real thing at its other end, through a real agent and a real collector, to
//! what a search finds. A program that is not installed: `skipped: …`.

mod auditd;
mod examples;
mod journal;
mod syslog;
mod webhook;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use custody_tests::{Agent, AgentSpec, Collector, World};
use serde_json::Value;

/// A collector, and an agent with these sources (items of a YAML list) that is not started yet.
fn pair(world: &World, sources: String, extra: &str) -> (Collector, Agent) {
    let collector = Collector::started(world, "collector");
    let mut spec = AgentSpec::of_sources(sources, &collector.url(), &collector.enroll_token());
    spec.extra = extra.to_owned();
    let agent = Agent::new(world, "agent", &spec);
    (collector, agent)
}

/// Stops both in order, and asks that nothing of the books is missing.
fn end(mut collector: Collector, mut agent: Agent) {
    let _idle = agent.wait_status("everything is delivered", |status| {
        status.0["in_flight_bytes"] == 0 && status.spool()["blocks"] == 0
    });
    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(collector.stop().code(), Some(0));
    collector.tally().expect_balanced_books();
    collector.verify().expect(0, &[]);
}

/// Is the program there? Says `skipped` if not.
fn is_there(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        eprintln!("skipped: {program} absent");
    }
    found.is_ok()
}

/// Runs a program to its end with this input.
fn fed(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that needs no input may have ended.
    let _closed = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Writes a file that only this user can read.
fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A field of each event, sorted.
fn each<'e>(events: &'e [Value], place: &str) -> Vec<&'e str> {
    let mut found: Vec<&str> = events
        .iter()
        .map(|event| event.pointer(place).and_then(Value::as_str).unwrap_or("-"))
        .collect();
    found.sort_unstable();
    found
}

/// Files by an authority of the test's own.
struct Certificates {
    ca: String,
    server: String,
    server_key: String,
    client: String,
    client_key: String,
}

/// An authority, a certificate for 127.0.0.1 and `localhost`, and one for a sender.
fn certificates(world: &World) -> Certificates {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let put = |name: &str, text: &str| {
        write_secret(&world.path(name), text);
        world.path(name).display().to_string()
    };
    // Who are called alike are taken for one and the same.
    let named = |name: &str, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut authority = named("an authority of the test", &[]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = put("senders-ca.pem", &authority.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(authority, key);
    let signed = |names: &[&str]| {
        let key = KeyPair::generate().unwrap();
        let cert = named(names[0], names).signed_by(&key, &issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    };
    let (server, client) = (signed(&["localhost", "127.0.0.1"]), signed(&["sender"]));
    Certificates {
        ca,
        server: put("source.pem", &server.0),
        server_key: put("source.key", &server.1),
        client: put("sender.pem", &client.0),
        client_key: put("sender.key", &client.1),
    }
}
