//! The custody output against a collector that answers by script: nothing is lost, whatever it says.

#![allow(clippy::unwrap_used, reason = "a scripted collector is a test's helper")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use custody_agent::outputs::{CustodyOutput, CustodySettings, Ended, Identity, TokenStore};
use custody_agent::pipeline::{OwnAct, Undelivered};
use custody_agent::spool::{Batch, Options, Spool, SpoolClock, SpoolHandle, SpooledBlock};
use custody_agent::status::OutputState;
use custody_config::shell::StopToken;
use custody_event::block::{Accounts, Placement, Sealer};
use custody_event::{AgentId, Block, Clock, Digest, KeyId, Seq, StreamId, SystemClock, Timestamp};
use custody_evidence::note::{KeyType, NoteKey};
use custody_evidence::tlog::{Log, MemoryTiles, Prover};
use custody_evidence::{AgentKey, Checkpoint, Entry, LogReceipt};

const STREAM: StreamId = StreamId([2; 16]);
const AGENT: AgentId = AgentId([1; 16]);

struct TestClock(SystemClock);

impl SpoolClock for TestClock {
    fn unix_ms(&self) -> u64 {
        u64::try_from(self.0.now().micros() / 1000).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

/// What the collector is asked.
struct Asked {
    path: String,
    token: String,
    body: Vec<u8>,
}

/// Status, header lines, body.
type Said = (u16, &'static str, String);

type Script = dyn FnMut(Asked) -> Said + Send;

fn serve(script: Box<Script>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(Mutex::new(script));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let script = Arc::clone(&script);
            std::thread::spawn(move || answer_all(stream.unwrap(), &script));
        }
    });
    format!("http://{address}")
}

