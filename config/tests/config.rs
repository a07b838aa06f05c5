//! What an operator meets: shipped files that load, and wrong files whose messages say where, what and what to do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use custody_config::agent::{
    OutputConfig, Packs, RedactConfig, SourceConfig, Start, WhenFull, Zone,
};
use custody_config::collector::{ArchiveConfig, BlocksConfig, IndexConfig, LockConfig, LockMode};
use custody_config::{
    AgentConfig, AgentOverrides, ByteSize, CollectorConfig, CollectorOverrides, Env, Keep,
    LoadError, LogLevel, Period, Place,
};

fn env() -> Env {
    Env { hostname: "web-1".to_owned(), credentials_dir: None }
}

fn agent(text: &str) -> Result<custody_config::Loaded<AgentConfig>, LoadError> {
    AgentConfig::from_text(Path::new("agent.yaml"), text, &AgentOverrides::default(), &env())
}

fn collector(text: &str) -> Result<custody_config::Loaded<CollectorConfig>, LoadError> {
    CollectorConfig::from_text(
        Path::new("collector.yaml"),
        text,
        &CollectorOverrides::default(),
        &env(),
    )
}

fn refused<T>(result: Result<T, LoadError>) -> String {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error.to_string(),
    }
}

const GOOD_OUTPUT: &str =
    "outputs: [{ id: c, type: custody, endpoints: ['http://127.0.0.1:8600'] }]\n";
const GOOD_SOURCE: &str = "sources: [{ id: a, type: file, paths: [/var/log/a.log] }]\n";

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn examples(prefix: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(shipped().join("examples"))
        .expect("the examples are shipped")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect();
    files.push(shipped().join(format!("{prefix}.yaml")));
    if prefix == "agent" {
        for name in ["encoding", "journal", "multiline", "syslog", "webhook"] {
            files.push(shipped().join(format!("examples/{name}.yaml")));
        }
    }
    files
}

#[test]
fn every_shipped_file_loads_without_a_warning_and_reads_back_as_it_is_printed() {
    for path in examples("agent") {
        let loaded = AgentConfig::load(&path, &AgentOverrides::default(), &env())
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let printed = loaded.value.render();
        let again = agent(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(again.value, loaded.value, "{}", path.display());
    }
    for path in examples("collector") {
        let loaded = CollectorConfig::load(Some(&path), &CollectorOverrides::default(), &env())
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let printed = loaded.value.render();
        let again = collector(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(again.value, loaded.value, "{}", path.display());
    }
}

#[test]
fn what_the_shipped_files_show_behind_a_hash_is_the_default() {
    // Each commented key is uncommented, alone, and must change nothing.
    let text = std::fs::read_to_string(shipped().join("collector.yaml")).expect("shipped");
    let uncommented: String = text
        .lines()
        .filter(|line| !line.starts_with("#name"))
        .map(|line| {
            let code = line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '\0']));
            format!("{}\n", code.unwrap_or(line))
        })
        .filter(|line| !line.contains("tls:") && !line.contains("_file:"))
        .collect();
    let plain = collector(&text).expect("loads").value;
    let spelt = collector(&uncommented).unwrap_or_else(|e| panic!("{e}\n{uncommented}")).value;
    assert_eq!(spelt, plain);
}

#[test]
fn defaults_are_those_of_the_design() {
    let loaded = agent(&format!("{GOOD_SOURCE}{GOOD_OUTPUT}")).expect("loads").value;
    assert_eq!(loaded.data_dir.get(), Path::new("/var/lib/custody-agent"));
    assert_eq!((loaded.host.as_str(), loaded.tenant.as_str()), ("web-1", "default"));
    assert_eq!(loaded.spool.max_bytes, ByteSize::mib(1024));
    assert_eq!(loaded.spool.when_full, WhenFull::Wait);
    assert_eq!(loaded.spool.linger, Period::from_millis(100));
    assert!((1..=4).contains(&loaded.parse_workers));
    assert_eq!(loaded.admin.socket.get(), Path::new("/run/custody-agent/admin.sock"));
    assert!(loaded.admin.metrics.is_none());
    let SourceConfig::File(file) = &loaded.sources[0] else { panic!("a file") };
    assert_eq!(
        (file.start, &file.packs, &file.timezone),
        (Start::Beginning, &Packs::Auto, &Zone::System)
    );
    assert_eq!((file.max_line_bytes, file.scan_interval), (ByteSize::kib(16), Period::seconds(1)));
    let OutputConfig::Custody(output) = &loaded.outputs[0];
    assert_eq!(
        (output.timeout, output.max_backoff, output.in_flight),
        (Period::seconds(30), Period::seconds(10), 4)
    );

    let loaded = collector("").expect("an empty file is enough").value;
    assert_eq!(loaded.listen.get().to_string(), "127.0.0.1:8600");
    assert_eq!(loaded.name.get(), "custody-collector/web-1");
    assert_eq!(loaded.index, IndexConfig::Embedded);
    assert_eq!(loaded.blocks, BlocksConfig::Local { segment_bytes: ByteSize::mib(256) });
    assert_eq!(loaded.retention.default, Keep::For(Period::days(400)));
    assert_eq!(loaded.limits.max_event_bytes, ByteSize::kib(60));
}

