"""The command line's front door."""

import os
import subprocess
import sys

import pytest

from lorbms_fast.cli import COMMANDS, main


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return exit_.value.code or 0


def test_help_lists_every_command(capsys):
    assert run() == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert run(command, "--help") == 0
    assert f"usage: lorbms-fast {command}" in capsys.readouterr().out


def test_unknown_command(capsys):
    assert run("trian") == 2
    assert "'trian' is not a command" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("train",), ("info", "--preset", "x"), ("train", "--batch-size", "0")])
def test_mistakes_end_in_status_2_on_one_line(arguments, capsys):
    assert run(*arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("--help",), ("info", "--json")])
def test_output_that_nobody_reads_is_no_error(arguments):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "lorbms_fast", *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