fn answer_all(stream: TcpStream, script: &Mutex<Box<Script>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(asked) = read_request(&mut reader) {
        let (status, headers, body) = (script.lock().unwrap())(asked);
        let head =
            format!("HTTP/1.1 {status} x\r\n{headers}content-length: {}\r\n\r\n", body.len());
        if writer.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut token) = (0, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let lower = line.trim().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        if let Some(value) = lower.strip_prefix("authorization: bearer ") {
            token = value.to_owned();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { path, token, body })
}

fn key() -> AgentKey {
    AgentKey::from_secret(&[3; 32])
}

fn blocks(count: u64) -> Vec<Block> {
    let mut prev = Digest::ZERO;
    let mut sealer = Sealer::new().unwrap();
    (0..count)
        .map(|seq| {
            let text = format!("{{\"n\":{seq}}}\n");
            let times = (Timestamp::Y2020, Timestamp::Y2020);
            let placement = Placement {
                agent: AGENT,
                host: "h".into(),
                key: KeyId([0; 8]),
                stream: STREAM,
                seq: Seq(seq),
                prev,
                sealed: Timestamp::Y2020,
            };
            let sealed = sealer.seal(text.as_bytes(), times, [0; 32]).unwrap();
            let mut block = sealed.place(placement, Accounts::default());
            key().sign(&mut block);
            prev = block.hash();
            block
        })
        .collect()
}

struct Bench {
    _folder: tempfile::TempDir,
    spool: SpoolHandle,
    outputs: Vec<&'static str>,
    in_flight: usize,
    clock: Arc<dyn Clock>,
    acts: (Sender<OwnAct>, Receiver<OwnAct>),
    tokens: TokenStore,
    generation: u32,
    /// As the spool says it when the output comes back into the configuration.
    skipped: std::ops::Range<u64>,
}

impl Bench {
    fn new(count: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::for_max_bytes(64 << 20);
        options.min_free_bytes = 0;
        let clock = Arc::new(TestClock(SystemClock::new()));
        let (spool, opened) = Spool::open(&folder.path().join("spool"), options, clock).unwrap();
        spool.register_outputs(&["central"]).wait().unwrap();
        for block in blocks(count) {
            let spooled =
                SpooledBlock { seq: block.header.seq.get(), bytes: block.encode().unwrap().into() };
            spool
                .append(Batch { block: Some(spooled), ..Batch::default() })
                .unwrap()
                .wait()
                .unwrap();
        }
        let kept = folder.path().join("token-central");
        std::fs::write(&kept, "good\n").unwrap();
        Self {
            spool,
            outputs: vec!["central"],
            in_flight: 3,
            clock: Arc::new(SystemClock::new()),
            acts: crossbeam_channel::bounded(16),
            tokens: TokenStore { configured: None, enroll: None, kept },
            generation: opened.generation,
            skipped: 0..0,
            _folder: folder,
        }
    }

    /// Runs the output until all blocks are acknowledged, it ends by itself, or 20 s are over.
    fn run(&self, endpoints: Vec<String>, until_seq: u64) -> Ended {
        self.run_as("central", endpoints, until_seq)
    }

    /// The same for an output of this name.
    fn run_as(&self, id: &str, endpoints: Vec<String>, until_seq: u64) -> Ended {
        let outputs = self.spool.register_outputs(&self.outputs).wait().unwrap();
        let cursor = outputs.into_iter().find(|cursor| cursor.output == id).unwrap();
        let state = OutputState::new(id, 0);
        let settings = CustodySettings {
            id: id.into(),
            endpoints,
            tokens: self.tokens.clone(),
            witness: self._folder.path().join(format!("log-{id}")),
            cosigner: Arc::new(key().witness(&AGENT)),
            keys: Arc::new(custody_agent::rotation::Rotations::load(self._folder.path()).unwrap()),
            acts: self.acts.0.clone(),
            max_backoff: Duration::from_millis(20),
            in_flight: self.in_flight,
            seed: 7,
            skipped: self.skipped.clone(),
            refused: cursor.refused.into_iter().collect(),
        };
        let identity = Identity {
            agent: AGENT,
            host_id: "h".into(),
            hostname: "web1".into(),
            public_key: String::new(),
        };
        let stop = StopToken::new();
        let clock = Arc::clone(&self.clock);
        let place = (STREAM, self.generation);
        // Another test of this process may have been first.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = reqwest::Client::builder().build().unwrap();
            let spool = self.spool.clone();
            let output = CustodyOutput::new(
                settings,
                identity,
                client,
                spool,
                place,
                clock,
                Arc::clone(&state),
            )
            .unwrap();
            let acknowledged = async move {
                while state.snapshot(0).next_seq < until_seq {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let mut run = std::pin::pin!(output.run(self.skipped.end, stop.clone()));
            tokio::select! {
                ended = &mut run => return ended,
                () = acknowledged => stop.stop(),
                () = tokio::time::sleep(Duration::from_secs(20)) => panic!("delivery takes too long"),
            }
            run.await
        })
    }
}

fn seq_of(asked: &Asked) -> u64 {
    asked.path.rsplit('/').next().unwrap().parse().unwrap()
}

fn durable(next_seq: u64) -> Said {
    (200, "", format!("{{\"next_seq\":{next_seq}}}"))
}

/// A collector that keeps what comes in order and says what it expects otherwise.
#[derive(Default)]
struct Honest {
    kept: Vec<Vec<u8>>,
}

impl Honest {
    fn take(&mut self, asked: Asked) -> Said {
        let (seq, next) = (seq_of(&asked), u64::try_from(self.kept.len()).unwrap());
        if seq > next {
            return (409, "", format!("{{\"expected_seq\":{next}}}"));
        }
        if seq == next {
            self.kept.push(asked.body);
        }
        durable(next.max(seq + 1))
    }
}

#[test]
fn every_answer_but_yes_keeps_the_blocks_and_all_arrive_in_order_in_the_end() {
    let bench = Bench::new(40);
    let kept = Arc::new(Mutex::new(Honest::default()));
    let (mut turn, collector) = (0, Arc::clone(&kept));
    let url = serve(Box::new(move |asked| {
        turn += 1;
        match turn % 7 {
            1 => (503, "retry-after: 0\r\n", String::new()),
            2 => (500, "", "oops".into()),
            3 => (429, "", String::new()),
            4 => (200, "", "not json".into()),
            5 => (302, "location: http://127.0.0.1:1/\r\n", String::new()),
            _ => collector.lock().unwrap().take(asked),
        }
    }));
    assert_eq!(bench.run(vec![url], 40), Ended::Stopped);
    let expected: Vec<Vec<u8>> = blocks(40).iter().map(|block| block.encode().unwrap()).collect();
    assert_eq!(kept.lock().unwrap().kept, expected);
}

#[test]
fn a_dead_endpoint_is_left_for_the_next() {
    let bench = Bench::new(5);
    let mut honest = Honest::default();
    let good = serve(Box::new(move |asked| honest.take(asked)));
    assert_eq!(bench.run(vec!["http://127.0.0.1:1".into(), good], 5), Ended::Stopped);
}

#[test]
fn a_refused_token_is_replaced_by_enrolling_again_and_nothing_is_lost() {
    let mut bench = Bench::new(5);
    let enroll = bench._folder.path().join("enroll.token");
    std::fs::write(&enroll, "let-me-in").unwrap();
    bench.tokens.enroll = Some(secret_file(&enroll));
    let mut honest = Honest::default();
    let url = serve(Box::new(move |asked| match (&*asked.path, &*asked.token) {
        ("/v1/enroll", "let-me-in") => (200, "", "{\"agent\":\"x\",\"token\":\"new\"}".into()),
        (_, "new") => honest.take(asked),
        _ => (401, "", "{\"detail\":\"unknown token\"}".into()),
    }));
    assert_eq!(bench.run(vec![url], 5), Ended::Stopped);
    assert_eq!(std::fs::read_to_string(&bench.tokens.kept).unwrap(), "new\n");
}

/// The way a secret file comes out of a configuration.
fn secret_file(path: &std::path::Path) -> custody_config::SecretFile {
    let yaml = format!(
        "data_dir: /nowhere\nsources: [{{ id: a, type: file, paths: [/x] }}]\noutputs: [{{ id: central, type: custody, endpoints: [\"http://127.0.0.1:1\"], enroll_token_file: {} }}]\n",
        path.display()
    );
    let loaded = custody_config::AgentConfig::from_text(
        std::path::Path::new("agent.yaml"),
        &yaml,
        &custody_config::AgentOverrides::default(),
        &custody_config::Env::default(),
    )
    .unwrap();
    let custody_config::agent::OutputConfig::Custody(output) = &loaded.value.outputs[0];
    output.enroll_token_file.clone().unwrap()
}

/// A collector that never takes the events of block 3; notes which blocks came without theirs.
fn never_takes_3(seen: &Arc<Mutex<BTreeMap<u64, bool>>>, status: u16) -> String {
    let (seen, mut honest) = (Arc::clone(seen), Honest::default());
    serve(Box::new(move |asked| {
        let block = Block::decode(&asked.body).unwrap();
        if seq_of(&asked) == 3 && !block.is_sparse() {
            return (status, "", "{\"detail\":\"event 0 is not canonical\"}".into());
        }
        seen.lock().unwrap().insert(seq_of(&asked), block.is_sparse());
        honest.take(asked)
    }))
}

#[test]
fn what_one_output_refuses_goes_without_events_there_whole_elsewhere_and_is_a_gap() {
    for status in [413, 422] {
        let mut bench = Bench::new(6);
        bench.outputs.push("other");
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let url = never_takes_3(&seen, status);
        assert_eq!(bench.run(vec![url], 6), Ended::Stopped);
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 6);
        assert!(seen.iter().all(|(seq, is_sparse)| *is_sparse == (*seq == 3)));
        let dead = bench.spool.dead_letters().wait().unwrap();
        assert_eq!(dead.len(), 1);
        assert!(dead[0].reason.starts_with(&format!("central: {status}")), "{}", dead[0].reason);
        let kept = bench.spool.read_dead_letter(dead[0].id).wait().unwrap().unwrap();
        assert_eq!(Block::decode(&kept).unwrap().open().unwrap().events().count(), 1);

        // The gap says whose, which, how much and why; it is kept until the chain tells it.
        let told: Vec<OwnAct> = bench.acts.1.try_iter().collect();
        let [OwnAct::Undelivered(gap)] = &told[..] else { panic!("one gap: {told:?}") };
        assert_eq!((gap.output.as_str(), gap.block, gap.records), ("central", 3, 1));
        assert_eq!(gap.stream, STREAM.to_hex());
        assert!(gap.reason.contains("not canonical"), "{}", gap.reason);
        assert_eq!(Undelivered::untold(&bench.spool).unwrap(), std::slice::from_ref(gap));

        // The other output gets every byte that was signed.
        let kept = Arc::new(Mutex::new(Honest::default()));
        let collector = Arc::clone(&kept);
        let url = serve(Box::new(move |asked| collector.lock().unwrap().take(asked)));
        assert_eq!(bench.run_as("other", vec![url], 6), Ended::Stopped);
        let expected: Vec<Vec<u8>> = blocks(6).iter().map(|b| b.encode().unwrap()).collect();
        assert_eq!(kept.lock().unwrap().kept, expected);
        assert_eq!(bench.acts.1.try_iter().count(), 0);
    }
}

