"""COCO: images that a json file names, with their boxes."""

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorbms_fast import atomic_io
from lorbms_fast.dataloader.photograph import Photograph, Place, is_file, is_inside
from lorbms_fast.dataloader.sources.listing import Listing, Skipped
from lorbms_fast.errors import UserError

if TYPE_CHECKING:
    from pycocotools.coco import COCO


def of_coco(root: Path, annotations: Path) -> Listing:
    """Every image that a COCO file names (instances_*.json, or image_info_*.json without boxes).

    An entry without an id or a plain file name is unusable, and so is one whose id another file has already; the same
    entry twice counts once.

    Args:
        root: COCO's folder: images are looked for in it, in `images/`, and in the folder the file is called after.
        annotations: the json file.

    Raises:
        UserError: the file is missing or is no COCO file, or none of its images is there.
    """
    content = _read(annotations)
    images, unusable = _usable(content["images"])
    if not images:
        raise UserError(f"{annotations} names no images: choose another file with --annotations")
    folder = _folder_of_images(root, annotations, images)
    coco = _indexed(images, content.get("annotations", []))
    return Listing([_photograph(coco, folder, images[identity]) for identity in sorted(images)], unusable)


def find_annotations(root: Path) -> Path | None:
    """The annotations of a COCO folder: instances before image_info, train before others; None where there are none."""
    found = [*root.glob("annotations/instances_*.json"), *root.glob("annotations/image_info_*.json")]
    return min(
        found, key=lambda path: ("instances" not in path.name, "train" not in path.name, path.name), default=None
    )


def _photograph(coco: "COCO", folder: Path, image: dict[str, Any]) -> Photograph:
    size = (image.get("width"), image.get("height"))
    return Photograph(
        f"{image['id']:012d}",
        Place(str(folder / image["file_name"])),
        len(coco.getAnnIds(imgIds=[image["id"]])),
        size if all(isinstance(side, int) and side > 0 for side in size) else None,  # type: ignore[arg-type]
    )


def _usable(entries: list[Any]) -> tuple[dict[int, dict[str, Any]], list[Skipped]]:
    usable: dict[int, dict[str, Any]] = {}
    unusable = []
    for number, entry in enumerate(entries):
        reason = _unusable(entry, usable)
        if reason is None:
            usable[entry["id"]] = entry
        else:
            unusable.append(Skipped(f"image entry {number}", "bad", reason))
    return usable, unusable


def _unusable(entry: Any, usable: dict[int, dict[str, Any]]) -> str | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        return "names no file"
    name = entry["file_name"]
    if not is_inside(name):
        return f"names a file outside its folder, {name}"
    identity = entry.get("id")
    if not isinstance(identity, int) or identity < 0:
        return f"gives {name} no id" if identity is None else f"gives {name} the id {identity!r}, not a number"
    if identity in usable and usable[identity]["file_name"] != name:
        return f"gives {name} the id {identity} of {usable[identity]['file_name']}"
    return None


def _folder_of_images(root: Path, annotations: Path, images: dict[int, dict[str, Any]]) -> Path:
    """Where the images are, relative to `root`: the folder that has most of the first fifty."""
    split = annotations.stem.split("_")[-1]
    folders = [Path(), Path(split), Path("images"), Path("images", split)]
    names = [image["file_name"] for image in images.values()]

    def there(folder: Path, names: list[str]) -> Iterator[bool]:
        return (is_file(root / folder / name) for name in names)

    folder = max(folders, key=lambda folder: sum(there(folder, names[:50])))
    if not any(there(folder, names)):
        tried = ", ".join(str(root / folder) for folder in folders)
        raise UserError(f"none of the {len(images)} images that {annotations} names is in {tried}: check the paths")
    return folder


def _indexed(images: dict[int, dict[str, Any]], annotations: list[Any]) -> "COCO":
    """pycocotools' index of the usable part: it fails on entries without ids, and prints."""
    boxes = [box for box in annotations if isinstance(box, dict) and _of_one(box, images)]
    coco: COCO = import_module("pycocotools.coco").COCO()  # which not every process that reads pictures needs
    coco.dataset = {
        "images": list(images.values()),
        "annotations": [box | {"id": number} for number, box in enumerate(boxes)],
    }
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _of_one(box: dict[str, Any], images: dict[int, dict[str, Any]]) -> bool:
    image = box.get("image_id")
    return isinstance(image, int | float) and image in images


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: it cannot be read, or is not JSON.
    """
    try:
        return atomic_io.read_json(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): is it cut short?") from error


def _read(annotations: Path) -> dict[str, Any]:
    content = read_json(annotations)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UserError(f"{annotations} has no list of images: it is no COCO file")
    if not isinstance(content.get("annotations", []), list):
        raise UserError(f"{annotations} has annotations that are no list: it is no COCO file")
    return content
