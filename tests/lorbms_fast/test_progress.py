"""Progress in logs: whole lines, few, and no end of the work where they cannot be written."""

import errno
import io
import os
import time

from lorbms_fast import progress
from lorbms_fast.progress import at_work, tqdm


def test_a_log_gets_lines():
    log = io.StringIO()
    with tqdm(total=1000, desc="training", file=log) as bar:
        for _ in range(1000):
            bar.update()
    assert "\r" not in log.getvalue()
    lines = [line for line in log.getvalue().splitlines() if line]
    assert len(lines) == 2
    assert "0/1000" in lines[0]
    assert "1000/1000" in lines[1]


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_under_a_log_ends_no_work():
    with tqdm(total=3, file=Full()) as bar:
        bar.update(3)
    assert bar.n == 3


def test_a_terminal_that_is_closed_ends_no_work(monkeypatch):
    monkeypatch.setattr(Full, "isatty", lambda _: True)
    assert list(tqdm(range(3), file=Full(), mininterval=0)) == [0, 1, 2]


def test_a_log_hears_of_work_that_has_no_bar(capsys, monkeypatch):
    monkeypatch.setattr(progress, "BETWEEN_LINES", 0.01)
    with at_work("counting"):
        time.sleep(0.1)
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "counting"
    assert others[0] == "counting (0 s so far)"


def test_work_goes_on_where_nobody_can_be_told(monkeypatch):
    monkeypatch.setattr("sys.stderr", Full())
    with at_work("counting"):
        pass
