//! The built-in packs load, warn of nothing, and pass the tests that they carry.

use std::path::Path;

use custody_parsers::{BuiltinPack, PackSet, PackSource, builtin};

#[test]
fn every_builtin_pack_loads_and_passes_its_own_tests() {
    let sources: Vec<PackSource> = builtin()
        .iter()
        .map(|pack| PackSource { name: format!("{}.yaml", pack.name()), text: pack.text() })
        .collect();
    let set = PackSet::load(&sources).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(set.warnings(), []);
    let names: Vec<&str> = builtin().iter().map(BuiltinPack::name).collect();
    assert_eq!(set.names(), names, "each pack is called as its file is");
    let report = set.run_tests();
    let failures: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
    assert!(report.is_good(), "{} passed\n{}", report.passed, failures.join("\n"));
    assert!(set.names().len() >= 60 && report.passed >= 1_500, "{} passed", report.passed);
}

#[test]
fn every_file_of_a_pack_is_built_in_as_it_stands() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/packs");
    for pack in builtin() {
        let file = std::fs::read_to_string(folder.join(format!("{}.yaml", pack.name()))).unwrap();
        assert!(pack.text() == file, "{}", pack.name());
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), builtin().len());
}

#[test]
fn an_agent_reads_the_built_in_packs_as_their_check_does_but_for_their_tests() {
    let rules = |set: &PackSet| -> Vec<(String, i64, usize)> {
        let infos = set.infos();
        infos.iter().map(|info| (info.name.to_owned(), info.version, info.rules)).collect()
    };
    let agents = PackSet::with_builtin(&[]).unwrap();
    assert_eq!(rules(&agents), rules(&PackSet::builtin()));
}

#[test]
fn every_pack_stands_in_the_list_for_people_in_its_order_with_what_it_says_of_itself() {
    let page = include_str!("../../docs/packs.md");
    let listed: Vec<&str> = page.lines().filter(|line| line.starts_with("| [`")).collect();
    let set = PackSet::with_builtin(&[]).unwrap();
    let expected: Vec<String> = set
        .infos()
        .iter()
        .map(|pack| format!("| [`{0}`](../config/packs/{0}.yaml) | {1} |", pack.name, pack.about))
        .collect();
    assert_eq!(listed, expected, "docs/packs.md is not what config/packs/ holds");
}
