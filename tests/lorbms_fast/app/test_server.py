"""The page's server: what it tells, what it refuses, and that it opens nothing it was not meant to."""

import base64
import http.client
import io
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from werkzeug.test import Client

from lorbms_fast.app import server
from lorbms_fast.app.pictures import png_address, square_of
from lorbms_fast.app.server import MAX_UPLOAD, application, serve
from lorbms_fast.app.view import RunView
from lorbms_fast.cli import main
from lorbms_fast.dataloader.decoders import read_rgb
from lorbms_fast.dataloader.pixels import to_float_nchw, to_uint8_nhwc
from lorbms_fast.dataloader.resize import center_crop
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.mixing import parse_mask
from lorbms_fast.rendering.transfer import transfer
from lorbms_fast.run import Run, load_networks
from lorbms_fast.similarity.features import load_extractor
from tests.conftest import run_of


@pytest.fixture(scope="module")
def run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six iterations beside its store."""
    return run_of(photographs, tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="module")
def store(run: Path) -> ImageStore:
    return ImageStore.open(Run.open(run).store)


@pytest.fixture(scope="module")
def client(run: Path) -> Client:
    return Client(application(RunView.open(run)))


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The run again, to change."""
    return shutil.copytree(run, tmp_path / "run")


def read_address(address: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) as image:
        return np.array(image)


def test_the_page_names_the_run_and_its_pictures(client):
    facts = client.get("/run").json
    assert facts["name"] == "run"
    assert (facts["iteration"], facts["images"], facts["side"]) == (6, 24, 64)
    assert facts["pictures"] == ["curves.png", "sheets/00000006.png", "sheets/00000003.png"]
    for picture in ["/curves.png", *(f"/pictures/{name}" for name in facts["pictures"])]:
        assert client.get(picture).data.startswith(b"\x89PNG")
    page = client.get("/").text
    assert 'id="I_mix"' in page
    assert [client.get(f"/static/{name}").status_code for name in ("app.js", "transfer.js", "style.css")] == [200] * 3


def test_an_upload_becomes_the_square_that_the_networks_take(client, photographs):
    path = photographs / "photo03.jpg"
    square = read_address(client.post("/square", data=path.read_bytes()).json["square"])
    assert np.array_equal(square, center_crop(read_rgb(path), 64))


@pytest.mark.parametrize("mask", ["0010", "1101", "0000", "1111"])
def test_a_whole_transfer_is_the_commands(mask, client, run, store):
    images = [np.array(store.images[i]) for i in (2, 5)]
    asked = {"object": png_address(images[0]), "scene": png_address(images[1]), "mask": mask, "amount": 1}
    made = client.post("/transfer", json=asked).json
    I_obj, I_ref = (to_float_nchw(image)[None] for image in images)
    networks = load_networks(run)
    expected = to_uint8_nhwc(transfer(networks, I_obj, I_ref, parse_mask(mask)[None]))[0]
    assert np.abs(read_address(made["I_mix"]).astype(int) - expected).max() <= 1
    with torch.no_grad():
        reconstructions = to_uint8_nhwc(networks.dec(networks.enc(torch.cat([I_ref, I_obj]))))
    for name, image in zip(("I_hat", "I_hat_obj"), reconstructions, strict=True):
        assert np.abs(read_address(made[name]).astype(int) - image).max() <= 1
    pasted = read_address(made["collage"])
    for i, taken in enumerate(parse_mask(mask)):
        part = np.s_[i // 2 * 32 : i // 2 * 32 + 32, i % 2 * 32 : i % 2 * 32 + 32]
        assert np.array_equal(pasted[part], images[0 if taken else 1][part])


def test_the_slider_begins_at_the_reconstruction(client, store):
    asked = {name: png_address(np.asarray(store.images[i])) for name, i in (("object", 2), ("scene", 5))}
    half = client.post("/transfer", json=asked | {"mask": "1111", "amount": 0.5}).json["I_mix"]
    made = client.post("/transfer", json=asked | {"mask": "1111", "amount": 0}).json
    assert made["I_mix"] == made["I_hat"]
    assert client.post("/transfer", json=asked | {"mask": "1111", "amount": 1}).json["I_mix"] == made["I_hat_obj"]
    assert half not in (made["I_hat"], made["I_hat_obj"])


def test_neighbours_are_the_tables(client):
    found = client.get("/neighbours/7").json
    assert found["row"] == 7
    assert np.array(found["rows"]).shape == np.array(found["distances"]).shape == (4, 10)
    assert 7 not in np.array(found["rows"])
    assert client.get(f"/images/{found['rows'][0][0]}").mimetype == "image/png"
    for outside in ("24", "99999999999999999999"):
        assert client.get(f"/neighbours/{outside}").status_code == 400
    assert client.get("/images/-1").status_code == 404


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not a picture"),
        (b"<html><script>alert(1)</script>", "is not a picture"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "is not a picture|cannot be read"),
        (b"P6 30000 30000 255\n", "30000 x 30000 pixels|more than"),
        (b"P5 1 1 255 \0", "fewer than 4 pixels a side"),
    ],
)
def test_hostile_uploads_get_a_message_without_a_path(content, reason, client):
    answer = client.post("/square", data=content)
    assert answer.status_code == 400
    error = answer.json["error"]
    assert any(part in error for part in reason.split("|"))
    assert "/tmp" not in error
    with pytest.raises(UserError):
        square_of(content, 64)


