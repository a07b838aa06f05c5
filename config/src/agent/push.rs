//! Sources that are pushed to, syslog and webhooks: their sections of `agent.yaml`.

use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;

use super::read::{need_id, packs, zone};
use super::{AgentConfig, Packs, RedactConfig, SourceConfig, Zone};
use crate::collector::{ServerTls, server_tls};
use crate::common;
use crate::place::Located;
use crate::secret::{SecretFile, secret_files};
use crate::section::{Reader, Section};
use crate::units::{ByteSize, Period, UnitError};

/// Syslog messages over the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SyslogSourceConfig {
    /// The id, unique among the sources.
    pub id: Located<String>,
    /// Where it listens.
    pub listen: Located<SocketAddr>,
    /// How messages come.
    pub protocol: Protocol,
    /// How it shows itself; for `protocol: tls`, and only there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// The rule packs that are tried.
    pub packs: Packs,
    /// The zone of timestamps that name none.
    pub timezone: Zone,
    /// What is redacted, beside what is by default.
    pub redact: RedactConfig,
    /// A longer message arrives as numbered segments of this many bytes.
    pub max_message_bytes: ByteSize,
    /// Connections at once, of all peers.
    pub max_connections: u32,
    /// Connections at once of one address.
    pub max_connections_per_peer: u32,
    /// What one address may send in a second on the average: more is not read (TCP), or dropped and counted (UDP). 0: as much as it likes.
    pub max_bytes_per_second: ByteSize,
    /// A connection that is silent for so long is closed.
    pub idle_timeout: Period,
}

/// How syslog messages come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// One message a datagram (RFC 5426). What the kernel drops is a gap.
    Udp,
    /// A stream (RFC 6587): octets counted, or a message a line.
    Tcp,
    /// The same over TLS (RFC 5425).
    Tls,
}

impl Default for SyslogSourceConfig {
    fn default() -> Self {
        Self {
            id: Located::default_of(String::new()),
            listen: Located::default_of(SocketAddr::from(([127, 0, 0, 1], 5514))),
            protocol: Protocol::Tcp,
            tls: None,
            packs: Packs::Auto,
            timezone: Zone::System,
            redact: RedactConfig::default(),
            max_message_bytes: ByteSize::kib(16),
            max_connections: 256,
            max_connections_per_peer: 64,
            max_bytes_per_second: ByteSize::from_bytes(0),
            idle_timeout: Period::seconds(3600),
        }
    }
}

/// Where webhooks are received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WebhookConfig {
    /// Where it listens. Anything but loopback needs `tls`.
    pub listen: Located<SocketAddr>,
    /// How it shows itself; plain HTTP where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// Connections at once.
    pub max_connections: u32,
    /// A sender whose records are not durable after so long is told 503, to come again.
    pub answer_within: Period,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            listen: Located::default_of(SocketAddr::from(([127, 0, 0, 1], 8480))),
            tls: None,
            max_connections: 512,
            answer_within: Period::seconds(10),
        }
    }
}

/// One endpoint for one kind of sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WebhookSourceConfig {
    /// The id, unique among the sources.
    pub id: Located<String>,
    /// The path of its URL; unique.
    pub path: Located<String>,
    /// How its sender is recognised.
    pub verify: VerifyConfig,
    /// The rule packs that are tried.
    pub packs: Packs,
    /// The zone of timestamps that name none.
    pub timezone: Zone,
    /// What is redacted, beside what is by default.
    pub redact: RedactConfig,
    /// A larger body is refused, also where it becomes so large only when it is unpacked.
    pub max_body_bytes: ByteSize,
    /// The list in a JSON body whose elements are a record each: `data.events`. A body that is a list is always cut so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub split: String,
    /// Deliveries that are remembered, so that one that comes again is not stored again.
    pub remember: u32,
}

