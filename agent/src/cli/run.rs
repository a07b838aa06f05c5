//! `custody-agent run`.

use std::sync::Arc;

use custody_config::Env;
use custody_config::shell::{Exit, Failure, Signals, check_clock, logging, no_core_files};
use custody_event::Clock;

use super::ConfigArgs;
use crate::sandbox;

pub(super) fn run(args: &ConfigArgs, clock: Arc<dyn Clock>) -> anyhow::Result<Exit> {
    let loader = args.loader();
    let config = loader.load().map_err(Failure::from)?;
    no_core_files();
    logging::init("custody-agent", &config.value.log, Arc::clone(&clock))?;
    // Before anything that starts a thread: only what is started later is confined too.
    let sandbox = sandbox::confine(&config.value, &loader.path, &Env::from_process());
    check_clock(&*clock)?;
    install_crypto();
    let passed_over = crate::runtime::check(&config.value, &clock)
        .map_err(|error| Failure::because(Exit::Config, "the agent cannot start", error))?;
    for warning in passed_over {
        log::warn!("{warning}");
    }
    let signals = Signals::install()?;
    crate::runtime::run(&loader, config, clock, signals, sandbox)
}

/// TLS uses ring; a process that already has a provider keeps it.
pub(super) fn install_crypto() {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        log::debug!("a TLS provider was installed already");
    }
}
