//! `custody-collector run` and `check`: the start, step by step.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use custody_config::collector::{BlocksConfig, CollectorConfig, ServerTls};
use custody_config::shell::{
    Clock, DataDir, Exit, Failure, OrExit, Service, Signal, Signals, StopToken, Watchdog,
    check_clock, logging,
};
use custody_event::AgentId;
use rustls::ServerConfig;
use tokio::net::TcpListener;

use super::{ConfigArgs, derived, say};
use crate::access::oidc::Oidc;
use crate::access::{self, Access, Logins, random_secret};
use crate::anchor::Anchors;
use crate::own::{self, Act, Acts, OwnStream};
use crate::retain;
use crate::serve::{App, Limits, keeper, server, tls};
use crate::store::BlockSource;
use crate::store::evidence::{EvidenceLog, Options, TlogOptions, folder_in};
use crate::tlog::Enrolment;

const PROGRAM: &str = "custody-collector";
/// How often held-back log lines are looked after.
const TICK: Duration = Duration::from_secs(10);

/// Checks what `run` would start with: the file, the TLS files.
///
/// # Errors
/// What is wrong.
pub fn check(args: &ConfigArgs) -> anyhow::Result<Exit> {
    let loaded = args.load()?;
    for warning in &loaded.warnings {
        say(&format!("warning: {warning}\n"))?;
    }
    load_tls(loaded.value.tls.as_ref())?;
    oidc(&loaded.value)?;
    say(&format!("good: {} would listen on {}\n", PROGRAM, loaded.value.listen.get()))?;
    Ok(Exit::Good)
}

/// Runs until told to stop.
///
/// # Errors
/// The start failed, or the evidence log has failed for good.
pub fn run(args: &ConfigArgs, clock: Arc<dyn Clock>) -> anyhow::Result<Exit> {
    let loaded = args.load()?;
    let config = &loaded.value;
    logging::init(PROGRAM, &config.log, Arc::clone(&clock))?;
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    check_clock(&*clock)?;
    // Another part of the process may have been there first; then it is the same provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let signals = Signals::install().or_exit(Exit::Io, "signals cannot be taken over")?;
    let service = Service::from_env();
    let tls = load_tls(config.tls.as_ref())?.map(|tls| Arc::new(tls::Certificates::new(tls)));
    let dir = DataDir::open(&config.data_dir)?;
    let access = open_access(dir.path(), &clock)?;
    if let Some(per_minute) = config.limits.requests_per_minute {
        access.bound_requests(per_minute);
    }
    let own = own::Identity::load(dir.path())?;
    let agents = agents(&access, &own)?;
    let log = open_log(config, dir.path(), agents, &clock, &service)?;
    let (name, agent) = (config.name.get(), own.agent());
    let (own, acts) = OwnStream::start(Arc::clone(&log), own, name, Arc::clone(&clock))?;
    acts.record(Act::Started { config_sha256: loaded.sha256.clone() });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .or_exit(Exit::Io, "threads cannot be started")?;
    let parts = Parts { clock, access, log, service, tls, acts, agent };
    let served = runtime.block_on(serve(config, dir.path(), &parts, signals));
    parts.service.stopping("finishing");
    own.close();
    parts.log.close();
    runtime.shutdown_timeout(Duration::from_secs(5));
    logging::flush();
    served
}

struct Parts {
    clock: Arc<dyn Clock>,
    access: Arc<Access>,
    log: Arc<EvidenceLog>,
    service: Service,
    tls: Option<Arc<tls::Certificates>>,
    acts: Acts,
    /// The collector among the agents.
    agent: AgentId,
}

fn load_tls(config: Option<&ServerTls>) -> Result<Option<ServerConfig>, Failure> {
    let Some(config) = config else { return Ok(None) };
    let key = config.key_file.read()?;
    let ca = config.client_ca_file.as_ref().map(|path| path.get().as_path());
    let server: ServerConfig =
        tls::server_config(config.cert_file.get(), config.key_file.path(), key.expose(), ca)
            .or_exit(Exit::Config, "tls")?;
    Ok(Some(server))
}

