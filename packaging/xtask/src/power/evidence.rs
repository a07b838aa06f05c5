//! Power cuts under the collector's evidence log.
//!
//! Several posters, each one agent with one stream, post small blocks to the real collector and
//! remember what was acknowledged. On the cut image a collector must know every acknowledged
//! block: asked for a block far ahead it names the number that it expects, which is not below what
//! was acknowledged; it takes known blocks again without a word and the next ones as if nothing
//! had happened (so its last hash is ours); `verify` finds all evidence good; and with an index,
//! the last acknowledged events are found, each once.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::disk::Disk;
use super::{Report, Session};
use crate::collector::{Collector, newest, verify};
use crate::generate::blocks::Stream;
use crate::generate::{Act, Kind, Maker, Random};
use crate::http::Client;
use crate::shell;

const POSTERS: u64 = 4;
/// Blocks made ahead of the one that is posted: one that a collector can surely not have yet.
const AHEAD: u64 = 2;
/// Blocks that a poster remembers.
const REMEMBERED: usize = 64;
const BLOCK: &str = "application/vnd.custody.block";
/// The index has caught up by then.
const SEARCHABLE: Duration = Duration::from_secs(30);

/// A block and its number.
type Numbered = (u64, Vec<u8>);

/// What a poster knows.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Blocks before this one are acknowledged.
    acknowledged: u64,
    /// The newest blocks, the last [`AHEAD`] of them not posted yet.
    recent: VecDeque<Numbered>,
    /// An answer that should not be.
    wrong: Option<String>,
}

/// One agent that posts.
#[derive(Debug)]
struct Poster {
    number: u64,
    token: String,
    /// `/v1/streams/…/blocks/`
    path: String,
    known: Arc<Mutex<Known>>,
    thread: JoinHandle<anyhow::Result<()>>,
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The user of every event of a block: its own word.
fn user(poster: u64, seq: u64) -> String {
    format!("cut{poster}x{seq}")
}

impl Poster {
    fn start(
        number: u64,
        collector: &Collector,
        seed: u64,
        stop: &Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let mut stream = Stream::new(seed)?;
        let token = collector.enroll(stream.agent, &stream.host, stream.key())?;
        let path = stream.path(0).trim_end_matches('0').to_owned();
        let known = Arc::new(Mutex::new(Known::default()));
        let client = Client::new(collector.address, Some(token.clone()));
        let (shared, stop, to) = (Arc::clone(&known), Arc::clone(stop), path.clone());
        let mut source = Source {
            number,
            maker: Maker::new(seed, &Kind::ALL, shell::now(), 10),
            random: Random::new(seed),
        };
        let thread = std::thread::spawn(move || {
            post_all(&mut stream, &mut source, client, &to, &shared, &stop)
        });
        Ok(Self { number, token, path, known, thread })
    }

