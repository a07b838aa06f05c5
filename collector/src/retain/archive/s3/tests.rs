//! The archive in a bucket: of a server of our own that fails as it is told to, and of one that is not
//! ours (moto, where `CUSTODY_S3_PYTHON` names a Python that has it).

mod server;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use custody_config::Env;
use custody_config::collector::{ArchiveConfig, CollectorConfig, CollectorOverrides};
use custody_event::SystemClock;
use custody_evidence::verify::{Trust, verify_dir};

use super::super::super::tests::world::{VICTIM, World, class, subject};
use super::*;
use crate::access::{Permissions, Principal};
use crate::retain::Status;
use server::{BUCKET, Fault, ID, SECRET, Server};

/// A folder with keys, and what is made in it.
struct Scene {
    dir: tempfile::TempDir,
    prefix: &'static str,
    stopping: Arc<std::sync::atomic::AtomicBool>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("id"), format!("{ID}\n")).unwrap();
        std::fs::write(dir.path().join("secret"), SECRET).unwrap();
        Self { dir, prefix: "c/1", stopping: Arc::default() }
    }

    fn yaml(&self, endpoint: &str, more: &str) -> String {
        let (dir, prefix) = (self.dir.path().display(), self.prefix);
        format!(
            "archive: {{ type: s3, endpoint: '{endpoint}', region: eu-central-1, bucket: {BUCKET}, prefix: {prefix}, \
             path_style: true, access_key_file: {dir}/id, secret_key_file: {dir}/secret, after: 30d{more} }}\n"
        )
    }

    fn bucket(&self, endpoint: &str, more: &str) -> Bucket {
        self.open(endpoint, more).unwrap()
    }

    fn open(&self, endpoint: &str, more: &str) -> Result<Bucket, RetainError> {
        let times = Times {
            pause: Duration::from_millis(1),
            idle: Duration::from_secs(30),
            whole: Duration::from_secs(60),
            rest: Duration::ZERO,
        };
        self.open_with(endpoint, more, times)
    }

    fn open_with(&self, endpoint: &str, more: &str, times: Times) -> Result<Bucket, RetainError> {
        let (path, none) = (Path::new("c.yaml"), CollectorOverrides::default());
        let yaml = self.yaml(endpoint, more);
        let config = CollectorConfig::from_text(path, &yaml, &none, &Env::default()).unwrap();
        let Some(ArchiveConfig::S3(config)) = config.value.archive else { panic!("{yaml}") };
        let around = Around {
            data_dir: &self.dir.path().join("data"),
            clock: Arc::new(SystemClock::new()),
            stopping: Arc::clone(&self.stopping),
        };
        Bucket::open_with(&config, around, times)
    }

    fn file(&self, len: usize) -> PathBuf {
        let path = self.dir.path().join("file.seg");
        let bytes: Vec<u8> =
            (0..len).map(|at| u8::try_from((at * 7 + at / 251) % 251).unwrap()).collect();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

const LOCK: &str = ", lock: { mode: compliance, keep: 10d }";
const KEY: &str = "c/1/x.seg";

#[test]
fn what_may_pass_is_tried_again_and_what_will_not_says_what_to_do() {
    let (scene, server) = (Scene::new(), Server::start());
    let bucket = scene.bucket(&server.endpoint, "");
    let file = scene.file(1_000);
    for (status, code, headers) in [
        (500, "InternalError", ""),
        (503, "SlowDown", "retry-after=0"),
        (409, "OperationAborted", ""),
        (429, "", ""),
    ] {
        server.fail("PUT", Fault::Says(status, code, headers));
        bucket.upload(&file, KEY).unwrap();
    }
    let times =
        Times { pause: Duration::from_millis(1), idle: Duration::from_secs(2), ..Times::default() };
    let impatient = scene.open_with(&server.endpoint, "", times).unwrap();
    server.fail("PUT", Fault::Silence);
    impatient.upload(&file, KEY).unwrap();
    server.fail("list-type", Fault::Cut);
    assert!(bucket.list().unwrap().is_empty());
    assert_eq!(server.state().objects[KEY].last().unwrap().bytes, std::fs::read(&file).unwrap());

    let refused = |fault: Fault| {
        server.fail("list-type", fault);
        bucket.list().unwrap_err().to_string()
    };
    for (status, code, headers, expected) in [
        (
            403,
            "AccessDenied",
            "",
            "403 AccessDenied: no <AccessDenied> (hint: let the key list the bucket",
        ),
        (403, "SignatureDoesNotMatch", "", "archive.access_key_file"),
        (403, "RequestTimeTooSkewed", "", "set this machine's clock"),
        (404, "NoSuchBucket", "", "make the bucket, or correct `archive.bucket`"),
        (301, "PermanentRedirect", "x-amz-bucket-region=eu-west-1", "write `region: eu-west-1`"),
        (400, "AuthorizationHeaderMalformed", "", "correct `archive.region`"),
    ] {
        let said = refused(Fault::Says(status, code, headers));
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains(SECRET) && !said.contains("StringToSign"), "{said}");
    }
    for _ in 0..client::TRIES {
        server.fail("list-type", Fault::Says(500, "InternalError", ""));
    }
    let error = bucket.list().unwrap_err();
    assert!(matches!(error, RetainError::S3(S3Error::Unreachable { .. })), "{error}");
    assert!(error.to_string().contains("is `archive.endpoint` right"), "{error}");
    assert!(bucket.list().is_ok(), "it is asked again when it may be well");
}

