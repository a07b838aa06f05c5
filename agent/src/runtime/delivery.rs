//! The async side: one thread with a small runtime for outputs and the admin socket.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, bounded};
use custody_config::agent::{AdminConfig, OutputConfig};
use custody_config::shell::StopToken;
use custody_config::{AgentConfig, Problem};
use custody_event::StreamId;
use tokio_util::task::TaskTracker;

use super::{Shared, build};
use crate::admin::http::Pages;
use crate::admin::{AdminSocket, Answer};
use crate::outputs::{CustodyOutput, Ended};
use crate::pipeline::OwnAct;
use crate::spool::{OutputCursor, SpoolHandle};
use crate::status::OutputState;

/// Events about outputs that wait for the session's next look.
const ACTS: usize = 64;

/// Outputs of one configuration, running.
pub(crate) struct Delivery {
    pub(crate) outputs: Vec<Arc<OutputState>>,
    ended: Receiver<Ended>,
    acts: Receiver<OwnAct>,
    stop: StopToken,
    thread: JoinHandle<anyhow::Result<()>>,
}

/// An output that is ready to run, with the block it begins at.
type Ready = (CustodyOutput, u64);

impl Delivery {
    pub(crate) fn start(
        config: &AgentConfig,
        shared: &Shared,
        stream: StreamId,
        answer: impl FnOnce(&[Arc<OutputState>]) -> Answer,
    ) -> anyhow::Result<Self> {
        let (acts_tx, acts) = bounded(ACTS);
        let (ready, outputs) = prepare(config, shared, stream, &acts_tx)?;
        let (ended_tx, ended) = bounded(config.outputs.len().max(1));
        let stop = StopToken::new();
        let answer = answer(&outputs);
        let settings = config.admin.clone();
        let stopped = stop.clone();
        let (bound_tx, bound) = bounded(1);
        let thread = std::thread::Builder::new().name("deliver".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let admin = match Admin::bind(&settings).await {
                    Ok(admin) => admin,
                    Err(problem) => {
                        let _session_gone = bound_tx.send(Err(problem));
                        return Ok(());
                    }
                };
                let _session_gone = bound_tx.send(Ok(()));
                work(ready, admin, answer, ended_tx, stopped).await;
                Ok(())
            })
        })?;
        bound.recv().context("the delivery thread could not start")??;
        Ok(Self { outputs, ended, acts, stop, thread })
    }

    /// An output that has ended by itself.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended.try_recv().ok()
    }

    /// Something that befell an output and belongs into the stream.
    pub(crate) fn act(&self) -> Option<OwnAct> {
        self.acts.try_recv().ok()
    }

    /// Waits until everything durable is acknowledged by all outputs, at most `within`.
    pub(crate) fn drain(
        &self,
        spool: &SpoolHandle,
        within: Duration,
        clock: &dyn custody_event::Clock,
    ) {
        let until = clock.monotonic() + within;
        loop {
            let end = spool.durable().borrow().next_seq;
            let behind = self.outputs.iter().any(|output| output.snapshot(end).lag_blocks > 0);
            if !behind || clock.monotonic() >= until {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn finish(self) -> anyhow::Result<()> {
        self.stop.stop();
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => anyhow::bail!("the delivery thread has panicked; the message is above"),
        }
    }
}

fn prepare(
    config: &AgentConfig,
    shared: &Shared,
    stream: StreamId,
    acts: &Sender<OwnAct>,
) -> anyhow::Result<(Vec<Ready>, Vec<Arc<OutputState>>)> {
    let ids: Vec<&str> = config.outputs.iter().map(OutputConfig::id).collect();
    let cursors = shared.spool.register_outputs(&ids).wait()?;
    let mut ready = Vec::new();
    let mut states = Vec::new();
    for output in &config.outputs {
        let OutputConfig::Custody(custody) = output;
        let cursor = cursors.iter().find(|cursor| cursor.output == output.id());
        let from = cursor.map_or(0, |cursor| cursor.next_seq);
        let mut settings = build::output_settings(custody, shared, acts.clone())?;
        settings.refused.extend(cursor.iter().flat_map(|cursor| &cursor.refused));
        if let Some(cursor) = cursor.filter(|cursor| cursor.skipped > 0) {
            settings.skipped = from.saturating_sub(cursor.skipped)..from;
            if acts.try_send(skipped_gap(cursor)).is_err() {
                log::warn!("the gap of output {} could not be told", cursor.output);
            }
        }
        let state = OutputState::new(output.id(), from);
        states.push(Arc::clone(&state));
        let output = CustodyOutput::new(
            settings,
            build::identity(config, shared),
            build::client(custody)?,
            shared.spool.clone(),
            (stream, shared.generation),
            Arc::clone(&shared.clock),
            state,
        )
        .map_err(anyhow::Error::msg)?;
        ready.push((output, from));
    }
    Ok((ready, states))
}

/// The gap for blocks that an output never gets.
fn skipped_gap(cursor: &OutputCursor) -> OwnAct {
    let OutputCursor { output, next_seq, skipped, .. } = cursor;
    OwnAct::Gap {
        code: "output_skipped".into(),
        text: format!(
            "Output {output} was not configured for a while; {skipped} blocks before block {next_seq} were deleted meanwhile and never reach it."
        ),
        source: None,
        path: None,
        from: None,
        bytes: None,
        records: None,
    }
}

/// How the agent is asked about itself.
struct Admin {
    socket: AdminSocket,
    pages: Option<Pages>,
}

impl Admin {
    async fn bind(settings: &AdminConfig) -> Result<Self, Problem> {
        let socket = &settings.socket;
        let bound = AdminSocket::bind(socket.get()).map_err(|error| {
            socket.problem(
                format!("cannot listen on {}: {error}", socket.get().display()),
                "choose another admin.socket, or make its folder and give it to this user",
            )
        })?;
        let pages = match &settings.metrics {
            None => None,
            Some(at) => Some(Pages::bind(*at.get()).await.map_err(|error| {
                at.problem(
                    format!("cannot listen on {}: {error}", at.get()),
                    "choose another address for admin.metrics, or end who has it",
                )
            })?),
        };
        Ok(Self { socket: bound, pages })
    }
}

async fn work(
    outputs: Vec<Ready>,
    admin: Admin,
    answer: Answer,
    ended: Sender<Ended>,
    stop: StopToken,
) {
    let tasks = TaskTracker::new();
    for (output, from) in outputs {
        let (stop, ended) = (stop.clone(), ended.clone());
        tasks.spawn(async move {
            let end = output.run(from, stop).await;
            if let Err(error) = ended.try_send(end) {
                log::debug!("an output's end was not needed: {error}");
            }
        });
    }
    if let Some(pages) = admin.pages {
        tasks.spawn(pages.serve(Arc::clone(&answer), stop.clone()));
    }
    tasks.spawn(admin.socket.serve(answer, stop));
    tasks.close();
    tasks.wait().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_of_an_output_names_it_and_how_many_blocks_it_missed() {
        let cursor =
            OutputCursor { output: "east".into(), next_seq: 9, skipped: 4, refused: Vec::new() };
        let OwnAct::Gap { code, text, .. } = skipped_gap(&cursor) else { panic!("a gap") };
        assert_eq!(code, "output_skipped");
        assert!(text.contains("east") && text.contains("4 blocks before block 9"), "{text}");
    }
}
