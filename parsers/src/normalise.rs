//! Other people's words for actions, outcomes and severities, turned into the event's own.
//!
//! Actions arrive dotted with the outcome in them (`authentication.login.success`), in UPPER_SNAKE
//! (`LOGIN_FAILED`), in camelCase, with the verb first (`created_contact`), or as plain verbs
//! (`deleted`). They become dotted, lower case, object first, verb in its plain form last, without
//! the outcome: `authentication.login`, `contact.create`. What is not known stays as it is, in
//! this form.

use custody_event::taxonomy;

/// An action in the event's form, and the outcome that its name said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) name: String,
    pub(crate) outcome: Option<&'static str>,
}

/// What was done where nobody says it.
pub(crate) const NO_ACTION: &str = "event.other";

/// Verbs: what is written, the plain form, the operation.
const VERBS: &[(&str, &str, &str)] = &[
    ("login", "login", "login"),
    ("logon", "login", "login"),
    ("signin", "login", "login"),
    ("loggedin", "login", "login"),
    ("signedin", "login", "login"),
    ("logout", "logout", "logout"),
    ("logoff", "logout", "logout"),
    ("signout", "logout", "logout"),
    ("loggedout", "logout", "logout"),
    ("signedout", "logout", "logout"),
    ("create", "create", "create"),
    ("created", "create", "create"),
    ("creation", "create", "create"),
    ("add", "add", "create"),
    ("added", "add", "create"),
    ("new", "create", "create"),
    ("insert", "create", "create"),
    ("inserted", "create", "create"),
    ("register", "register", "create"),
    ("registered", "register", "create"),
    ("invite", "invite", "create"),
    ("invited", "invite", "create"),
    ("upload", "upload", "create"),
    ("uploaded", "upload", "create"),
    ("read", "read", "read"),
    ("view", "view", "read"),
    ("viewed", "view", "read"),
    ("get", "read", "read"),
    ("list", "list", "read"),
    ("listed", "list", "read"),
    ("access", "access", "read"),
    ("accessed", "access", "read"),
    ("search", "search", "read"),
    ("searched", "search", "read"),
    ("query", "query", "read"),
    ("request", "request", "read"),
    ("requested", "request", "read"),
    ("update", "update", "update"),
    ("updated", "update", "update"),
    ("change", "change", "update"),
    ("changed", "change", "update"),
    ("modify", "update", "update"),
    ("modified", "update", "update"),
    ("edit", "update", "update"),
    ("edited", "update", "update"),
    ("rename", "rename", "update"),
    ("renamed", "rename", "update"),
    ("reset", "reset", "update"),
    ("configure", "configure", "update"),
    ("configured", "configure", "update"),
    ("merge", "merge", "update"),
    ("merged", "merge", "update"),
    ("rotate", "rotate", "update"),
    ("rotated", "rotate", "update"),
    ("delete", "delete", "delete"),
    ("deleted", "delete", "delete"),
    ("deletion", "delete", "delete"),
    ("remove", "remove", "delete"),
    ("removed", "remove", "delete"),
    ("destroy", "delete", "delete"),
    ("destroyed", "delete", "delete"),
    ("purge", "purge", "delete"),
    ("purged", "purge", "delete"),
    ("export", "export", "export"),
    ("exported", "export", "export"),
    ("import", "import", "import"),
    ("imported", "import", "import"),
    ("download", "download", "download"),
    ("downloaded", "download", "download"),
    ("grant", "grant", "grant"),
    ("granted", "grant", "grant"),
    ("revoke", "revoke", "revoke"),
    ("revoked", "revoke", "revoke"),
    ("revocation", "revoke", "revoke"),
    ("enable", "enable", "enable"),
    ("enabled", "enable", "enable"),
    ("activate", "activate", "enable"),
    ("activated", "activate", "enable"),
    ("disable", "disable", "disable"),
    ("disabled", "disable", "disable"),
    ("deactivate", "deactivate", "disable"),
    ("deactivated", "deactivate", "disable"),
    ("suspend", "suspend", "disable"),
    ("suspended", "suspend", "disable"),
    ("assign", "assign", "assign"),
    ("assigned", "assign", "assign"),
    ("unassign", "unassign", "assign"),
    ("unassigned", "unassign", "assign"),
    ("execute", "execute", "execute"),
    ("executed", "execute", "execute"),
    ("run", "run", "execute"),
    ("start", "start", "execute"),
    ("started", "start", "execute"),
    ("stop", "stop", "execute"),
    ("stopped", "stop", "execute"),
    ("reboot", "reboot", "execute"),
    ("move", "move", "move"),
    ("moved", "move", "move"),
    ("transfer", "transfer", "move"),
    ("transferred", "transfer", "move"),
    ("restore", "restore", "restore"),
    ("restored", "restore", "restore"),
    ("lock", "lock", "lock"),
    ("locked", "lock", "lock"),
    ("unlock", "unlock", "unlock"),
    ("unlocked", "unlock", "unlock"),
];

