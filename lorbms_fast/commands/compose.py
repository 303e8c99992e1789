"""`lorbms-fast compose`: data sets made from the shipped photographs."""

import os
from pathlib import Path
from typing import Annotated

import tyro

from lorbms_fast.config import Count, Natural
from lorbms_fast.photos import shipped
from lorbms_fast.photos.coco import ANNOTATIONS, IMAGES
from lorbms_fast.photos.composed import COCO, CREDITS, STL10, write_composed

WORKERS = min(4, os.cpu_count() or 1)


def compose(
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")],
    scenes: Natural = 600,
    photos: bool = True,
    stl10_train: Natural = 1000,
    stl10_test: Natural = 800,
    seed: Natural = 0,
    workers: Count = WORKERS,
) -> None:
    """Make data sets from the photographs shipped with this program, for trying everything without COCO and STL-10.

    148 objects cut out of photographs are laid onto photographs of places. OUT/coco has the layout of COCO's train2017
    (about 480x640 pixels; as a rule one object in each quadrant, with its box, category and visible mask) and is what
    "lorbms-fast prepare" reads. OUT/stl10_binary has the layout of STL-10 (96x96 pixels, one object, ten classes, no
    object of the test set in the training set). OUT/credits names who made the photographs.

    Numbers obtained on these sets cannot be compared with those on COCO or STL-10.

    Args:
        out: the folder to write; it must not exist.
        scenes: number of composed scenes in the COCO-format set; 0 leaves the set out.
        photos: put the 332 shipped photographs of whole scenes beside the composed ones, without annotations.
        stl10_train: number of training pictures in the STL-10-format set, a multiple of 50 (each of the ten folds
            holds a fifth); 0 together with --stl10-test 0 leaves the set out.
        stl10_test: number of test pictures in the STL-10-format set, a multiple of 10.
        seed: the same seed and numbers give the same bytes.
        workers: processes to compose with; does not change the result.
    """
    write_composed(out, scenes, stl10_train, stl10_test, seed, photos, workers)
    if scenes:
        photographs = len(shipped.scenes()) if photos else 0
        print(f"{out / COCO}: {scenes} composed scenes and {photographs} photographs in {IMAGES}, {ANNOTATIONS}")
    if stl10_train:
        folds = f"{stl10_train} training pictures in ten folds of {stl10_train // 5}"
        print(f"{out / STL10}: {folds}, {stl10_test} test pictures of other objects")
    print(f"{out / CREDITS}: who made the photographs and under which licences; keep it with the pictures")
