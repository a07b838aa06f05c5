//! The commands of `custody-collector`.

mod accounts;
mod client;
pub mod derived;
mod export;
mod init;
mod keys;
mod run;
mod search;
mod token;
mod verify;

pub use accounts::{RoleCommand, UserCommand, role, user};
pub use export::{ExportArgs, export};
pub use init::{InitArgs, init};
pub use keys::{AcceptForkArgs, AgentCommand, accept_fork, agent};
pub use run::{check, run};
pub use search::{SearchArgs, search};
pub use token::{TokenCommand, token};
pub use verify::verify;

use std::path::PathBuf;

use anyhow::Context;
use custody_config::shell::{Exit, Failure};
use custody_config::{CollectorConfig, CollectorOverrides, Env, Loaded};

/// What every command takes to find the configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file; without one the defaults hold
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the collector keeps everything, in place of the file's `data_dir`
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where to listen, in place of the file's `listen`
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// The search index, in place of the file's `index.type`
    #[arg(long, value_name = "TYPE", value_parser = ["embedded", "none"])]
    pub index: Option<String>,
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
            ..CollectorOverrides::default()
        };
        let mut loaded =
            CollectorConfig::load(self.config.as_deref(), &overrides, &Env::from_process())?;
        match self.index.as_deref() {
            Some("none") => loaded.value.index = custody_config::collector::IndexConfig::None,
            Some(_) => loaded.value.index = custody_config::collector::IndexConfig::Embedded,
            None => {}
        }
        Ok(loaded)
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