/// Words for outcomes.
const OUTCOMES: &[(&str, &str)] = &[
    ("success", "success"),
    ("successful", "success"),
    ("succeeded", "success"),
    ("succeed", "success"),
    ("ok", "success"),
    ("passed", "success"),
    ("accepted", "success"),
    ("allowed", "success"),
    ("allow", "success"),
    ("completed", "success"),
    ("complete", "success"),
    ("failure", "failure"),
    ("failed", "failure"),
    ("fail", "failure"),
    ("error", "failure"),
    ("invalid", "failure"),
    ("unsuccessful", "failure"),
    ("denied", "denied"),
    ("deny", "denied"),
    ("forbidden", "denied"),
    ("unauthorized", "denied"),
    ("unauthorised", "denied"),
    ("blocked", "denied"),
    ("rejected", "denied"),
    ("refused", "denied"),
    ("pending", "pending"),
    ("queued", "pending"),
    ("running", "pending"),
    ("unknown", "unknown"),
];

/// Only these stand at the end of an action's name as its outcome (`ok` or `complete` may be
/// what was done).
const IN_NAMES: &[&str] = &[
    "success",
    "successful",
    "succeeded",
    "failure",
    "failed",
    "fail",
    "denied",
    "rejected",
    "blocked",
    "error",
];

/// What objects belong to which category.
const OBJECTS: &[(&str, &[&str])] = &[
    (
        "authentication",
        &[
            "authentication",
            "auth",
            "password",
            "mfa",
            "totp",
            "2fa",
            "sso",
            "otp",
            "passkey",
            "credential",
        ],
    ),
    ("session", &["session"]),
    ("account", &["account", "user", "group", "agent", "member", "team"]),
    ("permission", &["permission", "role", "privilege", "rbac", "acl", "sudo", "policy_binding"]),
    (
        "integration",
        &["integration", "api_key", "webhook", "extension", "token", "oauth_app", "refresh_token"],
    ),
    (
        "configuration",
        &[
            "settings",
            "setting",
            "configuration",
            "config",
            "sla",
            "sla_policy",
            "branding",
            "workflow",
            "policy",
            "retention_policy",
            "feature",
            "queue",
            "carrier",
            "escalation_policy",
            "runbook",
        ],
    ),
    ("automation", &["automation", "macro", "bot", "rule", "campaign"]),
    ("bulk", &["bulk"]),
    ("export", &["export", "report"]),
    ("security", &["security", "anomaly", "intrusion", "firewall"]),
    ("api", &["api"]),
    ("access", &["http", "access"]),
    ("system", &["system", "service", "host", "process", "job", "cron", "connection", "log"]),
    ("custody", &["custody"]),
];

/// The outcome that a word stands for.
pub(crate) fn outcome(text: &str) -> Option<&'static str> {
    let find = |text: &str| {
        OUTCOMES
            .iter()
            .find(|(word, _)| text.eq_ignore_ascii_case(word))
            .map(|(_, outcome)| *outcome)
    };
    find(text).or_else(|| match text {
        "true" | "True" | "TRUE" | "0" => Some("success"),
        "false" | "False" | "FALSE" => Some("failure"),
        _ => match text.parse::<u16>() {
            Ok(401 | 403) => Some("denied"),
            Ok(100..400) => Some("success"),
            Ok(400..600) => Some("failure"),
            _ => None,
        },
    })
}

