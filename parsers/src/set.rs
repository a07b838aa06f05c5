//! All packs that an agent knows, and the choice of a source among them.

use std::sync::{Arc, OnceLock};

use thiserror::Error;

use crate::builtin::{BuiltinPack, builtin};
use crate::error::{PackError, PackErrors, hint};
use crate::load::{PackSource, load, load_proven};
use crate::pack::{BUILTIN, Pack};
use crate::packtest::{self, TestReport};
use crate::parser::{Parser, Settings};

/// Which packs a source wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Select {
    /// All; each decides by its `select:` whether it applies.
    #[default]
    Auto,
    /// These, in this order.
    Names(Vec<String>),
}

/// A source names a pack that there is not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no rule pack `{name}`{}", hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct UnknownPack {
    /// The name.
    pub name: String,
    /// What may have been meant.
    pub hint: Option<String>,
}

/// Checked packs. Of two of one name the later one holds, so that an operator's own pack takes
/// the place of a built-in one.
#[derive(Debug, Clone)]
pub struct PackSet {
    packs: Vec<Entry>,
    warnings: Vec<PackError>,
}

/// A pack, or a built-in one that is unpacked and read when it is first needed: most sources need
/// few of them, and all of them take 0.3 s and 30 MiB.
#[derive(Debug, Clone)]
struct Entry {
    name: String,
    pack: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Read(Arc<Pack>),
    Builtin(&'static BuiltinPack, Arc<OnceLock<Arc<Pack>>>),
}

impl Entry {
    fn read(pack: Pack) -> Self {
        Self { name: pack.name.clone(), pack: Content::Read(Arc::new(pack)) }
    }

    fn builtin(pack: &'static BuiltinPack) -> Self {
        Self { name: pack.name().to_owned(), pack: Content::Builtin(pack, Arc::default()) }
    }

    #[expect(clippy::expect_used, reason = "a test loads every built-in pack")]
    fn pack(&self) -> &Arc<Pack> {
        match &self.pack {
            Content::Read(pack) => pack,
            Content::Builtin(packed, pack) => pack.get_or_init(|| {
                let pack = load_proven(&builtin_source(packed));
                Arc::new(pack.expect("the built-in packs are checked by a test"))
            }),
        }
    }
}

fn builtin_source(pack: &BuiltinPack) -> PackSource {
    PackSource { name: format!("{BUILTIN}{}.yaml", pack.name()), text: pack.text() }
}

/// What is known of a pack without using it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: i64,
    /// One line about it.
    pub about: &'a str,
    /// Where it was read.
    pub file: &'a str,
    /// Number of its rules.
    pub rules: usize,
}

impl PackSet {
    /// Reads and checks packs.
    ///
    /// # Errors
    /// Everything that is wrong with any of them, each with file, line, column and a hint.
    pub fn load(sources: &[PackSource]) -> Result<Self, PackErrors> {
        let mut set = Self { packs: Vec::new(), warnings: Vec::new() };
        let mut errors = Vec::new();
        for source in sources {
            if let Some(pack) = load(source, &mut errors, &mut set.warnings) {
                set.add(Entry::read(pack));
            }
        }
        if errors.is_empty() { Ok(set) } else { Err(PackErrors(errors)) }
    }

    /// The built-in packs and, in their place or behind them, these.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn with_builtin(sources: &[PackSource]) -> Result<Self, PackErrors> {
        let own = Self::load(sources)?;
        let packs = builtin().iter().map(Entry::builtin).collect();
        let mut set = Self { packs, warnings: own.warnings };
        own.packs.into_iter().for_each(|entry| set.add(entry));
        Ok(set)
    }

    /// The built-in packs, all of them checked, with their tests.
    ///
    /// # Panics
    /// Never: a test loads every one of them.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test loads every built-in pack")]
    pub fn builtin() -> Self {
        let all: Vec<PackSource> = builtin().iter().map(builtin_source).collect();
        Self::load(&all).expect("the built-in packs are checked by a test")
    }

    fn add(&mut self, pack: Entry) {
        match self.packs.iter_mut().find(|known| known.name == pack.name) {
            Some(known) => *known = pack,
            // What is an operator's own is more particular than what is general.
            None => {
                let general =
                    self.packs.iter().position(|known| known.name.starts_with("generic-"));
                let at = match general {
                    Some(at) if !pack.name.starts_with("generic-") => at,
                    _ => self.packs.len(),
                };
                self.packs.insert(at, pack);
            }
        }
    }

    /// Names of the packs in the order in which they are tried.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.packs.iter().map(|pack| pack.name.as_str()).collect()
    }

    /// What is known of each pack.
    #[must_use]
    pub fn infos(&self) -> Vec<PackInfo<'_>> {
        self.packs
            .iter()
            .map(Entry::pack)
            .map(|pack| PackInfo {
                name: &pack.name,
                version: pack.version,
                about: &pack.about,
                file: &pack.file,
                rules: pack.rules.len(),
            })
            .collect()
    }

    /// What is doubtful: packs without tests.
    #[must_use]
    pub fn warnings(&self) -> &[PackError] {
        &self.warnings
    }

    /// Compiles the packs that a source wants.
    ///
    /// # Errors
    /// A name that is no pack's.
    pub fn select(&self, packs: &Select, settings: Settings) -> Result<Parser, UnknownPack> {
        match packs {
            Select::Auto => Ok(Parser::new(&self.all(), false, settings)),
            Select::Names(names) => {
                let chosen: Result<Vec<_>, _> = names.iter().map(|name| self.pack(name)).collect();
                Ok(Parser::new(&chosen?, true, settings))
            }
        }
    }

    fn pack(&self, name: &str) -> Result<Arc<Pack>, UnknownPack> {
        self.packs
            .iter()
            .find(|pack| pack.name == name)
            .map(|entry| Arc::clone(entry.pack()))
            .ok_or_else(|| UnknownPack { name: name.to_owned(), hint: hint(name, &self.names()) })
    }

    /// Runs every test of every pack: of built-in ones only those of [`Self::builtin`].
    #[must_use]
    pub fn run_tests(&self) -> TestReport {
        packtest::run(&self.all())
    }

    fn all(&self) -> Vec<Arc<Pack>> {
        self.packs.iter().map(|entry| Arc::clone(entry.pack())).collect()
    }
}
