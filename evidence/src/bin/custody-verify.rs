//! `custody-verify`: judges evidence offline. No network, no database, nothing written.
//!
//! Exit codes: 0 verified, 1 tampered (says where), 2 unreadable, 64 usage.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use custody_evidence::verify::{Report, Trust, VerifyError, verify_bundle, verify_dir};

const USAGE: &str = "\
usage: custody-verify [--json] [--key KEY] [--checkpoint FILE] BUNDLE|DIR

Checks an evidence bundle, a collector's data directory, or an agent's spool
export (as a bundle), without network or database.

  --json             print one JSON object
  --key KEY          trust this key: a log's verifier key (name+id+base 64), or
                     an agent's first public key (64 hex digits) for a spool;
                     or a witness's verifier key, to say whether it cosigned
                     (may be repeated); or @FILE, which holds one
  --checkpoint FILE  trust this older checkpoint: the log must continue it
  --help, --version

Exit codes: 0 verified, 1 tampered, 2 unreadable, 64 usage.
";
const MAX_ARGUMENT_FILE_BYTES: u64 = 64 * 1024;

fn main() -> ExitCode {
    let outcome = run(std::env::args_os().skip(1).collect());
    let (text, code) = match outcome {
        Ok((text, code)) => (text, code),
        Err(Failure::Usage(what)) => return complain(&format!("{what}\n\n{USAGE}"), 64),
        Err(Failure::Unreadable(what)) => return complain(&format!("{what}\n"), 2),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(code),
        Err(error) => complain(&format!("cannot write the answer: {error}\n"), 2),
    }
}

/// Where even the complaint cannot be written, the exit code alone must do.
fn complain(text: &str, code: u8) -> ExitCode {
    let _ = write!(io::stderr().lock(), "custody-verify: {text}");
    ExitCode::from(code)
}

enum Failure {
    Usage(String),
    Unreadable(String),
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

#[derive(Default)]
struct Arguments {
    json: bool,
    trust: Trust,
    target: Option<PathBuf>,
}

fn run(arguments: Vec<std::ffi::OsString>) -> Result<(String, u8), Failure> {
    let mut parsed = Arguments::default();
    let mut rest = arguments.into_iter();
    let mut options = true;
    while let Some(argument) = rest.next() {
        let text = argument.to_str().unwrap_or_default();
        let mut value =
            |name: &str| rest.next().ok_or_else(|| Failure::Usage(format!("{name} needs a value")));
        match text {
            "--" if options => options = false,
            "--json" if options => parsed.json = true,
            "--key" if options => trust_key(&mut parsed.trust, &value("--key")?)?,
            "--checkpoint" if options => {
                let path = PathBuf::from(value("--checkpoint")?);
                parsed.trust.checkpoint = Some(read_small(&path)?);
            }
            "--help" | "-h" if options => return Ok((USAGE.to_owned(), 0)),
            "--version" | "-V" if options => {
                return Ok((format!("custody-verify {}\n", env!("CARGO_PKG_VERSION")), 0));
            }
            _ if options && text.starts_with('-') => {
                return Err(Failure::Usage(format!("unknown option {text}")));
            }
            _ if parsed.target.is_some() => {
                return Err(Failure::Usage("more than one bundle or directory".to_owned()));
            }
            _ => parsed.target = Some(PathBuf::from(argument)),
        }
    }
    let target = parsed.target.take();
    let target = target.ok_or_else(|| Failure::Usage("no bundle or directory named".to_owned()))?;
    let report = verify(&target, &parsed.trust)?;
    let text = if parsed.json {
        let json = report.to_json().map_err(|e| Failure::Unreadable(e.to_string()))?;
        format!("{json}\n")
    } else {
        report.to_text()
    };
    Ok((text, u8::from(!report.verified)))
}

fn trust_key(trust: &mut Trust, value: &std::ffi::OsStr) -> Result<(), Failure> {
    let text = value.to_str().ok_or_else(|| Failure::Usage("--key is not UTF-8".to_owned()))?;
    let text = match text.strip_prefix('@') {
        Some(path) => read_small(Path::new(path))?,
        None => text.to_owned(),
    };
    trust.add_key(&text).map_err(|error| Failure::Usage(format!("--key is {error}")))
}

fn read_small(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = File::open(path)
        .and_then(|file| file.take(MAX_ARGUMENT_FILE_BYTES).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::Unreadable(format!("{}: {error}", path.display()))),
    }
}

fn verify(target: &Path, trust: &Trust) -> Result<Report, Failure> {
    let unreadable =
        |error: io::Error| Failure::Unreadable(format!("{}: {error}", target.display()));
    if std::fs::metadata(target).map_err(unreadable)?.is_dir() {
        return Ok(verify_dir(target, trust)?);
    }
    let file = File::open(target).map_err(unreadable)?;
    Ok(verify_bundle(file, &target.display().to_string(), trust)?)
}
