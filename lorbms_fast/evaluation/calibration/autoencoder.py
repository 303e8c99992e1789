"""Training encoder, decoder and discriminator without the classifier, on L1 and the adversarial loss."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from lorbms_fast.atomic_io import atomic_write, write_json
from lorbms_fast.config import TrainConfig
from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.calibration.decoders import DECODERS, start_without_norm
from lorbms_fast.evaluation.crops import row_batches, shuffled_batch
from lorbms_fast.evaluation.provenance import store_source
from lorbms_fast.evaluation.results import Result, cached
from lorbms_fast.evaluation.split import Split, split_photographs
from lorbms_fast.evaluation.supervised import restore_state, save_state
from lorbms_fast.kernels import advance_all_u
from lorbms_fast.losses import called_real, discrimination, reconstruction
from lorbms_fast.models.discriminator import Discriminator
from lorbms_fast.models.encoder import Encoder
from lorbms_fast.models.initial_values import initialize
from lorbms_fast.models.variants import initial_values
from lorbms_fast.optimizers import Adam, frozen, update
from lorbms_fast.progress import tqdm
from lorbms_fast.rendering.style import PLOT

LEARNED = 0.9
"""Share of the photographs to learn from; the rest is what PSNR and L1 are measured on."""
CURVE_POINTS = 50
SAVES = 10
TEST_BATCH = 32


def calibrate(
    name: str, config: TrainConfig, store: ImageStore, iterations: int, out: Path, device: torch.device
) -> Result:
    """Train one of `DECODERS` and measure it on a tenth of the photographs along the way; kept in OUT/<name>.json.

    L = lambda_rec |I - I_hat| + lambda_adv bce(D(I_hat), 1), then L_D as in the thesis; batches and optimizers of the
    config. The discriminator keeps its spectral norm in all variants. Raises UserError if the store does not fit the
    config.
    """
    if store.side != (side := config.model.image_size):
        raise UserError(
            f"{store.path} has images of {store.side} px, the model takes {side}: prepare one with --image-size {side}"
        )
    model = config.model
    others = {model.encoder, model.decoder, model.discriminator, config.loss.gan} - {"thesis", "cross-entropy"}
    if others:
        raise UserError(
            f"decoders are compared by the thesis's networks and losses, not by {', '.join(sorted(others))}: "
            "leave it out of the settings"
        )
    split = split_photographs(store, LEARNED, config.seed)
    if len(split.train) < config.batch_size:
        raise UserError(f"{store.path} has {len(split.train)} images to learn from: lower --batch-size")
    sizes = asdict(config.model)
    values = sizes.pop("initial_values")
    setting = {"variant": name, "model": sizes, "iterations": iterations, "store": store.digest}
    setting |= {} if values == "thesis" else {"initial_values": values}  # which results of before do not name
    setting |= {"batch_size": config.batch_size, "seed": config.seed, "weights": [config.loss.rec, config.loss.adv]}
    setting["rates"] = [config.optim.generator_lr, config.optim.discriminator_lr, *config.optim.betas]

    def make() -> Result:
        networks = autoencoder(name, config).to(device)
        curve = _train(networks, config, store, split, iterations, out / f"{name}.state", setting)
        return {
            "variant": name,
            "iterations": iterations,
            "pictures": store_source(store),
            "decoder_parameters": sum(p.numel() for p in networks["dec"].parameters()),
            **{name: curve[-1][name] for name in ("l1", "psnr")},
            "curve": curve,
        }

    return cached(out / f"{name}.json", setting, make)


def draw_calibration(results: Sequence[Result], target: Path) -> None:
    """Draw a line for each variant, on held-out images, as a PNG."""
    with matplotlib.rc_context(PLOT):
        figure = Figure(figsize=(10, 4), layout="constrained")
        for axes, (key, title) in zip(figure.subplots(1, 2), {"psnr": "PSNR, dB", "l1": "L1"}.items(), strict=True):
            for result in results:
                points = result["curve"]
                axes.plot([p["iteration"] for p in points], [p[key] for p in points], label=result["variant"])
            axes.set(title=f"{title}, held-out images", xlabel="iteration")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()
        with atomic_write(target) as partial:
            figure.savefig(partial, format="png", dpi=110)


def autoencoder(name: str, config: TrainConfig) -> nn.ModuleDict:
    """Build `enc`, `dec` and `dsc` with initial values, on the CPU."""
    networks = nn.ModuleDict(
        {"enc": Encoder(config.model), "dec": DECODERS[name](config.model), "dsc": Discriminator(config.model)}
    )
    initialize(networks, config.seed, initial_values(config.model))
    start_without_norm(networks["dec"], config.seed)
    return networks


@torch.inference_mode()
def quality(
    networks: nn.ModuleDict, store: ImageStore, rows: NDArray[np.int64], device: torch.device
) -> dict[str, float]:
    """Measure `l1`, the mean absolute difference of values in [-1, 1], and `psnr` in dB, averaged over images."""
    l1, psnr = [], []
    for part in row_batches(rows, TEST_BATCH):
        I = to_float_nchw(store.images[part]).to(device)
        I_hat = networks["dec"](networks["enc"](I))
        l1.append((I - I_hat).abs().mean((1, 2, 3)))
        psnr.append(10 * torch.log10(4 / (I - I_hat).square().mean((1, 2, 3)).clamp_min(1e-10)))
    return {"l1": float(torch.cat(l1).mean()), "psnr": float(torch.cat(psnr).mean())}


def _train(
    networks: nn.ModuleDict, config: TrainConfig, store: ImageStore, split: Split, iterations: int, state: Path,
    setting: Result,
) -> list[dict[str, float]]:  # fmt: skip
    """Train in place; the curve has an entry each fiftieth of the way, and is kept beside the state of the setting."""
    device = next(networks.parameters()).device
    optim = config.optim
    optimizers = [
        Adam([*networks["enc"].parameters(), *networks["dec"].parameters()], optim.generator_lr, optim.betas),
        Adam(networks["dsc"].parameters(), optim.discriminator_lr, optim.betas),
    ]
    start = restore_state(state, setting, networks, optimizers)
    points = state.with_suffix(".curve.json")
    curve: list[dict[str, float]] = json.loads(points.read_text()) if start else []
    curve = [point for point in curve if point["iteration"] <= start]
    every, save_every = max(1, iterations // CURVE_POINTS), max(1, iterations // SAVES)
    with tqdm(total=iterations, initial=start, desc=f"calibrating {setting['variant']}", unit="it") as bar:
        for iteration in range(start, iterations):
            _, rows = shuffled_batch(split.train, config.batch_size, iteration, config.seed, 13)
            I = to_float_nchw(store.images[rows]).to(device)
            L1, L_D = _step(networks, optimizers, I, config)
            done = iteration + 1
            bar.update()
            if done % every == 0 or done == iterations:
                found = quality(networks, store, split.test, device)
                curve.append({"iteration": done, **found, "L_D": float(L_D)})
                bar.set_postfix({"L1": f"{float(L1):.3f}", "PSNR held out": f"{found['psnr']:.2f} dB"}, refresh=False)
            if done % save_every == 0 and done < iterations:
                write_json(points, curve)
                save_state(state, setting, done, networks, optimizers)
    for path in (state, points):
        path.unlink(missing_ok=True)
    return curve


def _step(networks: nn.ModuleDict, optimizers: list[Adam], I: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    with frozen(networks["dsc"]):
        I_hat = networks["dec"](networks["enc"](I))
        L1 = reconstruction(I, I_hat)
        update(optimizers[0], config.loss.rec * L1 + config.loss.adv * called_real(networks["dsc"](I_hat)))
    D_ref, D_hat = networks["dsc"](torch.cat([I, I_hat.detach()])).chunk(2)
    L_D = discrimination(D_ref, D_hat)
    update(optimizers[1], L_D)
    advance_all_u(networks)
    return L1.detach(), L_D.detach()
