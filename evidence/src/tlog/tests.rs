//! The log against the RFC's words, against a second implementation, and against power failures.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use custody_event::Digest;
use sha2::Sha256;

use super::*;

/// Leaves and roots that Certificate Transparency implementations have shared since RFC 6962.
const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index} {}", "x".repeat(usize::try_from(index % 7).unwrap())).into_bytes()
}

/// A log of `size` entries, committed whenever `commit` says so.
fn log(size: u64, commit: impl Fn(u64) -> bool) -> Log<MemoryTiles> {
    let mut log = Log::open(MemoryTiles::default(), 0).unwrap();
    for index in 0..size {
        assert_eq!(log.append(&entry(index)), Ok(index));
        if commit(index) {
            log.commit(true).unwrap();
        }
    }
    log.commit(true).unwrap();
    log
}

fn digests(bytes: &[u8]) -> Vec<Digest> {
    hashes(bytes)
}

#[test]
fn the_shared_certificate_transparency_trees_have_their_roots() {
    let mut log = Log::open(MemoryTiles::default(), 0).unwrap();
    for (size, root) in ROOTS.iter().enumerate() {
        let size = u64::try_from(size).unwrap();
        assert_eq!(log.head().root.to_hex(), *root);
        log.commit(true).unwrap();
        let mut prover = Prover::new(log.store(), size);
        for (old, old_root) in ROOTS.iter().enumerate().skip(1).take(usize::try_from(size).unwrap())
        {
            let old =
                TreeHead { size: u64::try_from(old).unwrap(), root: old_root.parse().unwrap() };
            assert_eq!(prover.root(old.size).unwrap(), old.root);
            let proof = prover.consistency(old.size).unwrap();
            assert_eq!(verify_consistency(&old, &log.head(), &proof), Ok(()));
        }
        if let Some(leaf) = LEAVES.get(usize::try_from(size).unwrap()) {
            log.append(&unhex(leaf)).unwrap();
        }
    }
}

