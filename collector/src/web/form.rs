//! The search form: what the address line says, and what it means for a search.

use axum::extract::Query;
use http::Uri;

use super::text::encode;

/// Filters with a field of their own, and what stands above it.
pub(super) const FILTERS: &[(&str, &str)] = &[
    ("actor", "Actor"),
    ("action", "Action"),
    ("category", "Category"),
    ("outcome", "Outcome"),
    ("severity", "Severity"),
    ("ip", "IP or network"),
    ("target", "Target"),
    ("host", "Host"),
];

/// Periods, and what they are called.
pub(super) const PERIODS: &[(&str, &str)] = &[
    ("24h", "Last 24 hours"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("all", "All time"),
    ("custom", "From … to …"),
];

/// The form as it was sent.
#[derive(Debug, Default)]
pub(super) struct Form {
    pub(super) line: String,
    pub(super) period: String,
    pub(super) from: String,
    pub(super) to: String,
    /// In the order of [`FILTERS`].
    pub(super) filters: Vec<String>,
    cursor: String,
}

impl Form {
    /// From the address line; what is not in it is empty, the period the last 24 hours.
    pub(super) fn read(pairs: &[(String, String)]) -> Self {
        let get = |name: &str| super::field(pairs, name).trim().to_owned();
        let mut period = get("period");
        if !PERIODS.iter().any(|(name, _)| *name == period) {
            let dated = !get("from").is_empty() || !get("to").is_empty();
            period = if dated { "custom" } else { "24h" }.to_owned();
        }
        Self {
            line: get("q"),
            period,
            from: get("from"),
            to: get("to"),
            filters: FILTERS.iter().map(|(name, _)| get(name)).collect(),
            cursor: get("cursor"),
        }
    }

    fn values(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let filters = FILTERS.iter().zip(&self.filters).map(|((name, _), value)| (*name, &**value));
        std::iter::once(("q", self.line.as_str())).chain(filters)
    }

    /// As the API's parameters.
    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        let (from, to) = match self.period.as_str() {
            "all" => ("", ""),
            "custom" => (self.from.as_str(), self.to.as_str()),
            period => (period, ""),
        };
        self.values()
            .chain([("from", from), ("to", to), ("cursor", self.cursor.as_str())])
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The address of the same search, from this cursor on.
    pub(super) fn address(&self, cursor: Option<&str>) -> String {
        let dates = [("from", self.from.as_str()), ("to", self.to.as_str())];
        let dates = dates.into_iter().filter(|_| self.period == "custom");
        let mut out = format!("/?period={}", self.period);
        for (name, value) in self.values().chain(dates).chain(cursor.map(|at| ("cursor", at))) {
            if !value.is_empty() {
                out.push('&');
                out.push_str(name);
                out.push('=');
                out.push_str(&encode(value));
            }
        }
        out
    }

    /// Is this page behind the first?
    pub(super) fn is_paged(&self) -> bool {
        !self.cursor.is_empty()
    }
}

/// The pairs of a form's body. It has the shape of a query string, and is read as one.
pub(super) fn read_body(body: &[u8]) -> Option<Vec<(String, String)>> {
    let text = std::str::from_utf8(body).ok()?;
    let uri = Uri::try_from(format!("/?{text}")).ok()?;
    Query::try_from_uri(&uri).ok().map(|Query(pairs)| pairs)
}
