"""PASCAL VOC: JPEGs with an XML file of objects each (Everingham et al., IJCV 2010)."""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from lorbms_fast.dataloader.image_file import ByteRange, is_file, is_inside, shown
from lorbms_fast.dataloader.sources.folder import SUFFIXES, UNREAD, Tree, tree_below, unread
from lorbms_fast.dataloader.sources.listing import Listing, Named, Skipped, first_of, identified
from lorbms_fast.errors import UserError

IMAGES, ANNOTATIONS, SETS = "JPEGImages", "Annotations", "ImageSets/Main"


@dataclass(frozen=True)
class VocObject:
    """One annotated object."""

    name: str
    difficult: bool


@dataclass(frozen=True)
class VocAnnotation:
    """The content of an annotation file."""

    size: tuple[int, int] | None
    """(width, height); None where the file gives none above 0."""
    objects: list[VocObject]


def of_voc(root: Path, split: str | None = None) -> Listing:
    """List the photographs of `JPEGImages`, or those that `ImageSets/Main/SPLIT.txt` names, with their boxes.

    The root holds `JPEGImages`, as VOC2007 or the like, or such folders, as VOCdevkit. Raises UserError where the
    folder or the list is missing, or names no photographs.
    """
    found: list[Named] = []
    left_out: list[Skipped] = []
    for folder in voc_folders(root):
        of_one, unusable = _named(root, folder, split)
        found += of_one
        left_out += unusable
    if not found:
        raise UserError(f"{root} names no usable photographs in {IMAGES}{first_of(left_out)}: nothing to prepare")
    return Listing(identified(found), left_out)


def voc_folders(root: Path) -> list[Path]:
    """List folders with `JPEGImages`, `root` or two levels below it at most, relative to it; UserError without any."""
    if (root / IMAGES).is_dir():
        return [Path()]
    inside = [*root.glob(f"*/{IMAGES}"), *root.glob(f"*/*/{IMAGES}")]
    found = sorted(path.parent.relative_to(root) for path in inside if path.is_dir())
    if not found:
        raise UserError(f"{root} has no folder {IMAGES}: name the folder VOC2007 or the like")
    return found


def pictures_in(tree: Tree) -> dict[str, list[str]]:
    """Group the files in `JPEGImages` by their path without ending, which annotations use."""
    pictures: dict[str, list[str]] = {}
    for path in tree.files:
        if path.suffix.lower() in SUFFIXES:
            pictures.setdefault(path.with_suffix("").as_posix(), []).append(path.as_posix())
    return pictures


def _named(root: Path, folder: Path, split: str | None) -> tuple[list[Named], list[Skipped]]:
    """Photographs of VOC2007 or the like, and what is left out."""
    tree = tree_below(root / folder / IMAGES)
    pictures = pictures_in(tree)
    found = []
    unusable = [unread(f"{folder / IMAGES / path}") for path in tree.files if path.suffix.lower() in UNREAD]
    for name in read_split(root / folder, split) if split else sorted(pictures):
        annotated = Path(ANNOTATIONS, f"{name}.xml")
        try:
            annotation = read_annotation(root / folder, name) if is_file(root / folder / annotated) else None
        except UserError as error:
            unusable.append(Skipped(str(folder / annotated), "bad", str(error).partition(".xml ")[2]))
            continue
        size, boxes = (None, 0) if annotation is None else (annotation.size, len(annotation.objects))
        for file in pictures.get(name, [f"{name}.jpg"]):
            place = folder / IMAGES / file
            found.append(Named(name, place.as_posix(), ByteRange(str(place)), boxes, size))
    return found, unusable


def read_split(root: Path, split: str) -> list[str]:
    """Read a split's names of images, or (`dog_train`) those with a class; UserError for no list, or names outside."""
    path = root / SETS / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in (root / SETS).glob("*.txt") if "_" not in path.stem))
        raise UserError(f"{path} is missing: choose one of {known or 'those in another folder'}")
    try:
        lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): unpack it again") from error
    names = list(dict.fromkeys(name for name, *here in lines if here in ([], ["1"])))
    if outside := [name for name in names if not is_inside(name)]:
        what = "with a NUL character, which no file's name can have" if "\0" in outside[0] else f"outside {IMAGES}"
        raise UserError(f"{path} names a file {what}, {shown(outside[0])}: unpack it again")
    return names


def read_annotation(root: Path, name: str) -> VocAnnotation:
    """Read the objects of an image; UserError where the file is missing, no XML, or lacks what an annotation has."""
    path = root / ANNOTATIONS / f"{name}.xml"
    try:
        tree = ElementTree.parse(path, ElementTree.XMLParser(target=_WithoutDoctype())).getroot()
        width, height = (int(float(_text(tree, f"size/{side}"))) for side in ("width", "height"))
        size = (width, height) if min(width, height) > 0 else None
        return VocAnnotation(size, [_object(node) for node in tree.findall("object")])
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the folder") from error
    except (ElementTree.ParseError, LookupError, ArithmeticError, ValueError) as error:  # LookupError: of an encoding
        raise UserError(f"{path} is no annotation of VOC ({error}): replace or remove it") from error


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Builder that refuses a document type, whose entities could expand to gigabytes."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type, which no annotation needs")


def _object(node: ElementTree.Element) -> VocObject:
    for side in ("xmin", "ymin", "xmax", "ymax"):
        float(_text(node, f"bndbox/{side}"))  # an annotation without is damaged
    return VocObject(_text(node, "name"), node.findtext("difficult", "0").strip() == "1")


def _text(node: ElementTree.Element, path: str) -> str:
    text = node.findtext(path)
    if text is None:
        raise ValueError(f"it has no {path}")
    return text.strip()
