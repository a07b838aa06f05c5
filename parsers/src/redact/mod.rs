//! Redaction: secrets are taken out of a record before anything of it is kept.
//!
//! **Where.** By pattern: in the record's bytes before it is decoded, and in what the source took
//! off it ([`crate::Said`]), so that message, details, targets, raw record, hash and id all come of
//! the redacted text. A decoder can bring to light what the bytes hide (hex, escapes): such texts
//! are searched again ([`late`]). By field: when the event is filled; the value is replaced there
//! and wherever else the event has it, the raw record among it.
//!
//! **What stays.** `mask` leaves `***`, of a card number the last four digits and the separators;
//! `pseudonym` leaves `p_` and 32 hex digits, HMAC-SHA-256 of the value under the operator's key
//! ([`PseudonymKey`]): equal values have equal pseudonyms under one key and none can be guessed
//! without it; `remove` leaves nothing. Where a number without quotes stood in JSON, what stays is
//! put in quotes, so that the record can still be decoded.
//!
//! **Hash and id.** Both are of the redacted record: a hash of the original would let anybody who
//! has the event try out card numbers until one fits. Where a value cannot be found in the raw
//! record (it was written in a form that nobody knows), the raw record is left out.
//!
//! **What is said.** An event that was redacted has the tag `redacted:<name>` for each pattern or
//! field.
//!
//! **Cost.** One search for [`detect::ANCHORS`], a few letters of each pattern, with the SIMD
//! searcher of `aho-corasick`, and a look at every twelfth byte for card numbers ([`cards`]). A
//! line without either is not looked at again. Everything else is bounded: no text is read twice
//! for one pattern, however it is made.

mod cards;
mod detect;
mod fields;
mod find;
pub(crate) mod late;
mod pseudonym;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use memchr::memmem::Finder;
use regex::bytes::{Regex, RegexBuilder};
use smallvec::SmallVec;

use detect::Anchors;
pub(crate) use fields::Selector;
pub use pseudonym::PseudonymKey;

/// What is done with a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedactAction {
    /// It stays: switches a pattern off that is on by default.
    Keep,
    /// `***` in its place.
    Mask,
    /// A keyed name in its place, the same for the same value.
    Pseudonym,
    /// Nothing in its place.
    Remove,
}

impl RedactAction {
    /// Names as configuration and packs write them.
    pub const NAMES: &'static [&'static str] = &["keep", "mask", "pseudonym", "remove"];

    /// The action of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "keep" => Self::Keep,
            "mask" => Self::Mask,
            "pseudonym" => Self::Pseudonym,
            "remove" => Self::Remove,
            _ => return None,
        })
    }
}

/// The patterns that are built in; all are masked by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretPattern {
    /// Tokens with a prefix that says what they are: `ghp_…`, `glpat-…`, `xoxb-…`, `sk_live_…`.
    ApiTokens,
    /// What follows `Bearer`, or a scheme in an `Authorization` header.
    BearerTokens,
    /// Payment cards: issuer, length and check digit (Luhn) are right.
    CardNumbers,
    /// JSON Web Tokens.
    Jwt,
    /// PEM private keys, over several lines or with `\n` in them.
    PrivateKeys,
    /// Values under names such as `password`, `client_secret`, `api_key`, `access_token`,
    /// `aws_secret_access_key`.
    SecretValues,
    /// The password of `scheme://user:password@host`.
    UrlPasswords,
}

impl SecretPattern {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::ApiTokens,
        Self::BearerTokens,
        Self::CardNumbers,
        Self::Jwt,
        Self::PrivateKeys,
        Self::SecretValues,
        Self::UrlPasswords,
    ];

    /// As configuration, packs and tags write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiTokens => "api_tokens",
            Self::BearerTokens => "bearer_tokens",
            Self::CardNumbers => "card_numbers",
            Self::Jwt => "jwt",
            Self::PrivateKeys => "private_keys",
            Self::SecretValues => "secret_values",
            Self::UrlPasswords => "url_passwords",
        }
    }

    /// The pattern of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|pattern| pattern.name() == name)
    }

    const fn place(self) -> usize {
        match self {
            Self::ApiTokens => 0,
            Self::BearerTokens => 1,
            Self::CardNumbers => 2,
            Self::Jwt => 3,
            Self::PrivateKeys => 4,
            Self::SecretValues => 5,
            Self::UrlPasswords => 6,
        }
    }
}