/// The severity that a word or a syslog number stands for.
pub(crate) fn severity(text: &str) -> Option<&'static str> {
    Some(match text.to_ascii_lowercase().as_str() {
        "info" | "information" | "informational" | "notice" | "debug" | "trace" | "none" | "5"
        | "6" | "7" => "info",
        "low" | "minor" | "warning" | "warn" | "4" => "low",
        "medium" | "moderate" | "error" | "err" | "3" => "medium",
        "high" | "major" | "crit" | "2" => "high",
        "critical" | "fatal" | "emergency" | "emerg" | "alert" | "panic" | "0" | "1" => "critical",
        _ => return None,
    })
}

/// A size with its unit (`2.5 MB`, `12 KiB`, `1,024`) in bytes; what is less than a byte is cut.
pub(crate) fn bytes(text: &str) -> Option<i64> {
    let text = text.trim().replace(',', "");
    let end = text.find(|sign: char| !(sign.is_ascii_digit() || sign == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit: i64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" | "byte" | "bytes" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() > 15 || fraction.len() > 6 {
        return None;
    }
    let parts = 10_i64.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: i64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let of_unit = unit.checked_mul(fraction)? / parts;
    whole.parse::<i64>().ok()?.checked_mul(unit)?.checked_add(of_unit)
}

/// An action, and what follows from it.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) outcome: Option<&'static str>,
    pub(crate) category: &'static str,
    pub(crate) op: &'static str,
}

/// The actions of the records before: a program names few.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    known: Vec<(Box<str>, Option<Box<str>>, Named)>,
    /// Which is forgotten for the next.
    oldest: usize,
}

/// So many are remembered: a worker keeps them for each of its parsers.
const MAX_ACTIONS: usize = 16;

impl Actions {
    /// The action that stands there, done to `object`: see [`action`].
    pub(crate) fn of(&mut self, text: &str, object: Option<&str>) -> &Named {
        let known = |(name, on, _): &(Box<str>, Option<Box<str>>, Named)| {
            **name == *text && on.as_deref() == object
        };
        let at = self.known.iter().position(known).unwrap_or_else(|| {
            let Action { name, outcome } = action(text, object);
            let (category, op) = defaults(&name);
            let named = Named { name, outcome, category, op };
            let one = (text.into(), object.map(Into::into), named);
            if self.known.len() < MAX_ACTIONS {
                self.known.push(one);
                return self.known.len() - 1;
            }
            let at = self.oldest;
            self.oldest = (at + 1) % MAX_ACTIONS;
            self.known[at] = one;
            at
        });
        &self.known[at].2
    }
}

/// An action from whatever stood there; `object` is what the record says it was done to.
pub(crate) fn action(text: &str, object: Option<&str>) -> Action {
    let mut parts = words(text);
    let mut outcome = None;
    while parts.len() > 1 {
        let Some(last) = parts.last().and_then(|part| part.last()) else { break };
        let Some(found) = IN_NAMES.iter().find(|word| *word == last) else { break };
        outcome = outcome.or(self::outcome(found));
        pop_word(&mut parts);
    }
    if let [only] = parts.as_mut_slice() {
        // One run of words: LOGIN_FAILED, failed_login, USER_CREATED, create_user, deleted.
        if let [first, _, ..] = only.as_slice()
            && let Some(found) = IN_NAMES.iter().find(|word| *word == first)
        {
            outcome = outcome.or(self::outcome(found));
            only.remove(0);
        }
        if outcome.is_none()
            && let [before @ .., failed] = only.as_slice()
            && before.iter().any(|word| verb(word).is_some())
        {
            let found = IN_NAMES.iter().find(|word| *word == failed);
            if let Some(found) = found {
                outcome = self::outcome(found);
                only.pop();
            }
        }
        // A login attempt is a login.
        if let [before @ .., last] = only.as_slice()
            && matches!(last.as_str(), "attempt" | "attempts" | "event")
            && before.iter().any(|word| verb(word).is_some())
        {
            only.pop();
        }
        parts = object_first(only, object);
    } else if let Some(last) = parts.last_mut()
        && let [word] = last.as_mut_slice()
        && let Some((plain, _)) = verb(word)
    {
        plain.clone_into(word);
    }
    let mut name = parts.iter().map(|part| part.join("_")).collect::<Vec<_>>().join(".");
    name.truncate(100);
    while name.ends_with('.') {
        name.pop();
    }
    if name.is_empty() {
        NO_ACTION.clone_into(&mut name);
    }
    Action { name, outcome }
}

