//! `custody-agent spool`: what is in the spool of an agent that is not running.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use custody_config::shell::{Exit, Failure};
use custody_event::block::Entry;
use custody_event::{Block, Clock, SystemClock};
use custody_evidence::whole::give_all_to_owner;

use super::{ConfigArgs, print};
use crate::ours::{self, Ours};
use crate::spool::{Inspector, OpenError, StoreError, inspect};

/// Arguments of `spool`.
#[derive(Debug, Args)]
pub(super) struct SpoolArgs {
    #[command(subcommand)]
    command: SpoolCommand,
}

#[derive(Debug, Subcommand)]
enum SpoolCommand {
    /// List the blocks.
    Ls {
        #[command(flatten)]
        config: ConfigArgs,
        /// List what collectors refused instead.
        #[arg(long)]
        dead: bool,
    },
    /// Print the events of one block, or of all.
    Cat {
        #[command(flatten)]
        config: ConfigArgs,
        /// The block's number; all blocks if left out.
        seq: Option<u64>,
    },
    /// Check every block: checksum, hashes, signature, place in the chain.
    Verify {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Write all blocks into a bundle, for custody-verify.
    #[command(
        after_help = "Example:\n  sudo custody-agent spool export web1.custody && custody-verify web1.custody"
    )]
    Export {
        #[command(flatten)]
        config: ConfigArgs,
        /// The bundle; must not be there yet.
        file: PathBuf,
    },
}

pub(super) fn run(args: &SpoolArgs) -> anyhow::Result<Exit> {
    let config = match &args.command {
        SpoolCommand::Ls { config, .. }
        | SpoolCommand::Cat { config, .. }
        | SpoolCommand::Verify { config }
        | SpoolCommand::Export { config, .. } => config,
    };
    let folder = spool_path(config)?;
    let done = look(args);
    // To look into a store is to open it, which may leave files; called by root, these would be root's.
    if matches!(folder.try_exists(), Ok(true)) {
        give_all_to_owner(&folder).map_err(|error| {
            let what =
                format!("{} holds files of root's that the service cannot read", folder.display());
            Failure::because(Exit::Io, what, error)
        })?;
    }
    done
}

fn look(args: &SpoolArgs) -> anyhow::Result<Exit> {
    let mut out = print::stdout();
    let exit = match &args.command {
        SpoolCommand::Ls { config, dead: false } => list(&mut open(config)?, &mut out),
        SpoolCommand::Ls { config, dead: true } => list_dead(&mut open(config)?, &mut out),
        SpoolCommand::Cat { config, seq } => cat(&mut open(config)?, *seq, &mut out),
        SpoolCommand::Verify { config } => verify(config, &mut out),
        SpoolCommand::Export { config, file } => export(config, file, &mut out),
    }?;
    out.flush()?;
    Ok(exit)
}

fn open(config: &ConfigArgs) -> anyhow::Result<Inspector> {
    let path = spool_path(config)?;
    inspect(&path, crate::spool::trailing_crc).map_err(|error| cannot_look(&path, error))
}

fn cannot_look(
    path: &Path,
    error: impl std::error::Error + Send + Sync + 'static,
) -> anyhow::Error {
    Failure::because(Exit::Io, format!("cannot look into {}", path.display()), error).into()
}

/// With `--data-dir` no configuration is needed.
fn data_dir(config: &ConfigArgs) -> anyhow::Result<PathBuf> {
    Ok(match &config.data_dir {
        Some(data_dir) => data_dir.clone(),
        None => config.loader().load().map_err(Failure::from)?.value.data_dir.get().clone(),
    })
}

fn spool_path(config: &ConfigArgs) -> anyhow::Result<PathBuf> {
    Ok(data_dir(config)?.join("spool"))
}

fn export(config: &ConfigArgs, file: &Path, out: &mut impl Write) -> anyhow::Result<Exit> {
    let data_dir = data_dir(config)?;
    let (identity, rotations) = ours::identity_in(&data_dir)?;
    let mut spool = open(config)?;
    let fail = |error: std::io::Error| {
        Failure::because(Exit::Io, format!("cannot write {}", file.display()), error)
    };
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let target = BufWriter::new(target.map_err(fail)?);
    let made = SystemClock::new().now();
    let written = ours::export(&mut spool, &identity, &rotations, made, target)
        .map_err(anyhow::Error::from)
        .and_then(|(target, done)| {
            let target = target.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            target.sync_all()?;
            Ok(done)
        });
    let done = match written {
        Ok(done) => done,
        Err(error) => {
            // Half a bundle is none.
            std::fs::remove_file(file).map_err(fail)?;
            return Err(Failure::new(Exit::Io, format!("{}: {error:#}", file.display())).into());
        }
    };
    writeln!(out, "{} blocks in {}", done.blocks, file.display())?;
    for seq in &done.unreadable {
        writeln!(out, "block {seq} should be there and cannot be read")?;
    }
    writeln!(out, "the agent's first key, as it was enrolled: {}", done.first_key.to_hex())?;
    Ok(if done.unreadable.is_empty() { Exit::Good } else { Exit::No })
}