/// What is redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedactWhat {
    /// A field of the event: `actor.name`, `details.password`, `changes.iban`.
    Field(String),
    /// A built-in pattern.
    Pattern(SecretPattern),
    /// A pattern of one's own: its group `secret`, or all that it matches.
    Own {
        /// The word for tags.
        name: String,
        /// In the syntax of the `regex` crate.
        regex: String,
    },
}

/// One thing that is redacted, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedactRule {
    /// What.
    pub what: RedactWhat,
    /// How.
    pub action: RedactAction,
}

/// Why a rule of redaction is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedactError {
    /// The field does not exist, or holds nothing that could be redacted.
    #[error("`{0}` is no field that can be redacted")]
    Field(String),
    /// Only a text has room for a mask.
    #[error("`{0}` is no text: it can only be removed")]
    NoText(String),
    /// The pattern does not compile.
    #[error("the pattern of `{name}` is wrong: {message}")]
    Regex {
        /// Whose.
        name: String,
        /// Why.
        message: String,
    },
    /// The pattern matches an empty text.
    #[error("the pattern of `{0}` matches an empty text")]
    Empty(String),
    /// The name is not fit for a tag.
    #[error("`{0}` is no name for a pattern: lower-case letters, digits and `_`")]
    Name(String),
    /// There is no key for pseudonyms.
    #[error("a pseudonym needs a key")]
    NoKey,
}

/// A pattern of one's own.
#[derive(Debug, Clone)]
struct Own {
    name: Arc<str>,
    regex: Regex,
    /// Which group is the secret.
    group: usize,
    action: RedactAction,
}

/// A field and what is done with it.
#[derive(Debug, Clone)]
pub(crate) struct FieldRule {
    pub(crate) selector: Selector,
    pub(crate) action: RedactAction,
}

/// A text that was found, and what takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    from: usize,
    to: usize,
    by: By,
}

/// What found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Pattern(SecretPattern),
    Own(usize),
}

pub(crate) type Hits = SmallVec<[Hit; 4]>;

/// Names of what was redacted in a record, each once.
pub type Names = SmallVec<[Arc<str>; 2]>;

/// All that is redacted in the records of a source.
#[derive(Debug, Clone)]
pub struct Redaction {
    /// What is done with each built-in pattern.
    actions: [RedactAction; SecretPattern::ALL.len()],
    anchors: Anchors,
    own: Vec<Own>,
    fields: Vec<FieldRule>,
    key: Option<PseudonymKey>,
    is_off: bool,
    /// Finds the lines that begin and end a private key.
    key_lines: Finder<'static>,
}

/// A pattern of one's own compiles to at most this much.
const MAX_REGEX_BYTES: usize = 1 << 20;

impl Default for Redaction {
    /// All built-in patterns are masked.
    fn default() -> Self {
        let actions = [RedactAction::Mask; SecretPattern::ALL.len()];
        Self {
            anchors: Anchors::of(&actions),
            actions,
            own: Vec::new(),
            fields: Vec::new(),
            key: None,
            is_off: false,
            key_lines: Finder::new("PRIVATE KEY"),
        }
    }
}

impl Redaction {
    /// Nothing is redacted, whatever packs say.
    #[must_use]
    pub fn off() -> Self {
        let actions = [RedactAction::Keep; SecretPattern::ALL.len()];
        Self { anchors: Anchors::of(&actions), actions, is_off: true, ..Self::default() }
    }

    /// The built-in patterns, and these rules; of two for one thing the later one holds.
    ///
    /// # Errors
    /// The first rule that is none.
    pub fn new(rules: &[RedactRule], key: Option<PseudonymKey>) -> Result<Self, RedactError> {
        let mut redaction = Self { key, ..Self::default() };
        for rule in rules {
            if rule.action == RedactAction::Pseudonym && redaction.key.is_none() {
                return Err(RedactError::NoKey);
            }
            redaction.add(rule)?;
        }
        Ok(redaction)
    }

