"""Searching: draws, and two small trials."""

import importlib
import json
from dataclasses import asdict, replace

import pytest

from lorbms_fast.cli import main
from lorbms_fast.config import to_json
from lorbms_fast.engine.trainer import Training
from lorbms_fast.errors import UserError
from lorbms_fast.kernels._common import dispatch
from lorbms_fast.run import Run
from lorbms_fast.search.space import Space, chosen, ranges
from tests.conftest import TINY


def test_chosen_settings_reach_their_places():
    config = chosen(TINY, {"generator_lr": 1e-4, "cls": 0.02})
    assert config == replace(TINY, optim=replace(TINY.optim, generator_lr=1e-4), loss=replace(TINY.loss, cls=0.02))
    every = asdict(Space(*[(0.125, 0.125)] * 5))
    assert ranges(Space()).keys() == every.keys()
    changed = asdict(chosen(TINY, dict.fromkeys(every, 0.125)))
    assert all((changed["optim"] | changed["loss"])[name] == 0.125 for name in every)


def test_a_single_value_is_not_searched():
    assert ranges(Space(adv=(0.1, 0.1))).keys() == ranges(Space()).keys() - {"adv"}


def _ray():
    pytest.importorskip("ray.tune", reason="needs pip install 'lorbms-fast[search]'", exc_type=ImportError)
    return pytest.importorskip("ray")


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_searched_is_told_before_anything_starts(store, tmp_path, monkeypatch, capsys):
    def refuse():
        raise ConnectionError("timed out")

    ray = _ray()
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # tests of the cluster keep theirs until all have run
    monkeypatch.setattr(ray, "init", refuse)
    for options, told in ((["--metric", "foo"], "--metric foo: choose one of L_G"), ([], "RAY_ADDRESS=local")):
        with pytest.raises(SystemExit):
            main(["search", str(store.path), "--out", str(tmp_path / "out"), "--preset", "demo", *options])
        assert told in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_a_search_that_was_begun_otherwise_does_not_go_on(tmp_path):
    _ray()
    note = importlib.import_module("lorbms_fast.search.tuner")._note
    asked = {"base": asdict(TINY), "space": asdict(Space()), "trials": 2, "metric": "L_G"}
    note(tmp_path / "asked.json", asked | {"trials": 5}, False)
    note(tmp_path / "asked.json", asked, False)  # nothing had begun
    note(tmp_path / "asked.json", asked, True)
    before = json.loads(json.dumps(asked))
    del before["base"]["model"]["initial_values"], before["base"]["graphs"]  # settings that came later
    (tmp_path / "asked.json").write_text(json.dumps(before))
    note(tmp_path / "asked.json", asked, True)
    with pytest.raises(UserError, match=r"was begun otherwise \(base\.seed is 1, not 0; trials is 3, not 2\)"):
        note(tmp_path / "asked.json", asked | {"base": asdict(replace(TINY, seed=1)), "trials": 3}, True)


@pytest.mark.filterwarnings("ignore")
def test_trials_run_the_kernels_that_settings_ask_for(store, tmp_path, monkeypatch):
    _ray()
    tuner = importlib.import_module("lorbms_fast.search.tuner")
    trial = object.__new__(tuner.Trial)
    trial.lorbms = Run.create(tmp_path / "run", replace(TINY, kernels="torch"), store.path)
    trial.every, trial.done, trial.store = 1, 0, store
    train, seen = Training.train, []
    monkeypatch.setattr(Training, "train", lambda *of: seen.append(dispatch.in_force()) or train(*of))
    assert trial.step()["iteration"] == 1
    assert seen == ["fused"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["random", "pbt"])
@pytest.mark.filterwarnings("ignore")
def test_two_trials(method, store, tmp_path, capsys):
    ray = _ray()

    (tmp_path / "tiny.json").write_text(to_json(TINY))
    out = tmp_path / "search"
    if alone := not ray.is_initialized():  # tests of the cluster keep theirs until all have run
        ray.init("local", num_cpus=2, include_dashboard=False)
    options = ["--method", method, "--trials", "2", "--slices", "2", "--every", "2", "--device", "cpu"]
    try:
        for _ in range(2):  # the second time nothing is left to do
            main(["search", str(store.path), "--out", str(out), "--config", str(tmp_path / "tiny.json"), *options])
            rows = json.loads((out / "search.json").read_text())
            assert len(rows) == 2
            assert rows[0]["L_rec_prime"] <= rows[1]["L_rec_prime"]
            assert all(row["iteration"] == 4 for row in rows)
            assert all(5e-5 <= row["generator_lr"] <= 1e-3 for row in rows)
    finally:
        if alone:
            ray.shutdown()
