"""The page in a browser, with real clicks."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from lorbms_fast.app.server import serve
from lorbms_fast.app.view import RunView
from lorbms_fast.cli import main
from lorbms_fast.run import Run
from tests.clicks import Keys, changes, drop, find, find_all, shown, until
from tests.conftest import run_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a tiny run is served, whose name a careless page would run."""
    run = run_of(photographs, tmp_path_factory.mktemp("page"), "<img src=x onerror=alert(1)>")
    main(["neighbours", str(Run.open(run).store), "--features", "descriptor"])
    server = serve(RunView.open(run), 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    thread.join()


@pytest.fixture
def page(address: str, browser: Any) -> Iterator[Any]:
    """The page, freshly opened; nothing may have been complained of when the test is through."""
    browser.get("about:blank")  # or the same page with another link would not be loaded again
    browser.get(address)
    shown(browser, "I_mix")
    yield browser
    complaints = [entry for entry in browser.get_log("browser") if "400 (BAD REQUEST)" not in entry["message"]]
    assert not complaints


def choose(page: Any, photographs: Path) -> None:
    for slot, photo in (("object", "photo01.jpg"), ("scene", "photo02.jpg")):
        chooser, path = find(page, f"#{slot} input[type=file]"), str(photographs / photo)
        changes(page, "I_mix", lambda chooser=chooser, path=path: chooser.send_keys(path))


def test_transfer_by_clicks(page, photographs):
    choose(page, photographs)
    assert find(page, "#mask").text == "0010"
    assert find(page, "#collage").is_displayed()
    pasted = changes(page, "collage", find(page, "[data-tile='1']").click)
    assert find(page, "#mask").text == "0110"
    assert changes(page, "collage", find(page, "[data-tile='1']").click) != pasted
    whole = shown(page, "I_mix")
    slider = find(page, "#amount")
    changes(page, "I_mix", lambda: slider.send_keys(Keys.HOME))
    assert find(page, "#amount-shown").text == "0%"
    assert shown(page, "I_mix") == shown(page, "I_hat")
    changes(page, "I_mix", lambda: slider.send_keys(Keys.END))
    until(page, lambda: shown(page, "I_mix") == whole)
    scene = shown(page, "I_hat")
    find(page, "#swap").click()
    until(page, lambda: shown(page, "I_hat_obj") == scene)
    assert find(page, "#save").get_attribute("href") == shown(page, "I_mix")


def test_pictures_can_be_dropped(page, photographs):
    for slot, photo in (("object", "photo03.jpg"), ("scene", "photo04.jpg")):
        before = shown(page, f"{slot} img")
        drop(page, f"#{slot} .picture", photo, (photographs / photo).read_bytes())
        until(page, lambda slot=slot, before=before: shown(page, f"{slot} img") != before)
    assert shown(page, "I_mix").startswith("data:image/png")


_HOLD_FIRST = """
const ask = window.fetch;
let asked = 0;
window.fetch = async (...of) => {
  const first = asked++ === 0, answer = await ask(...of);
  if (first) await new Promise((go) => { window.release = go; });
  return answer;
};
"""


def test_of_two_files_at_once_the_later_one_counts(page, photographs):
    page.execute_script(_HOLD_FIRST)
    before = shown(page, "object img")
    for photo in ("photo03.jpg", "photo04.jpg"):
        drop(page, "#object .picture", photo, (photographs / photo).read_bytes())
    until(page, lambda: shown(page, "object img") != before)
    later = shown(page, "object img")
    until(page, lambda: page.execute_script("return window.release !== undefined"))
    page.execute_async_script("window.release(); setTimeout(arguments[0], 300)")
    assert shown(page, "object img") == later


def test_it_opens_with_a_mix_and_a_link_reproduces_one(page, address, photographs):
    """The example is the first picture with the bottom left of its nearest neighbour there."""
    first = shown(page, "I_mix")
    assert "scene=0&mask=0010&amount=1" in page.current_url
    changes(page, "I_mix", find(page, "[data-tile='0']").click)
    mixed = changes(page, "I_mix", lambda: find(page, "#amount").send_keys(Keys.HOME))
    until(page, lambda: "mask=1010&amount=0" in page.current_url)
    link = find(page, "#link").get_attribute("href")
    assert link == page.current_url
    page.get("about:blank")
    page.get(link)
    until(page, lambda: shown(page, "I_mix") == mixed)
    page.get(f"{address}#object=9999&scene=0&mask=0010")  # there is no such picture: the mix stays
    page.get("about:blank")
    page.get(f"{address}#object=9999&scene=0&mask=0010")
    until(page, lambda: shown(page, "I_mix") == first)
    find(page, "#object input[type=file]").send_keys(str(photographs / "photo05.jpg"))
    until(page, lambda: not find(page, "#link").is_displayed())
    assert "#" not in page.current_url, "nobody else has this picture"


def test_surprises_are_remembered(page):
    made = [changes(page, "I_mix", find(page, "#surprise").click) for _ in range(2)]
    until(page, lambda: len(find_all(page, "#history button")) == 2)
    assert [find(button, "img").get_attribute("src") for button in find_all(page, "#history button")] == made[::-1]
    changes(page, "I_mix", find_all(page, "#history button")[1].click)
    until(page, lambda: shown(page, "I_mix") == made[0])


SIX = Image.Exif()
SIX[ExifTags.Base.Orientation] = 6  # the picture's first row is at the right, its first column at the top


def _huge(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path, format="png")


def _cut_short(path: Path) -> None:
    Image.effect_noise((90, 90), 60).convert("RGB").save(path, format="jpeg")
    path.write_bytes(path.read_bytes()[:1500])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: path.write_text("<script>alert(1)</script>"), "is not a picture"),
        (lambda path: path.write_bytes(b""), "is not a picture"),
        (_huge, "20000 x 20000 pixels|more than 100,000,000 pixels"),
        (_cut_short, "cannot be read"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50), "is not a picture|cannot be read"),
    ],
    ids=["HTML", "empty", "huge", "cut short", "no PNG"],
)
@pytest.mark.parametrize("tab", ["transfer", "neighbours"])
def test_a_strange_file_gets_a_message(tab, write, reason, page, tmp_path):
    hostile = tmp_path / "<b>x.png"
    write(hostile)
    before = shown(page, "object img")
    find(page, f"#tab-{tab}").click()
    find(page, {"transfer": "#object input[type=file]", "neighbours": "#own input"}[tab]).send_keys(str(hostile))
    message = until(page, lambda: find(page, "#message").text)
    assert any(part in message for part in reason.split("|"))
    assert str(tmp_path) not in message
    assert shown(page, "object img") == before
    assert not find_all(page, "#message b")


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"format": "gif", "save_all": True, "append_images": [Image.new("RGB", (60, 40), "black")]}),
        ("I;16", {"format": "png"}),
        ("CMYK", {"format": "jpeg", "quality": 95}),
        ("RGB", {"format": "jpeg", "quality": 95, "exif": SIX}),
    ],
    ids=["animated GIF", "16 bits", "CMYK", "turned by EXIF"],
)
def test_an_odd_picture_is_shown_as_it_should_be(mode, options, page, tmp_path):
    """Half white, half black: the left half is white; with EXIF's orientation 6 it is the upper one."""
    pixels = np.zeros((40, 60), np.uint8)
    pixels[:, :30] = 255
    deep = Image.fromarray(pixels.astype(np.uint16) * 257)
    (deep if mode == "I;16" else Image.fromarray(pixels).convert("RGB").convert(mode)).save(tmp_path / "odd", **options)
    choose = find(page, "#scene input[type=file]")
    address = changes(page, "scene img", lambda: choose.send_keys(str(tmp_path / "odd")))
    seen = np.array(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))
    light, dark = (seen[:20], seen[-20:]) if "exif" in options else (seen[:, :20], seen[:, -20:])
    assert light.min() > 230
    assert dark.max() < 25


