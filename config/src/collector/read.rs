//! Reading the sections of `collector.yaml`.

use std::net::SocketAddr;
use std::path::Path;

use custody_event::taxonomy::{CATEGORIES, SEVERITIES};

use super::{
    BlocksConfig, ClientCertificates, CollectorConfig, CollectorOverrides, CollectorTls,
    ExportsConfig, IndexConfig, LimitsConfig, RetentionClass, RetentionConfig, SearchConfig,
    ServerTls, SpaceConfig, TenantQuota,
};
use crate::common;
use crate::load::Env;
use crate::place::{Located, Place, Problem};
use crate::secret::{file_or_credential, secret_file};
use crate::section::{Reader, Section, one_of};
use crate::tree::Node;
use crate::units::{ByteSize, Keep, Period, UnitError};

pub(super) fn collector(
    top: &mut Section<'_>,
    overrides: &CollectorOverrides,
    env: &Env,
) -> Option<CollectorConfig> {
    let hostname = if env.hostname.is_empty() { "localhost" } else { &env.hostname };
    let base = CollectorConfig::with_defaults(hostname);
    let credentials = env.credentials_dir.as_deref();
    let config = CollectorConfig {
        data_dir: common::data_dir(top, overrides.data_dir.as_ref(), base.data_dir),
        listen: listen(top, overrides, base.listen),
        tls: top.optional_section("tls").and_then(|section| collector_tls(section, credentials)),
        oidc: top
            .optional_section("oidc")
            .and_then(|section| super::oidc::oidc(section, credentials)),
        name: top.parsed("name", origin).unwrap_or(base.name),
        index: index(top.section("index")).unwrap_or(base.index),
        search: search(top.section("search")),
        blocks: blocks(top.section("blocks")).unwrap_or(base.blocks),
        retention: retention(top.section("retention")),
        exports: exports(top.section("exports")),
        archive: top
            .optional_section("archive")
            .and_then(|section| super::archive::archive(section, credentials)),
        anchors: top.optional_section("anchors").and_then(super::anchors::anchors),
        space: space(top.section("space")),
        limits: limits(top.section("limits")),
        log: common::log(top.section("log"), overrides.log_level),
    };
    if config.tls.is_none() && !config.listen.get().ip().is_loopback() {
        refuse_plain_http(top.reader(), &config.listen);
    }
    Some(config)
}

fn refuse_plain_http(reader: &Reader, listen: &Located<SocketAddr>) {
    reader.problem(listen.problem(
        format!("{} is not loopback, and there is no `tls`: events and tokens could be read and changed on the way", listen.get()),
        "add `tls: { cert_file: …, key_file: … }`, or listen on 127.0.0.1",
    ));
}

fn listen(
    top: &mut Section<'_>,
    overrides: &CollectorOverrides,
    default: Located<SocketAddr>,
) -> Located<SocketAddr> {
    let written = top.parsed("listen", common::address).unwrap_or(default);
    let Some(text) = &overrides.listen else { return written };
    let place = Place::Option("--listen");
    match common::address(text) {
        Ok(address) => Located::new(address, place),
        Err(error) => {
            top.reader().problem(Problem::new(place, error.what, error.hint));
            written
        }
    }
}

pub(crate) fn server_tls(
    mut section: Section<'_>,
    credentials: Option<&Path>,
) -> Option<ServerTls> {
    let tls = listener_tls(&mut section, credentials);
    section.finish();
    tls
}

fn listener_tls(section: &mut Section<'_>, credentials: Option<&Path>) -> Option<ServerTls> {
    for key in ["cert_file", "key_file"] {
        section.must_have(key);
    }
    let cert_file = file_or_credential(section, "cert_file", credentials);
    let key_file = secret_file(section, "key_file", credentials);
    let client_ca_file = file_or_credential(section, "client_ca_file", credentials);
    Some(ServerTls { cert_file: cert_file?, key_file: key_file?, client_ca_file })
}

/// A certificate that the collector signs is good for so long: two thirds of it are a summer's absence.
const CLIENT_CERTIFICATE_LIFE: Period = Period::days(90);

