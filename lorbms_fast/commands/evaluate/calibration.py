"""`lorbms-fast evaluate calibration`: which decoder reconstructs best."""

from dataclasses import replace
from pathlib import Path

from lorbms_fast.commands.options import StoreFolder
from lorbms_fast.commands.tables import print_table
from lorbms_fast.config import Count, LossConfig, preset_named
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.devices import device_named
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.calibration.autoencoder import calibrate, draw_calibration
from lorbms_fast.evaluation.calibration.decoders import DECODERS


def calibration(
    store: StoreFolder,
    /,
    *,
    out: Path,
    iterations: Count = 20_000,
    preset: str = "thesis",
    config: Path | None = None,
    batch_size: Count | None = None,
    variants: tuple[str, ...] = tuple(DECODERS),
    device: str = "auto",
) -> None:
    """Train autoencoders without the classifier, on L1 and the adversarial loss (Section 3.6.1).

    Compares resize convolutions with transposed convolutions, each with and without spectral norm in the decoder:
    resize-sn (the thesis's choice), resize, transposed-sn, transposed. L1 and PSNR are measured on a tenth of the
    photographs that no variant learns from. Results are kept in OUT, curves in OUT/calibration.png; an interrupted
    training goes on where it was.

    Args:
        store: Image store to learn from; needs no neighbours.
        out: Folder for results.
        iterations: Length of each training.
        preset: Sizes and rates to start from: thesis or demo; the losses have the thesis's weights in both.
        config: TOML or JSON file with settings that replace the preset's.
        batch_size: Images an iteration; the preset's by default.
        variants: Variants to train.
        device: `cpu`, `cuda`, `cuda:1`; auto takes a GPU when there is one.
    """
    if unknown := [name for name in variants if name not in DECODERS]:
        raise UserError(f"there is no variant '{unknown[0]}': choose of {', '.join(DECODERS)}")
    settings = preset_named(preset, config, LossConfig())
    settings = settings if batch_size is None else replace(settings, batch_size=batch_size)
    images, where = ImageStore.open(store), device_named(device)
    results = [calibrate(name, settings, images, iterations, out, where) for name in variants]
    rows = [[result["variant"], f"{result['l1']:.4f}", f"{result['psnr']:.2f}"] for result in results]
    title = f"{iterations:,} iterations; held out of {results[0]['pictures']}"
    print_table(["variant", "L1", "PSNR, dB"], rows, title)
    draw_calibration(results, out / "calibration.png")
    print(out / "calibration.png")
