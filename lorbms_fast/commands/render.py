"""`lorbms-fast render`: draw mixed scenes from a run."""

from pathlib import Path

import torch
import tyro

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.engine.implementations import implementation
from lorbms_fast.rendering.scenes import interpolation_sheet, mixed_scene_sheet
from lorbms_fast.rendering.transfer import interpolation
from lorbms_fast.run import Run, load_networks
from lorbms_fast.training.setup import batch_source

STEPS = 9


def render(
    run: tyro.conf.Positional[Path],
    /,
    *,
    samples: int = 8,
    store: Path | None = None,
    draw: int = 0,
    interpolate: bool = False,
    out: Path | None = None,
) -> None:
    """Draw a sheet of mixed scenes (Figure 4.2): reference, four candidates, pixel collage, mixed scene.

    With --interpolate the sheet shows how each mixed scene comes about instead: reference, collage, and the scenes
    decoded while the replaced chunks go from the reference's to the candidates'.

    Args:
        run: Folder of a training run.
        samples: Rows of the sheet.
        store: Image store to take photos from, with neighbours; the run's own by default.
        draw: Number of the random draw; another one shows other photos.
        interpolate: Draw the way from reconstruction to mixed scene.
        out: PNG to write; RUN/mixed_scenes.png or RUN/interpolation.png by default.
    """
    opened = Run.open(run)
    networks = load_networks(run)
    source = batch_source(opened.config, opened.open_store(store))
    batch = source.complete(source.sample(samples, draw), networks.enc).first(samples)
    with torch.inference_mode():
        scenes = implementation(opened.config.model, opened.config.impl).scenes(networks, batch)
    if interpolate:
        amounts = torch.linspace(0, 1, STEPS)
        images = interpolation(networks, scenes.f_ref, scenes.f_mix, amounts)
        target, sheet = run / "interpolation.png", interpolation_sheet(batch, images, amounts)
    else:
        target, sheet = run / "mixed_scenes.png", mixed_scene_sheet(batch, scenes.I_mix)
    target = out or target
    with atomic_write(target) as partial:
        sheet.save(partial, format="png")
    print(f"{target}: {samples} samples, {batch.mask.float().mean():.0%} of the tiles replaced")
