"""The content of the page: a run, its images and neighbours."""

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lorbms_fast.app.pictures import of_address, photograph_of, png_address
from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.pixels import to_float_nchw, to_uint8_nhwc
from lorbms_fast.dataloader.resize import center_crop
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError, as_word
from lorbms_fast.kernels.lorbms.chunk_mixing.reference import mix_chunks
from lorbms_fast.mixing import parse_mask
from lorbms_fast.rendering.scenes import collage
from lorbms_fast.run import Run, load_networks
from lorbms_fast.similarity.features import load_extractor
from lorbms_fast.similarity.features.extractor import Extractor
from lorbms_fast.similarity.stored_features import load_features, nearest_to
from lorbms_fast.tiles import is_grid, replaced_chunks
from lorbms_fast.types import Networks


@dataclass
class RunView:
    """A run, its newest networks, and its images and neighbours if they are still there."""

    run: Run
    store: ImageStore | None
    table: NeighbourTable | None
    features: NDArray[np.float32] | None = None
    """Features of the store's quadrants, (4, N, D), if they were kept."""
    _networks: dict[Path, Networks] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    """Lock for the networks: requests of several threads would only fight for the same cores."""

    @classmethod
    def open(cls, folder: Path) -> "RunView":
        """Open a run with a checkpoint, even without its store; UserError where its tiles are no parts of a picture."""
        run = Run.open(folder)
        run.latest()
        if not is_grid(tiles := run.config.model.tiles):
            raise UserError(
                f"{folder} mixes {tiles} tiles that have no place in the picture, so there is nothing to click: "
                f"use  lorbms-fast transfer --mask  with {tiles} digits"
            )
        store = table = features = None
        with suppress(UserError):
            store = ImageStore.open(run.store)
            table = NeighbourTable.load(store)
            features = load_features(store)
        return cls(run, store, table, features)

    def facts(self) -> dict[str, Any]:
        """Facts about the run, and the names of its pictures."""
        return {
            "name": self.run.folder.resolve().name,
            "iteration": int(self.run.latest().name),
            "side": self.side,
            "tiles": self.run.config.model.tiles,
            "images": 0 if self.store is None else len(self.store),
            "neighbours": self.table is not None,
            "searchable": self.features is not None,
            "pictures": [self.name(path) for path in self.pictures()],
        }

    @property
    def side(self) -> int:
        """Side of the networks' images in pixels."""
        return self.run.config.model.image_size

    def pictures(self) -> list[Path]:
        """List the run's pictures: rendered ones, plots of its evaluations, and its sheets, newest first."""
        inside = self.run.folder.resolve()
        drawn = (sorted(self.run.folder.glob(names)) for names in ("*.png", "evaluation/*.png", "evaluation/*/*.png"))
        found = [*chain(*drawn), *sorted(self.run.folder.glob("sheets/*.png"), reverse=True)]
        return [path for path in found if path.is_file() and path.resolve().is_relative_to(inside)]

    def name(self, picture: Path) -> str:
        """Name of a picture on the page: its path in the run."""
        return picture.relative_to(self.run.folder).as_posix()

    def image(self, row: int) -> NDArray[np.uint8]:
        """Read an image of the run's store, (S, S, 3); UserError where there is none."""
        if self.store is None or not 0 <= row < len(self.store):
            raise UserError(f"there is no image {row}: {self.facts()['images']:,} are at hand")
        return np.asarray(self.store.images[row])

    def neighbours(self, row: int) -> dict[str, Any]:
        """Look up rows and squared distances of each quadrant's ten neighbours, nearest first; else UserError."""
        self.image(row)
        if self.table is None or self.store is None:
            raise UserError(
                f"{self.run.store} has no neighbours: run  lorbms-fast neighbours {as_word(self.run.store)}"
            )
        return {
            "row": row,
            "id": self.store.index["id"][row].as_py(),
            "tau": self.table.tau,
            "rows": self.table.rows[row].tolist(),
            "distances": self.table.distances[row].tolist(),
        }

    def neighbours_of(self, upload: bytes) -> dict[str, Any]:
        """Search the store for the neighbours of an uploaded picture's quadrants; `square` is the picture's address.

        Raises UserError if it is no picture, the features were not kept, or their extractor cannot be had.
        """
        if self.table is None or self.features is None:
            raise UserError(f"the features of {self.run.store} were not kept: run  lorbms-fast neighbours  on it again")
        photograph = photograph_of(upload)
        with self._turn:
            extractor = self._extractor
            found = extractor.extract(center_crop(photograph, extractor.side)[None])[0]
            rows, distances = nearest_to(found, self.features)
        return {
            "square": png_address(center_crop(photograph, self.side)),
            "tau": self.table.tau,
            "rows": rows.tolist(),
            "distances": distances.tolist(),
        }

    def transfer(self, request: dict[str, Any]) -> dict[str, str]:
        """Mix two pictures; return addresses of `collage`, `I_mix`, and the reconstructions `I_hat` and `I_hat_obj`.

        The request has `object` and `scene`, addresses of pictures; `mask` such as `0010`, a digit a tile; and `amount`
        in [0, 1], the weight of the object's chunks against the scene's. Raises UserError if a part of the request is
        missing or cannot be.
        """
        mask = parse_mask(str(request.get("mask")), self.run.config.model.tiles)[None]
        amount = _fraction(request.get("amount", 1.0))
        I_obj, I_ref = (to_float_nchw(of_address(request.get(name), self.side)) for name in ("object", "scene"))
        with self._turn, torch.inference_mode():
            networks = self._newest()
            f_obj, f_ref = networks.enc(torch.stack([I_obj, I_ref])).split(1)
            f_mix = torch.lerp(f_ref, mix_chunks(f_ref, f_obj, replaced_chunks(mask, f_ref.shape[1])), amount)
            I_mix, I_hat, I_hat_obj = networks.dec(torch.cat([f_mix, f_ref, f_obj]))
        pasted = collage(I_ref[None], I_obj[None, None], mask)[0]
        made = {"collage": pasted, "I_mix": I_mix, "I_hat": I_hat, "I_hat_obj": I_hat_obj}
        return {name: png_address(to_uint8_nhwc(image)) for name, image in made.items()}

    @cached_property
    def _extractor(self) -> Extractor:
        """Extractor of the store's features."""
        assert self.table is not None
        weights = self.table.facts.get("weights")
        return load_extractor(self.table.features, None if weights is None else Path(weights), torch.device("cpu"))

    def _newest(self) -> Networks:
        """Load the newest checkpoint's networks: a run may still be training."""
        if (path := self.run.latest()) not in self._networks:
            self._networks.clear()
            self._networks[path] = load_networks(self.run.folder)
        return self._networks[path]


def _fraction(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"amount {value!r}: it goes from 0 (the scene's chunk) to 1 (the object's)")
    return float(value)
