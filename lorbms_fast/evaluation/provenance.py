"""What the images of a store are, in words that go beside every number obtained on them."""

from lorbms_fast.dataloader.store import ImageStore

CREDITS = "credits/credits.json"
"""`lorbms-fast compose` puts it beside the sets it makes."""


def is_composed(store: ImageStore) -> bool:
    """Whether the photographs are those that `lorbms-fast compose` made."""
    return any((folder / CREDITS).is_file() for folder in (store.root, *list(store.root.parents)[:2]))


def store_source(store: ImageStore) -> str:
    """The store in words."""
    kind = "composed scenes, not COCO" if is_composed(store) else f"photographs of {store.root}"
    return f"{len(store):,} images of {store.path.name} ({kind})"