#[test]
fn every_small_tree_agrees_with_a_second_implementation() {
    let mut other = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let log = log(300, |index| index % 3 == 0);
    for size in 1..=300_u64 {
        other.push(entry(size - 1));
        let mut prover = Prover::new(&log, size);
        let root = prover.root(size).unwrap();
        assert_eq!(root.0[..], other.root().as_bytes()[..], "{size}");
        let head = TreeHead { root, size };
        for index in (0..size).filter(|index| size < 70 || index % 41 == size % 41) {
            let theirs = other.prove_inclusion(usize::try_from(index).unwrap());
            let ours = prover.inclusion(index).unwrap();
            assert_eq!(ours, digests(theirs.as_bytes()), "{index} of {size}");
            let leaf = leaf_hash(&entry(index));
            assert_eq!(verify_inclusion(&leaf, index, &head, &ours), Ok(()));
        }
        for old in (1..size).filter(|old| size < 70 || old % 41 == size % 41) {
            let theirs = other.prove_consistency(usize::try_from(size - old).unwrap());
            let ours = prover.consistency(old).unwrap();
            assert_eq!(ours, digests(theirs.as_bytes()), "{old} of {size}");
            let old = TreeHead { root: Prover::new(&log, old).root(old).unwrap(), size: old };
            assert_eq!(verify_consistency(&old, &head, &ours), Ok(()));
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]
    #[test]
    fn a_proof_for_anything_else_does_not_hold(
        size in 2_u64..200, index in 0_u64..200, other in 0_u64..200, flip in 0_usize..4096,
    ) {
        let (index, other) = (index % size, other % size);
        let log = log(size, |_| false);
        let head = log.head();
        let proof = Prover::new(&log, size).inclusion(index).unwrap();
        let leaf = leaf_hash(&entry(index));
        if other != index {
            proptest::prop_assert!(verify_inclusion(&leaf, other, &head, &proof).is_err());
            let wrong = leaf_hash(&entry(other));
            proptest::prop_assert!(verify_inclusion(&wrong, index, &head, &proof).is_err());
        }
        let mut bad = proof.clone();
        let at = flip % bad.len();
        bad[at].0[flip % 32] ^= 1 << (flip % 8);
        proptest::prop_assert!(verify_inclusion(&leaf, index, &head, &bad).is_err());
        bad = proof.clone();
        bad.push(leaf);
        proptest::prop_assert!(verify_inclusion(&leaf, index, &head, &bad).is_err());
        bad.truncate(proof.len() - 1);
        proptest::prop_assert!(verify_inclusion(&leaf, index, &head, &bad).is_err());
    }

    #[test]
    fn no_proof_joins_two_different_histories(size in 2_u64..150, old in 1_u64..150, flip in 0_usize..4096) {
        let old = 1 + old % (size - 1);
        let log = log(size, |_| false);
        let head = log.head();
        let before = TreeHead { root: Prover::new(&log, old).root(old).unwrap(), size: old };
        let proof = Prover::new(&log, size).consistency(old).unwrap();
        proptest::prop_assert_eq!(verify_consistency(&before, &head, &proof), Ok(()));
        let mut forged = before;
        forged.root.0[flip % 32] ^= 1 << (flip % 8);
        proptest::prop_assert!(verify_consistency(&forged, &head, &proof).is_err());
        let mut forged = head;
        forged.root.0[flip % 32] ^= 1 << (flip % 8);
        proptest::prop_assert!(verify_consistency(&before, &forged, &proof).is_err());
        let mut bad = proof.clone();
        if let Some(hash) = bad.first_mut() {
            hash.0[flip % 32] ^= 1 << (flip % 8);
            proptest::prop_assert!(verify_consistency(&before, &head, &bad).is_err());
        }
        proptest::prop_assert!(verify_consistency(&head, &before, &proof).is_err());
    }

    #[test]
    fn no_proof_of_any_shape_makes_the_verifiers_panic(
        index in 0_u64.., size in 0_u64.., old in 0_u64.., hashes in 0_usize..80,
    ) {
        let proof = vec![Digest([7; 32]); hashes];
        let head = TreeHead { root: Digest([7; 32]), size };
        let before = TreeHead { root: Digest([7; 32]), size: old };
        let _ = verify_inclusion(&Digest([7; 32]), index, &head, &proof);
        let _ = verify_consistency(&before, &head, &proof);
    }
}

#[test]
fn tile_paths_are_those_of_the_specification() {
    let tile = |kind, index, width| Tile { kind, index, width };
    for (tile, path) in [
        (tile(Kind::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067"),
        (tile(Kind::Hashes(1), 0, 256), "tile/1/000"),
        (tile(Kind::Hashes(2), 999, 1), "tile/2/999.p/1"),
        (tile(Kind::Entries, 1000, 112), "tile/entries/x001/000.p/112"),
    ] {
        assert_eq!(tile.to_string(), path);
        assert_eq!(Tile::parse(path), Some(tile));
    }
    for bad in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/8/000",
        "tile/00/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/+0/000",
        "tile/0/+00",
        "/tile/0/000",
        "tile/0/000/",
        "tile/data/000",
        "tile/0/../000",
        "tile/entries/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(Tile::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_tree_of_70000_has_the_tiles_that_the_specification_counts() {
    let width = |kind, index| Tile::in_tree(kind, index, 70_000).map(|tile| tile.width);
    assert_eq!(width(Kind::Hashes(0), 272), Some(256));
    assert_eq!(width(Kind::Hashes(0), 273), Some(112));
    assert_eq!(width(Kind::Hashes(0), 274), None);
    assert_eq!(width(Kind::Hashes(1), 0), Some(256));
    assert_eq!(width(Kind::Hashes(1), 1), Some(17));
    assert_eq!(width(Kind::Hashes(2), 0), Some(1));
    assert_eq!(width(Kind::Hashes(3), 0), None);
    let (tree, mut frontier) = (log(70_000, |index| index % 977 == 0), Frontier::default());
    (0..70_000).for_each(|index| frontier.push(leaf_hash(&entry(index))));
    assert_eq!(tree.head(), frontier.head());
    let mut prover = Prover::new(tree.store(), 70_000);
    assert_eq!(prover.root(70_000).unwrap(), tree.head().root);
    for index in [0, 255, 256, 65_535, 65_536, 69_887, 69_888, 69_999] {
        let proof = prover.inclusion(index).unwrap();
        assert_eq!(
            verify_inclusion(&leaf_hash(&entry(index)), index, &tree.head(), &proof),
            Ok(())
        );
    }
    let again = Log::open(tree.store().clone(), 70_000).unwrap();
    assert_eq!(again.head(), tree.head());
}

#[test]
fn entries_of_every_length_fit_or_are_refused() {
    let mut log = Log::open(MemoryTiles::default(), 0).unwrap();
    assert_eq!(log.append(&[]), Ok(0));
    assert_eq!(log.append(&vec![1; MAX_ENTRY_BYTES]), Ok(1));
    assert!(log.append(&vec![1; MAX_ENTRY_BYTES + 1]).is_err());
    log.commit(true).unwrap();
    let tile = Tile::in_tree(Kind::Entries, 0, 2).unwrap();
    let bytes = log.store().read_tile(&tile).unwrap();
    let entries = bundle_entries(&bytes).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.len()).collect::<Vec<_>>(), [0, MAX_ENTRY_BYTES]);
    assert_eq!(bundle_entries(&bytes[..bytes.len() - 1]), None);
}

#[cfg(feature = "fs")]
mod on_disk {
    use std::path::Path;

    use super::*;

    fn names(root: &Path) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    names.push(path.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
        names.sort();
        names
    }

    fn grow(root: &Path, from: u64, to: u64, durable: bool) -> TreeHead {
        let mut log = Log::open(FileTiles::new(root), from).unwrap();
        for index in from..to {
            log.append(&entry(index)).unwrap();
            if index % 5 == 0 {
                log.commit(durable).unwrap();
            }
        }
        log.commit(durable).unwrap()
    }

    #[test]
    fn the_folder_is_laid_out_as_it_is_served_and_opens_again_at_any_size() {
        let folder = tempfile::tempdir().unwrap();
        let mut size = 0;
        for next in [1, 2, 255, 256, 257, 511, 512, 700] {
            let head = grow(folder.path(), size, next, true);
            assert_eq!(head, log(next, |_| false).head(), "{next}");
            size = next;
        }
        assert_eq!(
            names(folder.path()),
            [
                "tile/0/000",
                "tile/0/001",
                "tile/0/002.p/188",
                "tile/1/000.p/2",
                "tile/entries/000",
                "tile/entries/001",
                "tile/entries/002.p/188",
            ]
        );
        let tiles = FileTiles::new(folder.path());
        for old in [1, 100, 256, 300, 512, 699] {
            let head = TreeHead { root: Prover::new(&tiles, old).root(old).unwrap(), size: old };
            assert_eq!(head, log(old, |_| false).head());
        }
    }

    #[test]
    fn what_no_checkpoint_named_is_written_anew() {
        for (signed, written) in [(3, 9), (250, 256), (250, 300), (256, 600), (511, 512), (0, 5)] {
            let folder = tempfile::tempdir().unwrap();
            grow(folder.path(), 0, signed, true);
            let mut lost = Log::open(FileTiles::new(folder.path()), signed).unwrap();
            for index in signed..written {
                lost.append(format!("never promised {index}").as_bytes()).unwrap();
            }
            lost.commit(true).unwrap();
            let head = grow(folder.path(), signed, written + 300, true);
            assert_eq!(head, log(written + 300, |_| false).head(), "{signed} {written}");
            let tiles = FileTiles::new(folder.path());
            for old in [signed, signed + 1, written, written + 299] {
                let root = Prover::new(&tiles, old).root(old).unwrap();
                assert_eq!(root, log(old, |_| false).head().root);
            }
        }
    }

    #[test]
    fn a_power_failure_takes_only_what_was_not_durable() {
        let folder = tempfile::tempdir().unwrap();
        grow(folder.path(), 0, 260, true);
        grow(folder.path(), 260, 290, false);
        // What was not synced comes back empty.
        for name in names(folder.path())
            .iter()
            .filter(|name| name.contains("002.p") || name.ends_with("34"))
        {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        assert!(Log::open(FileTiles::new(folder.path()), 290).is_err());
        let mut again = Log::open_shorter(FileTiles::new(folder.path()), 290).unwrap();
        assert_eq!(again.size(), 260);
        for index in 260..290 {
            again.append(&entry(index)).unwrap();
        }
        assert_eq!(again.commit(true).unwrap(), log(290, |_| false).head());
    }

    #[test]
    fn a_tile_that_is_cut_off_is_told_by_name() {
        let folder = tempfile::tempdir().unwrap();
        grow(folder.path(), 0, 300, true);
        let path = folder.path().join("tile/0/000");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.pop();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let tiles = FileTiles::new(folder.path());
        let error = Prover::new(&tiles, 300).inclusion(5).unwrap_err();
        assert!(error.to_string().contains("tile/0/000"), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Prover::new(&tiles, 300).inclusion(5), Err(TileError::Missing(_))));
    }
}

/// Hundreds of good and bad proofs that implementations of RFC 6962 share as JSON files. They are
/// not ours to copy: `CUSTODY_MERKLE_VECTORS` names a folder that has them.
#[test]
fn shared_good_and_bad_proofs_are_judged_as_they_should_be() {
    let Some(root) = std::env::var_os("CUSTODY_MERKLE_VECTORS") else {
        println!("skipped: CUSTODY_MERKLE_VECTORS is not set");
        return;
    };
    let root = std::path::PathBuf::from(root);
    let mut judged = 0;
    for kind in ["inclusion", "consistency"] {
        let mut folders = vec![root.join(kind)];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    judge(&path, kind);
                    judged += 1;
                }
            }
        }
    }
    assert!(judged > 100, "{judged}");
    println!("{judged} proofs judged");
}

