//! Witnesses and authorities as they answer: ours that keeps to the specification, openssl's own.

use std::net::TcpListener as StdListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use custody_config::collector::CollectorConfig;
use custody_config::{CollectorOverrides, Env};
use custody_event::SystemClock;
use custody_evidence::verify::{Trust, verify_dir};
use custody_evidence::{KeyType, NoteKey};

use super::*;
use crate::store::evidence::{Checked, Options, TlogOptions};
use crate::testing::TestStream;
use crate::tlog::Enrolment;

const ORIGIN: &str = "test/log";

fn open(folder: &Path, stream: &TestStream) -> EvidenceLog {
    let agent =
        Enrolment { agent: stream.agent, host: stream.host.clone(), key: stream.key.public() };
    let mut options = Options::new(1 << 20);
    options.tlog = Some(TlogOptions {
        folder: folder.join("tlog"),
        origin: ORIGIN.to_owned(),
        random: [9; 32],
        agents: vec![agent],
    });
    let clock = Arc::new(SystemClock::new());
    EvidenceLog::open(&folder.join("evidence"), &options, clock).unwrap().0
}

async fn store(log: &EvidenceLog, stream: &mut TestStream, blocks: usize) {
    for number in 0..blocks {
        stream.own_event(&format!("event {number}"));
        let block = stream.seal();
        let checked = Arc::new(Checked {
            bytes: block.encode().unwrap(),
            coverage: block.coverage().unwrap(),
            block,
            keys_version: 0,
            _permit: None,
        });
        log.submit(&checked).unwrap().await.unwrap();
    }
}

/// Serves on a thread of its own, until the test ends.
fn serve(router: Router) -> String {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    format!("http://{address}")
}

/// A witness of C2SP tlog-witness that knows one log.
fn witness(known: Arc<Mutex<custody_evidence::Witness>>, key: &'static [u8; 32]) -> String {
    let add = move |body: String| async move {
        let mut known = known.lock().unwrap();
        let (head, note) = body.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let old = lines.next().unwrap().strip_prefix("old ").unwrap().parse::<u64>().unwrap();
        if old != known.size() {
            return (StatusCode::CONFLICT, format!("{}\n", known.size()));
        }
        let proof: Vec<Digest> = lines
            .map(|line| custody_evidence::base64::decode(line).unwrap().try_into().unwrap())
            .map(Digest)
            .collect();
        match known.accept(note, old, &proof) {
            Ok(_) => {
                let key = NoteKey::new("witness.example.org", key).unwrap();
                (StatusCode::OK, known.cosign(&key, 1_790_000_000).unwrap())
            }
            Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        }
    };
    serve(Router::new().route("/w/add-checkpoint", post(add)))
}

fn config(yaml: &str) -> AnchorsConfig {
    let (path, overrides) = (Path::new("collector.yaml"), CollectorOverrides::default());
    let loaded = CollectorConfig::from_text(path, yaml, &overrides, &Env::default());
    loaded.unwrap_or_else(|error| panic!("{error}")).value.anchors.unwrap()
}

fn anchors(yaml: &str, data_dir: &Path) -> Anchors {
    Anchors::new(config(yaml), data_dir, Arc::new(SystemClock::new()), None).unwrap()
}