#[test]
fn a_misspelt_key_is_refused_with_the_key_that_was_meant() {
    let message = refused(agent(&format!("sourcs: []\n{GOOD_OUTPUT}")));
    assert_eq!(message, "agent.yaml:1:1: unknown key `sourcs` (hint: did you mean `sources`?)");
    let message = refused(agent(&format!("{GOOD_SOURCE}{GOOD_OUTPUT}spool:\n  max-bytes: 1GiB\n")));
    assert_eq!(
        message,
        "agent.yaml:4:3: unknown key `spool.max-bytes` (hint: did you mean `max_bytes`?)"
    );
    let message = refused(collector("limits: { colour: red }\n"));
    assert_eq!(
        message,
        "collector.yaml:1:11: unknown key `limits.colour` (hint: known here: max_block_bytes, max_event_bytes, requests_per_minute)"
    );
}

#[test]
fn all_problems_of_a_file_are_said_at_once_in_their_order() {
    let text = "\
data_dir: var/lib
sources:
  - { id: Auth Log, type: file, paths: [auth.log], start: begining }
  - { id: auth, type: file, paths: [] }
spool: { max_bytes: lots, when_full: 7, linger: 30 }
outputs: []
log: { level: loud }
";
    let expected = "\
agent.yaml:1:11: `data_dir`: `var/lib` is not an absolute path (hint: begin it with /)
agent.yaml:3:11: `sources[].id`: `Auth Log` cannot be an id (hint: use 1 to 64 of: a-z 0-9 _ -)
agent.yaml:3:41: `sources[].paths`: `auth.log` is not an absolute path (hint: begin it with /)
agent.yaml:3:59: `sources[].start` has the unknown value `begining` (hint: did you mean `beginning`?)
agent.yaml:4:36: `sources[].paths` is empty (hint: name at least one file or pattern)
agent.yaml:5:21: `spool.max_bytes`: `lots` is not a size (hint: write bytes or a unit, such as 64KiB, 16MiB, 1GiB)
agent.yaml:5:38: `spool.when_full` must be a text, found the number 7 (hint: put it in quotes)
agent.yaml:5:49: `spool.linger`: the duration `30` has no unit (hint: write 30s for seconds or 30ms for milliseconds)
agent.yaml:6:10: `outputs` is empty (hint: name at least one)
agent.yaml:7:15: `log.level` has the unknown value `loud` (hint: one of: error, warn, info, debug, trace)";
    assert_eq!(refused(agent(text)), expected);
}

#[test]
fn a_segment_longer_than_the_log_can_make_is_refused_and_not_taken_for_less() {
    let text = |size| format!("blocks: {{ type: local, segment_bytes: {size} }}\n");
    assert_eq!(
        refused(collector(&text("4GiB"))),
        "collector.yaml:1:39: `blocks.segment_bytes` is 4GiB, outside its limits (hint: write a value from 1MiB to 2GiB)"
    );
    let loaded = collector(&text("2GiB")).expect("the longest that there is").value;
    assert_eq!(loaded.blocks, BlocksConfig::Local { segment_bytes: ByteSize::mib(2048) });
}

