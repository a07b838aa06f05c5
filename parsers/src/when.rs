//! `when:` — tests on what a record says, beside the rule's pattern. All must hold.
//!
//! Tests stand in a tree: `any:` (one of these), `all:` and `not:` hold others, at most
//! [`MAX_DEPTH`] in one another and [`MAX_TESTS`] in a rule.

use std::net::IpAddr;

use regex_automata::meta;

use crate::value::{Scene, Source};

/// Trees in one another, at most.
pub(crate) const MAX_DEPTH: usize = 8;
/// Tests in one rule, at most.
pub(crate) const MAX_TESTS: usize = 200;
/// Names that stand for trees in `when:`.
pub(crate) const TREES: &[&str] = &["all", "any", "not"];

/// A test, or several.
#[derive(Debug)]
pub(crate) enum Tree {
    Test(Condition),
    /// Each of its maps holds, with every test in it.
    All(Vec<Tree>),
    /// One of its maps holds, with every test in it.
    Any(Vec<Tree>),
    /// Its maps do not all hold; before a single test: the test does not hold.
    Not(Vec<Tree>),
}

impl Tree {
    /// Does it hold?
    pub(crate) fn holds(&self, scene: &Scene<'_>) -> bool {
        match self {
            Self::Test(condition) => condition.holds(scene),
            Self::All(trees) => trees.iter().all(|tree| tree.holds(scene)),
            Self::Any(trees) => trees.iter().any(|tree| tree.holds(scene)),
            Self::Not(trees) => !trees.iter().all(|tree| tree.holds(scene)),
        }
    }

    /// Adds the paths without which it cannot hold, by their numbers in the pack.
    pub(crate) fn needs(&self, paths: &mut Vec<u32>) {
        match self {
            Self::Test(
                Condition { test: Test::Exists(false), .. } | Condition { negated: true, .. },
            )
            | Self::Any(_)
            | Self::Not(_) => {}
            Self::Test(condition) => paths.extend(condition.source.path()),
            Self::All(trees) => trees.iter().for_each(|tree| tree.needs(paths)),
        }
    }
}

/// One test of one value.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) source: Source,
    pub(crate) test: Test,
    /// `not:` before it.
    pub(crate) negated: bool,
}

/// What is asked of a value. Texts are compared as they are; numbers and truth values by their
/// text.
#[derive(Debug)]
pub(crate) enum Test {
    /// It is this text; also written without `equals`.
    Equals(Box<str>),
    /// It is one of these texts; also written as a bare list.
    In(Vec<Box<str>>),
    /// It begins with this.
    Prefix(Box<str>),
    /// It ends with this.
    Suffix(Box<str>),
    /// It holds this.
    Contains(Box<str>),
    /// A regular expression matches somewhere in it.
    Regex(Box<meta::Regex>),
    /// It is there (`true`), or it is not (`false`).
    Exists(bool),
    /// It is an address in one of these networks: CIDR blocks, or names of `networks`.
    Cidr(Vec<Network>),
}

impl Test {
    /// Names of the tests.
    pub(crate) const NAMES: &'static [&'static str] =
        &["cidr", "contains", "equals", "exists", "in", "not", "prefix", "regex", "suffix"];
}

/// An address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// `203.0.113.0/24`, `2001:db8::/32`, or one address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { address, bits })
    }

    pub(crate) fn holds(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let difference = u64::from(u32::from(net) ^ u32::from(address));
                difference >> (32 - self.bits) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let difference = u128::from(net) ^ u128::from(address);
                self.bits == 0 || difference >> (128 - self.bits) == 0
            }
            _ => false,
        }
    }
}

impl Condition {
    /// Does it hold?
    pub(crate) fn holds(&self, scene: &Scene<'_>) -> bool {
        self.test.holds(self.source, scene) != self.negated
    }
}

impl Test {
    fn holds(&self, source: Source, scene: &Scene<'_>) -> bool {
        if let Self::Exists(wanted) = self {
            return scene.exists(source) == *wanted;
        }
        let Some(text) = scene.text(source) else { return false };
        match self {
            Self::Exists(_) => true,
            Self::Equals(wanted) => text == &**wanted,
            Self::In(wanted) => wanted.iter().any(|wanted| text == &**wanted),
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
            Self::Contains(part) => text.contains(&**part),
            Self::Regex(regex) => regex.is_match(text),
            Self::Cidr(networks) => text
                .parse::<IpAddr>()
                .is_ok_and(|address| networks.iter().any(|net| net.holds(address.to_canonical()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_only() {
        let holds =
            |net: &str, address: &str| Network::parse(net).unwrap().holds(address.parse().unwrap());
        assert!(holds("203.0.113.0/24", "203.0.113.255"));
        assert!(!holds("203.0.113.0/24", "203.0.114.0"));
        assert!(holds("0.0.0.0/0", "1.2.3.4"));
        assert!(holds("::/0", "fe80::1"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("10.0.0.1", "10.0.0.1"));
        assert_eq!(Network::parse("10.0.0.0/33"), None);
        assert_eq!(Network::parse("x"), None);
    }
}
