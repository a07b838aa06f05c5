//! Measures the embedded index by itself: `index_bench [events] [folder]`.
//!
//! Events like those of web servers, shells and an application, 1,000 a block, from a log in one
//! file. Prints microseconds and bytes per event, then the newest 50 for usual searches.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use custody_collector::index::memory::MemoryLog;
use custody_collector::index::{
    EventStore, IndexOptions, Indexer, SearchRequest, StatsRequest, terms,
};
use custody_collector::query::line;
use custody_collector::store::Receipt;
use custody_event::{Clock, Draft, EventId, Field, SystemClock, Target, Timestamp};

const START: i64 = 1_780_000_000_000_000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Small numbers often, large ones seldom.
    fn skewed(&mut self, bound: u64) -> u64 {
        let width = self.below(bound) + 1;
        self.below(width)
    }
}

fn event(number: u64, random: &mut Random, out: &mut Vec<u8>) {
    let time = Timestamp::from_micros(START + i64::try_from(number).unwrap_or(0) * 1_000);
    let (a, b) = (random.next(), random.next());
    let mut id = [0; 16];
    id[..8].copy_from_slice(&a.to_be_bytes());
    id[8..].copy_from_slice(&b.to_be_bytes());
    let user = format!("user{}", random.skewed(5_000));
    let ip = format!("10.{}.{}.{}", random.skewed(20), random.skewed(256), random.below(256));
    let host = format!("web{}", random.below(20));
    let mut draft = Draft::new();
    draft.id(EventId(id));
    draft.time(Field::Time, time);
    draft.time(Field::Observed, time);
    draft.text(Field::Host, host.clone());
    draft.text(Field::ActorName, user.clone());
    draft.text(Field::SourceIp, ip.clone());
    draft.text(Field::OriginAgent, "0123456789abcdef0123456789abcdef");
    draft.text(Field::OriginInput, "auth");
    draft.text(Field::OriginPath, "/var/log/auth.log");
    draft.int(Field::OriginOffset, i64::try_from(number * 100).unwrap_or(0));
    let raw = match random.below(10) {
        0..5 => ssh(&mut draft, random, &user, &ip, &host),
        5..9 => web(&mut draft, random, &ip),
        _ => app(&mut draft, random, &user),
    };
    draft.text(Field::OriginRaw, raw);
    draft.finish(out);
    out.push(b'\n');
}

fn ssh(draft: &mut Draft<'_>, random: &mut Random, user: &str, ip: &str, host: &str) -> String {
    let failed = random.below(4) > 0;
    draft.text(Field::Action, "authentication.login");
    draft.text(Field::Category, "authentication");
    draft.text(Field::Op, "login");
    draft.text(Field::Outcome, if failed { "failure" } else { "success" });
    draft.text(Field::Severity, if failed { "low" } else { "info" });
    draft.text(Field::Service, "sshd");
    draft.text(Field::OriginPack, "sshd");
    draft.text(Field::OriginRule, "password");
    draft.text(Field::SessionMethods, "password");
    let port = 1_024 + random.below(60_000);
    draft.int(Field::SourcePort, i64::try_from(port).unwrap_or(0));
    let word = if failed { "Failed" } else { "Accepted" };
    let (minute, second, pid) = (random.below(60), random.below(60), random.below(30_000));
    format!(
        "Dec 10 06:{minute:02}:{second:02} {host} sshd[{pid}]: {word} password for {user} from {ip} port {port} ssh2"
    )
}

fn web(draft: &mut Draft<'_>, random: &mut Random, ip: &str) -> String {
    draft.text(Field::Action, "http.request");
    draft.text(Field::Category, "access");
    draft.text(Field::Op, "read");
    draft.text(Field::Outcome, "success");
    draft.text(Field::Severity, "info");
    draft.text(Field::Service, "nginx");
    draft.text(Field::OriginPack, "nginx");
    draft.text(Field::OriginRule, "combined");
    let path = format!("/shop/item/{}", random.skewed(20_000));
    draft.target(Target {
        kind: Some("url".into()),
        name: Some(path.clone().into()),
        ..Target::default()
    });
    let (minute, second, bytes) = (random.below(60), random.below(60), random.below(50_000));
    format!(
        "{ip} - - [10/Dec/2026:06:{minute:02}:{second:02} +0000] \"GET {path} HTTP/1.1\" 200 {bytes} \"https://shop.example.org/\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36\""
    )
}

