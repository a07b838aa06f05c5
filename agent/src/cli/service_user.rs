//! Commands that must see and write what the service does, no more and no less: called by root, they go on as its user.

use std::process::{Command, Stdio};

use custody_config::shell::{Exit, Failure};

/// The user of the shipped unit.
pub(super) const AGENT: &str = "custody-agent";
/// Its groups, as the unit has them.
const GROUPS: [&str; 2] = ["adm", "systemd-journal"];
/// Set for the second call.
const WENT_ON: &str = "CUSTODY_WENT_ON_AS";

/// Called by root and there is such a user: runs this same command as that user, and gives how it ended. Otherwise `None`: the
/// command goes on as it is.
///
/// # Errors
/// `setpriv` cannot be run.
pub(super) fn go_on_as(user: &str) -> anyhow::Result<Option<Exit>> {
    let already = std::env::var_os(WENT_ON).is_some();
    if already || !rustix::process::geteuid().is_root() || !is_known("passwd", user) {
        return Ok(None);
    }
    let mut groups = vec![user];
    groups.extend(GROUPS.into_iter().filter(|group| is_known("group", group)));
    let program = std::env::current_exe()?;
    let status = Command::new("setpriv")
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={user}"))
        .arg(format!("--groups={}", groups.join(",")))
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(WENT_ON, user)
        .status()
        .map_err(|error| {
            let what = format!("cannot go on as {user} with setpriv; call this as that user");
            Failure::because(Exit::Io, what, error)
        })?;
    let all = [Exit::Good, Exit::No, Exit::Usage, Exit::NoInput, Exit::Io, Exit::Config];
    let ended = all.into_iter().find(|exit| status.code() == Some(i32::from(*exit as u8)));
    Ok(Some(ended.unwrap_or(Exit::Io)))
}

fn is_known(table: &str, name: &str) -> bool {
    let asked = Command::new("getent").args([table, name]).stdout(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}
