"""Exported networks compute what the run's do."""

import base64
import io
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from lorbms_fast.cli import main
from lorbms_fast.commands import export as command
from lorbms_fast.dataloader.pixels import to_float_nchw, to_uint8_nhwc
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.export.generator import plain_generator
from lorbms_fast.mixing import parse_mask
from lorbms_fast.models import build
from lorbms_fast.models.variants import with_variant
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.rendering.transfer import transfer
from lorbms_fast.run import Progress, Run, load_networks
from tests.conftest import TINY, run_of

onnxruntime = pytest.importorskip("onnxruntime", reason="no ONNX here: pip install 'lorbms-fast[export]'")
pytest.importorskip("onnxscript")

from lorbms_fast.export.onnx_files import difference, eight_bits, quantize  # noqa: E402
from lorbms_fast.export.page import RUNTIME, packed, write_page  # noqa: E402

WEB = Path(__file__).parents[3] / "node_modules" / "onnxruntime-web"


@pytest.fixture(scope="module")
def run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(photographs, tmp_path_factory.mktemp("run"), "</script>&<b>")


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    main(["export", str(run), "--out", str(run.parent / "exported")])
    return run.parent / "exported"


@pytest.fixture(scope="module")
def images(run: Path) -> torch.Tensor:
    """(6, 3, 64, 64)."""
    return to_float_nchw(np.array(ImageStore.open(Run.open(run).store).images[:6]))


def test_the_plain_generator_is_the_runs(run, images):
    networks, plain = load_networks(run), plain_generator(run)
    with torch.no_grad():
        f = networks.enc(images)
        torch.testing.assert_close(plain.enc(images), f, rtol=1e-4, atol=1e-4 * float(f.abs().max()))
        torch.testing.assert_close(plain.dec(f), networks.dec(f), rtol=0, atol=1e-4)
    assert plain.iteration == 6


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 5])
def test_onnx_files_agree_with_the_run(count, run, exported, images):
    networks = load_networks(run)
    with torch.no_grad():
        f = networks.enc(images[:count])
    assert difference(networks.enc, exported / "encoder.onnx", images[:count]) < 1e-4
    assert difference(networks.dec, exported / "decoder.onnx", f) < 1e-4
    assert f.abs().max() > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", ["rf46-encoder", "hu", "attention-decoder", "transposed-decoder", "broadcast-decoder"]
)
def test_generators_of_variants_are_exported(variant, tmp_path, capsys):
    config = with_variant(TINY, variant)
    run = Run.create(tmp_path / "run", config, tmp_path)
    networks = build(config.model, "fast")
    for name, parameter in networks.named_parameters():
        if name.endswith("attention.gamma"):
            parameter.data.fill_(1)  # 0 would leave the attention out
    run.save(Progress(iteration=1), networks, Optimizers.of(networks, config.optim))
    main(["export", str(run.folder), "--out", str(tmp_path / "exported")])  # compares ONNX with PyTorch itself
    told = capsys.readouterr().out
    assert "agree within" in told
    assert re.search(r"README\.txt  \d+\.\d kB$", told, re.MULTILINE)
    assert (tmp_path / "exported" / "decoder.onnx").exists()


@pytest.mark.slow
def test_the_program_transfers(run, exported, images):
    program = torch.export.load(exported / "transfer.pt2").module()
    mask = torch.stack([parse_mask(text) for text in ("0010", "1100", "1111")])
    expected = transfer(load_networks(run), images[:3], images[3:], mask)
    torch.testing.assert_close(program(images[:3], images[3:], mask), expected, rtol=0, atol=1e-4)
    assert (expected[2] - expected[0]).abs().max() > 0.01


@pytest.mark.slow
def test_the_weights_need_no_u(run, exported):
    weights = load_file(exported / "generator.safetensors")
    assert {name.split(".")[0] for name in weights} == {"enc", "dec"}
    assert not any(name.endswith(".u") for name in weights)
    for name, parameter in plain_generator(run).dec.named_parameters():
        assert torch.equal(weights[f"dec.{name}"], parameter)
    with safe_open(exported / "generator.safetensors", "pt") as file:
        assert json.loads(file.metadata()["lorbms_fast"])["iteration"] == 6


@pytest.mark.slow
def test_the_readme_tells_how(run, exported, images):
    text = (exported / "README.txt").read_text()
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    mask = parse_mask("0110")
    names: dict[str, Any] = {
        "numpy": np,
        "encoder": onnxruntime.InferenceSession(exported / "encoder.onnx"),
        "decoder": onnxruntime.InferenceSession(exported / "decoder.onnx"),
        "I_obj": images[0].numpy(),
        "I_ref": images[1].numpy(),
        "mask": mask.numpy(),
    }
    exec("\n".join(lines[-2:]), names)
    expected = transfer(load_networks(run), images[:1], images[1:2], mask[None])
    np.testing.assert_allclose(names["I_mix"], expected, atol=1e-4)


