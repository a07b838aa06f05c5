//! The way to the collectors: names, connections, TLS, what the other side's clock says, and how long certificates last.

use std::path::Path;

use custody_config::AgentConfig;
use custody_config::agent::OutputConfig;
use custody_config::shell::x509;
use custody_event::{Clock, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::Findings;
use crate::outputs::probe;

/// A certificate that ends within this is warned about.
const SOON_DAYS: i64 = 14;
const DAY_SECONDS: i64 = 24 * 3600;

pub(super) fn certificates(config: &AgentConfig, clock: &dyn Clock, findings: &mut Findings) {
    let mut files: Vec<(&Path, &str)> = Vec::new();
    for output in &config.outputs {
        let OutputConfig::Custody(output) = output;
        files.extend(
            output.tls.ca_file.iter().map(|file| (file.get().as_path(), "the collector's CA")),
        );
        files
            .extend(output.tls.cert_file.iter().map(|file| (file.get().as_path(), "this agent's")));
    }
    let servers =
        config.webhook.tls.iter().chain(config.sources.iter().filter_map(|source| match source {
            custody_config::agent::SourceConfig::Syslog(syslog) => syslog.tls.as_ref(),
            _ => None,
        }));
    for server in servers {
        files.push((server.cert_file.get(), "a source's"));
    }
    for (path, whose) in files {
        certificate(path, whose, clock.now(), findings);
    }
    for output in &config.outputs {
        let kept = crate::outputs::kept_in(config.data_dir.get(), output.id());
        if matches!(kept.try_exists(), Ok(true)) {
            certificate(&kept, "this agent's, signed by the collector", clock.now(), findings);
        }
    }
}

fn certificate(path: &Path, whose: &str, now: Timestamp, findings: &mut Findings) {
    let what = "certificate";
    let shown = path.display();
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = match read {
        Ok(chain) => chain,
        Err(error) => {
            return findings.bad(
                what,
                format!("{shown}: {error}"),
                "check path, mode and form (PEM)",
            );
        }
    };
    let Some(dates) = chain.first().and_then(|first| x509::dates(first)) else {
        return findings.bad(
            what,
            format!("{shown}: no certificate in it"),
            "PEM certificates are expected",
        );
    };
    let left = (dates.not_after.micros() - now.micros()) / 1_000_000;
    let ends = format!("{shown} ({whose}) is good until {}", dates.not_after);
    if now < dates.not_before {
        let found = format!("{shown} ({whose}) begins to be good at {}", dates.not_before);
        findings.bad(what, found, "is this host's clock right? timedatectl");
    } else if left < 0 {
        findings.bad(
            what,
            format!("{shown} ({whose}) ended at {}", dates.not_after),
            "put a new one there, then systemctl reload custody-agent",
        );
    } else if left < SOON_DAYS * DAY_SECONDS {
        findings.warn(what, format!("{ends}: {} days", left / DAY_SECONDS), "renew it in time");
    } else {
        findings.good(what, ends);
    }
}

pub(super) fn outputs(config: &AgentConfig, clock: &dyn Clock, findings: &mut Findings) {
    for output in &config.outputs {
        let OutputConfig::Custody(output) = output;
        let client = match crate::runtime::client(output) {
            Ok(client) => client,
            Err(error) => {
                findings.bad(
                    format!("output {}", output.id.get()),
                    format!("{error:#}"),
                    "check the files under tls",
                );
                continue;
            }
        };
        for endpoint in &output.endpoints {
            let (what, endpoint) = ("endpoint", endpoint.get().to_string());
            match probe::ready(&client, &endpoint) {
                Ok(answer) => {
                    if answer.ready {
                        findings.good(what, format!("{endpoint} answers and takes blocks"));
                    } else {
                        let found =
                            format!("{endpoint} answers, and takes no blocks: {}", answer.said);
                        findings.bad(
                            what,
                            found,
                            "its own log says why; nothing is lost meanwhile",
                        );
                    }
                    skew(&endpoint, answer.date_seconds, clock.now(), findings);
                }
                Err(why) => findings.bad(
                    what,
                    format!("{endpoint}: {why}"),
                    "nothing is lost: delivery goes on by itself when this is mended",
                ),
            }
        }
        token(config, output, findings);
    }
}

fn skew(endpoint: &str, theirs: Option<i64>, now: Timestamp, findings: &mut Findings) {
    let Some(theirs) = theirs else { return };
    let apart = theirs.abs_diff(now.seconds());
    if apart > crate::outputs::TOLD_SECONDS {
        let found = format!("this host and {endpoint} differ by {apart} s");
        findings.warn(
            "clock",
            found,
            "set both: timedatectl set-ntp true; events carry this host's time",
        );
    }
}

/// An agent that is not enrolled needs a token that it can read.
fn token(
    config: &AgentConfig,
    output: &custody_config::agent::CustodyOutputConfig,
    findings: &mut Findings,
) {
    let what = format!("output {}", output.id.get());
    let kept = config.data_dir.get().join(format!("token-{}", output.id.get()));
    if let Some(file) = &output.token_file {
        match file.read() {
            Ok(_) => findings.good(what, "its token can be read"),
            Err(problem) => findings.bad(what, problem.to_string(), "see the hint"),
        }
    } else if matches!(kept.try_exists(), Ok(true)) {
        findings.good(what, "enrolled");
    } else {
        match output.enroll_token_file.as_ref().map(custody_config::SecretFile::read) {
            Some(Ok(_)) => findings.good(what, "not enrolled yet; the enrolment token can be read"),
            Some(Err(problem)) => findings.bad(what, problem.to_string(), "copy the collector's enroll.token there, mode 0600, owner custody-agent; or custody-agent enroll"),
            None => findings.bad(what, "not enrolled, and no enroll_token_file is named", "custody-agent enroll"),
        }
    }
}