fn collector_tls(mut section: Section<'_>, credentials: Option<&Path>) -> Option<CollectorTls> {
    let server = listener_tls(&mut section, credentials);
    let client_ca_key_file = secret_file(&mut section, "client_ca_key_file", credentials);
    let words = [
        ("off", ClientCertificates::Off),
        ("optional", ClientCertificates::Optional),
        ("required", ClientCertificates::Required),
    ];
    let asked = section.choice("client_certificates", &words);
    // Below ten seconds an agent would do nothing but renew.
    let lives = Period::seconds(10)..=Period::days(3_650);
    let life = section.period("client_certificate_life", lives);
    let named = server.as_ref().is_some_and(|server| server.client_ca_file.is_some());
    if let Some(key) = client_ca_key_file.as_ref().filter(|_| !named) {
        section.reader().problem(key.located().problem(
            "the key of an authority without its certificate",
            "add `client_ca_file`, or leave both out: then the collector makes an authority of its own",
        ));
    }
    section.finish();
    // Whoever names an authority has always meant that its certificates are needed.
    let default = if named { ClientCertificates::Required } else { ClientCertificates::Optional };
    Some(CollectorTls {
        server: server?,
        client_ca_key_file,
        client_certificates: asked.unwrap_or(default),
        client_certificate_life: life.unwrap_or(CLIENT_CERTIFICATE_LIFE),
    })
}

/// The name of a log as a signed note can carry it: no white space and no plus sign (C2SP signed-note).
fn origin(text: &str) -> Result<String, UnitError> {
    if text.len() <= 255
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
    {
        return Ok(text.to_owned());
    }
    Err(UnitError {
        what: format!("`{}` cannot be the name of a log", text.escape_debug()),
        hint:
            "use at most 255 characters without spaces and plus signs, such as example.org/custody"
                .to_owned(),
    })
}