#[test]
fn after_a_restart_a_refused_block_goes_without_its_events_at_once() {
    let bench = Bench::new(6);
    bench.spool.set_aside("central", 3, "413", Vec::new()).wait().unwrap();
    let whole = Arc::new(Mutex::new(Vec::new()));
    let (seen, mut honest) = (Arc::clone(&whole), Honest::default());
    let url = serve(Box::new(move |asked| {
        if !Block::decode(&asked.body).unwrap().is_sparse() {
            seen.lock().unwrap().push(seq_of(&asked));
        }
        honest.take(asked)
    }));
    assert_eq!(bench.run(vec![url], 6), Ended::Stopped);
    let mut whole = whole.lock().unwrap().clone();
    whole.sort_unstable();
    whole.dedup();
    assert_eq!(whole, [0, 1, 2, 4, 5]);
    assert_eq!(bench.spool.dead_letters().wait().unwrap().len(), 1);
}

#[test]
fn a_collector_that_is_ahead_within_what_we_have_is_believed() {
    let bench = Bench::new(6);
    let url = serve(Box::new(move |asked| match seq_of(&asked) {
        seq if seq < 4 => (409, "", "{\"expected_seq\":4}".into()),
        seq => durable(seq + 1),
    }));
    assert_eq!(bench.run(vec![url], 6), Ended::Stopped);
}

