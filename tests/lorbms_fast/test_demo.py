"""The demo, with networks that train in a blink."""

from dataclasses import replace

import pytest

from lorbms_fast.cli import main
from lorbms_fast.commands import demo
from tests.conftest import TINY


@pytest.mark.slow
def test_the_demo_ends_with_pictures_and_numbers_and_does_nothing_twice(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(demo.PRESETS, "demo", replace(TINY, iterations=4, sheet_every=2))
    main(["demo", "--out", str(tmp_path / "demo")])
    told = capsys.readouterr().out
    for part in (
        "12 photographs",
        "16x16 blur",
        "0.5 of everything: 2.77, the best constant answer: 0.69",
        "by chance 8 %",
        "film.png",
    ):
        assert part in told
    pictures = ("film", "mixed_scenes", "transfer", "curves")
    assert all((tmp_path / "demo/run" / f"{name}.png").exists() for name in pictures)
    assert (tmp_path / "demo/data/credits/credits.json").exists()
    main(["demo", "--out", str(tmp_path / "demo")])
    again = capsys.readouterr().out
    assert "nothing to do" in again
    assert "1/6" not in again
    assert "2/6" not in again


def test_a_demo_of_other_photographs_does_not_go_on(tmp_path, capsys):
    demo._copy_photographs(tmp_path / "data")
    with pytest.raises(SystemExit):
        main(["demo", "--out", str(tmp_path), "--scenes", "10"])
    assert "holds 12 photographs and --scenes 10 takes 342: choose another --out" in capsys.readouterr().err
