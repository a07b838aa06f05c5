//! A proxy between agent and collector.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use custody_tests::logfile::Form;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rng, World};

/// `custody:secret` as basic authentication writes it.
const BASIC: &str = "proxy-authorization: basic y3vzdg9ketpzzwnyzxq=";

/// A proxy that knows one name, and lets in whoever shows the password.
struct Proxy {
    address: SocketAddr,
    tunnels: Arc<AtomicU64>,
}

impl Proxy {
    /// Everything that is asked for by the name `audit.test` goes to `to`.
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tunnels = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&tunnels);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                // A connection that breaks off is the agent's business.
                thread::spawn(move || tunnel(stream, to, &count));
            }
        });
        Self { address, tunnels }
    }
}

fn tunnel(mut agent: TcpStream, to: SocketAddr, count: &AtomicU64) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(agent.try_clone()?);
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let head = head.to_lowercase();
    if !head.contains(BASIC) {
        return agent.write_all(b"HTTP/1.1 407 Who asks?\r\nProxy-Authenticate: Basic\r\n\r\n");
    }
    if !head.starts_with(&format!("connect audit.test:{} ", to.port())) {
        return agent.write_all(b"HTTP/1.1 403 Not there\r\n\r\n");
    }
    let mut collector = TcpStream::connect(to)?;
    count.fetch_add(1, Ordering::Relaxed);
    agent.write_all(b"HTTP/1.1 200 Go on\r\n\r\n")?;
    let (mut from, mut back) = (collector.try_clone()?, agent.try_clone()?);
    let answers = thread::spawn(move || {
        // Ends with either side.
        let _ended = copy(&mut from, &mut back);
        back.shutdown(std::net::Shutdown::Both)
    });
    let _ended = copy(&mut reader, &mut collector);
    collector.shutdown(std::net::Shutdown::Both)?;
    answers.join().unwrap_or(Ok(()))
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut bytes = [0; 16 * 1024];
    loop {
        match from.read(&mut bytes)? {
            0 => return Ok(()),
            count => to.write_all(&bytes[..count])?,
        }
    }
}

#[test]
fn the_proxy_that_is_named_is_the_way_and_the_environment_is_not() {
    let world = World::new("proxied");
    let (ca, cert, key) = super::ship::certificates(&world);
    let mut collector = Collector::new(&world, "collector");
    collector.configure(&world, &format!("tls: {{ cert_file: {cert}, key_file: {key} }}\n"), true);
    collector.start();
    collector.wait_ready();
    let proxy = Proxy::start(collector.address);
    let password = world.path("proxy.password");
    super::ship::write_secret(&password, "wrong\n");

    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(7));
    let mut spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    spec.output_extra = format!("tls: {{ ca_file: {ca} }}");
    // Nobody listens at the environment's proxy: whoever used it would not arrive.
    let mut direct = Agent::new(&world, "direct", &spec);
    let mut command = direct.command();
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(name, "http://127.0.0.1:9");
    }
    direct.start_as(command);
    log.append(100);
    log.flush();
    collector.wait_for_lines(log.written());
    assert_eq!(direct.stop().code(), Some(0));
    assert_eq!(proxy.tunnels.load(Ordering::Relaxed), 0);

    // A name that only the proxy knows.
    spec.endpoints = vec![format!("https://audit.test:{}", collector.address.port())];
    spec.output_extra = format!(
        "tls: {{ ca_file: {ca} }}, proxy: \"http://{}\", proxy_user: custody, proxy_password_file: {}",
        proxy.address,
        password.display()
    );
    let second = world.path("logs/second.log");
    let mut log = LogFile::create(&second, Form::Mixed, Rng::new(8));
    spec.sources = vec![("app".to_owned(), vec![second.display().to_string()])];
    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(100);
    log.flush();
    let _refused = agent.wait_status("the proxy's refusal is named", |status| {
        let trouble = status.output()["trouble"].as_str().unwrap_or_default();
        trouble.contains("proxy_password_file")
    });
    super::ship::write_secret(&password, "secret\n");
    agent.reload();
    let idle = agent.wait_idle();
    assert!(idle.output()["trouble"].is_null(), "{:#}", idle.output());
    assert!(proxy.tunnels.load(Ordering::Relaxed) > 0);
    let said = std::fs::read_to_string(&agent.stderr).unwrap();
    assert!(!said.contains("secret"), "the password is in the log");
    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(collector.stop().code(), Some(0));
}
