//! Reading the sections of `agent.yaml`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::push;
use super::redact;
use super::{
    AdminConfig, AgentConfig, AgentOverrides, ClientTls, Compression, CustodyOutputConfig,
    LandlockMode, OutputConfig, Packs, SandboxConfig, SourceConfig, SpoolConfig, WhenFull, Zone,
};
use crate::common;
use crate::endpoint::Endpoint;
use crate::load::Env;
use crate::place::Located;
use crate::secret::{SecretFile, file_or_credential, secret_file};
use crate::section::{Section, one_of};
use crate::tree::{Node, Value};
use crate::units::{ByteSize, Period, UnitError};

/// Kinds of outputs that the design knows and this version does not have.
const LATER_OUTPUTS: [&str; 8] =
    ["elasticsearch", "file", "http", "loki", "otlp", "splunk_hec", "stdout", "syslog"];
pub(super) fn agent(
    top: &mut Section<'_>,
    overrides: &AgentOverrides,
    env: &Env,
) -> Option<AgentConfig> {
    let base = AgentConfig::default();
    let credentials = env.credentials_dir.as_deref();
    let config = AgentConfig {
        data_dir: common::data_dir(top, overrides.data_dir.as_ref(), base.data_dir),
        host: host(top, env),
        tenant: top.parsed("tenant", common::id).map_or(base.tenant, Located::into_inner),
        labels: labels(top),
        sources: sources(top, credentials),
        webhook: push::webhook(top.section("webhook"), credentials),
        pack_dirs: pack_dirs(top).unwrap_or(base.pack_dirs),
        parse_workers: top.number("parse_workers", 1..=64).unwrap_or(base.parse_workers),
        pseudonym_key_file: secret_file(top, "pseudonym_key_file", credentials),
        geoip: redact::geoip(top.section("geoip"), credentials),
        spool: spool(top.section("spool")),
        outputs: outputs(top, credentials),
        admin: admin(top.section("admin")),
        sandbox: sandbox(top.section("sandbox")),
        log: common::log(top.section("log"), overrides.log_level),
    };
    push::check_webhooks(top.reader(), &config);
    Some(config)
}

fn host(top: &mut Section<'_>, env: &Env) -> String {
    let written = top.parsed("host", |text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if text.len() <= 253 && text.chars().all(plain) {
            return Ok(text.to_owned());
        }
        Err(UnitError {
            what: format!("`{}` cannot be a host name", text.escape_debug()),
            hint: "use letters, digits, dots and hyphens".to_owned(),
        })
    });
    written.map_or_else(|| env.hostname.clone(), Located::into_inner)
}

fn labels(top: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut section = top.section("labels");
    let mut labels = BTreeMap::new();
    for (key, node) in section.entries() {
        let plain =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
        if key.name.is_empty() || key.name.len() > 64 || !key.name.chars().all(plain) {
            section.reader().at(
                key.spot,
                format!("`{}` cannot be the name of a label", key.name.escape_debug()),
                "use 1 to 64 of: a-z 0-9 _ - .",
            );
        } else if let Some(text) = section.item_text(&key.name, node) {
            if text.get().len() > 256 {
                section
                    .reader()
                    .problem(text.problem("the label is longer than 256 bytes", "shorten it"));
            }
            labels.insert(key.name, text.into_inner());
        }
    }
    section.finish();
    labels
}

/// The items of a list that must hold at least one.
fn at_least_one(top: &mut Section<'_>, key: &'static str) -> Vec<Node> {
    let Some(listed) = top.list_or_missing(key) else { return Vec::new() };
    let (spot, items) = listed;
    if items.is_empty() {
        top.reader().at(spot, format!("`{key}` is empty"), "name at least one");
    }
    items
}

/// Ids must be unique within their list: they name books, cursors and metrics.
#[derive(Default)]
struct Ids(HashMap<String, String>);

impl Ids {
    fn note(&mut self, section: &Section<'_>, id: &Located<String>) {
        if id.get().is_empty() {
            // It is missing or wrong, which has been said.
            return;
        }
        let place = id.place().to_string();
        if let Some(first) = self.0.get(id.get()) {
            let what = format!("the id `{}` is used twice", id.get());
            section
                .reader()
                .problem(id.problem(what, format!("the first is at {first}; give each its own")));
        } else {
            self.0.insert(id.get().clone(), place);
        }
    }
}