fn names(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_witness_cosigns_what_continues_and_anchors_go_where_they_are_told_to() {
    const SECRET: [u8; 32] = [5; 32];
    let (folder, worm) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut stream = TestStream::new(1, 1, "aa");
    let log = open(folder.path(), &stream);
    store(&log, &mut stream, 3).await;
    let tlog = log.tlog().unwrap();
    let known = Arc::new(Mutex::new(custody_evidence::Witness::new(tlog.verifier().clone())));
    // Somebody else had shown it the log before.
    known.lock().unwrap().accept(&tlog.checkpoint(), 0, &[]).unwrap();
    store(&log, &mut stream, 2).await;
    let url = witness(Arc::clone(&known), &SECRET);
    let key = NoteKey::new("witness.example.org", &SECRET).unwrap().verifier(KeyType::Cosignature);
    let posted = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&posted);
    let take = move |body: Bytes| async move {
        hook.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
    };
    let hook = serve(Router::new().route("/hook", post(take)));
    let yaml = format!(
        "anchors:\n  every: 1d\n  dir: {}\n  post: {hook}/hook\n  witnesses: [{{ url: \"{url}/w\", key: \"{key}\" }}]\n",
        worm.path().display()
    );
    let mut anchors = anchors(&yaml, folder.path());
    let anchored = anchors.round(tlog).await.unwrap().unwrap();
    assert_eq!(anchored.head, tlog.head());
    assert_eq!(known.lock().unwrap().size(), tlog.head().size);
    // A second round, and a collector that starts again, wait until the next is due.
    assert!(anchors.round(tlog).await.unwrap().is_none());
    assert!(self::anchors(&yaml, folder.path()).round(tlog).await.unwrap().is_none());
    let note = std::fs::read_to_string(&names(worm.path(), "note")[0]).unwrap();
    assert!(note.contains("witness.example.org"), "{note}");
    assert_eq!(*posted.lock().unwrap(), [note.as_str()]);
    let again = keep_for_ever(&names(worm.path(), "note")[0], b"x").map_err(|error| error.kind());
    assert_eq!(again, Err(io::ErrorKind::AlreadyExists));
    // The verifier holds the anchors against the log, and names the witness.
    store(&log, &mut stream, 2).await;
    anchors.round(tlog).await.unwrap();
    drop(log);
    let trust = Trust { witnesses: vec![key], ..Trust::default() };
    let report = verify_dir(folder.path(), &trust).unwrap();
    assert!(report.verified, "{}", report.to_text());
    assert!(report.to_text().contains("witness.example.org has cosigned"), "{}", report.to_text());
    let trust = Trust { checkpoint: Some(note), ..Trust::default() };
    let report = verify_dir(folder.path(), &trust).unwrap();
    assert!(
        report.to_text().contains("continues the trusted checkpoint of 6"),
        "{}",
        report.to_text()
    );
}

