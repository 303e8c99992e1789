"""The training loop: batches in, updates, log, sheets and checkpoints out."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch

from lorbms_fast.dataloader.batches import Batches, BatchSource
from lorbms_fast.dataloader.readers import Resident
from lorbms_fast.devices import device_named
from lorbms_fast.engine.async_metrics import AsyncMetrics
from lorbms_fast.engine.collapse import classifier_state, collapsed, discriminator_state
from lorbms_fast.engine.cuda_graph import CapturedIteration, CudaGraphs
from lorbms_fast.engine.distributed import ALONE, World, on_its_own, synchronise_batch_norm
from lorbms_fast.engine.divergence import Guard, RolledBack
from lorbms_fast.engine.implementations import IMPLS, implementation
from lorbms_fast.engine.iteration import UPDATES, iterate
from lorbms_fast.engine.log import Log
from lorbms_fast.engine.optimizers import Optimizers
from lorbms_fast.engine.precision import Precision, chosen_precision, precision
from lorbms_fast.engine.signals import Interrupted, StopRequests, stop_requests
from lorbms_fast.engine.torch_compile import compile_regions
from lorbms_fast.errors import UserError
from lorbms_fast.kernels.spectral_norm.reference import spectral_norm, spectral_norm_through
from lorbms_fast.models import build
from lorbms_fast.progress import tqdm
from lorbms_fast.rendering.scenes import training_sheet
from lorbms_fast.run import BEGINNING, Progress, Run
from lorbms_fast.types import Batch, Networks, StepMetrics

SHEET_ROWS = 8
SHOWN = ("L_rec_hat", "L_rec_prime", "L_adv", "L_cls", "L_D")
"""Of what the log has, what the progress bar shows."""

Measure = Callable[[Networks, int], dict[str, float]]
"""Numbers about the networks after an iteration."""


@dataclass(frozen=True)
class Training:
    """A run in progress: what is trained, on what, by whom, and where it is kept."""

    run: Run
    source: Batches
    networks: Networks
    optimizers: Optimizers
    device: torch.device
    arithmetic: Precision
    world: World

    @classmethod
    def of(cls, run: Run, source: Batches, world: World = ALONE) -> "Training":
        """Networks with initial values and fresh optimizers, on the configured device."""
        config = run.config
        device = device_named(config.device)
        arithmetic = chosen_precision(config.precision, device)
        normalise = {"constant": spectral_norm, "through": spectral_norm_through}[config.optim.sn_gradient]
        networks = build(config.model, config.impl, config.seed, normalise).to(device)
        synchronised = world.size > 1 and config.batch_norm == "synchronised"
        if synchronised and "cls" in config.compile:
            raise UserError("--compile cls cannot exchange statistics: leave it or --batch-norm synchronised out")
        compile_regions(networks, config.compile)
        if synchronised:
            synchronise_batch_norm(networks.cls, world)
        optimizers = Optimizers.of(networks, config.optim, arithmetic, world.size)
        return cls(run, source, networks, optimizers, device, arithmetic, world)

    @property
    def updates(self) -> int:
        """Batches that an iteration takes in each process."""
        return UPDATES if self.run.config.optim.batches == "fresh" else 1

    def last_iteration(self, start: Progress) -> int:
        """Number of the iteration after which the run ends, for one that goes on from `start`."""
        config = self.run.config
        if config.iterations is not None:
            return config.iterations
        last = max(1, round(config.epochs * self.source.batches_per_epoch))
        left = max(0, last - self.source.batch_number(start.images))
        return start.iteration + math.ceil(left / (self.updates * self.world.size))

    def train(self, start: Progress = BEGINNING, measure: Measure | None = None) -> None:
        """Train from `start` to the end of the run.

        Args:
            start: where the networks are.
            measure: is called in the first process after every `evaluation.epochs` epochs, and its numbers are logged.

        Raises:
            Interrupted: SIGINT or SIGTERM came; a checkpoint of the last finished iteration was written before.
            UserError: another process of the run is gone.
        """
        self.networks.train()
        with stop_requests() as stop:
            while True:
                try:
                    replace(self, source=self.source.going_on(start.images))._train(start, stop, measure)
                    return
                except RolledBack as back:
                    start = back.start

    def _train(
        self,
        start: Progress,
        stop: StopRequests,
        measure: Measure | None,
    ) -> None:
        """Train from `start` to the end of the run, or until it is to go back."""
        config = self.run.config
        last = self.last_iteration(start)
        step = self._step()
        guard = Guard(self.run, self.source, self.networks, self.optimizers, self.world, self.updates * self.world.size)
        guard.begin(start)
        readings = AsyncMetrics()
        with (
            Log(self.run.folder, start.iteration) if self.world.first else nullcontext() as log,
            tqdm(
                total=last,
                initial=start.iteration,
                unit="it",
                desc="training",
                smoothing=0.05,
                disable=not self.world.first,
            ) as bar,
        ):
            for iteration in range(start.iteration, last):
                progress, after = self._after(start, iteration), self._after(start, iteration + 1)
                report = step(progress)
                guard.note(progress)
                done = after.iteration
                bar.update()
                logging, sheet_due = done % config.log_every == 0, done % config.sheet_every == 0 or done == last
                due = self._period(after) > self._period(progress)
                saving = done % config.checkpoint_every == 0 or done == last or (due and measure is not None)
                stopping, gone = False, self.source.gone() if logging else None
                if self._looking_is_free or logging or saving or due:
                    stopping = self.world.any(stop.came or gone is not None)
                    guard.look(left=0 if sheet_due or saving or stopping else 1)
                if log is not None:
                    if logging:
                        readings.send(done, report.stacked())
                    for read, values in readings.arrived(left=0 if sheet_due or saving or stopping else 1):
                        numbers = dict(zip(StepMetrics.names(), values, strict=True))
                        log.write(read, numbers)
                        bar.set_postfix({name: f"{numbers[name]:.3f}" for name in SHOWN}, refresh=False)
                    if sheet_due or done == 1:
                        self._look(log, done, sheet=sheet_due)
                    if saving or stopping:
                        self._keep(log, after)
                    if measure is not None and due and not stopping:
                        with stop.at_once(done):  # takes minutes, and everything is on disk
                            log.board(done, measure(self.networks, done))
                if stopping and done < last:
                    if gone is not None:
                        raise UserError(
                            f"{gone} is gone or was cut short while the run read it; iteration {done} is saved: put it "
                            f"back, then  lorbms-fast train --resume {self.run.folder}"
                        )
                    raise Interrupted(done)

    def _after(self, start: Progress, iteration: int) -> Progress:
        """Where a run that goes on from `start` is after `iteration` iterations."""
        batches = (iteration - start.iteration) * self.updates * self.world.size
        return start._replace(iteration=iteration, images=self.source.images_after(start.images, batches))

    @property
    def _looking_is_free(self) -> bool:
        """Numbers can be read at any time: a GPU would have to finish first."""
        return self.device.type == "cpu"

    def _period(self, progress: Progress) -> int:
        """How often the networks were to be measured until then."""
        return progress.images // (len(self.source.store) * self.run.config.evaluation.epochs)

    def numbers(self, progress: Progress) -> range:
        """Numbers of the batches that this process takes next: processes take turns."""
        first, step = self.source.batch_number(progress.images) + self.world.rank, self.world.size
        return range(first, first + self.updates * step, step)

    def _step(self) -> Callable[[Progress], StepMetrics]:
        """What does an iteration: one CUDA graph where there can be, else operation after operation."""
        config, source, on_gpu = self.run.config, self.source, self.device.type == "cuda"
        read, fast = source.read, implementation(config.model, config.impl) is IMPLS["fast"]
        possible = fast and isinstance(read, Resident) and isinstance(source, BatchSource)
        if config.graphs == "on" and not possible:
            raise UserError(
                "--graphs on needs --images resident and --impl fast, and to mix and classify as the thesis"
            )
        if not possible or config.graphs == "off" or (config.graphs == "auto" and not on_gpu):
            return self._iterate
        assert isinstance(read, Resident)
        assert isinstance(source, BatchSource)
        captured = CapturedIteration(
            self.networks,
            self.optimizers,
            read.images,
            source.drawing(self.device),
            config.batch_size,
            self.updates,
            config.loss,
            config.optim,
            self.arithmetic,
            CudaGraphs(self.device) if on_gpu else None,
        )
        return lambda progress: captured(progress.iteration, self.numbers(progress))

    def _iterate(self, progress: Progress) -> StepMetrics:
        config = self.run.config
        impl = implementation(config.model, config.impl)
        self.optimizers.set_rates(config.optim, progress.iteration)
        with self._precision():
            batches = [self._batch(number) for number in self.numbers(progress)]
        return iterate(impl, self.networks, self.optimizers, batches, config.loss, config.optim, self.arithmetic)

    def _batch(self, number: int) -> Batch:
        return self.source.complete(self.source.batch(number).to(self.device), self.networks.enc)

    def _precision(self) -> AbstractContextManager[None]:
        return precision(self.device, self.arithmetic)

    def _keep(self, log: Log, progress: Progress) -> None:
        """Write a checkpoint, and beside it how well the iterations since about the last one reconstructed."""
        log.keep()
        config = self.run.config
        since = progress.iteration - max(config.checkpoint_every, config.log_every)
        self.run.save(progress, self.networks, self.optimizers, log.mean("L_rec_hat", since))

    @torch.no_grad()
    def _look(self, log: Log, iteration: int, sheet: bool) -> None:
        """Note whether classifier and discriminator tell samples apart, and keep a sheet of them."""
        config = self.run.config
        impl = implementation(config.model, config.impl)
        with self._precision(), on_its_own(self.networks.cls):
            batch = self._batch(0).first(SHEET_ROWS)
            scenes = impl.scenes(self.networks, batch)
            states = {
                "classifier": classifier_state(self.networks, impl, scenes.I_mix, batch),
                "discriminator": discriminator_state(self.networks, batch.I_ref, scenes.I_mix),
            }
        if sheet:
            log.sheet(iteration, training_sheet(batch, scenes))
        log.board(iteration, {f"{who}/{name}": value for who, state in states.items() for name, value in state.items()})
        for message in collapsed(iteration, states):
            tqdm.write(message)
