"""`lorbms-fast check`: compare a store with its checksums."""

import sys

from lorbms_fast.commands.options import StoreFolder
from lorbms_fast.counted import counted
from lorbms_fast.dataloader.neighbour_table import FILE, NeighbourTable
from lorbms_fast.dataloader.places import url_of
from lorbms_fast.dataloader.store import ImageStore, checksum, damaged
from lorbms_fast.errors import UserError, as_word
from lorbms_fast.progress import tqdm
from lorbms_fast.similarity.stored_features import FILE as FEATURES
from lorbms_fast.similarity.stored_features import load_features


def check(store: StoreFolder, /) -> None:
    """Read a whole store and compare every file with the checksum noted when it was written, neighbours included.

    Exit status 0: everything is as it was written; 1: the damaged files are named; 2: it cannot be opened at all.

    Args:
        store: Folder made by `lorbms-fast prepare`.
    """
    opened = ImageStore.open(store)
    named = url_of(store) or store
    total = sum((opened.path / name).stat().st_size for name in opened.facts["sha256"])
    bad = []
    with tqdm(total=total, desc="checking", unit="B", unit_scale=True) as bar:
        for name, is_bad in damaged(opened):
            bad += [name] if is_bad else []
            bar.update((opened.path / name).stat().st_size)
    for name in bad:
        print(f"{named}/{name} is not what was written")
    if bad:
        print(f"{len(bad)} of {len(opened.facts['sha256'])} files are damaged: remove {named} and prepare it again")
        sys.exit(1)
    shards = counted(len(opened.facts["shards"]), "shard")
    found = f"{named}: {counted(len(opened), 'image')} of {opened.side} px in {shards}, all as written"
    if (opened.path / FILE).is_file():
        try:
            table = NeighbourTable.load(opened)
        except UserError as error:
            print(error)
            sys.exit(1)
        features = opened.path / FEATURES
        noted = table.facts.get(FEATURES)
        if features.is_file() and (checksum(features) != noted if noted else load_features(opened) is None):
            again = f"lorbms-fast neighbours {as_word(named)}"
            print(f"{named}/{FEATURES} is not what was written: remove it, or run  {again}  again")
            sys.exit(1)
        found += f"; neighbours on {table.features} features, tau {table.tau:,.1f}"
    print(found)