#[test]
fn hundreds_of_segments_do_not_wait_one_after_the_other_for_a_server_that_is_away() {
    let scene = Scene::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let times = Times { pause: Duration::from_millis(1), ..Times::default() };
    let bucket = scene.open_with(&endpoint, "", times).unwrap();
    let clock = SystemClock::new();
    for _ in 0..500 {
        let error = bucket.list().unwrap_err();
        assert!(matches!(error, RetainError::S3(S3Error::Unreachable { .. })), "{error}");
    }
    assert!(clock.monotonic() < Duration::from_secs(10));
}

#[test]
fn a_key_that_is_wrong_or_cannot_be_read_is_told_and_never_shown() {
    let (scene, server) = (Scene::new(), Server::start());
    let secret = scene.dir.path().join("secret");
    let bucket = scene.bucket(&server.endpoint, "");
    std::fs::write(&secret, "another-secret-of-somebody").unwrap();
    let said = bucket.list().unwrap_err().to_string();
    assert!(said.contains("403 SignatureDoesNotMatch"), "{said}");
    assert!(!said.contains("another-secret"), "{said}");
    // It is read at each request: a key that is changed counts at once.
    std::fs::write(&secret, SECRET).unwrap();
    bucket.list().unwrap();
    std::fs::remove_file(&secret).unwrap();
    let said = scene.open(&server.endpoint, "").err().unwrap().to_string();
    assert!(said.starts_with("c.yaml:1:") && said.contains("cannot open"), "{said}");
}

