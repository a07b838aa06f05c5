//! The built-in packs load, warn of nothing, and pass the tests that they carry.

use custody_parsers::{PackSet, PackSource, builtin};

#[test]
fn every_builtin_pack_loads_and_passes_its_own_tests() {
    let sources: Vec<PackSource> = builtin()
        .iter()
        .map(|(name, text)| PackSource { name: format!("{name}.yaml"), text: (*text).to_owned() })
        .collect();
    let set = PackSet::load(&sources).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(set.warnings(), []);
    let names: Vec<&str> = builtin().iter().map(|(name, _)| *name).collect();
    assert_eq!(set.names(), names, "each pack is called as its file is");
    let report = set.run_tests();
    let failures: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
    assert!(report.is_good(), "{} passed\n{}", report.passed, failures.join("\n"));
    assert!(report.passed > 100);
}
