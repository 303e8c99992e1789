"""`lorbms-fast render`: draw mixed scenes from a run."""

from dataclasses import replace
from pathlib import Path

import torch

from lorbms_fast.checkpoint import load
from lorbms_fast.commands.options import RunFolder
from lorbms_fast.config import Count, Natural
from lorbms_fast.counted import counted
from lorbms_fast.engine.implementations import implementation
from lorbms_fast.errors import UserError
from lorbms_fast.mixing import QUADRANTS
from lorbms_fast.rendering.scenes import film_sheet, interpolation_sheet, scene_sheet
from lorbms_fast.rendering.sheet import save_sheet
from lorbms_fast.rendering.transfer import interpolation
from lorbms_fast.run import Run, load_networks
from lorbms_fast.tiles import is_grid
from lorbms_fast.training.setup import batch_source
from lorbms_fast.types import Scenes

STEPS = 9


def render(
    run: RunFolder,
    /,
    *,
    samples: Count = 8,
    store: Path | None = None,
    draw: Natural = 0,
    interpolate: bool = False,
    film: bool = False,
    out: Path | None = None,
) -> None:
    """Draw a sheet of mixed scenes (Figure 4.2): reference, four candidates, pixel collage, mixed scene.

    With --interpolate the sheet shows how each mixed scene comes about instead: reference, collage, and the scenes
    decoded while the replaced chunks go from the reference's to the candidates'. With --film it shows how training got
    there: reconstruction and mixed scene by every checkpoint on disk (`train --keep-checkpoints`).

    Args:
        run: Folder of a training run.
        samples: Rows of the sheet.
        store: Image store to take photos from, with neighbours; the run's own by default.
        draw: Number of the random draw; another one shows other photos.
        interpolate: Draw the way from reconstruction to mixed scene.
        film: Draw what each checkpoint makes of the samples.
        out: PNG to write; RUN/mixed_scenes.png, RUN/interpolation.png or RUN/film.png by default.
    """
    if film and interpolate:
        raise UserError("--film and --interpolate are two sheets: ask for one of them")
    opened = Run.open(run)
    if film and not is_grid(opened.config.model.tiles):
        raise UserError(f"the tiles of {run} have no place in the picture: leave --film out")
    networks = load_networks(run)
    source = batch_source(replace(opened.config, device="cpu"), opened.open_store(store))  # where the networks are
    batch = source.complete(source.sample(samples, draw), networks.enc).first(samples)
    impl = implementation(opened.config.model, opened.config.impl)

    @torch.inference_mode()
    def made() -> Scenes:
        return impl.scenes(networks, batch)

    if film:
        moments = {}
        for checkpoint in opened.checkpoints():
            load(networks, checkpoint)
            moments[f"{int(checkpoint.name):,}"] = made()
        target, sheet = run / "film.png", film_sheet(batch, moments)
    elif interpolate:
        scenes, amounts = made(), torch.linspace(0, 1, STEPS)
        images = interpolation(networks, scenes.f_ref, scenes.f_mix, amounts)
        target, sheet = run / "interpolation.png", interpolation_sheet(batch, images, amounts)
    else:
        target, sheet = run / "mixed_scenes.png", scene_sheet(batch, made())
    target = out or target
    save_sheet(sheet, target)
    print(f"{target}: {counted(len(batch.mask), 'sample')}, {batch.mask.float().mean():.0%} of the tiles replaced")
    if batch.mask.shape[1] == 4:
        print(f"digits of a mask: {QUADRANTS}")