#[test]
fn a_wrong_type_is_named_with_what_was_found() {
    for (text, expected) in [
        (
            "sources: /var/log/x\n",
            "agent.yaml:1:10: `sources` must be a list, found the text `/var/log/x` (hint: put it in brackets: [a, b])",
        ),
        (
            "sources: [5]\n",
            "agent.yaml:1:11: `sources[]` must be a section with keys, found the number 5 (hint: write `key: value`, one a line)",
        ),
        (
            "spool: 1GiB\n",
            "agent.yaml:1:8: `spool` must be a section with keys, found the text `1GiB` (hint: write `key: value`, one a line)",
        ),
        (
            "spool: { max_bytes: [1] }\n",
            "agent.yaml:1:21: `spool.max_bytes` must be a size, found a list (hint: write bytes or a unit, such as 64KiB, 16MiB, 1GiB)",
        ),
        (
            "spool: { max_bytes: 10 }\n",
            "agent.yaml:1:21: `spool.max_bytes` is 10, outside its limits (hint: write a value from 4MiB to 1TiB)",
        ),
        (
            "parse_workers: 4.5\n",
            "agent.yaml:1:16: `parse_workers` must be a whole number, found the number 4.5 (hint: write a number from 1 to 64, without quotes)",
        ),
        (
            "tenant: 7\n",
            "agent.yaml:1:9: `tenant` must be a text, found the number 7 (hint: put it in quotes)",
        ),
        (
            "host:\n",
            "agent.yaml:1:5: `host` must be a text, found nothing (hint: give it a value, or remove the key to use its default)",
        ),
        (
            "labels: { rack: 12 }\n",
            "agent.yaml:1:17: `labels.rack` must be a text, found the number 12 (hint: put it in quotes)",
        ),
    ] {
        let message = refused(agent(text));
        assert!(message.lines().any(|line| line == expected), "wanted {expected}\ngot {message}");
    }
}

#[test]
fn text_that_is_not_yaml_says_where() {
    let message = refused(agent("sources:\n  - { id: a, type: file\noutputs: []\n"));
    assert!(
        message.starts_with("agent.yaml:2:5: not valid YAML: unclosed bracket '{' (hint: "),
        "{message}"
    );
    let message = refused(agent("tenant: a\ntenant: b\n"));
    assert_eq!(
        message,
        "agent.yaml:2:1: the key `tenant` is there twice (hint: keep one of the two)"
    );
    let message = refused(agent("\tsources: []\n"));
    assert!(message.starts_with("agent.yaml:1:"), "{message}");
    let message = refused(agent("just words\n"));
    assert!(
        message.starts_with(
            "agent.yaml:1:1: the file must be a section with keys, found the text `just words`"
        ),
        "{message}"
    );
}

#[test]
fn an_empty_agent_file_says_what_is_missing() {
    let expected = "\
agent.yaml:1:1: `sources` is missing (hint: add `sources:`)
agent.yaml:1:1: `outputs` is missing (hint: add `outputs:`)";
    assert_eq!(refused(agent("")), expected);
    assert_eq!(refused(agent("# nothing yet\n")), expected);
}

#[test]
fn what_is_pushed_to_is_guarded() {
    for (text, expected) in [
        (
            "webhook: { listen: '0.0.0.0:8480' }\n",
            "agent.yaml:1:20: 0.0.0.0:8480 is not loopback, and there is no `webhook.tls`",
        ),
        (
            "sources: [{ id: w, type: webhook, path: /w, verify: { scheme: gihub } }]\n",
            "did you mean `github`?",
        ),
        (
            "sources: [{ id: w, type: webhook, path: /w, verify: { scheme: github } }]\n",
            "this scheme needs a secret (hint: add `secret_files: [/etc/custody/NAME.secret]`)",
        ),
        (
            "sources: [{ id: s, type: syslog, listen: '127.0.0.1:1', protocol: tls }]\n",
            "`protocol: tls` needs a certificate (hint: add `tls: { cert_file: …, key_file: … }`)",
        ),
        (
            "sources: [{ id: w, type: webhook, path: /w, verify: { scheme: none } }]\nwebhook: { listen: '0.0.0.0:1', tls: { cert_file: /c, key_file: /k } }\n",
            "`scheme: none` takes records from everyone",
        ),
    ] {
        let message = refused(agent(text));
        assert!(message.contains(expected), "wanted {expected}\ngot {message}");
    }
}

