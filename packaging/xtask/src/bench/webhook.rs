//! `bench webhook`: signed requests over kept connections, each answered when it is durable.
//!
//! The requests are GitHub's: a body with its HMAC-SHA256 and a delivery id of its own, which the
//! agent remembers in the same write as the event. Nobody takes the agent's blocks, so that all its
//! time goes to the webhooks. Sender and agent share the machine's processors.
//!
//! *Yardstick*: the same agent, the same connections, requests that are as long and signed too
//! (Slack's `url_verification`), answered without anything being stored. And what the disk does at
//! best: 64 KiB appended and synced, again and again.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use custody_event::Digest;

use super::Common;
use super::sheet::{Sheet, Target};
use crate::agent::{Agent, Settings};
use crate::numbers::{float, len, mib, millis, per_second, percentile};
use crate::procfs;
use crate::shell::{self, Programs};

const SECRET: &[u8] = b"a-secret-that-both-know";
/// Bodies that are signed before the clock runs; they are sent in turn, each with a new delivery id.
const BODIES: usize = 512;
/// Nobody answers so late.
const PATIENCE: Duration = Duration::from_secs(60);
/// Appended and synced at once by the disk's yardstick.
const SYNCED_BYTES: usize = 64 * 1024;

/// Arguments of `bench webhook`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Requests.
    #[arg(long, default_value_t = 300_000)]
    requests: usize,
    /// Kept connections, over all senders; each has one request under way.
    #[arg(long, default_value_t = 384, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Threads that send.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..16))]
    senders: u16,
    /// Bytes of a body, about.
    #[arg(long, default_value_t = 400)]
    body_bytes: usize,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let title = format!("{} signed requests over {} connections", args.requests, args.connections);
    args.common
        .measure("webhook", title, |programs, place, sheet| one_run(args, programs, place, sheet))
}

fn one_run(
    args: &Args,
    programs: &Programs,
    place: &Path,
    sheet: &mut Sheet,
) -> anyhow::Result<()> {
    let listen = shell::free_address()?;
    let mut agent = start(programs, place, listen)?;
    let pid = agent.daemon.pid();
    let bodies = bodies(args.body_bytes);

    let yardstick = volley(args, listen, &challenges(args.body_bytes), pid)?;
    ensure!(yardstick.refused == 0, "the yardstick's requests were refused");
    let plain = yardstick.note(sheet, "yardstick, nothing stored");

    let before = agent.status()?.context("the agent does not answer")?;
    let durable = volley(args, listen, &bodies, pid)?;
    let speed = durable.note(sheet, "durable");
    let after = agent.status()?.context("the agent does not answer")?;
    let blocks = after.durable_next_seq.saturating_sub(before.durable_next_seq);
    sheet.add("ratio to the yardstick", "×", speed / plain);
    sheet.add("durable, requests of a block", "", float(durable.stored) / float(blocks.max(1)));
    sheet.add("durable, 503", "", float(durable.refused));
    sheet.add("agent memory, peak", "MiB", mib(procfs::memory(pid)?.peak_bytes));
    sheet.add("yardstick, 64 KiB synced", "/s", syncs(place)?);

    agent.daemon.kill()?;
    let kept = kept(programs, place)?;
    ensure!(
        kept >= durable.stored && kept <= durable.stored + durable.refused,
        "{} requests were told to be stored, the killed agent's spool holds {kept}",
        durable.stored
    );
    Ok(())
}

fn start(programs: &Programs, place: &Path, listen: SocketAddr) -> anyhow::Result<Agent> {
    let secret = place.join("hook.secret");
    let token = place.join("enroll.token");
    for (path, content) in [(&secret, SECRET), (&token, b"nobody asks for it")] {
        write_private(path, content)?;
    }
    // Nobody listens there.
    let mut settings = Settings::under(place, Path::new("none"), shell::free_address()?, &token);
    let secret = secret.display();
    settings.sources = Some(format!(
        "  - {{ id: hook, type: webhook, path: /hook, packs: [github], verify: {{ scheme: github, secret_files: ['{secret}'] }} }}\n  \
         - {{ id: ask, type: webhook, path: /ask, verify: {{ scheme: slack, secret_files: ['{secret}'] }} }}\n"
    ));
    settings.extra = format!(
        "webhook: {{ listen: '{listen}', max_connections: 4096 }}\nspool: {{ max_bytes: 4GiB }}\n"
    );
    let mut agent =
        settings.start(&programs.agent, &place.join("agent.yaml"), &place.join("agent.log"))?;
    let every = Duration::from_millis(20);
    shell::wait_for("the agent listens", PATIENCE, every, || {
        Ok(agent.status()?.filter(|_| TcpStream::connect(listen).is_ok()))
    })
    .with_context(|| agent.daemon.log_end())?;
    Ok(agent)
}

fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(content)?)
}

/// Events of the webhook in the spool of an agent that is not running.
fn kept(programs: &Programs, place: &Path) -> anyhow::Result<u64> {
    let mut child = Command::new(&programs.agent)
        .args(["spool", "cat", "--config"])
        .arg(place.join("agent.yaml"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().context("the program's output")?;
    let mut count = 0;
    for line in std::io::BufRead::split(std::io::BufReader::new(out), b'\n') {
        let line = line?;
        let found = line.windows(14).any(|part| part == b"\"input\":\"hook\"");
        count += u64::from(found);
    }
    ensure!(child.wait()?.success(), "custody-agent spool cat failed");
    Ok(count)
}

/// A request's head up to its delivery id, and what comes behind that.
struct Prepared {
    head: Vec<u8>,
    tail: Vec<u8>,
}

/// RFC 2104 with SHA-256.
fn hmac(message: &[u8]) -> String {
    let mut key = [0; 64];
    key[..SECRET.len()].copy_from_slice(SECRET);
    let padded =
        |pad: u8, rest: &[u8]| Digest::of(&[&key.map(|byte| byte ^ pad)[..], rest].concat());
    padded(0x5c, padded(0x36, message).as_bytes()).to_string()
}

fn prepared(path: &str, headers: &str, id_header: &str, body: &str) -> Prepared {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}{id_header}: ",
        body.len()
    );
    Prepared { head: head.into_bytes(), tail: format!("\r\n\r\n{body}").into_bytes() }
}

/// GitHub's `member` event, as long as is asked for.
fn bodies(bytes: usize) -> Vec<Prepared> {
    let one = |number: usize| {
        let mut body = format!(
            "{{\"action\":\"added\",\"member\":{{\"login\":\"user{number}\",\"id\":{number}}},\"repository\":{{\"id\":7,\"full_name\":\"octo/hello\",\"description\":\""
        );
        while body.len() + 80 < bytes {
            body.push_str("words of it ");
        }
        body.push_str("\"},\"sender\":{\"login\":\"octocat\",\"id\":1,\"type\":\"User\"}}");
        let headers = format!(
            "x-github-event: member\r\nx-hub-signature-256: sha256={}\r\n",
            hmac(body.as_bytes())
        );
        prepared("/hook", &headers, "x-github-delivery", &body)
    };
    (0..BODIES).map(one).collect()
}

/// Slack's `url_verification`, as long and signed as well.
fn challenges(bytes: usize) -> Vec<Prepared> {
    let now = shell::now().micros() / 1_000_000;
    let mut body = "{\"type\":\"url_verification\",\"challenge\":\"c\",\"token\":\"".to_owned();
    while body.len() + 2 < bytes {
        body.push('x');
    }
    body.push_str("\"}");
    let tag = hmac(format!("v0:{now}:{body}").as_bytes());
    let headers = format!("x-slack-request-timestamp: {now}\r\nx-slack-signature: v0={tag}\r\n");
    vec![prepared("/ask", &headers, "x-request", &body)]
}

/// What came of a volley.
#[derive(Debug, Default)]
struct Volley {
    stored: u64,
    refused: u64,
    wall: Duration,
    agent_cpu: Duration,
    latencies_ms: Vec<f64>,
}

impl Volley {
    /// The speed too.
    fn note(&self, sheet: &mut Sheet, name: &str) -> f64 {
        let speed = per_second(self.stored, self.wall);
        let is_durable = name == "durable";
        let row = format!("{name}, requests");
        match is_durable {
            true => sheet.add_for(&row, "/s", speed, Target::AtLeast(20_000.0)),
            false => sheet.add(&row, "/s", speed),
        }
        let cpu = self.agent_cpu.as_secs_f64() * 1e6 / float(self.stored.max(1));
        sheet.add(&format!("{name}, agent CPU"), "µs a request", cpu);
        for percent in [50, 99] {
            let at = percentile(&self.latencies_ms, percent).unwrap_or(f64::NAN);
            sheet.add(&format!("{name}, p{percent}"), "ms", at);
        }
        speed
    }

