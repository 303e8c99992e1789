"""ImageNet as it is unpacked: a folder a class."""

import os
from pathlib import Path

import numpy as np

from lorbms_fast.dataloader.sources.folder import SUFFIXES, is_hidden
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.datasets.labelled import Files, Labelled


def read_class_folders(folder: Path) -> Labelled:
    """Read the pictures of `folder/<class>/`, classes by name; UserError where fewer than two have any."""
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: name the folder of ImageNet's classes, such as ILSVRC2012/train")
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name))
    files = {
        name: sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES and not is_hidden(p.name))
        for name in classes
    }
    classes = [name for name in classes if files[name]]
    if len(classes) < 2:
        raise UserError(f"{folder} has {len(classes)} folders with pictures: ImageNet has one for each class")
    labels = np.repeat(np.arange(len(classes)), [len(files[name]) for name in classes])
    paths = [path for name in classes for path in files[name]]
    source = f"folders of ImageNet's kind, {folder.name}, {len(classes)} classes, {len(paths)} images"
    return Labelled(Files(paths), labels, tuple(classes), source)
