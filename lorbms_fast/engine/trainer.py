"""The training loop: batches in, updates, log, sheets and checkpoints out."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch
from PIL import Image
from tqdm import tqdm

from lorbms_fast.checkpoint import Run
from lorbms_fast.dataloader.batches import Batch, Batches
from lorbms_fast.devices import device_named
from lorbms_fast.engine.collapse import COLLAPSED, classifier_state
from lorbms_fast.engine.forms import form_of
from lorbms_fast.engine.log import Log
from lorbms_fast.engine.optimizers import Optimizers
from lorbms_fast.engine.precision import precision
from lorbms_fast.kernels.spectral_norm.definition import spectral_norm, spectral_norm_through
from lorbms_fast.models import Networks, build
from lorbms_fast.rendering.scenes import training_sheet

SHEET_ROWS = 8
UPDATES = 4


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; everything up to `iteration` is on disk."""

    def __init__(self, iteration: int) -> None:
        super().__init__(iteration)
        self.iteration = iteration


@dataclass(frozen=True)
class Training:
    """A run in progress: what is trained, on what, and where it is kept."""

    run: Run
    source: Batches
    networks: Networks
    optimizers: Optimizers
    device: torch.device

    @classmethod
    def of(cls, run: Run, source: Batches) -> "Training":
        """Networks with initial values and fresh optimizers, on the configured device."""
        config = run.config
        device = device_named(config.device)
        normalise = {"constant": spectral_norm, "through": spectral_norm_through}[config.optim.sn_gradient]
        networks = build(config.model, config.impl, config.seed, normalise).to(device)
        return cls(run, source, networks, Optimizers.of(networks, config.optim), device)

    @property
    def iterations(self) -> int:
        """Length of the whole run."""
        config = self.run.config
        if config.iterations is not None:
            return config.iterations
        per_iteration = UPDATES if config.optim.batches == "fresh" else 1
        return max(1, round(config.epochs * self.source.batches_per_epoch / per_iteration))

    def train(self, start: int = 0) -> None:
        """Train from iteration `start` to the end of the run.

        Raises:
            Interrupted: SIGINT or SIGTERM came; a checkpoint of the last finished iteration was written before.
        """
        config = self.run.config
        form = form_of(config.model, config.impl)
        self.networks.train()
        with (
            Log(self.run.folder, start) as log,
            _stop_requests() as stop,
            tqdm(total=self.iterations, initial=start, unit="it", desc="training", smoothing=0.05) as bar,
        ):
            for iteration in range(start, self.iterations):
                self.optimizers.set_rates(config.optim, iteration)
                with self._precision():
                    report = form.iterate(self.networks, self.optimizers, self._batches(iteration), config.loss)
                form.advance_u(self.networks, config.optim)
                done = iteration + 1
                bar.update()
                if done % config.log_every == 0:
                    numbers = report.numbers()
                    log.write(done, numbers)
                    shown = ("L_rec_hat", "L_rec_prime", "L_adv", "L_cls", "L_D")
                    bar.set_postfix({name: f"{numbers[name]:.3f}" for name in shown}, refresh=False)
                if done % config.sheet_every == 0 or done == self.iterations:
                    sheet, classifier = self._look()
                    log.sheet(done, sheet)
                    log.classifier(done, classifier)
                    if classifier["spread"] < COLLAPSED:
                        bar.write(
                            f"iteration {done:,}: the classifier gives all samples the same answer "
                            f"(spread {classifier['spread']:.4f}): it has collapsed, or not begun to learn"
                        )
                if done % config.checkpoint_every == 0 or done == self.iterations or stop:
                    self.run.save(done, self.networks, self.optimizers)
                if stop and done < self.iterations:
                    raise Interrupted(done)

    def _batches(self, iteration: int) -> list[Batch]:
        if self.run.config.optim.batches == "fresh":
            return [self.source.batch(UPDATES * iteration + k).to(self.device) for k in range(UPDATES)]
        return [self.source.batch(iteration).to(self.device)] * UPDATES

    def _precision(self) -> torch.autocast:
        return precision(self.device, self.run.config.precision)

    @torch.no_grad()
    def _look(self) -> tuple[Image.Image, dict[str, float]]:
        """A sheet of samples, and whether the classifier tells them apart."""
        config = self.run.config
        batch = self.source.batch(0).first(SHEET_ROWS).to(self.device)
        form = form_of(config.model, config.impl)
        with self._precision():
            scenes = form.scenes(self.networks, batch)
            classifier = classifier_state(self.networks, form, scenes.I_mix, batch)
        return training_sheet(batch, scenes), classifier


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying at once; a second one of either acts as usual."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for watched, handler in usual.items():
            signal.signal(watched, handler)

    usual = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
