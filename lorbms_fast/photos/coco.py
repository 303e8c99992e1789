"""Composed scenes as a data set in COCO's format."""

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from lorbms_fast.parallel import ordered_map
from lorbms_fast.photos import shipped
from lorbms_fast.photos.draws import Stream, generator
from lorbms_fast.photos.scene import compose_scene
from lorbms_fast.photos.shipped import CATEGORIES

IMAGES, ANNOTATIONS = "train2017", "annotations/instances_train2017.json"


def write_coco(folder: Path, scenes: int, seed: int, photographs: bool = True, workers: int = 1) -> None:
    """Write composed scenes into `folder` in the layout of COCO's train2017: JPEG files and one instances json.

    Masks are the visible ones as compressed RLE. Beyond COCO's fields each annotation names its cut-out (`object`) and
    each image the shipped photograph behind it (`photograph`). With `photographs` the shipped scenes follow as images
    without annotations. The files do not depend on the number of `workers`.
    """
    (folder / IMAGES).mkdir(parents=True)
    composed = list(ordered_map(partial(_write_scene, folder / IMAGES, seed), range(scenes), workers, "scenes"))
    images = [image for image, _ in composed]
    if photographs:
        images += _copy_photographs(folder / IMAGES, first_id=scenes + 1)
    annotations = [
        {"id": number, **annotation}
        for number, annotation in enumerate((one for _, of_scene in composed for one in of_scene), start=1)
    ]
    (folder / ANNOTATIONS).parent.mkdir()
    (folder / ANNOTATIONS).write_text(json.dumps(_data_set(seed, images, annotations)), encoding="utf-8")


def _write_scene(folder: Path, seed: int, index: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compose a scene and write its JPEG; returns its entry in `images` and those in `annotations`, less ids."""
    scene = compose_scene(generator(seed, Stream.SCENES, index))
    height, width = scene.image.shape[:2]
    image_id = index + 1
    Image.fromarray(scene.image).save(folder / _file_name(image_id), quality=92, subsampling="4:2:0")
    annotations = [
        {
            "image_id": image_id,
            "category_id": CATEGORIES.index(str(placed.photo.category)) + 1,
            **_outline(placed.mask),
            "iscrowd": 0,
            "object": placed.photo.file,
        }
        for placed in scene.objects
    ]
    return _image(image_id, width, height, scene.background), annotations


def _copy_photographs(folder: Path, first_id: int) -> list[dict[str, Any]]:
    images = []
    for image_id, photo in enumerate(shipped.scenes(), start=first_id):
        shutil.copyfile(photo.path, folder / _file_name(image_id))
        with Image.open(photo.path) as image:
            images.append(_image(image_id, image.width, image.height, photo))
    return images


def _outline(mask: np.ndarray) -> dict[str, Any]:
    """Compute `segmentation`, `bbox` and `area` of a bool mask by pycocotools."""
    encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "segmentation": {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")},
        "bbox": rle.toBbox(encoded).tolist(),
        "area": float(rle.area(encoded)),
    }


def _image(image_id: int, width: int, height: int, photo: shipped.Photo) -> dict[str, Any]:
    number = _licences().index(photo.licence) + 1
    entry: dict[str, Any] = {"id": image_id, "file_name": _file_name(image_id), "width": width, "height": height}
    return entry | {"license": number, "photograph": photo.file}


def _data_set(seed: int, images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "info": {
            "description": "Scenes composed from the photographs shipped with lorbms-fast. An image's licence is that "
            "of its `photograph`; the licences of the objects on it are in credits.json.",
            "version": f"seed {seed}",
        },
        "licenses": [{"id": number, "name": name, "url": ""} for number, name in enumerate(_licences(), start=1)],
        "categories": [{"id": i, "name": name, "supercategory": "object"} for i, name in enumerate(CATEGORIES, 1)],
        "images": images,
        "annotations": annotations,
    }


def _licences() -> list[str]:
    return sorted({photo.licence for photo in shipped.photos()})


def _file_name(image_id: int) -> str:
    return f"{image_id:012d}.jpg"
