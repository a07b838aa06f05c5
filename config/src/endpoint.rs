//! The address of a collector: `https://host:port`.
//!
//! Nothing else of a URL is meant here: no user, no path, no query. The collector's routes are fixed.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use crate::units::UnitError;

/// Scheme, host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    secure: bool,
    host: String,
    port: u16,
}

impl Endpoint {
    /// Reads `http://host[:port]` or `https://host[:port]`; the port is 80 or 443 where none is written.
    ///
    /// # Errors
    /// Another scheme, a host or port that cannot be, or anything after them.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let wrong = |what: &str, hint: &str| UnitError {
            what: format!("`{}` {what}", text.escape_debug()),
            hint: hint.to_owned(),
        };
        let example = "write https://collector.example.org:8600";
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| wrong("is not an address with a scheme", example))?;
        let secure = match scheme {
            "https" => true,
            "http" => false,
            _ => {
                return Err(wrong(
                    "has an unknown scheme",
                    "write https:// (or http:// on loopback)",
                ));
            }
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(wrong(
                "holds a user or a password",
                "put the token into a file and name it by token_file",
            ));
        }
        if rest.contains(['/', '?', '#']) {
            return Err(wrong("has a path", "remove everything after the port"));
        }
        let (host, port) =
            split_port(rest).ok_or_else(|| wrong("has no usable host and port", example))?;
        let port = port.unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { secure, host: host.to_owned(), port })
    }

    /// The host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether TLS is spoken.
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether what is said to it stays on this machine: a loopback address or `localhost`.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// Host and port; the host without brackets.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(inner) = text.strip_prefix('[') {
        let (host, after) = inner.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
        (host, port)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || host.len() > 253 || !host.chars().all(plain) {
            return None;
        }
        (host, port)
    };
    match port {
        None => Some((host, None)),
        Some(digits) if digits.chars().all(|c| c.is_ascii_digit()) => {
            let port = digits.parse().ok().filter(|port| *port != 0)?;
            Some((host, Some(port)))
        }
        Some(_) => None,
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn addresses_read_and_are_shown_in_full() {
        for (text, shown, loopback) in [
            ("https://collector:8600", "https://collector:8600", false),
            ("https://collector.example.org/", "https://collector.example.org:443", false),
            ("http://127.0.0.1:8600", "http://127.0.0.1:8600", true),
            ("http://[::1]:8600", "http://[::1]:8600", true),
            ("http://LOCALHOST", "http://LOCALHOST:80", true),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:443", false),
        ] {
            let endpoint = Endpoint::parse(text).expect(text);
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.is_loopback(), loopback, "{text}");
        }
    }

    #[test]
    fn a_name_that_only_looks_like_loopback_is_not_taken_for_it() {
        for text in
            ["http://127.0.0.1.example.org", "http://localhost.example.org", "http://0.0.0.0:1"]
        {
            assert!(!Endpoint::parse(text).expect(text).is_loopback(), "{text}");
        }
    }

    #[test]
    fn what_is_more_or_less_than_scheme_host_port_is_refused() {
        for text in [
            "collector:8600",
            "ftp://collector",
            "https://",
            "https://user:pw@collector",
            "https://collector/v1",
            "https://collector?x=1",
            "https://collector:0",
            "https://collector:65536",
            "https://collector:+1",
            "https://[::1",
            "https://[nothing]:1",
            "https://::1:1",
            "https://a b",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
