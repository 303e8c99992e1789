"""STL-10's files: pictures without a header, labels, folds. Bytes are the three, a line of dashes between."""

from pathlib import Path

from lorbms_fast.dataloader.sources import photographs_in
from lorbms_fast.dataloader.sources.stl10 import BYTES, CLASSES
from lorbms_fast.evaluation.datasets.stl10 import read_stl10
from tests.fuzz.material import prepared
from tests.fuzz.reader import Reader

BETWEEN = b"-----"


def seeds() -> list[bytes]:
    """Two pictures, and what is not quite two."""
    pictures, labels, folds = bytes(range(256)) * (2 * BYTES // 256), bytes([1, 10]), b"0 1\n1 0\n"
    parts = [
        (pictures, labels, folds),
        (pictures[:-1], labels, folds),
        (pictures, b"\x00\x0b", folds),
        (pictures, labels[:1], folds),
        (pictures, labels, b"99999999999999999999 1\n"),
        (pictures, labels, b"0 1\n0\n"),
        (pictures, labels, b"0 2\n-1 0\n"),
        (pictures, labels, b"\xff\n"),
        (pictures, labels, b""),
        (b"", b"", b""),
    ]
    return [BETWEEN.join(of_one) for of_one in parts]


def read(data: bytes, folder: Path) -> None:
    """Prepare the pictures; read all that evaluation wants."""
    pictures, labels, folds = [*data.split(BETWEEN, 2), b"", b""][:3]
    for split in ("train", "test"):
        (folder / f"{split}_X.bin").write_bytes(pictures)
        (folder / f"{split}_y.bin").write_bytes(labels)
    (folder / "fold_indices.txt").write_bytes(folds)
    (folder / "class_names.txt").write_text("\n".join(CLASSES))
    prepared(photographs_in(folder, "stl10"), folder)
    found = read_stl10(folder)
    assert found.train.pictures[len(found.train) - 1].shape == (96, 96, 3)
    assert found.folds.size == 0 or found.folds.max() < len(found.train)


READER = Reader("stl10", read, seeds, ("stranger-",))
