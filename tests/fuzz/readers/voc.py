"""PASCAL VOC: an annotation in XML, and the list of a split's images. Bytes are the two, a line of dashes between."""

from pathlib import Path

from lorbms_fast.dataloader.sources import photographs_in
from lorbms_fast.evaluation.datasets.voc import read_voc
from tests.fuzz.material import picture, prepared
from tests.fuzz.reader import Reader

BETWEEN = b"-----"
RIGHT = b"""<annotation><size><width>7</width><height>6</height></size>
<object><name>bird</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4.5</xmax><ymax>5</ymax></bndbox></object></annotation>"""
LAUGHS = (
    b"<!DOCTYPE annotation [<!ENTITY a0 'bird'>"
    + b"".join(b"<!ENTITY a%d '%s'>" % (i, b"&a%d;" % (i - 1) * 10) for i in range(1, 8))
    + b"]><annotation><object><name>&a7;</name></object></annotation>"
)
EXTERNAL = RIGHT.replace(b"bird", b"&e;")
EXTERNAL = b'<!DOCTYPE annotation [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + EXTERNAL


def seeds() -> list[bytes]:
    """An annotation in order; entities, encodings and names that are not."""
    annotations = [
        *(RIGHT, LAUGHS, EXTERNAL, b"<a>" * 100_000, b"", b"\0"),
        b'<?xml version="1.0" encoding="utf-7"?>' + RIGHT,
        b'<?xml version="1.0" encoding="unheard-of"?>' + RIGHT,
        b'<?xml version="1.0" encoding="utf-16"?>' + RIGHT,
        RIGHT.replace(b">7<", b">1e999<"),
        RIGHT.replace(b">7<", b">-7<"),
        RIGHT.replace(b">7<", b">" + b"9" * 5000 + b"<"),
        RIGHT.replace(b">4.5<", b">nan<"),
    ]
    lists = [b"1\n", b"../../secret\n", b"/etc/passwd\n", b"\xff\n", b"1\0\n", b"a" * 5000, b"", b"1 1\n1 -1\n"]
    return [annotation + BETWEEN + b"1\n" for annotation in annotations] + [RIGHT + BETWEEN + names for names in lists]


def read(data: bytes, folder: Path) -> None:
    """Prepare a split and read it for evaluation; a secret beside the folder must stay unread."""
    annotation, _, names = data.partition(BETWEEN)
    root = folder / "VOC2007"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    (root / "JPEGImages" / "1.jpg").write_bytes(picture("JPEG"))
    (folder / "secret.jpg").write_bytes(picture("JPEG"))
    (folder / "secret.xml").write_bytes(RIGHT)
    (root / "Annotations" / "1.xml").write_bytes(annotation)
    (root / "ImageSets" / "Main" / "trainval.txt").write_bytes(names)
    listing = photographs_in(root, "voc", split="trainval")
    for photograph in listing.photographs:
        assert (root / photograph.place.path).resolve().is_relative_to(root)
    prepared(listing, root)
    found = read_voc(root)
    assert all(path.resolve().is_relative_to(root) for path in found.pictures.names)  # type: ignore[union-attr]


READER = Reader("voc", read, seeds, ("1.xml", "trainval.txt", "JPEGImages", "VOC2007"))