fn pop_word(parts: &mut Vec<Vec<String>>) {
    if let Some(last) = parts.last_mut() {
        last.pop();
        if last.is_empty() {
            parts.pop();
        }
    }
}

/// `["create", "user"]` and `["user", "created"]` → `user`, `create`; a lone verb gets its object.
fn object_first(run: &[String], object: Option<&str>) -> Vec<Vec<String>> {
    let (mut rest, verb) = match run {
        [] => return Vec::new(),
        [rest @ .., last] if verb(last).is_some() => (rest.to_vec(), verb(last)),
        // Signed in, logged out.
        [rest @ .., first, second] if verb(&format!("{first}{second}")).is_some() => {
            (rest.to_vec(), verb(&format!("{first}{second}")))
        }
        [first, rest @ ..] if verb(first).is_some() => (rest.to_vec(), verb(first)),
        other => return vec![other.to_vec()],
    };
    let Some((plain, op)) = verb else { return vec![rest] };
    if matches!(op, "login" | "logout") && rest.iter().all(|word| word == "user" || word == "sso") {
        rest = vec!["authentication".to_owned()];
    }
    if rest.is_empty() {
        rest = object.map(words).unwrap_or_default().concat();
    }
    if rest.is_empty() {
        rest = vec!["record".to_owned()];
    }
    vec![rest, vec![plain.to_owned()]]
}

fn verb(word: &str) -> Option<(&'static str, &'static str)> {
    VERBS.iter().find(|(written, _, _)| *written == word).map(|(_, plain, op)| (*plain, *op))
}

