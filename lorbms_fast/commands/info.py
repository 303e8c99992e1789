"""`lorbms-fast info`: print every network's layers, shapes and parameter counts."""

import json as json_format
from dataclasses import asdict
from typing import Any

from rich.console import Console

from lorbms_fast.commands.tables import print_table
from lorbms_fast.config import preset_named
from lorbms_fast.differences import changes
from lorbms_fast.models.summary import Layer, describe, receptive_fields, totals
from lorbms_fast.models.variants import with_variant
from lorbms_fast.variants import VARIANTS


def info(*, preset: str = "thesis", variant: str = "thesis", json: bool = False) -> None:
    """Print every network's layers, their output shapes for one image, and their parameter counts (Table 3.6).

    With --variant, those of a system of Appendix D, and what it changes; `--variant list` lists all of them.

    Args:
        preset: Preset whose sizes are shown: thesis or demo.
        variant: Name of the system.
        json: Print JSON instead of tables.
    """
    base = preset_named(preset)
    if variant == "list":
        print("\n".join(f"{name:<34}{summary}" for name, summary in VARIANTS.items()))
        return
    config = with_variant(base, variant)
    different = {name: value for name, value, _ in changes(asdict(config), asdict(base))}
    fields, networks = receptive_fields(config.model), describe(config.model)
    if not json:
        _print_tables(variant, different, fields, networks)
        return
    facts = {"variant": variant, "changes": different, "receptive_fields": fields, "parameters": totals(networks)}
    layers = {name: [layer._asdict() for layer in found] for name, found in networks.items()}
    print(json_format.dumps(facts | {"layers": layers}, indent=2))


def _print_tables(
    variant: str, different: dict[str, Any], fields: dict[str, int], networks: dict[str, list[Layer]]
) -> None:
    console = Console()
    console.print(f"[bold]{variant}[/bold]: {VARIANTS[variant]}")
    for name, value in different.items():
        console.print(f"  {name} = {value}")
    for name, layers in networks.items():
        rows = [[one.name, one.kind, " x ".join(map(str, one.output)), f"{one.parameters:,}"] for one in layers]
        print_table(["layer", "kind", "output (C, H, W)", "parameters"], rows, name, numbers=1)
    counts = [[name, f"{count:,}"] for name, count in totals(networks).items()]
    print_table(["network", "parameters"], counts, "trainable parameters", numbers=1)
    for name, side in fields.items():
        console.print(f"receptive field of the {name}: {side} x {side}, norms aside")