#[test]
fn rules_of_redaction_are_read_printed_and_checked() {
    let good = format!(
        "sources: [{{ id: a, type: file, paths: [/x], join: auditd, redact: [{{ fields: [actor.name], patterns: [jwt], action: pseudonym }}, {{ name: n, regex: 'a(?<secret>b)', action: mask }}] }}, {{ id: j, type: journal, redact: 'off' }}, {{ id: s, type: syslog, listen: '127.0.0.1:1', redact: off }}]\n{GOOD_OUTPUT}"
    );
    let loaded = agent(&good).expect("good").value;
    let RedactConfig::Rules(rules) = loaded.sources[0].redact() else { panic!("rules") };
    assert_eq!((rules.len(), rules[0].fields[0].get().as_str()), (2, "actor.name"));
    assert_eq!(rules[1].regex.as_ref().unwrap().get(), "a(?<secret>b)");
    for source in &loaded.sources[1..] {
        assert_eq!(source.redact(), &RedactConfig::Off);
    }
    let again = agent(&loaded.render()).expect("it loads as the same").value;
    assert_eq!(again.render(), loaded.render());
    for (text, expected) in [
        ("redact: yes please", "`sources[].redact` must be `off` or a list"),
        ("redact: [{ action: mask }]", "names nothing (hint: add `fields"),
        ("redact: [{ fields: [a] }]", "`sources[].redact[].action` is missing"),
        ("redact: [{ regex: x, action: mask }]", "go together"),
        ("redact: [{ feilds: [x], action: mask }]", "did you mean `fields`?"),
        ("join: audit", "did you mean `auditd`?"),
    ] {
        let text =
            format!("sources: [{{ id: a, type: file, paths: [/x], {text} }}]\n{GOOD_OUTPUT}");
        let message = refused(agent(&text));
        assert!(message.contains(expected), "wanted {expected}\ngot {message}");
    }
}

#[test]
fn what_comes_later_is_told_apart_from_a_slip() {
    for (text, expected) in [
        (
            "sources: [{ id: j, type: jurnal }]\n",
            "agent.yaml:1:26: unknown type `jurnal` (hint: did you mean `journal`?)",
        ),
        (
            "outputs: [{ id: o, type: otlp, url: x }]\n",
            "agent.yaml:1:26: type `otlp` is not built into this version yet (hint: this version knows: custody)",
        ),
    ] {
        let message = refused(agent(text));
        assert!(message.lines().any(|line| line == expected), "wanted {expected}\ngot {message}");
        assert!(!message.contains("unknown key"), "{message}");
    }
    let message = refused(collector("index: { type: clickhouse, url: x, database: y }\n"));
    assert_eq!(
        message,
        "collector.yaml:1:16: type `clickhouse` is not built into this version yet (hint: this version knows: embedded, none)"
    );
    let message = refused(collector("blocks: { type: s3, bucket: b }\n"));
    assert_eq!(
        message,
        "collector.yaml:1:17: type `s3` is not built into this version yet (hint: this version knows: local)"
    );
}

#[test]
fn lines_that_belong_together_are_told_in_one_way() {
    let file = |keys: &str| {
        format!("sources: [{{ id: a, type: file, paths: [/x], {keys} }}]\n{GOOD_OUTPUT}")
    };
    for (keys, expected) in [
        ("multiline: { max_bytes: 4KiB }", "does not say which lines belong together"),
        ("multiline: { indent: false }", "does not say which lines belong together"),
        ("multiline: { indent: true, start: x }", "says in several ways which lines"),
        (
            "multiline: { start: '^(a' }",
            "agent.yaml:1:65: `sources[].multiline.start`: `^(a` is not a pattern: unclosed group",
        ),
        ("multiline: { begin: x, start: x }", "unknown key `sources[].multiline.begin`"),
        ("multiline: { end: x, max_bytes: 1MiB }", "outside its limits"),
        ("encoding: utf16", "did you mean `utf-16`?"),
        ("max_open_files: 0", "outside its limits"),
    ] {
        let message = refused(agent(&file(keys)));
        assert!(message.contains(expected), "wanted {expected}\ngot {message}");
    }
    let good = file("multiline: { continue: '^\\s', flush: 2s }, encoding: utf-16le, poll: true");
    let loaded = agent(&good).expect("loads");
    let printed = loaded.value.render();
    assert_eq!(agent(&printed).expect("loads again").value.sources, loaded.value.sources);
}