def test_neighbours_of_a_picture_from_elsewhere(page, photographs):
    find(page, "#tab-neighbours").click()
    until(page, lambda: len(find_all(page, ".neighbour-row")) == 4)
    photo = sorted(photographs.iterdir())[7]
    find(page, "#own input").send_keys(str(photo))
    until(page, lambda: find(page, "#row-id").text == photo.name)
    for q in range(1, 5):
        assert find(page, f".neighbour-row:nth-child({q}) button").get_attribute("title") == "picture 7"
    find(page, "#tab-transfer").click()
    find(page, "#tab-neighbours").click()
    assert find(page, "#row-id").text == photo.name
    changes(page, "object img", find(page, "#as-object").click)


def test_names_are_text(page):
    assert "<img src=x onerror=alert(1)>" in find(page, "#run-facts").text
    assert not find_all(page, "#run-facts img")


def test_neighbours_lead_from_picture_to_picture(page):
    find(page, "#tab-neighbours").click()
    until(page, lambda: len(find_all(page, ".neighbour-row")) == 4)
    third = find_all(page, ".neighbour-row:nth-child(2) button")[4]
    until(page, lambda: find(third, "img").get_property("naturalWidth") == 64)
    assert third.size["height"] > 40
    offsets = (
        "const [i] = arguments, b = i.parentElement; return [Math.round(i.offsetLeft / b.clientWidth), i.offsetTop]"
    )
    assert page.execute_script(offsets, find(third, "img")) == [-1, 0]  # q2, the right upper quarter
    q1 = find_all(page, ".neighbour-row:nth-child(1) img")[4]
    assert page.execute_script(offsets, q1) == [0, 0]
    row = third.get_attribute("title").split()[1]
    name = find(page, "#row-id").text
    third.click()
    until(page, lambda: find(page, "#row-id").text != name)
    assert find(page, "#row").get_property("value") == row
    find(page, "#as-object").click()
    until(page, lambda: f"object={row}&" in find(page, "#link").get_attribute("href"))
    until(page, lambda: find(page, "#scene .random").is_displayed())
    find(page, "#scene .random").click()
    find(page, "#tab-neighbours").click()
    find(page, "#row").send_keys("9999")
    find(page, "#pick button[type=submit]").click()
    until(page, lambda: find(page, "#row").get_property("validity")["rangeOverflow"])


def test_curves_and_sheets_are_shown(page):
    find(page, "#tab-run").click()
    pictures = until(page, lambda: find_all(page, "#pictures img"))
    assert [picture.get_attribute("alt") for picture in pictures] == [
        "curves",
        "sheets/00000006.png",
        "sheets/00000003.png",
    ]
    for picture in pictures:
        page.execute_script("arguments[0].scrollIntoView()", picture)
        until(page, lambda picture=picture: picture.get_property("naturalWidth") > 300)


def test_nothing_is_asked_of_other_machines(page, address):
    names = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert names
    assert all(name.startswith((address, "data:")) for name in names), json.dumps(names)
