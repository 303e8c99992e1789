"""`lorbms-fast neighbours`: find each quadrant's visually similar images."""

import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.atomic_io import exclusive_lock, full_disk_named
from lorbms_fast.commands.options import StoreFolder
from lorbms_fast.config import Count, Natural, Weight
from lorbms_fast.counted import counted
from lorbms_fast.dataloader.neighbour_table import NEIGHBOURS, NeighbourTable
from lorbms_fast.dataloader.places import Place, url_of
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.devices import device_named
from lorbms_fast.errors import UserError, as_word
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.mixing import TAU
from lorbms_fast.rendering.neighbours import neighbour_sheet
from lorbms_fast.rendering.sheet import save_sheet
from lorbms_fast.similarity.algorithm2 import KEPT, Method, Quadrant, Settings, find, quadrant_features
from lorbms_fast.similarity.copies import TOLERANCE, originals
from lorbms_fast.similarity.features import load_extractor
from lorbms_fast.similarity.kmeans import told_faiss
from lorbms_fast.similarity.partial_search import FOLDER, PartialSearch, digest_of_weights
from lorbms_fast.similarity.stored_features import FILE as FEATURES
from lorbms_fast.similarity.stored_features import checksum_to_keep, keep_features
from lorbms_fast.similarity.tau import draw, half_replacing_tau, replaced_fraction

SHEET_IMAGES = 4
WANTED = 0.9
"""Part of the ten nearest that should be found."""
REPORTED = 1_000_000
"""Images from which on the distances that are printed are those of a half, of a third and so on."""


def neighbours(
    store: StoreFolder,
    /,
    *,
    features: str = "efficientnet-lite0",
    weights: Path | None = None,
    method: Method = "nearest",
    clusters: Count | None = None,
    tau: Weight | None = None,
    seed: Natural = 0,
    device: str = "auto",
    cluster: str | None = None,
) -> None:
    """Find the ten visually most similar images for every quadrant of every image (Algorithm 2).

    Copies count once: images whose pixels agree within a few levels, as a photograph under two names or frames of a
    video that does not move, are no neighbours of each other, and one of them stands for all in other images' lists.

    Writes neighbours.parquet and a contact sheet, neighbours.png, into the store's folder. Features wait in a mapped
    file there meanwhile (16 bytes for each number of an image's features) and stay as features.npy if they take no
    more than 1 GB: `lorbms-fast app` then finds the neighbours of other pictures too. An interrupted search goes on
    where it was when the same command is run again.

    Args:
        store: Folder made by `lorbms-fast prepare`; the photos it was made from must still be there.
        features: Features that are compared: deepcluster (the thesis's), efficientnet-lite0 (weights come with
            the installation), descriptor (colours and gradients, no weights), encoder (a LORBMS run), timm:MODEL or
            torchvision:MODEL.
        weights: File (or, for encoder, the run's folder) with the weights of deepcluster, encoder, timm or torchvision.
        method: nearest finds the ten nearest of all: exactly among 32,768 images or fewer, of more at least 90% of
            them, which is measured and printed. whitened-256 searches clusters as the author's program did for
            135,000 images (PCA to 256 dimensions, whitening, k-means); on small sets it finds a fifth of them.
        clusters: Clusters for k-means. By default all images are searched; of more than 32,768, as many of the clusters
            of about 2,000 as are needed. For whitened-256 one to 80 images, as in the thesis.
        tau: Threshold of mixing on squared distances; by default 16,000 for deepcluster, else the quantile at which
            half the quadrants are replaced.
        seed: Seed of k-means and of the sample that is measured.
        device: Device that features and distances are computed on: cpu, cuda; auto takes a GPU when there is one.
        cluster: Work on a Ray cluster: ray for the cluster that this machine belongs to, else for this machine alone;
            or its address, as ray://HEAD:10001. A quadrant that fits in a machine's memory is searched as without
            this option, a larger one in cells and float16. STORE may be s3://BUCKET/NAME and others that fsspec
            knows (docs/scale.md).
    """
    opened = ImageStore.open(store)
    if len(opened) <= NEIGHBOURS:
        need = f"{NEIGHBOURS} neighbours for each need {NEIGHBOURS + 1} or more"
        raise UserError(f"{store} has {counted(len(opened), 'image')}: {need}; prepare more")
    if cluster is None and (url := url_of(store)):
        raise UserError(f"{url} is not on this machine: say --cluster ray too, which reaches it")
    if cluster is not None and method != "nearest":
        raise UserError(f"--method {method} is for one machine: leave it or --cluster out")
    where = device_named("cpu" if cluster else device)
    settings = Settings(method, clusters, seed)
    work = PartialSearch(opened.path / FOLDER)
    with exclusive_lock(work.folder, f"is finding neighbours in {store}"), full_disk_named(opened.path):
        if cluster is None:
            retain_freed_memory(KEPT)
            extractor = load_extractor(features, weights, where)
            work.begin({"store": opened.digest, "features": features, "weights": digest_of_weights(weights)})
            pictures = originals(opened.images)
            features_of_all = quadrant_features(opened, extractor, work)
            found, precision = find(features_of_all, pictures, settings, work, where), "float32"
        else:
            on_ray = import_module("lorbms_fast.cluster.neighbours")
            with import_module("lorbms_fast.cluster.tasks").connected(cluster):
                work.forget_done()
                found, pictures, precision = on_ray.search_on_cluster(
                    opened, Place.of(store), features, weights, settings, device != "cpu", work.features_file
                )
        distances = np.stack([quadrant.distances for quadrant in found], axis=1)
        threshold, why = _threshold(distances, features, tau)
        facts = {
            "method": method,
            "clusters": [len(quadrant.sizes) for quadrant in found],
            "searched": [quadrant.probes for quadrant in found],
            "recall": [quadrant.recall for quadrant in found],
            "pictures": len(np.unique(pictures)),
            "seed": seed,
            "precision": precision,
            "tau_chosen": why,
            "weights": None if weights is None else str(weights.resolve()),
            FEATURES: checksum_to_keep(work.features_file),
        }
        rows = np.stack([quadrant.rows for quadrant in found], axis=1)
        table = NeighbourTable(rows, distances, threshold, features, facts)
        path = table.save(opened)
        images = np.linspace(0, len(opened) - 1, SHEET_IMAGES).astype(int).tolist()
        save_sheet(neighbour_sheet(opened, table, images), opened.path / "neighbours.png")
        keep_features(opened, work.features_file)
        shutil.rmtree(work.folder)
        (Place.of(store) / FOLDER).remove()
    if url_of(store):
        for name in (path.name, "neighbours.png", FEATURES):
            if (opened.path / name).is_file():
                Place.of(store).put(opened.path / name, name)
    print(_report(found, distances, threshold, why))
    print(f"Faiss: {told_faiss(where)}")
    folder = url_of(store) or opened.path
    print(f"{folder}/{path.name}, {folder}/neighbours.png")
    print(f"next: lorbms-fast train {as_word(folder)} --out RUN")
    for warning in _warnings(found, pictures, clusters):
        print(f"warning: {warning}", file=sys.stderr)


