//! Secrets are files or systemd credentials, never values.
//!
//! A relative path is the name of a credential: `$CREDENTIALS_DIRECTORY/<name>`, as `LoadCredential=` of a systemd unit passes it.
//! Outside of the unit, where a person types commands, there is no such directory: that is warned about, and only who needs
//! the secret is refused.
//! A file that others can read is warned about when the configuration is loaded.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::place::{Located, Problem};
use crate::section::Section;

/// The longest secret that is read, in bytes. Tokens are under 200; a private key with its chain under 16 KiB.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// The path of a file that holds one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    path: Located<PathBuf>,
}

/// A secret's text. It is never shown: its `Debug` form says only how long it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl SecretFile {
    /// The file, as it is opened.
    pub fn path(&self) -> &Path {
        self.path.get()
    }

    /// The path with the place in the configuration where it was named.
    pub const fn located(&self) -> &Located<PathBuf> {
        &self.path
    }

    /// Reads the secret: the file's text without white space around it.
    ///
    /// # Errors
    /// A file that cannot be read, is empty, is no text, or is longer than 64 KiB; at the place that names it.
    pub fn read(&self) -> Result<Secret, Problem> {
        let shown = self.path().display();
        if self.path().is_relative() {
            return Err(outside_of_the_unit(&self.path));
        }
        let mut text = String::new();
        let file = std::fs::File::open(self.path()).map_err(|e| {
            self.path.problem(
                format!("cannot open {shown}: {e}"),
                "check the path, its owner and its mode",
            )
        })?;
        file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text).map_err(|e| {
            self.path.problem(format!("cannot read {shown}: {e}"), "it must be a text file")
        })?;
        if text.len() as u64 > MAX_SECRET_BYTES {
            return Err(self.path.problem(
                format!("{shown} is longer than 64 KiB"),
                "name a file that holds one secret",
            ));
        }
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(self.path.problem(format!("{shown} is empty"), "write the secret into it"));
        }
        Ok(Secret(trimmed.to_owned()))
    }
}

impl Secret {
    /// A secret that was received otherwise than from a file (an enrolment's answer).
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl Serialize for SecretFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.path.serialize(serializer)
    }
}

/// Reads the key of a secret file.
pub(crate) fn secret_file(
    section: &mut Section<'_>,
    key: &'static str,
    credentials: Option<&Path>,
) -> Option<SecretFile> {
    let path = file_or_credential(section, key, credentials)?;
    // A credential directory is protected by systemd itself, whatever the modes inside it say.
    if path.get().is_absolute() && !credentials.is_some_and(|dir| path.get().starts_with(dir)) {
        warn_if_readable_by_others(section, key, &path);
    }
    Some(SecretFile { path })
}

/// Reads the key of a file that may be passed as a credential (certificates too: only the key among them is secret).
pub(crate) fn file_or_credential(
    section: &mut Section<'_>,
    key: &'static str,
    credentials: Option<&Path>,
) -> Option<Located<PathBuf>> {
    let text = section.text(key)?;
    path_or_credential(section, text, credentials)
}

/// Reads the key of a list of secret files.
pub(crate) fn secret_files(
    section: &mut Section<'_>,
    key: &'static str,
    credentials: Option<&Path>,
) -> Vec<SecretFile> {
    let texts = section.texts(key).unwrap_or_default();
    let paths: Vec<_> = texts
        .into_iter()
        .filter_map(|text| path_or_credential(section, text, credentials))
        .collect();
    for path in &paths {
        let given = credentials.is_some_and(|dir| path.get().starts_with(dir));
        if path.get().is_absolute() && !given {
            warn_if_readable_by_others(section, key, path);
        }
    }
    paths.into_iter().map(|path| SecretFile { path }).collect()
}

/// A credential where there are none.
fn outside_of_the_unit(path: &Located<PathBuf>) -> Problem {
    let name = path.get().display();
    path.problem(
        format!("`{name}` is a relative path: a systemd credential, which only the unit is given, and this is outside of it"),
        format!("call this as the unit would see it: CREDENTIALS_DIRECTORY=/folder/of/{name} before the command; or write an absolute path"),
    )
}

fn path_or_credential(
    section: &Section<'_>,
    text: Located<String>,
    credentials: Option<&Path>,
) -> Option<Located<PathBuf>> {
    let path = PathBuf::from(text.get());
    if path.is_absolute() {
        return Some(text.map(|_| path));
    }
    let name = text.get().clone();
    if credentials.is_none() {
        let path = text.map(|_| path);
        section.reader().warn(outside_of_the_unit(&path));
        return Some(path);
    }
    let credential = credentials.map(|dir| dir.join(&name));
    if let Some(found) = credential.filter(|file| matches!(file.try_exists(), Ok(true))) {
        return Some(text.map(|_| found));
    }
    section.reader().problem(text.problem(
        format!(
            "`{}` is a relative path, and no systemd credential of this name was passed",
            name.escape_debug()
        ),
        format!(
            "write an absolute path, or add LoadCredential={}:/path/of/the/file to the unit",
            name.escape_debug()
        ),
    ));
    None
}

/// Others who can read a secret can use it.
fn warn_if_readable_by_others(section: &Section<'_>, key: &str, path: &Located<PathBuf>) {
    let Ok(meta) = std::fs::metadata(path.get()) else {
        // It may come later (an enrolment token); whoever reads it then says what is wrong.
        return;
    };
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let shown = path.get().display();
        section.reader().warn(path.problem(
            format!("{shown} ({key}) can be read by others (mode {mode:04o})"),
            format!("chmod 0600 {shown}"),
        ));
    }
}