#[test]
fn an_upload_that_was_killed_after_any_part_goes_on_with_the_next_one() {
    let (scene, server) = (Scene::new(), Server::start());
    let parts = 4;
    let file = scene.file(usize::try_from(upload::PART_BYTES).unwrap() * (parts - 1) + 12_345);
    let whole = std::fs::read(&file).unwrap();
    for fails in ["partNumber=1", "partNumber=3", "partNumber=4", "POST /audit/c/1/x.seg?uploadId"]
    {
        server.state().objects.clear();
        server.state().log.clear();
        for _ in 0..client::TRIES {
            server.fail(fails, Fault::Says(503, "SlowDown", ""));
        }
        scene.bucket(&server.endpoint, LOCK).upload(&file, KEY).unwrap_err();
        // As after kill -9: only what is on the disk is known.
        let bucket = scene.bucket(&server.endpoint, LOCK);
        bucket.tidy(&[]).unwrap();
        bucket.upload(&file, KEY).unwrap();
        let state = server.state();
        assert!(state.objects[KEY].last().unwrap().bytes == whole, "{fails}");
        assert_eq!(state.asked("?uploads="), 1, "{fails}: begun once");
        let sent = state.asked("partNumber=");
        let again =
            if fails.starts_with("part") { usize::try_from(client::TRIES).unwrap() } else { 0 };
        assert_eq!(sent, parts + again, "{fails}: no part that was there is sent again");
        assert_eq!(state.open_uploads(), 0);
        assert!(!scene.dir.path().join("data/archive/upload.json").try_exists().unwrap());
    }
    // The server has forgotten it meanwhile: it begins again.
    for _ in 0..client::TRIES {
        server.fail("partNumber=3", Fault::Says(503, "SlowDown", ""));
    }
    let bucket = scene.bucket(&server.endpoint, "");
    bucket.upload(&file, KEY).unwrap_err();
    server.state().end_uploads();
    bucket.upload(&file, KEY).unwrap();
    assert!(server.state().objects[KEY].last().unwrap().bytes == whole);
    // One that nobody goes on with is ended; another's is left alone.
    let stem =
        Named { day: "2026-11-22".to_owned(), segment: 3, generation: 0, sha256: Digest::of(b"x") };
    let ours = format!("c/1/{}.seg", stem.stem());
    for key in [ours.as_str(), "c/1/somebody-else"] {
        let query = vec![("uploads", "")];
        bucket.client.ask(&Ask { method: Method::POST, key, query, ..Ask::default() }).unwrap();
    }
    bucket.tidy(&[]).unwrap();
    assert_eq!(server.state().open_uploads(), 1);
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_stood() {
    let (scene, server) = (Scene::new(), Server::start());
    let bucket = scene.bucket(&server.endpoint, "");
    let file = scene.file(300_000);
    bucket.upload(&file, KEY).unwrap();
    for _ in 0..3 {
        server.fail("GET /audit/c/1/x.seg", Fault::Cut);
    }
    let to = scene.dir.path().join("fetched");
    bucket.fetch_to(KEY, &to, None).unwrap();
    assert!(std::fs::read(&to).unwrap() == std::fs::read(&file).unwrap());
    std::fs::remove_file(&to).unwrap();
    let wrong = bucket.fetch_to(KEY, &to, Some(Digest::of(b"another"))).unwrap_err();
    assert!(matches!(wrong, RetainError::Checksum { .. }), "{wrong}");
    assert!(wrong.to_string().contains("s3://audit/c/1/x.seg"), "{wrong}");
    let missing = bucket.client.download("c/1/nothing", &mut |_| Ok(())).unwrap_err();
    assert!(matches!(missing, RetainError::S3(S3Error::Missing { .. })), "{missing}");
}

#[test]
fn a_lock_that_the_server_does_not_take_is_an_error() {
    let (scene, server) = (Scene::new(), Server::start());
    let bucket = scene.bucket(&server.endpoint, LOCK);
    let file = scene.file(100);
    bucket.upload(&file, KEY).unwrap();
    assert!(!bucket.delete(KEY).unwrap(), "nobody deletes it");
    server.fail("PUT", Fault::Unlocked);
    let said = bucket.upload(&file, KEY).unwrap_err().to_string();
    assert!(said.contains("it is not locked until") && said.contains("Object Lock"), "{said}");
    server.state().locks = false;
    let said = bucket.upload(&file, KEY).unwrap_err().to_string();
    assert!(said.contains("is Object Lock switched on for the bucket"), "{said}");
    // One that forgets it over the parts is told once more.
    server.state().locks = true;
    server.fail("POST /audit/c/1/x.seg?uploadId", Fault::Unlocked);
    let long = scene.file(usize::try_from(upload::PART_BYTES).unwrap() + 1);
    bucket.upload(&long, KEY).unwrap();
    assert_eq!(server.state().asked("?retention"), 1);
    // Sidecars are not locked.
    bucket.upload(&file, "c/1/x.idx").unwrap();
    assert!(bucket.delete("c/1/x.idx").unwrap());
}

#[test]
fn a_transfer_does_not_keep_the_collector_from_ending() {
    let (scene, server) = (Scene::new(), Server::start());
    let times = Times { idle: Duration::from_secs(60), ..Times::default() };
    let bucket = scene.open_with(&server.endpoint, "", times).unwrap();
    server.fail("list-type", Fault::Silence);
    let stopping = Arc::clone(&scene.stopping);
    let clock = SystemClock::new();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| bucket.list());
        while server.state().log.is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        stopping.store(true, Ordering::Relaxed);
        let ended = asked.join().unwrap().unwrap_err();
        assert!(matches!(ended, RetainError::Stopping), "{ended}");
    });
    assert!(clock.monotonic() < Duration::from_secs(15));
}

#[test]
fn the_servers_certificate_must_lead_to_the_authority_that_is_named() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        (Issuer::new(params, key), pem)
    };
    let ((ours, our_pem), (_theirs, their_pem)) = (authority("ours"), authority("theirs"));
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ours).unwrap();
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let private = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let (scene, server) = (Scene::new(), Server::start_with(Some(Arc::new(tls))));
    let ca = scene.dir.path().join("ca.pem");
    let more = format!(", ca_file: {}", ca.display());
    std::fs::write(&ca, our_pem).unwrap();
    scene.bucket(&server.endpoint, &more).list().unwrap();
    std::fs::write(&ca, their_pem).unwrap();
    let said = scene.bucket(&server.endpoint, &more).list().unwrap_err().to_string();
    assert!(said.contains("certificate"), "{said}");
    std::fs::write(&ca, "no PEM").unwrap();
    let said = scene.open(&server.endpoint, &more).err().unwrap().to_string();
    assert!(said.contains("holds no certificate"), "{said}");
}

