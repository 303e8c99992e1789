"""COCO: images that a json file names, with their boxes."""

import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lorbms_fast import atomic_io
from lorbms_fast.counted import counted
from lorbms_fast.dataloader.image_file import ByteRange, Photograph, is_inside, shown
from lorbms_fast.dataloader.sources.folder import SUFFIXES, counted_names, tree_below
from lorbms_fast.dataloader.sources.listing import Listing, Skipped, first_of
from lorbms_fast.dataloader.sources.tar import compressed_by
from lorbms_fast.errors import UserError

if TYPE_CHECKING:
    from pycocotools.coco import COCO

Part = Literal["train", "test"]
LARGEST = 2**63 - 1
"""Largest number that an id or a side can be."""
ROBOFLOW = "_annotations.coco.json"
"""Name of the file in each of Roboflow's folders of images."""


def of_coco(root: Path, annotations: Path) -> Listing:
    """List every image that a COCO file names (instances_*.json, or image_info_*.json without boxes).

    An entry without a number as id or a plain file name is unusable, and so is one whose id another file has already,
    or whose name several files below the folder have; the same entry twice counts once. Boxes that are empty or not
    finite do not count; a crowd's does, as pycocotools counts.

    Images are looked for in the root, in `images/`, in the folder that the file is called after, beside the file, and
    if none is there, in every folder below. Raises UserError if none is there either, or the file is none of COCO's.
    """
    content = _read(annotations)
    images, unusable = usable_images(content["images"])
    _check_some(images, unusable, annotations)
    names_in = cache(_names_in)
    places, several = _places(root, annotations, [image["file_name"] for image in images.values()], names_in)
    unusable += several.values()
    images = {identity: image for identity, image in images.items() if image["file_name"] not in several}
    _check_some(images, unusable, annotations)
    boxes, notes = _boxes(content.get("annotations", []), images)
    of_file = Counter(places[image["file_name"]] for image in images.values())
    if again := [place for place, ids in of_file.items() if ids > 1]:
        notes.append(f"{counted(len(again), 'file')} named under several ids, an image for each: {shown(again[0])}")
    coco = _indexed(images, boxes)
    photographs = [
        Photograph(
            f"{identity:012d}",
            ByteRange(places[image["file_name"]]),
            len(coco.getAnnIds(imgIds=[identity])),
            _size(image),
        )
        for identity, image in sorted(images.items())
    ]
    notes = [f"annotations: {annotations}", *notes, *_unnamed(root, {one.place.path for one in photographs}, names_in)]
    return Listing(photographs, unusable, notes, annotations)


def find_annotations(root: Path, part: Part | None = None) -> Path | None:
    """Find the annotations of a COCO folder; None where there are none.

    Of the part train, instances come before image_info, and none of test's; of test, test's before others, and none of
    train's; of no part, those of a split whose images are there before others, as for train.
    """
    found = [path for path in annotation_files(root) if part is None or part_of(path) in (None, part)]

    def rank(path: Path) -> tuple[object, ...]:
        images = [path.parent, root / _split(path), root / "images" / _split(path)]
        missing = part is None and path.name != ROBOFLOW and not any(folder.is_dir() for folder in images[1:])
        wrong = part_of(path) != (part or "train")
        return missing, wrong, "dev" in path.name, "instances" not in path.name, path.name

    return min(found, key=rank, default=None)


def annotation_files(root: Path) -> list[Path]:
    """List the files that are named like COCO's annotations of objects or images."""
    patterns = ("annotations/instances_*.json", "annotations/image_info_*.json", ROBOFLOW, f"*/{ROBOFLOW}")
    return sorted(path for pattern in patterns for path in root.glob(pattern))


def part_of(path: Path) -> Part | None:
    """Tell training from test images by a folder's name or a word of a json file's name.

    >>> [part_of(Path(name)) for name in ("train2017", "instances_val2017.json", "image_info_test-dev2017.json")]
    ['train', None, 'test']
    """
    name = path.parent.name if path.name == ROBOFLOW else path.name
    words = name.removesuffix(".json").split("_") if name.endswith(".json") else [name]
    plain = {word.lower().rstrip("_-0123456789") for word in words}
    if plain & {"train", "training", "trainval"}:
        return "train"
    return "test" if plain & {"test", "testing", "test-dev", "testdev"} else None


def usable_images(entries: list[Any]) -> tuple[dict[int, dict[str, Any]], list[Skipped]]:
    """Sort a file's images into those that can be used, by their ids, and the others."""
    usable: dict[int, dict[str, Any]] = {}
    unusable = []
    for number, entry in enumerate(entries):
        reason = _unusable(entry, usable)
        if reason is None:
            usable[int(entry["id"])] = entry
        else:
            unusable.append(Skipped(f"image entry {number}", "bad", reason))
    return usable, unusable


