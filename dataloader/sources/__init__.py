"""Where photographs come from: plain folders, COCO, tar shards, STL-10, PASCAL VOC.

A new source is a module with a function that makes a `Listing`, a name in `Layout` and a line in `photographs_in`.
"""

from pathlib import Path
from typing import Literal

from lorbms_fast.dataloader.sources.coco import find_annotations, of_coco
from lorbms_fast.dataloader.sources.folder import of_folder
from lorbms_fast.dataloader.sources.listing import Listing, Skipped
from lorbms_fast.dataloader.sources.stl10 import of_stl10
from lorbms_fast.dataloader.sources.tar import of_tar
from lorbms_fast.dataloader.sources.voc import IMAGES as VOC_IMAGES
from lorbms_fast.dataloader.sources.voc import of_voc
from lorbms_fast.errors import UserError

__all__ = ["Layout", "Listing", "Skipped", "layout_of", "of_coco", "of_folder", "photographs_in"]

Layout = Literal["folder", "coco", "tar", "stl10", "voc"]


def layout_of(root: Path) -> Layout:
    """What a folder looks like: COCO with annotations, STL-10's binary files, VOC, tar archives, or just a folder."""
    if find_annotations(root):
        return "coco"
    if next(root.glob("*_X.bin"), None):
        return "stl10"
    if (root / VOC_IMAGES).is_dir():
        return "voc"
    return "tar" if next(root.glob("*.tar"), None) else "folder"


def photographs_in(root: Path, layout: Layout, annotations: Path | None = None, split: str | None = None) -> Listing:
    """The photographs of a folder of a given layout.

    Args:
        root: the folder.
        layout: how to read it.
        annotations: COCO's json file; by default the one that `find_annotations` finds.
        split: of STL-10 or VOC; by default everything.

    Raises:
        UserError: the folder, or something in it, is missing or unfit; `annotations` or `split` do not apply.
    """
    if not root.is_dir():
        raise UserError(f"{root} is {'not a folder' if root.exists() else 'missing'}: name a folder of photographs")
    if annotations is not None and layout != "coco":
        raise UserError(f"--annotations {annotations} belongs to COCO, {root} is read as {layout}: leave it out")
    if split is not None and layout not in ("stl10", "voc"):
        raise UserError(f"--split {split} belongs to stl10 and voc, {root} is read as {layout}: leave it out")
    return _listing(root, layout, annotations, split).writable()


def _listing(root: Path, layout: Layout, annotations: Path | None, split: str | None) -> Listing:
    if layout == "coco":
        annotations = annotations or find_annotations(root)
        if annotations is None:
            raise UserError(
                f"{root}/annotations has no instances_*.json or image_info_*.json: name one by --annotations"
            )
        return of_coco(root, annotations)
    if layout == "stl10":
        return of_stl10(root, split)
    if layout == "voc":
        return of_voc(root, split)
    return of_tar(root) if layout == "tar" else of_folder(root)
