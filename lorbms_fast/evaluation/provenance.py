"""Descriptions of a store's images, which go beside every number obtained on them; and published numbers."""

from pathlib import Path
from typing import Any

from lorbms_fast.counted import counted
from lorbms_fast.dataloader.store import ImageStore

CREDITS = "credits/credits.json"
"""`lorbms-fast compose` puts it beside the sets it makes."""
MOST_NAMED = 3
"""Max. number of folders that are named; COCO's train2017 and test2017 must not be taken for each other."""
TABLE_4_4 = {
    "FID": {"mean": 158.5, "sd": 10.9, "best": 137.7, "epoch": 73},
    "IS": {"mean": 6.9, "sd": 0.5, "best": 7.6},
}
"""Thesis, Table 4.4: over the epochs of the headline run."""
AUTHOR_LOGS = (
    "author's logs, epoch 73, not in the thesis: FID 137.66 and IS 7.28 +- 0.15 on te_v2 (of COCO's test2017), "
    "FID 139.69 and IS 7.27 +- 0.17 on tr_v6 (of its train2017)"
)
"""Numbers of the logs in the author's public repository."""


def store_source(store: ImageStore) -> str:
    """Describe a store in words: how many images of which photographs."""
    places = (Path(source).parts for source in set(store.index["source"].to_pylist()))
    folders = {parts[0] for parts in places if len(parts) > 1}
    inside = f", {' and '.join(sorted(folders))}" if 0 < len(folders) <= MOST_NAMED else ""
    near = (store.root, *list(store.root.parents)[:2])
    composed = any((folder / CREDITS).is_file() for folder in near)
    kind = "composed scenes, not COCO" if composed else f"photographs of {store.root}{inside}"
    return f"{counted(len(store), 'image')} of {store.path.name} ({kind})"


def measured_on(store: ImageStore, iteration: int) -> dict[str, Any]:
    """Say in a result which checkpoint was measured, and on what."""
    return {"iteration": iteration, "store": store.path.name, "pictures": store_source(store)}


def table_4_4(measure: str) -> str:
    """Format Table 4.4's numbers for a measure; empty for measures that it does not have.

    >>> table_4_4("FID")
    'mean 158.5, sd 10.9, best 137.7 (epoch 73)'
    >>> table_4_4("KID")
    ''
    """
    if measure not in TABLE_4_4:
        return ""
    found = TABLE_4_4[measure]
    epoch = f" (epoch {found['epoch']})" if "epoch" in found else ""
    return f"mean {found['mean']}, sd {found['sd']}, best {found['best']}{epoch}"