def _check_some(images: dict[int, dict[str, Any]], unusable: list[Skipped], annotations: Path) -> None:
    if not images:
        reason = f"names no image that can be used{first_of(unusable)}"
        raise UserError(f"{annotations} {reason}: mend it, or choose another file with --annotations")


def _unusable(entry: Any, usable: dict[int, dict[str, Any]]) -> str | None:
    name = entry.get("file_name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not Path(name).name:
        return "names no file"
    return _unusable_name(name) or _unusable_id(entry.get("id"), name, usable)


def _unusable_name(name: str) -> str | None:
    if "\0" in name:
        return f"names {shown(name)}, with a NUL character, which no file's name can have"
    if "://" in name:
        return f"names {shown(name)}, an address (URL) and not a file's path below the folder"
    if "\\" in name:
        return f"names {shown(name)}, with a backslash where paths have a slash (/)"
    if Path(name).is_absolute():
        return f"names {shown(name)}, an absolute path and not one below the folder"
    if not is_inside(name):
        return f"names a file outside its folder, {shown(name)}"
    return None


def _unusable_id(identity: Any, name: str, usable: dict[int, dict[str, Any]]) -> str | None:
    if identity is None:
        return f"gives {shown(name)} no id"
    if isinstance(identity, int) and abs(identity) > LARGEST:
        return f"gives {shown(name)} an id of {len(str(abs(identity))):,} digits, a number too long"
    if whole(identity) is None:
        kind = "a text," if isinstance(identity, str) else "which is"
        return f"gives {shown(name)} the id {shown(repr(identity))}, {kind} not a whole number"
    if identity < 0:
        return f"gives {shown(name)} the negative id {identity}"
    if identity in usable and usable[identity]["file_name"] != name:
        return f"gives {shown(name)} the id {identity} of {shown(usable[identity]['file_name'])}"
    return None


def whole(number: Any) -> int | None:
    """Convert a whole JSON number of up to 64 bits to int: 3 and 3.0 are the same to JSON."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= LARGEST:
        return None
    return int(number) if number == int(number) else None


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    width, height = (whole(image.get(side)) for side in ("width", "height"))
    return (width, height) if width and height and min(width, height) > 0 else None


NamesIn = Callable[[Path], frozenset[str]]
"""Function of a folder that gives the names in it."""


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir())
    except (OSError, ValueError):
        return frozenset()


def _places(
    root: Path, annotations: Path, names: list[str], names_in: NamesIn
) -> tuple[dict[str, str], dict[str, Skipped]]:
    """Find each named file, as a path relative to `root`, and names that several files have.

    A missing file is placed in the folder that has most.
    """
    split = _split(annotations)
    beside = Path(os.path.relpath(annotations.parent, root))
    usual = [Path(), Path(split), Path("images"), Path("images", split), Path(split, "images")]
    usual += [] if ".." in beside.parts else [beside]
    usual = [folder for folder in usual if (root / folder).is_dir()]
    find = _finder(root, names_in)
    folders = _with_most(usual, names, find)
    several: dict[str, Skipped] = {}
    if not folders:
        folders, several = _folder_below(root, names)
    if not folders:
        raise UserError(
            f"none of the {counted(len(names), 'image')} that {annotations} names is in {root} or a folder below it, "
            f"the first is {shown(names[0])}: check the paths, or choose another file with --annotations"
            f"{_others(root, annotations)}"
        )
    places = {
        name: next((path for folder in folders if (path := find(folder, name))), str(folders[0] / name))
        for name in names
    }
    return places, several


def _unnamed(root: Path, named: set[str], names_in: NamesIn) -> list[str]:
    """Note the pictures that no entry names, in the folders of those that are named."""
    folders = sorted({Path(path).parent for path in named})
    pictures = (
        (folder / name).as_posix()
        for folder in folders
        for name in sorted(names_in(root / folder))
        if name.lower().endswith(tuple(SUFFIXES)) and not name.startswith(".")
    )
    others = [path for path in pictures if path not in named]
    return [f"left out, as no usable entry names them: {counted_names(others, 'picture')}"] if others else []


Find = Callable[[Path, str], str | None]
"""Function of a folder and a file's name in it that gives the file's path, relative to the root, or None."""


def _finder(root: Path, names_in: NamesIn) -> Find:
    """Make a function that finds files by folder listings, and else by name regardless of case."""

    @cache
    def in_any_case(folder: Path) -> dict[str, str]:
        counts = Counter(name.lower() for name in names_in(folder))
        return {name.lower(): name for name in names_in(folder) if counts[name.lower()] == 1}

    def find(folder: Path, name: str) -> str | None:
        parent, _, last = str(folder / name).rpartition("/")
        there = last if last in names_in(root / parent) else in_any_case(root / parent).get(last.lower())
        return None if there is None else f"{parent}/{there}".removeprefix("/")

    return find


def _with_most(folders: Iterable[Path], names: list[str], find: Find) -> list[Path]:
    """Folders that hold some of the named files, the one with most first."""
    hits = {folder: sum(find(folder, name) is not None for name in names) for folder in folders}
    return sorted((folder for folder in hits if hits[folder]), key=lambda folder: -hits[folder])


def _folder_below(root: Path, names: list[str]) -> tuple[list[Path], dict[str, Skipped]]:
    """The one folder below that holds most of the named files, and names that another file elsewhere has too."""
    below: dict[str, list[str]] = {}
    for path in tree_below(root).files:
        below.setdefault(path.name, []).append(f"/{path.as_posix()}")
    found = {
        name: [path for path in below.get(Path(name).name, []) if path.endswith(f"/{_plain(name)}")] for name in names
    }
    bases = Counter(path.removesuffix(f"/{_plain(name)}") for name, paths in found.items() for path in paths)
    if not bases:
        return [], {}
    ((base, _),) = bases.most_common(1)
    taken = {f"{base}/{_plain(name)}" for name in names}
    several = {}
    for name, paths in found.items():
        place = root / f"{base}/{_plain(name)}"[1:]
        others = [path[1:] for path in paths if path not in taken and (root / path[1:]).resolve() != place.resolve()]
        if others and place.exists():
            reason = (
                f"is called {shown(name)}, as the annotations say, and so is {shown(others[0])}: "
                "prepare the folder that is meant"
            )
            several[name] = Skipped(str(place.relative_to(root)), "bad", reason)
    return [Path(base.removeprefix("/"))], several


def _plain(name: str) -> str:
    return Path(name).as_posix()


def _boxes(annotations: list[Any], images: dict[int, dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Boxes of the images, and notes on annotations that are none."""
    boxes: list[dict[str, Any]] = []
    of_none, no_box = [], []
    for number, one in enumerate(annotations):
        identity = whole(one.get("image_id")) if isinstance(one, dict) else None
        if identity not in images:
            of_none.append((number, one))
        elif is_box(one):
            boxes.append({"id": len(boxes), "image_id": identity})
        else:
            no_box.append((number, one))
    notes = []
    if of_none:
        number, one = of_none[0]
        what = f"has the image_id {shown(repr(one.get('image_id')))}" if isinstance(one, dict) else "is none"
        notes.append(
            f"{len(of_none):,} of {len(annotations):,} annotations are of no listed image: number {number} {what}"
        )
    if no_box:
        what = "empty, or without four finite numbers"
        notes.append(f"{len(no_box):,} of {len(annotations):,} annotations do not count as boxes ({what})")
    return boxes, notes


def is_box(annotation: dict[str, Any]) -> bool:
    """Check that an annotation has a box: four finite numbers, not empty."""
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        return False
    if not all(isinstance(number, int | float) and abs(number) <= LARGEST for number in box):
        return False
    return bool(box[2] > 0 and box[3] > 0)


def _indexed(images: dict[int, dict[str, Any]], boxes: list[dict[str, Any]]) -> "COCO":
    """Index the usable part by pycocotools, which fails on entries without ids, and prints."""
    coco: COCO = import_module("pycocotools.coco").COCO()  # which not every process that reads pictures needs
    coco.dataset = {"images": [{"id": identity} for identity in images], "annotations": boxes}
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _split(annotations: Path) -> str:
    return annotations.stem.split("_")[-1]


def _others(root: Path, annotations: Path) -> str:
    others = [path for path in annotation_files(root) if path != annotations]
    return f" ({', '.join(str(path) for path in others)})" if others else ""


def read_json(path: Path) -> Any:
    """Read a JSON file; UserError where it cannot be read, or is not JSON."""
    try:
        return atomic_io.read_json(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:
        raise UserError(f"{path} {_fault(path, error)}") from error


def _fault(path: Path, error: ValueError) -> str:
    if program := compressed_by(path):
        return f"is compressed by {program}: unpack it first"
    if isinstance(error, UnicodeDecodeError) and error.end < len(error.object):
        return f"is not {error.encoding.upper()} text (from byte {error.start:,} on): save it as UTF-8"
    if isinstance(error, UnicodeDecodeError | json.JSONDecodeError):
        return f"is not JSON ({error}): is it cut short?"
    return f"{error}: mend it"


def _read(annotations: Path) -> dict[str, Any]:
    content = read_json(annotations)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UserError(f"{annotations} has no list of images: it is no COCO file")
    if not isinstance(content.get("annotations", []), list):
        raise UserError(f"{annotations} has annotations that are no list: it is no COCO file")
    return content
