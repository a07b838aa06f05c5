//! The program: its exit codes, and that it says where.

use std::path::Path;
use std::process::{Command, Output};

use crate::common::World;

fn run(arguments: &[&str], target: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_custody-verify")).args(arguments).arg(target).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn exit_codes_tell_verified_tampered_unreadable_and_usage_apart() {
    let world = World::new(3, 2, 20);
    let folder = tempfile::tempdir().unwrap();
    let (bundle, data) = (folder.path().join("a.custody"), folder.path().join("data"));
    let mut bytes = world.log_bundle(0, world.log.size(), |_| true);
    std::fs::write(&bundle, &bytes).unwrap();
    world.write_dir(&data, 5);
    let key = world.vkey().to_string();
    for target in [&bundle, &data] {
        let output = run(&["--key", &key], target);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
        assert!(text(&output.stdout).starts_with("VERIFIED\n"));
        let json = run(&["--json"], target);
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json["events"].as_u64(), Some(world.events()));
    }
    let old = folder.path().join("checkpoint");
    std::fs::write(&old, world.checkpoint_at(5)).unwrap();
    let output = run(&["--key", &key, "--checkpoint", &old.display().to_string()], &bundle);
    assert!(text(&output.stdout).contains("continues the trusted checkpoint of 5 entries"));
    let stranger = World::new(4, 1, 1).vkey().to_string();
    assert_eq!(run(&["--key", &stranger], &bundle).status.code(), Some(1));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bundle, &bytes).unwrap();
    let output = run(&["--key", &key], &bundle);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).starts_with("TAMPERED\n"), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains(": byte "));
    std::fs::write(&bundle, b"something else").unwrap();
    for target in [&bundle, &folder.path().join("absent"), &folder.path().to_owned()] {
        let output = run(&[], target);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
        assert!(text(&output.stderr).starts_with("custody-verify: "));
    }
    for bad in [&["--key", "x"][..], &["--what"], &["--key"], &["one-more"]] {
        assert_eq!(run(bad, &bundle).status.code(), Some(64), "{bad:?}");
    }
    assert_eq!(run(&["--help"], &bundle).status.code(), Some(0));
}

#[test]
fn nothing_that_a_bundle_says_can_write_to_the_terminal_as_if_it_were_the_program() {
    use custody_evidence::bundle::{BundleWriter, Manifest, Scope};
    let world = World::new(3, 1, 3);
    let manifest = Manifest {
        end: 0,
        first: 0,
        made: custody_event::Timestamp::Y2020,
        origin: "\u{1b}[2J".into(),
        query: "x\nVERIFIED\u{1b}[2K".into(),
        scope: Scope::Log,
        streams: Vec::new(),
        v: 1,
    };
    let mut out = BundleWriter::new(Vec::new(), &manifest).unwrap();
    out.log_key(&world.vkey()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b");
    std::fs::write(&path, out.finish().unwrap()).unwrap();
    let output = run(&[], &path);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(!said.contains('\u{1b}') && !said.contains("\nVERIFIED"), "{said}");
}

#[test]
fn whoever_reads_the_verifier_reads_fewer_than_forty_crates() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "custody-evidence", "--edges", "normal", "--prefix", "none"])
        .args(["--offline", "--locked", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", text(&tree.stderr));
    let tree = text(&tree.stdout);
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let crates: std::collections::BTreeSet<&str> = names.filter(|name| !name.is_empty()).collect();
    assert!(crates.contains("sha2") && crates.len() < 40, "{} {crates:?}", crates.len());
}

/// Lines of the README and the guide that begin with the program's name.
fn lines_of_the_papers() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let guide = std::fs::read_dir(root.join("docs/guide")).unwrap();
    let pages = guide.map(|entry| entry.unwrap().path()).chain([root.join("README.md")]);
    let mut lines = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let ours = text.lines().filter(|line| line.starts_with("custody-verify "));
        lines.extend(ours.map(|line| (page.display().to_string(), line.to_owned())));
    }
    lines
}

#[test]
fn every_line_of_the_guide_is_one_that_the_program_understands() {
    let world = World::new(3, 1, 2);
    let folder = tempfile::tempdir().unwrap();
    let key = world.vkey().to_string();
    std::fs::write(folder.path().join("vkey"), &key).unwrap();
    let lines = lines_of_the_papers();
    assert!(lines.len() >= 4, "{lines:?}");
    for (page, line) in lines {
        // What stands behind a wide space, or a hash, is for people.
        let command = line.split("   ").next().unwrap().split(" #").next().unwrap();
        let command = command.replace("<64 hex digits>", &key);
        let output = Command::new(env!("CARGO_BIN_EXE_custody-verify"))
            .args(command.split_whitespace().skip(1))
            .current_dir(folder.path())
            .output()
            .unwrap();
        // What it names is not here, most likely; how it is named is understood.
        let said = text(&output.stderr);
        assert_ne!(output.status.code(), Some(64), "{page}: {line}\n{said}");
        assert!(!said.contains("usage:"), "{page}: {line}\n{said}");
    }
}
