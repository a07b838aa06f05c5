//! The program itself, from outside: what it says where it is called wrongly.

#![allow(clippy::unwrap_used, reason = "this is test code throughout")]

use std::process::{Command, Output};

fn called(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_custody-collector")).args(words).output().unwrap()
}

#[test]
fn what_is_not_understood_is_named_and_ends_with_a_code_of_its_own() {
    for (words, named) in [
        (&["serch", "mallory"][..], "search"),
        (&["search", "--formt", "json"], "--formt"),
        (&["backup"], "Usage"),
    ] {
        let output = called(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{words:?}: {said}");
        assert!(said.contains(named), "{words:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_version_is_told_on_standard_output() {
    let output = called(&["--version"]);
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.trim(), concat!("custody-collector ", env!("CARGO_PKG_VERSION")));
}
