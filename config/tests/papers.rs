//! Tidy checks: what the papers promise is what the code does, and the fences of ARCHITECTURE.md and deny.toml hold.
//!
//! The fences are checked against Cargo.lock and the sources, so that they hold where cargo-deny is not installed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use custody_config::{AgentConfig, AgentOverrides, CollectorConfig, CollectorOverrides, Env};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every file below `dir` with this ending, as a path from the root.
fn files(dir: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found
                    .push(path.strip_prefix(root()).expect("below").to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// Who depends on whom, as Cargo.lock says: package name → names of those that name it.
fn dependants() -> BTreeMap<String, BTreeSet<String>> {
    let lock = read("Cargo.lock");
    let mut dependants: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
        let name = package
            .lines()
            .find(|line| line.starts_with("name = "))
            .and_then(quoted)
            .expect("a name");
        dependants.entry(name.clone()).or_default();
        for line in package.lines().filter(|line| line.starts_with(" \"")) {
            let of = quoted(line).expect("quoted");
            let of = of.split(' ').next().expect("a name").to_owned();
            dependants.entry(of).or_default().insert(name.clone());
        }
    }
    dependants
}

/// The bans of deny.toml: crate → who may wrap it; `None` stands for nobody at all.
fn bans() -> BTreeMap<String, Option<BTreeSet<String>>> {
    let words = |list: &str| list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    let deny = read("deny.toml");
    let lines = deny.lines().map(str::trim).filter(|line| line.starts_with("{ crate = "));
    lines
        .map(|line| {
            let name = line.split('"').nth(1).expect("a name").to_owned();
            let wrappers = line
                .split_once("wrappers = [")
                .map(|(_, rest)| words(rest.split(']').next().expect("closed")));
            (name, wrappers)
        })
        .collect()
}

#[test]
fn only_those_whom_deny_toml_names_depend_on_a_fenced_crate() {
    let (dependants, bans) = (dependants(), bans());
    assert!(bans.len() > 10, "deny.toml is not read as it is written");
    let mut broken = Vec::new();
    for (name, wrappers) in &bans {
        let Some(found) = dependants.get(name) else { continue };
        match wrappers {
            None => broken.push(format!("{name} is banned and in Cargo.lock, wanted by {found:?}")),
            Some(allowed) => {
                for who in found.difference(allowed) {
                    broken.push(format!("{name} may be used by {allowed:?}, not by {who}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    // A fence around nothing is a slip of the pen.
    for name in ["sled", "reqwest", "axum", "tantivy", "rusqlite", "linemux"] {
        assert!(dependants.contains_key(name) && bans.contains_key(name), "{name}");
    }
}

/// The rooms that may name a crate, as the beginnings of paths.
const ROOMS: &[(&str, &[&str])] = &[
    ("sled", &["agent/src/spool/"]),
    ("linemux", &["agent/src/cli/follow.rs"]),
    ("landlock", &["agent/src/sandbox.rs"]),
    ("reqwest", &["agent/src/outputs/", "agent/src/runtime/connect.rs", "collector/src/"]),
    ("notify", &["agent/src/sources/"]),
    ("systemd_journal_logger", &["config/src/shell/"]),
    ("sd_notify", &["config/src/shell/"]),
    ("signal_hook", &["config/src/shell/"]),
    ("tantivy", &["collector/src/index/"]),
    ("rusqlite", &["collector/src/access/", "collector/src/export/", "collector/src/retain/"]),
    ("maud", &["collector/src/web/"]),
    (
        "axum",
        &[
            "collector/src/serve/",
            "collector/src/query/",
            "collector/src/export/",
            "collector/src/retain/api.rs",
            "collector/src/web/",
            "collector/src/access/http/",
            "collector/src/command/derived.rs",
            // Servers of tests.
            "collector/src/access/matrix/",
            "collector/src/access/oidc/tests.rs",
            "collector/src/anchor/tests.rs",
        ],
    ),
];

/// Fenced in deny.toml, and needing no room: programs and libraries of ours, and what one file names.
const ROOMLESS: &[&str] = &[
    "custody_agent",
    "custody_collector",
    "maxminddb",
    "serde_saphyr",
    "clap_mangen",
    "clap_complete",
];

#[test]
fn every_crate_that_deny_toml_confines_has_its_rooms_here_and_is_named_in_each() {
    for (name, wrappers) in bans() {
        let name = name.replace('-', "_");
        let has_room = ROOMS.iter().any(|(other, _)| *other == name);
        let needs_room = wrappers.is_some() && !ROOMLESS.contains(&name.as_str());
        assert!(has_room || !needs_room, "{name} is fenced in deny.toml and has no room here");
    }
    for (name, rooms) in ROOMS {
        for room in *rooms {
            let (folder, _) = room.split_once("/src/").expect("in a crate's sources");
            let of_room = files(&format!("{folder}/src"), ".rs");
            let mut texts = of_room.iter().filter(|file| file.starts_with(room)).map(|f| read(f));
            let is_named = texts.any(|text| text.contains(&format!("{name}::")));
            assert!(is_named, "{room} does not name {name}");
        }
    }
}

#[test]
fn a_confined_crate_is_named_in_its_room_alone() {
    let mut broken = Vec::new();
    for krate in ["event", "parsers", "evidence", "config", "agent", "collector"] {
        for file in files(&format!("{krate}/src"), ".rs") {
            let text = read(&file);
            // Comments may speak of anything.
            let code: String = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect::<Vec<_>>()
                .join("\n");
            for (name, rooms) in ROOMS {
                let named = [
                    format!(" {name}::"),
                    format!("({name}::"),
                    format!("<{name}::"),
                    format!("use {name};"),
                ]
                .iter()
                .any(|form| code.contains(form.as_str()));
                if named && !rooms.iter().any(|room| file.starts_with(room)) {
                    broken.push(format!("{file} names {name}, which belongs to {rooms:?}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_pure_crates_do_no_io_and_start_no_thread() {
    let mut broken = Vec::new();
    for krate in ["event", "parsers"] {
        let manifest = read(&format!("{krate}/Cargo.toml"));
        let dependencies = manifest.split("[dev-dependencies]").next().expect("a part");
        for name in ["tokio", "rustix", "libc", "custody-config"] {
            assert!(!dependencies.contains(&format!("\n{name}.")), "{krate} depends on {name}");
        }
        for file in files(&format!("{krate}/src"), ".rs") {
            for word in [
                "TcpStream",
                "TcpListener",
                "UdpSocket",
                "thread::spawn",
                "process::Command",
                "File::open",
            ] {
                if read(&file).contains(word) {
                    broken.push(format!("{file} uses {word}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The keys of the tables under one heading of the reference, with their defaults.
fn documented(heading: &str) -> BTreeMap<String, String> {
    let page = read("docs/guide/configuration.md");
    let part =
        page.split("\n## ").find(|part| part.starts_with(heading)).expect("the heading is there");
    let rows = part.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), cells[2].trim_matches('`').to_owned())
    })
    .collect()
}

#[test]
fn the_reference_lists_every_key_and_no_other() {
    for (heading, keys) in
        [("agent.yaml", AgentConfig::keys()), ("collector.yaml", CollectorConfig::keys())]
    {
        let documented: BTreeSet<_> = documented(heading).into_keys().collect();
        let read: BTreeSet<_> = keys.into_iter().collect();
        assert_eq!(documented, read, "docs/guide/configuration.md, {heading}");
    }
}

#[test]
fn the_reference_shows_the_defaults_of_the_types() {
    let env = Env { hostname: "h".to_owned(), credentials_dir: None };
    let least = "sources: [{ id: s, type: file, paths: [/x] }, { id: j, type: journal }, { id: n, type: syslog, listen: '127.0.0.1:1' }, { id: w, type: webhook, path: /x, verify: { scheme: none } }]\noutputs: [{ id: o, type: custody, endpoints: ['https://c:1'] }]\n";
    let agent = AgentConfig::from_text(Path::new("a"), least, &AgentOverrides::default(), &env)
        .expect("loads")
        .value
        .render();
    let mut collector = CollectorConfig::with_defaults("h").render();
    for archive in ["path: /a", "type: s3, bucket: abc, access_key_file: /k, secret_key_file: /k"] {
        let (text, none) = (format!("archive: {{ {archive} }}"), CollectorOverrides::default());
        let loaded = CollectorConfig::from_text(Path::new("c"), &text, &none, &env);
        collector.push_str(&loaded.expect("loads").value.render());
    }
    for (heading, printed) in [("agent.yaml", agent), ("collector.yaml", collector)] {
        let defaults = documented(heading);
        // A default that is one word stands in the printed configuration, as the value of its key.
        let plain = defaults.iter().filter(|(_, value)| {
            !value.is_empty()
                && !value.contains([' ', '*', '[', '<'])
                && !["none", "any"].contains(&value.as_str())
        });
        let mut checked = 0;
        for (key, value) in plain {
            let leaf = key.rsplit(['.', ']']).next().expect("a name").trim_start_matches('.');
            let line =
                printed.lines().map(|line| line.trim().trim_start_matches("- ")).find(|line| {
                    line.strip_prefix(leaf)
                        .and_then(|rest| rest.strip_prefix(": "))
                        .is_some_and(|shown| shown.trim_matches(['"', '\'']) == value)
                });
            assert!(line.is_some(), "{key}: {value} is not what is printed:\n{printed}");
            checked += 1;
        }
        assert!(checked >= 8, "{checked} defaults were found in the page");
    }
}

#[test]
fn every_link_within_the_papers_leads_somewhere() {
    let mut pages = files("docs", ".md");
    for page in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"] {
        assert!(root().join(page).is_file(), "{page}");
        pages.push(page.to_owned());
    }
    let mut broken = Vec::new();
    for page in pages {
        let text = read(&page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().expect("a part");
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let base = root().join(&page);
            let to = base.parent().expect("a folder").join(target);
            if !matches!(to.try_exists(), Ok(true)) {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn what_the_packages_install_is_there_and_the_units_name_what_they_install() {
    for (krate, program) in [("agent", "custody-agent"), ("collector", "custody-collector")] {
        let manifest = read(&format!("{krate}/Cargo.toml"));
        let assets = manifest
            .split("assets = [")
            .nth(1)
            .and_then(|rest| rest.split("\n]").next())
            .expect("assets");
        let mut count = 0;
        for source in assets
            .lines()
            .filter_map(|line| line.split('"').nth(1))
            .filter(|source| source.starts_with("../"))
        {
            let source = source.trim_start_matches("../");
            match source.split_once('*') {
                Some((before, after)) => {
                    let (dir, _) = before.rsplit_once('/').expect("a folder");
                    assert!(
                        files(dir, after).iter().any(|file| file.starts_with(before)),
                        "{source}"
                    );
                }
                None => assert!(root().join(source).is_file(), "{source}"),
            }
            count += 1;
        }
        assert!(count >= 4, "{assets}");
        // Both kinds of packages bring the same examples.
        let rpm = manifest.split("assets = [").nth(2).expect("assets of the rpm");
        let examples = |part: &str| -> BTreeSet<String> {
            let words = part.split('"').filter(|word| word.contains("config/examples/"));
            words.map(|word| word.trim_start_matches("../").to_owned()).collect()
        };
        assert_eq!(examples(assets), examples(rpm), "{krate}");
        let unit = read(&format!("systemd/{program}.service"));
        assert!(unit.contains(&format!(
            "ExecStart=/usr/bin/{program} run --config /etc/custody/{krate}.yaml\n"
        )));
        assert!(
            unit.contains(&format!("User={program}\n"))
                && unit.contains(&format!("StateDirectory={program}\n"))
        );
        assert!(
            read(&format!("systemd/sysusers.d/{program}.conf"))
                .contains(&format!("u     {program} "))
        );
        assert!(
            read(&format!("packaging/{krate}/postinst"))
                .contains(&format!("systemd-sysusers {program}.conf"))
        );
    }
}

#[test]
fn systemd_understands_the_units() {
    let dir = tempfile::tempdir().expect("a directory");
    for program in ["custody-agent", "custody-collector"] {
        // The programs need not be installed for this.
        let unit = read(&format!("systemd/{program}.service"))
            .replace(&format!("/usr/bin/{program} "), "/bin/true ");
        let path = dir.path().join(format!("{program}.service"));
        std::fs::write(&path, unit).expect("written");
        let run = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output();
        let Ok(output) = run else {
            println!("skipped: systemd-analyze absent");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        let ours: Vec<_> = said.lines().filter(|line| line.contains(program)).collect();
        assert!(ours.is_empty(), "{}", ours.join("\n"));
    }
}
