//! `cargo xtask fuzz`: libFuzzer on every decoder of bytes that come from outside, one after the
//! other; `fuzz/README.md` says what they are.
//!
//! The decoders are built with the versions of `Cargo.lock`, as the programs are. What is found on the
//! way is gathered in `target/fuzz-corpus/<target>`, beside the kept inputs, which stay as they are.

use std::process::Command;

use anyhow::{Context, bail};

use crate::out::say;
use crate::shell;

/// Bytes of memory that a target may take, in MiB, and seconds for one input.
const LIMITS: [&str; 2] = ["-rss_limit_mb=2048", "-timeout=20"];

/// Arguments of `fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Targets; all of them if none is named.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each is searched, in seconds.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
    /// `address` needs a nightly toolchain.
    #[arg(long, value_parser = ["none", "address"], default_value = "none")]
    sanitizer: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !shell::installed("cargo-fuzz") {
        bail!("cargo-fuzz is not installed: cargo install cargo-fuzz --locked");
    }
    let fuzz = shell::root()?.join("fuzz");
    let lock = fuzz.join("Cargo.lock");
    std::fs::copy(shell::root()?.join("Cargo.lock"), &lock)
        .with_context(|| lock.display().to_string())?;
    let all = targets(&fuzz.join("corpus"))?;
    let chosen = if args.targets.is_empty() { &all } else { &args.targets };
    if let Some(unknown) = chosen.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown:?}; there are {}", all.join(", "));
    }
    let mut found = Vec::new();
    for target in chosen {
        let gathered = shell::target()?.join("fuzz-corpus").join(target);
        std::fs::create_dir_all(&gathered)?;
        let cargo_fuzz = |act: &str| -> anyhow::Result<Command> {
            let mut command = cargo(&args.sanitizer)?;
            command.args(["fuzz", act, "--sanitizer", &args.sanitizer, target]);
            Ok(command)
        };
        // What cannot be built has found nothing.
        let built = cargo_fuzz("build")?.status().context("cannot run cargo fuzz")?;
        if !built.success() {
            bail!("{target} cannot be built ({built})");
        }
        let mut command = cargo_fuzz("run")?;
        command.arg(gathered);
        command.arg(fuzz.join("corpus").join(target));
        command.arg("--").arg(format!("-max_total_time={}", args.seconds)).args(LIMITS);
        let status = command.status().context("cannot run cargo fuzz")?;
        say(&format!("{target}: {}", if status.success() { "nothing found" } else { "FOUND" }));
        if !status.success() {
            found.push(target.as_str());
        }
    }
    if !found.is_empty() {
        bail!("what was found by {} is in fuzz/artifacts", found.join(", "));
    }
    Ok(())
}

/// A target has kept inputs.
fn targets(corpus: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(corpus).with_context(|| corpus.display().to_string())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn cargo(sanitizer: &str) -> anyhow::Result<Command> {
    if sanitizer == "none" {
        return shell::cargo();
    }
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).current_dir(shell::root()?);
    // This program was started by another toolchain's.
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    Ok(command)
}
