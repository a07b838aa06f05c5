//! The closed lists of the event: categories, operations, outcomes, severities and the like.
//!
//! Packs are checked against these when they are loaded, and a collector checks what arrives.

/// Categories that every reader knows; a pack may add names that start with `x_`.
pub const CATEGORIES: &[&str] = &[
    "access",
    "account",
    "api",
    "authentication",
    "automation",
    "bulk",
    "configuration",
    "custody",
    "data",
    "export",
    "integration",
    "permission",
    "security",
    "session",
    "system",
    "unknown",
];

/// What was done to the target.
pub const OPS: &[&str] = &[
    "assign", "create", "delete", "disable", "download", "enable", "execute", "export", "grant",
    "import", "lock", "login", "logout", "move", "other", "read", "restore", "revoke", "unlock",
    "update",
];

/// How it ended.
pub const OUTCOMES: &[&str] = &["denied", "failure", "pending", "success", "unknown"];

/// How much it matters.
pub const SEVERITIES: &[&str] = &["critical", "high", "info", "low", "medium"];

/// What kind of thing acted.
pub const ACTOR_TYPES: &[&str] = &["agent", "anonymous", "service", "system", "user"];

/// How a session was opened.
pub const METHODS: &[&str] =
    &["api_key", "email_otp", "password", "publickey", "sso", "totp", "webauthn"];

/// Where an event's time comes from.
pub const TIME_BASES: &[&str] = &["received", "record", "year_inferred", "zone_assumed"];

/// Is this a category: one of the list, or a pack's own `x_…`?
#[must_use]
pub fn is_category(text: &str) -> bool {
    CATEGORIES.contains(&text)
        || text.strip_prefix("x_").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_word))
}

/// Is this an action: dotted, lower case, words of `[a-z0-9_]`, at most 100 bytes?
#[must_use]
pub fn is_action(text: &str) -> bool {
    text.len() <= 100 && text.split('.').all(|word| !word.is_empty() && word.bytes().all(is_word))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_so_that_documents_made_from_them_are() {
        for list in [CATEGORIES, OPS, OUTCOMES, SEVERITIES, ACTOR_TYPES, METHODS, TIME_BASES] {
            assert!(list.is_sorted(), "{list:?}");
        }
    }

    #[test]
    fn actions_are_dotted_lower_case_words() {
        for good in ["authentication.login", "settings.retention_policy.update", "x"] {
            assert!(is_action(good), "{good}");
        }
        for bad in ["", ".", "a..b", "Login", "a b", "a.", "LOGIN_FAILED"] {
            assert!(!is_action(bad), "{bad}");
        }
    }
}