fn list(spool: &mut Inspector, out: &mut impl Write) -> anyhow::Result<Exit> {
    writeln!(out, "BLOCK       BYTES   EVENTS  FIRST EVENT                  LAST EVENT")?;
    for entry in spool.blocks()? {
        let Some(bytes) = spool.read(entry.seq)? else { continue };
        match Block::decode(&bytes) {
            Ok(block) => {
                let header = &block.header;
                writeln!(
                    out,
                    "{:<8}  {:>8}  {:>6}  {}  {}",
                    entry.seq, entry.len, header.count, header.first_time, header.last_time
                )?;
            }
            Err(error) => writeln!(out, "{:<8}  {:>8}  {error}", entry.seq, entry.len)?,
        }
    }
    Ok(Exit::Good)
}

fn list_dead(spool: &mut Inspector, out: &mut impl Write) -> anyhow::Result<Exit> {
    writeln!(out, "DEAD LETTER  BLOCK       BYTES  REASON")?;
    for letter in spool.dead_letters()? {
        writeln!(
            out,
            "{:<11}  {:<8}  {:>8}  {}",
            letter.id, letter.seq, letter.len, letter.reason
        )?;
    }
    Ok(Exit::Good)
}

fn cat(spool: &mut Inspector, only: Option<u64>, out: &mut impl Write) -> anyhow::Result<Exit> {
    let seqs: Vec<u64> = match only {
        Some(seq) => vec![seq],
        None => spool.blocks()?.into_iter().map(|entry| entry.seq).collect(),
    };
    for seq in seqs {
        let Some(bytes) = spool.read(seq)? else {
            return Err(Failure::new(Exit::No, format!("block {seq} is not in the spool")).into());
        };
        let block = Block::decode(&bytes)?;
        for entry in block.open()?.entries() {
            match entry {
                Entry::Event(event) => {
                    out.write_all(event)?;
                    writeln!(out)?;
                }
                Entry::Leaf(leaf) => writeln!(out, "{{\"leaf\":\"{leaf}\"}}")?,
            }
        }
    }
    Ok(Exit::Good)
}

fn verify(config: &ConfigArgs, out: &mut impl Write) -> anyhow::Result<Exit> {
    let path = spool_path(config)?;
    // Without the keys (a copy of the spool alone) the rest is checked all the same.
    let ours = ours::identity_in(&data_dir(config)?).ok();
    let ours = ours.map(|(identity, rotations)| Ours::new(&identity, &rotations, false));
    let mut verified = Verified { ours, ..Verified::default() };
    let walked = match inspect(&path, crate::spool::trailing_crc) {
        Ok(mut spool) => verified.walk(&mut spool),
        Err(OpenError::Store { error, .. }) => Err(error),
        Err(error) => return Err(cannot_look(&path, error)),
    };
    match walked {
        Err(error) if error.is_environment() => return Err(cannot_look(&path, error)),
        Err(error) => verified.problems.push(format!(
            "{error}: at its next start the agent puts this store aside, says so in a gap event, \
             and reads again what it can"
        )),
        Ok(()) => {}
    }
    for problem in &verified.problems {
        writeln!(out, "{problem}")?;
    }
    let Verified { blocks, events, problems, ours } = &verified;
    if ours.is_none() {
        writeln!(out, "signatures are not checked: the agent's key is not beside the spool")?;
    }
    writeln!(out, "{blocks} blocks, {events} events verified; {} problems", problems.len())?;
    Ok(if problems.is_empty() { Exit::Good } else { Exit::No })
}

/// What `spool verify` has found so far.
#[derive(Default)]
struct Verified {
    blocks: u64,
    events: u64,
    problems: Vec<String>,
    ours: Option<Ours>,
}

impl Verified {
    fn walk(&mut self, spool: &mut Inspector) -> Result<(), StoreError> {
        self.problems = spool.verify()?.problems;
        let mut chain: Option<custody_evidence::Chain> = None;
        for entry in spool.blocks()? {
            let checked = spool
                .read(entry.seq)?
                .ok_or_else(|| "it is missing".to_owned())
                .and_then(|bytes| check_block(&bytes, &mut chain, self.ours.as_ref()));
            match checked {
                Ok(count) => {
                    self.blocks += 1;
                    self.events += u64::from(count);
                }
                Err(error) => self.problems.push(format!("block {}: {error}", entry.seq)),
            }
        }
        Ok(())
    }
}

fn check_block(
    bytes: &[u8],
    chain: &mut Option<custody_evidence::Chain>,
    ours: Option<&Ours>,
) -> Result<u32, String> {
    let block = Block::decode(bytes).map_err(|error| error.to_string())?;
    let header = &block.header;
    let chain = chain.get_or_insert_with(|| custody_evidence::Chain {
        stream: header.stream,
        next_seq: header.seq,
        last_hash: header.prev,
    });
    chain.check(&block).map_err(|error| error.to_string())?;
    if let Some(ours) = ours {
        ours.check(&block)?;
    }
    let opened = block.open().map_err(|error| error.to_string())?;
    for (index, event) in opened.events() {
        custody_event::canon::check(event).map_err(|error| format!("event {index}: {error}"))?;
    }
    block.coverage().map_err(|error| error.to_string())?;
    chain.advance(&block);
    Ok(header.count)
}
