//! `cargo xtask dist`: everything that is handed out, in `target/dist/`.
//!
//! | what | made by |
//! |---|---|
//! | `*.deb` of agent, collector, verifier | cargo-deb |
//! | `*.rpm` of the same | cargo-generate-rpm; left out, and said so, where it is not installed |
//! | `custody-<version>-<machine>.tar.gz` with `install.sh` | `tar` |
//! | `custody-<version>.cdx.json`, the bill of materials | [`sbom`], from `cargo metadata` |
//! | `SHA256SUMS` over all of it | `sha256sum` |
//!
//! # Steps
//! Programs are built once, stripped into a stage that looks like a target folder, and joined there by manual pages and
//! completions (the example `papers`, from the programs' own command definitions). The package tools only put together what
//! lies in the stage: no package contains anything that another does not.
//!
//! # The same bytes again
//! Times in archives are the commit's (`SOURCE_DATE_EPOCH`), names are sorted, owners are root, and a release build does
//! not know where it was built. The same toolchain on the same commit gives the same programs.

mod sbom;
mod tarball;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::out::say;
use crate::shell;

/// A crate, the program that it gives, and the name of its package, which is the program's.
#[derive(Debug, Clone, Copy)]
struct Product {
    krate: &'static str,
    program: &'static str,
    /// The folder of its manifest.
    folder: &'static str,
}

const PRODUCTS: [Product; 3] = [
    Product { krate: "custody-agent", program: "custody-agent", folder: "agent" },
    Product { krate: "custody-collector", program: "custody-collector", folder: "collector" },
    Product { krate: "custody-evidence", program: "custody-verify", folder: "evidence" },
];

/// Arguments of `dist`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How the programs are built; `dev` packages in seconds, to try the packages themselves.
    #[arg(long, value_parser = ["release", "dev"], default_value = "release")]
    profile: String,
    /// Where the packages go.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only Debian packages.
    #[arg(long)]
    deb_only: bool,
}

/// Debian packages, built fast, to be tried; gives their folder.
pub(crate) fn for_trying() -> anyhow::Result<PathBuf> {
    let out = target_folder()?.join("dist");
    run(&Args { profile: "dev".to_owned(), out: Some(out.clone()), deb_only: true })?;
    Ok(out)
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !shell::installed("cargo-deb") {
        bail!("cargo-deb is not installed: cargo install cargo-deb --locked");
    }
    let target = target_folder()?;
    let out = args.out.clone().unwrap_or_else(|| target.join("dist"));
    fresh(&out)?;
    let stage = fresh(&target.join("dist-stage"))?;
    let epoch = commit_time()?;
    build(&args.profile, &target, &stage.join("release"), &epoch)?;
    for product in PRODUCTS {
        deb(product, &args.profile, &stage, &out, &epoch)?;
    }
    if !args.deb_only {
        rpms(&stage, &out, &epoch)?;
        tarball::make(&stage.join("release"), &out, &epoch)?;
        sbom::write(&out, &epoch)?;
    }
    sums(&out)?;
    say(&format!("all in {}:", out.display()));
    say(shell::run("ls", &["-sh1", &out.display().to_string()])?.trim_end());
    Ok(())
}

/// Where cargo builds.
fn target_folder() -> anyhow::Result<PathBuf> {
    let metadata = metadata(&["--no-deps"])?;
    let target = metadata.get("target_directory").and_then(|value| value.as_str());
    Ok(target.context("cargo metadata names no target folder")?.into())
}

fn metadata(further: &[&str]) -> anyhow::Result<serde_json::Value> {
    let mut command = shell::cargo()?;
    command.args(["metadata", "--format-version", "1", "--locked"]).args(further);
    let output = command.output().context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The system that the programs are for: the one that they are built on.
fn platform() -> anyhow::Result<String> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let said = shell::run(&rustc, &["-vV"])?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// The same commit gives the same times; `SOURCE_DATE_EPOCH` says others.
fn commit_time() -> anyhow::Result<String> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(epoch);
    }
    let root = shell::root()?;
    let time = shell::run("git", &["-C", &root.display().to_string(), "log", "-1", "--format=%ct"]);
    // A source archive has no history.
    Ok(time.map_or_else(|_| "1767225600".to_owned(), |text| text.trim().to_owned()))
}

/// An empty folder, whatever was there before.
fn fresh(path: &Path) -> anyhow::Result<PathBuf> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| path.display().to_string());
        }
        _ => {}
    }
    std::fs::create_dir_all(path).with_context(|| path.display().to_string())?;
    Ok(path.to_owned())
}

