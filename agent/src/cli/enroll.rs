//! `custody-agent enroll`: shows an enrolment token to the collectors now, so that a mistake is seen by the person at the terminal
//! and no token need lie on the disk for the service.

use std::io::{Read, Write};
use std::path::PathBuf;

use clap::Args;
use custody_config::Secret;
use custody_config::shell::{DataDir, Exit, Failure};

use super::{ConfigArgs, print, service_user};

/// A token is shorter.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Arguments of `enroll`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ssh collector 'sudo cat /var/lib/custody-collector/enroll.token' | sudo custody-agent enroll --token-file -\n  sudo systemctl enable --now custody-agent"
)]
pub(super) struct EnrollArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The file that holds the enrolment token; - for standard input (default: as the configuration says).
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Only at this output.
    #[arg(long, value_name = "ID")]
    output: Option<String>,
    /// Called by root, do it as this user: what is made belongs to the service.
    #[arg(long, value_name = "USER", default_value = service_user::AGENT)]
    user: String,
}

pub(super) fn run(args: &EnrollArgs) -> anyhow::Result<Exit> {
    if let Some(exit) = service_user::go_on_as(&args.user)? {
        return Ok(exit);
    }
    let loaded = args.config.loader().load().map_err(Failure::from)?;
    let named = |id: &str| args.output.as_deref().is_none_or(|wanted| wanted == id);
    if !loaded.value.outputs.iter().any(|output| named(output.id())) {
        let what = "the configuration has no such output".to_owned();
        return Err(Failure::new(Exit::Usage, what).into());
    }
    super::run::install_crypto();
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    // The running agent holds the lock, and enrols by itself.
    let data_dir = DataDir::open(&loaded.value.data_dir)?;
    let done = crate::runtime::enroll(&loaded.value, data_dir.path(), token.as_ref(), named)?;
    let mut out = print::stdout();
    let mut exit = Exit::Good;
    for (output, result) in done {
        match result {
            Ok(agent) => writeln!(out, "output {output}: enrolled as agent {agent}")?,
            Err(why) => {
                exit = Exit::No;
                writeln!(out, "output {output}: {why}")?;
            }
        }
    }
    out.flush()?;
    Ok(exit)
}

fn read_token(path: &std::path::Path) -> anyhow::Result<Secret> {
    let mut text = String::new();
    super::preview::open(path)?.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(
        |error| Failure::because(Exit::NoInput, format!("cannot read {}", path.display()), error),
    )?;
    if text.trim().is_empty() {
        return Err(Failure::new(Exit::NoInput, format!("{} is empty", path.display())).into());
    }
    Ok(Secret::new(text.trim()))
}