fn app(draft: &mut Draft<'_>, random: &mut Random, user: &str) -> String {
    let action =
        ["contact.update", "data.export", "settings.retention_policy.update", "role.grant"]
            [usize::try_from(random.below(4)).unwrap_or(0)];
    draft.text(Field::Action, action);
    draft.text(Field::Category, "data");
    draft.text(Field::Op, "update");
    draft.text(Field::Outcome, "success");
    draft.text(Field::Severity, if random.below(1_000) == 0 { "critical" } else { "medium" });
    draft.text(Field::Service, "crm");
    draft.text(Field::OriginPack, "generic-json");
    draft.text(Field::OriginRule, "any");
    let session = format!("sess_{:08x}", random.below(1 << 20));
    draft.text(Field::SessionId, session.clone());
    let contact = random.below(100_000);
    let rare = if random.below(100_000) == 0 { "needle" } else { "hay" };
    format!(
        "{{\"action\":\"{action}\",\"user\":\"{user}@company.com\",\"contact\":{contact},\"session_id\":\"{session}\",\"note\":\"{rare}\"}}"
    )
}

fn fill(log: &MemoryLog, events: u64) -> anyhow::Result<()> {
    let mut random = Random(42);
    let mut text = Vec::new();
    for number in 0..events {
        event(number, &mut random, &mut text);
        if (number + 1) % 1_000 == 0 || number + 1 == events {
            let received = Timestamp::from_micros(START);
            log.append(&text, Receipt { held: Vec::new(), received })?;
            text.clear();
        }
    }
    Ok(())
}

fn folder_bytes(path: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() { folder_bytes(&entry.path())? } else { meta.len() };
    }
    Ok(sum)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per(sum: u64, events: u64) -> f64 {
    sum as f64 / events as f64
}

fn cpu_micros() -> anyhow::Result<u64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(u64::try_from(time.tv_sec)? * 1_000_000 + u64::try_from(time.tv_nsec)? / 1_000)
}

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let events: u64 = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let folder =
        args.next().map_or_else(|| std::env::temp_dir().join("custody-index-bench"), Into::into);
    let mut out = std::io::stdout().lock();
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => std::fs::create_dir_all(&folder)?,
    }
    let file = std::fs::File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(folder.join("log"))?;
    let log = Arc::new(MemoryLog::new(Some(file))?);
    fill(&log, events)?;
    let options = IndexOptions::new(folder.join("index"));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (store, mut indexer) = Indexer::open(options.clone(), log, clock)?;
    let (wall, cpu) = (Instant::now(), cpu_micros()?);
    indexer.catch_up(|_| {})?;
    let (wall, cpu) = (wall.elapsed(), cpu_micros()? - cpu);
    writeln!(
        out,
        "indexed {events} events: {:.1} us wall, {:.1} us CPU, {:.1} bytes per event",
        per(u64::try_from(wall.as_micros())?, events),
        per(cpu, events),
        per(folder_bytes(&options.dir)?, events),
    )?;
    searches(store.as_ref(), &mut out)?;
    drop(indexer);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn searches(store: &dyn EventStore, out: &mut impl Write) -> anyhow::Result<()> {
    let now = Timestamp::from_micros(START);
    for text in [
        "",
        "password",
        "needle",
        "needle hay",
        "actor:user17",
        "actor:user4999",
        "ip:10.3.7.0/24",
        "ip:10.0.0.0/8",
        "ip:10.19.250.77",
        "outcome:failure service:sshd",
        "outcome:failure category:access",
        "action:data.*",
        "action:*.update severity:critical",
        "-category:access -category:authentication",
        "severity:(high OR critical)",
        "\"session_id\":\"sess_\" nosuchword",
        "\"Failed password for user1\"",
        "session:sess_000abc12",
    ] {
        let mut times = Vec::new();
        let mut page = custody_collector::index::Page::default();
        for _ in 0..7 {
            let request = SearchRequest {
                filter: line::parse(text, now)?,
                limit: 50,
                total: true,
                ..SearchRequest::default()
            };
            let begun = Instant::now();
            page = store.search(&request)?;
            times.push(begun.elapsed());
        }
        let first = times[0];
        times.sort_unstable();
        writeln!(
            out,
            "{:>9.2?} first {:>9.2?} median  {:>3} hits of {}{}  {text}",
            first,
            times[times.len() / 2],
            page.hits.len(),
            page.total.value,
            if page.total.exact { "" } else { "+" },
        )?;
    }
    for (text, tag) in [("", terms::Tag::Action), ("outcome:failure", terms::Tag::ActorName)] {
        let request = StatsRequest {
            filter: line::parse(text, now)?,
            group_by: Some(tag),
            interval_micros: Some(3_600_000_000),
            ..StatsRequest::default()
        };
        let begun = Instant::now();
        let stats = store.stats(&request)?;
        writeln!(out, "{:>9.2?} counts of {} by {tag:?}  {text}", begun.elapsed(), stats.total)?;
    }
    Ok(())
}
