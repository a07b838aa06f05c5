//! Developer commands: `cargo xtask --help`.
//!
//! - `demo`: from a log line to an event found by search, with the real programs.
//! - `ci`: what continuous integration runs.
//! - `dist`: packages, archive, bill of materials, checksums.
//! - `booted`: the packages on a booted system.
//! - `fuzz`: libFuzzer on every decoder of bytes that come from outside.
//! - `fuzz-api`: requests made from the OpenAPI description, none of them answered with 500.
//! - `bench agent`, `bench collector`, `bench export`, `bench files`, `bench evidence`, `bench journal`, `bench webhook`: figures beside targets and yardsticks; `bench packs`: instructions per record.
//! - `score-corpus`: the packs against logs that others have labelled.
//! - `schema-tables`: what the tests of the OCSF and ECS forms need of the schemas.
//! - `tamper`: changes of evidence in every form, each told with its place.
//! - `wasm`: the verifier for the browser.
//! - `power-cut`: cuts the power under the spool and the evidence log, many times.
//!
//! The programs are driven from outside, as their users drive them: command lines, HTTP, the
//! admin socket. Nothing here links the agent or the collector but the example `papers`, which
//! `dist` runs; `score-corpus` links the parsers, `bench journal` the reader of journals.

mod agent;
mod bench;
mod booted;
mod ci;
mod collector;
mod daemon;
mod demo;
mod dist;
mod fuzz;
mod fuzz_api;
mod generate;
mod http;
mod numbers;
mod out;
mod power;
mod procfs;
mod python;
mod receiver;
mod schemas;
mod score;
mod shell;
mod tamper;
mod wasm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of Custody.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build both programs, follow one log line into the collector, and find it by search.
    Demo(demo::Args),
    /// Run a part of what continuous integration (`.ci/run`) runs: format, lints, tests, demo.
    Ci(ci::Args),
    /// Make the packages, the archive, the bill of materials and the checksums.
    Dist(dist::Args),
    /// Make packages and try them on a booted system: install, kill, hang, reload, reboot, upgrade, purge (Linux, root).
    Booted(booted::Args),
    /// Search every decoder of bytes that come from outside for what breaks it, by libFuzzer (cargo-fuzz).
    Fuzz(fuzz::Args),
    /// Thousands of requests made from the OpenAPI description, by schemathesis (Python).
    FuzzApi(fuzz_api::Args),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Read the labelled logs of the corpus with all packs and compare every value.
    ScoreCorpus(score::Args),
    /// Write the tables of OCSF and ECS that the forms are tested against.
    SchemaTables(schemas::Args),
    /// Change evidence in every form, thousands of times, and see each change told.
    Tamper(tamper::Args),
    /// Build the verifier for the browser, and try it with node.
    Wasm(wasm::Args),
    /// Cut the power under a running agent and collector at random instants (Linux, root).
    PowerCut(power::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Ci(args) => ci::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::Booted(args) => booted::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::FuzzApi(args) => fuzz_api::run(&args),
        Command::Bench(command) => bench::run(&command),
        Command::ScoreCorpus(args) => score::run(&args),
        Command::SchemaTables(args) => schemas::run(&args),
        Command::Tamper(args) => tamper::run(&args),
        Command::Wasm(args) => wasm::run(&args),
        Command::PowerCut(args) => power::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::warn(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
