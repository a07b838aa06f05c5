//! Which files the patterns mean, found by looking: directories are read, files are stated.
//!
//! The walk is the truth; a file system's notifications are only a hint to walk sooner. A pattern
//! without wildcards costs one `stat`. Symbolic links are followed, loops are not.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::stat::{Inode, Stat, stat_path};

/// Directories below a pattern's fixed part, at most so deep: a limit against runaway mounts.
const MAX_DEPTH: usize = 64;

/// Compiled patterns.
pub(crate) struct Walk {
    roots: Vec<Root>,
    include: GlobSet,
    exclude: GlobSet,
}

struct Root {
    dir: PathBuf,
    /// Levels below `dir`; 0 stands for the path itself.
    depth: usize,
}

/// What one walk found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Matching files, each with one look at it.
    pub(crate) files: BTreeMap<PathBuf, Stat>,
    /// Directories that were looked into (to be watched).
    pub(crate) dirs: BTreeSet<PathBuf>,
    /// Directories of files that symbolic links point to (to be watched too).
    pub(crate) link_dirs: BTreeSet<PathBuf>,
    /// Files that symbolic links point to, and the links.
    pub(crate) targets: HashMap<PathBuf, PathBuf>,
    /// What could not be looked at.
    pub(crate) errors: Vec<(PathBuf, io::Error)>,
}

fn compile(pattern: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build()
}

fn is_wild(part: &OsStr) -> bool {
    part.as_bytes().iter().any(|byte| b"*?[{\\".contains(byte))
}

impl Found {
    /// Could a file at `path` have been overlooked, because something above it cannot be read?
    pub(crate) fn is_blind_for(&self, path: &Path) -> bool {
        self.errors.iter().any(|(failed, _)| path.starts_with(failed))
    }
}

impl Root {
    fn of(pattern: &str) -> Self {
        let path = Path::new(pattern);
        let parts: Vec<Component<'_>> = path.components().collect();
        let fixed = parts.iter().take_while(|part| !is_wild(part.as_os_str())).count();
        let recursive = parts.iter().any(|part| part.as_os_str().as_bytes().starts_with(b"**"));
        let depth = if recursive { MAX_DEPTH } else { parts.len() - fixed };
        Self { dir: parts[..fixed].iter().collect(), depth }
    }
}

impl Walk {
    pub(crate) fn new(paths: &[String], exclude: &[String]) -> Result<Self, globset::Error> {
        let mut include = GlobSetBuilder::new();
        let mut roots = Vec::new();
        for pattern in paths {
            include.add(compile(pattern)?);
            roots.push(Root::of(pattern));
        }
        let mut out = GlobSetBuilder::new();
        for pattern in exclude {
            // A pattern without a slash is meant for the name, wherever the file is.
            let anchored =
                if pattern.contains('/') { pattern.clone() } else { format!("**/{pattern}") };
            out.add(compile(&anchored)?);
        }
        Ok(Self { roots, include: include.build()?, exclude: out.build()? })
    }

    /// Do the patterns mean this path?
    pub(crate) fn matches(&self, path: &Path) -> bool {
        self.include.is_match(path) && !self.exclude.is_match(path)
    }

    /// Looks.
    pub(crate) fn look(&self) -> Found {
        let mut found = Found::default();
        for root in &self.roots {
            if root.depth == 0 {
                self.file(&root.dir, &mut found);
                note_link(&root.dir, &mut found);
                if let Some(parent) = root.dir.parent() {
                    found.dirs.insert(parent.to_path_buf());
                }
            } else {
                self.dir(&root.dir, root.depth, &mut HashSet::new(), &mut found);
            }
        }
        found
    }

    fn file(&self, path: &Path, found: &mut Found) {
        // Only where there are several patterns can two of them mean one file.
        let is_known = self.roots.len() > 1 && found.files.contains_key(path);
        if is_known || self.exclude.is_match(path) {
            return;
        }
        match stat_path(path) {
            Ok(stat) if stat.is_file => {
                found.files.insert(path.to_path_buf(), stat);
            }
            Ok(_) => {}
            Err(error) if is_absent(&error) => {}
            Err(error) => found.errors.push((path.to_path_buf(), error)),
        }
    }

    fn dir(&self, dir: &Path, depth: usize, above: &mut HashSet<Inode>, found: &mut Found) {
        let here = match stat_path(dir) {
            Ok(stat) if stat.is_dir => stat.inode,
            Ok(_) => return,
            Err(error) if is_absent(&error) => return,
            Err(error) => return found.errors.push((dir.to_path_buf(), error)),
        };
        if !above.insert(here) {
            return;
        }
        found.dirs.insert(dir.to_path_buf());
        match std::fs::read_dir(dir) {
            Ok(entries) => self.entries(dir, entries, depth, above, found),
            Err(error) if is_absent(&error) => {}
            Err(error) => found.errors.push((dir.to_path_buf(), error)),
        }
        above.remove(&here);
    }

    fn entries(
        &self,
        dir: &Path,
        entries: std::fs::ReadDir,
        depth: usize,
        above: &mut HashSet<Inode>,
        found: &mut Found,
    ) {
        for entry in entries {
            let path = match entry {
                Ok(ref entry) => entry.path(),
                Err(error) => return found.errors.push((dir.to_path_buf(), error)),
            };
            let Ok(entry) = entry else { return };
            let kind = entry.file_type().ok();
            let may_be_dir = kind.is_none_or(|kind| kind.is_dir() || kind.is_symlink());
            if self.matches(&path) && kind.is_none_or(|kind| !kind.is_dir()) {
                self.file(&path, found);
                if kind.is_some_and(|kind| kind.is_symlink()) {
                    note_link(&path, found);
                }
            }
            if may_be_dir && depth > 1 {
                self.dir(&path, depth - 1, above, found);
            }
        }
    }
}

/// Remembers where a link's file really is, so that writes to it wake us as well. Only a hint:
/// what fails here is found by the scan.
fn note_link(path: &Path, found: &mut Found) {
    let is_link = path.symlink_metadata().is_ok_and(|stat| stat.file_type().is_symlink());
    if !is_link {
        return;
    }
    if let Ok(target) = path.canonicalize()
        && let Some(dir) = target.parent()
    {
        found.link_dirs.insert(dir.to_path_buf());
        found.targets.insert(target, path.to_path_buf());
    }
}

/// Not there (any more), which is no trouble: it may come.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
