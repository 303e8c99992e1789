"""The page of the variants names each of them."""

from pathlib import Path

from lorbms_fast.variants import VARIANTS

PAGE = Path(__file__).parents[2] / "docs" / "variants.md"


def test_every_variant_has_a_row():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert {name for name in VARIANTS if any(f"`{name}`" in row.split("|")[1] for row in rows)} == set(VARIANTS)