#[test]
fn names_say_what_is_in_them_and_nothing_else_is_taken_for_a_copy() {
    let named =
        Named { day: "2026-11-22".to_owned(), segment: 7, generation: 2, sha256: Digest::of(b"x") };
    let stem = named.stem();
    assert!(stem.starts_with("2026-11-22/0000000007.2.2d711642"), "{stem}");
    assert_eq!(Named::read(&stem), Some(named));
    for bad in
        ["", "x", "2026-11-22/7.2.00", &stem[1..], &format!("{stem}.x"), &stem.to_uppercase()]
    {
        assert_eq!(Named::read(bad), None, "{bad}");
    }
    let scene = Scene::new();
    let yaml = scene.yaml("https://s3.example.org", "").replace("path_style: true, ", "");
    let config = CollectorConfig::from_text(
        Path::new("c.yaml"),
        &yaml,
        &CollectorOverrides::default(),
        &Env::default(),
    );
    let Some(ArchiveConfig::S3(config)) = config.unwrap().value.archive else { panic!() };
    let clock = Arc::new(SystemClock::new());
    let client = Client::new(&config, clock, Arc::default(), Times::default()).unwrap();
    assert_eq!(client.address(), ("https://audit.s3.example.org:443", "audit.s3.example.org"));
}

fn person(name: &str) -> Principal {
    Principal::new(name, Permissions::ALL)
}

/// The life of a segment in the archive: there before it loses anything, back in search, without
/// what was erased. `held`: what is under a lock stays as long as the lock says.
fn lives(scene: &Scene, endpoint: &str, more: &str) -> World {
    let mut world = World::new(&class("api", 90));
    world.add_yaml(&scene.yaml(endpoint, more));
    let mut open = world.open();
    open.store((0..1_000).map(super::super::super::tests::world::event));
    open.log.close_segment().unwrap();
    assert_eq!(open.retain.archive_due().unwrap(), 0);
    let from = world.clock.now();
    world.clock.pass_days(500);
    assert_eq!(open.retain.sweep(false).unwrap().expired, 1_000);
    assert_eq!(open.count("action:contact.view"), 0);
    let archived = open.retain.archived().unwrap();
    assert_eq!((archived.len(), archived[0].restored), (1, false));
    let new = subject("any", &format!("{VICTIM}@example.org"));
    assert_eq!(open.retain.preview(&new).unwrap().archived, 10);

    open.retain.restore_archived(from, from, "anna").unwrap();
    assert_eq!(open.count("action:contact.view"), 1_000);
    assert_eq!(open.retain.sweep(false).unwrap().expired, 0, "what was restored stays");

    let (row, _) = open.retain.ask(&new, "anna").unwrap();
    open.retain.approve(row.id, &person("bert")).unwrap();
    open.retain.erase_approved().unwrap();
    assert_eq!(open.retain.erasure(row.id).unwrap().status, Status::Done);
    let after = open.retain.archived().unwrap();
    assert_ne!(after[0].sha256, archived[0].sha256);
    assert_eq!(after[0].generation, archived[0].generation.map(|before| before + 1));
    assert_eq!(open.retain.release_restored("anna").unwrap(), 1);
    assert_eq!(open.retain.sweep(false).unwrap().expired, 990);
    open.retain.restore_archived(from, from, "anna").unwrap();
    assert_eq!(open.count("action:contact.view"), 990);
    let left = std::fs::read_dir(world.path().join("archive")).unwrap().count();
    assert_eq!(left, 0, "nothing that was fetched stays");
    open.close();
    let report = verify_dir(world.path(), &Trust::default()).unwrap();
    assert!(report.verified, "{}", report.to_text());
    world
}

#[test]
fn a_segment_goes_to_the_bucket_before_it_loses_events_comes_back_and_loses_what_is_erased() {
    let (scene, server) = (Scene::new(), Server::start());
    lives(&scene, &server.endpoint, "");
    let state = server.state();
    let names: Vec<&String> = state.objects.keys().collect();
    assert_eq!(names.len(), 2, "the copy without what was erased, and its sidecar: {names:?}");
    assert!(names[1].ends_with(".seg") && names[1].contains(".1."), "{names:?}");
    assert!(state.objects.values().all(|versions| versions.len() == 1));
}