    fn known(&self) -> Known {
        lock(&self.known).clone()
    }
}

/// Where a poster's events come from.
struct Source {
    number: u64,
    maker: Maker,
    random: Random,
}

impl Source {
    fn next(&mut self, stream: &mut Stream) -> anyhow::Result<Numbered> {
        let seq = stream.next_seq();
        let count = 1 + self.random.below(40);
        let acts: Vec<Act> = (0..count)
            .map(|_| Act { user: user(self.number, seq), kind: Kind::Nginx, ..self.maker.next() })
            .collect();
        Ok((seq, stream.block(&acts, shell::now())?))
    }
}

/// Until told to stop, or until nobody answers any more.
fn post_all(
    stream: &mut Stream,
    source: &mut Source,
    mut client: Client,
    path: &str,
    known: &Mutex<Known>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut seq = 0;
    while !stop.load(Ordering::Relaxed) {
        while stream.next_seq() <= seq + AHEAD {
            let block = source.next(stream)?;
            let mut known = lock(known);
            known.recent.push_back(block);
            if known.recent.len() > REMEMBERED {
                known.recent.pop_front();
            }
        }
        let block = lock(known).recent.iter().find(|(number, _)| *number == seq).cloned();
        let (_, block) = block.context("the block to post was forgotten")?;
        let answer = client.post(&format!("{path}{seq}"), BLOCK, &block);
        match answer {
            Ok(answer) if answer.status == 200 => {
                seq += 1;
                lock(known).acknowledged = seq;
            }
            Ok(answer) if matches!(answer.status, 429 | 500..=599) => {
                std::thread::sleep(Duration::from_millis(5))
            }
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                lock(known).wrong = Some(format!("block {seq}: {} {text}", answer.status));
                return Ok(());
            }
            // The collector is gone (killed after a shutdown); what was acknowledged is noted.
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    Ok(())
}

/// What was true when the power went.
struct Cut {
    number: u32,
    how: &'static str,
    /// Of each poster: before the cut (acknowledged) and after it (what may have been under way).
    known: Vec<(u64, Known)>,
}

pub(super) fn run(mut session: Session<'_>) -> anyhow::Result<Report> {
    let mut disk = Disk::make(session.folder, session.file_system)?;
    // Every other session with the index, whose own recovery is looked at as well.
    let indexed = session.random.below(2) == 0;
    let args: &[&str] = if indexed { &[] } else { &["--index", "none"] };
    let data = disk.path().join("collector-data");
    let collector = Collector::start(
        &session.programs.collector,
        &data,
        args,
        &session.folder.join("live.log"),
    )?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut posters = Vec::new();
    for number in 0..POSTERS {
        posters.push(Poster::start(number, &collector, session.random.next(), &stop)?);
    }
    wait_for_blocks(&posters).with_context(|| collector.daemon.log_end())?;
    let mut report = Report::default();
    for number in 0..session.snapshots {
        session.pause(10, 500);
        let before: Vec<u64> = posters.iter().map(|poster| poster.known().acknowledged).collect();
        disk.snapshot()?;
        let known = before.into_iter().zip(posters.iter().map(Poster::known)).collect();
        let mounted = disk.mount_snapshot()?;
        let cut = Cut { number, how: "snapshot", known };
        check(&session, &disk, &mounted.path, indexed, &cut, &posters, &mut report)?;
        mounted.unmount()?;
    }
    session.pause(10, 500);
    disk.shut_down()?;
    // What is acknowledged now must be true as well.
    std::thread::sleep(Duration::from_millis(300));
    collector.daemon.kill()?;
    stop.store(true, Ordering::Relaxed);
    let known =
        posters.iter().map(Poster::known).map(|known| (known.acknowledged, known)).collect();
    let cut = Cut { number: session.snapshots, how: "shutdown", known };
    disk.power_on()?;
    check(&session, &disk, &disk.path(), indexed, &cut, &posters, &mut report)?;
    for poster in posters {
        match poster.thread.join() {
            Ok(ended) => ended?,
            Err(_) => bail!("a posting thread panicked"),
        }
    }
    Ok(report)
}

fn wait_for_blocks(posters: &[Poster]) -> anyhow::Result<()> {
    shell::wait_for("blocks are acknowledged", SEARCHABLE, Duration::from_millis(5), || {
        if let Some(wrong) = posters.iter().find_map(|poster| poster.known().wrong) {
            bail!("{wrong}");
        }
        Ok(posters.iter().all(|poster| poster.known().acknowledged > 1).then_some(()))
    })
}

fn check(
    session: &Session<'_>,
    disk: &Disk,
    mount: &Path,
    indexed: bool,
    cut: &Cut,
    posters: &[Poster],
    report: &mut Report,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut wrong = Vec::new();
    if let Err(error) = check_recovery(session, mount, indexed, cut, posters, &mut wrong) {
        wrong.push(format!("{error:#}"));
    }
    report.recovered(begun.elapsed(), cut.known.iter().map(|(acknowledged, _)| acknowledged).sum());
    if wrong.is_empty() {
        return Ok(());
    }
    let name = session.file_system.name();
    if let Some(keep) = session.keep {
        disk.keep(&keep.join(format!("evidence-{name}-{}-{}.img", cut.how, cut.number)))?;
    }
    let place = format!("{name}, {} {}", cut.how, cut.number);
    report.wrong.extend(wrong.into_iter().map(|sentence| format!("{place}: {sentence}")));
    Ok(())
}

fn check_recovery(
    session: &Session<'_>,
    mount: &Path,
    indexed: bool,
    cut: &Cut,
    posters: &[Poster],
    wrong: &mut Vec<String>,
) -> anyhow::Result<()> {
    let data = mount.join("collector-data");
    let log = session.folder.join(format!("cut-{}.log", cut.number));
    let args: &[&str] = if indexed { &[] } else { &["--index", "none"] };
    let mut collector = Collector::start(&session.programs.collector, &data, args, &log)?;
    for (poster, (acknowledged, known)) in posters.iter().zip(&cut.known) {
        wrong.extend(known.wrong.clone());
        let mut client = Client::new(collector.address, Some(poster.token.clone()));
        wrong.extend(check_stream(&mut client, poster, *acknowledged, known)?);
    }
    if indexed && wrong.is_empty() {
        for (poster, (acknowledged, known)) in posters.iter().zip(&cut.known) {
            check_search(&mut collector, poster.number, *acknowledged, known, wrong)?;
        }
    }
    collector.daemon.stop(Duration::from_secs(30))?;
    if let Err(error) = verify(&session.programs.collector, &data) {
        wrong.push(format!("{error:#}"));
    }
    Ok(())
}

/// What is wrong with one stream, if anything.
fn check_stream(
    client: &mut Client,
    poster: &Poster,
    acknowledged: u64,
    known: &Known,
) -> anyhow::Result<Option<String>> {
    let place = format!("poster {}, acknowledged up to {acknowledged}", poster.number);
    let Some((far, block)) = known.recent.back() else { return Ok(None) };
    let answer = client.post(&format!("{}{far}", poster.path), BLOCK, block)?;
    let expected = answer.value()["expected_seq"].as_u64();
    let Some(next) = expected.filter(|_| answer.status == 409) else {
        let text = String::from_utf8_lossy(&answer.body);
        return Ok(Some(format!(
            "{place}: block {far} is far ahead, and the answer is {} {text}",
            answer.status
        )));
    };
    if next < acknowledged {
        return Ok(Some(format!(
            "{place}: the collector expects block {next}: acknowledged blocks are lost"
        )));
    }
    // Known ones again, then new ones.
    for (seq, block) in &known.recent {
        let answer = client.post(&format!("{}{seq}", poster.path), BLOCK, block)?;
        let further = answer.value()["next_seq"].as_u64();
        if answer.status != 200 || further != Some(next.max(seq + 1)) {
            let text = String::from_utf8_lossy(&answer.body);
            return Ok(Some(format!(
                "{place}, expected {next}: block {seq}: {} {text}",
                answer.status
            )));
        }
    }
    Ok(None)
}

/// The last acknowledged block's events are found, and not one of them twice.
fn check_search(
    collector: &mut Collector,
    poster: u64,
    acknowledged: u64,
    known: &Known,
    wrong: &mut Vec<String>,
) -> anyhow::Result<()> {
    let Some(seq) = acknowledged.checked_sub(1) else { return Ok(()) };
    let Some((_, block)) = known.recent.iter().find(|(number, _)| *number == seq) else {
        return Ok(());
    };
    let events = usize::try_from(custody_event::Block::decode(block)?.header.count)?;
    let mut client = collector.admin()?;
    let query = format!("actor:{}", user(poster, seq));
    let mut found = 0;
    let waited =
        shell::wait_for("search finds them", SEARCHABLE, Duration::from_millis(20), || {
            found = newest(&mut client, &query, 100)?.events.len();
            Ok((found >= events).then_some(()))
        });
    if waited.is_err() || found != events {
        wrong.push(format!(
            "search finds {found} of the {events} events of block {seq} of poster {poster}"
        ));
    }
    Ok(())
}
