//! `custody-collector check`: what `run` would start with, without the start.
//!
//! Some things cannot be seen from outside the unit: a systemd credential is given to it alone, and what it may write is
//! bounded by `ProtectSystem=strict`. The first is passed over and said; the second is asked of systemd where it is there.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use clap::Args;
use custody_config::CollectorConfig;
use custody_config::collector::{ArchiveConfig, CollectorTls};
use custody_config::shell::{Clock, Exit, SystemClock};

use super::run::{given_authority, load_tls, oidc};
use super::{ConfigArgs, say};
use crate::serve::tls::IsRevoked;

/// What the shipped unit lets the collector write.
const WRITABLE: &str = "/var/lib/custody-collector";

/// Arguments of `check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the configuration with every default written out
    #[arg(long)]
    print: bool,
}

/// Checks what `run` would start with: the file, the TLS files, what the unit may write.
///
/// # Errors
/// What is wrong.
pub fn check(args: &CheckArgs) -> anyhow::Result<Exit> {
    let loaded = args.config.load()?;
    let config = &loaded.value;
    let mut said: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    if let Some(tls) = config.tls.as_ref().filter(|tls| is_here(tls)) {
        let nobody: IsRevoked = Arc::new(|_| false);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let authority = given_authority(tls, clock.now())?;
        load_tls(tls, authority.as_ref(), nobody, clock)?;
    }
    if config.oidc.as_ref().is_none_or(|oidc| oidc.client_secret_file.path().is_absolute()) {
        oidc(config)?;
    }
    said.extend(beyond_the_unit(config, granted().as_deref()));
    for warning in &said {
        say(&format!("warning: {warning}\n"))?;
    }
    if args.print {
        say(&config.render())?;
    } else {
        let listen = config.listen.get();
        say(&format!("good: custody-collector would listen on {listen}\n"))?;
    }
    Ok(Exit::Good)
}

/// A credential that only the unit is given has been warned of when the file was read.
fn is_here(tls: &CollectorTls) -> bool {
    let server = &tls.server;
    let files = [server.cert_file.get().as_path(), server.key_file.path()];
    let more = server.client_ca_file.iter().map(|file| file.get().as_path());
    let more = more.chain(tls.client_ca_key_file.iter().map(custody_config::SecretFile::path));
    files.into_iter().chain(more).all(Path::is_absolute)
}

/// `ReadWritePaths=` of the unit as systemd has it; `None` where it cannot say.
fn granted() -> Option<String> {
    let mut ask = Command::new("systemctl");
    ask.args(["show", "--value", "--property=ReadWritePaths", "custody-collector.service"]);
    let output = ask.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// The folders that are written to, and that the unit does not let the collector write.
fn beyond_the_unit(config: &CollectorConfig, granted: Option<&str>) -> Vec<String> {
    let mut folders = vec![&config.data_dir];
    if let Some(ArchiveConfig::Dir { path, .. }) = &config.archive {
        folders.push(path);
    }
    folders.extend(config.anchors.iter().filter_map(|anchors| anchors.dir.as_ref()));
    let granted = granted.unwrap_or_default().split_whitespace();
    // `-/path` is one that may be absent.
    let granted: Vec<&str> = granted.map(|path| path.trim_start_matches(['-', '+'])).collect();
    let may = |path: &Path| {
        path.starts_with(WRITABLE) || granted.iter().any(|folder| path.starts_with(folder))
    };
    let beyond = folders.into_iter().filter(|folder| !may(folder.get()));
    beyond
        .map(|folder| {
            let shown = folder.get().display();
            let what = format!("the shipped unit does not let the collector write to {shown}");
            let hint = format!(
                "systemctl edit custody-collector, and add under [Service]: ReadWritePaths={shown}"
            );
            folder.problem(what, hint).to_string()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_config::{CollectorOverrides, Env};

    #[test]
    fn a_folder_that_the_unit_does_not_write_is_told_with_the_line_that_grants_it() {
        let text = "archive: { type: dir, path: /srv/archive }\nanchors: { dir: /mnt/worm }\n";
        let (path, overrides) = (Path::new("collector.yaml"), CollectorOverrides::default());
        let loaded = CollectorConfig::from_text(path, text, &overrides, &Env::default()).unwrap();
        let said = beyond_the_unit(&loaded.value, None);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("collector.yaml:1:"), "{said:?}");
        assert!(said[0].contains("ReadWritePaths=/srv/archive"), "{said:?}");
        let said = beyond_the_unit(&loaded.value, Some("-/srv /run/x\n"));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("/mnt/worm"), "{said:?}");
    }
}
