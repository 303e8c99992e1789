"""Fast decoders against the reference, and which files they leave to it."""

import importlib
import importlib.util
import io
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from lorbms_fast.dataloader.decoders import DECODERS, BadImage, decode_rgb, decoder_named, fastest, reference
from lorbms_fast.dataloader.decoders import read_squares as read
from lorbms_fast.dataloader.image_file import ByteRange
from lorbms_fast.dataloader.recipes import VERSIONS, Crop, square_crop
from lorbms_fast.errors import UserError
from lorbms_fast.photos import shipped

MEAN, MOST, NEARLY_ALL = 1.5, 10, 0.99
"""What is promised of the scaled decoder on photographs: the mean error, and the error of 99% of the values."""


@pytest.fixture(params=["scaled", "dali"])
def decoder(request: pytest.FixtureRequest):
    if request.param == "dali":
        pytest.importorskip("nvidia.dali")
    return request.param, decoder_named(request.param)


def versions(name: str, width: int, height: int) -> tuple[Crop, ...]:
    return tuple(square_crop(0, name, version, width, height) for version in VERSIONS)


def scene(**options) -> bytes:
    """A real photograph, encoded anew."""
    with Image.open(shipped.scenes()[3].path) as image:
        mode = options.pop("mode", "RGB")
        file = io.BytesIO()
        image.convert(mode).save(file, **{"format": "JPEG", "quality": 90, **options})
        return file.getvalue()


@pytest.mark.parametrize("side", [64, 96, 128, 224])
def test_pixels_agree_with_the_reference(decoder, side):
    name, decode = decoder
    photos = [photo.path for photo in shipped.scenes()[::24]]
    crops = [partial(versions, path.name) for path in photos]
    found = decode([path.read_bytes() for path in photos], crops, side)
    errors = []
    for path, of, squares in zip(photos, crops, found, strict=True):
        exact = reference.squares(path.read_bytes(), path, of, side)
        assert squares[:3] == exact[:3]
        errors.append(np.abs(squares.images.astype(int) - exact.images))
    errors = np.concatenate([error.ravel() for error in errors])
    if name == "dali":
        assert errors.max() <= 1
    else:
        assert errors.mean() < MEAN
        assert (errors <= MOST).mean() > NEARLY_ALL


def test_a_large_photograph_is_decoded_at_a_fraction(monkeypatch):

    asked = []
    decode = simplejpeg.decode_jpeg
    monkeypatch.setattr(
        simplejpeg, "decode_jpeg", lambda *a, **k: asked.append(decode(*a, **k).shape) or decode(*a, **k)
    )
    file = io.BytesIO()
    gradient = np.linspace(0, 255, 1201 * 1023 * 3).reshape(1023, 1201, 3).astype(np.uint8)
    Image.fromarray(gradient).save(file, format="JPEG", quality=95)
    whole = partial(versions, "a")
    (squares,) = decoder_named("scaled")([file.getvalue()], [whole], 64)
    assert asked == [(256, 301, 3)]
    exact = reference.squares(file.getvalue(), "a", whole, 64)
    assert np.abs(squares.images.astype(int) - exact.images).max() <= 2


