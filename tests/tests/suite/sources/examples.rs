//! What is shipped as an example is taken by the program that it is for, also where everything that
//! it names is there and is looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use custody_tests::{Agent, World};

use super::{certificates, write_secret};

fn shipped() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder.join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with("collector"))
        .collect();
    files.push(folder.join("agent.yaml"));
    files.sort();
    files
}

#[test]
fn check_takes_every_example_as_it_is_shipped() {
    let mut kinds = BTreeSet::new();
    for path in shipped() {
        let said = Agent::cli(&["check", "--config", path.to_str().unwrap()]);
        said.expect(0, &["good;"]);
        let text = std::fs::read_to_string(&path).unwrap();
        for kind in ["file", "journal", "syslog", "webhook"] {
            if text.contains(&format!("type: {kind}")) {
                kinds.insert(kind);
            }
        }
        for kind in ["join: auditd", "redact:", "multiline:", "encoding:", "protocol: tls"] {
            if text.contains(kind) {
                kinds.insert(kind);
            }
        }
    }
    assert_eq!(kinds.len(), 9, "an example for each source and each of its forms: {kinds:?}");
}

/// A secret in the form that the scheme wants, judged by the file's name.
fn secret(path: &str) -> &'static str {
    let has = |part: &str| path.contains(part);
    if has("stripe") || has("standard") {
        "whsec_bm9ib2R5LWtub3dzLXRoaXM6YXQtYWxs"
    } else if has("pseudonym") {
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
    } else {
        "a-secret-of-the-test-with-enough-letters"
    }
}

/// The paths below `/etc/custody` that a file names.
fn named(text: &str) -> BTreeSet<String> {
    let parts = text.split("/etc/custody/").skip(1);
    parts
        .map(|rest| {
            let end = rest.find([',', ' ', ']', '}', '\n', '"']).unwrap_or(rest.len());
            rest[..end].to_owned()
        })
        .collect()
}

#[test]
fn check_takes_every_example_where_certificates_and_secrets_are_there() {
    let world = World::new("examples");
    let made = certificates(&world);
    let etc = world.path("etc");
    std::fs::create_dir(&etc).unwrap();
    for path in shipped() {
        let text = std::fs::read_to_string(&path).unwrap();
        for name in named(&text) {
            let from = match name.rsplit_once('.') {
                Some((_, "pem")) if name.contains("ca.pem") => Some(&made.ca),
                Some((_, "pem")) => Some(&made.server),
                Some((stem, "key")) if stem != "pseudonym" => Some(&made.server_key),
                _ => None,
            };
            let content = from.map(|from| std::fs::read_to_string(from).unwrap());
            let content = content.unwrap_or_else(|| secret(&name).to_owned());
            write_secret(&etc.join(&name), &content);
        }
        let here = world.path(path.file_name().unwrap().to_str().unwrap());
        std::fs::write(&here, text.replace("/etc/custody", etc.to_str().unwrap())).unwrap();
        let said = Agent::cli(&["check", "--config", here.to_str().unwrap()]);
        said.expect(0, &["good;"]);
        let mut lines = said.out.lines().chain(said.err.lines());
        let unlooked = lines
            .find(|line| line.contains("was not checked") && line.contains(etc.to_str().unwrap()));
        assert_eq!(unlooked, None, "{}", path.display());
    }
}