impl Default for WebhookSourceConfig {
    fn default() -> Self {
        Self {
            id: Located::default_of(String::new()),
            path: Located::default_of(String::new()),
            verify: VerifyConfig::default(),
            packs: Packs::Auto,
            timezone: Zone::System,
            redact: RedactConfig::default(),
            max_body_bytes: ByteSize::mib(1),
            split: String::new(),
            remember: 10_000,
        }
    }
}

/// How a sender is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyConfig {
    /// The vendor's or a general scheme.
    pub scheme: Scheme,
    /// A secret each; any of them will do, so that they can be changed without a gap.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret_files: Vec<SecretFile>,
    /// `hmac`: the header of the signature. `bearer`: the header of the token in place of `Authorization`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub header: String,
    /// `hmac`: what stands before the signature in its header.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// `hmac`: how the signature is written.
    pub encoding: Encoding,
    /// The header with the delivery's id, where the scheme does not know it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id_header: String,
    /// The URL as the sender knows it (`twilio` signs it).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// How far a signed time may be from ours.
    pub tolerance: Period,
}

impl Default for VerifyConfig {
    fn default() -> Self {
        Self {
            scheme: Scheme::Hmac,
            secret_files: Vec::new(),
            header: String::new(),
            prefix: String::new(),
            encoding: Encoding::Hex,
            id_header: String::new(),
            url: String::new(),
            tolerance: Period::seconds(300),
        }
    }
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Hex digits.
    Hex,
    /// Base64.
    Base64,
}

/// The schemes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// `Authorization: Basic`; the secret is `user:password`.
    Basic,
    /// `Authorization: Bearer`, or a header of its own.
    Bearer,
    /// `X-Hub-Signature-256`.
    Github,
    /// `X-Gitlab-Token`, and the Standard Webhooks signature where there is one.
    Gitlab,
    /// HMAC-SHA256 of the body in a header.
    Hmac,
    /// Microsoft Graph: `clientState` in every notification, and the handshake.
    MicrosoftGraph,
    /// Nobody is recognised: only on loopback, or behind client certificates.
    None,
    /// Okta event hooks: a secret in `Authorization`, and the handshake.
    Okta,
    /// `X-PagerDuty-Signature`.
    Pagerduty,
    /// `X-Twilio-Email-Event-Webhook-Signature`: the secret is the public key.
    Sendgrid,
    /// `X-Shopify-Hmac-Sha256`.
    Shopify,
    /// `X-Slack-Signature`.
    Slack,
    /// `webhook-signature`.
    StandardWebhooks,
    /// `Stripe-Signature`.
    Stripe,
    /// `X-Twilio-Signature` over the URL and the form.
    Twilio,
}

/// The schemes' names.
const SCHEMES: [(&str, Scheme); 15] = [
    ("basic", Scheme::Basic),
    ("bearer", Scheme::Bearer),
    ("github", Scheme::Github),
    ("gitlab", Scheme::Gitlab),
    ("hmac", Scheme::Hmac),
    ("microsoft_graph", Scheme::MicrosoftGraph),
    ("none", Scheme::None),
    ("okta", Scheme::Okta),
    ("pagerduty", Scheme::Pagerduty),
    ("sendgrid", Scheme::Sendgrid),
    ("shopify", Scheme::Shopify),
    ("slack", Scheme::Slack),
    ("standard_webhooks", Scheme::StandardWebhooks),
    ("stripe", Scheme::Stripe),
    ("twilio", Scheme::Twilio),
];

