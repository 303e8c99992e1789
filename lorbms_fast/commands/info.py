"""`lorbms-fast info`: print every network's layers, shapes and parameter counts."""

import json as json_format
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from lorbms_fast.config import PRESETS, ModelConfig
from lorbms_fast.errors import UserError
from lorbms_fast.models import build
from lorbms_fast.models.layout import Layer, layout
from lorbms_fast.models.receptive_field import receptive_field, sees_everything, windows_of
from lorbms_fast.models.variants import images_at_once, with_variant
from lorbms_fast.reference.classifier import PAIR
from lorbms_fast.variants import VARIANTS


def info(*, preset: str = "thesis", variant: str = "thesis", json: bool = False) -> None:
    """Print every network's layers, their output shapes for one image, and their parameter counts (Table 3.6).

    With --variant, those of a system of Appendix D, and what it changes; `--variant list` lists all of them.

    Args:
        preset: Whose sizes to show: thesis or demo.
        variant: Name of the system.
        json: Print JSON instead of tables.
    """
    if preset not in PRESETS:
        raise UserError(f"there is no preset '{preset}': choose one of {', '.join(PRESETS)}")
    if variant == "list":
        print("\n".join(f"{name:<34}{summary}" for name, summary in VARIANTS.items()))
        return
    config = with_variant(PRESETS[preset], variant)
    facts = Facts(
        variant,
        changed(asdict(PRESETS[preset]), asdict(config)),
        receptive_fields(config.model),
        describe(config.model),
    )
    (_print_json if json else _print_tables)(facts)


class Facts(NamedTuple):
    """What is printed."""

    variant: str
    changes: dict[str, Any]
    """Settings that the variant changes, by dotted name."""
    receptive_fields: dict[str, int]
    """Pixels that one position of a network's output sees."""
    networks: dict[str, list[Layer]]


def describe(config: ModelConfig) -> dict[str, list[Layer]]:
    """The layers of all four networks, as the reference path computes them."""
    networks = build(config, "reference")
    image = torch.zeros(1, 3, config.image_size, config.image_size)
    code = networks.enc(image)
    beside = (images_at_once(config.classifier) or PAIR) - 1  # images that the classifier sees beside the mixed one
    return {
        "encoder": layout(networks.enc, image),
        "decoder": layout(networks.dec, code),
        "discriminator": layout(networks.dsc, image),
        "classifier": layout(networks.cls, image, image[:, :1].expand(-1, 3 * beside, -1, -1)),
    }


def receptive_fields(config: ModelConfig) -> dict[str, int]:
    """Of encoder and discriminator in pixels; the thesis counts the encoder's from its second layer on."""
    networks = build(config, "reference")
    image = torch.zeros(1, 3, config.image_size, config.image_size)
    fields: dict[str, int] = {}
    if not sees_everything(networks.enc):
        windows = windows_of(networks.enc, image)
        fields |= {"encoder": receptive_field(windows), "encoder, from its second layer": receptive_field(windows[1:])}
    if not sees_everything(networks.dsc):
        fields["discriminator"] = receptive_field(windows_of(networks.dsc, image))
    return fields


def changed(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings of two nested dicts that differ, by dotted name, with their value afterwards."""
    found: dict[str, Any] = {}
    for name, value in after.items():
        if isinstance(value, dict):
            found |= changed(before[name], value, f"{prefix}{name}.")
        elif value != before[name]:
            found[prefix + name] = value
    return found


def totals(networks: dict[str, list[Layer]]) -> dict[str, int]:
    """Trainable parameters of each network, of the generator (encoder and decoder), and of all."""
    counts = {name: sum(layer.parameters for layer in layers) for name, layers in networks.items()}
    return counts | {"generator": counts["encoder"] + counts["decoder"], "total": sum(counts.values())}


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