def _threshold(distances: NDArray[np.float32], features: str, asked: float | None) -> tuple[float, str]:
    if asked is not None:
        return asked, "as asked"
    if features == "deepcluster":
        return TAU, "the thesis's threshold for these features"
    return half_replacing_tau(distances), "chosen to replace half; the thesis's 16,000 is for other features"


def _report(found: list[Quadrant], distances: NDArray[np.float32], tau: float, why: str) -> str:
    clusters = ", ".join(f"q{q}: {_of_clusters(quadrant)}" for q, quadrant in enumerate(found, start=1))
    recalls = ", ".join(f"q{q}: {quadrant.recall:.1%}" for q, quadrant in enumerate(found, start=1))
    low, middle, high = np.quantile(distances[:: len(distances) // REPORTED + 1], (0.05, 0.5, 0.95))
    fraction = replaced_fraction(draw(distances, seed=1), tau)
    return (
        f"clusters searched for each image: {clusters}\n"
        f"of the ten nearest of all, found (recall, on a sample): {recalls}\n"
        f"squared distances: 5% below {low:,.1f}, half below {middle:,.1f}, 95% below {high:,.1f}\n"
        f"tau = {tau:,.1f} ({why}): {fraction:.0%} of the quadrants are replaced, of each image's four the nearest "
        "always, the farthest never, the others if below tau"
    )


def _of_clusters(quadrant: Quadrant) -> str:
    sizes = quadrant.sizes
    if len(sizes) == 1:
        return f"all {counted(int(sizes[0]), 'image')}"
    return f"{quadrant.probes} of {len(sizes):,} (of {sizes.min():,} to {counted(int(sizes.max()), 'image')})"


def _warnings(found: list[Quadrant], pictures: NDArray[np.int64], clusters: int | None) -> Iterator[str]:
    count = len(np.unique(pictures))
    if clusters is not None and (made := max(len(quadrant.sizes) for quadrant in found)) < clusters:
        yield (
            f"--clusters {clusters} is too many for {counted(count, 'different picture')}, of which a cluster needs "
            f"{NEIGHBOURS + 1} on average: {made}"
        )
    if copies := len(pictures) - count:
        are = "is a copy of another" if copies == 1 else "are copies of others"
        lists = "One of each picture's images stands for all in the lists of neighbours"
        if count <= NEIGHBOURS:
            lists = (
                f"{NEIGHBOURS} neighbours are wanted, other pictures for each image: {count - 1}. Copies fill the rest "
                "of the lists, the image's own last: prepare more different images"
            )
        yield (
            f"{copies:,} of {counted(len(pictures), 'image')} {are} (no part differs by more than "
            f"{TOLERANCE:.0f} of 255 levels); different pictures: {count:,}. {lists}"
        )
    low = [f"q{q}: {quadrant.recall:.1%}" for q, quadrant in enumerate(found, start=1) if quadrant.recall < WANTED]
    if low:
        yield f"less than {WANTED:.0%} of the nearest images were found ({', '.join(low)}): use --method nearest"
