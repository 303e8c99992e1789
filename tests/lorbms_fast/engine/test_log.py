"""The log of a run: what is kept, and what a mean is taken over."""

import pytest

from lorbms_fast.engine.log import Log, read_entries
from lorbms_fast.errors import UserError


def test_means_are_over_the_entries_since(tmp_path):
    with Log(tmp_path, 0, 9, first=True) as log:
        for iteration in range(1, 5):
            log.write(iteration, {"L": float(iteration)})
        assert log.kept_mean("L", since=2) == 3.5
        assert log.kept_mean("L", since=4) is None
    with Log(tmp_path, 3, 9, first=True) as log:  # the fourth was lost
        assert log.kept_mean("L", since=1) == 2.5
    assert [entry["iteration"] for entry in read_entries(tmp_path / "metrics.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize("line", [b"noise", b"\xff"])
def test_a_damaged_log_is_named(line, tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"iteration": 1}\n' + line + b"\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged .* remove it, the run goes on without"):
        Log(tmp_path, 1, 2, first=True)
