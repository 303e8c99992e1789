"""Photographs to prepare: of any folder, or of COCO."""

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorbms_fast.dataloader.decode import SUFFIXES
from lorbms_fast.errors import UserError


@dataclass(frozen=True)
class Photograph:
    """A file and what its annotations say of it."""

    id: str
    path: str
    """Relative to the folder that was asked for."""
    boxes: int = 0


def of_folder(root: Path) -> list[Photograph]:
    """Every picture below a folder, by file name ending; the path without ending is its id.

    Raises:
        UserError: there is no such folder, a folder cannot be read, or no pictures are in it.
    """
    if not root.is_dir():
        raise UserError(f"{root} is {'not a folder' if root.exists() else 'missing'}: name a folder of photographs")

    def unreadable(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): change its permissions or leave it out")

    found = []
    for folder, _, names in os.walk(root, onerror=unreadable):
        found += [Path(folder, name).relative_to(root) for name in names if Path(name).suffix.lower() in SUFFIXES]
    if not found:
        raise UserError(f"{root} holds no photographs: files with endings {' '.join(sorted(SUFFIXES))} are looked for")
    stems = Counter(path.with_suffix("") for path in found)
    return [
        Photograph(path.as_posix() if stems[path.with_suffix("")] > 1 else path.with_suffix("").as_posix(), str(path))
        for path in sorted(found)
    ]


def of_coco(root: Path, annotations: Path) -> list[Photograph]:
    """Every image that a COCO file names (instances_*.json, or image_info_*.json without boxes).

    Args:
        root: COCO's folder: images are looked for in it, in `images/`, and in the folder the file is called after.
        annotations: the json file.

    Raises:
        UserError: the file is missing or is no COCO file, or none of its images is there.
    """
    content = _read(annotations)
    boxes = Counter(annotation.get("image_id") for annotation in content.get("annotations", []))
    split = annotations.stem.split("_")[-1]
    images = [image for image in content["images"] if isinstance(image.get("file_name"), str)]
    if not images:
        raise UserError(f"{annotations} names no images: choose another file with --annotations")
    folders = [Path(), Path(split), Path("images"), Path("images", split)]
    folder = max(
        folders, key=lambda folder: sum((root / folder / image["file_name"]).is_file() for image in images[:50])
    )
    if not any((root / folder / image["file_name"]).is_file() for image in images):
        tried = ", ".join(str(root / folder) for folder in folders)
        raise UserError(f"none of the {len(images)} images that {annotations} names is in {tried}: check the paths")
    found: dict[str, Photograph] = {}
    for image in images:
        if not Path(image["file_name"]).is_absolute() and ".." not in Path(image["file_name"]).parts:
            identity = image.get("id", Path(image["file_name"]).stem)
            name = f"{identity:012d}" if isinstance(identity, int) else str(identity)
            found.setdefault(name, Photograph(name, str(folder / image["file_name"]), boxes[image.get("id")]))
    return [found[name] for name in sorted(found)]


def find_annotations(root: Path) -> Path | None:
    """The annotations of a COCO folder: instances before image_info, train before others; None where there are none."""
    found = [*root.glob("annotations/instances_*.json"), *root.glob("annotations/image_info_*.json")]
    return min(
        found, key=lambda path: ("instances" not in path.name, "train" not in path.name, path.name), default=None
    )


def _read(annotations: Path) -> dict[str, Any]:
    try:
        content = json.loads(annotations.read_text())
    except OSError as error:
        raise UserError(f"{annotations} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{annotations} is not JSON ({error}): is it cut short?") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UserError(f"{annotations} has no list of images: it is no COCO file")
    return content
