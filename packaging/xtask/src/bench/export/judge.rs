//! What others make of an exported file: a reader of RFC 4180 and of lines here, LibreOffice for the
//! beginning of a CSV (a sheet has a million rows at most), DuckDB for Parquet, poppler for PDF,
//! the verifier for bundles. Who is not installed does not judge.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use custody_event::Digest;
use custody_evidence::verify::{Trust, verify_bundle};

use super::{row, said};
use crate::python::Package;
use crate::shell;

const DUCKDB: Package = Package { pinned: "duckdb==1.5.6", program: "python" };
/// Records of a CSV that LibreOffice opens.
const OPENED_RECORDS: u64 = 20_000;

/// Fails where a judge finds anything amiss.
pub(super) fn judge(
    format: &str,
    file: &Path,
    events: u64,
    content: &str,
) -> anyhow::Result<Vec<Vec<String>>> {
    let verdicts = match format {
        "csv" => csv(file, events)?,
        "json" => vec![row(format, "lines", lines(file, events + 2)?)],
        "ndjson" => {
            let hash = digest(file)?.to_hex();
            if hash != content {
                bail!("ndjson: SHA-256 {hash}, the proof says {content}");
            }
            vec![
                row(format, "lines", lines(file, events)?),
                row(format, "SHA-256", "as the proof says"),
            ]
        }
        "parquet" => vec![row(format, "DuckDB", parquet(file, events, ASK)?)],
        "parquet-ocsf" => vec![row(format, "DuckDB", parquet(file, events, ASK_NESTED)?)],
        "pdf" => vec![row(format, "poppler", pdf(file)?)],
        _ => vec![row(format, "verifier", bundle(file, events)?)],
    };
    Ok(verdicts)
}

fn lines(file: &Path, expected: u64) -> anyhow::Result<String> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(file)?);
    let (mut line, mut count) = (Vec::new(), 0_u64);
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = line.trim_ascii_end();
        let event = text.strip_suffix(b",").unwrap_or(text);
        if !matches!(event, b"[" | b"]") {
            serde_json::from_slice::<serde_json::Value>(event)
                .with_context(|| format!("line {}", count + 1))?;
        }
        count += 1;
        line.clear();
    }
    if count != expected {
        bail!("{}: {count} lines, not {expected}", file.display());
    }
    Ok(format!("{count} lines of JSON"))
}

fn digest(file: &Path) -> anyhow::Result<Digest> {
    let sum = shell::run("sha256sum", &[file])?;
    let hex = sum.split_whitespace().next().unwrap_or_default();
    hex.parse().map_err(|_| anyhow::anyhow!("sha256sum said {sum:?}"))
}

fn csv(file: &Path, events: u64) -> anyhow::Result<Vec<Vec<String>>> {
    let head = file.with_extension("head.csv");
    let (records, fields) = records(file, &head)?;
    if records != events + 1 {
        bail!("csv: {records} records, not {events} and a head");
    }
    let read = row("csv", "RFC 4180", format!("{records} records of {fields} fields"));
    let opened = row("csv", "LibreOffice", libreoffice(&head, records.min(OPENED_RECORDS))?);
    std::fs::remove_file(&head)?;
    Ok(vec![read, opened])
}

/// Counts records and fields (all must have as many); copies the first ones to `head`.
fn records(file: &Path, head: &Path) -> anyhow::Result<(u64, u64)> {
    let reader = BufReader::with_capacity(1 << 20, File::open(file)?);
    let mut out = BufWriter::new(File::create(head)?);
    let (mut quoted, mut records, mut fields, mut of_all) = (false, 0_u64, 1_u64, 0_u64);
    for byte in reader.bytes() {
        let byte = byte?;
        if records < OPENED_RECORDS {
            out.write_all(&[byte])?;
        }
        match byte {
            // A doubled quote inside a field closes it and opens it again.
            b'"' => quoted = !quoted,
            b',' if !quoted => fields += 1,
            b'\n' if !quoted => {
                records += 1;
                if records > 1 && fields != of_all {
                    bail!("csv: record {records} has {fields} fields, the head {of_all}");
                }
                (of_all, fields) = (fields, 1);
            }
            _ => {}
        }
    }
    if quoted || fields != 1 {
        bail!("csv: the last record has no end");
    }
    out.flush()?;
    Ok((records, of_all))
}