/// The `type` of an item, if it is one that this version has; the item's other keys are then its own business.
/// Where it is missing, which is said, the item is read as the first.
fn kind(
    item: &mut Section<'_>,
    built: &[&'static str],
    later: &[&'static str],
) -> Option<&'static str> {
    let Some(kind) = item.need_text("type") else { return built.first().copied() };
    if let Some(known) = built.iter().find(|known| *known == kind.get()) {
        return Some(known);
    }
    if later.contains(&kind.get().as_str()) {
        common::not_built_yet(item, &kind, "type", &built.join(", "));
    } else {
        let known = [built, later].concat();
        let what = format!("unknown type `{}`", kind.get().escape_debug());
        item.reader().problem(kind.problem(what, one_of(kind.get(), &known)));
    }
    None
}

fn sources(top: &mut Section<'_>, credentials: Option<&Path>) -> Vec<SourceConfig> {
    let mut ids = Ids::default();
    let mut sources = Vec::new();
    for node in at_least_one(top, "sources") {
        let mut item = top.reader().section(node, "sources[]");
        let source = match kind(&mut item, &["file", "journal", "syslog", "webhook"], &[]) {
            Some("file") => SourceConfig::File(Box::new(super::file::read(&mut item))),
            Some("journal") => SourceConfig::Journal(Box::new(super::journal::read(&mut item))),
            Some("syslog") => SourceConfig::Syslog(push::syslog_source(&mut item, credentials)),
            Some("webhook") => SourceConfig::Webhook(push::webhook_source(&mut item, credentials)),
            _ => {
                item.give_up();
                continue;
            }
        };
        let id = match &source {
            SourceConfig::File(file) => &file.id,
            SourceConfig::Journal(journal) => &journal.id,
            SourceConfig::Syslog(syslog) => &syslog.id,
            SourceConfig::Webhook(webhook) => &webhook.id,
        };
        ids.note(&item, id);
        item.finish();
        sources.push(source);
    }
    sources
}

pub(super) fn need_id(item: &mut Section<'_>) -> Option<Located<String>> {
    let text = item.need_text("id")?;
    item.read_located("id", text, common::id)
}

pub(super) fn packs(item: &mut Section<'_>) -> Option<Packs> {
    let node = item.take("packs")?;
    match node.value {
        Value::Text(word) if word == "auto" => Some(Packs::Auto),
        Value::List(nodes) => {
            if nodes.is_empty() {
                item.reader().at(
                    node.spot,
                    "`sources[].packs` is empty",
                    "write `auto`, or the names of packs",
                );
            }
            Some(Packs::Named(
                nodes.into_iter().filter_map(|node| item.item_text("packs", node)).collect(),
            ))
        }
        other => {
            let what = format!(
                "`sources[].packs` must be `auto` or a list of names, found {}",
                other.describe()
            );
            item.reader().at(
                node.spot,
                what,
                "write `auto`, or the names in brackets: [sshd, sudo]",
            );
            None
        }
    }
}

pub(super) fn zone(text: &str) -> Result<Zone, UnitError> {
    if text == "system" {
        return Ok(Zone::System);
    }
    let zone = Zone::Named(text.to_owned());
    zone.time_zone().map(|_| zone).map_err(|_| UnitError {
        what: format!("`{}` is not a time zone", text.escape_debug()),
        hint: "write an IANA name, such as UTC or Europe/Berlin".to_owned(),
    })
}

fn pack_dirs(top: &mut Section<'_>) -> Option<Vec<Located<std::path::PathBuf>>> {
    let texts = top.texts("pack_dirs")?;
    Some(
        texts
            .into_iter()
            .filter_map(|text| top.read_located("pack_dirs", text, common::absolute))
            .collect(),
    )
}

fn spool(mut section: Section<'_>) -> SpoolConfig {
    let base = SpoolConfig::default();
    let words = [("wait", WhenFull::Wait), ("drop_newest", WhenFull::DropNewest)];
    let spool = SpoolConfig {
        // Below 4 MiB two of the spool's own segments do not fit; above 1 TiB somebody slipped.
        max_bytes: section
            .size("max_bytes", ByteSize::mib(4)..=ByteSize::mib(1 << 20))
            .unwrap_or(base.max_bytes),
        when_full: section.choice("when_full", &words).unwrap_or(base.when_full),
        linger: section
            .period("linger", Period::from_millis(0)..=Period::seconds(10))
            .unwrap_or(base.linger),
        free_space_floor: section
            .size("free_space_floor", ByteSize::from_bytes(0)..=ByteSize::mib(1 << 20))
            .unwrap_or(base.free_space_floor),
    };
    section.finish();
    spool
}

fn outputs(top: &mut Section<'_>, credentials: Option<&Path>) -> Vec<OutputConfig> {
    let mut ids = Ids::default();
    let mut outputs = Vec::new();
    for node in at_least_one(top, "outputs") {
        let mut item = top.reader().section(node, "outputs[]");
        if kind(&mut item, &["custody"], &LATER_OUTPUTS).is_none() {
            item.give_up();
            continue;
        }
        let custody = custody_output(&mut item, credentials);
        ids.note(&item, &custody.id);
        item.finish();
        outputs.push(OutputConfig::Custody(custody));
    }
    outputs
}

fn custody_output(item: &mut Section<'_>, credentials: Option<&Path>) -> CustodyOutputConfig {
    let base = CustodyOutputConfig::default();
    let insecure = item.boolean("insecure").unwrap_or(base.insecure);
    let (proxy, proxy_user, proxy_password_file) = proxy(item, credentials);
    CustodyOutputConfig {
        proxy,
        proxy_user,
        proxy_password_file,
        id: need_id(item).unwrap_or(base.id),
        endpoints: endpoints(item, insecure),
        enroll_token_file: secret_file(item, "enroll_token_file", credentials),
        token_file: secret_file(item, "token_file", credentials),
        tls: client_tls(item.section("tls"), credentials),
        compression: item
            .choice("compression", &[("none", Compression::None)])
            .unwrap_or(base.compression),
        timeout: item
            .period("timeout", Period::seconds(1)..=Period::seconds(600))
            .unwrap_or(base.timeout),
        max_backoff: item
            .period("max_backoff", Period::from_millis(100)..=Period::seconds(3600))
            .unwrap_or(base.max_backoff),
        in_flight: item.number("in_flight", 1..=64).unwrap_or(base.in_flight),
        insecure,
    }
}

type Proxy = (Option<Located<Endpoint>>, Option<Located<String>>, Option<SecretFile>);

/// The proxy, and how the agent shows itself to it: all of that or none.
fn proxy(item: &mut Section<'_>, credentials: Option<&Path>) -> Proxy {
    let proxy = item.parsed("proxy", Endpoint::parse);
    let user = item.text("proxy_user");
    let password = secret_file(item, "proxy_password_file", credentials);
    let reader = item.reader();
    if let (Some(user), None) = (&user, &password) {
        let problem = user.problem("a user without a password", "add `proxy_password_file`");
        reader.problem(problem);
    }
    if let (None, Some(password)) = (&user, &password) {
        let problem = password.located().problem("a password without a user", "add `proxy_user`");
        reader.problem(problem);
    }
    if let (None, Some(user)) = (&proxy, &user) {
        reader.problem(user.problem("a user of no proxy", "add `proxy: http://host:port`"));
    }
    (proxy, user, password)
}

fn endpoints(item: &mut Section<'_>, insecure: bool) -> Vec<Located<Endpoint>> {
    let Some((spot, nodes)) = item.list_or_missing("endpoints") else { return Vec::new() };
    if nodes.is_empty() {
        item.reader().at(spot, "`outputs[].endpoints` is empty", "name the collector's address");
    }
    let texts: Vec<_> =
        nodes.into_iter().filter_map(|node| item.item_text("endpoints", node)).collect();
    let endpoints: Vec<_> = texts
        .into_iter()
        .filter_map(|text| item.read_located("endpoints", text, Endpoint::parse))
        .collect();
    for endpoint in endpoints.iter().filter(|e| !e.get().is_secure() && !e.get().is_loopback()) {
        let shown = endpoint.get();
        let what = format!(
            "{shown} is plain HTTP to another machine: events and token could be read and changed on the way"
        );
        if insecure {
            item.reader().warn(
                endpoint.problem(what, "allowed by `insecure: true`; https:// would protect them"),
            );
        } else {
            item.reader().problem(
                endpoint.problem(
                    what,
                    "write https://, or allow it with `insecure: true` in this output",
                ),
            );
        }
    }
    endpoints
}

fn client_tls(mut section: Section<'_>, credentials: Option<&Path>) -> ClientTls {
    let tls = ClientTls {
        ca_file: file_or_credential(&mut section, "ca_file", credentials),
        cert_file: file_or_credential(&mut section, "cert_file", credentials),
        key_file: secret_file(&mut section, "key_file", credentials),
    };
    if let (Some(cert), None) = (&tls.cert_file, &tls.key_file) {
        section.reader().problem(cert.problem("a certificate needs its key", "add `key_file`"));
    }
    if let (None, Some(key)) = (&tls.cert_file, &tls.key_file) {
        section
            .reader()
            .problem(key.located().problem("a key needs its certificate", "add `cert_file`"));
    }
    section.finish();
    tls
}

fn admin(mut section: Section<'_>) -> AdminConfig {
    let base = AdminConfig::default();
    let admin = AdminConfig {
        socket: section.parsed("socket", common::absolute).unwrap_or(base.socket),
        metrics: section.parsed("metrics", common::address),
    };
    // sun_path of unix(7) holds 108 bytes with its NUL.
    if admin.socket.get().as_os_str().len() > 107 {
        section.reader().problem(
            admin
                .socket
                .problem("the socket's path is longer than 107 bytes", "choose a shorter one"),
        );
    }
    if let Some(metrics) = admin.metrics.as_ref().filter(|m| !m.get().ip().is_loopback()) {
        section.reader().warn(metrics.problem(
            format!("metrics are served to everyone who reaches {}", metrics.get()),
            "listen on 127.0.0.1, or let a firewall choose who may ask",
        ));
    }
    section.finish();
    admin
}

fn sandbox(mut section: Section<'_>) -> SandboxConfig {
    let base = SandboxConfig::default();
    let words = [("auto", LandlockMode::Auto), ("off", LandlockMode::Off)];
    let landlock = section.choice("landlock", &words).unwrap_or(base.landlock);
    let texts = section.texts("read").unwrap_or_default();
    let read = texts
        .into_iter()
        .filter_map(|text| section.read_located("read", text, common::absolute))
        .collect();
    section.finish();
    SandboxConfig { landlock, read }
}