fn judge(path: &std::path::Path, kind: &str) {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let number = |key: &str| json[key].as_u64().unwrap_or(u64::MAX);
    let hash = |value: &serde_json::Value| {
        let bytes = crate::base64::decode(value.as_str().unwrap_or_default())?;
        // Some roots are words: what counts is whether they are the same.
        match value.as_str()?.starts_with("ZG9uJ3Q") {
            true => Some(Digest::of(&bytes)),
            false => Some(Digest(bytes.try_into().ok()?)),
        }
    };
    let wanted = !json["wantErr"].as_bool().unwrap();
    let hashes = json["proof"].as_array().cloned().unwrap_or_default();
    let Some(proof) = hashes.iter().map(hash).collect::<Option<Vec<_>>>() else {
        assert!(!wanted, "{}: a hash of another length", path.display());
        return;
    };
    let held = if kind == "inclusion" {
        hash(&json["root"]).zip(hash(&json["leafHash"])).is_some_and(|(root, leaf)| {
            let head = TreeHead { root, size: number("treeSize") };
            verify_inclusion(&leaf, number("leafIdx"), &head, &proof).is_ok()
        })
    } else {
        hash(&json["root1"]).zip(hash(&json["root2"])).is_some_and(|(old, new)| {
            let old = TreeHead { root: old, size: number("size1") };
            let new = TreeHead { root: new, size: number("size2") };
            verify_consistency(&old, &new, &proof).is_ok()
        })
    };
    assert_eq!(held, wanted, "{}: {}", path.display(), json["desc"]);
}
