//! One witness: `POST <prefix>/add-checkpoint` of C2SP tlog-witness.

use anyhow::{Context, bail};
use custody_config::collector::WitnessConfig;
use custody_evidence::note::{KeyType, Note};
use custody_evidence::{Checkpoint, VerifierKey, base64};
use reqwest::{Client, StatusCode};

use super::read;
use crate::tlog::Tlog;

/// Twice it may say that it knows another size: once at the start, once where others had asked it.
const TRIES: usize = 3;

/// See the module.
pub(super) struct Witness {
    url: String,
    key: VerifierKey,
    /// The size that it cosigned last.
    knows: u64,
    /// Its line for that size.
    line: Option<(u64, String)>,
}

impl Witness {
    pub(super) fn new(config: &WitnessConfig) -> anyhow::Result<Self> {
        let key: VerifierKey = config
            .key
            .get()
            .parse()
            .with_context(|| format!("anchors.witnesses: the key of {}", config.url.get()))?;
        if key.kind() != KeyType::Cosignature {
            bail!("anchors.witnesses: {} is a log's key, not a witness's", config.key.get());
        }
        let url = format!("{}/add-checkpoint", config.url.get().trim_end_matches('/'));
        Ok(Self { url, key, knows: 0, line: None })
    }

    /// Its cosignature of this checkpoint, as a line of the note.
    pub(super) async fn ask(
        &mut self,
        http: &Client,
        tlog: &Tlog,
        note: &str,
    ) -> anyhow::Result<String> {
        let size = Checkpoint::open(note, tlog.verifier())?.head.size;
        if let Some((_, line)) = self.line.as_ref().filter(|(known, _)| *known == size) {
            return Ok(line.clone());
        }
        for _ in 0..TRIES {
            let body = self.body(tlog, note, size)?;
            let sent = http.post(&self.url).body(body).send().await;
            let answer = sent.with_context(|| self.url.clone())?;
            let status = answer.status();
            let said = read(answer).await.with_context(|| self.url.clone())?;
            let said = String::from_utf8(said).with_context(|| self.url.clone())?;
            match status {
                StatusCode::OK => {
                    let line = self.line_of(note, &said)?;
                    (self.knows, self.line) = (size, Some((size, line.clone())));
                    return Ok(line);
                }
                StatusCode::CONFLICT => {
                    let knows = said.trim().parse::<u64>();
                    self.knows = knows.with_context(|| format!("{}: {status}", self.url))?;
                    if self.knows > size {
                        bail!(
                            "{}: the witness has seen {} entries and the log has {size}: the log was \
                             put back to an older state, or somebody else writes under its name and key",
                            self.url,
                            self.knows
                        );
                    }
                }
                StatusCode::UNPROCESSABLE_ENTITY => bail!(
                    "{}: the witness finds that the log does not continue the {} entries that it \
                     had seen: the log was rewritten",
                    self.url,
                    self.knows
                ),
                StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => bail!(
                    "{}: {status}: the witness does not know this log: it must be told {}",
                    self.url,
                    tlog.verifier()
                ),
                status => bail!("{}: {status}", self.url),
            }
        }
        bail!("{}: the witness says another size each time", self.url)
    }

    fn body(&self, tlog: &Tlog, note: &str, size: u64) -> anyhow::Result<String> {
        let mut body = format!("old {}\n", self.knows);
        for hash in tlog.consistency(self.knows, size)? {
            body.push_str(&base64::encode(&hash.0));
            body.push('\n');
        }
        body.push('\n');
        body.push_str(note);
        Ok(body)
    }

    /// Its own line of what it said, checked.
    fn line_of(&self, note: &str, said: &str) -> anyhow::Result<String> {
        let begin = format!("— {} ", self.key.name());
        let line = said.lines().find(|line| line.starts_with(&begin));
        let line = line.with_context(|| format!("{}: no signature of the witness", self.url))?;
        let line = format!("{line}\n");
        let signed = format!("{note}{line}");
        Note::parse(&signed)?.verify(&self.key).with_context(|| self.url.clone())?;
        Ok(line)
    }
}
