"""Measures of scenes, against networks and judges whose answers are known."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lorbms_fast.cli import main
from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.dataloader.sources.coco import find_annotations
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.datasets.quadrant_objects import QuadrantObjects
from lorbms_fast.evaluation.disentangling.judge import train_judge
from lorbms_fast.evaluation.disentangling.logistic import fit_logistic
from lorbms_fast.evaluation.disentangling.measure import changes, chunk_to_category, invariance, verdicts
from lorbms_fast.evaluation.disentangling.proportions import Answers, majority, proportion
from lorbms_fast.evaluation.disentangling.retrieval import measure_retrieval
from lorbms_fast.evaluation.disentangling.swaps import draw_swaps, swap
from lorbms_fast.evaluation.split import Split
from lorbms_fast.similarity.features.extractor import Extractor
from tests.conftest import store_of

CPU = torch.device("cpu")


def pixels_as_chunks(images: Tensor) -> Tensor:
    """(N, 3, S, S) -> (N, 4, 3 S S / 4): an encoder that forgets nothing."""
    half = images.shape[-1] // 2
    parts = images.unflatten(2, (2, half)).unflatten(4, (2, half)).permute(0, 2, 4, 1, 3, 5)
    return parts.flatten(3).flatten(1, 2)


def chunks_as_pixels(f: Tensor) -> Tensor:
    half = round((f.shape[2] / 3) ** 0.5)
    parts = f.unflatten(1, (2, 2)).unflatten(3, (3, half, half))
    return parts.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


PERFECT: Any = SimpleNamespace(enc=pixels_as_chunks, dec=chunks_as_pixels)


def test_the_perfect_networks_of_these_tests(store):
    images = to_float_nchw(np.array(store.images[:3]))
    torch.testing.assert_close(chunks_as_pixels(pixels_as_chunks(images)), images)


def test_swaps_are_inside_couples_of_photographs():
    """Photographs of two images each; no photograph is in two couples, and every way is taken before one is twice."""
    photographs = np.arange(40) // 2
    rows = np.arange(6, 40)
    swaps = draw_swaps(rows, photographs, 10**6, 0)
    assert len(swaps.ref) == 8 * 8, "17 photographs make eight couples"
    assert set(swaps.ref) | set(swaps.obj) <= set(rows)
    of = {c: set(photographs[np.append(swaps.ref[swaps.couple == c], swaps.obj[swaps.couple == c])]) for c in range(8)}
    assert all(len(couple) == 2 for couple in of.values())
    assert len(set.union(*of.values())) == 16
    ways = zip(swaps.couple, photographs[swaps.ref], swaps.quadrant, strict=True)
    assert len(set(ways)) == 64
    few = draw_swaps(rows, photographs, 8, 0)
    assert sorted(few.couple) == list(range(8))
    assert len({*few.ref, *few.obj} & set(range(6, 40, 2))) > 0
    assert len({*few.ref, *few.obj} & set(range(7, 40, 2))) > 0


def test_perfect_networks_leak_nothing_and_swap_what_pasting_swaps(store):
    swaps = draw_swaps(np.arange(24), np.arange(24), 40, 0)
    mean = pixels_as_chunks(to_float_nchw(np.array(store.images))).mean(0).numpy()
    sums: dict[str, float] = {}
    for part, made in swap(PERFECT, store, swaps, CPU):
        torch.testing.assert_close(made.I_mix, made.I_paste)
        for name, value in changes(part, made, mean).items():
            sums[name] = sums.get(name, 0) + value
    found = invariance(sums)
    assert found["drift of kept chunks"] == found["drift of the swapped chunk"] == found["leak"] == 0
    assert found["change inside the quadrant"] > 0.1


def test_invariance_is_its_formula(store):
    """Networks that blur and forget: the sums against loops over samples, quadrants and pixels."""
    torch.manual_seed(0)
    blur = torch.nn.AvgPool2d(9, stride=1, padding=4)
    networks: Any = SimpleNamespace(enc=lambda x: pixels_as_chunks(x) * 0.9, dec=lambda f: blur(chunks_as_pixels(f)))
    mean = np.random.default_rng(0).normal(size=(4, 3 * 32 * 32))
    ((swaps, made),) = swap(networks, store, draw_swaps(np.arange(24), np.arange(24), 5, 1), CPU)
    drift, spread, outside, inside = [], [], [], []
    for n, i in enumerate(swaps.quadrant):
        difference = (made.I_mix[n] - made.I_hat[n]).abs().mean(0)
        for j in range(4):
            top, left = divmod(j, 2)
            (inside if j == i else outside).append(
                difference[top * 32 : top * 32 + 32, left * 32 : left * 32 + 32].mean().item()
            )
            if j != i:
                drift.append((made.f_mix[n, j] - made.f_mix_hat[n, j]).square().sum().item())
                spread.append(((made.f_mix[n, j].numpy() - mean[j]) ** 2).sum())
    found = invariance(changes(swaps, made, mean))
    assert found["drift of kept chunks"] == pytest.approx(sum(drift) / sum(spread), rel=1e-4)
    assert found["change outside the quadrant"] == pytest.approx(np.mean(outside), rel=1e-4)
    assert found["leak"] == pytest.approx(np.mean(outside) / np.mean(inside), rel=1e-4)
    assert found["leak"] > 0.01


def test_all_chunks_of_a_quadrant_are_swapped_and_measured(store):
    """The same networks, whose code is told in sixteen smaller pieces, four a quadrant, have the same numbers."""

    def sixteen(f: Tensor) -> Tensor:
        return f.unflatten(2, (4, -1)).unflatten(1, (2, 2)).unflatten(3, (2, 2)).transpose(2, 3).flatten(1, 4)

    def four(f: Tensor) -> Tensor:
        return f.unflatten(1, (2, 2, 2, 2)).transpose(2, 3).flatten(3, 5).flatten(1, 2)

    torch.manual_seed(0)
    blur = torch.nn.AvgPool2d(9, stride=1, padding=4)
    coarse: Any = SimpleNamespace(enc=lambda x: pixels_as_chunks(x) * 0.9, dec=lambda f: blur(chunks_as_pixels(f)))
    fine: Any = SimpleNamespace(enc=lambda x: sixteen(coarse.enc(x)), dec=lambda f: coarse.dec(four(f)))
    mean = torch.randn(1, 4, 3 * 32 * 32, dtype=torch.float64)
    swaps = draw_swaps(np.arange(24), np.arange(24), 8, 1)
    ((part, made),) = swap(coarse, store, swaps, CPU)
    ((_, made_finely),) = swap(fine, store, swaps, CPU)
    torch.testing.assert_close(made_finely.I_mix, made.I_mix)
    expected = invariance(changes(part, made, mean[0].numpy()))
    assert invariance(changes(part, made_finely, sixteen(mean)[0].numpy())) == pytest.approx(expected, rel=1e-6)


class BrightnessJudge:
    """Sees class 1 in bright quadrants, class 0 in dark ones."""

    def sees(self, images: np.ndarray) -> np.ndarray:
        half = images.shape[1] // 2
        return (images.reshape(-1, 2, half, 2, half, 3).mean((2, 4, 5)).reshape(-1, 4) > 127).astype(np.int64)


def test_verdicts_on_perfect_networks_and_on_networks_that_ignore_the_swap(store):
    judge: Any = BrightnessJudge()
    labels = judge.sees(np.asarray(store.images[:]))
    labels[0, 0] = -1
    objects = QuadrantObjects(labels, ("dark", "bright"))
    swaps = draw_swaps(np.arange(24), np.arange(24), 60, 0)
    for stubborn in (False, True):
        answers: dict[str, list[np.ndarray]] = {}
        for part, made in swap(PERFECT, store, swaps, CPU):
            judged = made._replace(I_mix=made.I_hat) if stubborn else made
            for name, found in verdicts(part, judged, objects, judge).items():
                answers.setdefault(name, []).append(found.right)
        merged = {name: np.concatenate(found) for name, found in answers.items()}
        assert len(merged["I_mix: replaced"]) > 10
        assert merged["I_mix: replaced"].mean() == stubborn
        assert (merged["I_mix: transferred"].mean() < 0.9) == stubborn
        for name in ("I_mix: kept", "pasted: transferred", "pasted: kept", "I_hat: reconstructed"):
            assert merged[name].mean() == 1
        assert not merged["pasted: replaced"].any()
    asked = sum(labels[r, q] >= 0 for r, q in zip(swaps.obj, swaps.quadrant, strict=True))
    assert len(merged["I_mix: transferred"]) == asked, "quadrants without an object are not asked of"


def test_a_judge_learns_and_says_when_it_cannot(store):
    means = Extractor(64, lambda x: x.reshape(-1, 2, 32, 2, 32, 3).mean((2, 4)).reshape(-1, 4, 3).astype(np.float32))
    labels = BrightnessJudge().sees(np.asarray(store.images[:]))
    judge = train_judge(store, QuadrantObjects(labels, ("dark", "bright")), means, np.arange(24))
    assert (judge.sees_in_store(store, np.arange(24)) == labels).mean() > 0.9
    with pytest.raises(UserError, match="fewer than two categories"):
        train_judge(store, QuadrantObjects(np.zeros_like(labels), ("one",)), means, np.arange(24))


def test_chunks_that_hold_their_own_category_only():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=(300, 4))
    codes = np.eye(3)[labels] + generator.normal(0, 0.2, (300, 4, 3))
    labels[::7, 1] = -1
    found = chunk_to_category(
        codes,
        QuadrantObjects(labels, ("a", "b", "c")),
        np.arange(300),
        Split(np.arange(150), np.arange(150, 300)),
    )
    assert found["own chunk"]["percent"] > 95
    assert found["opposite chunk"]["percent"] < 45
    assert found["majority"]["of"] == found["own chunk"]["of"] == (labels[150:] >= 0).sum()


def test_logistic_regression_is_at_its_minimum():
    generator = np.random.default_rng(1)
    x, y = generator.normal(3, 5, (80, 6)), generator.integers(3, size=80)
    found = fit_logistic(x, y, 3, penalty=0.1)
    W = torch.tensor(found.W, requires_grad=True)
    b = torch.tensor(found.b, requires_grad=True)
    z = torch.from_numpy((x - x.mean(0)) / x.std(0))
    loss = torch.nn.functional.cross_entropy(z @ W + b, torch.from_numpy(y)) + 0.05 * (W**2).sum()
    loss.backward()
    assert max(W.grad.abs().max(), b.grad.abs().max()) < 1e-5
    np.testing.assert_array_equal(found.predict(x), (z @ W + b).argmax(1).numpy())


def wilson(p: float, n: float) -> tuple[float, float]:
    z = 1.959964
    middle, reach = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return 100 * (middle - reach) / (1 + z * z / n), 100 * (middle + reach) / (1 + z * z / n)


def test_proportions():
    assert proportion(Answers(np.array([], bool), np.array([], int)))["percent"] is None
    right = np.array([True] * 8 + [False] * 2)
    found = proportion(Answers(right, np.arange(10)), resamples=20_000)
    assert found["percent"] == pytest.approx(80)
    # Ten answers on their own: the variance over n - 1 makes them worth nine.
    assert (found["low"], found["high"]) == pytest.approx(wilson(0.8, 9), abs=0.5)
    repeated = proportion(Answers(np.repeat(right, 7), np.repeat(np.arange(10), 7)), resamples=20_000)
    assert repeated == pytest.approx(found | {"of": 70}, abs=1e-6)
    alike = proportion(Answers(np.ones(30, bool), np.arange(30) // 3))
    assert (alike["low"], alike["high"]) == pytest.approx(wilson(1, 10))
    labels = np.array([[0, 1, 1, -1], [1, 0, 0, -1]])
    most = majority(labels, np.arange(2), Split(np.array([0]), np.array([1])))
    assert most["percent"] == pytest.approx(100 / 3)


@pytest.mark.parametrize("alike", [True, False])
def test_the_interval_covers_the_truth_where_answers_go_together(alike):
    """Eight answers about each couple, right with a probability that is the couple's own (or the same for all)."""
    draw = np.random.default_rng(0)
    covered, naively = [], []
    for _ in range(400):
        of_couple = draw.beta(1, 1, size=50) if alike else np.full(50, 0.5)
        right = draw.random((50, 8)) < of_couple[:, None]
        found = proportion(Answers(right.ravel(), np.repeat(np.arange(50), 8)), resamples=200)
        covered.append(found["low"] <= 50 <= found["high"])
        low, high = wilson(right.mean(), right.size)
        naively.append(low <= 50 <= high)
    assert 0.92 < np.mean(covered) < 0.98
    assert (np.mean(naively) < 0.8) == alike