#[test]
fn what_a_collector_ahead_of_us_claims_is_not_freed_before_the_chain_proves_it() {
    let bench = Bench::new(6);
    let url = serve(Box::new(move |asked| match seq_of(&asked) {
        seq if seq < 4 => (409, "", "{\"expected_seq\":4}".into()),
        _ => (409, "", "{\"code\":\"stream_forked\",\"expected_seq\":4}".into()),
    }));
    assert!(matches!(bench.run(vec![url], 6), Ended::NewStream { .. }));
    assert!(bench.spool.read(0).wait().unwrap().is_some(), "a block was given away");
}

#[test]
fn blocks_that_were_deleted_while_an_output_was_not_configured_are_not_taken_for_forgotten() {
    for (skipped, is_forgotten) in [(1..4, false), (3..4, true)] {
        let mut bench = Bench::new(6);
        bench.skipped = skipped;
        let url = serve(Box::new(|_| (409, "", "{\"expected_seq\":2}".into())));
        let Ended::NewStream { forgotten, reason } = bench.run(vec![url], 6) else {
            panic!("the stream goes on");
        };
        assert_eq!(forgotten, is_forgotten, "{reason}");
    }
}

#[test]
fn a_collector_with_another_past_ends_the_stream() {
    let answers: [(u16, &str); 2] = [
        (409, "{\"code\":\"stream_forked\",\"expected_seq\":2,\"detail\":\"other\"}"),
        (409, "{\"expected_seq\":77}"),
    ];
    for (status, body) in answers {
        let bench = Bench::new(3);
        let url = serve(Box::new(move |_| (status, "", body.to_owned())));
        let stopped_by_itself = bench.run(vec![url], 3);
        assert!(matches!(stopped_by_itself, Ended::NewStream { .. }), "{body}");
        assert_eq!(bench.spool.stats().blocks, 3);
    }
}

