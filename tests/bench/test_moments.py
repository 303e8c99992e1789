"""The table of what checkpoints knew, for runs of either form."""

import json

import pytest
import torch

from bench import moments
from lorbms_fast.run import Run
from tests.conftest import run_of


def test_each_checkpoint_has_a_row_which_is_the_same_by_either_form(photographs, tmp_path, capsys):
    folder = run_of(photographs, tmp_path)
    settings, rows = json.loads((folder / "config.json").read_text()), []
    for impl in ("fast", "reference"):
        (folder / "config.json").write_text(json.dumps(settings | {"impl": impl}))
        capsys.readouterr()
        moments.table(folder, [tmp_path / "store"])
        head, *body = (line.split(" | ") for line in capsys.readouterr().out.splitlines())
        assert head == ["iteration", "store", *moments.COLUMNS]
        assert {len(row) for row in body} == {len(head)}
        assert [row[0] for row in body] == [f"{int(path.name)}" for path in Run.open(folder).checkpoints()]
        rows.append([float(value) for row in body for value in row[2:]])
    assert any(rows[0])
    assert rows[0] == pytest.approx(rows[1], rel=0.01, abs=0.011)


def test_what_is_finer_than_4x4_pixels_is_told():
    board = torch.tensor([[1.0, -1], [-1, 1]])
    fine, coarse = board.repeat(8, 8)[None, None], board.repeat_interleave(4, 0).repeat_interleave(4, 1)[None, None]
    assert torch.equal(moments._fine(fine + coarse.repeat(1, 1, 2, 2)), fine)