def test_neighbours_of_an_upload_are_the_nearest_of_all(copy, photographs, tmp_path):
    store = Path(shutil.copytree(Run.open(copy).store, tmp_path / "store"))
    main(["neighbours", str(store), "--features", "descriptor"])
    (copy / "run.json").write_text(json.dumps(json.loads((copy / "run.json").read_text()) | {"store": str(store)}))
    client = Client(application(RunView.open(copy)))
    assert client.get("/run").json["searchable"]
    photo = sorted(photographs.iterdir())[5]
    found = client.post("/neighbours", data=photo.read_bytes()).json
    extractor = load_extractor("descriptor", None, torch.device("cpu"))
    own = extractor.extract(center_crop(read_rgb(photo), extractor.side)[None])[0]
    for q, features in enumerate(np.load(store / "features.npy")):
        to_all = ((features - own[q]) ** 2).sum(1)
        assert found["rows"][q] == np.argsort(to_all)[:10].tolist()
        assert found["rows"][q][0] == 5  # the store has another square of the same photograph
        np.testing.assert_allclose(found["distances"][q], np.sort(to_all)[:10], rtol=1e-4)
    assert read_address(found["square"]).shape == (64, 64, 3)
    assert "is not a picture" in client.post("/neighbours", data=b"<html>").json["error"]


def test_features_that_were_not_kept_are_missed_in_words(client, photographs):
    answer = client.post("/neighbours", data=next(photographs.iterdir()).read_bytes())
    assert answer.status_code == 400
    assert "were not kept" in answer.json["error"]
    assert not client.get("/run").json["searchable"]


def test_too_large_an_upload_is_not_read(client):
    answer = client.post("/square", data=b"x", environ_overrides={"CONTENT_LENGTH": str(MAX_UPLOAD + 1)})
    assert answer.status_code == 413
    assert "50 MB" in answer.json["error"]


@pytest.mark.parametrize(
    "change",
    [
        {"mask": "0021"},
        {"mask": None},
        {"amount": 1.5},
        {"amount": float("nan")},
        {"amount": "1"},
        {"amount": True},
        {"object": "file:///etc/passwd"},
        {"scene": "data:image/png;base64,????"},
        {"scene": "data:image/png;base64,AAAA"},
        {"scene": 3},
    ],
)
def test_impossible_transfers_are_refused(change, client, store):
    image = png_address(np.asarray(store.images[0]))
    asked = {"object": image, "scene": image, "mask": "0010", "amount": 1.0} | change
    answer = client.post("/transfer", data=json.dumps(asked), content_type="application/json")
    assert answer.status_code == 400
    assert answer.json["error"]


@pytest.mark.parametrize(
    "address",
    [
        "/pictures/../run.json",
        "/pictures/run.json",
        "/pictures//etc/passwd",
        "/pictures/%2e%2e%2frun.json",
        "/pictures/checkpoints/00000006/model.safetensors",
        "/pictures/link.png",
        "/pictures/sheets/link.png",
        "/static/../server.py",
        "/static/%2e%2e%2fserver.py",
        "/static/index.html",
        "/config.json",
    ],
)
def test_no_other_file_is_given_out(address, copy, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"\x89PNG secret")
    (copy / "link.png").symlink_to(tmp_path / "secret.png")
    (copy / "sheets" / "link.png").symlink_to(tmp_path / "secret.png")
    answer = Client(application(RunView.open(copy))).get(address)
    assert answer.status_code in (400, 404)
    assert answer.is_json
    assert "error" in answer.json


@pytest.fixture(scope="module")
def served(run: Path) -> Iterator[int]:
    """Port of a real server."""
    listening = serve(RunView.open(run), 0)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield listening.port
    listening.shutdown()
    thread.join()


