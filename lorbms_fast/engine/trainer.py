"""The training loop: batches in, updates, log, sheets and checkpoints out."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from PIL import Image

from lorbms_fast.config import Precision
from lorbms_fast.dataloader.batches import BatchSource, NeighbourBatches
from lorbms_fast.dataloader.readers import ResidentReader
from lorbms_fast.devices import device_named
from lorbms_fast.engine import divergence
from lorbms_fast.engine.collapse import collapsed
from lorbms_fast.engine.cuda_graph import CapturedIteration, CudaGraphs
from lorbms_fast.engine.distributed import ALONE, World, average, on_its_own, synchronize_batch_norm
from lorbms_fast.engine.divergence import NonFiniteMonitor, RolledBack
from lorbms_fast.engine.first_use import Found, choose_forms, tried
from lorbms_fast.engine.implementations import IMPLS, implementation
from lorbms_fast.engine.iteration import IterationImpl, batches_of, iterate
from lorbms_fast.engine.log import Log
from lorbms_fast.engine.precision import chosen_precision, precision
from lorbms_fast.engine.samples import Shown, reconstruction_levels, states_of
from lorbms_fast.engine.signals import Interrupted, StopRequests, stop_requests
from lorbms_fast.engine.torch_compile import compile_regions
from lorbms_fast.errors import UserError, as_word
from lorbms_fast.kernels._common import dispatch
from lorbms_fast.kernels.spectral_norm.reference import spectral_norm, spectral_norm_through
from lorbms_fast.models import build
from lorbms_fast.optimizers import Optimizers, undone
from lorbms_fast.progress import tqdm
from lorbms_fast.run import BEGINNING, Progress, Run
from lorbms_fast.types import Batch, Networks, Scenes, StepMetrics

SHEET_ROWS = 8
"""Number of samples in a sheet, which are also those that classifier and discriminator are judged on."""

Draw = Callable[[Batch, Scenes], Image.Image]
"""Function that draws samples and the scenes that the networks make of them."""
Measure = Callable[[Networks, int], dict[str, float]]
"""Function that measures the networks after an iteration."""


def is_due(every: int, done: int, last: int | None = None) -> bool:
    """Tell whether what happens after every so many iterations, and after the last, is due after iteration `done`.

    >>> [done for done in range(1, 8) if is_due(3, done, last=7)]
    [3, 6, 7]
    """
    return done % every == 0 or done == last


def what_is_left(done: int, last: int) -> str:
    """Name the command for what a run that ends early after iteration `done` leaves out: after the last, its scenes."""
    return "train --resume" if done < last else "evaluate generation"  # a resumed run would have nothing to do


class Due(NamedTuple):
    """Work that is due after an iteration."""

    log: bool
    """Log its metrics."""
    question: bool
    """Look for what was not finite; the answer is every process's."""
    look: bool
    """Judge classifier and discriminator on samples."""
    sheet: bool
    """Draw these samples."""
    save: bool
    """Write a checkpoint."""
    measure: bool
    """Measure mixed scenes."""
    leave: Exception | Interrupted | None
    """Reason to end the run here, if there is one."""

    @property
    def left(self) -> int:
        """Number of iterations whose metrics may still be on their way from the device."""
        return 0 if self.sheet or self.save else 1