    /// Adds a pack's rule: where the operator's own say something of the same thing, those hold.
    /// Without a key a pseudonym is a mask.
    pub(crate) fn add_of_pack(&mut self, rule: &RedactRule) {
        if self.is_off || matches!(rule.what, RedactWhat::Field(_)) {
            return;
        }
        let known = match &rule.what {
            RedactWhat::Own { name, .. } => self.own.iter().any(|own| *own.name == **name),
            RedactWhat::Pattern(_) | RedactWhat::Field(_) => true,
        };
        if !known && self.add(rule).is_err() {
            // The loader has checked it.
            debug_assert!(false, "a pack's pattern was not checked");
        }
    }

    fn add(&mut self, rule: &RedactRule) -> Result<(), RedactError> {
        match &rule.what {
            RedactWhat::Field(name) => {
                let rule = field_rule(name, rule.action)?;
                self.fields.retain(|known| known.selector != rule.selector);
                self.fields.push(rule);
            }
            RedactWhat::Pattern(pattern) => {
                self.actions[pattern.place()] = rule.action;
                self.anchors = Anchors::of(&self.actions);
            }
            RedactWhat::Own { name, regex } => {
                let own = own(name, regex, rule.action)?;
                self.own.retain(|known| known.name != own.name);
                self.own.push(own);
            }
        }
        Ok(())
    }

    /// Is nothing ever redacted?
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.is_off
    }

    pub(crate) fn fields(&self) -> &[FieldRule] {
        &self.fields
    }

    fn action_of(&self, pattern: SecretPattern) -> RedactAction {
        self.actions[pattern.place()]
    }

    /// Is the pattern on?
    pub(crate) fn hides(&self, pattern: SecretPattern) -> bool {
        self.action_of(pattern) != RedactAction::Keep
    }

    /// The record without its secrets: as it is where it has none, else in `buffer`. Adds the names of
    /// what was found.
    pub(crate) fn clean<'t>(
        &self,
        record: &'t [u8],
        buffer: &'t mut Vec<u8>,
        names: &mut Names,
    ) -> &'t [u8] {
        let hits = self.find(record);
        if hits.is_empty() {
            return record;
        }
        buffer.clear();
        self.replace(record, &hits, buffer);
        self.name(&hits, names);
        buffer
    }

    /// A record that is a line of a private key, where `inside` says that one has begun in a record
    /// before it: what is left of it. Notes whether a key goes on behind it.
    pub(crate) fn key_line(&self, record: &[u8], inside: &mut bool) -> Option<Cow<'static, str>> {
        if !self.hides(SecretPattern::PrivateKeys) {
            return None;
        }
        let line = record.trim_ascii();
        if *inside && (line.is_empty() || detect::is_key_line(line)) {
            let action = self.action_of(SecretPattern::PrivateKeys);
            return (!line.is_empty()).then(|| self.act(action, line));
        }
        let last = self.key_lines.find_iter(record).last();
        *inside = last.is_some_and(|at| detect::begins_key(record, at));
        None
    }

    /// A text without secrets, for people and programs that look on.
    #[must_use]
    pub fn clean_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.clean_said(text, &mut Names::new())
    }

    /// The same; adds the names of what was found.
    pub(crate) fn clean_said<'t>(&self, text: &'t str, names: &mut Names) -> Cow<'t, str> {
        let hits = self.find(text.as_bytes());
        if hits.is_empty() {
            return Cow::Borrowed(text);
        }
        self.name(&hits, names);
        let mut out = Vec::with_capacity(text.len());
        self.replace(text.as_bytes(), &hits, &mut out);
        // A pattern of one's own may cut through a character.
        Cow::Owned(String::from_utf8_lossy(&out).into_owned())
    }

    /// All secrets of a text, in order, none over another.
    pub(crate) fn find(&self, text: &[u8]) -> Hits {
        let mut hits = Hits::new();
        if self.is_off {
            return hits;
        }
        self.anchors.find(text, &mut hits);
        if self.hides(SecretPattern::CardNumbers) {
            cards::find(text, &mut hits);
        }
        for (number, own) in self.own.iter().enumerate() {
            own.find(number, text, &mut hits);
        }
        if hits.len() > 1 {
            hits.sort_by_key(|hit| (hit.from, std::cmp::Reverse(hit.to)));
            let mut end = 0;
            hits.retain(|hit| {
                let is_apart = hit.from >= end;
                end = end.max(hit.to);
                is_apart
            });
        }
        hits
    }

    fn name(&self, hits: &Hits, names: &mut Names) {
        for hit in hits {
            match hit.by {
                By::Pattern(pattern) => note(names, pattern.name()),
                By::Own(number) => note(names, &self.own[number].name),
            }
        }
    }

    fn replace(&self, text: &[u8], hits: &Hits, out: &mut Vec<u8>) {
        let mut at = 0;
        for hit in hits {
            out.extend_from_slice(&text[at..hit.from]);
            let quoted = find::is_bare_in_json(text, hit.from, hit.to);
            if quoted {
                out.push(b'"');
            }
            self.instead(text, hit, out);
            if quoted {
                out.push(b'"');
            }
            at = hit.to;
        }
        out.extend_from_slice(&text[at..]);
    }

    /// What takes the place of a hit.
    fn instead(&self, text: &[u8], hit: &Hit, out: &mut Vec<u8>) {
        let secret = &text[hit.from..hit.to];
        let action = match hit.by {
            By::Pattern(pattern) => self.actions[pattern.place()],
            By::Own(number) => self.own[number].action,
        };
        match (action, hit.by) {
            (RedactAction::Mask, By::Pattern(SecretPattern::CardNumbers)) => {
                cards::mask(secret, out);
            }
            _ => out.extend_from_slice(self.act(action, secret).as_bytes()),
        }
    }

    /// What an action leaves of a value.
    pub(crate) fn act(&self, action: RedactAction, secret: &[u8]) -> Cow<'static, str> {
        match (action, &self.key) {
            (RedactAction::Remove, _) => Cow::Borrowed(""),
            (RedactAction::Pseudonym, Some(key)) => Cow::Owned(key.name(secret)),
            _ => Cow::Borrowed(MASK),
        }
    }
}

