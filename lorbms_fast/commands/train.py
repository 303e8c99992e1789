"""`lorbms-fast train`: train LORBMS on a store."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from lorbms_fast.commands.options import flowing
from lorbms_fast.config import TrainConfig, preset_named, read_config
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.differences import differences
from lorbms_fast.engine.distributed import World, joined, restarted
from lorbms_fast.errors import UserError
from lorbms_fast.models.variants import with_variant
from lorbms_fast.run import Run
from lorbms_fast.training.session import run_training


@dataclass(frozen=True)
class Beginning:
    """The options that decide which settings the others change."""

    preset: str | None = None
    variant: str | None = None
    config: Path | None = None
    resume: Path | None = None
    epochs: str | None = None
    iterations: str | None = None


def for_arguments(arguments: Sequence[str]) -> Callable[..., None]:
    """Make the command, its settings starting from the preset, the settings file or the run that arguments name."""
    without_help = [argument for argument in arguments if argument not in ("-h", "--help")]
    named, _ = tyro.cli(Beginning, prog="lorbms-fast train", args=without_help, return_unknown_args=True)
    if named.resume is not None and (given := [n for n in ("preset", "variant") if getattr(named, n) is not None]):
        raise UserError(
            f"{' and '.join(f'--{name} {getattr(named, name)}' for name in given)} would begin another run than "
            f"{named.resume}, which has settings of its own: leave it out, and change single ones by their names"
        )
    base = preset_named(named.preset or "thesis") if named.resume is None else Run.open(named.resume).config
    if named.config is not None:
        base = read_config(named.config, base)
    if named.variant is not None:
        base = with_variant(base, named.variant)
    if named.epochs is not None and named.iterations is None:
        base = replace(base, iterations=None)
    preset_name, variant_name = named.preset or "thesis", named.variant or "thesis"

    def train(
        store: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[STORE]")] = None,
        /,
        *,
        out: Path | None = None,
        resume: Path | None = None,
        other_images: bool = False,
        retune: bool = False,
        preset: str = preset_name,
        variant: str = variant_name,
        config: Path | None = None,
        settings: Annotated[TrainConfig, tyro.conf.arg(name="")] = base,
    ) -> None:
        """Train LORBMS on a store that has neighbours.

        Writes checkpoints, metrics.jsonl, TensorBoard logs, sample sheets and loss curves into the run's folder.
        Ctrl-C, SIGTERM or a closed terminal saves a checkpoint first; `--resume RUN` goes on from it. For several GPUs:
        `torchrun --standalone --nproc-per-node 8 --max-restarts 3 -m lorbms_fast train STORE --out RUN`; every process
        takes its own batches of --batch-size images, and the run may be resumed by another number of processes.

        Args:
            store: Image store made by `lorbms-fast prepare`, with neighbours by `lorbms-fast neighbours`; for a run
                that is resumed, the place where its store is now.
            out: Folder of the new run; with --resume, of a copy that goes on from the newest checkpoint instead of the
                run itself.
            resume: Folder of a run to continue; it remembers its store and its settings, also those given here.
            other_images: Let a run that is resumed go on with a store of other images, or other neighbours.
            retune: On a GPU, try all kernels again, also those that were tried on this machine before.
            preset: Settings to start from: thesis (the headline run) or demo (small networks, other weights of the
                losses, initial values and rates, for a dozen photographs and minutes on a CPU; for hundreds of
                photographs give more --iterations).
            variant: System of Appendix D to change these settings to: `lorbms-fast info --variant list` names them.
            config: TOML or JSON file with settings that replace the preset's, or those of the run that is resumed.
            settings: Any single setting.
        """
        with joined() as world:
            if resume is not None:
                run = Run.open(resume)
                begun, wanted = asdict(run.config.model), asdict(settings.model)
                if changed := list(differences(wanted, begun, "model")):
                    raise UserError(
                        f"{resume} was begun with another model: {'; '.join(changed)}; start a new run with --out"
                    )
                images = run.open_store(store)
                if out is not None and out.resolve() != resume.resolve():
                    run.on(images, other_images)  # before anything is copied
                    run = _new(out, world, run.fork)
                    if world.first:
                        print(f"{out} goes on from {resume}: a copy of its newest checkpoint is made there")
            elif store is None or out is None:
                raise UserError(
                    "name a store and a new run's folder: lorbms-fast train STORE --out RUN (or --resume RUN)"
                )
            else:
                images = ImageStore.open(store)
                run = _new(out, world, lambda folder: Run.create(folder, settings, images.path))
            try:
                run_training(replace(run, config=settings), images, world, other_images, retune)
            except UserError:
                if world.first and resume is None:
                    run.withdraw()  # settings that cannot be leave no run that cannot be trained
                raise

    return flowing(train)


def _new(out: Path, world: World, make: Callable[[Path], Run]) -> Run:
    """Make the new run in the first process; take the run itself where torchrun starts a failed one again."""
    if world.first and not (restarted() and (out / "run.json").exists()):
        make(out)
    world.wait()
    return Run.open(out)