@dataclass(frozen=True)
class Training:
    """A run in progress: what is trained, on what, by whom, and where it is kept."""

    run: Run
    source: BatchSource
    networks: Networks
    optimizers: Optimizers
    device: torch.device
    arithmetic: Precision
    world: World

    @classmethod
    def of(cls, run: Run, source: BatchSource, world: World = ALONE) -> "Training":
        """Build networks with initial values and fresh optimizers, on the configured device."""
        config = run.config
        device = device_named(config.device)
        arithmetic = chosen_precision(config.precision, device)
        normalize = {"constant": spectral_norm, "through": spectral_norm_through}[config.optim.sn_gradient]
        networks = build(config.model, config.impl, config.seed, normalize).to(device)
        synchronized = world.size > 1 and config.batch_norm == "synchronized"
        if synchronized and "cls" in config.compile:
            raise UserError("--compile cls cannot exchange statistics: leave it or --batch-norm synchronized out")
        compile_regions(networks, config.compile)
        if synchronized:
            synchronize_batch_norm(networks.cls, world)
        averaging = partial(average, processes=world.size) if world.size > 1 else None
        optimizers = Optimizers.of(networks, config.optim, arithmetic, averaging)
        return cls(run, source, networks, optimizers, device, arithmetic, world)

    @property
    def batches(self) -> int:
        """Number of batches that an iteration takes in all processes together."""
        return batches_of(self.run.config) * self.world.size

    def last_iteration(self, start: Progress) -> int:
        """Compute the iteration after which the run ends, for one that goes on from `start`."""
        config = self.run.config
        if config.iterations is not None:
            return config.iterations
        last = max(1, round(config.epochs * self.source.batches_per_epoch))
        left = max(0, last - self.source.batch_number(start.images))
        return start.iteration + math.ceil(left / self.batches)

    def train(self, start: Progress = BEGINNING, draw: Draw | None = None, measure: Measure | None = None) -> None:
        """Train from `start`, where the networks are, to the end of the run.

        Sample sheets are drawn and kept by `draw`; `measure` is called in the first process after every
        `evaluation.epochs` epochs, and its numbers are logged.

        Raises:
            Interrupted: SIGINT, SIGTERM or SIGHUP came; a checkpoint of the last finished iteration was written before.
            UserError: another process of the run is gone.
        """
        self.networks.train()
        with stop_requests() as stop:
            while True:
                try:
                    replace(self, source=self.source.going_on(start.images))._train(start, stop, draw, measure)
                    return
                except RolledBack as back:
                    start = back.start

    def _train(self, start: Progress, stop: StopRequests, draw: Draw | None, measure: Measure | None) -> None:
        """Train from `start` to the end of the run, or until it is to go back."""
        last = self.last_iteration(start)
        measured = self.world.any(measure is not None)  # by the first process; the others must save and end as it does
        step = self._step()
        watch = NonFiniteMonitor(self.optimizers, self.run.config.log_every)
        divergence.begin(self, start)
        drawn: Shown | None = None
        with Log(self.run.folder, start.iteration, last, self.world.first) as log:
            if measure is not None and start.ends_pass:  # what an interruption left out; else it is looked up
                self._measure(log, start.iteration, stop, measure)
            now = start
            for done in range(start.iteration + 1, last + 1):
                before, now = now, self._after(start, done)
                metrics = step(before)
                due = self._due(now, last, stop, measured)
                log.note(done, metrics, due.log)
                watch.note(before)
                if due.question:
                    divergence.answer(self, watch.read(self.world, due.left))
                log.read(due.left)
                try:
                    log.tell_duration(done)
                    if due.look:
                        drawn = self._look(log, done, draw if due.sheet else None, done == last, drawn)
                except (OSError, UserError):  # nobody hears what a run says, or it cannot draw: it loses nothing
                    if due.question or self.world.size == 1:  # several processes look together only
                        divergence.answer(self, watch.read(self.world))
                        log.read(0)
                        self._keep(log, now)
                    raise
                if due.save:
                    self._keep(log, now)
                if due.leave is not None and (done < last or due.measure):  # else there is nothing left to do
                    raise due.leave
                if due.measure and measure is not None:
                    self._measure(log, done, stop, measure)

    def _measure(self, log: Log, iteration: int, stop: StopRequests, measure: Measure) -> None:
        with stop.at_once(iteration):  # takes minutes, and everything is on disk
            log.board(iteration, measure(self.networks, iteration))

    def _due(self, now: Progress, last: int, stop: StopRequests, measured: bool) -> Due:
        """Find out what is due after an iteration; where several processes ask, all must."""
        config, done = self.run.config, now.iteration
        log = is_due(config.log_every, done)
        sheet, save = (is_due(every, done, last) for every in (config.sheet_every, config.checkpoint_every))
        question = self._looking_is_free or log or save or now.ends_pass
        leave = self._leaving(done, last, stop, log) if question else None
        measure = now.ends_pass and measured
        return Due(log, question, sheet or done == 1, sheet, save or measure or leave is not None, measure, leave)

    def _leaving(self, done: int, last: int, stop: StopRequests, look_at_files: bool) -> Exception | Interrupted | None:
        """Find the reason to end the run after so many iterations, in any process, or None. Every one must ask."""
        gone = self.source.gone() if look_at_files else None
        if not self.world.any(stop.came or gone is not None):
            return None
        if gone is None:
            return Interrupted(done)
        return UserError(
            f"{gone} is gone or was cut short while the run read it; iteration {done} is saved: put it back, then  "
            f"lorbms-fast {what_is_left(done, last)} {as_word(self.run.folder)}"
        )

    def _after(self, start: Progress, iteration: int) -> Progress:
        """Compute the progress after `iteration` iterations of a run that goes on from `start`."""
        if iteration == start.iteration:
            return start
        ended = iteration - start.iteration
        before, images = (self.source.images_after(start.images, n * self.batches) for n in (ended - 1, ended))
        return Progress(iteration, images, start.rollbacks, self._passes(images) > self._passes(before))

    @property
    def _looking_is_free(self) -> bool:
        """Tell whether numbers can be read at any time: a GPU would have to finish first."""
        return self.device.type == "cpu"

    def _passes(self, images: int) -> int:
        """Count the periods of `evaluation.epochs` passes that were finished after so many images."""
        return images // (len(self.source.store) * self.run.config.evaluation.epochs)

    def numbers(self, progress: Progress) -> range:
        """List the batches that this process takes next: processes take turns."""
        first = self.source.batch_number(progress.images) + self.world.rank
        return range(first, first + self.batches, self.world.size)

    def choose_forms(self, start: Progress, retune: bool = False) -> Found | None:
        """Give each operation of this run a form, where kernels of ours run; parameters stay as they are.

        `retune` tries again what was tried before. Raises UserError if the settings ask for kernels alone, and some
        operation has none that is right.
        """
        config = self.run.config
        forms = tried(config.kernels, self.device, config.impl)
        if forms is None:
            if dispatch.INTERPRETED and self.device.type == "cuda" and self.world.first:
                tqdm.write("TRITON_INTERPRET is set: no kernel of ours runs on the GPU; unset it")
            return None
        self.networks.train()
        works: list[Callable[[], object]]
        if (fixed := self._on_fixed_memory()) is not None:
            works, without_trace = [partial(fixed.rehearse, size) for size in fixed.sizes], fixed.undone()
        else:
            works, without_trace = [partial(self._iterate, start)], undone(self.networks, self.optimizers)
        with without_trace:
            return choose_forms(works, self.device, forms, retune, self.world)

    def _step(self) -> Callable[[Progress], StepMetrics]:
        """Choose how an iteration is run: as one CUDA graph where there can be, else operation after operation."""
        graphs, on_gpu = self.run.config.graphs, self.device.type == "cuda"
        if graphs == "off" or (graphs == "auto" and not on_gpu):
            return self._iterate
        captured = self._on_fixed_memory()
        if captured is None and graphs == "on":
            raise UserError(
                "--graphs on needs --images resident and --impl fast, and to mix and classify as the thesis"
            )
        if captured is None:
            return self._iterate
        captured.recorder = CudaGraphs(self.device) if on_gpu else None
        return lambda progress: captured(progress.iteration, self.numbers(progress))

    def _on_fixed_memory(self) -> CapturedIteration | None:
        """Make the iteration on fixed memory, not recorded yet; None where it cannot be, as a graph could not."""
        config, source = self.run.config, self.source
        if self._impl is not IMPLS["fast"] or not isinstance(source, NeighbourBatches):
            return None
        if not isinstance(source.read, ResidentReader):
            return None
        on_device = source.read.images, source.drawing(self.device)
        parts = self.networks, self.optimizers, *on_device, config, self.arithmetic
        return CapturedIteration(*parts, None, self.world)

    @property
    def _impl(self) -> IterationImpl:
        return implementation(self.run.config.model, self.run.config.impl)

    def _iterate(self, progress: Progress) -> StepMetrics:
        config = self.run.config
        self.optimizers.set_rates(config.optim, progress.iteration)
        with precision(self.device, self.arithmetic):
            batches = [self._batch(number) for number in self.numbers(progress)]
        return iterate(self._impl, self.networks, self.optimizers, batches, config.loss, config.optim, self.arithmetic)

    def _batch(self, number: int) -> Batch:
        return self.source.complete(self.source.batch(number).to(self.device), self.networks.enc)

    def _keep(self, log: Log, progress: Progress) -> None:
        """Write a checkpoint, and beside it how well the iterations since about the last one reconstructed."""
        if not self.world.first:
            return
        config = self.run.config
        since = progress.iteration - max(config.checkpoint_every, config.log_every)
        self.run.save(progress, self.networks, self.optimizers, log.kept_mean("L_rec_hat", since))

    @torch.no_grad()
    def _look(self, log: Log, iteration: int, draw: Draw | None, ended: bool, before: Shown | None) -> Shown | None:
        """Note on samples how well networks reconstruct and whether they tell them apart, and draw a sheet of them.

        `before` is what the last sheet showed; returns what the last one shows now.
        """
        if not self.world.first:
            return None
        with precision(self.device, self.arithmetic), on_its_own(self.networks.cls):
            batch = self._batch(0).first(SHEET_ROWS)
            scenes = self._impl.scenes(self.networks, batch)
            states = states_of(self.networks, self._impl, batch, scenes)
        shown = Shown(states, reconstruction_levels(batch, scenes))
        if draw is not None:
            log.sheet(iteration, draw(batch, scenes))
        log.board(iteration, shown.numbers())
        if draw is not None:
            tqdm.write(f"iteration {iteration:,}: {shown.learned()}")
        for message in collapsed(iteration, states):
            tqdm.write(message)
        if draw is None and not ended:
            return before
        if (warning := shown.warning(self.run.config.optim.betas, before, ended)) is not None:
            tqdm.write(warning)
        return shown
