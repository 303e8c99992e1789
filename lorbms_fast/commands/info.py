"""`lorbms-fast info`: print every network's layers, shapes and parameter counts."""

import json as json_format

import torch
from rich.console import Console
from rich.table import Table

from lorbms_fast.config import PRESETS, ModelConfig
from lorbms_fast.errors import UserError
from lorbms_fast.models import build
from lorbms_fast.models.layout import Layer, layout


def info(*, preset: str = "thesis", json: bool = False) -> None:
    """Print every network's layers, their output shapes for one image, and their parameter counts (Table 3.6).

    Args:
        preset: Whose model to show: thesis or demo.
        json: Print JSON instead of tables.
    """
    if preset not in PRESETS:
        raise UserError(f"there is no preset '{preset}': choose one of {', '.join(PRESETS)}")
    networks = describe(PRESETS[preset].model)
    (_print_json if json else _print_tables)(networks)


def describe(config: ModelConfig) -> dict[str, list[Layer]]:
    """The layers of all four networks, as the reference path computes them."""
    networks = build(config, "reference")
    image = torch.zeros(1, 3, config.image_size, config.image_size)
    code = networks.enc(image)
    return {
        "encoder": layout(networks.enc, image),
        "decoder": layout(networks.dec, code),
        "discriminator": layout(networks.dsc, image),
        "classifier": layout(networks.cls, image, image),
    }


def totals(networks: dict[str, list[Layer]]) -> dict[str, int]:
    """Trainable parameters of each network, of the generator (encoder and decoder), and of all."""
    counts = {name: sum(layer.parameters for layer in layers) for name, layers in networks.items()}
    return counts | {"generator": counts["encoder"] + counts["decoder"], "total": sum(counts.values())}


def _print_json(networks: dict[str, list[Layer]]) -> None:
    layers = {name: [layer._asdict() for layer in found] for name, found in networks.items()}
    print(json_format.dumps({"parameters": totals(networks), "layers": layers}, indent=2))


def _print_tables(networks: dict[str, list[Layer]]) -> None:
    console = Console()
    for name, layers in networks.items():
        table = Table("layer", "kind", "output (C, H, W)", title=name)
        table.add_column("parameters", justify="right")
        for layer in layers:
            shape = " x ".join(map(str, layer.output))
            table.add_row(layer.name, layer.kind, shape, f"{layer.parameters:,}")
        console.print(table)
    summary = Table("network", title="trainable parameters")
    summary.add_column("parameters", justify="right")
    for name, count in totals(networks).items():
        summary.add_row(name, f"{count:,}")
    console.print(summary)
