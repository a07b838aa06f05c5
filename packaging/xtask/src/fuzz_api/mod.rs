//! `cargo xtask fuzz-api`: thousands of requests made from the collector's own OpenAPI description by
//! schemathesis (a foreign program), good ones and bad ones, against a real collector that holds
//! events: as the administrator, then as an agent. None may be answered with 500, none may end
//! the collector, and its memory stays bounded.
//!
//! The hooks beside this file count the answers: the verdict is ours, not the exit code alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::bench::load::{self, Plan};
use crate::collector::Collector;
use crate::generate::Kind;
use crate::generate::blocks::Stream;
use crate::numbers::mib;
use crate::out::{self, say};
use crate::procfs;
use crate::python::Package;
use crate::shell::{self, Profile};

const SCHEMATHESIS: Package = Package { pinned: "schemathesis==4.32.5", program: "schemathesis" };
const HOOKS: &str = include_str!("hooks.py");
/// What the collector holds while it is asked.
const EVENTS: u64 = 3_000;
/// Rounds until the requests are reached: each draws others.
const MAX_ROUNDS: u64 = 20;
/// Of the short form.
const SHORT_REQUESTS: u64 = 1_500;
const SHORT_LIMIT_S: u64 = 25;

/// Arguments of `fuzz-api`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Requests, at least.
    #[arg(long, default_value_t = 10_000)]
    requests: u64,
    /// The short form, as in CI: half a minute.
    #[arg(long)]
    short: bool,
    /// Of what is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The collector may take so much memory, MiB.
    #[arg(long, default_value_t = 512)]
    max_memory: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let Some(schemathesis) = SCHEMATHESIS.program()? else {
        say("skipped: no fitting Python, or schemathesis cannot be installed");
        return Ok(());
    };
    let folder = shell::scratch(None)?;
    let programs = shell::build(Profile::Dev, folder.path())?;
    std::fs::write(folder.path().join("custody_hooks.py"), HOOKS)?;
    let log = folder.path().join("collector.log");
    let mut scene = Scene::set(&programs.collector, folder.path(), &log, schemathesis)?;
    let done = scene.fuzz(args).with_context(|| scene.collector.daemon.log_end())?;
    scene.collector.daemon.ensure_running()?;
    let memory = procfs::memory(scene.collector.daemon.pid())?;
    scene.collector.daemon.stop(Duration::from_secs(60))?;
    done.print();
    say(&format!("memory of the collector: {:.0} MiB at most", mib(memory.peak_bytes)));
    done.judge(if args.short { 1 } else { args.requests })?;
    let text = std::fs::read_to_string(&log)?;
    if let Some(line) = text.lines().find(|line| line.contains("panicked at")) {
        bail!("the collector has panicked: {line}");
    }
    if memory.peak_bytes > args.max_memory * 1024 * 1024 {
        bail!("the collector took more than {} MiB", args.max_memory);
    }
    say("no answer was a 500, and the collector goes on");
    Ok(())
}

/// A collector with events, and who asks it.
struct Scene {
    collector: Collector,
    folder: PathBuf,
    schemathesis: PathBuf,
    agent_token: String,
}

impl Scene {
    fn set(
        program: &Path,
        folder: &Path,
        log: &Path,
        schemathesis: PathBuf,
    ) -> anyhow::Result<Self> {
        let config = folder.join("collector.yaml");
        let archive = folder.join("archive");
        std::fs::write(
            &config,
            format!("archive: {{ type: dir, path: {}, after: 30d }}\n", archive.display()),
        )?;
        let config = config.to_str().context("a path is not UTF-8")?;
        let data = folder.join("data");
        let mut collector = Collector::start(program, &data, &["--config", config], log)?;
        let loads = load::make(
            &Plan { events: EVENTS, streams: 2, seed: 1, days: 7, kinds: Kind::ALL.to_vec() },
            shell::now(),
            folder,
        )?;
        load::post(&collector, &loads, u64::MAX)?;
        load::wait_until_found(&mut collector, &loads)?;
        let stream = Stream::new(77)?;
        let agent_token = collector.enroll(stream.agent, &stream.host, stream.key())?;
        Ok(Self { collector, folder: folder.to_owned(), schemathesis, agent_token })
    }