/// A collector with a log; moves the agent's clock to the next of these times with each block.
struct WithLog {
    log: Log<MemoryTiles>,
    key: NoteKey,
    clock: Arc<SetClock>,
    times_ms: Vec<u64>,
    /// What the agent has on disk.
    remembered: std::path::PathBuf,
    /// Sizes: what was cosigned, and what was on disk then.
    cosigned: Arc<Mutex<Vec<(u64, u64)>>>,
}

/// A monotonic clock that is set.
#[derive(Default)]
struct SetClock(std::sync::atomic::AtomicU64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::Y2020
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }
}

impl WithLog {
    fn note(&self) -> String {
        Checkpoint::new(self.key.name(), self.log.head()).sign(&self.key)
    }

    fn size_in(&self, note: &str) -> u64 {
        Checkpoint::open(note, &self.key.verifier(KeyType::Ed25519)).unwrap().head.size
    }

    fn answer(&mut self, asked: &Asked) -> Said {
        if asked.path.starts_with("/v1/log?") {
            let vkey = self.key.verifier(KeyType::Ed25519).to_string();
            let shown = serde_json::json!({
                "vkey": vkey, "checkpoint": self.note(), "proofs": [], "forks": [],
            });
            return (200, "", shown.to_string());
        }
        if asked.path == "/v1/log/witness" {
            let said: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
            let on_disk = std::fs::read_to_string(&self.remembered).unwrap();
            let (_, on_disk) = on_disk.split_once('\n').unwrap();
            let sizes = (self.size_in(said["checkpoint"].as_str().unwrap()), self.size_in(on_disk));
            self.cosigned.lock().unwrap().push(sizes);
            return (200, "", "{\"continued\":true}".into());
        }
        let from = self.log.size();
        let entry = Entry::of_encoded_block(&asked.body).unwrap().unwrap();
        let index = self.log.append(&entry.encode()).unwrap();
        self.log.commit(true).unwrap();
        let mut prover = Prover::new(&self.log, self.log.size());
        let receipt = LogReceipt {
            checkpoint: self.note(),
            consistency: prover.consistency(from).unwrap(),
            from,
            inclusion: prover.inclusion(index).unwrap(),
            index,
        };
        let time_ms = self.times_ms[usize::try_from(index).unwrap()];
        self.clock.0.store(time_ms, std::sync::atomic::Ordering::Relaxed);
        let next_seq = seq_of(asked) + 1;
        (200, "", serde_json::json!({ "next_seq": next_seq, "receipt": receipt }).to_string())
    }
}

#[test]
fn nothing_is_cosigned_that_a_kill_would_make_the_agent_forget() {
    let mut bench = Bench::new(4);
    bench.in_flight = 1;
    let clock = Arc::new(SetClock::default());
    bench.clock = Arc::<SetClock>::clone(&clock);
    let cosigned = Arc::new(Mutex::new(Vec::new()));
    let mut collector = WithLog {
        log: Log::open(MemoryTiles::default(), 0).unwrap(),
        key: NoteKey::new("test/log", &[8; 32]).unwrap(),
        clock,
        // The second is written to disk in the common course, the third comes too soon after it
        // for that, and is due for a cosignature.
        times_ms: vec![0, 59_900, 60_100, 60_200],
        remembered: bench._folder.path().join("log-central"),
        cosigned: Arc::clone(&cosigned),
    };
    let url = serve(Box::new(move |asked| collector.answer(&asked)));
    assert_eq!(bench.run(vec![url], 4), Ended::Stopped);
    assert_eq!(*cosigned.lock().unwrap(), [(1, 1), (3, 3)]);
}
