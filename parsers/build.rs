//! Packs the built-in rule packs, each for itself: an agent needs few of them, and their texts would
//! be an eighth of its program, which the kernel keeps in memory with the code beside them.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// They are packed once and unpacked once in a program's life.
const LEVEL: i32 = 19;

fn main() -> io::Result<()> {
    let packs = folder("CARGO_MANIFEST_DIR")?.join("../config/packs");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", packs.display());
    let out = folder("OUT_DIR")?;
    for entry in fs::read_dir(&packs)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            pack(&path, &out)?;
        }
    }
    Ok(())
}

fn folder(variable: &str) -> io::Result<PathBuf> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| io::Error::other(variable.to_owned()))
}

/// `sshd.yaml` → `sshd.yaml.zst` in `out`.
fn pack(path: &Path, out: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".zst");
    fs::write(out.join(name), zstd::bulk::compress(&fs::read(path)?, LEVEL)?)
}