def test_the_command(run, composed_store, tmp_path, monkeypatch, capsys):
    options = ["--features", "descriptor", "--pairs", "9"]
    main(["evaluate", "scenes", str(run), "--store", str(composed_store.path), *options])
    shown = " ".join(capsys.readouterr().out.split())
    assert "composed scenes, not COCO" in shown
    assert "leak" in shown
    assert len(list((run / "evaluation" / "scenes").glob("*.json"))) == 1
    main(["evaluate", "scenes", str(run), "--features", "descriptor"])
    told = capsys.readouterr().out
    assert "retrieval, transferred" in told, "it needs no annotations"
    assert "not measured: transfer accuracy, chunk invariance and chunk-to-category, for no instances_*.json" in told
    (run / "of_none.json").write_text('{"categories": [], "images": [], "annotations": []}')
    with pytest.raises(SystemExit):
        main(["evaluate", "scenes", str(run), "--annotations", str(run / "of_none.json")])
    assert "speaks of no object" in capsys.readouterr().err
    (tmp_path / "broken.json").write_text('{"images": [')
    beside = "lorbms_fast.evaluation.datasets.quadrant_objects.find_annotations"
    monkeypatch.setattr(beside, lambda folder: tmp_path / "broken.json")
    with pytest.raises(SystemExit):
        main(["evaluate", "scenes", str(run), "--features", "descriptor"])
    assert "broken.json is not JSON" in capsys.readouterr().err


