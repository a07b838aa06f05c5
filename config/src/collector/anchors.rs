//! `anchors`: what others hold of the log, so that it cannot be rewritten unnoticed.

use std::path::PathBuf;

use serde::Serialize;

use super::oidc::url;
use crate::place::Located;
use crate::section::{Reader, Section};
use crate::tree::Node;
use crate::units::{Period, UnitError};

/// Where checkpoints of the log go. Nothing leaves but what is named here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnchorsConfig {
    /// How often.
    pub every: Period,
    /// Each checkpoint becomes a file here, which is never written again: best write-once media.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<Located<PathBuf>>,
    /// Each checkpoint is posted there, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post: Option<Located<String>>,
    /// An authority of RFC 3161 that stamps each with its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_stamp: Option<Located<String>>,
    /// Witnesses (C2SP tlog-witness), asked for their cosignatures each minute.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<WitnessConfig>,
}

/// One witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WitnessConfig {
    /// Its submission prefix, to which `/add-checkpoint` is added.
    pub url: Located<String>,
    /// Its verifier key: `name+id+base 64`.
    pub key: Located<String>,
}

pub(super) fn anchors(mut section: Section<'_>) -> Option<AnchorsConfig> {
    let every = section.period("every", Period::seconds(60)..=Period::days(31));
    let dir = section.parsed("dir", absolute);
    let (post, time_stamp) = (section.parsed("post", url), section.parsed("time_stamp", url));
    let nodes = section.list("witnesses").map(|(_, nodes)| nodes).unwrap_or_default();
    let reader = section.reader();
    let witnesses: Vec<WitnessConfig> =
        nodes.into_iter().filter_map(|node| witness(reader, node)).collect();
    if dir.is_none() && post.is_none() && time_stamp.is_none() && witnesses.is_empty() {
        section.reader().at(
            section.spot(),
            "`anchors` names nobody who would hold anything",
            "give it `dir`, `post`, `time_stamp` or `witnesses`, or leave it out",
        );
    }
    section.finish();
    Some(AnchorsConfig {
        every: every.unwrap_or(Period::days(1)),
        dir,
        post,
        time_stamp,
        witnesses,
    })
}

fn absolute(text: &str) -> Result<PathBuf, UnitError> {
    if text.starts_with('/') {
        return Ok(PathBuf::from(text));
    }
    Err(UnitError {
        what: format!("`{}` is not an absolute path", text.escape_debug()),
        hint: "write the path from / on".to_owned(),
    })
}

fn witness(reader: &Reader, node: Node) -> Option<WitnessConfig> {
    let mut item = reader.section(node, "anchors.witnesses[]");
    item.must_have("url");
    item.must_have("key");
    let (url, key) = (item.parsed("url", url), item.text("key"));
    item.finish();
    Some(WitnessConfig { url: url?, key: key? })
}