#[test]
fn an_id_that_is_used_twice_names_the_first_place() {
    let text = format!(
        "sources:\n  - {{ id: a, type: file, paths: [/x] }}\n  - {{ id: a, type: file, paths: [/y] }}\n{GOOD_OUTPUT}"
    );
    assert_eq!(
        refused(agent(&text)),
        "agent.yaml:3:11: the id `a` is used twice (hint: the first is at agent.yaml:2:11; give each its own)"
    );
}

#[test]
fn a_time_zone_that_nobody_knows_is_refused() {
    let good =
        format!("sources: [{{ id: a, type: file, paths: [/x], timezone: UTC }}]\n{GOOD_OUTPUT}");
    let loaded = agent(&good).expect("UTC is a zone");
    let SourceConfig::File(file) = &loaded.value.sources[0] else { panic!("a file") };
    assert_eq!(file.timezone, Zone::Named("UTC".to_owned()));
    let message = refused(agent(&good.replace("UTC", "Mars/Olympus")));
    assert_eq!(
        message,
        "agent.yaml:1:55: `sources[].timezone`: `Mars/Olympus` is not a time zone (hint: write an IANA name, such as UTC or Europe/Berlin)"
    );
}

#[test]
fn plain_http_leaves_the_machine_only_when_somebody_says_so() {
    let to = |endpoint: &str, more: &str| {
        agent(&format!(
            "{GOOD_SOURCE}outputs: [{{ id: c, type: custody, endpoints: ['{endpoint}']{more} }}]\n"
        ))
    };
    assert!(to("http://127.0.0.1:8600", "").is_ok());
    assert!(to("http://[::1]:8600", "").is_ok());
    assert!(to("https://collector:8600", "").is_ok());
    let message = refused(to("http://collector:8600", ""));
    assert_eq!(
        message,
        "agent.yaml:2:47: http://collector:8600 is plain HTTP to another machine: events and token could be read and changed on the way (hint: write https://, or allow it with `insecure: true` in this output)"
    );
    let loaded = to("http://collector:8600", ", insecure: true").expect("allowed");
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn a_collector_that_others_can_reach_needs_tls() {
    let message = refused(collector("listen: 0.0.0.0:8600\n"));
    assert_eq!(
        message,
        "collector.yaml:1:9: 0.0.0.0:8600 is not loopback, and there is no `tls`: events and tokens could be read and changed on the way (hint: add `tls: { cert_file: …, key_file: … }`, or listen on 127.0.0.1)"
    );
    let tls = "tls: { cert_file: /c.pem, key_file: /k.pem }\n";
    assert!(collector(&format!("listen: 0.0.0.0:8600\n{tls}")).is_ok());
    // The command line is no way around it, and may set it right.
    let with = |listen: &str, text: &str| {
        let overrides =
            CollectorOverrides { listen: Some(listen.to_owned()), ..CollectorOverrides::default() };
        CollectorConfig::from_text(Path::new("collector.yaml"), text, &overrides, &env())
    };
    assert!(refused(with("[::]:8600", "")).starts_with("--listen: [::]:8600 is not loopback"));
    assert!(with("127.0.0.1:0", "listen: 0.0.0.0:8600\n").is_ok());
    assert_eq!(
        refused(with("8600", "")),
        "--listen: `8600` is not an address and a port (hint: write 127.0.0.1:8600, or [::]:8600 for every address)"
    );
    let message = refused(collector("tls: { cert_file: /c.pem }\n"));
    assert_eq!(message, "collector.yaml:1:6: `tls.key_file` is missing (hint: add `key_file:`)");
}

#[test]
fn a_collector_runs_with_no_file_at_all() {
    let overrides = CollectorOverrides {
        data_dir: Some(PathBuf::from("/srv/custody")),
        listen: Some("127.0.0.1:8601".to_owned()),
        log_level: Some(LogLevel::Debug),
    };
    let loaded = CollectorConfig::load(None, &overrides, &env()).expect("defaults are enough");
    assert_eq!(loaded.path, None);
    assert_eq!(loaded.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(loaded.value.data_dir.get(), Path::new("/srv/custody"));
    assert_eq!(loaded.value.data_dir.place(), &Place::Option("--data-dir"));
    assert_eq!(loaded.value.listen.get().port(), 8601);
    assert_eq!(loaded.value.log.level, LogLevel::Debug);
}

#[test]
fn retention_classes_must_say_about_what_and_how_long() {
    let text = "\
retention:
  classes:
    - { keep: 3y }
    - { severity: [hihg], keep: 90d }
    - { category: [acces, x_mine], keep: 12h }
    - { severity: [high] }
";
    let expected = "\
collector.yaml:3:7: a class of retention needs `severity`, `category` or `tenant` (hint: say which events it is about)
collector.yaml:4:20: unknown severity `hihg` (hint: did you mean `high`?)
collector.yaml:5:20: unknown category `acces` (hint: did you mean `access`?)
collector.yaml:5:42: `retention.classes[].keep`: `12h` is below the floor of 90d (hint: write 90d or more, or `forever`; `retention.minimum` sets the floor)
collector.yaml:6:7: `retention.classes[].keep` is missing (hint: add `keep:`)";
    assert_eq!(refused(collector(text)), expected);
}

#[test]
fn a_file_that_is_absent_or_not_text_is_refused_with_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("agent.yaml");
    let message = refused(AgentConfig::load(&path, &AgentOverrides::default(), &env()));
    assert!(
        message.contains("agent.yaml: cannot read the configuration file: No such file"),
        "{message}"
    );
    std::fs::write(&path, b"tenant: \xc3\xa9\nhost: \xff\n").expect("written");
    let message = refused(AgentConfig::load(&path, &AgentOverrides::default(), &env()));
    assert!(
        message.ends_with("agent.yaml:2:7: the file is not UTF-8 here (hint: save it as UTF-8)"),
        "{message}"
    );
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("written");
    let message = refused(AgentConfig::load(&path, &AgentOverrides::default(), &env()));
    assert!(message.contains("longer than 1 MiB"), "{message}");
}

#[test]
fn the_hash_is_that_of_the_bytes_on_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("collector.yaml");
    std::fs::write(&path, "abc: 1\n").expect("written");
    assert!(CollectorConfig::load(Some(&path), &CollectorOverrides::default(), &env()).is_err());
    std::fs::write(&path, "# abc\n").expect("written");
    let loaded =
        CollectorConfig::load(Some(&path), &CollectorOverrides::default(), &env()).expect("loads");
    // printf '# abc\n' | sha256sum
    assert_eq!(loaded.sha256, "c96d70129517a804082ed92c0ff5cc78c880c661376df954acf1d349484a7715");
    assert_eq!(loaded.path.as_deref(), Some(path.as_path()));
}

