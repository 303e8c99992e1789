"""A scene: one background and several objects, as a rule one in each quadrant."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorbms_fast.photos import shipped
from lorbms_fast.photos.collage import Cutout, background, cutout, object_size, paste
from lorbms_fast.photos.shipped import CATEGORIES, Photo

# (height, width) as they are common in COCO, landscape more often than portrait.
_SIZES = ((480, 640),) * 4 + ((427, 640),) * 3 + ((640, 480),) * 2 + ((640, 427), (426, 640), (375, 500), (360, 640))

# Numbers of objects in a scene, and their odds: nine in ten have four or more, as tr_v4 and tr_v5 ask of COCO.
_COUNTS, _COUNT_ODDS = (2, 3, 4, 5, 6), (0.03, 0.07, 0.6, 0.2, 0.1)

# Share of its quadrant's width or height that an object fills: a bee is smaller than a bus, though not to scale.
_FILLS = {
    "bird": (0.45, 0.8), "fish": (0.5, 0.85), "flower": (0.4, 0.75), "fruit": (0.35, 0.65), "insect": (0.35, 0.65),
    "mammal": (0.6, 0.95), "tool": (0.45, 0.8), "tree": (0.65, 0.95), "vegetable": (0.35, 0.65), "vehicle": (0.6, 0.95),
}  # fmt: skip
_LARGEST_SCALE = 1.5  # beyond this a cut-out of 192 px looks blurred
_OUTSIDE = 0.1  # part of its own side by which an object may leave its quadrant or the picture
_OVERLAP = 0.15  # part of the smaller of two objects that the other may cover
_TRIES = 12


@dataclass(frozen=True)
class Placed:
    """One object in a scene; `mask` is bool (height, width) of the scene: its visible part."""

    photo: Photo
    mask: np.ndarray


@dataclass(frozen=True)
class Scene:
    """`image` uint8 (height, width, 3), the background's photograph and the objects, the farthest first."""

    image: np.ndarray
    background: Photo
    objects: tuple[Placed, ...]


@dataclass(frozen=True)
class _Place:
    photo: Photo
    thing: Cutout
    top: int
    left: int

    @property
    def bottom(self) -> int:
        return self.top + self.thing.size[0]


def compose_scene(rng: np.random.Generator) -> Scene:
    """Compose a scene, drawn wholly from `rng`."""
    size = _SIZES[rng.integers(len(_SIZES))]
    ground = shipped.backgrounds()[rng.integers(len(shipped.backgrounds()))]
    image = background(ground, size, rng)
    objects: list[Placed] = []
    # What stands lower in the picture stands nearer, and covers what is behind it.
    for place in sorted(_places(size, rng), key=lambda place: place.bottom):
        mask = paste(image, place.thing, place.top, place.left)
        objects = [Placed(behind.photo, behind.mask & ~mask) for behind in objects]
        objects.append(Placed(place.photo, mask))
    return Scene(image, ground, tuple(objects))


def _places(size: tuple[int, int], rng: np.random.Generator) -> list[_Place]:
    count = int(rng.choice(_COUNTS, p=_COUNT_ODDS))
    quadrants = [*rng.permutation(4), *rng.integers(4, size=count)][:count]
    places: list[_Place] = []
    for photo, quadrant in zip(_distinct_objects(count, rng), quadrants, strict=True):
        for _ in range(_TRIES):
            place = _place(photo, int(quadrant), size, rng)
            if not any(_covers(place, other) for other in places):
                places.append(place)
                break
    return places


def _distinct_objects(count: int, rng: np.random.Generator) -> Sequence[Photo]:
    """Draw different objects; a category counts by the root of its size, lest two scenes in three be mammals."""
    everything = shipped.objects()
    sizes = {category: sum(photo.category == category for photo in everything) for category in CATEGORIES}
    odds = np.array([sizes[str(photo.category)] ** -0.5 for photo in everything])
    return [everything[i] for i in rng.choice(len(everything), count, replace=False, p=odds / odds.sum())]


def _place(photo: Photo, quadrant: int, size: tuple[int, int], rng: np.random.Generator) -> _Place:
    """Place the object at a random size and position inside quadrant 0..3 of a picture of `size`."""
    room = size[0] / 2, size[1] / 2
    natural = object_size(photo)
    fill = rng.uniform(*_FILLS[str(photo.category)])
    scale = min(fill * room[0] / natural[0], fill * room[1] / natural[1], _LARGEST_SCALE)
    thing = cutout(photo, scale, flip=bool(rng.random() < 0.5))
    corner = (quadrant // 2) * room[0], (quadrant % 2) * room[1]
    top, left = (
        round(rng.uniform(start - _OUTSIDE * side, start + space - (1 - _OUTSIDE) * side))
        for start, space, side in zip(corner, room, thing.size, strict=True)
    )
    return _Place(photo, thing, top, left)


def _covers(one: _Place, other: _Place) -> bool:
    """Check if two objects would hide too much of each other."""
    top, left = max(one.top, other.top), max(one.left, other.left)
    bottom = min(one.bottom, other.bottom)
    right = min(one.left + one.thing.size[1], other.left + other.thing.size[1])
    if bottom <= top or right <= left:
        return False
    shared = np.logical_and(
        *(
            place.thing.alpha[top - place.top : bottom - place.top, left - place.left : right - place.left] > 0.5
            for place in (one, other)
        )
    )
    smaller = min(np.count_nonzero(place.thing.alpha > 0.5) for place in (one, other))
    return bool(np.count_nonzero(shared) > _OVERLAP * smaller)