fn open_access(dir: &Path, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<Access>> {
    let access = Access::open(dir, Arc::clone(clock))?;
    if access.first_start(dir, &random_secret()?, &random_secret()?)? {
        log::info!(
            admin:% = dir.join("admin.token").display(),
            enroll:% = dir.join("enroll.token").display();
            "first start: tokens for the administrator and for enrolling agents were written"
        );
    }
    Ok(Arc::new(access))
}

fn open_log(
    config: &CollectorConfig,
    dir: &Path,
    agents: Vec<Enrolment>,
    clock: &Arc<dyn Clock>,
    service: &Service,
) -> anyhow::Result<Arc<EvidenceLog>> {
    let BlocksConfig::Local { segment_bytes } = config.blocks;
    let mut options = Options::new(u64::try_from(segment_bytes.as_usize())?);
    options.tlog = Some(tlog_options(config, dir, agents)?);
    service.extend_timeout(Duration::from_secs(600));
    let (log, opening) = EvidenceLog::open(&folder_in(dir), &options, Arc::clone(clock))
        .or_exit(Exit::Io, "the evidence log cannot be opened")?;
    if let Some(cut) = &opening.cut {
        log::warn!(
            segment:% = cut.path.display(), at = cut.offset, bytes = cut.bytes, reason:% = cut.reason;
            "an unfinished frame at the end of the evidence log was cut off; it had never been acknowledged"
        );
    }
    let end = *log.durable_end().borrow();
    log::info!(
        streams = opening.streams, segment = end.segment, offset = end.offset,
        sidecars_made = opening.sidecars_made;
        "evidence log open"
    );
    Ok(Arc::new(log))
}

fn tlog_options(
    config: &CollectorConfig,
    dir: &Path,
    agents: Vec<Enrolment>,
) -> anyhow::Result<TlogOptions> {
    Ok(TlogOptions {
        folder: dir.join("tlog"),
        origin: config.name.get().clone(),
        random: random_secret()?,
        agents,
    })
}

/// Whom the log vouches for: enrolled agents, and the collector itself.
fn agents(access: &Access, own: &own::Identity) -> anyhow::Result<Vec<Enrolment>> {
    let enrolled = access.agents()?.into_iter().map(|agent| Enrolment {
        agent: agent.id,
        host: agent.host,
        key: agent.key,
    });
    Ok(enrolled.chain([own.enrolment()]).collect())
}

async fn bind(addr: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(addr).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!(
                    "port {} is taken by another program; choose another with --listen",
                    addr.port()
                )
            }
            std::io::ErrorKind::PermissionDenied => {
                format!("port {} needs privileges; choose one above 1023", addr.port())
            }
            std::io::ErrorKind::AddrNotAvailable => {
                format!("{} is no address of this host", addr.ip())
            }
            _ => "check `listen`".to_owned(),
        };
        Failure::new(Exit::Io, format!("cannot listen on {addr}: {error} (hint: {hint})"))
    })
}

async fn serve(
    config: &CollectorConfig,
    dir: &Path,
    parts: &Parts,
    signals: Signals,
) -> anyhow::Result<Exit> {
    let stop = signals.stop_token();
    let listener = bind(*config.listen.get()).await?;
    let local = listener.local_addr().context("the listening socket")?;
    let app = App::new(
        Arc::clone(&parts.log),
        Arc::clone(&parts.access),
        Arc::clone(&parts.clock),
        &limits(config),
        stop.clone(),
    )
    .telling(parts.acts.clone());
    let (accounts, clock) = (Arc::clone(&parts.access), Arc::clone(&parts.clock));
    let logins = Logins::new(accounts, Some(parts.acts.clone()), clock);
    let logins = Arc::new(logins.with_oidc(oidc(config)?));
    let derived = derived::start(derived::Given {
        config,
        data_dir: dir,
        source: Arc::<EvidenceLog>::clone(&parts.log),
        readers: Arc::<Access>::clone(&parts.access),
        logins: Arc::clone(&logins),
        clock: Arc::clone(&parts.clock),
        log: Some(Arc::clone(&parts.log)),
        prover: Some(Arc::<EvidenceLog>::clone(&parts.log)),
        acts: Some(parts.acts.clone()),
        stop: stop.clone(),
    })?;
    let (worker, routes) = derived::retention(
        retain::Given {
            config,
            data_dir: dir,
            log: Arc::clone(&parts.log),
            index: derived.index.as_ref().map(|(index, _)| Arc::clone(index)),
            clock: Arc::clone(&parts.clock),
            acts: Some(parts.acts.clone()),
            own: parts.agent,
        },
        &derived,
    )?;
    let routes = derived.routes.merge(routes).merge(access::http::router(logins));
    let counters = app.counters();
    let router = Arc::new(app).router(routes);
    let scheme = if parts.tls.is_some() { "https" } else { "http" };
    log::info!(address:% = format!("{scheme}://{local}"); "listening");
    let failed = parts.log.failed();
    let _watchdog = Watchdog::start(&parts.service, move || failed.borrow().is_none())?;
    parts.service.ready(&format!("listening on {local}"));
    let anchors = anchors(config, dir, parts)?;
    let anchoring = async {
        if let Some(anchors) = anchors {
            anchors.run(Arc::clone(&parts.log), stop.clone()).await;
        }
        std::future::pending::<()>().await;
    };
    let keeper = async {
        let (log, access) = (Arc::clone(&parts.log), Arc::clone(&parts.access));
        let (clock, acts) = (Arc::clone(&parts.clock), parts.acts.clone());
        keeper::keep(log, access, clock, acts, stop.clone()).await;
        // The server ends by the stop token itself.
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        () = server::serve(listener, parts.tls.clone(), router, counters, stop.clone()) => Ok(Exit::Good),
        reason = failure(&parts.log) => Err(Failure::new(Exit::Io, format!(
            "the evidence log has failed: {reason} (hint: check the disk, then start again; \
             nothing acknowledged is lost)"
        )).into()),
        () = housekeeping(signals, config, parts) => Ok(Exit::Good),
        () = keeper => Ok(Exit::Good),
        () = anchoring => Ok(Exit::Good),
    };
    stop.stop();
    let close = move || {
        // It may wait for the index.
        worker.stop();
        derived.close.map(|close| close())
    };
    tokio::task::spawn_blocking(close).await.context("ending retention and the index")?;
    ended
}