/// Programs, stripped, and papers.
fn build(profile: &str, target: &Path, stage: &Path, epoch: &str) -> anyhow::Result<()> {
    let built = match shell::built_before().filter(|_| profile == "dev") {
        Some(built) => built,
        None => {
            say(&format!("building the programs ({profile} profile) …"));
            compile(profile)?;
            target.join(if profile == "dev" { "debug" } else { profile })
        }
    };
    std::fs::create_dir_all(stage)?;
    for product in PRODUCTS {
        let (from, to) = (built.join(product.program), stage.join(product.program));
        std::fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        shell::run("strip", &["--strip-unneeded", &to.display().to_string()])?;
    }
    say("manual pages and completions …");
    let mut command = Command::new(built.join("examples/papers"));
    command.arg(stage).arg(stage.join("papers")).env("SOURCE_DATE_EPOCH", epoch);
    done(command, "papers")?;
    pressed(&stage.join("papers"))
}

/// Builds the programs, and in the same breath what makes their papers: the libraries are built once.
fn compile(profile: &str) -> anyhow::Result<()> {
    let mut command = shell::cargo()?;
    command.args(["build", "--locked", "--profile", profile]);
    for product in PRODUCTS {
        command.args(["--package", product.krate, "--bin", product.program]);
    }
    command.args(["--package", "xtask", "--example", "papers"]);
    if profile == "release" {
        command.env("CARGO_ENCODED_RUSTFLAGS", unplaced()?);
    }
    done(command, "cargo build")
}

/// Packages carry manual pages pressed, without a name and a time inside.
fn pressed(papers: &Path) -> anyhow::Result<()> {
    let folder = fresh(&papers.join("man-gz"))?;
    for entry in std::fs::read_dir(papers.join("man"))? {
        let entry = entry?;
        let to = folder.join(entry.file_name());
        std::fs::copy(entry.path(), &to)?;
        shell::run("gzip", &["-9", "--no-name", &to.display().to_string()])?;
    }
    Ok(())
}

/// Compiler flags that keep this machine's folders out of the programs.
fn unplaced() -> anyhow::Result<String> {
    let mut flags = vec![format!("--remap-path-prefix={}=/custody", shell::root()?.display())];
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    flags.extend(home.map(|home| format!("--remap-path-prefix={}=/cargo", home.display())));
    // What the caller asks for holds as well.
    flags.extend(
        std::env::var("RUSTFLAGS")
            .iter()
            .flat_map(|text| text.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>()),
    );
    Ok(flags.join("\u{1f}"))
}

fn deb(
    product: Product,
    profile: &str,
    stage: &Path,
    out: &Path,
    epoch: &str,
) -> anyhow::Result<()> {
    let mut command = shell::cargo()?;
    command.args(["deb", "--quiet", "--no-build", "--no-strip", "--no-dbgsym", "--locked"]);
    command.args(["--package", product.krate, "--output"]).arg(out);
    if profile == "dev" {
        command.arg("--fast");
    }
    command.env("CARGO_TARGET_DIR", stage).env("SOURCE_DATE_EPOCH", epoch);
    done(command, "cargo deb")
}

fn rpms(stage: &Path, out: &Path, epoch: &str) -> anyhow::Result<()> {
    if !shell::installed("cargo-generate-rpm") {
        say(
            "no .rpm: cargo-generate-rpm is not installed (cargo install cargo-generate-rpm --locked)",
        );
        return Ok(());
    }
    for product in PRODUCTS {
        let mut command = shell::cargo()?;
        command.args(["generate-rpm", "--package", product.folder, "--payload-compress", "zstd"]);
        command.arg("--target-dir").arg(stage).arg("--output").arg(out);
        command.arg("--source-date").arg(epoch);
        done(command, "cargo generate-rpm")?;
    }
    Ok(())
}

/// Checksums of everything in the folder, by name.
fn sums(out: &Path) -> anyhow::Result<()> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(out)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let mut command = Command::new("sha256sum");
    let output = command.args(&names).current_dir(out).output().context("cannot run sha256sum")?;
    if !output.status.success() {
        bail!("sha256sum failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(std::fs::write(out.join("SHA256SUMS"), output.stdout)?)
}

fn done(mut command: Command, what: &str) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {what}"))?;
    if !status.success() {
        bail!("{what} failed ({status})");
    }
    Ok(())
}