/// What a mask leaves.
pub(crate) const MASK: &str = "***";

/// Adds a name that is not there yet.
pub(crate) fn note(names: &mut Names, name: &str) {
    if !names.iter().any(|known| **known == *name) {
        names.push(Arc::from(name));
    }
}

/// A field's rule.
pub(crate) fn field_rule(name: &str, action: RedactAction) -> Result<FieldRule, RedactError> {
    let selector = Selector::from_name(name).ok_or_else(|| RedactError::Field(name.to_owned()))?;
    if !selector.is_text() && !matches!(action, RedactAction::Remove | RedactAction::Keep) {
        return Err(RedactError::NoText(name.to_owned()));
    }
    Ok(FieldRule { selector, action })
}

fn own(name: &str, regex: &str, action: RedactAction) -> Result<Own, RedactError> {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(word) {
        return Err(RedactError::Name(name.to_owned()));
    }
    let wrong = |error: regex::Error| RedactError::Regex {
        name: name.to_owned(),
        message: error.to_string().lines().last().unwrap_or_default().to_owned(),
    };
    let regex = RegexBuilder::new(regex).size_limit(MAX_REGEX_BYTES).build().map_err(wrong)?;
    if regex.is_match(b"") {
        return Err(RedactError::Empty(name.to_owned()));
    }
    let group = regex.capture_names().position(|group| group == Some("secret")).unwrap_or(0);
    Ok(Own { name: Arc::from(name), regex, group, action })
}

/// Checks a rule by itself, for the loader of packs.
pub(crate) fn check(rule: &RedactRule) -> Result<(), RedactError> {
    match &rule.what {
        RedactWhat::Field(name) => field_rule(name, rule.action).map(drop),
        RedactWhat::Pattern(_) => Ok(()),
        RedactWhat::Own { name, regex } => own(name, regex, rule.action).map(drop),
    }
}

impl Own {
    fn find(&self, number: usize, text: &[u8], hits: &mut Hits) {
        if self.action == RedactAction::Keep {
            return;
        }
        let by = By::Own(number);
        if self.group == 0 {
            let found = self.regex.find_iter(text).filter(|found| !found.is_empty());
            hits.extend(found.map(|found| Hit { from: found.start(), to: found.end(), by }));
            return;
        }
        let found = self.regex.captures_iter(text).filter_map(|found| found.get(self.group));
        let found = found.filter(|found| !found.is_empty());
        hits.extend(found.map(|found| Hit { from: found.start(), to: found.end(), by }));
    }
}