#[test]
fn what_is_locked_stays_until_its_lock_ends_and_goes_then() {
    let (scene, server) = (Scene::new(), Server::start());
    let world = lives(&scene, &server.endpoint, ", lock: { mode: governance, keep: 30d }");
    let segments = |server: &Server| {
        let state = server.state();
        let of_first = |key: &&String| key.contains("/0000000000.") && key.ends_with(".seg");
        state.objects.keys().filter(of_first).count()
    };
    assert_eq!(segments(&server), 2, "the copy of before is locked");
    let open = world.open();
    let receipts = open.events("action:erasure.complete");
    let receipt = String::from_utf8(receipts[0].event.clone()).unwrap();
    assert!(receipt.contains("locked copies of segments in the archive"), "{receipt}");
    assert_eq!(open.retain.archived().unwrap().len(), 1);
    world.clock.pass_days(31);
    open.retain.archive_due().unwrap();
    assert_eq!(segments(&server), 1);
    open.close();
}

#[test]
fn nothing_leaves_the_log_for_a_copy_that_is_damaged_or_gone() {
    let (scene, server) = (Scene::new(), Server::start());
    let mut world = World::new(&class("api", 90));
    world.add_yaml(&scene.yaml(&server.endpoint, ""));
    let mut open = world.open();
    open.store_two_segments();
    world.clock.pass_days(31);
    assert_eq!(open.retain.archive_due().unwrap(), 2);
    world.clock.pass_days(60);
    let known = open.retain.archived().unwrap();
    let (first, second) = (known[0].file.clone(), known[1].file.clone());
    let whole = server.state().objects[&first].clone();
    // Cut off, another segment's, and gone.
    let mut cut = whole.clone();
    cut[0].bytes.truncate(whole[0].bytes.len() / 2);
    let other = server.state().objects[&second].clone();
    for (versions, expected) in
        [(Some(cut), "its SHA-256 is"), (Some(other), "its SHA-256 is"), (None, "is not there")]
    {
        match versions {
            Some(versions) => server.state().objects.insert(first.clone(), versions),
            None => server.state().objects.remove(&first),
        };
        let error = open.retain.sweep(false).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(open.count("category:api"), 500, "of the other segment nothing is kept");
    }
    // What is gone from the bucket is copied again: the log has it still.
    assert_eq!(open.retain.sweep(false).unwrap().expired, 500);
    assert_eq!(open.count("category:api"), 0);
    open.close();
}

/// A server that is not ours; ended when it is dropped.
struct Moto {
    child: Child,
    endpoint: String,
}

impl Moto {
    fn start() -> Option<Self> {
        let Some(python) = std::env::var_os("CUSTODY_S3_PYTHON") else {
            println!(
                "skipped: no S3 server of others (CUSTODY_S3_PYTHON names a Python with moto)"
            );
            return None;
        };
        let mut child = Command::new(python)
            .args(["-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let endpoint = lines.by_ref().find_map(|line| {
            let line = line.unwrap();
            line.split_once("Running on ").map(|(_, rest)| rest.trim().to_owned())
        });
        // It goes on talking: nobody must keep it from that.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { endpoint: endpoint.expect("moto says where it is"), child })
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

#[test]
fn a_server_of_others_takes_it_all_and_keeps_what_is_locked() {
    let Some(moto) = Moto::start() else { return };
    let scene = Scene::new();
    let maker = scene.bucket(&moto.endpoint, "");
    let headers = vec![("x-amz-bucket-object-lock-enabled", "true".to_owned())];
    let body = b"<CreateBucketConfiguration><LocationConstraint>eu-central-1</LocationConstraint></CreateBucketConfiguration>".to_vec();
    let said = maker.list().unwrap_err().to_string();
    assert!(said.contains("NoSuchBucket") && said.contains("make the bucket"), "{said}");
    maker.client.ask(&Ask { method: Method::PUT, headers, body, ..Ask::default() }).unwrap();
    lives(&scene, &moto.endpoint, "");
    let other = Scene { prefix: "c/2", ..Scene::new() };
    lives(&other, &moto.endpoint, ", lock: { mode: compliance, keep: 400d }");
    // In parts, under a lock, fetched again, and nobody deletes it.
    let bucket = scene.bucket(&moto.endpoint, LOCK);
    let file = scene.file(usize::try_from(upload::PART_BYTES).unwrap() * 2 + 77);
    bucket.upload(&file, KEY).unwrap();
    let to = scene.dir.path().join("fetched");
    bucket.fetch_to(KEY, &to, Some(digest_of(&file).unwrap().0)).unwrap();
    assert!(!bucket.delete(KEY).unwrap());
    assert!(bucket.client.ask(&Ask { method: Method::HEAD, key: KEY, ..Ask::default() }).is_ok());
}
