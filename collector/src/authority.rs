//! Signs the certificates by which agents show themselves.
//!
//! **Whose.** Where the configuration names none, the collector has an authority of its own for its agents and for nothing
//! else: `agents-ca.pem` and `agents-ca.key` (mode 0600) in the data directory, made at the first start with TLS. It signs no
//! server's certificate and nobody but this collector trusts it, so that the key of the installation's authority need not be
//! on this host. Otherwise it is `client_ca_file` with `client_ca_key_file`.
//!
//! **What is signed.** A public key (P-256) of which the agent keeps the secret, for `clientAuth` alone, with the agent's id as
//! its name. That the agent has the secret is shown in every handshake; that it is the agent, by the claim with which it asks
//! ([`custody_evidence::claim`]).
//!
//! **How long.** As `client_certificate_life` says, from a little before now: clocks of hosts differ.

use std::path::{Path, PathBuf};

use anyhow::Context;
use custody_config::shell::{Exit, Failure, x509};
use custody_event::{AgentId, Timestamp};
use custody_evidence::whole::{PRIVATE, PUBLIC, write_whole};
use rcgen::string::{Ia5String, PrintableString};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SignatureAlgorithm,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::serve::tls;

/// What stands before an agent's id in its certificate.
const NAME: &str = "urn:custody:agent:";
const AUTHORITY_NAME: &str = "Custody agents";
const AUTHORITY_DAYS: i64 = 3_650;
const DAY_US: i64 = 24 * 3_600 * 1_000_000;
/// An uncompressed point of P-256 (SEC 1 §2.3.3).
const POINT_BYTES: usize = 65;

/// See the module.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    life_us: i64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// PEM.
    pub pem: String,
    /// Good until then.
    pub until: Timestamp,
}

struct Point<'a>(&'a [u8]);

impl PublicKeyData for Point<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// The files of the collector's own authority.
#[must_use]
pub fn files_in(data_dir: &Path) -> [PathBuf; 2] {
    [data_dir.join("agents-ca.pem"), data_dir.join("agents-ca.key")]
}

/// The agent that a certificate names, if it names one.
#[must_use]
pub fn agent_of(certificate: &CertificateDer<'_>) -> Option<AgentId> {
    let read = webpki::EndEntityCert::try_from(certificate).ok()?;
    read.valid_uri_names().find_map(|name| name.strip_prefix(NAME)?.parse().ok())
}

impl Authority {
    /// The collector's own, made where there is none yet.
    ///
    /// # Errors
    /// A file cannot be read or written, or is not what it should be.
    pub fn own(data_dir: &Path, life_us: i64, now: Timestamp) -> anyhow::Result<Self> {
        let [cert, key] = files_in(data_dir);
        if !cert.try_exists().with_context(|| cert.display().to_string())? {
            let pair = KeyPair::generate()?;
            let made = authority(now).self_signed(&pair)?;
            // The key first: without the certificate it is made again.
            write_whole(&key, pair.serialize_pem().as_bytes(), PRIVATE)
                .and_then(|()| write_whole(&cert, made.pem().as_bytes(), PUBLIC))
                .with_context(|| cert.display().to_string())?;
            log::info!(certificate:% = cert.display(); "an authority for agents' certificates was made");
        }
        let pem = std::fs::read_to_string(&key).with_context(|| {
            format!(
                "{}, which signs agents' certificates (hint: put it back, or remove {} too: both are made anew, and agents get new certificates by themselves)",
                key.display(),
                cert.display()
            )
        })?;
        Self::of_files(&cert, &key, &pem, life_us, now)
    }

