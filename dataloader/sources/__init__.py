"""Sources of photographs: plain folders, COCO, tar shards, STL-10, PASCAL VOC.

A new source is a module with a function that makes a `Listing`, a name in `Layout` and a line in `photographs_in`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from lorbms_fast.dataloader.sources.coco import Part, annotation_files, find_annotations, of_coco, part_of
from lorbms_fast.dataloader.sources.folder import OURS, SUFFIXES, no_folder, of_folder, tree_below
from lorbms_fast.dataloader.sources.listing import Listing, Skipped
from lorbms_fast.dataloader.sources.stl10 import of_stl10
from lorbms_fast.dataloader.sources.tar import Members, archives_in, of_mixed, of_tar
from lorbms_fast.dataloader.sources.voc import IMAGES as VOC_IMAGES
from lorbms_fast.dataloader.sources.voc import of_voc
from lorbms_fast.errors import UserError

__all__ = ["Layout", "Listing", "Part", "Skipped", "layout_of", "of_coco", "of_folder", "photographs_in"]

Layout = Literal["folder", "coco", "tar", "mixed", "stl10", "voc"]


def layout_of(root: Path) -> Layout:
    """Tell a folder's layout from its content.

    It is coco where `annotations/` has a file of COCO's, stl10 where there are STL-10's binary files, voc where there
    is `JPEGImages`, else what lies below: tar archives, pictures (folder), or both (mixed).
    """
    if any(path.parent.name == "annotations" for path in annotation_files(root)):
        return "coco"
    if next(root.glob("*_X.bin"), None):
        return "stl10"
    if any(path.is_dir() for pattern in (VOC_IMAGES, f"VOC*/{VOC_IMAGES}") for path in root.glob(pattern)):
        return "voc"
    if not root.is_dir():
        return "folder"
    tree = tree_below(root)
    if not archives_in(tree):
        return "folder"
    return "mixed" if any(path.suffix.lower() in SUFFIXES for path in tree.files) else "tar"


def photographs_in(
    root: Path, layout: Layout, annotations: Path | None = None, split: str | None = None, part: Part | None = None,
    members: Members | None = None,
) -> Listing:  # fmt: skip
    """List the photographs of a folder of a given layout.

    `annotations` is COCO's json file, by default the one that `find_annotations` finds; `part` is the part of COCO that
    is wanted: folders and files named after the other are refused; `split` is of STL-10 or VOC, by default everything.
    `members` reads archives in the place of `named_members`. Raises UserError where the folder, or something in it, is
    missing or unfit, or `annotations` or `split` do not apply.
    """
    if not root.is_dir():
        raise no_folder(root)
    if any(all((root / name).is_file() for name in marks) for marks in OURS):
        raise UserError(f"{root} is an image store or a run already: name a folder of photographs")
    if annotations is not None and layout != "coco":
        raise UserError(f"--annotations {annotations} belongs to COCO, {root} is read as {layout}: leave it out")
    if split is not None and layout not in ("stl10", "voc"):
        raise UserError(f"--split {split} belongs to stl10 and voc, {root} is read as {layout}: leave it out")
    of_layout: dict[Layout, Callable[[], Listing]] = {
        "folder": lambda: of_folder(root),
        "coco": lambda: of_coco(root, annotations or _annotations_in(root, part)),
        "tar": lambda: of_tar(root, members),
        "mixed": lambda: of_mixed(root, members),
        "stl10": lambda: of_stl10(root, split),
        "voc": lambda: of_voc(root, split),
    }
    listing = of_layout[layout]().writable()
    if part is not None:
        _refuse_other_part(root, listing, part)
    return listing


def _annotations_in(root: Path, part: Part | None) -> Path:
    if (found := find_annotations(root, part)) is None:
        there = ", ".join(path.name for path in annotation_files(root))
        only = f"only {there}" if there else "no instances_*.json or image_info_*.json"
        wanted = f" of {part} images" if part else ""
        raise UserError(f"{root}/annotations has {only}: name a file{wanted} by --annotations")
    return found


def _refuse_other_part(root: Path, listing: Listing, part: Part) -> None:
    """Raise UserError where the annotation file, the folder or one in it is named after the other part."""
    folders = {Path(one.place.path).parent for one in listing.photographs}
    paths = [Path(root.name), Path(root.resolve().name), *([listing.annotations] if listing.annotations else [])]
    paths += [path for folder in sorted(folders) for path in (folder, *folder.parents) if path.name]
    other = next((path for path in paths if part_of(path) not in (None, part)), None)
    if other is not None:
        raise UserError(
            f"{part} images are wanted and {other} is called after {part_of(other)} images: name the {part} images' "
            "folder or annotations, or choose another recipe"
        )
