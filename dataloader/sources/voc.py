"""PASCAL VOC: JPEGs with an XML file of objects each (Everingham et al., IJCV 2010)."""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from lorbms_fast.dataloader.photograph import Photograph, Place
from lorbms_fast.dataloader.sources.listing import Listing, Skipped
from lorbms_fast.errors import UserError

IMAGES, ANNOTATIONS, SETS = "JPEGImages", "Annotations", "ImageSets/Main"


@dataclass(frozen=True)
class VocObject:
    """One annotated object."""

    name: str
    difficult: bool
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels, counted from 1."""


@dataclass(frozen=True)
class VocAnnotation:
    """What an annotation file says."""

    size: tuple[int, int]
    """(width, height)."""
    objects: list[VocObject]


def of_voc(root: Path, split: str | None = None) -> Listing:
    """The photographs of `JPEGImages`, or those that `ImageSets/Main/SPLIT.txt` lists, with their boxes.

    Args:
        root: the folder that holds `JPEGImages`, VOC2007 or the like.
        split: train, val, trainval, test.

    Raises:
        UserError: the folder or the list is missing, or names no photographs.
    """
    if not (root / IMAGES).is_dir():
        raise UserError(f"{root} has no folder {IMAGES}: name the folder VOC2007 or the like")
    names = read_split(root, split) if split else sorted(path.stem for path in (root / IMAGES).glob("*.jpg"))
    if not names:
        raise UserError(f"{root / IMAGES} holds no .jpg files: nothing to prepare")
    photographs, unusable = [], []
    for name in names:
        try:
            annotation = read_annotation(root, name) if (root / ANNOTATIONS / f"{name}.xml").is_file() else None
        except UserError as error:
            unusable.append(Skipped(f"{ANNOTATIONS}/{name}.xml", "bad", str(error).partition(".xml ")[2]))
            continue
        size, boxes = (None, 0) if annotation is None else (annotation.size, len(annotation.objects))
        photographs.append(Photograph(name, Place(f"{IMAGES}/{name}.jpg"), boxes, size))
    return Listing(photographs, unusable)


def read_split(root: Path, split: str) -> list[str]:
    """Names of a split's images; lists of a class (`dog_train`) give those that hold it.

    Raises:
        UserError: there is no such list.
    """
    path = root / SETS / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in (root / SETS).glob("*.txt") if "_" not in path.stem))
        raise UserError(f"{path} is missing: choose one of {known or 'those in another folder'}")
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    return list(dict.fromkeys(name for name, *here in lines if here in ([], ["1"])))


def read_annotation(root: Path, name: str) -> VocAnnotation:
    """The objects of an image.

    Raises:
        UserError: the file is missing, no XML, or lacks what an annotation has.
    """
    path = root / ANNOTATIONS / f"{name}.xml"
    try:
        tree = ElementTree.parse(path).getroot()
        size = (int(_text(tree, "size/width")), int(_text(tree, "size/height")))
        return VocAnnotation(size, [_object(node) for node in tree.findall("object")])
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the folder") from error
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path} is no annotation of VOC ({error}): replace or remove it") from error


def _object(node: ElementTree.Element) -> VocObject:
    left, top, right, bottom = (float(_text(node, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
    return VocObject(_text(node, "name"), node.findtext("difficult", "0").strip() == "1", (left, top, right, bottom))


def _text(node: ElementTree.Element, path: str) -> str:
    text = node.findtext(path)
    if text is None:
        raise ValueError(f"it has no {path}")
    return text.strip()
