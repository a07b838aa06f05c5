//! Exports by the command line: each format holds what the search finds, a collector that is
//! killed in the middle goes on with it, and a bundle convinces the verifier.

use std::path::{Path, PathBuf};

use custody_evidence::verify::{Trust, verify_bundle};
use custody_tests::logfile::Form;
use custody_tests::process::Said;
use custody_tests::wait::until;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, World, http, query};
use serde_json::Value;

struct Scene {
    world: World,
    collector: Collector,
    log: LogFile,
    _agent: Agent,
}

/// A collector that holds so many lines, all of them found.
fn scene(name: &'static str, lines: u64) -> Scene {
    let world = World::new(name);
    let collector = Collector::started(&world, "collector");
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, world.rng());
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let agent = Agent::started(&world, "agent", &spec);
    log.append(lines);
    log.flush();
    collector.wait_for_lines(log.written());
    query::wait_for_line(&collector, lines - 1, world.patience());
    Scene { world, collector, log, _agent: agent }
}

impl Scene {
    fn export(&self, rest: &[&str], file: &Path) -> Said {
        let (url, data_dir) = (self.collector.url(), self.collector.data_dir.display().to_string());
        let file = file.display().to_string();
        let mut args = vec!["export", "--collector", &url, "--data-dir", &data_dir, "-o", &file];
        args.extend(rest);
        Collector::cli(&args)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> http::Answer {
        let token = std::fs::read_to_string(self.collector.data_dir.join("admin.token")).unwrap();
        http::request(method, self.collector.address, path, Some(token.trim()), body.as_bytes())
            .unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.world.path(name)
    }
}

#[test]
fn each_format_holds_what_the_search_finds_and_the_bundle_verifies() {
    let scene = scene("export_formats", 3_000);
    let found = query::all(&scene.collector, "input:app");
    assert_eq!(found.len() as u64, scene.log.written());
    for format in ["csv", "json", "ndjson", "parquet", "pdf", "bundle"] {
        let file = scene.file(&format!("all.{format}"));
        let said = scene.export(&["--format", format, "--name", "all of it", "input:app"], &file);
        said.expect(0, &["3000 events", "SHA-256"]);
        let proof = scene.file(&format!("all.{format}.proof.json"));
        assert_eq!(proof.try_exists().unwrap(), format != "bundle", "{format}");
    }
    let read = |name: &str| std::fs::read(scene.file(name)).unwrap();
    let mut expected = found;
    expected.reverse();
    let list: Vec<Value> = serde_json::from_slice(&read("all.json")).unwrap();
    assert_eq!(list, expected);
    let lines = String::from_utf8(read("all.ndjson")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, expected);
    assert!(read("all.parquet").ends_with(b"PAR1"));
    assert!(read("all.pdf").ends_with(b"%%EOF\n"));
    let key = std::fs::read_to_string(scene.collector.data_dir.join("tlog/vkey")).unwrap();
    let trust = Trust { log: Some(key.trim().parse().unwrap()), ..Trust::default() };
    let bundle = read("all.bundle");
    let report = verify_bundle(bundle.as_slice(), "all.bundle", &trust).unwrap();
    assert!(report.verified, "{}", report.to_text());
    let mut spoilt = bundle.clone();
    let middle = spoilt.len() / 2;
    spoilt[middle] ^= 1;
    let report = verify_bundle(spoilt.as_slice(), "spoilt", &trust).unwrap();
    assert!(!report.verified, "a changed byte is found");
    told(&scene);
}

/// What was done is in the collector's own stream.
fn told(scene: &Scene) {
    let requests = until("the acts are found", scene.world.patience(), || {
        let found = query::all(&scene.collector, "category:export action:export.download");
        (found.len() == 6).then_some(found)
    });
    let act = &requests[0];
    assert_eq!(act["actor"]["name"], "admin");
    assert_eq!(act["data"]["name"], "all of it");
    assert_eq!(act["data"]["records"], 3_000);
    for action in ["export.request", "export.complete"] {
        let line = format!("action:{action}");
        until(action, scene.world.patience(), || {
            (query::all(&scene.collector, &line).len() == 6).then_some(())
        });
    }
}

#[test]
fn an_export_goes_on_after_the_collector_was_killed_in_the_middle() {
    let mut scene = scene("export_kill", 20_000);
    let mut kills = 0;
    for format in ["ndjson", "pdf", "bundle"] {
        let body = format!(r#"{{"name":"k","format":"{format}","q":"input:app"}}"#);
        let answer = scene.ask("POST", "/v1/exports", &body);
        assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/exports/{id}");
        let state = until("the export is begun", scene.world.patience(), || {
            let state = scene.ask("GET", &path, "").json()["status"].as_str()?.to_owned();
            (state != "queued").then_some(state)
        });
        kills += u32::from(state == "running");
        scene.collector.kill();
        scene.collector.start();
        scene.collector.wait_ready();
        let entry = until("the export is complete", scene.world.patience(), || {
            let entry = scene.ask("GET", &path, "").json();
            assert_ne!(entry["status"], "failed", "{entry}");
            (entry["status"] == "completed").then_some(entry)
        });
        assert_eq!(entry["rows"], 20_000, "{format}");
        let file = scene.file(&format!("killed.{format}"));
        let (url, data_dir) =
            (scene.collector.url(), scene.collector.data_dir.display().to_string());
        let file = file.display().to_string();
        let get = ["export", "get", &id, "--collector", &url, "--data-dir", &data_dir, "-o", &file];
        Collector::cli(&get).expect(0, &["20000 events"]);
    }
    assert!(kills > 0, "no export was met while it was made");
    let text = std::fs::read(scene.file("killed.ndjson")).unwrap();
    assert_eq!(text.split(|byte| *byte == b'\n').count(), 20_001);
    let bundle = std::fs::read(scene.file("killed.bundle")).unwrap();
    let report = verify_bundle(bundle.as_slice(), "killed", &Trust::default()).unwrap();
    assert!(report.verified, "{}", report.to_text());
}

#[test]
fn a_download_that_broke_off_is_taken_up_and_one_that_is_spoilt_is_refused() {
    let scene = scene("export_download", 2_000);
    let file = scene.file("a.ndjson");
    scene.export(&["--format", "ndjson", "--name", "a", "input:app"], &file).expect(0, &[]);
    let whole = std::fs::read(&file).unwrap();
    let list = scene.ask("GET", "/v1/exports", "").json();
    let id = list["exports"][0]["id"].as_str().unwrap().to_owned();
    let (url, data_dir) = (scene.collector.url(), scene.collector.data_dir.display().to_string());
    let again = scene.file("again.ndjson").display().to_string();
    let get = ["export", "get", &id, "--collector", &url, "--data-dir", &data_dir, "-o", &again];
    let part = scene.file("again.ndjson.part");
    std::fs::write(&part, &whole[..whole.len() / 2]).unwrap();
    Collector::cli(&get).expect(0, &["2000 events"]);
    assert_eq!(std::fs::read(&again).unwrap(), whole);
    std::fs::write(&part, vec![b'x'; whole.len() / 2]).unwrap();
    Collector::cli(&get).expect(1, &["is not what the collector made"]);
    let delete = ["export", "delete", &id, "--collector", &url, "--data-dir", &data_dir];
    Collector::cli(&delete).expect(0, &["is deleted"]);
    Collector::cli(&get).expect(74, &["no export of this id"]);
    let wrong = scene.export(&["actor:("], &scene.file("x.csv"));
    wrong.expect(64, &["character"]);
}
