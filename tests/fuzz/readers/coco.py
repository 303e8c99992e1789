"""COCO's annotations: names of files, boxes."""

from contextlib import suppress
from pathlib import Path

from lorbms_fast.dataloader.sources import photographs_in
from lorbms_fast.evaluation.datasets.quadrant_objects import NoAnnotations, read_quadrant_objects
from tests.fuzz.material import as_json, picture, prepared
from tests.fuzz.reader import Reader

FILE = "annotations/instances_train2017.json"


def documents() -> list[object]:
    """Two images, three boxes."""
    images = [{"id": i, "file_name": f"{i}.png", "width": 7, "height": 6} for i in (1, 2)]
    boxes = [{"id": i, "image_id": 1 + i % 2, "category_id": 1, "bbox": [0, 0, 2, 2], "area": 4} for i in range(3)]
    return [{"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "bird"}]}]


def seeds() -> list[bytes]:
    """As COCO has it, and what a parser takes badly."""
    unhashable = {"images": documents()[0]["images"], "annotations": [{"image_id": [1]}, {"image_id": {}}]}  # type: ignore[index]
    outside = {"images": [{"id": 1, "file_name": "../secret.png"}, {"id": 2, "file_name": "2.png"}]}
    return [*map(as_json, [*documents(), unhashable, outside]), b'{"images":' + b"[" * 100_000, b"\xff", b""]


def read(data: bytes, folder: Path) -> None:
    """List the images, prepare them and find their objects; a secret beside the folder must stay unread."""
    root = folder / "coco"
    (root / FILE).parent.mkdir(parents=True)
    (root / FILE).write_bytes(data)
    for name in ("1.png", "2.png"):
        (root / name).write_bytes(picture("PNG"))
    (folder / "secret.png").write_bytes(picture("PNG"))
    listing = photographs_in(root, "coco")
    for photograph in listing.photographs:
        assert (root / photograph.place.path).resolve().is_relative_to(root)
    with suppress(NoAnnotations):  # of the pictures that are left
        read_quadrant_objects(prepared(listing, root), root / FILE)


READER = Reader("coco", read, seeds, ("instances_train2017.json", "coco"), documents, as_json)
