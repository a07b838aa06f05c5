//! `cargo xtask wasm`: the verifier as WebAssembly, and with node a try of it: the golden bundles
//! verify, and with a flipped bit they do not.
//!
//! Needs the target once: `rustup target add wasm32-unknown-unknown`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::out::say;
use crate::shell;

const TARGET: &str = "wasm32-unknown-unknown";
const NAME: &str = "custody_verify_wasm.wasm";
/// A page should not wait for it.
const MAX_BYTES: u64 = 2 * 1024 * 1024;

/// What node is told; the arguments are module, WebAssembly, bundles.
const TRY: &str = "\
const [module, wasm, ...bundles] = process.argv.slice(1);
const fs = await import('node:fs');
const { load } = await import(module);
const verify = await load(new Uint8Array(fs.readFileSync(wasm)));
for (const path of bundles) {
  const bytes = new Uint8Array(fs.readFileSync(path));
  const good = verify(bytes);
  if (good.code !== 0 || !good.report.verified) throw new Error(path + ': ' + JSON.stringify(good));
  let told = 0;
  for (let round = 0; round < 50; round++) {
    const bad = bytes.slice();
    bad[8 + Math.floor((bytes.length - 8) * round / 50)] ^= 1;
    const { code, report } = verify(bad);
    if (code === 1 && report.problems.length > 0) told++;
  }
  if (told !== 50) throw new Error(path + ': ' + told + ' of 50 changes told');
  console.log(path + ': ' + good.report.events + ' events verified; 50 of 50 changes told');
}
";

/// Arguments of `wasm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Copy the WebAssembly and its module here.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let wasm = build()?;
    let bytes = std::fs::metadata(&wasm)?.len();
    say(&format!("{NAME}: {bytes} bytes"));
    if bytes > MAX_BYTES {
        bail!("more than {MAX_BYTES} bytes");
    }
    let crate_dir = shell::root()?.join("evidence/wasm");
    let module = crate_dir.join("custody-verify.mjs");
    attempt(&wasm, &module)?;
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out)?;
        std::fs::copy(&wasm, out.join(NAME))?;
        std::fs::copy(&module, out.join("custody-verify.mjs"))?;
    }
    Ok(())
}

fn build() -> anyhow::Result<PathBuf> {
    let mut command = shell::cargo()?;
    command.args(["build", "--release", "-p", "custody-verify-wasm", "--target", TARGET]);
    command.args(["--message-format=json-render-diagnostics"]);
    // Half of it would be names and lines for debuggers.
    command.env("CARGO_PROFILE_RELEASE_STRIP", "true");
    let output = command.stderr(std::process::Stdio::inherit()).output().context("cargo")?;
    if !output.status.success() {
        bail!("cargo build failed; is the target there? rustup target add {TARGET}");
    }
    let text = String::from_utf8(output.stdout)?;
    let files = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("filenames")?.as_array().cloned())
        .flatten();
    let mut named = files.filter_map(|file| file.as_str().map(PathBuf::from));
    let found = named.rfind(|path| path.file_name().is_some_and(|name| name == NAME));
    found.context("cargo built no WebAssembly")
}

fn attempt(wasm: &Path, module: &Path) -> anyhow::Result<()> {
    if !shell::installed("node") {
        say("not tried: node is not installed");
        return Ok(());
    }
    let golden = shell::root()?.join("evidence/tests/golden");
    let mut words =
        vec!["--input-type=module".into(), "-e".into(), TRY.into(), module.display().to_string()];
    words.push(wasm.display().to_string());
    for entry in std::fs::read_dir(&golden)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "custody") {
            words.push(path.display().to_string());
        }
    }
    say(shell::run("node", &words)?.trim_end());
    Ok(())
}
