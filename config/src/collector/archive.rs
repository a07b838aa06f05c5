//! `archive`: where closed segments are copied, a directory or a bucket of S3.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::read::{LONGEST, kind};
use crate::endpoint::Endpoint;
use crate::place::Located;
use crate::secret::{SecretFile, file_or_credential, secret_file};
use crate::section::Section;
use crate::units::{Period, UnitError};

/// Where old segments are copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ArchiveConfig {
    /// A directory, best of another file system.
    Dir {
        /// Which.
        path: Located<PathBuf>,
        /// A closed segment is copied when it has this age.
        after: Period,
    },
    /// A bucket of Amazon S3, or of a server that speaks as it does.
    S3(Box<S3Config>),
}

/// A bucket, and how it is come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct S3Config {
    /// Scheme, host and port of the server.
    pub endpoint: Located<Endpoint>,
    /// The region for which requests are signed.
    pub region: Located<String>,
    /// The bucket.
    pub bucket: Located<String>,
    /// What the names of all objects begin with; nothing where empty. Ends without a slash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Located<String>>,
    /// Does the bucket stand in the path rather than in the host's name?
    pub path_style: bool,
    /// The id of the access key.
    pub access_key_file: SecretFile,
    /// Its secret.
    pub secret_key_file: SecretFile,
    /// The token of credentials that end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_token_file: Option<SecretFile>,
    /// The certificates (PEM) that the server's must lead to, in place of the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<Located<PathBuf>>,
    /// Nobody may take a copy away before its time (S3 Object Lock); anybody who may where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockConfig>,
    /// A closed segment is copied when it has this age.
    pub after: Period,
}

/// S3 Object Lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LockConfig {
    /// Who may lift it.
    pub mode: LockMode,
    /// For how long, from the copy on.
    pub keep: Period,
}

/// Who may lift a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// Who has the permission for it.
    Governance,
    /// Nobody, not even the account's root.
    Compliance,
}

impl ArchiveConfig {
    /// A closed segment is copied when it has this age.
    pub fn after(&self) -> Period {
        match self {
            Self::Dir { after, .. } => *after,
            Self::S3(s3) => s3.after,
        }
    }
}

#[derive(Clone, Copy)]
enum Type {
    Dir,
    S3,
}

pub(super) fn archive(
    mut section: Section<'_>,
    credentials: Option<&Path>,
) -> Option<ArchiveConfig> {
    let kind = kind(&mut section, &[("dir", Type::Dir), ("s3", Type::S3)], &[]);
    let after = section.period("after", Period::days(1)..=LONGEST).unwrap_or(Period::days(30));
    if let Some(Type::S3) = kind {
        return s3(section, credentials, after).map(Box::new).map(ArchiveConfig::S3);
    }
    section.must_have("path");
    let path = section.parsed("path", |text| Ok(PathBuf::from(text)));
    section.finish();
    Some(ArchiveConfig::Dir { path: path?, after })
}

fn s3(mut section: Section<'_>, credentials: Option<&Path>, after: Period) -> Option<S3Config> {
    for key in ["bucket", "access_key_file", "secret_key_file"] {
        section.must_have(key);
    }
    let region = section.parsed("region", region);
    let region = region.unwrap_or_else(|| Located::default_of("us-east-1".to_owned()));
    let endpoint = section.parsed("endpoint", endpoint).or_else(|| {
        let amazon = format!("https://s3.{}.amazonaws.com", region.get());
        Endpoint::parse(&amazon).ok().map(Located::default_of)
    });
    let bucket = section.parsed("bucket", bucket);
    let prefix = section.parsed("prefix", prefix);
    let path_style = section.boolean("path_style").unwrap_or(false);
    let access_key_file = secret_file(&mut section, "access_key_file", credentials);
    let secret_key_file = secret_file(&mut section, "secret_key_file", credentials);
    let session_token_file = secret_file(&mut section, "session_token_file", credentials);
    let ca_file = file_or_credential(&mut section, "ca_file", credentials);
    let lock = section.optional_section("lock").and_then(lock);
    if let (Some(bucket), Some(endpoint)) = (&bucket, &endpoint)
        && !path_style
    {
        in_the_host(&section, bucket, endpoint.get());
    }
    section.finish();
    Some(S3Config {
        endpoint: endpoint?,
        region,
        bucket: bucket?,
        prefix,
        path_style,
        access_key_file: access_key_file?,
        secret_key_file: secret_key_file?,
        session_token_file,
        ca_file,
        lock,
        after,
    })
}

/// A bucket in the host's name must make a name of a host, and for TLS one that a certificate fits.
fn in_the_host(section: &Section<'_>, bucket: &Located<String>, endpoint: &Endpoint) {
    let is_address = endpoint.host().parse::<std::net::IpAddr>().is_ok();
    let what = if is_address {
        format!("a bucket cannot stand before the address {}", endpoint.host())
    } else if bucket.get().contains('.') && endpoint.is_secure() {
        format!("no certificate fits the host {}.{}", bucket.get(), endpoint.host())
    } else {
        return;
    };
    section.reader().problem(bucket.problem(what, "add `path_style: true`"));
}

fn lock(mut section: Section<'_>) -> Option<LockConfig> {
    section.must_have("mode");
    section.must_have("keep");
    let modes = [("governance", LockMode::Governance), ("compliance", LockMode::Compliance)];
    let mode = section.choice("mode", &modes);
    let keep = section.period("keep", Period::days(1)..=LONGEST);
    section.finish();
    Some(LockConfig { mode: mode?, keep: keep? })
}

/// Segments are sent, and what signs the requests must not be found out.
fn endpoint(text: &str) -> Result<Endpoint, UnitError> {
    let endpoint = Endpoint::parse(text)?;
    if endpoint.is_secure() || endpoint.is_loopback() {
        return Ok(endpoint);
    }
    Err(UnitError {
        what: format!("`{}` could be read and changed on the way", text.escape_debug()),
        hint: "write https://".to_owned(),
    })
}

fn region(text: &str) -> Result<String, UnitError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.len() <= 64 && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err(UnitError {
        what: format!("`{}` cannot be a region", text.escape_debug()),
        hint: "write one as eu-central-1; servers that have none take us-east-1".to_owned(),
    })
}

/// As Amazon's rules for names of buckets are.
fn bucket(text: &str) -> Result<String, UnitError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = (3..=63).contains(&text.len())
        && text.chars().all(fits)
        && text.starts_with(ends)
        && text.ends_with(ends)
        && !text.contains("..");
    if good {
        return Ok(text.to_owned());
    }
    Err(UnitError {
        what: format!("`{}` cannot be the name of a bucket", text.escape_debug()),
        hint: "use 3 to 63 of: a-z 0-9 - . with a letter or digit at both ends".to_owned(),
    })
}

fn prefix(text: &str) -> Result<String, UnitError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let part = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(fits);
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.len() <= 512 && text.split('/').all(part) {
        return Ok(text.to_owned());
    }
    Err(UnitError {
        what: format!("`{}` cannot begin the names of objects", text.escape_debug()),
        hint: "write a path of letters, digits, - _ . as custody/collector-1".to_owned(),
    })
}
