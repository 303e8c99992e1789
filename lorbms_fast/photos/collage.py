"""The parts of a collage: a background cropped to size, and a cut-out object fitted into it."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from PIL import Image

from lorbms_fast.photos.shipped import Photo

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

# How far an object's light follows that of the place it lands on (0 not at all, 1 wholly).
_BRIGHTNESS_FOLLOWS, _COLOR_FOLLOWS, _CONTRAST_FOLLOWS = 0.45, 0.12, 0.3


@dataclass(frozen=True)
class Cutout:
    """An object at its final size: `color` float32 (h, w, 3) in 0..255, `alpha` float32 (h, w) in 0..1."""

    color: np.ndarray
    alpha: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.alpha.shape[0], self.alpha.shape[1]


@cache
def object_size(photo: Photo) -> tuple[int, int]:
    """Height and width of the object without its transparent margin."""
    return _premultiplied(photo).shape[:2]


def cutout(photo: Photo, scale: float, flip: bool) -> Cutout:
    """Cut out the object, enlarged `scale` times, mirrored if `flip`, with a slightly feathered edge."""
    source = _premultiplied(photo)
    if flip:
        source = source[:, ::-1]
    height, width = (max(1, round(side * scale)) for side in source.shape[:2])
    resized = cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    alpha = np.clip(resized[..., 3], 0, 1)
    color = np.clip(resized[..., :3] / np.maximum(alpha, 1e-3)[..., None], 0, 255)
    # Half a pixel is taken off the edge: cut-outs carry a rim of the color they were photographed against.
    blurred = cv2.GaussianBlur(alpha, (0, 0), 0.8, borderType=cv2.BORDER_CONSTANT)
    return Cutout(color, alpha * np.clip((blurred - 0.25) / 0.5, 0, 1))


def background(photo: Photo, size: tuple[int, int], rng: np.random.Generator, smallest: float = 0.75) -> np.ndarray:
    """Crop the photograph at random, mirrored half of the time, and resize it to uint8 (*size, 3).

    The crop has the proportions of `size` and between `smallest` and 1 times the largest possible side.
    """
    source, (height, width) = _rgb(photo), size
    fit = min(source.shape[0] / height, source.shape[1] / width) * rng.uniform(smallest, 1)
    crop_height, crop_width = max(1, int(height * fit)), max(1, int(width * fit))
    top = rng.integers(source.shape[0] - crop_height + 1)
    left = rng.integers(source.shape[1] - crop_width + 1)
    crop = source[top : top + crop_height, left : left + crop_width]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    interpolation = cv2.INTER_AREA if fit > 1 else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(crop), (width, height), interpolation=interpolation)


def paste(canvas: np.ndarray, thing: Cutout, top: int, left: int) -> np.ndarray:
    """Paste `thing` into `canvas` (uint8, in place) in the light of the pixels that it covers; some must lie inside.

    Returns the object's mask, bool of the canvas's height and width, True where it covers more than half of a pixel.
    """
    rows, columns = (
        slice(max(start, 0), min(start + side, limit))
        for start, side, limit in zip((top, left), thing.size, canvas.shape[:2], strict=True)
    )
    inside = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    alpha, under = thing.alpha[inside], canvas[rows, columns].astype(np.float32)
    color = _in_the_light_of(under, thing.color[inside], alpha)
    blended = under + alpha[..., None] * (color - under)
    canvas[rows, columns] = np.rint(np.clip(blended, 0, 255)).astype(np.uint8)
    mask = np.zeros(canvas.shape[:2], bool)
    mask[rows, columns] = alpha > 0.5
    return mask


def _in_the_light_of(place: np.ndarray, color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Move mean, spread and tint of a color part of the way to those of `place` (both (h, w, 3), 0..255)."""
    weight = alpha / max(float(alpha.sum()), 1e-3)
    light, place_light = (color * _LUMA).sum(-1), (place * _LUMA).sum(-1)
    mean, place_mean = float((weight * light).sum()), float(place_light.mean())
    spread = float(np.sqrt((weight * (light - mean) ** 2).sum()))
    gain = np.clip(((place_mean + 8) / (mean + 8)) ** _BRIGHTNESS_FOLLOWS, 0.6, 1.5)
    contrast = np.clip(((place_light.std() + 8) / (spread * gain + 8)) ** _CONTRAST_FOLLOWS, 0.8, 1.2)
    tint = ((place.mean((0, 1)) + 8) / (place_mean + 8)) ** _COLOR_FOLLOWS
    return ((color * gain - mean * gain) * contrast + mean * gain) * tint.astype(np.float32)


@cache
def _rgb(photo: Photo) -> np.ndarray:
    with Image.open(photo.path) as image:
        return np.asarray(image.convert("RGB"))


@cache
def _premultiplied(photo: Photo) -> np.ndarray:
    """Read color times alpha in 0..255 and alpha in 0..1, float32 (h, w, 4), cropped to the object."""
    with Image.open(photo.path) as image:
        rgba = np.asarray(image.convert("RGBA")).astype(np.float32)
    alpha = rgba[..., 3] / 255 * _without_specks(rgba[..., 3])
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    whole = np.dstack([rgba[..., :3] * alpha[..., None], alpha])
    return whole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _without_specks(alpha: np.ndarray) -> np.ndarray:
    """Mask the pieces of an object that hold at least a hundredth of it (some files have stray dots)."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats((alpha >= 16).astype(np.uint8), connectivity=8)
    areas = statistics[:, cv2.CC_STAT_AREA]
    large = areas >= 0.01 * areas[1:].sum()
    large[0] = False
    return large[labels]
