from hashlib import sha256
from pathlib import Path

import pytest

from lorbms_fast.errors import UserError
from lorbms_fast.parallel import ordered_map
from lorbms_fast.photos import stl10
from lorbms_fast.photos.composed import write_composed
from lorbms_fast.photos.shipped import DATA


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def compose(out: Path, seed: int = 0, scenes: int = 10, workers: int = 1) -> dict[str, str]:
    write_composed(out, scenes, train=50, test=10, seed=seed, photographs=False, workers=workers)
    return digests(out)


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(tmp_path: Path):
    once = compose(tmp_path / "once")
    assert once == compose(tmp_path / "again")
    assert once == compose(tmp_path / "parallel", workers=2)


def test_another_seed_gives_other_pictures(tmp_path: Path):
    one, other = compose(tmp_path / "0", seed=0), compose(tmp_path / "1", seed=1)
    assert one.keys() == other.keys()
    changed = {name for name in one if one[name] != other[name]}
    assert changed >= {name for name in one if name.endswith((".jpg", "_X.bin")) or "instances" in name}


def test_a_scene_does_not_depend_on_how_many_follow(tmp_path: Path):
    few, many = compose(tmp_path / "few", scenes=2), compose(tmp_path / "many", scenes=3)
    scene = "coco/train2017/000000000002.jpg"
    assert few[scene] == many[scene] != few["coco/train2017/000000000001.jpg"]


def test_credits_and_licences_travel_with_the_pictures(tmp_path: Path):
    compose(tmp_path / "out", scenes=1)
    licences = {path.name for path in (DATA / "licences").iterdir()}
    assert {path.name for path in (tmp_path / "out/credits/licences").iterdir()} == licences
    assert (tmp_path / "out/credits/credits.json").read_bytes() == (DATA / "credits.json").read_bytes()


def test_either_set_can_be_left_out(tmp_path: Path):
    write_composed(tmp_path / "scenes", 1, train=0, test=0, seed=0, photographs=False)
    assert {path.name for path in (tmp_path / "scenes").iterdir()} == {"coco", "credits"}
    write_composed(tmp_path / "labelled", 0, train=50, test=10, seed=0)
    assert {path.name for path in (tmp_path / "labelled").iterdir()} == {"stl10_binary", "credits"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"train": 51}, "51 training"),
        ({"test": 11}, "11 test"),
        ({"train": 0}, "0 training"),
        ({"scenes": 0, "train": 0, "test": 0}, "nothing to compose"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, int], named: str
):
    numbers = {"scenes": 1, "train": 50, "test": 10, "seed": 0, "workers": 1} | options
    with pytest.raises(UserError, match=named):
        write_composed(tmp_path / "out", **numbers)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_left_alone(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        compose(tmp_path / "out")
    assert list(digests(tmp_path)) == ["out/mine.txt"]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stl10, "compose_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compose(tmp_path / "out", scenes=1)
    assert not list(tmp_path.iterdir())


def _square(index: int) -> int:
    if index == 30:
        raise ValueError("the thirtieth")
    return index * index


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_exceptions_come_through(workers: int):
    assert list(ordered_map(_square, range(20), workers, "squares")) == [index * index for index in range(20)]
    with pytest.raises(ValueError, match="the thirtieth"):
        list(ordered_map(_square, range(40), workers, "squares"))
