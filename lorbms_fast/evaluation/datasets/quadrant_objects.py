"""Objects in the quadrants of a store's images, by the annotations of COCO."""

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.dataloader.sources.coco import find_annotations, is_box, read_json, usable_images, whole
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError

NONE = -1
SMALLEST = 0.1
"""Smallest share of a quadrant that an object's box must cover to be its object."""


class NoAnnotations(UserError):
    """There are none of a store's images."""


@dataclass(frozen=True)
class QuadrantObjects:
    """The object of every quadrant."""

    labels: NDArray[np.int64]
    """(N, 4) numbers of `classes`; -1 where no box covers a tenth of the quadrant."""
    classes: tuple[str, ...]


def read_quadrant_objects(store: ImageStore, annotations: Path | None) -> QuadrantObjects:
    """Find the category whose box covers most of each quadrant of each image of a store.

    Boxes follow the image's crop and mirroring. What `prepare` does not count as a box does not count here, nor a
    crowd's, nor a box of no listed image or category. The annotations, instances_*.json, are by default looked for
    beside the store's photographs. Raises NoAnnotations if there is no file or it speaks of none of the store's images,
    another UserError if it cannot be read or is none of COCO's.
    """
    path = annotations or find_annotations(store.root) or find_annotations(store.root.parent)
    if path is None:
        raise NoAnnotations(f"no instances_*.json beside {store.root}: name it with --annotations")
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is no instances file of COCO: name another")
    try:
        categories = {category["id"]: str(category["name"]) for category in content["categories"]}
        numbers = {identity: number for number, identity in enumerate(sorted(categories))}
        images, _ = usable_images(content["images"])
        entries = [one for one in content["annotations"] if isinstance(one, dict)]
        marked = [one for one in entries if is_box(one) and not one.get("iscrowd")]  # a crowd is no object
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no instances file of COCO ({error!r} is amiss): name another") from error
    boxes: dict[Path, list[tuple[int, list[float]]]] = {Path(image["file_name"]): [] for image in images.values()}
    for one in marked:
        image, category = whole(one.get("image_id")), one.get("category_id")
        if image in images and isinstance(category, Hashable) and category in numbers:
            boxes[Path(images[image]["file_name"])].append((numbers[category], one["bbox"]))
    called: dict[str, list[Path]] = {}
    for name in boxes:
        called.setdefault(name.name, []).append(name)
    columns = {name: store.index[name].to_pylist() for name in ("source", "crop_x", "crop_y", "crop_side", "flip")}
    labels = np.full((len(store), 4), NONE, np.int64)
    for row in range(len(store)):
        source, x, y, side, flip = (columns[name][row] for name in columns)
        same = called.get(Path(source).name, [])
        named = max(same, key=lambda name: _common(name, Path(source)), default=Path())
        for q in range(4):
            found = [(covered(box, x, y, side, flip, q), label) for label, box in boxes.get(named, [])]
            part, label = max(found, default=(0.0, NONE))
            if part >= SMALLEST:
                labels[row, q] = label
    if (labels == NONE).all():
        raise NoAnnotations(
            f"{path} speaks of no object in the images of {store.path}: name another with --annotations"
        )
    return QuadrantObjects(labels, tuple(categories[identity] for identity in sorted(categories)))


def _common(one: Path, other: Path) -> int:
    """Count the last parts that two paths have in common: of files of one name, folders tell which is meant."""
    pairs = zip(reversed(one.parts), reversed(other.parts), strict=False)
    return sum(1 for _ in takewhile(lambda parts: parts[0] == parts[1], pairs))


def covered(box: list[float], x: int, y: int, side: int, flip: bool, q: int) -> float:
    """Compute the share of quadrant q (0 to 3) of a square crop that a box (left, top, width, height) covers.

    The crop has its left top corner at (x, y) and is mirrored after it was cut out if `flip`.
    """
    left, top, width, height = box
    left, top = (side - (left - x) - width if flip else left - x), top - y
    half = side / 2
    row, column = divmod(q, 2)
    across = min(left + width, (column + 1) * half) - max(left, column * half)
    down = min(top + height, (row + 1) * half) - max(top, row * half)
    return max(0.0, across) * max(0.0, down) / half**2
