"""Multinomial logistic regression: the linear classifiers by which scenes and chunks are judged."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

PENALTY = 0.05
STEPS = 200


@dataclass(frozen=True)
class Logistic:
    """Linear classifier `argmax_c ((x - mean) / std) W + b`."""

    W: NDArray[np.float64]
    b: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    def predict(self, features: NDArray[np.floating]) -> NDArray[np.int64]:
        """Predict class numbers (N,) from features (N, D)."""
        return (((features - self.mean) / self.std) @ self.W + self.b).argmax(1)


def fit_logistic(
    features: NDArray[np.floating], labels: NDArray[np.int64], classes: int, penalty: float = PENALTY
) -> Logistic:
    """Minimize mean softmax cross entropy + penalty / 2 |W|^2 on standardized features (N, D), labels (N,) from 0.

    >>> x, y = np.array([[0.0], [1], [9], [10]]), np.array([0, 0, 1, 1])
    >>> fit_logistic(x, y, classes=2).predict(np.array([[2.0], [8]]))
    array([0, 1])
    """
    x = np.asarray(features, np.float64)
    mean, std = x.mean(0), x.std(0)
    std = np.where(std > 1e-9, std, 1.0)
    inputs, targets = torch.from_numpy((x - mean) / std), torch.from_numpy(labels)
    W = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    b = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([W, b], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(inputs @ W + b, targets) + penalty / 2 * W.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return Logistic(W.detach().numpy(), b.detach().numpy(), mean, std)
