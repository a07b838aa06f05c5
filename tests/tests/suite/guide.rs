//! The boxes of the README and the guide: a command that the programs do not know, and a piece of
//! configuration that does not load, are mistakes that somebody will type.
//!
//! Each line of a box is parsed by the program's own definition of its arguments, each piece of
//! YAML is loaded by the program's own loader; what is not ours stands in a table with its reason.
//! `custody-verify`, which parses its few arguments itself, is run with its lines by its own tests
//! (`evidence/tests/it/program.rs`), searches and calls by the collector's (`query/questions.rs`).

use std::path::{Path, PathBuf};

use custody_config::{AgentConfig, AgentOverrides, CollectorConfig, CollectorOverrides, Env};

/// Commands of others, and what they are for.
const OTHERS: &[(&str, &str)] = &[
    ("apt", "installs the packages: tried on a booted system (`booted`)"),
    ("base64", "a key as text"),
    ("cargo", "builds and tests this very workspace"),
    ("chown", "gives files to the service's user"),
    ("curl", "asks an address that `service` asks"),
    ("head", "random bytes for a key"),
    ("install", "copies a file with its owner and mode"),
    ("journalctl", "shows a unit's log"),
    ("mv", "puts a folder out of the way"),
    ("openssl", "judges a time-stamp; as in the tests of anchors"),
    ("ssh", "brings a token from another host"),
    ("systemctl", "starts, stops and reloads the units: tried on a booted system (`booted`)"),
];

/// Boxes that are neither commands nor configuration, and where they may be.
const KINDS: &[(&str, &str, &str)] = &[
    ("search", "docs/guide/search.md", "searches, run by the collector's own tests"),
    ("http", "docs/guide/search.md", "calls, made by the collector's own tests"),
    ("ini", "docs/guide/tls.md", "a part of a unit, systemd's"),
];

struct Boxed {
    page: String,
    kind: String,
    /// With their numbers in the page.
    lines: Vec<(usize, String)>,
}

impl Boxed {
    fn text(&self) -> String {
        self.lines.iter().map(|(_, line)| format!("{line}\n")).collect()
    }

    fn place(&self) -> String {
        format!("{}:{}", self.page, self.lines.first().map_or(0, |(number, _)| *number))
    }

    fn is_drawing(&self) -> bool {
        self.kind.is_empty() && self.text().contains('─')
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every box of every page that tells people what to type.
fn boxes() -> Vec<Boxed> {
    let mut pages: Vec<PathBuf> = std::fs::read_dir(root().join("docs/guide"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .chain([root().join("README.md")])
        .collect();
    pages.sort();
    let mut boxes: Vec<Boxed> = Vec::new();
    for path in pages {
        let page = path.strip_prefix(root()).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut open = false;
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(kind) = line.trim_start().strip_prefix("```") {
                open = !open;
                if open {
                    let kind = kind.to_owned();
                    boxes.push(Boxed { page: page.clone(), kind, lines: Vec::new() });
                }
            } else if open {
                boxes.last_mut().unwrap().lines.push((number, line.to_owned()));
            }
        }
        assert!(!open, "{page}: a box does not end");
    }
    boxes
}

/// The commands of a line, in words as a shell splits them; a comment, or prose behind a wide space,
/// ends it.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut word, mut quote, mut spaces) = (vec![Vec::new()], None, None, 0);
    let end = |word: &mut Option<String>, commands: &mut Vec<Vec<String>>| {
        commands.last_mut().unwrap().extend(word.take());
    };
    for c in line.trim().chars() {
        spaces = if c == ' ' { spaces + 1 } else { 0 };
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_with(String::new).push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_with(String::new);
            }
            (None, ' ') if spaces == 3 => break,
            (None, ' ') => end(&mut word, &mut commands),
            (None, '|') => {
                end(&mut word, &mut commands);
                commands.push(Vec::new());
            }
            (None, '#') if word.is_none() => break,
            (None, c) => word.get_or_insert_with(String::new).push(c),
        }
    }
    end(&mut word, &mut commands);
    commands.retain(|words| !words.is_empty());
    commands
}

/// What is wrong with the commands of a line, if one is wrong or unknown.
fn line_problem(line: &str) -> Option<String> {
    commands(line).iter().find_map(|words| command_problem(words))
}

fn command_problem(words: &[String]) -> Option<String> {
    let mut rest = words;
    // As another user, and with another environment, it is the same command.
    while let Some((first, others)) = rest.split_first() {
        rest = match first.as_str() {
            "sudo" if others.first().is_some_and(|word| word == "-u") => others.get(2..)?,
            "sudo" => others,
            word if word.split_once('=').is_some_and(|(name, _)| {
                name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
            }) =>
            {
                others
            }
            _ => break,
        };
    }
    let command = match rest.first()?.as_str() {
        "custody-agent" => custody_agent::cli::command(),
        "custody-collector" => custody_collector::cli::command(),
        "custody-verify" => return None,
        other => {
            let is_known = OTHERS.iter().any(|(name, _)| *name == other);
            return (!is_known).then(|| format!("nothing runs {other:?}, and no reason is given"));
        }
    };
    command.try_get_matches_from(rest).err().map(|error| error.to_string())
}

