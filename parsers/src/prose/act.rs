//! What was done, and how it went, by the words of a sentence.

use super::words::Words;

/// Words of a failure; those of a refusal come first.
const DENIED: &[&str] = &[
    "denied",
    "forbidden",
    "unauthorized",
    "unauthorised",
    "rejected",
    "refused",
    "disallowed",
    "blocked",
    "banned",
];
const FAILED: &[&str] = &[
    "fail",
    "fails",
    "failed",
    "failure",
    "failures",
    "failing",
    "invalid",
    "incorrect",
    "wrong",
    "bad",
    "unsuccessful",
    "unsuccessfully",
    "mismatch",
    "nonexistent",
    "unable",
    "cannot",
    "illegal",
    "unknown",
    "notfound",
    "fehlerhafter",
    "fehlgeschlagen",
    "echec",
    "fallido",
    "fallito",
    "mislukt",
    "mislukte",
    "lockout",
];
const WENT_WELL: &[&str] = &[
    "success",
    "successful",
    "successfully",
    "succeeded",
    "accepted",
    "granted",
    "authenticated",
    "allowed",
    "passed",
];
/// After `not`, `no` or `never` what sounds good is not.
const NOT: &[&str] = &["not", "no", "never", "couldn't", "didn't", "wasn't", "isn't"];
const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT"];

/// A request of HTTP in the sentence.
#[derive(Debug)]
pub(super) struct Request<'t> {
    pub(super) method: Option<&'t str>,
    pub(super) target: Option<&'t str>,
    pub(super) status: Option<&'t str>,
}

impl Request<'_> {
    /// A POST to a page for logging in is a login, any other a request.
    pub(super) fn act(&self) -> &'static str {
        let target = self.target.unwrap_or_default().to_ascii_lowercase();
        let page = target.split('?').next().unwrap_or_default();
        let login = ["login", "signin", "sign-in", "logon", "sessions", "authenticate"]
            .iter()
            .any(|word| page.contains(word));
        let posts = self.method.is_none_or(|method| method == "POST");
        if login && posts { "authentication.login" } else { "http.request" }
    }
}

/// Method, path and status.
pub(super) fn request<'t>(words: &Words<'t>) -> Option<Request<'t>> {
    let method = (0..words.len()).find(|at| METHODS.contains(&words.text(*at)));
    let is_path = |at: &usize| {
        let word = words.text(*at);
        word.len() > 1 && word.starts_with('/') && !word.contains(".go:") && !word.starts_with("//")
    };
    let target = match method {
        Some(method) => (method + 1..words.len().min(method + 4)).find(is_path)?,
        None => (0..words.len()).find(is_path)?,
    };
    let status = status(words, target).or_else(|| method.and_then(|_| any_status(words)));
    if method.is_none() && status.is_none() {
        return None;
    }
    Some(Request {
        method: method.map(|at| words.text(at)),
        target: Some(words.run(target)),
        status: status.map(|at| words.text(at)),
    })
}

/// The status within the words after the path: `/login HTTP/1.1" 401`, `/login: 403`.
fn status(words: &Words<'_>, path: usize) -> Option<usize> {
    (path + 1..words.len().min(path + 4)).find(|at| is_status(words.text(*at)))
}

fn any_status(words: &Words<'_>) -> Option<usize> {
    (0..words.len()).find(|at| is_status(words.text(*at)))
}

/// `HTTP 403`
pub(super) fn status_after_http<'t>(words: &Words<'t>) -> Option<&'t str> {
    let at = (1..words.len()).find(|at| {
        is_status(words.text(*at))
            && words.text(at - 1).get(..4).is_some_and(|word| word.eq_ignore_ascii_case("http"))
    })?;
    Some(words.text(at))
}

fn is_status(word: &str) -> bool {
    word.len() == 3
        && word.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(word.as_bytes()[0], b'2'..=b'5')
}

/// How a request went.
pub(super) fn of_status(status: &str) -> Option<&'static str> {
    Some(match status.as_bytes() {
        b"401" | b"403" | b"407" | b"429" => "denied",
        [b'4' | b'5', ..] => "failure",
        [b'2' | b'3', ..] => "success",
        _ => return None,
    })
}

/// The parts of words in lower case: `AUTH_FAILED` is two.
fn parts<'t>(words: &Words<'t>) -> Vec<String> {
    let mut parts = Vec::with_capacity(words.len());
    for at in 0..words.len() {
        // What a client wrote is none of the sentence's words.
        if words.is_quoted(at) && words.key(at).is_some() {
            continue;
        }
        let pieces = words.text(at).split(|sign: char| !(sign.is_alphanumeric() || sign == '\''));
        parts.extend(pieces.filter(|piece| !piece.is_empty()).map(str::to_lowercase));
    }
    parts
}

/// What was done, where it is about who may come in.
pub(super) fn named(words: &Words<'_>) -> Option<&'static str> {
    let parts = parts(words);
    let has = |wanted: &[&str]| parts.iter().any(|part| wanted.contains(&part.as_str()));
    let pair = |first: &[&str], second: &[&str]| {
        parts
            .windows(2)
            .any(|two| first.contains(&two[0].as_str()) && second.contains(&two[1].as_str()))
    };
    if has(&["logout", "logoff", "signout"])
        || pair(&["logged", "log", "signed", "sign"], &["out", "off"])
    {
        return Some("authentication.logout");
    }
    let went = has(FAILED) || has(DENIED) || has(WENT_WELL) || has(&["error"]);
    if has(&["password", "passwd", "passphrase"])
        && !went
        && has(&["changed", "change", "reset", "updated", "set"])
    {
        return Some("password.change");
    }
    let inside = pair(&["logged", "signed"], &["in"]);
    let about = has(&[
        "login",
        "logon",
        "signin",
        "authentication",
        "authenticate",
        "authenticating",
        "authenticated",
        "auth",
        "credentials",
        "credential",
        "password",
        "passwd",
        "anmeldung",
        "connexion",
        "mfa",
        "2fa",
        "otp",
        "totp",
    ]) || pair(&["log", "sign"], &["in"]);
    let tried = has(&[
        "attempt",
        "attempts",
        "attempted",
        "trying",
        "tried",
        "limited",
        "versuch",
        "tentative",
        "poging",
        "intento",
    ]);
    let known_user =
        has(&["user", "username", "account"]) && has(&["unknown", "invalid", "nonexistent"]);
    (inside || known_user || (about && (went || tried))).then_some("authentication.login")
}

/// How it went; a word of failure is one even beside one of success.
pub(super) fn outcome(words: &Words<'_>, act: bool) -> Option<&'static str> {
    let parts = parts(words);
    let has = |wanted: &[&str]| parts.iter().any(|part| wanted.contains(&part.as_str()));
    let negated = parts.windows(2).any(|two| {
        NOT.contains(&two[0].as_str())
            && (WENT_WELL.contains(&two[1].as_str())
                || ["found", "exist", "match", "valid", "authorized"].contains(&two[1].as_str()))
    });
    let inside = parts
        .windows(2)
        .any(|two| matches!(two[0].as_str(), "logged" | "signed") && two[1] == "in");
    if has(DENIED) {
        Some("denied")
    } else if has(FAILED) || negated || (act && has(&["error"]) && !has(WENT_WELL)) {
        Some("failure")
    } else if has(WENT_WELL) || inside {
        Some("success")
    } else {
        None
    }
}
