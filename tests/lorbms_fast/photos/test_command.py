from pathlib import Path

import pytest

from lorbms_fast.cli import main

FEW = ("--scenes", "4", "--stl10-train", "50", "--stl10-test", "10", "--workers", "1")


def test_the_counts_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["compose", str(tmp_path / "out"), *FEW, "--no-photos"])
    printed = capsys.readouterr().out
    assert "4 composed scenes and 0 photographs" in printed
    assert "50 training pictures in ten folds of 10, 10 test pictures" in printed


def test_a_mistake_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(["compose", str(tmp_path), *FEW])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        f"lorbms-fast: {tmp_path} exists already: choose another name or remove it first"
    ]
