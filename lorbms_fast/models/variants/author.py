"""What the author's program does otherwise than the thesis says."""

from dataclasses import replace

from lorbms_fast.config import TrainConfig


def settings(config: TrainConfig) -> TrainConfig:
    """A quarter for each lambda_j, one rank for all quadrants, a fresh batch for each update, u's own schedule."""
    return replace(
        config,
        loss=replace(config.loss, lambdas=(0.25, 0.25, 0.25, 0.25)),
        mixing=replace(config.mixing, candidates="shared-rank"),
        optim=replace(config.optim, sn_power_iterations=(9, 2), sn_gradient="through", batches="fresh"),
    )