pub(super) fn syslog_source(
    item: &mut Section<'_>,
    credentials: Option<&Path>,
) -> SyslogSourceConfig {
    let base = SyslogSourceConfig::default();
    let words = [("udp", Protocol::Udp), ("tcp", Protocol::Tcp), ("tls", Protocol::Tls)];
    item.must_have("listen");
    let source = SyslogSourceConfig {
        id: need_id(item).unwrap_or(base.id),
        listen: item.parsed("listen", common::address).unwrap_or(base.listen),
        protocol: item.choice("protocol", &words).unwrap_or(base.protocol),
        tls: item.optional_section("tls").and_then(|section| server_tls(section, credentials)),
        packs: packs(item).unwrap_or(base.packs),
        timezone: item.parsed("timezone", zone).map_or(base.timezone, Located::into_inner),
        redact: super::redact::redact(item),
        max_message_bytes: item
            .size(
                "max_message_bytes",
                ByteSize::from_bytes(480)
                    ..=ByteSize::from_bytes(custody_event::MAX_RAW_BYTES as u64),
            )
            .unwrap_or(base.max_message_bytes),
        max_connections: item.number("max_connections", 1..=4096).unwrap_or(base.max_connections),
        max_connections_per_peer: item
            .number("max_connections_per_peer", 1..=4096)
            .unwrap_or(base.max_connections_per_peer),
        max_bytes_per_second: item
            .size("max_bytes_per_second", ByteSize::from_bytes(0)..=ByteSize::mib(1 << 20))
            .unwrap_or(base.max_bytes_per_second),
        idle_timeout: item
            .period("idle_timeout", Period::seconds(1)..=Period::days(30))
            .unwrap_or(base.idle_timeout),
    };
    check_syslog(item.reader(), &source, item.spot());
    source
}

fn check_syslog(reader: &Reader, source: &SyslogSourceConfig, spot: crate::tree::Spot) {
    match (source.protocol, &source.tls) {
        (Protocol::Tls, None) => reader.at(
            spot,
            "`protocol: tls` needs a certificate",
            "add `tls: { cert_file: …, key_file: … }`",
        ),
        (Protocol::Udp | Protocol::Tcp, Some(_)) => reader.at(
            spot,
            "`tls` is there and `protocol` is not `tls`",
            "write `protocol: tls`, or remove `tls`",
        ),
        (Protocol::Udp | Protocol::Tcp, None) if !source.listen.get().ip().is_loopback() => {
            reader.warn(source.listen.problem(
                format!(
                    "{} takes syslog from everyone who reaches it, in the clear",
                    source.listen.get()
                ),
                "use `protocol: tls` with a `client_ca_file`, or let a firewall choose who may send",
            ));
        }
        _ => {}
    }
}

pub(super) fn webhook(mut section: Section<'_>, credentials: Option<&Path>) -> WebhookConfig {
    let base = WebhookConfig::default();
    let webhook = WebhookConfig {
        listen: section.parsed("listen", common::address).unwrap_or(base.listen),
        tls: section.optional_section("tls").and_then(|section| server_tls(section, credentials)),
        max_connections: section
            .number("max_connections", 1..=65_535)
            .unwrap_or(base.max_connections),
        answer_within: section
            .period("answer_within", Period::from_millis(100)..=Period::seconds(300))
            .unwrap_or(base.answer_within),
    };
    section.finish();
    webhook
}

/// What concerns the listener and its endpoints together.
pub(super) fn check_webhooks(reader: &Reader, config: &AgentConfig) {
    let WebhookConfig { listen, tls, .. } = &config.webhook;
    if tls.is_none() && !listen.get().ip().is_loopback() {
        reader.problem(listen.problem(
            format!(
                "{} is not loopback, and there is no `webhook.tls`: what is sent could be read and changed on the way",
                listen.get()
            ),
            "add `tls: { cert_file: …, key_file: … }`, or listen on 127.0.0.1",
        ));
    }
    let guarded = listen.get().ip().is_loopback()
        || tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
    let mut seen: Vec<&Located<String>> = Vec::new();
    for source in &config.sources {
        let SourceConfig::Webhook(source) = source else { continue };
        if let Some(first) = seen.iter().find(|path| path.get() == source.path.get()) {
            reader.problem(source.path.problem(
                format!("the path `{}` is used twice", source.path.get()),
                format!("the first is at {}; give each its own", first.place()),
            ));
        }
        seen.push(&source.path);
        if source.verify.scheme == Scheme::None && !guarded {
            reader.problem(source.path.problem(
                "`scheme: none` takes records from everyone",
                "choose a scheme, listen on 127.0.0.1, or ask for client certificates",
            ));
        }
    }
}