def test_objects_of_one_category_are_told(run, composed_store, tmp_path, monkeypatch, capsys):
    content = json.loads(find_annotations(composed_store.root).read_text())
    content["annotations"] = [one | {"category_id": content["categories"][0]["id"]} for one in content["annotations"]]
    (tmp_path / "one.json").write_text(json.dumps(content))
    beside = "lorbms_fast.evaluation.datasets.quadrant_objects.find_annotations"
    monkeypatch.setattr(beside, lambda folder: tmp_path / "one.json")
    with pytest.raises(SystemExit):
        main(["evaluate", "scenes", str(run), "--store", str(composed_store.path), "--features", "descriptor"])
    assert "objects of fewer than two categories" in capsys.readouterr().err


def test_stores_that_cannot_be_measured_are_refused(run, photographs, tmp_path, capsys):
    store_of(photographs, tmp_path / "large", 96)
    with pytest.raises(SystemExit):
        main(["evaluate", "scenes", str(run), "--store", str(tmp_path / "large"), "--features", "descriptor"])
    assert "has images of 96 px" in capsys.readouterr().err
    with pytest.raises(UserError, match="all images are of one photograph"):
        draw_swaps(np.arange(5), np.zeros(5, np.int64), 8, seed=0)


class Perfect(torch.nn.Module):
    """`PERFECT` as a module: encodes and decodes pixels, less the quadrants in `blind`, which it takes for grey."""

    def __init__(self, blind: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(blind, dtype=torch.float32))
        self.blind = list(blind)

    def enc(self, images: Tensor) -> Tensor:
        return pixels_as_chunks(images)

    def dec(self, f: Tensor) -> Tensor:
        seen = f.clone()
        seen[:, self.blind] = 0
        return chunks_as_pixels(seen)


def test_retrieval_finds_what_was_transferred_and_kept(store, tmp_path):
    asked = {"pairs": 8, "seed": 0, "device": CPU}
    found = measure_retrieval(Perfect(), store, tmp_path, 1, **asked)
    rates = {name: (rate["percent"], rate["of"]) for name, rate in found["retrieval"].items()}
    assert rates == {"transferred": (100, 8), "kept": (100, 24), "not replaced": (0, 8)}
    assert found["chance"] == 100 / len(store)
    blind = measure_retrieval(Perfect(blind=(0, 1, 2, 3)), store, tmp_path, 2, **asked)
    assert blind["retrieval"]["transferred"]["percent"] < 50
