"""Losses and gradients that are not finite: found, written down, and answered as `--on-divergence` says.

Whatever the answer, Adam takes no step with such a gradient, so parameters and moments stay finite. It counts the
losses and gradients that were not on the device (`Adam.flawed`). On a CPU the counts are read after every iteration. A
GPU collects them and sends them off at the log's entries, to be read at the next, so that the host does not wait;
before a checkpoint it does: none is written of a state that was not looked at.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from lorbms_fast import checkpoint
from lorbms_fast.atomic_io import atomic_folder, write_json
from lorbms_fast.engine.async_metrics import AsyncMetrics
from lorbms_fast.engine.distributed import World
from lorbms_fast.errors import UserError, as_word
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.progress import tqdm
from lorbms_fast.run import Progress, Run

if TYPE_CHECKING:
    from lorbms_fast.engine.trainer import Training

FACTOR = 0.5
"""Learning-rate factor per rollback."""
ROLLBACKS = 3
"""Max. rollbacks of a run."""


@dataclass(frozen=True)
class NonFinite:
    """An iteration in which something was not finite."""

    before: Progress
    what: list[str]
    """Its losses and gradients that were not, such as "loss of the generator"."""


class RolledBack(Exception):
    """A request to go on from an earlier checkpoint, which networks and optimizers hold already."""

    def __init__(self, start: Progress) -> None:
        super().__init__(start)
        self.start = start


class NonFiniteMonitor:
    """A buffer of the optimizers' notes of at most so many iterations, that does not wait for the device."""

    def __init__(self, optimizers: Optimizers, most: int) -> None:
        self._optimizers = vars(optimizers)
        device = optimizers.generator.t.device
        self._notes = torch.zeros((most, len(self._optimizers), 2), device=device)
        self._before: list[Progress] = []
        self._under_way = AsyncMetrics[list[Progress]]()

    def note(self, before: Progress) -> None:
        """Copy the notes of the iteration that began at `before`."""
        flawed = [optimizer.flawed for optimizer in self._optimizers.values()]
        torch.stack(flawed, out=self._notes[len(self._before)])
        torch._foreach_zero_(flawed)
        self._before.append(before)

    def read(self, world: World, left: int = 0) -> list[NonFinite]:
        """Return the flaws that are known by now, each once, in any process; every one must ask.

        Notes of `left` times may stay on their way from the device; several processes wait for everything.
        """
        if self._before:
            self._under_way.send(self._before, self._notes[: len(self._before)])
            self._before = []
        flaws = []
        for before, notes in self._under_way.arrived(left if world.size == 1 else 0):
            if world.size > 1:
                notes = world.largest(torch.tensor(notes)).tolist()
            for iteration, note in zip(before, notes, strict=True):
                found = (
                    f"{kind} of the {name}"
                    for name, counts in zip(self._optimizers, note, strict=True)
                    for kind, count in zip(("loss", "gradient"), counts, strict=True)
                    if count
                )
                if what := list(found):
                    flaws.append(NonFinite(iteration, what))
        return flaws


def begin(training: "Training", start: Progress) -> None:
    """Lower the learning rates as often as the run went back; one that may go back has a checkpoint to go to."""
    run, world = training.run, training.world
    for optimizer in vars(training.optimizers).values():
        optimizer.factor.fill_(FACTOR**start.rollbacks)
    if run.config.on_divergence == "rollback" and not run.checkpoints():
        world.wait()  # until all have looked
        if world.first:
            run.save(start, training.networks, training.optimizers)
        world.wait()


def answer(training: "Training", flaws: list[NonFinite]) -> None:
    """Answer flaws, if there are any; in all processes after the same iterations.

    Raises:
        UserError: the run is to stop, or going back did not help.
        RolledBack: the run is to go on from there.
    """
    if not flaws:
        return
    first, run = flaws[0], training.run
    place = run.folder / "divergence" / f"{first.before.iteration + 1:08d}"
    are = "is" if len(first.what) == 1 else "are"
    said = f"iteration {first.before.iteration + 1:,}: the {' and the '.join(first.what)} {are} not finite"
    if training.world.first:
        _write_down(training, flaws, place)
    if run.config.on_divergence == "stop":
        raise _stopped(run, said, place, "--on-divergence rollback, or lower rates")
    _roll_back(training, said, place)


def _stopped(run: Run, said: str, place: Path, remedy: str) -> UserError:
    return UserError(
        f"{said}; the images and the state are in {place}: go on from the last checkpoint with  lorbms-fast train "
        f"--resume {as_word(run.folder)}  and {remedy}: --optim.generator-lr and the like"
    )


def _roll_back(training: "Training", said: str, place: Path) -> NoReturn:
    run = training.run
    path = run.latest()
    kept = run.restore(training.networks, training.optimizers)
    start = kept._replace(rollbacks=kept.rollbacks + 1)
    if start.rollbacks > ROLLBACKS:
        raise _stopped(run, f"{said}, though the run went back {ROLLBACKS} times already", place, "lower rates")
    training.world.wait()  # until all have read it
    if training.world.first:
        checkpoint.seal(path, checkpoint.facts_of(path) | start._asdict())
        tqdm.write(
            f"{said}: back to iteration {start.iteration:,}, learning rates times {FACTOR**start.rollbacks:g}; "
            f"its images are in {place}"
        )
    raise RolledBack(start)


def _write_down(training: "Training", flaws: list[NonFinite], place: Path) -> None:
    """Write down what was not finite, the images it came from, and the networks' present state."""
    if place.exists():  # the run came this way before
        return
    run, networks, optimizers = training.run, training.networks, training.optimizers
    facts = {
        "iterations": [
            {"iteration": flaw.before.iteration + 1, "not_finite": flaw.what, "images": _images(training, flaw)}
            for flaw in flaws
        ],
        "not_finite_in_the_state": [
            name for name, tensor in networks.state_dict().items() if not tensor.isfinite().all()
        ],
        "learning_rates": {
            name: (optimizer.factor * optimizer.param_groups[0]["lr"]).item()
            for name, optimizer in vars(optimizers).items()
        },
        "begin_again_from": max((path.name for path in run.checkpoints()), default=None),
    }
    with atomic_folder(place) as partial:
        write_json(partial / "divergence.json", facts)
        noticed = {"iteration": flaws[-1].before.iteration + 1, "model": asdict(run.config.model)}
        checkpoint.write(partial, networks, optimizers, noticed)


def _images(training: "Training", flaw: NonFinite) -> list[dict[str, Any]]:
    """Name the images of an iteration, batch by batch."""
    source, found = training.source, []
    names, first = source.store.index["id"], source.batch_number(flaw.before.images)
    for number in range(first, first + training.batches):
        kinds = source.involved(number).tolist()
        reference, *candidates = ([names[row].as_py() for row in kind] for kind in kinds)
        found.append({"batch": number, "reference": reference, "candidates": candidates})
    return found
