//! Building the programs, running helpers, temporary folders, waiting with a deadline.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use custody_event::{Clock, SystemClock, Timestamp};

/// Built for speed of building, or of running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As tests are built.
    Dev,
    /// As packages are built.
    Release,
}

/// The programs, copied out of the target folder so that another build cannot change them while
/// they run.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) agent: PathBuf,
    pub(crate) collector: PathBuf,
}

/// The workspace's root: two levels above this crate.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map(Path::to_owned).context("the workspace's root is not above xtask")
}

/// Where cargo builds: the folder above the one with this very program.
pub(crate) fn target() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("where this program is")?;
    here.ancestors().nth(2).map(Path::to_owned).context("this program is not in a target folder")
}

/// `cargo`, as it was called, in the workspace's root.
pub(crate) fn cargo() -> anyhow::Result<Command> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root()?);
    Ok(command)
}

/// A folder with programs that were built before (examples in its folder `examples`): they are used instead of
/// building any.
pub(crate) fn built_before() -> Option<PathBuf> {
    std::env::var_os("CUSTODY_PROGRAMS").map(PathBuf::from)
}

/// Builds both programs and copies them into `folder`.
pub(crate) fn build(profile: Profile, folder: &Path) -> anyhow::Result<Programs> {
    if let Some(built) = built_before() {
        let copied = |name: &str| copy(&built.join(name), &folder.join(name));
        return Ok(Programs {
            agent: copied("custody-agent")?,
            collector: copied("custody-collector")?,
        });
    }
    let text = built(profile, &["-p", "custody-agent", "-p", "custody-collector", "--bins"])?;
    Ok(Programs {
        agent: take(&text, "custody-agent", folder)?,
        collector: take(&text, "custody-collector", folder)?,
    })
}

/// Builds an example of a package and copies it into `folder`.
pub(crate) fn build_example(
    profile: Profile,
    package: &str,
    name: &str,
    folder: &Path,
) -> anyhow::Result<PathBuf> {
    if let Some(built) = built_before().filter(|_| profile == Profile::Dev) {
        return copy(&built.join("examples").join(name), &folder.join(name));
    }
    take(&built(profile, &["-p", package, "--example", name])?, name, folder)
}

/// Builds what the words name; gives cargo's messages.
fn built(profile: Profile, what: &[&str]) -> anyhow::Result<String> {
    let mut command = cargo()?;
    command.args(["build", "--message-format=json-render-diagnostics"]).args(what);
    if profile == Profile::Release {
        command.arg("--release");
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo build failed");
    }
    String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")
}

pub(crate) fn take(messages: &str, name: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let built = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message.pointer("/target/name").is_some_and(|found| found == name))
        .find_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built no program {name}"))?;
    copy(&built, &folder.join(name))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    std::fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(to.to_owned())
}

/// Runs a helper to its end; its output only shows where it fails.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program} (is it installed?)"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let args: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
    bail!(
        "{program} {} ended with {}: {}{text}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Is the program on the PATH?
pub(crate) fn installed(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// A folder that goes away at the end; `under` says where, the system's place for such if not.
pub(crate) fn scratch(under: Option<&Path>) -> anyhow::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("custody-");
    match under {
        Some(under) => {
            builder.tempdir_in(under).with_context(|| format!("no folder in {}", under.display()))
        }
        None => builder.tempdir().context("no temporary folder"),
    }
}

/// An address on loopback where nobody listens now.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
    Ok(listener.local_addr()?)
}

/// The time now.
pub(crate) fn now() -> Timestamp {
    SystemClock::new().now()
}

/// Asks until there is an answer, or fails after `limit`.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    every: Duration,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if begun.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(every);
    }
}
