"""What one does with a run also works where a picture has other tiles than four chunks, or says what does not."""

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from werkzeug.test import Client

from lorbms_fast.app.pictures import png_address
from lorbms_fast.app.server import application
from lorbms_fast.app.view import RunView
from lorbms_fast.cli import main
from lorbms_fast.config import MixingConfig
from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.pixels import to_float_nchw, to_uint8_nhwc
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.engine.trainer import Training
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.generation import mixed_scenes
from lorbms_fast.export.generator import Transfer, plain_generator
from lorbms_fast.mixing import parse_mask
from lorbms_fast.models.variants import with_variant
from lorbms_fast.rendering.transfer import transfer
from lorbms_fast.run import Run, load_networks
from lorbms_fast.training.setup import batch_source, scene_batches
from tests.conftest import TINY, store_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run_of_variant(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Runs of one iteration, by the variant's name."""
    made: dict[str, Run] = {}

    def run(name: str) -> Run:
        if name not in made:
            config = with_variant(replace(TINY, batch_size=4, iterations=1, checkpoint_every=1), name)
            folder = tmp_path_factory.mktemp(name)
            store = store_of(photographs, folder / "store", config.model.image_size)
            made[name] = Run.create(folder / "run", config, store.path)
            Training.of(made[name], batch_source(config, store)).train()
        return made[name]

    return run


def images_of(run: Run, count: int) -> Tensor:
    return to_float_nchw(np.array(ImageStore.open(run.store).images[:count]))


def by_hand(run: Run, I_obj: Tensor, I_ref: Tensor, chunks: list[int]) -> Tensor:
    """I_mix with the chunks of these numbers from I_obj."""
    networks = load_networks(run.folder)
    with torch.no_grad():
        f = networks.enc(I_ref).clone()
        f[:, chunks] = networks.enc(I_obj)[:, chunks]
        return networks.dec(f)


CHUNKS = [
    ("nine-tiles", "000010001", [4, 8]),
    ("size-128", "0100", [2, 3, 6, 7]),
    ("size-96", "1000", [0, 1, 3, 4]),
    ("size-96", "0001", [8]),
    ("hu", "10000001", [0, 7]),
]


@pytest.mark.parametrize(("name", "mask", "chunks"), CHUNKS)
def test_a_tile_takes_all_its_chunks(name, mask, chunks, run_of_variant):
    run = run_of_variant(name)
    I_obj, I_ref = images_of(run, 2)[:, None]
    expected = by_hand(run, I_obj, I_ref, chunks)
    chosen = parse_mask(mask, len(mask))[None]
    made = transfer(load_networks(run.folder), I_obj, I_ref, chosen)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        exported = Transfer(plain_generator(run.folder))(I_obj, I_ref, chosen)
    torch.testing.assert_close(exported, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["nine-tiles", "hu"])
def test_the_command_takes_a_digit_a_tile(name, run_of_variant, photographs, tmp_path, capsys):
    run = run_of_variant(name)
    tiles = run.config.model.tiles
    a, b, *_ = (str(photo) for photo in sorted(photographs.iterdir()))
    options = [str(run.folder), "--object", a, "--scene", b, "--out", str(tmp_path / "t.png"), "--mask"]
    main(["transfer", *options, "1" + "0" * (tiles - 1)])
    with Image.open(tmp_path / "t.png") as sheet:
        assert sheet.width > 192 * (3 if name == "hu" else 4)  # no collage where tiles have no place
        assert sheet.width < 210 * (3 if name == "hu" else 4)
    with pytest.raises(SystemExit):
        main(["transfer", *options, "0010"])
    assert f"write {tiles} digits" in capsys.readouterr().err


def test_the_app_shows_nine_tiles(run_of_variant):
    run = run_of_variant("nine-tiles")
    client = Client(application(RunView.open(run.folder)))
    assert client.get("/run").json["tiles"] == 9
    images = np.array(ImageStore.open(run.store).images[:2])
    asked: dict[str, Any] = {"object": png_address(images[0]), "scene": png_address(images[1]), "amount": 1}
    made = client.post("/transfer", json=asked | {"mask": "000010000"}).json
    I_obj, I_ref = to_float_nchw(images)[:, None]
    assert np.abs(pixels(made["I_mix"]) - to_uint8_nhwc(by_hand(run, I_obj, I_ref, [4]))[0]).max() <= 1
    pasted = images[1].astype(int)
    pasted[32:64, 32:64] = images[0, 32:64, 32:64]
    np.testing.assert_array_equal(pixels(made["collage"]), pasted)
    assert "write 9 digits" in client.post("/transfer", json=asked | {"mask": "0010"}).json["error"]


def pixels(address: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) as image:
        return np.array(image).astype(int)


def test_random_masks_have_no_threshold(store):
    config = with_variant(replace(TINY, mixing=MixingConfig(tau=3.0)), "hu")
    assert config.mixing.tau is None
    with pytest.raises(UserError, match=r"--mixing\.tau 3 has no use"):
        batch_source(replace(config, mixing=replace(config.mixing, tau=3.0)), store)


@pytest.mark.parametrize(("variant", "candidates"), [("thesis", "halves"), ("nine-tiles", "independent")])
def test_a_classifier_that_sees_other_images_is_refused(variant, candidates, store):
    config = with_variant(TINY, variant)
    config = replace(config, mixing=replace(config.mixing, candidates=candidates))
    with pytest.raises(UserError, match=f"candidates {candidates} does not go with --model.classifier {variant}"):
        batch_source(config, store)


def test_chunks_without_a_place_are_refused_in_one_line(run_of_variant, tmp_path, capsys):
    run = run_of_variant("hu")
    with pytest.raises(UserError, match=r"8 tiles that have no place in the picture.*transfer --mask  with 8 digits"):
        RunView.open(run.folder)
    with pytest.raises(SystemExit):
        main(["evaluate", "scenes", str(run.folder)])
    assert "objects are told by quadrant" in capsys.readouterr().err


def test_a_threshold_for_codes_is_none_for_neighbours(store):
    """Scenes of D.2 are measured with candidates from the neighbours, whose distances have a scale of their own."""
    config = replace(TINY, mixing=MixingConfig(tau=1e-3))
    assert scene_batches(config, store).tau == 1e-3
    in_batch = replace(TINY, mixing=MixingConfig(tau=1e-3, candidates="batch"))
    assert batch_source(in_batch, store).tau == 1e-3
    assert scene_batches(in_batch, store).tau == NeighbourTable.load(store).tau


@pytest.mark.parametrize("name", ["nine-tiles", "hu"])
def test_every_image_is_mixed_once_with_another(name, run_of_variant):
    run = run_of_variant(name)
    store = ImageStore.open(run.store)
    source = scene_batches(run.config, store)
    images = to_float_nchw(np.array(store.images))
    draws = [list(source.each_image(np.random.Generator(np.random.Philox(seed)), 10)) for seed in (1, 1, 2)]
    for batches in draws:
        assert [len(batch.I_ref) for batch in batches] == [10, 10, 4]
        torch.testing.assert_close(torch.cat([batch.I_ref for batch in batches]), images)
        others, masks = torch.cat([b.I_q[0] for b in batches]), torch.cat([b.mask for b in batches])
        assert masks.shape == (24, run.config.model.tiles)
        assert (masks.any(1) & ~masks.all(1)).all()
        assert (others != images).flatten(1).any(1).all()
    assert torch.equal(draws[0][0].mask, draws[1][0].mask)
    assert not torch.equal(draws[0][0].mask, draws[2][0].mask)
    scenes = np.concatenate(list(mixed_scenes(load_networks(run.folder), source, 0, CPU)))
    assert scenes.shape == store.images.shape
