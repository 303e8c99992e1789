"""`lorbms-fast neighbours`: find each quadrant's visually similar images."""

import shutil
from pathlib import Path

import numpy as np
import tyro

from lorbms_fast.atomic_io import atomic_write, exclusive_lock, full_disk_named
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.devices import device_named
from lorbms_fast.errors import UserError
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.mixing import TAU
from lorbms_fast.rendering.neighbours import neighbour_sheet
from lorbms_fast.similarity.algorithm2 import Found, find, quadrant_features
from lorbms_fast.similarity.features import load_extractor
from lorbms_fast.similarity.kept import keep
from lorbms_fast.similarity.table import NeighbourTable
from lorbms_fast.similarity.tau import draw, half_replacing_tau, replaced_fraction
from lorbms_fast.similarity.workplace import FOLDER, Workplace, digest_of_weights

SHEET_IMAGES = 4
KEPT = 1 << 30
"""Freed bytes that stay for the next batch's maps: new pages must be cleared, which takes half the time."""


def neighbours(
    store: tyro.conf.Positional[Path],
    /,
    *,
    features: str = "efficientnet-lite0",
    weights: Path | None = None,
    clusters: int | None = None,
    tau: float | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Find the ten visually most similar images for every quadrant of every image (Algorithm 2).

    Writes neighbours.parquet and a contact sheet, neighbours.png, into the store's folder. Features wait in a mapped
    file there meanwhile (16 bytes for each number of an image's features) and stay as features.npy if they take no
    more than 1 GB: `lorbms-fast app` then finds the neighbours of other pictures too. An interrupted search goes on
    where it was when the same command is run again.

    Args:
        store: Folder made by `lorbms-fast prepare`; the photos it was made from must still be there.
        features: What similarity is measured on: deepcluster (the thesis's), efficientnet-lite0 (weights come with
            the installation), descriptor (colours and gradients, no weights), encoder (a LORBMS run), timm:MODEL or
            torchvision:MODEL.
        weights: File (or, for encoder, the run's folder) with the weights of deepcluster, encoder, timm or torchvision.
        clusters: Clusters for k-means; one to 80 images by default, as in the thesis.
        tau: Threshold of mixing on squared distances; by default 16,000 for deepcluster, else the quantile at which
            half the quadrants are replaced.
        seed: Seed of k-means.
        device: Where the features are computed: cpu, cuda; auto takes a GPU when there is one.
    """
    opened = ImageStore.open(store)
    if clusters is not None and clusters < 1:
        raise UserError(f"--clusters {clusters}: use 1 or more")
    if tau is not None and not tau >= 0:
        raise UserError(f"--tau {tau}: use 0 or more")
    where = device_named(device)
    retain_freed_memory(KEPT)
    extractor = load_extractor(features, weights, where)
    work = Workplace(store / FOLDER)
    with exclusive_lock(work.folder, f"is finding neighbours in {store}"), full_disk_named(store):
        work.begin({"store": opened.digest, "features": features, "weights": digest_of_weights(weights)})
        found = find(quadrant_features(opened, extractor, work), clusters, seed, work, where)
        threshold, why = _threshold(found, features, tau)
        facts = {
            "clusters": [len(sizes) for sizes in found.cluster_sizes],
            "recall": found.recall,
            "seed": seed,
            "tau_chosen": why,
            "weights": None if weights is None else str(weights.resolve()),
        }
        table = NeighbourTable(found.rows, found.distances, threshold, features, facts)
        path = table.save(opened)
        keep(opened, work.features_file)
        shutil.rmtree(work.folder)
    with atomic_write(opened.path / "neighbours.png") as partial:
        images = np.linspace(0, len(opened) - 1, SHEET_IMAGES).astype(int).tolist()
        neighbour_sheet(opened, table, images).save(partial, format="png")
    print(_report(found, threshold, why))
    print(f"{path}, {opened.path / 'neighbours.png'}")


def _threshold(found: Found, features: str, asked: float | None) -> tuple[float, str]:
    if asked is not None:
        return asked, "as asked"
    if features == "deepcluster":
        return TAU, "the thesis's threshold for these features"
    return half_replacing_tau(
        found.distances
    ), "half the quadrants are replaced; the thesis's 16,000 is on another scale"


def _report(found: Found, tau: float, why: str) -> str:
    sizes = ", ".join(f"q{q}: {len(s)} of {s.min()} to {s.max()}" for q, s in enumerate(found.cluster_sizes, start=1))
    low, middle, high = np.quantile(found.distances, (0.05, 0.5, 0.95))
    fraction = replaced_fraction(draw(found.distances, seed=1), tau)
    recalls = ", ".join(f"q{q}: {recall:.1%}" for q, recall in enumerate(found.recall, start=1))
    return (
        f"clusters of images: {sizes}\n"
        f"of the ten nearest of all, found within the cluster (a sample): {recalls}\n"
        f"squared distances: 5% below {low:,.1f}, half below {middle:,.1f}, 95% below {high:,.1f}\n"
        f"tau = {tau:,.1f} ({why}); {fraction:.0%} of the quadrants are replaced"
    )
