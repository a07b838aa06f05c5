//! Every command says what it does. That this is asked of the program, and not of its parts, also has the program built
//! with the tests: continuous integration runs it afterwards.

#![allow(clippy::unwrap_used, reason = "this is test code throughout")]

use std::process::Command;

#[test]
fn every_command_explains_itself() {
    let help = |words: &[&str]| {
        let done =
            Command::new(env!("CARGO_BIN_EXE_xtask")).args(words).arg("--help").output().unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let commands = |text: &str| -> Vec<String> {
        let listed = text.lines().skip_while(|line| *line != "Commands:").skip(1);
        let rows = listed.take_while(|line| !line.is_empty());
        // What goes on below, in a narrow terminal, stands further in.
        let names =
            rows.filter_map(|row| row.strip_prefix("  ")).filter(|row| !row.starts_with(' '));
        names.filter_map(|row| row.split_whitespace().next().map(str::to_owned)).collect()
    };
    let top = commands(&help(&[]));
    for name in ["demo", "dist", "bench", "booted", "tamper", "power-cut"] {
        assert!(top.iter().any(|command| command == name), "{name} is not among {top:?}");
    }
    for name in top.iter().filter(|name| *name != "help") {
        let text = help(&[name]);
        assert!(text.lines().next().is_some_and(|line| !line.starts_with("Usage")), "{name}");
        for inner in commands(&text).iter().filter(|inner| *inner != "help") {
            assert!(help(&[name, inner]).contains("Usage"), "{name} {inner}");
        }
    }
}