/// The `type` of a section that has one; `None` stands for the default or for a problem that was noted.
pub(super) fn kind<T: Copy>(
    section: &mut Section<'_>,
    built: &[(&'static str, T)],
    later: &[&str],
) -> Option<T> {
    let kind = section.text("type")?;
    if let Some((_, value)) = built.iter().find(|(word, _)| *word == kind.get()) {
        return Some(*value);
    }
    let mut known: Vec<&str> = built.iter().map(|(word, _)| *word).collect();
    if later.contains(&kind.get().as_str()) {
        common::not_built_yet(section, &kind, "type", &known.join(", "));
        section.entries();
    } else {
        known.extend(later);
        let what = format!("unknown type `{}`", kind.get().escape_debug());
        section.reader().problem(kind.problem(what, one_of(kind.get(), &known)));
    }
    None
}

fn index(mut section: Section<'_>) -> Option<IndexConfig> {
    let built = [("embedded", IndexConfig::Embedded), ("none", IndexConfig::None)];
    let index = kind(&mut section, &built, &["clickhouse"]);
    section.finish();
    index
}

fn search(mut section: Section<'_>) -> SearchConfig {
    let base = SearchConfig::default();
    let times = Period::from_millis(100)..=Period::seconds(300);
    let max_time = section.period("max_time", times).unwrap_or(base.max_time);
    let sizes = ByteSize::mib(1)..=ByteSize::mib(256);
    let max_answer_bytes = section.size("max_answer_bytes", sizes).unwrap_or(base.max_answer_bytes);
    section.finish();
    SearchConfig { max_time, max_answer_bytes }
}

fn blocks(mut section: Section<'_>) -> Option<BlocksConfig> {
    kind(&mut section, &[("local", ())], &["s3"]);
    // A segment is the unit that is verified, archived and dropped: neither a crumb nor a loaf.
    let segment_bytes = section.size("segment_bytes", ByteSize::mib(1)..=ByteSize::mib(2048));
    section.finish();
    segment_bytes.map(|segment_bytes| BlocksConfig::Local { segment_bytes })
}

/// Nothing is kept for less than a day or for more than this, but for ever.
pub(super) const LONGEST: Period = Period::days(36_500);

fn retention(mut section: Section<'_>) -> RetentionConfig {
    let base = RetentionConfig::default();
    let minimum = section.period("minimum", Period::days(1)..=LONGEST).unwrap_or(base.minimum);
    let default =
        keep(&mut section, "default", minimum).unwrap_or(base.default.max(Keep::For(minimum)));
    let nodes = section.list("classes").map(|(_, nodes)| nodes).unwrap_or_default();
    let reader = section.reader();
    let classes =
        nodes.into_iter().filter_map(|node| retention_class(reader, node, minimum)).collect();
    section.finish();
    RetentionConfig { default, minimum, classes }
}

/// A time to keep, not below the floor.
fn keep(section: &mut Section<'_>, key: &'static str, minimum: Period) -> Option<Keep> {
    let read = |text: &str| {
        let keep = Keep::parse(text)?;
        let (what, hint) = if keep < Keep::For(minimum) {
            let what = format!("`{text}` is below the floor of {minimum}");
            let hint = format!(
                "write {minimum} or more, or `forever`; `retention.minimum` sets the floor"
            );
            (what, hint)
        } else if keep > Keep::For(LONGEST) && keep != Keep::Forever {
            (format!("`{text}` is beyond {LONGEST}"), "write less, or `forever`".to_owned())
        } else {
            return Ok(keep);
        };
        Err(UnitError { what, hint })
    };
    section.parsed(key, read).map(Located::into_inner)
}

fn retention_class(reader: &Reader, node: Node, minimum: Period) -> Option<RetentionClass> {
    let mut item = reader.section(node, "retention.classes[]");
    item.must_have("keep");
    let severity = words(&mut item, "severity", |word| SEVERITIES.contains(&word), SEVERITIES);
    let category = words(&mut item, "category", custody_event::taxonomy::is_category, CATEGORIES);
    let tenant = item.texts("tenant").unwrap_or_default();
    let tenant: Vec<String> = tenant.into_iter().map(Located::into_inner).collect();
    let keep = keep(&mut item, "keep", minimum);
    if severity.is_empty() && category.is_empty() && tenant.is_empty() {
        item.reader().at(
            item.spot(),
            "a class of retention needs `severity`, `category` or `tenant`",
            "say which events it is about",
        );
    }
    item.finish();
    Some(RetentionClass { severity, category, tenant, keep: keep? })
}

fn space(mut section: Section<'_>) -> SpaceConfig {
    let base = SpaceConfig::default();
    let sizes = || ByteSize::from_bytes(0)..=ByteSize::mib(1024 * 1024);
    let space = SpaceConfig {
        archive_below: section.size("archive_below", sizes()).unwrap_or(base.archive_below),
        stop_below: section.size("stop_below", sizes()).unwrap_or(base.stop_below),
    };
    section.finish();
    space
}

fn words(
    item: &mut Section<'_>,
    key: &'static str,
    known: impl Fn(&str) -> bool,
    all: &[&str],
) -> Vec<String> {
    let texts = item.texts(key).unwrap_or_default();
    let check = |text: Located<String>| {
        if !known(text.get()) {
            let what = format!("unknown {key} `{}`", text.get().escape_debug());
            item.reader().problem(text.problem(what, one_of(text.get(), all)));
        }
        text.into_inner()
    };
    texts.into_iter().map(check).collect()
}

fn exports(mut section: Section<'_>) -> ExportsConfig {
    let base = ExportsConfig::default();
    let range = || Period::days(1)..=Period::days(36_500);
    let exports = ExportsConfig {
        keep: section
            .period("keep", Period::seconds(60)..=Period::days(3_650))
            .unwrap_or(base.keep),
        max_bytes: section
            .size("max_bytes", ByteSize::mib(1)..=ByteSize::mib(4_000_000))
            .unwrap_or(base.max_bytes),
        max_total_bytes: section
            .size("max_total_bytes", ByteSize::mib(1)..=ByteSize::mib(4_000_000))
            .unwrap_or(base.max_total_bytes),
        max_range: section.period("max_range", range()),
        max_age: section.period("max_age", range()),
        // Each reads the whole index: more at once would take from searches.
        at_once: section.number("at_once", 1..=4).unwrap_or(base.at_once),
        tenants: tenant_quotas(&mut section),
    };
    section.finish();
    exports
}

fn tenant_quotas(section: &mut Section<'_>) -> Vec<TenantQuota> {
    let nodes = section.list("tenants").map(|(_, nodes)| nodes).unwrap_or_default();
    let reader = section.reader();
    let range = || Period::days(1)..=Period::days(36_500);
    let mut quotas = Vec::new();
    for node in nodes {
        let mut item = reader.section(node, "exports.tenants[]");
        item.must_have("tenant");
        let tenant = item.texts("tenant").unwrap_or_default();
        let quota = TenantQuota {
            tenant: tenant.into_iter().map(Located::into_inner).collect(),
            max_range: item.period("max_range", range()),
            max_age: item.period("max_age", range()),
        };
        if quota.max_range.is_none() && quota.max_age.is_none() {
            let hint = "write `max_range`, `max_age` or both";
            item.reader().at(item.spot(), "this bounds nothing", hint);
        }
        item.finish();
        quotas.push(quota);
    }
    quotas
}

fn limits(mut section: Section<'_>) -> LimitsConfig {
    let base = LimitsConfig::default();
    let limits = LimitsConfig {
        max_block_bytes: section
            .size("max_block_bytes", ByteSize::kib(64)..=ByteSize::mib(64))
            .unwrap_or(base.max_block_bytes),
        max_event_bytes: section
            .size("max_event_bytes", ByteSize::kib(1)..=base.max_event_bytes)
            .unwrap_or(base.max_event_bytes),
        requests_per_minute: section.number("requests_per_minute", 1..=1_000_000),
    };
    section.finish();
    limits
}