@pytest.mark.parametrize(
    "target",
    [
        "/../run.json",
        "/pictures/../run.json",
        "/pictures/..%2frun.json",
        "/pictures/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/pictures/....//run.json",
        "/pictures//etc/passwd",
        "/pictures/sheets/../../run.json",
        "/pictures/sheets%5c..%5c..%5crun.json",
        "/static/../../view.py",
        "/static/..%2f..%2fview.py",
        "/images/../run.json",
        "/run/../run.json",
        "http://127.0.0.1/etc/passwd",
        "/pictures/%00",
    ],
)
def test_the_real_server_gives_out_no_other_file(target, served):
    """The line of the request as it is: a client would tidy the address up first."""
    connection = http.client.HTTPConnection("127.0.0.1", served)
    connection.putrequest("GET", target)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status in (400, 404)
    assert b"error" in content
    assert b"lorbms-fast run" not in content
    assert b"root:" not in content


def test_other_sites_cannot_speak_to_it(client):
    assert client.get("/run", headers={"Host": "evil.example:8000"}).status_code == 400
    for address in ("/", "/run", "/nothing"):
        policy = client.get(address).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    assert client.get("/transfer").status_code == 405
    assert client.post("/transfer", data="{}", content_type="text/plain").status_code == 415
    assert client.post("/transfer", json=[1]).status_code == 400


def test_a_run_without_its_store_still_transfers(copy, store):
    kept = png_address(np.asarray(store.images[0]))
    (copy / "run.json").write_text((copy / "run.json").read_text().replace(str(store.path), "/gone"))
    client = Client(application(RunView.open(copy)))
    assert (client.get("/run").json["images"], client.get("/run").json["neighbours"]) == (0, False)
    assert client.get("/images/0").status_code == 400
    assert client.get("/neighbours/0").status_code == 400
    asked = {"object": kept, "scene": kept, "mask": "0010", "amount": 0.5}
    assert client.post("/transfer", json=asked).status_code == 200


def test_a_run_that_goes_on_is_shown_as_it_is(copy, store):
    client = Client(application(RunView.open(copy)))
    image = png_address(np.asarray(store.images[0]))
    asked = {"object": image, "scene": image, "mask": "0010", "amount": 1}
    before = client.post("/transfer", json=asked).json["I_hat"]
    main(["train", "--resume", str(copy), "--iterations", "8"])
    assert client.get("/run").json["iteration"] == 8
    after = client.post("/transfer", json=asked).json["I_hat"]
    assert after != before
    assert after == Client(application(RunView.open(copy))).post("/transfer", json=asked).json["I_hat"]


def test_mistakes_of_the_command(run, tmp_path, capsys):
    listening = serve(RunView.open(run), 0)
    for arguments, message in (
        ([str(run), "--port", str(listening.port)], "cannot be had"),
        ([str(run), "--port", "70000"], "port 70000"),
        ([str(tmp_path)], "is not a run"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["app", *arguments])
        told = capsys.readouterr()
        assert exit_.value.code == 2
        assert message in told.err
        assert told.out == f"opening {arguments[0]}\n"
    assert listening.server_address[0] == "127.0.0.1"
    listening.server_close()


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"mask":' * 100_000, b"[" * 1_000_000])
def test_requests_that_are_nested_too_deeply_are_refused(content, client):
    answer = client.post("/transfer", data=content, content_type="application/json")
    assert (answer.status_code, answer.json) == (400, {"error": "this request is nested too deeply"})


@pytest.mark.parametrize("body", [b"5\r\nhello\r\n0\r\n\r\n", b"zz", b"100000\r\n" + b"x" * 2**20 + b"\r\n", b""])
@pytest.mark.parametrize("path", ["/square", "/transfer", "/neighbours", "/elsewhere"])
def test_uploads_of_unsaid_length_are_refused_and_the_connection_closed(body, path, served, monkeypatch):
    monkeypatch.setattr(server._Quiet, "timeout", 1)
    with socket.create_connection(("127.0.0.1", served), timeout=20) as browser:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{served}\r\nTransfer-Encoding: chunked\r\n\r\n"
        browser.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: browser.recv(2**16), b""))  # until the other side closes
    assert answer.startswith(b"HTTP/1.1 411 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert b"send Content-Length" in answer


def test_nobody_waits_for_those_who_stop_sending(served, monkeypatch):
    monkeypatch.setattr(server._Quiet, "timeout", 0.2)
    with socket.create_connection(("127.0.0.1", served), timeout=20) as browser:
        browser.sendall(b"POST /square HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nhalf")
        assert b"HTTP/1.1 200" not in b"".join(iter(lambda: browser.recv(2**16), b""))