pub(super) fn webhook_source(
    item: &mut Section<'_>,
    credentials: Option<&Path>,
) -> WebhookSourceConfig {
    let base = WebhookSourceConfig::default();
    item.must_have("path");
    item.must_have("verify");
    WebhookSourceConfig {
        id: need_id(item).unwrap_or(base.id),
        path: item.parsed("path", url_path).unwrap_or(base.path),
        verify: verify(item.section("verify"), credentials),
        packs: packs(item).unwrap_or(base.packs),
        timezone: item.parsed("timezone", zone).map_or(base.timezone, Located::into_inner),
        redact: super::redact::redact(item),
        max_body_bytes: item
            .size("max_body_bytes", ByteSize::kib(1)..=ByteSize::mib(1))
            .unwrap_or(base.max_body_bytes),
        split: item.parsed("split", dotted).map_or(base.split, Located::into_inner),
        remember: item.number("remember", 0..=1_000_000).unwrap_or(base.remember),
    }
}

fn verify(mut section: Section<'_>, credentials: Option<&Path>) -> VerifyConfig {
    let base = VerifyConfig::default();
    section.must_have("scheme");
    let header = |section: &mut Section<'_>, key| {
        section.parsed(key, header_name).map(Located::into_inner).unwrap_or_default()
    };
    let verify = VerifyConfig {
        scheme: section.choice("scheme", &SCHEMES).unwrap_or(base.scheme),
        secret_files: secret_files(&mut section, "secret_files", credentials),
        header: header(&mut section, "header"),
        prefix: section.text("prefix").map(Located::into_inner).unwrap_or_default(),
        encoding: section
            .choice("encoding", &[("hex", Encoding::Hex), ("base64", Encoding::Base64)])
            .unwrap_or(base.encoding),
        id_header: header(&mut section, "id_header"),
        url: section.text("url").map(Located::into_inner).unwrap_or_default(),
        tolerance: section
            .period("tolerance", Period::seconds(1)..=Period::days(1))
            .unwrap_or(base.tolerance),
    };
    check_verify(&section, &verify);
    section.finish();
    verify
}

fn check_verify(section: &Section<'_>, verify: &VerifyConfig) {
    let at = |what: &str, hint: &str| section.reader().at(section.spot(), what, hint);
    match verify.scheme {
        Scheme::None if !verify.secret_files.is_empty() => {
            at("`scheme: none` has no secret", "remove `secret_files`, or name the scheme");
        }
        Scheme::None => {}
        _ if verify.secret_files.is_empty() => {
            at("this scheme needs a secret", "add `secret_files: [/etc/custody/NAME.secret]`");
        }
        Scheme::Hmac if verify.header.is_empty() => {
            at("`scheme: hmac` needs the header of the signature", "add `header: X-Signature`");
        }
        Scheme::Twilio if verify.url.is_empty() => {
            at("`scheme: twilio` signs the URL", "add `url: https://…`, as it was given to Twilio");
        }
        _ => {}
    }
}

fn url_path(text: &str) -> Result<String, UnitError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '~');
    if text.starts_with('/') && text.len() <= 256 && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(UnitError {
        what: format!("`{}` is not the path of a URL", text.escape_debug()),
        hint: "begin it with / and use letters, digits, / - _ . ~".to_owned(),
    })
}

fn header_name(text: &str) -> Result<String, UnitError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if (1..=128).contains(&text.len()) && text.chars().all(plain) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(UnitError {
        what: format!("`{}` is not the name of a header", text.escape_debug()),
        hint: "such as X-Signature".to_owned(),
    })
}

fn dotted(text: &str) -> Result<String, UnitError> {
    if (1..=256).contains(&text.len()) && text.split('.').all(|part| !part.is_empty()) {
        return Ok(text.to_owned());
    }
    Err(UnitError {
        what: format!("`{}` is not the path of a list", text.escape_debug()),
        hint: "write the members' names with dots between them: data.events".to_owned(),
    })
}
