//! The agent confines itself: from its start on it can read what its configuration names and what a program needs of the
//! system, and write its own directories, whatever its user and its capabilities allow. The kernel's Landlock sees to it.
//!
//! A domain is for ever and can only become narrower; configurations change, and log folders come and go. So what may be read is
//! not each path, but the *folder two levels from the root* that leads to it (`/var/log`, `/srv/shop`): files and folders below
//! are rotated, removed and made anew. A reload that needs another folder is refused, and says which and what to do;
//! `sandbox.read` names folders beforehand.
//!
//! **The system's part**: `/etc` as a whole (files in it are replaced by renaming, `resolv.conf` and this configuration among them),
//! the libraries (`libsystemd`, name services), the journal where it is a source, parts of `/proc`, `/sys` and `/run`. `/etc` holds secrets
//! too, which are guarded by their modes alone.
//!
//! **What is not bounded**: the network, signals, and the attributes of files (`stat`). Sockets in the file system can be connected to.
//!
//! **Threads.** Only the thread that asks is confined, and those that it starts later: so it is done first of all.
//!
//! **Without Landlock** (old kernels, or not switched on) one line of the log says so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use custody_config::agent::{LandlockMode, OutputConfig, ServerTls, SourceConfig};
use custody_config::{AgentConfig, Env, Located, Problem, SecretFile};
use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, path_beneath_rules,
};

use crate::sources::file::look;

/// What this knows of. Newer kernels bound more, which is not asked for.
const KNOWN: ABI = ABI::V5;
/// Programs and libraries: `journalctl` may be called.
const PROGRAMS: [&str; 8] =
    ["/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/nix/store", "/gnu/store"];
/// What a program reads of the system around it.
const SYSTEM: [&str; 17] = [
    "/etc",
    "/proc/self",
    "/proc/sys",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/proc/stat",
    "/proc/cmdline",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/dev/urandom",
    "/run/systemd",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/connman",
    "/run/nscd",
    "/var/lib/sss",
    "/var/cache/nscd",
];
/// The journal's files; the second comes and goes with `Storage=persistent`.
const JOURNAL: [&str; 2] = ["/run/log", "/var/log/journal"];
/// A folder so far from the root is taken as one that stays.
const LEVELS: usize = 2;
/// Links that lead outside are told up to so many.
const MAX_TOLD: usize = 5;

/// What may be read and written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roots {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
}

/// Something that the configuration names, with the folder that must be open for it.
struct Need {
    /// For people: `source shop`.
    what: String,
    path: PathBuf,
    write: bool,
}

/// The folder that is opened for a path: two levels from the root, or as far as there is one. `None`: only the root is there.
fn root_of(path: &Path) -> Option<PathBuf> {
    let wanted: PathBuf = path.components().take(LEVELS + 1).collect();
    let found = wanted.ancestors().find(|folder| folder.is_dir())?;
    (found.parent().is_some()).then(|| found.to_owned())
}

/// The fixed part of a pattern of paths.
fn fixed(pattern: &str) -> PathBuf {
    let wild = |part: &std::path::Component<'_>| {
        part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{', '\\'])
    };
    Path::new(pattern).components().take_while(|part| !wild(part)).collect()
}

/// What is read and written, as the configuration grows.
#[derive(Default)]
struct Needs(Vec<Need>);

impl Needs {
    fn read(&mut self, what: &str, path: &Path) {
        // A name without a path is a credential: the folder of credentials is open.
        if path.is_absolute() {
            self.0.push(Need { what: what.to_owned(), path: path.to_owned(), write: false });
        }
    }

    fn secrets<'a>(&mut self, what: &str, files: impl IntoIterator<Item = &'a SecretFile>) {
        files.into_iter().for_each(|file| self.read(what, file.path()));
    }

    fn files<'a>(&mut self, what: &str, files: impl IntoIterator<Item = &'a Located<PathBuf>>) {
        files.into_iter().for_each(|file| self.read(what, file.get()));
    }

    fn tls(&mut self, what: &str, tls: Option<&ServerTls>) {
        let Some(tls) = tls else { return };
        self.files(what, [&tls.cert_file].into_iter().chain(&tls.client_ca_file));
        self.secrets(what, [&tls.key_file]);
    }

    fn source(&mut self, source: &SourceConfig) {
        let what = format!("source {}", source.id());
        match source {
            SourceConfig::File(file) => {
                file.paths.iter().for_each(|path| self.read(&what, &fixed(path.get())));
            }
            SourceConfig::Journal(journal) => match &journal.directory {
                Some(folder) => self.read(&what, folder.get()),
                None => JOURNAL.iter().for_each(|folder| self.read(&what, Path::new(folder))),
            },
            SourceConfig::Syslog(syslog) => self.tls(&what, syslog.tls.as_ref()),
            SourceConfig::Webhook(webhook) => self.secrets(&what, &webhook.verify.secret_files),
        }
    }

    fn output(&mut self, output: &OutputConfig) {
        let what = format!("output {}", output.id());
        let OutputConfig::Custody(output) = output;
        let tls = &output.tls;
        self.files(&what, tls.ca_file.iter().chain(&tls.cert_file));
        let secrets = [
            &tls.key_file,
            &output.token_file,
            &output.enroll_token_file,
            &output.proxy_password_file,
        ];
        self.secrets(&what, secrets.into_iter().flatten());
    }
}

