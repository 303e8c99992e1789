"""Ten linear problems in one give what ten by themselves give."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.draws import generator
from lorbms_fast.evaluation.probe import (
    ProbeConfig,
    accuracies,
    initial_classifier,
    train_folds,
)

N, D, CLASSES = 60, 12, 4
CPU = torch.device("cpu")


@pytest.fixture
def problem() -> tuple[Tensor, Tensor, dict[int, np.ndarray]]:
    """Three views of pictures whose class shows in their features, and five folds of 21."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % CLASSES
    centres = torch.randn(CLASSES, D, generator=draw)
    views = centres[labels] + torch.randn(3, N, D, generator=draw)
    order = np.random.default_rng(2)
    return views, labels, {fold: order.permutation(N)[:21] for fold in range(5)}


def test_all_folds_at_once_equal_one_by_one(problem):
    views, labels, folds = problem
    config = ProbeConfig(epochs=30, batch_size=8, lr=1e-2)
    W, b = train_folds(lambda epoch: views[epoch % 3], labels, folds, CLASSES, config, CPU)
    for i, fold in enumerate(folds):
        one = train_folds(lambda epoch: views[epoch % 3], labels, {fold: folds[fold]}, CLASSES, config, CPU)
        torch.testing.assert_close(one[0][0], W[i])
        torch.testing.assert_close(one[1][0], b[i])
        assert accuracies(*one, views[0], labels) == [accuracies(W, b, views[0], labels)[i]]
    assert len({tuple(w.flatten().tolist()) for w in W}) == 5, "folds see other pictures"


def test_a_fold_is_a_plain_softmax_classifier_under_adam(problem):
    """The definition: torch's own linear layer, cross entropy and Adam, batch after batch."""
    views, labels, folds = problem
    config = ProbeConfig(epochs=7, batch_size=8, lr=1e-2, seed=5)
    W, b = train_folds(lambda epoch: views[epoch % 3], labels, folds, CLASSES, config, CPU)
    layer = torch.nn.Linear(D, CLASSES)
    weights, biases = initial_classifier(D, CLASSES, seed=5, fold=2)
    layer.load_state_dict({"weight": weights.T, "bias": biases})
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    for epoch in range(7):
        rows = folds[2][generator(5, 2, epoch).permutation(21)]
        for start in (0, 8, 16):
            batch = torch.from_numpy(rows[start : start + 8])
            optimizer.zero_grad()
            F.cross_entropy(layer(views[epoch % 3][batch]), labels[batch]).backward()
            optimizer.step()
    torch.testing.assert_close(W[2], layer.weight.T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(b[2, 0], layer.bias, rtol=1e-4, atol=1e-5)


def test_what_can_be_learned_is_learned(problem):
    views, labels, folds = problem
    W, b = train_folds(lambda _: views[0], labels, folds, CLASSES, ProbeConfig(epochs=100, lr=1e-2), CPU)
    assert min(accuracies(W, b, views[1], labels)) > 70
    shuffled = labels[torch.randperm(N, generator=torch.Generator().manual_seed(1))]
    assert np.mean(accuracies(W, b, views[1], shuffled)) < 50


def test_initial_values():
    weights, biases = initial_classifier(2000, 10, seed=0, fold=3)
    assert weights.std().item() == pytest.approx(0.02, rel=0.03)
    assert weights.mean().item() == pytest.approx(0, abs=1e-3)
    assert (biases == 0.02).all()
    assert not torch.equal(weights, initial_classifier(2000, 10, seed=0, fold=4)[0])


def test_accuracy_counts():
    W, b = torch.eye(3)[None], torch.zeros(1, 1, 3)
    assert accuracies(W, b, torch.eye(3), torch.tensor([0, 1, 0])) == [pytest.approx(200 / 3)]