/// Who holds the log's checkpoints, where somebody does.
fn anchors(config: &CollectorConfig, dir: &Path, parts: &Parts) -> anyhow::Result<Option<Anchors>> {
    let Some(anchors) = config.anchors.clone() else { return Ok(None) };
    Anchors::new(anchors, dir, Arc::clone(&parts.clock), Some(parts.acts.clone())).map(Some)
}

/// The identity provider; it is asked when somebody logs in, so that its absence stops nothing.
fn oidc(config: &CollectorConfig) -> anyhow::Result<Option<Oidc>> {
    let Some(oidc) = &config.oidc else { return Ok(None) };
    let secret = oidc.client_secret_file.read()?;
    Oidc::new(oidc.clone(), secret.expose().to_owned()).map(Some)
}

fn limits(config: &CollectorConfig) -> Limits {
    Limits {
        max_block_bytes: config.limits.max_block_bytes.as_usize(),
        workers: std::thread::available_parallelism().map_or(2, std::num::NonZero::get).max(2),
        client_certificates: config.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some()),
    }
}

/// Completes when the log has failed for good.
async fn failure(log: &EvidenceLog) -> String {
    let mut failed = log.failed();
    loop {
        if let Some(reason) = failed.borrow_and_update().clone() {
            return reason;
        }
        if failed.changed().await.is_err() {
            return "the writer ended".to_owned();
        }
    }
}

/// Reads the certificate, its key and the clients' CA again; on any error those before stay. Gives what became of it.
fn reload(config: &CollectorConfig, certificates: Option<&tls::Certificates>) -> String {
    let Some(certificates) = certificates else {
        let said = "nothing to read again: the configuration is read at the start only";
        log::info!("a reload was asked for; {said}");
        return said.to_owned();
    };
    match load_tls(config.tls.as_ref()) {
        Ok(Some(new)) => {
            certificates.replace(new);
            log::info!("the certificates were read again: new connections get them");
            "the certificates were read again".to_owned()
        }
        Ok(None) => String::new(),
        Err(error) => {
            log::error!(error:% = error; "the certificates were not read again, those before stay in force");
            format!("the certificates before stay in force: {error}")
        }
    }
}

/// Never completes: the server ends by the stop token itself.
async fn housekeeping(mut signals: Signals, config: &CollectorConfig, parts: &Parts) {
    let stop: StopToken = signals.stop_token();
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => logging::tick(),
            signal = signals.recv() => match signal {
                Signal::Reload => {
                    parts.service.reloading();
                    parts.service.ready(&reload(config, parts.tls.as_deref()));
                }
                Signal::Stop => break,
            },
        }
    }
    stop.stopped().await;
    log::info!("stopping: requests under way are finished first");
    std::future::pending::<()>().await;
}
