"""Checks a log of ours with an implementation that is not ours.

usage: verify_tlog.py DIR    (DIR holds checkpoint, vkey and tile/; needs the package aics-tlog)

With witness.vkey beside them, the checkpoint must carry that witness's cosignature.
Exit code 0: all of it holds.
"""

import pathlib
import sys

import aics_tlog as tlog


def main(folder: pathlib.Path) -> None:
    key = tlog.parse_vkey((folder / "vkey").read_text().strip())
    note = tlog.parse_note((folder / "checkpoint").read_text())
    witnesses = []
    if (folder / "witness.vkey").exists():
        witnesses = [tlog.parse_vkey((folder / "witness.vkey").read_text().strip())]
    result = tlog.verify_checkpoint(note, key, witnesses, len(witnesses))
    assert result.ok, result
    checkpoint = tlog.parse_checkpoint(note.text)
    size = getattr(checkpoint, "size", None) or checkpoint.tree_size
    root = getattr(checkpoint, "root", None) or checkpoint.root_hash
    reader = tlog.FileSystemTileReader(folder)
    assert tlog.tree_root_from_tiles(reader, size) == root
    report = tlog.audit_tiles(reader, size, root)
    for index in sorted({0, 1, size // 3, size // 2, size - 2, size - 1} & set(range(size))):
        proof = tlog.inclusion_proof_from_tiles(reader, index, size)
        entry = tlog.read_entry(reader, index, size)
        assert tlog.verify_leaf_inclusion(entry, index, size, proof, root), index
    for old in sorted({1, size // 3, size - 1} & set(range(1, size))):
        old_root = tlog.tree_root_from_tiles(reader, old, size)
        proof = tlog.consistency_proof_from_tiles(reader, old, size)
        assert tlog.verify_consistency(old, size, old_root, root, proof), old
    print(f"{size} entries, {len(witnesses)} witnesses verified; {report}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
