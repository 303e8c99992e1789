"""`lorbms-fast export`: a run's encoder and decoder for other programs."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from lorbms_fast.atomic_io import atomic_folder, check_room
from lorbms_fast.checkpoint import save_tensors
from lorbms_fast.commands.options import RunFolder
from lorbms_fast.config import Natural
from lorbms_fast.dataloader.resize import center_crop
from lorbms_fast.errors import UserError
from lorbms_fast.export.generator import Generator, Transfer, plain_generator
from lorbms_fast.kernels import use_impl
from lorbms_fast.progress import at_work
from lorbms_fast.run import Run
from lorbms_fast.tiles import is_grid

FORMS = 4
"""Times that the weights are written: three files, and one while it is made."""
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def export(run: RunFolder, /, *, out: Path, web: Path | None = None, examples: Natural = 12) -> None:
    """Write a run's encoder and decoder for use without this program.

    OUT gets generator.safetensors (weights, spectral normalization done), encoder.onnx and decoder.onnx (any batch
    size; checked with ONNX Runtime against PyTorch to 1e-4), transfer.pt2 (torch.export: I_obj, I_ref, mask -> I_mix)
    and README.txt, which says how to call them. With --web also demo.html: one file that transfers objects in any
    browser, without a server; its weights have 8 bits, and some of the run's pictures come with it.

    Needs the extra `export`: pip install 'lorbms-fast[export]'.

    Args:
        run: Folder of a training run.
        out: New folder to write.
        web: Folder of the npm package onnxruntime-web (npm install onnxruntime-web; node_modules/onnxruntime-web).
        examples: Max. number of the store's pictures in that file, to be mixed at once; 0 keeps them out of it.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"export needs {', '.join(missing)}: pip install 'lorbms-fast[export]'")
    from lorbms_fast.export.onnx_files import TOLERANCE, quantize
    from lorbms_fast.export.page import runtime_files, write_explanation, write_page

    if web is not None:
        runtime_files(web)  # a mistake is told before the work, not after
    generator = plain_generator(run)
    if web is not None and not is_grid(generator.config.tiles):
        raise UserError(
            f"the {generator.config.tiles} tiles of {run} have no place in the picture, so there is nothing to click: "
            "leave --web out"
        )
    tensors = generator.tensors()
    size = sum(tensor.nbytes for tensor in tensors.values())
    check_room(out, FORMS * size, "the networks' files", "make room")
    status = at_work("exporting and checking: about a minute")
    # The networks of variants have no plain form of their own, and no other program knows our fast operations.
    with status, use_impl("reference"), atomic_folder(out) as partial:
        facts = {"iteration": generator.iteration, "model": vars(generator.config)}
        save_tensors(tensors, partial / "generator.safetensors", {"lorbms_fast": json.dumps(facts)})
        _write_program(generator, partial / "transfer.pt2")
        worst = _write_onnx(generator, partial)
        if worst > TOLERANCE:
            print(f"ONNX Runtime differs from PyTorch by {worst:.1e}, more than {TOLERANCE:.0e}", file=sys.stderr)
            sys.exit(1)
        write_explanation(generator, partial / "README.txt")
        if web is not None:
            with TemporaryDirectory() as folder:
                encoder, decoder = (Path(folder) / name for name in ("encoder.onnx", "decoder.onnx"))
                quantize(partial / encoder.name, encoder)
                quantize(partial / decoder.name, decoder)
                pictures = _examples(run, examples, generator.config.image_size)
                write_page(encoder, decoder, web, generator, run.resolve().name, partial / "demo.html", pictures)
    print(f"ONNX Runtime and PyTorch agree within {worst:.1e} of the largest number")
    for path in sorted(out.iterdir()):
        size = path.stat().st_size
        print(f"{path}  {size / 1e6:.1f} MB" if size >= 1e6 else f"{path}  {size / 1e3:.1f} kB")


def _examples(run: Path, count: int, side: int) -> list[NDArray[np.uint8]]:
    """Take pictures from all over the run's store; none if it is gone."""
    try:
        store = Run.open(run).open_store()
    except UserError:
        return []
    rows = np.linspace(0, len(store) - 1, min(count, len(store))).round().astype(int)
    return [center_crop(np.asarray(store.images[row]), side) for row in rows]


def _write_program(generator: Generator, path: Path) -> None:
    side, N = generator.config.image_size, torch.export.Dim("N", min=1)
    example = (*torch.zeros(2, 2, 3, side, side), torch.zeros(2, generator.config.tiles, dtype=torch.bool))
    program = torch.export.export(Transfer(generator), example, dynamic_shapes=({0: N}, {0: N}, {0: N}))
    torch.export.save(program, path)


def _write_onnx(generator: Generator, folder: Path) -> float:
    """Write both networks, and return their largest difference from PyTorch, for one and for several images."""
    from lorbms_fast.export.onnx_files import difference, write_onnx

    side = generator.config.image_size
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        codes = generator.enc(images)
    write_onnx(generator.enc, images, ("images", "f"), folder / "encoder.onnx")
    write_onnx(generator.dec, codes, ("f", "images"), folder / "decoder.onnx")
    return max(
        difference(network, folder / name, x[:count])
        for network, name, x in ((generator.enc, "encoder.onnx", images), (generator.dec, "decoder.onnx", codes))
        for count in (1, 3)
    )