/// What is wrong with a piece of configuration, if it is one of neither program.
fn config_problem(text: &str) -> Option<String> {
    // What a drop-in of the guide passes to the unit.
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("collector.key"), "").unwrap();
    let credentials_dir = Some(credentials.path().to_owned());
    let env = Env { hostname: "web1".to_owned(), credentials_dir };
    let agent = |text: &str| {
        let has = |key: &str| text.lines().any(|line| line.starts_with(key));
        let mut whole = text.to_owned();
        if !has("sources:") {
            whole.push_str("sources: [{ id: x, type: file, paths: [/var/log/x.log] }]\n");
        }
        if !has("outputs:") {
            whole.push_str(
                "outputs: [{ id: x, type: custody, endpoints: [\"http://127.0.0.1:8600\"] }]\n",
            );
        }
        AgentConfig::from_text(Path::new("agent.yaml"), &whole, &AgentOverrides::default(), &env)
            .map(drop)
    };
    let collector = CollectorConfig::from_text(
        Path::new("collector.yaml"),
        text,
        &CollectorOverrides::default(),
        &env,
    );
    // Or a part of a file source.
    let part: String = text.lines().map(|line| format!("    {line}\n")).collect();
    let part = format!("sources:\n  - id: x\n    type: file\n    paths: [/var/log/x.log]\n{part}");
    match (agent(text), collector.map(drop), agent(&part)) {
        (Ok(()), ..) | (_, Ok(()), _) | (.., Ok(())) => None,
        (Err(agent), Err(collector), Err(_)) => Some(format!("{agent}\n{collector}")),
    }
}

/// The configuration that a playbook writes, and the commands that it runs.
fn in_playbook(boxed: &Boxed) -> (String, Vec<(usize, String)>) {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (mut config, mut commands, mut within) = (String::new(), Vec::new(), None);
    for (number, line) in &boxed.lines {
        if within.is_some_and(|outer| indent(line) <= outer && !line.trim().is_empty()) {
            within = None;
        }
        match within {
            Some(outer) => config.push_str(&format!("{}\n", filled(&line[outer + 2..]))),
            None if line.trim_end().ends_with("content: |") => within = Some(indent(line)),
            None => {
                if let Some(at) = line.find("custody-agent ") {
                    commands.push((*number, filled(&line[at..])));
                }
            }
        }
    }
    (config, commands)
}

/// With something in the places that the playbook fills.
fn filled(line: &str) -> String {
    let mut parts = line.split("{{");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").unwrap();
        let value = match name.trim() {
            "custody_collector" => "https://collector.example:8600",
            _ => "x",
        };
        out.push_str(value);
        out.push_str(rest);
    }
    out
}

#[test]
fn every_command_of_the_guide_is_one_that_the_programs_know() {
    let (mut broken, mut ours) = (Vec::new(), 0);
    for boxed in boxes() {
        let lines = match boxed.kind.as_str() {
            "sh" | "console" => boxed.lines,
            "" if !boxed.is_drawing() => boxed.lines,
            "yaml" if boxed.text().starts_with("- hosts:") => in_playbook(&boxed).1,
            _ => continue,
        };
        for (number, line) in lines {
            ours += usize::from(line.contains("custody-"));
            if let Some(problem) = line_problem(&line) {
                broken.push(format!("{}:{number}: {line}\n{problem}", boxed.page));
            }
        }
    }
    assert!(ours > 60, "{ours} commands were found");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    // The measure itself.
    assert!(line_problem("custody-agent check --confg agent.yaml").is_some());
    assert!(line_problem("sudo -u custody-agent custody-agent spool lss").is_some());
    assert!(line_problem("custody-collector search   prose that is no argument").is_none());
    assert!(line_problem("head -c 32 /dev/urandom | custody-agent enrol").is_some());
    assert!(line_problem("wget https://example.org/").is_some());
}

#[test]
fn every_piece_of_configuration_in_the_guide_loads() {
    let (mut broken, mut count) = (Vec::new(), 0);
    for boxed in boxes().iter().filter(|boxed| boxed.kind == "yaml") {
        let text = match boxed.text() {
            text if text.starts_with("- hosts:") => in_playbook(boxed).0,
            text => text,
        };
        count += 1;
        if let Some(problem) = config_problem(&text) {
            broken.push(format!("{}: {problem}", boxed.place()));
        }
    }
    assert!(count > 15, "{count} pieces were found");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(config_problem("exports: { max_rnge: 92d }\n").is_some());
}

#[test]
fn every_box_of_the_guide_is_tried_by_somebody() {
    let known = ["", "sh", "console", "yaml"];
    let mut used = std::collections::BTreeSet::new();
    for boxed in boxes() {
        let kind = boxed.kind.as_str();
        let other = KINDS.iter().find(|(other, page, _)| *other == kind && *page == boxed.page);
        assert!(known.contains(&kind) || other.is_some(), "{}: a box of {kind:?}", boxed.place());
        used.extend(other.map(|(other, ..)| *other));
        let is_of_commands = kind != "yaml" && other.is_none() && !boxed.is_drawing();
        let lines = boxed.lines.iter().filter(|_| is_of_commands);
        let firsts = lines.flat_map(|(_, line)| commands(line)).map(|words| words[0].clone());
        used.extend(
            firsts.filter_map(|first| {
                OTHERS.iter().map(|(name, _)| *name).find(|name| *name == first)
            }),
        );
    }
    let listed = KINDS.iter().map(|(kind, ..)| *kind).chain(OTHERS.iter().map(|(name, _)| *name));
    // A reason for nothing is a slip of the pen.
    let idle: Vec<&str> = listed.filter(|name| !used.contains(name)).collect();
    assert!(idle.is_empty(), "no box has {idle:?}");
}
