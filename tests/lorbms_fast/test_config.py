"""Settings: presets, files, and values that cannot be."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast.config import PRESETS, LossConfig, ModelConfig, TrainConfig, read_config, to_json
from lorbms_fast.errors import UserError


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_being_written_and_read(preset, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(to_json(PRESETS[preset]))
    assert read_config(path, TrainConfig()) == PRESETS[preset]


def test_widths_of_the_thesis():
    model = ModelConfig()
    assert model.encoder_widths == (112, 192, 304, 464, 656)
    assert model.decoder_widths == (656, 464, 304, 192, 112)
    assert model.classifier_positions * model.classifier_widths[-1] == 6400


def test_toml_replaces_only_what_it_names(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("\ufeffbatch_size = 14\n[loss]\nlambdas = [0.25, 0.25, 0.25, 0.25]\n")  # as on Windows
    config = read_config(path, TrainConfig())
    assert config.batch_size == 14
    assert config.loss == LossConfig(lambdas=(0.25, 0.25, 0.25, 0.25))
    assert config.model == ModelConfig()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"batch_size": 0}, "batch_size = 0"),
        ({"batchsize": 3}, "batchsize = 3: there is no such setting"),
        ({"model": {"layers": [1, 2]}}, "model.layers"),
        ({"model": {"image_size": 50}}, "model.image_size = 50"),
        ({"model": {"classifier_widths": [4, 4, 4, 3, 4]}}, "model.classifier_widths.3 = 3"),
        ({"model": {"decoder": "deocder"}}, "model.decoder = deocder: choose one of thesis, "),
        ({"loss": {"lambdas": [1, 1, 1, "x"]}}, "loss.lambdas.3 = x"),
        ({"loss": 3}, "loss = 3: should be a table of settings"),
        ({"loss": {"lambdas": 1}}, "loss.lambdas = 1: should be a list"),
        ({"optim": {"betas": [0.5]}}, "optim.betas.1: is missing"),
        ({"batch_size": True}, "batch_size = True: should be a number"),
        ({"epochs": True}, "epochs = True: should be a number"),
        ({"mixing": {"tau": False}}, "mixing.tau = False: should be a number"),
        ({"epochs": 1e308}, "epochs = 1e+308: Input should be less than or equal to 1000000"),
        ({"iterations": 2**70}, f"iterations = {2**70}: Input should be less than or equal to 1000000000000"),
        ({"log_every": 10**9}, "log_every = 1000000000: Input should be less than or equal to 1000000"),
        ({"precision": "int8"}, "precision = int8"),
        ({"epochs": float("nan")}, "epochs = nan"),
    ],
)
def test_impossible_settings_are_named(settings, named, tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(settings))
    with pytest.raises(UserError) as error:
        read_config(path, TrainConfig())
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "read_as"), [("settings.yaml", "TOML"), ("settings.json", "JSON")])
def test_a_file_in_another_language_is_told_which_it_is_read_in(name, read_as, tmp_path):
    path = tmp_path / name
    path.write_text("epochs: 3\n")
    with pytest.raises(UserError, match=f"is not well-formed {read_as}: "):
        read_config(path, TrainConfig())


@given(st.binary(max_size=40))
def test_any_file_gives_settings_or_a_clear_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("config") / "settings.toml"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        assert isinstance(read_config(path, TrainConfig()), TrainConfig)


def test_runs_that_call_the_fast_form_torch_are_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"impl": "torch"}))
    assert read_config(path, PRESETS["demo"]).impl == "fast"
    assert json.loads(to_json(TrainConfig(impl="torch")))["impl"] == "fast"
