"""Descriptions of a store's images, which go beside every number obtained on them."""

from pathlib import Path

from lorbms_fast.dataloader.store import ImageStore

CREDITS = "credits/credits.json"
"""`lorbms-fast compose` puts it beside the sets it makes."""
MOST_NAMED = 3
"""Max. number of folders that are named; COCO's train2017 and test2017 must not be taken for each other."""


def is_composed(store: ImageStore) -> bool:
    """Tell whether the photographs are those that `lorbms-fast compose` made."""
    return any((folder / CREDITS).is_file() for folder in (store.root, *list(store.root.parents)[:2]))


def store_source(store: ImageStore) -> str:
    """Describe a store in words: how many images of which photographs."""
    places = (Path(source).parts for source in set(store.index["source"].to_pylist()))
    folders = {parts[0] for parts in places if len(parts) > 1}
    inside = f", {' and '.join(sorted(folders))}" if 0 < len(folders) <= MOST_NAMED else ""
    kind = "composed scenes, not COCO" if is_composed(store) else f"photographs of {store.root}{inside}"
    return f"{len(store):,} images of {store.path.name} ({kind})"