#[test]
fn a_secret_that_others_can_read_is_warned_about_and_a_credential_is_found_by_its_name() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("enroll.token");
    std::fs::write(&token, "  s3cret\n").expect("written");
    let chmod = |mode| {
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).expect("chmod")
    };
    let output = |file: &str| {
        format!(
            "{GOOD_SOURCE}outputs: [{{ id: c, type: custody, endpoints: ['http://127.0.0.1:1'], enroll_token_file: {file} }}]\n"
        )
    };
    let full = output(&token.display().to_string());
    chmod(0o640);
    let loaded = agent(&full).expect("loads");
    let warning = loaded.warnings[0].to_string();
    assert!(
        warning.contains("(enroll_token_file) can be read by others (mode 0640) (hint: chmod 0600"),
        "{warning}"
    );
    chmod(0o600);
    let loaded = agent(&full).expect("loads");
    assert!(loaded.warnings.is_empty());
    let OutputConfig::Custody(custody) = &loaded.value.outputs[0];
    let secret = custody.enroll_token_file.as_ref().expect("set").read().expect("readable");
    assert_eq!(secret.expose(), "s3cret");
    assert_eq!(format!("{secret:?}"), "Secret(6 bytes)");

    let relative = output("enroll.token");
    // Typed by a person, outside of the unit: said, and only the secret itself cannot be had.
    let outside = agent(&relative).expect("loads");
    let warning = outside.warnings[0].to_string();
    assert!(warning.contains("only the unit is given"), "{warning}");
    let OutputConfig::Custody(custody) = &outside.value.outputs[0];
    let problem = custody.enroll_token_file.as_ref().expect("set").read().expect_err("absent");
    assert!(problem.to_string().contains("CREDENTIALS_DIRECTORY=/folder/of/enroll.token"));
    let elsewhere = tempfile::tempdir().expect("a directory");
    let without = Env { credentials_dir: Some(elsewhere.path().to_owned()), ..env() };
    let message = refused(AgentConfig::from_text(
        Path::new("agent.yaml"),
        &relative,
        &AgentOverrides::default(),
        &without,
    ));
    assert!(
        message.contains(
            "`enroll.token` is a relative path, and no systemd credential of this name was passed"
        ),
        "{message}"
    );
    assert!(message.contains("LoadCredential=enroll.token:/path"), "{message}");
    let with = Env { credentials_dir: Some(dir.path().to_owned()), ..env() };
    let loaded = AgentConfig::from_text(
        Path::new("agent.yaml"),
        &relative,
        &AgentOverrides::default(),
        &with,
    )
    .expect("found");
    let OutputConfig::Custody(custody) = &loaded.value.outputs[0];
    assert_eq!(custody.enroll_token_file.as_ref().expect("set").path(), token);

    std::fs::write(&token, "\n").expect("written");
    let error =
        custody.enroll_token_file.as_ref().expect("set").read().expect_err("empty").to_string();
    assert!(error.starts_with("agent.yaml:2:"), "{error}");
    assert!(error.contains("is empty"), "{error}");
}

