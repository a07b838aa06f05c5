//! Passwords: argon2id (RFC 9106), kept as a PHC string that names its parameters.
//!
//! The parameters are the second recommended option of RFC 9106 section 4, for machines that do
//! not have 2 GiB to spare for each login: t = 3, p = 4, m = 64 MiB, a salt of 128 bits, a tag of
//! 256 bits. One costs a few tenths of a second, so no more than [`AT_ONCE`] are computed at once.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use custody_event::Digest;

/// Passwords shorter than this are refused.
pub const MIN_CHARS: usize = 12;
/// Longer ones too: a password is no file.
pub const MAX_BYTES: usize = 1_024;
/// Computed at the same time: 64 MiB each.
pub const AT_ONCE: usize = 2;

/// What is kept for a user without a password: no password is this one.
pub const NONE: &str = "none";

const MEMORY_KIB: u32 = 64 * 1_024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
const TAG_BYTES: usize = 32;

/// Why a password cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short.
    #[error("the password has fewer than {MIN_CHARS} characters; a few words together are good")]
    Short,
    /// Too long.
    #[error("the password is longer than {MAX_BYTES} bytes")]
    Long,
    /// The user's name.
    #[error("the password is the user's name")]
    IsName,
    /// The memory for it is not there.
    #[error("the password cannot be hashed: 64 MiB of memory are needed")]
    Hash,
}

fn hasher() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(TAG_BYTES));
    let params = params.map_err(|_| PasswordError::Hash)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// May this be the user's password?
///
/// # Errors
/// Why not.
pub fn allowed(name: &str, password: &str) -> Result<(), PasswordError> {
    if password.chars().count() < MIN_CHARS {
        return Err(PasswordError::Short);
    }
    if password.len() > MAX_BYTES {
        return Err(PasswordError::Long);
    }
    if password.to_lowercase() == name.to_lowercase() {
        return Err(PasswordError::IsName);
    }
    Ok(())
}

/// The password as it is kept. Takes a few tenths of a second.
///
/// # Errors
/// It may not be this user's password, or there is no memory.
pub fn hashed(name: &str, password: &str, salt: &[u8; 16]) -> Result<String, PasswordError> {
    allowed(name, password)?;
    let salt = SaltString::encode_b64(salt).map_err(|_| PasswordError::Hash)?;
    let hash = hasher()?.hash_password(password.as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(|_| PasswordError::Hash)
}

/// Is it this password? Without a `kept` one (no such user) it takes as long, and it is not.
#[must_use]
pub fn is(kept: Option<&str>, password: &str) -> bool {
    let parsed = kept.and_then(|kept| PasswordHash::new(kept).ok());
    let Ok(hasher) = hasher() else { return false };
    let Some(parsed) = parsed else {
        // The same work, for nothing.
        let mut tag = [0; TAG_BYTES];
        let salt = Digest::of(password.as_bytes());
        let _same = hasher.hash_password_into(password.as_bytes(), &salt.0[..16], &mut tag);
        return false;
    };
    hasher.verify_password(password.as_bytes(), &parsed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_kept_as_argon2id_with_the_parameters_of_rfc_9106() {
        let kept = hashed("ann", "correct horse battery", &[7; 16]).unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=65536,t=3,p=4$"), "{kept}");
        assert!(is(Some(&kept), "correct horse battery"));
        assert!(!is(Some(&kept), "correct horse batterz"));
        assert!(!is(None, "correct horse battery"));
        assert!(!is(Some("damaged"), "correct horse battery"));
        assert!(!is(Some(NONE), NONE) && !is(Some(NONE), ""));
        assert!(!kept.contains("horse"));
    }

    #[test]
    fn short_long_and_own_names_are_refused() {
        for (password, error) in [
            ("elevenchars", PasswordError::Short),
            ("Ann@Example.org", PasswordError::IsName),
            (&*"x".repeat(1_025), PasswordError::Long),
        ] {
            assert_eq!(allowed("ann@example.org", password), Err(error));
        }
        allowed("ann", "zwölf Zeichen").unwrap();
    }
}
