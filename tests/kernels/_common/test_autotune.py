"""Choosing tile sizes."""

import pytest

triton = pytest.importorskip("triton")

from lorbms_fast.kernels._common.autotune import Tuner, autotune  # noqa: E402


@triton.jit
def kernel(x, n, PRECISION: triton.language.constexpr, BLOCK: triton.language.constexpr):
    pass


def test_the_only_candidate_is_not_timed(monkeypatch):
    timed = []
    monkeypatch.setattr(triton.runtime.Autotuner, "_bench", lambda self, *_, config, **__: timed.append(config))
    tuner = autotune([triton.Config({"BLOCK": size}) for size in (16, 32)], {"BLOCK": 2}, ["n"])(kernel)
    tuner.nargs = {"n": 1}
    for precision, candidates in (("ieee", 1), ("tf32", 2)):
        found = tuner.prune_configs({"PRECISION": precision})
        assert len(found) == candidates
        for config in found:
            tuner._bench(config=config, PRECISION=precision)
        assert len(timed) == (candidates if candidates > 1 else 0)


def test_the_likely_candidate_comes_first():
    configs = [triton.Config({"BLOCK": size}) for size in (16, 32, 64)]
    tuner = autotune(configs, {"BLOCK": 2}, ["n"], likely=lambda arguments: 1 + (arguments["n"] > 9))(kernel)
    for n, precision, expected in ((1, "tf32", [32, 16, 64]), (10, "tf32", [64, 16, 32]), (10, "ieee", [16])):
        tuner.nargs = {"n": n}
        assert [config.kwargs["BLOCK"] for config in tuner.prune_configs({"PRECISION": precision})] == expected


def test_untimed_candidates_are_all_run_and_nothing_is_kept(monkeypatch):
    ran = []
    monkeypatch.setattr(triton.runtime.Autotuner, "check_disk_cache", lambda *_: pytest.fail("it looked up"))
    monkeypatch.setattr(triton.runtime.JITFunction, "run", lambda self, *_, BLOCK, **__: ran.append(BLOCK))
    tuner = autotune([triton.Config({"BLOCK": size}) for size in (16, 32)], {"BLOCK": 2}, ["n"])(kernel)
    monkeypatch.setattr(Tuner, "timed", False)
    tuner.run(None, 1, grid=(1,), warmup=False, PRECISION="tf32")
    assert ran == [16, 32, 16]
