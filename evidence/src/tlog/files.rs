//! Tiles as files, laid out so that a folder can be served as it is.
//!
//! Each tile is written to a temporary name, synced and renamed, so that a reader sees it whole.
//! A full tile is made read-only and never written again. Of a partial tile only the widest is
//! kept: a narrower one is its beginning, and is served so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::memory::narrowed;
use super::tile::{Kind, Tile, TileError, TileRead, TileWrite, kinds};

/// 256 entries with their lengths: nothing longer is a tile.
const MAX_FILE_BYTES: u64 = 256 * (65_535 + 2);

/// See the module.
#[derive(Debug)]
pub struct FileTiles {
    root: PathBuf,
    folders: BTreeSet<PathBuf>,
    replaced: Vec<PathBuf>,
    /// The widest partial tiles that survive a power failure: kept until there is a wider one.
    durable: BTreeMap<(Kind, u64), u16>,
}

impl FileTiles {
    /// Tiles under `root`, the folder in which `tile/` and `checkpoint` stand.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            folders: BTreeSet::new(),
            replaced: Vec::new(),
            durable: BTreeMap::new(),
        }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The widest tile of this index on disk, and its bytes.
    fn widest(&self, tile: &Tile) -> io::Result<Option<(Tile, Vec<u8>)>> {
        if let Some(bytes) = read(&self.root.join(tile.stem()))? {
            return Ok(Some((tile.full(), bytes)));
        }
        match widths(&self.partial_folder(tile))?.last() {
            Some(width) => {
                let wide = Tile { width: *width, ..*tile };
                Ok(read(&self.root.join(wide.to_string()))?.map(|bytes| (wide, bytes)))
            }
            None => Ok(None),
        }
    }

    /// Lets go of a tile beyond `size`; `false` if there was nothing of it.
    fn forget(&self, beyond: &Tile, size: u64) -> io::Result<bool> {
        let (path, folder) = (self.root.join(beyond.stem()), self.partial_folder(beyond));
        let kept = Tile::in_tree(beyond.kind, beyond.index, size);
        let full = read(&path)?;
        if let (Some(kept), Some(bytes)) = (kept, &full)
            && let Some(bytes) = narrowed(&kept, bytes)
        {
            fs::create_dir_all(&folder)?;
            let mut file = File::create(self.root.join(kept.to_string()))?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            File::open(&folder)?.sync_all()?;
        }
        if full.is_some() {
            fs::remove_file(&path)?;
        }
        let found = widths(&folder)?;
        if kept.is_none() {
            for width in &found {
                fs::remove_file(folder.join(width.to_string()))?;
            }
        }
        Ok(full.is_some() || !found.is_empty())
    }

    fn partial_folder(&self, tile: &Tile) -> PathBuf {
        self.root.join(format!("{}.p", tile.stem()))
    }

    fn put(&mut self, path: &Path, bytes: &[u8], durable: bool, full: bool) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        self.make_folder(&folder)?;
        let temporary = folder.join(".new");
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        if full {
            file.set_permissions(fs::Permissions::from_mode(0o444))?;
        }
        if durable {
            file.sync_all()?;
            self.folders.insert(folder);
        }
        fs::rename(&temporary, path)
    }

    /// Makes a folder and remembers its parents, whose entries must become durable.
    fn make_folder(&mut self, folder: &Path) -> io::Result<()> {
        if folder.try_exists()? {
            return Ok(());
        }
        fs::create_dir_all(folder)?;
        for parent in folder.ancestors().skip(1) {
            if !parent.starts_with(&self.root) {
                break;
            }
            self.folders.insert(parent.to_owned());
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The widths of the partial tiles in a folder, ascending.
fn widths(folder: &Path) -> io::Result<Vec<u16>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut widths = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if let Some(width) = name.to_str().and_then(|name| name.parse().ok()) {
            widths.push(width);
        }
    }
    widths.sort_unstable();
    Ok(widths)
}

fn io_error(tile: &Tile, source: io::Error) -> TileError {
    TileError::Io { path: tile.to_string(), source }
}

impl TileRead for FileTiles {
    fn read_tile(&self, tile: &Tile) -> Result<Vec<u8>, TileError> {
        let missing = || TileError::Missing(tile.to_string());
        let exact = read(&self.root.join(tile.to_string())).map_err(|e| io_error(tile, e))?;
        let bytes = match exact {
            Some(bytes) => bytes,
            None => {
                let widest = self.widest(tile).map_err(|e| io_error(tile, e))?;
                let (_, bytes) =
                    widest.filter(|(wide, _)| wide.width > tile.width).ok_or_else(missing)?;
                narrowed(tile, &bytes).ok_or_else(missing)?
            }
        };
        tile.check(&bytes)?;
        Ok(bytes)
    }
}

impl TileWrite for FileTiles {
    fn write_tile(&mut self, tile: &Tile, bytes: &[u8], durable: bool) -> Result<(), TileError> {
        let folder = self.partial_folder(tile);
        let before = widths(&folder).map_err(|e| io_error(tile, e))?;
        let path = self.root.join(tile.to_string());
        self.put(&path, bytes, durable, tile.is_full()).map_err(|e| io_error(tile, e))?;
        let key = (tile.kind, tile.index);
        if durable {
            self.durable.insert(key, tile.width);
        } else if let Some(widest) = before.last() {
            // What an earlier process left behind counts as durable.
            self.durable.entry(key).or_insert(*widest);
        }
        let kept = self.durable.get(&key).copied();
        let replaced = before.into_iter().filter(|w| *w != tile.width && Some(*w) != kept);
        self.replaced.extend(replaced.map(|width| folder.join(width.to_string())));
        if tile.is_full() {
            self.durable.remove(&key);
            self.replaced.push(folder);
        }
        Ok(())
    }

    fn forget_beyond(&mut self, size: u64) -> Result<(), TileError> {
        for kind in kinds() {
            for index in kind.edge(size).. {
                let beyond = Tile { kind, index, width: 256 };
                if !self.forget(&beyond, size).map_err(|e| io_error(&beyond, e))? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), TileError> {
        for folder in std::mem::take(&mut self.folders).into_iter().rev() {
            File::open(&folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|source| TileError::Io { path: folder.display().to_string(), source })?;
        }
        for path in std::mem::take(&mut self.replaced) {
            let removed = match path.extension() {
                Some(_) => fs::remove_dir(&path),
                None => fs::remove_file(&path),
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let path = path.display().to_string();
                    return Err(TileError::Io { path, source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }
}