/// Opened and written again: as many rows.
fn libreoffice(file: &Path, records: u64) -> anyhow::Result<String> {
    if !shell::installed("soffice") {
        return Ok("skipped: soffice is not installed".to_owned());
    }
    let folder = shell::scratch(None)?;
    let profile = format!("-env:UserInstallation=file://{}", folder.path().join("p").display());
    let file = file.to_str().context("a path is not UTF-8")?;
    let to = folder.path().to_str().context("a path is not UTF-8")?;
    let filter = "--infilter=Text - txt - csv (StarCalc):44,34,76";
    let args =
        [profile.as_str(), "--headless", filter, "--convert-to", "ods", "--outdir", to, file];
    shell::run("soffice", &args)?;
    let sheet = folder.path().join("export.head.ods");
    let sheet = sheet.to_str().context("a path is not UTF-8")?;
    let back = ["csv:Text - txt - csv (StarCalc):44,34,76"];
    let args = [profile.as_str(), "--headless", "--convert-to", back[0], "--outdir", to, sheet];
    shell::run("soffice", &args)?;
    let again = folder.path().join("export.head.csv");
    let (found, fields) = self::records(&again, &folder.path().join("x"))?;
    if found != records {
        bail!("csv: LibreOffice has {found} rows, not {records}");
    }
    Ok(format!("opens: {found} rows of {fields} columns"))
}

const ASK: &str = "import sys, duckdb
rows, ids, first, last = duckdb.sql(
    'select count(*), count(distinct id), min(time)::varchar, max(time)::varchar from read_parquet(?)', params=[sys.argv[1]]).fetchone()
assert first < last and ids == rows, (rows, ids, first, last)
top = duckdb.sql('select action, count(*) n from read_parquet(?) group by 1 order by n desc limit 3', params=[sys.argv[1]]).fetchall()
print(rows, top[0][0], top[0][1])
";

/// Objects are structs, lists are lists, and every event has its identity and its user.
const ASK_NESTED: &str = r#"import sys, duckdb
ask = lambda what: duckdb.sql('select ' + what, params=[sys.argv[1]]).fetchall()
rows, ids, first, last, profiles = ask("count(*), count(distinct metadata.uid), min(time), max(time), count(*) filter (list_contains(metadata.profiles, 'host')) from read_parquet(?)")[0]
assert first < last and ids == rows == profiles, (rows, ids, first, last, profiles)
top = ask("class_name, coalesce(actor.user.name, '') who, count(*) n from read_parquet(?) group by 1, 2 order by n desc, 1, 2 limit 1")
print(rows, top[0][0] + ':', top[0][1], top[0][2])
"#;

fn parquet(file: &Path, events: u64, ask: &str) -> anyhow::Result<String> {
    let Some(python) = DUCKDB.program()? else {
        return Ok("skipped: duckdb cannot be installed".to_owned());
    };
    let answer = said(&python, &["-c".as_ref(), ask.as_ref(), file.as_os_str()])?;
    let rows = answer.split(' ').next().and_then(|rows| rows.parse().ok());
    if rows != Some(events) {
        bail!("parquet: DuckDB says {answer}");
    }
    Ok(format!("reads {}", answer.trim()))
}

fn pdf(file: &Path) -> anyhow::Result<String> {
    if std::process::Command::new("pdfinfo").arg("-v").output().is_err() {
        return Ok("skipped: poppler-utils is not installed".to_owned());
    }
    let info = shell::run("pdfinfo", &[file])?;
    let pages = info.lines().find_map(|line| line.strip_prefix("Pages:")).map(str::trim);
    let pages = pages.context("pdfinfo names no pages")?.to_owned();
    let folder = shell::scratch(None)?;
    let picture = folder.path().join("page");
    for page in ["1", pages.as_str()] {
        let text = |text: &str| std::ffi::OsString::from(text);
        let args =
            [text("-r"), text("60"), text("-png"), text("-f"), text(page), text("-l"), text(page)];
        let ends = [file.as_os_str().to_owned(), picture.clone().into_os_string()];
        shell::run("pdftoppm", &[args.as_slice(), ends.as_slice()].concat())?;
    }
    let made = std::fs::read_dir(folder.path())?.count();
    Ok(format!("{pages} pages; {made} drawn (the first and the last)"))
}

fn bundle(file: &Path, events: u64) -> anyhow::Result<String> {
    let report =
        verify_bundle(BufReader::new(File::open(file)?), "export.bundle", &Trust::default())?;
    if !report.verified || report.events != events {
        bail!("bundle: {}", report.to_text());
    }
    Ok(format!("verified, {} events", report.events))
}
