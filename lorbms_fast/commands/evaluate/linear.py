"""`lorbms-fast evaluate linear`: linear classification on STL-10."""

from pathlib import Path
from typing import Annotated

import tyro

from lorbms_fast.commands.options import RunFolder
from lorbms_fast.commands.tables import print_table
from lorbms_fast.devices import device_named
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.datasets.stl10 import read_stl10
from lorbms_fast.evaluation.linear import ROWS, check_needed, evaluate_row, in_columns
from lorbms_fast.evaluation.pretraining import Sources
from lorbms_fast.evaluation.probe import LinearConfig


def linear(
    run: RunFolder,
    /,
    *,
    stl10: Path,
    rows: tuple[str, ...] = ("random", "discriminator", "encoder"),
    voc: Path | None = None,
    imagenet: Path | None = None,
    alexnet: Path | None = None,
    keep_features: bool = False,
    device: str = "auto",
    settings: Annotated[LinearConfig, tyro.conf.arg(name="")] = LinearConfig(),  # noqa: B008  # frozen
) -> None:
    """Classify STL-10 linearly by the protocol of Coates et al. (Table 4.3).

    Features of frozen networks are computed once, for all ten folds; the ten classifiers are trained together.
    Finished rows are kept in RUN/evaluation/linear and not computed again; an interrupted one goes on where it was.
    Without a GPU, --views 5 bounds the time: five random views of each picture instead of a new one each epoch.

    Rows: random, random-finetuned, stl10-encoder, pascal-encoder (needs --voc), stl10-alexnet, imagenet-alexnet (needs
    --imagenet or --alexnet), discriminator, discriminator-finetuned, encoder, encoder-finetuned,
    knowledge-transfer-discriminator, knowledge-transfer-encoder; or all.

    Args:
        run: Folder of a training run.
        stl10: Folder stl10_binary of STL-10, or of a set in its format that `lorbms-fast compose` made.
        rows: Rows of the table to compute.
        voc: Folder of PASCAL VOC.
        imagenet: Folder with a folder of pictures for each class.
        alexnet: Weights of ImageNet AlexNet from an earlier evaluation (evaluation/pretrained/*.safetensors).
        keep_features: Leave computed features on disk.
        device: `cpu`, `cuda`, `cuda:1`; auto takes a GPU when there is one.
        settings: Lengths and sizes.
    """
    names = list(ROWS) if rows == ("all",) else list(rows)
    if unknown := [name for name in names if name not in ROWS]:
        raise UserError(f"there is no row '{unknown[0]}': choose of {', '.join(ROWS)}, or all")
    data = read_stl10(stl10)
    sources = Sources(run, data, settings, device_named(device), voc, imagenet, alexnet)
    for name in names:
        check_needed(name, sources)  # all before the first, which takes hours
    results = [evaluate_row(name, sources, keep_features=keep_features) for name in names]
    cells = [[*in_columns(result), result["lengths"]] for result in results]
    title = f"Test accuracy, %. Pictures: {data.test.source}"
    print_table(["row", "here", "thesis", "classifier", "setting"], cells, title)
