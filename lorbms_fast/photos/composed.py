"""One folder with everything composed: a COCO-format set, an STL-10-format set, and the credits of their parts."""

import shutil
from pathlib import Path

from lorbms_fast.atomic_io import atomic_folder
from lorbms_fast.errors import UserError
from lorbms_fast.photos import shipped
from lorbms_fast.photos.coco import write_coco
from lorbms_fast.photos.stl10 import check_sizes, write_stl10

COCO, STL10, CREDITS = "coco", "stl10_binary", "credits"


def write_composed(
    out: Path, scenes: int, train: int, test: int, seed: int, photographs: bool = True, workers: int = 1
) -> None:
    """Write `out/coco`, `out/stl10_binary` and `out/credits`: all of it, or nothing.

    `scenes` = 0 leaves the COCO-format set out, `train` = `test` = 0 the STL-10-format one. Raises UserError
    if `out` exists or a number makes no sense.
    """
    if not (scenes or train or test):
        raise UserError("0 scenes and 0 labelled pictures: there is nothing to compose; ask for some of either")
    if train or test:
        check_sizes(train, test)
    with atomic_folder(out) as folder:
        if scenes:
            write_coco(folder / COCO, scenes, seed, photographs, workers)
        if train or test:
            write_stl10(folder / STL10, train, test, seed, workers)
        write_credits(folder / CREDITS)


def write_credits(folder: Path) -> None:
    """Write who made the shipped photographs, and their licences, into a new folder."""
    folder.mkdir()
    for name in ("credits.json", "README.md"):
        shutil.copyfile(shipped.DATA / name, folder / name)
    shutil.copytree(shipped.DATA / "licences", folder / "licences")
