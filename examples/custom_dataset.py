"""A data set of your own, in a format that nobody else reads, as an image store.

    python examples/custom_dataset.py FOLDER

A source says where each photograph's bytes are: in a file, or in a part of one. Here all photographs lie behind each
other in one file, with a table of their places. Needs the extra `train`.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from lorbms_fast.dataloader.image_file import ByteRange, Photograph
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import Listing
from lorbms_fast.dataloader.store import ImageStore

IMAGES = 24


def write_dataset(folder: Path) -> None:
    """photographs.pack: JPEG files behind each other. places.txt: beginning and length of each, in bytes."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    files = []
    for _ in range(IMAGES):
        file = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (6, 8, 3), np.uint8)).resize((96, 80)).save(file, "JPEG")
        files.append(file.getvalue())
    lengths = np.array([len(data) for data in files])
    (folder / "photographs.pack").write_bytes(b"".join(files))
    np.savetxt(folder / "places.txt", np.stack([lengths.cumsum() - lengths, lengths], 1), "%d")


def listing(folder: Path) -> Listing:
    """The source: an id and a place for every photograph."""
    places = np.loadtxt(folder / "places.txt", np.int64)
    return Listing(
        [
            Photograph(f"photograph-{number:06d}", ByteRange("photographs.pack", int(begin), int(length)))
            for number, (begin, length) in enumerate(places)
        ]
    )


def main(folder: Path) -> None:
    """Write the data set, prepare it, and look at what is in the store."""
    root, out = folder / "dataset", folder / "store"
    write_dataset(root)
    counts, skipped = prepare_store(out, root, listing(root), Recipe(), image_size=64)
    store = ImageStore.open(out)
    print(f"{counts.images} images, {len(skipped)} skipped; the first is {store.ids[0]}, {store.images[0].shape}")
    print(f"next: lorbms-fast neighbours {out} && lorbms-fast train {out} --preset demo --out {folder / 'run'}")


if __name__ == "__main__":
    main(Path(sys.argv[1])) if len(sys.argv) == 2 else sys.exit(__doc__)
