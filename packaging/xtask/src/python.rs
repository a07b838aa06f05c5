//! Foreign judges from the Python package index, each in a virtual environment of its own below the
//! target folder. None is needed to build or run anything: where one cannot be had, whoever wanted
//! it says `skipped` and goes on.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::shell;

/// A package that judges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    /// Its name and version, as pip takes them.
    pub(crate) pinned: &'static str,
    /// What is there once it is installed, below `bin`.
    pub(crate) program: &'static str,
}

/// Python's least minor version that the packages are tried with.
const LEAST_MINOR: u32 = 11;
const MOST_MINOR: u32 = 14;
/// pip gives up after this, in seconds: a mirror that does not answer must not hold CI up.
const INSTALL_LIMIT_S: &str = "180";

impl Package {
    /// The program, installed if it was not; `None` where there is no fitting Python or no package
    /// index.
    pub(crate) fn program(&self) -> anyhow::Result<Option<PathBuf>> {
        let name = self.pinned.split('=').next().unwrap_or(self.pinned);
        let home = shell::target()?.join("judges").join(name);
        let program = home.join("bin").join(self.program);
        if program.is_file() && installed_pin(&home)? == self.pinned {
            return Ok(Some(program));
        }
        let Some(python) = python() else { return Ok(None) };
        if home.is_dir() {
            std::fs::remove_dir_all(&home).with_context(|| home.display().to_string())?;
        }
        let made = quiet(Command::new(python).args(["-m", "venv"]).arg(&home))
            && quiet(
                Command::new("timeout").arg(INSTALL_LIMIT_S).arg(home.join("bin/pip")).args([
                    "-q",
                    "install",
                    "--disable-pip-version-check",
                    self.pinned,
                ]),
            );
        if made && program.is_file() {
            std::fs::write(home.join(PIN), self.pinned)?;
            return Ok(Some(program));
        }
        Ok(None)
    }
}

/// The file that says what is installed: written last, so that half an installation is made again.
const PIN: &str = "pinned";

fn installed_pin(home: &Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(home.join(PIN)) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| home.display().to_string()),
    }
}

/// The newest Python that will do: on the PATH, or one of pyenv's.
fn python() -> Option<PathBuf> {
    let pyenv = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pyenv/versions"));
    let pyenv: Vec<PathBuf> = pyenv
        .and_then(|folder| std::fs::read_dir(folder).ok())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    (LEAST_MINOR..=MOST_MINOR).rev().find_map(|minor| {
        let name = format!("python3.{minor}");
        let on_path = std::iter::once(PathBuf::from(&name));
        let all = on_path.chain(pyenv.iter().map(|bin| bin.join(&name)));
        all.into_iter()
            .find(|python| quiet(Command::new(python).args(["-c", "import venv, ensurepip"])))
    })
}

fn quiet(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