#[test]
fn the_keys_that_can_be_asked_for_are_those_that_are_read() {
    let keys: BTreeSet<_> = AgentConfig::keys().into_iter().collect();
    for key in [
        "data_dir",
        "sources[].max_line_bytes",
        "spool.free_space_floor",
        "outputs[].tls.key_file",
        "admin.metrics",
        "log.level",
    ] {
        assert!(keys.contains(key), "{key} is not among {keys:?}");
    }
    let keys: BTreeSet<_> = CollectorConfig::keys().into_iter().collect();
    for key in ["listen", "tls.client_ca_file", "retention.classes[].keep", "blocks.segment_bytes"]
    {
        assert!(keys.contains(key), "{key} is not among {keys:?}");
    }
}

#[test]
fn a_journal_source_says_what_is_wrong_with_each_choice() {
    let text = "sources:\n  - { id: j, type: journal, units: [ssh.service, 'a b'], priority: warn, boots: ['-1'],\n      namespace: x, directory: /j, start: middle }\n";
    let message = agent(&format!("{text}{GOOD_OUTPUT}")).expect_err("wrong").to_string();
    for part in [
        "`a b` cannot be a unit",
        "unknown priority `warn` (hint: did you mean `warning`?)",
        "`-1` cannot be a boot",
        "`namespace` and `directory` name two journals",
        "`sources[].start` has the unknown value `middle`",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let good = "sources: [{ id: j, type: journal, units: [ssh.service], identifiers: [sshd], priority: notice, boots: [current], namespace: web, via: library, watchdog: 10s }]\n";
    let loaded = agent(&format!("{good}{GOOD_OUTPUT}")).unwrap_or_else(|e| panic!("{e}")).value;
    let SourceConfig::Journal(journal) = &loaded.sources[0] else { panic!("a journal source") };
    assert_eq!(journal.priority_max(), Some(5));
    assert_eq!(journal.units[0].get(), "ssh.service");
}

/// A bucket with everything that it must have.
const BUCKET: &str = "type: s3, bucket: audit, access_key_file: /k/id, secret_key_file: /k/secret";

#[test]
fn an_archive_on_s3_is_read_printed_and_read_again() {
    let text = format!(
        "archive: {{ {BUCKET}, endpoint: 'https://s3.example.org:9000', region: eu-1, prefix: custody/c-1/, \
         path_style: true, session_token_file: /k/token, ca_file: /k/ca.pem, \
         lock: {{ mode: compliance, keep: 400d }}, after: 7d }}\n"
    );
    let loaded = collector(&text).expect("good").value;
    let Some(ArchiveConfig::S3(s3)) = &loaded.archive else { panic!("a bucket") };
    assert_eq!(s3.endpoint.get().to_string(), "https://s3.example.org:9000");
    assert_eq!(s3.prefix.as_ref().unwrap().get(), "custody/c-1");
    assert_eq!(s3.lock, Some(LockConfig { mode: LockMode::Compliance, keep: Period::days(400) }));
    assert_eq!(loaded.archive.as_ref().unwrap().after(), Period::days(7));
    let again = collector(&loaded.render()).expect("it loads as the same").value;
    assert_eq!(again, loaded);

    let least = collector(&format!("archive: {{ {BUCKET}, region: eu-central-1 }}\n"));
    let Some(ArchiveConfig::S3(s3)) = least.expect("good").value.archive else { panic!() };
    assert_eq!(s3.endpoint.get().to_string(), "https://s3.eu-central-1.amazonaws.com:443");
    assert_eq!((s3.path_style, s3.lock, s3.after), (false, None, Period::days(30)));
}

#[test]
fn a_bucket_that_cannot_be_is_refused_with_its_place_and_what_to_write() {
    let without = "type: s3, access_key_file: /k/id, secret_key_file: /k/secret";
    for (archive, expected) in [
        (
            without.to_owned(),
            "collector.yaml:1:10: `archive.bucket` is missing (hint: add `bucket:`)",
        ),
        (
            format!("{without}, bucket: Audit_Trail"),
            "collector.yaml:1:82: `archive.bucket`: `Audit_Trail` cannot be the name of a bucket (hint: use 3 to 63 of: a-z 0-9 - . with a letter or digit at both ends)",
        ),
        (
            format!("{without}, bucket: audit.trail"),
            "collector.yaml:1:82: no certificate fits the host audit.trail.s3.us-east-1.amazonaws.com (hint: add `path_style: true`)",
        ),
        (
            format!("{without}, bucket: audit, endpoint: 'https://192.0.2.7'"),
            "collector.yaml:1:82: a bucket cannot stand before the address 192.0.2.7 (hint: add `path_style: true`)",
        ),
        (
            format!("{BUCKET}, endpoint: 'http://s3.example.org'"),
            "could be read and changed on the way (hint: write https://)",
        ),
        (format!("{BUCKET}, endpoint: 'https://s3.example.org/audit'"), "has a path"),
        (format!("{BUCKET}, region: 'eu central'"), "`eu central` cannot be a region"),
        (
            format!("{BUCKET}, prefix: /a"),
            "`archive.prefix`: `/a` cannot begin the names of objects",
        ),
        (
            format!("{BUCKET}, lock: {{ mode: strict, keep: 1d }}"),
            "`archive.lock.mode` has the unknown value `strict` (hint: one of: governance, compliance)",
        ),
        (
            format!("{BUCKET}, lock: {{ mode: compliance }}"),
            "`archive.lock.keep` is missing (hint: add `keep:`)",
        ),
        (format!("{BUCKET}, lock: {{ mode: compliance, keep: 1h }}"), "outside its limits"),
        (format!("{BUCKET}, path: /x"), "unknown key `archive.path`"),
        (format!("{BUCKET}, secret_key: AKIA"), "unknown key `archive.secret_key`"),
        ("type: tape, path: /x".to_owned(), "unknown type `tape` (hint: one of: dir, s3)"),
    ] {
        let message = refused(collector(&format!("archive: {{ {archive} }}\n")));
        assert!(message.contains(expected), "wanted {expected}\ngot {message}");
    }
    // A credential, where the unit is not: only who reads it is refused.
    let outside = "type: s3, bucket: audit, access_key_file: id, secret_key_file: /k/s";
    let loaded = collector(&format!("archive: {{ {outside} }}\n")).expect("loads");
    let warned =
        loaded.warnings.iter().any(|one| one.to_string().contains("only the unit is given"));
    assert!(warned, "{:?}", loaded.warnings);
}

#[test]
fn quotas_of_tenants_are_read_and_one_that_bounds_nothing_is_refused() {
    let text = "exports: { tenants: [{ tenant: [acme], max_range: 31d }] }\n";
    let loaded = collector(text).expect("good").value;
    assert_eq!(loaded.exports.tenants[0].max_range, Some(Period::days(31)));
    assert_eq!(collector(&loaded.render()).expect("the same").value, loaded);
    for (text, expected) in [
        (
            "exports: { tenants: [{ tenant: [acme] }] }\n",
            "collector.yaml:1:22: this bounds nothing (hint: write `max_range`, `max_age` or both)",
        ),
        (
            "exports: { tenants: [{ max_age: 31d }] }\n",
            "collector.yaml:1:22: `exports.tenants[].tenant` is missing (hint: add `tenant:`)",
        ),
        (
            "limits: { requests_per_minute: 0 }\n",
            "collector.yaml:1:32: `limits.requests_per_minute` is 0, outside its limits",
        ),
    ] {
        let message = refused(collector(text));
        assert!(message.contains(expected), "wanted {expected}\ngot {message}");
    }
}