def test_eight_bits_round_to_the_nearest():
    W = np.random.Generator(np.random.Philox(1)).normal(0, 1, (5, 3, 3, 3)).astype(np.float32)
    W[2] = 0
    W[3] *= 1000
    q, scale = eight_bits(W)
    assert q.dtype == np.int8
    assert scale[2] == 1
    error = np.abs(q * scale[:, None, None, None] - W).reshape(5, -1).max(1)
    assert (error <= scale * 0.5001).all()
    assert np.abs(q).reshape(5, -1).max(1).tolist() == [127, 127, 0, 127, 127]


@pytest.mark.slow
def test_quantised_networks_are_smaller_and_near(run, exported, images, tmp_path, monkeypatch):
    monkeypatch.setattr("lorbms_fast.export.onnx_files.SMALLEST", 1)  # all of so small a network
    networks = load_networks(run)
    quantize(exported / "encoder.onnx", tmp_path / "encoder.onnx")
    error = difference(networks.enc, tmp_path / "encoder.onnx", images)
    assert 1e-4 < error < 0.1
    with torch.no_grad():
        f = networks.enc(images)
    quantize(exported / "decoder.onnx", tmp_path / "decoder.onnx")
    assert 1e-4 < difference(networks.dec, tmp_path / "decoder.onnx", f) < 0.1


@pytest.mark.slow
def test_mistakes(run, exported, tmp_path, capsys, monkeypatch):
    for arguments, message in (
        ([str(run), "--out", str(exported)], "exists already"),
        ([str(tmp_path), "--out", str(tmp_path / "new")], "is not a run"),
        ([str(run), "--out", str(tmp_path / "new"), "--web", str(tmp_path)], "npm install onnxruntime-web"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["export", *arguments])
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(command, "FORMS", 1e12)
    with pytest.raises(UserError, match=r"MB are free on its disk: make room$"):
        command.export(run, out=tmp_path / "new")
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "onnx" else name)
    with pytest.raises(UserError, match=r"^export needs onnx: pip install 'lorbms-fast\[export\]'$"):
        command.export(run, out=tmp_path / "new")


@pytest.mark.slow
def test_the_page_holds_everything(run, exported, tmp_path):
    (tmp_path / "web" / "dist").mkdir(parents=True)
    for file in RUNTIME.values():
        (tmp_path / "web" / "dist" / file).write_bytes(b"not a runtime </script>")
    paths = [exported / name for name in ("encoder.onnx", "decoder.onnx")]
    write_page(*paths, tmp_path / "web", plain_generator(run), run.name, tmp_path / "demo.html")
    page = (tmp_path / "demo.html").read_text()
    assert packed(paths[0].read_bytes()) in page
    assert page.count("</script>") == page.count("<script") == 2 + 5
    assert run.name not in page
    assert not any(part in page for part in ("http:", "https:", "<!-- "))


@pytest.mark.slow
def test_the_page_transfers_without_a_server(run, tmp_path, browser):
    if not WEB.is_dir():
        pytest.skip("no runtime here: make test-browser")
    clicks = pytest.importorskip("tests.clicks")
    main(["export", str(run), "--out", str(tmp_path / "exported"), "--web", str(WEB)])
    browser.get((tmp_path / "exported" / "demo.html").as_uri())
    clicks.until(browser, lambda: browser.execute_script("return document.body.dataset.ready"))
    squares = np.array(ImageStore.open(Run.open(run).store).images[:2])
    for slot, square in zip(("object", "scene"), squares, strict=True):
        file = io.BytesIO()
        Image.fromarray(square).save(file, format="png")
        clicks.drop(browser, f"#{slot} .picture", f"{slot}.png", file.getvalue())
    clicks.find(browser, "[data-tile='1']").click()
    clicks.until(browser, lambda: clicks.find(browser, "#mask").text == "0110" and clicks.shown(browser, "collage"))
    I_obj, I_ref = to_float_nchw(squares)[:, None]
    expected = to_uint8_nhwc(transfer(load_networks(run), I_obj, I_ref, parse_mask("0110")[None]))[0]
    near = lambda: np.abs(_pixels(clicks.shown(browser, "I_mix")).astype(int) - expected).max() <= 12  # noqa: E731
    clicks.until(browser, near)
    assert np.array_equal(_pixels(clicks.shown(browser, "collage"))[32:, :32], squares[0][32:, :32])
    assert np.array_equal(_pixels(clicks.shown(browser, "collage"))[32:, 32:], squares[1][32:, 32:])
    slider = clicks.find(browser, "#amount")
    clicks.changes(browser, "I_mix", lambda: slider.send_keys(clicks.Keys.HOME))
    clicks.until(browser, lambda: clicks.shown(browser, "I_mix") == clicks.shown(browser, "I_hat"))
    for slot, side in (("scene", 32), ("object", 100)):  # enlarged, and made smaller
        clear = io.BytesIO()
        Image.new("RGBA", (side, side), (255, 0, 0, 0)).save(clear, format="png")
        drop = partial(clicks.drop, browser, f"#{slot} .picture", "clear.png", clear.getvalue())
        assert (_pixels(clicks.changes(browser, f"{slot} img", drop)) == 255).all(), "white, as in a store"
    names = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(name.startswith(("blob:", "data:")) for name in names)
    assert browser.get_log("browser") == []


def _pixels(address: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) as image:
        return np.array(image.convert("RGB"))
