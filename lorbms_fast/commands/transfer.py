"""`lorbms-fast transfer`: move an object from one photo into another."""

from pathlib import Path

from lorbms_fast.commands.options import RunFolder
from lorbms_fast.dataloader.decoders import read_rgb
from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.dataloader.resize import center_crop
from lorbms_fast.mixing import parse_mask
from lorbms_fast.rendering.scenes import transfer_sheet
from lorbms_fast.rendering.sheet import save_sheet
from lorbms_fast.rendering.transfer import transfer as transfer_objects
from lorbms_fast.run import Run, load_networks


def transfer(run: RunFolder, /, *, object: Path, scene: Path, mask: str = "0010", out: Path | None = None) -> None:
    """Decode a scene in which chosen quadrants come from another photo (Figure 4.3).

    Draws four images side by side: the object's photo, the scene, their pixel collage, the mixed scene.

    Args:
        run: Folder of a training run.
        object: Photo to take quadrants from.
        scene: Photo to put them into.
        mask: Four digits for q1 top left, q2 top right, q3 bottom left, q4 bottom right; 1 takes the object's.
            A system with other tiles has a digit for each, row by row.
        out: PNG to write; RUN/transfer.png by default.
    """
    model = Run.open(run).config.model
    chosen = parse_mask(mask, model.tiles)
    I_obj, I_ref = (to_float_nchw(center_crop(read_rgb(path), model.image_size)) for path in (object, scene))
    I_mix = transfer_objects(load_networks(run), I_obj[None], I_ref[None], chosen[None])[0]
    target = out or run / "transfer.png"
    save_sheet(transfer_sheet(I_obj, I_ref, chosen, I_mix), target)
    print(target)
