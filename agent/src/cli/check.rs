//! `custody-agent check`: the start path without the start.

use std::io::Write;
use std::sync::Arc;

use clap::Args;
use custody_config::shell::{Exit, Failure, SystemClock, check_clock};
use custody_event::Clock;

use super::{ConfigArgs, print};

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the configuration with every default written out.
    #[arg(long)]
    print: bool,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<Exit> {
    let loader = args.config.loader();
    let config = loader.load().map_err(Failure::from)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    check_clock(&*clock)?;
    super::run::install_crypto();
    let passed_over = crate::runtime::check(&config.value, &clock).map_err(|error| {
        Failure::because(Exit::Config, "the configuration cannot be used", error)
    })?;
    let mut out = print::stdout();
    for warning in &config.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for warning in passed_over {
        writeln!(out, "warning: {warning}")?;
    }
    for warning in crate::runtime::shared_files(&config.value) {
        writeln!(out, "warning: {warning}")?;
    }
    if args.print {
        write!(out, "{}", config.value.render())?;
    } else {
        writeln!(
            out,
            "{}: good; {} sources, {} outputs",
            loader.path.display(),
            config.value.sources.len(),
            config.value.outputs.len()
        )?;
    }
    out.flush()?;
    Ok(Exit::Good)
}
