//! `custody-collector init`: an authority of one's own and a server certificate by it, for a first installation.
//!
//! Four files, none of which may be there already: `ca.pem`, which agents trust; `ca.key`, which signs, and which belongs
//! somewhere safe and not on this host; `collector.pem` and `collector.key`, which the collector serves with. Keys are ECDSA P-256 and
//! are made here. Called again with `--renew`, it makes a new server certificate by the same authority; a reload takes it.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use custody_config::shell::{Exit, Failure, SystemClock, check_clock};
use custody_event::{Clock, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::say;

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;
const AUTHORITY_DAYS: i64 = 3650;
/// Agents whose clock is a little behind take it all the same.
const BEFORE_DAYS: i64 = 1;

/// Arguments of `init`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sudo custody-collector init --name custody.example.org --dns collector.example.org\n\nThen copy ca.pem to the agents, and keep ca.key somewhere safe."
)]
pub struct InitArgs {
    /// The name of the installation: the authority carries it
    #[arg(long)]
    name: String,
    /// Names under which agents reach the collector
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    dns: Vec<String>,
    /// Addresses under which agents reach it
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    ip: Vec<IpAddr>,
    /// Where the files go
    #[arg(long, value_name = "DIR", default_value = "/etc/custody")]
    dir: PathBuf,
    /// How long the server certificate is good
    #[arg(long, default_value_t = 397, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
    /// Make a new server certificate by the authority that is there
    #[arg(long)]
    renew: bool,
}

/// Makes the files and says what to do with them.
///
/// # Errors
/// Files are there already (or, with `--renew`, not there), or cannot be written.
pub fn init(args: &InitArgs) -> anyhow::Result<Exit> {
    if args.dns.is_empty() && args.ip.is_empty() {
        let what = "name at least one --dns or --ip: agents refuse a certificate for other names";
        return Err(Failure::new(Exit::Usage, what).into());
    }
    let clock = SystemClock::new();
    check_clock(&clock)?;
    let now = clock.now();
    let files = Files::in_dir(&args.dir);
    std::fs::create_dir_all(&args.dir).with_context(|| args.dir.display().to_string())?;
    let issuer = if args.renew {
        files.old_authority(args, now)?
    } else {
        files.new_authority(args, now)?
    };
    let (cert, key) = server(args, &issuer, now)?;
    put(&files.key, &key, 0o600, args.renew)?;
    put(&files.cert, &cert, 0o644, args.renew)?;
    say(&told(args, &files))?;
    Ok(Exit::Good)
}

struct Files {
    ca: PathBuf,
    ca_key: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn in_dir(dir: &Path) -> Self {
        Self {
            ca: dir.join("ca.pem"),
            ca_key: dir.join("ca.key"),
            cert: dir.join("collector.pem"),
            key: dir.join("collector.key"),
        }
    }

    fn new_authority(
        &self,
        args: &InitArgs,
        now: Timestamp,
    ) -> anyhow::Result<Issuer<'static, KeyPair>> {
        let all = [&self.ca, &self.ca_key, &self.cert, &self.key];
        for path in all {
            if path.try_exists().with_context(|| path.display().to_string())? {
                let what = format!(
                    "{} is there already: nothing was made (hint: --renew makes a new server certificate by the authority that is there; or name another --dir)",
                    path.display()
                );
                return Err(Failure::new(Exit::No, what).into());
            }
        }
        let params = authority(&args.name, now);
        let key = KeyPair::generate()?;
        put(&self.ca_key, &key.serialize_pem(), 0o600, false)?;
        put(&self.ca, &params.self_signed(&key)?.pem(), 0o644, false)?;
        Ok(Issuer::new(params, key))
    }

    /// The authority that is there. What it signs names it by `--name`, which must be the one that it was made with.
    fn old_authority(
        &self,
        args: &InitArgs,
        now: Timestamp,
    ) -> anyhow::Result<Issuer<'static, KeyPair>> {
        let unreadable = |path: &Path, error: &dyn std::fmt::Display| {
            let what = format!("{}: {error} (--renew needs the authority)", path.display());
            Failure::new(Exit::NoInput, what)
        };
        let key = std::fs::read_to_string(&self.ca_key)
            .map_err(|error| unreadable(&self.ca_key, &error))?;
        let key = KeyPair::from_pem(&key).map_err(|error| unreadable(&self.ca_key, &error))?;
        let ca = CertificateDer::from_pem_file(&self.ca)
            .map_err(|error| unreadable(&self.ca, &error))?;
        let name = authority_name(&args.name);
        if !ca.windows(name.len()).any(|part| part == name.as_bytes()) {
            let what =
                format!("{} is not of {name:?}: --name must be as it was", self.ca.display());
            return Err(Failure::new(Exit::Usage, what).into());
        }
        Ok(Issuer::new(authority(&args.name, now), key))
    }
}

