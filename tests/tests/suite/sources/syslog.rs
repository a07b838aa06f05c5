//! The real logger, rsyslog and `openssl s_client` as senders.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use custody_tests::process::Daemon;
use custody_tests::{Agent, World, ports, query, until};

use super::{certificates, each, end, fed, is_there, pair};

fn failed(user: &str) -> String {
    format!("Failed password for invalid user {user} from 192.0.2.7 port 40022 ssh2")
}

/// Waits until the agent says that it listens: a connection that only asks would be counted as refused.
fn wait_for_port(agent: &Agent, port: u16, patience: Duration) {
    until("the agent listens", patience, || {
        let said = std::fs::read_to_string(&agent.stderr).ok()?;
        let is_there =
            |line: &str| line.contains("listening") && line.contains(&format!(":{port}\""));
        said.lines().any(is_there).then_some(())
    });
}

/// Runs logger with these arguments; it must succeed.
fn logger(arguments: &[&str], text: &str) {
    let said = fed(
        Command::new("logger").args(arguments).args(["-t", "sshd", "-p", "auth.info", "--", text]),
        b"",
    );
    assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn what_logger_sends_is_found_by_user_address_and_peer() {
    if !is_there("logger") {
        return;
    }
    let world = World::new("sources_logger");
    let (udp, tcp) = (ports::free(), ports::free());
    let sources = format!(
        "  - {{ id: udp, type: syslog, listen: '127.0.0.1:{udp}', protocol: udp }}\n  \
         - {{ id: tcp, type: syslog, listen: '127.0.0.1:{tcp}', protocol: tcp }}\n"
    );
    let (collector, mut agent) = pair(&world, sources, "");
    agent.start();
    agent.wait_ready();
    for port in [udp, tcp] {
        wait_for_port(&agent, port, world.patience());
    }
    let (udp, tcp) = (udp.to_string(), tcp.to_string());
    let to =
        |port: &str| ["-n".to_owned(), "127.0.0.1".to_owned(), "-P".to_owned(), port.to_owned()];
    let ways: [(&str, &[&str], [String; 4]); 4] = [
        ("udp3164", &["-d", "--rfc3164"], to(&udp)),
        ("udp5424", &["-d", "--rfc5424"], to(&udp)),
        ("tcpline", &["-T", "--rfc3164"], to(&tcp)),
        ("tcpcount", &["-T", "--rfc5424", "--octet-count"], to(&tcp)),
    ];
    for (user, way, to) in &ways {
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        logger(&[*way, &to].concat(), &failed(user));
    }
    let line = "action:authentication.login outcome:failure ip:192.0.2.7 service:sshd";
    let found = query::wait_for(&collector, line, ways.len(), world.patience());
    assert_eq!(each(&found, "/actor/name"), ["tcpcount", "tcpline", "udp3164", "udp5424"]);
    assert_eq!(each(&found, "/origin/input"), ["tcp", "tcp", "udp", "udp"]);
    for event in &found {
        assert!(event["details"]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{event:#}");
    }
    end(collector, agent);
}

/// rsyslog as a host runs it: programs write to its socket, it forwards over TCP and over TLS.
fn rsyslog_conf(dir: &Path, tcp: u16, tls: Option<(u16, &super::Certificates)>) -> String {
    let dir = dir.display();
    let mut text = format!(
        "global(workDirectory=\"{dir}/rsyslog\")\n\
         module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imuxsock\" Socket=\"{dir}/log.sock\" CreatePath=\"on\")\n\
         action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{tcp}\" protocol=\"tcp\" TCP_Framing=\"traditional\" action.resumeRetryCount=\"-1\" action.resumeInterval=\"1\")\n"
    );
    if let Some((port, made)) = tls {
        text.push_str(&format!(
            "global(DefaultNetstreamDriver=\"gtls\" DefaultNetstreamDriverCAFile=\"{}\" \
             DefaultNetstreamDriverCertFile=\"{}\" DefaultNetstreamDriverKeyFile=\"{}\")\n\
             action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{port}\" protocol=\"tcp\" TCP_Framing=\"octet-counted\" \
             StreamDriver=\"gtls\" StreamDriverMode=\"1\" StreamDriverAuthMode=\"x509/name\" StreamDriverPermittedPeers=\"localhost\" \
             template=\"RSYSLOG_SyslogProtocol23Format\" action.resumeRetryCount=\"-1\" action.resumeInterval=\"1\")\n",
            made.ca, made.client, made.client_key
        ));
    }
    text
}

fn has_gtls() -> bool {
    let folders = [
        "/usr/lib/x86_64-linux-gnu/rsyslog",
        "/usr/lib/aarch64-linux-gnu/rsyslog",
        "/usr/lib64/rsyslog",
    ];
    let has = folders.iter().any(|folder| Path::new(folder).join("lmnsd_gtls.so").is_file());
    if !has {
        eprintln!("skipped: rsyslog's TLS (rsyslog-gnutls) absent");
    }
    has
}

/// Where it is installed; it is rarely on a user's PATH.
fn rsyslogd() -> Option<&'static str> {
    let found =
        ["/usr/sbin/rsyslogd", "/sbin/rsyslogd"].into_iter().find(|path| Path::new(path).is_file());
    if found.is_none() {
        eprintln!("skipped: rsyslogd absent");
    }
    found
}

#[test]
fn what_a_real_rsyslog_forwards_over_tcp_and_tls_is_found_once_each() {
    let Some(program) = rsyslogd().filter(|_| is_there("logger")) else { return };
    let world = World::new("sources_rsyslog");
    let made = certificates(&world);
    let (tcp, tls) = (ports::free(), ports::free());
    let sources = format!(
        "  - {{ id: tcp, type: syslog, listen: '127.0.0.1:{tcp}', protocol: tcp }}\n  \
         - {{ id: tls, type: syslog, listen: '127.0.0.1:{tls}', protocol: tls, tls: {{ cert_file: {}, key_file: {}, client_ca_file: {} }} }}\n",
        made.server, made.server_key, made.ca
    );
    let (collector, mut agent) = pair(&world, sources, "");
    agent.start();
    agent.wait_ready();
    wait_for_port(&agent, tcp, world.patience());
    let with_tls = has_gtls();
    let conf = world.path("rsyslog.conf");
    std::fs::create_dir(world.path("rsyslog")).unwrap();
    std::fs::write(&conf, rsyslog_conf(world.dir(), tcp, with_tls.then_some((tls, &made))))
        .unwrap();
    let mut command = Command::new(program);
    command.args(["-n", "-f"]).arg(&conf).arg("-i").arg(world.path("rsyslog.pid"));
    let mut rsyslog = Daemon::start(command, "rsyslogd", &world.path("rsyslog.stderr"));
    let socket = world.path("log.sock");
    until("rsyslog takes messages", world.patience(), || {
        assert_eq!(rsyslog.ended(), None, "rsyslogd ended");
        std::os::unix::net::UnixDatagram::unbound().unwrap().connect(&socket).ok()
    });
    let users: Vec<String> = (0..50).map(|number| format!("user{number:02}")).collect();
    for user in &users {
        logger(&["-u", socket.to_str().unwrap()], &failed(user));
    }
    for input in ["tcp", "tls"].into_iter().take(1 + usize::from(with_tls)) {
        let line =
            format!("input:{input} action:authentication.login outcome:failure ip:192.0.2.7");
        let found = query::wait_for(&collector, &line, users.len(), world.patience());
        assert_eq!(each(&found, "/actor/name"), users, "over {input}");
        assert_eq!(found[0]["service"], "sshd");
    }
    assert_eq!(rsyslog.stop(world.patience()).code(), Some(0));
    end(collector, agent);
}

#[test]
fn what_openssl_s_client_sends_over_tls_is_found_and_who_has_no_certificate_is_told() {
    if !is_there("openssl") {
        return;
    }
    let world = World::new("sources_openssl");
    let made = certificates(&world);
    let port = ports::free();
    let sources = format!(
        "  - {{ id: tls, type: syslog, listen: '127.0.0.1:{port}', protocol: tls, tls: {{ cert_file: {}, key_file: {}, client_ca_file: {} }} }}\n",
        made.server, made.server_key, made.ca
    );
    let (collector, mut agent) = pair(&world, sources, "");
    agent.start();
    agent.wait_ready();
    wait_for_port(&agent, port, world.patience());
    let client = |more: &[&str], text: &str| {
        let mut command = Command::new("openssl");
        command.args([
            "s_client",
            "-quiet",
            "-no_ign_eof",
            "-verify_return_error",
            "-servername",
            "localhost",
        ]);
        command.args(["-connect", &format!("127.0.0.1:{port}"), "-CAfile", &made.ca]);
        fed(command.args(more), text.as_bytes())
    };
    let message =
        |user: &str| format!("<86>1 2026-11-20T10:11:12Z web1 sshd 77 - - {}", failed(user));
    let one = message("counted");
    let text = format!("{} {one}{}\n", one.len(), message("newline"));
    for version in ["-tls1_2", "-tls1_3"] {
        let said = client(&[version, "-cert", &made.client, "-key", &made.client_key], &text);
        assert!(said.status.success(), "{version}: {}", String::from_utf8_lossy(&said.stderr));
    }
    let line = "input:tls action:authentication.login outcome:failure";
    let found = query::wait_for(&collector, line, 4, world.patience());
    assert_eq!(each(&found, "/actor/name"), ["counted", "counted", "newline", "newline"]);
    // Without a certificate nothing is taken, and that is an event.
    let _refused = client(&[], &text);
    let refused = query::wait_for(&collector, "action:source.refuse", 1, world.patience());
    assert_eq!(refused[0]["reason"]["code"], "tls_handshake");
    assert_eq!(query::all(&collector, "input:tls action:authentication.login").len(), 4);
    end(collector, agent);
}
