"""Every program in examples/ runs as its first lines say."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(path, tmp_path, monkeypatch, capsys):
    (command,) = re.findall(r"^    python (examples/.*)$", path.read_text(), re.MULTILINE)
    program, *arguments = shlex.split(command)
    assert program == f"examples/{path.name}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
    if arguments:
        monkeypatch.setattr(sys, "argv", [program])
        with pytest.raises(SystemExit, match=re.escape(command)):
            runpy.run_path(str(path), run_name="__main__")
