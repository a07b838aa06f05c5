//! What redaction costs lines that hold no secret, in instructions:
//!
//! ```text
//! cargo build --release -p custody-parsers --example redact_cost
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/redact_cost sshd on 20000
//! ```
//! `on` or `off`; run it with two numbers of lines and take the difference, so that loading the packs
//! does not count.

use custody_parsers::bench_support::{Kind, lines, parse_all};
use custody_parsers::{PackSet, Redaction, Scratch, Select, Settings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let mut next = || words.next().ok_or("usage: redact_cost sshd|nginx|json on|off LINES");
    let (kind, redacts, count) = (next()?, next()?, next()?.parse::<u64>()?);
    let kind = Kind::ALL.iter().find(|known| known.name() == kind).ok_or("no such kind")?;
    let redaction = if redacts == "on" { Redaction::default() } else { Redaction::off() };
    let pack = match kind {
        Kind::Sshd => "sshd",
        Kind::Nginx => "nginx-access",
        Kind::Json => "generic-json",
    };
    let settings = Settings { redaction, ..Settings::default() };
    let parser =
        PackSet::with_builtin(&[])?.select(&Select::Names(vec![pack.to_owned()]), settings)?;
    let written = parse_all(&parser, &mut Scratch::new(), *kind, &lines(*kind, count));
    if written == 0 { Err("nothing was written".into()) } else { Ok(()) }
}