fn needs(config: &AgentConfig, config_path: &Path) -> Vec<Need> {
    let mut needs = Needs::default();
    needs.read("the configuration", &std::path::absolute(config_path).unwrap_or_default());
    needs.files("pack_dirs", &config.pack_dirs);
    needs.files("sandbox.read", &config.sandbox.read);
    needs.secrets("pseudonym_key_file", &config.pseudonym_key_file);
    needs.files("geoip", config.geoip.city_file.iter().chain(&config.geoip.asn_file));
    needs.tls("webhook.tls", config.webhook.tls.as_ref());
    config.sources.iter().for_each(|source| needs.source(source));
    config.outputs.iter().for_each(|output| needs.output(output));
    let socket = config.admin.socket.get();
    let path = socket.parent().unwrap_or(socket).to_owned();
    needs.0.push(Need { what: "admin.socket".to_owned(), path, write: true });
    needs.0
}

impl Roots {
    /// What this configuration, read from this file, needs. `data_dir` is where the agent keeps everything.
    #[must_use]
    pub fn of(config: &AgentConfig, config_path: &Path, data_dir: &Path, env: &Env) -> Self {
        let mut roots = Self::default();
        roots.read.extend(SYSTEM.map(PathBuf::from));
        roots.read.extend(env.credentials_dir.clone());
        // Where TLS libraries are told to find authorities.
        let told = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(std::env::var_os);
        roots.read.extend(told.map(PathBuf::from));
        roots.write.insert(data_dir.to_owned());
        for Need { what, path, write } in needs(config, config_path) {
            match (write, root_of(&path)) {
                (true, _) => {
                    roots.write.insert(path);
                }
                (false, Some(root)) => {
                    roots.read.insert(root);
                }
                (false, None) => log::warn!(
                    "{what}: {} is not there; what comes to be there is read after the next start only (hint: make the folder, then systemctl restart custody-agent)",
                    path.display()
                ),
            }
        }
        roots
    }

    /// May what is at this path be read? As the kernel would say: after all links.
    fn opens(&self, path: &Path) -> bool {
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let all = self.read.iter().chain(&self.write);
        all.into_iter().chain(&PROGRAMS.map(PathBuf::from)).any(|root| {
            let root = std::fs::canonicalize(root).unwrap_or_else(|_| root.clone());
            real.starts_with(root)
        })
    }

    /// Links in the folders of file sources that lead to where nothing is read, each with its remedy; of many a few.
    #[must_use]
    pub fn blind_links(&self, config: &AgentConfig) -> Vec<String> {
        let mut said = Vec::new();
        let mut folders = BTreeSet::new();
        for source in &config.sources {
            let SourceConfig::File(file) = source else { continue };
            let texts = |list: &[Located<String>]| -> Vec<String> {
                list.iter().map(|value| value.get().clone()).collect()
            };
            // A pattern that is none is an error elsewhere.
            let Ok(found) = look(&texts(&file.paths), &texts(&file.exclude)) else { continue };
            for (target, link) in found.targets {
                let folder = target.parent().unwrap_or(&target).to_owned();
                if !self.opens(&target) && folders.insert(folder.clone()) && said.len() < MAX_TOLD {
                    said.push(format!(
                        "source {}: {} leads to {}, which this agent may not read (hint: add `sandbox: {{ read: [{}] }}`, then systemctl restart custody-agent)",
                        source.id(),
                        link.display(),
                        target.display(),
                        root_of(&folder).unwrap_or(folder).display(),
                    ));
                }
            }
        }
        said
    }
}

/// What this process is confined to, from its start on.
#[derive(Debug, Clone, Default)]
pub struct Sandbox(Option<Roots>);

impl Sandbox {
    /// Would a configuration read what this process may not? A reload asks before it is in force.
    ///
    /// # Errors
    /// The first such path, with what to do.
    pub fn permits(&self, config: &AgentConfig, config_path: &Path) -> Result<(), Problem> {
        let Some(roots) = &self.0 else { return Ok(()) };
        for Need { what, path, write } in needs(config, config_path) {
            let open = match write {
                true => roots.write.iter().any(|root| path.starts_with(root)),
                false => root_of(&path).is_none_or(|root| roots.opens(&root)),
            };
            if !open {
                let shown = path.display();
                let folder = root_of(&path).unwrap_or_else(|| path.clone());
                let place = custody_config::Place::Option("sandbox");
                let said = format!(
                    "{what}: {shown} is outside of what this process has confined itself to at its start"
                );
                let hint = format!(
                    "systemctl restart custody-agent, which loses nothing; to have later reloads reach it, name {} under sandbox.read first",
                    folder.display()
                );
                return Err(Problem::new(place, said, hint));
            }
        }
        Ok(())
    }
}

