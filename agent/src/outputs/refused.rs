//! What a collector will never take (413, 422): it is set aside for this output alone.
//!
//! The block stays in the spool as it is, for the other outputs. This one sends its header and bare
//! leaves instead, so that the stream stays whole there, and goes on. The events are kept as a dead
//! letter, and what this output does not get is a gap event of the chain.

use bytes::Bytes;
use custody_event::Block;

use super::custody::{CustodyOutput, Next};
use crate::pipeline::{OwnAct, Undelivered};

impl CustodyOutput {
    /// The form in which this output sends the block.
    pub(super) fn form_of(&self, seq: u64, bytes: Bytes) -> Result<Bytes, String> {
        if !self.refused.contains(&seq) {
            return Ok(bytes);
        }
        Block::decode(&bytes)
            .and_then(|block| block.to_sparse(|_, _| false))
            .and_then(|block| block.encode())
            .map(Into::into)
            .map_err(|error| format!("block {seq} cannot be sent without its events: {error}"))
    }

    /// The events go to the dead letters, the block goes on as header and bare leaves.
    pub(super) async fn set_aside(&mut self, seq: u64, said: &str) -> Next {
        if let Some(why) = self.not_as_signed(seq).await {
            let reason =
                format!("block {seq} in the spool is not what this agent had signed: {why}");
            return self.end_stream(seq, reason, true).await;
        }
        if let Err(reason) = self.refuse_events(seq, said).await {
            self.trouble("cannot set the refused block aside", &reason);
            self.wait_after_failure().await;
        }
        Next::Resume(seq)
    }

    /// Does the block's content not make the root that its header names? Then somebody has changed
    /// it where it lay.
    async fn not_as_signed(&self, seq: u64) -> Option<String> {
        let bytes = self.spool.read(seq).await.ok()??;
        let checked = Block::decode(&bytes).and_then(|block| {
            block.coverage()?;
            block.open().map(drop)
        });
        checked.err().map(|error| error.to_string())
    }

    async fn refuse_events(&mut self, seq: u64, said: &str) -> Result<(), String> {
        let bytes = self.spool.read(seq).await.map_err(|error| error.to_string())?;
        let bytes = bytes.ok_or_else(|| format!("block {seq} is not in the spool"))?;
        let block = Block::decode(&bytes).map_err(|error| error.to_string())?;
        if self.refused.contains(&seq) || block.is_sparse() {
            return Err(format!("its form without events was refused too: {said}"));
        }
        let id = self.settings.id.clone();
        let gap = Undelivered::of(&id, &block, said);
        let puts = gap.iter().map(Undelivered::to_put).collect::<Result<Vec<_>, _>>();
        let puts = puts.map_err(|error| error.to_string())?;
        let done = self.spool.set_aside(&id, seq, said, puts).await;
        done.map_err(|error| error.to_string())?;
        self.refused.insert(seq);
        log::error!(
            output = id.as_str(), seq = seq;
            "the collector refuses block {seq} ({said}); its events are kept as a dead letter: custody-agent spool ls --dead"
        );
        if let Some(gap) = gap
            && let Err(error) = self.settings.acts.try_send(OwnAct::Undelivered(gap))
        {
            log::warn!("the gap of a refused block is told at the next start: {error}");
        }
        Ok(())
    }
}
