"""`lorbms-fast info`: print every network's layers, shapes and parameter counts."""

import json as json_format
from dataclasses import asdict
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

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
    facts = Facts(variant, different, receptive_fields(config.model), describe(config.model))
    (_print_json if json else _print_tables)(facts)


class Facts(NamedTuple):
    """Facts on a variant that are printed."""

    variant: str
    changes: dict[str, Any]
    """Settings that the variant changes, by dotted name."""
    receptive_fields: dict[str, int]
    """Pixels that one position of a network's output sees."""
    networks: dict[str, list[Layer]]


def _print_json(facts: Facts) -> None:
    layers = {name: [layer._asdict() for layer in found] for name, found in facts.networks.items()}
    content = facts._asdict() | {"parameters": totals(facts.networks), "layers": layers}
    del content["networks"]
    print(json_format.dumps(content, indent=2))


def _print_tables(facts: Facts) -> None:
    console = Console()
    console.print(f"[bold]{facts.variant}[/bold]: {VARIANTS[facts.variant]}")
    for name, value in facts.changes.items():
        console.print(f"  {name} = {value}")
    for name, layers in facts.networks.items():
        table = Table("layer", "kind", "output (C, H, W)", title=name)
        table.add_column("parameters", justify="right")
        for layer in layers:
            shape = " x ".join(map(str, layer.output))
            table.add_row(layer.name, layer.kind, shape, f"{layer.parameters:,}")
        console.print(table)
    summary = Table("network", title="trainable parameters")
    summary.add_column("parameters", justify="right")
    for name, count in totals(facts.networks).items():
        summary.add_row(name, f"{count:,}")
    console.print(summary)
    for name, side in facts.receptive_fields.items():
        console.print(f"receptive field of the {name}: {side} x {side}, norms aside")
