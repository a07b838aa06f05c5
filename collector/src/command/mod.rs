//! The commands of `custody-collector`.

mod accounts;
mod check;
mod client;
pub mod derived;
mod export;
mod init;
mod keys;
mod questions;
mod retain;
mod run;
mod search;
mod tail;
mod token;
mod verify;

pub use accounts::{RoleCommand, UserCommand, role, user};
pub use check::{CheckArgs, check};
pub use export::{ExportArgs, export};
pub use init::{InitArgs, init};
pub use keys::{AcceptForkArgs, AgentCommand, accept_fork, agent};
pub use questions::{AccessArgs, HistoryArgs, TimelineArgs, access, history, timeline};
pub(crate) use retain::{
    ArchiveCommand, BackupArgs, EraseArgs, HoldCommand, RetentionCommand, archive, backup, erase,
    hold, restore, retention,
};
pub use run::run;
pub use search::{SearchArgs, search};
pub use tail::{TailArgs, tail};
pub use token::{TokenCommand, token};
pub use verify::verify;

use std::path::{Path, PathBuf};

use anyhow::Context;
use custody_config::shell::{Exit, Failure};
use custody_config::{CollectorConfig, CollectorOverrides, Env, Loaded, LogLevel};

/// The file of an installed collector.
const DEFAULT_CONFIG: &str = "/etc/custody/collector.yaml";

/// What every command takes to find the configuration. It may stand before a command's own command and behind it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file; without it /etc/custody/collector.yaml where that is there, unless
    /// --data-dir names another collector; else the defaults hold
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Where the collector keeps everything, in place of the file's `data_dir`
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// Where to listen, in place of the file's `listen`
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub listen: Option<String>,
    /// The search index, in place of the file's `index.type`
    #[arg(long, value_name = "TYPE", value_parser = ["embedded", "none"], global = true)]
    pub index: Option<String>,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log_level: Option<LogLevel>,
}

impl ConfigArgs {
    /// The configuration that they lead to.
    ///
    /// # Errors
    /// The file cannot be read, or is wrong.
    pub fn load(&self) -> Result<Loaded<CollectorConfig>, Failure> {
        let overrides = CollectorOverrides {
            data_dir: self.data_dir.clone(),
            listen: self.listen.clone(),
            log_level: self.log_level,
        };
        let mut loaded =
            CollectorConfig::load(self.file().as_deref(), &overrides, &Env::from_process())?;
        match self.index.as_deref() {
            Some("none") => loaded.value.index = custody_config::collector::IndexConfig::None,
            Some(_) => loaded.value.index = custody_config::collector::IndexConfig::Embedded,
            None => {}
        }
        Ok(loaded)
    }

    fn file(&self) -> Option<PathBuf> {
        let installed = Path::new(DEFAULT_CONFIG);
        match (&self.config, &self.data_dir) {
            (Some(named), _) => Some(named.clone()),
            (None, Some(_)) => None,
            // A folder that others may not enter hides the file from them: then it is as if there were none.
            (None, None) => {
                matches!(installed.try_exists(), Ok(true)).then(|| installed.to_owned())
            }
        }
    }
}

/// Writes to standard output.
fn say(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    std::io::stdout().lock().write_all(text.as_bytes()).context("standard output")
}

/// A data directory that must be there already.
fn existing(config: &CollectorConfig) -> Result<&std::path::Path, Failure> {
    let path = config.data_dir.get();
    if path.is_dir() {
        return Ok(path);
    }
    let problem = config.data_dir.problem(
        format!("there is no data directory {}", path.display()),
        "name the collector's with --data-dir or --config",
    );
    Err(Failure::new(Exit::NoInput, problem.to_string()))
}
