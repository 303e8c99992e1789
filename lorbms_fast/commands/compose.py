"""`lorbms-fast compose`: data sets made from the shipped photographs."""

import os
from pathlib import Path
from typing import Annotated

import tyro

from lorbms_fast.config import Count, Natural
from lorbms_fast.photos.coco import ANNOTATIONS, IMAGES, CocoCounts
from lorbms_fast.photos.composed import COCO, CREDITS, STL10, write_composed
from lorbms_fast.photos.stl10 import Split

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
    coco, stl10 = write_composed(out, scenes, stl10_train, stl10_test, seed, photos, workers)
    if coco:
        print(_coco_report(out / COCO, coco))
    if stl10:
        print(_stl10_report(out / STL10, stl10_train, stl10_test, stl10))
    print(f"{out / CREDITS}: who made the photographs and under which licences; keep it with the pictures")


def _coco_report(folder: Path, counts: CocoCounts) -> str:
    scenes = [f"{scenes} with {objects}" for objects, scenes in sorted(counts.objects_per_scene.items())]
    categories = [f"{number} {name}" for name, number in counts.objects_per_category.most_common()]
    files = f"{counts.scenes} composed scenes and {counts.photographs} photographs"
    in_all_quadrants = counts.scenes_with_an_object_in_every_quadrant / counts.scenes
    return "\n".join(
        [
            f"{folder}: {files} in {IMAGES}, {ANNOTATIONS}",
            f"  objects in a scene: {', '.join(scenes)}",
            f"  at least four objects: {counts.with_four_or_more:.1%} of the scenes; "
            f"one or more in every quadrant: {in_all_quadrants:.1%}",
            f"  {counts.objects_per_category.total()} objects: {', '.join(categories)}",
        ]
    )


def _stl10_report(folder: Path, train: int, test: int, splits: dict[str, Split]) -> str:
    classes = [f"{name} {len(split.train)}+{len(split.test)}" for name, split in splits.items()]
    return "\n".join(
        [
            f"{folder}: {train} training pictures in ten folds of {train // 5}, {test} test pictures",
            f"  different objects in training + test: {', '.join(classes)}",
        ]
    )