#[tokio::test]
async fn a_witness_and_an_anchor_tell_a_log_that_was_rewritten_or_put_back() {
    const SECRET: [u8; 32] = [6; 32];
    let folder = tempfile::tempdir().unwrap();
    let mut stream = TestStream::new(1, 1, "aa");
    let log = open(folder.path(), &stream);
    let verifier = log.tlog().unwrap().verifier().clone();
    let known = Arc::new(Mutex::new(custody_evidence::Witness::new(verifier)));
    let url = witness(Arc::clone(&known), &SECRET);
    let key = NoteKey::new("witness.example.org", &SECRET).unwrap().verifier(KeyType::Cosignature);
    let yaml = format!("anchors: {{ witnesses: [{{ url: \"{url}/w\", key: \"{key}\" }}] }}");
    store(&log, &mut stream, 5).await;
    let mut first = anchors(&yaml, folder.path());
    first.round(log.tlog().unwrap()).await.unwrap().unwrap();
    drop(log);
    // Another history under the same name and key: shorter, then longer.
    for (blocks, said) in [(2, "put back to an older state"), (9, "the log was rewritten")] {
        let other = tempfile::tempdir().unwrap();
        std::fs::create_dir(other.path().join("tlog")).unwrap();
        let secret = folder.path().join("tlog/key");
        std::fs::copy(secret, other.path().join("tlog/key")).unwrap();
        let mut stream = TestStream::new(1, 2, "aa");
        let log = open(other.path(), &stream);
        store(&log, &mut stream, blocks).await;
        let mut second = anchors(&yaml, other.path());
        let error = second.round(log.tlog().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        drop(log);
        // And whoever leaves the old anchors beside the new log is told by custody-verify.
        for note in names(&folder.path().join("tlog/anchor"), "note") {
            let target = other.path().join("tlog/anchor").join(note.file_name().unwrap());
            std::fs::copy(note, target).unwrap();
        }
        let report = verify_dir(other.path(), &Trust::default()).unwrap();
        assert!(!report.verified && report.to_text().contains("anchor"), "{}", report.to_text());
    }
}

/// openssl as a time-stamping authority; `None` where there is none.
fn authority(folder: &Path) -> Option<()> {
    let text = "[tsa]\ndefault_tsa=a\n[a]\nserial=serial\ncrypto_device=builtin\nsigner_cert=cert.pem\n\
                signer_key=key.pem\ncerts=cert.pem\nsigner_digest=sha256\ndefault_policy=1.2.3.4.1\n\
                digests=sha256\n[req]\ndistinguished_name=dn\n[dn]\n[ext]\n\
                extendedKeyUsage=critical,timeStamping\nbasicConstraints=CA:TRUE\n";
    std::fs::write(folder.join("tsa.cnf"), text).unwrap();
    std::fs::write(folder.join("serial"), "01\n").unwrap();
    let made = openssl(
        folder,
        "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=tsa \
         -config tsa.cnf -extensions ext",
    );
    made.ok().map(drop)
}

fn openssl(folder: &Path, words: &str) -> Result<String, String> {
    let mut command = Command::new("openssl");
    let output = command.args(words.split_whitespace()).current_dir(folder).output();
    let output = output.map_err(|error| error.to_string())?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

#[tokio::test]
async fn a_time_stamp_of_rfc_3161_is_taken_and_openssl_verifies_it_over_the_anchors_bytes() {
    let (folder, tsa) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    if authority(tsa.path()).is_none() {
        eprintln!("skipped: there is no openssl");
        return;
    }
    let mut stream = TestStream::new(1, 1, "aa");
    let log = open(folder.path(), &stream);
    store(&log, &mut stream, 3).await;
    let place = tsa.path().to_owned();
    let stamp = move |body: Bytes| async move {
        std::fs::write(place.join("query.tsq"), &body).unwrap();
        let words = "ts -reply -config tsa.cnf -section a -queryfile query.tsq -out reply.tsr";
        openssl(&place, words).unwrap();
        std::fs::read(place.join("reply.tsr")).unwrap()
    };
    let replay = tsa.path().to_owned();
    let old = move |_: Bytes| async move { std::fs::read(replay.join("reply.tsr")).unwrap() };
    let router = Router::new()
        .route("/tsr", post(stamp))
        .route("/old", post(old))
        .route("/none", post(|| async { "no" }));
    let url = serve(router);
    let yaml = |path: &str| format!("anchors: {{ every: 1m, time_stamp: \"{url}/{path}\" }}");
    let tlog = log.tlog().unwrap();
    let made = anchors(&yaml("tsr"), folder.path()).round(tlog).await.unwrap();
    assert!(made.is_some());
    let kept = folder.path().join("tlog/anchor");
    let (note, stamped) = (&names(&kept, "note")[0], &names(&kept, "tsr")[0]);
    let verify =
        format!("ts -verify -data {} -in {} -CAfile cert.pem", note.display(), stamped.display());
    let said = openssl(tsa.path(), &verify).unwrap();
    assert!(said.contains("Verification: OK"), "{said}");
    let mut changed = std::fs::read(note).unwrap();
    changed[20] ^= 1;
    std::fs::write(tsa.path().join("changed"), changed).unwrap();
    let words = format!("ts -verify -data changed -in {} -CAfile cert.pem", stamped.display());
    assert!(openssl(tsa.path(), &words).is_err());
    // An answer to another question, and one that is none.
    std::fs::remove_dir_all(&kept).unwrap();
    for (path, said) in [("old", "not of what was sent"), ("none", "no time-stamp")] {
        let error = anchors(&yaml(path), folder.path()).round(tlog).await.unwrap_err();
        assert!(format!("{error:#}").contains(said), "{error:#}");
        assert!(!kept.try_exists().unwrap(), "nothing is kept as an anchor");
    }
}
