"""What is written beside the networks: how to call them, and one HTML file that transfers objects without a server."""

import base64
import gzip
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray

from lorbms_fast.app.pictures import png_address
from lorbms_fast.app.server import page_part
from lorbms_fast.errors import UserError
from lorbms_fast.export.generator import Generator

RUNTIME = {"ort.mjs": "ort.wasm.bundle.min.mjs", "ort.wasm": "ort-wasm-simd-threaded.wasm"}
"""Names on the page of the files it needs from `dist` of the npm package onnxruntime-web."""

TEMPLATES = Environment(
    loader=PackageLoader("lorbms_fast.export", "static"), trim_blocks=True, keep_trailing_newline=True
)


def write_explanation(generator: Generator, target: Path) -> None:
    """Write how the exported files are called."""
    of_chunk = generator.of_chunk.tolist()
    target.write_text(TEMPLATES.get_template("README.txt").render(vars(generator), of_chunk=of_chunk))


def write_page(
    encoder: Path, decoder: Path, runtime: Path, generator: Generator, title: str, target: Path,
    pictures: Sequence[NDArray[np.uint8]] = (),
) -> None:  # fmt: skip
    """Write the page from ONNX files, the folder of the npm package onnxruntime-web, and the exported generator.

    `pictures`, uint8 (S, S, 3), come with the page to be mixed. Raises UserError if the runtime is not there.
    """
    assets = runtime_files(runtime)
    contents = {name: path.read_bytes() for name, path in (assets | {"enc": encoder, "dec": decoder}).items()}
    contents["transfer.js"] = page_part("transfer.js").encode()
    model = generator.config
    facts = {
        "title": title,
        "side": model.image_size,
        "chunk": model.chunk,
        "tiles": model.tiles,
        "of_chunk": generator.of_chunk.tolist(),
        "pictures": [png_address(picture) for picture in pictures],
    }
    page = TEMPLATES.get_template("demo.html").render(
        style=page_part("style.css"),
        transfer=page_part("transfer.html"),
        facts=facts,
        assets={name: packed(content) for name, content in contents.items()},
        script=(files("lorbms_fast.export") / "static" / "demo.js").read_text(),
    )
    target.write_text(page)


def runtime_files(runtime: Path) -> dict[str, Path]:
    """Find the runtime's files by their names on the page; UserError where one is not there."""
    found = {name: runtime / "dist" / file for name, file in RUNTIME.items()}
    if missing := [path for path in found.values() if not path.is_file()]:
        raise UserError(
            f"{missing[0]} is missing: fetch the runtime with  npm install onnxruntime-web  "
            "and name node_modules/onnxruntime-web with --web"
        )
    return found


def packed(content: bytes) -> str:
    """Pack bytes as text that the page unpacks: gzip, then base64."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()