fn authority_name(name: &str) -> String {
    format!("{name} CA")
}

fn authority(name: &str, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&authority_name(name));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    span(&mut params, now, AUTHORITY_DAYS);
    params
}

/// Certificate and key, in PEM.
fn server(
    args: &InitArgs,
    issuer: &Issuer<'_, KeyPair>,
    now: Timestamp,
) -> anyhow::Result<(String, String)> {
    let mut names = args.dns.clone();
    names.extend(args.ip.iter().map(IpAddr::to_string));
    let mut params = CertificateParams::new(names).context("--dns")?;
    params.distinguished_name = named(args.dns.first().unwrap_or(&args.name));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    span(&mut params, now, i64::from(args.days));
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

fn span(params: &mut CertificateParams, now: Timestamp, days: i64) {
    let day = |at: Timestamp| {
        let civil = at.civil();
        rcgen::date_time_ymd(civil.year, civil.month, civil.day)
    };
    params.not_before = day(now.plus_micros(-BEFORE_DAYS * DAY_MICROS));
    params.not_after = day(now.plus_micros(days * DAY_MICROS));
}

/// Writes a file that must not be there, or (`replace`) takes the place of one in one step.
fn put(path: &Path, text: &str, mode: u32, replace: bool) -> anyhow::Result<()> {
    let at = if replace { path.with_extension("new") } else { path.to_owned() };
    let write = || -> std::io::Result<()> {
        if replace {
            match std::fs::remove_file(&at) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&at)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if replace { std::fs::rename(&at, path) } else { Ok(()) }
    };
    write().map_err(|error| {
        Failure::because(Exit::Io, format!("cannot write {}", path.display()), error).into()
    })
}

fn told(args: &InitArgs, files: &Files) -> String {
    let (ca, ca_key) = (files.ca.display(), files.ca_key.display());
    let (cert, key) = (files.cert.display(), files.key.display());
    if args.renew {
        return format!("{cert} and {key} are new: systemctl restart custody-collector\n");
    }
    let at = args.dns.first().cloned().unwrap_or_else(|| match args.ip.first() {
        Some(IpAddr::V6(address)) => format!("[{address}]"),
        Some(address) => address.to_string(),
        None => args.name.clone(),
    });
    format!(
        "{ca}       agents trust this: copy it to each\n\
         {ca_key}       signs certificates: take it off this host and keep it safe\n\
         {cert}, {key}: the collector's own\n\n\
         in the collector's configuration:\n\
         \x20 listen: \"[::]:8600\"\n\
         \x20 tls: {{ cert_file: {cert}, key_file: collector.key }}\n\
         for the key (systemctl edit custody-collector):\n\
         \x20 [Service]\n\
         \x20 LoadCredential=collector.key:{key}\n\
         at the agents, under outputs:\n\
         \x20 endpoints: [\"https://{at}:8600\"]\n\
         \x20 tls: {{ ca_file: {ca} }}\n"
    )
}