/// Dotted parts, each a list of lower-case words; every other sign separates words, and so does a
/// change from lower to upper case.
fn words(text: &str) -> Vec<Vec<String>> {
    let mut parts = vec![vec![String::new()]];
    let mut was_lower = false;
    for character in text.chars().take(200) {
        let starts_part = matches!(character, '.' | ':' | '/');
        let is_word = character.is_ascii_alphanumeric();
        if starts_part {
            parts.push(vec![String::new()]);
        } else if (!is_word || (was_lower && character.is_ascii_uppercase()))
            && let Some(part) = parts.last_mut()
        {
            part.push(String::new());
        }
        if is_word && let Some(word) = parts.last_mut().and_then(|part| part.last_mut()) {
            word.push(character.to_ascii_lowercase());
        }
        was_lower = character.is_ascii_lowercase() || character.is_ascii_digit();
    }
    for part in &mut parts {
        part.retain(|word| !word.is_empty());
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Category and operation of an action in the event's form.
pub(crate) fn defaults(action: &str) -> (&'static str, &'static str) {
    let last = action.rsplit('.').next().unwrap_or_default();
    let op = VERBS.iter().find(|(written, ..)| *written == last).map_or("other", |(.., op)| *op);
    let by_object = action.split('.').find_map(|word| {
        OBJECTS.iter().find(|(_, objects)| objects.contains(&word)).map(|(category, _)| *category)
    });
    let category = match (by_object, op) {
        (_, "login" | "logout") => "authentication",
        (_, "export" | "download") => "export",
        (Some(category), _) => category,
        (None, "import") => "bulk",
        (None, "grant" | "revoke") => "permission",
        (None, "read") => "access",
        (None, "create" | "update" | "delete" | "move" | "restore" | "assign") => "data",
        (None, _) => "unknown",
    };
    (category, op)
}

/// How much an event matters where nobody says it.
pub(crate) fn default_severity(category: &str, op: &str, outcome: Option<&str>) -> &'static str {
    match (category, op, outcome) {
        ("security", ..) => "high",
        ("bulk", "delete", _) => "high",
        (
            "permission" | "account",
            "create" | "update" | "delete" | "grant" | "revoke" | "assign",
            _,
        )
        | ("data", "delete", _)
        | ("authentication", "update" | "disable", _) => "medium",
        (_, _, Some("failure" | "denied")) => "low",
        ("configuration" | "export" | "integration" | "bulk", ..) => "low",
        _ => "info",
    }
}

/// A known category, if the text is one (in any case).
pub(crate) fn category(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    taxonomy::is_category(&lower).then_some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_bytes_whatever_their_unit() {
        for (text, bytes) in [
            ("12", Some(12)),
            ("1,024", Some(1024)),
            ("2.5 MB", Some(2_500_000)),
            ("1.5MiB", Some(1_572_864)),
            ("0.5 kb", Some(500)),
            ("12 parsecs", None),
            ("", None),
            ("1.2.3", None),
            ("999999999999999 TB", None),
        ] {
            assert_eq!(super::bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn actions_of_every_style_become_one_style() {
        for (given, name, outcome) in [
            ("authentication.login.success", "authentication.login", Some("success")),
            ("authentication.login.failed", "authentication.login", Some("failure")),
            ("LOGIN_FAILED", "authentication.login", Some("failure")),
            ("FAILED_LOGIN", "authentication.login", Some("failure")),
            ("User login failed", "authentication.login", Some("failure")),
            ("Failed login attempt", "authentication.login", Some("failure")),
            ("login_event", "authentication.login", None),
            ("event", "event", None),
            ("LOGIN", "authentication.login", None),
            ("userLoggedIn", "authentication.login", None),
            ("USER_LOGOUT", "authentication.logout", None),
            ("USER_CREATED", "user.create", None),
            ("create_user", "user.create", None),
            ("CONTACT_UPDATED", "contact.update", None),
            ("contact.updated", "contact.update", None),
            ("DATA_EXPORT", "data.export", None),
            ("settings.retention_policy.update", "settings.retention_policy.update", None),
            ("SLA_POLICY_CHANGED", "sla_policy.change", None),
            ("deleted", "contact.delete", None),
            ("Viewed Conversation", "conversation.view", None),
            ("role.granted", "role.grant", None),
            ("repo:push", "repo.push", None),
            ("", "event.other", None),
            ("ÄÖ", "event.other", None),
        ] {
            let action = action(given, Some("Contact"));
            assert_eq!((action.name.as_str(), action.outcome), (name, outcome), "{given}");
        }
        assert_eq!(action("deleted", None).name, "record.delete");
    }

    #[test]
    fn category_and_operation_follow_from_the_action() {
        for (action, category, op) in [
            ("authentication.login", "authentication", "login"),
            ("contact.update", "data", "update"),
            ("role.grant", "permission", "grant"),
            ("report.download", "export", "download"),
            ("settings.retention_policy.update", "configuration", "update"),
            ("user.create", "account", "create"),
            ("http.request", "access", "read"),
            ("something", "unknown", "other"),
        ] {
            assert_eq!(defaults(action), (category, op), "{action}");
        }
    }

    #[test]
    fn the_tables_name_only_words_that_the_event_knows() {
        for (_, plain, op) in VERBS {
            assert!(taxonomy::OPS.contains(op) && verb(plain).is_some(), "{plain} {op}");
        }
        for (_, outcome) in OUTCOMES {
            assert!(taxonomy::OUTCOMES.contains(outcome));
        }
        for (category, _) in OBJECTS {
            assert!(taxonomy::is_category(category));
        }
    }

    proptest! {
        #[test]
        fn every_text_gives_a_well_formed_action(text in any::<String>(), object in any::<Option<String>>()) {
            let action = action(&text, object.as_deref());
            prop_assert!(taxonomy::is_action(&action.name), "{:?}", action.name);
        }
    }
}