    /// The one of these files; `key_pem` is the text of the key's.
    ///
    /// # Errors
    /// They are not an authority's certificate and its key.
    pub fn of_files(
        cert: &Path,
        key: &Path,
        key_pem: &str,
        life_us: i64,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let wrong = |path: &Path, what: String| {
            Failure::new(Exit::Config, format!("{}: {what}", path.display()))
        };
        let certificate = CertificateDer::from_pem_file(cert)
            .map_err(|error| wrong(cert, format!("no certificate (PEM expected): {error}")))?;
        let pair = KeyPair::from_pem(key_pem)
            .map_err(|error| wrong(key, format!("no private key (PEM, PKCS #8): {error}")))?;
        let parts = x509::subject(&certificate).and_then(name_of);
        let name = parts.ok_or_else(|| {
            wrong(cert, "its name cannot be written into others (hint: make an authority with a plain common name)".to_owned())
        })?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = Self { issuer: Issuer::new(params, pair), certificate, life_us };
        authority.check(cert, now)?;
        Ok(authority)
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for the agent's public key.
    ///
    /// # Errors
    /// It is no point of P-256, or cannot be signed.
    pub fn sign(&self, agent: AgentId, point: &[u8], now: Timestamp) -> anyhow::Result<Certified> {
        anyhow::ensure!(
            point.len() == POINT_BYTES && point.first() == Some(&4),
            "tls_key: an uncompressed point of P-256 expected, 130 hex digits that begin with 04"
        );
        let mut params = CertificateParams::default();
        let name = Ia5String::try_from(format!("{NAME}{agent}"))?;
        params.subject_alt_names = vec![SanType::URI(name)];
        params.distinguished_name = common_name(&format!("custody-agent {agent}"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        // X.509 knows whole seconds.
        let until = now.plus_micros(self.life_us);
        let until = until.plus_micros(-until.micros().rem_euclid(1_000_000));
        span(&mut params, now.plus_micros(-(self.life_us / 10).min(DAY_US)), until);
        let signed = params.signed_by(&Point(point), &self.issuer)?;
        Ok(Certified { pem: signed.pem(), until })
    }

    /// Does the key belong to the certificate, and will what it signs be found to be by it?
    fn check(&self, cert: &Path, now: Timestamp) -> anyhow::Result<()> {
        let shown = cert.display();
        let pair = KeyPair::generate()?;
        let sample = self.sign(AgentId([0; 16]), pair.der_bytes(), now)?;
        let sample = CertificateDer::from_pem_slice(sample.pem.as_bytes())?;
        let config = |what: String| anyhow::Error::from(Failure::new(Exit::Config, what));
        if !x509::is_named_by(&self.certificate, &sample) {
            let what = format!(
                "{shown}: its name cannot be written into others byte for byte (hint: make an authority with a plain common name)"
            );
            return Err(config(what));
        }
        let ends = x509::dates(&self.certificate).map(|dates| dates.not_after);
        if ends.is_some_and(|ends| ends <= now) {
            let what = format!(
                "{shown} has ended (hint: put a new authority there; where it is the collector's own, remove it and its key: both are made anew, and agents get new certificates by themselves)"
            );
            return Err(config(what));
        }
        let verifier = tls::verifier([self.certificate.clone()])
            .map_err(|error| config(format!("{shown}: {error}")))?;
        let verified = verifier.verify_client_cert(&sample, &[], tls::unix_time(now));
        verified.map(drop).map_err(|error| {
            config(format!("{shown} and its key sign nothing that is good: {error} (hint: the key must be that certificate's, and the certificate an authority's)"))
        })
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

/// The same name as another certificate's; `None` where a part is of a kind that is not written here.
fn name_of(parts: Vec<x509::NamePart>) -> Option<DistinguishedName> {
    let mut name = DistinguishedName::new();
    for part in parts {
        let text = String::from_utf8(part.text).ok()?;
        let value = match part.tag {
            12 => DnValue::Utf8String(text),
            19 => DnValue::PrintableString(PrintableString::try_from(text).ok()?),
            22 => DnValue::Ia5String(Ia5String::try_from(text).ok()?),
            _ => return None,
        };
        name.push(DnType::from_oid(&part.kind), value);
    }
    Some(name)
}

fn authority(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    span(&mut params, now.plus_micros(-DAY_US), now.plus_micros(AUTHORITY_DAYS * DAY_US));
    params
}

fn span(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let instant = |at: Timestamp| {
        let civil = at.civil();
        let of_day = at.seconds().rem_euclid(24 * 3_600);
        let of_day = std::time::Duration::from_secs(u64::try_from(of_day).unwrap_or_default());
        rcgen::date_time_ymd(civil.year, civil.month, civil.day) + of_day
    };
    params.not_before = instant(from);
    params.not_after = instant(until);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE_US: i64 = 10 * DAY_US;
    const AGENT: AgentId = AgentId([7; 16]);

    fn now() -> Timestamp {
        Timestamp::parse("2026-03-04T05:06:07.000000Z").unwrap()
    }

    #[test]
    fn the_authority_is_made_once_and_what_it_signs_names_the_agent_and_its_dates() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::own(folder.path(), LIFE_US, now()).unwrap();
        let again = Authority::own(folder.path(), LIFE_US, now()).unwrap();
        assert_eq!(first.certificate(), again.certificate());
        let [_, key] = files_in(folder.path());
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let pair = KeyPair::generate().unwrap();
        let signed = again.sign(AGENT, pair.der_bytes(), now()).unwrap();
        let der = CertificateDer::from_pem_slice(signed.pem.as_bytes()).unwrap();
        assert_eq!(agent_of(&der), Some(AGENT));
        assert_eq!(agent_of(again.certificate()), None);
        let dates = x509::dates(&der).unwrap();
        assert_eq!(dates.not_after, signed.until);
        assert_eq!(dates.not_after.to_string(), "2026-03-14T05:06:07.000000Z");
        assert_eq!(dates.not_before.to_string(), "2026-03-03T05:06:07.000000Z");
        for wrong in [&pair.der_bytes()[1..], &[0; 65], &[]] {
            assert!(again.sign(AGENT, wrong, now()).is_err());
        }
    }

    #[test]
    fn a_key_of_another_and_an_authority_that_has_ended_are_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        Authority::own(folder.path(), LIFE_US, now()).unwrap();
        let late = now().plus_micros(4_000 * DAY_US);
        let said = format!("{:#}", Authority::own(folder.path(), LIFE_US, late).unwrap_err());
        assert!(said.contains("has ended") && said.contains("made anew"), "{said}");
        let [cert, key] = files_in(folder.path());
        std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let said = format!("{:#}", Authority::own(folder.path(), LIFE_US, now()).unwrap_err());
        assert!(said.contains("the key must be that certificate's"), "{said}");
        std::fs::remove_file(&key).unwrap();
        let said = format!("{:#}", Authority::own(folder.path(), LIFE_US, now()).unwrap_err());
        assert!(said.contains("agents-ca.key") && said.contains("put it back"), "{said}");
        std::fs::remove_file(&cert).unwrap();
        Authority::own(folder.path(), LIFE_US, now()).unwrap();
    }

    /// An authority of somebody else's making, whose name has several parts.
    #[test]
    fn another_authority_signs_where_its_key_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let mut params = authority(now());
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CountryName, "DE");
        let pair = KeyPair::generate().unwrap();
        let [cert, key] = files_in(folder.path());
        std::fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
        let pem = pair.serialize_pem();
        let theirs = Authority::of_files(&cert, &key, &pem, LIFE_US, now()).unwrap();
        let point = KeyPair::generate().unwrap();
        assert!(theirs.sign(AGENT, point.der_bytes(), now()).is_ok());
    }
}
