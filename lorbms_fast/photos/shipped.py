"""The shipped photographs and their authors."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).parent / "data"

CATEGORIES = ("bird", "fish", "flower", "fruit", "insect", "mammal", "tool", "tree", "vegetable", "vehicle")

# Categories of `scenes/` that show a place rather than one thing, so that objects can stand on them.
_PLACES = ("sea", "scene-nature", "scene-outdoors", "scene-sports")


@dataclass(frozen=True)
class Photo:
    """One shipped file and its credit; `file` and `licence_file` are relative to `DATA`."""

    file: str
    category: str | None
    author: str
    licence: str
    licence_file: str
    source: str
    url: str = ""

    @property
    def path(self) -> Path:
        """Path of the photograph."""
        return DATA / self.file


@cache
def photos() -> tuple[Photo, ...]:
    """List every shipped photograph, ordered by file name."""
    return tuple(Photo(**credit) for credit in json.loads((DATA / "credits.json").read_text(encoding="utf-8")))


@cache
def objects() -> tuple[Photo, ...]:
    """List things cut out of photographs: RGBA, each with one of `CATEGORIES`."""
    return _within("objects/")


@cache
def scenes() -> tuple[Photo, ...]:
    """List whole photographs, without known objects."""
    return _within("scenes/")


@cache
def backgrounds() -> tuple[Photo, ...]:
    """List photographs to put objects on: places and surfaces, and those scenes that show a place."""
    return _within("backgrounds/") + tuple(photo for photo in scenes() if photo.category in _PLACES)


def _within(folder: str) -> tuple[Photo, ...]:
    return tuple(photo for photo in photos() if photo.file.startswith(folder))
