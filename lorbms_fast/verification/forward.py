"""Filled values, and everything one forward pass makes, against the golden numbers."""

from collections.abc import Iterator

import torch

from lorbms_fast import losses
from lorbms_fast.config import Impl, LossConfig
from lorbms_fast.engine.implementations import IMPLS
from lorbms_fast.kernels.spectral_norm.reference import spectral_norm
from lorbms_fast.mixing import author_mixing_mask
from lorbms_fast.verification.check import Check, distance, nhwc
from lorbms_fast.verification.golden import IMAGES, Golden

# Differences seen between the golden float32 numbers and a float64 model, times three.
CODES, PIXELS, PATCHES, LOGITS = 2.2e-4, 2.3e-5, 2.2e-6, 9e-5
LOSS, CLASSIFICATION_LOSS = 6e-7, 1.8e-5
SUMS, FILLED = 1e-6, 1e-6


def fill_checks(golden: Golden) -> Iterator[Check]:
    """Check the filled parameters and images themselves: a wrong prefix or fill rule shows here first."""
    errors = []
    for row in golden.parameters:
        values = golden.fill(row["name"], tuple(row["shape"]), row["scale"], row["shift"]).double()
        difference = max(abs(values.sum().item() - row["sum"]), abs(values.square().sum().item() - row["sumsq"]))
        errors.append(difference / row["sumsq"])
    yield Check("filled parameters: sums", max(errors), SUMS)
    for name in IMAGES:
        yield Check(f"filled {name}", distance(nhwc(golden.image(name)), golden.forward[name]), FILLED)


def forward_checks(golden: Golden, impl: Impl) -> Iterator[Check]:
    """Check mask, codes, images, logits and losses."""
    stored = golden.forward
    computed_by = IMPLS[impl]
    batch = golden.batch()
    computed_mask = author_mixing_mask(torch.from_numpy(stored["dist"]), float(stored["tau"]))
    yield Check("mask", distance(computed_mask, stored["mask"]), 0)

    networks = golden.networks(impl, spectral_norm)
    with torch.no_grad():
        parts, s = computed_by.generator_losses(networks, batch, LossConfig())
        for name in ("f_ref", "f_mix", "f_mix_hat", "f_ref_hat"):
            yield Check(name, distance(getattr(s, name).flatten(1), stored[name]), CODES)
        for i, I_qi in enumerate(batch.I_q, start=1):
            yield Check(f"f_q{i}", distance(networks.enc(I_qi).flatten(1), stored[f"f_q{i}"]), CODES)
        for name in ("I_hat", "I_mix", "I_prime"):
            yield Check(name, distance(nhwc(getattr(s, name)), stored[name]), PIXELS)

        D_ref, D_mix = networks.dsc(batch.I_ref), networks.dsc(s.I_mix)
        yield Check("D_ref", distance(nhwc(D_ref), stored["D_ref"]), PATCHES)
        yield Check("D_mix", distance(nhwc(D_mix), stored["D_mix"]), PATCHES)
        logits, _ = computed_by.classifier_logits(networks, s.I_mix, batch)
        for j, logits_j in enumerate(logits, start=1):
            yield Check(f"cls_logits_{j}", distance(logits_j, stored[f"cls_logits_{j}"]), LOGITS)

        one = losses.classification(logits, batch.mask, (1.0,) * 4)
        quarter = losses.classification(logits, batch.mask, (0.25,) * 4)
        c = LossConfig().cls
        for name, value, tolerance in (
            ("L_rec_hat", parts.L_rec_hat, LOSS),
            ("L_rec_prime", parts.L_rec_prime, LOSS),
            ("L_adv", parts.L_adv, LOSS),
            ("L_D_real", losses.called_real(D_ref), LOSS),
            ("L_D_fake", losses.called_fake(D_mix), LOSS),
            ("L_D", losses.discrimination(D_ref, D_mix), LOSS),
            ("L_cls_one", one, CLASSIFICATION_LOSS),
            ("L_cls_quarter", quarter, CLASSIFICATION_LOSS / 4),
            ("L_G_one", parts.L_G, LOSS + c * CLASSIFICATION_LOSS),
            ("L_G_quarter", parts.L_G + c * (quarter - one), LOSS + c * CLASSIFICATION_LOSS / 4),
        ):
            yield Check(name, distance(value, stored[name]), tolerance)