@pytest.mark.parametrize(
    ("data", "is_taken"),
    [
        (scene(), True),
        (scene(progressive=True), True),
        (scene(mode="L"), True),
        (scene(subsampling=0), True),
        (scene(mode="CMYK"), False),
        (scene(format="PNG"), False),
        (scene()[:-300], False),
        (scene()[:100], False),
        (b"", False),
        (b"\xff\xd8\xff nonsense", False),
        (b"<html>", False),
    ],
    ids=["plain", "progressive", "grey", "444", "cmyk", "png", "truncated", "header only", "empty", "noise", "html"],
)
def test_what_is_taken_and_what_is_left_to_the_reference(decoder, data, is_taken):
    _, decode = decoder
    good, of = scene(), partial(versions, "a")
    before, squares, after = decode([good, data, good], [of] * 3, 64)
    assert (squares is not None) == is_taken
    assert before is not None
    assert np.array_equal(before.images, after.images)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photographs_come_out_upright(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a.jpg").write_bytes(scene(exif=exif))
    of = partial(versions, "a")
    (squares,) = read(tmp_path, [ByteRange("a.jpg")], [lambda data: of], 64, decoder_named("scaled"))
    height, width, _ = decode_rgb(scene(), "a").shape
    assert (squares.width, squares.height) == ((width, height) if orientation < 5 else (height, width))
    exact = reference.squares((tmp_path / "a.jpg").read_bytes(), "a", of, 64)
    assert np.abs(squares.images.astype(int) - exact.images).mean() < MEAN


def test_an_orientation_is_found_behind_other_segments():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, other = scene(exif=exif), b"a start of scan \xff\xda in a profile"
    segment = b"\xff\xe2" + (len(other) + 2).to_bytes(2) + other
    upright = partial(versions, "a")
    for data in (turned, turned[:2] + segment + turned[2:], turned[:2] + b"\xff" + turned[2:]):
        assert decoder_named("scaled")([data], [upright], 64) == [None]
    plain = scene()
    assert decoder_named("scaled")([plain[:2] + segment + plain[2:]], [upright], 64) != [None]


def test_an_orientation_that_only_xmp_tells_counts():
    told = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    assert decoder_named("scaled")([scene(xmp=told)], [partial(versions, "a")], 64) == [None]


def test_bad_files_are_returned_among_good_ones(tmp_path):
    (tmp_path / "good.jpg").write_bytes(scene())
    (tmp_path / "cut.jpg").write_bytes(scene()[:-300])
    places = [ByteRange("good.jpg"), ByteRange("cut.jpg"), ByteRange("absent.jpg"), ByteRange("good.jpg")]
    found = read(tmp_path, places, [lambda data: partial(versions, "a")] * 4, 64, decoder_named("scaled"))
    assert [isinstance(result, BadImage) for result in found] == [False, True, True, False]
    assert "cut.jpg cannot be read (image file is truncated" in str(found[1])
    assert "absent.jpg is missing" in str(found[2])


@pytest.mark.parametrize("name", ["scaled", "pillow"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda whole: whole[: len(whole) // 2] + b"\xff\xd9", ("premature end of data segment",)),
        (lambda whole: whole[: len(whole) // 2] + whole[len(whole) // 3 :], reference.DAMAGED),
        (lambda whole: whole[:-2] + bytes(9) + b"\xff\xd9 behind the end", ()),
        (lambda whole: whole[:-2] + bytes(9) + b"\xff\xd9 a film \xff\xd9", ()),
        (lambda whole: _with_thumbnail(whole[:-2] + bytes(9) + b"\xff\xd9"), ()),
        (lambda whole: whole[: (at := whole.index(b"\xff\xdb"))] + b"junk" + whole[at:], ()),
    ],
    ids=["the rest is gone", "a part twice", "padding", "and a film", "and a thumbnail", "junk in the header"],
)
def test_jpegs_of_which_a_part_is_made_up_are_refused(spoil, said, mode, name, tmp_path):
    """Pillow says nothing of them."""
    (tmp_path / "a.jpg").write_bytes(spoil(scene(mode=mode)))
    of = partial(versions, "a")
    (found,) = read(tmp_path, [ByteRange("a.jpg")], [lambda data: of], 64, decoder_named(name), intact=True)
    if said:
        assert re.search(rf"a\.jpg is damaged \(Corrupt JPEG data: .*({'|'.join(said)})", str(found))
    else:
        assert np.array_equal(found.images, reference.squares(scene(mode=mode), "a", of, 64).images)


def _with_thumbnail(whole: bytes) -> bytes:
    thumbnail = scene(quality=5)
    return whole[:2] + b"\xff\xff\xe2" + (len(thumbnail) + 2).to_bytes(2) + thumbnail + whole[2:]


def test_what_is_not_wanted_has_a_size_and_no_images(decoder):
    _, decode = decoder
    (squares,) = decode([scene()], [lambda width, height: ()], 64)
    assert squares.images.shape == (0, 64, 64, 3)
    assert (squares.height, squares.width, 3) == decode_rgb(scene(), Path("a")).shape


def test_a_dali_that_is_not_whole_is_told(monkeypatch):
    def run(encoded, device):
        raise RuntimeError("Error in CPU operator\n  dlopen libnvimgcodec.so failed!. Please install nvimagecodec\n")

    dali = importlib.import_module("lorbms_fast.dataloader.decoders.dali")
    monkeypatch.setattr(dali, "_run", run)
    with pytest.raises(UserError, match=r"lacks a part of DALI: dlopen libnvimgcodec\.so failed"):
        dali.decode([scene()], [partial(versions, "a")], 64)


class OnePipeline:
    """A pipeline that gives the same memory every time, and mixes up what threads feed it side by side."""

    def __init__(self):
        self.memory, self.fed = torch.zeros(1, 1, 1, 3, dtype=torch.uint8), None

    def feed_input(self, name, data):
        self.fed = data
        time.sleep(1e-3)

    def run(self):
        self.memory.fill_(int(self.fed[0][-1]))
        time.sleep(1e-3)
        return (self.memory,)


def test_threads_that_read_ahead_share_a_pipeline_of_dalis(monkeypatch):
    dali = importlib.import_module("lorbms_fast.dataloader.decoders.dali")
    pipeline, numbers = OnePipeline(), range(20)
    monkeypatch.setattr(dali, "_pipeline", lambda device: pipeline)
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda number: dali._run([bytes([number])], torch.device("cpu")), numbers)
        assert [int(pixels[0, 0, 0]) for (pixels,) in found] == [*numbers]


def test_what_dali_decoded_on_a_gpu_is_copied_before_it_decodes_again(monkeypatch):
    dali = importlib.import_module("lorbms_fast.dataloader.decoders.dali")
    waited = []
    stream = SimpleNamespace(synchronize=lambda: waited.append(True))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(dali, "_pipeline", lambda device: OnePipeline())
    dali._run([b"a"], torch.device("cuda", 1))
    assert waited == [True]


@pytest.mark.parametrize(("crop_side", "side"), [(90, 32), (20, 32)])
def test_what_a_training_computes_in_rounds_no_pixel(crop_side, side):
    dali = importlib.import_module("lorbms_fast.dataloader.decoders.dali")
    pixels, crop = torch.from_numpy(decode_rgb(scene(), Path("a")).copy()), Crop(3, 5, crop_side, False)
    dali._weights.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        inside = dali.square(pixels, crop, side)
    dali._weights.cache_clear()
    assert torch.equal(inside, dali.square(pixels, crop, side))


@pytest.mark.parametrize(
    ("gpu", "obstacle", "name", "said"),
    [
        (False, "", "scaled", "there is no GPU for it"),
        (True, "", "dali", "by DALI on a GPU of some kind"),
        (True, "a driver too old", "scaled", "on the CPU: a driver too old"),
    ],
)
def test_the_fastest_decoder_is_dali_where_it_decodes(monkeypatch, gpu, obstacle, name, said):
    dali = importlib.import_module("lorbms_fast.dataloader.decoders.dali")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(dali, "obstacle", lambda device: obstacle)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU of some kind")
    found, line = fastest()
    assert found == name
    assert said in line


def test_without_dali_nothing_is_said_of_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert fastest() == ("scaled", "")


def test_what_stands_in_dalis_way(monkeypatch):
    dali = importlib.import_module("lorbms_fast.dataloader.decoders.dali")
    monkeypatch.setattr(dali, "_run", lambda encoded, device: [torch.zeros(16, 16, 3)] * len(encoded))
    assert dali.obstacle.__wrapped__(torch.device("cpu")) == ""

    def fails(encoded, device):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(dali, "_run", fails)
    assert dali.obstacle.__wrapped__(torch.device("cpu")) == "DALI decodes nothing here"


def test_decoders_have_names():
    assert all(callable(decoder_named(name)) for name in DECODERS if name != "dali")
    with pytest.raises(UserError, match="scaled, pillow, dali"):
        decoder_named("nvjpeg")