    fn fuzz(&mut self, args: &Args) -> anyhow::Result<Done> {
        let token = std::fs::read_to_string(self.collector.admin_token_file())?;
        let mut done = Done::default();
        let wanted = if args.short { SHORT_REQUESTS } else { args.requests };
        for round in 0..MAX_ROUNDS {
            if done.requests >= wanted {
                break;
            }
            // About seventy operations; what is drawn for each phase comes on top.
            let examples = ((wanted - done.requests) / 70).clamp(3, 200);
            let limit = args.short.then_some(SHORT_LIMIT_S);
            let seed = args.seed.wrapping_mul(1_000).wrapping_add(round);
            self.ask(token.trim(), &[], examples, seed, limit, &mut done)?;
            self.collector.daemon.ensure_running()?;
            if args.short {
                break;
            }
        }
        let agents = ["--include-tag", "agents"];
        let examples = if args.short { 10 } else { 300 };
        let (token, limit) = (self.agent_token.clone(), args.short.then_some(5));
        self.ask(&token, &agents, examples, args.seed, limit, &mut done)?;
        Ok(done)
    }

    fn ask(
        &self,
        token: &str,
        more: &[&str],
        examples: u64,
        seed: u64,
        limit_s: Option<u64>,
        done: &mut Done,
    ) -> anyhow::Result<()> {
        let counts = self.folder.join("counts.json");
        let said = self.folder.join("schemathesis.log");
        let file = std::fs::File::create(&said)?;
        let mut command = Command::new(&self.schemathesis);
        command
            .arg("run")
            .arg(format!("http://{}/openapi.json", self.collector.address))
            .args(["-H", &format!("Authorization: Bearer {token}")])
            .args(["--phases", "examples,coverage,fuzzing", "--checks", "not_a_server_error"])
            .args(["--max-examples", &examples.to_string(), "--seed", &seed.to_string()])
            .args(["--generation-database", "none", "--suppress-health-check", "all"])
            .args(["--continue-on-failure", "--no-color", "--request-timeout", "60"])
            .args(more)
            .env("SCHEMATHESIS_HOOKS", "custody_hooks")
            .env("PYTHONPATH", &self.folder)
            .env("CUSTODY_FUZZ_COUNTS", &counts)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        if let Some(limit) = limit_s {
            command.args(["--max-time", &limit.to_string()]);
        }
        let status = command.status().context("cannot run schemathesis")?;
        let end = || crate::daemon::log_end("schemathesis", &said);
        let text = std::fs::read(&counts).with_context(|| format!("{status}\n{}", end()))?;
        done.add(&serde_json::from_slice(&text)?);
        // 0: nothing found; 1: something found, which the counts say too; else it has failed itself.
        if status.code().is_none_or(|code| code > 1) || done.requests == 0 {
            bail!("schemathesis has failed ({status})\n{}", end());
        }
        Ok(())
    }
}

/// What was answered.
#[derive(Debug, Default)]
struct Done {
    requests: u64,
    statuses: std::collections::BTreeMap<String, u64>,
    operations: std::collections::BTreeMap<String, u64>,
    failures: Vec<Value>,
    slowest_s: f64,
    slowest: String,
}

impl Done {
    fn add(&mut self, counts: &Value) {
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        self.requests += count(&counts["requests"]);
        for (field, sums) in
            [("statuses", &mut self.statuses), ("operations", &mut self.operations)]
        {
            for (name, value) in counts[field].as_object().into_iter().flatten() {
                *sums.entry(name.clone()).or_default() += count(value);
            }
        }
        self.failures.extend(counts["failures"].as_array().cloned().unwrap_or_default());
        let slowest = counts["slowest_s"].as_f64().unwrap_or(0.0);
        if slowest > self.slowest_s {
            self.slowest_s = slowest;
            self.slowest = counts["slowest"].as_str().unwrap_or_default().to_owned();
        }
    }

    fn print(&self) {
        let operations = self.operations.len();
        say(&format!("{} requests of {operations} operations; answers:", self.requests));
        let rows =
            self.statuses.iter().map(|(status, count)| vec![status.clone(), count.to_string()]);
        let head = vec!["status".to_owned(), "answers".to_owned()];
        out::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
        say(&format!("the slowest took {:.1} s: {}", self.slowest_s, self.slowest));
    }

    /// 503 says that there are too many of something at once; any other 5xx is a failure.
    fn judge(&self, wanted: u64) -> anyhow::Result<()> {
        let is_bad =
            |status: &str| status == "no answer" || (status.starts_with('5') && status != "503");
        let bad: u64 =
            self.statuses.iter().filter(|(status, _)| is_bad(status)).map(|(_, count)| count).sum();
        if bad > 0 {
            let shown: Vec<String> = self.failures.iter().take(5).map(Value::to_string).collect();
            bail!("{bad} requests were not answered as they should be:\n{}", shown.join("\n"));
        }
        if self.requests < wanted {
            bail!("only {} requests were made, not {wanted}", self.requests);
        }
        Ok(())
    }
}
