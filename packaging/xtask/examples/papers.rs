//! Makes the papers of packages, for `cargo xtask dist`: manual pages (`man/*.1`) and completions (`bash/`, `zsh/`, `fish/`) from the programs' own command definitions.
//!
//! `custody-verify` takes its few arguments without a library; its definition is read from what its `--help` prints.
//!
//! An example, because examples may link what the developer commands themselves do not: the agent and the collector.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, Command, ValueHint};
use clap_complete::{Generator, Shell, generate};

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(programs), Some(out), None) = (words.next(), words.next(), words.next()) else {
        bail!("usage: papers FOLDER_WITH_CUSTODY_VERIFY OUT");
    };
    let verify = programs.join("custody-verify");
    let help = std::process::Command::new(&verify)
        .arg("--help")
        .output()
        .with_context(|| verify.display().to_string())?;
    let help = String::from_utf8(help.stdout).context("what custody-verify says")?;
    for command in [custody_agent::cli::command(), custody_collector::cli::command(), parsed(&help)]
    {
        pages(&command, &out.join("man"))?;
        complete(&command, Shell::Bash, &out.join("bash"), command.get_name())?;
        complete(&command, Shell::Zsh, &out.join("zsh"), &format!("_{}", command.get_name()))?;
        let fish = format!("{}.fish", command.get_name());
        complete(&command, Shell::Fish, &out.join("fish"), &fish)?;
    }
    Ok(())
}

/// One page for the program and one for each of its commands.
fn pages(command: &Command, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    // The date of a page is its commit's, or none: pages are the same wherever they are made.
    clap_mangen::generate_to(command.clone(), folder)
        .with_context(|| format!("the pages of {}", command.get_name()))
}

fn complete(
    command: &Command,
    shell: impl Generator,
    folder: &Path,
    file: &str,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut text = Vec::new();
    generate(shell, &mut command.clone(), command.get_name(), &mut text);
    let path = folder.join(file);
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}

/// The definition that `--help` prints: a line `  --name VALUE  what it does`, gone on with below; words before and after.
fn parsed(help: &str) -> Command {
    let mut command = Command::new("custody-verify").version(env!("CARGO_PKG_VERSION"));
    let mut about = Vec::new();
    let mut after = Vec::new();
    let mut option: Option<(String, Option<String>, String)> = None;
    for line in help.lines().skip(1) {
        match line.strip_prefix("  ").map(|rest| (rest, rest.trim_start())) {
            Some((rest, _)) if rest.starts_with("--help") => {}
            Some((rest, _)) if rest.starts_with("--") => {
                let done = option.replace(option_of(rest));
                command = with(command, done);
            }
            Some((_, more)) if option.is_some() => {
                if let Some((_, _, what)) = &mut option {
                    what.push(' ');
                    what.push_str(more);
                }
            }
            _ if option.is_some() => after.push(line),
            _ => about.push(line),
        }
    }
    with(command, option)
        .about(about.join(" ").trim().to_owned())
        .after_help(after.join("\n").trim().to_owned())
        .arg(Arg::new("BUNDLE|DIR").required(true).value_hint(ValueHint::AnyPath))
}

fn option_of(line: &str) -> (String, Option<String>, String) {
    let (head, what) = line.split_once("  ").unwrap_or((line, ""));
    let (name, value) = match head.trim().split_once(' ') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (head.trim(), None),
    };
    (name.trim_start_matches('-').to_owned(), value, what.trim().to_owned())
}

fn with(command: Command, option: Option<(String, Option<String>, String)>) -> Command {
    let Some((name, value, what)) = option else { return command };
    // clap holds names for ever; this program ends soon.
    let name: &'static str = name.leak();
    let arg = Arg::new(name).long(name).help(what);
    command.arg(match value {
        Some(value) => arg.value_name(&*value.leak()),
        None => arg.action(ArgAction::SetTrue),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_read_from_a_help_text() {
        let help = "usage: x [--json] FILE\n\nChecks it.\n\n  --json       one object\n  --key KEY    trust\n               this key\n  --help, --version\n\nExit codes: 0.\n";
        let command = parsed(help);
        let options: Vec<_> = command.get_arguments().map(|arg| arg.get_id().as_str()).collect();
        assert_eq!(options, ["json", "key", "BUNDLE|DIR"]);
        let key = command.get_arguments().nth(1).unwrap();
        assert_eq!(key.get_help().unwrap().to_string(), "trust this key");
        assert_eq!(command.get_about().unwrap().to_string(), "Checks it.");
    }
}
