"""A folder with pictures as well as tar archives."""

from pathlib import Path

from lorbms_fast.dataloader.sources.folder import named_pictures, notes_on, tree_below, unread_pictures
from lorbms_fast.dataloader.sources.listing import Listing, identified
from lorbms_fast.dataloader.sources.tar import archives_in, named_members


def of_mixed(root: Path) -> Listing:
    """List the pictures below a folder, and those in the tar archives below it.

    Raises:
        UserError: there is no such folder, or a folder cannot be read.
    """
    tree = tree_below(root)
    loose = named_pictures(tree)
    packed, unusable = named_members(root, archives_in(tree))
    note = f"{len(loose):,} pictures lie beside archives with {len(packed):,}: --layout folder or tar takes one kind"
    return Listing(identified([*loose, *packed]), unread_pictures(tree) + unusable, [note, *notes_on(root, tree)])
