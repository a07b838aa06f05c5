//! `custody-collector run`: the start, step by step.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use custody_config::collector::{BlocksConfig, ClientCertificates, CollectorConfig, CollectorTls};
use custody_config::shell::{
    Clock, DataDir, Exit, Failure, OrExit, Service, Signal, Signals, StopToken, Watchdog,
    check_clock, logging, no_core_files,
};
use custody_event::{AgentId, Timestamp};
use rustls::ServerConfig;
use tokio::net::TcpListener;

use super::{ConfigArgs, derived};
use crate::access::oidc::Oidc;
use crate::access::{self, Access, Logins, random_secret};
use crate::anchor::Anchors;
use crate::authority::Authority;
use crate::own::{self, Act, Acts, OwnStream};
use crate::retain;
use crate::serve::{App, Limits, keeper, server, tls};
use crate::store::BlockSource;
use crate::store::evidence::{EvidenceLog, Options, TlogOptions, folder_in};
use crate::tlog::Enrolment;

const PROGRAM: &str = "custody-collector";
/// How often held-back log lines are looked after.
const TICK: Duration = Duration::from_secs(10);

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
    no_core_files();
    check_clock(&*clock)?;
    // Another part of the process may have been there first; then it is the same provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let signals = Signals::install().or_exit(Exit::Io, "signals cannot be taken over")?;
    let service = Service::from_env();
    let dir = DataDir::open(&config.data_dir)?;
    let access = open_access(dir.path(), &clock)?;
    let (tls, authority) = start_tls(config, dir.path(), &access, &clock)?;
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
    let parts = Parts { clock, access, log, service, tls, authority, acts, agent };
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
    authority: Option<Arc<Authority>>,
    acts: Acts,
    /// The collector among the agents.
    agent: AgentId,
}

/// The certificates in force, and the authority of agents.
type Served = (Option<Arc<tls::Certificates>>, Option<Arc<Authority>>);

/// What is served with, and who signs agents' certificates.
fn start_tls(
    config: &CollectorConfig,
    dir: &Path,
    access: &Arc<Access>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Served> {
    let Some(tls) = &config.tls else { return Ok((None, None)) };
    let authority = match given_authority(tls, clock.now())? {
        Some(given) => Some(given),
        None if tls.signs() => Some(Authority::own(dir, life_us(tls), clock.now())?),
        None => None,
    };
    let server = load_tls(tls, authority.as_ref(), is_revoked(access), Arc::clone(clock))?;
    Ok((Some(Arc::new(tls::Certificates::new(server))), authority.map(Arc::new)))
}

fn life_us(tls: &CollectorTls) -> i64 {
    i64::try_from(tls.client_certificate_life.millis()).unwrap_or(i64::MAX).saturating_mul(1_000)
}

fn is_revoked(access: &Arc<Access>) -> tls::IsRevoked {
    let access = Arc::clone(access);
    Arc::new(move |agent| access.is_revoked(agent))
}

/// The authority that the configuration names with its key.
pub(super) fn given_authority(
    tls: &CollectorTls,
    now: Timestamp,
) -> anyhow::Result<Option<Authority>> {
    let (Some(cert), Some(key)) = (&tls.server.client_ca_file, &tls.client_ca_key_file) else {
        return Ok(None);
    };
    let pem = key.read()?;
    Authority::of_files(cert.get(), key.path(), pem.expose(), life_us(tls), now).map(Some)
}

/// The server's side as the files are now; agents are asked for certificates by the given authority or that of the files.
pub(super) fn load_tls(
    config: &CollectorTls,
    authority: Option<&Authority>,
    is_revoked: tls::IsRevoked,
    clock: Arc<dyn Clock>,
) -> Result<ServerConfig, Failure> {
    let CollectorTls { server, client_certificates, .. } = config;
    let key = server.key_file.read()?;
    let roots = match (&server.client_ca_file, authority) {
        _ if *client_certificates == ClientCertificates::Off => Vec::new(),
        (Some(file), _) => tls::certificates(file.get()).or_exit(Exit::Config, "tls")?,
        (None, Some(authority)) => vec![authority.certificate().clone()],
        (None, None) => Vec::new(),
    };
    let clients = (!roots.is_empty()).then_some(tls::Clients { roots, is_revoked });
    let (cert, path) = (server.cert_file.get(), server.key_file.path());
    tls::server_config(cert, path, key.expose(), clients, clock).or_exit(Exit::Config, "tls")
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
    .certifying(parts.authority.clone())
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
    // Retention may wait for the index, or for an act to be durable: on a disk that takes nothing, for
    // ever.
    worker.tell();
    if let Some((index, _)) = &derived.index {
        index.stop();
    }
    parts.acts.hurry();
    let close = move || {
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
pub(super) fn oidc(config: &CollectorConfig) -> anyhow::Result<Option<Oidc>> {
    let Some(oidc) = &config.oidc else { return Ok(None) };
    let secret = oidc.client_secret_file.read()?;
    Oidc::new(oidc.clone(), secret.expose().to_owned()).map(Some)
}

fn limits(config: &CollectorConfig) -> Limits {
    Limits {
        max_block_bytes: config.limits.max_block_bytes.as_usize(),
        workers: std::thread::available_parallelism().map_or(2, std::num::NonZero::get).max(2),
        client_certificates: config
            .tls
            .as_ref()
            .is_some_and(|tls| tls.client_certificates == ClientCertificates::Required),
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
fn reload(config: &CollectorConfig, parts: &Parts) -> String {
    let (Some(certificates), Some(tls)) = (&parts.tls, &config.tls) else {
        let said = "nothing to read again: the configuration is read at the start only";
        log::info!("a reload was asked for; {said}");
        return said.to_owned();
    };
    let (authority, clock) = (parts.authority.as_deref(), Arc::clone(&parts.clock));
    match load_tls(tls, authority, is_revoked(&parts.access), clock) {
        Ok(new) => {
            certificates.replace(new);
            log::info!("the certificates were read again: new connections get them");
            "the certificates were read again".to_owned()
        }
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
                    parts.service.ready(&reload(config, parts));
                }
                Signal::Stop => break,
            },
        }
    }
    stop.stopped().await;
    log::info!("stopping: requests under way are finished first");
    std::future::pending::<()>().await;
}
