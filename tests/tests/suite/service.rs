//! What the people see who run it: numbers, diagnoses, reloads, certificates, enrolment by hand; and that the papers say the same.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use custody_config::shell::metrics::{Metric, reference};
use custody_tests::logfile::Form;
use custody_tests::process::{Said, run, spawn};
use custody_tests::wait::until;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rng, World, agent, http, ports};
use rustix::process::Signal;
use serde_json::Value;

fn pair(world: &World) -> (Collector, LogFile, AgentSpec) {
    let collector = Collector::started(world, "collector");
    let log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(7));
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    (collector, log, spec)
}

fn free() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

fn text(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = http::request("GET", address, path, None, b"").unwrap();
    (answer.status, String::from_utf8(answer.body).unwrap())
}

/// The number of a sample, by its whole name with labels.
fn sample<'a>(page: &'a str, name: &str) -> &'a str {
    let found = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{name} is not in\n{page}"))
}

#[test]
fn both_programs_show_numbers_that_agree_with_what_was_done_and_no_secret() {
    let world = World::new("service_metrics");
    let (mut collector, mut log, mut spec) = pair(&world);
    let pages = free();
    spec.admin_extra = format!("metrics: \"{pages}\"");
    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(1000);
    log.flush();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();

    let (status, page) = text(pages, "/metrics");
    assert_eq!(status, 200);
    let of_app = "{source=\"app\",type=\"file\"}";
    assert_eq!(sample(&page, &format!("custody_agent_source_records_read_total{of_app}")), "1000");
    assert_eq!(sample(&page, "custody_agent_output_lag_blocks{output=\"central\"}"), "0");
    assert_eq!(
        sample(&page, "custody_agent_output_state{output=\"central\",state=\"delivering\"}"),
        "1"
    );
    expect_described(&page, custody_agent::admin::metrics::TABLE);
    assert_eq!(text(pages, "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(text(pages, "/healthz"), (200, "ok\n".to_owned()));

    let (status, theirs) = text(collector.address, "/metrics");
    assert_eq!(status, 200, "a scraper on this host needs no token");
    let acknowledged: u64 =
        sample(&theirs, "custody_collector_ingest_blocks_total{outcome=\"acknowledged\"}")
            .parse()
            .unwrap();
    assert!(acknowledged > 0);
    assert_eq!(sample(&theirs, "custody_collector_agents{state=\"enrolled\"}"), "1");
    expect_described(&theirs, custody_collector::serve::metrics::TABLE);
    for file in ["admin.token", "enroll.token"] {
        let secret = std::fs::read_to_string(collector.data_dir.join(file)).unwrap();
        assert!(!page.contains(secret.trim()) && !theirs.contains(secret.trim()), "{file}");
    }

    collector.kill();
    log.append(10);
    log.flush();
    let why = until("it says that it is not ready", world.patience(), || {
        let (status, why) = text(pages, "/readyz");
        (status == 503).then_some(why)
    });
    assert!(why.contains("output central: ") && why.contains("is the collector running"), "{why}");
    assert_eq!(text(pages, "/healthz").0, 200);
    assert_eq!(agent.stop().code(), Some(0));
}

fn expect_described<T>(page: &str, table: &[Metric<T>]) {
    let mut names = BTreeSet::new();
    for metric in table {
        assert!(names.insert(metric.name), "{} stands twice", metric.name);
        assert!(
            page.contains(&format!("# HELP {} {}\n", metric.name, metric.help)),
            "{}",
            metric.name
        );
        let counts = metric.name.ends_with("_total");
        assert_eq!(
            counts,
            page.contains(&format!("# TYPE {} counter\n", metric.name)),
            "{}",
            metric.name
        );
    }
}

fn doctor(config: &Path) -> (Said, Value) {
    let config = config.display().to_string();
    // Where these tests run as root and the package is installed, it would go on as the service's user.
    let said =
        Agent::cli(&["doctor", "--json", "--user", "nobody-of-this-name", "--config", &config]);
    let found = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:#?}"));
    (said, found)
}

/// The findings about `what`, with their level.
fn about(found: &Value, what: &str) -> Vec<(String, String)> {
    let all =
        found["findings"].as_array().unwrap().iter().filter(|finding| finding["what"] == what);
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    all.map(|finding| {
        (
            word(finding, "level"),
            format!("{} → {}", word(finding, "found"), word(finding, "remedy")),
        )
    })
    .collect()
}

#[test]
fn the_doctor_finds_what_is_wrong_and_names_what_mends_it() {
    let world = World::new("service_doctor");
    let (mut collector, mut log, spec) = pair(&world);
    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(100);
    log.flush();
    let _idle = agent.wait_idle();
    let (said, found) = doctor(&agent.config);
    assert_eq!(said.code, Some(0), "{found:#}");
    assert_eq!(about(&found, "endpoint")[0].0, "good", "{found:#}");
    assert!(about(&found, "source app")[0].1.contains("app.log"), "{found:#}");
    assert_eq!(about(&found, "agent")[0].0, "good", "{found:#}");

    collector.kill();
    let (said, found) = doctor(&agent.config);
    assert_eq!(said.code, Some(1), "{found:#}");
    let (level, words) = about(&found, "endpoint").remove(0);
    assert!(level == "bad" && words.contains("nothing listens there"), "{words}");

    assert_eq!(agent.stop().code(), Some(0));
    let mut broken = std::fs::read_to_string(&agent.config).unwrap();
    broken.push_str("\nsourcs: []\n");
    std::fs::write(&agent.config, broken).unwrap();
    let (said, found) = doctor(&agent.config);
    assert_eq!(said.code, Some(1));
    assert!(about(&found, "configuration")[0].1.contains("unknown key `sourcs`"), "{found:#}");
}

#[test]
fn a_reload_says_what_it_changed_and_one_that_cannot_begin_leaves_the_old_one_at_work() {
    let world = World::new("service_reload");
    let (mut collector, mut log, mut spec) = pair(&world);
    let mut agent = Agent::started(&world, "agent", &spec);
    let before = agent.status().0["config_sha256"].clone();
    log.append(300);
    spec.extra = "labels: { place: north }\n".to_owned();
    agent.configure(&spec);
    agent.reload();
    let loaded = agent.wait_status("it is in force", |status| {
        status.0["config_loads"] == 1 && status.0["config_sha256"] != before
    });

    // Good to read, and somebody has the address.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    spec.admin_extra = format!("metrics: \"{}\"", taken.local_addr().unwrap());
    agent.configure(&spec);
    let pid = agent.daemon().pid();
    agent.reload();
    let refused = agent.wait_status("it is refused", |status| status.0["config_refusals"] == 1);
    assert_eq!(refused.0["config_sha256"], loaded.0["config_sha256"], "the old one stays in force");
    let why = refused.0["config_trouble"].as_str().unwrap();
    assert!(why.contains("cannot listen on") && why.contains("admin.metrics"), "{why}");
    assert_eq!(agent.daemon().pid(), pid);
    log.append(300);
    log.flush();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    collector.tally().expect_exactly_once(&log);

    let line = "action:configuration.update outcome:success";
    let event = until("the change is found", world.patience(), || {
        let path = format!("/v1/events?q={}&limit=10", http::encoded(line));
        let mut page = collector.try_get(&path).ok()?.json();
        let events = page["events"].as_array_mut()?;
        let of_place = |event: &Value| event["changes"].to_string().contains("labels.place");
        events.iter().find(|event| of_place(event)).cloned()
    });
    let change = &event["changes"][0];
    assert_eq!(
        (&change["field"], &change["after"]),
        (&"labels.place".into(), &"north".into()),
        "{event:#}"
    );
    assert_eq!(event["details"]["previous_sha256"], before);
    assert_eq!(event["details"]["config_sha256"], loaded.0["config_sha256"]);
    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(collector.stop().code(), Some(0));
}

#[test]
fn certificates_are_read_again_without_a_restart_and_wrong_ones_are_not_taken() {
    let world = World::new("service_certificates");
    let (_, cert, key) = super::ship::certificates(&world);
    let mut collector = Collector::new(&world, "collector");
    collector.configure(&world, &format!("tls: {{ cert_file: {cert}, key_file: {key} }}\n"), true);
    collector.start();
    collector.wait_ready();
    // Another authority, whose certificate the agent trusts and the collector does not show yet.
    let first = (std::fs::read(&cert).unwrap(), std::fs::read(&key).unwrap());
    let (ca, _, _) = super::ship::certificates(&world);
    let second = (std::fs::read(&cert).unwrap(), std::fs::read(&key).unwrap());
    assert_ne!(first, second);
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(7));
    let mut spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    spec.output_extra = format!("tls: {{ ca_file: {ca} }}");
    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(100);
    log.flush();
    let _refused = agent.wait_status("the wrong authority is named with its remedy", |status| {
        status.output()["trouble"].as_str().is_some_and(|why| why.contains("tls.ca_file"))
    });

    let stderr = collector.stderr.clone();
    let said = |word: &str| std::fs::read_to_string(&stderr).unwrap().contains(word);
    std::fs::write(&cert, "no certificate\n").unwrap();
    collector.daemon().signal(Signal::HUP);
    until("the wrong one is refused", world.patience(), || {
        said("those before stay in force").then_some(())
    });
    let pid = collector.daemon().pid();
    std::fs::write(&cert, &second.0).unwrap();
    collector.daemon().signal(Signal::HUP);
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    assert_eq!(collector.daemon().pid(), pid);
    assert_eq!(agent.stop().code(), Some(0));
    collector.tally().expect_exactly_once(&log);
}

#[test]
fn an_agent_is_enrolled_by_hand_with_a_token_that_is_kept_nowhere() {
    let world = World::new("service_enroll");
    let (collector, mut log, mut spec) = pair(&world);
    let token = std::fs::read_to_string(collector.enroll_token()).unwrap();
    spec.enroll_token = world.path("absent.token");
    let mut agent = Agent::new(&world, "agent", &spec);
    let enroll = |token: &str| -> Said {
        let mut command = Command::new(agent::binary());
        command.args(["enroll", "--user", "nobody-of-this-name", "--token-file", "-", "--config"]);
        command
            .arg(&agent.config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(command);
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    };
    let refused = enroll("cst_this-is-no-token");
    refused.expect(1, &["central", "check the token in what was given"]);
    let done = enroll(&token);
    done.expect(0, &["central: enrolled as agent"]);
    let mut search = Command::new("grep");
    search.args(["-r", "-l", "-F", token.trim()]).arg(&agent.data_dir);
    assert_eq!(run(search).out, "", "the enrolment token is kept");

    agent.start();
    agent.wait_ready();
    log.append(100);
    log.flush();
    collector.wait_for_lines(log.written());
    assert_eq!(agent.stop().code(), Some(0));
}

/// `init` makes what the guide asks for: with it, an agent delivers; a second call overwrites nothing; a renewal keeps the authority.
#[test]
fn an_authority_of_ones_own_is_made_once_and_agents_trust_it() {
    let world = World::new("service_init");
    let dir = world.path("keys");
    let at = dir.display().to_string();
    let args = ["init", "--name", "test", "--dns", "localhost", "--ip", "127.0.0.1", "--dir", &at];
    Collector::cli(&args).expect(0, &["agents trust this", "https://localhost:8600"]);
    let path = |name: &str| dir.join(name).display().to_string();
    let first = std::fs::read(path("ca.pem")).unwrap();
    Collector::cli(&args).expect(1, &["is there already", "--renew"]);
    let cert = std::fs::read(path("collector.pem")).unwrap();
    let renew: Vec<&str> = args.into_iter().chain(["--renew"]).collect();
    Collector::cli(&renew).expect(0, &["are new"]);
    assert_eq!(std::fs::read(path("ca.pem")).unwrap(), first);
    assert_ne!(std::fs::read(path("collector.pem")).unwrap(), cert);

    let mut collector = Collector::new(&world, "collector");
    let (cert, key, ca) = (path("collector.pem"), path("collector.key"), path("ca.pem"));
    collector.configure(&world, &format!("tls: {{ cert_file: {cert}, key_file: {key} }}\n"), true);
    collector.start();
    collector.wait_ready();
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(7));
    let mut spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    spec.output_extra = format!("tls: {{ ca_file: {ca} }}");
    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(100);
    log.flush();
    collector.wait_for_lines(log.written());
    let (said, found) = doctor(&agent.config);
    assert_eq!(said.code, Some(0), "{found:#}");
    assert!(about(&found, "certificate")[0].1.contains("good until"), "{found:#}");
    assert_eq!(agent.stop().code(), Some(0));
}

/// What an administrator types as root leaves nothing behind that the service, which is another user, could not read.
#[test]
fn what_root_types_belongs_to_whom_the_data_directory_belongs_to() {
    const SERVICE: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let world = World::new("service_root");
    let (mut collector, mut log, spec) = pair(&world);
    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(100);
    log.flush();
    collector.wait_for_lines(log.written());
    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(collector.stop().code(), Some(0));
    let config = agent.config.display().to_string();
    let give = |folder: &Path| {
        let mut chown = Command::new("chown");
        chown.arg("-R").arg(format!("{SERVICE}:{SERVICE}")).arg(folder);
        run(chown).expect(0, &[]);
    };
    let roots = |folder: &Path| -> Said {
        let mut find = Command::new("find");
        find.arg(folder).args(["-uid", "0"]);
        run(find)
    };
    give(&agent.data_dir);
    let accept = ["accept-fork", "--config", &config, "--output", "central", "--reason", "tested"];
    Agent::cli(&accept).expect(0, &["accepted"]);
    for command in ["ls", "verify"] {
        Agent::cli(&["spool", command, "--config", &config]).expect(0, &[]);
    }
    assert_eq!(roots(&agent.data_dir).out, "", "files of root's");

    let (copy, restored) = (world.path("copy"), world.path("restored"));
    let at = |path: &Path| path.display().to_string();
    let data_dir = at(&collector.data_dir);
    Collector::cli(&["backup", "--data-dir", &data_dir, &at(&copy)]).expect(0, &["whole copy"]);
    std::fs::create_dir(&restored).unwrap();
    give(&restored);
    let restore = ["restore", "--data-dir", &at(&restored), &at(&copy)];
    Collector::cli(&restore).expect(0, &["is restored"]);
    assert_eq!(roots(&restored).out, "", "files of root's");
    // Options stand anywhere on the line.
    let list = ["token", "list", "--data-dir", &data_dir, "--log-level", "debug"];
    Collector::cli(&list).expect(0, &["enroll"]);
    let print = ["check", "--print", "--data-dir", &data_dir];
    Collector::cli(&print).expect(0, &["retention:", "ReadWritePaths="]);
}

/// The memory of both daemons holds secrets that libraries have copied: so it is never copied to a file. A program of the same
/// limits that takes no care leaves one, which shows that the search would find it.
#[test]
fn no_core_file_is_left_by_a_daemon_that_crashes_and_no_secret_is_in_what_it_wrote() {
    let world = World::new("service_core");
    let place = world.path("cores");
    std::fs::create_dir(&place).unwrap();
    let crashing = |command: &Command| {
        let mut shell = Command::new("sh");
        shell.current_dir(&place).args(["-c", "ulimit -c $(ulimit -H -c); exec \"$0\" \"$@\""]);
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        shell
    };
    let cores = || -> Vec<PathBuf> {
        std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut collector = Collector::new(&world, "collector");
    let command = crashing(&collector.command());
    collector.start_as(command);
    collector.wait_ready();
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(7));
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let mut agent = Agent::new(&world, "agent", &spec);
    let command = crashing(&agent.command());
    agent.start_as(command);
    agent.wait_ready();
    log.append(100);
    log.flush();
    collector.wait_for_lines(log.written());
    for pid in [agent.daemon().pid(), collector.daemon().pid()] {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    }
    let mut secrets = vec![];
    for file in ["admin.token", "enroll.token"] {
        secrets.push(std::fs::read_to_string(collector.data_dir.join(file)).unwrap());
    }
    secrets.push(std::fs::read_to_string(agent.data_dir.join("token-central")).unwrap());
    let status = agent.status().0.to_string();
    for daemon in [agent.daemon(), collector.daemon()] {
        daemon.signal(Signal::ABORT);
    }
    until("both have crashed", world.patience(), || {
        let ended = agent.daemon().ended().is_some() && collector.daemon().ended().is_some();
        ended.then_some(())
    });
    assert_eq!(cores(), Vec::<PathBuf>::new(), "a core file was left");
    for log in [&agent.stderr, &collector.stderr] {
        let said = std::fs::read_to_string(log).unwrap();
        for secret in &secrets {
            assert!(!said.contains(secret.trim()), "a secret is in {}", log.display());
            assert!(!status.contains(secret.trim()), "a secret is in the status");
        }
    }
    agent.forget_ended();
    // The control: `sh` leaves one, where this system writes cores into the folder.
    let mut control = Command::new("sh");
    control.args(["-c", "kill -ABRT $$"]);
    let ended = crashing(&control).output().unwrap();
    assert!(!ended.status.success());
    if cores().is_empty() {
        println!("the control left none either: this system keeps cores elsewhere, or none");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// `CUSTODY_WRITE=1 cargo test -p custody-tests the_reference_of_metrics` writes it anew.
#[test]
fn the_reference_of_metrics_is_the_table() {
    let agents = reference(custody_agent::admin::metrics::TABLE);
    let collectors = reference(custody_collector::serve::metrics::TABLE);
    let page = format!(
        "# Metrics\n\nMade from the tables in the code; a test compares. The agent serves them where `admin.metrics` says, the collector\n\
         at `/metrics` of its own address (without a token on loopback, else with one that reads). `packaging/grafana/` has a dashboard.\n\n\
         Both serve `/healthz` (200 while the process answers) and `/readyz` (200 while events are taken and delivered, else 503 and why).\n\n\
         ## Agent\n\n{agents}\n## Collector\n\n{collectors}"
    );
    let path = root().join("docs/reference/metrics.md");
    if std::env::var_os("CUSTODY_WRITE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap() == page,
        "docs/reference/metrics.md is not as the tables are"
    );
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let text = std::fs::read_to_string(root().join("packaging/grafana/custody.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut known: BTreeSet<&str> =
        custody_agent::admin::metrics::TABLE.iter().map(|metric| metric.name).collect();
    known.extend(custody_collector::serve::metrics::TABLE.iter().map(|metric| metric.name));
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let words = target["expr"]
                .as_str()
                .unwrap()
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            asked.extend(words.filter(|word| word.starts_with("custody_")).map(ToOwned::to_owned));
        }
    }
    assert!(asked.len() > 10, "{asked:?}");
    for name in asked {
        assert!(known.contains(name.as_str()), "there is no metric {name}");
    }
}
