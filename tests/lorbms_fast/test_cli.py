"""The command line's front door."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lorbms_fast.cli import COMMANDS, main
from lorbms_fast.config import TrainConfig, read_config


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


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["prepare"], "are left out. What is transparent becomes white;"),
        (["train"], "for a run that is resumed"),
        (["train"], "For several GPUs: `torchrun --standalone"),
        (["train"], "on insists; a CPU, which"),
        (["evaluate", "generation"], "Image stores with neighbours; the run's own by default."),
    ],
)
def test_help_is_broken_where_lines_are_full(command, line, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(*command, "--help") == 0
    assert line in capsys.readouterr().out


def test_unknown_command(capsys):
    assert run("trian") == 2
    assert "'trian' is not a command" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("train",), ("info", "--preset", "x"), ("train", "--batch-size", "0")])
def test_mistakes_end_in_status_2_on_one_line(arguments, capsys):
    assert run(*arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("prepare", "", "--out", "Y"), "an argument"),
        (("prepare", "X", "--out", ""), "--out"),
        (("train", "--resume="), "--resume"),
        (("transfer", "X", "--object", "A", "--scene", "B", "--mask", ""), "--mask"),
    ],
)
def test_empty_texts_are_not_taken_for_this_folder(arguments, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith(f"lorbms-fast: {named} is an empty text: ")


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("prepare X --out Y", "--image-size", "1"),
        ("prepare X --out Y", "--image-size", "65"),
        ("prepare X --out Y", "--min-side", "-5"),
        ("prepare X --out Y", "--limit", "0"),
        ("prepare X --out Y", "--seed", "-1"),
        ("prepare X --out Y", "--workers", "0"),
        ("neighbours X", "--clusters", "0"),
        ("neighbours X", "--tau", "nan"),
        ("neighbours X", "--seed", "-1"),
        ("train X --out Y", "--seed", "-1"),
        ("train X --out Y", "--epochs", "nan"),
        ("search X --out Y", "--slices", "0"),
        ("search X --out Y", "--adv", "inf 1"),
        ("render X", "--samples", "-1"),
        ("render X", "--draw", "-1"),
        ("export X --out Y", "--examples", "-1"),
        ("evaluate generation X", "--draw", "-1"),
        ("evaluate scenes X", "--pairs", "0"),
        ("evaluate scenes X", "--seed", "-1"),
        ("evaluate calibration X --out Y", "--iterations", "-4"),
        ("evaluate calibration X --out Y", "--batch-size", "0"),
        ("evaluate ablation X --out Y --stl10 Z", "--epochs", "nan"),
        ("compose Y", "--scenes", "-1"),
        ("demo", "--scenes", "-1"),
        ("profile", "--top", "0"),
        ("bench", "--rounds", "0"),
        ("plan", "--epochs", "nan"),
        ("verify", "--batch-size", "0"),
    ],
)
def test_numbers_that_cannot_be_are_told_before_anything_is_looked_for(command, option, value, capsys):
    assert run(*command.split(), option, *value.split()) == 2
    wrong = rf"{float(value.split()[0])}" if " " in value else value
    assert re.fullmatch(rf"lorbms-fast: {option} {wrong}: Input should be .*\n", capsys.readouterr().err)


def test_a_range_from_its_end_to_its_beginning_is_refused(capsys):
    assert run("search", "X", "--out", "Y", "--adv", "0.2", "0.1") == 2
    assert capsys.readouterr().err == "lorbms-fast: --adv (0.2, 0.1): name the lowest value first\n"


def test_behind_a_box_about_a_setting_is_the_option_and_no_page_of_a_library():
    command = [sys.executable, "-m", "lorbms_fast", "train", "X", "--out", "Y", "--optim.betas", "2", "0.9"]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False, text=True)
    assert done.returncode == 2
    assert "http" not in done.stderr
    assert done.stderr.endswith("\nlorbms-fast: --optim.betas 2.0: Input should be less than 1\n")


def test_behind_a_box_about_a_setting_of_a_command_within_a_command_is_the_option(capsys):
    assert run("evaluate", "linear", "X", "--stl10", "Y", "--probe.epochs", "0") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == "lorbms-fast: --probe.epochs 0: Input should be greater than or equal to 1"


def test_the_version_is_told(capsys):
    assert run("--version") == 0
    assert re.fullmatch(r"lorbms-fast \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_packages_that_ray_tune_lacks_are_told_on_one_line(monkeypatch, capsys):
    def tune(*_):
        raise ImportError('Can\'t import ray.tune as some dependencies are missing. Run `pip install "ray[tune]"`.')

    monkeypatch.setattr("lorbms_fast.cli._call", tune)
    assert run("search", "STORE", "--out", "OUT") == 2
    assert "pip install 'lorbms-fast[search]'" in capsys.readouterr().err


def test_verify_refuses_a_device_before_it_computes(monkeypatch, capsys):
    monkeypatch.setattr("lorbms_fast.commands.verify.Golden", None)
    assert run("verify", "--device", "foo") == 2
    assert "--device foo" in capsys.readouterr().err


def test_verify_looks_for_its_preset_before_it_computes(monkeypatch, capsys):
    monkeypatch.setattr("lorbms_fast.commands.verify.Golden", None)
    assert run("verify", "--preset", "x") == 2
    assert "there is no preset 'x'" in capsys.readouterr().err


def test_a_trace_does_not_go_into_a_folders_place(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lorbms_fast.commands.profile.step", None)
    assert run("profile", "--out", str(tmp_path)) == 2
    assert "is a folder: name a file" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--help",), ("info", "--json"), ("info",)])
def test_output_that_nobody_reads_is_no_error(arguments):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "lorbms_fast", *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [("--help",), ("info", "--preset", "demo")])
def test_output_that_cannot_be_written_is_told_on_one_line(arguments):
    command = [sys.executable, "-m", "lorbms_fast", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, text=True)
    assert done.returncode == 2
    assert done.stderr == "lorbms-fast: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed):
    done = subprocess.run(["sh", "-c", f"{sys.executable} -m lorbms_fast --help {closed}"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_former_values_in_settings_are_understood(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"impl": "torch", "batch_norm": "synchronised", "on_divergence": "skip"}')
    config = read_config(path, TrainConfig())
    assert (config.impl, config.batch_norm, config.on_divergence) == ("fast", "synchronized", "rollback")
