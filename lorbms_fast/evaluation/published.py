"""Numbers of generated images that others have published, with their source."""

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