    fn add(&mut self, other: Self) {
        self.stored += other.stored;
        self.refused += other.refused;
        self.latencies_ms.extend(other.latencies_ms);
    }
}

/// Sends all requests from all senders.
fn volley(args: &Args, to: SocketAddr, what: &[Prepared], pid: u32) -> anyhow::Result<Volley> {
    let senders = usize::from(args.senders);
    let connections = (usize::from(args.connections) / senders).max(1);
    let requests = args.requests / senders;
    let (before, begun) = (procfs::cpu_time(pid)?, Instant::now());
    let mut whole = std::thread::scope(|scope| -> anyhow::Result<Volley> {
        let spawn = |sender| scope.spawn(move || send(to, what, connections, requests, sender));
        let threads: Vec<_> = (0..senders).map(spawn).collect();
        let mut whole = Volley::default();
        for thread in threads {
            match thread.join() {
                Ok(part) => whole.add(part?),
                Err(_) => bail!("a sender panicked"),
            }
        }
        Ok(whole)
    })?;
    whole.wall = begun.elapsed();
    whole.agent_cpu = procfs::cpu_time(pid)?.saturating_sub(before);
    Ok(whole)
}

/// A connection, and when its request went out.
struct Kept {
    stream: TcpStream,
    sent: Instant,
    answer: Vec<u8>,
}

/// Keeps one request under way on each connection: an answer is read from each in turn, and the next
/// request sent there at once.
fn send(
    to: SocketAddr,
    what: &[Prepared],
    connections: usize,
    requests: usize,
    sender: usize,
) -> anyhow::Result<Volley> {
    let connect = |_| -> anyhow::Result<Kept> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Kept { stream, sent: Instant::now(), answer: Vec::new() })
    };
    let connections = connections.min(requests);
    let mut all = (0..connections).map(connect).collect::<anyhow::Result<Vec<_>>>()?;
    let mut volley = Volley::default();
    let mut request = Vec::new();
    for number in 0..requests + connections {
        let kept = &mut all[number % connections];
        if number >= connections {
            match kept.status()? {
                200 => volley.stored += 1,
                503 => volley.refused += 1,
                other => bail!("answered {other}: {}", String::from_utf8_lossy(&kept.answer)),
            }
            volley.latencies_ms.push(millis(kept.sent.elapsed()));
        }
        if number < requests {
            let Prepared { head, tail } = &what[number % what.len()];
            request.clear();
            request.extend_from_slice(head);
            write!(request, "{sender}-{number:08}-b30b-4af1")?;
            request.extend_from_slice(tail);
            kept.sent = Instant::now();
            kept.stream.write_all(&request)?;
        }
    }
    Ok(volley)
}

impl Kept {
    /// Reads the answer to its end; its status.
    fn status(&mut self) -> anyhow::Result<u16> {
        self.answer.clear();
        let mut part = [0; 2048];
        loop {
            let got = match self.stream.read(&mut part) {
                Ok(0) => bail!("the agent closed a connection"),
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("waiting for an answer"),
            };
            self.answer.extend_from_slice(&part[..got]);
            if let Some(status) = whole(&self.answer) {
                return Ok(status);
            }
        }
    }
}

/// The status of an answer that is there to its end.
fn whole(answer: &[u8]) -> Option<u16> {
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    (answer.len() >= end + length).then_some(status)
}

/// How often in a second the disk takes and syncs what many requests come to.
fn syncs(place: &Path) -> anyhow::Result<f64> {
    let mut file = File::create(place.join("synced"))?;
    let bytes = vec![7; SYNCED_BYTES];
    let begun = Instant::now();
    let mut count = 0_usize;
    while begun.elapsed() < Duration::from_secs(2) {
        file.write_all(&bytes)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(per_second(len(count), begun.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is_there() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nfull\n";
        assert_eq!(whole(answer), Some(503));
        assert_eq!(whole(&answer[..answer.len() - 1]), None);
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\n"), None);
    }

    #[test]
    fn the_signature_is_that_of_rfc_2104() {
        // openssl dgst -sha256 -hmac a-secret-that-both-know
        let expected = "fc6f2a7f5aab4bd7e337cad95f71f5fa209f22817f6b59770f33da27c72c8be3";
        assert_eq!(hmac(b"Hi There"), expected);
    }
}
