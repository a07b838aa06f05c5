//! `custody-agent accept-fork`: somebody on this host accepts that a collector's history does not
//! continue what it had shown. Whoever may write into the data directory may do this.

use std::io::Write;

use clap::Args;
use custody_config::shell::{Exit, Failure};
use custody_evidence::whole::{PRIVATE, write_whole};

use super::{ConfigArgs, print};
use crate::outputs::acceptance_file;

/// Arguments of `accept-fork`.
#[derive(Debug, Args)]
pub(super) struct AcceptForkArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The output whose collector is refused.
    #[arg(long, value_name = "ID")]
    output: String,
    /// Why; becomes part of an event in this agent's stream.
    #[arg(long, value_name = "SENTENCE")]
    reason: String,
}

pub(super) fn run(args: &AcceptForkArgs) -> anyhow::Result<Exit> {
    let loaded = args.config.loader().load().map_err(Failure::from)?;
    if !loaded.value.outputs.iter().any(|output| output.id() == args.output) {
        let what = format!("there is no output {:?} in the configuration", args.output);
        return Err(Failure::new(Exit::Usage, what).into());
    }
    if args.reason.trim().is_empty() {
        return Err(Failure::new(Exit::Usage, "--reason must say why".to_owned()).into());
    }
    let path = acceptance_file(loaded.value.data_dir.get(), &args.output);
    // Called by root, it must be readable for the service all the same.
    write_whole(&path, args.reason.trim().as_bytes(), PRIVATE).map_err(|error| {
        Failure::because(Exit::Io, format!("cannot write {}", path.display()), error)
    })?;
    let mut out = print::stdout();
    writeln!(
        out,
        "accepted: if the agent refuses the collector of output {}, it goes on within a minute; \
         its status says so",
        args.output
    )?;
    out.flush()?;
    Ok(Exit::Good)
}