/// Confines this thread, and all that it starts, to what the configuration names. Called before any other thread is started.
#[must_use]
pub fn confine(config: &AgentConfig, config_path: &Path, env: &Env) -> Sandbox {
    if config.sandbox.landlock == LandlockMode::Off {
        return Sandbox::default();
    }
    let data_dir = config.data_dir.get();
    make(data_dir);
    let roots = Roots::of(config, config_path, data_dir, env);
    for said in roots.blind_links(config) {
        log::warn!("{said}");
    }
    match restrict(&roots) {
        Ok(RulesetStatus::NotEnforced) => {
            log::warn!(
                "this kernel has no Landlock, or it is not switched on: the agent reads what its user may (hint: Linux 5.13 or newer with lsm=landlock,…; `sandbox: {{ landlock: off }}` ends this line)"
            );
            Sandbox::default()
        }
        Ok(_) => {
            log::info!(
                read = roots.read.len(), write = roots.write.len();
                "confined by Landlock to the folders that the configuration names"
            );
            Sandbox(Some(roots))
        }
        Err(error) => {
            log::warn!("the agent is not confined: Landlock says: {error}");
            Sandbox::default()
        }
    }
}

/// The data directory must be there to be opened; it is made as the start would make it.
fn make(data_dir: &Path) {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    if let Err(error) = made {
        // The start says so, with what to do.
        log::debug!("{}: {error}", data_dir.display());
    }
}

fn restrict(roots: &Roots) -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(KNOWN);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .create()?
        .add_rules(path_beneath_rules(PROGRAMS, read | AccessFs::Execute))?
        .add_rules(path_beneath_rules(["/dev/null"], read | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(&roots.read, read))?
        .add_rules(path_beneath_rules(&roots.write, all))?
        .restrict_self()?;
    Ok(status.ruleset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_config::AgentOverrides;

    fn config(text: &str) -> AgentConfig {
        let overrides = AgentOverrides::default();
        let path = Path::new("/etc/custody/agent.yaml");
        AgentConfig::from_text(path, text, &overrides, &Env::default()).unwrap().value
    }

    fn reading(paths: &str, extra: &str) -> AgentConfig {
        config(&format!(
            "sources: [{{ id: a, type: file, paths: [{paths}] }}]\noutputs: [{{ id: c, type: custody, endpoints: ['http://127.0.0.1:1'] }}]\n{extra}"
        ))
    }

    fn roots(config: &AgentConfig) -> Roots {
        let path = Path::new("/etc/custody/agent.yaml");
        Roots::of(config, path, Path::new("/var/lib/custody-agent"), &Env::default())
    }

    #[test]
    fn what_is_opened_are_folders_that_stay_and_never_the_root() {
        assert_eq!(root_of(Path::new("/usr/lib/os-release")), Some("/usr/lib".into()));
        assert_eq!(root_of(Path::new("/usr/no-such/x/y.log")), Some("/usr".into()));
        assert_eq!(root_of(Path::new("/no-such/x/y.log")), None);
        assert_eq!(root_of(Path::new("/")), None);
        assert_eq!(fixed("/var/log/*/x.log"), Path::new("/var/log"));
        assert_eq!(fixed("/var/log/a.log"), Path::new("/var/log/a.log"));
        assert_eq!(fixed("/*.log"), Path::new("/"));
    }

    #[test]
    fn a_reload_within_what_is_open_is_taken_and_one_beyond_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let here = |name: &str| folder.path().join(name).display().to_string();
        let before = reading(&here("a.log"), "");
        let path = Path::new("/etc/custody/agent.yaml");
        let sandbox = Sandbox(Some(roots(&before)));
        assert_eq!(sandbox.permits(&before, path), Ok(()));
        assert_eq!(sandbox.permits(&reading(&here("deeper/b.log"), ""), path), Ok(()));
        let there = other.path().join("c.log").display().to_string();
        let refused = sandbox.permits(&reading(&there, ""), path).unwrap_err().to_string();
        for word in ["source a", &there, "restart custody-agent", "sandbox.read"] {
            assert!(refused.contains(word), "{word}: {refused}");
        }
        let named = format!("sandbox: {{ read: [{}] }}\n", other.path().display());
        let wider = Sandbox(Some(roots(&reading(&here("a.log"), &named))));
        assert_eq!(wider.permits(&reading(&there, ""), path), Ok(()));
        assert_eq!(Sandbox::default().permits(&reading(&there, ""), path), Ok(()));
    }

    #[test]
    fn a_link_that_leads_outside_is_told_with_what_opens_it() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("secret.log"), "x\n").unwrap();
        let link = folder.path().join("l.log");
        std::os::unix::fs::symlink(other.path().join("secret.log"), &link).unwrap();
        let pattern = folder.path().join("*.log").display().to_string();
        let config = reading(&format!("\"{pattern}\""), "");
        let said = roots(&config).blind_links(&config);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("l.log") && said[0].contains("sandbox: { read: ["), "{said:?}");
    }
}
